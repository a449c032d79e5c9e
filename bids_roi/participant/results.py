"""The files of one run and atlas: region table, time series, matrices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.confounds.strategies import describe_strategy
from bids_roi.core.motion import correlate_quality, regional_dvars
from bids_roi.errors import BidsRoiError, ImageError
from bids_roi.files.tables import file_digest, read_json
from bids_roi.options.words import find_measure
from bids_roi.outputs.derivatives import (
    describe_kept_rows,
    describe_run,
    tabulate_regions,
    write_outliers,
    write_quality,
    write_relmat,
    write_timeseries,
)
from bids_roi.outputs.records import RAW, Digests, Making, Record, digest_outputs
from bids_roi.participant.cleaning_facts import describe_freedom, describe_gaps
from bids_roi.participant.confounds import RunConfounds
from bids_roi.participant.connectivity import (
    Kept,
    Related,
    relate_regions,
    settings_of,
)
from bids_roi.participant.signal_checks import tell_lost_regions, warn_of_maps

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas
    from bids_roi.confounds.strategies import Strategy
    from bids_roi.core.quality import RegionQuality
    from bids_roi.dataset.layout import BoldRun
    from bids_roi.images.nifti import Series
    from bids_roi.options.record import Options
    from bids_roi.outputs.derivatives import RelmatOutput, RunOutputs, SeriesOutput
    from bids_roi.outputs.result import AtlasResult, Motion, Preparation
    from bids_roi.participant.placing import Placed
    from bids_roi.participant.plan import PlannedRun

# Framewise displacement above which MRIQC counts a volume (its default).
_MOVED_MM = 0.2


def describe_quality(
    kept_signals: NDArray[np.float64],
    sample_mask: NDArray[np.bool_],
    motion: Motion,
    quality: RegionQuality,
    *,
    repetition_time: float | None,
) -> dict[str, Any]:
    """Sidecar keys of a series' quality.

    Parameters
    ----------
    kept_signals : (n_kept, R)
        The series.
    sample_mask : (T,)
        Which volumes of the run they are.
    motion
        Of the run.
    quality
        Of its regions.
    repetition_time
        Seconds.
    """
    n_kept = int(sample_mask.sum())
    facts: dict[str, Any] = {"NumberOfVolumesKept": n_kept}
    if repetition_time is not None:
        facts["SecondsKept"] = round(n_kept * repetition_time, 3)
    facts["MeanCoverage"] = round(float(quality.coverage.mean()), 6)
    lost = ~quality.has_voxels | np.isnan(kept_signals).all(axis=0)
    facts["NumberOfRegionsLost"] = int(lost.sum())
    if motion.rmsd is not None:
        facts["MeanRMSD"] = round(float(np.nanmean(motion.rmsd)), 6)
    fd = motion.fd
    if fd is None:
        return facts
    facts["MeanFramewiseDisplacement"] = round(float(np.nanmean(fd)), 6)
    facts["MaxFramewiseDisplacement"] = round(float(np.nanmax(fd)), 6)
    n_moved = int((fd > _MOVED_MM).sum())
    facts["NumberOfVolumesMoved"] = n_moved
    facts["PercentVolumesMoved"] = round(100 * n_moved / fd.size, 6)
    if np.isfinite(fd[sample_mask]).any():
        mean = float(np.nanmean(fd[sample_mask]))
        facts["MeanFramewiseDisplacementKept"] = round(mean, 6)
    if motion.std_dvars is not None:
        value = correlate_quality(fd, motion.std_dvars)
        if value is not None:
            facts["FDDVARSCorrelation"] = round(value, 6)
    value = correlate_quality(fd, regional_dvars(kept_signals, sample_mask))
    if value is not None:
        facts["FDRegionalDVARSCorrelation"] = round(value, 6)
    return facts


def describe_global_signal(
    kept_signals: NDArray[np.float64],
    raw: NDArray[np.float64],
    sample_mask: NDArray[np.bool_],
    motion: Motion,
    *,
    cleaned: bool,
) -> dict[str, Any]:
    """Sidecar keys of the mean over the regions of a series, and of it before cleaning.

    Kept volumes, (n_kept, R), and all of the run before cleaning, (T, R). Of signals as
    they are, volumes that are not steady do not count.
    """
    mask = sample_mask
    if not cleaned and motion.steady is not None:
        mask = mask & motion.steady
        kept_signals = kept_signals[mask[sample_mask]]
    used = np.isfinite(kept_signals).all(axis=0) & np.isfinite(raw[mask]).all(axis=0)
    facts: dict[str, Any] = {}
    series = {"": kept_signals} | ({"Before": raw[mask]} if cleaned else {})
    for when, signals in series.items():
        if not used.any() or len(signals) < 2:
            continue
        values = signals[:, used].mean(axis=1)
        # Digits, not places: a share of the level may be in any unit.
        facts[f"GlobalSignalDeviation{when}"] = float(f"{values.std(ddof=1):.7g}")
        if motion.fd is not None:
            value = correlate_quality(motion.fd[mask], values)
            if value is not None:
                facts[f"FDGlobalSignalCorrelation{when}"] = round(value, 6)
    return facts


@dataclass(frozen=True, slots=True)
class Job:
    """The work on one run: what is asked for, what is left, and how it is cleaned.

    Attributes
    ----------
    planned, options, strategies, output_dir
        What is asked for.
    making
        What is written.
    confounds
        The run's tables.
    inputs
        Fingerprints of everything that is read.
    work
        Atlases, and the names of what is left to make of them.
    there
        ``(atlas, label)`` of what is done.
    placed
        By atlas: how it lies on the run, of those that transforms brought there.
    preparations, failed
        By label: how the run is cleaned, and why it cannot be in other ways.
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


