"""Roots, descriptions and participants."""

import json
from pathlib import Path

import pytest
from support.trees import plant

from bids_roi.dataset.layout import find_runs
from bids_roi.dataset.roots import (
    dataset_description,
    find_derivative,
    list_participants,
)
from bids_roi.errors import MissingInput, NothingFound, UsageError
from bids_roi.options.record import Options

DERIVATIVE = {"Name": "x", "DatasetType": "derivative"}


def describe(root, content):
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    "description",
    [
        {"DatasetType": "derivative"},
        {"GeneratedBy": [{"Name": "fMRIPrep"}]},
        {"PipelineDescription": {"Name": "fMRIPrep"}},
    ],
)
def test_derivative_root_by_description(tmp_path, description):
    assert find_derivative(describe(tmp_path, description), None) == tmp_path


@pytest.mark.parametrize("session", ["", "ses-1_"])
def test_derivative_root_by_files(tmp_path, session):
    plant(tmp_path, f"sub-01_{session}task-a_desc-preproc_bold.nii.gz")
    assert find_derivative(tmp_path, None) == tmp_path


def test_derivative_inside_raw(tmp_path):
    # HeuDiConv writes GeneratedBy into raw datasets; mriqc is a derivative too.
    describe(tmp_path, {"GeneratedBy": [{"Name": "heudiconv"}]})
    plant(tmp_path, "sub-01_task-a_bold.nii.gz")
    describe(tmp_path / "derivatives" / "mriqc", DERIVATIVE)
    root = describe(tmp_path / "derivatives" / "fmriprep", DERIVATIVE)
    plant(root, "sub-01_task-a_desc-preproc_bold.nii.gz")
    assert find_derivative(tmp_path, None) == root
    # the folder of derivatives will do
    assert find_derivative(tmp_path, tmp_path / "derivatives") == root


def test_two_derivatives(tmp_path):
    for name in ("one", "two"):
        root = describe(tmp_path / "derivatives" / name, DERIVATIVE)
        plant(root, "sub-01_task-a_desc-preproc_bold.nii.gz")
    with pytest.raises(UsageError, match=r"derivatives/one, .*two\..*--derivatives"):
        find_derivative(tmp_path, None)
    assert find_derivative(tmp_path, root) == root


def test_no_derivative(tmp_path):
    plant(tmp_path, "sub-01_task-a_bold.nii.gz")
    with pytest.raises(MissingInput, match="DatasetType derivative"):
        find_derivative(tmp_path, None)
    with pytest.raises(MissingInput, match=r"root.*not a folder inside"):
        find_derivative(tmp_path / "sub-01", None)
    with pytest.raises(MissingInput, match="no such folder"):
        find_derivative(tmp_path / "nowhere", None)
    with pytest.raises(MissingInput, match="not a folder"):
        find_derivative(next((tmp_path / "sub-01" / "func").iterdir()), None)
    describe(tmp_path / "x" / "fmriprep", DERIVATIVE)
    with pytest.raises(MissingInput, match=r"Is .*x/fmriprep meant\?"):
        find_derivative(tmp_path / "x", None)


def test_relative_root(tmp_path, monkeypatch):
    plant(tmp_path, "sub-01_task-a_desc-preproc_bold.nii.gz")
    monkeypatch.chdir(tmp_path)
    assert find_derivative(Path(), None) == tmp_path
    assert find_runs(Path(), "01", Options())[0].path.is_absolute()


def test_dataset_description(tmp_path):
    content, (warning,) = dataset_description(tmp_path)
    assert content == {}
    assert "dataset_description.json: the file is missing" in warning
    assert json.loads(warning.split("minimal one is: ")[1])["DatasetType"]
    (tmp_path / "dataset_description.json").write_text('{"Name": "x",}')
    content, (warning,) = dataset_description(tmp_path)
    assert "line 1" in warning
    assert dataset_description(describe(tmp_path, DERIVATIVE)) == (DERIVATIVE, ())


def test_list_participants(tmp_path):
    plant(tmp_path, "sub-10/x", "sub-02/x", "sub-001/x", "sub-/x", "x/y")
    (tmp_path / "sub-03.html").touch()
    assert list_participants(tmp_path, []) == ["001", "02", "10"]
    assert list_participants(tmp_path, ["sub-10", "02", "10"]) == ["02", "10"]
    with pytest.raises(
        NothingFound, match=r"no participant 1 among the 3.*Nearest: 001"
    ):
        list_participants(tmp_path, ["02", "1"])
    with pytest.raises(NothingFound, match=r"participant zz .*There are: 001, 02, 10"):
        list_participants(tmp_path, ["zz"])
    with pytest.raises(MissingInput, match=r"no sub-\* folder"):
        list_participants(tmp_path / "x", [])
