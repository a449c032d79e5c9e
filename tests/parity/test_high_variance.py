"""High-variance confounds in two passes: where nilearn or scikit-learn has the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from support.cleaning_oracles import randomly
from support.high_variance_cases import TOLERANCE, brain, two_passes


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
