"""Regional signals without trend, drift, unwanted frequencies and confounds.

The order of steps is nilearn's (``signal.clean`` 0.14): gaps, mean, trend, filter,
censoring, confounds, scale. Signals and confounds go through the steps before the
regression side by side, so that the filter does not bring back what the regression
took out (Lindquist et al. 2019, doi:10.1002/hbm.24528).

Where nilearn is not followed, and why:

- censored volumes are filled where they are, not at the mirrored end of the run;
- columns that depend on others are found relative to the largest one: against nilearn's
  absolute limit, 1,000 volumes leave enough rounding to regress random directions;
- a confound of which trend and filter leave rounding errors only is dropped, where
  nilearn scales these errors up to a regressor;
- percent signal change refers to each region's own mean, whatever the other regions do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bids_roi.core.filters import (
    apply_butterworth,
    butterworth_sections,
    check_cutoffs,
    cosine_drift,
    drift_is_among,
    interpolate_censored,
    remove_trend,
    share_removed,
)
from bids_roi.core.regression import ROUNDING, Regression, regress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]

__all__ = ["Cleaned", "arrange_volumes", "clean_signals"]

Drift = Literal["none", "added", "supplied", "too_short"]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Signals of one run after cleaning.

    Attributes
    ----------
    signals : (n_kept, R)
        Kept volumes only; NaN in the columns that came with a NaN or infinity, and for
        percent signal change in those whose mean is zero.
    sample_mask : (T,) bool
        True for kept.
    filled : (n_between, R) or None
        The censored volumes between the first and the last kept one as interpolated,
        filtered, and rid of the confounds with the weights, centre and scale of the
        kept volumes. None without Butterworth filter, where nothing is interpolated.
    regressors : (n_kept, C + K)
        The confounds and K generated cosines as regressed: detrended, filtered, scaled;
        zero where nothing was left.
    rank
        Independent columns of ``regressors``.
    dropped
        Positions of the other columns.
    condition
        How near to dependent the independent ones are; 1 at best. From 1e8 on the
        signals have few digits: slow cosines over a short stretch of a run do that.
    drift
        What became of the cosine filter: ``none`` (not asked for), ``added``,
        ``supplied`` (the confounds hold such columns; none are generated), or
        ``too_short`` (the run does not hold half a period).
    filter_cost
        Degrees of freedom that the Butterworth filter takes away: ``n_kept`` times
        ``filters.share_removed``.
    mean_cost
        Those of mean and trend, as far as they are not below ``high_pass`` or in the
        regressors already.
    vanished : (R,) bool
        True where rounding errors are left: ``ROUNDING`` of the largest value before.
    """

    signals: FloatArray
    sample_mask: BoolArray
    filled: FloatArray | None
    regressors: FloatArray
    rank: int
    dropped: tuple[int, ...]
    condition: float
    drift: Drift
    filter_cost: float
    mean_cost: float
    vanished: BoolArray

    @property
    def n_kept(self) -> int:
        """Volumes kept."""
        return int(self.signals.shape[0])

    @property
    def degrees_of_freedom(self) -> float:
        """What is left of the kept volumes; can be negative after a narrow filter.

        n_kept - rank - filter_cost - mean_cost. The regressors are counted after the
        filter, in the band that it leaves.
        """
        return self.n_kept - self.rank - self.filter_cost - self.mean_cost


