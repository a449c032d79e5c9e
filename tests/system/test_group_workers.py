"""The group level over processes: the same bytes, and the same words on damage."""

import errno
import hashlib
import json
import os
import platform
import resource
import shutil
from pathlib import Path
from tempfile import SpooledTemporaryFile

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.calls import UPPER, group_name, run
from support.group_trees import Tree, correlation, lose, read_rows, read_square
from support.worker_items import (
    die_in_a_worker,
    double,
    double_all_but_three,
    wait_for,
)

from bids_roi.group import scratch, stacking, workers
from bids_roi.group.scratch import Spool
from bids_roi.group.workers import Workers
from bids_roi.options.row import Running
from bids_roi.schedule import processes

FIND, READ = Spool.find, stacking.read_bytes
N_PEOPLE = 75  # with two runs each: three batches


def tell_digests(root):
    """Write into every sidecar what the participant level does: its table's digest."""
    for path in root.glob("sub-*/func/*.tsv"):
        sidecar = json.loads(path.with_suffix(".json").read_text())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sidecar["TableDigest"] = f"sha256:{digest}"
        Tree.write_json(path, sidecar)


def plant(root, n_people=N_PEOPLE):
    """A large group with damaged files of each kind; returns its good matrices."""
    rng, tree, held = np.random.default_rng(0), Tree(root), {}
    for person in range(n_people):
        for number in (1, 2):
            matrix = correlation(rng)
            if person % 7 == 0:
                matrix = lose(matrix, person % 5)
            name = f"sub-{person:03}_task-rest_run-{number}"
            path = tree.run(name, matrix, fd=float(rng.gamma(2, 0.1)))
            held.setdefault(f"{person:03}", []).append(matrix)
            if (person, number) in ((0, 1), (70, 2)):
                path.write_text(path.read_text()[:-30])
                held[f"{person:03}"].pop()
            if (person, number) == (40, 1):
                rows = np.full((6, 6), np.nan)
                tree.run(name, rows, fd=0.1)
                held["040"].pop()
    return held


def contents(root):
    return {p.name: p.read_bytes() for p in root.glob("group_*") if p.is_file()}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    return root, plant(root)


def test_number_of_processes_changes_no_byte(planted, capsys):
    root, _ = planted
    found = {}
    for words in (["--executor", "serial"], ["--n-procs", "2"], ["--n-procs", "3"]):
        shown = run(capsys, "x", root, "group", *words)
        said = [line for line in shown.out.splitlines() if "took" not in line]
        found[words[-1]] = contents(root), said
    assert len(found["serial"][0]) > 10
    assert found["2"] == found["3"] == found["serial"]
    rows = read_rows(root / "group_runs.tsv")
    told = {r["source"].split("/")[-1][:25]: r for r in rows if r["status"] != "done"}
    assert {row["status"] for row in told.values()} == {"unreadable", "left_out"}
    assert len(told) == 3
    for name in ("sub-000_task-rest_run-1_s", "sub-070_task-rest_run-2_s"):
        assert "relmat.tsv" in told[name]["reason"]
        assert "not 6 numbers" in told[name]["reason"]


def test_numbers_of_many_runs_may_lie_on_disk(planted, capsys, monkeypatch):
    """What regions measure, and runs that are compared with each other."""
    root, _ = planted
    run(capsys, "x", root, "group", "--stack", "none")
    wanted = contents(root)
    rolled, read = [], []
    rollover, look = SpooledTemporaryFile.rollover, scratch.Shelf.cut

    def roll(file):
        rolled.append(file)
        rollover(file)

    def cut(shelf, edges):
        read.append((len(shelf), len(shelf._lots)))
        return look(shelf, edges)

    monkeypatch.setattr(scratch, "_IN_MEMORY", 100)
    monkeypatch.setattr(scratch, "_TOGETHER", 100)
    monkeypatch.setattr(SpooledTemporaryFile, "rollover", roll)
    monkeypatch.setattr(scratch.Shelf, "cut", cut)
    run(capsys, "x", root, "group", "--stack", "none", "--executor", "serial")
    assert contents(root) == wanted
    assert len(rolled) == 2
    assert all(file.closed for file in rolled)
    assert all(n > 10 and 5 < lots < n for n, lots in read)
    assert read
    assert not [path for path in root.iterdir() if path.name.startswith("tmp")]


