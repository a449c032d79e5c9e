"""What a derivative dataset holds: participants and BOLD runs with their partners.

pybids' only home, imported when the first participant is indexed. One layout per
participant, rooted *at* the participant's folder and restricted to ``func``: indexing
a thousand subjects takes pybids 38 s, one of them 0.06 s (0.15 s when rooted at the
dataset, whose top level it then walks; it would also read ``dataset_description.json``
and fail on an odd one). pybids says which files there are; which of them are asked for
is decided on their names, see ``filters``.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.dataset.filters import (
    BOLD,
    CONFOUNDS,
    FREE_IN_CONFOUNDS,
    FREE_IN_MASK,
    MASKS,
    Rule,
    advise,
    bold_rules,
    explain,
    failing,
    find_partner,
    labels_of,
    load_filters,
    replace_rules,
)
from bids_roi.dataset.metadata import read_metadata
from bids_roi.dataset.roots import (
    files_in_func,
    func_folders,
)
from bids_roi.errors import (
    DataError,
    MissingInput,
    NothingFound,
    OutputError,
    UsageError,
)
from bids_roi.files.names import parse_name
from bids_roi.options.record import Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bids.layout import BIDSLayout


# The participants whose files an explanation looks at.
_EXPLAINED = 50


@dataclass(frozen=True, slots=True)
class BoldRun:
    """One preprocessed BOLD series with its partners.

    Attributes
    ----------
    root
        Root of the derivative, absolute.
    path
        The BOLD file, absolute; links are not followed.
    entities
        ``(key, label)`` pairs of the file name, in its order and as written there.
    mask_path
        The brain mask on the same grid; ``None`` where there is none, or where
        another mask or none was asked for.
    confounds_path
        The confounds table; ``None`` where there is none.
    metadata
        The sidecars that apply, merged.
    warnings
        What was wrong with the sidecars.
    """

    root: Path
    path: Path
    entities: tuple[tuple[str, str], ...]
    mask_path: Path | None
    confounds_path: Path | None
    metadata: Mapping[str, Any] = field(hash=False)
    warnings: tuple[str, ...] = ()

    @property
    def relative_path(self) -> str:
        """The file's path below the root, with forward slashes."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def participant(self) -> str:
        """Label of the participant, without ``sub-``."""
        return self.entity("sub") or ""

    @property
    def session(self) -> str | None:
        """Label of the session, without ``ses-``."""
        return self.entity("ses")

    @property
    def space(self) -> str | None:
        """Label of the space; ``None`` for the series' own (native) space."""
        return self.entity("space")

    def entity(self, key: str) -> str | None:
        """Label of an entity, ``None`` where the name has none."""
        return dict(self.entities).get(key)


def find_runs(root: Path, participant: str, options: Options) -> list[BoldRun]:
    """Find the BOLD runs of one participant, with mask, confounds and metadata.

    Parameters
    ----------
    root
        Root of the derivative.
    participant
        One label, with or without ``sub-``. No other participant's files are read.
    options
        The filters, the mask that is asked for, pybids' database folder.

    Returns
    -------
    list of BoldRun
        Sorted by relative path; empty where nothing passes (``explain_nothing``).

    Raises
    ------
    UsageError
        The filter file is wrong, or the database folder lies inside the input.
    DataError
        Several files could be a run's mask, or its confounds.
    MissingInput
        The participant's folder is absent or unreadable.
    """
    root, participant = root.absolute(), participant.removeprefix("sub-")
    filters = load_filters(options.bids_filter_file)
    rules = bold_rules(options, filters["bold"])
    rules = (Rule("sub", (participant,)), *rules)
    files = {path: labels_of(path) for path in _index(root, participant, options)}
    # Where another mask is asked for, an ambiguous one of the run's own is no matter.
    wanted = MASKS if options.mask == "auto" else ()
    masks = [replace_rules(rules, filters["mask"]) for rules in wanted]
    tables = [replace_rules(rules, filters["confounds"]) for rules in CONFOUNDS]
    listings: dict[Path, list[Path]] = {}
    runs = []
    for path in files:
        if failing(rules, files[path]):
            continue
        metadata, warnings = read_metadata(path, root, listings)
        run = BoldRun(
            root=root,
            path=path,
            entities=parse_name(path).entities,
            mask_path=find_partner(path, files, masks, FREE_IN_MASK),
            confounds_path=find_partner(path, files, tables, FREE_IN_CONFOUNDS),
            metadata=metadata,
            warnings=warnings,
        )
        runs.append(run)
    return sorted(runs, key=lambda run: run.relative_path)


