"""Confounds tables of fMRIPrep and its kin, in the names of today's fMRIPrep.

What changed between the versions, and what is done about it here::

    1.0, 1.1   CamelCase names (``FramewiseDisplacement``, ``RotX``, ``aCompCor00``),
               no derivatives or squares, no JSON; renamed when read
    1.2, 1.3   today's names; still no derivatives or squares, still no JSON
    1.4-20.2   ``a_comp_cor`` mixes masks, the JSON beside the table tells which
    21 on      ``c_comp_cor`` and ``w_comp_cor`` beside ``a_comp_cor`` (combined)
    24 on      no ``aroma_motion`` columns: fMRIPost-AROMA has them in a table of its
               own, ``merge_confounds`` puts the two side by side

Choosing columns is the matter of ``regressors``.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.errors import ConfoundsError, DataError
from bids_roi.files.tables import read_json, read_table, to_number, to_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


# fMRIPrep 1.0 and 1.1 -> today.
_OLD_NAMES = {
    "CSF": "csf",
    "WhiteMatter": "white_matter",
    "GlobalSignal": "global_signal",
    "stdDVARS": "std_dvars",
    "non-stdDVARS": "dvars",
    "vx-wisestdDVARS": "vx_wise_std_dvars",
    "FramewiseDisplacement": "framewise_displacement",
    "X": "trans_x",
    "Y": "trans_y",
    "Z": "trans_z",
    "RotX": "rot_x",
    "RotY": "rot_y",
    "RotZ": "rot_z",
}
_OLD_STEMS = {
    "aCompCor": "a_comp_cor_",
    "tCompCor": "t_comp_cor_",
    "Cosine": "cosine",
    "NonSteadyStateOutlier": "non_steady_state_outlier",
    "AROMAAggrComp": "aroma_motion_",
}
_OLD_NUMBERED = re.compile(rf"({'|'.join(_OLD_STEMS)})(\d+)")
# A modern table may hold a user's own column X, or CSF; these are fMRIPrep's alone.
_OLD_MARKS = frozenset({"FramewiseDisplacement", "GlobalSignal", "RotX", "stdDVARS"})
_ABSENT = frozenset({"", "n/a", "na", "nan"})
_MAX_NAMED = 5
_MORE_ROWS = 1000  # than volumes: the usual mistakes are told with the exact number


@dataclass(frozen=True, slots=True, eq=False)
class Confounds:
    """A table of confounds.

    ``names`` are in today's spelling and the file's order; ``values``, (T, C), are NaN
    where the file has ``n/a``. ``metadata`` is what the JSON beside the table says of
    each column (``Mask``, ``Method``, ``VarianceExplained``, ``Retained``); where it is
    empty, ``metadata_problem`` is why. ``paths`` has the file, or those that were
    merged; ``renamed`` pairs of the name in the file and the name here.
    """

    names: tuple[str, ...]
    values: FloatArray
    metadata: Mapping[str, Mapping[str, Any]]
    paths: tuple[Path, ...]
    renamed: tuple[tuple[str, str], ...] = ()
    metadata_problem: str = ""

    @property
    def n_volumes(self) -> int:
        """Rows of the table, T."""
        return int(self.values.shape[0])

    @property
    def where(self) -> str:
        """The files, for messages."""
        return ", ".join(map(str, self.paths))

    def column(self, name: str) -> FloatArray:
        """One column by its name, (T,)."""
        return self.values[:, self.names.index(name)]


def read_confounds(
    path: Path, n_volumes: int | None = None, *, rename: bool = True
) -> Confounds:
    """Read a confounds table and the JSON beside it.

    A JSON that is absent or damaged matters only when a strategy needs it, and is an
    error then. A table with far more rows than ``n_volumes`` is not read to its end;
    ``rename`` makes names of fMRIPrep 1.0 and 1.1 today's.
    """
    bound = None if n_volumes is None else n_volumes + _MORE_ROWS
    table = read_table(path, max_rows=bound)
    _check_header(table, path)
    renamed = _today(tuple(table)) if rename else {}
    n_rows = len(next(iter(table.values())))
    values = np.empty((n_rows, len(table)))
    wrong: list[str] = []
    for index, (name, cells) in enumerate(table.items()):
        values[:, index] = _numbers(name, cells, wrong)
    if wrong:
        more = f" and {len(wrong) - _MAX_NAMED} more" if len(wrong) > _MAX_NAMED else ""
        msg = f"cells are not numbers: {'; '.join(wrong[:_MAX_NAMED])}{more}."
        remedy = "Correct them; n/a stands for a missing value."
        raise ConfoundsError(msg, where=path, remedy=remedy)
    metadata, problem = _metadata(path.with_suffix(".json"))
    return Confounds(
        names=tuple(renamed.get(name, name) for name in table),
        values=values,
        metadata=metadata,
        paths=(path,),
        renamed=tuple(renamed.items()),
        metadata_problem=problem,
    )


def _check_header(table: Mapping[str, Sequence[str]], path: Path) -> None:
    if not table:
        msg = "the header names no column."
        raise ConfoundsError(msg, where=path, remedy="Check the separators (tabs).")
    if next(iter(table)).startswith("/annex/objects/"):
        msg = "the file is a git-annex pointer, its content is not here."
        raise ConfoundsError(msg, where=path, remedy="Fetch it (datalad get).")
    if all(_number(name) is not None for name in table):
        msg = "the table has numbers where the names of the columns are needed."
        remedy = "Add a header; fMRIPrep before 1.0 and melodic mixing files have none."
        raise ConfoundsError(msg, where=path, remedy=remedy)
    if not next(iter(table.values())):
        msg = "the table has a header and no rows, one row per volume is needed."
        raise ConfoundsError(msg, where=path, remedy="Run the preprocessing again.")


def _number(cell: str) -> float | None:
    """Value of a cell, NaN for the spellings of n/a, or None where it is no number."""
    if cell.lower() in _ABSENT:
        return math.nan
    try:
        return to_number(cell)
    except ValueError:
        return None


def _numbers(
    name: str, cells: Sequence[str], wrong: list[str]
) -> FloatArray | list[float]:
    # A column at once, as nearly all hold nothing but numbers and n/a; cell by cell
    # where that is not so, which takes ten times as long.
    if "_" not in "".join(cells):
        with contextlib.suppress(ValueError):
            return to_numbers(cells)
    values = []
    first = ""
    for row, cell in enumerate(cells, start=2):
        value = _number(cell)
        if value is None and not first:
            first = f"{name} in row {row} is {cell!r}"
        values.append(math.nan if value is None else value)
    if first:
        wrong.append(first)
    return values


def _today(names: tuple[str, ...]) -> dict[str, str]:
    """Old names of a table to today's; empty for a table that is not old."""
    if not _OLD_MARKS.intersection(names):
        return {}
    renamed: dict[str, str] = {}
    for name in names:
        numbered = _OLD_NUMBERED.fullmatch(name)
        if numbered is not None:
            renamed[name] = _OLD_STEMS[numbered[1]] + numbered[2]
        elif name in _OLD_NAMES:
            renamed[name] = _OLD_NAMES[name]
    # A table with both spellings keeps its own.
    return {old: new for old, new in renamed.items() if new not in names}


