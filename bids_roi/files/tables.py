"""TSV and JSON: read with messages and within bounds, formatted, written whole.

Any file appears under its name whole or not at all; what killed writers left goes.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import json
import math
import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bids_roi.errors import DataError, MissingInput, OutputError, remedy_of
from bids_roi.files.listing import is_absent, is_there, real_path, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TextIO

    import numpy as np
    from numpy.typing import NDArray


MISSING = "n/a"
_OF_NUMBERS = {float, int, type(None)}
_CELLS = 2**16  # of a matrix, formatted at a time

# What a reader takes at most: far beyond any real table or sidecar, and well within a
# machine's memory. Confounds of 3,000 volumes and 2,000 columns take 120 MB.
_LARGEST_TABLE = 2**29
_LONGEST_LINE = 2**24
_LARGEST_JSON = 2**26
_DEEPEST_JSON = 64
# Bytes: tables and sidecars have fewer, and are hashed in 30 ms at most.
_SMALL = 2**25
# In place of the fingerprint of an input that was there, as after git annex drop.
GONE = "not here"


def format_json(content: Mapping[str, Any]) -> str:
    """JSON text with stable layout; keys stay in their order."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _cell(value: object) -> str:
    if value is None or value == "":
        return MISSING
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else MISSING
    return _plain(str(value))


