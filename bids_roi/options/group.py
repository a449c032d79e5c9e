"""Options of the group level."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - list_options reads the types
from typing import ClassVar

from bids_roi.errors import UsageError
from bids_roi.options.row import check_there, option

GROUP_UNITS = ("participant", "run", "combined")

STACKS = ("none", "timeseries", "relmat")

STACK_DTYPES = ("float64", "float32")


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
        choices=GROUP_UNITS,
    )
    stack: tuple[str, ...] = option(
        "What to put into one HDF5 file per space, atlas and desc-, for machine"
        " learning: the time series of all runs, their matrices (upper triangles), or"
        " none.",
        default=("timeseries", "relmat"),
        choices=STACKS,
    )
    stack_dtype: str = option(
        "Numbers of the stacks: float64, those of the tables bit for bit, or float32,"
        " rounded to 7 digits, in half the space or less.",
        default="float64",
        choices=STACK_DTYPES,
    )

    covariates: tuple[str, ...] = option(
        "Columns of participants.tsv that are held constant in a QC-FC of their own,"
        " beside that without them: age sex site. What is no number is a category;"
        " NAME:category makes one of numbers. Participants with n/a are not in it.",
        default=(),
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
    confidence: bool = option(
        "Write 95 % confidence intervals, too: of QC-FC and ICC of each edge, and of"
        " distance dependence.",
        default=False,
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
