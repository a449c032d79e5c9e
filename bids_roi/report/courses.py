"""Courses over time as lines: motion, and series of regions for pages and notebooks."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from bids_roi.errors import UsageError, nearest_words
from bids_roi.files.tables import write_file
from bids_roi.report.paper import BLUE, INK, ORANGE, SOFT, Figure, Panel, Sheet, count
from bids_roi.report.raster import CLEAR, bin_peaks, bin_rows, bin_size, rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_roi.outputs.result import Motion

    # Parts of a sheet by title, place and end of the axis, and what is drawn.
    Drawn = dict[tuple[str, float, float, bytes], list[str]]

    from os import PathLike

    import pandas as pd

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


# Pictures with an axis of time have it at the same place.
SHEET, LEFT, WIDTH = 1100, 150, 860
CENSORED = "#f6d79b"
DUMMY = "#c3cfe0"
_POINTS = 600
_ROW, _HEAD = 56, 30
# Points and regions that a page can show; codes of values, and of n/a.
_OFFERED, _MOST_REGIONS = 300, 1000
_STEPS, MISSING_CODE = 254, 255
# A picture for notebooks: a row for each region.
_TALL, _LEFT, _TOP, _FOOT = 96, 64, 26, 44
_XYZ = (("x", "#0072b2"), ("y", "#d55e00"), ("z", "#009e73"))


@dataclass(frozen=True, slots=True)
class Course:
    """The volumes of a run in time, and which of them are used."""

    n_volumes: int  # T
    repetition_time: float | None = None  # s; None where not known
    kept: BoolArray | None = None  # (T,), volumes used; None where all are
    dummy: BoolArray | None = None  # (T,), those before the steady state

    @property
    def step(self) -> float:
        """Distance of two volumes on the axis."""
        return self.repetition_time or 1.0

    @property
    def span(self) -> tuple[float, float]:
        """Begin of the first volume and end of the last."""
        return -self.step / 2, (self.n_volumes - 0.5) * self.step

    @property
    def words(self) -> str:
        """Name of the axis."""
        return "Time (s)" if self.repetition_time else "Volume"

    @property
    def left_out(self) -> NDArray[np.uint8]:
        """1 for each volume that is censored, 2 for those of no steady state."""
        codes = np.zeros(self.n_volumes, dtype=np.uint8)
        if self.kept is not None:
            codes[~self.kept] = 1
            if self.dummy is not None:
                codes[~self.kept & self.dummy] = 2
        return codes

    def shade(self, panel: Panel) -> None:
        """Shade volumes that are left out; one raster, however many there are."""
        codes = self.left_out
        if codes.any():
            palette = np.array([CLEAR, (*rgb(CENSORED), 255), (*rgb(DUMMY), 255)])
            binned = bin_peaks(codes, WIDTH).astype(np.uint8)
            panel.sheet.raster(panel.box, binned[None], palette.astype(np.uint8))

    def key(self, *thresholds: float | None) -> list[tuple[str, str, str]]:
        """What shades and dashes mean, as far as there are any."""
        entries = []
        if any(limit is not None for limit in thresholds):
            entries.append(("dash", ORANGE, "threshold"))
        codes = self.left_out
        if (codes == 1).any():
            entries.append(("patch", CENSORED, "censored"))
        if (codes == 2).any():
            entries.append(("patch", DUMMY, "not steady yet"))
        return entries


@dataclass(frozen=True, slots=True)
class _Row:
    """Traces over time that share an axis: values with their name and colour."""

    title: str
    traces: tuple[tuple[FloatArray, str, str], ...]
    threshold: float | None = None
    is_position: bool = False  # known by its means; all else by its peaks


def motion_rows(
    motion: Motion, fd_threshold: float | None = None
) -> tuple[list[_Row], list[_Row]]:
    """Rows of what a run's motion is known by, if any: displacement, and parameters."""
    first, others = [], []
    if _is_known(motion.fd):
        trace = (motion.fd, "", BLUE)
        limit = None if motion.fd_filtered is not None else fd_threshold
        first.append(_Row("Framewise displacement (mm)", (trace,), limit))
    if _is_known(motion.fd_filtered):
        trace = (motion.fd_filtered, "", BLUE)
        first.append(_Row("The same, filtered (mm)", (trace,), fd_threshold))
    if motion.parameters is not None:
        turned = np.degrees(motion.parameters[:, 3:])
        for title, values in (
            ("Translation (mm)", motion.parameters[:, :3]),
            ("Rotation (\N{DEGREE SIGN})", turned),
        ):
            traces = [
                (trace, name, colour)
                for trace, (name, colour) in zip(values.T, _XYZ, strict=True)
                if _is_known(trace)
            ]
            if traces:
                others.append(_Row(title, tuple(traces), is_position=True))
    return first, others


