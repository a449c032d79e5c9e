"""The group level from the folder to the summary: find, check, accumulate, write."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bids_roi.errors import count_of
from bids_roi.files.tables import remove_leftovers
from bids_roi.group.connectivity import (
    noun_of,
    warn_of_group,
    warn_of_motion,
    write_group,
)
from bids_roi.group.covariates import Covariates, find_table, read_covariates
from bids_roi.group.matrices import Asked, GroupKey, add_up, plan_group, tally_batch
from bids_roi.group.outputs import (
    Found,
    Ledger,
    Problem,
    check_anything_left,
    check_digests,
    read_everyone,
)
from bids_roi.group.regions import (
    Regions,
    cut_tables,
    gather_regions,
    read_tables,
    write_region_matrices,
)
from bids_roi.group.runs import (
    RunsTable,
    check_measure,
    list_combined,
    list_rows,
    measure_motion,
    sort_into_runs,
    tell_not_combined,
)
from bids_roi.group.scratch import Spool, spooling
from bids_roi.group.summaries import summarise_group, write_summaries
from bids_roi.group.workers import Workers, give_memory_back
from bids_roi.options.words import measure_of_word, scale_of_word
from bids_roi.outputs.columns import SPACE_KEYS
from bids_roi.outputs.counts import say_size
from bids_roi.outputs.find import SCOPE, series_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bids_roi.group.regions import Summary
    from bids_roi.group.runs import Row, Run
    from bids_roi.options.record import Options
    from bids_roi.options.row import Group as GroupOptions
    from bids_roi.outputs.find import Output, RunKey


log = logging.getLogger("bids_roi")

_SHOWN = 5


@dataclass(slots=True)
class _Level:
    """One call of the group level, and what it has found out so far."""

    output_dir: Path
    options: GroupOptions
    covariates: Covariates | None
    found: Found
    ledger: Ledger
    workers: Workers
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    regions: dict[tuple[str, ...], Regions] = field(default_factory=dict)
    summaries: dict[str, Summary] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What statistics are over: participant or run."""
        return self.options.group_unit


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """What is found stays: to look for garbage, 30,000 outputs are walked each time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_without_collection()
def run_group_level(
    output_dir: Path, options: Options, bids_dir: Path | None = None
) -> tuple[str, bool]:
    """Write all group tables; returns a summary of one screen, and whether all is well.

    Outputs that belong in one table and were made with different options are refused
    before anything is written, and so are covariates that are not there. A participant
    whose outputs or records cannot be read is left out, and all is not well.
    """
    asked = options.group
    check_measure(asked.fd_measure)
    covariates = None
    if asked.covariates:
        table = find_table(asked.participants_file, bids_dir)
        covariates = read_covariates(table, asked.covariates)
    combined = options.group.group_unit == "combined"
    verify = options.running.verify
    everyone = read_everyone(output_dir, verify=verify, combined=combined)
    found, outcomes, closed, there = everyone
    if closed and not found.usable:
        raise next(iter(closed.values()))
    check_anything_left(output_dir, found, outcomes)
    check_digests(found)
    tables, n = count_of(len(found.regions), "region table"), len(found.relmats)
    log.info(
        *("found: %s, %d series and %d matri%s", tables, len(found.series)),
        *(n, "x" if n == 1 else "ces"),
    )
    for folder in ("", "logs", "figures"):
        remove_leftovers(output_dir / folder)
    ledger = Ledger(output_dir)
    workers = Workers.of(options.running)
    with workers.at_hand() as workers, spooling(output_dir) as spool:
        problems = [*found.problems]
        level = _Level(output_dir, asked, covariates, found, ledger, workers, problems)
        if covariates is not None:
            told = ", ".join(asked.covariates)
            level.notes.append(f"covariates: {told} of {table}")
        _write_places(level)
        motion = _write_groups(level, spool if "relmat" in asked.stack else None)
        give_memory_back()
        _write_stacks(level, options, spool)
    if combined:
        level.notes += tell_not_combined(there)
    left_out = {id(problem.output) for problem in level.problems}
    # A file that turned out to be damaged is no output of its run.
    good = [output for output in found.usable if id(output) not in left_out]
    # A matrix over runs is no loss of a run, nor is that a run without a matrix.
    over_runs = [o for o in good if combined and o.kind == "relmat"]
    of_runs = [o for o in good if not combined or o.kind != "relmat"]
    rows = RunsTable()
    runs = sort_into_runs(of_runs, level.problems)
    for row in list_rows(runs, level.summaries, outcomes):
        log.info("%s", _say_row(row))
        rows.add(row)
    for row in list_combined(over_runs):
        rows.add(row)
    rows.write(ledger)
    stale = ledger.close()
    for name in ledger.written:
        log.info("written: %s", name)
    for person, error in closed.items():
        log.error("%s is left out: %s", person, error)
    return _summarise(level, rows, motion, stale), not closed


def _write_places(level: _Level) -> None:
    """Region tables: one space and atlas after the other."""
    places: dict[tuple[str, ...], list[Output]] = defaultdict(list)
    for output in level.found.regions:
        places[output.place].append(output)
    ordered = sorted(places.items())
    batches = {place: cut_tables(level.output_dir, own) for place, own in ordered}
    every = itertools.chain.from_iterable(batches.values())
    with contextlib.closing(level.workers.map(read_tables, every)) as tables:
        for place, outputs in ordered:
            own = itertools.islice(tables, len(batches[place]))
            with contextlib.ExitStack() as files:
                regions, problems = gather_regions(outputs, own, files)
                if regions is not None:
                    write_region_matrices(level.ledger, regions)
            level.problems += problems
            if regions is not None:
                told = {output.path: row for output, row in regions.tables}
                level.summaries.update(told)
                level.regions[place] = regions.without_tables()


def _write_groups(level: _Level, spool: Spool | None) -> list[Row]:
    """Connectivity: one task, space, atlas, statistic and desc after the other.

    Returns the rows of ``group_qcfc.tsv``.
    """
    runs = sort_into_runs(level.found.usable, ())
    groups: dict[GroupKey, list[Output]] = defaultdict(list)
    # By name: a run may lie in the folder of another participant.
    for output in sorted(level.found.relmats, key=lambda o: o.participant):
        if scale_of_word(output.stat) != "p":
            groups[_key_of(output)].append(output)
    if any(scale_of_word(output.stat) == "p" for output in level.found.relmats):
        level.notes.append("p values are not averaged: they are in the stacks.")
    left_out: dict[GroupKey, list[Problem]] = defaultdict(list)
    for problem in level.found.problems:
        if problem.status == "left_out":
            left_out[_key_of(problem.output)].append(problem)

    asked = Asked(
        level.options,
        level.covariates,
        partial(measure_motion, level.options.fd_measure, runs),
        partial(_tell, runs),
        spool,
    )
    plans = {
        key: plan_group(level.output_dir, outputs, level.regions.get(key[1]), asked)
        for key, outputs in sorted(groups.items())
    }
    if spool is not None:
        spool.begin()
    motion: list[Row] = []
    reliability: list[Row] = []
    warnings: dict[str, list[str]] = defaultdict(list)
    batches = (b for k, plan in plans.items() for b in plan.batches(groups[k], asked))
    # One set of processes for all groups: to start it takes as long as 20 matrices.
    with contextlib.closing(level.workers.map(tally_batch, batches)) as tallies:
        for key, plan in plans.items():
            own = itertools.islice(tallies, len(plan.cuts))
            regions = level.regions.get(key[1])
            with contextlib.ExitStack() as files:
                group, problems = add_up(
                    *(key, groups[key], regions, own, asked, plan, files)
                )
                level.problems += problems
                if group is None:
                    continue
                group.left_out += left_out[key]
                told = (*warn_of_group(group), *warn_of_motion(group, level.options))
                for name, text in told:
                    warnings[text].append(name)
                write_group(level.ledger, group, asked)
                of_motion, of_runs = summarise_group(group, level.options)
                motion.append(of_motion)
                reliability.append(of_runs)
    for text, (name, *more) in warnings.items():
        many = f" and {count_of(len(more), 'table')} more" if more else ""
        level.notes.append(f"{name}{many}: {text}")
    said = _describe_asked(level)
    write_summaries(level.ledger, motion, reliability, level.notes, said)
    return motion


def _describe_asked(level: _Level) -> dict[str, object]:
    """Sidecar keys of what was asked for besides."""
    said: dict[str, object] = {}
    if level.options.fd_measure != "fd_mean":
        said["MotionMeasure"] = level.options.fd_measure
    if level.covariates is not None:
        said["Covariates"] = list(level.options.covariates)
        said["CovariatesTable"] = level.covariates.source.name
    if level.options.permutations:
        said["PermutationSeed"] = level.options.permutation_seed
    return said


def _key_of(output: Output) -> GroupKey:
    return output.scope, output.place, output.stat, output.desc


def _write_stacks(level: _Level, options: Options, spool: Spool) -> None:
    """Stacks for machine learning; h5py is imported only where they are asked for."""
    if "none" in options.group.stack:
        return
    from bids_roi.group.stacking import write_stacks

    known = replace(level.found, problems=tuple(level.problems))
    if level.unit == "combined":
        known = replace(known, series=())  # series are of runs: no row would have both
    names, problems = write_stacks(
        level.output_dir,
        contents=options.group.stack,
        dtype=options.group.stack_dtype,
        workers=level.workers,
        found=known,
        spool=spool,
        claim=level.ledger.claim,
        # Tasks, or participants' own segmentations, may differ in their options.
        refuse=lambda error: level.notes.append(f"a stack is left out: {error}"),
    )
    level.problems += problems
    level.ledger.written += names


def _tell(runs: dict[RunKey, Run], output: Output, key: str) -> float | None:
    """Tell a number of a matrix's run, from its own sidecar or another of the run."""
    own = output.number(key)
    if own is not None:
        return own
    if output.is_combined:  # its runs agree in what it does not tell
        told = (series.number(key) for series in series_of(output))
        return next(told, None)
    return runs[output.run].number(key, output.desc, of_the_run=True)


