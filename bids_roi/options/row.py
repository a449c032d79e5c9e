"""Rows of the table of options, and the options that decide no number of a run.

Those are which runs, what the group level makes of them, and how the work is run.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from bids_roi.errors import MissingInput, UsageError

_URL = re.compile(r"(?:^|[,=])([A-Za-z][A-Za-z0-9+.-]*)://")


def refuse_url(text: str) -> None:
    """Refuse a URL where a file or folder of this machine is needed.

    On the text as it was given: a ``Path`` makes ``s3:/lab`` of ``s3://lab``, which is
    a folder that can be written.
    """
    if match := _URL.search(text):
        msg = f"a URL ({match[1]}://) cannot be read or written."
        remedy = (
            "Mount it (rclone mount, s3fs) or copy it here (rclone copy, aws s3 sync,"
            " datalad get), and give the path; copy the outputs away afterwards."
        )
        raise UsageError(msg, remedy=remedy)  # without it: it may hold a password


def check_there(*paths: Path | None) -> None:
    """Refuse files and folders that are not there."""
    for path in paths:
        if path is not None and not path.exists():
            msg = "there is no such file or folder."
            raise UsageError(msg, where=path, remedy="Check the spelling.")


def local_path(text: str | Path) -> Path:
    """Path of a file or folder of this machine, which no URL is, and no blank."""
    refuse_url(str(text))
    if not str(text).strip():
        # pathlib takes it for the current folder, as of a variable that is not set.
        raise UsageError("a path is blank.", remedy="Is a variable not set?")
    return Path(text)


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table."""

    # Field of ``Options``; the flag is the same word with hyphens.
    name: str
    # Heading it stands under in ``--help`` and docs/options.md.
    group: str
    help: str
    # ``str``, ``int``, ``float``, ``Path`` or ``bool`` (a switch).
    kind: type = str
    # Whether the flag takes several values.
    many: bool = False
    # What holds when the flag is absent.
    default: Any = None
    choices: tuple[str, ...] = ()
    # What stands for the value in the help.
    metavar: str = ""
    unit: str = ""
    # Key under which outputs record it, or empty where it changes no number.
    sidecar: str = ""
    # What it decides: every output of a ``run``, what is in a ``series`` or
    # ``relmat`` alone, or the ``atlas``. The digest of a run has the first.
    of: Literal["run", "series", "relmat", "atlas"] = "run"
    aliases: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """All spellings, the documented one first, hyphens and underscores."""
        spellings = []
        for flag in (f"--{self.name.replace('_', '-')}", *self.aliases):
            spellings.append(flag)
            if flag.startswith("--"):
                spellings.append("--" + flag[2:].replace("-", "_"))
        return tuple(dict.fromkeys(spellings))


def option(text: str, *, default: Any = None, **more: Any) -> Any:  # noqa: ANN401 - of any field
    """Field of a slice of the options, with its row.

    ``text``: the row's ``help``; ``default``: what holds when the flag is absent;
    ``**more``: further attributes of ``Option``; ``kind`` and ``many`` follow from the
    type.
    """
    return field(default=default, metadata={"row": {"help": text, **more}})


def switch(text: str, **more: Any) -> Any:  # noqa: ANN401 - as above
    """Field of an option that is off where its flag is absent."""
    return option(text, default=False, **more)


def labels(text: str, *, metavar: str = "LABEL", **more: Any) -> Any:  # noqa: ANN401 - as above
    """Field of an option of several values, none where its flag is absent."""
    return option(text, default=(), metavar=metavar, **more)


def list_options(record: Any) -> tuple[Option, ...]:  # noqa: ANN401 - a class
    """Rows of a slice of the options, in the order of its fields."""
    hints = get_type_hints(record)
    rows = []
    for item in fields(record):
        if "row" in item.metadata:
            # tuple[str, ...], str | None and str are all of kind str.
            hint = hints[item.name]
            kind = next(iter(get_args(hint)), hint)
            rows.append(
                Option(
                    item.name,
                    record.heading,
                    kind=kind,
                    many=isinstance(item.default, tuple),
                    default=item.default,
                    **item.metadata["row"],
                )
            )
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class Input:
    """What to process: filters over the names of files, and where they are."""

    heading: ClassVar[str] = "what to process"

    participant_label: tuple[str, ...] = labels(
        "Participants to process, with or without sub-. Default: all."
    )
    session_label: tuple[str, ...] = labels(
        "Sessions to process, with or without ses-. Default: all.",
        aliases=("--session-id",),
    )
    task_label: tuple[str, ...] = labels(
        "Tasks to process. Default: all.", aliases=("--task-id", "-t")
    )
    run_label: tuple[str, ...] = labels(
        "Runs to process (the number after run-). Default: all."
    )
    echo_label: tuple[str, ...] = labels(
        "Single echoes to process. Default: only the optimally combined series."
    )
    space: tuple[str, ...] = labels(
        "Spaces to process, for example MNI152NLin2009cAsym; native for series whose"
        " names have no space-. Default: every space that an asked-for atlas fits."
    )
    res: tuple[str, ...] = labels(
        "Values of the res- entity to process; native also for names without one."
        " Default: all."
    )
    den: tuple[str, ...] = labels(
        "Values of the den- entity to process (91k). Default: all."
    )
    hemi: tuple[str, ...] = labels(
        "Hemispheres of surface series to process, L or R. Default: both."
    )
    desc: str = option(
        "Value of the desc- entity of the BOLD files.",
        default="preproc",
        metavar="LABEL",
    )
    derivatives: Path | None = option(
        "The fMRIPrep derivative, where BIDS_DIR is a raw dataset that holds none or"
        " several in derivatives/.",
        metavar="DIR",
    )
    bids_filter_file: Path | None = option(
        "JSON with pybids filters under the keys bold, mask and confounds.",
        metavar="FILE",
    )
    bids_database_dir: Path | None = option(
        "Folder for pybids' index, kept between runs; never inside the input."
        " Default: in memory.",
        metavar="DIR",
    )

    def __post_init__(self) -> None:
        """Refuse files and folders that are not there."""
        check_there(self.bids_filter_file, self.derivatives)


