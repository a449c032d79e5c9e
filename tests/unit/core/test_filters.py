"""Trends, frequencies and gaps against explicit loops, matrices and padding."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from support import cleaning_oracles as oracles

from bids_roi.core.filters import (
    apply_butterworth,
    butterworth_sections,
    check_cutoffs,
    cosine_drift,
    interpolate_censored,
    minimum_volumes,
    missing_drift,
    remove_trend,
    share_removed,
)

# Of the largest value; float64 through a few hundred operations.
TOLERANCE = 1e-10


def noise(n_volumes, n_columns=3, seed=0, level=1000.0):
    rng = np.random.default_rng(seed)
    return rng.normal(level, 10, (n_volumes, n_columns))


@pytest.mark.parametrize("n_volumes", [2, 3, 50, 51])
def test_trend_is_the_least_squares_line(n_volumes):
    signals = noise(n_volumes)
    found = remove_trend(signals)
    for column in range(3):
        expected = oracles.detrended(signals[:, column], list(range(n_volumes)))
        assert_allclose(found[:, column], expected, atol=TOLERANCE * 1000)
    assert_allclose(remove_trend(found), found, atol=TOLERANCE)
    time = np.arange(n_volumes)[:, None]
    assert_allclose(remove_trend(signals + 7 - 3 * time), found, atol=1e-9)


def test_trend_is_straight_in_time():
    times = np.array([0, 1, 2, 50, 51, 120, 121, 122, 300], float)
    signals = noise(len(times))
    found = remove_trend(signals, times)
    for column in range(3):
        expected = oracles.detrended(signals[:, column], times)
        assert_allclose(found[:, column], expected, atol=TOLERANCE * 1000)


def test_trend_of_one_volume_is_all_of_it():
    assert_array_equal(remove_trend(noise(1)), np.zeros((1, 3)))


@oracles.randomly
@given(
    st.integers(1, 6),
    st.sampled_from([None, 0.008, 0.02, 0.1]),
    st.sampled_from([None, 0.05, 0.15, 0.3, 9.0]),
    st.sampled_from([0.72, 1.0, 2.0, 2.2]),
    st.integers(0, 60),
    st.sampled_from(["odd", "constant"]),
    st.integers(0, 2**32 - 1),
)
def test_butterworth_equals_explicit_padding(
    order, high_pass, low_pass, repetition_time, n_more, padding, seed
):
    assume(high_pass is not None or low_pass is not None)
    assume(high_pass is None or low_pass is None or high_pass < low_pass)
    high, low = check_cutoffs(
        high_pass=high_pass, low_pass=low_pass, repetition_time=repetition_time
    )
    assume((high, low) != (None, None))
    sections = butterworth_sections(
        high_pass=high,
        low_pass=low,
        filter_order=order,
        repetition_time=repetition_time,
    )
    both = high is not None and low is not None
    shortest = 3 * (order * (2 if both else 1) + 1) + 1
    if padding == "constant":
        shortest = 2
    assert minimum_volumes(sections, padding) == shortest
    signals = noise(shortest + n_more, seed=seed)
    found = apply_butterworth(signals, sections, padding)
    for column in range(3):
        expected = oracles.butterworth(
            signals[:, column], order, high_pass, low_pass, repetition_time, padding
        )
        # 0.008 Hz at a repetition time of 0.72 s: twelve poles within 0.01 of the
        # unit circle, which keep eight of the sixteen digits.
        assert_allclose(found[:, column], expected, atol=1e-8 * 1000)
    with pytest.raises(ValueError, match=f"{shortest - 1} volumes .* {shortest}"):
        apply_butterworth(signals[: shortest - 1], sections, padding)


@pytest.mark.parametrize(
    ("high_pass", "low_pass", "passes"),
    [(0.05, None, [0, 0, 1]), (None, 0.05, [1, 1, 0]), (0.02, 0.05, [0, 1, 0])],
)
def test_butterworth_passes_what_it_should(high_pass, low_pass, passes):
    time = np.arange(600) * 1.0
    waves = np.sin(2 * np.pi * np.outer(time, [0.005, 0.032, 0.2]))
    sections = butterworth_sections(
        high_pass=high_pass, low_pass=low_pass, filter_order=5, repetition_time=1.0
    )
    middle = slice(200, 400)  # away from the ends, where a wave is cut
    found = apply_butterworth(waves, sections, "odd")[middle]
    assert_allclose(found, waves[middle] * passes, atol=0.02)


@pytest.mark.parametrize(
    ("high_pass", "low_pass", "share"),
    [(0.05, None, 0.2), (None, 0.1, 0.6), (0.05, 0.1, 0.8), (0.008, 0.09, 0.672)],
)
def test_share_removed_is_the_band_for_steep_filters(high_pass, low_pass, share):
    for order, slack in [(2, 0.1), (5, 0.06), (20, 0.02)]:
        sections = butterworth_sections(
            high_pass=high_pass,
            low_pass=low_pass,
            filter_order=order,
            repetition_time=2.0,
        )
        assert share_removed(sections) == pytest.approx(share, abs=slack)


def test_cutoffs_that_are_left_alone():
    def check(high_pass, low_pass, repetition_time=2.0):
        return check_cutoffs(
            high_pass=high_pass, low_pass=low_pass, repetition_time=repetition_time
        )

    assert check(None, None, None) == (None, None)
    assert check(0.01, None) == (0.01, None)
    assert check(0.01, 0.1) == (0.01, 0.1)


@pytest.mark.parametrize("low_pass", [0.25 * (1 - 1e-7), 0.25, 0.3, 9])
def test_low_pass_at_or_above_nyquist_has_nothing_to_take_out(low_pass):
    def check(high_pass):
        return check_cutoffs(
            high_pass=high_pass, low_pass=low_pass, repetition_time=2.0
        )

    assert check(0.01) == (0.01, None)
    assert check(None) == (None, None)


@pytest.mark.parametrize(
    ("high_pass", "low_pass", "repetition_time", "message"),
    [
        (0.01, None, None, "needs the repetition time, which is absent"),
        (None, 0.1, 0.0, "repetition_time is 0.0 s"),
        (None, 0.1, -2.0, "repetition_time is -2.0 s"),
        (None, 0.1, np.nan, "repetition_time is nan s"),
        (0.0, 0.1, 2.0, "high_pass is 0.0 Hz, must be above 0 Hz"),
        (None, -0.1, 2.0, "low_pass is -0.1 Hz, must be above 0 Hz"),
        (np.inf, None, 2.0, "high_pass is inf Hz"),
        (0.25, None, 2.0, "high_pass is 0.25 Hz, .* every 2 s is 0.25 Hz"),
        (0.3, 0.4, 2.0, "nothing would be left"),
        (0.1, 0.1, 2.0, "high_pass is 0.1 Hz, must be below low_pass, 0.1 Hz"),
        (0.1, 0.01, 2.0, "high_pass is 0.1 Hz, must be below low_pass, 0.01 Hz"),
    ],
)
def test_cutoffs_that_make_no_sense(high_pass, low_pass, repetition_time, message):
    with pytest.raises(ValueError, match=message):
        check_cutoffs(
            high_pass=high_pass, low_pass=low_pass, repetition_time=repetition_time
        )


def test_order_below_1():
    with pytest.raises(ValueError, match="filter_order is 0, must be 1 or more"):
        butterworth_sections(
            high_pass=0.01, low_pass=None, filter_order=0, repetition_time=2.0
        )


def test_no_cosine_fits_into_one_volume():
    assert cosine_drift(1, high_pass=0.1, repetition_time=2.0).shape == (1, 0)


def test_drift_that_confounds_do_not_hold():
    rng = np.random.default_rng(0)
    drift = cosine_drift(200, high_pass=0.01, repetition_time=2.0)
    others = rng.normal(size=(200, 3))
    constant = np.ones((200, 1))
    every = np.ones(200, bool)

    def missing(*columns, mask=every):
        return missing_drift(drift, np.hstack(columns), mask)

    assert_array_equal(missing(others[:, :0]), drift)
    assert_array_equal(missing(others, constant, np.zeros((200, 1))), drift)
    for factor in (5.0, -5.0):
        found = missing(others, constant, 3 + factor * drift[:, 2:3])
        assert_array_equal(found, np.delete(drift, 2, axis=1))
    # In the span, not a column; within the digits of a table, and not.
    mixed = drift @ rng.normal(size=(8, 8))
    assert missing(mixed).shape == (200, 0)
    assert missing(mixed.round(9)).shape == (200, 0)
    assert_array_equal(missing(drift + 1e-3 * rng.normal(size=(200, 8))), drift)
    # What censored volumes hold has no influence.
    mask = np.arange(200) % 7 > 0
    spoilt = drift.copy()
    spoilt[~mask] = np.nan
    assert missing(spoilt, mask=mask).shape == (200, 0)


@oracles.randomly
@given(
    st.integers(5, 80),
    st.floats(0.05, 0.9),
    st.sampled_from(["linear", "cubic_spline"]),
    st.integers(0, 2**32 - 1),
)
def test_gaps_are_filled_from_the_kept_volumes_alone(n_volumes, share, curve, seed):
    rng = np.random.default_rng(seed)
    signals = rng.normal(size=(n_volumes, 3))
    mask = rng.random(n_volumes) > share
    mask[[0, -1]] = True
    found = interpolate_censored(signals, mask, curve)
    for column in range(3):
        expected = oracles.filled(signals[:, column], mask, curve)[~mask]
        scale = max(np.abs(expected).max(initial=1.0), 1.0)
        assert_allclose(found[:, column], expected, atol=TOLERANCE * scale)
    signals[~mask] = np.nan
    assert_array_equal(interpolate_censored(signals, mask, curve), found)


def test_a_cubic_is_filled_exactly():
    time = np.arange(30.0)
    cubic = (1 + 2 * time - 0.3 * time**2 + 0.01 * time**3)[:, None]
    mask = ~np.isin(np.arange(30), [3, 4, 10, 19, 20, 21, 26])
    found = interpolate_censored(cubic, mask, "cubic_spline")
    assert_allclose(found, cubic[~mask], rtol=1e-10)
    line = cubic[:, :1] * 0 + 3 - 0.2 * time[:, None]
    assert_allclose(interpolate_censored(line, mask, "linear"), line[~mask])


def test_a_straight_fill_stays_between_its_neighbours():
    """A spline through noise does not: the reason for the default."""
    signals = noise(100, level=0.0)
    mask = np.ones(100, bool)
    mask[40:60] = False
    ends = np.sort(signals[[39, 60]], axis=0)
    found = interpolate_censored(signals, mask, "linear")
    assert ((found >= ends[0]) & (found <= ends[1])).all()
    swing = np.abs(interpolate_censored(signals, mask, "cubic_spline")).max()
    assert swing > 2 * np.abs(signals).max()


@pytest.mark.parametrize("end", [0, -1])
def test_nothing_is_extrapolated(end):
    mask = np.ones(10, bool)
    mask[end] = False
    with pytest.raises(ValueError, match="no extrapolation"):
        interpolate_censored(noise(10), mask, "linear")


def test_no_gap_and_no_column():
    assert interpolate_censored(noise(10), np.ones(10, bool), "linear").shape == (0, 3)
    mask = np.arange(10) != 4
    assert interpolate_censored(noise(10)[:, :0], mask, "linear").shape == (1, 0)
    sections = butterworth_sections(
        high_pass=None, low_pass=0.1, filter_order=2, repetition_time=2.0
    )
    assert apply_butterworth(noise(20)[:, :0], sections, "odd").shape == (20, 0)
