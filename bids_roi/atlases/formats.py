"""Formats of region tables, read to one shape: index, name, further columns.

TSV and CSV (with a header or without), FSL's XML, FreeSurfer's colour table, the pair
of NodeNames.txt and NodeIndex.1D of xcpEngine, and plain text with a name per line.
What is read is not judged here, see ``regions`` and ``checks``; a ``Finding`` is what
any of them has to say of an atlas.
"""

from __future__ import annotations

import csv
import dataclasses
import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_roi.errors import AtlasError, MissingInput
from bids_roi.files.tables import to_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


# From what stops the work to what is good to know.
SEVERITIES = ("error", "warning", "corrected", "note")
_INDEX_COLUMNS = ("index", "label", "id", "value", "component", "roi", "no", "number")
_NAME_COLUMNS = (
    "name",
    "label",
    "region",
    "structure",
    "difumo_names",
    "roi",
    "regionname",
    "labelname",
    "description",
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
# Of stripped lines. Every pattern here takes time in proportion to its text.
_COLOUR_ROW = re.compile(r"(-?\d{1,15})\s+(\S+)((?:\s+\d{1,15}){3,4})")
_NUMBERED_ROW = re.compile(r"(\d{1,15})[\s,;:.]+(\S.*)")
_XML_INDEX = re.compile(r"""\bindex\s*=\s*["']\s*(-?\d{1,15})\s*["']""")
_MAX_INDEX = 2**53  # beyond, not every whole number is a double
_LARGEST = 2**26  # bytes; FreeSurfer's colour table has 10^5


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about an atlas.

    Attributes
    ----------
    severity
        ``error``: the atlas is not used. ``warning``: it is used as it is, and the
        outputs say so. ``corrected``: something was safely put right, and the outputs
        say so. ``note``: good to know; only ``check-atlas`` says it.
    check
        Which check speaks, a word or two.
    text
        What was found, and what was needed.
    fix
        What to do about it.
    """

    severity: str
    check: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        """Text and fix in one line."""
        return f"{self.text} {self.fix}".rstrip()


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity; their order stays otherwise."""
    return sorted(findings, key=lambda f: SEVERITIES.index(f.severity))


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table as it was read.

    Attributes
    ----------
    index
        Label values, in the order of the rows.
    name
        Names, stripped.
    extra
        Further columns, ``(column, cells)``.
    findings
        What is odd about the file.
    index_column
        Name of the column that was taken for the index.
    """

    index: tuple[int, ...]
    name: tuple[str, ...]
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    findings: tuple[Finding, ...] = ()
    index_column: str = "index"


def is_background(name: str) -> bool:
    """Whether a label of a surface is no region by its name.

    >>> [is_background(name) for name in ("???", "unknown", "Vis_1")]
    [True, True, False]
    """
    return bool(name) and _NO_CORTEX.fullmatch(name) is not None


def without_wall(raw: RawTable) -> RawTable:
    """Leave out the rows of a table that are no cortex by their names."""
    rows = [n for n, name in enumerate(raw.name) if not is_background(name)]
    return dataclasses.replace(
        raw,
        index=tuple(raw.index[n] for n in rows),
        name=tuple(raw.name[n] for n in rows),
        extra=tuple((c, tuple(cells[n] for n in rows)) for c, cells in raw.extra),
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
    names = tuple(row.strip() for row in rows)
    return RawTable(tuple(range(1, len(rows) + 1)), names, (), (finding,))


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
