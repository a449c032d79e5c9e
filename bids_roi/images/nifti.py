"""Series and images of any format opened, volumes read: headers, grids and values."""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nb
import numpy as np
from nibabel.filebasedimages import ImageFileError

from bids_roi.core.frame import Frame
from bids_roi.errors import (
    AtlasError,
    DataError,
    ImageError,
    MissingInput,
    is_of_the_disk,
    remedy_of,
)
from bids_roi.images.header import (
    BOLD,
    MAPS,
    VOLUME,
    ImageKind,
    NiftiHeader,
    check_header,
    check_whole,
    locate_values,
    make_grid,
    parse_header,
    read_head,
    surface_template,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid
    from bids_roi.images.stream import Source, VolumeSource


# Of a NIfTI-1 header: its size, and values right behind it, without extensions.
_SIZE, _AT_ONCE = struct.pack("<i", 348), struct.pack("<f", 352)
MAX_LABEL = 2**53  # whole numbers beyond are not all doubles
_NO_WEIGHTS = "Set them to 0 if they are background, or take another copy."
_MAX_WEIGHT = 1e30  # a finite single-precision value; no software writes it as a weight
_FETCH = "Get its content (for example `datalad get`) or remove it from the dataset."
_TOLERANCE = 1e-3
# Labels were multiplied where the steps between values are alike to this share.
_ALIKE = 0.02
_MOST_STEPS = 2**16
# Interpolation leaves the inside of regions whole, multiplying only some labels.
_MOST_WHOLE = 0.6


@dataclass(frozen=True, slots=True)
class Opened:
    """An image whose header was read and found good; picklable."""

    header: NiftiHeader  # what it says of itself
    grid: Grid  # shape and affine
    source: VolumeSource  # where the values are
    kind: ImageKind  # what it was opened as

    @property
    def slope(self) -> float:
        """Value = slope * stored + intercept."""
        return self.header.slope

    @property
    def intercept(self) -> float:
        """See ``slope``."""
        return self.header.intercept


def open_image(path: Path, kind: ImageKind) -> Opened:
    """Open an image that is there, and whose header can be that of such an image."""
    check_file(path)
    head = read_head(path, kind.error)
    header = parse_header(path, head, kind.error)
    check_header(path, header, kind)
    grid = make_grid(path, header, _read_affine(path, head, kind), kind)
    return Opened(header, grid, locate_values(path, header, kind), kind)


def check_file(path: Path) -> None:
    """Refuse a file that is absent, empty, unreadable, or a pointer of git-annex."""
    try:
        if path.is_symlink() and not path.exists():
            msg = "this is a link to content that is not here (git-annex, DataLad)."
            raise MissingInput(msg, where=path, remedy=_FETCH)
        if not path.is_file():
            msg = "there is no such file."
            raise MissingInput(msg, where=path, remedy="Check the path.")
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        msg = f"the file cannot be read ({error.strerror})."
        remedy = remedy_of(error, "Check its permissions.")
        raise MissingInput(msg, where=path, remedy=remedy) from error
    if not head:
        msg = "the file is empty (0 bytes)."
        raise MissingInput(msg, where=path, remedy=_FETCH)
    if b"/annex/objects/" in head or head.startswith(b"version https://git-lfs"):
        msg = "the file holds a pointer to its content (git-annex, LFS), not an image."
        raise MissingInput(msg, where=path, remedy=_FETCH)


def _read_affine(path: Path, head: bytes, kind: ImageKind) -> Any:  # noqa: ANN401 - untyped
    """The affine, and all that nibabel finds wrong with the file."""
    # To open the file again takes nibabel ten times longer than to read the header that
    # is in memory. All but the plainest files, and what is wrong, are left to it.
    plain = path.name.endswith((".nii", ".nii.gz")) and head[344:348] == b"n+1\0"
    if plain and (head[:4], head[108:112]) == (_SIZE, _AT_ONCE):
        with contextlib.suppress(Exception):
            header = nb.Nifti1Header(head[:348])
            header.get_slope_inter()
            return header.get_best_affine()
    try:
        image = nb.load(path)
    except MemoryError:
        raise
    except Exception as error:  # nibabel's errors have no common class
        if isinstance(error, OSError) and is_of_the_disk(error):
            msg = f"the file cannot be read ({error.strerror})."
            remedy = remedy_of(error, "")
            raise MissingInput(msg, where=path, remedy=remedy) from error
        text = " ".join(str(error).split()) or type(error).__name__
        msg = f"the image cannot be read ({text})."
        remedy = "Copy or download it again; `gzip -t` tests a .gz file."
        raise kind.error(msg, where=path, remedy=remedy) from error
    if not isinstance(image, nb.Nifti1Image | nb.Nifti1Pair):
        msg = f"the file is a {type(image).__name__}, a NIfTI volume is needed."
        raise kind.error(msg, where=path, remedy="Convert it to .nii.gz.")
    return image.affine


def read_volume(path: Path) -> tuple[NDArray[Any], Grid]:
    """Read one volume, (x, y, z), with the grid that it is on."""
    image = open_image(path, VOLUME)
    return read_values(image), image.grid


def read_values(image: Opened) -> NDArray[Any]:
    """Read the values of an image of one volume, (x, y, z)."""
    check_whole(image.source, image.kind)
    try:
        # The reader of series, because it reads to the end, where the CRC is checked.
        (block,) = image.source.blocks()
    except ImageError as error:
        kind, where = image.kind.error, image.source.path
        raise kind(error.problem, where=where, remedy=error.remedy) from error
    values = block.values.reshape(image.grid.shape, order="F")
    if (image.slope, image.intercept) != (1, 0):
        with np.errstate(over="ignore"):  # told by those who need finite values
            values = values * image.slope + image.intercept
    return values


def read_mask(path: Path) -> tuple[NDArray[np.bool_], Grid]:
    """Read a mask, (x, y, z), in which every value other than 0 is inside."""
    values, grid = read_volume(path)
    return inside_mask(values, path), grid


def read_labels(
    path: Path, error: type[DataError] = DataError
) -> tuple[NDArray[np.int64], Grid]:
    """Read a label image; errors are of class ``error``. See ``find_labels``."""
    image = open_image(path, VOLUME._replace(error=error))
    return find_labels(image, read_values(image)), image.grid


def find_labels(image: Opened, values: NDArray[Any]) -> NDArray[np.int64]:
    """Whole numbers of the values of an image, to 1e-3; not finite ones become 0."""
    kind, where = image.kind.error, image.source.path
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, 0)
    if max(-float(values.min()), float(values.max())) > MAX_LABEL:
        msg = f"label values go from {values.min():.4g} to {values.max():.4g}."
        remedy = "Whole numbers up to 2^53 can be used; the header may be damaged."
        raise kind(msg, where=where, remedy=remedy)
    if not are_whole(values).all():
        msg, remedy = explain_labels(
            values,
            stored_whole=not image.header.is_float,
            slope=image.slope,
            intercept=image.intercept,
        )
        raise kind(msg, where=where, remedy=remedy)
    whole = values if values.dtype.kind in "iu" else np.rint(values)
    return np.asarray(whole.astype(np.int64))


