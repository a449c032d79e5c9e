"""What the participant level has written: names and sidecars, tables later."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bids_roi.errors import BidsRoiError, DataError
from bids_roi.files.names import BidsName, format_name, parse_name
from bids_roi.files.tables import read_json
from bids_roi.outputs.find import FACTS, read_fact
from bids_roi.outputs.records import RAW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = [
    "REMEDY",
    "Found",
    "Output",
    "Problem",
    "RunKey",
    "desc_of",
    "find_outputs",
    "name_group_file",
    "stem_of_run",
]

# Outputs that differ in one of these are of different things, and share no table.
_PLACE = ("space", "cohort", "atlas", "seg", "scale", "res", "den")
# Nor do these share a connectivity matrix: they are not repeated runs of one thing.
_SCOPE = ("task", "rec", "echo", "part")
_ATLAS = ("atlas", "seg", "scale")

_NUMBERS = (
    *(key for _, key, _ in FACTS),
    "FDDVARSCorrelation",
    "NumberOfIdenticalEdges",
)

REMEDY = "Make it again: the participant level with --overwrite."

RunKey = tuple[str, tuple[str, ...]]


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
class Output:
    """One table of the participant level, with what its sidecar says.

    Attributes
    ----------
    path
        Of the TSV, relative to the output folder.
    kind
        ``dseg``, ``timeseries`` or ``relmat``.
    name
        Entities.
    source
        The BOLD file, relative to its dataset; empty where the sidecar does not say.
    atlas_name
        Canonical id of the atlas.
    digest
        Of all that decides the numbers: with the atlas image, or without it where each
        participant has one of his own.
    absent
        Why no entry of a matrix has a value; empty where some have.
    numbers
        Of the run: volumes, seconds, motion.
    fisher_z
        Whether the sidecar of a matrix says that it holds Fisher's z.
    """

    path: str
    kind: str
    name: BidsName
    source: str = ""
    atlas_name: str = ""
    digest: str = ""
    numbers: tuple[tuple[str, float], ...] = ()
    fisher_z: bool | None = None
    absent: str = ""

    @property
    def participant(self) -> str:
        """Label with ``sub-``."""
        return f"sub-{self.name.get('sub')}"

    @property
    def desc(self) -> str:
        """Label of ``desc-``, or empty."""
        return self.name.get("desc") or ""

    @property
    def stat(self) -> str:
        """Label of ``stat-``, or empty."""
        return self.name.get("stat") or ""

    @property
    def place(self) -> tuple[str, ...]:
        """Space, cohort, atlas and resolution, empty where absent."""
        labels = dict(self.name.entities)
        return tuple(labels.get(key, "") for key in _PLACE)

    @property
    def scope(self) -> tuple[str, ...]:
        """Task, reconstruction, echo and part, empty where absent."""
        labels = dict(self.name.entities)
        return tuple(labels.get(key, "") for key in _SCOPE)

    @property
    def source_desc(self) -> str:
        """``desc-`` of the BOLD file, empty for ``preproc``."""
        return desc_of(self.source, "") if self.source else ""

    @property
    def run(self) -> RunKey:
        """Name of the run that it is of, and the atlas."""
        return _stem(self.name, self.source_desc), self.place

    def number(self, key: str) -> float | None:
        """One of the numbers, ``None`` where the sidecar does not have it."""
        return dict(self.numbers).get(key)


@dataclass(frozen=True, slots=True)
class Found:
    """Everything there is, sorted by path.

    Attributes
    ----------
    regions, series, relmats
        Tables with a sidecar that can be read.
    problems
        The others.
    """

    regions: tuple[Output, ...]
    series: tuple[Output, ...]
    relmats: tuple[Output, ...]
    problems: tuple[Problem, ...]

    @property
    def usable(self) -> tuple[Output, ...]:
        """All but the problems."""
        return self.regions + self.series + self.relmats


def stem_of_run(source: str) -> str:
    """The same name of a run, from its BOLD file.

    >>> stem_of_run("sub-01/func/sub-01_task-rest_desc-preproc_bold.nii.gz")
    'sub-01_task-rest_bold'
    """
    return _stem(parse_name(source), desc_of(source, ""))


def desc_of(source: str, strategy: str) -> str:
    """Value of ``desc-`` of what a strategy, if any, makes of a BOLD file.

    >>> desc_of("sub-01_desc-preproc_bold.nii.gz", "24P")
    '24P'
    >>> desc_of("sub-01_desc-smoothAROMAnonaggr_bold.nii.gz", "")
    'smoothAROMAnonaggr'
    """
    desc = parse_name(source).get("desc")
    label = "" if strategy == RAW else strategy
    return f"{'' if desc in (None, 'preproc') else desc}{label}"


def _stem(name: BidsName, desc: str) -> str:
    # Outputs have res- and den- behind the atlas, sources before.
    left_out = (*_ATLAS, "res", "den", "stat", "desc")
    kept = [(k, v) for k, v in name.entities if k not in left_out]
    moved = [(key, name.get(key)) for key in ("res", "den")]
    return format_name([*kept, *moved, ("desc", desc)], "bold", "")


def find_outputs(output_dir: Path) -> Found:
    """Find the tables of the participant level and read their sidecars."""
    bare = [output for path in _list_tables(output_dir) for output in _name(path)]
    found: dict[str, list[Output]] = {"dseg": [], "timeseries": [], "relmat": []}
    problems = []
    origins: dict[str, tuple[str, bool]] = {}
    # Matrices last: what they are of is said in the sidecars of their series.
    for path, output in sorted(bare, key=lambda pair: pair[1].kind == "relmat"):
        output = replace(output, path=path.relative_to(output_dir).as_posix())
        try:
            read = _read_output(output_dir, output, origins)
        except BidsRoiError as error:
            reason = f"{error.where or output.path}: {error.problem}"
            reason = reason.replace(f"{output_dir}/", "")
            problems.append(Problem(output, f"{reason} {error.remedy or REMEDY}"))
        else:
            if read.absent:
                problems.append(Problem(read, read.absent, "left_out"))
            else:
                found[output.kind].append(read)
    return Found(
        regions=tuple(found["dseg"]),
        series=tuple(found["timeseries"]),
        relmats=tuple(found["relmat"]),
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
    entities = [*zip(_SCOPE, scope, strict=False), *zip(_PLACE, place, strict=True)]
    return "group_" + format_name(
        [*entities, ("stat", stat), ("desc", desc)], suffix, ".tsv"
    )


def _list_tables(output_dir: Path) -> list[Path]:
    patterns = ("sub-*/func/sub-*.tsv", "sub-*/ses-*/func/sub-*.tsv")
    found = (path for pattern in patterns for path in output_dir.glob(pattern))
    return sorted(found, key=lambda path: path.relative_to(output_dir).parts)


def _name(path: Path) -> Iterator[tuple[Path, Output]]:
    """Yield the file if it is an output of ours."""
    name = parse_name(path)
    needed = {"dseg": ("atlas",), "timeseries": ("atlas", "stat")}
    needed["relmat"] = needed["timeseries"]
    if name.suffix in needed and all(name.get(key) for key in needed[name.suffix]):
        labels = [(key, name.get(key)) for key in _ATLAS]
        atlas = format_name(labels, "", "").removeprefix("atlas-").rstrip("_")
        yield path, Output("", name.suffix, name, atlas_name=atlas)


def _read_output(
    output_dir: Path, bare: Output, origins: dict[str, tuple[str, bool]]
) -> Output:
    """Read the sidecar; ``origins`` knows source and kind of atlas of each series."""
    beside = (output_dir / bare.path).with_suffix(".json")
    if not beside.exists():
        msg = f"the sidecar {beside.name} is missing."
        raise DataError(msg, where=bare.path, remedy=REMEDY)
    content = read_json(beside)
    source, individual = _find_origin(content, origins)
    # No two participants share an image of their own.
    key = "SettingsDigest" if individual else "OptionsDigest"
    digest = content.get(key)
    if not isinstance(digest, str) or not digest:
        raise DataError(f"{key} is missing.", where=beside, remedy=REMEDY)
    if bare.kind == "timeseries":
        origins[bare.path] = source, individual
    fisher_z = content.get("FisherZ")
    return replace(
        bare,
        source=source,
        atlas_name=str(content.get("Atlas") or bare.atlas_name),
        digest=digest,
        numbers=tuple(_read_numbers(content, beside)),
        fisher_z=fisher_z if isinstance(fisher_z, bool) else None,
        absent=str(content.get("ReasonNotAvailable") or ""),
    )


def _find_origin(
    content: dict[str, Any], origins: dict[str, tuple[str, bool]]
) -> tuple[str, bool]:
    """Tell the BOLD file, and whether the atlas is the participant's own."""
    given = content.get("Sources")
    sources = (
        [s for s in given if isinstance(s, str)] if isinstance(given, list) else []
    )
    if not sources:
        return "", False
    path = sources[0].rpartition(":")[2]
    if path in origins:
        return origins[path]
    own = any(
        uri.startswith("bids:preprocessed:sub-") and uri.endswith("_dseg.nii.gz")
        for uri in sources
    )
    return ("" if path.endswith(".tsv") else path), own


def _read_numbers(content: dict[str, Any], where: Path) -> Iterable[tuple[str, float]]:
    for key in _NUMBERS:
        value = read_fact(content, key)
        if value is None or value == "n/a":
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            msg = f"{key} is {value!r} where a number is needed."
            raise DataError(msg, where=where, remedy=REMEDY)
        yield key, value
