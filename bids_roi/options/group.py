"""Options of the group level."""

from __future__ import annotations

from bids_roi.options.row import Option

__all__ = ["GROUP_OPTIONS", "GROUP_UNITS", "STACKS"]

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
