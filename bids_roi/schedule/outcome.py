"""What became of an item, and what is said of one whose worker was lost."""

from __future__ import annotations

import pickle
import signal
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from bids_roi.errors import BidsRoiError

if TYPE_CHECKING:
    from collections.abc import Callable


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

    Attributes
    ----------
    item
        As it was handed in.
    value
        What the function returned; ``None`` where there is an error.
    error
        What it raised, or what became of its worker.
    trace
        The traceback of the error, as text: it may come from another machine.
    """

    item: Item
    value: Value | None
    error: BaseException | None
    trace: str = ""


def attempt(
    function: Callable[[Item], Value], item: Item
) -> tuple[Value | None, Exception | None, str]:
    """Apply a function; an exception becomes part of the answer.

    Returns
    -------
    value, error, trace
        As in ``Outcome``.
    """
    try:
        return function(item), None, ""
    except Exception as error:  # noqa: BLE001 - it is the answer
        return None, error, traceback.format_exc()


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


def lost_worker(exit_code: int | None, *, tries: int = 2) -> BidsRoiError:
    """Say what probably happened to a worker that ended in the middle of an item.

    Parameters
    ----------
    exit_code
        As ``multiprocessing`` has it: minus the signal's number where one ended it;
        ``None`` where nothing is known.
    tries
        How often it was tried.
    """
    how = "was lost"
    remedy = _MEMORY
    if exit_code is not None:
        # 143: our own workers end so on SIGTERM, after they have tidied up.
        number = -exit_code if exit_code < 0 else exit_code - 128
        try:
            name = signal.Signals(number)
        except ValueError:
            how = f"ended with exit status {exit_code}"
            remedy = "Run it again with --executor serial and -vv to see why."
        else:
            how = f"was ended by {name.name}"
            remedy = _REMEDIES.get(name, _MEMORY)
    often = ", twice" if tries == 2 else f", {tries} times" if tries > 2 else ""
    return BidsRoiError(f"the worker process {how}{often}.", remedy=remedy)


def out_of_time(seconds: float) -> BidsRoiError:
    """Say that an item took longer than it was allowed to."""
    msg = f"not done after {seconds:g} s (--run-timeout), and given up."
    remedy = "If the disk is slow, allow more; else try it alone, with -vv."
    return BidsRoiError(msg, remedy=remedy)
