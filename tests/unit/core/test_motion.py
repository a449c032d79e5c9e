"""The motion filter and the displacement of what it leaves.

The oracle is XCP-D's arithmetic written out with scipy's filters as polynomials; what
is tested is made of second-order sections. And a head that breathes, whose motion
without breathing is known.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal

from bids_roi.core.motion import (
    filter_motion,
    fold_frequencies,
    framewise_displacement,
)


def xcp_d(data, band, repetition_time):
    """Its filter_motion: motion_filter_order 4, constant padding of all volumes."""
    hertz, fs = np.array(band) / 60, 1 / repetition_time
    if len(band) == 1:
        b, a = signal.butter(4 // 2, hertz[0], btype="lowpass", output="ba", fs=fs)
    else:
        bandwidth = np.abs(hertz[1] - hertz[0])
        b, a = signal.iirnotch(hertz.mean(), hertz.mean() / bandwidth, fs=fs)
    padlen = data.shape[0] - 1
    return signal.filtfilt(b, a, data, axis=0, padtype="constant", padlen=padlen)


def xcp_d_folding(band, repetition_time):
    """Its _modify_motion_filter."""
    fs = 1 / repetition_time
    hertz = np.array(band) / 60
    return np.abs(hertz - np.floor((hertz + fs / 2) / fs) * fs) * 60


def wander(n_volumes, seed=0):
    """Six parameters that drift: mm and radians."""
    steps = np.random.default_rng(seed).normal(size=(n_volumes, 6)) * 0.03
    return steps.cumsum(axis=0) * [1, 1, 1, 0.02, 0.02, 0.02]


@pytest.mark.parametrize("band", [(12.0, 18.0), (6.0, 8.0), (6.0,), (25.0,)])
@pytest.mark.parametrize("repetition_time", [0.72, 0.8, 1.0])
@pytest.mark.parametrize("n_volumes", [20, 300])
def test_it_is_xcp_d_s(band, repetition_time, n_volumes):
    data = wander(n_volumes)
    found = filter_motion(data, band, repetition_time)
    scale = np.abs(data).max(axis=0)
    expected = xcp_d(data, band, repetition_time)
    assert_allclose(found / scale, expected / scale, atol=1e-8)


@given(
    st.lists(st.floats(1, 90), min_size=1, max_size=2),
    st.floats(0.3, 4),
)
def test_frequencies_fold_as_in_xcp_d(band, repetition_time):
    found = fold_frequencies(tuple(band), repetition_time)
    assert_allclose(found, xcp_d_folding(band, repetition_time), atol=1e-9)
    for asked, folded in zip(band, found, strict=True):
        assert 0 <= folded <= 30 / repetition_time + 1e-9
        # At whole volumes, both look alike.
        times = np.arange(8) * repetition_time / 60
        waves = [np.cos(2 * np.pi * f * times) for f in (asked, folded)]
        assert_allclose(*waves, atol=1e-6)
        if asked <= 30 / repetition_time:
            assert folded == asked


@pytest.mark.parametrize("repetition_time", [0.8, 3.0])
def test_breathing_goes_and_other_motion_stays(repetition_time):
    """16 breaths a minute; in the slow run they look like 4 a minute."""
    n_volumes = 400
    minutes = np.arange(n_volumes) * repetition_time / 60
    still = np.zeros((n_volumes, 6))
    still[200:, 2] = 1.5  # the head nods once, and stays there
    breath = np.zeros((n_volumes, 6))
    breath[:, 1] = 0.3 * np.sin(2 * np.pi * 16 * minutes)
    breath[:, 3] = 0.002 * np.cos(2 * np.pi * 16 * minutes)
    before = framewise_displacement(still + breath, 50.0)
    band = fold_frequencies((14.0, 18.0), repetition_time)
    after = framewise_displacement(
        filter_motion(still + breath, band, repetition_time), 50.0
    )
    quiet = np.r_[60:190, 210:340]
    assert before[quiet].mean() > 0.15
    assert after[quiet].mean() < 0.02
    assert after[200] > 0.75  # half of the nod at least: a step is of all frequencies
    assert np.nanargmax(after) == 200


def test_a_low_pass_takes_all_above():
    minutes = np.arange(400) * 0.8 / 60
    slow, fast = (np.sin(2 * np.pi * f * minutes)[:, None] for f in (1, 20))
    found = filter_motion(slow + fast, (6.0,), 0.8)
    assert np.abs(found - slow)[50:-50].max() < 0.02


def test_displacement_by_hand():
    moved = np.array(
        [[0, 0, 0, 0, 0, 0], [1, -1, 0, 0.01, 0, -0.02], [1, -1, 0, 0, 0, 0]]
    )
    assert_array_equal(framewise_displacement(moved[:1], 50.0), [np.nan])
    assert_allclose(framewise_displacement(moved, 50.0), [np.nan, 3.5, 1.5])
    assert_allclose(framewise_displacement(moved, 35.0), [np.nan, 3.05, 1.05])


@pytest.mark.parametrize(
    ("band", "repetition_time", "message"),
    [
        ((12.0, 18.0), 2.0, "both ends of the motion filter's band appear at 12"),
        ((15.0,), 2.0, "15 per minute is not between 0 and the 15"),
        ((30.0,), 2.0, "0 per minute is not between 0 and the 15"),
    ],
)
def test_a_band_that_leaves_nothing_to_filter_is_refused(
    band, repetition_time, message
):
    folded = fold_frequencies(band, repetition_time)
    with pytest.raises(ValueError, match=message):
        filter_motion(wander(50), folded, repetition_time)


def test_a_run_of_one_volume_is_refused():
    with pytest.raises(ValueError, match="1 volumes"):
        filter_motion(wander(1), (6.0,), 0.8)
