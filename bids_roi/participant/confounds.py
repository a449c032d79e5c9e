"""Strategies asked for, and the confounds of a run: motion, regressors, volumes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.confounds.components import merge_confounds
from bids_roi.confounds.motion import (
    FD,
    PARAMETERS,
    FilteredMotion,
    filter_confounds,
)
from bids_roi.confounds.strategies import (
    NAME_OF_TABLE,
    Strategy,
    load_strategy,
    override_settings,
)
from bids_roi.confounds.table import (
    Confounds,
    Selected,
    check_rows,
    framewise_displacement,
    non_steady_state,
    read_confounds,
    select_confounds,
    std_dvars,
)
from bids_roi.core.motion import Censoring, censor
from bids_roi.dataset.partners import (
    FREE_IN_CONFOUNDS,
    explain_untimed,
    find_tables,
)
from bids_roi.errors import (
    BidsRoiError,
    CollisionError,
    ConfoundsError,
    DataError,
    MissingInput,
    UsageError,
)
from bids_roi.options.settings import Settings, read_given
from bids_roi.options.table import CLEANING_OPTIONS
from bids_roi.options.words import name_statistics
from bids_roi.outputs.result import Motion, Preparation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from bids_roi.dataset.run import BoldRun
    from bids_roi.options.record import Options
    from bids_roi.options.table import Cleaning
    from bids_roi.participant.run import Job


# Name of fMRIPost-AROMA's dataset in sidecars.
AROMA = "aroma"
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


class RunConfounds:
    """The tables of a run: each is read when it is first asked for, and once.

    A table that cannot be read is an error each time, and is read once, too.
    """

    def __init__(self, run: BoldRun, n_volumes: int, wanted: Cleaning) -> None:
        self.run = run
        self.n_volumes = n_volumes
        self._folders = list_datasets(wanted)
        self._own = {
            name: find_tables(folder, pattern, run)
            for name, (folder, pattern) in self._folders.items()
        }
        self._tables: dict[tuple[Path, bool], Confounds | BidsRoiError] = {}

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that may be read."""
        own = self.run.confounds_path
        described = own.with_suffix(".json") if own is not None else None
        more = [path for paths in self._own.values() for path in paths]
        return tuple(p for p in (own, described, *more) if p is not None)

    def read(self) -> Confounds | None:
        """Read the run's own table; ``None`` where it has none."""
        path = self.run.confounds_path
        return None if path is None else self._read(path)

    def read_all(self, strategy: Strategy) -> Confounds | None:
        """Read the table, with AROMA's columns where a strategy may take them."""
        own = self.read()
        if own is None or not strategy.takes_aroma or not self._own.get(AROMA):
            return own
        return merge_confounds(own, self._read(self._choose(AROMA, strategy)))

    def read_own(self, strategy: Strategy) -> dict[str, Confounds]:
        """Read the tables that a strategy names, by their names."""
        return {
            name: self._read(self._choose(name, strategy), own=True)
            for name in strategy.tables
        }

    def _choose(self, name: str, strategy: Strategy) -> Path:
        found, (folder, pattern) = self._own[name], self._folders[name]
        if len(found) == 1:
            return found[0]
        where = self.run.relative_path
        if found:
            listed = " and ".join(str(path.relative_to(folder)) for path in found)
            msg = f"{len(found)} files could be its table {name}: {listed}."
            example = f"--confounds-dataset '{name}={folder}/*_desc-LABEL_*.tsv'"
            remedy = f"Choose by a pattern: {example}."
            if name == AROMA:
                remedy = "Leave one of them in a copy of the folder."
            raise DataError(msg, where=where, remedy=remedy)
        pairs = [p for p in self.run.entities if p[0] not in FREE_IN_CONFOUNDS]
        stem = "_".join(f"{key}-{label}" for key, label in pairs) or "a nameless run"
        msg = (
            f"there is no table {name} of the run, which {strategy.name} needs: no"
            f" {pattern} of {stem} in {folder} or below its sub-{self.run.participant}."
        )
        remedy = (
            "Its name has these entities and no other but space-, res-, desc- and the"
            " like. Add the table, or leave the run out."
        )
        raise MissingInput(msg, where=where, remedy=remedy)

    def list_own(self, strategy: Strategy) -> list[str]:
        """BIDS URIs of the tables that a strategy takes columns of."""
        return [
            f"bids:{name}:{path.relative_to(self._folders[name][0]).as_posix()}"
            for name in (*strategy.tables, *([AROMA] if strategy.takes_aroma else ()))
            for path in self._own.get(name, ())
        ]

    def describe_own(self, strategy: Strategy) -> dict[str, tuple[Path, str]]:
        """Folder and pattern of the tables that a strategy names."""
        return {name: self._folders[name] for name in strategy.tables}

    def _read(self, path: Path, *, own: bool = False) -> Confounds:
        key = (path, own)
        if key not in self._tables:
            try:
                # Of one's own all rows are counted: physiology is sampled faster.
                bound = None if own else self.n_volumes
                self._tables[key] = read_confounds(path, bound, rename=not own)
            except BidsRoiError as error:
                self._tables[key] = error
        found = self._tables[key]
        if isinstance(found, BidsRoiError):
            raise found
        return found


