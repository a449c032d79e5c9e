"""Edges of square matrices, listed and in blocks, and their moments, unit by unit.

Every edge has a count of its own, for a region that is lost in one run leaves its edges
out of that run only. Memory does not depend on the number of units. Two that hold some
units each are merged; merging with one that holds none changes no bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bids_roi.core.relmat import IDENTICAL, are_identical, fisher_z

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    # Blocks of edges, and which of each are missing, from its first.
    Gaps = list[tuple[slice, NDArray[np.intp]]]


# A standard deviation of less than this share of the mean is rounding: values that are
# the same but for the order in which they were averaged differ by 1e-16 of them.
CONSTANT = 1e-12

# Edges that are worked on at a time: what a step leaves for the next stays in the
# cache, and there are few calls, each of which takes the time of a thousand edges.
_BLOCK = 2**14
_NONE = np.empty(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Edges:
    """The pairs of regions that a vector of edges stands for.

    Attributes
    ----------
    n_regions
        Rows of the matrix.
    rows, columns : (E,)
        Positions in the upper triangle, row by row.
    """

    n_regions: int
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    @property
    def size(self) -> int:
        """Number of edges."""
        return int(self.rows.size)

    @property
    def between(self) -> NDArray[np.bool_]:
        """Whether each edge joins two regions, not one with itself, (E,)."""
        return np.asarray(self.rows != self.columns)

    def take(self, matrix: FloatArray) -> FloatArray:
        """Edges of a matrix, (R, R) -> (E,)."""
        return np.asarray(matrix[self.rows, self.columns])

    def fill(self, values: FloatArray, diagonal: float = np.nan) -> FloatArray:
        """Symmetric matrix of edges, (E,) -> (R, R).

        Parameters
        ----------
        values : (E,)
            One per edge.
        diagonal
            Where the edges do not hold the diagonal.
        """
        matrix = np.full((self.n_regions, self.n_regions), diagonal, dtype=np.float64)
        matrix[self.rows, self.columns] = values
        matrix[self.columns, self.rows] = values
        return matrix


def list_edges(n_regions: int, *, diagonal: bool) -> Edges:
    """List the edges of the upper triangle.

    Parameters
    ----------
    n_regions
        Rows of the matrix.
    diagonal
        Whether the diagonal belongs to them, as it does for variances.

    Examples
    --------
    >>> list_edges(3, diagonal=False).take(np.arange(9.0).reshape(3, 3))
    array([1., 2., 5.])
    """
    rows, columns = np.triu_indices(n_regions, k=0 if diagonal else 1)
    return Edges(n_regions, rows, columns)


@lru_cache(maxsize=2)
def off_diagonal(n_regions: int) -> NDArray[np.bool_]:
    """Which entries of an upper triangle, row by row, are not on the diagonal.

    >>> off_diagonal(3)
    array([False,  True,  True, False,  True, False])
    """
    return list_edges(n_regions, diagonal=True).between


@lru_cache(maxsize=2)
def on_diagonal(n_regions: int) -> NDArray[np.intp]:
    """Positions of the others.

    >>> on_diagonal(3)
    array([0, 3, 5])
    """
    return np.flatnonzero(~off_diagonal(n_regions))


def largest(values: FloatArray) -> float:
    """Largest absolute value; 0 where all are NaN."""
    ends = np.fmax.reduce(values, initial=0), np.fmin.reduce(values, initial=0)
    return float(max(ends[0], -ends[1]))


def to_fisher_z(r: FloatArray) -> tuple[FloatArray, int]:
    """Fisher's z of correlations, and how many are left out as identical.

    Parameters
    ----------
    r : (E,)
        -1 to 1; NaN for missing.

    Returns
    -------
    z : (E,)
        NaN where r is ``relmat.IDENTICAL`` or more, as of ``relmat.fisher_z``.
    n_identical
        How many were left out for that.
    """
    # As a rule none is, and two passes tell.
    if largest(r) < IDENTICAL:
        return np.arctanh(r), 0
    return fisher_z(r), int(are_identical(r).sum())


def leave_out_identical(z: FloatArray) -> tuple[FloatArray, int]:
    """Leave out what is Fisher's z already and of identical series.

    Parameters
    ----------
    z : (E,)
        Fisher's z; NaN for missing.

    Returns
    -------
    z, n_identical
        As of ``to_fisher_z``.
    """
    limit = np.arctanh(IDENTICAL)
    if largest(z) < limit:
        return z, 0
    identical = np.abs(z) >= limit
    return np.where(identical, np.nan, z), int(identical.sum())


@dataclass(frozen=True, slots=True)
class Blocks:
    """Pairs of networks, and the edges of each.

    Attributes
    ----------
    names
        Networks, in the order in which the atlas names them.
    n_regions : (K,)
        Of each network.
    pairs
        Positions in ``names`` of each block, the first not after the second.
    block_of_edge : (E,)
        Position in ``pairs``, behind the last for edges of a region without network.
    n_edges : (B,)
        Of each block.
    """

    names: tuple[str, ...]
    n_regions: NDArray[np.intp]
    pairs: tuple[tuple[int, int], ...]
    block_of_edge: NDArray[np.intp]
    n_edges: NDArray[np.intp]

    def average(self, values: FloatArray, gaps: Gaps | None = None) -> FloatArray:
        """Mean of the edges of each block, (E,) -> (B,); NaN where it has none."""
        found = [part.start + own for part, own in gaps or find_gaps(values)]
        missing, size = np.concatenate([_NONE, *found]), len(self.pairs)
        # Few are missing: they are counted, and add 0, which changes no bit of a sum.
        known, place = values.copy(), self.block_of_edge
        known[missing] = 0
        n = self.n_edges - np.bincount(place[missing], minlength=size)[:size]
        total = np.bincount(place, weights=known, minlength=size)[:size]
        return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def list_blocks(labels: Sequence[str | None], edges: Edges) -> Blocks:
    """Sort the edges into blocks; the diagonal of a matrix belongs to none.

    Parameters
    ----------
    labels
        Network of each of the R regions, ``None`` for none.
    edges
        Of the R regions.
    """
    names = tuple(dict.fromkeys(label for label in labels if label is not None))
    position = {name: k for k, name in enumerate(names)}
    network = np.array([-1 if x is None else position[x] for x in labels], np.intp)
    size = len(names)
    first = np.minimum(network[edges.rows], network[edges.columns])
    second = np.maximum(network[edges.rows], network[edges.columns])
    inside = (first >= 0) & edges.between
    # Blocks are the upper triangle of networks x networks, row by row.
    rows, columns = np.triu_indices(size)
    number = np.full((size, size), -1, dtype=np.intp)
    number[rows, columns] = np.arange(rows.size)
    block = np.full(edges.size, rows.size, dtype=np.intp)
    block[inside] = number[first[inside], second[inside]]
    return Blocks(
        names=names,
        n_regions=np.bincount(network[network >= 0], minlength=size),
        pairs=tuple(zip(rows.tolist(), columns.tolist(), strict=True)),
        block_of_edge=block,
        n_edges=np.bincount(block[inside], minlength=rows.size),
    )


def blocks_of(size: int) -> list[slice]:
    """Blocks of edges that cover all."""
    return [slice(start, start + _BLOCK) for start in range(0, size, _BLOCK)]


def find_gaps(values: FloatArray) -> Gaps:
    """Blocks of edges, and which of each are missing: few, as a rule."""
    found = []
    for part in blocks_of(values.size):
        there = np.isfinite(values[part])
        found.append((part, _NONE if there.all() else np.flatnonzero(~there)))
    return found


class Sums:
    """Arrays that travel from process to process, counts in as few bytes as they fit.

    A batch of 64 matrices of 400 regions would be 12 MB, and to move them took a tenth
    of the time of the group level. Here counts are floats, exact up to 2**53: to turn
    whole numbers into floats takes longer than to divide by them.
    """

    _counts: ClassVar[tuple[str, ...]] = ("n",)

    def __getstate__(self) -> dict[str, NDArray[Any]]:
        """Attributes, counts narrowed."""
        state = dict(vars(self))
        for name in self._counts:
            narrow = np.min_scalar_type(int(state[name].max(initial=0)))
            state[name] = state[name].astype(narrow)
        return state

    def __setstate__(self, state: dict[str, NDArray[Any]]) -> None:
        """Attributes as they were."""
        for name, array in state.items():
            setattr(self, name, array.astype(np.float64, copy=False))


class Moments(Sums):
    """Mean and standard deviation of each edge, updated unit by unit.

    Parameters
    ----------
    size
        Number of edges E.

    Attributes
    ----------
    n : (E,)
        Units that have the edge.
    squares : (E,)
        Sum of squared deviations from the mean.

    Notes
    -----
    Welford (1962), doi:10.1080/00401706.1962.10490022; merged after Chan, Golub and
    LeVeque (1983), doi:10.1080/00031305.1983.10483115.
    """

    def __init__(self, size: int) -> None:
        self.n, self.squares, self._mean = np.zeros((3, size))

    def update(self, values: FloatArray, gaps: Gaps | None = None) -> None:
        """Add a unit; its missing edges, NaN, are left out, (E,)."""
        for part, missing in gaps or find_gaps(values):
            n, mean, own = self.n[part], self._mean[part], values[part]
            n += 1
            change = own - mean
            # A few are put right: to choose between two everywhere takes longer.
            change[missing] = 0
            step = change / n
            mean += step
            rest = np.subtract(own, mean, out=step)
            rest[missing] = 0
            rest *= change
            self.squares[part] += rest
            n[missing] -= 1

    def merge(self, other: Moments) -> None:
        """Add the units of another."""
        n = self.n + other.n
        change = other._mean - self._mean
        share = other.n / np.maximum(n, 1)
        self.squares += other.squares + change**2 * self.n * share
        self._mean += change * share
        self.n = n

    @property
    def mean(self) -> FloatArray:
        """NaN where no unit has the edge, (E,)."""
        mean = self._mean.copy()
        mean[self.n == 0] = np.nan
        return mean

    @property
    def deviation(self) -> FloatArray:
        """Standard deviation (ddof 1); NaN where fewer than two units, (E,)."""
        variance = self.squares / np.maximum(self.n - 1, 1)
        return np.where(self.n > 1, np.sqrt(variance), np.nan)

    def begin(self, values: FloatArray, gaps: Gaps | None = None) -> None:
        """Add the first unit, (E,): the bits of ``update`` in a third of its time."""
        for part, missing in gaps or find_gaps(values):
            n, mean = self.n[part], self._mean[part]
            n[:], n[missing] = 1, 0
            # Added to 0, as there: -0 becomes 0.
            np.add(values[part], 0.0, out=mean)
            mean[missing] = 0

    def reset(self) -> None:
        """Begin anew."""
        for sums in (self.n, self.squares, self._mean):
            sums[:] = 0


class WeightedMoments(Sums):
    """Weighted mean and standard deviation of each edge, updated unit by unit.

    Parameters
    ----------
    size
        Number of edges E.

    Attributes
    ----------
    total : (E,)
        Sum of the weights of the units that have the edge.

    Notes
    -----
    West (1979), doi:10.1145/359146.359153. The variance is that of weights which tell
    how much a value rests on, not how often it was found: sum(w d^2) / (W - W2 / W),
    where W and W2 are the sums of weights and of their squares. With equal weights that
    is the usual one (ddof 1).
    """

    _counts = ()

    def __init__(self, size: int) -> None:
        self.total, self._squared = np.zeros(size), np.zeros(size)
        self._mean, self._squares = np.zeros(size), np.zeros(size)

    def update(self, values: FloatArray, weight: float | FloatArray) -> None:
        """Add a unit; missing edges, NaN, and weights of 0 are left out, (E,)."""
        there = np.isfinite(values)
        weight = np.where(there, weight, 0.0)
        self.total += weight
        self._squared += weight**2
        change = np.where(there, values, self._mean) - self._mean
        share = weight / np.where(self.total > 0, self.total, 1)
        self._squares += weight * change**2 * (1 - share)
        self._mean += change * share

    def merge(self, other: WeightedMoments) -> None:
        """Add the units of another."""
        total = self.total + other.total
        share = other.total / np.where(total > 0, total, 1)
        change = other._mean - self._mean
        self._squares += other._squares + change**2 * self.total * share
        self._mean += change * share
        self._squared += other._squared
        self.total = total

    @property
    def mean(self) -> FloatArray:
        """NaN where no unit has the edge, (E,)."""
        return np.where(self.total > 0, self._mean, np.nan)

    @property
    def deviation(self) -> FloatArray:
        """Standard deviation; NaN where fewer than two units have the edge, (E,)."""
        total = np.where(self.total > 0, self.total, 1)
        freedom = self.total - self._squared / total
        usable = freedom > CONSTANT * self.total
        variance = self._squares / np.where(usable, freedom, 1)
        return np.where(usable, np.sqrt(variance), np.nan)

    def reset(self) -> None:
        """Begin anew."""
        for sums in (self.total, self._squared, self._mean, self._squares):
            sums[:] = 0


class CoMoments(Sums):
    """Correlation of one number per unit with each edge, updated unit by unit.

    Parameters
    ----------
    size
        Number of edges E.

    Notes
    -----
    The two-variable form of Welford's update, and of the merge (Bennett et al. 2009,
    doi:10.1109/CLUSTR.2009.5289161). The mean of the number is kept per edge, over the
    units that have the edge.
    """

    def __init__(self, size: int) -> None:
        self.n, self._mean_x, self._mean_y = np.zeros((3, size))
        self._xx, self._yy, self._xy = np.zeros((3, size))

    def update(
        self, number: float, values: FloatArray, gaps: Gaps | None = None
    ) -> None:
        """Add a unit with its number; missing edges, NaN, are left out, (E,)."""
        for part, missing in gaps or find_gaps(values):
            n, mean_x, mean_y = self.n[part], self._mean_x[part], self._mean_y[part]
            own = values[part]
            n += 1
            share = 1 / n
            share[missing] = 0
            change_x, change_y = number - mean_x, own - mean_y
            change_y[missing] = 0
            mean_x += change_x * share
            share *= change_y
            mean_y += share
            rest = np.subtract(number, mean_x, out=share)
            rest[missing] = 0
            change_x *= rest
            self._xx[part] += change_x
            rest *= change_y
            self._xy[part] += rest
            np.subtract(own, mean_y, out=rest)
            rest[missing] = 0
            rest *= change_y
            self._yy[part] += rest
            n[missing] -= 1

    def merge(self, other: CoMoments) -> None:
        """Add the units of another."""
        n = self.n + other.n
        share = other.n / np.maximum(n, 1)
        weight = self.n * share
        change_x, change_y = other._mean_x - self._mean_x, other._mean_y - self._mean_y
        self._xx += other._xx + change_x**2 * weight
        self._xy += other._xy + change_x * change_y * weight
        self._yy += other._yy + change_y**2 * weight
        self._mean_x += change_x * share
        self._mean_y += change_y * share
        self.n = n

    def correlate(self, least: int) -> FloatArray:
        """Pearson's correlation of the number with each edge.

        Parameters
        ----------
        least
            Units an edge must have.

        Returns
        -------
        (E,)
            NaN where there are fewer units, or the number or the edge is constant.
        """
        n = np.maximum(self.n, 1)
        usable = self.n >= max(least, 2)
        for mean, squares in ((self._mean_x, self._xx), (self._mean_y, self._yy)):
            usable &= np.sqrt(squares / n) > CONSTANT * np.abs(mean)
        scale = np.sqrt(np.where(usable, self._xx, 1)) * np.sqrt(
            np.where(usable, self._yy, 1)
        )
        return np.where(usable, np.clip(self._xy / scale, -1, 1), np.nan)
