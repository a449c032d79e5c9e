"""What is said of a run's cleaning: sidecar keys and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bids_roi.core.clean import Cleaned
    from bids_roi.io.confounds.regressors import Selected
    from bids_roi.io.confounds.strategy_format import Settings, Strategy
    from bids_roi.options.record import Options

__all__ = ["describe_cleaning", "warn_of_cleaning"]

# From here on the regressors are so nearly dependent that few digits are left.
_ILL_CONDITIONED = 1e8


def warn_of_cleaning(cleaned: Cleaned, name: str) -> list[str]:
    """Say what a reader of the cleaned signals should know.

    Parameters
    ----------
    cleaned
        What came of it.
    name
        Of the strategy.
    """
    notes = []
    if cleaned.drift == "too_short":
        notes.append(
            f"{name}: the run is too short for the cosine filter; none is used."
        )
    if cleaned.drift == "supplied":
        notes.append(f"{name}: the confounds hold the cosines already; none are added.")
    if cleaned.dropped:
        n_dropped = len(cleaned.dropped)
        notes.append(f"{name}: {n_dropped} regressors depend on others or vanished.")
    if cleaned.condition > _ILL_CONDITIONED:
        notes.append(
            f"{name}: the regressors are nearly dependent (condition number"
            f" {cleaned.condition:.1e}): the signals have few digits."
        )
    if cleaned.degrees_of_freedom < 1:
        notes.append(
            f"{name}: {cleaned.degrees_of_freedom:.1f} degrees of freedom are left."
        )
    return notes


def describe_cleaning(
    strategy: Strategy,
    selected: Selected,
    cleaned: Cleaned,
    options: Options,
    *,
    n_dummy: int,
    high_variance: bool,
) -> dict[str, Any]:
    """Sidecar keys of cleaned signals.

    Parameters
    ----------
    strategy, selected, cleaned, options
        What was asked for, chosen and done.
    n_dummy
        Volumes left out as not steady.
    high_variance
        Whether the components of high variance were regressed out too.
    """
    settings = strategy.settings
    units = {"psc": "percent", "zscore_sample": "standard deviations"}
    high = [f"high_variance_{n}" for n in range(5)] if high_variance else []
    facts: dict[str, Any] = {
        "Units": units.get(settings.standardize, "arbitrary"),
        "DenoisingStrategy": strategy.name,
        "DenoisingDescription": strategy.description,
        "ConfoundRegressors": [*high, *selected.names],
        "SoftwareFilters": _describe_filter(settings, cleaned),
        "Detrend": settings.detrend,
        "Standardize": settings.standardize,
        "FDThreshold": settings.fd_threshold,
        "StdDVARSThreshold": settings.std_dvars_threshold,
        "Scrub": settings.scrub,
        "CensorBefore": settings.censor_before,
        "CensorAfter": settings.censor_after,
        "DummyScans": n_dummy,
        "CensoredVolumes": options.censored,
        "RegressorRank": cleaned.rank,
        "DegreesOfFreedom": round(cleaned.degrees_of_freedom, 2),
    }
    if selected.filled:
        facts["BackFilledRegressors"] = list(selected.filled)
    # JSON has no place for what was not asked for.
    return {key: value for key, value in facts.items() if value is not None}


def _describe_filter(settings: Settings, cleaned: Cleaned) -> Any:  # noqa: ANN401 - JSON
    if settings.high_pass is None and settings.low_pass is None:
        return "n/a"
    if settings.filter == "cosine":
        return {
            "Cosine drift": {
                "High-pass cutoff (Hz)": settings.high_pass,
                "Regressors": cleaned.drift,
            }
        }
    cutoffs = {
        "High-pass cutoff (Hz)": settings.high_pass,
        "Low-pass cutoff (Hz)": settings.low_pass,
    }
    return {
        "Butterworth": {k: v for k, v in cutoffs.items() if v is not None}
        | {"Filter order": settings.filter_order, "Zero phase": True}
    }
