"""Matrices of the conditions of a task: made of the cleaned series that are on disk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.dataset.partners import find_events, find_raw, read_blocks
from bids_roi.errors import BidsRoiError, DataError, MissingInput, UsageError, count_of
from bids_roi.files.listing import hides_file, is_there
from bids_roi.files.matrices import corner_of, parse_matrix, read_bytes
from bids_roi.files.names import format_name, parse_name, sort_entities
from bids_roi.files.tables import file_digest, format_matrix, read_table
from bids_roi.options.words import find_measure, measure_of_word
from bids_roi.outputs.derivatives import RelmatOutput
from bids_roi.outputs.find import Output, find_outputs, find_stale
from bids_roi.outputs.records import (
    NO_ATLAS,
    Making,
    Record,
    check_table,
    digest_condition,
    forget_loss,
    read_all_records,
    write_records,
)
from bids_roi.participant.combined import (
    MOTION,
    Combined,
    is_asked,
    is_made_so,
    series_of_matrix,
)
from bids_roi.participant.results import Kept, relate_regions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.dataset.partners import Blocks
    from bids_roi.options.record import Options


# What the matrix of the whole run says of volumes that are not in it. Numbers become
# n/a: readers that inherit keys would take them from a sidecar with a shorter name.
_NOT_KNOWN = (
    *("EffectiveDegreesOfFreedom", "MeanFramewiseDisplacementKept", "LongestGap"),
    *("NumberOfGaps", "FDRegionalDVARSCorrelation"),
)
_OF_THE_WHOLE = (
    *("TableDigest", "Warnings", "ReasonNotAvailable", "NumberOfIdenticalEdges"),
)


def relate_conditions(
    output_dir: Path, root: Path, participant: str, options: Options
) -> Combined:
    """Make the matrices of conditions of ``sub-<label>``, of the series on disk.

    Of the sessions, tasks and runs that are asked for. ``root`` is that of the
    derivative, in or beside which the raw dataset is. What was made of the same tables
    is left as it is. What cannot be made is a failure under ``logs/``, and the others
    go on.
    """
    done = Combined()
    found = find_outputs(output_dir, participant)
    stale = find_stale(found, read_all_records(output_dir, participant))
    asked = set(options.connectivity.relmat)
    runs = [
        output
        for output in found
        if output.kind == "relmat"
        and measure_of_word(output.stat) in asked
        and is_asked(output, options, "ses", "task", "run")
        and not output.told.condition
        and output.told.error is None
        and output.path not in stale
        and is_made_so(output, options)
    ]
    try:
        raw = find_raw(root, options.connectivity.raw_dataset)
        if runs and not any(_has_events(raw, output) for output in runs):
            msg = f"no run of {participant} has an events.tsv."
            remedy = "Name the dataset that has them with --raw-dataset."
            raise MissingInput(msg, where=raw, remedy=remedy)
    except BidsRoiError as error:
        done.errors.append(f"{participant}: {error}")
        return done
    there = {output.path: output for output in found}
    for output in runs:
        loss = f"{output.path.removesuffix('.tsv')}_conditions"
        try:
            _relate_run(output, raw, options, done, there)
        except BidsRoiError as error:
            text = str(error)
            record = Record(loss, output.atlas_name or NO_ATLAS, "failed", text)
            write_records(output_dir, loss, [record])
            done.changed = True
            if text not in done.errors:
                done.errors.append(text)
        else:
            forget_loss(output_dir, loss)
    return done


def _has_events(raw: Path, output: Output) -> bool:
    """Whether a run has events; what keeps them from being found is told of it."""
    try:
        return find_events(raw, output.name) is not None
    except BidsRoiError:
        return True


def _relate_run(
    output: Output,
    raw: Path,
    options: Options,
    done: Combined,
    there: Mapping[str, Output],
) -> None:
    """Make the matrices of one run, from that of the whole run and its series.

    An error where it has not all conditions comes after those that it has.
    """
    events = find_events(raw, output.name)
    if events is None:
        done.notes.append("a run without events.tsv has no matrices of conditions.")
        return
    blocks, lacking = read_blocks(events, options.connectivity.conditions)
    series = series_of_matrix(output)
    source = f"{events.relative_to(raw).as_posix()} sha256:{file_digest(events)}"
    table = series.table or file_digest(series.file)
    inside: dict[str, NDArray[np.bool_]] = {}
    signals: NDArray[np.float64] | None = None
    names: tuple[str, ...] = ()
    paths = _name_all(output, tuple(blocks), there)
    shift = options.connectivity.condition_shift
    base = output.read_sidecar()
    for condition, path in paths.items():
        key: dict[str, Any] = {
            digest: digest_condition(base[digest], condition, shift)
            for digest in ("OptionsDigest", "SettingsDigest")
        }
        made = key | {"CombinedTables": [table], "ConditionEvents": source}
        known = made | {name: base.get(name) for name in MOTION}
        if _is_made(output.folder, path, known, overwrite=options.running.overwrite):
            continue
        if signals is None:
            signals, volumes, names = _read_kept(series)
            times = _times_of(series)
            inside = {
                word: np.array(own.choose(times, shift), dtype=bool)
                for word, own in blocks.items()
            }
        facts = {
            "Condition": condition,
            "ConditionShift": shift,
            "ConditionVolumes": int(inside[condition].sum()),
            "Sources": [f"bids::{series.path}"],
        }
        notes = _doubt_events(condition, blocks[condition], inside, times)
        mask = np.zeros_like(inside[condition])
        mask[volumes] = inside[condition][volumes]
        kept = _share_of(series.read_sidecar(), signals[mask[volumes]], mask)
        _write(output, path, kept, names, base, {**facts, **made}, notes, options)
        done.changed = True
        done.notes += notes
    if lacking is not None:
        raise lacking


def _name_all(
    output: Output, conditions: tuple[str, ...], there: Mapping[str, Output]
) -> dict[str, str]:
    """Paths by condition; refused where two, or a strategy, would share one."""
    paths: dict[str, str] = {}
    folder = output.path.rpartition("/")[0]
    for condition in conditions:
        word = re.sub(r"[^A-Za-z0-9]", "", condition)
        label = f"{output.desc}{word[:1].upper()}{word[1:]}"
        entities = [e for e in output.name.entities if e[0] != "desc"]
        name = sort_entities([*entities, ("desc", label)])
        path = f"{folder}/{format_name(name, output.name.suffix, '.tsv')}"
        other = there.get(path)
        taken = path in paths.values() or (other and not other.told.condition)
        if not word or taken:
            msg = f"condition {condition!r} would be desc-{label}, which is another's."
            remedy = "Rename it in events.tsv, or leave the other out."
            raise UsageError(msg, where=output.path, remedy=remedy)
        paths[condition] = path
    return paths


def _is_made(
    folder: Path, path: str, key: Mapping[str, Any], *, overwrite: bool
) -> bool:
    """Whether the matrix is there, of these tables; refused if of other settings."""
    there = Output(folder, path, "relmat")
    if overwrite or not is_there(there.file):
        return False
    try:
        sidecar = there.read_sidecar()
    except BidsRoiError as error:
        if hides_file(error):  # its settings may be others
            raise
        return False
    if sidecar.get("OptionsDigest") != key["OptionsDigest"]:
        msg = "the matrix that is there was made with another shift, or other options."
        remedy = "Choose another output folder, or replace it with --overwrite."
        raise DataError(msg, where=path, remedy=remedy)
    try:
        check_table(there.file, there.table)
    except DataError:
        return False
    return all(sidecar.get(k) == value for k, value in key.items())


def _read_kept(
    series: Output,
) -> tuple[NDArray[np.float64], NDArray[np.int64], tuple[str, ...]]:
    """Kept volumes (n_kept, R), their numbers in the run, and the regions' names."""
    names, values = parse_matrix(read_bytes(series.file), series.file)
    check_table(series.file, series.table)
    n_volumes = int(series.number("NumberOfVolumes") or len(values))
    n_kept = int(series.number("NumberOfVolumesKept") or len(values))
    kept = np.ones(n_volumes, dtype=bool)
    if n_kept != n_volumes:
        table = _outliers_of(series)
        kept = np.array([cell == "0" for cell in read_table(table)["outlier"]])
    if kept.sum() != n_kept or len(values) not in (n_kept, kept.size):
        msg = f"it does not say which of {n_volumes} volumes the {n_kept} kept are."
        raise DataError(msg, where=series.path, remedy="Make the run again.")
    rows = values if len(values) == n_kept else values[kept]
    return np.asarray(rows), np.flatnonzero(kept), names


