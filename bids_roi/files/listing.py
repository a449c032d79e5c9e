"""Files of a folder, sorted by the participant and the run that their names say."""

from __future__ import annotations

import functools
import itertools
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from bids_roi.files.names import parse_name

if TYPE_CHECKING:
    from pathlib import Path

    from bids_roi.files.names import BidsName

    Named = list[tuple[Path, BidsName]]


# A folder that has changed within this time may change again with the same time.
_SETTLED_NS = 2 * 10**9


def list_named(folder: Path, pattern: str, name: BidsName) -> Named:
    """Files of a folder that may belong to a name, sorted by theirs.

    They say the same participant and run, or none. A folder may hold the files of all
    runs, and is asked for each: it is listed once, and again when it has changed.
    """
    try:
        changed = folder.stat().st_mtime_ns
    except OSError:
        return []
    settled = time.time_ns() - changed > _SETTLED_NS
    sort = _sort_names if settled else _sort_names.__wrapped__
    there = sort(folder, pattern, changed)
    keys = itertools.product({name.get("sub"), None}, {name.get("run"), None})
    found = [pair for key in keys for pair in there.get(key, ())]
    return sorted(found, key=lambda pair: pair[0].name)


@functools.lru_cache(maxsize=16)
def _sort_names(
    folder: Path,
    pattern: str,
    changed: int,  # noqa: ARG001 - part of the key
) -> dict[tuple[str | None, str | None], Named]:
    found = defaultdict(list)
    for path in folder.glob(pattern):
        name = parse_name(path)
        found[name.get("sub"), name.get("run")].append((path, name))
    return dict(found)
