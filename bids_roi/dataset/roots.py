"""Where the derivative is and who is in it: roots, descriptions, participants, folders.

Plain directory listings, because they take milliseconds where an index takes minutes:
pybids' ``get_subjects`` needs 67 s for a thousand participants, ``os.scandir`` 1.4 ms.
"""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, Any

from bids_roi.errors import DataError, MissingInput, NothingFound, UsageError
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

    Returns
    -------
    dict
        Its content; empty where it is missing or invalid.
    tuple of str
        A warning with the remedy in that case, otherwise empty.
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

    Parameters
    ----------
    folder
        Need not exist. In ``derivatives/`` of a dataset, it is a dataset of its own.

    Returns
    -------
    Path or None
        The root of the nearest dataset that this app did not write.
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

    Parameters
    ----------
    bids_dir
        The root of a derivative, or of a raw dataset with one in ``derivatives/``.
    derivatives
        What ``--derivatives`` says; it wins. A folder of derivatives serves as well
        as the derivative itself.

    Raises
    ------
    UsageError
        There are several.
    MissingInput
        There is none, or the folder is absent or unreadable.
    """
    given = bids_dir if derivatives is None else derivatives
    for folder in (bids_dir, given):
        _check_readable(folder)
    base = given.absolute()
    description, _ = dataset_description(base)
    kind = str(description.get("DatasetType", "")).lower()
    if kind == "derivative" or _has_preprocessed(base):
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
        " derivative, or sub-*/func with desc-preproc files) nor a raw dataset with one"
        " in derivatives/."
    )
    raise MissingInput(msg, where=given, remedy=_level_hint(base))


def _check_readable(folder: Path) -> None:
    if not folder.exists():
        problem, remedy = "there is no such folder.", "Check the spelling."
    elif not folder.is_dir():
        problem, remedy = "not a folder.", "Give the root of the dataset."
    elif not os.access(folder, os.R_OK | os.X_OK):
        problem, remedy = "the folder cannot be read.", "Check its permissions."
    else:
        return
    raise MissingInput(problem, where=folder, remedy=remedy)


def _derivatives_in(holder: Path) -> list[Path]:
    """Derivatives in a folder; those with preprocessed BOLD where there are any."""
    folders = [path for path in _listed(holder) if not path.name.startswith(".")]
    preprocessed = [path for path in folders if _has_preprocessed(path)]
    if preprocessed:
        return preprocessed
    marks = {"GeneratedBy", "PipelineDescription"}
    described = [(path, dataset_description(path)[0]) for path in folders]
    return [
        path
        for path, description in described
        if description.get("DatasetType", "derivative") == "derivative"
        and ("DatasetType" in description or marks & description.keys())
    ]


def _has_preprocessed(root: Path) -> bool:
    participants = [path for path in _listed(root) if path.name.startswith("sub-")]
    return any(
        "_desc-preproc_" in path.name
        for participant in participants[:_PROBES]
        for path in files_in_func(participant)
    )


def _level_hint(base: Path) -> str:
    if base.name.startswith(("sub-", "ses-")):
        return f"Give the dataset's root, {base.parent}, not a folder inside it."
    inside = _derivatives_in(base)
    if inside:
        return f"Is {inside[0]} meant?"
    return "Give fMRIPrep's output folder as BIDS_DIR or with --derivatives."


def _listed(parent: Path) -> list[Path]:
    """Return the folders in a folder, sorted; none where it cannot be listed."""
    try:
        with os.scandir(parent) as entries:
            return sorted(parent / entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []


def func_folders(participant_dir: Path) -> list[Path]:
    """Return the ``func`` folders of a participant, with and without sessions."""
    inside = _listed(participant_dir)
    sessions = [path for path in inside if path.name.startswith("ses-")]
    folders = [parent / "func" for parent in (participant_dir, *sessions)]
    return [folder for folder in folders if folder.is_dir()]


def files_in_func(participant_dir: Path) -> Iterator[Path]:
    """Yield all that lies in the ``func`` folders of a participant, sorted in each."""
    for folder in func_folders(participant_dir):
        with os.scandir(folder) as entries:
            yield from sorted(folder / entry.name for entry in entries)


def list_participants(root: Path, labels: Sequence[str]) -> list[str]:
    """Return the participants to process, sorted, without ``sub-``.

    Parameters
    ----------
    root
        Root of the derivative.
    labels
        The participants asked for, with or without ``sub-``; none stands for all.

    Raises
    ------
    NothingFound
        A label is not in the dataset; the nearest ones are named.
    MissingInput
        The dataset holds no participant, or cannot be read.
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