def digests_of(job: Job, atlas: Atlas, names: RunOutputs) -> dict[str, str]:
    """Tell the digest of each table of a run and atlas; series tell most, so first."""
    of = {label: job.digest(atlas, label) for label in {None, *names.labels}}
    digests = {series.path: of[series.label] for series in names.timeseries}
    digests |= {r.path: _relmat_digest(job, atlas, r) for r in names.relmats}
    digests |= {names.regions: of[None]}
    return {path: digest.options for path, digest in digests.items()}


def _relmat_digest(job: Job, atlas: Atlas, relmat: RelmatOutput) -> Digests:
    settings = settings_of(relmat, job.options)
    return job.digest(atlas, relmat.label, relmat.measure, relmat.statistic, settings)


def describe_atlas(job: Job, result: AtlasResult, motion: Motion) -> dict[str, Any]:
    """Sidecar keys that all outputs of a run and atlas share."""
    planned, placed = job.planned, job.placed.get(result.atlas.name)
    return describe_run(
        planned.run,
        result.atlas,
        job.options.deciding(),
        job.digest(result.atlas, None),
        frame=job.image.frame,
        n_volumes=job.image.source.n_volumes,
        mask_path=planned.mask_path,
        repetition_time=planned.repetition_time,
        fit=None if placed is None else placed.fit,
        notes=(
            *planned.warnings,
            *result.atlas.warnings,
            *(() if placed is None else placed.notes),
            *motion.notes,
            *result.notes,
        ),
    )


def write_result(
    job: Job, result: AtlasResult, motion: Motion, *, with_regions: bool
) -> list[Record]:
    """Write the files of one run and atlas.

    Parameters
    ----------
    job, result, motion
        What was made of the run.
    with_regions
        Whether to write the region table, which all strategies share.

    Returns
    -------
    list
        A record per strategy, those that failed among them. Where none is left,
        nothing is written.
    """
    records = [
        failed_record(job, result.atlas, label, error)
        for label, error in result.failed.items()
    ]
    if not result.names.labels:
        return records
    common = describe_atlas(job, result, motion)
    if with_regions:
        write_quality(
            job.making,
            result.names.regions,
            region_columns(result, motion),
            atlas=result.atlas,
            common=common | describe_levels(result, motion),
        )
    made = [
        _write_strategy(job, result, label, motion, common=common)
        for label in result.names.labels
    ]
    return records + made


