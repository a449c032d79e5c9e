"""Areas of the vertices of a hemisphere, from its surface or from a map of them."""

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


def read_areas(path: Path) -> tuple[str, NDArray[np.float64]]:
    """Structure that a file says it is of, or blank, and mm2 of each vertex, (n,).

    Raises
    ------
    MissingInput
        If the file cannot be read at all.
    ImageError
        If it is damaged, neither a surface nor one map, an inflated surface or a map of
        something else by what it says, or has vertices without area.
    """
    check_file(path)
    with located(path, ImageError):
        parts: dict[int, list[NDArray[Any]]] = {}
        reading = None
        for reading in read_arrays(path):
            while reading.rows:
                number, rows = reading.rows.popleft()
                parts.setdefault(number, []).append(rows)
        heads = [] if reading is None else reading.heads
        intents = [head.intent for head in heads]
        shapes = [head.lengths for head in heads]
        if reading is not None:
            _refuse_other_shapes(path, reading)
        arrays = [np.concatenate(parts[number]) for number in sorted(parts)]
        if sorted(intents) == ["POINTSET", "TRIANGLE"]:
            if any(len(shape) != 2 or 3 not in shape for shape in shapes):
                raise ImageError("points or triangles are no triples.", remedy=_CHOOSE)
            triples = [
                values.T if head.by_column else values
                for head, values in zip(heads, arrays, strict=True)
            ]
            points = triples[intents.index("POINTSET")].astype(np.float64)
            triangles = triples[intents.index("TRIANGLE")]
            whole = triangles.dtype.kind in "iu" and np.isfinite(points).all()
            if not whole or not (0 <= triangles.min() <= triangles.max() < len(points)):
                msg = "triangles name vertices that are not there, or points no place."
                raise ImageError(msg, remedy=_CHOOSE)
            areas = find_vertex_areas(points, triangles.astype(np.int64))
        elif len(heads) == 1 and len(shapes[0]) == 1 and heads[0].dtype[1] == "f":
            areas = arrays[0].ravel().astype(np.float64)
        else:
            found = ", ".join(intents[:5]) or "no arrays"
            msg = f"the file holds {found}: neither a surface nor a map of areas."
            raise ImageError(msg, remedy=_CHOOSE)
        empty = int((~(np.isfinite(areas) & (areas > 0))).sum())
        if reading is None or empty:
            msg = f"{empty:,} of {areas.size:,} vertices have no area, each needs one."
            raise ImageError(msg, remedy=_CHOOSE)
        return reading.structure, areas


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
