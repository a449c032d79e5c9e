"""What is lost is told in four places: stderr, the summary, the exit code and logs/."""

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.broken_disk import fail_at, fail_to_list
from support.calls import run
from support.datasets import (
    INDEX,
    NAMES,
    SPACE,
    labels,
    oblique,
    write_atlas,
    write_dataset,
    write_image,
    write_run,
)
from support.trees import filters, plant

from bids_roi.outputs.records import read_all_records

RUNS = ("sub-1001_task-a_run-1", "sub-1001_task-a_run-2", "sub-1002_task-a_run-1")


@pytest.fixture
def site(tmp_path):
    root = write_dataset(tmp_path / "in", RUNS)
    return root, tmp_path / "out", write_atlas(tmp_path / "atlas")


def call(capsys, site, *arguments, code=0):
    root, out, atlas = site
    more = ["--atlas-file", atlas, *arguments]
    return run(capsys, root, out, "participant", *more, code=code)


def failures(out):
    return {r.run: r.reason for r in read_all_records(out) if r.status == "failed"}


def group_rows(capsys, out):
    run(capsys, out, out, "group")
    with (out / "group_runs.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def bold(site, stem):
    participant = stem.partition("_")[0]
    name = f"{stem}_space-{SPACE}_desc-preproc_bold.nii.gz"
    return site[0] / participant / "func" / name


def test_a_doubled_mask_costs_its_run_only(site, capsys):
    series = bold(site, RUNS[0])
    mask = series.with_name(series.name.replace("preproc_bold", "brain_mask"))
    shutil.copy(mask, mask.with_suffix(""))
    told = call(capsys, site, code=1)
    said = f"2 files could be its mask: {mask.name[:-3]} and {mask.name}."
    assert said in told.err
    assert said in told.out
    assert "1 failed" in " ".join(told.out.split())
    relative = series.relative_to(site[0]).as_posix()
    assert {r: said in why for r, why in failures(site[1]).items()} == {relative: True}
    rows = group_rows(capsys, site[1])
    assert sorted(row["status"] for row in rows) == ["done", "done", "failed"]
    # and the remedy that is named helps
    path = filters(site[0].parent, mask={"extension": ".nii.gz"})
    call(capsys, site, "--bids-filter-file", path)
    assert failures(site[1]) == {}


def test_one_bold_twice_costs_that_run_only(site, capsys):
    """Unpacked for SPM beside the packed one."""
    series = bold(site, RUNS[0])
    twin = series.with_suffix("")
    twin.write_bytes(b"whatever is in it")
    told = call(capsys, site, code=1)
    assert "are one run twice; none of the two is processed." in told.err
    assert series.name in told.err
    assert {path.partition(".")[0] for path in failures(site[1])} == {
        series.relative_to(site[0]).as_posix().partition(".")[0]
    }
    rows = group_rows(capsys, site[1])
    assert sorted(row["status"] for row in rows) == ["done", "done", "failed"]
    dry = call(capsys, site, "--dry-run", code=1)
    assert dry.out.count("cannot be processed") == 2
    path = filters(site[0].parent, bold={"extension": ".nii.gz"})
    call(capsys, site, "--bids-filter-file", path)
    assert failures(site[1]) == {}


@pytest.mark.parametrize("way", ["copy", "link"])
@pytest.mark.parametrize("mask", ["auto", "none"])
def test_one_run_in_two_folders_is_not_counted_twice(tmp_path, capsys, way, mask):
    """A copy of a session that was kept beside it, or another name of it."""
    stems = [f"sub-1_ses-{n}_task-a" for n in (1, 2)]
    root = write_dataset(tmp_path / "in", stems)
    site = root, tmp_path / "out", write_atlas(tmp_path / "atlas")
    twice, other = root / "sub-1" / "ses-2", root / "sub-1" / "ses-2_old"
    if way == "copy":
        shutil.copytree(twice, other)
    else:
        other.symlink_to("ses-2")
    told = call(capsys, site, "--mask", mask, code=1)
    name = f"func/sub-1_ses-2_task-a_space-{SPACE}_desc-preproc_bold.nii.gz"
    said = f"sub-1/ses-2/{name} and sub-1/ses-2_old/{name} are one run twice"
    assert f"ERROR {said}; none of the two is processed." in told.err
    assert "a link to, or a copy of, the other" in told.err
    assert [p.parent.parent.name for p in site[1].rglob("*_timeseries.tsv")] == [
        "ses-1"
    ]
    if way == "copy":
        shutil.rmtree(other)
    else:
        other.unlink()
    call(capsys, site, "--mask", mask)
    assert failures(site[1]) == {}


@pytest.fixture
def odd(site):
    """A third participant of whom nothing can be planned, until it is mended."""
    folder = site[0] / "sub-1003" / "func"
    folder.mkdir(parents=True)
    file = folder / os.fsdecode(b"sub-1003_\xff_desc-preproc_bold.nii.gz")
    file.touch()
    return file


def test_a_participant_that_cannot_be_planned_is_recorded(site, odd, capsys):
    told = call(capsys, site, code=1)
    said = "is not text in UTF-8"
    assert f"sub-1003: {odd.parents[1]}" in told.err
    assert said in told.err
    assert "1 participant of whom nothing" in " ".join(told.out.split())
    assert list(failures(site[1])) == ["sub-1003"]
    assert said in failures(site[1])["sub-1003"]
    rows = group_rows(capsys, site[1])
    assert [
        (r["participant_id"], r["status"]) for r in rows if said in r["reason"]
    ] == [("sub-1003", "failed")]
    # What has been mended is forgotten; a dry run writes nothing.
    odd.unlink()
    write_run(site[0], f"sub-1003_task-a_run-1_space-{SPACE}")
    call(capsys, site, "--dry-run")
    assert list(failures(site[1])) == ["sub-1003"]
    call(capsys, site)
    assert failures(site[1]) == {}
    assert len(group_rows(capsys, site[1])) == 4


def test_so_it_is_where_each_participant_is_a_job_of_its_own(site, odd, capsys):
    call(capsys, site, "--participant-label", "1001")
    told = call(capsys, site, "--participant-label", "1003", code=65)
    assert "not text in UTF-8" in told.err
    assert list(failures(site[1])) == ["sub-1003"]
    assert odd.exists()


def test_participants_asked_for_and_found_empty_are_losses(site, capsys):
    plant(site[0], "sub-1003/anat/sub-1003_T1w.nii.gz")
    (site[0] / "sub-1004" / "func").mkdir(parents=True)
    labels = ["--participant-label", "1001", "1003", "1004"]
    told = call(capsys, site, *labels, code=1)
    for label in ("1003", "1004"):
        assert f"sub-{label}: {site[0]}: no BOLD run among 0 files" in told.err
    assert "2 participants of whom nothing" in " ".join(told.out.split())
    assert list(failures(site[1])) == ["sub-1003", "sub-1004"]
    assert call(capsys, site, *labels, "--dry-run", code=1)
    rows = group_rows(capsys, site[1])
    assert [r["participant_id"] for r in rows if r["status"] == "failed"] == [
        "sub-1003",
        "sub-1004",
    ]
    told = call(capsys, site, "--participant-label", "1003", "1004", code=66)
    assert "no BOLD run among 0 files" in told.err
    # Who is there but was not asked for by name is one line, and no failure.
    shutil.rmtree(site[1])
    told = call(capsys, site)
    said = "no run of 2 of 4 participants is there or selected: sub-1003, sub-1004."
    assert told.err.count(said) == told.out.count(said) == 1
    assert failures(site[1]) == {}


def test_a_filter_that_leaves_nothing_of_some_is_one_line(site, capsys):
    write_run(site[0], f"sub-1003_task-b_space-{SPACE}")
    labels = ["--participant-label", "1001", "1002", "1003"]
    told = call(capsys, site, *labels, "--task-label", "a")
    said = "no run of 1 of 3 participants is there or selected: sub-1003."
    assert told.err.count(said) == told.out.count(said) == 1
    assert failures(site[1]) == {}


def test_a_wrong_filter_file_is_told_once(site, capsys):
    path = filters(site[0].parent, bold={"sesion": "1"})
    told = call(capsys, site, "--bids-filter-file", path, code=64)
    assert told.err.count("unknown entity 'sesion'") == 1
    assert not site[1].joinpath("logs").exists()


def test_a_dry_run_says_what_cannot_be_processed(site, capsys):
    for stem in RUNS:
        table = site[0] / stem.partition("_")[0] / "func"
        path = table / f"{stem}_desc-confounds_timeseries.tsv"
        path.symlink_to("../../.git/annex/objects/gone")
    told = call(capsys, site, "--dry-run")  # raw signals need none
    assert told.out.count("confounds cannot be read: ") == 3
    assert "datalad get" in told.out
    call(capsys, site, "--dry-run", "--denoise", "24P", code=1)
    bold(site, RUNS[0]).write_bytes(b"")
    told = call(capsys, site, "--dry-run", code=1)
    assert "cannot be processed: " in told.out


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_a_mount_that_fails_costs_what_is_on_it(site, capsys, monkeypatch, number):
    """Not "damaged", not "absent", and no end of the call."""
    broken, really = bold(site, RUNS[0]), Path.stat

    def fail(self, **kwargs):
        if self == broken:
            raise OSError(number, os.strerror(number), str(self))
        return really(self, **kwargs)

    monkeypatch.setattr(Path, "stat", fail)
    told = call(capsys, site, code=1)
    assert os.strerror(number) in told.err
    assert "Check the disk or network, and run the same command again." in told.err
    assert "damaged" not in told.err
    assert len(failures(site[1])) == 1
    monkeypatch.undo()
    call(capsys, site)
    assert failures(site[1]) == {}


def lose_session(folder, damage, monkeypatch):
    """Let a session's folder be there and not be listed."""
    if damage == "link":
        folder.symlink_to("/not/mounted")
        return folder.unlink
    (folder / "func").mkdir(parents=True)
    place = folder if damage == "EACCES" else folder / "func"
    fail_to_list(monkeypatch, place, "EACCES" if damage == "EACCES" else "EIO")
    if damage == "EIO":
        fail_at(monkeypatch, Path, "iterdir", place, "EIO")
    return monkeypatch.undo


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("damage", ["link", "EACCES", "EIO"])
def test_a_session_that_cannot_be_listed_costs_itself_only(
    tmp_path, capsys, monkeypatch, damage, kept
):
    stems = [f"sub-1_ses-{n}_task-a" for n in (1, 2)]
    root = write_dataset(tmp_path / "in", stems)
    site = root, tmp_path / "out", write_atlas(tmp_path / "atlas")
    more = ["--bids-database-dir", tmp_path / "index"] if kept else []
    put_right = lose_session(root / "sub-1" / "ses-9", damage, monkeypatch)
    told = call(capsys, site, "--dry-run", *more, code=1)
    assert told.out.startswith("2 runs ")
    told = call(capsys, site, *more, code=1)
    assert told.err.count("ERROR") == 1
    assert f"ERROR sub-1_ses-9: {root}/sub-1/ses-9" in told.err
    summary = " ".join(told.out.split())
    assert "2 runs of 1 participant" in summary
    assert "1 session of which nothing could be planned" in summary
    assert "failed: sub-1_ses-9: " in summary
    assert len(list(site[1].rglob("*_timeseries.tsv"))) == 2
    assert list(failures(site[1])) == ["sub-1_ses-9"]
    shown = run(capsys, root, site[1], "group", report=True)
    said = "2 runs of 1 participant, and 1 session of which no run is known"
    assert said in shown.out
    assert said in (site[1] / "group.html").read_text()
    (row,) = [r for r in group_rows(capsys, site[1]) if r["status"] == "failed"]
    assert (row["participant_id"], row["session_id"]) == ("sub-1", "ses-9")
    # Who asks for other sessions has nothing to do with it, and does not forget it.
    call(capsys, site, *more, "--session-label", "1")
    assert list(failures(site[1])) == ["sub-1_ses-9"]
    call(capsys, site, *more, "--session-label", "9", code=66)
    put_right()
    call(capsys, site, *more)
    assert failures(site[1]) == {}


def test_a_job_of_another_session_does_not_forget_one_that_was_lost(tmp_path, capsys):
    """One job for each session, in any order, into one folder."""
    root = write_dataset(tmp_path / "in", ["sub-1_ses-1_task-a"])
    site = root, tmp_path / "out", write_atlas(tmp_path / "atlas")
    (root / "sub-1" / "ses-9").symlink_to("/not/mounted")
    told = call(capsys, site, "--session-label", "9", code=66)
    assert told.err.count("/sub-1/ses-9: the folder cannot be read") == 1
    call(capsys, site, "--session-label", "1")
    assert list(failures(site[1])) == ["sub-1_ses-9"]
    (row,) = [r for r in group_rows(capsys, site[1]) if r["status"] == "failed"]
    assert (row["participant_id"], row["session_id"]) == ("sub-1", "ses-9")
    (root / "sub-1" / "ses-9").unlink()
    write_run(root, f"sub-1_ses-9_task-a_space-{SPACE}")
    # Where another computer lists it, it is as lost as before.
    chosen = filters(tmp_path, bold={"session": "1"})
    for asked in (("--session-label", "1"), ("--bids-filter-file", chosen)):
        call(capsys, site, *asked)
        assert list(failures(site[1])) == ["sub-1_ses-9"]
    call(capsys, site, "--session-label", "9")
    assert failures(site[1]) == {}


def test_nor_does_it_where_its_participant_could_not_be_listed(tmp_path, capsys):
    root = write_dataset(tmp_path / "in", [f"sub-1_ses-{n}_task-a" for n in (1, 2)])
    site = root, tmp_path / "out", write_atlas(tmp_path / "atlas")
    (root / "sub-1").rename(tmp_path / "disk")
    (root / "sub-1").symlink_to("/not/mounted")
    call(capsys, site, "--session-label", "1", code=66)
    call(capsys, site, "--session-label", "2", "3", code=66)
    assert sorted(failures(site[1])) == [f"sub-1_ses-{n}" for n in (1, 2, 3)]
    (root / "sub-1").unlink()
    (root / "sub-1").symlink_to(tmp_path / "disk")
    call(capsys, site, "--session-label", "1")
    assert sorted(failures(site[1])) == ["sub-1_ses-2", "sub-1_ses-3"]
    call(capsys, site)
    assert failures(site[1]) == {}
    (root / "sub-1").unlink()
    (root / "sub-1").symlink_to("/not/mounted")
    call(capsys, site, code=66)
    (root / "sub-1").unlink()
    (root / "sub-1").symlink_to(tmp_path / "disk")
    call(capsys, site, "--session-label", "1")
    assert list(failures(site[1])) == ["sub-1"]
    call(capsys, site)
    assert failures(site[1]) == {}


def test_a_page_tells_of_a_session_for_as_long_as_it_is_lost(tmp_path, capsys):
    root = write_dataset(tmp_path / "in", ["sub-1_ses-1_task-a"])
    given = [root, tmp_path / "out", "participant"]
    given += ["--atlas-file", write_atlas(tmp_path / "atlas")]
    page, session = tmp_path / "out" / "sub-1.html", root / "sub-1" / "ses-9"
    session.symlink_to("/not/mounted")
    for _ in range(2):
        run(capsys, *given, report=True, code=1)
        assert "sub-1_ses-9" in page.read_text()
        assert "1 run (ses-1, task-a" in page.read_text()
    session.unlink()
    run(capsys, *given, report=True)
    assert "sub-1_ses-9" not in page.read_text()


def cut(site):
    path = bold(site, RUNS[0])
    path.write_bytes(path.read_bytes()[:-3000])


def double_mask(site):
    mask = bold(site, RUNS[0])
    mask = mask.with_name(mask.name.replace("preproc_bold", "brain_mask"))
    shutil.copy(mask, mask.with_suffix(""))


def write_strategy(folder):
    path = folder / "tissues.json"
    content = {"name": "tissues", "components": [{"wm_csf": "basic"}]}
    path.write_text(json.dumps(content))
    return path


def segment(site):
    """A segmentation of its own beside each run."""
    for stem in RUNS:
        path = bold(site, stem)
        name = path.name.replace("preproc_bold", "aparcaseg_dseg")
        write_image(path.with_name(name), labels(), oblique())
    rows = [f"{i}\t{name}" for i, name in zip(INDEX, NAMES, strict=True)]
    table = site[0] / "desc-aparcaseg_dseg.tsv"
    table.write_text("\n".join(["index\tname", *rows]) + "\n")


def own(site, stem):
    path = bold(site, stem)
    return path.with_name(path.name.replace("preproc_bold", "aparcaseg_dseg"))


def cut_segmentation(site):
    segment(site)
    path = own(site, RUNS[0])
    path.write_bytes(path.read_bytes()[:40])


def lose_segmentation(site):
    segment(site)
    own(site, RUNS[0]).unlink()


def break_atlas(site):
    image = site[2].partition(",")[0]
    Path(image.replace("Toy", "Broken")).write_bytes(b"this is no image")


def lose_column(site):
    """Of one run; each has a table of confounds."""
    rng = np.random.default_rng(0)
    for stem in RUNS:
        columns = ["csf", "white_matter"][: 1 if stem == RUNS[0] else 2]
        rows = rng.normal(size=(12, len(columns))).astype(str).tolist()
        folder = bold(site, stem).parent
        path = folder / f"{stem}_desc-confounds_timeseries.tsv"
        path.write_text("".join("\t".join(row) + "\n" for row in [columns, *rows]))
        path.with_suffix(".json").write_text("{}")


def lose_participant(site):
    folder = site[0] / "sub-1003" / "func"
    folder.mkdir(parents=True)
    (folder / os.fsdecode(b"sub-1003_\xff_desc-preproc_bold.nii.gz")).touch()


def empty_participant(site):
    (site[0] / "sub-1003" / "func").mkdir(parents=True)


FIRST = "sub-1001_task-a_run-1"
ASKED = ("--participant-label", "1001", "1002", "1003")
OWN = ("--atlas", "subject:aparcaseg", "--offline")
# What is done, with which options; what is said, of what; rows that have failed.
LOSSES = {
    "a run that is cut": (cut, (), "it is truncated.", FIRST, 1),
    "an ambiguous partner": (double_mask, (), "2 files could be its mask", FIRST, 1),
    "a damaged segmentation": (cut_segmentation, OWN, "cut short", FIRST, 1),
    "a missing segmentation": (lose_segmentation, OWN, "no segmentation", FIRST, 1),
    "a broken atlas": (break_atlas, ("BROKEN",), "is damaged or cut short", "", 3),
    "a strategy that fails": (
        lose_column,
        ("--denoise", "none", "STRATEGY"),
        "white_matter",
        FIRST,
        1,
    ),
    "a participant of odd names": (lose_participant, (), "not text", "sub-1003", 1),
    "a participant without runs": (
        empty_participant,
        ASKED,
        "no BOLD run among 0 files",
        "sub-1003",
        1,
    ),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_is_told_in_four_places(site, capsys, kind):
    damage, more, said, where, n_failed = LOSSES[kind]
    damage(site)
    root, out, atlas = site
    broken = atlas.partition(",")[0].replace("Toy", "Broken")
    strategy = write_strategy(root.parent)
    names = {"BROKEN": broken, "STRATEGY": strategy}
    # An atlas that served no run is a fault of its own.
    code = 65 if "BROKEN" in more else 1
    told = call(capsys, site, *(names.get(word, word) for word in more), code=code)
    # in full, once, where it happens
    (full,) = [line for line in told.err.splitlines() if said in line]
    assert "ERROR" in full
    assert where in full
    # in the summary, in fewer words
    (short,) = [line for line in told.out.splitlines() if said in line]
    assert short.startswith("  failed: ")
    assert len(short) < len(full)
    assert str(root) not in short
    assert "what to do about it is said above" in told.out
    # in the records, and so in the table of the group
    lost = [r for r in read_all_records(out) if r.status == "failed"]
    assert len(lost) == n_failed
    assert all(said in r.reason and where in r.run for r in lost)
    rows = [r for r in group_rows(capsys, out) if r["status"] != "done"]
    assert len(rows) == n_failed
    assert all(r["status"] == "failed" and said in r["reason"] for r in rows)
    # and all else is there
    runs = {p.name.partition("_space")[0] for p in out.glob("sub-*/func/*_dseg.tsv")}
    spared = set(RUNS) - {FIRST} if n_failed == 1 and not more else set(RUNS)
    assert spared <= runs
