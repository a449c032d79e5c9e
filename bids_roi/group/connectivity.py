"""Group tables of connectivity: the matrices of each group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.group.motion import LEAST_UNITS, correlation_intervals
from bids_roi.files.matrices import corner_of
from bids_roi.files.tables import format_matrix, format_table
from bids_roi.group.outputs import name_group_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from bids_roi.group.matrices import Asked, Group
    from bids_roi.group.outputs import Ledger
    from bids_roi.options.row import Group as GroupOptions

    FloatArray = NDArray[np.float64]


_SCALES = {
    "r": "Fisher's z of the correlations",
    "z": "Fisher's z",
    "edges": "the values, as they are",
    "as_is": "the values, as they are",
}

_ENDS = ("Low", "High")
_INTERVAL = "end of the 95 % confidence interval of"

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


def write_group(ledger: Ledger, group: Group, asked: Asked) -> None:
    """Write the matrices of a group."""
    unit = asked.options.group_unit
    statistics, scale, edges = group.statistics, group.scale, group.edges
    moments = statistics.units
    n = edges.fill(moments.n, diagonal=0).astype(np.int64)
    if scale != "as_is":
        # Of a region: in how many units it has an edge at all.
        np.fill_diagonal(n, n.max(axis=0, initial=0))
    noun = noun_of(unit)
    what = f"of {_SCALES[scale]} over {statistics.n_units} {noun}s{_WITHIN[unit]}"
    end = "."
    if scale != "as_is":
        end += " Edges of two regions with the same series (|r| = 1) are left out."
    _write_means(ledger, group, unit, ("", what, end), moments.mean, moments.deviation)
    text = f"Number of {noun}s that each edge is averaged over; 0 where none has it."
    _write_square(ledger, group, "relmatn", text, n, unit)
    if statistics.weighted is not None:
        own = statistics.weighted
        what += "; runs weigh by their degrees of freedom"
        end = f". {group.n_weightless} runs have none and no weight{end}"
        told = ("weighted", what, end)
        _write_means(ledger, group, unit, told, own.mean, own.deviation)
    _write_motion(ledger, group, asked)
    _write_reliability(ledger, group, unit, intervals=asked.options.confidence)
    if group.blocks is not None:
        _write_networks(ledger, group, unit)


def _write_means(
    ledger: Ledger,
    group: Group,
    unit: str,
    told: tuple[str, str, str],
    mean: FloatArray,
    deviation: FloatArray,
) -> None:
    """Write means, turned back to correlations, and deviations, which are not."""
    kind, what, end = told
    mean, back = group.edges.fill(mean), ""
    if group.scale == "r":
        back = ", back-transformed to correlations"
        mean = np.tanh(mean)
        known = group.statistics.units.n > 0
        there = group.edges.fill(known.astype(float), diagonal=0).any(axis=0)
        np.fill_diagonal(mean, np.where(there, 1.0, np.nan))
    _write_square(ledger, group, f"relmat{kind}", f"Mean {what}{back}{end}", mean, unit)
    text = f"Standard deviation (ddof 1) {what}; not back-transformed."
    deviation = group.edges.fill(deviation)
    _write_square(ledger, group, f"relmat{kind}sd", text, deviation, unit)


def _write_motion(ledger: Ledger, group: Group, asked: Asked) -> None:
    """Write QC-FC of each edge: without and with covariates, and its intervals."""
    statistics, edges = group.statistics, group.edges
    unit, measure = asked.options.group_unit, asked.options.fd_measure
    noun = noun_of(unit)
    more: dict[str, Any] = {}
    if measure != "fd_mean":
        more["MotionMeasure"] = measure
    fd = "mean framewise displacement" if measure == "fd_mean" else measure
    end = f"; n/a where fewer than {LEAST_UNITS} have the edge."
    r, n = statistics.motion.correlate(LEAST_UNITS), statistics.motion.n
    what = f"{fd} with each edge ({_SCALES[group.scale]}) over"
    text = f"QC-FC: Pearson's correlation of {what} {len(statistics.displacements)}"
    found = [("qcfc", r, n, f"{text} {noun}s{end}", more)]
    if statistics.partial is not None and group.design is not None:
        r, n = statistics.partial.correlate()
        held, table = group.design.used, asked.covariates
        more = more | {"Covariates": list(held)}
        more |= {"CovariatesTable": table.source.name} if table is not None else {}
        text = (
            f"QC-FC: partial correlation of {what} the {noun}s with all covariates,"
            f" {', '.join(held) or 'none of use'} held constant; n/a where fewer than"
            f" {LEAST_UNITS} are left, less one for each covariate."
        )
        found.append(("qcfcpartial", r, n, text, more))
    for suffix, r, n, text, keys in found:
        if not np.isfinite(r).any():
            continue
        _write_square(ledger, group, suffix, text, edges.fill(r), unit, keys)
        if asked.options.confidence:
            for which, bound in enumerate(correlation_intervals(r, n)):
                name, values = f"{suffix}{_ENDS[which].lower()}", edges.fill(bound)
                said = f"{_ENDS[which]} {_INTERVAL} {text}"
                _write_square(ledger, group, name, said, values, unit, keys)


def _write_reliability(
    ledger: Ledger, group: Group, unit: str, *, intervals: bool
) -> None:
    statistics, edges = group.statistics, group.edges
    found = statistics.runs.agree()
    if not np.isfinite(found.icc).any():
        return
    within = (
        f"within participants ({_SCALES[group.scale]}):"
        f" {statistics.n_runs} runs of {statistics.n_participants} participants."
    )
    text = f"ICC(1,1) of single runs {within}"
    _write_square(ledger, group, "icc", text, edges.fill(found.icc), unit)
    if not intervals:
        return
    mean = f"ICC(1,k) of the mean of k runs {within}"
    ends = [f"{end} {_INTERVAL}" for end in _ENDS]
    for suffix, values, said in (
        ("icclow", found.low, f"{ends[0]} {text}"),
        ("icchigh", found.high, f"{ends[1]} {text}"),
        ("iccmean", found.mean, mean),
        ("iccmeanlow", found.mean_low, f"{ends[0]} {mean}"),
        ("iccmeanhigh", found.mean_high, f"{ends[1]} {mean}"),
    ):
        _write_square(ledger, group, suffix, said, edges.fill(values), unit)


def noun_of(unit: str) -> str:
    """What the statistics are over, in words."""
    return "run" if unit == "run" else "participant"


def warn_of_group(group: Group) -> list[tuple[str, str]]:
    """Say what a reader of the numbers of a group should know, by table."""
    notes = []
    if len(group.repetition_times) > 1:
        text = (
            f"runs of different repetition times are averaged: {say_times(group)}."
            " Their bands and degrees of freedom differ; compare them, or give them"
            " output folders of their own."
        )
        notes.append((_name(group, "relmat"), text))
    if group.n_weightless:
        text = (
            "runs without degrees of freedom, which weigh nothing:"
            f" {group.n_weightless} of {group.statistics.n_runs}."
        )
        notes.append((_name(group, "relmatweighted"), text))
    if group.design is not None:
        name = _name(group, "qcfcpartial")
        notes += [(name, note) for note in group.design.notes]
    return notes


def warn_of_motion(group: Group, options: GroupOptions) -> list[tuple[str, str]]:
    """Say who is not in QC-FC, and which of its intervals are too narrow, by table."""
    statistics, unit = group.statistics, noun_of(options.group_unit)
    name, notes = _name(group, "qcfc"), []
    n, n_known = statistics.n_units, len(statistics.displacements)
    if LEAST_UNITS <= n_known < n:
        measure = options.fd_measure
        what = "mean FD" if measure == "fd_mean" else measure
        verb = "has" if n - n_known == 1 else "have"
        text = f"{n - n_known} of {n} {unit}s {verb} no {what}: not in QC-FC."
        notes.append((name, text))
    if options.confidence and unit == "run" and statistics.n_repeated:
        text = (
            "intervals of QC-FC take the runs of one participant for independent and"
            " are too narrow, and distance dependence has none; --group-unit"
            " participant has both."
        )
        notes.append((name, text))
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
        content["Warnings"] = [f"{name}: {text}" for name, text in warnings]
    return content


def _write_square(
    ledger: Ledger,
    group: Group,
    suffix: str,
    description: str,
    matrix: NDArray[Any],
    unit: str,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write a matrix; whole numbers as such."""
    names, corner = group.names, corner_of(group.names)
    text: str | Iterable[str]
    if matrix.dtype.kind == "i":
        cells = dict(zip(names, matrix.T.tolist(), strict=True))
        text = format_table({corner: names, **cells})
    else:
        text = format_matrix(names, matrix, rows=names, corner=corner)
    sidecar = _describe(group, description, unit) | dict(more or {})
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
        "n_units": moments.n.astype(np.int64).tolist(),
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