def _metadata(path: Path) -> tuple[dict[str, dict[str, Any]], str]:
    if not path.exists() and not path.is_symlink():
        return {}, f"there is no {path.name}"
    try:
        content = read_json(path)
    except DataError as error:
        return {}, f"{path.name}: {error.problem.rstrip('.')}"
    return {k: v for k, v in content.items() if isinstance(v, dict)}, ""


def check_rows(confounds: Confounds, n_volumes: int) -> None:
    """Refuse a table that has another number of rows than the series has volumes."""
    if confounds.n_volumes != n_volumes:
        msg = (
            f"the table has {confounds.n_volumes} rows, the BOLD series {n_volumes}"
            " volumes; one row per volume is needed."
        )
        remedy = "Check that the two belong together and that neither was cut."
        raise ConfoundsError(msg, where=confounds.where, remedy=remedy)


def merge_confounds(first: Confounds, second: Confounds) -> Confounds:
    """Put two tables of one run side by side, those of fMRIPost-AROMA for example.

    Columns that both have must have the same values.
    """
    if first.n_volumes != second.n_volumes:
        msg = (
            f"the table has {second.n_volumes} rows, but {first.where} has"
            f" {first.n_volumes}; both must have one row per volume."
        )
        remedy = "Check that they belong to one run, with all volumes."
        raise ConfoundsError(msg, where=second.where, remedy=remedy)
    both = [name for name in second.names if name in first.names]
    differ = [
        name
        for name in both
        if not np.array_equal(first.column(name), second.column(name), equal_nan=True)
    ]
    if differ:
        listed = ", ".join(differ[:_MAX_NAMED])
        msg = f"columns differ from those of the same name in {first.where}: {listed}."
        remedy = "Rename them in one of the tables, or give one table only."
        raise ConfoundsError(msg, where=second.where, remedy=remedy)
    new = [index for index, name in enumerate(second.names) if name not in both]
    problems = (first.metadata_problem, second.metadata_problem)
    return replace(
        first,
        names=(*first.names, *(second.names[index] for index in new)),
        values=np.hstack([first.values, second.values[:, new]]),
        metadata={**second.metadata, **first.metadata},
        paths=(*first.paths, *second.paths),
        renamed=(*first.renamed, *second.renamed),
        metadata_problem="; ".join(filter(None, problems)),
    )


