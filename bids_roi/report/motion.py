"""Head motion over time, with the volumes that are left out shaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.report.canvas import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    Picture,
    add_key,
    bin_peaks,
    bin_size,
    count,
    figure_svg,
    new_figure,
    place,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


_POINTS = 600
CENSORED = "#f6d79b"
DUMMY = "#d5d9df"


def draw_motion(
    fd: NDArray[np.float64] | None,
    dvars: NDArray[np.float64] | None,
    *,
    kept: NDArray[np.bool_] | None = None,
    dummy: NDArray[np.bool_] | None = None,
    fd_threshold: float | None = None,
    dvars_threshold: float | None = None,
    repetition_time: float | None = None,
) -> Picture | None:
    """Draw framewise displacement in mm and standardised DVARS, (T,), if there is any.

    Power et al. 2012, doi:10.1016/j.neuroimage.2011.10.018; Nichols 2017,
    arXiv:1704.01469. Volumes beyond a threshold are left out.
    """
    rows = [
        ("Framewise displacement (mm)", fd, fd_threshold, BLUE),
        ("Standardised DVARS", dvars, dvars_threshold, INK),
    ]
    traces = [
        (label, trace, threshold, colour)
        for label, trace, threshold, colour in rows
        if trace is not None and np.isfinite(trace).any()
    ]
    if not traces:
        return None
    n_volumes = traces[0][1].size
    figure = new_figure(9, 0.55 + 1.25 * len(traces))
    step = repetition_time or 1.0
    size = bin_size(n_volumes, _POINTS)
    for number, (label, trace, threshold, colour) in enumerate(traces):
        axes = place(figure, 0.65, 0.35 + 1.25 * number, 8.2, 0.95)
        values = bin_peaks(trace, _POINTS)
        times = (np.arange(values.size) * size + (size - 1) / 2) * step
        axes.plot(times, values, color=colour, lw=0.9, solid_joinstyle="round")
        top = float(np.nanmax(values)) * 1.08 or 1.0
        if threshold is not None:
            axes.axhline(threshold, color=ORANGE, lw=1, ls="--")
            top = max(top, threshold * 1.15)
        axes.set(xlim=(-step / 2, (n_volumes - 0.5) * step), ylim=(0, top))
        shade_volumes(axes, kept, dummy, n_volumes * step)
        axes.locator_params(axis="y", nbins=4)
        axes.set_title(label, color=colour)
        if number < len(traces) - 1:
            axes.tick_params(labelbottom=False)
        else:
            time_axis(axes, repetition_time)
        if number == 0:
            add_key(axes, _key(kept, dummy, fd_threshold, dvars_threshold))
    facts = _facts(fd, kept, n_volumes)
    return Picture(
        "motion",
        figure_svg(figure),
        ".svg",
        "Head motion",
        _caption(size, kept, dummy),
        _describe(fd, dvars, kept),
        facts,
    )


def shade_volumes(
    axes: Any,  # noqa: ANN401 - an Axes
    kept: NDArray[np.bool_] | None,
    dummy: NDArray[np.bool_] | None,
    duration: float,
) -> None:
    """Shade volumes that are left out; one raster, however many there are."""
    if kept is None or kept.all():
        return
    from_colour = np.zeros((1, kept.size, 4))
    early = np.zeros_like(kept) if dummy is None else dummy
    for which, colour in ((~kept & ~early, CENSORED), (early, DUMMY)):
        shade = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        from_colour[0, which] = (*shade, 1)
    binned = np.stack([bin_peaks(from_colour[0, :, i], _POINTS) for i in range(4)], -1)
    edge = duration / kept.size / 2
    across, up = axes.get_xlim(), axes.get_ylim()
    extent = (-edge, duration - edge, *up)
    axes.imshow(binned[None], aspect="auto", extent=extent, zorder=0)
    axes.set(xlim=across, ylim=up)


def time_axis(axes: Any, repetition_time: float | None) -> None:  # noqa: ANN401
    """Name the axis of time."""
    axes.set_xlabel("Time (s)" if repetition_time else "Volume")


def _key(
    kept: NDArray[np.bool_] | None,
    dummy: NDArray[np.bool_] | None,
    *thresholds: float | None,
) -> list[tuple[str, str, str]]:
    entries = []
    if any(t is not None for t in thresholds):
        entries.append(("dash", ORANGE, "threshold"))
    early = dummy is not None and bool(dummy.any())
    if kept is not None and (~kept & ~(dummy if dummy is not None else ~kept)).any():
        entries.append(("patch", CENSORED, "censored"))
    if early:
        entries.append(("patch", DUMMY, "not steady yet"))
    return entries or [("line", GREY, "all volumes kept")]


def _facts(
    fd: NDArray[np.float64] | None, kept: NDArray[np.bool_] | None, n_volumes: int
) -> dict[str, Any]:
    facts: dict[str, Any] = {"NumberOfVolumes": n_volumes}
    if fd is not None and np.isfinite(fd).any():
        facts["MeanFramewiseDisplacement"] = round(float(np.nanmean(fd)), 6)
    if kept is not None:
        facts["NumberOfVolumesKept"] = int(kept.sum())
    return facts


def _caption(
    size: int, kept: NDArray[np.bool_] | None, dummy: NDArray[np.bool_] | None
) -> str:
    text = "From the table of confounds, one value per volume."
    if size > 1:
        text = (
            "From the table of confounds; each point is the highest of"
            f" {size} neighbouring volumes."
        )
    if kept is not None:
        n_early = 0 if dummy is None else int(dummy.sum())
        n_left = int((~kept).sum()) - n_early
        text += (
            f" {int(kept.sum()):,} of {count(kept.size, 'volume')} kept,"
            f" {n_left:,} censored, {n_early:,} not in a steady state."
        )
    return text


def _describe(
    fd: NDArray[np.float64] | None,
    dvars: NDArray[np.float64] | None,
    kept: NDArray[np.bool_] | None,
) -> str:
    parts = ["Line plot over time."]
    for name, trace, unit in (
        ("Framewise displacement", fd, " mm"),
        ("Standardised DVARS", dvars, ""),
    ):
        if trace is not None and np.isfinite(trace).any():
            mean, top = float(np.nanmean(trace)), float(np.nanmax(trace))
            when = int(np.nanargmax(trace)) + 1
            parts.append(
                f"{name}: mean {mean:.2f}{unit}, highest {top:.2f}{unit} in volume"
                f" {when}."
            )
    if kept is not None:
        parts.append(f"{int((~kept).sum())} volumes are shaded as left out.")
    return " ".join(parts)
