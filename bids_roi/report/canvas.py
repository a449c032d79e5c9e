"""Figures as bytes: the one place that knows matplotlib.

No figure knows the clock, the host or a display: the same numbers make the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import struct
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Picture:
    """One figure, or the data of one that the page draws itself.

    Attributes
    ----------
    kind
        ``motion``, ``design``, ``contours``, ``coverage``, ``carpet``, ``relmat`` or
        ``signals``.
    content
        The file.
    extension
        Of the file, with its dot.
    title, caption
        For the reader.
    alt
        The same for those who do not see the picture.
    facts
        Numbers that the page takes from it; plain JSON values.
    """

    kind: str
    content: bytes
    extension: str
    title: str
    caption: str
    alt: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def count(number: int, word: str) -> str:
    """Number with its word, in the plural where need be.

    >>> count(1, "region"), count(1200, "volume")
    ('1 region', '1,200 volumes')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def shorten(words: str, length: int) -> str:
    """Words of at most ``length`` characters.

    >>> shorten("abcdef", 4)
    'abc\u2026'
    """
    if len(words) <= length:
        return words
    return words[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def measure_image(content: bytes, extension: str) -> tuple[int, int] | None:
    """Width and height at which a picture is shown, in pixels of a page.

    A PNG has two pixels for one of the page, an SVG of matplotlib is in points;
    ``None`` for others.
    """
    if extension == ".png":
        width, height = struct.unpack(">II", content[16:24])
        return width // 2, height // 2
    found = re.search(rb'<svg[^>]*? width="([\d.]+)(pt)?" height="([\d.]+)', content)
    if extension != ".svg" or found is None:
        return None
    size = 4 / 3 if found[2] else 1.0
    return round(float(found[1]) * size), round(float(found[3]) * size)


def bin_size(n: int, most: int) -> int:
    """How many neighbours share a bin, so that at most ``most`` bins are needed.

    >>> bin_size(300, 300), bin_size(301, 300), bin_size(3000, 300)
    (1, 2, 10)
    """
    return max(1, -(-n // most))


def bin_rows(values: NDArray[Any], most: int) -> NDArray[np.float64]:
    """Mean of neighbouring rows, so that at most ``most`` are left.

    NaN does not count; a bin of nothing else is NaN. The last may hold fewer rows.
    """
    return _bin(values, most, np.nanmean)


def bin_peaks(values: NDArray[Any], most: int) -> NDArray[np.float64]:
    """Highest value of neighbouring rows; otherwise as ``bin_rows``."""
    return _bin(values, most, np.nanmax)


def _bin(values: NDArray[Any], most: int, function: Any) -> NDArray[np.float64]:  # noqa: ANN401
    size = bin_size(len(values), most)
    result = np.asarray(values, dtype=np.float64)
    if size == 1:
        return result
    n_bins = -(-len(result) // size)
    padded = np.full((n_bins * size, *result.shape[1:]), np.nan)
    padded[: len(result)] = result
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # bins without a number
        return np.asarray(
            function(padded.reshape(n_bins, size, *result.shape[1:]), axis=1)
        )


# Okabe and Ito (2008), told apart by every kind of colour vision; INK is for text.
BLUE = "#0072b2"
ORANGE = "#e69f00"
GREY = "#8a8f98"
INK = "#23272e"
NA = "#c9d6e4"  # no number here

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": "#b6bac1",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlepad": 5,
    "xtick.color": "#5b616b",
    "ytick.color": "#5b616b",
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.dpi": 100,
    "hatch.linewidth": 0.8,
    # Text stays text: small files, found by a search, drawn by the reader's own fonts.
    "svg.fonttype": "none",
    "svg.hashsalt": "bids_roi",
    "image.interpolation": "none",
}


@contextlib.contextmanager
def drawing(scratch: Path) -> Iterator[None]:
    """Draw within this: the style is set, and taken back afterwards.

    ``scratch`` can be written to, which matplotlib needs while it is imported.
    """
    with warnings.catch_warnings():
        # Older releases of matplotlib call what is out of date in newer ones of others.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="matpl")
        yield from _drawing(scratch)


def _drawing(scratch: Path) -> Iterator[None]:
    mpl = _import(scratch)
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever a user's own settings say
        mpl.rcParams.update(_STYLE)
        yield


def _import(scratch: Path) -> Any:  # noqa: ANN401 - the library
    """Import matplotlib, which insists on a folder that it can write.

    In a read-only container there is none; one is lent to it while it looks for fonts.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    home = os.environ.get("MPLCONFIGDIR") or Path("~").expanduser()
    if "matplotlib" in sys.modules or os.access(home, os.W_OK | os.X_OK):
        import matplotlib as mpl

        return mpl
    earlier = os.environ.get("MPLCONFIGDIR")
    with _temporary_folder(scratch) as folder:
        os.environ["MPLCONFIGDIR"] = folder
        try:
            import matplotlib as mpl
            import matplotlib.font_manager
        finally:
            del os.environ["MPLCONFIGDIR"]
            if earlier is not None:
                os.environ["MPLCONFIGDIR"] = earlier
    return mpl


def _temporary_folder(scratch: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="bids_roi-")
    except OSError:  # no /tmp that can be written either
        return tempfile.TemporaryDirectory(prefix=".bids_roi-", dir=scratch)


def new_figure(width: float, height: float) -> Any:  # noqa: ANN401 - a Figure
    """Make an empty figure; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def place(
    figure: Any,  # noqa: ANN401 - a Figure
    left: float,
    top: float,
    width: float,
    height: float,
) -> Any:  # noqa: ANN401 - an Axes
    """Add axes at a distance from the left and the top; all in inches."""
    across, down = figure.get_size_inches()
    box = (left / across, 1 - (top + height) / down, width / across, height / down)
    return figure.add_axes(box)


def colour_map(name: str | Sequence[Any], missing: str = NA) -> Any:  # noqa: ANN401
    """Colours by the name of a map, or from low to high; one where there is none."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    if isinstance(name, str):
        return mpl.colormaps[name].with_extremes(bad=missing)
    return ListedColormap(name).with_extremes(bad=missing)


def add_key(
    axes: Any,  # noqa: ANN401 - an Axes
    entries: Sequence[tuple[str, str, str]],
) -> None:
    """Say above the axes, on the right, what the colours mean.

    Entries are ``(kind, colour, words)`` with the kinds ``line``, ``dash`` and
    ``patch``.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=colour, label=words)
        if kind == "patch"
        else Line2D(
            [], [], color=colour, ls="--" if kind == "dash" else "-", label=words
        )
        for kind, colour, words in entries
    ]
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        handlelength=1.6,
        borderaxespad=0.2,
    )


def figure_svg(figure: Any) -> bytes:  # noqa: ANN401 - a Figure
    """SVG of a figure; rasters inside it are PNG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    return buffer.getvalue()


def figure_png(figure: Any, *, density: float = 1.5) -> bytes:  # noqa: ANN401 - a Figure
    """PNG of a figure, at ``density`` times 100 pixels an inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(100 * density)
    buffer = io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    canvas.print_png(buffer, metadata={"Software": None})
    # Figure and canvas know each other: what they hold would stay for long.
    canvas.renderer = None
    figure.clear()
    return buffer.getvalue()
