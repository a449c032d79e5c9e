"""Files of the group level: those that it can use, and those that it writes."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bids_roi.errors import BidsRoiError, DataError, MissingInput
from bids_roi.files.listing import glob_folder
from bids_roi.files.names import format_name
from bids_roi.files.tables import format_json, write_file
from bids_roi.outputs.find import (
    LEDGER,
    PLACE,
    REMEDY,
    SCOPE,
    Output,
    check_combined,
    choose_combined,
    explain_stale,
    find_outputs,
    find_stale,
    list_group_files,
)
from bids_roi.outputs.records import (
    NO_ATLAS,
    Record,
    check_table,
    read_all_records,
    record_path,
    sidecar_of,
)
from bids_roi.outputs.schema import format_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bids_roi.outputs.records import Stamp


log = logging.getLogger("bids_roi")

_SHOWN = 5
_AGAIN = (
    "It may tell of a run that failed. Restore it, or run the participant level again"
    " with the same options, and remove the file if it is still there."
)


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is left out, and why; the facts of its sidecar may be missing.

    ``status`` is ``unreadable``, or ``left_out`` for a matrix that is n/a throughout.
    """

    output: Output
    reason: str
    status: str = "unreadable"


@dataclass(frozen=True, slots=True)
class Found:
    """Everything there is, sorted by path; matrices last among the problems."""

    regions: tuple[Output, ...]
    series: tuple[Output, ...]
    relmats: tuple[Output, ...]
    problems: tuple[Problem, ...]

    @property
    def usable(self) -> tuple[Output, ...]:
        """All but the problems."""
        return self.regions + self.series + self.relmats


class Outcome(NamedTuple):
    """What became of a run, atlas and strategy, as its record tells."""

    run: str
    atlas: str
    status: str
    reason: str
    strategy: str = ""


class Everyone(NamedTuple):
    """What is there of all participants.

    ``closed`` says of whom something cannot be read, and why: nothing else is told of
    him. ``there`` are all outputs, where matrices over runs are asked for.
    """

    found: Found
    outcomes: list[Outcome]
    closed: dict[str, BidsRoiError]
    there: list[Output]


def read_everyone(
    output_dir: Path, *, verify: bool = False, combined: bool = False
) -> Everyone:
    """Read the records, and check the outputs, of one participant after the other.

    Neither of those of whom something cannot be read: without the records, nobody knows
    which outputs are whole. A file of records that is damaged is one more,
    ``unreadable``: that a run failed may have been in it.

    See ``check_outputs`` for ``verify`` and ``combined``. What was made of a run is
    most of its records, and is forgotten once it is checked.
    """
    parts: list[Found] = []
    outcomes: list[Outcome] = []
    all_there: list[Output] = []
    closed: dict[str, BidsRoiError] = {}
    folders = (output_dir, output_dir / "logs")
    names = {path.name for folder in folders for path in glob_folder(folder, "sub-*")}
    for person in sorted(names):
        try:
            damaged: dict[Path, str] = {}
            records = read_all_records(output_dir, person, damaged)
            there = find_outputs(output_dir, person)
        except BidsRoiError as error:
            closed[person] = error
            continue
        records += _tell_damaged(output_dir, damaged, records, there)
        how = {"verify": verify, "combined": combined}
        parts.append(_check(output_dir, records, there, **how))
        all_there += there if combined else []
        outcomes += [
            Outcome(r.run, r.atlas, r.status, r.reason, r.strategy) for r in records
        ]
    found = Found(
        tuple(output for part in parts for output in part.regions),
        tuple(output for part in parts for output in part.series),
        tuple(output for part in parts for output in part.relmats),
        _order(problem for part in parts for problem in part.problems),
    )
    for person, why in closed.items():
        reason = str(why).replace(f"{output_dir}/", "")
        outcomes.append(Outcome(person, NO_ATLAS, "unreadable", reason))
    return Everyone(_leave_out_twice(found), outcomes, closed, all_there)


def _tell_damaged(
    output_dir: Path,
    damaged: Mapping[Path, str],
    records: Sequence[Record],
    outputs: Sequence[Output],
) -> Iterator[Record]:
    """Yield what is not known of the runs whose records are damaged, with a warning."""
    if not damaged:
        return
    sources = [*(r.run for r in records), *(o.source for o in outputs)]
    runs = {record_path(output_dir, run).name: run for run in sources if run}
    for path, problem in damaged.items():
        name = path.name.rsplit(".", 2)[0]
        reason = f"{path.relative_to(output_dir)}: {problem} {_AGAIN}"
        log.warning("%s", reason)
        yield Record(runs.get(name, name), NO_ATLAS, "unreadable", reason)


