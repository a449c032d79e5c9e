"""Dask: a cluster of our own and one that runs already, killed workers, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support import datasets, long_runs
from support.long_runs import end, leftovers, outputs, start, worker_at
from support.once import make_once
from support.worker_items import (
    retry_is_alone,
    retry_is_first,
    take_an_hour_at_one,
    wait_and_fail,
)

default_client = pytest.importorskip(
    "distributed", reason="the extra 'dask' is not installed"
).default_client


@pytest.fixture(autouse=True)
def _nothing_left():
    yield
    long_runs.end_all()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three long runs, the atlas, and the outputs of a call without Dask."""
    return make_once(tmp_path_factory, "long", long_runs.make_data)


@pytest.fixture
def out(data, request):
    return long_runs.place_out(data[0], request.node.name)


def test_cluster_of_its_own_with_a_worker_killed(data, out):
    root, atlas, undisturbed = data
    job = start(root, out, atlas, "--executor", "dask", "--n-procs", 2)
    os.kill(worker_at(job, seconds=120), signal.SIGKILL)
    code, said, err = end(job, seconds=120)
    assert code == 0, err
    assert "3  extracted" in said
    assert "Traceback" not in err
    assert outputs(out) == undisturbed


def test_nothing_begins_while_a_failure_waits_to_be_looked_at(tmp_path):
    from bids_roi.schedule.cluster import Dask

    bad, good, more = items = [tmp_path / name for name in ("bad", "good", "more")]
    good.touch()
    more.touch()
    outcomes = Dask(2).map(wait_and_fail, iter(items), eager=False)
    assert next(outcomes).item == good
    bad.touch()
    limit = time.monotonic() + 60
    while any(f.status == "pending" for f in default_client().futures.values()):
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert next(outcomes).item == bad
    outcomes.close()
    assert sorted(p.stem for p in tmp_path.glob("*.begun")) == ["bad", "good"]


def test_nothing_begins_before_who_lost_its_worker_was_tried_again(tmp_path):
    from bids_roi.schedule.cluster import Dask

    retry_is_first(Dask(1), tmp_path)


def test_who_lost_its_worker_is_tried_again_alone(tmp_path):
    from bids_roi.schedule.cluster import Dask

    retry_is_alone(Dask(2), tmp_path)


def test_an_item_that_took_longer_is_a_failure():
    from bids_roi.schedule.cluster import Dask

    outcomes = list(Dask(1, timeout=1800).map(take_an_hour_at_one, range(4)))
    assert sorted(o.value for o in outcomes if not o.error) == [0, 2, 3]
    (failed,) = [o for o in outcomes if o.error]
    assert failed.item == 1
    assert str(failed.error).startswith("not done after 1800 s (--run-timeout)")


def test_interrupted(data, out):
    root, atlas, _ = data
    job = start(root, out, atlas, "--executor", "dask", "--n-procs", 2)
    worker_at(job, seconds=120)
    below = long_runs.descendants(job.pid)
    os.killpg(job.pid, signal.SIGINT)
    code, _, err = end(job, seconds=120)
    assert code == 130, err
    assert "bids_roi: interrupted; run the same command to go on." in err
    assert "Traceback" not in err
    long_runs.wait_until_gone(below)
    assert not leftovers(out)


@pytest.mark.parametrize("reached", ["command", "everything"])
def test_terminated_while_workers_start(data, reached):
    root, atlas, _ = data
    out = long_runs.place_out(root, f"terminated-{reached}")
    job = start(root, out, atlas, "--executor", "dask", "--n-procs", 2)
    while not (begun := long_runs.workers(job)):
        assert job.poll() is None, job.communicate()
        time.sleep(0.01)
    (os.kill if reached == "command" else os.killpg)(job.pid, signal.SIGTERM)
    code, _, err = end(job)
    assert code == 143, err
    assert "bids_roi: terminated (SIGTERM); run the same command to go on." in err
    assert "Traceback" not in err
    long_runs.wait_until_gone(begun)


def test_interrupted_once_more_while_a_worker_does_not_end(data, out):
    root, atlas, _ = data
    job = start(root, out, atlas, "--executor", "dask", "--n-procs", 2)
    hung = worker_at(job, seconds=120)
    os.kill(hung, signal.SIGSTOP)
    others = set(long_runs.workers(job)) - {hung}
    os.kill(job.pid, signal.SIGINT)
    long_runs.wait_until_gone(others)  # so the command waits for the hung one
    os.kill(job.pid, signal.SIGINT)
    code, _, err = end(job)
    assert code == 130, err
    assert "Traceback" not in err
    long_runs.wait_until_gone([hung])
    assert not leftovers(out)


def test_running_scheduler(data, out, tmp_path):
    root, atlas, undisturbed = data
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    place = ["--scheduler-file", str(file)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    host = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen([*dask, "scheduler", *place, *host], **quiet)
    lines = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path)]
    worker = subprocess.Popen([*dask, "worker", *place, *lines], **quiet)
    try:
        limit = time.monotonic() + 30
        while not file.exists():
            assert time.monotonic() < limit, "the scheduler does not start"
            time.sleep(0.05)
        more = ["--executor", "dask", "--dask-scheduler", file]
        code, said, err = end(start(root, out, atlas, *more))
        assert code == 0, err
        assert "3  extracted" in said
        assert outputs(out) == undisturbed
        assert scheduler.poll() is None, "it is not ours to end"
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.wait()


def test_no_scheduler_answers(tmp_path, dataset, atlas, app):
    file = tmp_path / "scheduler.json"
    file.write_text('{"address": "tcp://127.0.0.1:9"}')
    more = ["--executor", "dask", "--dask-scheduler", file]
    env = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "200ms"}
    out = tmp_path / "out"
    words = [dataset, out, "participant", "--atlas-file", atlas, *more]
    done = app(*words, env=env)
    assert done.returncode == 64, done.stderr
    assert "no Dask scheduler answers" in done.stderr
    assert "Check --dask-scheduler" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("executor", "absent"),
    [("dask", "distributed"), ("slurm", "dask_jobqueue"), ("dask", "cryptography")],
)
def test_absent_packages(tmp_path, dataset, atlas, executor, absent):
    code = (
        f"import sys; sys.modules['{absent}'] = None; from bids_roi.cli import main;"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words), "--executor", executor],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 64, done.stderr
    assert f"need the package {absent}" in done.stderr
    assert "pip install 'bids_roi[dask]'" in done.stderr
    assert not list((tmp_path / "out").rglob("*.tsv"))


def test_nothing_of_dask_is_loaded_without_need(tmp_path, dataset, atlas):
    code = (
        "import sys; from bids_roi.cli import main; main(sys.argv[1:]);"
        "print({'dask', 'distributed', 'dask_jobqueue'} & set(sys.modules))"
    )
    words = [dataset, tmp_path / "out", *long_runs.PLAIN, "--atlas-file", atlas]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
    assert datasets.snapshot(tmp_path / "out")
