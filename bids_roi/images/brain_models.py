"""Brain models of CIFTI-2 files: which vertices and voxels their rows are."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bids_roi.core.frame import Frame, Mesh, Part, Points
from bids_roi.core.grid import Grid
from bids_roi.errors import ImageError
from bids_roi.images.markup import parse_real, whole
from bids_roi.images.meshes import MOST_VERTICES, mesh_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from numpy.typing import NDArray


_MOST_VOXELS = 2**31
_AGAIN = "Copy or download the file again, or write it again with its software."


class _Model(NamedTuple):
    """A brain model as the XML has it; text, so that it can be a key."""

    structure: str
    kind: str
    offset: str
    n_points: str
    n_vertices: str
    numbers: str


def read_frame(axis: Element, template: str | None) -> Frame:
    """Frame that the brain models of a file make.

    Parameters
    ----------
    axis
        The element of the XML that holds them.
    template
        Space of the surfaces, see ``mesh_of``.

    Raises
    ------
    ImageError, SpaceMismatch
        If they contradict themselves or the template; the file is not told.
    """
    volume = axis.find("Volume")
    place = None
    if volume is not None:
        matrix = volume.find("TransformationMatrixVoxelIndicesIJKtoXYZ")
        place = (
            volume.get("VolumeDimensions", ""),
            "" if matrix is None else matrix.get("MeterExponent", "-3"),
            "" if matrix is None else matrix.text or "",
        )
    models = tuple(
        _Model(
            model.get("BrainStructure", "").removeprefix("CIFTI_STRUCTURE_")[:80],
            model.get("ModelType", "").removeprefix("CIFTI_MODEL_TYPE_")[:80],
            model.get("IndexOffset", ""),
            model.get("IndexCount", ""),
            model.get("SurfaceNumberOfVertices", ""),
            model.findtext("VertexIndices") or model.findtext("VoxelIndicesIJK") or "",
        )
        for model in axis.findall("BrainModel")
    )
    return _build_frame(place, models, template)


# The runs of a dataset have equal models. The text is the key, which is compared in
# a fraction of a millisecond; to make 91,282 numbers of it takes ten.
@functools.lru_cache(maxsize=8)
def _build_frame(
    place: tuple[str, str, str] | None, models: tuple[_Model, ...], template: str | None
) -> Frame:
    grid = None if place is None else _volume_grid(*place)
    ordered = sorted(models, key=lambda model: whole(model.offset, "IndexOffset"))
    parts: list[Part] = []
    known: set[tuple[str, str]] = set()
    end = 0
    for model in ordered:
        if model[:2] in known or not model.structure:
            msg = f"two brain models, or one without a name, are {model.structure!r}."
            raise ImageError(msg, remedy=_AGAIN)
        known.add(model[:2])
        start = int(model.offset)
        if start != end:
            what = "leave a gap" if start > end else "overlap"
            msg = (
                f"the brain models {what}: {model.structure} begins at IndexOffset"
                f" {start:,}, those before it end at {end:,}."
            )
            raise ImageError(msg, remedy=_AGAIN)
        parts.append(_part_of(model, grid, template))
        end += parts[-1].n_points
    if not end:
        raise ImageError("the file holds no grayordinates.", remedy=_AGAIN)
    _check_voxels(parts)
    return Frame(tuple(parts))


def _part_of(model: _Model, grid: Grid | None, template: str | None) -> Part:
    name = model.structure
    count = whole(model.n_points, f"IndexCount of {name}")
    numbers = _parse_numbers(model.numbers, name)
    per_point = {"SURFACE": 1, "VOXELS": 0 if grid is None else 3}.get(model.kind)
    if not per_point:
        lack = "" if per_point is None else " without a Volume that places them"
        msg = f"{name} is a model of {model.kind or 'nothing'}{lack}."
        raise ImageError(msg, remedy=_AGAIN)
    if numbers.size != count * per_point:
        msg = (
            f"{name} holds {numbers.size:,} numbers of vertices or voxels; its"
            f" IndexCount of {count:,} needs {count * per_point:,}."
        )
        raise ImageError(msg, remedy=_AGAIN)
    if grid is None or model.kind == "SURFACE":
        what = f"SurfaceNumberOfVertices of {name}"
        n_vertices = whole(model.n_vertices, what, least=1, most=MOST_VERTICES)
        is_cortex = name in ("CORTEX_LEFT", "CORTEX_RIGHT")
        mesh = mesh_of(template, n_vertices) if is_cortex else Mesh(name, n_vertices)
        _check_range(numbers, n_vertices, f"{name} holds vertex")
        if np.unique(numbers).size < count:
            msg = f"{name} holds a vertex twice; each has one value at a moment."
            raise ImageError(msg, remedy=_AGAIN)
        in_order = count == n_vertices and (numbers == np.arange(count)).all()
        return Part(mesh, name, None if in_order else Points(numbers))
    ijk = numbers.reshape(-1, 3)
    for axis, (letter, length) in enumerate(zip("ijk", grid.shape, strict=True)):
        what = f"{name} holds a voxel outside the volume, {letter} ="
        _check_range(ijk[:, axis], length, what)
    nx, ny, _ = grid.shape
    return Part(grid, name, Points(ijk[:, 0] + nx * (ijk[:, 1] + ny * ijk[:, 2])))


def _parse_numbers(text: str, name: str) -> NDArray[np.int64]:
    if text.encode().translate(None, b"0123456789 \t\r\n"):
        msg = f"{name} holds numbers of vertices or voxels that are no whole numbers."
        raise ImageError(msg, remedy=_AGAIN)
    # fromstring makes of what is too large the largest, which no mesh has.
    return np.array(np.fromstring(text if text.strip() else "", np.int64, sep=" "))


def _check_range(numbers: NDArray[np.int64], limit: int, what: str) -> None:
    if numbers.size and not 0 <= numbers.max() < limit:
        msg = f"{what} {numbers.max():,}; 0 to {limit - 1:,} can be used."
        raise ImageError(msg, remedy=_AGAIN)


def _check_voxels(parts: list[Part]) -> None:
    voxels = [part.numbers for part in parts if isinstance(part.support, Grid)]
    if voxels:
        together = np.concatenate(voxels)
        if np.unique(together).size < together.size:
            msg = "a voxel belongs to two brain models, or twice to one."
            raise ImageError(msg, remedy=_AGAIN)


def _volume_grid(dimensions: str, exponent: str, matrix: str) -> Grid:
    shape = tuple(
        whole(n, "VolumeDimensions", least=1, most=2**15) for n in dimensions.split(",")
    )
    numbers = [parse_real(text) for text in matrix.split()[:17]]
    to_mm = 10.0 ** (whole(exponent, "MeterExponent", least=-30, most=30) + 3)
    affine = np.array(numbers) * to_mm
    if len(shape) != 3 or math.prod(shape) > _MOST_VOXELS or len(numbers) != 16:
        msg = f"the Volume has {len(shape)} axes and {len(numbers)} numbers of a matrix"
        raise ImageError(f"{msg}; 3 and 16 are needed.", remedy=_AGAIN)
    affine = affine.reshape(4, 4)
    affine[3] = 0, 0, 0, 1
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        msg = "the matrix of the Volume does not place its voxels in space."
        raise ImageError(msg, remedy=_AGAIN)
    return Grid.of(shape, affine)
