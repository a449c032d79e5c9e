"""Regional signals without trend, drift, unwanted frequencies and confounds.

Signals and confounds go through trend and filter side by side, so that the filter does
not bring back what the regression takes out (Lindquist et al. 2019,
doi:10.1002/hbm.24528). What a run needs (the filter, the regressors, the degrees of
freedom) is worked out once, in a ``Cleaner``; it serves all atlases and statistics.

The steps are those of nilearn (``signal.clean`` 0.14); where they are not followed, and
why, stands in docs/numbers.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bids_roi.core.filters import (
    Butterworth,
    butterworth_sections,
    check_cutoffs,
    cosine_drift,
    interpolate_censored,
    missing_drift,
    share_removed,
)
from bids_roi.core.freedom import count_freedom, effective_freedom, lag_sums
from bids_roi.core.projections import (
    ROUNDING,
    Projection,
    Regression,
    fit_pass_band,
    fit_regressors,
    list_waves,
    take_out_trend,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.core.filters import Ends, Interpolation, Padding

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


Drift = Literal["none", "added", "supplied", "too_short"]
FilterKind = Literal["passband", "butterworth", "cosine"]
Scale = Literal["zscore_sample", "psc"]


@dataclass(frozen=True, slots=True)
class Cleaner:
    """What cleaning does to any signals of one run.

    Attributes
    ----------
    sample_mask : (T,) bool
        True for kept.
    times : (T,) or None
        When each volume was; None for evenly spaced ones.
    filter
        Trend and frequencies; a projection or a Butterworth filter.
    regression
        Of the confounds, and of generated cosines.
    standardize
        Scale of the cleaned signals.
    interpolation
        How censored volumes are filled where that is asked for.
    high_pass, low_pass : Hz
        As applied: None where off, and for a ``low_pass`` that is not below the Nyquist
        frequency.
    drift
        What became of the cosine filter: ``none`` (not asked for), ``added``,
        ``supplied`` (the confounds hold all of them; none are generated), or
        ``too_short`` (the run does not hold half a period).
    degrees_of_freedom
        Of white noise after all steps; see ``freedom``.
    without_losses
        The same, were ends and gaps to take no more than their share.
    outside_share
        0 to 1; how much of white noise that passes all steps comes from outside the
        pass band, or ends up there, whichever is more: through gaps, the slopes of a
        filter, and regressors that take what is inside.
    white : (T,)
        Sums over lags of the autocorrelation that the steps give to white noise.
    """

    sample_mask: BoolArray
    times: FloatArray | None
    filter: Projection | Butterworth
    regression: Regression
    standardize: Scale | None
    interpolation: Interpolation
    high_pass: float | None
    low_pass: float | None
    repetition_time: float | None
    drift: Drift
    degrees_of_freedom: float
    without_losses: float
    outside_share: float
    white: FloatArray

    @property
    def n_kept(self) -> int:
        """Volumes kept."""
        return int(self.sample_mask.sum())

    def clean(self, signals: FloatArray) -> Cleaned:
        """Clean signals of the run.

        Parameters
        ----------
        signals : (T, R), arbitrary units
            A column with a NaN or infinity in a kept volume comes out as NaN throughout
            and leaves the others alone.

        Raises
        ------
        ValueError
            If there is not one row per volume of the run.
        """
        n_volumes = self.sample_mask.size
        if signals.ndim != 2 or signals.shape[0] != n_volumes:
            raise ValueError(
                f"signals have shape {signals.shape}, must be (T, R) with T {n_volumes}"
            )
        # A column with a NaN is left out before the filter: every step is a matrix
        # product, which would carry it from one volume into all.
        kept = signals[self.sample_mask].astype(np.float64)
        usable = np.asarray(np.isfinite(kept).all(axis=0))
        kept = kept[:, usable]
        largest = np.abs(kept).max(axis=0)
        series = self.filter.apply(signals if usable.all() else signals[:, usable])
        series = self.regression.remove(series)
        rows = self.filter.kept
        deviation = series[rows].std(axis=0, ddof=min(1, self.n_kept - 1))
        # Against the largest value that came in: of a region at 1e6, regressors leave
        # 1e-10, which z-scores would blow up to a signal that correlates with others
        # like it.
        flat = np.ptp(kept, axis=0) <= ROUNDING * largest
        vanished = (flat | (deviation <= ROUNDING * largest)) & (self.n_kept > 1)
        if self.standardize is not None:
            series = series - series[rows].mean(axis=0)
        if self.standardize == "zscore_sample":
            series /= np.where(vanished, np.inf, deviation)
        elif self.standardize == "psc":
            # Of the kept volumes as they came: filled gaps have no level.
            # A level that is no more than what varies about it is that of data which
            # were centred before, in other volumes or with fewer digits.
            level = kept.mean(axis=0)
            none = np.abs(level) <= np.maximum(kept.std(axis=0), ROUNDING * largest)
            series /= np.where(none, np.nan, np.abs(level) / 100)
        if vanished.any():  # rounding errors are no signal
            series = np.where(vanished, np.nan, series)
        cleaned = _scatter(series[rows], usable)
        return Cleaned(
            signals=cleaned,
            filled=None
            if isinstance(self.filter, Projection)
            else _scatter(series[~rows], usable),
            vanished=np.asarray(usable & np.isnan(cleaned).all(axis=0), dtype=bool),
            effective_degrees_of_freedom=effective_freedom(
                cleaned,
                self.sample_mask,
                white=self.white,
                degrees_of_freedom=self.degrees_of_freedom,
            ),
            cleaner=self,
        )


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Signals of one run after cleaning.

    Attributes
    ----------
    signals : (n_kept, R)
        Kept volumes only; NaN in the columns that came with a NaN or infinity, and in
        those that vanished.
    filled : (n_others, R) or None
        The censored volumes that went through a Butterworth filter, rid of the
        confounds with the weights, centre and scale of the kept ones. None without one.
    vanished : (R,) bool
        These are constant over the kept volumes, or nothing but rounding errors was
        left of them, or percent of their mean were asked for and it is no larger
        than their standard deviation.
    effective_degrees_of_freedom
        After the autocorrelation that the signals have beside that of the filter;
        median over the regions.
    cleaner
        What they went through.
    """

    signals: FloatArray
    filled: FloatArray | None
    vanished: BoolArray
    effective_degrees_of_freedom: float
    cleaner: Cleaner

    @property
    def sample_mask(self) -> BoolArray:
        """True for kept, (T,)."""
        return self.cleaner.sample_mask

    @property
    def n_kept(self) -> int:
        """Volumes kept."""
        return self.cleaner.n_kept

    @property
    def regressors(self) -> FloatArray:
        """Confounds and generated cosines as regressed, (n_kept, C + K)."""
        return self.cleaner.regression.regressors

    @property
    def rank(self) -> int:
        """Independent columns of ``regressors``."""
        return self.cleaner.regression.rank

    @property
    def dropped(self) -> tuple[int, ...]:
        """Positions of the other columns."""
        return self.cleaner.regression.dropped

    @property
    def condition(self) -> float:
        """How near to dependent the independent ones are; 1 at best.

        From 1e8 on the signals have few digits: slow cosines over a short stretch of a
        run do that.
        """
        return self.cleaner.regression.condition

    @property
    def drift(self) -> Drift:
        """What became of the cosine filter."""
        return self.cleaner.drift

    @property
    def degrees_of_freedom(self) -> float:
        """What is left, supposing white noise before cleaning."""
        return self.cleaner.degrees_of_freedom


