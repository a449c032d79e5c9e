"""What is in a folder, and whether it is there: what cannot be read is an error.

``Path.glob`` passes over a closed folder, and ``Path.exists``, from Python 3.14 on,
says no where a disk fails: what is there would be missing without a word.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import itertools
import os
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bids_roi.errors import MissingInput, remedy_of
from bids_roi.files.names import parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bids_roi.errors import BidsRoiError
    from bids_roi.files.names import BidsName

    Named = list[tuple[Path, BidsName]]


# A folder that has changed within this time may change again with the same time.
_SETTLED_NS = 2 * 10**9
# Entities of which a file has the run's label, or none.
_KEYS = ("sub", "ses", "run")


def is_absent(error: OSError) -> bool:
    """Whether a file or folder is not there; any other failure may hide one."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR)


def unreadable(what: str, path: Path, error: OSError) -> MissingInput:
    """Error of a file or folder that may be there and cannot be read."""
    msg = f"the {what} cannot be read ({error.strerror or error})."
    otherwise = "Check its permissions."
    if error.errno == errno.ELOOP:
        otherwise = "Correct it: the link leads to itself."
    elif is_absent(error):
        otherwise = "Check the path."
        if path.is_symlink():
            otherwise = "It is a link to what is not here: mount the disk, or get it."
    remedy = remedy_of(error, otherwise)
    return MissingInput(msg, where=path, remedy=remedy)


def hides_file(error: BidsRoiError) -> bool:
    """Whether an error is of a file that may be there and cannot be read."""
    cause = error.__cause__
    return isinstance(cause, OSError) and not is_absent(cause)


def is_there(path: Path, *, follow: bool = True) -> bool:
    """Whether a file or folder is there; ``MissingInput`` where nobody can tell.

    Without ``follow`` a link is, too, whose content is not here.
    """
    try:
        path.stat(follow_symlinks=follow)
    except OSError as error:
        if is_absent(error) or error.errno == errno.ELOOP:  # a link to nothing
            return False
        raise unreadable("file", path, error) from error
    return True


def real_path(path: Path) -> Path:
    """Path without links; ``Path.resolve`` fails at those that lead to themselves."""
    return Path(os.path.realpath(path))


def list_folder(folder: Path) -> list[str]:
    """Names in a folder, none where there is none; else a ``MissingInput``.

    So is a link that leads nowhere now, as to a disk that is not mounted.
    """
    try:
        return [entry.name for entry in os.scandir(folder)]
    except OSError as error:
        # No folder of a dataset has a dot: a page that was not fetched is none.
        if is_absent(error) and (folder.suffix or not folder.is_symlink()):
            return []
        raise unreadable("folder", folder, error) from error


def glob_folder(folder: Path, pattern: str) -> list[Path]:
    """Paths in a folder whose names match, sorted; errors as ``list_folder``."""
    return [folder / n for n in sorted(fnmatch.filter(list_folder(folder), pattern))]


def folders_in(folder: Path) -> list[Path]:
    """Folders in a folder, sorted; an ``OSError`` where it cannot be listed.

    Of a link that leads nowhere now, as to a disk that is not mounted, the name
    decides: who is listed and cannot be read is told of.
    """
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if _is_folder(entry))


def lost_folders(folder: Path) -> list[Path]:
    """Links in a folder that lead nowhere now, but to files that were not fetched."""
    return [
        path
        for path in glob_folder(folder, "[!.]*")
        if path.is_symlink() and not path.exists()
        if "annex/objects" not in path.readlink().as_posix()
    ]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with contextlib.suppress(OSError):
        if entry.is_dir() or not entry.is_symlink() or Path(entry.path).exists():
            return entry.is_dir()
    return re.fullmatch("(sub|ses)-[A-Za-z0-9]+|func", entry.name) is not None


def list_func(participant_dir: Path, closed: dict[Path, OSError]) -> Iterator[Path]:
    """Yield all that lies in the ``func`` folders of a participant, sorted in each.

    A folder that cannot be listed is an ``OSError``: pybids would pass over it. That of
    a session is put among those that are ``closed``, and the others go on.
    """
    inside = folders_in(participant_dir)
    sessions = [path for path in inside if path.name[:4] == "ses-"]
    for place in (participant_dir, *sessions):
        try:
            for folder in folders_in(place):
                if folder.name == "func":
                    # By their names: to compare paths takes ten times longer.
                    yield from sorted(folder.iterdir(), key=lambda path: path.name)
        except OSError as error:
            if place == participant_dir:
                raise
            closed[place] = error