def failed_record(
    job: Job, atlas: Atlas, label: str | None, error: BidsRoiError
) -> Record:
    """Record that a strategy, or an atlas, cannot be had of a run."""
    run = job.planned.run.relative_path
    return Record(
        run,
        atlas.name,
        "failed",
        str(error),
        job.planned.warnings,
        inputs=job.inputs,
        strategy=label or RAW,
    )


def _write_strategy(
    job: Job,
    result: AtlasResult,
    label: str | None,
    motion: Motion,
    *,
    common: Mapping[str, Any],
) -> Record:
    """Write the series and matrices of one strategy, or of raw signals."""
    quality, names = result.quality, result.names.only((label,))
    said = list(common.get("Warnings", ()))
    sidecars: dict[str, dict[str, Any]] = {}
    for series in names.timeseries:
        facts = describe_series(job, result, series, motion, common=common)
        clean = result.cleaned.get(series)
        sidecars[series.path] = write_timeseries(
            job.making,
            series.path,
            result.signals[series.statistic] if clean is None else clean.signals,
            statistic=series.statistic,
            atlas=result.atlas,
            frame=job.image.frame,
            common=common,
            facts=facts,
        )
        said += [note for note in facts.get("Warnings", ()) if note not in said]
    for note in _write_relmats(job, result, names, sidecars):
        if note not in said:
            said.append(note)
    if writes_parcellated(job):
        frame, seconds = job.image.frame, job.planned.repetition_time
        from bids_roi.outputs.result import write_parcellated

        said += write_parcellated(job.output_dir, result, names, frame, seconds)
    return Record(
        run=job.planned.run.relative_path,
        atlas=result.atlas.name,
        status="done",
        warnings=tuple(said),
        digest=job.digest(result.atlas, label).options,
        inputs=job.inputs,
        outputs=names.tables,
        n_regions=len(quality.status),
        n_lost=max(sidecar["NumberOfRegionsLost"] for sidecar in sidecars.values()),
        coverage=round(float(quality.coverage.mean()), 4),
        strategy=label or RAW,
    )


def writes_parcellated(job: Job) -> bool:
    """Whether CIFTI files are asked for, and the run is not a volume."""
    return job.options.extraction.cifti_output and job.image.grid is None


def region_columns(result: AtlasResult, motion: Motion) -> dict[str, Any]:
    """Columns of the region table of a run and atlas."""
    levels = {**result.levels(motion), **result.measures}
    return tabulate_regions(
        result.quality, levels, atlas=result.atlas, mapped=result.mapped
    )


def describe_levels(result: AtlasResult, motion: Motion) -> dict[str, Any]:
    """Sidecar keys that tell of what and over which volumes the levels are."""
    facts: dict[str, Any] = {"QualityStatistic": result.level_statistic}
    if motion.steady is None or motion.steady.all():
        return facts | {"QualityVolumes": "all"}
    flagged = np.flatnonzero(~motion.steady).tolist()
    return facts | {"QualityVolumes": "steady", "NonSteadyStateVolumes": flagged}


