"""Relationship matrices of regional signals: how each pair of regions goes together.

Only kept volumes come in. A region without data, or without any variation, is left out
of the arithmetic and comes out as a row and column of NaN, never as 0. Matrices are
symmetric, and the diagonal of a correlation is 1, to the last bit.

One matrix over several runs is of sums over each: no run is put behind another. Each is
standardised over its own kept volumes first, so that neither its level nor its scale
comes into the correlations; their products are added up over the runs.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bids_roi.core.freedom import EdgeVariance, estimate_variance
from bids_roi.options.words import MEASURES, hold_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from bids_roi.options.words import Estimator, Regularisation

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]
    # Of each time that it is called, the runs one after the other: (T, R) kept volumes.
    Runs = Callable[[], Iterable[FloatArray]]


# Two volumes always correlate by 1 or -1.
MINIMUM_VOLUMES = 3

# A correlation from here on is that of one series with itself (or with its negative)
# but for rounding: its z is infinite, or as large as the last digit happens to be.
IDENTICAL = 1 - 1e-12

# Signals that deviate from their mean by rounding errors only.
_ROUNDING = 8 * np.finfo(np.float64).eps


def has_variation(signals: FloatArray) -> BoolArray:
    """Tell the regions that have data and vary by more than rounding errors.

    Parameters
    ----------
    signals : (T, R)
        Kept volumes; NaN columns for lost regions.

    Returns
    -------
    (R,) bool
        False everywhere for fewer than ``MINIMUM_VOLUMES`` volumes.
    """
    if signals.shape[0] < MINIMUM_VOLUMES:
        return np.zeros(signals.shape[1], dtype=bool)
    finite = np.isfinite(signals).all(axis=0)
    filled = np.where(finite, signals, 0.0)
    spread = np.ptp(filled, axis=0)
    return np.asarray(finite & (spread > _ROUNDING * np.abs(filled).max(axis=0)))


def pearson_correlation(signals: FloatArray) -> FloatArray:
    """Pearson's correlation of each pair of regions.

    Parameters
    ----------
    signals : (T, R)
        Kept volumes; NaN columns for lost regions.

    Returns
    -------
    (R, R)
        -1 to 1, NaN for regions without data or variation.

    Notes
    -----
    Pearson (1895), doi:10.1098/rspl.1895.0041.

    >>> pearson_correlation(np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 7.0]])).round(4)
    array([[1.    , 0.9934],
           [0.9934, 1.    ]])
    """
    return _over_usable(signals, _correlate)


def spearman_correlation(signals: FloatArray) -> FloatArray:
    """Spearman's rank correlation of each pair of regions; ties share their mean rank.

    Parameters, Returns
    -------------------
    As ``pearson_correlation``.

    Notes
    -----
    Spearman (1904), doi:10.2307/1412159.
    """

    def correlate_ranks(usable: FloatArray) -> FloatArray:
        from scipy.stats import rankdata

        return _correlate(rankdata(usable, axis=0))

    return _over_usable(signals, correlate_ranks)


def covariance(signals: FloatArray) -> FloatArray:
    """Sample covariance of each pair of regions (ddof 1), in squared signal units.

    Parameters, Returns
    -------------------
    As ``pearson_correlation``, without limits.
    """

    def estimate(usable: FloatArray) -> FloatArray:
        centred = usable - usable.mean(axis=0)
        return _symmetric(centred.T @ centred / (usable.shape[0] - 1))

    return _over_usable(signals, estimate)


def partial_correlation(signals: FloatArray, *, estimator: Estimator) -> FloatArray:
    """Correlation of each pair of regions given all other usable regions.

    Parameters
    ----------
    signals : (T, R)
        Kept volumes; NaN columns for lost regions, which are not conditioned on.
    estimator
        Of the precision matrix: the inverse of the covariance as Ledoit and Wolf
        shrink it, which exists for any number of volumes; or the pseudo-inverse of the
        correlation matrix, which for fewer volumes than regions depends on the volumes
        more than on the brain.

    Returns
    -------
    (R, R)
        -1 to 1 with a diagonal of 1, NaN for regions without data or variation.

    Notes
    -----
    r_ij = -p_ij / sqrt(p_ii p_jj) with the precision p (Marrelec et al. 2006,
    doi:10.1016/j.neuroimage.2005.12.057). Signals are brought to unit variance first,
    so that the shrinkage does not depend on their units.
    """

    def estimate(usable: FloatArray) -> FloatArray:
        scaled = usable - usable.mean(axis=0)
        scaled /= scaled.std(axis=0)
        if estimator == "ledoit_wolf":
            shrunk, _ = shrink_covariance(scaled)
            precision = np.linalg.inv(shrunk)
        else:
            precision = np.linalg.pinv(_correlate(usable), hermitian=True)
        return partial_of_precision(precision)

    return _over_usable(signals, estimate)


def partial_of_precision(precision: NDArray[Any]) -> FloatArray:
    """Partial correlations (R, R) of a precision matrix, as above."""
    scale = np.sqrt(np.abs(np.diagonal(precision)))
    scale[scale == 0] = np.nan  # nothing of the region is left
    return _unit_diagonal(_symmetric(-precision / np.outer(scale, scale)))


def correlate_products(products: FloatArray) -> FloatArray:
    """Correlations of sums of products (R, R) of centred signals."""
    scale = np.sqrt(np.diagonal(products))
    return _unit_diagonal(_symmetric(products / np.outer(scale, scale)))


def shrink_covariance(signals: FloatArray) -> tuple[FloatArray, float]:
    """Covariance, shrunk towards a multiple of the identity.

    Parameters
    ----------
    signals : (T, R)
        Without NaN.

    Returns
    -------
    covariance : (R, R)
        Positive definite where any signal varies (ddof 0 as in the paper).
    shrinkage
        Share of the identity, 0 to 1.

    Notes
    -----
    Ledoit & Wolf (2004), doi:10.1016/S0047-259X(03)00096-4, section 3: with sample
    covariance S and m = tr(S)/R, the shrinkage b2/d2 is the estimated squared error
    of S over its squared distance d2 from m I.
    """
    centred = signals - signals.mean(axis=0)
    squares = (centred**2).sum(axis=1)  # of each volume
    sample = centred.T @ centred / len(centred)
    return shrink_moments(sample, float((squares**2).sum()), len(centred))


def shrink_moments(
    sample: FloatArray, fourth: float, n_volumes: int
) -> tuple[FloatArray, float]:
    """Shrink a covariance as ``shrink_covariance`` does, from sums over volumes.

    ``sample`` (R, R) has ddof 0, and ``fourth`` is the sum over the volumes of the
    square of the sum of squares of a volume's deviations.
    """
    n_regions = len(sample)
    level = float(np.trace(sample)) / n_regions
    distance = float(((sample - level * np.eye(n_regions)) ** 2).sum()) / n_regions
    error = fourth / n_volumes - float((sample**2).sum())
    error = min(error / (n_volumes * n_regions), distance)
    shrinkage = error / distance if distance > 0 else 0.0
    shrunk = (1 - shrinkage) * sample
    shrunk.flat[:: n_regions + 1] += shrinkage * level
    return shrunk, shrinkage


def are_identical(correlations: FloatArray) -> BoolArray:
    """Tell the correlations of a series with itself or its negative.

    Parameters
    ----------
    correlations : any shape
        -1 to 1; NaN for missing.

    Returns
    -------
    bool, same shape
        Whether the absolute value is ``IDENTICAL`` or more.
    """
    return np.asarray(np.abs(correlations) >= IDENTICAL)


def fisher_z(correlations: FloatArray) -> FloatArray:
    """Fisher's z of correlations: artanh r.

    Parameters
    ----------
    correlations : any shape
        -1 to 1; NaN for missing.

    Returns
    -------
    same shape
        NaN where the correlation is missing, or ``IDENTICAL`` and more: so on the
        diagonal of a matrix, and for two regions with one series (a label that occurs
        twice in an atlas, a pair of regions of one voxel). Of r = 1 it is infinite and
        would make every mean that it enters infinite.

    Notes
    -----
    Fisher (1915), doi:10.2307/2331838.

    >>> fisher_z(np.array([[1.0, 0.5], [0.5, 1.0]])).round(4)
    array([[   nan, 0.5493],
           [0.5493,    nan]])
    """
    return np.arctanh(np.where(are_identical(correlations), np.nan, correlations))


def relate_xdf(
    signals: FloatArray,
    pick: Callable[[EdgeVariance], FloatArray],
    *,
    sample_mask: BoolArray,
    regularisation: Regularisation,
) -> FloatArray:
    """What ``pick`` takes of the variances of the correlations by xDF.

    Parameters
    ----------
    signals : (T, R)
        Kept volumes; NaN columns for lost regions.
    pick
        Variance, degrees of freedom, z or p.
    sample_mask, regularisation
        As for ``freedom.estimate_variance``, with its source.

    Returns
    -------
    (R, R)
        NaN for regions without data or variation, on the diagonal, and for two regions
        with the same series, of which nothing is left to chance.
    """

    def estimate(usable: FloatArray) -> FloatArray:
        r = _correlate(usable)
        r[are_identical(r)] = np.nan
        return pick(estimate_variance(usable, r, sample_mask, regularisation))

    return _over_usable(signals, estimate)


def choose_volumes(n_kept: int, n_volumes: int, seed: int) -> NDArray[np.int_]:
    """Choose as many of the kept volumes, in their order.

    Parameters
    ----------
    n_kept, n_volumes
        How many there are, and how many are wanted; not more.
    seed
        0 to 2**32 - 1.

    Returns
    -------
    (n_volumes,)
        Positions among the kept volumes.

    Notes
    -----
    The first of ``numpy.random.RandomState(seed).permutation(n_kept)``: NumPy promises
    (NEP 19) that these never change, which it does not of its newer generators.

    >>> choose_volumes(10, 4, 0)
    array([2, 4, 8, 9])
    """
    order = np.random.RandomState(seed).permutation(n_kept)
    return np.asarray(np.sort(order[:n_volumes]))


def freedom_of_some(degrees_of_freedom: float, n_kept: int, n_volumes: int) -> float:
    """Degrees of freedom of volumes that were chosen at random from the kept ones.

    Parameters
    ----------
    degrees_of_freedom
        Of all kept volumes.
    n_kept, n_volumes
        How many these are, and how many were chosen.

    Returns
    -------
    float
        At most ``n_volumes`` - 1, and those of all where all were chosen.

    Notes
    -----
    1 / d is the mean of the squared autocorrelations over all pairs of volumes, each
    with itself too (Bartlett 1946, doi:10.2307/2983611). The mean over the pairs of two
    is what they share with those that were chosen, on average over choices.
    """
    if n_volumes >= n_kept or degrees_of_freedom <= 0:
        return degrees_of_freedom
    shared = (n_kept / degrees_of_freedom - 1) / (n_kept - 1)
    return min(n_volumes / (1 + (n_volumes - 1) * shared), n_volumes - 1.0)


def relate(measure: str, signals: FloatArray, **parameters: object) -> FloatArray:
    """Matrix of a measure.

    Parameters
    ----------
    measure
        Name of one of ``options.words.MEASURES``.
    signals : (T, R)
        Kept volumes; NaN columns for lost regions.
    parameters
        Those of the measure's function.

    Returns
    -------
    (R, R)
        NaN for regions without data or variation.
    """
    return _FUNCTIONS[measure](signals, **parameters)


def _over_usable(
    signals: FloatArray, estimate: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """Put the matrix of the usable regions into that of all."""
    usable = np.flatnonzero(has_variation(signals))
    relmat = np.full((signals.shape[1], signals.shape[1]), np.nan)
    if usable.size:
        relmat[np.ix_(usable, usable)] = estimate(signals[:, usable])
    return relmat


def _correlate(signals: FloatArray) -> FloatArray:
    centred = signals - signals.mean(axis=0)
    # Scaled first: the squares of very small or large values leave the range.
    centred /= np.abs(centred).max(axis=0)
    centred /= np.sqrt((centred**2).sum(axis=0))
    return _unit_diagonal(_symmetric(centred.T @ centred))


def _symmetric(matrix: FloatArray) -> FloatArray:
    return np.asarray((matrix + matrix.T) / 2)


def _unit_diagonal(matrix: FloatArray) -> FloatArray:
    matrix = np.clip(matrix, -1, 1)
    np.fill_diagonal(matrix, 1.0)
    return matrix


_FUNCTIONS: dict[str, Callable[..., FloatArray]] = {
    "pearson": pearson_correlation,
    "spearman": spearman_correlation,
    "partial": partial_correlation,
    "covariance": covariance,
    "pearsonxdfvariance": functools.partial(
        relate_xdf, pick=lambda edges: edges.variance
    ),
    "pearsonxdfdof": functools.partial(relate_xdf, pick=lambda edges: edges.freedom),
    "pearsonxdfz": functools.partial(relate_xdf, pick=lambda edges: edges.z),
    "pearsonxdfp": functools.partial(relate_xdf, pick=lambda edges: edges.p),
}
hold_names(_FUNCTIONS, [measure.name for measure in MEASURES], "core/relmat.py")


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
        Of the precision matrix, as in ``partial_correlation``.

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
    whole: BoolArray | None = None
    usable: BoolArray | None = None
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
        raise ValueError("there is no run to pool")
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


def _standardise(signals: FloatArray, varies: BoolArray) -> FloatArray:
    """z-scores (ddof 1); 0 for regions that do not vary."""
    centred = np.where(varies, signals - signals.mean(axis=0), 0.0)
    # Scaled first: the squares of very small or large values leave the range.
    peak = np.abs(centred).max(axis=0, initial=0.0)
    centred /= np.where(peak > 0, peak, 1.0)
    length = np.sqrt((centred**2).sum(axis=0))
    centred *= np.sqrt(max(len(signals) - 1, 0)) / np.where(length > 0, length, 1.0)
    return centred


def _shrink(
    correlations: FloatArray, counts: list[int], runs: Runs, usable: BoolArray
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
