"""From sums and products to signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

__all__ = [
    "CANCELLED",
    "LINEAR",
    "SUMS",
    "finish_sums",
    "scale_values",
    "weights_cancel",
]

# Statistics of labels and of maps that constant zeros leave as they are, once the
# count, or the voxels that the maps are solved over, are right.
SUMS = frozenset({"mean", "sum"})
LINEAR = frozenset({"least_squares", "weighted_mean"})

# Sum of a map's weights over that of their absolute values, up to which they cancel.
CANCELLED = 0.01


def scale_values(
    stored: NDArray[Any], scaling: tuple[float, float]
) -> NDArray[np.float64]:
    """Stored values to float64 values.

    Parameters
    ----------
    stored : any shape
    scaling
        Slope and intercept.
    """
    values = stored.astype(np.float64)
    slope, intercept = scaling
    with np.errstate(over="ignore", invalid="ignore"):
        if slope != 1:
            values *= slope
        if intercept != 0:
            values += intercept
    return values


def finish_sums(
    name: str,
    sums: NDArray[np.float64],
    weights: csr_array,
    usable: NDArray[np.bool_],
    n_used: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Turn the products of weights and volumes into a statistic.

    Parameters
    ----------
    name
        ``sum``, ``mean`` or ``weighted_mean``.
    sums : (T, R)
        Volumes times weights, over the usable voxels.
    weights : (R, N) sparse
        Of the atlas.
    usable : (N,)
        Voxels that count.
    n_used : (R,)
        How many of them each region has.

    Returns
    -------
    (T, R)
        NaN for maps whose weights cancel.
    """
    if name == "sum":
        return sums.copy()
    if name == "mean":
        return sums / np.maximum(n_used, 1)
    totals = np.asarray(weights[:, np.flatnonzero(usable)].sum(axis=1)).ravel()
    totals[weights_cancel(weights, usable)] = np.nan
    return np.asarray(sums / totals)


def weights_cancel(weights: csr_array, usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
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
    over = weights[:, np.flatnonzero(usable)]
    total = np.asarray(over.sum(axis=1)).ravel()
    size = np.asarray(abs(over).sum(axis=1)).ravel()
    return np.asarray(np.abs(total) <= CANCELLED * size)
