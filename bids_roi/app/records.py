"""What became of each run and atlas: one line each under ``logs/``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from bids_roi.io.tables import write_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Record", "read_all_records", "read_records", "record_path", "write_records"]


@dataclass(frozen=True, slots=True)
class Record:
    """The outcome of one run and atlas.

    Attributes
    ----------
    run
        The BOLD file, relative to its dataset.
    atlas
        Canonical id.
    status
        ``done``, ``complete`` (nothing to do), ``skipped`` or ``failed``.
    reason
        Why it was skipped or failed.
    warnings
        What the user should know.
    digest
        Of the options.
    inputs
        Fingerprints of BOLD and mask.
    outputs
        Time series and region tables, relative to the output folder.
    n_regions, n_lost
        Columns, and those of them that are n/a.
    coverage
        Mean coverage over the regions, 0 to 1.
    seconds
        Wall time.
    peak_memory_bytes
        Of the process so far.
    """

    run: str
    atlas: str
    status: str
    reason: str = ""
    warnings: tuple[str, ...] = ()
    digest: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    n_regions: int = 0
    n_lost: int = 0
    coverage: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0


def record_path(output_dir: Path, run: str) -> Path:
    """Where the records of a run are."""
    name = PurePosixPath(run).name.partition(".")[0]
    return output_dir / "logs" / name.partition("_")[0] / f"{name}.jsonl"


def write_records(output_dir: Path, run: str, records: Iterable[Record]) -> None:
    """Write the records of a run; those of other atlases stay.

    What an earlier call made of the same input stays named among the outputs.
    """
    path = record_path(output_dir, run)
    merged = {record.atlas: record for record in read_records(path)}
    for record in records:
        earlier = merged.get(record.atlas)
        outputs = record.outputs
        if earlier is not None and earlier.inputs == record.inputs:
            outputs = tuple(dict.fromkeys((*earlier.outputs, *outputs)))
        merged[record.atlas] = dataclasses.replace(record, outputs=outputs)
    lines = [
        json.dumps(dataclasses.asdict(merged[atlas]), ensure_ascii=False)
        for atlas in sorted(merged)
    ]
    write_file(path, "".join(f"{line}\n" for line in lines))


def read_records(path: Path) -> list[Record]:
    """Read a file of records; lines that are none are passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    known = {field.name for field in dataclasses.fields(Record)}
    records = []
    for line in lines:
        try:
            content: dict[str, Any] = json.loads(line)
            values = {k: v for k, v in content.items() if k in known}
            for key in ("warnings", "inputs", "outputs"):
                values[key] = tuple(values.get(key, ()))
            records.append(Record(**values))
        except (ValueError, TypeError, AttributeError):
            continue
    return records


def read_all_records(output_dir: Path) -> list[Record]:
    """All records of an output folder, in the order of their runs and atlases."""
    paths = sorted((output_dir / "logs").glob("sub-*/*.jsonl"))
    return [record for path in paths for record in read_records(path)]