def read_maps(path: Path) -> tuple[Grid, Iterator[NDArray[np.float64]]]:
    """Read 4D maps one at a time, (x, y, z), so that they are never all in memory.

    Damage, and an ``AtlasError`` where a map holds what is no weight, show while
    reading.
    """
    image = open_image(path, MAPS)

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
    """How many values of a map are NaN, infinite, or so large that products may be."""
    good = np.isfinite(values) & (np.abs(values) <= _MAX_WEIGHT)
    return int(values.size - good.sum())


def file_of_image(
    image: Any,  # noqa: ANN401 - a nibabel image
    word: str,
) -> tuple[Path | None, bool]:
    """File that an image was read from, and whether the image is still as it is there.

    ``None`` for an image that was made in memory. Values that were changed in nibabel's
    cache, of which nibabel itself saves nothing, are refused.
    """
    if not isinstance(image, nb.filebasedimages.FileBasedImage):
        msg = f"{word}: a {type(image).__name__} is neither a path nor a nibabel image."
        raise ImageError(msg, remedy="Give a path, or nibabel.load(path).")
    name = image.get_filename()
    path = Path(name).absolute() if isinstance(name, str | os.PathLike) else None
    if path is None or not path.is_file():
        return None, False
    if not nb.is_proxy(getattr(image, "dataobj", None)):
        return path, False
    if image.in_memory:
        cached, stored = image.get_fdata(), np.asanyarray(image.dataobj)
        if not np.array_equal(cached, stored.astype(cached.dtype), equal_nan=True):
            msg = f"the values of {word} were changed in nibabel's cache (get_fdata)."
            remedy = "Make an image of them: nibabel.Nifti1Image(data, image.affine)."
            raise ImageError(msg, where=path, remedy=remedy)
    there = nb.load(path)
    same = type(there) is type(image) and there.header == image.header
    affine, own = (np.asarray(getattr(x, "affine", 0)) for x in (there, image))
    return path, bool(same and np.array_equal(affine, own))


