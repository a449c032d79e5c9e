"""Region tables: what becomes the columns of every output, and under which names."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.atlases.formats import BACKGROUND, Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from bids_roi.atlases.formats import RawTable


SIDE_COLUMNS = ("hemisphere", "hemi", "side")
_NETWORK_COLUMNS = (
    "network",
    "network_label",
    "yeo_networks7",
    "network_7",
    "community",
)
_NETWORK_NAME = re.compile(r"(?:7|17)Networks_(?:LH_|RH_)?([A-Za-z]+)(?:_.*)?")
# Names of the Schaefer atlas and its networks, in its two orders.
_SCHAEFER = re.compile(r"(?:(?:17|7)Networks_)?[LR]H_([A-Za-z]+)_\w*\d")
SEVEN_NETWORKS = frozenset(
    {"Vis", "SomMot", "DorsAttn", "SalVentAttn", "Limbic", "Cont", "Default"}
)
SEVENTEEN_NETWORKS = frozenset(
    {"VisCent", "VisPeri", "TempPar", "Limbic"}
    | {f"{name}{x}" for name in SEVEN_NETWORKS - {"Vis"} for x in "ABC"}
)
_LEFT = re.compile(
    r"(?:^|[^a-z])(?:left|lh)(?:$|[^a-z])|^l[_.\-\s]|[_.\-\s]l$", re.IGNORECASE
)
_RIGHT = re.compile(
    r"(?:^|[^a-z])(?:right|rh)(?:$|[^a-z])|^r[_.\-\s]|[_.\-\s]r$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class RegionTable:
    """The regions of an atlas, in the order of its table.

    Attributes
    ----------
    index
        Label value of each region, all different, none 0; of an atlas of maps, the
        number of the map, from 1.
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


def build_regions(raw: RawTable) -> tuple[RegionTable, tuple[Finding, ...]]:
    """Turn a table as read into regions with unique names, and what was found.

    A row of index 0 that is called background (or empty, unknown ...) is left out; a
    real region of index 0 and repeated indices stay in: see the findings.
    """
    findings = list(raw.findings)
    rows = [
        row
        for row, value in enumerate(raw.index)
        if not (value == 0 and BACKGROUND.fullmatch(raw.name[row]))
    ]
    if len(rows) < len(raw.index):
        text = "the row of index 0 is the background and is left out."
        findings.append(Finding("note", "background", text))
    index = tuple(raw.index[row] for row in rows)
    names = tuple(raw.name[row] for row in rows)
    extra = tuple((c, tuple(cells[row] for row in rows)) for c, cells in raw.extra)
    repeated = sorted(v for v, count in Counter(index).items() if count > 1)
    if not index:
        text = "the table holds no region."
        findings.append(Finding("error", "empty table", text, "Check the file."))
    if repeated:
        text = f"the index values {some(repeated)} occur more than once."
        fix = "Give each region one row."
        findings.append(Finding("error", "duplicate index", text, fix))
    unique = _unique_names(index, names, sides_of(names, extra))
    findings.extend(_tell_names(names, unique))
    return RegionTable(index, unique, names, extra), tuple(findings)


def _tell_names(names: Sequence[str], unique: Sequence[str]) -> list[Finding]:
    blank = [new for old, new in zip(names, unique, strict=True) if old in ("", "n/a")]
    counts = Counter(name for name in names if name not in ("", "n/a"))
    repeated = [name for name, count in counts.items() if count > 1]
    findings = []
    if blank:
        text = f"{len(blank)} regions have no name; they are called {some(blank)}."
        findings.append(Finding("corrected", "blank names", text))
    if repeated:
        text = (
            f"{len(repeated)} names occur more than once ({some(repeated)}): the side"
            " or the index was appended; original_name keeps them."
        )
        findings.append(Finding("corrected", "duplicate names", text))
    return findings


def _unique_names(
    index: Sequence[int], names: Sequence[str], sides: Sequence[str]
) -> tuple[str, ...]:
    """Names for a header: no control characters, none blank, none twice.

    >>> _unique_names([3, 5, 7], ["V1", "V1", ""], ["", "", ""])
    ('V1_3', 'V1_5', 'region_7')
    >>> _unique_names([1, 2], ["V1", "V1"], ["L", "R"])
    ('V1_L', 'V1_R')
    """
    clean = [
        " ".join("".join(c if c.isprintable() else " " for c in name).split())
        for name in names
    ]
    clean = [
        f"region_{value}" if name in ("", "n/a") else name
        for value, name in zip(index, clean, strict=True)
    ]
    counts = Counter(clean)
    with_side = [
        f"{name}_{side}" if counts[name] > 1 and side else name
        for name, side in zip(clean, sides, strict=True)
    ]
    counts = Counter(with_side)
    # A repeated index is an error that is told elsewhere; names stay unique even so.
    tags = index if len(set(index)) == len(index) else range(1, len(index) + 1)
    unique = [
        f"{name}_{tag}" if counts[name] > 1 else name
        for tag, name in zip(tags, with_side, strict=True)
    ]
    if len(set(unique)) < len(unique):  # a name that ends in another's index
        unique = [f"{name}_{tag}" for tag, name in zip(tags, unique, strict=True)]
    return tuple(unique)


