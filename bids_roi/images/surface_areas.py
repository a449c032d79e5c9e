"""Areas of the vertices of a hemisphere, from its surface or from a map of them."""

from __future__ import annotations

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


_CHOOSE = (
    "Choose a midthickness surface (.surf.gii), or a map of areas in mm2 (.shape.gii,"
    " as `wb_command -surface-vertex-areas` writes)."
)


def read_areas(path: Path) -> tuple[str, NDArray[np.float64]]:
    """Structure that a file says it is of, or blank, and mm2 of each vertex, (n,).

    Raises
    ------
    MissingInput
        If the file cannot be read at all.
    ImageError
        If it is damaged, neither a surface nor one map, or has vertices without area.
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
