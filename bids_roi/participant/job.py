"""A Job: what is left to do of one run, held against the outputs that are there."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from bids_roi.confounds.strategies import describe_strategy
from bids_roi.errors import BidsRoiError, ImageError, OutputError
from bids_roi.files.tables import GONE, file_digest, fingerprint, read_json
from bids_roi.options.settings import list_told
from bids_roi.options.table import OPTIONS
from bids_roi.options.words import find_measure
from bids_roi.outputs.records import (
    RAW,
    Digests,
    Making,
    Record,
    digest_outputs,
    read_records,
    release_of,
    renew_stamps,
    sidecar_of,
    write_records,
)
from bids_roi.outputs.result import has_figures, motion_table, parcellated_of
from bids_roi.participant.confounds import RunConfounds
from bids_roi.participant.plan import recall_plan
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bids_roi.atlases.open import Atlas
    from bids_roi.confounds.strategies import Strategy
    from bids_roi.images.nifti import Series
    from bids_roi.options.record import Options
    from bids_roi.outputs.derivatives import RelmatOutput, RunOutputs
    from bids_roi.outputs.result import Preparation
    from bids_roi.participant.extraction import Placed
    from bids_roi.participant.plan import PlannedRun


# Of these the sidecar says at most what came of them in a run.
_NOT_TOLD = ("allow_missing_confounds", "aroma_dataset", "confounds_dataset")
_FLAGS = {option.name: option.flags[0] for option in OPTIONS}
_KEPT = "the input is not here any more; the outputs that were made of it are kept."


class OtherSettings(OutputError):
    """Outputs are there that were made with other settings: nothing is touched."""


class OtherAtlas(OtherSettings):
    """They were made with an earlier segmentation or transform of the participant."""


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
    digests |= {r.path: relmat_digest(job, atlas, r) for r in names.relmats}
    digests |= {names.regions: of[None]}
    return {path: digest.options for path, digest in digests.items()}


def relmat_digest(job: Job, atlas: Atlas, relmat: RelmatOutput) -> Digests:
    """Digests of a matrix, which know its settings too."""
    settings = settings_of(relmat, job.options)
    return job.digest(atlas, relmat.label, relmat.measure, relmat.statistic, settings)


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


def find_work(job: Job, *, gone: bool = False) -> tuple[Job, list[Record]]:
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


def settings_of(output: RelmatOutput, options: Options) -> dict[str, Any]:
    """Tell what decides the numbers of a matrix beside its series; plain JSON."""
    settings: dict[str, Any] = {
        "FisherZ": output.fisher_z,
        "MinimumDegreesOfFreedom": options.connectivity.min_degrees_of_freedom,
    }
    rows = {option.name: option.sidecar for option in OPTIONS}
    for _, name in find_measure(output.measure).parameters:
        settings[rows[name]] = getattr(options.connectivity, name)
    if options.connectivity.relmat_volumes is not None:
        settings["RelmatVolumes"] = options.connectivity.relmat_volumes
        settings["RelmatSeed"] = options.connectivity.relmat_seed
    return settings


def writes_parcellated(job: Job) -> bool:
    """Whether CIFTI files are asked for, and the run is not a volume."""
    return job.options.extraction.cifti_output and job.image.grid is None


def labels_of(strategies: tuple[Strategy | None, ...]) -> tuple[str | None, ...]:
    """Labels of denoising strategies; ``None`` for raw signals."""
    return tuple(None if s is None else s.label for s in strategies)


def find_kept(
    planned: PlannedRun,
    options: Options,
    strategies: tuple[Strategy | None, ...],
    output_dir: Path,
) -> list[Record]:
    """Records of a run whose input has been dropped; none where something is to do."""
    recalled = recall_plan(planned, options, labels_of(strategies), output_dir)
    if recalled is None or options.running.overwrite:
        return []
    job = open_job(recalled, options, strategies, output_dir)
    job, found = find_work(job, gone=True)
    return (
        [] if job.work else [replace(r, warnings=(*r.warnings, _KEPT)) for r in found]
    )


class Existing:
    """Outputs of a run that are there; each sidecar is read once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._digests = {
            atlas.name: digests_of(job, atlas, names)
            for atlas, names in job.planned.atlases
        }
        self._sidecars: dict[str, Mapping[str, Any] | None] = {}

    def check(self) -> None:
        """Refuse a run of which outputs are there that were made otherwise."""
        for atlas, names in self._job.planned.atlases:
            for label in names.labels:
                self._are_there(atlas, names.only((label,)))

    def find_complete(
        self, atlas: Atlas, names: RunOutputs
    ) -> dict[str | None, Record]:
        """Find the strategies of which nothing is left to do: a record for each label.

        The outputs of the others, or their figures, have to be made (again).
        """
        job = self._job
        run = job.planned.run.relative_path
        records = read_records(job.output_dir, run)
        found: dict[str | None, Record] = {}
        copied = []
        for label in names.labels:
            own = names.only((label,))
            if not self._are_there(atlas, own):
                continue
            record = self._find_record(records, atlas, own)
            if record is None or not (self._keeps_enough(own) and _is_cifti(job, own)):
                continue
            found[label] = replace(
                record, status="complete", seconds=0.0, peak_memory_bytes=0
            )
            if record not in records:
                copied.append(record)
        if copied:  # so that the next call need not read them again
            write_records(job.output_dir, run, copied)
        return (
            found
            if job.options.running.no_report or _are_drawn(job, names.only(found))
            else {}
        )

    def _read(self, table: str) -> Mapping[str, Any] | None:
        """Sidecar of a table; ``None`` where it cannot be used."""
        if table not in self._sidecars:
            try:
                sidecar = read_json(self._job.output_dir / sidecar_of(table))
            except (BidsRoiError, OSError):
                sidecar = None
            self._sidecars[table] = sidecar
        return self._sidecars[table]

    def _are_there(self, atlas: Atlas, names: RunOutputs) -> bool:
        """Whether a strategy has its tables; those of other settings are refused."""
        digests, folder = self._digests[atlas.name], self._job.output_dir
        # Series tell most of what differs, the region table least.
        tables = [*names.tables[1:], names.regions]
        there = [table for table in tables if (folder / table).exists()]
        for table in there:
            sidecar = self._read(table)
            if sidecar is None:
                return False  # half a pair: made again
            # Refused, not made again: whoever changed an option by mistake would lose
            # hours, and whoever meant to says --overwrite. Two settings in one folder
            # are worst of all.
            if sidecar.get("OptionsDigest") != digests[table]:
                raise _explain(self._job, atlas, names, table, sidecar)
        return len(there) == len(tables)

    def _keeps_enough(self, names: RunOutputs) -> bool:
        """Whether the outputs keep what is asked for now, which no digest holds.

        Where they do not, the run is made again, and so is found out and told.
        """
        cleaning = self._job.options.cleaning
        asked = {
            "NumberOfVolumesKept": cleaning.min_volumes,
            "SecondsKept": cleaning.min_time,
        }
        least = {key: needed for key, needed in asked.items() if needed is not None}
        for series in names.timeseries:
            told = self._read(series.path) or {}
            if series.label is None:
                continue
            if any(told.get(key, 0) < needed for key, needed in least.items()):
                return False
            steady = told.get("NumberOfVolumes", 0) - told.get("DummyScans", 0)
            left_out = steady - told.get("NumberOfVolumesKept", 0)
            most = cleaning.max_censored
            if most is not None and not (steady and left_out / steady <= most):
                return False
        return True

    def _find_record(
        self, records: Iterable[Record], atlas: Atlas, names: RunOutputs
    ) -> Record | None:
        """The record of a strategy whose tables are those made of this input.

        Sidecars, tables and record have to agree. Of a copy, which has other times of
        change, the record comes with these.
        """
        job, (label,) = self._job, names.labels
        key = (atlas.name, label or RAW)
        digest = self._digests[atlas.name][names.timeseries[0].path]
        tables = (*names.tables, *(path for _, path in names.outliers))
        # A record alone does not do: logs may be older than the tables. A table alone
        # does not either, as a stopped call leaves tables of two makings beside one
        # another.
        for record in records:
            if (
                record.key in (key, (key[0], ""))
                and record.status == "done"
                and _are_same(record.inputs, job.inputs)
                and record.digest == digest
            ):
                stamps = renew_stamps(
                    job.output_dir,
                    record.stamps,
                    {table: self._read(table) for table in tables},
                    verify=job.options.running.verify,
                )
                if stamps is not None:
                    others = [s for s in record.stamps if s.table not in tables]
                    stamps = tuple(sorted((*stamps, *others)))
                    return replace(record, strategy=key[1], stamps=stamps)
        return None


