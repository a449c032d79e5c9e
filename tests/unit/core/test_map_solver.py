"""Least squares over maps: against LAPACK's SVD on the dense matrix, and the truth."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import linalg
from scipy.sparse import csr_array
from support.calls import GRID, SHAPE, engine, usable_of

from bids_roi.core.map_solver import MapSolver

N = 2000


def solve(maps, data, usable=None):
    """As a run is solved: products with the maps, and with what else is asked for."""
    usable = np.ones(maps.shape[1], bool) if usable is None else usable
    solver = MapSolver(csr_array(maps), usable)
    data = np.where(usable, data, 0.0)
    more = None if solver.extra is None else data @ solver.extra.toarray().T
    return solver.solve(data @ maps.T, more), solver


def blocks(*sizes):
    """Maps of ones that do not overlap."""
    ends = np.cumsum((0, *sizes))
    maps = np.zeros((len(sizes), N))
    for row, (first, last) in enumerate(pairwise(ends)):
        maps[row, first:last] = 1
    return maps


@pytest.mark.parametrize("share", [1e-1, 1e-2, 1e-3, 1e-5, 1e-6, 1e-7, 1e-9])
def test_a_map_beside_the_same_with_a_little_of_another(share):
    """A and A + share B: the signal of both is in the data, exactly."""
    a, b, c = blocks(700, 600, 700)
    maps = np.array([a, c, a + share * b])
    truth = np.random.default_rng(0).normal(100, 10, (6, 3))
    data = truth @ maps
    found, solver = solve(maps, data)
    assert_allclose(found, truth, rtol=1e-10)
    # LAPACK has lost a digit or two more here: its own distance to the truth.
    oracle = linalg.lstsq(maps.T, data.T)[0].T
    assert_allclose(found, oracle, rtol=max(1e-10, 1e-15 / share))
    assert solver.rank == 3
    values = linalg.svdvals(maps / np.linalg.norm(maps, axis=1, keepdims=True))
    assert_allclose(solver.condition, values[0] / values[-1], rtol=1e-6)
    assert solver.dependent.tolist() == [share < 1e-2, False, share < 1e-2]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from([1e-2, 1e-3, 1e-4, 1e-5, 1e-6]), max_size=3),
    st.floats(0.2, 1.0),
)
def test_nearly_dependent_maps_equal_lapack(seed, shares, density):
    """Noise on the voxels, so that there is something to fit and not to fit."""
    rng = np.random.default_rng(seed)
    maps = rng.random((7, N)) * (rng.random((7, N)) < density)
    for row, share in enumerate(shares):
        mixture = rng.normal(size=3) @ maps[4:]
        maps[row] = mixture + share * maps[row]
    maps *= 10.0 ** rng.integers(-3, 4, (7, 1))
    usable = rng.random(N) < 0.9
    data = rng.normal(100, 10, (5, N))
    found, solver = solve(maps, data, usable)
    # Maps of norm 1, or LAPACK loses digits to their sizes alone.
    norms = np.linalg.norm(maps[:, usable], axis=1)
    scaled = maps[:, usable].T / norms
    oracle = linalg.lstsq(scaled, data[:, usable].T)[0].T / norms
    # Both lose as many digits as the condition has.
    limit = max(1e-11, 1e-14 * np.linalg.cond(scaled))
    size = np.abs(oracle).max(axis=0)
    assert_allclose(found / size, oracle / size, atol=limit, rtol=0)
    assert solver.rank == 7


def test_copies_of_any_size_share_the_signal_as_lapack_has_it():
    rng = np.random.default_rng(1)
    maps = rng.random((6, N))
    maps[3] = 5 * maps[0]
    maps[5] = maps[1] + maps[2]
    data = rng.normal(100, 10, (4, N))
    found, solver = solve(maps, data)
    assert_allclose(found, linalg.lstsq(maps.T, data.T)[0].T, rtol=1e-10)
    assert solver.rank == 4
    assert solver.dependent.tolist() == [True, True, True, True, False, True]
    assert solver.extra is None  # nothing that a second pass could find


def test_copies_and_near_copies_at_once():
    rng = np.random.default_rng(2)
    maps = rng.random((6, N))
    maps[3] = maps[0]
    maps[4] = maps[1] + 1e-5 * maps[4]
    data = rng.normal(100, 10, (4, N))
    found, solver = solve(maps, data)
    assert solver.rank == 5
    # Without the copy, and then its signal in halves; LAPACK's own halves differ.
    alone = linalg.lstsq(maps[[0, 1, 2, 4, 5]].T, data.T)[0].T
    half = alone[:, 0] / 2
    oracle = np.column_stack([half, alone[:, 1:3], half, alone[:, 3:]])
    assert_allclose(found, oracle, rtol=1e-8)


def test_the_run_is_read_again_only_for_maps_that_need_it():
    rng = np.random.default_rng(3)
    values = rng.normal(100, 10, (*SHAPE, 6))
    mask = np.ones(SHAPE, bool)
    maps = rng.random((3, *SHAPE))
    found, _ = engine(values, maps, mask)
    assert found.n_passes == 1
    assert found.solvers[0].condition < 30
    maps[2] = maps[0] + 1e-6 * maps[2]
    found, _ = engine(values, maps, mask, block=4)
    assert found.n_passes == 2
    weights, data = maps[:, usable_of(values, mask)], values[usable_of(values, mask)]
    oracle = linalg.lstsq(weights.T, data)[0].T
    assert_allclose(found.signals["least_squares"][0], oracle, rtol=1e-7)


def test_maps_that_depend_once_voxels_are_lost():
    """Maps that differ in the lost voxels only: known from the usable ones."""
    rng = np.random.default_rng(4)
    values = rng.normal(100, 10, (*SHAPE, 6))
    mask = np.ones(SHAPE, bool)
    maps = np.zeros((2, *SHAPE))
    maps[:, :5] = 1
    maps[1, 5:] = 1
    mask[5:] = False
    found, _ = engine(values, maps, mask)
    assert found.solvers[0].rank == 1
    assert found.solvers[0].dependent.all()
    half = values[:5].reshape(-1, 6).mean(0) / 2
    assert_allclose(found.signals["least_squares"][0], np.stack([half] * 2, 1))


def test_a_thousand_maps_stay_sparse():
    """Memory: what is added for near copies is no dense matrix of voxels x maps."""
    rng = np.random.default_rng(5)
    maps = np.zeros((300, 9000))
    for row in range(298):
        maps[row, 30 * row : 30 * row + 40] = rng.random(40)
    maps[298] = maps[0] + 1e-4 * maps[50]
    maps[298, 3000] = 1e-5
    maps[299] = maps[7]
    _, solver = solve(maps, rng.normal(size=(2, 9000)))
    assert solver.rank == 299
    assert solver.extra.shape[0] == 1
    assert solver.extra.nnz < 2000


def test_no_map_has_weight():
    found, solver = solve(np.zeros((2, 10)), np.ones((3, 10)))
    assert np.isnan(found).all()
    assert solver.rank == 0
    assert GRID.n_voxels == 210
