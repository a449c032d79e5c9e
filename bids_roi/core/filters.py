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

__all__ = [
    "apply_butterworth",
    "butterworth_sections",
    "check_cutoffs",
    "cosine_drift",
    "drift_is_among",
    "interpolate_censored",
    "minimum_volumes",
    "remove_trend",
    "share_removed",
]

# A digital filter cannot cut at the Nyquist frequency itself (scipy#6265); nilearn
# lowers such a cut-off by ten steps of float32, and so do we.
_BELOW_NYQUIST = 1.0 - 10 * float(np.finfo(np.float32).eps)
# nilearn's: a confound this close to a generated cosine is taken to be one.
_SAME_DRIFT = 0.9
# Between 0 and Nyquist; the narrowest bands in use, 0.01 Hz of 1 Hz, hold 80 of them.
_N_FREQUENCIES = 8192


def remove_trend(signals: FloatArray) -> FloatArray:
    """Take the mean and the straight line out of each column.

    Parameters
    ----------
    signals : (T, R)
        Evenly spaced in time.

    Returns
    -------
    (T, R)
        A copy; zero where T is 1.

    Notes
    -----
    Least squares on an intercept and a slope; the centred time axis is orthogonal to
    the intercept, so one after the other is exact.

    >>> bool(np.allclose(remove_trend(np.array([[1.0], [3.0], [5.0]])), 0))
    True
    """
    n_volumes = signals.shape[0]
    time = np.arange(n_volumes) - (n_volumes - 1) / 2
    centred: FloatArray = signals - signals.mean(axis=0)
    if n_volumes > 1:
        time /= np.sqrt(time @ time)
        centred -= np.outer(time, time @ centred)
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
        As given, but a ``low_pass`` at or above the Nyquist frequency becomes the
        largest below it that a digital filter can have (nilearn's rule).

    Raises
    ------
    ValueError
        If the repetition time is missing or not positive, a cut-off is not positive,
        ``high_pass`` is not below ``low_pass`` or not below the Nyquist frequency.
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
        raise ValueError(
            f"high_pass is {high_pass:g} Hz, the highest frequency of a run sampled "
            f"every {repetition_time:g} s is {nyquist:g} Hz: nothing would be left"
        )
    if high_pass is not None and low_pass is not None and high_pass >= low_pass:
        raise ValueError(
            f"high_pass is {high_pass:g} Hz, must be below low_pass, {low_pass:g} Hz"
        )
    if low_pass is not None and low_pass >= nyquist:
        low_pass = nyquist * _BELOW_NYQUIST
    return high_pass, low_pass


def share_removed(sections: FloatArray) -> float:
    """Share of a series' degrees of freedom that a Butterworth filter takes away.

    Parameters
    ----------
    sections : (S, 6)
        From ``butterworth_sections``; applied forwards and backwards.

    Returns
    -------
    float
        0 to 1; for a filter with vertical edges, the share of the frequencies below
        Nyquist that it stops. With the slopes of a real one it is somewhat more.

    Notes
    -----
    Filtered white noise has the power spectrum S = |H|^4 (|H|^2 in each direction). The
    correlation of two such series of n volumes varies by sum(S^2) / (n sum(S)^2) times
    the number of frequencies, as if they had n sum(S)^2 / sum(S^2) / that number of
    independent volumes: Davey et al. (2013), doi:10.1016/j.neuroimage.2012.08.022,
    after Bartlett (1946), doi:10.2307/2983611. Exact away from the ends of the run;
    with them, 500 volumes have 5 to 15 % less left than this says.
    """
    angles = (np.arange(_N_FREQUENCIES) + 0.5) * (np.pi / _N_FREQUENCIES)
    delays = np.exp(-1j * np.outer(np.arange(3), angles))  # of 0, 1, 2 volumes
    response = (sections[:, :3] @ delays) / (sections[:, 3:] @ delays)
    power = np.abs(response.prod(axis=0)) ** 4
    return float(1 - power.mean() ** 2 / (power * power).mean())


def butterworth_sections(
    *,
    high_pass: float | None,
    low_pass: float | None,
    filter_order: int,
    repetition_time: float,
) -> FloatArray:
    """Design a Butterworth filter.

    Parameters
    ----------
    high_pass, low_pass : Hz
        As ``check_cutoffs`` returns them; at least one is not None.
    filter_order
        Of the low-pass prototype, 1 or more; a band-pass has twice as many poles, and
        filtering in both directions squares the gain.
    repetition_time : s

    Returns
    -------
    (S, 6)
        Second-order sections, which stay stable where the polynomial form does not.

    Raises
    ------
    ValueError
        If the order is below 1.

    Notes
    -----
    Butterworth (1930), On the theory of filter amplifiers, Experimental Wireless 7.
    """
    from scipy import signal

    if filter_order < 1:
        raise ValueError(f"filter_order is {filter_order}, must be 1 or more")
    cutoffs = [f for f in (high_pass, low_pass) if f is not None]
    kind = "low" if high_pass is None else "high" if low_pass is None else "bandpass"
    sections = signal.butter(
        filter_order,
        cutoffs if len(cutoffs) == 2 else cutoffs[0],
        btype=kind,
        output="sos",
        fs=1.0 / repetition_time,
    )
    return np.asarray(sections, dtype=np.float64)


def _n_padded(sections: FloatArray) -> int:
    """Volumes by which scipy's ``sosfiltfilt`` extends a series at each end."""
    # Sections of first order are stored with two zeros.
    n_zeros = min((sections[:, 2] == 0).sum(), (sections[:, 5] == 0).sum())
    return 3 * (2 * len(sections) + 1 - int(n_zeros))


def minimum_volumes(sections: FloatArray) -> int:
    """Shortest series that a filter can be applied to.

    Parameters
    ----------
    sections : (S, 6)

    Returns
    -------
    int
        Volumes, first to last kept; 19 for nilearn's low- or high-pass of order 5 and
        34 for its band-pass.
    """
    return _n_padded(sections) + 1


def apply_butterworth(signals: FloatArray, sections: FloatArray) -> FloatArray:
    """Filter each column forwards and backwards, without delay.

    Parameters
    ----------
    signals : (T, R)
        Finite.
    sections : (S, 6)
        From ``butterworth_sections``.

    Returns
    -------
    (T, R)
        A copy.

    Raises
    ------
    ValueError
        If the series is shorter than ``minimum_volumes``.

    Notes
    -----
    Gustafsson (1996), doi:10.1109/78.492552, in scipy's default form: odd extension by
    three times the length of the filter, and steady-state initial conditions.
    """
    from scipy import signal

    n_volumes, needed = signals.shape[0], minimum_volumes(sections)
    if n_volumes < needed:
        raise ValueError(
            f"{n_volumes} volumes from the first to the last kept one, "
            f"the filter needs {needed}"
        )
    if signals.shape[1] == 0:
        return signals.copy()
    padlen = _n_padded(sections)
    filtered = signal.sosfiltfilt(sections, signals, axis=0, padlen=padlen)
    return np.asarray(filtered, dtype=np.float64)


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


def drift_is_among(drift: FloatArray, confounds: FloatArray) -> bool:
    """Tell whether the confounds hold slow cosines already (nilearn's rule).

    Parameters
    ----------
    drift : (T, K)
    confounds : (T, C)
        Volumes with a NaN or infinity are left out.

    Returns
    -------
    bool
        True if any pair of columns correlates above 0.9 (not below -0.9).
    """
    rows = np.isfinite(confounds).all(axis=1)
    if rows.sum() < 2:
        return False
    unit = []
    for columns in (drift[rows], confounds[rows]):
        centred = columns - columns.mean(axis=0)
        norms = np.sqrt((centred * centred).sum(axis=0))
        norms[norms == 0] = np.inf  # constant: correlates with nothing
        unit.append(centred / norms)
    return bool((unit[0].T @ unit[1] > _SAME_DRIFT).any())


def interpolate_censored(signals: FloatArray, sample_mask: BoolArray) -> FloatArray:
    """Values for the censored volumes between the first and the last kept one.

    Parameters
    ----------
    signals : (T, R)
        Kept volumes finite; whatever the censored ones hold has no influence.
    sample_mask : (T,) bool
        True for kept; the first and the last are kept: nothing is extrapolated.

    Returns
    -------
    (n_censored, R)

    Raises
    ------
    ValueError
        If the first or the last volume is censored.

    Notes
    -----
    Cubic spline through the kept volumes, third derivative continuous next to the
    ends ("not-a-knot"): de Boor (1978), A Practical Guide to Splines,
    doi:10.1007/978-1-4612-6333-3. The same as nilearn documents, and XCP-D does.
    """
    kept, censored = np.flatnonzero(sample_mask), np.flatnonzero(~sample_mask)
    if censored.size == 0 or signals.shape[1] == 0:
        return np.zeros((censored.size, signals.shape[1]))
    if not (sample_mask[0] and sample_mask[-1]):
        raise ValueError("the first and the last volume must be kept: no extrapolation")
    from scipy import interpolate

    spline = interpolate.CubicSpline(kept, signals[kept], extrapolate=False)
    return np.asarray(spline(censored), dtype=np.float64)
