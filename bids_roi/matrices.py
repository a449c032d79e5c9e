"""Connectivity matrices of many runs as arrays, for machine learning."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Matrices", "edges_to_matrices"]


@dataclass(frozen=True, slots=True, repr=False)
class Matrices:
    """Connectivity matrices of several runs, as machine learning takes them.

    Attributes
    ----------
    values : (runs, R, R)
        As in the tables: r, z or whatever was asked for; NaN for no value.
    names : tuple of str, R
        The regions, in the order of rows and columns.
    runs : DataFrame
        One row per matrix: entities, as ``Outputs.runs`` has them, and ``path``.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...]
    runs: pd.DataFrame

    def __repr__(self) -> str:
        n_runs, n_regions, _ = self.values.shape
        text = f"{n_runs} x {n_regions} x {n_regions}"
        first = ", ".join(self.names[:3])[:60]
        return f"<Matrices (runs, regions, regions): {text}; {first} ...>"

    def _repr_html_(self) -> str:
        """Show the runs in a notebook."""
        table = self.runs.to_html(max_rows=8)
        return f"<p>{html.escape(repr(self))}</p>{table}"


def edges_to_matrices(
    values: ArrayLike,
    edges: ArrayLike,
    n_regions: int | None = None,
    *,
    diagonal: float = np.nan,
) -> NDArray[np.float64]:
    """Make square matrices of the edges of a stack.

    Parameters
    ----------
    values : (..., E)
        ``relmat/<stat>/data`` of a ``*_stack.h5``, or some of its rows.
    edges : (E, 2)
        ``relmat/<stat>/edges``: positions of two regions, counted from 0.
    n_regions
        R; one more than the largest position where it is not given.
    diagonal
        What stands there if it is not among the edges: 1 for correlations as nilearn
        has them, or NaN.

    Returns
    -------
    matrices : (..., R, R)
        Symmetric; in the units of ``values``, NaN where there is no edge.

    Raises
    ------
    UsageError
        If values and edges do not go together.

    Examples
    --------
    >>> edges_to_matrices([[0.5, 0.25, 0.75]], [[0, 1], [0, 2], [1, 2]], diagonal=1)
    array([[[1.  , 0.5 , 0.25],
            [0.5 , 1.  , 0.75],
            [0.25, 0.75, 1.  ]]])
    """
    try:
        pairs, numbers = np.asarray(edges), np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise UsageError(f"values and edges are arrays of numbers: {error}.") from error
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        msg = f"edges are pairs of whole numbers, (E, 2), not {pairs.dtype}"
        raise UsageError(f"{msg} {pairs.shape}.")
    if not numbers.ndim or numbers.shape[-1] != len(pairs):
        msg = f"values of shape {numbers.shape} do not go with {len(pairs)} edges."
        raise UsageError(msg, remedy="Their last axis is that of the edges.")
    least = int(pairs.max(initial=-1)) + 1
    size = least if n_regions is None else n_regions
    if size < least or pairs.min(initial=0) < 0:
        msg = f"edges lead from region {pairs.min()} to {pairs.max()}, of {size}."
        raise UsageError(msg, remedy="Positions are counted from 0.")
    matrices = np.full((*numbers.shape[:-1], size, size), np.nan)
    matrices[..., range(size), range(size)] = diagonal
    first, second = pairs.T
    matrices[..., first, second] = numbers
    matrices[..., second, first] = numbers
    return matrices
