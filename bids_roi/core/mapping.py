"""Atlases onto the grid of a BOLD run: labels by nearest neighbour, maps linearly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.grid import (
    nearest_voxels,
    resample_labels,
    resample_weights,
    same_grid,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from bids_roi.core.grid import Grid


# Labels that span less than this are looked up in a table, others by bisection.
_TABLE_SIZE = 2**22
# A map is where its weight exceeds this share of its largest.
_STRONG = 1 / 4


@dataclass(frozen=True, slots=True)
class Centres:
    """Where the centres of the atlas's own voxels lie on the BOLD grid.

    Attributes
    ----------
    voxels : (K,)
        Flat BOLD indices in which at least one of them lies.
    rows : (K,)
        The region they belong to.
    weights : (K,)
        How many they are, or their summed absolute weight.
    totals : (R,)
        The same over all voxels of each region, seen or not.
    """

    voxels: NDArray[np.intp]
    rows: NDArray[np.int32]
    weights: NDArray[np.float64]
    totals: NDArray[np.float64]

    @property
    def n_regions(self) -> int:
        """Number of rows of the region table."""
        return int(self.totals.size)


@dataclass(frozen=True, slots=True)
class LabelMap:
    """An atlas of labels on the grid of a BOLD run.

    Attributes
    ----------
    rows : (V,)
        Row of the region table at each voxel of the BOLD grid, -1 for none.
    n_voxels_atlas : (R,)
        Voxels of each region on the atlas's own grid.
    centres
        Where those lie on the BOLD grid.
    volume : (R,)
        Of each region on the atlas's own grid, mm^3.
    centroids : (R, 3)
        Centre of gravity of each region, mm (RAS+); NaN for a region without voxels.
    offsets : (R,)
        How far each of them lies outside of its region, mm; see ``find_offsets``.
    """

    rows: NDArray[np.int32]
    n_voxels_atlas: NDArray[np.int64]
    centres: Centres
    volume: NDArray[np.float64]
    centroids: NDArray[np.float64]
    offsets: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WeightMap:
    """An atlas of weighted maps on the grid of a BOLD run.

    Attributes
    ----------
    weights : (R, V) sparse
        Weight of each voxel of the BOLD grid in each map.
    n_voxels_atlas : (R,)
        Voxels with a weight on the atlas's own grid.
    centres
        Where those lie on the BOLD grid.
    volume : (R,)
        Of the voxels with a weight on the atlas's own grid, mm^3.
    centroids : (R, 3)
        Centre of gravity of each map's absolute weights, mm (RAS+); NaN for an empty
        one.
    offsets : (R,)
        How far each of them lies outside of its region, mm; see ``find_offsets``.
    """

    weights: csr_array
    n_voxels_atlas: NDArray[np.int64]
    centres: Centres
    volume: NDArray[np.float64]
    centroids: NDArray[np.float64]
    offsets: NDArray[np.float64]


def map_labels(
    labels: NDArray[np.int64], index: NDArray[np.int64], source: Grid, target: Grid
) -> LabelMap:
    """Bring an atlas of labels to a BOLD grid by nearest neighbour.

    Parameters
    ----------
    labels : (x, y, z) of ``source``
        Label values, 0 for background.
    index : (R,)
        Label value of each row of the region table, all different, none 0.
    source, target
        Grids of the atlas and of the BOLD run, in the same space.

    Returns
    -------
    LabelMap
        Voxels whose label is not in ``index`` belong to no region.
    """
    rows = _look_up(labels, index)
    flat = rows.ravel(order="F")
    inside = np.flatnonzero(flat >= 0)
    ones = np.ones(inside.size)
    centres = find_centres(inside, flat[inside], ones, index.size, source, target)
    moved = resample_labels(rows, source, target, background=-1)
    n_voxels_atlas = np.bincount(flat[inside], minlength=index.size)
    centroids = find_centroids(inside, flat[inside], ones, index.size, source)
    return LabelMap(
        rows=moved.ravel(order="F"),
        n_voxels_atlas=n_voxels_atlas,
        centres=centres,
        volume=np.asarray(n_voxels_atlas * source.voxel_volume),
        centroids=centroids,
        offsets=find_offsets(inside, flat[inside], centroids, source),
    )


def _look_up(labels: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int32]:
    """Row of each label in the table, -1 for none; same shape."""
    low, high = int(labels.min()), int(labels.max())
    if high - low < _TABLE_SIZE:
        table = np.full(high - low + 1, -1, dtype=np.int32)
        known = (index >= low) & (index <= high)
        table[index[known] - low] = np.flatnonzero(known)
        return np.asarray(table[labels - low])
    order = np.argsort(index, kind="stable")
    position = np.searchsorted(index, labels, sorter=order)
    position = order[np.minimum(position, index.size - 1)]
    return np.where(index[position] == labels, position, -1).astype(np.int32)


def find_centres(
    voxels: NDArray[np.intp],
    rows: NDArray[np.int32],
    weights: NDArray[np.float64],
    n_regions: int,
    source: Grid,
    target: Grid,
) -> Centres:
    """Find the BOLD voxels in which the atlas's voxel centres lie.

    Parameters
    ----------
    voxels, rows, weights : (n,)
        Flat index on ``source``, region and weight (not negative) of atlas voxels.
    n_regions
        R.
    source, target
        Grids of the atlas and of the BOLD run.

    Returns
    -------
    Centres
    """
    totals = np.bincount(rows, weights, n_regions).astype(np.float64)
    if same_grid(source, target):
        return Centres(voxels, rows, weights, totals)
    there = nearest_voxels(voxels, source, target)
    kept = there >= 0
    pairs = rows[kept].astype(np.int64) * target.n_voxels + there[kept]
    pairs, inverse = np.unique(pairs, return_inverse=True)
    return Centres(
        voxels=(pairs % target.n_voxels).astype(np.intp),
        rows=(pairs // target.n_voxels).astype(np.int32),
        weights=np.bincount(inverse, weights[kept], pairs.size).astype(np.float64),
        totals=totals,
    )


def find_centroids(
    voxels: NDArray[np.intp],
    rows: NDArray[np.int32],
    weights: NDArray[np.float64],
    n_regions: int,
    grid: Grid,
) -> NDArray[np.float64]:
    """Find the centre of gravity of each region.

    Parameters
    ----------
    voxels, rows, weights : (n,)
        Flat index on ``grid``, region and weight (not negative) of voxels.
    n_regions
        R.
    grid
        Of the atlas.

    Returns
    -------
    (R, 3)
        In mm (RAS+); NaN for a region without voxels. That of a region with parts in
        both hemispheres lies between them.
    """
    places = np.unravel_index(voxels, grid.shape, order="F")
    total = np.bincount(rows, weights, n_regions)
    total[total == 0] = np.nan
    means = [np.bincount(rows, weights * axis, n_regions) / total for axis in places]
    matrix = grid.matrix
    return np.asarray(np.stack(means, axis=1) @ matrix[:3, :3].T + matrix[:3, 3])


def find_offsets(
    voxels: NDArray[np.intp],
    rows: NDArray[np.int32],
    centroids: NDArray[np.float64],
    grid: Grid,
) -> NDArray[np.float64]:
    """Find how far the centre of gravity of each region lies outside of it.

    Parameters
    ----------
    voxels, rows : (n,)
        Flat index on ``grid`` and region of voxels.
    centroids : (R, 3)
        mm (RAS+).
    grid
        Of the atlas.

    Returns
    -------
    (R,)
        Distance to the centre of the nearest voxel of the region, mm; 0 where the
        voxel that holds the centre of gravity belongs to the region; NaN for a region
        without voxels.
    """
    places = np.stack(np.unravel_index(voxels, grid.shape, order="F"), axis=1)
    matrix = grid.matrix
    own = (centroids - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    steps = places - own[rows]
    holds = (np.abs(steps) <= 0.5).all(axis=1)
    distances = np.sqrt(((steps @ matrix[:3, :3].T) ** 2).sum(axis=1))
    nearest = np.full(len(centroids), np.inf)
    np.minimum.at(nearest, rows, np.where(holds, 0.0, distances))
    return np.where(np.isfinite(nearest), nearest, np.nan)


def map_weights(
    volumes: Iterable[NDArray[Any]], source: Grid, target: Grid
) -> WeightMap:
    """Bring maps to a BOLD grid by linear interpolation, one map at a time.

    Parameters
    ----------
    volumes
        One (x, y, z) map per region, on ``source``, finite; never all of them in
        memory.
    source, target
        Grids of the maps and of the BOLD run, in the same space.

    Returns
    -------
    WeightMap
        Only weights other than 0 are kept.
    """
    from scipy.sparse import csr_array

    data, columns, counts = [], [], []
    own_voxels, own_rows, own_weights = [], [], []
    for row, volume in enumerate(volumes):
        values = np.asarray(volume, dtype=np.float64)
        flat = values.ravel(order="F")
        own = np.flatnonzero(flat)
        own_voxels.append(own)
        own_rows.append(np.full(own.size, row, dtype=np.int32))
        own_weights.append(np.abs(flat[own]))
        moved = resample_weights(values, source, target).ravel(order="F")
        inside = np.flatnonzero(moved)
        columns.append(inside)
        data.append(moved[inside])
        counts.append(inside.size)
    pointers = np.concatenate([[0], np.cumsum(counts)])
    matrix = csr_array(
        (np.concatenate(data), np.concatenate(columns), pointers),
        shape=(len(counts), target.n_voxels),
    )
    n_voxels_atlas = np.array([own.size for own in own_voxels], dtype=np.int64)
    voxels, rows = np.concatenate(own_voxels), np.concatenate(own_rows)
    gravity = np.concatenate(own_weights)
    centroids = find_centroids(voxels, rows, gravity, len(counts), source)
    largest = np.array([own.max(initial=0) for own in own_weights])
    strong = gravity > largest[rows] * _STRONG
    return WeightMap(
        weights=matrix,
        n_voxels_atlas=n_voxels_atlas,
        centres=find_centres(voxels, rows, gravity, len(counts), source, target),
        volume=np.asarray(n_voxels_atlas * source.voxel_volume),
        centroids=centroids,
        offsets=find_offsets(voxels[strong], rows[strong], centroids, source),
    )


def strongest_map(weights: csr_array) -> NDArray[np.int32]:
    """Map with the most weight at each voxel, over a quarter of the map's largest.

    Parameters
    ----------
    weights : (R, V) sparse
        Of the maps.

    Returns
    -------
    (V,)
        Row of the region table, -1 for none.
    """
    rows = np.full(weights.shape[1], -1, dtype=np.int32)
    best = np.zeros(weights.shape[1])
    for row in range(weights.shape[0]):
        part = slice(weights.indptr[row], weights.indptr[row + 1])
        size = np.abs(weights.data[part])
        voxels = weights.indices[part]
        more = (size > best[voxels]) & (size > size.max(initial=0) * _STRONG)
        best[voxels[more]] = size[more]
        rows[voxels[more]] = row
    return rows
