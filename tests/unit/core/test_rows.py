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


def test_sums_are_the_same_where_scipy_has_no_product_in_place(monkeypatch):
    """The private function may be gone; no bit of a sum tells it."""
    rng = np.random.default_rng(6)
    columns = random_array((7, 60), density=0.3, rng=rng, format="csc")
    series = rng.normal(1e4, 1, (60, 9))
    found = []
    there = module.find_product("csc_matvecs")
    assert there is not None
    for product in (there, None):
        monkeypatch.setattr(module, "find_product", lambda _, p=product: p)
        sums = np.ones((7, 9))
        for at in (slice(0, 25), slice(25, 60)):
            module.add_points(sums, columns, at, series[at])
        found.append(sums)
    assert_array_equal(*found)
    slow = [sum((columns[[r], :] @ series).ravel()) for r in range(7)]
    assert_allclose(found[0].sum(axis=1), np.array(slow) + 9, rtol=1e-12)
