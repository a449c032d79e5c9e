"""The head of the demo dataset: tissues, regions and surfaces, from formulae alone.

Nothing is copied from an atlas or a person. The head is a handful of ellipsoids in
millimetres of MNI space: hemispheres and temporal lobes, cerebellum, brainstem,
ventricles and nuclei. A gyroid, a surface that winds through space, is carved into the
hemispheres for sulci, and grey matter is what lies just under the surface. As all of it
is a formula of x, y and z, it can be evaluated on any grid: atlas and BOLD are made on
different ones without resampling either. Arrays are (z, y, x), as voxels lie in files.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bids_roi.core.grid import Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32Array = NDArray[np.float32]
    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.intp]
    Points = tuple[Float32Array, Float32Array, Float32Array]


GREY, WHITE, CSF = 1, 2, 3  # as in fMRIPrep's dseg images

_RIBBON = 5.0  # mm; thicker than cortex, so that the BOLD grid resolves it
_RIM = 4.0  # mm of fluid between cortex and the edge of the brain mask
_BASELINE = {GREY: 1000.0, WHITE: 780.0, CSF: 1350.0}  # T2*-weighted contrast
_VERTEX_FLOOR = 57.0  # mm; cortex above it around the vertex is the region Vertex
_VERTEX_REACH = 30.0  # mm to the front and back

_CORTEX = {"L": "CIFTI_STRUCTURE_CORTEX_LEFT", "R": "CIFTI_STRUCTURE_CORTEX_RIGHT"}
# MNI152NLin6Asym at 2 mm, whose voxels the grayordinates of fMRIPrep have.
_VOXELS = Grid.of(
    (91, 109, 91),
    np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]]),
)


def _diagonal(shape: tuple[int, int, int], size: float, *origin: float) -> Grid:
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = origin
    return Grid.of(shape, affine)


# Coarse, so that the files are small. The atlas has the grid of TemplateFlow's res-02;
# the quarter millimetres leave no ties when labels go from one grid to the other.
BOLD_GRID = _diagonal((32, 38, 32), 5.0, -77.75, -109.75, -70.25)
ATLAS_GRID = _diagonal((97, 115, 97), 2.0, -96.5, -132.5, -78.5)


class Region(NamedTuple):
    """One region of the demo atlas; ``axes`` (mm) only where it is an ellipsoid."""

    value: int
    name: str
    hemisphere: str
    network: str
    centre: tuple[float, float, float]
    axes: tuple[float, ...] = ()


_SHAPES: tuple[tuple[str, str, tuple[float, ...], tuple[float, ...]], ...] = (
    ("OccipitalPole", "Visual", (13, -92, 2), ()),
    ("OccipitalLateral", "Visual", (42, -70, 2), ()),
    ("Vertex", "Somatomotor", (12, -22, 68), ()),
    ("SensorimotorLateral", "Somatomotor", (54, -12, 32), ()),
    ("ParietalSuperior", "Attention", (24, -60, 60), ()),
    ("FrontalSuperior", "Attention", (24, 18, 50), ()),
    ("ParietalInferior", "Control", (50, -52, 34), ()),
    ("FrontalLateral", "Control", (46, 32, 18), ()),
    ("Precuneus", "Default", (6, -58, 28), ()),
    ("FrontalMedial", "Default", (8, 48, 14), ()),
    ("TemporalLateral", "Default", (58, -26, -14), ()),
    ("FrontalOrbital", "Limbic", (24, 36, -16), ()),
    ("TemporalPole", "Limbic", (38, 10, -28), ()),
    ("Thalamus", "Subcortical", (12, -19, 6), (9, 13, 9)),
    ("Putamen", "Subcortical", (27, 2, 2), (7, 16, 10)),
    ("Hippocampus", "Subcortical", (28, -22, -14), (8, 17, 7)),
)

_VENTRICLES = (((9, -8, 23), (6.5, 38, 7.5)), ((0, -14, 6), (3.5, 13, 10)))


def _regions() -> tuple[Region, ...]:
    """Left and right of every shape; values have gaps and are not in order."""
    regions = []
    for row, (name, network, (x, y, z), axes) in enumerate(_SHAPES):
        first, step = (51, 10) if axes else (1, 20)
        for side, sign, shift in (("L", -1, 0), ("R", 1, step)):
            value = first + shift + row - (13 if axes else 0)
            centre = (sign * x, y, z)
            regions.append(
                Region(value, f"{side}H_{name}", side, network, centre, axes)
            )
    return tuple(regions)


REGIONS = _regions()


def _ellipsoid(
    points: Points, centre: tuple[float, ...], axes: tuple[float, ...]
) -> Float32Array:
    """Depth under the surface of an ellipsoid in mm, to first order."""
    scaled = [(p - c) / a for p, c, a in zip(points, centre, axes, strict=True)]
    norm = np.sqrt(sum(s**2 for s in scaled)) + np.float32(1e-3)
    slope = np.sqrt(sum((s / a) ** 2 for s, a in zip(scaled, axes, strict=True)))
    return np.asarray((1 - norm) * norm / (slope + 1e-3), dtype=np.float32)


def _sulci(points: Points) -> Float32Array:
    """Distance from the nearest sulcus in mm: the zeros of a gyroid."""
    lengths = (46.0, 54.0, 50.0)
    x, y, z = (
        p * np.float32(2 * np.pi / w) for p, w in zip(points, lengths, strict=True)
    )
    winding = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
    return np.asarray(np.abs(winding) * 6.5 - 0.7, dtype=np.float32)


def _hemispheres(points: Points) -> tuple[Float32Array, Float32Array]:
    """Depth in mm under the cortex, and under the hull that spans its sulci."""
    x, y, z = points
    side = np.abs(x)
    mirrored = (side, y, z)
    dome = np.minimum(
        _ellipsoid(mirrored, (25, -16, 15), (43, 86, 59)), z + 26 - 0.1 * (y - 30)
    )
    lobe = _ellipsoid(mirrored, (42, -18, -18), (25, 44, 22))
    hull = np.maximum(dome, lobe)
    lateral = np.minimum(side - 32, 26 - np.abs(y + 6))
    valley = np.abs(z + 5 + 0.4 * y) * 0.9 - 1
    core = _ellipsoid(points, (0, -14, 8), (20, 40, 24))
    medial = np.where(core > 0, hull, side - 1.2)
    depth = np.minimum(hull, np.maximum(medial, core))
    depth = np.minimum(depth, np.where(lateral > 0, np.maximum(valley, 0.0), depth))
    carved = np.maximum(_sulci((side, y, z)), hull - 15)
    depth = np.where(core > 0, depth, np.minimum(depth, carved))
    return depth, hull


def _tissue(points: Points) -> tuple[NDArray[np.int8], Float32Array, Float32Array]:
    """Tissue of every point, 0 outside; depth in mm in the cerebrum and the brain."""
    x, y, z = points
    mirrored = (np.abs(x), y, z)
    depth, hull = _hemispheres(points)
    cerebellum = _ellipsoid(mirrored, (18, -64, -38), (34, 30, 20))
    stem = _ellipsoid(points, (0, -28, -36), (13, 13, 34))
    folia = np.sin(np.sqrt((y + 45) ** 2 + (z + 30) ** 2 + x**2 / 4) * 0.9)
    tissue = np.where(depth >= _RIBBON, WHITE, np.where(depth > 0, GREY, 0))
    outside = (hull < 0) & (cerebellum > 0)
    leaf = np.where((cerebellum > 11) | (folia > 0.7), WHITE, GREY)
    tissue = np.where(outside, leaf, tissue)
    tissue = np.where((stem > 0) & (hull < 8), WHITE, tissue)
    for _, _, centre, axes in _SHAPES:
        if axes:
            tissue = np.where(_ellipsoid(mirrored, centre, axes) > 0, GREY, tissue)
    bend = (np.abs(x) - 0.006 * (y + 10) ** 2, y, z + 0.004 * (y + 5) ** 2)
    for centre, axes in _VENTRICLES:
        tissue = np.where(_ellipsoid(bend, centre, axes) > 0, CSF, tissue)
    brain = np.maximum(np.maximum(hull, cerebellum), stem)
    return tissue.astype(np.int8), hull, brain


def voxel_centres(grid: Grid, shift: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Points:
    """Compute where the voxels of a grid are.

    Three arrays that broadcast to (z, y, x), of a grid whose axes run along x, y and z.
    """
    matrix = grid.matrix
    axes = [
        (matrix[i, 3] + shift[i] + matrix[i, i] * np.arange(n)).astype(np.float32)
        for i, n in enumerate(grid.shape)
    ]
    return axes[0][None, None, :], axes[1][None, :, None], axes[2][:, None, None]


def label_points(grid: Grid) -> NDArray[np.uint8]:
    """Draw the demo atlas on a grid whose axes run along x, y and z, (z, y, x).

    Values of ``REGIONS``, 0 elsewhere.
    """
    points = voxel_centres(grid)
    tissue, cerebrum, _ = _tissue(points)
    where = np.flatnonzero((tissue == GREY) & (cerebrum > 0))
    x, y, z = (np.broadcast_to(p, tissue.shape).ravel()[where] for p in points)
    nuclei = label_nuclei((x, y, z))
    labels = np.zeros(tissue.size, dtype=np.uint8)
    labels[where] = np.where(nuclei > 0, nuclei, label_cortex((x, y, z)))
    return labels.reshape(tissue.shape)


def label_cortex(points: Points) -> NDArray[np.uint8]:
    """Region of points of cortex, (n,): the nearest centre of its side.

    Vertex alone is what lies above 57 mm.
    """
    x, y, z = points
    best = np.full(x.shape, np.inf, dtype=np.float32)
    value = np.zeros(x.shape, dtype=np.uint8)
    for region in REGIONS:
        if region.axes:
            continue
        a, b, c = region.centre
        distance = (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2
        if region.name.endswith("Vertex"):
            within = (z > _VERTEX_FLOOR) & (np.abs(y - b) < _VERTEX_REACH)
            distance = np.where(within, 0, np.inf)
        same_side = (x < 0) == (region.hemisphere == "L")
        nearer = same_side & (distance < best)
        best[nearer] = distance[nearer]
        value[nearer] = region.value
    return value


def label_nuclei(points: Points) -> NDArray[np.uint8]:
    """Region of points in nuclei below the cortex, 0 outside of them."""
    value = np.zeros(np.broadcast_shapes(*(p.shape for p in points)), dtype=np.uint8)
    for region in REGIONS:
        if region.axes:
            value[_ellipsoid(points, region.centre, region.axes) > 0] = region.value
    return value


def find_midthickness(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where rays from the middle of the right hemisphere leave its cortex, (n, 3) mm.

    Halfway through the ribbon; sulci are left out, so that the surface is smooth.
    """
    centre = np.array([26.0, -16.0, 8.0])
    near, far = np.zeros(len(directions)), np.full(len(directions), 120.0)
    for _ in range(12):  # halves 120 mm to 0.03
        middle = (near + far) / 2
        points = (centre + middle[:, None] * directions).astype(np.float32)
        x, y, z = points.T
        _, hull = _hemispheres((x, y, z))
        inside = np.minimum(hull, x - 1.2) > _RIBBON / 2
        near, far = np.where(inside, middle, near), np.where(inside, far, middle)
    return np.asarray(centre + near[:, None] * directions)