def _outliers_of(series: Output) -> Path:
    left_out = ("atlas", "seg", "scale", "stat")
    entities = [e for e in series.name.entities if e[0] not in left_out]
    return series.file.with_name(format_name(entities, "outliers", ".tsv"))


def _times_of(series: Output) -> list[float]:
    """When each volume of the run was acquired, s from its first one's beginning."""
    told = series.read_sidecar()
    start = told.get("StartTime", 0)
    start = start if isinstance(start, int | float) else 0
    step = told.get("RepetitionTime", told.get("SourceRepetitionTime"))
    n_volumes = int(series.number("NumberOfVolumes") or 0)
    if step is not None:
        return [float(start + volume * step) for volume in range(n_volumes)]
    timing = told.get("VolumeTiming")
    if isinstance(timing, list) and len(timing) == n_volumes:
        return [float(start + time) for time in timing]
    msg = "the times of its volumes are not known: conditions need them."
    remedy = "Give the repetition time with --repetition-time, or --censored na."
    raise DataError(msg, where=series.path, remedy=remedy)


def _doubt_events(
    condition: str,
    blocks: Blocks,
    inside: Mapping[str, NDArray[np.bool_]],
    times: list[float],
) -> list[str]:
    """Say what is odd about the events of a condition."""
    notes = []
    if blocks.n_unusable:
        notes.append(
            f"condition {condition}: {count_of(blocks.n_unusable, 'event')} without an"
            " onset or a duration above 0: they choose no volume."
        )
    late = sum(onset > times[-1] for onset, _ in blocks.spans)
    if late:
        notes.append(
            f"condition {condition}: {count_of(late, 'event')} after the last volume"
            f" ({times[-1]:g} s). Are the onsets in s?"
        )
    for other, mine in inside.items():
        shared = int((mine & inside[condition]).sum())
        if other != condition and shared:
            notes.append(
                f"condition {condition} shares {count_of(shared, 'volume')} with"
                f" {other}: they are in both matrices."
            )
    return notes