def save_image(image: Any, path: Path) -> None:  # noqa: ANN401 - a nibabel image
    """Write a nibabel image that is in memory, if NIfTI can hold it."""
    file_map = image.file_map
    try:
        nb.save(image, path)
    except (AttributeError, TypeError, ImageFileError) as error:
        msg = f"a {type(image).__name__} cannot be written as NIfTI ({error})."
        raise ImageError(msg, remedy="Give a path, or nibabel.load(path).") from error
    finally:
        image.file_map = file_map


def make_image(data: NDArray[Any], affine: NDArray[np.float64]) -> Any:  # noqa: ANN401 - a nibabel image
    """Make a NIfTI image in memory."""
    return nb.Nifti1Image(data, affine)


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
    """Write a NIfTI file, (x, y, z) or (x, y, z, T); the same data give the same bytes.

    Value = slope * stored + intercept; the affine leads from voxels to mm (RAS+), and
    ``space_code`` says of what: 4 is MNI, 1 the scanner.
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


def are_whole(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each value is a whole number to 1e-3; not those that are not finite."""
    if values.dtype.kind in "iu":
        return np.ones(values.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(values - np.rint(values)) <= _TOLERANCE)


def explain_labels(
    values: NDArray[Any], *, stored_whole: bool, slope: float, intercept: float
) -> tuple[str, str]:
    """Say why an image is none of labels: the problem, and the remedy.

    ``values`` are finite, and some are no whole numbers; with ``stored_whole`` the file
    holds integers, which ``slope`` and ``intercept`` scale.
    """
    off = ~are_whole(values)
    distinct = np.unique(values[values != 0])
    examples = ", ".join(f"{v:.6g}" for v in np.unique(values[off])[:3])
    found = f"{int(off.sum())} voxels hold no whole number ({examples}, ...): "
    if stored_whole:
        return (
            f"{found}the file holds whole numbers, and scl_slope {slope:.6g} and"
            f" scl_inter {intercept:.6g} of its header make fractions of them.",
            "If the stored numbers are the labels, write them without the scaling, in"
            " Python: image = nibabel.load(FILE); nibabel.Nifti1Image("
            "image.dataobj.get_unscaled(), image.affine).to_filename(NEW). Else make"
            " the image again as int32, which holds all labels.",
        )
    if distinct[0] > 0 and distinct[-1] <= 1:
        return (
            f"{found}all values are 0 to 1: this looks like a probabilistic image, not"
            " like labels.",
            "Call it *_probseg.nii.gz to use it as the weights of one region, or make"
            " a label of it with a threshold (`fslmaths IN -thr 0.5 -bin OUT`).",
        )
    step, share = _common_step(distinct), 1 - off.sum() / (values != 0).sum()
    if step and (step > 1 or share < _MOST_WHOLE):
        return (
            f"{found}all values are whole multiples of {step:.6g}: the labels were"
            " rescaled.",
            f"Take the image as it was before; or divide by {step:.6g} and round, and"
            " compare with the table (`bids_roi_tools check-atlas`).",
        )
    return (
        f"{found}this looks like an interpolated or probabilistic image, not like"
        " labels.",
        "Resample the labels with nearest neighbour.",
    )


