"""Where the voxels of a pass come from: raw or smoothed, by volume or by region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.rows import Rows
from bids_roi.core.signals import scale_values
from bids_roi.core.smooth import (
    kernel_shares,
    smooth_regions,
    smooth_volume,
    weights_are_cheaper,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.core.frame import Block
    from bids_roi.core.grid import Grid
    from bids_roi.core.partition import Partition
    from bids_roi.core.scan import Voxels

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Gaussian smoothing of every volume before anything is taken from it.

    Attributes
    ----------
    grid
        Of the run.
    sigmas
        Standard deviation along each axis, in voxels.
    inside : (V,) or None
        Whether each voxel of the grid is inside the mask; ``None`` for all. Beyond it a
        0 is the background's.
    """

    grid: Grid
    sigmas: tuple[float, float, float]
    inside: BoolArray | None = None

    def find_valid(self, seen: Voxels) -> BoolArray | None:
        """Voxels that may reach their neighbours, (V,); ``None`` where all may.

        Parameters
        ----------
        seen
            Of the whole grid. What is not finite in some volume, or leaves the field of
            view inside the mask, is left out; what is constant stays, as in nilearn.
        """
        dropout = seen.dropout if self.inside is None else seen.dropout & self.inside
        valid = np.asarray(seen.finite & ~dropout)
        return None if valid.all() else valid


@dataclass(frozen=True, slots=True)
class Plan:
    """What does not change between the passes over a run.

    ``measures`` are those of single voxels that are asked for, ``steady`` (T,) the
    volumes that they and eigenvariates are over.
    """

    partition: Partition
    n_volumes: int
    scaling: tuple[float, float]
    smoothing: Smoothing | None
    measures: tuple[str, ...]
    steady: BoolArray

    def take(self, block: Block) -> tuple[NDArray[Any], slice]:
        """Values of a block, (t, m), that a pass needs, and which of all that it needs.

        Those are the voxels of the partition, or all of the grid for smoothing.
        """
        if self.smoothing is not None:
            return block.values, slice(0, block.values.shape[1])
        voxels, first = self.partition.voxels, block.points.start
        if block.picked:
            return block.values, slice(0, voxels.size)
        if block.values.shape[1] == self.partition.n_points:
            return block.values.take(voxels, axis=1), slice(0, voxels.size)
        start, stop = np.searchsorted(voxels, [first, block.points.stop]).tolist()
        wanted = voxels[start:stop] - first
        if wanted.size and wanted[-1] - wanted[0] == wanted.size - 1:  # a stretch
            stretch = slice(int(wanted[0]), int(wanted[-1]) + 1)
            return block.values[:, stretch], slice(start, stop)
        # Cut by points, each point's series is contiguous, and stays so.
        series = block.values.T.take(wanted, axis=0)
        return series.T, slice(start, stop)


class _RawVolumes:
    """Voxels as they are; what is not kept counts as 0 and so adds nothing."""

    def __init__(self, plan: Plan, kept: BoolArray) -> None:
        self.project = plan.partition.project
        self.scaling = plan.scaling
        self.left_out = np.flatnonzero(~kept)

    def load(self, taken: NDArray[Any]) -> FloatArray:
        values = scale_values(taken, self.scaling)
        values[self.left_out] = 0.0
        return values


class _SmoothedVolumes:
    """Smooth each volume as a whole; for whatever is not a sum."""

    def __init__(
        self,
        plan: Plan,
        kept: BoolArray,
        smoothing: Smoothing,
        valid: BoolArray | None,
    ) -> None:
        self.voxels = plan.partition.voxels
        self.project = plan.partition.project
        self.scaling = plan.scaling
        self.smoothing = smoothing
        self.left_out = np.flatnonzero(~kept)
        self.invalid, self.shares = None, None
        if valid is not None:
            self.invalid = np.flatnonzero(~valid)
            shares = kernel_shares(valid, smoothing.grid, smoothing.sigmas)
            self.shares = shares[self.voxels]

    def load(self, volume: NDArray[Any]) -> FloatArray:
        values = scale_values(volume, self.scaling)
        if self.invalid is not None:
            values[self.invalid] = 0.0
        values = values.reshape(self.smoothing.grid.shape, order="F")
        smooth = smooth_volume(values, self.smoothing.sigmas)
        values = smooth.ravel(order="F").take(self.voxels)
        if self.shares is not None:
            values /= self.shares
        values[self.left_out] = 0.0
        return values


class _SmoothedRegions:
    """Smooth the regions once instead, those of all atlases; for sums over labels."""

    def __init__(
        self,
        plan: Plan,
        kept: BoolArray,
        smoothing: Smoothing,
        valid: BoolArray | None,
    ) -> None:
        partition = plan.partition
        weights = smooth_regions(
            Rows.stack([*partition.members]),
            partition.voxels,
            kept,
            smoothing.grid,
            smoothing.sigmas,
            valid,
        )
        reached = np.zeros(smoothing.grid.n_voxels, dtype=bool)
        reached[weights.indices] = True
        self.voxels = np.flatnonzero(reached)
        self.matrix = weights[:, self.voxels]
        self.scaling = plan.scaling

    def project(self, values: FloatArray) -> FloatArray:
        return np.asarray(self.matrix @ values)

    def load(self, volume: NDArray[Any]) -> FloatArray:
        return scale_values(volume.take(self.voxels), self.scaling)


Source = _RawVolumes | _SmoothedVolumes | _SmoothedRegions


def choose_sources(
    plan: Plan, kept: BoolArray, valid: BoolArray | None, *, voxels: bool
) -> tuple[Source, Source | None]:
    """Of two ways to smooth that give the same numbers, take the cheaper for sums.

    Parameters
    ----------
    plan
        Of the run.
    kept : (N,)
        Voxels of the partition that count.
    valid : (V,) or None
        Voxels of the grid that may reach their neighbours; ``None`` for all.
    voxels
        Whether something needs the voxels themselves. The way of the sums does not
        depend on it, nor do their last digits.

    Returns
    -------
    sums
        Its ``load`` turns what the plan took of a volume into what its ``project`` sums
        up.
    singles
        Where voxels come from, if they are needed and ``sums`` does not load them.
    """
    smoothing, partition = plan.smoothing, plan.partition
    if smoothing is not None and all(region.hard for region in partition.maps):
        sizes = np.concatenate([np.diff(part.indptr) for part in partition.members])
        if weights_are_cheaper(sizes, smoothing.grid, smoothing.sigmas):
            sums = _SmoothedRegions(plan, kept, smoothing, valid)
            return sums, load_voxels(plan, kept, valid) if voxels else None
    return load_voxels(plan, kept, valid), None


def load_voxels(
    plan: Plan, kept: BoolArray, valid: BoolArray | None
) -> _RawVolumes | _SmoothedVolumes:
    """Where the voxels themselves come from; see ``choose_sources``."""
    if plan.smoothing is None:
        return _RawVolumes(plan, kept)
    return _SmoothedVolumes(plan, kept, plan.smoothing, valid)