# The first is what regions measure, the second the runs that are compared.
@pytest.mark.parametrize("which", [1, 2])
def test_a_disk_that_cannot_keep_numbers(planted, capsys, monkeypatch, which):
    root, _ = planted
    rolled, rollover = [], SpooledTemporaryFile.rollover

    def refuse(file):
        rolled.append(file)
        if len(rolled) == which:
            raise OSError(errno.ENOSPC, "No space left on device")
        rollover(file)

    monkeypatch.setattr(scratch, "_IN_MEMORY", 100)
    monkeypatch.setattr(scratch, "_TOGETHER", 100)
    monkeypatch.setattr(SpooledTemporaryFile, "rollover", refuse)
    shown = run(capsys, "x", root, "group", "--executor", "serial", code=73)
    assert "No space left on device" in shown.err
    assert len(rolled) == which
    assert all(file.closed for file in rolled)


@pytest.mark.parametrize("unit", ["participant", "run"])
def test_batches_add_up_to_the_whole(planted, capsys, unit):
    root, held = planted
    run(capsys, "x", root, "group", "--group-unit", unit, "--stack", "none")
    edges = {p: [np.arctanh(m[UPPER]) for m in own] for p, own in held.items()}
    if unit == "participant":
        units = [sum(own) / len(own) for own in edges.values()]
    else:
        units = [row for own in edges.values() for row in own]
    _, mean = read_square(root / group_name("relmat"))
    _, deviation = read_square(root / group_name("relmatsd"))
    _, n = read_square(root / group_name("relmatn"))
    assert_allclose(mean[UPPER], np.tanh(np.nanmean(units, axis=0)), rtol=1e-10)
    assert_allclose(deviation[UPPER], np.nanstd(units, axis=0, ddof=1), rtol=1e-10)
    assert n[UPPER].tolist() == np.isfinite(units).sum(axis=0).tolist()


def test_digests_in_the_sidecars_change_no_byte(tmp_path, capsys):
    plant(tmp_path, 8)
    run(capsys, "x", tmp_path, "group")
    before = contents(tmp_path)
    tell_digests(tmp_path)
    run(capsys, "x", tmp_path, "group")
    tables = {name for name in before if name.endswith(".tsv")} - {"group_runs.tsv"}
    assert len(tables) > 8
    assert {n: before[n] for n in tables} == {n: contents(tmp_path)[n] for n in tables}


def edit(path, row, column):
    """Change the last digit of a cell; size and time stay."""
    state, lines = path.stat(), path.read_text().split("\n")
    cells = lines[row].split("\t")
    digit = (int(cells[column][-1]) + 1) % 10
    cells[column] = f"{cells[column][:-1]}{digit}"
    lines[row] = "\t".join(cells)
    path.write_text("\n".join(lines))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size


def stack_all(root, capsys, n_procs="1"):
    """What the group level writes anew, a stack of matrices among it."""
    for path in root.glob("group_*"):
        path.unlink()
    shown = run(capsys, "x", root, "group", "--stack", "relmat", "--n-procs", n_procs)
    assert not list(root.glob(".bids_roi-*"))
    assert sum(name.endswith("_stack.h5") for name in contents(root)) == 1
    return contents(root), [x for x in shown.out.splitlines() if "took" not in x]


def refuse(*_):
    raise AssertionError


def test_a_matrix_is_read_once_for_statistics_and_stack(tmp_path, capsys, monkeypatch):
    held = plant(tmp_path, 40)  # two batches, a damaged matrix
    tell_digests(tmp_path)
    monkeypatch.setattr(stacking, "read_bytes", refuse)
    found, said = stack_all(tmp_path, capsys)
    monkeypatch.undo()
    assert stack_all(tmp_path, capsys, "2") == (found, said)
    (name,) = (name for name in found if name.endswith("_stack.h5"))
    with h5py.File(tmp_path / name) as file:
        people = [text.decode() for text in file["runs/participant_id"]]
        (part,) = file["relmat"].values()
        rows, (first, second) = part["data"][:], part["edges"][:].T
    expected = [matrix[first, second] for p in sorted(held) for matrix in held[p]]
    assert people == [f"sub-{p}" for p in sorted(held) for _ in held[p]]
    assert_array_equal(rows, expected)


def full(path):
    """Each write to it fails, for there is no space left."""
    path.symlink_to("/dev/full")


@pytest.mark.parametrize("lacks", ["room", "space", "end", "file", "names"])
def test_what_is_not_kept_is_read_again(tmp_path, capsys, monkeypatch, lacks):
    plant(tmp_path, 4)
    tell_digests(tmp_path)
    expected = stack_all(tmp_path, capsys)
    reads = []
    if lacks == "room":
        usage = shutil.disk_usage(tmp_path)._replace(free=0)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    elif lacks == "space":
        monkeypatch.setattr(Spool, "begin", lambda self: full(self.path))
    elif lacks == "names":
        monkeypatch.setattr(Spool, "find", lambda self, t, n: FIND(self, t, n[1:]))
    else:
        lose_it = Path.unlink if lacks == "file" else lambda path: os.truncate(path, 9)

        def fetch(path, *where):
            if path.exists():
                lose_it(path)
            return scratch.fetch(path, *where)

        monkeypatch.setattr(stacking, "fetch", fetch)

    def read_bytes(path):
        reads.append(path)
        return READ(path)

    monkeypatch.setattr(stacking, "read_bytes", read_bytes)
    assert stack_all(tmp_path, capsys) == expected
    assert len(reads) == len(set(reads)) == 7  # of eight, one is damaged


