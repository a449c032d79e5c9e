"""pybids' index: which BOLD series a dataset holds.

pybids' only home, imported when the first participant is looked at. A layout takes it
0.1 s to set up and 1 ms per file, so that it is asked for nothing else: partners and
sidecars are looked up beside the series. One layout holds several participants: empty
files of the names of their series stand in for the dataset, whose other files pybids
would walk and whose description, which may be odd, it would read.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bids_roi.dataset.roots import func_folders
from bids_roi.errors import (
    BidsRoiError,
    DataError,
    MissingInput,
    OutputError,
    UsageError,
    remedy_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bids.layout import BIDSLayout


# Participants of one layout, and files in their func folders, so that memory is flat.
_MOST, _MOST_FILES = 256, 4000
# The one entity that is asked for: pybids writes each that it knows into its index.
_EXTENSION = {"name": "extension", "pattern": r"[^./\\](\.[^/\\]+)$"}
_CONFIG = [{"name": "bids_roi", "entities": [_EXTENSION]}]


class Files(NamedTuple):
    """The BOLD series of a participant, and all that lies in its ``func`` folders."""

    series: list[Path]
    all: list[Path]


_Indexed = tuple[str, Files | BidsRoiError]


def index_series(
    root: Path,
    participants: Iterable[str],
    extensions: Sequence[str],
    database_dir: Path | None = None,
) -> Iterator[_Indexed]:
    """List the BOLD series of participants, and all else in their ``func`` folders.

    The first participant comes alone, so that work begins at once, the others in
    layouts of four times as many each time.

    Yields each participant with its files, or with what went wrong. In
    ``database_dir`` indices are kept; they are of one participant each then.
    """
    waiting: dict[str, list[Path]] = {}
    most = 1
    for participant in participants:
        try:
            listing = _list(root / f"sub-{participant}")
        except BidsRoiError as error:
            yield from _take(root, waiting, extensions)
            waiting = {}
            yield participant, error
            continue
        if database_dir is not None:
            yield _index_kept(root, participant, listing, extensions, database_dir)
            continue
        waiting[participant] = listing
        n_files = sum(map(len, waiting.values()))
        # A layout costs 0.1 s however small, but the first run waits for it: one
        # participant first, then 4, 16, 64 and so on, by when the workers are busy.
        if len(waiting) >= most or n_files > _MOST_FILES:
            yield from _take(root, waiting, extensions)
            waiting, most = {}, min(4 * most, _MOST)
    yield from _take(root, waiting, extensions)


def _list(folder: Path) -> list[Path]:
    """List the ``func`` folders; pybids passes over those that cannot be read."""
    try:
        if not folder.is_dir():
            msg = "there is no folder of this participant."
            raise MissingInput(msg, where=folder, remedy="See --participant-label.")
        # By their names: to compare paths takes ten times longer.
        return [
            path
            for inside in func_folders(folder)
            for path in sorted(inside.iterdir(), key=lambda path: path.name)
        ]
    except OSError as error:
        msg = f"the folder cannot be read ({error.strerror})."
        remedy = remedy_of(error, "Check its permissions.")
        raise MissingInput(msg, where=error.filename, remedy=remedy) from error


def _take(
    root: Path, waiting: Mapping[str, list[Path]], extensions: Sequence[str]
) -> Iterator[_Indexed]:
    """Index participants together; by halves where that fails, to tell whose fault."""
    try:
        found = _query_together(root, waiting, extensions)
    except DataError as error:
        if len(waiting) == 1:
            yield from ((label, error) for label in waiting)
            return
        pairs = list(waiting.items())
        for half in (pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]):
            yield from _take(root, dict(half), extensions)
        return
    for label, files in waiting.items():
        yield label, Files(sorted(found.get(f"sub-{label}", [])), files)


def _query_together(
    root: Path, waiting: Mapping[str, list[Path]], extensions: Sequence[str]
) -> dict[str, list[Path]]:
    """Series by the folder of their participant."""
    ends = tuple(f"_bold{extension}" for extension in extensions)
    # Names alone narrow first. pybids then decides, so that what counts as a BOLD
    # series is told in one place; it never sees the other hundreds of files.
    series = [
        path
        for files in waiting.values()
        for path in files
        if path.name.endswith(ends) and not _is_folder(path)
    ]
    if not series:
        return {}
    # Of the first, which is the only one where it matters.
    where = root / f"sub-{next(iter(waiting))}"
    found: dict[str, list[Path]] = {}
    originals: dict[Path, Path] = {}
    n_of_name: Counter[str] = Counter()
    for path in series:
        originals[Path(str(n_of_name[path.name]), path.name)] = path
        n_of_name[path.name] += 1
    try:
        # pybids indexes one root with all below it. Empty files of the same names
        # elsewhere let it index a few participants of a thousand, and write nothing
        # into the input. They lie in as few folders as can be, which take longer to
        # make and to remove than all the rest.
        with tempfile.TemporaryDirectory(prefix="bids_roi-") as beside:
            for number in range(max(n_of_name.values())):
                Path(beside, str(number)).mkdir()
            for inside in originals:
                Path(beside, inside).touch()
            for file in _query(Path(beside), extensions, where=where):
                path = originals[Path(file).relative_to(beside)]
                label = path.relative_to(root).parts[0]
                found.setdefault(label, []).append(path)
    except OSError:  # nothing can be written, as in a container: one after the other
        folders = [root / f"sub-{label}" for label, files in waiting.items() if files]
        return {
            folder.name: list(map(Path, _query(folder, extensions)))
            for folder in folders
        }
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # of the disk: told where the file is opened, of that run alone
        return False


def _index_kept(
    root: Path,
    participant: str,
    listing: list[Path],
    extensions: Sequence[str],
    parent: Path,
) -> _Indexed:
    folder = root / f"sub-{participant}"
    if not listing:
        return participant, Files([], [])
    places = [folder, *sorted({path.parent for path in listing})]
    try:
        database = _database_path(root, places, extensions, parent)
        paths = sorted(map(Path, _query(folder, extensions, database=database)))
    except DataError as error:
        return participant, error
    return participant, Files(paths, listing)


def _query(
    folder: Path,
    extensions: Sequence[str],
    *,
    database: Path | None = None,
    where: Path | None = None,
) -> list[str]:
    # Here, because importing pybids takes 0.3 s, which --help need not wait for.
    from bids.layout import BIDSLayout, BIDSLayoutIndexer
    from sqlalchemy.exc import SQLAlchemyError  # what pybids lets through

    # Of a participant's own folder, all that is not [ses-*/]func/*_bold<extension>. It
    # replaces pybids' own list (code, sourcedata, ...), none of which can pass this.
    name = f"[^/]*_bold(?:{'|'.join(map(re.escape, extensions))})"
    elsewhere = re.compile(f"^(?!(?:(?:/ses-[^/]+)?(?:/func(?:/{name})?)?)?$)")

    def build(path: Path | None) -> BIDSLayout:
        return BIDSLayout(
            folder,
            validate=False,
            is_derivative=True,
            config=_CONFIG,
            database_path=path,
            indexer=BIDSLayoutIndexer(
                validate=False,
                ignore=[elsewhere] if where is None else [],
                index_metadata=False,
            ),
        )

    try:
        if database is not None and not database.exists():
            # Beside, then renamed: a killed job must leave no half-filled index, and
            # of two jobs that index one participant, the first to finish wins.
            staging = database.with_name(f".{database.name}.{secrets.token_hex(4)}")
            _close(build(staging))
            try:
                staging.rename(database)
            except OSError:
                shutil.rmtree(staging)
        layout = build(database)
        # Neither datatype nor subject are queried: pybids looks for both in the
        # absolute path; a dataset below /data/anat/ or /data/sub-99/ seems empty.
        names: list[str] = layout.get(
            return_type="filename", extension=list(extensions)
        )
        _close(layout)
    except UnicodeEncodeError as error:
        name = str(error.object).rpartition("/")[2]  # of what may be a stand-in
        msg = f"the name of a file in it is not text in UTF-8 ({name!r})."
        raise DataError(msg, where=where or folder, remedy="Rename it.") from error
    except (OSError, SQLAlchemyError) as error:
        if database is None:
            raise
        msg = f"pybids' index cannot be kept or used ({error})."
        remedy = "Delete it, or leave --bids-database-dir away: it is fast without."
        raise OutputError(msg, where=database, remedy=remedy) from error
    return names


def _close(layout: BIDSLayout) -> None:
    # pybids leaves its connections open, which is a ResourceWarning from 3.13 on.
    layout.session.close()
    layout.connection_manager.engine.dispose()


def _database_path(
    root: Path, places: Sequence[Path], extensions: Sequence[str], parent: Path
) -> Path:
    """Name the index after what is in it, because pybids never notices a stale one.

    It also takes the root that is stored in an index for the one it is asked for.
    """
    if parent.resolve().is_relative_to(root.resolve()):
        msg = f"--bids-database-dir lies inside the input {root}."
        remedy = "Choose a folder elsewhere; nothing is ever written into the input."
        raise UsageError(msg, where=parent, remedy=remedy)
    state = [(str(place), place.stat().st_mtime_ns) for place in places]
    digest = hashlib.sha256(repr((state, extensions, _CONFIG)).encode()).hexdigest()[
        :12
    ]
    return parent.absolute() / f"{places[0].name}_{digest}"
