"""Options of how the work is run: processes, memory, failures; no number changes."""

from __future__ import annotations

from bids_roi.options.row import Option

__all__ = ["RUNNING_OPTIONS"]

_RUN = "running"

RUNNING_OPTIONS: tuple[Option, ...] = (
    Option(
        "n_procs",
        _RUN,
        "Runs to process at the same time. Default: the processors that this job may"
        " use.",
        kind=int,
        metavar="N",
        aliases=("--nprocs", "--n-cpus", "--nthreads"),
    ),
    Option(
        "mem_mb",
        _RUN,
        "Memory that all processes together may use; bounds how many run at a time and"
        " how many volumes each holds. Default: no bound, about 200 MB a process.",
        kind=int,
        metavar="MB",
        unit="MB",
    ),
    Option(
        "dry_run",
        _RUN,
        "Print what would be done and stop.",
        kind=bool,
        default=False,
    ),
    Option(
        "overwrite",
        _RUN,
        "Replace outputs that were made with other options or from other input.",
        kind=bool,
        default=False,
    ),
    Option(
        "stop_on_first_crash",
        _RUN,
        "Stop at the first run that fails instead of finishing the others.",
        kind=bool,
        default=False,
    ),
    Option(
        "skip_bids_validation",
        _RUN,
        "Accepted for compatibility: derivatives are never validated.",
        kind=bool,
        default=False,
        aliases=("--skip-bids-validator",),
    ),
)
