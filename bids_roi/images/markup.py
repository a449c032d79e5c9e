"""XML of CIFTI and GIFTI files: label tables, and arrays, piece by piece.

Read by expat, because writers differ in what a search for tags would stumble over:
attributes over several lines, CDATA, one array for each volume or one for all.
"""

from __future__ import annotations

import binascii
import contextlib
import functools
import gzip
import math
import re
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from bids_roi.errors import FETCH_AGAIN, AtlasError, DataError, ImageError, MissingInput
from bids_roi.images.header import MOST_VERTICES, open_file
from bids_roi.images.stream import new_inflater

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


PIECE = 2**16  # bytes: what they unpack to, at most 1,032 times as much, fits in memory
_MOST_MARKUP = 2**20  # bytes of one tag or comment, which expat holds until its end
_MOST_ELEMENTS = 2**19
_DEEPEST = 32
_WRITE_AGAIN = "Write the file again with the software that made it."


@dataclass(frozen=True, slots=True)
class Label:
    """A row of a file's own table."""

    # Value in the data. FreeSurfer packs the colour into it, so that 32 bits with a
    # sign do not hold all of them.
    key: int
    name: str  # stripped; may be blank, or the same in two rows
    # Red, green, blue and opacity, 0 to 1; NaN where the file has none
    rgba: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False, slots=True)
class LabelledPoints:
    """One map of labels."""

    # (V,): of each point, int64, in the order of the file; 0 is background.
    keys: NDArray[np.int64]
    table: tuple[Label, ...]  # in the order of the file, the background included
    map_name: str = ""  # which map of the file this is; blank where maps have no names
    told: str = ""  # what the user should know of the choice; blank for most

    def __post_init__(self) -> None:
        """Refuse a key of the data that means two things."""
        found = set(np.unique(self.keys).tolist()) - {0}
        known: dict[int, str] = {}
        for label in self.table:
            name = known.setdefault(label.key, label.name)
            if name != label.name and label.key in found:
                msg = (
                    f"the label table gives the key {label.key} to {name!r} and to"
                    f" {label.name!r}."
                )
                remedy = "Make the table again with one row for each key."
                raise AtlasError(msg, remedy=remedy)

    @property
    def unnamed(self) -> tuple[int, ...]:
        """Keys in the data, 0 aside, that the table lacks."""
        known = {label.key for label in self.table} | {0}
        return tuple(k for k in np.unique(self.keys).tolist() if k not in known)


def choose_map(names: list[str], wanted: str | None) -> tuple[int, str]:
    """Choose one of a file's maps.

    ``wanted`` is a name, or a number from 1; ``None`` takes the first. Returns a number
    from 0, and what to tell where nobody chose and there are several, or where a number
    is the name of another map, which wins.
    """
    listed = ", ".join(f"{i} {name!r}" for i, name in enumerate(names[:20], 1))
    listed += ", ..." if len(names) > 20 else ""
    if wanted is None:
        told = (
            f"The file holds {len(names)} maps ({listed}); the first is used. Choose"
            " one by its name or number behind a #, IMAGE#2."
        )
        return 0, told if len(names) > 1 else ""
    found = [i for i, name in enumerate(names) if name == wanted]
    number = int(wanted) if re.fullmatch("[0-9]{1,9}", wanted) else 0
    if 1 <= number <= len(names):
        found = found or [number - 1]
    if len(found) != 1:
        n_maps = len(found) or "no"
        msg = f"{n_maps} maps are called {wanted!r}; the file holds {listed}."
        raise AtlasError(msg, remedy="Choose a map by its number, IMAGE#2.")
    told = ""
    if 1 <= number <= len(names) and number - 1 not in found:
        told = (
            f"{wanted!r} is the name of map {found[0] + 1}, which is used, and not map"
            f" {number} ({names[number - 1]!r})."
        )
    return found[0], told


@contextlib.contextmanager
def located(path: Path, kind: type[DataError]) -> Iterator[None]:
    """Tell the file of what goes wrong inside, as an error of one kind."""
    try:
        yield
    except DataError as error:
        own = type(error) if issubclass(type(error), kind) else kind
        where = error.where or path
        raise own(error.problem, where=where, remedy=error.remedy) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        msg = f"the file is damaged or cut short ({error})."
        raise kind(msg, where=path, remedy=FETCH_AGAIN) from error
    except OSError as error:
        msg = f"the file cannot be read ({error.strerror or error})."
        raise MissingInput(msg, where=path, remedy="Check its permissions.") from error


