"""Orthogonal projections: slow terms and confounds taken out, a pass band kept.

The pass band is fitted, not convolved: sines and cosines on the frequency grid of the
whole run, by least squares to the kept volumes, beside mean, line and the cosines that
are slower than the band. So there is no gap to fill and no end to extend, any censoring
will do, and what is left has as many degrees of freedom as the basis has columns. It is
the idea of least-squares spectra (Mathias et al. 2004, doi:10.18637/jss.v011.i02) and
of Power et al. (2014), doi:10.1016/j.neuroimage.2013.08.048, without filling the gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.filters import CutoffError, cosine_drift

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


# A pattern of the band with less of its energy than this in the kept volumes, and apart
# from the slow terms, lies in a gap: fitting it lets noise from outside the band pass
# and finds no more of what is inside (docs/numbers.md has the measurement).
_SEEN = 0.1
# Of the largest singular value: columns that are no longer independent.
_DEPENDENT = 1e-10
# Cut-offs are themselves part of the band, whatever the last digit of a product.
_EDGE = 1e-9


@dataclass(frozen=True, slots=True)
class Projection:
    """An orthogonal projection of the kept volumes.

    Attributes
    ----------
    sample_mask : (T,) bool
        True for kept.
    slow : (n_kept, S)
        Orthonormal; taken out.
    band : (n_kept, K) or None
        Orthonormal and orthogonal to ``slow``; all else is taken out. None for all.
    holds_mean
        Whether the mean is among the slow terms.
    n_unseen
        Patterns of the band that lie in gaps or among the slow terms: left out.
    outside_share
        0 to 1; how much of white noise that passes is from outside the band. Without
        gaps next to nothing; with them, what is fitted to fewer volumes.
    """

    sample_mask: BoolArray
    slow: FloatArray
    band: FloatArray | None = None
    holds_mean: bool = False
    n_unseen: int = 0
    outside_share: float = 0.0

    @property
    def kept(self) -> BoolArray:
        """Every volume that ``apply`` returns is kept, (n_kept,) bool."""
        return np.ones(self.slow.shape[0], dtype=bool)

    @property
    def dimensions(self) -> int:
        """How many independent values are left of n_kept."""
        if self.band is not None:
            return int(self.band.shape[1])
        return int(self.slow.shape[0] - self.slow.shape[1])

    def apply(self, series: FloatArray) -> FloatArray:
        """Project each column, (T, C) -> (n_kept, C)."""
        kept = series[self.sample_mask].astype(np.float64)
        if self.band is None and self.slow.shape[1] == 0:
            return kept
        means = kept.mean(axis=0)
        # Without the mean, so that no digits go with it.
        rest = kept - means
        rest -= self.slow @ (self.slow.T @ rest)
        if self.band is not None:
            rest = self.band @ (self.band.T @ rest)
        return np.asarray(rest if self.holds_mean else rest + means)


def take_out_trend(
    sample_mask: BoolArray, times: FloatArray | None = None, *, detrend: bool
) -> Projection:
    """Project mean and straight line out, or nothing.

    Parameters
    ----------
    sample_mask : (T,) bool
        True for kept.
    times : (T,), any unit
        When each volume was; None for evenly spaced ones.
    detrend
        Whether there is anything to take out.

    Returns
    -------
    Projection
        The line is straight in time: volumes keep their places, whatever is censored
        between them.
    """
    n_kept = int(sample_mask.sum())
    if not detrend:
        return Projection(sample_mask, np.zeros((n_kept, 0)))
    slow = _independent(_mean_and_line(sample_mask.size, times)[sample_mask])
    return Projection(sample_mask, slow, holds_mean=True)


def fit_pass_band(
    sample_mask: BoolArray,
    *,
    high_pass: float | None,
    low_pass: float | None,
    repetition_time: float,
    detrend: bool,
) -> Projection:
    """Project onto the frequencies from ``high_pass`` to ``low_pass``.

    Parameters
    ----------
    sample_mask : (T,) bool
        True for kept.
    high_pass, low_pass : Hz
        As ``check_cutoffs`` returns them; at least one is not None.
    repetition_time : s
    detrend
        Whether mean and line are taken out where there is no ``high_pass``, which
        always takes them.

    Returns
    -------
    Projection
        U U' with U an orthonormal basis of the pass band, after mean, line and slower
        cosines are taken out of it. A high-pass alone takes out these only.

    Raises
    ------
    CutoffError
        If the run is too short to hold a frequency of the band.
    ValueError
        If volumes are censored and too few are kept to tell the band from what is
        faster.
    """
    n_volumes = sample_mask.size
    slow = np.zeros((n_volumes, 0))
    trend = _mean_and_line(n_volumes)
    if high_pass is not None:
        drift = cosine_drift(
            n_volumes, high_pass=high_pass, repetition_time=repetition_time
        )
        # The cosine at the cut-off is none of the slower ones: it would take a wave of
        # that frequency, which is to be kept, out of the band.
        frequencies = np.arange(1, drift.shape[1] + 1) / (
            2 * n_volumes * repetition_time
        )
        slow = np.hstack([trend, drift[:, frequencies < high_pass * (1 - _EDGE)]])
    elif detrend:
        slow = trend
    taken = _independent(slow[sample_mask])
    holds_mean = slow.shape[1] > 0
    if low_pass is None:
        return Projection(sample_mask, taken, holds_mean=holds_mean)
    waves = list_waves(n_volumes, high_pass, low_pass, repetition_time)
    if not holds_mean:
        taken = _independent(trend[sample_mask])
    return _project(sample_mask, taken, waves, keep_slow=not holds_mean)


def _project(
    sample_mask: BoolArray, slow: FloatArray, waves: FloatArray, *, keep_slow: bool
) -> Projection:
    """Projection onto orthonormal waves of the whole run, seen in the kept volumes.

    Mean and line belong to what is taken out, or to what is kept; either way they are
    fitted first.
    """
    kept = waves[sample_mask]
    n_kept = slow.shape[0]
    # Without gaps the waves are orthogonal whatever their number. With gaps, a basis as
    # large as the data fits anything: it would be a filter in name only.
    if not sample_mask.all() and n_kept <= slow.shape[1] + waves.shape[1]:
        raise ValueError(
            f"{n_kept} of {sample_mask.size} volumes are kept, the slow terms and the"
            f" pass band take {slow.shape[1] + waves.shape[1]}: what is faster cannot"
            " be told apart"
        )
    # The singular values of what is left of the waves are the shares of their energy
    # that can be seen. QR first: R is K x K, where the waves are n_kept x K.
    q, r = np.linalg.qr(kept - slow @ (slow.T @ kept))
    u, values, _ = np.linalg.svd(r)
    band = q @ u[:, : int((values**2 >= _SEEN).sum())]
    if band.shape[1] == 0:
        raise ValueError(
            f"no pattern of the pass band can be told from the {slow.shape[1]} slow"
            f" terms: {n_kept} of {sample_mask.size} volumes are kept"
        )
    # Waves are orthonormal over the whole run: a band vector's power along them is what
    # of it, zeros put in the gaps, lies inside the band.
    inside = float(((kept.T @ band) ** 2).sum()) / band.shape[1]
    return Projection(
        sample_mask,
        slow=slow[:, :0] if keep_slow else slow,
        band=np.hstack([slow, band]) if keep_slow else band,
        holds_mean=not keep_slow,
        n_unseen=int(waves.shape[1] - band.shape[1]),
        outside_share=max(0.0, 1 - inside),
    )


def _mean_and_line(n_volumes: int, times: FloatArray | None = None) -> FloatArray:
    times = np.arange(n_volumes, dtype=np.float64) if times is None else times
    line = times - times.mean()
    norm = float(np.sqrt(line @ line))
    line = line / (norm if norm > 0 else 1.0)
    return np.column_stack([np.full(n_volumes, n_volumes**-0.5), line])


def list_waves(
    n_volumes: int,
    high_pass: float | None,
    low_pass: float | None,
    repetition_time: float,
) -> FloatArray:
    """Sines and cosines of a pass band, on the frequency grid of the whole run.

    Parameters
    ----------
    n_volumes
        T.
    high_pass, low_pass : Hz
        Both belong to the band; None for no limit.
    repetition_time : s

    Returns
    -------
    (T, K)
        Orthonormal; without the frequency 0 and that of Nyquist.

    Raises
    ------
    CutoffError
        If there is none: whatever a filter leaves then is of outside the band.
    """
    lowest = 0.0 if high_pass is None else high_pass
    highest = np.inf if low_pass is None else low_pass
    duration = n_volumes * repetition_time
    # Whole turns over the run, as in a DFT, so that columns are orthogonal from the
    # start and there are as many as the band has degrees of freedom.
    numbers = np.arange(1, (n_volumes + 1) // 2)
    above = numbers / duration >= lowest * (1 - _EDGE)
    inside = numbers[above & (numbers / duration <= highest * (1 + _EDGE))]
    if inside.size == 0:
        raise CutoffError(
            f"no frequency of a run of {duration:g} s (multiples of {1 / duration:.2g}"
            f" Hz) lies from {lowest:g} to {highest:g} Hz: the run is too short"
        )
    # The products are reduced first: angles of thousands of turns lose digits.
    turns = np.outer(np.arange(n_volumes), inside) % n_volumes
    angles = (2 * np.pi / n_volumes) * turns
    waves = np.hstack([np.cos(angles), np.sin(angles)])
    return np.asarray(np.sqrt(2.0 / n_volumes) * waves)


def _independent(columns: FloatArray) -> FloatArray:
    """Orthonormal basis of columns, (n, C) -> (n, rank)."""
    if columns.shape[1] == 0:
        return columns
    u, values, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, values > _DEPENDENT * values[0]])


# Of the largest value before: what trend and filter leave of a constant is 1e-15 of it,
# while a table of confounds that is written with nine digits cannot express less than
# 1e-9.
ROUNDING = 1e-12
# nilearn's limit on the diagonal of R, for columns of unit variance.
_COLLINEAR = 100 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Regression:
    """The regressors of one run, ready to be taken out of any signals.

    Attributes
    ----------
    kept : (t,) bool
        Volumes that the weights are fitted to; the others take the same weights.
    regressors : (n_kept, C)
        The confounds as scaled; zero where only rounding errors were left.
    basis : (n_kept, rank)
        Orthonormal basis of ``regressors``.
    others : (t - n_kept, rank)
        The basis, continued into the other volumes.
    dropped
        Positions of the columns that depend on others, or vanished.
    condition
        Largest over smallest diagonal element of R among the independent columns. The
        residuals are as many digits short of the sixteen of float64.
    """

    kept: BoolArray
    regressors: FloatArray
    basis: FloatArray
    others: FloatArray
    dropped: tuple[int, ...]
    condition: float

    @property
    def rank(self) -> int:
        """Independent columns of ``regressors``."""
        return int(self.basis.shape[1])

    def remove(self, series: FloatArray) -> FloatArray:
        """Take the regressors out of each column, (t, R) -> (t, R).

        Parameters
        ----------
        series : (t, R)
            Finite, filtered like the confounds.
        """
        if self.rank == 0:
            return series
        weights = self.basis.T @ series[self.kept]
        residuals = np.empty_like(series)
        residuals[self.kept] = series[self.kept] - self.basis @ weights
        residuals[~self.kept] = series[~self.kept] - self.others @ weights
        return residuals


def fit_regressors(
    confounds: FloatArray, kept: BoolArray, *, largest: FloatArray, standardize: bool
) -> Regression:
    """Find an orthonormal basis of the confounds over the kept volumes.

    Parameters
    ----------
    confounds : (t, C)
        Finite, filtered like the signals.
    kept : (t,) bool
        Volumes to fit.
    largest : (C,)
        Largest absolute value of each confound before trend and filter.
    standardize
        Give each confound mean 0 and standard deviation 1, or else a maximum of 1.

    Notes
    -----
    QR with column pivoting, Golub & Van Loan (2013), Matrix Computations, section
    5.5.6. A column is independent if its diagonal element exceeds nilearn's limit and
    that of ``numpy.linalg.matrix_rank``, max(n, C) eps times the largest.
    """
    from scipy import linalg

    scaled = _scale(confounds, kept, largest, standardize=standardize)
    design = scaled[kept]
    if design.shape[1] == 0:
        none = np.zeros((design.shape[0], 0))
        return Regression(kept, design, none, none[: int((~kept).sum())], (), 1.0)
    q, r, pivots = linalg.qr(design, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(r))
    limit = max(design.shape) * np.finfo(np.float64).eps * diagonal[0]
    rank = int((diagonal > max(limit, _COLLINEAR)).sum())
    q, r = q[:, :rank], r[:rank, :rank]
    # Not for the kept volumes: q is orthogonal to rounding, whatever r is like.
    others = scaled[~kept][:, pivots[:rank]]
    if rank and others.size:
        others = linalg.solve_triangular(r, others.T, trans="T").T
    return Regression(
        kept=kept,
        regressors=design,
        basis=q,
        others=others,
        dropped=tuple(sorted(int(column) for column in pivots[rank:])),
        condition=float(diagonal[0] / diagonal[rank - 1]) if rank else 1.0,
    )


def _scale(
    confounds: FloatArray, kept: BoolArray, largest: FloatArray, *, standardize: bool
) -> FloatArray:
    """Bring confounds to one scale, by the kept volumes."""
    if standardize:
        confounds = confounds - confounds[kept].mean(axis=0)
        scale = confounds[kept].std(axis=0, ddof=min(1, int(kept.sum()) - 1))
    else:
        scale = np.abs(confounds[kept]).max(axis=0, initial=0.0)
    scale[scale <= ROUNDING * largest] = np.inf
    return np.asarray(confounds / scale)
