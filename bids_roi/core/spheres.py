"""Spheres around coordinates, as regions of whatever grid a run has."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.grid import find_steps
from bids_roi.core.mapping import Centres, RegionMap
from bids_roi.core.rows import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.core.frame import Frame
    from bids_roi.core.grid import Grid

# Rounding in an affine must not decide about a voxel that lies on the sphere.
_TOLERANCE = 1e-6


def map_spheres(
    spheres: NDArray[np.float64],
    target: Frame,
    places: NDArray[np.float64] | None = None,
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


def _find_on_grid(sphere: NDArray[np.float64], grid: Grid) -> NDArray[np.intp]:
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
    spheres: NDArray[np.float64], places: NDArray[np.float64], grid: Grid
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
