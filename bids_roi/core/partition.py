"""Atlases on one grid, factorised jointly into atoms.

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
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.mapping import LabelMap, WeightMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_array


@dataclass(frozen=True, slots=True)
class Partition:
    """All atlases of a grid over the voxels that any of them needs.

    Attributes
    ----------
    voxels : (N,)
        Flat indices, ascending.
    atoms : (A, N) sparse
        Which voxels make each atom.
    regions : (sum of R, A) sparse
        Which atoms make each region; atlas after atlas, empty rows for weighted maps.
    weights : (sum of R, N) sparse
        Weights of the maps, empty rows for labels; ``None`` where there are no maps.
    members
        One (R, N) sparse per atlas: the weight of each voxel, 1 for labels.
    maps
        One per atlas: what the partition was built from.
    rows
        One slice per atlas: its rows of ``regions`` and ``weights``.
    centre_positions
        One (K,) per atlas: position in ``voxels`` of the centres.
    """

    voxels: NDArray[np.intp]
    atoms: csr_array
    regions: csr_array
    weights: csr_array | None
    members: tuple[csr_array, ...]
    maps: tuple[LabelMap | WeightMap, ...]
    rows: tuple[slice, ...]
    centre_positions: tuple[NDArray[np.intp], ...]

    @property
    def n_rows(self) -> int:
        """Regions of all atlases together."""
        return int(self.regions.shape[0])

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
        total = np.bincount(centres.rows, seen, minlength=centres.n_regions)
        everything = np.where(centres.totals > 0, centres.totals, 1)
        # Weights added in another order may differ in the last digit.
        return np.asarray(np.minimum(total / everything, 1.0))


def build_partition(maps: Sequence[LabelMap | WeightMap]) -> Partition:
    """Put the atlases of one grid together.

    Parameters
    ----------
    maps
        One per atlas, on the same BOLD grid; at least one.

    Returns
    -------
    Partition
        Voxels that carry no label but hold the centre of an atlas voxel come along:
        coverage has to know whether they can be used.
    """
    wanted = np.zeros(_n_voxels(maps[0]), dtype=bool)
    for region in maps:
        wanted[region.centres.voxels] = True
        if isinstance(region, LabelMap):
            wanted |= region.rows >= 0
        else:
            wanted[region.weights.indices] = True
    voxels = np.flatnonzero(wanted)
    position = np.full(wanted.size, -1, dtype=np.int32)
    position[voxels] = np.arange(voxels.size, dtype=np.int32)
    members = tuple(_members(region, position, voxels) for region in maps)
    ends = np.cumsum([part.shape[0] for part in members]).tolist()
    atoms, first = _factorise(maps, voxels)
    return Partition(
        voxels=voxels,
        atoms=atoms,
        regions=_stack(
            [
                _group(region.rows[voxels[first]], region.centres.n_regions)
                if isinstance(region, LabelMap)
                else None
                for region in maps
            ],
            members,
            first.size,
        ),
        weights=_stack(
            [
                None if isinstance(region, LabelMap) else part
                for region, part in zip(maps, members, strict=True)
            ],
            members,
            voxels.size,
        )
        if any(isinstance(region, WeightMap) for region in maps)
        else None,
        members=members,
        maps=tuple(maps),
        rows=tuple(map(slice, [0, *ends[:-1]], ends)),
        centre_positions=tuple(
            position[region.centres.voxels].astype(np.intp) for region in maps
        ),
    )


def _n_voxels(region: LabelMap | WeightMap) -> int:
    if isinstance(region, LabelMap):
        return int(region.rows.size)
    return int(region.weights.shape[1])


def _factorise(
    maps: Sequence[LabelMap | WeightMap], voxels: NDArray[np.intp]
) -> tuple[csr_array, NDArray[np.intp]]:
    """Atoms by voxels, and the position of each atom's first voxel."""
    code = np.zeros(voxels.size, dtype=np.int64)
    for region in maps:
        if isinstance(region, LabelMap):
            # Compressed after every atlas, so that the code never overflows.
            code = code * (region.centres.n_regions + 1) + region.rows[voxels] + 1
            code = np.unique(code, return_inverse=True)[1]
    _, first, code = np.unique(code, return_index=True, return_inverse=True)
    rank = np.empty(first.size, dtype=np.int32)
    rank[np.argsort(first)] = np.arange(first.size, dtype=np.int32)
    return _group(rank[code], first.size), np.sort(first)


def _group(
    rows: NDArray[np.int32],
    n_rows: int,
    dtype: type[np.float64 | np.uint8] = np.float64,
) -> csr_array:
    """Matrix of ones with one column per value, in its row; -1 for none."""
    from scipy.sparse import csr_array

    order = np.argsort(rows, kind="stable").astype(np.int32)
    order = order[np.searchsorted(rows, 0, sorter=order) :]
    pointers = np.searchsorted(rows[order], np.arange(n_rows + 1)).astype(np.int32)
    ones = np.ones(order.size, dtype=dtype)
    return csr_array((ones, order, pointers), shape=(n_rows, rows.size))


def _members(
    region: LabelMap | WeightMap, position: NDArray[np.int32], voxels: NDArray[np.intp]
) -> csr_array:
    """Weights of one atlas over the voxels of the partition."""
    from scipy.sparse import csr_array

    if isinstance(region, LabelMap):
        return _group(region.rows[voxels], region.centres.n_regions, np.uint8)
    weights = region.weights
    shape = (region.centres.n_regions, voxels.size)
    return csr_array((weights.data, position[weights.indices], weights.indptr), shape)


def _stack(
    parts: Sequence[csr_array | None], members: Sequence[csr_array], n_columns: int
) -> csr_array:
    """Put matrices below one another; empty rows where an atlas has none."""
    from scipy.sparse import csr_array, vstack

    filled = [
        csr_array((member.shape[0], n_columns)) if part is None else part
        for part, member in zip(parts, members, strict=True)
    ]
    return vstack(filled, format="csr", dtype=np.float64)
