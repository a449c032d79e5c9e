"""The benchmarks run, small and once; what they measure is not judged here."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("script", "options", "rows"),
    [
        ("extraction.py", ["--quick"], ["ISA-L", "10 atlas", "nilearn"]),
        ("extraction.py", ["--quick", "--sweep"], ["voxels"]),
        ("extraction.py", ["--quick", "--statistics"], ["| eigenvariate |"]),
        ("command.py", ["--quick", "--check"], ["ISA-L", "ten atlases", "warning"]),
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
