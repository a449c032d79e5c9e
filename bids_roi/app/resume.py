"""Outputs that are there already: complete, in the way, or to be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_roi.app.records import Record, read_records
from bids_roi.errors import BidsRoiError, OutputError
from bids_roi.io.outputs.names import sidecar_of
from bids_roi.io.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["find_complete"]


def find_complete(
    run: str,
    atlas: str,
    digests: Mapping[str, str],
    inputs: tuple[str, ...],
    output_dir: Path,
) -> Record | None:
    """Find the record of outputs that are there and right.

    Parameters
    ----------
    run, atlas
        What they are of.
    digests
        Of the options, for each table that is to be there.
    inputs
        Fingerprints of the input files as they are now.
    output_dir
        Where the tables are.

    Returns
    -------
    Record or None
        ``None`` where something has to be made (again).

    Raises
    ------
    OutputError
        If a table is there that was made with other options.
    """
    there = [table for table in digests if (output_dir / table).exists()]
    for table in there:
        try:
            found = read_json(output_dir / sidecar_of(table)).get("OptionsDigest")
        except (BidsRoiError, OSError):
            return None  # half a pair: made again
        if found != digests[table]:
            msg = (
                "the output is there, made with other options, another version or"
                f" another atlas file (digest {found}, now {digests[table]})."
            )
            remedy = "Choose another output folder, or replace it with --overwrite."
            raise OutputError(msg, where=table, remedy=remedy)
    if len(there) < len(digests):
        return None
    for record in read_records(output_dir, run):
        same = record.atlas == atlas and record.inputs == inputs
        # A table that the record does not name may be of an earlier input.
        if same and record.status == "done" and set(digests) <= set(record.outputs):
            return Record(
                record.run,
                record.atlas,
                "complete",
                n_regions=record.n_regions,
                n_lost=record.n_lost,
                coverage=record.coverage,
                warnings=record.warnings,
            )
    return None