def _say_losses(status: str, rows: list[dict[str, Any]]) -> list[str]:
    """Lines about what has a status; what many share is said once, by the first."""
    reasons: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        reasons.setdefault(str(row["reason"]), []).append(row)
    lines = []
    for reason, alike in list(reasons.items())[:_SHOWN]:
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        where = f"{status.replace('_', ' ')}: {_locate(alike[0])}{more}"
        lines.append(f"  {where}: {reason}")
    if len(reasons) > _SHOWN:
        others = count_of(len(reasons) - _SHOWN, "other reason")
        lines.append(f"  ... and {others}: see group_runs.tsv")
    return lines


def _summarise(
    level: _Level, rows: RunsTable, motion: list[Row], stale: list[str]
) -> str:
    """One screen: what there is, what was left out, where to look."""
    keys = (
        *("done", "incomplete", "absent", "left_out", "unreadable"),
        *("skipped", "failed"),
    )
    counts = rows.counts
    told = ", ".join(f"{counts[k]} {k}" for k in keys if counts[k] or k == "failed")
    told = told.replace("left_out", "left out")
    lines = [f"{say_size(rows.sized)}; each atlas and strategy of a run counts: {told}"]
    for status in keys[1:]:
        lines += _say_losses(status, rows.losses[status])
    if not level.found.usable:
        lines.append("no run has outputs: there is nothing to put into tables")
    if motion:
        groups = count_of(len(motion), "group")
        lines.append(f"{groups} of matrices, over {noun_of(level.unit)}s")
        lines += _say_groups(motion)
    if stale:
        tables = [name for name in stale if not name.endswith(".json")]
        lines.append(f"removed, for they are out of date: {', '.join(tables)}")
    if others := level.ledger.find_others():
        log.warning(
            "%s group_* not of this call, left as found: %s%s. Remove what an earlier"
            " release made: its columns have other names, with which pybids refuses the"
            " folder.",
            count_of(len(others), "file"),
            ", ".join(others[:_SHOWN]),
            ", ..." if len(others) > _SHOWN else "",
        )
        files = count_of(len(others), "file")
        lines.append(f"not of this call, and in no page: {files} group_*")
    lines += level.notes
    written = level.ledger.written
    summaries = [name for name in written if name.count("_") == 1]
    joined = ", among them" if len(written) > len(summaries) else ":"
    files = f"{count_of(len(written), 'file')} group_*"
    lines.append(f"{files}{joined} {', '.join(summaries)}")
    return "\n".join([*lines, f"  in {level.output_dir}"])


