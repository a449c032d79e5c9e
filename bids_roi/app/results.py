"""The files of one run and atlas: region table, time series, matrices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.app.connectivity import Related, relate_regions, settings_of
from bids_roi.app.records import Record
from bids_roi.app.run_quality import describe_quality
from bids_roi.core.quality import temporal_snr
from bids_roi.errors import BidsRoiError, ImageError
from bids_roi.io.atlases.integrity import file_digest
from bids_roi.io.confounds.strategy_format import describe_strategy
from bids_roi.io.outputs.derivatives import (
    describe_run,
    tabulate_regions,
    write_outliers,
    write_quality,
    write_timeseries,
)
from bids_roi.io.outputs.digest import Digests, digest_outputs
from bids_roi.io.outputs.relmats import write_relmat
from bids_roi.io.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.app.cleaning import CleanedSeries, Preparation
    from bids_roi.app.plan import PlannedRun
    from bids_roi.app.run_quality import Motion
    from bids_roi.core.mapping import LabelMap, WeightMap
    from bids_roi.core.quality import RegionQuality
    from bids_roi.io.atlases.shelf import Atlas
    from bids_roi.io.confounds.strategy_format import Strategy
    from bids_roi.io.dataset.layout import BoldRun
    from bids_roi.io.images import BoldImage
    from bids_roi.io.outputs.names import RelmatOutput, RunOutputs, SeriesOutput
    from bids_roi.options.record import Options

__all__ = [
    "AtlasResult",
    "Job",
    "describe_atlas",
    "describe_series",
    "digests_of",
    "kept_signals",
    "region_columns",
    "relate_series",
    "write_outlier_table",
    "write_result",
]


@dataclass(frozen=True, slots=True)
class Job:
    """What the steps of one run need to know.

    Attributes
    ----------
    planned, options, strategies, output_dir
        What is asked for.
    inputs
        Fingerprints of everything that is read.
    """

    planned: PlannedRun
    options: Options
    strategies: tuple[Strategy | None, ...]
    output_dir: Path
    inputs: tuple[str, ...]

    @property
    def image(self) -> BoldImage:
        """The header; a plan without one has an error and was refused before."""
        if self.planned.image is None:
            msg = "the header was not read."
            raise ImageError(msg, where=self.planned.run.relative_path)
        return self.planned.image

    def digest(self, atlas: Atlas, label: str | None, *more: object) -> Digests:
        """Digests of an output; those of raw signals know nothing of cleaning."""
        options, mask = self.options, self.planned.mask_path
        # A mask of the run's own is an input like the BOLD file.
        given = options.mask not in ("auto", "none") and mask is not None
        parts: list[object] = [file_digest(mask)] if given and mask else []
        for strategy in self.strategies:
            if label is not None and strategy is not None and strategy.label == label:
                parts += [
                    describe_strategy(strategy),
                    options.censored,
                    options.high_variance_confounds,
                    options.allow_missing_confounds,
                    _describe_dataset(options.aroma_dataset),
                ]
        return digest_outputs(options, atlas, *parts, *more)


@dataclass(frozen=True, slots=True)
class AtlasResult:
    """What came of a run for one atlas.

    Attributes
    ----------
    atlas, names
        What was extracted, and where it goes.
    mapped
        The atlas on the grid.
    quality
        Of its regions.
    signals
        (T, R) per statistic, raw; NaN columns for lost regions.
    cleaned
        The series that were cleaned.
    relmats
        (R, R) by the path of the table, once they are written.
    """

    atlas: Atlas
    names: RunOutputs
    mapped: LabelMap | WeightMap
    quality: RegionQuality
    signals: Mapping[str, NDArray[np.float64]]
    cleaned: Mapping[SeriesOutput, CleanedSeries]
    relmats: dict[str, NDArray[np.float64]] = field(default_factory=dict)


def _describe_dataset(folder: Path | None) -> object:
    """What made a dataset, ``None`` for no dataset: where it lies does not matter."""
    if folder is None:
        return None
    try:
        return read_json(folder / "dataset_description.json").get("GeneratedBy", "")
    except BidsRoiError:
        return ""


def digests_of(job: Job, atlas: Atlas, names: RunOutputs) -> dict[str, str]:
    """Tell the digest of each table of a run and atlas."""
    digests = {names.regions: job.digest(atlas, None)}
    digests |= {t.path: job.digest(atlas, t.label) for t in names.timeseries}
    digests |= {r.path: _relmat_digest(job, atlas, r) for r in names.relmats}
    return {path: digest.options for path, digest in digests.items()}


def _relmat_digest(job: Job, atlas: Atlas, relmat: RelmatOutput) -> Digests:
    settings = settings_of(relmat, job.options)
    return job.digest(atlas, relmat.label, relmat.measure, relmat.statistic, settings)


def describe_atlas(job: Job, result: AtlasResult, motion: Motion) -> dict[str, Any]:
    """Sidecar keys that all outputs of a run and atlas share."""
    planned = job.planned
    return describe_run(
        planned.run,
        result.atlas,
        job.options,
        job.digest(result.atlas, None),
        grid=job.image.grid,
        n_volumes=job.image.source.n_volumes,
        mask_path=planned.mask_path,
        repetition_time=planned.repetition_time,
        notes=(*planned.warnings, *result.atlas.warnings, *motion.notes),
    )


def write_result(job: Job, result: AtlasResult, motion: Motion) -> Record:
    """Write the files of one run and atlas.

    Returns
    -------
    Record
        With the status ``done``.
    """
    atlas, quality = result.atlas, result.quality
    common = describe_atlas(job, result, motion)
    path = job.output_dir / result.names.regions
    write_quality(path, region_columns(result), atlas=atlas, common=common)
    said = list(common.get("Warnings", ()))
    sidecars: dict[str, dict[str, Any]] = {}
    for series in result.names.timeseries:
        facts = describe_series(job, result, series, motion, common=common)
        clean = result.cleaned.get(series)
        sidecars[series.path] = write_timeseries(
            job.output_dir / series.path,
            result.signals[series.statistic] if clean is None else clean.signals,
            statistic=series.statistic,
            atlas=atlas,
            common=common,
            facts=facts,
        )
        said += [note for note in facts.get("Warnings", ()) if note not in said]
    for note in _write_relmats(job, result, sidecars):
        if note not in said:
            said.append(note)
    return Record(
        run=job.planned.run.relative_path,
        atlas=atlas.name,
        status="done",
        warnings=tuple(said),
        digest=common["OptionsDigest"],
        inputs=job.inputs,
        outputs=result.names.tables,
        n_regions=len(quality.status),
        n_lost=sum(word != "ok" for word in quality.status),
        coverage=round(float(quality.coverage.mean()), 4),
    )


def region_columns(result: AtlasResult) -> dict[str, Any]:
    """Columns of the region table of a run and atlas."""
    return tabulate_regions(
        result.quality, _levels(result), atlas=result.atlas, mapped=result.mapped
    )


def _levels(result: AtlasResult) -> dict[str, NDArray[np.float64]]:
    weighted = result.atlas.kind == "probseg"
    mean = result.signals["weighted_mean" if weighted else "mean"]
    level, deviation = mean.mean(axis=0), mean.std(axis=0, ddof=1)
    return {
        "mean": level,
        "standard_deviation": deviation,
        "tsnr": temporal_snr(level, deviation),
    }


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
    if clean is not None:
        # Errors of rounding, over their own deviation, would look like any signal.
        signals = np.where(clean.cleaned.vanished, np.nan, signals)
    facts |= describe_quality(
        signals,
        sample_mask,
        motion,
        result.quality,
        repetition_time=job.planned.repetition_time,
    )
    # Of signals as they are, only the mean is not free.
    facts.setdefault("DegreesOfFreedom", signals.shape[0] - 1)
    if clean is not None:
        facts |= job.digest(result.atlas, series.label).describe()
        facts["Sources"] = [*common["Sources"], *_confounds_uri(job.planned.run)]
        notes = [*common.get("Warnings", ()), *clean.notes]
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
    signals, _ = kept_signals(result, series)
    clean = result.cleaned.get(series)
    return relate_regions(
        signals,
        output,
        options,
        degrees_of_freedom=facts["DegreesOfFreedom"],
        vanished=None if clean is None else clean.cleaned.vanished,
    )


def _write_relmats(
    job: Job, result: AtlasResult, sidecars: Mapping[str, dict[str, Any]]
) -> list[str]:
    """Write the matrices; return what the user should know of them."""
    by_path = {series.path: series for series in result.names.timeseries}
    said: list[str] = []
    for output in result.names.relmats:
        series = sidecars[output.source]
        related = relate_series(
            result, by_path[output.source], output, job.options, facts=series
        )
        result.relmats[output.path] = related.relmat
        facts = settings_of(output, job.options)
        facts |= _relmat_digest(job, result.atlas, output).describe()
        if related.absent:
            facts["ReasonNotAvailable"] = related.absent
        if output.measure != "covariance":
            facts["NumberOfIdenticalEdges"] = related.n_identical
        if related.notes:
            facts["Warnings"] = [*series.get("Warnings", ()), *related.notes]
        write_relmat(
            job.output_dir,
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


def write_outlier_table(path: Path, preparation: Preparation) -> None:
    """Write why each volume was kept or not."""
    censoring = preparation.censoring
    mask = censoring.sample_mask
    words = ("dummy", "fd", "std_dvars", "neighbour", "short_segment")
    why = [
        ",".join(word for word in words if getattr(censoring, word)[t])
        for t in range(mask.size)
    ]
    blank = np.full(mask.size, np.nan)
    fd, dvars = preparation.fd, preparation.dvars
    columns = {
        "kept": mask.astype(int).tolist(),
        "dummy": censoring.dummy.astype(int).tolist(),
        "framewise_displacement": (blank if fd is None else fd).tolist(),
        "std_dvars": (blank if dvars is None else dvars).tolist(),
        "why": why,
    }
    name = preparation.strategy.name
    write_outliers(path, columns, strategy=name, n_kept=int(mask.sum()))
