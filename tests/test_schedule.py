"""Executors: the same outcomes here and in workers, also when one is killed."""

import os
import signal
import time

import datasets
import pytest
from test_participant import run

from bids_roi.app import budget
from bids_roi.app.budget import block_bytes, usable_cpus, worker_count
from bids_roi.app.schedule import map_items
from bids_roi.errors import UsageError
from bids_roi.io.stream import VolumeSource
from bids_roi.options.record import Options


def double(x):
    if x == 3:
        msg = "three"
        raise ValueError(msg)
    return 2 * x


def die_at_four(x):
    if x == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return x


@pytest.mark.parametrize("n_workers", [1, 2])
def test_every_item_has_an_outcome(n_workers):
    outcomes = list(map_items(double, iter(range(6)), n_workers=n_workers))
    values = {outcome.item: outcome.value for outcome in outcomes}
    assert values == {0: 0, 1: 2, 2: 4, 3: None, 4: 8, 5: 10}
    (failed,) = [outcome for outcome in outcomes if outcome.error]
    assert isinstance(failed.error, ValueError)
    assert failed.item == 3


def test_a_killed_worker_costs_its_item_only():
    outcomes = list(map_items(die_at_four, range(8), n_workers=2))
    assert sorted(o.item for o in outcomes) == list(range(8))
    assert [o.item for o in outcomes if o.error] == [4]


def test_items_are_taken_a_few_at_a_time():
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    outcomes = map_items(double, items(), n_workers=2)
    next(outcomes)
    assert len(taken) < 10
    outcomes.close()


def test_bytes_do_not_depend_on_workers_or_memory(tmp_path, atlas, capsys):
    names = [f"sub-0{n}_task-rest" for n in (1, 2, 3)]
    root = datasets.write_dataset(tmp_path / "in", names)
    ways = {
        "one": ["--n-procs", 1],
        "two": ["--n-procs", 2],
        "small": ["--n-procs", 1, "--mem-mb", 200],
    }
    found = {}
    for way, options in ways.items():
        out = tmp_path / way
        run(capsys, root, out, "participant", "--atlas-file", atlas, *options)
        snapshot = datasets.snapshot(out)
        found[way] = {k: v for k, v in snapshot.items() if not k.startswith("logs/")}
        assert [k for k in snapshot if k.startswith("logs/")]
    assert found["one"] == found["two"] == found["small"]


SOURCE = VolumeSource(None, 352, "<f4", 97 * 115 * 97, 300, compressed=True)


def test_memory_bounds_blocks_and_workers(monkeypatch):
    monkeypatch.setattr(budget, "usable_cpus", lambda: 8)
    assert worker_count(Options()) == 8
    assert worker_count(Options(n_procs=3)) == 3
    assert worker_count(Options(mem_mb=1000)) == 5
    assert worker_count(Options(mem_mb=200)) == 1
    assert block_bytes(SOURCE, Options()) == 16 * 2**20
    small = block_bytes(SOURCE, Options(n_procs=1, mem_mb=200))
    assert SOURCE.volume_bytes <= small < 16 * 2**20


def test_too_little_memory_says_how_much_is_needed():
    huge = VolumeSource(None, 352, "<f8", 400**3, 300, compressed=True)
    with pytest.raises(UsageError, match=r"needs about \d+ MB, 500 MB are given"):
        block_bytes(huge, Options(n_procs=1, mem_mb=500))


def test_slurm_bounds_the_processors(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert usable_cpus() == 1


def test_cgroup_bounds_the_processors(tmp_path):
    assert budget._cgroup_cpus(tmp_path) == 0
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert budget._cgroup_cpus(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert budget._cgroup_cpus(tmp_path) == 0
