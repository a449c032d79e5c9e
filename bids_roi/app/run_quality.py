"""Quality of a run and series as a whole: motion, what is kept, what is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.motion import correlate_quality, regional_dvars
from bids_roi.errors import BidsRoiError, ConfoundsError
from bids_roi.io.confounds.table import (
    framewise_displacement,
    non_steady_state,
    read_confounds,
    std_dvars,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bids_roi.core.quality import RegionQuality
    from bids_roi.io.confounds.table import Confounds
    from bids_roi.io.dataset.layout import BoldRun

__all__ = ["Motion", "describe_quality", "read_motion"]


@dataclass(frozen=True, slots=True)
class Motion:
    """What the table of confounds tells of a run's motion.

    Attributes
    ----------
    fd, std_dvars : (T,) or None
        Framewise displacement in mm and standardised DVARS; ``None`` where not told.
    steady : (T,) or None
        Volumes that are not flagged as non-steady state; ``None`` where nothing tells.
    notes
        Why the table could not be used.
    """

    fd: NDArray[np.float64] | None = None
    std_dvars: NDArray[np.float64] | None = None
    steady: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()


def read_motion(run: BoldRun, n_volumes: int) -> Motion:
    """Read a run's motion; a table that cannot be used costs a note only.

    Parameters
    ----------
    run
        Its confounds are read where it has any.
    n_volumes
        Of the BOLD file, T.
    """
    if run.confounds_path is None:
        return Motion()
    try:
        confounds = read_confounds(run.confounds_path, n_volumes)
    except BidsRoiError as error:
        return Motion(notes=(f"motion is not reported: {error}",))
    fd = _optional(framewise_displacement, confounds)
    dvars = _optional(std_dvars, confounds)
    if confounds.n_volumes != n_volumes:
        note = (
            f"motion is not reported: {run.confounds_path.name} has"
            f" {confounds.n_volumes} rows, the run {n_volumes} volumes."
        )
        return Motion(notes=(note,))
    steady = ~non_steady_state(confounds)
    # A deviation over time needs two.
    return Motion(fd, dvars, steady if steady.sum() > 1 else None)


def _optional(
    read: Callable[[Confounds], NDArray[np.float64]], confounds: Confounds
) -> NDArray[np.float64] | None:
    """A column of the table, ``None`` where it is absent or empty."""
    try:
        values = read(confounds)
    except ConfoundsError:
        return None
    return values if np.isfinite(values).any() else None


def describe_quality(
    kept_signals: NDArray[np.float64],
    sample_mask: NDArray[np.bool_],
    motion: Motion,
    quality: RegionQuality,
    *,
    repetition_time: float | None,
) -> dict[str, Any]:
    """Sidecar keys of a series' quality.

    Parameters
    ----------
    kept_signals : (n_kept, R)
        The series.
    sample_mask : (T,)
        Which volumes of the run they are.
    motion
        Of the run.
    quality
        Of its regions.
    repetition_time
        Seconds.
    """
    n_kept = int(sample_mask.sum())
    facts: dict[str, Any] = {"NumberOfVolumesKept": n_kept}
    if repetition_time is not None:
        facts["SecondsKept"] = round(n_kept * repetition_time, 3)
    facts["MeanCoverage"] = round(float(quality.coverage.mean()), 6)
    lost = ~quality.has_voxels | np.isnan(kept_signals).all(axis=0)
    facts["NumberOfRegionsLost"] = int(lost.sum())
    fd = motion.fd
    if fd is None:
        return facts
    facts["MeanFramewiseDisplacement"] = round(float(np.nanmean(fd)), 6)
    facts["MaxFramewiseDisplacement"] = round(float(np.nanmax(fd)), 6)
    if np.isfinite(fd[sample_mask]).any():
        mean = float(np.nanmean(fd[sample_mask]))
        facts["MeanFramewiseDisplacementKept"] = round(mean, 6)
    if motion.std_dvars is not None:
        value = correlate_quality(fd, motion.std_dvars)
        if value is not None:
            facts["FDDVARSCorrelation"] = round(value, 6)
    value = correlate_quality(fd, regional_dvars(kept_signals, sample_mask))
    if value is not None:
        facts["FDRegionalDVARSCorrelation"] = round(value, 6)
    return facts
