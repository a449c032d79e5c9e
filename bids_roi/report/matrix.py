"""Matrices as rasters: regions over time, pairs of regions, regressors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.report.courses import (
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
from bids_roi.report.paper import (
    SOFT,
    Figure,
    Panel,
    Sheet,
    count,
    fit_words,
    measure_words,
)
from bids_roi.report.raster import (
    BLUE_RED,
    CLEAR,
    GREYS,
    NIGHT_SUN,
    RegionOrder,
    Scale,
    bin_peaks,
    bin_rows,
    bin_size,
    bracket,
    rgb,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from bids_roi.outputs.result import Motion
    from bids_roi.report.courses import Drawn
    from bids_roi.report.paper import Box

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


_COLUMNS, _ROWS = 800, 400
_GREYS = 80
_DVARS = (
    " DVARS: root mean square over the regions of the change from volume to volume, in"
    " standard deviations before cleaning."
)
OTHERS = (CLEAR, (*rgb(CENSORED), 255), (*rgb(DUMMY), 255))
_CELLS = 500
_SIDE, _LEFT, _TOP = 480, 150, 52
_NAMED = 40  # regions whose names are written out
_STEPS = 201  # odd, so that 0 has a colour of its own
_DIAGONAL = (205, 209, 216, 255)
_NAMED_COLUMNS = 80
# Kinds of regressors and their colours, in the order in which they are drawn.
_MOTION = r"(trans|rot)_[xyz](_|$)|rmsd|framewise_displacement"
_KINDS = (
    ("motion", "#0072b2", _MOTION),
    ("white matter", "#9aa0a6", r"white_matter|w_comp_cor"),
    ("CSF", "#56b4e9", r"csf(?!_wm)(_|$)|c_comp_cor"),
    ("global", "#009e73", r"global_signal|csf_wm"),
    ("CompCor", "#e69f00", r"(a|t)_comp_cor|high_variance|edge_comp"),
    ("AROMA", "#cc79a7", r"(?i)aroma"),
    ("drift", "#7d5ba6", r"cosine"),
    ("volumes", "#d55e00", r"(motion|non_steady_state)_?outlier"),
    ("other", "#8c6d31", ""),
)
_AXES = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


def draw_carpet(
    before: FloatArray,
    after: FloatArray | None,
    order: RegionOrder,
    course: Course,
    *,
    motion: Motion | None = None,
    dvars: Sequence[FloatArray] = (),
    drawn: Drawn | None = None,
    fd_threshold: float | None = None,
    same_unit: bool = False,
    title: str = "",
    names: Sequence[str] = (),
) -> Figure:
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
    limit = _limit(shown[0])
    alt = _describe_carpet(before, after, shown)
    first, others = ([], []) if motion is None else motion_rows(motion, fd_threshold)
    sheet = Sheet(SHEET, 0, title="Regional carpet", description=alt)
    key = course.key(fd_threshold if first else None)
    lost = bool(np.isnan(before).all(axis=0).any())
    key += [("stripes", "", "n/a")] if lost else []
    if key:
        sheet.legend(LEFT + WIDTH, 16, key)
    rows = [*first, *others, *dvars_rows(dvars)]
    top = draw_rows(sheet, rows, course, drawn=drawn) + 24
    # A pixel for each row, where that is neither thin nor endless.
    n_regions = order.order.size
    height = float(np.clip(-(-n_regions // bin_size(n_regions, _ROWS)), 160, _ROWS))
    greys = Scale.of(GREYS, -limit, limit, _GREYS, OTHERS)
    live = []
    for number, ((words, _), values) in enumerate(zip(panels, shown, strict=True)):
        box = (LEFT, top, WIDTH, height)
        panel = Panel(sheet, box, course.span, (n_regions, 0))
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
    if len(names) == n_regions:
        about = _name_rows("carpet", order, names, _ROWS)
        about |= {
            "volumes": bin_size(course.n_volumes, _COLUMNS),
            "count": course.n_volumes,
            "step": course.repetition_time,
            "panels": live,
        }
        sheet.answer(LEFT, sheet.height - 8, about)
    caption = _caption_carpet(before, after, order, limit, same_unit=same_unit)
    return sheet.figure("carpet", caption + (_DVARS if dvars else ""))


def _name_rows(
    kind: str, order: RegionOrder, names: Sequence[str], most: int
) -> dict[str, Any]:
    """What a figure needs to tell which region lies under the pointer."""
    rows = order.order.tolist()
    size = bin_size(len(rows), most)
    return {"kind": kind, "names": [names[r] for r in rows], "rows": rows, "size": size}


def encode_course(
    values: FloatArray, scale: Scale, course: Course
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


def _deviation(values: FloatArray, kept: BoolArray | None) -> FloatArray:
    """Standard deviation of each region over the volumes kept, (R,)."""
    chosen = values if kept is None or kept.sum() < 2 else values[kept]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = chosen.std(axis=0)
    if not np.isfinite(found).any():  # rows of n/a among those kept
        found = np.ma.masked_invalid(chosen).std(axis=0).filled(np.nan)
    return np.where(found > 0, found, np.nan)


def standardise(
    values: FloatArray, kept: BoolArray | None, scale: FloatArray | None = None
) -> FloatArray:
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


def _limit(shown: FloatArray) -> float:
    """Where the grey scale ends: 98 % of all values lie within, 1 to 4 SD."""
    values = np.abs(shown.ravel()[:: shown.size // 100_000 + 1])
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


def _caption_carpet(
    before: FloatArray,
    after: FloatArray | None,
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


def _describe_carpet(
    before: FloatArray, after: FloatArray | None, drawn: list[FloatArray]
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


def _common(values: FloatArray) -> float:
    """Variance of the mean over the regions, as a share of their mean variance."""
    good = values[:, np.isfinite(values).any(axis=0)]
    good = good[np.isfinite(good).all(axis=1)]
    if good.size == 0:
        return np.nan
    total = good.var(axis=0).mean()
    return float(good.mean(axis=1).var() / total) if total > 0 else np.nan


def draw_relmat(
    values: FloatArray,
    order: RegionOrder,
    *,
    measure: str,
    strategy: str = "",
    limit: float | None = None,
    names: Sequence[str] = (),
) -> Figure:
    """Draw a connectivity matrix, (R, R), of a ``measure`` in words; NaN where n/a.

    The colours end at ``limit``; without one, where those of these values alone do.
    ``names`` are those of the regions, in table order.
    """
    n_regions = len(values)
    limit = limit or find_limit([values])
    scale = Scale.of(BLUE_RED, -limit, limit, _STEPS, (CLEAR, _DIAGONAL))
    title = measure[:1].upper() + measure[1:] + (f", {strategy}" if strategy else "")
    others = values[~np.eye(n_regions, dtype=bool) & np.isfinite(values)]
    alt = _describe(measure, others, values)
    sorted_ = values[np.ix_(order.order, order.order)]
    codes, lost = _encode(sorted_, scale)
    few = len(names) == n_regions and n_regions <= _NAMED
    below = 130 if few else 34
    # Cells of whole pixels on a screen of two for each of the page, so all are alike.
    side = len(codes) * max(1, round(2 * _SIDE / len(codes))) / 2
    sheet = Sheet(_LEFT + side + 110, _TOP + side + below, title=title, description=alt)
    box: Box = (_LEFT, _TOP, side, side)
    panel = Panel(sheet, box, (0, n_regions), (n_regions, 0))
    sheet.text(_LEFT, 20, fit_words(title, side + 100, 12.5), size=12.5, bold=True)
    sheet.raster(box, codes, scale.palette, striped=lost)
    groups = bracket(order.groups)
    _part_groups(panel, groups, order)
    if few:
        _name_regions(panel, [names[row] for row in order.order.tolist()])
    else:
        mark_groups(panel, order)
        words = f"{count(n_regions, 'region')}, {order.words} on both axes"
        middle = _LEFT + side / 2
        sheet.text(middle, _TOP + side + 18, words, anchor="middle", colour=SOFT)
    sheet.bar((_LEFT + side + 22, _TOP + 14, 14, 220), scale)
    if len(names) == n_regions:
        about = _name_rows("matrix", order, names, _CELLS)
        about |= {"low": -limit, "high": limit}
        about["panels"] = [{"box": box, "rows": len(codes), "columns": len(codes)}]
        sheet.answer(_LEFT, 36, about)
    if lost:
        sheet.stripe((_LEFT + side + 22, _TOP + 252, 14, 14))
        sheet.text(_LEFT + side + 42, _TOP + 263, "n/a", size=10, colour=SOFT)
    text = (
        f"Blue below and red above 0, white at 0, scale ±{limit:.3g}; grey diagonal: a"
        " region with itself."
    )
    if len(names) == n_regions:
        text += " The pair under the pointer is named."
    if lost:
        text += " Stripes: n/a."
    if n_regions > _CELLS:
        size = bin_size(n_regions, _CELLS)
        text += f" Each cell is the mean of {size} x {size} pairs."
    return sheet.figure("relmat", text, title=measure, facts={"Measure": measure})


def _encode(values: FloatArray, scale: Scale) -> tuple[NDArray[np.uint8], bool]:
    """Codes of a matrix, the diagonal apart, and whether there is an n/a."""
    shown = values.copy()
    np.fill_diagonal(shown, np.nan)
    blocks = bin_rows(bin_rows(shown, _CELLS).T, _CELLS).T
    codes = scale.encode(blocks)
    # A region that is there has a number with itself, one that is lost has none.
    there = np.isfinite(np.diagonal(values))
    size = bin_size(len(values), _CELLS)
    known = np.logical_or.reduceat(there, np.arange(0, there.size, size))
    diagonal = np.einsum("ii->i", codes)  # a view
    diagonal[(diagonal == scale.missing) & known] = scale.missing + 1
    return codes, bool((codes == scale.missing).any())


def _part_groups(
    panel: Panel, groups: list[tuple[str, int, int]], order: RegionOrder
) -> None:
    """Lines between networks, and their colours above the matrix."""
    if len(groups) < 2:
        return
    left, top, wide, high = panel.box
    places = [float(panel.x(first)) for _, first, _ in groups[1:]]
    if len(groups) <= 40:
        across = "".join(f"M{left} {top + x - left:.1f}h{wide}" for x in places)
        down = "".join(f"M{x:.1f} {top}v{high}" for x in places)
        panel.sheet.path(across + down, colour="#ffffff", width=0.8)
    colours = dict(order.networks)
    for name, first, last in groups:
        x, end = panel.x([first, last]).tolist()
        inner = max(1.0, end - x - 1)
        panel.sheet.rect((x, top - 11, inner, 6), colours[name], hint=name)


def _name_regions(panel: Panel, names: Sequence[str]) -> None:
    """Write the name of each region beside its row and below its column."""
    left, top, _, high = panel.box
    pitch = high / len(names)
    size = min(10.5, max(8.5, pitch * 0.9))
    for number, name in enumerate(names):
        middle = (number + 0.5) * pitch
        words = fit_words(name, left - 18, size)
        y = top + middle + size / 3
        panel.sheet.text(left - 16, y, words, size=size, anchor="end", hint=name)
        x = left + middle + size / 3
        words = fit_words(name, 120, size)
        foot = top + high + 8
        panel.sheet.text(x, foot, words, size=size, anchor="end", turn=-90, hint=name)


def find_limit(matrices: Iterable[FloatArray]) -> float:
    """Where colours end so that 99 % of all pairs lie within, in two digits.

    Matrices that are to be compared go in together, so that they share it.
    """
    sizes = []
    for values in matrices:
        outside = np.abs(values[np.triu_indices(len(values), 1)])
        sizes.append(outside[np.isfinite(outside)])
    pairs = np.concatenate(sizes) if sizes else np.empty(0)
    top = float(np.quantile(pairs, 0.99)) if pairs.size else 0.0
    if top <= 0:
        return 1.0
    digits = 10 ** (np.floor(np.log10(top)) - 1)
    return float(f"{np.ceil(top / digits / 10) * digits * 10:.12g}")


def _describe(measure: str, others: FloatArray, values: FloatArray) -> str:
    lost = int(np.isnan(values).all(axis=0).sum())
    text = f"Square matrix: {measure}, {count(len(values), 'region')}, {lost} n/a."
    if others.size:
        low, middle, high = np.quantile(others, [0.05, 0.5, 0.95])
        text += (
            f" Median of all pairs {middle:.2g}, 90 % of them from {low:.2g} to"
            f" {high:.2g}."
        )
    return text


def draw_design(
    design: FloatArray, names: Sequence[str], course: Course, *, strategy: str = ""
) -> Figure | None:
    """Draw the regressors of a cleaning, (T, C), and the correlations between them.

    NaN rows are volumes that were left out; ``None`` where there is no regressor. A
    regressor is a row, so that names are read without turning the head, once for both.
    """
    n_columns = design.shape[1]
    if n_columns == 0:
        return None
    order, kinds = group_columns(names)
    design, names = design[:, order], [names[column] for column in order]
    correlation = _correlate(design)
    off = np.abs(correlation[~np.eye(n_columns, dtype=bool)])
    strongest = float(np.nanmax(off)) if np.isfinite(off).any() else 0.0
    alt = (
        f"Raster of {count(n_columns, 'regressor')} by"
        f" {count(course.n_volumes, 'volume')}, and the matrix of their correlations;"
        f" the strongest between two of them is {strongest:.2f} in size."
    )
    named = n_columns <= _NAMED_COLUMNS
    pitch = min(18.0, max(12.0, 432 / n_columns)) if named else 480 / n_columns
    side, top = pitch * n_columns, 54.0
    widest = max(map(measure_words, names)) if named else 0.0
    left = 96 + min(230.0, widest)
    square = SHEET - 70 - min(side, 480.0)
    sheet = Sheet(SHEET, top + side + 46, title="Design matrix", description=alt)
    title = f"Design matrix{f', {strategy}' if strategy else ''}"
    sheet.text(10, 18, fit_words(title, 500, 12.5), size=12.5, bold=True)
    box: Box = (left, top, square - left - 36, side)
    panel = Panel(sheet, box, course.span, (n_columns, 0))
    colours = Scale.of(NIGHT_SUN, 0, 1, 128, OTHERS)
    codes = encode_course(_rescale(design), colours, course)
    sheet.raster(box, codes, colours.palette, striped=True)
    sheet.text(left, top - 8, "Regressors over time")
    panel.axis_below(course.words)
    scale = Scale.of(BLUE_RED, -1, 1, _STEPS, (CLEAR, _DIAGONAL))
    codes, _ = _encode(correlation, scale)
    box = (square, top, min(side, 480.0), side)
    sheet.raster(box, codes, scale.palette, striped=True)
    sheet.text(square, top - 8, "Correlation between them")
    sheet.bar((SHEET - 54, top, 12, min(side, 160.0)), scale)
    _mark_kinds(sheet, top, pitch, kinds)
    if named:
        for number, name in enumerate(names):
            y = top + (number + 0.5) * pitch + 3.6
            words = fit_words(name, left - 96, 10.5)
            sheet.text(left - 6, y, words, size=10.5, anchor="end", hint=name)
    return sheet.figure(
        "design",
        "One row per regressor. Left: from its lowest (dark) to its highest value"
        " (yellow) over the volumes kept. Right: their correlations, from"
        " \N{MINUS SIGN}1 (blue) to 1 (red). Stripes: no number; pale: left out.",
        facts={"Columns": list(names)},
    )


def group_columns(names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Order of regressors by kind, and the kind of each; within it as tables have them.

    >>> group_columns(["csf", "rot_x", "trans_z", "global_signal", "trans_x_power2"])
    ([4, 2, 1, 0, 3], ['motion', 'motion', 'motion', 'CSF', 'global'])
    """
    keys = []
    for number, name in enumerate(names):
        kind = next(k for k, (*_, rule) in enumerate(_KINDS) if re.match(rule, name))
        axis = next((a for a, stem in enumerate(_AXES) if name.startswith(stem)), 0)
        keys.append((kind, axis, number))
    keys.sort()
    return [number for _, _, number in keys], [_KINDS[kind][0] for kind, _, _ in keys]


