"""Folders that are made once a run, whichever worker comes first, and read by all."""

import fcntl
import os
import pickle

_MADE = {}  # folders that this process asked for, and their files as they were made


def make_once(tmp_path_factory, name, make):
    """What ``make(folder)`` returned, in this process or in another worker's."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all workers
    made = base / f"{name}.pickle"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            value = make(base / name)
            made.write_bytes(pickle.dumps((value, _look_at(base / name))))
    value, _MADE[base / name] = pickle.loads(made.read_bytes())
    return value


def list_written():
    """Files of such folders that were written, added or taken away since."""
    return [
        str(path)
        for folder, before in _MADE.items()
        for path, _ in sorted(before.items() ^ _look_at(folder).items())
    ]


def _look_at(folder):
    """Size and time of each file; of a folder nothing, as its files tell it."""
    found = {path: path.lstat() for path in folder.rglob("*") if not path.is_dir()}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}
