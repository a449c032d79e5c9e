"""Whether the regions of the Schaefer atlas are where their names say.

Both its orders (7 and 17 networks) number the same parcels, so that the table of one
fits the image of the other in everything but the names. What a name says of the place
gives that away: measured on 100, 200 and 400 parcels, 0 to 5 % of the named places are
wrong with the right table, 19 to 40 % with the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.io.atlases.findings import Finding
from bids_roi.io.atlases.regions import schaefer_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid
    from bids_roi.io.atlases.regions import RegionTable

__all__ = ["check_places"]

# Word in the name, axis, and the side of a plane (mm) on which the centre cannot be:
# prefrontal cortex lies before, visual and extrastriate cortex behind, orbitofrontal
# cortex below it.
_PLANES = (
    ("PFC", 1, -1, -15.0),
    ("ExStr", 1, 1, -35.0),
    ("Vis", 1, 1, -30.0),
    ("OFC", 2, 1, 15.0),
)
_TOLERATED = 0.12
_LEAST = 10


def check_places(
    table: RegionTable, labels: NDArray[np.int64], grid: Grid
) -> list[Finding]:
    """Compare names of the Schaefer atlas with the positions of the regions.

    Parameters
    ----------
    table
        Those of its names that are the Schaefer atlas's are looked at.
    labels : (x, y, z)
        The image, in a template's space.
    grid
        RAS+, mm.

    Returns
    -------
    list
        An error where more than 12 % of at least 10 named places are wrong.
    """
    if not any(map(schaefer_network, table.original_name)):
        return []
    centres = _centres(labels, table.values, grid)
    wrong, n_named, example = 0, 0, ""
    for row, name in enumerate(table.original_name):
        if not schaefer_network(name):
            continue
        for word, axis, sign, plane in _PLANES:
            if word in name and np.isfinite(centres[row, axis]):
                n_named += 1
                if sign * (centres[row, axis] - plane) > 0:
                    wrong += 1
                    place = ", ".join(f"{v:.0f}" for v in centres[row])
                    example = example or f"{name} is at ({place}) mm"
    if n_named < _LEAST or wrong <= _TOLERATED * n_named:
        return []
    text = (
        f"{wrong} of {n_named} names contradict the place of their region ({example}):"
        " the table is in the order of another number of networks."
    )
    fix = "Give the table that belongs to this image."
    return [Finding("error", "order of networks", text, fix)]


def _centres(
    labels: NDArray[np.int64], index: NDArray[np.int64], grid: Grid
) -> NDArray[np.float64]:
    """Centre of each region, (R, 3) in mm; NaN for those the image does not hold."""
    at = np.flatnonzero(labels)
    values, inverse = np.unique(labels.ravel()[at], return_inverse=True)
    ijk = np.array(np.unravel_index(at, labels.shape), dtype=np.float64)
    xyz = grid.matrix[:3, :3] @ ijk + grid.matrix[:3, 3:]
    sizes = np.bincount(inverse)
    means = np.stack([np.bincount(inverse, x) / sizes for x in xyz], axis=1)
    centres = np.full((index.size, 3), np.nan)
    position = np.minimum(np.searchsorted(values, index), values.size - 1)
    held = values[position] == index
    centres[held] = means[position[held]]
    return centres
