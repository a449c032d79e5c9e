"""Paper: figures as SVG, with words as words, lines as paths and rasters as PNG inside.

A sheet is measured in pixels of a page, from the left and the top. The same calls make
the same bytes: no clock, no font and no host is asked. The ground is white whatever the
page is: figures are copied into papers, and white is a colour of most scales.
"""

from __future__ import annotations

import base64
import functools
import json
import math
import re
import unicodedata
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.report.raster import encode_png

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from bids_roi.report.raster import Scale

    Box = tuple[float, float, float, float]  # left, top, width, height
    Span = tuple[float, float]


INK = "#23272e"
SOFT = "#5b616b"
LINE = "#b6bac1"
BLUE = "#0072b2"
ORANGE = "#e69f00"
GREY = "#8a8f98"
STRIPES = "#b9c4d2"  # on white: no number here
_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"
# What XML 1.0 forbids, escaped or not.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Never drawn, or drawn over the letter before.
_NO_WIDTH = {"Mn", "Me", "Cf"}


def quote(words: str) -> str:
    """Words as XML, in text and between quotes."""
    return escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", words))


def count(number: int, word: str) -> str:
    """Number with its word, in the plural where need be.

    >>> count(1, "region"), count(1200, "volume")
    ('1 region', '1,200 volumes')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def spell(value: float) -> str:
    """Number for a reader.

    >>> spell(0.1 + 0.2), spell(12000.0), spell(-0.0), len(spell(-1))
    ('0.3', '12000', '0', 2)
    """
    return f"{value + 0.0:.12g}".replace("-", "\N{MINUS SIGN}")


def find_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within a span, at most ``most``.

    >>> find_ticks(0, 1, 5), find_ticks(-0.3, 0.3, 3)
    ([0.0, 0.5, 1.0], [-0.2, 0.0, 0.2])
    """
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return []
    power = math.floor(math.log10(span / most))
    for number in range(12):
        exponent, mantissa = power + number // 3, (1, 2, 5)[number % 3]
        step = mantissa * 10.0**exponent
        first = math.ceil(low / step - 1e-9)
        last = math.floor(high / step + 1e-9)
        if last - first < most:
            break
    # Divided rather than multiplied, so that 3 tenths are 0.3.
    if exponent < 0:
        return [n * mantissa / 10**-exponent for n in range(first, last + 1)]
    return [float(n * mantissa * 10**exponent) for n in range(first, last + 1)]


def measure_words(words: str, size: float = 11) -> float:
    """About the width of words in pixels; the font is the reader's, so no more."""
    total = 0.0
    for letter in words:
        if letter in "iljI.,:;'|!()[] ftr":
            total += 0.36
        elif unicodedata.category(letter) in _NO_WIDTH:
            continue
        elif unicodedata.east_asian_width(letter) in "WF":
            total += 1
        elif letter in "mwMW@%" or ord(letter) > 0x2FF:
            total += 0.9
        else:
            total += 0.68 if letter.isupper() else 0.59
    return total * size


