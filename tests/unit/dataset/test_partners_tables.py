"""Which tables of one's own belong to a run: by the entities of its name."""

import pytest
from support.broken_disk import fail_to_list

from bids_roi.dataset.partners import find_tables
from bids_roi.dataset.run import BoldRun
from bids_roi.errors import MissingInput
from bids_roi.files.names import parse_name


def run_of(tmp_path, name):
    path = tmp_path / "fmriprep" / "sub-01" / name
    return BoldRun(tmp_path, (path,), parse_name(path).entities, None, None, {})


def found(tmp_path, run, *names, pattern="*.tsv"):
    folder = tmp_path / "own"
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    tables = find_tables(folder, pattern, run_of(tmp_path, run))
    return [path.relative_to(folder).as_posix() for path in tables]


VOLUME = "sub-01_ses-2_task-rest_run-1_space-MNI_res-2_desc-preproc_bold.nii.gz"
SURFACE = "sub-01_ses-2_task-rest_run-1_space-fsLR_den-91k_bold.dtseries.nii"


@pytest.mark.parametrize("run", [VOLUME, SURFACE])
@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-2_task-rest_run-1_physio.tsv",
        "sub-01_ses-2_task-rest_run-1_space-T1w_desc-mine_timeseries.tsv",
        "sub-01/ses-2/func/sub-01_ses-2_task-rest_run-1_regressors.tsv",
        "sub-01/sub-01_task-rest_run-1_ses-2_regressors.tsv",
    ],
)
def test_one_table_serves_all_spaces(run, name, tmp_path):
    assert found(tmp_path, run, name) == [name]


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-1_task-rest_run-1_physio.tsv",
        "sub-01_task-rest_run-1_physio.tsv",
        "sub-01_ses-2_task-rest_physio.tsv",
        "sub-01_ses-2_task-rest_run-2_physio.tsv",
        "sub-01_ses-2_task-rest_acq-fast_run-1_physio.tsv",
        "sub-01_ses-2_task-rest_echo-1_run-1_physio.tsv",
        "sub-02_ses-2_task-rest_run-1_physio.tsv",
        "sub-02/sub-01_ses-2_task-rest_run-1_physio.tsv",
        "sub-01_ses-2_task-rest_run-1_physio.json",
        "physio.tsv",
    ],
)
def test_a_table_of_another_run_is_none(name, tmp_path):
    assert found(tmp_path, VOLUME, name) == []


def test_an_echo_takes_its_own_table_or_that_of_all(tmp_path):
    run = "sub-01_task-rest_echo-2_desc-preproc_bold.nii.gz"
    names = [f"sub-01_task-rest_echo-{n}_physio.tsv" for n in (1, 2)]
    assert found(tmp_path, run, *names) == names[1:]
    shared = "sub-01_task-rest_physio.tsv"
    assert found(tmp_path, run, shared) == names[1:]
    other = "sub-01_task-rest_echo-3_desc-preproc_bold.nii.gz"
    assert found(tmp_path, other) == [shared]


def test_a_pattern_narrows(tmp_path):
    stem = "sub-01_ses-2_task-rest_run-1_desc"
    names = [f"{stem}-a_timeseries.tsv", f"{stem}-b_timeseries.tsv"]
    assert found(tmp_path, VOLUME, *names) == names
    assert found(tmp_path, VOLUME, pattern="*_desc-b_*.tsv") == names[1:]
    assert found(tmp_path, "bold.nii.gz") == []


@pytest.mark.parametrize("code", ["EIO", "EACCES", "ESTALE"])
@pytest.mark.parametrize("closed", ["", "sub-01", "sub-01/ses-2"])
def test_a_closed_folder_does_not_lead_to_another_table(
    tmp_path, monkeypatch, closed, code
):
    """That of this very echo may be in it."""
    run = "sub-01_ses-2_task-rest_echo-1_desc-preproc_bold.nii.gz"
    of_all = "sub-01_ses-2_task-rest_physio.tsv"
    own = "sub-01/ses-2/sub-01_ses-2_task-rest_echo-1_physio.tsv"
    assert found(tmp_path, run, of_all, own) == [own]
    broken = tmp_path / "own" / closed
    fail_to_list(monkeypatch, broken, code)
    with pytest.raises(MissingInput, match="the folder cannot be read") as told:
        found(tmp_path, run)
    assert told.value.where == str(broken)


@pytest.mark.parametrize("code", ["EIO", "EACCES", "ESTALE"])
@pytest.mark.parametrize(
    "closed",
    ["ses-1", "ses-1/func", "anat", "ses-2/figures", ".heudiconv", "../sub-02"],
)
def test_a_closed_folder_that_holds_no_table_of_the_run_is_no_matter(
    tmp_path, monkeypatch, closed, code
):
    run = "sub-01_ses-2_task-rest_desc-preproc_bold.nii.gz"
    own = "sub-01/ses-2/sub-01_ses-2_task-rest_physio.tsv"
    assert found(tmp_path, run, own) == [own]
    broken = tmp_path / "own" / "sub-01" / closed
    broken.mkdir(parents=True)
    fail_to_list(monkeypatch, broken, code)
    assert found(tmp_path, run) == [own]


@pytest.mark.parametrize("gone", ["sub-01", "sub-01/ses-2", "sub-01/ses-2/func"])
def test_a_link_to_what_is_not_here_does_not_lead_to_another_table(tmp_path, gone):
    run = "sub-01_ses-2_task-rest_echo-1_desc-preproc_bold.nii.gz"
    of_all = "sub-01_ses-2_task-rest_physio.tsv"
    assert found(tmp_path, run, of_all) == [of_all]
    link = tmp_path / "own" / gone
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("not-mounted")
    with pytest.raises(MissingInput, match="the folder cannot be read") as told:
        found(tmp_path, run)
    assert told.value.where == str(link)
    other = run.replace("ses-2", "ses-1"), of_all.replace("ses-2", "ses-1")
    if gone != "sub-01":
        assert found(tmp_path, *other) == [other[1]]


def test_a_linked_folder_is_looked_into_once(tmp_path):
    run = "sub-01_ses-2_task-rest_desc-preproc_bold.nii.gz"
    name = "sub-01_ses-2_task-rest_physio.tsv"
    disk, person = tmp_path / "disk", tmp_path / "own" / "sub-01"
    for folder in (disk, person):
        folder.mkdir(parents=True)
    (person / "ses-2").symlink_to(disk)
    assert found(tmp_path, run) == []
    (disk / name).touch()
    assert found(tmp_path, run) == [f"sub-01/ses-2/{name}"]
    (disk / "up").symlink_to(person)  # which leads round and round
    (person / "again").symlink_to("again")
    (person / "old").symlink_to("ses-2")
    (person / "ses-2").unlink()
    (person / "ses-2").mkdir()
    (disk / name).rename(person / "ses-2" / name)
    assert found(tmp_path, run) == [f"sub-01/ses-2/{name}"]
