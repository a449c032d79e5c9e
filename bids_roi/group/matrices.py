"""The connectivity matrices of one group: read in batches, added up in order."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bids_roi.core.group.accumulate import GroupStatistics, More
from bids_roi.core.group.edges import (
    Blocks,
    Edges,
    blocks_of,
    largest,
    leave_out_identical,
    list_blocks,
    list_edges,
    off_diagonal,
    on_diagonal,
    to_fisher_z,
)
from bids_roi.core.group.identification import choose_participants
from bids_roi.core.group.motion import choose_edges
from bids_roi.errors import BidsRoiError, DataError
from bids_roi.files.matrices import parse_matrix, parse_triangle, read_bytes
from bids_roi.group.covariates import Covariates, Design, build_design
from bids_roi.group.outputs import Problem
from bids_roi.group.scratch import Scratch, Shelf, keep
from bids_roi.options.words import scale_of_word
from bids_roi.outputs.find import REMEDY
from bids_roi.outputs.records import check_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import ExitStack
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.group.regions import Regions
    from bids_roi.group.scratch import Spool
    from bids_roi.options.row import Group as GroupOptions
    from bids_roi.options.words import Scale
    from bids_roi.outputs.find import Output

    FloatArray = NDArray[np.float64]


# Scope, place, stat and desc.
GroupKey = tuple[tuple[str, ...], tuple[str, ...], str, str]

# A correlation may exceed 1 by rounding; a file that was edited does by more.
_BEYOND = 1 + 1e-9
# Of repetition times that are told apart: a millisecond.
_DIGITS = 3
# Runs of a batch, with all of its last participant. What a batch adds up to is rounded
# in a way of its own: so that no number depends on the processes, this never does.
_BATCH_RUNS = 64


@dataclass(slots=True)
class Group:
    """Everything about one group of matrices.

    Attributes
    ----------
    key, outputs
        What it is of; ``outputs`` are those that were used.
    scale
        How its numbers are averaged: ``r`` (as Fisher's z), ``z`` (Fisher's z already),
        ``edges`` (as they are) or ``as_is`` (covariance: with the diagonal).
    names, centres, offsets
        Of the regions; how far a centre lies outside of its region, mm.
    edges, blocks, statistics
        The numbers.
    n_identical
        Edges left out over all runs, for their two series are the same.
    left_out
        Matrices without a value, which are not in the numbers; with the reason.
    repetition_times
        How many runs have each, s; those of which it is not known are not in it.
    design
        Covariates, where they are asked for.
    n_weightless
        Runs without degrees of freedom, where they are the weights.
    """

    key: GroupKey
    scale: Scale
    outputs: list[Output]
    names: tuple[str, ...]
    centres: FloatArray
    offsets: FloatArray
    edges: Edges
    blocks: Blocks | None
    statistics: GroupStatistics
    n_identical: int = 0
    left_out: list[Problem] = field(default_factory=list)
    repetition_times: Counter[float] = field(default_factory=Counter)
    design: Design | None = None
    n_weightless: int = 0

    @property
    def first(self) -> Output:
        """One of them, for what they all have in common."""
        return self.outputs[0]


class _File(NamedTuple):
    """A matrix, and what is told of it: digest of the table, motion and weight.

    ``fault`` says why its sidecar, which could be read, cannot be any more.
    """

    path: str
    digest: str
    fisher_z: bool | None
    displacement: float | None = None
    weight: float = 0.0
    fault: str = ""


class Asked(NamedTuple):
    """What is asked of all groups, and what tells numbers of the run of a matrix.

    ``displace`` tells its motion, ``tell`` a number by its key in the sidecars.
    ``spool`` keeps what is parsed for the stacks, where these are asked for.
    """

    options: GroupOptions
    covariates: Covariates | None
    displace: Callable[[Output], float | None]
    tell: Callable[[Output, str], float | None]
    spool: Spool | None = None

    @property
    def holds(self) -> bool:
        """Whether edges of all participants are held."""
        asked = bool(self.options.permutations) or self.options.confidence
        return asked and self.options.group_unit != "run"


@dataclass(frozen=True, slots=True)
class Batch:
    """Matrices of some participants of a group: what a worker is handed.

    ``names`` are empty where no region table tells them, and no matrix; ``compared``
    says of each participant whether his runs are told from those of others, and
    ``covariates`` are theirs. In ``spool`` matrices are kept one after the other, the
    first at ``place``, bytes.
    """

    folder: Path
    stat: str
    names: tuple[str, ...]
    networks: tuple[str | None, ...]
    by_run: bool
    more: More
    participants: tuple[tuple[_File, ...], ...] = ()
    compared: tuple[bool, ...] = ()
    covariates: tuple[FloatArray | None, ...] = ()
    spool: Path | None = None
    place: int = 0


class _Became(NamedTuple):
    """What became of a file; without a status it is in the statistics."""

    n_identical: int = 0
    reason: str = ""
    status: str = ""
    is_kept: bool = False


class Tally(NamedTuple):
    """What a batch adds up to, and what became of each of its files."""

    names: tuple[str, ...]
    statistics: GroupStatistics | None
    files: list[_Became]


def plan_group(
    output_dir: Path, outputs: list[Output], regions: Regions | None, asked: Asked
) -> Plan:
    """Cut the matrices of one group into batches, in their order.

    Parameters
    ----------
    outputs
        Matrices of one task, space, atlas, statistic and desc, sorted by participant.
    regions
        Those of the space and atlas; ``None`` where there is no region table: then
        those of the first matrix that can be read hold.
    asked
        What is asked for.
    """
    stat, names = outputs[0].stat, regions.names if regions is not None else ()
    names = names or _find_names(output_dir, outputs)
    networks = regions.networks if regions is not None else ()
    by_run = asked.options.group_unit == "run"
    n_files = Counter(output.participant for output in outputs)
    # Chosen here, for all batches, so that who is compared does not depend on who works
    # on which batch.
    size, counts = len(names) * (len(names) - 1) // 2, [*n_files.values()]
    chosen = choose_participants(counts, size)
    design = None
    if asked.covariates is not None:
        design = build_design(asked.covariates, [*n_files])
    rows = [design.rows.get(person) if design else None for person in n_files]
    held = choose_edges(size, len(counts))
    more = More(
        n_covariates=design.n_columns if design else None,
        held=held if asked.holds else None,
        weighted=asked.options.group_weights != "none",
    )
    step, path = _bytes_of(names), None
    begin = 0
    if asked.spool is not None:
        begin, path = asked.spool.reserve(step * len(outputs)), asked.spool.path
    frame = Batch(output_dir, stat, names, networks, by_run, more, spool=path)
    cuts, first = [], 0
    for people in _cut_people(counts):
        n = tuple(counts[people])
        place = begin + step * first
        cuts.append(_Cut(first, n, tuple(chosen[people]), tuple(rows[people]), place))
        first += sum(n)
    return Plan(design, more, frame, cuts)


def _cut_people(counts: list[int]) -> Iterator[slice]:
    """Yield the participants of each batch, by the runs that each has.

    A participant is never cut: ICC and identification need all of his runs at once, and
    a worker that held a part would have to send matrices instead of sums.
    """
    first = n_runs = 0
    for place, n in enumerate(counts, 1):
        n_runs += n
        if n_runs >= _BATCH_RUNS or place == len(counts):
            yield slice(first, place)
            first, n_runs = place, 0


def _bytes_of(names: tuple[str, ...]) -> int:
    """Bytes of the upper triangle of a matrix, with its diagonal."""
    return 4 * len(names) * (len(names) + 1)


class _Cut(NamedTuple):
    """The matrices of a batch: the first, and how many each participant has."""

    first: int
    counts: tuple[int, ...]
    compared: tuple[bool, ...]
    covariates: tuple[FloatArray | None, ...]
    place: int

    def of(self, outputs: list[Output]) -> list[Output]:
        """Those of all matrices of the group that are in it."""
        return outputs[self.first : self.first + sum(self.counts)]


@dataclass(frozen=True, slots=True)
class Plan:
    """The batches of a group, ``cuts``, with what all of them share."""

    design: Design | None
    more: More
    frame: Batch
    cuts: list[_Cut]

    def batches(self, outputs: list[Output], asked: Asked) -> Iterator[Batch]:
        """Yield the batches one after the other: memory does not hold them all."""
        for cut in self.cuts:
            files = iter([_describe(output, asked) for output in cut.of(outputs)])
            yield replace(
                self.frame,
                participants=tuple(
                    tuple(itertools.islice(files, n)) for n in cut.counts
                ),
                compared=cut.compared,
                covariates=cut.covariates,
                place=cut.place,
            )


def _describe(output: Output, asked: Asked) -> _File:
    file = _File(output.path, output.table, output.told.fisher_z)
    weight = 0.0
    try:
        if asked.options.group_weights != "none":
            weight = max(asked.tell(output, "DegreesOfFreedom") or 0.0, 0.0)
        return file._replace(displacement=asked.displace(output), weight=weight)
    except BidsRoiError as error:
        return file._replace(fault=f"{output.beside.name}: {error.problem}")


def _find_names(output_dir: Path, outputs: list[Output]) -> tuple[str, ...]:
    """Regions of the first matrix that can be read; empty where there is none."""
    for output in outputs:
        file = _File(output.path, output.table, output.told.fisher_z)
        with contextlib.suppress(BidsRoiError):
            return _read_relmat(output_dir, file, (), scale_of_word(output.stat))[0]
    return ()


def add_up(
    key: GroupKey,
    outputs: list[Output],
    regions: Regions | None,
    tallies: Iterable[Tally],
    asked: Asked,
    plan: Plan,
    files: ExitStack,
) -> tuple[Group | None, list[Problem]]:
    """Merge what the batches of a group add up to.

    Parameters
    ----------
    key, outputs, regions, asked
        Of ``plan_group``.
    tallies
        Of its batches, in their order.
    plan
        What it has planned.
    files
        Until these are closed the runs of the group can be compared.

    Returns
    -------
    group
        ``None`` where no matrix can be used.
    problems
        Matrices that are left out: damaged, or without a value.
    """
    problems: list[Problem] = []
    group: Group | None = None
    names = plan.frame.names
    for cut, tally in zip(plan.cuts, tallies, strict=True):
        if tally.statistics is not None:
            if group is None:
                scratch = files.enter_context(Scratch(plan.frame.folder))
                group = _begin(key, tally.names, regions, plan, scratch)
            group.statistics.merge(tally.statistics)
        places = itertools.count(cut.place, _bytes_of(names))
        own = zip(tally.files, cut.of(outputs), strict=True)
        for (became, output), place in zip(own, places, strict=False):
            if became.status or group is None:
                problems.append(Problem(output, became.reason, became.status))
                continue
            group.outputs.append(output)
            if asked.spool is not None and became.is_kept:
                asked.spool.kept[output.path] = place, names
            # Of Fisher's z, the participant level has left them out already.
            told = output.number("NumberOfIdenticalEdges") or 0
            group.n_identical += became.n_identical + int(told) * (group.scale == "z")
            if plan.more.weighted:
                weight = asked.tell(output, "DegreesOfFreedom")
                group.n_weightless += weight is None or weight <= 0
            seconds = asked.tell(output, "RepetitionTime")
            if seconds is not None:
                group.repetition_times[round(seconds, _DIGITS)] += 1
    if group is None or not group.outputs:
        return None, problems
    group.left_out = [p for p in problems if p.status == "left_out"]
    return group, problems


def _begin(
    key: GroupKey,
    names: tuple[str, ...],
    regions: Regions | None,
    plan: Plan,
    scratch: Scratch,
) -> Group:
    networks: tuple[str | None, ...] = ()
    centres = np.full((len(names), 3), np.nan)
    offsets = np.full(len(names), np.nan)
    if regions is not None:
        networks, centres, offsets = regions.networks, regions.centres, regions.offsets
    scale = scale_of_word(key[2])
    edges, blocks = _list_edges(len(names), networks, scale)
    # Nothing but merges happens to it, whatever the unit.
    compared = Shelf(scratch, edges.size)
    statistics = GroupStatistics(
        edges.size, blocks, by_run=False, more=plan.more, compared=compared
    )
    return Group(
        *(key, scale, [], names, centres, offsets, edges, blocks, statistics),
        design=plan.design,
    )


@lru_cache(maxsize=1)
def _list_edges(
    n_regions: int, networks: tuple[str | None, ...], scale: Scale
) -> tuple[Edges, Blocks | None]:
    edges = list_edges(n_regions, diagonal=scale == "as_is")
    known = any(label is not None for label in networks)
    return edges, list_blocks(networks, edges) if known else None


def tally_batch(batch: Batch) -> Tally:
    """Read the matrices of a batch, each once, one at a time in memory."""
    scale = scale_of_word(batch.stat)
    statistics: GroupStatistics | None = None
    files: list[_Became] = []
    names = batch.names
    if batch.names:
        edges, blocks = _list_edges(len(batch.names), batch.networks, scale)
        statistics = GroupStatistics(
            edges.size, blocks, by_run=batch.by_run, more=batch.more
        )
    for own, compared, covariates in zip(
        batch.participants, batch.compared, batch.covariates, strict=True
    ):
        for file in own:
            try:
                found, triangle = _read_relmat(batch.folder, file, names, scale)
                if statistics is None:
                    raise DataError("it could not be read before, and now it can.")
                names = found  # as a rule the tuple of the next, too: one look at both
            except BidsRoiError as error:
                reason = f"{file.path}: {error.problem} {REMEDY}"
                files.append(_Became(0, reason, "unreadable"))
                continue
            parts = map(triangle.__getitem__, blocks_of(triangle.size))
            if not any(np.isfinite(part).any() for part in parts):
                reason = f"no entry of the matrix stat-{batch.stat} has a value."
                files.append(_Became(0, reason, "left_out"))
                continue
            values, n_identical = _edge_values(triangle, len(names), scale)
            is_kept = False
            # Without a digest, who reads the table again would not know that it is it.
            if batch.spool is not None and file.digest:
                place = batch.place + len(files) * triangle.nbytes
                is_kept = keep(batch.spool, place, triangle)
            files.append(_Became(n_identical, is_kept=is_kept))
            statistics.add_run(
                values,
                file.displacement,
                compared=compared,
                weight=file.weight,
                covariates=covariates,
            )
        if statistics is not None:
            statistics.close_participant()
    return Tally(batch.names, statistics, files)


def _edge_values(
    triangle: FloatArray, n_regions: int, scale: Scale
) -> tuple[FloatArray, int]:
    """What is averaged of a matrix, and how many identical edges are left out."""
    if scale == "as_is":
        return triangle, 0
    values = triangle[off_diagonal(n_regions)]
    if scale == "z":
        return leave_out_identical(values)
    return to_fisher_z(values) if scale == "r" else (values, 0)


def _read_relmat(
    folder: Path, file: _File, names: tuple[str, ...], scale: Scale
) -> tuple[tuple[str, ...], FloatArray]:
    """Names and upper triangle of a matrix that is what its name says."""
    if file.fault:
        raise DataError(file.fault)
    told = file.fisher_z
    if told is not None and told != (scale == "z"):
        says = "says" if told else "denies"
        msg = f"its sidecar {says} that it holds Fisher's z, its name does not agree."
        raise DataError(msg)
    path = folder / file.path
    content = read_bytes(path)
    if file.digest:
        digest = hashlib.sha256(content).hexdigest()
        check_table(path, file.digest, digest=digest)
        # The bytes are those that were written, both halves from one array.
        found, triangle = parse_triangle(content, path)
        _check_names(found, names)
    else:
        found, matrix = parse_matrix(content, path, nodes=True)
        n_rows, n_columns = matrix.shape
        if n_rows != n_columns:
            raise DataError(f"it has {n_rows} rows and {n_columns} columns.")
        _check_names(found, names)
        # Exactly the same: both halves were printed from one array. A tolerance would
        # let an edited half pass, and which half is right nobody can tell.
        same = (matrix == matrix.T) | (np.isnan(matrix) & np.isnan(matrix.T))
        what = "is not the same on both sides of the diagonal"
        upper = np.triu_indices(n_rows)
        triangle = matrix[upper]
        _refuse(~same[upper], triangle, found, what)
    if scale == "r":
        diagonal = on_diagonal(len(found))
        own = triangle[diagonal]
        not_one = np.isfinite(own) & (own != 1)
        if not_one.any() or largest(triangle) > _BEYOND:
            wrong = np.abs(triangle) > _BEYOND
            wrong[diagonal] = not_one
            what = "cannot be a correlation (-1 to 1, 1 on the diagonal)"
            _refuse(wrong, triangle, found, what)
    return found, triangle


def _check_names(found: tuple[str, ...], names: tuple[str, ...]) -> None:
    if names and found != names:
        n = sum(a != b for a, b in itertools.zip_longest(found, names))
        msg = (
            f"its regions are not those of the atlas: {len(found)} where there are"
            f" {len(names)}, {n} of them with another name."
        )
        raise DataError(msg)


def _refuse(
    wrong: NDArray[np.bool_], triangle: FloatArray, names: tuple[str, ...], what: str
) -> None:
    """Name the first entry of an upper triangle that is wrong, if one is."""
    if wrong.any():
        first = int(np.argmax(wrong))
        row, column = (axis[first] for axis in np.triu_indices(len(names)))
        msg = f"{triangle[first]:g} in row {names[row]}, column {names[column]} {what}."
        raise DataError(msg)
