"""Folders and files that are there and cannot be read: told, contained, put right."""

import errno
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from support import datasets
from support.broken_disk import fail_at, folder_for_all
from support.calls import run
from support.group_trees import SPACE, Tree, correlation, read_rows, write_tsv

from bids_roi.group.outputs import check_outputs
from bids_roi.group.runs import measure_motion, sort_into_runs
from bids_roi.outputs.find import find_outputs
from bids_roi.outputs.records import Record, read_all_records, write_records

NOBODY = 65534
RUNS = [f"sub-0{n}_task-rest" for n in (1, 2, 3)]
as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can play another user"
)


@pytest.fixture
def place():
    with folder_for_all(0o777) as folder:
        yield folder


def fill(out, people=(1, 2, 3, 4, 5)):
    """Outputs and records of participants, the same of each whoever else is there."""
    tree = Tree(out)
    for person in people:
        name = f"sub-0{person}_task-rest"
        rng = np.random.default_rng(person)
        tree.run(name, correlation(rng), fd=0.1 * person, desc="36P")
        source = tree.source(name)
        done = Record(source, "Toy", "done", strategy="36P")
        write_records(out, source, [done])
        lost = source.replace("rest", "nback")
        write_records(out, lost, [Record(lost, "Toy", "failed", "the scanner failed.")])
    return tree


def tables(out):
    """Group tables that hold numbers, but for the list of runs."""
    return {
        p.name: p.read_bytes()
        for p in out.glob("group_*.tsv")
        if p.name != "group_runs.tsv"
    }


PLACES = ["sub-03", "sub-03/func", "logs/sub-03", "logs/sub-03/*rest*.jsonl"]


def check_group(capsys, out, broken, problem, *texts):
    """One row for the participant; the numbers are those without him."""
    rows = read_rows(out / "group_runs.tsv")
    told = [(r["participant_id"], r["status"]) for r in rows]
    whole = [(f"sub-0{n}", s) for n in (1, 2, 4, 5) for s in ("done", "failed")]
    assert sorted(told) == sorted([*whole, ("sub-03", "unreadable")])
    (row,) = [r for r in rows if r["participant_id"] == "sub-03"]
    for text in (row["reason"], *texts):
        assert f"{broken.relative_to(out).as_posix()}: the " in text
        assert f"cannot be read ({problem}). Check " in text
        assert "Traceback" not in text
    # Tables do not depend on where the folder is; who reads messages wants the path.
    assert str(out) not in row["reason"]
    assert f"{broken}: the " in texts[0]
    other = out.parent / "without"
    fill(other, (1, 2, 4, 5))
    run(capsys, other, other, "group")
    assert tables(out) == tables(other) != {}


def break_at(monkeypatch, broken, code):
    """Listing a folder, or reading a file, fails."""
    call = (Path, "read_text") if broken.is_file() else (os, "scandir")
    fail_at(monkeypatch, *call, broken, code)


@pytest.mark.parametrize(
    ("word", "code"), [*zip(PLACES, ("EIO", "ESTALE", "EACCES", "EIO"), strict=True)]
)
def test_a_group_goes_on_without_who_cannot_be_read(
    tmp_path, capsys, monkeypatch, word, code
):
    out = tmp_path / "out"
    fill(out)
    (broken,) = out.glob(word)
    problem = os.strerror(getattr(errno, code))
    with monkeypatch.context() as patch:
        break_at(patch, broken, code)
        shown = run(capsys, tmp_path, out, "group", code=1)
    # Without the records of one run, that one is not known.
    lost = "8 runs of 4 participants, and 1 participant of whom no run is known"
    assert f"{lost}; each atlas" in shown.out
    assert "1 unreadable" in shown.out
    check_group(capsys, out, broken, problem, shown.err, shown.out)
    run(capsys, tmp_path, out, "group")  # and put right by the same command
    rows = read_rows(out / "group_runs.tsv")
    assert sorted(r["status"] for r in rows) == ["done"] * 5 + ["failed"] * 5


