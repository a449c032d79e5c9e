"""Rows of ``group_runs.tsv``: those that are wanted, in their order, and the table."""

import json

import numpy as np
import pytest
from support import group_trees
from support.group_trees import Tree, read_rows

from bids_roi.group.outputs import Ledger, Outcome, check_outputs
from bids_roi.group.regions import Summary
from bids_roi.group.runs import RunsTable, list_rows, sort_into_runs

MNI = group_trees.SPACE


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writer of all that there is of a run in a space and an atlas."""

    def write(run, space=MNI, atlas="Toy", **more):
        monkeypatch.setattr(group_trees, "SPACE", space)
        tree = Tree(tmp_path)
        monkeypatch.setattr(
            tree, "stem", lambda run: Tree.stem(tree, run, f"atlas-{atlas}")
        )
        paths = [tree.regions(run, Atlas=atlas, **more)]
        for desc in ("b", "a"):
            paths.append(tree.series(run, desc=desc, Atlas=atlas, **more))
            paths.append(tree.relmat(run, np.eye(6), desc=desc, Atlas=atlas))
        return tree.source(run), paths

    return write


def test_rows_are_those_of_runs_and_of_losses_in_one_order(tmp_path, write):
    source = "sub-01/func/sub-01_task-rest_bold.nii.gz"
    both = {"Sources": [f"bids:preprocessed:{source}"]}
    for space in ("T1w", MNI):
        write("sub-01_task-rest", space, **both)
    write("sub-01_task-rest", MNI, "Two", **both)
    damaged = {}
    for person in ("02", "05"):
        damaged[person], paths = write(f"sub-{person}_task-rest")
        for path in paths:
            path.with_suffix(".json").write_text("{")
    whole, _ = write("sub-04_task-rest")
    lacking, _ = write("sub-06_task-rest")
    lost = [
        "sub-03/func/sub-03_task-rest_bold.nii.gz",
        "sub-00/func/sub-00_bold.nii.gz",
    ]
    outcomes = [
        *(Outcome(run, "Toy", "failed", "lost") for run in lost),
        Outcome(whole, "n/a", "failed", "of the whole"),
        Outcome(whole, "Toy", "failed", "of one"),
        Outcome(whole, "Two", "skipped", "does not fit"),
        Outcome(lacking, "Toy", "failed", "of a strategy", "a"),
        Outcome(damaged["05"], "Toy", "done", ""),
    ]
    found = check_outputs(tmp_path)
    runs = sort_into_runs(found.usable, found.problems)
    rows = list(list_rows(runs, {}, outcomes))
    keys = ("participant_id", "space_id", "atlas_id", "desc_id", "status")
    assert [tuple(row.get(key) or "" for key in keys) for row in rows] == [
        ("sub-00", "", "Toy", "", "failed"),
        # Of one source: by strategy first.
        ("sub-01", MNI, "Toy", "a", "done"),
        ("sub-01", "T1w", "Toy", "a", "done"),
        ("sub-01", MNI, "Toy", "b", "done"),
        ("sub-01", "T1w", "Toy", "b", "done"),
        ("sub-01", MNI, "Two", "a", "done"),
        ("sub-01", MNI, "Two", "b", "done"),
        ("sub-02", MNI, "Toy", "a", "unreadable"),
        ("sub-02", MNI, "Toy", "b", "unreadable"),
        ("sub-03", "", "Toy", "", "failed"),
        ("sub-04", MNI, "Toy", "a", "failed"),
        ("sub-04", MNI, "Toy", "b", "failed"),
        ("sub-04", MNI, "Two", "", "skipped"),
        ("sub-05", MNI, "Toy", "a", "unreadable"),
        ("sub-05", MNI, "Toy", "b", "unreadable"),
        ("sub-06", MNI, "Toy", "a", "failed"),
        ("sub-06", MNI, "Toy", "b", "done"),
        ("sub-06", MNI, "Two", "", "absent"),
    ]
    told = {row["participant_id"]: row for row in reversed(rows)}
    assert told["sub-04"]["reason"].startswith("of the whole")
    assert [told[f"sub-0{n}"]["source"] for n in (0, 1, 2, 5)] == [
        *(lost[1], source, "", damaged["05"])
    ]


def test_what_a_region_table_tells_is_in_all_rows_of_its_run(tmp_path, write):
    """But where a series tells how many of its regions have no value."""
    _, paths = write("sub-01_task-rest")
    series = next(p for p in paths if p.name.endswith("desc-b_timeseries.tsv"))
    sidecar = json.loads(series.with_suffix(".json").read_text())
    Tree.write_json(series, sidecar | {"NumberOfRegionsLost": 3})
    runs = sort_into_runs(check_outputs(tmp_path).usable, ())
    told = {paths[0].relative_to(tmp_path).as_posix(): Summary(6, 2, 0.75, None)}
    keys = ("desc_id", "n_regions", "n_regions_lost", "coverage_mean", "tsnr_median")
    assert [[row[key] for key in keys] for row in list_rows(runs, told, [])] == [
        ["a", 6, 2, 0.75, None],
        ["b", 6, 3, 0.75, None],
    ]


def test_the_table_has_the_columns_in_which_something_is(tmp_path):
    table = RunsTable()
    one = {"participant_id": "sub-01", "source": "1", "session_id": "", "atlas_id": "A"}
    table.add(one | {"status": "done", "fd_filtered_mean": 0.0, "options_digest": "d"})
    table.add(
        one | {"status": "failed", "reason": "tab\there", "fd_filtered_mean": None}
    )
    table.add({"participant_id": "sub-02", "status": "failed", "echo_id": None})
    ledger = Ledger(tmp_path)
    table.write(ledger)
    rows = read_rows(tmp_path / "group_runs.tsv")
    assert [row["fd_filtered_mean"] for row in rows] == ["0.0", "n/a", "n/a"]
    assert [row["reason"] for row in rows] == ["n/a", "tab here", "n/a"]
    assert [row["session_id"] for row in rows] == ["n/a"] * 3  # always there
    assert "echo_id" not in rows[0]
    sidecar = json.loads((tmp_path / "group_runs.json").read_text())
    assert sidecar["OptionsDigest"] == ["d"]
    assert {*rows[0]} <= {*sidecar}
    assert table.counts == {"done": 1, "failed": 2}
    sized = {(row["participant_id"], row["source"]) for row in table.sized}
    assert sized == {("sub-01", "1"), ("sub-02", None)}
    assert [row["participant_id"] for row in table.losses["failed"]] == [
        "sub-01",
        "sub-02",
    ]
    assert "done" not in table.losses

    losses = ("incomplete", "absent", "left_out", "unreadable", "skipped", "failed")
    for status in losses:
        table.add(one | {"status": status, "reason": status})
    assert [table.losses[status][-1]["reason"] for status in losses] == [*losses]

    other = RunsTable()
    other.add(one | {"status": "done", "fd_filtered_mean": None})
    other.write(ledger)
    assert "fd_filtered_mean" not in read_rows(tmp_path / "group_runs.tsv")[0]


def test_a_number_of_the_run_is_first_that_of_its_first_strategy(tmp_path, write):
    """Which is told matters where sidecars of one run do not agree."""
    _, paths = write("sub-01_task-rest")
    (run,) = sort_into_runs(check_outputs(tmp_path).usable, ()).values()
    order = ["dseg", "desc-a_timeseries", "desc-a_relmat"]
    order += ["desc-b_timeseries", "desc-b_relmat"]
    found = [output.path.removesuffix(".tsv") for output in run.outputs]
    assert all(path.endswith(end) for path, end in zip(found, order, strict=True))
    for path in paths:
        told = {"desc-a_relmat": 0.2, "desc-b_timeseries": 0.3}
        fd = next((v for end, v in told.items() if path.stem.endswith(end)), None)
        if fd is not None:
            sidecar = json.loads(path.with_suffix(".json").read_text())
            Tree.write_json(path, sidecar | {"MeanFramewiseDisplacement": fd})
    (run,) = sort_into_runs(check_outputs(tmp_path).usable, ()).values()
    key = "MeanFramewiseDisplacement"
    assert run.number(key, "b", of_the_run=True) == 0.3
    assert run.number(key, "c", of_the_run=True) == 0.2
