"""Figures of the group: coverage and quality of runs, motion, strategies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.report.pages import name_strategy, number, split_keys
from bids_roi.report.paper import (
    BLUE,
    GREY,
    INK,
    LINE,
    ORANGE,
    SOFT,
    Figure,
    Panel,
    Sheet,
    count,
    fit_words,
    measure_words,
)
from bids_roi.report.raster import CLEAR, Scale, bin_rows, bin_size, bracket, ramp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from bids_roi.report.group import Measure, Strip
    from bids_roi.report.pages import Row
    from bids_roi.report.paper import Box, Figure, Span
    from bids_roi.report.raster import RegionOrder

    FloatArray = NDArray[np.float64]


# Of five values of a normal distribution one in 23 is beyond the limit, of ten one in
# 50, of fifty one in 150 (20,000 draws each): of fewer than ten it is no news.
LEAST_RUNS = 10

_WIDTH = 1120.0
_ROWS, _COLUMNS = 300, 600  # of the raster of coverage
_NAMED = 60  # runs that are named beside their rows
_CELLS = 60  # of the figure by distance, each way

_LINKED, _DOTS = 4000, 2000  # runs that are marks, and dots of more
_LEFT, _STRIP, _AXIS = 230.0, 30.0, 30.0
_TOP, _ROW, _GAP = 58.0, 26.0, 26.0  # of strategies
# What is wrong has the ink.
_COVERAGE = ("#660a22", "#c4403a", "#efa482", "#fbe9e2", "#ffffff")
# From a single edge, which must stand out from the white of none, to the most.
_EDGES = ("#b4b4b4", "#000000")


def draw_coverage_table(
    values: FloatArray, runs: Sequence[str], order: RegionOrder
) -> Figure:
    """Draw the coverage of every region in every run, (N, R), 0 to 1."""
    n_runs, n_regions = values.shape
    sorted_ = values[:, order.order]
    shown = bin_rows(bin_rows(sorted_, _ROWS).T, _COLUMNS).T
    named = n_runs <= _NAMED
    high = float(min(480, 16 * n_runs)) if named else 360.0
    widest = max(map(measure_words, runs)) if named else 0.0
    left = min(260.0, widest + 16) if named else 60.0
    wide = 1040.0 - left
    groups = bracket(order.groups)
    sheet = Sheet(1120, max(high, 110) + 74)
    box = (left, 24.0, wide, high)
    scale = Scale.of(_COVERAGE, 0, 1)
    sheet.raster(box, scale.encode(shown), scale.palette, striped=True)
    panel = Panel(sheet, box, (0, n_regions), (n_runs, 0))
    frame = f"M{left:.1f} 24h{wide:.1f}v{high:.1f}h-{wide:.1f}z"
    sheet.path(frame)
    for place, run in enumerate(runs if named else ()):
        y = float(panel.y(place + 0.5)) + 4
        words = fit_words(run, left - 12)
        sheet.text(left - 7, y, words, anchor="end", hint=run)
    if not named:
        words = f"{n_runs:,} runs, in the order of group_runs.tsv"
        sheet.text(left - 14, 24 + high / 2, words, anchor="middle", turn=-90)
    _name_groups(panel, groups)
    words = f"{count(n_regions, 'region')}, {order.words}"
    sheet.text(left + wide / 2, 24 + high + 42, words, anchor="middle")
    bar = (1060.0, 48.0, 12.0, 84.0)
    sheet.bar(bar, scale, (0, 0.5, 1), title="Coverage")
    text = "Share of each region that could be used: white for all, dark red for none."
    if n_runs > _ROWS or n_regions > _COLUMNS:
        text += (
            f" Each cell is the mean of {bin_size(n_runs, _ROWS)} runs x"
            f" {bin_size(n_regions, _COLUMNS)} regions."
        )
    alt = (
        f"Raster of {count(n_runs, 'run')} by {count(n_regions, 'region')}: mean"
        f" coverage {float(np.nanmean(values)):.2f}."
    )
    return sheet.figure("coverage", text, title="Coverage", alt=alt)


def _name_groups(panel: Panel, groups: Sequence[tuple[str, int, int]]) -> None:
    """Networks below the regions: a line between two, names where they fit."""
    left, top, _, high = panel.box
    sheet, taken = panel.sheet, left - 8
    for name, first, end in groups:
        start, stop = float(panel.x(first)), float(panel.x(end))
        sheet.path(f"M{start + 1:.1f} {top + high + 5:.1f}H{stop - 1:.1f}", width=3)
        if first:
            sheet.path(f"M{start:.1f} {top:.1f}v{high:.1f}", colour=LINE)
        words = "none" if name in ("n/a", "") else name
        fitted = fit_words(words, max(stop - start, 34), 10)
        middle = (start + stop) / 2
        half = measure_words(fitted, 10) / 2
        if middle - half > taken:
            y = top + high + 19
            sheet.text(
                middle, y, fitted, size=10, anchor="middle", colour=SOFT, hint=words
            )
            taken = middle + half + 3


def draw_qcfc(correlations: FloatArray, distances: FloatArray | None) -> Figure | None:
    """Draw how motion shows in connectivity, (R, R), by distance in mm, (R, R).

    After Ciric et al. (2017), doi:10.1016/j.neuroimage.2017.03.020: the correlation of
    each edge with mean framewise displacement over participants.
    """
    edges = np.triu_indices(len(correlations), 1)
    r = correlations[edges]
    known = np.isfinite(r)
    if not known.any():
        return None
    sheet = Sheet(1000, 300)
    _draw_histogram(sheet, r[known])
    middle = float(np.median(r[known]))
    text = "Correlation of each edge with mean framewise displacement; orange: median."
    alt = f"Histogram of {int(known.sum()):,} edges, median {middle:.3f}."
    if distances is not None:
        d = distances[edges]
        both = known & np.isfinite(d)
        if both.any():
            _draw_distance(sheet, d[both], r[both])
            text += (
                " Right: by distance; darker for more edges, orange: running median."
            )
            if n_without := int((known & ~both).sum()):
                text += (
                    f" {n_without:,} edges have no distance: a centre is not known, or"
                    " outside of its region, as where that has parts on both sides."
                )
        else:
            text += (
                " By distance nothing is drawn: the centres of the regions are not"
                " known, or lie outside of them."
            )
    return sheet.figure("qcfc", text, title="QC-FC", alt=alt)


def _draw_histogram(sheet: Sheet, r: FloatArray) -> None:
    counts, bounds = np.histogram(r, bins=60, range=(-1, 1))
    top = int(counts.max())
    panel = Panel(sheet, (66, 34, 400, 210), (-1, 1), (0, 1.05 * top))
    foot = float(panel.y(0))
    bars = "".join(
        f"M{x:.1f} {foot:.1f}V{y:.1f}H{end:.1f}V{foot:.1f}z"
        for x, end, y, n in zip(
            panel.x(bounds[:-1]).tolist(),
            panel.x(bounds[1:]).tolist(),
            panel.y(counts).tolist(),
            counts.tolist(),
            strict=True,
        )
        if n
    )
    sheet.path(bars, colour=BLUE, width=0.5, fill=BLUE)
    panel.line((0, 0), panel.up, colour=GREY, width=1)
    middle = float(np.median(r))
    panel.line((middle, middle), panel.up, colour=ORANGE, width=2)
    panel.title("All edges")
    panel.axis_below("QC-FC: r with mean FD", most=5)
    panel.axis_left("Edges", most=min(6, top + 1))


def _draw_distance(
    sheet: Sheet, distances: FloatArray, correlations: FloatArray
) -> None:
    end = float(distances.max()) or 1.0
    counts, _, _ = np.histogram2d(
        distances, correlations, bins=_CELLS, range=((0, end), (-1, 1))
    )
    panel = Panel(sheet, (566, 34, 400, 210), (0, end), (-1, 1))
    most = float(max(counts.max(), 2))
    scale = Scale(1, np.sqrt(most), ramp(_EDGES, 120), (CLEAR,))
    shades = np.where(counts > 0, np.sqrt(counts), np.nan).T[::-1]
    sheet.raster(panel.box, scale.encode(shades), scale.palette)
    order = np.argsort(distances, kind="stable")
    pieces = np.array_split(order, min(20, order.size))
    panel.line((0, end), (0, 0), colour=GREY, width=1)
    panel.line(
        [float(np.median(distances[p])) for p in pieces],
        [float(np.median(correlations[p])) for p in pieces],
        colour=ORANGE,
        width=2,
    )
    panel.title("By distance")
    panel.axis_below("Distance between centres (mm)", most=6)
    panel.axis_left("QC-FC: r with mean FD", most=5)


def draw_strips(
    strips: Sequence[Strip], names: Sequence[str], links: Sequence[str]
) -> Figure | None:
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
    named = sum(strip.values.size for strip in strips) <= _LINKED
    top, heard = 8.0, []
    for measure, own in blocks.items():
        _draw_block(sheet, top, measure, own, (names, links), named=named)
        top += _height(own)
        heard += [_hear_strip(strip) for strip in own]
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
    alt = f"Strips of dots. {'; '.join(heard)}."
    return sheet.figure("distributions", text, title="Quality of all runs", alt=alt)


def _height(strips: Sequence[Strip]) -> float:
    title = 0 if len(strips) == 1 and not strips[0].label else 18
    return title + _STRIP * len(strips) + _AXIS


def _hear_strip(strip: Strip) -> str:
    told = strip.measure.words + (f", {strip.label}" if strip.label else "")
    told += f": median {float(np.median(strip.values)):.4g}"
    if np.isfinite(strip.limit):
        told += f", {count(int(strip.outlying.sum()), 'outlier')}"
    return told


def _span_strips(measure: Measure, strips: Sequence[Strip]) -> Span:
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
    span = _span_strips(measure, strips)
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


@dataclass(frozen=True, slots=True)
class _Measure:
    """A panel of the figure: one value of each strategy.

    ``chance`` is a column or a number; ``reach`` are two columns that a bar joins;
    ``partial`` is the title of the same with covariates held constant.
    """

    column: str
    title: str
    better: str
    chance: str | float | None = None
    reach: tuple[str, str] | None = None
    factor: float = 1.0
    partial: str = ""


_PANELS = (
    _Measure(
        *("median_abs_r", "QC-FC, median |r|", "lower", "median_abs_r_chance"),
        partial="Partial |r|",
    ),
    _Measure(
        *("share_p05", "Edges p < 0.05 (%)", "lower", 0.05),
        factor=100,
        partial="Partial p < 0.05 (%)",
    ),
    _Measure(
        *("distance_rho", "Distance \N{GREEK SMALL LETTER RHO}", "nearer to 0", 0.0),
        reach=("distance_rho_low", "distance_rho_high"),
        partial="Partial \N{GREEK SMALL LETTER RHO}",
    ),
    _Measure(
        "degrees_of_freedom_mean",
        "Degrees of freedom",
        "higher",
        reach=("degrees_of_freedom_mean", "n_volumes_kept_mean"),
    ),
    _Measure("icc_median", "ICC, median", "higher", 0.0, ("icc_q25", "icc_q75")),
    _Measure("discriminability", "Discriminability", "higher", 0.5),
    _Measure(
        "identification_rate", "Identification (%)", "higher", "_chance", factor=100
    ),
)


def _hold_constant(panel: _Measure, rows: Sequence[Row]) -> _Measure:
    """The same figure with covariates held constant, where there is one.

    Permutations and intervals are of that, too.
    """
    column = f"{panel.column}_partial"
    if all(_value(row, column) is None for row in rows):
        return panel
    chance = panel.chance
    if isinstance(chance, str):
        chance = f"{column}_chance"
    return replace(panel, column=column, title=panel.partial, chance=chance)


def draw_strategies(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yield a figure for each task, atlas and measure: a row per strategy."""
    _, varied = split_keys(rows)
    told = [k for k in varied if k.endswith("_id")]
    families: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        families.setdefault(tuple(row.get(k, "n/a") for k in told), []).append(row)
    for labels, own in families.items():
        about = ", ".join(
            f"{key.removesuffix('_id')}-{label}" if label.isdigit() else label
            for key, label in zip(told, labels, strict=True)
            if label != "n/a"
        )
        picture = _draw_family(own, about)
        if picture is not None:
            yield picture


