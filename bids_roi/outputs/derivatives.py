"""What is written for a run and an atlas: names, tables and sidecars."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.atlases.regions import networks_of
from bids_roi.atlases.templateflow import S3_ROOT, template_grids
from bids_roi.core.frame import Mesh
from bids_roi.core.quality import RegionQuality
from bids_roi.dataset.partners import read_timing
from bids_roi.files.matrices import corner_of
from bids_roi.files.names import format_name, parse_name, sort_entities
from bids_roi.files.tables import format_matrix, format_table
from bids_roi.options.table import OPTIONS
from bids_roi.options.words import find_measure, find_statistic
from bids_roi.outputs.records import sidecar_of
from bids_roi.outputs.result import OUTLIER_COLUMNS, REGION_COLUMNS, describe_columns
from bids_roi.outputs.schema import KEYS, keep_keys
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas
    from bids_roi.core.frame import Frame
    from bids_roi.core.mapping import RegionMap
    from bids_roi.core.warp import WarpFit
    from bids_roi.dataset.run import BoldRun
    from bids_roi.options.table import Connectivity
    from bids_roi.outputs.records import Digests, Making


_MEASURES = {
    "volume": "VolumeRatio",
    "mirrored": "ShareMirrored",
    "inside": "ShareInMask",
    "covered": "ShareOfMaskCovered",
    "distance": "CentreOutsideMask",
}
_COUNTED = tuple(field.name for field in dataclasses.fields(RegionQuality))


@dataclass(frozen=True, slots=True)
class SeriesOutput:
    """Name of one time series.

    ``label`` is that of the denoising strategy, ``None`` for raw signals; ``path`` the
    TSV, relative to the output folder.
    """

    statistic: str
    label: str | None
    path: str


@dataclass(frozen=True, slots=True)
class RelmatOutput:
    """Name of one connectivity matrix.

    ``source`` is the time series that it is of, and ``statistic`` what that is over the
    voxels; ``source`` and ``path`` are relative to the output folder.
    """

    measure: str
    fisher_z: bool
    label: str | None
    statistic: str
    source: str
    path: str


@dataclass(frozen=True, slots=True)
class RunOutputs:
    """Names of what is written for one run and atlas, relative to the output folder.

    ``outliers`` are pairs of label and TSV, shared by all atlases; ``relmats`` are
    those of the first statistic, for each denoising strategy.
    """

    timeseries: tuple[SeriesOutput, ...]
    regions: str
    outliers: tuple[tuple[str, str], ...] = ()
    relmats: tuple[RelmatOutput, ...] = ()

    @property
    def labels(self) -> tuple[str | None, ...]:
        """Strategies that there are series of; ``None`` for raw signals."""
        return tuple(dict.fromkeys(series.label for series in self.timeseries))

    def only(self, labels: Collection[str | None]) -> RunOutputs:
        """Leave the outputs of some strategies, and the region table."""
        return RunOutputs(
            timeseries=tuple(s for s in self.timeseries if s.label in labels),
            regions=self.regions,
            outliers=tuple(pair for pair in self.outliers if pair[0] in labels),
            relmats=tuple(r for r in self.relmats if r.label in labels),
        )

    @property
    def tables(self) -> tuple[str, ...]:
        """Every TSV of this atlas."""
        series = (series.path for series in self.timeseries)
        return (self.regions, *series, *(relmat.path for relmat in self.relmats))

    @property
    def all(self) -> tuple[str, ...]:
        """Every TSV and JSON."""
        outliers = (path for _, path in self.outliers)
        tables = (*self.tables, *outliers)
        return tuple(f for t in tables for f in (t, sidecar_of(t)))


def name_outputs(
    run: BoldRun,
    atlas: Atlas,
    statistics: tuple[str, ...],
    labels: tuple[str | None, ...] = (None,),
    *,
    relmats: tuple[str, ...] = (),
    fisher_z: bool = False,
) -> RunOutputs:
    """Name the outputs of a run and atlas.

    All entities of the source stay, in the order of the schema, whatever theirs was;
    ``desc-preproc``, which says nothing more, goes. ``labels`` are those of the
    strategies, ``None`` for raw signals; each makes a series per statistic and a matrix
    per measure.
    """
    source = dict(run.entities)
    desc = source.pop("desc", None)
    desc = None if desc == "preproc" else desc
    folder = run.relative_path.rpartition("/")[0]

    def path(
        suffix: str, *more: tuple[str, str | None], label: str | None = None
    ) -> str:
        last = ("desc", f"{desc or ''}{label or ''}")
        entities = sort_entities([*source.items(), *more, last])
        return f"{folder}/{format_name(entities, suffix, '.tsv')}"

    of = atlas.entities

    timeseries = tuple(
        SeriesOutput(
            name,
            label,
            path("timeseries", *of, ("stat", find_statistic(name).stat), label=label),
        )
        for label in labels
        for name in statistics
    )
    firsts = {series.label: series for series in reversed(timeseries)}
    return RunOutputs(
        timeseries=timeseries,
        relmats=tuple(
            RelmatOutput(
                measure.name,
                fisher_z and measure.is_correlation,
                label,
                firsts[label].statistic,
                firsts[label].path,
                path(
                    "relmat",
                    *of,
                    ("stat", measure.stat(fisher_z=fisher_z)),
                    label=label,
                ),
            )
            for label in labels
            for measure in map(find_measure, relmats)
        ),
        regions=path("dseg", *of),
        outliers=tuple(
            (label, path("outliers", label=label)) for label in labels if label
        ),
    )


def settings_of(output: RelmatOutput, wanted: Connectivity) -> dict[str, Any]:
    """Tell what decides the numbers of a matrix beside its series; plain JSON."""
    settings: dict[str, Any] = {
        "FisherZ": output.fisher_z,
        "MinimumDegreesOfFreedom": wanted.min_degrees_of_freedom,
    }
    rows = {option.name: option.sidecar for option in OPTIONS}
    for _, name in find_measure(output.measure).parameters:
        settings[rows[name]] = getattr(wanted, name)
    if wanted.relmat_volumes is not None:
        settings["RelmatVolumes"] = wanted.relmat_volumes
        settings["RelmatSeed"] = wanted.relmat_seed
    return settings


def write_relmat(
    making: Making,
    output: RelmatOutput,
    relmat: NDArray[np.float64],
    *,
    atlas: Atlas,
    series: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write a matrix and its sidecar.

    ``relmat`` (R, R): NaN for what has no value; ``series``: sidecar of the time series
    that the matrix is of; ``facts``: further keys: digest, warnings, estimator.
    """
    record = find_measure(output.measure)
    measure = record.describe(fisher_z=output.fisher_z)
    some = f" {facts['RelmatVolumes']} of" if "RelmatVolumes" in facts else ""
    text = (
        f"{measure[0].upper()}{measure[1:]} of each pair of regions of atlas"
        f" {atlas.name} over{some} the kept volumes; n/a for regions without signal."
    )
    own = {
        "Description": text,
        "RelationshipMeasure": measure,
        "Weighted": True,
        "Directed": False,
        "ValidDiagonal": record.scale == "as_is",
        "StorageFormat": "Full",
        "NonNegative": record.is_positive,
        "NodeFiles": [f"bids::{_table_name(atlas)}"],
        "Sources": [f"bids::{output.source}"],
        "FisherZ": output.fisher_z,
    }
    # Warnings stand where those of the series do, its other keys behind these.
    replaced = {*own, *facts} - {"Warnings"}
    kept = {k: v for k, v in keep_keys(series, "relmat").items() if k not in replaced}
    names = atlas.regions.name
    table = format_matrix(names, relmat, rows=names, corner=corner_of(names))
    making.write(output.path, table, "relmat", {**own, **kept, **facts})


