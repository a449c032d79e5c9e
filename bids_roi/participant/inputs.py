"""Files of a dataset that a call reads: for git-annex, rclone or aws to fetch.

Only names are looked at, so that the files themselves need not be here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_roi.atlases.shelf import AtlasShelf
from bids_roi.dataset.layout import explain_nothing
from bids_roi.dataset.metadata import Sidecars
from bids_roi.dataset.roots import find_derivative, list_participants
from bids_roi.errors import BidsRoiError, SpaceMismatch
from bids_roi.participant.plan import find_wanted, kinds_for, template_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bids_roi.dataset.layout import BoldRun
    from bids_roi.options.record import Options


def list_inputs(
    bids_dir: Path, options: Options, *, atlases: bool = False
) -> Iterator[str | BidsRoiError]:
    """List what the participant level would read with the same options.

    Paths are relative to ``bids_dir``, or to ``--derivatives`` where that lies
    elsewhere. With ``atlases``, the files of the atlases instead, absolute. A run or
    participant that cannot be told is an error among them.

    Raises
    ------
    BidsRoiError
        Nothing is selected at all.
    """
    root = find_derivative(bids_dir, options.input.derivatives)
    base = bids_dir.absolute()
    base = base if root.is_relative_to(base) else root
    wanted = options.atlases
    moved = {"T1w", "native"} & set(options.input.space)
    shelf = None
    if atlases or wanted.given or moved:
        shelf = AtlasShelf(wanted, options.input.space)
    kinds = ("volume",) if shelf is None else kinds_for(shelf)
    participants = list_participants(root, options.input.participant_label)
    told: set[str] = set()
    spaces: dict[str, None] = {}
    n_runs = 0
    for _, runs in find_wanted(root, participants, options, kinds):
        if isinstance(runs, BidsRoiError):
            yield runs
            continue
        sidecars = Sidecars(root)
        for run in runs:
            n_runs += 1
            spaces[template_of(run)] = None
            if run.error is not None:
                yield run.error
            if atlases:
                continue
            for found in (
                *(folder / "dataset_description.json" for folder in (base, root)),
                *files_of_run(run, sidecars),
                *(
                    _of_the_participant(run, shelf, options)
                    if shelf is not None
                    else ()
                ),
            ):
                if isinstance(found, BidsRoiError):
                    yield found
                elif (name := found.relative_to(base).as_posix()) not in told:
                    told.add(name)
                    if is_named(found):
                        yield name
    if not n_runs:
        raise explain_nothing(root, participants, options.input)
    if atlases and shelf is not None:
        yield from map(str, shelf.list_files(spaces))


def files_of_run(run: BoldRun, sidecars: Sidecars) -> Iterator[Path]:
    """Name the files of a run, whether they are there or not: series first."""
    yield from run.files
    needed = (sidecars.list_needed(p, surface=run.kind != "volume") for p in run.files)
    yield from dict.fromkeys(file for files in needed for file in files)
    if run.mask_path is not None:
        yield run.mask_path
    if run.confounds_path is not None:
        yield run.confounds_path
        yield run.confounds_path.with_suffix(".json")


def _of_the_participant(
    run: BoldRun, shelf: AtlasShelf, options: Options
) -> Iterator[Path | BidsRoiError]:
    """Name the participant's own segmentations and transforms that are asked for."""
    try:
        yield from shelf.list_segmentations(template_of(run), run.root, run.path)
        if (run.space or "native") in options.input.space:
            yield from shelf.list_transforms(template_of(run), run.root, run.path)
    except SpaceMismatch:
        pass
    except BidsRoiError as error:
        yield error


def is_named(path: Path) -> bool:
    """Whether a file is there, or a link to content that is not here."""
    return path.is_symlink() or path.is_file()
