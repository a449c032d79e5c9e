"""Which executor, and how much of it; one function for all of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from bids_roi.schedule.cluster import map_dask, map_slurm
from bids_roi.schedule.processes import map_processes
from bids_roi.schedule.serial import map_serial

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from bids_roi.schedule.outcome import Outcome


Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Executor:
    """Where items are worked on.

    Attributes
    ----------
    name
        ``processes``, ``serial``, ``dask`` or ``slurm``.
    n_workers
        Items at the same time, of ``processes`` and of ``dask`` on this machine.
    memory_bytes
        Of all of them together, or of a SLURM job; ``None`` for no bound.
    run_timeout
        Seconds that an item may take; ``None`` for as long as it needs.
    scheduler
        Address or JSON file of a running Dask scheduler.
    n_jobs, partition, account, walltime, cpus
        Of SLURM; ``None`` leaves them to dask-jobqueue's YAML files.
    log_dir
        Where SLURM jobs say what they have to say.
    """

    name: str = "processes"
    n_workers: int = 1
    memory_bytes: int | None = None
    run_timeout: float | None = None
    scheduler: str | None = None
    n_jobs: int = 1
    partition: str | None = None
    account: str | None = None
    walltime: str | None = None
    cpus: int | None = None
    log_dir: Path | None = None


def map_items(
    function: Callable[[Item], Value], items: Iterable[Item], executor: Executor
) -> Generator[Outcome[Item, Value], None, None]:
    """Apply a function to each item; a failing item never ends the others.

    Parameters
    ----------
    function
        Takes one item; picklable where there are workers, as are the items.
    items
        Taken a few at a time, so that planning and work go on together.
    executor
        Where. A single item is not worth a process of its own.

    Yields
    ------
    Outcome
        In the order of the items for ``serial``, else as they are ready.
    """
    items = iter(items)
    limit = executor.run_timeout
    if executor.name == "dask":
        yield from map_dask(
            function,
            items,
            n_workers=executor.n_workers,
            memory_bytes=executor.memory_bytes,
            scheduler=executor.scheduler,
            run_timeout=limit,
        )
    elif executor.name == "slurm":
        asked = {
            "queue": executor.partition,
            "account": executor.account,
            "walltime": executor.walltime,
            "cores": executor.cpus,
            "memory": executor.memory_bytes and f"{executor.memory_bytes}B",
        }
        yield from map_slurm(
            function,
            items,
            n_jobs=executor.n_jobs,
            asked=asked,
            log_dir=executor.log_dir,
            run_timeout=limit,
        )
    elif executor.name == "serial":
        yield from map_serial(function, items, run_timeout=limit)
    else:
        head = list(itertools.islice(items, 2))
        items = itertools.chain(head, items)
        if len(head) < 2 and limit is None:
            yield from map_serial(function, items)
        else:
            n_workers = executor.n_workers
            yield from map_processes(
                function, items, n_workers=n_workers, run_timeout=limit
            )
