"""Where the values of a series lie: voxels of a grid, vertices of a mesh, or both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.grid import Grid, same_grid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class FrameMismatch(ValueError):
    """Two frames that can have nothing to do with one another; names both."""


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a series: all points of some volumes, or all volumes of some points.

    Attributes
    ----------
    volumes, points
        Which; those of a series come in order, and all its blocks are cut one way.
    values : (t, v)
        As they are stored; valid until the next block is asked for.
    picked
        Whether these are only the points that were asked for, of those in ``points``.
    """

    volumes: slice
    points: slice
    values: NDArray[Any]
    picked: bool = False


@dataclass(frozen=True, slots=True)
class Mesh:
    """Surface of one hemisphere.

    Attributes
    ----------
    template
        Whose surface it is: ``fsLR``, ``fsaverage``, or a participant's own as
        ``fsnative:sub-01``. Meshes of two templates may have the same number of
        vertices and are not the same.
    n_vertices
        Vertices, the medial wall included.
    """

    template: str
    n_vertices: int

    def __str__(self) -> str:
        """Template and number of vertices, for messages."""
        return f"{self.template} with {self.n_vertices:,} vertices"


def find_vertex_areas(
    points: NDArray[np.float64], triangles: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Find the area of each vertex: a third of each triangle that it is a corner of.

    Parameters
    ----------
    points : (n, 3)
        Where the vertices lie, mm.
    triangles : (m, 3)
        Their corners.

    Returns
    -------
    (n,)
        mm2; what ``wb_command -surface-vertex-areas`` computes.
    """
    corners = points[triangles]
    sides = corners[:, 1:] - corners[:, :1]
    thirds = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1) / 6
    areas = np.bincount(triangles.ravel(), np.repeat(thirds, 3), len(points))
    return np.asarray(areas, dtype=np.float64)


class Points:
    """Numbers of voxels (flat, first axis fastest) or of vertices, in order.

    Frozen, and equal where the numbers are equal, so that it may be part of a key.
    """

    __slots__ = ("_digest", "numbers")

    def __init__(self, numbers: NDArray[np.intp]) -> None:
        """Keep a copy that nobody can write to."""
        own = np.array(numbers, dtype=np.int64)
        own.flags.writeable = False
        self.numbers = own
        self._digest = hashlib.sha256(own.tobytes()).digest()

    def __len__(self) -> int:
        """How many there are."""
        return int(self.numbers.size)

    def __eq__(self, other: object) -> bool:
        """Tell whether the same numbers come in the same order."""
        return isinstance(other, Points) and self._digest == other._digest

    def __hash__(self) -> int:
        """Hash of the numbers."""
        return hash(self._digest)


# Structures of the hemispheres, as CIFTI spells them, by the labels of ``hemi-``.
CORTICES = {"L": "CORTEX_LEFT", "R": "CORTEX_RIGHT"}


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of values on one grid or mesh.

    Attributes
    ----------
    support
        The grid or mesh on which the points lie.
    structure
        What it is of, as CIFTI spells it (``CORTEX_LEFT``); empty for a whole volume.
    points
        Which voxels or vertices, in the order of the values; ``None`` for all of them
        in their own order.
    """

    support: Grid | Mesh
    structure: str = ""
    points: Points | None = None

    @property
    def n_places(self) -> int:
        """Voxels or vertices of the grid or mesh, whether they have values or not."""
        if isinstance(self.support, Mesh):
            return self.support.n_vertices
        return self.support.n_voxels

    @property
    def n_points(self) -> int:
        """Values."""
        return self.n_places if self.points is None else len(self.points)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Number of each value's voxel or vertex, (n_points,)."""
        if self.points is None:
            return np.arange(self.n_places)
        return self.points.numbers

    def same(self, other: Part) -> bool:
        """Tell whether two parts have the same values in the same order."""
        if isinstance(self.support, Grid) and isinstance(other.support, Grid):
            alike = same_grid(self.support, other.support)
        else:
            alike = self.support == other.support
        return (
            alike and self.structure == other.structure and self.points == other.points
        )

    def __str__(self) -> str:
        """Structure, support and number of points, for messages."""
        own = "" if self.points is None else f", {self.n_points:,} of them"
        words = f"{self.support}{own}"
        return f"{self.structure} ({words})" if self.structure else words


@dataclass(frozen=True)
class Frame:
    """All parts of a series, in the order of its values.

    A NIfTI run is one part, a pair of GIFTI files two, a dense CIFTI series one part
    for each brain model.
    """

    parts: tuple[Part, ...]
    starts: tuple[int, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Work out where each part begins."""
        ends = np.cumsum([0, *(part.n_points for part in self.parts)])
        object.__setattr__(self, "starts", tuple(ends[:-1].tolist()))

    @classmethod
    def of_grid(cls, grid: Grid) -> Frame:
        """Make the frame of a volume: all voxels of one grid."""
        return cls((Part(grid),))

    @property
    def grid(self) -> Grid | None:
        """The grid where the frame is one whole volume, else ``None``."""
        only = self.parts[0] if len(self.parts) == 1 else None
        if only is None or only.points is not None or isinstance(only.support, Mesh):
            return None
        return only.support

    @cached_property
    def voxel_grid(self) -> Grid | None:
        """The grid of all parts that are voxels; ``None`` where none is.

        Raises
        ------
        FrameMismatch
            If they lie on several: a CIFTI file has one volume.
        """
        grids = [p.support for p in self.parts if isinstance(p.support, Grid)]
        for grid in grids[1:]:
            if not same_grid(grid, grids[0]):
                raise FrameMismatch(f"voxels of one frame lie on {grids[0]} and {grid}")
        return grids[0] if grids else None

    def find_voxels(self, points: NDArray[np.intp]) -> NDArray[np.intp]:
        """Find the voxels of some points.

        Parameters
        ----------
        points : (n,)
            Positions in the order of the values.

        Returns
        -------
        (n,)
            Flat indices on ``voxel_grid``; -1 for vertices.
        """
        if self.grid is not None:
            return points
        numbers = [
            part.numbers
            if isinstance(part.support, Grid)
            else np.full(part.n_points, -1)
            for part in self.parts
        ]
        return np.asarray(np.concatenate(numbers)[points], dtype=np.intp)

    @cached_property
    def n_points(self) -> int:
        """Values at one moment, V."""
        return sum(part.n_points for part in self.parts)

    def same(self, other: Frame) -> bool:
        """Tell whether two frames have the same values in the same order."""
        return len(self.parts) == len(other.parts) and all(
            mine.same(theirs)
            for mine, theirs in zip(self.parts, other.parts, strict=True)
        )

    def sizes(
        self, areas: Mapping[str, NDArray[np.float64]], *, voxels: bool = True
    ) -> NDArray[np.float64]:
        """Find the size of each point.

        Parameters
        ----------
        areas
            Of all vertices of a structure, mm2.
        voxels
            Whether voxels have one, their volume.

        Returns
        -------
        (V,)
            mm2 of vertices and mm3 of voxels; NaN where it is not known.
        """
        found = np.full(self.n_points, np.nan)
        for start, part in zip(self.starts, self.parts, strict=True):
            stop = start + part.n_points
            if not isinstance(part.support, Mesh):
                if voxels:
                    found[start:stop] = part.support.voxel_volume
            elif part.structure in areas:
                found[start:stop] = areas[part.structure][part.numbers]
        return found

    def millimetres(self) -> NDArray[np.float64]:
        """Find where each point lies.

        Returns
        -------
        (V, 3)
            mm (RAS+); NaN on meshes, whose coordinates are another file's.
        """
        places = np.full((self.n_points, 3), np.nan)
        for start, part in zip(self.starts, self.parts, strict=True):
            if isinstance(part.support, Grid):
                shape, matrix = part.support.shape, part.support.matrix
                ijk = np.stack(np.unravel_index(part.numbers, shape, order="F"), axis=1)
                stop = start + part.n_points
                places[start:stop] = ijk @ matrix[:3, :3].T + matrix[:3, 3]
        return places

    def __str__(self) -> str:
        """Tell the parts, the many of a CIFTI file in short."""
        if len(self.parts) <= 2:
            return "; ".join(map(str, self.parts))
        meshes = "; ".join(
            str(part) for part in self.parts if isinstance(part.support, Mesh)
        )
        others = sum(isinstance(part.support, Grid) for part in self.parts)
        return f"{self.n_points:,} grayordinates: {meshes}; {others} volumes of voxels"