def _mark_kinds(sheet: Sheet, top: float, pitch: float, kinds: Sequence[str]) -> None:
    """Name the kinds on the left, with a bar in the colour of each."""
    colours = {word: colour for word, colour, _ in _KINDS}
    free = 0.0
    for word, first, last in bracket(kinds):
        y, length = top + first * pitch, (last - first) * pitch
        sheet.rect((80, y, 6, max(1.0, length - 1)), colours[word], hint=word)
        middle = max(free, y + length / 2 + 3.6)
        sheet.text(74, middle, word, size=10.5, anchor="end", colour=SOFT)
        free = middle + 12


def _correlate(design: FloatArray) -> FloatArray:
    """Correlations over the volumes kept; NaN for columns that do not vary."""
    moved = design[np.isfinite(design).all(axis=1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = moved - moved.sum(axis=0) / len(moved)
        moved /= np.sqrt((moved**2).sum(axis=0))
        return np.asarray(moved.T @ moved)


def _rescale(design: FloatArray) -> FloatArray:
    """Each column from 0 to 1; half where it does not vary."""
    low = np.nanmin(design, axis=0, initial=np.inf)
    span = np.nanmax(design, axis=0, initial=-np.inf) - low
    flat = ~(span > 0)
    with np.errstate(invalid="ignore"):
        scaled = (design - low) / np.where(flat, 1, span)
    scaled[:, flat] += 0.5
    return np.asarray(scaled)
