"""The statistics over voxels and the measures of connectivity: names and words.

Everything that is said of them is said here, once: choices of the options, values of
``stat-`` in file names, texts of sidecars and pages, the way matrices are averaged.
What they compute is in ``core``, in mappings from the same names to functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


Of = Literal["labels", "maps"]
Family = Literal["sum", "sorted", "series", "joint"]
Scale = Literal["r", "z", "edges", "p", "as_is"]

# Of the precision matrix of partial correlation.
Estimator = Literal["ledoit_wolf", "pseudo_inverse"]
ESTIMATORS: tuple[str, ...] = get_args(Estimator)

# Of correlations at long lags, for the variance of xDF.
Regularisation = Literal["truncate", "tukey"]
REGULARISATIONS: tuple[str, ...] = get_args(Regularisation)

# How the numbers of a matrix are averaged, and the end of its stat- that tells it (as
# XCP-D spells them): correlations as Fisher's z; Fisher's z, and all else, as they are,
# but p not at all. What is of xDF has no value on the diagonal.
_ENDINGS: dict[str, Scale] = {
    "correlation": "r",
    "fisherz": "z",
    "xdfp": "p",
    **dict.fromkeys(("xdfz", "xdfdof", "xdfvariance"), "edges"),
    "": "as_is",
}


def stat_of_name(statistic: str) -> str:
    """Value of ``stat-`` of a statistic: its name without what BIDS has no place for.

    >>> stat_of_name("standard_deviation")
    'standarddeviation'
    """
    return statistic.replace("_", "")


def scale_of_word(stat: str) -> Scale:
    """How a matrix with this ``stat-`` is averaged.

    >>> scale_of_word("pearsoncorrelation"), scale_of_word("partialfisherz")
    ('r', 'z')
    >>> scale_of_word("covariance"), scale_of_word("pearsonxdfz")
    ('as_is', 'edges')
    """
    return next(scale for end, scale in _ENDINGS.items() if stat.endswith(end))


def measure_of_word(stat: str) -> str:
    """Name of the measure with this ``stat-``.

    >>> measure_of_word("pearsonfisherz"), measure_of_word("pearsonxdfz")
    ('pearson', 'pearsonxdfz')
    """
    return stat.removesuffix("correlation").removesuffix("fisherz")


@dataclass(frozen=True, slots=True)
class Statistic:
    """A statistic over the voxels of a region, computed for each volume."""

    # As the option takes it and the sidecar has it.
    name: str
    # As sentences have it: regional ... of the BOLD signal.
    words: str
    # ``labels`` (a choice of --statistic) or ``maps`` (of --map-statistic).
    of: Of
    # What it is computed from. ``sum``: products of weights and volumes, which is
    # fastest; ``sorted``: the voxels, region after region, of labels only; ``series``:
    # all volumes of these at once (all in ``core/statistics.py``); ``joint``: the one
    # fit of all maps (``core/map_solver.py``).
    family: Family
    # For docs/numbers.md, in Markdown.
    definition: str
    # What --help says of it beside its name; of maps only.
    help: str = ""
    # Names and values of what the function is given besides. The name tells them
    # (``trimmed_mean_10``), and so does the sidecar.
    parameters: tuple[tuple[str, float], ...] = ()
    # What the sidecar says besides.
    note: str = ""

    @property
    def stat(self) -> str:
        """Value of ``stat-`` in file names."""
        return stat_of_name(self.name)

    def describe(self) -> dict[str, Any]:
        """Keys of the sidecar that tell it."""
        parameters = {"StatisticParameters": dict(self.parameters)}
        note = {"StatisticNote": self.note}
        more = (parameters if self.parameters else {}) | (note if self.note else {})
        return {"Statistic": self.name, **more}


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of connectivity: how two regions go together."""

    # As --relmat takes it, and as file names begin to.
    name: str
    # As sentences and sidecars have it.
    words: str
    # ``r`` for correlations, which are averaged as Fisher's z and can be written so;
    # ``edges`` for what is averaged as it is, ``p`` for what is not averaged;
    # ``as_is`` for what has a diagonal that says something.
    scale: Scale
    # definition and source: for docs/numbers.md, in Markdown.
    definition: str
    source: str = ""
    # Names and values of what its function in ``core/relmat.py`` is given besides;
    # values are options.
    parameters: tuple[tuple[str, str], ...] = ()
    # Whether the function is told which volumes of the run were kept.
    timed: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that file names would tell as that of another scale."""
        if scale_of_word(self.stat()) != self.scale:
            msg = f"{self.stat()} does not tell that its scale is {self.scale}"
            raise ValueError(msg)

    @property
    def is_correlation(self) -> bool:
        """Whether it lies between -1 and 1 and has a Fisher's z."""
        return self.scale == "r"

    @property
    def is_positive(self) -> bool:
        """Whether no entry can be below 0."""
        return self.name in ("pearsonxdfp", "pearsonxdfdof", "pearsonxdfvariance")

    def stat(self, *, fisher_z: bool = False) -> str:
        """Value of ``stat-`` in file names; Fisher's z where there is one."""
        if not self.is_correlation:
            return self.name
        return self.name + ("fisherz" if fisher_z else "correlation")

    def describe(self, *, fisher_z: bool = False) -> str:
        """Tell it in words; Fisher's z where there is one."""
        return f"Fisher z of the {self.words}" if fisher_z else self.words


# Shares of the voxels that are cut off at either end, in percent.
_TRIMMED = (5, 10, 20, 25)

