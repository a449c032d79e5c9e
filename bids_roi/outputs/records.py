"""What was made of each run, and what became of it: digests, and lines of ``logs/``.

A sidecar holds the digest of its table's bytes (``TableDigest``). The record of a run
holds that digest too, with the table's size and time of change, by which a table is
known without being read.

Any number of jobs may write records of one run at once, on file systems where locks and
appending cannot be trusted. So a file of records keeps what it says: its name holds the
digest of that. Who writes merges all that it finds, writes it under a new name and then
removes what it merged, and nothing else. Two that do so at the same time leave two
files, each without the other's news; who reads merges them. The order of events is told
by a count, not by clocks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fnmatch
import hashlib
import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from bids_roi.errors import DataError, OutputError, count_of
from bids_roi.files.listing import (
    glob_folder,
    is_absent,
    is_there,
    list_folder,
    unreadable,
)
from bids_roi.files.tables import (
    Written,
    check_inside,
    file_digest,
    remove_leftovers,
    write_file,
    write_pair,
)
from bids_roi.outputs.schema import format_sidecar
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bids_roi.atlases.open import Atlas


@dataclass(frozen=True, slots=True)
class Digests:
    """Hashes of all that decides the numbers but the BOLD file; 12 digits each.

    Outputs that differ in ``options`` are never mixed. ``settings`` is without what
    each participant has files of their own of: the atlas image, transforms, surfaces.
    """

    options: str
    settings: str

    def describe(self) -> dict[str, str]:
        """Sidecar keys."""
        return {"OptionsDigest": self.options, "SettingsDigest": self.settings}


# Outputs of two releases are told apart, those of two commits on the way to one are
# not: else nothing would go on where it stopped after a commit. Sidecars say which.
def release_of(version: str) -> str:
    """Release that a version belongs to.

    >>> release_of("1.2.0.dev45"), release_of("1.2.0")
    ('1.2.0.dev', '1.2.0')
    """
    return re.sub(r"\.dev\d+$", ".dev", version)


def digest_outputs(options: str, atlas: Atlas, *more: object) -> Digests:
    """Hash all that decides the numbers but the BOLD file.

    ``options`` is the digest of those, ``more`` is what is done to it after
    extraction, in plain JSON values.
    """
    settings: list[Any] = [
        release_of(__version__),
        options,
        atlas.table_digest,
        list(atlas.regions.name),
        *more,
    ]
    own = [atlas.image_digest]
    if atlas.route is not None:
        if not atlas.individual:
            settings += own
        own = [*own, atlas.route.digest]
    if atlas.areas is not None:
        if atlas.areas.individual:
            own = [*own, atlas.areas.digest]
            settings.append("areas of the participant")
        else:
            settings.append(f"areas {atlas.areas.digest}")
    return Digests(_hash([*own, *settings]), _hash(settings))


def digest_condition(relmat: str, condition: str, shift: float) -> str:
    """Digest of the matrix of a condition, from that of the matrix of the whole run."""
    return _hash([relmat, condition, shift])


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def sidecar_of(name: str) -> str:
    """Name of a table's sidecar."""
    return name.removesuffix(".tsv") + ".json"


KEY = "TableDigest"
_PREFIX = "sha256:"


class Stamp(NamedTuple):
    """What a table was when it was written.

    Its path, relative to the output folder; size, time of change, SHA-256.
    """

    table: str
    size: int
    mtime_ns: int
    digest: str


