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
    from scipy.sparse import csr_array


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
