"""Roots, descriptions and participants."""

import json
import os
import shutil
from pathlib import Path

import pytest
from support.broken_disk import fail_at, fail_to_list
from support.trees import plant

from bids_roi.dataset.layout import find_runs, find_runs_of
from bids_roi.dataset.query import (
    dataset_description,
    find_derivative,
    list_participants,
)
from bids_roi.errors import MissingInput, NothingFound, UsageError
from bids_roi.loading import load
from bids_roi.options.row import Input

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


def test_what_holds_no_preprocessed_bold_is_not_meant(tmp_path):
    """XCP-D's tables are desc-preproc too; its series and tedana's come second."""
    for name in ("fmriprep", "xcp_d", "tedana"):
        describe(tmp_path / "derivatives" / name, DERIVATIVE)
    meant, xcp_d, tedana = (
        tmp_path / "derivatives" / name for name in ("fmriprep", "xcp_d", "tedana")
    )
    # CNeuroMod's order of entities
    plant(meant, "sub-01_task-a_desc-preproc_part-mag_bold.nii.gz")
    plant(xcp_d, "sub-01_task-a_desc-preproc_design.tsv")
    plant(xcp_d, "sub-01_task-a_space-MNI_desc-denoised_bold.nii.gz")
    plant(tedana, "sub-01_task-a_desc-denoised_bold.nii.gz")
    assert find_derivative(tmp_path, None) == meant
    shutil.rmtree(meant)
    with pytest.raises(UsageError, match="2 derivatives could be meant"):
        find_derivative(tmp_path, None)
    shutil.rmtree(xcp_d)
    assert find_derivative(tmp_path, None) == tedana


def test_derivative_of_surfaces_only(tmp_path):
    describe(tmp_path / "derivatives" / "mriqc", DERIVATIVE)
    root = tmp_path / "derivatives" / "fmriprep"
    plant(root, "sub-01_task-a_space-fsLR_den-91k_bold.dtseries.nii")
    assert find_derivative(tmp_path, None) == root


@pytest.mark.parametrize("inside", ["fmriprep", "23.1.3/output"])
def test_derivative_two_and_three_levels_down(tmp_path, inside):
    root = tmp_path / "raw" / "derivatives" / "fmriprep" / inside
    plant(root, "sub-01_task-a_desc-preproc_bold.nii.gz")
    describe(root, DERIVATIVE)
    assert find_derivative(tmp_path / "raw", None) == root
    outer = tmp_path / "raw" / "derivatives" / "fmriprep"
    assert find_derivative(tmp_path / "raw", outer) == root
    with pytest.raises(MissingInput, match=f"Is .*{inside} meant"):
        find_derivative(outer, None)


