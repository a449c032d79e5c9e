"""Cleaning of one run: which columns, which volumes, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.confounds.gaps import check_rows
from bids_roi.confounds.regressors import Selected, select_confounds
from bids_roi.confounds.strategies import load_strategy, override_settings
from bids_roi.confounds.strategy_format import Strategy
from bids_roi.confounds.table import (
    Confounds,
    framewise_displacement,
    merge_confounds,
    non_steady_state,
    read_confounds,
    std_dvars,
)
from bids_roi.core.censor import Censoring, censor
from bids_roi.core.clean import Cleaned, Cleaner, arrange_volumes, prepare_cleaner
from bids_roi.core.filters import CutoffError
from bids_roi.dataset.layout import find_aroma_confounds
from bids_roi.dataset.timing import explain_untimed, read_timing
from bids_roi.errors import CollisionError, ConfoundsError, MissingInput, UsageError
from bids_roi.options.settings import Settings, read_given
from bids_roi.options.table import CLEANING_OPTIONS
from bids_roi.participant.cleaning_facts import describe_cleaning, warn_of_cleaning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.dataset.layout import BoldRun
    from bids_roi.options.record import Options


def load_strategies(options: Options) -> tuple[Strategy | None, ...]:
    """Read the strategies asked for, with the settings of the command line.

    Returns
    -------
    tuple
        ``None`` stands for raw signals; that alone where nothing is asked for.

    Raises
    ------
    UsageError
        A strategy is unknown, a setting does not go with it, or an option of cleaning
        is given where nothing is cleaned.
    CollisionError
        Two of them have the same label and would be written to the same names.
    """
    given = read_given(options.settings)
    if set(options.denoise) == {"none"}:
        _refuse_without_effect(options)
    if not options.denoise:
        if not given and not options.high_variance_confounds:
            _refuse_without_effect(options)
            return (None,)
        text = "The settings of the command line, without a table of confounds."
        plain = Strategy("cleaned", "cleaned", text, (), Settings())
        cleaned = override_settings(plain, given)
        if cleaned.settings == Settings() and not options.high_variance_confounds:
            _refuse_without_effect(options)
        return (cleaned,)
    strategies: list[Strategy | None] = []
    labels = {"none": "none"}  # what logs and reports call raw signals
    for name in options.denoise:
        if name == "none":
            strategies.append(None)
            continue
        strategy = override_settings(load_strategy(name), given)
        other = labels.setdefault(strategy.label.casefold(), name)
        if other != name:
            msg = f"{other} and {name} would both be written as desc-{strategy.label}."
            raise CollisionError(msg, remedy="Choose one, or change a file's label.")
        strategies.append(strategy)
    return tuple(strategies)


def _refuse_without_effect(options: Options) -> None:
    """Refuse options of cleaning where nothing is cleaned, instead of dropping them."""
    flags = [
        option.flags[0]
        for option in CLEANING_OPTIONS
        if option.name != "denoise" and options.value(option) != option.default
    ]
    if flags:
        raw = "--denoise none gives" if options.denoise else "what is asked for gives"
        has = "has" if len(flags) == 1 else "have"
        msg = f"{raw} raw signals, on which {', '.join(flags)} {has} no effect."
        remedy = (
            "Add a strategy, which takes these options; or leave --denoise none out:"
            " settings alone clean without confounds."
        )
        raise UsageError(msg, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a strategy means for one run, before a volume of it is read.

    Attributes
    ----------
    strategy
        As asked for.
    selected
        Columns to regress out.
    censoring
        Volumes to leave out, and why.
    fd, dvars : (T,) or None
        Framewise displacement in mm and standardised DVARS, where the table has them.
    """

    strategy: Strategy
    selected: Selected
    censoring: Censoring
    fd: NDArray[np.float64] | None
    dvars: NDArray[np.float64] | None


def prepare(
    run: BoldRun,
    strategy: Strategy,
    options: Options,
    *,
    n_volumes: int,
    repetition_time: float | None,
) -> Preparation:
    """Choose a run's regressors and volumes.

    Raises
    ------
    MissingInput, ConfoundsError
        If what the strategy needs is not there, or too little is left.
    """
    confounds = _read(run, strategy, options, n_volumes)
    censoring, fd, dvars = _censor(confounds, strategy.settings, n_volumes)
    _check_left(run, strategy, censoring, options, repetition_time)
    selected = Selected((), np.empty((n_volumes, 0)))
    if confounds is not None:
        selected = select_confounds(
            confounds,
            strategy,
            n_volumes=n_volumes,
            image_desc=run.entity("desc"),
            kept=censoring.sample_mask,
            allow_missing=options.allow_missing_confounds,
        )
    return Preparation(strategy, selected, censoring, fd, dvars)