def _index(root: Path, participant: str, options: Options) -> list[Path]:
    """List the images and tables in a participant's ``func`` folders, by pybids."""
    folder = root / f"sub-{participant}"
    if not folder.is_dir():
        msg = "there is no folder of this participant."
        raise MissingInput(msg, where=folder, remedy="See --participant-label.")
    try:
        places = [folder, *func_folders(folder)]
        closed = [p for p in places if not os.access(p, os.R_OK | os.X_OK)]
    except PermissionError as error:
        closed = [Path(error.filename)]
    if closed:
        # pybids would leave it out without a word.
        msg = "the folder cannot be read."
        raise MissingInput(msg, where=closed[0], remedy="Check its permissions.")
    if len(places) == 1:
        return []
    database = _database_path(root, places, options.bids_database_dir)
    return sorted(Path(name) for name in _query(folder, database))


def _query(folder: Path, database: Path | None) -> list[str]:
    # Here, because importing pybids takes 0.3 s, which --help need not wait for.
    from bids.layout import BIDSLayout, BIDSLayoutIndexer
    from sqlalchemy.exc import SQLAlchemyError  # what pybids lets through

    # All that is not sub-*/[ses-*/]func/<file>. It replaces pybids' own list (code,
    # sourcedata, ...), none of which can occur below a participant and pass this.
    elsewhere = re.compile(r"^(?!(?:/ses-[^/]+)?(?:/func(?:/[^/]*)?)?$)")

    def build(path: Path | None) -> BIDSLayout:
        return BIDSLayout(
            folder,
            validate=False,
            is_derivative=True,
            # Without it, pybids takes the entities of raw data only.
            config=["bids", "derivatives"],
            database_path=path,
            indexer=BIDSLayoutIndexer(
                validate=False, ignore=[elsewhere], index_metadata=False
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
            return_type="filename", extension=[".nii.gz", ".nii", ".tsv"]
        )
        _close(layout)
    except UnicodeEncodeError as error:
        msg = f"the name of a file in it is not text in UTF-8 ({error.object!r})."
        raise DataError(msg, where=folder, remedy="Rename it.") from error
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
    root: Path, places: Sequence[Path], parent: Path | None
) -> Path | None:
    """Name the index after what is in it, because pybids never notices a stale one.

    It also takes the root that is stored in an index for the one it is asked for.
    """
    if parent is None:
        return None
    if parent.resolve().is_relative_to(root.resolve()):
        msg = f"--bids-database-dir lies inside the input {root}."
        remedy = "Choose a folder elsewhere; nothing is ever written into the input."
        raise UsageError(msg, where=parent, remedy=remedy)
    state = [(str(place), place.stat().st_mtime_ns) for place in places]
    digest = hashlib.sha256(repr(state).encode()).hexdigest()[:12]
    return parent.absolute() / f"{places[0].name}_{digest}"


def explain_nothing(
    root: Path, participants: Sequence[str], options: Options
) -> NothingFound | MissingInput:
    """Say why ``find_runs`` found nothing.

    Returns
    -------
    NothingFound or MissingInput
        To be raised: the former where filters exclude the BOLD volumes that there
        are, the latter where nothing that could be processed exists. The text holds
        the query, the labels that exist, and the files that fail by one entity only.
    """
    root, looked_at = root.absolute(), list(participants)[:_EXPLAINED]
    looked_at = [label.removeprefix("sub-") for label in looked_at]
    given = load_filters(options.bids_filter_file)["bold"]
    rules = (Rule("sub", tuple(looked_at)), *bold_rules(options, given))
    files = {}
    for participant in looked_at:
        for path in files_in_func(root / f"sub-{participant}"):
            files[path.relative_to(root).as_posix()] = labels_of(path)
    volumes = {p: found for p, found in files.items() if not failing(BOLD, found)}
    people = f"{len(looked_at)} participant{'s' * (len(looked_at) != 1)}"
    if len(looked_at) < len(participants):
        people = f"the first {people} (of {len(participants)})"
    if not volumes:
        problem = f"no BOLD volume among {len(files)} files in func of {people}."
        return MissingInput(problem, where=root, remedy=advise(files, rules))
    count = f"{len(volumes)} BOLD volume{'s' * (len(volumes) != 1)}"
    problem = f"none of {count} of {people} is selected.\n"
    problem += "\n".join(explain(rules, volumes)) + "\n"
    if given or bold_rules(options, ()) != bold_rules(Options(), ()):
        return NothingFound(problem, where=root, remedy=advise(volumes, rules))
    return MissingInput(problem, where=root, remedy=advise(volumes, rules))


def find_aroma_confounds(dataset: Path, run: BoldRun) -> Path | None:
    """Find a run's table in a fMRIPost-AROMA derivative.

    Returns
    -------
    Path or None
        ``*_desc-aroma_timeseries.tsv`` with the run's entities; space and resolution
        do not matter.
    """
    free = {"space", "cohort", "res", "den", "desc", "echo", "part"}
    wanted = {pair for pair in run.entities if pair[0] not in free}
    folder = dataset / Path(run.relative_path).parent
    for path in sorted(folder.glob("*_desc-aroma_timeseries.tsv")):
        name = parse_name(path)
        if {pair for pair in name.entities if pair[0] not in free} == wanted:
            return path
    return None
