"""Region tables: their formats, and the columns of every output that they make.

TSV and CSV (with a header or without), FSL's XML, FreeSurfer's colour table, the pair
of NodeNames.txt and NodeIndex.1D of xcpEngine, and plain text with a name per line.
"""

from __future__ import annotations

import csv
import dataclasses
import html
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_roi.errors import AtlasError, MissingInput
from bids_roi.files.tables import to_number

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


_INDEX_COLUMNS = ("index", "label", "id", "value", "component", "roi", "no", "number")
_NAME_COLUMNS = (
    *("name", "label", "region", "structure", "difumo_names", "roi"),
    *("regionname", "labelname", "description"),
)
BACKGROUND = re.compile(
    r"back.?ground|unknown|\?+|none|null|empty|clear.?label|outside|medial.?wall|n/a|",
    re.IGNORECASE,
)
# FreeSurfer's and CBIG's words in the tables of annots, whatever their number.
_NO_CORTEX = re.compile(
    rf"(?:ctx[-_][lr]h[-_])?(?:{BACKGROUND.pattern}corpus.?callosum|.*medial.?wall)",
    re.IGNORECASE,
)
# Further columns and their cells.
_Extra = tuple[tuple[str, tuple[str, ...]], ...]
# Of stripped lines. Every pattern here takes time in proportion to its text.
_COLOUR_ROW = re.compile(r"(-?\d{1,15})\s+(\S+)((?:\s+\d{1,15}){3,4})")
_NUMBERED_ROW = re.compile(r"(\d{1,15})[\s,;:.]+(\S.*)")
_XML_INDEX = re.compile(r"""\bindex\s*=\s*["']\s*(-?\d{1,15})\s*["']""")
_MAX_INDEX = 2**53  # beyond, not every whole number is a double
_LARGEST = 2**26  # bytes; FreeSurfer's colour table has 10^5


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about an atlas."""

    # error: the atlas is not used. warning: it is used as it is, and the outputs say
    # so. corrected: something was safely put right, and the outputs say so. note: good
    # to know; only check-atlas says it.
    severity: str
    check: str  # which check speaks, a word or two
    text: str  # what was found, and what was needed
    fix: str = ""  # what to do about it

    def __str__(self) -> str:
        """Text and fix in one line."""
        return f"{self.text} {self.fix}".rstrip()


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table as it was read."""

    index: tuple[int, ...]  # label values, in the order of the rows
    name: tuple[str, ...]  # names, stripped
    extra: _Extra = ()
    findings: tuple[Finding, ...] = ()  # what is odd about the file
    index_column: str = "index"  # name of the column that was taken for the index


def is_background(name: str) -> bool:
    """Whether a label of a surface is no region by its name.

    >>> [is_background(name) for name in ("???", "unknown", "Vis_1")]
    [True, True, False]
    """
    return bool(name) and _NO_CORTEX.fullmatch(name) is not None


def without_wall(raw: RawTable) -> RawTable:
    """Leave out the rows of a table that are no cortex by their names."""
    rows = [n for n, name in enumerate(raw.name) if not is_background(name)]
    index, name, extra = _take_rows(rows, raw.index, raw.name, raw.extra)
    return dataclasses.replace(raw, index=index, name=name, extra=extra)


def _take_rows(
    rows: Sequence[int], index: Sequence[int], names: Sequence[str], extra: _Extra
) -> tuple[tuple[int, ...], tuple[str, ...], _Extra]:
    """Some rows of the columns of a table."""
    return (
        tuple(index[row] for row in rows),
        tuple(names[row] for row in rows),
        tuple((column, tuple(cells[row] for row in rows)) for column, cells in extra),
    )


def read_raw_table(path: Path) -> RawTable:
    """Read a region table of any known format.

    Of xcpEngine's pair ``path`` is ``*NodeNames.txt``; the index is looked for beside
    it.
    """
    beside = path.with_name(path.name.replace("NodeNames.txt", "NodeIndex.1D"))
    if beside != path and beside.is_file():
        return _parse_nodes(_read(path), _read(beside), path, beside)
    return parse_table(_read(path), path)


