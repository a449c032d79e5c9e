"""The options of the input: which runs, of which derivative."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - list_options reads the types
from typing import ClassVar

from bids_roi.options.row import check_there, option


@dataclass(frozen=True, slots=True)
class Input:
    """What to process: filters over the names of files, and where they are."""

    heading: ClassVar[str] = "what to process"

    participant_label: tuple[str, ...] = option(
        "Participants to process, with or without sub-. Default: all.",
        default=(),
        metavar="LABEL",
    )
    session_label: tuple[str, ...] = option(
        "Sessions to process, with or without ses-. Default: all.",
        default=(),
        metavar="LABEL",
        aliases=("--session-id",),
    )
    task_label: tuple[str, ...] = option(
        "Tasks to process. Default: all.",
        default=(),
        metavar="LABEL",
        aliases=("--task-id", "-t"),
    )
    run_label: tuple[str, ...] = option(
        "Runs to process (the number after run-). Default: all.",
        default=(),
        metavar="LABEL",
    )
    echo_label: tuple[str, ...] = option(
        "Single echoes to process. Default: only the optimally combined series.",
        default=(),
        metavar="LABEL",
    )
    space: tuple[str, ...] = option(
        "Spaces to process, for example MNI152NLin2009cAsym; native for series whose"
        " names have no space-. Default: every space that an asked-for atlas fits.",
        default=(),
        metavar="LABEL",
    )
    res: tuple[str, ...] = option(
        "Values of the res- entity to process; native also for names without one."
        " Default: all.",
        default=(),
        metavar="LABEL",
    )
    den: tuple[str, ...] = option(
        "Values of the den- entity to process (91k). Default: all.",
        default=(),
        metavar="LABEL",
    )
    hemi: tuple[str, ...] = option(
        "Hemispheres of surface series to process, L or R. Default: both.",
        default=(),
        metavar="LABEL",
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
