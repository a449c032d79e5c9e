"""Long series and many regions onto a bounded number of pixels, by means or peaks."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["bin_peaks", "bin_rows", "bin_size"]


def bin_size(n: int, most: int) -> int:
    """How many neighbours share a bin, so that at most ``most`` bins are needed.

    >>> bin_size(300, 300), bin_size(301, 300), bin_size(3000, 300)
    (1, 2, 10)
    """
    return max(1, -(-n // most))


def bin_rows(values: NDArray[Any], most: int) -> NDArray[np.float64]:
    """Mean of neighbouring rows, so that at most ``most`` are left.

    Parameters
    ----------
    values : (n, ...)
        NaN does not count; a bin of nothing else is NaN.
    most
        Upper bound of the bins; the last may hold fewer rows than the others.
    """
    return _bin(values, most, np.nanmean)


def bin_peaks(values: NDArray[Any], most: int) -> NDArray[np.float64]:
    """Highest value of neighbouring rows; otherwise as ``bin_rows``."""
    return _bin(values, most, np.nanmax)


def _bin(values: NDArray[Any], most: int, function: Any) -> NDArray[np.float64]:  # noqa: ANN401
    size = bin_size(len(values), most)
    result = np.asarray(values, dtype=np.float64)
    if size == 1:
        return result
    n_bins = -(-len(result) // size)
    padded = np.full((n_bins * size, *result.shape[1:]), np.nan)
    padded[: len(result)] = result
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # bins without a number
        return np.asarray(
            function(padded.reshape(n_bins, size, *result.shape[1:]), axis=1)
        )
