"""Executors on Dask: workers here, of a running scheduler, or in SLURM jobs.

Home of dask, distributed and dask-jobqueue, all imported when they are asked for. As
many items are handed in as there are threads, so that none waits on a worker which is
then lost: Dask counts the loss against all items that the worker had.

Whoever reaches a Dask scheduler can have it run anything. So those that are started
here speak TLS only, to who has the credentials that were made for this one call.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import logging
import pickle
import re
import signal
import subprocess
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bids_roi.errors import BidsRoiError, OutputError, UsageError
from bids_roi.schedule.outcome import (
    Executor,
    Outcome,
    attempt_packed,
    block_interrupts,
    lost_worker,
    no_child_left,
    out_of_time,
)

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Generator,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from types import ModuleType

    from distributed import Client, Future, Security


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


@functools.cache
def _silent(name: str) -> type:
    """Dask's ``Scheduler`` or ``Worker`` without its web server, at one address.

    No setting does that. The class is made where Dask is there, and Dask's own
    processes find it as an attribute of this module.
    """
    import distributed
    from distributed.comm import get_address_host, unparse_host_port
    from distributed.utils import get_ip

    base = getattr(distributed, name)

    def at_one_address(worker: Any, scheduler_ip: str, **settings: Any) -> None:  # noqa: ANN401
        if not (settings.get("host") or settings.get("interface")):
            # The one that it tells others, of all at which it would listen.
            settings["host"] = unparse_host_port(get_ip(get_address_host(scheduler_ip)))
        base.__init__(worker, scheduler_ip, **settings)

    own = {"start_http_server": lambda *_, **__: None, "__module__": __name__}
    if name == "Worker":
        own["__init__"] = at_one_address
    return type(name, (base,), own)


def __getattr__(name: str) -> type:
    if name in ("Scheduler", "Worker"):
        return _silent(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True, slots=True)
class Dask(Executor):
    """Dask: a cluster of processes on this machine, or a scheduler that runs already.

    ``memory_bytes`` is that of all the processes; ``scheduler`` an address, or the JSON
    file that a scheduler wrote. The worker of an item that takes longer than
    ``timeout`` seconds is started anew.
    """

    n_workers: int = 1
    memory_bytes: int | None = None
    scheduler: str | None = None
    timeout: float | None = None

    def map(
        self,
        function: Callable[[Item], Value],
        items: Iterable[Item],
        *,
        eager: bool = True,
    ) -> Generator[Outcome[Item, Value], None, None]:
        """Yield the outcomes as they are ready."""
        dask, distributed = _load("dask"), _load("distributed")
        with dask.config.set(_SETTINGS), contextlib.ExitStack() as stack:
            if self.scheduler is None:
                stack.enter_context(no_child_left())
                # Ctrl-C is for us alone; threads and processes inherit the block.
                with block_interrupts():
                    cluster = self._start_cluster(distributed)
                # Dask would wait for ten seconds more at the exit, for nobody.
                cluster.shutdown_on_close = False
                stack.enter_context(cluster)
                client = distributed.Client(cluster)
            else:
                client = _connect(distributed, self.scheduler)
            stack.enter_context(client)
            yield from _map_client(
                client, function, iter(items), self.timeout, eager=eager
            )

    def _start_cluster(self, distributed: ModuleType) -> Any:  # noqa: ANN401
        # What LocalCluster makes, too, but that one has web servers.
        node = {
            "host": "127.0.0.1",
            "protocol": "tls://",
            "security": _make_credentials(distributed),
        }
        worker = {
            **node,
            "worker_class": _silent("Worker"),
            "nthreads": 1,
            "memory_limit": (self.memory_bytes or 0) // self.n_workers,
            "silence_logs": logging.CRITICAL,
        }
        nanny = {"cls": distributed.Nanny, "options": worker}
        return distributed.SpecCluster(
            scheduler={
                "cls": _silent("Scheduler"),
                "options": {**node, "port": 0},
            },
            workers=dict.fromkeys(range(self.n_workers), nanny),
            security=node["security"],
            silence_logs=logging.CRITICAL,
        )


@dataclass(frozen=True, slots=True)
class Slurm(Executor):
    """SLURM jobs of Dask workers, through dask-jobqueue.

    ``n_cpus`` (items at a time) and ``memory_bytes`` are those of a job; what is
    ``None`` is left to dask-jobqueue's YAML files. ``log_dir`` is for what the jobs
    print, where these name no folder.
    """

    log_dir: Path
    n_jobs: int = 1
    partition: str | None = None
    account: str | None = None
    walltime: str | None = None
    n_cpus: int | None = None
    memory_bytes: int | None = None
    timeout: float | None = None

    def map(
        self,
        function: Callable[[Item], Value],
        items: Iterable[Item],
        *,
        eager: bool = True,
    ) -> Generator[Outcome[Item, Value], None, None]:
        """Yield the outcomes as they are ready; there are no more jobs than items."""
        dask, jobqueue = _load("dask"), _load("dask_jobqueue")
        distributed = _load("distributed")
        items = iter(items)
        with dask.config.set(_SETTINGS), contextlib.ExitStack() as stack:
            written = dask.config.get("jobqueue.slurm", {})
            settings = self._job_settings(written)
            n_runs = settings["processes"]
            head = list(itertools.islice(items, self.n_jobs * n_runs))
            n_jobs = min(self.n_jobs, -(-len(head) // n_runs))
            if not head:
                return
            place = Path(written.get("shared-temp-directory") or self.log_dir)
            security = _save_credentials(_make_credentials(distributed), place)
            settings["security"] = stack.enter_context(security)
            try:
                cluster = jobqueue.SLURMCluster(
                    **settings, silence_logs=logging.CRITICAL
                )
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
                self.timeout,
                # Jobs that reached their walltime or lost their node are sent anew.
                refill=lambda: cluster.scale(jobs=n_jobs),
                eager=eager,
            )

    def _job_settings(self, written: Mapping[str, Any]) -> dict[str, Any]:
        """What SLURMCluster is told: flags, and defaults where the YAML has nothing."""
        asked = {
            "queue": self.partition,
            "account": self.account,
            "walltime": self.walltime,
            "memory": self.memory_bytes and f"{self.memory_bytes}B",
        }
        settings: dict[str, Any] = {k: v for k, v in asked.items() if v is not None}
        settings["cores"] = self.n_cpus or written.get("cores") or 1
        # A run uses one thread; a process for each, unless the YAML counts otherwise.
        in_yaml = None if self.n_cpus else written.get("processes")
        settings["processes"] = in_yaml or settings["cores"]
        if not written.get("memory"):
            settings.setdefault("memory", f"{settings['processes']}GB")
        if not written.get("log-directory"):
            settings["log_directory"] = str(self.log_dir)
        return settings | _close_doors(written)


def _close_doors(written: Mapping[str, Any]) -> dict[str, Any]:
    """Listen at one address, and serve no HTTP, unless the YAML says otherwise."""
    from distributed.utils import get_ip

    settings: dict[str, Any] = {}
    options = {"dashboard_address": None, **(written.get("scheduler-options") or {})}
    if not (options.keys() & {"host", "interface"} or written.get("interface")):
        options["host"] = get_ip()  # which Dask would tell the workers anyway
    settings["scheduler_options"] = options
    if options["dashboard_address"] is None:
        settings["scheduler_cls"] = _silent("Scheduler")
    words = [*(written.get("worker-extra-args") or written.get("extra") or [])]
    if not any(str(word).startswith("--dashboard") for word in words):
        words += ["--no-dashboard", "--worker-class", f"{__name__}.Worker"]
    settings["worker_extra_args"] = words
    return settings


def _make_credentials(distributed: ModuleType) -> Security:
    """A key and its certificate for one call, in memory."""
    _load("cryptography")
    return distributed.Security.temporary()


@contextlib.contextmanager
def _save_credentials(security: Security, parent: Path) -> Iterator[Security]:
    """The same in files of a folder that nobody else can open, while it is needed.

    The nodes of the cluster read them there, so the folder is one that they share.
    """
    parent = parent.expanduser().absolute()  # a job may begin elsewhere
    other = "or name a shared-temp-directory in dask-jobqueue's YAML."
    if re.search(r"[^\w@%+=:,./~-]", str(parent)):
        msg = "a job script cannot hold this path: it has blanks or special characters."
        remedy = f"Choose an output folder whose path has none, {other}"
        raise UsageError(msg, where=parent, remedy=remedy)
    with contextlib.ExitStack() as stack:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            place = tempfile.TemporaryDirectory(prefix=".bids_roi-tls-", dir=parent)
            folder = Path(stack.enter_context(place))
            if folder.stat().st_mode & 0o077:
                msg = "other users can read what is written here: no place for keys."
                remedy = f"Choose an output folder on a disk with permissions, {other}"
                raise OutputError(msg, where=parent, remedy=remedy)
            cert, key = folder / "cert.pem", folder / "key.pem"
            cert.write_text(security.tls_worker_cert, encoding="ascii")
            key.write_text(security.tls_worker_key, encoding="ascii")
        except OSError as error:
            msg = f"the keys of the workers cannot be written ({error.strerror})."
            remedy = "Check the folder's permissions and free space."
            raise OutputError(msg, where=parent, remedy=remedy) from error
        names = {"tls_ca_file": str(cert)}
        for role in ("client", "scheduler", "worker"):
            names |= {f"tls_{role}_cert": str(cert), f"tls_{role}_key": str(key)}
        yield type(security)(require_encryption=True, **names)


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
    timeout: float | None,
    refill: Callable[[], object] = lambda: None,
    *,
    eager: bool,
) -> Iterator[Outcome[Item, Value]]:
    """Yield outcomes; an item whose worker was lost is tried again after the others.

    Unless ``eager``, after those that have begun: nothing else begins before it is
    known whether it fails.
    """
    lost: list[Item] = []
    running: dict[Future, Item] = {}
    held = () if eager else lost

    def try_again() -> Iterator[Outcome[Item, Value]]:
        items = iter(lost.copy())
        lost.clear()
        again = _work(client, function, items, timeout, refill, {}, (), eager=eager)
        for outcome in again:
            if isinstance(outcome.error, _Lost):
                yield Outcome(outcome.item, None, lost_worker(None))
            else:
                yield outcome

    for outcome in _work(
        client, function, items, timeout, refill, running, held, eager=eager
    ):
        if isinstance(outcome.error, _Lost):
            lost.append(outcome.item)
        else:
            yield outcome
        if held and not running:
            yield from try_again()
    yield from try_again()


class _Lost(Exception):
    """The worker of an item is gone."""


def _work(
    client: Client,
    function: Callable[[Item], Value],
    items: Iterator[Item],
    timeout: float | None,
    refill: Callable[[], object],
    running: dict[Future, Item],
    held: Sequence[Item],
    *,
    eager: bool,
) -> Iterator[Outcome[Item, Value]]:
    """Yield outcomes, and keep what is ``running``; none begins while one is held."""
    from distributed import wait

    started: dict[str, float] = {}
    ahead: deque[Item] = deque()
    more, refilled = True, time.monotonic()
    try:
        while True:
            n_free = max(1, sum(client.nthreads().values())) - len(running)
            may_begin = eager or not (held or any(f.done() for f in running))
            while may_begin and ahead and n_free > 0:
                item, n_free = ahead.popleft(), n_free - 1
                packed = pickle.dumps((function, item, timeout))
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
            if timeout is not None:
                for future in _overdue(client, running, started, timeout):
                    yield Outcome(running.pop(future), None, out_of_time(timeout))
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
    timeout: float,
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
        if now - started.setdefault(future.key, now) < timeout:
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
    except (OSError, ValueError, TypeError) as error:
        # TypeError: an address of TLS, and no certificates in Dask's settings.
        said = (str(error) or type(error).__name__).strip().splitlines()[0]
        msg = f"no Dask scheduler answers ({said})."
        remedy = (
            "Check --dask-scheduler, that it can be reached from this machine, and for"
            " tls:// the certificates in Dask's settings (distributed.comm.tls)."
        )
        raise UsageError(msg, where=scheduler, remedy=remedy) from error


def _load(module: str) -> ModuleType:
    hears = signal.getsignal(signal.SIGINT)
    try:
        loaded = importlib.import_module(module)
        # dask_jobqueue would have Ctrl-C end the command with 0, and without a word.
        if signal.getsignal(signal.SIGINT) is not hears:
            signal.signal(signal.SIGINT, hears)
    except ImportError as error:
        msg = f"--executor dask and slurm need the package {error.name or module}."
        remedy = "Install it with: pip install 'bids_roi[dask]'"
        raise UsageError(msg, remedy=remedy) from error
    # Its messages are of connections and heartbeats; ours are of runs.
    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return loaded
