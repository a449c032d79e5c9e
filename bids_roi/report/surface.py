"""Parcels on the cortex: meshes, four views of them, and a picture of an atlas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.atlases.open import load_atlas_labels
from bids_roi.core.frame import CORTICES, Frame, Mesh
from bids_roi.errors import BidsRoiError
from bids_roi.files.names import parse_name
from bids_roi.images.surfaces import read_mesh
from bids_roi.report.brain import (
    NAMING,
    describe_tsnr,
    picture_tsnr,
    scale_tsnr,
    tell_regions,
)
from bids_roi.report.paper import SOFT, Figure, Sheet, count
from bids_roi.report.raster import CLEAR, rgb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas
    from bids_roi.dataset.run import BoldRun
    from bids_roi.report.raster import RegionOrder

    BoolArray = NDArray[np.bool_]
    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.intp]
    Meshes = dict[str, tuple[FloatArray, IntArray]]  # by structure


# The best first: sulci are hidden in all but an inflated surface.
_SHAPES = ("inflated", "midthickness")
_SIDES = {structure: side for side, structure in CORTICES.items()}
# Structure, words, and which way y and the viewer are: -1 turns the front to the left.
_VIEWS = (
    ("CORTEX_LEFT", "Left, lateral", -1),
    ("CORTEX_RIGHT", "Right, lateral", 1),
    ("CORTEX_LEFT", "Left, medial", 1),
    ("CORTEX_RIGHT", "Right, medial", -1),
)
_WIDE, _GAP, _LINE = 300, 12, 16  # pixels of a page
_FINER = 1.5  # pixels of the raster for one of the page
_LIGHTS = np.linspace(0.55, 1, 5)  # of a colour, as a face is seen askance or in front
_MOST_COLOURS = 256 // len(_LIGHTS) - 4
_TSNR_STEPS = 40
_WALL, _EDGE_INK, _STRIPES = "#c9ccd1", "#3a3f47", ("#f0e442", "#141414")
_MOST_PAIRS = 2**19  # of faces and pixels at a time; about 200 bytes each
_EDGE = 1e-9  # a pixel on an edge belongs to the faces on both sides of it


@dataclass(frozen=True, slots=True)
class Raster:
    """What each pixel shows, (H, W).

    ``vertices`` are those corners of the nearest faces whose barycentric weight is the
    largest; -1 where the mesh is not.
    """

    vertices: IntArray
    facing: FloatArray  # cosine between face and line of sight, 0 to 1


def draw_mesh(
    vertices: FloatArray,
    faces: IntArray,
    pixels: tuple[int, int],
    extent: tuple[float, float, float, float],
) -> Raster:
    """Draw a mesh as it is seen along -z from far away; x runs right and y up.

    ``extent`` is the left, right, lower and upper border of the ``pixels``, (H, W).
    """
    high, wide = pixels
    left, right, low, top = extent
    # In pixels, so that their centres are whole numbers; rows run down.
    points = np.column_stack(
        [
            (vertices[:, 0] - left) * (wide / (right - left)) - 0.5,
            (top - vertices[:, 1]) * (high / (top - low)) - 0.5,
            vertices[:, 2],
        ]
    )
    shown, facing = _find_visible(vertices, faces)
    corners = faces[shown]
    depth = np.full(high * wide, -np.inf)
    found = np.full(high * wide, -1)
    light = np.zeros(high * wide)
    for which, pixel, weights, here in _cover(points, corners, pixels):
        before = depth[pixel]
        np.maximum.at(depth, pixel, here)
        # Backwards, so that of equally near faces the first one stays.
        won = np.flatnonzero((here == depth[pixel]) & (here > before))[::-1]
        best = weights[won].argmax(axis=1)
        found[pixel[won]] = corners[which[won], best]
        light[pixel[won]] = facing[which[won]]
    return Raster(found.reshape(pixels), light.reshape(pixels))


def _find_visible(vertices: FloatArray, faces: IntArray) -> tuple[IntArray, FloatArray]:
    """Faces that can be seen along -z, and how much each faces the viewer."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.cross(b - a, c - a)
    length = np.sqrt((area**2).sum(axis=1))
    facing = np.divide(area[:, 2], length, out=np.zeros(len(faces)), where=length > 0)
    # The area vectors of a closed surface add up to nothing, and its back is hidden.
    if np.abs(area.sum(axis=0)).max() < 1e-6 * length.sum():
        facing *= np.sign((a * area).sum())  # a mirrored one is wound the other way
        shown = np.flatnonzero(facing > 0)
    else:
        shown = np.flatnonzero(facing)
    return shown, np.abs(facing[shown])


