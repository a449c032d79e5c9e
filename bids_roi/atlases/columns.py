"""Which column of a region table holds the label values: the image decides.

Tables are published with a row number beside the values, and what is called ``index``
is then not what the image holds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bids_roi.atlases.findings import Finding
from bids_roi.atlases.regions import some
from bids_roi.files.tables import to_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bids_roi.atlases.regions import RegionTable


# How columns of label values are called, without blanks, hyphens and underscores.
_VALUES = re.compile(
    r"(label|roi|region|parcel|voxel|image|atlas|key|gr[ae]y)?"
    r"(index|id|value|key|label|roi|intensity|code)",
    re.IGNORECASE,
)
_BLANK = ("", "n/a", "nan", "na")


def check_columns(
    table: RegionTable, index_column: str, values: Sequence[int]
) -> list[Finding]:
    """Compare the index with the other whole-number columns of its table.

    At most one finding: an error where another column fits the image better than the
    index, or holds the same numbers in another order under a name for label values; a
    warning where it does so under any other name. ``values`` are the image's other than
    0, or the numbers of its maps; the table is without its background.
    """
    found, rows = set(values), list(table.index)
    if set(rows) == set(range(len(values))) == {value - 1 for value in values}:
        rows = [row + 1 for row in rows]  # maps may be counted from 0
    for column, cells in table.extra:
        numbers = _whole_numbers(cells)
        held = [number for number in numbers if number is not None]
        if len(set(held)) < len(held) or _agrees(numbers, rows, found):
            continue
        if 2 * len(found & set(held)) >= len(found) and (
            _fit(held, found) > _fit(rows, found)
        ):
            return [_better(column, held, index_column, rows, found)]
        if set(held) == set(rows) and rows == sorted(rows) != held:
            return [_other_order(column, index_column)]
    return []


def _whole_numbers(cells: Sequence[str]) -> list[int | None]:
    """Numbers of a column, ``None`` for blank cells; empty where one is no number."""
    numbers: list[int | None] = []
    for cell in cells:
        if cell.strip().lower() in _BLANK:
            numbers.append(None)
            continue
        try:
            value = to_number(cell)
            whole = int(value)
        except (ValueError, OverflowError):
            return []
        if whole != value:
            return []
        numbers.append(whole)
    return numbers


def _agrees(
    numbers: Sequence[int | None], rows: Sequence[int], found: set[int]
) -> bool:
    """Whether a column gives every value of the image the row that the index does."""
    return all(
        number == row
        for number, row in zip(numbers, rows, strict=False)
        if number is not None and number in found
    )


def _fit(numbers: Sequence[int], found: set[int]) -> float:
    """Values in both over values in either, 0 to 1 (Jaccard 1901); 1 is exact."""
    known = set(numbers)
    return len(known & found) / len(known | found)


def _better(
    column: str,
    held: Sequence[int],
    index_column: str,
    rows: Sequence[int],
    found: set[int],
) -> Finding:
    text = (
        f"the values of the image ({some(sorted(found))}) are those of the column"
        f" '{column}' ({len(found & set(held))} of {len(found)} are in it) and not of"
        f" '{index_column}' ({len(found & set(rows))}): names would go to other"
        " regions."
    )
    return Finding("error", "index column", text, _remedy(column, index_column))


def _other_order(column: str, index_column: str) -> Finding:
    plain = re.sub(r"[\s_-]", "", column)
    if _VALUES.fullmatch(plain):
        text = (
            f"the columns '{index_column}' and '{column}' hold the same numbers in"
            " different orders, and either may be the label values of the image."
        )
        return Finding("error", "index column", text, _remedy(column, index_column))
    text = (
        f"the column '{column}' holds the numbers of '{index_column}' in another order;"
        f" '{index_column}' is taken for the label values of the image."
    )
    return Finding("warning", "index column", text, _remedy(column, index_column))


def _remedy(column: str, index_column: str) -> str:
    return (
        f"If '{column}' holds the label values, name it index and rename or remove"
        f" '{index_column}'; else remove '{column}'."
    )
