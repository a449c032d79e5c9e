"""Participant outputs to stacks: one HDF5 file per space, atlas and ``desc-``."""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bids_roi.core.group.edges import off_diagonal
from bids_roi.errors import BidsRoiError, DataError
from bids_roi.files.matrices import parse_matrix, parse_triangle, read_bytes
from bids_roi.files.names import format_name
from bids_roi.files.tables import file_digest, read_table
from bids_roi.group.outputs import Problem, check_anything_left, check_outputs
from bids_roi.group.scratch import fetch
from bids_roi.group.workers import Workers
from bids_roi.outputs.columns import RUN_COLUMNS, identify
from bids_roi.outputs.find import PLACE_KEYS, REMEDY, Output
from bids_roi.outputs.records import check_table, read_all_records
from bids_roi.outputs.schema import FACTS
from bids_roi.outputs.stack import (
    StackedRun,
    StackPart,
    reuse_stack,
    write_stack,
)

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

    from bids_roi.group.outputs import Found
    from bids_roi.group.scratch import Spool
    from bids_roi.outputs.stack import Copy

    Place = tuple[tuple[str, str], ...]
    Runs = Mapping[str, Mapping[str, Output]]  # by name of the run and of the part
    # Digest and numbers, None where the stack of before has them; or what is wrong.
    Values = tuple[str, NDArray[Any] | None] | str


STACKED = ("timeseries", "relmat")

# Runs that a worker reads at a time: their numbers come back through a pipe.
_BATCH = 4
# Digits of the digests in a stack.
_DIGITS = 16

# Said of a part as a whole; its runs agree, for they have the same options.
_PART_KEYS = ("Units", "Statistic", "RelationshipMeasure", "DenoisingStrategy")
_DESCRIPTION = (
    "All runs of one space, atlas and processing. Run i of a time series is rows"
    " offsets[i] to offsets[i + 1] (from 0, end excluded), columns are regions; row i"
    " of a relmat is run i, its columns are the pairs of regions in edges (from 0)."
)


class _Wanted(NamedTuple):
    """A table, and what is known of it.

    ``width`` is how many columns it has in the stack; ``digest`` what its sidecar
    tells; ``held`` the beginning of it where the stack of before has the numbers;
    ``diagonal`` whether that of a matrix is kept, ``None`` for a series; ``place`` is
    where in the spool its triangle is.
    """

    path: str
    part: str
    width: int
    digest: str
    held: str
    diagonal: bool | None
    place: int | None = None


class _Batch(NamedTuple):
    """Tables of some runs: what a worker is handed."""

    folder: Path
    names: tuple[str, ...]
    dtype: str
    runs: tuple[tuple[_Wanted, ...], ...]
    spool: Path | None


def write_stacks(
    output_dir: Path,
    *,
    contents: Sequence[str] = STACKED,
    dtype: str = "float64",
    workers: Workers = Workers(),  # noqa: B008 - frozen
    found: Found | None = None,
    spool: Spool | None = None,
    claim: Callable[[str], None] = lambda _: None,
    refuse: Callable[[DataError], None] | None = None,
) -> tuple[list[str], list[Problem]]:
    """Write a stack for each space, atlas, resolution and ``desc-``.

    A run is in it with everything or not at all: one that has a problem is left out.
    Returns the names of the files, and new problems: outputs whose runs are left out.

    Parameters
    ----------
    contents
        ``timeseries``, ``relmat`` or both.
    dtype
        Of the numbers: ``float64``, those of the TSVs, or ``float32``.
    workers
        Processes that read.
    found
        What the folder holds, and the problems that are known; found here by default.
    spool
        Where the statistics have kept matrices, which are not read again.
    claim
        Called with each name before the file is written.
    refuse
        Called for each stack of outputs that were made with different options, which
        is left out then; without it that is an error.
    """
    problems: list[Problem] = []
    if found is None:
        found = check_outputs(output_dir, read_all_records(output_dir))
        check_anything_left(output_dir, found, [])
        problems += [p for p in found.problems if p.output.kind in contents]
    lost = {
        _place_and_run(problem.output)
        for problem in found.problems
        if problem.output.kind in contents
    }
    places: dict[Place, dict[str, dict[str, Output]]] = defaultdict(dict)
    for output in (*found.series, *found.relmats):
        place, run = _place_and_run(output)
        if output.kind in contents and (place, run) not in lost:
            parts = places[place].setdefault(run, {})
            parts[f"{output.kind}/{output.stat}"] = output
    for place in sorted(places):
        try:
            _check_options(places[place])
        except DataError as error:
            if refuse is None:
                raise
            refuse(error)
            del places[place]
    regions = {_place_and_run(output): output.path for output in found.regions}
    names = []
    for place, runs in sorted(places.items()):
        name = "group_" + format_name(place, "stack", ".h5")
        claim(name)
        raw = tuple(entity for entity in place if entity[0] != "desc")
        tables = [
            output_dir / regions[key]
            for run in sorted(runs)
            for key in ((place, run), (raw, run))
            if key in regions
        ]
        if not tables:  # of matrices over runs, the table of any run
            tables = [output_dir / p for (of, _), p in regions.items() if of == raw]
        ordered = dict(sorted(runs.items()))
        path = output_dir / name
        asked = dtype, workers, spool
        if _write_place(path, place, ordered, tables, asked, problems):
            names.append(name)
    return names, problems


