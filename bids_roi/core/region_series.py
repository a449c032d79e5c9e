"""What needs all volumes of a region's voxels: eigenvariate, voxel tSNR, homogeneity.

All are finished from sums over voxels, each of which brings its whole series. A run is
read once for as many regions as fit into a bound of memory, and again for the next; a
region that does not fit is passed piece by piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.signals import scale_values
from bids_roi.options.words import REGION_MEASURES, hold_names, name_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from bids_roi.core.partition import Partition
    from bids_roi.core.volumes import Plan

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


OVERFLOW = "the values are too large: their sums are infinite"
# Voxels that are added at a time; sums never depend on how many were held.
_PIECE = 256
# Share of the voxels' own size below which what they have in common is rounding errors.
_NOTHING = 1e-12


class RegionSums:
    """Sums over the voxels of one region, added piece by piece.

    Parameters
    ----------
    n_voxels
        Usable voxels of the region.
    steady : (T,)
        Volumes over which voxels are centred, and everything but the rows of the
        eigenvariate is computed.
    with_gram
        Whether the eigenvariate will be asked for.
    """

    def __init__(self, n_voxels: int, steady: BoolArray, *, with_gram: bool) -> None:
        n_volumes, self.steady = steady.size, steady
        self.n = 0
        self.total = np.zeros(n_volumes)  # of the centred voxels
        self.size = 0.0  # of their lengths over the steady volumes
        self.units = np.zeros(int(steady.sum()))  # of the voxels brought to length 1
        self.ratios = 0.0  # of their means by their lengths
        # Of voxels x volumes, the smaller of the two products is decomposed.
        few = n_voxels <= self.units.size
        self.rows: list[FloatArray] | None = [] if with_gram and few else None
        self.gram = np.zeros((n_volumes,) * 2) if with_gram and not few else None

    def add(self, series: FloatArray) -> None:
        """Add some voxels, (k, T); those without change while it is steady are not."""
        part = series[:, self.steady]
        if part.shape[1] == 0:
            return
        means = part.mean(axis=1)
        centred = series - means[:, None]
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(centred[:, self.steady], axis=1)
        if not np.isfinite(lengths).all():
            raise ValueError(OVERFLOW)
        changing = (part.max(axis=1) > part.min(axis=1)) & (lengths > 0)
        means, lengths, centred = means[changing], lengths[changing], centred[changing]
        part = centred[:, self.steady]
        self.n += lengths.size
        self.total += centred.sum(axis=0)
        self.size += float(lengths.sum())
        self.units += (part / lengths[:, None]).sum(axis=0)
        self.ratios += float((means / lengths).sum())
        if self.rows is not None:
            self.rows.append(centred)
        if self.gram is not None:
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
        _, vector = _find_largest(part @ part.T)
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

    last = len(gram) - 1
    values, vectors = linalg.eigh(gram, subset_by_index=[last, last])
    return float(values[0]), vectors[:, 0]


def _voxel_tsnr(region: RegionSums) -> float:
    """Mean over voxels of mean over time by standard deviation over time (ddof 1)."""
    return region.ratios * float(np.sqrt(region.units.size - 1)) / region.n


def _homogeneity(region: RegionSums) -> float:
    """Mean over voxels of the correlation with the mean of all, themselves included.

    The correlation of a voxel with the regional signal is the product of both, brought
    to length 1: its mean is that of the mean of all voxels of length 1.
    """
    total = region.total[region.steady]
    length = float(np.sqrt(total @ total))
    if length <= _NOTHING * region.size:  # voxels that cancel: there is no signal
        return np.nan
    return float(region.units @ total) / (length * region.n)


_STATISTICS: dict[str, Callable[[RegionSums], FloatArray]] = {
    "eigenvariate": _eigenvariate,
}
_MEASURES: dict[str, Callable[[RegionSums], float]] = {
    "voxel_tsnr": _voxel_tsnr,
    "homogeneity": _homogeneity,
}
hold_names(_STATISTICS, name_statistics(family="series"), "core/region_series.py")
hold_names(_MEASURES, REGION_MEASURES, "core/region_series.py")


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
    """Statistics and measures of regions over all volumes, group after group.

    Parameters
    ----------
    plan
        Of the run.
    in_mask : (N,)
        Voxels that may count.
    statistics, measures
        Of the family ``series``, and of ``REGION_MEASURES``.
    steady : (T,) or None
        Volumes that they are over; ``None`` for all.
    n_bytes
        Most that may be held; beside it a matrix of volumes x volumes.
    """

    def __init__(
        self,
        plan: Plan,
        in_mask: BoolArray,
        statistics: Collection[str],
        measures: Collection[str],
        steady: BoolArray | None,
        n_bytes: int,
    ) -> None:
        n, atlases = plan.n_volumes, plan.partition.maps
        self.plan, self.in_mask, self.n_bytes = plan, in_mask, n_bytes
        self.steady = np.ones(n, dtype=bool) if steady is None else steady
        self.signals = {
            name: tuple(
                np.full((n, a.n_regions), np.nan) if a.hard else None for a in atlases
            )
            for name in statistics
        }
        self.measures = {
            name: tuple(
                np.full(a.n_regions, np.nan) if a.hard else None for a in atlases
            )
            for name in measures
        }
        self.groups: list[Group] | None = None if statistics or measures else []
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
        return RegionSums(n_voxels, self.steady, with_gram=bool(self.signals))

    def _finish(self, part: _Part, region: RegionSums) -> None:
        for name, arrays in self.signals.items():
            if (array := arrays[part.atlas]) is not None:
                array[:, part.row] = _STATISTICS[name](region)
        for name, numbers in self.measures.items():
            if (values := numbers[part.atlas]) is not None:
                values[part.row] = _MEASURES[name](region)
