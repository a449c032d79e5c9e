"""CIFTI-2 files: dense series and labels read, parcellated data written.

nibabel needs 0.7 s of processor time for the header of a 91k file, ten times what the
values of 300 volumes take: hence a reader of our own, with nibabel as its oracle. What
is written is made by nibabel.
"""

from __future__ import annotations

import functools
import math
import struct
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from bids_roi.core.frame import Frame, Mesh, Part, Points
from bids_roi.core.grid import Grid
from bids_roi.errors import AtlasError, ImageError
from bids_roi.images.header import MAX_OFFSET, MOST_VERTICES, TYPES, mesh_of, open_file
from bids_roi.images.markup import (
    AGAIN,
    LabelledPoints,
    choose_map,
    located,
    parse_label,
    parse_real,
    parse_tree,
    whole,
)
from bids_roi.images.nifti import MAX_LABEL, Series, are_whole, check_file
from bids_roi.images.stream import VolumeSource, check_size

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray


_MOST_COLUMNS = 2**20  # volumes or maps
_UNKNOWN = 3000  # as nibabel writes it where nobody sets it: the axes tell
_INTENTS = {
    3001: "a dense connectivity matrix (dconn)",
    3002: "a dense series (dtseries)",
    3003: "a parcellated connectivity matrix (pconn)",
    3004: "a parcellated series (ptseries)",
    3006: "dense scalars (dscalar)",
    3007: "dense labels (dlabel)",
    3008: "parcellated scalars (pscalar)",
    3009: "connectivity of parcels and grayordinates (pdconn)",
    3010: "connectivity of grayordinates and parcels (dpconn)",
}
_OTHER_TYPES = dict.fromkeys((32, 1792, 2048), "complex numbers")
_OTHER_TYPES |= {1: "bits", 128: "RGB colours", 2304: "RGBA colours"}
_OTHER_TYPES |= {1536: "128-bit floats"}
_MODELS, _SERIES, _LABELS = "BRAIN_MODELS", "SERIES", "LABELS"
_MOST_VOXELS = 2**31


def open_dense_series(path: Path, template: str | None = None) -> Series:
    """Read the header of a ``.dtseries.nii`` file and check that it can be used."""
    check_file(path)
    with located(path, ImageError):
        head = _read_head(path)
        axes = _parse_axes(head, 3002, _SERIES)
        n_volumes = _count_columns(head, axes[0], _SERIES)
        if n_volumes < 2:
            msg = f"the series has {n_volumes} volume, at least 2 are needed."
            remedy = "Leave this run out, for example with --bids-filter-file."
            raise ImageError(msg, remedy=remedy)
        return Series(
            frame=_frame_of(axes[1], head, template),
            source=_locate_rows(path, head),
            slope=head.slope,
            intercept=head.intercept,
            repetition_time=_series_step(axes[0]),
        )


def read_dense_labels(
    path: Path, template: str | None = None, wanted: str | None = None
) -> tuple[Frame, LabelledPoints]:
    """Read one map of a ``.dlabel.nii`` file."""
    check_file(path)
    with located(path, AtlasError):
        head = _read_head(path)
        axes = _parse_axes(head, 3007, _LABELS)
        _count_columns(head, axes[0], _LABELS)
        maps = axes[0].findall("NamedMap")
        names = [(one.findtext("MapName") or "").strip() for one in maps]
        number, told = choose_map(names, wanted)
        frame = _frame_of(axes[1], head, template)
        source = _locate_rows(path, head)
        stored = np.empty(frame.n_points, np.dtype(source.dtype).newbyteorder("="))
        for block in source.blocks():
            stored[block.points] = block.values[number]
        keys = _as_keys(stored, head)
        labels = maps[number].iter("Label")
        table = tuple(parse_label(x.attrib, x.get("Key"), x.text or "") for x in labels)
        return frame, LabelledPoints(keys, table, names[number], told)


class _Head(NamedTuple):
    """Fields of the NIfTI-2 header, and the XML of the extension."""

    dim: tuple[int, ...]
    datatype: int
    offset: int
    slope: float
    intercept: float
    intent: int
    order: Literal["<", ">"]
    xml: bytes


