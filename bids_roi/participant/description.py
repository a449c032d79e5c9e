"""What was found for a run, what was chosen and why: ``--dry-run``, and ``-v``."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from bids_roi.atlases.names import is_surface
from bids_roi.dataset.layout import explain_nothing, size_of
from bids_roi.dataset.partners import Sidecars, find_tables
from bids_roi.dataset.query import find_derivative, list_participants
from bids_roi.errors import (
    BidsRoiError,
    SpaceMismatch,
    count_of,
    say_of_atlas,
)
from bids_roi.files.tables import read_json
from bids_roi.images.nifti import check_file
from bids_roi.outputs.root_files import ROOT_FILES, name_atlas_files
from bids_roi.participant.plan import find_wanted, kinds_for, template_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bids_roi.atlases.open import Atlas
    from bids_roi.atlases.shelf import AtlasShelf
    from bids_roi.dataset.run import BoldRun
    from bids_roi.options.record import Options
    from bids_roi.participant.level import ParticipantLevel
    from bids_roi.participant.outcomes import Outcomes
    from bids_roi.participant.plan import PlannedRun


# What reads and cleans runs is imported where a plan is described: ``list_inputs`` does
# without.
_BYTES = 18  # of a number in a table: 17 digits at most, and the tab


def describe_plan(level: ParticipantLevel, outcomes: Outcomes) -> Iterator[str]:
    """Lines of ``--dry-run``: the sum, then what each run is read with and makes.

    Names are as a shell expands them; figures and lines of logs are told by folder.
    """
    from bids_roi.participant.level import check_settings, plan_dataset

    atlases: dict[str, Atlas] = {}
    total, lines, sidecars = _Total(level), list[str](), Sidecars(level.root)
    known = check_settings(level, outcomes)
    for participant, planned in plan_dataset(level, outcomes, known):
        for item in planned:
            impossible = _is_impossible(item, level)
            outcomes.n_impossible += impossible
            total.add(item, impossible=impossible)
            lines += describe_run(item, level.options, sidecars)
            lines += _name_outputs(item)
            atlases |= {atlas.name: atlas for atlas, _ in item.atlases}
        sidecars.forget_participant()
        if planned and not level.options.running.no_report:
            person = f"sub-{participant}"
            lines.append(f"  -> {person}.html, with figures in {person}/figures")
    if total.participants:
        yield from total.lines(sum(map(len, outcomes.other_settings.values())))
        yield from lines
        yield f"-> {' '.join(ROOT_FILES)}, and a line per run in logs/"
        for atlas in atlases.values():
            yield f"-> {' '.join(name_atlas_files(atlas))}"
    outcomes.tell_other_settings()


class _Total:
    """What a call would read, find done, and write."""

    def __init__(self, level: ParticipantLevel) -> None:
        self.level = level
        self.counts: Counter[str] = Counter()
        self.atlases: Counter[str] = Counter()  # runs of each
        self.participants: set[str] = set()
        self.memory = 0

    def add(self, item: PlannedRun, *, impossible: bool) -> None:
        """Count a run, and what is left to do of it."""
        from bids_roi.participant.extraction import estimate_memory
        from bids_roi.participant.run import find_finished

        level, options = self.level, self.level.options
        self.participants.add(item.run.relative_path.partition("/")[0])
        self.atlases.update(atlas.name for atlas, _ in item.atlases)
        found = find_finished(
            item,
            options=options,
            output_dir=level.output_dir,
            strategies=level.strategies,
            write=False,
        )
        read = sum(size_of(path) for path in item.run.files)
        self.counts.update(runs=1, impossible=int(impossible), read=read)
        self.counts["there"] += found is not None
        self.counts["unread"] += item.image is None
        if found is not None or item.image is None:
            return
        source = item.image.source
        self.memory = max(self.memory, estimate_memory(source, options))
        for atlas, names in item.atlases:
            n, made = len(atlas.regions.index), len(names.timeseries)
            numbers = n * (n * len(names.relmats) + source.n_volumes * made)
            self.counts.update(numbers=numbers, tables=len(names.tables))
        outliers = {table for _, names in item.atlases for _, table in names.outliers}
        self.counts["tables"] += len(outliers)

    def lines(self, n_refused: int) -> Iterator[str]:
        """What there is to do, on a few lines; nothing where runs are refused."""
        from bids_roi.participant.extraction import worker_count

        level, counts = self.level, self.counts
        people = count_of(len(self.participants), "participant")
        size = f"{counts['read'] / 10**6:.0f} MB"
        yield f"{count_of(counts['runs'], 'run')} ({size}) of {people}"
        unread = ""
        if n := counts["unread"]:
            unread = f"  {count_of(n, 'run')} could not be read: see below"
            yield unread
        for name in level.shelf.names:
            fits = count_of(self.atlases[name], "run")
            yield f"  atlas {name}: fits {fits}{unread and ' of those read'}"
        labels = [label or "none" for label in level.labels]
        word = "strategies" if labels[1:] else "strategy"
        yield f"  {word} {', '.join(labels)}"
        if n := counts["impossible"]:
            yield f"  {count_of(n, 'run')} of which not all can be made: see below"
        if n := counts["there"]:
            yield f"  {count_of(n, 'run')} already there: nothing is left to do of them"
        if n_refused:
            yield (
                f"  {count_of(n_refused, 'run')} with outputs of other settings: the"
                " call would refuse them and do nothing"
            )
        elif n := counts["tables"]:
            written = f"{_BYTES * counts['numbers'] / 10**6:.1f} MB"
            yield f"  {count_of(n, 'table')} to write (about {written}, and figures)"
            workers = worker_count(level.options)
            at_once = f"{count_of(workers, 'run')} at a time"
            yield f"  {at_once}, about {self.memory / 10**6:.0f} MB of memory for each"
        yield f"  to {level.output_dir}"
        yield ""


def _is_impossible(item: PlannedRun, level: ParticipantLevel) -> bool:
    """Whether something that is asked for cannot be done with a run."""
    lost = any(not isinstance(why, SpaceMismatch) for _, why in item.refused)
    cleaned = any(label is not None for label in level.labels)
    tables = _find_tables(item, level.options)
    needed = {name for s in level.strategies if s is not None for name in s.tables}
    found = [tables[name] for name in needed]
    lost |= any(isinstance(own, BidsRoiError) or len(own) != 1 for own in found)
    return bool(item.error or lost or (cleaned and _fault_of(item.run.confounds_path)))


def _find_tables(
    item: PlannedRun, options: Options
) -> dict[str, tuple[Path, ...] | BidsRoiError]:
    """Tables of a run beside fMRIPrep's, by the names of their datasets."""
    from bids_roi.participant.confounds import list_datasets

    found: dict[str, tuple[Path, ...] | BidsRoiError] = {}
    for name, where in list_datasets(options.cleaning).items():
        try:
            found[name] = find_tables(*where, item.run)
        except BidsRoiError as error:
            found[name] = error
    return found