def _is_cifti(job: Job, names: RunOutputs) -> bool:
    """Whether the CIFTI files are there, where they are asked for."""
    if not writes_parcellated(job):
        return True
    tables = [relmat.path for relmat in names.relmats]
    if job.planned.repetition_time is not None:
        tables += [series.path for series in names.timeseries]
    return all((job.output_dir / parcellated_of(table)).is_file() for table in tables)


def _are_drawn(job: Job, names: RunOutputs) -> bool:
    """Whether all figures of a run and atlas are there."""
    tables = [names.regions, *(series.path for series in names.timeseries)]
    tables += [path for _, path in names.outliers] or [motion_table(job.planned.run)]
    return has_figures(job.output_dir, tables)


def _explain(
    job: Job, atlas: Atlas, names: RunOutputs, table: str, sidecar: Mapping[str, Any]
) -> OtherSettings:
    relmat = next((r for r in names.relmats if r.path == table), None)
    series = next((s for s in names.timeseries if s.path == table), relmat)
    more: dict[str, Any] = {}
    if relmat is not None:
        settings = settings_of(relmat, job.options)
        more = {"RelmatVolumes": None, "Statistic": relmat.statistic, **settings}
    found = tell_differences(
        sidecar,
        options=job.options,
        strategy=job.strategy(series.label) if series is not None else None,
        atlas=atlas,
        more=more,
        own_mask=job.planned.mask_path is not None,
    )
    own = atlas.individual or atlas.route is not None
    kind = OtherAtlas if own and found.of_atlas else OtherSettings
    remedy = "Choose another output folder, or replace them with --overwrite."
    return kind(f"outputs are there that {found.text}.", where=table, remedy=remedy)


