"""Files of a folder, sorted by the participant and the run that their names say."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from bids_roi.errors import MissingInput, remedy_of
from bids_roi.files.names import parse_name

if TYPE_CHECKING:
    from pathlib import Path

    from bids_roi.files.names import BidsName

    Named = list[tuple[Path, BidsName]]


# A folder that has changed within this time may change again with the same time.
_SETTLED_NS = 2 * 10**9
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def list_named(folder: Path, pattern: str, name: BidsName) -> Named:
    """Files of a folder that may belong to a name, sorted by theirs.

    They say the same participant and run, or none. A folder may hold the files of all
    runs, and is asked for each: it is listed once, and again when it has changed. One
    that cannot be read is a ``MissingInput``.
    """
    try:
        state = folder.stat()
        settled = time.time_ns() - state.st_mtime_ns > _SETTLED_NS
        sort = _sort_names if settled else _sort_names.__wrapped__
        # The time alone is not enough: copies and archives give it back, and a link or
        # a relative path may lead to another folder of the same.
        place = state.st_dev, state.st_ino
        there = sort(folder, pattern, (*place, state.st_mtime_ns, state.st_ctime_ns))
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        # Not as if it were empty: a table of an outer folder would be taken instead.
        msg = f"the folder cannot be read ({error.strerror})."
        remedy = remedy_of(error, "Check its permissions.")
        raise MissingInput(msg, where=folder, remedy=remedy) from error
    keys = itertools.product({name.get("sub"), None}, {name.get("run"), None})
    found = [pair for key in keys for pair in there.get(key, ())]
    return sorted(found, key=lambda pair: pair[0].name)


@functools.lru_cache(maxsize=16)
def _sort_names(
    folder: Path,
    pattern: str,
    state: tuple[int, ...],  # noqa: ARG001 - part of the key
) -> dict[tuple[str | None, str | None], Named]:
    os.scandir(folder).close()  # glob passes over a folder that is closed
    found = defaultdict(list)
    for path in folder.glob(pattern):
        name = parse_name(path)
        found[name.get("sub"), name.get("run")].append((path, name))
    return dict(found)