def _read_head(path: Path) -> _Head:
    with open_file(path) as file:
        head = file.read(544)
        order: Literal["<", ">"] = "<" if head[:1] == b"\x1c" else ">"
        if len(head) < 544 or head[:4] != struct.pack(order + "i", 540):
            msg = "the file does not begin with the header of a NIfTI-2 image."
            raise ImageError(msg, remedy=AGAIN)
        offset, slope, intercept = struct.unpack_from(order + "q2d", head, 168)
        intent = struct.unpack_from(order + "i", head, 504)[0]
        if not 544 <= offset <= MAX_OFFSET:
            msg = (
                f"the header puts the first value at byte {offset:,}; 544 to"
                f" {MAX_OFFSET // 2**20} MiB can be used."
            )
            raise ImageError(msg, remedy="The header may be damaged.")
        body = file.read(offset - 544)
    scaled = math.isfinite(slope) and slope != 0
    if scaled and not math.isfinite(intercept):
        msg = f"the header has the slope {slope:g} and the intercept {intercept}."
        raise ImageError(msg, remedy="The header may be damaged.")
    return _Head(
        dim=struct.unpack_from(order + "8q", head, 16),
        datatype=struct.unpack_from(order + "h", head, 12)[0],
        offset=offset,
        slope=slope if scaled else 1.0,
        intercept=intercept if scaled else 0.0,
        intent=intent,
        order=order,
        xml=_find_xml(body if head[540] else b"", order),
    )


def _find_xml(body: bytes, order: str) -> bytes:
    """Walk over the extensions to the one of CIFTI, whose code is 32."""
    at, codes = 0, []
    while at + 8 <= len(body):
        size, code = struct.unpack_from(order + "2i", body, at)
        if size < 8 or at + size > len(body):
            break
        if code == 32:
            return body[at + 8 : at + size].rstrip(b"\0")
        codes.append(str(code))
        at += size
    found = ", ".join(codes[:10]) or "none"
    msg = (
        "the header has no extension of CIFTI (code 32), which tells where in the brain"
        f" the values lie; found: {found}."
    )
    remedy = "Programs that know NIfTI only drop it: take the file as it was before."
    raise ImageError(msg, remedy=remedy)


def _parse_axes(head: _Head, intent: int, columns: str) -> tuple[Element, Element]:
    """What the columns and the rows of the matrix are, as XML elements."""
    needed = _INTENTS[intent]
    if head.intent not in (intent, _UNKNOWN):
        found = _INTENTS.get(head.intent, f"something else (intent {head.intent})")
        msg = f"the file is {found}, {needed} is needed."
        raise ImageError(msg, remedy="Choose another file.")
    root = parse_tree(head.xml)
    version = root.get("Version", "")
    if root.tag != "CIFTI" or version.split(".")[0] != "2":
        msg = f"the XML is {root.tag[:40]} of version {version[:40]!r}, CIFTI 2 needed."
        remedy = "`wb_command -file-convert -cifti-version-convert` converts version 1."
        raise ImageError(msg, remedy=remedy)
    axes: dict[str, Element] = {}
    for element in root.findall("Matrix/MatrixIndicesMap"):
        for dimension in element.get("AppliesToMatrixDimension", "").split(","):
            if axes.setdefault(dimension.strip(), element) is not element:
                msg = f"two axes of the XML are for dimension {dimension[:40]!r}."
                raise ImageError(msg, remedy=AGAIN)
    kinds = {
        dimension: element.get("IndicesMapToDataType", "").rpartition("TYPE_")[2]
        for dimension, element in axes.items()
    }
    if kinds != {"0": columns, "1": _MODELS}:
        found = ", ".join(f"{k[:40]}: {v[:40]}" for k, v in sorted(kinds.items()))
        swapped = kinds == {"0": _MODELS, "1": columns}
        which = "is transposed" if swapped else "has other axes"
        msg = (
            f"the matrix {which} ({found or 'none'}); 0: {columns}, 1: {_MODELS} are"
            f" those of {needed}."
        )
        raise ImageError(msg, remedy="`wb_command -cifti-transpose` swaps the axes.")
    return axes["0"], axes["1"]


def _count_columns(head: _Head, axis: Element, columns: str) -> int:
    """Volumes or maps, which header and XML must agree on."""
    if columns == _SERIES:
        what = "NumberOfSeriesPoints"
        n_columns = whole(axis.get(what), what, most=_MOST_COLUMNS)
    else:
        n_columns = len(axis.findall("NamedMap"))
    if head.dim[0] != 6 or head.dim[1:5] != (1, 1, 1, 1) or head.dim[5] != n_columns:
        what = "volumes" if columns == _SERIES else "maps"
        msg = (
            f"the header has the axes {_shown_axes(head)}, the XML {n_columns:,} {what}"
            f" (1 x 1 x 1 x 1 x {n_columns:,} x grayordinates needed)."
        )
        raise ImageError(msg, remedy=_not_together(head, n_columns))
    return n_columns


