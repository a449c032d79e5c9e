"""The table of options: one field for each flag, with all that is told of it.

A field carries its row. The command line, ``boutiques.json``, docs/options.md and the
keys in the sidecars are made from the rows, so one word serves from the flag
(``--min-coverage``) through the field (``min_coverage``) to the sidecar
(``MinimumCoverage``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping  # noqa: TC003 - list_options reads the types
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - as above
from typing import ClassVar

from bids_roi.errors import UsageError
from bids_roi.options.row import (
    Group,
    Input,
    Running,
    check_there,
    labels,
    list_options,
    option,
    refuse_url,
    switch,
)
from bids_roi.options.settings import SETTING_OPTIONS
from bids_roi.options.words import (
    ESTIMATORS,
    MEASURES,
    REGION_MEASURES,
    REGULARISATIONS,
    STATISTICS,
    name_statistics,
)

LEVELS = ("participant", "group")

DEFAULT_ATLAS = "Schaefer2018_seg-7n_scale-400"


@dataclass(frozen=True, slots=True)
class Atlases:
    """Which atlases, and where they are looked for."""

    heading: ClassVar[str] = "atlases"

    atlas: tuple[str, ...] = labels(
        "Atlases by name: canonical (Schaefer2018_seg-7n_scale-400), TemplateFlow's"
        " (Schaefer2018:400Parcels7Networks) or short (schaefer400, schaefer400x17,"
        " harvardoxford, harvardoxford-sub, difumo128); of an --atlas-dataset; or"
        " subject:DESC for each participant's own segmentation in the derivative"
        " (subject:aparcaseg, subject:aseg) or, on its own surface, FreeSurfer's annots"
        " (subject:aparc, subject:aparc.a2009s). A name covers volumes, grayordinates"
        " and surfaces: what lies as the run does is taken, in the resolution nearest"
        " to it. `bids_roi_tools atlases` lists all. Default, where no atlas of any"
        f" kind is given: {DEFAULT_ATLAS}.",
        metavar="NAME",
        sidecar="Atlas",
        of="atlas",
        aliases=("--atlases",),
    )
    atlas_file: tuple[str, ...] = labels(
        "Your own atlas: a label image (or 4D maps) and its table, separated by a"
        " comma. For grayordinates and surfaces a .dlabel.nii file, or"
        " L=LEFT,R=RIGHT[,TABLE] with .annot or .label.gii files; their own label"
        " tables will do, and IMAGE#2 or IMAGE#NAME takes one of several maps. Tables"
        " are TSV or CSV with index and name, FSL's XML,"
        " FreeSurfer's colour table, or xcpEngine's NodeNames.txt."
        " `bids_roi_tools check-atlas` says what is wrong with one.",
        metavar="IMAGE[,TABLE]",
    )
    atlas_dataset: tuple[str, ...] = labels(
        "BIDS-atlas datasets (tpl-*/[anat/]tpl-*_atlas-*_dseg with .nii.gz,"
        " .dlabel.nii, or hemi-L and hemi-R .label.gii). Their atlases"
        " can be named with --atlas; without it, all are used.",
        metavar="NAME=DIR",
        aliases=("--atlas-datasets",),
    )
    combine: tuple[str, ...] = labels(
        "One parcellation out of several atlases of labels: names as for --atlas, of an"
        " --atlas-file (its atlas or file name) or an --atlas-dataset. Where two have a"
        " region, the earlier one's stays; what others lost is in the column overlapped"
        " of the region table. The parts are not extracted by themselves, unless"
        " --atlas names them.",
        metavar="NAME=ATLAS,ATLAS",
    )
    seeds: tuple[str, ...] = labels(
        "Spheres around coordinates: tables with x, y, z (mm, RAS+), name and, if you"
        " like, radius and network. A voxel belongs to every sphere that has its"
        " centre.",
        metavar="FILE",
    )
    seed_radius: float | None = option(
        "Radius of the --seeds that have none in their table.",
        metavar="MM",
        unit="mm",
    )
    atlas_space: str | None = option(
        "Space of the --atlas-file images and --seeds whose names carry neither tpl-"
        " nor space-; one that contradicts a name is an error.",
        metavar="LABEL",
    )
    atlas_transform: str = option(
        "How atlases of a template come to runs in T1w space and to native ones, where"
        " --space asks for these: auto, by the transforms that fMRIPrep wrote; none,"
        " not at all. Nothing is ever estimated.",
        default="auto",
        choices=("auto", "none"),
    )
    templateflow_home: Path | None = option(
        "Folder in TemplateFlow's layout that holds atlases; looked at before"
        " $TEMPLATEFLOW_HOME, the container image's copy and the user's cache. What"
        " none of them holds is downloaded, into this folder if it can be written.",
        metavar="DIR",
    )
    fs_subjects_dir: Path | None = option(
        "FreeSurfer's folder of participants, for subject:aparc on surfaces. Default:"
        " sourcedata/freesurfer of the derivative.",
        metavar="DIR",
    )
    offline: bool = switch(
        "Never download: an atlas that is not there is an error with the list of"
        " files to fetch (`bids_roi_tools fetch`)."
    )

    def __post_init__(self) -> None:
        """Refuse URLs where files are needed, and a radius that is none."""
        _refuse_urls(*self.atlas_file, *self.atlas_dataset, *self.seeds)
        if self.seed_radius is not None and not self.seeds:
            msg = "--seed-radius has no effect without --seeds."
            raise UsageError(msg, remedy="Add --seeds FILE, or leave it out.")
        if self.seed_radius is not None and not 0 < self.seed_radius <= 50:
            msg = (
                f"--seed-radius is in mm, above 0 and up to 50, not"
                f" {self.seed_radius:g}."
            )
            raise UsageError(msg)

    @property
    def names(self) -> tuple[str, ...]:
        """Atlases by name; the default one where none is asked for in any way."""
        return self.atlas if self.given else (DEFAULT_ATLAS,)

    @property
    def given(self) -> bool:
        """Whether an atlas is asked for in any way."""
        named = self.atlas or self.atlas_file or self.atlas_dataset
        return bool(named or self.combine or self.seeds)


@dataclass(frozen=True, slots=True)
class Extraction:
    """How a run becomes regional signals."""

    heading: ClassVar[str] = "extraction"

    statistic: tuple[str, ...] = option(
        "What to compute over the voxels of a region, per volume.",
        default=("mean",),
        choices=name_statistics(of="labels"),
        sidecar="Statistic",
        of="series",
    )
    map_statistic: tuple[str, ...] = option(
        "What to compute for atlases of weighted maps:"
        f" {' or '.join(s.help for s in STATISTICS if s.of == 'maps')}.",
        default=("least_squares",),
        choices=name_statistics(of="maps"),
        sidecar="Statistic",
        of="series",
    )
    region_measures: tuple[str, ...] = option(
        "Columns of the region table that are over the single voxels of each region of"
        " labels: voxel_tsnr, the mean of their tSNR, and homogeneity, of their"
        " correlation with the regional mean. Default: none.",
        default=(),
        choices=REGION_MEASURES,
        sidecar="RegionMeasures",
    )
    mask: str = option(
        "Brain mask: auto (the run's own), none, or an image for all runs, of 0 and"
        " whole numbers; a probability map is refused.",
        default="auto",
        metavar="{auto,none,PATH}",
        sidecar="Mask",
    )
    min_coverage: float = option(
        "A region of which less than this share can be used becomes an n/a column.",
        default=0.5,
        metavar="SHARE",
        unit="0 to 1",
        sidecar="MinimumCoverage",
    )
    smoothing_fwhm: float | None = option(
        "Smooth every volume with a Gaussian of this full width at half maximum before"
        " anything is taken from it.",
        metavar="MM",
        unit="mm",
        sidecar="SmoothingFWHM",
    )
    repetition_time: float | None = option(
        "Repetition time, instead of the one in the sidecar or header.",
        metavar="S",
        unit="s",
        sidecar="RepetitionTimeGiven",
    )

    vertex_weights: str = option(
        "How vertices weigh in the mean of a region: none, all alike; area, by their"
        " area, and voxels of grayordinates by their volume, as `wb_command"
        " -cifti-parcellate -spatial-weights` does. Volumes: no difference.",
        default="none",
        choices=("none", "area"),
    )
    surface: str = option(
        "Where --vertex-weights area takes areas from: template, the mean areas of"
        " TemplateFlow (fsLR; fsaverage with 163,842 vertices); participant, the"
        " midthickness in anat/ on the run's mesh, and always so on fsnative; or"
        " L=FILE,R=FILE, surfaces (.surf.gii) or maps of areas (.shape.gii).",
        default="template",
        metavar="{template,participant,L=FILE,R=FILE}",
    )
    cifti_output: bool = switch(
        "Write series and matrices of runs on surfaces and grayordinates as CIFTI"
        " files, too (.ptseries.nii, .pconn.nii), which Workbench opens."
    )

    def __post_init__(self) -> None:
        """Check single values; raise ``UsageError`` with the remedy."""
        _refuse_urls(self.mask)
        # In whatever order they are asked for, they make the same table.
        object.__setattr__(self, "region_measures", tuple(sorted(self.region_measures)))
        if not 0 <= self.min_coverage <= 1:
            msg = f"--min-coverage is a share from 0 to 1, not {self.min_coverage:g}."
            raise UsageError(msg)
        self._check_areas()
        if self.repetition_time is not None and not 0.05 <= self.repetition_time <= 20:
            msg = (
                f"--repetition-time is in seconds; {self.repetition_time:g} s is not a"
                " plausible value (0.05 to 20)."
            )
            raise UsageError(msg, remedy="If it is in milliseconds, divide by 1000.")
        if self.smoothing_fwhm is not None and not 0 < self.smoothing_fwhm <= 50:
            msg = (
                f"--smoothing-fwhm is in mm, above 0 and up to 50, not"
                f" {self.smoothing_fwhm:g}."
            )
            raise UsageError(msg, remedy="Leave it out for no smoothing.")

    def _check_areas(self) -> None:
        """Refuse areas that nothing weighs by, and statistics that have no weights."""
        files = dict(re.findall(r"([LR])=([^,]+)", self.surface))
        words = self.surface in ("template", "participant")
        if not words and ",".join(f"{k}={v}" for k, v in files.items()) != self.surface:
            msg = (
                f"--surface is template, participant, or L=FILE,R=FILE: {self.surface}"
            )
            raise UsageError(msg, remedy="Name the file of each hemisphere.")
        _refuse_urls(*files.values())
        others = [name for name in self.statistic if name != "mean"]
        others += self.region_measures
        if self.vertex_weights == "none" and self.surface != "template":
            msg = "--surface has no effect with --vertex-weights none."
            raise UsageError(msg, remedy="Add --vertex-weights area.")
        if self.vertex_weights == "area" and others:
            msg = f"--vertex-weights area weighs the mean, not {', '.join(others)}."
            remedy = "Ask for the mean alone, and for the others in another folder."
            raise UsageError(msg, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Cleaning:
    """How signals are cleaned, and with which regressors."""

    heading: ClassVar[str] = "cleaning"

    strategy: tuple[str, ...] = labels(
        "Strategies of cleaning: none (raw signals), presets such as simple, scrubbing,"
        " 24P, 36P, acompcor, or JSON files. Each makes outputs of its own, with its"
        " name in desc-. The options below replace settings of the strategies (none"
        " stays raw); given alone they clean without confounds. Default: none.",
        metavar="NAME",
        aliases=("--strategies", "--denoise"),
    )
    # Those that were given, by name, as words of the command line; ``read_given`` in
    # ``options.settings`` reads them. Their rows are those of ``Settings``.
    settings: Mapping[str, object] = field(default_factory=dict, hash=False)
    censored: str = option(
        "What becomes of censored volumes: drop their rows, na for rows of n/a, or"
        " interpolate them.",
        default="drop",
        choices=("drop", "na", "interpolate"),
    )
    high_variance_confounds: bool = switch(
        "Regress out the five main components of the voxels that vary most, as nilearn"
        " defines them. Reads the run once more."
    )
    allow_missing_confounds: bool = switch(
        "Go on, with a warning, where a strategy names columns that a run lacks or that"
        " hold nothing but n/a."
    )
    aroma_dataset: Path | None = option(
        "fMRIPost-AROMA derivative with the components for aroma strategies.",
        metavar="DIR",
    )
    confounds_dataset: tuple[str, ...] = labels(
        "Tables of your own regressors (task, physiology, rapidtide), one per run, that"
        ' strategy files name as {"table": NAME}: TSV with a header and a row for each'
        " volume, in the folder or below its sub- folder, with the entities of the run"
        " in the name. A pattern chooses among several: NAME=DIR/*_desc-X_*.tsv.",
        metavar="NAME=DIR[/PATTERN]",
    )
    min_volumes: int | None = option(
        "A strategy that keeps fewer volumes of a run fails on it.",
        metavar="N",
        unit="volumes",
    )
    min_time: float | None = option(
        "A strategy that keeps less time of a run fails on it.",
        metavar="S",
        unit="s",
    )
    max_censored: float | None = option(
        "A strategy that censors more than this share of a run's steady volumes fails"
        " on it.",
        metavar="SHARE",
        unit="0 to 1",
    )

    def __post_init__(self) -> None:
        """Refuse URLs where files are needed, and a folder that is not there."""
        for flag, least in (
            ("--min-volumes", self.min_volumes),
            ("--min-time", self.min_time),
        ):
            if least is not None and not 0 <= least < math.inf:
                msg = f"{flag} is {least}: it has to be a number from 0 on."
                raise UsageError(msg, remedy="Leave it out for no bound.")
        if self.max_censored is not None and not 0 <= self.max_censored <= 1:
            msg = f"--max-censored is a share from 0 to 1, not {self.max_censored:g}."
            raise UsageError(msg, remedy="20 % is 0.2. Leave it out for no bound.")
        _refuse_urls(*self.strategy, *self.confounds_dataset)
        check_there(self.aroma_dataset)


@dataclass(frozen=True, slots=True)
class Connectivity:
    """Which matrices are made of the series."""

    heading: ClassVar[str] = "connectivity"

    relmat: tuple[str, ...] = option(
        "Relationship matrices (regions x regions) to write for each series, over its"
        " kept volumes. Default: none.",
        default=(),
        choices=tuple(measure.name for measure in MEASURES),
        sidecar="RelationshipMeasure",
        of="relmat",
    )
    fisher_z: bool = switch(
        "Write correlations as Fisher's z instead of r"
        f" (stat-{MEASURES[0].stat(fisher_z=True)} and so on); the diagonal is n/a.",
        sidecar="FisherZ",
        of="relmat",
    )
    combine_runs: bool = switch(
        "Write one matrix more for each participant, session and task: over all of its"
        " runs, each z-scored over its kept volumes first. run- and dir- go from its"
        " name. pearson and partial alone; runs of other settings or repetition times"
        " are refused. For the group level: --group-unit combined."
    )
    conditions: tuple[str, ...] = labels(
        "Write one matrix more for each of these conditions of the task (trial_type of"
        " events.tsv), over the kept volumes within its events, after the whole run was"
        " cleaned; its name goes behind the strategy's in desc-.",
        metavar="NAME",
    )
    condition_shift: float = option(
        "Seconds that events are moved back by, for the delay of the haemodynamic"
        " response.",
        default=0.0,
        metavar="S",
        unit="s",
    )
    raw_dataset: Path | None = option(
        "The raw BIDS dataset with the events.tsv. Default: the one that the"
        " derivative lies in.",
        metavar="DIR",
    )
    partial_estimator: str = option(
        "Where the precision matrix of partial correlation comes from: the covariance"
        " as Ledoit and Wolf shrink it, or the pseudo-inverse of the correlations,"
        " which needs more degrees of freedom than regions.",
        default="ledoit_wolf",
        choices=ESTIMATORS,
        sidecar="PartialEstimator",
        of="relmat",
    )
    xdf_regularisation: str = option(
        "What becomes of correlations at long lags, for the variance of xDF: each"
        " region's end where they are as small as those of white noise (truncate), or"
        " a window of the square root of the volumes acts on all (tukey).",
        default="truncate",
        choices=REGULARISATIONS,
        sidecar="XDFRegularisation",
        of="relmat",
    )
    relmat_volumes: int | None = option(
        "Make each matrix of as many of the kept volumes, chosen at random by"
        " --relmat-seed, so that those of all runs are of the same number. Of a run"
        " that keeps fewer the matrix is n/a throughout, and the group level leaves it"
        " out.",
        metavar="N",
        unit="volumes",
        sidecar="RelmatVolumes",
        of="relmat",
    )
    relmat_seed: int = option(
        "Which volumes --relmat-volumes chooses.",
        default=0,
        metavar="N",
        sidecar="RelmatSeed",
        of="relmat",
    )
    min_degrees_of_freedom: float = option(
        "A matrix of a series with fewer degrees of freedom is n/a throughout, and the"
        " group level leaves the run out of its matrices and stacks.",
        default=1.0,
        metavar="N",
        sidecar="MinimumDegreesOfFreedom",
        of="relmat",
    )

    def __post_init__(self) -> None:
        """Refuse options of matrices where no matrix that they act on is asked for."""
        if not 1 <= self.min_degrees_of_freedom < math.inf:
            msg = (
                "--min-degrees-of-freedom is a number from 1 on, not"
                f" {self.min_degrees_of_freedom:g}."
            )
            remedy = "Below 1 there is nothing that a correlation could rest on."
            raise UsageError(msg, remedy=remedy)
        if self.relmat_volumes is not None and self.relmat_volumes < 3:
            msg = f"--relmat-volumes is {self.relmat_volumes}: a matrix needs 3."
            raise UsageError(msg, remedy="Leave it out for all kept volumes.")
        if not 0 <= self.relmat_seed < 2**32:
            msg = f"--relmat-seed is a number from 0 to 2^32 - 1: {self.relmat_seed}."
            raise UsageError(msg)
        if self.relmat_seed and self.relmat_volumes is None:
            msg = "--relmat-seed has no effect without --relmat-volumes."
            raise UsageError(msg, remedy="Add --relmat-volumes N, or leave it out.")
        check_there(self.raw_dataset)
        for name in ("condition_shift", "raw_dataset"):
            if getattr(self, name) and not self.conditions:
                msg = f"--{name.replace('_', '-')} has no effect without --conditions."
                raise UsageError(msg, remedy="Name the conditions, or leave it out.")
        if not abs(self.condition_shift) <= 60:
            msg = f"--condition-shift is in s, not {self.condition_shift:g}."
            remedy = "The response of the brain is about 5 s behind; -60 to 60."
            raise UsageError(msg, remedy=remedy)
        for row in list_options(type(self)):
            if row.name == "relmat" or getattr(self, row.name) == row.default:
                continue
            acted_on = _measures_of(row.name)
            if row.name == "combine_runs":
                self._check_combined(acted_on)
            if not set(acted_on) & set(self.relmat):
                flag, asked = row.flags[0], " ".join(self.relmat) or "none"
                msg = f"{flag} has no effect: --relmat asks for {asked}."
                remedy = f"Add --relmat {acted_on[0]}, or leave {flag} out."
                raise UsageError(msg, remedy=remedy)

    def _check_combined(self, pooled: list[str]) -> None:
        """Refuse measures that are no sums over the volumes of several runs."""
        why = {
            "spearman": "ranks are of the volumes of one run",
            "covariance": "z-scores have no units, and their covariance is pearson",
        }
        if self.relmat_volumes is not None:
            msg = "--combine-runs takes all kept volumes of all runs."
            raise UsageError(msg, remedy="Leave --relmat-volumes or it out.")
        for name in self.relmat:
            if name not in pooled:
                because = why.get(name, "xDF is of the volumes of one run")
                msg = f"--combine-runs cannot combine {name}: {because}."
                remedy = f"Ask for {' and '.join(pooled)} alone, or without it."
                raise UsageError(msg, remedy=remedy)


def _refuse_urls(*texts: str) -> None:
    for text in texts:
        refuse_url(text)


def _measures_of(option: str) -> list[str]:
    """Measures that an option acts on: those that have it, or else all."""
    if option == "fisher_z":
        return [m.name for m in MEASURES if m.stat(fisher_z=True) != m.stat()]
    if option == "combine_runs":
        return ["pearson", "partial"]
    own = [m.name for m in MEASURES if option in dict(m.parameters).values()]
    return own or [m.name for m in MEASURES]


_STRATEGY, *_OTHER_CLEANING = list_options(Cleaning)

CLEANING_OPTIONS = (_STRATEGY, *SETTING_OPTIONS, *_OTHER_CLEANING)

# In the order of --help.
OPTIONS = (
    *list_options(Input),
    *list_options(Atlases),
    *list_options(Extraction),
    *CLEANING_OPTIONS,
    *list_options(Connectivity),
    *list_options(Group),
    *list_options(Running),
)
