"""One BOLD run through everything: mask, reduction, quality, files."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.app.cleaning import clean_series, prepare
from bids_roi.app.extraction import partition_grid, read_mask_of, reduce_image
from bids_roi.app.pictures import Sketch, are_drawn
from bids_roi.app.plan import fingerprint
from bids_roi.app.records import NO_ATLAS, Record, check_inside, write_records
from bids_roi.app.results import (
    AtlasResult,
    Job,
    digests_of,
    write_outlier_table,
    write_result,
)
from bids_roi.app.resume import find_complete
from bids_roi.app.run_quality import read_motion
from bids_roi.app.signal_checks import clear_dead_regions, warn_of_voxels
from bids_roi.core.mapping import WeightMap
from bids_roi.core.quality import assess_regions
from bids_roi.core.signals import weights_cancel
from bids_roi.errors import BidsRoiError
from bids_roi.io.dataset.layout import find_aroma_confounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.app.cleaning import Preparation
    from bids_roi.app.plan import PlannedRun
    from bids_roi.core.mean_image import MeanImage
    from bids_roi.core.partition import Partition
    from bids_roi.core.quality import RegionQuality
    from bids_roi.core.reduce import Reduction
    from bids_roi.io.atlases.shelf import Atlas
    from bids_roi.io.confounds.strategy_format import Strategy
    from bids_roi.io.outputs.names import RunOutputs
    from bids_roi.options.record import Options

__all__ = ["extract_atlases", "fail_run", "prepare_cleaning", "process_run"]


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
        One record per atlas asked for; also written under ``logs/``.

    Raises
    ------
    BidsRoiError
        If the run cannot be processed; nothing of it is left half-written.
    """
    if planned.error is not None:
        raise planned.error
    run = planned.run
    check_inside((output_dir / run.relative_path).parent, output_dir)
    records = [
        Record(run.relative_path, name, "skipped", str(why))
        for name, why in planned.refused
    ]
    inputs = _fingerprint_inputs(planned, options)
    job = Job(planned, options, strategies, output_dir, inputs)
    work: list[tuple[Atlas, RunOutputs]] = []
    for atlas, names in planned.atlases:
        digests = digests_of(job, atlas, names)
        record = None
        if not options.overwrite:
            record = find_complete(
                run.relative_path, atlas.name, digests, inputs, output_dir
            )
        if record is None or not (options.no_report or are_drawn(job, names)):
            work.append((atlas, names))
        else:
            records.append(record)
    if work:
        records.extend(_make(job, work))
    write_records(
        output_dir,
        run.relative_path,
        [record for record in records if record.status != "complete"],
    )
    return records


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
    planned: PlannedRun, error: BaseException, *, output_dir: Path
) -> list[Record]:
    """Record that a run failed, and why."""
    asked = [atlas.name for atlas, _ in planned.atlases]
    asked += [name for name, _ in planned.refused]
    run = planned.run.relative_path
    known = isinstance(error, BidsRoiError)
    reason = str(error) if known else f"{type(error).__name__}: {error}"
    records = [
        Record(run, name, "failed", reason, planned.warnings)
        for name in asked or [NO_ATLAS]
    ]
    write_records(output_dir, run, records)
    return records


def _make(job: Job, work: list[tuple[Atlas, RunOutputs]]) -> list[Record]:
    """Extract and write, atlas by atlas."""
    began = time.monotonic()
    preparations = prepare_cleaning(job)
    motion = read_motion(job.planned.run, job.image.source.n_volumes)
    sketch = None if job.options.no_report else Sketch(job)
    mean = None if sketch is None else sketch.mean
    records = []
    for result in extract_atlases(job, work, preparations, mean=mean):
        record = write_result(job, result, motion)
        if sketch is not None:
            sketch.draw_atlas(result, preparations)
        seconds = round(time.monotonic() - began, 3)
        memory = _peak_memory()
        records.append(replace(record, seconds=seconds, peak_memory_bytes=memory))
    names = work[0][1]
    for label, name in names.outliers:
        write_outlier_table(job.output_dir / name, preparations[label])
    if sketch is None:
        return records
    sketch.draw_motion(motion, names, preparations)
    return [replace(r, warnings=(*r.warnings, *sketch.notes)) for r in records]


def prepare_cleaning(job: Job) -> dict[str, Preparation]:
    """Choose regressors and volumes for each strategy, by its label.

    Raises
    ------
    MissingInput, ConfoundsError
        If what a strategy needs is not there, or too little is left.
    """
    return {
        strategy.label: prepare(
            job.planned.run,
            strategy,
            job.options,
            n_volumes=job.image.source.n_volumes,
            repetition_time=job.planned.repetition_time,
        )
        for strategy in job.strategies
        if strategy is not None
    }


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
        In the order of ``work``.
    """
    planned, options, image = job.planned, job.options, job.image
    keys = tuple((a.image_path, a.image_digest, a.kind) for a, _ in work)
    indices = tuple(atlas.regions.index for atlas, _ in work)
    partition = partition_grid(keys, indices, image.grid)
    inside = read_mask_of(planned.mask_path, image.grid)
    reduction, high_variance = reduce_image(
        image, partition, inside, options, mean=mean
    )
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
        cleaned = {
            series: clear_dead_regions(
                clean_series(
                    signals[series.statistic],
                    preparations[series.label],
                    options,
                    run=planned.run,
                    repetition_time=planned.repetition_time,
                    high_variance=high_variance,
                ),
                signals[series.statistic],
            )
            for series in names.timeseries
            if series.label is not None
        }
        yield AtlasResult(
            atlas=atlas,
            names=names,
            mapped=partition.maps[number],
            quality=quality,
            signals=signals,
            cleaned=cleaned,
            maps=reduction.solvers[number],
            notes=warn_of_voxels(reduction, partition, number),
        )


def _assess(
    partition: Partition,
    number: int,
    in_mask: NDArray[np.bool_],
    reduction: Reduction,
    options: Options,
) -> RegionQuality:
    cancel = None
    mapped = partition.maps[number]
    if isinstance(mapped, WeightMap) and options.map_statistic[0] == "weighted_mean":
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
