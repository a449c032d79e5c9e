"""Trends, frequencies and gaps: what is taken out of a series over time.

Every function treats the columns of a (T, R) array alike and apart, so that signals and
confounds can go through it side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


# A digital filter cannot cut at the Nyquist frequency itself (scipy#6265): a cut-off
# that is no further below it than ten steps of float32 counts as being at it.
_BELOW_NYQUIST = 1.0 - 10 * float(np.finfo(np.float32).eps)
# Of a cosine's own length; tables of confounds hold nine digits or more.
_SAME_DRIFT = 1e-6


class CutoffError(ValueError):
    """The cut-offs leave nothing of a run, whatever else is done with it."""


def remove_trend(signals: FloatArray, times: FloatArray | None = None) -> FloatArray:
    """Take the mean and the straight line out of each column.

    Parameters
    ----------
    signals : (T, R)
        Volumes in the order of time.
    times : (T,), any unit
        When each volume was; None for evenly spaced ones.

    Returns
    -------
    (T, R)
        A copy; zero where T is 1.

    Notes
    -----
    Least squares on an intercept and a slope; the centred time axis is orthogonal to
    the intercept, so one after the other is exact.

    >>> line = np.array([[1.0], [3.0], [9.0]])
    >>> bool(np.allclose(remove_trend(line, np.array([0.0, 1.0, 4.0])), 0))
    True
    """
    n_volumes = signals.shape[0]
    centred: FloatArray = signals - signals.mean(axis=0)
    if n_volumes > 1:
        times = np.arange(n_volumes, dtype=np.float64) if times is None else times
        line = times - times.mean()
        line /= np.sqrt(line @ line)
        centred -= np.outer(line, line @ centred)
    return centred


def check_cutoffs(
    *, high_pass: float | None, low_pass: float | None, repetition_time: float | None
) -> tuple[float | None, float | None]:
    """Hold the cut-offs of a filter against the sampling of the run.

    Parameters
    ----------
    high_pass, low_pass : Hz
        None for off.
    repetition_time : s
        None if unknown, which only matters when there is a cut-off.

    Returns
    -------
    high_pass, low_pass : Hz
        As they can be applied: ``low_pass`` is None at or above the Nyquist frequency,
        where there is nothing for it to take out.

    Raises
    ------
    ValueError
        If the repetition time is missing or not positive, or a cut-off is not positive.
    CutoffError
        If ``high_pass`` is not below ``low_pass`` or not below the Nyquist frequency.
    """
    if high_pass is None and low_pass is None:
        return None, None
    if repetition_time is None:
        raise ValueError("a temporal filter needs the repetition time, which is absent")
    if not (np.isfinite(repetition_time) and repetition_time > 0):
        raise ValueError(f"repetition_time is {repetition_time} s, must be above 0 s")
    for word, cutoff in (("high_pass", high_pass), ("low_pass", low_pass)):
        if cutoff is not None and not (np.isfinite(cutoff) and cutoff > 0):
            raise ValueError(f"{word} is {cutoff} Hz, must be above 0 Hz")
    nyquist = 0.5 / repetition_time
    if high_pass is not None and high_pass >= nyquist * _BELOW_NYQUIST:
        raise CutoffError(
            f"high_pass is {high_pass:g} Hz, the highest frequency of a run sampled "
            f"every {repetition_time:g} s is {nyquist:g} Hz: nothing would be left"
        )
    if high_pass is not None and low_pass is not None and high_pass >= low_pass:
        raise CutoffError(
            f"high_pass is {high_pass:g} Hz, must be below low_pass, {low_pass:g} Hz"
        )
    if low_pass is not None and low_pass >= nyquist * _BELOW_NYQUIST:
        low_pass = None
    return high_pass, low_pass


def cosine_drift(
    n_volumes: int, *, high_pass: float, repetition_time: float
) -> FloatArray:
    """Slow cosines, whose regression is a high-pass filter.

    Parameters
    ----------
    n_volumes
        T of the whole run, censored volumes included.
    high_pass : Hz
    repetition_time : s

    Returns
    -------
    (T, K)
        K = floor(2 T high_pass repetition_time) columns of norm 1 and mean 0, the k-th
        with k half periods; none if the run is too short for one.

    Notes
    -----
    DCT-II: Ahmed, Natarajan & Rao (1974), doi:10.1109/T-C.1974.223784; as a high-pass:
    SPM, and nilearn, whose way of counting is followed to the last bit.
    """
    if n_volumes < 2:
        return np.zeros((n_volumes, 0))
    # Not simply repetition_time: the floor below would differ from nilearn's by
    # rounding for some runs.
    step = (n_volumes - 1) * repetition_time / (n_volumes - 1)
    count = min(n_volumes - 1, int(np.floor(2 * n_volumes * high_pass * step)))
    angles = (np.pi / n_volumes) * (np.arange(n_volumes) + 0.5)
    drift = np.cos(np.outer(angles, np.arange(1, count + 1)))
    return np.asarray(np.sqrt(2.0 / n_volumes) * drift)


def missing_drift(
    drift: FloatArray, confounds: FloatArray, sample_mask: BoolArray
) -> FloatArray:
    """Slow cosines that the confounds do not hold already, as fMRIPrep's may.

    Parameters
    ----------
    drift : (T, K)
        From ``cosine_drift``.
    confounds : (T, C)
        Finite in the kept volumes.
    sample_mask : (T,) bool
        True for kept.

    Returns
    -------
    (T, 0 to K)
        Without the cosines that a constant and the confounds together make, over the
        kept volumes. One that merely resembles a confound stays: what the two share is
        taken out once, and nothing is missing from the high-pass filter.
    """
    from scipy import linalg

    n_kept = int(sample_mask.sum())
    table = np.hstack([np.ones((n_kept, 1)), confounds[sample_mask]])
    norms = np.sqrt((table * table).sum(axis=0))
    q, r, _ = linalg.qr(
        table / np.where(norms == 0, 1, norms), mode="economic", pivoting=True
    )
    diagonal = np.abs(np.diag(r))
    q = q[:, : int((diagonal > _SAME_DRIFT * diagonal[0]).sum())]
    kept = drift[sample_mask]
    rest = kept - q @ (q.T @ kept)
    held = (rest * rest).sum(axis=0) <= _SAME_DRIFT**2 * (kept * kept).sum(axis=0)
    return np.asarray(drift[:, ~held])
