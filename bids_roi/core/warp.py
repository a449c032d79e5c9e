"""Points through affines and displacement fields; the values of a grid at points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.grid import GRID_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid


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


def voxel_centres(grid: Grid) -> NDArray[np.float64]:
    """Centres of all voxels of a grid: (n, 3), mm, last axis fastest."""
    i, j, k = np.indices(grid.shape, sparse=True)
    centres = np.empty((*grid.shape, 3))
    for axis in range(3):
        x, y, z, offset = grid.matrix[axis]
        centres[..., axis] = x * i + y * j + z * k + offset
    return centres.reshape(-1, 3)


def _locate(
    points: NDArray[np.float64], grid: Grid
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Voxel indices (3, n) of points, and whether each is in the span of centres."""
    voxels = Affine(grid.matrix[:3, :3], grid.matrix[:3, 3]).invert().of(points.T)
    inside = np.ones(len(points), dtype=bool)
    for places, n in zip(voxels, grid.shape, strict=True):
        # A centre on the border must not fall out of the grid by rounding.
        inside &= (places >= -GRID_TOLERANCE) & (places <= n - 1 + GRID_TOLERANCE)
        np.clip(places, 0, n - 1, out=places)
    return voxels, inside


def contains(grid: Grid, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each of (n, 3) points is in the span of a grid's voxel centres."""
    parts = [_locate(points[part], grid)[1] for part in _parts(len(points))]
    return np.concatenate([np.zeros(0, dtype=bool), *parts])


def labels_at(
    labels: NDArray[Any],
    grid: Grid,
    points: NDArray[np.float64],
    *,
    background: int = 0,
) -> NDArray[Any]:
    """Labels of the nearest voxels.

    Parameters
    ----------
    labels : (x, y, z) of ``grid``
    grid
        Where the labels lie.
    points : (n, 3), mm
        In the space of the grid.
    background
        Value of points outside the span of the grid's voxel centres, as in
        ``core.grid.resample_labels``.

    Returns
    -------
    (n,), type of ``labels``
    """
    found = np.full(len(points), background, dtype=labels.dtype)
    for part in _parts(len(points)):
        voxels, inside = _locate(points[part], grid)
        i, j, k = np.floor(voxels[:, inside] + 0.5).astype(np.intp)
        found[part][inside] = labels[i, j, k]
    return found


def weights_at(
    weights: NDArray[Any], grid: Grid, points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights by linear interpolation.

    Parameters
    ----------
    weights : (x, y, z) of ``grid``
    grid
        Where the weights lie.
    points : (n, 3), mm
        In the space of the grid.

    Returns
    -------
    (n,)
        0 outside the span of the grid's voxel centres, as in
        ``core.grid.resample_weights``.
    """
    from scipy import ndimage

    found = np.zeros(len(points))
    for part in _parts(len(points)):
        voxels, inside = _locate(points[part], grid)
        found[part][inside] = ndimage.map_coordinates(
            weights, voxels[:, inside], output=np.float64, order=1
        )
    return found
