"""What is written for a run and an atlas: names, tables and sidecars."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bids_roi.atlases.regions import networks_of
from bids_roi.core.quality import STATUS, RegionQuality
from bids_roi.dataset.timing import read_timing
from bids_roi.files.matrices import corner_of
from bids_roi.files.names import format_name, parse_name
from bids_roi.files.tables import format_json, format_matrix, format_table
from bids_roi.files.writing import write_file
from bids_roi.options.table import OPTIONS
from bids_roi.options.words import find_measure, find_statistic
from bids_roi.outputs.facts import join_facts
from bids_roi.outputs.names import sidecar_of
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas
    from bids_roi.core.grid import Grid
    from bids_roi.core.mapping import RegionMap
    from bids_roi.dataset.layout import BoldRun
    from bids_roi.options.record import Options
    from bids_roi.outputs.digest import Digests
    from bids_roi.outputs.names import RelmatOutput


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
    record = find_measure(output.measure)
    measure = record.describe(fisher_z=output.fisher_z)
    text = (
        f"{measure[0].upper()}{measure[1:]} of each pair of regions of atlas"
        f" {atlas.name} over the kept volumes; n/a for regions without signal."
    )
    sidecar = {
        "Description": text,
        "RelationshipMeasure": measure,
        "Weighted": True,
        "Directed": False,
        "ValidDiagonal": not record.is_correlation,
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


TEMPLATEFLOW_URL = "https://templateflow.s3.amazonaws.com"

# Keys of a BOLD sidecar that stay true of its regional series.
_PROPAGATED = (
    "TaskName",
    "VolumeTiming",
    "DelayTime",
    "AcquisitionDuration",
    "SliceTimingCorrected",
)

# Said of the outputs that they concern.
_OF_ONE_OUTPUT = (
    "Statistic",
    "MapStatistic",
    "RelationshipMatrix",
    "FisherZ",
    "PartialEstimator",
    "MinimumDegreesOfFreedom",
)

REGION_COLUMNS = {
    "index": "Label value of the region in the atlas image.",
    "name": "Name of the region: its column in the time series.",
    "network": "Network of the region, from the atlas table.",
    "volume": "Volume of the region on the atlas's own grid, mm^3.",
    "x": "Centre of gravity of the region in the atlas image, mm to the right (RAS+).",
    "y": "The same, mm to the front.",
    "z": "The same, mm upwards.",
    "centre_offset": (
        "Distance from that centre to the nearest voxel of the region, mm; 0 where it"
        " lies in the region. Large where a region has parts on both sides."
    ),
    "n_voxels_atlas": "Voxels of the region on the atlas's own grid.",
    "n_voxels_grid": "Voxels of the region on the grid of the BOLD run.",
    "n_voxels_mask": "Those of them inside the brain mask.",
    "n_voxels_dropout": (
        "Those of them that are outside the field of view at times: exactly 0 in some"
        " volumes, and all other values on one side of 0. They are not used."
    ),
    "n_voxels_used": (
        "Those inside the mask that are finite and in the field of view in every"
        " volume, and not constant; only they enter a statistic."
    ),
    "coverage": (
        "Share (0 to 1) of the atlas voxels whose centre lies in a BOLD voxel that is"
        " used; compared with MinimumCoverage."
    ),
    "coverage_grid": "n_voxels_used over n_voxels_grid (0 to 1).",
    "status": "ok, or why the column is n/a: "
    + " ".join(f"{word}: {text}" for word, text in STATUS.items()),
    "mean": (
        "Mean over time of the regional mean, or of QualityStatistic for maps, before"
        " cleaning, over QualityVolumes (all, or the steady ones), in the units of the"
        " BOLD image."
    ),
    "standard_deviation": "Standard deviation over time of the same (ddof 1).",
    "tsnr": "mean over standard_deviation.",
}

_COUNTED = tuple(field.name for field in dataclasses.fields(RegionQuality))

OUTLIER_COLUMNS = {
    "kept": "1 for volumes that enter the results, 0 for the others.",
    "dummy": "1 for volumes that are not in a steady state yet.",
    "framewise_displacement": "As in the table of confounds, mm.",
    "std_dvars": "Standardised DVARS, as in the table of confounds.",
    "why": (
        "Reasons why the volume was left out, separated by commas: dummy; fd or"
        " std_dvars above its threshold; neighbour of such a volume; short_segment"
        " between such volumes."
    ),
}


def write_timeseries(
    path: Path,
    signals: NDArray[np.float64],
    *,
    statistic: str,
    atlas: Atlas,
    common: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a regional time series and its sidecar.

    Parameters
    ----------
    path
        Of the TSV.
    signals : (T, R)
        NaN for missing.
    statistic
        What was computed over the voxels.
    atlas
        Its region names are the header.
    common
        Keys from ``describe_run``.
    facts
        Keys of what was done to the series and how good it is; see ``join_facts``.

    Returns
    -------
    dict
        The sidecar.
    """
    record = find_statistic(statistic)
    text = (
        f"Regional {record.words} of the BOLD signal over the voxels of"
        f" each region of atlas {atlas.name}; one row per volume, one column per region"
        " (see the _dseg.tsv of the same run for coverage and status)."
    )
    if "DenoisingStrategy" in facts:
        text += f" Cleaned with the strategy {facts['DenoisingStrategy']}."
    said = {"Description": text} | record.describe()
    sidecar = said | join_facts(common, facts)
    write_file(path.with_suffix(".json"), format_json(sidecar))
    write_file(path, format_matrix(atlas.regions.name, signals))
    return sidecar


