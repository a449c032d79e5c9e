"""From sums and products to signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

__all__ = [
    "LINEAR",
    "SUMS",
    "finish_sums",
    "scale_values",
    "solve_least_squares",
    "weighted_mean",
]

# Statistics of labels and of maps that constant zeros leave as they are, once the
# count, or the voxels that the maps are solved over, are right.
SUMS = frozenset({"mean", "sum"})
LINEAR = frozenset({"least_squares", "weighted_mean"})


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
        Of ``SUMS`` or ``LINEAR``.
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
    """
    if name == "sum":
        return sums.copy()
    if name == "mean":
        return sums / np.maximum(n_used, 1)
    over = weights[:, np.flatnonzero(usable)]
    if name == "weighted_mean":
        return weighted_mean(over, sums)
    return solve_least_squares(over, sums)


def solve_least_squares(
    weights: csr_array, products: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Signals that, spread by the maps, come nearest to the data.

    The least-squares solution of ``data = signals @ weights`` over the usable voxels,
    by the normal equations: ``signals = (weights data')' pinv(weights weights')``, as
    in nilearn's NiftiMapsMasker (dual regression's first step; Beckmann et al. 2009,
    doi:10.1016/S1053-8119(09)71511-3).

    Parameters
    ----------
    weights : (R, n) sparse
        Of the usable voxels.
    products : (T, R)
        ``data @ weights.T`` over the same voxels.

    Returns
    -------
    (T, R)
        NaN for maps without weight in any usable voxel; of solutions that fit equally
        well, where maps depend on one another, the smallest.
    """
    from scipy import linalg

    gram = (weights @ weights.T).toarray()
    present = np.diag(gram) > 0
    signals = np.full_like(products, np.nan)
    if present.any():
        kept = gram[np.ix_(present, present)]
        # Scaled to a unit diagonal: the rank must not depend on the maps' sizes.
        scale = 1 / np.sqrt(np.diag(kept))
        inverse = linalg.pinvh(kept * scale * scale[:, None]) * scale * scale[:, None]
        signals[:, present] = products[:, present] @ inverse
    return signals


def weighted_mean(
    weights: csr_array, products: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over the usable voxels, weighted by each map.

    Parameters
    ----------
    weights : (R, n) sparse
        Of the usable voxels.
    products : (T, R)
        ``data @ weights.T`` over the same voxels.

    Returns
    -------
    (T, R)
        NaN for maps whose weights sum to 0.
    """
    totals = np.asarray(weights.sum(axis=1)).ravel()
    totals = np.where(totals == 0, np.nan, totals)
    return np.asarray(products / totals)
