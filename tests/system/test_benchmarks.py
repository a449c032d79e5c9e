"""The benchmarks run, small and once; what they measure is not judged here."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
# Beginnings of rows: what one process measures together comes out apart.
EXTRACTION = [
    *(f"| {name}, decompression alone |" for name in ("ISA-L", "zlib")),
    *(
        f"| bids_roi, {n} atlas, {run} run |"
        for n in (1, 3, 10)
        for run in ("first", "further")
    ),
    *(f"| nilearn, {n} atlas |" for n in (1, 3)),
    *(f"| bids_roi, 1 atlas, {what} |" for what in ("connectivity", "report")),
]
# One of each kind: volumes, voxels, atlases and regions.
SWEEP = ["| volumes | 20 | 2016 | 1 | 100 |", "| regions | 5 | 2016 | 1 | 8 |"]
SWEEP += ["| atlases | 5 | 2016 | 3 | 24 |", "| voxels | 5 | 252 | 1 | 8 |"]
STATISTICS = [f"| {word} |" for word in ("mean", "median", "eigenvariate")]
COMMAND = ["ISA-L, without a copy", "the same into a buffer", "warning"]
COMMAND += [f"| **bids_roi**, {n}" for n in ("one atlas, no", "one atlas, none")]
COMMAND += [f"| **bids_roi**, {n} atlases" for n in ("three", "ten")]


@pytest.mark.parametrize(
    ("script", "options", "rows"),
    [
        ("extraction.py", ["--quick"], EXTRACTION),
        ("extraction.py", ["--quick", "--sweep"], SWEEP),
        ("extraction.py", ["--quick", "--statistics"], STATISTICS),
        ("command.py", ["--quick", "--check"], COMMAND),
        ("discovery.py", ["--quick"], ["20  one", "20  all", "20  planning"]),
        ("transforms.py", ["--quick"], ["17x20x17      f8"]),
        ("surfaces.py", ["--quick"], ["grayordinates x 5", "fsaverage5"]),
        ("soak.py", ["--quick"], ["| again, all there |", "| command |"]),
        ("group.py", ["--quick"], ["| 20 |", "| 40 |"]),
    ],
)
def test_benchmark_runs(script, options, rows):
    done = subprocess.run(
        [sys.executable, SCRIPTS / script, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for row in rows:
        assert row in done.stdout
