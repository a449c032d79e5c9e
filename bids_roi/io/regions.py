"""Region tables: index and name of each region, checked against the atlas image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.errors import AtlasError, DataError
from bids_roi.io.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["RegionTable", "check_regions", "read_regions", "regions_from_labels"]

_INDEX_COLUMNS = ("index", "label", "id", "value")
_NAME_COLUMNS = ("name", "label", "region", "structure")
_BACKGROUND = re.compile(
    r"background|unknown|\?+|none|null|medial.?wall|", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class RegionTable:
    """The regions of an atlas, in the order of its table.

    Attributes
    ----------
    index
        Label value of each region, all different, none 0.
    name
        Unique names without tabs or line ends: the header of every output.
    original_name
        Names as the table has them.
    extra
        Further columns of the table, ``(column, cells)``.
    """

    index: tuple[int, ...]
    name: tuple[str, ...]
    original_name: tuple[str, ...]
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def values(self) -> NDArray[np.int64]:
        """The index as an array, (R,)."""
        return np.array(self.index, dtype=np.int64)


def read_regions(path: Path) -> RegionTable:
    """Read a region table.

    Parameters
    ----------
    path
        TSV or CSV with the columns ``index`` and ``name``, or ``label`` and ``name``,
        or ``index`` and ``label``.

    Raises
    ------
    AtlasError
        If there are no such columns, an index is no whole number, or one occurs twice.
    """
    try:
        columns = read_table(path)
    except DataError as error:
        raise AtlasError(error.problem, where=path, remedy=error.remedy) from error
    lower = {name.lower(): name for name in columns}
    index_column = _pick(lower, _INDEX_COLUMNS, columns, whole=True)
    name_column = _pick(lower, _NAME_COLUMNS, columns, whole=False, but=index_column)
    if index_column is None or name_column is None:
        msg = f"the columns are {', '.join(columns)}; index and name are needed."
        remedy = "Rename the columns: index holds the label values, name the regions."
        raise AtlasError(msg, where=path, remedy=remedy)
    index = [int(float(cell)) for cell in columns[index_column]]
    names = columns[name_column]
    rows = [
        row
        for row, value in enumerate(index)
        if not (value == 0 and _BACKGROUND.fullmatch(names[row]))
    ]
    if any(index[row] == 0 for row in rows):
        first = next(names[row] for row in rows if index[row] == 0)
        msg = f"index 0 is the background of every label image, here it is '{first}'."
        remedy = "If the table counts from 0 and the image from 1, add 1 to its index."
        raise AtlasError(msg, where=path, remedy=remedy)
    repeated = sorted({v for v in index if index.count(v) > 1})
    if repeated:
        msg = f"the index values {_some(repeated)} occur more than once."
        raise AtlasError(msg, where=path, remedy="Give each region one row.")
    extra = tuple(
        (column, tuple(cells[row] for row in rows))
        for column, cells in columns.items()
        if column not in (index_column, name_column)
    )
    kept = [index[row] for row in rows]
    original = tuple(names[row] for row in rows)
    return RegionTable(tuple(kept), _unique_names(kept, original), original, extra)


def _pick(
    lower: dict[str, str],
    wanted: Sequence[str],
    columns: dict[str, list[str]],
    *,
    whole: bool,
    but: str | None = None,
) -> str | None:
    """First of the wanted columns whose cells are (or are not) whole numbers."""
    for word in wanted:
        column = lower.get(word)
        if column is None or column == but:
            continue
        if all(map(_is_whole, columns[column])) or not whole:
            return column
    return None


def _is_whole(cell: str) -> bool:
    try:
        return float(cell) == int(float(cell))
    except (ValueError, OverflowError):
        return False


def _unique_names(index: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    """Names for a header: no control characters, none blank, none twice.

    >>> _unique_names([3, 5, 7], ["V1", "V1", ""])
    ('V1_3', 'V1_5', 'region_7')
    """
    clean = [
        " ".join("".join(c if c.isprintable() else " " for c in name).split())
        for name in names
    ]
    clean = [
        f"region_{value}" if name in ("", "n/a") else name
        for value, name in zip(index, clean, strict=True)
    ]
    repeated = {name for name in clean if clean.count(name) > 1}
    unique = [
        f"{name}_{value}" if name in repeated else name
        for value, name in zip(index, clean, strict=True)
    ]
    while len(set(unique)) < len(unique):  # a name that ends in another's index
        unique = [f"{n}_{v}" for v, n in zip(index, unique, strict=True)]
    return tuple(unique)


def regions_from_labels(labels: NDArray[np.int64]) -> RegionTable:
    """Name regions by their value, where an image has no table."""
    values = _values(labels)
    names = tuple(f"region_{value}" for value in values)
    return RegionTable(tuple(values), names, names)


def check_regions(
    table: RegionTable, labels: NDArray[np.int64], table_path: Path
) -> tuple[RegionTable, tuple[str, ...]]:
    """Compare a table with its image.

    Parameters
    ----------
    table
        As read.
    labels : (x, y, z)
        The image's values.
    table_path
        For messages.

    Returns
    -------
    table
        With rows added at the end for values that only the image has.
    warnings
        What differs and what was done about it.

    Raises
    ------
    AtlasError
        If the image is empty, or the table is another image's, or one off.
    """
    found = _values(labels)
    if not found:
        msg = "the image that goes with this table holds no label, only 0."
        raise AtlasError(msg, where=table_path, remedy="Check the image.")
    known, present = set(table.index), set(found)
    hits = len(known & present)
    shifted = len({value + 1 for value in known} & present)
    if shifted > hits:
        msg = (
            f"{hits} of its {len(known)} index values occur in the image, {shifted}"
            " would if each were 1 larger: the table counts from 0."
        )
        raise AtlasError(msg, where=table_path, remedy="Add 1 to the index column.")
    if 2 * hits < len(present):
        msg = (
            f"only {hits} of the {len(present)} label values of the image"
            f" ({_some(found)}) are in the table ({_some(sorted(known))})."
        )
        remedy = "This is another atlas's table; give the one of this image."
        raise AtlasError(msg, where=table_path, remedy=remedy)
    warnings = []
    absent = sorted(known - present)
    if absent:
        warnings.append(
            f"{len(absent)} regions of the table are not in the image (index"
            f" {_some(absent)}): their columns are n/a."
        )
    unnamed = sorted(present - known)
    if unnamed:
        warnings.append(
            f"{len(unnamed)} label values of the image are not in the table"
            f" ({_some(unnamed)}): they come last, named by their value."
        )
        table = _append(table, unnamed)
    return table, tuple(warnings)


def _append(table: RegionTable, values: Sequence[int]) -> RegionTable:
    index = (*table.index, *values)
    original = (*table.original_name, *(f"region_{value}" for value in values))
    blank = ("",) * len(values)
    extra = tuple((column, (*cells, *blank)) for column, cells in table.extra)
    return RegionTable(index, _unique_names(index, original), original, extra)


def _values(labels: NDArray[np.int64]) -> list[int]:
    values: list[int] = np.unique(labels).tolist()
    return [value for value in values if value != 0]


def _some(values: Sequence[int]) -> str:
    text = ", ".join(map(str, values[:6]))
    return f"{text}, ... {values[-1]}" if len(values) > 6 else text