def prepare_cleaner(
    *,
    n_volumes: int,
    confounds: FloatArray | None,
    sample_mask: BoolArray | None,
    times: FloatArray | None,
    n_dummy: int,
    detrend: bool,
    high_pass: float | None,
    low_pass: float | None,
    filter: FilterKind,  # noqa: A002 - the word of the option
    filter_order: int,
    interpolation: Interpolation,
    filter_padding: Padding,
    filter_ends: Ends,
    standardize: Scale | None,
    standardize_confounds: bool,
    repetition_time: float | None,
) -> Cleaner:
    """Work out what cleaning does to a run.

    Parameters
    ----------
    n_volumes
        T.
    confounds : (T, C) or None
        Finite in the kept volumes.
    sample_mask : (T,) bool or None
        True for kept; None for all kept.
    times : (T,), any unit
        When each volume was, for the trend; None for evenly spaced ones.
    n_dummy
        Censored volumes at the start that are not steady, and so are never filled.
    detrend
        Take out mean and linear trend. The line is straight in time, over the kept
        volumes; with a Butterworth filter over all, as filled.
    high_pass, low_pass : Hz
        None for off.
    filter
        ``passband``: a fit of the pass band to the kept volumes. ``butterworth``: gaps
        are filled, signals and confounds filtered, and then censored. ``cosine``: slow
        cosines join the confounds; ``high_pass`` only.
    filter_order, filter_padding, filter_ends
        Of the Butterworth filter; see ``butterworth``.
    interpolation
        How the Butterworth filter, and ``arrange_volumes``, fill gaps.
    standardize
        ``zscore_sample``: mean 0, standard deviation 1 (n - 1). ``psc``: percent of the
        region's own mean over the kept volumes, before trend and filter; NaN where it
        is no larger than their standard deviation. None: as the steps before leave it.
    standardize_confounds
        Give each confound mean 0 and standard deviation 1, or else a maximum of 1.
    repetition_time : s
        Only needed by filters.

    Raises
    ------
    ValueError
        If shapes differ, no volume is kept, a cut-off makes no sense, the run is too
        short for the filter, confounds are not finite, or confounds, mean, trend and
        filter leave no degree of freedom.

    Notes
    -----
    Projection onto the complement of the regressors: Friston et al. (1994),
    doi:10.1002/hbm.460020402; the modules of the steps name their sources.
    """
    mask = _check_mask(sample_mask, n_volumes)
    table = _check_confounds(confounds, mask)
    high_pass, low_pass = check_cutoffs(
        high_pass=high_pass, low_pass=low_pass, repetition_time=repetition_time
    )
    drift: Drift = "none"
    filters = (high_pass, low_pass) != (None, None)
    steps: Projection | Butterworth = take_out_trend(mask, times, detrend=detrend)
    if filter == "cosine":
        if high_pass is None or low_pass is not None or repetition_time is None:
            raise ValueError(
                "the cosine filter needs a high_pass and takes no low_pass"
            )
        table, drift = _add_drift(table, mask, high_pass, repetition_time)
    elif filters and repetition_time is not None:
        cut = {"high_pass": high_pass, "low_pass": low_pass}
        if filter == "passband":
            steps = fit_pass_band(
                mask, **cut, repetition_time=repetition_time, detrend=detrend
            )
        else:
            steps = Butterworth(
                mask,
                butterworth_sections(
                    **cut, filter_order=filter_order, repetition_time=repetition_time
                ),
                interpolation,
                filter_padding,
                filter_ends,
                detrend,
                n_dummy,
            )
    largest = np.abs(table[mask]).max(axis=0)
    regression = fit_regressors(
        steps.apply(table),
        steps.kept,
        largest=largest,
        standardize=standardize_confounds,
    )
    plain = not (detrend or table.shape[1] or standardize or filters)
    band = (high_pass, low_pass, repetition_time or 1.0)
    freedom, full, outside, white = _count(steps, regression, mask, band)
    if not plain:
        _check_freedom(steps, regression, freedom)
    return Cleaner(
        sample_mask=mask,
        times=times,
        filter=steps,
        regression=regression,
        standardize=standardize,
        interpolation=interpolation,
        high_pass=high_pass,
        low_pass=low_pass,
        repetition_time=repetition_time,
        drift=drift,
        degrees_of_freedom=freedom,
        without_losses=full,
        outside_share=outside,
        white=white,
    )