def clean_signals(
    signals: FloatArray,
    *,
    confounds: FloatArray | None,
    sample_mask: BoolArray | None,
    detrend: bool,
    high_pass: float | None,
    low_pass: float | None,
    filter: Literal["butterworth", "cosine"],  # noqa: A002 - the word of the option
    filter_order: int,
    standardize: Literal["zscore_sample", "psc"] | None,
    standardize_confounds: bool,
    repetition_time: float | None,
) -> Cleaned:
    """Clean the signals of one run.

    Parameters
    ----------
    signals : (T, R), arbitrary units
        A column with a NaN or infinity in a kept volume comes out as NaN throughout and
        leaves the others alone.
    confounds : (T, C) or None
        Finite in the kept volumes.
    sample_mask : (T,) bool or None
        True for kept; None for all kept.
    detrend
        Take out mean and linear trend; of the kept volumes as if they had followed one
        another, unless gaps are filled for the Butterworth filter.
    high_pass, low_pass : Hz
        None for off.
    filter
        ``butterworth``: censored volumes at either end are cut off, those between are
        interpolated, signals and confounds filtered, and then censored. ``cosine``:
        slow cosines join the confounds; ``high_pass`` only.
    filter_order
        Of the Butterworth filter.
    standardize
        ``zscore_sample``: mean 0, standard deviation 1 (n - 1). ``psc``: percent of the
        region's own mean, which is the mean before trend and filter where these take
        it out. None: as the steps before leave it.
    standardize_confounds
        Give each confound mean 0 and standard deviation 1, or else a maximum of 1.
    repetition_time : s
        Only needed by filters.

    Returns
    -------
    Cleaned

    Raises
    ------
    ValueError
        If shapes differ, no volume is kept, a cut-off makes no sense, the run is too
        short for the filter, confounds are not finite, or confounds, mean and trend
        leave no degree of freedom.

    Notes
    -----
    Projection onto the complement of the regressors: Friston et al. (1994),
    doi:10.1002/hbm.460020402; ``regress`` and the functions of ``filters`` name the
    sources of the steps.
    """
    mask = _check_mask(sample_mask, signals)
    table = _check_confounds(confounds, mask)
    high_pass, low_pass = check_cutoffs(
        high_pass=high_pass, low_pass=low_pass, repetition_time=repetition_time
    )
    drift: Drift = "none"
    sections, slow = None, 0.0
    if filter == "cosine":
        if high_pass is None or low_pass is not None or repetition_time is None:
            raise ValueError(
                "the cosine filter needs a high_pass and takes no low_pass"
            )
        table, drift = _add_drift(table, high_pass, repetition_time)
    elif repetition_time is not None and not (high_pass is None and low_pass is None):
        sections = butterworth_sections(
            high_pass=high_pass,
            low_pass=low_pass,
            filter_order=filter_order,
            repetition_time=repetition_time,
        )
        # Share of all frequencies; mean and trend are among these.
        slow = 2 * (high_pass or 0.0) * repetition_time
    usable = _finite_columns(signals[mask])
    n_table = table.shape[1]
    # Side by side: both take the same steps.
    joint = np.hstack([table, signals if usable.all() else signals[:, usable]])
    joint, kept, means, largest = _filter(joint, mask, sections, detrend=detrend)
    fit = regress(
        joint[:, n_table:],
        joint[:, :n_table],
        kept,
        largest=largest[:n_table],
        standardize=standardize_confounds,
    )
    mean_cost = int(not fit.holds_mean) + detrend
    if detrend or n_table or standardize or sections is not None:
        _check_freedom(fit, mean_cost)
    series, means, largest = fit.residuals, means[n_table:], largest[n_table:]
    vanished = np.zeros(usable.shape, dtype=bool)
    vanished[usable] = series[kept].std(axis=0) <= ROUNDING * largest
    if standardize is not None:
        # Taken out by trend or high-pass, so put back: nilearn's psc, but decided by
        # what was done, not by how small the means of all regions together are.
        centred = detrend or slow > 0
        level = means + series[kept].mean(axis=0) if centred else fit.means
        series = _standardize(series, kept, level, largest, how=standardize)
    n_kept = int(kept.sum())
    return Cleaned(
        signals=_scatter(series[kept], usable),
        sample_mask=mask,
        filled=None if sections is None else _scatter(series[~kept], usable),
        regressors=fit.regressors,
        rank=fit.rank,
        dropped=fit.dropped,
        condition=fit.condition,
        drift=drift,
        filter_cost=0.0 if sections is None else n_kept * share_removed(sections),
        mean_cost=max(mean_cost - n_kept * slow, 0.0),
        vanished=vanished,
    )


