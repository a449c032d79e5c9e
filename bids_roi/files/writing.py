"""Files that appear whole or not at all, their digests, and what writers left."""

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
from typing import TYPE_CHECKING, NamedTuple

from bids_roi.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


_LEFTOVER = re.compile(r"\.bids_roi-([0-9a-f]{8})-(\d{1,9})-[0-9a-f]{8}\.tmp")
_ABANDONED_S = 24 * 3600


class Written(NamedTuple):
    """A file as it was written: inode, size, time of change, SHA-256 of its bytes."""

    inode: int
    size: int
    mtime_ns: int
    digest: str


def write_file(folder: Path, name: str, text: str | bytes | Iterable[str]) -> None:
    """Write a file beside its final name, then rename it.

    It may not leave ``folder``, whatever links lie below, where ``name`` is its path;
    folders are made where they are absent. A link of this name is replaced, the file
    that it points to is not written.
    """
    with writing(folder, name) as beside:
        _fill(beside, text)
        beside.replace(folder / name)


def write_pair(
    folder: Path,
    table: str,
    text: Iterable[str],
    sidecar: str,
    describe: Callable[[str], str],
) -> tuple[Written, Written]:
    """Write a table and its sidecar, whose text ``describe`` makes of the digest.

    Both are complete before the first is renamed. Where only one was, the digest in the
    sidecar is not that of the table. Returns the state of both.
    """
    with writing(folder, table) as beside:
        written = _fill(beside, text)
        with writing(folder, sidecar) as other:
            told = _fill(other, describe(written.digest))
            other.replace(folder / sidecar)
        beside.replace(folder / table)
    return written, told


@contextlib.contextmanager
def writing(folder: Path, name: str) -> Iterator[Path]:
    """Name a file to be written beside ``folder / name``; it is gone afterwards.

    Every file of an output folder is written within this.
    """
    path = folder / name
    beside = path.with_name(name_temporary())
    check_inside(path.parent, folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
    except OSError as error:
        msg = f"the file cannot be written ({error.strerror or error})."
        remedy = "Check the folder's permissions and free space."
        raise OutputError(msg, where=path, remedy=remedy) from error
    finally:  # an interrupt leaves nothing behind either
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _fill(path: Path, text: str | bytes | Iterable[str]) -> Written:
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for piece in [text] if isinstance(text, str | bytes) else text:
            # replace: a lone surrogate, which JSON may hold, cannot be written.
            data = piece if isinstance(piece, bytes) else piece.encode(errors="replace")
            digest.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    status = path.stat()
    return Written(
        status.st_ino, status.st_size, status.st_mtime_ns, digest.hexdigest()
    )


def file_digest(path: Path, kind: str = "sha256") -> str:
    """Hash of a file's bytes, without holding them all in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def check_inside(folder: Path, output_dir: Path) -> None:
    """Refuse to write through a link that leads out of the output folder."""
    there, inside = folder.resolve(), output_dir.resolve()
    if not there.is_relative_to(inside):
        msg = f"the folder is a link that leads out of the output folder, to {there}."
        remedy = "Remove the link; nothing is ever written through one."
        raise OutputError(msg, where=folder, remedy=remedy)


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
