"""Degrees of freedom: as how many independent volumes do cleaned series correlate.

Of two series that have nothing in common, the correlation r has mean 0 and a variance;
its inverse is what is called degrees of freedom here. Independent volumes less their
mean have one less than there are volumes; every filter and every regressor takes some.
The figure belongs to the linear operator that was applied, gaps and ends included, and
supposes white noise before it; ``effective_freedom`` does not. Nor does xDF, of each
pair of regions: the variance of a correlation is (1 - r^2)^2 / n for n independent
volumes, and those of a scanner depend on what was before, in themselves and in each
other. Lags are in volumes of the run, across gaps: products are of two kept volumes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.options.words import Regularisation

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


# Steps of the integral in log s; the integrand is smooth, so 300 give twelve digits.
_STEPS = np.linspace(-25.0, 60.0, 600)


def count_freedom(operator: FloatArray) -> float:
    """Degrees of freedom of white noise behind a linear operator.

    Parameters
    ----------
    operator : (n, m)
        Takes m independent values of equal variance to n volumes, the mean included.

    Returns
    -------
    float
        1 / E[r^2] of two such series, 1 to n; n for an orthogonal projection of rank n.

    Notes
    -----
    With the eigenvalues l of the covariance and x standard normal, E[r^2] is the sum of
    the squares of w_i = E[l_i x_i^2 / sum(l x^2)]: r is the product of two random unit
    vectors whose components have these mean squares and random signs. Of the inverse
    of a sum, E[1/S] is the integral of E[exp(-s S)] over s > 0, so w_i is that of
    l_i / (1 + 2 s l_i) / prod(1 + 2 s l_j)^0.5 (moments of ratios of quadratic forms:
    Magnus 1986, doi:10.2307/20075629). With many small parts it goes over into
    sum(l)^2 / sum(l^2) (Satterthwaite 1946, doi:10.2307/3002019).
    """
    n, m = operator.shape
    covariance = operator @ operator.T if n <= m else operator.T @ operator
    values = np.linalg.eigvalsh(covariance)
    values = values[values > values[-1] * 1e-12] if values.size else values
    if values.size == 0 or values[-1] <= 0:
        return 0.0
    values = values / values.sum()
    s = np.exp(_STEPS)[:, np.newaxis]
    terms = 1 + 2 * s * values
    density = np.exp(-0.5 * np.log(terms).sum(axis=1))[:, np.newaxis] * s
    weights = (density * values / terms).sum(axis=0) * (_STEPS[1] - _STEPS[0])
    return float(1 / (weights**2).sum())


def lag_sums(columns: FloatArray, sample_mask: BoolArray) -> FloatArray:
    """Sums of products of each column with itself, some volumes later.

    Parameters
    ----------
    columns : (n_kept, C)
        One row per kept volume.
    sample_mask : (T,) bool
        Which volumes of the run they are: lags are in volumes of the run, across gaps.

    Returns
    -------
    (T, C)
        One row per lag, 0 first; pairs with a censored volume add nothing.
    """
    whole = np.zeros((sample_mask.size, columns.shape[1]))
    whole[sample_mask] = columns
    length = _fast_length(2 * sample_mask.size)
    spectrum = np.fft.rfft(whole, n=length, axis=0)
    power = spectrum.real**2 + spectrum.imag**2
    return np.asarray(np.fft.irfft(power, n=length, axis=0)[: sample_mask.size])


def _fast_length(least: int) -> int:
    """Smallest product of 2, 3 and 5 that is not below a length."""
    # scipy.fft has it too, at a tenth of a second for its import.
    length = least
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def white_noise(n_volumes: int) -> FloatArray:
    """``lag_sums`` of white noise of which nothing but the mean is taken, (T,)."""
    mask = np.ones(n_volumes, dtype=bool)
    mean = np.full((n_volumes, 1), n_volumes**-0.5)
    white = -lag_sums(mean, mask)[:, 0]
    white[0] += n_volumes
    return white


def effective_freedom(
    signals: FloatArray,
    sample_mask: BoolArray,
    *,
    white: FloatArray,
    degrees_of_freedom: float,
) -> float:
    """Degrees of freedom after the autocorrelation that the series have beside.

    Parameters
    ----------
    signals : (n_kept, R)
        Cleaned; NaN columns and constant ones are left out.
    sample_mask : (T,) bool
        True for kept.
    white : (T,)
        ``lag_sums`` of the operator that made them, added up over its columns: the
        autocorrelation that it gives to white noise.
    degrees_of_freedom
        Of white noise behind that operator.

    Returns
    -------
    float
        Median over the regions, at most ``degrees_of_freedom``; NaN without signals.

    Notes
    -----
    Two series of n volumes with the autocorrelations a and b have n / sum(a b) degrees
    of freedom, over all lags (Bartlett 1946, doi:10.2307/2983611); with gaps, each lag
    counts by the pairs of kept volumes that it has. Here a is of a region and b is the
    mean of the others, so that the noise of one estimate does not meet itself. Lags are
    tapered by Tukey's window (Chatfield 2016, The Analysis of Time Series, 7.4) of
    6 sqrt(T) volumes: the usual 2 sqrt(T) loses up to 40 % of a slow series' sum. The
    same sum for white noise behind the operator is what the series would have without
    autocorrelation of their own: the ratio of both acts on ``degrees_of_freedom``. For
    autoregressive noise up to 0.8 this is within 15 % of what correlations show, for
    raw, filtered and high-passed series; regressors that take most of the power of
    slow series make it too high, by half at worst.
    """
    usable = np.isfinite(signals).all(axis=0)
    centred = signals[:, usable] - signals[:, usable].mean(axis=0)
    own = lag_sums(centred, sample_mask)
    own = own[:, own[0] > 0]
    if own.shape[1] == 0 or white[0] <= 0 or degrees_of_freedom <= 0:
        return float("nan")
    own /= own[0]
    others = own
    if own.shape[1] > 1:
        others = (own.sum(axis=1, keepdims=True) - own) / (own.shape[1] - 1)
    weights = _lag_weights(sample_mask)
    found = weights @ (own * others)
    expected = weights @ (white / white[0]) ** 2
    ratio = np.clip(expected / np.maximum(found, 1e-300), 0.0, 1.0)
    return float(np.median(ratio) * degrees_of_freedom)


def _lag_weights(sample_mask: BoolArray) -> FloatArray:
    """Tukey's window over the number of kept pairs, both directions, (T,)."""
    n_pairs = lag_sums(np.ones((int(sample_mask.sum()), 1)), sample_mask)[:, 0]
    lags = np.arange(sample_mask.size)
    longest = min(sample_mask.size - 1, int(6 * np.sqrt(sample_mask.size)))
    window = 0.5 * (1 + np.cos(np.pi * lags / max(longest, 1)))
    window[lags > longest] = 0
    weights = np.where(n_pairs > 0.5, window / np.maximum(n_pairs, 1), 0.0)
    weights[1:] *= 2
    return np.asarray(weights)


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
    squares, mixed, products = _sum_lags(
        whole, own, ends=ends, counts=counts, scale=filled * window
    )
    r, plain = correlations, (1 - correlations**2) ** 2
    variance = (n - 1) * plain + r**2 * squares - 2 * r * mixed
    variance = np.maximum((variance + 2 * products) / n**2, plain / n)
    np.fill_diagonal(variance, np.nan)
    return EdgeVariance(r, variance, n)


def _sum_lags(
    whole: FloatArray,
    own: FloatArray,
    *,
    ends: NDArray[np.int_],
    counts: FloatArray,
    scale: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Squares, mixed terms and products, (R, R), added up lag by lag.

    So no array has regions x regions x lags.

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
    squares = squares + np.add.outer(alone, alone)
    return squares, mixed, products + (crossed + crossed.T) / 2