def sides_of(
    names: Sequence[str], extra: Sequence[tuple[str, tuple[str, ...]]] = ()
) -> tuple[str, ...]:
    """Side of the body each region is on: ``L``, ``R``, or blank where not told.

    A column ``hemisphere`` (``hemi``, ``side``) counts first, then the names: LH, RH,
    Left, Right as words, and L or R as the first or last one.

    >>> sides_of(["Left-Thalamus", "7Networks_RH_Vis_1", "Insula_L", "Brain-Stem"])
    ('L', 'R', 'L', '')
    """
    for column, cells in extra:
        if column.lower() in SIDE_COLUMNS:
            found = tuple(
                {"l": "L", "r": "R"}.get(cell[:1].lower(), "")
                if cell.lower() in ("l", "r", "lh", "rh", "left", "right")
                else ""
                for cell in cells
            )
            if any(found):
                return found
    sides = []
    for name in names:
        left, right = bool(_LEFT.search(name)), bool(_RIGHT.search(name))
        sides.append("" if left == right else "L" if left else "R")
    return tuple(sides)


def networks_of(table: RegionTable) -> tuple[str, ...] | None:
    """Network of each region, ``n/a`` where not told; ``None`` where none is.

    A column ``network`` (``network_label``, ``Yeo_networks7`` ...) counts first, then
    names as Schaefer et al. make them.

    >>> names = ("7Networks_LH_Vis_1", "7Networks_RH_Default_PFC_2", "Thalamus")
    >>> networks_of(RegionTable((1, 2, 3), names, names))
    ('Vis', 'Default', 'n/a')
    """
    columns = {column.lower(): cells for column, cells in table.extra}
    for column in _NETWORK_COLUMNS:
        if any(columns.get(column, ())):
            return tuple(cell or "n/a" for cell in columns[column])
    found = [_NETWORK_NAME.fullmatch(name) for name in table.original_name]
    if not any(found):
        return None
    return tuple(match[1] if match else "n/a" for match in found)


def schaefer_network(name: str) -> str:
    """Network in a name of the Schaefer atlas; blank in those of other atlases.

    >>> schaefer_network("17Networks_LH_ContA_PFCl_1"), schaefer_network("LH_Caudate_1")
    ('ContA', '')
    """
    match = _SCHAEFER.fullmatch(name)
    known = SEVEN_NETWORKS | SEVENTEEN_NETWORKS
    return match[1] if match is not None and match[1] in known else ""


def name_by_value(values: Sequence[int]) -> RegionTable:
    """Name regions by their value, where an image has no table."""
    names = tuple(f"region_{value}" for value in values)
    return RegionTable(tuple(values), names, names)


def append_values(table: RegionTable, values: Sequence[int]) -> RegionTable:
    """Add regions at the end that only the image knows, named by their value."""
    index = (*table.index, *values)
    original = (*table.original_name, *(f"region_{value}" for value in values))
    extra = tuple((c, (*cells, *[""] * len(values))) for c, cells in table.extra)
    unique = _unique_names(index, original, sides_of(original, extra))
    return RegionTable(index, unique, original, extra)


def keep_regions(table: RegionTable, wanted: Collection[int]) -> RegionTable:
    """Keep the rows whose index is wanted, in their order."""
    rows = [row for row, value in enumerate(table.index) if value in wanted]
    index = tuple(table.index[row] for row in rows)
    names = tuple(table.original_name[row] for row in rows)
    extra = tuple((c, tuple(cells[row] for row in rows)) for c, cells in table.extra)
    unique = _unique_names(index, names, sides_of(names, extra))
    return RegionTable(index, unique, names, extra)


def some(values: Sequence[object]) -> str:
    """List a few values, the rest by dots and the last one."""
    text = ", ".join(map(str, values[:6]))
    return f"{text}, ... {values[-1]}" if len(values) > 6 else text


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
