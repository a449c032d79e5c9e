"""Outputs of a run that are there already, held against what is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from bids_roi.confounds.strategies import describe_strategy
from bids_roi.errors import DataError, MissingInput, OutputError
from bids_roi.files.listing import hides_file, is_there
from bids_roi.files.tables import GONE, read_json
from bids_roi.options.settings import list_told
from bids_roi.options.table import OPTIONS
from bids_roi.outputs.derivatives import settings_of
from bids_roi.outputs.records import (
    RAW,
    Record,
    read_records,
    release_of,
    renew_stamps,
    sidecar_of,
    write_records,
)
from bids_roi.outputs.result import has_figures, motion_table, parcellated_of
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bids_roi.atlases.open import Atlas
    from bids_roi.confounds.strategies import Strategy
    from bids_roi.options.record import Options
    from bids_roi.outputs.derivatives import RunOutputs
    from bids_roi.participant.run import Job


# Of these the sidecar says at most what came of them in a run.
_NOT_TOLD = ("allow_missing_confounds", "aroma_dataset", "confounds_dataset")
_FLAGS = {option.name: option.flags[0] for option in OPTIONS}


class OtherSettings(OutputError):
    """Outputs are there that were made with other settings: nothing is touched."""


class OtherAtlas(OtherSettings):
    """They were made with an earlier segmentation or transform of the participant."""


class Existing:
    """Outputs of a run that are there; each sidecar is read once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._digests = {
            atlas.name: job.digests(atlas, names)
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
            path = self._job.output_dir / sidecar_of(table)
            try:
                sidecar = read_json(path)
            except DataError as error:
                # Its settings may be others: what nobody can read is not made again.
                if hides_file(error):
                    why, remedy = error.problem, error.remedy
                    raise MissingInput(why, where=path, remedy=remedy) from error
                sidecar = None
            self._sidecars[table] = sidecar
        return self._sidecars[table]

    def _are_there(self, atlas: Atlas, names: RunOutputs) -> bool:
        """Whether a strategy has its tables; those of other settings are refused."""
        digests, folder = self._digests[atlas.name], self._job.output_dir
        # Series tell most of what differs, the region table least.
        tables = [*names.tables[1:], names.regions]
        there = [table for table in tables if is_there(folder / table)]
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
    if not job.writes_parcellated:
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
        settings = settings_of(relmat, job.options.connectivity)
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
