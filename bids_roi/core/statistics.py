"""Statistics over the voxels of regions, but for the joint fit of maps.

What is made of sums over voxels takes the least time. Other statistics need a region's
voxels side by side, one volume after the other. The eigenvariate needs all volumes at
once: it is finished from sums over voxels, each of which brings its whole series. A run
is read once for as many regions as fit into a bound of memory, and again for the next;
a region that does not fit is passed piece by piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.options.words import find_statistic, hold_names, name_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from bids_roi.core.partition import Partition
    from bids_roi.core.rows import Rows
    from bids_roi.core.volumes import Plan

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


OVERFLOW = "the values are too large: their sums are infinite"
# Sum of a map's weights over that of their absolute values, up to which they cancel.
CANCELLED = 0.01


def scale_values(
    stored: NDArray[Any], scaling: tuple[float, float], out: FloatArray | None = None
) -> FloatArray:
    """Stored values to float64 values.

    Parameters
    ----------
    stored : any shape
    scaling
        Slope and intercept.
    out
        Where the values go, of the same shape; ``None`` for a new array.
    """
    values = np.empty(stored.shape) if out is None else out
    np.copyto(values, stored)
    slope, intercept = scaling
    if (slope, intercept) == (1, 0):
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        if slope != 1:
            values *= slope
        if intercept != 0:
            values += intercept
    return values


def finish_sums(
    name: str, sums: FloatArray, weights: Rows, usable: BoolArray
) -> FloatArray:
    """Turn the products of weights and volumes into a statistic.

    Parameters
    ----------
    name
        Of the family ``sum`` of ``options.words.STATISTICS``.
    sums : (T, R)
        Volumes times weights, over the usable voxels.
    weights : (R, N) sparse
        Of the atlas.
    usable : (N,)
        Voxels that count.

    Returns
    -------
    (T, R)
        NaN for maps whose weights cancel.
    """
    given = dict(find_statistic(name).parameters)
    return _OF_SUMS[name](sums, weights, usable, **given)


def weights_cancel(weights: Rows, usable: BoolArray) -> BoolArray:
    """Tell the maps whose weights add up to less than 1 % of their absolute values.

    Their weighted mean would be a difference of large numbers over a small one: the
    noise of the voxels comes out more than a hundred times larger, and for weights that
    add up to rounding errors nothing else does.

    Parameters
    ----------
    weights : (R, N) sparse
        Of the atlas.
    usable : (N,)
        Voxels that count.

    Returns
    -------
    (R,) bool
        True for maps without weight as well.
    """
    over = weights.whole[:, np.flatnonzero(usable)]
    total = np.asarray(over.sum(axis=1)).ravel()
    size = np.asarray(abs(over).sum(axis=1)).ravel()
    return np.asarray(np.abs(total) <= CANCELLED * size)


def _sum(sums: FloatArray, weights: Rows, usable: BoolArray) -> FloatArray:  # noqa: ARG001
    return sums.copy()


def _mean(sums: FloatArray, weights: Rows, usable: BoolArray) -> FloatArray:
    # How many voxels, or how large they are.
    totals = weights @ usable.astype(np.float64)
    return np.asarray(sums / np.where(totals > 0, totals, 1))


def _weighted_mean(sums: FloatArray, weights: Rows, usable: BoolArray) -> FloatArray:
    over = weights.whole[:, np.flatnonzero(usable)]
    totals = np.asarray(over.sum(axis=1)).ravel()
    totals[weights_cancel(weights, usable)] = np.nan
    return np.asarray(sums / totals)


# Each takes the arguments of ``finish_sums`` and gives (T, R), an array of its own;
# parameters come as keywords, here as below.
_OF_SUMS: dict[str, Callable[..., FloatArray]] = {
    "mean": _mean,
    "sum": _sum,
    "weighted_mean": _weighted_mean,
}


class SortedRegions:
    """The voxels of one atlas, region after region.

    Parameters
    ----------
    members : (R, N) sparse
        Rows of the partition's matrix.
    kept : (N,)
        Voxels to use.
    """

    def __init__(self, members: Rows, kept: BoolArray) -> None:
        inside = kept[members.indices]
        before = np.concatenate([[0], np.cumsum(inside, dtype=np.intp)])
        bounds = before[members.indptr]
        sizes = np.diff(bounds)
        self.n_regions = sizes.size
        self.present = np.flatnonzero(sizes)
        self.order = members.indices[inside]
        self.starts = bounds[:-1][self.present]
        self.sizes = sizes[self.present]

    def compute(self, name: str, values: FloatArray) -> FloatArray:
        """Compute one statistic of a block.

        Parameters
        ----------
        name
            Of the family ``sorted`` of ``options.words.STATISTICS``.
        values : (t, N)
            In the order of the partition.

        Returns
        -------
        (t, R)
            NaN for regions without a voxel.
        """
        result = np.full((values.shape[0], self.n_regions), np.nan)
        if self.present.size:
            sorted_values = values.take(self.order, axis=1)
            given = dict(find_statistic(name).parameters)
            result[:, self.present] = _OF_SORTED[name](sorted_values, self, **given)
        return result


def _minimum(values: FloatArray, regions: SortedRegions) -> FloatArray:
    return np.minimum.reduceat(values, regions.starts, axis=1)


def _maximum(values: FloatArray, regions: SortedRegions) -> FloatArray:
    return np.maximum.reduceat(values, regions.starts, axis=1)


def _variance(values: FloatArray, regions: SortedRegions) -> FloatArray:
    # Squares about the region's own mean: no two large numbers are subtracted.
    means = np.add.reduceat(values, regions.starts, axis=1) / regions.sizes
    values = values - np.repeat(means, regions.sizes, axis=1)
    squares = np.add.reduceat(values * values, regions.starts, axis=1)
    return np.asarray(squares / regions.sizes)


def _standard_deviation(values: FloatArray, regions: SortedRegions) -> FloatArray:
    return np.sqrt(_variance(values, regions))


def _median(values: FloatArray, regions: SortedRegions) -> FloatArray:
    pieces = np.split(values, regions.starts[1:], axis=1)
    return np.stack([np.median(piece, axis=1) for piece in pieces], axis=1)


def _trimmed_mean(
    values: FloatArray, regions: SortedRegions, share: float
) -> FloatArray:
    means = []
    for piece in np.split(values, regions.starts[1:], axis=1):
        n = piece.shape[1]
        cut = int(share * n)  # of whole voxels, as scipy.stats.trim_mean
        means.append(np.sort(piece, axis=1)[:, cut : n - cut].mean(axis=1))
    return np.stack(means, axis=1)


# Each takes values (t, n) of the regions that have any, region after region, and gives
# (t, n_present).
_OF_SORTED: dict[str, Callable[..., FloatArray]] = {
    "median": _median,
    "minimum": _minimum,
    "maximum": _maximum,
    "standard_deviation": _standard_deviation,
    "variance": _variance,
    **dict.fromkeys(
        [name for name in name_statistics() if name.startswith("trimmed_mean_")],
        _trimmed_mean,
    ),
}


# Voxels that are added at a time; sums never depend on how many were held.
_PIECE = 256


class RegionSums:
    """Sums over the voxels of one region, added piece by piece.

    Parameters
    ----------
    n_voxels
        Usable voxels of the region.
    steady : (T,)
        Volumes over which voxels are centred, and which decide their weights.
    """

    def __init__(self, n_voxels: int, steady: BoolArray) -> None:
        n_volumes, self.steady = steady.size, steady
        self.n = 0
        self.total = np.zeros(n_volumes)  # of the centred voxels
        # Of voxels x volumes, the smaller of the two products is decomposed.
        few = n_voxels <= steady.sum()
        self.rows: list[FloatArray] | None = [] if few else None
        self.gram = None if few else np.zeros((n_volumes,) * 2)

    def add(self, series: FloatArray) -> None:
        """Add some voxels, (k, T); those without change while it is steady are not."""
        part = series[:, self.steady]
        if part.shape[1] == 0:
            return
        centred = series - part.mean(axis=1)[:, None]
        centred = centred[part.max(axis=1) > part.min(axis=1)]
        self.n += len(centred)
        self.total += centred.sum(axis=0)
        if self.rows is not None:
            self.rows.append(centred)
        if self.gram is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                self.gram += centred.T @ centred


def _eigenvariate(region: RegionSums) -> FloatArray:
    """First eigenvariate, (T,), in SPM's scale and sign.

    With voxels Y (T, n), each centred over the steady volumes, and v the first right
    singular vector of their steady rows, it is Y v / sqrt(n), turned so that v adds up
    to more than 0. Of all volumes this is ``u * sqrt(s(1) / n)`` of spm_regions.m
    (SPM12; Friston et al. 2006, doi:10.1016/j.neuroimage.2005.08.012).
    """
    steady = region.steady
    if region.rows is not None:
        voxels = np.concatenate(region.rows)
        part = voxels[:, steady]
        with np.errstate(over="ignore", invalid="ignore"):
            gram = part @ part.T
        _, vector = _find_largest(gram)
        series = vector @ voxels
    else:
        assert region.gram is not None  # noqa: S101 - one of the two is there
        root, vector = _find_largest(region.gram[np.ix_(steady, steady)])
        series = region.gram[:, steady] @ vector / np.sqrt(root)
    # The sum of v has the sign of this product: it is s(1) times that sum.
    sign = -1.0 if series[steady] @ region.total[steady] < 0 else 1.0
    return np.asarray(sign * series / np.sqrt(region.n))


def _find_largest(gram: FloatArray) -> tuple[float, FloatArray]:
    """Largest eigenvalue of a symmetric matrix, and its vector."""
    from scipy import linalg

    if not np.isfinite(gram).all():
        raise ValueError(OVERFLOW)
    last = len(gram) - 1
    values, vectors = linalg.eigh(gram, subset_by_index=[last, last])
    return float(values[0]), vectors[:, 0]


_OF_SERIES: dict[str, Callable[[RegionSums], FloatArray]] = {
    "eigenvariate": _eigenvariate
}
hold_names(_OF_SUMS, name_statistics(family="sum"), "core/statistics.py")
hold_names(_OF_SORTED, name_statistics(family="sorted"), "core/statistics.py")
hold_names(_OF_SERIES, name_statistics(family="series"), "core/statistics.py")


@dataclass(frozen=True, slots=True)
class _Part:
    """Voxels of a region: all of them, or a piece of one that is too large."""

    atlas: int
    row: int
    positions: NDArray[np.intp]
    is_last: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """Regions that are held at the same time, and all their voxels, ascending."""

    voxels: NDArray[np.intp]
    parts: tuple[_Part, ...]


def group_regions(
    partition: Partition, in_mask: BoolArray, n_voxels: int
) -> list[Group]:
    """Put the regions of all atlases of labels into groups.

    Parameters
    ----------
    partition
        Of the run's frame.
    in_mask : (N,)
        Voxels of it that may count.
    n_voxels
        Most that a group may hold; rounded down to whole pieces, one at least.
    """
    most = max(1, n_voxels // _PIECE) * _PIECE
    found = []
    for atlas, (region, members) in enumerate(
        zip(partition.maps, partition.members, strict=True)
    ):
        for row, (low, high) in enumerate(pairwise(members.indptr.tolist())):
            own = members.indices[low:high]
            positions = np.sort(own[in_mask[own]]).astype(np.intp)
            if region.hard and positions.size:
                found.append(_Part(atlas, row, positions))
    # By place, so that regions of several atlases that share voxels share a group.
    found.sort(key=lambda part: part.positions[part.positions.size // 2])
    groups: list[Group] = []
    held = np.zeros(in_mask.size, dtype=bool)
    parts: list[_Part] = []
    for part in found:
        n, positions = part.positions.size, part.positions
        if n > most:
            for low in range(0, n, most):
                some, is_last = positions[low : low + most], low + most >= n
                piece = _Part(part.atlas, part.row, some, is_last)
                groups.append(Group(some, (piece,)))
            continue
        if parts and held.sum() + np.count_nonzero(~held[positions]) > most:
            groups.append(Group(np.flatnonzero(held), tuple(parts)))
            held, parts = np.zeros(in_mask.size, dtype=bool), []
        held[positions] = True
        parts.append(part)
    if parts:
        groups.append(Group(np.flatnonzero(held), tuple(parts)))
    return groups


class WholeSeries:
    """Statistics of regions over all volumes, group after group.

    Parameters
    ----------
    plan
        Of the run.
    in_mask : (N,)
        Voxels that may count.
    statistics
        Of the family ``series``.
    n_bytes
        Most that may be held; beside it a matrix of volumes x volumes.
    """

    def __init__(
        self, plan: Plan, in_mask: BoolArray, statistics: Collection[str], n_bytes: int
    ) -> None:
        n, atlases = plan.n_volumes, plan.partition.maps
        self.plan, self.in_mask, self.n_bytes = plan, in_mask, n_bytes
        self.signals = {
            name: tuple(
                np.full((n, a.n_regions), np.nan) if a.hard else None for a in atlases
            )
            for name in statistics
        }
        self.groups: list[Group] | None = None if statistics else []
        self.held: NDArray[Any] = np.empty(0)
        self.open: RegionSums | None = None  # of a region that did not fit
        # What is smoothed comes as values, all else as it is stored.
        self.scaling = plan.scaling if plan.smoothing is None else (1.0, 0.0)

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self.groups is not None and not self.groups

    def add(self, volumes: slice, at: slice, taken: NDArray[Any]) -> None:
        """Hold what belongs to the group in hand of some voxels, (t, m)."""
        if self.done:
            return
        if self.groups is None:
            n = self.n_bytes // max(1, self.plan.n_volumes * taken.dtype.itemsize)
            self.groups = group_regions(self.plan.partition, self.in_mask, n)
            if not self.groups:
                return
        voxels = self.groups[0].voxels
        if not self.held.size:
            self.held = np.empty((voxels.size, self.plan.n_volumes), taken.dtype)
        low, high = np.searchsorted(voxels, [at.start, at.stop]).tolist()
        self.held[low:high, volumes] = taken[:, voxels[low:high] - at.start].T

    def close(self, usable: BoolArray) -> None:
        """Compute the group in hand, once all blocks have passed."""
        if self.done or not self.groups:
            return
        group = self.groups.pop(0)
        for part in group.parts:
            region = self.open or self._begin(part, usable)
            for low in range(0, part.positions.size, _PIECE):
                some = part.positions[low : low + _PIECE]
                some = some[usable[some]]
                stored = self.held[np.searchsorted(group.voxels, some)]
                region.add(scale_values(stored, self.scaling))
            self.open = None if part.is_last else region
            if part.is_last and region.n:
                self._finish(part, region)
        self.held = np.empty(0)

    def _begin(self, part: _Part, usable: BoolArray) -> RegionSums:
        members = self.plan.partition.members[part.atlas]
        low, high = members.indptr[part.row : part.row + 2]
        n_voxels = int(usable[members.indices[low:high]].sum())
        return RegionSums(n_voxels, self.plan.steady)

    def _finish(self, part: _Part, region: RegionSums) -> None:
        for name, arrays in self.signals.items():
            if (array := arrays[part.atlas]) is not None:
                array[:, part.row] = _OF_SERIES[name](region)
