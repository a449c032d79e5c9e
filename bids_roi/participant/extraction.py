"""The streaming pass over one run: atlases, mask, signals, and the memory for it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from bids_roi.atlases.open import load_atlas_labels
from bids_roi.atlases.subject import explain_fit, refuse_mirrored
from bids_roi.core.frame import Frame, FrameMismatch
from bids_roi.core.grid import resample_labels
from bids_roi.core.mapping import map_labels, map_spheres, map_weights, strongest_map
from bids_roi.core.partition import Partition, build_partition
from bids_roi.core.quality import RegionQuality, assess_regions
from bids_roi.core.reduce import Reduction, reduce_run
from bids_roi.core.scan import SeriesCollector, VarianceScan, select_voxels
from bids_roi.core.statistics import weights_cancel
from bids_roi.core.volumes import Smoothing, smoothing_sigmas
from bids_roi.core.warp import find_cut, measure_fit
from bids_roi.errors import AtlasError, BidsRoiError, DataError, ImageError, UsageError
from bids_roi.images.nifti import read_maps, read_mask
from bids_roi.images.stream import VolumeSource
from bids_roi.options.words import name_statistics
from bids_roi.outputs.result import Extracted
from bids_roi.schedule.outcome import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas, AtlasImage
    from bids_roi.atlases.subject import Route
    from bids_roi.core.frame import Block
    from bids_roi.core.grid import Grid
    from bids_roi.core.scan import MeanImage
    from bids_roi.core.warp import WarpFit
    from bids_roi.images.nifti import Series
    from bids_roi.images.stream import Source
    from bids_roi.options.record import Options
    from bids_roi.outputs.derivatives import RunOutputs
    from bids_roi.participant.run import Job


BLOCK_BYTES = 16 * 2**20
# Measured: a worker with everything imported and one atlas on a 2 mm grid.
_PROCESS_BYTES = 140 * 2**20
# Two buffers of the reader, larger by a quarter where points are picked, the gathered
# values and their float64 copy.
_COPIES = 6
# Blocks' worth of whole series that may be held for medians and the like. Of files that
# are cut by points they are within these copies; else they come on top.
GATHERED = 4
# Measured: what rapidgzip takes, and each of its threads.
_RAPIDGZIP_BYTES, _THREAD_BYTES = 100 * 2**20, 110 * 2**20
# On fewer processors ISA-L alone is faster: rapidgzip takes nearly twice its time.
_LEAST_THREADS = 4
# Measured: a field of 1 mm moves the points of a 2 mm grid (benchmarks/transforms.py).
_MOVING_BYTES = 130 * 2**20
_MOST_NAMED = 8


def extract(
    job: Job, steady: NDArray[np.bool_] | None, *, mean: MeanImage | None = None
) -> Extracted:
    """Reduce a run to the signals of all its atlases, NaN for regions that are lost.

    ``steady`` are the volumes that measures and eigenvariates are over, ``None`` for
    all; ``mean`` is fed with its volumes in passing.
    """
    image = job.image
    partition = find_partition([atlas for atlas, _ in job.work], image.frame)
    inside = read_mask_of(job.planned.mask_path, image.frame)
    reduction, high_variance = reduce_image(
        image, partition, inside, job.options, steady=steady, mean=mean
    )
    qualities = []
    for number in range(len(job.work)):
        resampled = image.grid is not None
        atlas = job.work[number][0]
        quality = _assess(
            *(partition, number, inside, reduction, job.options),
            resampled=resampled,
            atlas=atlas,
        )
        for arrays in reduction.signals.values():
            if (values := arrays[number]) is not None:
                values[:, ~quality.has_voxels] = np.nan
        for each in reduction.measures.values():
            if (numbers := each[number]) is not None:
                numbers[~quality.has_voxels] = np.nan
        qualities.append(quality)
    return Extracted(partition, inside, reduction, tuple(qualities), high_variance)


def _assess(
    partition: Partition,
    number: int,
    inside: NDArray[np.bool_],
    reduction: Reduction,
    options: Options,
    *,
    resampled: bool,
    atlas: Atlas,
) -> RegionQuality:
    in_mask = inside[partition.voxels]
    cancel = None
    mapped = partition.maps[number]
    if not mapped.hard and options.extraction.map_statistic[0] == "weighted_mean":
        cancel = weights_cancel(partition.members[number], reduction.usable)
    return assess_regions(
        n_voxels_atlas=mapped.n_voxels_atlas,
        n_voxels_grid=partition.count(number, np.ones_like(in_mask)),
        n_voxels_mask=partition.count(number, in_mask),
        n_voxels_finite=partition.count(number, reduction.finite),
        n_voxels_dropout=partition.count(number, reduction.dropout),
        n_voxels_used=partition.count(number, reduction.usable),
        coverage=partition.coverage(number, reduction.usable),
        min_coverage=options.extraction.min_coverage,
        weights_cancel=cancel,
        resampled=resampled,
        elsewhere=np.isin(atlas.regions.values, list(atlas.elsewhere)),
        overlapped=np.array(atlas.overlapped) if atlas.parts else None,
    )


def find_partition(atlases: Iterable[Atlas], frame: Frame) -> Partition:
    """Bring atlases to a run and factorise them, once per frame and process."""
    told = [(atlas.image, atlas.regions.index) for atlas in atlases]
    images, indices = zip(*told, strict=True)
    return partition_grid(images, indices, frame)


@functools.lru_cache(maxsize=4)
def partition_grid(
    images: tuple[AtlasImage, ...],
    indices: tuple[tuple[int, ...], ...],
    frame: Frame,
) -> Partition:
    """Bring the atlases to a run and factorise them, once per frame and process."""
    maps = []
    for image, index in zip(images, indices, strict=True):
        places = None if image.route is None else find_places(image.route, frame)
        path = image.files[0]
        try:
            if image.kind == "dseg":
                labels, source = load_atlas_labels(image)
                areas = None if image.areas is None else image.areas.read()
                maps.append(
                    map_labels(labels, np.array(index), source, frame, places, areas)
                )
            elif image.kind == "spheres":
                maps.append(map_spheres(np.array(image.spheres), frame, places))
            else:
                grid, volumes = read_maps(path)
                maps.append(map_weights(volumes, grid, frame, places))
        except FrameMismatch as error:
            remedy = "Choose the atlas that is made for this mesh and these voxels."
            raise AtlasError(f"{error}.", where=path, remedy=remedy) from error
    return build_partition(maps)


@functools.lru_cache(maxsize=2)
def find_places(route: Route, frame: Frame) -> NDArray[np.float64]:
    """Find where the points of a run lie in a template, (V, 3) mm.

    Once for all atlases in it and, in one process, for all runs of the participant on
    one grid; the key holds the content of the transforms.
    """
    return route.apply(frame.millimetres())


def read_mask_of(path: Path | None, frame: Frame) -> NDArray[np.bool_]:
    """Whether each point of a run is inside the mask, (V,).

    Raises
    ------
    DataError
        If the mask holds no voxel of the grid.
    """
    grid = frame.grid
    if path is None or grid is None:
        return np.ones(frame.n_points, dtype=bool)
    on_grid = mask_on_grid(path, grid)
    if not on_grid.any():
        msg = f"the mask holds no voxel on the grid of the BOLD run ({grid})."
        raise DataError(msg, where=path, remedy="Give the mask of this run.")
    return on_grid


def mask_on_grid(path: Path, grid: Grid) -> NDArray[np.bool_]:
    """Whether each voxel of a run's grid is inside the mask, (V,)."""
    mask, source = read_mask(path)
    return np.asarray(resample_labels(mask, source, grid).ravel(order="F"))


