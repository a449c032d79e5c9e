"""Statistics over the voxels of regions that are no sums of voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    FloatArray = NDArray[np.float64]

__all__ = ["SortedRegions"]


class SortedRegions:
    """The voxels of one atlas, region after region.

    Parameters
    ----------
    members : (R, N) sparse
        Rows of the partition's matrix.
    kept : (N,)
        Voxels to use.
    """

    def __init__(self, members: csr_array, kept: NDArray[np.bool_]) -> None:
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
            ``median``, ``minimum``, ``maximum``, ``standard_deviation`` or
            ``variance`` (the last two with ddof 0).
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
            result[:, self.present] = getattr(self, f"_{name}")(sorted_values)
        return result

    def _minimum(self, values: FloatArray) -> FloatArray:
        return np.minimum.reduceat(values, self.starts, axis=1)

    def _maximum(self, values: FloatArray) -> FloatArray:
        return np.maximum.reduceat(values, self.starts, axis=1)

    def _variance(self, values: FloatArray) -> FloatArray:
        # Squares about the region's own mean: no two large numbers are subtracted.
        means = np.add.reduceat(values, self.starts, axis=1) / self.sizes
        values = values - np.repeat(means, self.sizes, axis=1)
        squares = np.add.reduceat(values * values, self.starts, axis=1)
        return np.asarray(squares / self.sizes)

    def _standard_deviation(self, values: FloatArray) -> FloatArray:
        return np.sqrt(self._variance(values))

    def _median(self, values: FloatArray) -> FloatArray:
        pieces = np.split(values, self.starts[1:], axis=1)
        return np.stack([np.median(piece, axis=1) for piece in pieces], axis=1)
