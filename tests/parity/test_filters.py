"""Trends: where nilearn or scikit-learn has the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from support import cleaning_oracles as oracles

from bids_roi.core.filters import cosine_drift

# Of the largest value; float64 through a few hundred operations.
TOLERANCE = 1e-10


@pytest.mark.parity
@oracles.randomly
@given(
    st.integers(2, 400),
    st.sampled_from([0.001, 0.008, 0.01, 0.0125, 0.1]),
    st.sampled_from([0.72, 0.8, 1.1, 2.0, 2.5]),
)
def test_cosines_equal_their_definition_and_nilearn(
    n_volumes, high_pass, repetition_time
):
    from nilearn.signal import create_cosine_drift

    found = cosine_drift(
        n_volumes, high_pass=high_pass, repetition_time=repetition_time
    )
    frame_times = np.arange(n_volumes) * repetition_time
    reference = create_cosine_drift(high_pass, frame_times)[:, :-1]
    assert_allclose(found, reference, atol=TOLERANCE)
    count = min(n_volumes - 1, int(2 * n_volumes * high_pass * repetition_time))
    # A product that is a whole number but for rounding: nilearn decides.
    if found.shape[1] == count:
        expected = oracles.cosines(n_volumes, high_pass, repetition_time)
        assert_allclose(found, expected, atol=TOLERANCE)
    else:
        product = 2 * n_volumes * high_pass * repetition_time
        assert product == pytest.approx(round(product), rel=1e-14)
    identity = np.eye(found.shape[1])
    assert_allclose(found.T @ found, identity, atol=TOLERANCE)
    assert_allclose(found.sum(axis=0), 0, atol=TOLERANCE)
