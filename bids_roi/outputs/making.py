"""One making of a run's tables: written with their sidecars, and found whole again.

A sidecar holds the digest of its table's bytes (``TableDigest``). The record of a run
holds that digest too, with the table's size and time of change, by which a table is
known without being read.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from bids_roi.errors import DataError, OutputError
from bids_roi.files.writing import Written, file_digest, write_pair
from bids_roi.outputs.names import sidecar_of
from bids_roi.outputs.schema import format_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


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

    Parameters
    ----------
    told
        Digest from the sidecar; empty for one of an earlier release: nothing is known.
    stamp
        From the record; with the same size and time the table need not be read.
    verify
        Read it all the same.
    digest
        Of its bytes, where they have been read.
    """
    if not told:
        return
    with contextlib.suppress(OSError):  # whoever reads it says so
        if stamp is not None and not verify and stamp.digest == told:
            state = path.stat()
            if stamp[1:3] == (state.st_size, state.st_mtime_ns):
                return
        if (digest or file_digest(path)) != told:
            msg = "the table is not the one that its sidecar was written with."
            remedy = (
                "A call was stopped between the two, or the file was damaged or edited:"
                " run the participant level again, with the same options."
            )
            raise DataError(msg, where=path, remedy=remedy)
