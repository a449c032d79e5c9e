"""Items on Dask: workers of this machine, of a running scheduler, or SLURM jobs.

Home of dask, distributed and dask-jobqueue, all imported when they are asked for. As
many items are handed in as there are threads, so that none waits on a worker which is
then lost: Dask counts the loss against all items that the worker had.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import pickle
import subprocess
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from bids_roi.errors import BidsRoiError, UsageError
from bids_roi.schedule.outcome import (
    Outcome,
    attempt_packed,
    lost_worker,
    out_of_time,
)
from bids_roi.schedule.threads import block_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import ModuleType

    from distributed import Client, Future


log = logging.getLogger("bids_roi")

Item = TypeVar("Item")
Value = TypeVar("Value")

# How often workers are counted and deadlines looked at while nothing happens, s.
_POLL = 1.0
# How often SLURM is asked to replace jobs that ended, s.
_REFILL = 10.0
_SETTINGS = {
    # Dask would hand the items of a lost node to the next worker of that node, which
    # it does not know for lost yet, and count that too. So they are tried again here.
    "distributed.scheduler.allowed-failures": 0,
}


def map_dask(
    function: Callable[[Item], Value],
    items: Iterator[Item],
    *,
    n_workers: int,
    memory_bytes: int | None = None,
    scheduler: str | None = None,
    run_timeout: float | None = None,
) -> Iterator[Outcome[Item, Value]]:
    """Apply a function to each item on Dask.

    Parameters
    ----------
    function, items
        Picklable.
    n_workers, memory_bytes
        Processes of a cluster on this machine, and the memory of all of them.
    scheduler
        Address of a running scheduler, or the JSON file that it wrote, instead.
    run_timeout
        Seconds for an item; its worker is started anew then.

    Raises
    ------
    UsageError
        If Dask is not installed, or the scheduler does not answer.
    """
    dask, distributed = _load("dask"), _load("distributed")
    with dask.config.set(_SETTINGS), contextlib.ExitStack() as stack:
        if scheduler is None:
            # Ctrl-C is for us alone; threads and processes inherit the block.
            with block_interrupts():
                cluster = distributed.LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,
                    memory_limit=memory_bytes // n_workers if memory_bytes else 0,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
            stack.enter_context(cluster)
            client = distributed.Client(cluster)
        else:
            client = _connect(distributed, scheduler)
        stack.enter_context(client)
        yield from _map_client(client, function, items, run_timeout)


def map_slurm(
    function: Callable[[Item], Value],
    items: Iterator[Item],
    *,
    n_jobs: int,
    asked: Mapping[str, Any],
    log_dir: Path | None = None,
    run_timeout: float | None = None,
) -> Iterator[Outcome[Item, Value]]:
    """Apply a function to each item in SLURM jobs, through dask-jobqueue.

    Parameters
    ----------
    function, items
        Picklable.
    n_jobs
        Jobs at the same time, no more than there are items for.
    asked
        ``queue``, ``account``, ``walltime``, ``cores`` (runs at a time in a job) and
        ``memory`` of a job. What is ``None`` is left to dask-jobqueue's YAML files.
    log_dir
        For the jobs' own output, where the YAML names no folder.
    run_timeout
        Seconds for an item; its worker is started anew then.

    Raises
    ------
    UsageError
        If dask-jobqueue is not installed, or SLURM refuses the jobs.
    """
    dask, jobqueue = _load("dask"), _load("dask_jobqueue")
    distributed = _load("distributed")
    with dask.config.set(_SETTINGS), contextlib.ExitStack() as stack:
        settings = _job_settings(dask.config.get("jobqueue.slurm", {}), asked, log_dir)
        n_runs = settings["processes"]
        head = list(itertools.islice(items, n_jobs * n_runs))
        n_jobs = min(n_jobs, -(-len(head) // n_runs))
        if not head:
            return
        try:
            cluster = jobqueue.SLURMCluster(**settings, silence_logs=logging.CRITICAL)
        except (OSError, ValueError) as error:
            msg = f"dask-jobqueue cannot make jobs of the settings ({error})."
            remedy = "Check its YAML files (~/.config/dask/jobqueue.yaml)."
            raise UsageError(msg, remedy=remedy) from error
        stack.enter_context(cluster)
        _check_job(cluster.job_script())
        client = stack.enter_context(distributed.Client(cluster))
        cluster.scale(jobs=n_jobs)
        yield from _map_client(
            client,
            function,
            itertools.chain(head, items),
            run_timeout,
            # Jobs that reached their walltime or lost their node are sent anew.
            refill=lambda: cluster.scale(jobs=n_jobs),
        )


def _job_settings(
    written: Mapping[str, Any], asked: Mapping[str, Any], log_dir: Path | None
) -> dict[str, Any]:
    """What SLURMCluster is told: flags, and defaults where the YAML has nothing."""
    settings = {key: value for key, value in asked.items() if value is not None}
    cores = settings.get("cores") or written.get("cores") or 1
    settings.setdefault("cores", cores)
    # A run uses one thread; a process for each, unless the YAML counts otherwise.
    if asked.get("cores"):
        settings["processes"] = cores
    else:
        settings["processes"] = written.get("processes") or cores
    if not written.get("memory"):
        settings.setdefault("memory", f"{settings['processes']}GB")
    # No web page: several calls on one login node would fight for its port.
    quiet = {"dashboard_address": None, **(written.get("scheduler-options") or {})}
    settings["scheduler_options"] = quiet
    if log_dir is not None and not written.get("log-directory"):
        settings["log_directory"] = str(log_dir)
    return settings


def _check_job(script: str) -> None:
    """Ask SLURM whether it would take a job: a refusal later is only a log message."""
    try:
        done = subprocess.run(
            ["sbatch", "--test-only"],  # noqa: S607 - SLURM is where PATH says
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        msg = f"sbatch cannot be run here ({error.strerror})."
        remedy = "Run --executor slurm where jobs are submitted, for instance on a"
        raise UsageError(msg, remedy=f"{remedy} login node.") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        msg = f"SLURM does not take the jobs ({lines[-1]})."
        remedy = (
            "Check --slurm-partition, --slurm-account, --slurm-walltime, --mem-mb and"
            " --n-procs, and what dask-jobqueue's YAML files say."
        )
        raise UsageError(msg, remedy=remedy)


def _map_client(
    client: Client,
    function: Callable[[Item], Value],
    items: Iterator[Item],
    run_timeout: float | None,
    refill: Callable[[], object] = lambda: None,
) -> Iterator[Outcome[Item, Value]]:
    """Yield outcomes; an item whose worker was lost is tried again after the others."""
    lost: list[Item] = []
    for outcome in _work(client, function, items, run_timeout, refill):
        if isinstance(outcome.error, _Lost):
            lost.append(outcome.item)
        else:
            yield outcome
    for outcome in _work(client, function, iter(lost), run_timeout, refill):
        if isinstance(outcome.error, _Lost):
            yield Outcome(outcome.item, None, lost_worker(None))
        else:
            yield outcome


class _Lost(Exception):
    """The worker of an item is gone."""


def _work(
    client: Client,
    function: Callable[[Item], Value],
    items: Iterator[Item],
    run_timeout: float | None,
    refill: Callable[[], object],
) -> Iterator[Outcome[Item, Value]]:
    from distributed import wait

    running: dict[Future, Item] = {}
    started: dict[str, float] = {}
    ahead: deque[Item] = deque()
    more, refilled = True, time.monotonic()
    try:
        while True:
            n_free = max(1, sum(client.nthreads().values())) - len(running)
            while ahead and n_free > 0:
                item, n_free = ahead.popleft(), n_free - 1
                packed = pickle.dumps((function, item))
                running[client.submit(attempt_packed, packed, pure=False)] = item
            if more and len(ahead) < max(1, len(running)):
                # Planning goes on while the workers work.
                try:
                    ahead.append(next(items))
                except StopIteration:
                    more = False
            elif not (running or ahead):
                return
            else:
                with contextlib.suppress(TimeoutError):
                    wait(list(running), _POLL, return_when="FIRST_COMPLETED")
            for future in [future for future in running if future.done()]:
                yield _outcome_of(future, running.pop(future))
            if run_timeout is not None:
                for future in _overdue(client, running, started, run_timeout):
                    yield Outcome(running.pop(future), None, out_of_time(run_timeout))
            if time.monotonic() - refilled > _REFILL:
                refill()
                refilled = time.monotonic()
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            client.cancel(list(running), force=True)


def _outcome_of(future: Future, item: Item) -> Outcome[Item, Any]:
    from distributed import KilledWorker

    if future.status == "finished":
        return Outcome(item, *pickle.loads(future.result()))  # noqa: S301 - our own
    if future.status == "cancelled":
        msg = "the connection to the Dask scheduler was lost."
        raise BidsRoiError(msg, remedy="Run the same command again to go on.")
    error = future.exception()
    if isinstance(error, KilledWorker):
        return Outcome(item, None, _Lost())
    if isinstance(error, ImportError):
        # The function itself does not raise: the worker could not get hold of it.
        msg = f"the workers of the Dask scheduler cannot load bids_roi ({error})."
        remedy = "Install the same version of bids_roi in their environment."
        raise UsageError(msg, remedy=remedy)
    return Outcome(item, None, error)


def _overdue(
    client: Client,
    running: Mapping[Future, Any],
    started: dict[str, float],
    run_timeout: float,
) -> list[Future]:
    """Give up the items that take too long, and start their workers anew."""
    now = time.monotonic()
    where = {
        key: address for address, keys in client.processing().items() for key in keys
    }
    overdue = []
    for future in running:
        if future.key not in where:
            continue  # it waits for a worker
        if now - started.setdefault(future.key, now) < run_timeout:
            continue
        overdue.append(future)
        future.cancel(force=True)
        with contextlib.suppress(Exception):
            client.restart_workers(
                [where[future.key]], timeout=10, raise_for_error=False
            )
    return overdue


def _connect(distributed: ModuleType, scheduler: str) -> Client:
    try:
        if scheduler.endswith(".json"):
            return distributed.Client(scheduler_file=scheduler)
        return distributed.Client(scheduler)
    except (OSError, ValueError, TimeoutError) as error:
        msg = f"no Dask scheduler answers ({_first_line(error)})."
        remedy = "Check --dask-scheduler, and that it can be reached from this machine."
        raise UsageError(msg, where=scheduler, remedy=remedy) from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def _load(module: str) -> ModuleType:
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        msg = f"--executor dask and slurm need the package {error.name or module}."
        remedy = "Install it with: pip install 'bids_roi[dask]'"
        raise UsageError(msg, remedy=remedy) from error
    # Its messages are of connections and heartbeats; ours are of runs.
    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return loaded
