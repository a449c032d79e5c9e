"""What is wrong with the voxels and columns of a run, and how it is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.atlases.regions import some
from bids_roi.core.map_solver import NEARLY_DEPENDENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas
    from bids_roi.core.map_solver import MapSolver
    from bids_roi.core.partition import Partition
    from bids_roi.core.quality import RegionQuality
    from bids_roi.core.reduce import Reduction

    FloatArray = NDArray[np.float64]


def warn_of_voxels(
    reduction: Reduction, partition: Partition, number: int
) -> tuple[str, ...]:
    """Say which voxels of an atlas were exactly 0 at times, and what was made of it."""
    notes = []
    lost = partition.count(number, reduction.dropout)
    if lost.any():
        notes.append(
            f"{_where(lost)} exactly 0 in"
            " some volumes, as outside the field of view: they are left out of every"
            " volume (n_voxels_dropout in the region table)."
        )
    kept = partition.count(number, reduction.zero_crossing)
    if kept.any():
        notes.append(
            f"{_where(kept)} exactly 0 in"
            " some volumes and have other values on both sides of 0, or next to it:"
            " they count as they are."
        )
    if reduction.blank:
        notes.append(
            f"{len(reduction.blank)} volumes are 0 throughout (counted from 0:"
            f" {some(reduction.blank)}): they enter as 0. Cut them off or censor them."
        )
    return tuple(notes)


def _where(voxels: NDArray[np.int64]) -> str:
    """Tell how many voxels there are in how many regions; (R,)."""
    if voxels.sum() == 1:
        return "1 voxel is"
    n_regions = np.count_nonzero(voxels)
    word = "region" if n_regions == 1 else "regions"
    return f"{voxels.sum()} voxels in {n_regions} {word} are"


def warn_of_maps(maps: MapSolver, atlas: Atlas) -> list[str]:
    """Say which maps cannot be told apart."""
    if not maps.dependent.any():
        return []
    names = [atlas.regions.name[row] for row in np.flatnonzero(maps.dependent)]
    n_maps = int(maps.present.sum())
    if maps.rank < n_maps:
        return [
            f"{n_maps - maps.rank} of {n_maps} maps depend on others, among"
            f" {some(names)}: they share their signal in one way of many"
            " (least squares)."
        ]
    return [
        f"the maps {some(names)} nearly depend on one another (condition number"
        f" {maps.condition:.1e}, from {NEARLY_DEPENDENT:.0e} on this is said): noise"
        " and rounding come out larger by as much (least squares)."
    ]


def tell_lost_regions(
    kept_signals: FloatArray, raw: FloatArray, quality: RegionQuality, atlas: Atlas
) -> tuple[dict[str, Any], list[str]]:
    """Tell the regions that are n/a in one series only, and why.

    Sidecar keys, and what the user should know, of kept volumes, (n_kept, R), and of
    the same signals before cleaning, (T, R).
    """
    lost = quality.usable & np.isnan(kept_signals).all(axis=0)
    if not lost.any():
        return {}, []
    names = np.array(atlas.regions.name, dtype=object)
    notes = []
    cancelled = lost & np.isnan(raw).all(axis=0)
    if cancelled.any():
        notes.append(
            f"{cancelled.sum()} maps have no weighted mean, because their weights"
            f" cancel: n/a in this series ({some(names[cancelled].tolist())})."
        )
    silent = lost & ~cancelled
    if silent.any():
        notes.append(
            f"{silent.sum()} regions have no signal in the kept volumes, none that"
            " cleaning leaves, or no level to take percent of: n/a in this series"
            f" ({some(names[silent].tolist())})."
        )
    return {"RegionsWithoutSignal": names[lost].tolist()}, notes