def reduce_image(
    image: Series,
    partition: Partition,
    inside: NDArray[np.bool_],
    options: Options,
    *,
    steady: NDArray[np.bool_] | None = None,
    mean: MeanImage | None = None,
) -> tuple[Reduction, NDArray[np.float64] | None]:
    """Reduce a run to regional signals.

    ``inside``, (V,), are voxels in the mask; measures and eigenvariates are over
    ``steady`` volumes, (T,), ``None`` for all. ``mean`` is fed with the volumes in
    passing.

    Returns
    -------
    reduction
        Signals of every atlas.
    high_variance : (T, 5) or None
        Components of the voxels of high variance, where asked for.
    """
    source, size = image.source, block_bytes(image.source, options)
    if isinstance(source, VolumeSource):
        source = replace(source, n_threads=threads_per_run(options))
    smoothing = None
    if options.extraction.smoothing_fwhm is not None and image.grid is not None:
        sigmas = smoothing_sigmas(options.extraction.smoothing_fwhm, image.grid)
        smoothing = Smoothing(image.grid, sigmas, inside)
    n_volumes = source.n_volumes
    scan = VarianceScan(n_volumes) if options.cleaning.high_variance_confounds else None
    # Watchers look at the blocks in passing, of the first pass only: a second one would
    # count every volume twice.
    watchers = [watcher for watcher in (mean, scan) if watcher is not None]

    def blocks() -> Iterator[Block]:
        watching = [watchers.pop() for _ in range(len(watchers))]
        for block in source.blocks(size):
            for watcher in watching:
                watcher.update(block.volumes.start, block.values)
            yield block

    def pick(points: NDArray[np.intp]) -> Iterator[Block]:
        watch = mean.update if watchers and mean is not None else None
        watchers.clear()
        return cast("VolumeSource", source).pick(size, points, watch)

    # The scan for high variance takes all points at once.
    picks = scan is None and isinstance(source, VolumeSource) and source.can_pick

    try:
        reduction = reduce_run(
            blocks,
            partition,
            in_mask=inside[partition.voxels],
            statistics={
                *options.extraction.statistic,
                *options.extraction.map_statistic,
            },
            n_volumes=n_volumes,
            scaling=(image.slope, image.intercept),
            smoothing=smoothing,
            gather_bytes=GATHERED * size,
            pick_blocks=pick if picks else None,
            measures=options.extraction.region_measures,
            steady=steady,
        )
    except ValueError as error:
        remedy = "Check the image; its values are beyond any BOLD signal."
        raise ImageError(f"{error}.", where=source.path, remedy=remedy) from error
    # Which voxels vary most is known at the end of the file, so that their components
    # take another pass; it is asked for rarely.
    if scan is None:
        return reduction, None
    collector = SeriesCollector(select_voxels(scan.finish()), n_volumes)
    for block in source.blocks(size):
        collector.update(block.volumes.start, block.values)
    return reduction, collector.finish(n_confounds=5)