def kept_signals(
    result: AtlasResult, series: SeriesOutput
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Kept volumes of a series, (n_kept, R), and which of the run they are, (T,)."""
    clean = result.cleaned.get(series)
    if clean is not None:
        return clean.cleaned.signals, clean.cleaned.sample_mask
    signals = result.signals[series.statistic]
    return signals, np.ones(signals.shape[0], dtype=bool)


def describe_series(
    job: Job,
    result: AtlasResult,
    series: SeriesOutput,
    motion: Motion,
    *,
    common: Mapping[str, Any],
) -> dict[str, Any]:
    """Sidecar keys of one series: what was done to it, and how good it is."""
    signals, sample_mask = kept_signals(result, series)
    clean = result.cleaned.get(series)
    facts = dict(clean.facts) if clean is not None else {}
    if clean is not None and (moved := clean.preparation.filtered) is not None:
        mean = round(float(np.nanmean(moved.fd)), 6)
        facts["MeanFilteredFramewiseDisplacement"] = mean
    facts |= describe_quality(
        signals,
        sample_mask,
        motion,
        result.quality,
        repetition_time=job.planned.repetition_time,
    )
    raw = result.signals[series.statistic]
    facts |= describe_global_signal(
        signals, raw, sample_mask, motion, cleaned=clean is not None
    )
    if clean is None:  # of signals as they are, only the mean is not free
        facts |= describe_freedom(signals)
    elif clean.signals.shape[0] < sample_mask.size:
        facts |= describe_kept_rows(common, sample_mask)
    without, said = tell_lost_regions(signals, raw, result.quality, result.atlas)
    facts |= without
    if result.maps is not None and series.statistic == "least_squares":
        facts |= {"MapRank": result.maps.rank}
        facts |= {"MapCondition": float(f"{result.maps.condition:.4g}")}
        said += warn_of_maps(result.maps, result.atlas)
    if said:
        facts["Warnings"] = [*common.get("Warnings", ()), *said]
    if clean is not None:
        facts |= job.digest(result.atlas, series.label).describe()
        own = job.confounds.list_own(clean.preparation.strategy)
        facts["Sources"] = [*common["Sources"], *_confounds_uri(job.planned.run), *own]
        notes = [*common.get("Warnings", ()), *clean.notes, *said]
        if notes:
            facts["Warnings"] = notes
    return facts


def relate_series(
    result: AtlasResult,
    series: SeriesOutput,
    output: RelmatOutput,
    options: Options,
    *,
    facts: Mapping[str, Any],
) -> Related:
    """Compute a matrix of a series, whose sidecar keys are ``facts``."""
    signals, sample_mask = kept_signals(result, series)
    told = facts["EffectiveDegreesOfFreedom"]
    effective = float("nan") if told == "n/a" else told
    uneven = "VolumeTiming" in facts and "SourceRepetitionTime" not in facts
    freedom = facts["DegreesOfFreedom"]
    kept = Kept(signals, sample_mask, freedom, effective, is_even=not uneven)
    return relate_regions(kept, output, options)


def _write_relmats(
    job: Job,
    result: AtlasResult,
    names: RunOutputs,
    sidecars: Mapping[str, dict[str, Any]],
) -> list[str]:
    """Write the matrices; return what the user should know of them."""
    by_path = {series.path: series for series in names.timeseries}
    said: list[str] = []
    for output in names.relmats:
        series = sidecars[output.source]
        related = relate_series(
            result, by_path[output.source], output, job.options, facts=series
        )
        result.relmats[output.path] = related.relmat
        facts = settings_of(output, job.options) | related.facts
        facts |= _relmat_digest(job, result.atlas, output).describe()
        if related.absent:
            facts["ReasonNotAvailable"] = related.absent
        if find_measure(output.measure).is_correlation:
            facts["NumberOfIdenticalEdges"] = related.n_identical
        if related.notes:
            facts["Warnings"] = [*series.get("Warnings", ()), *related.notes]
        write_relmat(
            job.making,
            output,
            related.relmat,
            atlas=result.atlas,
            series=series,
            facts=facts,
        )
        said += related.notes
    return said


def _confounds_uri(run: BoldRun) -> list[str]:
    path = run.confounds_path
    if path is None or not path.is_relative_to(run.root):
        return []
    return [f"bids:preprocessed:{path.relative_to(run.root).as_posix()}"]


def write_outlier_table(job: Job, table: str, preparation: Preparation) -> None:
    """Write which volumes were left out, and why."""
    censoring = preparation.censoring
    mask = censoring.sample_mask
    words = ("dummy", "fd", "std_dvars", "neighbour", "short_segment")
    why = [
        ",".join(word for word in words if getattr(censoring, word)[t])
        for t in range(mask.size)
    ]
    blank = np.full(mask.size, np.nan)
    fd, dvars, moved = preparation.fd, preparation.dvars, preparation.filtered
    columns = {
        "outlier": (~mask).astype(int).tolist(),
        "dummy": censoring.dummy.astype(int).tolist(),
        "fd": (blank if fd is None else fd).tolist(),
        **({"fd_filtered": moved.fd.tolist()} if moved is not None else {}),
        "std_dvars": (blank if dvars is None else dvars).tolist(),
        "why": why,
    }
    name = preparation.strategy.name
    facts = {"NumberOfVolumesKept": int(mask.sum()), **describe_gaps(censoring)}
    write_outliers(job.making, table, columns, strategy=name, facts=facts)
