"""Outputs that are checked by participant are those that are checked all at once."""

import contextlib
import hashlib
import os

import numpy as np
import pytest
from support.group_trees import Tree

from bids_roi.errors import DataError
from bids_roi.group import level
from bids_roi.group.outputs import check_outputs, read_everyone
from bids_roi.options.record import Options
from bids_roi.outputs.records import Record, Stamp, read_all_records, write_records


def grow(root):
    """Three participants with two runs and one over both; much of it is damaged."""
    tree, nothing = Tree(root), np.full((6, 6), np.nan)
    for person in ("01", "02", "03"):
        for number in (1, 2):
            run = f"sub-{person}_task-rest_run-{number}"
            regions = tree.regions(run)
            series = tree.series(run)
            relmat = tree.relmat(run, np.eye(6))
            tree.relmat(run, nothing, desc="a", ReasonNotAvailable="too short")
            if number == 1:
                for path in (regions, relmat):
                    path.with_suffix(".json").write_text("{")
            else:  # made of a table that is not there any more
                path = series.relative_to(root).as_posix()
                stamps = (Stamp(path, 1, 1, "0" * 64),) if person == "02" else ()
                record = Record(tree.source(run), "Toy", "done", stamps=stamps)
                write_records(root, tree.source(run), [record])
        more = {"CombinedRuns": [], "CombinedTables": []}
        tree.relmat(f"sub-{person}_task-rest", np.eye(6), **more)


@pytest.mark.parametrize("combined", [False, True])
def test_by_participant_as_all_at_once(tmp_path, combined):
    grow(tmp_path)
    everyone = read_everyone(tmp_path, combined=combined)
    records = read_all_records(tmp_path)
    at_once = check_outputs(tmp_path, records, combined=combined)
    kinds = [problem.output.kind for problem in at_once.problems]
    last = [kind == "relmat" for kind in kinds]
    assert last == sorted(last)  # matrices of all participants
    assert {*kinds} >= {"regions", "relmat"}
    assert at_once.regions
    assert at_once.series
    for name in ("regions", "series", "relmats"):
        found, wanted = getattr(everyone.found, name), getattr(at_once, name)
        assert [output.path for output in found] == [output.path for output in wanted]
    told = [
        [(p.output.path, p.reason, p.status) for p in found.problems]
        for found in (everyone.found, at_once)
    ]
    assert told[0] == told[1]
    assert [outcome.run for outcome in everyone.outcomes] == [r.run for r in records]
    assert bool(everyone.there) is combined


def test_whom_nobody_can_read_is_told_as_unreadable(tmp_path):
    """What of a run, where its record is damaged; else the participant."""
    grow(tmp_path)
    (record,) = (tmp_path / "logs" / "sub-03").glob("*.jsonl")
    record.write_text("{")
    (tmp_path / "sub-02x").symlink_to(tmp_path / "nowhere")
    everyone = read_everyone(tmp_path)
    assert [*everyone.closed] == ["sub-02x"]
    runs = [f"sub-0{n}/func/sub-0{n}_task-rest_run-2" for n in (1, 2, 3)]
    wanted = [*zip(runs, ("done", "done", "unreadable"), strict=True)]
    wanted.append(("sub-02x", "unreadable"))
    found = [(o.run.partition("_space")[0], o.status) for o in everyone.outcomes]
    assert found == wanted
    whose = [outcome.reason.partition(":")[0] for outcome in everyone.outcomes[2:]]
    assert whose == [record.relative_to(tmp_path).as_posix(), "sub-02x"]
    assert all(str(tmp_path) not in o.reason for o in everyone.outcomes)
    assert "sub-02x" not in {o.participant for o in everyone.found.usable}


@pytest.mark.parametrize("verify", [False, True])
def test_a_table_of_the_same_size_and_time_is_read_to_verify_it(tmp_path, verify):
    tree = Tree(tmp_path)
    path = tree.regions("sub-01_task-rest")
    digest, times = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat()
    tree.regions("sub-01_task-rest", TableDigest=f"sha256:{digest}")
    path.write_bytes(path.read_bytes().replace(b"1000.0", b"2000.0"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    relative = path.relative_to(tmp_path).as_posix()
    stamp = Stamp(relative, times.st_size, times.st_mtime_ns, digest)
    source = tree.source("sub-01_task-rest")
    write_records(tmp_path, source, [Record(source, "Toy", "done", stamps=(stamp,))])
    found = read_everyone(tmp_path, verify=verify).found
    assert [len(found.regions), len(found.problems)] == [not verify, verify]
    refused = pytest.raises(DataError, match="none of the 1 outputs can be used")
    with refused if verify else contextlib.nullcontext():
        level.run_group_level(tmp_path, Options.of(n_procs=1, verify=verify))
