"""Results of a run, which its files and figures are made from; files beside tables."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.quality import STATUS, temporal_snr
from bids_roi.errors import BidsRoiError
from bids_roi.files.tables import read_json, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas
    from bids_roi.confounds.motion import FilteredMotion
    from bids_roi.confounds.strategies import Strategy
    from bids_roi.confounds.table import Selected
    from bids_roi.core.clean import Cleaned
    from bids_roi.core.frame import Frame
    from bids_roi.core.map_solver import MapSolver
    from bids_roi.core.mapping import RegionMap
    from bids_roi.core.motion import Censoring
    from bids_roi.core.partition import Partition
    from bids_roi.core.quality import RegionQuality
    from bids_roi.core.reduce import Reduction
    from bids_roi.dataset.run import BoldRun
    from bids_roi.outputs.derivatives import RunOutputs, SeriesOutput


@dataclass(frozen=True, slots=True)
class Extracted:
    """Signals of all atlases of a run, from one pass over its file."""

    partition: Partition
    # (V,): whether each voxel is inside the mask.
    inside: NDArray[np.bool_]
    reduction: Reduction
    qualities: tuple[RegionQuality, ...]
    # (T, 5) or None: components of the voxels of high variance, where asked for.
    high_variance: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Motion:
    """What the table of confounds tells of a run's motion."""

    # fd, std_dvars (T,) or None: framewise displacement in mm and standardised DVARS;
    # ``None`` where not told.
    fd: NDArray[np.float64] | None = None
    std_dvars: NDArray[np.float64] | None = None
    # (T,) or None: volumes that are not flagged as non-steady state; ``None`` where
    # nothing tells.
    steady: NDArray[np.bool_] | None = None
    # Why the table could not be used.
    notes: tuple[str, ...] = ()
    # (T, 6) or None: translations along x, y and z in mm, rotations about them in
    # radians.
    parameters: NDArray[np.float64] | None = None
    # (T,) or None: framewise displacement in mm after a strategy's motion filter.
    fd_filtered: NDArray[np.float64] | None = None
    # (T,) or None: Jenkinson's displacement from volume to volume, mm.
    rmsd: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a strategy means for one run, before a volume of it is read."""

    strategy: Strategy
    # Columns to regress out.
    selected: Selected
    # Volumes to leave out, and why.
    censoring: Censoring
    # fd, dvars (T,) or None: framewise displacement in mm and standardised DVARS,
    # where the table has them.
    fd: NDArray[np.float64] | None
    dvars: NDArray[np.float64] | None
    # Motion that a filter was used on, which decides in the place of ``fd``.
    filtered: FilteredMotion | None = None


@dataclass(frozen=True, slots=True)
class CleanedSeries:
    """Signals as they are written, and what is said of them."""

    # (T or fewer, R): as ``--censored`` asks.
    signals: NDArray[np.float64]
    # The kept volumes, and what they were rid of.
    cleaned: Cleaned
    facts: dict[str, Any]
    notes: tuple[str, ...]
    # What it was cleaned with.
    preparation: Preparation


@dataclass(frozen=True, slots=True)
class AtlasResult:
    """What came of a run for one atlas."""

    # atlas and names: what was extracted, and where it goes; without the strategies
    # that failed.
    atlas: Atlas
    names: RunOutputs
    mapped: RegionMap
    quality: RegionQuality
    # (T, R) per statistic, raw; NaN columns for lost regions.
    signals: Mapping[str, NDArray[np.float64]]
    cleaned: Mapping[SeriesOutput, CleanedSeries]
    # Labels of the strategies that could not be carried out, and why.
    failed: Mapping[str, BidsRoiError]
    # (R,) per measure of the regions that was asked for; NaN for lost ones.
    measures: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    # What least squares found of the maps; ``None`` for labels, or if not asked for.
    maps: MapSolver | None = None
    # What the user should know of the voxels.
    notes: tuple[str, ...] = ()
    # (R, R) by the path of the table, once they are written.
    relmats: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def level_statistic(self) -> str:
        """What levels are of: the regional mean of labels; of maps, the first asked."""
        if "mean" in self.signals:
            return "mean"
        return next(series.statistic for series in self.names.timeseries)

    def levels(self, motion: Motion) -> dict[str, NDArray[np.float64]]:
        """Level, deviation and tSNR of each region over the steady volumes, (R,)."""
        signals = self.signals[self.level_statistic]
        if motion.steady is not None:
            signals = signals[motion.steady]
        level = signals.mean(axis=0)
        deviation = np.full_like(level, np.nan)
        if len(signals) > 1:
            deviation = signals.std(axis=0, ddof=1)
        return {
            "mean": level,
            "standard_deviation": deviation,
            "tsnr": temporal_snr(level, deviation),
        }


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table of a run: its description has ``{unit}`` for the unit.

    That is of its numbers, ``1`` where they have none; empty for words.
    """

    text: str
    unit: str = ""

    @property
    def description(self) -> str:
        """Its description, with the unit."""
        return self.text.format(unit=self.unit)


