"""Points through affines and fields, and which wrong transforms measures can show."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support.transform_cases import displace, smooth_field

from bids_roi.atlases.subject import Route, explain_fit, refuse_mirrored
from bids_roi.core import warp
from bids_roi.core.frame import Frame
from bids_roi.core.grid import Grid, resample_labels, resample_weights
from bids_roi.core.warp import Affine, measure_fit, move_points
from bids_roi.errors import AtlasError

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


def place(shape, zoom, origin):
    affine = np.diag([*np.atleast_1d(zoom) * np.ones(3), 1.0])
    affine[:3, 3] = origin
    return Grid.of(shape, affine)


def voxel_centres(grid):
    return Frame.of_grid(grid).millimetres()


def as_volume(values, grid):
    return values.reshape(*grid.shape, *values.shape[1:], order="F")


# A template of 6 mm voxels: a brain of 140 x 172 x 144 mm, its grey matter outside.
ATLAS = place((33, 39, 33), 6.0, (-96, -132, -78))
MIDDLE = np.array([0, -18, 8.0])
RUN = place((30, 30, 30), 8.0, (-116, -116, -116))


def depth(points):
    """1 at the surface of the template's brain, 0 in its middle."""
    return np.sqrt((((points - MIDDLE) / [70, 86, 72]) ** 2).sum(axis=1))


where = as_volume(depth(voxel_centres(ATLAS)), ATLAS)
LABELS = ((where < 0.95) & (where > 0.7)).astype(np.int16)


def person(seed, reach=15.0):
    """Maps from a run to the template and back, of one participant."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(rng.normal(0, 0.1, 3)).as_matrix()
    linear = turn * (rng.normal(1.12, 0.04) * rng.normal(1, 0.02, 3))
    shift = rng.uniform(-reach, reach, 3)
    step = Affine(linear, MIDDLE - linear @ (MIDDLE + shift))
    waves = rng.normal(0, 0.02, (3, 3)), rng.uniform(0, 6, 3)

    def there(points):
        moved = move_points(points, [step])
        return moved + 4 * np.sin(moved @ waves[0] + waves[1])

    def back(points):  # the affine's share; the rest is small beside a swap
        return move_points(points, [step.invert()])

    return there, back


def fit_of(move, mask, grid=RUN, labels=LABELS):
    points = move(voxel_centres(grid))
    found = as_volume(resample_labels(labels, ATLAS, points), grid) != 0
    return measure_fit(found, points, grid=grid, atlas_grid=ATLAS, mask=mask)


def brain_of(move, grid=RUN):
    return as_volume(depth(move(voxel_centres(grid))) < 1, grid)


@pytest.mark.parametrize("seed", range(12))
def test_right_transforms_raise_no_doubt_and_swapped_ones_do(seed):
    there, back = person(seed)
    mask = brain_of(there)
    assert explain_fit(fit_of(there, mask)) == []
    swapped = " ".join(explain_fit(fit_of(back, mask)))
    assert "of the regions' voxels lie in the run's mask" in swapped
    mirrored = fit_of(lambda p: there(p) * [-1, 1, 1], mask)
    route = Route(((Path("from-MNI_to-T1w_mode-image_xfm.h5"), False),))
    refuse_mirrored(fit_of(there, mask), route)
    with pytest.raises(AtlasError, match="turns left into right in 100% of the atlas"):
        refuse_mirrored(mirrored, route)


def test_another_participant_s_shows_by_place_and_not_where_brains_are_alike():
    caught = 0
    for seed in range(20):
        mask = brain_of(person(seed)[0])
        caught += bool(explain_fit(fit_of(person(100 + seed)[0], mask)))
    assert 8 <= caught < 20
    near = person(0, reach=0.0)[0]
    twin = brain_of(near)
    assert explain_fit(fit_of(lambda p: near(p + np.array([2.0, 0, 1])), twin)) == []


def test_part_of_a_brain_is_no_misfit():
    """A slab of 80 mm: the volume is that of the part which is there."""
    there, _ = person(3)
    slab = place((30, 30, 10), 8.0, (-116, -116, -30))
    fit = fit_of(there, brain_of(there, slab), grid=slab)
    whole = fit_of(there, brain_of(there))
    assert explain_fit(fit) == []
    assert fit.volume == pytest.approx(whole.volume, abs=0.05)


@pytest.mark.parametrize("zoom", [8.0, np.array([-8.0, 8, 8])])
def test_measures_of_an_affine_by_hand(zoom):
    """Also for axes that run to the left, as LAS images have them."""
    linear = np.diag([1.25, 1, 1.6])
    step = Affine(linear, MIDDLE - linear @ MIDDLE)
    origin = (-116 * np.sign(np.atleast_1d(zoom)[0]), -116, -116)
    grid = place((30, 30, 30), zoom, origin)
    mask = np.zeros(grid.shape, dtype=bool)
    mask[20:, 14:16, 14:16] = True
    fit = fit_of(lambda p: move_points(p, [step]), mask, grid=grid)
    assert fit.volume == pytest.approx(1 / 2)
    assert fit.mirrored == 0
    middle = as_volume(voxel_centres(grid), grid)[mask]
    away = np.sqrt(((middle - MIDDLE) ** 2).sum(axis=1).min())
    assert fit.distance == pytest.approx(away, abs=1.5)
    inside = np.abs(linear @ (middle - MIDDLE).T + MIDDLE[:, None])
    assert fit.covered == pytest.approx((inside[0] <= 96).mean())


def test_nothing_to_measure():
    empty = np.zeros_like(LABELS)
    mask = np.ones(RUN.shape, dtype=bool)
    fit = fit_of(lambda p: p, mask, labels=empty)
    assert fit.inside == 0
    (words,) = explain_fit(fit)
    assert "0% of the regions' voxels" in words
    assert np.isnan(fit_of(lambda p: p, None).inside)
    assert explain_fit(fit_of(lambda p: p, None)) == []
    assert np.isnan(fit_of(lambda p: p, ~mask).covered)