def list_named(folder: Path, pattern: str, name: BidsName) -> Named:
    """Files of a folder that may belong to a name, sorted by theirs.

    They say the same participant, session and run, or none. A folder may hold the files
    of all runs, and is asked for each: it is listed once, and again when it has
    changed. One that cannot be read is a ``MissingInput``.
    """
    try:
        state = _State.of(folder)
        sort = _sort_names if state.is_settled else _sort_names.__wrapped__
        there = sort(folder, pattern, state)
    except OSError as error:
        absent = is_absent(error) and not folder.is_symlink()
        if absent or error.errno == errno.ELOOP:
            return []
        # Not as if it were empty: a table of an outer folder would be taken instead.
        raise unreadable("folder", folder, error) from error
    return _choose_named(there, name)


def list_below(
    folder: Path, pattern: str, name: BidsName, asked: Callable[[str], object] = bool
) -> Named:
    """Files in a folder, and in those in it, as ``list_named``: listed once for all.

    A folder of a name that is not asked for may be closed, and those in it.
    """
    kept = _keep_tree(folder, pattern)
    tree = kept.get("tree")
    if tree is None or not tree.is_same():
        tree = kept["tree"] = _Tree(folder, pattern)
    for place, error in tree.errors.items():
        if all(map(asked, place.relative_to(folder).parts)):
            raise unreadable("folder", place, error) from error
    return _choose_named(tree.files, name)


class _State(NamedTuple):
    """What a folder is known again by.

    The time alone is not enough: copies and archives give it back, and a link or a
    relative path may lead to another folder of the same.
    """

    device: int
    inode: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, folder: Path) -> _State:
        state = folder.stat()
        return cls(state.st_dev, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)

    @property
    def is_settled(self) -> bool:
        return time.time_ns() - self.modified_ns > _SETTLED_NS


class _Tree:
    """Files in a folder and in all below it, and what cannot be listed."""

    def __init__(self, top: Path, pattern: str) -> None:
        self.errors: dict[Path, OSError] = {}
        found: Named = []
        states: dict[Path, _State] = {}
        # Links last, and no folder twice: they may lead to one that was seen, or up.
        waiting, links, seen = [top], list[Path](), set[tuple[int, int]]()
        while waiting or links:
            folder = (waiting or links).pop()
            try:
                states[folder] = state = _State.of(folder)
                if (place := (state.device, state.inode)) in seen:
                    continue
                seen.add(place)
                with os.scandir(folder) as entries:
                    for entry in entries:
                        path = folder / entry.name
                        if _is_folder(entry):
                            (links if entry.is_symlink() else waiting).append(path)
                        elif fnmatch.fnmatch(entry.name, pattern):
                            found.append((path, parse_name(path)))
            except OSError as error:
                if not is_absent(error) or folder.is_symlink():
                    self.errors[folder] = error
        self.files = _sort_named(found)
        settled = all(state.is_settled for state in states.values())
        self._states = states if settled and not self.errors else {}

    def is_same(self) -> bool:
        """Whether it can be told that nothing has changed."""
        with contextlib.suppress(OSError):
            same = (_State.of(folder) == own for folder, own in self._states.items())
            return bool(self._states) and all(same)
        return False


@functools.lru_cache(maxsize=8)
def _keep_tree(folder: Path, pattern: str) -> dict[str, _Tree]:  # noqa: ARG001 - the key
    return {}


_Key = tuple[str | None, ...]


def _sort_named(files: Named) -> dict[_Key, Named]:
    found = defaultdict(list)
    for path, name in files:
        found[tuple(map(name.get, _KEYS))].append((path, name))
    return dict(found)


def _choose_named(there: dict[_Key, Named], name: BidsName) -> Named:
    keys = itertools.product(*({name.get(key), None} for key in _KEYS))
    found = [pair for key in keys for pair in there.get(key, ())]
    return sorted(found, key=lambda pair: pair[0].name)


@functools.lru_cache(maxsize=16)
def _sort_names(
    folder: Path,
    pattern: str,
    state: _State,  # noqa: ARG001 - part of the key
) -> dict[_Key, Named]:
    os.scandir(folder).close()  # glob passes over a folder that is closed
    return _sort_named([(path, parse_name(path)) for path in folder.glob(pattern)])
