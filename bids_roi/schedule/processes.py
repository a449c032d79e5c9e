"""Items in worker processes of this machine, each watched on its own.

``concurrent.futures`` gives up the whole pool, and all that it is at, when one worker
dies; it neither says which item that was nor lets go of a worker that hangs. Here each
worker has a pipe of its own, so that a death costs one item and its exit code is known.
Workers are fresh interpreters: a fork would copy the threads' locks in whatever state.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from bids_roi.schedule.outcome import (
    Outcome,
    attempt,
    lost_worker,
    out_of_time,
    pack,
)
from bids_roi.schedule.threads import block_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess


Item = TypeVar("Item")
Value = TypeVar("Value")

# How long a worker may tidy up after it was told to stop, s.
_PATIENCE = 2.0
_TERMINATED = 128 + signal.SIGTERM
# So many workers in a row that die before they begin end the attempt.
_STILL_BORN = 3


@dataclass(slots=True, eq=False)
class _Worker(Generic[Item]):
    """A process, the pipe to it, and what it is at."""

    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    items: list[Item] = field(default_factory=list)  # one, or none
    deadline: float | None = None


@dataclass(slots=True, eq=False)
class _Pool(Generic[Item, Value]):
    """The workers, and what they work on."""

    function: Callable[[Item], Value]
    run_timeout: float | None
    workers: list[_Worker[Item]] = field(default_factory=list)
    n_still_born: int = 0


def map_processes(
    function: Callable[[Item], Value],
    items: Iterator[Item],
    *,
    n_workers: int,
    run_timeout: float | None = None,
) -> Iterator[Outcome[Item, Value]]:
    """Apply a function to each item in worker processes.

    Parameters
    ----------
    function, items
        Picklable. Items are taken a few ahead of the workers.
    n_workers
        Processes at the same time.
    run_timeout
        Seconds for an item; the worker is killed then, and the item not tried again.

    Yields
    ------
    Outcome
        As they are ready. An item whose worker died is tried once more when all
        others are done, alone: what was short then, such as memory, is not now.
    """
    pool = _Pool(function, run_timeout)
    lost: deque[Item] = deque()
    try:
        for outcome in _work(pool, items, n_workers):
            if isinstance(outcome, Outcome):
                yield outcome
            else:
                lost.append(outcome[0])
        _stop(pool.workers)
        while lost:
            item = lost.popleft()
            for outcome in _work(pool, iter([item]), 1):
                if isinstance(outcome, Outcome):
                    yield outcome
                else:
                    yield Outcome(item, None, lost_worker(outcome[1]))
    finally:
        _stop(pool.workers)


def _work(
    pool: _Pool[Item, Value], items: Iterator[Item], n_workers: int
) -> Iterator[Outcome[Item, Value] | tuple[Item, int | None]]:
    """Yield outcomes, and ``(item, exit code)`` where a worker died at it."""
    ahead: deque[Item] = deque()
    workers, more = pool.workers, True
    while True:
        if more and len(ahead) < n_workers:
            try:
                ahead.append(next(items))
            except StopIteration:
                more = False
        busy = sum(len(worker.items) for worker in workers)
        if not (busy or ahead or more):
            return
        for _ in range(min(n_workers, busy + len(ahead)) - len(workers)):
            workers.append(_start(pool.function))
        for worker in workers:
            if worker.ready and not worker.items and ahead:
                _hand_over(worker, ahead.popleft(), pool.run_timeout)
        # While there is something to plan ahead, no time is spent waiting.
        wait = 0.0 if more and len(ahead) < n_workers else _until(workers)
        for pipe in connection.wait([worker.pipe for worker in workers], wait):
            yield from _receive(pool, next(w for w in workers if w.pipe is pipe))
        for worker in [w for w in workers if w.deadline and w.deadline <= _now()]:
            workers.remove(worker)
            worker.process.kill()  # it hangs: it would not hear a request
            _bury(worker)
            for item in worker.items:
                yield Outcome(item, None, out_of_time(pool.run_timeout or 0.0))


def _receive(
    pool: _Pool[Item, Value], worker: _Worker[Item]
) -> Iterator[Outcome[Item, Value] | tuple[Item, int | None]]:
    try:
        packed = worker.pipe.recv_bytes()
    except (EOFError, OSError):
        pool.workers.remove(worker)
        code = _bury(worker)
        for item in worker.items:
            yield item, code
        if not worker.ready:
            pool.n_still_born += 1
            if pool.n_still_born >= _STILL_BORN:
                raise lost_worker(code, tries=_STILL_BORN) from None
        return
    if not worker.items:
        worker.ready, pool.n_still_born = True, 0
        return
    item, worker.deadline = worker.items.pop(), None
    yield Outcome(item, *pickle.loads(packed))  # noqa: S301 - from our own process


def _hand_over(worker: _Worker[Item], item: Item, seconds: float | None) -> None:
    worker.items.append(item)
    worker.deadline = None if seconds is None else _now() + seconds
    # A worker that has just died shows when its pipe is read.
    with contextlib.suppress(OSError):
        worker.pipe.send(item)


def _now() -> float:
    return time.monotonic()


def _until(workers: list[_Worker[Any]]) -> float | None:
    """Seconds to the next deadline, ``None`` for as long as it takes."""
    deadlines = [w.deadline for w in workers if w.deadline is not None]
    return max(0.0, min(deadlines) - _now()) if deadlines else None


def _start(function: Callable[[Any], Any]) -> _Worker[Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function), daemon=True)
    with block_interrupts():
        process.start()
    theirs.close()  # or its end of the pipe would never be found closed
    return _Worker(process, ours)


def _bury(worker: _Worker[Any]) -> int | None:
    """Wait for a process that has ended; return its exit code."""
    worker.process.join(_PATIENCE)
    if worker.process.is_alive():  # it closed its pipe and lives on
        worker.process.kill()
        worker.process.join()
    worker.pipe.close()
    return worker.process.exitcode


def _stop(workers: list[_Worker[Any]]) -> None:
    """End all workers; those at work tidy up, and are killed if that takes long."""
    for worker in workers:
        if worker.items or not worker.ready:
            worker.process.terminate()
        worker.pipe.close()  # an idle one takes this for the end
    limit = _now() + _PATIENCE
    for worker in workers:
        worker.process.join(max(0.0, limit - _now()))
    for worker in workers:
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
    workers.clear()


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Be a worker: take items until the pipe is closed."""
    signal.signal(signal.SIGTERM, _end)
    sys.unraisablehook = _end_anyway
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        pipe.send_bytes(b"ready")
        while True:
            pipe.send_bytes(pack(*attempt(function, pipe.recv())))
    except (EOFError, OSError):
        pass  # the parent has what it wanted, or is gone
    except SystemExit:
        # At once: no waiting for threads that read.
        os._exit(_TERMINATED)


def _end(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(_TERMINATED)


def _end_anyway(unraisable: sys.UnraisableHookArgs) -> None:
    """End where Python swallows the exit, as in the callback of an import's lock."""
    if isinstance(unraisable.exc_value, SystemExit):
        os._exit(_TERMINATED)
    sys.__unraisablehook__(unraisable)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
