"""The participant level over a dataset: plan, process, take note."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bids_roi.atlases.shelf import AtlasShelf
from bids_roi.dataset.layout import explain_nothing
from bids_roi.dataset.roots import (
    dataset_description,
    find_derivative,
    list_participants,
)
from bids_roi.errors import (
    BidsRoiError,
    MissingInput,
    NothingFound,
    OutputError,
    SpaceMismatch,
)
from bids_roi.images.nifti import check_file
from bids_roi.outputs.records import sweep_leftovers
from bids_roi.outputs.root_files import (
    ROOT_FILES,
    check_output_dir,
    keep_valid,
    name_atlas_files,
    write_atlas_files,
    write_dataset_files,
)
from bids_roi.participant.budget import choose_executor, estimate_memory
from bids_roi.participant.cleaning import load_strategies
from bids_roi.participant.existing import Existing, OtherAtlas, OtherSettings
from bids_roi.participant.plan import (
    PlannedRun,
    check_given_mask,
    plan_participants,
    template_of,
)
from bids_roi.participant.progress import Progress, follow
from bids_roi.participant.results import open_job
from bids_roi.participant.run import find_finished, process_run
from bids_roi.schedule.outcome import Outcome
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bids_roi.atlases.open import Atlas
    from bids_roi.confounds.strategy_format import Strategy
    from bids_roi.options.record import Options
    from bids_roi.outputs.records import Record
    from bids_roi.participant.outcomes import Outcomes


log = logging.getLogger("bids_roi")

# Participants whose outputs are held against the options before anything is written; a
# folder that was made with one call is told by the first of them.
_LOOKED_AT = 20
# Runs of theirs whose plans are kept until their turn comes, so that memory is flat.
_KEPT = 1000


@dataclass(frozen=True, slots=True)
class ParticipantLevel:
    """One call of ``bids_roi BIDS_DIR OUTPUT_DIR participant``."""

    root: Path
    participants: tuple[str, ...]
    output_dir: Path
    options: Options
    strategies: tuple[Strategy | None, ...]
    shelf: AtlasShelf

    @property
    def labels(self) -> tuple[str | None, ...]:
        """Labels of the denoising strategies; ``None`` for raw signals."""
        return tuple(s.label if s is not None else None for s in self.strategies)


def open_level(bids_dir: Path, output_dir: Path, options: Options) -> ParticipantLevel:
    """Find the input and the atlases; an error where nothing can be done at all."""
    root = find_derivative(bids_dir, options.input.derivatives)
    participants = tuple(list_participants(root, options.input.participant_label))
    strategies = load_strategies(options)
    shelf = AtlasShelf(options.atlases)
    return ParticipantLevel(root, participants, output_dir, options, strategies, shelf)


def plan_dataset(
    level: ParticipantLevel,
    outcomes: Outcomes,
    known: Mapping[str, list[PlannedRun]] = MappingProxyType({}),
) -> Iterator[tuple[str, list[PlannedRun]]]:
    """Plan one participant after the other, so that work can begin at once.

    Those in ``known`` have been. Those that cannot be planned are losses among the
    ``outcomes``, and the others go on. It is an error where there is nothing to do for
    anyone, or none of the atlases can be had.
    """
    n_planned, served = 0, False
    others = [label for label in level.participants if label not in known]
    found = _plan(level, others)
    for participant in level.participants:
        planned = known[participant] if participant in known else next(found)[1]
        if isinstance(planned, BidsRoiError):
            outcomes.lose(participant, planned)
            planned = []
        elif not planned:
            _note_empty(level, participant, outcomes)
        else:
            outcomes.keep(participant)
        if not served and not any(item.atlases or item.error for item in planned):
            refused = [pair for item in planned for pair in item.refused]
            _check_present(refused, level.shelf)
        served = served or any(item.atlases for item in planned)
        n_planned += len(planned)
        yield participant, planned
    if not n_planned:
        if outcomes.errors:
            raise next(iter(outcomes.errors.values()))
        raise explain_nothing(level.root, level.participants, level.options.input)
    outcomes.tell_empty()


def _plan(
    level: ParticipantLevel, participants: Sequence[str]
) -> Iterator[tuple[str, list[PlannedRun] | BidsRoiError]]:
    return plan_participants(
        level.root, participants, level.options, level.shelf, level.labels
    )


def _note_empty(level: ParticipantLevel, participant: str, outcomes: Outcomes) -> None:
    """Take note of a participant without runs; one that was asked for is a loss.

    Not where the filters are what leaves nothing of it.
    """
    why = explain_nothing(level.root, [participant], level.options.input)
    if level.options.input.participant_label and not isinstance(why, NothingFound):
        if len(level.participants) > 1:  # a line for each, the rest with -v alone
            problem = why.problem.partition("\n")[0]
            why = MissingInput(problem, where=why.where, remedy=why.remedy)
        outcomes.lose(participant, why)
    else:
        outcomes.keep(participant)
        outcomes.empty.append(participant)


def _check_present(refused: list[tuple[str, BidsRoiError]], shelf: AtlasShelf) -> None:
    """Stop at once where no asked-for atlas can be had at all.

    An atlas of the participant's own says nothing of the other participants.
    """
    missing = [
        why
        for name, why in refused
        if isinstance(why, MissingInput) and shelf.is_shared(name)
    ]
    if missing and len(missing) == len(refused):
        raise missing[0]


def run_level(level: ParticipantLevel, outcomes: Outcomes) -> None:
    """Process every run; an error where nothing can be done, or an atlas fits none."""
    options, output_dir = level.options, level.output_dir
    check_given_mask(options)
    known = _check_settings(level, outcomes)
    if outcomes.other_settings:
        outcomes.tell_other_settings()
        return
    check_output_dir(output_dir, level.root)
    there = output_dir.stat()
    source, notes = dataset_description(level.root)
    outcomes.warnings.update(notes)
    how: dict[str, Any] = {
        "options": options,
        "output_dir": output_dir,
        "strategies": level.strategies,
    }
    work = functools.partial(process_run, **how)
    find = functools.partial(find_finished, **how)
    executor = choose_executor(options, output_dir)
    with follow(
        options.running.events,
        level.root,
        quiet=not log.isEnabledFor(logging.WARNING),
        version=__version__,
        executor=type(executor).__name__.lower(),
        participants=len(level.participants),
        input=str(level.root),
        output=str(output_dir.absolute()),
    ) as progress:
        planned = _announce(level, known, source, outcomes, progress, find)
        try:
            with contextlib.closing(executor.map(work, planned)) as done:
                for outcome in done:
                    progress.finish(outcome.item, outcomes.note(outcome))
                    if (
                        outcomes.tally.n_failed_runs
                        and options.running.stop_on_first_crash
                    ):
                        progress.status = "stopped"
                        return
            _check_still_there(level, there, outcomes)
            outcomes.check_used()
        finally:
            outcomes.close()
            keep_valid(output_dir, level.participants[0])


def _check_still_there(
    level: ParticipantLevel, before: os.stat_result, outcomes: Outcomes
) -> None:
    """Report an output folder that was removed or replaced in the meantime."""
    folder = level.output_dir
    try:
        same = os.path.samestat(folder.stat(), before)
    except OSError:
        same = False
    logs = (folder / "logs" / p for p in outcomes.tally.participants)
    if not same or not all(path.is_dir() for path in logs):
        msg = "the folder, or what was in it, was removed while runs were processed."
        remedy = "Run the same command again: it makes what is missing."
        raise OutputError(msg, where=folder, remedy=remedy)


def _check_settings(
    level: ParticipantLevel, outcomes: Outcomes
) -> dict[str, list[PlannedRun]]:
    """Refuse outputs of other settings before anything is touched.

    All participants are looked at where one is refused, so that the message counts
    them. A segmentation that was made anew concerns its participant only. Returns the
    plans of the first of those that were looked at.
    """
    plans: dict[str, list[PlannedRun]] = {}
    if level.options.running.overwrite:
        return plans
    folders = (level.output_dir / f"sub-{p}" for p in level.participants)
    there = [p for p, f in zip(level.participants, folders, strict=True) if f.is_dir()]
    for part in (there[:_LOOKED_AT], there[_LOOKED_AT:]):
        for participant, planned in _plan(level, part):
            if isinstance(planned, BidsRoiError):
                continue  # told when its turn comes
            if sum(map(len, plans.values())) < _KEPT:
                plans[participant] = planned
            for item in planned:
                job = open_job(item, level.options, level.strategies, level.output_dir)
                try:
                    Existing(job).check()
                except OtherAtlas:
                    continue
                except OtherSettings as error:
                    outcomes.refuse(item, error)
        if not outcomes.other_settings:
            break
    return plans


def _announce(
    level: ParticipantLevel,
    known: dict[str, list[PlannedRun]],
    source: dict[str, object],
    outcomes: Outcomes,
    progress: Progress,
    find: Callable[[PlannedRun], list[Record] | None],
) -> Iterator[PlannedRun]:
    """Hand out the runs that have work left, and take note of those that ``find`` ends.

    Files that they share are written ahead of the first.
    """
    begun = False
    plans = plan_dataset(level, outcomes, known)
    for number, (participant, planned) in enumerate(plans, 1):
        known.pop(participant, None)
        outcomes.expect(participant, planned)
        sweep_leftovers(level.output_dir, [item.run.relative_path for item in planned])
        for item in planned:
            if not begun:
                begun = True
                links = level.shelf.links
                notes = write_dataset_files(level.output_dir, level.root, source, links)
                outcomes.warnings.update(notes)
            for atlas, _ in item.atlases:
                if atlas.name not in outcomes.used:
                    notes = write_atlas_files(level.output_dir, atlas)
                    outcomes.warnings.update(notes)
                outcomes.used[atlas.name] = atlas
            progress.plan(item, share=number / len(level.participants))
            outcomes.begin(item)
            # Here, as to hand it to a worker, and to start one, would take longer.
            records = find(item)
            if records is None:
                yield item
            else:
                progress.finish(item, outcomes.note(Outcome(item, records, None)))


def describe_plan(level: ParticipantLevel, outcomes: Outcomes) -> Iterator[str]:
    """Lines of ``--dry-run``: each run, what it will be read with and written to.

    Names are as a shell expands them; figures and lines of logs are told by folder.
    """
    atlases: dict[str, Atlas] = {}
    begun = False
    for participant, planned in plan_dataset(level, outcomes):
        for item in planned:
            yield from _describe_run(item, level, outcomes)
            atlases |= {atlas.name: atlas for atlas, _ in item.atlases}
        begun = begun or bool(planned)
        if planned and not level.options.running.no_report:
            person = f"sub-{participant}"
            yield f"  -> {person}.html, with figures in {person}/figures"
    if begun:
        yield f"-> {' '.join(ROOT_FILES)}, and a line per run in logs/"
        for atlas in atlases.values():
            yield f"-> {' '.join(name_atlas_files(atlas))}"


def _describe_run(
    item: PlannedRun, level: ParticipantLevel, outcomes: Outcomes
) -> Iterator[str]:
    yield item.run.relative_path
    if item.error is not None:
        outcomes.n_impossible += 1
        yield f"  cannot be processed: {item.error}"
        return
    image = item.image
    if image is not None:
        source = image.source
        yield f"  {source.n_volumes} volumes, {image.frame}, {template_of(item.run)}"
        memory = estimate_memory(source, level.options) / 10**6
        yield f"  memory  about {memory:.0f} MB"
    yield f"  mask    {item.mask_path or 'none'}"
    path = item.run.confounds_path
    yield f"  confounds  {path.name if path else 'none found'}"
    try:
        if path is not None:
            check_file(path)
    except BidsRoiError as error:
        outcomes.n_impossible += any(label is not None for label in level.labels)
        yield f"  confounds cannot be read: {error}"
    seconds = item.repetition_time
    yield f"  repetition time  {f'{seconds:g} s' if seconds else 'not known'}"
    for warning in item.warnings:
        yield f"  warning  {warning}"
    for atlas, names in item.atlases:
        yield f"  atlas {atlas.name}, {len(atlas.regions.index)} regions"
        for path, inverted in atlas.route.steps if atlas.route else ():
            yield f"    by {path.name}{', inverted' if inverted else ''}"
        yield f"    -> {_fold(names.tables)}.{{tsv,json}}"
    outliers = {table for _, names in item.atlases for _, table in names.outliers}
    for table in sorted(outliers):
        yield f"  -> {_fold([table])}.{{tsv,json}}"
    for name, why in item.refused:
        outcomes.n_impossible += not isinstance(why, SpaceMismatch)
        yield f"  atlas {name} is left out: {why}"


def _fold(tables: Sequence[str]) -> str:
    """Names of tables in one word of a shell, without what follows the dot.

    >>> _fold(["a/x_dseg.tsv", "a/x_stat-mean_timeseries.tsv"])
    'a/x_{dseg,stat-mean_timeseries}'
    """
    stems = [table.removesuffix(".tsv") for table in tables]
    common = os.path.commonprefix(stems).rpartition("_")[0]  # noqa: RUF071 - cut to parts
    ends = ",".join(stem.removeprefix(f"{common}_") for stem in stems)
    return f"{common}_{{{ends}}}" if stems[1:] else stems[0]