@as_root
@pytest.mark.parametrize("word", PLACES)
def test_a_group_with_a_participant_of_another_user(place, capsys, fault_server, word):
    """Permissions as they are on a cluster, and a user whom they bind."""
    out = place / "out"
    fill(out)
    open_to_all(out)
    (broken,) = out.glob(word)
    broken.chmod(0)
    done = fault_server.run(out, out, "group", "--no-report", user=NOBODY)
    assert done.returncode == 1, done.stderr
    check_group(capsys, out, broken, "Permission denied", done.stderr)


def open_to_all(folder):
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)


@pytest.mark.parametrize("code", ["EIO", "EACCES"])
@pytest.mark.parametrize("word", ["", "logs"])
def test_a_group_of_whom_nothing_can_be_read_is_an_error(
    tmp_path, capsys, monkeypatch, word, code
):
    out = tmp_path / "out"
    fill(out)
    problem = os.strerror(getattr(errno, code))
    before = datasets.snapshot(out)
    break_at(monkeypatch, out / word, code)
    shown = run(capsys, tmp_path, out, "group", code=66)
    assert f"{out / word}: the folder cannot be read" in shown.err
    assert problem in shown.err
    monkeypatch.undo()
    assert datasets.snapshot(out) == before


def test_a_group_without_anyone_else_is_an_error(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    fill(out, (3,))
    before = datasets.snapshot(out)
    break_at(monkeypatch, out / "logs" / "sub-03", "EIO")
    shown = run(capsys, tmp_path, out, "group", code=66)
    assert f"{out}/logs/sub-03: the folder cannot be read" in shown.err
    monkeypatch.undo()
    assert datasets.snapshot(out) == before


@pytest.mark.parametrize("damage", ["cut", "not text", "empty", "gone"])
def test_damaged_records_are_a_row_of_their_own(tmp_path, capsys, damage):
    """A run that failed would be missing without a word."""
    out = tmp_path / "out"
    fill(out)
    (file,) = out.glob("logs/sub-03/*nback*.jsonl")
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
        file.symlink_to("nowhere")
    else:
        cut = {"cut": content[:-9], "not text": content + b"\xff", "empty": b""}
        file.write_bytes(cut[damage])
    shown = run(capsys, tmp_path, out, "group")
    assert "5 done, 1 unreadable, 4 failed" in shown.out
    rows = read_rows(out / "group_runs.tsv")
    (row,) = [r for r in rows if r["status"] == "unreadable"]
    assert row["participant_id"] == "sub-03"
    assert row["task_id"] == "nback"
    place = file.relative_to(out).as_posix()
    assert row["reason"].startswith(f"{place}: the ")
    for text in (row["reason"], shown.err, shown.out):
        assert ("not here" if damage == "gone" else "damaged") in text
        assert "run the participant level again" in text
    other = tmp_path / "without"
    fill(other)
    run(capsys, other, other, "group")
    assert tables(out) == tables(other) != {}


@pytest.mark.parametrize("word", ["sub-03", "sub-03/func", "logs/sub-03"])
def test_outputs_on_a_disk_that_is_not_mounted_are_told(tmp_path, capsys, word):
    out = tmp_path / "out"
    fill(out)
    (out / word).rename(tmp_path / "elsewhere")
    (out / word).symlink_to(tmp_path / "not mounted")
    shown = run(capsys, tmp_path, out, "group", code=1)
    rows = read_rows(out / "group_runs.tsv")
    (row,) = [r for r in rows if r["participant_id"] == "sub-03"]
    assert row["status"] == "unreadable"
    for text in (row["reason"], shown.err, shown.out):
        assert f"{word}: the folder cannot be read" in text
        assert "mount the disk" in text
    (out / word).unlink()
    (out / word).symlink_to(tmp_path / "elsewhere")
    run(capsys, tmp_path, out, "group")
    assert len(read_rows(out / "group_runs.tsv")) == 10


def test_a_session_of_outputs_that_is_not_here_is_told(tmp_path, capsys):
    out = tmp_path / "out"
    fill(out)
    (out / "sub-03.html").symlink_to("not fetched")  # a page is no participant
    run(capsys, tmp_path, out, "group")
    (out / "sub-03" / "ses-9").symlink_to(tmp_path / "not mounted")
    shown = run(capsys, tmp_path, out, "group", code=1)
    assert "sub-03/ses-9: the folder cannot be read" in shown.err
    rows = read_rows(out / "group_runs.tsv")
    (row,) = [r for r in rows if r["participant_id"] == "sub-03"]
    assert row["status"] == "unreadable"


def test_damaged_records_of_a_run_with_outputs_are_told_beside_these(tmp_path, capsys):
    out = tmp_path / "out"
    fill(out)
    (file,) = out.glob("logs/sub-03/*rest*.jsonl")
    file.write_text(file.read_text() + "{")
    shown = run(capsys, tmp_path, out, "group", report=True)
    rows = read_rows(out / "group_runs.tsv")
    own = [r for r in rows if r["participant_id"] == "sub-03"]
    told = [(r["task_id"], r["atlas_id"], r["status"]) for r in own]
    expected = [
        ("nback", "Toy", "failed"),
        ("rest", "Toy", "done"),
        ("rest", "n/a", "unreadable"),
    ]
    assert sorted(told) == expected
    assert len({r["source"] for r in own if r["task_id"] == "rest"}) == 1
    assert "10 runs of 5 participants" in shown.out
    assert "1 of 2 lines can be used" in (out / "group.html").read_text()


@pytest.fixture
def site(place):
    """A dataset, its atlas, and an output folder of another user."""
    root = datasets.write_dataset(place / "in", RUNS)
    atlas = datasets.write_atlas(place / "atlas")
    return root, place / "out", atlas


def participant(fault_server, site, *more, user=NOBODY):
    root, out, atlas = site
    options = ("--atlas-file", atlas, "--no-report", *more)
    return fault_server.run(root, out, "participant", *options, user=user)


def files_of(folder):
    """Outputs, without logs: they tell seconds and memory."""
    found = datasets.snapshot(folder)
    return {name: held for name, held in found.items() if name[:4] != "logs"}


def changes_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}


