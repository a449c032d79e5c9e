"""Options of how the work is run: processes, memory, failures.

No number of an output depends on them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.errors import UsageError
from bids_roi.options.row import Option

if TYPE_CHECKING:
    from collections.abc import Mapping


EXECUTORS = ("processes", "serial", "dask", "slurm")

_RUN, _SLURM = "running", "--executor slurm"

RUNNING_OPTIONS: tuple[Option, ...] = (
    Option(
        "executor",
        _RUN,
        "Where runs are processed: in worker processes, one after the other in this"
        " one, on Dask, or in SLURM jobs through dask-jobqueue. The outputs are the"
        " same.",
        default="processes",
        choices=EXECUTORS,
    ),
    Option(
        "n_procs",
        _RUN,
        "Runs to process at the same time; with --executor slurm, in each job. Default:"
        " the processors that this job may use.",
        kind=int,
        metavar="N",
        aliases=("--nprocs", "--n-cpus", "--nthreads"),
    ),
    Option(
        "mem_mb",
        _RUN,
        "Memory that all processes together may use; bounds how many run at a time and"
        " how many volumes each holds. With --executor slurm, of each job. Default: no"
        " bound, about 200 MB a process.",
        kind=int,
        metavar="MB",
        unit="MB",
    ),
    Option(
        "run_timeout",
        _RUN,
        "Give up a run that takes longer; it is recorded as failed and the others go"
        " on. With --executor serial, not where it hangs inside a system call. Default:"
        " no limit.",
        kind=float,
        metavar="S",
        unit="s",
    ),
    Option(
        "dask_scheduler",
        _RUN,
        "With --executor dask: address of a running scheduler, or the JSON file that it"
        " wrote. Default: a cluster of --n-procs processes on this machine.",
        metavar="ADDRESS|FILE.json",
    ),
    Option(
        "slurm_jobs",
        _RUN,
        f"With {_SLURM}: jobs to submit. Default: 4.",
        kind=int,
        metavar="N",
    ),
    Option(
        "slurm_partition",
        _RUN,
        f"With {_SLURM}: partition of the jobs. This and the next two replace what"
        " dask-jobqueue's YAML files say.",
        metavar="NAME",
        aliases=("--slurm-queue",),
    ),
    Option(
        "slurm_account",
        _RUN,
        f"With {_SLURM}: account of the jobs.",
        metavar="NAME",
    ),
    Option(
        "slurm_walltime",
        _RUN,
        f"With {_SLURM}: time limit of a job.",
        metavar="[D-]HH:MM:SS",
    ),
    Option(
        "events",
        _RUN,
        "Append what happens to a file as it happens, one JSON object a line; - for"
        " standard output.",
        metavar="FILE|-",
    ),
    Option(
        "work_dir",
        _RUN,
        "Folder for temporary files: what Dask sets aside, matplotlib's cache. Nothing"
        " stays there, and nothing is resumed from there. Default: the system's.",
        kind=Path,
        metavar="DIR",
        aliases=("-w",),
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
        "no_report",
        _RUN,
        "Draw no figures and write no pages.",
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


def check_running(given: Mapping[str, Any]) -> None:
    """Refuse what cannot be meant; ``given`` has all fields of ``Options``."""
    for name, least in (("n_procs", 1), ("mem_mb", 200), ("slurm_jobs", 1)):
        value = given[name]
        if value is not None and value < least:
            msg = f"--{name.replace('_', '-')} is at least {least}, not {value}."
            raise UsageError(msg, remedy="Leave it out for no bound.")
    seconds, executor = given["run_timeout"], given["executor"]
    if seconds is not None and not seconds > 0:
        msg = f"--run-timeout is in seconds, above 0, not {seconds:g}."
        raise UsageError(msg, remedy="Leave it out for no limit.")
    for name, meant in _MEANT_FOR.items():
        if given[name] is not None and executor != meant:
            flag = f"--{name.replace('_', '-')}"
            msg = f"{flag} is for --executor {meant}, not {executor}."
            raise UsageError(msg, remedy=f"Add --executor {meant}, or leave it out.")
    for name in ("slurm_partition", "slurm_account"):
        value = given[name]
        if value is not None and not _NAMES.fullmatch(value):
            flag = f"--{name.replace('_', '-')}"
            msg = (
                f"{flag} is a name of letters, digits and . , : @ + _ -, not '{value}'."
            )
            raise UsageError(msg, remedy="Partitions: sinfo; accounts: sshare.")
    walltime = given["slurm_walltime"]
    if walltime is not None and not _WALLTIME.fullmatch(walltime):
        msg = f"--slurm-walltime is [D-]HH:MM:SS, not '{walltime}'."
        raise UsageError(msg, remedy="For example 04:00:00 for four hours.")
    scheduler = given["dask_scheduler"]
    if scheduler and scheduler.endswith(".json") and not Path(scheduler).is_file():
        msg = "there is no such file."
        raise UsageError(msg, where=scheduler, remedy="Is the scheduler running?")
