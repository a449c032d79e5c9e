"""Surface and grayordinate series: hemispheres, repetition times, confounds."""

import json
import re

import pytest
from support.trees import SHARED, needs_shared, plant

from bids_roi.dataset.layout import find_runs
from bids_roi.dataset.query import KINDS, list_participants
from bids_roi.options.row import Input

ALL = tuple(KINDS)


def listing(root, participant):
    """Runs by a plain walk: regular expressions on names, as one counts by hand."""
    names = [p.name for p in root.glob(f"sub-{participant}/**/func/*")]
    left = {n for n in names if re.search(r"_hemi-L_.*_?bold\.func\.gii$", n)}
    pairs = {(n, n.replace("_hemi-L", "_hemi-R")) for n in left}
    dense = {(n,) for n in names if n.endswith("_bold.dtseries.nii")}
    return pairs, dense


@needs_shared
@pytest.mark.parametrize(
    ("name", "n_pairs", "n_dense"),
    [
        ("ds000001-fmriprep-20.2.0rc0", 24, 0),
        ("ds000117-fmriprep-21.0.2", 18, 18),
        ("ds004698-fmriprep-21.0.1", 24, 0),
        ("ds005239-fmriprep-23.2.0", 38, 0),
        ("ds005639-fmriprep-23.1.2", 5, 0),
    ],
)
def test_real_trees(name, n_pairs, n_dense, real_tree):
    root = real_tree(name)
    counts = dict.fromkeys(ALL, 0)
    for participant in list_participants(root, []):
        runs = find_runs(root, participant, Input(), ALL)
        volumes = [run for run in runs if run.kind == "volume"]
        assert volumes == find_runs(root, participant, Input())
        pairs, dense = listing(root, participant)
        for kind, expected in (("gifti", pairs), ("cifti", dense)):
            mine = [run for run in runs if run.kind == kind]
            assert {tuple(p.name for p in run.files) for run in mine} == expected
        tables = {
            dict(run.entities).get("task", "") + str(dict(run.entities).get("run")): run
            for run in volumes
        }
        for run in runs:
            counts[run.kind] += 1
            assert run.error is None
            # all series of a run are of one acquisition
            entities = dict(run.entities)
            beside = tables.get(entities.get("task", "") + str(entities.get("run")))
            if run.kind != "volume":
                assert run.metadata["RepetitionTime"] > 0
                assert run.mask_path is None
                assert run.confounds_path is not None
                assert not run.warnings
                assert "hemi" not in entities
                if beside is not None and beside.session == run.session:
                    assert run.confounds_path == beside.confounds_path
                    tr = beside.metadata["RepetitionTime"]
                    assert run.metadata["RepetitionTime"] == tr
    assert (counts["gifti"], counts["cifti"]) == (n_pairs, n_dense)


@needs_shared
@pytest.mark.parametrize(
    "name", [p.name for p in sorted((SHARED / "fmriprep-25.2_ci").glob("*.txt"))]
)
def test_lists_of_fmriprep_25(name, tmp_path):
    paths = (SHARED / "fmriprep-25.2_ci" / name).read_text().split()
    plant(tmp_path, *(p for p in paths if p.startswith("sub-") and "." in p))
    for participant in list_participants(tmp_path, []):
        runs = find_runs(tmp_path, participant, Input(), ("gifti", "cifti"))
        pairs, dense = listing(tmp_path, participant)
        assert {tuple(p.name for p in run.files) for run in runs} == pairs | dense
        assert not any(run.error for run in runs)


ORDERS = ("hemi-{}_space-fsaverage5", "space-fsaverage5_hemi-{}")


@pytest.mark.parametrize("order", ORDERS)
def test_two_hemispheres_are_one_run(tmp_path, order):
    sides = [f"sub-01_task-a_{order.format(side)}_bold.func.gii" for side in "LR"]
    plant(tmp_path, *sides, "sub-01_task-a_desc-confounds_timeseries.tsv")
    assert find_runs(tmp_path, "01", Input()) == []
    (run,) = find_runs(tmp_path, "01", Input(), ALL)
    assert [path.name for path in run.files] == sides
    assert run.relative_path == f"sub-01/func/{sides[0]}"
    assert run.entities == (("sub", "01"), ("task", "a"), ("space", "fsaverage5"))
    assert run.confounds_path.name == "sub-01_task-a_desc-confounds_timeseries.tsv"
    (left,) = find_runs(tmp_path, "01", Input(hemi=("L",)), ALL)
    assert (left.error, left.entity("hemi")) == (None, "L")
    assert len(left.files) == 1
    # one side gone, the other run of the participant goes on
    other = [name.replace("task-a", "task-b") for name in sides]
    plant(tmp_path, *other)
    (tmp_path / "sub-01" / "func" / sides[1]).unlink()
    bad, good = find_runs(tmp_path, "01", Input(), ALL)
    assert good.error is None
    assert f"the other hemisphere, {sides[1]}, is not there" in str(bad.error)
    assert "--hemi L" in bad.error.remedy
    # the same side in both orders
    plant(tmp_path, *(f"sub-01_task-b_{o.format('R')}_bold.func.gii" for o in ORDERS))
    _, twice = find_runs(tmp_path, "01", Input(), ALL)
    assert "one file each" in str(twice.error)


