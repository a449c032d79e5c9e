"""Variance of each correlation of a matrix where series are autocorrelated: xDF.

The correlation of two series of n independent volumes has the variance (1 - r^2)^2 / n.
Those of a scanner depend on what was before, in themselves and in each other; xDF
reckons with both. Lags are in volumes of the run, across gaps: products are of two
kept volumes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bids_roi.core.freedom import lag_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.options.words import Regularisation

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


# Of a normal distribution, 95 %; the published code has sqrt(2) * 1.3859.
_BOUND = 2**0.5 * 1.3859


class EdgeVariance(NamedTuple):
    """Correlations (R, R), their variances (R, R), and how many volumes they are of."""

    r: FloatArray
    variance: FloatArray
    n_volumes: int

    @property
    def freedom(self) -> FloatArray:
        """As many independent volumes have this variance, (R, R); at most all."""
        return np.asarray((1 - self.r**2) ** 2 / self.variance)

    @property
    def z(self) -> FloatArray:
        """Fisher's z over its standard error, (R, R): standard normal without effect.

        The variance of artanh r is that of r over (1 - r^2)^2 (delta method).
        """
        return np.asarray(np.arctanh(self.r) * np.sqrt(self.freedom))

    @property
    def p(self) -> FloatArray:
        """Of no correlation, two-sided, (R, R)."""
        from scipy.special import erfc

        return np.asarray(erfc(np.abs(self.z) / 2**0.5))


def estimate_variance(
    signals: FloatArray,
    correlations: FloatArray,
    sample_mask: BoolArray,
    regularisation: Regularisation,
) -> EdgeVariance:
    """Variance of Pearson's correlation of each pair of regions.

    Parameters
    ----------
    signals : (n_kept, R)
        Kept volumes, without NaN; every region varies.
    correlations : (R, R)
        Theirs; NaN where there is to be no variance.
    sample_mask : (T,) bool
        Which volumes of the run they are.
    regularisation
        What becomes of correlations at long lags, which are mostly noise. ``truncate``:
        each region's end before the first lag at which they are as small as those of
        white noise are (95 %), those between two regions with the later of the two.
        ``tukey``: a window of sqrt(T) volumes.

    Returns
    -------
    EdgeVariance
        Never below the (1 - r^2)^2 / n of independent volumes; a diagonal of NaN.

    Notes
    -----
    Afyouni, Smith & Nichols (2019), doi:10.1016/j.neuroimage.2019.05.011, equation 1,
    with the weights of their published code (github.com/asoroosh/xDF), in which lag k
    counts T - k - 1 times. With gaps that is the number of pairs of kept volumes, less
    one, and so for lag 0; correlations at a lag are means over its pairs, times the
    share (T - k) / T that they shrink by in a whole run. Without gaps nothing differs.
    """
    volumes = np.flatnonzero(sample_mask)
    mask = sample_mask[volumes[0] : volumes[-1] + 1]  # what lies outside is no gap
    n, span = volumes.size, mask.size
    lags = np.arange(1, span - 1)
    pairs = lag_sums(np.ones((n, 1)), mask)[1 : span - 1, 0].round()
    whole = np.zeros((span, signals.shape[1]))
    whole[mask] = signals - signals.mean(axis=0)
    whole /= np.abs(whole).max(axis=0)  # squares of very large values leave the range
    whole /= np.sqrt((whole**2).sum(axis=0))
    # 1 without gaps: what makes sums over the pairs of a lag those of a whole run.
    filled = np.where(pairs > 0, (span - lags) / np.maximum(pairs, 1), 0.0) * n / span
    own = lag_sums(whole[mask], mask)[1 : span - 1] * filled[:, np.newaxis]
    window = np.ones(lags.size)
    if regularisation == "tukey":
        longest = int(np.round(np.sqrt(span)))
        window = np.where(lags < longest, (1 + np.cos(lags * np.pi / longest)) / 2, 0)
        ends = np.full(own.shape[1], min(longest - 1, lags.size))
    else:
        # A lag of few pairs is as uncertain as one of a whole run of fewer volumes.
        like = np.maximum(pairs * span / (span - lags) - 2, 1e-12)
        small = (np.abs(own) < (_BOUND / np.sqrt(like))[:, np.newaxis]) & (
            pairs[:, np.newaxis] > 0
        )
        ends = np.where(small.any(axis=0), small.argmax(axis=0), lags.size)
    own *= window[:, np.newaxis] * (lags[:, np.newaxis] <= ends)
    # The published code counts each lag once less than it has pairs.
    counts = np.maximum(pairs - 1, 0.0)
    sums = _sum_lags(whole, own, ends=ends, counts=counts, scale=filled * window)
    r, plain = correlations, (1 - correlations**2) ** 2
    variance = (n - 1) * plain + r**2 * sums.squares - 2 * r * sums.mixed
    variance = np.maximum((variance + 2 * sums.products) / n**2, plain / n)
    np.fill_diagonal(variance, np.nan)
    return EdgeVariance(r, variance, n)


class _Sums(NamedTuple):
    """Of each pair of regions over lags, (R, R): terms of the variance."""

    squares: FloatArray
    mixed: FloatArray
    products: FloatArray


def _sum_lags(
    whole: FloatArray,
    own: FloatArray,
    *,
    ends: NDArray[np.int_],
    counts: FloatArray,
    scale: FloatArray,
) -> _Sums:
    """Add up lag by lag, so that no array has regions x regions x lags.

    ``whole`` (T, R) is 0 in gaps; ``own`` (lags, R) and ``scale`` (lags,) are those of
    ``estimate_variance``; a pair of regions is summed up to the later of its ``ends``.
    """
    n_regions = whole.shape[1]
    squares, mixed, products = np.zeros((3, n_regions, n_regions))
    for lag in range(1, int(ends.max(initial=0)) + 1):
        # Rows of regions that go on; a pair of which one has ended is in its row only.
        rows, count, alone = np.flatnonzero(ends >= lag), counts[lag - 1], own[lag - 1]
        if not count:
            continue
        ahead = whole[lag:, rows].T @ whole[:-lag] * scale[lag - 1]
        behind = whole[:-lag, rows].T @ whole[lag:] * scale[lag - 1]
        both, product = ahead + behind, ahead * behind
        products[rows] += count * product
        squares[rows] += count * (both**2 - 2 * product)
        mixed[rows] += count * both * np.add.outer(alone[rows], alone)
    rank = np.empty(n_regions, dtype=int)
    rank[np.argsort(ends, kind="stable")] = np.arange(n_regions)
    later = np.greater.outer(rank, rank)
    squares, mixed, products = (
        np.where(later, terms, terms.T) for terms in (squares, mixed, products)
    )
    alone = counts @ own**2
    crossed = (own * counts[:, np.newaxis]).T @ own
    return _Sums(
        squares + np.add.outer(alone, alone),
        mixed,
        products + (crossed + crossed.T) / 2,
    )
