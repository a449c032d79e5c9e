"""Matrices of the conditions of a task: volumes by hand, by nilearn; bad events."""

import json

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor
from numpy.testing import assert_allclose, assert_array_equal
from support import datasets, toy_confounds
from support.calls import FUNC, STEM, read, read_relmat, run, series, sidecar, state
from support.datasets import SPACE
from support.group_trees import read_rows
from support.validator import issues_of

from bids_roi.core.relmat import relate
from bids_roi.errors import DataError
from bids_roi.loading import load

T = toy_confounds.T
USED = [0, 1, 2, 3]
CLEAN = ["--strategy", "24P", "--fd-threshold", 0.5, "--dummy-scans", "auto"]
EVENTS = """onset\tduration\ttrial_type
10.5\t20\tface
40.5\t20\thouse
60.5\t10\tface
90\t0\tface
n/a\t4\thouse
"""


@pytest.fixture
def raw(cleaned_input, tmp_path):
    """A raw dataset whose derivative the cleaned input is."""
    folder = tmp_path / "raw"
    (folder / "sub-01" / "func").mkdir(parents=True)
    (folder / "sub-01/func/sub-01_task-rest_events.tsv").write_text(EVENTS)
    return folder


def matrix(out, condition, word="pearsoncorrelation", desc="24P"):
    name = f"{STEM}_atlas-Toy_stat-{word}_desc-{desc}{condition}_relmat.tsv"
    return out / FUNC / name


def by_nilearn(shift, start=0.0):
    """Volumes of each condition: nilearn's boxcar, above a half."""
    times = start + 2.0 * np.arange(T)
    table = pd.read_csv(pd.io.common.StringIO(EVENTS), sep="\t").query("duration > 0")
    found = {}
    for name, own in table.dropna().groupby("trial_type"):
        exp = np.array([own.onset + shift, own.duration, np.ones(len(own))])
        boxcar, _ = compute_regressor(exp, None, times, oversampling=100)
        found[name] = boxcar[:, 0] > 0.5
    return found


@pytest.mark.parametrize("censored", ["drop", "na", "interpolate"])
def test_volumes_are_nilearns_after_cleaning_the_whole(
    cleaned_input, atlas, raw, tmp_path, capsys, censored
):
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, *CLEAN, "--relmat", "pearson", "covariance"]
    options += ["--conditions", "face", "house", "--condition-shift", 5]
    options += ["--raw-dataset", raw, "--censored", censored]
    told = run(capsys, cleaned_input[0], out, "participant", *options)
    assert "condition face: 1 event without" in told.err
    kept = np.ones(T, dtype=bool)
    kept[[0, *toy_confounds.SPIKES]] = False
    _, rows = read(series(out, "24P"))
    whole = np.full((T, 5), np.nan)
    whole[kept] = rows if len(rows) == kept.sum() else rows[kept]
    for condition, chosen in by_nilearn(5).items():
        signals = whole[chosen & kept][:, USED]
        path = matrix(out, condition.title())
        found = read_relmat(path)[np.ix_(USED, USED)]
        assert_allclose(found, np.corrcoef(signals.T), rtol=0, atol=1e-12)
        content = sidecar(path)
        assert content["Condition"] == condition
        assert content["ConditionShift"] == 5
        assert content["ConditionVolumes"] == chosen.sum()
        assert content["NumberOfVolumesKept"] == len(signals) < chosen.sum() + 1
        assert content["SecondsKept"] == 2 * len(signals)
        of_run = sidecar(matrix(out, ""))
        share = len(signals) / of_run["NumberOfVolumesKept"]
        assert content["DegreesOfFreedom"] == pytest.approx(
            of_run["DegreesOfFreedom"] * share, abs=1e-3
        )
        assert content["OptionsDigest"] != of_run["OptionsDigest"]
        assert content["EffectiveDegreesOfFreedom"] == "n/a"
        found = read_relmat(matrix(out, condition.title(), "covariance"))
        assert_allclose(found[np.ix_(USED, USED)], np.cov(signals.T), rtol=1e-10)


