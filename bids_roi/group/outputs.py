"""Which participant outputs the group level can use, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_roi.files.names import format_name
from bids_roi.outputs.find import PLACE, REMEDY, SCOPE, Output, find_outputs

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is left out, and why.

    Attributes
    ----------
    output
        Its name; the facts of its sidecar may be missing.
    reason
        What is wrong with it, and what to do.
    status
        ``unreadable``; or ``left_out`` for a matrix that is n/a throughout.
    """

    output: Output
    reason: str
    status: str = "unreadable"


@dataclass(frozen=True, slots=True)
class Found:
    """Everything there is, sorted by path.

    Attributes
    ----------
    regions, series, relmats
        Tables with a sidecar that can be read.
    problems
        The others, matrices last.
    """

    regions: tuple[Output, ...]
    series: tuple[Output, ...]
    relmats: tuple[Output, ...]
    problems: tuple[Problem, ...]

    @property
    def usable(self) -> tuple[Output, ...]:
        """All but the problems."""
        return self.regions + self.series + self.relmats


def check_outputs(output_dir: Path) -> Found:
    """Find the tables of the participant level and read their sidecars."""
    usable: dict[str, list[Output]] = {"regions": [], "timeseries": [], "relmat": []}
    problems = []
    found = [o for o in find_outputs(output_dir) if o.kind in usable]
    for output in sorted(found, key=lambda output: output.kind == "relmat"):
        error = output.told.error
        if error is not None:
            reason = f"{error.where or output.path}: {error.problem}"
            reason = reason.replace(f"{output_dir}/", "")
            problems.append(Problem(output, f"{reason} {error.remedy or REMEDY}"))
        elif output.told.absent:
            problems.append(Problem(output, output.told.absent, "left_out"))
        else:
            usable[output.kind].append(output)
    return Found(
        regions=tuple(usable["regions"]),
        series=tuple(usable["timeseries"]),
        relmats=tuple(usable["relmat"]),
        problems=tuple(problems),
    )


def name_group_file(
    suffix: str,
    *,
    place: tuple[str, ...],
    scope: tuple[str, ...] = (),
    stat: str = "",
    desc: str = "",
) -> str:
    """Name a group table.

    Parameters
    ----------
    suffix
        What it holds.
    place, scope, stat, desc
        What it is about.

    Examples
    --------
    >>> name_group_file("coverage", place=("T1w", "", "A", "", "", "2", ""))
    'group_space-T1w_atlas-A_res-2_coverage.tsv'
    """
    entities = [*zip(SCOPE, scope, strict=False), *zip(PLACE, place, strict=True)]
    return "group_" + format_name(
        [*entities, ("stat", stat), ("desc", desc)], suffix, ".tsv"
    )
