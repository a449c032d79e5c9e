"""Stored values of a series in blocks, in the order of the file.

The home of rapidgzip, too, which decompresses one file by several threads. A reader
thread decompresses into two buffers in turn while the caller works on the one
before: ISA-L releases the interpreter lock, so wall time is the decompression.
Uncompressed files are read into one buffer and not mapped: a file that another program
cuts short while mapped kills the process (SIGBUS).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import struct
import threading
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from bids_roi.core.frame import Block
from bids_roi.errors import ImageError, MissingInput

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from bids_roi.errors import BidsRoiError

    # Number of the first volume, values, (t, v), and number of the first point.
    Watch = Callable[[int, NDArray[Any], int], None]


_N_BUFFERS = 2
_PIECE = 2**20
# What is unpacked at a time: it stays in the cache of the core on its way out of
# ISA-L's hands, a tenth faster than to ask for a block at once.
_UNPACKED = 2**19
_BLOCK_BYTES = 16 * 2**20
# A block of whole series is copied to float64 at once, which stays in the cache.
_POINTS_BYTES = 2 * 2**20
# Smaller files are done before rapidgzip's threads have begun.
_WORTH_THREADS = 64 * 2**20
_COPY = "Copy or download it again, or run its preprocessing again."
# Deflate cannot pack tighter: 258 bytes in two bits (zlib.net/zlib_tech.html).
_MAX_RATIO = 1032


class Source(Protocol):
    """Stored values of a series, in blocks: what a reader of a format provides."""

    @property
    def path(self) -> Path:
        """The file, or the first of several."""

    @property
    def n_volumes(self) -> int:
        """Volumes, T."""

    @property
    def volume_bytes(self) -> int:
        """Size of a volume in bytes."""

    def block_volumes(self, block_bytes: int) -> int:
        """Volumes that fit in a block of at most ``block_bytes``, at least one."""

    def blocks(self, block_bytes: int = _BLOCK_BYTES) -> Iterator[Block]:
        """Read everything once; all points of some volumes, or the reverse."""


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """Where the stored values of a series are in one file, without gaps."""

    path: Path  # the file; compressed when compressed
    offset: int  # bytes before the first value
    dtype: str  # type of the stored values, with its byte order, as numpy.dtype.str
    n_voxels: int  # values in a volume
    n_volumes: int  # volumes that the header declares
    compressed: bool  # whether the file is a gzip stream
    # Whether the file has one point's values of all volumes after the other, as CIFTI
    # has, and not one volume after the other
    by_points: bool = False
    n_threads: int = 1  # that decompress a large file, where rapidgzip is there

    @property
    def volume_bytes(self) -> int:
        """Size of a volume in bytes."""
        return self.n_voxels * np.dtype(self.dtype).itemsize

    def block_volumes(self, block_bytes: int) -> int:
        """Volumes in a block of at most ``block_bytes``, at least one."""
        return max(1, min(self.n_volumes, block_bytes // max(1, self.volume_bytes)))

    @property
    def rows(self) -> tuple[int, int]:
        """How many rows the file has, and values in each: volumes, or series."""
        shape = self.n_volumes, self.n_voxels
        return shape[::-1] if self.by_points else shape

    @property
    def end(self) -> int:
        """Bytes of the file, unpacked, up to the end of the last value."""
        return self.offset + self.n_volumes * self.volume_bytes

    @property
    def row_bytes(self) -> int:
        """Size of a row in bytes."""
        return self.rows[1] * np.dtype(self.dtype).itemsize

    @property
    def can_pick(self) -> bool:
        """Whether ``pick`` can be called: it can where one thread reads volumes."""
        return not self.by_points and not _is_worth_threads(self)

    def pick(
        self, block_bytes: int, points: NDArray[np.intp], watch: Watch | None = None
    ) -> Iterator[Block]:
        """Read some points of every volume, as ``blocks`` reads all.

        They are picked in the thread that reads, out of pieces that are still in its
        cache: whole volumes would go to memory and back. ``watch`` sees every piece
        there: the number of its volume, its values, (1, v), and that of the first.
        """
        # To hand on a block costs 0.2 to 0.4 ms beside its values, so that these are
        # longer by a quarter: what is picked is mostly a small part of a volume.
        n_block = self.block_volumes(block_bytes * 5 // 4)
        picker = _Picker(self, points, watch)
        everything = slice(0, self.n_voxels)
        for start, buffer, n in _read_rows(self, n_block, picker):
            values = np.frombuffer(buffer, self.dtype, n * points.size)
            some, values = slice(start, start + n), values.reshape(n, points.size)
            yield Block(some, everything, values, picked=True)

    def blocks(self, block_bytes: int = _BLOCK_BYTES) -> Iterator[Block]:
        """Read all rows once, in order, one row at least at a time.

        A file that ends early, is damaged (CRC) or holds more than its header says is
        an ``ImageError``; one that can no longer be read, a ``MissingInput``.
        """
        n_rows, length = self.rows
        # One block of everything is reduced by volumes, whose sums differ in the last
        # digit: the memory that is given must not decide, so series make two at least.
        most = n_rows
        if self.by_points:
            most, block_bytes = -(-n_rows // 2), min(block_bytes, _POINTS_BYTES)
        n_block = max(1, min(most, block_bytes // max(1, self.row_bytes)))
        everything = slice(0, length)
        for start, buffer, n in _read_rows(self, n_block, _Whole(self)):
            rows = np.frombuffer(buffer, self.dtype, n * length).reshape(n, length)
            some = slice(start, start + n)
            if self.by_points:
                yield Block(everything, some, rows.T)
            else:
                yield Block(some, everything, rows)


def check_size(source: VolumeSource) -> None:
    """Refuse a header that declares more than its file can hold, with both sizes.

    Before anything is allocated by it. A compressed file that passes may still turn
    out too short, which shows while reading.
    """
    size = source.path.stat().st_size
    needed = source.end
    if not source.compressed and size < needed:
        reached = max(0, size - source.offset) // max(1, source.row_bytes)
        raise _truncated(source, reached)
    if size * _MAX_RATIO < needed:
        most = size * _MAX_RATIO / 2**20
        msg = (
            f"the header declares {source.n_volumes} volumes or {needed / 2**20:,.0f}"
            f" MiB; the file's {size:,} bytes hold {most:,.1f} MiB at most."
        )
        remedy = "The header is damaged, or the file cut short: copy it again."
        raise ImageError(msg, where=source.path, remedy=remedy)


class _Whole:
    """Rows as they are, read into a buffer at once."""

    def __init__(self, source: VolumeSource) -> None:
        self.row_bytes = source.row_bytes  # that a row takes in a buffer

    def read(self, file: BinaryIO, buffer: bytearray, _start: int, n_rows: int) -> int:
        """Fill a buffer with rows; return the bytes that were read."""
        return _read_full(file, memoryview(buffer)[: n_rows * self.row_bytes])


class _Picker:
    """Some points of each row, picked from one piece of it after the other."""

    def __init__(
        self, source: VolumeSource, points: NDArray[np.intp], watch: Watch | None
    ) -> None:
        self.dtype, self.watch = np.dtype(source.dtype), watch
        self.n_points, n = points.size, source.n_voxels
        self.row_bytes = self.n_points * self.dtype.itemsize
        edges = [*range(0, n, _UNPACKED // self.dtype.itemsize), n]
        cuts = np.searchsorted(points, edges).tolist()
        self.pieces = [
            (low, high - low, slice(a, b), points[a:b] - low)
            for low, high, a, b in zip(edges, edges[1:], cuts, cuts[1:], strict=False)
        ]

    def read(self, file: BinaryIO, buffer: bytearray, start: int, n_rows: int) -> int:
        """Fill a buffer with what is picked; return the bytes that were read."""
        n_read = 0
        rows = np.frombuffer(buffer, self.dtype, n_rows * self.n_points)
        for number, row in enumerate(rows.reshape(n_rows, -1), start):
            for low, n, some, wanted in self.pieces:
                piece = _read_piece(file, n * self.dtype.itemsize)
                n_read += len(piece)
                if len(piece) < n * self.dtype.itemsize:
                    return n_read
                values = np.frombuffer(piece, self.dtype)
                # All indices are good: "raise" would go by a copy of the output.
                values.take(wanted, out=row[some], mode="clip")
                if self.watch is not None:
                    self.watch(number, values[np.newaxis], low)
        return n_read


def _read_rows(
    source: VolumeSource, n_block: int, reader: _Whole | _Picker
) -> Iterator[tuple[int, bytearray, int]]:
    """Number of the first row, a buffer that begins with it, and rows in the buffer."""
    n_blocks = -(-source.rows[0] // n_block)
    start, size = 0, n_block * reader.row_bytes
    if not source.compressed:
        # The kernel reads ahead; to hand blocks between threads costs as much again.
        only = bytearray(size)
        for n_rows in _fill(source, n_block, reader, lambda: only):
            yield start, only, n_rows
            start += n_rows
        return
    free: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
    filled: queue.SimpleQueue[tuple[int, bytearray] | BaseException | None] = (
        queue.SimpleQueue()
    )
    for _ in range(min(_N_BUFFERS, n_blocks)):
        free.put(bytearray(size))
    thread = threading.Thread(
        target=_fill_queue, args=(source, n_block, reader, free, filled), daemon=True
    )
    thread.start()
    try:
        while (item := filled.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            n_rows, buffer = item
            yield start, buffer, n_rows
            free.put(buffer)
            start += n_rows
    finally:
        free.put(None)  # the caller stopped early: so does the thread
        thread.join()


def _fill_queue(
    source: VolumeSource,
    n_block: int,
    reader: _Whole | _Picker,
    free: queue.SimpleQueue[bytearray | None],
    filled: queue.SimpleQueue[tuple[int, bytearray] | BaseException | None],
) -> None:
    """Decompress into the free buffers; the reader thread."""
    held: bytearray | None = None  # taken, and not handed on

    def take() -> bytearray | None:
        nonlocal held
        held = held or free.get()
        return held

    try:
        for n_rows in _fill(source, n_block, reader, take):
            filled.put((n_rows, cast("bytearray", held)))
            held = None
        filled.put(None)
    except Exception as error:  # noqa: BLE001 - handed to the caller, not swallowed
        filled.put(error)


def _fill(
    source: VolumeSource,
    n_block: int,
    reader: _Whole | _Picker,
    take: Callable[[], bytearray | None],
) -> Iterator[int]:
    """Fill the buffers that ``take`` gives, until it gives none; rows in each."""
    known, checksum, done, total = 0, 0, 0, source.rows[0]
    if isinstance(reader, _Whole) and _is_worth_threads(source):
        known, checksum = yield from _fill_by_threads(source, n_block, take)
        if known > total:
            return
    # Where something was odd, what it is only ISA-L tells: it reads from the start, and
    # what was handed on before has to be what it reads itself.
    try:
        with _open(source) as file:
            head = file.read(source.offset)
            if len(head) < source.offset:
                raise EOFError
            seen = _checksum(head, 0) if known else 0
            while done < total:
                buffer = take()
                if buffer is None:
                    return
                n_rows = min(n_block, total - done)
                size = n_rows * source.row_bytes
                n_read = reader.read(file, buffer, done, n_rows)
                if n_read < size:
                    done += n_read // source.row_bytes
                    raise EOFError
                if done >= known:
                    yield n_rows
                else:
                    seen = _checksum(memoryview(buffer)[:size], seen)
                done += n_rows
                if done == known and seen != checksum:
                    raise _two_minds(source)
            # Reading on to the end is what checks the CRC.
            if source.compressed and file.read(1):
                raise _too_long(source)
    except EOFError as error:
        followed = _is_followed(source)
        raise _followed(source) if followed else _truncated(source, done) from error
    except (MemoryError, ImageError):
        raise
    except Exception as error:
        raise _damaged(source, done, error) from error


def _is_worth_threads(source: VolumeSource) -> bool:
    """Whether rapidgzip is there, and the file large and one gzip stream."""
    if source.n_threads < 2 or not source.compressed:
        return False
    if importlib.util.find_spec("rapidgzip") is None:
        return False
    try:
        return (
            source.path.stat().st_size > _WORTH_THREADS
            and _trailer(source.path)[1] == source.end % 2**32
        )
    except OSError:
        return False


def _trailer(path: Path) -> tuple[int, int]:
    """Checksum and size modulo 2^32 of what the last member of a gzip file holds."""
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        checksum, size = struct.unpack("<II", file.read(8))
    return checksum, size


def _checksum(content: bytes | memoryview, so_far: int) -> int:
    from isal import isal_zlib

    return int(isal_zlib.crc32(content, so_far))


def _fill_by_threads(
    source: VolumeSource, n_block: int, take: Callable[[], bytearray | None]
) -> Generator[int, None, tuple[int, int]]:
    """Fill buffers by rapidgzip; rows handed on, and the checksum of the file to there.

    One row more than there are where all is well, or no one waits: all is well where
    the checksum is that at the end of the file, whatever rapidgzip says.
    """
    import rapidgzip

    done, total, checksum = 0, source.rows[0], 0
    finished = total + 1, 0
    with contextlib.suppress(Exception):
        _check_flags(source.path)
        with rapidgzip.open(str(source.path), source.n_threads) as file:
            checksum = _checksum(file.read(source.offset), 0)
            while done < total:
                buffer = take()
                if buffer is None:
                    return finished
                n_rows = min(n_block, total - done)
                view = memoryview(buffer)[: n_rows * source.row_bytes]
                if _read_full(file, view) < len(view):
                    return done, checksum
                checksum = _checksum(view, checksum)
                done += n_rows
                yield n_rows
            if not file.read(1) and _trailer(source.path)[0] == checksum:
                return finished
    return done, checksum


def new_inflater() -> tuple[Any, type[Exception]]:
    """Make what decompresses pieces as ``zlib.decompressobj``, and find its error."""
    try:
        from isal import isal_zlib as fast
    except ImportError:
        return zlib.decompressobj(47), zlib.error
    return fast.decompressobj(47), cast("type[Exception]", fast.error)


def _open(source: VolumeSource) -> BinaryIO:
    if source.compressed:
        from isal import igzip

        _check_flags(source.path)
        return cast("BinaryIO", igzip.open(source.path, "rb"))
    return cast("BinaryIO", source.path.open("rb", buffering=0))


def _check_flags(path: Path) -> None:
    with path.open("rb") as file:
        # The libraries pass over these; RFC 1952 wants an error.
        if file.read(4)[3:] >= b"\x20":
            msg = "reserved flags are set in the gzip header"
            raise ValueError(msg)


def _read_full(file: BinaryIO, view: memoryview) -> int:
    """Fill a buffer; return fewer bytes only where the file ends."""
    n_read = 0
    with contextlib.suppress(EOFError):  # so that the volume reached can be told
        while n_read < len(view):
            some = view[n_read : n_read + _UNPACKED]
            n = file.readinto(some)  # type: ignore[attr-defined]
            if not n:
                break
            n_read += n
    return n_read


def _read_piece(file: BinaryIO, size: int) -> bytes:
    """The next bytes; fewer only where the file ends."""
    # ``readinto`` of a gzip file copies what ``read1`` hands out; a raw file has
    # ``read``, which is the same. Nearly always the first read is the whole piece.
    read, piece = getattr(file, "read1", file.read), b""
    with contextlib.suppress(EOFError):
        while len(piece) < size and (more := read(size - len(piece))):
            piece += more
    return piece


def _row(source: VolumeSource) -> str:
    return "grayordinate" if source.by_points else "volume"


def _truncated(source: VolumeSource, reached: int) -> ImageError:
    where = f"{_row(source)} {reached + 1} of {source.rows[0]}"
    msg = f"the file ends in {where}: it is truncated."
    return ImageError(msg, where=source.path, remedy=_COPY)


def _is_followed(source: VolumeSource) -> bool:
    """Whether bytes that are no gzip stream come after a whole one."""
    if not source.compressed:
        return False
    with contextlib.suppress(OSError, zlib.error), source.path.open("rb") as file:
        inflate, data = zlib.decompressobj(31), file.read(_PIECE)
        while data:
            inflate.decompress(data, _PIECE)
            data = inflate.unconsumed_tail or file.read(_PIECE)
            if inflate.eof:
                data = inflate.unused_data or data
                if data and (len(data) < 18 or data[:2] != b"\x1f\x8b"):
                    return True
                inflate = zlib.decompressobj(31)
    return False


def _followed(source: VolumeSource) -> ImageError:
    msg = "bytes that do not belong to it come after the end of the gzip stream."
    return ImageError(msg, where=source.path, remedy=_COPY)


def _too_long(source: VolumeSource) -> ImageError:
    msg = (
        f"the file goes on after the {source.n_volumes} volumes that its header"
        " declares: header and data do not belong together."
    )
    remedy = "Write the image again with the software that made it."
    return ImageError(msg, where=source.path, remedy=remedy)


def _two_minds(source: VolumeSource) -> ImageError:
    both = "rapidgzip, which decompresses by several threads, and ISA-L"
    remedy = "Use --threads-per-run 1, and test the file with `gzip -t`."
    return ImageError(f"{both} differ in values.", where=source.path, remedy=remedy)


def _damaged(source: VolumeSource, reached: int, error: Exception) -> BidsRoiError:
    if isinstance(error, ImportError):
        msg = f"the library isal, which unpacks .gz files, cannot be loaded ({error})."
        remedy = "Install it: pip install isal, or conda install python-isal."
        return MissingInput(msg, where=source.path, remedy=remedy)
    if isinstance(error, PermissionError | FileNotFoundError):
        msg = f"the file cannot be read ({error.strerror}); it could be before."
        remedy = "Was it moved, or another disk mounted? Run the same command again."
        return MissingInput(msg, where=source.path, remedy=remedy)
    if isinstance(error, OSError) and error.strerror:  # of the disk, not of gzip
        msg = (
            f"the file cannot be read beyond {_row(source)} {reached} of"
            f" {source.rows[0]} ({error.strerror})."
        )
        remedy = "Check the disk or network, and run the same command again."
        return MissingInput(msg, where=source.path, remedy=remedy)
    msg = (
        f"the compressed data are damaged, noticed after {_row(source)} {reached} of"
        f" {source.rows[0]} ({error})."
    )
    return ImageError(msg, where=source.path, remedy=_COPY)
