"""Matrices over runs among the others: told apart, chosen, out of date."""

import json

import numpy as np
import pytest
from support.group_trees import SPACE, Tree

from bids_roi.outputs.find import (
    check_combined,
    choose_combined,
    find_outputs,
    name_combined,
    series_of,
    without_run,
)

MATRIX = np.eye(6)


def write_combined(tree, runs, *, person="01", digests=None, **more):
    """A matrix over some runs, as its sidecar tells it."""
    name = f"sub-{person}_task-rest"
    path = tree.relmat(name, MATRIX, **more)
    content = json.loads(path.with_suffix(".json").read_text())
    stem = f"sub-{person}/func/sub-{person}_task-rest_run-"
    tail = f"_space-{SPACE}_atlas-Toy_stat-mean_timeseries.tsv"
    content["Sources"] = [f"bids::{stem}{run}{tail}" for run in runs]
    content["CombinedRuns"] = [f"{name}_run-{run}" for run in runs]
    content["CombinedTables"] = digests or ["d" * 64 for _ in runs]
    path.with_suffix(".json").write_text(json.dumps(content))
    return path


@pytest.fixture
def tree(tmp_path):
    """Two runs with a matrix over both, and a participant of one run."""
    tree = Tree(tmp_path)
    for run in (1, 2):
        told = f"sha256:{'d' * 64}"
        tree.series(f"sub-01_task-rest_run-{run}", TableDigest=told)
        tree.relmat(f"sub-01_task-rest_run-{run}", MATRIX)
    tree.run("sub-02_task-rest_run-1", MATRIX)
    write_combined(tree, (1, 2))
    return tree


def test_they_are_of_a_kind_of_their_own(tree):
    found = find_outputs(tree.root)
    (combined,) = [o for o in found if o.kind == "combined"]
    assert combined.name.get("run") is None
    assert combined.is_combined
    assert combined.told.of_tables
    assert sum(o.kind == "relmat" for o in found) == 3
    assert [s.name.get("run") for s in series_of(combined)] == ["1", "2"]
    assert combined.source == tree.source("sub-01_task-rest_run-1")
    assert check_combined(combined) is None
    chosen, lacking = choose_combined(found)
    assert [o.run_name for o in chosen] == [
        "sub-01_task-rest",
        "sub-02_task-rest_run-1",
    ]
    assert {o.kind for o in chosen} == {"relmat"}
    assert lacking == []


def test_a_run_without_a_number_is_none(tree):
    tree.run("sub-02_task-rest", MATRIX)
    kinds = {o.run_name: o.kind for o in find_outputs(tree.root, "sub-02")}
    assert "combined" not in kinds.values()
    _, lacking = choose_combined(find_outputs(tree.root))
    assert {o.participant for o in lacking} == {"sub-02"}


def test_what_is_out_of_date_says_why(tree):
    def check(**more):
        (output,) = [o for o in find_outputs(tree.root) if o.kind == "combined"]
        return check_combined(output, **more)

    first = find_outputs(tree.root)[0].path
    series = [o.path for o in find_outputs(tree.root) if o.kind == "timeseries"]
    assert first
    assert "of another input" in check(stale={series[0]}).problem
    write_combined(tree, (1, 2), digests=["d" * 64, "e" * 64])
    assert "run-2" in check().problem
    assert "made again since" in check().problem
    write_combined(tree, (1,))
    assert "does not hold" in check().problem
    assert "--combine-runs" in check().remedy
    path = write_combined(tree, (1,)).with_suffix(".json")
    content = json.loads(path.read_text())
    told = {"RunsNotCombined": ["sub-01_task-rest_run-2: it failed."]}
    path.write_text(json.dumps(content | told))
    assert check() is None
    (output,) = [o for o in find_outputs(tree.root) if o.kind == "combined"]
    path.unlink()
    assert "Make it again" in check_combined(output).remedy
    assert not output.is_combined


@pytest.mark.parametrize("odd", [None, [], "a text", [1, None]])
def test_a_sidecar_that_was_edited_is_out_of_date_and_no_accident(tree, odd):
    path = write_combined(tree, (1, 2)).with_suffix(".json")
    content = json.loads(path.read_text())

    def check(key):
        path.write_text(json.dumps(content | {key: odd}))
        (output,) = [o for o in find_outputs(tree.root) if o.kind == "combined"]
        return check_combined(output), series_of(output)

    assert "which series" in check("CombinedTables")[0].problem
    path.write_text(json.dumps({k: v for k, v in content.items() if "Tables" not in k}))
    (output,) = [o for o in find_outputs(tree.root) if o.kind == "combined"]
    assert output.told.of_tables
    assert "which series" in check_combined(output).problem
    error, series = check("Sources")
    assert "which series" in error.problem
    assert series == []
    error, series = check("RunsNotCombined")
    assert error is None
    assert len(series) == 2


def test_names_without_the_run():
    path = "sub-1/func/sub-1_task-x_dir-AP_run-2_space-T1w_atlas-A_desc-a_relmat.tsv"
    short = "sub-1/func/sub-1_task-x_space-T1w_atlas-A_desc-a_relmat.tsv"
    assert name_combined(path) == short
    bold = "sub-1/func/sub-1_task-x_dir-PA_run-3_space-T1w_desc-preproc_bold.nii.gz"
    assert without_run(bold, "") == without_run(path, "")
    assert without_run(bold.replace("task-x", "task-y"), "") != without_run(path, "")
