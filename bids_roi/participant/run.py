"""One BOLD run and its Job: opened, extracted, cleaned, related, written, drawn."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bids_roi.confounds.strategies import describe_strategy
from bids_roi.errors import BidsRoiError, ImageError, SpaceMismatch
from bids_roi.files.listing import is_there
from bids_roi.files.tables import (
    GONE,
    check_inside,
    file_digest,
    fingerprint,
    read_json,
)
from bids_roi.outputs.derivatives import settings_of
from bids_roi.outputs.records import (
    NO_ATLAS,
    RAW,
    Digests,
    Making,
    Record,
    digest_outputs,
    write_records,
)
from bids_roi.participant.cleaning import clean_atlases
from bids_roi.participant.confounds import (
    RunConfounds,
    prepare_cleaning,
    read_motion,
)
from bids_roi.participant.existing import Existing
from bids_roi.participant.extraction import extract, place_atlases
from bids_roi.participant.plan import recall_plan
from bids_roi.participant.results import (
    failed_record,
    write_outlier_table,
    write_result,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bids_roi.atlases.open import Atlas
    from bids_roi.confounds.strategies import Strategy
    from bids_roi.images.nifti import Series
    from bids_roi.options.record import Options
    from bids_roi.outputs.derivatives import RelmatOutput, RunOutputs
    from bids_roi.outputs.result import Preparation
    from bids_roi.participant.extraction import Placed
    from bids_roi.participant.plan import PlannedRun
    from bids_roi.report.draw import RunFigures


_KEPT = "the input is not here any more; the outputs that were made of it are kept."
_STOPPED = (
    "a call was stopped while it replaced these outputs. Run the same command again."
)


@dataclass(frozen=True, slots=True)
class Job:
    """The work on one run: what is asked for, what is left, and how it is cleaned.

    ``inputs`` are fingerprints of all that is read, ``work`` atlases with the names of
    what is left to make of them, ``there`` pairs ``(atlas, label)`` of what is done.
    ``placed`` says, by atlas, how those lie on the run that transforms brought there;
    ``preparations`` and ``failed``, by label, how the run is cleaned, and why not.
    """

    planned: PlannedRun
    options: Options
    strategies: tuple[Strategy | None, ...]
    output_dir: Path
    making: Making
    confounds: RunConfounds
    inputs: tuple[str, ...] = ()
    work: tuple[tuple[Atlas, RunOutputs], ...] = ()
    there: frozenset[tuple[str, str | None]] = frozenset()
    placed: Mapping[str, Placed] = field(default_factory=dict)
    preparations: Mapping[str, Preparation] = field(default_factory=dict)
    failed: Mapping[str, BidsRoiError] = field(default_factory=dict)

    @property
    def image(self) -> Series:
        """The header; a plan without one has an error and was refused before."""
        if self.planned.image is None:
            msg = "the header was not read."
            raise ImageError(msg, where=self.planned.run.relative_path)
        return self.planned.image

    def digest(self, atlas: Atlas, label: str | None, *more: object) -> Digests:
        """Digests of an output; those of raw signals know nothing of cleaning."""
        options, mask = self.options, self.planned.mask_path
        # A mask of the run's own is an input like the BOLD file.
        given = options.extraction.mask not in ("auto", "none") and mask is not None
        parts: list[object] = [file_digest(mask)] if given and mask else []
        strategy = self.strategy(label)
        if strategy is not None:
            parts += [
                describe_strategy(strategy),
                options.cleaning.censored,
                options.cleaning.high_variance_confounds,
                options.cleaning.allow_missing_confounds,
                _describe_dataset(options.cleaning.aroma_dataset),
            ]
            own = self.confounds.describe_own(strategy)
            parts += [
                [name, pattern, _describe_dataset(folder)]
                for name, (folder, pattern) in own.items()
            ]
        return digest_outputs(options.digest(), atlas, *parts, *more)

    def strategy(self, label: str | None) -> Strategy | None:
        """The strategy of a label; ``None`` for raw signals."""
        for strategy in self.strategies:
            if label is not None and strategy is not None and strategy.label == label:
                return strategy
        return None

    def digests(self, atlas: Atlas, names: RunOutputs) -> dict[str, str]:
        """Tell the digest of each table of an atlas; series tell most, so first."""
        of = {label: self.digest(atlas, label) for label in {None, *names.labels}}
        digests = {series.path: of[series.label] for series in names.timeseries}
        digests |= {r.path: self.relmat_digest(atlas, r) for r in names.relmats}
        digests |= {names.regions: of[None]}
        return {path: digest.options for path, digest in digests.items()}

    def relmat_digest(self, atlas: Atlas, relmat: RelmatOutput) -> Digests:
        """Digests of a matrix, which know its settings too."""
        settings = settings_of(relmat, self.options.connectivity)
        more = relmat.measure, relmat.statistic, settings
        return self.digest(atlas, relmat.label, *more)

    @property
    def writes_parcellated(self) -> bool:
        """Whether CIFTI files are asked for, and the run is not a volume."""
        return self.options.extraction.cifti_output and self.image.grid is None


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
        if kept := _find_kept(planned, options, strategies, output_dir):
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
        if not all(is_there(output_dir / table) for table in tables):
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
        for label in _labels_of(strategies)
    ]
    job, complete = _find_work(open_job(planned, options, strategies, output_dir))
    return job, [*refused, *complete]


def open_job(
    planned: PlannedRun,
    options: Options,
    strategies: tuple[Strategy | None, ...],
    output_dir: Path,
) -> Job:
    """Begin the work on a run; nothing is read yet."""
    n_volumes = 0 if planned.image is None else planned.image.source.n_volumes
    tables = RunConfounds(planned.run, n_volumes, options.cleaning)
    making = Making(output_dir)
    return Job(planned, options, strategies, output_dir, making, tables)


def _describe_dataset(folder: Path | None) -> object:
    """What made a dataset, ``None`` for no dataset: where it lies does not matter."""
    if folder is None:
        return None
    try:
        return read_json(folder / "dataset_description.json").get("GeneratedBy", "")
    except BidsRoiError:
        return ""


def _fingerprint_inputs(job: Job) -> tuple[str, ...]:
    """Everything that is read for a run: files, and what their sidecars say."""
    planned = job.planned
    moved_by = {
        path: None
        for atlas, _ in planned.atlases
        if atlas.route is not None
        for path, _ in atlas.route.steps
    }
    areas = {
        path: None
        for atlas, _ in planned.atlases
        if atlas.areas is not None
        for path in atlas.areas.files
    }
    own = (*planned.run.files, planned.mask_path, *job.confounds.paths)
    paths = (*own, *moved_by, *areas)
    # What the sidecars say when merged, and not the files: a sidecar at the root may
    # change for the sake of another task.
    said = json.dumps(dict(planned.run.metadata), sort_keys=True, default=str)
    return (
        *(fingerprint(p) for p in paths if p is not None and os.path.lexists(p)),
        hashlib.sha256(said.encode()).hexdigest()[:12],
        f"repetition time {planned.repetition_time}",
    )


def _find_work(job: Job, *, gone: bool = False) -> tuple[Job, list[Record]]:
    """What is left to do, and the records of what is there.

    Of an input that is ``gone``, so is the header, which may have told the repetition
    time.
    """
    inputs = _fingerprint_inputs(job)
    job = replace(job, inputs=(*inputs[:-1], GONE) if gone else inputs)
    if job.options.running.overwrite:
        return replace(job, work=job.planned.atlases), []
    existing = Existing(job)
    existing.check()
    work, records = [], []
    for atlas, names in job.planned.atlases:
        complete = existing.find_complete(atlas, names)
        records += [(atlas.name, label, found) for label, found in complete.items()]
        if left := [label for label in names.labels if label not in complete]:
            work.append((atlas, names.only(left)))
    there = frozenset((name, label) for name, label, _ in records)
    job = replace(job, work=tuple(work), there=there)
    return job, [record for _, _, record in records]


def _labels_of(strategies: tuple[Strategy | None, ...]) -> tuple[str | None, ...]:
    """Labels of denoising strategies; ``None`` for raw signals."""
    return tuple(None if s is None else s.label for s in strategies)


def _find_kept(
    planned: PlannedRun,
    options: Options,
    strategies: tuple[Strategy | None, ...],
    output_dir: Path,
) -> list[Record]:
    """Records of a run whose input has been dropped; none where something is to do."""
    recalled = recall_plan(planned, options, _labels_of(strategies), output_dir)
    if recalled is None or options.running.overwrite:
        return []
    job = open_job(recalled, options, strategies, output_dir)
    job, found = _find_work(job, gone=True)
    return (
        [] if job.work else [replace(r, warnings=(*r.warnings, _KEPT)) for r in found]
    )


def _note(job: Job, records: list[Record]) -> list[Record]:
    """Write all records but those that are there already."""
    new = [record for record in records if record.status != "complete"]
    write_records(job.output_dir, job.planned.run.relative_path, new)
    return records


def fail_run(
    planned: PlannedRun,
    error: BaseException,
    strategies: tuple[Strategy | None, ...],
) -> list[Record]:
    """Records of a run that failed, with the reason; not on disk yet."""
    asked = [atlas.name for atlas, _ in planned.atlases]
    asked += [name for name, _ in planned.refused]
    run = planned.run.relative_path
    known = isinstance(error, BidsRoiError)
    reason = str(error) if known else f"{type(error).__name__}: {error}"
    if not asked:
        return [Record(run, NO_ATLAS, "failed", reason, planned.warnings)]
    return [
        Record(run, name, "failed", reason, planned.warnings, strategy=label or RAW)
        for name in asked
        for label in _labels_of(strategies)
    ]


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
    if any(is_there(job.output_dir / t) for tables in begun.values() for t in tables):
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
