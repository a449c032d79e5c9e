"""Covariates of participants, from participants.tsv, as columns of a design."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.errors import (
    DataError,
    MissingInput,
    UsageError,
    nearest_words,
)
from bids_roi.files.listing import is_there
from bids_roi.files.tables import read_json, read_table, to_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


_TABLE = "participants.tsv"
# BIDS has n/a; of numbers, what other programs write for it, too.
_MISSING = {"", "n/a"}
_NO_NUMBER = {*_MISSING, "na", "nan", "none"}
# A number with something else: a decimal comma, a unit, a bound; or a date.
_LIKE_NUMBER = re.compile(r"[<>~+\N{MINUS SIGN}-]*\s*[.,]?\d")
_SHOWN = 5
# What is left of a column after those before it, of its own size.
_DEPENDENT = 1e-8


@dataclass(frozen=True, slots=True)
class Covariates:
    """What was asked for of each participant.

    Attributes
    ----------
    source
        The table.
    numbers, categories
        By column and participant (``sub-<label>``); those with n/a are not in it.
    """

    source: Path
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    categories: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Design:
    """Columns that are held constant in one group, of mean 0 and deviation 1.

    Attributes
    ----------
    rows
        Of each participant with all covariates, (K,).
    used
        What the columns are, in words.
    notes
        What is left out, and why.
    """

    rows: dict[str, FloatArray]
    used: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def n_columns(self) -> int:
        """K, of all covariates together."""
        return next((row.size for row in self.rows.values()), 0)


def find_table(given: Path | None, bids_dir: Path | None) -> Path:
    """Find participants.tsv: the one given, BIDS_DIR's, or its raw dataset's."""
    if given is not None:
        path = given / _TABLE if given.is_dir() else given
        if not path.is_file():
            raise MissingInput(
                "there is no such file.",
                where=path,
                remedy="Name participants.tsv, or its folder.",
            )
        return path
    places = []
    if bids_dir is not None:
        places.append(bids_dir / _TABLE)
        above = bids_dir.absolute().parent
        if above.name == "derivatives":
            places.append(above.parent / _TABLE)
    for path in places:
        if is_there(path):
            return path
    looked = ", ".join(map(str, places))
    msg = f"--covariates needs a {_TABLE}; there is none ({looked})."
    raise MissingInput(msg, remedy="Name it: --participants-file FILE.")


def read_covariates(path: Path, asked: Sequence[str]) -> Covariates:
    """Read what was asked for; ``NAME:category`` is one though it has numbers."""
    table = read_table(path)
    if "participant_id" not in table:
        raise DataError(
            "there is no column participant_id.", where=path, remedy="See BIDS."
        )
    people = [f"sub-{cell.removeprefix('sub-')}" for cell in table["participant_id"]]
    doubled = [person for person, n in Counter(people).items() if n > 1]
    _check_asked(asked)
    found = Covariates(path)
    for word in asked:
        name, _, kind = word.partition(":")
        if name not in table or name == "participant_id":
            columns = [c for c in table if c != "participant_id"]
            near = nearest_words(name, columns)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            msg = f"there is no column {name}.{hint}"
            remedy = f"It has {', '.join(columns) or 'no other column'}."
            raise DataError(msg, where=path, remedy=remedy)
        if doubled:
            msg = f"{doubled[0]} has more than one row: which holds is not told."
            remedy = (
                "Give a table with one row per participant: --participants-file FILE."
            )
            raise DataError(msg, where=path, remedy=remedy)
        cells = dict(zip(people, (c.strip() for c in table[name]), strict=True))
        as_category = kind == "category" or _has_levels(path, name)
        _sort_in(found, name, cells, as_category=as_category)
    return found


def _check_asked(asked: Sequence[str]) -> None:
    """Refuse another word than ``category`` behind a name, and a name twice."""
    names = [word.partition(":")[0] for word in asked]
    for word, name in zip(asked, names, strict=True):
        if word not in (name, f"{name}:category"):
            msg = f"--covariates {word}: only :category can follow the name."
            raise UsageError(msg)
        if names.count(name) > 1:
            msg = f"--covariates names {name} more than once."
            raise UsageError(msg, remedy=f"Give {name} or {name}:category alone.")


def _has_levels(path: Path, name: str) -> bool:
    """Whether participants.json says that the numbers of a column are codes."""
    beside = path.with_suffix(".json")
    if not is_there(beside, follow=False):
        return False
    told = read_json(beside).get(name)
    return isinstance(told, dict) and bool(told.get("Levels"))


def _sort_in(
    found: Covariates, name: str, cells: dict[str, str], *, as_category: bool
) -> None:
    """Add a column, as numbers where all of its cells are."""
    if as_category:
        found.categories[name] = {
            k: c for k, c in cells.items() if c.lower() not in _MISSING
        }
        return
    there = {k: c for k, c in cells.items() if c.lower() not in _NO_NUMBER}
    numbers = {k: x for k, c in there.items() if (x := _number(c)) is not None}
    if len(numbers) == len(there):
        found.numbers[name] = numbers
        return
    if numbers or any(_LIKE_NUMBER.match(cell) for cell in there.values()):
        odd = [cell for k, cell in there.items() if k not in numbers]
        shown = ", ".join(repr(c) for c in dict.fromkeys(odd[:_SHOWN]))
        msg = f"column {name} has cells that are no numbers beside others: {shown}."
        remedy = "Write numbers with a point, and n/a for what is not known, or ask"
        remedy += f" for {name}:category."
        raise DataError(msg, where=found.source, remedy=remedy)
    found.categories[name] = {
        k: c for k, c in cells.items() if c.lower() not in _MISSING
    }


def _number(cell: str) -> float | None:
    try:
        value = to_number(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def build_design(covariates: Covariates, people: Iterable[str]) -> Design:
    """Columns of the participants of one group: numbers, and dummies of categories."""
    asked = [*dict.fromkeys(people)]
    columns: dict[str, Mapping[str, float | str]] = {
        **covariates.numbers,
        **covariates.categories,
    }
    known = [p for p in asked if all(p in cells for cells in columns.values())]
    notes, used, kept = [], [], [np.ones(len(known))]
    with_all = {*known}
    left = [p for p in asked if p not in with_all]
    if left:
        lack = [n for n, cells in columns.items() if any(p not in cells for p in left)]
        shown = ", ".join(left[:_SHOWN]) + (", ..." if len(left) > _SHOWN else "")
        notes.append(
            f"{len(left)} of {len(asked)} participants have no {' or '.join(lack)} in"
            f" {covariates.source.name} and are not in the partial QC-FC: {shown}."
        )
    for name, cells in columns.items():
        own = _columns_of([cells[p] for p in known])
        if not own:
            if not known:
                continue
            notes.append(f"the covariate {name} is the same for all: it is left out.")
            continue
        new = 0
        for column in own:
            basis = np.linalg.qr(np.column_stack(kept))[0]
            rest = column - basis @ (basis.T @ column)
            if rest @ rest > _DEPENDENT * (column @ column):
                kept.append(column)
                new += 1
        word = (
            name
            if name in covariates.numbers
            else f"{name} ({len(own) + 1} categories)"
        )
        if new:
            used.append(word)
        if odd := [
            c for c in sorted({str(cells[p]) for p in known}) if c.lower() in _NO_NUMBER
        ]:
            notes.append(
                f"the covariate {name} has the category {', '.join(odd)}: of what is"
                " not known, BIDS has n/a, which leaves the participant out."
            )
        if new < len(own):
            notes.append(
                f"the covariate {word} is told by the others before it"
                f"{', in part' if new else ': it is left out'}."
            )
    rows = np.column_stack(kept)[:, 1:]
    return Design(dict(zip(known, rows, strict=True)), tuple(used), tuple(notes))


def _columns_of(cells: Sequence[float | str]) -> list[FloatArray]:
    """A column of mean 0 and deviation 1, one for each category but the first."""
    kinds = sorted({cell for cell in cells if isinstance(cell, str)})
    columns = [np.array([cell == kind for cell in cells], float) for kind in kinds[1:]]
    if not kinds:
        columns = [np.array(cells, dtype=float)]
    found = []
    for column in columns:
        deviation = column.std() if column.size else 0.0
        if deviation > _DEPENDENT * np.abs(column).max(initial=0):
            found.append((column - column.mean()) / deviation)
    return found