def _shown_axes(head: _Head) -> str:
    n_axes = max(0, min(7, head.dim[0]))
    return " x ".join(f"{n:,}" for n in head.dim[1 : n_axes + 1]) or "(none)"


def _not_together(head: _Head, n_columns: int) -> str:
    if head.dim[6] == n_columns:
        return "The values may be transposed: write the file again."
    return "Header and XML do not belong together: write the file again."


def _series_step(axis: Element) -> float | None:
    unit = axis.get("SeriesUnit", "")
    if unit != "SECOND":
        msg = f"the series is in {unit[:40] or 'no unit'}, SECOND is needed."
        raise ImageError(msg, remedy="Choose a series over time, not a spectrum.")
    exponent = whole(
        axis.get("SeriesExponent", "0"), "SeriesExponent", least=-30, most=30
    )
    step = parse_real(axis.get("SeriesStep")) * 10.0**exponent
    return round(step, 6) if math.isfinite(step) and step > 0 else None


def _locate_rows(path: Path, head: _Head) -> VolumeSource:
    """Where the values are; refused where no such file can be as the header says."""
    if head.datatype not in TYPES:
        found = _OTHER_TYPES.get(head.datatype, f"type {head.datatype}")
        msg = f"the values are {found}, real numbers are needed."
        raise ImageError(msg, remedy="Convert the file.")
    dtype = np.dtype(TYPES[head.datatype]).newbyteorder(head.order)
    n_columns, n_rows = head.dim[5:7]
    needed = head.offset + n_rows * n_columns * dtype.itemsize
    compressed = path.name.endswith(".gz")
    size = path.stat().st_size
    if not compressed and size < needed:
        msg = (
            f"the header declares {n_rows:,} grayordinates with {n_columns:,} values of"
            f" {dtype.itemsize} bytes, {needed:,} bytes with itself; the file has"
            f" {size:,}: it is cut short."
        )
        raise ImageError(msg, remedy=AGAIN)
    source = VolumeSource(
        path, head.offset, dtype.str, n_rows, n_columns, compressed, by_points=True
    )
    check_size(source)
    return source


def _frame_of(axis: Element, head: _Head, template: str | None) -> Frame:
    frame = read_frame(axis, template)
    if frame.n_points != head.dim[6]:
        msg = (
            f"the brain models have {frame.n_points:,} grayordinates, the header"
            f" {head.dim[6]:,} ({_shown_axes(head)})."
        )
        raise ImageError(msg, remedy=_not_together(head, frame.n_points))
    return frame


def _as_keys(stored: NDArray[Any], head: _Head) -> NDArray[np.int64]:
    values = stored
    if (head.slope, head.intercept) != (1, 0):
        with np.errstate(over="ignore", invalid="ignore"):
            values = stored * head.slope + head.intercept
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, 0)
    low, high = float(values.min()), float(values.max())
    if max(-low, high) > MAX_LABEL or not are_whole(values).all():
        msg = f"the map holds what are no labels ({low:.6g} to {high:.6g})."
        remedy = "Labels are whole numbers: choose a dlabel file, or make it again."
        raise AtlasError(msg, remedy=remedy)
    return np.asarray(np.rint(values).astype(np.int64))


class _Model(NamedTuple):
    """A brain model as the XML has it; text, so that it can be a key."""

    structure: str
    kind: str
    offset: str
    n_points: str
    n_vertices: str
    numbers: str


def read_frame(axis: Element, template: str | None) -> Frame:
    """Frame that the brain models of a file make."""
    volume = axis.find("Volume")
    place = None
    if volume is not None:
        matrix = volume.find("TransformationMatrixVoxelIndicesIJKtoXYZ")
        place = (
            volume.get("VolumeDimensions", ""),
            "" if matrix is None else matrix.get("MeterExponent", "-3"),
            "" if matrix is None else matrix.text or "",
        )
    models = tuple(
        _Model(
            model.get("BrainStructure", "").removeprefix("CIFTI_STRUCTURE_")[:80],
            model.get("ModelType", "").removeprefix("CIFTI_MODEL_TYPE_")[:80],
            model.get("IndexOffset", ""),
            model.get("IndexCount", ""),
            model.get("SurfaceNumberOfVertices", ""),
            model.findtext("VertexIndices") or model.findtext("VoxelIndicesIJK") or "",
        )
        for model in axis.findall("BrainModel")
    )
    return _build_frame(place, models, template)