DENSE = "sub-01_task-a_run-1_space-fsLR_den-91k"


@pytest.mark.parametrize(
    ("sidecars", "expected", "n_warnings"),
    [
        ({f"{DENSE}_bold.json": 2.0, f"{DENSE}_bold.dtseries.json": None}, 2.0, 0),
        ({f"{DENSE}_bold.dtseries.json": 2.0}, 2.0, 0),
        ({f"{DENSE}_bold.dtseries.json": 2.0, f"{DENSE}_bold.json": 3.0}, 2.0, 0),
        ({"sub-01_task-a_run-1_space-MNI_res-2_desc-preproc_bold.json": 2.0}, 2.0, 0),
        # another run, another acquisition, another file of the run
        ({"sub-01_task-a_run-2_desc-preproc_bold.json": 2.0}, None, 0),
        ({"sub-01_task-a_acq-x_run-1_desc-preproc_bold.json": 2.0}, None, 0),
        ({"sub-01_task-a_run-1_desc-preproc_boldref.json": 2.0}, None, 0),
        ({"old_sub-01_task-a_run-1_desc-preproc_bold.json": 2.0}, None, 0),
        # two that do not agree are no source
        (
            {
                "sub-01_task-a_run-1_desc-preproc_bold.json": 2.0,
                "sub-01_task-a_run-1_space-MNI_desc-preproc_bold.json": 3.0,
            },
            None,
            1,
        ),
    ],
)
def test_repetition_time_of_whichever_sidecar_has_it(
    tmp_path, sidecars, expected, n_warnings
):
    plant(tmp_path, f"{DENSE}_bold.dtseries.nii")
    for name, seconds in sidecars.items():
        content = {"grayordinates": 91282} if seconds is None else {}
        content |= {"RepetitionTime": seconds} if seconds else {}
        (tmp_path / "sub-01" / "func" / name).write_text(json.dumps(content))
    (run,) = find_runs(tmp_path, "01", Input(), ALL)
    assert run.metadata.get("RepetitionTime") == expected
    assert len(run.warnings) == n_warnings
    if f"{DENSE}_bold.dtseries.json" in sidecars and len(sidecars) > 1:
        assert run.metadata.get("grayordinates", 91282) == 91282


def test_den_and_desc_choose(tmp_path):
    names = ["den-91k", "den-170k", "den-91k_desc-denoised"]
    plant(
        tmp_path,
        *(f"sub-01_task-a_space-fsLR_{name}_bold.dtseries.nii" for name in names),
        "sub-01_task-a_desc-preproc_bold.nii.gz",
    )

    def chosen(**options):
        runs = find_runs(tmp_path, "01", Input(**options), ALL)
        return {
            run.path.name.partition("fsLR_")[2].partition("_bold")[0] for run in runs
        }

    assert chosen() == {"", "den-91k", "den-170k"}
    assert chosen(den=("91k",)) == {"den-91k"}
    assert chosen(space=("fsLR",)) == {"den-91k", "den-170k"}
    assert chosen(desc="denoised") == {"den-91k_desc-denoised"}


CONTRADICTIONS = [
    ({"RepetitionTime": 2.0}, {"RepetitionTime": 1.0}, ("2.0", "1.0")),
    ({"StartTime": 0.5}, {"StartTime": 0}, ("StartTime", "0.5")),
    ({"SliceTimingCorrected": True}, {"SliceTimingCorrected": False}, ("True",)),
    ({"VolumeTiming": [0, 2]}, {"VolumeTiming": [0, 3]}, ("[0, 2]", "[0, 3]")),
    ({"RepetitionTime": 2.0}, {"VolumeTiming": [0, 3]}, ("2.0", "[0, 3]")),
    ({"RepetitionTime": 2}, {"RepetitionTime": 2.0, "TaskName": "rest"}, ()),
    ({}, {"RepetitionTime": 2.0}, ()),
    ({"RepetitionTime": 2.0}, {}, ()),
]


@pytest.mark.parametrize(("left", "right", "words"), CONTRADICTIONS)
def test_hemispheres_that_tell_other_times_are_an_error(tmp_path, left, right, words):
    func = tmp_path / "sub-01/func"
    func.mkdir(parents=True)
    names = [f"sub-01_task-rest_hemi-{side}_space-fsaverage5_bold" for side in "LR"]
    for name, content in zip(names, (left, right), strict=True):
        (func / f"{name}.func.gii").touch()
        (func / f"{name}.json").write_text(json.dumps(content))
    (run,) = find_runs(tmp_path, "01", Input(), ALL)
    if words:
        told = str(run.error)
        assert all(word in told for word in (*names, *words))
    else:
        assert run.error is None
        assert run.metadata["RepetitionTime"] == 2.0