def parse_table(text: str, where: Path) -> RawTable:
    """Parse a table's text; the format follows from the name and the content."""
    findings = []
    if "\r" in text:
        found = "the lines end as on Windows or old Macs (CR); they are read as usual."
        findings.append(Finding("note", "line ends", found))
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        msg = "the table is empty."
        raise AtlasError(msg, where=where, remedy="Check the file.")
    if where.suffix.lower() == ".xml" or lines[0].lstrip().startswith("<?xml"):
        table = _parse_xml(text, where)
    elif where.suffix.lower() in (".tsv", ".csv"):
        table = _parse_columns(lines, where)
    else:
        table = _parse_lines(lines, where)
    return dataclasses.replace(table, findings=(*findings, *table.findings))


def _read(path: Path) -> str:
    try:
        # newline="" keeps the line ends, to tell of odd ones.
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read(_LARGEST + 1)
    except UnicodeDecodeError as error:
        msg = "the file is not text in UTF-8."
        raise AtlasError(msg, where=path, remedy="Save it as UTF-8.") from error
    except OSError as error:
        msg = f"the file cannot be read ({error.strerror})."
        raise MissingInput(msg, where=path, remedy="Check the path.") from error
    if len(text) > _LARGEST:
        msg = f"the table has more than {_LARGEST // 2**20} MiB, which none has."
        raise AtlasError(msg, where=path, remedy="Is it the image? Give the table.")
    return text


def _parse_nodes(names: str, index: str, path: Path, beside: Path) -> RawTable:
    """The pair of xcpEngine: names, one a line, and label values in the same order."""
    rows = [line.strip() for line in names.split("\n") if line.strip()]
    values = index.split()
    if not all(map(_is_whole, values)):
        msg = "the file holds something other than whole numbers."
        raise AtlasError(msg, where=beside, remedy="Give one label value a line.")
    if len(rows) != len(values):
        msg = f"there are {len(rows)} names, and {len(values)} values in {beside.name}."
        raise AtlasError(msg, where=path, remedy="Give each name its value.")
    return RawTable(tuple(int(float(v)) for v in values), tuple(rows))


def _parse_xml(text: str, where: Path) -> RawTable:
    """FSL's description of an atlas.

    Its index counts volumes of the probabilistic image from 0; the label image that
    goes with it ("summary image") has that number + 1. Only for atlases of type Label
    are index and value the same.
    """
    rows = []
    for attributes, content in _find_labels(text):
        index = _XML_INDEX.search(attributes)
        if index is None:
            msg = "a <label> has no index."
            raise AtlasError(msg, where=where, remedy="Check the file.")
        rows.append((int(index[1]), html.unescape(content).strip()))
    if not rows:
        msg = "the XML holds no <label index=...>: it is not FSL's kind."
        raise AtlasError(msg, where=where, remedy="Give the table as TSV.")
    kind = re.search(r"<type>\s*(\w+)\s*</type>", text)
    plain = kind is not None and kind[1].casefold() == "label"
    findings = []
    if not plain:
        rows = [(index + 1, name) for index, name in rows]
        found = (
            "FSL's XML counts maps from 0, its label images regions from 1: 1 was added"
            " to every index."
        )
        findings.append(Finding("corrected", "FSL index", found))
    values, names = zip(*rows, strict=True)
    return RawTable(values, names, (), tuple(findings))


def _find_labels(text: str) -> Iterator[tuple[str, str]]:
    """Attributes and content of each <label>; entities are not expanded."""
    at = text.find("<label")
    while at >= 0:
        end = text.find(">", at)
        close = text.find("</label>", end) if end >= 0 else -1
        if close < 0:
            return
        attributes = text[at + len("<label") : end]
        if attributes[:1].isspace() or not attributes:
            yield attributes, text[end + 1 : close]
            end = close
        at = text.find("<label", end)