def _locate(row: Row) -> str:
    desc = f" desc-{row['desc_id']}" if row.get("desc_id") else ""
    return f"{row.get('source') or row.get('participant_id')}{desc}"


def _say_row(row: Row) -> str:
    """With -v: what was found of a run, atlas and strategy, or why nothing is used."""
    what = f"strategy {row['desc_id']}" if row.get("desc_id") else "raw signals"
    status = str(row["status"]).replace("_", " ")
    why = f": {row['reason']}" if row["reason"] else ""
    name = row.get("source") or row.get("participant_id")
    return f"{name}, atlas {row['atlas_id']}, {what}: {status}{why}"


def _say_groups(motion: Sequence[Row]) -> list[str]:
    """Lines on the groups; those without QC-FC for one and the same reason are one."""
    without: dict[str, list[Row]] = defaultdict(list)
    for row in motion:
        if row["median_abs_r"] is None:
            without[str(row["reason"])].append(row)
    many = {reason: own for reason, own in without.items() if own[1:]}
    own_lines = [
        row
        for row in motion
        if row["median_abs_r"] is not None or str(row["reason"]) not in many
    ]
    lines = [f"  {_say_group(row)}" for row in own_lines[: 2 * _SHOWN]]
    if more := len(own_lines[2 * _SHOWN :]):
        lines.append(f"  ... and {more} more: see group_qcfc.tsv")
    for reason, own in many.items():
        spaces = {str(row["space_id"]): None for row in own if row.get("space_id")}
        where = f" (space {', '.join(spaces)})" if spaces else ""
        lines.append(f"  {len(own)} without QC-FC{where}: {reason}")
    return lines


