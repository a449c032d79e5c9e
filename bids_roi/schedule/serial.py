"""Executor that works in this process, one item after the other."""

from __future__ import annotations

import contextlib
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

from bids_roi.errors import BidsRoiError
from bids_roi.schedule.outcome import Executor, Outcome, attempt, out_of_time

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator


Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Serial(Executor):
    """The process itself; nothing needs to be picklable.

    An alarm ends an item after ``timeout`` seconds at its next step in Python, so not
    inside a system call that never returns, nor outside the main thread.
    """

    timeout: float | None = None

    def map(
        self, function: Callable[[Item], Value], items: Iterable[Item]
    ) -> Generator[Outcome[Item, Value], None, None]:
        """Yield the outcomes in the order of the items."""
        for item in items:
            try:
                with _alarm(self.timeout):
                    value, error, trace = attempt(function, item)
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
