"""Counts of runs and participants, apart from those of whom no run is known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bids_roi.errors import count_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Columns that tell which run, or participant, a row is of.
SIZED = ("participant_id", "session_id", "source")

# Ends of the sources of matrices over runs and of conditions, there or not.
_NO_RUNS = (".tsv", "_relmat", "_relmat_conditions")


def is_whole(source: str) -> bool:
    """Whether what could not be planned or read is a participant or a session.

    >>> is_whole("sub-01"), is_whole("sub-01_ses-2"), is_whole("sub-01_task-a_bold")
    (True, True, False)
    """
    return re.fullmatch("sub-[^_/]+(_ses-[^_/]+)?", source) is not None


def say_size(rows: Iterable[Mapping[str, object]]) -> str:
    """Say how many runs of how many participants rows of ``group_runs.tsv`` are of.

    >>> one = {"participant_id": "sub-1", "session_id": "ses-1", "source": "a_bold.nii"}
    >>> say_size([one, one, {"participant_id": "sub-2", "source": "sub-2"}])
    '1 run of 1 participant, and 1 participant of whom no run is known'
    """
    runs: set[str] = set()
    people: set[object] = set()
    known: set[object] = set()
    whole: dict[str, object] = {}
    for row in rows:
        source, person = str(row.get("source") or "n/a"), row.get("participant_id")
        if is_whole(source):
            whole[source] = person
            continue
        people.add(person)
        known |= {person, f"{person}_{row.get('session_id')}"}
        if source != "n/a" and not source.endswith(_NO_RUNS):
            runs.add(source)
    text = f"{count_of(len(runs), 'run')} of {count_of(len(people), 'participant')}"
    unknown = [source for source in whole if source not in known]
    n = sum(source == whole[source] for source in unknown)
    if n:
        text += f", and {count_of(n, 'participant')} of whom no run is known"
    if n := len(unknown) - n:
        text += f", and {count_of(n, 'session')} of which no run is known"
    return text
