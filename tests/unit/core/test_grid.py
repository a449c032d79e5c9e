"""Grids: one tolerance, nearest neighbour as the oracle and nilearn have it."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from support import oracles

from bids_roi.core.grid import (
    Grid,
    nearest_voxels,
    resample_labels,
    resample_weights,
    same_grid,
)
from bids_roi.core.mapping import map_labels, strongest_map


def affine(zooms=(2, 2, 2), origin=(-9, -8, -7), turn=0.0):
    c, s = np.cos(turn), np.sin(turn)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(zooms)
    matrix[:3, 3] = origin
    return matrix


# (shift in mm on 2 mm voxels, same?): no gap between same and resampled.
@pytest.mark.parametrize(
    ("shift", "same"), [(0, True), (2e-4, True), (1.9e-3, True), (2.1e-3, False)]
)
def test_one_tolerance(shift, same):
    one = Grid.of((9, 8, 7), affine())
    other = Grid.of((9, 8, 7), affine(origin=(-9 + shift, -8, -7)))
    assert same_grid(one, other) is same
    labels = np.arange(9 * 8 * 7).reshape(9, 8, 7)
    moved = resample_labels(labels, one, other)
    inner = slice(None, None if same else -1)
    assert_array_equal(moved[inner], labels[inner])


@pytest.mark.parametrize("turn", [0.0, 0.2, -0.7])
@pytest.mark.parametrize("zooms", [(2, 2, 2), (1.6, 2.4, 3.1)])
def test_an_atlas_cut_out_of_the_grid_keeps_its_outermost_voxels(zooms, turn):
    """Its centres are voxel centres of the run, but for the rounding of headers."""
    whole = affine(zooms, (-31.7, 12.3, 5.9), turn).astype("f4").astype("f8")
    first, size = (3, 2, 1), (5, 7, 6)
    part = whole.copy()
    part[:3, 3] = (whole @ [*first, 1])[:3].astype("f4")
    labels = np.random.default_rng(0).integers(1, 9, size)
    source, target = Grid.of(size, part), Grid.of((12, 12, 9), whole)
    expected = np.zeros(target.shape, labels.dtype)
    cut = tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))
    expected[cut] = labels
    assert_array_equal(resample_labels(labels, source, target), expected)
    weights = labels / 3
    moved = resample_weights(weights, source, target)
    assert_allclose(moved, expected / 3, atol=1e-4)
    assert_array_equal(moved > 0, expected > 0)


def test_other_shape_is_another_grid():
    assert not same_grid(Grid.of((9, 8, 7), affine()), Grid.of((9, 8, 6), affine()))


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.sampled_from([1.3, 2.0, 3.7])] * 3),
    st.tuples(*[st.floats(-6, 6)] * 3),
    st.sampled_from([0.0, 0.2, np.pi / 2, np.pi]),
    st.integers(0, 2**32 - 1),
)
def test_resampling_equals_one_voxel_after_the_other(zooms, shift, turn, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 40000, (6, 5, 4))
    source = Grid.of(labels.shape, affine())
    origin = np.array([-9, -8, -7]) + shift
    target = Grid.of((5, 6, 4), affine(zooms, origin, turn))
    expected = oracles.nearest_labels(
        labels, source.matrix, target.shape, target.matrix
    )
    found = resample_labels(labels, source, target)
    # A centre on a voxel's border may fall on either side; nothing else may differ.
    back = np.linalg.inv(source.matrix) @ target.matrix
    ijk = np.argwhere(found != expected)
    ends = (back @ np.c_[ijk, np.ones(len(ijk))].T)[:3]
    ties = np.abs(np.abs(ends - np.floor(ends) - 0.5)) < 1e-6
    beyond = np.abs(ends - np.clip(ends, 0, np.array(labels.shape)[:, None] - 1))
    assert (ties | (np.abs(beyond - 1e-3) < 1e-6)).any(axis=0).all()


def test_background_fills_what_the_source_does_not_hold():
    rows = np.zeros((4, 4, 4), np.int32)
    source = Grid.of((4, 4, 4), affine())
    target = Grid.of((8, 4, 4), affine(origin=(-17, -8, -7)))
    moved = resample_labels(rows, source, target, background=-1)
    assert (moved[:4] == -1).all()
    assert (moved[4:] == 0).all()


def test_nearest_voxels_outside_the_field_of_view():
    source = Grid.of((4, 4, 4), affine())
    target = Grid.of((2, 4, 4), affine(origin=(-7, -8, -7)))
    found = nearest_voxels(np.array([0, 1, 2, 3]), source, target)
    assert_array_equal(found, [-1, 0, 1, -1])


def test_regions_follow_the_table_not_the_values():
    labels = np.zeros((3, 3, 3), int)
    labels[0], labels[1], labels[2] = 500, 3, 9
    grid = Grid.of((3, 3, 3), affine())
    region = map_labels(labels, np.array([40000, 500, 3]), grid, grid)
    rows = strongest_map(region.weights).reshape((3, 3, 3), order="F")
    assert (rows[0] == 1).all()
    assert (rows[1] == 2).all()
    assert (rows[2] == -1).all()  # 9 is in no table
    assert_array_equal(region.n_voxels_atlas, [0, 9, 9])


def test_coverage_on_a_half_covered_square_by_hand():
    """A 4 x 4 x 1 atlas of 1 mm on two BOLD voxels of 2 mm: the left half only."""
    labels = np.ones((4, 4, 1), int)
    labels[:, 2:] = 2
    source = Grid.of((4, 4, 1), np.eye(4))
    matrix = np.diag([2.0, 2.0, 1.0, 1.0])
    matrix[:3, 3] = [0.5, 0.5, 0]
    target = Grid.of((1, 2, 1), matrix)
    region = map_labels(labels, np.array([1, 2]), source, target)
    from bids_roi.core.partition import build_partition

    partition = build_partition([region])
    usable = np.ones(partition.voxels.size, bool)
    assert_array_equal(partition.coverage(0, usable), [0.5, 0.5])
    usable[partition.voxels == 1] = False
    assert_array_equal(partition.coverage(0, usable), [0.5, 0.0])


@pytest.mark.parametrize("turn", [0.0, 0.1])
def test_the_border_of_a_large_grid_takes_no_memory(turn):
    """All that an atlas without background holds, cut out of the grid of the run."""
    here = np.array([5, 30, 20])
    whole, once = affine(), affine((1, 1, 1), turn=turn)[:3, :3]
    whole[:3, :3] = once @ np.roll(once, 1, axis=(0, 1)) @ whole[:3, :3]
    cut = whole.copy()
    cut[:3, 3] = whole[:3, :3] @ here + whole[:3, 3]
    labels = np.random.default_rng(3).integers(1, 9, (80, 50, 60)).astype(np.int16)
    expected = np.zeros((110, 100, 120), dtype=np.int16)
    expected[
        tuple(slice(a, a + n) for a, n in zip(here, labels.shape, strict=True))
    ] = labels
    source, target = Grid.of(labels.shape, cut), Grid.of(expected.shape, whole)
    resample_labels(labels[:2], Grid.of((2, 50, 60), cut), target)  # imports SciPy
    tracemalloc.start()
    found = resample_labels(labels, source, target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_array_equal(found, expected)
    assert peak < 5 * expected.nbytes
