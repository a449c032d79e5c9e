"""Group tables of connectivity: matrices, and one row per group to compare them by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.app.group.identity import describe_keys, place_columns
from bids_roi.app.group.outputs import name_group_file
from bids_roi.core.group.moments import CONSTANT
from bids_roi.core.group.motion import (
    LEAST_UNITS,
    MotionSummary,
    edge_lengths,
    summarise_motion,
)
from bids_roi.io.matrices import corner_of
from bids_roi.io.tables import format_matrix, format_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bids_roi.app.group.ledger import Ledger
    from bids_roi.app.group.matrices import Group

    FloatArray = NDArray[np.float64]

__all__ = ["summarise_group", "write_group", "write_summaries"]

_SCALES = {
    "r": "Fisher's z of the correlations",
    "z": "Fisher's z",
    "as_is": "the values, as they are",
}

_NODE_TEXT = {"Description": "Region of the row; the columns are in its order."}

_KEY_TEXTS = {
    "atlas": "Canonical id of the atlas.",
    "stat": "What relates the regions, as in the file names.",
    "group_unit": "What statistics are over: participant (mean of the runs) or run.",
    "n_participants": "Participants with a matrix.",
    "n_runs": "Runs with a matrix.",
}

_MOTION_TEXTS = {
    "n_units_fd": "Participants (or runs) with a mean framewise displacement.",
    "fd_mean": "Mean over them of the mean framewise displacement, mm.",
    "fd_standard_deviation": "Standard deviation over them (ddof 1), mm.",
    "n_edges": "Edges with a QC-FC correlation.",
    "n_edges_identical": (
        "Edges left out over all runs, for their two regions have the same series."
    ),
    "median_abs_r": "Median over the edges of the absolute QC-FC correlation.",
    "median_abs_r_chance": (
        "What it is on average when connectivity has nothing to do with motion; falls"
        " with the number of participants."
    ),
    "share_p05": "Share of edges (0 to 1) with p < 0.05, uncorrected; 0.05 by chance.",
    "share_fdr": "The same after Benjamini and Hochberg's false discovery rate.",
    "n_edges_distance": "Edges of which both centres are known.",
    "distance_rho": (
        "Spearman's correlation over the edges of the distance between the centres with"
        " the QC-FC correlation; below 0 where motion raises short edges most."
    ),
    "reason": "Why figures are n/a.",
}

_RELIABILITY_TEXTS = {
    "n_participants_repeated": "Those of them with two runs or more.",
    "n_edges": "Edges with an intraclass correlation.",
    "icc_median": "Median over the edges of ICC(1,1) of single runs.",
    "icc_q25": "First quartile.",
    "icc_q75": "Third quartile.",
    "share_fair": "Share of edges (0 to 1) with 0.40 or more (Cicchetti 1994: fair).",
    "share_good": "Share of edges (0 to 1) with 0.60 or more (good).",
    "reason": "Why figures are n/a.",
}

_TABLES = {
    "group_qcfc.tsv": (
        "How much of connectivity goes with head motion: QC-FC, the correlation over"
        " participants of mean framewise displacement with each edge, summed up over"
        " the edges; one row per group. The lower, the better a denoising strategy"
        " (doi:10.1016/j.neuroimage.2017.03.020,"
        " doi:10.1016/j.neuroimage.2017.12.073).",
        _MOTION_TEXTS,
    ),
    "group_reliability.tsv": (
        "How well the runs of a participant agree: ICC(1,1) of each edge, one-way"
        " random effects (doi:10.1037/0033-2909.86.2.420), summed up over the edges;"
        " one row per group.",
        _RELIABILITY_TEXTS,
    ),
}


def write_group(ledger: Ledger, group: Group, *, unit: str) -> None:
    """Write the matrices of a group.

    Parameters
    ----------
    ledger
        Writes and remembers.
    group
        What was accumulated.
    unit
        ``participant`` or ``run``.
    """
    statistics, scale, edges = group.statistics, group.scale, group.edges
    moments = statistics.units
    mean = edges.fill(moments.mean)
    n = edges.fill(moments.n, diagonal=0).astype(np.int64)
    if scale.kind != "as_is":
        # Of a region: in how many units it has an edge at all.
        np.fill_diagonal(n, n.max(axis=0, initial=0))
    if scale.kind == "r":
        mean = np.tanh(mean)
        np.fill_diagonal(mean, np.where(n.diagonal() > 0, 1.0, np.nan))
    back = ", back-transformed to correlations" if scale.kind == "r" else ""
    over = f"over {statistics.n_units} {unit}s"
    within = "" if unit == "run" else ", the runs of a participant averaged first"
    what = f"of {_SCALES[scale.kind]} {over}{within}"
    deviation = edges.fill(moments.deviation)
    text = f"Mean {what}{back}."
    if scale.kind != "as_is":
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
    text = f"Number of {unit}s that each edge is averaged over; 0 where none has it."
    _write_counts(ledger, group, text, n, unit)
    r = statistics.motion.correlate(LEAST_UNITS)
    if np.isfinite(r).any():
        text = (
            "QC-FC: Pearson's correlation of mean framewise displacement with each"
            f" edge ({_SCALES[scale.kind]}) over {len(statistics.displacements)}"
            f" {unit}s; n/a where fewer than {LEAST_UNITS} have the edge."
        )
        _write_square(ledger, group, "qcfc", text, edges.fill(r), unit)
    icc = statistics.runs.correlate()
    if np.isfinite(icc).any():
        text = (
            f"ICC(1,1) of single runs within participants ({_SCALES[scale.kind]}):"
            f" {statistics.n_runs} runs of {statistics.n_participants} participants."
        )
        _write_square(ledger, group, "icc", text, edges.fill(icc), unit)
    if group.blocks is not None:
        _write_networks(ledger, group, unit)


def summarise_group(
    group: Group, *, unit: str
) -> tuple[dict[str, object], dict[str, object]]:
    """Rows of ``group_qcfc.tsv`` and ``group_reliability.tsv``.

    Parameters
    ----------
    group
        What was accumulated.
    unit
        ``participant`` or ``run``.
    """
    statistics, name = group.statistics, group.first.name
    keys: dict[str, object] = {
        key: name.get(key)
        for key in ("task", "rec", "echo", "part", "space", "cohort", "res", "den")
    }
    keys["desc"] = group.first.desc
    keys |= {"atlas": group.first.atlas_name, "stat": group.first.stat}
    keys |= {"group_unit": unit, "n_participants": statistics.n_participants}
    keys["n_runs"] = statistics.n_runs
    return keys | _summarise_motion(group, unit), keys | _summarise_reliability(group)


def write_summaries(
    ledger: Ledger,
    motion: list[dict[str, object]],
    reliability: list[dict[str, object]],
) -> None:
    """Write the two tables over all groups, where there are any."""
    for name, rows in zip(_TABLES, (motion, reliability), strict=True):
        if not rows:
            continue
        description, texts = _TABLES[name]
        keys = place_columns(rows)
        columns = [*keys, *_KEY_TEXTS, *texts]
        sidecar: dict[str, Any] = {"Description": description, **describe_keys(keys)}
        sidecar |= {k: {"Description": v} for k, v in (_KEY_TEXTS | texts).items()}
        text = format_table({c: [row.get(c) for row in rows] for c in columns})
        ledger.write(name, text, sidecar)


def _summarise_motion(group: Group, unit: str) -> dict[str, object]:
    statistics, edges = group.statistics, group.edges
    fd = np.array(statistics.displacements)
    between = edges.between
    r = statistics.motion.correlate(LEAST_UNITS)[between]
    distances = edge_lengths(group.centres, edges)[between]
    found = summarise_motion(r, statistics.motion.n[between], distances)
    row: dict[str, object] = {
        "n_units_fd": fd.size,
        "fd_mean": float(fd.mean()) if fd.size else None,
        "fd_standard_deviation": float(fd.std(ddof=1)) if fd.size > 1 else None,
        "n_edges": found.n_edges,
        "n_edges_identical": group.n_identical,
        "median_abs_r": found.median_abs_r,
        "median_abs_r_chance": found.chance,
        "share_p05": found.share_p05,
        "share_fdr": found.share_fdr,
        "n_edges_distance": found.n_edges_distance,
        "distance_rho": found.distance_rho,
    }
    return row | {"reason": _explain_motion(fd, found, distances, unit)}


def _explain_motion(
    fd: FloatArray, found: MotionSummary, distances: FloatArray, unit: str
) -> str:
    if fd.size < LEAST_UNITS:
        have = f"{unit} has" if fd.size == 1 else f"{unit}s have"
        return f"{fd.size} {have} a mean FD; {LEAST_UNITS} are needed."
    if fd.std() <= CONSTANT * abs(fd.mean()):
        return f"Mean FD is the same in all {unit}s."
    if not found.n_edges:
        return (
            f"No edge is there, and differs, in {LEAST_UNITS} {unit}s with a mean FD."
        )
    if not np.isfinite(distances).any():
        return "Distance dependence: the centres of the regions are not known."
    if found.distance_rho is None:
        return "Distance dependence: fewer than three edges, or all are alike."
    return ""


def _summarise_reliability(group: Group) -> dict[str, object]:
    statistics = group.statistics
    icc = statistics.runs.correlate()[group.edges.between]
    icc = icc[np.isfinite(icc)]
    reason = ""
    if statistics.n_repeated == 0:
        reason = "No participant has two runs or more."
    elif statistics.n_participants < 2:
        reason = "There is one participant; two are needed."
    elif not icc.size:
        reason = "No edge is there, and differs, in two participants and two runs."
    quarter, median, three = (
        np.percentile(icc, (25, 50, 75)).tolist() if icc.size else (None, None, None)
    )
    return {
        "n_participants_repeated": statistics.n_repeated,
        "n_edges": icc.size,
        "icc_median": median,
        "icc_q25": quarter,
        "icc_q75": three,
        "share_fair": float(np.mean(icc >= 0.4)) if icc.size else None,
        "share_good": float(np.mean(icc >= 0.6)) if icc.size else None,
        "reason": reason,
    }


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
    if group.scale.kind != "as_is":
        content["NumberOfIdenticalEdges"] = group.n_identical
    return content


def _write_square(
    ledger: Ledger,
    group: Group,
    suffix: str,
    description: str,
    matrix: FloatArray,
    unit: str,
) -> None:
    names, corner = group.names, corner_of(group.names)
    sidecar = _describe(group, description, unit)
    sidecar[corner] = _NODE_TEXT
    text = format_matrix(names, matrix, rows=names, corner=corner)
    ledger.write(_name(group, suffix), text, sidecar)


def _write_counts(
    ledger: Ledger,
    group: Group,
    description: str,
    counts: NDArray[np.int64],
    unit: str,
) -> None:
    """Write whole numbers as such."""
    names, corner = group.names, corner_of(group.names)
    sidecar = _describe(group, description, unit)
    sidecar[corner] = _NODE_TEXT
    columns = {corner: names, **dict(zip(names, counts.T.tolist(), strict=True))}
    ledger.write(_name(group, "relmatn"), format_table(columns), sidecar)


def _write_networks(ledger: Ledger, group: Group, unit: str) -> None:
    blocks, moments = group.blocks, group.statistics.networks
    if blocks is None:
        return
    first, second = zip(*blocks.pairs, strict=True)
    n_regions, mean = blocks.n_regions.tolist(), moments.mean
    scale = _SCALES[group.scale.kind]
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
    texts: Mapping[str, str] = {
        "network_1": "Network; the same as network_2 for edges within it.",
        "network_2": "Network.",
        "n_regions_1": "Regions of network_1.",
        "n_regions_2": "Regions of network_2.",
        "n_edges": "Edges between (or within) them, without the diagonal.",
        "n_units": f"Number of {unit}s with one of these edges or more.",
        "mean": f"Mean over {unit}s of the mean over the edges of {scale}.",
        "standard_deviation": f"Standard deviation over {unit}s (ddof 1) of that.",
    }
    if group.scale.kind != "as_is":
        columns["correlation"] = np.tanh(mean).tolist()
        texts = {**texts, "correlation": "mean, back-transformed to a correlation."}
    text = "Connectivity within and between the networks of the atlas."
    sidecar = _describe(group, text, unit)
    sidecar |= {name: {"Description": text} for name, text in texts.items()}
    ledger.write(_name(group, "networks"), format_table(columns), sidecar)


def _name(group: Group, suffix: str) -> str:
    scope, place, stat, desc = group.key
    return name_group_file(suffix, place=place, scope=scope, stat=stat, desc=desc)