def check_outputs(
    output_dir: Path,
    records: Sequence[Record] = (),
    there: Sequence[Output] | None = None,
    *,
    verify: bool = False,
    combined: bool = False,
) -> Found:
    """Hold the tables of the participant level against their sidecars.

    ``there`` are those that were found, if they have been looked for.
    Those that the records know by size and time of change are not read for that, unless
    to ``verify`` them. Of ``combined`` ones, the matrices over runs stand in place of
    those of the runs; else they are passed over.
    """
    there = find_outputs(output_dir) if there is None else there
    found = _check(output_dir, records, there, verify=verify, combined=combined)
    return _leave_out_twice(found)


def _check(
    output_dir: Path,
    records: Sequence[Record],
    there: Sequence[Output],
    *,
    verify: bool,
    combined: bool,
) -> Found:
    stamps = {stamp.table: stamp for r in records for stamp in r.stamps}
    begun = {table for record in records for table in record.begun}
    done = (r for r in records if r.status == "done")
    begun -= {table for record in done for table in record.outputs}
    usable: dict[str, list[Output]] = {"regions": [], "timeseries": [], "relmat": []}
    problems = []
    found = [o for o in there if o.kind in usable]
    stale = find_stale(found, records)
    if combined:
        chosen, _ = choose_combined(there)
        found = [o for o in found if o.kind != "relmat"] + chosen
    for output in sorted(found, key=lambda output: output.kind == "relmat"):
        error = output.told.error or _find_fault(
            output, stamps.get(output.path), begun=output.path in begun, verify=verify
        )
        if error is None and output.path in stale:
            error = explain_stale(output)
        if error is None and output.kind == "relmat" and output.told.of_tables:
            error = check_combined(output, stale)
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


def _leave_out_twice(found: Found) -> Found:
    """Move outputs that are there twice to the problems: they would weigh double."""
    twice = _find_twice([*found.usable, *(p.output for p in found.problems)])
    if not twice:
        return found
    problems = [*found.problems]
    for output in found.usable:
        if other := twice.get(output.path):
            reason = f"{output.path}: it is there twice, as {other} too."
            problems.append(Problem(output, f"{reason} Keep one of them."))
    regions, series, relmats = (
        tuple(output for output in outputs if output.path not in twice)
        for outputs in (found.regions, found.series, found.relmats)
    )
    return Found(regions, series, relmats, _order(problems))


def _order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: problem.output.kind == "relmat"))


def _find_twice(found: Sequence[Output]) -> dict[str, str]:
    """Outputs of one name in two folders, a copy of a session, each with the other."""
    # By numbers: the names of all outputs of a large group take much memory.
    counts = Counter(hash(o.path.rpartition("/")[2]) for o in found)
    if len(counts) == len(found):
        return {}
    paths: dict[str, list[str]] = defaultdict(list)
    for output in found:
        paths[output.path.rpartition("/")[2]].append(output.path)
    several = [own for own in paths.values() if len(own) > 1]
    return {path: next(p for p in own if p != path) for own in several for path in own}


def _find_fault(
    output: Output, stamp: Stamp | None, *, begun: bool, verify: bool
) -> BidsRoiError | None:
    """Why a table is not that of its sidecar, or not of one making with the others."""
    if begun:
        msg = "a call was stopped while it replaced the outputs of this run."
        return DataError(msg, where=output.path, remedy=REMEDY)
    try:
        check_table(output.file, output.table, stamp=stamp, verify=verify)
    except BidsRoiError as error:
        return error
    return None


def check_anything_left(
    output_dir: Path, found: Found, outcomes: Sequence[Outcome]
) -> None:
    """Refuse a folder without outputs, or with none that can be read."""
    if found.usable:
        return
    if found.problems:
        reasons = "\n  ".join(p.reason for p in found.problems[:_SHOWN])
        msg = f"none of the {len(found.problems)} outputs can be used:\n  {reasons}\n "
        raise DataError(
            msg, where=output_dir, remedy="Run the participant level again."
        )
    if not outcomes:
        msg = "the folder holds no participant outputs."
        remedy = "Run the participant level first, with the same output folder."
        raise MissingInput(msg, where=output_dir, remedy=remedy)


