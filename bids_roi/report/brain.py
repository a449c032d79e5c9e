"""Slices through a run: where the atlas lies, and how much of each region was seen.

Slices are cut along the axes of the head that are nearest to those of the grid, and put
together as one raster in numpy; matplotlib only adds the words.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.report.canvas import (
    INK,
    Picture,
    colour_map,
    count,
    figure_png,
    new_figure,
    place,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid


_N_SLICES = 7
_TILE = 190  # pixels along the longest side of a slice
_GAP = 6
_MARGIN = 3  # voxels around what has to be seen
_LOST = np.array([[240, 228, 66], [20, 20, 20]])  # yellow and black, whatever the eye
_CONTOUR = np.array([86, 180, 233])
_OUTLINE = np.array([230, 159, 0])
# Axes of the picture, to the right and up, of slices across x, y and z.
_AXES = ((1, 2), (0, 2), (0, 1))


@dataclass(frozen=True, slots=True)
class Slices:
    """Cuts through a grid.

    Attributes
    ----------
    shape
        Of the mosaic in pixels: rows, columns.
    tiles
        ``(plane, mm, top, left, voxels)`` with the flat voxel index of each pixel.
    """

    shape: tuple[int, int]
    tiles: tuple[tuple[int, float, int, int, NDArray[np.int32]], ...]

    def show(self, values: NDArray, fill: int) -> NDArray:  # type: ignore[type-arg]
        """Mosaic of one value per voxel, (V,), in the order of the file."""
        mosaic = np.full(self.shape, fill, dtype=values.dtype)
        for _, _, top, left, voxels in self.tiles:
            high, wide = voxels.shape
            mosaic[top : top + high, left : left + wide] = values[voxels]
        return mosaic


def choose_slices(grid: Grid, inside: NDArray[np.bool_]) -> Slices:
    """Cut seven slices in each of three planes through what is ``inside``, (V,)."""
    axes, signs = _nearest_axes(grid.matrix)
    volume = inside.reshape(grid.shape, order="F")
    strides = np.array([1, grid.shape[0], grid.shape[0] * grid.shape[1]])
    spans = [_span(volume, axis) for axis in axes]
    boxes = [
        (max(0, first - _MARGIN), min(grid.shape[axis], last + _MARGIN + 1))
        for axis, (first, last) in zip(axes, spans, strict=True)
    ]
    lengths = [
        (end - start) * grid.zooms[axis]
        for axis, (start, end) in zip(axes, boxes, strict=True)
    ]
    scale = _TILE / max(lengths)
    pixels = [max(8, round(length * scale)) for length in lengths]
    width = _N_SLICES * (max(pixels[0], pixels[1]) + _GAP)
    tiles, top = [], 0
    for plane, (right, up) in enumerate(_AXES):
        axis, (first, last) = axes[plane], spans[plane]
        # The ends of a brain hold little: slices at (1..7) / 8 of its length.
        cuts = first + (last - first) * np.arange(1, _N_SLICES + 1) / (_N_SLICES + 1)
        cuts = np.rint(cuts).astype(int)[:: signs[plane]]
        columns = _along(pixels[right], *boxes[right], signs[right])
        lines = _along(pixels[up], *boxes[up], -signs[up])[:, None]
        flat = lines * strides[axes[up]] + columns * strides[axes[right]]
        step = width // _N_SLICES
        for number, cut in enumerate(cuts.tolist()):
            left = number * step + (step - pixels[right]) // 2
            middle = [(n - 1) / 2 for n in grid.shape]
            middle[axis] = cut
            millimetres = float((grid.matrix @ [*middle, 1.0])[plane])
            voxels = (flat + cut * strides[axis]).astype(np.int32)
            tiles.append((plane, millimetres, top, left, voxels))
        top += pixels[up] + _GAP
    return Slices((top - _GAP, width), tuple(tiles))


def _span(volume: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First and last slice that holds something; all where none does."""
    others = tuple({0, 1, 2} - {axis})
    seen = np.flatnonzero(volume.any(axis=others))
    if seen.size == 0:
        return 0, volume.shape[axis] - 1
    return int(seen[0]), int(seen[-1])


