"""The connectivity matrices of one group, read one after the other."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.group.accumulate import GroupStatistics
from bids_roi.core.group.edges import Edges, leave_out_identical, list_edges
from bids_roi.core.group.networks import Blocks, list_blocks
from bids_roi.core.relmat import are_identical, fisher_z
from bids_roi.errors import BidsRoiError, DataError
from bids_roi.files.matrices import read_matrix
from bids_roi.group.outputs import Problem
from bids_roi.options.words import scale_of_word
from bids_roi.outputs.find import REMEDY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.group.regions import Regions
    from bids_roi.options.words import Scale
    from bids_roi.outputs.find import Output

    FloatArray = NDArray[np.float64]


# Scope, place, stat and desc.
GroupKey = tuple[tuple[str, ...], tuple[str, ...], str, str]

# A correlation may exceed 1 by rounding; a file that was edited does by more.
_BEYOND = 1 + 1e-9
# Of repetition times that are told apart: a millisecond.
_DIGITS = 3


@dataclass(slots=True)
class Group:
    """Everything about one group of matrices.

    Attributes
    ----------
    key, outputs
        What it is of; ``outputs`` are those that were used.
    scale
        How its numbers are averaged: ``r`` (as Fisher's z), ``z`` (Fisher's z already)
        or ``as_is`` (covariance: neither).
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

    @property
    def first(self) -> Output:
        """One of them, for what they all have in common."""
        return self.outputs[0]


def accumulate_group(
    output_dir: Path,
    outputs: list[Output],
    regions: Regions | None,
    tell: Callable[[Output, str], float | None],
    *,
    by_run: bool,
) -> tuple[Group | None, list[Problem]]:
    """Read the matrices of one group, each once, one at a time in memory.

    Parameters
    ----------
    outputs
        Matrices of one task, space, atlas, statistic and desc, sorted by participant.
    regions
        Those of the space and atlas; ``None`` where there is no region table: then
        those of the first matrix hold.
    tell
        A number of a matrix's run by its key in the sidecars.
    by_run
        Whether every run is a unit of its own.

    Returns
    -------
    group
        ``None`` where no matrix can be used.
    problems
        Matrices that are left out: damaged, or without a value.
    """
    first = outputs[0]
    scale = scale_of_word(first.stat)
    problems: list[Problem] = []
    names = regions.names if regions is not None else None
    group: Group | None = None
    for _, own in itertools.groupby(outputs, key=lambda output: output.participant):
        for output in own:
            try:
                found, matrix = _read_relmat(output_dir, output, names, scale)
            except BidsRoiError as error:
                reason = f"{output.path}: {error.problem} {REMEDY}"
                problems.append(Problem(output, reason))
                continue
            if group is None:
                names = found
                key = (first.scope, first.place, first.stat, first.desc)
                group = _begin(key, scale, names, regions, by_run=by_run)
            values, n_identical = _edge_values(group, matrix)
            if not np.isfinite(matrix).any():
                reason = f"no entry of the matrix stat-{output.stat} has a value."
                problems.append(Problem(output, reason, "left_out"))
                continue
            group.outputs.append(output)
            # Of Fisher's z, the participant level has left them out already.
            told = output.number("NumberOfIdenticalEdges") or 0
            group.n_identical += n_identical + int(told) * (scale == "z")
            seconds = tell(output, "RepetitionTime")
            if seconds is not None:
                group.repetition_times[round(seconds, _DIGITS)] += 1
            group.statistics.add_run(values, tell(output, "MeanFramewiseDisplacement"))
        if group is not None:
            group.statistics.close_participant()
    if group is None or not group.outputs:
        return None, problems
    group.left_out = [p for p in problems if p.status == "left_out"]
    return group, problems


def _begin(
    key: GroupKey,
    scale: Scale,
    names: tuple[str, ...],
    regions: Regions | None,
    *,
    by_run: bool,
) -> Group:
    edges = list_edges(len(names), diagonal=scale == "as_is")
    blocks = None
    centres = np.full((len(names), 3), np.nan)
    offsets = np.full(len(names), np.nan)
    if regions is not None:
        centres, offsets = regions.centres, regions.offsets
        if any(label is not None for label in regions.networks):
            blocks = list_blocks(regions.networks, edges)
    statistics = GroupStatistics(edges.size, blocks, by_run=by_run)
    return Group(key, scale, [], names, centres, offsets, edges, blocks, statistics)


def _edge_values(group: Group, matrix: FloatArray) -> tuple[FloatArray, int]:
    values = group.edges.take(matrix)
    if group.scale == "r":
        return fisher_z(values), int(are_identical(values).sum())
    if group.scale == "z":
        return leave_out_identical(values)
    return values, 0


def _read_relmat(
    output_dir: Path, output: Output, names: tuple[str, ...] | None, scale: Scale
) -> tuple[tuple[str, ...], FloatArray]:
    """Read a matrix and check that it is what its name says."""
    told = output.told.fisher_z
    if told is not None and told != (scale == "z"):
        says = "says" if told else "denies"
        msg = f"its sidecar {says} that it holds Fisher's z, its name does not agree."
        raise DataError(msg)
    found, matrix = read_matrix(output_dir / output.path, nodes=True)
    n_rows, n_columns = matrix.shape
    if n_rows != n_columns:
        raise DataError(f"it has {n_rows} rows and {n_columns} columns.")
    if names is not None and found != names:
        n = sum(a != b for a, b in itertools.zip_longest(found, names))
        msg = (
            f"its regions are not those of the atlas: {len(found)} where there are"
            f" {len(names)}, {n} of them with another name."
        )
        raise DataError(msg)
    _check_values(matrix, found, scale)
    return found, matrix


def _check_values(matrix: FloatArray, names: tuple[str, ...], scale: Scale) -> None:
    wrong = ~((matrix == matrix.T) | (np.isnan(matrix) & np.isnan(matrix.T)))
    what = "is not the same on both sides of the diagonal"
    if scale == "r" and not wrong.any():
        wrong = np.abs(matrix) > _BEYOND
        diagonal = matrix.diagonal()
        wrong[np.diag_indices_from(wrong)] = np.isfinite(diagonal) & (diagonal != 1)
        what = "cannot be a correlation (-1 to 1, 1 on the diagonal)"
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        value = matrix[row, column]
        msg = f"{value:g} in row {names[row]}, column {names[column]} {what}."
        raise DataError(msg)
