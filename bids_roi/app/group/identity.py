"""Columns that say which run or group a row is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_roi.io.outputs.inventory import RUN_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bids_roi.io.names import BidsName

__all__ = ["describe_keys", "identify", "key_columns", "place_columns"]

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
