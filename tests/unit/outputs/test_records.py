"""Records that cannot be read: never taken for none, unless they are not there."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from support.broken_disk import fail_at

from bids_roi.errors import DataError, MissingInput
from bids_roi.outputs.records import (
    Record,
    Stamp,
    check_table,
    note_command,
    read_all_records,
    read_records,
    record_path,
    write_records,
)

RUN = "sub-02/func/sub-02_task-a_bold.nii.gz"
FAILING = ("EIO", "ESTALE", "EACCES", "ENOTCONN", "ETIMEDOUT", "EPERM", "EMFILE")


@pytest.fixture
def out(tmp_path):
    for person in ("01", "02"):
        run = RUN.replace("02", person)
        write_records(tmp_path, run, [Record(run, "A", "failed", "why it failed.")])
    return tmp_path


def place_of(out, word):
    if word == "file":
        (file,) = record_path(out, RUN).parent.glob("*.jsonl")
        return file, (Path, "read_text")
    return out / word, (os, "scandir")


@pytest.mark.parametrize("code", FAILING)
@pytest.mark.parametrize("word", ["logs", "logs/sub-02", "file"])
def test_what_cannot_be_read_is_an_error_that_names_it(out, monkeypatch, word, code):
    broken, call = place_of(out, word)
    fail_at(monkeypatch, *call, broken, code)
    with pytest.raises(MissingInput, match="cannot be read") as caught:
        read_all_records(out)
    assert caught.value.where == str(broken)
    assert os.strerror(getattr(errno, code)) in caught.value.problem
    assert caught.value.remedy.startswith("Check")
    # What is not asked for costs nobody else a thing.
    assert [r.run[:6] for r in read_all_records(out, "sub-01")] == ["sub-01"]
    if word != "logs":
        for call in (
            lambda: read_all_records(out, "sub-02"),
            lambda: read_records(out, RUN),
            lambda: write_records(out, RUN, [Record(RUN, "A", "done")]),
        ):
            with pytest.raises(MissingInput, match="cannot be read"):
                call()
    monkeypatch.undo()
    assert [r.status for r in read_all_records(out)] == ["failed", "failed"]


@pytest.mark.parametrize("code", ["ENOENT", "ENOTDIR"])
@pytest.mark.parametrize("word", ["logs", "logs/sub-02", "file"])
def test_what_is_not_there_is_none(out, monkeypatch, word, code):
    """A folder that was removed, a file that another job merges into another."""
    broken, call = place_of(out, word)
    fail_at(monkeypatch, *call, broken, code)
    left = [] if word == "logs" else ["sub-01"]
    assert [record.run[:6] for record in read_all_records(out)] == left


def test_no_folder_of_records_is_none(tmp_path):
    assert read_all_records(tmp_path) == read_all_records(tmp_path, "sub-01") == []
    (tmp_path / "logs").write_text("a file")
    assert read_all_records(tmp_path) == read_records(tmp_path, RUN) == []


def test_what_goes_while_it_is_read_is_stale_on_nfs(out, monkeypatch):
    """Another job merges it; the news is in the new file, and is read from there."""
    (file,) = record_path(out, RUN).parent.glob("*.jsonl")
    really = Path.read_text

    def merge(self, *arguments, **options):
        if self != file or not file.exists():
            return really(self, *arguments, **options)
        monkeypatch.setattr(Path, "read_text", really)
        write_records(out, RUN, [Record(RUN, "A", "done")])
        assert not file.exists()
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self))

    monkeypatch.setattr(Path, "read_text", merge)
    assert [record.status for record in read_records(out, RUN)] == ["done"]


DAMAGE = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "zeros": lambda text: "\0" * len(text),
    "not text": lambda text: text.encode("utf-16"),
    "a line": lambda text: f"{text}{{\n",
    "another thing": lambda text: f"[]\n{text}",
    "gone": None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_records_are_told_and_made_anew(out, damage):
    """What a run that failed left may be in them."""
    (file,) = record_path(out, RUN).parent.glob("*.jsonl")
    text = file.read_text()
    if damage == "gone":
        file.unlink()
        file.symlink_to(".git/annex/objects/nothing")
    else:
        held = DAMAGE[damage](text)
        file.write_bytes(held if isinstance(held, bytes) else held.encode())
    whole = damage in ("a line", "another thing")
    damaged: dict[Path, str] = {}
    found = read_all_records(out, None, damaged)
    assert [record.run[:6] for record in found] == ["sub-01", "sub-02"][: 1 + whole]
    assert list(damaged) == [file]
    (told,) = damaged.values()
    assert ("not here" if damage == "gone" else "damaged") in told
    assert [record.status for record in read_records(out, RUN)] == ["failed"] * whole
    write_records(out, RUN, [Record(RUN, "A", "done")])
    left: dict[Path, str] = {}
    assert [r.status for r in read_all_records(out, None, left)][1:] == ["done"]
    # What is elsewhere is not replaced: it is told until somebody gets it.
    assert list(left) == ([file] if damage == "gone" else [])


def test_records_of_a_newer_release_are_not_damaged(out):
    (file,) = record_path(out, RUN).parent.glob("*.jsonl")
    content = json.loads(file.read_text()) | {"news": [1], "status": "postponed"}
    file.write_text(f"{json.dumps(content)}\r\n \n\n")
    damaged: dict[Path, str] = {}
    found = read_all_records(out, "sub-02", damaged)
    assert [record.status for record in found] == ["postponed"]
    assert not damaged


def test_what_is_renamed_over_while_it_is_read_is_read_again(out, monkeypatch):
    """On NFS that is stale too, and the file is there: the name tells what it says."""
    (file,) = record_path(out, RUN).parent.glob("*.jsonl")
    really, stale = Path.read_text, [file, file]

    def read(self, *arguments, **options):
        if self in stale:
            stale.remove(self)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self))
        return really(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read)
    assert [record.status for record in read_records(out, RUN)] == ["failed"]


@pytest.mark.parametrize("code", FAILING)
def test_a_table_that_cannot_be_read_is_not_sound(tmp_path, monkeypatch, code):
    """A series is not read by the group level: nobody else would say so."""
    table = tmp_path / "table.tsv"
    table.write_text("a\n1\n")
    fail_at(monkeypatch, Path, "open", table, code)
    with pytest.raises(MissingInput, match="cannot be read") as caught:
        check_table(table, "digest")
    assert caught.value.where == str(table)
    check_table(tmp_path / "absent.tsv", "digest")  # whoever reads it says so


def test_a_stamp_vouches_only_for_the_digest_that_the_sidecar_tells(tmp_path):
    """A sidecar of another making lies beside a table that is as it was written."""
    table = tmp_path / "table.tsv"
    table.write_text("a\n1\n")
    state = table.stat()
    own = hashlib.sha256(b"a\n1\n").hexdigest()
    stamp = Stamp("table.tsv", state.st_size, state.st_mtime_ns, own)
    check_table(table, own, stamp=stamp, verify=False)
    with pytest.raises(DataError, match="not the one that its sidecar"):
        check_table(table, "0" * 64, stamp=stamp, verify=False)


@pytest.mark.parametrize("code", FAILING)
def test_a_command_is_not_written_into_what_cannot_be_listed(out, monkeypatch, code):
    fail_at(monkeypatch, os, "scandir", out / "logs" / "sub-01", code)
    with pytest.raises(MissingInput, match="cannot be read"):
        note_command(out, "sub-01", "bids_roi in out participant", made=False)


@pytest.mark.parametrize("code", ["EACCES", "EPERM"])
def test_records_of_another_user_that_stay_count_less(out, monkeypatch, code):
    """As in a folder whose files only their owner may remove."""
    (file,) = record_path(out, RUN).parent.glob("*.jsonl")
    fail_at(monkeypatch, Path, "unlink", file, code)
    write_records(out, RUN, [Record(RUN, "A", "done")])
    assert file.is_file()
    assert [record.status for record in read_records(out, RUN)] == ["done"]
