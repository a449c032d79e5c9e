"""Which volumes are left out, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


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

    Returns
    -------
    Censoring

    Raises
    ------
    ValueError
        If lengths differ, a count is negative, or a threshold has no values to act on.
    """
    for word, count in {
        "scrub": scrub,
        "before": before,
        "after": after,
        "n_dummy": n_dummy,
    }.items():
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
