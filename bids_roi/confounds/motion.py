"""Head motion in a table of confounds, and the table as a motion filter leaves it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.motion import (
    filter_motion,
    fold_frequencies,
    framewise_displacement,
)
from bids_roi.errors import ConfoundsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.confounds.table import Confounds
    from bids_roi.options.settings import Settings

    FloatArray = NDArray[np.float64]

PARAMETERS = tuple(f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz")
FD = "framewise_displacement"
# What is made of a column in each model, by the ends of their names.
EXPANSIONS = {
    "basic": ("",),
    "power2": ("", "_power2"),
    "derivatives": ("", "_derivative1"),
    "full": ("", "_derivative1", "_power2", "_derivative1_power2"),
}


def expand_course(course: FloatArray) -> dict[str, FloatArray]:
    """Derivative and squares of a column, (T,), by the ends of their names.

    As fMRIPrep has them: differences to the volume before, n/a in the first.
    """
    slope = np.diff(course, prepend=np.nan)
    return {
        "_derivative1": slope,
        "_power2": course**2,
        "_derivative1_power2": slope**2,
    }


def expand_columns(confounds: Confounds) -> tuple[dict[str, FloatArray], set[str]]:
    """Columns by name, and which of them were computed.

    fMRIPrep 1.4 began to write derivatives (differences to the volume before, n/a in
    the first) and squares; measured on tables of 20.2.1, 23.1.2 and 23.2.0, computing
    them gives the same values within 1e-13. Where a table has some of them, the absence
    of others has another reason, and nothing is computed.
    """
    columns = dict(zip(confounds.names, confounds.values.T, strict=True))
    suffixes = EXPANSIONS["full"][1:]
    if any(name.endswith(suffixes) for name in columns):
        return columns, set()
    computed: dict[str, FloatArray] = {}
    for base in (*PARAMETERS, "csf", "white_matter", "global_signal"):
        if base in columns:
            made = expand_course(columns[base])
            computed |= {base + suffix: values for suffix, values in made.items()}
    return columns | computed, set(computed)


@dataclass(frozen=True, slots=True, eq=False)
class FilteredMotion:
    """What a motion filter makes of a run.

    In ``confounds`` the parameters are filtered, and all that is made of them is made
    again. ``fd``, (T,), is in mm; ``band`` is what was taken out, per minute, as the
    run can show it.
    """

    confounds: Confounds
    fd: FloatArray
    band: tuple[float, ...]
    notes: tuple[str, ...] = ()


def filter_confounds(
    confounds: Confounds, settings: Settings, repetition_time: float
) -> FilteredMotion:
    """Filter the motion of a run, in s per volume, as the settings ask.

    All volumes are filtered, dummies too: a filter needs even steps.
    """
    if missing := [name for name in PARAMETERS if name not in confounds.names]:
        msg = f"the motion filter needs six parameters; missing: {', '.join(missing)}."
        remedy = "Add the columns, or leave --motion-filter out."
        raise ConfoundsError(msg, where=confounds.where, remedy=remedy)
    parameters = np.stack([confounds.column(name) for name in PARAMETERS], axis=1)
    gaps = np.flatnonzero(~np.isfinite(parameters).all(axis=1)).tolist()
    if gaps:
        listed = ", ".join(map(str, gaps[:5])) + (" and more" if gaps[5:] else "")
        msg = (
            "the motion filter needs the parameters of every volume; volumes (counted"
            f" from 0) without: {listed}."
        )
        remedy = "Complete the table, or leave --motion-filter out."
        raise ConfoundsError(msg, where=confounds.where, remedy=remedy)
    asked = settings.motion_filter_band or ()
    band = fold_frequencies(asked, repetition_time)
    try:
        filtered = filter_motion(parameters, band, repetition_time)
    except ValueError as error:
        remedy = "Change --motion-filter-band, or leave --motion-filter out."
        msg = f"{error}."
        raise ConfoundsError(msg, where=confounds.where, remedy=remedy) from error
    fd = framewise_displacement(filtered, settings.head_radius)
    made = {FD: fd}
    for name, course in zip(PARAMETERS, filtered.T, strict=True):
        made[name] = course
        made |= {name + end: values for end, values in expand_course(course).items()}
    # Of a table without squares all are made later, of what is filtered.
    names = (*confounds.names, *({FD} - set(confounds.names)))
    old = dict(zip(confounds.names, confounds.values.T, strict=True))
    values = np.stack([made.get(name, old.get(name, fd)) for name in names], axis=1)
    return FilteredMotion(
        replace(confounds, names=names, values=values),
        fd,
        band,
        _say_folding(asked, band, 30 / repetition_time),
    )


def _say_folding(
    asked: tuple[float, ...], band: tuple[float, ...], nyquist: float
) -> tuple[str, ...]:
    if asked == band:
        return ()
    before, after = (" to ".join(f"{f:.4g}" for f in each) for each in (asked, band))
    text = (
        f"the motion filter's {before} breaths per minute are above the highest"
        f" frequency of the run ({nyquist:.4g} per minute, Nyquist), where they appear"
        f" as {after}: that is what the filter was set to."
    )
    if min(asked) < nyquist:
        text += " The band is folded there, so that breathing near it stays."
    return (text,)
