"""Region tables of all runs: what each measures, and matrices of runs x regions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bids_roi.errors import BidsRoiError, DataError
from bids_roi.files.tables import MISSING, format_matrix, read_table, to_numbers
from bids_roi.group.outputs import Problem, name_group_file
from bids_roi.group.scratch import Scratch
from bids_roi.outputs.columns import describe_keys, identify, key_columns
from bids_roi.outputs.find import REMEDY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import ExitStack
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.group.outputs import Ledger
    from bids_roi.outputs.find import Output

    FloatArray = NDArray[np.float64]


# Of a region in a run; the matrices that are written.
_MEASURES = {
    "coverage": (
        "Coverage (0 to 1) of each region of atlas {atlas} in each run: share of its"
        " atlas voxels that lie in usable BOLD voxels."
    ),
    # Not "mean": beside the matrices, that reads as the average of the group.
    "level": (
        "Mean over the steady volumes of the signal of each region of atlas {atlas} in"
        " each run, in the units of its BOLD image; n/a where the region is lost."
    ),
    "tsnr": (
        "Temporal signal-to-noise ratio of each region of atlas {atlas} in each run:"
        " mean over standard deviation of its signal over the steady volumes, before"
        " any cleaning; n/a where the region is lost."
    ),
}
# The columns of the region tables that they are.
_OF_TABLE = ("coverage", "mean", "tsnr")
_NEEDED = ("name", "status", *_OF_TABLE)


# Tables that a worker reads, or that are written, at a time.
_BATCH = 64


class Summary(NamedTuple):
    """Columns of a run in ``group_runs.tsv``."""

    n_regions: int
    n_regions_lost: int
    coverage_mean: float
    tsnr_median: float | None


class _Table(NamedTuple):
    """Region table of one run.

    ``measures`` are (3, R), ``places`` (R, 4): centre and offset, mm.
    """

    names: tuple[str, ...]
    networks: tuple[str | None, ...]
    measures: FloatArray
    places: FloatArray
    summary: Summary


class Batch(NamedTuple):
    """Region tables that a worker is handed; paths are relative to the folder."""

    folder: Path
    paths: tuple[str, ...]


@dataclass(slots=True)
class _Alike:
    """Tables that have the same regions."""

    networks: tuple[str | None, ...]
    total: FloatArray
    n: NDArray[np.int64]
    measures: Scratch
    tables: list[tuple[Output, Summary]] = field(default_factory=list)

    def add(self, output: Output, table: _Table) -> None:
        """Add the table of a run: of the places, only their mean is asked for."""
        there = np.isfinite(table.places)
        self.total += np.where(there, table.places, 0)
        self.n += there
        self.tables.append((output, table.summary))
        self.measures.write(table.measures)


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of an atlas in a space, over all runs.

    Attributes
    ----------
    names
        In the order of the atlas table.
    networks
        Network of each region, ``None`` for none.
    centres : (R, 3)
        mm; the mean over the runs, for atlases that differ between participants.
    offsets : (R,)
        How far they lie outside of their regions, mm; the mean likewise.
    tables
        Of the runs that have these regions, with their columns in ``group_runs.tsv``.
    measures
        What they measure, one after the other, (3, R) each.
    """

    names: tuple[str, ...]
    networks: tuple[str | None, ...]
    centres: FloatArray
    offsets: FloatArray
    tables: tuple[tuple[Output, Summary], ...]
    measures: Scratch | None

    def without_tables(self) -> Regions:
        """The same without what was measured, which takes space."""
        return replace(self, tables=(), measures=None)

    def read(self, place: int) -> Iterator[FloatArray]:
        """Yield one measure of some tables at a time, (tables, R)."""
        if self.measures is None:
            return
        shape = -1, len(_MEASURES), len(self.names)
        size = _BATCH * len(_MEASURES) * len(self.names)
        for start in itertools.count(0, size):
            piece = self.measures.read(start, size)
            if not piece.size:
                return
            yield piece.reshape(shape)[:, place]


def cut_tables(output_dir: Path, outputs: list[Output]) -> list[Batch]:
    """Batches of the region tables of one space and atlas, in their order."""
    paths = [output.path for output in outputs]
    return [
        Batch(output_dir, tuple(paths[start : start + _BATCH]))
        for start in range(0, len(paths), _BATCH)
    ]


def read_tables(batch: Batch) -> list[_Table | str]:
    """Read the tables of a batch; of one that cannot be used, why."""
    known: dict[Any, Any] = {}  # one copy of the names, and of places by their text
    found: list[_Table | str] = []
    for path in batch.paths:
        try:
            found.append(_read_table(batch.folder / path, known))
        except BidsRoiError as error:
            found.append(f"{path}: {error.problem} {REMEDY}")
    return found


