"""The files of one run and atlas: region table, time series, matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bids_roi.core.relmat import (
    MINIMUM_VOLUMES,
    are_identical,
    choose_volumes,
    fisher_z,
    freedom_of_some,
    has_variation,
    pool_runs,
    relate,
)
from bids_roi.options.words import find_measure
from bids_roi.outputs.derivatives import (
    describe_kept_rows,
    describe_run,
    settings_of,
    tabulate_regions,
    write_outliers,
    write_quality,
    write_relmat,
    write_timeseries,
)
from bids_roi.outputs.records import NOT_CLEANED, RAW, Record
from bids_roi.participant.cleaning import (
    describe_freedom,
    describe_gaps,
    describe_global_signal,
    describe_quality,
    tell_lost_regions,
    warn_of_maps,
    warn_of_unsteady,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas
    from bids_roi.core.relmat import Runs
    from bids_roi.errors import BidsRoiError
    from bids_roi.options.record import Options
    from bids_roi.options.words import Estimator
    from bids_roi.outputs.derivatives import RelmatOutput, RunOutputs, SeriesOutput
    from bids_roi.outputs.result import AtlasResult, Motion, Preparation
    from bids_roi.participant.run import Job

    FloatArray = NDArray[np.float64]


# Degrees of freedom (of partial ones beyond the regions). With 10, z has a deviation of
# 1 / sqrt(10) under independence: of the 4,950 edges of 100 regions 2 exceed |r| 0.8.
_SPARE = 10
# Of edges without correlation, the share with p < 0.05 from which there is a warning.
_SHARE = 0.06


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
    """Write the files of one run and atlas, nothing where no strategy is left.

    Returns a record per strategy, those that failed among them.
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
    for note in _write_relmats(job, result, names, motion, sidecars):
        if note not in said:
            said.append(note)
    if job.writes_parcellated:
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
        table, root = job.planned.run.confounds_path, job.planned.run.root
        if table is not None and table.is_relative_to(root):
            own = [f"bids:preprocessed:{table.relative_to(root).as_posix()}", *own]
        facts["Sources"] = [*common["Sources"], *own]
        doubts = warn_of_unsteady(sample_mask, motion, clean.preparation)
        if notes := [*common.get("Warnings", ()), *clean.notes, *doubts, *said]:
            facts["Warnings"] = notes
    return facts


