"""The demo's cortex as surfaces and grayordinates, and the files of both.

Meshes have as many vertices as those of the templates whose names they bear, and lie on
the simulated head. Files are written byte by byte.
"""

from __future__ import annotations

import base64
import functools
import itertools
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bids_roi.core.grid import Grid
from bids_roi.demo.phantom import (
    BOLD_GRID,
    REGIONS,
    Head,
    find_midthickness,
    is_wall,
    label_cortex,
    label_nuclei,
    voxel_centres,
)
from bids_roi.demo.simulate import REPETITION_TIME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.intp]


_CORTEX = {"L": "CIFTI_STRUCTURE_CORTEX_LEFT", "R": "CIFTI_STRUCTURE_CORTEX_RIGHT"}
# MNI152NLin6Asym at 2 mm, whose voxels the grayordinates of fMRIPrep have.
_VOXELS = Grid.of(
    (91, 109, 91),
    np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]]),
)
_NIFTI_TYPES = {"i2": 4, "f4": 16, "i4": 8}
_INTENTS = {3002: b"ConnDenseSeries", 3007: b"ConnDenseLabel"}
_GIFTI_TYPES = {"f4": "FLOAT32", "i4": "INT32"}


class Hemisphere(NamedTuple):
    """One surface.

    Attributes
    ----------
    side
        ``L`` or ``R``.
    vertices : (V, 3)
        mm.
    faces : (F, 3)
        Corners.
    regions : (V,)
        Value of the nearest region.
    wall : (V,)
        Where there is no cortex.
    """

    side: str
    vertices: FloatArray
    faces: IntArray
    regions: NDArray[np.uint8]
    wall: NDArray[np.bool_]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Region of each vertex, 0 on the wall."""
        return np.where(self.wall, np.uint8(0), self.regions)


@functools.cache
def make_hemispheres(n: int) -> tuple[Hemisphere, Hemisphere]:
    """Lay meshes of 10 n^2 + 2 vertices into the cortex, left and right."""
    directions, faces = geodesic_sphere(n)
    right = find_midthickness(directions)
    both = []
    for side, sign, wound in (("L", -1, faces[:, ::-1]), ("R", 1, faces)):
        vertices = right * [sign, 1, 1]
        x, y, z = vertices.astype(np.float32).T
        regions, wall = label_cortex((x, y, z)), is_wall((x, y, z))
        both.append(Hemisphere(side, vertices, wound, regions, wall))
    return both[0], both[1]


def nearest_voxels(
    head: Head, regions: NDArray[np.uint8], places: FloatArray
) -> IntArray:
    """Voxel of ``BOLD_GRID`` that each place takes its series from, flat (z, y, x).

    The nearest one of its own region, as fMRIPrep takes cortex from its ribbon only.
    """
    flat = head.labels.ravel()
    centres = np.stack(
        [
            np.broadcast_to(p, head.labels.shape).ravel()
            for p in voxel_centres(BOLD_GRID)
        ],
        1,
    )
    voxels = np.zeros(len(places), dtype=np.intp)
    for value in np.unique(regions):
        own, there = np.flatnonzero(regions == value), np.flatnonzero(flat == value)
        apart = places[own, None] - centres[there][None]
        voxels[own] = there[(apart**2).sum(axis=2).argmin(axis=1)]
    return voxels


class Grayordinates(NamedTuple):
    """Points of a dense file, in its order: XML of their models, place and region."""

    xml: str
    places: FloatArray
    regions: NDArray[np.uint8]


@functools.cache
def make_grayordinates(n: int) -> Grayordinates:
    """Cortex without its wall, cut n times, then the nuclei in fMRIPrep's voxels."""
    models, places, regions = [], [], []
    for one in make_hemispheres(n):
        numbers = np.flatnonzero(~one.wall)
        text = " ".join(map(str, numbers.tolist()))
        more = (
            f' SurfaceNumberOfVertices="{len(one.wall)}"><VertexIndices>{text}'
            "</VertexIndices>"
        )
        models.append((_CORTEX[one.side], "SURFACE", numbers.size, more))
        places.append(one.vertices[numbers])
        regions.append(one.regions[numbers])
    matrix = _VOXELS.matrix
    # The nuclei are in the middle of the head: a tenth of all voxels.
    box = [range(n // 4, n - n // 4) for n in _VOXELS.shape]
    ijk = np.array(list(itertools.product(*box)))
    centres = ijk @ matrix[:3, :3].T + matrix[:3, 3]
    x, y, z = centres.astype(np.float32).T
    nuclei = label_nuclei((x, y, z))
    for region in REGIONS:
        if region.axes:
            own = np.flatnonzero(nuclei == region.value)
            text = "\n".join(" ".join(map(str, row)) for row in ijk[own].tolist())
            side = "LEFT" if region.hemisphere == "L" else "RIGHT"
            name = f"CIFTI_STRUCTURE_{region.name[3:].upper()}_{side}"
            more = f"><VoxelIndicesIJK>{text}</VoxelIndicesIJK>"
            models.append((name, "VOXELS", own.size, more))
            places.append(centres[own])
            regions.append(nuclei[own])
    dimensions = ",".join(map(str, _VOXELS.shape))
    numbers_of = " ".join(f"{v:g}" for v in matrix.ravel().tolist())
    xml = (
        f'<Volume VolumeDimensions="{dimensions}">'
        '<TransformationMatrixVoxelIndicesIJKtoXYZ MeterExponent="-3">'
        f"{numbers_of}</TransformationMatrixVoxelIndicesIJKtoXYZ></Volume>"
    )
    start = 0
    for name, kind, count, more in models:
        xml += (
            f'<BrainModel IndexOffset="{start}" IndexCount="{count}" ModelType='
            f'"CIFTI_MODEL_TYPE_{kind}" BrainStructure="{name}"{more}</BrainModel>'
        )
        start += count
    return Grayordinates(xml, np.concatenate(places), np.concatenate(regions))


def write_dense_series(
    path: Path, points: Grayordinates, series: NDArray[np.int16], slope: float
) -> None:
    """A ``.dtseries.nii`` of (V, T) stored values."""
    axis = (
        f'NumberOfSeriesPoints="{series.shape[1]}" SeriesExponent="0" SeriesStart="0"'
        f' SeriesStep="{REPETITION_TIME:g}" SeriesUnit="SECOND">'
    )
    _write_cifti(path, ("SERIES", axis), points, series, slope, 3002)


def write_dense_labels(
    path: Path, points: Grayordinates, colours: Sequence[tuple[int, str, str]]
) -> None:
    """A ``.dlabel.nii`` with the value, name and #colour of its labels."""
    labels = _label_table(colours)
    axis = f"><NamedMap><MapName>Demo</MapName>{labels}</NamedMap>"
    keys = points.regions.astype(np.float32)[:, None]
    _write_cifti(path, ("LABELS", axis), points, keys, 1.0, 3007)


def _label_table(colours: Sequence[tuple[int, str, str]]) -> str:
    rows = []
    for value, name, colour in ((0, "???", ""), *colours):
        rgb = (
            [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] if colour else [0] * 3
        )
        red, green, blue = (f"{share:.4f}" for share in rgb)
        rows.append(
            f'<Label Key="{value}" Red="{red}" Green="{green}" Blue="{blue}"'
            f' Alpha="{int(value > 0)}">{name}</Label>'
        )
    return f"<LabelTable>{''.join(rows)}</LabelTable>"


def _write_cifti(
    path: Path,
    axis: tuple[str, str],
    points: Grayordinates,
    values: NDArray[np.generic],
    slope: float,
    intent: int,
) -> None:
    """NIfTI-2 with the XML of CIFTI-2: one row for each point, one column a map."""
    kind, more = axis
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><CIFTI Version="2"><Matrix>'
        '<MatrixIndicesMap AppliesToMatrixDimension="0" IndicesMapToDataType='
        f'"CIFTI_INDEX_TYPE_{kind}" {more}</MatrixIndicesMap>'
        '<MatrixIndicesMap AppliesToMatrixDimension="1" IndicesMapToDataType='
        f'"CIFTI_INDEX_TYPE_BRAIN_MODELS">{points.xml}</MatrixIndicesMap>'
        "</Matrix></CIFTI>"
    ).encode()
    body = xml + b"\0" * (-(len(xml) + 8) % 16)
    n_rows, n_columns = values.shape
    code = values.dtype.str[1:]
    head = bytearray(540)
    struct.pack_into(
        "<i8s2h",
        head,
        0,
        540,
        b"n+2\0\r\n\x1a\n",
        _NIFTI_TYPES[code],
        8 * values.itemsize,
    )
    struct.pack_into("<8q", head, 16, 6, 1, 1, 1, 1, n_columns, n_rows, 1)
    struct.pack_into("<8d", head, 104, *[1.0] * 8)
    struct.pack_into("<q2d", head, 168, 544 + 8 + len(body), slope, 0.0)
    struct.pack_into("<i", head, 500, 10)  # mm and s
    struct.pack_into("<i16s", head, 504, intent, _INTENTS[intent])
    extension = struct.pack("<4B2i", 1, 0, 0, 0, len(body) + 8, 32)
    path.write_bytes(
        bytes(head) + extension + body + values.astype(f"<{code}").tobytes()
    )


def write_surface_series(path: Path, side: str, series: NDArray[np.float32]) -> None:
    """A ``.func.gii`` of (T, V), one array for each volume as fMRIPrep writes it."""
    step = f"<MD><Name>TimeStep</Name><Value>{REPETITION_TIME * 1000:g}</Value></MD>"
    arrays = [_gifti_array("TIME_SERIES", volume) for volume in series]
    _write_gifti(path, side, step, "", arrays)


def write_surface_labels(
    path: Path, one: Hemisphere, colours: Sequence[tuple[int, str, str]]
) -> None:
    """A ``.label.gii`` of a hemisphere."""
    table = _label_table(colours)
    labels = _gifti_array("LABEL", one.labels.astype(np.int32))
    _write_gifti(path, one.side, "", table, [labels])


def write_mesh(path: Path, one: Hemisphere) -> None:
    """A ``.surf.gii`` of a hemisphere."""
    arrays = [
        _gifti_array("POINTSET", one.vertices.astype(np.float32)),
        _gifti_array("TRIANGLE", one.faces.astype(np.int32)),
    ]
    _write_gifti(path, one.side, "", "", arrays)


def _gifti_array(intent: str, values: NDArray[np.generic]) -> str:
    code = values.dtype.str[1:]
    sizes = "".join(f' Dim{k}="{n}"' for k, n in enumerate(values.shape))
    packed = zlib.compress(values.astype(f"<{code}").tobytes(), 1)
    return (
        f'<DataArray Intent="NIFTI_INTENT_{intent}" DataType="NIFTI_TYPE_'
        f'{_GIFTI_TYPES[code]}" ArrayIndexingOrder="RowMajorOrder" Dimensionality='
        f'"{values.ndim}"{sizes} Encoding="GZipBase64Binary" Endian="LittleEndian"'
        f' ExternalFileName="" ExternalFileOffset=""><MetaData></MetaData><Data>'
        f"{base64.b64encode(packed).decode()}</Data></DataArray>"
    )


def _write_gifti(
    path: Path, side: str, metadata: str, table: str, arrays: Sequence[str]
) -> None:
    of = {"L": "CortexLeft", "R": "CortexRight"}[side]
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<GIFTI Version="1.0" NumberOfDataArrays="{len(arrays)}"><MetaData>{metadata}'
        f"<MD><Name>AnatomicalStructurePrimary</Name><Value>{of}</Value></MD></MetaData>"
        f"{table or '<LabelTable/>'}{''.join(arrays)}</GIFTI>\n",
        encoding="utf-8",
    )


