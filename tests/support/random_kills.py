"""Random kills over the participant level, the group level, reports and --overwrite.

    python tests/support/random_kills.py [KILLS] [SEED]

Each round starts from a whole tree of the same or of other settings, or from nothing,
ends a call by SIGKILL after a random number of renames, and gives the same command
again until it is done; a refusal has to name a file or a run. The tree must then be
that of a calm call, byte for byte.
"""

import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import datasets
from support.fault_tools import Server, files_of, leftovers

RUNS = [f"sub-0{n}_task-rest" for n in (1, 2)]
SETS = (("--fd-threshold", "0.5"), ("--fd-threshold", "0.3"))
MOTION = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]


def write_model(folder):
    """Two runs with confounds, an atlas and a strategy; the words that they need."""
    root = datasets.write_dataset(folder / "in", [])
    for seed, run in enumerate(RUNS):
        rng = np.random.default_rng(seed)
        data = rng.normal(1000, 5, (*datasets.SHAPE, 40)).astype(np.float32)
        datasets.write_run(root, f"{run}_space-{datasets.SPACE}", data)
        fd = ["n/a", *rng.uniform(0, 0.6, 39).round(3).astype(str)]
        moved = rng.normal(0, 0.1, (40, 6)).round(4).astype(str)
        rows = ["\t".join([x, *row]) for x, row in zip(fd, moved, strict=True)]
        head = "\t".join(["framewise_displacement", *MOTION])
        place = root / run.split("_")[0] / "func"
        table = place / f"{run}_desc-confounds_timeseries.tsv"
        table.write_text("\n".join([head, *rows]) + "\n")
    strategy = folder / "Own.json"
    content = {"name": "own", "label": "Own", "components": [{"motion": "basic"}]}
    strategy.write_text(json.dumps({**content, "settings": {"detrend": True}}))
    atlas = datasets.write_atlas(folder / "atlas")
    words = ["--atlas-file", atlas, "--denoise", "none", strategy]
    return root, [*words, "--relmat", "pearson"]


class Archive:
    """One output folder, and how its two levels are called."""

    def __init__(self, server, root, words, out):
        self.server, self.root, self.words, self.out = server, root, words, out

    def participant(self, *more, **fault):
        arguments = (self.root, self.out, "participant", *self.words, *more)
        return self.server.run(*arguments, **fault)

    def group(self, **fault):
        return self.server.run(self.root, self.out, "group", **fault)


def kill_once(archive, calm, rng):
    """One round; what came of it."""
    how = rng.choice(["fresh", "overwrite", "overwrite the same", "group"])
    before, asked = rng.sample(SETS, 2)
    if how != "fresh":
        start = before if how == "overwrite" else asked
        shutil.copytree(calm[start], archive.out)
    after = rng.randrange(1, 45 if how != "group" else 40)
    fault = {"after": after, "then": "SIGKILL"}
    if how == "group":
        first = archive.group(**fault)
    else:
        more = ("--overwrite",) if how.startswith("overwrite") else ()
        first = archive.participant(*asked, *more, **fault)
    again = archive.participant(*asked)
    refused = again.returncode != 0
    if refused:
        if not any(run in again.stderr for run in RUNS):
            return f"{how}: refused without a name: {again.stderr}"
        again = archive.participant(*asked, "--overwrite")
    group = archive.group()
    if again.returncode or group.returncode:
        return f"{how} after {after}: {again.stderr}{group.stderr}"
    expected, found = files_of(calm[asked]), files_of(archive.out)
    if found != expected:
        odd = [k for k in {*found, *expected} if found.get(k) != expected.get(k)]
        return f"{how} after {after}: other bytes in {sorted(odd)}"
    if left := leftovers(archive.out):
        return f"{how} after {after}: left over {left}"
    ended = "killed" if first.returncode == -9 else "ended before"
    return f"ok, {how}, {ended}{', refused by name' if refused else ''}"


def main(n_kills=100, seed=0):
    """Do the rounds; the exit code is 1 where one was not as it should be."""
    rng, counts = random.Random(seed), Counter()
    server = Server()
    with tempfile.TemporaryDirectory(prefix="bids_roi-kills-") as name:
        folder = Path(name)
        root, words = write_model(folder)
        calm = {}
        for number, asked in enumerate(SETS):
            calm[asked] = folder / f"calm{number}"
            archive = Archive(server, root, words, calm[asked])
            for done in (archive.participant(*asked), archive.group()):
                if done.returncode:
                    sys.exit(done.stderr)
        archive = Archive(server, root, words, folder / "out")
        n_killed = 0
        while n_killed < n_kills:
            shutil.rmtree(archive.out, ignore_errors=True)
            told = kill_once(archive, calm, rng)
            n_killed += "ended before" not in told
            counts[told] += 1
            sys.stdout.write(f"{told}\n")
            sys.stdout.flush()
    server.close()
    for told, n in sorted(counts.items()):
        sys.stdout.write(f"{n:4d}  {told}\n")
    return int(any(not told.startswith("ok") for told in counts))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