def new_parser() -> expat.XMLParserType:
    """Parser that expands nothing of the file's own (no bombs) and reads UTF-8 only."""
    parser = expat.ParserCreate("UTF-8")
    parser.buffer_text = True
    parser.buffer_size = PIECE
    parser.StartDoctypeDeclHandler = _refuse_own_types
    return parser


def _refuse_own_types(
    _name: str,
    _system: str | None,
    _public: str | None,
    has_internal_subset: bool,  # noqa: FBT001 - expat calls it so
) -> None:
    """Let pass what GIFTI files begin with; refuse a DTD that is written out."""
    if has_internal_subset:
        msg = "the XML brings its own document type (<!DOCTYPE ... [...]>)."
        raise ImageError(msg, remedy="No imaging software writes that: do not use it.")


def feed(parser: expat.XMLParserType, pieces: Iterator[bytes]) -> Iterator[None]:
    """Parse piece by piece; after each, and at the end, the caller gets to act."""
    given = 0
    try:
        for piece in pieces:
            parser.Parse(piece, False)  # noqa: FBT003
            given += len(piece)
            if given - parser.CurrentByteIndex > _MOST_MARKUP:
                msg = f"a tag of the XML is longer than {_MOST_MARKUP // 2**20} MiB."
                raise ImageError(msg, remedy=FETCH_AGAIN)
            yield
        parser.Parse(b"", True)  # noqa: FBT003
    except expat.ExpatError as error:
        msg = f"the XML is broken ({error})."
        raise ImageError(msg, remedy=FETCH_AGAIN) from error
    yield


# Runs of a dataset mostly have one XML, to the number of volumes.
@functools.lru_cache(maxsize=2)
def parse_tree(xml: bytes) -> Element:
    """Parse a document that is in memory; the tree is not to be changed."""
    parser, tree = new_parser(), TreeBuilder()
    depth = n_elements = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, n_elements
        depth, n_elements = depth + 1, n_elements + 1
        if depth > _DEEPEST or n_elements > _MOST_ELEMENTS:
            msg = (
                f"the XML has more than {_MOST_ELEMENTS:,} elements, or they are nested"
                f" deeper than {_DEEPEST}."
            )
            raise ImageError(msg, remedy=_WRITE_AGAIN)
        tree.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        tree.end(tag)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = tree.data
    for _ in feed(parser, (xml[i : i + PIECE] for i in range(0, len(xml), PIECE))):
        pass
    return tree.close()


def whole(text: str | None, what: str, *, least: int = 0, most: int = 2**31) -> int:
    """Whole number that an attribute holds."""
    try:
        number = int(text or "")
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        msg = f"{what} is {(text or '')[:40]!r}; {least:,} to {most:,} can be used."
        raise ImageError(msg, remedy=_WRITE_AGAIN)
    return number


def parse_real(text: str | None) -> float:
    """Number that a text holds; NaN where it holds none."""
    try:
        return float(text or "")
    except ValueError:
        return float("nan")


_MOST_ARRAYS = 2**17
_MOST_LABELS = 2**17
_MOST_TEXT = 2**24  # characters of metadata
_LONGEST_NUMBER = 1000  # characters of ASCII
_PRIMARY = {"CORTEXLEFT": "CORTEX_LEFT", "CORTEXRIGHT": "CORTEX_RIGHT"}
AGAIN = "Copy or download the file again, or write it again with its software."
_CONVERT = "`wb_command -gifti-convert GZIP_BASE64_BINARY IN OUT` writes it anew."
# In small letters, as numpy calls them.
_TYPES = {"UINT8", "UINT16", "UINT32", "UINT64", "FLOAT32", "FLOAT64"}
_TYPES |= {"INT8", "INT16", "INT32", "INT64"}


def parse_label(attributes: Mapping[str, str], key: str | None, name: str) -> Label:
    """Understand a label of an XML table: its colour, its key, its name."""
    red, green, blue, alpha = (
        parse_real(attributes.get(colour))
        for colour in ("Red", "Green", "Blue", "Alpha")
    )
    number = whole(key, "Key of a label", least=-(2**31), most=2**32)
    return Label(number, name.strip(), (red, green, blue, alpha))


@dataclass(frozen=True, slots=True)
class ArrayHead:
    """Attributes of a DataArray."""

    intent: str  # without NIFTI_INTENT_
    # Of the axes, those of length 1 left out, the slowest on disk first
    lengths: tuple[int, ...]
    by_column: bool  # whether lengths is in the reverse order of the file's Dim0, Dim1
    dtype: str  # type of the values, with its byte order
    encoding: str  # ASCII, Base64Binary or GZipBase64Binary

    @property
    def n_values(self) -> int:
        """Numbers in the array."""
        return math.prod(self.lengths)


