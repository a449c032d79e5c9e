"""Columns that say which run a row of a table is about, and what was made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bids_roi.files.names import BidsName


# All end in _id, as BIDS's participant_id does: pybids takes a column that a sidecar
# describes for an entity of that name, and refuses the folder where a file name has
# another value.
RUN_COLUMNS = {"sub": "participant_id", "ses": "session_id"} | {
    key: f"{key}_id"
    for key in ("task", "acq", "ce", "rec", "dir", "run", "echo", "part")
}
# Entities of what was made of a run; all others tell the run itself.
SPACE_KEYS = ("space", "cohort", "res", "den", "hemi")

_RUN_AND_SPACE = RUN_COLUMNS | {key: f"{key}_id" for key in SPACE_KEYS}
KEY_COLUMNS = (*_RUN_AND_SPACE.values(), "desc_id")
_ALWAYS = ("participant_id", "session_id", "task_id", "run_id", "space_id", "res_id")
_GROUP_ALWAYS = ("task_id", "space_id", "res_id", "desc_id")

_TEXTS = {
    "participant_id": "Participant, with sub-.",
    "session_id": "Session, with ses-.",
    "desc_id": "BIDS desc: the denoising strategy, n/a for signals as they are.",
}


def identify(name: BidsName) -> dict[str, str | None]:
    """Columns that tell the run and its space, ``None`` for what the name lacks.

    Labels of sub- and ses- have their prefix.

    >>> from bids_roi.files.names import parse_name
    >>> row = identify(parse_name("sub-01_task-rest_space-T1w_bold.nii.gz"))
    >>> row["participant_id"], row["space_id"], row["run_id"]
    ('sub-01', 'T1w', None)
    """
    labels = dict(name.entities)
    row = {column: labels.get(key) for key, column in _RUN_AND_SPACE.items()}
    for key in ("sub", "ses"):
        if key in labels:
            row[RUN_COLUMNS[key]] = f"{key}-{labels[key]}"
    return row


def key_columns(
    rows: Iterable[Mapping[str, object]], more: tuple[str, ...] = ()
) -> list[str]:
    """Key columns in a fixed order; entities that no run has are left out."""
    present = {k for row in rows for k, value in row.items() if value}
    return [c for c in KEY_COLUMNS if c in present or c in (*_ALWAYS, *more)]


def place_columns(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Key columns of tables with one row per group."""
    present = {k for row in rows for k, value in row.items() if value}
    keys = [c for c in KEY_COLUMNS if c not in ("participant_id", "session_id")]
    return [c for c in keys if c in present or c in _GROUP_ALWAYS]


def describe_keys(columns: Iterable[str]) -> dict[str, str]:
    """Descriptions of key columns."""
    return {
        column: _TEXTS.get(column, f"BIDS {column.removesuffix('_id')}.")
        for column in columns
    }
