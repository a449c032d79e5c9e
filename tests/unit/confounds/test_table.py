"""Confounds tables: reading, old names, merging, quality of the run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from support.confound_tables import AXES, CAMEL, REAL, loader, toy, write

from bids_roi.confounds.table import (
    framewise_displacement,
    merge_confounds,
    non_steady_state,
    read_confounds,
    std_dvars,
)
from bids_roi.errors import ConfoundsError, DataError, MissingInput


@pytest.fixture
def real(shared, tmp_path):
    return loader(shared, tmp_path)


# --- versions of fMRIPrep


def test_the_camel_case_of_1_0_is_read_in_todays_names(shared):
    confounds = read_confounds(shared / "confounds" / CAMEL)
    numbers = [f"{number:02d}" for number in range(6)]
    expected = ["white_matter", "global_signal", "std_dvars", "dvars"]
    expected += ["vx_wise_std_dvars", "framewise_displacement"]
    expected += [f"{kind}_comp_cor_{n}" for kind in "ta" for n in numbers]
    assert list(confounds.names) == [*expected, *AXES]
    assert confounds.n_volumes == 152
    assert confounds.renamed[0] == ("WhiteMatter", "white_matter")
    fd = framewise_displacement(confounds)
    assert np.isnan(fd[0])
    assert fd[1] == 0.211503745
    # Power's definition from the parameters shows that these are what they should be.
    motion = np.column_stack([confounds.column(name) for name in AXES])
    steps = np.abs(np.diff(motion, axis=0))
    assert_allclose(fd[1:], steps[:, :3].sum(1) + 50 * steps[:, 3:].sum(1), rtol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(0, 150), min_size=1, max_size=4, unique=True))
def test_every_numbered_old_name_has_a_todays_one(tmp_path_factory, numbers):
    stems = {
        "aCompCor": "a_comp_cor_",
        "tCompCor": "t_comp_cor_",
        "Cosine": "cosine",
        "NonSteadyStateOutlier": "non_steady_state_outlier",
        "AROMAAggrComp": "aroma_motion_",
    }
    old = [f"{stem}{number:02d}" for stem in stems for number in numbers]
    path = write(tmp_path_factory.mktemp("old"), toy(3, "GlobalSignal", *old))
    new = [f"{stem}{number:02d}" for stem in stems.values() for number in numbers]
    assert list(read_confounds(path).names) == ["global_signal", *new]


def test_a_users_own_column_x_keeps_its_name(tmp_path):
    confounds = read_confounds(write(tmp_path, toy(3, "X", "CSF", "trans_x")))
    assert confounds.names == ("X", "CSF", "trans_x")
    old = toy(3, "X", "RotX", "trans_x")  # both spellings: nothing is overwritten
    assert read_confounds(write(tmp_path, old)).names == ("X", "rot_x", "trans_x")


# --- reading


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("", DataError, "the table is empty"),
        ("csf\twhite_matter\n", ConfoundsError, "a header and no rows"),
        ("\t\n1\t2\n", DataError, "."),
        ("a\tb\n1\n", DataError, "row 2 has 1 cells, the header has 2"),
        ("a\ta\n1\t2\n", DataError, "a occur more than once"),
        ("1.5\t-2e3\n1\t2\n", ConfoundsError, "numbers where the names"),
        (
            "/annex/objects/MD5E-s1--d41d.tsv\n",
            ConfoundsError,
            r"git-annex pointer.*datalad get",
        ),
        (
            "csf\trmsd\n1\tx\n2\tn/a\n?\ty\n",
            ConfoundsError,
            r"not numbers: csf in row 4 is '\?'; rmsd in row 2 is 'x'",
        ),
        (
            "\t".join("abcdefg") + "\n" + "\t".join("abcdefg") + "\n",
            ConfoundsError,
            "e in row 2 is 'e' and 2 more",
        ),
    ],
)
def test_what_is_no_table_is_refused_with_the_path(tmp_path, text, kind, message):
    path = tmp_path / "confounds.tsv"
    path.write_text(text)
    with pytest.raises(kind, match=message) as caught:
        read_confounds(path)
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 65


def test_an_absent_table(tmp_path):
    with pytest.raises(MissingInput, match="cannot be read"):
        read_confounds(tmp_path / "confounds.tsv")


def test_spellings_of_missing_values(tmp_path):
    cells = ["n/a", "NaN", "nan", "N/A", "NA", "1e-3"]
    confounds = read_confounds(write(tmp_path, {"csf": cells}))
    assert_array_equal(confounds.column("csf"), [np.nan] * 5 + [1e-3])


def test_metadata_is_read_from_the_json_beside(real):
    confounds, _ = real("20.2.1")
    entry = confounds.metadata["a_comp_cor_00"]
    assert {k: entry[k] for k in ("Mask", "Method", "Retained")} == {
        "Mask": "CSF",
        "Method": "aCompCor",
        "Retained": True,
    }
    assert not confounds.metadata_problem
    assert confounds.values.shape == (135, 98)


# --- merging


def test_tables_that_do_not_belong_together_are_not_merged(tmp_path):
    (tmp_path / "two").mkdir()
    first = read_confounds(write(tmp_path, toy(5, "csf", "rmsd")))
    short = read_confounds(write(tmp_path / "two", toy(4, "aroma_motion_01")))
    with pytest.raises(ConfoundsError, match=r"two.*4 rows, but .* has 5"):
        merge_confounds(first, short)
    other = read_confounds(write(tmp_path / "two", toy(5, "csf", "x", seed=1)))
    with pytest.raises(ConfoundsError, match=r"differ .*: csf\."):
        merge_confounds(first, other)
    same = read_confounds(write(tmp_path / "two", toy(5, "csf", "rmsd", "x")))
    both = merge_confounds(first, same)
    assert both.names == ("csf", "rmsd", "x")
    assert_array_equal(both.values, same.values)


# --- quality of the run


def test_flags_of_volumes(tmp_path):
    columns = {"csf": range(6)}
    columns["non_steady_state_outlier00"] = [1, 0, 0, 0, 0, 0]
    columns["non_steady_state_outlier01"] = [0, 1, 0, 0, 0, 0]
    columns["motion_outlier00"] = [0, 0, 0, 1.0, 0, 0]
    confounds = read_confounds(write(tmp_path, columns))
    assert_array_equal(np.flatnonzero(non_steady_state(confounds)), [0, 1])
    none = read_confounds(write(tmp_path, {"csf": range(6)}))
    assert not non_steady_state(none).any()
    assert non_steady_state(none).shape == (6,)


def test_flags_of_old_names_count(tmp_path):
    columns = {"NonSteadyStateOutlier00": [0, 0, 1, 0], "GlobalSignal": range(4)}
    found = non_steady_state(read_confounds(write(tmp_path, columns)))
    assert_array_equal(found, [False, False, True, False])


def test_flags_of_real_runs(real):
    found = {
        version: np.flatnonzero(non_steady_state(confounds)).tolist()
        for version in REAL
        for confounds, _ in [real(version)]
    }
    assert found == {
        "20.2.1": [],
        "23.1.2": [0, 1],
        "23.2.0": [],
        "21": [0, 1, 2],  # 23 columns; an excerpt of 30 rows
        "1.4": [0],
    }


@pytest.mark.parametrize(
    ("accessor", "name", "option"),
    [
        (framewise_displacement, "framewise_displacement", "--fd-threshold"),
        (std_dvars, "std_dvars", "--std-dvars-threshold"),
    ],
)
def test_a_threshold_needs_its_column(tmp_path, accessor, name, option):
    confounds = read_confounds(write(tmp_path, {"dvars": ["n/a", 1, 2]}))
    message = f"no column {name}, which {option} needs; there are dvars"
    with pytest.raises(ConfoundsError, match=message):
        accessor(confounds)
    gappy = read_confounds(write(tmp_path, {name: ["n/a", 0.2, "n/a", 0.1, "inf"]}))
    with pytest.raises(ConfoundsError, match=f"{name} has no value in volumes 2, 4,"):
        accessor(gappy)
    whole = read_confounds(write(tmp_path, {name: ["n/a", 0.2, 0.7]}))
    assert_array_equal(accessor(whole), [np.nan, 0.2, 0.7])
    assert_array_equal(accessor(whole) > 0.5, [False, False, True])
