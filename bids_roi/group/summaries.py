"""One row per group of matrices: motion, reliability, and both beside their price."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.group.edges import CONSTANT
from bids_roi.core.group.motion import (
    LEAST_UNITS,
    MotionSummary,
    Resampled,
    edge_lengths,
    resample,
    summarise_motion,
    usable_centres,
)
from bids_roi.files.tables import format_table
from bids_roi.group.connectivity import noun_of, say_times
from bids_roi.outputs.columns import SPACE_KEYS, describe_keys, place_columns
from bids_roi.outputs.find import SCOPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bids_roi.group.matrices import Group
    from bids_roi.group.outputs import Ledger
    from bids_roi.options.row import Group as GroupOptions

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
    "motion_measure": (
        "What is taken as a run's motion: a column of the runs; there with"
        " --fd-measure, and then fd_mean and so on are of it, too."
    ),
}

# Columns of options, which are there where these were given.
_ON_REQUEST = {
    "motion_measure",
    *("covariates", "n_units_partial", "median_abs_r_partial"),
    *("median_abs_r_partial_chance", "share_p05_partial", "share_fdr_partial"),
    *("distance_rho_partial", "n_permutations", "n_edges_permuted", "median_abs_r_p"),
    *("distance_rho_p", "distance_rho_low", "distance_rho_high"),
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
    "covariates": (
        "What the next five hold constant: columns of participants.tsv. These columns"
        " are there with --covariates."
    ),
    "n_units_partial": "Participants (or runs) with a mean FD and all covariates.",
    "median_abs_r_partial": (
        "Median over the edges of the absolute partial QC-FC correlation"
        " (doi:10.1016/j.neuroimage.2017.03.020)."
    ),
    "median_abs_r_partial_chance": "What it is on average by chance.",
    "share_p05_partial": "Share of edges (0 to 1) with p < 0.05 of it, uncorrected.",
    "share_fdr_partial": "The same after the false discovery rate.",
    "distance_rho_partial": "As distance_rho, with the partial QC-FC correlation.",
    "n_permutations": (
        "Permutations of the participants (Freedman and Lane 1983,"
        " doi:10.1080/07350015.1983.10509354); all there are, where these are fewer"
        " than were asked for. The next three are there with --permutations, and of the"
        " partial QC-FC with --covariates."
    ),
    "n_edges_permuted": "Edges that they rest on: all, or evenly spaced ones.",
    "median_abs_r_p": "One-sided p of the median absolute QC-FC correlation.",
    "distance_rho_p": "Two-sided p of its distance dependence.",
    "distance_rho_low": (
        "Low end of the 95 % confidence interval of its distance dependence, by the"
        " jackknife over participants (doi:10.1214/aos/1176345462); as the next, there"
        " with --confidence or --permutations, and of the partial QC-FC with"
        " --covariates."
    ),
    "distance_rho_high": "High end.",
    "reason": "Why figures are n/a.",
}

_RELIABILITY_TEXTS = {
    "n_participants_repeated": "Those of them with two runs or more.",
    "n_edges": "Edges with an intraclass correlation.",
    "icc_median": "Median over the edges of ICC(1,1) of single runs.",
    "icc_q25": "First quartile.",
    "icc_q75": "Third quartile.",
    "icc_low_median": (
        "Median over the edges of the low end of its 95 % confidence interval (Shrout"
        " and Fleiss; approximate where numbers of runs differ)."
    ),
    "icc_high_median": "The same of the high end.",
    "runs_per_participant": "Usual number k of runs of a participant, for the next.",
    "icc_mean_median": "Median over the edges of ICC(1,k) of the mean of k runs.",
    "icc_mean_low_median": "Median of the low end of its 95 % confidence interval.",
    "icc_mean_high_median": "The same of the high end.",
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
            *("distance_rho", "covariates", "n_units_partial", "median_abs_r_partial"),
            *("median_abs_r_partial_chance", "share_p05_partial", "share_fdr_partial"),
            *("distance_rho_partial", "n_permutations", "median_abs_r_p"),
            *("distance_rho_p", "distance_rho_low", "distance_rho_high"),
        )
    },
    **_LENGTH_TEXTS,
    **{
        name: _RELIABILITY_TEXTS[name]
        for name in (
            *("icc_q25", "icc_median", "icc_q75", "icc_low_median", "icc_high_median"),
            *("runs_per_participant", "icc_mean_median", "n_participants_compared"),
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
    group: Group, options: GroupOptions
) -> tuple[dict[str, object], dict[str, object]]:
    """Rows of ``group_qcfc.tsv`` and ``group_reliability.tsv``.

    Each holds what ``group_strategies.tsv`` has besides.
    """
    statistics, name, unit = group.statistics, group.first.name, options.group_unit
    keys: dict[str, object] = {
        f"{key}_id": name.get(key) for key in (*SCOPE, *SPACE_KEYS)
    }
    keys["desc_id"] = group.first.desc
    keys |= {"atlas_id": group.first.atlas_name, "stat_id": group.first.stat}
    keys |= {"group_unit": unit, "n_participants": statistics.n_participants}
    keys["n_runs"] = statistics.n_runs
    keys["n_runs_left_out"] = len(group.left_out)
    keys["repetition_times"] = say_times(group)
    if options.fd_measure != "fd_mean":
        keys["motion_measure"] = options.fd_measure
    keys |= _average_lengths(group)
    motion = _summarise_motion(group, options)
    return keys | motion, keys | _summarise_reliability(group)


def write_summaries(
    ledger: Ledger,
    motion: list[dict[str, object]],
    reliability: list[dict[str, object]],
    warnings: list[str],
    said: Mapping[str, object],
) -> None:
    """Write the tables over all groups, where there are any; ``said`` in sidecars."""
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
        told = {
            column: text
            for column, text in (_KEY_TEXTS | texts).items()
            if column not in _ON_REQUEST or any(column in row for row in rows)
        }
        columns = [*keys, *told]
        text = format_table({c: [row.get(c) for row in rows] for c in columns})
        content = {"Description": description, **said}
        ledger.write(name, text, content, describe_keys(keys) | told, warnings=warnings)


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


def _summarise_motion(group: Group, options: GroupOptions) -> dict[str, object]:
    statistics, edges = group.statistics, group.edges
    fd = np.array(statistics.displacements)
    between = edges.between
    r = statistics.motion.correlate(LEAST_UNITS)[between]
    centres = usable_centres(group.centres, group.offsets)
    distances = edge_lengths(centres, edges)
    known = np.isfinite(group.centres).all(axis=1) & np.isfinite(group.offsets)
    n_outside = int((known & ~np.isfinite(centres).all(axis=1)).sum())
    found = summarise_motion(r, statistics.motion.n[between], distances[between])
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
    reasons = [
        _explain_motion(fd, found, options)
        or _explain_distance(found, distances[between], regions if n_outside else "")
    ]
    if group.design is not None:
        row |= _summarise_partial(group, distances, reasons)
    if group.statistics.more.held is not None:
        row |= _resample(group, distances, options)
    return row | {"reason": " ".join(filter(None, reasons))}


def _summarise_partial(
    group: Group, distances: FloatArray, reasons: list[str]
) -> dict[str, object]:
    """Columns of QC-FC with covariates; adds to the reasons why they are n/a."""
    moments, design, between = (
        group.statistics.partial,
        group.design,
        group.edges.between,
    )
    if moments is None or design is None:
        return {}
    r, n = moments.correlate()
    found = summarise_motion(r[between], n[between], distances[between])
    n_units = int(moments.n_units)
    if found.median_abs_r is None:
        reasons.append(
            f"Partial QC-FC: {n_units} {'has' if n_units == 1 else 'have'} motion and"
            f" all covariates ({design.n_columns} columns: {LEAST_UNITS} more are"
            " needed), or the covariates tell all of the motion."
        )
    return {
        "covariates": ", ".join(design.used) or None,
        "n_units_partial": n_units,
        "median_abs_r_partial": found.median_abs_r,
        "median_abs_r_partial_chance": found.chance,
        "share_p05_partial": found.share_p05,
        "share_fdr_partial": found.share_fdr,
        "distance_rho_partial": found.distance_rho,
    }


def _resample(
    group: Group, distances: FloatArray, options: GroupOptions
) -> dict[str, object]:
    """Columns of permutations and of the interval of distance dependence."""
    kept, held = group.statistics.kept, group.statistics.more.held
    found = Resampled(len(kept), 0)
    if held is not None and len(kept) >= LEAST_UNITS:
        numbers, covariates, values = (
            np.array(part) for part in zip(*kept, strict=True)
        )
        inside = group.edges.between[held]
        found = resample(
            numbers,
            covariates,
            values[:, inside].astype(np.float64),
            distances[held][inside],
            n_permutations=options.permutations,
            seed=options.permutation_seed,
        )
    row: dict[str, object] = {
        "distance_rho_low": found.distance_low,
        "distance_rho_high": found.distance_high,
    }
    if options.permutations:
        row["n_permutations"] = found.n_permutations
        row["n_edges_permuted"] = found.n_edges if found.n_permutations else 0
        row |= {"median_abs_r_p": found.median_p, "distance_rho_p": found.distance_p}
    return row


def _explain_motion(fd: FloatArray, found: MotionSummary, options: GroupOptions) -> str:
    unit, measure = noun_of(options.group_unit), options.fd_measure
    what = "a mean FD" if measure == "fd_mean" else measure
    if fd.size < LEAST_UNITS:
        have = f"{unit} has" if fd.size == 1 else f"{unit}s have"
        return f"{fd.size} {have} {what}; {LEAST_UNITS} are needed."
    if fd.std() <= CONSTANT * abs(fd.mean()):
        what = "Mean FD" if measure == "fd_mean" else measure
        return f"{what} is the same in all {unit}s."
    if not found.n_edges:
        return f"No edge is there, and differs, in {LEAST_UNITS} {unit}s with {what}."
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
    agreed = statistics.runs.agree()
    icc = agreed.icc[group.edges.between]
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
        "icc_low_median": _median(agreed.low[group.edges.between]),
        "icc_high_median": _median(agreed.high[group.edges.between]),
        "runs_per_participant": _median(agreed.k0[group.edges.between]),
        "icc_mean_median": _median(agreed.mean[group.edges.between]),
        "icc_mean_low_median": _median(agreed.mean_low[group.edges.between]),
        "icc_mean_high_median": _median(agreed.mean_high[group.edges.between]),
        "share_fair": float(np.mean(icc >= 0.4)) if icc.size else None,
        "share_good": float(np.mean(icc >= 0.6)) if icc.size else None,
        "n_participants_compared": identity.n_participants,
        "discriminability": identity.discriminability,
        "identification_rate": identity.identification_rate,
        "reason": reason,
    }


def _median(values: FloatArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None
