"""Sparse matrices by rows, held against those of scipy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array, random_array, vstack

from bids_roi.core import rows as module
from bids_roi.core.rows import Rows


def rows_of(matrix):
    return Rows(matrix.data, matrix.indices, matrix.indptr, matrix.shape)


def draw(shape, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    matrix = csr_array(random_array(shape, density=0.3, rng=rng, format="csr"))
    matrix.data = np.asarray(200 * matrix.data).astype(dtype)
    return matrix


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
@pytest.mark.parametrize("shape", [(7, 60), (1, 1), (5, 3), (400, 2000)])
def test_product_is_that_of_scipy_bit_by_bit(monkeypatch, shape, dtype):
    matrix = draw(shape, dtype)
    values = np.random.default_rng(1).normal(1e4, 1, shape[1])
    found = rows_of(matrix) @ values
    assert_array_equal(found, matrix @ values)
    assert_allclose(found, matrix.toarray().astype(float) @ values, rtol=1e-12)
    # The private function may be gone; no bit tells it.
    assert module.find_product("csr_matvec") is not None
    monkeypatch.setattr(module, "find_product", lambda _: None)
    assert_array_equal(rows_of(matrix) @ values, found)


def test_what_scipy_has_not_is_no_product():
    assert module.find_product("no_such_product") is None


def test_matrices_below_one_another():
    parts = [draw((3, 20)), csr_array((2, 20)), draw((4, 20), np.uint8, seed=3)]
    stacked = Rows.stack([rows_of(part) for part in parts])
    expected = vstack(parts, format="csr", dtype=np.float64)
    assert stacked.shape == (9, 20)
    assert stacked.data.dtype == np.float64
    for name in ("data", "indices", "indptr"):
        assert_array_equal(getattr(stacked, name), getattr(expected, name))
    assert_array_equal(stacked.whole.toarray(), expected.toarray())