def write_timeseries(
    making: Making,
    table: str,
    signals: NDArray[np.float64],
    *,
    statistic: str,
    atlas: Atlas,
    frame: Frame,
    common: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a regional time series (T, R) and its sidecar; return the latter.

    ``common`` are the keys from ``describe_run``, ``facts`` those of what was done to
    the series and how good it is; see ``join_facts``.
    """
    record = find_statistic(statistic)
    kinds = {type(part.support) for part in frame.parts}
    places = "vertices" if Mesh in kinds else "voxels"
    if len(kinds) > 1:
        places = "voxels or vertices"
    text = (
        f"Regional {record.words} of the BOLD signal over the {places} of each region"
        f" of atlas {atlas.name}; one row per volume, one column per region"
        " (see the _dseg.tsv of the same run for coverage and status)."
    )
    if "DenoisingStrategy" in facts:
        text += f" Cleaned with the strategy {facts['DenoisingStrategy']}."
    said = {"Description": text} | record.describe()
    sidecar = said | join_facts(common, facts)
    making.write(table, format_matrix(atlas.regions.name, signals), "series", sidecar)
    return sidecar


def join_facts(common: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Join keys of a run with those of one series, which win; ``None`` takes one out.

    >>> join_facts({"Units": "arbitrary", "StartTime": 0}, {"StartTime": None})
    {'Units': 'arbitrary'}
    """
    joined = {**common, **facts}
    return {key: value for key, value in joined.items() if value is not None}


def describe_kept_rows(
    common: Mapping[str, Any], kept: NDArray[np.bool_]
) -> dict[str, Any]:
    """Sidecar keys of a series that has rows for some volumes of its run only.

    Its rows are not evenly spaced, so that ``VolumeTiming`` tells the time of each, and
    keys that exclude it in BIDS go; ``SourceRepetitionTime`` keeps that of the run.
    ``common`` are the keys from ``describe_run``, ``kept`` (T,) the volumes with a row;
    the result is for ``join_facts``.
    """
    volumes = np.flatnonzero(kept)
    own, step = common.get("VolumeTiming"), common.get("RepetitionTime")
    facts: dict[str, Any] = {"SamplingFrequency": None}
    if isinstance(own, list) and len(own) == kept.size:
        facts["VolumeTiming"] = [own[volume] for volume in volumes]
    elif step is not None:
        # The digits of the repetition time, without what multiplying adds to them.
        facts["VolumeTiming"] = [float(f"{volume * step:.12g}") for volume in volumes]
        facts |= {"RepetitionTime": None, "SourceRepetitionTime": step}
        facts["DelayTime"], pause = None, common.get("DelayTime", 0)
        if "AcquisitionDuration" not in common:
            known = isinstance(pause, int | float) and 0 <= pause < step
            spent = step - pause if known else step
            facts["AcquisitionDuration"] = float(f"{spent:.12g}")
    return facts


def tabulate_regions(
    quality: RegionQuality,
    levels: Mapping[str, NDArray[np.float64]],
    *,
    atlas: Atlas,
    mapped: RegionMap,
) -> dict[str, Any]:
    """Columns of the region table of a run: those of ``REGION_COLUMNS`` that apply.

    ``levels`` are ``mean``, ``standard_deviation`` and ``tsnr``, and what was asked for
    of ``REGION_MEASURES``, (R,) each.
    """
    columns: dict[str, Any] = {
        "index": atlas.regions.index,
        "name": atlas.regions.name,
        "volume": [float(f"{value:.9g}") for value in mapped.volume],
        "centre_offset": mapped.offsets.round(3),
        **dict(zip("xyz", mapped.centroids.round(3).T, strict=True)),
        **{name: getattr(quality, name) for name in _COUNTED},
        **levels,
    }
    if mapped.areas is not None:
        columns["area"] = [float(f"{value:.9g}") for value in mapped.areas]
    if atlas.parts:
        columns["overlapped"] = np.array(atlas.overlapped).round(6)
    if mapped.structures:
        columns["structure"] = [name or "n/a" for name in mapped.structures]
    networks = networks_of(atlas.regions)
    if networks is not None:
        columns["network"] = networks
    ordered = sorted(columns, key=list(REGION_COLUMNS).index)
    return {
        name: v.tolist() if isinstance(v := columns[name], np.ndarray) else v
        for name in ordered
    }


def write_quality(
    making: Making,
    table: str,
    columns: Mapping[str, Any],
    *,
    atlas: Atlas,
    common: Mapping[str, Any],
) -> None:
    """Write the region table of a run and its sidecar.

    ``columns`` are from ``tabulate_regions``, ``common`` from ``describe_run``.
    """
    kept = {"Description": describe_regions(atlas), **keep_keys(common, "regions")}
    texts = describe_columns({name: REGION_COLUMNS[name] for name in columns})
    # The schema of BIDS defines index, and warns where a sidecar does so again.
    del texts["index"]
    if "CoverageOf" in kept:
        texts["coverage"] = (
            "Share (0 to 1) of the region on the grid of the run that is used, as the"
            " atlas was moved there; compared with MinimumCoverage."
        )
    making.write(table, [format_table(columns)], "regions", kept, texts)


def write_outliers(
    making: Making,
    table: str,
    columns: Mapping[str, Any],
    *,
    strategy: str,
    facts: Mapping[str, Any],
) -> None:
    """Write which volumes a strategy left out, and why.

    ``columns`` are those of ``OUTLIER_COLUMNS``, one value per source volume.
    """
    sidecar = {
        "Description": f"Volumes of the run and whether {strategy} leaves them out.",
        "DenoisingStrategy": strategy,
        **facts,
    }
    texts = describe_columns({name: OUTLIER_COLUMNS[name] for name in columns})
    making.write(table, [format_table(columns)], "outliers", sidecar, texts)


def describe_regions(atlas: Atlas) -> str:
    """Description of the region tables of an atlas."""
    return f"Regions of atlas {atlas.name}, in the order of the columns of its series."


def describe_run(
    run: BoldRun,
    atlas: Atlas,
    deciding: Mapping[str, Any],
    digests: Digests,
    *,
    frame: Frame,
    n_volumes: int,
    mask_path: Path | None,
    repetition_time: float | None,
    fit: WarpFit | None,
    notes: tuple[str, ...],
) -> dict[str, Any]:
    """Sidecar keys that all outputs of a run and atlas share.

    ``deciding`` are the options that change numbers, by their keys;
    ``repetition_time`` is in seconds, ``None`` where it is not known; ``fit`` is how a
    moved atlas lies on the run; ``notes`` are warnings of this run and atlas.
    """
    content: dict[str, Any] = {"Sources": _list_sources(run, atlas, mask_path)}
    copied = [key.name for key in KEYS.values() if key.copied]
    content |= {name: run.metadata[name] for name in copied if name in run.metadata}
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
    content["SpatialReference"] = _spatial_reference(run, frame)
    names = {"res": "Resolution", "den": "Density"}
    present = {names[key] for key, _ in run.entities if key in names}
    content |= {key: str(run.metadata.get(key, frame)) for key in sorted(present)}
    content["NumberOfVolumes"] = n_volumes
    content["Units"] = "arbitrary"
    content["SoftwareFilters"] = "n/a"
    content |= _describe_atlas(run, atlas, fit)
    content |= {key: value for key, value in deciding.items() if value is not None}
    if mask_path is not None and not mask_path.is_relative_to(run.root):
        content["Mask"] = mask_path.name
    elif mask_path is None:
        content["Mask"] = "none"
    if notes:
        content["Warnings"] = list(notes)
    content |= digests.describe()
    content["SoftwareVersion"] = f"bids_roi {__version__}"
    return content


def _describe_atlas(run: BoldRun, atlas: Atlas, fit: WarpFit | None) -> dict[str, Any]:
    """Sidecar keys of the atlas: which it is, how it was moved and weighted."""
    content: dict[str, Any] = {"Atlas": atlas.name}
    if atlas.map_name is not None:
        content["AtlasMap"] = atlas.map_name
    if atlas.parts:
        content["AtlasParts"] = [part.name for part in atlas.parts]
    if atlas.spheres:
        radii = sorted({radius for *_, radius in atlas.spheres})
        content["SeedRadius"] = radii[0] if len(radii) == 1 else radii
    content["AtlasImageDigest"] = f"sha256:{atlas.image_digest}"
    if atlas.table_digest:
        content["AtlasTableDigest"] = f"sha256:{atlas.table_digest}"
    content |= _describe_route(run, atlas, fit)
    if atlas.areas is not None:
        whose = "of the participant" if atlas.areas.individual else "of all alike"
        content["VertexWeights"] = f"area, {whose}"
        content["VertexAreas"] = [
            f"bids:preprocessed:{path.relative_to(run.root).as_posix()}"
            if path.is_relative_to(run.root)
            else path.name
            for path in atlas.areas.files
        ]
        content["VertexAreasDigest"] = f"sha256:{atlas.areas.digest}"
    return content


def _list_sources(run: BoldRun, atlas: Atlas, mask_path: Path | None) -> list[str]:
    """URIs of what is read for a run and atlas."""
    more = [path for path, _ in atlas.route.steps] if atlas.route else []
    more += atlas.areas.files if atlas.areas else ()
    inside = [path for path in (*run.files, mask_path, *more) if path is not None]
    sources = [
        f"bids:preprocessed:{path.relative_to(run.root).as_posix()}"
        for path in inside
        if path.is_relative_to(run.root)
    ]
    sources.append(atlas.source or f"bids::{_table_name(atlas)}")
    for part in atlas.parts or (atlas,):
        if part.source and part is not atlas and part.kind == "dseg":
            sources.append(part.source)
        if part.source.startswith("bids:preprocessed:"):
            sources += [
                f"bids:preprocessed:{path.relative_to(run.root).as_posix()}"
                for path in part.files[1:]
                if path.is_relative_to(run.root)
            ]
    return sources


def _describe_route(run: BoldRun, atlas: Atlas, fit: WarpFit | None) -> dict[str, Any]:
    """Sidecar keys of how an atlas was moved; none where it was not."""
    if atlas.route is None:
        return {}
    steps = [
        f"bids:preprocessed:{path.relative_to(run.root).as_posix()}"
        f"{' (inverse)' if inverted else ''}"
        for path, inverted in atlas.route.steps
    ]
    facts: dict[str, Any] = {"AtlasTransform": steps}
    facts["AtlasTransformDigest"] = f"sha256:{atlas.route.digest}"
    if fit is not None:
        shown = {_MEASURES[k]: v for k, v in dataclasses.asdict(fit).items()}
        facts["AtlasTransformFit"] = {
            name: round(value, 4) for name, value in shown.items() if value == value
        }
    facts["CoverageOf"] = "moved atlas on the grid of the run"
    return facts


def _table_name(atlas: Atlas) -> str:
    return format_name(atlas.entities, "dseg", ".tsv")


def _surface_reference(run: BoldRun, frame: Frame) -> str | dict[str, str]:
    """Surfaces that a run's vertices lie on, and the image of its voxels, if any."""
    given = run.metadata.get("SpatialReference")
    if isinstance(given, dict) and given:
        return given
    own = f"bids:preprocessed:sub-{run.participant}/anat/sub-{run.participant}"
    reference = {}
    for part in frame.parts:
        mesh = part.support
        if not isinstance(mesh, Mesh):
            continue
        file = f"hemi-{part.structure[7:8]}_midthickness.surf.gii"  # of CORTEX_LEFT
        density = f"{round(mesh.n_vertices / 1000)}k"
        stem = f"{S3_ROOT}/tpl-{mesh.template}/tpl-{mesh.template}"
        reference[f"CIFTI_STRUCTURE_{part.structure}"] = (
            f"{own}_{file}"
            if mesh.template.startswith("fsnative")
            else f"{stem}_den-{density}_{file}"
        )
    if (grid := frame.voxel_grid) is not None:
        # The voxels of grayordinates are in this space, whatever the file's name says.
        six = "MNI152NLin6Asym"
        zooms = np.linalg.norm(grid.matrix[:3, :3], axis=0)
        fitting = [
            res
            for res, one in template_grids()[six].items()
            if one.shape == tuple(grid.shape) and np.allclose(one.zooms, zooms)
        ]
        url = f"{S3_ROOT}/tpl-{six}/tpl-{six}"
        if fitting:
            reference["VolumeReference"] = f"{url}_res-{fitting[0]}_T1w.nii.gz"
    return reference or f"bids:preprocessed:{run.relative_path}"


def _spatial_reference(run: BoldRun, frame: Frame) -> str | dict[str, str]:
    """URI of the image that defines the run's space."""
    given = run.metadata.get("SpatialReference")
    if isinstance(given, str) and given:
        return given
    space = run.space
    if run.kind != "volume":
        return _surface_reference(run, frame)
    own = f"bids:preprocessed:{run.relative_path}"
    if space is None or space in ("T1w", "boldref", "func", "individual"):
        return own
    cohort = parse_name(run.path).get("cohort")
    folder = f"tpl-{space}/cohort-{cohort}" if cohort else f"tpl-{space}"
    middle = f"_cohort-{cohort}" if cohort else ""
    return f"{S3_ROOT}/{folder}/tpl-{space}{middle}_res-01_T1w.nii.gz"
