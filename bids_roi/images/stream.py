"""Volumes of a NIfTI file in order, a few at a time; isal's only home.

A reader thread decompresses into three buffers in turn while the caller works on the
one before: ISA-L releases the interpreter lock, so wall time is the decompression.
Uncompressed files are read in the same way. Mapping them would save 20 ms on 400 MB,
but a file that another program cuts short while mapped kills the process (SIGBUS).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bids_roi.errors import ImageError, MissingInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from bids_roi.errors import BidsRoiError


_N_BUFFERS = 3
_BLOCK_BYTES = 16 * 2**20
# Deflate cannot pack tighter: 258 bytes in two bits (zlib.net/zlib_tech.html).
_MAX_RATIO = 1032


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """Where the stored values of a 4D image are.

    Attributes
    ----------
    path
        The file; compressed when ``compressed``.
    offset
        Bytes before the first value.
    dtype
        Type of the stored values, with its byte order, as ``numpy.dtype.str``.
    n_voxels
        Values in a volume.
    n_volumes
        Volumes that the header declares.
    compressed
        Whether the file is a gzip stream.
    """

    path: Path
    offset: int
    dtype: str
    n_voxels: int
    n_volumes: int
    compressed: bool

    @property
    def volume_bytes(self) -> int:
        """Size of a volume in bytes."""
        return self.n_voxels * np.dtype(self.dtype).itemsize

    def block_volumes(self, block_bytes: int) -> int:
        """Volumes in a block of at most ``block_bytes``, at least one."""
        return max(1, min(self.n_volumes, block_bytes // max(1, self.volume_bytes)))


def check_size(source: VolumeSource) -> None:
    """Refuse a header that declares more than its file can hold.

    Before anything is allocated by it. A compressed file that passes may still turn
    out too short, which shows while reading.

    Raises
    ------
    ImageError
        With both sizes.
    """
    size = source.path.stat().st_size
    needed = source.offset + source.n_volumes * source.volume_bytes
    if not source.compressed and size < needed:
        reached = max(0, size - source.offset) // max(1, source.volume_bytes)
        raise _truncated(source, reached)
    if size * _MAX_RATIO < needed:
        most = size * _MAX_RATIO / 2**20
        msg = (
            f"the header declares {source.n_volumes} volumes or {needed / 2**20:,.0f}"
            f" MiB; the file's {size:,} bytes hold {most:,.1f} MiB at most."
        )
        remedy = "The header is damaged, or the file cut short: copy it again."
        raise ImageError(msg, where=source.path, remedy=remedy)


def read_blocks(
    source: VolumeSource, *, block_bytes: int = _BLOCK_BYTES
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Read all volumes once, in order.

    Parameters
    ----------
    source
        The image.
    block_bytes
        Upper bound of a block's size; one volume is the least.

    Yields
    ------
    start
        Number of the block's first volume.
    block : (t, V)
        Stored values, voxels in the order of the file; valid until the next block.

    Raises
    ------
    ImageError
        If the file ends early, is damaged (CRC) or holds more than its header says.
    MissingInput
        If the file, or the library that unpacks it, cannot be read.
    """
    n_block = source.block_volumes(block_bytes)
    n_blocks = -(-source.n_volumes // n_block)
    free: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
    filled: queue.SimpleQueue[tuple[int, bytearray] | BaseException | None] = (
        queue.SimpleQueue()
    )
    for _ in range(min(_N_BUFFERS, n_blocks)):
        free.put(bytearray(n_block * source.volume_bytes))
    reader = threading.Thread(
        target=_fill, args=(source, n_block, free, filled), daemon=True
    )
    reader.start()
    try:
        start = 0
        while (item := filled.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            n_volumes, buffer = item
            count = n_volumes * source.n_voxels
            block: NDArray[Any] = np.frombuffer(buffer, source.dtype, count)
            yield start, block.reshape(n_volumes, source.n_voxels)
            free.put(buffer)
            start += n_volumes
    finally:
        free.put(None)  # the caller stopped early: so does the thread
        reader.join()


def _fill(
    source: VolumeSource,
    n_block: int,
    free: queue.SimpleQueue[bytearray | None],
    filled: queue.SimpleQueue[tuple[int, bytearray] | BaseException | None],
) -> None:
    """Read or decompress into the free buffers; the reader thread."""
    done = 0
    try:
        with _open(source) as file:
            if len(file.read(source.offset)) < source.offset:
                raise EOFError
            while done < source.n_volumes:
                buffer = free.get()
                if buffer is None:
                    return
                n_volumes = min(n_block, source.n_volumes - done)
                size = n_volumes * source.volume_bytes
                n_read = _read_full(file, memoryview(buffer)[:size])
                if n_read < size:
                    done += n_read // source.volume_bytes
                    raise EOFError
                filled.put((n_volumes, buffer))
                done += n_volumes
            # Reading on to the end is what checks the CRC.
            if source.compressed and file.read(1):
                filled.put(_too_long(source))
                return
        filled.put(None)
    except EOFError:
        filled.put(_truncated(source, done))
    except MemoryError as error:
        filled.put(error)
    except Exception as error:  # noqa: BLE001 - handed to the caller, not swallowed
        filled.put(_damaged(source, done, error))


def _open(source: VolumeSource) -> BinaryIO:
    if source.compressed:
        from isal import igzip

        return cast("BinaryIO", igzip.open(source.path, "rb"))
    return cast("BinaryIO", source.path.open("rb", buffering=0))


def _read_full(file: BinaryIO, view: memoryview) -> int:
    """Fill a buffer; return fewer bytes only where the file ends."""
    n_read = 0
    with contextlib.suppress(EOFError):  # so that the volume reached can be told
        while n_read < len(view):
            n = file.readinto(view[n_read:])  # type: ignore[attr-defined]
            if not n:
                break
            n_read += n
    return n_read


def _truncated(source: VolumeSource, reached: int) -> ImageError:
    return ImageError(
        f"the file ends in volume {reached + 1} of {source.n_volumes}: it is"
        " truncated.",
        where=source.path,
        remedy="Copy or download it again, or run its preprocessing again.",
    )


def _too_long(source: VolumeSource) -> ImageError:
    return ImageError(
        f"the file goes on after the {source.n_volumes} volumes that its header"
        " declares: header and data do not belong together.",
        where=source.path,
        remedy="Write the image again with the software that made it.",
    )


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
            f"the file cannot be read beyond volume {reached} of {source.n_volumes}"
            f" ({error.strerror})."
        )
        remedy = "Check the disk or network, and run the same command again."
        return MissingInput(msg, where=source.path, remedy=remedy)
    return ImageError(
        f"the compressed data are damaged, noticed after volume {reached} of"
        f" {source.n_volumes} ({error}).",
        where=source.path,
        remedy="Copy or download it again, or run its preprocessing again.",
    )