@dataclass(frozen=True, slots=True)
class Group:
    """What the group level makes of the runs."""

    heading: ClassVar[str] = "group level"

    group_unit: str = option(
        "What group statistics are over: participants (the matrices of a participant's"
        " runs are averaged first, as Fisher's z, and so is their mean framewise"
        " displacement), single runs, or participants by the matrices over runs that"
        " --combine-runs has written (combined); stacks hold these alone then.",
        default="participant",
        choices=("participant", "run", "combined"),
    )
    stack: tuple[str, ...] = option(
        "What to put into one HDF5 file per space, atlas and desc-, for machine"
        " learning: the time series of all runs, their matrices (upper triangles), or"
        " none.",
        default=("timeseries", "relmat"),
        choices=("none", "timeseries", "relmat"),
    )
    stack_dtype: str = option(
        "Numbers of the stacks: float64, those of the tables bit for bit, or float32,"
        " rounded to 7 digits, in half the space or less.",
        default="float64",
        choices=("float64", "float32"),
    )

    covariates: tuple[str, ...] = labels(
        "Columns of participants.tsv that are held constant in a QC-FC of their own,"
        " beside that without them: age sex site. What is no number is a category;"
        " NAME:category makes one of numbers. Participants with n/a are not in it.",
        metavar="COLUMN",
    )
    participants_file: Path | None = option(
        "The participants.tsv of --covariates, or its folder. Default: that of"
        " BIDS_DIR, else of the dataset whose derivatives/ it lies in.",
        metavar="FILE",
    )
    fd_measure: str = option(
        "What QC-FC takes as a run's motion: a column of numbers of group_runs.tsv"
        " (fd_mean, Power's; rmsd_mean, Jenkinson's; fd_mean_kept; ...), or one of the"
        " tables of outliers, of which the mean over volumes is taken.",
        default="fd_mean",
        metavar="COLUMN",
    )
    permutations: int = option(
        "Permutations of the participants for p values of QC-FC and its distance"
        " dependence, with --covariates of that with them: 1000 take some seconds for"
        " each group. 0: none.",
        default=0,
        metavar="N",
    )
    permutation_seed: int = option(
        "Seed of the random permutations.", default=0, metavar="N"
    )
    confidence: bool = switch(
        "Write 95 % confidence intervals, too: of QC-FC and ICC of each edge, and of"
        " distance dependence."
    )
    group_weights: str = option(
        "Write means over the group in which runs weigh by their degrees of freedom,"
        " beside those in which all count alike.",
        default="none",
        choices=("none", "degrees_of_freedom"),
    )

    def __post_init__(self) -> None:
        """Refuse words that contradict each other."""
        self._check_permutations()
        check_there(self.participants_file)
        if self.participants_file is not None and not self.covariates:
            msg = "--participants-file has no effect without --covariates."
            raise UsageError(msg, remedy="Add --covariates COLUMN, or leave it out.")
        if "none" in self.stack and len(self.stack) > 1:
            shown = " ".join(self.stack)
            remedy = "Give none alone, or the others without it."
            raise UsageError(f"--stack {shown} contradicts itself.", remedy=remedy)

    def _check_permutations(self) -> None:
        n, seed = self.permutations, self.permutation_seed
        if not 0 <= n <= 10**6 or seed < 0:
            msg = "--permutations is from 0 to 1000000, --permutation-seed from 0 on"
            raise UsageError(f"{msg}, not {n} and {seed}.")
        if seed and not n:
            msg = "--permutation-seed has no effect without --permutations."
            raise UsageError(msg, remedy="Add --permutations 1000, or leave it out.")
        if n and self.group_unit == "run":
            msg = "--permutations and --group-unit run contradict each other: runs of"
            msg += " one participant cannot be exchanged with those of others."
            raise UsageError(msg, remedy="Leave --group-unit run out.")


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
        choices=("processes", "serial", "dask", "slurm"),
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
    threads_per_run: str = option(
        "Threads that decompress a large file; more than one needs rapidgzip (the extra"
        " fast). auto: the processors that are left to a run, and one where these are"
        " fewer than four, where --mem-mb is given, or without rapidgzip.",
        default="auto",
        metavar="auto|N",
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
    dry_run: bool = switch("Print what would be done and stop.")
    overwrite: bool = switch(
        "Replace outputs that were made with other options or from other input."
    )
    verify: bool = switch(
        "Read every table that is there, and make again what is not as it was written;"
        " without it only those whose size or time of change differ are read."
    )
    stop_on_first_crash: bool = switch(
        "Stop at the first run that fails instead of finishing the others."
    )
    no_report: bool = switch("Draw no figures and write no pages.")
    skip_bids_validation: bool = switch(
        "Accepted for compatibility: derivatives are never validated.",
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
        self._check_threads()
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

    def _check_threads(self) -> None:
        given = self.threads_per_run
        if given == "auto":
            return
        if not re.fullmatch(r"[1-9][0-9]{0,2}", given):
            msg = f"--threads-per-run is auto or a number from 1 to 999, not '{given}'."
            raise UsageError(msg, remedy="Leave it out for auto.")
        if given != "1" and importlib.util.find_spec("rapidgzip") is None:
            msg = f"--threads-per-run {given} needs rapidgzip, which is not installed."
            remedy = "Install it: pip install 'bids_roi[fast]'; or leave the flag out."
            raise MissingInput(msg, remedy=remedy)
