"""Whether a file is what its name says, to its last byte: no outside library.

Downloads are verified before anyone can see them, and atlases before they are used.
The header is read here with the standard library alone, because a damaged file must
be described where an image library only fails.
"""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING

from bids_roi.errors import AtlasError
from bids_roi.files.writing import file_digest
from bids_roi.images.header import FETCH_AGAIN, damaged_file, read_header

if TYPE_CHECKING:
    from pathlib import Path


_CHUNK = 2**20


def check_complete(path: Path, *, md5: str | None = None) -> None:
    """Read a file to its end and compare it with what it says of itself.

    An image (``.nii``, ``.nii.gz``, ``.gii``), a table or JSON; an ``AtlasError`` if it
    is empty, an error page, cut short, damaged, or not the file expected (``md5``).
    """
    with path.open("rb") as file:
        head = file.read(256)
    if not head:
        raise AtlasError("the file is empty (0 bytes).", where=path, remedy=FETCH_AGAIN)
    surface = path.suffix == ".gii" and b"GIFTI" in head
    if head.lstrip().startswith((b"<?xml", b"<!DOCTYPE", b"<html")) and not surface:
        msg = "the file holds a server's error page."
        raise AtlasError(msg, where=path, remedy=FETCH_AGAIN)
    if md5 is not None and file_digest(path, "md5") != md5:
        msg = f"its MD5 checksum is {file_digest(path, 'md5')}, {md5} is expected."
        raise AtlasError(msg, where=path, remedy=FETCH_AGAIN)
    if path.suffix == ".gii":
        _check_surface(path)
    elif path.name.endswith((".nii", ".nii.gz")):
        _check_image(path)
    elif path.name.endswith(".gz"):
        _unpacked_size(path)
    elif path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
        except ValueError as error:
            msg = f"the file is not JSON ({error})."
            raise AtlasError(msg, where=path, remedy=FETCH_AGAIN) from error


def _check_image(path: Path) -> None:
    header, size = read_header(path), _unpacked_size(path)
    if size < header.n_bytes:
        shape = "x".join(map(str, header.shape))
        msg = (
            f"the image ends early: it has {size} bytes, its header ({shape}) needs"
            f" {header.n_bytes}."
        )
        raise AtlasError(msg, where=path, remedy=FETCH_AGAIN)


def _check_surface(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        tail = file.read().rstrip()
    if not tail.endswith(b"</GIFTI>"):
        msg = "the file ends before </GIFTI>: it is cut short, or no GIFTI."
        raise AtlasError(msg, where=path, remedy=FETCH_AGAIN)


def _unpacked_size(path: Path) -> int:
    if not path.name.endswith(".gz"):
        return path.stat().st_size
    size = 0
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                size += len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged_file(path, error) from error
    return size