def dvars_rows(traces: Sequence[FloatArray]) -> list[_Row]:
    """Row of the regional DVARS before and after cleaning, (T,), as far as known."""
    named = zip(traces, ("before cleaning", "after"), (SOFT, BLUE), strict=False)
    shown = tuple(
        (trace, word if len(traces) > 1 else "", colour)
        for trace, word, colour in named
        if _is_known(trace)
    )
    return [_Row("DVARS of the regions (standard deviations)", shown)] if shown else []


def _is_known(trace: FloatArray | None) -> TypeGuard[FloatArray]:
    return trace is not None and bool(np.isfinite(trace).any())


def draw_rows(
    sheet: Sheet,
    rows: list[_Row],
    course: Course,
    *,
    last: bool = False,
    drawn: Drawn | None = None,
) -> float:
    """Draw rows of traces from the top on; return where the next may begin.

    The ``last`` has the numbers of the axis. What is at the same place in many pictures
    of a run is taken from ``drawn``, and kept there.
    """
    drawn = {} if drawn is None else drawn
    size, top = bin_size(course.n_volumes, _POINTS), 2
    for number, row in enumerate(rows):
        bins = bin_rows if row.is_position else bin_peaks
        shown = [bins(trace, _POINTS) for trace, _, _ in row.traces]
        low, high = _find_span(shown, row.threshold)
        box = (LEFT, top + _HEAD - 8, WIDTH, _ROW)
        panel = Panel(sheet, box, course.span, (low, high))
        course.shade(panel)
        # Their values too: strategies may filter motion in different ways.
        key = (row.title, top, high, b"".join(each.tobytes() for each in shown))
        begin = len(sheet.parts)
        if key not in drawn:
            times = (np.arange(len(shown[0])) * size + (size - 1) / 2) * course.step
            for values, (_, _, colour) in zip(shown, row.traces, strict=True):
                panel.line(times, values, colour=colour, width=1.1)
            drawn[key] = sheet.parts[begin:]
        sheet.parts[begin:] = drawn[key]
        if row.threshold is not None:
            panel.level(row.threshold)
        sheet.text(LEFT, top + _HEAD - 14, row.title, bold=True)
        names = [("line", colour, name) for _, name, colour in row.traces if name]
        if names:
            sheet.legend(LEFT + WIDTH, top + _HEAD - 14, names)
        numbers = last and number == len(rows) - 1
        panel.axis_left(most=4)
        panel.axis_below(course.words if numbers else "", numbers=numbers)
        top += _HEAD + _ROW
    return top


def _find_span(shown: list[FloatArray], threshold: float | None) -> tuple[float, float]:
    """Ends of an axis that holds 0, all values and the threshold."""
    low = min(0.0, *(float(np.nanmin(values)) for values in shown)) * 1.08
    high = max(0.0, *(float(np.nanmax(values)) for values in shown)) * 1.08
    if threshold is not None:
        high = max(high, threshold * 1.15)
    return low, high if high > low else low + 1.0


