"""One matrix over all runs of a task: made of the series that are on disk."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.relmat import POOLED
from bids_roi.dataset.query import Rule
from bids_roi.errors import BidsRoiError, DataError, count_of, shorten_reason
from bids_roi.files.matrices import corner_of, parse_matrix, read_bytes
from bids_roi.files.names import format_name, parse_name
from bids_roi.files.tables import MISSING, file_digest, format_matrix, read_table
from bids_roi.options.table import OPTIONS
from bids_roi.options.words import find_measure, measure_of_word
from bids_roi.outputs.derivatives import RelmatOutput, settings_of
from bids_roi.outputs.find import (
    Output,
    desc_of,
    find_outputs,
    find_stale,
    name_combined,
    name_run,
    sources_of,
    without_run,
)
from bids_roi.outputs.records import (
    NO_ATLAS,
    Making,
    Record,
    check_table,
    forget_loss,
    leave_out_numbers,
    read_all_records,
    write_records,
)
from bids_roi.outputs.schema import KEYS, read_fact
from bids_roi.participant.results import relate_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.options.record import Options
    from bids_roi.participant.results import Related

    FloatArray = NDArray[np.float64]


# What a table of confounds that changes may change, where no series does.
MOTION = ("MeanFramewiseDisplacement", "MaxFramewiseDisplacement")
_SETTINGS = {row.sidecar for row in OPTIONS if row.of == "relmat"}
_SETTINGS -= {"", "RelationshipMeasure"}
_NAMED = 3  # runs in a message
# Repetition times that differ by less are the same: headers round to a millisecond.
_SAME_S = 1e-3
# Numbers of runs that add up, or are a mean weighted by the other.
_SUMS = (
    *("NumberOfVolumes", "NumberOfVolumesKept", "SecondsKept"),
    *("DegreesOfFreedom", "NumberOfVolumesMoved"),
)
_MEANS = {
    "MeanFramewiseDisplacement": "NumberOfVolumes",
    "MeanFramewiseDisplacementKept": "NumberOfVolumesKept",
    "MeanFilteredFramewiseDisplacement": "NumberOfVolumes",
    "PercentVolumesMoved": "NumberOfVolumes",
}


@dataclass(slots=True)
class Combined:
    """What became of the matrices over runs of a participant.

    ``notes`` are what the user should know, ``errors`` why matrices could not be made;
    ``changed`` whether anything was written.
    """

    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    changed: bool = False


@dataclass(slots=True)
class _Family:
    """Matrices of runs that go into one, and why other runs of it do not."""

    path: str
    members: list[Output] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def combine_runs(output_dir: Path, participant: str, options: Options) -> Combined:
    """Make the matrices over runs of ``sub-<label>``, of all runs that are on disk.

    Of the sessions and tasks that are asked for. What was made of the same tables is
    left as it is. One that cannot be made is a failure under ``logs/``, and the others
    go on.
    """
    done = Combined()
    for family in _list_families(output_dir, participant, options):
        loss = family.path.removesuffix(".tsv")
        if len(family.members) + len(family.left_out) < 2 or not family.members:
            forget_loss(output_dir, loss)
            continue
        try:
            notes, written = _combine(output_dir, family, options)
        except BidsRoiError as error:
            text = str(error)
            record = Record(
                *(loss, family.members[0].atlas_name or NO_ATLAS, "failed", text),
            )
            write_records(output_dir, loss, [record])
            done.errors.append(text)
            done.changed = True
        else:
            forget_loss(output_dir, loss)
            done.notes += notes
            done.changed |= written
    return done


def _list_families(
    output_dir: Path, participant: str, options: Options
) -> list[_Family]:
    """Sort the matrices of runs by what they are of but for the run."""
    found = find_outputs(output_dir, participant)
    records = read_all_records(output_dir, participant)
    stale = find_stale(found, records)
    failed = _sort_failed(records)
    asked = set(options.connectivity.relmat) & set(POOLED)
    families: dict[str, _Family] = {}
    for output in found:
        if output.kind != "relmat" or measure_of_word(output.stat) not in asked:
            continue
        if output.stat != find_measure(measure_of_word(output.stat)).stat(
            fisher_z=options.connectivity.fisher_z
        ):
            continue
        if output.told.condition:  # of a part of the run
            continue
        if not is_asked(output, options, "ses", "task"):
            continue
        path = name_combined(output.path)
        family = families.setdefault(path, _Family(path))
        why = _find_fault(output, failed, stale)
        if why:
            family.left_out[output.run_name] = why
        else:
            family.members.append(output)
    for family in families.values():
        first = family.members[:1]
        for record in (r for output in first for r in _find_failed(failed, output)):
            name = name_run(parse_name(record.run))
            family.left_out.setdefault(name, shorten_reason(record.reason))
    return list(families.values())


def is_asked(output: Output, options: Options, *keys: str) -> bool:
    """Whether an output is of a session, task or run that a call asks for."""
    given = options.input
    labels = {
        "ses": given.session_label,
        "task": given.task_label,
        "run": given.run_label,
    }
    return all(
        Rule(key, labels[key]).accepts(output.name.get(key))
        for key in keys
        if labels[key]
    )


def is_made_so(output: Output, options: Options) -> bool:
    """Whether a matrix has the settings of a call; of an earlier one, it may not.

    With those of this call, what is made beside it would be of another kind.
    """
    measure = measure_of_word(output.stat)
    scaled = options.connectivity.fisher_z and find_measure(measure).is_correlation
    asked = settings_of(
        RelmatOutput(measure, scaled, None, "", "", ""), options.connectivity
    )
    told = output.read_sidecar()
    return {key: told[key] for key in _SETTINGS if key in told} == asked


def _find_fault(output: Output, failed: _Failed, stale: set[str]) -> str:
    """Why the matrix of a run cannot go into that of all; empty where it can."""
    if output.told.error is not None:
        return shorten_reason(str(output.told.error))
    if output.told.absent:
        return output.told.absent
    if output.path in stale:
        return "it is not of one making with its region table."
    own = _find_failed(failed, output, output.source) if output.source else []
    return shorten_reason(own[0].reason) if own else ""


# By the run, or blank, and by what the run is of but for its number.
_Failed = dict[tuple[str, str, str], list[Record]]


def _sort_failed(records: Sequence[Record]) -> _Failed:
    """Sort the runs that failed: of hundreds, each matrix is held against its own."""
    found: _Failed = {}
    for record in records:
        run = record.run
        if record.status != "failed" or "/" not in run:
            continue
        if not parse_name(run).suffix.startswith("bold"):
            continue
        own = desc_of(run, "")
        # Two hemispheres go by the left one's file.
        for name in {run, re.sub(r"_hemi-[LR](?=_)", "", run)}:
            for of in ("", run):
                found.setdefault((of, own, without_run(name, own)), []).append(record)
    return found


def _find_failed(failed: _Failed, output: Output, run: str = "") -> list[Record]:
    """Those of the strategy, atlas and task of a matrix; of any run, or of one."""
    own = output.source_desc
    return [
        record
        for record in failed.get((run, own, without_run(output.path, own)), ())
        if record.atlas in (NO_ATLAS, output.atlas_name)
        and (not record.strategy or desc_of(record.run, record.strategy) == output.desc)
    ]


def _combine(
    output_dir: Path, family: _Family, options: Options
) -> tuple[list[str], bool]:
    """Make one matrix; return what to say of it, and whether it was written."""
    members = family.members
    _check_name(family)
    series = [series_of_matrix(output) for output in members]
    _check_alike(members, series)
    if not is_made_so(members[0], options):
        return [], False
    tables = [one.table or file_digest(one.file) for one in series]
    sidecars = [output.read_sidecar() for output in members]
    left_out = [f"{run}: {why}" for run, why in sorted(family.left_out.items())]
    # The digests are those of the runs' matrices: of a participant with one run, that
    # is the matrix over all, and belongs into one group with these.
    key: dict[str, Any] = {"CombinedTables": tables}
    key |= {k: sidecars[0][k] for k in ("OptionsDigest", "SettingsDigest")}
    if left_out:
        key["RunsNotCombined"] = left_out
    facts = _join_facts(sidecars)
    motion = {name: facts.get(name) for name in MOTION}
    if (known := _read_made(output_dir / family.path, key | motion)) is not None:
        return known, False
    measure = measure_of_word(members[0].stat)
    output = RelmatOutput(
        measure,
        options.connectivity.fisher_z and find_measure(measure).is_correlation,
        members[0].desc or None,
        *("", series[0].path, family.path),
    )
    header = read_bytes(series[0].file).partition(b"\n")[0]
    names, _ = parse_matrix(header, series[0].file)
    related, counts = relate_runs(
        lambda: (_read_kept(one, names) for one in series),
        output,
        options,
        degrees_of_freedom=facts["DegreesOfFreedom"],
    )
    facts |= {
        "Sources": [f"bids::{one.path}" for one in series],
        "CombinedRuns": [output.run_name for output in members],
        "CombinedVolumes": list(counts),
        **key,
    }
    notes = _tell_notes(family, related)
    _write(output_dir, output, related, names, facts, sidecars, notes)
    return notes, True


def _check_name(family: _Family) -> None:
    """Refuse a run whose own matrix has the name of that of all runs."""
    if any(output.path == family.path for output in family.members):
        others = [o.path for o in family.members if o.path != family.path]
        named = ", ".join(others[:_NAMED])
        if len(others) > _NAMED:
            named += f" and {len(others) - _NAMED} more"
        msg = (
            f"the matrix of all runs would have the name of that of one of them, which"
            f" has neither run- nor dir-; others are {named}."
        )
        remedy = "Name the runs run-1, run-2 ..., or leave --combine-runs out."
        raise DataError(msg, where=family.path, remedy=remedy)


def series_of_matrix(output: Output) -> Output:
    """The series that a matrix is of."""
    path = next(iter(sources_of(output.read_sidecar())), "")
    series = output.series.get(path)
    if series is None:
        msg = f"its series {path} is not there."
        raise DataError(msg, where=output.path, remedy="Make the run again.")
    if series.told.error is not None:
        raise series.told.error
    return series


def _check_alike(members: Sequence[Output], series: Sequence[Output]) -> None:
    """Refuse runs of other settings or repetition time, with both named."""
    first = members[0]
    seconds = [read_fact(one.read_sidecar(), "RepetitionTime") for one in series]
    for other, own in zip(members[1:], seconds[1:], strict=True):
        both = f"{first.run_name} and {other.run_name}"
        if other.digest != first.digest:
            msg = (
                f"{both} were made with other options, strategy settings, versions or"
                f" atlas files ({first.digest}, {other.digest}): they are not combined."
            )
            remedy = "Make both again with the same (--overwrite)."
            raise DataError(msg, where=name_combined(first.path), remedy=remedy)
        known = [value is not None for value in (own, seconds[0])]
        if any(known) and not (all(known) and abs(own - seconds[0]) <= _SAME_S):
            shown = [MISSING if t is None else f"{t:g} s" for t in (seconds[0], own)]
            msg = (
                f"{both} have repetition times of {' and '.join(shown)}: volumes of"
                " other lengths are not combined."
            )
            remedy = "Choose runs that have the same, with --bids-filter-file."
            raise DataError(msg, where=name_combined(first.path), remedy=remedy)


def _read_made(path: Path, key: Mapping[str, Any]) -> list[str] | None:
    """What is said of a matrix that is there, of these tables; ``None`` otherwise."""
    there = Output(path.parent, path.name, "combined")
    try:
        sidecar = there.read_sidecar()
        check_table(path, there.table)
    except BidsRoiError:
        return None
    same = all(sidecar.get(k) == value for k, value in key.items())
    same &= ("RunsNotCombined" in sidecar) == ("RunsNotCombined" in key)
    return list(sidecar.get("Warnings", ())) if same and path.is_file() else None


def _read_kept(series: Output, names: tuple[str, ...]) -> FloatArray:
    """Kept volumes of a series, (n_kept, R); refused where its regions are others."""
    content = read_bytes(series.file)
    digest = hashlib.sha256(content).hexdigest()
    check_table(series.file, series.table, digest=digest)
    found, values = parse_matrix(content, series.file)
    if found != names:
        odd = sorted(set(found) ^ set(names))[:3]
        msg = (
            f"its {len(found)} regions are not the {len(names)} of the first run"
            f" ({', '.join(odd) or 'another order'}): the runs are not combined."
        )
        remedy = "Make all runs again with one atlas (--overwrite)."
        raise DataError(msg, where=series.path, remedy=remedy)
    n_kept = series.number("NumberOfVolumesKept")
    if n_kept is None or len(values) == n_kept:
        return values
    # Rows of censored volumes are there, blank or made up (--censored na, interpolate).
    entities = [
        e for e in series.name.entities if e[0] not in ("atlas", "seg", "scale", "stat")
    ]
    table = series.file.with_name(format_name(entities, "outliers", ".tsv"))
    kept = np.array([cell == "0" for cell in read_table(table)["outlier"]])
    if kept.size != len(values) or kept.sum() != n_kept:
        msg = f"it does not say which of {len(values)} volumes the {n_kept:g} kept are."
        raise DataError(msg, where=table, remedy="Make the run again (--overwrite).")
    return np.asarray(values[kept])


def _join_facts(sidecars: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What holds for all runs, and numbers of them all together."""
    first = sidecars[0]
    facts = {
        key: value
        for key, value in first.items()
        if KEYS[key].role != "measured"
        and all(sidecar.get(key) == value for sidecar in sidecars)
    }
    for key in ("Sources", "Warnings", "TableDigest"):
        facts.pop(key, None)
    for key in ("AtlasTransform", "AtlasTransformDigest"):  # may be a run's own
        if key in first and key not in facts:
            facts[key] = ", ".join(dict.fromkeys(str(s.get(key)) for s in sidecars))
    for key in _SUMS:
        if all(key in sidecar for sidecar in sidecars):
            facts[key] = round(sum(sidecar[key] for sidecar in sidecars), 6)
    for key, weight in _MEANS.items():
        if all(key in sidecar and weight in sidecar for sidecar in sidecars):
            total = sum(sidecar[weight] for sidecar in sidecars)
            summed = sum(sidecar[key] * sidecar[weight] for sidecar in sidecars)
            facts[key] = round(summed / total, 6)
    peak = "MaxFramewiseDisplacement"
    if all(peak in sidecar for sidecar in sidecars):
        facts[peak] = max(sidecar[peak] for sidecar in sidecars)
    return facts