def _draw_family(rows: Sequence[Row], about: str) -> Figure | None:
    panels = [
        _hold_constant(panel, rows)
        for panel in _PANELS
        if any(_value(row, panel.column) is not None for row in rows)
    ]
    if not panels:
        return None
    names = [name_strategy(row) for row in rows]
    left = min(240.0, max(measure_words(name, 12) for name in names) + 18)
    foot = _TOP + _ROW * len(rows)
    sheet = Sheet(_WIDTH, foot + 34)
    for place, name in enumerate(names):
        y = _TOP + _ROW * (place + 0.5)
        words = fit_words(name, left - 16, 12)
        sheet.text(left - 14, y + 4, words, size=12, anchor="end", hint=name)
        sheet.path(f"M{left:.0f} {y:.1f}H{_WIDTH - 12:.0f}", colour="#e9ecf0")
    wide = (_WIDTH - left - 12) / len(panels)
    for place, panel in enumerate(panels):
        box = (left + place * wide, _TOP, wide - _GAP, foot - _TOP)
        _draw_panel(sheet, box, panel, rows)
    known = any(_value(row, "distance_rho_low") is not None for row in rows)
    interval = ", that of \N{GREEK SMALL LETTER RHO} is its 95 % interval" * known
    heard = "; ".join(
        f"{name}: " + ", ".join(_hear_value(row, panel) for panel in panels)
        for name, row in zip(names, rows, strict=True)
    )
    n_rows = count(len(rows), "strategy").replace("strategys", "strategies")
    return sheet.figure(
        "strategies",
        "Dots: the strategy; grey ticks: what chance gives, or 0. The bar beside the"
        " degrees of freedom ends at the volumes kept; that of the ICC holds the middle"
        f" half of the edges{interval}. A strategy is good where motion is low, and"
        " freedom and reliability are high.",
        title=f"Strategies: {about}" if about else "Strategies",
        alt=f"{n_rows}. {heard}.",
    )


