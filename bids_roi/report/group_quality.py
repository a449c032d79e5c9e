"""Quality of all runs: a strip of dots per measure, and runs far from the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bids_roi.report.canvas import Picture, bin_size, count
from bids_roi.report.facts import number
from bids_roi.report.paper import (
    BLUE,
    INK,
    ORANGE,
    Panel,
    Sheet,
    fit_words,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    Kind = Literal["share", "count", "amount"]


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of ``group_runs.tsv`` in words, and on which side it is bad."""

    column: str
    words: str
    high_is_bad: bool
    kind: Kind = "amount"


MEASURES = (
    Measure("fd_mean", "Mean FD, all (mm)", high_is_bad=True),
    Measure("fd_mean_kept", "Mean FD, kept (mm)", high_is_bad=True),
    Measure("n_volumes_kept", "Volumes kept", high_is_bad=False, kind="count"),
    Measure("longest_gap", "Longest gap (volumes)", high_is_bad=True, kind="count"),
    Measure("degrees_of_freedom", "Degrees of freedom", high_is_bad=False),
    Measure("effective_degrees_of_freedom", "Effective ones", high_is_bad=False),
    Measure("coverage_mean", "Mean coverage", high_is_bad=False, kind="share"),
    Measure("n_regions_lost", "Regions lost", high_is_bad=True, kind="count"),
    Measure("tsnr_median", "Median tSNR", high_is_bad=False),
)

# Of five values of a normal distribution one in 23 is beyond the limit, of ten one in
# 50, of fifty one in 150 (20,000 draws each): of fewer than ten it is no news.
LEAST_RUNS = 10

_DOTS, _NAMED = 2000, 4000
_WIDTH, _LEFT, _STRIP, _AXIS = 1120.0, 230.0, 30.0, 30.0


@dataclass(frozen=True, slots=True)
class Strip:
    """One measure of all runs; of one atlas or strategy where it differs by these.

    Attributes
    ----------
    rows : (N,)
        Of ``group_runs.tsv``, one for each run.
    values : (N,)
        Known ones only.
    outlying : (N,)
        Whether each lies beyond ``limit``, on the bad side.
    """

    measure: Measure
    label: str
    rows: NDArray[np.intp]
    values: FloatArray
    outlying: NDArray[np.bool_]
    limit: float


def find_outliers(
    values: FloatArray, *, high_is_bad: bool
) -> tuple[NDArray[np.bool_], float]:
    """Mark values far outside the others, on the bad side only, and the limit.

    Beyond one and a half times the range between the quartiles (Tukey 1977), which is
    taken for a twentieth of the median at least: where most runs are alike, one volume
    less is no news. The limit is NaN for fewer than ten values; NaN is no outlier.
    """
    known = values[np.isfinite(values)]
    if known.size < LEAST_RUNS:
        return np.zeros(values.shape, dtype=bool), float("nan")
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    reach = 1.5 * max(high - low, abs(middle) / 20)
    limit = float(high + reach if high_is_bad else low - reach)
    with np.errstate(invalid="ignore"):
        return (values > limit if high_is_bad else values < limit), limit


def list_strips(runs: Mapping[str, Sequence[str]]) -> list[Strip]:
    """Strips of all measures that are known of some run.

    A measure has one strip, where each run has one value of it whatever the atlas and
    the strategy; else one for each strategy, or atlas, or both.
    """
    found = []
    n_rows = len(runs.get("participant_id", ()))
    for measure in MEASURES:
        told = [number(cell) for cell in runs.get(measure.column, ())]
        values = np.array([np.nan if v is None else v for v in told])
        if not np.isfinite(values).any():
            continue
        for label, rows in _split(runs, values, n_rows):
            own = values[rows]
            outlying, limit = find_outliers(own, high_is_bad=measure.high_is_bad)
            found.append(Strip(measure, label, rows, own, outlying, limit))
    return found


def _split(
    runs: Mapping[str, Sequence[str]], values: FloatArray, n_rows: int
) -> list[tuple[str, NDArray[np.intp]]]:
    """Rows of each strip: by as little as makes the value of a run one value."""
    sources = [
        str(row) if source == "n/a" else source
        for row, source in enumerate(runs.get("source", ["n/a"] * n_rows))
    ]
    known = np.flatnonzero(np.isfinite(values)).tolist()
    strips: dict[tuple[str, ...], dict[str, int]] = {}
    for keys in ((), ("desc_id",), ("atlas_id",), ("atlas_id", "desc_id")):
        strips = {}
        one = True
        for row in known:
            key = tuple(runs[k][row] for k in keys if k in runs)
            first = strips.setdefault(key, {}).setdefault(sources[row], row)
            one &= values[first] == values[row]
        if one:
            break
    # Strategies that do the same to this measure share a strip.
    alike: dict[tuple[object, ...], tuple[list[tuple[str, ...]], list[int]]] = {}
    for key, own in strips.items():
        told = (*key[:-1], *((source, values[row]) for source, row in own.items()))
        alike.setdefault(told, ([], [*own.values()]))[0].append(key)
    return [
        (_label(keys), np.array(rows, dtype=np.intp)) for keys, rows in alike.values()
    ]


def _label(keys: Sequence[tuple[str, ...]]) -> str:
    """Atlas and strategy, or strategies: ``none, 24P and 3 others``.

    >>> _label([("n/a",)]), _label([("A", "24P"), ("A", "36P")])
    ('none', 'A, 24P, 36P')
    """
    shared, last = keys[0][:-1], [key[-1] for key in keys if key]
    names = ["none" if name == "n/a" else name for name in last]
    if len(names) > 3:
        names = [names[0], f"{names[1]} and {len(names) - 2} others"]
    return ", ".join((*shared, *names))


