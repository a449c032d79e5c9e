"""A table of confounds: read in today's names, and the columns that a strategy takes.

What changed between the versions of fMRIPrep, and what is done about it here::

    1.0, 1.1   CamelCase names (``FramewiseDisplacement``, ``RotX``, ``aCompCor00``),
               no derivatives or squares, no JSON; renamed when read
    1.2, 1.3   today's names; still no derivatives or squares, still no JSON
    1.4-20.2   ``a_comp_cor`` mixes masks, the JSON beside the table tells which
    21 on      ``c_comp_cor`` and ``w_comp_cor`` beside ``a_comp_cor`` (combined)
    24 on      no ``aroma_motion`` columns: fMRIPost-AROMA has them in a table of its
               own, ``merge_confounds`` puts the two side by side

Columns are those of nilearn's ``load_confounds``, name for name and value for value,
wherever that returns something. They differ where it is silent or stops:

- a group without any column is an error, also for the cosines (nilearn#3537), and
  the message lists what there is of that kind;
- derivatives and squares are computed for tables of fMRIPrep before 1.4, which have
  none;
- ``ica_aroma basic`` is ``aroma_motion_*``, and not the ``aroma_orth_motion_*`` of the
  same components that fMRIPost-AROMA writes beside them;
- columns of other tables, one's own, are called ``NAME:COLUMN``.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.confounds.components import check_series, find_compcor, say_filters
from bids_roi.confounds.motion import EXPANSIONS, PARAMETERS, expand_columns
from bids_roi.errors import ConfoundsError, DataError
from bids_roi.files.listing import is_there
from bids_roi.files.tables import read_json, read_table, to_number, to_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.confounds.strategies import Component, Strategy

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
_MAX_VOLUMES = 8
_MORE_ROWS = 1000  # than volumes: the usual mistakes are told with the exact number
_BASES = {
    "motion": PARAMETERS,
    "wm_csf": ("csf", "white_matter"),
    "csf": ("csf",),
    "white_matter": ("white_matter",),
    "global_signal": ("global_signal",),
}
_NUMBERED = {
    ("cosine", "all"): r"cosine_?\d+",
    ("ica_aroma", "basic"): r"aroma_motion_\d+",
    ("ica_aroma", "orthogonal"): r"aroma_orth_motion_\d+",
}
# What else of its kind to list when a group is missing.
_KIN = {
    **_BASES,
    "motion": ("trans_", "rot_"),
    "cosine": ("cosine",),
    "ica_aroma": ("aroma",),
    "compcor": ("comp_cor",),
}
_HINTS = {
    "cosine": (
        "fMRIPrep writes no cosines for runs too short for its 128 s high-pass;"
        " --high-pass with --filter cosine makes them here"
    ),
    "ica_aroma": (
        "since 24.0 fMRIPrep leaves ICA-AROMA to fMRIPost-AROMA, whose table"
        " desc-aroma_timeseries.tsv has these columns"
    ),
}


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
    if not is_there(path, follow=False):
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


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """What is to be regressed out of a run.

    ``names`` are in alphabetical order, as nilearn has it; ``regressors``, (T, C), are
    finite in the volumes that are kept. ``filled`` lack a first value, and have that of
    the second; ``computed`` were made of others; ``missing`` were asked for and are not
    there, or hold nothing, which was allowed. ``notes`` are what a reader should know.
    """

    names: tuple[str, ...]
    regressors: FloatArray
    filled: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Search:
    """What has been found so far; ``empty`` are columns without any value."""

    empty: frozenset[str] = frozenset()
    found: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def select_confounds(
    confounds: Confounds,
    strategy: Strategy,
    *,
    n_volumes: int,
    image_desc: str | None,
    kept: BoolArray | None = None,
    allow_missing: bool = False,
    tables: Mapping[str, Confounds] | None = None,
) -> Selected:
    """Take the columns that a strategy names.

    ``image_desc`` is ``desc-`` of the BOLD series, as strategies on ICA-AROMA's output
    need the right one. Volumes that are ``kept``, (T,), all by default, need values.
    With ``allow_missing`` it goes on with what exists, and a note. ``tables`` are
    further ones, by the names that components have for them.
    """
    every = (confounds, *(tables or {}).values())
    for table in every:
        check_rows(table, n_volumes)
    where = ", ".join(table.where for table in every if table.paths)
    check_series(confounds, strategy, image_desc)
    columns, computed = expand_columns(confounds)
    names = tuple(columns)
    own = _own_columns(tables or {}, columns, where)
    columns |= own
    search = _Search(find_empty(columns, n_volumes))
    for component in strategy.components:
        # Patterns are for fMRIPrep's columns: another table adds none to them.
        among = tuple(own) if component.kind == "table" else names
        _find(component, confounds, among, search)
    if search.problems:
        listed = "; ".join(search.problems)
        how = "missing or empty" if search.empty & set(search.missing) else "missing"
        if not allow_missing:
            msg = f"columns that {strategy.name} needs are {how}: {listed}."
            remedy = (
                "Choose a strategy without them, or give --allow-missing-confounds to"
                " go on with those that exist."
            )
            raise ConfoundsError(msg, where=where, remedy=remedy)
        search.notes.append(f"Columns are {how}, as was allowed: {listed}.")
    _refuse_signals(search.found, where)
    names = tuple(sorted(set(search.found)))
    regressors = np.empty((n_volumes, len(names)))
    for index, name in enumerate(names):
        regressors[:, index] = columns[name]
    filled = fill_first(names, regressors)
    rows = np.ones(n_volumes, dtype=bool) if kept is None else kept
    check_gaps(names, regressors, rows, where)
    made = tuple(name for name in names if name in computed)
    notes = (
        *search.notes,
        *_say_changes(names, made, confounds),
        *_say_oddities(names, regressors[rows]),
        *say_filters(strategy, names),
    )
    return Selected(names, regressors, filled, made, tuple(search.missing), notes)


def find_empty(columns: Mapping[str, FloatArray], n_volumes: int) -> frozenset[str]:
    """Columns without a value in any volume, as fMRIPrep's csf where its mask is empty.

    A run of one volume has no derivatives; that is told as a gap.
    """
    if n_volumes < 2:
        return frozenset()
    return frozenset(k for k, v in columns.items() if not np.isfinite(v).any())


def fill_first(names: tuple[str, ...], regressors: FloatArray) -> tuple[str, ...]:
    """Give the second volume's value to the first where it has none, in place.

    Derivatives have no first value. nilearn fills it so; XCP-D takes 0.
    """
    if regressors.shape[0] < 2:
        return ()
    there = np.isfinite(regressors[:2])
    first = np.flatnonzero(~there[0] & there[1])
    regressors[0, first] = regressors[1, first]
    return tuple(names[index] for index in first)


def check_gaps(
    names: tuple[str, ...],
    regressors: FloatArray,
    kept: BoolArray,
    where: str,
) -> None:
    """Refuse columns without a value in a kept volume; in others it has no effect."""
    gaps = ~np.isfinite(regressors) & kept[:, np.newaxis]
    bad = np.flatnonzero(gaps.any(axis=0))
    if not bad.size:
        return
    listed = []
    for i in bad[:3]:
        at = np.flatnonzero(gaps[:, i])
        more = f" and {at.size - _MAX_VOLUMES} more" if at.size > _MAX_VOLUMES else ""
        shown = ", ".join(map(str, at[:_MAX_VOLUMES]))
        listed.append(f"{names[i]} in volumes {shown}{more}")
    more = f"; and {bad.size - 3} more columns" if bad.size > 3 else ""
    msg = (
        f"columns have gaps (counted from 0): {'; '.join(listed)}{more}. Only the first"
        " volume, if the second has a value, and censored volumes may have none."
    )
    remedy = (
        "Complete the table, choose a strategy without these columns, or have these"
        " volumes censored (--dummy-scans, --censor-before, --censor-after)."
    )
    raise ConfoundsError(msg, where=where, remedy=remedy)


def _own_columns(
    tables: Mapping[str, Confounds], columns: Mapping[str, FloatArray], where: str
) -> dict[str, FloatArray]:
    """Columns of one's own tables, none of them called as one of ``columns`` is."""
    own = {
        f"{word}:{column}": values
        for word, table in tables.items()
        for column, values in zip(table.names, table.values.T, strict=True)
    }
    if both := sorted(own.keys() & columns):
        msg = f"{both[0]} is a column of both tables."
        raise ConfoundsError(
            msg, where=where, remedy="Give --confounds-dataset another NAME."
        )
    return own


