"""What is averaged of the edges of a matrix, and what is left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bids_roi.core.group.edges import largest, leave_out_identical, to_fisher_z

IDENTICAL = 1 - 1e-12
correlations = npst.arrays(
    np.float64,
    st.integers(0, 40),
    elements=st.one_of(
        st.floats(-1, 1),
        st.sampled_from([0.0, -0.0, 1, -1, IDENTICAL, -IDENTICAL, 5e-324, np.nan]),
    ),
)


@given(correlations)
def test_fisher_z_has_the_bits_of_one_edge_after_the_other(r):
    z, n_identical = to_fisher_z(r)
    wanted = [np.nan if abs(value) >= IDENTICAL else value for value in r.tolist()]
    assert z.tobytes() == np.arctanh(np.array(wanted, float)).tobytes()
    assert n_identical == sum(abs(value) >= IDENTICAL for value in r.tolist())


@given(correlations)
def test_fisher_z_that_is_there_already_is_left_as_it_is(r):
    with np.errstate(divide="ignore"):
        z = np.arctanh(r)
    limit = np.arctanh(IDENTICAL)
    found, n_identical = leave_out_identical(z)
    wanted = [np.nan if abs(value) >= limit else value for value in z.tolist()]
    assert found.tobytes() == np.array(wanted, float).tobytes()
    assert n_identical == sum(abs(value) >= limit for value in z.tolist())


@pytest.mark.parametrize("values", [[], [np.nan], [np.nan, -0.0], [np.nan] * 70_000])
def test_nothing_is_larger_than_nothing(values):
    assert largest(np.array(values, float)) == 0


@pytest.mark.parametrize("place", [0, 7, 41_000, 69_999])
@pytest.mark.parametrize("value", [2.5, -2.5, np.inf, -np.inf])
def test_largest_is_found_wherever_it_is(value, place):
    values = np.random.default_rng(0).uniform(-1, 1, 70_000)
    values[3::17] = np.nan
    values[place] = value
    assert largest(values) == abs(value)
