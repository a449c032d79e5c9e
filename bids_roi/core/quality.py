"""What became of each region of a run: status, coverage, tSNR, homogeneity.

Measures of single voxels (tSNR, homogeneity) are finished from moments of each, its
product with the regional sum among them: a correlation does not ask how many voxels the
sum is of, and the sum of a volume is known as soon as the volume is. Cut by points,
where it is known at the end, the series of voxels, brought to length 1, are added up
instead: the mean of correlations with one signal is the product of that signal with the
mean of what was correlated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.rows import add_points
from bids_roi.core.statistics import OVERFLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from bids_roi.core.partition import Partition

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]
    Measured = dict[str, tuple[FloatArray | None, ...]]


# In the order in which they are asked: the first that applies is the status.
STATUS = {
    "overlapped": (
        "Every voxel or vertex belongs to an earlier atlas of the combination."
    ),
    "absent_from_atlas": "The atlas image does not hold the region its table names.",
    "outside_data": (
        "The run has no data where the region lies (grayordinates), or the region is in"
        " another layout of the atlas."
    ),
    "lost_in_resampling": "No voxel of the BOLD grid has its centre in the region.",
    "outside_mask": "All its voxels are outside the brain mask.",
    "all_nonfinite": "Every voxel holds a NaN or infinity in some volume.",
    "constant": "No voxel changes over time.",
    "outside_field_of_view": "Every voxel that changes is exactly 0 in some volumes.",
    "below_coverage": "A smaller share than MinimumCoverage can be used.",
    "weights_cancel": (
        "The weights of the map add up to less than 1 % of their absolute values: it"
        " has no weighted mean."
    ),
    "ok": "The column holds numbers.",
}


@dataclass(frozen=True, slots=True)
class RegionQuality:
    """One value per region of one run and atlas, all (R,).

    Attributes
    ----------
    n_voxels_atlas
        Voxels on the atlas's own grid.
    n_voxels_grid
        Voxels on the BOLD grid.
    n_voxels_mask
        Those of them inside the mask.
    n_voxels_dropout
        Those of them that are outside the field of view in some volumes.
    n_voxels_used
        Those inside the mask that are finite and in the field of view in every volume,
        and not constant.
    coverage
        0 to 1; share of the atlas voxels whose centre lies in a usable BOLD voxel.
    coverage_grid
        0 to 1; ``n_voxels_used`` over ``n_voxels_grid``.
    status
        A key of ``STATUS``.
    """

    n_voxels_atlas: NDArray[np.int64]
    n_voxels_grid: NDArray[np.int64]
    n_voxels_mask: NDArray[np.int64]
    n_voxels_dropout: NDArray[np.int64]
    n_voxels_used: NDArray[np.int64]
    coverage: FloatArray
    coverage_grid: FloatArray
    status: tuple[str, ...]

    @property
    def usable(self) -> BoolArray:
        """Whether the region's column holds numbers, (R,)."""
        return np.array([word == "ok" for word in self.status], dtype=bool)

    @property
    def has_voxels(self) -> BoolArray:
        """Whether enough of the region can be used, for some statistic, (R,)."""
        words = ("ok", "weights_cancel")
        return np.array([word in words for word in self.status], dtype=bool)


