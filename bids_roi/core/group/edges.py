"""Edges of square matrices, listed and in blocks, and their moments, unit by unit.

Every edge has a count of its own, for a region that is lost in one run leaves its edges
out of that run only. Memory does not depend on the number of units. Two that hold some
units each are merged; merging with one that holds none changes no bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.relmat import IDENTICAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


# A standard deviation of less than this share of the mean is rounding: values that are
# the same but for the order in which they were averaged differ by 1e-16 of them.
CONSTANT = 1e-12

# Edges that are worked on at a time: what a step needs of them stays in the cache. That
# takes a third of the time of steps over all.
_BLOCK = 2**13


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

    def fill(
        self, values: NDArray[np.float64] | NDArray[np.int64], diagonal: float = np.nan
    ) -> FloatArray:
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
def off_diagonal(n_regions: int) -> NDArray[np.intp]:
    """Positions in an upper triangle, row by row, that are not on the diagonal.

    >>> off_diagonal(3)
    array([1, 2, 4])
    """
    return np.flatnonzero(list_edges(n_regions, diagonal=True).between)


def leave_out_identical(z: FloatArray) -> tuple[FloatArray, int]:
    """Leave out what is Fisher's z already and of identical series.

    Parameters
    ----------
    z : (E,)
        Fisher's z; NaN for missing.

    Returns
    -------
    z : (E,)
        NaN where r is ``relmat.IDENTICAL`` or more.
    n_identical
        How many were left out for that.
    """
    identical = np.abs(z) >= np.arctanh(IDENTICAL)
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
        Position in ``pairs``; -1 for edges of a region without network.
    n_edges : (B,)
        Of each block.
    """

    names: tuple[str, ...]
    n_regions: NDArray[np.intp]
    pairs: tuple[tuple[int, int], ...]
    block_of_edge: NDArray[np.intp]
    n_edges: NDArray[np.intp]

    def average(self, values: FloatArray) -> FloatArray:
        """Mean of the edges of each block, (E,) -> (B,); NaN where it has none."""
        there, place = np.isfinite(values), self.block_of_edge + 1
        size = len(self.pairs) + 1
        # Few are missing: they are counted, and add 0, which changes no bit of a sum.
        n = self.n_edges - np.bincount(place[~there], minlength=size)[1:]
        known = np.where(there, values, 0.0)
        total = np.bincount(place, weights=known, minlength=size)[1:]
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
    block = np.full(edges.size, -1, dtype=np.intp)
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


def _fill_gaps(
    values: FloatArray, means: FloatArray
) -> tuple[FloatArray, NDArray[np.intp]]:
    """Values with the mean where one is missing, which it does not change; and where.

    As a rule few are missing: to choose between the two everywhere takes longer.
    """
    gaps = np.flatnonzero(~np.isfinite(values))
    if gaps.size:
        values = values.copy()
        values[gaps] = means[gaps]
    return values, gaps


class Sums:
    """Arrays that travel from process to process, counts in as few bytes as they fit.

    A batch of 64 matrices of 400 regions would be 12 MB, and to move them took a tenth
    of the time of the group level.
    """

    def __getstate__(self) -> dict[str, NDArray[Any]]:
        """Attributes, counts narrowed."""
        return {
            name: array.astype(np.min_scalar_type(array.max(initial=0)))
            if array.dtype == np.int64
            else array
            for name, array in vars(self).items()
        }

    def __setstate__(self, state: dict[str, NDArray[Any]]) -> None:
        """Attributes as they were."""
        for name, array in state.items():
            wide = array if array.dtype == np.float64 else array.astype(np.int64)
            setattr(self, name, wide)


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
        self.n = np.zeros(size, dtype=np.int64)
        self.squares = np.zeros(size)
        self._mean = np.zeros(size)

    def update(self, values: FloatArray) -> None:
        """Add a unit; its missing edges, NaN, are left out, (E,)."""
        for part in blocks_of(values.size):
            n, mean = self.n[part], self._mean[part]
            own, gaps = _fill_gaps(values[part], mean)
            n += 1
            n[gaps] -= 1
            change = own - mean
            mean += change / np.maximum(n, 1)
            self.squares[part] += change * (own - mean)

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
        return np.where(self.n > 0, self._mean, np.nan)

    @property
    def deviation(self) -> FloatArray:
        """Standard deviation (ddof 1); NaN where fewer than two units, (E,)."""
        variance = self.squares / np.maximum(self.n - 1, 1)
        return np.where(self.n > 1, np.sqrt(variance), np.nan)

    def begin(self, values: FloatArray) -> None:
        """Add the first unit, (E,): the bits of ``update`` in a third of its time."""
        there = np.isfinite(values)
        self.n[:] = there
        # Added to 0, as there: -0 becomes 0.
        np.add(np.where(there, values, 0.0), 0.0, out=self._mean)

    def reset(self) -> None:
        """Begin anew."""
        self.n[:] = 0
        self.squares[:] = 0
        self._mean[:] = 0


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
        self.n = np.zeros(size, dtype=np.int64)
        self._mean_x, self._mean_y = np.zeros(size), np.zeros(size)
        self._xx, self._yy, self._xy = np.zeros(size), np.zeros(size), np.zeros(size)

    def update(self, number: float, values: FloatArray) -> None:
        """Add a unit with its number; missing edges, NaN, are left out, (E,)."""
        for part in blocks_of(values.size):
            n, mean_x, mean_y = self.n[part], self._mean_x[part], self._mean_y[part]
            own, gaps = _fill_gaps(values[part], mean_y)
            n += 1
            n[gaps] -= 1
            share = 1 / np.maximum(n, 1)
            share[gaps] = 0
            change_x, change_y = number - mean_x, own - mean_y
            mean_x += change_x * share
            mean_y += change_y * share
            rest = number - mean_x
            rest[gaps] = 0
            self._xx[part] += change_x * rest
            self._xy[part] += change_y * rest
            self._yy[part] += change_y * (own - mean_y)

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
