"""Label images put together into one parcellation: the first that has a place wins."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.frame import Frame, FrameMismatch, Mesh, Part, Points
from bids_roi.core.grid import Grid, find_steps, resample_labels, same_grid
from bids_roi.core.mapping import find_rows, match_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Labelled:
    """One of the label images that are combined.

    Attributes
    ----------
    labels : (x, y, z) of a grid, or (P,) of a frame
        Label values, 0 for background.
    where
        Where they lie; all parts in one space.
    index : (R,)
        Label values that are regions, in the order of the combined rows.
    """

    labels: NDArray[np.int64]
    where: Grid | Frame
    index: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Combined:
    """One parcellation out of several.

    Attributes
    ----------
    labels : (x, y, z) of a grid, or (P,) of a frame
        Row of the region, counted from 1 over all parts; 0 for background.
    where
        Where they lie.
    n_places : (sum of R,)
        Places of each region there, before others took some away.
    n_lost : (sum of R,)
        Those of them that belong to an earlier part.
    """

    labels: NDArray[np.int64]
    where: Grid | Frame
    n_places: NDArray[np.int64]
    n_lost: NDArray[np.int64]


def combine_labels(parts: Sequence[Labelled]) -> Combined:
    """Put label images together; where two have a region, the earlier part's stays.

    Parameters
    ----------
    parts
        At least one; all on grids, or all on frames.

    Returns
    -------
    Combined
        On the one grid, where all share it; else on the grid with the smallest voxels
        (the first of equal ones), made larger by whole voxels until it holds all
        regions, to which the others are brought by nearest neighbour. Frames are
        united: nothing is resampled.

    Raises
    ------
    FrameMismatch
        If volumes and frames are mixed, a structure lies on two meshes, or voxels of
        frames are not the same.
    """
    rows = [find_rows(part.labels, part.index) for part in parts]
    grids = [part.where for part in parts if isinstance(part.where, Grid)]
    frames = [part.where for part in parts if isinstance(part.where, Frame)]
    where: Grid | Frame
    if len(grids) == len(parts):
        where = _hold_all(rows, grids)
        brought: list[NDArray[Any]] = [
            _bring(own, grid, where) for own, grid in zip(rows, grids, strict=True)
        ]
    elif grids:
        raise FrameMismatch("volumes and surfaces cannot be one parcellation")
    else:
        where = _unite(frames)
        brought = []
        for own, frame in zip(rows, frames, strict=True):
            there = np.full(where.n_points, -1, dtype=own.dtype)
            there[match_points(frame, where)] = own
            brought.append(there)
    n_regions = sum(part.index.size for part in parts)
    labels = np.zeros(brought[0].shape, dtype=np.int64, order="F")
    n_places, n_lost = np.zeros((2, n_regions), dtype=np.int64)
    start = 0
    for own, part in zip(brought, parts, strict=True):
        here = slice(start, start + part.index.size)
        inside = own >= 0
        taken = inside & (labels > 0)
        n_places[here] = np.bincount(own[inside], minlength=part.index.size)
        n_lost[here] = np.bincount(own[taken], minlength=part.index.size)
        free = inside & ~taken
        labels[free] = own[free] + start + 1
        start = here.stop
    return Combined(labels, where, n_places, n_lost)


def _hold_all(rows: Sequence[NDArray[np.int32]], grids: Sequence[Grid]) -> Grid:
    """The finest of some grids, with as many more voxels as the regions need."""
    finest = min(grids, key=lambda grid: round(grid.voxel_volume, 6))
    low, high = np.zeros(3), np.array(finest.shape) - 1.0
    for own, grid in zip(rows, grids, strict=True):
        held = np.argwhere(own >= 0)
        if same_grid(grid, finest) or not held.size:
            continue
        # Half a voxel beyond the centres, where the outermost voxels end.
        ends = zip(held.min(axis=0) - 0.5, held.max(axis=0) + 0.5, strict=True)
        corners = np.array(list(itertools.product(*ends)))
        matrix = grid.matrix
        steps = find_steps(corners @ matrix[:3, :3].T + matrix[:3, 3], finest)
        low = np.minimum(low, np.ceil(steps.min(axis=0) - 1e-3))
        high = np.maximum(high, np.floor(steps.max(axis=0) + 1e-3))
    matrix = finest.matrix
    matrix[:3, 3] += matrix[:3, :3] @ low
    shape = tuple((high - low + 1).astype(int).tolist())
    return finest if shape == finest.shape else Grid.of(shape, matrix)


def _bring(rows: NDArray[np.int32], source: Grid, target: Grid) -> NDArray[np.int32]:
    """Rows on another grid; -1 for none."""
    if same_grid(source, target):
        return rows
    # With a border, as nothing is found beyond the centres of the outermost voxels.
    matrix = source.matrix
    matrix[:3, 3] -= matrix[:3, :3].sum(axis=1)
    padded = np.pad(rows, 1, constant_values=-1)
    bordered = Grid.of(padded.shape, matrix)
    return resample_labels(padded, bordered, target, background=-1)


def _unite(frames: Sequence[Frame]) -> Frame:
    """Frame of all places of some frames, each once."""
    meshes: dict[str, Mesh] = {}
    voxels: dict[str, list[NDArray[np.int64]]] = {}
    grid, seen = None, np.empty(0, dtype=np.int64)
    for part in itertools.chain.from_iterable(frame.parts for frame in frames):
        if isinstance(part.support, Mesh):
            meshes.setdefault(part.structure, part.support)
            continue
        grid = grid or part.support
        if not same_grid(grid, part.support):
            raise FrameMismatch(f"voxels lie on {grid} and on {part.support}")
        # A voxel belongs to one structure: the first that has it.
        new = np.setdiff1d(part.numbers, seen)
        seen = np.union1d(seen, new)
        voxels.setdefault(part.structure, []).append(new)
    parts = [Part(mesh, structure) for structure, mesh in meshes.items()]
    for structure, numbers in voxels.items():
        held = np.sort(np.concatenate(numbers))
        if held.size and grid is not None:
            parts.append(Part(grid, structure, Points(held)))
    return Frame(tuple(parts))