def _refuse_signals(names: Iterable[str], where: str) -> None:
    """Refuse columns of XCP-D that others are to be made orthogonal to."""
    signals = [name for name in names if name.partition(":")[2].startswith("signal__")]
    if signals:
        msg = (
            f"{summarise_names(signals)}: in XCP-D, signal__ columns are kept, by"
            " making the others orthogonal to them; that is not done here."
        )
        remedy = "Make them orthogonal beforehand, and name the other columns only."
        raise ConfoundsError(msg, where=where, remedy=remedy)


def _find(
    component: Component, confounds: Confounds, names: tuple[str, ...], search: _Search
) -> None:
    """Add the columns of a component to those found, or what is missing."""
    kind, there = component.kind, frozenset(names) - search.empty
    if (kind, component.model) == ("ica_aroma", "full"):
        return
    if kind in _BASES:
        suffixes = EXPANSIONS[component.model]
        wanted = [base + suffix for base in _BASES[kind] for suffix in suffixes]
    elif kind == "columns":
        wanted = list(component.columns)
    elif kind == "table":
        prefix = f"{component.model}:"
        wanted = [prefix + column for column in component.columns]
        wanted = wanted or [name for name in names if name.startswith(prefix)]
    elif kind == "compcor":
        wanted, notes = find_compcor(confounds, component)
        search.notes += notes
    else:
        pattern = _NUMBERED.get((kind, component.model), component.model)
        wanted = [name for name in names if re.fullmatch(pattern, name)]
    missing = [name for name in wanted if name not in there]
    search.found += [name for name in wanted if name in there]
    if missing or not wanted:
        search.missing += missing or [str(component)]
        absent = [name for name in missing if name not in names]
        if absent or not wanted:
            search.problems.append(_say_missing(component, wanted, absent, names))
        if empty := [name for name in missing if name in search.empty]:
            search.problems.append(
                f"{len(empty)} of {len(wanted)} of {kind}"
                f" ({summarise_names(empty)}) hold nothing but n/a"
            )


