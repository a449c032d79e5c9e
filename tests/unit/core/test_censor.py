"""Reasons for leaving volumes out, by hand and against nilearn."""

import numpy as np
import pytest

from bids_roi.core.censor import censor

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