def _tell_notes(family: _Family, related: Related) -> list[str]:
    notes = list(related.notes)
    if family.left_out:
        lacking = "; ".join(f"{r}: {why}" for r, why in sorted(family.left_out.items()))
        n_all = len(family.members) + len(family.left_out)
        notes.insert(
            0,
            f"the matrix over the runs holds {len(family.members)} of"
            f" {count_of(n_all, 'run')}, without {lacking}",
        )
    return notes


def _write(
    output_dir: Path,
    output: RelmatOutput,
    related: Related,
    names: tuple[str, ...],
    facts: Mapping[str, Any],
    sidecars: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> None:
    words = find_measure(output.measure).describe(fisher_z=output.fisher_z)
    text = (
        f"{words[0].upper()}{words[1:]} of each pair of regions over the kept volumes"
        f" of {count_of(len(sidecars), 'run')}, each z-scored over its own first; n/a"
        " for regions without signal in any of them."
    )
    content = {**facts, "Description": text}
    content["NumberOfRegionsLost"] = int(np.isnan(related.relmat).all(axis=0).sum())
    if find_measure(output.measure).is_correlation:
        content["NumberOfIdenticalEdges"] = related.n_identical
    if related.absent:
        content["ReasonNotAvailable"] = related.absent
    # Of warnings that differ in numbers only, that of the first run.
    said = dict.fromkeys(notes)
    shapes = {leave_out_numbers(note) for note in notes}
    for note in (note for sidecar in sidecars for note in sidecar.get("Warnings", ())):
        if (shape := leave_out_numbers(note)) not in shapes:
            shapes.add(shape)
            said[note] = None
    if said:
        content["Warnings"] = list(said)
    table = format_matrix(names, related.relmat, rows=names, corner=corner_of(names))
    Making(output_dir).write(output.path, table, "relmat", content)
