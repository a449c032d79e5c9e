"""QC-FC: connectivity with head motion, with covariates too, tested by permutation."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.group.edges import CONSTANT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bids_roi.core.group.edges import Edges

    FloatArray = NDArray[np.float64]


# With three the correlation has one degree of freedom: |r| is 0.7 by chance.
LEAST_UNITS = 4

# Centres of gravity of curved regions lie up to 3.4 mm outside of them (Schaefer, AAL,
# Desikan-Killiany), of regions with both sides tens of mm.
_OUTSIDE_MM = 3.5

# Of the squares of a number, what is left after covariates below this is rounding.
_NOTHING = 1e-12
# Eigenvalues of a Gram matrix below this share of the largest: a dependent column.
_DEPENDENT = 1e-9
# Values that are held of all units for permutations: 128 MiB in single precision. More
# edges than these say no more about a median over all of them.
_MOST_VALUES, _MOST_EDGES = 2**25, 20_000
# Permutations at a time, and groups of units that the jackknife leaves out in turn.
_BLOCK, _GROUPS = 64, 100
# Figures that differ by less are the same: sums in another order.
_TIE = 1e-10


@dataclass(frozen=True, slots=True)
class MotionSummary:
    """QC-FC over all edges of a group; ``None`` for what cannot be told.

    Attributes
    ----------
    n_edges
        Edges with a correlation.
    median_abs_r
        Median over the edges of the absolute correlation with mean FD.
    chance
        What that median is when connectivity has nothing to do with motion.
    share_p05, share_fdr
        Shares of edges (0 to 1) with p < 0.05 uncorrected, and after Benjamini and
        Hochberg.
    n_edges_distance
        Edges of which both centres are known and lie in their regions.
    distance_rho
        Spearman's correlation of the distance between the centres with QC-FC.
    """

    n_edges: int
    median_abs_r: float | None
    chance: float | None
    share_p05: float | None
    share_fdr: float | None
    n_edges_distance: int
    distance_rho: float | None


def summarise_motion(
    r: FloatArray, n: FloatArray, distances: FloatArray
) -> MotionSummary:
    """Sum up QC-FC in the figures by which denoising strategies are compared.

    Parameters
    ----------
    r : (E,)
        Correlation of mean FD with each edge; NaN for missing.
    n : (E,)
        Participants that each rests on.
    distances : (E,)
        Between the centres of the regions, mm; NaN for missing.

    Notes
    -----
    Ciric et al. (2017, doi:10.1016/j.neuroimage.2017.03.020); Parkes et al. (2018,
    doi:10.1016/j.neuroimage.2017.12.073), who take Jenkinson's FD, where it is here
    what the table of confounds holds: Power's. FDR: Benjamini and Hochberg (1995,
    doi:10.1111/j.2517-6161.1995.tb02031.x).
    """
    there = np.isfinite(r)
    rho, n_distance = distance_dependence(distances, r)
    if not there.any():
        return MotionSummary(0, None, None, None, None, n_distance, rho)
    p = correlation_p_values(r[there], n[there])
    return MotionSummary(
        n_edges=int(there.sum()),
        median_abs_r=float(np.median(np.abs(r[there]))),
        chance=chance_correlation(int(np.median(n[there]))),
        share_p05=float(np.mean(p < 0.05)),
        share_fdr=float(np.mean(adjust_for_many(p) < 0.05)),
        n_edges_distance=n_distance,
        distance_rho=rho,
    )


def correlation_p_values(r: FloatArray, n: FloatArray) -> FloatArray:
    """Two-sided p of Pearson correlations, from t with n - 2 degrees of freedom.

    Parameters
    ----------
    r : (E,)
        -1 to 1.
    n : (E,)
        Pairs each rests on, at least 3.
    """
    from scipy import special

    with np.errstate(divide="ignore"):  # r = 1: t is infinite and p 0
        t = np.abs(r) * np.sqrt((n - 2) / (1 - r**2))
    return np.asarray(2 * special.stdtr(n - 2, -t))


def correlation_intervals(
    r: FloatArray, n: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """95 % confidence intervals of correlations, by Fisher's z.

    Parameters
    ----------
    r : (E,)
        -1 to 1; NaN for missing.
    n : (E,)
        Pairs each rests on, less one for each covariate of a partial correlation.

    Notes
    -----
    Fisher (1915, doi:10.2307/2331838; 1924, Metron 3:329): z has a standard error of
    1 / sqrt(n - 3).
    """
    z = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    reach = 1.959963984540054 / np.sqrt(np.where(n > 3, n - 3, np.nan))
    return np.tanh(z - reach), np.tanh(z + reach)


def adjust_for_many(p: FloatArray) -> FloatArray:
    """Adjust p values to the false discovery rate of Benjamini and Hochberg.

    Parameters
    ----------
    p : (E,)
        0 to 1, no NaN.

    Examples
    --------
    >>> adjust_for_many(np.array([0.01, 0.04, 0.03, 0.5]))
    array([0.04      , 0.05333333, 0.05333333, 0.5       ])
    """
    order = np.argsort(p, kind="stable")
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    smallest = np.minimum.accumulate(scaled[::-1])[::-1]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(smallest, 1)
    return adjusted


def chance_correlation(n: int) -> float:
    """Median of the absolute correlation of independent normal values.

    Parameters
    ----------
    n
        Pairs, at least 3.

    Notes
    -----
    r^2 is then distributed as Beta(1/2, (n - 2) / 2).

    Examples
    --------
    >>> round(chance_correlation(4), 3)
    0.5
    >>> round(chance_correlation(400), 4)
    0.0338
    """
    from scipy import special

    return float(np.sqrt(special.betaincinv(0.5, (n - 2) / 2, 0.5)))


def usable_centres(centres: FloatArray, offsets: FloatArray) -> FloatArray:
    """Leave out the centres that say little of where a region is.

    Parameters
    ----------
    centres : (R, 3)
        mm; NaN for unknown.
    offsets : (R,)
        How far each lies outside of its region, mm; NaN for unknown.

    Returns
    -------
    (R, 3)
        NaN where a centre is not known to be within 3.5 mm of its region: that of one
        with parts on both sides lies between them, and its distance from another is
        the distance of neither part.
    """
    inside = np.nan_to_num(offsets, nan=np.inf) <= _OUTSIDE_MM
    return np.where(inside[:, None], centres, np.nan)


def edge_lengths(centres: FloatArray, edges: Edges) -> FloatArray:
    """Straight distance between the centres of the two regions of each edge.

    Parameters
    ----------
    centres : (R, 3)
        mm; NaN for unknown.
    edges
        Of the R regions.

    Returns
    -------
    (E,)
        mm; NaN where a centre is unknown.
    """
    step = centres[edges.rows] - centres[edges.columns]
    return np.asarray(np.sqrt((step**2).sum(axis=1)))


def distance_dependence(
    distances: FloatArray, r: FloatArray
) -> tuple[float | None, int]:
    """Spearman's correlation of edge length with QC-FC.

    After Parkes et al. (2018), doi:10.1016/j.neuroimage.2017.12.073.

    Returns
    -------
    rho
        ``None`` where there are fewer than three edges or either is constant.
    n
        Edges that have both.
    """
    both = np.isfinite(distances) & np.isfinite(r)
    n = int(both.sum())
    if n < 3:
        return None, n
    ranks = [_rank(values[both]) for values in (distances, r)]
    x, y = (rank - rank.mean() for rank in ranks)
    scale = float(np.sqrt((x @ x) * (y @ y)))
    if scale <= CONSTANT * n**3:
        return None, n
    return float(np.clip(x @ y / scale, -1, 1)), n


def _rank(values: FloatArray) -> FloatArray:
    """Ranks from 1; equal values share the mean of theirs, (E,) -> (E,)."""
    # In place of scipy.stats, which takes 0.6 s and 45 MB to import.
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[which])


class PartialMoments:
    """Partial correlation of one number per unit with each edge, unit by unit.

    Parameters
    ----------
    size
        Number of edges E.
    n_covariates
        Numbers K that are held constant, besides the mean.

    Notes
    -----
    The correlation of what least squares on the covariates leaves of both (Fisher 1924,
    Metron 3:329), from sums of products: those of number and covariates are the same
    for all edges, but for the units that lack an edge, of which they are kept per edge.
    Covariates ought to have mean 0 and deviation 1, so that few digits are lost.
    """

    def __init__(self, size: int, n_covariates: int) -> None:
        self.n = np.zeros(size)
        m = n_covariates + 2  # the constant, the covariates, the number
        self._gram, self._xy = np.zeros((m, m)), np.zeros((m, size))
        self._yy = np.zeros(size)
        self._missing: FloatArray | None = None

    def update(self, number: float, covariates: FloatArray, values: FloatArray) -> None:
        """Add a unit with its number and covariates, (K,); NaN edges are left out."""
        row = np.concatenate([[1.0], covariates, [number]])
        product, there = np.outer(row, row), np.isfinite(values)
        own = np.where(there, values, 0.0)
        self._gram += product
        self._xy += row[:, None] * own
        self._yy += own * own
        self.n += there
        if not there.all():
            if self._missing is None:
                self._missing = np.zeros((values.size, *product.shape))
            self._missing[~there] += product

    @property
    def n_units(self) -> int:
        """Units that were added."""
        return round(float(self._gram[0, 0]))

    @classmethod
    def of(
        cls, number: FloatArray, covariates: FloatArray, values: FloatArray
    ) -> PartialMoments:
        """Of many units without a missing edge, (N,), (N, K), (N, E)."""
        own = cls(values.shape[1], covariates.shape[1])
        rows = np.column_stack([np.ones(number.size), covariates, number])
        own._gram, own._xy = rows.T @ rows, rows.T @ values
        own._yy, own.n = (values * values).sum(axis=0), own.n + number.size
        return own

    def merge(self, other: PartialMoments) -> None:
        """Add the units of another."""
        self.n += other.n
        self._gram += other._gram
        self._xy += other._xy
        self._yy += other._yy
        if self._missing is None:
            self._missing = other._missing
        elif other._missing is not None:
            self._missing += other._missing

    def correlate(self) -> tuple[FloatArray, FloatArray]:
        """Partial correlation of the number with each edge.

        Returns
        -------
        r : (E,)
            NaN where fewer than ``LEAST_UNITS`` units are left for it, or where the
            covariates leave nothing of the number or the edge.
        n : (E,)
            Units that each rests on, less one for each independent covariate.
        """
        r, n = _partial(self._gram[None], self._xy, self._yy, self.n)
        if self._missing is not None:
            gaps = np.flatnonzero(self._missing[:, 0, 0])
            gram = self._gram - self._missing[gaps]
            some = self._xy[:, gaps], self._yy[gaps], self.n[gaps]
            r[gaps], n[gaps] = _partial(gram, *some)
        return r, n


def _partial(
    gram: FloatArray, xy: FloatArray, yy: FloatArray, n: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Partial correlations from sums of products, (1 or E, m, m), (m, E), (E,)."""
    values, vectors = np.linalg.eigh(gram[:, :-1, :-1])
    kept = values > _DEPENDENT * np.maximum(values[:, -1:], 1e-300)
    # What covariates explain, in the directions in which they are independent.
    weights = np.where(kept, 1 / np.where(kept, values, 1), 0)
    x = np.einsum("eij,ei->ej", vectors, gram[:, :-1, -1])
    y = np.matmul(xy[:-1].T[:, None], vectors)[:, 0]
    xx = gram[:, -1, -1] - (weights * x * x).sum(axis=1)
    left = yy - (weights * y * y).sum(axis=1)
    product = xy[-1] - (weights * x * y).sum(axis=1)
    n = n - kept.sum(axis=1) + 1
    usable = (n >= LEAST_UNITS) & (left > _NOTHING * yy)
    usable &= xx > _NOTHING * gram[:, -1, -1]
    scale = np.sqrt(np.where(usable, xx, 1)) * np.sqrt(np.where(usable, left, 1))
    return np.where(usable, np.clip(product / scale, -1, 1), np.nan), n