def tabulate_regions(
    quality: RegionQuality,
    levels: Mapping[str, NDArray[np.float64]],
    *,
    atlas: Atlas,
    mapped: RegionMap,
) -> dict[str, Any]:
    """Columns of the region table of a run: those of ``REGION_COLUMNS`` that apply.

    Parameters
    ----------
    quality
        Counts, coverage and status of each region.
    levels
        ``mean``, ``standard_deviation`` and ``tsnr``, (R,) each.
    atlas
        Its regions are the rows.
    mapped
        Where they are, and how large.
    """
    columns: dict[str, Any] = {
        "index": atlas.regions.index,
        "name": atlas.regions.name,
    }
    networks = networks_of(atlas.regions)
    if networks is not None:
        columns["network"] = networks
    columns["volume"] = [float(f"{value:.9g}") for value in mapped.volume]
    for axis, values in zip("xyz", mapped.centroids.round(3).T, strict=True):
        columns[axis] = values.tolist()
    columns["centre_offset"] = mapped.offsets.round(3).tolist()
    for name in _COUNTED:
        values = getattr(quality, name)
        columns[name] = values if name == "status" else values.tolist()
    return columns | {name: values.tolist() for name, values in levels.items()}


def write_quality(
    path: Path,
    columns: Mapping[str, Any],
    *,
    atlas: Atlas,
    common: Mapping[str, Any],
) -> None:
    """Write the region quality table of a run and its sidecar.

    Parameters
    ----------
    path
        Of the TSV.
    columns
        Of ``tabulate_regions``.
    atlas
        Its regions are the rows.
    common
        Keys from ``describe_run``.
    """
    kept = {"SpatialReference", "Resolution", "Density", "TaskName", "Sources"}
    kept |= {
        "RepetitionTime",
        "NumberOfVolumes",
        "Atlas",
        "AtlasImageDigest",
        "AtlasTableDigest",
        "MinimumCoverage",
        "QualityStatistic",
        "QualityVolumes",
        "NonSteadyStateVolumes",
        "Warnings",
        "OptionsDigest",
        "SettingsDigest",
        "SoftwareVersion",
    }
    kept |= {option.sidecar for option in OPTIONS} - set(_OF_ONE_OUTPUT)
    sidecar = {
        "Description": describe_regions(atlas),
        **{key: value for key, value in common.items() if key in kept},
        **{name: {"Description": REGION_COLUMNS[name]} for name in columns},
    }
    # The schema defines index, and warns where a sidecar does so again.
    del sidecar["index"]
    write_file(path.with_suffix(".json"), format_json(sidecar))
    write_file(path, format_table(columns))


