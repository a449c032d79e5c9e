"""Label volumes of one grid to joint atoms: the voxels of a run, sorted once.

An atom is the set of voxels that carry the same label in every atlas. A run is reduced
to its atoms, and every atlas's regions are sums of atoms, so ten atlases cost one
pass. Nothing here depends on a run's mask, so one partition serves all runs of a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.grid import nearest_voxels, resample_labels, same_grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid

__all__ = ["Partition", "RegionMap", "build_partition", "map_regions"]


@dataclass(frozen=True, slots=True)
class RegionMap:
    """One atlas on the grid of a BOLD run.

    Attributes
    ----------
    rows : (V,)
        Row of the region table at each voxel of the BOLD grid, -1 for none.
    n_voxels_atlas : (R,)
        Voxels of each region on the atlas's own grid.
    centre_voxels : (K,)
        Flat BOLD indices in which at least one atlas voxel's centre lies.
    centre_rows : (K,)
        The region those atlas voxels belong to.
    centre_counts : (K,)
        How many they are.
    """

    rows: NDArray[np.int32]
    n_voxels_atlas: NDArray[np.int64]
    centre_voxels: NDArray[np.intp]
    centre_rows: NDArray[np.int32]
    centre_counts: NDArray[np.int64]

    @property
    def n_regions(self) -> int:
        """Number of rows of the region table."""
        return int(self.n_voxels_atlas.size)


@dataclass(frozen=True, slots=True)
class Partition:
    """The voxels that any atlas of a grid needs, sorted by atom.

    Attributes
    ----------
    voxels : (N,)
        Flat indices, by atom and then ascending.
    starts : (A,)
        Position in ``voxels`` at which each atom begins; no atom is empty.
    atom_rows : one (A,) per atlas
        Region of each atom, -1 for none.
    maps : one per atlas
        Where their regions and atlas voxel centres are.
    centre_positions : one (K,) per atlas
        Position in ``voxels`` of ``centre_voxels``.
    """

    voxels: NDArray[np.intp]
    starts: NDArray[np.intp]
    atom_rows: tuple[NDArray[np.int32], ...]
    maps: tuple[RegionMap, ...]
    centre_positions: tuple[NDArray[np.intp], ...]

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Voxels of each atom, (A,)."""
        return np.diff(self.starts, append=self.voxels.size)

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
        per_atom = np.add.reduceat(kept, self.starts, dtype=np.int64)
        rows = self.atom_rows[atlas]
        inside = rows >= 0
        n_regions = self.maps[atlas].n_regions
        counts = np.bincount(rows[inside], per_atom[inside], minlength=n_regions)
        return counts.astype(np.int64)

    def coverage(self, atlas: int, usable: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Share of each region's atlas voxels whose centre lies in a usable voxel.

        Counted on the atlas's own grid, so that what a cut field of view takes away
        stays in the denominator.

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
        region = self.maps[atlas]
        seen = region.centre_counts * usable[self.centre_positions[atlas]]
        total = np.bincount(region.centre_rows, seen, minlength=region.n_regions)
        return np.asarray(total / np.maximum(region.n_voxels_atlas, 1))


def map_regions(
    labels: NDArray[np.int64], index: NDArray[np.int64], source: Grid, target: Grid
) -> RegionMap:
    """Bring an atlas to a BOLD grid.

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
    RegionMap
        Voxels whose label is not in ``index`` belong to no region.
    """
    order = np.argsort(index, kind="stable")
    position = np.searchsorted(index[order], labels)
    position = np.minimum(position, index.size - 1)
    rows = np.where(index[order][position] == labels, order[position], -1)
    rows = rows.astype(np.int32)
    flat = rows.ravel(order="F")
    inside = np.flatnonzero(flat >= 0)
    moved = resample_labels(rows, source, target, background=-1).ravel(order="F")
    if same_grid(source, target):
        centres = inside
    else:
        centres = nearest_voxels(inside, source, target)
    kept = centres >= 0
    pairs = flat[inside[kept]].astype(np.int64) * target.n_voxels + centres[kept]
    pairs, counts = np.unique(pairs, return_counts=True)
    return RegionMap(
        rows=moved,
        n_voxels_atlas=np.bincount(flat[inside], minlength=index.size),
        centre_voxels=(pairs % target.n_voxels).astype(np.intp),
        centre_rows=(pairs // target.n_voxels).astype(np.int32),
        centre_counts=counts,
    )


def build_partition(maps: Sequence[RegionMap]) -> Partition:
    """Factorise the atlases of one grid jointly into atoms.

    Parameters
    ----------
    maps
        One per atlas, on the same BOLD grid.

    Returns
    -------
    Partition
        Voxels that carry no label but hold the centre of an atlas voxel come along,
        in an atom of no region: coverage has to know whether they can be used.
    """
    wanted = np.zeros(maps[0].rows.size, dtype=bool)
    for region in maps:
        wanted |= region.rows >= 0
        wanted[region.centre_voxels] = True
    voxels = np.flatnonzero(wanted)
    code = np.zeros(voxels.size, dtype=np.int64)
    for region in maps:
        # Compressed after every atlas, so that the code never overflows.
        code = code * (region.n_regions + 1) + region.rows[voxels] + 1
        code = np.unique(code, return_inverse=True)[1]
    order = np.argsort(code, kind="stable")
    voxels = voxels[order]
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    position = np.empty(wanted.size, dtype=np.intp)
    position[voxels] = np.arange(voxels.size)
    return Partition(
        voxels=voxels,
        starts=starts,
        atom_rows=tuple(region.rows[voxels[starts]] for region in maps),
        maps=tuple(maps),
        centre_positions=tuple(position[region.centre_voxels] for region in maps),
    )
