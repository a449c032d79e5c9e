"""Map one function over the plan; a failing item never ends the others."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Outcome", "map_items"]

log = logging.getLogger("bids_roi")

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Value]):
    """What became of one item: a value, or the error that was raised."""

    item: Item
    value: Value | None
    error: Exception | None


def map_items(
    function: Callable[[Item], Value], items: Iterable[Item]
) -> Iterator[Outcome[Item, Value]]:
    """Apply a function to each item in turn, in this process.

    Parameters
    ----------
    function
        Takes one item.
    items
        Taken one at a time, so that planning and work alternate.

    Yields
    ------
    Outcome
        In the order of the items.
    """
    for item in items:
        try:
            value = function(item)
        except Exception as error:
            log.debug("traceback of the failure", exc_info=error)
            yield Outcome(item, None, error)
        else:
            yield Outcome(item, value, None)