@dataclass(frozen=True, slots=True)
class Placed:
    """How an atlas lies on a run, and what the user should know of it."""

    fit: WarpFit
    notes: tuple[str, ...]


def place_atlases(
    job: Job,
) -> tuple[Job, list[tuple[Atlas, RunOutputs, BidsRoiError]]]:
    """Bring atlases to the run and look at how they lie; why some cannot be used.

    A transform that is damaged or wrong costs the atlases that need it only.
    """
    frame = job.image.frame
    work, misplaced = [], []
    for atlas, names in job.work:
        try:
            if atlas.route is not None:
                find_places(atlas.route, frame)
            work.append((atlas, names))
        except BidsRoiError as error:
            misplaced.append((atlas, names, error))
    moved = [(n, atlas) for n, (atlas, _) in enumerate(work) if atlas.route is not None]
    if not moved:
        return replace(job, work=tuple(work)), misplaced
    partition = find_partition([atlas for atlas, _ in work], frame)
    placed, wrong = {}, set()
    for number, atlas in moved:
        try:
            placed[atlas.name] = _look_at(job, atlas, partition, number)
        except BidsRoiError as error:
            misplaced.append((*work[number], error))
            wrong.add(number)
    kept = tuple(pair for n, pair in enumerate(work) if n not in wrong)
    return replace(job, work=kept, placed=placed), misplaced


def _look_at(job: Job, atlas: Atlas, partition: Partition, number: int) -> Placed:
    grid, path, route = job.image.grid, job.planned.mask_path, atlas.route
    assert grid is not None  # noqa: S101 - only volumes are reached by a transform
    assert route is not None  # noqa: S101 - of those that were moved
    rows = strongest_map(partition.maps[number].weights)
    rows = rows.reshape(grid.shape, order="F")
    mask = None
    if path is not None:
        mask = mask_on_grid(path, grid).reshape(grid.shape, order="F")
    atlas_grid: Grid | None = None  # spheres have none
    if atlas.kind == "dseg":
        atlas_grid = cast("Grid", load_atlas_labels(atlas.image)[1])
    elif atlas.kind == "probseg":  # of which only the header is read here
        atlas_grid, _ = read_maps(atlas.image_path)
    fit = measure_fit(
        rows >= 0,
        find_places(route, job.image.frame),
        grid=grid,
        atlas_grid=atlas_grid,
        mask=mask,
    )
    refuse_mirrored(fit, route)
    notes = []
    if words := explain_fit(fit):
        notes.append(
            f"{atlas.name}: the transforms may not be those of this run:"
            f" {'; '.join(words)}. Look at the atlas over the run in the report."
        )
    cut = [atlas.regions.name[row] for row in find_cut(rows)]
    if cut:
        more = f" and {len(cut) - _MOST_NAMED} more" if len(cut) > _MOST_NAMED else ""
        notes.append(
            f"{atlas.name}: {len(cut)} regions reach the edge of the run's grid"
            f" ({', '.join(cut[:_MOST_NAMED])}{more}); coverage does not count what"
            " lies beyond it."
        )
    return Placed(fit, tuple(notes))