def _place_and_run(output: Output) -> tuple[Place, str]:
    labels = dict(output.name.entities)
    place = tuple((key, labels[key]) for key in PLACE_KEYS if key in labels)
    return place, output.run_name


def _check_options(runs: Runs) -> None:
    """Refuse outputs of one part that were made with different options."""
    seen: dict[str, dict[str, str]] = defaultdict(dict)
    for parts in runs.values():
        for part, output in parts.items():
            seen[part].setdefault(output.digest, output.path)
    for part, digests in seen.items():
        if len(digests) > 1:
            examples = "; ".join(f"{d} in {path}" for d, path in digests.items())
            msg = f"{part} of one stack was made with different options: {examples}."
            remedy = (
                "Make it again with the same ones (participant level, --overwrite), or"
                " leave the stacks out (--stack none)."
            )
            raise DataError(msg, remedy=remedy)


def _write_place(
    path: Path,
    place: Place,
    runs: Runs,
    tables: Sequence[Path],
    asked: tuple[str, Workers, Spool | None],
    problems: list[Problem],
) -> int:
    """Write one stack; return how many runs it has."""
    folder, (dtype, workers, spool) = path.parent, asked
    columns = _read_regions(tables, folder, runs)
    if columns is None:
        reason = "neither a region table nor a series of this atlas can be read"
        problems += [
            Problem(output, f"{output.path}: {reason}. {REMEDY}")
            for outputs in runs.values()
            for output in outputs.values()
        ]
        return 0
    names = tuple(columns["name"])
    parts = _describe_parts(runs, len(names), dtype)
    with reuse_stack(path, names, dtype) as (there, copy):
        wanted = [
            tuple(
                _want(o[p.name], p, names, there, spool) for p in parts if p.name in o
            )
            for o in runs.values()
        ]
        batches = [
            _Batch(
                *(folder, names, dtype, tuple(wanted[start : start + _BATCH])),
                spool=None if spool is None else spool.path,
            )
            for start in range(0, len(wanted), _BATCH)
        ]
        with contextlib.closing(workers.map(_read_batch, batches)) as found:
            return write_stack(
                path,
                _put_together(runs, _complete(batches, found, copy), problems),
                parts=parts,
                regions=columns,
                attributes={"description": _DESCRIPTION, **dict(place)},
                units={key.column: key.unit for key in FACTS},
            )


def _read_regions(
    tables: Sequence[Path], folder: Path, runs: Runs
) -> dict[str, list[Any]] | None:
    """Columns of /regions: of the first region table, else the header of a series."""
    for path in tables:
        try:
            cells = read_table(path)
            columns: dict[str, list[Any]] = {
                "index": [int(cell) for cell in cells["index"]],
                "name": cells["name"],
            }
        except (BidsRoiError, KeyError, ValueError):
            continue
        if "network" in cells:
            columns["network"] = cells["network"]
        return columns
    for output in (o for outputs in runs.values() for o in outputs.values()):
        try:
            header = read_bytes(folder / output.path).partition(b"\n")[0]
            names = list(parse_matrix(header, folder / output.path)[0])
        except BidsRoiError:
            continue
        return {"name": names[1:] if output.kind == "relmat" else names}
    return None


def _describe_parts(runs: Runs, n_regions: int, dtype: str) -> list[StackPart]:
    """Say what groups the file has, in sorted order."""
    firsts: dict[str, Output] = {}
    for outputs in runs.values():
        firsts = {**outputs, **firsts}
    described = []
    for part, output in sorted(firsts.items()):
        sidecar = output.read_sidecar()
        attributes = {key: str(sidecar[key]) for key in _PART_KEYS if key in sidecar}
        edges = None
        if output.kind == "relmat":
            # The diagonal of a covariance is the variances, of a correlation nothing.
            pairs = np.triu_indices(n_regions, 0 if sidecar.get("ValidDiagonal") else 1)
            edges = np.stack(pairs, axis=1).astype(np.int32)
        attributes["OptionsDigest"] = output.digest
        described.append(StackPart(part, edges, attributes, dtype))
    return described


