"""High-variance confounds in two passes, against nilearn with the whole image."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.cleaning_oracles import detrended
from support.high_variance_cases import TOLERANCE, brain, two_passes

from bids_roi.core.scan import SeriesCollector, VarianceScan, select_voxels


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