@as_root
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("word", ["ses-1", "ses-1/func"])
def test_a_session_of_another_user_costs_itself_only(site, fault_server, word, kept):
    root, out, _ = site
    for number in (1, 2):
        datasets.write_run(root, f"sub-04_ses-{number}_task-rest_space-{SPACE}")
    more = ("--bids-database-dir", out.parent / "index") if kept else ()
    broken = root / "sub-04" / word
    broken.chmod(0)
    done = participant(fault_server, site, *more)
    assert done.returncode == 1, done.stderr
    assert f"ERROR sub-04_ses-1: {broken}: the folder cannot be read" in done.stderr
    # Who asks for the other session has nothing to do with it.
    one = ("--participant-label", "04", "--session-label", "2")
    done = participant(fault_server, site, *more, *one)
    broken.chmod(0o755)
    assert done.returncode == 0, done.stderr
    states = {r.run.rpartition("/")[2][:12]: r.status for r in read_all_records(out)}
    assert states.pop("sub-04_ses-1") == "failed"
    assert set(states.values()) == {"done"}
    assert len(states) == 4
    assert participant(fault_server, site, *more).returncode == 0
    assert {r.status for r in read_all_records(out)} == {"done"}


@as_root
@pytest.mark.parametrize(
    ("word", "more"),
    [
        *itertools.product(("sub-02", "sub-02/func", "logs/sub-02", "file"), [()]),
        ("sidecar", ()),  # its settings may be others, which are never replaced
        *itertools.product(("sub-02", "file"), [("--overwrite",)]),
        *itertools.product(("sub-02", "logs/sub-02"), [("--combine-runs",)]),
    ],
)
def test_a_participant_of_another_user_costs_him_alone(site, fault_server, word, more):
    """Not the call, and not without a word; nothing of his is made anew."""
    _, out, _ = site
    more = (*more, "--relmat", "pearson", "--strategy", "none")
    assert participant(fault_server, site, *more).returncode == 0
    expected, his = files_of(out), changes_of(out / "sub-02")
    (file,) = out.glob("logs/sub-02/*.jsonl")
    (gone,) = out.glob("sub-03/func/*timeseries.tsv")
    gone.unlink()
    (sidecar,) = out.glob("sub-02/func/*timeseries.json")
    broken = {"file": file, "sidecar": sidecar}.get(word, out / word)
    mode = broken.stat().st_mode
    broken.chmod(0)
    done = participant(fault_server, site, *more)
    broken.chmod(mode)
    assert done.returncode == 1, done.stderr
    assert "sub-02" in done.stderr
    assert "Permission denied" in done.stderr
    assert "Check " in done.stderr
    assert "Traceback" not in done.stderr
    assert files_of(out) == expected  # the others have been made
    assert changes_of(out / "sub-02") == his
    states = {r.run[:6]: r.status for r in read_all_records(out)}
    lost = "done" if "log" in str(broken.relative_to(out)) else "failed"
    assert states == {"sub-01": "done", "sub-02": lost, "sub-03": "done"}
    again = participant(fault_server, site, *more)
    assert again.returncode == 0, again.stderr
    assert files_of(out) == expected
    states = {r.run[:6]: r.status for r in read_all_records(out)}
    assert states == dict.fromkeys(("sub-01", "sub-02", "sub-03"), "done")


