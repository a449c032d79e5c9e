"""From sums and products to signals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.options.words import find_statistic, hold_names, name_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy.sparse import csr_array


# Sum of a map's weights over that of their absolute values, up to which they cancel.
CANCELLED = 0.01


def scale_values(
    stored: NDArray[Any],
    scaling: tuple[float, float],
    out: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
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
    with np.errstate(over="ignore", invalid="ignore"):
        if slope != 1:
            values *= slope
        if intercept != 0:
            values += intercept
    return values


@dataclass(frozen=True, slots=True)
class Products:
    """What a statistic of the family ``sum`` is made from; see ``finish_sums``."""

    sums: NDArray[np.float64]
    weights: csr_array
    usable: NDArray[np.bool_]
    n_used: NDArray[np.int64]


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
        Of the family ``sum`` of ``options.words.STATISTICS``.
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
    given = dict(find_statistic(name).parameters)
    return _FUNCTIONS[name](Products(sums, weights, usable, n_used), **given)


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


def _sum(products: Products) -> NDArray[np.float64]:
    return products.sums.copy()


def _mean(products: Products) -> NDArray[np.float64]:
    return products.sums / np.maximum(products.n_used, 1)


def _weighted_mean(products: Products) -> NDArray[np.float64]:
    weights, usable = products.weights, products.usable
    totals = np.asarray(weights[:, np.flatnonzero(usable)].sum(axis=1)).ravel()
    totals[weights_cancel(weights, usable)] = np.nan
    return np.asarray(products.sums / totals)


# Each gives (T, R), an array of its own; parameters come as keywords.
_FUNCTIONS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "mean": _mean,
    "sum": _sum,
    "weighted_mean": _weighted_mean,
}
hold_names(_FUNCTIONS, name_statistics(family="sum"), "core/signals.py")
