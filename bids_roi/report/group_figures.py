"""Figures of the group: coverage of all runs, distributions, motion in connectivity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.report.canvas import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    Picture,
    bin_rows,
    bin_size,
    colour_map,
    count,
    figure_svg,
    new_figure,
    place,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


_ROWS, _COLUMNS = 300, 600
_DOTS = 2000
# Place of a single edge in the map of greys, from white (0) to black (1).
_FAINTEST = 0.45


def draw_coverage_table(values: NDArray[np.float64], runs: Sequence[str]) -> Picture:
    """Draw the coverage of every region in every run, (N, R), 0 to 1."""
    n_runs, n_regions = values.shape
    shown = bin_rows(bin_rows(values, _ROWS).T, _COLUMNS).T
    height = min(6.0, max(1.2, 0.18 * n_runs))
    figure = new_figure(9, height + 0.85)
    axes = place(figure, 2.2, 0.15, 5.9, height)
    image = axes.imshow(
        np.ma.masked_invalid(shown),
        aspect="auto",
        cmap=coverage_colours(),
        vmin=0,
        vmax=1,
        extent=(0, n_regions, n_runs, 0),
    )
    axes.set_xlabel(f"{count(n_regions, 'region')}, in table order")
    if n_runs <= 40:
        axes.set_yticks(np.arange(n_runs) + 0.5, runs, fontsize=7, parse_math=False)
    else:
        axes.set_ylabel(f"{n_runs:,} runs, in the order of group_runs.tsv")
    bar = figure.colorbar(image, cax=place(figure, 8.3, 0.15, 0.1, min(1.4, height)))
    bar.outline.set_visible(False)
    worst = int(np.nanargmin(np.nanmean(values, axis=0))) if n_regions else 0
    text = "Share of each region that could be used: white for none, blue for all."
    if n_runs > _ROWS or n_regions > _COLUMNS:
        text += (
            f" Each cell is the mean of {bin_size(n_runs, _ROWS)} runs x"
            f" {bin_size(n_regions, _COLUMNS)} regions."
        )
    return Picture(
        "coverage",
        figure_svg(figure),
        ".svg",
        "Coverage",
        text,
        f"Raster of {count(n_runs, 'run')} by {count(n_regions, 'region')}: mean"
        f" coverage {float(np.nanmean(values)):.2f}.",
        {"WorstRegion": worst},
    )


def coverage_colours() -> Any:  # noqa: ANN401 - a Colormap
    """White for none to blue for all: what is missing catches the eye."""
    blues = colour_map("Blues")
    return colour_map([blues(x) for x in np.linspace(0, 0.75, 128)])


def find_outliers(
    values: NDArray[np.float64], *, high_is_bad: bool
) -> tuple[NDArray[np.bool_], float]:
    """Mark values far outside the others, on the bad side only, and the limit.

    Beyond one and a half times the range between the quartiles (Tukey 1977), which is
    taken for a twentieth of the median at least: where most runs are alike, one volume
    less is no news. The limit is NaN for fewer than four values; NaN is no outlier.
    """
    known = values[np.isfinite(values)]
    if known.size < 4:
        return np.zeros(values.shape, dtype=bool), float("nan")
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    reach = 1.5 * max(high - low, abs(middle) / 20)
    limit = float(high + reach if high_is_bad else low - reach)
    with np.errstate(invalid="ignore"):
        return (values > limit if high_is_bad else values < limit), limit


def draw_distributions(
    measures: Sequence[tuple[str, NDArray[np.float64], bool]],
) -> Picture | None:
    """Draw one strip per measure: every run a dot, outliers marked.

    Measures are ``(words, (N,) values, whether high is bad)``.
    """
    shown = [(w, v, bad) for w, v, bad in measures if np.isfinite(v).any()]
    if not shown:
        return None
    figure = new_figure(9, 0.85 * len(shown) + 0.15)
    words = []
    for number, (name, values, bad) in enumerate(shown):
        axes = place(figure, 2.2, 0.1 + 0.85 * number, 6.5, 0.42)
        outlying, _ = find_outliers(values, high_is_bad=bad)
        known = np.isfinite(values)
        step = bin_size(int(known.sum()), _DOTS)
        usual = np.sort(values[known & ~outlying])[::step]
        # Neighbours in rank stand on different heights, so that dots do not hide.
        height = (np.arange(usual.size) * 0.618) % 1
        low, middle, high = np.quantile(values[known], [0.25, 0.5, 0.75])
        axes.axvspan(low, high, color="#dbe3ec", zorder=0)
        axes.axvline(middle, color=INK, lw=1.2)
        axes.plot(usual, height, "o", ms=3, color=BLUE, alpha=0.6, mew=0)
        axes.plot(
            values[outlying],
            np.full(int(outlying.sum()), 0.5),
            "D",
            ms=5,
            color=ORANGE,
            mec=INK,
            mew=0.6,
        )
        axes.set(ylim=(-0.25, 1.25), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", parse_math=False)
        words.append(f"{name}: median {middle:.4g}, {int(outlying.sum())} outliers")
    return Picture(
        "distributions",
        figure_svg(figure),
        ".svg",
        "Quality of all runs",
        "One dot per run; line: median, shade: half of all runs, diamonds: runs beyond"
        " one and a half times that range on the bad side.",
        f"Strips of dots. {'; '.join(words)}.",
    )


def draw_qcfc(
    correlations: NDArray[np.float64], distances: NDArray[np.float64] | None
) -> Picture | None:
    """Draw how motion shows in connectivity, (R, R), by distance in mm, (R, R).

    After Ciric et al. (2017), doi:10.1016/j.neuroimage.2017.03.020: the correlation of
    each edge with mean framewise displacement over participants.
    """
    edges = np.triu_indices(len(correlations), 1)
    r = correlations[edges]
    known = np.isfinite(r)
    if not known.any():
        return None
    figure = new_figure(9, 2.9)
    axes = place(figure, 0.6, 0.3, 3.6, 2.05)
    axes.hist(r[known], bins=np.linspace(-1, 1, 61), color=BLUE)
    axes.axvline(0, color=GREY, lw=0.8)
    middle = float(np.median(r[known]))
    axes.axvline(middle, color=ORANGE, lw=1.5)
    axes.set(xlabel="r with mean FD", ylabel="Edges", xlim=(-1, 1))
    axes.set_title("Histogram")
    text = "Correlation of each edge with mean framewise displacement; orange: median."
    alt = f"Histogram of {int(known.sum()):,} edges, median {middle:.3f}."
    if distances is not None:
        d = distances[edges]
        both = known & np.isfinite(d)
        if both.any():
            axes = place(figure, 4.95, 0.3, 3.6, 2.05)
            _draw_distance(axes, d[both], r[both])
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
    return Picture("qcfc", figure_svg(figure), ".svg", "QC-FC", text, alt)


def _draw_distance(
    axes: Any,  # noqa: ANN401 - an Axes
    distances: NDArray[np.float64],
    correlations: NDArray[np.float64],
) -> None:
    end = float(distances.max()) or 1.0
    counts, _, _ = np.histogram2d(
        distances, correlations, bins=(60, 60), range=((0, end), (-1, 1))
    )
    shades = np.sqrt(counts.T)
    # A single edge must stand out from the white of none.
    top = max(float(shades.max()), 2.0)
    axes.imshow(
        np.ma.masked_equal(shades, 0),
        origin="lower",
        aspect="auto",
        cmap=colour_map("Greys", "#ffffff"),
        vmin=(1 - _FAINTEST * top) / (1 - _FAINTEST),
        vmax=top,
        extent=(0, end, -1, 1),
    )
    order = np.argsort(distances, kind="stable")
    pieces = np.array_split(order, min(20, order.size))
    axes.plot(
        [float(np.median(distances[p])) for p in pieces],
        [float(np.median(correlations[p])) for p in pieces],
        color=ORANGE,
        lw=2,
    )
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set(xlabel="Distance (mm)", xlim=(0, end), ylim=(-1, 1))
    axes.set_title("By distance")