def parse_tables(texts: Iterable[str]) -> dict[str, tuple[Path, str]]:
    """Folders and patterns of ``NAME=DIR[/PATTERN]`` of ``--confounds-dataset``."""
    found = {}
    for text in texts:
        name, _, path = text.partition("=")
        folder = Path(path).absolute()
        chosen = "*" in folder.name
        pattern = folder.name if chosen else "*.tsv"
        found[name] = (folder.parent if chosen else folder, pattern)
    return found


def list_datasets(wanted: Cleaning) -> dict[str, tuple[Path, str]]:
    """Folders and patterns of all tables beside fMRIPrep's, by their names."""
    found = parse_tables(wanted.confounds_dataset)
    if wanted.aroma_dataset is not None:
        folder = wanted.aroma_dataset.absolute()
        found[AROMA] = (folder, "*_desc-aroma_timeseries.tsv")
    return found


def read_motion(tables: RunConfounds) -> Motion:
    """Read a run's motion; a table that cannot be used costs a note only."""
    try:
        confounds = tables.read()
    except BidsRoiError as error:
        return Motion(notes=(f"motion is not reported: {error}",))
    if confounds is None:
        return Motion()
    if confounds.n_volumes != tables.n_volumes:
        note = (
            f"motion is not reported: {confounds.paths[0].name} has"
            f" {confounds.n_volumes} rows, the run {tables.n_volumes} volumes."
        )
        return Motion(notes=(note,))
    traces = [_optional(c, confounds) for c in (framewise_displacement, std_dvars)]
    fd, dvars = (v if v is not None and np.isfinite(v).any() else None for v in traces)
    steady = ~non_steady_state(confounds)
    moved = None
    if set(PARAMETERS) <= set(confounds.names):
        moved = np.stack([confounds.column(name) for name in PARAMETERS], axis=1)
    rmsd = confounds.column("rmsd") if "rmsd" in confounds.names else None
    if rmsd is not None and not np.isfinite(rmsd).any():
        rmsd = None
    # A deviation over time needs two.
    steady_or_none = steady if steady.sum() > 1 else None
    return Motion(fd, dvars, steady_or_none, parameters=moved, rmsd=rmsd)


def prepare_cleaning(job: Job) -> Job:
    """Choose regressors and volumes for each strategy that has work left.

    Those that cannot be carried out, as what they need is not there or too little is
    left, go from ``work`` to ``failed``.
    """
    left = {label for _, names in job.work for label in names.labels}
    preparations, failed = {}, {}
    for strategy in job.strategies:
        if strategy is None or strategy.label not in left:
            continue
        try:
            preparations[strategy.label] = prepare(
                job.confounds,
                strategy,
                job.options,
                repetition_time=job.planned.repetition_time,
            )
        except BidsRoiError as error:
            failed[strategy.label] = error
    named = [
        (atlas, names.only([label for label in names.labels if label not in failed]))
        for atlas, names in job.work
    ]
    work = tuple((atlas, names) for atlas, names in named if names.labels)
    return replace(job, work=work, preparations=preparations, failed=failed)


