"""Statistics of whole series, voxel tSNR: SPM's lines, PCA, loops over voxels."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from support import oracles
from support.cuts import cut_points, cut_volumes

from bids_roi.core import statistics
from bids_roi.core.frame import Frame
from bids_roi.core.grid import Grid
from bids_roi.core.mapping import map_labels, map_spheres, map_weights
from bids_roi.core.partition import build_partition
from bids_roi.core.reduce import reduce_run
from bids_roi.core.statistics import group_regions
from bids_roi.core.volumes import Smoothing

SHAPE = (7, 6, 5)
GRID = Grid.of(SHAPE, np.eye(4))
N = int(np.prod(SHAPE))
MEASURES = ("voxel_tsnr", "homogeneity")
INDEX = np.array([4, 1, 9, 2])  # 9 is in no image


def labels(seed=0):
    """Region 4 of a few voxels, 1 of about half of all, 2 of the rest."""
    volume = np.random.default_rng(seed).choice([1, 2, 0], SHAPE, p=[0.6, 0.3, 0.1])
    volume[0, :2] = 4
    return volume


def bold(n_volumes=30, seed=0):
    """Two courses that voxels share in part, about levels that differ."""
    rng = np.random.default_rng(seed)
    courses, noise = rng.normal(0, 3, (2, n_volumes)), rng.normal(0, 1, (*SHAPE, 1))
    values = rng.uniform(500, 900, (*SHAPE, 1)) + courses[0] + noise * courses[1]
    return values + rng.normal(0, 2, (*SHAPE, n_volumes))


def reduce(values, maps=None, *, ends=None, block=4, gather_bytes=2**27, **more):
    """All of it, from blocks of volumes, or of points up to each of ``ends``."""
    n_volumes = values.shape[3]
    flat = values.reshape(-1, n_volumes, order="F").T
    partition = build_partition(maps or [map_labels(labels(), INDEX, GRID, GRID)])
    asked = {"statistics": ("eigenvariate",), "measures": MEASURES} | more
    mask = asked.pop("mask", np.ones(SHAPE, bool)).ravel(order="F")
    passes = []

    def read():
        passes.append(1)
        yield from cut_points(flat, ends) if ends else cut_volumes(flat, block)

    found = reduce_run(
        read,
        partition,
        in_mask=mask[partition.voxels],
        n_volumes=n_volumes,
        gather_bytes=gather_bytes,
        **asked,
    )
    assert len(passes) == found.n_passes
    return found


def of_region(values, inside, steady=slice(None)):
    """Voxels of a region, (T, n), centred over the steady volumes; and not centred."""
    voxels = values[inside].T.astype(float)
    return voxels - voxels[steady].mean(axis=0), voxels[steady]


def hold(found, values, inside, column, rtol=1e-9):
    centred, voxels = of_region(values, inside)
    assert_allclose(
        found.signals["eigenvariate"][0][:, column],
        oracles.eigenvariate(centred),
        rtol=rtol,
        atol=rtol * np.abs(centred).max(),
    )
    tsnr, homogeneity = (found.measures[name][0][column] for name in MEASURES)
    assert_allclose(tsnr, oracles.voxel_tsnr(voxels), rtol=1e-11)
    assert_allclose(homogeneity, oracles.homogeneity(voxels), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("ends", [None, [100, N]])
def test_a_correlation_is_never_above_1(ends):
    """Of single voxels it is 1, and by rounding a little more."""
    single = map_labels(
        np.arange(1, N + 1).reshape(SHAPE), np.arange(1, N + 1), GRID, GRID
    )
    found = reduce(bold(31), [single], ends=ends).measures["homogeneity"][0]
    assert found.max() <= 1
    assert_allclose(found, 1, rtol=1e-12)


@pytest.mark.parametrize("cut", [{}, {"ends": (3, 90, N)}], ids=["volumes", "points"])
@pytest.mark.parametrize("n_volumes", [30, 7], ids=["long", "short"])
def test_regions_of_fewer_and_of_more_voxels_than_volumes(n_volumes, cut):
    values = bold(n_volumes)
    found = reduce(values, **cut)
    for column in (0, 1, 3):
        hold(found, values, labels() == INDEX[column], column)
    for arrays in (*found.signals.values(), *found.measures.values()):
        assert np.isnan(arrays[0][..., 2]).all()
    assert found.n_passes == 1


def test_eigenvariate_is_the_first_score_of_scikit_learn():
    from sklearn.decomposition import PCA

    values = bold()
    found = reduce(values).signals["eigenvariate"][0]
    for column in (0, 1, 3):
        centred, _ = of_region(values, labels() == INDEX[column])
        pca = PCA(n_components=1, svd_solver="full").fit(centred)
        scores = pca.transform(centred)[:, 0] * np.sign(pca.components_.sum())
        expected = scores / np.sqrt(centred.shape[1])
        assert_allclose(found[:, column], expected, rtol=1e-8, atol=1e-8)


def test_eigenvariate_of_one_voxel_is_the_voxel_and_of_many_alike_their_mean():
    """SPM's scale: a course that all voxels share has its own size."""
    course = np.random.default_rng(1).normal(0, 5, 20)
    values = np.broadcast_to(700 + course, (*SHAPE, 20)).copy()
    found = reduce(values)
    for column in (0, 1, 3):
        one = found.signals["eigenvariate"][0][:, column]
        assert_allclose(one, course - course.mean(), atol=1e-10)
        assert_allclose(found.measures["homogeneity"][0][column], 1, rtol=1e-12)


