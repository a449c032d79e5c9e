"""Headers, grids and volumes of NIfTI files; nibabel's only home."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel as nb
import numpy as np
from nibabel.filebasedimages import ImageFileError

from bids_roi.errors import AtlasError, DataError, ImageError, MissingInput
from bids_roi.images.header import (
    check_offset,
    check_orientation,
    grid_of,
    locate_values,
)
from bids_roi.images.values import are_whole, explain_labels, inside_mask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid
    from bids_roi.images.stream import Source


_MAX_LABEL = 2**53  # whole numbers beyond are not all doubles
_NO_WEIGHTS = "Set them to 0 if they are background, or take another copy."
_MAX_WEIGHT = 1e30  # a finite single-precision value; no software writes it as a weight
_SECONDS_PER = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}
_FETCH = "Get its content (for example `datalad get`) or remove it from the dataset."


@dataclass(frozen=True, slots=True)
class BoldImage:
    """What the header of a BOLD file says.

    Attributes
    ----------
    grid
        Shape and affine.
    source
        Where the values are.
    slope, intercept
        Value = slope * stored + intercept.
    repetition_time
        Seconds, as the header has it in its own unit; ``None`` where it is 0.
    """

    grid: Grid
    source: Source
    slope: float
    intercept: float
    repetition_time: float | None


def check_file(path: Path) -> None:
    """Raise with the reason where a file cannot be opened for reading.

    Raises
    ------
    MissingInput
        If it is absent, a link to absent content, a git-annex pointer, empty or
        unreadable.
    """
    if path.is_symlink() and not path.exists():
        msg = "this is a link to content that is not here (git-annex, DataLad)."
        raise MissingInput(msg, where=path, remedy=_FETCH)
    if not path.is_file():
        msg = "there is no such file."
        raise MissingInput(msg, where=path, remedy="Check the path.")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        msg = f"the file cannot be read ({error.strerror})."
        raise MissingInput(msg, where=path, remedy="Check its permissions.") from error
    if not head:
        msg = "the file is empty (0 bytes)."
        raise MissingInput(msg, where=path, remedy=_FETCH)
    if b"/annex/objects/" in head or head.startswith(b"version https://git-lfs"):
        msg = "the file holds a pointer to its content (git-annex, LFS), not an image."
        raise MissingInput(msg, where=path, remedy=_FETCH)


def open_bold(path: Path) -> BoldImage:
    """Read the header of a BOLD file and check that it can be used.

    Raises
    ------
    MissingInput
        If the file cannot be read at all.
    ImageError
        If it is not a 4D NIfTI image of real numbers with an orientation.
    """
    image = _load(path, ImageError)
    shape = tuple(int(n) for n in image.shape)
    if len(shape) != 4:
        axes = "x".join(map(str, shape))
        msg = f"the image has {len(shape)} axes ({axes}), a BOLD series has 4."
        remedy = "Check that the file is a series and not a reference or mask."
        raise ImageError(msg, where=path, remedy=remedy)
    if shape[3] < 2:
        msg = f"the series has {shape[3]} volume, at least 2 are needed."
        remedy = "Leave this run out, for example with --bids-filter-file."
        raise ImageError(msg, where=path, remedy=remedy)
    return _describe(path, image, shape[3])


def open_maps(path: Path) -> BoldImage:
    """Read the header of an image of maps, which may hold one (and have 3 axes).

    Raises
    ------
    MissingInput, ImageError
        As for ``open_bold``.
    """
    image = _load(path, ImageError)
    shape = tuple(int(n) for n in image.shape)
    if len(shape) not in (3, 4):
        axes = "x".join(map(str, shape))
        msg = f"the image has {len(shape)} axes ({axes}), 3 or 4 are needed."
        raise ImageError(msg, where=path, remedy="Choose an image of maps.")
    return _describe(path, image, shape[3] if len(shape) == 4 else 1)


def _describe(path: Path, image: Any, n_volumes: int) -> BoldImage:  # noqa: ANN401
    header = image.header
    check_orientation(path, header, ImageError)
    grid = grid_of(path, image, ImageError)
    return BoldImage(
        grid=grid,
        source=locate_values(path, image, grid, n_volumes, ImageError),
        slope=float(image.dataobj.slope),
        intercept=float(image.dataobj.inter),
        repetition_time=_header_repetition_time(header),
    )


def _header_repetition_time(header: Any) -> float | None:  # noqa: ANN401 - nibabel
    try:
        unit = header.get_xyzt_units()[1]
    except KeyError:  # no such unit
        return None
    seconds = float(header["pixdim"][4]) * _SECONDS_PER.get(unit, 0.0)
    return round(seconds, 6) if np.isfinite(seconds) and seconds > 0 else None


def read_labels(
    path: Path, kind: type[DataError] = DataError
) -> tuple[NDArray[np.int64], Grid]:
    """Read a label image.

    Returns
    -------
    labels : (x, y, z)
        Whole numbers; values that are not finite become 0.
    grid
        Of the image.

    Raises
    ------
    MissingInput
        If the file cannot be read at all.
    DataError
        Of class ``kind``, if it is not a 3D image, has no orientation, or values lie
        further than 1e-3 from a whole number.
    """
    values, grid = _read_volume(path, kind)
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, 0)
    if max(-float(values.min()), float(values.max())) > _MAX_LABEL:
        msg = f"label values go from {values.min():.4g} to {values.max():.4g}."
        remedy = "Whole numbers up to 2^53 can be used; the header may be damaged."
        raise kind(msg, where=path, remedy=remedy)
    if values.dtype.kind in "iu":
        return values.astype(np.int64), grid
    if not are_whole(values).all():
        image = _load(path, kind)
        msg, remedy = explain_labels(
            values,
            stored_whole=np.dtype(image.get_data_dtype()).kind in "iu",
            slope=float(image.dataobj.slope),
            intercept=float(image.dataobj.inter),
        )
        raise kind(msg, where=path, remedy=remedy)
    return np.rint(values).astype(np.int64), grid


def read_grid(path: Path, kind: type[DataError] = DataError) -> Grid:
    """Shape and affine of an image, from its header alone.

    Raises
    ------
    MissingInput, DataError
        As for ``read_labels``.
    """
    return grid_of(path, _load(path, kind), kind)


def read_maps(path: Path) -> tuple[Grid, Iterator[NDArray[np.float64]]]:
    """Read 4D maps one at a time, so that they are never all in memory.

    Returns
    -------
    grid
        Of the image.
    maps
        One (x, y, z) map after the other.

    Raises
    ------
    MissingInput, ImageError
        As for ``open_maps``; damage shows while reading.
    AtlasError
        If a map holds what is no weight; this shows while reading too.
    """
    image = open_maps(path)

    def volumes() -> Iterator[NDArray[np.float64]]:
        for block in image.source.blocks():
            for number, stored in enumerate(block.values, block.volumes.start + 1):
                with np.errstate(over="ignore", invalid="ignore"):
                    values = stored.astype(np.float64) * image.slope + image.intercept
                if n_bad := count_bad_weights(values):
                    msg = (
                        f"map {number} holds {n_bad} values that are no weights: not a"
                        f" number, infinite, or beyond {_MAX_WEIGHT:g}."
                    )
                    raise AtlasError(msg, where=path, remedy=_NO_WEIGHTS)
                yield values.reshape(image.grid.shape, order="F")

    return image.grid, volumes()


def count_bad_weights(values: NDArray[np.floating]) -> int:
    """Count the values of a map that cannot be weights.

    Parameters
    ----------
    values
        Any shape.

    Returns
    -------
    int
        Those that are NaN, infinite, or so large that their products may be.
    """
    good = np.isfinite(values) & (np.abs(values) <= _MAX_WEIGHT)
    return int(values.size - good.sum())


def read_mask(path: Path) -> tuple[NDArray[np.bool_], Grid]:
    """Read a mask; every value other than 0 is inside.

    Returns
    -------
    mask : (x, y, z)
    grid
        Of the image.

    Raises
    ------
    MissingInput, ImageError
        As for ``read_labels``; and if it holds several values, of which some are
        further than 1e-3 from a whole number.
    """
    values, grid = read_volume(path)
    return inside_mask(values, path), grid


def read_volume(
    path: Path, kind: type[DataError] = ImageError
) -> tuple[NDArray[Any], Grid]:
    """Read one volume, (x, y, z), with the grid that it is on.

    Raises
    ------
    MissingInput, ImageError
        As for ``read_labels``.
    """
    return _read_volume(path, kind)


def _read_volume(path: Path, kind: type[DataError]) -> tuple[NDArray[Any], Grid]:
    image = _load(path, kind)
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        axes = "x".join(map(str, shape))
        msg = f"the image has {len(shape)} axes ({axes}), 3 are needed."
        raise kind(msg, where=path, remedy="Choose a 3D image.")
    check_orientation(path, image.header, kind)
    grid = grid_of(path, image, kind)
    source = locate_values(path, image, grid, 1, kind)
    try:
        # The reader of series, because it reads to the end, where the CRC is checked.
        (block,) = source.blocks()
    except ImageError as error:
        raise kind(error.problem, where=path, remedy=error.remedy) from error
    values = block.values.reshape(grid.shape, order="F")
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    if (slope, intercept) != (1, 0):
        with np.errstate(over="ignore"):  # told by those who need finite values
            values = values * slope + intercept
    return values, grid


def _load(path: Path, kind: type[DataError]) -> Any:  # noqa: ANN401 - nibabel
    check_file(path)
    check_offset(path, kind)
    try:
        image = nb.load(path)
    except MemoryError:
        raise
    except Exception as error:  # nibabel's errors have no common class
        raise _unreadable(path, error, kind) from error
    if not isinstance(image, nb.Nifti1Image | nb.Nifti1Pair):
        msg = f"the file is a {type(image).__name__}, a NIfTI volume is needed."
        raise kind(msg, where=path, remedy="Convert it to .nii.gz.")
    return image


def _unreadable(path: Path, error: Exception, kind: type[DataError]) -> DataError:
    text = " ".join(str(error).split()) or type(error).__name__
    return kind(
        f"the image cannot be read ({text}).",
        where=path,
        remedy="Copy or download it again; `gzip -t` tests a .gz file.",
    )


def save_image(image: Any, path: Path) -> None:  # noqa: ANN401 - a nibabel image
    """Write a nibabel image that is in memory.

    Raises
    ------
    ImageError
        If it is no image that NIfTI can hold.
    """
    try:
        nb.save(image, path)
    except (AttributeError, TypeError, ImageFileError) as error:
        msg = f"a {type(image).__name__} is neither a path nor a nibabel image."
        raise ImageError(msg, remedy="Give a path, or nibabel.load(path).") from error


def write_image(
    path: Path,
    data: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    repetition_time: float | None = None,
    slope: float = 1.0,
    intercept: float = 0.0,
    space_code: int = 4,
) -> None:
    """Write a NIfTI file; the same data give the same bytes.

    Parameters
    ----------
    path
        Ends in ``.nii`` or ``.nii.gz``; its folder exists.
    data : (x, y, z) or (x, y, z, T)
        Stored values.
    affine : (4, 4)
        Voxels to mm (RAS+).
    repetition_time
        Seconds.
    slope, intercept
        Value = slope * stored + intercept.
    space_code
        sform and qform code; 4 is MNI, 1 the scanner.
    """
    image = nb.Nifti1Image(data, affine)
    header = image.header
    header.set_xyzt_units("mm", "sec")
    if repetition_time is not None:
        header["pixdim"][4] = repetition_time
    image.set_sform(affine, space_code)
    image.set_qform(affine, space_code)
    header.set_slope_inter(1.0, 0.0)
    content = bytearray(image.to_bytes())
    # Set in the bytes: nibabel would rescale the stored values to fit.
    scaling = np.array([slope, intercept], dtype=header["scl_slope"].dtype)
    content[112:120] = scaling.tobytes()
    with path.open("wb") as file:
        if path.name.endswith(".gz"):
            # No name and no time in the gzip header, so that bytes are repeatable.
            with gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:
                packed.write(content)
        else:
            file.write(content)
