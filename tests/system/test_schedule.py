"""Executors: the same outcomes everywhere, also when a worker is killed or hangs."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection
from types import SimpleNamespace

import pytest
from support import datasets
from support.calls import run
from support.worker_items import (
    die_at_four,
    die_once,
    die_once_beside,
    double,
    double_all_but_three,
    end_by,
    hang_at_one,
    raise_oddly,
    retry_is_alone,
    retry_is_first,
    sleep_at_one,
    take_an_hour_at_one,
    wait_and_fail,
    wait_for,
)

from bids_roi.errors import BidsRoiError, MissingInput, UsageError
from bids_roi.images import stream
from bids_roi.images.stream import VolumeSource
from bids_roi.options.record import Options
from bids_roi.outputs.records import read_all_records
from bids_roi.participant import extraction
from bids_roi.participant.extraction import block_bytes, threads_per_run, worker_count
from bids_roi.participant.level import choose_executor
from bids_roi.schedule import outcome, processes
from bids_roi.schedule.outcome import Serial, usable_cpus
from bids_roi.schedule.processes import Processes

TWO = Processes(2)


@pytest.mark.parametrize("executor", [Serial(), Processes(1), TWO])
def test_every_item_has_an_outcome(executor):
    outcomes = list(executor.map(double_all_but_three, iter(range(6))))
    values = {outcome.item: outcome.value for outcome in outcomes}
    assert values == {0: 0, 1: 2, 2: 4, 3: None, 4: 8, 5: 10}
    (failed,) = [outcome for outcome in outcomes if outcome.error]
    assert isinstance(failed.error, ValueError)
    assert failed.item == 3
    # The traceback comes home, too.
    assert "raise ValueError(msg)" in failed.trace


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_killed_worker_costs_its_item_only(n_workers):
    executor = Processes(n_workers)
    outcomes = list(executor.map(die_at_four, range(8)))
    assert sorted(o.item for o in outcomes) == list(range(8))
    (failed,) = [o for o in outcomes if o.error]
    assert failed.item == 4
    assert isinstance(failed.error, BidsRoiError)
    assert "the worker process died (SIGKILL, 2 attempts)." in str(failed.error)


def test_an_item_is_tried_once_more_when_the_others_are_done(tmp_path):
    items = [tmp_path / "first", None, None, None]
    outcomes = list(TWO.map(die_once, items))
    assert [o.error for o in outcomes] == [None] * 4
    assert outcomes[-1].value == items[0]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (
            signal.SIGKILL,
            "(SIGKILL, 2 attempts). Most likely memory ran out: lower --n-procs",
        ),
        (
            signal.SIGTERM,
            "(SIGTERM, 2 attempts). That is how a cluster ends a job at",
        ),
        (signal.SIGSEGV, "(SIGSEGV, 2 attempts). Compiled code crashed"),
    ],
)
def test_what_probably_happened(number, words):
    outcomes = list(TWO.map(end_by, [number, 0]))
    assert [o.item for o in outcomes if not o.error] == [0]
    (failed,) = [o for o in outcomes if o.error]
    assert words in str(failed.error)


@pytest.mark.parametrize(
    ("function", "executor"),
    [
        (hang_at_one, Processes(2, timeout=1)),
        (sleep_at_one, Serial(timeout=0.3)),
    ],
)
def test_a_hung_item_is_given_up(function, executor):
    outcomes = list(executor.map(function, range(4)))
    assert sorted(o.item for o in outcomes if not o.error) == [0, 2, 3]
    (failed,) = [o for o in outcomes if o.error]
    assert "(--run-timeout), and given up." in str(failed.error)


@pytest.mark.parametrize("executor", [Serial(timeout=1800), Processes(1, 1800)])
@pytest.mark.parametrize("thread", ["main", "other"])
def test_an_item_that_took_longer_is_a_failure(executor, thread, monkeypatch):
    """By the clock of who worked at it, also where nobody could end it."""
    monkeypatch.setattr(outcome, "time", time)  # and back again afterwards
    with ThreadPoolExecutor(1) as other:
        made = executor.map(take_an_hour_at_one, range(4))
        outcomes = list(made) if thread == "main" else other.submit(list, made).result()
    assert sorted(o.value for o in outcomes if not o.error) == [0, 2, 3]
    (failed,) = [o for o in outcomes if o.error]
    assert (failed.item, failed.value) == (1, None)
    assert str(failed.error).startswith("not done after 1800 s (--run-timeout)")


def test_a_run_that_took_longer_is_recorded_as_failed(
    dataset, atlas, tmp_path, capsys, monkeypatch
):
    """The same command with more time makes it again."""
    out = tmp_path / "out"
    words = [dataset, out, "participant", "--atlas-file", atlas]
    words += ["--participant-label", "01", "--run-timeout", "1800"]
    hours = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: 3600 * next(hours))
    with monkeypatch.context() as patched:
        patched.setattr(outcome, "time", clock)
        said = run(capsys, *words, code=1)
    assert "not done after 1800 s (--run-timeout), and given up." in said.err
    assert {record.status for record in read_all_records(out)} == {"failed"}
    assert "1  extracted" in run(capsys, *words).out
    assert {record.status for record in read_all_records(out)} == {"done"}


def test_a_single_item_with_a_limit_has_a_worker():
    (outcome,) = Processes(timeout=0.3).map(hang_at_one, [1])
    assert "--run-timeout" in str(outcome.error)


def test_an_exception_that_cannot_travel_is_told_in_words():
    outcomes = list(TWO.map(raise_oddly, [1, 2]))
    assert sorted(str(o.error) for o in outcomes) == [
        "OddError: 1 odd",
        "OddError: 2 odd",
    ]


def test_items_are_taken_a_few_at_a_time():
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    outcomes = TWO.map(double, items())
    next(outcomes)
    assert len(taken) < 10
    outcomes.close()


def test_what_a_value_travelled_as_is_not_held_beside_it():
    size, held = 10**7, []
    tracemalloc.start()
    try:
        for found in Processes(2).map(bytes, [size, size]):
            assert found.value == bytes(size)
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert size < held[0] < 1.5 * size


@pytest.fixture
def planned(tmp_path):
    """Items, each of which is done once the one after it is planned."""
    paths = [tmp_path / f"{number}" for number in range(9)]

    def items():
        for path in paths:
            yield path
            path.touch()

    return items()


def test_a_worker_does_not_wait_for_what_becomes_of_its_value(planned):
    with Processes(1).staying(wait_for) as executor:
        outcomes = executor.map(wait_for, planned)
        at_work = [len(executor.pool.workers[0].items) for _ in outcomes]
    assert len(at_work) == 9
    assert sum(at_work) >= 7  # two are planned before the first begins


@pytest.mark.parametrize("executor", [Serial(), Processes(1)])
def test_nothing_begins_before_an_outcome_has_been_looked_at(executor, tmp_path):
    items = [tmp_path / name for name in ("good", "bad", "one", "more")]
    for path in items:
        path.touch()
    with contextlib.ExitStack() as stack:
        if isinstance(executor, Processes):
            executor = stack.enter_context(executor.staying(wait_and_fail))
        for found in executor.map(wait_and_fail, iter(items), eager=False):
            if isinstance(executor, Processes):
                (worker,) = executor.pool.workers
                assert not worker.items
            if found.error:
                break
    assert found.item.name == "bad"
    assert sorted(p.stem for p in tmp_path.glob("*.begun")) == ["bad", "good"]


def test_nothing_begins_while_a_failure_waits_to_be_looked_at(tmp_path):
    """It fails while the outcome of another worker is in use."""
    bad, good, more = items = [tmp_path / name for name in ("bad", "good", "more")]
    good.touch()
    more.touch()
    with Processes(2).staying(wait_and_fail) as executor:
        outcomes = executor.map(wait_and_fail, iter(items), eager=False)
        assert next(outcomes).item == good
        bad.touch()
        (worker,) = [w for w in executor.pool.workers if w.items]
        connection.wait([worker.pipe])
        assert next(outcomes).item == bad
        assert not [worker for worker in executor.pool.workers if worker.items]
        outcomes.close()


def test_nothing_begins_before_who_lost_its_worker_was_tried_again(tmp_path):
    retry_is_first(Processes(1), tmp_path)


def test_who_lost_its_worker_is_tried_again_alone(tmp_path):
    with Processes(2).staying(die_once_beside) as executor:
        retry_is_alone(executor, tmp_path)


def test_no_run_begins_after_the_first_that_fails(
    dataset, atlas, tmp_path, capsys, monkeypatch
):
    begun, true = [], processes._Worker.hand_over
    monkeypatch.setattr(
        processes._Worker,
        "hand_over",
        lambda worker, item, s: begun.append(item) or true(worker, item, s),
    )
    min(dataset.rglob("sub-01*_bold.nii.gz")).write_bytes(b"")
    words = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    words += ["--n-procs", 1, "--stop-on-first-crash"]
    said = run(capsys, *words, code=1)
    assert [item.run.relative_path[:6] for item in begun] == ["sub-01"]
    assert "1  failed" in said.out


def test_who_takes_the_outcomes_may_take_longer_than_an_item_may(monkeypatch, planned):
    """What is done in time is not given up because nobody has looked at it."""
    now, n_late = [0.0], 0
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(processes, "time", clock)
    with Processes(1, timeout=60).staying(wait_for) as executor:
        for outcome in executor.map(wait_for, planned):
            assert outcome.error is None
            (worker,) = executor.pool.workers
            for path in worker.items:
                path.touch()
                connection.wait([worker.pipe])  # it has done the next one
                n_late += 1
            now[0] += 61
    assert n_late >= 7


def test_each_item_has_the_whole_time_limit(monkeypatch, planned):
    """Not what the item before has left of it, and not for ever."""
    now, n_timed = [0.0], 0
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(processes, "time", clock)
    with Processes(1, timeout=60).staying(wait_for) as executor:
        for outcome in executor.map(wait_for, planned):
            (worker,) = executor.pool.workers
            assert outcome.error is None
            assert worker.deadline == (now[0] + 60 if worker.items else None)
            n_timed += len(worker.items)
            now[0] += 7
    assert n_timed >= 7


def test_an_error_of_the_plan_ends_the_workers():
    def items():
        yield from (0, 1)
        msg = "no more"
        raise UsageError(msg)

    with pytest.raises(UsageError, match="no more"):
        list(TWO.map(sleep_at_one, items()))


def test_bytes_do_not_depend_on_executor_workers_or_memory(tmp_path, atlas, capsys):
    names = [f"sub-0{n}_task-rest" for n in (1, 2, 3)]
    root = datasets.write_dataset(tmp_path / "in", names)
    ways = {
        "serial": ["--executor", "serial"],
        "one": ["--n-procs", 1],
        "two": ["--n-procs", 2],
        "small": ["--n-procs", 1, "--mem-mb", 200],
    }
    found = {}
    for way, options in ways.items():
        out = tmp_path / way
        words = [root, out, "participant", "--no-report", "--atlas-file", atlas]
        run(capsys, *words, *options)
        snapshot = datasets.snapshot(out)
        found[way] = {k: v for k, v in snapshot.items() if not k.startswith("logs/")}
        assert [k for k in snapshot if k.startswith("logs/")]
    assert found["serial"] == found["one"] == found["two"] == found["small"]


@pytest.mark.parametrize("level", ["participant", "group"])
def test_one_thread_of_linear_algebra(dataset, atlas, tmp_path, level):
    code = (
        "import os, sys; from bids_roi.cli import main; from bids_roi.schedule import"
        " outcome; pin = outcome.pin_threads;"
        "outcome.pin_threads = lambda: (print('numpy' in sys.modules), pin());"
        "main(sys.argv[1:]);"
        "print({k: v for k, v in os.environ.items() if k.endswith('_NUM_THREADS')})"
    )
    words = [str(dataset), str(tmp_path / "out"), level]
    if level == "participant":
        words += ["--dry-run", "--atlas-file", atlas]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "8"},
    )
    assert done.stdout.startswith("False"), done.stderr  # it would not hear of it
    for library in ("OMP", "OPENBLAS", "MKL"):
        assert f"'{library}_NUM_THREADS': '1'" in done.stdout, done.stderr


SOURCE = VolumeSource(None, 352, "<f4", 97 * 115 * 97, 300, compressed=True)


def test_memory_bounds_blocks_and_workers(monkeypatch, tmp_path):
    monkeypatch.setattr(extraction, "usable_cpus", lambda: 8)
    assert worker_count(Options()) == 8
    assert worker_count(Options.of(n_procs=3)) == 3
    # The process that plans takes the place of a worker.
    assert worker_count(Options.of(mem_mb=1000)) == 4
    assert worker_count(Options.of(mem_mb=1000, executor="serial")) == 5
    assert worker_count(Options.of(mem_mb=200)) == 1
    assert worker_count(Options.of(mem_mb=1000, space=("T1w",))) == 3
    assert block_bytes(SOURCE, Options()) == 16 * 2**20
    small = block_bytes(SOURCE, Options.of(n_procs=1, mem_mb=200))
    assert SOURCE.volume_bytes <= small < 16 * 2**20
    # Where there is no room for two processes there is one.
    assert choose_executor(Options.of(mem_mb=200), tmp_path) == Serial()
    assert choose_executor(Options.of(mem_mb=400), tmp_path) == Processes(1)


def test_threads_of_a_run_are_the_processors_left(monkeypatch):
    monkeypatch.setattr(extraction, "usable_cpus", lambda: 8)
    assert threads_per_run(Options.of(executor="serial")) == 8
    assert threads_per_run(Options.of(n_procs=2)) == 4
    # Three would be slower than ISA-L alone, or hardly faster.
    assert threads_per_run(Options.of(n_procs=3)) == 1
    assert threads_per_run(Options()) == 1
    assert threads_per_run(Options.of(executor="serial", mem_mb=4000)) == 1
    monkeypatch.setattr(extraction, "usable_cpus", lambda: 2)
    assert threads_per_run(Options.of(executor="serial")) == 1
    pytest.importorskip("rapidgzip")
    assert threads_per_run(Options.of(threads_per_run="3")) == 3


def test_threads_take_memory(monkeypatch):
    """100 MiB, and 110 MiB each: 3 of 8 GB have room for a third of the workers."""
    pytest.importorskip("rapidgzip")
    monkeypatch.setattr(extraction, "usable_cpus", lambda: 99)
    one, three = (
        worker_count(Options.of(mem_mb=8000, threads_per_run=n)) for n in ("1", "3")
    )
    least = 140 + 48
    assert one == (8000 * 10**6 / 2**20 - 140) // least
    assert three == (8000 * 10**6 / 2**20 - 140) // (least + 100 + 3 * 110)


def test_bytes_do_not_depend_on_threads(dataset, atlas, tmp_path, capsys, monkeypatch):
    rapidgzip = pytest.importorskip("rapidgzip")
    true, calls = rapidgzip.open, []
    monkeypatch.setattr(
        rapidgzip, "open", lambda path, n: calls.append(n) or true(path, n)
    )
    monkeypatch.setattr(stream, "_WORTH_THREADS", 0)
    found = []
    for n in ("1", "2"):
        words = [dataset, tmp_path / n, "participant", "--atlas-file", atlas]
        words += ["--no-report", "--executor", "serial", "--threads-per-run", n]
        run(capsys, *words)
        snapshot = datasets.snapshot(tmp_path / n)
        found.append({k: v for k, v in snapshot.items() if not k.startswith("logs/")})
    assert found[0] == found[1]
    assert calls
    assert set(calls) == {2}


@pytest.mark.parametrize("given", ["0", "-2", "many", "1.5", ""])
def test_threads_are_auto_or_a_number(given):
    with pytest.raises(UsageError, match=r"auto or a number from 1 to 999"):
        Options.of(threads_per_run=given)


def test_threads_without_rapidgzip(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingInput, match="needs rapidgzip") as told:
        Options.of(threads_per_run="4")
    assert "pip install 'bids_roi[fast]'" in str(told.value)
    assert Options.of(threads_per_run="1").running.threads_per_run == "1"
    assert Options().running.threads_per_run == "auto"


def test_too_little_memory_says_how_much_is_needed():
    huge = VolumeSource(None, 352, "<f8", 400**3, 300, compressed=True)
    with pytest.raises(UsageError, match=r"needs about \d+ MB .*, 353 MB are given"):
        block_bytes(huge, Options.of(n_procs=1, mem_mb=500))


def test_slurm_bounds_the_processors(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert usable_cpus() == 1


def test_cgroup_bounds_the_processors(tmp_path):
    assert outcome._cgroup_cpus(tmp_path) == 0
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert outcome._cgroup_cpus(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert outcome._cgroup_cpus(tmp_path) == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"run_timeout": 0.0}, "--run-timeout is in seconds, above 0"),
        ({"slurm_jobs": 0}, "--slurm-jobs is at least 1"),
        ({"slurm_account": "x"}, "for --executor slurm, not processes"),
        ({"dask_scheduler": "tcp://x:1"}, "for --executor dask, not processes"),
        (
            {"executor": "slurm", "slurm_walltime": "4h"},
            r"is \[D-\]HH:MM:SS, not '4h'",
        ),
        ({"executor": "dask", "dask_scheduler": "/no/such.json"}, "no such file"),
    ],
)
def test_options_that_cannot_be_meant(given, words):
    with pytest.raises(UsageError, match=words):
        Options.of(**given)


@pytest.mark.parametrize("walltime", ["30", "30:00", "04:00:00", "2-12", "2-12:30:00"])
def test_walltimes(walltime):
    assert Options.of(executor="slurm", slurm_walltime=walltime)


def test_an_exit_that_python_swallows_ends_the_worker_all_the_same():
    """SIGTERM within a weakref's callback, as those of imports are."""
    code = (
        "import os, signal, sys, weakref\n"
        "from bids_roi.schedule import processes\n"
        "signal.signal(signal.SIGTERM, processes._end)\n"
        "sys.unraisablehook = processes._end_anyway\n"
        "class Lock: pass\n"
        "def stop(_):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    for _ in range(1000): pass\n"
        "lock = Lock()\n"
        "reference = weakref.ref(lock, stop)\n"
        "del lock\n"
        "print('lived on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
