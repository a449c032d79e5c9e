"""Processors of a job, and what its processes inherit: one thread, no Ctrl-C.

Knows the standard library only, so that it can be called before numpy is loaded.
"""

from __future__ import annotations

import contextlib
import os
import signal
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    signal is inherited, and kept for the end of the body in this thread.
    """
    # It starts with the first process, and ends the block when it does (Python 3.11).
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
