"""Atlases that transforms bring to a run: which can be, and how well they lie there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from bids_roi.atlases.open import load_atlas_labels
from bids_roi.atlases.subject import explain_fit, refuse_mirrored
from bids_roi.core.mapping import strongest_map
from bids_roi.core.warp import find_cut, measure_fit
from bids_roi.errors import BidsRoiError
from bids_roi.images.nifti import read_maps
from bids_roi.participant.extraction import (
    find_partition,
    find_places,
    mask_on_grid,
)

if TYPE_CHECKING:
    from bids_roi.atlases.open import Atlas
    from bids_roi.core.grid import Grid
    from bids_roi.core.partition import Partition
    from bids_roi.core.warp import WarpFit
    from bids_roi.outputs.derivatives import RunOutputs
    from bids_roi.participant.results import Job


_MOST_NAMED = 8


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