# The runs of a dataset have equal models. The text is the key, which is compared in
# a fraction of a millisecond; to make 91,282 numbers of it takes ten.
@functools.lru_cache(maxsize=8)
def _build_frame(
    place: tuple[str, str, str] | None, models: tuple[_Model, ...], template: str | None
) -> Frame:
    grid = None if place is None else _volume_grid(*place)
    ordered = sorted(models, key=lambda model: whole(model.offset, "IndexOffset"))
    parts: list[Part] = []
    known: set[tuple[str, str]] = set()
    end = 0
    for model in ordered:
        if model[:2] in known or not model.structure:
            msg = f"two brain models, or one without a name, are {model.structure!r}."
            raise ImageError(msg, remedy=AGAIN)
        known.add(model[:2])
        start = int(model.offset)
        if start != end:
            what = "leave a gap" if start > end else "overlap"
            msg = (
                f"the brain models {what}: {model.structure} begins at IndexOffset"
                f" {start:,}, those before it end at {end:,}."
            )
            raise ImageError(msg, remedy=AGAIN)
        parts.append(_part_of(model, grid, template))
        end += parts[-1].n_points
    if not end:
        raise ImageError("the file holds no grayordinates.", remedy=AGAIN)
    voxels = [part.numbers for part in parts if isinstance(part.support, Grid)]
    together = np.concatenate(voxels) if voxels else np.empty(0)
    if np.unique(together).size < together.size:
        msg = "a voxel belongs to two brain models, or twice to one."
        raise ImageError(msg, remedy=AGAIN)
    return Frame(tuple(parts))


def _part_of(model: _Model, grid: Grid | None, template: str | None) -> Part:
    name = model.structure
    count = whole(model.n_points, f"IndexCount of {name}")
    if model.numbers.encode().translate(None, b"0123456789 \t\r\n"):
        msg = f"{name} holds numbers of vertices or voxels that are no whole numbers."
        raise ImageError(msg, remedy=AGAIN)
    # fromstring makes of what is too large the largest, which no mesh has.
    numbers = np.fromstring(model.numbers.strip(), np.int64, sep=" ")
    per_point = {"SURFACE": 1, "VOXELS": 0 if grid is None else 3}.get(model.kind)
    if not per_point:
        lack = "" if per_point is None else " without a Volume that places them"
        msg = f"{name} is a model of {model.kind or 'nothing'}{lack}."
        raise ImageError(msg, remedy=AGAIN)
    if numbers.size != count * per_point:
        msg = (
            f"{name} holds {numbers.size:,} numbers of vertices or voxels; its"
            f" IndexCount of {count:,} needs {count * per_point:,}."
        )
        raise ImageError(msg, remedy=AGAIN)
    if grid is None or model.kind == "SURFACE":
        what = f"SurfaceNumberOfVertices of {name}"
        n_vertices = whole(model.n_vertices, what, least=1, most=MOST_VERTICES)
        is_cortex = name in ("CORTEX_LEFT", "CORTEX_RIGHT")
        mesh = mesh_of(template, n_vertices) if is_cortex else Mesh(name, n_vertices)
        _check_range(numbers, n_vertices, f"{name} holds vertex")
        if np.unique(numbers).size < count:
            msg = f"{name} holds a vertex twice; each has one value at a moment."
            raise ImageError(msg, remedy=AGAIN)
        in_order = count == n_vertices and (numbers == np.arange(count)).all()
        return Part(mesh, name, None if in_order else Points(numbers))
    ijk = numbers.reshape(-1, 3)
    for axis, (letter, length) in enumerate(zip("ijk", grid.shape, strict=True)):
        what = f"{name} holds a voxel outside the volume, {letter} ="
        _check_range(ijk[:, axis], length, what)
    nx, ny, _ = grid.shape
    return Part(grid, name, Points(ijk[:, 0] + nx * (ijk[:, 1] + ny * ijk[:, 2])))


def _check_range(numbers: NDArray[np.int64], limit: int, what: str) -> None:
    if numbers.size and not 0 <= numbers.max() < limit:
        msg = f"{what} {numbers.max():,}; 0 to {limit - 1:,} can be used."
        raise ImageError(msg, remedy=AGAIN)