def _censor(
    confounds: Confounds | None, settings: Settings, n_volumes: int
) -> tuple[Censoring, NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Choose the volumes, before the columns: only kept volumes need values there."""
    fd, dvars, unsteady = None, None, None
    fixed = settings.dummy_scans if isinstance(settings.dummy_scans, int) else 0
    if confounds is not None:
        check_rows(confounds, n_volumes)
        steady = np.arange(n_volumes) >= fixed
        if settings.dummy_scans == "auto":
            unsteady = non_steady_state(confounds)
            steady &= ~unsteady
        fd = _optional(framewise_displacement, confounds, steady, settings.fd_threshold)
        dvars = _optional(std_dvars, confounds, steady, settings.std_dvars_threshold)
    censoring = censor(
        fd,
        dvars,
        unsteady,
        n_volumes=n_volumes,
        fd_threshold=settings.fd_threshold,
        std_dvars_threshold=settings.std_dvars_threshold,
        scrub=settings.scrub,
        before=settings.censor_before,
        after=settings.censor_after,
        n_dummy=fixed,
    )
    return censoring, fd, dvars


def _read(
    run: BoldRun, strategy: Strategy, options: Options, n_volumes: int
) -> Confounds | None:
    """The run's table, with AROMA's where given; ``None`` where none is needed."""
    settings = strategy.settings
    needed = bool(strategy.components) or settings.dummy_scans == "auto"
    needed |= settings.fd_threshold is not None
    needed |= settings.std_dvars_threshold is not None
    if run.confounds_path is None:
        if not needed:
            return None
        msg = f"the run has no table of confounds, which {strategy.name} needs."
        remedy = (
            "Expected *_desc-confounds_timeseries.tsv beside it; or --denoise none."
        )
        raise MissingInput(msg, where=run.relative_path, remedy=remedy)
    if not needed:
        return None
    confounds = read_confounds(run.confounds_path, n_volumes)
    if options.aroma_dataset is not None:
        path = find_aroma_confounds(options.aroma_dataset, run)
        if path is not None:
            confounds = merge_confounds(confounds, read_confounds(path, n_volumes))
    return confounds


def _optional(
    read: Any,  # noqa: ANN401 - one of two accessors
    confounds: Confounds,
    steady: NDArray[np.bool_],
    threshold: float | None,
) -> NDArray[np.float64] | None:
    """A quality column; its absence only matters where a threshold acts on it."""
    try:
        values: NDArray[np.float64] = read(confounds, steady)
    except ConfoundsError:
        if threshold is not None:
            raise
        return None
    return values


def _check_left(
    run: BoldRun,
    strategy: Strategy,
    censoring: Censoring,
    options: Options,
    repetition_time: float | None,
) -> None:
    mask = censoring.sample_mask
    kept = int(mask.sum())
    seconds = kept * (repetition_time or 0.0)
    found = f"{kept} of {mask.size} volumes are kept"
    remedy = "Relax the censoring (--fd-threshold, --scrub), or leave the run out."
    needed = ""
    untimed = repetition_time is None and options.min_time is not None
    if kept == 0:
        needed = "at least 1 is needed"
    elif options.min_volumes is not None and kept < options.min_volumes:
        needed = f"--min-volumes asks for {options.min_volumes}"
    elif untimed:
        why, remedy = explain_untimed(run.metadata, mask.size)
        msg = f"--min-time {options.min_time:g} s needs a repetition time: {why}"
        remedy = f"{remedy} Or count volumes with --min-volumes.".lstrip()
        raise ConfoundsError(msg, where=run.relative_path, remedy=remedy)
    elif options.min_time is not None and seconds < options.min_time:
        needed = f"{seconds:g} s; --min-time asks for {options.min_time:g} s"
    if needed:
        msg = f"{found}, {needed} ({strategy.name})."
        raise ConfoundsError(msg, where=run.relative_path, remedy=remedy)


@dataclass(frozen=True, slots=True)
class CleanedSeries:
    """Signals as they are written, and what is said of them.

    Attributes
    ----------
    signals : (T or fewer, R)
        As ``--censored`` asks.
    cleaned
        The kept volumes, and what they were rid of.
    facts
        Sidecar keys.
    notes
        What the user should know.
    """

    signals: NDArray[np.float64]
    cleaned: Cleaned
    facts: dict[str, Any]
    notes: tuple[str, ...]


def build_cleaner(
    preparation: Preparation,
    *,
    run: BoldRun,
    repetition_time: float | None,
    high_variance: NDArray[np.float64] | None,
) -> Cleaner:
    """Work out what a strategy does to any signals of a run, once for all atlases.

    Parameters
    ----------
    preparation
        Of the run and strategy.
    run
        For messages.
    repetition_time
        Seconds.
    high_variance : (T, 5) or None
        Further confounds.

    Raises
    ------
    ConfoundsError
        If the run is too short or too noisy for the strategy.
    """
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
    """Clean the signals of one atlas and statistic.

    Parameters
    ----------
    signals : (T, R)
        Raw; NaN columns stay.
    cleaner, preparation
        Of the run and strategy.
    options
        ``censored`` is used.
    high_variance
        Whether the components of high variance are among the confounds.
    """
    cleaned = cleaner.clean(signals)
    return CleanedSeries(
        signals=arrange_volumes(cleaned, censored=options.censored),  # type: ignore[arg-type]
        cleaned=cleaned,
        facts=describe_cleaning(
            preparation.strategy,
            preparation.selected,
            cleaned,
            options,
            censoring=preparation.censoring,
            high_variance=high_variance,
        ),
        notes=(
            *preparation.selected.notes,
            *warn_of_cleaning(cleaned, preparation.strategy),
        ),
    )