# In the order of the tables.
REGION_COLUMNS = {
    "index": Column("Label value of the region in the atlas image.", "1"),
    "name": Column("Name of the region: its column in the time series."),
    "network": Column("Network of the region, from the atlas table."),
    "structure": Column(
        "Structures that the region is of, as CIFTI names them; of atlases of surfaces"
        " and grayordinates."
    ),
    "volume": Column(
        "Volume of the region on the atlas's own grid, {unit}; n/a on surfaces.", "mm^3"
    ),
    "area": Column(
        "Area of the region's vertices in the atlas, {unit}, on the surfaces that"
        " vertices weigh by; n/a where it has voxels.",
        "mm^2",
    ),
    "x": Column(
        "Centre of gravity of the region in the atlas image, {unit} to the right"
        " (RAS+).",
        "mm",
    ),
    "y": Column("The same, {unit} to the front.", "mm"),
    "z": Column("The same, {unit} upwards.", "mm"),
    "centre_offset": Column(
        "Distance from that centre to the nearest voxel of the region, {unit}; 0"
        " where it lies in the region. Large where a region has parts on both"
        " sides.",
        "mm",
    ),
    "n_voxels_atlas": Column(
        "Voxels or vertices of the region in the atlas itself.", "voxels"
    ),
    "overlapped": Column(
        "Share ({unit}) of its places that an earlier atlas of the combination took.",
        "0 to 1",
    ),
    "n_voxels_grid": Column(
        "Voxels or vertices of the region among those of the BOLD run.", "voxels"
    ),
    "n_voxels_mask": Column("Those of them inside the brain mask.", "voxels"),
    "n_voxels_dropout": Column(
        "Those of them that are outside the field of view at times: exactly 0 in"
        " some volumes, and all other values on one side of 0. They are not used.",
        "voxels",
    ),
    "n_voxels_used": Column(
        "Those inside the mask that are finite and in the field of view in every"
        " volume, and not constant; only they enter a statistic.",
        "voxels",
    ),
    "coverage": Column(
        "Share ({unit}) of the atlas voxels whose centre lies in a BOLD voxel that"
        " is used; compared with MinimumCoverage.",
        "0 to 1",
    ),
    "coverage_grid": Column("n_voxels_used over n_voxels_grid ({unit}).", "0 to 1"),
    "status": Column(
        "ok, or why the column is n/a: "
        + " ".join(f"{word}: {text}" for word, text in STATUS.items())
    ),
    "mean": Column(
        "Mean over time of the regional mean, or of QualityStatistic for maps,"
        " before cleaning, over QualityVolumes (all, or the steady ones), in the"
        " units of the BOLD image.",
        "arbitrary",
    ),
    "standard_deviation": Column(
        "Standard deviation over time of the same (ddof 1).", "arbitrary"
    ),
    "tsnr": Column("mean over standard_deviation.", "1"),
    "voxel_tsnr": Column(
        "Mean over the voxels or vertices of their own mean over standard deviation"
        " (ddof 1), over QualityVolumes; with --region-measures, as the next.",
        "1",
    ),
    "homogeneity": Column(
        "The same of their correlation with the regional mean, which they are part of.",
        "1",
    ),
}

