"""Blocks of a run to regional statistics, mostly in one pass.

Cut by volumes, the first pass takes every voxel inside the mask and finds out which of
them are usable: finite in every volume, not constant, and in the field of view
throughout. In nearly every run those that are not are constant zeros (outside the
brain), which add nothing to a sum, so that only the count changes. All else is computed
again, over the usable voxels alone, in a second pass over such runs only; so are least
squares over maps that nearly depend on one another, which need a better basis.

Cut by points, as CIFTI files are, a block tells of each point whether it is usable
before it is added, and sums need one pass. Statistics that need a region as a whole get
it from stretches of volumes, gathered from the blocks: as many passes as it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.map_solver import MapSolver
from bids_roi.core.quality import PointMoments, VolumeMoments
from bids_roi.core.rows import add_points
from bids_roi.core.scan import Voxels, VoxelScan
from bids_roi.core.statistics import (
    OVERFLOW,
    SortedRegions,
    WholeSeries,
    finish_sums,
    scale_values,
)
from bids_roi.core.volumes import Plan, Smoothing, choose_sources, load_voxels
from bids_roi.options.words import name_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from numpy.typing import NDArray

    from bids_roi.core.frame import Block
    from bids_roi.core.partition import Partition

    Blocks = Callable[[], Iterable[Block]]
    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]
    Solvers = tuple[MapSolver | None, ...]
    Signals = dict[str, tuple[FloatArray | None, ...]]


_SORTED = set(name_statistics(family="sorted"))
_SERIES = set(name_statistics(family="series"))
_OF_MAPS = set(name_statistics(of="maps"))
_GATHER_BYTES = 128 * 2**20
_ROOM_BYTES = 2**20
_FLOAT_BYTES = 16 * 2**20  # of what is gathered, as float64 at a time


@dataclass(frozen=True, slots=True)
class Reduction:
    """Regional statistics of one run.

    Attributes
    ----------
    signals
        For each statistic a tuple with one (T, R) array per atlas, or ``None`` where
        the atlas has no such statistic; NaN columns for regions without a usable voxel.
        The mean of label atlases is always there.
    measures
        For each measure of ``REGION_MEASURES`` that was asked for a tuple with one (R,)
        array per atlas, ``None`` for maps; NaN for regions without a usable voxel.
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
        How often the run was read: mostly 1 by volumes, by points as often as it takes;
        and as often as it takes for what needs whole series.
    """

    signals: Signals
    measures: dict[str, tuple[FloatArray | None, ...]]
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
    gather_bytes: int = _GATHER_BYTES,
    pick_blocks: Callable[[NDArray[np.intp]], Iterable[Block]] | None = None,
    measures: Collection[str] = (),
    steady: BoolArray | None = None,
) -> Reduction:
    """Reduce a run to the regions of every atlas.

    Parameters
    ----------
    read_blocks
        Called once per pass; yields blocks in order, each of which has all points of
        some volumes, or each all volumes of some points.
    partition
        Of the run's frame.
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
    gather_bytes
        Most that may be held at a time: of a run cut by points for statistics that need
        a region as a whole, of any run for what needs whole series.
    pick_blocks
        As ``read_blocks``, but of these points alone, for files that are cheaper so.
    measures
        Names from ``options.words.REGION_MEASURES``.
    steady : (T,) or None
        Volumes that these, and the eigenvariate, are over; ``None`` for all.

    Raises
    ------
    ValueError
        If finite values are so large that their sum is not, or if what is cut by points
        is to be smoothed.
    """
    wanted = {"mean", *statistics}
    if steady is None:
        steady = np.ones(n_volumes, dtype=bool)
    plan = Plan(partition, n_volumes, scaling, smoothing, tuple(measures), steady)
    whole = WholeSeries(plan, in_mask, wanted & _SERIES, gather_bytes)
    wanted -= _SERIES
    read = read_blocks
    if pick_blocks is not None and smoothing is None and partition.voxels.size:
        read = partial(pick_blocks, partition.voxels)
    # How the file is cut is seen from its first block, and not told beside it: two
    # tellings could disagree, and sums over the wrong axis look like numbers.
    blocks = iter(read())
    first = next(blocks)
    blocks = chain([first], blocks)
    if first.picked or first.values.shape[1] == partition.n_points:
        found, signals, solvers, n_passes = _reduce_volumes(
            blocks, read, read_blocks, plan, in_mask, wanted, whole
        )
    elif smoothing is not None:
        raise ValueError("only whole volumes can be smoothed")
    else:
        found, signals, solvers, n_passes = _reduce_points(
            blocks, read_blocks, plan, in_mask, wanted, whole
        )
    signals |= whole.signals
    measured = {name: signals.pop(name) for name in plan.measures}
    if any(
        a is not None and np.isinf(a).any() for each in signals.values() for a in each
    ):
        raise ValueError(OVERFLOW)
    return Reduction(
        signals=signals,
        measures=measured,
        finite=found.finite,
        dropout=found.dropout,
        usable=found.usable,
        zero_crossing=found.zero_crossing,
        blank=found.blank,
        solvers=solvers,
        n_passes=n_passes,
    )


def _reduce_volumes(
    blocks: Iterable[Block],
    read: Blocks,
    read_whole: Blocks,
    plan: Plan,
    in_mask: BoolArray,
    wanted: set[str],
    whole: WholeSeries,
) -> tuple[Voxels, Signals, Solvers, int]:
    """Reduce blocks that have all points of some volumes, or those of the partition."""
    run = _VolumePass(plan, in_mask, wanted)
    # What is smoothed reaches beyond the regions, and so does what is wrong with it.
    counted = in_mask
    if plan.smoothing is not None:
        counted = np.ones(plan.smoothing.grid.n_voxels, dtype=bool)
    scan = VoxelScan(counted, plan.scaling)
    for block in blocks:
        taken, at = plan.take(block)
        scan.look(block, taken, at)
        # Once a value is not finite this pass only looks for the others.
        if scan.all_finite:
            run.add(block.volumes.start, taken)
        # What is smoothed waits until it is known which voxels may reach the others.
        if plan.smoothing is None:
            whole.add(block.volumes, at, taken)
    n_passes = 1
    if read is not read_whole and scan.blank:  # there, but in all there is?
        scan.recheck_blank(read_whole())
        n_passes += 1
    seen = scan.judge()
    found = _inside_mask(seen, plan, in_mask)
    solvers = _solve_maps(plan.partition, found.usable, wanted)
    valid = None if plan.smoothing is None else plan.smoothing.find_valid(seen)
    # To know the usable voxels before adding would cost every run two passes; that they
    # spoilt something is rare, and only what they spoilt is computed again.
    again = _needs_second_pass(scan, found, wanted, plan, valid)
    if _needs_a_better_basis(solvers):
        again |= {"least_squares"}
    signals = run.finish(found.usable, wanted - again, solvers)
    whole.close(found.usable)
    source = load_voxels(plan, found.usable, valid)
    while again or not whole.done:
        second = None
        if again:
            second = _VolumePass(plan, found.usable, again, valid, solvers)
        for block in read():
            taken, at = plan.take(block)
            if second is not None:
                second.add(block.volumes.start, taken)
            if plan.smoothing is not None and not whole.done:
                taken = np.stack([source.load(volume) for volume in taken])
                at = slice(0, in_mask.size)
            whole.add(block.volumes, at, taken)
        if second is not None:
            signals |= second.finish(found.usable, again, solvers)
        whole.close(found.usable)
        again = set()
        n_passes += 1
    return found, signals, solvers, n_passes


def _reduce_points(
    blocks: Iterable[Block],
    read_blocks: Blocks,
    plan: Plan,
    in_mask: BoolArray,
    wanted: set[str],
    whole: WholeSeries,
) -> tuple[Voxels, Signals, Solvers, int]:
    """Reduce blocks that have all volumes of some points."""
    sums = wanted - _SORTED
    run = _PointPass(plan)
    stretches = _Stretches(plan, wanted & _SORTED, whole.n_bytes)
    scan = VoxelScan(in_mask, plan.scaling, plan.n_volumes)
    added = np.zeros_like(in_mask)
    for block in blocks:
        taken, at = plan.take(block)
        scan.look(block, taken, at)
        added[at] = scan.judge(at).usable & in_mask[at]
        run.add(at, taken, added[at])
        stretches.add(at, taken)
        whole.add(block.volumes, at, taken)
    found = _inside_mask(scan.judge(), plan, in_mask)
    solvers = _solve_maps(plan.partition, found.usable, wanted)
    # Volumes that were taken for blank until a later point had a value there.
    again = sums if (added != found.usable).any() else set()
    if _needs_a_better_basis(solvers):
        again = again | {"least_squares"}
    signals = run.finish(found.usable, sums - again, solvers)
    stretches.close(found.usable)
    whole.close(found.usable)
    n_passes = 1
    # Sums that were spoilt, stretches and groups that did not fit share the passes:
    # reading and unpacking is what a pass costs, whatever is done with its blocks.
    while again or not (stretches.done and whole.done):
        second = _PointPass(plan, solvers) if again else None
        for block in read_blocks():
            taken, at = plan.take(block)
            if second is not None:
                second.add(at, taken, found.usable[at])
            stretches.add(at, taken)
            whole.add(block.volumes, at, taken)
        if second is not None:
            signals |= second.finish(found.usable, again, solvers)
        stretches.close(found.usable)
        whole.close(found.usable)
        again = set()
        n_passes += 1
    return found, signals | stretches.signals, solvers, n_passes


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
        else MapSolver(weights.whole, usable)
        for region, weights in zip(partition.maps, partition.members, strict=True)
    )


def _needs_a_better_basis(solvers: Solvers) -> bool:
    return any(solver is not None and solver.extra is not None for solver in solvers)


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
    """Sums and products of one reading, and what is made of them."""

    def __init__(self, plan: Plan, solvers: Solvers = ()) -> None:
        self.plan = plan
        self.sums = np.zeros((plan.n_volumes, plan.partition.n_rows))
        # Products with what the maps alone do not tell apart, by atlas.
        self.extras = {
            number: (solver.extra, np.zeros((plan.n_volumes, solver.extra.shape[0])))
            for number, solver in enumerate(solvers)
            if solver is not None and solver.extra is not None
        }
        self.others: dict[str, list[FloatArray | None]] = {}
        self.moments: VolumeMoments | PointMoments | None = None

    def finish(
        self, usable: BoolArray, statistics: set[str], solvers: Solvers
    ) -> Signals:
        """Return statistics; regions without a usable voxel are NaN.

        With the mean come the measures of voxels: what spoils one spoils the others.
        """
        partition = self.plan.partition
        signals: Signals = {}
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
                    values = finish_sums(name, self.sums[:, rows], weights, usable)
                # A sum over nothing is 0, and 0 is a signal: what has no voxel says so
                # itself.
                if values is not None:
                    values[:, n_used == 0] = np.nan
                per_atlas.append(values)
            signals[name] = tuple(per_atlas)
        if self.moments is not None and "mean" in statistics:
            signals |= self.moments.finish(usable, self.plan.measures)
        return signals


class _VolumePass(_Pass):
    """One reading by volumes over a fixed set of voxels."""

    def __init__(
        self,
        plan: Plan,
        kept: BoolArray,
        statistics: set[str],
        valid: BoolArray | None = None,
        solvers: Solvers = (),
    ) -> None:
        super().__init__(plan, solvers)
        others = statistics & _SORTED
        self.sorted = _sort_regions(plan.partition, kept, others)
        self.others = _make_room(self.sorted, others, plan.n_volumes)
        if plan.measures and "mean" in statistics:
            self.moments = VolumeMoments(plan.partition, plan.steady)
        voxels = bool(others) or self.moments is not None
        self.source, self.singles = choose_sources(plan, kept, valid, voxels=voxels)

    def add(self, start: int, taken: NDArray[Any]) -> None:
        """Reduce what was taken of a block, (t, N)."""
        stop = start + taken.shape[0]
        source = self.source
        held = []  # for what is no sum: none where only sums are asked for
        for t, stored in enumerate(taken, start):
            volume = source.load(stored)
            self.sums[t] = source.project(volume)
            if self.singles is not None:
                volume = self.singles.load(stored)
            if isinstance(self.moments, VolumeMoments):
                self.moments.add(t, volume, self.sums[t])
            for rows, products in self.extras.values():
                products[t] = rows @ volume
            if self.others:
                held.append(volume)
        if not np.isfinite(self.sums[start:stop]).all():
            raise ValueError(OVERFLOW)
        if held:
            _compute(self.sorted, self.others, slice(start, stop), np.stack(held))


class _PointPass(_Pass):
    """One reading by points: all volumes of each at once."""

    def __init__(self, plan: Plan, solvers: Solvers = ()) -> None:
        super().__init__(plan, solvers)
        self.rows = plan.partition.columns
        self.more = {number: rows.tocsc() for number, (rows, _) in self.extras.items()}
        # (rows, T), as the file has them.
        self.sums = np.zeros(self.sums.shape[::-1])
        self.extras = {n: (rows, x.T.copy()) for n, (rows, x) in self.extras.items()}
        # As float64 a few points at a time, in room that stays in the cache: memory is
        # what this is slow by.
        n_points = max(1, _ROOM_BYTES // (8 * plan.n_volumes))
        self.room = np.empty((n_points, plan.n_volumes))
        if plan.measures:
            self.moments = PointMoments(plan.partition, plan.steady)

    def add(self, at: slice, taken: NDArray[Any], usable: BoolArray) -> None:
        """Add points, (T, m), those of them that are usable."""
        step = len(self.room)
        for low in range(0, usable.size, step):
            some = slice(low, min(usable.size, low + step))
            kept, room = usable[some], self.room[: some.stop - low]
            series = scale_values(taken[:, some].T, self.plan.scaling, out=room)
            if not kept.all():
                series[~kept] = 0.0
            which = slice(at.start + low, at.start + some.stop)
            add_points(self.sums, self.rows, which, series)
            for number, rows in self.more.items():
                add_points(self.extras[number][1], rows, which, series)
            if isinstance(self.moments, PointMoments):
                self.moments.add(which, series)

    def finish(
        self, usable: BoolArray, statistics: set[str], solvers: Solvers
    ) -> Signals:
        """Return statistics, as by volumes."""
        self.sums = self.sums.T
        self.extras = {n: (rows, x.T) for n, (rows, x) in self.extras.items()}
        if not np.isfinite(self.sums).all():
            raise ValueError(OVERFLOW)
        return super().finish(usable, statistics, solvers)


class _Stretches:
    """Statistics of whole regions for a run that is cut by points.

    Regions of a mesh are not together in the file: nearly all of them are incomplete
    until the end, and to hold them all is to hold the run. So the points of the
    partition are held for as many volumes as fit in ``gather_bytes``, as they are
    stored, and each further stretch of volumes takes another pass. In 128 MiB go all
    300 volumes of 91,282 points in float32, or 700 in int16.
    """

    def __init__(self, plan: Plan, names: set[str], gather_bytes: int) -> None:
        self.plan = plan
        self.names = names
        self.gather_bytes = gather_bytes
        self.start = 0
        self.held: NDArray[Any] | None = None
        self.others: dict[str, list[FloatArray | None]] = {}
        self.done = not names

    def add(self, at: slice, taken: NDArray[Any]) -> None:
        """Hold this stretch's volumes of some points, (T, m)."""
        if self.done:
            return
        n, left = self.plan.partition.voxels.size, self.plan.n_volumes - self.start
        if self.held is None:
            fit = self.gather_bytes // max(1, n * taken.dtype.itemsize)
            self.held = np.empty((n, max(1, min(left, fit))), dtype=taken.dtype)
        stop = self.start + min(left, self.held.shape[1])
        self.held[at, : stop - self.start] = taken[self.start : stop].T

    def close(self, usable: BoolArray) -> None:
        """Compute what is held, once all points have passed."""
        if self.done or self.held is None:
            return
        plan, total = self.plan, self.plan.n_volumes
        regions = _sort_regions(plan.partition, usable, self.names)
        self.others = self.others or _make_room(regions, self.names, total)
        stop = min(total, self.start + self.held.shape[1])
        step = max(1, _FLOAT_BYTES // max(1, 8 * usable.size))
        for low in range(self.start, stop, step):
            high = min(stop, low + step)
            some = self.held[:, low - self.start : high - self.start].T
            values = scale_values(some, plan.scaling)
            _compute(regions, self.others, slice(low, high), values)
        self.start, self.done = stop, stop == total

    @property
    def signals(self) -> Signals:
        """All that was computed; NaN for regions without a usable voxel."""
        return {name: tuple(arrays) for name, arrays in self.others.items()}


def _sort_regions(
    partition: Partition, kept: BoolArray, names: set[str]
) -> list[SortedRegions | None]:
    """Regions of the atlases of labels, if there is anything to do for them."""
    return [
        SortedRegions(members, kept) if names and region.hard else None
        for members, region in zip(partition.members, partition.maps, strict=True)
    ]


def _make_room(
    regions: list[SortedRegions | None], names: set[str], n_volumes: int
) -> dict[str, list[FloatArray | None]]:
    return {
        name: [
            None if r is None else np.full((n_volumes, r.n_regions), np.nan)
            for r in regions
        ]
        for name in names
    }


def _compute(
    regions: list[SortedRegions | None],
    others: dict[str, list[FloatArray | None]],
    volumes: slice,
    values: FloatArray,
) -> None:
    """Statistics of whole regions in some volumes, (t, N), into their arrays."""
    for name, arrays in others.items():
        for region, array in zip(regions, arrays, strict=True):
            if region is not None and array is not None:
                array[volumes] = region.compute(name, values)
