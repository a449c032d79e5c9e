"""Blocks of volumes to regional statistics, in one pass over the run.

The first pass takes every voxel inside the mask and finds out which of them are
usable: finite in every volume, not constant, and in the field of view throughout. In
nearly every run those that are not are constant zeros (outside the brain), which add
nothing to a sum, so that only the count changes. All else is computed again, over the
usable voxels alone, in a second pass over such runs only; so are least squares over
maps that nearly depend on one another, which need a better basis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.map_solver import MapSolver
from bids_roi.core.scan import Voxels, VoxelScan
from bids_roi.core.signals import finish_sums
from bids_roi.core.statistics import SortedRegions
from bids_roi.core.volumes import Plan, Smoothing, choose_source
from bids_roi.options.words import name_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from numpy.typing import NDArray

    from bids_roi.core.partition import Partition

    Blocks = Callable[[], Iterable[tuple[int, NDArray[Any]]]]
    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]
    Solvers = tuple[MapSolver | None, ...]


_SORTED = set(name_statistics(family="sorted"))
_OF_MAPS = set(name_statistics(of="maps"))
_OVERFLOW = "the values are too large: their sums are infinite"


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
    dropout : (N,)
        Those of them that are outside the field of view in some volumes.
    usable : (N,)
        Those that are neither that nor constant.
    zero_crossing : (N,)
        Those of the usable ones that are 0 in some volumes all the same.
    blank
        Numbers of the volumes that are 0 throughout.
    solvers
        One per atlas of maps that least squares were solved for, else ``None``.
    n_passes
        How often the run was read: 1 or 2.
    """

    signals: dict[str, tuple[FloatArray | None, ...]]
    finite: BoolArray
    dropout: BoolArray
    usable: BoolArray
    zero_crossing: BoolArray
    blank: tuple[int, ...]
    solvers: Solvers
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
        Names from ``options.words.STATISTICS``; ``mean`` is added.
    n_volumes
        T.
    scaling
        Slope and intercept: value = slope * stored + intercept, as in NIfTI.
    smoothing
        Applied to whole volumes, before mask and regions.

    Returns
    -------
    Reduction

    Raises
    ------
    ValueError
        If finite values are so large that their sum is not.
    """
    wanted = {"mean", *statistics}
    plan = Plan(partition, n_volumes, scaling, smoothing)
    run = _Pass(plan, in_mask, wanted)
    # What is smoothed reaches beyond the regions, and so does what is wrong with it.
    counted = in_mask
    if smoothing is not None:
        counted = np.ones(smoothing.grid.n_voxels, dtype=bool)
    scan = VoxelScan(counted, scaling)
    for start, block in read_blocks():
        taken = plan.take(block)
        scan.look(start, block, taken)
        # Once a value is not finite this pass only looks for the others.
        if scan.all_finite and not run.add(start, taken):
            raise ValueError(_OVERFLOW)
    seen = scan.judge()
    found = _inside_mask(seen, plan, in_mask)
    solvers = _solve_maps(partition, found.usable, wanted)
    valid = None if smoothing is None else smoothing.find_valid(seen)
    again = _needs_second_pass(scan, found, wanted, plan, valid)
    if any(solver is not None and solver.extra is not None for solver in solvers):
        again |= {"least_squares"}
    signals = run.finish(found.usable, wanted - again, solvers)
    if again:
        second = _Pass(plan, found.usable, again, valid, solvers)
        for start, block in read_blocks():
            if not second.add(start, plan.take(block)):
                raise ValueError(_OVERFLOW)
        signals |= second.finish(found.usable, again, solvers)
    if any(
        a is not None and np.isinf(a).any() for each in signals.values() for a in each
    ):
        raise ValueError(_OVERFLOW)
    return Reduction(
        signals=signals,
        finite=found.finite,
        dropout=found.dropout,
        usable=found.usable,
        zero_crossing=found.zero_crossing,
        blank=seen.blank,
        solvers=solvers,
        n_passes=1 + bool(again),
    )


def _inside_mask(seen: Voxels, plan: Plan, in_mask: BoolArray) -> Voxels:
    """What was seen, of the voxels of the partition; none of those outside the mask."""

    def only(values: BoolArray) -> BoolArray:
        if plan.smoothing is not None:
            values = values[plan.partition.voxels]
        return np.asarray(values & in_mask)

    return Voxels(
        finite=only(seen.finite),
        constant=only(seen.constant),
        dropout=only(seen.dropout),
        zero_crossing=only(seen.zero_crossing),
        blank=seen.blank,
    )


def _solve_maps(partition: Partition, usable: BoolArray, wanted: set[str]) -> Solvers:
    return tuple(
        None
        if region.hard or "least_squares" not in wanted
        else MapSolver(weights, usable)
        for region, weights in zip(partition.maps, partition.members, strict=True)
    )


def _needs_second_pass(
    scan: VoxelScan,
    found: Voxels,
    wanted: set[str],
    plan: Plan,
    valid: BoolArray | None,
) -> set[str]:
    """Name the statistics that the voxels which are not usable have spoilt."""
    if not scan.all_finite or found.dropout.any() or valid is not None:
        return set(wanted)
    if not found.constant.any():
        return set()
    if plan.smoothing is not None:
        return set(wanted)
    constants = scan.first[found.constant]
    slope, intercept = plan.scaling
    if np.any(constants.astype(np.float64) * slope + intercept != 0):
        return set(wanted)
    # Constant zeros leave sums and products as they are, once the count, or the voxels
    # that the maps are solved over, are right.
    return wanted & _SORTED


class _Pass:
    """One reduction over a fixed set of voxels."""

    def __init__(
        self,
        plan: Plan,
        kept: BoolArray,
        statistics: set[str],
        valid: BoolArray | None = None,
        solvers: Solvers = (),
    ) -> None:
        partition = plan.partition
        self.plan = plan
        self.kept = kept
        self.sums = np.zeros((plan.n_volumes, partition.n_rows))
        others = statistics & _SORTED
        self.sorted = [
            SortedRegions(members, kept) if others and region.hard else None
            for members, region in zip(partition.members, partition.maps, strict=True)
        ]
        self.others = {
            name: [
                None if r is None else np.full((plan.n_volumes, r.n_regions), np.nan)
                for r in self.sorted
            ]
            for name in others
        }
        self.source = choose_source(plan, kept, statistics, valid)
        # Products with what the maps alone do not tell apart, by atlas.
        self.extras = {
            number: (solver.extra, np.zeros((plan.n_volumes, solver.extra.shape[0])))
            for number, solver in enumerate(solvers)
            if solver is not None and solver.extra is not None
        }

    def add(self, start: int, taken: NDArray[Any]) -> bool:
        """Reduce what was taken of a block; tell whether all its sums are finite."""
        stop = start + taken.shape[0]
        source = self.source
        values = np.stack([source.load(volume) for volume in taken])
        for t, volume in enumerate(values, start):
            self.sums[t] = source.project(volume)
            for rows, products in self.extras.values():
                products[t] = rows @ volume
        if not np.isfinite(self.sums[start:stop]).all():
            return False
        for name, arrays in self.others.items():
            for regions, array in zip(self.sorted, arrays, strict=True):
                if regions is not None and array is not None:
                    array[start:stop] = regions.compute(name, values)
        return True

    def finish(
        self, usable: BoolArray, statistics: set[str], solvers: Solvers
    ) -> dict[str, tuple[FloatArray | None, ...]]:
        """Return statistics; regions without a usable voxel are NaN."""
        partition = self.plan.partition
        signals: dict[str, tuple[FloatArray | None, ...]] = {}
        for name in statistics:
            per_atlas: list[FloatArray | None] = []
            for number, rows in enumerate(partition.rows):
                if partition.maps[number].hard == (name in _OF_MAPS):
                    per_atlas.append(None)
                    continue
                n_used = partition.count(number, usable)
                solver = solvers[number]
                if name in self.others:
                    values = self.others[name][number]
                elif name == "least_squares" and solver is not None:
                    _, more = self.extras.get(number, (None, None))
                    values = solver.solve(self.sums[:, rows], more)
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
