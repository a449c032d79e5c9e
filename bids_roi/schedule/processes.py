"""Executor of worker processes on this machine, each watched on its own.

``concurrent.futures`` gives up the whole pool, and all that it is at, when one worker
dies; it neither says which item that was nor lets go of a worker that hangs. Here each
worker has a pipe of its own, so that a death costs one item and its exit code is known.
Workers are fresh interpreters: a fork would copy the threads' locks in whatever state.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from bids_roi.schedule.outcome import (
    Executor,
    Outcome,
    Serial,
    attempt,
    block_interrupts,
    lost_worker,
    out_of_time,
    pack,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess


Item = TypeVar("Item")
Value = TypeVar("Value")

# How long a worker may tidy up after it was told to stop, s.
_PATIENCE = 2.0
_TERMINATED = 128 + signal.SIGTERM
# So many workers in a row that die before they begin end the attempt.
_STILL_BORN = 3


@dataclass(frozen=True, slots=True)
class Processes(Executor):
    """Worker processes of this machine.

    A worker whose item takes longer than ``timeout`` seconds is killed, and the item
    not tried again.
    """

    n_workers: int = 1
    timeout: float | None = None
    pool: _Pool[Any, Any] | None = field(default=None, repr=False, compare=False)

    @contextlib.contextmanager
    def staying(self, function: Callable[[Any], Any]) -> Iterator[Processes]:
        """Executor whose workers stay from one map of a function to the next."""
        pool: _Pool[Any, Any] = _Pool(function, self.timeout)
        try:
            yield replace(self, pool=pool)
        finally:
            pool.stop()

    def map(
        self,
        function: Callable[[Item], Value],
        items: Iterable[Item],
        *,
        eager: bool = True,
    ) -> Generator[Outcome[Item, Value], None, None]:
        """Yield the outcomes as they are ready.

        An item whose worker died is tried once more when all others are done, alone:
        what was short then, such as memory, is not now. Unless ``eager``, when those
        are that have begun, and before any other begins.
        """
        items = iter(items)
        head = list(itertools.islice(items, 2))
        items = itertools.chain(head, items)
        if len(head) < 2 and self.timeout is None:
            # A single item is not worth a process of its own.
            yield from Serial().map(function, items)
            return
        # A map within another has its own workers: it would take values of the other.
        shared = None if self.pool is None or self.pool.is_taken else self.pool
        pool: _Pool[Item, Value] = shared or _Pool(function, self.timeout)
        if pool.function is not function:
            msg = f"the workers that stay were started for {pool.function!r}"
            raise ValueError(msg)
        lost: list[Item] = []
        pool.is_taken, pool.is_held = True, False
        try:
            for outcome in pool.work(items, self.n_workers, eager=eager):
                if isinstance(outcome, Outcome):
                    yield outcome
                else:
                    lost.append(outcome[0])
                # Nothing begins before it is known whether that was a failure.
                pool.is_held = bool(lost) and not eager
                if pool.is_held and not any(worker.items for worker in pool.workers):
                    while lost:
                        yield from self._try_again(function, lost.pop())
                    pool.is_held = False
            if lost:
                pool.stop()
            for item in lost:
                yield from self._try_again(function, item)
        finally:
            pool.is_taken = False
            # Nobody waits any more for what workers are at.
            if pool is not self.pool or any(worker.items for worker in pool.workers):
                pool.stop()

    def _try_again(
        self, function: Callable[[Item], Value], item: Item
    ) -> Iterator[Outcome[Item, Value]]:
        pool: _Pool[Item, Value] = _Pool(function, self.timeout)
        try:
            for outcome in pool.work(iter([item]), 1):
                if isinstance(outcome, Outcome):
                    yield outcome
                else:
                    yield Outcome(item, None, lost_worker(outcome[1]))
        finally:
            pool.stop()


class _Worker(Generic[Item]):
    """A process, the pipe to it, and what it is at."""

    def __init__(self, function: Callable[[Item], Any], timeout: float | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(theirs, function, timeout), daemon=True
        )
        self.ready = False
        self.items: list[Item] = []  # one, or none
        self.deadline: float | None = None
        with block_interrupts():
            self.process.start()
        theirs.close()  # or its end of the pipe would never be found closed

    def hand_over(self, item: Item, seconds: float | None) -> None:
        """Give the worker something to do."""
        self.items.append(item)
        self.deadline = None if seconds is None else time.monotonic() + seconds
        # A worker that has just died shows when its pipe is read.
        with contextlib.suppress(OSError):
            self.pipe.send(item)

    def bury(self) -> int | None:
        """Wait for the process, which has ended; return its exit code."""
        self.process.join(_PATIENCE)
        if self.process.is_alive():  # it closed its pipe and lives on
            self.process.kill()
            self.process.join()
        self.pipe.close()
        return self.process.exitcode


@dataclass(slots=True, eq=False)
class _Pool(Generic[Item, Value]):
    """The workers, and what they work on."""

    function: Callable[[Item], Value]
    timeout: float | None
    workers: list[_Worker[Item]] = field(default_factory=list)
    n_still_born: int = 0
    is_taken: bool = False
    is_held: bool = False  # whether what has not begun is to wait

    def work(
        self, items: Iterator[Item], n_workers: int, *, eager: bool = True
    ) -> Iterator[Outcome[Item, Value] | tuple[Item, int | None]]:
        """Yield outcomes, and ``(item, exit code)`` where a worker died at it."""
        ahead: deque[Item] = deque()
        workers, more = self.workers, True
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
                workers.append(_Worker(self.function, self.timeout))
            may_begin = eager or not (
                self.is_held or connection.wait([w.pipe for w in workers], 0)
            )
            for worker in workers:
                if may_begin and worker.ready and not worker.items and ahead:
                    worker.hand_over(ahead.popleft(), self.timeout)
            # While there is something to plan ahead, no time is spent waiting.
            wait = 0.0 if more and len(ahead) < n_workers else self._until_deadline()
            for pipe in connection.wait([worker.pipe for worker in workers], wait):
                worker = next(w for w in workers if w.pipe is pipe)
                yield from self._receive(worker, ahead if eager else deque())
            now = time.monotonic()
            for worker in [w for w in workers if w.deadline and w.deadline <= now]:
                if worker.pipe.poll():
                    continue  # it has ended: whether in time, it knows by its own clock
                workers.remove(worker)
                worker.process.kill()  # it hangs: it would not hear a request
                worker.bury()
                for item in worker.items:
                    yield Outcome(item, None, out_of_time(self.timeout or 0.0))

    def _until_deadline(self) -> float | None:
        """Seconds to the next deadline, ``None`` for as long as it takes."""
        deadlines = [w.deadline for w in self.workers if w.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _receive(
        self, worker: _Worker[Item], ahead: deque[Item]
    ) -> Iterator[Outcome[Item, Value] | tuple[Item, int | None]]:
        try:
            packed = [worker.pipe.recv_bytes()]
        except (EOFError, OSError):
            self.workers.remove(worker)
            code = worker.bury()
            for item in worker.items:
                yield item, code
            if not worker.ready:
                self.n_still_born += 1
                if self.n_still_born >= _STILL_BORN:
                    raise lost_worker(code, attempts=_STILL_BORN) from None
            return
        if not worker.items:
            worker.ready, self.n_still_born = True, 0
            return
        item, worker.deadline = worker.items.pop(), None
        if ahead:  # it does not wait for what becomes of the value
            worker.hand_over(ahead.popleft(), self.timeout)
        # Taken out: megabytes that nobody asks for while the value is used.
        yield Outcome(item, *pickle.loads(packed.pop()))  # noqa: S301 - our own bytes

    def stop(self) -> None:
        """End all workers; those at work tidy up, and are killed if it takes long."""
        try:
            for worker in self.workers:
                if worker.items or not worker.ready:
                    worker.process.terminate()
                worker.pipe.close()  # an idle one takes this for the end
            limit = time.monotonic() + _PATIENCE
            for worker in self.workers:
                worker.process.join(max(0.0, limit - time.monotonic()))
        finally:  # at a second Ctrl-C at once: at its exit, Python waits for all
            for worker in self.workers:
                worker.process.kill()
            for worker in self.workers:
                worker.process.join()
            self.workers.clear()


def _serve(
    pipe: Connection, function: Callable[[Any], Any], timeout: float | None
) -> None:
    """Be a worker: take items until the pipe is closed."""
    signal.signal(signal.SIGTERM, _end)
    sys.unraisablehook = _end_anyway
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        pipe.send_bytes(b"ready")
        while True:
            pipe.send_bytes(pack(*attempt(function, pipe.recv(), timeout)))
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