def draw_motion(
    motion: Motion,
    course: Course,
    *,
    fd_threshold: float | None = None,
    dvars_threshold: float | None = None,
    drawn: Drawn | None = None,
) -> Figure | None:
    """Draw framewise displacement, standardised DVARS and the six parameters.

    Power et al. 2012, doi:10.1016/j.neuroimage.2011.10.018; Nichols 2017,
    arXiv:1704.01469. ``None`` where nothing of them is known.
    """
    first, others = motion_rows(motion, fd_threshold)
    if _is_known(motion.std_dvars):
        traces = ((motion.std_dvars, "", INK),)
        others.append(_Row("Standardised DVARS", traces, dvars_threshold))
    rows = [*first, *others]
    if not rows:
        return None
    alt = _describe(motion, course.kept)
    height = (_HEAD + _ROW) * len(rows) + 50
    sheet = Sheet(SHEET, height, title="Head motion", description=alt)
    key = course.key(fd_threshold, dvars_threshold)
    if key:
        sheet.legend(LEFT + WIDTH, 16, key)
    elif course.kept is not None:
        words = "all volumes kept"
        sheet.text(LEFT + WIDTH, 16, words, size=10.5, anchor="end", colour=SOFT)
    draw_rows(sheet, rows, course, last=True, drawn=drawn)
    facts: dict[str, Any] = {"NumberOfVolumes": course.n_volumes}
    for name, trace in (
        ("MeanFramewiseDisplacement", motion.fd),
        ("MeanRMSDisplacement", motion.rmsd),
        ("MeanStandardisedDVARS", motion.std_dvars),
    ):
        if _is_known(trace):
            facts[name] = round(float(np.nanmean(trace)), 6)
    if course.kept is not None:
        facts["NumberOfVolumesKept"] = int(course.kept.sum())
    caption = _caption(course, has_parameters=motion.parameters is not None)
    return sheet.figure("motion", caption, facts=facts)


def _caption(course: Course, *, has_parameters: bool) -> str:
    text = "From the table of confounds, one value per volume."
    size = bin_size(course.n_volumes, _POINTS)
    if size > 1:
        text = (
            "From the table of confounds; each point is the highest of"
            f" {size} neighbouring volumes"
            f"{', of positions their mean' if has_parameters else ''}."
        )
    if (kept := course.kept) is not None:
        n_early = 0 if course.dummy is None else int(course.dummy.sum())
        n_left = int((~kept).sum()) - n_early
        text += (
            f" {int(kept.sum()):,} of {count(kept.size, 'volume')} kept,"
            f" {n_left:,} censored, {n_early:,} not in a steady state."
        )
    return text


def _describe(motion: Motion, kept: BoolArray | None) -> str:
    parts = ["Line plot over time."]
    for name, trace, unit in (
        ("Framewise displacement", motion.fd, " mm"),
        ("Standardised DVARS", motion.std_dvars, ""),
    ):
        if _is_known(trace):
            mean, top = float(np.nanmean(trace)), float(np.nanmax(trace))
            when = int(np.nanargmax(trace)) + 1
            parts.append(
                f"{name}: mean {mean:.2f}{unit}, highest {top:.2f}{unit} in volume"
                f" {when}."
            )
    if _is_known(motion.parameters):
        low, high = np.nanmin(motion.parameters, 0), np.nanmax(motion.parameters, 0)
        reach = high - low
        parts.append(
            f"Translations over {np.nanmax(reach[:3]):.2f} mm, rotations over"
            f" {np.degrees(np.nanmax(reach[3:])):.2f} degrees at most."
        )
    if kept is not None:
        parts.append(f"{int((~kept).sum())} volumes are shaded as left out.")
    return " ".join(parts)


def encode_signals(
    before: FloatArray,
    after: FloatArray | None,
    names: Sequence[str],
    *,
    key: str,
    course: Course,
    unit: str = "arbitrary",
) -> Figure:
    """Put the series of every region, (T, R), into a script that the page loads.

    Pages opened from disk may load scripts but no data, hence a script: one call of
    ``bidsRoiSignals(key, data)``. Volumes that were left out are NaN in ``after``,
    which is in a ``unit`` of its own.
    """
    n_volumes, n_regions = before.shape
    shown = min(n_regions, _MOST_REGIONS)
    size = bin_size(n_volumes, _OFFERED)
    data: dict[str, Any] = {
        "names": list(names[:shown]),
        "volumes": size,
        "count": n_volumes,
        "step": course.repetition_time,
        # 1 for volumes that are censored, 2 for those of no steady state.
        "out": "".join(f"{code:.0f}" for code in bin_peaks(course.left_out, _OFFERED)),
        "series": [_encode("arbitrary", before[:, :shown])],
    }
    if after is not None:
        data["series"].append(_encode(unit, after[:, :shown]))
    words = (
        "Series of the region that is chosen, as extracted and as each strategy leaves"
        " it; pale orange and blue: volumes that are left out."
    )
    if size > 1:
        words += f" Each point is the mean of {size} neighbouring volumes."
    if n_regions > shown:
        words += f" The first {shown} of {n_regions} regions; the table has all."
    text = f"bidsRoiSignals({script_json(key)}, {script_json(data)});\n"
    return Figure(
        "signals",
        text.encode(),
        "Signals of a region",
        words,
        f"Series of {count(shown, 'region')} to choose from.",
        {"Key": key},
        ".js",
    )