def _cover(
    points: FloatArray, faces: IntArray, pixels: tuple[int, int]
) -> Iterator[tuple[IntArray, IntArray, FloatArray, FloatArray]]:
    """Find the pixels of all faces: ``(face, flat pixel, weights of corners, depth)``.

    A face of a fine mesh covers a pixel or two. So all pixels of the box around each
    face are listed as pairs, and those outside of the face dropped, without any loop.
    """
    high, wide = pixels
    x, y, z = (points[:, k][faces] for k in range(3))  # each (F, 3)
    lowest = np.stack([x.min(axis=1), y.min(axis=1)])
    highest = np.stack([x.max(axis=1), y.max(axis=1)])
    first = np.maximum(np.ceil(lowest - _EDGE), 0)
    last = np.minimum(np.floor(highest + _EDGE), [[wide - 1], [high - 1]])
    across, down = np.maximum(last - first + 1, 0).astype(np.intp)
    column, row = first.astype(np.intp)
    # Weight of corner k is a plane over the picture: 1 there, 0 on the other two.
    planes = np.empty((len(faces), 2, 3))
    twice = (y[:, 1] - y[:, 2]) * (x[:, 0] - x[:, 2])
    twice += (x[:, 2] - x[:, 1]) * (y[:, 0] - y[:, 2])
    for k, (p, q) in enumerate(((1, 2), (2, 0))):
        planes[:, k, 0] = x[:, p] * y[:, q] - x[:, q] * y[:, p]
        planes[:, k, 1] = y[:, p] - y[:, q]
        planes[:, k, 2] = x[:, q] - x[:, p]
    size = np.where(twice != 0, across * down, 0)  # seen from its edge: no pixel
    planes /= np.where(twice != 0, twice, 1)[:, None, None]
    ends = np.cumsum(size)
    start = 0
    while start < len(faces):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _MOST_PAIRS, "right")))
        n = size[start:stop]
        which = np.repeat(np.arange(start, stop), n)
        place = np.arange(which.size) - np.repeat(ends[start:stop] - n - before, n)
        line, step = np.divmod(place, across[which])
        i, j = column[which] + step, row[which] + line
        plane = planes[which]
        a, b = (
            plane[:, k, 0] + plane[:, k, 1] * i + plane[:, k, 2] * j for k in (0, 1)
        )
        c = 1 - a - b
        inside = np.flatnonzero(np.minimum(np.minimum(a, b), c) >= -_EDGE)
        weights = np.column_stack([a[inside], b[inside], c[inside]])
        which = which[inside]
        depth = (weights * z[which]).sum(axis=1)
        yield which, j[inside] * wide + i[inside], weights, depth
        start = stop


def find_meshes(
    run: BoldRun, frame: Frame, homes: Sequence[Path]
) -> tuple[Meshes, str]:
    """Surfaces of a run's meshes, and what they are; empty where there are none.

    Both hemispheres are of one shape and one place: the participant's own ``anat/``, or
    a folder of TemplateFlow.
    """
    wanted = {
        part.structure: part.support
        for part in frame.parts
        if isinstance(part.support, Mesh) and part.structure in _SIDES
    }
    subject = run.root / f"sub-{dict(run.entities)['sub']}"
    own = [run.path.parent.parent / "anat", subject / "anat"]
    templates = {mesh.template for mesh in wanted.values()}
    shared = [home / f"tpl-{name}" for home in homes for name in sorted(templates)]
    for shape in _SHAPES:
        for folder in dict.fromkeys([*own, *shared]):
            found: Meshes = {}
            for structure, mesh in wanted.items():
                names = sorted(
                    folder.glob(f"*_hemi-{_SIDES[structure]}_*{shape}.surf.gii")
                )
                for path in names:
                    if _is_of(path, mesh, shape, own=folder in own):
                        read = _try_mesh(path, mesh.n_vertices)
                        if read is not None:
                            found[structure] = read
                            break
            if wanted and len(found) == len(wanted):
                of = "the participant" if folder in own else folder.name[4:]
                return found, f"{shape} surface of {of}"
    return {}, ""


