"""A table of confounds after a motion filter: what is made of motion is made again."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.confound_tables import (
    AXES,
    FULL,
    P24,
    WHOLE,
    loader,
    select,
    strategy,
    write,
)

from bids_roi.confounds.motion import filter_confounds
from bids_roi.confounds.strategies import Component, parse_settings
from bids_roi.confounds.table import read_confounds
from bids_roi.core.motion import framewise_displacement
from bids_roi.errors import ConfoundsError
from bids_roi.options.settings import Settings, list_told

NOTCH = Settings(motion_filter="notch", motion_filter_band=(12.0, 18.0))


def table(folder, n=60, **more):
    walk = np.random.default_rng(1).normal(size=(n, 6)).cumsum(axis=0)
    columns = {name: course.tolist() for name, course in zip(AXES, walk.T, strict=True)}
    return read_confounds(write(folder, columns | {"csf": range(n)} | more))


@pytest.mark.parametrize("version", WHOLE)
def test_derivatives_squares_and_displacement_are_of_what_is_filtered(
    shared, tmp_path, version
):
    confounds, _ = loader(shared, tmp_path)(version)
    found = filter_confounds(confounds, NOTCH, 0.8).confounds
    assert found.names == confounds.names
    for name in AXES:
        course = found.column(name)
        if np.ptp(confounds.column(name)):  # in 23.1.2 some axes did not move at all
            assert np.abs(course - confounds.column(name)).max() > 0
        slope = np.r_[np.nan, course[1:] - course[:-1]]
        for end, values in zip(FULL, (slope, course**2, slope**2), strict=True):
            assert_array_equal(found.column(name + end), values)
    moved = np.stack([found.column(name) for name in AXES], axis=1)
    fd = framewise_displacement(moved, 50.0)
    assert_array_equal(found.column("framewise_displacement"), fd)
    other = [n for n in found.names if n not in {*P24, "framewise_displacement"}]
    for name in other:
        assert_array_equal(found.column(name), confounds.column(name))


def test_the_displacement_of_fmriprep_is_power_s(shared, tmp_path):
    """Without a filter in between, what is made again is what was there."""
    for version in WHOLE:
        confounds, _ = loader(shared, tmp_path)(version)
        moved = np.stack([confounds.column(name) for name in AXES], axis=1)
        made = framewise_displacement(moved, 50.0)
        # fMRIPrep rounds the parameters it writes.
        assert_allclose(made, confounds.column("framewise_displacement"), atol=1e-4)


def test_regressors_of_an_old_table_are_made_of_what_is_filtered(tmp_path):
    found = filter_confounds(table(tmp_path), NOTCH, 0.8)
    assert found.confounds.names[-1] == "framewise_displacement"
    selected = select(found.confounds, strategy(Component("motion", "full")))
    column = selected.regressors[:, selected.names.index("rot_y_power2")]
    assert_array_equal(column, found.confounds.column("rot_y") ** 2)


def test_a_radius_is_of_the_displacement_alone(tmp_path):
    confounds = table(tmp_path)
    small = Settings(
        motion_filter="notch", motion_filter_band=(12.0, 18.0), head_radius=35.0
    )
    one, two = (filter_confounds(confounds, s, 0.8) for s in (NOTCH, small))
    assert_array_equal(one.confounds.column("rot_x"), two.confounds.column("rot_x"))
    assert (one.fd[1:] > two.fd[1:]).all()


def test_a_band_above_nyquist_is_told(tmp_path):
    assert filter_confounds(table(tmp_path), NOTCH, 0.8).notes == ()
    folded = filter_confounds(table(tmp_path), NOTCH, 3.0)
    assert_allclose(folded.band, (8, 2))
    (note,) = folded.notes
    assert "12 to 18 breaths per minute are above" in note
    assert "(10 per minute, Nyquist), where they appear as 8 to 2" in note
    assert "folded there" not in note
    (note,) = filter_confounds(table(tmp_path), NOTCH, 2.2).notes
    assert "The band is folded there, so that breathing near it stays." in note


@pytest.mark.parametrize("repetition_time", [2.0, 4.0])
def test_a_band_that_is_folded_to_nothing_is_refused(tmp_path, repetition_time):
    with pytest.raises(ConfoundsError, match="both ends") as caught:
        filter_confounds(table(tmp_path), NOTCH, repetition_time)
    assert "--motion-filter-band" in str(caught.value)
    assert "confounds_timeseries.tsv" in str(caught.value)


def test_missing_parameters_and_gaps_are_refused(tmp_path):
    path = write(tmp_path, {"trans_x": range(9), "csf": range(9)})
    with pytest.raises(ConfoundsError, match="missing: trans_y, trans_z, rot_x"):
        filter_confounds(read_confounds(path), NOTCH, 0.8)
    gap = ["n/a" if t == 7 else t for t in range(60)]
    with pytest.raises(
        ConfoundsError, match=r"volumes \(counted from 0\) without: 7\."
    ):
        filter_confounds(table(tmp_path, rot_z=gap), NOTCH, 0.8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"motion_filter": "notch"}, "notch takes 2 of motion_filter_band"),
        ({"motion_filter": "notch", "motion_filter_band": [6]}, "takes 2 of"),
        ({"motion_filter": "lp", "motion_filter_band": [6, 9]}, "lp takes 1 of"),
        ({"motion_filter_band": [6]}, "motion_filter_band does nothing without"),
        ({"head_radius": 35}, "head_radius does nothing without motion_filter"),
        ({"motion_filter": "lp", "motion_filter_band": [0]}, "the lower one first"),
        ({"motion_filter": "lp", "motion_filter_band": ["6"]}, "the lower one first"),
        ({"motion_filter": "lp", "motion_filter_band": [True]}, "the lower one"),
        ({"motion_filter": "lp", "motion_filter_band": 6}, "the lower one first"),
        ({"motion_filter": "notch", "motion_filter_band": [18, 12]}, "the lower one"),
        ({"motion_filter": "band"}, "none, notch or lp is needed"),
        (
            {"motion_filter": "lp", "motion_filter_band": [6], "head_radius": 0},
            "a length above 0 mm is needed",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(given, message):
    problems = []
    assert parse_settings(given, "settings", problems) is None
    assert message in problems[0]


def test_without_a_filter_nothing_is_told_of_one():
    """Outputs that were made before there was one keep their digests."""
    assert not [name for name in list_told(Settings()) if "motion" in name]
    assert "head_radius" not in list_told(Settings())
    told = list_told(NOTCH)
    assert told["head_radius"] == 50
    assert parse_settings(told, "settings", []) == NOTCH
