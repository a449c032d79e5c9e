"""How much the head moved, and how much of that the signals show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


def regional_dvars(
    signals: FloatArray,
    sample_mask: NDArray[np.bool_],
    deviation: FloatArray | None = None,
) -> FloatArray:
    """Root mean square over the regions of the change from volume to volume.

    Parameters
    ----------
    signals : (n_kept, R)
        Kept volumes; NaN columns for lost regions, which do not count.
    sample_mask : (T,)
        Which volumes of the run are kept.
    deviation : (R,), optional
        What a region's changes are measured in; by default its standard deviation.

    Returns
    -------
    (T,)
        Of the signals of the regions over their deviations; NaN for
        the first volume, for volumes that are not kept and for those after a gap.

    Notes
    -----
    DVARS of Power et al. (2012), doi:10.1016/j.neuroimage.2011.10.018, over regions
    instead of voxels.
    """
    dvars = np.full(sample_mask.size, np.nan)
    if deviation is None:
        empty = np.full(signals.shape[1], 0.0)
        deviation = signals.std(axis=0) if len(signals) else empty
    used = np.isfinite(deviation) & (deviation > 0)
    kept = np.flatnonzero(sample_mask)
    if not used.any() or kept.size < 2:
        return dvars
    scaled = signals[:, used] / deviation[used]
    change = np.sqrt((np.diff(scaled, axis=0) ** 2).mean(axis=1))
    neighbours = np.diff(kept) == 1
    dvars[kept[1:][neighbours]] = change[neighbours]
    return dvars


def correlate_quality(one: FloatArray, other: FloatArray) -> float | None:
    """Pearson's correlation of two quality traces over the volumes that both have.

    Parameters
    ----------
    one, other : (T,)
        NaN for volumes without a value.

    Returns
    -------
    float or None
        ``None`` for fewer than 3 volumes, or where one does not vary.

    >>> nan = float("nan")
    >>> correlate_quality(np.array([nan, 1, 2, 3]), np.array([5.0, 2, 4, 6]))
    1.0
    """
    both = np.isfinite(one) & np.isfinite(other)
    if both.sum() < 3 or np.ptp(one[both]) == 0 or np.ptp(other[both]) == 0:
        return None
    value = float(np.corrcoef(one[both], other[both])[0, 1])
    return min(1.0, max(-1.0, round(value, 12)))
