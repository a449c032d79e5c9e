"""The benchmarks run, small and once; what they measure is not judged here."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "extraction.py"


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["--quick"], ["ISA-L", "10 atlas", "nilearn"]),
        (["--quick", "--sweep"], ["voxels"]),
    ],
)
def test_benchmark_runs(options, rows):
    done = subprocess.run(
        [sys.executable, SCRIPT, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for row in rows:
        assert row in done.stdout
