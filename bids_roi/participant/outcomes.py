"""Outcomes of the runs of a dataset: counted, told, and put on pages."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi.dataset.layout import asks_for_session
from bids_roi.dataset.partners import Sidecars
from bids_roi.errors import (
    MissingInput,
    OutputError,
    SpaceMismatch,
    count_of,
    say,
    say_of_atlas,
    say_time,
    shorten_reason,
)
from bids_roi.files.listing import list_folder
from bids_roi.files.names import parse_name
from bids_roi.files.tables import remove_leftovers
from bids_roi.outputs.records import (
    NOT_CLEANED,
    forget_loss,
    note_command,
    sweep_leftovers,
    tell_failures,
    write_loss,
    write_records,
)
from bids_roi.participant.description import describe_run
from bids_roi.participant.existing import OtherSettings
from bids_roi.participant.run import fail_run
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bids_roi.atlases.open import Atlas
    from bids_roi.errors import BidsRoiError
    from bids_roi.outputs.records import Record
    from bids_roi.participant.combined import Combined
    from bids_roi.participant.level import ParticipantLevel
    from bids_roi.participant.plan import PlannedRun
    from bids_roi.schedule.outcome import Outcome


log = logging.getLogger("bids_roi")

_NAMED = 5  # participants in one message
WORDS = {
    "done": "extracted",
    "complete": "already there",
    "skipped": "skipped",
    "failed": "failed",
}
# Mostly the same in all runs of a dataset; two hemispheres go by the left one's file.
_OF_THE_GRID = ("space", "res", "den", "desc", "hemi")
_GOOD = ("done", "complete")
_SHOWN = 5


class Outcomes:
    """What became of the runs of one call.

    ``empty`` are participants without a run of whom nobody asked for one, ``errors``
    why others could not be planned, ``closed`` why sessions could not be listed;
    ``other_settings`` lists runs by what differs;
    ``used`` are atlases that served a run, ``not_combined`` why matrices over runs, or
    of conditions, could not be made; ``unread`` are participants whose logs or outputs
    cannot be read or added to, and why; ``n_impossible`` is of a dry run.
    """

    def __init__(self, level: ParticipantLevel, command: str = "") -> None:
        self.level = level
        self._command = command
        self.tally = Tally()
        self.warnings: Counter[str] = Counter()
        self.errors: dict[str, BidsRoiError] = {}
        self.closed: dict[str, BidsRoiError] = {}
        self.empty: list[str] = []
        self.n_impossible = 0
        self.other_settings: dict[str, list[str]] = {}
        self.used: dict[str, Atlas] = {}
        self.not_combined: list[str] = []
        self.unread: dict[str, BidsRoiError] = {}
        self._sidecars = Sidecars(level.root)
        self._refusals: dict[str, BidsRoiError] = {}
        self._told: set[str] = set()
        self._under_way: set[str] = set()
        self._runs_left: Counter[str] = Counter()
        self._with_news: set[str] = set()
        self._changed: set[str] = set()
        self._n_crashed = 0
        self._began = time.monotonic()
        self._code_of_failure = 1

    def tell_start(self, surveyed: Mapping[str, tuple[int, int]]) -> None:
        """Say in one line what is about to be done."""
        level = self.level
        if not log.isEnabledFor(logging.WARNING):
            return
        n_people = len(level.participants)
        n_runs = sum(runs for runs, _ in surveyed.values())
        n_bytes = sum(size for _, size in surveyed.values())
        if not n_runs:  # why is told in a moment
            return
        what = f"{count_of(n_runs, 'run')} ({n_bytes / 10**6:.0f} MB)"
        if surveyed and len(surveyed) < n_people:
            what = f"about {n_runs * n_people // len(surveyed)} runs"
        say(
            f" {__version__}: {what} of {count_of(n_people, 'participant')},"
            f" atlas {', '.join(level.shelf.names)}, to {level.output_dir}"
        )

    def expect(self, participant: str, planned: Iterable[PlannedRun]) -> None:
        """Take note of the runs of a participant, and of the atlases they refuse."""
        self._sidecars.forget_participant()
        for item in planned:
            self._runs_left[f"sub-{participant}"] += 1
            for name, why in item.refused:
                known = self._refusals.setdefault(name, why)
                if isinstance(known, SpaceMismatch):  # damage weighs more
                    self._refusals[name] = why

    def lose(self, participant: str, error: BidsRoiError) -> None:
        """Record a participant of which nothing can be planned; the others go on."""
        if not self.level.options.running.dry_run:
            person = f"sub-{participant}"
            # A job of another session, which may find the participant, forgets it else.
            asked = self.level.options.input.session_label
            lost = [f"{person}_ses-{label}" for label in asked] or [person]
            with self._costs_one(person):
                for name in lost:
                    write_loss(self.level.output_dir, name, str(error))
        if len(self.level.participants) == 1:
            raise error
        log.error("sub-%s: %s", participant, error)
        self.errors[participant] = error

    def keep(self, participant: str) -> None:
        """Forget that an earlier call could not plan a participant, or a session."""
        if not self.level.options.running.dry_run:
            person = f"sub-{participant}"
            # A call of one session makes nothing of the others.
            own = () if self.level.options.input.session_label else (person,)
            with self._costs_one(person):
                for loss in (*own, *self._find_again(person)):
                    forget_loss(self.level.output_dir, loss)

    def _find_again(self, person: str) -> Iterator[str]:
        """Sessions that an earlier call could not list, and that are no loss now.

        Not those that this call is not asked for: nothing is made of them.
        """
        level = self.level
        given = level.root, level.participants, level.options.input
        for name in list_folder(level.output_dir / "logs" / person):
            loss = name.partition(".")[0]
            session = loss.removeprefix(f"{person}_")
            if session.startswith("ses-") and "_" not in session:
                if not asks_for_session(*given, session[4:]):
                    continue
                folder = level.root / person / session
                with contextlib.suppress(MissingInput):
                    list_folder(folder)
                    list_folder(folder / "func")
                    yield loss

    def lose_sessions(self, planned: list[PlannedRun]) -> list[PlannedRun]:
        """Record the sessions that cannot be listed; returns the runs of others."""
        others = [item for item in planned if not item.run.is_session]
        for item in planned:
            if item.run.is_session and item.error is not None:
                person = f"sub-{item.run.participant}"
                name = f"{person}_ses-{item.run.session}"
                if not self.level.options.running.dry_run:
                    with self._costs_one(person):
                        write_loss(self.level.output_dir, name, str(item.error))
                self.closed[name] = item.error
                if others or len(self.level.participants) > 1 or len(planned) > 1:
                    log.error("%s: %s", name, item.error)
        return others

    @contextlib.contextmanager
    def _costs_one(self, participant: str) -> Iterator[None]:
        """Go on with the other participants where the files of one fail.

        A disk that is full, or logs/ that cannot be written, is of all of them, and
        ends the call.
        """
        try:
            yield
        except (MissingInput, OutputError) as error:
            closed = isinstance(error.__cause__, PermissionError)
            logs = self.level.output_dir / "logs" / participant
            closed &= os.path.isdir(logs)  # noqa: PTH112 - no error where it is closed
            if isinstance(error, OutputError) and not closed:
                raise
            if participant not in self.unread:
                log.error("%s: %s", participant, error)
                self.unread[participant] = error

    def tell_empty(self) -> None:
        """Say of whom nothing is there or selected."""
        if self.empty:
            log.warning("%s", self._say_empty())

    def _say_empty(self) -> str:
        names = ", ".join(f"sub-{label}" for label in self.empty[:_NAMED])
        more = ", ..." if len(self.empty) > _NAMED else ""
        everyone = count_of(len(self.level.participants), "participant")
        share = f"{len(self.empty)} of {everyone}"
        return f"no run of {share} is there or selected: {names}{more}."

    def begin(self, item: PlannedRun) -> None:
        """Take note of a run that is handed out; with -v, say what it will be."""
        self._under_way.add(item.run.relative_path)
        if log.isEnabledFor(logging.INFO):
            for line in describe_run(item, self.level.options, self._sidecars):
                log.info("%s", line)

    def note(
        self, outcome: Outcome[PlannedRun, list[Record]], *, found: bool = False
    ) -> list[Record]:
        """Count, tell and return what became of a run, which may have been there."""
        item, records, error = outcome.item, outcome.value, outcome.error
        level, run = self.level, outcome.item.run.relative_path
        participant = run.partition("/")[0]
        self._under_way.discard(run)
        if records is None:
            error = error or RuntimeError("no outcome")
            records = fail_run(item, error, level.strategies)
            if not isinstance(error, OtherSettings):  # it was left as it is
                with self._costs_one(participant):
                    write_records(level.output_dir, run, records)
            log.debug("%s", outcome.trace)
        if isinstance(error, OtherSettings):
            self.refuse(item, error)
        else:
            self._with_news.add(participant)
            if not found:
                self._changed.add(participant)
            self._n_crashed += outcome.value is None
            self._tell_failures(item, records, crashed=outcome.value is None)
        self._tell_end(item, records)
        self.tally.add(records)
        beside = {None}.issubset(level.labels) and len(level.labels) > 1
        for _, warning in {(r.atlas, w): None for r in records for w in r.warnings}:
            if not (beside and warning == NOT_CLEANED):
                self.warnings.update([warning])
        self._runs_left[participant] -= 1
        if not self._runs_left[participant]:
            with self._costs_one(participant):
                self._relate_more(participant)
            self._write_page(participant)
        return records

    def _relate_more(self, participant: str) -> None:
        """Make the matrices over runs and of conditions, once all runs have ended.

        Here, and not in a worker: of what is on disk, whoever has put it there.
        """
        level, folder = self.level, self.level.output_dir
        if level.options.connectivity.combine_runs:
            from bids_roi.participant.combined import combine_runs

            self._note_more(
                participant, combine_runs(folder, participant, level.options)
            )
        if level.options.connectivity.conditions:
            from bids_roi.participant.conditions import relate_conditions

            done = relate_conditions(folder, level.root, participant, level.options)
            self._note_more(participant, done)

    def _note_more(self, participant: str, done: Combined) -> None:
        # What is said of the runs already is not said of them all once more.
        # Looked up one by one: a set of all warnings, for each participant, would grow.
        new = [n for n in {*done.notes} if n not in self.warnings and n != NOT_CLEANED]
        self.warnings.update(new)
        for text in done.errors:
            log.error("%s", text)
        self.not_combined += done.errors
        if done.changed:
            self._changed.add(participant)
            self._with_news.add(participant)

    def _tell_end(self, item: PlannedRun, records: list[Record]) -> None:
        """With -v, say what became of a run; with -vv, of all that it made."""
        seconds = max((record.seconds for record in records), default=0.0)
        memory = max((record.peak_memory_bytes for record in records), default=0)
        words = ", ".join(sorted({WORDS[record.status] for record in records}))
        log.info(
            *("%s: %s, %.1f s, %d MB", item.run.relative_path, words, seconds),
            memory // 10**6,
        )
        for record in records:
            log.debug(
                *("  %s, %s: %s", record.atlas, record.strategy, WORDS[record.status]),
            )
            for output in record.outputs:
                log.debug("    %s", output)

    def refuse(self, item: PlannedRun, error: OtherSettings) -> None:
        """Take note of a run that is left as it is; told at the end."""
        text = f"{error.problem} {error.remedy}"
        self.other_settings.setdefault(text, []).append(item.run.relative_path)

    def tell_other_settings(self) -> None:
        """Say once for the dataset what outputs are there of other settings."""
        for text, runs in self.other_settings.items():
            where = f"{len(runs)} runs, the first {runs[0]}" if runs[1:] else runs[0]
            left = "These runs were left as they are."
            left = left if runs[1:] else "The run was left as it is."
            log.error("%s: %s %s", where, text, left)

    def check_used(self) -> None:
        """Report an atlas that was asked for and served no run."""
        if self._n_crashed:
            return
        for name in self.level.shelf.names:
            error = self._refusals.get(name)
            if name in self.used or error is None:
                continue
            if isinstance(error, SpaceMismatch):
                raise error
            self._code_of_failure = error.exit_code  # told when it was met

    def close(self) -> None:
        """End a call that may have been stopped: no half-written file, all pages."""
        # What stopped workers left half-written.
        sweep_leftovers(self.level.output_dir, self._under_way)
        for participant in sorted(self.tally.participants):
            if self._runs_left[participant]:
                self._write_page(participant)
        self.tell_other_settings()

    @property
    def exit_code(self) -> int:
        """What the call ends with: 1 for failures, more where an atlas was no use."""
        if self.level.options.running.dry_run:
            refused = self.n_impossible or self.errors or self.other_settings
            refused = refused or self.closed
            return 1 if refused else 0
        lost = self.other_settings or self.errors or self.not_combined or self.unread
        failed = self.tally.n_failed_runs or lost or self.closed
        return self._code_of_failure if failed else 0

    def summary(self) -> str:
        """One screen: how many runs, what became of them, where to look."""
        lines = self.tally.lines(self.level.shelf.names)
        lines[0] += f", in {say_time(time.monotonic() - self._began)}"
        errors = {f"sub-{label}": error for label, error in self.errors.items()}
        lost = [
            f"  failed: {name}: {shorten_reason(str(error))}"
            for name, error in (errors | self.closed).items()
        ]
        lines += [
            f"  failed: {shorten_reason(text)}" for text in self.not_combined[:_NAMED]
        ]
        if len(self.not_combined) > _NAMED:
            n_more = len(self.not_combined) - _NAMED
            lines.append(f"  ... and {n_more} more matrices: see logs/")
        if n := len(self.unread):
            person, why = next(iter(self.unread.items()))
            more = f" and {count_of(n - 1, 'participant')} more" if n > 1 else ""
            lines.append(f"  failed: {person}{more}: {shorten_reason(str(why))}")
        if n := len(errors):
            people = count_of(n, "participant").partition(" ")[2]
            lines.append(f"  {n:5d}  {people} of whom nothing could be planned")
        if n := len(self.closed):
            sessions = count_of(n, "session").partition(" ")[2]
            lines.append(f"  {n:5d}  {sessions} of which nothing could be planned")
        lines += lost[:_NAMED]
        if len(lost) > _NAMED:
            lines.append(f"  ... and {len(lost) - _NAMED} more: see logs/")
        if self.empty:
            lines.append(f"  {self._say_empty()}")
        known = lost or self.not_combined or self.unread
        if known or self.tally.n_failed_runs:
            lines.append("  what to do about it is said above, and in logs/")
        folder = self.level.output_dir
        pages = [f"{p}.html" for p in sorted(self.tally.participants)]
        pages = [str(folder / page) for page in pages if (folder / page).is_file()]
        if pages and not self.level.options.running.no_report:
            more = f", and {len(pages) - 1} more" if pages[1:] else ""
            lines.append(f"  report {pages[0]}{more}")
        lines.append(f"  outputs in {folder}, one status line per run in logs/")
        return "\n".join(lines)

    def _tell_failures(
        self, item: PlannedRun, records: list[Record], *, crashed: bool
    ) -> None:
        """Say what failed; what all runs share once, as the summary counts it."""
        # What is wrong with an atlas is told of the atlas, unless the run crashed.
        at_fault = set() if crashed else {name for name, _ in item.refused}
        for text in tell_failures([r for r in records if r.atlas not in at_fault]):
            located = _locate(text, item)
            if text == located or text not in self._told:
                log.error("%s", located)
            self._told.add(text)
        for name, why in item.refused:
            if isinstance(why, SpaceMismatch):
                continue
            text = str(why)
            if not self.level.shelf.is_shared(name):
                text = _locate(text, item)
            elif text in self._told:
                continue
            else:
                self._told.add(text)
            log.error("%s", say_of_atlas(name, text))

    def _write_page(self, participant: str) -> None:
        remove_leftovers(self.level.output_dir / participant / "figures")
        running, folder = self.level.options.running, self.level.output_dir
        if participant not in self._with_news:
            return
        if self._command:
            made = participant in self._changed
            with self._costs_one(participant):
                note_command(folder, participant, self._command, made=made)
        if running.no_report:
            return
        from bids_roi.report.participant import is_current, write_page

        trusted = participant not in self._changed and not running.verify
        if trusted and is_current(folder, participant):
            return
        if note := write_page(folder, participant):
            self.warnings.update([note])


def _locate(text: str, item: PlannedRun) -> str:
    path = item.run.relative_path
    return text if Path(path).name in text else f"{path}: {text}"


@dataclass(slots=True)
class Tally:
    """Counts over the runs seen so far.

    ``statuses`` count runs x atlases, failed where nothing could be made;
    ``n_failed_strategies`` runs x strategies that failed where others of the run did
    not; ``n_with_losses`` runs x atlases with regions lost, ``worst`` the one with
    most. ``coverage`` is the sum of the mean coverages of the good ones. ``reasons``
    has the first of ``n_reasons`` failures, ``skips`` the first reasons to leave an
    atlas out.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    n_failed_strategies: int = 0
    participants: set[str] = field(default_factory=set)
    n_runs: int = 0
    n_failed_runs: int = 0
    coverage: float = 0.0
    n_with_losses: int = 0
    worst: Record | None = None
    n_reasons: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    skips: list[str] = field(default_factory=list)

    def add(self, records: Sequence[Record]) -> None:
        """Count one run, by its records of all atlases and strategies."""
        self.n_runs += 1
        atlases: dict[str, list[Record]] = {}
        for record in records:
            self.participants.add(record.run.partition("/")[0])
            atlases.setdefault(record.atlas, []).append(record)
        partly: set[str] = set()
        told: dict[str, None] = {}
        for own in atlases.values():
            good = [record for record in own if record.status in _GOOD]
            texts = tell_failures(own)
            if good:
                found = {record.status for record in good}
                self.statuses["done" if "done" in found else "complete"] += 1
                self.coverage += good[0].coverage
                most = max(good, key=lambda record: record.n_lost)
                self.n_with_losses += most.n_lost > 0
                if most.n_lost > (0 if self.worst is None else self.worst.n_lost):
                    self.worst = most
                partly |= {r.strategy for r in own if r.status == "failed"}
                # The same of every atlas: told once.
                texts = [text for text in texts if text not in told]
                told |= dict.fromkeys(texts)
            else:
                self.statuses["failed" if texts else "skipped"] += 1
            for reason in (r.reason for r in own if r.status == "skipped"):
                if reason not in self.skips and len(self.skips) < _SHOWN:
                    self.skips.append(reason)
            self.n_reasons += len(texts)
            for text in texts:
                if text in self.reasons or len(self.reasons) < _SHOWN:
                    self.reasons[text] += 1
        self.n_failed_strategies += len(partly)
        self.n_failed_runs += any(record.status == "failed" for record in records)

    def lines(self, atlases: Sequence[str]) -> list[str]:
        """Put it into words: how many runs, what became of them."""
        people = count_of(len(self.participants), "participant")
        named = ", ".join(atlases)
        lines = [f"{count_of(self.n_runs, 'run')} of {people}, atlas {named}"]
        counts = self.statuses
        lines += [f"  {counts[k]:5d}  {word}" for k, word in WORDS.items() if counts[k]]
        if n := self.n_failed_strategies:
            these = "this run" if n == 1 else "these runs"
            lines.append(
                f"  {n:5d}  strateg{'y' if n == 1 else 'ies'} failed in a run; the"
                f" other outputs of {these} are there"
            )
        if n_good := sum(counts[key] for key in _GOOD):
            lines.append(f"  mean coverage {100 * self.coverage / n_good:.1f} %")
        if self.worst is not None:
            lines.append(
                f"  {self.n_with_losses} of them with regions lost (n/a columns); most:"
                f" {self.worst.n_lost} of {self.worst.n_regions} in"
                f" {_name_shortly(self.worst.run)}"
            )
        lines += [f"  skipped: {reason}" for reason in self.skips]
        for reason, count in self.reasons.items():
            times = f" ({count} times)" if count > 1 else ""
            lines.append(f"  failed: {shorten_reason(reason)}{times}")
        if more := self.n_reasons - self.reasons.total():
            lines.append(f"  ... and {more} more: see logs/")
        return lines


def _name_shortly(run: str) -> str:
    """What tells a run from others, in words.

    >>> _name_shortly("sub-01/func/sub-01_task-rest_run-2_space-X_bold.nii.gz")
    'sub-01 task-rest run-2'
    >>> _name_shortly("sub-01/func/sub-01_task-rest_hemi-L_space-X_bold.func.gii")
    'sub-01 task-rest'
    """
    entities = parse_name(run).entities
    return " ".join(f"{k}-{v}" for k, v in entities if k not in _OF_THE_GRID)
