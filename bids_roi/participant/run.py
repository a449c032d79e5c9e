"""One BOLD run: opened, extracted, cleaned, related, written, drawn."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from bids_roi.errors import BidsRoiError, SpaceMismatch
from bids_roi.files.tables import check_inside
from bids_roi.outputs.records import (
    NO_ATLAS,
    RAW,
    Record,
    write_records,
)
from bids_roi.participant.cleaning import clean_atlases
from bids_roi.participant.confounds import prepare_cleaning, read_motion
from bids_roi.participant.extraction import extract, place_atlases
from bids_roi.participant.job import Job, find_kept, find_work, labels_of, open_job
from bids_roi.participant.results import (
    failed_record,
    write_outlier_table,
    write_result,
)

if TYPE_CHECKING:
    from pathlib import Path

    from bids_roi.confounds.strategies import Strategy
    from bids_roi.options.record import Options
    from bids_roi.participant.plan import PlannedRun
    from bids_roi.report.draw import RunFigures


_STOPPED = (
    "a call was stopped while it replaced these outputs. Run the same command again."
)


def process_run(
    planned: PlannedRun,
    *,
    options: Options,
    output_dir: Path,
    strategies: tuple[Strategy | None, ...] = (None,),
) -> list[Record]:
    """Make all outputs of a run; ``None`` among the strategies is for raw signals.

    Returns
    -------
    list
        One record per atlas and strategy asked for; also written under ``logs/``. A
        strategy that cannot be carried out costs its own outputs only.

    Raises
    ------
    BidsRoiError
        If the run cannot be processed; nothing of it is left half-written.
        ``OtherSettings`` where it must not be: nothing was touched then.
    """
    if planned.error is not None:
        if kept := find_kept(planned, options, strategies, output_dir):
            return kept
        raise planned.error
    job, records = _open_run(planned, options, output_dir, strategies)
    made = _make(job) if job.work else []
    return _note(job, [*records, *made])


def find_finished(
    planned: PlannedRun,
    *,
    options: Options,
    output_dir: Path,
    strategies: tuple[Strategy | None, ...],
    write: bool = True,
) -> list[Record] | None:
    """Find the records of a run of which nothing is left to do, as ``process_run``.

    ``None`` where something is, or is wrong: that is for ``process_run`` to tell. Only
    to ``write`` them leaves a trace on disk.
    """
    tables = [table for _, names in planned.atlases for table in names.tables]
    lost = [why for _, why in planned.refused if not isinstance(why, SpaceMismatch)]
    if not tables or lost or planned.error or options.running.overwrite:
        return None
    if options.running.verify:  # reads every table, which is work for the workers
        return None
    try:
        if not all((output_dir / table).exists() for table in tables):
            return None
        job, records = _open_run(planned, options, output_dir, strategies)
        if job.work:
            return None
        return _note(job, records) if write else records
    except Exception:  # noqa: BLE001 - process_run meets it again, and it is told
        return None


def _open_run(
    planned: PlannedRun,
    options: Options,
    output_dir: Path,
    strategies: tuple[Strategy | None, ...],
) -> tuple[Job, list[Record]]:
    """What is left to do of a run, and the records of what is not to be done."""
    run = planned.run.relative_path
    check_inside((output_dir / run).parent, output_dir)
    # Another space is no fault; an atlas that is damaged or missing is one.
    refused = [
        Record(
            run,
            name,
            "skipped" if isinstance(why, SpaceMismatch) else "failed",
            str(why),
            strategy=label or RAW,
        )
        for name, why in planned.refused
        for label in labels_of(strategies)
    ]
    job, complete = find_work(open_job(planned, options, strategies, output_dir))
    return job, [*refused, *complete]


def _note(job: Job, records: list[Record]) -> list[Record]:
    """Write all records but those that are there already."""
    new = [record for record in records if record.status != "complete"]
    write_records(job.output_dir, job.planned.run.relative_path, new)
    return records


def fail_run(
    planned: PlannedRun,
    error: BaseException,
    *,
    output_dir: Path,
    strategies: tuple[Strategy | None, ...] = (None,),
    on_disk: bool = True,
) -> list[Record]:
    """Record that a run failed, and why; not on disk where it was left as it is."""
    asked = [atlas.name for atlas, _ in planned.atlases]
    asked += [name for name, _ in planned.refused]
    run = planned.run.relative_path
    known = isinstance(error, BidsRoiError)
    reason = str(error) if known else f"{type(error).__name__}: {error}"
    records = [
        Record(run, name, "failed", reason, planned.warnings, strategy=label or RAW)
        for name in asked
        for label in labels_of(strategies)
    ]
    if not asked:
        records = [Record(run, NO_ATLAS, "failed", reason, planned.warnings)]
    if on_disk:
        write_records(output_dir, run, records)
    return records


def _make(job: Job) -> list[Record]:
    """All that is left to do of a run, in the order of the method."""
    began = time.monotonic()
    asked = job.work
    job, motion = prepare_cleaning(job), read_motion(job.confounds)
    records = [
        failed_record(job, atlas, label, error)
        for atlas, names in asked
        for label, error in job.failed.items()
        if label in names.labels
    ]
    job, misplaced = place_atlases(job)
    records += [
        failed_record(job, atlas, label, error)
        for atlas, names, error in misplaced
        for label in names.labels
    ]
    if not job.work:
        return records
    figures = None if job.options.running.no_report else _open_figures(job)
    extracted = extract(job, motion.steady, mean=figures.mean if figures else None)
    if figures is not None:
        figures.motion, figures.voxels = motion, extracted.partition.voxels
        if job.planned.mask_path is not None:
            figures.brain = extracted.inside
    used: dict[str, str] = {}
    whole = {atlas for atlas, _ in job.there}
    _begin(job)
    for result in clean_atlases(job, extracted):
        with_regions = result.atlas.name not in whole
        found = write_result(job, result, motion, with_regions=with_regions)
        if figures is not None and result.names.labels:
            figures.draw_atlas(result)
        used.update(result.names.outliers)
        seconds, memory = round(time.monotonic() - began, 3), _peak_memory()
        records += [
            replace(record, seconds=seconds, peak_memory_bytes=memory)
            for record in found
        ]
    outliers = [(name, job.preparations[label]) for label, name in used.items()]
    for name, preparation in outliers:
        write_outlier_table(job, name, preparation)
    records = [_stamp(job, record, used.get(record.strategy)) for record in records]
    if figures is None:
        return records
    if outliers or not any(label for _, label in job.there):
        figures.draw_motion(motion, outliers)
    return [replace(r, warnings=(*r.warnings, *figures.notes)) for r in records]


def _open_figures(job: Job) -> RunFigures:
    """The figures of a run: made before its file is read, of whose mean they are."""
    from bids_roi.atlases.templateflow import search_path
    from bids_roi.report.draw import RunFigures  # not without a report

    options, planned = job.options, job.planned
    return RunFigures(
        planned.run,
        job.image,
        job.output_dir,
        repetition_time=planned.repetition_time,
        minimum_coverage=options.extraction.min_coverage,
        homes=search_path(options.atlases.templateflow_home),
    )


def _stamp(job: Job, record: Record, outliers: str | None) -> Record:
    """Put what its tables are on disk into a record."""
    if record.status != "done":
        return record
    tables = [*record.outputs, *([outliers] if outliers else [])]
    return replace(record, stamps=tuple(sorted(job.making.stamp(tables))))


def _begin(job: Job) -> None:
    """Take back what records say of tables that are about to be replaced.

    Who is stopped after the first of them leaves tables of two makings.
    """
    begun = {
        (atlas.name, label): names.only((label,)).tables
        for atlas, names in job.work
        for label in names.labels
    }
    if any((job.output_dir / t).exists() for tables in begun.values() for t in tables):
        run, inputs = job.planned.run.relative_path, job.inputs
        stopped = [
            Record(
                *(run, atlas, "failed", _STOPPED),
                inputs=inputs,
                begun=tables,
                strategy=label or RAW,
            )
            for (atlas, label), tables in begun.items()
        ]
        write_records(job.output_dir, run, stopped)


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