def write_outliers(
    path: Path, columns: Mapping[str, Any], *, strategy: str, facts: Mapping[str, Any]
) -> None:
    """Write which volumes a strategy left out, and why.

    Parameters
    ----------
    path
        Of the TSV.
    columns
        Of ``OUTLIER_COLUMNS``, one value per source volume.
    strategy
        Its name.
    facts
        Further sidecar keys.
    """
    sidecar = {
        "Description": f"Volumes of the run and whether {strategy} kept them.",
        "DenoisingStrategy": strategy,
        **facts,
        **{name: {"Description": text} for name, text in OUTLIER_COLUMNS.items()},
    }
    write_file(path.with_suffix(".json"), format_json(sidecar))
    write_file(path, format_table(columns))


def describe_regions(atlas: Atlas) -> str:
    """Description of the region tables of an atlas."""
    return f"Regions of atlas {atlas.name}, in the order of the columns of its series."


def describe_run(
    run: BoldRun,
    atlas: Atlas,
    options: Options,
    digests: Digests,
    *,
    grid: Grid,
    n_volumes: int,
    mask_path: Path | None,
    repetition_time: float | None,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    """Sidecar keys that all outputs of a run and atlas share.

    Parameters
    ----------
    run, atlas, options, digests
        What was processed, and how.
    grid, n_volumes
        Of the BOLD file.
    mask_path
        The mask used, ``None`` for none.
    repetition_time
        Seconds, ``None`` where it is not known.
    notes
        Warnings of this run and atlas.

    Returns
    -------
    dict
        Keys as in BIDS where BIDS has them, CamelCase otherwise.
    """
    inside = [path for path in (run.path, mask_path) if path is not None]
    sources = [
        f"bids:preprocessed:{path.relative_to(run.root).as_posix()}"
        for path in inside
        if path.is_relative_to(run.root)
    ]
    sources.append(atlas.source or f"bids::{_table_name(atlas)}")
    content: dict[str, Any] = {"Sources": sources}
    content |= {k: run.metadata[k] for k in _PROPAGATED if k in run.metadata}
    if repetition_time is not None:
        # Of the two keys, BIDS allows one; of even steps both say the same.
        content.pop("VolumeTiming", None)
        content["RepetitionTime"] = repetition_time
        content["SamplingFrequency"] = 1 / repetition_time
    elif read_timing(run.metadata, n_volumes).times:
        content["SamplingFrequency"] = "TR"
    else:  # times that nothing can be made of
        content.pop("VolumeTiming", None)
    content["StartTime"] = run.metadata.get("StartTime", 0)
    content["SpatialReference"] = _spatial_reference(run)
    names = {"res": "Resolution", "den": "Density"}
    present = {names[key] for key, _ in run.entities if key in names}
    content |= {key: str(run.metadata.get(key, grid)) for key in sorted(present)}
    content["NumberOfVolumes"] = n_volumes
    content["Units"] = "arbitrary"
    content["SoftwareFilters"] = "n/a"
    content["Atlas"] = atlas.name
    content["AtlasImageDigest"] = f"sha256:{atlas.image_digest}"
    if atlas.table_digest:
        content["AtlasTableDigest"] = f"sha256:{atlas.table_digest}"
    for option in OPTIONS:
        value = options.value(option)
        if option.sidecar and option.sidecar not in content and value is not None:
            content[option.sidecar] = value
    for key in _OF_ONE_OUTPUT:
        content.pop(key, None)
    if mask_path is not None and not mask_path.is_relative_to(run.root):
        content["Mask"] = mask_path.name
    elif mask_path is None:
        content["Mask"] = "none"
    if notes:
        content["Warnings"] = list(notes)
    content |= digests.describe()
    content["SoftwareVersion"] = f"bids_roi {__version__}"
    return content


def _table_name(atlas: Atlas) -> str:
    return format_name(atlas.entities, "dseg", ".tsv")


def _spatial_reference(run: BoldRun) -> str:
    """URI of the image that defines the run's space."""
    given = run.metadata.get("SpatialReference")
    if isinstance(given, str) and given:
        return given
    space = run.space
    own = f"bids:preprocessed:{run.relative_path}"
    if space is None or space in ("T1w", "boldref", "func", "individual"):
        return own
    cohort = parse_name(run.path).get("cohort")
    folder = f"tpl-{space}/cohort-{cohort}" if cohort else f"tpl-{space}"
    middle = f"_cohort-{cohort}" if cohort else ""
    return f"{TEMPLATEFLOW_URL}/{folder}/tpl-{space}{middle}_res-01_T1w.nii.gz"
