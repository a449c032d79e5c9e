"""Points through affines and fields; values of a grid at points."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.transform_cases import displace, smooth_field

from bids_roi.core import warp
from bids_roi.core.frame import Frame
from bids_roi.core.grid import Grid, resample_labels, resample_weights

DIRECTION = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, -1.0]])


def field(vectors, origin, zooms, direction=DIRECTION, log=None):
    planes = vectors.transpose(2, 1, 0, 3)

    def read(start, stop):
        if log is not None:
            log.append((start, stop))
        return planes[start:stop]

    @contextlib.contextmanager
    def opened():
        yield read

    to_mm = direction * np.asarray(zooms)
    return warp.Field(vectors.shape[:3], to_mm, np.asarray(origin), opened)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depth", [1, 2, 100])
def test_a_field_moves_points_as_plain_arithmetic_does(dtype, depth, monkeypatch):
    """Inside, on voxel centres, in the half voxel at the edge and far out."""
    rng = np.random.default_rng(1)
    vectors = smooth_field(rng, (6, 5, 7), 4.0).astype(dtype)
    origin, zooms = [-10.0, 12, 3], (2.0, 3, 2.5)
    monkeypatch.setattr(warp, "_SLAB_BYTES", depth * 24 * 30)
    monkeypatch.setattr(warp, "_POINTS", 37)
    index = np.vstack(
        [
            rng.uniform(-1.2, 7.5, (400, 3)),
            np.argwhere(np.ones((6, 5, 7))).astype(float),
            np.argwhere(np.ones((8, 7, 9))) - 1.25,
        ]
    )
    points = index @ (DIRECTION * zooms).T + origin
    before = points.copy()
    moved = warp.move_points(points, [field(vectors, origin, zooms)])
    slow = [
        displace(p, vectors.astype(float), origin, zooms, DIRECTION) for p in points
    ]
    np.testing.assert_allclose(moved, slow, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(points, before)
    inside = (moved != points).any(axis=1)
    assert 100 < inside.sum() < len(points) - 100


def test_half_a_voxel_beyond_the_centres_is_the_last_that_moves():
    """ITK's rule at the two borders: the lower is in, the upper is out."""
    vectors = np.full((4, 4, 4, 3), 1.0)
    step = field(vectors, np.zeros(3), (1.0, 1, 1), np.eye(3))
    points = np.full((4, 3), 1.0)
    points[:, 1] = [-0.5, -0.5000001, 3.4999999, 3.5]
    moved = warp.move_points(points, [step]) - points
    assert moved[:, 0].tolist() == [1, 0, 1, 0]


def test_points_that_are_no_numbers_stay_so():
    step = field(np.ones((3, 3, 3, 3)), np.zeros(3), (1.0, 1, 1), np.eye(3))
    moved = warp.move_points(np.array([[np.nan, 1, 1], [1, 1, 1]]), [step])
    assert np.isnan(moved[0, 0])
    assert moved[1].tolist() == [2, 2, 2]


def test_only_planes_near_points_are_read_and_each_slab_once(monkeypatch):
    monkeypatch.setattr(warp, "_SLAB_BYTES", 24 * 9 * 2)
    log = []
    vectors = np.zeros((3, 3, 20, 3))
    step = field(vectors, np.zeros(3), (1.0, 1, 1), np.eye(3), log)
    points = np.array([[1, 1, 9.5], [1, 1, 4], [1, 1, 5.2], [1, 1, 19.3]])
    warp.move_points(points, [step])
    assert log == [(4, 7), (8, 11), (18, 20)]


def test_an_affine_undoes_itself_and_steps_come_in_order():
    rng = np.random.default_rng(2)
    points = rng.uniform(-80, 80, (200, 3))
    first = warp.Affine(np.eye(3) * 2, np.array([1.0, 0, 0]))
    second = warp.Affine(np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3)), rng.normal(size=3))
    there = warp.move_points(points, [first, second])
    by_hand = (second.matrix @ (2 * points + [1, 0, 0]).T).T + second.offset
    np.testing.assert_allclose(there, by_hand, atol=1e-10)
    back = warp.move_points(there, [second.invert(), first.invert()])
    np.testing.assert_allclose(back, points, atol=1e-10)


@given(seed=st.integers(0, 2**32 - 1), background=st.sampled_from([0, -1]))
def test_values_at_points_are_those_of_resampling(seed, background):
    """Affine pairs of grids: core.grid's resampling is another algorithm (scipy's)."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(rng.uniform(1, 3, 3)) + rng.uniform(-0.3, 0.3, (3, 3))
    affine[:3, 3] = rng.uniform(-5, 5, 3)
    source = Grid.of((6, 7, 5), affine)
    other = np.eye(4)
    other[:3, :3] = np.diag(rng.uniform(1, 3, 3)) + rng.uniform(-0.3, 0.3, (3, 3))
    other[:3, 3] = rng.uniform(-8, 5, 3)
    target = Grid.of((7, 6, 8), other)
    labels = rng.integers(0, 9, source.shape).astype(np.int32)
    weights = rng.normal(size=source.shape)
    points = Frame.of_grid(target).millimetres()
    expected = resample_labels(labels, source, target, background=background)
    expected = expected.ravel(order="F")
    found = resample_labels(labels, source, points, background=background)
    near = np.linalg.inv(affine) @ np.vstack([points.T, np.ones(len(points))])
    # Left out: places within 2e-3 voxel of where one label, or the grid, ends.
    tie = np.abs(np.abs(near[:3] % 1) - 0.5) < 2e-3
    last = np.array(source.shape)[:, None] - 1
    edge = (np.abs(near[:3]) < 2e-3) | (np.abs(near[:3] - last) < 2e-3)
    clear = ~(tie | edge).any(axis=0)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found[clear], expected[clear])
    expected = resample_weights(weights, source, target).ravel(order="F")
    moved = resample_weights(weights, source, points)
    np.testing.assert_allclose(moved[clear], expected[clear], atol=1e-12)


def test_the_grid_s_own_centres_keep_their_labels_to_the_border():
    """Rounding of an oblique affine must not cost the outermost voxels."""
    affine = np.eye(4)
    affine[:3, :3] = DIRECTION * [2.1, 2.2, 2.3]
    affine[:3, 3] = [-91.3, 77.7, 12.9]
    grid = Grid.of((7, 9, 8), affine)
    labels = np.arange(1, 1 + grid.n_voxels).reshape(grid.shape)
    points = Frame.of_grid(grid).millimetres()
    own = labels.ravel(order="F")
    np.testing.assert_array_equal(resample_labels(labels, grid, points), own)
    found = resample_weights(labels.astype(float), grid, points)
    np.testing.assert_allclose(found, own, atol=1e-9)