STATISTICS: tuple[Statistic, ...] = (
    Statistic("mean", "mean", "labels", "sum", "sum of x over n"),
    Statistic("median", "median", "labels", "sorted", "of the x"),
    Statistic("sum", "sum", "labels", "sum", "sum of x"),
    Statistic("minimum", "minimum", "labels", "sorted", "of the x"),
    Statistic("maximum", "maximum", "labels", "sorted", "of the x"),
    Statistic(
        *("standard_deviation", "standard deviation (ddof 0)", "labels", "sorted"),
        "about the region's mean, over n (ddof 0)",
    ),
    Statistic(
        *("variance", "variance (ddof 0)", "labels", "sorted"),
        "about the region's mean, over n (ddof 0)",
    ),
    *(
        Statistic(
            f"trimmed_mean_{share}",
            f"mean without the lowest and the highest {share} %",
            "labels",
            "sorted",
            f"mean of the x without the lowest and the highest {share} % of them,"
            " rounded down to whole voxels, as SciPy's `trim_mean(x,"
            f" {share / 100:g})`",
            parameters=(("share", share / 100),),
        )
        for share in _TRIMMED
    ),
    Statistic(
        *("eigenvariate", "first eigenvariate", "labels", "series"),
        "Y v / √n: Y is volumes x voxels, each voxel centred over the steady volumes,"
        " and v the first right singular vector of its steady rows, with a sum above 0;"
        " SPM's scale and sign (`spm_regions.m`; Friston et al. 2006,"
        " [10.1016/j.neuroimage.2005.08.012]"
        "(https://doi.org/10.1016/j.neuroimage.2005.08.012))",
        note="Each voxel was centred over the steady volumes (QualityVolumes of the"
        " region table), which decide the weights of the voxels; SPM takes adjusted"
        " data instead. It is not linear in the data: a series that is cleaned"
        " afterwards is not that of voxels that were cleaned before.",
    ),
    Statistic(
        *("least_squares", "least-squares fit of all maps jointly", "maps", "joint"),
        "the b that minimises the sum of squares of y - W b, all maps jointly, as"
        " nilearn's `NiftiMapsMasker`",
        help="the signals that fit all maps jointly (nilearn's NiftiMapsMasker)",
    ),
    Statistic(
        *("weighted_mean", "weighted mean", "maps", "sum"),
        "for each map, the sum of w y over the sum of w; `n/a` (`weights_cancel`)"
        " where the sum of w is 1 % or less of the sum of |w|, as in signed maps it"
        " may be",
        help="the mean weighted by each map",
    ),
)


def _of_xdf(what: str, words: str, definition: str, scale: Scale = "edges") -> Measure:
    return Measure(
        f"pearsonxdf{what}",
        f"{words} by xDF",
        scale,
        definition,
        "Afyouni et al. 2019, [10.1016/j.neuroimage.2019.05.011]"
        "(https://doi.org/10.1016/j.neuroimage.2019.05.011)",
        parameters=(("regularisation", "xdf_regularisation"),),
        timed=True,
    )


MEASURES: tuple[Measure, ...] = (
    Measure(
        *("pearson", "Pearson correlation coefficient", "r"),
        "product-moment correlation",
        "Pearson 1895, [10.1098/rspl.1895.0041](https://doi.org/10.1098/rspl.1895.0041)",
    ),
    Measure(
        *("spearman", "Spearman rank correlation coefficient", "r"),
        "the same of ranks; ties share their mean rank",
        "Spearman 1904, [10.2307/1412159](https://doi.org/10.2307/1412159)",
    ),
    Measure(
        *("partial", "partial correlation coefficient", "r"),
        "-p_ij / √(p_ii p_jj) with the precision matrix p of the standardised signals",
        "Marrelec et al. 2006, [10.1016/j.neuroimage.2005.12.057]"
        "(https://doi.org/10.1016/j.neuroimage.2005.12.057)",
        parameters=(("estimator", "partial_estimator"),),
    ),
    Measure("covariance", "covariance (ddof 1)", "as_is", "sample covariance, ddof 1"),
    _of_xdf(
        "variance",
        "variance of the Pearson correlation",
        "of r, where volumes depend on those before ([below](#xdf))",
    ),
    _of_xdf(
        "dof",
        "effective degrees of freedom of the Pearson correlation",
        "(1 - r²)² / variance: as many independent volumes have that variance",
    ),
    _of_xdf(
        "z",
        "z score of the Pearson correlation",
        "artanh r · √dof: standard normal where nothing correlates",
    ),
    _of_xdf(
        "p",
        "two-sided p value of the Pearson correlation",
        "of that z, of each edge alone (no correction for their number)",
        scale="p",
    ),
)


# Columns of the region table on request, over the voxels of a region of labels; their
# words are in outputs/result.py, what they compute in core/quality.py.
REGION_MEASURES = ("voxel_tsnr", "homogeneity")

_STATISTICS = {statistic.name: statistic for statistic in STATISTICS}
_MEASURES = {measure.name: measure for measure in MEASURES}


def name_statistics(
    of: Of | None = None, family: Family | None = None
) -> tuple[str, ...]:
    """Names of the statistics of labels or maps and of a family; ``None`` for any.

    >>> name_statistics(of="maps")
    ('least_squares', 'weighted_mean')
    """
    return tuple(
        s.name for s in STATISTICS if of in (None, s.of) and family in (None, s.family)
    )


def find_statistic(name: str) -> Statistic:
    """Record of a statistic."""
    return _STATISTICS[name]


def find_measure(name: str) -> Measure:
    """Record of a measure."""
    return _MEASURES[name]


def hold_names(
    functions: Mapping[str, object], names: Iterable[str], where: str
) -> None:
    """Refuse to go on where functions and records are not of the same names."""
    if differing := functions.keys() ^ set(names):
        msg = f"{where} and options/words.py differ in {', '.join(sorted(differing))}"
        raise ImportError(msg)
