"""High-variance confounds in two passes, against nilearn with the whole image."""

import itertools

import numpy as np
import pytest
from cleaning_oracles import detrended, randomly
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bids_roi.core.high_variance import SeriesCollector, VarianceScan, select_voxels

# Eigenvectors of well separated eigenvalues, whose squares are what is decomposed.
TOLERANCE = 1e-8


def two_passes(series, sizes, n_confounds=5, percentile=2.0):
    """Stream (T, V) in blocks of the given sizes, over and over."""
    n_volumes = len(series)
    edges = np.unique(np.clip(np.cumsum([0, *sizes, n_volumes]), 0, n_volumes))
    blocks = [(a, series[a:b]) for a, b in itertools.pairwise(edges)]
    scan = VarianceScan(n_volumes)
    for start, block in blocks:
        scan.update(start, block)
    voxels = select_voxels(scan.finish(), percentile=percentile)
    collector = SeriesCollector(voxels, n_volumes)
    for start, block in blocks:
        collector.update(start, block)
    return voxels, collector.finish(n_confounds=n_confounds)


def brain(seed=0, n_volumes=60, n_voxels=2000, dtype=np.float64):
    """Levels, trends, a few strong waves in some voxels, air around."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(500, 15000, n_voxels)
    series = levels + rng.normal(0, 10, (n_volumes, n_voxels))
    series += np.linspace(-1, 1, n_volumes)[:, None] * rng.normal(0, 300, n_voxels)
    waves = rng.normal(size=(n_volumes, 8)) * np.geomspace(200, 20, 8)
    strong = rng.choice(n_voxels, n_voxels // 20, replace=False)
    series[:, strong] += waves @ rng.normal(size=(8, strong.size))
    series[:, rng.random(n_voxels) < 0.3] = 0
    return series.astype(dtype)


def reference(series, **options):
    from nilearn.signal import high_variance_confounds

    return high_variance_confounds(series.astype(np.float64), **options)


def compare_but_for_the_sign(found, expected):
    signs = np.sign((found * expected).sum(axis=0))
    assert_allclose(found * signs, expected, atol=TOLERANCE)


@pytest.mark.parity
@randomly
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 20), max_size=6),
    st.sampled_from([np.float64, np.float32, ">f4", np.int16]),
)
def test_equals_nilearn(seed, sizes, dtype):
    series = brain(seed, dtype=dtype)
    _, found = two_passes(series, sizes)
    compare_but_for_the_sign(found, reference(series))


@pytest.mark.parity
def test_other_shares_and_counts():
    series = brain()
    _, found = two_passes(series, [], n_confounds=3, percentile=10.0)
    expected = reference(series, n_confounds=3, percentile=10.0)
    compare_but_for_the_sign(found, expected)


def test_mean_squares_about_the_trend():
    series = brain(n_voxels=50)
    scan = VarianceScan(60)
    scan.update(0, series)
    expected = [
        np.mean(detrended(column, list(range(len(column)))) ** 2) for column in series.T
    ]
    assert_allclose(scan.finish(), expected, rtol=1e-9, atol=1e-12)


def test_chosen_voxels_are_strictly_above_the_percentile():
    # Of 0 to 100 the 98th percentile is 98 itself.
    assert_array_equal(select_voxels(np.arange(101.0)[::-1]), [0, 1])
    assert select_voxels(np.ones(101)).size == 0


def test_a_level_far_above_the_variation_costs_no_digits():
    rng = np.random.default_rng(1)
    series = rng.normal(size=(60, 50))
    scan, raised = VarianceScan(60), VarianceScan(60)
    scan.update(0, series)
    raised.update(0, series + 2.0**26)
    # What is left is the rounding of the values themselves, 2^-27 of one.
    assert_allclose(raised.finish(), scan.finish(), rtol=1e-7)


def test_bits_do_not_depend_on_blocks():
    series = brain(n_voxels=20_000, dtype=np.float32)
    voxels, found = two_passes(series, [])
    for sizes in ([1] * 60, [7, 20, 1]):
        other_voxels, other = two_passes(series, sizes)
        assert_array_equal(other_voxels, voxels)
        assert_array_equal(other, found)


def test_scale_and_offset_do_not_matter():
    series = brain(dtype=np.int16)
    voxels, found = two_passes(series, [10])
    other_voxels, other = two_passes(series * 0.25 - 17, [10])
    assert_array_equal(other_voxels, voxels)
    assert_allclose(other, found, atol=TOLERANCE)


@pytest.mark.parity
def test_voxels_that_are_not_finite_are_left_out():
    series = brain()
    rng = np.random.default_rng(5)
    bad = rng.choice(2000, 200, replace=False)
    spoilt = series.copy()
    spoilt[rng.integers(0, 60, 200), bad] = rng.choice([np.nan, np.inf, -np.inf], 200)
    voxels, found = two_passes(spoilt, [5, 5, 20])
    assert not np.isin(voxels, bad).any()
    expected = reference(np.delete(series, bad, axis=1))
    compare_but_for_the_sign(found, expected)


def test_components_are_orthonormal_without_mean_and_of_one_sign():
    _, found = two_passes(brain(), [])
    assert_allclose(found.T @ found, np.eye(5), atol=1e-12)
    assert_allclose(found.sum(axis=0), 0, atol=1e-10)
    assert (found.max(axis=0) == np.abs(found).max(axis=0)).all()


@pytest.mark.parametrize(
    "make", [VarianceScan, lambda n: SeriesCollector(np.array([0]), n)]
)
def test_volumes_come_once_and_in_order(make):
    collector = make(10)
    collector.update(0, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="volumes 5 to 7 follow 4 of 10"):
        collector.update(5, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="volumes 4 to 11 follow 4 of 10"):
        collector.update(4, np.zeros((7, 3)))
    with pytest.raises(ValueError, match="4 of 10 volumes were taken"):
        collector.finish()


def test_too_little_to_choose_from():
    with pytest.raises(ValueError, match="2 volumes, at least 3"):
        VarianceScan(2)
    with pytest.raises(ValueError, match="0 of 7 voxels"):
        select_voxels(np.full(7, np.nan))
    with pytest.raises(ValueError, match="there are 1 voxels and 60 volumes"):
        two_passes(brain(n_voxels=50), [])
    with pytest.raises(ValueError, match=r"5 components .* 6 volumes"):
        two_passes(brain(n_volumes=6), [])
