"""The participant level over a dataset: plan, process, remember, summarise."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi.atlases.shelf import AtlasShelf
from bids_roi.dataset.layout import explain_nothing
from bids_roi.dataset.roots import (
    dataset_description,
    find_derivative,
    list_participants,
)
from bids_roi.errors import BidsRoiError, MissingInput, SpaceMismatch
from bids_roi.outputs.records import tell_failures, write_records
from bids_roi.outputs.root_files import (
    check_output_dir,
    write_atlas_files,
    write_dataset_files,
)
from bids_roi.participant.budget import choose_executor, estimate_memory
from bids_roi.participant.cleaning import load_strategies
from bids_roi.participant.pages import write_page
from bids_roi.participant.plan import (
    PlannedRun,
    check_given_mask,
    plan_participant,
    template_of,
)
from bids_roi.participant.progress import Progress, follow
from bids_roi.participant.results import Job
from bids_roi.participant.run import (
    OtherAtlas,
    OtherSettings,
    check_run,
    fail_run,
    process_run,
)
from bids_roi.participant.tally import Tally
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bids_roi.atlases.open import Atlas
    from bids_roi.options.record import Options
    from bids_roi.outputs.records import Record
    from bids_roi.schedule.outcome import Outcome


log = logging.getLogger("bids_roi")

# Participants whose outputs are held against the options before anything is written; a
# folder that was made with one call is told by the first of them.
_LOOKED_AT = 20


class ParticipantLevel:
    """One call of ``bids_roi BIDS_DIR OUTPUT_DIR participant``.

    Parameters
    ----------
    bids_dir
        The derivative, or a raw dataset that holds it.
    output_dir
        Where the outputs go.
    options
        What was asked for.

    Raises
    ------
    BidsRoiError
        If nothing can be done at all; nothing has been written then.
    """

    def __init__(self, bids_dir: Path, output_dir: Path, options: Options) -> None:
        self.options = options
        self.output_dir = output_dir
        self.root = find_derivative(bids_dir, options.derivatives)
        self.participants = list_participants(self.root, options.participant_label)
        self.strategies = load_strategies(options)
        self.shelf = AtlasShelf(options)
        self.tally = Tally()
        self.errors: dict[str, BidsRoiError] = {}
        self.n_planned = 0
        self.warnings: Counter[str] = Counter()
        self._n_asked = 0
        self._under_way: set[str] = set()
        self._runs_left: Counter[str] = Counter()
        self._refusals: dict[str, BidsRoiError] = {}
        self._told: set[str] = set()
        self._n_crashed = 0
        self._code_of_unused = 1
        self._used: dict[str, Atlas] = {}
        self._touched: set[str] = set()
        self.other_settings: dict[str, list[str]] = {}
        self.n_refused = 0

    @property
    def labels(self) -> tuple[str | None, ...]:
        """Labels of the denoising strategies; ``None`` for raw signals."""
        return tuple(s.label if s is not None else None for s in self.strategies)

    def plan(self) -> Iterator[PlannedRun]:
        """Plan one participant after the other, so that work can begin at once."""
        for number, participant in enumerate(self.participants):
            self._n_asked = number + 1
            try:
                planned = plan_participant(
                    self.root, participant, self.options, self.shelf, self.labels
                )
            except BidsRoiError as error:
                if len(self.participants) == 1:
                    raise
                # The other participants go on.
                log.error("sub-%s: %s", participant, error)
                self.errors[participant] = error
                continue
            self.n_planned += len(planned)
            self._runs_left[f"sub-{participant}"] = len(planned)
            for item in planned:
                for name, why in item.refused:
                    known = self._refusals.setdefault(name, why)
                    if isinstance(known, SpaceMismatch):  # damage weighs more
                        self._refusals[name] = why
            self._check_present(planned)
            yield from planned
        if self.n_planned == 0 and self.errors:
            raise next(iter(self.errors.values()))
        if self.n_planned == 0:
            raise explain_nothing(self.root, self.participants, self.options)

    def _check_present(self, planned: list[PlannedRun]) -> None:
        """Stop at once where no asked-for atlas can be had at all.

        An atlas of the participant's own says nothing of the other participants.
        """
        refused = [pair for item in planned for pair in item.refused]
        if not all(self.shelf.is_shared(name) for name, _ in refused):
            return
        reasons = [why for _, why in refused]
        used = any(item.atlases or item.error for item in planned)
        if reasons and not used and not self._used:
            missing = [why for why in reasons if isinstance(why, MissingInput)]
            if len(missing) == len(reasons):
                raise missing[0]

    def run(self) -> None:
        """Process every run.

        Raises
        ------
        BidsRoiError
            Where nothing could be done with any run, or an atlas fitted none.
        """
        check_given_mask(self.options)
        self._check_settings()
        if self.other_settings:
            self._say_other_settings()
            return
        check_output_dir(self.output_dir, self.root)
        source, notes = dataset_description(self.root)
        self.warnings.update(notes)
        work = functools.partial(
            process_run,
            options=self.options,
            output_dir=self.output_dir,
            strategies=self.strategies,
        )
        executor = choose_executor(self.options, self.output_dir)
        with follow(
            self.options.events,
            self.root,
            quiet=not log.isEnabledFor(logging.WARNING),
            version=__version__,
            executor=type(executor).__name__.lower(),
            participants=len(self.participants),
            input=str(self.root),
            output=str(self.output_dir.absolute()),
        ) as progress:
            try:
                planned = self._announced(source, progress)
                with contextlib.closing(executor.map(work, planned)) as outcomes:
                    for outcome in outcomes:
                        self._note(outcome, progress)
                        failed = self.tally.n_failed_runs > 0
                        if failed and self.options.stop_on_first_crash:
                            progress.status = "stopped"
                            break
                    else:
                        self._check_used()
            finally:
                for run in self._under_way:
                    # No news, but what stopped workers left half-written goes.
                    write_records(self.output_dir, run, [])
                for participant in sorted(self.tally.participants):
                    if self._runs_left[participant]:
                        self._write_page(participant)
                self._say_other_settings()

    def _check_settings(self) -> None:
        """Refuse outputs of other settings before anything is touched.

        All participants are looked at where one is refused, so that the message
        counts them. A segmentation that was made anew concerns its participant only.
        """
        if self.options.overwrite:
            return
        there = (
            p for p in self.participants if (self.output_dir / f"sub-{p}").is_dir()
        )
        for number, participant in enumerate(there):
            if number >= _LOOKED_AT and not self.other_settings:
                return
            try:
                planned = plan_participant(
                    self.root, participant, self.options, self.shelf, self.labels
                )
            except BidsRoiError:
                continue  # told when its turn comes
            for item in planned:
                try:
                    check_run(
                        Job(item, self.options, self.strategies, self.output_dir, ())
                    )
                except OtherAtlas:
                    continue
                except OtherSettings as error:
                    self.n_refused += 1
                    self._remember_refusal(error, item)

    def _remember_refusal(self, error: OtherSettings, item: PlannedRun) -> None:
        text = f"{error.problem} {error.remedy}"
        self.other_settings.setdefault(text, []).append(item.run.relative_path)

    def _say_other_settings(self) -> None:
        """Say once for the dataset what outputs are there of other settings."""
        for text, runs in self.other_settings.items():
            where = f"{len(runs)} runs, the first {runs[0]}" if runs[1:] else runs[0]
            log.error("%s: %s These runs were left as they are.", where, text)

    def _note(
        self, outcome: Outcome[PlannedRun, list[Record]], progress: Progress
    ) -> None:
        """Remember and show what became of a run."""
        item, records = outcome.item, outcome.value
        self._under_way.discard(item.run.relative_path)
        participant = item.run.relative_path.partition("/")[0]
        error = outcome.error
        refused = isinstance(error, OtherSettings)
        if records is None:
            error = error or RuntimeError("no outcome")
            records = fail_run(
                item,
                error,
                output_dir=self.output_dir,
                strategies=self.strategies,
                on_disk=not refused,
            )
            log.debug("%s", outcome.trace)
        if isinstance(error, OtherSettings):
            self._remember_refusal(error, item)
        else:
            self._touched.add(participant)
            own = records
            if outcome.value is None:
                self._n_crashed += 1
            else:  # what is wrong with an atlas is told of the atlas
                at_fault = {name for name, _ in item.refused}
                own = [record for record in records if record.atlas not in at_fault]
            for text in tell_failures(own):
                located = _locate(text, item)
                # Of a file that all runs share: once; the summary counts them.
                if text == located or text not in self._told:
                    log.error("%s", located)
                self._told.add(text)
            self._tell_refusals(item)
        self.tally.add(records)
        for _, warning in {(r.atlas, w): None for r in records for w in r.warnings}:
            self.warnings.update([warning])
        progress.finish(item, records)
        self._runs_left[participant] -= 1
        if not self._runs_left[participant]:
            self._write_page(participant)

    def _tell_refusals(self, item: PlannedRun) -> None:
        """Say which atlases are at fault; of one that all runs share, once."""
        for name, why in item.refused:
            if isinstance(why, SpaceMismatch):
                continue
            text = str(why)
            if self.shelf.is_shared(name):
                if text in self._told:
                    continue
                self._told.add(text)
            else:
                text = _locate(text, item)
            log.error("atlas %s: %s", name, text)

    def _write_page(self, participant: str) -> None:
        """Write a participant's page; where it cannot be, that is a warning."""
        if self.options.no_report or participant not in self._touched:
            return
        if note := write_page(self.output_dir, participant):
            self.warnings.update([note])

    def _announced(
        self, source: dict[str, object], progress: Progress
    ) -> Iterator[PlannedRun]:
        """Write the root files ahead of the first run that needs them."""
        begun = False
        for item in self.plan():
            if not begun:
                begun = True
                notes = write_dataset_files(
                    self.output_dir, self.root, source, self.shelf.links
                )
                self.warnings.update(notes)
            for atlas, _ in item.atlases:
                if atlas.name not in self._used:
                    self.warnings.update(write_atlas_files(self.output_dir, atlas))
                self._used[atlas.name] = atlas
            progress.plan(item, share=self._n_asked / len(self.participants))
            self._under_way.add(item.run.relative_path)
            yield item

    def _check_used(self) -> None:
        """Report an atlas that was asked for and served no run."""
        if self._n_crashed:
            return
        unused = [name for name in self.shelf.names if name not in self._used]
        for name in unused:
            error = self._refusals.get(name)
            if isinstance(error, SpaceMismatch):
                raise error
            if error is not None:  # told when it was met
                self._code_of_unused = error.exit_code

    @property
    def n_failed(self) -> int:
        """Runs that failed or were refused, participants that could not be planned."""
        return self.tally.n_failed_runs + self.n_refused + len(self.errors)

    @property
    def exit_code(self) -> int:
        """What the call ends with: 1 for failures, more where an atlas was no use."""
        return self._code_of_unused if self.n_failed else 0

    def summary(self) -> str:
        """One screen: how many runs, what became of them, where to look."""
        lines = self.tally.lines(self.shelf.names)
        lines += [f"  failed: sub-{p}: {e}" for p, e in list(self.errors.items())[:5]]
        lines.append(
            f"  outputs in {self.output_dir}, one status line per run in logs/"
        )
        return "\n".join(lines)