def draw_strips(
    strips: Sequence[Strip], names: Sequence[str], links: Sequence[str]
) -> Picture | None:
    """Draw one strip of dots per measure: every run a dot that names it.

    ``names`` and ``links`` are of the rows of ``group_runs.tsv``; links are as seen
    from the folder of the figure.
    """
    if not strips:
        return None
    blocks: dict[Measure, list[Strip]] = {}
    for strip in strips:
        blocks.setdefault(strip.measure, []).append(strip)
    tall = sum(_height(own) for own in blocks.values())
    sheet = Sheet(_WIDTH, tall + 12)
    named = sum(strip.values.size for strip in strips) <= _NAMED
    top, heard = 8.0, []
    for measure, own in blocks.items():
        _draw_block(sheet, top, measure, own, (names, links), named=named)
        top += _height(own)
        heard += [_hear(strip) for strip in own]
    text = (
        "One dot per run; it names the run, and leads to its page. Line: median, shade:"
        " half of all runs."
    )
    if not named:
        text = text.replace("it names the run, and leads", "diamonds name it, and lead")
    most = max(strip.values.size for strip in strips)
    if most >= LEAST_RUNS:
        text += " Diamonds: beyond one and a half times that range, on the bad side."
    else:
        text += f" Outliers are marked from {LEAST_RUNS} runs on."
    return Picture(
        "distributions",
        sheet.finish(),
        ".svg",
        "Quality of all runs",
        text,
        f"Strips of dots. {'; '.join(heard)}.",
    )


def _height(strips: Sequence[Strip]) -> float:
    title = 0 if len(strips) == 1 and not strips[0].label else 18
    return title + _STRIP * len(strips) + _AXIS


def _hear(strip: Strip) -> str:
    told = strip.measure.words + (f", {strip.label}" if strip.label else "")
    told += f": median {float(np.median(strip.values)):.4g}"
    if np.isfinite(strip.limit):
        told += f", {count(int(strip.outlying.sum()), 'outlier')}"
    return told


def _span(measure: Measure, strips: Sequence[Strip]) -> tuple[float, float]:
    """Ends of an axis that mean something, though all runs be the same."""
    if measure.kind == "share":
        return 0.0, 1.0
    low = min(0.0, *(float(strip.values.min()) for strip in strips))
    high = max(float(strip.values.max()) for strip in strips)
    return low, 1.04 * high if high > 0 else 1.0


def _draw_block(
    sheet: Sheet,
    top: float,
    measure: Measure,
    strips: Sequence[Strip],
    told: tuple[Sequence[str], Sequence[str]],
    *,
    named: bool,
) -> None:
    """A measure: its strips on one axis."""
    alone = len(strips) == 1 and not strips[0].label
    if not alone:
        sheet.text(0, top + 12, measure.words, size=12, bold=True)
        top += 18
    span = _span(measure, strips)
    wide = _WIDTH - _LEFT - 24
    for strip in strips:
        words, bold = (measure.words, True) if alone else (strip.label, False)
        middle = top + _STRIP / 2 + 4
        shown = fit_words(words, _LEFT - 20, 12)
        sheet.text(_LEFT - 14, middle, shown, size=12, anchor="end", bold=bold)
        panel = Panel(sheet, (_LEFT, top + 4, wide, _STRIP - 8), span)
        _draw_strip(panel, strip, told, named=named)
        top += _STRIP
    foot = Panel(sheet, (_LEFT, top - 2, wide, 0), span)
    most = 8 if measure.kind != "count" else min(8, 1 + int(span[1]))
    foot.axis_below(most=most)


def _draw_strip(
    panel: Panel,
    strip: Strip,
    told: tuple[Sequence[str], Sequence[str]],
    *,
    named: bool,
) -> None:
    sheet, (_, top, _, high) = panel.sheet, panel.box
    low, middle, upper = np.quantile(strip.values, [0.25, 0.5, 0.75])
    first, last = float(panel.x(low)), float(panel.x(upper))
    sheet.rect((first, top - 2, max(last - first, 1.0), high + 4), "#dbe3ec")
    x = float(panel.x(middle))
    sheet.path(f"M{x:.1f} {top - 2:.1f}v{high + 4:.1f}", colour=INK, width=1.5)
    order = np.argsort(strip.values, kind="stable")
    usual = order[~strip.outlying[order]]
    if not named:
        usual = usual[:: bin_size(usual.size, _DOTS)]
        dots = "".join(
            f"M{x:.1f} {top + high * (place * 0.618 % 1):.1f}h.01"
            for place, x in enumerate(panel.x(strip.values[usual]).tolist())
        )
        sheet.path(dots, colour=BLUE, width=5, opacity=0.5)
        usual = usual[:0]
    names, links = told
    # Neighbours in rank stand on different heights, so that dots do not hide.
    for place, each in enumerate([*usual.tolist(), *np.flatnonzero(strip.outlying)]):
        odd = bool(strip.outlying[each])
        row, value = int(strip.rows[each]), float(strip.values[each])
        about = ", ".join(p for p in (strip.measure.words, strip.label) if p)
        sheet.mark(
            float(panel.x(value)),
            top + (high / 2 if odd else high * (place * 0.618 % 1)),
            radius=5.5 if odd else 3.5,
            fill=ORANGE if odd else BLUE,
            stroke=INK if odd else "none",
            opacity=1 if odd else 0.65,
            diamond=odd,
            hint=f"{names[row]}: {about} {value:.4g}{', outlier' if odd else ''}",
            link=links[row],
        )
