"""One matrix over several runs, of sums over each: no run is put behind another.

Each run is standardised over its own kept volumes first, so that neither its level nor
its scale comes into the correlations; their products are added up over the runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bids_roi.core.relmat import (
    correlate_products,
    has_variation,
    partial_of_precision,
    shrink_moments,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from bids_roi.options.words import Estimator

    FloatArray = NDArray[np.float64]
    # Of each time that it is called, the runs one after the other: (T, R) kept volumes.
    Runs = Callable[[], Iterable[FloatArray]]


# Those that are sums over volumes. Ranks within runs have no common scale, and a
# covariance has units, which standardising takes away.
POOLED = ("pearson", "partial")


class Pool(NamedTuple):
    """What runs add up to.

    Attributes
    ----------
    relmat : (R, R)
        NaN for regions that any run has no data or no variation of.
    n_volumes
        Kept volumes of each run.
    n_lost, n_usable
        Regions without data in some run, and with variation in all.
    """

    relmat: FloatArray
    n_volumes: tuple[int, ...]
    n_lost: int
    n_usable: int


def pool_runs(measure: str, runs: Runs, *, estimator: Estimator) -> Pool:
    """Matrix of a measure over the volumes of all runs, each run standardised.

    Parameters
    ----------
    measure
        One of ``POOLED``.
    runs
        Yields (T, R) kept volumes of one run after the other, in float64; NaN columns
        for lost regions. It is called a second time for shrunk partial correlations.
    estimator
        Of the precision matrix, as in ``relmat.partial_correlation``.

    Returns
    -------
    Pool
        Its matrix is that of the z-scores (ddof 1) of all runs behind one another, but
        for rounding; memory is that of one run.

    Notes
    -----
    With z-scores Z_i of T_i volumes, Z_i'Z_i is (T_i - 1) times the correlations of run
    i, so that r = sum_i (T_i - 1) r_i / sum_i (T_i - 1): the mean of the runs'
    correlations, weighted by degrees of freedom. (XCP-D 26 joins z-scored runs;
    Mehta et al. 2024, doi:10.1162/imag_a_00257.)
    """
    products: FloatArray | None = None
    whole: NDArray[np.bool_] | None = None
    usable: NDArray[np.bool_] | None = None
    counts: list[int] = []
    for signals in runs():
        finite = np.asarray(np.isfinite(signals).all(axis=0))
        varies = has_variation(signals)
        scores = _standardise(signals, varies)
        own = scores.T @ scores
        counts.append(signals.shape[0])
        if products is None or whole is None or usable is None:
            products, whole, usable = own, finite, varies
        else:
            products += own
            whole &= finite
            usable &= varies
    if products is None or whole is None or usable is None:
        msg = "there is no run to pool"
        raise ValueError(msg)
    at = np.flatnonzero(usable)
    relmat = np.full(products.shape, np.nan)
    if at.size:
        within = np.ix_(at, at)
        # The diagonal is the sum of T_i - 1 but for rounding.
        found = correlate_products(products[within])
        if measure == "partial":
            precision = (
                np.linalg.pinv(found, hermitian=True)
                if estimator == "pseudo_inverse"
                else np.linalg.inv(_shrink(found, counts, runs, usable))
            )
            found = partial_of_precision(precision)
        relmat[within] = found
    return Pool(relmat, tuple(counts), int((~whole).sum()), at.size)


def _standardise(signals: FloatArray, varies: NDArray[np.bool_]) -> FloatArray:
    """z-scores (ddof 1); 0 for regions that do not vary."""
    centred = np.where(varies, signals - signals.mean(axis=0), 0.0)
    # Scaled first: the squares of very small or large values leave the range.
    peak = np.abs(centred).max(axis=0, initial=0.0)
    centred /= np.where(peak > 0, peak, 1.0)
    length = np.sqrt((centred**2).sum(axis=0))
    centred *= np.sqrt(max(len(signals) - 1, 0)) / np.where(length > 0, length, 1.0)
    return centred


def _shrink(
    correlations: FloatArray, counts: list[int], runs: Runs, usable: NDArray[np.bool_]
) -> FloatArray:
    """Ledoit and Wolf's covariance of all volumes, brought to unit variance."""
    # Over all volumes the variance of z-scores is the same in every region.
    variance = sum(n - 1 for n in counts) / sum(counts)
    fourth = 0.0
    for signals in runs():
        own = signals[:, usable]
        scores = _standardise(own, np.ones(own.shape[1], dtype=bool))
        fourth += float((((scores**2).sum(axis=1) / variance) ** 2).sum())
    return shrink_moments(correlations, fourth, sum(counts))[0]
