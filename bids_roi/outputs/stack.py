"""One HDF5 file with the series and matrices of all runs, for machine learning.

Why HDF5: one file whatever the number of runs; read in parts by Python, R (rhdf5,
hdf5r), MATLAB and Julia; h5py takes 17 MB on disk and 25 ms to import. Parquet takes
170 MB (pyarrow) and knows rows, not matrices; Zarr takes 40 MB and is a folder of
thousands of files, which clusters count and backups crawl through.

Layout, where R counts regions::

    /                              attributes: format_version, atlas, space, description
    /runs/participant_id, ...      (runs,)      one dataset per column; or n/a, or NaN
    /regions/index, name, ...      (R,)         in the order of the columns of the data
    /timeseries/<stat>/data        (volumes of all runs, R)   attributes: Units, ...
    /timeseries/<stat>/offsets     (runs + 1,)  run i: rows offsets[i] to offsets[i + 1]
    /relmat/<stat>/data            (runs, edges)              NaN: no value
    /relmat/<stat>/edges           (edges, 2)   positions in /regions, counted from 0
    .../digest                     (runs,)      of the TSV, blank: the run has none

Numbers are float64, bit for bit those of the TSVs, which take twice the space; raw
signals sit on a level of thousands, where float32 would cost the digits of interest.
They are not compressed: it saves 4 % of float64 noise, 13 % after a shuffle.

A file is always written anew from its first run to its last, beside its name, and then
renamed. What the file before it holds of a run whose TSV is the same is copied in place
of parsing the TSV: adding a run costs a copy. So the bytes are those of a file made at
once, whatever came before, and a crash leaves the old file whole.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from bids_roi.files.writing import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Copy = Callable[[str, str], NDArray[np.float64] | None]


FORMAT_VERSION = "2"
_CHUNK_BYTES = 2**20
_ITEM = 8


@dataclass(frozen=True, slots=True)
class StackPart:
    """A group of the file: ``timeseries/<stat>`` or ``relmat/<stat>``.

    ``edges`` (n, 2) are the pairs of positions of a matrix that are kept, ``None`` for
    time series; ``attributes`` stand at its ``data``: units, digest and so on.
    """

    name: str
    edges: NDArray[np.int32] | None
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StackedRun:
    """What the file holds of a run: its row of ``/runs``, ``None`` for missing.

    ``data`` are, by name of part, the digest of the TSV, and (T, R) signals or (edges,)
    values.
    """

    columns: Mapping[str, str | float | None]
    data: Mapping[str, tuple[str, NDArray[np.float64]]]


@dataclass(slots=True)
class _Growing:
    """A part while it is written."""

    part: StackPart
    data: h5py.Dataset
    offsets: list[int] = field(default_factory=lambda: [0])
    digests: list[str] = field(default_factory=list)

    def append(self, entry: tuple[str, NDArray[np.float64]] | None) -> None:
        """Add a run: rows of a series; one row of a matrix, also where it is absent."""
        digest, values = entry or ("", None)
        start, width = self.data.shape
        if values is None:
            n_rows = 0 if self.part.edges is None else 1
            values = np.full((n_rows, width), np.nan)
        values = values.reshape(-1, width)
        self.data.resize(start + len(values), axis=0)
        self.data[start:] = values
        self.offsets.append(start + len(values))
        self.digests.append(digest)


def write_stack(
    path: Path,
    runs: Iterable[StackedRun],
    *,
    parts: Sequence[StackPart],
    regions: Mapping[str, Sequence[str] | Sequence[int] | Sequence[float]],
    attributes: Mapping[str, str],
    units: Mapping[str, str],
) -> int:
    """Write a stack; one run at a time is in memory. Returns how many it has.

    Without any run no file is written; one that fails leaves that of before.

    Parameters
    ----------
    runs
        In order; all with the same columns.
    regions
        Columns of ``/regions``.
    attributes
        Those of the file.
    units
        Of the columns of numbers in ``/runs``.
    """
    with (
        writing(path.parent, path.name) as beside,
        contextlib.closing(_Disk(beside)) as disk,
    ):
        # The oldest format: readable by all, and without times, so that bytes repeat.
        with h5py.File(disk, "w", libver="earliest") as file:
            n_runs = _write_content(file, runs, parts, regions, attributes, units)
        disk.finish()
        if n_runs:
            beside.replace(path)
        return n_runs


class _Disk:
    """A file that never fails HDF5, which brings the process down if it cannot write.

    What the disk refuses is raised by ``finish``.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("x+b")
        self.error: OSError | None = None

    def write(self, data: memoryview) -> int:
        size = memoryview(data).nbytes
        with self._noted():
            self._file.write(data)
        return size

    def read(self, size: int) -> bytes:
        data = bytearray(size)
        self.readinto(data)
        return bytes(data)

    def readinto(self, view: memoryview | bytearray) -> int:
        size, n_read = memoryview(view).nbytes, 0
        with self._noted():
            n_read = self._file.readinto(view)
        memoryview(view).cast("B")[n_read:] = bytes(size - n_read)
        return size

    def seek(self, offset: int, whence: int = 0) -> int:
        with self._noted():
            self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        with self._noted():
            self._file.truncate(size)
        return size or 0

    def flush(self) -> None:
        with self._noted():
            self._file.flush()

    def finish(self) -> None:
        """See that all is on disk."""
        if self.error is not None:
            raise self.error
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with self._noted():
            self._file.close()

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error


