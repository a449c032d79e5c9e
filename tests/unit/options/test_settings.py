"""The rows of the settings: what they take, and how words are read."""

import dataclasses
import json
import math

import pytest

from bids_roi.confounds import strategies
from bids_roi.errors import UsageError
from bids_roi.options.record import Options
from bids_roi.options.settings import ROWS, Settings, read_given


@pytest.mark.parametrize("name", ROWS)
def test_default_and_example_are_values_that_it_takes(name):
    row = ROWS[name]
    assert row.values.fits(getattr(Settings(), name))
    assert row.values.fits(row.example)
    assert f'"{name}": {json.dumps(row.example)}' in strategies.__doc__
    assert not row.values.fits("something else")
    assert not row.values.fits([])


def test_names_that_rows_refer_to_exist():
    names = {field.name for field in dataclasses.fields(Settings)}
    assert set(ROWS) == names
    assert {row.after for row in ROWS.values()} <= {"", *names}
    keys = [row.sidecar for row in ROWS.values() if row.sidecar]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("word", ["2.5", "four", "nan", "inf", "-inf", ""])
def test_no_number_of_dummy_scans(word):
    needed = "auto, none, or a whole number of volumes"
    with pytest.raises(UsageError, match=f"--dummy-scans is {needed}, not '{word}'"):
        read_given({"dummy_scans": word})


def test_what_is_not_given_is_not_there():
    """A switch that is off is as good as left out, as from a notebook."""
    given = {"detrend": False, "high_pass": None, "scrub": 0, "strategy": ("24P",)}
    options = Options.from_values(given)
    assert options.cleaning.settings == {"scrub": 0}
    assert read_given(options.cleaning.settings) == {"scrub": 0}
    assert hash(options) == hash(Options.from_values({"strategy": ("24P",)}))


@pytest.mark.parametrize("bound", [{"min_time": math.nan}, {"min_volumes": -1}])
def test_a_bound_that_no_run_can_miss_is_refused(bound):
    """Whatever is compared with NaN is not less than it."""
    with pytest.raises(UsageError, match="a number from 0 on"):
        Options.of(**bound)


@pytest.mark.parametrize("share", [20, -0.1, math.nan])
def test_a_share_is_no_percentage(share):
    with pytest.raises(UsageError, match="--max-censored is a share from 0 to 1"):
        Options.of(max_censored=share)