# XCP-D's tables of this name have 1 for outliers, in a column framewise_displacement.
# Code for those must not read millimetres or an inverted flag here: it finds no column.
OUTLIER_COLUMNS = {
    "outlier": Column("1 for volumes that are left out, 0 for the others.", "1"),
    "dummy": Column("1 for volumes that are not in a steady state yet.", "1"),
    "fd": Column("Framewise displacement, as in the table of confounds, {unit}.", "mm"),
    "fd_filtered": Column(
        "The same after --motion-filter, {unit}: what FDThreshold is for.", "mm"
    ),
    "std_dvars": Column("Standardised DVARS, as in the table of confounds.", "1"),
    "why": Column(
        "Reasons why the volume was left out, separated by commas: dummy; fd or"
        " std_dvars above its threshold; neighbour of such a volume; short_segment"
        " between such volumes."
    ),
}


def describe_columns(columns: Mapping[str, Column]) -> dict[str, str]:
    """Descriptions of columns, for ``format_sidecar``."""
    return {name: column.description for name, column in columns.items()}


_DESC = re.compile(r"_desc-([A-Za-z0-9]+)_([A-Za-z0-9]+)$")


def figure_path(table: str, kind: str, extension: str) -> str:
    """Name a figure after the table that it shows; both relative to the output folder.

    >>> figure_path("sub-1/ses-2/func/sub-1_ses-2_atlas-A_dseg.tsv", "contours", ".svg")
    'sub-1/figures/sub-1_ses-2_atlas-A_desc-contours_dseg.svg'
    >>> figure_path("sub-1/func/sub-1_desc-36P_timeseries.tsv", "carpet", ".svg")
    'sub-1/figures/sub-1_desc-36PCarpet_timeseries.svg'
    """
    stem = table.rpartition("/")[2].removesuffix(".tsv")
    found = _DESC.search(stem)
    if found:
        whole = f"{found[1]}{kind[0].upper()}{kind[1:]}"
        stem = f"{stem[: found.start()]}_desc-{whole}_{found[2]}"
    else:
        head, _, suffix = stem.rpartition("_")
        stem = f"{head}_desc-{kind}_{suffix}"
    return f"{table.partition('/')[0]}/figures/{stem}{extension}"


def report_path(table: str) -> str:
    """Name the list of the figures of a table."""
    return figure_path(table, "report", ".json")


def motion_table(run: BoldRun) -> str:
    """Name of what the motion figures of a run without cleaning are made from."""
    stem = run.relative_path.partition(".")[0]
    return stem.replace("_desc-preproc_", "_") + ".tsv"


def read_figures(listed: Path) -> dict[str, Any]:
    """Read a list of figures; empty where it is absent or damaged."""
    try:
        content = read_json(listed)
    except BidsRoiError:
        return {}
    figures = content.get("Figures")
    texts = ("File", "Kind", "Title", "Caption", "Alternative")
    sound = isinstance(figures, list) and all(
        isinstance(figure, dict) and all(isinstance(figure.get(t), str) for t in texts)
        for figure in figures
    )
    return content if sound else {}


def has_figures(output_dir: Path, tables: Iterable[str]) -> bool:
    """Tell whether the figures of all tables were drawn and are still there."""
    for table in tables:
        listed = output_dir / report_path(table)
        figures = read_figures(listed).get("Figures")
        if figures is None:
            return False
        if not all((listed.parent / figure["File"]).is_file() for figure in figures):
            return False
    return True


def parcellated_of(table: str) -> str:
    """Name of a series or matrix as a CIFTI file; XCP-D's spelling.

    >>> parcellated_of("sub-1_stat-pearsoncorrelation_relmat.tsv")
    'sub-1_stat-pearsoncorrelation_boldmap.pconn.nii'
    """
    if table.endswith("_relmat.tsv"):
        return table.removesuffix("_relmat.tsv") + "_boldmap.pconn.nii"
    return table.removesuffix(".tsv") + ".ptseries.nii"


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
    from bids_roi.core.frame import Points
    from bids_roi.core.mapping import strongest_map
    from bids_roi.images.cifti import matrix_content, parcels_axis, series_content

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
        kept = None if clean is None else clean.cleaned.sample_mask
        if kept is not None and len(values) < len(kept):
            whole = np.full((kept.size, values.shape[1]), np.nan)
            whole[kept] = values
            values = whole
        content = series_content(axis, values, repetition_time)
        write_file(output_dir, parcellated_of(series.path), content)
    return []
