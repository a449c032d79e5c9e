"""Trends, frequencies and gaps: what is taken out of a series over time.

Every function treats the columns of a (T, R) array alike and apart, so that signals and
confounds can go through it side by side. The Butterworth filter is for those who want
nilearn's or XCP-D's way. How gaps are filled before it, and how a series goes on beyond
its ends, decides as much as the order of the filter: both are settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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


Interpolation = Literal["linear", "cubic_spline"]
Padding = Literal["odd", "constant"]
Ends = Literal["cut", "nearest"]

# Between 0 and Nyquist; the narrowest bands in use, 0.01 Hz of 1 Hz, hold 80 of them.
_N_FREQUENCIES = 8192


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
    after Bartlett (1946), doi:10.2307/2983611. Exact for an endless run without gaps:
    ends and gaps of a real one take more (``freedom`` counts them).
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


def minimum_volumes(sections: FloatArray, padding: Padding) -> int:
    """Shortest series that a filter can be applied to.

    Parameters
    ----------
    sections : (S, 6)
    padding
        As for ``apply_butterworth``.

    Returns
    -------
    int
        Volumes, first to last kept; 19 for nilearn's low- or high-pass of order 5 and
        34 for its band-pass; 2 with ``constant`` padding.
    """
    return _n_padded(sections) + 1 if padding == "odd" else 2


def apply_butterworth(
    signals: FloatArray, sections: FloatArray, padding: Padding
) -> FloatArray:
    """Filter each column forwards and backwards, without delay.

    Parameters
    ----------
    signals : (T, R)
        Finite.
    sections : (S, 6)
        From ``butterworth_sections``.
    padding
        How a series goes on before its first and after its last volume. ``odd``: as its
        own point reflection, three times the length of the filter (scipy, nilearn).
        ``constant``: at its first and last value, T - 1 volumes (XCP-D).

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
    Steady-state initial conditions at either end (``scipy.signal.sosfiltfilt``).
    """
    from scipy import signal

    n_volumes, needed = signals.shape[0], minimum_volumes(sections, padding)
    if n_volumes < needed:
        raise ValueError(
            f"{n_volumes} volumes from the first to the last kept one, "
            f"the filter needs {needed}"
        )
    if signals.shape[1] == 0:
        return signals.copy()
    filtered = signal.sosfiltfilt(
        sections,
        signals,
        axis=0,
        padtype=padding,
        padlen=_n_padded(sections) if padding == "odd" else n_volumes - 1,
    )
    return np.asarray(filtered, dtype=np.float64)


def interpolate_censored(
    signals: FloatArray,
    sample_mask: BoolArray,
    interpolation: Interpolation,
    times: FloatArray | None = None,
) -> FloatArray:
    """Values for the censored volumes between the first and the last kept one.

    Parameters
    ----------
    signals : (T, R)
        Kept volumes finite; whatever the censored ones hold has no influence.
    sample_mask : (T,) bool
        True for kept; the first and the last are kept: nothing is extrapolated.
    interpolation
        ``linear``: the straight line between the two nearest kept volumes.
        ``cubic_spline``: through all kept volumes, third derivative continuous next to
        the ends ("not-a-knot"), as nilearn documents it and XCP-D does it. Through
        noise it leaves the range of the data in long gaps.
    times : (T,), any unit
        When each volume was; None for evenly spaced ones.

    Returns
    -------
    (n_censored, R)

    Raises
    ------
    ValueError
        If the first or the last volume is censored.

    Notes
    -----
    de Boor (1978), A Practical Guide to Splines, doi:10.1007/978-1-4612-6333-3.
    """
    kept, censored = np.flatnonzero(sample_mask), np.flatnonzero(~sample_mask)
    if censored.size == 0 or signals.shape[1] == 0:
        return np.zeros((censored.size, signals.shape[1]))
    if not (sample_mask[0] and sample_mask[-1]):
        raise ValueError("the first and the last volume must be kept: no extrapolation")
    if times is None:
        times = np.arange(sample_mask.size, dtype=np.float64)
    if interpolation == "linear":
        after = np.searchsorted(kept, censored)
        left, right = kept[after - 1], kept[after]
        passed = times[censored] - times[left]
        share = (passed / (times[right] - times[left]))[:, np.newaxis]
        return np.asarray((1 - share) * signals[left] + share * signals[right])
    from scipy import interpolate

    spline = interpolate.CubicSpline(times[kept], signals[kept], extrapolate=False)
    return np.asarray(spline(times[censored]), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Butterworth:
    """A Butterworth filter for one run: gaps, trend, filter.

    Attributes
    ----------
    sample_mask : (T,) bool
        True for kept.
    sections : (S, 6)
        From ``butterworth_sections``.
    interpolation, padding
        How gaps are filled and ends extended.
    ends
        What becomes of censored volumes before the first and after the last kept one.
        ``cut``: they are left out (nilearn). ``nearest``: they take its values (XCP-D).
    detrend
        Whether mean and straight line are taken out of the filled series.
    n_dummy
        Volumes at the start that are not steady; never filled.
    """

    sample_mask: BoolArray
    sections: FloatArray
    interpolation: Interpolation
    padding: Padding
    ends: Ends
    detrend: bool
    n_dummy: int

    @property
    def rows(self) -> slice:
        """Volumes that go through the filter."""
        if self.ends == "nearest":
            return slice(self.n_dummy, self.sample_mask.size)
        kept = np.flatnonzero(self.sample_mask)
        return slice(int(kept[0]), int(kept[-1]) + 1)

    @property
    def kept(self) -> BoolArray:
        """Which of the volumes that ``apply`` returns are kept, (t,) bool."""
        return self.sample_mask[self.rows]

    def apply(self, series: FloatArray) -> FloatArray:
        """Filter each column, (T, C) -> (t, C); censored volumes have no influence."""
        kept = np.flatnonzero(self.sample_mask)
        inside = slice(int(kept[0]), int(kept[-1]) + 1)
        mask = self.sample_mask[inside]
        filled = series.astype(np.float64)
        between = filled[inside]
        between[~mask] = interpolate_censored(between, mask, self.interpolation)
        filled[: inside.start] = filled[inside.start]
        filled[inside.stop :] = filled[inside.stop - 1]
        filled = filled[self.rows]
        if self.detrend:
            filled = remove_trend(filled)
        return apply_butterworth(filled, self.sections, self.padding)
