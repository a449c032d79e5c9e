"""BOLD runs of a derivative: indexed by pybids, with their partners and metadata.

pybids' only home, imported when the first participant is looked at. A layout takes it
0.1 s to set up and 1 ms per file, so that it is asked for nothing but the BOLD series:
partners and sidecars are looked up beside them. One layout holds several participants:
empty files of the names of their series stand in for the dataset, whose other files
pybids would walk and whose description, which may be odd, it would read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import re
import secrets
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bids_roi.dataset.partners import (
    FREE_IN_CONFOUNDS,
    FREE_IN_MASK,
    Partners,
    Sidecars,
    group_series,
)
from bids_roi.dataset.query import (
    BOLD,
    CONFOUNDS,
    KINDS,
    MASKS,
    Rule,
    advise,
    bold_rules,
    explain,
    files_in_func,
    kind_of,
    labels_of,
    load_filters,
    passes,
    replace_rules,
)
from bids_roi.dataset.run import BoldRun
from bids_roi.errors import (
    BidsRoiError,
    DataError,
    MissingInput,
    NothingFound,
    OutputError,
    UsageError,
)
from bids_roi.files.listing import list_func, real_path, unreadable
from bids_roi.files.names import parse_name
from bids_roi.options.row import Input

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bids.layout import BIDSLayout


_EXPLAINED = 50  # participants whose files are looked at for a message
# Participants of one layout, and files in their func folders, so that memory is flat.
_MOST, _MOST_FILES = 256, 4000
# The one entity that is asked for: pybids writes each that it knows into its index.
_EXTENSION = {"name": "extension", "pattern": r"[^./\\](\.[^/\\]+)$"}
_CONFIG = [{"name": "bids_roi", "entities": [_EXTENSION]}]


def find_runs(
    root: Path,
    participant: str,
    wanted: Input,
    kinds: Sequence[str] = ("volume",),
    *,
    own_masks: bool = True,
) -> list[BoldRun]:
    """Find the BOLD runs of one participant, as ``find_runs_of`` does."""
    found_of = find_runs_of(root, [participant], wanted, kinds, own_masks=own_masks)
    ((_, found),) = found_of
    if isinstance(found, BidsRoiError):
        raise found
    return found


def find_runs_of(
    root: Path,
    participants: Iterable[str],
    wanted: Input,
    kinds: Sequence[str] = ("volume",),
    *,
    own_masks: bool = True,
) -> Iterator[tuple[str, list[BoldRun] | BidsRoiError]]:
    """Find the BOLD runs of participants, with mask, confounds and metadata.

    Yields each participant with its runs sorted by relative path, none where nothing
    passes (``explain_nothing``), or with why they cannot be listed: of sessions that
    is among the runs (``is_session``). No other participant's files are read.
    ``kinds`` are keys of ``KINDS``; ``own_masks`` tells whether each run's own mask is
    looked for: where another is asked for, an ambiguous one is no matter.
    """
    root = root.absolute()
    labels = [label.removeprefix("sub-") for label in participants]
    query = _Query(root, labels, wanted, kinds, own_masks=own_masks)
    extensions = [extension for kind in kinds for extension in KINDS[kind]]
    for participant, found in index_series(
        root, labels, extensions, wanted.bids_database_dir
    ):
        if isinstance(found, BidsRoiError):
            yield participant, found
        else:
            yield participant, query.runs(participant, found)


def asks_for_session(
    root: Path, participants: Iterable[str], wanted: Input, session: str
) -> bool:
    """Whether series of a session, by its label, may be asked for."""
    query = _Query(root, [*participants], wanted, ("volume",), own_masks=False)
    return query.asks_for(session)


def survey_runs(
    root: Path,
    participants: Iterable[str],
    wanted: Input,
    kinds: Sequence[str] = ("volume",),
    *,
    seconds: float = 1.0,
) -> dict[str, tuple[int, int]]:
    """Count runs and their bytes by names alone, for so long as there is time.

    What is wrong with a run is not found: it is for the number that progress is
    measured by. Participants that there was no time for are not among the keys.
    """
    until = time.monotonic() + seconds
    labels = [label.removeprefix("sub-") for label in participants]
    query = _Query(root, labels, wanted, kinds, own_masks=False)
    found: dict[str, tuple[int, int]] = {}
    for label in labels:
        # At least one participant is counted, however slow the disk: progress that
        # starts with no total jumps, and an estimate from one is better than none.
        if found and time.monotonic() > until:
            break
        paths = list(files_in_func(root, label))
        groups = [
            group
            for kind, files in query.select(label, paths).items()
            for group in group_series(kind, files, one_will_do=True)
        ]
        sizes = [size_of(path) for files, _ in groups for path in files]
        found[label] = len(groups), sum(sizes)
    return found


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 where it is not here, which is told elsewhere."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


class _Query:
    """What is asked for, worked out once for all participants."""

    def __init__(
        self,
        root: Path,
        labels: list[str],
        wanted: Input,
        kinds: Sequence[str],
        *,
        own_masks: bool,
    ) -> None:
        given = load_filters(
            wanted.bids_filter_file, lambda: _keys_in_use(root, labels)
        )
        self._root = root
        self._bold = {kind: bold_rules(wanted, given["bold"], kind) for kind in kinds}
        masks = MASKS if own_masks else ()
        self._masks = [replace_rules(rules, given["mask"]) for rules in masks]
        self._tables = [replace_rules(rules, given["confounds"]) for rules in CONFOUNDS]
        self._one_side = any(
            rule.key == "hemi" and len(rule.values) == 1
            for rules in self._bold.values()
            for rule in rules
        )
        self._sidecars = Sidecars(root)

    def asks_for(self, session: str) -> bool:
        """Whether series of a session may be asked for."""
        rules = {rule for own in self._bold.values() for rule in own}
        return all(rule.accepts(session) for rule in rules if rule.key == "ses")

    def select(
        self, participant: str, paths: Iterable[Path]
    ) -> dict[str, dict[Path, dict[str, str]]]:
        """Series that are asked for, by kind, with the labels of their names."""
        own = Rule("sub", (participant,))
        series: dict[str, dict[Path, dict[str, str]]] = {
            kind: {} for kind in self._bold
        }
        for path in paths:
            labels = labels_of(path)
            kind = kind_of(labels["extension"])
            if kind in series and passes((own, *self._bold[kind]), labels):
                series[kind][path] = labels
        return series

    def runs(self, participant: str, indexed: Files) -> list[BoldRun]:
        series = self.select(participant, indexed.series)
        closed = {p: e for p, e in indexed.closed.items() if self.asks_for(p.name[4:])}
        if not closed and not any(series.values()):
            return []
        own = (("sub", participant),)
        beside = {
            path: labels_of(path) for path in indexed.all if path.suffix != ".json"
        }
        masks = Partners(beside, self._masks, FREE_IN_MASK, "mask")
        tables = Partners(beside, self._tables, FREE_IN_CONFOUNDS, "confounds")
        found = [
            BoldRun(
                self._root, (p,), (*own, ("ses", p.name[4:])), None, None, {}, (), e
            )
            for p, e in closed.items()
        ]
        for kind, files in series.items():
            for paths, error in group_series(kind, files, one_will_do=self._one_side):
                # Two hemispheres have none of their own.
                pairs = parse_name(paths[0]).entities
                pairs = tuple(p for p in pairs if len(paths) == 1 or p[0] != "hemi")
                run = BoldRun(self._root, paths, pairs, None, None, {})
                labels = files[paths[0]]
                run = self._complete(run, labels, masks, tables)
                found.append(dataclasses.replace(run, error=error or run.error))
        self._sidecars.forget_participant()
        return sorted(found, key=lambda run: run.relative_path)

    def _complete(
        self, run: BoldRun, labels: dict[str, str], masks: Partners, tables: Partners
    ) -> BoldRun:
        """Add partners and metadata; what cannot be told of a run is its error."""
        surface = run.kind != "volume"
        found: dict[str, Any] = {}
        # Each by itself: an ambiguous mask must not hide that the sidecar is broken
        # too, and one run's fault must not end the listing of the others.
        for add in (
            lambda: {} if surface else {"mask_path": masks.find(run.path, labels)},
            lambda: {"confounds_path": tables.find(run.path, labels)},
            lambda: self._sidecars.read_of_run(run.files, surface=surface),
        ):
            try:
                found |= add()
            except BidsRoiError as error:
                found.setdefault("error", error)
        return dataclasses.replace(run, **found)


def _keys_in_use(root: Path, participants: list[str]) -> set[str]:
    """Entities of the names that the first participants have."""
    own = (files_in_func(root, label) for label in participants[:_EXPLAINED])
    return {key for paths in own for p in paths for key, _ in parse_name(p).entities}


def explain_nothing(
    root: Path, participants: Sequence[str], wanted: Input
) -> NothingFound | MissingInput:
    """Say why ``find_runs`` found nothing."""
    root, looked_at = root.absolute(), list(participants)[:_EXPLAINED]
    looked_at = [label.removeprefix("sub-") for label in looked_at]
    given = load_filters(
        wanted.bids_filter_file, lambda: _keys_in_use(root, looked_at)
    )["bold"]
    rules = (Rule("sub", tuple(looked_at)), *bold_rules(wanted, given))
    files = {
        path.relative_to(root).as_posix(): labels_of(path)
        for participant in looked_at
        for path in files_in_func(root, participant)
    }
    series = {p: found for p, found in files.items() if passes(BOLD["volume"], found)}
    people = f"{len(looked_at)} participant{'s' * (len(looked_at) != 1)}"
    if len(looked_at) < len(participants):
        people = f"the first {people} (of {len(participants)})"
    if not series:
        problem = f"no BOLD run among {len(files)} files in func of {people}."
        return MissingInput(problem, where=root, remedy=advise(files, rules))
    count = f"{len(series)} BOLD run{'s' * (len(series) != 1)}"
    problem = f"none of {count} of {people} is selected.\n"
    # All participants, where none was asked for, are no news.
    asked = rules if wanted.participant_label else rules[1:]
    problem += "\n".join(explain(asked, series)) + "\n"
    if given or bold_rules(wanted, ()) != bold_rules(Input(), ()):
        return NothingFound(problem, where=root, remedy=advise(series, rules))
    return MissingInput(problem, where=root, remedy=advise(series, rules))


class Files(NamedTuple):
    """The BOLD series of a participant, and all that lies in its ``func`` folders.

    And its sessions that cannot be listed.
    """

    series: list[Path]
    all: list[Path]
    closed: Mapping[Path, BidsRoiError]


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
    waiting: dict[str, Files] = {}
    most = 1
    for participant in participants:
        try:
            listing = _list(root / f"sub-{participant}")
        except BidsRoiError as error:
            yield from _take(root, waiting, extensions)
            waiting = {}
            yield participant, error
            continue
        # An index of a part would be taken for one of all; pybids fails there, too.
        if database_dir is not None and not listing.closed:
            yield from _take(root, waiting, extensions)  # in the order asked for
            waiting = {}
            yield _index_kept(root, participant, listing, extensions, database_dir)
            continue
        waiting[participant] = listing
        n_files = sum(len(files.all) for files in waiting.values())
        # A layout costs 0.1 s however small, but the first run waits for it: one
        # participant first, then 4, 16, 64 and so on, by when the workers are busy.
        if len(waiting) >= most or n_files > _MOST_FILES:
            yield from _take(root, waiting, extensions)
            waiting, most = {}, min(4 * most, _MOST)
    yield from _take(root, waiting, extensions)


def _list(folder: Path) -> Files:
    """List the ``func`` folders; pybids passes over those that cannot be read."""
    closed: dict[Path, OSError] = {}
    try:
        if not folder.is_dir():
            msg = "there is no folder of this participant."
            remedy = "See --participant-label."
            if folder.is_symlink():
                remedy = "It is a link to what is not here: mount the disk, or get it."
            raise MissingInput(msg, where=folder, remedy=remedy)
        found = list(list_func(folder, closed))
    except OSError as error:
        raise unreadable("folder", Path(error.filename), error) from error
    of_sessions = {
        session: unreadable("folder", Path(error.filename), error)
        for session, error in closed.items()
    }
    return Files([], found, of_sessions)


def _take(
    root: Path, waiting: Mapping[str, Files], extensions: Sequence[str]
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
        yield label, files._replace(series=sorted(found.get(f"sub-{label}", [])))


def _query_together(
    root: Path, waiting: Mapping[str, Files], extensions: Sequence[str]
) -> dict[str, list[Path]]:
    """Series by the folder of their participant."""
    ends = tuple(f"_bold{extension}" for extension in extensions)
    # Names alone narrow first. pybids then decides, so that what counts as a BOLD
    # series is told in one place; it never sees the other hundreds of files.
    series = [
        path
        for files in waiting.values()
        for path in files.all
        if path.name.endswith(ends) and not _is_folder(path)
    ]
    if not series:
        return {}
    # Of the first, which is the only one where it matters.
    where = root / f"sub-{next(iter(waiting))}"
    found: dict[str, list[Path]] = {}
    originals: dict[str, Path] = {}
    n_of_name: Counter[str] = Counter()
    for path in series:
        originals[f"{n_of_name[path.name]}/{path.name}"] = path
        n_of_name[path.name] += 1
    with _names_are_text(where):
        try:
            chosen = _choose(tuple(originals), tuple(extensions))
        except OSError:  # nothing can be written, as in a container: one by one
            there = set(series)
            for label, own in waiting.items():
                folder = root / f"sub-{label}"
                # pybids fails at a session that is closed: there the names must do.
                mine = [path for path in own.all if path in there]
                if mine and not own.closed:
                    mine = list(map(Path, _query(folder, extensions)))
                found[folder.name] = mine
            return found
    for name in chosen:
        path = originals[name]
        found.setdefault(path.relative_to(root).parts[0], []).append(path)
    return found


# The answer is of nothing but the names, which many datasets of one process share.
@functools.lru_cache(maxsize=8)
def _choose(names: tuple[str, ...], extensions: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the names, each below a number, that are BOLD series to pybids."""
    # pybids indexes one root with all below it. Empty files of the same names
    # elsewhere let it index a few participants of a thousand, and write nothing
    # into the input. They lie in as few folders as can be, which take longer to
    # make and to remove than all the rest.
    with tempfile.TemporaryDirectory(prefix="bids_roi-") as beside:
        for number in {name.partition("/")[0] for name in names}:
            Path(beside, number).mkdir()
        for name in names:
            Path(beside, name).touch()
        files = _query(Path(beside), extensions, stand_ins=True)
        return tuple(Path(file).relative_to(beside).as_posix() for file in files)