def _parse_lines(lines: Sequence[str], where: Path) -> RawTable:
    """Colour table, numbered lines, or names alone."""
    rows = [line for line in lines if not line.lstrip().startswith("#")]
    stripped = [row.strip() for row in rows]
    colours = [_COLOUR_ROW.fullmatch(row) for row in stripped]
    if rows and all(colours):
        found = [match for match in colours if match is not None]
        hexes = [
            "#" + "".join(f"{min(255, int(v)):02x}" for v in match[3].split()[:3])
            for match in found
        ]
        return RawTable(
            tuple(int(match[1]) for match in found),
            tuple(match[2] for match in found),
            (("color", tuple(hexes)),),
        )
    numbered = [_NUMBERED_ROW.fullmatch(row) for row in stripped]
    if rows and all(numbered):
        pairs = [(int(match[1]), match[2]) for match in numbered if match is not None]
        values, words = zip(*pairs, strict=True)
        return RawTable(values, words)
    if rows and "\t" in rows[0]:
        return _parse_columns(rows, where)
    if not rows or any(numbered):
        msg = "the file is no table of regions: some lines begin with a number."
        raise AtlasError(msg, where=where, remedy="Write it as TSV: index, name.")
    text = f"the table has no index: its {len(rows)} names are taken for 1, 2, 3 ..."
    finding = Finding("warning", "no index", text, "Check that the order is so.")
    return RawTable(tuple(range(1, len(rows) + 1)), tuple(stripped), (), (finding,))


def _parse_columns(lines: Sequence[str], where: Path) -> RawTable:
    delimiter = "\t"
    if where.suffix.lower() == ".csv":
        delimiter = ";" if lines[0].count(";") > lines[0].count(",") else ","
    try:
        rows = [
            [cell.strip() for cell in row]
            # strict: a quote that is never closed would swallow the rows after it.
            for row in csv.reader(lines, delimiter=delimiter, strict=True)
        ]
    except csv.Error as error:
        msg = f"the table cannot be read ({error})."
        raise AtlasError(msg, where=where, remedy="Write it again as TSV.") from error
    findings = []
    if _is_whole(rows[0][0]) and len(rows[0]) > 1 and not _is_whole(rows[0][1]):
        found = "the table has no header row; its columns are taken for index and name."
        findings.append(Finding("note", "no header", found))
        width = max(map(len, rows))
        more = [f"column {number}" for number in range(3, width + 1)]
        rows.insert(0, ["index", "name", *more])
    columns = _columns(rows, where)
    index_column = _pick(columns, _INDEX_COLUMNS, whole=True)
    name_column = _pick(columns, _NAME_COLUMNS, whole=False, but=index_column)
    if index_column is None or name_column is None:
        msg = f"the columns are {', '.join(columns)}; index and name are needed."
        remedy = (
            "Rename the columns: index holds the label values (whole numbers), name the"
            " regions."
        )
        raise AtlasError(msg, where=where, remedy=remedy)
    index = tuple(int(float(cell)) for cell in columns.pop(index_column))
    names = tuple(columns.pop(name_column))
    extra = tuple((name, tuple(cells)) for name, cells in columns.items())
    return RawTable(index, names, extra, tuple(findings), index_column)


def _columns(rows: Sequence[Sequence[str]], where: Path) -> dict[str, list[str]]:
    header = rows[0]
    named = [name for name in header if name]
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        msg = f"the columns {', '.join(repeated)} occur more than once."
        raise AtlasError(msg, where=where, remedy="Give each column its own name.")
    columns: dict[str, list[str]] = {name: [] for name in named}
    for number, row in enumerate(rows[1:], start=2):
        # Blank cells at the end are left out by some editors and added by others.
        if any(row[len(header) :]) or len(row) < min(2, len(named)):
            msg = f"row {number} has {len(row)} cells, the header has {len(header)}."
            raise AtlasError(msg, where=where, remedy="Check the separators.")
        cells = [*row, *[""] * (len(header) - len(row))]
        for name, cell in zip(header, cells, strict=False):
            if name:
                columns[name].append(cell)
    return columns


