"""Cleaning of a run: what strategies do to its signals, and what is said of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.atlases.regions import some
from bids_roi.confounds.strategies import (
    Strategy,
    describe_strategy,
)
from bids_roi.core.clean import Cleaner, arrange_volumes, prepare_cleaner
from bids_roi.core.filters import Butterworth, CutoffError
from bids_roi.core.freedom import effective_freedom, white_noise
from bids_roi.core.map_solver import NEARLY_DEPENDENT
from bids_roi.core.motion import MOTION_FILTER_ORDER, correlate_quality, regional_dvars
from bids_roi.core.projections import Projection
from bids_roi.dataset.partners import explain_untimed, read_timing
from bids_roi.errors import (
    BidsRoiError,
    ConfoundsError,
    count_of,
)
from bids_roi.options.settings import ROWS, Settings, describe_settings
from bids_roi.outputs.result import AtlasResult, CleanedSeries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas
    from bids_roi.confounds.motion import FilteredMotion
    from bids_roi.confounds.table import Selected
    from bids_roi.core.clean import Cleaned
    from bids_roi.core.map_solver import MapSolver
    from bids_roi.core.motion import Censoring
    from bids_roi.core.partition import Partition
    from bids_roi.core.quality import RegionQuality
    from bids_roi.core.reduce import Reduction
    from bids_roi.dataset.run import BoldRun
    from bids_roi.options.record import Options
    from bids_roi.outputs.result import Extracted, Motion, Preparation
    from bids_roi.participant.run import Job

    FloatArray = NDArray[np.float64]


# Framewise displacement above which MRIQC counts a volume (its default).
_MOVED_MM = 0.2
# From here on the regressors are so nearly dependent that few digits are left.
_ILL_CONDITIONED = 1e8
# A Butterworth filter whose ends and gaps take more than this is worth a word, and so
# are signals of which more than this is noise from outside the pass band.
_HALF = 0.5


def clean_atlases(job: Job, extracted: Extracted) -> Iterator[AtlasResult]:
    """Clean the signals atlas by atlas, without the strategies that cannot be."""
    cleaners, failed = _build_cleaners(job, extracted.high_variance)
    partition, reduction = extracted.partition, extracted.reduction
    for number, (atlas, names) in enumerate(job.work):
        signals = {
            name: values
            for name, arrays in reduction.signals.items()
            if (values := arrays[number]) is not None
        }
        made = names.only([label for label in names.labels if label not in failed])
        cleaned = {
            series: clean_series(
                signals[series.statistic],
                cleaners[series.label],
                job.preparations[series.label],
                job.options,
                high_variance=extracted.high_variance is not None,
            )
            for series in made.timeseries
            if series.label is not None
        }
        yield AtlasResult(
            atlas=atlas,
            names=made,
            mapped=partition.maps[number],
            quality=extracted.qualities[number],
            signals=signals,
            cleaned=cleaned,
            failed={k: why for k, why in failed.items() if k in names.labels},
            measures={
                name: values
                for name, arrays in reduction.measures.items()
                if (values := arrays[number]) is not None
            },
            maps=reduction.solvers[number],
            notes=warn_of_voxels(reduction, partition, number),
        )


def _build_cleaners(
    job: Job, high_variance: NDArray[np.float64] | None
) -> tuple[dict[str, Cleaner], dict[str, BidsRoiError]]:
    """What each strategy does to the signals; of those that cannot be, why."""
    cleaners: dict[str, Cleaner] = {}
    failed: dict[str, BidsRoiError] = {}
    for label, preparation in job.preparations.items():
        try:
            cleaners[label] = _build_cleaner(
                preparation,
                run=job.planned.run,
                repetition_time=job.planned.repetition_time,
                high_variance=high_variance,
            )
        except BidsRoiError as error:
            failed[label] = error
    return cleaners, failed


def _build_cleaner(
    preparation: Preparation,
    *,
    run: BoldRun,
    repetition_time: float | None,
    high_variance: NDArray[np.float64] | None,
) -> Cleaner:
    """What a strategy does to the signals of a run, where enough of it is left."""
    settings = preparation.strategy.settings
    mask = preparation.censoring.sample_mask
    regressors = preparation.selected.regressors
    if high_variance is not None:  # first, as in nilearn
        regressors = np.hstack([high_variance, regressors])
    filters = settings.high_pass is not None or settings.low_pass is not None
    if filters and repetition_time is None:
        why, remedy = explain_untimed(run.metadata, mask.size)
        remedy = remedy or "Leave the filters out (none), or the run."
        msg = f"a filter in Hz needs a repetition time: {why}"
        raise ConfoundsError(msg, where=run.relative_path, remedy=remedy)
    try:
        return prepare_cleaner(
            n_volumes=mask.size,
            confounds=regressors,
            sample_mask=mask,
            times=_uneven_times(run, mask.size),
            n_dummy=preparation.censoring.n_dummy,
            detrend=settings.detrend,
            high_pass=settings.high_pass,
            low_pass=settings.low_pass,
            filter=settings.filter if filters else "passband",
            filter_order=settings.filter_order,
            interpolation=settings.interpolation,
            filter_padding=settings.filter_padding,
            filter_ends=settings.filter_ends,
            standardize=None
            if settings.standardize == "none"
            else settings.standardize,
            standardize_confounds=settings.standardize_confounds,
            repetition_time=repetition_time,
        )
    except ValueError as error:
        remedy = "Choose a smaller strategy, censor less, or leave the run out."
        if isinstance(error, CutoffError):
            remedy = "Change --high-pass and --low-pass, or leave the run out."
        msg = f"{preparation.strategy.name}: {error}."
        raise ConfoundsError(msg, where=run.relative_path, remedy=remedy) from error


def _uneven_times(run: BoldRun, n_volumes: int) -> NDArray[np.float64] | None:
    """When each volume was, in s; ``None`` where they are evenly spaced."""
    timing = read_timing(run.metadata, n_volumes)
    return np.array(timing.times) if timing.uneven and timing.times else None


def clean_series(
    signals: NDArray[np.float64],
    cleaner: Cleaner,
    preparation: Preparation,
    options: Options,
    *,
    high_variance: bool,
) -> CleanedSeries:
    """Clean the signals, (T, R), of one atlas and statistic; NaN columns stay."""
    cleaned = cleaner.clean(signals)
    return CleanedSeries(
        signals=arrange_volumes(cleaned, censored=options.cleaning.censored),  # type: ignore[arg-type]
        cleaned=cleaned,
        facts=describe_cleaning(
            preparation.strategy,
            preparation.selected,
            cleaned,
            options,
            censoring=preparation.censoring,
            high_variance=high_variance,
            motion=preparation.filtered,
        ),
        notes=(
            *preparation.selected.notes,
            *warn_of_cleaning(cleaned, preparation.strategy),
        ),
        preparation=preparation,
    )


def warn_of_cleaning(cleaned: Cleaned, strategy: Strategy) -> list[str]:
    """Say what a reader of the cleaned signals should know."""
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
    """Sidecar keys of cleaned signals: what was done, not what was asked for."""
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


def warn_of_unsteady(
    kept: NDArray[np.bool_], motion: Motion, preparation: Preparation | None
) -> list[str]:
    """Say that volumes which are not steady yet are among the kept ones, (T,).

    Those with a regressor of their own are left out in another way. ``None`` is for
    raw signals.
    """
    if motion.steady is None:
        return []
    flagged, name = ~motion.steady[kept], "the signals as they are"
    if preparation is not None:
        name = preparation.strategy.name
        spikes = preparation.selected.regressors[kept] != 0
        flagged &= ~spikes[:, spikes.sum(axis=0) == 1].any(axis=1)
    n = int(flagged.sum())
    if n == 0:
        return []
    return [
        f"{name}: {count_of(n, 'volume')} that fMRIPrep flags as not steady"
        f" {'is' if n == 1 else 'are'} among those kept: a step that all regions share,"
        " in every fit and correlation. A strategy with --dummy-scans auto leaves out"
        " what is flagged."
    ]


def warn_of_voxels(
    reduction: Reduction, partition: Partition, number: int
) -> tuple[str, ...]:
    """Say which voxels of an atlas were exactly 0 at times, and what was made of it."""
    notes = []
    lost = partition.count(number, reduction.dropout)
    if lost.any():
        notes.append(
            f"{_where(lost)} exactly 0 in"
            " some volumes, as outside the field of view: they are left out of every"
            " volume (n_voxels_dropout in the region table)."
        )
    kept = partition.count(number, reduction.zero_crossing)
    if kept.any():
        notes.append(
            f"{_where(kept)} exactly 0 in"
            " some volumes and have other values on both sides of 0, or next to it:"
            " they count as they are."
        )
    if n := len(reduction.blank):
        notes.append(
            f"{count_of(n, 'volume')} {'is' if n == 1 else 'are'} 0 throughout (counted"
            f" from 0: {some(reduction.blank)}), taken as 0. Cut off or censor what is"
            " blank."
        )
    return tuple(notes)


def _where(voxels: NDArray[np.int64]) -> str:
    """Tell how many voxels there are in how many regions; (R,)."""
    if voxels.sum() == 1:
        return "1 voxel is"
    n_regions = np.count_nonzero(voxels)
    word = "region" if n_regions == 1 else "regions"
    return f"{voxels.sum()} voxels in {n_regions} {word} are"


def warn_of_maps(maps: MapSolver, atlas: Atlas) -> list[str]:
    """Say which maps cannot be told apart."""
    if not maps.dependent.any():
        return []
    names = [atlas.regions.name[row] for row in np.flatnonzero(maps.dependent)]
    n_maps = int(maps.present.sum())
    if maps.rank < n_maps:
        return [
            f"{n_maps - maps.rank} of {n_maps} maps depend on others, among"
            f" {some(names)}: they share their signal in one way of many"
            " (least squares)."
        ]
    return [
        f"the maps {some(names)} nearly depend on one another (condition number"
        f" {maps.condition:.1e}, from {NEARLY_DEPENDENT:.0e} on this is said): noise"
        " and rounding come out larger by as much (least squares)."
    ]


def tell_lost_regions(
    kept_signals: FloatArray, raw: FloatArray, quality: RegionQuality, atlas: Atlas
) -> tuple[dict[str, Any], list[str]]:
    """Tell the regions that are n/a in one series only, and why.

    Sidecar keys, and what the user should know, of kept volumes, (n_kept, R), and of
    the same signals before cleaning, (T, R).
    """
    lost = quality.usable & np.isnan(kept_signals).all(axis=0)
    if not lost.any():
        return {}, []
    names = np.array(atlas.regions.name, dtype=object)
    notes = []
    cancelled = lost & np.isnan(raw).all(axis=0)
    if cancelled.any():
        notes.append(
            f"{cancelled.sum()} maps have no weighted mean, because their weights"
            f" cancel: n/a in this series ({some(names[cancelled].tolist())})."
        )
    silent = lost & ~cancelled
    if silent.any():
        notes.append(
            f"{silent.sum()} regions have no signal in the kept volumes, none that"
            " cleaning leaves, or no level to take percent of: n/a in this series"
            f" ({some(names[silent].tolist())})."
        )
    return {"RegionsWithoutSignal": names[lost].tolist()}, notes


def describe_quality(
    kept_signals: NDArray[np.float64],
    sample_mask: NDArray[np.bool_],
    motion: Motion,
    quality: RegionQuality,
    *,
    repetition_time: float | None,
) -> dict[str, Any]:
    """Sidecar keys of a series' quality.

    Of a series as it is kept, (n_kept, R), and which volumes of the run these are,
    (T,); the repetition time is in s.
    """
    n_kept = int(sample_mask.sum())
    facts: dict[str, Any] = {"NumberOfVolumesKept": n_kept}
    if repetition_time is not None:
        facts["SecondsKept"] = round(n_kept * repetition_time, 3)
    facts["MeanCoverage"] = round(float(quality.coverage.mean()), 6)
    lost = ~quality.has_voxels | np.isnan(kept_signals).all(axis=0)
    facts["NumberOfRegionsLost"] = int(lost.sum())
    if motion.rmsd is not None:
        facts["MeanRMSD"] = round(float(np.nanmean(motion.rmsd)), 6)
    fd = motion.fd
    if fd is None:
        return facts
    facts["MeanFramewiseDisplacement"] = round(float(np.nanmean(fd)), 6)
    facts["MaxFramewiseDisplacement"] = round(float(np.nanmax(fd)), 6)
    n_moved = int((fd > _MOVED_MM).sum())
    facts["NumberOfVolumesMoved"] = n_moved
    facts["PercentVolumesMoved"] = round(100 * n_moved / fd.size, 6)
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


def describe_global_signal(
    kept_signals: NDArray[np.float64],
    raw: NDArray[np.float64],
    sample_mask: NDArray[np.bool_],
    motion: Motion,
    *,
    cleaned: bool,
) -> dict[str, Any]:
    """Sidecar keys of the mean over the regions of a series, and of it before cleaning.

    Kept volumes, (n_kept, R), and all of the run before cleaning, (T, R). Of signals as
    they are, volumes that are not steady do not count.
    """
    mask = sample_mask
    if not cleaned and motion.steady is not None:
        mask = mask & motion.steady
        kept_signals = kept_signals[mask[sample_mask]]
    used = np.isfinite(kept_signals).all(axis=0) & np.isfinite(raw[mask]).all(axis=0)
    facts: dict[str, Any] = {}
    series = {"": kept_signals} | ({"Before": raw[mask]} if cleaned else {})
    for when, signals in series.items():
        if not used.any() or len(signals) < 2:
            continue
        values = signals[:, used].mean(axis=1)
        # Digits, not places: a share of the level may be in any unit.
        facts[f"GlobalSignalDeviation{when}"] = float(f"{values.std(ddof=1):.7g}")
        if motion.fd is not None:
            value = correlate_quality(motion.fd[mask], values)
            if value is not None:
                facts[f"FDGlobalSignalCorrelation{when}"] = round(value, 6)
    return facts
