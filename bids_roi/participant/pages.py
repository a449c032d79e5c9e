"""Pages of participants, written when the last of their runs is done."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bids_roi.outputs.records import read_all_records
from bids_roi.report.group import write_group_page
from bids_roi.report.participant import write_participant_page

if TYPE_CHECKING:
    from pathlib import Path


log = logging.getLogger("bids_roi")

_TRIES = 3


def write_page(output_dir: Path, participant: str) -> str | None:
    """Write the page of a participant from all that is in the output folder.

    Another job may finish a run of the same participant meanwhile: where the records
    have changed once the page is there, it is written again.

    Parameters
    ----------
    output_dir
        The folder of the outputs.
    participant
        With ``sub-``.

    Returns
    -------
    str or None
        What went wrong: a page is never worth the tables.
    """
    try:
        records = read_all_records(output_dir, participant)
        for _ in range(_TRIES):
            write_participant_page(output_dir, participant, records)
            earlier, records = records, read_all_records(output_dir, participant)
            if records == earlier:
                break
    except Exception as error:
        log.debug("page", exc_info=True)
        kind = type(error).__name__
        return f"{participant}: the page could not be written ({kind}: {error})."
    return None


def write_group(output_dir: Path) -> str | None:
    """Write the page of the group; returns what went wrong, as ``write_page``."""
    try:
        write_group_page(output_dir)
    except Exception as error:
        log.debug("page", exc_info=True)
        kind = type(error).__name__
        return f"the page of the group could not be written ({kind}: {error})."
    return None