def check_digests(found: Found) -> None:
    """Refuse outputs that belong together and were made with different options.

    Region tables belong together by space and atlas; series and matrices by task,
    ``desc-`` and ``stat-`` too.
    """
    seen: dict[tuple[object, ...], dict[str, list[Output]]] = {}
    # What is left out for its settings was made with these, too.
    left_out = [p.output for p in found.problems if p.status == "left_out"]
    for output in (*found.usable, *left_out):
        scope = () if output.kind == "regions" else (output.scope, output.desc)
        together = (output.kind, output.place, output.stat, *scope)
        seen.setdefault(together, {}).setdefault(output.digest, []).append(output)
    for digests in seen.values():
        if len(digests) > 1:
            raise _explain(digests)


def _explain(digests: dict[str, list[Output]]) -> DataError:
    # The one that most were made with comes first.
    ranked = sorted(digests.items(), key=lambda item: (-len(item[1]), item[0]))
    lines = [
        f"  {digest}: {len(outputs)} outputs, for example {outputs[0].path}"
        for digest, outputs in ranked[:_SHOWN]
    ]
    if len(ranked) > _SHOWN:
        lines.append(f"  ... and {len(ranked) - _SHOWN} more")
    one = ranked[0][1][0]
    what = {"regions": "region tables", "timeseries": "series", "relmat": "matrices"}
    desc = f" desc-{one.desc}" if one.desc and one.kind != "regions" else ""
    msg = (
        f"the {what[one.kind]} of {one.atlas_name}{desc} were made with different"
        " options, versions or atlas files:\n" + "\n".join(lines) + "\n"
    )
    remedy = (
        "Make them again with the same ones (participant level, --overwrite), or keep"
        " what was made with other options in an output folder of its own."
    )
    return DataError(msg, remedy=remedy)


class Ledger:
    """Writer of group files, which keeps a list of them in ``logs/``.

    What an earlier call wrote and this one did not, matrices of a strategy that is gone
    for example, would look as if it belonged to the rest. Only files that are in the
    list are ever removed. A name enters it before the file is written, so that a call
    that is interrupted leaves nothing behind that nobody knows of. ``written`` are the
    names of the tables, in order.
    """

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.written: list[str] = []
        self._claimed: set[str] = set()
        self._known = set(list_group_files(output_dir))

    def write(
        self,
        name: str,
        text: str | Iterable[str],
        sidecar: Mapping[str, Any],
        columns: Mapping[str, str],
        *,
        warnings: Sequence[str] = (),
    ) -> None:
        """Write a table and its sidecar, which describes columns."""
        beside = sidecar_of(name)
        self.claim(name, beside)
        told = format_sidecar("group", sidecar, columns, warnings=warnings)
        write_file(self.output_dir, beside, told)
        write_file(self.output_dir, name, text)
        self.written.append(name)

    def claim(self, *names: str) -> None:
        """Say that files at the root are ours, before they are written."""
        self._claimed.update(names)
        if not self._known.issuperset(names):
            self._known.update(names)
            self._save()

    def close(self) -> list[str]:
        """Remove what is out of date; returns the names."""
        stale = []
        for name in sorted(self._known - self._claimed):
            with contextlib.suppress(OSError):  # one that stays is among the others
                (self.output_dir / name).unlink(missing_ok=True)
                stale.append(name)
        self._known = set(self._claimed)
        self._save()
        return stale

    def find_others(self) -> list[str]:
        """List what looks like group files and is of no call that is remembered."""
        there = (path.name for path in self.output_dir.glob("group_*.*"))
        ours = {name for name in there if name.endswith((".tsv", ".json", ".h5"))}
        return sorted(ours - self._known)

    def _save(self) -> None:
        content = {
            "Description": "Files that the group level has written.",
            "Files": sorted(self._known),
        }
        write_file(self.output_dir, LEDGER, format_json(content))


def name_group_file(
    suffix: str,
    *,
    place: tuple[str, ...],
    scope: tuple[str, ...] = (),
    stat: str = "",
    desc: str = "",
) -> str:
    """Name a group table.

    >>> name_group_file("coverage", place=("", "T1w", "", "A", "", "", "2", ""))
    'group_space-T1w_atlas-A_res-2_coverage.tsv'
    """
    entities = [*zip(SCOPE, scope, strict=False), *zip(PLACE, place, strict=True)]
    return "group_" + format_name(
        [*entities, ("stat", stat), ("desc", desc)], suffix, ".tsv"
    )
