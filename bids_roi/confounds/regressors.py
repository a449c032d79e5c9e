"""From a confounds table and a strategy to the regressors.

Agrees with nilearn's ``load_confounds`` column for column and value for value wherever
that returns something, and differs where it is silent or stops:

- a group without any column is an error, also for the cosines (nilearn#3537), and
  the message lists what there is of that kind;
- derivatives and squares are computed for tables of fMRIPrep before 1.4, which have
  none;
- ``ica_aroma basic`` is ``aroma_motion_*``, and not the ``aroma_orth_motion_*`` of the
  same components that fMRIPost-AROMA writes beside them;
- columns of other tables, one's own, are called ``NAME:COLUMN``.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.confounds.compcor import find_compcor
from bids_roi.confounds.motion import PARAMETERS, expand_course
from bids_roi.confounds.table import check_rows
from bids_roi.errors import ConfoundsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from bids_roi.confounds.strategies import Component, Strategy
    from bids_roi.confounds.table import Confounds

    FloatArray = NDArray[np.float64]


_MAX_NAMED = 8
_BASES = {
    "motion": PARAMETERS,
    "wm_csf": ("csf", "white_matter"),
    "csf": ("csf",),
    "white_matter": ("white_matter",),
    "global_signal": ("global_signal",),
}
_SUFFIXES = {
    "basic": ("",),
    "power2": ("", "_power2"),
    "derivatives": ("", "_derivative1"),
    "full": ("", "_derivative1", "_power2", "_derivative1_power2"),
}
_NUMBERED = {
    ("cosine", "all"): r"cosine_?\d+",
    ("ica_aroma", "basic"): r"aroma_motion_\d+",
    ("ica_aroma", "orthogonal"): r"aroma_orth_motion_\d+",
}
# fMRIPrep with --use-aroma (to 23), fMRIPost-AROMA.
_AROMA_SERIES = ("smoothAROMAnonaggr", "nonaggrDenoised")
# What else of its kind to list when a group is missing.
_KIN = {
    "motion": ("trans_", "rot_"),
    "wm_csf": ("csf", "white_matter"),
    "csf": ("csf",),
    "white_matter": ("white_matter",),
    "global_signal": ("global_signal",),
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
    kept: NDArray[np.bool_] | None = None,
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
    _check_series(confounds, strategy, image_desc)
    columns, computed = _columns(confounds)
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
        *_say_filters(strategy, names),
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
    kept: NDArray[np.bool_],
    where: str,
) -> None:
    """Refuse columns without a value in a kept volume; in others it has no effect."""
    gaps = ~np.isfinite(regressors) & kept[:, np.newaxis]
    bad = np.flatnonzero(gaps.any(axis=0))
    if not bad.size:
        return
    listed = [
        f"{names[i]} in volumes {_listed(np.flatnonzero(gaps[:, i]))}" for i in bad[:3]
    ]
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


def _listed(volumes: Iterable[int]) -> str:
    shown = [str(volume) for volume in volumes]
    more = f" and {len(shown) - _MAX_NAMED} more" if len(shown) > _MAX_NAMED else ""
    return ", ".join(shown[:_MAX_NAMED]) + more


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


def _check_series(
    confounds: Confounds, strategy: Strategy, image_desc: str | None
) -> None:
    wanted = any(
        part.kind == "ica_aroma" and part.model == "full"
        for part in strategy.components
    )
    if wanted and image_desc not in _AROMA_SERIES:
        found = f"desc-{image_desc}" if image_desc else "no desc-"
        needed = " or ".join(f"desc-{desc}" for desc in _AROMA_SERIES)
        msg = (
            f"{strategy.name} is for a series that ICA-AROMA has denoised, {needed};"
            f" the BOLD series has {found}."
        )
        remedy = f"Give --desc {_AROMA_SERIES[0]}, or a strategy with aroma columns."
        raise ConfoundsError(msg, where=confounds.where, remedy=remedy)


def _columns(confounds: Confounds) -> tuple[dict[str, FloatArray], set[str]]:
    """Columns by name, and which of them were computed.

    fMRIPrep 1.4 began to write derivatives (differences to the volume before, n/a in
    the first) and squares; measured on tables of 20.2.1, 23.1.2 and 23.2.0, computing
    them gives the same values within 1e-13. Where a table has some of them, the absence
    of others has another reason, and nothing is computed.
    """
    columns = dict(zip(confounds.names, confounds.values.T, strict=True))
    suffixes = _SUFFIXES["full"][1:]
    if any(name.endswith(suffixes) for name in columns):
        return columns, set()
    computed: dict[str, FloatArray] = {}
    for base in (*PARAMETERS, "csf", "white_matter", "global_signal"):
        if base in columns:
            made = expand_course(columns[base])
            computed |= {base + suffix: values for suffix, values in made.items()}
    return columns | computed, set(computed)


def _find(
    component: Component, confounds: Confounds, names: tuple[str, ...], search: _Search
) -> None:
    """Add the columns of a component to those found, or what is missing."""
    kind, there = component.kind, frozenset(names) - search.empty
    if (kind, component.model) == ("ica_aroma", "full"):
        return
    if kind in _BASES:
        suffixes = _SUFFIXES[component.model]
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


def _say_filters(strategy: Strategy, names: tuple[str, ...]) -> Iterable[str]:
    kinds = {part.kind for part in strategy.components}
    cosines = [name for name in names if re.fullmatch(r"cosine_?\d+", name)]
    high_pass = strategy.settings.high_pass
    if cosines and high_pass is not None:
        yield (
            f"{strategy.name}: two high-passes, {len(cosines)} cosine columns and a"
            f" {strategy.settings.filter} filter at {high_pass:g} Hz; one is enough."
        )
    if "compcor" in kinds and not cosines:
        yield (
            "fMRIPrep computes CompCor after a high-pass by its cosine columns, which"
            " this strategy does not regress out."
        )
