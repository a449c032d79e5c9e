"""Upper triangles that the statistics have parsed, on disk until the stacks take them.

One takes a fifth of its table. Statistics go by task and statistic, stacks by run with
all that it has: memory cannot hold what lies between, and to read tables twice takes
ten times as long.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.files.tables import name_temporary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


# Free space is a multiple of what is kept here: tables and stacks need it more.
_ROOM = 4


@dataclass(slots=True)
class Spool:
    """A file of triangles, float64, each at a place of its own, in bytes.

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