def _is_of(path: Path, mesh: Mesh, shape: str, *, own: bool) -> bool:
    """Whether a file is of a mesh, by its name."""
    name = parse_name(path)
    if name.suffix != shape:
        return False
    space = name.get("space")
    native = mesh.template.startswith("fsnative")
    return (space is None) == (native or not own) and space in (None, mesh.template)


def _try_mesh(path: Path, n_vertices: int) -> tuple[FloatArray, IntArray] | None:
    try:
        return read_mesh(path, n_vertices)
    except BidsRoiError:  # another density, a stub, damaged: the next one will do
        return None


@dataclass(frozen=True, slots=True)
class Cortex:
    """An atlas on meshes, from each side, as all of its pictures show it.

    ``views`` are ``(words, raster, region)``, where ``region`` is the row of the one
    that a pixel shows, -1 for none and -2 beside the brain.
    """

    atlas: Atlas
    words: str  # what the meshes are
    shown: IntArray  # rows of the regions that lie on them
    views: list[tuple[str, Raster, IntArray]]
    tall: int  # height of a view in pixels of a page


def view_atlas(atlas: Atlas, meshes: Meshes, words: str) -> Cortex | None:
    """Look at an atlas on ``meshes``, which ``words`` describe, at one scale.

    ``None`` where the atlas has no region there.
    """
    labels, frame = load_atlas_labels(atlas.image)
    if not isinstance(frame, Frame):
        raise TypeError("a volume has no meshes")
    row_of = {value: row for row, value in enumerate(atlas.regions.index)}
    values, inverse = np.unique(labels, return_inverse=True)
    rows = np.array([row_of.get(int(v), -1) for v in values], dtype=np.intp)[inverse]
    on_mesh: dict[str, IntArray] = {}
    for start, part in zip(frame.starts, frame.parts, strict=True):
        if part.structure in meshes:
            whole = np.full(part.n_places, -1, dtype=np.intp)
            whole[part.numbers] = rows[start : start + part.n_points]
            on_mesh[part.structure] = whole
    shown = np.unique([row for own in on_mesh.values() for row in np.unique(own)])
    shown = shown[shown >= 0].astype(np.intp)
    if not shown.size:
        return None
    points = np.concatenate([meshes[structure][0] for structure in on_mesh])
    low, high = points.min(axis=0), points.max(axis=0)
    middle, reach = (low + high) / 2, (high - low) * 0.52
    tall = round(_WIDE * reach[2] / reach[1])
    pixels = round(tall * _FINER), round(_WIDE * _FINER)
    extent = (-reach[1], reach[1], -reach[2], reach[2])
    views = []
    for structure, title, way in _VIEWS:
        if structure not in on_mesh:
            continue
        vertices, faces = meshes[structure]
        outward = -1 if structure == "CORTEX_LEFT" else 1
        side = outward if "lateral" in title else -outward
        seen = np.column_stack(
            [
                way * (vertices[:, 1] - middle[1]),
                vertices[:, 2] - middle[2],
                side * vertices[:, 0],
            ]
        )
        raster = draw_mesh(seen, faces, pixels, extent)
        region = np.append(on_mesh[structure], -2)[raster.vertices]
        views.append((title, raster, region))
    return Cortex(atlas, words, shown, views, tall)


def draw_parcels(
    cortex: Cortex, order: RegionOrder, *, lost: BoolArray, hints: Sequence[str] = ()
) -> Figure:
    """Draw the regions of an atlas, and stripe those that are ``lost``, (R,).

    ``hints`` are what is said of each region under the pointer.
    """
    shown, n_regions = cortex.shown, len(cortex.atlas.regions.name)
    order = order.with_few_colours(_MOST_COLOURS)
    colours = order.row_colours
    drawn = {colours[row] for row in shown}
    key = [("patch", ink, name) for name, ink in order.networks if ink in drawn]
    striped = int(lost[shown].sum())
    alt = (
        f"Both hemispheres from their outer and inner side, with"
        f" {count(shown.size, 'region')}; {striped} of them n/a and striped."
    )
    parts = [f"{cortex.words.capitalize()}, seen from four sides"]
    parts.append("colours are networks" if key else "colours tell neighbours apart")
    if striped:
        parts.append("yellow and black stripes: regions that are n/a")
    parts.append("grey: no region")
    if below := n_regions - shown.size:
        parts.append(f"{count(below, 'region')} not on the surface")
    sheet = Sheet(0, 0, title=f"Atlas {cortex.atlas.name}", description=alt)
    boxes = _lay_out(sheet, cortex, colours, lost, key)
    if hints:
        labels = [np.maximum(region, -1) for _, _, region in cortex.views]
        tell_regions(sheet, sheet.height - 2, boxes, labels, hints)
        sheet.height += 18
    caption = f"{'; '.join(parts)}.{NAMING if hints else ''}"
    return sheet.figure("parcels", caption, title="Atlas on the cortex")