def test_equal_lengths_and_xdf_with_the_lags_of_the_run(
    cleaned_input, atlas, raw, tmp_path, capsys
):
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, "--strategy", "24P", "--fd-threshold", 0.5]
    options += ["--relmat", "pearson", "pearsonxdfvariance", "--raw-dataset", raw]
    options += ["--conditions", "face", "house", "--condition-shift", 5]
    run(capsys, cleaned_input[0], out, "participant", *options, "--relmat-volumes", 8)
    kept = np.ones(T, dtype=bool)
    kept[[0, *toy_confounds.SPIKES]] = False
    whole = np.full((T, 5), np.nan)
    whole[kept] = read(series(out, "24P"))[1]
    of_series = sidecar(series(out, "24P"))
    for condition, inside in by_nilearn(5).items():
        volumes = np.flatnonzero(inside & kept)
        picks = np.random.RandomState(0).permutation(len(volumes))[:8]
        volumes = volumes[np.sort(picks)]
        path = matrix(out, condition.title())
        found = read_relmat(path)[np.ix_(USED, USED)]
        assert_allclose(found, np.corrcoef(whole[volumes][:, USED].T), atol=1e-12)
        # Of the volumes chosen: fewer than those of the condition, and than 8.
        content = sidecar(path)
        share = content["NumberOfVolumesKept"] / of_series["NumberOfVolumesKept"]
        assert content["DegreesOfFreedom"] < of_series["DegreesOfFreedom"] * share
        assert content["DegreesOfFreedom"] <= 7
        path = matrix(out, condition.title(), "pearsonxdfvariance")
        mask = np.isin(np.arange(T), volumes)
        variance = relate(
            *("pearsonxdfvariance", whole[volumes][:, USED]),
            sample_mask=mask,
            regularisation="truncate",
        )
        found = read_relmat(path)[np.ix_(USED, USED)]
        assert_allclose(found, variance, rtol=1e-10)


