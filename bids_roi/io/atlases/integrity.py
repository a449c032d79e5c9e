"""Whether a file is what its name says, to its last byte: no outside library.

Downloads are verified before anyone can see them, and atlases before they are used.
The header is read here with the standard library alone, because a damaged file must
be described where an image library only fails.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from bids_roi.errors import AtlasError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NiftiHeader", "check_complete", "file_digest", "read_header"]

_CHUNK = 2**20
_AGAIN = "Fetch or copy it again; `gzip -t` tests a .gz file."
_CIFTI_INTENTS = range(3000, 3100)


@dataclass(frozen=True, slots=True)
class NiftiHeader:
    """What an image's header says about itself.

    Attributes
    ----------
    shape
        Voxels along each axis; axes of length 1 at the end are left out.
    n_axes
        Axes that the header declares, those among them.
    bits
        Bits of a stored value.
    is_float
        Whether values are stored as floating point numbers.
    offset
        Bytes before the first value; -1 where the header has no number there.
    slope, intercept
        Scaling of the stored values; 1 and 0 where there is none.
    sform_code, qform_code
        What the affines refer to; 0 is nothing.
    is_cifti
        Whether it holds grayordinates and not a volume.
    """

    shape: tuple[int, ...]
    n_axes: int
    bits: int
    is_float: bool
    offset: int
    slope: float
    intercept: float
    sform_code: int
    qform_code: int
    is_cifti: bool

    @property
    def n_bytes(self) -> int:
        """Size of the whole file, unpacked."""
        return self.offset + math.prod(self.shape) * self.bits // 8


def _open(path: Path) -> BinaryIO:
    if path.name.endswith(".gz"):
        return cast("BinaryIO", gzip.open(path, "rb"))
    return path.open("rb")


def read_header(path: Path) -> NiftiHeader:
    """Read the header of a NIfTI-1 or NIfTI-2 file.

    Raises
    ------
    AtlasError
        If there is none.
    """
    try:
        with _open(path) as file:
            head = file.read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    for order in "<>":
        size = struct.unpack_from(order + "i", head)[0] if len(head) >= 348 else 0
        if size == 348:
            return _parse(head, order, _NIFTI1)
        if size == 540 and len(head) == 540:
            return _parse(head, order, _NIFTI2)
    msg = "the file does not begin with the header of a NIfTI image."
    raise AtlasError(msg, where=path, remedy=_AGAIN)


# Field: where it is, and as what it is stored.
_NIFTI1 = {
    "dim": (40, "8h"),
    "intent": (68, "h"),
    "datatype": (70, "h"),
    "bits": (72, "h"),
    "offset": (108, "f"),
    "slope": (112, "2f"),
    "qform": (252, "h"),
    "sform": (254, "h"),
}
_NIFTI2 = {
    "dim": (16, "8q"),
    "intent": (504, "i"),
    "datatype": (12, "h"),
    "bits": (14, "h"),
    "offset": (168, "q"),
    "slope": (176, "2d"),
    "qform": (344, "i"),
    "sform": (348, "i"),
}


def _parse(head: bytes, order: str, fields: dict[str, tuple[int, str]]) -> NiftiHeader:
    value = {
        name: struct.unpack_from(order + kind, head, at)
        for name, (at, kind) in fields.items()
    }
    offset = value["offset"][0]
    n_axes = max(0, min(7, value["dim"][0]))
    shape = tuple(int(n) for n in value["dim"][1 : n_axes + 1])
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    slope, intercept = value["slope"]
    scaled = math.isfinite(slope) and slope != 0
    return NiftiHeader(
        shape=shape,
        n_axes=n_axes,
        bits=value["bits"][0],
        is_float=value["datatype"][0] in (16, 64, 1536),
        offset=int(offset) if math.isfinite(offset) else -1,
        slope=slope if scaled else 1.0,
        intercept=intercept if scaled and math.isfinite(intercept) else 0.0,
        sform_code=value["sform"][0],
        qform_code=value["qform"][0],
        is_cifti=value["intent"][0] in _CIFTI_INTENTS,
    )


def check_complete(path: Path, *, md5: str | None = None) -> None:
    """Read a file to its end and compare it with what it says of itself.

    Parameters
    ----------
    path
        An image (``.nii``, ``.nii.gz``), a table or JSON.
    md5
        Checksum it must have, where it is known.

    Raises
    ------
    AtlasError
        If it is empty, an error page, cut short, damaged, or not the file expected.
    """
    with path.open("rb") as file:
        head = file.read(256)
    if not head:
        raise AtlasError("the file is empty (0 bytes).", where=path, remedy=_AGAIN)
    if head.lstrip().startswith((b"<?xml", b"<!DOCTYPE", b"<html")):
        msg = "the file holds a server's error page."
        raise AtlasError(msg, where=path, remedy=_AGAIN)
    if md5 is not None and file_digest(path, "md5") != md5:
        msg = f"its MD5 checksum is {file_digest(path, 'md5')}, {md5} is expected."
        raise AtlasError(msg, where=path, remedy=_AGAIN)
    if path.name.endswith((".nii", ".nii.gz")):
        _check_image(path)
    elif path.name.endswith(".gz"):
        _unpacked_size(path)
    elif path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
        except ValueError as error:
            msg = f"the file is not JSON ({error})."
            raise AtlasError(msg, where=path, remedy=_AGAIN) from error


def _check_image(path: Path) -> None:
    header, size = read_header(path), _unpacked_size(path)
    if size < header.n_bytes:
        shape = "x".join(map(str, header.shape))
        msg = (
            f"the image ends early: it has {size} bytes, its header ({shape}) needs"
            f" {header.n_bytes}."
        )
        raise AtlasError(msg, where=path, remedy=_AGAIN)


def _unpacked_size(path: Path) -> int:
    if not path.name.endswith(".gz"):
        return path.stat().st_size
    size = 0
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                size += len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    return size


def _damaged(path: Path, error: Exception) -> AtlasError:
    text = " ".join(str(error).split()) or type(error).__name__
    msg = f"the file is damaged or cut short ({text})."
    return AtlasError(msg, where=path, remedy=_AGAIN)


def file_digest(path: Path, kind: str = "sha256") -> str:
    """Hash of a file's bytes, without holding them all in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
