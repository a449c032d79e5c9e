"""From sums and products to signals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.rows import find_product
from bids_roi.options.words import find_statistic, hold_names, name_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy.sparse import csc_array

    from bids_roi.core.rows import Rows


OVERFLOW = "the values are too large: their sums are infinite"
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
    if (slope, intercept) == (1, 0):
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        if slope != 1:
            values *= slope
        if intercept != 0:
            values += intercept
    return values


def add_points(
    sums: NDArray[np.float64],
    columns: csc_array,
    at: slice,
    series: NDArray[np.float64],
) -> None:
    """Add ``columns[:, at] @ series`` to the sums, in place and point after point.

    A point is added to what was before it, so that no bit depends on where a run was
    cut into blocks.

    Parameters
    ----------
    sums : (R, T)
        Contiguous, as the series are.
    columns : (R, N) sparse
        Weight of each point in each sum.
    at
        Which n of the points these are.
    series : (n, T)
        Their values.
    """
    csc_matvecs = find_product("csc_matvecs")
    if csc_matvecs is not None:
        pointers = columns.indptr[at.start : at.stop + 1]
        # scipy's own product begins at zeros and has no other door; by it, the sums
        # pass through memory three times more for each block.
        (n_sums, n_volumes), data = sums.shape, columns.data
        flat, values = sums.reshape(-1), series.reshape(-1)
        indices, n = columns.indices, len(series)
        csc_matvecs(n_sums, n, n_volumes, pointers, indices, data, values, flat)
        return
    from scipy.sparse import csc_array, hstack

    n = len(sums)
    same = csc_array((np.ones(n), np.arange(n), np.arange(n + 1)), shape=(n, n))
    sums[:] = hstack([same, columns[:, at]]).tocsc() @ np.concatenate([sums, series])


@dataclass(frozen=True, slots=True)
class Products:
    """What a statistic of the family ``sum`` is made from; see ``finish_sums``."""

    sums: NDArray[np.float64]
    weights: Rows
    usable: NDArray[np.bool_]
    n_used: NDArray[np.int64]


def finish_sums(
    name: str,
    sums: NDArray[np.float64],
    weights: Rows,
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


def weights_cancel(weights: Rows, usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
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


def _sum(products: Products) -> NDArray[np.float64]:
    return products.sums.copy()


def _mean(products: Products) -> NDArray[np.float64]:
    # How many voxels, or how large they are.
    totals = products.weights @ products.usable.astype(np.float64)
    return np.asarray(products.sums / np.where(totals > 0, totals, 1))


def _weighted_mean(products: Products) -> NDArray[np.float64]:
    weights, usable = products.weights, products.usable
    over = weights.whole[:, np.flatnonzero(usable)]
    totals = np.asarray(over.sum(axis=1)).ravel()
    totals[weights_cancel(weights, usable)] = np.nan
    return np.asarray(products.sums / totals)


# Each gives (T, R), an array of its own; parameters come as keywords.
_FUNCTIONS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "mean": _mean,
    "sum": _sum,
    "weighted_mean": _weighted_mean,
}
hold_names(_FUNCTIONS, name_statistics(family="sum"), "core/signals.py")
