"""Whether the header of an image can be true: sizes, axes, affine.

A damaged or hostile header is refused before anything is allocated by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.grid import Grid
from bids_roi.errors import AtlasError, DataError, ImageError
from bids_roi.io.atlases.integrity import read_header
from bids_roi.io.stream import VolumeSource, check_size

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_offset", "check_orientation", "grid_of", "locate_values"]

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
