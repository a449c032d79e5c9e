"""Surfaces of a hemisphere, and the areas of its vertices or a map of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.frame import find_vertex_areas
from bids_roi.errors import ImageError
from bids_roi.images.gifti_arrays import read_arrays
from bids_roi.images.markup import located
from bids_roi.images.nifti import check_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.images.gifti_arrays import Reading


_CHOOSE = (
    "Choose a midthickness surface (.surf.gii), or a map of areas in mm2 (.shape.gii,"
    " as `wb_command -surface-vertex-areas` writes)."
)
# Surfaces whose areas are not the cortex's, and maps of something else, by their names.
_NO_AREAS = {"inflated", "veryinflated", "vinflated", "sphere", "flat", "hull"}
_NO_AREAS |= {"thickness", "sulc", "curv", "curvature", "myelinmap"}
# The same of a surface by its GeometricType, as Workbench and FreeSurfer write it.
_NO_CORTEX = re.compile("flat|spher|hull|ellips", re.IGNORECASE)


def read_mesh(
    path: Path, n_vertices: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Places of the vertices in mm, (V, 3), and corners of the faces, (F, 3).

    An ``ImageError`` where a surface is damaged or has other than ``n_vertices``.
    """
    check_file(path)
    with located(path, ImageError):
        reading, arrays = _read_whole(path, n_vertices)
        return _find_mesh(reading, arrays)


def read_areas(path: Path) -> tuple[str, NDArray[np.float64]]:
    """Structure that a file says it is of, or blank, and mm2 of each vertex, (n,).

    An ``ImageError`` where it is neither a surface nor one map of areas, is damaged, an
    inflated surface or a map of something else by what it says, or has vertices without
    area.
    """
    check_file(path)
    with located(path, ImageError):
        reading, arrays = _read_whole(path)
        _refuse_other_shapes(path, reading)
        heads = reading.heads
        one = len(arrays) == len(heads) == 1 and len(heads[0].lengths) == 1
        if sorted(head.intent for head in heads) == ["POINTSET", "TRIANGLE"]:
            areas = find_vertex_areas(*_find_mesh(reading, arrays))
        elif one and heads[0].dtype[1] == "f":
            areas = arrays[0].ravel().astype(np.float64)
        else:
            found = ", ".join(head.intent for head in heads[:5]) or "no arrays"
            msg = f"the file holds {found}: neither a surface nor a map of areas."
            raise ImageError(msg, remedy=_CHOOSE)
        empty = int((~(np.isfinite(areas) & (areas > 0))).sum())
        if empty:
            msg = f"{empty:,} of {areas.size:,} vertices have no area, each needs one."
            raise ImageError(msg, remedy=_CHOOSE)
        return reading.structure, areas


def _read_whole(
    path: Path, n_vertices: int | None = None
) -> tuple[Reading, list[NDArray[Any]]]:
    """All arrays of a file; a surface of other than ``n_vertices`` is not read on."""
    parts: dict[int, list[NDArray[Any]]] = {}
    reading = None
    for reading in read_arrays(path):
        for head in reading.heads:
            wrong = n_vertices is not None and n_vertices not in head.lengths
            if wrong and head.intent == "POINTSET":
                msg = f"the surface has {max(head.lengths):,} vertices."
                raise ImageError(msg, remedy=f"{n_vertices:,} are needed.")
        while reading.rows:
            number, rows = reading.rows.popleft()
            parts.setdefault(number, []).append(rows)
    if reading is None:
        raise ImageError("the file holds nothing.", remedy=_CHOOSE)
    return reading, [np.concatenate(parts[number]) for number in sorted(parts)]


def _find_mesh(
    reading: Reading, arrays: list[NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Vertices and faces of what was read, checked against each other."""
    triples = {
        head.intent: values.T if head.by_column else values
        for head, values in zip(reading.heads, arrays, strict=False)
        if head.intent in ("POINTSET", "TRIANGLE")
        and (len(head.lengths) == 2 and 3 in head.lengths)
    }
    if len(arrays) != len(reading.heads) or not {"POINTSET", "TRIANGLE"} <= set(
        triples
    ):
        msg = "the file does not hold vertices and the faces between them in triples."
        raise ImageError(msg, remedy=_CHOOSE)
    vertices, faces = triples["POINTSET"].astype(np.float64), triples["TRIANGLE"]
    if faces.dtype.kind not in "iu" or not 0 <= faces.min() <= faces.max() < len(
        vertices
    ):
        msg = "the faces join vertices that are not there."
        raise ImageError(msg, remedy=_CHOOSE)
    if not np.isfinite(vertices).all():
        msg = "some vertices have no place in space (NaN)."
        raise ImageError(msg, remedy="Copy or make the file again.")
    return vertices, faces.astype(np.intp)


def _refuse_other_shapes(path: Path, reading: Reading) -> None:
    """Refuse what says of itself that its numbers are not the cortex's areas.

    Nothing in the numbers tells: thickness, too, is above 0 throughout.
    """
    shape = reading.metadata.get("GeometricType", "")
    words = re.split("[._ ]", " ".join((path.name, *reading.names)).lower())
    word = (
        shape
        if _NO_CORTEX.search(shape)
        else next(filter(_NO_AREAS.__contains__, words), "")
    )
    if word:
        msg = f"the file says that it is of another shape or quantity ({word[:40]})."
        raise ImageError(msg, remedy=_CHOOSE)