def _volume_grid(dimensions: str, exponent: str, matrix: str) -> Grid:
    shape = tuple(
        whole(n, "VolumeDimensions", least=1, most=2**15) for n in dimensions.split(",")
    )
    numbers = [parse_real(text) for text in matrix.split()[:17]]
    to_mm = 10.0 ** (whole(exponent, "MeterExponent", least=-30, most=30) + 3)
    affine = np.array(numbers) * to_mm
    if len(shape) != 3 or math.prod(shape) > _MOST_VOXELS or len(numbers) != 16:
        msg = f"the Volume has {len(shape)} axes and {len(numbers)} numbers of a matrix"
        raise ImageError(f"{msg}; 3 and 16 are needed.", remedy=AGAIN)
    affine = affine.reshape(4, 4)
    affine[3] = 0, 0, 0, 1
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        msg = "the matrix of the Volume does not place its voxels in space."
        raise ImageError(msg, remedy=AGAIN)
    return Grid.of(shape, affine)


# Of 400 parcels on 91,282 grayordinates it takes a third of a second, as much as to
# write the file, and all runs of a dataset have the same.
@functools.lru_cache(maxsize=8)
def parcels_axis(
    frame: Frame, labels: Points, regions: tuple[tuple[int, str], ...]
) -> Any:  # noqa: ANN401 - nibabel
    """Make the axis of parcels that two files of one atlas and frame share.

    ``labels`` has the key of each point of the frame, frozen, so that it can be a key
    itself. ``regions`` are key and name of each parcel, which may have no points.
    """
    from nibabel import cifti2

    vertices: list[dict[str, NDArray[np.int64]]] = [{} for _ in regions]
    voxels: list[list[NDArray[np.int64]]] = [[] for _ in regions]
    meshes: dict[str, int] = {}
    grid = None
    for start, part in zip(frame.starts, frame.parts, strict=True):
        own = labels.numbers[start : start + part.n_points]
        # Sorted once, so that the points of a parcel are a slice.
        order = np.argsort(own, kind="stable")
        ordered = own[order]
        name = f"CIFTI_STRUCTURE_{part.structure}"
        if isinstance(part.support, Mesh):
            meshes[name] = part.support.n_vertices
        else:
            grid = part.support
        for row, (key, _) in enumerate(regions):
            first, last = np.searchsorted(ordered, [key, key + 1])
            numbers = part.numbers[order[first:last]]
            if not numbers.size:
                continue
            if isinstance(part.support, Mesh):
                vertices[row][name] = numbers
            else:
                ijk = np.unravel_index(numbers, part.support.shape, order="F")
                voxels[row].append(np.stack(ijk, axis=1))
    return cifti2.ParcelsAxis(
        [name for _, name in regions],
        _objects([np.concatenate([np.empty((0, 3), int), *some]) for some in voxels]),
        _objects(vertices),
        affine=None if grid is None else grid.matrix,
        volume_shape=None if grid is None else grid.shape,
        nvertices=meshes,
    )


def _objects(items: list[Any]) -> NDArray[np.object_]:
    """Array of objects, though they may all have one shape."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def series_content(
    axis: Any,  # noqa: ANN401 - nibabel
    values: NDArray[np.floating],
    repetition_time: float,
) -> bytes:
    """Content of a ``.ptseries.nii`` file."""
    from nibabel import cifti2

    series = cifti2.SeriesAxis(0, repetition_time, len(values))
    return _content((series, axis), values, "PARCELLATED_SERIES")


def matrix_content(
    axis: Any,  # noqa: ANN401 - nibabel
    matrix: NDArray[np.floating],
) -> bytes:
    """Content of a ``.pconn.nii`` file of an (N, N) matrix, NaN for n/a."""
    return _content((axis, axis), matrix, "PARCELLATED")


def _content(axes: tuple[Any, Any], values: NDArray[np.floating], kind: str) -> bytes:
    """As nibabel's Cifti2Image writes it, which copies all points of all axes first."""
    from nibabel import cifti2, nifti2
    from nibabel.cifti2.parse_cifti2 import Cifti2Extension

    header = nifti2.Nifti2Header()
    header.set_data_dtype(np.float32)
    header.set_intent(f"NIFTI_INTENT_CONNECTIVITY_{kind}")
    xml = cifti2.Cifti2Header.from_axes(axes).to_xml()
    header.extensions.append(Cifti2Extension.from_bytes(xml))
    stored = values.astype(np.float32).reshape(1, 1, 1, 1, *values.shape)
    return bytes(nifti2.Nifti2Image(stored, None, header).to_bytes())