class Making:
    """The tables that a call writes of one run; ``output_dir`` is where."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self._written: dict[str, tuple[Written, Written]] = {}

    def write(
        self,
        table: str,
        text: Iterable[str],
        kind: str,
        sidecar: Mapping[str, Any],
        columns: Mapping[str, str] | None = None,
    ) -> None:
        """Write a table and its sidecar, which describes columns.

        That of a strategy says so where it has no warning: pybids would take those of
        the signals as they are, whose name is the same without ``desc-``.
        """
        if kind in ("series", "relmat") and "_desc-" in table:
            sidecar = {**sidecar, "Warnings": sidecar.get("Warnings", [])}
        self._written[table] = write_pair(
            self.output_dir,
            table,
            text,
            sidecar_of(table),
            lambda digest: format_sidecar(
                kind, {**sidecar, KEY: f"{_PREFIX}{digest}"}, columns
            ),
        )

    def stamp(self, tables: Iterable[str]) -> tuple[Stamp, ...]:
        """Stamps of tables; ``OutputError`` where another call has replaced one.

        Tables that this call has not written are taken as they are.
        """
        return tuple(self._stamp(table) for table in tables)

    def _stamp(self, table: str) -> Stamp:
        names = (table, sidecar_of(table))
        paths = [self.output_dir / name for name in names]
        own = self._written.get(table, (None, None))
        for path, written in zip(paths, own, strict=True):
            try:
                state = path.stat()
                # Inode, size and time first: to read back every table that was just
                # written would double the bytes; a file that another job renames over
                # it has another inode.
                if written is None or written[:3] == (
                    state.st_ino,
                    state.st_size,
                    state.st_mtime_ns,
                ):
                    continue
                if file_digest(path) != written.digest:  # another job makes the same
                    msg = "another call has replaced the file while this one worked."
                    raise OutputError(msg, where=path, remedy=_ALONE)
            except OSError as error:
                msg = f"the file was written and is gone ({error.strerror})."
                raise OutputError(msg, where=path, remedy=_ALONE) from error
        state = paths[0].stat()
        digest = own[0].digest if own[0] is not None else file_digest(paths[0])
        return Stamp(table, state.st_size, state.st_mtime_ns, digest)


_ALONE = "Run the same command again, with no other in this output folder."


def renew_stamps(
    output_dir: Path,
    stamps: Iterable[Stamp],
    tables: Mapping[str, Mapping[str, Any] | None],
    *,
    verify: bool = False,
) -> tuple[Stamp, ...] | None:
    """Stamps of tables as they are now; ``None`` where one is not what was made.

    ``tables`` come with what their sidecars say, ``None`` where those are no use. A
    table is read where its time of change differs, as in a copy, or to ``verify`` it.
    """
    known = {stamp.table: stamp for stamp in stamps}
    found = []
    for table, sidecar in tables.items():
        stamp, path = known.get(table), output_dir / table
        if stamp is None or told_digest(sidecar or {}) != stamp.digest:
            return None
        try:
            state = path.stat()
            same = state.st_size == stamp.size
            # Copies and clones have new times and the same bytes: they are read once,
            # and the stamp is renewed so that the next call need not.
            if verify or state.st_mtime_ns != stamp.mtime_ns:
                same = same and file_digest(path) == stamp.digest
        except OSError:
            return None
        if not same:
            return None
        found.append(stamp._replace(mtime_ns=state.st_mtime_ns))
    return tuple(found)


def told_digest(sidecar: Mapping[str, Any]) -> str:
    """Digest of its table that a sidecar tells; empty where it does not."""
    told = sidecar.get(KEY)
    return told.removeprefix(_PREFIX) if isinstance(told, str) else ""


def check_table(
    path: Path,
    told: str,
    *,
    stamp: Stamp | None = None,
    verify: bool = True,
    digest: str = "",
) -> None:
    """Refuse a table that is not the one that its sidecar was written with.

    ``told``: digest from the sidecar; empty for one of an earlier release: nothing is
    known; ``stamp``: from the record; with the same size and time the table need not be
    read; ``verify``: read it all the same; ``digest``: of its bytes, where they have
    been read.
    """
    if not told:
        return
    try:
        if stamp is not None and not verify and stamp.digest == told:
            state = path.stat()
            if stamp[1:3] == (state.st_size, state.st_mtime_ns):
                return
        digest = digest or file_digest(path)
    except OSError as error:
        if is_absent(error):  # as a link to what is not here; whoever reads it says so
            return
        # Not so of a series: the group level lists it, and need not read it.
        raise unreadable("file", path, error) from error
    if digest != told:
        msg = "the table is not the one that its sidecar was written with."
        remedy = (
            "A call was stopped between the two, or the file was damaged or edited:"
            " run the participant level again, with the same options."
        )
        raise DataError(msg, where=path, remedy=remedy)


# In place of the atlas, where a run failed before it was known which ones fit.
NO_ATLAS = "n/a"
# In place of the strategy, for raw signals.
RAW = "none"
# Of matrices. Who asks for raw signals beside cleaned ones knows it.
NOT_CLEANED = (
    "connectivity of signals that were not cleaned: motion and physiology are in every"
    " entry (see --strategy)."
)
_FILE = re.compile(r"(.+)\.[0-9a-f]{12}\.jsonl", re.DOTALL)
# Of two events of which neither knew the other, the one that calls for attention wins.
_GRAVITY = ("complete", "done", "skipped", "failed")
_ATTEMPTS = 10
_GONE = "the link points to a file of records that is not here (datalad get it)."
# What differs between two calls that make the same of a run: not part of the digest.
_INCIDENTAL = ("seconds", "peak_memory_bytes", "revision")


@dataclass(frozen=True, slots=True)
class Record:
    """The outcome of one run, atlas and strategy."""

    # The BOLD file, relative to its dataset.
    run: str
    atlas: str
    # ``done``, ``complete`` (nothing to do), ``skipped`` or ``failed``.
    status: str
    # Why it was skipped or failed.
    reason: str = ""
    warnings: tuple[str, ...] = ()
    # digest and inputs: digest of the options; fingerprints of BOLD and mask.
    digest: str = ""
    inputs: tuple[str, ...] = ()
    # Time series, matrices and region table, relative to the output folder.
    outputs: tuple[str, ...] = ()
    # Of these tables and that of outliers, as they were written.
    stamps: tuple[Stamp, ...] = ()
    # Tables of which the making was begun and did not end: what lies under these
    # names may be of two makings.
    begun: tuple[str, ...] = ()
    # n_regions and n_lost: columns, and those of them that are n/a in a series.
    n_regions: int = 0
    n_lost: int = 0
    # Mean coverage over the regions, 0 to 1.
    coverage: float = 0.0
    # seconds and peak_memory_bytes: wall time; memory of the process so far.
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    # How many times records of this run were written before.
    revision: int = 0
    # Label of the strategy of cleaning, ``RAW`` for raw signals; empty where it holds
    # for all strategies.
    strategy: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What of a run it is of; of two with one key, the later holds."""
        return self.atlas, self.strategy


