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

Numbers are float64, bit for bit those of the TSVs, or float32 where that is asked for:
raw signals sit on a level of thousands, where it costs digits of interest. Chunks are
shuffled and deflated, which every HDF5 library undoes by itself. ISA-L deflates them:
2 ms a run of 400 regions and 300 volumes, where HDF5's own filter takes 26 and saves no
more (18 % of a matrix, 28 % of series). So a chunk's bytes may differ between kinds of
processors, what it holds does not.

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
from isal import isal_zlib

from bids_roi.files.tables import writing

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from pathlib import Path

    from numpy.typing import NDArray

    Copy = Callable[[str, str], NDArray[Any] | None]


FORMAT_VERSION = "2"
_CHUNK_BYTES = 2**20
# Of the file of before: runs that share a chunk do not unpack it twice.
_CACHE_BYTES = 8 * _CHUNK_BYTES
_LEVEL = 1  # 2 and 3 take longer and save nothing on shuffled numbers


@dataclass(frozen=True, slots=True)
class StackPart:
    """A group of the file: ``timeseries/<stat>`` or ``relmat/<stat>``.

    ``edges`` (n, 2) are the pairs of positions of a matrix that are kept, ``None`` for
    time series; ``attributes`` stand at its ``data``: units, digest and so on;
    ``dtype`` is that of its numbers, float64 or float32.
    """

    name: str
    edges: NDArray[np.int32] | None
    attributes: Mapping[str, str]
    dtype: str = "float64"


@dataclass(frozen=True, slots=True)
class StackedRun:
    """What the file holds of a run: its row of ``/runs``, ``None`` for missing.

    ``data`` are, by name of part, the digest of the TSV, and (T, R) signals or (edges,)
    values.
    """

    columns: Mapping[str, str | float | None]
    data: Mapping[str, tuple[str, NDArray[Any] | None]]


@dataclass(slots=True)
class _Growing:
    """A part while it is written."""

    part: StackPart
    data: h5py.Dataset
    offsets: list[int] = field(default_factory=lambda: [0])
    digests: list[str] = field(default_factory=list)
    waiting: list[NDArray[Any]] = field(default_factory=list)

    def append(self, entry: tuple[str, NDArray[Any] | None] | None) -> None:
        """Add a run: rows of a series; one row of a matrix, also where it is absent."""
        digest, values = entry or ("", None)
        width, rows = self.data.shape[1], self.data.chunks[0]
        if values is None:
            n_rows = 0 if self.part.edges is None else 1
            values = np.full((n_rows, width), np.nan, dtype=self.part.dtype)
        self.waiting.append(values.reshape(-1, width))
        self.offsets.append(self.offsets[-1] + len(self.waiting[-1]))
        self.digests.append(digest)
        if self.offsets[-1] - self.data.shape[0] >= rows:
            block = np.concatenate(self.waiting)
            whole = len(block) // rows * rows
            self.waiting = [block[whole:]]
            for start in range(0, whole, rows):
                self._write(block[start : start + rows])

    def finish(self) -> None:
        """Write what is left, less than a chunk."""
        block = np.concatenate([np.empty((0, self.data.shape[1])), *self.waiting])
        if len(block):
            self._write(block)

    def _write(self, block: NDArray[Any]) -> None:
        """Write the next rows, as many as a chunk has or fewer at the end."""
        first, (rows, across) = self.data.shape[0], self.data.chunks
        self.data.resize(first + len(block), axis=0)
        for left in range(0, block.shape[1], across):
            chunk = part = block[:, left : left + across]
            if part.shape != (rows, across):
                chunk = np.full((rows, across), np.nan, dtype=self.part.dtype)
                chunk[: part.shape[0], : part.shape[1]] = part
            # HDF5's shuffle: the first bytes of all numbers, then the second ones.
            planes = chunk.astype(self.part.dtype).reshape(-1, 1).view(np.uint8).T
            packed = isal_zlib.compress(np.ascontiguousarray(planes), _LEVEL)
            self.data.id.write_direct_chunk((first, left), packed)


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

    ``runs``: in order; all with the same columns; ``regions``: columns of ``/regions``;
    ``attributes``: those of the file; ``units``: of the columns of numbers in
    ``/runs``.
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
        part.finish()
        name = part.part.name
        if part.part.edges is None:
            file[f"{name}/offsets"] = np.array(part.offsets, dtype=np.int64)
        else:
            file[f"{name}/edges"] = part.part.edges
        _write_column(file, f"{name}/digest", part.digests)
    return len(rows)


def _create(file: h5py.File, part: StackPart, n_regions: int) -> h5py.Dataset:
    width = n_regions if part.edges is None else len(part.edges)
    most = _CHUNK_BYTES // np.dtype(part.dtype).itemsize
    across = max(1, min(width, most))
    data = file.create_dataset(
        f"{part.name}/data",
        shape=(0, width),
        maxshape=(None, width),
        chunks=(max(1, most // across), across),
        dtype=part.dtype,
        shuffle=True,
        compression="gzip",
        compression_opts=_LEVEL,
        fillvalue=np.nan,
        track_times=False,
    )
    for key, value in {**part.attributes, "Precision": part.dtype}.items():
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
def reuse_stack(
    path: Path, regions: Sequence[str], dtype: str
) -> Iterator[tuple[Collection[tuple[str, str]], Copy]]:
    """Offer what a file of before holds; it may be absent, damaged or another's.

    ``regions`` are the names that it has to have, in this order, and ``dtype`` that of
    its numbers. Yields the names of parts with digests of TSVs that it has, and a
    function from these to the values, or ``None``.
    """
    with contextlib.ExitStack() as stack:
        places: dict[tuple[str, str], tuple[h5py.Dataset, int, int]] = {}
        with contextlib.suppress(OSError, KeyError, ValueError, TypeError):
            file = stack.enter_context(
                h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES)
            )
            same = _read_text(file["regions/name"]) == list(regions)
            if same and file.attrs["format_version"] == FORMAT_VERSION:
                places = _index(file, dtype)

        def copy(part: str, digest: str) -> NDArray[Any] | None:
            if (part, digest) not in places:
                return None
            data, start, stop = places[part, digest]
            try:
                values: NDArray[Any] = data[start:stop]
            except OSError:  # a part of the file is damaged
                return None
            return values

        yield places.keys(), copy


def _index(
    file: h5py.File, dtype: str
) -> dict[tuple[str, str], tuple[h5py.Dataset, int, int]]:
    places = {}
    for kind in ("timeseries", "relmat"):
        for statistic, group in file.get(kind, {}).items():
            data, digests = group["data"], _read_text(group["digest"])
            if data.dtype != dtype:
                continue
            offsets = (
                group["offsets"][:].tolist()
                if "offsets" in group
                else list(range(len(digests) + 1))
            )
            for digest, start, stop in zip(
                digests, offsets[:-1], offsets[1:], strict=True
            ):
                if digest:
                    places[f"{kind}/{statistic}", digest] = data, start, stop
    return places


def _read_text(column: h5py.Dataset) -> list[str]:
    return [cell.decode() for cell in column[:]]
