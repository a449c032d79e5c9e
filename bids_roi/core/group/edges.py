"""Square matrices as vectors of edges, and back; edges averaged in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.relmat import IDENTICAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    from collections.abc import Sequence


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
        used = np.isfinite(values) & (self.block_of_edge >= 0)
        block = self.block_of_edge[used]
        size = len(self.pairs)
        n = np.bincount(block, minlength=size)
        total = np.bincount(block, weights=values[used], minlength=size)
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