def arrange_volumes(
    cleaned: Cleaned, *, censored: Literal["drop", "na", "interpolate"]
) -> FloatArray:
    """Lay the cleaned volumes out as an output table has them.

    Parameters
    ----------
    cleaned
        From ``clean_signals``.
    censored
        ``drop``: kept volumes only. ``na``: all volumes, censored ones NaN.
        ``interpolate``: all volumes; censored ones between the first and the last kept
        one take ``cleaned.filled`` or, without Butterworth filter, the cubic spline
        through the cleaned volumes (which is what cleaning the spline through the raw
        ones gives, for both are linear); those before and after stay NaN. XCP-D's
        interpolated output is the same, but for the ends.

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
    if censored == "interpolate":
        inside = _inside(mask)
        filled = cleaned.filled
        if filled is None:
            usable = _finite_columns(cleaned.signals)
            spline = interpolate_censored(arranged[inside][:, usable], mask[inside])
            filled = _scatter(spline, usable)
        between = ~mask
        between[: inside.start] = False
        between[inside.stop :] = False
        arranged[between] = filled
    return arranged


def _check_mask(sample_mask: BoolArray | None, signals: FloatArray) -> BoolArray:
    if signals.ndim != 2:
        raise ValueError(f"signals have shape {signals.shape}, must be (T, R)")
    if sample_mask is None:
        sample_mask = np.ones(signals.shape[0], dtype=bool)
    mask = np.asarray(sample_mask)
    if mask.dtype != bool or mask.shape != signals.shape[:1]:
        raise ValueError(
            f"sample_mask is {mask.dtype} of shape {mask.shape}, must be bool of "
            f"shape {signals.shape[:1]}, True for the volumes to keep"
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


def _check_freedom(fit: Regression, mean_cost: int) -> None:
    """Refuse to return what is nothing but rounding errors."""
    n_kept, n_columns = fit.regressors.shape
    if n_kept <= fit.rank + mean_cost:
        words = ("", " and the mean", ", the mean and the trend")[mean_cost]
        raise ValueError(
            f"{n_kept} volumes are kept, but {n_columns} regressors of rank "
            f"{fit.rank}{words} need at least {fit.rank + mean_cost + 1}"
        )


def _add_drift(
    table: FloatArray, high_pass: float, repetition_time: float
) -> tuple[FloatArray, Drift]:
    """Append slow cosines of the whole run to the confounds, unless they are there."""
    drift = cosine_drift(
        table.shape[0], high_pass=high_pass, repetition_time=repetition_time
    )
    if drift.shape[1] == 0:
        return table, "too_short"
    if drift_is_among(drift, table):
        return table, "supplied"
    return np.hstack([table, drift]), "added"


def _inside(mask: BoolArray) -> slice:
    """From the first to the last kept volume."""
    kept = np.flatnonzero(mask)
    return slice(int(kept[0]), int(kept[-1]) + 1)


def _filter(
    joint: FloatArray, mask: BoolArray, sections: FloatArray | None, *, detrend: bool
) -> tuple[FloatArray, BoolArray, FloatArray, FloatArray]:
    """Fill gaps, take out trend and frequencies.

    Returns
    -------
    filtered : (t, columns)
        Kept volumes and, with a filter, those between them.
    kept : (t,) bool
    means, largest : (columns,)
        Mean and largest absolute value before trend and filter.
    """
    if sections is None:
        joint, kept = joint[mask], np.ones(int(mask.sum()), dtype=bool)
    else:
        inside = _inside(mask)
        joint, kept = joint[inside], mask[inside]
        joint[~kept] = interpolate_censored(joint, kept)
    means, largest = joint.mean(axis=0), np.abs(joint).max(axis=0)
    if detrend:
        joint = remove_trend(joint)
    if sections is not None:
        joint = apply_butterworth(joint, sections)
    return joint, kept, means, largest


def _standardize(
    series: FloatArray,
    kept: BoolArray,
    level: FloatArray,
    largest: FloatArray,
    *,
    how: Literal["zscore_sample", "psc"],
) -> FloatArray:
    """Centre and scale by the kept volumes; 0 where only rounding errors are left."""
    centred = series - series[kept].mean(axis=0)
    if how == "psc":
        scale = np.abs(level) / 100
        scale[np.abs(level) <= ROUNDING * largest] = np.nan  # percent of nothing
    else:
        scale = centred[kept].std(axis=0, ddof=1)
        scale[scale <= ROUNDING * largest] = np.inf
    return np.asarray(centred / scale)


def _finite_columns(signals: FloatArray) -> BoolArray:
    return np.asarray(np.isfinite(signals).all(axis=0))


def _scatter(columns: FloatArray, usable: BoolArray) -> FloatArray:
    """Put columns where they belong, NaN in the others."""
    if usable.all():
        return columns
    scattered = np.full((columns.shape[0], usable.size), np.nan)
    scattered[:, usable] = columns
    return scattered
