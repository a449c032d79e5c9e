"""Flags, partners of a run, and the explanation where nothing is found."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import filters, found, pick, plant

from bids_roi.dataset.layout import explain_nothing, find_runs
from bids_roi.dataset.partners import (
    FREE_IN_CONFOUNDS,
    FREE_IN_MASK,
    Partners,
)
from bids_roi.dataset.query import CONFOUNDS, MASKS, labels_of
from bids_roi.errors import DataError, MissingInput, NothingFound
from bids_roi.options.row import Input


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, pick()),
        ({"session_label": ("1",)}, pick("ses-1")),
        ({"session_label": ("01",)}, []),  # a label, not a number
        ({"task_label": ("nback", "tone")}, sorted(pick("nback") + pick("tone"))),
        ({"run_label": ("1",)}, sorted(pick("run-1") + pick("run-01"))),
        ({"run_label": ("001",)}, sorted(pick("run-1") + pick("run-01"))),
        ({"run_label": ("2",)}, pick("run-02")),
        ({"space": ("T1w",)}, pick("space-T1w")),
        ({"space": ("MNI",)}, pick("space-MNI_")),
        ({"res": ("2",)}, sorted(pick("res-2") + pick("res-02"))),
        (
            {"res": ("native",)},
            pick(without=("part-phase", "echo-", "res-02", "res-2")),
        ),
        ({"space": ("native",)}, pick(without=("part-phase", "echo-", "space-"))),
        ({"space": ("func",)}, pick(without=("part-phase", "echo-", "space-"))),
        (
            {"space": ("native", "T1w")},
            sorted(pick(without=("part-phase", "echo-", "space-")) + pick("T1w")),
        ),
        ({"den": ("91k",)}, []),
        ({"echo_label": ("1",)}, pick("echo-1", without=())),
        ({"echo_label": ("01", "2")}, pick("echo-", without=())),
        ({"desc": "smooth"}, ["ses-1_task-rest_run-01"]),
    ],
)
def test_flags(dataset, options, expected):
    assert sorted(found(dataset, **options)) == expected


BOLD = "sub-01_task-rest_run-1_space-MNI_res-2_desc-preproc_bold.nii.gz"
STEM = "sub-01_task-rest_run-1"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], None),
        (["space-MNI_res-2_desc-brain_mask.nii.gz"], 0),
        (["space-MNI_res-2_desc-brain_mask.nii"], 0),
        (["space-MNI_res-2_label-brain_mask.nii.gz"], 0),
        # the order of entities says nothing
        (["res-2_space-MNI_desc-brain_mask.nii.gz"], 0),
        # desc-brain is preferred
        (
            [
                "space-MNI_res-2_label-brain_mask.nii.gz",
                "space-MNI_res-2_desc-brain_mask.nii.gz",
            ],
            1,
        ),
        # other grids, other tissue, other runs, not an image
        (
            [
                "desc-brain_mask.nii.gz",
                "space-MNI_desc-brain_mask.nii.gz",
                "space-MNI_res-1_desc-brain_mask.nii.gz",
                "space-MNI_cohort-1_res-2_desc-brain_mask.nii.gz",
                "space-T1w_res-2_desc-brain_mask.nii.gz",
                "space-MNI_res-2_label-GM_mask.nii.gz",
                "space-MNI_res-2_label-GM_desc-brain_mask.nii.gz",
                "space-MNI_res-2_desc-brain_mask.json",
                "acq-x_space-MNI_res-2_desc-brain_mask.nii.gz",
            ],
            None,
        ),
    ],
)
def test_mask(tmp_path, files, expected):
    names = [f"{STEM}_{name}" for name in files]
    plant(tmp_path, BOLD, *names)
    (run,) = find_runs(tmp_path, "01", Input())
    assert (run.mask_path and run.mask_path.name) == (
        None if expected is None else names[expected]
    )
    assert find_runs(tmp_path, "01", Input(), own_masks=False)[0].mask_path is None


def test_partners_of_one_name_are_told_by_their_folders(tmp_path):
    mask = "ses-1/func/sub-01_ses-1_desc-brain_mask.nii.gz"
    plant(
        tmp_path,
        f"sub-01/{mask}",
        f"sub-01/{mask.replace('brain_mask', 'preproc_bold')}",
    )
    (tmp_path / "sub-01" / "ses-latest").symlink_to("ses-1")
    for run in find_runs(tmp_path, "01", Input()):
        for folder in ("ses-1", "ses-latest"):
            assert str(tmp_path / "sub-01" / folder / mask[6:]) in run.error.problem
        assert "link to, or a copy of" in run.error.remedy


@pytest.mark.parametrize(
    ("twins", "said", "chosen"),
    [
        (
            (
                "space-MNI_res-2_desc-brain_mask.nii",
                "space-MNI_res-2_desc-brain_mask.nii.gz",
            ),
            "its mask",
            {"mask": {"extension": ".nii"}},
        ),
        (
            (
                "desc-confounds_timeseries.tsv",
                "space-MNI_desc-confounds_timeseries.tsv",
            ),
            "its confounds",
            {"confounds": {"space": None}},
        ),
    ],
)
def test_a_doubled_partner_costs_that_run_only(tmp_path, twins, said, chosen):
    other = BOLD.replace("run-1", "run-2")
    names = [f"{STEM}_{name}" for name in twins]
    plant(tmp_path, BOLD, other, *names)
    bad, good = find_runs(tmp_path, "01", Input())
    assert (bad.path.name, good.path.name, good.error) == (BOLD, other, None)
    assert isinstance(bad.error, DataError)
    assert f"2 files could be {said}: {names[0]} and {names[1]}." in str(bad.error)
    assert "--bids-filter-file" in bad.error.remedy
    path = filters(tmp_path, **chosen)
    runs = find_runs(tmp_path, "01", Input(bids_filter_file=path))
    assert [run.error for run in runs] == [None, None]
    partner = runs[0].mask_path or runs[0].confounds_path
    assert partner.name == names[0]
    if "mask" in chosen:
        runs = find_runs(tmp_path, "01", Input(), own_masks=False)
        assert [run.error for run in runs] == [None, None]


def test_what_is_no_entity_makes_nobodys_partner(tmp_path):
    table = f"{STEM}_desc-confounds_timeseries.tsv"
    mask = f"{STEM}_space-MNI_res-2_desc-brain_mask.nii.gz"
    plant(tmp_path, BOLD, mask, table)
    folder = tmp_path / "sub-01" / "func"
    for name in (mask, table):
        (folder / f"old_{name}").touch()
        (folder / name.replace("_desc", "_orig_desc")).touch()
    (run,) = find_runs(tmp_path, "01", Input())
    assert run.error is None
    assert (run.mask_path.name, run.confounds_path.name) == (mask, table)


# Names of few entities, so that many agree.
_WORDS = st.fixed_dictionaries(
    {},
    optional={
        "task": st.sampled_from(["a", "b"]),
        "run": st.sampled_from(["1", "01"]),
        "echo": st.sampled_from(["1", "2"]),
        "space": st.sampled_from(["T1w", "MNI"]),
        "label": st.just("brain"),
    },
)
_ENDS = ["desc-preproc_bold.nii.gz", "desc-brain_mask.nii.gz", "mask.nii.gz"]
_ENDS += ["desc-confounds_timeseries.tsv", "desc-confounds_regressors.tsv"]


@given(st.lists(st.tuples(_WORDS, st.sampled_from(_ENDS)), max_size=12))
def test_partners_are_those_of_a_plain_scan(names):
    """The index against every file looked at for every run."""
    paths = {
        Path("/x/func", "_".join(["sub-1", *map("-".join, pairs.items()), end]))
        for pairs, end in names
    }
    files = {path: labels_of(path) for path in sorted(paths)}
    for choices, free, section in (
        (MASKS, FREE_IN_MASK, "mask"),
        (CONFOUNDS, FREE_IN_CONFOUNDS, "confounds"),
    ):
        partners = Partners(files, choices, free, section)
        for path, labels in files.items():
            if labels["suffix"] == "bold":
                try:
                    found = partners.find(path, labels)
                except DataError:
                    found = "several"
                assert found == scan(labels, files, choices, free)


def scan(bold, files, choices, free):
    for rules in choices:
        ruled = {rule.key for rule in rules}
        best = []
        for path, labels in files.items():
            same = all(
                bold.get(key) == labels.get(key)
                for key in {*bold, *labels} - free - ruled
                if key not in ("suffix", "extension", "datatype")
            )
            carried = [key for key in ("echo", "part") if key in labels]
            wanted = all(rule.accepts(labels.get(rule.key)) for rule in rules)
            if wanted and same and all(bold.get(k) == labels[k] for k in carried):
                best.append((len(carried), path))
        most = [path for n, path in best if n == max(best)[0]]
        if most:
            return most[0] if len(most) == 1 else "several"
    return None


def test_multi_echo_partners(tmp_path):
    # fMRIPrep writes one mask and one table for all echoes.
    plant(
        tmp_path,
        "sub-01_task-rest_desc-preproc_bold.nii.gz",
        "sub-01_task-rest_echo-1_desc-preproc_bold.nii.gz",
        "sub-01_task-rest_echo-2_desc-preproc_bold.nii.gz",
        "sub-01_task-rest_desc-brain_mask.nii.gz",
        "sub-01_task-rest_echo-2_desc-brain_mask.nii.gz",
        "sub-01_task-rest_desc-confounds_timeseries.tsv",
    )
    common, own = "sub-01_task-rest_desc-brain_mask.nii.gz", "echo-2_desc-brain_mask"
    (run,) = find_runs(tmp_path, "01", Input())
    assert run.mask_path.name == common
    first, second = find_runs(tmp_path, "01", Input(echo_label=("1", "2")))
    assert first.mask_path.name == common
    assert own in second.mask_path.name
    assert first.confounds_path == second.confounds_path == run.confounds_path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["desc-confounds_timeseries.tsv"], 0),
        (["desc-confounds_regressors.tsv"], 0),
        (["desc-confounds_regressors.tsv", "desc-confounds_timeseries.tsv"], 1),
        (
            ["desc-confounds_timeseries.json", "acq-a_desc-confounds_timeseries.tsv"],
            None,
        ),
        (["desc-aroma_timeseries.tsv"], None),
    ],
)
def test_confounds(tmp_path, files, expected):
    names = [f"{STEM}_{name}" for name in files]
    plant(tmp_path, BOLD, BOLD.replace("space-MNI_res-2_", ""), *names)
    for run in find_runs(tmp_path, "01", Input()):
        assert (run.confounds_path and run.confounds_path.name) == (
            None if expected is None else names[expected]
        )


def test_partner_filters_apply_to_their_query_only(tmp_path):
    plant(
        tmp_path,
        BOLD,
        f"{STEM}_space-MNI_res-2_desc-brain_mask.nii.gz",
        f"{STEM}_space-MNI_desc-tight_mask.nii.gz",
        f"{STEM}_desc-confounds_timeseries.tsv",
        f"{STEM}_desc-mine_timeseries.tsv",
    )
    path = filters(
        tmp_path, mask={"desc": "tight", "res": None}, confounds={"desc": "mine"}
    )
    (run,) = find_runs(tmp_path, "01", Input(bids_filter_file=path))
    assert run.path.name == BOLD
    assert run.mask_path.name == f"{STEM}_space-MNI_desc-tight_mask.nii.gz"
    assert run.confounds_path.name == f"{STEM}_desc-mine_timeseries.tsv"


def test_explanation_has_query_values_and_near_misses(dataset):
    options = Input(task_label=("rset",), session_label=("2",))
    assert find_runs(dataset, "01", options) == []
    error = explain_nothing(dataset, ["01"], options)
    assert isinstance(error, NothingFound)
    assert error.exit_code == 18
    text = str(error)
    assert text.startswith(f"{dataset}: none of 14 BOLD runs of 1 participant")
    for part in (
        "ses 2; task rset;",
        "there is task: nback (1), rest (11), tone (2)",
        "there is ses: 1 (7), 2 (7)",
        "task rest, not rset",
        "Change the filters",
    ):
        assert part in text
    # a file that fails by two entities is not a near miss
    assert "ses-1_task-rest" not in text


def test_explanation_is_capped(tmp_path):
    names = [f"sub-01_task-t{i:02}_desc-preproc_bold.nii.gz" for i in range(40)]
    plant(tmp_path, *names, *(f"sub-{i:03}/x" for i in range(80)))
    participants = ["01", *(f"{i:03}" for i in range(80))]
    error = explain_nothing(tmp_path, participants, Input(task_label=("x",)))
    assert "the first 50 participants (of 81)" in str(error)
    assert "and 34 more" in str(error)
    assert len(str(error)) < 2000


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("sub-01_task-a_bold_space-MNI_preproc.nii.gz", r"fMRIPrep < 1\.2.*rename"),
        (
            "sub-01_task-a_space-fsLR_den-91k_bold.dtseries.nii",
            "surfaces or grayordinates",
        ),
        (
            "sub-01_task-a_hemi-L_space-fsnative_bold.func.gii",
            "surfaces or grayordinates",
        ),
        ("sub-01_task-a_bold.nii.gz", "Without desc- these look like raw data"),
        ("sub-01_task-a_echo-1_bold.nii.gz", "Without desc- these look like raw data"),
        # tedana's, single echoes, both, and beside what else fMRIPrep writes
        ("sub-01_task-a_desc-denoised_bold.nii.gz", "desc- label: --desc denoised"),
        ("sub-01_task-a_echo-2_desc-preproc_bold.nii.gz", "--echo-label 2,"),
        (
            "sub-01_task-a_echo-2_desc-optcom_bold.nii.gz",
            "--desc optcom.*--echo-label 2",
        ),
        ("sub-01_task-a_part-phase_desc-preproc_bold.nii", "filters on part"),
        ("sub-01_task-a_echo-2_part-phase_desc-preproc_bold.nii", "echo-label.*part"),
        ("sub-01/anat/sub-01_T1w.nii.gz", "no file in func"),
        ("sub-01_task-a_events.tsv", "that fMRIPrep wrote"),
        ("sub-01_task-a_bold_space-MNI_preproc.nii.gz", "brainmask.*_confounds.tsv"),
        # XCP-D, fMRIPost-AROMA, and FreeSurfer's own format (ds003787)
        ("sub-01_space-MNI_desc-nonaggrDenoised_bold.nii", "--desc nonaggrDenoised"),
        (
            "sub-01_task-a_hemi-L_space-fsnative_bold.mgz",
            "surfaces or grayordinates",
        ),
    ],
)
def test_explanation_recognises_folders(tmp_path, name, advice):
    plant(tmp_path, name)
    assert find_runs(tmp_path, "01", Input()) == []
    if "bold.nii" in name:
        plant(tmp_path, "sub-01_task-a_boldref.nii.gz")
    error = explain_nothing(tmp_path, ["01"], Input())
    assert isinstance(error, MissingInput)
    assert error.exit_code == 66
    with pytest.raises(MissingInput, match=advice):
        raise error


def test_flags_that_select_are_named_beside_those_that_were_given(tmp_path):
    """Echoes of one task, tedana's series of the other: what is nearest counts."""
    plant(
        tmp_path,
        *(f"sub-01_task-a_echo-{n}_desc-preproc_bold.nii.gz" for n in (1, 2, 3)),
        "sub-01_task-b_desc-denoised_bold.nii.gz",
    )
    first = explain_nothing(tmp_path, ["01"], Input(task_label=("a",)))
    assert isinstance(first, NothingFound)
    assert "--echo-label 1 2 3," in first.remedy
    assert "--desc" not in first.remedy
    second = explain_nothing(tmp_path, ["01"], Input(task_label=("b",)))
    assert "--desc denoised" in second.remedy
    assert "echo" not in second.remedy
    # what the advice says is what finds them
    assert len(find_runs(tmp_path, "01", Input(echo_label=("1", "2", "3")))) == 3
    assert len(find_runs(tmp_path, "01", Input(desc="denoised"))) == 1
    wrong = explain_nothing(tmp_path, ["01"], Input(desc="denoized"))
    assert "--desc denoised" in wrong.remedy