def _plain(text: str) -> str:
    """Text that cannot end its cell or its line: other control characters go too.

    A quote at its beginning would open a quoted cell to every reader of TSV, so that it
    is written as one.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text).strip() or MISSING
    return text if text[:1] != '"' else '"' + text.replace('"', '""') + '"'


def unquote(cell: str) -> str:
    """Text of a cell that may be quoted.

    >>> unquote('"a ""b"" c"'), unquote('V1 "left"')
    ('a "b" c', 'V1 "left"')
    """
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if quoted else cell


def format_table(columns: Mapping[str, Iterable[object]]) -> str:
    r"""TSV text of named columns; ``None``, blanks and NaN become ``n/a``.

    Tabs, line ends and other control characters in a text become blanks.

    >>> format_table({"a": [1, 2], "b": [0.5, float("nan")]})
    'a\tb\n1\t0.5\n2\tn/a\n'
    >>> format_table({"name": ["V1\tV2\n666"]})
    'name\nV1 V2 666\n'
    """
    rows = zip(*columns.values(), strict=True)
    return "".join([format_row(columns), *map(format_row, rows)])


def format_row(values: Iterable[object]) -> str:
    """Line of a TSV; no cell holds a tab."""
    return "\t".join(map(_cell, values)) + "\n"


def format_matrix(
    header: Sequence[str],
    values: NDArray[np.float64],
    *,
    rows: Sequence[str] | None = None,
    corner: str = "",
) -> Iterator[str]:
    r"""TSV text of a matrix, in the shortest digits that read back to the same bits.

    Some rows at a time, so that a long run takes no more memory than a short one.
    ``values``, (rows, columns), become ``n/a`` where they are NaN; ``rows`` has names
    for a first column, whose header is ``corner``.

    >>> import numpy as np
    >>> "".join(format_matrix(["a", "b"], np.array([[0.1, np.nan]])))
    'a\tb\n0.1\tn/a\n'
    """
    import numpy as np
    import orjson

    names = header if rows is None else (corner, *header)
    yield "\t".join(map(_plain, names)) + "\n"
    step = max(1, _CELLS // max(1, len(header)))
    for start in range(0, len(values), step):
        # [[1.0,null],[2.0,3.0]] is a table but for its marks, written ten times
        # faster than by repr. One byte is found five times faster than three.
        text = orjson.dumps(
            np.ascontiguousarray(values[start : start + step], dtype=np.float64),
            option=orjson.OPT_SERIALIZE_NUMPY,
        ).replace(b",", b"\t")
        if b"n" in text:
            text = text.replace(b"null", b"n/a")
        lines = [line.lstrip(b"\t[").decode() for line in text.split(b"]")[:-2]]
        if rows is not None:
            pairs = zip(rows[start : start + step], lines, strict=True)
            lines = [f"{_plain(name)}\t{line}" for name, line in pairs]
        yield "\n".join(lines) + "\n"


def read_table(path: Path, *, max_rows: int | None = None) -> dict[str, list[str]]:
    """Read a table with a header row; commas for ``.csv``, tabs for all else.

    Columns of stripped strings, those without a name left out. One with more than
    ``max_rows`` below the header is not read on.
    """
    delimiter = "," if path.suffix == ".csv" else "\t"
    rows: list[list[str]] = []
    try:
        size = _check_regular(path, _LARGEST_TABLE)
        # -sig: editors on Windows begin the file with a byte order mark.
        with path.open(encoding="utf-8-sig") as file:
            if size < _LONGEST_LINE:
                columns = _split(file.read(), delimiter, max_rows)
                if columns is not None:
                    return columns
                file.seek(0)
            lines = file if size < _LONGEST_LINE else _lines(file, path)
            # strict: a quote that is never closed would swallow the rows after it.
            for row in csv.reader(lines, delimiter=delimiter, strict=True):
                if any(map(str.strip, row)):
                    rows.append(row)
                if max_rows is not None and len(rows) > max_rows + 1:
                    msg = f"the table has more than {max_rows} rows."
                    remedy = "Check that it belongs to the run: one row per volume."
                    raise DataError(msg, where=path, remedy=remedy)
    except csv.Error as error:
        msg = f"the table cannot be read ({error})."
        raise DataError(msg, where=path, remedy="Write it again as TSV.") from error
    except UnicodeDecodeError as error:
        msg = "the file is not text in UTF-8."
        raise DataError(msg, where=path, remedy="Save it as UTF-8.") from error
    except OSError as error:
        raise unreadable("file", path, error) from error
    return _columns(rows, path)


# What of ASCII is stripped from cells: where there is none, nobody need look at each.
_BLANKS = " \t\r\v\f\x1c\x1d\x1e\x1f"


def _split(
    text: str, delimiter: str, max_rows: int | None
) -> dict[str, list[str]] | None:
    """Columns of a plain table; ``None`` for one that is to be read row by row.

    It has no quotes, blank rows or faults, and takes a third of the time.
    """
    text = text.removesuffix("\n")
    n_rows = text.count("\n")
    header = [cell.strip() for cell in text.partition("\n")[0].split(delimiter)]
    many = max_rows is not None and n_rows > max_rows
    if many or '"' in text or "\0" in text or len({*header}) < len(header):
        return None
    # Each line end becomes a cell of its own: rows are of one length where these are at
    # the places where they ought to be.
    step = len(header) + 1
    cells = text.replace("\n", f"{delimiter}\n{delimiter}").split(delimiter)
    ends = cells[step - 1 :: step]
    if len(cells) != step * (n_rows + 1) - 1 or ends.count("\n") != n_rows:
        return None
    longest = max(map(len, cells)) if len(text) > csv.field_size_limit() else 0
    columns = [cells[at::step] for at in range(len(header))]
    blanks = _BLANKS.replace(delimiter, "")
    if not text.isascii() or any(blank in text for blank in blanks):
        columns = [[*map(str.strip, own)] for own in columns]
    # A row without anything begins with nothing.
    if "" in columns[0] or longest > csv.field_size_limit():
        return None
    return {name: own[1:] for name, own in zip(header, columns, strict=True) if name}


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    number = 1
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            msg = f"line {number} is longer than {_LONGEST_LINE // 2**20} MiB."
            raise DataError(msg, where=path, remedy="Write it again as TSV.")
        yield line
        number += 1


def _columns(rows: Sequence[Sequence[str]], path: Path) -> dict[str, list[str]]:
    if not rows:
        msg = "the table is empty, a header row is needed."
        raise DataError(msg, where=path, remedy="Check the file.")
    header = [cell.strip() for cell in rows[0]]
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        repeated = sorted({name for name in named if named.count(name) > 1})
        msg = f"the columns {', '.join(repeated)} occur more than once."
        raise DataError(msg, where=path, remedy="Give each column a name of its own.")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            msg = f"row {number} has {len(row)} cells, the header has {len(header)}."
            raise DataError(msg, where=path, remedy="Check the separators.")
    columns = zip(*rows[1:], strict=True) if rows[1:] else [()] * len(header)
    return {
        name: list(map(str.strip, cells))
        for name, cells in zip(header, columns, strict=True)
        if name
    }


def to_number(cell: str) -> float:
    """Number of a cell; ``ValueError`` for ``1_0`` too, which is one to Python only."""
    if "_" in cell:
        raise ValueError(cell)
    return float(cell)


def to_numbers(cells: Sequence[str]) -> NDArray[np.float64]:
    """Numbers of a column, NaN for ``n/a``; ``ValueError`` for what float() refuses.

    >>> to_numbers(["0.5", "n/a", "1"])
    array([0.5, nan, 1. ])
    """
    import numpy as np
    import orjson

    # As JSON, which takes a sixth of the time; what that does not know, by float().
    text = ",".join(cells).replace(MISSING, "null")
    with contextlib.suppress(orjson.JSONDecodeError):
        found = orjson.loads(f"[{text}]")
        # A cell may be JSON and no number: true, null, [1], or 1,2.
        plain = {*map(type, found)} <= _OF_NUMBERS and len(found) == len(cells)
        if plain and found.count(None) == cells.count(MISSING):
            return np.array(found, dtype=np.float64)
    return np.array([math.nan if c == MISSING else float(c) for c in cells])


def read_json(path: Path, *, keep_odd_numbers: bool = False) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Numbers that no double can hold, and NaN and Infinity, which are no JSON but which
    Python writes, become ``None``; with ``keep_odd_numbers`` NaN or infinity, so that
    they can be refused.
    """
    try:
        _check_regular(path, _LARGEST_JSON)
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        problem, remedy = f"the file cannot be read ({error.strerror or error}).", ""
        if not isinstance(error, FileNotFoundError):
            remedy = remedy_of(error, "Check its permissions.")
        elif path.is_symlink():
            problem = "the link points to a file that is not here (datalad get it)."
        raise DataError(problem, where=path, remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8 text.", where=path) from error
    if not text.strip():
        raise DataError("the file is empty.", where=path)
    if text.startswith("/annex/objects/"):
        problem = "the file is a git-annex pointer (datalad get it)."
        raise DataError(problem, where=path)
    try:
        content = (_KEEPING if keep_odd_numbers else _PLAIN).decode(text)
    except json.JSONDecodeError as error:
        place = f" (line {error.lineno}, column {error.colno}: {error.msg})"
        raise DataError(f"the file is not JSON{place}.", where=path) from error
    except RecursionError as error:
        problem = "the file is not JSON (too deeply nested)."
        raise DataError(problem, where=path) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        problem = f"the file holds a {kind} where a JSON object is needed."
        raise DataError(problem, where=path)
    _check_depth(content, path)
    return content


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _whole(text: str) -> float | None:
    # Python refuses to parse thousands of digits; nothing here counts beyond 10^18.
    return int(text) if len(text) < 19 else _finite(text)


def _whole_or_endless(text: str) -> float:
    return int(text) if len(text) < 19 else float(text)


def _nothing(_: str) -> None:
    """NaN, Infinity and -Infinity: no value."""


_KEEPING = json.JSONDecoder(parse_int=_whole_or_endless)
_PLAIN = json.JSONDecoder(
    parse_int=_whole, parse_float=_finite, parse_constant=_nothing
)


def _check_depth(content: object, path: Path) -> None:
    """Refuse what could be read, but not written again: the writer is recursive."""
    level: list[Any] = [content]
    depth = 0
    while level:
        depth += 1
        if depth > _DEEPEST_JSON:
            problem = f"the file is nested more than {_DEEPEST_JSON} levels deep."
            raise DataError(problem, where=path)
        inside = [list(v.values() if isinstance(v, dict) else v) for v in level]
        level = [v for held in inside for v in held if isinstance(v, dict | list)]


def _check_regular(path: Path, largest: int) -> int:
    """Size; pipes and devices, which may never end, and what is too large, refused."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        msg = "this is no file but a pipe or a device."
        raise DataError(msg, where=path, remedy="Save its content in a file.")
    if status.st_size > largest:
        size, bound = status.st_size / 2**20, largest // 2**20
        msg = f"the file has {size:,.0f} MiB, at most {bound} MiB can be read."
        raise DataError(msg, where=path, remedy="Check the file.")
    return status.st_size


_LEFTOVER = re.compile(r"\.bids_roi-([0-9a-f]{8})-(\d{1,9})-[0-9a-f]{8}\.tmp")
_ABANDONED_S = 24 * 3600


class Written(NamedTuple):
    """A file as it was written: inode, size, time of change, SHA-256 of its bytes."""

    inode: int
    size: int
    mtime_ns: int
    digest: str


def write_file(folder: Path, name: str, text: str | bytes | Iterable[str]) -> None:
    """Write a file beside its final name, then rename it.

    It may not leave ``folder``, whatever links lie below, where ``name`` is its path;
    folders are made where they are absent. A link of this name is replaced, the file
    that it points to is not written.
    """
    with writing(folder, name) as beside:
        _fill(beside, text)
        beside.replace(folder / name)


def write_pair(
    folder: Path,
    table: str,
    text: Iterable[str],
    sidecar: str,
    describe: Callable[[str], str],
) -> tuple[Written, Written]:
    """Write a table and its sidecar, whose text ``describe`` makes of the digest.

    Both are complete before the first is renamed. Where only one was, the digest in the
    sidecar is not that of the table. Returns the state of both.
    """
    with writing(folder, table) as beside:
        written = _fill(beside, text)
        with writing(folder, sidecar) as other:
            told = _fill(other, describe(written.digest))
            other.replace(folder / sidecar)
        beside.replace(folder / table)
    return written, told


@contextlib.contextmanager
def writing(folder: Path, name: str) -> Iterator[Path]:
    """Name a file to be written beside ``folder / name``; it is gone afterwards.

    Every file of an output folder is written within this.
    """
    path = folder / name
    beside = path.with_name(name_temporary())
    check_inside(path.parent, folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
    except OSError as error:
        msg = f"the file cannot be written ({error.strerror or error})."
        remedy = "Check the folder's permissions and free space."
        raise OutputError(msg, where=path, remedy=remedy) from error
    finally:  # an interrupt leaves nothing behind either
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _fill(path: Path, text: str | bytes | Iterable[str]) -> Written:
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for piece in [text] if isinstance(text, str | bytes) else text:
            # replace: a lone surrogate, which JSON may hold, cannot be written.
            data = piece if isinstance(piece, bytes) else piece.encode(errors="replace")
            digest.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    status = path.stat()
    return Written(
        status.st_ino, status.st_size, status.st_mtime_ns, digest.hexdigest()
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, without holding them all in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """Tell whether a file is still the one that was read, in a copy too.

    Size and, for gzip, the checksum of the content that its last eight bytes hold; the
    digest of other files, but of large ones the time of change. ``GONE`` for a link to
    what is not here.
    """
    try:
        if path.is_symlink() and not is_there(path):
            return GONE
        status = path.stat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            return "no file"
        with path.open("rb") as file:
            if path.name.endswith(".gz") and size >= 8:
                file.seek(-8, os.SEEK_END)
                return f"{size}:{file.read(8).hex()}"
            if size <= _SMALL:
                return f"{size}:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
        return f"{size}:{status.st_mtime_ns}"
    except OSError as error:
        if not is_absent(error):
            raise unreadable("file", path, error) from error
        msg = f"the file cannot be read ({error.strerror}); it could be before."
        remedy = "Was it moved, or another disk mounted? Run the same command again."
        raise MissingInput(msg, where=path, remedy=remedy) from error


def check_inside(folder: Path, output_dir: Path) -> None:
    """Refuse to write through a link that leads out of the output folder."""
    there, inside = real_path(folder), real_path(output_dir)
    if os.path.islink(there):  # noqa: PTH114 - a closed folder is told by who writes
        msg = "the folder is a link that leads to itself."
        raise OutputError(msg, where=folder, remedy="Remove the link.")
    if not there.is_relative_to(inside):
        msg = f"the folder is a link that leads out of the output folder, to {there}."
        remedy = "Remove the link; nothing is ever written through one."
        raise OutputError(msg, where=folder, remedy=remedy)


def name_temporary() -> str:
    """Name for a file that is being written; no two writers share one.

    It tells who writes, see ``remove_leftovers``.
    """
    return f".bids_roi-{_machine()}-{os.getpid()}-{os.urandom(4).hex()}.tmp"


@functools.cache
def _machine() -> str:
    """Tell machines, and containers on one machine, apart; 8 digits."""
    name = os.uname().nodename
    with contextlib.suppress(OSError):  # process ids are counted per namespace
        name += str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder.

    A file is left over where its writer, a process of this machine, is gone; where
    the writer is elsewhere, when nothing was written to it for a day.
    """
    try:
        names = [e.name for e in os.scandir(folder) if e.name.startswith(".bids_roi-")]
    except OSError:
        return
    for name in names:
        match = _LEFTOVER.fullmatch(name)
        with contextlib.suppress(OSError):
            if match is not None and _is_abandoned(folder / name, *match.groups()):
                (folder / name).unlink()


def _is_abandoned(path: Path, machine: str, process: str) -> bool:
    if machine != _machine():
        return time.time() - path.stat().st_mtime > _ABANDONED_S
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # someone else's, and alive
        return False
    # One that has ended stays in the list until its parent has asked for it.
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
        return state.split()[:1] == ["Z"]
    return False
