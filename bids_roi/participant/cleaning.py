"""Strategies asked for, and what each does to the signals of a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.confounds.strategies import (
    NAME_OF_TABLE,
    Strategy,
    load_strategy,
    override_settings,
)
from bids_roi.core.clean import Cleaner, arrange_volumes, prepare_cleaner
from bids_roi.core.filters import CutoffError
from bids_roi.dataset.partners import explain_untimed, read_timing
from bids_roi.errors import (
    BidsRoiError,
    CollisionError,
    ConfoundsError,
    MissingInput,
    UsageError,
)
from bids_roi.options.settings import Settings, read_given
from bids_roi.options.table import CLEANING_OPTIONS
from bids_roi.options.words import name_statistics
from bids_roi.outputs.result import AtlasResult, CleanedSeries
from bids_roi.participant.cleaning_facts import describe_cleaning, warn_of_cleaning
from bids_roi.participant.confounds import AROMA, parse_tables
from bids_roi.participant.signal_checks import warn_of_voxels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bids_roi.dataset.layout import BoldRun
    from bids_roi.options.record import Options
    from bids_roi.outputs.result import Extracted, Preparation
    from bids_roi.participant.results import Job


# Names of datasets that sidecars refer to already.
_TAKEN = ("preprocessed", "templateflow", "freesurfer", AROMA)


def load_strategies(options: Options) -> tuple[Strategy | None, ...]:
    """Read the strategies asked for, with the settings of the command line.

    ``None`` stands for raw signals; that alone where nothing is asked for. An error
    where a strategy is unknown, two have one label, or a setting has nothing to act on.
    """
    given = read_given(options.cleaning.settings)
    if set(options.cleaning.strategy) == {"none"}:
        _refuse_without_effect(options)
    if not options.cleaning.strategy:
        if not given and not options.cleaning.high_variance_confounds:
            _refuse_without_effect(options)
            return (None,)
        text = "The settings of the command line, without a table of confounds."
        plain = Strategy("cleaned", "cleaned", text, (), Settings())
        cleaned = override_settings(plain, given)
        if (
            cleaned.settings == Settings()
            and not options.cleaning.high_variance_confounds
        ):
            _refuse_without_effect(options)
        _refuse_percent(cleaned, options)
        _check_needed(options, [cleaned])
        return (cleaned,)
    strategies: list[Strategy | None] = []
    labels = {"none": "none"}  # what logs and reports call raw signals
    for name in options.cleaning.strategy:
        if name == "none":
            strategies.append(None)
            continue
        strategy = override_settings(load_strategy(name), given)
        _refuse_percent(strategy, options)
        other = labels.setdefault(strategy.label.casefold(), name)
        if other != name:
            msg = f"{other} and {name} would both be written as desc-{strategy.label}."
            raise CollisionError(msg, remedy="Choose one, or change a file's label.")
        strategies.append(strategy)
    _check_needed(options, [s for s in strategies if s is not None])
    return tuple(strategies)


def _refuse_percent(strategy: Strategy, options: Options) -> None:
    """Refuse percent of statistics that are centred: their level is rounding errors."""
    centred = name_statistics(family="series")
    asked = [name for name in options.extraction.statistic if name in centred]
    if strategy.settings.standardize == "psc" and asked:
        msg = f"{asked[0]} has no level that {strategy.name} could take percent of."
        remedy = "Choose --standardize zscore_sample or none, or another statistic."
        raise UsageError(msg, remedy=remedy)


def _check_needed(options: Options, strategies: list[Strategy]) -> None:
    """Refuse what no strategy has a use for, and tables that no folder is given for."""
    thresholds = ("fd_threshold", "std_dvars_threshold")
    if options.cleaning.max_censored is not None and not any(
        getattr(s.settings, name) is not None for s in strategies for name in thresholds
    ):
        msg = "no strategy censors volumes: --max-censored has no effect."
        raise UsageError(msg, remedy="Add --fd-threshold MM, or leave it out.")
    aroma = options.cleaning.aroma_dataset
    if aroma is not None and not any(s.takes_aroma for s in strategies):
        msg = "no strategy takes columns of ICA-AROMA: --aroma-dataset has no effect."
        raise UsageError(msg, remedy="Add --strategy aroma, or leave it out.")
    _check_tables(options, strategies)


def _check_tables(options: Options, strategies: list[Strategy]) -> None:
    for text in options.cleaning.confounds_dataset:
        if not text.partition("=")[2]:
            msg = f"--confounds-dataset {text} names no folder."
            raise UsageError(msg, remedy="Give NAME=DIR.")
    given = parse_tables(options.cleaning.confounds_dataset)
    for name, (folder, _) in given.items():
        flag = f"--confounds-dataset {name}"
        if not re.fullmatch(NAME_OF_TABLE, name) or name in _TAKEN:
            msg = f"'{name}' cannot be the name of a --confounds-dataset."
            words = f"letters, digits and hyphens, and none of {', '.join(_TAKEN)}"
            raise UsageError(msg, remedy=f"Give NAME=DIR; a name has {words}.")
        if not folder.is_dir():
            msg = f"there is no such folder, which {flag} names."
            raise MissingInput(msg, where=folder, remedy="Check the path.")
        if not any(name in strategy.tables for strategy in strategies):
            msg = f"no strategy takes columns of a table {name}: {flag} has no effect."
            item = f'{{"table": "{name}", "columns": ["..."]}}'
            raise UsageError(msg, remedy=f"Add {item} to a strategy file.")
    if len(given) < len(options.cleaning.confounds_dataset):
        msg = "--confounds-dataset is given twice with one NAME."
        raise UsageError(msg, remedy="Give each folder a name of its own.")
    for strategy in strategies:
        for name in strategy.tables:
            if name not in given:
                msg = f"the strategy {strategy.name} takes columns of a table {name}."
                remedy = f"Say where it is: --confounds-dataset {name}=DIR."
                raise UsageError(msg, remedy=remedy)


def _refuse_without_effect(options: Options) -> None:
    """Refuse options of cleaning where nothing is cleaned, instead of dropping them."""
    flags = [
        option.flags[0]
        for option in CLEANING_OPTIONS
        if option.name != "strategy" and options.value(option) != option.default
    ]
    if flags:
        raw = (
            "--strategy none gives"
            if options.cleaning.strategy
            else "what is asked for gives"
        )
        has = "has" if len(flags) == 1 else "have"
        msg = f"{raw} raw signals, on which {', '.join(flags)} {has} no effect."
        remedy = (
            "Add a strategy, which takes these options; or leave --strategy none out:"
            " settings alone clean without confounds."
        )
        raise UsageError(msg, remedy=remedy)


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
