"""Confounds tables: reading, old names, quality of the run; choosing columns.

Presets of XCP-D, groups, what is said when that fails. Agreement with nilearn is in
``parity/test_confounds``.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from support.confound_tables import (
    AROMA,
    AXES,
    CAMEL,
    FULL,
    P24,
    REAL,
    WHOLE,
    expand,
    largest,
    loader,
    select,
    strategy,
    toy,
    write,
)

from bids_roi.confounds.components import merge_confounds
from bids_roi.confounds.strategies import Component
from bids_roi.confounds.table import (
    framewise_displacement,
    non_steady_state,
    read_confounds,
    std_dvars,
    summarise_names,
)
from bids_roi.errors import ConfoundsError, DataError, MissingInput


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    return loader(shared, tmp_path_factory.mktemp("real"))


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


# --- XCP-D's published column sets


WM_CSF = ["white_matter", "csf"]
TISSUE = ["global_signal", *WM_CSF]
ACOMPCOR = [
    *expand(AXES, "_derivative1"),
    *(f"{mask}_comp_cor_{number:02d}" for mask in "wc" for number in range(5)),
]
XCP_D = {
    "24P": P24,
    "27P": [*P24, *TISSUE],
    "36P": [*P24, *expand(TISSUE, *FULL)],
    "acompcor": ACOMPCOR,
    "acompcor_gsr": [*ACOMPCOR, "global_signal"],
    "gsr_only": ["global_signal"],
}


@pytest.mark.parametrize("name", XCP_D)
@pytest.mark.parametrize("version", ["23.1.2", "23.2.0"])
def test_presets_hold_the_columns_of_xcp_d(real, version, name):
    confounds, _ = real(version)
    expected = list(XCP_D[name])
    if name.startswith("acompcor"):
        expected += [n for n in confounds.names if n.startswith("cosine")]
    selected = select(confounds, name)
    assert list(selected.names) == sorted(expected)
    numbers = {"24P": 24, "27P": 27, "36P": 36, "gsr_only": 1}
    assert len(selected.names) == numbers.get(name, len(expected))


def test_acompcor_finds_the_masks_of_20_2_by_the_json(real):
    confounds, _ = real("20.2.1")
    selected = select(confounds, "acompcor")
    chosen = [n for n in selected.names if "comp_cor" in n]
    masks = [confounds.metadata[name]["Mask"] for name in chosen]
    assert masks.count("WM") == 5
    assert masks.count("CSF") == 4  # all there are
    assert "5 CompCor components of CSF were asked for, the table has 4." in (
        selected.notes
    )


def test_aroma_of_xcp_d_takes_the_columns_of_fmripost_aroma(shared, tmp_path):
    aroma = read_confounds(shared / "confounds" / AROMA)
    table = toy(120, "csf", "white_matter", "global_signal")
    confounds = merge_confounds(read_confounds(write(tmp_path, table)), aroma)
    orthogonal = [f"aroma_orth_motion_{n:02d}" for n in (3, 7, 19, 20, 25, 26)]
    selected = select(confounds, "aroma")
    assert list(selected.names) == sorted([*WM_CSF, *orthogonal])
    assert_array_equal(selected.regressors[:, 0], aroma.column("aroma_orth_motion_03"))
    selected = select(confounds, "aroma_gsr")
    assert list(selected.names) == sorted([*TISSUE, *orthogonal])
    # And not both, which span the same noise twice.
    selected = select(confounds, strategy(Component("ica_aroma", "basic")))
    assert list(selected.names) == [n.replace("orth_", "") for n in orthogonal]
    assert confounds.paths[1].name.endswith("desc-aroma_timeseries.tsv")


def test_without_the_second_table_the_message_says_where_aroma_went(real):
    confounds, _ = real("23.2.0")
    with pytest.raises(ConfoundsError, match=r"ica_aroma orthogonal.*fMRIPost-AROMA"):
        select(confounds, "aroma")


# --- tables without derivatives


def test_derivatives_and_squares_are_computed_for_1_0(shared):
    confounds = read_confounds(shared / "confounds" / CAMEL)
    selected = select(confounds, "24P")
    assert list(selected.names) == sorted(P24)
    assert set(selected.computed) == set(P24) - set(AXES)
    course = confounds.column("rot_y")
    slope = np.diff(course)
    by_name = dict(zip(selected.names, selected.regressors.T, strict=True))
    assert_array_equal(by_name["rot_y_derivative1"], [slope[0], *slope])
    assert_array_equal(by_name["rot_y_power2"], course**2)
    assert_array_equal(by_name["rot_y_derivative1_power2"], [slope[0] ** 2, *slope**2])
    assert len(selected.filled) == 12
    notes = " ".join(selected.notes)
    assert "computed as fMRIPrep does" in notes
    assert "renamed from fMRIPrep 1.0/1.1: X as trans_x" in notes


@pytest.mark.parametrize("version", WHOLE)
def test_computed_derivatives_are_those_that_fmriprep_writes(real, version):
    confounds, _ = real(version)
    kept = [
        index
        for index, name in enumerate(confounds.names)
        if "derivative1" not in name and "power2" not in name
    ]
    bare = replace(
        confounds,
        names=tuple(confounds.names[index] for index in kept),
        values=confounds.values[:, kept],
    )
    computed, written = select(bare, "36P"), select(confounds, "36P")
    assert computed.names == written.names
    assert len(computed.computed) == 27
    assert not written.computed
    scale = largest(written.regressors)
    # Differences of numbers that were rounded when written.
    error = np.abs(computed.regressors - written.regressors) / scale
    assert error.max() < 1e-9


def test_1_0_has_no_csf_and_no_cosines_here_and_that_is_said(shared):
    confounds = read_confounds(shared / "confounds" / CAMEL)
    with pytest.raises(
        ConfoundsError,
        match=r"no column for cosine all; the table has nothing of the kind \(fMRIPrep"
        r".*1 of 2 of wm_csf \(csf\); the table has white_matter",
    ):
        select(confounds, "simple")
    with pytest.raises(ConfoundsError, match=r"\(Mask\), and there is no .*json"):
        select(confounds, strategy(Component("compcor", "anat_combined")))
    selected = select(confounds, strategy(Component("compcor", "temporal")))
    assert list(selected.names) == [f"t_comp_cor_{n:02d}" for n in range(6)]


# --- selecting


def test_rows_must_be_volumes(tmp_path):
    confounds = read_confounds(write(tmp_path, toy(5, "csf")))
    with pytest.raises(ConfoundsError, match="5 rows, the BOLD series 6 volumes"):
        select(confounds, strategy(), n_volumes=6)


def test_nothing_to_regress(tmp_path):
    confounds = read_confounds(write(tmp_path, toy(5, "csf")))
    selected = select(confounds, strategy())
    assert selected.regressors.shape == (5, 0)
    assert (selected.names, selected.notes) == ((), ())


def test_columns_and_patterns_in_alphabetical_order_each_once(tmp_path):
    names = ("edge_comp_01", "csf", "edge_comp_00", "csf_wm", "edge_comp_10", "rmsd")
    confounds = read_confounds(write(tmp_path, toy(5, *names)))
    chosen = strategy(
        Component("pattern", r"^edge_comp_0\d$"),
        Component("columns", columns=("rmsd", "csf")),
        Component("pattern", "csf"),  # the whole name: not csf_wm
    )
    selected = select(confounds, chosen)
    assert selected.names == ("csf", "edge_comp_00", "edge_comp_01", "rmsd")
    assert_array_equal(selected.regressors[:, 3], confounds.column("rmsd"))


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (
            Component("columns", columns=("CSF", "white_mater", "rmsd")),
            r"2 of 3 of columns \(CSF, white_mater\); the table has white_matter",
        ),
        (
            Component("pattern", "cosine.*"),
            r"no column for pattern cosine\.\*; the table has csf, csf_d",
        ),
        (Component("cosine", "all"), "no column for cosine all.*nothing of the kind"),
        (Component("motion", "basic"), r"all 6 of motion basic \(trans_x, .*rot_z\)"),
        (
            Component("csf", "power2"),
            r"1 of 2 of csf \(csf_power2\); the table has csf,",
        ),
        (Component("ica_aroma", "basic"), "no column for ica_aroma basic"),
    ],
)
def test_missing_columns_are_named_beside_those_that_exist(
    tmp_path, component, message
):
    names = ("csf", "csf_derivative1", "white_matter", "rmsd")
    confounds = read_confounds(write(tmp_path, toy(5, *names)))
    chosen = strategy(component, Component("columns", columns=("rmsd",)))
    with pytest.raises(ConfoundsError, match=message):
        select(confounds, chosen)
    selected = select(confounds, chosen, allow_missing=True)
    assert "rmsd" in selected.names
    assert selected.missing


def test_all_missing_groups_are_in_one_message(tmp_path):
    confounds = read_confounds(write(tmp_path, toy(5, "csf_power2")))
    with pytest.raises(ConfoundsError, match=r"simple .*cosine all.*24 of motion.*wm_"):
        select(confounds, "simple")


def test_the_first_row_is_filled_and_no_other(tmp_path):
    columns = toy(5, "csf", "csf_derivative1", "rmsd")
    confounds = read_confounds(write(tmp_path, columns))
    chosen = strategy(Component("csf", "derivatives"))
    selected = select(confounds, chosen)
    assert selected.filled == ("csf_derivative1",)
    assert selected.regressors[0, 1] == selected.regressors[1, 1]
    assert_array_equal(selected.regressors[:, 0], columns["csf"])
    assert selected.notes == ()  # of every run, so no news: the sidecar says it
    assert np.isnan(confounds.column("csf_derivative1")[0])  # the table is untouched
    for gap in ("n/a", "inf"):
        columns["csf_derivative1"][1] = columns["csf_derivative1"][3] = gap
        confounds = read_confounds(write(tmp_path, columns))
        with pytest.raises(
            ConfoundsError,
            match=r"csf_derivative1 in volumes 0, 1, 3\. Only the first volume",
        ):
            select(confounds, chosen)


@pytest.mark.parametrize("gaps", [(1,), (0, 1), (5,)])
def test_a_gap_anywhere_else_is_an_error(tmp_path, gaps):
    columns = toy(6, "csf")
    for volume in gaps:
        columns["csf"][volume] = "n/a"
    confounds = read_confounds(write(tmp_path, columns))
    listed = ", ".join(map(str, gaps))
    with pytest.raises(ConfoundsError, match=rf"csf in volumes {listed}\. Only"):
        select(confounds, strategy(Component("csf", "basic")))


def test_one_volume_has_no_second_to_fill_from(tmp_path):
    confounds = read_confounds(
        write(tmp_path, {"csf": [1], "csf_derivative1": ["n/a"]})
    )
    assert select(confounds, strategy(Component("csf", "basic"))).names == ("csf",)
    with pytest.raises(ConfoundsError, match="csf_derivative1 in volumes 0"):
        select(confounds, strategy(Component("csf", "derivatives")))


def test_gaps_in_columns_that_are_not_chosen_do_not_matter(tmp_path):
    columns = {**toy(4, "csf"), "rmsd": [1, "n/a", "n/a", 2]}
    confounds = read_confounds(write(tmp_path, columns))
    assert select(confounds, strategy(Component("csf", "basic"))).names == ("csf",)


def test_constant_and_identical_columns_are_noted(tmp_path):
    columns = toy(5, "csf", "white_matter")
    columns |= {"edge_0": columns["csf"], "edge_1": [4] * 5, "edge_2": [4] * 5}
    confounds = read_confounds(write(tmp_path, columns))
    chosen = strategy(Component("wm_csf", "basic"), Component("pattern", "edge_."))
    assert select(confounds, chosen).notes == (
        "Columns are constant and explain nothing: edge_1, edge_2.",
        "Columns csf and edge_0 are identical and count once.",
    )


def test_two_high_passes_and_compcor_without_its_cosines_are_noted(tmp_path):
    columns = toy(5, "cosine00", "cosine01", "t_comp_cor_00")
    confounds = read_confounds(write(tmp_path, columns))
    cosine, compcor = Component("cosine", "all"), Component("compcor", "temporal")
    assert select(confounds, strategy(cosine, compcor)).notes == ()
    assert select(confounds, strategy(cosine, low_pass=0.1)).notes == ()
    assert select(confounds, strategy(cosine, high_pass=0.01)).notes == (
        "mine: two high-passes, 2 cosine columns and a passband filter at 0.01 Hz; one"
        " is enough.",
    )
    (note,) = select(confounds, strategy(compcor)).notes
    assert note.startswith("fMRIPrep computes CompCor after a high-pass by its cosine")


@pytest.mark.parametrize("desc", ["smoothAROMAnonaggr", "nonaggrDenoised"])
def test_full_aroma_is_for_a_series_already_denoised(tmp_path, desc):
    confounds = read_confounds(
        write(tmp_path, toy(5, "csf", "white_matter", "cosine00"))
    )
    selected = select(confounds, "ica_aroma", image_desc=desc)
    assert selected.names == ("cosine00", "csf", "white_matter")
    for other in ("preproc", None):
        with pytest.raises(
            ConfoundsError,
            match=r"desc-smoothAROMAnonaggr or desc-nonaggrDenoised; the BOLD series"
            r" has .*Give --desc smoothAROMAnonaggr",
        ):
            select(confounds, "ica_aroma", image_desc=other)


# --- names in messages


@given(
    st.dictionaries(
        st.sampled_from(["cosine", "a_comp_cor_", "trans_x_derivative"]),
        st.integers(1, 30),
    )
)
def test_a_summary_counts_every_name(groups):
    names = [f"{stem}{n:02d}" for stem, count in groups.items() for n in range(count)]
    summary = summarise_names(names)
    for stem, count in groups.items():
        if count > 1 and not stem.endswith("derivative"):
            assert f"{stem}00 to {stem}{count - 1:02d} ({count})" in summary
        else:
            assert f"{stem}00" in summary


def test_derivatives_are_not_taken_for_numbers():
    names = ["csf_derivative1", "csf_power2", "csf_derivative1_power2"]
    assert summarise_names(names) == ", ".join(names)
