"""All regions over time as one raster, before and after cleaning, below the motion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.report.canvas import Picture, bin_peaks, bin_rows, bin_size, count
from bids_roi.report.motion import (
    CENSORED,
    DUMMY,
    LEFT,
    SHEET,
    WIDTH,
    Course,
    draw_rows,
    dvars_rows,
    motion_rows,
)
from bids_roi.report.order import RegionOrder, bracket
from bids_roi.report.paper import Panel, Sheet, fit_words
from bids_roi.report.raster import CLEAR, GREYS, Scale, rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_roi.outputs.result import Motion
    from bids_roi.report.motion import Drawn


_COLUMNS, _ROWS = 800, 400
_GREYS = 80
_DVARS = (
    " DVARS: root mean square over the regions of the change from volume to volume, in"
    " standard deviations before cleaning."
)
OTHERS = (CLEAR, (*rgb(CENSORED), 255), (*rgb(DUMMY), 255))


def draw_carpet(
    before: NDArray[np.float64],
    after: NDArray[np.float64] | None,
    order: RegionOrder,
    course: Course,
    *,
    motion: Motion | None = None,
    dvars: Sequence[NDArray[np.float64]] = (),
    drawn: Drawn | None = None,
    fd_threshold: float | None = None,
    same_unit: bool = False,
    title: str = "",
    names: Sequence[str] = (),
) -> Picture:
    """Draw regional signals, (T, R), as a carpet, before and after cleaning.

    After Power (2017), doi:10.1016/j.neuroimage.2016.08.009. Regions that are n/a are
    NaN columns, volumes that were left out NaN rows of ``after``; with ``same_unit``
    both panels are in the standard deviation before cleaning. ``names`` are those of
    the regions, in table order; ``dvars`` are as of ``draw.find_dvars``.
    """
    panels = [("Before cleaning" if after is not None else "As extracted", before)]
    if after is not None:
        panels.append((f"After cleaning{title}", after))
    scale = _deviation(before, course.kept)
    shown = [
        standardise(values, course.kept, scale if same_unit else None)[:, order.order]
        for _, values in panels
    ]
    # By what was there before, so that the carpets of all strategies share a scale.
    limit = _limit(shown[:1])
    alt = _describe(before, after, shown)
    first, others = ([], []) if motion is None else motion_rows(motion, fd_threshold)
    sheet = Sheet(SHEET, 0, title="Regional carpet", description=alt)
    key = course.key(fd_threshold if first else None)
    lost = bool(np.isnan(before).all(axis=0).any())
    key += [("stripes", "", "n/a")] if lost else []
    if key:
        sheet.legend(LEFT + WIDTH, 16, key)
    rows = [*first, *others, *dvars_rows(dvars)]
    top = draw_rows(sheet, 2, rows, course, drawn=drawn) + 24
    # A pixel for each row, where that is neither thin nor endless.
    height = float(
        np.clip(-(-order.order.size // bin_size(order.order.size, _ROWS)), 160, _ROWS)
    )
    greys = Scale.of(GREYS, -limit, limit, _GREYS, OTHERS)
    live = []
    for number, ((words, _), values) in enumerate(zip(panels, shown, strict=True)):
        box = (LEFT, top, WIDTH, height)
        panel = Panel(sheet, box, course.span, (order.order.size, 0))
        codes = encode_course(values, greys, course)
        sheet.raster(box, codes, greys.palette, striped=lost)
        live.append({"box": box, "rows": len(codes), "columns": codes.shape[1]})
        panel.title(words)
        mark_groups(panel, order)
        numbers = number == len(panels) - 1
        panel.axis_below(course.words if numbers else "", numbers=numbers)
        if number == 0:
            sheet.bar((LEFT + WIDTH + 18, top, 12, 150), greys)
            middle = top + 75
            words = "standard deviations"
            sheet.text(SHEET - 14, middle, words, size=10, anchor="middle", turn=-90)
        top += height + 30
    sheet.height = top + 10
    if len(names) == order.order.size:
        _tell_regions(sheet, order, course, names, live)
    return Picture(
        "carpet",
        sheet.finish(),
        ".svg",
        "Regional carpet",
        _caption(before, after, order, limit, same_unit=same_unit)
        + (_DVARS if dvars else ""),
        alt,
    )


def _tell_regions(
    sheet: Sheet,
    order: RegionOrder,
    course: Course,
    names: Sequence[str],
    panels: list[dict[str, object]],
) -> None:
    """Let the figure tell which region and volume lie under the pointer."""
    rows = order.order.tolist()
    about = {
        "kind": "carpet",
        "names": [names[row] for row in rows],
        "rows": rows,
        "size": bin_size(len(rows), _ROWS),
        "volumes": bin_size(course.n_volumes, _COLUMNS),
        "count": course.n_volumes,
        "step": course.repetition_time,
        "panels": panels,
    }
    sheet.answer(LEFT, sheet.height - 8, about)


def encode_course(
    values: NDArray[np.float64], scale: Scale, course: Course
) -> NDArray[np.uint8]:
    """Codes of (T, R) values as (rows, columns), with ``OTHERS`` behind the scale.

    Rows of nothing but NaN stay clear; elsewhere NaN are volumes that were left out.
    """
    codes = scale.encode(bin_rows(bin_rows(values, _COLUMNS).T, _ROWS))
    missing = codes == scale.missing
    if missing.any():
        kinds = bin_peaks(course.left_out, _COLUMNS).astype(np.uint8)
        here = missing & ~missing.all(axis=1)[:, None]
        codes += here * kinds
    return codes


def _deviation(
    values: NDArray[np.float64], kept: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """Standard deviation of each region over the volumes kept, (R,)."""
    chosen = values if kept is None or kept.sum() < 2 else values[kept]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = chosen.std(axis=0)
    if not np.isfinite(found).any():  # rows of n/a among those kept
        found = np.ma.masked_invalid(chosen).std(axis=0).filled(np.nan)
    return np.where(found > 0, found, np.nan)


def standardise(
    values: NDArray[np.float64],
    kept: NDArray[np.bool_] | None,
    scale: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Deviation of each region from its mean, in standard deviations over kept volumes.

    ``scale``, (R,), is used instead of the signals' own standard deviation.
    """
    inside = np.isfinite(values)
    if kept is not None and kept.sum() >= 2:
        inside &= kept[:, None]
    number = inside.sum(axis=0)
    filled = np.where(inside, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=0) / number
        moved = values - mean
        if scale is None:
            scale = np.sqrt((np.where(inside, moved, 0.0) ** 2).sum(axis=0) / number)
        return np.asarray(moved / np.where(scale > 0, scale, np.nan))


