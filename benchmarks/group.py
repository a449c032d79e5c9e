"""Wall time and peak memory of the group level against the number of runs.

The outputs of the participant level are generated: two runs a participant, one atlas
of 400 regions in seven networks, one matrix a run with all its digits (3.3 MB). Runs
share 64 different matrices through hard links, so that 10,000 runs do not take 33 GB;
each is parsed as if it were its own. From a cold disk, the time to read them comes on
top. Not part of the tests but for ``--quick``: timings of a shared machine are no
assertions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bids_roi.files.tables import format_matrix, format_table

SPACE = "MNI152NLin2009cAsym"
N_DIFFERENT = 64


def make_outputs(folder: Path, n_runs: int, n_regions: int) -> None:
    """Write what the participant level would: tables, sidecars, matrices."""
    rng = np.random.default_rng(0)
    pool = folder.parent / "pool"
    names = [f"7Networks_LH_Net{n % 7}_{n + 1}" for n in range(n_regions)]
    if not pool.exists():
        pool.mkdir()
        for number in range(N_DIFFERENT):
            (pool / f"{number}.tsv").write_text(_relmat(rng, names))
        (pool / "regions.tsv").write_text(_regions(rng, names))
    for number in range(n_runs):
        person, run = f"sub-{number // 2:05d}", number % 2 + 1
        func = folder / person / "func"
        func.mkdir(parents=True, exist_ok=True)
        stem = f"{person}_task-rest_run-{run}_space-{SPACE}"
        base = f"{stem}_atlas-Bench"
        relmat = f"{base}_stat-pearsoncorrelation_desc-36P_relmat"
        series = f"{base}_stat-mean_desc-36P_timeseries"
        os.link(pool / f"{number % N_DIFFERENT}.tsv", func / f"{relmat}.tsv")
        os.link(pool / "regions.tsv", func / f"{base}_dseg.tsv")
        (func / f"{series}.tsv").touch()
        bold = f"bids:preprocessed:{person}/func/{stem}_desc-preproc_bold.nii.gz"
        content = {
            "Sources": [bold],
            "Atlas": "Bench",
            "OptionsDigest": "0123456789ab",
            "RepetitionTime": 2.0,
            "NumberOfVolumes": 300,
            "MeanFramewiseDisplacement": float(rng.gamma(2, 0.1)),
        }
        for name in (series, f"{base}_dseg"):
            (func / f"{name}.json").write_text(json.dumps(content))
        content |= {"Sources": [f"bids::{person}/func/{series}.tsv"], "FisherZ": False}
        (func / f"{relmat}.json").write_text(json.dumps(content))


def _relmat(rng: np.random.Generator, names: list[str]) -> str:
    signals = rng.normal(size=(300, len(names))) + rng.normal(size=(300, 1))
    matrix = np.corrcoef(signals.T)
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1)
    lost = int(rng.integers(len(names)))
    matrix[lost], matrix[:, lost] = np.nan, np.nan
    return "".join(format_matrix(names, matrix, rows=names, corner="Node"))


def _regions(rng: np.random.Generator, names: list[str]) -> str:
    n = len(names)
    columns = {
        "index": range(1, n + 1),
        "name": names,
        "network": [f"Net{k % 7}" for k in range(n)],
        **{axis: rng.normal(0, 40, n).tolist() for axis in "xyz"},
        "n_voxels_atlas": [200] * n,
        "coverage": rng.uniform(0.5, 1, n).tolist(),
        "status": ["ok"] * n,
        "mean": rng.normal(1000, 50, n).tolist(),
        "standard_deviation": rng.uniform(5, 20, n).tolist(),
        "tsnr": rng.normal(60, 9, n).tolist(),
    }
    return format_table(columns)


def work(folder: Path) -> None:
    """Run the group level in this process and print what it took."""
    from bids_roi.group.level import run_group_level
    from bids_roi.options.record import Options

    wall, cpu = time.perf_counter(), time.process_time()
    run_group_level(folder, Options())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    # Not from the parent's accounts: those start at the parent's own size.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    sys.stdout.write(json.dumps({"wall": wall, "cpu": cpu, "peak": peak}) + "\n")


def measure(folder: Path) -> dict[str, float]:
    """Run the group level in a process of its own; seconds and MB."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--case", str(folder)],
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    """Understand the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 4000])
    parser.add_argument("--regions", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the outputs, a few MB a run")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.case:
        work(given.case)
        return
    runs, n_regions = ([20, 40], 12) if given.quick else (given.runs, given.regions)
    rounds = 1 if given.quick else given.rounds
    say(f"{n_regions} regions, one matrix a run; medians of {rounds} rounds.\n")
    say("| runs | wall s | CPU s | CPU ms a run | against the first | peak MB |")
    say("|---|---|---|---|---|---|")
    first = None
    for n_runs in runs:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            make_outputs(Path(folder) / "out", n_runs, n_regions)
            found = [measure(Path(folder) / "out") for _ in range(rounds)]
        wall, cpu, peak = (
            statistics.median(f[key] for f in found) for key in ("wall", "cpu", "peak")
        )
        first = first or cpu / n_runs
        cells = [f"{wall:.2f}", f"{cpu:.2f}", f"{1000 * cpu / n_runs:.2f}"]
        cells += [f"{cpu / n_runs / first:.2f}", f"{peak:.0f}"]
        say(f"| {n_runs} | {' | '.join(cells)} |")


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
