"""Group tables of connectivity: the matrices of each group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.group.motion import LEAST_UNITS
from bids_roi.files.matrices import corner_of
from bids_roi.files.tables import format_matrix, format_table
from bids_roi.group.ledger import name_group_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from bids_roi.group.ledger import Ledger
    from bids_roi.group.matrices import Group

    FloatArray = NDArray[np.float64]


_SCALES = {
    "r": "Fisher's z of the correlations",
    "z": "Fisher's z",
    "edges": "the values, as they are",
    "as_is": "the values, as they are",
}

_WITHIN = {
    "run": "",
    "participant": ", the runs of a participant averaged first",
    "combined": ", by the matrices over the runs of each (--combine-runs)",
}

_NODE_TEXT = "Region of the row; the columns are in its order."

_NETWORK_TEXTS = {
    "network_1": "Network; the same as network_2 for edges within it.",
    "network_2": "Network.",
    "n_regions_1": "Regions of network_1.",
    "n_regions_2": "Regions of network_2.",
    "n_edges": "Edges between (or within) them, without the diagonal.",
    "n_units": "Number of {unit}s with one of these edges or more.",
    "mean": "Mean over {unit}s of the mean over the edges of {scale}.",
    "standard_deviation": "Standard deviation over {unit}s (ddof 1) of that.",
    "correlation": "mean, back-transformed to a correlation.",
}


def write_group(ledger: Ledger, group: Group, *, unit: str) -> None:
    """Write the matrices of a group."""
    statistics, scale, edges = group.statistics, group.scale, group.edges
    moments = statistics.units
    mean = edges.fill(moments.mean)
    n = edges.fill(moments.n, diagonal=0).astype(np.int64)
    if scale != "as_is":
        # Of a region: in how many units it has an edge at all.
        np.fill_diagonal(n, n.max(axis=0, initial=0))
    if scale == "r":
        mean = np.tanh(mean)
        np.fill_diagonal(mean, np.where(n.diagonal() > 0, 1.0, np.nan))
    back = ", back-transformed to correlations" if scale == "r" else ""
    noun = noun_of(unit)
    over = f"over {statistics.n_units} {noun}s"
    within = _WITHIN[unit]
    what = f"of {_SCALES[scale]} {over}{within}"
    deviation = edges.fill(moments.deviation)
    text = f"Mean {what}{back}."
    if scale != "as_is":
        text += " Edges of two regions with the same series (|r| = 1) are left out."
    _write_square(ledger, group, "relmat", text, mean, unit)
    _write_square(
        ledger,
        group,
        "relmatsd",
        f"Standard deviation (ddof 1) {what}; not back-transformed.",
        deviation,
        unit,
    )
    text = f"Number of {noun}s that each edge is averaged over; 0 where none has it."
    _write_square(ledger, group, "relmatn", text, n, unit)
    r = statistics.motion.correlate(LEAST_UNITS)
    if np.isfinite(r).any():
        text = (
            "QC-FC: Pearson's correlation of mean framewise displacement with each"
            f" edge ({_SCALES[scale]}) over {len(statistics.displacements)}"
            f" {noun}s; n/a where fewer than {LEAST_UNITS} have the edge."
        )
        _write_square(ledger, group, "qcfc", text, edges.fill(r), unit)
    icc = statistics.runs.correlate()
    if np.isfinite(icc).any():
        text = (
            f"ICC(1,1) of single runs within participants ({_SCALES[scale]}):"
            f" {statistics.n_runs} runs of {statistics.n_participants} participants."
        )
        _write_square(ledger, group, "icc", text, edges.fill(icc), unit)
    if group.blocks is not None:
        _write_networks(ledger, group, unit)


def noun_of(unit: str) -> str:
    """What the statistics are over, in words."""
    return "run" if unit == "run" else "participant"


def warn_of_group(group: Group) -> list[str]:
    """Say what a reader of the numbers of a group should know."""
    notes = []
    if len(group.repetition_times) > 1:
        notes.append(
            f"{_name(group, 'relmat')}: runs of different repetition times are"
            f" averaged: {say_times(group)}. Their bands and degrees of freedom"
            " differ; compare them, or give them output folders of their own."
        )
    return notes


def say_times(group: Group) -> str:
    """Repetition times of a group: ``2 s``, or ``0.8 s (3 runs), 2 s (1 run)``."""
    times = sorted(group.repetition_times.items())
    if len(times) == 1:
        return f"{times[0][0]:g} s"
    return ", ".join(f"{t:g} s ({n} run{'' if n == 1 else 's'})" for t, n in times)


def _describe(group: Group, description: str, unit: str) -> dict[str, Any]:
    statistics = group.statistics
    content: dict[str, Any] = {
        "Description": description,
        "Atlas": group.first.atlas_name,
        "Statistic": group.first.stat,
        "GroupUnit": unit,
        "NumberOfParticipants": statistics.n_participants,
        "NumberOfRuns": statistics.n_runs,
        "OptionsDigest": group.first.digest,
    }
    if group.scale in ("r", "z"):
        content["NumberOfIdenticalEdges"] = group.n_identical
    if group.left_out:
        content["RunsLeftOut"] = [
            f"{problem.output.path}: {problem.reason}" for problem in group.left_out
        ]
    warnings = warn_of_group(group)
    if warnings:
        content["Warnings"] = warnings
    return content


def _write_square(
    ledger: Ledger,
    group: Group,
    suffix: str,
    description: str,
    matrix: NDArray[Any],
    unit: str,
) -> None:
    """Write a matrix; whole numbers as such."""
    names, corner = group.names, corner_of(group.names)
    text: str | Iterable[str]
    if matrix.dtype.kind == "i":
        cells = dict(zip(names, matrix.T.tolist(), strict=True))
        text = format_table({corner: names, **cells})
    else:
        text = format_matrix(names, matrix, rows=names, corner=corner)
    sidecar = _describe(group, description, unit)
    ledger.write(_name(group, suffix), text, sidecar, {corner: _NODE_TEXT})


def _write_networks(ledger: Ledger, group: Group, unit: str) -> None:
    blocks, moments = group.blocks, group.statistics.networks
    if blocks is None:
        return
    first, second = zip(*blocks.pairs, strict=True)
    n_regions, mean = blocks.n_regions.tolist(), moments.mean
    columns: dict[str, list[Any]] = {
        "network_1": [blocks.names[k] for k in first],
        "network_2": [blocks.names[k] for k in second],
        "n_regions_1": [n_regions[k] for k in first],
        "n_regions_2": [n_regions[k] for k in second],
        "n_edges": blocks.n_edges.tolist(),
        "n_units": moments.n.tolist(),
        "mean": mean.tolist(),
        "standard_deviation": moments.deviation.tolist(),
    }
    if group.scale in ("r", "z"):
        columns["correlation"] = np.tanh(mean).tolist()
    texts = {
        name: text.format(unit=noun_of(unit), scale=_SCALES[group.scale])
        for name, text in _NETWORK_TEXTS.items()
        if name in columns
    }
    text = "Connectivity within and between the networks of the atlas."
    sidecar = _describe(group, text, unit)
    ledger.write(_name(group, "networks"), format_table(columns), sidecar, texts)


def _name(group: Group, suffix: str) -> str:
    scope, place, stat, desc = group.key
    return name_group_file(suffix, place=place, scope=scope, stat=stat, desc=desc)
