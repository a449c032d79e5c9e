"""Map one function over the plan; a failing item never ends the others."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Outcome", "map_items"]

log = logging.getLogger("bids_roi")

Item = TypeVar("Item")
Value = TypeVar("Value")

# One run is one thread of arithmetic beside one of decompression: libraries that
# start a thread per processor in every worker would only get in each other's way.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Value]):
    """What became of one item: a value, or the error that was raised."""

    item: Item
    value: Value | None
    error: BaseException | None


def map_items(
    function: Callable[[Item], Value], items: Iterable[Item], *, n_workers: int = 1
) -> Iterator[Outcome[Item, Value]]:
    """Apply a function to each item, here or in worker processes.

    Parameters
    ----------
    function
        Takes one item; picklable where there are workers, as are the items.
    items
        Taken a few at a time, so that planning and work go on together.
    n_workers
        1 works in this process, as does any number for a single item.

    Yields
    ------
    Outcome
        In the order of the items for one worker, else as they are ready.
    """
    items = iter(items)
    head = list(itertools.islice(items, 2 if n_workers > 1 else 0))
    if len(head) < 2:
        for item in itertools.chain(head, items):
            yield _apply(function, item)
        return
    yield from _map_processes(function, itertools.chain(head, items), n_workers)


def _apply(function: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    try:
        return Outcome(item, function(item), None)
    except Exception as error:  # the item's outcome, with its traceback for -vv
        log.debug("traceback of the failure", exc_info=error)
        return Outcome(item, None, error)


def _map_processes(
    function: Callable[[Item], Value], items: Iterator[Item], n_workers: int
) -> Iterator[Outcome[Item, Value]]:
    pool = _start(n_workers)
    running: dict[Future[Outcome[Item, Value]], Item] = {}
    try:
        while True:
            for item in itertools.islice(items, 2 * n_workers - len(running)):
                running[pool.submit(_apply, function, item)] = item
            if not running:
                return
            done = wait(running, return_when=FIRST_COMPLETED).done
            if any(isinstance(f.exception(), BrokenProcessPool) for f in done):
                # A worker was killed, and took the pool with it: which item it was at
                # shows when each has a pool of its own.
                pool.shutdown(wait=True)
                for item in running.values():
                    yield _apply_alone(function, item)
                running.clear()
                pool = _start(n_workers)
                continue
            for future in done:
                del running[future]
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _apply_alone(function: Callable[[Item], Value], item: Item) -> Outcome[Item, Value]:
    with _start(1) as pool:
        try:
            return pool.submit(_apply, function, item).result()
        except BrokenProcessPool as error:
            return Outcome(item, None, error)


def _start(n_workers: int) -> ProcessPoolExecutor:
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    # Fresh interpreters: a fork would copy the threads' locks in whatever state.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_workers, mp_context=context)
