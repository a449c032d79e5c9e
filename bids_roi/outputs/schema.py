"""Keys of the sidecars and columns of the tables of runs, each declared once.

What writes sidecars refuses a key that is not here. What a matrix takes over from its
series, the parameters on a page, the columns of ``group_runs.tsv``, of stacks and of
``Outputs.runs``, and the table of docs/outputs.md are filters over ``KEYS``. Keys of
options and of settings of cleaning come from the rows of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bids_roi.core.quality import STATUS
from bids_roi.files.tables import format_json
from bids_roi.options.settings import ROWS
from bids_roi.options.table import OPTIONS
from bids_roi.outputs.declared import Column, Key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The order is that of the columns in stacks.
_DECLARED = (
    Key(
        *("Description", "run", "text", "", "What the numbers are."),
        where="series regions relmat outliers group",
    ),
    Key(
        *("Sources", "run", "source", ""),
        "BIDS URIs of what was read: BOLD, mask, atlas, confounds, tables of your own;"
        " of a matrix, its series.",
    ),
    Key(
        *("NumberOfVolumes", "run", "measured", "volumes"),
        *("Volumes of the run.", "n_volumes"),
    ),
    Key(
        *("NumberOfVolumesKept", "series", "measured", "volumes"),
        *("Volumes that enter the series.", "n_volumes_kept"),
        where="series relmat outliers",
    ),
    Key(
        *("SecondsKept", "series", "measured", "s"),
        *("The same in seconds.", "seconds_kept"),
    ),
    Key(
        *("RepetitionTime", "run", "choice", "s", "Seconds.", "repetition_time"),
        where="series regions",
        more="Of the run. Where `VolumeTiming` is uneven, it stands in its place.",
    ),
    Key(
        *("SamplingFrequency", "run", "choice", "Hz"),
        "One over the repetition time; TR where volumes are not evenly spaced.",
        where="series",
    ),
    Key(
        *("StartTime", "run", "choice", "s", "Of the first volume, in the run."),
        where="series",
    ),
    Key(*("TaskName", "run", "choice", "", "As in the run's sidecar."), copied=True),
    Key(
        *("VolumeTiming", "run", "text", "s"),
        "When each row began, where rows are not evenly spaced: as in the run's"
        " sidecar, or of a series without the rows of censored volumes.",
        where="series",
        more="There is then neither `RepetitionTime` nor, without rows of censored"
        " volumes, `SamplingFrequency` and `DelayTime`.",
        copied=True,
    ),
    Key(
        *("DelayTime", "run", "choice", "s", "As in the run's sidecar."),
        where="series relmat",
        copied=True,
    ),
    Key(
        *("AcquisitionDuration", "run", "choice", "s"),
        "As in the run's sidecar; with VolumeTiming of kept rows, the repetition time"
        " without the delay where the run does not tell it.",
        where="series",
        copied=True,
    ),
    Key(
        *("SliceTimingCorrected", "run", "choice", "", "As in the run's sidecar."),
        where="series relmat",
        copied=True,
    ),
    Key(
        *("SourceRepetitionTime", "run", "choice", "s"),
        "Of the run, where the series lacks the rows of censored volumes.",
        where="series",
    ),
    Key("SpatialReference", "run", "choice", "", "Image that defines the run's space."),
    Key("Resolution", "run", "choice", "", "Of the run's grid."),
    Key("Density", "run", "choice", "", "Of the run's meshes."),
    Key(
        *("Units", "series", "choice", "", "arbitrary, as in the image;"),
        where="series",
        more="`percent` or `standard deviations` after `--standardize`.",
    ),
    Key(
        *("Atlas", "run", "choice", "", "Canonical id of the atlas."),
        where="series regions relmat group",
    ),
    Key(
        *("AtlasMap", "run", "choice", ""),
        "Map of the atlas image that was chosen among several, by name or number.",
        more="Only where one was.",
    ),
    Key("AtlasParts", "run", "choice", "", "The atlases that were combined, in order."),
    Key("SeedRadius", "run", "choice", "mm", "Radius of the spheres; each, once."),
    Key("AtlasImageDigest", "run", "choice", "", "SHA-256 of the atlas image."),
    Key("AtlasTableDigest", "run", "choice", "", "SHA-256 of the atlas table."),
    Key(
        *("AtlasTransform", "run", "source", ""),
        "Transforms that lead from the run to the atlas, in the order in which they"
        " move points; inverse where one is inverted.",
        more="Only where the atlas was moved"
        " ([T1w and native runs](atlases.md#t1w-and-native-runs)), as the next three.",
    ),
    Key("AtlasTransformDigest", "run", "source", "", "SHA-256 of what they hold."),
    Key(
        *("AtlasTransformFit", "run", "measured", ""),
        "How the moved atlas lies on the run: its volume over that in the template, the"
        " shares that are mirrored, that lie in the mask, and of the mask that the"
        " atlas's image covers, and the distance of its centre from the mask, mm.",
    ),
    Key(
        *("VertexWeights", "run", "choice", ""),
        "area where vertices weigh by their area and voxels by their volume, and whose"
        " surfaces tell it.",
        more="Only with `--vertex-weights area`, as the next two.",
    ),
    Key(
        *("VertexAreas", "run", "source", ""),
        "Files that the areas of vertices are from, left and right.",
    ),
    Key("VertexAreasDigest", "run", "source", "", "SHA-256 of these files."),
    Key(
        *("CoverageOf", "run", "choice", ""),
        "What coverage is a share of, where that is not the atlas's own grid.",
    ),
    Key(
        *("Statistic", "series", "choice", ""),
        "What was computed over the voxels or vertices of a region; of group tables,"
        " stat-.",
        where="series relmat group",
    ),
    Key(
        *("StatisticParameters", "series", "choice", ""),
        "Parameters of the statistic, where it has any.",
    ),
    Key(
        *("StatisticNote", "series", "text", ""),
        "What to know of an eigenvariate: what was centred, and that it is not linear.",
    ),
    Key(
        *("OptionsDigest", "run", "source", ""),
        "Hash of all that decides the numbers except the BOLD file; outputs that differ"
        " in it are never mixed.",
        where="series regions relmat group",
        more="A `--mask` image, an `--aroma-dataset` and a `--confounds-dataset` count"
        " by what they are, not by where they lie.",
    ),
    Key(
        *("TableDigest", "run", "source", ""),
        "SHA-256 of the table's bytes: another one was not written with this sidecar.",
        where="series regions relmat outliers",
    ),
    Key(
        *("SettingsDigest", "run", "source", ""),
        "The same without the participant's own segmentation and transforms: what must"
        " agree where each participant has these.",
    ),
    Key("SoftwareVersion", "run", "choice", "", "Program and version."),
    Key(
        *("Warnings", "run", "text", ""),
        "What you should know, for this run and atlas, or for the group.",
        where="series regions relmat group",
    ),
    Key(
        *("MeanFramewiseDisplacement", "run", "measured", "mm"),
        *("Mean framewise displacement over all volumes of the run, mm.", "fd_mean"),
        where="series relmat",
    ),
    Key(
        *("MeanFramewiseDisplacementKept", "series", "measured", "mm"),
        *("The same over the volumes that enter the series, mm.", "fd_mean_kept"),
    ),
    Key(
        *("MeanFilteredFramewiseDisplacement", "series", "measured", "mm"),
        *("Mean over all volumes after --motion-filter, mm.", "fd_filtered_mean"),
        stacked=False,
        optional=True,
    ),
    Key("MotionFilterOrder", "series", "choice", "1", "Both directions counted."),
    Key(
        *("MaxFramewiseDisplacement", "run", "measured", "mm"),
        *("Maximum over all volumes, mm.", "fd_max"),
        where="series relmat",
    ),
    Key(
        *("NumberOfVolumesMoved", "run", "measured", "volumes"),
        *("Volumes of FD above 0.2 mm, as MRIQC's fd_num.", "fd_num"),
        where="series relmat",
    ),
    Key(
        *("PercentVolumesMoved", "run", "measured", "%"),
        *("The same in percent of all volumes, as MRIQC's fd_perc.", "fd_perc"),
        where="series relmat",
    ),
    Key(
        *("MeanRMSD", "run", "measured", "mm"),
        "Mean over all volumes of Jenkinson's displacement, rmsd of the table of"
        " confounds, mm.",
        "rmsd_mean",
        where="series relmat",
        stacked=False,
    ),
    Key(
        *("GlobalSignalDeviation", "series", "measured", "arbitrary"),
        "Standard deviation (ddof 1) over volumes of the global signal, the mean over"
        " the regions of this series, in its units.",
        "gs_sd",
        where="series",
        more="([definition](numbers.md#global-signal))",
        stacked=False,
    ),
    Key(
        *("GlobalSignalDeviationBefore", "series", "measured", "arbitrary"),
        "The same before cleaning, of the same volumes and regions, in the units of the"
        " image.",
        "gs_sd_before",
        where="series",
        stacked=False,
    ),
    Key(
        *("FDGlobalSignalCorrelation", "series", "measured", ""),
        "Correlation over volumes of framewise displacement with that global signal.",
        "fd_gs_correlation",
        where="series",
        stacked=False,
    ),
    Key(
        *("FDGlobalSignalCorrelationBefore", "series", "measured", ""),
        "The same before cleaning.",
        "fd_gs_correlation_before",
        where="series",
        stacked=False,
    ),
    Key(
        *("FDDVARSCorrelation", "series", "measured", ""),
        *("Correlation of framewise displacement with DVARS.", "fd_dvars_correlation"),
        more="Of the run before cleaning ([definition](numbers.md#motion)).",
        stacked=False,
    ),
    Key(
        *("FDRegionalDVARSCorrelation", "series", "measured", ""),
        "The same with the change of the regions in this series.",
        more="([definition](numbers.md#motion))",
    ),
    Key(
        *("MeanCoverage", "series", "measured", "0 to 1"),
        *("Mean over the regions of their coverage (0 to 1).", "coverage_mean"),
    ),
    Key(
        *("NumberOfRegionsLost", "series", "measured", "regions"),
        *("Regions whose column is n/a in the series.", "n_regions_lost"),
    ),
    Key(
        *("RegionsWithoutSignal", "series", "measured", ""),
        "Regions that are n/a in this series although their status is ok.",
        more="([why](numbers.md#quality-of-a-region))",
    ),
    Key(
        *("MapRank", "series", "measured", ""),
        "Of maps and least squares: independent maps.",
        more="([definition](numbers.md#weighted-maps))",
    ),
    Key(
        *("MapCondition", "series", "measured", ""),
        "Of maps and least squares: how well they are told apart, a condition number.",
        more="([definition](numbers.md#weighted-maps))",
    ),
    Key(
        *("DenoisingStrategy", "series", "choice", "", "Of cleaned series: its name."),
        where="series relmat outliers",
    ),
    Key("DenoisingDescription", "series", "source", "", "The strategy in words."),
    Key(
        *("DenoisingDefinition", "series", "choice", ""),
        "The strategy as it was asked for, with every setting, as a strategy file has"
        " it; other keys tell what was done.",
    ),
    Key(
        *("ConfoundRegressors", "series", "measured", "", "Columns regressed out."),
        more="`NAME:COLUMN` for those of a `--confounds-dataset`.",
    ),
    Key(
        *("BackFilledRegressors", "series", "measured", ""),
        "Those whose missing first row took the value of the second.",
    ),
    Key(
        *("SoftwareFilters", "series", "choice", ""),
        "Kind and cut-offs as applied, or n/a: a cut-off beyond the Nyquist frequency"
        " is left out.",
        more="Of a pass-band fit the slow terms taken out and the dimensions kept; of"
        " a Butterworth filter order, interpolation, padding and ends.",
    ),
    Key(
        *("CensoredVolumes", "series", "choice", "", "What became of them."),
        where="series",
    ),
    Key(
        *("Interpolation", "series", "choice", ""),
        "How censored volumes were interpolated, where they were.",
    ),
    Key(
        *("LongestGap", "series", "measured", "volumes"),
        *("Most volumes in a row left out between two that were kept.", "longest_gap"),
        where="series relmat outliers",
    ),
    Key(
        *("NumberOfGaps", "series", "measured", "gaps"),
        *("Stretches of volumes left out between two that were kept.", "n_gaps"),
        where="series relmat outliers",
    ),
    Key("RegressorRank", "series", "measured", "", "Independent regressors."),
    Key(
        *("DegreesOfFreedom", "series", "measured", "1"),
        "Degrees of freedom that cleaning has left in the series, before"
        " autocorrelation.",
        "degrees_of_freedom",
        more="([definition](numbers.md#degrees-of-freedom))",
    ),
    Key(
        *("EffectiveDegreesOfFreedom", "series", "measured", "1"),
        "The same after autocorrelation (Bartlett), median over the regions.",
        "effective_degrees_of_freedom",
    ),
    Key(
        *("QualityStatistic", "regions", "choice", ""),
        "What mean, standard deviation and tSNR are of.",
    ),
    Key(
        *("QualityVolumes", "regions", "choice", ""),
        "Over which volumes they are: all, or steady.",
    ),
    Key(
        *("NonSteadyStateVolumes", "regions", "measured", ""),
        "The others, counted from 0.",
    ),
    Key(
        *("RelationshipMeasure", "relmat", "choice", ""),
        "What relates the regions, in words (BEP017, as the next six).",
    ),
    Key("Weighted", "relmat", "text", "", "true."),
    Key("Directed", "relmat", "text", "", "false."),
    Key(
        *("ValidDiagonal", "relmat", "text", ""),
        "Whether the diagonal says something: the variances of a covariance.",
    ),
    Key("StorageFormat", "relmat", "text", "", "Full: both triangles."),
    Key("NonNegative", "relmat", "text", "", "Whether no entry can be below 0."),
    Key("NodeFiles", "relmat", "source", "", "The table of the atlas's regions."),
    Key(
        *("NumberOfIdenticalEdges", "relmat", "measured", ""),
        "Pairs of regions with the same series; of a group, edges left out for that.",
        where="relmat group",
    ),
    Key(
        *("CombinedRuns", "relmat", "source", ""),
        "The runs that the matrix is over.",
        more="Only with `--combine-runs`"
        " ([definition](numbers.md#one-matrix-over-runs)), as the next three.",
    ),
    Key(
        *("RunsNotCombined", "relmat", "measured", ""),
        "Runs that are not in it, with the reason: they failed, or have no matrix.",
    ),
    Key("CombinedVolumes", "relmat", "measured", "volumes", "Kept volumes of each."),
    Key("CombinedTables", "relmat", "source", "", "SHA-256 of the series of each."),
    Key("Condition", "relmat", "choice", "", "Condition of the task (`--conditions`)."),
    Key("ConditionShift", "relmat", "choice", "s", "Its events were moved by this."),
    Key("ConditionVolumes", "relmat", "measured", "volumes", "In it, kept or not."),
    Key("ConditionEvents", "relmat", "source", "", "Table of events, and its SHA-256."),
    Key("ReasonNotAvailable", "relmat", "measured", "", "Why no entry has a value."),
    Key("GroupUnit", "group", "choice", "", "What statistics are of: --group-unit."),
    Key(
        *("MotionMeasure", "group", "choice", ""),
        "What QC-FC took as motion, where not fd_mean: a column of the runs.",
    ),
    Key(
        *("Covariates", "group", "choice", ""),
        "What was held constant: columns of participants.tsv.",
        more="Of QC-FC with `--covariates`, as the next.",
    ),
    Key(*("CovariatesTable", "group", "source", ""), "Where they are from."),
    Key("PermutationSeed", "group", "choice", "", "Seed of `--permutations`."),
    Key("NumberOfParticipants", "group", "measured", "", "Those with a matrix."),
    Key("NumberOfRuns", "group", "measured", "", "Runs with a matrix."),
    Key(
        *("RunsLeftOut", "group", "measured", ""),
        "Runs whose matrix is n/a throughout, with the reason.",
    ),
)


def _keys_of_options(declared: set[str]) -> list[Key]:
    """Keys that have the value of an option."""
    return [
        Key(option.sidecar, option.of, "choice", option.unit, option.help)
        for option in OPTIONS
        if option.of != "atlas" and option.sidecar not in {"", *declared}
    ]


def _keys_of_settings() -> list[Key]:
    """Keys of cleaned series that have a setting as it was applied."""
    return [
        Key(
            row.sidecar,
            "series",
            # Where auto can be asked for, the key has the number that came of it.
            "measured" if row.values.fits("auto") else "choice",
            row.values.unit,
            "As applied; what was off is left out or 0.",
            more=f"Setting `{name}`.",
        )
        for name, row in ROWS.items()
        if row.sidecar
    ]


KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        *_DECLARED,
        *_keys_of_options({key.name for key in _DECLARED}),
        *_keys_of_settings(),
    )
}

# What ``group_runs.tsv`` tells of a series; stacks and ``Outputs.runs`` most of it.
COLUMNED = tuple(key for key in KEYS.values() if key.column)
FACTS = tuple(key for key in COLUMNED if key.stacked)


def _by_name(*columns: Column) -> dict[str, Column]:
    return {column.name: column for column in columns}


# In the order of the tables.
REGION_COLUMNS = _by_name(
    Column("index", "Label value of the region in the atlas image.", "1"),
    Column("name", "Name of the region: its column in the time series."),
    Column("network", "Network of the region, from the atlas table."),
    Column(
        "structure",
        "Structures that the region is of, as CIFTI names them; of atlases of surfaces"
        " and grayordinates.",
    ),
    Column(
        "volume",
        "Volume of the region on the atlas's own grid, {unit}; n/a on surfaces.",
        "mm^3",
    ),
    Column(
        "area",
        "Area of the region's vertices in the atlas, {unit}, on the surfaces that"
        " vertices weigh by; n/a where it has voxels.",
        "mm^2",
    ),
    Column(
        "x",
        "Centre of gravity of the region in the atlas image, {unit} to the right"
        " (RAS+).",
        "mm",
    ),
    Column("y", "The same, {unit} to the front.", "mm"),
    Column("z", "The same, {unit} upwards.", "mm"),
    Column(
        "centre_offset",
        "Distance from that centre to the nearest voxel of the region, {unit}; 0"
        " where it lies in the region. Large where a region has parts on both"
        " sides.",
        "mm",
    ),
    Column(
        "n_voxels_atlas",
        "Voxels or vertices of the region in the atlas itself.",
        "voxels",
    ),
    Column(
        "overlapped",
        "Share ({unit}) of its places that an earlier atlas of the combination took.",
        "0 to 1",
    ),
    Column(
        "n_voxels_grid",
        "Voxels or vertices of the region among those of the BOLD run.",
        "voxels",
    ),
    Column("n_voxels_mask", "Those of them inside the brain mask.", "voxels"),
    Column(
        "n_voxels_dropout",
        "Those of them that are outside the field of view at times: exactly 0 in"
        " some volumes, and all other values on one side of 0. They are not used.",
        "voxels",
    ),
    Column(
        "n_voxels_used",
        "Those inside the mask that are finite and in the field of view in every"
        " volume, and not constant; only they enter a statistic.",
        "voxels",
    ),
    Column(
        "coverage",
        "Share ({unit}) of the atlas voxels whose centre lies in a BOLD voxel that"
        " is used; compared with MinimumCoverage.",
        "0 to 1",
    ),
    Column("coverage_grid", "n_voxels_used over n_voxels_grid ({unit}).", "0 to 1"),
    Column(
        "status",
        "ok, or why the column is n/a: "
        + " ".join(f"{word}: {text}" for word, text in STATUS.items()),
    ),
    Column(
        "mean",
        "Mean over time of the regional mean, or of QualityStatistic for maps,"
        " before cleaning, over QualityVolumes (all, or the steady ones), in the"
        " units of the BOLD image.",
        "arbitrary",
    ),
    Column(
        "standard_deviation",
        "Standard deviation over time of the same (ddof 1).",
        "arbitrary",
    ),
    Column("tsnr", "mean over standard_deviation.", "1"),
    Column(
        "voxel_tsnr",
        "Mean over the voxels or vertices of their own mean over standard deviation"
        " (ddof 1), over QualityVolumes; with --region-measures, as the next.",
        "1",
    ),
    Column(
        "homogeneity",
        "The same of their correlation with the regional mean, which they are part of.",
        "1",
    ),
)

# XCP-D's tables of this name have 1 for outliers, in a column framewise_displacement.
# Code for those must not read millimetres or an inverted flag here: it finds no column.
OUTLIER_COLUMNS = _by_name(
    Column("outlier", "1 for volumes that are left out, 0 for the others.", "1"),
    Column("dummy", "1 for volumes that are not in a steady state yet.", "1"),
    Column("fd", "Framewise displacement, as in the table of confounds, {unit}.", "mm"),
    Column(
        "fd_filtered",
        "The same after --motion-filter, {unit}: what FDThreshold is for.",
        "mm",
    ),
    Column("std_dvars", "Standardised DVARS, as in the table of confounds.", "1"),
    Column(
        "why",
        "Reasons why the volume was left out, separated by commas: dummy; fd or"
        " std_dvars above its threshold; neighbour of such a volume; short_segment"
        " between such volumes.",
    ),
)


def format_sidecar(
    output: str,
    content: Mapping[str, Any],
    columns: Mapping[str, str] | None = None,
    *,
    warnings: Sequence[str] = (),
) -> str:
    """Text of a sidecar; ``columns`` are descriptions, by name of the column."""
    last = {"Warnings": warnings} if warnings else {}
    for key in (*content, *last):
        if key not in KEYS or output not in KEYS[key].outputs:
            msg = f"outputs/schema.py declares no {key} for a sidecar of {output}"
            raise KeyError(msg)
    told = {name: {"Description": text} for name, text in (columns or {}).items()}
    return format_json({**content, **told, **last})


def keep_keys(content: Mapping[str, Any], output: str) -> dict[str, Any]:
    """Those of some keys that sidecars of an output have."""
    return {k: value for k, value in content.items() if output in KEYS[k].outputs}


def describe_columns(columns: Mapping[str, Column]) -> dict[str, str]:
    """Descriptions of columns, for ``format_sidecar``."""
    return {name: column.description for name, column in columns.items()}
