"""Square matrices as vectors of edges, and back; Fisher's z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

__all__ = ["IDENTICAL", "Edges", "fisher_z", "leave_out_identical", "list_edges"]

# A correlation from here on is that of one series with itself (or with its negative)
# but for rounding: its z is infinite, or as large as the last digit happens to be.
IDENTICAL = 1 - 1e-12


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


def fisher_z(correlations: FloatArray) -> tuple[FloatArray, int]:
    """Fisher's z; edges of identical series are left out.

    Parameters
    ----------
    correlations : (E,)
        -1 to 1; NaN for missing.

    Returns
    -------
    z : (E,)
        NaN where the correlation is missing, or ``IDENTICAL`` and more.
    n_identical
        How many were left out for that.

    Notes
    -----
    z = artanh(r) (Fisher 1915, doi:10.2307/2331838). Of r = 1 it is infinite and would
    make every mean that it enters infinite; two regions with one series (a label that
    occurs twice in an atlas, a pair of regions of one voxel) tell nothing of
    connectivity.

    Examples
    --------
    >>> fisher_z(np.array([0.0, 1.0, np.nan]))
    (array([ 0., nan, nan]), 1)
    """
    identical = np.abs(correlations) >= IDENTICAL
    z = np.arctanh(np.where(identical, np.nan, correlations))
    return z, int(identical.sum())


def leave_out_identical(z: FloatArray) -> tuple[FloatArray, int]:
    """The same for values that are Fisher's z already."""
    identical = np.abs(z) >= np.arctanh(IDENTICAL)
    return np.where(identical, np.nan, z), int(identical.sum())