def _value(row: Row, column: str | float) -> float | None:
    if not isinstance(column, str):
        return column
    if column == "_chance":
        n = number(row.get("n_participants_compared", "n/a"))
        return 1 / n if n else None
    return number(row.get(column, "n/a"))


def _hear_value(row: Row, panel: _Measure) -> str:
    value = _value(row, panel.column)
    told = "n/a" if value is None else f"{panel.factor * value:.3g}"
    return f"{panel.title} {told}"


def _draw_panel(sheet: Sheet, box: Box, measure: _Measure, rows: Sequence[Row]) -> None:
    panel = Panel(sheet, box, _span_values(measure, rows), (len(rows), 0))
    title = fit_words(measure.title, 0.88 * (box[2] + _GAP - 8), 11)
    sheet.text(box[0], box[1] - 24, title, size=11, bold=True, hint=measure.title)
    sheet.text(box[0], box[1] - 9, f"{measure.better} is better", size=10, colour=SOFT)
    panel.axis_below(most=3)
    for place, row in enumerate(rows):
        y = float(panel.y(place + 0.5))
        chance = None if measure.chance is None else _value(row, measure.chance)
        if chance is not None:
            x = float(panel.x(measure.factor * chance))
            sheet.path(f"M{x:.1f} {y - 9:.1f}v18", colour=GREY, width=1.5)
        value = _value(row, measure.column)
        if value is None:
            x = box[0] + box[2] / 2
            sheet.text(x, y + 4, "n/a", size=10, anchor="middle", colour=SOFT)
            continue
        if measure.reach is not None:
            ends = [_value(row, column) for column in measure.reach]
            if None not in ends:
                first, last = (
                    float(panel.x(measure.factor * e)) for e in ends if e is not None
                )
                sheet.path(f"M{first:.1f} {y:.1f}H{last:.1f}", colour=LINE, width=5)
        hint = f"{name_strategy(row)}: {_hear_value(row, measure)}"
        if chance:
            hint += f" (by chance {measure.factor * chance:.3g})"
        x = float(panel.x(measure.factor * value))
        sheet.mark(x, y, radius=5.5, fill=BLUE, stroke=INK, hint=hint)


def _span_values(measure: _Measure, rows: Sequence[Row]) -> Span:
    """Ends of an axis that mean something: shares from 0 to 1, counts from 0."""
    if measure.column in ("discriminability", "identification_rate"):
        return 0.0, measure.factor
    columns = [measure.column, *(measure.reach or ())]
    if measure.chance is not None:
        columns.append(measure.chance)
    told = [_value(row, column) for row in rows for column in columns]
    values = [measure.factor * v for v in told if v is not None]
    low, high = min(0.0, *values), max(0.0, *values)
    if measure.column.startswith("distance_rho"):
        high = max(high, -low, 0.1)
        low = -high
    room = 0.08 * (high - low) or 1.0
    return (low - room if low < 0 else 0.0), high + room
