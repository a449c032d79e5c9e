"""Files of a folder that is listed once: never those of another, or of before."""

import errno
import io
import os
import re
from pathlib import Path

import pytest
from support.broken_disk import fail_at

from bids_roi.errors import MissingInput
from bids_roi.files.listing import (
    folders_in,
    glob_folder,
    is_there,
    list_below,
    list_folder,
    list_named,
)
from bids_roi.files.matrices import read_bytes
from bids_roi.files.names import parse_name
from bids_roi.files.tables import GONE, fingerprint, read_table

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


CODES = ("EIO", "ESTALE", "EACCES", "ENOTCONN")


@pytest.mark.parametrize("code", CODES)
def test_only_what_is_absent_is_not_there(tmp_path, monkeypatch, code):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    assert is_there(tmp_path / "file")
    for name in ("absent", "file/in", "link", "loop"):
        assert not is_there(tmp_path / name)
    assert is_there(tmp_path / "link", follow=False)
    number, really = getattr(errno, code), Path.stat

    def fail(self, **options):
        if self.name == "file":
            raise OSError(number, os.strerror(number), str(self))
        return really(self, **options)

    monkeypatch.setattr(Path, "stat", fail)
    with pytest.raises(MissingInput, match="cannot be read") as caught:
        is_there(tmp_path / "file")
    assert caught.value.where == str(tmp_path / "file")
    assert ("permissions" in caught.value.remedy) == (code == "EACCES")


@pytest.mark.parametrize("code", CODES)
def test_a_closed_folder_is_no_empty_one(tmp_path, monkeypatch, code):
    """Path.glob and rglob pass over it; os.walk does unless it is told otherwise."""
    inside = tmp_path / "sub-1" / "ses-1"
    inside.mkdir(parents=True)
    for folder in (tmp_path, inside):
        (folder / "b.tsv").touch()
        (folder / "a.tsv").touch()
    (tmp_path / "ses-2").symlink_to("not-mounted")
    (tmp_path / "ses-2.html").symlink_to("not-fetched")
    names = ["a.tsv", "b.tsv", "ses-2", "ses-2.html", "sub-1"]
    assert sorted(list_folder(tmp_path)) == names
    assert glob_folder(tmp_path, "*.tsv") == [tmp_path / "a.tsv", tmp_path / "b.tsv"]
    (tmp_path / "ses-2").unlink()
    below = list_below(tmp_path, "a.*", NAME)
    assert {path for path, _ in below} == {*tmp_path.rglob("a.*")}
    (tmp_path / "ses-2").symlink_to("not-mounted")
    assert folders_in(tmp_path) == [tmp_path / "ses-2", tmp_path / "sub-1"]
    for folder in (tmp_path / "absent", tmp_path / "a.tsv"):
        assert list_folder(folder) == glob_folder(folder, "*") == []
        assert list_below(folder, "*", NAME) == []
    number, really = getattr(errno, code), os.scandir

    def fail(path="."):
        if Path(path) == inside:
            raise OSError(number, os.strerror(number), str(path))
        return really(path)

    monkeypatch.setattr(os, "scandir", fail)
    for call in (
        lambda: list_folder(inside),
        lambda: glob_folder(inside, "*.tsv"),
        lambda: list_below(tmp_path / "sub-1", "*.tsv", NAME),
    ):
        with pytest.raises(MissingInput, match="the folder cannot be read") as caught:
            call()
        assert caught.value.where == str(inside)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        folders_in(inside)


def test_a_link_that_leads_nowhere_is_no_empty_folder(tmp_path):
    """As to a disk that is not mounted: a table of an outer folder would be taken."""
    link = tmp_path / "sub-01"
    link.symlink_to("not mounted")
    with pytest.raises(MissingInput, match="cannot be read") as caught:
        list_named(link, "*", NAME)
    assert "link to what is not here" in caught.value.remedy
    assert list_named(tmp_path / "absent", "*", NAME) == []


@pytest.mark.parametrize("read", [read_table, read_bytes, list_folder, fingerprint])
def test_what_to_do_about_a_file_fits_what_is_wrong_with_it(
    tmp_path, monkeypatch, read
):
    link = tmp_path / "link"
    for aim, told in (
        ("link", "the link leads to itself"),
        ("gone", "a link to what is not here"),
    ):
        link.symlink_to(aim)
        if read is fingerprint:
            assert read(link) == GONE
        else:
            with pytest.raises(MissingInput) as caught:
                read(link)
            assert told in caught.value.remedy
        link.unlink()
    link.mkdir() if read is list_folder else link.touch()
    for owner, name in ((os, "scandir"), (Path, "open"), (io, "open")):
        fail_at(monkeypatch, owner, name, link, "EACCES")
    with pytest.raises(MissingInput) as caught:
        read(link)
    assert "cannot be read (Permission denied)." in str(caught.value)
    assert "Check its permissions." in caught.value.remedy
