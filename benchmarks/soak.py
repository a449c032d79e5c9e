"""Memory of one long call, and what it costs to go on with a finished one.

A derivative of many participants with two tiny runs each goes through one call with
--no-report (or with --report): with images of 8 x 8 x 8 x 20, all but the mechanism
costs next to nothing. While
it works, the memory of the command and of its workers is sampled; then the same command
is given again, and finds all outputs there. Processor seconds are those of the command
and all its workers. Not part of the tests but for ``--quick``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bids_roi.images.nifti import write_image

SPACE = "MNI152NLin2009cAsym"
SHAPE = (8, 8, 8)
N_VOLUMES = 20
COMMAND = str(Path(sys.executable).with_name("bids_roi"))


class Call(NamedTuple):
    """What one call took."""

    cpu: float
    wall: float
    memory: dict[str, list[tuple[int, float]]]  # who: (runs done, MB)


def make_dataset(root: Path, n_participants: int) -> str:
    """Write a derivative of two runs a participant; the value of --atlas-file."""
    rng = np.random.default_rng(0)
    affine = np.diag([3.0, 3, 3, 1])
    root.mkdir()
    said = {"Name": "Soak", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}
    said["GeneratedBy"] = [{"Name": "fMRIPrep", "Version": "23.2.0"}]
    (root / "dataset_description.json").write_text(json.dumps(said))
    for number in range(n_participants):
        func = root / f"sub-{number:04d}" / "func"
        func.mkdir(parents=True)
        for run in (1, 2):
            stem = f"sub-{number:04d}_task-rest_run-{run}"
            data = rng.normal(1000, 10, (*SHAPE, N_VOLUMES)).astype("f4")
            series = func / f"{stem}_space-{SPACE}_desc-preproc_bold.nii.gz"
            write_image(series, data, affine, repetition_time=2.0)
            (func / f"{stem}_space-{SPACE}_desc-preproc_bold.json").write_text(
                json.dumps({"RepetitionTime": 2.0, "TaskName": "rest"})
            )
            mask = func / f"{stem}_space-{SPACE}_desc-brain_mask.nii.gz"
            write_image(mask, np.ones(SHAPE, "u1"), affine)
            motion = rng.gamma(2, 0.1, N_VOLUMES)
            rows = ["n/a", *(f"{value:.6f}" for value in motion[1:])]
            table = func / f"{stem}_desc-confounds_timeseries.tsv"
            table.write_text("\n".join(["framewise_displacement", *rows]) + "\n")
    labels = np.arange(8, dtype="i2").reshape(2, 2, 2).repeat(4, 0).repeat(4, 1)
    atlas = root.parent / f"tpl-{SPACE}_atlas-Soak_dseg.nii.gz"
    write_image(atlas, labels.repeat(4, 2), affine)
    regions = [f"{n}\tregion {n}" for n in range(1, 8)]
    table = atlas.with_name(atlas.name.replace(".nii.gz", ".tsv"))
    table.write_text("\n".join(["index\tname", *regions]) + "\n")
    return f"{atlas},{table}"


def call(
    root: Path, out: Path, atlas: str, n_workers: int, interval: float, *, report: bool
) -> Call:
    """Run the participant level once, and look at its memory until it ends."""
    events = out.parent / "events.jsonl"
    events.unlink(missing_ok=True)
    argv = [COMMAND, str(root), str(out), "participant", "--atlas-file", atlas, "-q"]
    argv += ["--n-procs", str(n_workers), "--events", str(events)]
    argv += [] if report else ["--no-report"]
    memory: dict[str, list[tuple[int, float]]] = defaultdict(list)
    began, names, n_done, read = time.monotonic(), {}, 0, 0
    process = os.posix_spawn(COMMAND, argv, os.environ)
    while True:
        ended, status, used = os.wait4(process, os.WNOHANG)
        if ended:
            break
        if events.exists():
            with events.open("rb") as file:
                file.seek(read)
                text = file.read()
            read += len(text)
            n_done += text.count(b'"event": "run"')
        for number in (process, *_children(process)):
            megabytes = _resident(number)
            if number == process:
                memory["command"].append((n_done, megabytes))
            elif megabytes:
                name = names.setdefault(number, f"process {len(names) + 1}")
                memory[name].append((n_done, megabytes))
        time.sleep(interval)
    if status:
        raise SystemExit(f"bids_roi ended with {os.waitstatus_to_exitcode(status)}")
    wall = time.monotonic() - began
    return Call(used.ru_utime + used.ru_stime, wall, dict(memory))


def _children(process: int) -> list[int]:
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _resident(process: int) -> float:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    _, there, rest = status.partition("VmRSS:")
    return int(rest.split()[0]) / 1024 if there else 0.0


def show_memory(memory: dict[str, list[tuple[int, float]]], n_runs: int) -> None:
    """Print the memory of each process at tenths of the runs."""
    shares = (0.1, 0.25, 0.5, 0.75, 1.0)
    say("\n| MB resident after runs | " + " | ".join(f"{s * n_runs:g}" for s in shares))
    say("|---" * (len(shares) + 1) + "|")
    for name, found in memory.items():
        if len(found) > 10 or name == "command":
            # The last sample before the mark; processes shrink as they end.
            cells = [[mb for n, mb in found if n <= s * n_runs * 0.99] for s in shares]
            say(f"| {name} | " + " | ".join(f"{c[-1]:.0f}" if c else "" for c in cells))


def main() -> None:
    """Understand the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--participants", type=int, default=1000)
    parser.add_argument("--n-procs", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for the data, 0.1 MB a run")
    parser.add_argument("--report", action="store_true", help="with figures and pages")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    n = 6 if given.quick else given.participants
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        atlas = make_dataset(folder / "in", n)
        where = (folder / "in", folder / "out", atlas, given.n_procs)
        first, again = (
            call(*where, 0.1 if given.quick else 0.5, report=given.report)
            for _ in range(2)
        )
    say(f"{2 * n} runs of {n} participants, {given.n_procs} processes.\n")
    say("| call | CPU s | CPU ms a run | wall s |")
    say("|---|---|---|---|")
    for what, took in (("first", first), ("again, all there", again)):
        cells = (took.cpu, took.cpu / (2 * n) * 1000, took.wall)
        say(f"| {what} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    say(f"| ratio | {again.cpu / first.cpu:.2f} | | {again.wall / first.wall:.2f} |")
    for what, took in (("first", first), ("again", again)):
        say(f"\n{what}:")
        show_memory(took.memory, 2 * n)


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
