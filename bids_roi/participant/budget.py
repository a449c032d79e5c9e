"""How many runs at a time, and how many volumes each: processors and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_roi.errors import UsageError
from bids_roi.options.words import name_statistics
from bids_roi.schedule.outcome import usable_cpus

if TYPE_CHECKING:
    from pathlib import Path

    from bids_roi.images.stream import Source
    from bids_roi.options.record import Options
    from bids_roi.schedule.outcome import Executor


BLOCK_BYTES = 16 * 2**20
# Measured: a worker with everything imported and one atlas on a 2 mm grid.
_PROCESS_BYTES = 140 * 2**20
# Three buffers of the reader, the gathered values and their float64 copy.
_COPIES = 6
# Blocks' worth of whole series that may be held for medians and the like. Of files that
# are cut by points they are within these copies; else they come on top.
GATHERED = 4
# Measured: what rapidgzip takes, and each of its threads.
_RAPIDGZIP_BYTES, _THREAD_BYTES = 100 * 2**20, 110 * 2**20
# On fewer processors ISA-L alone is faster: rapidgzip takes nearly twice its time.
_LEAST_THREADS = 4
# Measured: a field of 1 mm moves the points of a 2 mm grid (benchmarks/transforms.py).
_MOVING_BYTES = 130 * 2**20


def worker_count(options: Options) -> int:
    """Runs to process at the same time, within ``n_procs`` and ``mem_mb``."""
    wanted = options.running.n_procs or usable_cpus()
    if options.running.mem_mb is None:
        return wanted
    room = options.running.mem_mb * 10**6 - _planner_bytes(options)
    return max(1, min(wanted, room // _worth_bytes(options)))


def _worth_bytes(options: Options) -> int:
    """The least memory that a worker can do with.

    Points are moved before the series is read, so that the larger need counts.
    """
    least = _copies(options) * BLOCK_BYTES // 2  # blocks of half the size
    moved = {"T1w", "native"} & set(options.input.space)
    if moved and options.atlases.atlas_transform == "auto":
        return _process_bytes(options) + max(least, _MOVING_BYTES)
    return _process_bytes(options) + least


def _planner_bytes(options: Options) -> int:
    """Memory of the process that plans, where it has workers beside it."""
    alone = options.running.executor == "serial" or (
        options.running.mem_mb is not None
        and options.running.mem_mb * 10**6 < _PROCESS_BYTES + _worth_bytes(options)
    )
    return 0 if alone else _PROCESS_BYTES


def threads_per_run(options: Options) -> int:
    """Threads that decompress a file: what is asked for, or the processors left."""
    running = options.running
    if running.threads_per_run != "auto":
        return int(running.threads_per_run)
    if running.mem_mb is not None:
        return 1
    n_runs = 1 if running.executor == "serial" else worker_count(options)
    n = usable_cpus() // n_runs
    return n if n >= _LEAST_THREADS else 1


def _process_bytes(options: Options) -> int:
    """Memory of a worker, without blocks."""
    given = options.running.threads_per_run
    n = int(given) if given != "auto" else 1
    return _PROCESS_BYTES + (n > 1) * (_RAPIDGZIP_BYTES + n * _THREAD_BYTES)


def choose_executor(options: Options, output_dir: Path) -> Executor:
    """Say where runs are processed, and how many at a time.

    An executor is imported where it is chosen: workers need none.
    """
    timeout = options.running.run_timeout
    memory_bytes = options.running.mem_mb and options.running.mem_mb * 10**6
    if options.running.executor == "dask":
        from bids_roi.schedule.cluster import Dask

        return Dask(
            worker_count(options), memory_bytes, options.running.dask_scheduler, timeout
        )
    if options.running.executor == "slurm":
        from bids_roi.schedule.cluster import Slurm

        return Slurm(
            output_dir / "logs" / "slurm",
            n_jobs=options.running.slurm_jobs or 4,
            partition=options.running.slurm_partition,
            account=options.running.slurm_account,
            walltime=options.running.slurm_walltime,
            n_cpus=options.running.n_procs,
            memory_bytes=memory_bytes,
            timeout=timeout,
        )
    if not _planner_bytes(options):
        from bids_roi.schedule.outcome import Serial

        return Serial(timeout)  # asked for, or no room for a second process
    from bids_roi.schedule.processes import Processes

    return Processes(worker_count(options), timeout)


def block_bytes(source: Source, options: Options) -> int:
    """Size of a block within the memory of a worker; an error where no volume fits."""
    if options.running.mem_mb is None:
        return BLOCK_BYTES
    room = options.running.mem_mb * 10**6 - _planner_bytes(options)
    mine = room // worker_count(options)
    own = _process_bytes(options) + _product_bytes(source, options)
    copies = _copies(options)
    fitting = (mine - own) // copies
    if fitting < source.volume_bytes:
        needed = (own + copies * source.volume_bytes) // 10**6 + 1
        msg = (
            f"a volume at a time needs about {needed} MB in each process,"
            f" {mine // 10**6} MB are given."
        )
        remedy = "Raise --mem-mb or lower --n-procs."
        raise UsageError(msg, where=source.path, remedy=remedy)
    return min(BLOCK_BYTES, fitting)


def estimate_memory(source: Source, options: Options) -> int:
    """Bytes that a worker will need for a run, roughly."""
    n_volumes = source.block_volumes(block_bytes(source, options))
    own = _process_bytes(options) + _product_bytes(source, options)
    return own + _copies(options) * n_volumes * source.volume_bytes


def _holds_series(options: Options) -> bool:
    """Whether something needs whole series of voxels."""
    asked = options.extraction.statistic
    return not set(asked).isdisjoint(name_statistics(family="series"))


def _copies(options: Options) -> int:
    return _COPIES + GATHERED * _holds_series(options)


def _product_bytes(source: Source, options: Options) -> int:
    """Memory of what is decomposed for an eigenvariate: volumes x volumes, twice."""
    return 2 * 8 * source.n_volumes**2 * _holds_series(options)