def _encode(unit: str, values: FloatArray) -> dict[str, Any]:
    """Each region between its lowest and highest value in 255 steps, one byte each."""
    binned = bin_rows(values, _OFFERED)
    finite = np.isfinite(binned)
    low = np.where(finite, binned, np.inf).min(axis=0, initial=np.inf)
    high = np.where(finite, binned, -np.inf).max(axis=0, initial=-np.inf)
    known = np.isfinite(low)
    low, high = np.where(known, low, 0.0), np.where(known, high, 0.0)
    span = np.where(high > low, high - low, 1.0)
    codes = np.full(binned.shape, MISSING_CODE, dtype=np.uint8)
    steps = np.rint((binned - low) / span * _STEPS)
    codes[finite] = steps[finite].astype(np.uint8)
    return {
        "unit": unit,
        "low": [float(f"{v:.6g}") for v in low.tolist()],
        "high": [float(f"{v:.6g}") for v in high.tolist()],
        "points": len(binned),
        "codes": base64.b64encode(codes.T.tobytes()).decode(),
    }


def script_json(value: object) -> str:
    r"""JSON that can stand inside a script of a page.

    >>> script_json("</script>")
    '"\\u003c/script>"'
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c")


@dataclass(frozen=True, slots=True, repr=False)
class Picture:
    """A figure as SVG, which notebooks show.

    Attributes
    ----------
    svg : str
        The file's text.
    title : str
        What is drawn.
    """

    svg: str
    title: str

    def __repr__(self) -> str:
        return f"<Picture: {self.title}>"

    def _repr_svg_(self) -> str:
        """Show it in a notebook."""
        return self.svg

    def save(self, path: str | PathLike[str]) -> None:
        """Write the file.

        Parameters
        ----------
        path
            Where to; it ends in ``.svg``.
        """
        where = Path(path).absolute()
        write_file(where.parent, where.name, self.svg)


def draw_regions(
    signals: pd.DataFrame, names: Sequence[str], *, step: float | None, units: str
) -> Picture:
    """Draw the series of regions below one another, each with its own axis.

    ``step`` is the time between volumes in s; without it the axis counts them. Volumes
    that are missing leave a gap.
    """
    known = [str(name) for name in signals]
    for name in names:
        if name not in known:
            near = ", ".join(nearest_words(str(name), known)) or ", ".join(known[:8])
            raise UsageError(
                f"there is no region {name!r}.", remedy=f"Nearest: {near}."
            )
    if not names:
        raise UsageError("no region is named.", remedy=f"For example {known[0]!r}.")
    n_volumes = int(signals.index.max()) + 1
    whole = signals[list(names)].reindex(range(n_volumes)).to_numpy(dtype=float)
    times = np.arange(n_volumes) * (step or 1)
    title = f"Series of {', '.join(names)}"
    height = _TOP + len(names) * (_TALL + _TOP) + _FOOT
    sheet = Sheet(WIDTH, height, title=title, description=f"{title}, {units}.")
    for row, name in enumerate(names):
        values = whole[:, row]
        lost = not np.isfinite(values).any()
        low, high = (0.0, 1.0) if lost else (np.nanmin(values), np.nanmax(values))
        if low == high:
            low, high = low - 1, high + 1
        box = (_LEFT, _TOP + row * (_TALL + _TOP), WIDTH - _LEFT - 16, _TALL)
        panel = Panel(sheet, box, (0.0, float(times[-1]) or 1.0), (low, high))
        panel.title(f"{name} (lost)" if lost else name, colour=INK)
        if lost:
            sheet.stripe(box)
        else:
            panel.line(times, values, colour=BLUE)
            panel.axis_left(most=4)
        last = row == len(names) - 1
        words = "Time (s)" if step else "Volume"
        panel.axis_below(words if last else "", numbers=last)
    return Picture(sheet.finish().decode(), title)
