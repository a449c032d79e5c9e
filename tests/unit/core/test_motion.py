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
    censor,
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


OFF = {
    "fd_threshold": None,
    "std_dvars_threshold": None,
    "scrub": 0,
    "before": 0,
    "after": 0,
    "n_dummy": 0,
}


def spikes(n_volumes, *volumes, height=9.0):
    values = np.zeros(n_volumes)
    values[list(volumes)] = height
    return values


def where(flags):
    return np.flatnonzero(flags).tolist()


def test_off_is_off():
    high = np.full(10, 99.0)
    found = censor(high, high, None, n_volumes=10, **OFF)
    assert found.sample_mask.dtype == bool
    assert found.sample_mask.all()
    assert censor(None, None, None, n_volumes=10, **OFF).sample_mask.all()


def test_each_threshold_alone():
    fd, dvars = spikes(10, 2), spikes(10, 5)
    only_fd = censor(fd, dvars, None, n_volumes=10, **(OFF | {"fd_threshold": 0.5}))
    assert where(only_fd.fd) == [2]
    assert where(~only_fd.sample_mask) == [2]
    options = OFF | {"std_dvars_threshold": 1.5}
    only_dvars = censor(fd, dvars, None, n_volumes=10, **options)
    assert where(only_dvars.std_dvars) == [5]
    assert where(~only_dvars.sample_mask) == [5]


def test_thresholds_are_strict_and_nan_is_below():
    fd = np.array([np.nan, 0.5, 0.5000001])
    found = censor(fd, None, None, n_volumes=3, **(OFF | {"fd_threshold": 0.5}))
    assert where(found.fd) == [2]
    found = censor(fd, None, None, n_volumes=3, **(OFF | {"fd_threshold": 0.0}))
    assert where(found.fd) == [1, 2]


def test_reasons_side_by_side():
    options = {
        "fd_threshold": 0.5,
        "std_dvars_threshold": 1.5,
        "scrub": 3,
        "before": 1,
        "after": 2,
        "n_dummy": 2,
    }
    steady = np.zeros(20, bool)
    steady[[0, 1, 2]] = True
    # volume     0 1 2 3 4 5 6 7 8 9 . . 12 . . 15 . . . 19
    # fd                     x                x
    # std_dvars              x     x
    found = censor(spikes(20, 6, 15), spikes(20, 6, 9), steady, n_volumes=20, **options)
    assert where(found.dummy) == [0, 1, 2]
    assert where(found.fd) == [6, 15]
    assert where(found.std_dvars) == [6, 9]
    assert where(found.neighbour) == [5, 7, 8, 10, 11, 14, 16, 17]
    assert where(found.short_segment) == [12, 13, 18, 19]
    assert where(found.sample_mask) == [3, 4]


def test_a_segment_of_just_the_length_stays():
    for scrub, gone in [(5, []), (6, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10])]:
        options = OFF | {"fd_threshold": 0.5, "scrub": scrub}
        found = censor(spikes(20, 5, 11), None, None, n_volumes=20, **options)
        assert where(found.short_segment) == gone


def test_dummies_delimit_no_segment():
    """As in nilearn: 0 to 5 is a stretch of six, though only 4 and 5 are kept."""
    options = OFF | {"fd_threshold": 0.5, "scrub": 5, "n_dummy": 4}
    found = censor(spikes(20, 6), None, None, n_volumes=20, **options)
    assert not found.short_segment.any()
    assert where(~found.sample_mask) == [0, 1, 2, 3, 6]


def test_a_run_without_outlier_is_long_enough():
    options = OFF | {"fd_threshold": 0.5, "scrub": 5}
    assert censor(np.zeros(3), None, None, n_volumes=3, **options).sample_mask.all()


def test_neighbours_stop_at_the_ends():
    options = OFF | {"fd_threshold": 0.5, "before": 3, "after": 3}
    found = censor(spikes(10, 0, 9), None, None, n_volumes=10, **options)
    assert where(found.neighbour) == [1, 2, 3, 6, 7, 8]


def test_everything_can_go():
    options = OFF | {"fd_threshold": 0.5}
    found = censor(np.ones(5), None, None, n_volumes=5, **options)
    assert not found.sample_mask.any()


@pytest.mark.parametrize(
    ("fd", "changes", "message"),
    [
        (None, {"fd_threshold": 0.5}, "fd_threshold is 0.5, but there is no fd"),
        (np.zeros(9), {"fd_threshold": 0.5}, r"fd has shape \(9,\), the run 10"),
        (None, {"std_dvars_threshold": 2.0}, "threshold is 2, .* no std_dvars"),
        (None, {"scrub": -1}, "scrub is -1 volumes"),
        (None, {"n_dummy": -2}, "n_dummy is -2 volumes"),
        (None, {"before": -1}, "before is -1 volumes"),
        (None, {"after": -1}, "after is -1 volumes"),
    ],
)
def test_errors(fd, changes, message):
    with pytest.raises(ValueError, match=message):
        censor(fd, None, None, n_volumes=10, **(OFF | changes))


def test_non_steady_state_of_another_length():
    with pytest.raises(ValueError, match=r"non_steady_state has shape \(9,\)"):
        censor(None, None, np.zeros(9, bool), n_volumes=10, **OFF)


def test_the_share_is_of_the_steady_volumes():
    options = OFF | {"fd_threshold": 0.5, "n_dummy": 4}
    found = censor(
        spikes(104, 1, 9, *range(20, 48)), None, None, n_volumes=104, **options
    )
    assert found.share == 0.29  # 29 of 100, to the last bit
    all_dummy = censor(None, None, None, n_volumes=4, **(OFF | {"n_dummy": 4}))
    assert all_dummy.share == 0
