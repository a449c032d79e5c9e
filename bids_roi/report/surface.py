"""Parcels on a surface: a mesh, its labels, and four views of it as one raster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.intp]


_MOST_PAIRS = 2**19  # of faces and pixels at a time; about 200 bytes each
_EDGE = 1e-9  # a pixel on an edge belongs to the faces on both sides of it


@dataclass(frozen=True, slots=True)
class Raster:
    """What each pixel shows, (H, W).

    Attributes
    ----------
    vertices
        That corner of the nearest face whose barycentric weight is the largest; -1
        where the mesh is not.
    facing
        Cosine between the face and the line of sight, 0 to 1.
    """

    vertices: IntArray
    facing: FloatArray


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
