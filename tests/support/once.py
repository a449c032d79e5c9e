"""Folders that are made once a run, whichever worker comes first, and read by all."""

import fcntl
import os
import pickle


def make_once(tmp_path_factory, name, make):
    """What ``make(folder)`` returned, in this process or in another worker's."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all workers
    made = base / f"{name}.pickle"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            made.write_bytes(pickle.dumps(make(base / name)))
    return pickle.loads(made.read_bytes())