def _want(
    output: Output,
    part: StackPart,
    names: tuple[str, ...],
    there: Collection[tuple[str, str]],
    spool: Spool | None,
) -> _Wanted:
    """Say what is wanted of a table; ``there`` is what the stack of before has."""
    told = digest = output.table
    n_regions = len(names)
    if there and not told:  # of an earlier release
        with contextlib.suppress(OSError):
            digest = file_digest(output.file)
    held = digest[:_DIGITS] if (part.name, digest[:_DIGITS]) in there else ""
    if part.edges is None:
        return _Wanted(output.path, part.name, n_regions, told, held, None)
    width = len(part.edges)
    diagonal = width > n_regions * (n_regions - 1) // 2
    place = None if spool is None else spool.find(output.path, names)
    return _Wanted(output.path, part.name, width, told, held, diagonal, place)


def _read_batch(batch: _Batch) -> list[list[Values]]:
    """Read the tables of each run, up to the first that cannot be read."""
    found = []
    for tables in batch.runs:
        own: list[Values] = []
        for table in tables:
            try:
                own.append(_read_table(batch, table))
            except BidsRoiError as error:
                own.append(f"{table.path}: {error.problem} {error.remedy or REMEDY}")
                break
        found.append(own)
    return found


def _read_table(batch: _Batch, table: _Wanted) -> Values:
    """Digest of a table, and its numbers, unless the stack of before has them."""
    path = batch.folder / table.path
    columns, size = batch.names, len(batch.names)
    values = None
    if batch.spool is not None and table.place is not None:
        values = fetch(batch.spool, table.place, size * (size + 1) // 2)
    if values is None:
        content = read_bytes(path)
        whole = hashlib.sha256(content).hexdigest()
        check_table(path, table.digest, digest=whole)
    else:  # the statistics have held the table against its digest
        whole = table.digest
    digest = whole[:_DIGITS]
    if digest == table.held:
        return digest, None
    if values is None:
        columns, values = _parse(content, path, table)
    if columns != batch.names:
        msg = f"its {len(columns)} columns are not the {size} of the atlas."
        raise DataError(msg, where=path, remedy=REMEDY)
    if table.diagonal is False:
        values = values[off_diagonal(size)]
    with np.errstate(over="ignore"):
        numbers = values.astype(batch.dtype, copy=False)
    if np.isinf(numbers).any():
        msg = f"it holds a number that {batch.dtype} cannot hold."
        remedy = "Use --stack-dtype float64."
        raise DataError(msg, where=path, remedy=remedy)
    return digest, numbers


def _parse(
    content: bytes, path: Path, table: _Wanted
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names and numbers: of a series all, of a matrix the upper triangle."""
    if table.diagonal is None:
        return parse_matrix(content, path)
    if table.digest:
        return parse_triangle(content, path)
    names, matrix = parse_matrix(content, path, nodes=True)
    return names, matrix[np.triu_indices(len(names))]


def _complete(
    batches: Sequence[_Batch], found: Iterable[list[list[Values]]], copy: Copy
) -> Iterator[list[tuple[str, Values]]]:
    """Yield the parts of each run, with the numbers that the stack of before has."""
    for batch, read in zip(batches, found, strict=True):
        for tables, own in zip(batch.runs, read, strict=True):
            parts: list[tuple[str, Values]] = []
            for table, values in zip(tables, own, strict=False):
                if not isinstance(values, str) and values[1] is None:
                    numbers = copy(table.part, values[0])
                    values = values[0], numbers
                    if numbers is None or numbers.shape[1] != table.width:
                        # Damaged: the table itself is read after all.
                        again = ((table._replace(held=""),),)
                        values = _read_batch(batch._replace(runs=again))[0][0]
                parts.append((table.part, values))
            yield parts


def _put_together(
    runs: Runs,
    found: Iterable[list[tuple[str, Values]]],
    problems: list[Problem],
) -> Iterator[StackedRun]:
    """Yield run after run; what cannot be read is noted and left out."""
    for (run, outputs), parts in zip(runs.items(), found, strict=True):
        facts: dict[str, float | None] = dict.fromkeys(key.column for key in FACTS)
        data = {}
        for part, values in parts:  # series come last, and say most of their run
            output = outputs[part]
            if isinstance(values, str):
                problems.append(Problem(output, values))
                break
            data[part] = values
            for key in FACTS:
                value = output.number(key.name)
                if value is not None:
                    facts[key.column] = value
        else:
            told = identify(next(iter(outputs.values())).name)
            keys = {column: told[column] for column in RUN_COLUMNS.values()}
            yield StackedRun({"name": run, **keys, **facts}, data)
