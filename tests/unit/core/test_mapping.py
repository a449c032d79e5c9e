"""Maps with weights: least squares as nilearn has it, and the weighted mean."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from support.calls import MAP_STATISTICS, SHAPE, engine, usable_of
from support.mapping_cases import case


def oracle(values, maps, usable, name):
    """Dense: numpy's own least squares over the usable voxels; or the plain mean."""
    weights, data = maps[usable], values[usable]
    if name == "least_squares":
        return np.linalg.lstsq(weights, data, rcond=None)[0].T
    return (data.T @ weights) / weights.sum(axis=0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["nothing", "zeros", "constant", "nan"]),
    st.integers(1, 5),
    st.sampled_from([None, (1, 210), (100, 101, 170, 210)]),
)
def test_equals_dense_least_squares(seed, spoil, block, ends):
    values, maps, mask = case(seed)
    if spoil == "zeros":
        values[:2] = 0
    if spoil == "constant":
        values[:2] = 50
    if spoil == "nan":
        values[3, 3, 3, 1] = np.nan
    found, partition = engine(
        values, np.moveaxis(maps, 3, 0), mask, block=block, ends=ends
    )
    usable = usable_of(values, mask)
    lost = (mask & ~usable & (maps != 0).any(axis=3)).any()
    again = ends is None and spoil in ("constant", "nan") and lost
    assert found.n_passes == (2 if again else 1)
    for name in MAP_STATISTICS:
        expected = oracle(values, maps, usable, name)
        assert_allclose(found.signals[name][0], expected, rtol=1e-8)
    counts = (maps[usable] != 0).sum(axis=0)
    assert_allclose(partition.count(0, found.usable), counts)
    shares = maps[usable].sum(axis=0) / maps.sum(axis=(0, 1, 2))
    assert_allclose(partition.coverage(0, found.usable), shares, rtol=1e-12)


def test_one_hot_maps_equal_labels():
    values, _, mask = case(1)
    labels = np.random.default_rng(2).integers(0, 3, SHAPE)
    volumes = [(labels == 1).astype(float), (labels == 2).astype(float)]
    found, _ = engine(values, volumes, mask, labels=labels)
    mean = found.signals["mean"][0]
    assert found.signals["mean"][1] is None
    assert found.signals["least_squares"][0] is None
    for name in MAP_STATISTICS:
        assert_allclose(found.signals[name][1], mean, rtol=1e-12)


def test_a_map_without_usable_voxels_is_missing_and_the_others_are_right():
    values, maps, mask = case(3)
    maps[..., 1] = 0
    maps[0, 0, 0, 1] = 1.0
    mask[0, 0, 0] = False
    found, _ = engine(values, np.moveaxis(maps, 3, 0), mask)
    kept = [0, 2, 3]
    usable = usable_of(values, mask)
    for name in MAP_STATISTICS:
        assert np.isnan(found.signals[name][0][:, 1]).all()
        expected = oracle(values, maps[..., kept], usable, name)
        assert_allclose(found.signals[name][0][:, kept], expected, rtol=1e-8)


def test_maps_that_depend_on_one_another_share_the_signal():
    """Twice the same map: the smallest solution, as lstsq gives it."""
    values, maps, mask = case(4)
    maps[..., 1] = maps[..., 0]
    found, _ = engine(values, np.moveaxis(maps, 3, 0), mask)
    expected = oracle(values, maps, usable_of(values, mask), "least_squares")
    assert_allclose(found.signals["least_squares"][0], expected, rtol=1e-7)


@pytest.mark.parametrize("ends", [None, (100, 130, 210)])
def test_maps_that_nearly_depend_on_one_another_take_a_second_pass(ends):
    values, maps, mask = case(5)
    maps[..., 1] = maps[..., 0] + 1e-3 * np.random.default_rng(0).random(SHAPE)
    found, _ = engine(values, np.moveaxis(maps, 3, 0), mask, ends=ends)
    assert found.n_passes == 2
    expected = oracle(values, maps, usable_of(values, mask), "least_squares")
    assert_allclose(found.signals["least_squares"][0], expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("excess", "cancels"), [(0.0, True), (1e-12, True), (1e-3, True), (0.05, False)]
)
def test_no_weighted_mean_where_weights_cancel(excess, cancels):
    """Half of the weights are +1, half -1, and a little more on one side."""
    values, _, mask = case(6)
    mask[:] = True
    weights = np.where(np.indices(SHAPE)[2] < 2, 1.5, -1.0)
    weights[0, 0, 0] += excess * np.abs(weights).sum()
    assert (weights.sum() <= 0.01 * np.abs(weights).sum()) == cancels
    plain = np.random.default_rng(0).random(SHAPE)
    found, _ = engine(values, [weights, plain], mask)
    mean = found.signals["weighted_mean"][0]
    assert np.isnan(mean[:, 0]).all() == cancels
    if not cancels:
        by_hand = np.tensordot(values, weights, axes=([0, 1, 2], [0, 1, 2]))
        assert_allclose(mean[:, 0], by_hand / weights.sum(), rtol=1e-12)
    assert_allclose(
        mean[:, 1], oracle(values, plain[..., None], mask, MAP_STATISTICS[1])[:, 0]
    )
    # Least squares have nothing against such a map.
    both = np.stack([weights, plain], axis=3)
    expected = oracle(values, both, usable_of(values, mask), "least_squares")
    assert_allclose(found.signals["least_squares"][0], expected, rtol=1e-9)
