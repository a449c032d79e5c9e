"""Arrays of GIFTI files, piece by piece, and series on the surfaces of a run's brain.

Read by expat, because writers differ in what a search for tags would stumble over:
attributes over several lines, CDATA, one array for each volume or one for all.
"""

from __future__ import annotations

import binascii
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bids_roi.core.frame import Block, Frame, Mesh, Part
from bids_roi.errors import ImageError, MissingInput, SpaceMismatch
from bids_roi.images.header import open_file
from bids_roi.images.markup import (
    PIECE,
    Label,
    feed,
    located,
    new_parser,
    parse_real,
    whole,
)
from bids_roi.images.meshes import MOST_VERTICES, is_template, mesh_of
from bids_roi.images.nifti import check_file
from bids_roi.images.stream import new_inflater

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


_MOST_ARRAYS = 2**17
_MOST_LABELS = 2**17
_MOST_TEXT = 2**24  # characters of metadata
_DEEPEST = 32
_LONGEST_NUMBER = 1000  # characters of ASCII
_PRIMARY = {"CORTEXLEFT": "CORTEX_LEFT", "CORTEXRIGHT": "CORTEX_RIGHT"}
AGAIN = "Copy or download the file again, or write it again with its software."
_CONVERT = "`wb_command -gifti-convert GZIP_BASE64_BINARY IN OUT` writes it anew."
_TYPES = {
    "UINT8": "u1",
    "INT8": "i1",
    "INT16": "i2",
    "UINT16": "u2",
    "INT32": "i4",
    "UINT32": "u4",
    "INT64": "i8",
    "UINT64": "u8",
    "FLOAT32": "f4",
    "FLOAT64": "f8",
}
_BLOCK_BYTES = 4 * 2**20
# FreeSurfer tells milliseconds; what is no TR in them may be seconds, or anything.
_TIME_STEPS_MS = 50.0, 100_000.0
# What such files hold beside series; AFNI's NODE_INDEX would pass for a volume.
_NO_VALUES = ("POINTSET", "TRIANGLE", "NODE_INDEX", "LABEL", "RGB_VECTOR")
_STRUCTURES = {"L": "CORTEX_LEFT", "R": "CORTEX_RIGHT"}


@dataclass(frozen=True, slots=True)
class ArrayHead:
    """Attributes of a DataArray.

    Attributes
    ----------
    intent
        Without ``NIFTI_INTENT_``.
    lengths
        Of the axes, those of length 1 left out, the slowest on disk first.
    by_column
        Whether ``lengths`` is in the reverse order of the file's Dim0, Dim1.
    dtype
        Type of the values, with its byte order.
    encoding
        ``ASCII``, ``Base64Binary`` or ``GZipBase64Binary``.
    """

    intent: str
    lengths: tuple[int, ...]
    by_column: bool
    dtype: str
    encoding: str

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
        dtype=np.dtype(_TYPES[kind]).newbyteorder(order).str,
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
    """A GIFTI file as it is being read.

    Attributes
    ----------
    n_arrays
        As the file declares.
    metadata
        Of the file and of its first array.
    heads, names
        Of the arrays so far.
    rows
        Values that nobody took yet, (n, n_fast), with the number of their array.
    labels
        The label table.
    has_values
        Whether the values of the first array began.
    """

    n_arrays: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    heads: list[ArrayHead] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    rows: deque[tuple[int, NDArray[Any]]] = field(default_factory=deque)
    labels: list[Label] = field(default_factory=list)
    has_values: bool = False
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
            number = whole(key, "Key of a label", least=-(2**31), most=2**32)
            red, green, blue, alpha = (
                parse_real(self._label.get(colour))
                for colour in ("Red", "Green", "Blue", "Alpha")
            )
            self.labels.append(Label(number, text, (red, green, blue, alpha)))
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


@dataclass(frozen=True, slots=True)
class _Hemisphere:
    """One file, as its first array tells it."""

    path: Path
    part: Part
    n_volumes: int
    head: ArrayHead
    n_arrays: int
    by_vertex: (
        bool  # all volumes of a vertex lie together, not all vertices of a volume
    )
    repetition_time: float | None