_Merged = dict[tuple[str, str], Record]
_FIELDS = frozenset(field.name for field in dataclasses.fields(Record))


def leave_out_numbers(text: str) -> str:
    """Take the numbers out of a message: what differs in them only is said once.

    Those within a name, such as 24P or sub-01, stay.
    """
    return re.sub(r"(?<![\w.-])[+-]?\d+(\.\d+)?(e[+-]?\d+)?(?![\w-])", "#", text)


def tell_failures(records: Iterable[Record]) -> list[str]:
    """Why a run failed, each reason once, with the strategies that it holds for.

    Where a reason holds for all strategies of an atlas, they are not named. Records
    that have not failed are passed over.
    """
    found = list(records)
    reasons: dict[str, list[Record]] = {}
    for record in found:
        if record.status == "failed":
            reasons.setdefault(record.reason, []).append(record)
    told = []
    for reason, failed in reasons.items():
        atlases = {record.atlas for record in failed}
        labels = dict.fromkeys(record.strategy for record in failed)
        word = "strategy" if len(labels) == 1 else "strategies"
        whole = len(failed) == sum(record.atlas in atlases for record in found)
        told.append(reason if whole else f"{word} {', '.join(labels)}: {reason}")
    return told


def note_command(
    output_dir: Path, participant: str, command: str, *, made: bool
) -> None:
    """Keep the command line of a call for the page of ``sub-<label>``.

    One that ``made`` nothing anew is kept only where there is no other.
    """
    # Not of the place of the outputs: the same call into two folders is the same.
    here = output_dir.absolute()
    words = [w for w in shlex.split(command) if Path(w).absolute() != here]
    digest = hashlib.sha256(shlex.join(words).encode()).hexdigest()[:12]
    folder, name = f"logs/{participant}", f"command_{digest}.txt"
    # Removed meanwhile: what is made anew would hide that.
    there = is_there(output_dir / folder)
    if there and (made or not glob_folder(output_dir / folder, "command_*.txt")):
        write_file(output_dir, f"{folder}/{name}", f"{command}\n")


