"""The table of options: every flag once, with field, sidecar key, unit and default.

The command line, ``boutiques.json``, docs/options.md and the keys in the sidecars
are all made from ``OPTIONS``, so one word serves from the flag (``--min-coverage``)
through the field (``min_coverage``) to the sidecar (``MinimumCoverage``).
"""

from __future__ import annotations

from pathlib import Path

from bids_roi.options.row import Option
from bids_roi.options.running import RUNNING_OPTIONS
from bids_roi.options.settings import SETTING_OPTIONS
from bids_roi.options.words import (
    ESTIMATORS,
    MEASURES,
    STATISTICS,
    name_statistics,
)

_CLEAN = "cleaning"

CLEANING_OPTIONS: tuple[Option, ...] = (
    Option(
        "denoise",
        _CLEAN,
        "Strategies of cleaning: none (raw signals), presets such as simple, scrubbing,"
        " 24P, 36P, acompcor, or JSON files. Each makes outputs of its own, with its"
        " name in desc-. The options below replace settings of the strategies (none"
        " stays raw); given alone they clean without confounds. Default: none.",
        many=True,
        default=(),
        metavar="STRATEGY",
    ),
    *SETTING_OPTIONS,
    Option(
        "censored",
        _CLEAN,
        "What becomes of censored volumes: drop their rows, na for rows of n/a, or"
        " interpolate them.",
        default="drop",
        choices=("drop", "na", "interpolate"),
    ),
    Option(
        "high_variance_confounds",
        _CLEAN,
        "Regress out the five main components of the voxels that vary most, as nilearn"
        " defines them. Reads the run once more.",
        kind=bool,
        default=False,
    ),
    Option(
        "allow_missing_confounds",
        _CLEAN,
        "Go on, with a warning, where a strategy names columns that a run lacks or that"
        " hold nothing but n/a.",
        kind=bool,
        default=False,
    ),
    Option(
        "aroma_dataset",
        _CLEAN,
        "fMRIPost-AROMA derivative with the components for aroma strategies.",
        kind=Path,
        metavar="DIR",
    ),
    Option(
        "min_volumes",
        _CLEAN,
        "A strategy that keeps fewer volumes of a run fails on it.",
        kind=int,
        metavar="N",
        unit="volumes",
    ),
    Option(
        "min_time",
        _CLEAN,
        "A strategy that keeps less time of a run fails on it.",
        kind=float,
        metavar="S",
        unit="s",
    ),
)

GROUP_UNITS = ("participant", "run")

STACKS = ("none", "timeseries", "relmat")

GROUP_OPTIONS: tuple[Option, ...] = (
    Option(
        "group_unit",
        "group level",
        "What group statistics are over: participants (the matrices of a participant's"
        " runs are averaged first, as Fisher's z, and so is their mean framewise"
        " displacement) or single runs.",
        default="participant",
        choices=GROUP_UNITS,
    ),
    Option(
        "stack",
        "group level",
        "What to put into one HDF5 file per space, atlas and desc-, for machine"
        " learning: the time series of all runs, their matrices (upper triangles), or"
        " none.",
        many=True,
        default=("timeseries", "relmat"),
        choices=STACKS,
    ),
)

_RELMAT = "connectivity"

CONNECTIVITY_OPTIONS: tuple[Option, ...] = (
    Option(
        "relmat",
        _RELMAT,
        "Relationship matrices (regions x regions) to write for each series, over its"
        " kept volumes. Default: none.",
        many=True,
        default=(),
        choices=tuple(measure.name for measure in MEASURES),
        sidecar="RelationshipMeasure",
        of="relmat",
    ),
    Option(
        "fisher_z",
        _RELMAT,
        "Write correlations as Fisher's z instead of r"
        f" (stat-{MEASURES[0].stat(fisher_z=True)} and so on); the diagonal is n/a.",
        kind=bool,
        default=False,
        sidecar="FisherZ",
        of="relmat",
    ),
    Option(
        "partial_estimator",
        _RELMAT,
        "Where the precision matrix of partial correlation comes from: the covariance"
        " as Ledoit and Wolf shrink it, or the pseudo-inverse of the correlations,"
        " which needs more degrees of freedom than regions.",
        default="ledoit_wolf",
        choices=ESTIMATORS,
        sidecar="PartialEstimator",
        of="relmat",
    ),
    Option(
        "min_degrees_of_freedom",
        _RELMAT,
        "A matrix of a series with fewer degrees of freedom is n/a throughout, and the"
        " group level leaves the run out of its matrices and stacks.",
        kind=float,
        default=1.0,
        metavar="N",
        sidecar="MinimumDegreesOfFreedom",
        of="relmat",
    ),
)

LEVELS = ("participant", "group")

DEFAULT_ATLAS = "Schaefer2018_seg-7n_scale-400"

_INPUT, _ATLAS, _EXTRACT = "what to process", "atlases", "extraction"

