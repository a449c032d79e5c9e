"""JSON beside the images: sidecars by the BIDS inheritance principle.

pybids can do this too, but only for a whole index at once, and one empty or annexed
file then stops it. Reading what applies to one image takes a millisecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bids_roi.errors import DataError
from bids_roi.files.names import parse_name
from bids_roi.files.tables import read_json

if TYPE_CHECKING:
    from pathlib import Path


def read_metadata(
    path: Path, root: Path, listings: dict[Path, list[Path]] | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Merge the sidecars that apply to a data file.

    Parameters
    ----------
    path
        The data file, below ``root``; it need not exist.
    root
        Where inheritance begins.
    listings
        JSON files of folders already listed; filled as folders are visited. One
        dictionary shared between calls saves listing a folder again per file.

    Returns
    -------
    dict
        The merged keys; nearer files win.
    tuple of str
        What could not be read, and which file was taken where several apply.

    Notes
    -----
    The BIDS inheritance principle: in every folder from the root to that of the data
    file, the JSON file of the same suffix applies whose entities are a subset of the
    data file's. BIDS allows one per folder, but fMRIPrep writes the sidecars of the
    native and the ``space-`` series side by side, and the first applies to both by
    that rule. So the one with most entities is taken, and only where it is not the
    file's very own is that worth a warning.
    """
    listings = {} if listings is None else listings
    merged: dict[str, Any] = {}
    warnings: list[str] = []
    folders = [path.parent, *path.parent.parents]
    depth = folders.index(root) if root in folders else 0
    for folder in reversed(folders[: depth + 1]):
        found = _applicable(path, folder, listings)
        if not found:
            continue
        chosen, *others = found
        if others and not _is_own(chosen, path):
            names = ", ".join(other.name for other in others)
            warnings.append(
                f"{_relative(chosen, root)}: taken as the sidecar of {path.name}, to"
                f" which {names} in the same folder apply too; BIDS allows one."
            )
        try:
            merged.update(read_json(chosen))
        except DataError as error:
            warnings.append(
                f"{_relative(chosen, root)}: sidecar ignored: {error.problem}"
            )
    return merged, tuple(warnings)


def _applicable(
    path: Path, folder: Path, listings: dict[Path, list[Path]]
) -> list[Path]:
    """Sidecars in one folder that apply to a file; most entities first."""
    if folder not in listings:
        try:
            files = [entry for entry in folder.iterdir() if entry.suffix == ".json"]
        except OSError:
            files = []
        listings[folder] = sorted(files)
    data = parse_name(path)
    ranked = []
    for candidate in listings[folder]:
        name = parse_name(candidate)
        applies = name.suffix == data.suffix and name.extension == ".json"
        if applies and set(name.entities) <= set(data.entities):
            ranked.append((-len(name.entities), candidate.name, candidate))
    return [candidate for _, _, candidate in sorted(ranked)]


def _is_own(sidecar: Path, path: Path) -> bool:
    # The order of entities in a name carries no meaning.
    return set(parse_name(sidecar).entities) == set(parse_name(path).entities)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
