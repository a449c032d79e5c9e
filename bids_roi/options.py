"""Every option once: its flags, field, sidecar key, unit, default and help.

``OPTIONS`` is the only table of options. The command line, ``boutiques.json``, the
README's table and the keys in the sidecars are all made from it, so one word serves
from the flag (``--min-coverage``) through the field (``min_coverage``) to the sidecar
(``MinimumCoverage``). The frozen ``Options`` record is what the rest of the package
sees; nothing below the front door ever sees an argparse namespace.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LEVELS", "OPTIONS", "STATISTICS", "Option", "Options"]

LEVELS = ("participant", "group")

STATISTICS = (
    "mean",
    "median",
    "sum",
    "minimum",
    "maximum",
    "standard_deviation",
    "variance",
)

DEFAULT_ATLAS = "Schaefer2018_seg-7n_scale-400"


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    Attributes
    ----------
    name
        Field of ``Options``; the flag is the same word with hyphens.
    group
        Heading it stands under in ``--help`` and the README.
    help
        One sentence, or two.
    kind
        ``str``, ``int``, ``float``, ``Path`` or ``bool`` (a switch).
    many
        Whether the flag takes several values.
    default
        What holds when the flag is absent.
    choices
        The allowed values, or empty.
    metavar
        What stands for the value in the help.
    unit
        Unit of the value, or empty.
    sidecar
        Key under which outputs record it, or empty where it changes no number.
    aliases
        Further flags with the same meaning.
    """

    name: str
    group: str
    help: str
    kind: type = str
    many: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    metavar: str = ""
    unit: str = ""
    sidecar: str = ""
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


_INPUT, _ATLAS, _EXTRACT, _RUN = (
    "what to process",
    "atlases",
    "extraction",
    "running",
)