def _fault_of(path: Path | None) -> BidsRoiError | None:
    try:
        if path is not None:
            check_file(path)
    except BidsRoiError as error:
        return error
    return None


def describe_run(
    item: PlannedRun, options: Options, sidecars: Sidecars
) -> Iterator[str]:
    """Lines on a run: its image, mask, confounds, timing, atlases, and where from."""
    from bids_roi.participant.extraction import estimate_memory

    yield item.run.relative_path
    if item.error is not None:
        why = str(item.error).replace(f"{item.run.path}: ", "", 1)  # told above
        yield f"  cannot be processed: {why}"
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
    for name, tables in _find_tables(item, options).items():
        told = (tables,) if isinstance(tables, BidsRoiError) else tables
        yield f"  table {name}  {' and '.join(map(str, told)) or 'none found'}"
    yield f"  repetition time  {_tell_timing(item, options, sidecars)}"
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
        yield f"  left out: {say_of_atlas(name, str(error))}"


def _tell_mask(item: PlannedRun, options: Options) -> str:
    if item.mask_path is None:
        asked = options.extraction.mask == "none"
        return f"none, {'as asked for' if asked else 'which surfaces do not need'}"
    given = options.extraction.mask != "auto"
    whose = "given with --mask" if given else "the run's own, by its name"
    return f"{item.mask_path} ({whose})"


def _tell_timing(item: PlannedRun, options: Options, sidecars: Sidecars) -> str:
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
    files = sidecars.list_needed(run.path, surface=run.kind != "volume")
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
    shelf = None
    if atlases or wanted.given or moved:
        from bids_roi.atlases.shelf import AtlasShelf  # workers need none

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
            if run.error is not None:
                yield run.error
            if run.is_session:
                continue
            n_runs += 1
            spaces[template_of(run)] = None
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
