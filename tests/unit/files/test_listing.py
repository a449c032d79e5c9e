"""Files of a folder that is listed once: never those of another, or of before."""

import errno
import os
from pathlib import Path

import pytest

from bids_roi.errors import MissingInput
from bids_roi.files.listing import list_named
from bids_roi.files.names import parse_name

NAME = parse_name("sub-1_run-1_bold.nii.gz")


def make(folder, *words):
    """A folder of one file for each word that has not changed for long."""
    folder.mkdir(parents=True, exist_ok=True)
    for word in words:
        (folder / f"sub-1_run-1_{word}.tsv").touch()
    os.utime(folder, ns=(10**18, 10**18))
    return folder


def words_in(folder):
    return [name.suffix for _, name in list_named(folder, "*.tsv", NAME)]


def test_a_link_that_leads_elsewhere_now_is_followed(tmp_path):
    """Archives give all folders one time."""
    link = tmp_path / "link"
    for word in ("before", "now"):
        link.unlink(missing_ok=True)
        link.symlink_to(make(tmp_path / word, word))
        assert words_in(link) == [word]


def test_a_relative_folder_is_that_of_the_working_directory(tmp_path, monkeypatch):
    for word in ("here", "there"):
        make(tmp_path / word / "func", word)
        monkeypatch.chdir(tmp_path / word)
        assert words_in(Path("func")) == [word]


def test_a_folder_that_is_given_its_old_time_back_has_changed(tmp_path):
    assert words_in(make(tmp_path, "a")) == ["a"]
    assert words_in(make(tmp_path, "b")) == ["a", "b"]


def test_a_folder_that_is_not_there_has_no_files_and_a_disk_that_fails_is_told(
    tmp_path, monkeypatch
):
    """The table of an outer folder must not stand in for what cannot be read."""
    (tmp_path / "file").touch()
    assert words_in(tmp_path / "absent") == words_in(tmp_path / "file/in") == []

    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error", str(tmp_path))

    for owner, call in ((Path, "stat"), (Path, "glob"), (os, "scandir")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, call, fail)
            with pytest.raises(MissingInput, match="cannot be read"):
                words_in(tmp_path)
