"""Calls of the system that fail for one path, as a disk, a mount or a closed folder."""

import errno
import os
from pathlib import Path


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
