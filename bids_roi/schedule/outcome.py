"""Executors: what one is, what becomes of an item, the one that works here.

And what processes inherit (one thread, no Ctrl-C), and how many processors there are.
Knows the standard library only, so that it can be called before numpy is loaded.
"""

from __future__ import annotations

import abc
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from bids_roi.errors import BidsRoiError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator


Item = TypeVar("Item")
Value = TypeVar("Value")

_MEMORY = (
    "Most likely memory ran out: lower --n-procs, set --mem-mb to what the job may use,"
    " or ask the cluster for more; then run the same command again."
)
_WALLTIME = (
    "That is how a cluster ends a job at its walltime: ask for more time, then run the"
    " same command again."
)
_CRASH = (
    "Compiled code crashed, which a damaged file or one that changes while it is read"
    " can do: check the input and the disk, then run the same command again."
)
_REMEDIES = {
    signal.SIGKILL: _MEMORY,
    signal.SIGTERM: _WALLTIME,
    signal.SIGSEGV: _CRASH,
    signal.SIGBUS: _CRASH,
    signal.SIGILL: _CRASH,
    signal.SIGFPE: _CRASH,
    signal.SIGABRT: _CRASH,
}


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Value]):
    """What became of one item: a value, or the error that was raised.

    The error may also tell what became of the worker. ``trace`` is its traceback, as
    text: it may come from another machine.
    """

    item: Item
    value: Value | None
    error: BaseException | None
    trace: str = ""


class Executor(abc.ABC):
    """A place where items are worked on; a failing item never ends the others."""

    __slots__ = ()

    @abc.abstractmethod
    def map(
        self,
        function: Callable[[Item], Value],
        items: Iterable[Item],
        *,
        eager: bool = True,
    ) -> Generator[Outcome[Item, Value], None, None]:
        """Yield an outcome of every item, as they are ready.

        Function and items are picklable where there are workers. Items are taken a few
        at a time, so that planning and work go on together. Unless ``eager``, none
        begins while an outcome waits to be looked at, which may end the map.
        """


def attempt(
    function: Callable[[Item], Value], item: Item, timeout: float | None
) -> tuple[Value | None, Exception | None, str]:
    """Value, error and trace of a function applied to an item, as in ``Outcome``.

    What took longer than ``timeout`` seconds is a failure, also where nobody ended it:
    whether a run counts must not depend on what the parent was busy with.
    """
    began = time.monotonic()
    try:
        value = function(item)
    except Exception as error:  # noqa: BLE001 - it is the answer
        return None, error, traceback.format_exc()
    if timeout is not None and time.monotonic() - began > timeout:
        return None, out_of_time(timeout), ""
    return value, None, ""


def attempt_packed(packed: bytes) -> bytes:
    """Do the same where function, item and answer travel as bytes."""
    return pack(*attempt(*pickle.loads(packed)))  # noqa: S301 - our own bytes


def pack(value: object, error: Exception | None, trace: str) -> bytes:
    """Make an answer ready to travel.

    An exception that cannot (some cannot be made again from their arguments) is
    replaced by one that says the same.
    """
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - of whatever kind
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return pickle.dumps((value, error, trace))


def lost_worker(exit_code: int | None, *, attempts: int = 2) -> BidsRoiError:
    """Say what probably happened to a worker that died in the middle of an item.

    The exit code is that of ``multiprocessing``: minus the number of the signal that
    ended it; ``None`` where nothing is known.
    """
    how, remedy = "", _MEMORY
    if exit_code is not None:
        # 143: our own workers end so on SIGTERM, after they have tidied up.
        number = -exit_code if exit_code < 0 else exit_code - 128
        try:
            name = signal.Signals(number)
        except ValueError:
            how = f"exit status {exit_code}, "
            remedy = "Run it again with --executor serial and -vv to see why."
        else:
            how, remedy = f"{name.name}, ", _REMEDIES.get(name, _MEMORY)
    msg = f"the worker process died ({how}{attempts} attempts)."
    return BidsRoiError(msg, remedy=remedy)


def out_of_time(seconds: float) -> BidsRoiError:
    """Say that an item took longer than it was allowed to."""
    msg = f"not done after {seconds:g} s (--run-timeout), and given up."
    remedy = "If the disk is slow, allow more; else try it alone, with -vv."
    return BidsRoiError(msg, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Serial(Executor):
    """The process itself; nothing needs to be picklable.

    An alarm ends an item after ``timeout`` seconds at its next step in Python, so not
    inside a system call that never returns. Outside the main thread there is none.
    """

    timeout: float | None = None

    def map(
        self,
        function: Callable[[Item], Value],
        items: Iterable[Item],
        *,
        eager: bool = True,  # noqa: ARG002 - one item at a time never is
    ) -> Generator[Outcome[Item, Value], None, None]:
        """Yield the outcomes in the order of the items."""
        for item in items:
            try:
                with _alarm(self.timeout):
                    value, error, trace = attempt(function, item, self.timeout)
            except BidsRoiError as late:  # the alarm, when all but the return was done
                value, error, trace = None, late, ""
            yield Outcome(item, value, error, trace)


@contextlib.contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(*_: object) -> NoReturn:
        raise out_of_time(seconds)

    before = signal.signal(signal.SIGALRM, give_up)
    # Again every second, should the first be caught on its way.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pin_threads() -> None:
    """Let linear algebra use one thread, here and in workers yet to be started.

    A run is one thread of arithmetic beside one of decompression: libraries that
    start a thread per processor in every worker would only get in each other's way.
    Sums over several threads also round differently. To be called before numpy loads.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


@contextlib.contextmanager
def block_interrupts() -> Iterator[None]:
    """Start threads and processes in the body that never hear of Ctrl-C.

    It reaches every process of a terminal, also those that still import; a blocked
    signal is inherited, and kept for the end of the body in this thread. SIGTERM is
    kept, too, so that nothing is left half-started, but not for what is started.
    """
    # It starts with the first process, and ends the block when it does (Python 3.11).
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    ends, kept = signal.getsignal(signal.SIGTERM), []
    here = threading.current_thread() is threading.main_thread() and callable(ends)
    if here:
        signal.signal(signal.SIGTERM, lambda *_: kept.append(True))
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGTERM, ends)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if kept:  # also where what was started has heard it, and that is an error
            signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def no_child_left() -> Iterator[None]:
    """Kill what processes the body has started and not ended, as at a second Ctrl-C.

    At its exit Python asks each to end, and waits: for ever, for one that hangs.
    """
    before = set(multiprocessing.active_children())
    try:
        yield
    finally:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()


def usable_cpus() -> int:
    """Processors that this job may use: SLURM's word, the affinity, the cgroup."""
    counts = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0]
    counts.append(os.cpu_count() or 1)
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if given.isdigit():
        counts.append(int(given))
    quota = _cgroup_cpus(Path("/sys/fs/cgroup"))
    if quota:
        counts.append(quota)
    return max(1, min(count for count in counts if count))


def _cgroup_cpus(folder: Path) -> int:
    """Whole processors of a container's quota, 0 for none."""
    pairs = []
    try:
        pairs.append((folder / "cpu.max").read_text().split())  # version 2
    except OSError:
        try:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # version 1
            pairs.append([(folder / "cpu" / n).read_text().strip() for n in names])
        except OSError:
            return 0
    quota, period = pairs[0]
    if not quota.isdigit() or not int(period):
        return 0
    return max(1, int(quota) // int(period))