def record_path(output_dir: Path, run: str) -> Path:
    """Where the records of a run are, but for the digests in the files' names."""
    name = PurePosixPath(run).name.partition(".")[0]
    return output_dir / "logs" / name.partition("_")[0] / name


def sweep_leftovers(output_dir: Path, runs: Iterable[str]) -> None:
    """Remove what killed processes left half-written beside the outputs of runs."""
    folders = {output_dir / PurePosixPath(run).parent for run in runs}
    for folder in folders | {record_path(output_dir, run).parent for run in runs}:
        remove_leftovers(folder)


def write_records(output_dir: Path, run: str, records: Iterable[Record]) -> None:
    """Write the records of a run; those of other atlases and strategies stay.

    What an earlier call made of the same input stays named among the outputs. What
    killed processes left half-written beside the run's outputs is removed.
    """
    base = record_path(output_dir, run)
    new = list(records)
    if not new:
        return
    sweep_leftovers(output_dir, [run])
    found = _contents(base.parent, base.name)
    merged = _merge(record for records in found.values() for record in records)
    newest = max((record.revision for record in merged.values()), default=-1)
    for record in new:
        later = dataclasses.replace(record, revision=newest + 1)
        earlier = merged.get(record.key)
        merged[record.key] = later if earlier is None else _join(earlier, later)
    _drop_overtaken(merged)
    rows = [dataclasses.asdict(merged[key]) for key in sorted(merged)]
    path = base.with_name(f"{base.name}.{_digest(rows)}.jsonl")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_file(output_dir, path.relative_to(output_dir).as_posix(), lines)
    for other in {*found} - {path}:
        with contextlib.suppress(PermissionError):  # one that stays counts less
            other.unlink(missing_ok=True)


def write_loss(output_dir: Path, name: str, reason: str) -> None:
    """Record why nothing could be planned of a participant or session.

    Under its name (``sub-<label>[_ses-<label>]``) in place of a run's, until
    ``forget_loss``.
    """
    write_records(output_dir, name, [Record(name, NO_ATLAS, "failed", reason)])


def forget_loss(output_dir: Path, participant: str) -> None:
    """Remove what ``write_loss`` wrote: the participant has been planned."""
    base = record_path(output_dir, participant)
    if there := _contents(base.parent, base.name):
        check_inside(base.parent, output_dir)
    for path in there:
        path.unlink(missing_ok=True)


def _digest(rows: list[dict[str, Any]]) -> str:
    said = [{k: v for k, v in row.items() if k not in _INCIDENTAL} for row in rows]
    for row in said:
        row["stamps"] = [(stamp.table, stamp.digest) for stamp in row["stamps"]]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def _join(a: Record, b: Record) -> Record:
    """The later of two records with one key; with the outputs of both."""
    first, last = sorted((a, b), key=_rank)
    if last.status == "failed":
        begun = tuple(dict.fromkeys((*first.begun, *last.begun)))
        last = dataclasses.replace(last, begun=begun)
    if first.inputs != last.inputs:
        return last
    outputs = tuple(dict.fromkeys((*first.outputs, *last.outputs)))
    return dataclasses.replace(last, outputs=outputs)


def _rank(record: Record) -> tuple[int, int, str]:
    known = record.status in _GRAVITY
    gravity = _GRAVITY.index(record.status) if known else 0
    # The last is any order, so long as all find the same.
    return record.revision, gravity, repr(record)


def _merge(records: Iterable[Record]) -> _Merged:
    """One record per key, whatever the order of the files that they are from."""
    merged: _Merged = {}
    for record in sorted(records, key=_rank):
        earlier = merged.get(record.key)
        merged[record.key] = record if earlier is None else _join(earlier, record)
    _drop_overtaken(merged)
    return merged


def _drop_overtaken(merged: _Merged) -> None:
    """Forget that a run or atlas failed as a whole, once something is newer."""
    for whole in [record for record in merged.values() if not record.strategy]:
        if any(
            record.revision > whole.revision and whole.atlas in (NO_ATLAS, record.atlas)
            for record in merged.values()
        ):
            del merged[whole.key]


