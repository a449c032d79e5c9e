"""Arguments of Python: every option, with every kind of value that is not its own."""

import datetime as dt
import os
import re

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import datasets

import bids_roi
from bids_roi.arguments import ALLOWED, check_options, in_python, read_value
from bids_roi.errors import BidsRoiError, UsageError
from bids_roi.options.settings import ROWS
from bids_roi.options.table import OPTIONS

IMAGE = nb.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4))
STRANGE = [
    object(),
    b"bytes",
    {"a": 1},
    {1, 2},
    [[1, 2]],
    [object()],
    1j,
    np.zeros(3),
    np.array([]),
    pd.DataFrame({"a": [1]}),
    IMAGE,
    len,
    int,
    dt.date(2020, 1, 1),
    float("nan"),
    float("inf"),
    "nonsense",
    "",
    True,
    -1,
    10**400,
]
TEXTS = {name for name, row in ALLOWED.items() if not row.choices and row.kind is str}


@pytest.fixture(scope="module")
def images():
    bold = nb.Nifti1Image(datasets.bold(), datasets.oblique())
    return bold, nb.Nifti1Image(datasets.labels(), datasets.oblique())


@pytest.mark.parametrize("name", ALLOWED)
@pytest.mark.parametrize("value", STRANGE, ids=lambda v: type(v).__name__)
def test_a_strange_value_is_an_error_in_pythons_words(name, value, images):
    """Or it is a value of the option's; never an error of another kind."""
    try:
        bids_roi.extract(*images, mask="none", **{name: value})
    except BidsRoiError as error:
        text = str(error)
        assert len(text) < 900
        assert not re.search(r"--[a-z]", text), text
        assert "\n" not in text
        flag = name.replace("_", "-")
        assert flag == name or f"-{flag}" not in text, text
    else:
        switch = ALLOWED[name].kind is bool and value is True
        several = ALLOWED[name].many and isinstance(value, np.ndarray)
        whole = ALLOWED[name].kind is int and value == -1
        path = issubclass(ALLOWED[name].kind, os.PathLike) and value == "nonsense"
        assert switch or several or whole or path, (name, value)


@pytest.mark.parametrize("name", sorted(set(ALLOWED) - TEXTS))
def test_values_of_other_types_are_refused_by_name(name):
    """By the declaration alone: what each kind of option takes, and nothing else."""
    row = ALLOWED[name]
    for value in (object(), {"a": 1}, 1j, IMAGE, b"x", [1.5], len):
        with pytest.raises(UsageError, match=f"^{name} is ") as caught:
            read_value(row, value)
        assert len(str(caught.value)) < 400
    if row.kind in (int, float):
        for value in (True, False, "abc", float("nan"), float("inf"), "nan", [1]):
            with pytest.raises(UsageError, match=f"^{name} is a (whole )?number"):
                read_value(row, value)
        for good in (3, "3", np.int64(3)):
            assert read_value(row, good) == 3
            assert type(read_value(row, good)) is row.kind
    if row.kind is int:
        with pytest.raises(UsageError, match="whole"):
            read_value(row, 2.5)
    if row.kind is bool:
        for value in (1, 0, "True", "yes", None):
            with pytest.raises(UsageError, match="True or False"):
                read_value(row, value)
        assert read_value(row, np.True_) is True
    if row.choices:
        with pytest.raises(UsageError, match="one of " + ", ".join(row.choices)):
            read_value(row, row.choices[0] + "x")
        found = read_value(row, row.choices[0])
        assert found == ((row.choices[0],) if row.many else row.choices[0])


@given(
    st.sampled_from(sorted(ALLOWED)),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=9),
        st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=3),
        st.binary(max_size=3),
        st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    ),
)
def test_any_value_is_read_or_refused(name, value):
    row = ALLOWED[name]
    try:
        found = check_options({name: value})
    except UsageError:
        return
    if value is None:
        assert found == {}
    elif row.kind in (int, float, bool):
        assert type(found[name]) is row.kind
    elif row.many:
        assert all(type(item) is str for item in found[name])


