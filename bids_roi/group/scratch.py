"""Numbers of many runs that lie on disk until they are used.

Memory must not grow with the runs, and their tables are read once.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.group.identification import Held
from bids_roi.errors import OutputError, remedy_of
from bids_roi.files.tables import name_temporary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray


# Bytes of a file that stay in memory; beyond, it lies on disk.
_IN_MEMORY = 2**24
# Bytes of runs that are written together.
_TOGETHER = 2**22

# Statistics go by task and statistic, stacks by run with all that it has: memory cannot
# hold the triangles that lie between, and to read tables twice takes ten times as long.
# Free space is a multiple of what is kept: tables and stacks need it more.
_ROOM = 4


class Scratch:
    """Numbers in a file of the output folder that has no name, and is gone when closed.

    Where there are few, they stay in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = SpooledTemporaryFile(  # noqa: SIM115 - closed by __exit__
            _IN_MEMORY, "w+b", dir=str(folder)
        )

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, values: NDArray[Any]) -> None:
        """Add numbers after those that are there; ``OutputError`` if they cannot be."""
        try:
            self._file.seek(0, 2)  # after what was read last
            self._file.write(values.tobytes())
            self._file.flush()  # what the disk refuses is said here
        except OSError as error:
            msg = f"what was read of its tables cannot be kept ({error.strerror})."
            remedy = remedy_of(error, "Check the free space.")
            raise OutputError(msg, where=self._folder, remedy=remedy) from error

    def read(self, start: int, n: int, dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """Read ``n`` numbers, or what is left of them, with ``start`` before them.

        All that is written must be of one type.
        """
        size = np.dtype(dtype).itemsize
        self._file.seek(size * start)
        return np.frombuffer(self._file.read(size * n), dtype)


class Shelf:
    """Runs that are compared with each other, (E,) each, in a file.

    They are asked for by some edges of all at a time. So those that are written
    together have their edges first: of each lot that is one piece, and not one a run.
    """

    def __init__(self, file: Scratch, size: int) -> None:
        self._file, self._size = file, size
        self._lots: list[int] = []  # runs of each
        self._waiting = Held()

    def __len__(self) -> int:
        return sum(self._lots) + len(self._waiting)

    def append(self, run: NDArray[np.float32], /) -> None:
        """Add one after the others, (E,)."""
        self._waiting.append(run)
        if len(self._waiting) * run.nbytes >= _TOGETHER:
            self._file.write(np.stack(self._waiting, axis=1))
            self._lots.append(len(self._waiting))
            self._waiting.clear()

    def cut(self, edges: slice) -> NDArray[np.float64]:
        """Give some edges of all, (N, edges)."""
        found = np.empty((len(self), edges.stop - edges.start))
        run = 0
        for n in self._lots:
            start = run * self._size + edges.start * n
            lot = self._file.read(start, n * found.shape[1], np.float32)
            found[run : run + n] = lot.reshape(-1, n).T
            run += n
        if self._waiting:
            found[run:] = self._waiting.cut(edges)
        return found


@dataclass(slots=True)
class Spool:
    """A file of upper triangles, float64, each at a place of its own, in bytes.

    ``kept`` has place and regions of those that were written, by path of the table.
    """

    path: Path
    size: int = 0
    kept: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)

    def reserve(self, size: int) -> int:
        """Place of so many bytes."""
        self.size += size
        return self.size - size

    def begin(self) -> None:
        """Make the file, for all that is reserved; without it nothing is kept."""
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self.path.parent).free > _ROOM * self.size:
                self.path.touch()

    def find(self, table: str, names: tuple[str, ...]) -> int | None:
        """Place of the triangle of a table of these regions; ``None`` for none."""
        place, regions = self.kept.get(table, (None, ()))
        return place if regions == names else None


@contextlib.contextmanager
def spooling(folder: Path) -> Iterator[Spool]:
    """Name a file in a folder; it is gone afterwards."""
    spool = Spool(folder / name_temporary())
    try:
        yield spool
    finally:
        with contextlib.suppress(OSError):
            spool.path.unlink(missing_ok=True)


def keep(path: Path, place: int, triangle: NDArray[np.float64]) -> bool:
    """Write a triangle; where that fails, the space is given back at once."""
    try:
        with path.open("r+b") as file:
            file.seek(place)
            file.write(triangle.data)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return False
    return True


def fetch(path: Path, place: int, size: int) -> NDArray[np.float64] | None:
    """Read a triangle of so many numbers; ``None`` where it is gone."""
    try:
        found = np.fromfile(path, np.float64, size, offset=place)
    except OSError:
        return None
    return found if found.size == size else None