def _common_step(distinct: NDArray[Any]) -> float:
    """Number that all values are whole multiples of; 0 where there is none."""
    if distinct[0] <= 0:
        return 0.0
    step = float(np.diff(distinct, prepend=0).min())
    steps = distinct / step
    if steps[-1] > _MOST_STEPS or (np.abs(steps - np.rint(steps)) > _ALIKE).any():
        return 0.0
    # The largest value tells it to the most digits.
    return float(distinct[-1] / np.rint(steps[-1]))


def inside_mask(values: NDArray[Any], path: Path) -> NDArray[np.bool_]:
    """Whether each voxel of a mask is inside: those that are not 0; NaN is outside."""
    if values.dtype.kind in "iu":
        return np.asarray(values != 0)
    values = np.where(np.isnan(values), 0, values)
    whole = are_whole(values)
    if whole.all():
        return np.asarray(np.rint(values) != 0)
    if np.unique(values[values != 0]).size < 2:
        return np.asarray(values != 0)
    off = values[~whole]
    if not np.isfinite(off).all():
        msg = "the mask holds infinite values."
        raise ImageError(msg, where=path, remedy="Make the mask of 0 and 1 again.")
    low, high = float(off.min()), float(off.max())
    middle = 0.5 if high <= 1 else high / 2
    msg = (
        f"{off.size} voxels of the mask hold no whole number ({low:.4g} to {high:.4g}),"
        " as in a probability map; a mask holds 0 and one other value."
    )
    remedy = (
        f"Give it a threshold, for example {middle:.4g} (`fslmaths IN -thr"
        f" {middle:.4g} -bin OUT`), and use that."
    )
    raise ImageError(msg, where=path, remedy=remedy)


def describe_mask(values: NDArray[Any], path: Path) -> str:
    """Say what is odd about a mask that can be used; blank for most."""
    inside = np.unique(values[inside_mask(values, path)])
    if inside.size < 2 or np.ptp(inside) <= _TOLERANCE:
        return ""
    return (
        f"{path}: the mask holds {inside.size} values other than 0 ({inside[0]:g} to"
        f" {inside[-1]:g}); every voxel that is not 0 is inside. If it is a map in per"
        " cent, give it a threshold first."
    )


@dataclass(frozen=True, slots=True)
class Series:
    """A series whose header was read and found good; picklable."""

    frame: Frame  # where its values lie
    source: Source  # the values as stored, in blocks
    # Value = slope * stored + intercept
    slope: float
    intercept: float
    # Seconds, as the file itself has them; None where it has none
    repetition_time: float | None

    @property
    def grid(self) -> Grid | None:
        """Shape and affine of a volume; ``None`` for surfaces and grayordinates."""
        return self.frame.grid


def open_series(kind: str, files: Mapping[str, Path], template: str | None) -> Series:
    """Open a run's series and check that it can be used."""
    return READERS[kind](files, template)


def _open_volume(
    files: Mapping[str, Path],
    template: str | None,  # noqa: ARG001 - a grid says where it lies
) -> Series:
    (path,) = files.values()
    image = open_image(path, BOLD)
    return Series(
        Frame.of_grid(image.grid),
        image.source,
        image.slope,
        image.intercept,
        image.header.repetition_time,
    )


def _open_cifti(files: Mapping[str, Path], template: str | None) -> Series:
    from bids_roi.images.cifti import open_dense_series  # volumes need neither

    (path,) = files.values()
    # The space of some grayordinates is called after that of their voxels.
    return open_dense_series(path, surface_template(template))


def _open_gifti(files: Mapping[str, Path], template: str | None) -> Series:
    from bids_roi.images.surfaces import open_surface_series

    both = open_surface_series(files, template, hemispheres=tuple(files))
    return Series(both.frame, both, 1.0, 0.0, both.repetition_time)


# For the kinds of ``dataset/query.py``.
READERS: dict[str, Callable[[Mapping[str, Path], str | None], Series]] = {
    "volume": _open_volume,
    "cifti": _open_cifti,
    "gifti": _open_gifti,
}
