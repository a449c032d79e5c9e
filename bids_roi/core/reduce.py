"""Blocks of volumes to regional statistics, in one pass over the run.

The first pass takes every voxel inside the mask and finds out which of them are
usable: finite in every volume and not constant. In nearly every run those that are not
are constant zeros (outside the field of view), which add nothing to a sum, so that
only the count changes. All else is computed again, over the usable voxels alone, in a
second pass over such runs only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.mapping import LabelMap
from bids_roi.core.signals import LINEAR, SUMS, finish_sums, scale_values
from bids_roi.core.smooth import smooth_regions, smooth_volume, weights_are_cheaper
from bids_roi.core.statistics import SortedRegions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid
    from bids_roi.core.partition import Partition

    Blocks = Callable[[], Iterable[tuple[int, NDArray[Any]]]]
    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]

__all__ = ["Reduction", "Smoothing", "reduce_run"]

_OVERFLOW = "the values are too large: their sums are infinite"


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Gaussian smoothing of every volume before anything is taken from it.

    Attributes
    ----------
    grid
        Of the run.
    sigmas
        Standard deviation along each axis, in voxels.
    """

    grid: Grid
    sigmas: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Reduction:
    """Regional statistics of one run.

    Attributes
    ----------
    signals
        For each statistic a tuple with one (T, R) array per atlas, or ``None`` where
        the atlas has no such statistic; NaN columns for regions without a usable voxel.
        The mean of label atlases is always there.
    finite : (N,)
        Voxels of the partition inside the mask and finite in every volume.
    usable : (N,)
        Those of them that are not constant.
    n_passes
        How often the run was read: 1 or 2.
    """

    signals: dict[str, tuple[FloatArray | None, ...]]
    finite: BoolArray
    usable: BoolArray
    n_passes: int


