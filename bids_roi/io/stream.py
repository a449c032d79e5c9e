"""Volumes of a NIfTI file in order, a few at a time; isal's only home.

A reader thread decompresses into three buffers in turn while the caller works on the
one before: ISA-L releases the interpreter lock, so wall time is the decompression.
Uncompressed files are mapped, and their pages given back after each block.
"""

from __future__ import annotations

import contextlib
import mmap
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

__all__ = ["VolumeSource", "read_blocks"]

_N_BUFFERS = 3
_BLOCK_BYTES = 16 * 2**20


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
    """
    if source.compressed:
        yield from _read_gzip(source, source.block_volumes(block_bytes))
    else:
        yield from _read_mapped(source, source.block_volumes(block_bytes))


def _read_mapped(
    source: VolumeSource, n_block: int
) -> Iterator[tuple[int, NDArray[Any]]]:
    needed = source.offset + source.n_volumes * source.volume_bytes
    size = source.path.stat().st_size
    if size < needed:
        reached = max(0, size - source.offset) // source.volume_bytes
        raise _truncated(source, reached)
    with source.path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Never closed by hand: the caller may still hold the last block.
    for start in range(0, source.n_volumes, n_block):
        n_volumes = min(n_block, source.n_volumes - start)
        block: NDArray[Any] = np.frombuffer(
            pages,
            dtype=source.dtype,
            count=n_volumes * source.n_voxels,
            offset=source.offset + start * source.volume_bytes,
        )
        yield start, block.reshape(n_volumes, source.n_voxels)
        # Resident memory stays flat: the pages read so far are given back.
        pages.madvise(mmap.MADV_DONTNEED)


def _read_gzip(
    source: VolumeSource, n_block: int
) -> Iterator[tuple[int, NDArray[Any]]]:
    free: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
    filled: queue.SimpleQueue[tuple[int, bytearray] | BaseException | None] = (
        queue.SimpleQueue()
    )
    for _ in range(_N_BUFFERS):
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
    """Decompress into the free buffers; the reader thread."""
    from isal import igzip

    done = 0
    try:
        with igzip.open(source.path, "rb") as file:
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
            if file.read(1):
                filled.put(_too_long(source))
                return
        filled.put(None)
    except EOFError:
        filled.put(_truncated(source, done))
    except Exception as error:  # noqa: BLE001 - handed to the caller, not swallowed
        filled.put(_damaged(source, done, error))


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


def _damaged(source: VolumeSource, reached: int, error: Exception) -> BaseException:
    if isinstance(error, PermissionError | FileNotFoundError):
        return error
    return ImageError(
        f"the compressed data are damaged, noticed after volume {reached} of"
        f" {source.n_volumes} ({error}).",
        where=source.path,
        remedy="Copy or download it again, or run its preprocessing again.",
    )