def is_wall(points: Points) -> NDArray[np.bool_]:
    """Whether points of the midthickness lie where the hemispheres are joined."""
    core = _ellipsoid(points, (0, -14, 8), (20, 40, 24)) > 0
    return np.asarray(core & (np.abs(points[0]) < _RIBBON))


@dataclass(frozen=True, slots=True)
class Head:
    """What all runs share, on ``BOLD_GRID``; all arrays are (z, y, x)."""

    tissue: NDArray[np.int8]  # GREY, WHITE, CSF (ventricles) or 0, at voxel centres
    brain: NDArray[np.bool_]  # with a rim of fluid, as brain masks have it
    labels: NDArray[np.uint8]  # region values at the voxel centres
    baseline: Float32Array  # mean image with partial volumes; 0 in air


def make_head() -> Head:
    """Draw the head on the BOLD grid.

    The baseline averages eight points per voxel, so that borders are soft.
    """
    baseline = np.zeros(BOLD_GRID.shape[::-1], dtype=np.float32)
    for shift in itertools.product((-1.0, 1.0), repeat=3):
        tissue, _, depth = _tissue(voxel_centres(BOLD_GRID, shift))
        value = np.where(depth > -_RIM, 1150.0, 0.0)
        for kind, level in _BASELINE.items():
            value[tissue == kind] = level
        baseline += value.astype(np.float32) / 8
    points = voxel_centres(BOLD_GRID)
    tissue, _, depth = _tissue(points)
    x, y, z = points
    sinus = np.exp(-(x**2 + (y - 40) ** 2 + (z + 30) ** 2) / 16**2)
    coil = 1 + 0.0012 * np.sqrt(x**2 + (y + 20) ** 2 + z**2)
    return Head(
        tissue=tissue,
        brain=depth > -_RIM,
        labels=label_points(BOLD_GRID),
        baseline=(baseline * coil * (1 - 0.5 * sinus)).astype(np.float32),
    )


class Hemisphere(NamedTuple):
    """One surface, ``L`` or ``R``, with the nearest region of each vertex."""

    side: str
    vertices: FloatArray  # (V, 3), mm
    faces: IntArray  # (F, 3)
    regions: NDArray[np.uint8]  # (V,)
    wall: NDArray[np.bool_]  # (V,), where there is no cortex

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
