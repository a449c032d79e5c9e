"""Points through affines and displacement fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray


_POINTS = 2**16  # at a time: working arrays of 2 MB
_SLAB_BYTES = 2**23  # of a field, held at a time


@dataclass(frozen=True, slots=True)
class Affine:
    """A linear map of points: ``matrix @ point + offset``.

    Attributes
    ----------
    matrix : (3, 3)
    offset : (3,), mm
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    def move(self, points: NDArray[np.float64]) -> None:
        """Move (3, n) points in place."""
        for part in _parts(points.shape[1]):
            points[:, part] = self.of(points[:, part])

    def of(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where (3, n) points go.

        Row by row: a product of matrices this narrow is slower, and wakes threads.
        """
        x, y, z = points
        moved = np.empty(points.shape)
        for row, (a, b, c), offset in zip(moved, self.matrix, self.offset, strict=True):
            np.multiply(x, a, out=row)
            row += y * b
            row += z * c
            row += offset
        return moved

    def invert(self) -> Affine:
        """Make the map that undoes this one."""
        back = np.asarray(np.linalg.inv(self.matrix), dtype=np.float64)
        return Affine(back, -back @ self.offset)

    def then(self, other: Affine) -> Affine:
        """Make the map that applies this one, then another."""
        return Affine(
            other.matrix @ self.matrix, other.matrix @ self.offset + other.offset
        )


@dataclass(frozen=True, slots=True)
class Field:
    """A displacement for each point, from vectors on a grid.

    Between voxel centres the vectors are interpolated linearly. Up to half a voxel
    beyond the outermost centres the vector of the edge holds; farther out points stay
    where they are. This is what ITK's ``DisplacementFieldTransform`` does.

    Attributes
    ----------
    shape
        Voxels along the three axes.
    to_mm : (3, 3)
        Steps along the axes of the grid, mm, in its columns.
    origin : (3,)
        Centre of the first voxel, mm.
    opened
        Gives, while it is open, a function from the first plane along the third axis,
        and the one behind the last, to their vectors: (planes, y, x, 3), mm.
    """

    shape: tuple[int, int, int]
    to_mm: NDArray[np.float64]
    origin: NDArray[np.float64]
    opened: Callable[[], AbstractContextManager[Callable[[int, int], NDArray[Any]]]]

    def move(self, points: NDArray[np.float64]) -> None:
        """Move (3, n) points in place; a slab of the field is in memory at a time."""
        inward = Affine(self.to_mm, self.origin).invert()
        n_x, n_y, n_planes = self.shape
        n_points = points.shape[1]
        # Two bytes where they do: numpy sorts these by counting, ten times faster.
        plane = np.empty(n_points, dtype=np.min_scalar_type(-n_planes))
        for part in _parts(n_points):
            voxels = inward.of(points[:, part])
            below = np.clip(np.floor(voxels[2]), 0, n_planes - 1)
            plane[part] = np.where(self._holds(voxels), below, -1)
        # Points by plane, so that the field is read once and in the file's order.
        order = np.argsort(plane, kind="stable")
        depth = max(1, _SLAB_BYTES // (24 * n_x * n_y))
        with self.opened() as read:
            for first in range(0, n_planes, depth):
                last = min(first + depth, n_planes)
                start, stop = np.searchsorted(plane, [first, last], sorter=order)
                if start == stop:
                    continue
                vectors = read(first, min(last + 1, n_planes))
                for part in _parts(stop - start):
                    chosen = order[start:stop][part]
                    here = points[:, chosen]
                    voxels = inward.of(here)
                    voxels[2] -= first
                    points[:, chosen] = here + _interpolate(vectors, voxels[::-1])

    def _holds(self, voxels: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether (3, n) places are in the grid, edge voxels whole; as ITK at ties."""
        inside = np.ones(voxels.shape[1], dtype=bool)
        for places, n in zip(voxels, self.shape, strict=True):
            inside &= (places >= -0.5) & (places < n - 0.5)
        return inside


def _interpolate(
    vectors: NDArray[Any], places: NDArray[np.float64]
) -> NDArray[np.float64]:
    from scipy import ndimage

    moved = np.empty(places.shape)
    for axis, row in enumerate(moved):
        ndimage.map_coordinates(
            vectors[..., axis], places, output=row, order=1, mode="nearest"
        )
    return moved


def _parts(n: int) -> Iterator[slice]:
    for start in range(0, n, _POINTS):
        yield slice(start, start + _POINTS)


def move_points(
    points: NDArray[np.float64], steps: Sequence[Affine | Field]
) -> NDArray[np.float64]:
    """Move points through steps.

    Parameters
    ----------
    points : (n, 3), mm
    steps
        In the order in which they are applied.

    Returns
    -------
    (n, 3), mm
        New; the points that were given stay as they are.
    """
    moved = np.array(points.T, dtype=np.float64, order="C")
    merged: list[Affine | Field] = []
    for step in steps:
        before = merged[-1] if merged else None
        if isinstance(step, Affine) and isinstance(before, Affine):
            merged[-1] = before.then(step)
        else:
            merged.append(step)
    for step in merged:
        step.move(moved)
    return moved.T