def worker_count(options: Options) -> int:
    """Runs to process at the same time, within ``n_procs`` and ``mem_mb``."""
    wanted = options.running.n_procs or usable_cpus()
    if options.running.mem_mb is None:
        return wanted
    room = options.running.mem_mb * 10**6 - planner_bytes(options)
    return max(1, min(wanted, room // _worth_bytes(options)))


def _worth_bytes(options: Options) -> int:
    """The least memory that a worker can do with.

    Points are moved before the series is read, so that the larger need counts.
    """
    least = _copies(options) * BLOCK_BYTES // 2  # blocks of half the size
    moved = {"T1w", "native"} & set(options.input.space)
    if moved and options.atlases.atlas_transform == "auto":
        return _process_bytes(options) + max(least, _MOVING_BYTES)
    return _process_bytes(options) + least


def planner_bytes(options: Options) -> int:
    """Memory of the process that plans, where it has workers beside it."""
    alone = options.running.executor == "serial" or (
        options.running.mem_mb is not None
        and options.running.mem_mb * 10**6 < _PROCESS_BYTES + _worth_bytes(options)
    )
    return 0 if alone else _PROCESS_BYTES


def threads_per_run(options: Options) -> int:
    """Threads that decompress a file: what is asked for, or the processors left."""
    running = options.running
    if running.threads_per_run != "auto":
        return int(running.threads_per_run)
    if running.mem_mb is not None:
        return 1
    n_runs = 1 if running.executor == "serial" else worker_count(options)
    n = usable_cpus() // n_runs
    return n if n >= _LEAST_THREADS else 1


def _process_bytes(options: Options) -> int:
    """Memory of a worker, without blocks."""
    given = options.running.threads_per_run
    n = int(given) if given != "auto" else 1
    return _PROCESS_BYTES + (n > 1) * (_RAPIDGZIP_BYTES + n * _THREAD_BYTES)


def block_bytes(source: Source, options: Options) -> int:
    """Size of a block within the memory of a worker; an error where no volume fits."""
    if options.running.mem_mb is None:
        return BLOCK_BYTES
    room = options.running.mem_mb * 10**6 - planner_bytes(options)
    mine = room // worker_count(options)
    own = _process_bytes(options) + _product_bytes(source, options)
    copies = _copies(options)
    fitting = (mine - own) // copies
    if fitting < source.volume_bytes:
        needed = (own + copies * source.volume_bytes) // 10**6 + 1
        msg = (
            f"a volume at a time needs about {needed} MB in each process,"
            f" {mine // 10**6} MB are given."
        )
        remedy = "Raise --mem-mb or lower --n-procs."
        raise UsageError(msg, where=source.path, remedy=remedy)
    return min(BLOCK_BYTES, fitting)


def estimate_memory(source: Source, options: Options) -> int:
    """Bytes that a worker will need for a run, roughly."""
    n_volumes = source.block_volumes(block_bytes(source, options))
    own = _process_bytes(options) + _product_bytes(source, options)
    return own + _copies(options) * n_volumes * source.volume_bytes


def _holds_series(options: Options) -> bool:
    """Whether something needs whole series of voxels."""
    asked = options.extraction.statistic
    return not set(asked).isdisjoint(name_statistics(family="series"))


def _copies(options: Options) -> int:
    return _COPIES + GATHERED * _holds_series(options)


def _product_bytes(source: Source, options: Options) -> int:
    """Memory of what is decomposed for an eigenvariate: volumes x volumes, twice."""
    return 2 * 8 * source.n_volumes**2 * _holds_series(options)