def fit_words(words: str, width: float, size: float = 11) -> str:
    """Words that fit in a width, cut in the middle, where names differ least often.

    >>> fit_words("framewise_displacement_squared", 100)
    'framewi…squared'
    """
    if measure_words(words, size) <= width:
        return words
    for length in range(len(words) - 1, 1, -1):
        cut = words[: length // 2] + "\N{HORIZONTAL ELLIPSIS}"
        cut += words[len(words) - (length - length // 2) :]
        if measure_words(cut, size) <= width:
            return cut
    return "\N{HORIZONTAL ELLIPSIS}"


def trace(x: ArrayLike, y: ArrayLike) -> str:
    """Path through points; a point that is NaN leaves a gap, one alone is a dot."""
    across, down = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    known = np.isfinite(across) & np.isfinite(down)
    begins = known & ~np.concatenate([[False], known[:-1]])
    ends = known & ~np.concatenate([known[1:], [False]])
    pieces = []
    for place, right, below in zip(
        np.flatnonzero(known).tolist(),
        across[known].tolist(),
        down[known].tolist(),
        strict=True,
    ):
        lead = "M" if begins[place] else " "
        dot = "h.01" if begins[place] and ends[place] else ""
        pieces.append(f"{lead}{right:.1f} {below:.1f}{dot}")
    return "".join(pieces)


def data_url(png: bytes) -> str:
    """Address of a PNG that holds it whole."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@functools.cache
def _script() -> str:
    return (Path(__file__).parent / "templates" / "figure.js").read_text("utf-8")


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _place(box: Box) -> str:
    left, top, wide, high = map(_n, box)
    return f'x="{left}" y="{top}" width="{wide}" height="{high}"'


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, or the data of one that the page draws itself, with its words."""

    kind: str
    content: bytes
    title: str
    caption: str
    alt: str  # for those who do not see it
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the page; plain JSON
    extension: str = ".svg"
    size: tuple[int, int] | None = None  # pixels of a page

    def tell(self, **place: str) -> dict[str, Any]:
        """How a page finds and describes it; ``place`` says where it is."""
        return {
            "Kind": self.kind,
            **place,
            **({"Size": list(self.size)} if self.size else {}),
            "Title": self.title,
            "Caption": self.caption,
            "Alternative": self.alt,
            **self.facts,
        }


class Sheet:
    """A figure in the making.

    ``title`` and ``description`` are for those who hear it, and for the pointer.
    """

    def __init__(
        self, width: float, height: float, *, title: str = "", description: str = ""
    ) -> None:
        self.width, self.height = width, height
        self.title, self.description = title, description
        self.parts: list[str] = []
        self._striped = False
        self._live = ""

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 11,
        anchor: str = "start",
        colour: str = INK,
        turn: float = 0,
        bold: bool = False,
        hint: str = "",
    ) -> None:
        """Words on a base line; ``anchor`` is ``start``, ``middle`` or ``end``."""
        more = "" if size == 11 else f' font-size="{_n(size)}"'
        more += "" if anchor == "start" else f' text-anchor="{anchor}"'
        more += "" if colour == INK else f' fill="{colour}"'
        more += ' font-weight="600"' if bold else ""
        more += f' transform="rotate({_n(turn)} {_n(x)} {_n(y)})"' if turn else ""
        tip = f"<title>{quote(hint)}</title>" if hint else ""
        self.parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}"{more}>{quote(words)}{tip}</text>'
        )

    def path(
        self,
        d: str,
        *,
        colour: str = LINE,
        width: float = 1,
        dash: str = "",
        fill: str = "none",
        opacity: float = 1,
    ) -> None:
        """Path in SVG's own words; see ``trace`` for one through points."""
        if not d:
            return
        more = f' stroke-dasharray="{dash}"' if dash else ""
        more += f' opacity="{_n(opacity)}"' if opacity < 1 else ""
        self.parts.append(
            f'<path d="{d}" fill="{fill}" stroke="{colour}" stroke-width="{_n(width)}"'
            f' stroke-linejoin="round" stroke-linecap="round"{more}/>'
        )

    def rect(self, box: Box, fill: str, *, hint: str = "") -> None:
        """Rectangle; ``hint`` is said under the pointer."""
        tip = f"><title>{quote(hint)}</title></rect>" if hint else "/>"
        self.parts.append(f'<rect {_place(box)} fill="{fill}"{tip}')

    def mark(
        self,
        x: float,
        y: float,
        *,
        radius: float = 3,
        fill: str = BLUE,
        stroke: str = "none",
        opacity: float = 1,
        diamond: bool = False,
        hint: str = "",
        link: str = "",
    ) -> None:
        """Dot or diamond, with words under the pointer and a page behind it."""
        more = f' opacity="{_n(opacity)}"' if opacity < 1 else ""
        more += f' fill="{fill}" stroke="{stroke}"'
        tip = f"<title>{quote(hint)}</title>" if hint else ""
        if diamond:
            r = _n(radius)
            d = f"M{_n(x)} {_n(y - radius)}l{r} {r}-{r} {r}-{r}-{r}z"
            drawn = f'<path d="{d}"{more}>{tip}</path>'
        else:
            drawn = (
                f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"{more}>'
                f"{tip}</circle>"
            )
        if link:
            drawn = f'<a href="{quote(link)}" target="_top">{drawn}</a>'
        self.parts.append(drawn)

    def stripe(self, box: Box) -> None:
        """Stripes, which mean that there is no number: n/a."""
        self._striped = True
        self.rect(box, "url(#na)")

    def image(self, box: Box, png: bytes, *, smooth: bool = False) -> None:
        """PNG; pixels have sharp edges unless ``smooth``."""
        more = "" if smooth else ' style="image-rendering:pixelated"'
        self.parts.append(
            f'<image {_place(box)} preserveAspectRatio="none"{more}'
            f' href="{data_url(png)}"/>'
        )

    def raster(
        self,
        box: Box,
        codes: NDArray[np.uint8],
        palette: NDArray[np.uint8],
        *,
        striped: bool = False,
    ) -> None:
        """Codes of a palette as pixels; stripes show through what is transparent.

        Where there are more of them than fit they are averaged, not left out.
        """
        if codes.size == 0:
            return
        if striped:
            self.stripe(box)
        crowded = codes.shape[1] > box[2] or codes.shape[0] > box[3]
        self.image(box, encode_png(codes, palette), smooth=crowded)

    def bar(
        self, box: Box, scale: Scale, ticks: Sequence[float] = (), *, title: str = "",
        ground: str = "",
    ) -> None:  # fmt: skip
        """Upright bar of a scale's colours: its ends, 0 and round numbers named.

        ``ground`` is what transparent colours are seen on.
        """
        left, top, wide, high = box
        if ground:
            self.rect(box, ground)
        codes = np.arange(len(scale.colours))[::-1].astype(np.uint8)[:, None]
        self.image(box, encode_png(codes, scale.palette))
        if not ticks:
            ticks = scale_ticks(scale.low, scale.high, most=max(2, int(high / 26)))
        d = ""
        for tick in ticks:
            y = top + (scale.high - tick) / (scale.high - scale.low) * high
            d += f"M{_n(left + wide)} {_n(y)}h3"
            self.text(left + wide + 6, y + 3.5, spell(tick), size=10, colour=SOFT)
        self.path(d)
        if title:
            self.text(left, top - 8, title, size=10, colour=SOFT)

    def legend(
        self,
        right: float,
        y: float,
        entries: Sequence[tuple[str, str, str]],
        *,
        left: float = 0,
    ) -> float:
        """Key in a row that ends at ``right``, or in rows from ``left`` down.

        Entries are ``(kind, colour, words)`` with the kinds ``line``, ``dash``,
        ``patch`` and ``stripes``. Returns the base line of the last row.
        """
        widths = [measure_words(words, 10.5) + 34 for _, _, words in entries]
        x = max(left, right - sum(widths) + 10)
        for (kind, colour, words), width in zip(entries, widths, strict=True):
            if x + width - 10 > right + 0.5 and x > left:
                x, y = left, y + 16
            if kind in ("patch", "stripes"):
                box = (x, y - 8, 14, 9)
                self.stripe(box) if kind == "stripes" else self.rect(box, colour)
            else:
                dash = "4 3" if kind == "dash" else ""
                self.path(f"M{_n(x)} {_n(y - 4)}h14", colour=colour, width=2, dash=dash)
            self.text(x + 19, y, words, size=10.5)
            x += width
        return y

    def answer(self, x: float, y: float, about: Mapping[str, Any]) -> None:
        """Tell names and values under the pointer, in words at a place.

        ``about`` is what ``templates/figure.js`` asks for. It runs where the file is
        opened by itself, and in the frames that the page lays over its pictures.
        """
        text = json.dumps(about, ensure_ascii=False, separators=(",", ":"))
        self._live = (
            f"<metadata>{quote(text)}</metadata>"
            f'<path id="mark" fill="#ff00c8" fill-opacity=".55" stroke="#ff00c8"'
            ' pointer-events="none"/>'
            f'<path id="cross" stroke="{INK}" opacity=".5" pointer-events="none"/>'
            f'<text id="said" x="{_n(x)}" y="{_n(y)}" aria-live="polite"/>'
            f"<script><![CDATA[{_script()}]]></script>"
        )

    def finish(self) -> bytes:
        """The file."""
        w, h = _n(self.width), _n(self.height)
        about = f"<title>{quote(self.title)}</title>" if self.title else ""
        about += f"<desc>{quote(self.description)}</desc>" if self.description else ""
        stripes = (
            '<defs><pattern id="na" width="6" height="6" patternUnits="userSpaceOnUse"'
            ' patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/>'
            f'<rect width="2.5" height="6" fill="{STRIPES}"/></pattern></defs>'
        )
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}"'
            f' viewBox="0 0 {w} {h}" role="img" font-family="{_FONT}" font-size="11"'
            f' fill="{INK}">{about}{stripes if self._striped else ""}'
            f'<rect width="{w}" height="{h}" fill="#fff"/>'
        )
        return f"{head}{''.join(self.parts)}{self._live}</svg>\n".encode()

    def figure(
        self, kind: str, caption: str, *, title: str = "", alt: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> Figure:  # fmt: skip
        """The file with its words; title and description are the sheet's by default."""
        return Figure(
            kind,
            self.finish(),
            title or self.title,
            caption,
            alt or self.description,
            facts or {},
            size=(round(float(_n(self.width))), round(float(_n(self.height)))),
        )


def scale_ticks(low: float, high: float, most: int) -> list[float]:
    """Both ends, 0 where it lies within, and round numbers that keep clear of them.

    >>> scale_ticks(-0.37, 0.37, 5)
    [-0.37, -0.2, 0.0, 0.2, 0.37]
    """
    ends = [low, high, *([0.0] if low < 0 < high else [])]
    near = (high - low) / most * 0.6
    between = [
        tick
        for tick in find_ticks(low, high, most)
        if all(abs(tick - end) > near for end in ends)
    ]
    return sorted([*ends, *between])


def _share(values: ArrayLike, span: Span) -> NDArray[np.float64]:
    low, high = span
    return np.asarray((np.asarray(values, np.float64) - low) / ((high - low) or 1))


@dataclass(frozen=True, slots=True)
class Panel:
    """A rectangle of a sheet in which values have their places."""

    sheet: Sheet
    box: Box
    across: Span = (0.0, 1.0)  # values at its left and right side
    up: Span = (0.0, 1.0)  # at its bottom and top

    def x(self, values: ArrayLike) -> NDArray[np.float64]:
        """Pixels from the left of the sheet."""
        return self.box[0] + _share(values, self.across) * self.box[2]

    def y(self, values: ArrayLike) -> NDArray[np.float64]:
        """Pixels from the top of the sheet."""
        return self.box[1] + (1 - _share(values, self.up)) * self.box[3]

    def line(
        self, x: ArrayLike, y: ArrayLike, *, colour: str = BLUE, width: float = 1.2,
        dash: str = "",
    ) -> None:  # fmt: skip
        """Line through points, with gaps where they are NaN."""
        self.sheet.path(
            trace(self.x(x), self.y(y)), colour=colour, width=width, dash=dash
        )

    def level(self, value: float) -> None:
        """Line across at a value."""
        self.line(self.across, (value, value), colour=ORANGE, dash="5 4")

    def title(self, words: str, *, colour: str = INK) -> None:
        """Words above, on the left."""
        left, top, _, _ = self.box
        self.sheet.text(left, top - 7, words, size=12, colour=colour, bold=True)

    def axis_below(
        self, label: str = "", *, numbers: bool = True, most: int = 0
    ) -> None:
        """Axis along the bottom: ticks at round numbers."""
        left, top, wide, high = self.box
        foot = top + high
        d = f"M{_n(left)} {_n(foot)}h{_n(wide)}"
        for tick in find_ticks(*self.across, most or max(2, int(wide / 70))):
            x = float(self.x(tick))
            d += f"M{_n(x)} {_n(foot)}v4"
            if numbers:
                words = spell(tick)
                self.sheet.text(
                    x, foot + 15, words, size=10, anchor="middle", colour=SOFT
                )
        self.sheet.path(d)
        if label:
            self.sheet.text(left + wide / 2, foot + 30, label, anchor="middle")

    def axis_left(self, label: str = "", *, most: int = 0) -> None:
        """Axis along the left side; values may grow upwards or downwards."""
        left, top, _, high = self.box
        d = f"M{_n(left)} {_n(top)}v{_n(high)}"
        for tick in find_ticks(
            min(self.up), max(self.up), most or max(2, int(high / 28))
        ):
            y = float(self.y(tick))
            d += f"M{_n(left)} {_n(y)}h-4"
            self.sheet.text(
                left - 7, y + 3.5, spell(tick), size=10, anchor="end", colour=SOFT
            )
        self.sheet.path(d)
        if label:
            middle = top + high / 2
            self.sheet.text(left - 42, middle, label, anchor="middle", turn=-90)
