"""All regions over time as one raster, before and after cleaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.report.canvas import (
    BLUE,
    GREY,
    INK,
    Picture,
    bin_rows,
    bin_size,
    colour_map,
    count,
    figure_svg,
    new_figure,
    place,
    shorten,
)
from bids_roi.report.motion import shade_volumes, time_axis
from bids_roi.report.order import RegionOrder, bracket

if TYPE_CHECKING:
    from numpy.typing import NDArray


_COLUMNS, _ROWS = 800, 400
_LEFT, _WIDTH = 1.35, 6.95


def draw_carpet(
    before: NDArray[np.float64],
    after: NDArray[np.float64] | None,
    order: RegionOrder,
    *,
    kept: NDArray[np.bool_] | None = None,
    dummy: NDArray[np.bool_] | None = None,
    same_unit: bool = False,
    repetition_time: float | None = None,
) -> Picture:
    """Draw regional signals, (T, R), as a carpet, before and after cleaning.

    After Power (2017), doi:10.1016/j.neuroimage.2016.08.009. Regions that are n/a are
    NaN columns, volumes that were left out NaN rows of ``after``; with ``same_unit``
    both panels are in the standard deviation before cleaning.
    """
    panels = [("Before cleaning" if after is not None else "As extracted", before)]
    if after is not None:
        panels.append(("After cleaning", after))
    scale = _deviation(before, kept)
    drawn = [
        standardise(values, kept, scale if same_unit else None)[:, order.order]
        for _, values in panels
    ]
    limit = _limit(drawn)
    n_volumes, n_regions = before.shape
    strip = 0.0 if kept is None or kept.all() else 0.13
    height = 2.3
    figure = new_figure(9, 0.3 + strip + (height + 0.32) * len(panels) + 0.2)
    step = repetition_time or 1.0
    edges = (-step / 2, (n_volumes - 0.5) * step)
    top = 0.3
    if strip:
        axes = place(figure, _LEFT, 0.14, _WIDTH, 0.1)
        axes.set(xlim=edges, ylim=(0, 1), xticks=[], yticks=[])
        shade_volumes(axes, kept, dummy, n_volumes * step)
        axes.set_ylabel("left out", rotation=0, ha="right", va="center", fontsize=7)
        top += strip
    image = None
    for number, ((title, _), values) in enumerate(zip(panels, drawn, strict=True)):
        axes = place(figure, _LEFT, top, _WIDTH, height)
        image = axes.imshow(
            np.ma.masked_invalid(bin_rows(bin_rows(values, _COLUMNS).T, _ROWS)),
            aspect="auto",
            cmap=colour_map("gray"),
            vmin=-limit,
            vmax=limit,
            extent=(*edges, n_regions, 0),
        )
        axes.set_title(title)
        mark_groups(axes, order, n_regions)
        if number < len(panels) - 1:
            axes.tick_params(labelbottom=False)
        else:
            time_axis(axes, repetition_time)
        top += height + 0.32
    bar = figure.colorbar(image, cax=place(figure, 8.42, 0.3 + strip, 0.1, 1.4))
    ends = (f"\N{MINUS SIGN}{limit:g}", "0", f"{limit:g}")
    bar.set_ticks([-limit, 0, limit], labels=ends)
    bar.ax.set_title("SD", fontsize=8, loc="center")
    return Picture(
        "carpet",
        figure_svg(figure),
        ".svg",
        "Regional carpet",
        _caption(before, after, order, limit, same_unit=same_unit),
        _describe(before, after, drawn),
    )


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
    values = np.concatenate([np.abs(v[np.isfinite(v)]) for v in drawn])
    if values.size == 0:
        return 2.0
    if values.size > 200_000:
        values = values[:: values.size // 200_000 + 1]
    return float(np.clip(np.ceil(2 * np.quantile(values, 0.98)) / 2, 1, 4))


def mark_groups(axes: Any, order: RegionOrder, n_regions: int) -> None:  # noqa: ANN401
    """Name the networks beside the rows, as far as there is room for the words."""
    axes.set_ylim(n_regions, 0)
    groups = bracket(order.groups)
    if len(groups) > 40 or not groups:
        axes.set_ylabel("Regions")
        axes.set_yticks([])
        return
    height = axes.bbox.height / axes.figure.dpi  # inches
    axes.set_yticks([])
    free = -1.0
    for number, (name, first, last) in enumerate(groups):
        axes.plot(
            [-0.012, -0.012],
            [first + 0.1 * (last - first > 2), last - 0.1 * (last - first > 2)],
            transform=axes.get_yaxis_transform(),
            color=BLUE if number % 2 == 0 else GREY,
            lw=4,
            solid_capstyle="butt",
            clip_on=False,
        )
        middle = (first + last) / 2 / n_regions * height
        if middle - free < 0.115:
            continue
        free = middle
        words = name or "no network"
        axes.annotate(
            shorten(words, 17),
            (-0.022, (first + last) / 2),
            xycoords=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=7.5,
            color=INK,
            annotation_clip=False,
            parse_math=False,
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
    text += ". Pale blue: n/a or left out."
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
