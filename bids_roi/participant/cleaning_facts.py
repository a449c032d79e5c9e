"""What is said of a run's cleaning: sidecar keys and warnings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.confounds.strategies import describe_strategy
from bids_roi.core.filters import Butterworth
from bids_roi.core.freedom import effective_freedom, white_noise
from bids_roi.core.motion import MOTION_FILTER_ORDER
from bids_roi.core.projections import Projection
from bids_roi.options.settings import ROWS, describe_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.confounds.motion import FilteredMotion
    from bids_roi.confounds.regressors import Selected
    from bids_roi.confounds.strategies import Strategy
    from bids_roi.core.clean import Cleaned
    from bids_roi.core.motion import Censoring
    from bids_roi.options.record import Options
    from bids_roi.options.settings import Settings


# From here on the regressors are so nearly dependent that few digits are left.
_ILL_CONDITIONED = 1e8
# A Butterworth filter whose ends and gaps take more than this is worth a word, and so
# are signals of which more than this is noise from outside the pass band.
_HALF = 0.5


def warn_of_cleaning(cleaned: Cleaned, strategy: Strategy) -> list[str]:
    """Say what a reader of the cleaned signals should know.

    Parameters
    ----------
    cleaned
        What came of it.
    strategy
        What was asked for.
    """
    name = strategy.name
    notes = _warn_of_filter(cleaned, strategy.settings)
    notes += _warn_of_idle(strategy.settings)
    if cleaned.drift == "too_short":
        notes.append("the run is too short for the cosine filter; none is used.")
    if cleaned.drift == "supplied":
        notes.append("the confounds hold the cosines already; none are added.")
    if cleaned.dropped:
        n_dropped = len(cleaned.dropped)
        notes.append(f"{n_dropped} regressors depend on others or vanished.")
    if cleaned.condition > _ILL_CONDITIONED:
        notes.append(
            "the regressors are nearly dependent (condition number"
            f" {cleaned.condition:.1e}): the signals have few digits."
        )
    return [f"{name}: {note}" for note in notes]


def _warn_of_filter(cleaned: Cleaned, settings: Settings) -> list[str]:
    cleaner, notes = cleaned.cleaner, []
    step = cleaner.repetition_time
    if settings.low_pass is not None and cleaner.low_pass is None and step:
        notes.append(
            f"low_pass {settings.low_pass:g} Hz is not below the highest frequency of"
            f" the run ({0.5 / step:g} Hz, Nyquist): there is nothing to take out,"
            " and it is not applied."
        )
    if cleaner.outside_share > _HALF:
        notes.append(
            f"{100 * cleaner.outside_share:.0f} % of the noise that is left comes from"
            f" outside the pass band, or lies there: {cleaned.n_kept} of"
            f" {cleaned.sample_mask.size} volumes are kept, and {cleaned.rank}"
            " regressors are taken out. A smaller strategy or a wider band leaves more"
            " of the band."
        )
    if isinstance(cleaner.filter, Projection):
        return notes
    if cleaner.degrees_of_freedom < _HALF * cleaner.without_losses:
        kept = cleaned.sample_mask.nonzero()[0]
        gaps = kept[-1] - kept[0] + 1 > kept.size
        cause, better = "this run's ends and gaps", ""
        if gaps and settings.interpolation == "cubic_spline":
            cause, better = "cubic splines across gaps", "--interpolation linear"
        elif settings.filter_padding == "odd":
            cause, better = "odd padding", "--filter-padding constant"
        better = f"{better} loses fewer, " if better else ""
        notes.append(
            f"the Butterworth filter with {cause} leaves"
            f" {cleaner.degrees_of_freedom:.1f} of {cleaner.without_losses:.1f} degrees"
            f" of freedom; {better}--filter passband loses next to none."
        )
    return notes


def _warn_of_idle(settings: Settings) -> list[str]:
    """Settings of censoring that have nothing to start from."""
    if settings.fd_threshold is not None or settings.std_dvars_threshold is not None:
        return []
    idle = [
        name
        for name, row in ROWS.items()
        if row.needs == "threshold" and getattr(settings, name)
    ]
    if not idle:
        return []
    does = "does" if len(idle) == 1 else "do"
    return [
        f"{', '.join(idle)} {does} nothing without a threshold (--fd-threshold,"
        " --std-dvars-threshold)."
    ]


def describe_freedom(signals: NDArray[np.float64]) -> dict[str, Any]:
    """Sidecar keys of signals that nothing was done to, (T, R)."""
    n_volumes = signals.shape[0]
    effective = effective_freedom(
        signals,
        np.ones(n_volumes, dtype=bool),
        white=white_noise(n_volumes),
        degrees_of_freedom=n_volumes - 1,
    )
    return _say_freedom(n_volumes - 1, effective)


def _say_freedom(white: float, effective: float) -> dict[str, Any]:
    return {
        "DegreesOfFreedom": round(white, 2),
        "EffectiveDegreesOfFreedom": "n/a"
        if math.isnan(effective)
        else round(effective, 2),
    }


def describe_gaps(censoring: Censoring) -> dict[str, int]:
    """Sidecar keys of the stretches of censored volumes between kept ones."""
    gaps = censoring.gaps
    return {"NumberOfGaps": len(gaps), "LongestGap": max(gaps, default=0)}


def describe_cleaning(
    strategy: Strategy,
    selected: Selected,
    cleaned: Cleaned,
    options: Options,
    *,
    censoring: Censoring,
    high_variance: bool,
    motion: FilteredMotion | None = None,
) -> dict[str, Any]:
    """Sidecar keys of cleaned signals: what was done, not what was asked for.

    Parameters
    ----------
    strategy, selected, cleaned, options
        What was asked for, chosen and done.
    censoring
        Volumes that are left out.
    high_variance
        Whether the components of high variance were regressed out too.
    motion
        What a motion filter made of the run.
    """
    settings = strategy.settings
    units = {"psc": "percent", "zscore_sample": "standard deviations"}
    high = [f"high_variance_{n}" for n in range(5)] if high_variance else []
    applied: dict[str, object] = {
        "detrend": _detrended(settings, cleaned),
        "dummy_scans": int(censoring.dummy.sum()),
    }
    if motion is not None:
        applied["motion_filter_band"] = [float(f"{f:.6g}") for f in motion.band]
    facts: dict[str, Any] = {
        "Units": units.get(settings.standardize, "arbitrary"),
        "DenoisingStrategy": strategy.name,
        "DenoisingDescription": strategy.description,
        "DenoisingDefinition": describe_strategy(strategy),
        "ConfoundRegressors": [*high, *selected.names],
        "SoftwareFilters": _describe_filter(settings, cleaned),
        **describe_settings(settings, applied),
        "CensoredVolumes": options.cleaning.censored,
        **describe_gaps(censoring),
        "RegressorRank": cleaned.rank,
        **_say_freedom(
            cleaned.degrees_of_freedom, cleaned.effective_degrees_of_freedom
        ),
    }
    if options.cleaning.censored == "interpolate":
        facts["Interpolation"] = settings.interpolation
    if motion is not None:
        facts["MotionFilterOrder"] = MOTION_FILTER_ORDER
    if selected.filled:
        facts["BackFilledRegressors"] = list(selected.filled)
    # JSON has no place for what was not asked for.
    return {key: value for key, value in facts.items() if value is not None}


def _detrended(settings: Settings, cleaned: Cleaned) -> bool:
    """Whether mean and line are gone: a fitted high-pass takes them along."""
    steps = cleaned.cleaner.filter
    if isinstance(steps, Projection):
        return steps.holds_mean
    return settings.detrend


def _describe_filter(settings: Settings, cleaned: Cleaned) -> Any:  # noqa: ANN401 - JSON
    cleaner = cleaned.cleaner
    cutoffs = {
        "High-pass cutoff (Hz)": cleaner.high_pass,
        "Low-pass cutoff (Hz)": cleaner.low_pass,
    }
    cutoffs = {key: value for key, value in cutoffs.items() if value is not None}
    if not cutoffs:
        return "n/a"
    if settings.filter == "cosine":
        return {"Cosine drift": cutoffs | {"Regressors": cleaned.drift}}
    if isinstance(cleaner.filter, Butterworth):
        described = cutoffs | {
            "Filter order": settings.filter_order,
            "Zero phase": True,
            "Interpolation": settings.interpolation,
            "Padding": settings.filter_padding,
            "Censored ends": settings.filter_ends,
        }
        return {"Butterworth": described}
    described = {
        "Slow terms": int(cleaner.filter.slow.shape[1]),
        "Dimensions": cleaner.filter.dimensions,
    }
    return {"Pass-band fit": cutoffs | described}