@pytest.mark.parametrize("cell", [(2, 1), (1, 2)])
@pytest.mark.parametrize("known", [True, False])
def test_one_half_that_was_edited_is_found(tmp_path, capsys, known, cell):
    """By the digest of the sidecar, or where there is none by the other half."""
    tree, rng = Tree(tmp_path), np.random.default_rng(1)
    paths = [
        tree.run(f"sub-0{k}_task-rest", correlation(rng), fd=0.1 * k) for k in (1, 2, 3)
    ]
    if known:
        tell_digests(tmp_path)
    edit(paths[1], *cell)
    run(capsys, "x", tmp_path, "group")
    (row,) = [
        r for r in read_rows(tmp_path / "group_runs.tsv") if r["status"] != "done"
    ]
    assert row["participant_id"] == "sub-02"
    said = "not the one that its sidecar" if known else "both sides of the diagonal"
    assert said in row["reason"]
    _, n = read_square(tmp_path / group_name("relmatn"))
    assert set(n[UPPER]) == {2}


# Values of an edge or of the diagonal, and the one that cannot be a correlation.
NO_CORRELATIONS = [
    ({(1, 4): 1.5}, "1.5 in row Vis 2, column Déf 1"),
    ({(0, 5): -1.5}, "-1.5 in row Vis 1, column Node"),
    ({(4, 5): 1 + 1e-8}, "1 in row Déf 1, column Node"),
    ({(3, 3): 0.9}, "0.9 in row Mot 2, column Mot 2"),
    ({(5, 5): 1 + 1e-12}, "1 in row Node, column Node"),
    ({(2, 4): 7.0, (3, 3): -1.0}, "7 in row Mot 1, column Déf 1"),
    ({(2, 4): -7.0, (1, 1): 0.0}, "0 in row Vis 2, column Vis 2"),
]
# Edges of one series twice, as far as rounding lets tell, are left out.
ROUNDED = [
    ({(0, 1): 1.0}, 1),
    ({(0, 1): -1.0, (4, 5): 1 + 1e-10}, 2),
    ({(4, 5): 1 - 1e-13}, 1),
    ({(4, 5): -1 + 1e-11}, 0),
    ({(2, 2): np.nan}, 0),
]