OPTIONS: tuple[Option, ...] = (
    Option(
        "participant_label",
        _INPUT,
        "Participants to process, with or without sub-. Default: all.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "session_label",
        _INPUT,
        "Sessions to process, with or without ses-. Default: all.",
        many=True,
        metavar="LABEL",
        aliases=("--session-id",),
    ),
    Option(
        "task_label",
        _INPUT,
        "Tasks to process. Default: all.",
        many=True,
        metavar="LABEL",
        aliases=("--task-id", "-t"),
    ),
    Option(
        "run_label",
        _INPUT,
        "Runs to process (the number after run-). Default: all.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "echo_label",
        _INPUT,
        "Single echoes to process. Default: only the optimally combined series.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "space",
        _INPUT,
        "Spaces to process, for example MNI152NLin2009cAsym; native for series whose"
        " names have no space-. Default: every space that an asked-for atlas fits.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "res",
        _INPUT,
        "Values of the res- entity to process; native also for names without one."
        " Default: all.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "den",
        _INPUT,
        "Values of the den- entity to process (91k). Default: all.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "hemi",
        _INPUT,
        "Hemispheres of surface series to process, L or R. Default: both.",
        many=True,
        metavar="LABEL",
    ),
    Option(
        "desc",
        _INPUT,
        "Value of the desc- entity of the BOLD files.",
        default="preproc",
        metavar="LABEL",
    ),
    Option(
        "derivatives",
        _INPUT,
        "The fMRIPrep derivative, where BIDS_DIR is a raw dataset that holds none or"
        " several in derivatives/.",
        kind=Path,
        metavar="DIR",
    ),
    Option(
        "bids_filter_file",
        _INPUT,
        "JSON with pybids filters under the keys bold, mask and confounds.",
        kind=Path,
        metavar="FILE",
    ),
    Option(
        "bids_database_dir",
        _INPUT,
        "Folder for pybids' index, kept between runs; never inside the input."
        " Default: in memory.",
        kind=Path,
        metavar="DIR",
    ),
    Option(
        "atlas",
        _ATLAS,
        "Atlases by name: canonical (Schaefer2018_seg-7n_scale-400), TemplateFlow's"
        " (Schaefer2018:400Parcels7Networks) or short (schaefer400, schaefer400x17,"
        " harvardoxford, harvardoxford-sub, difumo128); of an --atlas-dataset; or"
        " subject:DESC for each participant's own segmentation in the derivative"
        " (subject:aparcaseg, subject:aseg). The resolution nearest to the run's is"
        " taken. `bids_roi_tools atlases` lists all. Default, where no atlas of any"
        f" kind is given: {DEFAULT_ATLAS}.",
        many=True,
        default=(),
        metavar="NAME",
        sidecar="Atlas",
        of="atlas",
        aliases=("--atlases",),
    ),
    Option(
        "atlas_file",
        _ATLAS,
        "Your own atlas: a label image (or 4D maps) and its table, separated by a"
        " comma. Tables are TSV or CSV with index and name, FSL's XML, FreeSurfer's"
        " colour table, or xcpEngine's NodeNames.txt. `bids_roi_tools check-atlas`"
        " says what is wrong with one.",
        many=True,
        default=(),
        metavar="IMAGE[,TABLE]",
    ),
    Option(
        "atlas_dataset",
        _ATLAS,
        "BIDS-atlas datasets (tpl-*/[anat/]tpl-*_atlas-*_dseg.nii.gz). Their atlases"
        " can be named with --atlas; without it, all are used.",
        many=True,
        default=(),
        metavar="NAME=DIR",
        aliases=("--atlas-datasets",),
    ),
    Option(
        "atlas_space",
        _ATLAS,
        "Space of the --atlas-file images whose names carry neither tpl- nor space-;"
        " one that contradicts a name is an error.",
        metavar="LABEL",
    ),
    Option(
        "templateflow_home",
        _ATLAS,
        "Folder in TemplateFlow's layout that holds atlases; looked at before"
        " $TEMPLATEFLOW_HOME, the container image's copy and the user's cache. What"
        " none of them holds is downloaded, into this folder if it can be written.",
        kind=Path,
        metavar="DIR",
    ),
    Option(
        "offline",
        _ATLAS,
        "Never download: an atlas that is not there is an error with the list of"
        " files to fetch (`bids_roi_tools fetch`).",
        kind=bool,
        default=False,
    ),
    Option(
        "statistic",
        _EXTRACT,
        "What to compute over the voxels of a region, per volume.",
        many=True,
        default=("mean",),
        choices=name_statistics(of="labels"),
        sidecar="Statistic",
        of="series",
    ),
    Option(
        "map_statistic",
        _EXTRACT,
        "What to compute for atlases of weighted maps:"
        f" {' or '.join(s.help for s in STATISTICS if s.of == 'maps')}.",
        many=True,
        default=("least_squares",),
        choices=name_statistics(of="maps"),
        sidecar="Statistic",
        of="series",
    ),
    Option(
        "mask",
        _EXTRACT,
        "Brain mask: auto (the run's own), none, or an image for all runs, of 0 and"
        " whole numbers; a probability map is refused.",
        default="auto",
        metavar="{auto,none,PATH}",
        sidecar="Mask",
    ),
    Option(
        "min_coverage",
        _EXTRACT,
        "A region of which less than this share can be used becomes an n/a column.",
        kind=float,
        default=0.5,
        metavar="SHARE",
        unit="0 to 1",
        sidecar="MinimumCoverage",
    ),
    Option(
        "smoothing_fwhm",
        _EXTRACT,
        "Smooth every volume with a Gaussian of this full width at half maximum before"
        " anything is taken from it.",
        kind=float,
        metavar="MM",
        unit="mm",
        sidecar="SmoothingFWHM",
    ),
    Option(
        "repetition_time",
        _EXTRACT,
        "Repetition time, instead of the one in the sidecar or header.",
        kind=float,
        metavar="S",
        unit="s",
        sidecar="RepetitionTimeGiven",
    ),
    *CLEANING_OPTIONS,
    *CONNECTIVITY_OPTIONS,
    *GROUP_OPTIONS,
    *RUNNING_OPTIONS,
)