@pytest.mark.parametrize("code", ["EIO", "ESTALE", "EACCES"])
@pytest.mark.parametrize("word", ["timeseries.tsv", "timeseries.json"])
def test_outputs_on_a_disk_that_fails_cost_their_participant(
    tmp_path, capsys, monkeypatch, word, code
):
    """Their settings may be others: nothing is made in their place."""
    root = datasets.write_dataset(tmp_path / "in", RUNS)
    out, atlas = tmp_path / "out", datasets.write_atlas(tmp_path / "atlas")
    arguments = (root, out, "participant", "--atlas-file", atlas)
    run(capsys, *arguments)
    expected, his = files_of(out), changes_of(out / "sub-02")
    (broken,) = out.glob(f"sub-02/func/*{word}")
    with monkeypatch.context() as patch:
        fail_at(patch, Path, "stat", broken, code)
        fail_at(patch, Path, "stat", out / "sub-02", code)
        shown = run(capsys, *arguments, code=1)
    assert os.strerror(getattr(errno, code)) in shown.err
    assert str(broken) in shown.err
    assert "Traceback" not in shown.err
    assert files_of(out) == expected
    assert changes_of(out / "sub-02") == his


@as_root
def test_logs_of_another_user_end_the_call(site, fault_server):
    """Not of one participant: without records nothing could be resumed."""
    _, out, _ = site
    (out / "logs").mkdir(parents=True)
    out.chmod(0o777)
    (out / "logs").chmod(0o755)
    done = participant(fault_server, site)
    assert done.returncode == 73, done.stderr
    assert f"{out}/logs/sub-01" in done.stderr
    assert "cannot be written (Permission denied)" in done.stderr
    (out / "logs").chmod(0o777)
    assert participant(fault_server, site).returncode == 0


@as_root
def test_a_root_file_of_another_user_stays_and_is_told(site, fault_server):
    _, out, _ = site
    out.mkdir()
    out.chmod(0o777)
    file = out / "README.md"
    file.write_text("of somebody else")
    file.chmod(0)
    done = participant(fault_server, site)
    assert done.returncode == 0, done.stderr
    assert "README.md is there, cannot be read (Permission denied)" in done.stderr
    assert file.read_text() == "of somebody else"


