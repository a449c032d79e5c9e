"""Workers killed, hung and interrupted while they read, with real signals."""

import os
import signal
import threading
from pathlib import Path

import pytest
from support import long_runs
from support.calls import run
from support.long_runs import descendants, end, leftovers, outputs, start, worker_at
from support.once import make_once

from bids_roi.outputs.records import read_all_records

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fdinfo").is_dir(),
    reason="who reads what is seen in /proc",
)


@pytest.fixture(autouse=True)
def _nothing_left():
    yield
    long_runs.end_all()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three long runs, the atlas, and the outputs of an undisturbed call."""
    return make_once(tmp_path_factory, "long", long_runs.make_data)


@pytest.fixture
def out(data, request):
    return long_runs.place_out(data[0], request.node.name)


def states(out):
    return {r.run[:6]: r.status for r in read_all_records(out)}


def test_a_worker_killed_once_costs_nothing(data, out):
    root, atlas, undisturbed = data
    job = start(root, out, atlas, "--n-procs", 2)
    os.kill(worker_at(job, "sub-02"), signal.SIGKILL)
    code, _, err = end(job)
    assert (code, "Traceback" in err) == (0, False), err
    assert outputs(out) == undisturbed


def go_on(capsys, data, out):
    """Give the same command, in this process, as nothing happens to it; what it said.

    The outputs are then those of an undisturbed call.
    """
    root, atlas, undisturbed = data
    said = run(capsys, root, out, *long_runs.PLAIN, "--atlas-file", atlas).out
    assert outputs(out) == undisturbed
    return said


def test_a_worker_killed_twice_costs_its_run(data, out, capsys):
    root, atlas, _ = data
    job = start(root, out, atlas, "--n-procs", 2)
    first = worker_at(job, "sub-02")
    os.kill(first, signal.SIGKILL)
    long_runs.wait_until_gone([first])
    os.kill(worker_at(job, "sub-02"), signal.SIGKILL)
    code, said, err = end(job)
    assert code == 1
    assert states(out) == {"sub-01": "done", "sub-02": "failed", "sub-03": "done"}
    for words in ("died (SIGKILL, 2 attempts)", "--n-procs", "--mem-mb", "sub-02"):
        assert words in err
    assert "2  extracted" in said
    assert "1  failed" in said
    assert not leftovers(out)
    # The same command does what is missing, and nothing else.
    said = go_on(capsys, data, out)
    assert "1  extracted" in said
    assert "2  already there" in said


def test_a_hung_worker_is_given_up(data, out):
    root, atlas, _ = data
    one = ["--participant-label", "01", "--run-timeout", 3]
    job = start(root, out, atlas, *one)
    stopped = worker_at(job)
    os.kill(stopped, signal.SIGSTOP)
    code, _, err = end(job)
    assert code == 1
    assert states(out) == {"sub-01": "failed"}
    assert "not done after 3 s (--run-timeout)" in err
    assert not long_runs.is_alive(stopped)
    assert not leftovers(out)


@pytest.mark.parametrize(
    ("executor", "number", "code", "word"),
    [
        ("processes", signal.SIGINT, 130, "interrupted"),
        ("processes", signal.SIGTERM, 143, "terminated (SIGTERM)"),
        ("serial", signal.SIGINT, 130, "interrupted"),
    ],
)
def test_stopped_in_the_middle(data, out, capsys, executor, number, code, word):
    root, atlas, _ = data
    job = start(root, out, atlas, "--executor", executor, "--n-procs", 2)
    watched = worker_at(job)
    below = descendants(job.pid)
    # As a terminal does, and as SLURM does: to every process of the job.
    os.killpg(job.pid, number)
    found, _, err = end(job)
    assert found == code, err
    assert f"bids_roi: {word}; run the same command to go on." in err
    assert "Traceback" not in err
    assert len(err.splitlines()) < 5, err
    long_runs.wait_until_gone([watched, *below])
    assert not leftovers(out)
    go_on(capsys, data, out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_once_more_while_a_worker_does_not_end(data, out, number):
    root, atlas, _ = data
    job = start(root, out, atlas, "--n-procs", 2)
    hung = worker_at(job)
    os.kill(hung, signal.SIGSTOP)
    others = set(long_runs.workers(job)) - {hung}
    os.kill(job.pid, number)
    long_runs.wait_until_gone(others)  # so the command waits for the hung one
    os.kill(job.pid, number)
    code, _, err = end(job)
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], err
    assert "Traceback" not in err
    long_runs.wait_until_gone([hung])
    assert not leftovers(out)


def test_all_killed_at_once(data, out):
    root, atlas, undisturbed = data
    job = start(root, out, atlas, "--n-procs", 2)
    worker_at(job, "sub-02")
    below = descendants(job.pid)
    os.killpg(job.pid, signal.SIGKILL)
    end(job)
    # Who is killed while the disk takes what it wrote ends when that is done.
    long_runs.wait_until_gone(below)
    code, _, err = end(start(root, out, atlas, "--n-procs", 2))
    assert code == 0, err
    assert outputs(out) == undisturbed


def test_workers_do_not_outlive_the_command(data, out):
    root, atlas, _ = data
    job = start(root, out, atlas, "--n-procs", 2)
    worker_at(job, "sub-01")
    below = descendants(job.pid)
    os.kill(job.pid, signal.SIGKILL)
    # A reader keeps the pipes of the job open as long as a worker has them.
    drain = threading.Thread(target=job.communicate, daemon=True)
    drain.start()
    long_runs.wait_until_gone(below)
    drain.join()
    assert not [process for process in below if long_runs.is_alive(process)]