def read_records(output_dir: Path, run: str) -> list[Record]:
    """Read the records of a run, one per atlas and strategy."""
    base = record_path(output_dir, run)
    found = _contents(base.parent, base.name)
    merged = _merge(record for records in found.values() for record in records)
    return [merged[key] for key in sorted(merged)]


def read_all_records(
    output_dir: Path,
    participant: str | None = None,
    damaged: dict[Path, str] | None = None,
) -> list[Record]:
    """All records of an output folder, in the order of runs, atlases and strategies.

    ``participant`` is ``sub-<label>``, for those of one participant. Records that
    cannot be read are a ``MissingInput``: a run that failed would be missing. Files of
    which a part is no record are put into ``damaged``, with what they are.
    """
    records = []
    logs = output_dir / "logs"
    people = [participant] if participant else list_folder(logs)
    for person in sorted(fnmatch.filter(people, "sub-*")):
        by_name: dict[str, list[Record]] = {}
        for path, content in _contents(logs / person, damaged=damaged).items():
            by_name.setdefault(path.name.rsplit(".", 2)[0], []).extend(content)
        for name in sorted(by_name):
            merged = _merge(by_name[name])
            records += [merged[key] for key in sorted(merged)]
    return records


def _contents(
    folder: Path, name: str | None = None, damaged: dict[Path, str] | None = None
) -> dict[Path, list[Record]]:
    """Records in each file of a folder, those of one run where a name is given.

    A file that goes while one reads was merged into another, which is newer than the
    list of files: so that is made again.
    """
    begin = "" if name is None else f"{name}."
    for n_left in reversed(range(_ATTEMPTS)):
        # A Path of each, in a folder of hundreds of runs, takes ten times as long.
        names = sorted(list_folder(folder))
        matches = {n: _FILE.fullmatch(n) for n in names if n.startswith(begin)}
        mine = [folder / n for n, m in matches.items() if m and name in (None, m[1])]
        read = {path: _read_file(path, last=not n_left) for path in mine}
        found = {path: one[0] for path, one in read.items() if one is not None}
        problems = {path: one[1] for path, one in read.items() if one and one[1]}
        if len(found) == len(mine):
            break
        problems |= {p: _GONE for p in mine if p not in found and p.is_symlink()}
    if damaged is not None:
        damaged |= problems
    return found


def _read_file(path: Path, *, last: bool) -> tuple[list[Record], str] | None:
    """Records of a file, and what is wrong with the rest; ``None`` where it is gone."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return [], "the file of records is damaged: it is not UTF-8 text."
    except OSError as error:
        # ESTALE: so NFS says of what another job removes or replaces meanwhile.
        gone = error.errno == errno.ESTALE and not (last and is_there(path))
        if gone or is_absent(error):
            return None
        raise unreadable("file", path, error) from error
    lines = [line for line in text.split("\n") if line.strip()]
    records = [record for record in map(_parse, lines) if record is not None]
    if records and len(records) == len(lines):
        return records, ""
    what = f"{len(records)} of {count_of(len(lines), 'line')} can be used."
    return records, f"the file of records is damaged: {what}"


def _parse(line: str) -> Record | None:
    try:
        content: dict[str, Any] = json.loads(line)
        # One copy of a word, path or digest, here and where tables are found: of 10,000
        # runs they would take half of the memory.
        values = {k: _one(v) for k, v in content.items() if k in _FIELDS}
        for key in ("warnings", "inputs", "outputs", "begun"):
            values[key] = tuple(map(_one, values.get(key, ())))
        values["outputs"] = tuple(map(sys.intern, values["outputs"]))
        values["stamps"] = tuple(
            Stamp(sys.intern(table), size, changed, sys.intern(digest))
            for table, size, changed, digest in values.get("stamps", ())
        )
        record = Record(**values)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    words = (record.atlas, record.run, record.status, record.strategy)
    sound = {type(word) for word in words} == {str}
    return record if sound and type(record.revision) is int else None


def _one(value: Any) -> Any:  # noqa: ANN401 - JSON
    return sys.intern(value) if type(value) is str else value
