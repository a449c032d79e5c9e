"""Statistics over the voxels of regions that are no sums of voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.options.words import find_statistic, hold_names, name_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bids_roi.core.rows import Rows

    FloatArray = NDArray[np.float64]


class SortedRegions:
    """The voxels of one atlas, region after region.

    Parameters
    ----------
    members : (R, N) sparse
        Rows of the partition's matrix.
    kept : (N,)
        Voxels to use.
    """

    def __init__(self, members: Rows, kept: NDArray[np.bool_]) -> None:
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
            result[:, self.present] = _FUNCTIONS[name](sorted_values, self, **given)
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
# (t, n_present); parameters come as keywords.
_FUNCTIONS: dict[str, Callable[..., FloatArray]] = {
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
hold_names(_FUNCTIONS, name_statistics(family="sorted"), "core/statistics.py")
