"""Head motion: displacement, breathing in it, traces of it, volumes left out for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.filters import apply_butterworth, butterworth_sections

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


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
    signals: FloatArray, sample_mask: BoolArray, deviation: FloatArray | None = None
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


@dataclass(frozen=True, slots=True)
class Censoring:
    """Reasons per volume, all (T,) bool; a volume may have several.

    Attributes
    ----------
    dummy
        Not in a steady state yet, or among the first ``n_dummy``.
    fd
        Framewise displacement above its threshold.
    std_dvars
        Standardised DVARS above its threshold.
    neighbour
        Close to one of the last two, but not one itself.
    short_segment
        None of the last three, but between them in a stretch that is too short.
    """

    dummy: BoolArray
    fd: BoolArray
    std_dvars: BoolArray
    neighbour: BoolArray
    short_segment: BoolArray

    @property
    def sample_mask(self) -> BoolArray:
        """True for kept, (T,)."""
        motion = self.fd | self.std_dvars | self.neighbour | self.short_segment
        return ~(self.dummy | motion)

    @property
    def n_dummy(self) -> int:
        """Dummy volumes at the very start."""
        steady = np.flatnonzero(~self.dummy)
        return int(steady[0]) if steady.size else int(self.dummy.size)

    @property
    def share(self) -> float:
        """Share of the steady volumes that is left out; 0 where none is steady."""
        n_steady = int((~self.dummy).sum())
        # One division: 29 of 100 are then the number 0.29, as it is typed.
        left_out = n_steady - int(self.sample_mask.sum())
        return left_out / n_steady if n_steady else 0.0

    @property
    def gaps(self) -> tuple[int, ...]:
        """Volumes of each stretch of censored ones between two kept ones."""
        kept = np.flatnonzero(self.sample_mask)
        between = np.diff(kept) - 1
        return tuple(between[between > 0].tolist())


def censor(
    fd: FloatArray | None,
    std_dvars: FloatArray | None,
    non_steady_state: BoolArray | None,
    *,
    n_volumes: int,
    fd_threshold: float | None,
    std_dvars_threshold: float | None,
    scrub: int,
    before: int,
    after: int,
    n_dummy: int,
) -> Censoring:
    """Mark the volumes to leave out.

    Parameters
    ----------
    fd : (T,), mm
        Framewise displacement (Power et al. 2012, doi:10.1016/j.neuroimage.2011.10.018)
        NaN, as in the first volume, is below any threshold. None if not at hand.
    std_dvars : (T,), 1
        Standardised DVARS (Nichols 2017, arXiv:1704.01469); NaN and None likewise.
    non_steady_state : (T,) bool
        Volumes that fMRIPrep flags; None to ignore them.
    n_volumes
        T.
    fd_threshold : mm
        Volumes strictly above are censored; None for off.
    std_dvars_threshold : 1
        Likewise; None for off.
    scrub : volumes
        Stretches between motion outliers, or between one and either end of the run,
        that are shorter than this are censored as well (Power et al. 2014,
        doi:10.1016/j.neuroimage.2013.08.048: 5); 0 or 1 for none. As in nilearn, dummy
        volumes do not count as outliers here, and a run without any outlier is one
        stretch of sufficient length.
    before, after : volumes
        How many neighbours of each FD or DVARS outlier go with it (Power et al. 2012:
        1 and 2). They delimit stretches like outliers.
    n_dummy : volumes
        Dummy scans at the start, in addition to ``non_steady_state``.

    Raises
    ------
    ValueError
        If lengths differ, a count is negative, or a threshold has no values to act on.
    """
    counts = {"scrub": scrub, "before": before, "after": after, "n_dummy": n_dummy}
    for word, count in counts.items():
        if count < 0:
            raise ValueError(f"{word} is {count} volumes, must be 0 or more")
    dummy = np.arange(n_volumes) < n_dummy
    if non_steady_state is not None:
        _check_length("non_steady_state", non_steady_state, n_volumes)
        dummy |= non_steady_state
    moved = _above("fd", fd, fd_threshold, n_volumes)
    changed = _above("std_dvars", std_dvars, std_dvars_threshold, n_volumes)
    outlier = moved | changed
    neighbour = np.zeros(n_volumes, dtype=bool)
    for volume in np.flatnonzero(outlier):
        neighbour[max(volume - before, 0) : volume + after + 1] = True
    neighbour &= ~outlier
    short = _short_segments(outlier | neighbour, scrub)
    return Censoring(dummy, moved, changed, neighbour, short)


def _check_length(word: str, values: FloatArray | BoolArray, n_volumes: int) -> None:
    if values.shape != (n_volumes,):
        raise ValueError(
            f"{word} has shape {values.shape}, the run {n_volumes} volumes"
        )


def _above(
    word: str, values: FloatArray | None, threshold: float | None, n_volumes: int
) -> BoolArray:
    """Compare strictly; off without a threshold."""
    if threshold is None:
        return np.zeros(n_volumes, dtype=bool)
    if values is None:
        raise ValueError(f"{word}_threshold is {threshold:g}, but there is no {word}")
    _check_length(word, values, n_volumes)
    return np.asarray(values > threshold)  # NaN is not above anything


def _short_segments(outlier: BoolArray, scrub: int) -> BoolArray:
    """Mark stretches without outlier that are shorter than ``scrub``."""
    short = np.zeros(outlier.size, dtype=bool)
    if not outlier.any():
        return short
    edges = np.diff(outlier.astype(np.int8), prepend=1, append=1)
    starts, stops = np.flatnonzero(edges == -1), np.flatnonzero(edges == 1)
    for start, stop in zip(starts, stops, strict=True):
        if stop - start < scrub:
            short[start:stop] = True
    return short
