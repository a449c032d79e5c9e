"""One row per group of matrices: motion, reliability, and both beside their price."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.group.moments import CONSTANT
from bids_roi.core.group.motion import (
    LEAST_UNITS,
    MotionSummary,
    edge_lengths,
    summarise_motion,
    usable_centres,
)
from bids_roi.files.tables import format_table
from bids_roi.group.connectivity import noun_of, say_times
from bids_roi.outputs.find import SCOPE, SPACE_KEYS, describe_keys, place_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.group.ledger import Ledger
    from bids_roi.group.matrices import Group

    FloatArray = NDArray[np.float64]


_KEY_TEXTS = {
    "atlas_id": "Canonical id of the atlas.",
    "stat_id": "What relates the regions, as in the file names.",
    "group_unit": "What statistics are over: participant (mean of the runs), run, or"
    " combined (participants, by the matrices over their runs).",
    "n_participants": "Participants with a matrix.",
    "n_runs": "Runs with a matrix.",
    "n_runs_left_out": (
        "Runs of which the matrix is n/a throughout: not in any of the numbers."
    ),
    "repetition_times": "Of the runs, s, with their number where they differ.",
}

_MOTION_TEXTS = {
    "n_units_fd": "Participants (or runs) with a mean framewise displacement.",
    "fd_mean": "Mean over them of the mean framewise displacement of all volumes, mm.",
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
    "n_regions_outside": (
        "Regions whose centre lies more than 3.5 mm outside of them, as where a region"
        " has parts on both sides: their edges have no distance."
    ),
    "n_edges_distance": "Edges of which both centres are known and in their regions.",
    "distance_rho": (
        "Spearman's correlation over the edges of the distance between the centres with"
        " the QC-FC correlation (doi:10.1016/j.neuroimage.2017.12.073); below 0 where"
        " motion raises short edges most."
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
    "n_participants_compared": (
        "Participants with two runs or more that the next two rest on: all of them, or"
        " evenly spaced ones where there are more than memory holds."
    ),
    "discriminability": (
        "How often (0 to 1) two runs of a participant are nearer to each other than one"
        " of them is to a run of another (doi:10.1371/journal.pcbi.1009279); 0.5 by"
        " chance."
    ),
    "identification_rate": (
        "How often (0 to 1) a run is most like that of the same participant among one"
        " run of each (fingerprinting, doi:10.1038/nn.4135); one over"
        " n_participants_compared by chance."
    ),
    "reason": "Why figures are n/a.",
}

_LENGTH_TEXTS = {
    "n_volumes_mean": "Mean over the runs of their number of volumes.",
    "n_volumes_kept_mean": "The same of the volumes that enter the series.",
    "share_volumes_kept": "Mean over the runs of the share (0 to 1) of volumes kept.",
    "degrees_of_freedom_mean": (
        "Mean over the runs of the degrees of freedom that cleaning has left."
    ),
    "degrees_of_freedom_lost_mean": (
        "Mean over the runs of those that censoring, filter, regressors and the mean"
        " took: volumes of the run less what is left."
    ),
    "effective_degrees_of_freedom_mean": (
        "Mean over the runs of those left after autocorrelation."
    ),
}

_STRATEGY_TEXTS = {
    **{
        name: _MOTION_TEXTS[name]
        for name in (
            *("median_abs_r", "median_abs_r_chance", "share_p05", "share_fdr"),
            "distance_rho",
        )
    },
    **_LENGTH_TEXTS,
    **{
        name: _RELIABILITY_TEXTS[name]
        for name in (
            *("icc_q25", "icc_median", "icc_q75", "n_participants_compared"),
            *("discriminability", "identification_rate"),
        )
    },
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
    "group_strategies.tsv": (
        "What denoising strategies are compared by, side by side: motion left in"
        " connectivity, what cleaning cost, and how well runs of a participant agree;"
        " one row per group of matrices.",
        _STRATEGY_TEXTS,
    ),
}


def summarise_group(
    group: Group, *, unit: str
) -> tuple[dict[str, object], dict[str, object]]:
    """Rows of ``group_qcfc.tsv`` and ``group_reliability.tsv``.

    Each holds what ``group_strategies.tsv`` has besides.
    """
    statistics, name = group.statistics, group.first.name
    keys: dict[str, object] = {
        f"{key}_id": name.get(key) for key in (*SCOPE, *SPACE_KEYS)
    }
    keys["desc_id"] = group.first.desc
    keys |= {"atlas_id": group.first.atlas_name, "stat_id": group.first.stat}
    keys |= {"group_unit": unit, "n_participants": statistics.n_participants}
    keys["n_runs"] = statistics.n_runs
    keys["n_runs_left_out"] = len(group.left_out)
    keys["repetition_times"] = say_times(group)
    keys |= _average_lengths(group)
    noun = noun_of(unit)
    return keys | _summarise_motion(group, noun), keys | _summarise_reliability(group)


def write_summaries(
    ledger: Ledger,
    motion: list[dict[str, object]],
    reliability: list[dict[str, object]],
    warnings: list[str],
) -> None:
    """Write the tables over all groups, where there are any."""
    strategies = [
        {**one, **two, "reason": " ".join(str(r["reason"]) for r in (one, two)).strip()}
        for one, two in zip(motion, reliability, strict=True)
    ]
    tables = (motion, reliability, strategies)
    for name, rows in zip(_TABLES, tables, strict=True):
        if not rows:
            continue
        description, texts = _TABLES[name]
        keys = place_columns(rows)
        columns = [*keys, *_KEY_TEXTS, *texts]
        text = format_table({c: [row.get(c) for row in rows] for c in columns})
        told = describe_keys(keys) | _KEY_TEXTS | texts
        said = {"Description": description}
        ledger.write(name, text, said, told, warnings=warnings)


def _average_lengths(group: Group) -> dict[str, object]:
    """Means over the runs whose sidecars tell what each needs."""

    def numbers(key: str) -> FloatArray:
        told = (output.number(key) for output in group.outputs)
        return np.array([np.nan if value is None else value for value in told])

    volumes, kept = numbers("NumberOfVolumes"), numbers("NumberOfVolumesKept")
    freedom = numbers("DegreesOfFreedom")
    effective = numbers("EffectiveDegreesOfFreedom")
    share = kept / np.where(volumes > 0, volumes, np.nan)
    columns = (volumes, kept, share, freedom, volumes - freedom, effective)
    return {
        name: float(values[np.isfinite(values)].mean())
        if np.isfinite(values).any()
        else None
        for name, values in zip(_LENGTH_TEXTS, columns, strict=True)
    }


def _summarise_motion(group: Group, unit: str) -> dict[str, object]:
    statistics, edges = group.statistics, group.edges
    fd = np.array(statistics.displacements)
    between = edges.between
    r = statistics.motion.correlate(LEAST_UNITS)[between]
    centres = usable_centres(group.centres, group.offsets)
    distances = edge_lengths(centres, edges)[between]
    known = np.isfinite(group.centres).all(axis=1) & np.isfinite(group.offsets)
    n_outside = int((known & ~np.isfinite(centres).all(axis=1)).sum())
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
        "n_regions_outside": n_outside,
        "n_edges_distance": found.n_edges_distance,
        "distance_rho": found.distance_rho,
    }
    regions = f"{n_outside} of {len(group.names)} regions"
    return row | {
        "reason": _explain_motion(fd, found, unit)
        or _explain_distance(found, distances, regions if n_outside else "")
    }


def _explain_motion(fd: FloatArray, found: MotionSummary, unit: str) -> str:
    if fd.size < LEAST_UNITS:
        have = f"{unit} has" if fd.size == 1 else f"{unit}s have"
        return f"{fd.size} {have} a mean FD; {LEAST_UNITS} are needed."
    if fd.std() <= CONSTANT * abs(fd.mean()):
        return f"Mean FD is the same in all {unit}s."
    if not found.n_edges:
        return (
            f"No edge is there, and differs, in {LEAST_UNITS} {unit}s with a mean FD."
        )
    return ""


def _explain_distance(found: MotionSummary, distances: FloatArray, outside: str) -> str:
    """Why there is no ``distance_rho``; ``outside``: regions left out, if any."""
    if found.distance_rho is not None:
        return ""
    if outside:
        return (
            f"Distance dependence: the centres of {outside} lie outside of them, as"
            " where a region has parts on both sides; too few edges are left."
        )
    if not np.isfinite(distances).any():
        return (
            "Distance dependence: the centres of the regions are not known, or not"
            " whether they lie in them."
        )
    return "Distance dependence: fewer than three edges, or all are alike."


def _summarise_reliability(group: Group) -> dict[str, object]:
    statistics = group.statistics
    icc = statistics.runs.correlate()[group.edges.between]
    icc = icc[np.isfinite(icc)]
    identity = statistics.identity.summarise()
    reason = ""
    if statistics.n_repeated == 0:
        reason = "No participant has two runs or more."
    elif statistics.n_participants < 2:
        reason = "There is one participant; two are needed."
    elif not icc.size:
        reason = "No edge is there, and differs, in two participants and two runs."
    elif identity.n_participants < 2:
        reason = "Identification: one participant has two runs; two are needed."
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
        "n_participants_compared": identity.n_participants,
        "discriminability": identity.discriminability,
        "identification_rate": identity.identification_rate,
        "reason": reason,
    }
