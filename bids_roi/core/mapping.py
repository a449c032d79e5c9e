"""Atlases brought to where the values of a run lie: labels, maps, spheres.

Between two grids labels go by nearest neighbour and maps by linear interpolation. On
meshes and in CIFTI files nothing is interpolated: what is the same vertex, or the same
place in millimetres, is matched, and what has no partner is without a region.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.frame import Frame, FrameMismatch, Mesh
from bids_roi.core.grid import (
    GRID_TOLERANCE,
    Grid,
    find_steps,
    nearest_voxels,
    resample_labels,
    resample_weights,
)
from bids_roi.core.rows import Rows, group_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from bids_roi.core.frame import Part

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


# Labels that span less than this are looked up in a table, others by bisection.
_TABLE_SIZE = 2**22
# A map is where its weight exceeds this share of its largest.
_STRONG = 1 / 4


@dataclass(frozen=True, slots=True)
class Centres:
    """Points of the run in which the atlas's own places lie, for coverage.

    Attributes
    ----------
    voxels : (K,)
        Points of the run in which at least one of them lies.
    rows : (K,)
        The region they belong to.
    weights : (K,)
        How many they are, or their summed absolute weight.
    totals : (R,)
        The same over all places of each region, whether the run has them or not.
    """

    voxels: NDArray[np.intp]
    rows: NDArray[np.int32]
    weights: FloatArray
    totals: FloatArray


@dataclass(frozen=True, slots=True)
class RegionMap:
    """An atlas where the values of a run lie.

    Attributes
    ----------
    weights : (R, V) sparse
        Weight of each point of the run in each region; for labels 1, or its size where
        vertices weigh by their area.
    hard
        Whether it is made of labels: each point in at most one region.
    n_voxels_atlas : (R,)
        Places (voxels, vertices) of each region in the atlas itself, with any weight.
    volume : (R,)
        Of those, mm^3; NaN for a region with vertices.
    centroids : (R, 3)
        Centre of gravity of each region, by absolute weight, mm (RAS+); NaN for a
        region without places or with vertices. That of a region with parts in both
        hemispheres lies between them.
    offsets : (R,)
        From each of them to the centre of the nearest voxel of its region, mm; 0 where
        the voxel that holds it belongs to the region; NaN like the centroids.
    centres
        Where the atlas's own places lie in the run.
    structures : (R,)
        What each region is of, as CIFTI spells it (``CORTEX_LEFT``), several with
        commas between; empty for the atlas of a volume.
    areas : (R,) or None
        mm^2 of each region's vertices in the atlas, NaN for a region with voxels or on
        a surface that is not known; ``None`` where areas were not asked for.
    """

    weights: Rows
    hard: bool
    n_voxels_atlas: NDArray[np.int64]
    volume: FloatArray
    centroids: FloatArray
    offsets: FloatArray
    centres: Centres
    structures: tuple[str, ...] = ()
    areas: FloatArray | None = None

    @property
    def n_regions(self) -> int:
        """Rows of the region table, R."""
        return int(self.weights.shape[0])

    @property
    def n_points(self) -> int:
        """Values of the run at one moment, V."""
        return int(self.weights.shape[1])


def map_labels(
    labels: NDArray[np.int64],
    index: NDArray[np.int64],
    source: Frame | Grid,
    target: Frame | Grid,
    places: FloatArray | None = None,
    areas: Mapping[str, FloatArray] | None = None,
) -> RegionMap:
    """Bring an atlas of labels to a run.

    Parameters
    ----------
    labels : (x, y, z) of a grid, or (P,) of a frame
        Label values, 0 for background.
    index : (R,)
        Label value of each row of the region table, all different, none 0.
    source, target
        Where the values of the atlas and of the run lie, in the same space.
    places : (V, 3) or None
        Where each point of the run lies in the space of the atlas, mm (RAS+), NaN for
        nowhere; for a warp. ``None`` where both share a space.
    areas
        Of all vertices of each structure, mm2: then a point weighs as much as it is
        large, see ``Frame.sizes``. ``None`` for equal weights.

    Returns
    -------
    RegionMap
        Points whose label is not in ``index`` belong to no region.

    Raises
    ------
    FrameMismatch
        If the two lie on different meshes of one structure, or on voxels that are not
        the same.
    """
    way = _Way(source, target, places)
    rows = find_rows(labels, index).ravel(order="F")
    points = np.flatnonzero(rows >= 0)
    own = _Own(points, rows[points], np.ones(points.size), index.size)
    moved = way.move(rows, resample_labels, background=-1)
    weights = group_rows(moved, index.size, np.uint8)
    strong = np.ones(points.size, dtype=bool)
    if areas is None:
        return own.describe(way, weights, strong=strong, hard=True)
    weights.data = way.target.sizes(areas)[weights.indices]
    sizes = way.source.sizes(areas, voxels=False)[points]
    found = np.bincount(own.rows, sizes, index.size).astype(np.float64)
    found[np.bincount(own.rows, minlength=index.size) == 0] = np.nan
    described = own.describe(way, weights, strong=strong, hard=True)
    return replace(described, areas=found)


def map_weights(
    volumes: Iterable[NDArray[Any]],
    source: Frame | Grid,
    target: Frame | Grid,
    places: FloatArray | None = None,
) -> RegionMap:
    """Bring maps to a run, one map at a time.

    Parameters
    ----------
    volumes
        One map per region, shaped as labels are, finite; never all of them in memory.
    source, target, places
        As for ``map_labels``.

    Returns
    -------
    RegionMap
        Only weights other than 0 are kept.

    Raises
    ------
    FrameMismatch
        As for ``map_labels``.
    """
    way = _Way(source, target, places)
    data, columns, points, gravity = [], [], [], []
    for volume in volumes:
        values = np.asarray(volume, dtype=np.float64).ravel(order="F")
        points.append(np.flatnonzero(values))
        gravity.append(np.abs(values[points[-1]]))
        moved = way.move(values, resample_weights)
        columns.append(np.flatnonzero(moved))
        data.append(moved[columns[-1]])
    pointers = np.concatenate([[0], np.cumsum([part.size for part in columns])])
    weights = Rows(
        np.concatenate(data),
        np.concatenate(columns).astype(np.int32),
        pointers.astype(np.int32),
        (len(columns), way.target.n_points),
    )
    rows = np.repeat(
        np.arange(len(points), dtype=np.int32), [part.size for part in points]
    )
    own = _Own(np.concatenate(points), rows, np.concatenate(gravity), len(points))
    largest = np.array([size.max(initial=0) for size in gravity])
    strong = own.weights > largest[rows] * _STRONG
    return own.describe(way, weights, strong=strong, hard=False)


def find_rows(labels: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int32]:
    """Find the row of each label in the table, -1 for none.

    Parameters
    ----------
    labels : any shape
    index : (R,)
        Label value of each row, all different.

    Returns
    -------
    Same shape as ``labels``
    """
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


class _Way:
    """The way from the places of an atlas to the points of a run."""

    def __init__(
        self, source: Frame | Grid, target: Frame | Grid, places: FloatArray | None
    ) -> None:
        source, target = (
            Frame.of_grid(where) if isinstance(where, Grid) else where
            for where in (source, target)
        )
        self.source, self.target, self.warped = source, target, places is not None
        self.same = not self.warped and source.same(target)
        self._matched: NDArray[np.intp] | None = None
        # A volume and what is sampled from it: voxels of another, or places by a warp.
        self._volume = source.grid
        self._to = target.grid if places is None else places
        if self.warped and self._volume is None:
            raise FrameMismatch(f"only a volume can be warped, not {source}")
        if not self.same and (self._volume is None or self._to is None):
            self._matched = match_points(source, target)

    def move(
        self, values: NDArray[Any], resample: Callable[..., NDArray[Any]], **given: int
    ) -> NDArray[Any]:
        """Values at the points of the run, (V,); 0, or ``background``, for none."""
        if self.same:
            return values
        if self._matched is not None or self._volume is None:
            background = given.get("background", 0)
            moved = np.full(self.target.n_points, background, dtype=values.dtype)
            there = self.find_points(np.arange(values.size))
            moved[there[there >= 0]] = values[there >= 0]
            return moved
        volume = values.reshape(self._volume.shape, order="F")
        return resample(volume, self._volume, self._to, **given).ravel(order="F")

    def find_points(self, points: NDArray[np.intp]) -> NDArray[np.intp]:
        """Point of the run in which each place of the atlas lies, -1 for none."""
        if self._matched is not None:
            return self._matched[points]
        if self.same or self._volume is None or not isinstance(self._to, Grid):
            return points
        return nearest_voxels(points, self._volume, self._to)


def match_points(source: Frame, target: Frame) -> NDArray[np.intp]:
    """Find the point of a run at the very place of each point of an atlas.

    Parameters
    ----------
    source, target
        Of the atlas and of the run.

    Returns
    -------
    (P,)
        Positions among the points of the run, -1 where it has none: on the medial wall,
        outside its voxels, or in a structure that it lacks.

    Raises
    ------
    FrameMismatch
        If a structure lies on two different meshes, or the voxels of one are not those
        of the other. The message names both.

    Notes
    -----
    Vertices go by structure and number. Voxels go by millimetres alone: volumes may be
    stored in another order of axes (RAS, LAS), and a voxel is in one model only.
    """
    found = [np.empty(0, dtype=np.intp)]
    for part in source.parts:
        if isinstance(part.support, Mesh):
            found.append(_match_vertices(part, target))
        else:
            found.append(_match_voxels(part, target))
    return np.concatenate(found)


def _match_vertices(part: Part, target: Frame) -> NDArray[np.intp]:
    lookup = np.full(part.n_places, -1, dtype=np.intp)
    for start, other in zip(target.starts, target.parts, strict=True):
        if other.structure == part.structure and isinstance(other.support, Mesh):
            if other.support != part.support:
                raise FrameMismatch(
                    f"{part.structure} of the atlas has the mesh {part.support}, that"
                    f" of the series {other.support}"
                )
            lookup[other.numbers] = start + np.arange(other.n_points)
    return lookup[part.numbers]


def _match_voxels(part: Part, target: Frame) -> NDArray[np.intp]:
    mine, theirs = part.support, target.voxel_grid
    numbers = np.full(part.n_points, -1, dtype=np.intp)
    if theirs is None or not isinstance(mine, Grid):
        return numbers
    steps = find_steps(Frame((part,)).millimetres(), theirs)
    nearest = np.rint(steps)
    if np.abs(steps - nearest).max(initial=0) > GRID_TOLERANCE:
        raise FrameMismatch(
            f"the atlas has voxels of {mine}, the series of {theirs}: they are not the"
            " same voxels"
        )
    inside = ((nearest >= 0) & (nearest < theirs.shape)).all(axis=1)
    lookup = np.full(theirs.n_voxels, -1, dtype=np.intp)
    for start, other in zip(target.starts, target.parts, strict=True):
        if isinstance(other.support, Grid):
            lookup[other.numbers] = start + np.arange(other.n_points)
    flat = np.ravel_multi_index(
        tuple(nearest[inside].astype(np.intp).T), theirs.shape, order="F"
    )
    numbers[inside] = lookup[flat]
    return numbers


@dataclass(frozen=True, slots=True)
class _Own:
    """Places of an atlas that belong to its regions, (n,) each."""

    points: NDArray[np.intp]
    rows: NDArray[np.int32]
    weights: FloatArray
    n_regions: int

    def describe(
        self, way: _Way, weights: Rows, *, strong: BoolArray, hard: bool
    ) -> RegionMap:
        """Sizes and centres, on the atlas's own voxels; of the ``strong`` places."""
        n = self.n_regions
        sizes = np.bincount(self.rows, minlength=n)
        volume, offsets = np.full((2, n), np.nan)
        centroids = np.full((n, 3), np.nan)
        grid = way.source.voxel_grid
        if grid is not None:
            voxels = way.source.find_voxels(self.points)
            whole = np.bincount(self.rows[voxels < 0], minlength=n) == 0
            volume[whole] = (sizes * grid.voxel_volume)[whole]
            rows, gravity = self.rows, self.weights
            if not whole.all():
                kept = whole[rows]
                voxels, rows, gravity = voxels[kept], rows[kept], gravity[kept]
                strong = strong[kept]
            centroids = _find_centroids(voxels, rows, gravity, n, grid)
            if not strong.all():
                voxels, rows = voxels[strong], rows[strong]
            offsets = _find_offsets(voxels, rows, centroids, grid)
        return RegionMap(
            weights=weights,
            hard=hard,
            n_voxels_atlas=sizes,
            volume=volume,
            centroids=centroids,
            offsets=offsets,
            centres=self._find_centres(way, weights),
            structures=self._name_structures(way.source),
        )

    def _name_structures(self, source: Frame) -> tuple[str, ...]:
        if source.grid is not None:
            return ()
        of_part = np.searchsorted(source.starts, self.points, side="right") - 1
        pairs = np.unique(self.rows.astype(np.int64) * len(source.parts) + of_part)
        found: list[list[str]] = [[] for _ in range(self.n_regions)]
        for row, part in zip(*np.divmod(pairs, len(source.parts)), strict=True):
            found[row].append(source.parts[part].structure)
        return tuple(",".join(dict.fromkeys(names)) for names in found)

    def _find_centres(self, way: _Way, weights: Rows) -> Centres:
        rows, size, n = self.rows, self.weights, self.n_regions
        if way.warped:
            # A warp tells where the run's points lie in the atlas, not the reverse:
            # coverage can only be a share of what a region has in the run.
            rows = np.repeat(np.arange(n, dtype=np.int32), np.diff(weights.indptr))
            size = np.abs(weights.data).astype(np.float64)
            totals = np.bincount(rows, size, n).astype(np.float64)
            return Centres(weights.indices.astype(np.intp), rows, size, totals)
        totals = np.bincount(rows, size, n).astype(np.float64)
        there = way.find_points(self.points)
        if way.same:
            return Centres(there, rows, size, totals)
        kept = there >= 0
        pairs = rows[kept].astype(np.int64) * way.target.n_points + there[kept]
        pairs, inverse = np.unique(pairs, return_inverse=True)
        return Centres(
            voxels=(pairs % way.target.n_points).astype(np.intp),
            rows=(pairs // way.target.n_points).astype(np.int32),
            weights=np.bincount(inverse, size[kept], pairs.size).astype(np.float64),
            totals=totals,
        )


def _find_centroids(
    voxels: NDArray[np.intp],
    rows: NDArray[np.int32],
    weights: FloatArray,
    n_regions: int,
    grid: Grid,
) -> FloatArray:
    """Centre of gravity of each region, of voxels and their weights; (R, 3)."""
    places = np.unravel_index(voxels, grid.shape, order="F")
    total = np.bincount(rows, weights, n_regions).astype(np.float64)
    total[total == 0] = np.nan
    means = [np.bincount(rows, weights * axis, n_regions) / total for axis in places]
    matrix = grid.matrix
    return np.asarray(np.stack(means, axis=1) @ matrix[:3, :3].T + matrix[:3, 3])


def _find_offsets(
    voxels: NDArray[np.intp], rows: NDArray[np.int32], centroids: FloatArray, grid: Grid
) -> FloatArray:
    """How far the centre of gravity of each region lies outside of it, (R,)."""
    places = np.stack(np.unravel_index(voxels, grid.shape, order="F"), axis=1)
    matrix = grid.matrix
    own = (centroids - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    steps = places - own[rows]
    holds = (np.abs(steps) <= 0.5).all(axis=1)
    distances = np.sqrt(((steps @ matrix[:3, :3].T) ** 2).sum(axis=1))
    nearest = np.full(len(centroids), np.inf)
    np.minimum.at(nearest, rows, np.where(holds, 0.0, distances))
    return np.where(np.isfinite(nearest), nearest, np.nan)


def strongest_map(weights: Rows) -> NDArray[np.int32]:
    """Region with the most weight at each point, over a quarter of its own largest.

    Parameters
    ----------
    weights : (R, V) sparse
        Of a ``RegionMap``; those of labels give the labels back.

    Returns
    -------
    (V,)
        Row of the region table, -1 for none.
    """
    sizes, voxels = np.abs(weights.data), weights.indices
    own = np.repeat(
        np.arange(weights.shape[0], dtype=np.int32), np.diff(weights.indptr)
    )
    largest, filled = np.zeros(weights.shape[0]), np.diff(weights.indptr) > 0
    if filled.any():
        starts = weights.indptr[:-1][filled]
        largest[filled] = np.maximum.reduceat(sizes, starts)
    # The last write to a voxel stays: that of the most weight, of equals the first row.
    strong = np.flatnonzero(sizes > largest[own] * _STRONG)[::-1]
    order = strong[np.argsort(sizes[strong], kind="stable")]
    rows = np.full(weights.shape[1], -1, dtype=np.int32)
    rows[voxels[order]] = own[order]
    return rows


# Rounding in an affine must not decide about a voxel that lies on the sphere.
_TOLERANCE = 1e-6


def map_spheres(
    spheres: FloatArray, target: Frame, places: FloatArray | None = None
) -> RegionMap:
    """Find the voxels of spheres: those whose centre is within the radius.

    Parameters
    ----------
    spheres : (R, 4)
        Centre and radius of each, mm (RAS+).
    target
        Where the values of the run lie: one grid.
    places : (V, 3) or None
        Where each point of the run lies in the space of the centres, mm (RAS+), NaN for
        nowhere; for a warp. ``None`` where both share a space.

    Returns
    -------
    RegionMap
        A voxel may be in several spheres. The voxel that holds the centre always
        belongs to a sphere, so that one of a small radius has at least it. Voxels that
        a sphere would have beyond the edge of the grid count in ``n_voxels_atlas`` and
        in the totals of the centres, but where there is a warp, which does not tell.
        Centroids are the given centres; the volume is that of the voxels.

    Notes
    -----
    nilearn's ``NiftiSpheresMasker`` (0.14.1) with ``allow_overlap``, but for the first
    voxel whose millimetres have the whole part of the seed's: it adds that too.
    """
    grid = target.grid
    if grid is None:
        raise ValueError(f"spheres need the voxels of a grid, not {target}")
    if places is None:
        found = [_find_on_grid(sphere, grid) for sphere in spheres]
    else:
        found = _find_at(spheres, places, grid)
    inside = [np.sort(own[own >= 0]) for own in found]
    totals = np.array([own.size for own in found], dtype=np.int64)
    sizes = [own.size for own in inside]
    voxels = np.concatenate(inside).astype(np.int32)
    pointers = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    ones = np.ones(voxels.size, dtype=np.uint8)
    return RegionMap(
        weights=Rows(ones, voxels, pointers, (len(spheres), grid.n_voxels)),
        hard=True,
        n_voxels_atlas=totals,
        volume=totals.astype(np.float64) * grid.voxel_volume,
        centroids=spheres[:, :3].copy(),
        offsets=np.zeros(len(spheres)),
        centres=Centres(
            voxels=voxels.astype(np.intp),
            rows=np.repeat(np.arange(len(spheres), dtype=np.int32), sizes),
            weights=np.ones(voxels.size),
            totals=totals.astype(np.float64),
        ),
    )


def _find_on_grid(sphere: FloatArray, grid: Grid) -> NDArray[np.intp]:
    """Voxels of a sphere on an endless grid; -1 for each that is not in the grid."""
    radius = sphere[3] + _TOLERANCE
    matrix = grid.matrix[:3, :3]
    (own,) = find_steps(sphere[None, :3], grid)
    # A sphere reaches as many steps along an axis as its row of the inverse is long.
    reach = radius * np.linalg.norm(np.linalg.inv(matrix), axis=1)
    low, high = np.ceil(own - reach).astype(int), np.floor(own + reach).astype(int)
    axes = (np.arange(a, b + 1) for a, b in zip(low, high, strict=True))
    box = np.array(list(itertools.product(*axes)), dtype=np.intp).reshape(-1, 3)
    away = np.linalg.norm((box - own) @ matrix.T, axis=1)
    holder = np.floor(own + 0.5).astype(np.intp)
    kept = (away <= radius) | (box == holder).all(axis=1)
    box = box[kept]
    if not (box == holder).all(axis=1).any():
        box = np.vstack([box, holder])
    flat = np.full(len(box), -1, dtype=np.intp)
    there = ((box >= 0) & (box < grid.shape)).all(axis=1)
    flat[there] = np.ravel_multi_index(tuple(box[there].T), grid.shape, order="F")
    return flat


def _find_at(
    spheres: FloatArray, places: FloatArray, grid: Grid
) -> list[NDArray[np.intp]]:
    """Points of spheres among the places that a warp gives them."""
    from scipy.spatial import cKDTree

    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    tree = cKDTree(places[known])
    balls = tree.query_ball_point(spheres[:, :3], spheres[:, 3] + _TOLERANCE)
    away, nearest = tree.query(spheres[:, :3])
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
    reach = np.linalg.norm(corners @ grid.matrix[:3, :3].T, axis=1).max()
    found = []
    for ball, distance, holder in zip(balls, away, nearest, strict=True):
        own = {*ball, *([int(holder)] if distance <= reach else [])}
        found.append(known[np.array(sorted(own), dtype=np.intp)])
    return found