def _count(
    steps: Projection | Butterworth,
    regression: Regression,
    mask: BoolArray,
    cutoffs: tuple[float | None, float | None, float],
) -> tuple[float, float, float, FloatArray]:
    """Degrees of freedom, those without losses, share from outside, autocorrelation."""
    n_kept = regression.basis.shape[0]
    constant = np.full((n_kept, 1), n_kept**-0.5)
    if isinstance(steps, Projection):
        # How much of the mean is left, which correlations take out.
        left = constant - regression.basis @ (regression.basis.T @ constant)
        mean = 0.0 if steps.holds_mean else float((left**2).sum())
        freedom = steps.dimensions - regression.rank - mean
        white = -lag_sums(regression.basis, mask).sum(axis=1)
        if steps.band is None:
            white[0] += n_kept
            white -= lag_sums(steps.slow, mask).sum(axis=1)
        else:
            white += lag_sums(steps.band, mask).sum(axis=1)
        if not steps.holds_mean:
            white -= lag_sums(left, mask)[:, 0]
        return freedom, freedom, steps.outside_share, white
    identity = np.zeros((mask.size, n_kept))
    identity[mask] = np.eye(n_kept)
    # A Butterworth filter over filled gaps is no projection, so that no rank tells what
    # is left: the operator is made column by column, by sending unit pulses through it.
    operator = regression.remove(steps.apply(identity))[steps.kept]
    operator -= operator.mean(axis=0)
    slow = n_kept * (1 - share_removed(steps.sections)) - regression.rank
    power = float((operator**2).sum())
    band = list_waves(mask.size, *cutoffs)[mask]
    # Both directions, as the operator is not symmetric: what enters from outside the
    # band, and what leaves for there. The worse of the two is told.
    inside = min(((operator @ band) ** 2).sum(), ((band.T @ operator) ** 2).sum())
    outside = max(0.0, 1 - float(inside) / power) if power > 0 else 1.0
    white = lag_sums(operator, mask).sum(axis=1)
    return count_freedom(operator), slow, outside, white


