"""When the rows of a series were: RepetitionTime only where they are evenly spaced."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import datasets
from support.calls import STEM, read, run, series
from support.datasets import SPACE
from support.group_trees import read_rows
from support.toy_confounds import SPIKES, T, write_confounds
from support.validator import issues_of

from bids_roi.api import extract
from bids_roi.loading import load

KEPT = [volume for volume in range(T) if volume not in (0, *SPIKES)]
STRICT = ["--denoise", "none", "24P", "--fd-threshold", "0.5"]


@pytest.fixture
def make(atlas, tmp_path, capsys):
    """Write a run with these sidecar keys, process it, return sidecars and folder."""

    def call(*more, tr=2.0, **sidecar):
        root = datasets.write_dataset(tmp_path / "in", [])
        name = f"sub-01_task-rest_space-{SPACE}"
        datasets.write_run(root, name, datasets.bold(1, T), tr=tr, **sidecar)
        write_confounds(root)
        out = tmp_path / "out"
        common = [root, out, "participant", "--atlas-file", atlas, *STRICT]
        run(capsys, *common, "--relmat", "pearson", *more)
        paths = {desc: series(out, desc).with_suffix(".json") for desc in ("", "24P")}
        raw, cleaned = (json.loads(path.read_text()) for path in paths.values())
        return raw, cleaned, out

    return call


@pytest.mark.parametrize("tr", [2.0, 0.72, 0.8, 1.1])
def test_kept_rows_tell_their_time(tr, make):
    raw, cleaned, out = make(tr=tr)
    assert raw["RepetitionTime"] == tr
    assert_allclose(raw["SamplingFrequency"], 1 / tr)
    assert "VolumeTiming" not in raw
    assert "SourceRepetitionTime" not in raw
    assert not {"RepetitionTime", "SamplingFrequency", "DelayTime"} & set(cleaned)
    assert cleaned["SourceRepetitionTime"] == tr
    assert cleaned["AcquisitionDuration"] == tr
    # By decimal arithmetic, which knows no rounding.
    hundredths = round(100 * tr)
    assert cleaned["VolumeTiming"] == [float(f"{v * hundredths / 100}") for v in KEPT]
    assert len(cleaned["VolumeTiming"]) == len(read(series(out, "24P"))[1])
    (path,) = out.glob("sub-01/func/*desc-24P_relmat.json")
    matrix = json.loads(path.read_text())
    assert not {"VolumeTiming", "SourceRepetitionTime", "AcquisitionDuration"} & set(
        matrix
    )


@pytest.mark.parametrize("way", ["na", "interpolate"])
def test_all_rows_are_there_and_evenly_spaced(way, make):
    _, cleaned, _ = make("--censored", way)
    assert cleaned["RepetitionTime"] == 2.0
    assert cleaned["SamplingFrequency"] == 0.5
    assert not {"VolumeTiming", "SourceRepetitionTime"} & set(cleaned)


def test_nothing_censored_is_evenly_spaced(make):
    _, cleaned, _ = make("--fd-threshold", "none", "--dummy-scans", "0")
    assert cleaned["NumberOfVolumesKept"] == T
    assert cleaned["RepetitionTime"] == 2.0
    assert "VolumeTiming" not in cleaned


def test_a_pause_between_volumes_is_no_acquisition(make):
    raw, cleaned, _ = make(DelayTime=0.5)
    assert raw["DelayTime"] == 0.5
    assert "DelayTime" not in cleaned
    assert cleaned["AcquisitionDuration"] == 1.5
    assert cleaned["VolumeTiming"][:2] == [2.0, 4.0]


def test_what_the_run_says_of_its_duration_stays(make):
    _, cleaned, _ = make(AcquisitionDuration=1.2)
    assert cleaned["AcquisitionDuration"] == 1.2


def test_times_of_a_sparse_run_are_those_of_its_kept_volumes(make):
    times = np.cumsum(np.r_[0, np.tile([2.0, 5.0], T)])[:T].tolist()
    raw, cleaned, _ = make(VolumeTiming=times, AcquisitionDuration=1.5)
    assert raw["VolumeTiming"] == times
    assert raw["SamplingFrequency"] == "TR"
    assert cleaned["VolumeTiming"] == [times[volume] for volume in KEPT]
    assert "SamplingFrequency" not in cleaned


def test_readers_get_the_repetition_time_of_the_run(make, capsys):
    _, _, out = make()
    for path in out.glob("sub-01/func/*_dseg.*"):
        path.unlink()  # it knows too
    run(capsys, out, out, "group", "--stack", "timeseries")
    rows = read_rows(out / "group_runs.tsv")
    assert {row["desc_id"]: row["repetition_time"] for row in rows} == {
        "n/a": "2.0",
        "24P": "2.0",
    }
    told = load(out).runs().set_index("strategy")["repetition_time"]
    assert dict(told) == {"none": 2.0, "24P": 2.0}


def test_the_stack_has_the_repetition_time_of_the_run(make, capsys):
    h5py = pytest.importorskip("h5py")
    _, _, out = make()
    run(capsys, out, out, "group", "--stack", "timeseries")
    paths = list(out.glob("group_*desc-24P_stack.h5"))
    assert paths
    for path in paths:
        with h5py.File(path) as file:
            assert file["runs/repetition_time"][:].tolist() == [2.0]


def test_the_validator_finds_nothing_to_say(make):
    for number, more in enumerate(({}, {"DelayTime": 0.5})):
        _, cleaned, out = make("--overwrite", **more)
        assert ("DelayTime" in cleaned) is False, number
        assert issues_of(out, "error", "warning") == []


def test_a_notebook_gets_the_same_keys(make, atlas, tmp_path):
    _, cleaned, _ = make()
    image, table = atlas.split(",")
    bold = tmp_path / f"in/sub-01/func/{STEM}_desc-preproc_bold.nii.gz"
    found = extract(
        bold, image, atlas_table=table, strategy="24P", fd_threshold="0.5"
    ).sidecar
    keys = ("VolumeTiming", "SourceRepetitionTime", "AcquisitionDuration")
    assert {key: found[key] for key in keys} == {key: cleaned[key] for key in keys}
    assert not {"RepetitionTime", "SamplingFrequency"} & set(found)


def test_the_page_does_not_list_hundreds_of_times(make, tmp_path, capsys):
    root, out = tmp_path / "in", tmp_path / "out"
    make()
    option = datasets.write_atlas(tmp_path / "atlas")
    run(
        capsys,
        *(root, out, "participant", "--atlas-file", option, *STRICT),
        *("--relmat", "pearson"),
        report=True,
    )
    page = (out / "sub-01.html").read_text(encoding="utf-8")
    assert "SourceRepetitionTime" in page
    assert "VolumeTiming" not in page


@pytest.mark.parametrize("even", [True, False])
def test_xdf_says_where_lags_are_no_times(even, dataset, atlas, tmp_path, capsys):
    times = 3.0 * np.arange(60)
    if not even:
        times[30:] += 1.5
    name = f"sub-03_task-rest_space-{SPACE}"
    given = {"VolumeTiming": times.tolist(), "RepetitionTime": None}
    datasets.write_run(dataset, name, datasets.bold(1, 60), **given)
    common = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    only = ["--participant-label", "03", "--relmat", "pearsonxdfz"]
    told = run(capsys, *common, *only)
    said = "volumes are not evenly spaced, and lags are in volumes"
    assert (said in told.err) != even
    (path,) = (tmp_path / "out").glob("sub-03/func/*pearsonxdfz*.json")
    assert (said in path.read_text()) != even