@dataclass(frozen=True, slots=True)
class SurfaceSeries:
    """What the files of one run say.

    Attributes
    ----------
    frame
        A part for each hemisphere, whole meshes.
    hemispheres
        The files, in the order of the parts.
    n_volumes
        Volumes, T, of each.
    repetition_time
        Seconds; ``None`` where no file has it.
    """

    frame: Frame
    hemispheres: tuple[_Hemisphere, ...]
    n_volumes: int
    repetition_time: float | None

    @property
    def path(self) -> Path:
        """The file of the first hemisphere."""
        return self.hemispheres[0].path

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values of both hemispheres together."""
        dtypes = (np.dtype(one.head.dtype) for one in self.hemispheres)
        return np.result_type(*dtypes).newbyteorder("=")

    @property
    def volume_bytes(self) -> int:
        """Size of a volume of both hemispheres in bytes."""
        return self.frame.n_points * self.dtype.itemsize

    def block_volumes(self, block_bytes: int) -> int:
        """Volumes in a block of at most ``block_bytes``, at least one."""
        return max(1, min(self.n_volumes, block_bytes // self.volume_bytes))

    def blocks(self, block_bytes: int = _BLOCK_BYTES) -> Iterator[Block]:
        """Read all values once, some volumes of all vertices at a time.

        Where files hold all volumes of a vertex together, all volumes of some vertices.
        A file that is damaged, or holds other than what it declares, is an
        ``ImageError``; one that cannot be read, a ``MissingInput``.
        """
        block_bytes = min(block_bytes, _BLOCK_BYTES)
        if not self.hemispheres[0].by_vertex:
            yield from self._joined(block_bytes)
            return
        volumes = slice(0, self.n_volumes)
        for one, start in zip(self.hemispheres, self.frame.starts, strict=True):
            for some in _gather(_read_rows(one), block_bytes):
                # As in stream.py: two blocks at least, so that memory decides no digit.
                for rows in np.array_split(some, 2):
                    yield Block(volumes, slice(start, start + len(rows)), rows.T)
                    start += len(rows)

    def _joined(self, block_bytes: int) -> Iterator[Block]:
        n_points = self.frame.n_points
        size = self.block_volumes(block_bytes)
        buffer = np.empty((size, n_points), self.dtype)
        start = filled = 0
        both = (_read_volumes(one) for one in self.hemispheres)
        for volume in zip(*both, strict=True):
            np.concatenate(volume, out=buffer[filled])
            filled += 1
            if filled == size:
                yield Block(slice(start, start + filled), slice(0, n_points), buffer)
                start, filled = start + filled, 0
        if filled:
            some = slice(start, start + filled)
            yield Block(some, slice(0, n_points), buffer[:filled])


def open_surface_series(
    paths: Mapping[str, Path],
    template: str | None = None,
    *,
    hemispheres: tuple[str, ...] = ("L", "R"),
) -> SurfaceSeries:
    """Read the heads of the files of one run and check that they belong together.

    ``paths`` has a file for ``L`` and ``R``; ``hemispheres`` are those that are needed.
    """
    for hemisphere in hemispheres:
        if hemisphere not in paths:
            there, path = next(iter(paths.items()), ("", ""))
            msg = f"the run has no file of hemi-{hemisphere}, both are needed."
            remedy = f"Fetch it, or ask for one hemisphere: --hemi {there}."
            raise MissingInput(msg, where=path, remedy=remedy)
    found = tuple(_open_hemisphere(paths[name], name, template) for name in hemispheres)
    for other in found[1:]:
        with located(other.path, ImageError):
            _check_pair(found[0], other)
    times = [one.repetition_time for one in found if one.repetition_time]
    return SurfaceSeries(
        frame=Frame(tuple(one.part for one in found)),
        hemispheres=found,
        n_volumes=found[0].n_volumes,
        repetition_time=times[0] if times else None,
    )


def _open_hemisphere(path: Path, hemisphere: str, template: str | None) -> _Hemisphere:
    check_file(path)
    with located(path, ImageError):
        for reading in read_arrays(path):
            if reading.has_values:
                return _describe(path, reading, hemisphere, template)
        raise ImageError("the file holds no arrays.", remedy="Choose another file.")


def _describe(
    path: Path, reading: Reading, hemisphere: str, template: str | None
) -> _Hemisphere:
    _check_structure(reading.structure, hemisphere)
    head = reading.heads[0]
    _check_intent(head)
    by_vertex = False
    n_volumes, n_vertices = reading.n_arrays, head.lengths[0]
    if len(head.lengths) == 2 and reading.n_arrays == 1:
        axes = tuple(reversed(head.lengths)) if head.by_column else head.lengths
        vertex_axis = _vertex_axis(template, axes)
        n_vertices, n_volumes = axes[vertex_axis], axes[1 - vertex_axis]
        # The first of ``lengths`` is the slowest: with vertices there, time is fastest.
        by_vertex = (vertex_axis == 0) != head.by_column
    elif len(head.lengths) != 1:
        shape = " x ".join(f"{n:,}" for n in head.lengths)
        msg = f"each of {reading.n_arrays:,} arrays has the axes {shape}."
        remedy = "One array for each volume, or one of vertices x volumes, is needed."
        raise ImageError(msg, remedy=remedy)
    if n_volumes < 2:
        msg = f"the series has {n_volumes} volume, at least 2 are needed."
        remedy = "Leave this run out, for example with --bids-filter-file."
        raise ImageError(msg, remedy=remedy)
    step = parse_real(reading.metadata.get("TimeStep"))
    low, high = _TIME_STEPS_MS
    return _Hemisphere(
        path=path,
        part=Part(mesh_of(template, n_vertices), _STRUCTURES[hemisphere]),
        n_volumes=n_volumes,
        head=head,
        n_arrays=reading.n_arrays,
        by_vertex=by_vertex,
        repetition_time=round(step / 1000, 6) if low <= step <= high else None,
    )


def _vertex_axis(template: str | None, axes: tuple[int, ...]) -> int:
    """Tell vertices from volumes: Dim0 by the format, unless only Dim1 fits.

    pyhrf writes volumes x vertices.
    """
    for axis in (0, 1):
        try:
            mesh_of(template, axes[axis])
        except SpaceMismatch:
            continue
        return axis
    return 0


def _check_structure(says: str, hemisphere: str) -> None:
    if says not in ("", _STRUCTURES[hemisphere]):
        msg = (
            f"the file is taken for hemi-{hemisphere}, and says of itself that it is"
            f" {says} (AnatomicalStructurePrimary)."
        )
        remedy = (
            "The two hemispheres may be swapped: compare them with the surfaces, and"
            " rename the files, or correct the word with `wb_command -set-structure`."
        )
        raise ImageError(msg, remedy=remedy)


def _check_intent(head: ArrayHead) -> None:
    if head.intent in _NO_VALUES:
        msg = f"an array is of {head.intent}, values of a series are needed."
        raise ImageError(msg, remedy="Choose a .func.gii file.")


def _check_pair(one: _Hemisphere, other: _Hemisphere) -> None:
    if one.n_volumes != other.n_volumes:
        msg = f"the file has {other.n_volumes:,} volumes, {one.path} {one.n_volumes:,}."
        raise ImageError(msg, remedy="One of them may be cut short, or of another run.")
    times = one.repetition_time, other.repetition_time
    if all(times) and times[0] != times[1]:
        msg = f"the TimeStep is {times[1]} s, that of {one.path} {times[0]} s."
        raise ImageError(msg, remedy="Take both hemispheres of one run.")
    mine, theirs = one.part.support, other.part.support
    if isinstance(mine, Mesh) and mine != theirs and is_template(mine.template):
        msg = f"the file is on {theirs}, {one.path} on {mine}."
        raise ImageError(msg, remedy="Take both hemispheres at one density.")
    if one.by_vertex != other.by_vertex:
        msg = f"volumes are stored one after the other in one of this and {one.path}."
        raise ImageError(msg, remedy="Write both hemispheres with one program.")


def _read_rows(one: _Hemisphere) -> Iterator[NDArray[Any]]:
    """Values along the fastest axis, (n, row), with all arrays like the first."""
    first = one.head.lengths, one.head.dtype[1:]
    with located(one.path, ImageError):
        for reading in read_arrays(one.path):
            while reading.rows:
                number, rows = reading.rows.popleft()
                head = reading.heads[number]
                if (head.lengths, head.dtype[1:]) != first:
                    msg = (
                        f"array {number + 1:,} has {head.n_values:,} values of type"
                        f" {head.dtype[1:]}, the first {one.head.n_values:,} of"
                        f" {one.head.dtype[1:]}."
                    )
                    raise ImageError(msg, remedy=AGAIN)
                _check_intent(head)
                yield rows


def _read_volumes(one: _Hemisphere) -> Iterator[NDArray[Any]]:
    for rows in _read_rows(one):
        yield from rows


def _gather(rows: Iterator[NDArray[Any]], n_bytes: int) -> Iterator[NDArray[Any]]:
    """Join short stretches of rows to blocks."""
    kept: list[NDArray[Any]] = []
    size = 0
    for some in rows:
        kept.append(some)
        size += some.nbytes
        if size >= n_bytes:
            yield np.concatenate(kept)
            kept, size = [], 0
    if kept:
        yield np.concatenate(kept)