def _say_missing(
    component: Component,
    wanted: Sequence[str],
    missing: Sequence[str],
    names: Sequence[str],
) -> str:
    if not wanted:
        what = f"no column for {component}"
    elif len(missing) == len(wanted) and component.kind != "columns":
        what = f"all {len(wanted)} of {component} ({summarise_names(missing)})"
    else:
        what = f"{len(missing)} of {len(wanted)} of {component.kind}"
        what = f"{what} ({summarise_names(missing)})"
    if component.kind == "columns":
        near = {
            close
            for name in missing
            for close in difflib.get_close_matches(name, names, n=2)
        }
        kin = [name for name in names if name in near]
    elif component.kind == "pattern":
        kin = list(names)
    elif component.kind == "table":
        kin = [name for name in names if name.startswith(f"{component.model}:")]
    else:
        stems = _KIN[component.kind]
        kin = [name for name in names if any(stem in name for stem in stems)]
    exists = summarise_names(kin) if kin else "nothing of the kind"
    hint = _HINTS.get(component.kind, "")
    return f"{what}; the table has {exists}" + (f" ({hint})" if hint else "")


def summarise_names(names: Iterable[str]) -> str:
    """List names, numbered ones as a range with their number.

    >>> summarise_names(["cosine00", "cosine01", "csf"])
    'cosine00 to cosine01 (2), csf'
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        stem = re.sub(r"(?<!derivative)(?<!power)\d+$", "#", name)
        groups.setdefault(stem, []).append(name)
    parts = [
        members[0]
        if len(members) == 1
        else f"{members[0]} to {members[-1]} ({len(members)})"
        for members in groups.values()
    ]
    more = f" and {len(parts) - 40} more" if len(parts) > 40 else ""
    return ", ".join(parts[:40]) + more


def _say_changes(
    names: tuple[str, ...], computed: tuple[str, ...], confounds: Confounds
) -> Iterable[str]:
    if computed:
        yield (
            "The table has no derivatives and squares (fMRIPrep before 1.4); computed"
            f" as fMRIPrep does: {summarise_names(computed)}."
        )
    old = [f"{old} as {new}" for old, new in confounds.renamed if new in names]
    if old:
        yield f"Columns renamed from fMRIPrep 1.0/1.1: {', '.join(old)}."


def _say_oddities(names: tuple[str, ...], regressors: FloatArray) -> Iterable[str]:
    constant = [
        name
        for name, course in zip(names, regressors.T, strict=True)
        if np.ptp(course) == 0
    ]
    if constant:
        yield f"Columns are constant and explain nothing: {', '.join(constant)}."
    seen: dict[bytes, str] = {}
    for name, course in zip(names, regressors.T, strict=True):
        # Adding zero turns -0.0 into 0.0, which has other bytes.
        twin = seen.setdefault((course + 0.0).tobytes(), name)
        if twin != name and name not in constant:
            yield f"Columns {twin} and {name} are identical and count once."