def _pick(
    columns: dict[str, list[str]],
    wanted: Sequence[str],
    *,
    whole: bool,
    but: str | None = None,
) -> str | None:
    """First of the wanted columns whose cells are whole numbers.

    For names, those that hold something else come first; numbers may be names.
    """
    lower = {re.sub(r"[\s_-]", "", name.lower()): name for name in columns}
    lower |= {name.lower(): name for name in columns}
    there = [lower[word] for word in wanted if lower.get(word, but) != but]
    numbers = [column for column in there if all(map(_is_whole, columns[column]))]
    if whole:
        return next(iter(numbers), None)
    words = [column for column in there if column not in numbers]
    return next(iter(words + numbers), None)


def _is_whole(cell: str) -> bool:
    try:
        value = to_number(cell)
        return value == int(value) and abs(value) <= _MAX_INDEX
    except (ValueError, OverflowError):
        return False


SIDE_COLUMNS = ("hemisphere", "hemi", "side")
_NETWORK_COLUMNS = (
    *("network", "network_label", "yeo_networks7", "network_7", "community"),
)
_NETWORK_NAME = re.compile(r"(?:7|17)Networks_(?:LH_|RH_)?([A-Za-z]+)(?:_.*)?")
_LEFT = re.compile(
    r"(?:^|[^a-z])(?:left|lh)(?:$|[^a-z])|^l[_.\-\s]|[_.\-\s]l$", re.IGNORECASE
)
_RIGHT = re.compile(
    r"(?:^|[^a-z])(?:right|rh)(?:$|[^a-z])|^r[_.\-\s]|[_.\-\s]r$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class RegionTable:
    """The regions of an atlas, in the order of its table."""

    # Label value of each region, all different, none 0; of an atlas of maps, the number
    # of the map, from 1
    index: tuple[int, ...]
    # Unique names without tabs or line ends: the header of every output
    name: tuple[str, ...]
    original_name: tuple[str, ...]  # names as the table has them
    # Further columns of the table, (column, cells)
    extra: _Extra = ()

    @property
    def values(self) -> NDArray[np.int64]:
        """The index as an array, (R,)."""
        import numpy as np  # lists of atlases need none

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
    index, names, extra = _take_rows(rows, raw.index, raw.name, raw.extra)
    repeated = sorted(v for v, count in Counter(index).items() if count > 1)
    if not index:
        text = "the table holds no region."
        findings.append(Finding("error", "empty table", text, "Check the file."))
    if repeated:
        text = f"the index values {some(repeated)} occur more than once."
        fix = "Give each region one row."
        findings.append(Finding("error", "duplicate index", text, fix))
    table = _name_regions(index, names, extra)
    return table, (*findings, *_tell_names(names, table.name))


def _name_regions(
    index: tuple[int, ...], names: tuple[str, ...], extra: _Extra
) -> RegionTable:
    unique = _unique_names(index, names, sides_of(names, extra))
    return RegionTable(index, unique, names, extra)


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


def sides_of(names: Sequence[str], extra: _Extra = ()) -> tuple[str, ...]:
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


def name_by_value(values: Sequence[int]) -> RegionTable:
    """Name regions by their value, where an image has no table."""
    names = tuple(f"region_{value}" for value in values)
    return RegionTable(tuple(values), names, names)


def append_values(table: RegionTable, values: Sequence[int]) -> RegionTable:
    """Add regions at the end that only the image knows, named by their value."""
    index = (*table.index, *values)
    original = (*table.original_name, *(f"region_{value}" for value in values))
    extra = tuple((c, (*cells, *[""] * len(values))) for c, cells in table.extra)
    return _name_regions(index, original, extra)


def keep_regions(table: RegionTable, wanted: Collection[int]) -> RegionTable:
    """Keep the rows whose index is wanted, in their order."""
    rows = [row for row, value in enumerate(table.index) if value in wanted]
    taken = _take_rows(rows, table.index, table.original_name, table.extra)
    return _name_regions(*taken)


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
        drawn, others = _colours_of(tables[base]), _colours_of(tables[n]).items()
        clash = next((x for x, colour in others if drawn.get(x, colour) != colour), "")
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
