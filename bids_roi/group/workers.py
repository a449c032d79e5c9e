"""Processes of the group level: what they read comes back in the order of the files."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from bids_roi.schedule.outcome import Serial, usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from bids_roi.options.row import Running
    from bids_roi.schedule.outcome import Executor


Item = TypeVar("Item")
Value = TypeVar("Value")
# Place in the order, function, item: one function serves all that workers are asked.
_Numbered = tuple[int, "Callable[[Any], Any]", Any]

# Measured: a worker with a batch of matrices of 400 regions takes 110 MB.
_WORKER_BYTES = 150 * 2**20

# glibc's numbers of two settings, and bytes: free memory is given back beyond the one,
# what is larger than the other always.
_KEPT_FREE = -1, 2**25
_LARGE = -3, 2**24


@dataclass(frozen=True, slots=True)
class Workers:
    """Some processes, or this one alone; those that stay end with ``stack``."""

    n: int = 1
    stack: contextlib.ExitStack | None = field(default=None, repr=False, compare=False)
    staying: list[Executor] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def of(cls, running: Running) -> Workers:
        """As many as may be used, within ``mem_mb``."""
        if running.executor == "serial":
            return cls(1)
        n = running.n_procs or usable_cpus()
        if running.mem_mb is not None:
            n = min(n, running.mem_mb * 10**6 // _WORKER_BYTES - 1)
        return cls(max(1, n))

    @contextlib.contextmanager
    def at_hand(self) -> Iterator[Workers]:
        """The same, whose processes stay from one map to the next."""
        with contextlib.ExitStack() as stack:
            yield replace(self, stack=stack, staying=[])

    def map(
        self, function: Callable[[Item], Value], items: Iterable[Item]
    ) -> Generator[Value, None, None]:
        """Yield the values in the order of the items; raise what is raised.

        What sums are made of must not depend on which worker is the first.
        """
        items = iter(items)
        head = list(itertools.islice(items, 2))
        # A single item is not worth a process, nor the import of them.
        executor = self._executor() if len(head) > 1 else Serial()
        waiting: dict[int, Item] = {}  # handed out, and not back yet
        held: dict[int, Value | None] = {}

        def number() -> Iterator[_Numbered]:
            for key, item in enumerate(itertools.chain(head, items)):
                waiting[key] = item
                yield key, function, item

        turn = 0
        outcomes = executor.map(_apply, number())
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                key = outcome.item[0]
                if waiting.pop(key, None) is None:
                    continue  # it was not waited for
                if outcome.error is not None:
                    raise outcome.error
                held[key] = outcome.value
                # A worker that died is tried again after all others: so long, and so
                # full of what came after, this process does not wait.
                if len(held) > 2 * self.n and turn in waiting:
                    held[turn] = function(waiting.pop(turn))
                while turn in held:
                    yield held.pop(turn)  # type: ignore[misc]
                    turn += 1

    def _executor(self) -> Executor:
        if self.n == 1:
            return Serial()
        if self.staying:
            return self.staying[0]
        from bids_roi.schedule.processes import Processes

        executor = Processes(self.n)
        if self.stack is not None:
            executor = self.stack.enter_context(executor.staying(_apply))
            self.staying.append(executor)
        return executor


def _apply(numbered: _Numbered) -> Any:  # noqa: ANN401 - what its function returns
    _keep_memory()
    _, function, item = numbered
    return function(item)


@functools.cache
def _keep_memory() -> None:
    """Have glibc keep what is freed for the next table.

    By itself it gives back the megabytes of each, and to get them again page by page
    takes up to a third of the time to read one.
    """
    with contextlib.suppress(OSError, AttributeError):  # there are others
        adjust = ctypes.CDLL(None).mallopt
        for setting in (_KEPT_FREE, _LARGE):
            adjust(*setting)


def give_memory_back() -> None:
    """Have glibc give back what is free between what is not.

    Small objects of Python, of which rows of runs are made, cannot be put there.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