def parse_array_head(attributes: Mapping[str, str]) -> ArrayHead:
    """Understand the attributes of a DataArray."""
    encoding = attributes.get("Encoding", "")
    if attributes.get("ExternalFileName", "").strip() or "External" in encoding:
        msg = "the values are in another file (External), they are needed in this one."
        raise ImageError(msg, remedy=_CONVERT)
    kind = attributes.get("DataType", "").removeprefix("NIFTI_TYPE_")
    endian = attributes.get("Endian", "LittleEndian").upper()
    known = encoding in ("ASCII", "Base64Binary", "GZipBase64Binary")
    if kind not in _TYPES or not known or not ("BIG" in endian or "LITTLE" in endian):
        msg = (
            f"an array has the type {kind[:40]!r}, encoding {encoding[:40]!r} and byte"
            f" order {endian[:40]!r}; real numbers in a usual encoding are needed."
        )
        raise ImageError(msg, remedy=_CONVERT)
    n_axes = whole(attributes.get("Dimensionality"), "Dimensionality", least=1, most=6)
    lengths = [
        whole(attributes.get(f"Dim{i}"), f"Dim{i}", least=1, most=MOST_VERTICES)
        for i in range(n_axes)
    ]
    lengths = [n for n in lengths if n > 1] or [1]
    by_column = attributes.get("ArrayIndexingOrder") == "ColumnMajorOrder"
    order: Literal["<", ">"] = ">" if "BIG" in endian else "<"
    return ArrayHead(
        intent=attributes.get("Intent", "").removeprefix("NIFTI_INTENT_")[:40],
        lengths=tuple(reversed(lengths) if by_column else lengths),
        by_column=by_column,
        dtype=np.dtype(kind.lower()).newbyteorder(order).str,
        encoding=encoding,
    )


