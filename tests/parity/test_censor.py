"""Reasons for leaving volumes out: where nilearn or scikit-learn has the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from support.cleaning_oracles import randomly

from bids_roi.core.motion import censor

OFF = {
    "fd_threshold": None,
    "std_dvars_threshold": None,
    "scrub": 0,
    "before": 0,
    "after": 0,
    "n_dummy": 0,
}


@pytest.mark.parity
@randomly
@given(
    st.integers(6, 80),
    st.floats(0, 0.6),
    st.integers(0, 8),
    st.integers(0, 2**32 - 1),
)
def test_segments_equal_nilearn(n_volumes, share, scrub, seed):
    from nilearn.interfaces.fmriprep.load_confounds_scrub import optimize_scrub

    rng = np.random.default_rng(seed)
    fd = (rng.random(n_volumes) < share / 2) * 1.0
    dvars = (rng.random(n_volumes) < share / 2) * 2.0
    options = OFF | {"fd_threshold": 0.5, "std_dvars_threshold": 1.5, "scrub": scrub}
    found = censor(fd, dvars, None, n_volumes=n_volumes, **options)
    outliers = np.flatnonzero((fd > 0.5) | (dvars > 1.5))
    if scrub > 0 and outliers.size:
        outliers = optimize_scrub(outliers, n_volumes, scrub)
    assert_array_equal(np.flatnonzero(~found.sample_mask), outliers)
    assert not (found.short_segment & (found.fd | found.std_dvars)).any()
