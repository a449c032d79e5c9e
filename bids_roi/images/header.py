"""Headers of images: what they say, and whether it can be true; meshes by their size.

A damaged or hostile header is refused before anything is allocated by it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import numpy as np

from bids_roi.core.frame import Mesh
from bids_roi.core.grid import Grid
from bids_roi.errors import (
    FETCH_AGAIN,
    AtlasError,
    DataError,
    ImageError,
    SpaceMismatch,
    damaged_file,
)
from bids_roi.images.stream import VolumeSource, check_size

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.core.frame import Frame


VOLUMES = "Use the atlas as a volume (.nii.gz) in the space of the runs."
_CIFTI_INTENTS = range(3000, 3100)


class ImageKind(NamedTuple):
    """What an image must be to serve, and what is said where it is not."""

    error: type[DataError]  # class of the errors
    n_axes: tuple[int, ...]  # how many it may have
    # The same in words, and what to do
    needed: str
    remedy: str
    # Whether a file that is too short for its header is refused when it is opened; else
    # it is when the values are read
    whole: bool = True


BOLD = ImageKind(
    ImageError,
    (4,),
    "a BOLD series has 4",
    "Check that the file is a series and not a reference or mask.",
)
VOLUME = ImageKind(ImageError, (3,), "3 are needed", "Choose a 3D image.", whole=False)
MAPS = ImageKind(ImageError, (3, 4), "3 or 4 are needed", "Choose an image of maps.")
ATLAS = ImageKind(
    AtlasError,
    (3, 4),
    "3 or 4 are needed",
    "Choose a label image, or maps.",
    whole=False,
)


@dataclass(frozen=True, slots=True)
class NiftiHeader:
    """What an image's header says about itself."""

    axes: tuple[int, ...]  # voxels along each axis
    # Type of the stored values, as numpy.dtype.str; blank where they are no real
    # numbers
    dtype: str
    bits: int  # bits of a stored value
    offset: int  # bytes before the first value; -1 where the header has no number there
    # Value = slope * stored + intercept; 1 and 0 where there is no scaling
    slope: float
    intercept: float
    # What the affines refer to; 0 is nothing
    sform_code: int
    qform_code: int
    # Seconds, from the header's own unit; None where it is 0 or has no unit
    repetition_time: float | None
    is_cifti: bool  # whether it holds grayordinates and not a volume

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes without those of length 1 at the end; at least three."""
        n = len(self.axes)
        while n > 3 and self.axes[n - 1] == 1:
            n -= 1
        return self.axes[:n]

    @property
    def is_float(self) -> bool:
        """Whether values are stored as floating point numbers."""
        return self.dtype[1:2] == "f"

    @property
    def n_bytes(self) -> int:
        """Size of the whole file, unpacked."""
        return self.offset + math.prod(self.axes) * self.bits // 8


def read_header(path: Path) -> NiftiHeader:
    """Read the header of an atlas, NIfTI-1 or NIfTI-2."""
    return parse_header(path, read_head(path, AtlasError), AtlasError)


def read_head(path: Path, error: type[DataError]) -> bytes:
    """Read the bytes of a header, as many as NIfTI-2 has, or as there are."""
    try:
        # The header of a pair is a file of its own.
        with open_file(
            path.with_suffix(".hdr") if path.suffix == ".img" else path
        ) as file:
            return file.read(540)
    except (OSError, EOFError, zlib.error) as problem:
        raise damaged_file(path, problem, error) from problem


def parse_header(path: Path, head: bytes, error: type[DataError]) -> NiftiHeader:
    """Understand the bytes of a header."""
    for order in "<>":
        size = struct.unpack_from(order + "i", head)[0] if len(head) >= 348 else 0
        if size == 348:
            return _parse(head, order, _NIFTI1)
        if size == 540 and len(head) == 540:
            return _parse(head, order, _NIFTI2)
    msg = "the image cannot be read: it does not begin with the header of a NIfTI file."
    raise error(msg, where=path, remedy=FETCH_AGAIN)


def open_file(path: Path) -> BinaryIO:
    """Open a file, unpacked where its name ends in .gz."""
    if path.name.endswith(".gz"):
        return cast("BinaryIO", gzip.open(path, "rb"))
    return path.open("rb")


# Field: where it is, and as what it is stored.
_NIFTI1 = {
    "dim": (40, "8h"),
    "intent": (68, "h"),
    "datatype": (70, "h"),
    "bits": (72, "h"),
    "step": (92, "f"),
    "offset": (108, "f"),
    "slope": (112, "2f"),
    "qform": (252, "h"),
    "sform": (254, "h"),
    "units": (123, "B"),
}
_NIFTI2 = {
    "dim": (16, "8q"),
    "intent": (504, "i"),
    "datatype": (12, "h"),
    "bits": (14, "h"),
    "step": (136, "d"),
    "offset": (168, "q"),
    "slope": (176, "2d"),
    "qform": (344, "i"),
    "sform": (348, "i"),
    "units": (500, "i"),
}


# Code of the type of the values: what it is for numpy, where it is a real number.
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2"}
TYPES |= {768: "u4", 1024: "i8", 1280: "u8"}
_LONG = {1536: "f16"} if hasattr(np, "float128") else {}  # not on every machine
# Code of the unit of time: how many seconds it is.
_SECONDS = {0: 1.0, 8: 1.0, 16: 1e-3, 24: 1e-6}


def _parse(head: bytes, order: str, fields: dict[str, tuple[int, str]]) -> NiftiHeader:
    value = {
        name: struct.unpack_from(order + kind, head, at)
        for name, (at, kind) in fields.items()
    }
    offset, (slope, intercept) = value["offset"][0], value["slope"]
    scaled = math.isfinite(slope) and slope != 0
    n_axes = max(0, min(7, value["dim"][0]))
    units, step = value["units"][0], value["step"][0]
    known = units % 8 <= 3 and math.isfinite(step) and step > 0  # of space, too
    seconds = step * _SECONDS.get(units - units % 8, 0.0) if known else 0.0
    name = (TYPES | _LONG).get(value["datatype"][0], "")
    return NiftiHeader(
        axes=tuple(int(n) for n in value["dim"][1 : n_axes + 1]),
        dtype=np.dtype(order + name).str if name else "",
        bits=value["bits"][0],
        offset=int(offset) if math.isfinite(offset) else -1,
        slope=slope if scaled else 1.0,
        intercept=intercept if scaled and math.isfinite(intercept) else 0.0,
        sform_code=value["sform"][0],
        qform_code=value["qform"][0],
        repetition_time=round(seconds, 6) if seconds > 0 else None,
        is_cifti=value["intent"][0] in _CIFTI_INTENTS,
    )


_MAX_VOLUME_BYTES = 2**31
MAX_OFFSET = 2**26  # bytes of header extensions, which are read into memory
_MAX_MM = 1e6
_CHUNK = 2**20
_DAMAGED = "The header may be damaged."


def check_header(path: Path, header: NiftiHeader, kind: ImageKind) -> None:
    """Refuse what no image of a kind can say of itself."""
    axes = header.axes if kind is BOLD else header.shape
    listed = "x".join(map(str, axes))
    place = header.sform_code, header.qform_code
    # Not by the bits of the header, which no reader goes by.
    size = math.prod(axes[:3]) * np.dtype(header.dtype or "u1").itemsize
    remedy = _DAMAGED
    if header.is_cifti:
        raise _refuse_cifti(path, header, kind)
    if not 0 <= header.offset <= MAX_OFFSET:
        msg = (
            f"the header puts the first value at byte {header.offset}; 0 to"
            f" {MAX_OFFSET // 2**20} MiB can be used."
        )
    elif len(axes) not in kind.n_axes:
        msg = f"the image has {len(axes)} axes ({listed}), {kind.needed}."
        remedy = kind.remedy
    elif min(axes) < 1:
        msg = f"the axes have the lengths {listed}; at least 1 is needed in each."
    elif kind is BOLD and axes[3] < 2:
        msg = f"the series has {axes[3]} volume, at least 2 are needed."
        remedy = "Leave this run out, for example with --bids-filter-file."
    elif place == (0, 0):
        msg = (
            "the header holds no orientation (sform_code and qform_code are 0), so"
            " nothing tells where in the brain a voxel is."
        )
        remedy = "Write the image with its affine, by the software that made it."
    elif not header.dtype:
        msg = f"the values are no real numbers (of {header.bits} bits), as are needed."
        remedy = "Convert the image."
    elif size > _MAX_VOLUME_BYTES:
        msg = f"a volume of {listed} takes {size / 2**30:,.1f} GiB, 2 GiB can be used."
    else:
        return
    raise kind.error(msg, where=path, remedy=remedy)


def _refuse_cifti(path: Path, header: NiftiHeader, kind: ImageKind) -> DataError:
    size = path.stat().st_size
    if size < header.n_bytes and not path.name.endswith(".gz"):
        msg = (
            f"the file ends after its header: {header.n_bytes - size} bytes of data are"
            " missing. Besides, it is a CIFTI file (grayordinates), no volume."
        )
        remedy = f"Get it again if you need it elsewhere. {VOLUMES}"
        return kind.error(msg, where=path, remedy=remedy)
    msg = "this is a CIFTI file (grayordinates); only volumes can be used for now."
    remedy = VOLUMES if kind is ATLAS else "Convert it to a volume (.nii.gz)."
    return kind.error(msg, where=path, remedy=remedy)


def make_grid(
    path: Path, header: NiftiHeader, affine: NDArray[np.float64], kind: ImageKind
) -> Grid:
    """Grid of an image, whose affine must place its voxels in space."""
    affine = np.asarray(affine, dtype=np.float64)
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
        raise kind.error(msg, where=path, remedy=remedy)
    return Grid.of(header.shape, affine)


def locate_values(path: Path, header: NiftiHeader, kind: ImageKind) -> VolumeSource:
    """Where the values are; of whole files, only if they can be there."""
    source = VolumeSource(
        path=path,
        offset=header.offset,
        dtype=header.dtype,
        n_voxels=math.prod(header.shape[:3]),
        n_volumes=math.prod(header.shape[3:]),
        compressed=path.name.endswith(".gz"),
    )
    if kind.whole:
        check_whole(source, kind)
    return source


def check_whole(source: VolumeSource, kind: ImageKind) -> None:
    """Refuse a header that declares more than its file can hold."""
    try:
        check_size(source)
    except ImageError as error:
        msg, remedy = error.problem, error.remedy
        raise kind.error(msg, where=source.path, remedy=remedy) from error


def check_complete(path: Path, *, md5: str | None = None) -> None:
    """Read a file to its end and compare it with what it says of itself."""
    with path.open("rb") as file:
        head = file.read(256)
    if not head:
        raise AtlasError("the file is empty (0 bytes).", where=path, remedy=FETCH_AGAIN)
    surface = path.suffix == ".gii" and b"GIFTI" in head
    if head.lstrip().startswith((b"<?xml", b"<!DOCTYPE", b"<html")) and not surface:
        msg = "the file holds a server's error page."
        raise AtlasError(msg, where=path, remedy=FETCH_AGAIN)
    if md5 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != md5:
            msg = f"its MD5 checksum is {found}, {md5} is expected."
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


# Vertices of a hemisphere at each density (TemplateFlow's den-3k, 10k, 32k, ...).
_COUNTS = {
    "fsLR": (4_002, 7_842, 32_492, 59_292, 163_842),
    "fsaverage": (642, 2_562, 10_242, 40_962, 163_842),
    "onavg": (10_242, 40_962, 163_842),
    "civet": (40_962, 163_842),
}
# FreeSurfer's names of fsaverage at one density, which fMRIPrep writes as spaces.
_FREESURFER = {"fsaverage3": 642, "fsaverage4": 2_562}
_FREESURFER |= {"fsaverage5": 10_242, "fsaverage6": 40_962}
# Vertices of a hemisphere at each den-; 91k and 170k count all grayordinates.
DENSITIES = {"3k": 2_562, "4k": 4_002, "8k": 7_842, "10k": 10_242, "32k": 32_492}
DENSITIES |= {"41k": 40_962, "59k": 59_292, "164k": 163_842}
DENSITIES |= {"91k": 32_492, "170k": 59_292}
MOST_VERTICES = 2**24  # a hemisphere; a hundred times the finest template
_SAY_SPACE = "Name the template, with --atlas-space or as space- in the file's name."


def mesh_of(template: str | None, n_vertices: int) -> Mesh:
    """Mesh of a template with so many vertices.

    ``template`` is ``None`` where nothing names it: only fsLR has 32,492 or 59,292. One
    that is not known here, such as ``fsnative:sub-01``, has any number of vertices,
    which are counted with the medial wall.
    """
    if template is None:
        fitting = _templates_with(n_vertices)
        if len(fitting) == 1:
            return Mesh(fitting[0], n_vertices)
        which = " and ".join(fitting) or "no template that is known here"
        msg = (
            f"the meshes have {n_vertices:,} vertices a hemisphere, as {which} have;"
            " nothing tells which is meant."
        )
        raise SpaceMismatch(msg, remedy=_SAY_SPACE)
    name = "fsaverage" if template in _FREESURFER else template
    own = _FREESURFER.get(template)
    counts = _COUNTS.get(name, (n_vertices,)) if own is None else (own,)
    if n_vertices not in counts:
        known = " or ".join(f"{n:,}" for n in counts)
        fitting = _templates_with(n_vertices)
        which = f", as {' and '.join(fitting)} have" if fitting else ""
        msg = (
            f"the mesh has {n_vertices:,} vertices{which}; {template} has {known} a"
            " hemisphere."
        )
        remedy = (
            "Check the space in the file's name; `wb_command -label-resample` and"
            " `-metric-resample` bring data from one mesh to another."
        )
        raise SpaceMismatch(msg, remedy=remedy)
    return Mesh(name, n_vertices)


def _templates_with(n_vertices: int) -> list[str]:
    return [name for name, counts in _COUNTS.items() if n_vertices in counts]


def is_template(name: str) -> bool:
    """Whether both hemispheres of a mesh must be alike."""
    return name in _COUNTS


def surface_template(space: str | None) -> str | None:
    """A space if it is a template of surfaces or a participant's own, else ``None``."""
    known = space in _FREESURFER or space in _COUNTS
    own = space is not None and space.startswith("fsnative")
    return space if known or own else None


def name_density(n_vertices: int) -> str:
    """TemplateFlow's word for the vertices of a hemisphere; blank if it has none."""
    return next((den for den, n in DENSITIES.items() if n == n_vertices), "")


def meshes_of(frame: Frame) -> list[Mesh]:
    """Meshes of a frame, each once."""
    meshes = [part.support for part in frame.parts if isinstance(part.support, Mesh)]
    return list(dict.fromkeys(meshes))
