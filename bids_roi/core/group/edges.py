"""Square matrices as vectors of edges, and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.relmat import IDENTICAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


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