def describe_plan(level: ParticipantLevel) -> Iterator[str]:
    """Lines of ``--dry-run``: each run, what it will be read with and written to."""
    for item in level.plan():
        yield item.run.relative_path
        if item.error is not None:
            yield f"  cannot be processed: {item.error}"
            continue
        image = item.image
        if image is not None:
            source = image.source
            yield f"  {source.n_volumes} volumes, {image.grid}, {template_of(item.run)}"
            memory = estimate_memory(source, level.options) / 10**6
            yield f"  memory  about {memory:.0f} MB"
        confounds = item.run.confounds_path
        yield f"  mask    {item.mask_path or 'none'}"
        yield f"  confounds  {confounds.name if confounds else 'none found'}"
        seconds = item.repetition_time
        yield f"  repetition time  {f'{seconds:g} s' if seconds else 'not known'}"
        for warning in item.warnings:
            yield f"  warning  {warning}"
        for atlas, names in item.atlases:
            yield f"  atlas {atlas.name}, {len(atlas.regions.index)} regions"
            for name in names.tables:
                yield f"    -> {name}"
        for name, why in item.refused:
            yield f"  atlas {name} is left out: {why}"


def _locate(text: str, item: PlannedRun) -> str:
    path = item.run.relative_path
    return text if Path(path).name in text else f"{path}: {text}"
