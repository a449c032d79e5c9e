"""Atlases of one frame, factorised jointly into atoms.

An atom is the set of voxels that carry the same label in every atlas. A volume is
reduced to its atoms once, by a sparse product, and a small second product adds atoms
up to the regions of every atlas, so that ten atlases cost little more than one. Atoms
are numbered by their first voxel and voxels stay in the order of the file: the bits of
a sum depend neither on the order of the atlases nor on how the run is cut into blocks.
Nothing here depends on a run's mask, so one partition serves all runs of a grid: a
voxel outside the mask enters as 0, which adds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.rows import Rows, group_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csc_array

    from bids_roi.core.mapping import RegionMap


@dataclass(frozen=True)
class Partition:
    """All atlases of a frame over the points (voxels, vertices) that any of them needs.

    Attributes
    ----------
    n_points
        Points of the run, V.
    voxels : (N,)
        Positions among them, ascending; on a grid their flat indices.
    atoms : (A, N) sparse
        Which voxels make each atom: 1, or their size where vertices weigh by area.
    regions : (sum of R, A) sparse
        Which atoms make each region; atlas after atlas, empty rows for weighted maps.
    weights : (sum of R, N) sparse
        Weights of the maps, empty rows for labels; ``None`` where there are no maps.
    members
        One (R, N) sparse per atlas: the weight of each voxel.
    maps
        One per atlas: what the partition was built from.
    rows
        One slice per atlas: its rows of ``regions`` and ``weights``.
    centre_positions
        One (K,) per atlas: position in ``voxels`` of the centres.
    """

    n_points: int
    voxels: NDArray[np.intp]
    atoms: Rows
    regions: Rows
    weights: Rows | None
    members: tuple[Rows, ...]
    maps: tuple[RegionMap, ...]
    rows: tuple[slice, ...]
    centre_positions: tuple[NDArray[np.intp], ...]

    @property
    def n_rows(self) -> int:
        """Regions of all atlases together."""
        return int(self.regions.shape[0])

    @cached_property
    def columns(self) -> csc_array:
        """Weight of each voxel in each region, by voxel; (sum of R, N)."""
        weights = self.regions.whole @ self.atoms.whole
        if self.weights is not None:
            weights = weights + self.weights.whole
        return weights.tocsc()

    def project(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums over the regions, and products with the maps, of one volume.

        Parameters
        ----------
        values : (N,)
            In the order of ``voxels``; 0 for voxels that do not count.

        Returns
        -------
        (sum of R,)
        """
        sums = self.regions @ (self.atoms @ values)
        if self.weights is not None:
            sums += self.weights @ values
        return np.asarray(sums)

    def count(self, atlas: int, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count the kept voxels of each region.

        Parameters
        ----------
        atlas
            Position of the atlas.
        kept : (N,)
            In the order of ``voxels``.

        Returns
        -------
        (R,)
        """
        part = self.members[atlas]
        # Differences of a running sum: np.add.reduceat gives the next region's first
        # voxel for one that is empty.
        before = np.concatenate([[0], np.cumsum(kept[part.indices], dtype=np.int64)])
        return np.asarray(np.diff(before[part.indptr]))

    def coverage(self, atlas: int, usable: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Share of each region's atlas voxels whose centre lies in a usable voxel.

        Counted on the atlas's own grid, so that what a cut field of view takes away
        stays in the denominator; by weight for maps with weights.

        Parameters
        ----------
        atlas
            Position of the atlas.
        usable : (N,)
            In the order of ``voxels``.

        Returns
        -------
        (R,)
            0 to 1; 0 for a region that the atlas image does not hold.
        """
        centres = self.maps[atlas].centres
        seen = centres.weights * usable[self.centre_positions[atlas]]
        total = np.bincount(centres.rows, seen, minlength=centres.totals.size)
        everything = np.where(centres.totals > 0, centres.totals, 1)
        # Weights added in another order may differ in the last digit.
        return np.asarray(np.minimum(total / everything, 1.0))


def build_partition(maps: Sequence[RegionMap]) -> Partition:
    """Put the atlases of one frame together.

    Parameters
    ----------
    maps
        One per atlas, on the same points; at least one.

    Returns
    -------
    Partition
        Points that carry no label but hold the centre of an atlas voxel come along:
        coverage has to know whether they can be used.
    """
    wanted = np.zeros(maps[0].n_points, dtype=bool)
    for region in maps:
        wanted[region.centres.voxels] = True
        wanted[region.weights.indices] = True
    voxels = np.flatnonzero(wanted)
    position = np.full(wanted.size, -1, dtype=np.int32)
    position[voxels] = np.arange(voxels.size, dtype=np.int32)
    members = tuple(_narrow(region.weights, position, voxels.size) for region in maps)
    labels = [
        _layer(part) if region.hard else []
        for region, part in zip(maps, members, strict=True)
    ]
    ends = np.cumsum([region.n_regions for region in maps]).tolist()
    atoms, first = _factorise(labels, members, voxels.size)
    for region, part in zip(maps, members, strict=True):
        # Areas go into the atoms, not the regions: an atom adds vertices up before any
        # region sees them.
        if region.areas is not None:  # of the points, so the same for all atlases
            size = np.zeros(voxels.size)
            size[part.indices] = part.data
            found = size[atoms.indices]
            atoms.data = np.where(found > 0, found, atoms.data)
    grouped = [
        _gather(layers, first, part.shape[0]) if layers else None
        for layers, part in zip(labels, members, strict=True)
    ]
    soft = [
        None if region.hard else part
        for region, part in zip(maps, members, strict=True)
    ]
    some_soft = any(part is not None for part in soft)
    return Partition(
        n_points=maps[0].n_points,
        voxels=voxels,
        atoms=atoms,
        regions=_stack(grouped, members, first.size),
        weights=_stack(soft, members, voxels.size) if some_soft else None,
        members=members,
        maps=tuple(maps),
        rows=tuple(map(slice, [0, *ends[:-1]], ends)),
        centre_positions=tuple(
            position[region.centres.voxels].astype(np.intp) for region in maps
        ),
    )


def _narrow(weights: Rows, position: NDArray[np.int32], n: int) -> Rows:
    """Weights over the points of the partition alone."""
    columns = position[weights.indices]
    return Rows(weights.data, columns, weights.indptr, (weights.shape[0], n))


def _layer(members: Rows) -> list[NDArray[np.int32]]:
    """Row of each column of labels, -1 for none; further ones where regions overlap."""
    rows = np.repeat(
        np.arange(members.shape[0], dtype=np.int32), np.diff(members.indptr)
    )
    columns = members.indices
    layers: list[NDArray[np.int32]] = []
    while columns.size or not layers:
        layer = np.full(members.shape[1], -1, dtype=np.int32)
        layer[columns] = rows  # the last write stays: the others are for the next
        layers.append(layer)
        left = layer[columns] != rows
        columns, rows = columns[left], rows[left]
    return layers


def _gather(
    layers: Sequence[NDArray[np.int32]], first: NDArray[np.intp], n_rows: int
) -> Rows:
    """Which atoms, told by their first columns, make each row."""
    gathered = group_rows(layers[0][first], n_rows)
    for rows in layers[1:]:
        both = gathered.whole + group_rows(rows[first], n_rows).whole
        gathered = Rows(both.data, both.indices, both.indptr, gathered.shape)
    return gathered


def _factorise(
    labels: Sequence[Sequence[NDArray[np.int32]]], members: Sequence[Rows], n: int
) -> tuple[Rows, NDArray[np.intp]]:
    """Atoms by voxels, and the position of each atom's first voxel."""
    # A voxel's labels in all atlases as one number; equal numbers make an atom. Maps
    # are no part of it: nearly every voxel would be an atom of its own.
    code = np.zeros(n, dtype=np.int64)
    for layers, part in zip(labels, members, strict=True):
        for rows in layers:
            # Compressed after every atlas, so that the code never overflows.
            code = code * (part.shape[0] + 1) + rows + 1
            code = np.unique(code, return_inverse=True)[1]
    _, first, code = np.unique(code, return_index=True, return_inverse=True)
    # By first voxel, and not by code: codes depend on the order of the atlases,
    # and the last digits of a sum must not.
    rank = np.empty(first.size, dtype=np.int32)
    rank[np.argsort(first)] = np.arange(first.size, dtype=np.int32)
    return group_rows(rank[code], first.size), np.sort(first)


def _stack(
    parts: Sequence[Rows | None], members: Sequence[Rows], n_columns: int
) -> Rows:
    """Put matrices below one another; empty rows where an atlas has none."""
    filled = [
        group_rows(np.full(n_columns, -1, np.int32), member.shape[0])
        if part is None
        else part
        for part, member in zip(parts, members, strict=True)
    ]
    return Rows.stack(filled)
