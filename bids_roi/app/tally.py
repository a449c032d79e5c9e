"""What became of a dataset's runs, in counts: no list grows with the dataset."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_roi.app.records import Record

__all__ = ["Tally"]

_WORDS = {
    "done": "extracted",
    "complete": "already there",
    "skipped": "skipped",
    "failed": "failed",
}
_GOOD = ("done", "complete")
_SHOWN = 5


@dataclass(slots=True)
class Tally:
    """Counts over the runs seen so far.

    Attributes
    ----------
    statuses
        Runs x atlases of each status.
    participants
        Those seen, as ``sub-<label>``.
    n_runs, n_failed_runs
        Runs, and those of which an atlas failed.
    coverage
        Sum of the mean coverages of the good ones.
    n_with_losses
        Runs x atlases with regions lost.
    worst
        The one with most of them.
    reasons
        Of the first failures.
    skips
        The first different reasons why an atlas was not used on a run.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    participants: set[str] = field(default_factory=set)
    n_runs: int = 0
    n_failed_runs: int = 0
    coverage: float = 0.0
    n_with_losses: int = 0
    worst: Record | None = None
    reasons: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)

    def add(self, records: Sequence[Record]) -> None:
        """Count one run.

        Parameters
        ----------
        records
            One per atlas.
        """
        self.n_runs += 1
        for record in records:
            self.participants.add(record.run.partition("/")[0])
            self.statuses[record.status] += 1
            if record.status == "failed" and len(self.reasons) < _SHOWN:
                self.reasons.append(record.reason)
            if record.status == "skipped" and len(self.skips) < _SHOWN:
                self.skips += [record.reason] * (record.reason not in self.skips)
            if record.status in _GOOD:
                self.coverage += record.coverage
                self._note_losses(record)
        self.n_failed_runs += any(record.status == "failed" for record in records)

    def _note_losses(self, record: Record) -> None:
        if not record.n_lost:
            return
        self.n_with_losses += 1
        if self.worst is None or record.n_lost > self.worst.n_lost:
            self.worst = record

    def lines(self, atlases: Sequence[str]) -> list[str]:
        """Put it into words: how many runs, what became of them.

        Parameters
        ----------
        atlases
            Their names.
        """
        head = f"{self.n_runs} runs of {len(self.participants)} participants"
        lines = [f"{head}, atlas {', '.join(atlases)}"]
        counts = self.statuses
        lines += [
            f"  {counts[k]:5d}  {word}" for k, word in _WORDS.items() if counts[k]
        ]
        if n_good := sum(counts[key] for key in _GOOD):
            lines.append(f"  mean coverage {100 * self.coverage / n_good:.1f} %")
        if self.worst is not None:
            lines.append(
                f"  {self.n_with_losses} of them with regions lost (n/a columns); most:"
                f" {self.worst.n_lost} of {self.worst.n_regions} in"
                f" {PurePosixPath(self.worst.run).name}"
            )
        lines += [f"  skipped: {reason}" for reason in self.skips]
        for reason, count in Counter(self.reasons).items():
            times = f" ({count} times)" if count > 1 else ""
            lines.append(f"  failed: {reason}{times}")
        if counts["failed"] > _SHOWN:
            lines.append(f"  ... and {counts['failed'] - _SHOWN} more: see logs/")
        return lines
