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
from bids_roi.dataset.layout import explain_nothing, survey_runs
from bids_roi.dataset.partners import find_raw
from bids_roi.dataset.query import (
    dataset_description,
    find_derivative,
    list_participants,
)
from bids_roi.errors import (
    BidsRoiError,
    CollisionError,
    MissingInput,
    NothingFound,
    OutputError,
)
from bids_roi.files.listing import is_there
from bids_roi.outputs.records import sweep_leftovers
from bids_roi.outputs.root_files import (
    check_output_dir,
    keep_valid,
    write_atlas_files,
    write_dataset_files,
)
from bids_roi.participant.confounds import AROMA, list_datasets, load_strategies
from bids_roi.participant.existing import Existing, OtherAtlas, OtherSettings
from bids_roi.participant.extraction import planner_bytes, worker_count
from bids_roi.participant.plan import (
    PlannedRun,
    check_given_mask,
    kinds_for,
    plan_participants,
)
from bids_roi.participant.progress import Progress, follow
from bids_roi.participant.run import find_finished, open_job, process_run
from bids_roi.schedule.outcome import Outcome
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bids_roi.confounds.strategies import Strategy
    from bids_roi.options.record import Options
    from bids_roi.outputs.records import Record
    from bids_roi.participant.outcomes import Outcomes
    from bids_roi.schedule.outcome import Executor


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
    if options.connectivity.conditions:  # told now, and not after all runs
        find_raw(root, options.connectivity.raw_dataset)
    participants = tuple(list_participants(root, options.input.participant_label))
    strategies = load_strategies(options)
    shelf = AtlasShelf(options.atlases, options.input.space)
    own = list_datasets(options.cleaning)
    if both := sorted(own.keys() & shelf.links.keys()):
        flag = "--confounds-dataset" if both[0] != AROMA else "--aroma-dataset"
        msg = f"{flag} and --atlas-dataset are both called {both[0]}."
        raise CollisionError(msg, remedy="Rename one: sidecars tell them by it.")
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
            planned = outcomes.lose_sessions(planned)
        if not served and not any(item.atlases or item.error for item in planned):
            refused = [pair for item in planned for pair in item.refused]
            _check_present(refused, level.shelf)
        served = served or any(item.atlases for item in planned)
        n_planned += len(planned)
        yield participant, planned
    if not n_planned:
        if lost := outcomes.errors | outcomes.closed:
            raise next(iter(lost.values()))
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
    known = check_settings(level, outcomes)
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
    surveyed = survey_runs(
        level.root, level.participants, options.input, kinds_for(level.shelf)
    )
    outcomes.tell_start(surveyed)
    with follow(
        options.running.events,
        level.root,
        quiet=not log.isEnabledFor(logging.WARNING),
        surveyed=surveyed,
        participants=len(level.participants),
        version=__version__,
        executor=type(executor).__name__.lower(),
        input=str(level.root),
        output=str(output_dir.absolute()),
    ) as progress:
        planned = _announce(level, known, source, outcomes, progress, find)
        try:
            stops = options.running.stop_on_first_crash
            results = executor.map(work, planned, eager=not stops)
            with contextlib.closing(results) as done:
                for outcome in done:
                    progress.finish(outcome.item, outcomes.note(outcome))
                    if stops and outcomes.tally.n_failed_runs:
                        progress.status = "stopped"
                        return
            _check_still_there(level, there, outcomes)
            outcomes.check_used()
        finally:
            outcomes.close()
            keep_valid(output_dir, level.participants[0])


def choose_executor(options: Options, output_dir: Path) -> Executor:
    """Say where runs are processed, and how many at a time.

    An executor is imported where it is chosen: workers need none.
    """
    timeout = options.running.run_timeout
    memory_bytes = options.running.mem_mb and options.running.mem_mb * 10**6
    if options.running.executor == "dask":
        from bids_roi.schedule.cluster import Dask

        return Dask(
            worker_count(options), memory_bytes, options.running.dask_scheduler, timeout
        )
    if options.running.executor == "slurm":
        from bids_roi.schedule.cluster import Slurm

        return Slurm(
            output_dir / "logs" / "slurm",
            n_jobs=options.running.slurm_jobs or 4,
            partition=options.running.slurm_partition,
            account=options.running.slurm_account,
            walltime=options.running.slurm_walltime,
            n_cpus=options.running.n_procs,
            memory_bytes=memory_bytes,
            timeout=timeout,
        )
    if not planner_bytes(options):
        from bids_roi.schedule.outcome import Serial

        return Serial(timeout)  # asked for, or no room for a second process
    from bids_roi.schedule.processes import Processes

    return Processes(worker_count(options), timeout)


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


def check_settings(
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
    there = [p for p in level.participants if _may_be_there(level.output_dir, p)]
    for part in (there[:_LOOKED_AT], there[_LOOKED_AT:]):
        for participant, planned in _plan(level, part):
            if isinstance(planned, BidsRoiError):
                continue  # told when its turn comes
            if sum(map(len, plans.values())) < _KEPT:
                plans[participant] = planned
            for item in planned:
                try:
                    Existing(
                        open_job(
                            item, level.options, level.strategies, level.output_dir
                        )
                    ).check()
                except (OtherAtlas, MissingInput):  # told when its turn comes, too
                    continue
                except OtherSettings as error:
                    outcomes.refuse(item, error)
        if not outcomes.other_settings:
            break
    return plans


def _may_be_there(output_dir: Path, participant: str) -> bool:
    try:
        return is_there(output_dir / f"sub-{participant}")
    except MissingInput:  # told when its turn comes
        return True


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
    for participant, planned in plans:
        known.pop(participant, None)
        outcomes.expect(participant, planned)
        progress.expect(participant, planned)
        sweep_leftovers(level.output_dir, [item.run.relative_path for item in planned])
        for item in planned:
            if not begun:
                begun = True
                own = list_datasets(level.options.cleaning)
                links = level.shelf.links | {k: where for k, (where, _) in own.items()}
                notes = write_dataset_files(level.output_dir, level.root, source, links)
                outcomes.warnings.update(notes)
            for atlas, _ in item.atlases:
                if atlas.name not in outcomes.used:
                    notes = write_atlas_files(level.output_dir, atlas)
                    outcomes.warnings.update(notes)
                outcomes.used[atlas.name] = atlas
            progress.plan(item)
            outcomes.begin(item)
            # Here, as to hand it to a worker, and to start one, would take longer.
            records = find(item)
            if records is None:
                yield item
            else:
                progress.finish(
                    item, outcomes.note(Outcome(item, records, None), found=True)
                )