def _share_of(
    told: Mapping[str, Any], signals: NDArray[np.float64], mask: NDArray[np.bool_]
) -> Kept:
    """Some volumes of a run: cleaning has cost every kept volume the same share."""
    whole = told["NumberOfVolumesKept"]
    share = len(signals) / whole if whole else 0.0
    left, effective = (
        value * share if isinstance(value, int | float) else float("nan")
        for value in map(told.get, ("DegreesOfFreedom", "EffectiveDegreesOfFreedom"))
    )
    uneven = "VolumeTiming" in told and "SourceRepetitionTime" not in told
    return Kept(signals, mask, left, effective, is_even=not uneven)


def _write(
    output: Output,
    path: str,
    kept: Kept,
    names: tuple[str, ...],
    base: Mapping[str, Any],
    facts: dict[str, Any],
    notes: list[str],
    options: Options,
) -> None:
    """Write a matrix and its sidecar; what it adds to the notes is told."""
    whole = base["NumberOfVolumesKept"]
    label = parse_name(path).get("desc")
    measure = measure_of_word(output.stat)
    scaled = options.connectivity.fisher_z and find_measure(measure).is_correlation
    matrix = RelmatOutput(measure, scaled, label, "", "", path)
    related = relate_regions(kept, matrix, options)
    notes += related.notes
    content = {k: v for k, v in base.items() if k not in _OF_THE_WHOLE} | facts
    content |= {k: "n/a" for k in _NOT_KNOWN if k in content}
    content["Description"] = (
        f"{base['Description']} Volumes of condition {facts['Condition']} alone."
    )
    n_kept = len(kept.signals)
    content["NumberOfVolumesKept"] = n_kept
    if "SecondsKept" in base:
        content["SecondsKept"] = round(base["SecondsKept"] * n_kept / whole, 3)
    content["DegreesOfFreedom"] = round(kept.freedom, 3)
    content |= related.facts
    if find_measure(measure).is_correlation:
        content["NumberOfIdenticalEdges"] = related.n_identical
    if related.absent:
        content["ReasonNotAvailable"] = related.absent
    if said := list(dict.fromkeys([*base.get("Warnings", ()), *notes])):
        content["Warnings"] = said
    table = format_matrix(names, related.relmat, rows=names, corner=corner_of(names))
    Making(output.folder).write(path, table, "relmat", content)
