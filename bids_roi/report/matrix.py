"""Matrices between regions, ordered and bracketed by network; design matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.report.canvas import (
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
from bids_roi.report.carpet import mark_groups
from bids_roi.report.order import RegionOrder, bracket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


_CELLS = 500
_NAMED = 36
_NO_VALUE = "#b3b3b3"


def draw_relmat(
    values: NDArray[np.float64], order: RegionOrder, *, measure: str
) -> Picture:
    """Draw a connectivity matrix, (R, R), of a ``measure`` in words; NaN where n/a."""
    sorted_ = values[np.ix_(order.order, order.order)]
    n_regions = len(values)
    outside = ~np.eye(n_regions, dtype=bool)
    others = sorted_[outside & np.isfinite(sorted_)]
    limit = _limit(others)
    blocks = bin_rows(bin_rows(sorted_, _CELLS).T, _CELLS).T
    figure = new_figure(7.4, 5.6)
    axes = place(figure, 1.35, 0.15, 5.1, 5.1)
    image = axes.imshow(
        np.ma.masked_invalid(blocks),
        cmap=colour_map("RdBu_r", _NO_VALUE),
        vmin=-limit,
        vmax=limit,
        extent=(0, n_regions, n_regions, 0),
    )
    mark_groups(axes, order, n_regions)
    groups = bracket(order.groups)
    if 1 < len(groups) <= 40:
        for _, first, _ in groups[1:]:
            axes.axhline(first, color="white", lw=0.7)
            axes.axvline(first, color="white", lw=0.7)
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_xlabel(f"{count(n_regions, 'region')}, in the same order")
    bar = figure.colorbar(image, cax=place(figure, 6.65, 0.35, 0.12, 2))
    bar.outline.set_visible(False)
    text = (
        f"Blue below and red above 0, white at 0, scale ±{limit:.3g}"
        " (99 % of all pairs lie within). Grey: n/a."
    )
    if n_regions > _CELLS:
        size = bin_size(n_regions, _CELLS)
        text += f" Each cell is the mean of {size} x {size} pairs."
    return Picture(
        "relmat",
        figure_svg(figure),
        ".svg",
        measure,
        text,
        _describe(measure, others, values),
        {"Measure": measure},
    )


def _limit(values: NDArray[np.float64]) -> float:
    """Where the colours end; two digits, so that scales of runs can be compared."""
    if values.size == 0:
        return 1.0
    top = float(np.quantile(np.abs(values), 0.99))
    if top <= 0:
        return 1.0
    digits = 10 ** (np.floor(np.log10(top)) - 1)
    return float(np.ceil(top / digits / 10) * digits * 10)


def _describe(
    measure: str, others: NDArray[np.float64], values: NDArray[np.float64]
) -> str:
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
    design: NDArray[np.float64],
    names: Sequence[str],
    *,
    repetition_time: float | None = None,
) -> Picture | None:
    """Draw the regressors of a cleaning, (T, C), and the correlations between them.

    NaN rows are volumes that were left out; ``None`` where there is no regressor.
    """
    n_volumes, n_columns = design.shape
    if n_columns == 0:
        return None
    correlation = _correlate(design)
    named = n_columns <= _NAMED
    figure = new_figure(9, 3.6 + (1.5 if named else 0.5))
    step = repetition_time or 1.0
    axes = place(figure, 0.65, 0.3, 3.6, 3.2)
    axes.imshow(
        np.ma.masked_invalid(bin_rows(_rescale(design), _CELLS)),
        aspect="auto",
        cmap=colour_map("cividis"),
        vmin=0,
        vmax=1,
        extent=(0, n_columns, (n_volumes - 0.5) * step, -step / 2),
    )
    axes.set_title("Regressors over time")
    axes.set_ylabel("Time (s)" if repetition_time else "Volume")
    square = place(figure, 4.75, 0.3, 3.2, 3.2)
    image = square.imshow(
        np.ma.masked_invalid(correlation),
        cmap=colour_map("RdBu_r", _NO_VALUE),
        vmin=-1,
        vmax=1,
        extent=(0, n_columns, n_columns, 0),
    )
    square.set_title("Correlation between them")
    square.set_yticks([])
    for each in (axes, square):
        _name_columns(each, names if named else None, n_columns)
    bar = figure.colorbar(image, cax=place(figure, 8.15, 0.3, 0.12, 1.5))
    bar.outline.set_visible(False)
    off = np.abs(correlation[~np.eye(n_columns, dtype=bool)])
    strongest = float(np.nanmax(off)) if np.isfinite(off).any() else 0.0
    return Picture(
        "design",
        figure_svg(figure),
        ".svg",
        "Design matrix",
        "Left: each column from its lowest (dark) to its highest value (yellow) over"
        " the volumes kept. Right: their correlations, from \N{MINUS SIGN}1 (blue) to 1"
        " (red). Pale blue: left out.",
        f"Raster of {count(n_columns, 'regressor')} by {count(n_volumes, 'volume')},"
        " and the matrix of their correlations; the strongest between two of them is"
        f" {strongest:.2f} in size.",
        {"Columns": list(names)},
    )


def _correlate(design: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations over the volumes kept; NaN for columns that do not vary."""
    moved = design[np.isfinite(design).all(axis=1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = moved - moved.sum(axis=0) / len(moved)
        moved /= np.sqrt((moved**2).sum(axis=0))
        return np.asarray(moved.T @ moved)


def _rescale(design: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column from 0 to 1; half where it does not vary."""
    low = np.nanmin(design, axis=0, initial=np.inf)
    span = np.nanmax(design, axis=0, initial=-np.inf) - low
    flat = ~(span > 0)
    with np.errstate(invalid="ignore"):
        scaled = (design - low) / np.where(flat, 1, span)
    scaled[:, flat] += 0.5
    return np.asarray(scaled)


def _name_columns(
    axes: Any,  # noqa: ANN401 - an Axes
    names: Sequence[str] | None,
    n_columns: int,
) -> None:
    """Write the names of the columns below, or how many there are."""
    if names is None:
        axes.set_xticks([])
        axes.set_xlabel(f"{n_columns} columns")
        return
    axes.set_xticks(
        np.arange(n_columns) + 0.5,
        [shorten(name, 26) for name in names],
        rotation=90,
        fontsize=min(7.5, 210 / n_columns),
        parse_math=False,
    )
    axes.tick_params(axis="x", length=0)