def test_settings_take_numbers_and_the_words_that_switch_them_off():
    numeric = [n for n in ALLOWED if n in ROWS and ALLOWED[n].metavar and n in TEXTS]
    assert {"high_pass", "low_pass", "fd_threshold", "dummy_scans"} <= set(numeric)
    for name in numeric:
        for value in (1, 0.5, np.float32(0.5), "none", "0.1"):
            many = ALLOWED[name].many  # kept as words, as the command line has them
            expected = (str(value),) if many else value
            assert check_options({name: value})[name] == expected
        for value in (True, [[1]] if many else [1], object()):
            with pytest.raises(UsageError, match=f"{name} is .*a number or 'none'"):
                check_options({name: value})


@pytest.mark.parametrize(
    ("name", "counterpart"),
    [
        ("t_r", "repetition_time"),
        ("mask_img", "mask"),
        ("labels_img", "atlas"),
        ("maps_img", "atlas"),
        ("imgs", "bold"),
        ("lut", "atlas_table"),
        ("fwhm", "smoothing_fwhm"),
        ("sample_mask", "fd_threshold"),
        ("clean_args", "filter"),
        ("standardize_confounds", "strategy"),
        ("atlas_file", "atlas"),
        ("atlas_space", "space"),
        ("cifti_output", "command line"),
    ],
)
def test_names_of_nilearn_are_answered(name, counterpart):
    """Though bold and atlas are missing then, too."""
    with pytest.raises(UsageError, match=f"Its counterpart here is .*{counterpart}"):
        bids_roi.extract(**{name: 1})


def test_values_of_nilearn_are_answered(images):
    with pytest.raises(UsageError, match="True in nilearn is 'zscore_sample'"):
        bids_roi.extract(*images, standardize=True)
    with pytest.raises(UsageError, match="False in nilearn is 'none'"):
        bids_roi.extract(*images, standardize=False)


def test_one_option_under_two_names(images):
    with pytest.raises(
        UsageError, match="atlas_dataset is given twice, as atlas_datas"
    ):
        check_options({"atlas_dataset": "a", "atlas_datasets": "b"})
    with pytest.raises(UsageError, match="strategy is given twice, as denoise too"):
        bids_roi.extract(*images, strategy="24P", denoise="36P")
    with pytest.raises(UsageError, match="there is no strategy 'nonsense'"):
        bids_roi.extract(*images, mask="none", denoise="nonsense")


@pytest.mark.parametrize(
    ("app", "python"),
    [
        ("Give one with --mask PATH, or", "Give one with mask=PATH, or"),
        ("every voxel with --mask none.", "every voxel with mask='none'."),
        ("--min-coverage is a share", "min_coverage= is a share"),
        ("(--fd-threshold, --scrub)", "(fd_threshold=, scrub=)"),
        ("with --fd-threshold 0.5.", "with fd_threshold=0.5."),
        ("your own go to --atlas-file.", "your own go to atlas=."),
        ("--relmat pearson, or", "relmat='pearson', or"),
        ("With --space T1w it", "With space='T1w' it"),
        ("--denoise none gives", "strategy='none' gives"),
        ("with a --bids-filter-file.", "with a --bids-filter-file."),
        ("wb_command -cifti-smoothing", "wb_command -cifti-smoothing"),
        ("a -- b", "a -- b"),
    ],
)
def test_flags_become_arguments(app, python):
    assert in_python(UsageError("x.", remedy=app), {}).remedy == python
    assert in_python(UsageError(app), {}).problem == python


def test_every_option_of_a_run_can_be_given():
    """But for those that have an argument of their own, or write files."""
    groups = {"atlases", "extraction", "cleaning", "connectivity"}
    there = {option.name for option in OPTIONS if option.group in groups}
    own = {"atlas", "atlas_file", "atlas_space", "combine", "seeds"}
    own |= {"mask", "strategy", "cifti_output", "combine_runs"}
    own |= {"conditions", "condition_shift", "raw_dataset"}
    assert there - set(ALLOWED) == own