@pytest.mark.parametrize("known", [True, False])
def test_values_that_are_no_correlations_are_found(tmp_path, capsys, known):
    """Also in the half that is read alone; and what rounding explains is none."""
    tree, rng = Tree(tmp_path), np.random.default_rng(2)
    cells = [case for case, _ in NO_CORRELATIONS + ROUNDED]
    for k, case in enumerate(cells, start=10):
        matrix = correlation(rng)
        for place, value in case.items():
            matrix[place] = matrix[place[::-1]] = value
        tree.run(f"sub-{k}_task-rest", matrix, fd=0.1 * k)
    if known:
        tell_digests(tmp_path)
    run(capsys, "x", tmp_path, "group")
    reasons = [r["reason"] for r in read_rows(tmp_path / "group_runs.tsv")]
    n_wrong = len(NO_CORRELATIONS)
    for reason, (_, said) in zip(reasons[:n_wrong], NO_CORRELATIONS, strict=True):
        assert f"{said} cannot be a correlation" in reason
    assert reasons[n_wrong:] == ["n/a"] * len(ROUNDED)
    (row,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert row["n_edges_identical"] == str(sum(n for _, n in ROUNDED))
    _, n = read_square(tmp_path / group_name("relmatn"))
    assert (n[0, 1], n[4, 5], n[2, 3]) == (3, 3, 5)


@pytest.mark.parametrize("known", [True, False])
def test_no_correlation_is_passed_over_to_the_last_edge(tmp_path, capsys, known):
    """Of a matrix with more edges than are worked on at a time."""
    names, rng = tuple(f"R{n}" for n in range(200)), np.random.default_rng(3)
    tree = Tree(tmp_path, names, None, None)
    whole = correlation(rng, 200)
    for person, value in enumerate([1.5, -1.5, 0.5, -1.0], start=1):
        matrix = whole.copy()
        matrix[-1, -2] = matrix[-2, -1] = value
        tree.run(f"sub-{person}_task-rest", matrix)
    tree.run("sub-5_task-rest", lose(whole, *range(150)))  # the last have values
    if known:
        tell_digests(tmp_path)
    run(capsys, "x", tmp_path, "group")
    reasons = [r["reason"] for r in read_rows(tmp_path / "group_runs.tsv")]
    for reason, said in zip(reasons[:2], ("1.5", "-1.5"), strict=True):
        assert f" {said} in row R198, column R199 cannot be a correlation" in reason
    assert reasons[2:] == ["n/a"] * 3
    _, n = read_square(tmp_path / group_name("relmatn"))
    assert (n[0, 1], n[-2, -3], n[-1, -2]) == (2, 3, 2)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_values_come_in_the_order_of_the_items(n):
    assert list(Workers(n).map(double, range(40))) == list(range(0, 80, 2))
    assert list(Workers(n).map(double, [])) == []


def test_processes_stay_from_one_table_to_the_next(planted, capsys, monkeypatch):
    root, _ = planted
    started = []

    class Watched(processes._Worker):
        def __init__(self, *settings):
            started.append(settings)
            super().__init__(*settings)

    monkeypatch.setattr(processes, "_Worker", Watched)
    run(capsys, "x", root, "group", "--n-procs", "2")  # tables, matrices, stacks
    assert len(started) == 2


def test_what_staying_processes_are_at_is_lost_with_who_waits_for_it():
    with Workers(2).at_hand() as workers:
        values = workers.map(double, range(40))
        assert next(values) == 0
        values.close()
        assert list(workers.map(double, range(7))) == list(range(0, 14, 2))
        with pytest.raises(ValueError, match="three"):
            list(workers.map(double_all_but_three, range(9)))
        found = list(workers.map(die_in_a_worker, range(20)))
        assert found == list(range(0, 40, 2))
        assert list(workers.map(double, range(3))) == [0, 2, 4]
        (executor,) = workers.staying
        with pytest.raises(ValueError, match="started for"):
            list(executor.map(double, range(3)))
        alive = [worker.process for worker in executor.pool.workers]
        assert alive
    assert not any(process.is_alive() for process in alive)


def read_more(size):
    """Take memory and give it back; pages that were fetched for that.

    Here, so that a worker has the libraries of a real one: what lies in its memory
    decides what can be kept.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_a_map_within_another_takes_none_of_its_values(tmp_path):
    """Both are numbered from 0: one would take what the other waits for."""
    there = tmp_path / "there"
    with Workers(2).at_hand() as workers:
        assert [*workers.map(double, range(3))] == [0, 2, 4]
        (pool,) = [executor.pool for executor in workers.staying]
        while sum(worker.ready for worker in pool.workers) < 2:
            assert [*workers.map(double, range(20))] == [*range(0, 40, 2)]
        outer = workers.map(wait_for, [tmp_path, there, tmp_path])
        assert next(outer) == tmp_path
        inner = workers.map(double, range(10, 16))
        found = [next(inner)]
        there.touch()
        assert [*found, *inner] == [20, 22, 24, 26, 28, 30]
        assert [*outer] == [there, tmp_path]
        assert len(pool.workers) == 2  # and they stay
        assert [*workers.map(double, range(3))] == [0, 2, 4]


def test_workers_keep_the_memory_of_one_table_for_the_next():
    sizes = [3 * 2**20 + k * 2**14 for k in range(40)]
    pages = list(Workers(2).map(read_more, sizes))
    assert sum(n > 200 for n in pages) <= 2 * 2  # each worker's first; 768 pages or so


def test_what_a_worker_died_of_is_done_here():
    """Where much has come back after it, so that memory stays bounded."""
    found = list(Workers(2).map(die_in_a_worker, range(20)))
    assert found == list(range(0, 40, 2))


@pytest.mark.parametrize("n", [1, 2])
def test_what_is_raised_is_raised(n):
    with pytest.raises(ValueError, match="three"):
        list(Workers(n).map(double_all_but_three, range(9)))


def test_workers_are_bounded():
    assert Workers.of(Running(executor="serial", n_procs=8)) == Workers(1)
    assert Workers.of(Running(n_procs=8)) == Workers(8)
    assert Workers.of(Running(n_procs=8, mem_mb=700)) == Workers(3)
    assert Workers.of(Running(n_procs=8, mem_mb=200)) == Workers(1)


def test_memory_is_given_back_where_that_can_be_asked_for(monkeypatch):
    asked = []

    class Library:
        def __init__(self, name):
            assert name is None

        @staticmethod
        def malloc_trim(kept):
            asked.append(kept)

    monkeypatch.setattr(workers.ctypes, "CDLL", Library)
    workers.give_memory_back()
    assert asked == [0]
    monkeypatch.delattr(Library, "malloc_trim")  # as of another library than glibc
    workers.give_memory_back()
    assert asked == [0]
