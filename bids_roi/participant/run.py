"""One BOLD run through everything: mask, reduction, quality, files."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.quality import assess_regions
from bids_roi.core.signals import weights_cancel
from bids_roi.dataset.layout import find_aroma_confounds
from bids_roi.errors import BidsRoiError, OutputError, SpaceMismatch
from bids_roi.files.tables import read_json
from bids_roi.outputs.names import sidecar_of
from bids_roi.outputs.records import (
    NO_ATLAS,
    RAW,
    Record,
    check_inside,
    read_records,
    write_records,
)
from bids_roi.participant.cleaning import build_cleaner, clean_series, prepare
from bids_roi.participant.connectivity import settings_of
from bids_roi.participant.differences import tell_differences
from bids_roi.participant.extraction import partition_grid, read_mask_of, reduce_image
from bids_roi.participant.pictures import Sketch, are_drawn
from bids_roi.participant.plan import fingerprint
from bids_roi.participant.results import (
    AtlasResult,
    Job,
    digests_of,
    failed_record,
    read_motion,
    write_outlier_table,
    write_result,
)
from bids_roi.participant.signal_checks import warn_of_voxels

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas
    from bids_roi.confounds.strategy_format import Strategy
    from bids_roi.core.clean import Cleaner
    from bids_roi.core.mean_image import MeanImage
    from bids_roi.core.partition import Partition
    from bids_roi.core.quality import RegionQuality
    from bids_roi.core.reduce import Reduction
    from bids_roi.options.record import Options
    from bids_roi.outputs.names import RunOutputs
    from bids_roi.participant.cleaning import Preparation
    from bids_roi.participant.plan import PlannedRun


class OtherSettings(OutputError):
    """Outputs are there that were made with other settings: nothing is touched."""


class OtherAtlas(OtherSettings):
    """They were made with an earlier segmentation of the participant."""


def check_run(job: Job) -> None:
    """Refuse a run of which outputs are there that were made with other settings.

    Raises
    ------
    OtherSettings
        With what differs.
    """
    for atlas, names in job.planned.atlases:
        for label in names.labels:
            _check_strategy(job, atlas, names.only((label,)))


def find_complete(
    job: Job, atlas: Atlas, names: RunOutputs
) -> dict[str | None, Record]:
    """Find the strategies of which nothing is left to do.

    Parameters
    ----------
    job
        The run and what is asked for.
    atlas, names
        One of its atlases, and all outputs that it is to have.

    Returns
    -------
    dict
        Records with the status ``complete`` by label; the outputs of the other
        strategies, or their figures, have to be made (again).

    Raises
    ------
    OtherSettings
        With what differs, where outputs are there that were made with other settings.
    """
    records = read_records(job.output_dir, job.planned.run.relative_path)
    found: dict[str | None, Record] = {}
    for label in names.labels:
        own = names.only((label,))
        if _check_strategy(job, atlas, own):
            key = (atlas.name, label or RAW)
            record = _find_record(records, key, own.tables, job.inputs)
            if record is not None and _keeps_enough(job, own):
                found[label] = record
    drawn = job.options.no_report or are_drawn(job, names.only(found))
    return found if drawn else {}


def _keeps_enough(job: Job, names: RunOutputs) -> bool:
    """Whether the outputs keep what is asked for now, which no digest holds.

    Where they do not, the run is made again, and so is found out and told.
    """
    asked = {
        "NumberOfVolumesKept": job.options.min_volumes,
        "SecondsKept": job.options.min_time,
    }
    least = {key: needed for key, needed in asked.items() if needed is not None}
    for series in names.timeseries:
        if series.label is not None and least:
            sidecar = read_json(job.output_dir / sidecar_of(series.path))
            if any(sidecar.get(key, 0) < needed for key, needed in least.items()):
                return False
    return True


def _check_strategy(job: Job, atlas: Atlas, names: RunOutputs) -> bool:
    """Whether all tables of a strategy are there; refuse those of other settings."""
    digests = digests_of(job, atlas, names)
    there = [table for table in digests if (job.output_dir / table).exists()]
    for table in there:
        try:
            sidecar = read_json(job.output_dir / sidecar_of(table))
        except (BidsRoiError, OSError):
            return False  # half a pair: made again
        if sidecar.get("OptionsDigest") != digests[table]:
            raise _explain(job, atlas, names, table, sidecar)
    return len(there) == len(digests)


def _explain(
    job: Job, atlas: Atlas, names: RunOutputs, table: str, sidecar: Mapping[str, Any]
) -> OtherSettings:
    relmat = next((r for r in names.relmats if r.path == table), None)
    series = next((s for s in names.timeseries if s.path == table), relmat)
    found = tell_differences(
        sidecar,
        options=job.options,
        strategy=job.strategy(series.label) if series is not None else None,
        atlas=atlas,
        more=settings_of(relmat, job.options) if relmat is not None else {},
    )
    own = atlas.source.startswith("bids:preprocessed:sub-")
    kind = OtherAtlas if own and found.of_atlas else OtherSettings
    remedy = "Choose another output folder, or replace them with --overwrite."
    return kind(f"outputs are there that {found.text}.", where=table, remedy=remedy)


def _find_record(
    records: Iterable[Record],
    key: tuple[str, str],
    tables: Collection[str],
    inputs: tuple[str, ...],
) -> Record | None:
    """The record of tables that are there, if they were made of the same input."""
    for record in records:
        same = record.key in (key, (key[0], "")) and record.inputs == inputs
        # A table that the record does not name may be of an earlier input.
        if same and record.status == "done" and set(tables) <= set(record.outputs):
            return replace(
                record,
                status="complete",
                strategy=key[1],
                seconds=0.0,
                peak_memory_bytes=0,
            )
    return None


def process_run(
    planned: PlannedRun,
    *,
    options: Options,
    output_dir: Path,
    strategies: tuple[Strategy | None, ...] = (None,),
) -> list[Record]:
    """Make all outputs of a run.

    Parameters
    ----------
    planned
        The run, its atlases and the names of their outputs.
    options
        What was asked for.
    output_dir
        Where the outputs go.
    strategies
        Of denoising; ``None`` for raw signals.

    Returns
    -------
    list
        One record per atlas and strategy asked for; also written under ``logs/``. A
        strategy that cannot be carried out costs its own outputs only.

    Raises
    ------
    BidsRoiError
        If the run cannot be processed; nothing of it is left half-written.
        ``OtherSettings`` where it must not be: nothing was touched then.
    """
    if planned.error is not None:
        raise planned.error
    run = planned.run
    check_inside((output_dir / run.relative_path).parent, output_dir)
    labels = _labels(strategies)
    records = [
        Record(run.relative_path, name, _word_of(why), str(why), strategy=label or RAW)
        for name, why in planned.refused
        for label in labels
    ]
    inputs = _fingerprint_inputs(planned, options)
    job = Job(planned, options, strategies, output_dir, inputs)
    if not options.overwrite:
        check_run(job)
    work: list[tuple[Atlas, RunOutputs]] = []
    there: set[tuple[str, str | None]] = set()
    for atlas, names in planned.atlases:
        complete = {} if options.overwrite else find_complete(job, atlas, names)
        records.extend(complete.values())
        there.update((atlas.name, label) for label in complete)
        left = [label for label in names.labels if label not in complete]
        if left:
            work.append((atlas, names.only(left)))
    if work:
        records.extend(_make(job, work, there))
    write_records(
        output_dir,
        run.relative_path,
        [record for record in records if record.status != "complete"],
    )
    return records


def _word_of(why: BidsRoiError) -> str:
    """Another space is no fault; an atlas that is damaged or missing is one."""
    return "skipped" if isinstance(why, SpaceMismatch) else "failed"


def _labels(strategies: tuple[Strategy | None, ...]) -> tuple[str | None, ...]:
    return tuple(None if s is None else s.label for s in strategies)


def _fingerprint_inputs(planned: PlannedRun, options: Options) -> tuple[str, ...]:
    """Everything that is read for a run: files, and what their sidecars say."""
    run = planned.run
    confounds, aroma = run.confounds_path, None
    if options.aroma_dataset is not None:
        aroma = find_aroma_confounds(options.aroma_dataset, run)
    described = confounds.with_suffix(".json") if confounds is not None else None
    paths = (run.path, planned.mask_path, confounds, described, aroma)
    said = json.dumps(dict(run.metadata), sort_keys=True, default=str)
    return (
        *(fingerprint(p) for p in paths if p is not None and p.exists()),
        hashlib.sha256(said.encode()).hexdigest()[:12],
        f"repetition time {planned.repetition_time}",
    )


def fail_run(
    planned: PlannedRun,
    error: BaseException,
    *,
    output_dir: Path,
    strategies: tuple[Strategy | None, ...] = (None,),
    on_disk: bool = True,
) -> list[Record]:
    """Record that a run failed, and why; not on disk where it was left as it is."""
    asked = [atlas.name for atlas, _ in planned.atlases]
    asked += [name for name, _ in planned.refused]
    run = planned.run.relative_path
    known = isinstance(error, BidsRoiError)
    reason = str(error) if known else f"{type(error).__name__}: {error}"
    records = [
        Record(run, name, "failed", reason, planned.warnings, strategy=label or RAW)
        for name in asked
        for label in _labels(strategies)
    ]
    if not asked:
        records = [Record(run, NO_ATLAS, "failed", reason, planned.warnings)]
    if on_disk:
        write_records(output_dir, run, records)
    return records


def _make(
    job: Job,
    work: list[tuple[Atlas, RunOutputs]],
    there: Collection[tuple[str, str | None]],
) -> list[Record]:
    """Extract and write, atlas by atlas; ``there`` has what is done: (atlas, label)."""
    began = time.monotonic()
    outliers: dict[str, str] = {}
    records: list[Record] = []
    preparations, failed = prepare_cleaning(
        job, {label for _, names in work for label in names.labels}
    )
    possible = []
    for atlas, names in work:
        records += [
            failed_record(job, atlas, label, error)
            for label, error in failed.items()
            if label in names.labels
        ]
        if left := [label for label in names.labels if label not in failed]:
            possible.append((atlas, names.only(left)))
    if not possible:
        return records
    motion = read_motion(job.planned.run, job.image.source.n_volumes)
    sketch = None if job.options.no_report else Sketch(job)
    mean = None if sketch is None else sketch.mean
    whole = {atlas for atlas, _ in there}
    for result in extract_atlases(job, possible, preparations, mean=mean):
        with_regions = result.atlas.name not in whole
        found = write_result(job, result, motion, with_regions=with_regions)
        if sketch is not None and result.names.labels:
            sketch.draw_atlas(result, preparations)
        outliers.update(result.names.outliers)
        seconds = round(time.monotonic() - began, 3)
        memory = _peak_memory()
        records += [
            replace(record, seconds=seconds, peak_memory_bytes=memory)
            for record in found
        ]
    for label, name in outliers.items():
        write_outlier_table(job.output_dir / name, preparations[label])
    if sketch is None:
        return records
    if outliers or not any(label for _, label in there):
        sketch.draw_motion(motion, outliers, preparations)
    return [replace(r, warnings=(*r.warnings, *sketch.notes)) for r in records]


def prepare_cleaning(
    job: Job, labels: Collection[str | None]
) -> tuple[dict[str, Preparation], dict[str, BidsRoiError]]:
    """Choose regressors and volumes for each strategy.

    Parameters
    ----------
    job
        The run and what is asked for.
    labels
        Of the strategies to prepare; ``None``, raw signals, needs nothing.

    Returns
    -------
    preparations
        By the label of the strategy.
    failed
        Why the others cannot be carried out: what they need is not there, or too little
        is left.
    """
    preparations: dict[str, Preparation] = {}
    failed: dict[str, BidsRoiError] = {}
    for strategy in job.strategies:
        if strategy is None or strategy.label not in labels:
            continue
        try:
            preparations[strategy.label] = prepare(
                job.planned.run,
                strategy,
                job.options,
                n_volumes=job.image.source.n_volumes,
                repetition_time=job.planned.repetition_time,
            )
        except BidsRoiError as error:
            failed[strategy.label] = error
    return preparations, failed


def extract_atlases(
    job: Job,
    work: list[tuple[Atlas, RunOutputs]],
    preparations: Mapping[str, Preparation],
    *,
    mean: MeanImage | None = None,
) -> Iterator[AtlasResult]:
    """Reduce a run for all its atlases in one pass, and clean the signals.

    Parameters
    ----------
    job
        The run and what is asked for.
    work
        Atlases and the names of their outputs.
    preparations
        Of ``prepare_cleaning``.
    mean
        Is fed with the run's volumes in passing.

    Yields
    ------
    AtlasResult
        In the order of ``work``; without the strategies that cannot be carried out.
    """
    planned, options, image = job.planned, job.options, job.image
    keys = tuple((a.image_path, a.image_digest, a.kind) for a, _ in work)
    indices = tuple(atlas.regions.index for atlas, _ in work)
    partition = partition_grid(keys, indices, image.grid)
    inside = read_mask_of(planned.mask_path, image.grid)
    reduction, high_variance = reduce_image(
        image, partition, inside, options, mean=mean
    )
    cleaners, failed = _build_cleaners(job, preparations, high_variance)
    in_mask = inside[partition.voxels]
    for number, (atlas, names) in enumerate(work):
        quality = _assess(partition, number, in_mask, reduction, options)
        signals = {
            name: values
            for name, arrays in reduction.signals.items()
            if (values := arrays[number]) is not None
        }
        for values in signals.values():
            values[:, ~quality.has_voxels] = np.nan
        made = names.only([label for label in names.labels if label not in failed])
        cleaned = {
            series: clean_series(
                signals[series.statistic],
                cleaners[series.label],
                preparations[series.label],
                options,
                high_variance=high_variance is not None,
            )
            for series in made.timeseries
            if series.label is not None
        }
        yield AtlasResult(
            atlas=atlas,
            names=made,
            mapped=partition.maps[number],
            quality=quality,
            signals=signals,
            cleaned=cleaned,
            failed={k: why for k, why in failed.items() if k in names.labels},
            maps=reduction.solvers[number],
            notes=warn_of_voxels(reduction, partition, number),
        )


def _build_cleaners(
    job: Job,
    preparations: Mapping[str, Preparation],
    high_variance: NDArray[np.float64] | None,
) -> tuple[dict[str, Cleaner], dict[str, BidsRoiError]]:
    """What each strategy does to the signals; of those that cannot be, why."""
    cleaners: dict[str, Cleaner] = {}
    failed: dict[str, BidsRoiError] = {}
    for label, preparation in preparations.items():
        try:
            cleaners[label] = build_cleaner(
                preparation,
                run=job.planned.run,
                repetition_time=job.planned.repetition_time,
                high_variance=high_variance,
            )
        except BidsRoiError as error:
            failed[label] = error
    return cleaners, failed


def _assess(
    partition: Partition,
    number: int,
    in_mask: NDArray[np.bool_],
    reduction: Reduction,
    options: Options,
) -> RegionQuality:
    cancel = None
    mapped = partition.maps[number]
    if not mapped.hard and options.map_statistic[0] == "weighted_mean":
        cancel = weights_cancel(partition.members[number], reduction.usable)
    return assess_regions(
        n_voxels_atlas=mapped.n_voxels_atlas,
        n_voxels_grid=partition.count(number, np.ones_like(in_mask)),
        n_voxels_mask=partition.count(number, in_mask),
        n_voxels_finite=partition.count(number, reduction.finite),
        n_voxels_dropout=partition.count(number, reduction.dropout),
        n_voxels_used=partition.count(number, reduction.usable),
        coverage=partition.coverage(number, reduction.usable),
        min_coverage=options.min_coverage,
        weights_cancel=cancel,
    )


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
