"""Slices through a run: where the atlas lies, and how much of each region was seen.

Slices are cut along the axes of the head that are nearest to those of the grid. Those
of a plane lie side by side in one raster of voxels; lines and stripes are drawn into a
finer one above it, so that the image below is stored voxel by voxel.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.report.paper import SOFT, Figure, Sheet, count, data_url, fit_words, spell
from bids_roi.report.raster import CLEAR, Scale, encode_png, ramp, rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid
    from bids_roi.report.paper import Box
    from bids_roi.report.raster import RegionOrder

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]
    IntArray = NDArray[np.int32]


_N_SLICES = 7
_WIDTH = 1150  # of the sheet, in pixels of a page; lines have two for each of them
_GAP = 6  # between slices
_MARGIN = 3  # voxels around what has to be seen
_HEAD = 18  # above the slices of a plane
_BAR = 104  # beside them
# Yellow and black, whatever the eye.
_STRIPES = ((240, 228, 66, 255), (20, 20, 20, 255))
_STRIPE = 5  # pixels
_BRAIN = "#ffffff"
_VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
_SHADES = 96  # of grey
_BESIDE, _NAMED = 18, 60  # networks in the key, beside and below
NAMING = " The region under the pointer is named."
# Axes of the picture, to the right and up, of slices across x, y and z.
_AXES = ((1, 2), (0, 2), (0, 1))


@dataclass(frozen=True, slots=True)
class Plane:
    """Slices across one axis of the head, side by side."""

    voxels: IntArray  # flat index at each pixel, -1 between slices
    cuts: tuple[float, ...]  # millimetres of each slice
    starts: tuple[int, ...]  # first column of each
    width: int  # columns of a slice
    size: tuple[float, float]  # width and height on the sheet
    finer: tuple[int, int]  # rows and columns of lines for one of voxels
    thick: tuple[int, int]  # rows and columns of a line

    def show(self, values: NDArray, fill: int) -> NDArray:  # type: ignore[type-arg]
        """Raster of one value per voxel, (V,), in the order of the file."""
        raster = values[self.voxels]
        raster[self.voxels < 0] = fill
        return raster


def choose_slices(grid: Grid, inside: BoolArray) -> tuple[Plane, ...]:
    """Cut seven slices in each of three planes through what is ``inside``, (V,)."""
    axes, signs = _nearest_axes(grid.matrix)
    volume = inside.reshape(grid.shape, order="F")
    spans = [_span(volume, axis) for axis in axes]
    boxes = [
        (max(0, first - _MARGIN), min(grid.shape[axis], last + _MARGIN + 1))
        for axis, (first, last) in zip(axes, spans, strict=True)
    ]
    lengths = [
        (end - start) * grid.zooms[axis]
        for axis, (start, end) in zip(axes, boxes, strict=True)
    ]
    step = (_WIDTH - _BAR) / _N_SLICES
    # Pixels of a page for a millimetre: the same in all planes.
    scale = (step - _GAP) / max(lengths[0], lengths[1], lengths[2] / 1.5)
    lines = [
        _along(length * scale, box) for length, box in zip(lengths, boxes, strict=True)
    ]
    planes = []
    for plane, (right, up) in enumerate(_AXES):
        axis, (first, last) = axes[plane], spans[plane]
        # The ends of a brain hold little: slices at (1..7) / 8 of its length.
        cuts = first + (last - first) * np.arange(1, _N_SLICES + 1) / (_N_SLICES + 1)
        cuts = np.rint(cuts).astype(int)[:: signs[plane]]
        (across, per_column), (down, per_row) = lines[right], lines[up]
        pixel = lengths[right] * scale / across.size
        gap = max(1, int((step - lengths[right] * scale) / pixel))
        index = [np.zeros(1, dtype=np.intp)] * 3
        index[axes[right]] = across[None, :: signs[right]]
        index[axes[up]] = down[:: -signs[up], None]
        parts, millimetres = [], []
        between = np.full((down.size, gap), -1, dtype=np.int32)
        for cut in cuts.tolist():
            index[axis] = np.array([[cut]])
            i, j, k = index
            flat = i + grid.shape[0] * (j + grid.shape[1] * k)
            parts += [flat.astype(np.int32), between]
            middle = [(n - 1) / 2 for n in grid.shape]
            middle[axis] = cut
            millimetres.append(float((grid.matrix @ [*middle, 1.0])[plane]))
        voxels = np.concatenate(parts[:-1], axis=1)
        starts = tuple(n * (across.size + gap) for n in range(_N_SLICES))
        size = (voxels.shape[1] * pixel, lengths[up] * scale)
        thick = (
            _weigh(per_row, down.size / (lengths[up] * scale)),
            _weigh(per_column, across.size / (lengths[right] * scale)),
        )
        places, finer = tuple(millimetres), (per_row, per_column)
        planes.append(Plane(voxels, places, starts, across.size, size, finer, thick))
    return tuple(planes)


def _span(volume: BoolArray, axis: int) -> tuple[int, int]:
    """First and last slice that holds something; all where none does."""
    others = tuple({0, 1, 2} - {axis})
    seen = np.flatnonzero(volume.any(axis=others))
    if seen.size == 0:
        return 0, volume.shape[axis] - 1
    return int(seen[0]), int(seen[-1])


def _nearest_axes(matrix: FloatArray) -> tuple[list[int], list[int]]:
    """Which axis of the grid runs along x, y and z of the head, and which way."""
    directions = matrix[:3, :3] / np.sqrt((matrix[:3, :3] ** 2).sum(axis=0))
    best = max(
        itertools.permutations(range(3)),
        key=lambda p: sum(abs(directions[k, p[k]]) for k in range(3)),
    )
    return list(best), [1 if directions[k, best[k]] > 0 else -1 for k in range(3)]


def _along(length: float, box: tuple[int, int]) -> tuple[NDArray[np.intp], int]:
    """Voxels that are shown over a length in pixels, and how much finer lines are."""
    start, end = box
    n = min(end - start, max(8, round(2 * length)))
    steps = start + (np.arange(n) + 0.5) * (end - start) / n
    return steps.astype(np.intp), min(12, max(1, round(2 * length / n)))


def _weigh(finer: int, per_pixel: float) -> int:
    """How many of the finer pixels make a line of one pixel of the page."""
    return max(1, min(finer, round(finer * per_pixel)))


class Ground:
    """What all pictures of the brain of a run share: slices, image, edge of the mask.

    ``image`` is of (V,) in any unit, and ``words`` say what it is; ``brain`` is the
    mask, (V,).
    """

    def __init__(
        self,
        planes: Sequence[Plane],
        image: NDArray[np.floating],
        brain: BoolArray | None,
        words: str,
    ) -> None:
        self.planes, self.words = planes, words
        shades = Scale(0, _brightest(image), ramp(("#000000", "#e4e4e4"), _SHADES))
        values = np.where(np.isfinite(image), image, 0)
        self.greys = [
            encode_png(shades.encode(plane.show(values, 0)), shades.colours)
            for plane in planes
        ]
        self.brain = brain

    @functools.cached_property
    def edges(self) -> list[bytes]:
        """Edge of the brain mask in each plane."""
        if self.brain is None:
            return []
        palette = np.array([CLEAR, (*rgb(_BRAIN), 255)], dtype=np.uint8)
        found = []
        for plane in self.planes:
            inside = plane.show(self.brain.astype(np.int8), 0).astype(np.int32)
            drawn = np.zeros(_fine_shape(plane), dtype=np.uint8)
            _outline(drawn, inside, inside.astype(np.uint8), plane)
            found.append(encode_png(drawn, palette))
        return found

    def lay_out(
        self, sheet: Sheet, layers: Sequence[Sequence[bytes]]
    ) -> tuple[float, list[Box]]:
        """Draw the image, the layers above it, and the words.

        Returns the height, and where each plane lies.
        """
        top, boxes = 0.0, []
        for number, plane in enumerate(self.planes):
            top += _HEAD
            box: Box = (0, top, *plane.size)
            boxes.append(box)
            sheet.rect((0, top, _WIDTH - _BAR, plane.size[1]), "#000000")
            sheet.image(box, self.greys[number], smooth=True)
            for layer in layers:
                sheet.image(box, layer[number], smooth=True)
            pixel = plane.size[0] / plane.voxels.shape[1]
            for cut, start in zip(plane.cuts, plane.starts, strict=True):
                words = f"{'xyz'[number]} = {spell(round(cut))} mm"
                sheet.text(start * pixel + 2, top - 5, words, size=10.5, colour=SOFT)
                if start == 0 and number > 0:
                    at, right = top + plane.size[1] / 2, plane.width * pixel - 3
                    sheet.text(3, at, "L", size=10, colour="#ffffff")
                    sheet.text(right, at, "R", size=10, colour="#ffffff", anchor="end")
            top += plane.size[1] + _GAP
        return top, boxes


def _brightest(image: NDArray[np.floating]) -> float:
    """Value that is shown lightest: 99 % of those that are not 0 lie below."""
    some = image[np.isfinite(image) & (image != 0)]
    some = np.abs(some[:: max(1, some.size // 100_000)])
    return float(np.quantile(some, 0.99)) if some.size else 1.0


def _fine_shape(plane: Plane) -> tuple[int, int]:
    rows, columns = plane.voxels.shape
    return rows * plane.finer[0], columns * plane.finer[1]


def _outline(
    drawn: NDArray[np.uint8], labels: IntArray, colours: NDArray[np.uint8], plane: Plane
) -> None:
    """Draw the edge of each label just inside of it, in its own colour.

    Neighbours of two colours have a line each, those of one colour share one, so that
    networks stand out. ``colours`` are codes of the pixels of ``labels``; where they
    are 0 nothing is drawn.
    """
    (tall, wide), (high, broad) = plane.finer, plane.thick
    across = labels[:, 1:] != labels[:, :-1]
    down = labels[1:] != labels[:-1]
    sides = np.zeros((4, *labels.shape), dtype=bool)
    sides[0, :-1], sides[1, :, :-1] = down, across
    sides[2, 1:] = down & (colours[1:] != colours[:-1])
    sides[3, :, 1:] = across & (colours[:, 1:] != colours[:, :-1])
    flat, length = drawn.reshape(-1), drawn.shape[1]
    # Only the voxels at an edge are touched: one in five or fewer.
    lines, rows = np.arange(tall)[:, None] * length, np.arange(wide)
    strips = (
        lines[tall - high :] + rows,
        lines + rows[wide - broad :],
        lines[:high] + rows,
        lines + rows[:broad],
    )
    for side, strip in zip(sides, strips, strict=True):
        rows, columns = np.nonzero(side & (colours > 0))
        places = rows * (tall * length) + columns * wide
        flat[places[:, None] + strip.ravel()] = colours[rows, columns][:, None]


def _stripe(
    drawn: NDArray[np.uint8],
    labels: IntArray,
    lost: BoolArray,
    finer: tuple[int, int],
    first: int,
) -> None:
    """Stripe regions that are n/a, in the colours ``first`` and the one after it."""
    if not lost.any():
        return
    tall, wide = finer
    rows, columns = np.nonzero(np.append(lost, [False])[labels])
    down = rows[:, None, None] * tall + np.arange(tall)[:, None]
    right = columns[:, None, None] * wide + np.arange(wide)
    drawn[down, right] = first + ((down + right) // _STRIPE) % 2


def draw_contours(
    ground: Ground,
    labels: Sequence[IntArray],
    order: RegionOrder,
    *,
    lost: BoolArray,
    title: str = "Atlas",
    hints: Sequence[str] = (),
) -> Figure:
    """Draw the outlines of the regions in the colours of their networks.

    ``labels`` are rows of the region table in each plane, -1 for none; ``lost`` are
    regions that are n/a, (R,); ``hints`` what is said of each under the pointer.
    """
    order = order.with_few_colours(250)
    lighter = {colour: _lighten(colour) for colour in set(order.colours)}
    shades = [lighter[colour] for colour in order.row_colours]
    distinct = list(dict.fromkeys(shades))
    codes = np.array([1 + distinct.index(shade) for shade in shades])
    codes = np.append(codes, 0).astype(np.uint8)  # the last is that of no region
    first = 1 + len(distinct)
    others = [(*rgb(colour), 255) for colour in distinct]
    palette = np.array([CLEAR, *others, *_STRIPES], dtype=np.uint8)
    layer = []
    for plane, here in zip(ground.planes, labels, strict=True):
        drawn = np.zeros(_fine_shape(plane), dtype=np.uint8)
        _outline(drawn, here, codes[here], plane)
        _stripe(drawn, here, lost, plane.finer, first)
        layer.append(encode_png(drawn, palette))
    n_lost = int(lost.sum())
    alt = (
        f"Seven slices in each of three planes of {ground.words}, with the edges of"
        f" {count(lost.size, 'region')}; {n_lost} of them n/a and striped."
    )
    sheet = Sheet(_WIDTH, 0, title=title, description=alt)
    layers = [layer, *([ground.edges] if ground.edges else [])]
    foot, boxes = ground.lay_out(sheet, layers)
    if hints:
        tell_regions(sheet, foot, boxes, labels, hints)
        foot += 20
    key = [("stripes", "", "n/a")] if n_lost else []
    key += [("patch", _lighten(c), n or "no network") for n, c in order.networks]
    sheet.height = _write_key(sheet, foot, key)
    by = ", in the colours of their networks" if order.groups else ""
    parts = [f"lines: edges of the regions{by}"]
    if ground.edges:
        parts.append("white line: edge of the brain mask")
    if n_lost:
        parts.append("yellow and black stripes: regions that are n/a")
    return sheet.figure(
        "contours",
        f"Grey: {ground.words}; {'; '.join(parts)}. Left of the picture is left of the"
        f" head.{NAMING if hints else ''}",
        title=f"{title} over the {ground.words}",
    )


def tell_regions(
    sheet: Sheet,
    foot: float,
    boxes: Sequence[Box],
    labels: Sequence[NDArray[np.integer]],
    hints: Sequence[str],
) -> None:
    """Let the figure tell which region lies under the pointer, in words at its foot.

    ``labels`` are the rows of the region table in each box, -1 for none.
    """
    bytes_ = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    n_bytes = 1 if len(hints) < 256 else 2 if len(hints) < 65536 else 3
    panels = []
    for box, here in zip(boxes, labels, strict=True):
        regions = [
            encode_png((here + 1 >> 8 * n & 255).astype(np.uint8), bytes_)
            for n in range(n_bytes)
        ]
        rows, columns = here.shape
        urls = [data_url(png) for png in regions]
        panels.append({"box": box, "rows": rows, "columns": columns, "regions": urls})
    about = {"kind": "slices", "names": list(hints), "panels": panels}
    sheet.answer(2, foot + 12, about)


def _write_key(sheet: Sheet, foot: float, key: list[tuple[str, str, str]]) -> float:
    """Write the key beside the slices, or below where it is long; return the height."""
    if len(key) > _BESIDE:
        entries = [(kind, c, fit_words(words, 150, 10.5)) for kind, c, words in key]
        if more := len(entries[_NAMED:]):
            entries[_NAMED:] = [("patch", "#ffffff", f"and {more} more")]
        return sheet.legend(_WIDTH - _BAR, foot + 12, entries, left=2) + 10
    for number, (kind, colour, words) in enumerate(key):
        left, y = _WIDTH - _BAR + 12, _HEAD + 12 + 20 * number
        if kind == "stripes":
            _key_of_lost(sheet, left, y)
        else:
            sheet.rect((left, y - 8, 14, 9), colour)
        sheet.text(left + 19, y, fit_words(words, _BAR - 32, 10.5), size=10.5)
    return max(foot, _HEAD + 20.0 * len(key))


def _lighten(colour: str) -> str:
    """Colour that can be seen on the greys of a brain."""
    channels = rgb(colour)
    weight = 0.3 * channels[0] + 0.59 * channels[1] + 0.11 * channels[2]
    share = max(0.0, (120 - weight) / (255 - weight)) if weight < 120 else 0.0
    mixed = [round(channel + share * (255 - channel)) for channel in channels]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def _key_of_lost(sheet: Sheet, left: float, y: float) -> None:
    """Patch of the stripes of regions that are n/a, above a base line."""
    rows, columns = np.indices((18, 28))
    codes = ((rows + columns) // _STRIPE % 2).astype(np.uint8)
    sheet.raster((left, y - 8, 14, 9), codes, np.array(_STRIPES, dtype=np.uint8))


def draw_coverage(
    ground: Ground,
    labels: Sequence[IntArray],
    coverage: FloatArray,
    *,
    lost: BoolArray,
    minimum: float,
) -> Figure:
    """Draw what is missing of each region, (R,), on the slices of ``draw_contours``."""
    found = coverage[np.isfinite(coverage)]
    worst = float(found.min()) if found.size else 0.0
    alt = (
        f"Coverage of {count(coverage.size, 'region')} on the same slices: mean"
        f" {float(found.mean()) if found.size else 0:.2f}, lowest {worst:.2f};"
        f" {int(lost.sum())} n/a."
    )
    shown = np.where(np.isfinite(coverage), coverage, 1.0)
    sheet = _fill(ground, labels, missing_inks(), shown, lost, ("Coverage", alt))
    return sheet.figure(
        "coverage",
        "Share of each region that could be used: clear where it is 1, the redder the"
        " more is missing; pale line: edge of the atlas. Yellow and black stripes: n/a"
        f" (below {minimum:g}, or lost otherwise).",
    )


def draw_tsnr(
    ground: Ground, labels: Sequence[IntArray], tsnr: FloatArray, *, lost: BoolArray
) -> Figure | None:
    """Draw the temporal signal-to-noise ratio of each region, (R,), on these slices.

    ``None`` where no region has one that can be drawn.
    """
    found = tsnr[np.isfinite(tsnr) & ~lost]
    if not found.size or found.max() <= 0:
        return None
    alt = describe_tsnr(found, tsnr.size, "slices")
    sheet = _fill(ground, labels, scale_tsnr(found, 120), tsnr, lost, ("tSNR", alt))
    return picture_tsnr(sheet)


def scale_tsnr(found: FloatArray, n: int) -> Scale:
    """Colours of ``n`` steps for these values.

    From 0, so that pictures of two runs are read alike; a bright region or two do not
    take the colours from all others.
    """
    high = float(np.quantile(found, 0.98))
    step = 10.0 ** np.floor(np.log10(high)) / 2
    return Scale.of(_VIRIDIS, 0, float(step * np.ceil(high / step)), n)


def describe_tsnr(found: FloatArray, n_regions: int, where: str) -> str:
    """What a picture of tSNR shows, for those who do not see it."""
    return (
        f"Temporal signal-to-noise ratio of {count(n_regions, 'region')} on the same"
        f" {where}: lowest {found.min():.0f}, median {np.median(found):.0f}, highest"
        f" {found.max():.0f}."
    )


def picture_tsnr(sheet: Sheet) -> Figure:
    """Figure of the tSNR with its caption, on whatever it was drawn."""
    return sheet.figure(
        "tsnr",
        "tSNR of the signal of each region before cleaning: its mean over its standard"
        " deviation, over the steady volumes. The lightest colour holds for all above"
        " the scale, too; yellow and black stripes: n/a.",
        title="Temporal signal-to-noise ratio",
    )


def _fill(
    ground: Ground,
    labels: Sequence[IntArray],
    inks: Scale,
    values: FloatArray,
    lost: BoolArray,
    words: tuple[str, str],
) -> Sheet:
    """Fill regions by their values, (R,), and stripe the lost ones; the sheet.

    ``words`` are the title, which the bar has too, and what is told of the picture.
    """
    codes = np.append(inks.encode(values), inks.missing)
    edge, first = inks.missing + 1, inks.missing + 2
    palette = np.concatenate(
        [inks.palette, np.array([(255, 255, 255, 100), *_STRIPES], dtype=np.uint8)]
    )
    layer = []
    for plane, here in zip(ground.planes, labels, strict=True):
        drawn = codes[here].repeat(plane.finer[0], 0).repeat(plane.finer[1], 1)
        inside = (here >= 0).astype(np.int32)
        _outline(drawn, inside, (inside * edge).astype(np.uint8), plane)
        _stripe(drawn, here, lost, plane.finer, first)
        layer.append(encode_png(drawn, palette))
    sheet = Sheet(_WIDTH, 0, title=words[0], description=words[1])
    foot, _ = ground.lay_out(sheet, [layer])
    left = _WIDTH - _BAR + 12
    sheet.bar((left + 4, _HEAD + 14, 14, 160), inks, title=words[0], ground="#777777")
    if lost.any():
        _key_of_lost(sheet, left, _HEAD + 204)
        sheet.text(left + 19, _HEAD + 204, "n/a", size=10.5)
    sheet.height = foot
    return sheet


def missing_inks() -> Scale:
    """Colours of coverage: clear for all, strong red for nothing, which is the news."""
    inks = ramp(("#a5001e", "#e8301c", "#ff8c2e"), 50)
    share = np.linspace(1, 0, 50) ** 0.5  # so that a tenth that is missing is seen
    return Scale(0, 1, np.column_stack([inks, np.rint(245 * share).astype(np.uint8)]))
