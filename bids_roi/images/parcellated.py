"""Parcellated series and matrices as CIFTI-2 files, which Workbench opens."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.frame import Frame, Mesh, Points

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Of 400 parcels on 91,282 grayordinates it takes a third of a second, as much as to
# write the file, and all runs of a dataset have the same.
@functools.lru_cache(maxsize=8)
def parcels_axis(
    frame: Frame, labels: Points, regions: tuple[tuple[int, str], ...]
) -> Any:  # noqa: ANN401 - nibabel
    """Make the axis of parcels that two files of one atlas and frame share.

    ``labels`` has the key of each point of the frame, frozen, so that it can be a key
    itself. ``regions`` are key and name of each parcel, which may have no points.
    """
    from nibabel import cifti2

    vertices: list[dict[str, NDArray[np.int64]]] = [{} for _ in regions]
    voxels: list[list[NDArray[np.int64]]] = [[] for _ in regions]
    meshes: dict[str, int] = {}
    grid = None
    for start, part in zip(frame.starts, frame.parts, strict=True):
        own = labels.numbers[start : start + part.n_points]
        # Sorted once, so that the points of a parcel are a slice.
        order = np.argsort(own, kind="stable")
        ordered = own[order]
        name = f"CIFTI_STRUCTURE_{part.structure}"
        if isinstance(part.support, Mesh):
            meshes[name] = part.support.n_vertices
        else:
            grid = part.support
        for row, (key, _) in enumerate(regions):
            first, last = np.searchsorted(ordered, [key, key + 1])
            numbers = part.numbers[order[first:last]]
            if not numbers.size:
                continue
            if isinstance(part.support, Mesh):
                vertices[row][name] = numbers
            else:
                ijk = np.unravel_index(numbers, part.support.shape, order="F")
                voxels[row].append(np.stack(ijk, axis=1))
    return cifti2.ParcelsAxis(
        [name for _, name in regions],
        _objects([np.concatenate([np.empty((0, 3), int), *some]) for some in voxels]),
        _objects(vertices),
        affine=None if grid is None else grid.matrix,
        volume_shape=None if grid is None else grid.shape,
        nvertices=meshes,
    )


def _objects(items: list[Any]) -> NDArray[np.object_]:
    """Array of objects, though they may all have one shape."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def series_content(
    axis: Any,  # noqa: ANN401 - nibabel
    values: NDArray[np.floating],
    repetition_time: float,
) -> bytes:
    """Content of a ``.ptseries.nii`` file.

    ``values``, (T, N), are NaN where a table has n/a; ``repetition_time`` in seconds.
    """
    from nibabel import cifti2

    series = cifti2.SeriesAxis(0, repetition_time, len(values))
    return _content((series, axis), values, "PARCELLATED_SERIES")


def matrix_content(
    axis: Any,  # noqa: ANN401 - nibabel
    matrix: NDArray[np.floating],
) -> bytes:
    """Content of a ``.pconn.nii`` file of an (N, N) matrix, NaN for n/a."""
    return _content((axis, axis), matrix, "PARCELLATED")


def _content(axes: tuple[Any, Any], values: NDArray[np.floating], kind: str) -> bytes:
    from nibabel import cifti2

    image = cifti2.Cifti2Image(values.astype(np.float32), axes)
    image.nifti_header.set_intent(f"NIFTI_INTENT_CONNECTIVITY_{kind}")
    return bytes(image.to_bytes())
