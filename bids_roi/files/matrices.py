"""Tables of nothing but numbers, read fast: time series and square matrices."""

from __future__ import annotations

import functools
import itertools
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.errors import DataError
from bids_roi.files.listing import unreadable
from bids_roi.files.tables import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


_NODE = "Node"
_STANDS_FOR_MISSING = 9e9
_FEW = 64
_CELLS = 2**13  # parsed at a time: what that takes as objects stays in the cache


def corner_of(names: Sequence[str]) -> str:
    """Header of the column with the names of the rows, as XCP-D has it.

    >>> corner_of(["V1", "V2"]), corner_of(["Node"])
    ('Node', 'Node_')
    """
    corner = _NODE
    while corner in names:
        corner += "_"
    return corner


def read_matrix(
    path: Path, *, nodes: bool = False
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Read a table of numbers with a header row.

    Names of the columns, and the bits that were written, (rows, columns), NaN for
    ``n/a``. With ``nodes`` a first column, headed as by ``corner_of``, names the rows
    as the header names the columns.
    """
    return parse_matrix(read_bytes(path), path, nodes=nodes)


def read_keyed_matrix(
    path: Path, keys: Collection[str]
) -> tuple[dict[str, list[str]], tuple[str, ...], NDArray[np.float64]]:
    """Read a table of numbers of which the first columns are some of the keys.

    Cells of the keys, names of the other columns and their numbers, (rows, columns),
    NaN for ``n/a``; some rows at a time, for text takes ten times the memory.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = next(file, "").rstrip("\n").split("\t")
            names = tuple(map(unquote, header))
            n_keys = sum(1 for _ in itertools.takewhile(keys.__contains__, names))
            told: dict[str, list[str]] = {name: [] for name in names[:n_keys]}
            parts = [np.empty((0, len(names) - n_keys))]
            while lines := list(itertools.islice(file, max(1, _CELLS // len(names)))):
                rows = [line.rstrip("\n").split("\t", n_keys) for line in lines]
                cells = list(zip(*rows, strict=True))
                for own, more in zip(told.values(), cells, strict=False):
                    own += map(unquote, more)
                if n_keys < len(names):
                    parts.append(_parse(list(cells[n_keys])))
            return told, names[n_keys:], np.concatenate(parts)
    except OSError as error:
        raise unreadable("file", path, error) from error
    except (IndexError, TypeError, ValueError) as error:
        msg = "it is no table of keys and numbers."
        raise DataError(msg, where=path, remedy="Make it again.") from error


def read_bytes(path: Path) -> bytes:
    """Read a file; raise ``MissingInput`` where that is not possible."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable("file", path, error) from error


def parse_matrix(
    content: bytes, path: Path, *, nodes: bool = False
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    r"""Parse what ``read_matrix`` reads.

    >>> parse_matrix(b"a\tb\n0.1\tn/a\n", None)
    (('a', 'b'), array([[0.1, nan]]))
    """
    remedy = "It is incomplete or was edited: make it again (--overwrite)."
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8.", where=path, remedy=remedy) from error
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text.rstrip("\n").split("\n")
    if not lines[0]:
        raise DataError("the file is empty.", where=path, remedy=remedy)
    names, rows = tuple(map(unquote, lines[0].split("\t"))), lines[1:]
    if nodes:
        pairs = [row.partition("\t") for row in rows]
        regions = tuple(unquote(pair[0]) for pair in pairs)
        rows = [pair[2] for pair in pairs]
        if names[0] != corner_of(names[1:]) or names[1:] != regions:
            msg = f"the rows are not named as the columns, below {_NODE}."
            raise DataError(msg, where=path, remedy=remedy)
        names = names[1:]
    values = np.empty((len(rows), len(names)))
    step = max(1, _CELLS // len(names))
    for start in range(0, len(rows), step):
        try:
            values[start : start + step] = _parse(rows[start : start + step])
        except (TypeError, ValueError) as error:
            last = min(start + step, len(rows))
            msg = (
                f"rows {start + 1} to {last} are not {len(names)} numbers or n/a each."
            )
            raise DataError(msg, where=path, remedy=remedy) from error
    return names, values


def parse_triangle(
    content: bytes, path: Path
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    r"""Parse the upper half of a square matrix that is known to be symmetric.

    The file is one that this package wrote, byte for byte: its digest has been checked.
    Names, R of them, and the bits of ``parse_matrix``, (R * (R + 1) / 2,), row by row
    with the diagonal.

    >>> parse_triangle(b"Node\ta\tb\na\t1\t0.5\nb\t0.5\tn/a\n", None)
    (('a', 'b'), array([1. , 0.5, nan]))
    """
    try:
        return _parse_halves(content)
    except (IndexError, TypeError, ValueError, struct.error):
        names, matrix = parse_matrix(content, path, nodes=True)
        return names, matrix[np.triu_indices(len(names))]


def _parse_halves(content: bytes) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Do it, of a file as it is expected; ``ValueError`` otherwise."""
    # Tabs and line ends are the only bytes below 14, and stand in a square: a line has
    # as many tabs as there are regions. The half of a row is then one slice.
    n_marks, find = _count_marks(content)
    size = math.isqrt(n_marks)
    lines = np.arange(size)
    both = np.concatenate([lines * size + size - 1, lines[1:] * size + lines[:-1]])
    marks = find(both)
    ends, starts = marks[:size], [mark + 1 for mark in marks[size:]]
    if size * size != n_marks or {*bytes(map(content.__getitem__, ends))} != {10}:
        msg = "lines of another length"
        raise ValueError(msg)
    view = memoryview(content)
    halves = map(view.__getitem__, map(slice, starts, ends[1:]))
    values = np.empty(size * (size - 1) // 2)
    at, n_missing, step = 0, 0, max(1, _CELLS // max(1, size))
    while rows := list(itertools.islice(halves, step)):
        n, missing = _fill(values[at:], bytearray(b"\t").join((b"[", *rows, b"]")))
        at, n_missing = at + n, n_missing + missing
    if at != values.size:
        msg = "rows of another length"
        raise ValueError(msg)
    if n_missing:
        stand_ins = np.flatnonzero(values == _STANDS_FOR_MISSING)
        if stand_ins.size != n_missing:  # it is one of the numbers, too
            msg = f"a cell that holds {_STANDS_FOR_MISSING}"
            raise ValueError(msg)
        values[stand_ins] = np.nan
    return _read_names(content[: ends[0]]), values


def _fill(values: NDArray[np.float64], text: bytearray) -> tuple[int, int]:
    """Write the numbers of cells, within brackets that are cells of their own.

    Returns how many there are, and how many of them stand for ``n/a``.
    """
    import orjson

    cells = _part(text)
    text[1] = text[-2] = ord(" ")
    n_missing = _replace_missing(text, cells)
    found = orjson.loads(text)
    # Packed, a list takes half the time that NumPy takes for it.
    struct.pack_into(f"{len(found)}d", values.data, 0, *found)
    return len(found), n_missing


def _replace_missing(text: bytearray, cells: NDArray[np.uint8]) -> int:
    """Put a number of as many letters for ``n/a``; returns how often."""
    # Each region that is lost has one in every row. One by one these take a fourth of
    # the time that NumPy takes for them, but not the whole rows of such regions.
    n, at = 0, text.find(b"/")
    while at > 0 and n < _FEW:
        if text[at - 1 : at + 2] != b"n/a":
            msg = "a cell that is no n/a"
            raise ValueError(msg)
        text[at - 1 : at + 2] = b"9e9"
        n, at = n + 1, text.find(b"/", at)
    if at < 0:
        return n
    places = np.flatnonzero(cells == ord("/"))
    whole = places[:, None] + np.arange(-1, 2)
    if (cells[whole] != np.frombuffer(b"n/a", np.uint8)).any():
        msg = "a cell that is no n/a"
        raise ValueError(msg)
    cells[whole] = np.frombuffer(b"9e9", np.uint8)
    return n + places.size


@functools.lru_cache(maxsize=4)
def _read_names(header: bytes) -> tuple[str, ...]:
    """Names of a header, behind its corner: the same tuple for the same header."""
    return tuple(map(unquote, header.decode().split("\t")[1:]))


def _count_marks(
    content: bytes,
) -> tuple[int, Callable[[NDArray[np.int64]], list[int]]]:
    """Count the bytes below 14; returns how to find those of some numbers, from 0."""
    # Counted by 64 bytes, eight words of eight at a time: of all marks of a matrix a
    # hundredth is asked for, and to list all takes three times as long.
    marks = np.empty((len(content) // 64 + 1, 64), np.bool_)
    cells = np.frombuffer(content, np.uint8)
    np.less(cells, 14, out=marks.reshape(-1)[: cells.size])
    marks.reshape(-1)[cells.size :] = False
    words = functools.reduce(np.add, marks.view(np.uint64).T)
    counts = (words * np.uint64(0x0101010101010101) >> np.uint64(56)).astype(np.int64)
    until = counts.cumsum()

    def find(numbers: NDArray[np.int64]) -> list[int]:
        rows = np.searchsorted(until, numbers, side="right")
        left = numbers - (until[rows] - counts[rows])
        own = marks[rows].cumsum(axis=1, dtype=np.uint8) > left[:, None]
        places: list[int] = (64 * rows + own.argmax(axis=1)).tolist()
        return places

    return int(until[-1]), find


def _parse(rows: list[str]) -> NDArray[np.float64]:
    """Turn rows into numbers; 300 rows of 400 take 7 ms."""
    text = bytearray("],[".join(rows), "utf-8")
    return np.array(_loads(text), dtype=np.float64)


def _loads(text: bytearray) -> list[Any]:
    """Read cells as JSON, which a table is but for its marks."""
    import orjson

    _part(text)
    if b"l" in text or b"u" in text:  # n/l and nula are no n/a
        text = text.replace(b"n/a", b"null")
    else:  # byte by byte: to search for three takes five times as long
        text = text.replace(b"a", b"l").replace(b"/", b"ul")
    found: list[Any] = orjson.loads(b"".join((b"[[", text, b"]]")))
    return found


def _part(text: bytearray) -> NDArray[np.uint8]:
    """Put commas for tabs; returns the bytes, which are those of the text."""
    cells = np.frombuffer(text, np.uint8)
    cells += (cells == ord("\t")) * np.uint8(ord(",") - ord("\t"))
    return cells
