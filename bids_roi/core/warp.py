"""Points through affines and displacement fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.grid import contains

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


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

    matrix: FloatArray
    offset: FloatArray

    def move(self, points: FloatArray) -> None:
        """Move (3, n) points in place."""
        for part in _parts(points.shape[1]):
            points[:, part] = self.of(points[:, part])

    def of(self, points: FloatArray) -> FloatArray:
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
    to_mm: FloatArray
    origin: FloatArray
    opened: Callable[[], AbstractContextManager[Callable[[int, int], NDArray[Any]]]]

    def move(self, points: FloatArray) -> None:
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

    def _holds(self, voxels: FloatArray) -> BoolArray:
        """Whether (3, n) places are in the grid, edge voxels whole; as ITK at ties."""
        inside = np.ones(voxels.shape[1], dtype=bool)
        for places, n in zip(voxels, self.shape, strict=True):
            inside &= (places >= -0.5) & (places < n - 0.5)
        return inside


def _interpolate(vectors: NDArray[Any], places: FloatArray) -> FloatArray:
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


def move_points(points: FloatArray, steps: Sequence[Affine | Field]) -> FloatArray:
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


@dataclass(frozen=True, slots=True)
class WarpFit:
    """Measures of a moved atlas; NaN where there is nothing to measure.

    Attributes
    ----------
    volume
        Volume of the regions' tissue in the run over its volume in the template. Parts
        outside the run's field of view count in neither.
    mirrored
        Share (0 to 1) of that tissue where the transform turns left into right.
    inside
        Share of the regions' voxels on the run's grid that are in its mask.
    covered
        Share of the mask's voxels that lie in the field of view of the atlas.
    distance
        From the centre of gravity of the regions to the mask's nearest voxel, mm; 0
        where it lies in the mask.
    """

    volume: float
    mirrored: float
    inside: float
    covered: float
    distance: float


def measure_fit(
    regions: BoolArray,
    points: FloatArray,
    *,
    grid: Grid,
    atlas_grid: Grid | None,
    mask: BoolArray | None,
) -> WarpFit:
    """Measure how a moved atlas lies on a run.

    Parameters
    ----------
    regions : (x, y, z) of ``grid``
        Whether each voxel is in a region of the atlas at ``points``.
    points : (V, 3), mm
        Where the centres of the run's voxels lie in the template, first axis fastest.
    grid, atlas_grid
        Of the run and of the atlas, ``None`` for one without a field of view.
    mask : (x, y, z) of ``grid``, or None
    """
    volume, mirrored = _measure_volume(regions, points, grid)
    if mask is None or not (mask.any() and regions.any()):
        inside = 0.0 if mask is not None and mask.any() else np.nan
        return WarpFit(volume, mirrored, inside, np.nan, np.nan)
    centre = np.argwhere(regions).mean(axis=0)
    away = (np.argwhere(mask) - centre) @ grid.matrix[:3, :3].T
    covered = np.nan
    if atlas_grid is not None:
        covered = float(contains(atlas_grid, points[mask.ravel(order="F")]).mean())
    out = not mask[tuple(np.rint(centre).astype(np.intp))]
    return WarpFit(
        volume=volume,
        mirrored=mirrored,
        inside=float(mask[regions].mean()),
        covered=covered,
        distance=float(np.sqrt((away**2).sum(axis=1).min())) if out else 0.0,
    )


def find_cut(rows: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """Find the regions that reach the edge of a run's grid, and may go on beyond it.

    Parameters
    ----------
    rows : (x, y, z)
        Region of each voxel, -1 for none.

    Returns
    -------
    (n,)
        Ascending.
    """
    faces = [rows.take(end, axis=axis).ravel() for axis in range(3) for end in (0, -1)]
    found = np.unique(np.concatenate(faces))
    return found[found >= 0].astype(np.intp)


def _measure_volume(
    regions: BoolArray, points: FloatArray, grid: Grid
) -> tuple[float, float]:
    """Volume ratio and mirrored share, from the edges of the voxels once moved.

    The determinant of the three edges is the volume that a voxel takes in the template,
    negative where the map changes handedness: a mean of them needs no inverse.
    """
    whole = regions.copy()
    for axis in range(3):  # the last voxel of an axis has no neighbour
        np.moveaxis(whole, axis, 0)[-1:] = False
    here = np.flatnonzero(whole.ravel(order="F"))
    if not here.size:
        return np.nan, np.nan
    edges = np.empty((here.size, 3, 3))
    for axis, stride in enumerate((1, grid.shape[0], grid.shape[0] * grid.shape[1])):
        edges[:, :, axis] = points[here + stride] - points[here]
    own = np.linalg.det(grid.matrix[:3, :3])  # negative where the axes are LAS
    sizes = np.linalg.det(edges) / own
    return float(1 / np.abs(sizes).mean()), float((sizes < 0).mean())