@contextlib.contextmanager
def _names_are_text(where: Path) -> Iterator[None]:
    """Tell of a name in ``where`` that pybids cannot store."""
    try:
        yield
    except UnicodeEncodeError as error:
        name = str(error.object).rpartition("/")[2]  # of what may be a stand-in
        msg = f"the name of a file in it is not text in UTF-8 ({name!r})."
        raise DataError(msg, where=where, remedy="Rename it.") from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # of the disk: told where the file is opened, of that run alone
        return False


def _index_kept(
    root: Path,
    participant: str,
    listing: Files,
    extensions: Sequence[str],
    parent: Path,
) -> _Indexed:
    folder = root / f"sub-{participant}"
    if not listing.all:
        return participant, listing
    places = [folder, *sorted({path.parent for path in listing.all})]
    try:
        database = _database_path(root, places, extensions, parent)
        with _names_are_text(folder):
            paths = sorted(map(Path, _query(folder, extensions, database=database)))
    except DataError as error:
        return participant, error
    return participant, listing._replace(series=paths)


def _query(
    folder: Path,
    extensions: Sequence[str],
    *,
    database: Path | None = None,
    stand_ins: bool = False,
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
                ignore=[] if stand_ins else [elsewhere],
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
    if real_path(parent).is_relative_to(real_path(root)):
        msg = f"--bids-database-dir lies inside the input {root}."
        remedy = "Choose a folder elsewhere; nothing is ever written into the input."
        raise UsageError(msg, where=parent, remedy=remedy)
    state = [(str(place), place.stat().st_mtime_ns) for place in places]
    digest = hashlib.sha256(repr((state, extensions, _CONFIG)).encode()).hexdigest()
    return parent.absolute() / f"{places[0].name}_{digest[:12]}"