def reduce_run(
    read_blocks: Blocks,
    partition: Partition,
    *,
    in_mask: BoolArray,
    statistics: Collection[str],
    n_volumes: int,
    scaling: tuple[float, float] = (1.0, 0.0),
    smoothing: Smoothing | None = None,
) -> Reduction:
    """Reduce a run to the regions of every atlas.

    Parameters
    ----------
    read_blocks
        Called once per pass; yields ``(start, block)`` with blocks of (t, V) stored
        values in the order of time, valid until the next one is asked for.
    partition
        Of the run's grid.
    in_mask : (N,)
        Whether each voxel of ``partition.voxels`` is inside the mask.
    statistics
        Names from ``options.STATISTICS`` for atlases of labels (``mean`` is added) and
        from ``options.MAP_STATISTICS`` for maps with weights.
    n_volumes
        T.
    scaling
        Slope and intercept: value = slope * stored + intercept, as in NIfTI.
    smoothing
        Applied to whole volumes, before mask and regions, as in nilearn.

    Returns
    -------
    Reduction

    Raises
    ------
    ValueError
        If finite values are so large that their sum is not.
    """
    wanted = {"mean", *statistics}
    plan = _Plan(partition, n_volumes, scaling, smoothing)
    run = _Pass(plan, in_mask, wanted)
    scan = _Scan(partition.voxels[in_mask])
    for start, block in read_blocks():
        scan.look(block)
        if smoothing is not None:  # smoothing would hide what is not finite
            scan.check_finite(block)
        # Once a value is not finite this pass only looks for the others.
        if not (scan.all_finite and run.add(start, block)):
            scan.find_not_finite(block)
    finite, usable = in_mask.copy(), in_mask.copy()
    finite[in_mask] = scan.finite
    usable[in_mask] = scan.finite & ~scan.constant
    again = _needs_second_pass(scan, wanted, plan)
    signals = run.finish(usable, wanted - again)
    if again:
        second = _Pass(plan, usable, again)
        for start, block in read_blocks():
            if not second.add(start, block):
                raise ValueError(_OVERFLOW)
        signals |= second.finish(usable, again)
    if any(
        a is not None and np.isinf(a).any() for each in signals.values() for a in each
    ):
        raise ValueError(_OVERFLOW)
    return Reduction(signals, finite, usable, n_passes=1 + bool(again))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What does not change between the passes over a run."""

    partition: Partition
    n_volumes: int
    scaling: tuple[float, float]
    smoothing: Smoothing | None


def _needs_second_pass(scan: _Scan, wanted: set[str], plan: _Plan) -> set[str]:
    """Name the statistics that the voxels which are not usable have spoilt."""
    if not scan.all_finite:
        return wanted
    constants = scan.first[scan.constant]
    if constants.size == 0:
        return set()
    slope, intercept = plan.scaling
    values = constants.astype(np.float64) * slope + intercept
    if plan.smoothing is not None or np.any(values != 0):
        return wanted
    return wanted - SUMS - LINEAR


class _Scan:
    """Which voxels are finite and which never change, block after block."""

    def __init__(self, voxels: NDArray[np.intp]) -> None:
        self.voxels = voxels
        self.pending = np.arange(voxels.size)  # equal to the first volume so far
        self.first: NDArray[Any] = np.empty(0)
        self.finite = np.ones(voxels.size, dtype=bool)
        self.all_finite = True
        self._started = False

    @property
    def constant(self) -> BoolArray:
        """Voxels that never differed from the first volume."""
        constant = np.zeros(self.voxels.size, dtype=bool)
        constant[self.pending] = True
        return constant

    def look(self, block: NDArray[Any]) -> None:
        """Strike off the voxels that change in this block."""
        if not self._started:
            self.first = block[0].take(self.voxels)
            self._started = True
        if self.pending.size:
            values = block.take(self.voxels[self.pending], axis=1)
            # NaN differs from itself: such a voxel is struck off as not finite.
            same = (values == self.first[self.pending]).all(axis=0)
            self.pending = self.pending[same]

    def check_finite(self, block: NDArray[Any]) -> None:
        """Note the voxels of a block with NaN or infinity."""
        self.finite &= np.isfinite(block.take(self.voxels, axis=1)).all(axis=0)
        self.all_finite = bool(self.finite.all())

    def find_not_finite(self, block: NDArray[Any]) -> None:
        """Note the voxels that made the sums of a block infinite; there must be one."""
        expected = self.all_finite
        self.check_finite(block)
        if expected and self.all_finite:
            raise ValueError(_OVERFLOW)


class _Pass:
    """One reduction over a fixed set of voxels."""

    def __init__(self, plan: _Plan, kept: BoolArray, statistics: set[str]) -> None:
        partition = plan.partition
        self.plan = plan
        self.kept = kept
        self.sums = np.zeros((plan.n_volumes, partition.n_rows))
        others = statistics - SUMS - LINEAR
        self.sorted = [
            SortedRegions(members, kept)
            if others and isinstance(region, LabelMap)
            else None
            for members, region in zip(partition.members, partition.maps, strict=True)
        ]
        self.others = {
            name: [
                None if r is None else np.full((plan.n_volumes, r.n_regions), np.nan)
                for r in self.sorted
            ]
            for name in others
        }
        self.source = _choose_source(plan, kept, statistics)

    def add(self, start: int, block: NDArray[Any]) -> bool:
        """Reduce a block; tell whether all its sums are finite."""
        stop = start + block.shape[0]
        source = self.source
        values = np.stack([source.load(volume) for volume in block])
        for t, volume in enumerate(values, start):
            self.sums[t] = source.project(volume)
        if not np.isfinite(self.sums[start:stop]).all():
            return False
        for name, arrays in self.others.items():
            for regions, array in zip(self.sorted, arrays, strict=True):
                if regions is not None and array is not None:
                    array[start:stop] = regions.compute(name, values)
        return True

    def finish(
        self, usable: BoolArray, statistics: set[str]
    ) -> dict[str, tuple[FloatArray | None, ...]]:
        """Return statistics; regions without a usable voxel are NaN."""
        partition = self.plan.partition
        signals: dict[str, tuple[FloatArray | None, ...]] = {}
        for name in statistics:
            per_atlas: list[FloatArray | None] = []
            for number, rows in enumerate(partition.rows):
                if isinstance(partition.maps[number], LabelMap) == (name in LINEAR):
                    per_atlas.append(None)
                    continue
                n_used = partition.count(number, usable)
                if name in self.others:
                    values = self.others[name][number]
                else:
                    weights = partition.members[number]
                    values = finish_sums(
                        name, self.sums[:, rows], weights, usable, n_used
                    )
                if values is not None:
                    values[:, n_used == 0] = np.nan
                per_atlas.append(values)
            signals[name] = tuple(per_atlas)
        return signals


class _RawVolumes:
    """Voxels as they are; what is not kept counts as 0 and so adds nothing."""

    def __init__(self, plan: _Plan, kept: BoolArray) -> None:
        self.voxels = plan.partition.voxels
        self.project = plan.partition.project
        self.scaling = plan.scaling
        self.left_out = np.flatnonzero(~kept)

    def load(self, volume: NDArray[Any]) -> FloatArray:
        values = scale_values(volume.take(self.voxels), self.scaling)
        values[self.left_out] = 0.0
        return values


class _SmoothedVolumes:
    """Smooth each volume as a whole; for whatever is not a sum."""

    def __init__(self, plan: _Plan, kept: BoolArray, smoothing: Smoothing) -> None:
        self.voxels = plan.partition.voxels
        self.project = plan.partition.project
        self.scaling = plan.scaling
        self.smoothing = smoothing
        self.left_out = np.flatnonzero(~kept)

    def load(self, volume: NDArray[Any]) -> FloatArray:
        values = scale_values(volume, self.scaling)
        values = values.reshape(self.smoothing.grid.shape, order="F")
        smooth = smooth_volume(values, self.smoothing.sigmas)
        values = smooth.ravel(order="F").take(self.voxels)
        values[self.left_out] = 0.0
        return values


class _SmoothedRegions:
    """Smooth the regions once instead, those of all atlases; for sums over labels."""

    def __init__(self, plan: _Plan, kept: BoolArray, smoothing: Smoothing) -> None:
        partition = plan.partition
        from scipy.sparse import vstack

        weights = smooth_regions(
            vstack(partition.members, format="csr"),
            partition.voxels,
            kept,
            smoothing.grid,
            smoothing.sigmas,
        )
        reached = np.zeros(smoothing.grid.n_voxels, dtype=bool)
        reached[weights.indices] = True
        self.voxels = np.flatnonzero(reached)
        self.matrix = weights[:, self.voxels]
        self.scaling = plan.scaling

    def project(self, values: FloatArray) -> FloatArray:
        return np.asarray(self.matrix @ values)

    def load(self, volume: NDArray[Any]) -> FloatArray:
        values = scale_values(volume.take(self.voxels), self.scaling)
        values[~np.isfinite(values)] = 0.0
        return values


def _choose_source(
    plan: _Plan, kept: BoolArray, statistics: set[str]
) -> _RawVolumes | _SmoothedVolumes | _SmoothedRegions:
    """Of two ways to smooth that give the same numbers, take the cheaper."""
    smoothing, partition = plan.smoothing, plan.partition
    if smoothing is None:
        return _RawVolumes(plan, kept)
    labels_only = all(isinstance(region, LabelMap) for region in partition.maps)
    if labels_only and statistics - LINEAR <= SUMS:
        sizes = np.concatenate([np.diff(part.indptr) for part in partition.members])
        if weights_are_cheaper(sizes, smoothing.grid, smoothing.sigmas):
            return _SmoothedRegions(plan, kept, smoothing)
    return _SmoothedVolumes(plan, kept, smoothing)