class _Decoder:
    """Text of one array, piece by piece, to rows along its fastest axis."""

    def __init__(self, head: ArrayHead) -> None:
        self.dtype = np.dtype(head.dtype)
        self.ascii = head.encoding == "ASCII"
        self.unzip: Any = None
        self.error: type[Exception] = ValueError
        if head.encoding[0] == "G":
            self.unzip, self.error = new_inflater()
        self.n_fast = head.lengths[-1]
        self.left = self.dtype.itemsize * head.n_values
        self.text = b""
        self.bytes = bytearray()

    def take(self, text: str, *, last: bool = False) -> NDArray[Any]:
        """Decode more text; return the rows, (n, n_fast), that are complete by it."""
        try:
            content = self._decode(self.text + text.encode(), last=last)
        except (ValueError, OverflowError, self.error) as error:  # binascii's too
            what = "numbers" if self.ascii else "Base64 text or its compression"
            msg = f"the {what} of an array cannot be read ({str(error)[:80]})."
            raise ImageError(msg, remedy=AGAIN) from error
        self.bytes += content
        self.left -= len(content)
        if self.left < 0 or (last and self.left > 0):
            lacking = -(-self.left // self.dtype.itemsize)
            found = (
                "too many values" if self.left < 0 else f"{lacking:,} values too few"
            )
            msg = f"an array holds {found} for its axes."
            raise ImageError(msg, remedy=AGAIN)
        stop = len(self.bytes) - len(self.bytes) % (self.n_fast * self.dtype.itemsize)
        done = bytes(memoryview(self.bytes)[:stop])
        del self.bytes[:stop]
        return np.frombuffer(done, self.dtype).reshape(-1, self.n_fast)

    def _decode(self, text: bytes, *, last: bool) -> bytes:
        if self.ascii:
            stop = max(text.rfind(c) for c in (b" ", b"\n", b"\t")) + 1
            stop = len(text) if last else stop
            self.text = text[stop:]
            if len(self.text) > _LONGEST_NUMBER or b"_" in text:
                raise ValueError(f"{text[:20]!r} is no number")
            return self._numbers(text[:stop].decode().split())
        if any(blank in text for blank in (b"\n", b" ", b"\r", b"\t")):
            text = text.translate(None, b" \t\r\n")
        stop = len(text) if last else len(text) - len(text) % 4
        self.text = text[stop:]
        packed = binascii.a2b_base64(text[:stop], strict_mode=True)
        if self.unzip is None:
            return packed
        # One byte too many tells a longer stream; the rest is never unpacked.
        content = bytes(self.unzip.decompress(packed, self.left + 1))
        if last and self.left == len(content) and not self.unzip.eof:
            raise ValueError("it ends before its checksum")
        return content

    def _numbers(self, words: list[str]) -> bytes:
        if self.dtype.kind == "f":
            with np.errstate(over="ignore"):  # infinite, which is told with the values
                return np.array(words, np.float64).astype(self.dtype).tobytes()
        return np.array([int(word) for word in words], self.dtype).tobytes()


@dataclass
class Reading:
    """A GIFTI file as it is being read."""

    n_arrays: int = 0  # as the file declares
    # Of the file and of its first array
    metadata: dict[str, str] = field(default_factory=dict)
    # Of the arrays so far
    heads: list[ArrayHead] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    # Values that nobody took yet, (n, n_fast), with the number of their array
    rows: deque[tuple[int, NDArray[Any]]] = field(default_factory=deque)
    labels: list[Label] = field(default_factory=list)  # the label table
    has_values: bool = False  # whether the values of the first array began
    _decoder: _Decoder | None = None
    _n_decoded: int = 0
    _inside: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _n_text: int = 0
    _name: str = ""
    _label: dict[str, str] = field(default_factory=dict)

    @property
    def structure(self) -> str:
        """Hemisphere that the file says it is of, as CIFTI spells it; or blank."""
        says = self.metadata.get("AnatomicalStructurePrimary", "")
        return _PRIMARY.get(says.replace("_", "").upper(), "")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        self._inside.append(tag)
        self._text.clear()
        depth = len(self._inside)
        if depth == 1 and tag == "GIFTI":
            what = "NumberOfDataArrays"
            self.n_arrays = whole(attributes.get(what), what, most=_MOST_ARRAYS)
        elif depth == 1 or depth > _DEEPEST:
            msg = f"the XML begins with {self._inside[0][:40]}, or is nested too deep."
            raise ImageError(msg, remedy="Choose a GIFTI file.")
        elif tag == "DataArray":
            self._check_counts(new=1)
            self.heads.append(parse_array_head(attributes))
            self.names.append("")
        elif tag == "Data" and self._inside[-2] == "DataArray":
            self._n_decoded += 1
            self.has_values = True
            self._decoder = _Decoder(self.heads[-1])
        elif tag == "Label":
            whole(str(len(self.labels)), "the number of labels", most=_MOST_LABELS)
            self._label = attributes

    def data(self, text: str) -> None:
        """Take a stretch of text."""
        if self._decoder is not None:
            self._keep(self._decoder.take(text))
        elif self._inside[-1] in ("Name", "Value", "Label"):
            self._n_text += len(text)
            if self._n_text > _MOST_TEXT:
                msg = f"the file holds more than {_MOST_TEXT // 2**20} MiB of metadata."
                raise ImageError(msg, remedy=AGAIN)
            self._text.append(text)

    def end(self, tag: str) -> None:
        """End an element."""
        self._inside.pop()
        text = "".join(self._text).strip()
        if tag == "Data" and self._decoder is not None:
            self._keep(self._decoder.take("", last=True))
            self._decoder = None
        elif tag == "Name":
            self._name = text
        elif tag == "Value" and len(self.heads) <= 1:
            self.metadata.setdefault(self._name, text)
        elif tag == "Label":
            key = self._label.get("Key", self._label.get("Index"))
            self.labels.append(parse_label(self._label, key, text))
        if tag == "Value" and self._name == "Name" and self.names:
            self.names[-1] = text
        elif tag == "GIFTI":
            self._check_counts()

    def _keep(self, rows: NDArray[Any]) -> None:
        if len(rows):
            self.rows.append((len(self.heads) - 1, rows))

    def _check_counts(self, new: int = 0) -> None:
        """Refuse another number of arrays than is declared, and arrays without Data."""
        found = len(self.heads) + new
        if self._n_decoded != len(self.heads):
            msg = f"array {len(self.heads)} has no values, or has them twice."
            raise ImageError(msg, remedy=AGAIN)
        if found > self.n_arrays or (not new and found < self.n_arrays):
            msg = (
                f"the file declares {self.n_arrays:,} arrays (NumberOfDataArrays), and"
                f" holds {found:,}{' or more' if new else ''}."
            )
            raise ImageError(msg, remedy=AGAIN)


def read_arrays(path: Path) -> Iterator[Reading]:
    """Read a GIFTI file; the same ``Reading`` comes again after each piece of it."""
    reading = Reading()
    parser = new_parser()
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.data
    with open_file(path) as file:
        for _ in feed(parser, iter(lambda: file.read(PIECE), b"")):
            yield reading
