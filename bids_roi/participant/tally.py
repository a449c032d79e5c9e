"""What became of a dataset's runs, in counts: no list grows with the dataset."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bids_roi.errors import count_of
from bids_roi.files.names import parse_name
from bids_roi.outputs.records import shorten_reason, tell_failures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_roi.outputs.records import Record


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


@dataclass(slots=True)
class Tally:
    """Counts over the runs seen so far.

    Attributes
    ----------
    statuses
        Runs x atlases of each status; failed where nothing could be made.
    n_failed_strategies
        Runs x strategies that failed where others of the run did not.
    participants
        Those seen, as ``sub-<label>``.
    n_runs, n_failed_runs
        Runs, and those of which something failed.
    coverage
        Sum of the mean coverages of the good ones.
    n_with_losses
        Runs x atlases with regions lost.
    worst
        The one with most of them.
    n_reasons
        Failures that have a reason of their own.
    reasons
        Of the first of them, and how often each was met.
    skips
        The first different reasons why an atlas was not used on a run.
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
                self._note_losses(max(good, key=lambda record: record.n_lost))
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

    def _note_losses(self, record: Record) -> None:
        if not record.n_lost:
            return
        self.n_with_losses += 1
        if self.worst is None or record.n_lost > self.worst.n_lost:
            self.worst = record

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
