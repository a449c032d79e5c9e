"""Connectivity matrices as files: square tables with the keys of BEP017."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bids_roi.io.matrices import corner_of
from bids_roi.io.names import format_name
from bids_roi.io.outputs.names import sidecar_of
from bids_roi.io.tables import format_json, format_matrix
from bids_roi.io.writing import write_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bids_roi.io.atlases.shelf import Atlas
    from bids_roi.io.outputs.names import RelmatOutput

__all__ = ["name_measure", "write_relmat"]

_MEASURES = {
    "pearson": "Pearson correlation coefficient",
    "spearman": "Spearman rank correlation coefficient",
    "partial": "partial correlation coefficient",
    "covariance": "covariance (ddof 1)",
}

# What holds of the series but not of the matrix.
_OF_SERIES = (
    "Description",
    "Sources",
    "Units",
    "RepetitionTime",
    "SourceRepetitionTime",
    "SamplingFrequency",
    "StartTime",
    "VolumeTiming",
    "AcquisitionDuration",
    "CensoredVolumes",
    "OptionsDigest",
    "SettingsDigest",
)


def name_measure(output: RelmatOutput) -> str:
    """Measure of a matrix in words, ``Pearson correlation coefficient`` for example."""
    measure = _MEASURES[output.measure]
    return f"Fisher z of the {measure}" if output.fisher_z else measure


def write_relmat(
    output_dir: Path,
    output: RelmatOutput,
    relmat: NDArray[np.float64],
    *,
    atlas: Atlas,
    series: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write a matrix and its sidecar.

    Parameters
    ----------
    output_dir
        The output folder.
    output
        Name and measure.
    relmat : (R, R)
        NaN for what has no value.
    atlas
        Its regions are the rows and columns.
    series
        Sidecar of the time series that the matrix is of.
    facts
        Further keys: digest, warnings, estimator.
    """
    measure = name_measure(output)
    text = (
        f"{measure[0].upper()}{measure[1:]} of each pair of regions of atlas"
        f" {atlas.name} over the kept volumes; n/a for regions without signal."
    )
    sidecar = {
        "Description": text,
        "RelationshipMeasure": measure,
        "Weighted": True,
        "Directed": False,
        "ValidDiagonal": output.measure == "covariance",
        "StorageFormat": "Full",
        "NonNegative": False,
        "NodeFiles": [f"bids::{format_name(atlas.entities, 'dseg', '.tsv')}"],
        "Sources": [f"bids::{output.source}"],
        "FisherZ": output.fisher_z,
        **{key: value for key, value in series.items() if key not in _OF_SERIES},
        **facts,
    }
    write_file(output_dir / sidecar_of(output.path), format_json(sidecar))
    names = atlas.regions.name
    text_of_matrix = format_matrix(names, relmat, rows=names, corner=corner_of(names))
    write_file(output_dir / output.path, text_of_matrix)
