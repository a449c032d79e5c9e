"""Headers of images: what they say, and whether it can be true.

A damaged or hostile header is refused before anything is allocated by it.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from bids_roi.core.grid import Grid
from bids_roi.errors import AtlasError, DataError, ImageError
from bids_roi.images.stream import VolumeSource, check_size

if TYPE_CHECKING:
    from pathlib import Path


FETCH_AGAIN = "Fetch or copy it again; `gzip -t` tests a .gz file."
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
        raise damaged_file(path, error) from error
    for order in "<>":
        size = struct.unpack_from(order + "i", head)[0] if len(head) >= 348 else 0
        if size == 348:
            return _parse(head, order, _NIFTI1)
        if size == 540 and len(head) == 540:
            return _parse(head, order, _NIFTI2)
    msg = "the file does not begin with the header of a NIfTI image."
    raise AtlasError(msg, where=path, remedy=FETCH_AGAIN)


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


def damaged_file(path: Path, error: Exception) -> AtlasError:
    """Error for a file that cannot be read to its end."""
    text = " ".join(str(error).split()) or type(error).__name__
    msg = f"the file is damaged or cut short ({text})."
    return AtlasError(msg, where=path, remedy=FETCH_AGAIN)


_MAX_VOLUME_BYTES = 2**31
_MAX_OFFSET = 2**26  # bytes of header extensions, which are read into memory
_MAX_MM = 1e6


def check_offset(path: Path, kind: type[DataError]) -> None:
    """Refuse a header that makes nibabel read without end for its extensions.

    Parameters
    ----------
    path
        What is not NIfTI, or damaged, passes: nibabel tells what is wrong with it.
    kind
        Class of the error.

    Raises
    ------
    DataError
        Of class ``kind``.
    """
    try:
        offset = read_header(path).offset
    except AtlasError:
        return
    if not 0 <= offset <= _MAX_OFFSET:
        msg = (
            f"the header puts the first value at byte {offset}; 0 to"
            f" {_MAX_OFFSET // 2**20} MiB can be used."
        )
        raise kind(msg, where=path, remedy="The header may be damaged.")


def check_orientation(
    path: Path,
    header: Any,  # noqa: ANN401 - nibabel
    kind: type[DataError],
) -> None:
    """Refuse a header without orientation.

    Raises
    ------
    DataError
        Of class ``kind``.
    """
    codes = int(header["sform_code"]), int(header["qform_code"])
    if codes == (0, 0):
        msg = (
            "the header holds no orientation (sform_code and qform_code are 0), so"
            " nothing tells where in the brain a voxel is."
        )
        remedy = "Write the image with its affine, by the software that made it."
        raise kind(msg, where=path, remedy=remedy)


def grid_of(
    path: Path,
    image: Any,  # noqa: ANN401 - nibabel
    kind: type[DataError],
) -> Grid:
    """Grid of an image whose axes and affine can be those of one.

    Raises
    ------
    DataError
        Of class ``kind``, with the lengths of the axes or the affine.
    """
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 3 or min(shape[:3]) < 1:
        axes = "x".join(map(str, shape))
        msg = f"the axes have the lengths {axes}; three of at least 1 are needed."
        raise kind(msg, where=path, remedy="The header may be damaged.")
    affine = np.asarray(image.affine, dtype=np.float64)
    sound = np.isfinite(affine).all() and np.abs(affine).max() < _MAX_MM
    if sound:
        edges = np.linalg.norm(affine[:3, :3], axis=0)
        volume = abs(np.linalg.det(affine[:3, :3]))
        # As flat as a sheet: nothing leads back from millimetres to voxels.
        sound = edges.min() > 1 / _MAX_MM and volume > edges.prod() / _MAX_MM
    if not sound:
        numbers = ", ".join(f"{v:.4g}" for v in affine[:3].ravel())
        msg = f"the affine ({numbers}) does not place the voxels in space."
        remedy = "Write the image with its affine, by the software that made it."
        raise kind(msg, where=path, remedy=remedy)
    return Grid.of(shape, affine)


def locate_values(
    path: Path,
    image: Any,  # noqa: ANN401 - nibabel
    grid: Grid,
    n_volumes: int,
    kind: type[DataError],
) -> VolumeSource:
    """Where the values are; refused where no such file can be as the header says.

    Parameters
    ----------
    path, image
        The file, and its header as nibabel opened it.
    grid, n_volumes
        As the header has them.
    kind
        Class of the error.

    Raises
    ------
    DataError
        Of class ``kind``: no real numbers, volumes beyond 2 GiB, or more of them than
        the file can hold; with the sizes.
    """
    dtype = np.dtype(image.header.get_data_dtype())
    if dtype.kind not in "iuf":
        msg = f"the values are of type {dtype}, real numbers are needed."
        raise kind(msg, where=path, remedy="Convert the image.")
    size = grid.n_voxels * dtype.itemsize
    if size > _MAX_VOLUME_BYTES:
        msg = f"a volume of {grid} takes {size / 2**30:,.1f} GiB, 2 GiB can be used."
        raise kind(msg, where=path, remedy="The header may be damaged.")
    source = VolumeSource(
        path=path,
        offset=int(image.dataobj.offset),
        dtype=dtype.str,
        n_voxels=grid.n_voxels,
        n_volumes=n_volumes,
        compressed=path.name.endswith(".gz"),
    )
    try:
        check_size(source)
    except ImageError as error:
        raise kind(error.problem, where=path, remedy=error.remedy) from error
    return source
