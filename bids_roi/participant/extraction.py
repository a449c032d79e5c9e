"""The streaming pass over one run: its atlases, its mask, its regional signals."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from bids_roi.atlases.open import load_atlas_labels
from bids_roi.core.frame import Frame, FrameMismatch
from bids_roi.core.grid import resample_labels
from bids_roi.core.mapping import map_labels, map_spheres, map_weights
from bids_roi.core.partition import Partition, build_partition
from bids_roi.core.quality import RegionQuality, assess_regions
from bids_roi.core.reduce import Reduction, reduce_run
from bids_roi.core.scan import (
    SeriesCollector,
    VarianceScan,
    select_voxels,
)
from bids_roi.core.statistics import weights_cancel
from bids_roi.core.volumes import Smoothing, smoothing_sigmas
from bids_roi.errors import AtlasError, DataError, ImageError
from bids_roi.images.nifti import read_maps, read_mask
from bids_roi.images.stream import VolumeSource
from bids_roi.outputs.result import Extracted
from bids_roi.participant.budget import GATHERED, block_bytes, threads_per_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas, AtlasImage
    from bids_roi.atlases.subject import Route
    from bids_roi.core.frame import Block
    from bids_roi.core.grid import Grid
    from bids_roi.core.scan import MeanImage
    from bids_roi.images.nifti import Series
    from bids_roi.options.record import Options
    from bids_roi.participant.results import Job


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
    """Bring the atlases to a run and factorise them, once per frame and process.

    Parameters
    ----------
    images
        What each atlas is read by.
    indices
        Label values of each atlas, in the order of its table.
    frame
        Of the BOLD run.

    Raises
    ------
    AtlasError
        If an atlas lies on another mesh, or on other voxels where nothing is resampled.
    BidsRoiError
        If a transform cannot be used.
    """
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

    Parameters
    ----------
    path
        Of the mask; ``None`` for all points.
    frame
        Of the BOLD run.

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

    Parameters
    ----------
    image
        Header of the BOLD file.
    partition
        Of its grid.
    inside : (V,)
        Whether each of its voxels is inside the mask.
    options
        What to compute.
    steady : (T,) or None
        Volumes that measures and eigenvariates are over; ``None`` for all.
    mean
        Is fed with the volumes in passing.

    Returns
    -------
    reduction
        Signals of every atlas.
    high_variance : (T, 5) or None
        Components of the voxels of high variance, where asked for.

    Raises
    ------
    ImageError
        If the file is damaged or its values are beyond all bounds.
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
