"""Rasters of the group: coverage of all runs, motion in connectivity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.report.canvas import Picture, bin_rows, bin_size, count
from bids_roi.report.order import bracket
from bids_roi.report.paper import (
    BLUE,
    GREY,
    LINE,
    ORANGE,
    SOFT,
    Panel,
    Sheet,
    fit_words,
    measure_words,
)
from bids_roi.report.raster import CLEAR, Scale, ramp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_roi.report.order import RegionOrder

    FloatArray = NDArray[np.float64]


_ROWS, _COLUMNS = 300, 600
_NAMED = 60  # runs that are named beside their rows
_CELLS = 60  # of the figure by distance, each way

# What is wrong has the ink.
_COVERAGE = ("#660a22", "#c4403a", "#efa482", "#fbe9e2", "#ffffff")
# From a single edge, which must stand out from the white of none, to the most.
_EDGES = ("#b4b4b4", "#000000")


def draw_coverage_table(
    values: FloatArray, runs: Sequence[str], order: RegionOrder
) -> Picture:
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
    return Picture(
        "coverage",
        sheet.finish(),
        ".svg",
        "Coverage",
        text,
        f"Raster of {count(n_runs, 'run')} by {count(n_regions, 'region')}: mean"
        f" coverage {float(np.nanmean(values)):.2f}.",
    )


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


def draw_qcfc(correlations: FloatArray, distances: FloatArray | None) -> Picture | None:
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
    return Picture("qcfc", sheet.finish(), ".svg", "QC-FC", text, alt)


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