def _nearest_axes(matrix: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Which axis of the grid runs along x, y and z of the head, and which way."""
    directions = matrix[:3, :3] / np.sqrt((matrix[:3, :3] ** 2).sum(axis=0))
    best = max(
        itertools.permutations(range(3)),
        key=lambda p: sum(abs(directions[k, p[k]]) for k in range(3)),
    )
    return list(best), [1 if directions[k, best[k]] > 0 else -1 for k in range(3)]


def _along(n_pixels: int, start: int, end: int, sign: int) -> NDArray[np.intp]:
    """Voxel of each pixel, from ``start`` to before ``end``."""
    steps = (np.arange(n_pixels) + 0.5) * (end - start) / n_pixels
    return (start + steps).astype(np.intp)[::sign]


def draw_contours(
    slices: Slices,
    mean: NDArray[np.floating],
    rows: NDArray[np.int32],
    *,
    brain: NDArray[np.bool_] | None,
    lost: NDArray[np.bool_],
    background: str,
) -> Picture:
    """Draw the outlines of the regions over the run's mean image, (V,).

    ``rows`` are those of the region table at each voxel, (V,), -1 for none; ``lost``
    are regions that are n/a, (R,); ``background`` says what the mean image is.
    """
    picture = _grey(slices, mean)
    regions = slices.show(rows, -1)
    edges = _edges(regions)
    picture[edges] = _CONTOUR
    if brain is not None:
        inside = slices.show(brain.astype(np.int8), 0)
        picture[_edges(inside)] = _OUTLINE
    _hatch(picture, regions, lost)
    parts = ["blue lines: edges of the regions"]
    if brain is not None:
        parts.append("orange line: edge of the brain mask")
    if lost.any():
        parts.append("yellow and black stripes: regions that are n/a")
    lines = "; ".join(parts)
    n_lost = int(lost.sum())
    alt = (
        f"Seven slices in each of three planes of {background}, with the edges of"
        f" {count(lost.size, 'region')}; {n_lost} of them n/a and striped."
    )
    return Picture(
        "contours",
        _finish(slices, picture),
        ".png",
        "Atlas over the mean image",
        f"Grey: {background}; {lines}. Left of the picture is left of the head.",
        alt,
    )


def draw_coverage(
    slices: Slices,
    mean: NDArray[np.floating],
    rows: NDArray[np.int32],
    coverage: NDArray[np.float64],
    *,
    lost: NDArray[np.bool_],
    minimum: float,
) -> Picture:
    """Draw the coverage of each region, (R,), on the slices of ``draw_contours``."""
    picture = _grey(slices, mean) // 2
    regions = slices.show(rows, -1)
    inside = regions >= 0
    colours = coverage_colours()
    # One colour per region, looked up for its pixels.
    palette = colours(coverage, bytes=True)[:, :3]
    picture[inside] = palette[regions[inside]]
    _hatch(picture, regions, lost)
    found = coverage[np.isfinite(coverage)]
    worst = float(found.min()) if found.size else 0.0
    n_lost = int(lost.sum())
    return Picture(
        "coverage",
        _finish(slices, picture, bar=True),
        ".png",
        "Coverage",
        "Share of each region that could be used, from 0 (white) to 1 (blue)."
        f" Yellow and black stripes: n/a (below {minimum:g}, or lost otherwise).",
        f"Coverage of {count(coverage.size, 'region')} on the same slices: mean"
        f" {float(found.mean()) if found.size else 0:.2f}, lowest {worst:.2f};"
        f" {n_lost} n/a.",
    )


def coverage_colours() -> Any:  # noqa: ANN401 - a Colormap
    """White for none to blue for all: what is missing catches the eye."""
    blues = colour_map("Blues")
    return colour_map([blues(x) for x in np.linspace(0, 0.75, 128)])


def _grey(slices: Slices, mean: NDArray[np.floating]) -> NDArray[np.uint8]:
    finite = np.isfinite(mean)
    values = np.where(finite, mean, 0)
    some = np.abs(values[values != 0])
    some = some[:: max(1, some.size // 100_000)]
    top = float(np.quantile(some, 0.99)) if some.size else 1.0
    # In the precision of the image: a mosaic of doubles would show in the memory.
    shown = slices.show(np.asarray(values, dtype=np.float32), 0)
    shown *= np.float32(225 / (top or 1))
    shown = np.clip(shown, 0, 225, out=shown).astype(np.uint8)
    return np.repeat(shown[..., None], 3, axis=2)


def _edges(labels: NDArray) -> NDArray[np.bool_]:  # type: ignore[type-arg]
    """Pixels whose right or lower neighbour is another."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def _hatch(
    picture: NDArray[np.uint8], regions: NDArray[np.int32], lost: NDArray[np.bool_]
) -> None:
    """Stripe the regions that are n/a."""
    striped = np.append(lost, [False, False])[regions]
    down, across = np.nonzero(striped)
    picture[down, across] = _LOST[((down + across) // 4) % 2]


def _finish(slices: Slices, picture: NDArray[np.uint8], *, bar: bool = False) -> bytes:
    """Add the words; PNG of a mosaic."""
    high, wide = slices.shape
    density = 2.0
    inches = wide / 100 / density
    line = 0.17
    planes = [[t for t in slices.tiles if t[0] == plane] for plane in range(3)]
    figure = new_figure(inches + 0.55, high / 100 / density + line * 3 + 0.1)
    offset = 0.05
    for plane, tiles in enumerate(planes):
        top, n_rows = tiles[0][2], tiles[0][4].shape[0]
        axes = place(figure, 0.02, offset + line, inches, n_rows / 100 / density)
        axes.imshow(picture[top : top + n_rows], interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        for number, (_, mm, _, left, voxels) in enumerate(tiles):
            words = f"{'xyz'[plane]} = {round(mm)} mm".replace("-", "\N{MINUS SIGN}")
            axes.text(left + 2, -6, words, fontsize=6.5, color=INK, va="bottom")
            if number == 0 and plane > 0:
                ends = ("L", "R")
                for x, end in zip((2, voxels.shape[1] - 12), ends, strict=True):
                    axes.text(left + x, n_rows / 2, end, fontsize=6, color="white")
        offset += line + (n_rows + _GAP) / 100 / density
    if bar:
        scale = place(figure, inches + 0.12, 0.3, 0.1, 1.3)
        ramp = np.linspace(1, 0, 64)[:, None]
        scale.imshow(ramp, aspect="auto", cmap=coverage_colours(), extent=(0, 1, 0, 1))
        scale.yaxis.tick_right()
        scale.set(xticks=[], yticks=[0, 0.5, 1])
        scale.tick_params(labelsize=6.5, length=2)
    return figure_png(figure, density=density)
