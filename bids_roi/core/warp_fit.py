"""How well an atlas that was moved by a transform lies on a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.grid import contains

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid


@dataclass(frozen=True, slots=True)
class WarpFit:
    """Measures of a moved atlas; NaN where there is nothing to measure.

    Attributes
    ----------
    volume
        Volume of the regions' tissue in the run over its volume in the template. Parts
        outside the run's field of view count in neither.
    mirrored
        Share (0 to 1) of that tissue where the transform turns left into right.
    inside
        Share of the regions' voxels on the run's grid that are in its mask.
    covered
        Share of the mask's voxels that lie in the field of view of the atlas.
    distance
        From the centre of gravity of the regions to the mask's nearest voxel, mm; 0
        where it lies in the mask.
    """

    volume: float
    mirrored: float
    inside: float
    covered: float
    distance: float


def measure_fit(
    regions: NDArray[np.bool_],
    points: NDArray[np.float64],
    *,
    grid: Grid,
    atlas_grid: Grid | None,
    mask: NDArray[np.bool_] | None,
) -> WarpFit:
    """Measure how a moved atlas lies on a run.

    Parameters
    ----------
    regions : (x, y, z) of ``grid``
        Whether each voxel is in a region of the atlas at ``points``.
    points : (V, 3), mm
        Where the centres of the run's voxels lie in the template, first axis fastest.
    grid, atlas_grid
        Of the run and of the atlas, ``None`` for one without a field of view.
    mask : (x, y, z) of ``grid``, or None
    """
    volume, mirrored = _measure_volume(regions, points, grid)
    if mask is None or not (mask.any() and regions.any()):
        inside = 0.0 if mask is not None and mask.any() else np.nan
        return WarpFit(volume, mirrored, inside, np.nan, np.nan)
    centre = np.argwhere(regions).mean(axis=0)
    away = (np.argwhere(mask) - centre) @ grid.matrix[:3, :3].T
    covered = np.nan
    if atlas_grid is not None:
        covered = float(contains(atlas_grid, points[mask.ravel(order="F")]).mean())
    out = not mask[tuple(np.rint(centre).astype(np.intp))]
    return WarpFit(
        volume=volume,
        mirrored=mirrored,
        inside=float(mask[regions].mean()),
        covered=covered,
        distance=float(np.sqrt((away**2).sum(axis=1).min())) if out else 0.0,
    )


def find_cut(rows: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """Find the regions that reach the edge of a run's grid, and may go on beyond it.

    Parameters
    ----------
    rows : (x, y, z)
        Region of each voxel, -1 for none.

    Returns
    -------
    (n,)
        Ascending.
    """
    faces = [rows.take(end, axis=axis).ravel() for axis in range(3) for end in (0, -1)]
    found = np.unique(np.concatenate(faces))
    return found[found >= 0].astype(np.intp)


def _measure_volume(
    regions: NDArray[np.bool_], points: NDArray[np.float64], grid: Grid
) -> tuple[float, float]:
    """Volume ratio and mirrored share, from the edges of the voxels once moved.

    The determinant of the three edges is the volume that a voxel takes in the template,
    negative where the map changes handedness: a mean of them needs no inverse.
    """
    whole = regions.copy()
    for axis in range(3):  # the last voxel of an axis has no neighbour
        np.moveaxis(whole, axis, 0)[-1:] = False
    here = np.flatnonzero(whole.ravel(order="F"))
    if not here.size:
        return np.nan, np.nan
    edges = np.empty((here.size, 3, 3))
    for axis, stride in enumerate((1, grid.shape[0], grid.shape[0] * grid.shape[1])):
        edges[:, :, axis] = points[here + stride] - points[here]
    own = np.linalg.det(grid.matrix[:3, :3])  # negative where the axes are LAS
    sizes = np.linalg.det(edges) / own
    return float(1 / np.abs(sizes).mean()), float((sizes < 0).mean())
