"""Where the derivative is and who is in it: roots, descriptions, participants, folders.

Plain directory listings, because they take milliseconds where an index takes minutes:
pybids' ``get_subjects`` needs 67 s for a thousand participants, ``os.scandir`` 1.4 ms.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from typing import TYPE_CHECKING, Any

from bids_roi.dataset.filters import kind_of
from bids_roi.errors import (
    DataError,
    MissingInput,
    NothingFound,
    UsageError,
    remedy_of,
)
from bids_roi.files.names import parse_name
from bids_roi.files.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


_MINIMAL = (
    '{"Name": "fMRIPrep", "BIDSVersion": "1.4.0", "DatasetType": "derivative",'
    ' "GeneratedBy": [{"Name": "fMRIPrep"}]}'
)

# How many participants are looked at to tell whether a folder holds preprocessed BOLD.
_PROBES = 20


def dataset_description(root: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read ``dataset_description.json``.

    Where it is missing or invalid: nothing, and a warning with the remedy.
    """
    path = root / "dataset_description.json"
    try:
        return read_json(path), ()
    except DataError as error:
        missing = not (path.exists() or path.is_symlink())
        problem = "the file is missing." if missing else error.problem
        warning = f"{path}: {problem} Going on without it; a minimal one is: {_MINIMAL}"
        return {}, (warning,)


def dataset_around(folder: Path) -> Path | None:
    """Find the dataset of another software that a folder is, or is a part of.

    The nearest that this app did not write. The folder need not exist; in
    ``derivatives/`` of a dataset, it is a dataset of its own.
    """
    folder = folder.resolve()
    for root in (folder, *folder.parents):
        if not (root / "dataset_description.json").is_file():
            continue
        if folder.relative_to(root).parts[:1] == ("derivatives",):
            return None
        made = dataset_description(root)[0].get("GeneratedBy")
        made = made if isinstance(made, list) else []
        names = [one.get("Name") for one in made if isinstance(one, dict)]
        return None if "bids_roi" in names else root
    return None


def find_derivative(bids_dir: Path, derivatives: Path | None) -> Path:
    """Find the root of the derivative that is to be processed.

    ``bids_dir`` is the root of a derivative, or of a raw dataset with one in
    ``derivatives/``. What ``--derivatives`` says wins; a folder of derivatives serves
    as well as the derivative itself.
    """
    given = bids_dir if derivatives is None else derivatives
    for folder in (bids_dir, given):
        _check_readable(folder)
    base = given.absolute()
    description, _ = dataset_description(base)
    kind = str(description.get("DatasetType", "")).lower()
    if kind == "derivative" or _bold_in(base):
        return base
    holder = base / "derivatives" if derivatives is None else base
    candidates = _derivatives_in(holder)
    if len(candidates) > 1:
        names = ", ".join(str(path) for path in candidates)
        msg = f"{len(candidates)} derivatives could be meant: {names}."
        remedy = "Choose one with --derivatives."
        raise UsageError(msg, where=given, remedy=remedy)
    if candidates:
        return candidates[0]
    # Last, because raw datasets may carry GeneratedBy too (HeuDiConv writes it).
    if kind != "raw" and {"GeneratedBy", "PipelineDescription"} & description.keys():
        return base
    msg = (
        "neither the root of a derivative (dataset_description.json with DatasetType"
        " derivative, or sub-*/func with desc-*_bold files) nor a raw dataset with one"
        " in derivatives/."
    )
    raise MissingInput(msg, where=given, remedy=_level_hint(base))


def _check_readable(folder: Path) -> None:
    try:
        if not folder.exists():
            problem, remedy = "there is no such folder.", "Check the spelling."
        elif not folder.is_dir():
            problem, remedy = "not a folder.", "Give the root of the dataset."
        elif not os.access(folder, os.R_OK | os.X_OK):
            problem, remedy = "the folder cannot be read.", "Check its permissions."
        else:
            return
    except OSError as error:
        problem = f"the folder cannot be read ({error.strerror})."
        remedy = remedy_of(error, "Check its permissions.")
    raise MissingInput(problem, where=folder, remedy=remedy)


