"""Files that appear whole or not at all, and what killed writers leave behind."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import secrets
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable


_LEFTOVER = re.compile(r"\.bids_roi-([0-9a-f]{8})-(\d{1,9})-[0-9a-f]{8}\.tmp")
_ABANDONED_S = 24 * 3600


def write_file(path: Path, text: str | bytes | Iterable[str]) -> None:
    """Write a file beside its final name, then rename it.

    Parameters
    ----------
    path
        Its folder is made where it is absent. A link of this name is replaced, the
        file that it points to is not written.
    text
        The whole content, or the pieces of a text in order.

    Raises
    ------
    OutputError
        If it cannot be written; nothing is left behind.
    """
    beside = path.with_name(name_temporary())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # replace: a lone surrogate, which JSON may hold, cannot be written.
        pieces = [text] if isinstance(text, str | bytes) else text
        with beside.open("xb") as file:
            file.writelines(
                piece if isinstance(piece, bytes) else piece.encode(errors="replace")
                for piece in pieces
            )
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException as error:  # an interrupt leaves nothing behind either
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        msg = f"the file cannot be written ({error.strerror or error})."
        remedy = "Check the folder's permissions and free space."
        raise OutputError(msg, where=path, remedy=remedy) from error


def name_temporary() -> str:
    """Name for a file that is being written; no two writers share one.

    It tells who writes, see ``remove_leftovers``.
    """
    return f".bids_roi-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


@functools.cache
def _machine() -> str:
    """Tell machines, and containers on one machine, apart; 8 digits."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):  # process ids are counted per namespace
        name += str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder.

    A file is left over where its writer, a process of this machine, is gone; where
    the writer is elsewhere, when nothing was written to it for a day.
    """
    try:
        names = [e.name for e in os.scandir(folder) if e.name.startswith(".bids_roi-")]
    except OSError:
        return
    for name in names:
        match = _LEFTOVER.fullmatch(name)
        with contextlib.suppress(OSError):
            if match is not None and _is_abandoned(folder / name, *match.groups()):
                (folder / name).unlink()


def _is_abandoned(path: Path, machine: str, process: str) -> bool:
    if machine != _machine():
        return time.time() - path.stat().st_mtime > _ABANDONED_S
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # someone else's, and alive
        return False
    return False
