"""What is seen of the work while it goes on: a bar, lines in a log, a stream of events.

The stream holds one JSON object a line, each with ``event`` and ``time`` (UTC, ISO
8601). Paths of runs are relative to the derivative, ``bytes`` are those of the BOLD
file, ``seconds`` wall time::

    start   version, executor, participants, input, output
    plan    run, bytes, volumes, atlases
    run     run, status, reason, seconds, bytes, peak_memory_bytes, atlases
    end     status, runs, seconds

``status`` of a run is ``failed`` where an atlas or a strategy of it failed, else
``done`` where one was extracted, else ``complete`` where all was there, else
``skipped``; ``atlases`` are then its atlases with their own. That of the end is
``finished``, ``stopped`` (at the first failure), ``interrupted`` or ``failed``, and
``runs`` counts runs by status.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi.dataset.layout import size_of
from bids_roi.errors import OutputError, say
from bids_roi.files.listing import real_path
from bids_roi.outputs.records import tell_failures

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TextIO

    from tqdm import tqdm

    from bids_roi.outputs.records import Record
    from bids_roi.participant.plan import PlannedRun


log = logging.getLogger("bids_roi")

# Between two lines in a log, and two looks at the bar, s.
_INTERVAL, _TICK = 30.0, 1.0
_STATUSES = ("failed", "done", "complete", "skipped")


def _gravest(records: Sequence[Record]) -> str:
    found = {record.status for record in records}
    return next((word for word in _STATUSES if word in found), "skipped")


class Progress:
    """Counts runs and bytes, and shows them.

    ``events`` is where events go, ``surveyed`` runs and bytes of participants as their
    names tell; ``quiet`` shows neither bar nor lines. ``status`` is how it ends.
    """

    def __init__(
        self,
        events: TextIO | None,
        *,
        quiet: bool,
        surveyed: Mapping[str, tuple[int, int]],
        n_participants: int,
    ) -> None:
        self._events = events
        self._began = self._said = time.monotonic()
        self._expected = dict(surveyed)
        self._n_expected = sum(runs for runs, _ in surveyed.values())
        self._n_expected_bytes = sum(size for _, size in surveyed.values())
        self._n_participants = n_participants
        self._sizes: dict[str, int] = {}
        self._open: dict[str, int] = {}  # by real path: those that are being read
        self._n_done_bytes = self._n_kept_bytes = 0
        self._quiet = quiet
        self.status = "finished"
        self.n_planned = self.n_bytes = 0
        self.runs: Counter[str] = Counter()
        self._bar: tqdm | None = None
        if sys.stderr.isatty() and not quiet:
            from tqdm import tqdm

            self._bar = tqdm(
                *(None, self._describe()),
                total=self.totals()[1],
                unit="B",
                unit_scale=True,
                leave=False,
                dynamic_ncols=True,
            )
        self._ended = threading.Event()
        if not quiet:
            threading.Thread(target=self._tick, daemon=True).start()

    def totals(self) -> tuple[int, int]:
        """Runs and bytes to come in all; those not looked at are like the others."""
        share = self._n_participants / max(1, len(self._expected))
        n_bytes = round(self._n_expected_bytes * share) - self._n_kept_bytes
        return round(self._n_expected * share), max(0, n_bytes)

    def tell(self, event: str, **facts: object) -> None:
        """Append an event to the stream."""
        if self._events is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = json.dumps({"event": event, "time": now, **facts})
            self._events.write(f"{line}\n")
            self._events.flush()

    def expect(self, participant: str, planned: Sequence[PlannedRun]) -> None:
        """Take note of the runs of a participant, which are known now."""
        for item in planned:
            self._sizes[item.run.relative_path] = sum(map(size_of, item.run.files))
        own = [self._sizes[item.run.relative_path] for item in planned]
        # Sums are kept, as they are shown after each run, of all participants.
        n_before, n_bytes_before = self._expected.get(participant, (0, 0))
        self._expected[participant] = len(own), sum(own)
        self._n_expected += len(own) - n_before
        self._n_expected_bytes += sum(own) - n_bytes_before

    def plan(self, item: PlannedRun) -> None:
        """Take note of a run that is handed out."""
        run = item.run.relative_path
        size = self._sizes.get(run, 0)
        self.n_planned += 1
        self._open[os.path.realpath(item.run.path)] = size
        self.tell(
            "plan",
            run=run,
            bytes=size,
            volumes=item.image.source.n_volumes if item.image is not None else None,
            atlases=[atlas.name for atlas, _ in item.atlases],
        )

    def finish(self, item: PlannedRun, records: Sequence[Record]) -> None:
        """Take note of what became of a run."""
        run = item.run.relative_path
        size = self._sizes.pop(run, 0)
        status = _gravest(records)
        self._open.pop(os.path.realpath(item.run.path), None)
        self.runs[status] += 1
        self.n_bytes += size if status == "done" else 0
        # What is there already is not read: it is no part of the work.
        kept = status in ("complete", "skipped")
        self._n_kept_bytes += size if kept else 0
        self._n_done_bytes += 0 if kept else size
        self.tell(
            "run",
            run=run,
            status=status,
            reason="; ".join(tell_failures(records))
            or next((r.reason for r in records if r.status == status), ""),
            seconds=max((r.seconds for r in records), default=0.0),
            bytes=size,
            peak_memory_bytes=max((r.peak_memory_bytes for r in records), default=0),
            atlases={
                name: _gravest([r for r in records if r.atlas == name])
                for name in dict.fromkeys(record.atlas for record in records)
            },
        )
        self._show()

    def _tick(self) -> None:
        while not self._ended.wait(_TICK):
            self._show()

    def _show(self) -> None:
        if self._bar is not None:
            with self._bar.get_lock():
                self._bar.set_description_str(self._describe(), refresh=False)
                self._bar.total = self.totals()[1]
                self._bar.n = self._n_done_bytes + count_read(dict(self._open))
                self._bar.refresh()
            return
        now = time.monotonic()
        if now - self._said >= _INTERVAL and not self._quiet:
            self._said = now
            say(f": {self.line()}")

    def _describe(self) -> str:
        failed = f", {self.runs['failed']} failed" if self.runs["failed"] else ""
        return f"{self.runs.total()} of {self.totals()[0]} runs{failed}"

    def line(self) -> str:
        """Say how far the work is, in one line."""
        total = self.totals()[1]
        n_read = self._n_done_bytes + count_read(dict(self._open))
        seconds = max(time.monotonic() - self._began, 1e-3)
        words = [self._describe(), f"{n_read / 10**6 / seconds:.1f} MB/s"]
        if n_read:
            from tqdm import tqdm

            left = seconds / n_read * max(0, total - n_read)
            words.append(f"about {tqdm.format_interval(left)} left")
        return ", ".join(words)

    def end(self) -> None:
        """Say the last word."""
        self._ended.set()
        if self._bar is not None:
            self._bar.close()
        seconds = round(time.monotonic() - self._began, 3)
        self.tell("end", status=self.status, runs=dict(self.runs), seconds=seconds)


def count_read(sizes: Mapping[str, int]) -> int:
    """Bytes of files that this process and its children have read so far.

    The system knows how far in a file each process is (Linux); elsewhere it is 0, and
    progress goes by whole runs.
    """
    n_read, pids, seen = 0, [str(os.getpid())], set()
    while pids and sizes:
        process = Path("/proc", pids.pop())
        with contextlib.suppress(OSError, ValueError):
            for link in process.joinpath("fd").iterdir():
                with contextlib.suppress(OSError):  # closed in the meantime
                    name = str(link.readlink())
                    if name in sizes and name not in seen:
                        state = process.joinpath("fdinfo", link.name).read_text()
                        n_read += min(int(state.split()[1]), sizes[name])
                        seen.add(name)
            for thread in process.joinpath("task").iterdir():
                pids += thread.joinpath("children").read_text().split()
    return n_read


@contextlib.contextmanager
def follow(
    events: str | None,
    root: Path,
    *,
    quiet: bool,
    surveyed: Mapping[str, tuple[int, int]],
    participants: int,
    **facts: object,
) -> Iterator[Progress]:
    """Show progress while the body works.

    ``events`` is a file to append events to (``-`` for standard output), which may not
    lie in ``root``, the input; ``facts`` are for the first of them. ``surveyed`` tells
    runs and bytes of participants as far as they are known before planning.
    """
    with contextlib.ExitStack() as stack:
        stream: TextIO | None = None
        if events == "-":
            stream = sys.stdout
        elif events is not None:
            stream = stack.enter_context(_open(Path(events), root))
        progress = Progress(
            stream, quiet=quiet, surveyed=surveyed, n_participants=participants
        )
        progress.tell("start", participants=participants, **facts)
        try:
            yield progress
        except KeyboardInterrupt:
            progress.status = "interrupted"
            raise
        except BaseException:
            progress.status = "failed"
            raise
        finally:
            progress.end()


def _open(path: Path, root: Path) -> TextIO:
    if real_path(path).is_relative_to(real_path(root)):
        msg = "the file of events would be inside the input, which is never changed."
        raise OutputError(msg, where=path, remedy="Choose another place for --events.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Appended to a line at a time: jobs may share a file. A pipe that nobody reads
        # is an error here (ENXIO); without NONBLOCK it would be waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o666)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "w", encoding="utf-8")
    except OSError as error:
        if error.errno == errno.ENXIO:
            msg = "the pipe for the events has no reader."
            remedy = "Start its reader first, or give a file to --events."
            raise OutputError(msg, where=path, remedy=remedy) from error
        msg = f"the file of events cannot be written ({error.strerror})."
        raise OutputError(msg, where=path, remedy="Check --events.") from error
