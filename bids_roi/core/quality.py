"""What became of each region of a run: status words, coverage, level, tSNR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


# In the order in which they are asked: the first that applies is the status.
STATUS = {
    "overlapped": (
        "Every voxel or vertex belongs to an earlier atlas of the combination."
    ),
    "absent_from_atlas": "The atlas image does not hold the region its table names.",
    "outside_data": (
        "The run has no data where the region lies (grayordinates), or the region is in"
        " another layout of the atlas."
    ),
    "lost_in_resampling": "No voxel of the BOLD grid has its centre in the region.",
    "outside_mask": "All its voxels are outside the brain mask.",
    "all_nonfinite": "Every voxel holds a NaN or infinity in some volume.",
    "constant": "No voxel changes over time.",
    "outside_field_of_view": "Every voxel that changes is exactly 0 in some volumes.",
    "below_coverage": "A smaller share than MinimumCoverage can be used.",
    "weights_cancel": (
        "The weights of the map add up to less than 1 % of their absolute values: it"
        " has no weighted mean."
    ),
    "ok": "The column holds numbers.",
}


@dataclass(frozen=True, slots=True)
class RegionQuality:
    """One value per region of one run and atlas, all (R,).

    Attributes
    ----------
    n_voxels_atlas
        Voxels on the atlas's own grid.
    n_voxels_grid
        Voxels on the BOLD grid.
    n_voxels_mask
        Those of them inside the mask.
    n_voxels_dropout
        Those of them that are outside the field of view in some volumes.
    n_voxels_used
        Those inside the mask that are finite and in the field of view in every volume,
        and not constant.
    coverage
        0 to 1; share of the atlas voxels whose centre lies in a usable BOLD voxel.
    coverage_grid
        0 to 1; ``n_voxels_used`` over ``n_voxels_grid``.
    status
        A key of ``STATUS``.
    """

    n_voxels_atlas: NDArray[np.int64]
    n_voxels_grid: NDArray[np.int64]
    n_voxels_mask: NDArray[np.int64]
    n_voxels_dropout: NDArray[np.int64]
    n_voxels_used: NDArray[np.int64]
    coverage: NDArray[np.float64]
    coverage_grid: NDArray[np.float64]
    status: tuple[str, ...]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Whether the region's column holds numbers, (R,)."""
        return np.array([word == "ok" for word in self.status], dtype=bool)

    @property
    def has_voxels(self) -> NDArray[np.bool_]:
        """Whether enough of the region can be used, for some statistic, (R,)."""
        words = ("ok", "weights_cancel")
        return np.array([word in words for word in self.status], dtype=bool)


def assess_regions(
    *,
    n_voxels_atlas: NDArray[np.int64],
    n_voxels_grid: NDArray[np.int64],
    n_voxels_mask: NDArray[np.int64],
    n_voxels_finite: NDArray[np.int64],
    n_voxels_dropout: NDArray[np.int64],
    n_voxels_used: NDArray[np.int64],
    coverage: NDArray[np.float64],
    min_coverage: float,
    weights_cancel: NDArray[np.bool_] | None = None,
    resampled: bool = True,
    elsewhere: NDArray[np.bool_] | None = None,
    overlapped: NDArray[np.float64] | None = None,
) -> RegionQuality:
    """Give each region its status.

    Parameters
    ----------
    n_voxels_atlas, n_voxels_grid, n_voxels_mask, n_voxels_finite, n_voxels_used : (R,)
        Voxels left after each step.
    n_voxels_dropout : (R,)
        Voxels that the last step took away because of the field of view.
    coverage : (R,)
        0 to 1.
    min_coverage
        0 to 1; regions strictly below it are lost.
    weights_cancel : (R,) or None
        Maps that have no weighted mean, where that is what is asked for.
    resampled
        Whether a region can be lost between the voxels of two grids.
    elsewhere : (R,) or None
        Regions that another layout of the atlas holds, and this one does not.
    overlapped : (R,) or None
        Share of each region that other atlases took, 0 to 1, NaN for none.

    Returns
    -------
    RegionQuality
    """
    no = np.zeros_like(coverage, dtype=bool)
    conditions = [
        no if overlapped is None else overlapped == 1,
        n_voxels_atlas == 0,
        (n_voxels_grid == 0) & (not resampled),
        n_voxels_grid == 0,
        n_voxels_mask == 0,
        n_voxels_finite == 0,
        n_voxels_used + n_voxels_dropout == 0,
        n_voxels_used == 0,
        coverage < min_coverage,
        no if weights_cancel is None else weights_cancel,
    ]
    words = np.select(conditions, list(STATUS)[:-1], default="ok")
    if elsewhere is not None:
        words[elsewhere & (words == "absent_from_atlas")] = "outside_data"
    return RegionQuality(
        n_voxels_atlas=n_voxels_atlas,
        n_voxels_grid=n_voxels_grid,
        n_voxels_mask=n_voxels_mask,
        n_voxels_dropout=n_voxels_dropout,
        n_voxels_used=n_voxels_used,
        coverage=coverage,
        coverage_grid=n_voxels_used / np.maximum(n_voxels_grid, 1),
        status=tuple(words.tolist()),
    )


def temporal_snr(
    mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Temporal signal-to-noise ratio: mean over time by standard deviation over time.

    Parameters
    ----------
    mean, deviation : (R,)
        Of the regional signals over time; the deviation with ddof 1.

    Returns
    -------
    (R,)
        NaN where the deviation is 0.

    References
    ----------
    Murphy, Bodurka & Bandettini (2007), doi:10.1016/j.neuroimage.2006.09.032.
    """
    return np.asarray(mean / np.where(deviation == 0, np.nan, deviation))