def test_sign_is_that_of_most_of_the_weight():
    course = np.random.default_rng(2).normal(0, 5, 20)
    values = 700 + course * np.where(np.arange(SHAPE[0]) < 2, -1.0, 1.0)[
        :, None, None, None
    ] * np.ones((*SHAPE, 1))
    one = reduce(values).signals["eigenvariate"][0][:, 1]
    assert_allclose(one, course - course.mean(), atol=1e-10)


def test_only_steady_volumes_decide_and_all_have_a_row():
    values = bold()
    values[..., :3] *= 1.6  # as before the magnetisation is steady
    steady = np.arange(30) >= 3
    found = reduce(values, steady=steady)
    without = reduce(values[..., 3:])
    eigenvariate = found.signals["eigenvariate"][0]
    rest = without.signals["eigenvariate"][0]
    assert_allclose(eigenvariate[3:], rest, rtol=1e-9, atol=1e-9)
    for name in MEASURES:
        assert_allclose(found.measures[name][0], without.measures[name][0], rtol=1e-11)
    for column in (0, 1, 3):
        centred, _ = of_region(values, labels() == INDEX[column], steady)
        _, _, vh = np.linalg.svd(centred[steady], full_matrices=False)
        weights = vh[0] * np.sign(vh[0].sum())
        expected = centred @ weights / np.sqrt(weights.size)
        assert_allclose(eigenvariate[:, column], expected, rtol=1e-8, atol=1e-8)
    # With them the first component is their jump, which is no signal.
    assert np.abs(reduce(values).signals["eigenvariate"][0][:3, 1]).min() > 100


def test_voxels_without_change_while_it_is_steady_are_left_out():
    values, inside = bold(), labels() == 2
    steady = np.arange(30) >= 2
    first = tuple(np.argwhere(inside)[0])
    values[first][2:] = 640.0
    found = reduce(values, steady=steady)
    inside[first] = False
    assert found.usable.all()
    hold(reduce(values[..., 2:]), values[..., 2:], inside, 3)
    assert_allclose(
        found.measures["homogeneity"][0][3],
        oracles.homogeneity(values[inside].T[2:]),
        rtol=1e-10,
    )
    values[labels() == 4, 2:] = 640.0  # all of a region
    found = reduce(values, steady=steady)
    assert np.isnan(found.signals["eigenvariate"][0][:, 0]).all()
    assert np.isnan(found.measures["voxel_tsnr"][0][0])
    assert np.isnan(found.measures["homogeneity"][0][0])


@pytest.mark.parametrize("cut", [{}, {"ends": (3, 90, N)}], ids=["volumes", "points"])
def test_voxels_that_cannot_be_used_are_left_out(cut):
    values, mask = bold(), np.ones(SHAPE, bool)
    values[1, 0, 0, 4] = np.nan
    values[2, 1, 1] = 0.0
    values[3, 1, 1] = 55.0
    values[4, 1, 1, 5:9] = 0.0
    mask[5, :, 0] = False
    found = reduce(values, mask=mask, **cut)
    usable = oracles.usable_voxels(values, mask)
    for column in (0, 1, 3):
        hold(found, values, usable & (labels() == INDEX[column]), column)
    assert found.n_passes == (1 if cut else 2)


def test_voxels_that_cancel_have_no_signal_to_be_like():
    course = np.random.default_rng(3).normal(0, 5, 20)
    values = bold(20)
    some = np.argwhere(labels() == 4)
    for i, place in enumerate(some):
        values[tuple(place)] = 700 + course * (-1) ** i
    assert len(some) % 2 == 0
    assert np.isnan(reduce(values).measures["homogeneity"][0][0])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40_000),
    st.sampled_from([{}, {"ends": (50, N)}]),
)
def test_no_bit_depends_on_what_fits_nor_on_company(seed, gather_bytes, cut):
    """Also where a region does not fit, and is passed in pieces."""
    values = bold(8, seed).astype("f4")
    whole = map_labels(np.ones(SHAPE, int), np.array([1]), GRID, GRID)
    own = map_labels(labels(seed), INDEX, GRID, GRID)
    old, statistics._PIECE = statistics._PIECE, 16
    try:
        one = reduce(values, [whole, own])
        other = reduce(values, [own, whole], gather_bytes=gather_bytes, **cut)
    finally:
        statistics._PIECE = old
    for of in ("signals", "measures"):
        for name in set(getattr(one, of)) - {"mean"}:
            first, second = getattr(one, of)[name], getattr(other, of)[name]
            same = assert_array_equal
            if of == "measures" and cut:  # by points other sums are taken
                same = functools.partial(assert_allclose, rtol=1e-10, atol=1e-12)
            same(first[0], second[1])
            same(first[1], second[0])