def test_a_group_table_that_cannot_be_removed_is_not_called_removed(
    tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    tree = fill(out)
    for person in (1, 2):
        name = f"sub-0{person}_task-rest"
        matrix = correlation(np.random.default_rng(person))
        tree.relmat(name, matrix, desc="24P")
    run(capsys, out, out, "group")
    for path in out.glob("sub-*/func/*desc-24P*"):
        path.unlink()
    (old,) = out.glob("group_*desc-24P_relmat.tsv")
    with monkeypatch.context() as patch:
        fail_at(patch, Path, "unlink", old, "EACCES")
        shown = run(capsys, out, out, "group")
    assert old.is_file()
    (removed,) = [x for x in shown.out.splitlines() if x.startswith("removed, for")]
    assert old.name not in removed
    assert f"1 file group_* not of this call, left as found: {old.name}" in shown.err


@pytest.mark.parametrize("code", ["EIO", "EACCES"])
def test_a_mean_over_runs_is_not_over_those_that_can_be_read(
    tmp_path, caplog, monkeypatch, code
):
    """Motion of all volumes: of one run alone it would be another number."""
    tree, tables = Tree(tmp_path), []
    for number, moved in ((1, (0.1, 0.3)), (2, (0.5, "n/a"))):
        key = f"sub-01_task-rest_run-{number}"
        tree.run(key, correlation(np.random.default_rng(number)))
        folder, stem = tree.stem(key)
        name = stem.replace("_atlas-Toy", "_outliers.tsv")
        write_tsv(folder / name, ["fd"], [[x] for x in moved])
        tables.append(folder / name)
    combine(tree, "sub-01_task-rest", (1, 2))
    (output,) = [o for o in find_outputs(tmp_path) if o.kind == "combined"]
    runs = sort_into_runs([output], ())
    assert measure_motion("fd", runs, output) == pytest.approx(0.3)
    fail_at(monkeypatch, Path, "open", tables[0], code)
    assert measure_motion("fd", runs, output) is None
    assert f"its fd is not known: {tables[0]}: the file cannot be read" in caplog.text
    monkeypatch.undo()
    tables[0].unlink()  # as a run that had none
    assert measure_motion("fd", runs, output) == 0.5


@pytest.mark.parametrize("code", ["EIO", "EACCES", "ESTALE"])
def test_a_matrix_over_runs_is_never_taken_for_that_of_a_run(
    tmp_path, monkeypatch, code
):
    """Its sidecar cannot be read once, and could be a moment later."""
    tree = Tree(tmp_path)
    for number in (1, 2):
        matrix = correlation(np.random.default_rng(number))
        tree.run(f"sub-01_task-rest_run-{number}", matrix)
    path = combine(tree, "sub-01_task-rest", (1, 2)).with_suffix(".json")
    with monkeypatch.context() as patch:
        fail_at(patch, Path, "read_bytes", path, code)
        found = find_outputs(tmp_path)
    (over,) = [o for o in found if o.beside == path]
    assert "the file cannot be read" in str(over.told.error)
    known = check_outputs(tmp_path, (), found)
    assert over not in known.relmats
    assert [problem.output for problem in known.problems] == [over]


def combine(tree, name, numbers):
    """A matrix over runs, as its sidecar tells it."""
    path = tree.relmat(name, correlation(np.random.default_rng(9)))
    content = json.loads(path.with_suffix(".json").read_text())
    tail = f"_space-{SPACE}_atlas-Toy_stat-mean_timeseries.tsv"
    runs = [f"{name}_run-{number}" for number in numbers]
    content["Sources"] = [f"bids::sub-01/func/{run_name}{tail}" for run_name in runs]
    content |= {"CombinedRuns": runs, "CombinedTables": ["d" * 64 for _ in runs]}
    tree.write_json(path, content)
    return path
