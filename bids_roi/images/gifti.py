"""Series on the surfaces of one or two hemispheres, streamed from GIFTI files.

Read by expat, because writers differ in what a search for tags would stumble over:
attributes over several lines, CDATA, one array for each volume or one for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.frame import Block, Frame, Mesh, Part
from bids_roi.errors import ImageError, MissingInput, SpaceMismatch
from bids_roi.images.gifti_arrays import AGAIN, ArrayHead, Reading, read_arrays
from bids_roi.images.markup import located, parse_real
from bids_roi.images.meshes import is_template, mesh_of
from bids_roi.images.nifti import check_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


_BLOCK_BYTES = 4 * 2**20
# FreeSurfer tells milliseconds; what is no TR in them may be seconds, or anything.
_TIME_STEPS_MS = 50.0, 100_000.0
# What such files hold beside series; AFNI's NODE_INDEX would pass for a volume.
_NO_VALUES = ("POINTSET", "TRIANGLE", "NODE_INDEX", "LABEL", "RGB_VECTOR")
_STRUCTURES = {"L": "CORTEX_LEFT", "R": "CORTEX_RIGHT"}


@dataclass(frozen=True, slots=True)
class _Hemisphere:
    """One file, as its first array tells it."""

    path: Path
    part: Part
    n_volumes: int
    head: ArrayHead
    n_arrays: int
    by_vertex: (
        bool  # all volumes of a vertex lie together, not all vertices of a volume
    )
    repetition_time: float | None


@dataclass(frozen=True, slots=True)
class SurfaceSeries:
    """What the files of one run say.

    Attributes
    ----------
    frame
        A part for each hemisphere, whole meshes.
    hemispheres
        The files, in the order of the parts.
    n_volumes
        Volumes, T, of each.
    repetition_time
        Seconds; ``None`` where no file has it.
    """

    frame: Frame
    hemispheres: tuple[_Hemisphere, ...]
    n_volumes: int
    repetition_time: float | None

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
        both = (_read_volumes(one) for one in self.hemispheres)
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
    """Read the heads of the files of one run and check that they belong together.

    Parameters
    ----------
    paths
        File of each hemisphere, ``L`` and ``R``.
    template
        Space, see ``mesh_of``.
    hemispheres
        Those that are needed, in order.

    Raises
    ------
    MissingInput
        If a file is absent or cannot be read.
    ImageError
        If one is not a series of that hemisphere, or two are not of one run.
    """
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
        part=Part(mesh_of(template, n_vertices), _STRUCTURES[hemisphere]),
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
    if says not in ("", _STRUCTURES[hemisphere]):
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


def _read_volumes(one: _Hemisphere) -> Iterator[NDArray[Any]]:
    for rows in _read_rows(one):
        yield from rows


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
