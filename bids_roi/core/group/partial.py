"""Motion and connectivity with covariates held constant, tested by permutation."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.group.motion import LEAST_UNITS, distance_dependence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


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
        self.n = np.zeros(size, dtype=np.int64)
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

    def correlate(self) -> tuple[FloatArray, NDArray[np.int64]]:
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
    gram: FloatArray, xy: FloatArray, yy: FloatArray, n: NDArray[np.int64]
) -> tuple[FloatArray, NDArray[np.int64]]:
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
