"""Keys of the sidecars of runs, each declared once.

What writes sidecars refuses a key that is not here. What a matrix takes over from its
series, the parameters on a page, the columns of ``group_runs.tsv``, of stacks and of
``Outputs.runs``, and the table of docs/outputs.md are filters over ``KEYS``. Keys of
options and of settings of cleaning come from the rows of these.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal

from bids_roi.files.tables import format_json
from bids_roi.options.settings import ROWS
from bids_roi.options.table import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Of = Literal["run", "series", "regions", "relmat", "outliers", "group"]
Role = Literal["choice", "source", "measured", "text"]

# Outputs whose sidecars have a key, where its declaration does not say.
_WHERE = {"run": "series regions relmat", "series": "series relmat"}


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a sidecar.

    ``of`` is what it tells something of; a number of the run holds for each of its
    series. ``role`` is what a page makes of it: ``choice``, chosen or given by run and
    atlas, is among the parameters; ``source`` (files, digests, definitions) and
    ``measured`` are in the list of all keys only; ``text`` is said elsewhere. ``text``
    describes its column too, ``column`` is its name in tables of many runs, ``more``
    what docs/outputs.md says besides. ``where`` are the outputs whose sidecars have it,
    where that does not follow from ``of``; ``copied`` ones come from the sidecar of the
    BOLD file; ``stacked`` ones are in stacks and ``Outputs.runs`` too; the column of
    an ``optional`` one is in tables only where a run has a value.
    """

    name: str
    of: Of
    role: Role
    unit: str
    text: str
    column: str = ""
    _: KW_ONLY
    where: str = ""
    more: str = ""
    copied: bool = False
    stacked: bool = True
    optional: bool = False

    @property
    def outputs(self) -> list[str]:
        """Outputs whose sidecars have it."""
        return (self.where or _WHERE.get(self.of, self.of)).split()


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

KEYS = {key.name: key for key in _DECLARED}
for _option in OPTIONS:
    if _option.of != "atlas" and _option.sidecar not in ("", *KEYS):
        KEYS[_option.sidecar] = Key(
            _option.sidecar, _option.of, "choice", _option.unit, _option.help
        )
for _name, _row in ROWS.items():
    if _row.sidecar:
        KEYS[_row.sidecar] = Key(
            _row.sidecar,
            "series",
            # Where auto can be asked for, the key has the number that came of it.
            "measured" if _row.values.fits("auto") else "choice",
            _row.values.unit,
            "As applied; what was off is left out or 0.",
            more=f"Setting `{_name}`.",
        )

# What ``group_runs.tsv`` tells of a series; stacks and ``Outputs.runs`` most of it.
COLUMNED = tuple(key for key in KEYS.values() if key.column)
FACTS = tuple(key for key in COLUMNED if key.stacked)


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


def read_fact(sidecar: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - JSON
    """Value of a key of ``FACTS``; ``None`` where it is not told.

    The repetition time of a series that lacks rows is that of its run.
    """
    if key == "RepetitionTime" and key not in sidecar:
        key = "SourceRepetitionTime"
    return sidecar.get(key)


def describe_series(sidecar: Mapping[str, Any]) -> dict[str, float | None]:
    """Facts of a series, by column of ``FACTS``; ``None`` for what is not told."""
    told = {key.column: read_fact(sidecar, key.name) for key in FACTS}
    return {
        column: float(value) if isinstance(value, int | float) else None
        for column, value in told.items()
    }


def texts_of(sidecar: Mapping[str, Any], key: str) -> list[str]:
    """Texts in a list of a sidecar; none where it is no list, as after an edit."""
    given = sidecar.get(key)
    return [t for t in given if isinstance(t, str)] if isinstance(given, list) else []