def _limit(drawn: list[NDArray[np.float64]]) -> float:
    """Where the grey scale ends: 98 % of all values lie within, 1 to 4 SD."""
    some = [values[:: values.size // 100_000 + 1] for values in map(np.ravel, drawn)]
    values = np.abs(np.concatenate(some))
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 2.0
    return float(np.clip(np.ceil(2 * np.quantile(values, 0.98)) / 2, 1, 4))


def mark_groups(panel: Panel, order: RegionOrder) -> None:
    """Name the networks beside the rows, as far as there is room for the words."""
    left, top, _, high = panel.box
    groups = bracket(order.groups)
    if not groups:
        words = "Regions"
        panel.sheet.text(left - 14, top + high / 2, words, anchor="middle", turn=-90)
        return
    colours = dict(order.networks)
    pitch = high / order.order.size
    # Names go to the largest networks first, where there is no room for all.
    free = np.ones(round(high) + 14, dtype=bool)
    for name, first, last in sorted(groups, key=lambda g: (g[1] - g[2], g[1])):
        begin, length = top + first * pitch, (last - first) * pitch
        inner = max(1.0, length - 1)
        panel.sheet.rect((left - 11, begin, 6, inner), colours[name], hint=name)
        middle = (first + last) / 2 * pitch
        taken = slice(max(0, round(middle) - 5), round(middle) + 6)
        if free[taken].all():
            free[taken] = False
            words = fit_words(name or "no network", left - 20, 10.5)
            panel.sheet.text(
                *(left - 16, top + middle + 3.5, words), size=10.5, anchor="end"
            )


def _caption(
    before: NDArray[np.float64],
    after: NDArray[np.float64] | None,
    order: RegionOrder,
    limit: float,
    *,
    same_unit: bool,
) -> str:
    n_volumes, n_regions = before.shape
    text = (
        f"One row per region, {order.words},"
        f" from \N{MINUS SIGN}{limit:g} (black) to {limit:g} (white) standard"
        " deviations about its own mean over the volumes kept"
    )
    if after is not None and same_unit:
        text += "; both panels in the standard deviation before cleaning"
    elif after is not None:
        text += "; each panel in its own standard deviation, on the same scale"
    text += ". Stripes: n/a; pale orange and blue: volumes that were left out."
    if n_volumes > _COLUMNS:
        size = bin_size(n_volumes, _COLUMNS)
        text += f" Each column is the mean of {size} neighbouring volumes."
    if n_regions > _ROWS:
        size = bin_size(n_regions, _ROWS)
        text += f" Each row is the mean of {size} neighbouring regions."
    return text


def _describe(
    before: NDArray[np.float64],
    after: NDArray[np.float64] | None,
    drawn: list[NDArray[np.float64]],
) -> str:
    lost = int(np.isnan(before).all(axis=0).sum())
    text = (
        f"Grey-scale raster of {count(before.shape[1], 'region')} by"
        f" {count(before.shape[0], 'volume')}; {lost} regions are n/a."
    )
    if after is not None:
        shares = [_common(values) for values in drawn]
        if all(np.isfinite(shares)):
            text += (
                " Variance that all regions share:"
                f" {100 * shares[0]:.0f} % before, {100 * shares[1]:.0f} % after"
                " cleaning."
            )
    return text


def _common(values: NDArray[np.float64]) -> float:
    """Variance of the mean over the regions, as a share of their mean variance."""
    good = values[:, np.isfinite(values).any(axis=0)]
    good = good[np.isfinite(good).all(axis=1)]
    if good.size == 0:
        return np.nan
    total = good.var(axis=0).mean()
    return float(good.mean(axis=1).var() / total) if total > 0 else np.nan