def test_groups_hold_what_fits_and_every_voxel_once_per_region():
    rng = np.random.default_rng(4)
    pieces = rng.integers(1, 40, SHAPE)
    maps = [
        map_labels(pieces, np.arange(1, 40), GRID, GRID),
        map_labels(np.ones(SHAPE, int), np.array([1]), GRID, GRID),
    ]
    partition = build_partition(maps)
    old, statistics._PIECE = statistics._PIECE, 8
    try:
        groups = group_regions(partition, np.ones(N, bool), 30)
    finally:
        statistics._PIECE = old
    assert max(group.voxels.size for group in groups) <= 24
    seen = np.zeros((2, 40, N), int)
    for group in groups:
        for part in group.parts:
            assert np.isin(part.positions, group.voxels).all()
            seen[part.atlas, part.row][part.positions] += 1
    assert (seen[1, 0] == 1).all()
    assert (seen[0].sum(axis=0) == 1).all()
    # 5 or so of a piece fit: no pass for each.
    assert len(groups) < 9 + 30


@pytest.mark.parametrize(("share", "n_passes"), [(1, 1), (0.6, 2), (0.25, 5)])
def test_passes_are_what_the_bound_asks_for(share, n_passes):
    rng = np.random.default_rng(5)
    pieces = rng.integers(1, 100, (16, 16, 16))
    grid = Grid.of(pieces.shape, np.eye(4))
    maps = [map_labels(pieces, np.arange(1, 100), grid, grid)]
    values = rng.normal(500, 9, (*pieces.shape, 5))
    found = reduce(
        values,
        maps,
        gather_bytes=int(share * values.nbytes),
        mask=np.ones(pieces.shape, bool),
    )
    assert found.n_passes == n_passes


def test_smoothed_voxels_are_what_is_measured():
    values, mask = bold(), np.ones(SHAPE, bool)
    sigmas = (0.8, 0.7, 0.9)
    for spoilt in (False, True):
        if spoilt:
            values[3, 3, 2, 1] = np.nan
        found = reduce(values, smoothing=Smoothing(GRID, sigmas))
        valid = np.isfinite(values).all(axis=3)
        smooth = oracles.smooth(values, valid, sigmas)
        for column in (0, 1, 3):
            hold(found, smooth, valid & mask & (labels() == INDEX[column]), column)
    # Sums alone smooth the regions instead.
    alone = reduce(
        values, smoothing=Smoothing(GRID, sigmas), statistics=(), measures=()
    )
    assert_allclose(alone.signals["mean"][0], found.signals["mean"][0], rtol=1e-12)


def test_spheres_may_share_voxels_and_maps_have_none_of_it():
    values = bold()
    centres = [(2.0, 2.0, 2.0, 1.5), (3.0, 2.0, 2.0, 1.5)]
    weights = np.random.default_rng(6).random(SHAPE)
    maps = [
        map_spheres(np.array(centres), Frame.of_grid(GRID)),
        map_weights([weights], GRID, GRID),
    ]
    found = reduce(values, maps)
    places = np.stack(np.indices(SHAPE), axis=-1)
    for column, (*centre, radius) in enumerate(centres):
        inside = np.linalg.norm(places - centre, axis=-1) <= radius
        hold(found, values, inside, column)
    assert found.signals["eigenvariate"][1] is None
    assert found.measures["homogeneity"][1] is None


def test_scaled_integers_are_measured_in_their_values():
    stored = np.random.default_rng(7).integers(900, 1100, (*SHAPE, 9)).astype("i2")
    found = reduce(stored, scaling=(0.5, 100.0))
    for column in (0, 1, 3):
        hold(found, stored * 0.5 + 100, labels() == INDEX[column], column)


def test_squares_that_are_infinite_are_an_error():
    values = bold()
    values[3, 3, 3] *= 1e200
    with pytest.raises(ValueError, match="too large"):
        reduce(values)


def test_nothing_asked_for_takes_no_pass_and_no_room():
    found = reduce(bold(), statistics=("mean",), measures=(), gather_bytes=1)
    assert found.n_passes == 1
    assert found.measures == {}
    assert set(found.signals) == {"mean"}
