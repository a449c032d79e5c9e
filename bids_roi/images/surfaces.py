"""Surfaces: series of a run, labels (label.gii, FreeSurfer's annot), mesh and areas."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.frame import CORTICES, Block, Frame, Mesh, Part, find_vertex_areas
from bids_roi.errors import AtlasError, ImageError, MissingInput, SpaceMismatch
from bids_roi.images.header import MOST_VERTICES, is_template, mesh_of
from bids_roi.images.markup import (
    AGAIN,
    Label,
    LabelledPoints,
    choose_map,
    located,
    parse_real,
    read_arrays,
)
from bids_roi.images.nifti import check_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.images.markup import ArrayHead, Reading


_BLOCK_BYTES = 4 * 2**20
# FreeSurfer tells milliseconds; what is no TR in them may be seconds, or anything.
_TIME_STEPS_MS = 50.0, 100_000.0
# What such files hold beside series; AFNI's NODE_INDEX would pass for a volume.
_NO_VALUES = ("POINTSET", "TRIANGLE", "NODE_INDEX", "LABEL", "RGB_VECTOR")


@dataclass(frozen=True, slots=True)
class _Hemisphere:
    """One file, as its first array tells it."""

    path: Path
    part: Part
    n_volumes: int
    head: ArrayHead
    n_arrays: int
    # All volumes of a vertex lie together, not all vertices of a volume.
    by_vertex: bool
    repetition_time: float | None


@dataclass(frozen=True, slots=True)
class SurfaceSeries:
    """What the files of one run say."""

    frame: Frame  # A part for each hemisphere, whole meshes
    hemispheres: tuple[_Hemisphere, ...]  # the files, in the order of the parts
    n_volumes: int  # volumes, T, of each
    repetition_time: float | None  # seconds; None where no file has it

    @property
    def path(self) -> Path:
        """The file of the first hemisphere."""
        return self.hemispheres[0].path

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values of both hemispheres together."""
        dtypes = (np.dtype(one.head.dtype) for one in self.hemispheres)
        return np.result_type(*dtypes).newbyteorder("=")

    @property
    def volume_bytes(self) -> int:
        """Size of a volume of both hemispheres in bytes."""
        return self.frame.n_points * self.dtype.itemsize

    def block_volumes(self, block_bytes: int) -> int:
        """Volumes in a block of at most ``block_bytes``, at least one."""
        return max(1, min(self.n_volumes, block_bytes // self.volume_bytes))

    def blocks(self, block_bytes: int = _BLOCK_BYTES) -> Iterator[Block]:
        """Read all values once, some volumes of all vertices at a time.

        Where files hold all volumes of a vertex together, all volumes of some vertices.
        A file that is damaged, or holds other than what it declares, is an
        ``ImageError``; one that cannot be read, a ``MissingInput``.
        """
        block_bytes = min(block_bytes, _BLOCK_BYTES)
        if not self.hemispheres[0].by_vertex:
            yield from self._joined(block_bytes)
            return
        volumes = slice(0, self.n_volumes)
        for one, start in zip(self.hemispheres, self.frame.starts, strict=True):
            for some in _gather(_read_rows(one), block_bytes):
                # As in stream.py: two blocks at least, so that memory decides no digit.
                for rows in np.array_split(some, 2):
                    yield Block(volumes, slice(start, start + len(rows)), rows.T)
                    start += len(rows)

    def _joined(self, block_bytes: int) -> Iterator[Block]:
        n_points = self.frame.n_points
        size = self.block_volumes(block_bytes)
        buffer = np.empty((size, n_points), self.dtype)
        start = filled = 0
        both = (chain.from_iterable(_read_rows(one)) for one in self.hemispheres)
        for volume in zip(*both, strict=True):
            np.concatenate(volume, out=buffer[filled])
            filled += 1
            if filled == size:
                yield Block(slice(start, start + filled), slice(0, n_points), buffer)
                start, filled = start + filled, 0
        if filled:
            some = slice(start, start + filled)
            yield Block(some, slice(0, n_points), buffer[:filled])


def open_surface_series(
    paths: Mapping[str, Path],
    template: str | None = None,
    *,
    hemispheres: tuple[str, ...] = ("L", "R"),
) -> SurfaceSeries:
    """Read the heads of the files of one run and check that they belong together."""
    for hemisphere in hemispheres:
        if hemisphere not in paths:
            there, path = next(iter(paths.items()), ("", ""))
            msg = f"the run has no file of hemi-{hemisphere}, both are needed."
            remedy = f"Fetch it, or ask for one hemisphere: --hemi {there}."
            raise MissingInput(msg, where=path, remedy=remedy)
    found = tuple(_open_hemisphere(paths[name], name, template) for name in hemispheres)
    for other in found[1:]:
        with located(other.path, ImageError):
            _check_pair(found[0], other)
    times = [one.repetition_time for one in found if one.repetition_time]
    return SurfaceSeries(
        frame=Frame(tuple(one.part for one in found)),
        hemispheres=found,
        n_volumes=found[0].n_volumes,
        repetition_time=times[0] if times else None,
    )


def _open_hemisphere(path: Path, hemisphere: str, template: str | None) -> _Hemisphere:
    check_file(path)
    with located(path, ImageError):
        for reading in read_arrays(path):
            if reading.has_values:
                return _describe(path, reading, hemisphere, template)
        raise ImageError("the file holds no arrays.", remedy="Choose another file.")


def _describe(
    path: Path, reading: Reading, hemisphere: str, template: str | None
) -> _Hemisphere:
    _check_structure(reading.structure, hemisphere)
    head = reading.heads[0]
    _check_intent(head)
    by_vertex = False
    n_volumes, n_vertices = reading.n_arrays, head.lengths[0]
    if len(head.lengths) == 2 and reading.n_arrays == 1:
        axes = tuple(reversed(head.lengths)) if head.by_column else head.lengths
        vertex_axis = _vertex_axis(template, axes)
        n_vertices, n_volumes = axes[vertex_axis], axes[1 - vertex_axis]
        # The first of ``lengths`` is the slowest: with vertices there, time is fastest.
        by_vertex = (vertex_axis == 0) != head.by_column
    elif len(head.lengths) != 1:
        shape = " x ".join(f"{n:,}" for n in head.lengths)
        msg = f"each of {reading.n_arrays:,} arrays has the axes {shape}."
        remedy = "One array for each volume, or one of vertices x volumes, is needed."
        raise ImageError(msg, remedy=remedy)
    if n_volumes < 2:
        msg = f"the series has {n_volumes} volume, at least 2 are needed."
        remedy = "Leave this run out, for example with --bids-filter-file."
        raise ImageError(msg, remedy=remedy)
    step = parse_real(reading.metadata.get("TimeStep"))
    low, high = _TIME_STEPS_MS
    return _Hemisphere(
        path=path,
        part=Part(mesh_of(template, n_vertices), CORTICES[hemisphere]),
        n_volumes=n_volumes,
        head=head,
        n_arrays=reading.n_arrays,
        by_vertex=by_vertex,
        repetition_time=round(step / 1000, 6) if low <= step <= high else None,
    )


def _vertex_axis(template: str | None, axes: tuple[int, ...]) -> int:
    """Tell vertices from volumes: Dim0 by the format, unless only Dim1 fits.

    pyhrf writes volumes x vertices.
    """
    for axis in (0, 1):
        try:
            mesh_of(template, axes[axis])
        except SpaceMismatch:
            continue
        return axis
    return 0


def _check_structure(says: str, hemisphere: str) -> None:
    if says not in ("", CORTICES[hemisphere]):
        msg = (
            f"the file is taken for hemi-{hemisphere}, and says of itself that it is"
            f" {says} (AnatomicalStructurePrimary)."
        )
        remedy = (
            "The two hemispheres may be swapped: compare them with the surfaces, and"
            " rename the files, or correct the word with `wb_command -set-structure`."
        )
        raise ImageError(msg, remedy=remedy)


def _check_intent(head: ArrayHead) -> None:
    if head.intent in _NO_VALUES:
        msg = f"an array is of {head.intent}, values of a series are needed."
        raise ImageError(msg, remedy="Choose a .func.gii file.")


def _check_pair(one: _Hemisphere, other: _Hemisphere) -> None:
    if one.n_volumes != other.n_volumes:
        msg = f"the file has {other.n_volumes:,} volumes, {one.path} {one.n_volumes:,}."
        raise ImageError(msg, remedy="One of them may be cut short, or of another run.")
    times = one.repetition_time, other.repetition_time
    if all(times) and times[0] != times[1]:
        msg = f"the TimeStep is {times[1]} s, that of {one.path} {times[0]} s."
        raise ImageError(msg, remedy="Take both hemispheres of one run.")
    mine, theirs = one.part.support, other.part.support
    if isinstance(mine, Mesh) and mine != theirs and is_template(mine.template):
        msg = f"the file is on {theirs}, {one.path} on {mine}."
        raise ImageError(msg, remedy="Take both hemispheres at one density.")
    if one.by_vertex != other.by_vertex:
        msg = f"volumes are stored one after the other in one of this and {one.path}."
        raise ImageError(msg, remedy="Write both hemispheres with one program.")


def _read_rows(one: _Hemisphere) -> Iterator[NDArray[Any]]:
    """Values along the fastest axis, (n, row), with all arrays like the first."""
    first = one.head.lengths, one.head.dtype[1:]
    with located(one.path, ImageError):
        for reading in read_arrays(one.path):
            while reading.rows:
                number, rows = reading.rows.popleft()
                head = reading.heads[number]
                if (head.lengths, head.dtype[1:]) != first:
                    msg = (
                        f"array {number + 1:,} has {head.n_values:,} values of type"
                        f" {head.dtype[1:]}, the first {one.head.n_values:,} of"
                        f" {one.head.dtype[1:]}."
                    )
                    raise ImageError(msg, remedy=AGAIN)
                _check_intent(head)
                yield rows


def _gather(rows: Iterator[NDArray[Any]], n_bytes: int) -> Iterator[NDArray[Any]]:
    """Join short stretches of rows to blocks."""
    kept: list[NDArray[Any]] = []
    size = 0
    for some in rows:
        kept.append(some)
        size += some.nbytes
        if size >= n_bytes:
            yield np.concatenate(kept)
            kept, size = [], 0
    if kept:
        yield np.concatenate(kept)


_MOST_ENTRIES = 2**17
_LONGEST_NAME = 2**12
_LARGEST_ANNOT = 2**28  # bytes; 8 for a vertex
_CHOOSE_LABELS = "Choose a .label.gii or .annot file."
_CHOOSE = (
    "Choose a midthickness surface (.surf.gii), or a map of areas in mm2 (.shape.gii,"
    " as `wb_command -surface-vertex-areas` writes)."
)
# Surfaces whose areas are not the cortex's, and maps of something else, by their names.
_NO_AREAS = {"inflated", "veryinflated", "vinflated", "sphere", "flat", "hull"}
_NO_AREAS |= {"thickness", "sulc", "curv", "curvature", "myelinmap"}
# The same of a surface by its GeometricType, as Workbench and FreeSurfer write it.
_NO_CORTEX = re.compile("flat|spher|hull|ellips", re.IGNORECASE)


def read_surface_labels(path: Path, wanted: str | None = None) -> LabelledPoints:
    """Read the labels of all vertices of a hemisphere.

    Keys of an annot are the packed colours: red + 256 green + 65536 blue. ``wanted`` is
    the name or number of the map, see ``choose_map``.
    """
    check_file(path)
    with located(path, AtlasError):
        if path.suffix == ".annot":
            return _read_annot(path)
        return _read_label_gii(path, wanted)


def read_hemisphere(path: Path) -> str:
    """Structure that a GIFTI file says it is of (``CORTEX_LEFT``), or blank."""
    if path.suffix == ".annot":
        return ""
    check_file(path)
    with located(path, AtlasError):
        for reading in read_arrays(path):
            if reading.has_values:
                return reading.structure
    return ""


def _read_label_gii(path: Path, wanted: str | None) -> LabelledPoints:
    # Twice, because which map is wanted is known when all names are.
    names: list[str] = []
    table: Sequence[Label] = ()
    for reading in read_arrays(path):
        names, table = reading.names, reading.labels
        reading.rows.clear()
        for head in reading.heads:
            if np.dtype(head.dtype).kind not in "iu":
                msg = "the arrays hold fractions (floats), labels are whole numbers."
                remedy = (
                    f"{_CHOOSE_LABELS} `wb_command -metric-label-import` makes one."
                )
                raise AtlasError(msg, remedy=remedy)
            if len(head.lengths) != 1 or head.intent in ("TRIANGLE", "NODE_INDEX"):
                shape = " x ".join(map(str, head.lengths))
                msg = f"an array of {head.intent} has the axes {shape}: no labels."
                raise AtlasError(msg, remedy=_CHOOSE_LABELS)
    if not names:
        raise AtlasError("the file holds no arrays.", remedy=_CHOOSE_LABELS)
    number, told = choose_map(names, wanted)
    rows: list[NDArray[Any]] = []
    for reading in read_arrays(path):
        while reading.rows:
            which, some = reading.rows.popleft()
            if which == number:
                rows.append(some)
    keys = np.concatenate(rows).ravel().astype(np.int64)
    # 32 bits with a sign make the larger half of the packed colours negative.
    known = np.array([label.key for label in table], np.int64)
    keys += 2**32 * ((keys < 0) & np.isin(keys + 2**32, known))
    return LabelledPoints(keys, tuple(table), names[number], told)


class _Numbers:
    """Big-endian numbers and names of an annot, read in order."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def take(self, n_bytes: int) -> bytes:
        stop = self.at + n_bytes
        if n_bytes < 0 or stop > len(self.content):
            msg = f"the file ends, or is damaged, at byte {self.at:,}."
            raise AtlasError(msg, remedy="Copy or download it again.")
        taken = self.content[self.at : stop]
        self.at = stop
        return taken

    def number(self, most: int = 2**31) -> int:
        (value,) = struct.unpack(">i", self.take(4))
        if not -most <= value <= most:
            msg = f"the file holds {value:,} where at most {most:,} can be."
            raise AtlasError(msg, remedy="Copy or download it again.")
        return int(value)

    def name(self) -> str:
        text = self.take(self.number(_LONGEST_NAME))
        return text.split(b"\0")[0].decode(errors="replace").strip()


def _read_annot(path: Path) -> LabelledPoints:
    with path.open("rb") as file:
        content = file.read(_LARGEST_ANNOT + 1)
    if len(content) > _LARGEST_ANNOT:
        msg = f"the file is larger than {_LARGEST_ANNOT // 2**20} MiB."
        raise AtlasError(msg, remedy=_CHOOSE_LABELS)
    file_of = _Numbers(content)
    n_vertices = file_of.number(MOST_VERTICES)
    pairs = np.frombuffer(file_of.take(8 * n_vertices), ">i4").reshape(-1, 2)
    vertices = pairs[:, 0]
    if n_vertices < 1 or not (np.sort(vertices) == np.arange(n_vertices)).all():
        msg = f"the file does not hold each of its {n_vertices:,} vertices once."
        raise AtlasError(msg, remedy="Copy or download it again.")
    keys = np.zeros(n_vertices, np.int64)
    keys[vertices] = pairs[:, 1].astype(np.int64) & 0xFFFFFFFF
    if file_of.at == len(content) or not file_of.number():
        msg = "the file has no colour table, which names its labels."
        remedy = "Write it again with its table (`mris_ca_label`, `mri_surf2surf`)."
        raise AtlasError(msg, remedy=remedy)
    return LabelledPoints(keys, tuple(_read_colours(file_of)))


def _read_colours(file_of: _Numbers) -> list[Label]:
    n_entries = file_of.number()
    numbered = n_entries < 0  # format 2, which may leave numbers out
    if numbered:
        if n_entries != -2:
            msg = f"the colour table is of version {-n_entries}, 1 and 2 can be read."
            raise AtlasError(msg, remedy="Convert it with FreeSurfer.")
        file_of.number()
    file_of.name()  # the file that it was made from
    n_entries = file_of.number(_MOST_ENTRIES) if numbered else n_entries
    labels = []
    for _ in range(n_entries):
        if numbered:
            file_of.number()
        name = file_of.name()
        red, green, blue, transparency = (file_of.number(255) for _ in range(4))
        key = red + (green << 8) + (blue << 16)
        rgba = red / 255, green / 255, blue / 255, 1 - transparency / 255
        labels.append(Label(key, name, rgba))
    return labels


def read_mesh(
    path: Path, n_vertices: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Places of the vertices in mm, (V, 3), and corners of the faces, (F, 3)."""
    check_file(path)
    with located(path, ImageError):
        reading, arrays = _read_whole(path, n_vertices)
        return _find_mesh(reading, arrays)


def read_areas(path: Path) -> tuple[str, NDArray[np.float64]]:
    """Structure that a file says it is of, or blank, and mm2 of each vertex, (n,)."""
    check_file(path)
    with located(path, ImageError):
        reading, arrays = _read_whole(path)
        _refuse_other_shapes(path, reading)
        heads = reading.heads
        one = len(arrays) == len(heads) == 1 and len(heads[0].lengths) == 1
        if sorted(head.intent for head in heads) == ["POINTSET", "TRIANGLE"]:
            areas = find_vertex_areas(*_find_mesh(reading, arrays))
        elif one and heads[0].dtype[1] == "f":
            areas = arrays[0].ravel().astype(np.float64)
        else:
            found = ", ".join(head.intent for head in heads[:5]) or "no arrays"
            msg = f"the file holds {found}: neither a surface nor a map of areas."
            raise ImageError(msg, remedy=_CHOOSE)
        empty = int((~(np.isfinite(areas) & (areas > 0))).sum())
        if empty:
            msg = f"{empty:,} of {areas.size:,} vertices have no area, each needs one."
            raise ImageError(msg, remedy=_CHOOSE)
        return reading.structure, areas


def _read_whole(
    path: Path, n_vertices: int | None = None
) -> tuple[Reading, list[NDArray[Any]]]:
    """All arrays of a file; a surface of other than ``n_vertices`` is not read on."""
    parts: dict[int, list[NDArray[Any]]] = {}
    reading = None
    for reading in read_arrays(path):
        for head in reading.heads:
            wrong = n_vertices is not None and n_vertices not in head.lengths
            if wrong and head.intent == "POINTSET":
                msg = f"the surface has {max(head.lengths):,} vertices."
                raise ImageError(msg, remedy=f"{n_vertices:,} are needed.")
        while reading.rows:
            number, rows = reading.rows.popleft()
            parts.setdefault(number, []).append(rows)
    if reading is None:
        raise ImageError("the file holds nothing.", remedy=_CHOOSE)
    return reading, [np.concatenate(parts[number]) for number in sorted(parts)]


def _find_mesh(
    reading: Reading, arrays: list[NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Vertices and faces of what was read, checked against each other."""
    triples = {
        head.intent: values.T if head.by_column else values
        for head, values in zip(reading.heads, arrays, strict=False)
        if head.intent in ("POINTSET", "TRIANGLE")
        and (len(head.lengths) == 2 and 3 in head.lengths)
    }
    if len(arrays) != len(reading.heads) or not {"POINTSET", "TRIANGLE"} <= set(
        triples
    ):
        msg = "the file does not hold vertices and the faces between them in triples."
        raise ImageError(msg, remedy=_CHOOSE)
    vertices, faces = triples["POINTSET"].astype(np.float64), triples["TRIANGLE"]
    if faces.dtype.kind not in "iu" or not 0 <= faces.min() <= faces.max() < len(
        vertices
    ):
        msg = "the faces join vertices that are not there."
        raise ImageError(msg, remedy=_CHOOSE)
    if not np.isfinite(vertices).all():
        msg = "some vertices have no place in space (NaN)."
        raise ImageError(msg, remedy="Copy or make the file again.")
    return vertices, faces.astype(np.intp)


def _refuse_other_shapes(path: Path, reading: Reading) -> None:
    """Refuse what says of itself that its numbers are not the cortex's areas.

    Nothing in the numbers tells: thickness, too, is above 0 throughout.
    """
    shape = reading.metadata.get("GeometricType", "")
    words = re.split("[._ ]", " ".join((path.name, *reading.names)).lower())
    word = (
        shape
        if _NO_CORTEX.search(shape)
        else next(filter(_NO_AREAS.__contains__, words), "")
    )
    if word:
        msg = f"the file says that it is of another shape or quantity ({word[:40]})."
        raise ImageError(msg, remedy=_CHOOSE)