def test_by_hand_with_the_time_of_slices(tmp_path, atlas, capsys):
    """Volumes at 1, 3, 5 ... s: an event of 4 to 9.5 s has those at 5, 7 and 9."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    root = datasets.write_dataset(raw / "derivatives" / "fmriprep", [])
    name = f"sub-01_task-rest_space-{SPACE}"
    told = {"StartTime": 1.0, "SliceTimingCorrected": True}
    datasets.write_run(root, name, **told)
    (raw / "task-rest_events.tsv").write_text(
        "onset\tduration\ttrial_type\n3.0\t5.5\tGo no-go\n12\t9\tother\n"
    )
    options = ["--atlas-file", atlas, "--relmat", "pearson"]
    options += ["--conditions", "Go no-go", "--condition-shift", 1]
    run(capsys, root, out, "participant", *options)
    _, values = read(series(out, None))
    path = (
        out / FUNC / f"{STEM}_atlas-Toy_stat-pearsoncorrelation_desc-Gonogo_relmat.tsv"
    )
    expected = np.corrcoef(values[2:5][:, USED].T)
    assert_allclose(read_relmat(path)[np.ix_(USED, USED)], expected, atol=1e-12)
    assert sidecar(path)["NumberOfVolumesKept"] == 3
    assert issues_of(out, "error", "warning") == []


def test_too_few_volumes_overlap_and_late_events(
    cleaned_input, atlas, raw, tmp_path, capsys
):
    table = raw / "sub-01/func/sub-01_task-rest_events.tsv"
    table.write_text(EVENTS + "4.5\t3\tshort\n44.5\t9\tboth\n9000\t5\tlate\n")
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, *CLEAN, "--relmat", "pearson"]
    options += ["--raw-dataset", raw, "--conditions", "short", "both", "house", "late"]
    told = run(capsys, cleaned_input[0], out, "participant", *options)
    short = sidecar(matrix(out, "Short"))
    assert short["NumberOfVolumesKept"] == 1
    assert "1 volumes are kept" in short["ReasonNotAvailable"]
    assert np.isnan(read_relmat(matrix(out, "Short"))).all()
    assert "condition both shares 4 volumes with house" in told.err
    assert "after the last volume (118 s). Are the onsets in s?" in told.err
    run(capsys, "x", out, "group")
    rows = {r["desc_id"]: r for r in read_rows(out / "group_runs.tsv")}
    assert rows["24PShort"]["status"] == "left_out"
    assert rows["24PHouse"]["status"] == rows["24P"]["status"] == "done"
    group = f"group_task-rest_space-{SPACE}_atlas-Toy_stat-pearsoncorrelation_desc-"
    assert (out / f"{group}24PHouse_relmat.tsv").is_file()
    found = load(out, strategy="24PHouse").relmats()
    assert_array_equal(found.to_numpy(), read_relmat(matrix(out, "House")))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--conditions", "faces"], ["no condition faces", "Nearest: face", "house"]),
        (["--conditions", "face", "fa-ce"], ["no condition fa-ce"]),
    ],
)
def test_unknown_conditions(cleaned_input, atlas, raw, tmp_path, capsys, given, words):
    options = ["--atlas-file", atlas, "--relmat", "pearson", "--raw-dataset", raw]
    out = tmp_path / "out"
    told = run(capsys, cleaned_input[0], out, "participant", *options, *given, code=1)
    assert all(word in told.err for word in words), told.err
    logs = "".join(p.read_text() for p in (out / "logs").rglob("*.jsonl"))
    assert words[0] in logs
    options += ["--conditions", "face"]
    run(capsys, cleaned_input[0], out, "participant", *options)
    logs = "".join(p.read_text() for p in (out / "logs").rglob("*.jsonl"))
    assert words[0] not in logs


@pytest.mark.parametrize(
    "earlier",
    [
        ["--fisher-z"],
        ["--relmat-volumes", 12],
        ["--partial-estimator", "pseudo_inverse"],
        ["--min-degrees-of-freedom", 9],
    ],
)
def test_matrices_of_other_settings_are_left_alone(
    cleaned_input, atlas, raw, tmp_path, capsys, earlier
):
    """A strategy that an earlier call made otherwise, and this one does not ask for."""
    out, root = tmp_path / "out", cleaned_input[0]
    options = ["--atlas-file", atlas, "--relmat", "partial"]
    run(capsys, root, out, "participant", *options, *CLEAN, *earlier)
    before = {*state(out / FUNC)}
    given = ["--conditions", "face", "--raw-dataset", raw]
    run(capsys, root, out, "participant", *options, *given)
    made = {*state(out / FUNC)} - before
    assert matrix(out, "Face", "partialcorrelation", "").is_file()
    assert not [path for path in made if "24PFace" in str(path)]


def test_tasks_that_are_not_asked_for_are_left_alone(
    cleaned_input, atlas, raw, tmp_path, capsys
):
    """Of a task without the condition, made by an earlier call: no word of it."""
    root, out = cleaned_input[0], tmp_path / "out"
    events = raw / "sub-01/func/sub-01_task-rest_events.tsv"
    events.with_name("sub-01_task-nback_events.tsv").write_text(EVENTS)
    events.write_text(EVENTS.replace("face", "other"))
    for path in [p for p in (root / FUNC).iterdir() if "task-rest" in p.name]:
        path.with_name(path.name.replace("-rest", "-nback")).write_bytes(
            path.read_bytes()
        )
    options = ["--atlas-file", atlas, *CLEAN, "--relmat", "pearson"]
    run(capsys, root, out, "participant", *options)
    before = state(out / FUNC)
    given = ["--task-label", "nback", "--conditions", "face", "--raw-dataset", raw]
    run(capsys, root, out, "participant", *options, *given)
    new = {*state(out / FUNC)} - {*before}
    nback = matrix(out, "Face").name.replace("-rest", "-nback")
    assert {str(path).rpartition("/")[2] for path in new} == {
        nback,
        nback.replace(".tsv", ".json"),
    }


def test_a_run_of_two_tables_of_events_costs_no_other(
    cleaned_input, atlas, raw, tmp_path, capsys
):
    """The first by its name: those after it have their matrices."""
    root, out = cleaned_input[0], tmp_path / "out"
    for name in ("sub-01_task-nback", "task-nback_sub-01"):
        (raw / f"sub-01/func/{name}_events.tsv").write_text(EVENTS)
    for path in [p for p in (root / FUNC).iterdir() if "task-rest" in p.name]:
        path.with_name(path.name.replace("-rest", "-nback")).write_bytes(
            path.read_bytes()
        )
    options = ["--atlas-file", atlas, *CLEAN, "--relmat", "pearson"]
    options += ["--conditions", "face", "--raw-dataset", raw]
    told = run(capsys, root, out, "participant", *options, code=1)
    assert "two tables of events apply to the run" in told.err
    assert matrix(out, "Face").is_file()
    assert not list((out / FUNC).glob("*task-nback*24PFace*"))


def test_a_condition_that_a_run_lacks_costs_no_other(
    cleaned_input, atlas, raw, tmp_path, capsys
):
    """A participant who made no error has the matrices of what was right."""
    out, given = tmp_path / "out", ["--conditions", "error", "face"]
    options = ["--atlas-file", atlas, *CLEAN, "--relmat", "pearson", *given]
    options += ["--raw-dataset", raw]
    told = run(capsys, cleaned_input[0], out, "participant", *options, code=1)
    assert "there is no condition error (trial_type). There are face" in told.err
    assert matrix(out, "Face").is_file()
    assert not matrix(out, "Error").exists()
    made = state(out / "sub-01")
    run(capsys, cleaned_input[0], out, "participant", *options, code=1)
    assert state(out / "sub-01") == made
    run(capsys, "x", out, "group", code=None)
    rows = read_rows(out / "group_runs.tsv")
    assert {r["desc_id"]: r["status"] for r in rows}["24PFace"] == "done"
    assert [r for r in rows if "no condition error" in r["reason"]]


@pytest.mark.parametrize(
    ("given", "words", "code"),
    [
        (["--condition-shift", 5], "no effect without --conditions", 64),
        (["--conditions", "face"], "lies in no raw dataset", 64),
        (["--conditions", "face", "--condition-shift", "500"], "not 500", 64),
        (["--conditions", "face", "--raw-dataset", "nowhere"], "no such file", 64),
        (["--conditions", "face", "--raw-dataset", "."], "has an events.tsv", 1),
    ],
)
def test_wrong_calls(
    cleaned_input, atlas, tmp_path, capsys, monkeypatch, given, words, code
):
    monkeypatch.chdir(tmp_path)
    options = ["--atlas-file", atlas, "--relmat", "pearson", *given]
    root, out = cleaned_input[0], tmp_path / "out"
    told = run(capsys, root, out, "participant", *options, code=code)
    assert words in told.err


def test_going_on(cleaned_input, atlas, raw, tmp_path, capsys):
    root, out = cleaned_input[0], tmp_path / "out"
    options = ["--atlas-file", atlas, *CLEAN, "--relmat", "pearson"]
    run(capsys, root, out, "participant", *options)
    plain = state(out / "sub-01")
    options += ["--raw-dataset", raw, "--conditions", "face"]
    run(capsys, root, out, "participant", *options)
    first = state(out / "sub-01")
    files = {k for k, (_, content) in plain.items() if content is not None}
    same = {k: first[k] for k in files} == {k: plain[k] for k in files}
    assert same, "what was there is left"
    assert len(first) == len(plain) + 2
    run(capsys, root, out, "participant", *options)
    assert state(out / "sub-01") == first
    more = ["--condition-shift", 4]
    told = run(capsys, root, out, "participant", *options, *more, code=1)
    assert "made with another shift" in told.err
    assert state(out / "sub-01") == first
    table = raw / "sub-01/func/sub-01_task-rest_events.tsv"
    table.write_text(EVENTS.replace("10.5\t20", "12.5\t20"))
    before = sidecar(matrix(out, "Face"))["ConditionEvents"]
    run(capsys, root, out, "participant", *options)
    assert sidecar(matrix(out, "Face"))["ConditionEvents"] != before
    # Series that changed since: the group and load() say so.
    path = series(out, "24P").with_suffix(".json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"TableDigest": "sha256:" + "0" * 64}))
    with pytest.raises(DataError, match="has been made again since"):
        load(out, strategy="24PFace").relmats()