def test_description_that_is_a_link_to_nothing(tmp_path):
    link = tmp_path / "dataset_description.json"
    link.symlink_to(".git/annex/objects/gone")
    plant(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    with pytest.raises(MissingInput, match=f"datalad get {link}"):
        find_derivative(tmp_path, None)


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
    assert find_runs(Path(), "01", Input())[0].path.is_absolute()


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


@pytest.mark.parametrize("code", ["EIO", "EACCES", "ESTALE"])
def test_a_root_that_cannot_be_listed_is_not_an_empty_one(tmp_path, monkeypatch, code):
    plant(tmp_path, "sub-01/x")
    fail_to_list(monkeypatch, tmp_path, code)
    with pytest.raises(MissingInput, match="the folder cannot be read"):
        list_participants(tmp_path, [])


@pytest.mark.parametrize("aim", ["itself", "nothing"])
def test_a_dataset_that_is_a_link_to_nothing_is_no_slip_of_the_pen(tmp_path, aim):
    """The path is right: to check its spelling leads nowhere."""
    link = tmp_path / "itself"
    link.symlink_to(aim)
    for call in (lambda: find_derivative(link, None), lambda: load(link)):
        with pytest.raises(MissingInput) as caught:
            call()
        told = "leads to itself" if aim == "itself" else "a link to what is not here"
        assert told in caught.value.remedy
        assert caught.value.where == str(link)
    for call in (lambda: find_derivative(tmp_path / "x", None), lambda: load("x")):
        with pytest.raises(MissingInput) as caught:
            call()
        assert caught.value.remedy == "Check the spelling."


def test_who_is_a_link_that_leads_nowhere_is_told(tmp_path):
    """As to a disk that is not mounted; a page that was not fetched is no folder."""
    there = "sub-04/ses-1/func/sub-04_ses-1_desc-preproc_bold.nii"
    plant(tmp_path, "sub-01_desc-preproc_bold.nii", "sub-03/ses-1/x", there)
    (tmp_path / "sub-02").symlink_to(tmp_path / "not mounted" / "sub-02")
    (tmp_path / "sub-02.html").symlink_to(tmp_path / "not fetched")
    for person in ("sub-03", "sub-04"):
        (tmp_path / person / "ses-2").symlink_to("not mounted")
    assert list_participants(tmp_path, []) == ["01", "02", "03", "04"]
    found = dict(find_runs_of(tmp_path, ["01", "02", "03", "04"], Input()))
    assert len(found["01"]) == 1
    assert "there is no folder of this participant" in str(found["02"])
    (only,) = found["03"]
    assert f"{tmp_path}/sub-03/ses-2: the folder cannot be read" in str(only.error)
    run, session = found["04"]
    assert (run.is_session, session.is_session) == (False, True)
    assert (session.session, session.relative_path) == ("2", "sub-04/ses-2")
    assert f"{tmp_path}/sub-04/ses-2: the folder cannot be read" in str(session.error)
    for error in (found["02"], only.error, session.error):
        assert "a link to what is not here" in error.remedy


@pytest.mark.parametrize("code", ["EACCES", "EIO", "ENOENT"])
@pytest.mark.parametrize("word", ["ses-2", "ses-2/func"])
def test_a_session_that_is_not_asked_for_may_be_closed(
    tmp_path, monkeypatch, word, code
):
    names = [f"ses-{n}/func/sub-01_ses-{n}_desc-preproc_bold.nii" for n in (1, 2)]
    plant(tmp_path, *(f"sub-01/{name}" for name in names))
    fail_to_list(monkeypatch, tmp_path / "sub-01" / word, code)
    if word.endswith("func"):
        fail_at(monkeypatch, Path, "iterdir", tmp_path / "sub-01" / word, code)
    ((_, found),) = find_runs_of(tmp_path, ["01"], Input(session_label=("1",)))
    assert [run.relative_path for run in found] == [f"sub-01/{names[0]}"]
    told = f"{tmp_path}/sub-01/{word}: the folder cannot be read"
    for asked in ((), ("1", "2")):
        ((_, found),) = find_runs_of(tmp_path, ["01"], Input(session_label=asked))
        run, session = found
        assert (run.relative_path, run.error) == (f"sub-01/{names[0]}", None)
        assert told in str(session.error)
    ((_, found),) = find_runs_of(tmp_path, ["01"], Input(session_label=("2",)))
    (session,) = found
    assert session.is_session
    assert told in str(session.error)


@pytest.mark.parametrize("code", ["EIO", "ESTALE"])
def test_another_derivative_is_not_taken_for_one_on_a_disk_that_fails(
    tmp_path, monkeypatch, code
):
    for name in ("fmriprep", "older"):
        root = describe(tmp_path / "derivatives" / name, DERIVATIVE)
        plant(root, "sub-01_task-a_desc-preproc_bold.nii.gz")
    fail_to_list(monkeypatch, tmp_path / "derivatives" / "fmriprep", code)
    with pytest.raises(MissingInput, match="the folder cannot be read") as told:
        find_derivative(tmp_path, None)
    assert told.value.where == str(tmp_path / "derivatives" / "fmriprep")
    older = tmp_path / "derivatives" / "older"
    assert find_derivative(tmp_path, older) == older


def test_a_closed_derivative_beside_another_is_told(tmp_path, monkeypatch, caplog):
    for name in ("fmriprep", "older"):
        root = describe(tmp_path / "derivatives" / name, DERIVATIVE)
        plant(root, "sub-01_task-a_desc-preproc_bold.nii.gz")
    closed, really = tmp_path / "derivatives" / "fmriprep", os.access
    monkeypatch.setattr(os, "access", lambda p, m: p != closed and really(p, m))
    fail_to_list(monkeypatch, closed, "EACCES")
    assert find_derivative(tmp_path, None) == tmp_path / "derivatives" / "older"
    assert f"{closed} cannot be read" in caplog.text


def test_a_derivative_that_is_a_link_to_nothing_is_told(tmp_path, caplog):
    """Another one is taken with a warning, as where it is closed; or it is named."""
    holder = tmp_path / "derivatives"
    holder.mkdir()
    link = holder / "fmriprep-20.2.1"
    link.symlink_to("not-mounted")
    (holder / "README").symlink_to("../.git/annex/objects/x/y/z")  # a file
    with pytest.raises(MissingInput) as caught:
        find_derivative(tmp_path, None)
    assert f"{link} cannot be read" in caplog.text
    assert "README" not in caplog.text
    assert str(link) in caught.value.remedy
    caplog.clear()
    older = describe(holder / "older", DERIVATIVE)
    plant(older, "sub-01_task-a_desc-preproc_bold.nii.gz")
    assert find_derivative(tmp_path, None) == older
    assert f"{link} cannot be read" in caplog.text
    assert "README" not in caplog.text


def test_closed_folders_that_hide_no_derivative_are_no_matter(
    tmp_path, monkeypatch, caplog
):
    """Those inside one whose series are known, and what every disk of its own has."""
    holder = tmp_path / "derivatives"
    root = describe(holder / "fmriprep", DERIVATIVE)
    plant(root, "sub-02_task-a_desc-preproc_bold.nii.gz")
    quiet = ["lost+found", ".snapshot", "fmriprep/figures", "fmriprep/sub-01"]
    quiet.append("fmriprep/sub-02/anat")
    told = ["mriqc/sub-01", "xcp_d"]
    closed, really = [holder / name for name in (*quiet, *told)], os.access
    for folder in closed:
        folder.mkdir(parents=True, exist_ok=True)
        fail_to_list(monkeypatch, folder, "EACCES")
    monkeypatch.setattr(os, "access", lambda p, m: p not in closed and really(p, m))
    assert find_derivative(tmp_path, None) == root
    (record,) = caplog.records
    names = ", ".join(str(holder / name) for name in told)
    assert record.getMessage().startswith(f"{names} cannot be read: ")