def relate_series(
    result: AtlasResult,
    series: SeriesOutput,
    output: RelmatOutput,
    options: Options,
    motion: Motion,
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
    related = relate_regions(kept, output, options)
    if series in result.cleaned:  # its own warnings say so
        return related
    doubts = warn_of_unsteady(sample_mask, motion, None)
    return replace(related, notes=(*related.notes, *doubts))


def _write_relmats(
    job: Job,
    result: AtlasResult,
    names: RunOutputs,
    motion: Motion,
    sidecars: Mapping[str, dict[str, Any]],
) -> list[str]:
    """Write the matrices; return what the user should know of them."""
    by_path = {series.path: series for series in names.timeseries}
    said: list[str] = []
    for output in names.relmats:
        series = sidecars[output.source]
        one = by_path[output.source]
        related = relate_series(result, one, output, job.options, motion, facts=series)
        result.relmats[output.path] = related.relmat
        facts = settings_of(output, job.options.connectivity) | related.facts
        facts |= job.relmat_digest(result.atlas, output).describe()
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


@dataclass(frozen=True, slots=True)
class Related:
    """A matrix, and what is said of it.

    NaN in ``relmat``, (R, R), is for regions without signal. ``n_identical`` counts
    pairs with one series, or its negative; ``absent`` is why no entry has a value, and
    is among the ``notes``; ``facts`` are keys that differ from the series'.
    """

    relmat: FloatArray
    n_identical: int
    absent: str
    notes: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kept:
    """The volumes that a matrix is of.

    ``signals``, (n_kept, R), are NaN for lost regions; ``sample_mask``, (T,), tells
    which volumes of the run they are. ``freedom`` are the degrees that cleaning has
    left (of raw signals, volumes less one), ``effective`` those after autocorrelation,
    NaN where it is not known. ``is_even`` is whether the volumes of the run are evenly
    spaced.
    """

    signals: FloatArray
    sample_mask: NDArray[np.bool_]
    freedom: float
    effective: float = float("nan")
    is_even: bool = True

    def choose(self, n_volumes: int, seed: int) -> Kept:
        """Some of them, as ``core.relmat.choose_volumes`` has it."""
        n_kept = self.signals.shape[0]
        if n_volumes >= n_kept:
            return self
        chosen = choose_volumes(n_kept, n_volumes, seed)
        mask = np.zeros_like(self.sample_mask)
        mask[np.flatnonzero(self.sample_mask)[chosen]] = True
        freedom, effective = (
            freedom_of_some(of_all, n_kept, n_volumes)
            for of_all in (self.freedom, self.effective)
        )
        return Kept(self.signals[chosen], mask, freedom, effective, self.is_even)

    def describe(self) -> dict[str, Any]:
        """Keys of the series that are other of these volumes."""
        effective = "n/a" if math.isnan(self.effective) else round(self.effective, 2)
        return {
            "DegreesOfFreedom": round(self.freedom, 2),
            "EffectiveDegreesOfFreedom": effective,
        }


def relate_regions(kept: Kept, output: RelmatOutput, options: Options) -> Related:
    """Compute a matrix of kept volumes.

    A partial correlation given k others has k fewer degrees of freedom than a plain one
    (Fisher 1924, Metron 3:329), so that z of R regions has a standard deviation of
    1 / sqrt(d - R) under independence with d of them. With R or fewer the covariance
    has no inverse but of what the volumes happen to span.
    """
    n_kept, wanted = kept.signals.shape[0], options.connectivity.relmat_volumes
    facts = {}
    if wanted is not None and wanted < n_kept:
        kept = kept.choose(wanted, options.connectivity.relmat_seed)
        facts = kept.describe()
    signals, measure = kept.signals, find_measure(output.measure)
    n_lost = int((~np.isfinite(signals).all(axis=0)).sum())
    n_usable = int(has_variation(signals).sum())
    absent = _find_absence(n_kept, n_usable, kept.freedom, output, options)
    if absent:
        relmat = np.full((signals.shape[1],) * 2, np.nan)
    else:
        given = {
            word: getattr(options.connectivity, name)
            for word, name in measure.parameters
        }
        if measure.timed:
            given["sample_mask"] = kept.sample_mask
        relmat = relate(output.measure, signals, **given)
    related = _judge(
        *(relmat, absent, n_lost, n_usable, output, options),
        degrees_of_freedom=kept.freedom,
    )
    doubts = _doubt_xdf(kept, output, options) if measure.timed and not absent else []
    return replace(related, notes=(*related.notes, *doubts), facts=facts)


def relate_runs(
    runs: Runs, output: RelmatOutput, options: Options, *, degrees_of_freedom: float
) -> tuple[Related, tuple[int, ...]]:
    """Compute a matrix over several runs, and count the volumes of each.

    ``runs`` is called for (n_kept, R) of one run after the other, and
    ``degrees_of_freedom`` are those of all together: each run has lost its own mean.
    """
    estimator = cast("Estimator", options.connectivity.partial_estimator)
    plain = pool_runs("pearson", runs, estimator=estimator)
    n_kept, n_usable = sum(plain.n_volumes), plain.n_usable
    absent = _find_absence(n_kept, n_usable, degrees_of_freedom, output, options)
    relmat = plain.relmat
    if absent:
        relmat = np.full_like(relmat, np.nan)
    elif output.measure != "pearson":
        relmat = pool_runs(output.measure, runs, estimator=estimator).relmat
    related = _judge(
        *(relmat, absent, plain.n_lost, n_usable, output, options),
        degrees_of_freedom=degrees_of_freedom,
    )
    return related, plain.n_volumes


def _judge(
    relmat: FloatArray,
    absent: str,
    n_lost: int,
    n_usable: int,
    output: RelmatOutput,
    options: Options,
    *,
    degrees_of_freedom: float,
) -> Related:
    """Say what the user should know of a matrix, and bring it to its scale."""
    n_flat = len(relmat) - n_lost - n_usable
    notes = [absent] if absent else []
    if n_flat and not absent:
        notes.append(
            f"{n_flat} regions do not vary over the kept volumes, or by rounding errors"
            f" only: n/a in the {output.measure} matrix."
        )
    if output.label is None:
        notes.append(NOT_CLEANED)
    n_identical = 0
    if find_measure(output.measure).is_correlation:
        if not absent:
            notes += _doubt_freedom(n_usable, degrees_of_freedom, output, options)
        above = np.triu_indices(relmat.shape[0], 1)
        n_identical = int(are_identical(relmat[above]).sum())
    if n_identical:
        rest = ": z is n/a there." if output.fisher_z else " (|r| is 1)."
        notes.append(f"{n_identical} pairs of regions have the same series{rest}")
    if output.fisher_z:
        relmat = fisher_z(relmat)
    return Related(relmat, n_identical, absent, tuple(notes))


def _find_absence(
    n_kept: int,
    n_usable: int,
    degrees_of_freedom: float,
    output: RelmatOutput,
    options: Options,
) -> str:
    """Why the matrix can have no value; empty where it can."""
    measure, least = output.measure, options.connectivity.min_degrees_of_freedom
    end = f"desc-{output.label}" if output.label else "the signals as they are"
    end = f"the {measure} matrix of {end} is n/a throughout."
    if n_kept < MINIMUM_VOLUMES:
        return (
            f"{n_kept} volumes are kept, a {measure} matrix needs"
            f" {MINIMUM_VOLUMES}: {end}"
        )
    wanted = options.connectivity.relmat_volumes
    if wanted is not None and n_kept < wanted:
        return f"{n_kept} volumes are kept, --relmat-volumes asks for {wanted}: {end}"
    if degrees_of_freedom < least:
        return (
            f"{degrees_of_freedom:g} degrees of freedom are left,"
            f" --min-degrees-of-freedom asks for {least:g}: {end}"
        )
    if n_usable == 0:
        return f"no region has a signal that varies: {end}"
    pseudo = (
        measure == "partial"
        and options.connectivity.partial_estimator == "pseudo_inverse"
    )
    if pseudo and degrees_of_freedom <= n_usable:
        return (
            "partial correlation by pseudo-inverse needs more degrees of freedom"
            f" ({degrees_of_freedom:g} are left in {n_kept} volumes) than regions"
            f" ({n_usable}): {end} --partial-estimator ledoit_wolf gives one, shrunk;"
            " or take an atlas of fewer regions."
        )
    return ""


def _doubt_freedom(
    n_usable: int, degrees_of_freedom: float, output: RelmatOutput, options: Options
) -> list[str]:
    """Say how far correlations of so few degrees of freedom can be trusted."""
    name = f"desc-{output.label}" if output.label else "the signals as they are"
    partial = output.measure == "partial"
    shrunk = partial and options.connectivity.partial_estimator == "ledoit_wolf"
    spare = degrees_of_freedom - n_usable * partial
    if spare >= _SPARE or (shrunk and spare > 0):
        return []
    what = f"{output.measure} correlation of {name}"
    have = f"{degrees_of_freedom:g} degrees of freedom"
    have += f" for {n_usable} regions" * partial
    if shrunk:
        return [
            f"{what}: {have}. The matrix exists by its shrinkage only, and shows little"
            " of what is there; take an atlas of fewer regions."
        ]
    spread = f"has a standard deviation of {spare**-0.5:.2f}"
    if partial:
        return [
            f"{what} by pseudo-inverse: {have}. Under independence its z {spread}:"
            " --partial-estimator ledoit_wolf, or an atlas of fewer regions."
        ]
    return [
        f"{what}: {have}. Under independence r {spread}: take out less, or leave the"
        f" run out (--min-degrees-of-freedom {_SPARE})."
    ]


def _doubt_xdf(kept: Kept, output: RelmatOutput, options: Options) -> list[str]:
    """Say how far p can be trusted: xDF takes filters for what it sees of them.

    Of edges without correlation z then has the standard deviation sqrt(n / d), with n
    degrees of freedom by xDF and d that there are.
    """
    name = f"desc-{output.label}" if output.label else "the signals as they are"
    notes = []
    if not kept.is_even:
        notes.append(
            f"xDF of {name}: volumes are not evenly spaced, and lags are in volumes:"
            " z and p are right only if its autocorrelation is short."
        )
    there = kept.freedom if math.isnan(kept.effective) else kept.effective
    regularisation = options.connectivity.xdf_regularisation
    found = relate(
        "pearsonxdfdof",
        kept.signals,
        sample_mask=kept.sample_mask,
        regularisation=regularisation,
    )
    found = found[np.isfinite(found)]
    if not found.size or there <= 0:
        return notes
    middle = float(np.median(found))
    ratio = math.sqrt(there / middle)
    share = math.erfc(1.959964 * ratio / math.sqrt(2))
    if share < _SHARE:
        return notes
    return [
        *notes,
        f"xDF of {name}: {middle:.0f} effective degrees of freedom (median over edges),"
        f" where {there:.0f} are left after filter, regressors and autocorrelation. z"
        f" and p are too sure: of edges without correlation some {share:.0%} would have"
        f" p < 0.05; z times {ratio:.2f} allows for it.",
    ]
