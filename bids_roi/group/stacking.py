"""Participant outputs to stacks: one HDF5 file per space, atlas and ``desc-``."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.errors import BidsRoiError, DataError
from bids_roi.files.matrices import parse_matrix, read_bytes
from bids_roi.files.names import format_name
from bids_roi.files.tables import read_table
from bids_roi.group.outputs import Problem, check_anything_left, check_outputs
from bids_roi.outputs.find import (
    PLACE_KEYS,
    REMEDY,
    RUN_COLUMNS,
    Output,
    identify,
)
from bids_roi.outputs.records import read_all_records
from bids_roi.outputs.schema import FACTS
from bids_roi.outputs.stack import (
    StackedRun,
    StackPart,
    reuse_stack,
    write_stack,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.group.outputs import Found
    from bids_roi.outputs.stack import Copy

    Place = tuple[tuple[str, str], ...]
    Runs = Mapping[str, Mapping[str, Output]]  # by name of the run and of the part


STACKED = ("timeseries", "relmat")

# Said of a part as a whole; its runs agree, for they have the same options.
_PART_KEYS = ("Units", "Statistic", "RelationshipMeasure", "DenoisingStrategy")
_DESCRIPTION = (
    "All runs of one space, atlas and processing. Run i of a time series is rows"
    " offsets[i] to offsets[i + 1] (from 0, end excluded), columns are regions; row i"
    " of a relmat is run i, its columns are the pairs of regions in edges (from 0)."
)


def write_stacks(
    output_dir: Path,
    *,
    contents: Sequence[str] = STACKED,
    found: Found | None = None,
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
    found
        What the folder holds, and the problems that are known; found here by default.
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
        ordered = dict(sorted(runs.items()))
        if _write_place(output_dir / name, place, ordered, tables, problems):
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
    problems: list[Problem],
) -> int:
    """Write one stack; return how many runs it has."""
    folder = path.parent
    columns = _read_regions(tables, folder, runs)
    if columns is None:
        reason = "neither a region table nor a series of this atlas can be read"
        problems += [
            Problem(output, f"{output.path}: {reason}. {REMEDY}")
            for outputs in runs.values()
            for output in outputs.values()
        ]
        return 0
    names = list(columns["name"])
    parts = _describe_parts(runs, len(names))
    with reuse_stack(path, names) as copy:
        return write_stack(
            path,
            _read_runs(folder, runs, parts, names, copy, problems),
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


def _describe_parts(runs: Runs, n_regions: int) -> list[StackPart]:
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
        described.append(StackPart(part, edges, attributes))
    return described


def _read_runs(
    folder: Path,
    runs: Runs,
    parts: Sequence[StackPart],
    names: Sequence[str],
    copy: Copy,
    problems: list[Problem],
) -> Iterator[StackedRun]:
    """Yield run after run; what cannot be read is noted and left out."""
    for run, outputs in runs.items():
        facts: dict[str, float | None] = dict.fromkeys(key.column for key in FACTS)
        data = {}
        for part in parts:  # series come last, and say most of their run
            output = outputs.get(part.name)
            if output is None:
                continue
            try:
                data[part.name] = _read_part(folder, output, part, names, copy)
            except BidsRoiError as error:
                reason = f"{output.path}: {error.problem} {error.remedy or REMEDY}"
                problems.append(Problem(output, reason))
                break
            for key in FACTS:
                value = output.number(key.name)
                if value is not None:
                    facts[key.column] = value
        else:
            told = identify(next(iter(outputs.values())).name)
            keys = {column: told[column] for column in RUN_COLUMNS.values()}
            yield StackedRun({"name": run, **keys, **facts}, data)


def _read_part(
    folder: Path, output: Output, part: StackPart, names: Sequence[str], copy: Copy
) -> tuple[str, NDArray[np.float64]]:
    """Values of a table and the digest of its file."""
    path = folder / output.path
    content = read_bytes(path)
    digest = hashlib.sha256(content).hexdigest()[:16]
    n_values = len(names) if part.edges is None else len(part.edges)
    values = copy(part.name, digest)
    if values is not None and values.shape[1] == n_values:
        return digest, values
    columns, values = parse_matrix(content, path, nodes=part.edges is not None)
    if list(columns) != list(names):
        msg = f"its {len(columns)} columns are not the {len(names)} of the atlas."
        raise DataError(msg, where=path, remedy=REMEDY)
    if part.edges is not None:
        values = values[part.edges[:, 0], part.edges[:, 1]]
    return digest, values