def choose_edges(size: int, n_units: int) -> slice:
    """Choose the edges of which the values of all units are held, evenly spaced.

    >>> choose_edges(79800, 100)
    slice(None, None, 4)
    """
    most = min(_MOST_EDGES, max(1, _MOST_VALUES // max(n_units, 1)))
    return slice(None, None, max(1, math.ceil(size / most)))


@dataclass(frozen=True, slots=True)
class Resampled:
    """How surely motion is in connectivity; ``None`` for what cannot be told.

    Attributes
    ----------
    n_units, n_edges
        That were held, without edges that do not vary or that fewer than
        ``LEAST_UNITS`` units have.
    n_permutations
        All there are, where that is fewer than were asked for.
    median_p
        One-sided p of the median absolute correlation.
    distance_p
        Two-sided p of its distance dependence.
    distance_low, distance_high
        95 % confidence interval of the distance dependence.
    """

    n_units: int
    n_edges: int
    n_permutations: int = 0
    median_p: float | None = None
    distance_p: float | None = None
    distance_low: float | None = None
    distance_high: float | None = None


def resample(
    number: FloatArray,
    covariates: FloatArray,
    values: FloatArray,
    distances: FloatArray,
    *,
    n_permutations: int,
    seed: int,
) -> Resampled:
    """Test QC-FC and its distance dependence by permuting units.

    Parameters
    ----------
    number, covariates : (N,), (N, K)
        Mean FD of each unit, and what is held constant.
    values : (N, E)
        Edges; a missing one counts as the mean of those that have it.
    distances : (E,)
        Between the centres, mm; NaN for unknown.
    n_permutations
        0 for the confidence interval alone.
    seed
        Of numpy's default generator.

    Notes
    -----
    What the covariates leave of the edges is permuted, all edges of a unit together,
    and they are taken out once more (Freedman and Lane 1983,
    doi:10.1080/07350015.1983.10509354; Winkler et al. 2014,
    doi:10.1016/j.neuroimage.2014.01.060); without covariates that permutes FD, which is
    exact. The measured order counts as one of the permutations (Phipson and Smyth 2010,
    doi:10.2202/1544-6115.1585). Of few units, all permutations are taken.

    The interval is Student's of the jackknife over units, or over 100 groups of them,
    on Fisher's z (Efron and Stein 1981, doi:10.1214/aos/1176345462). Edges share units,
    so that the usual interval of a correlation over edges would be far too narrow.
    """
    n_units = number.size
    there = np.isfinite(values)
    filled = np.where(there, values, _column_means(values, there))
    basis = _basis(covariates)
    left = filled - basis @ (basis.T @ filled)
    motion = number - basis @ (basis.T @ number)
    squares = (left * left).sum(axis=0)
    usable = squares > _NOTHING * (filled * filled).sum(axis=0)
    usable &= there.sum(axis=0) - basis.shape[1] + 1 >= LEAST_UNITS
    n_edges = int(usable.sum())
    if not n_edges or motion @ motion <= _NOTHING * (number @ number):
        return Resampled(n_units, 0)
    left, squares, distances = left[:, usable], squares[usable], distances[usable]
    motion /= np.sqrt(motion @ motion)
    low, high = _jackknife(number, basis, filled[:, usable], distances)
    if not n_permutations:
        return Resampled(n_units, n_edges, 0, None, None, low, high)
    measured = _sum_up((motion @ left / np.sqrt(squares))[None], distances)[0]
    count, larger = 0, np.zeros(2)
    for orders in _permutations(n_units, n_permutations, seed):
        # Of the covariates, the constant is left out: no order changes a mean.
        explained = sum(
            (basis[:, k][orders] @ left) ** 2 for k in range(1, basis.shape[1])
        )
        scale = np.sqrt(np.maximum(squares - explained, _NOTHING * squares))
        found = _sum_up(motion[orders] @ left / scale, distances)
        larger += (found >= measured - _TIE).sum(axis=0)
        count += len(orders)
    # All orders hold the measured one; of random ones it is one more.
    more = 0 if math.factorial(min(n_units, 20)) <= n_permutations else 1
    median_p, distance_p = ((larger + more) / (count + more)).tolist()
    p = distance_p if np.isfinite(measured[1]) else None
    return Resampled(n_units, n_edges, count, median_p, p, low, high)


def _column_means(values: FloatArray, there: NDArray[np.bool_]) -> FloatArray:
    total = np.where(there, values, 0).sum(axis=0)
    return np.asarray(total / np.maximum(there.sum(axis=0), 1))


def _basis(covariates: FloatArray) -> FloatArray:
    """Orthonormal columns: the constant, then covariates, (N, 1 to K + 1)."""
    n = len(covariates)
    centred = covariates - covariates.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    kept = s > math.sqrt(_DEPENDENT) * max(s.max(initial=0), 1e-300)
    return np.column_stack([np.full(n, n**-0.5), u[:, kept]])


def _permutations(n: int, wanted: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Yield orders of units in blocks: all of them where so many are wanted."""
    if math.factorial(min(n, 20)) <= wanted:
        orders = itertools.permutations(range(n))
        while some := list(itertools.islice(orders, _BLOCK)):
            yield np.array(some)
        return
    generator = np.random.default_rng(seed)
    for start in range(0, wanted, _BLOCK):
        block = np.tile(np.arange(n), (min(_BLOCK, wanted - start), 1))
        yield generator.permuted(block, axis=1)


def _sum_up(r: FloatArray, distances: FloatArray) -> FloatArray:
    """Median of |r|, and of distance dependence the size, of each order, (B, 2)."""
    rho = [distance_dependence(distances, row)[0] for row in r]
    size = [math.nan if value is None else abs(value) for value in rho]
    return np.stack([np.median(np.abs(r), axis=1), size], axis=1)


def _jackknife(
    number: FloatArray, basis: FloatArray, values: FloatArray, distances: FloatArray
) -> tuple[float | None, float | None]:
    """Interval of the distance dependence; ``None`` where it cannot be told."""
    from scipy import special

    n = number.size
    groups = np.arange(n) % min(n, _GROUPS)
    rho = []
    for one in (-1, *range(groups.max() + 1)):
        kept = groups != one
        found = PartialMoments.of(number[kept], basis[kept, 1:], values[kept])
        rho.append(distance_dependence(distances, found.correlate()[0])[0])
    if any(value is None or abs(value) >= 1 for value in rho):
        return None, None
    whole, *parts = np.arctanh(np.array(rho, dtype=float))
    m = len(parts)
    variance = (m - 1) / m * ((parts - np.mean(parts)) ** 2).sum()
    reach = float(special.stdtrit(m - 1, 0.975) * np.sqrt(variance))
    return math.tanh(whole - reach), math.tanh(whole + reach)
