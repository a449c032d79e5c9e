"""Region tables of all runs: what each measures, and matrices of runs x regions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.errors import BidsRoiError, DataError
from bids_roi.files.tables import MISSING, format_matrix, read_table
from bids_roi.group.ledger import name_group_file
from bids_roi.group.outputs import Problem
from bids_roi.outputs.find import REMEDY, describe_keys, identify, key_columns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.group.ledger import Ledger
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
# The column of the region tables that each is.
_OF_TABLE = {"coverage": "coverage", "level": "mean", "tsnr": "tsnr"}
_NEEDED = ("name", "status", *_OF_TABLE.values())


@dataclass(frozen=True, slots=True)
class _Table:
    """Region table of one run."""

    output: Output
    names: tuple[str, ...]
    measures: dict[str, FloatArray]
    centres: FloatArray
    offsets: FloatArray
    networks: tuple[str | None, ...]
    n_lost: int


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
        Of the runs that have these regions.
    """

    names: tuple[str, ...]
    networks: tuple[str | None, ...]
    centres: FloatArray
    offsets: FloatArray
    tables: tuple[_Table, ...]

    def without_tables(self) -> Regions:
        """The same without what was measured, which takes memory."""
        return replace(self, tables=())

    def summaries(self) -> Iterator[tuple[str, dict[str, object]]]:
        """Path of each table, and the columns of the run in ``group_runs.tsv``."""
        for table in self.tables:
            coverage, tsnr = table.measures["coverage"], table.measures["tsnr"]
            tsnr = tsnr[np.isfinite(tsnr)]
            yield (
                table.output.path,
                {
                    "n_regions": len(table.names),
                    "n_regions_lost": table.n_lost,
                    "coverage_mean": round(float(np.mean(coverage)), 4),
                    "tsnr_median": round(float(np.median(tsnr)), 4)
                    if tsnr.size
                    else None,
                },
            )


def read_regions(
    output_dir: Path, outputs: list[Output]
) -> tuple[Regions | None, list[Problem]]:
    """Read the region tables of one space and atlas.

    Returns ``None`` where no table can be used, and those that are left out: damaged,
    or of other regions than the most.
    """
    tables: list[_Table] = []
    problems: list[Problem] = []
    known: dict[Any, Any] = {}  # one copy of the names
    for output in outputs:
        try:
            tables.append(_read_table(output_dir, output, known))
        except BidsRoiError as error:
            problems.append(Problem(output, f"{output.path}: {error.problem} {REMEDY}"))
    if not tables:
        return None, problems
    counts = Counter(table.names for table in tables)
    # Of equals the longer: a table that was cut short has lost regions.
    names = max(counts, key=lambda names: (counts[names], len(names)))
    for table in tables:
        if table.names != names:
            text = _compare(table.names, names, counts[names])
            reason = f"{table.output.path}: {text} {REMEDY}"
            problems.append(Problem(table.output, reason))
    good = tuple(table for table in tables if table.names == names)
    centres = _average([table.centres for table in good])
    offsets = _average([table.offsets for table in good])
    return Regions(names, good[0].networks, centres, offsets, good), problems


def write_region_matrices(ledger: Ledger, regions: Regions) -> None:
    """Write coverage, level and tSNR of one space and atlas: runs x regions."""
    outputs = [table.output for table in regions.tables]
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
    for measure, text in _MEASURES.items():
        values = np.array([table.measures[measure] for table in regions.tables])
        sidecar: dict[str, Any] = {
            "Description": text.format(atlas=outputs[0].atlas_name)
            + " One row per run; the columns after the keys are the regions.",
            "Atlas": outputs[0].atlas_name,
            "OptionsDigest": outputs[0].digest,
        }
        name = name_group_file(measure, place=outputs[0].place)
        lines = _lines_of(keys, labels, header, values)
        ledger.write(name, lines, sidecar, describe_keys(keys))


def _lines_of(
    keys: list[str], labels: list[str], header: list[str], values: FloatArray
) -> Iterator[str]:
    """Yield the text of a matrix behind its key columns."""
    pieces = format_matrix(header, values)
    yield "\t".join(keys) + "\t" + next(pieces)
    rest = iter(labels)
    for piece in pieces:
        yield "".join(f"{next(rest)}\t{line}\n" for line in piece.splitlines())


def _read_table(output_dir: Path, output: Output, known: dict[Any, Any]) -> _Table:
    columns = read_table(output_dir / output.path)
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise DataError(f"the columns {', '.join(missing)} are missing.")
    names = tuple(columns["name"])
    if not names:
        raise DataError("the table has no rows.")
    coverage = _parse(columns, "coverage")
    if not ((coverage >= 0) & (coverage <= 1 + 1e-9)).all():
        raise DataError("coverage is not a number from 0 to 1 throughout.")
    blank = [MISSING] * len(names)
    axes = [_parse({axis: columns.get(axis, blank)}, axis) for axis in "xyz"]
    networks = tuple(
        None if label in (MISSING, "") else label
        for label in columns.get("network", blank)
    )
    return _Table(
        output=output,
        names=known.setdefault(names, names),
        measures={
            measure: _parse(columns, column) for measure, column in _OF_TABLE.items()
        },
        centres=np.array(axes).T,
        offsets=_parse({"centre_offset": blank, **columns}, "centre_offset"),
        networks=known.setdefault(networks, networks),
        n_lost=sum(word != "ok" for word in columns["status"]),
    )


def _parse(columns: dict[str, list[str]], name: str) -> FloatArray:
    cells = columns[name]
    try:
        return np.array([np.nan if c == MISSING else float(c) for c in cells])
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


def _average(values: list[FloatArray]) -> FloatArray:
    """Mean over the runs, NaN where no run knows; memory for two of them."""
    total = np.zeros_like(values[0])
    n = np.zeros(total.shape, dtype=np.int64)
    for each in values:
        there = np.isfinite(each)
        total += np.where(there, each, 0)
        n += there
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)
