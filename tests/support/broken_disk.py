"""Calls that fail for one path, as a disk or a closed folder; folders for all users."""

import contextlib
import errno
import os
import tempfile
from pathlib import Path


@contextlib.contextmanager
def folder_for_all(mode):
    """Make a folder that another user may enter, unlike pytest's own."""
    # In memory where that is possible: each file that is written is flushed to disk.
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else Path("/var/tmp")
    with tempfile.TemporaryDirectory(prefix="bids_roi-", dir=base) as name:
        Path(name).chmod(mode)
        yield Path(name)


def fail_at(monkeypatch, owner, name, broken, code):
    """Let a call such as ``os.scandir`` or ``Path.open`` fail for a path."""
    really, number = getattr(owner, name), getattr(errno, code)

    def fail(path=".", *arguments, **options):
        if not isinstance(path, int) and Path(path) == broken:
            raise OSError(number, os.strerror(number), str(path))
        return really(path, *arguments, **options)

    monkeypatch.setattr(owner, name, fail)


def fail_to_list(monkeypatch, folder, code):
    """Let a folder be there and not be listed."""
    fail_at(monkeypatch, os, "scandir", folder, code)
