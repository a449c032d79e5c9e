"""Stacks over processes: the same bytes, and no more memory for more runs."""

import subprocess
import sys

import h5py
import numpy as np
from support.stack_series import NAMES, signals, tell_digest, write_many, write_series

from bids_roi.files.tables import format_matrix
from bids_roi.group.stacking import write_stacks
from bids_roi.group.workers import Workers

STACK = "group_space-X_atlas-Toy_stack.h5"


def test_processes_and_digests_change_no_byte(tmp_path):
    """With two kinds of matrices, as processes take half a second each to start."""
    write_many(tmp_path)
    write_series(tmp_path, "sub-10_task-rest", signals(0))  # has no matrix
    write_stacks(tmp_path)
    expected = (tmp_path / STACK).read_bytes()
    (tmp_path / STACK).unlink()
    for path in tmp_path.glob("sub-*/func/*.tsv"):
        tell_digest(path)
    for _ in range(2):  # read from the tables, then copied
        assert write_stacks(tmp_path, workers=Workers(3)) == ([STACK], [])
        assert (tmp_path / STACK).read_bytes() == expected


def test_memory_does_not_grow_with_the_runs(tmp_path):
    """In a process of its own, which tells its peak: 60 runs of 1 MB, 15 more MB."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30000, 4))
    text = "".join(format_matrix(NAMES, values))
    code = (
        "import resource, sys, pathlib\n"
        "from bids_roi.group.stacking import write_stacks\n"
        "print(write_stacks(pathlib.Path(sys.argv[1]))[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = []
    for n_runs in (2, 60):
        for number in range(n_runs):
            path = tmp_path / f"sub-{number:02}" / "func"
            if not path.exists():
                write_series(tmp_path, f"sub-{number:02}", values[:2])
                (written,) = path.glob("*_timeseries.tsv")
                written.write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True
        )
        notes, peak = done.stdout.split("\n")[:2]
        assert notes == "[]", done.stderr
        peaks.append(int(peak) * (1 if sys.platform == "darwin" else 1024))
    with h5py.File(tmp_path / STACK) as file:
        assert file["timeseries/mean/data"].shape == (60 * 30000, 4)
    assert peaks[1] - peaks[0] < 15 * 2**20