def _say_group(row: Row) -> str:
    """One line on a group: who is in it, and how much motion."""
    places = [
        f"{key} {row[f'{key}_id']}"
        for key in (*SCOPE, *SPACE_KEYS, "atlas")
        if row.get(f"{key}_id")
    ]
    stat = str(row["stat_id"])
    z = "Fisher's z of " if scale_of_word(stat) == "z" else ""
    desc = f"strategy {row['desc_id']}" if row.get("desc_id") else "raw signals"
    name = ", ".join([*places, f"{z}{measure_of_word(stat)}", desc])
    people = count_of(int(str(row["n_participants"])), "participant")
    size = f"{people}, {count_of(int(str(row['n_runs'])), 'run')}"
    if row["median_abs_r"] is None:
        return f"{name}: {size}; no QC-FC: {row['reason']}"
    told = (
        f"{name}: {size}; QC-FC median |r| {row['median_abs_r']:.3f} (by chance"
        f" {row['median_abs_r_chance']:.3f})"
    )
    if row.get("median_abs_r_partial") is not None:
        told += f", with covariates {row['median_abs_r_partial']:.3f}"
    elif "median_abs_r_partial" in row:
        told += f", none with covariates. {row['reason']}"
    if row.get("median_abs_r_p") is not None:
        told += f", p {row['median_abs_r_p']:.4f}"
    return told
