"""Maps with weights: least squares as nilearn has it, and the weighted mean."""

import warnings

import nibabel as nb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from bids_roi.core.grid import Grid
from bids_roi.core.mapping import map_labels, map_weights
from bids_roi.core.partition import build_partition
from bids_roi.core.reduce import reduce_run

SHAPE = (7, 6, 5)
AFFINE = np.diag([2.0, 2.5, 3.0, 1.0])
GRID = Grid.of(SHAPE, AFFINE)
NAMES = ("least_squares", "weighted_mean")


def case(seed=0, n_volumes=5, n_maps=4):
    rng = np.random.default_rng(seed)
    values = rng.normal(100, 10, (*SHAPE, n_volumes))
    maps = rng.random((*SHAPE, n_maps))
    maps[maps < 0.6] = 0  # sparse, and overlapping
    mask = rng.random(SHAPE) < 0.8
    return values, maps, mask


def engine(values, volumes, mask, source=GRID, block=2, labels=None):
    n_volumes = values.shape[3]
    flat = values.reshape(-1, n_volumes, order="F").T
    atlases = [map_weights((v for v in volumes), source, GRID)]
    if labels is not None:
        atlases.insert(0, map_labels(labels, np.array([1, 2]), GRID, GRID))
    partition = build_partition(atlases)
    found = reduce_run(
        lambda: ((t, flat[t : t + block]) for t in range(0, n_volumes, block)),
        partition,
        in_mask=mask.ravel(order="F")[partition.voxels],
        statistics=NAMES,
        n_volumes=n_volumes,
    )
    return found, partition


def usable_of(values, mask):
    with np.errstate(invalid="ignore"):
        return mask & np.isfinite(values).all(axis=3) & (np.ptp(values, axis=3) > 0)


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
)
def test_equals_dense_least_squares(seed, spoil, block):
    values, maps, mask = case(seed)
    if spoil == "zeros":
        values[:2] = 0
    if spoil == "constant":
        values[:2] = 50
    if spoil == "nan":
        values[3, 3, 3, 1] = np.nan
    found, partition = engine(values, np.moveaxis(maps, 3, 0), mask, block=block)
    usable = usable_of(values, mask)
    lost = (mask & ~usable & (maps != 0).any(axis=3)).any()
    assert found.n_passes == (2 if spoil in ("constant", "nan") and lost else 1)
    for name in NAMES:
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
    for name in NAMES:
        assert_allclose(found.signals[name][1], mean, rtol=1e-12)


def test_a_map_without_usable_voxels_is_missing_and_the_others_are_right():
    values, maps, mask = case(3)
    maps[..., 1] = 0
    maps[0, 0, 0, 1] = 1.0
    mask[0, 0, 0] = False
    found, _ = engine(values, np.moveaxis(maps, 3, 0), mask)
    kept = [0, 2, 3]
    usable = usable_of(values, mask)
    for name in NAMES:
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


@pytest.mark.parity
@pytest.mark.parametrize("resampled", [False, True])
def test_equals_nilearn(resampled):
    values, maps, mask = case(5)
    mask[:] = True  # nilearn masks before it resamples nothing else
    affine = AFFINE.copy()
    if resampled:
        affine = AFFINE @ np.diag([0.9, 1.1, 0.8, 1])
        affine[:3, 3] = [-0.7, 0.4, 0.3]
    signed = maps.copy()
    signed[..., 2] -= 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn's own deprecations
        from nilearn.maskers import NiftiMapsMasker

        masker = NiftiMapsMasker(
            nb.Nifti1Image(signed, affine),
            mask_img=nb.Nifti1Image(mask.astype(np.uint8), AFFINE),
            standardize=None,
        )
        expected = masker.fit_transform(nb.Nifti1Image(values, AFFINE))
    source = Grid.of(SHAPE, affine)
    found, _ = engine(values, np.moveaxis(signed, 3, 0), mask, source)
    assert_allclose(found.signals["least_squares"][0], expected, rtol=1e-6)


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
    assert_allclose(mean[:, 1], oracle(values, plain[..., None], mask, NAMES[1])[:, 0])
    # Least squares have nothing against such a map.
    both = np.stack([weights, plain], axis=3)
    expected = oracle(values, both, usable_of(values, mask), "least_squares")
    assert_allclose(found.signals["least_squares"][0], expected, rtol=1e-9)
