"""One BOLD run through everything: mask, reduction, quality, files."""

from __future__ import annotations

import dataclasses
import functools
import resource
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.app.plan import fingerprint
from bids_roi.app.records import Record, read_records, record_path, write_records
from bids_roi.core.grid import Grid, resample_labels
from bids_roi.core.partition import Partition, build_partition, map_regions
from bids_roi.core.quality import assess_regions, temporal_snr
from bids_roi.core.reduce import reduce_run
from bids_roi.errors import BidsRoiError, DataError, ImageError, OutputError
from bids_roi.io.atlases import load_atlas_labels
from bids_roi.io.derivatives import (
    describe_run,
    options_digest,
    sidecar_of,
    write_quality,
    write_timeseries,
)
from bids_roi.io.images import read_mask
from bids_roi.io.stream import read_blocks
from bids_roi.io.tables import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.app.plan import PlannedRun
    from bids_roi.core.quality import RegionQuality
    from bids_roi.core.reduce import Reduction
    from bids_roi.io.atlases import Atlas
    from bids_roi.io.derivatives import RunOutputs
    from bids_roi.io.images import BoldImage
    from bids_roi.options import Options

__all__ = ["fail_run", "process_run"]


def process_run(
    planned: PlannedRun, *, options: Options, output_dir: Path
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
    paths = [p for p in (run.path, planned.mask_path) if p is not None]
    inputs = tuple(fingerprint(path) for path in paths)
    work: list[tuple[Atlas, RunOutputs]] = []
    for atlas, names in planned.atlases:
        record = _find_complete(planned, atlas, names, inputs, options, output_dir)
        if record is not None:
            records.append(record)
        else:
            work.append((atlas, names))
    if work:
        records.extend(_extract(planned, work, inputs, options, output_dir))
    write_records(
        output_dir,
        run.relative_path,
        [record for record in records if record.status != "complete"],
    )
    return records


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


def _find_complete(
    planned: PlannedRun,
    atlas: Atlas,
    names: RunOutputs,
    inputs: tuple[str, ...],
    options: Options,
    output_dir: Path,
) -> Record | None:
    """Record of outputs that are there and right; refuse those of other options."""
    tables = [names.regions, *(name for _, name in names.timeseries)]
    there = [table for table in tables if (output_dir / table).exists()]
    if not there or options.overwrite:
        return None
    digest = options_digest(options, atlas)
    for table in there:
        try:
            found = read_json(output_dir / sidecar_of(table)).get("OptionsDigest")
        except (BidsRoiError, OSError):
            return None  # half a pair: made again
        if found != digest:
            msg = (
                "the output is there, made with other options, another version or"
                f" another atlas file (digest {found}, now {digest})."
            )
            remedy = "Choose another output folder, or replace it with --overwrite."
            raise OutputError(msg, where=table, remedy=remedy)
    earlier = read_records(record_path(output_dir, planned.run.relative_path))
    for record in earlier:
        same = record.atlas == atlas.name and record.inputs == inputs
        if same and record.status == "done" and len(there) == len(tables):
            return Record(
                record.run,
                record.atlas,
                "complete",
                n_regions=record.n_regions,
                n_lost=record.n_lost,
                coverage=record.coverage,
                warnings=record.warnings,
            )
    return None


def _extract(
    planned: PlannedRun,
    work: list[tuple[Atlas, RunOutputs]],
    inputs: tuple[str, ...],
    options: Options,
    output_dir: Path,
) -> list[Record]:
    began = time.monotonic()
    image = _header(planned)
    keys = tuple((atlas.image_path, atlas.image_digest) for atlas, _ in work)
    indices = tuple(atlas.regions.index for atlas, _ in work)
    partition = _partition(keys, indices, image.grid)
    in_mask = _read_mask(planned.mask_path, image.grid, partition)
    reduction = _reduce(image, partition, in_mask, options)
    records = []
    for number, (atlas, names) in enumerate(work):
        quality = _assess(partition, number, in_mask, reduction, options)
        signals = {
            name: np.where(quality.usable, arrays[number], np.nan)
            for name, arrays in reduction.signals.items()
        }
        record = _write(planned, atlas, names, quality, signals, options, output_dir)
        seconds = round(time.monotonic() - began, 3)
        records.append(
            dataclasses.replace(
                record,
                inputs=inputs,
                seconds=seconds,
                peak_memory_bytes=_peak_memory(),
            )
        )
    return records


def _write(
    planned: PlannedRun,
    atlas: Atlas,
    names: RunOutputs,
    quality: RegionQuality,
    signals: dict[str, NDArray[np.float64]],
    options: Options,
    output_dir: Path,
) -> Record:
    """Write the files of one run and atlas."""
    notes = planned.warnings + atlas.warnings
    image = _header(planned)
    common = describe_run(
        planned.run,
        atlas,
        options,
        grid=image.grid,
        n_volumes=image.source.n_volumes,
        mask_path=planned.mask_path,
        repetition_time=planned.repetition_time,
        notes=notes,
    )
    mean = signals["mean"]
    levels = {
        "mean": mean.mean(axis=0),
        "standard_deviation": mean.std(axis=0, ddof=1),
        "tsnr": temporal_snr(mean),
    }
    path = output_dir / names.regions
    write_quality(path, quality, levels, atlas=atlas, common=common)
    for statistic, name in names.timeseries:
        write_timeseries(
            output_dir / name,
            signals[statistic],
            statistic=statistic,
            atlas=atlas,
            common=common,
        )
    return Record(
        run=planned.run.relative_path,
        atlas=atlas.name,
        status="done",
        warnings=notes,
        digest=common["OptionsDigest"],
        outputs=(names.regions, *(name for _, name in names.timeseries)),
        n_regions=len(quality.status),
        n_lost=sum(word != "ok" for word in quality.status),
        coverage=round(float(quality.coverage.mean()), 4),
    )


def _header(planned: PlannedRun) -> BoldImage:
    if planned.image is None:  # such a plan has an error and was refused before
        msg = "the header was not read."
        raise ImageError(msg, where=planned.run.relative_path)
    return planned.image


@functools.lru_cache(maxsize=4)
def _partition(
    keys: tuple[tuple[Path, str], ...], indices: tuple[tuple[int, ...], ...], grid: Grid
) -> Partition:
    """Resample and factorise the atlases once per grid and process."""
    maps = []
    for (path, digest), index in zip(keys, indices, strict=True):
        labels, source = load_atlas_labels(path, digest)
        maps.append(map_regions(labels, np.array(index), source, grid))
    return build_partition(maps)


def _read_mask(
    path: Path | None, grid: Grid, partition: Partition
) -> NDArray[np.bool_]:
    """Whether each voxel of the partition is inside the mask, (N,)."""
    if path is None:
        return np.ones(partition.voxels.size, dtype=bool)
    mask, source = read_mask(path)
    on_grid = resample_labels(mask, source, grid)
    if not on_grid.any():
        msg = f"the mask holds no voxel on the grid of the BOLD run ({grid})."
        raise DataError(msg, where=path, remedy="Give the mask of this run.")
    return np.asarray(on_grid.ravel(order="F")[partition.voxels])


def _reduce(
    image: BoldImage,
    partition: Partition,
    in_mask: NDArray[np.bool_],
    options: Options,
) -> Reduction:
    try:
        return reduce_run(
            lambda: read_blocks(image.source),
            partition,
            in_mask=in_mask,
            statistics=options.statistic,
            n_volumes=image.source.n_volumes,
            slope=image.slope,
            intercept=image.intercept,
        )
    except ValueError as error:
        remedy = "Check the image; its values are beyond any BOLD signal."
        raise ImageError(f"{error}.", where=image.source.path, remedy=remedy) from error


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
