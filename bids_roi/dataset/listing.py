"""Files of a folder, sorted by the participant that their names say."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from bids_roi.files.names import parse_name

if TYPE_CHECKING:
    from pathlib import Path

    from bids_roi.files.names import BidsName


# A folder that has changed within this time may change again with the same time.
_SETTLED_NS = 2 * 10**9


def list_named(
    folder: Path, pattern: str, participant: str
) -> list[tuple[Path, BidsName]]:
    """Files of a folder whose names say a participant, or none.

    A folder may hold the files of all runs, and is asked for each: it is listed once,
    and again when it has changed.
    """
    try:
        changed = folder.stat().st_mtime_ns
    except OSError:
        return []
    settled = time.time_ns() - changed > _SETTLED_NS
    sort = _sort_names if settled else _sort_names.__wrapped__
    by_participant = sort(folder, pattern, changed)
    return [p for key in (participant, None) for p in by_participant.get(key, ())]


@functools.lru_cache(maxsize=16)
def _sort_names(
    folder: Path,
    pattern: str,
    changed: int,  # noqa: ARG001 - part of the key
) -> dict[str | None, list[tuple[Path, BidsName]]]:
    found = defaultdict(list)
    for path in sorted(folder.glob(pattern), key=lambda path: path.name):
        name = parse_name(path)
        found[name.get("sub")].append((path, name))
    return dict(found)
