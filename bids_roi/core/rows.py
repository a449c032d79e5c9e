"""Sparse matrices by rows, and scipy's products without all of ``scipy.sparse``."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from scipy.sparse import csc_array, csr_array


@dataclass(slots=True)
class Rows:
    """A sparse matrix in the three arrays of ``scipy.sparse.csr_array``.

    Attributes
    ----------
    data, indices : (n,)
        Entries, row after row, and their columns.
    indptr : (R + 1,)
        Where each row begins among them.
    shape
        R and N.
    """

    data: NDArray[Any]
    indices: NDArray[np.int32]
    indptr: NDArray[np.int32]
    shape: tuple[int, int]

    def __matmul__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Product with a vector, (N,) -> (R,); each sum in the order of its row."""
        product = find_product("csr_matvec")
        if product is None:
            return np.asarray(self.whole @ values)
        sums = np.zeros(self.shape[0])
        product(*self.shape, self.indptr, self.indices, self.data, values, sums)
        return sums

    @property
    def whole(self) -> csr_array:
        """The same for all else that scipy does."""
        from scipy.sparse import csr_array

        return csr_array((self.data, self.indices, self.indptr), shape=self.shape)

    @classmethod
    def stack(cls, parts: list[Rows]) -> Rows:
        """Put matrices of as many columns below one another, as float64."""
        ends = np.cumsum([0, *(part.indices.size for part in parts)])
        pairs = zip(parts, ends, strict=False)
        pointers = [part.indptr[1:] + end for part, end in pairs]
        return cls(
            np.concatenate([part.data for part in parts]).astype(np.float64),
            np.concatenate([part.indices for part in parts]).astype(np.int32),
            np.concatenate([[0], *pointers]).astype(np.int32),
            (sum(part.shape[0] for part in parts), parts[0].shape[1]),
        )


def group_rows(
    rows: NDArray[np.int32],
    n_rows: int,
    dtype: type[np.float64 | np.uint8] = np.float64,
) -> Rows:
    """Make a matrix of ones with one column per value, in the row that it names.

    Parameters
    ----------
    rows : (n,)
        -1 for none.
    n_rows
        R.
    dtype
        Of the ones.

    Returns
    -------
    (R, n) sparse
        Columns ascend in each row.
    """
    inside = np.flatnonzero(rows >= 0).astype(np.int32)
    held = rows[inside]
    # numpy sorts 16 bits by radix, seven times as fast as 32.
    keys = held.astype(np.int16) if n_rows <= 2**15 else held
    order = inside[np.argsort(keys, kind="stable")]
    counts = np.bincount(held, minlength=n_rows)
    pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    ones = np.ones(order.size, dtype=dtype)
    return Rows(ones, order, pointers, (n_rows, rows.size))


@functools.cache
def find_product(name: str) -> Callable[..., None] | None:
    """Product of scipy that adds to what is there; private, so it may be gone."""
    # From its file: with all of scipy.sparse come numpy.f2py, numpy.ma and
    # numpy.testing, which take a third of the time in which a worker starts.
    import scipy

    folders = [f"{folder}/sparse" for folder in scipy.__path__]
    found = PathFinder.find_spec("scipy.sparse._sparsetools", folders)
    if found is None or found.loader is None:
        return None
    try:
        tools = module_from_spec(found)
        found.loader.exec_module(tools)
    except ImportError:
        return None
    product: Callable[..., None] | None = getattr(tools, name, None)
    return product


def add_points(
    sums: NDArray[np.float64],
    columns: csc_array,
    at: slice,
    series: NDArray[np.float64],
) -> None:
    """Add ``columns[:, at] @ series`` to the sums, in place and point after point.

    A point is added to what was before it, so that no bit depends on where a run was
    cut into blocks.

    Parameters
    ----------
    sums : (R, T)
        Contiguous, as the series are.
    columns : (R, N) sparse
        Weight of each point in each sum.
    at
        Which n of the points these are.
    series : (n, T)
        Their values.
    """
    csc_matvecs = find_product("csc_matvecs")
    if csc_matvecs is not None:
        pointers = columns.indptr[at.start : at.stop + 1]
        # scipy's own product begins at zeros and has no other door; by it, the sums
        # pass through memory three times more for each block.
        (n_sums, n_volumes), data = sums.shape, columns.data
        flat, values = sums.reshape(-1), series.reshape(-1)
        indices, n = columns.indices, len(series)
        csc_matvecs(n_sums, n, n_volumes, pointers, indices, data, values, flat)
        return
    from scipy.sparse import csc_array, hstack

    n = len(sums)
    same = csc_array((np.ones(n), np.arange(n), np.arange(n + 1)), shape=(n, n))
    sums[:] = hstack([same, columns[:, at]]).tocsc() @ np.concatenate([sums, series])
