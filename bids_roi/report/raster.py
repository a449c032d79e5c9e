"""Rasters: the order of what they show, values as colours, pixels as PNG."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Codes = NDArray[np.uint8]
    Palette = NDArray[np.uint8]
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


# Ends and turning points of the colour maps; what lies between is computed.
GREYS = ("#0c0c0c", "#ffffff")
BLUE_RED = (
    *("#0b2f66", "#1f6bb0", "#7fb5da", "#f7f7f7"),
    *("#efa482", "#c4403a", "#660a22"),
)
NIGHT_SUN = ("#001f52", "#44506b", "#7d7c76", "#bcaa6a", "#ffea46")
CLEAR = (255, 255, 255, 0)
_SMALL = 4096  # bytes

# Okabe and Ito (2008), told apart by every kind of colour vision, and darker shades.
DISTINCT = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"),
    *("#7d5ba6", "#8c6d31", "#5f9ea0", "#b2182b", "#4d9221", "#9aa0a6", "#c51b7d"),
)

# OKLab: cone responses of linear sRGB, and lightness and two hues of their cube roots.
# Ottosson B (2020), https://bottosson.github.io/posts/oklab
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of ``#rrggbb``.

    >>> rgb("#ff8000")
    (255, 128, 0)
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def ramp(anchors: Sequence[str], n: int) -> Palette:
    """Colours of ``n`` even steps between those given, (n, 3).

    They are mixed in OKLab, where equal steps look equal: in RGB the middle of blue and
    yellow is a muddy grey, and bands appear where there are none.
    """
    stops = np.array([rgb(colour) for colour in anchors]) / 255
    linear = np.where(stops > 0.04045, ((stops + 0.055) / 1.055) ** 2.4, stops / 12.92)
    lab = np.cbrt(linear @ _CONES.T) @ _LAB.T
    at, places = np.linspace(0, len(stops) - 1, n), np.arange(len(stops))
    mixed = np.stack([np.interp(at, places, lab[:, k]) for k in range(3)], axis=1)
    back = np.linalg.inv(_CONES.T)
    linear = np.clip((mixed @ np.linalg.inv(_LAB.T)) ** 3 @ back, 0, 1)
    shown = np.where(
        linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, linear * 12.92
    )
    return np.asarray(np.rint(shown * 255), dtype=np.uint8)


def group_colours(n: int) -> list[str]:
    """Colours for ``n`` groups; darker and paler shades once all are taken.

    >>> group_colours(2)
    ['#0072b2', '#e69f00']
    """
    shades = [1.0, 0.6, 1.4]
    found = []
    for number in range(n):
        turn, place = divmod(number, len(DISTINCT))
        shade = shades[turn % len(shades)]
        mixed = [round(min(255, channel * shade)) for channel in rgb(DISTINCT[place])]
        found.append("#{:02x}{:02x}{:02x}".format(*mixed))
    return found


@dataclass(frozen=True, slots=True)
class Scale:
    """Colours of the values from ``low`` to ``high``; what is beyond has the ends'.

    The first of the ``others``, red to opacity, is that of NaN, as a rule ``CLEAR``, so
    that the stripes below are seen.
    """

    low: float
    high: float
    colours: Palette  # (n, 3) or (n, 4), even steps; at most 255 with others
    others: tuple[tuple[int, int, int, int], ...] = (CLEAR,)

    @classmethod
    def of(
        cls,
        anchors: Sequence[str],
        low: float,
        high: float,
        n: int = 200,
        others: tuple[tuple[int, int, int, int], ...] = (CLEAR,),
    ) -> Scale:
        """Scale of ``n`` steps between colours."""
        return cls(low, high, ramp(anchors, n), others)

    @property
    def missing(self) -> int:
        """Code of NaN; those of the further colours follow."""
        return len(self.colours)

    @property
    def palette(self) -> Palette:
        """Colour of each code, with its opacity."""
        opaque = np.full((len(self.colours), 4), 255, dtype=np.uint8)
        opaque[:, : self.colours.shape[1]] = self.colours
        return np.concatenate([opaque, np.array(self.others, dtype=np.uint8)])

    def encode(self, values: NDArray[np.floating]) -> Codes:
        """Code of each value in the palette."""
        n = len(self.colours)
        span = self.high - self.low
        steps = (values - self.low) * (n / span if span > 0 else 0.0)
        missing = np.isnan(steps)
        np.clip(steps, 0, n - 1, out=steps)
        steps[missing] = n
        return np.asarray(steps.astype(np.uint8))


def encode_png(codes: Codes, palette: Palette) -> bytes:
    """PNG of codes, (rows, columns), into a palette, (n, 3) or (n, 4).

    Up to 16 colours take half a byte a pixel or less. No filter: differences between
    codes pack no better than codes.
    """
    high, wide = codes.shape
    n = len(palette)
    depth = 1 if n <= 2 else 2 if n <= 4 else 4 if n <= 16 else 8
    per = 8 // depth
    across = -(-wide // per)
    if per > 1:
        padded = np.zeros((high, across, per), dtype=np.uint8)
        padded.reshape(high, -1)[:, :wide] = codes
        packed = padded[:, :, 0].copy()
        for place in range(1, per):
            packed <<= np.uint8(depth)
            packed |= padded[:, :, place]
        codes = packed
    rows = np.zeros((high, across + 1), dtype=np.uint8)  # a filter of 0 before each
    rows[:, 1:] = codes
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", wide, high, depth, 3, 0, 0, 0)),
        (b"PLTE", np.ascontiguousarray(palette[:, :3], dtype=np.uint8).tobytes()),
    ]
    if palette.shape[1] == 4:
        chunks.append((b"tRNS", palette[:, 3].astype(np.uint8).tobytes()))
    # zlib gives the same bytes on every CPU, and its time is nothing for a few pixels.
    # Higher levels of ISA-L take several times longer for two in a hundred bytes.
    pack = zlib.compress if rows.size < _SMALL else isal_zlib.compress
    chunks += [(b"IDAT", pack(rows.data, 2)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, *zip(*chunks, strict=True)))


def _chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def bin_size(n: int, most: int) -> int:
    """How many neighbours share a bin, so that at most ``most`` bins are needed.

    >>> bin_size(300, 300), bin_size(301, 300), bin_size(3000, 300)
    (1, 2, 10)
    """
    return max(1, -(-n // most))


def bin_rows(values: NDArray[Any], most: int) -> FloatArray:
    """Mean of neighbouring rows, so that at most ``most`` are left.

    NaN does not count; a bin of nothing else is NaN. The last may hold fewer rows.
    """
    return _bin(values, most, np.nanmean)


def bin_peaks(values: NDArray[Any], most: int) -> FloatArray:
    """Highest value of neighbouring rows; otherwise as ``bin_rows``."""
    return _bin(values, most, np.nanmax)


def _bin(values: NDArray[Any], most: int, function: Any) -> FloatArray:  # noqa: ANN401
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


_HEX = re.compile("#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class RegionOrder:
    """In which order regions are drawn, what they belong to, and in which colour."""

    order: NDArray[np.intp]  # (R,), rows of the region table
    groups: tuple[str, ...] = ()  # network of each; empty where the atlas tells none
    colours: tuple[str, ...] = ()  # #rrggbb: that of its network, where there are any

    @property
    def words(self) -> str:
        """The order, for a caption."""
        return "by network" if self.groups else "in table order"

    @property
    def row_colours(self) -> list[str]:
        """Colour of each row of the region table."""
        places = np.argsort(self.order).tolist()
        return [self.colours[place] for place in places]

    def with_few_colours(self, most: int) -> RegionOrder:
        """The same, with a few colours again and again where there are more."""
        kinds = list(dict.fromkeys(self.colours))
        if len(kinds) <= most:
            return self
        again = {old: DISTINCT[n % len(DISTINCT)] for n, old in enumerate(kinds)}
        return replace(self, colours=tuple(again[old] for old in self.colours))

    @property
    def networks(self) -> list[tuple[str, str]]:
        """Each network and its colour, as drawn."""
        return list(dict(zip(self.groups, self.colours, strict=False)).items())


def order_regions(
    n_regions: int, networks: Sequence[str] | None, told: Sequence[str] | None = None
) -> RegionOrder:
    """Put regions of one network together, networks in the order of their first region.

    ``told`` are colours of the atlas's own, which count where all are there and tell
    the networks apart.

    >>> found = order_regions(3, ["Vis", "Def", "Vis"])
    >>> found.order.tolist(), found.groups, found.colours
    ([0, 2, 1], ('Vis', 'Vis', 'Def'), ('#0072b2', '#0072b2', '#e69f00'))
    """
    known = told is not None and all(_HEX.fullmatch(cell) for cell in told)
    own = list(told) if told is not None and known else []
    if networks is None or len(set(networks)) < 2:
        own = own or [DISTINCT[row % len(DISTINCT)] for row in range(n_regions)]
        return RegionOrder(np.arange(n_regions), (), tuple(own))
    rank = {name: number for number, name in enumerate(dict.fromkeys(networks))}
    order = np.argsort([rank[name] for name in networks], kind="stable")
    groups = tuple(networks[i] for i in order)
    # The colour of a network is that of its first region.
    firsts = [own[networks.index(name)] for name in rank] if own else []
    if len({colour.lower() for colour in firsts}) < len(rank):
        firsts = group_colours(len(rank))
    return RegionOrder(order, groups, tuple(firsts[rank[name]] for name in groups))


def bracket(groups: Sequence[str]) -> list[tuple[str, int, int]]:
    """Runs of equal names as ``(name, first, one past the last)``.

    >>> bracket(["a", "a", "b"])
    [('a', 0, 2), ('b', 2, 3)]
    """
    found: list[tuple[str, int, int]] = []
    for position, name in enumerate(groups):
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1], position + 1)
        else:
            found.append((name, position, position + 1))
    return found