def gather_regions(
    outputs: list[Output], batches: Iterable[list[_Table | str]], files: ExitStack
) -> tuple[Regions | None, list[Problem]]:
    """Put together what was read of the region tables of one space and atlas.

    What they measure can be read until ``files`` are closed.

    Returns ``None`` where no table can be used, and those that are left out: damaged,
    or of other regions than the most.
    """
    kinds: dict[tuple[str, ...], _Alike] = {}
    problems: list[Problem] = []
    read = (table for batch in batches for table in batch)
    for output, table in zip(outputs, read, strict=True):
        if isinstance(table, str):
            problems.append(Problem(output, table))
            continue
        if table.names not in kinds:
            nothing = np.zeros_like(table.places)
            n = nothing.astype(np.int64)
            file = files.enter_context(Scratch(output.folder))
            kinds[table.names] = _Alike(table.networks, nothing, n, file)
        kinds[table.names].add(output, table)
    if not kinds:
        return None, problems
    # Of equals the longer: a table that was cut short has lost regions.
    names = max(kinds, key=lambda names: (len(kinds[names].tables), len(names)))
    best = kinds.pop(names)
    others = {o.path: other for other in kinds for o, _ in kinds[other].tables}
    for output in outputs:
        if output.path in others:
            text = _compare(others[output.path], names, len(best.tables))
            problems.append(Problem(output, f"{output.path}: {text} {REMEDY}"))
    places = np.where(best.n > 0, best.total / np.maximum(best.n, 1), np.nan)
    centres, offsets = places[:, :3], places[:, 3]
    tables, file = tuple(best.tables), best.measures
    return Regions(names, best.networks, centres, offsets, tables, file), problems


def write_region_matrices(ledger: Ledger, regions: Regions) -> None:
    """Write coverage, level and tSNR of one space and atlas: runs x regions."""
    outputs = [output for output, _ in regions.tables]
    rows = [{**identify(o.name), "desc_id": o.desc} for o in outputs]
    keys = key_columns(rows)
    labels = ["\t".join(row[key] or MISSING for key in keys) for row in rows]
    header: list[str] = []
    taken = {*keys, *regions.names}
    for name in regions.names:
        column = name
        if name in keys:
            while column in taken:
                column += "_region"
            taken.add(column)
        header.append(column)
    for place, (measure, text) in enumerate(_MEASURES.items()):
        sidecar: dict[str, Any] = {
            "Description": text.format(atlas=outputs[0].atlas_name)
            + " One row per run; the columns after the keys are the regions.",
            "Atlas": outputs[0].atlas_name,
            "OptionsDigest": outputs[0].digest,
        }
        name = name_group_file(measure, place=outputs[0].place)
        lines = _lines_of(keys, labels, header, regions.read(place))
        ledger.write(name, lines, sidecar, describe_keys(keys))


def _lines_of(
    keys: list[str], labels: list[str], header: list[str], values: Iterable[FloatArray]
) -> Iterator[str]:
    """Yield the text of a matrix, some rows at a time, behind its key columns."""
    yield "\t".join(keys) + "\t" + next(format_matrix(header, np.empty((0, 0))))
    rest = iter(labels)
    for rows in values:
        for piece in itertools.islice(format_matrix(header, rows), 1, None):
            yield "".join(f"{next(rest)}\t{line}\n" for line in piece.splitlines())


def _read_table(path: Path, known: dict[Any, Any]) -> _Table:
    columns = read_table(path)
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise DataError(f"the columns {', '.join(missing)} are missing.")
    names = tuple(columns["name"])
    if not names:
        raise DataError("the table has no rows.")
    measures = np.array([_parse(columns, column) for column in _OF_TABLE])
    coverage, _, tsnr = measures
    if not ((coverage >= 0) & (coverage <= 1 + 1e-9)).all():
        raise DataError("coverage is not a number from 0 to 1 throughout.")
    blank = [MISSING] * len(names)
    told = dict.fromkeys((*"xyz", "centre_offset"), blank) | columns
    places = [_parse_once(told, name, known) for name in (*"xyz", "centre_offset")]
    networks = tuple(
        None if label in (MISSING, "") else label
        for label in columns.get("network", blank)
    )
    tsnr = tsnr[np.isfinite(tsnr)]
    summary = Summary(
        len(names),
        len(names) - columns["status"].count("ok"),
        round(float(np.mean(coverage)), 4),
        round(float(np.median(tsnr)), 4) if tsnr.size else None,
    )
    return _Table(
        known.setdefault(names, names),
        known.setdefault(networks, networks),
        measures,
        np.array(places).T,
        summary,
    )


def _parse_once(
    columns: dict[str, list[str]], name: str, known: dict[Any, Any]
) -> FloatArray:
    """Numbers that are the same in all tables of an atlas that participants share."""
    text = "\t".join(columns[name])
    values: FloatArray | None = known.get(text)
    if values is None:
        values = known[text] = _parse(columns, name)
    return values


def _parse(columns: dict[str, list[str]], name: str) -> FloatArray:
    try:
        return to_numbers(columns[name])
    except ValueError as error:
        raise DataError(f"{name} holds something that is no number.") from error


def _compare(names: tuple[str, ...], most: tuple[str, ...], n_most: int) -> str:
    """Tell how the regions of a table differ from the others'."""
    text = f"its regions are not those of {n_most} other runs of the same atlas"
    if len(names) != len(most):
        return f"{text}: {len(names)} where those have {len(most)}."
    pairs = zip(names, most, strict=True)
    row, (name, other) = next((n, p) for n, p in enumerate(pairs, 1) if p[0] != p[1])
    return f"{text}: row {row} is {name!r}, there {other!r}."
