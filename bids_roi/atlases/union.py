"""One set of columns for an atlas that exists as a volume, on surfaces, or as both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_roi.atlases.regions import RegionTable, some

if TYPE_CHECKING:
    from collections.abc import Sequence


def unite_tables(
    tables: Sequence[RegionTable], sources: Sequence[str]
) -> tuple[RegionTable, dict[int, str]]:
    """All regions of all layouts; and which tables could not be joined, and why.

    A region is told by its name. The longest table, the first of equal ones, gives the
    order and the columns; what it lacks comes last. ``sources`` tells what each table
    is from: those of one dataset are one atlas by their author's word. Of others, all
    names must be among those of the longest: TemplateFlow has two editions of an atlas,
    which give one name to two parcels.
    """
    order = sorted(range(len(tables)), key=lambda n: -len(tables[n].name))
    base = order[0]
    joined, apart = [tables[base]], {}
    for n in order[1:]:
        clash = _find_clash(tables[base], tables[n])
        missing = sorted(set(tables[n].name) - set(tables[base].name))
        if clash:
            apart[n] = f"{clash} is another region there, by its colour"
        elif missing and sources[n] != sources[base]:
            apart[n] = f"{len(missing)} of its names are not there: {some(missing)}"
        else:
            joined.append(tables[n])
    rows: dict[str, tuple[int, str, dict[str, str]]] = {}
    for table in joined:
        for n, name in enumerate(table.name):
            cells = {column: values[n] for column, values in table.extra}
            rows.setdefault(name, (table.index[n], table.original_name[n], cells))
    columns = [column for column, _ in joined[0].extra]
    extra = tuple(
        (column, tuple(cells.get(column, "") for *_, cells in rows.values()))
        for column in columns
    )
    original = tuple(name for _, name, _ in rows.values())
    index = tuple(value for value, *_ in rows.values())
    return RegionTable(index, tuple(rows), original, extra), apart


def _find_clash(one: RegionTable, other: RegionTable) -> str:
    """Name that two tables draw in two colours; blank if there is none."""
    drawn = _colours_of(one)
    for name, colour in _colours_of(other).items():
        if drawn.get(name, colour) != colour:
            return name
    return ""


def _colours_of(table: RegionTable) -> dict[str, str]:
    cells = {column.lower(): cells for column, cells in table.extra}.get("color", ())
    pairs = zip(table.name, cells, strict=False)
    # Without opacity, which not all tables have.
    return {name: cell.lower()[:7] for name, cell in pairs if cell.startswith("#")}


def extend_table(own: RegionTable, union: RegionTable) -> RegionTable:
    """Table of a layout with the rows and the order of all layouts.

    Its own regions keep the values of its image; others get values that it has not.
    What only its image knows comes last.
    """
    held = dict(zip(own.name, own.index, strict=True))
    known = set(union.name)
    later = [n for n, name in enumerate(own.name) if name not in known]
    taken = set(own.index)
    free = max(taken | set(union.index), default=0) + 1
    index = []
    for name, wanted in zip(union.name, union.index, strict=True):
        value = held.get(name, wanted)
        if name not in held and value in taken:
            value, free = free, free + 1
        taken.add(value)
        index.append(value)
    return RegionTable(
        index=(*index, *(own.index[n] for n in later)),
        name=(*union.name, *(own.name[n] for n in later)),
        original_name=(*union.original_name, *(own.original_name[n] for n in later)),
        extra=tuple((c, (*cells, *[""] * len(later))) for c, cells in union.extra),
    )
