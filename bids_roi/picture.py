"""Series of some regions as a picture, for notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.errors import UsageError, nearest_words
from bids_roi.files.tables import write_file
from bids_roi.report.paper import BLUE, INK, Panel, Sheet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pandas as pd

_WIDTH, _ROW = 860, 96
_LEFT, _TOP, _FOOT = 64, 26, 44


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
    height = _TOP + len(names) * (_ROW + _TOP) + _FOOT
    sheet = Sheet(_WIDTH, height, title=title, description=f"{title}, {units}.")
    for row, name in enumerate(names):
        values = whole[:, row]
        lost = not np.isfinite(values).any()
        low, high = (0.0, 1.0) if lost else (np.nanmin(values), np.nanmax(values))
        if low == high:
            low, high = low - 1, high + 1
        box = (_LEFT, _TOP + row * (_ROW + _TOP), _WIDTH - _LEFT - 16, _ROW)
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
