"""Processors that this job may use."""

from __future__ import annotations

import os
from pathlib import Path


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