def _write_content(
    file: h5py.File,
    runs: Iterable[StackedRun],
    parts: Sequence[StackPart],
    regions: Mapping[str, Sequence[Any]],
    attributes: Mapping[str, str],
    units: Mapping[str, str],
) -> int:
    for key, value in {"format_version": FORMAT_VERSION, **attributes}.items():
        file.attrs[key] = value
    for name, cells in regions.items():
        _write_column(file, f"regions/{name}", cells)
    growing = [
        _Growing(part, _create(file, part, len(regions["name"]))) for part in parts
    ]
    rows = []
    for run in runs:
        rows.append(run.columns)
        for part in growing:
            part.append(run.data.get(part.part.name))
    for name in rows[0] if rows else ():
        cells = [row[name] for row in rows]
        _write_column(file, f"runs/{name}", cells, unit=units.get(name, ""))
    for part in growing:
        name = part.part.name
        if part.part.edges is None:
            file[f"{name}/offsets"] = np.array(part.offsets, dtype=np.int64)
        else:
            file[f"{name}/edges"] = part.part.edges
        _write_column(file, f"{name}/digest", part.digests)
    return len(rows)


def _create(file: h5py.File, part: StackPart, n_regions: int) -> h5py.Dataset:
    width = n_regions if part.edges is None else len(part.edges)
    across = max(1, min(width, _CHUNK_BYTES // _ITEM))
    down = max(1, _CHUNK_BYTES // _ITEM // across)
    data = file.create_dataset(
        f"{part.name}/data",
        shape=(0, width),
        maxshape=(None, width),
        chunks=(down, across),
        dtype=np.float64,
        fillvalue=np.nan,
        track_times=False,
    )
    for key, value in part.attributes.items():
        data.attrs[key] = value
    return data


def _write_column(
    file: h5py.File, name: str, cells: Sequence[Any], *, unit: str = ""
) -> h5py.Dataset:
    """Write a column: floats where it has a unit, integers, or UTF-8 of fixed width."""
    if unit:
        column = file.create_dataset(name, data=np.array(cells, dtype=np.float64))
        column.attrs["Units"] = unit
        return column
    if all(isinstance(cell, int) for cell in cells):
        return file.create_dataset(name, data=np.array(cells, dtype=np.int64))
    text = [("n/a" if cell is None else str(cell)).encode() for cell in cells]
    width = max(1, *map(len, text))
    kind = h5py.string_dtype("utf-8", width)
    return file.create_dataset(name, data=np.array(text, dtype=kind))


@contextlib.contextmanager
def reuse_stack(path: Path, regions: Sequence[str]) -> Iterator[Copy]:
    """Offer what a file of before holds; it may be absent, damaged or another's.

    ``regions`` are the names that it has to have, in this order. Yields a function from
    the name of a part and the digest of a TSV to the values, or ``None``.
    """
    with contextlib.ExitStack() as stack:
        places: dict[tuple[str, str], tuple[h5py.Dataset, int, int]] = {}
        with contextlib.suppress(OSError, KeyError, ValueError, TypeError):
            file = stack.enter_context(h5py.File(path, "r", locking=False))
            same = _read_text(file["regions/name"]) == list(regions)
            if same and file.attrs["format_version"] == FORMAT_VERSION:
                places = _index(file)

        def copy(part: str, digest: str) -> NDArray[np.float64] | None:
            if (part, digest) not in places:
                return None
            data, start, stop = places[part, digest]
            try:
                values: NDArray[np.float64] = data[start:stop]
            except OSError:  # a part of the file is damaged
                return None
            return values

        yield copy


def _index(file: h5py.File) -> dict[tuple[str, str], tuple[h5py.Dataset, int, int]]:
    places = {}
    for kind in ("timeseries", "relmat"):
        for statistic, group in file.get(kind, {}).items():
            digests = _read_text(group["digest"])
            offsets = (
                group["offsets"][:].tolist()
                if "offsets" in group
                else list(range(len(digests) + 1))
            )
            for digest, start, stop in zip(
                digests, offsets[:-1], offsets[1:], strict=True
            ):
                if digest:
                    key = f"{kind}/{statistic}", digest
                    places[key] = group["data"], start, stop
    return places


def _read_text(column: h5py.Dataset) -> list[str]:
    return [cell.decode() for cell in column[:]]