def prepare(
    tables: RunConfounds,
    strategy: Strategy,
    options: Options,
    *,
    repetition_time: float | None,
) -> Preparation:
    """Choose a run's regressors and volumes, if enough is there, and left."""
    run, n_volumes = tables.run, tables.n_volumes
    confounds = _read_needed(tables, strategy)
    own = tables.read_own(strategy)
    filtered, fd = None, None
    if confounds is not None and strategy.settings.motion_filter != "none":
        check_rows(confounds, n_volumes)
        if FD in confounds.names:
            fd = confounds.column(FD)
        filtered = _filter_motion(run, confounds, strategy, repetition_time)
        confounds = filtered.confounds
    censoring, used, dvars = _censor(confounds, strategy.settings, n_volumes)
    if confounds is None:  # nothing acts on it, and it is told of each volume
        motion = read_motion(tables)
        used, dvars = motion.fd, motion.std_dvars
    _check_left(run, strategy, censoring, options, repetition_time)
    selected = Selected((), np.empty((n_volumes, 0)))
    if confounds is not None or own:
        selected = select_confounds(
            confounds or Confounds((), np.empty((n_volumes, 0)), {}, ()),
            strategy,
            n_volumes=n_volumes,
            image_desc=run.entity("desc"),
            kept=censoring.sample_mask,
            allow_missing=options.cleaning.allow_missing_confounds,
            tables=own,
        )
    if filtered is None:
        return Preparation(strategy, selected, censoring, used, dvars)
    notes = [*selected.notes, *filtered.notes]
    if strategy.settings.fd_threshold is None and not any(
        name.startswith((*PARAMETERS, FD)) for name in selected.names
    ):
        notes.append(
            f"{strategy.name}: the motion filter changes no number of the series: no"
            " motion is regressed out, and there is no --fd-threshold."
        )
    selected = replace(selected, notes=tuple(notes))
    return Preparation(strategy, selected, censoring, fd, dvars, filtered)


def _filter_motion(
    run: BoldRun,
    confounds: Confounds,
    strategy: Strategy,
    repetition_time: float | None,
) -> FilteredMotion:
    if repetition_time is None:
        why, remedy = explain_untimed(run.metadata, confounds.n_volumes)
        msg = f"the motion filter of {strategy.name} needs a repetition time: {why}"
        remedy = remedy or "Leave --motion-filter out, or the run."
        raise ConfoundsError(msg, where=run.relative_path, remedy=remedy)
    return filter_confounds(confounds, strategy.settings, repetition_time)


def _read_needed(tables: RunConfounds, strategy: Strategy) -> Confounds | None:
    """The tables of a strategy; ``None`` where it needs none."""
    settings = strategy.settings
    needed = any(part.kind != "table" for part in strategy.components)
    needed |= settings.dummy_scans == "auto"
    needed |= settings.fd_threshold is not None or settings.motion_filter != "none"
    needed |= settings.std_dvars_threshold is not None
    if not needed:
        return None
    if tables.run.confounds_path is None:
        msg = f"the run has no table of confounds, which {strategy.name} needs."
        remedy = (
            "Expected *_desc-confounds_timeseries.tsv beside it; or --strategy none."
        )
        raise MissingInput(msg, where=tables.run.relative_path, remedy=remedy)
    return tables.read_all(strategy)


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


def _optional(
    read: Any,  # noqa: ANN401 - one of two accessors
    confounds: Confounds,
    steady: NDArray[np.bool_] | None = None,
    threshold: float | None = None,
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
    untimed = repetition_time is None and options.cleaning.min_time is not None
    most = options.cleaning.max_censored
    if kept == 0:
        needed = "at least 1 is needed"
    elif most is not None and censoring.share > most:
        found += f": {censoring.share:.4g} of the steady ones are censored"
        needed = f"--max-censored allows {most:g}"
    elif (
        options.cleaning.min_volumes is not None and kept < options.cleaning.min_volumes
    ):
        needed = f"--min-volumes asks for {options.cleaning.min_volumes}"
    elif untimed:
        why, remedy = explain_untimed(run.metadata, mask.size)
        msg = (
            f"--min-time {options.cleaning.min_time:g} s needs a repetition time: {why}"
        )
        remedy = f"{remedy} Or count volumes with --min-volumes.".lstrip()
        raise ConfoundsError(msg, where=run.relative_path, remedy=remedy)
    elif options.cleaning.min_time is not None and seconds < options.cleaning.min_time:
        needed = f"{seconds:g} s; --min-time asks for {options.cleaning.min_time:g} s"
    if needed:
        msg = f"{found}, {needed} ({strategy.name})."
        raise ConfoundsError(msg, where=run.relative_path, remedy=remedy)
