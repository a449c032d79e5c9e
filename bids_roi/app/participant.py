"""One BOLD run through everything: mask, reduction, quality, files."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.app.cleaning import CleanedSeries, Preparation, clean_series, prepare
from bids_roi.app.extraction import partition_grid, read_mask_of, reduce_image
from bids_roi.app.plan import fingerprint
from bids_roi.app.records import Record, write_records
from bids_roi.app.resume import find_complete
from bids_roi.core.quality import assess_regions, temporal_snr
from bids_roi.errors import BidsRoiError, ImageError
from bids_roi.io.confounds.strategy_format import Strategy, describe_strategy
from bids_roi.io.dataset.layout import find_aroma_confounds
from bids_roi.io.outputs.derivatives import (
    describe_run,
    options_digest,
    write_outliers,
    write_quality,
    write_timeseries,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.app.plan import PlannedRun
    from bids_roi.core.partition import Partition
    from bids_roi.core.quality import RegionQuality
    from bids_roi.core.reduce import Reduction
    from bids_roi.io.atlases.shelf import Atlas
    from bids_roi.io.dataset.layout import BoldRun
    from bids_roi.io.images import BoldImage
    from bids_roi.io.outputs.names import RunOutputs, SeriesOutput
    from bids_roi.options.record import Options

__all__ = ["fail_run", "process_run"]


@dataclass(frozen=True, slots=True)
class _Job:
    """What the steps of one run need to know."""

    planned: PlannedRun
    options: Options
    strategies: tuple[Strategy | None, ...]
    output_dir: Path
    inputs: tuple[str, ...]

    @property
    def image(self) -> BoldImage:
        """The header; a plan without one has an error and was refused before."""
        if self.planned.image is None:
            msg = "the header was not read."
            raise ImageError(msg, where=self.planned.run.relative_path)
        return self.planned.image

    def digest(self, atlas: Atlas, label: str | None) -> str:
        """Digest of an output; that of raw signals knows nothing of cleaning."""
        options = self.options
        for strategy in self.strategies:
            if label is not None and strategy is not None and strategy.label == label:
                cleaning = [
                    describe_strategy(strategy),
                    options.censored,
                    options.high_variance_confounds,
                    options.allow_missing_confounds,
                    options.aroma_dataset is not None,
                ]
                return options_digest(options, atlas, *cleaning)
        return options_digest(options, atlas)


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
    records = [
        Record(run.relative_path, name, "skipped", str(why))
        for name, why in planned.refused
    ]
    inputs = _fingerprint_inputs(planned, options)
    job = _Job(planned, options, strategies, output_dir, inputs)
    work: list[tuple[Atlas, RunOutputs]] = []
    for atlas, names in planned.atlases:
        digests = {names.regions: job.digest(atlas, None)}
        digests |= {t.path: job.digest(atlas, t.label) for t in names.timeseries}
        record = None
        if not options.overwrite:
            record = find_complete(
                run.relative_path, atlas.name, digests, inputs, output_dir
            )
        if record is None:
            work.append((atlas, names))
        else:
            records.append(record)
    if work:
        records.extend(_extract(job, work))
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
        for name in asked or ["n/a"]
    ]
    write_records(output_dir, run, records)
    return records


def _extract(job: _Job, work: list[tuple[Atlas, RunOutputs]]) -> list[Record]:
    began = time.monotonic()
    planned, options, image = job.planned, job.options, job.image
    preparations = {
        strategy.label: prepare(
            planned.run,
            strategy,
            options,
            n_volumes=image.source.n_volumes,
            repetition_time=planned.repetition_time,
        )
        for strategy in job.strategies
        if strategy is not None
    }
    keys = tuple((a.image_path, a.image_digest, a.kind) for a, _ in work)
    indices = tuple(atlas.regions.index for atlas, _ in work)
    partition = partition_grid(keys, indices, image.grid)
    in_mask = read_mask_of(planned.mask_path, image.grid, partition)
    reduction, high_variance = reduce_image(image, partition, in_mask, options)
    records = []
    for number, (atlas, names) in enumerate(work):
        quality = _assess(partition, number, in_mask, reduction, options)
        signals = {
            name: values
            for name, arrays in reduction.signals.items()
            if (values := arrays[number]) is not None
        }
        for values in signals.values():
            values[:, ~quality.usable] = np.nan
        cleaned = {
            series: clean_series(
                signals[series.statistic],
                preparations[series.label],
                options,
                run=planned.run,
                repetition_time=planned.repetition_time,
                high_variance=high_variance,
            )
            for series in names.timeseries
            if series.label is not None
        }
        record = _write(job, atlas, names, quality, signals, cleaned)
        seconds = round(time.monotonic() - began, 3)
        memory = _peak_memory()
        records.append(replace(record, seconds=seconds, peak_memory_bytes=memory))
    for label, name in work[0][1].outliers:
        _write_outliers(job.output_dir / name, preparations[label])
    return records


def _write(
    job: _Job,
    atlas: Atlas,
    names: RunOutputs,
    quality: RegionQuality,
    signals: dict[str, NDArray[np.float64]],
    cleaned: dict[SeriesOutput, CleanedSeries],
) -> Record:
    """Write the files of one run and atlas."""
    planned = job.planned
    notes = planned.warnings + atlas.warnings
    common = describe_run(
        planned.run,
        atlas,
        job.options,
        grid=job.image.grid,
        n_volumes=job.image.source.n_volumes,
        mask_path=planned.mask_path,
        repetition_time=planned.repetition_time,
        notes=notes,
    )
    mean = signals["weighted_mean" if atlas.kind == "probseg" else "mean"]
    level, deviation = mean.mean(axis=0), mean.std(axis=0, ddof=1)
    levels = {
        "mean": level,
        "standard_deviation": deviation,
        "tsnr": temporal_snr(level, deviation),
    }
    path = job.output_dir / names.regions
    write_quality(path, quality, levels, atlas=atlas, common=common)
    said = list(notes)
    for series in names.timeseries:
        clean = cleaned.get(series)
        facts = None
        if clean is not None:
            facts = {**clean.facts, "OptionsDigest": job.digest(atlas, series.label)}
            facts["Sources"] = [*common["Sources"], *_confounds_uri(planned.run)]
            if notes or clean.notes:
                facts["Warnings"] = [*notes, *clean.notes]
            said += [note for note in clean.notes if note not in said]
        write_timeseries(
            job.output_dir / series.path,
            signals[series.statistic] if clean is None else clean.signals,
            statistic=series.statistic,
            atlas=atlas,
            common=common,
            facts=facts,
        )
    return Record(
        run=planned.run.relative_path,
        atlas=atlas.name,
        status="done",
        warnings=tuple(said),
        digest=common["OptionsDigest"],
        inputs=job.inputs,
        outputs=names.tables,
        n_regions=len(quality.status),
        n_lost=sum(word != "ok" for word in quality.status),
        coverage=round(float(quality.coverage.mean()), 4),
    )


def _confounds_uri(run: BoldRun) -> list[str]:
    path = run.confounds_path
    if path is None:
        return []
    return [f"bids:preprocessed:{path.relative_to(run.root).as_posix()}"]


def _write_outliers(path: Path, preparation: Preparation) -> None:
    """Write why each volume was kept or not."""
    censoring = preparation.censoring
    mask = censoring.sample_mask
    words = ("dummy", "fd", "std_dvars", "neighbour", "short_segment")
    why = [
        ",".join(word for word in words if getattr(censoring, word)[t])
        for t in range(mask.size)
    ]
    blank = np.full(mask.size, np.nan)
    fd, dvars = preparation.fd, preparation.dvars
    columns = {
        "kept": mask.astype(int).tolist(),
        "dummy": censoring.dummy.astype(int).tolist(),
        "framewise_displacement": (blank if fd is None else fd).tolist(),
        "std_dvars": (blank if dvars is None else dvars).tolist(),
        "why": why,
    }
    name = preparation.strategy.name
    write_outliers(path, columns, strategy=name, n_kept=int(mask.sum()))


def _assess(
    partition: Partition,
    number: int,
    in_mask: NDArray[np.bool_],
    reduction: Reduction,
    options: Options,
) -> RegionQuality:
    return assess_regions(
        n_voxels_atlas=partition.maps[number].n_voxels_atlas,
        n_voxels_grid=partition.count(number, np.ones_like(in_mask)),
        n_voxels_mask=partition.count(number, in_mask),
        n_voxels_finite=partition.count(number, reduction.finite),
        n_voxels_used=partition.count(number, reduction.usable),
        coverage=partition.coverage(number, reduction.usable),
        min_coverage=options.min_coverage,
    )


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