def geodesic_sphere(n: int) -> tuple[FloatArray, IntArray]:
    """A sphere of 10 n^2 + 2 vertices: each edge of an icosahedron cut into n.

    fsaverage5 has as many (n = 32), and fsLR 32k (n = 57). Corners of the faces go
    counter-clockwise as they are seen from outside.
    """
    golden = (1 + 5**0.5) / 2
    signs = list(itertools.product((-1.0, 1.0), repeat=2))
    solid = np.array(
        [np.roll([0, a, b * golden], k) for k in range(3) for a, b in signs]
    )
    corners = [
        face
        for face in itertools.combinations(range(12), 3)
        if all(
            np.abs(solid[a] - solid[b]).sum() < 4
            and np.linalg.norm(solid[a] - solid[b]) < 2.1
            for a, b in itertools.combinations(face, 2)
        )
    ]
    # Places of a triangle cut into n^2 smaller ones, and which places those join.
    places = [(i, j) for i in range(n + 1) for j in range(n + 1 - i)]
    number = {place: k for k, place in enumerate(places)}
    upright = [
        (number[i, j], number[i + 1, j], number[i, j + 1])
        for i, j in places
        if i + j < n
    ]
    inverted = [
        (number[i + 1, j], number[i + 1, j + 1], number[i, j + 1])
        for i, j in places
        if i + j < n - 1
    ]
    small = np.array(upright + inverted)
    share = np.array([(n - i - j, i, j) for i, j in places]) / n
    points, faces = [], []
    for k, face in enumerate(corners):
        a, b, c = solid[list(face)]
        triangle = np.array([a, b, c] if np.cross(b - a, c - a) @ a > 0 else [a, c, b])
        points.append(share @ triangle)
        faces.append(small + k * len(places))
    cloud = np.concatenate(points)
    # Along edges two faces have the same points; their bits need not be.
    _, kept, same = np.unique(
        np.rint(cloud * 1e6).astype(np.int64),
        axis=0,
        return_index=True,
        return_inverse=True,
    )
    sphere = cloud[kept]
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    return sphere, np.asarray(same.ravel()[np.concatenate(faces)], dtype=np.intp)