def framewise_displacement(
    confounds: Confounds, needed: BoolArray | None = None
) -> FloatArray:
    """Framewise displacement in mm, (T,); not-a-number in the first volume.

    Comparing with a threshold leaves the first volume below it, as it should.

    ``needed``, (T,), are volumes of which it decides; the first needs no value.
    """
    return _quality(confounds, "framewise_displacement", "--fd-threshold", needed)


def std_dvars(confounds: Confounds, needed: BoolArray | None = None) -> FloatArray:
    """Standardised DVARS, (T,); not-a-number in the first volume."""
    return _quality(confounds, "std_dvars", "--std-dvars-threshold", needed)


def _quality(
    confounds: Confounds, name: str, option: str, needed: BoolArray | None
) -> FloatArray:
    if name not in confounds.names:
        near = [n for n in confounds.names if "displacement" in n or "dvars" in n]
        there = f"; there are {', '.join(near)}" if near else ""
        msg = f"there is no column {name}, which {option} needs{there}."
        remedy = f"Switch the threshold off ({option} none), or add the column."
        raise ConfoundsError(msg, where=confounds.where, remedy=remedy)
    values = confounds.column(name)
    absent = ~np.isfinite(values)
    absent[0] = False
    gaps = np.flatnonzero(absent if needed is None else absent & needed)
    if gaps.size:
        listed = ", ".join(map(str, gaps[:_MAX_NAMED]))
        more = f" and {gaps.size - _MAX_NAMED} more" if gaps.size > _MAX_NAMED else ""
        msg = f"{name} has no value in volumes {listed}{more}, counted from 0."
        remedy = f"Only the first may have none. Switch the threshold off ({option})."
        raise ConfoundsError(msg, where=confounds.where, remedy=remedy)
    return values


def non_steady_state(confounds: Confounds) -> BoolArray:
    """Volumes that fMRIPrep flags as not yet in a steady state, (T,).

    fMRIPrep writes a ``non_steady_state_outlier`` column for each; none where there
    is none.
    """
    stem = "non_steady_state_outlier"
    columns = [i for i, n in enumerate(confounds.names) if n.startswith(stem)]
    flags = confounds.values[:, columns]
    return np.asarray((np.nan_to_num(flags) != 0).any(axis=1))
