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
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi.errors import OutputError
from bids_roi.outputs.records import tell_failures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from tqdm import tqdm

    from bids_roi.outputs.records import Record
    from bids_roi.participant.plan import PlannedRun


log = logging.getLogger("bids_roi")

# Between two lines in a log, s.
_INTERVAL = 30.0
_STATUSES = ("failed", "done", "complete", "skipped")


def _gravest(records: Sequence[Record]) -> str:
    found = {record.status for record in records}
    return next((word for word in _STATUSES if word in found), "skipped")


class Progress:
    """Counts runs and bytes, and shows them.

    Parameters
    ----------
    events
        Where events go, ``None`` for nowhere.
    quiet
        Neither bar nor lines.

    Attributes
    ----------
    status
        How it ends: ``finished`` unless someone says otherwise.
    """

    def __init__(self, events: TextIO | None, *, quiet: bool) -> None:
        self._events = events
        self._began = self._said = time.monotonic()
        self._sizes: dict[str, int] = {}
        self._expected: int | None = None
        self._quiet = quiet
        self.status = "finished"
        self.n_planned = self.n_bytes = 0
        self.runs: Counter[str] = Counter()
        self._bar: tqdm | None = None
        if sys.stderr.isatty() and not quiet:
            from tqdm import tqdm

            self._bar = tqdm(unit="run", leave=False, dynamic_ncols=True)

    def tell(self, event: str, **facts: object) -> None:
        """Append an event to the stream."""
        if self._events is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = json.dumps({"event": event, "time": now, **facts})
            self._events.write(f"{line}\n")
            self._events.flush()

    def plan(self, item: PlannedRun, *, share: float) -> None:
        """Take note of a run to come; a ``share`` of the participants is planned."""
        run = item.run.relative_path
        with contextlib.suppress(OSError):
            self._sizes[run] = item.run.path.stat().st_size
        self.n_planned += 1
        # What is not planned yet is taken to be like what is.
        self._expected = round(self.n_planned / share) if share else None
        if self._bar is not None:
            self._bar.total = self._expected
        self.tell(
            "plan",
            run=run,
            bytes=self._sizes.get(run, 0),
            volumes=item.image.source.n_volumes if item.image is not None else None,
            atlases=[atlas.name for atlas, _ in item.atlases],
        )

    def finish(self, item: PlannedRun, records: Sequence[Record]) -> None:
        """Take note of what became of a run."""
        run = item.run.relative_path
        size = self._sizes.pop(run, 0)
        status = _gravest(records)
        self.runs[status] += 1
        self.n_bytes += size if status == "done" else 0
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
        if self._bar is not None:
            self._bar.set_postfix_str(self._speed(), refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        if now - self._said >= _INTERVAL and not self._quiet:
            self._said = now
            sys.stderr.write(f"bids_roi: {self.line()}\n")

    def line(self) -> str:
        """Say how far the work is, in one line."""
        n_done, expected = sum(self.runs.values()), self._expected or self.n_planned
        seconds = time.monotonic() - self._began
        words = [f"{n_done} of {expected} runs", self._speed()]
        if self.runs["failed"]:
            words.insert(1, f"{self.runs['failed']} failed")
        if n_done:
            from tqdm import tqdm

            left = seconds / n_done * max(0, expected - n_done)
            words.append(f"about {tqdm.format_interval(left)} left")
        return ", ".join(words)

    def _speed(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-3)
        return f"{self.n_bytes / 10**6 / seconds:.1f} MB/s"

    def end(self) -> None:
        """Say the last word."""
        if self._bar is not None:
            self._bar.close()
        seconds = round(time.monotonic() - self._began, 3)
        self.tell("end", status=self.status, runs=dict(self.runs), seconds=seconds)


@contextlib.contextmanager
def follow(
    events: str | None, root: Path, *, quiet: bool, **facts: object
) -> Iterator[Progress]:
    """Show progress while the body works.

    ``events`` is a file to append events to (``-`` for standard output), which may not
    lie in ``root``, the input; ``facts`` are for the first of them.
    """
    with contextlib.ExitStack() as stack:
        stream: TextIO | None = None
        if events == "-":
            stream = sys.stdout
        elif events is not None:
            stream = stack.enter_context(_open(Path(events), root))
        progress = Progress(stream, quiet=quiet)
        progress.tell("start", **facts)
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
    if path.resolve().is_relative_to(root.resolve()):
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
