"""How much the head moved, without breathing, and how much the signals show of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.butterworth import apply_butterworth, butterworth_sections

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


# XCP-D's default, counted as filtering in both directions gives it: a low-pass of order
# 2, or one notch, which has order 2 by itself.
MOTION_FILTER_ORDER = 4


def framewise_displacement(parameters: FloatArray, head_radius: float) -> FloatArray:
    """How far the head moved from volume to volume.

    Parameters
    ----------
    parameters : (T, 6)
        Translations in mm, then rotations in radians.
    head_radius : mm
        Of the sphere on whose surface rotations are measured; 50 in fMRIPrep.

    Returns
    -------
    (T,), mm
        NaN for the first volume.

    Notes
    -----
    Power et al. (2012), doi:10.1016/j.neuroimage.2011.10.018: the sum of the absolute
    changes.

    >>> moved = np.array([[0, 0, 0, 0, 0, 0], [0.1, 0, -0.2, 0.01, 0, 0]])
    >>> framewise_displacement(moved, 50.0).round(6).tolist()
    [nan, 0.8]
    """
    scale = np.array([1.0, 1.0, 1.0, head_radius, head_radius, head_radius])
    change = np.abs(np.diff(parameters * scale, axis=0)).sum(axis=1)
    return np.concatenate([[np.nan], change])


def fold_frequencies(
    frequencies: tuple[float, ...], repetition_time: float
) -> tuple[float, ...]:
    """Where frequencies appear in a run that is sampled too slowly for them.

    Parameters
    ----------
    frequencies : per minute
    repetition_time : s

    Returns
    -------
    tuple, per minute
        From 0 to the Nyquist frequency; those below it are as they were.

    Notes
    -----
    Aliasing, as XCP-D has it: the distance from the nearest multiple of the sampling
    frequency.

    >>> fold_frequencies((12.0, 16.0, 40.0), 2.0)  # up to 15 per minute
    (12.0, 14.0, 10.0)
    """
    sampling = 60 / repetition_time
    return tuple(
        f
        if f <= sampling / 2
        else abs(f - np.floor((f + sampling / 2) / sampling) * sampling).item()
        for f in frequencies
    )


def filter_motion(
    parameters: FloatArray, band: tuple[float, ...], repetition_time: float
) -> FloatArray:
    """Take breathing out of the parameters of head motion.

    Parameters
    ----------
    parameters : (T, P)
        Finite.
    band : per minute
        Of two, what lies between them goes (notch); of one, what lies above (low-pass).
        As ``fold_frequencies`` returns them.
    repetition_time : s

    Returns
    -------
    (T, P)

    Raises
    ------
    ValueError
        The band is empty, or does not lie between 0 and the Nyquist frequency; or there
        are fewer than 2 volumes.

    Notes
    -----
    Notch: Fair et al. (2020), doi:10.1016/j.neuroimage.2019.116400, a second-order
    filter at the middle of the band, as wide as the band (-3 dB in each direction).
    Low-pass: Gratton et al. (2020), doi:10.1016/j.neuroimage.2020.116866, Butterworth.
    Both as XCP-D applies them: forwards and backwards, the series going on at its first
    and last value for T - 1 volumes.
    """
    from scipy import signal

    hertz = [f / 60 for f in band]
    nyquist = 0.5 / repetition_time
    middle, width = sum(hertz) / len(hertz), abs(hertz[-1] - hertz[0])
    if not 0 < middle < nyquist * (1 - 1e-6):
        raise ValueError(
            f"a motion filter at {60 * middle:g} per minute is not between 0 and the"
            f" {60 * nyquist:g} that a run sampled every {repetition_time:g} s can show"
        )
    if len(band) == 1:
        sections = butterworth_sections(
            high_pass=None,
            low_pass=middle,
            filter_order=MOTION_FILTER_ORDER // 2,
            repetition_time=repetition_time,
        )
    elif width < 1e-6 * nyquist:
        raise ValueError(
            f"both ends of the motion filter's band appear at {60 * middle:g} per"
            f" minute in a run sampled every {repetition_time:g} s"
        )
    else:
        b, a = signal.iirnotch(middle, middle / width, fs=1 / repetition_time)
        sections = np.concatenate([b, a])[np.newaxis]
    return apply_butterworth(parameters, sections, "constant")


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