def _are_same(made_of: tuple[str, ...], inputs: tuple[str, ...]) -> bool:
    """Whether inputs are those of a record; one that is not here any more counts so."""
    return len(made_of) == len(inputs) and all(
        now in (GONE, then) for then, now in zip(made_of, inputs, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between outputs and what is asked for.

    ``text`` is the end of a sentence: ``were made with other options: --fd-threshold is
    0.5, the outputs were made with 0.3``. ``of_atlas`` is whether nothing but the files
    of the atlas differs.
    """

    text: str
    of_atlas: bool


def tell_differences(
    sidecar: Mapping[str, Any],
    *,
    options: Options,
    strategy: Strategy | None,
    atlas: Atlas,
    more: Mapping[str, Any],
    own_mask: bool = True,
) -> Difference:
    """Say with which other options, version or atlas outputs were made.

    ``more`` are further sidecar keys of the output with the values of now. A run
    without ``own_mask`` has "none" in its sidecars where auto was asked for.
    """
    wanted = dict(_wanted(options, strategy))
    found = dict(_found(sidecar, with_cleaning=strategy is not None))
    now = options.deciding() | dict(more)
    other = "map_statistic" if atlas.hard else "statistic"
    for option in OPTIONS:
        key = option.sidecar
        if option.name == other:
            continue
        if key in now or (option.of == "run" and key in sidecar):
            wanted[option.name] = _in_words(now.get(key))
            found[option.name] = _in_words(sidecar.get(key))
    if options.extraction.mask not in ("auto", "none"):
        # A sidecar may have no more than the name.
        wanted["mask"] = PurePath(options.extraction.mask).name
        found["mask"] = PurePath(str(found["mask"])).name
    if options.extraction.mask == "auto" and not own_mask:
        del wanted["mask"]
    said = [
        _say(_FLAGS[name], wanted[name], found[name])
        for name in _FLAGS
        if name in found and name in wanted and _differ(wanted[name], found[name])
    ]
    if strategy is not None:
        said += _tell_strategy(sidecar, strategy)
    parts = [f"were made with other options: {'; '.join(said)}"] if said else []
    parts += _tell_version(sidecar)
    of_atlas = list(_tell_atlas(sidecar, atlas))
    text = "; they ".join([*parts, *of_atlas]) or _tell_what_is_left(strategy)
    return Difference(text, of_atlas=bool(of_atlas) and not parts)


def _wanted(options: Options, strategy: Strategy | None) -> Iterator[tuple[str, Any]]:
    if strategy is None:
        return
    settings = list_told(strategy.settings)
    yield from ((name, _in_words(value)) for name, value in settings.items())
    yield "motion_filter", strategy.settings.motion_filter
    yield "censored", options.cleaning.censored
    yield "high_variance_confounds", options.cleaning.high_variance_confounds


def _found(
    sidecar: Mapping[str, Any], *, with_cleaning: bool
) -> Iterator[tuple[str, Any]]:
    """What the sidecar tells of cleaning, by option."""
    if not with_cleaning:
        return
    settings = _definition(sidecar).get("settings")
    if isinstance(settings, dict):
        yield "motion_filter", "none"
        yield from ((name, _in_words(value)) for name, value in settings.items())
    yield "censored", sidecar.get("CensoredVolumes")
    columns = sidecar.get("ConfoundRegressors") or ()
    yield "high_variance_confounds", "high_variance_0" in columns


def _in_words(value: object) -> object:
    """Several numbers or words as they are typed, no word as none; else as it is."""
    if not isinstance(value, list | tuple):
        return value
    return " ".join(x if isinstance(x, str) else f"{x:g}" for x in value) or None


def _definition(sidecar: Mapping[str, Any]) -> Mapping[str, Any]:
    found = sidecar.get("DenoisingDefinition")
    return found if isinstance(found, dict) else {}


def _differ(wanted: object, found: object) -> bool:
    blank = (None, False, "none")
    return wanted != found and not (wanted in blank and found in blank)


def _say(flag: str, wanted: object, found: object) -> str:
    """Say it of one option.

    >>> _say("--detrend", True, False), _say("--fd-threshold", 0.5, 0.3)
    ('--detrend is given, the outputs were made without it',
     '--fd-threshold is 0.5, the outputs were made with 0.3')
    """
    now = {None: "not given", False: "not given", True: "given"}
    then = {None: "without it", False: "without it", True: "with it"}
    left = now[wanted] if wanted is None or isinstance(wanted, bool) else wanted
    right = then[found] if found is None or isinstance(found, bool) else f"with {found}"
    return f"{flag} is {left}, the outputs were made {right}"


def _tell_strategy(sidecar: Mapping[str, Any], strategy: Strategy) -> Iterator[str]:
    found = sidecar.get("DenoisingStrategy")
    if found != strategy.name:
        yield f"the strategy is {strategy.name}, the outputs were made with {found}"
        return
    if sidecar.get("DenoisingDescription") != strategy.description:
        yield f"the strategy {strategy.name} is described in other words"
    components = _definition(sidecar).get("components")
    if components not in (None, describe_strategy(strategy)["components"]):
        yield f"the strategy {strategy.name} has other columns"


def _tell_version(sidecar: Mapping[str, Any]) -> Iterator[str]:
    version = str(sidecar.get("SoftwareVersion", "")).removeprefix("bids_roi ")
    if version and release_of(version) != release_of(__version__):
        yield f"were made with another version: {version}, this is {__version__}"


def _tell_atlas(sidecar: Mapping[str, Any], atlas: Atlas) -> Iterator[str]:
    files = (
        ("image", sidecar.get("AtlasImageDigest"), atlas.image_digest),
        ("table", sidecar.get("AtlasTableDigest"), atlas.table_digest),
    )
    for what, found, digest in files:
        if str(found or "").removeprefix("sha256:") != (digest or ""):
            yield f"were made with another atlas file: the {what} of {atlas.name}"
    moved = str(sidecar.get("AtlasTransformDigest") or "").removeprefix("sha256:")
    if moved != (atlas.route.digest if atlas.route else ""):
        yield f"were made with another transform to {atlas.name}"
    areas = str(sidecar.get("VertexAreasDigest") or "").removeprefix("sha256:")
    if areas != (atlas.areas.digest if atlas.areas else ""):
        yield "were made with other weights of vertices (--vertex-weights, --surface)"


def _tell_what_is_left(strategy: Strategy | None) -> str:
    where = "with other options, another version or another atlas file"
    if strategy is None:
        return f"were made {where}"
    flags = ", ".join(_FLAGS[name] for name in _NOT_TOLD)
    return (
        f"were made with other options ({flags} or the columns of the strategy"
        f" {strategy.name} differ)"
    )
