"""Sidecars: the BIDS inheritance principle, and files that cannot be read."""

import errno
import json
import os
from pathlib import Path

import pytest

from bids_roi.dataset.layout import find_runs
from bids_roi.dataset.partners import Sidecars
from bids_roi.options.row import Input

BOLD = (
    "sub-01/ses-1/func/sub-01_ses-1_task-rest_run-01_space-T1w_desc-preproc_bold.nii.gz"
)
OWN = BOLD.replace(".nii.gz", ".json")


def write(root, **files):
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))


def read(root):
    return Sidecars(root).read(root / BOLD)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {}),
        ({OWN: {"A": 1}}, {"A": 1}),
        # every level, the nearer one wins, keys of both are kept
        (
            {
                "bold.json": {"A": 1, "B": 1, "C": 1, "D": 1},
                "sub-01/sub-01_bold.json": {"B": 2, "C": 2, "D": 2},
                "sub-01/ses-1/sub-01_ses-1_task-rest_bold.json": {"C": 3, "D": 3},
                OWN: {"D": 4},
            },
            {"A": 1, "B": 2, "C": 3, "D": 4},
        ),
        # null is a value, not a deletion
        ({"bold.json": {"A": 1}, OWN: {"A": None}}, {"A": None}),
        # another suffix, another label, an entity that the file has not, another run
        ({"task-rest_boldref.json": {"A": 1}}, {}),
        ({"task-nback_bold.json": {"A": 1}}, {}),
        ({"task-rest_acq-x_bold.json": {"A": 1}}, {}),
        ({"task-rest_run-1_bold.json": {"A": 1}}, {}),
        # beside the path, or deeper than the file
        ({"sub-01/anat/task-rest_bold.json": {"A": 1}}, {}),
        ({"sub-01/ses-1/func/x/bold.json": {"A": 1}}, {}),
        # in any order of entities
        ({"desc-preproc_task-rest_bold.json": {"A": 1}}, {"A": 1}),
        # above the root
        ({"../bold.json": {"A": 1}}, {}),
        # fMRIPrep's native series beside the resampled one: two apply, no warning
        ({OWN.replace("_space-T1w", ""): {"A": 1, "B": 1}, OWN: {"A": 2}}, {"A": 2}),
    ],
)
def test_inheritance(tmp_path, files, expected):
    root = tmp_path / "root"
    root.mkdir()
    write(root, **files)
    assert read(root) == (expected, ())


@pytest.mark.parametrize("place", ["", "sub-01/ses-1/func/"])
@pytest.mark.parametrize("prefix", ["old_", "copy_of_", "junk_"])
def test_a_name_with_a_part_that_is_no_entity_is_no_sidecar(tmp_path, place, prefix):
    own = OWN.rpartition("/")[2]
    foreign = {f"{place}{prefix}bold.json": {"A": 3, "B": 3}}
    foreign[f"{place}{prefix}{own}"] = {"A": 2}
    foreign[place + own.replace("_space", "_orig_space")] = {"A": 2}
    write(tmp_path, **foreign)
    assert read(tmp_path) == ({}, ())
    write(tmp_path, **{OWN: {"A": 1}})
    assert read(tmp_path) == ({"A": 1}, ())


def test_the_exact_name_comes_first(tmp_path):
    """Also where another order of the same entities, or a foreign part, stands by."""
    other = OWN.replace("task-rest_run-01", "run-01_task-rest")
    write(tmp_path, **{OWN: {"A": 1}, other: {"A": 2}})
    assert read(tmp_path) == ({"A": 1}, ())
    odd = OWN.replace("task-rest", "task-rest_odd")
    write(tmp_path, **{odd: {"A": 5}})
    data = tmp_path / odd.replace(".json", ".nii.gz")
    assert Sidecars(tmp_path).read(data)[0] == {"A": 5}


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN"])
def test_a_disk_that_fails_is_no_missing_sidecar(tmp_path, monkeypatch, name):
    """What the sidecar says is not known then: the run is an error, its TR no guess."""
    other = BOLD.replace("run-01", "run-02")
    write(tmp_path, **{BOLD: "", other: "", OWN: {"RepetitionTime": 2}})
    number, really = getattr(errno, name), Path.read_bytes

    def fail(self, *args, **kwargs):
        if self == tmp_path / OWN:
            raise OSError(number, os.strerror(number), str(self))
        return really(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_bytes", fail)
    bad, good = find_runs(tmp_path, "01", Input())
    assert good.error is None
    assert os.strerror(number) in str(bad.error)
    assert "Check the disk or network, and run the same" in str(bad.error)
    number = errno.EACCES  # while one without permission is left out, with a warning
    bad, _ = find_runs(tmp_path, "01", Input())
    assert bad.error is None
    assert "Permission denied" in bad.warnings[0]


def test_two_at_one_level_take_the_nearest_and_warn(tmp_path):
    write(tmp_path, **{"bold.json": {"A": 1, "B": 1}, "task-rest_bold.json": {"A": 2}})
    content, (warning,) = read(tmp_path)
    assert content == {"A": 2}
    assert warning.startswith("task-rest_bold.json: taken as the sidecar of sub-01_")
    assert "to which bold.json in the same folder" in warning


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("{", "not JSON (line 1, column 2"),
        ("[1]", "holds a list where"),
        ("/annex/objects/MD5E-s1--x.json\n", "git-annex pointer (datalad get it)"),
        ("[" * 100_000, "too deeply nested"),
    ],
)
def test_unreadable_sidecars_are_warnings(tmp_path, text, problem):
    write(tmp_path, **{"bold.json": {"A": 1}, OWN: text})
    content, (warning,) = read(tmp_path)
    assert content == {"A": 1}
    assert warning.startswith(f"{OWN}: sidecar ignored: ")
    assert problem in warning


def test_broken_link_binary_and_folder(tmp_path):
    write(tmp_path, **{BOLD: ""})
    (tmp_path / OWN).symlink_to("../../.git/annex/objects/gone")
    (tmp_path / "bold.json").write_bytes(b"\xff\xfe{")
    (tmp_path / "sub-01" / "task-rest_bold.json").mkdir()
    (run,) = find_runs(tmp_path, "01", Input())
    assert run.metadata == {}
    binary, folder, link = run.warnings
    assert "not UTF-8" in binary
    assert "cannot be read (Is a directory)" in folder
    assert "points to a file that is not here" in link


def test_runs_share_listings(tmp_path):
    other = BOLD.replace("run-01", "run-02")
    write(tmp_path, **{BOLD: "", other: "", "task-rest_bold.json": {"A": 1}})
    sidecars = Sidecars(tmp_path)
    for path in (BOLD, other):
        assert sidecars.read(tmp_path / path)[0] == {"A": 1}
    (tmp_path / "task-rest_bold.json").write_text('{"A": 2}')
    (tmp_path / "new_bold.json").write_text('{"A": 3}')  # not listed again
    assert sidecars.read(tmp_path / other) == ({"A": 2}, ())


def test_file_outside_the_root_has_its_own_folder_only(tmp_path):
    write(tmp_path, **{"a/bold.json": {"A": 1}, "bold.json": {"B": 1}})
    assert Sidecars(tmp_path / "b").read(tmp_path / "a" / "x_bold.nii") == (
        {"A": 1},
        (),
    )