def assess_regions(
    *,
    n_voxels_atlas: NDArray[np.int64],
    n_voxels_grid: NDArray[np.int64],
    n_voxels_mask: NDArray[np.int64],
    n_voxels_finite: NDArray[np.int64],
    n_voxels_dropout: NDArray[np.int64],
    n_voxels_used: NDArray[np.int64],
    coverage: FloatArray,
    min_coverage: float,
    weights_cancel: BoolArray | None = None,
    resampled: bool = True,
    elsewhere: BoolArray | None = None,
    overlapped: FloatArray | None = None,
) -> RegionQuality:
    """Give each region its status.

    Parameters
    ----------
    n_voxels_atlas, n_voxels_grid, n_voxels_mask, n_voxels_finite, n_voxels_used : (R,)
        Voxels left after each step.
    n_voxels_dropout : (R,)
        Voxels that the last step took away because of the field of view.
    coverage : (R,)
        0 to 1.
    min_coverage
        0 to 1; regions strictly below it are lost.
    weights_cancel : (R,) or None
        Maps that have no weighted mean, where that is what is asked for.
    resampled
        Whether a region can be lost between the voxels of two grids.
    elsewhere : (R,) or None
        Regions that another layout of the atlas holds, and this one does not.
    overlapped : (R,) or None
        Share of each region that other atlases took, 0 to 1, NaN for none.
    """
    no = np.zeros_like(coverage, dtype=bool)
    conditions = [
        no if overlapped is None else overlapped == 1,
        n_voxels_atlas == 0,
        (n_voxels_grid == 0) & (not resampled),
        n_voxels_grid == 0,
        n_voxels_mask == 0,
        n_voxels_finite == 0,
        n_voxels_used + n_voxels_dropout == 0,
        n_voxels_used == 0,
        coverage < min_coverage,
        no if weights_cancel is None else weights_cancel,
    ]
    words = np.select(conditions, list(STATUS)[:-1], default="ok")
    if elsewhere is not None:
        words[elsewhere & (words == "absent_from_atlas")] = "outside_data"
    return RegionQuality(
        n_voxels_atlas=n_voxels_atlas,
        n_voxels_grid=n_voxels_grid,
        n_voxels_mask=n_voxels_mask,
        n_voxels_dropout=n_voxels_dropout,
        n_voxels_used=n_voxels_used,
        coverage=coverage,
        coverage_grid=n_voxels_used / np.maximum(n_voxels_grid, 1),
        status=tuple(words.tolist()),
    )


def temporal_snr(mean: FloatArray, deviation: FloatArray) -> FloatArray:
    """Temporal signal-to-noise ratio: mean over time by standard deviation over time.

    Parameters
    ----------
    mean, deviation : (R,)
        Of the regional signals over time; the deviation with ddof 1.

    Returns
    -------
    (R,)
        NaN where the deviation is 0.

    References
    ----------
    Murphy, Bodurka & Bandettini (2007), doi:10.1016/j.neuroimage.2006.09.032.
    """
    return np.asarray(mean / np.where(deviation == 0, np.nan, deviation))


# Share of the voxels' own size below which what they have in common is rounding errors.
_NOTHING = 1e-12


class VolumeMoments:
    """Moments of voxels, and of them with the sums of their regions, by volumes.

    Parameters
    ----------
    partition
        Of the run's frame.
    steady : (T,)
        Volumes that count.
    """

    def __init__(self, partition: Partition, steady: BoolArray) -> None:
        self.partition, self.steady, self.n = partition, steady, 0
        n = partition.voxels.size
        self.linear, self.square = np.zeros(n), np.zeros(n)
        self.sums, self.sum_squares = np.zeros((2, partition.n_rows))
        # By atlas of labels: of which row each of its entries is, and their products.
        self.rows = {
            atlas: rows.start + np.repeat(np.arange(m.shape[0]), np.diff(m.indptr))
            for atlas, (rows, m) in enumerate(
                zip(partition.rows, partition.members, strict=True)
            )
            if partition.maps[atlas].hard
        }
        self.products = {atlas: np.zeros(r.size) for atlas, r in self.rows.items()}

    def add(self, t: int, volume: FloatArray, sums: FloatArray) -> None:
        """Add volume t, (N,), with its sums over the regions, (sum of R,)."""
        if not self.steady[t]:
            return
        if self.n == 0:
            self.base, self.base_sums = volume.copy(), sums.copy()
        self.n += 1
        # From the first volume on, so that no two large numbers are subtracted.
        change, sums = volume - self.base, sums - self.base_sums
        self.linear += change
        self.sums += sums
        with np.errstate(over="ignore", invalid="ignore"):
            for atlas, rows in self.rows.items():
                indices = self.partition.members[atlas].indices
                self.products[atlas] += change.take(indices) * sums.take(rows)
            change *= change
            self.square += change
            self.sum_squares += sums * sums

    def finish(self, usable: BoolArray, names: Collection[str]) -> Measured:
        """Return measures, (R,) per atlas; NaN for regions without a voxel."""
        if not np.isfinite(self.square[usable]).all():
            raise ValueError(OVERFLOW)
        n = max(1, self.n)
        with np.errstate(invalid="ignore"):
            lengths = np.sqrt(np.maximum(self.square - self.linear**2 / n, 0))
            sizes = np.sqrt(np.maximum(self.sum_squares - self.sums**2 / n, 0))
        means = self.base + self.linear / n if self.n else self.linear
        changing = usable & (self.square > 0) & (lengths > 0)

        def share(atlas: int, kept: BoolArray, rows: NDArray[np.intp]) -> FloatArray:
            at = self.partition.members[atlas].indices[kept]
            sums = self.sums[self.partition.rows[atlas]][rows]
            shared = self.products[atlas][kept] - self.linear[at] * sums / n
            return np.asarray(shared / lengths[at])

        return _measure(
            self.partition, changing, means, lengths, sizes, n, share, names
        )


