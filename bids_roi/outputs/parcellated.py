"""Series and matrices of surfaces and grayordinates as CIFTI files, beside tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.frame import Points
from bids_roi.core.mapping import strongest_map
from bids_roi.files.writing import write_file
from bids_roi.images.cifti import matrix_content, parcels_axis, series_content
from bids_roi.outputs.names import parcellated_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.core.frame import Frame
    from bids_roi.outputs.names import RunOutputs
    from bids_roi.outputs.result import AtlasResult


def write_parcellated(
    output_dir: Path,
    result: AtlasResult,
    names: RunOutputs,
    frame: Frame,
    repetition_time: float | None,
) -> list[str]:
    """Write what a strategy made of a run; return what could not be, and why.

    The rows of volumes that a table leaves out are NaN: steps of a series are even.
    """
    rows = strongest_map(result.mapped.weights)
    regions = tuple(enumerate(result.atlas.regions.name, 1))
    axis = parcels_axis(frame, Points(rows.astype(np.intp) + 1), regions)
    for relmat in names.relmats:
        content = matrix_content(axis, result.relmats[relmat.path])
        write_file(output_dir, parcellated_of(relmat.path), content)
    if repetition_time is None:
        return ["the repetition time is not known: there is no .ptseries.nii."]
    for series in names.timeseries:
        clean = result.cleaned.get(series)
        values = result.signals[series.statistic] if clean is None else clean.signals
        if clean is not None and len(values) < len(clean.cleaned.sample_mask):
            values = _spread(values, clean.cleaned.sample_mask)
        content = series_content(axis, values, repetition_time)
        write_file(output_dir, parcellated_of(series.path), content)
    return []


def _spread(
    values: NDArray[np.float64], kept: NDArray[np.bool_]
) -> NDArray[np.float64]:
    whole = np.full((kept.size, values.shape[1]), np.nan)
    whole[kept] = values
    return whole
