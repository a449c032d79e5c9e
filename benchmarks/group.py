"""CPU time, wall time and peak memory of the group level against the number of runs.

The outputs of the participant level are generated: two runs a participant, one atlas
of 400 regions in seven networks; a run has a matrix with all its digits (3.2 MB), a
series of 300 volumes (2.1 MB), a region table, sidecars with their digests, a record.
Tables of all runs are links to ``--distinct`` different ones (1,000 of 400 regions
take 5.3 GB), each of which is read, checked and parsed as if it were a run's own. From
a cold disk, the time to read them comes on top. Not part of the tests but for
``--quick``: timings of a shared machine are no assertions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bids_roi.files.tables import format_matrix, format_table

SPACE = "MNI152NLin2009cAsym"
KINDS = ("relmat", "timeseries", "dseg")


def make_pool(pool: Path, n_distinct: int, n_regions: int) -> list[dict[str, str]]:
    """Write the tables that runs link to; returns their digests."""
    rng = np.random.default_rng(0)
    pool.mkdir(parents=True)
    names = [f"7Networks_LH_Net{n % 7}_{n + 1}" for n in range(n_regions)]
    digests = []
    for number in range(n_distinct):
        # Noise on a common base: as cheap as it gets, and no two numbers alike.
        signals = rng.normal(size=(300, n_regions)) + rng.normal(size=(300, 1))
        lost = int(rng.integers(n_regions))
        signals[:, lost] = np.nan
        with np.errstate(invalid="ignore"):
            matrix = np.corrcoef(signals.T)
        matrix = (matrix + matrix.T) / 2
        np.fill_diagonal(matrix, np.where(np.arange(n_regions) == lost, np.nan, 1))
        texts = {
            "relmat": "".join(format_matrix(names, matrix, rows=names, corner="Node")),
            "timeseries": "".join(format_matrix(names, 1e4 + 9 * signals)),
            "dseg": _regions(rng, names),
        }
        for kind, text in texts.items():
            (pool / f"{number}_{kind}.tsv").write_text(text)
        digests.append(
            {k: hashlib.sha256(t.encode()).hexdigest() for k, t in texts.items()}
        )
    return digests


def make_outputs(
    folder: Path, pool: Path, digests: list[dict[str, str]], n: int
) -> None:
    """Write what the participant level would of ``n`` runs: links for tables."""
    rng = np.random.default_rng(1)
    for number in range(n):
        person, run = f"sub-{number // 2:05d}", number % 2 + 1
        func = folder / person / "func"
        func.mkdir(parents=True, exist_ok=True)
        stem = f"{person}_task-rest_run-{run}_space-{SPACE}"
        base = f"{stem}_atlas-Bench"
        tables = {
            "relmat": f"{base}_stat-pearsoncorrelation_desc-36P_relmat",
            "timeseries": f"{base}_stat-mean_desc-36P_timeseries",
            "dseg": f"{base}_dseg",
        }
        bold = f"{person}/func/{stem}_desc-preproc_bold.nii.gz"
        content = {
            "Atlas": "Bench",
            "OptionsDigest": "0123456789ab",
            "RepetitionTime": 2.0,
            "NumberOfVolumes": 300,
            "MeanFramewiseDisplacement": float(rng.gamma(2, 0.1)),
        }
        stamps = []
        which = number % len(digests)
        for kind, name in tables.items():
            source, digest = pool / f"{which}_{kind}.tsv", digests[which][kind]
            os.link(source, func / f"{name}.tsv")
            state = source.stat()
            table = f"{person}/func/{name}.tsv"
            stamps.append([table, state.st_size, state.st_mtime_ns, digest])
            sources = [f"bids:preprocessed:{bold}"]
            if kind == "relmat":
                sources = [f"bids::{person}/func/{tables['timeseries']}.tsv"]
            own = {"Sources": sources, "TableDigest": f"sha256:{digest}", **content}
            if kind == "relmat":
                own["FisherZ"] = False
            (func / f"{name}.json").write_text(json.dumps(own))
        logs = folder / "logs" / person
        logs.mkdir(parents=True, exist_ok=True)
        record = {"run": bold, "atlas": "Bench", "status": "done", "strategy": "36P"}
        record |= {"outputs": [stamp[0] for stamp in stamps], "stamps": stamps}
        name = f"{Path(bold).name.partition('.')[0]}.0123456789ab.jsonl"
        (logs / name).write_text(json.dumps(record) + "\n")


def _regions(rng: np.random.Generator, names: list[str]) -> str:
    n = len(names)
    atlas = np.random.default_rng(0)  # of which the centres are, whatever the run
    columns = {
        "index": range(1, n + 1),
        "name": names,
        "network": [f"Net{k % 7}" for k in range(n)],
        **{axis: atlas.normal(0, 40, n).tolist() for axis in "xyz"},
        "centre_offset": [0.0] * n,
        "n_voxels_atlas": [200] * n,
        "coverage": rng.uniform(0.5, 1, n).tolist(),
        "status": ["ok"] * n,
        "mean": rng.normal(1000, 50, n).tolist(),
        "standard_deviation": rng.uniform(5, 20, n).tolist(),
        "tsnr": rng.normal(60, 9, n).tolist(),
    }
    return format_table(columns)


def work(folder: Path, n_procs: int, stack: str) -> None:
    """Run the group level in this process and print what it took."""
    from bids_roi.group.level import run_group_level
    from bids_roi.options.record import Options

    wall = time.perf_counter()
    words = ("timeseries", "relmat") if stack == "all" else (stack,)
    run_group_level(folder, Options.of(n_procs=n_procs, stack=words))
    spent = os.times()
    cpu = spent.user + spent.system + spent.children_user + spent.children_system
    # Not from the parent's accounts: those start at the parent's own size.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    wall = time.perf_counter() - wall
    sys.stdout.write(json.dumps({"wall": wall, "cpu": cpu, "peak": peak}) + "\n")


def measure(folder: Path, n_procs: int, stack: str) -> dict[str, float]:
    """Run the group level in a process of its own; seconds and MB.

    CPU seconds are of all its processes with their start. The stack is always made
    anew.
    """
    for old in folder.glob("group_*"):
        old.unlink()
    case = ["--case", str(folder), "--procs", str(n_procs), "--stack", stack]
    done = subprocess.run(
        [sys.executable, __file__, *case],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=True,
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    """Understand the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--regions", type=int, default=400)
    parser.add_argument("--distinct", type=int, default=1000)
    parser.add_argument("--procs", type=int, default=2)
    parser.add_argument("--stack", nargs="+", default=["none", "all"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the outputs, 5 MB a run")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.case:
        work(given.case, given.procs, given.stack[0])
        return
    runs, n_regions, n_distinct = given.runs, given.regions, given.distinct
    rounds = given.rounds
    if given.quick:
        runs, n_regions, n_distinct, rounds = [20, 40], 12, 8, 1
    say(f"{n_regions} regions, one matrix and series a run, {n_distinct} different;")
    say(f"{given.procs} processes; minima of {rounds} rounds.\n")
    say("| runs | stacks | wall s | CPU s | CPU ms a run | peak MB |")
    say("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        pool = Path(folder) / "pool"
        digests = make_pool(pool, min(n_distinct, max(runs)), n_regions)
        for n_runs in runs:
            out = Path(folder) / f"out{n_runs}"
            make_outputs(out, pool, digests, n_runs)
            for stack in given.stack:
                found = [measure(out, given.procs, stack) for _ in range(rounds)]
                wall, cpu, peak = (
                    min(f[key] for f in found) for key in ("wall", "cpu", "peak")
                )
                cells = [f"{wall:.2f}", f"{cpu:.2f}", f"{1000 * cpu / n_runs:.2f}"]
                say(f"| {n_runs} | {stack} | {' | '.join(cells)} | {peak:.0f} |")


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