class PointMoments:
    """The same by points, which bring all volumes at once."""

    def __init__(self, partition: Partition, steady: BoolArray) -> None:
        self.partition, self.steady = partition, steady
        n, n_steady = partition.voxels.size, int(steady.sum())
        self.totals, self.units = np.zeros((2, partition.n_rows, n_steady))
        self.means, self.lengths = np.zeros((2, n))

    def add(self, at: slice, series: FloatArray) -> None:
        """Add points, (m, T); 0 throughout for those that cannot be used."""
        part = np.ascontiguousarray(series[:, self.steady])
        if part.shape[1] < 2:
            return
        self.means[at] = part.mean(axis=1)
        changing = part.max(axis=1) > part.min(axis=1)
        part -= self.means[at][:, None]
        part[~changing] = 0.0
        with np.errstate(over="ignore"):
            self.lengths[at] = np.linalg.norm(part, axis=1)
        columns = self.partition.columns
        add_points(self.totals, columns, at, part)
        part /= np.where(self.lengths[at] > 0, self.lengths[at], 1)[:, None]
        add_points(self.units, columns, at, part)

    def finish(self, usable: BoolArray, names: Collection[str]) -> Measured:
        """Return measures, as by volumes."""
        if not np.isfinite(self.lengths).all():
            raise ValueError(OVERFLOW)
        changing = usable & (self.lengths > 0)
        sizes = np.linalg.norm(self.totals, axis=1)
        alike = np.einsum("ij,ij->i", self.units, self.totals)

        def share(atlas: int, _: BoolArray, rows: NDArray[np.intp]) -> FloatArray:
            own = alike[self.partition.rows[atlas]]
            each = np.maximum(np.bincount(rows, minlength=own.size), 1)
            return np.asarray((own / each)[rows])

        n, means, lengths = int(self.steady.sum()), self.means, self.lengths
        return _measure(
            self.partition, changing, means, lengths, sizes, n, share, names
        )


def _measure(
    partition: Partition,
    changing: BoolArray,
    means: FloatArray,
    lengths: FloatArray,
    sizes: FloatArray,
    n_volumes: int,
    share: Callable[[int, BoolArray, NDArray[np.intp]], FloatArray],
    names: Collection[str],
) -> Measured:
    """Measures of each atlas of labels, from its changing voxels.

    Lengths are roots of sums of squares about the mean, of voxels (N,) and, as sizes,
    of regional sums. ``share`` gives the product of each changing voxel of an atlas
    with its regional sum, by the voxel's length, of the region of each.
    """
    found: list[dict[str, FloatArray] | None] = []
    for atlas, (own, members) in enumerate(
        zip(partition.rows, partition.members, strict=True)
    ):
        if not partition.maps[atlas].hard:
            found.append(None)
            continue
        kept, n_regions = changing[members.indices], members.shape[0]
        at = members.indices[kept]
        rows = np.repeat(np.arange(n_regions), np.diff(members.indptr))[kept]
        add_up = partial(np.bincount, rows, minlength=n_regions)
        n = add_up().astype(np.float64)
        n[n == 0] = np.nan
        # Voxels that cancel have no signal that one of them could be like.
        there = sizes[own] > _NOTHING * add_up(lengths[at])
        shared = add_up(share(atlas, kept, rows))
        alike = shared / np.where(there, sizes[own], np.nan) / n
        ratios = add_up(means[at] / lengths[at])
        found.append(
            {
                "voxel_tsnr": ratios * np.sqrt(n_volumes - 1) / n,
                "homogeneity": np.clip(alike, -1.0, 1.0),  # by rounding it is above 1
            }
        )
    return {
        name: tuple(None if each is None else each[name] for each in found)
        for name in names
    }
