"""What participant outputs a folder holds: found by name, told apart by entity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bids_roi.errors import MissingInput
from bids_roi.files.names import BidsName, format_name, parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = [
    "FACTS",
    "KINDS",
    "PLACE_KEYS",
    "RUN_COLUMNS",
    "OutputTable",
    "describe_keys",
    "describe_series",
    "find_outputs",
    "identify",
    "identify_run",
    "key_columns",
    "name_run",
    "place_columns",
    "read_fact",
]

KINDS = {
    "timeseries": "timeseries",
    "dseg": "regions",
    "relmat": "relmat",
    "outliers": "outliers",
}

# Columns that say which run a row is about, as BIDS names them.
RUN_COLUMNS = {
    "sub": "participant_id",
    "ses": "session_id",
    "task": "task",
    "acq": "acq",
    "ce": "ce",
    "rec": "rec",
    "dir": "dir",
    "run": "run",
    "echo": "echo",
    "part": "part",
}

# Entities of what was made of a run; all others tell the run itself.
PLACE_KEYS = ("space", "cohort", "atlas", "seg", "scale", "res", "den", "desc")

# Column, key of the sidecar of a series, and unit.
FACTS = (
    ("n_volumes", "NumberOfVolumes", "volumes"),
    ("n_volumes_kept", "NumberOfVolumesKept", "volumes"),
    ("seconds_kept", "SecondsKept", "s"),
    ("repetition_time", "RepetitionTime", "s"),
    ("fd_mean", "MeanFramewiseDisplacement", "mm"),
    ("fd_mean_kept", "MeanFramewiseDisplacementKept", "mm"),
    ("fd_max", "MaxFramewiseDisplacement", "mm"),
    ("coverage_mean", "MeanCoverage", "0 to 1"),
    ("n_regions_lost", "NumberOfRegionsLost", "regions"),
    ("longest_gap", "LongestGap", "volumes"),
    ("n_gaps", "NumberOfGaps", "gaps"),
    ("degrees_of_freedom", "DegreesOfFreedom", "1"),
    ("effective_degrees_of_freedom", "EffectiveDegreesOfFreedom", "1"),
)


@dataclass(frozen=True, slots=True)
class OutputTable:
    """One table of the participant level.

    Attributes
    ----------
    path
        Of the TSV; the sidecar has the same stem.
    relative
        The path, relative to the output folder.
    kind
        ``timeseries``, ``regions``, ``relmat`` or ``outliers``.
    name
        Its parts.
    """

    path: Path
    relative: str
    kind: str
    name: BidsName

    @property
    def sidecar(self) -> Path:
        """Path of its JSON."""
        return self.path.with_suffix(".json")


def name_run(name: BidsName) -> str:
    """Tell the run that an output is of.

    >>> name_run(parse_name("sub-01_run-02_space-T1w_atlas-A_stat-mean_relmat.tsv"))
    'sub-01_run-02'
    """
    own = [e for e in name.entities if e[0] not in (*PLACE_KEYS, "stat")]
    return format_name(own, "", "").removesuffix("_")


def identify_run(name: BidsName) -> dict[str, str | None]:
    """Columns that tell the run; labels of sub- and ses- with their prefix."""
    labels = dict(name.entities)
    row = {column: labels.get(key) for key, column in RUN_COLUMNS.items()}
    for key, column in (("sub", "participant_id"), ("ses", "session_id")):
        if row[column] is not None:
            row[column] = f"{key}-{row[column]}"
    return row


def find_outputs(output_dir: Path) -> list[OutputTable]:
    """Find the tables of all runs, sorted by path.

    Parameters
    ----------
    output_dir
        Folder that the participant level wrote.

    Raises
    ------
    MissingInput
        If the folder is absent, or holds no output of a participant.
    """
    if not output_dir.is_dir():
        msg = "there is no such folder."
        raise MissingInput(msg, where=output_dir, remedy="Check the spelling.")
    found = sorted(_walk(output_dir), key=lambda table: table.relative)
    if not found:
        msg = "the folder holds no participant outputs (sub-*/[ses-*/]func/*.tsv)."
        remedy = "Give the output folder of bids_roi, after the participant level."
        raise MissingInput(msg, where=output_dir, remedy=remedy)
    return found


def _walk(output_dir: Path) -> Iterator[OutputTable]:
    for pattern in ("sub-*/func/sub-*.tsv", "sub-*/ses-*/func/sub-*.tsv"):
        for path in output_dir.glob(pattern):
            name = parse_name(path)
            kind = KINDS.get(name.suffix)
            labels = dict(name.entities)
            # An atlas's own table and the confounds of fMRIPrep are no outputs of ours.
            if kind is None or (kind == "outliers") == ("atlas" in labels):
                continue
            if kind in ("timeseries", "relmat") and "stat" not in labels:
                continue
            relative = path.relative_to(output_dir).as_posix()
            yield OutputTable(path, relative, kind, name)


def read_fact(sidecar: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - JSON
    """Value of a key of ``FACTS``; ``None`` where it is not told.

    The repetition time of a series that lacks rows is that of its run.
    """
    if key == "RepetitionTime" and key not in sidecar:
        key = "SourceRepetitionTime"
    return sidecar.get(key)


def describe_series(sidecar: Mapping[str, Any]) -> dict[str, float | None]:
    """Facts of a series, by column of ``FACTS``; ``None`` for what is not told."""
    told = {column: read_fact(sidecar, key) for column, key, _ in FACTS}
    return {
        column: float(value) if isinstance(value, int | float) else None
        for column, value in told.items()
    }


# Columns that say which run a row is about, and what was made of it.
_KEYS = {
    **RUN_COLUMNS,
    "space": "space",
    "cohort": "cohort",
    "res": "res",
    "den": "den",
    "desc": "desc",
}
_ALWAYS = ("participant_id", "session_id", "task", "run", "space", "res")
_GROUP_ALWAYS = ("task", "space", "res")

_TEXTS = {
    "participant_id": "Participant, with sub-.",
    "session_id": "Session, with ses-.",
    "desc": "BIDS desc: the denoising strategy, n/a for signals as they are.",
}


def identify(name: BidsName, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Columns that tell the run, labels of sub- and ses- with their prefix."""
    row = {_KEYS[k]: v for k, v in name.entities if k in _KEYS and k not in without}
    for key, column in (("sub", "participant_id"), ("ses", "session_id")):
        if column in row:
            row[column] = f"{key}-{row[column]}"
    return row


def key_columns(
    rows: Iterable[Mapping[str, object]], more: tuple[str, ...] = ()
) -> list[str]:
    """Key columns in a fixed order; entities that no run has are left out."""
    present = {name for row in rows for name in row}.union(_ALWAYS, more)
    return [column for column in _KEYS.values() if column in present]


def place_columns(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Key columns of tables with one row per group."""
    present = {k for row in rows for k, value in row.items() if value}
    keys = [c for c in _KEYS.values() if c not in ("participant_id", "session_id")]
    return [c for c in keys if c in present or c in (*_GROUP_ALWAYS, "desc")]


def describe_keys(columns: Iterable[str]) -> dict[str, dict[str, str]]:
    """Descriptions of key columns, for a sidecar."""
    return {
        column: {"Description": _TEXTS.get(column, f"BIDS {column}.")}
        for column in columns
    }