def arrange_volumes(
    cleaned: Cleaned, *, censored: Literal["drop", "na", "interpolate"]
) -> FloatArray:
    """Lay the cleaned volumes out as an output table has them.

    Parameters
    ----------
    cleaned
        From ``Cleaner.clean``.
    censored
        ``drop``: kept volumes only. ``na``: all volumes, censored ones NaN.
        ``interpolate``: all volumes; censored ones between the first and the last kept
        one as the Butterworth filter left what it was given, or else interpolated
        between the cleaned volumes; those before and after stay NaN.

    Returns
    -------
    (n_kept, R) or (T, R)
        The kept volumes are the same numbers in all three.
    """
    if censored == "drop":
        return cleaned.signals
    mask = cleaned.sample_mask
    arranged = np.full((mask.size, cleaned.signals.shape[1]), np.nan)
    arranged[mask] = cleaned.signals
    if censored == "na":
        return arranged
    kept = np.flatnonzero(mask)
    inside = slice(int(kept[0]), int(kept[-1]) + 1)
    between = arranged[inside]
    filter_ = cleaned.cleaner.filter
    if cleaned.filled is None or not isinstance(filter_, Butterworth):
        usable = np.asarray(np.isfinite(cleaned.signals).all(axis=0))
        filled = interpolate_censored(
            between[:, usable],
            mask[inside],
            cleaned.cleaner.interpolation,
            None if cleaned.cleaner.times is None else cleaned.cleaner.times[inside],
        )
        between[~mask[inside]] = _scatter(filled, usable)
    else:
        whole = np.full_like(arranged, np.nan)
        rows = np.arange(mask.size)[filter_.rows]
        whole[rows[~filter_.kept]] = cleaned.filled
        between[~mask[inside]] = whole[inside][~mask[inside]]
    return arranged


def _check_mask(sample_mask: BoolArray | None, n_volumes: int) -> BoolArray:
    if sample_mask is None:
        sample_mask = np.ones(n_volumes, dtype=bool)
    mask = np.asarray(sample_mask)
    if mask.dtype != bool or mask.shape != (n_volumes,):
        raise ValueError(
            f"sample_mask is {mask.dtype} of shape {mask.shape}, must be bool of "
            f"shape {(n_volumes,)}, True for the volumes to keep"
        )
    if not mask.any():
        raise ValueError(f"0 of {mask.size} volumes are kept, at least 1 is needed")
    return mask


def _check_confounds(confounds: FloatArray | None, mask: BoolArray) -> FloatArray:
    if confounds is None:
        return np.zeros((mask.size, 0))
    if confounds.ndim != 2 or confounds.shape[0] != mask.size:
        raise ValueError(
            f"confounds have shape {confounds.shape}, the signals {mask.size} volumes"
        )
    missing = ~np.isfinite(confounds[mask]).all(axis=0)
    if missing.any():
        columns = ", ".join(map(str, np.flatnonzero(missing)))
        raise ValueError(
            f"{missing.sum()} of {missing.size} confounds are not finite in every "
            f"kept volume: columns {columns}, counted from 0"
        )
    return confounds.astype(np.float64)


def _check_freedom(
    steps: Projection | Butterworth, regression: Regression, freedom: float
) -> None:
    """Refuse to return what is nothing but rounding errors."""
    n_kept, n_columns = regression.regressors.shape
    found = f"{n_kept} volumes are kept, but {n_columns} regressors of rank"
    if isinstance(steps, Projection) and freedom < 0.5:
        if steps.band is not None:
            raise ValueError(
                f"{n_kept} volumes are kept, the pass band holds {steps.dimensions}"
                f" degrees of freedom, and {n_columns} regressors of rank"
                f" {regression.rank} leave none"
            )
        n_slow = max(steps.slow.shape[1], 1)
        words = " and the mean" if n_slow == 1 else ", the mean and the trend"
        if n_slow > 2:
            words = f", the mean, the trend and {n_slow - 2} slow cosines"
        raise ValueError(
            f"{found} {regression.rank}{words} need at least"
            f" {regression.rank + n_slow + 1}"
        )
    if n_kept <= regression.rank + 1:
        raise ValueError(
            f"{found} {regression.rank} and the mean need at least"
            f" {regression.rank + 2}"
        )


def _add_drift(
    table: FloatArray, mask: BoolArray, high_pass: float, repetition_time: float
) -> tuple[FloatArray, Drift]:
    """Append slow cosines of the whole run to the confounds that do not hold them."""
    drift = cosine_drift(
        table.shape[0], high_pass=high_pass, repetition_time=repetition_time
    )
    if drift.shape[1] == 0:
        return table, "too_short"
    # fMRIPrep's tables often hold the cosines already. Twice the same column costs no
    # rank, but the report would tell of regressors that nobody asked for.
    missing = missing_drift(drift, table, mask)
    if missing.shape[1] == 0:
        return table, "supplied"
    return np.hstack([table, missing]), "added"


def _scatter(columns: FloatArray, usable: BoolArray) -> FloatArray:
    """Put columns where they belong, NaN in the others."""
    if usable.all():
        return columns
    scattered = np.full((columns.shape[0], usable.size), np.nan)
    scattered[:, usable] = columns
    return scattered
