"""Options of how the work is run: processes, memory, failures.

No number of an output depends on them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bids_roi.errors import UsageError
from bids_roi.options.row import option, refuse_url

EXECUTORS = ("processes", "serial", "dask", "slurm")

_SLURM = "--executor slurm"

# Fields that mean something to one executor only.
_MEANT_FOR = {
    "dask_scheduler": "dask",
    "slurm_jobs": "slurm",
    "slurm_partition": "slurm",
    "slurm_account": "slurm",
    "slurm_walltime": "slurm",
}
# MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS
_WALLTIME = re.compile(r"[0-9]+(:[0-9]{2}){0,2}|[0-9]+-[0-9]{1,2}(:[0-9]{2}){0,2}")
# They become lines of a job script: no newline, blank or word of a shell.
_NAMES = re.compile(r"[\w.:@+][\w.,:@+-]*")


@dataclass(frozen=True, slots=True)
class Running:
    """How the work is run: processes, memory, failures; no number changes."""

    heading: ClassVar[str] = "running"

    executor: str = option(
        "Where runs are processed: in worker processes, one after the other in this"
        " one, on Dask, or in SLURM jobs through dask-jobqueue. The outputs are the"
        " same.",
        default="processes",
        choices=EXECUTORS,
    )
    n_procs: int | None = option(
        "Runs to process at the same time; with --executor slurm, in each job. Default:"
        " the processors that this job may use.",
        metavar="N",
        aliases=("--nprocs", "--n-cpus", "--nthreads"),
    )
    mem_mb: int | None = option(
        "Memory that all processes together may use; bounds how many run at a time and"
        " how many volumes each holds. With --executor slurm, of each job. Default: no"
        " bound, about 200 MB a process.",
        metavar="MB",
        unit="MB",
    )
    run_timeout: float | None = option(
        "Give up a run that takes longer; it is recorded as failed and the others go"
        " on. With --executor serial, not where it hangs inside a system call. Default:"
        " no limit.",
        metavar="S",
        unit="s",
    )
    dask_scheduler: str | None = option(
        "With --executor dask: address of a running scheduler, or the JSON file that it"
        " wrote. Default: a cluster of --n-procs processes on this machine.",
        metavar="ADDRESS|FILE.json",
    )
    slurm_jobs: int | None = option(
        f"With {_SLURM}: jobs to submit. Default: 4.",
        metavar="N",
    )
    slurm_partition: str | None = option(
        f"With {_SLURM}: partition of the jobs. This and the next two replace what"
        " dask-jobqueue's YAML files say.",
        metavar="NAME",
        aliases=("--slurm-queue",),
    )
    slurm_account: str | None = option(
        f"With {_SLURM}: account of the jobs.",
        metavar="NAME",
    )
    slurm_walltime: str | None = option(
        f"With {_SLURM}: time limit of a job.",
        metavar="[D-]HH:MM:SS",
    )
    events: str | None = option(
        "Append what happens to a file as it happens, one JSON object a line; - for"
        " standard output.",
        metavar="FILE|-",
    )
    work_dir: Path | None = option(
        "Folder for temporary files: what Dask sets aside. Nothing stays there, and"
        " nothing is resumed from there. Default: the system's.",
        metavar="DIR",
        aliases=("-w",),
    )
    dry_run: bool = option(
        "Print what would be done and stop.",
        default=False,
    )
    overwrite: bool = option(
        "Replace outputs that were made with other options or from other input.",
        default=False,
    )
    verify: bool = option(
        "Read every table that is there, and make again what is not as it was written;"
        " without it only those whose size or time of change differ are read.",
        default=False,
    )
    stop_on_first_crash: bool = option(
        "Stop at the first run that fails instead of finishing the others.",
        default=False,
    )
    no_report: bool = option(
        "Draw no figures and write no pages.",
        default=False,
    )
    skip_bids_validation: bool = option(
        "Accepted for compatibility: derivatives are never validated.",
        default=False,
        aliases=("--skip-bids-validator",),
    )

    def __post_init__(self) -> None:
        """Check single values; raise ``UsageError`` with the remedy."""
        refuse_url(self.events or "")
        for name, least in (("n_procs", 1), ("mem_mb", 200), ("slurm_jobs", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                msg = f"--{name.replace('_', '-')} is at least {least}, not {value}."
                raise UsageError(msg, remedy="Leave it out for no bound.")
        seconds, executor = self.run_timeout, self.executor
        if seconds is not None and not seconds > 0:
            msg = f"--run-timeout is in seconds, above 0, not {seconds:g}."
            raise UsageError(msg, remedy="Leave it out for no limit.")
        for name, meant in _MEANT_FOR.items():
            if getattr(self, name) is not None and executor != meant:
                flag = f"--{name.replace('_', '-')}"
                msg = f"{flag} is for --executor {meant}, not {executor}."
                raise UsageError(
                    msg, remedy=f"Add --executor {meant}, or leave it out."
                )
        for name in ("slurm_partition", "slurm_account"):
            value = getattr(self, name)
            if value is not None and not _NAMES.fullmatch(value):
                flag = f"--{name.replace('_', '-')}"
                msg = (
                    f"{flag} is a name of letters, digits and . , : @ + _ -,"
                    f" not '{value}'."
                )
                raise UsageError(msg, remedy="Partitions: sinfo; accounts: sshare.")
        walltime = self.slurm_walltime
        if walltime is not None and not _WALLTIME.fullmatch(walltime):
            msg = f"--slurm-walltime is [D-]HH:MM:SS, not '{walltime}'."
            raise UsageError(msg, remedy="For example 04:00:00 for four hours.")
        scheduler = self.dask_scheduler
        if scheduler and scheduler.endswith(".json") and not Path(scheduler).is_file():
            msg = "there is no such file."
            raise UsageError(msg, where=scheduler, remedy="Is the scheduler running?")
