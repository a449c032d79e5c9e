"""Events of a task: the table of a run in the raw dataset, and what is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_roi.errors import DataError, UsageError, nearest_words
from bids_roi.files.names import parse_name
from bids_roi.files.tables import MISSING, read_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bids_roi.files.names import BidsName


# Of what was made of a run, and of what all its echoes share: no events file has them.
_NOT_OF_EVENTS = (
    *("space", "cohort", "res", "den", "hemi", "atlas", "seg", "scale"),
    *("stat", "desc", "echo", "part"),
)
_COLUMNS = ("onset", "duration", "trial_type")
# Times are sums of rounded numbers: what differs by less is the same.
_SAME_S = 1e-6


@dataclass(frozen=True, slots=True)
class Blocks:
    """Events of one condition."""

    # Onset and end in s from the first volume; only events that have a length
    spans: tuple[tuple[float, float], ...]
    n_unusable: int  # events without an onset, and without a length

    def choose(self, times: Sequence[float], shift: float) -> list[bool]:
        """Whether each of some times (s) is within an event, all moved by a shift (s).

        From the onset on, and before the end.

        >>> Blocks(((2.0, 6.0),), 0).choose([0.0, 2.0, 4.0, 6.0], 0)
        [False, True, True, False]
        """
        return [
            any(
                onset + shift <= time + _SAME_S and time + _SAME_S < end + shift
                for onset, end in self.spans
            )
            for time in times
        ]


def find_raw(root: Path, given: Path | None) -> Path:
    """Find the raw dataset: as given, or that in whose ``derivatives/`` ``root`` is."""
    if given is not None:
        return given
    for folder in root.absolute().parents:
        if folder.name == "derivatives":
            return folder.parent
    msg = "the derivative lies in no raw dataset, and conditions need its events.tsv."
    raise UsageError(msg, where=root, remedy="Name it with --raw-dataset.")


def find_events(raw: Path, name: BidsName) -> Path | None:
    """Find the table of events of a run, by the inheritance principle.

    The table applies whose entities are among the run's, the one in the deepest folder
    and there the one with most entities. ``None`` where there is none.

    Raises
    ------
    DataError
        Two of a folder apply alike.
    """
    own = {e for e in name.entities if e[0] not in _NOT_OF_EVENTS}
    labels = dict(own)
    person = raw / f"sub-{labels.get('sub')}"
    folders = [person / "func", person, raw]
    if session := labels.get("ses"):
        inner = person / f"ses-{session}"
        folders = [inner / "func", inner, person, raw]
    for folder in folders:
        there = {
            path: {*parse_name(path).entities}
            for path in sorted(folder.glob("*events.tsv"))
            if parse_name(path).suffix == "events"
        }
        fitting = {path: pairs for path, pairs in there.items() if pairs <= own}
        if not fitting:
            continue
        most = max(map(len, fitting.values()))
        best = [path for path, pairs in fitting.items() if len(pairs) == most]
        if len(best) > 1:
            names = ", ".join(path.name for path in best)
            msg = f"two tables of events apply to the run: {names}."
            raise DataError(msg, where=folder, remedy="Keep one of them.")
        return best[0]
    return None


def read_blocks(
    path: Path, conditions: Sequence[str]
) -> tuple[dict[str, Blocks], DataError | None]:
    """Read the events of some conditions (``trial_type``).

    Returns them by condition, and the error of those that the table does not have.

    Raises
    ------
    DataError
        The table lacks a column; with what it has.
    """
    table = read_table(path)
    if lacking := [column for column in _COLUMNS if column not in table]:
        msg = f"there is no column {', '.join(lacking)} among {', '.join(table)}."
        remedy = "BIDS has onset and duration, in s, and trial_type."
        raise DataError(msg, where=path, remedy=remedy)
    kinds = [cell.strip() for cell in table["trial_type"]]
    there = sorted(set(kinds) - {MISSING})
    lacking = [condition for condition in conditions if condition not in there]
    error = None
    if lacking:
        near = ", ".join(nearest_words(lacking[0], there))
        hint = f"Nearest: {near}. " if near else ""
        msg = f"there is no condition {', '.join(lacking)} (trial_type)."
        remedy = f"{hint}There are {', '.join(there) or 'none'}."
        error = DataError(msg, where=path, remedy=remedy)
    blocks = {}
    for condition in [c for c in conditions if c in there]:
        spans, n_unusable = [], 0
        for row, kind in enumerate(kinds):
            if kind != condition:
                continue
            onset = _number(table["onset"][row], path, row)
            length = _number(table["duration"][row], path, row)
            if math.isnan(onset) or not length > 0:
                n_unusable += 1
            else:
                spans.append((onset, onset + length))
        blocks[condition] = Blocks(tuple(spans), n_unusable)
    return blocks, error


def _number(cell: str, path: Path, row: int) -> float:
    """A time in s, NaN for none."""
    if cell.strip() in (MISSING, ""):
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        msg = f"{cell!r} in row {row + 1} is no time in s."
        raise DataError(msg, where=path, remedy=f"Write a number, or {MISSING}.")
    return value
