"""Participant outputs to group tables; no image is ever read here."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bids_roi.app.records import Record, read_all_records
from bids_roi.errors import DataError, MissingInput
from bids_roi.io.names import BidsName, format_name, parse_name
from bids_roi.io.tables import (
    MISSING,
    format_json,
    format_table,
    read_json,
    read_table,
    write_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["run_group_level"]

# Columns that say which run a row is about, as BIDS names them.
_KEYS = {
    "sub": "participant_id",
    "ses": "session_id",
    "task": "task",
    "acq": "acq",
    "ce": "ce",
    "rec": "rec",
    "dir": "dir",
    "run": "run",
    "echo": "echo",
    "space": "space",
    "cohort": "cohort",
    "res": "res",
    "desc": "desc",
}
_ALWAYS = ("participant_id", "session_id", "task", "run", "space", "res")
_ATLAS_KEYS = ("atlas", "seg", "scale")

_RUN_COLUMNS = {
    "participant_id": "Participant, with sub-.",
    "session_id": "Session, with ses-.",
    "atlas": "Canonical id of the atlas.",
    "status": "done, skipped (the atlas is not in the run's space) or failed.",
    "reason": "Why the run was skipped or failed.",
    "n_volumes": "Volumes of the run.",
    "repetition_time": "Seconds.",
    "n_regions": "Regions of the atlas.",
    "n_regions_lost": "Regions whose column is n/a.",
    "coverage_mean": "Mean over the regions of their coverage (0 to 1).",
    "tsnr_median": "Median over the regions of their temporal signal-to-noise ratio.",
    "options_digest": "Hash of the options, atlas and version that made the outputs.",
    "source": "The BOLD file, relative to its dataset.",
    "regions_file": "Region quality table, relative to the output folder.",
}


@dataclass(frozen=True, slots=True)
class _Unit:
    """One run and atlas with outputs."""

    name: BidsName
    path: str
    sidecar: dict[str, Any]
    table: dict[str, list[str]]

    @property
    def atlas(self) -> str:
        return str(self.sidecar.get("Atlas", ""))

    @property
    def digest(self) -> str:
        return str(self.sidecar.get("OptionsDigest", ""))

    @property
    def place(self) -> tuple[str, ...]:
        """Space, cohort, resolution and atlas: what one table is about."""
        keys = ("space", "cohort", "res", *_ATLAS_KEYS)
        return tuple(self.name.get(key) or "" for key in keys)


def run_group_level(output_dir: Path) -> str:
    """Write the run manifest and the coverage matrices.

    Parameters
    ----------
    output_dir
        Holds the outputs of the participant level.

    Returns
    -------
    str
        A summary of one screen.

    Raises
    ------
    MissingInput
        If there are no participant outputs.
    DataError
        If outputs that belong in one table were made with different options.
    """
    units = [_read_unit(output_dir, path) for path in _find_tables(output_dir)]
    records = read_all_records(output_dir)
    if not units and not records:
        msg = "the folder holds no participant outputs."
        remedy = "Run the participant level first, with the same output folder."
        raise MissingInput(msg, where=output_dir, remedy=remedy)
    groups = _group(units)
    failed = {(r.run, r.atlas) for r in records if r.status == "failed"}
    rows = _manifest(units, records)
    columns = {name: [row.get(name) for row in rows] for name in _columns(rows)}
    descriptions = {
        k: {"Description": _RUN_COLUMNS.get(k, f"BIDS {k}.")} for k in columns
    }
    _write(
        output_dir / "group_runs.tsv",
        columns,
        {"Description": "Every run and atlas, and what became of it.", **descriptions},
    )
    written = ["group_runs.tsv"]
    written += [_write_coverage(output_dir, members) for members in groups.values()]
    lines = [f"{len(rows)} runs x atlases, {len(failed)} failed"]
    lines += [f"  {name}" for name in written]
    return "\n".join([*lines, f"  in {output_dir}"])


def _find_tables(output_dir: Path) -> list[Path]:
    """Region tables of runs, sorted."""
    patterns = ("sub-*/func/*_dseg.tsv", "sub-*/ses-*/func/*_dseg.tsv")
    found = [path for pattern in patterns for path in output_dir.glob(pattern)]
    return sorted(path for path in found if parse_name(path).get("atlas"))


def _read_unit(output_dir: Path, path: Path) -> _Unit:
    table = read_table(path)
    needed = {"index", "name", "coverage", "status", "tsnr"}
    if needed - set(table):
        msg = f"the columns {', '.join(sorted(needed - set(table)))} are missing."
        raise DataError(msg, where=path, remedy="Run the participant level again.")
    return _Unit(
        name=parse_name(path),
        path=path.relative_to(output_dir).as_posix(),
        sidecar=read_json(path.with_suffix(".json")),
        table=table,
    )


def _group(units: Iterable[_Unit]) -> dict[tuple[str, ...], list[_Unit]]:
    groups: dict[tuple[str, ...], list[_Unit]] = defaultdict(list)
    for unit in units:
        groups[unit.place].append(unit)
    for members in groups.values():
        digests: dict[str, str] = {}
        for unit in members:
            digests.setdefault(unit.digest, unit.path)
        if len(digests) > 1:
            examples = "; ".join(f"{d} in {path}" for d, path in digests.items())
            msg = f"outputs of {members[0].atlas} were made with different options:"
            remedy = "Make them again with the same ones (--overwrite)."
            raise DataError(f"{msg} {examples}.", remedy=remedy)
    return dict(sorted(groups.items()))


def _identify(name: BidsName) -> dict[str, str]:
    """Columns that tell the run, labels of sub- and ses- with their prefix."""
    row = {_KEYS[key]: label for key, label in name.entities if key in _KEYS}
    for key, column in (("sub", "participant_id"), ("ses", "session_id")):
        if column in row:
            row[column] = f"{key}-{row[column]}"
    return row


def _manifest(units: list[_Unit], records: list[Record]) -> list[dict[str, object]]:
    """One row per run and atlas: outputs first, then what has none."""
    failed = {path: r for r in records for path in r.outputs}
    by_source = {(r.run, r.atlas): r for r in records}
    rows: list[dict[str, object]] = []
    seen = set()
    for unit in units:
        source = _source_of(unit)
        seen.add((source, unit.atlas))
        record = by_source.get((source, unit.atlas)) or failed.get(unit.path)
        row: dict[str, object] = dict(_identify(unit.name))
        row |= {"atlas": unit.atlas, "status": record.status if record else "done"}
        row["reason"] = record.reason if record else ""
        row |= _measures(unit)
        row |= {"source": source, "regions_file": unit.path}
        rows.append(row)
    for record in records:
        if (record.run, record.atlas) not in seen:
            row = dict(_identify(parse_name(record.run)))
            if row.get("desc") == "preproc":
                del row["desc"]
            row |= {"atlas": record.atlas, "status": record.status}
            row |= {"reason": record.reason, "source": record.run}
            rows.append(row)
    return sorted(rows, key=lambda row: (str(row["source"]), str(row["atlas"])))


def _source_of(unit: _Unit) -> str:
    sources = unit.sidecar.get("Sources") or [""]
    return str(sources[0]).rpartition(":")[2]


def _measures(unit: _Unit) -> dict[str, object]:
    lost = sum(word != "ok" for word in unit.table["status"])
    coverage = [float(cell) for cell in unit.table["coverage"]]
    tsnr = sorted(float(c) for c in unit.table["tsnr"] if c != MISSING)
    middle = (tsnr[(len(tsnr) - 1) // 2] + tsnr[len(tsnr) // 2]) / 2 if tsnr else None
    return {
        "n_volumes": unit.sidecar.get("NumberOfVolumes"),
        "repetition_time": unit.sidecar.get("RepetitionTime"),
        "n_regions": len(coverage),
        "n_regions_lost": lost,
        "coverage_mean": round(sum(coverage) / len(coverage), 4),
        "tsnr_median": middle if middle is None else round(middle, 4),
        "options_digest": unit.digest,
    }


def _columns(rows: list[dict[str, object]]) -> list[str]:
    """Columns in a fixed order; entities that no run has are left out."""
    present = {name for row in rows for name in row}
    keys = [c for c in _KEYS.values() if c in present or c in _ALWAYS]
    return [*keys, *(c for c in _RUN_COLUMNS if c not in keys)]


def _write_coverage(output_dir: Path, members: list[_Unit]) -> str:
    """Write the coverage matrix of one space and atlas: runs x regions."""
    first = members[0]
    entities = [(key, first.name.get(key)) for key in ("space", "cohort")]
    entities += [(key, first.name.get(key)) for key in (*_ATLAS_KEYS, "res")]
    name = "group_" + format_name(entities, "coverage", ".tsv")
    rows = [_identify(unit.name) for unit in members]
    present = {column for row in rows for column in row}
    keys = [c for c in _KEYS.values() if c in present or c in _ALWAYS]
    columns: dict[str, list[object]] = {c: [row.get(c) for row in rows] for c in keys}
    for position, region in enumerate(first.table["name"]):
        column = region if region not in columns else f"{region}_region"
        columns[column] = [unit.table["coverage"][position] for unit in members]
    text = (
        f"Coverage (0 to 1) of each region of atlas {first.atlas} in each run: share"
        " of its atlas voxels that lie in usable BOLD voxels."
    )
    sidecar = {"Description": text, "OptionsDigest": first.digest}
    _write(output_dir / name, columns, sidecar)
    return name


def _write(
    path: Path, columns: dict[str, list[object]], sidecar: dict[str, Any]
) -> None:
    write_file(path.with_suffix(".json"), format_json(sidecar))
    write_file(path, format_table(columns))
