"""What a call would read and write: ``--dry-run``, ``-v``, and lists of inputs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bids_roi.atlases.names import is_surface
from bids_roi.atlases.shelf import AtlasShelf
from bids_roi.dataset.layout import explain_nothing
from bids_roi.dataset.partners import Sidecars
from bids_roi.dataset.roots import find_derivative, list_participants
from bids_roi.errors import BidsRoiError, SpaceMismatch
from bids_roi.files.tables import read_json
from bids_roi.images.nifti import check_file
from bids_roi.outputs.root_files import ROOT_FILES, name_atlas_files
from bids_roi.participant.budget import estimate_memory
from bids_roi.participant.level import plan_dataset
from bids_roi.participant.plan import find_wanted, kinds_for, template_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bids_roi.atlases.open import Atlas
    from bids_roi.dataset.layout import BoldRun
    from bids_roi.options.record import Options
    from bids_roi.participant.level import ParticipantLevel
    from bids_roi.participant.outcomes import Outcomes
    from bids_roi.participant.plan import PlannedRun


def describe_plan(level: ParticipantLevel, outcomes: Outcomes) -> Iterator[str]:
    """Lines of ``--dry-run``: each run, what it will be read with and written to.

    Names are as a shell expands them; figures and lines of logs are told by folder.
    """
    atlases: dict[str, Atlas] = {}
    begun = False
    for participant, planned in plan_dataset(level, outcomes):
        for item in planned:
            yield from describe_run(item, level.options)
            outcomes.n_impossible += _is_impossible(item, level)
            yield from _name_outputs(item)
            atlases |= {atlas.name: atlas for atlas, _ in item.atlases}
        begun = begun or bool(planned)
        if planned and not level.options.running.no_report:
            person = f"sub-{participant}"
            yield f"  -> {person}.html, with figures in {person}/figures"
    if begun:
        yield f"-> {' '.join(ROOT_FILES)}, and a line per run in logs/"
        for atlas in atlases.values():
            yield f"-> {' '.join(name_atlas_files(atlas))}"


def _is_impossible(item: PlannedRun, level: ParticipantLevel) -> bool:
    """Whether something that is asked for cannot be done with a run."""
    lost = [why for _, why in item.refused if not isinstance(why, SpaceMismatch)]
    cleaned = any(label is not None for label in level.labels)
    return bool(item.error or lost or (cleaned and _fault_of(item.run.confounds_path)))


def _fault_of(path: Path | None) -> BidsRoiError | None:
    try:
        if path is not None:
            check_file(path)
    except BidsRoiError as error:
        return error
    return None


def describe_run(item: PlannedRun, options: Options) -> Iterator[str]:
    """Lines on a run: its image, mask, confounds, timing, atlases, and where from."""
    yield item.run.relative_path
    if item.error is not None:
        yield f"  cannot be processed: {item.error}"
        return
    image = item.image
    if image is not None:
        source = image.source
        yield f"  {source.n_volumes} volumes, {image.frame}, {template_of(item.run)}"
        memory = estimate_memory(source, options) / 10**6
        yield f"  memory  about {memory:.0f} MB"
    yield f"  mask  {_tell_mask(item, options)}"
    path = item.run.confounds_path
    yield f"  confounds  {path.name if path else 'none found'}"
    if fault := _fault_of(path):
        yield f"  confounds cannot be read: {fault}"
    yield f"  repetition time  {_tell_timing(item, options)}"
    for warning in item.warnings:
        yield f"  warning  {warning}"
    for atlas, _ in item.atlases:
        yield f"  atlas {atlas.name}, {len(atlas.regions.index)} regions"
        # A name has images of several resolutions, and one of the user's has one.
        nearest = atlas.source and not is_surface(atlas.image_path)
        why = " (in the resolution nearest to the run's)" if nearest else ""
        yield from (f"    from {file}{why}" for file in atlas.files)
        other = "its parts" if atlas.parts else "the image or TemplateFlow"
        yield f"    names from {atlas.table_path or other}"
        for step, inverted in atlas.route.steps if atlas.route else ():
            yield f"    by {step.name}{', inverted' if inverted else ''}"
    for name, error in item.refused:
        yield f"  atlas {name} is left out: {error}"


def _tell_mask(item: PlannedRun, options: Options) -> str:
    if item.mask_path is None:
        asked = options.extraction.mask == "none"
        return f"none, {'as asked for' if asked else 'which surfaces do not need'}"
    given = options.extraction.mask != "auto"
    whose = "given with --mask" if given else "the run's own, by its name"
    return f"{item.mask_path} ({whose})"


def _tell_timing(item: PlannedRun, options: Options) -> str:
    """The repetition time, and where it is from, as ``choose_repetition_time`` asks."""
    if item.repetition_time is None:
        return "not known"
    value = f"{item.repetition_time:g} s"
    if options.extraction.repetition_time is not None:
        return f"{value} (--repetition-time)"
    run = item.run
    said = [k for k in ("VolumeTiming", "RepetitionTime") if k in run.metadata]
    if not said:
        return f"{value} (header of the image)"
    files = Sidecars(run.root).list_needed(run.path, surface=run.kind != "volume")
    for file in reversed(files):  # the nearest wins
        if said[0] in read_json(file):
            return f"{value} ({said[0]} in {file.relative_to(run.root)})"
    return f"{value} ({said[0]})"


def _name_outputs(item: PlannedRun) -> Iterator[str]:
    for _, names in item.atlases:
        yield f"  -> {_fold(names.tables)}.{{tsv,json}}"
    outliers = {table for _, names in item.atlases for _, table in names.outliers}
    for table in sorted(outliers):
        yield f"  -> {_fold([table])}.{{tsv,json}}"


def _fold(tables: Sequence[str]) -> str:
    """Names of tables in one word of a shell, without what follows the dot.

    >>> _fold(["a/x_dseg.tsv", "a/x_stat-mean_timeseries.tsv"])
    'a/x_{dseg,stat-mean_timeseries}'
    """
    stems = [table.removesuffix(".tsv") for table in tables]
    common = os.path.commonprefix(stems).rpartition("_")[0]  # noqa: RUF071 - cut to parts
    ends = ",".join(stem.removeprefix(f"{common}_") for stem in stems)
    return f"{common}_{{{ends}}}" if stems[1:] else stems[0]


def list_inputs(
    bids_dir: Path, options: Options, *, atlases: bool = False
) -> Iterator[str | BidsRoiError]:
    """List what the participant level would read with the same options.

    Paths are relative to ``bids_dir``, or to ``--derivatives`` where that lies
    elsewhere. With ``atlases``, the files of the atlases instead, absolute. A run or
    participant that cannot be told is an error among them.
    """
    root = find_derivative(bids_dir, options.input.derivatives)
    base = bids_dir.absolute()
    base = base if root.is_relative_to(base) else root
    wanted = options.atlases
    moved = {"T1w", "native"} & set(options.input.space)
    shelf = AtlasShelf(wanted) if atlases or wanted.given or moved else None
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