def draw_cortex_tsnr(
    cortex: Cortex, tsnr: FloatArray, *, lost: BoolArray
) -> Figure | None:
    """Draw the temporal signal-to-noise ratio of each region, (R,), on these views.

    ``None`` where no region on the cortex has one that can be drawn.
    """
    usable = np.isfinite(tsnr) & ~lost
    found = tsnr[cortex.shown][usable[cortex.shown]]
    if not found.size or found.max() <= 0:
        return None
    scale = scale_tsnr(found, _TSNR_STEPS)
    inks = ["#{:02x}{:02x}{:02x}".format(*ink) for ink in scale.colours]
    colours = [*inks, _WALL]  # no number, and yet no region that is lost
    alt = describe_tsnr(found, cortex.shown.size, "four sides")
    sheet = Sheet(0, 0, title="tSNR", description=alt)
    _lay_out(sheet, cortex, [colours[code] for code in scale.encode(tsnr)], lost, [])
    sheet.bar((sheet.width + 8, _LINE + 14, 14, 160), scale, title="tSNR")
    sheet.width += 64
    return picture_tsnr(sheet)


def _lay_out(
    sheet: Sheet,
    cortex: Cortex,
    colours: Sequence[str],
    lost: BoolArray,
    key: Sequence[tuple[str, str, str]],
) -> list[tuple[float, float, float, float]]:
    """Put all views and the key below on a sheet; where the views are."""
    row = cortex.tall + _LINE + _GAP
    foot = -(-len(cortex.views) // 2) * row
    sheet.width, sheet.height = 2 * _WIDE + _GAP, foot + 16 * (1 + len(key) // 4)
    bases = [_WALL, _EDGE_INK, *_STRIPES, *dict.fromkeys(colours)]
    base_of = np.array([bases.index(colour, 4) for colour in colours] + [0])
    tints = np.array([rgb(colour) for colour in bases])[:, None] * _LIGHTS[:, None]
    solid = np.rint(tints).reshape(-1, 3).astype(np.uint8)
    opaque = np.full((len(solid), 1), 255, dtype=np.uint8)
    palette = np.vstack([[CLEAR], np.hstack([solid, opaque])]).astype(np.uint8)
    boxes: list[tuple[float, float, float, float]] = []
    for number, (words, raster, region) in enumerate(cortex.views):
        left, top = (number % 2) * (_WIDE + _GAP), (number // 2) * row
        sheet.text(left + 4, top + 11, words, size=10, colour=SOFT)
        boxes.append((left, top + _LINE, _WIDE, cortex.tall))
        sheet.raster(boxes[-1], _ink(raster, region, base_of, lost), palette)
    sheet.legend(
        sheet.width - 4, foot + 10, [*key, ("patch", _WALL, "no region")], left=4
    )
    return boxes


def _ink(
    raster: Raster, region: IntArray, base_of: IntArray, lost: BoolArray
) -> NDArray[np.uint8]:
    """Codes of the palette: parcels, their edges, stripes of those that are n/a."""
    base = base_of[np.maximum(region, -1)]
    striped = np.append(lost, [False, False])[region]
    down, across = np.nonzero(striped)
    base[down, across] = 2 + (down + across) // 5 % 2
    edge = np.zeros(region.shape, dtype=bool)
    edge[:, :-1] |= region[:, :-1] != region[:, 1:]
    edge[:-1] |= region[:-1] != region[1:]
    base[edge & (region > -2)] = 1
    light = np.minimum(raster.facing * len(_LIGHTS), len(_LIGHTS) - 1).astype(np.intp)
    codes = 1 + base * len(_LIGHTS) + light
    codes[region == -2] = 0
    return np.asarray(codes, dtype=np.uint8)
