"""Outputs that are there: complete, to be made again, or of other settings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bids_roi.errors import BidsRoiError, OutputError
from bids_roi.files.tables import read_json
from bids_roi.outputs.making import renew_stamps
from bids_roi.outputs.names import (
    has_figures,
    motion_table,
    parcellated_of,
    sidecar_of,
)
from bids_roi.outputs.records import RAW, Record, read_records, write_records
from bids_roi.participant.connectivity import settings_of
from bids_roi.participant.differences import tell_differences
from bids_roi.participant.plan import GONE
from bids_roi.participant.results import digests_of, writes_parcellated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bids_roi.atlases.open import Atlas
    from bids_roi.outputs.names import RunOutputs
    from bids_roi.participant.results import Job


class OtherSettings(OutputError):
    """Outputs are there that were made with other settings: nothing is touched."""


class OtherAtlas(OtherSettings):
    """They were made with an earlier segmentation or transform of the participant."""


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
    found = tell_differences(
        sidecar,
        options=job.options,
        strategy=job.strategy(series.label) if series is not None else None,
        atlas=atlas,
        more=settings_of(relmat, job.options) if relmat is not None else {},
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
