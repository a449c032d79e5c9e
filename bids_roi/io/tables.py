"""TSV and JSON files: read with messages, written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
from typing import TYPE_CHECKING, Any

from bids_roi.errors import DataError, MissingInput, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "MISSING",
    "format_json",
    "format_matrix",
    "format_table",
    "read_json",
    "read_table",
    "write_file",
]

MISSING = "n/a"
_CELLS = 2**16  # of a matrix, formatted at a time


def write_file(path: Path, text: str | Iterable[str]) -> None:
    """Write a file beside its final name, then rename it.

    Parameters
    ----------
    path
        Its folder is made where it is absent.
    text
        The whole content, or its pieces in order.

    Raises
    ------
    OutputError
        If it cannot be written; nothing is left behind.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8", newline="") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        msg = f"the file cannot be written ({error.strerror})."
        remedy = "Check the folder's permissions and free space."
        raise OutputError(msg, where=path, remedy=remedy) from error


def format_json(content: Mapping[str, Any]) -> str:
    """JSON text with stable layout; keys stay in their order."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _cell(value: object) -> str:
    if value is None or value == "":
        return MISSING
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else MISSING
    return str(value)


def format_table(columns: Mapping[str, Iterable[object]]) -> str:
    r"""TSV text of named columns; ``None``, blanks and NaN become ``n/a``.

    >>> format_table({"a": [1, 2], "b": [0.5, float("nan")]})
    'a\tb\n1\t0.5\n2\tn/a\n'
    """
    lines = ["\t".join(columns)]
    rows = zip(*columns.values(), strict=True)
    lines.extend("\t".join(map(_cell, row)) for row in rows)
    return "\n".join(lines) + "\n"


def format_matrix(
    header: Sequence[str],
    values: NDArray[np.float64],
    *,
    rows: Sequence[str] | None = None,
    corner: str = "",
) -> Iterator[str]:
    r"""TSV text of a matrix, in the shortest digits that read back to the same bits.

    Parameters
    ----------
    header
        One name per column.
    values : (rows, columns)
        NaN becomes ``n/a``.

    Yields
    ------
    str
        Some rows at a time, so that a long run takes no more memory than a short one.

    Examples
    --------
    >>> import numpy as np
    >>> "".join(format_matrix(["a", "b"], np.array([[0.1, np.nan]])))
    'a\tb\n0.1\tn/a\n'
    """
    import numpy as np
    import orjson

    yield "\t".join(header if rows is None else (corner, *header)) + "\n"
    step = max(1, _CELLS // max(1, len(header)))
    for start in range(0, len(values), step):
        # [[1.0,null],[2.0,3.0]] is a table but for its marks, written ten times
        # faster than by repr.
        text = orjson.dumps(
            np.ascontiguousarray(values[start : start + step], dtype=np.float64),
            option=orjson.OPT_SERIALIZE_NUMPY,
        )[2:-2]
        for mark, sign in ((b"],[", b"\n"), (b",", b"\t"), (b"null", b"n/a")):
            text = text.replace(mark, sign)
        lines = text.decode()
        if rows is not None:
            pairs = zip(rows[start : start + step], lines.split("\n"), strict=True)
            lines = "\n".join(f"{name}\t{cells}" for name, cells in pairs)
        yield lines + "\n"


def read_table(path: Path) -> dict[str, list[str]]:
    """Read a table with a header row; commas for ``.csv``, tabs for all else.

    Returns
    -------
    dict
        Columns of stripped strings, in order; columns without a name are left out.

    Raises
    ------
    MissingInput
        If the file cannot be read.
    DataError
        If it is no table: no header, a repeated column, or rows of another length.
    """
    text = _read_text(path)
    delimiter = "," if path.suffix == ".csv" else "\t"
    try:
        rows = list(csv.reader(text.splitlines(), delimiter=delimiter))
    except csv.Error as error:
        msg = f"the table cannot be read ({error})."
        raise DataError(msg, where=path, remedy="Write it again as TSV.") from error
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        msg = "the table is empty, a header row is needed."
        raise DataError(msg, where=path, remedy="Check the file.")
    header = [cell.strip() for cell in rows[0]]
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        repeated = sorted({name for name in named if named.count(name) > 1})
        msg = f"the columns {', '.join(repeated)} occur more than once."
        raise DataError(msg, where=path, remedy="Give each column a name of its own.")
    columns: dict[str, list[str]] = {name: [] for name in named}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            msg = f"row {number} has {len(row)} cells, the header has {len(header)}."
            raise DataError(msg, where=path, remedy="Check the separators.")
        for name, cell in zip(header, row, strict=True):
            if name:
                columns[name].append(cell.strip())
    return columns


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises
    ------
    DataError
        It cannot be read, is empty, not JSON (with the line), or not an object.
    """
    try:
        # -sig: editors on Windows begin the file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        if path.is_symlink() and not path.exists():
            problem = "the link points to a file that is not here (datalad get it)."
        else:
            problem = f"the file cannot be read ({error.strerror or error})."
        raise DataError(problem, where=path) from error
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8 text.", where=path) from error
    if not text.strip():
        raise DataError("the file is empty.", where=path)
    if text.startswith("/annex/objects/"):
        problem = "the file is a git-annex pointer (datalad get it)."
        raise DataError(problem, where=path)
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        place = (
            f" (line {error.lineno}, column {error.colno}: {error.msg})"
            if isinstance(error, json.JSONDecodeError)
            else " (too deeply nested)"
        )
        raise DataError(f"the file is not JSON{place}.", where=path) from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        problem = f"the file holds a {kind} where a JSON object is needed."
        raise DataError(problem, where=path)
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        msg = "the file is not text in UTF-8."
        raise DataError(msg, where=path, remedy="Save it as UTF-8.") from error
    except OSError as error:
        msg = f"the file cannot be read ({error.strerror})."
        raise MissingInput(msg, where=path, remedy="Check the path.") from error
