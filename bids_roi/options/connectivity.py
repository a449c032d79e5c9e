"""Rows of the table of options that concern connectivity."""

from __future__ import annotations

from bids_roi.options.row import Option

__all__ = ["CONNECTIVITY_OPTIONS", "ESTIMATORS", "RELMATS"]

_RELMAT = "connectivity"

RELMATS = ("pearson", "spearman", "partial", "covariance")

ESTIMATORS = ("ledoit_wolf", "pseudo_inverse")

CONNECTIVITY_OPTIONS: tuple[Option, ...] = (
    Option(
        "relmat",
        _RELMAT,
        "Relationship matrices (regions x regions) to write for each series, over its"
        " kept volumes. Default: none.",
        many=True,
        default=(),
        choices=RELMATS,
        sidecar="RelationshipMatrix",
    ),
    Option(
        "fisher_z",
        _RELMAT,
        "Write correlations as Fisher's z instead of r (stat-pearsonfisherz and so"
        " on); the diagonal is n/a.",
        kind=bool,
        default=False,
        sidecar="FisherZ",
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
    ),
)