OPTIONS: tuple[Option, ...] = (
    Option(
        "participant_label",
        _INPUT,
        "Participants to process, with or without sub-. Default: all.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "session_label",
        _INPUT,
        "Sessions to process, with or without ses-. Default: all.",
        many=True,
        metavar="LABEL",
        aliases=("--session-id",),
    ),
    Option(
        "task_label",
        _INPUT,
        "Tasks to process. Default: all.",
        many=True,
        metavar="LABEL",
        aliases=("--task-id", "-t"),
    ),
    Option(
        "run_label",
        _INPUT,
        "Runs to process (the number after run-). Default: all.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "echo_label",
        _INPUT,
        "Single echoes to process. Default: only the optimally combined series.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "space",
        _INPUT,
        "Spaces to process, for example MNI152NLin2009cAsym. Default: every space"
        " that an asked-for atlas fits.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "res",
        _INPUT,
        "Values of the res- entity to process. Default: all.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "desc",
        _INPUT,
        "Value of the desc- entity of the BOLD files.",
        default="preproc",
        metavar="LABEL",
    ),
    Option(
        "derivatives",
        _INPUT,
        "The fMRIPrep derivative, where BIDS_DIR is a raw dataset that holds none or"
        " several in derivatives/.",
        kind=Path,
        metavar="DIR",
    ),
    Option(
        "bids_filter_file",
        _INPUT,
        "JSON with pybids filters under the keys bold, mask and confounds.",
        kind=Path,
        metavar="FILE",
    ),
    Option(
        "bids_database_dir",
        _INPUT,
        "Folder for pybids' index, kept between runs; never inside the input."
        " Default: in memory.",
        kind=Path,
        metavar="DIR",
    ),
    Option(
        "atlas",
        _ATLAS,
        f"Atlases by name, from a TemplateFlow home that holds them. Default, where no"
        f" atlas of any kind is given: {DEFAULT_ATLAS}.",
        many=True,
        default=(),
        metavar="NAME",
        sidecar="Atlas",
        aliases=("--atlases",),
    ),
    Option(
        "atlas_file",
        _ATLAS,
        "Your own atlas: a label image and its table (TSV or CSV with index and"
        " name), separated by a comma.",
        many=True,
        default=(),
        metavar="IMAGE[,TABLE]",
    ),
    Option(
        "atlas_space",
        _ATLAS,
        "Space of the --atlas-file images whose names carry neither tpl- nor space-.",
        metavar="LABEL",
    ),
    Option(
        "templateflow_home",
        _ATLAS,
        "Folder in TemplateFlow's layout that holds the atlases. Default:"
        " $TEMPLATEFLOW_HOME.",
        kind=Path,
        metavar="DIR",
    ),
    Option(
        "statistic",
        _EXTRACT,
        "What to compute over the voxels of a region, per volume.",
        many=True,
        default=("mean",),
        choices=STATISTICS,
        sidecar="Statistic",
    ),
    Option(
        "mask",
        _EXTRACT,
        "Brain mask: auto (the run's own), none, or an image for all runs.",
        default="auto",
        metavar="{auto,none,PATH}",
        sidecar="Mask",
    ),
    Option(
        "min_coverage",
        _EXTRACT,
        "A region of which less than this share can be used becomes an n/a column.",
        kind=float,
        default=0.5,
        metavar="SHARE",
        unit="0 to 1",
        sidecar="MinimumCoverage",
    ),
    Option(
        "repetition_time",
        _EXTRACT,
        "Repetition time, instead of the one in the sidecar or header.",
        kind=float,
        metavar="S",
        unit="s",
        sidecar="RepetitionTimeGiven",
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


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for, checked once.

    Every field is a row of ``OPTIONS``; lists are tuples, absent values are ``None``.
    """

    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    task_label: tuple[str, ...] = ()
    run_label: tuple[str, ...] = ()
    echo_label: tuple[str, ...] = ()
    space: tuple[str, ...] = ()
    res: tuple[str, ...] = ()
    desc: str = "preproc"
    derivatives: Path | None = None
    bids_filter_file: Path | None = None
    bids_database_dir: Path | None = None
    atlas: tuple[str, ...] = ()
    atlas_file: tuple[str, ...] = ()
    atlas_space: str | None = None
    templateflow_home: Path | None = None
    statistic: tuple[str, ...] = ("mean",)
    mask: str = "auto"
    min_coverage: float = 0.5
    repetition_time: float | None = None
    dry_run: bool = False
    overwrite: bool = False
    stop_on_first_crash: bool = False
    skip_bids_validation: bool = False

    def __post_init__(self) -> None:
        """Check single values; raise ``UsageError`` with the remedy."""
        if not 0 <= self.min_coverage <= 1:
            msg = f"--min-coverage is a share from 0 to 1, not {self.min_coverage:g}."
            raise UsageError(msg)
        if self.repetition_time is not None and not 0.05 <= self.repetition_time <= 20:
            msg = (
                f"--repetition-time is in seconds; {self.repetition_time:g} s is not a"
                " plausible value (0.05 to 20)."
            )
            raise UsageError(msg, remedy="If it is in milliseconds, divide by 1000.")
        for path in (self.bids_filter_file, self.derivatives):
            if path is not None and not path.exists():
                msg = "there is no such file or folder."
                raise UsageError(msg, where=path, remedy="Check the spelling.")

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Options:
        """Build the record from parsed values; prefixes and repeats are removed."""
        given = {k: v for k, v in values.items() if v is not None}
        for option in OPTIONS:
            if option.many and option.name in given:
                given[option.name] = tuple(dict.fromkeys(given[option.name]))
        for name, prefix in _PREFIXES.items():
            given[name] = tuple(
                dict.fromkeys(v.removeprefix(prefix) for v in given.get(name, ()))
            )
        return cls(**given)

    @property
    def atlas_names(self) -> tuple[str, ...]:
        """Atlases by name; the default one where none is asked for in any way."""
        return self.atlas if self.atlas or self.atlas_file else (DEFAULT_ATLAS,)

    def digest(self) -> str:
        """Hash of the options that change numbers; 12 hexadecimal digits."""
        values = {
            option.sidecar: getattr(self, option.name)
            for option in OPTIONS
            if option.sidecar and option.name not in ("atlas", "statistic")
        }
        text = json.dumps(values, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_PREFIXES = {
    "participant_label": "sub-",
    "session_label": "ses-",
    "task_label": "task-",
    "run_label": "run-",
    "echo_label": "echo-",
    "space": "space-",
    "res": "res-",
}