def _derivatives_in(holder: Path) -> list[Path]:
    """Derivatives in a folder; those with preprocessed BOLD where there are any.

    Best ``desc-preproc``, which XCP-D's and tedana's series beside it have not.
    """
    folders = _possible_roots(holder, depth=2)
    contents = {path: _bold_in(path) for path in folders}
    for wanted in ({"preproc"}, set().union(*contents.values())):
        if found := [path for path in folders if contents[path] & wanted]:
            return found
    marks = {"GeneratedBy", "PipelineDescription"}
    described = [(path, dataset_description(path)[0]) for path in folders]
    return [
        path
        for path, description in described
        if description.get("DatasetType", "derivative") == "derivative"
        and ("DatasetType" in description or marks & description.keys())
    ]


def _possible_roots(holder: Path, depth: int) -> list[Path]:
    """Folders that may be a derivative; those in them where they hold no participant.

    fMRIPrep up to 20 writes into fmriprep/fmriprep where its output is fmriprep,
    Nipoppy into fmriprep/23.1.3/output.
    """
    roots = []
    for path in _listed(holder):
        if not path.name.startswith((".", "sub-", "ses-", "sourcedata")):
            roots.append(path)
            if depth and not any(p.name.startswith("sub-") for p in _listed(path)):
                roots += _possible_roots(path, depth - 1)
    return roots


def _bold_in(root: Path) -> set[str]:
    """Labels of ``desc-`` of the BOLD series of the first participants.

    Blank for surface series, which have none.
    """
    participants = [path for path in _listed(root) if path.name.startswith("sub-")]
    found = set()
    for participant in participants[:_PROBES]:
        for path in files_in_func(root, participant.name):
            name = parse_name(path)
            kind = kind_of(name.extension)
            desc = name.get("desc") or (None if kind == "volume" else "")
            if name.suffix == "bold" and kind is not None and desc is not None:
                found.add(desc)
    return found


def _level_hint(base: Path) -> str:
    if base.name.startswith(("sub-", "ses-")):
        return f"Give the dataset's root, {base.parent}, not a folder inside it."
    description = base / "dataset_description.json"
    if description.is_symlink() and not description.exists():
        return f"A link to content that is not here; get it: datalad get {description}"
    if inside := _derivatives_in(base):
        return f"Is {inside[0]} meant?"
    return "Give fMRIPrep's output folder as BIDS_DIR or with --derivatives."


def _listed(parent: Path) -> list[Path]:
    """Return the folders in a folder, sorted; none where it cannot be listed."""
    try:
        return _folders_in(parent)
    except OSError:
        return []


def _folders_in(parent: Path) -> list[Path]:
    with os.scandir(parent) as entries:
        return sorted(parent / entry.name for entry in entries if entry.is_dir())


def func_folders(participant_dir: Path) -> list[Path]:
    """Return the ``func`` folders of a participant, with and without sessions.

    A folder that cannot be listed is an ``OSError``: pybids would pass over it.
    """
    inside = _folders_in(participant_dir)
    places = [participant_dir, *(path for path in inside if path.name[:4] == "ses-")]
    return [
        path for place in places for path in _folders_in(place) if path.name == "func"
    ]


def files_in_func(root: Path, participant: str) -> Iterator[Path]:
    """Yield all that lies in the ``func`` folders of a participant, sorted in each.

    Nothing of folders that cannot be listed.
    """
    with contextlib.suppress(OSError):
        for folder in func_folders(root / f"sub-{participant.removeprefix('sub-')}"):
            yield from sorted(folder.iterdir())


def list_participants(root: Path, labels: Sequence[str]) -> list[str]:
    """Return the participants to process, sorted, without ``sub-``.

    ``labels`` are with or without ``sub-``; none stands for all.
    """
    _check_readable(root)
    names = [path.name for path in _listed(root)]
    available = [name[4:] for name in names if name.startswith("sub-") and name[4:]]
    if not available:
        msg = "the dataset holds no sub-* folder."
        raise MissingInput(msg, where=root, remedy="Give the root of the derivative.")
    wanted = sorted({label.removeprefix("sub-") for label in labels})
    unknown = [label for label in wanted if label not in available]
    if unknown:
        # `1` for `001` is the commonest slip, and no close match to difflib.
        near = [a for a in available for u in unknown if a.lstrip("0") == u.lstrip("0")]
        for label in unknown:
            near += difflib.get_close_matches(label, available, n=3)
        shown = list(dict.fromkeys(near)) or available
        listed = ", ".join(shown[:10]) + (", ..." if len(shown) > 10 else "")
        msg = f"no participant {', '.join(unknown)} among the {len(available)} there."
        remedy = f"{'Nearest' if near else 'There are'}: {listed}."
        raise NothingFound(msg, where=root, remedy=remedy)
    return wanted or available
