"""What will be done, worked out before anything is: runs x atlases, names, checks."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi.dataset.layout import explain_nothing, find_runs_of
from bids_roi.dataset.partners import REMEDY, Sidecars, Timing, read_timing
from bids_roi.dataset.query import (
    KINDS,
    dataset_description,
    find_derivative,
    list_participants,
)
from bids_roi.errors import (
    AtlasError,
    BidsRoiError,
    CollisionError,
    DataError,
    MissingInput,
    SpaceMismatch,
    UsageError,
    remedy_of,
)
from bids_roi.files.names import find_invalid_labels, parse_name
from bids_roi.images.nifti import (
    Series,
    check_file,
    describe_mask,
    open_series,
    read_volume,
)
from bids_roi.outputs.derivatives import RunOutputs, name_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bids_roi.atlases.open import Atlas
    from bids_roi.atlases.shelf import AtlasShelf
    from bids_roi.dataset.layout import BoldRun
    from bids_roi.options.record import Options


_MISMATCH_S = 1e-3
_SMALL = 2**25  # bytes: tables and sidecars are, and take 30 ms at most
# In place of the fingerprint of an input that was there, as after git annex drop.
GONE = "not here"


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One BOLD run and what is to be made of it; picklable.

    Attributes
    ----------
    run
        The input.
    image
        Its header, ``None`` where it could not be opened.
    mask_path
        The mask to use, ``None`` for none.
    repetition_time
        Seconds, ``None`` where nothing tells it or volumes are not evenly spaced.
    atlases
        Those that fit the run's space, with the names of their outputs.
    refused
        ``(atlas name, why)`` of the others: a ``SpaceMismatch`` where the run is in
        another space, any other error where the atlas cannot be used or is not there.
    error
        Why nothing can be done with the run, or ``None``.
    warnings
        What the user should know.
    asked
        Names of the atlases that are asked for.
    given
        Of a run with an error, the atlases that are given as files.
    """

    run: BoldRun
    image: Series | None
    mask_path: Path | None
    repetition_time: float | None
    atlases: tuple[tuple[Atlas, RunOutputs], ...]
    refused: tuple[tuple[str, BidsRoiError], ...]
    error: BidsRoiError | None
    warnings: tuple[str, ...]
    asked: tuple[str, ...] = ()
    given: tuple[Atlas, ...] = ()


def template_of(run: BoldRun) -> str:
    """A run's space, with its cohort where it has one (``MNIInfant+2``).

    Surfaces of the participant's own have their name: two of them never match.
    """
    space, cohort = run.space or "native", run.entity("cohort")
    if run.kind != "volume" and space == "fsnative":
        return f"{space}:sub-{run.participant}"
    return f"{space}+{cohort}" if cohort else space


def kinds_for(shelf: AtlasShelf) -> tuple[str, ...]:
    """Kinds of series that some asked-for atlas could be for; others are no matter."""
    return tuple(
        kind
        for kind in KINDS
        if any(shelf.is_for(name, surface=kind != "volume") for name in shelf.names)
    )


def plan_participants(
    root: Path,
    participants: Sequence[str],
    options: Options,
    shelf: AtlasShelf,
    labels: tuple[str | None, ...] = (None,),
) -> Iterator[tuple[str, list[PlannedRun] | BidsRoiError]]:
    """Plan the runs of participants, in the order of the file names.

    ``labels`` are of the denoising strategies, ``None`` for raw signals. A run that
    cannot be used has an ``error``.

    Yields each participant and its runs, or why it cannot be planned.
    """
    for participant, found in find_wanted(
        root, participants, options, kinds_for(shelf)
    ):
        if isinstance(found, BidsRoiError):
            yield participant, found
        else:
            planned = [plan_run(run, options, shelf, labels) for run in found]
            yield participant, mark_collisions(planned)


def find_wanted(
    root: Path,
    participants: Sequence[str],
    options: Options,
    kinds: Sequence[str] = ("volume",),
) -> Iterator[tuple[str, list[BoldRun] | BidsRoiError]]:
    """Find the runs of participants that the options ask for; see ``find_runs_of``."""
    own_masks = options.extraction.mask == "auto"
    return find_runs_of(root, participants, options.input, kinds, own_masks=own_masks)


def plan_run(
    run: BoldRun,
    options: Options,
    shelf: AtlasShelf,
    labels: tuple[str | None, ...],
) -> PlannedRun:
    """Plan one run: header, mask, repetition time, atlases, names.

    What is wrong with the run or with an atlas goes into the plan.
    """
    image, mask_path, error, areas = None, None, None, None
    repetition_time: float | None = None
    warnings = [*run.warnings, *_doubt_labels(run)]
    atlases: list[tuple[Atlas, RunOutputs]] = []
    refused: list[tuple[str, BidsRoiError]] = []
    try:
        if run.error is not None:
            raise run.error
        if run.kind != "volume":
            warnings.extend(_check_surface_run(run, options))
        image = open_series(run.kind, run.sides, template_of(run))
        if run.kind != "volume" and options.extraction.vertex_weights == "area":
            from bids_roi.atlases.surfaces import find_areas  # volumes need no surfaces

            surface, wanted = options.extraction.surface, options.atlases
            areas = find_areas(
                image.frame, surface, wanted, root=run.root, bold=run.path
            )
        mask_path, notes = _choose_mask(run, options)
        warnings.extend(notes)
        repetition_time, notes = choose_repetition_time(
            options.extraction.repetition_time,
            run.metadata,
            image.repetition_time,
            image.source.n_volumes,
        )
        warnings.extend(notes)
    except BidsRoiError as problem:
        error = problem
    if image is not None and error is None:
        found, refused = _find_atlases(run, image, options, shelf, labels)
        atlases = [(dataclasses.replace(a, areas=areas), names) for a, names in found]
    return PlannedRun(
        run=run,
        image=image,
        mask_path=mask_path,
        repetition_time=repetition_time,
        atlases=tuple(atlases),
        refused=tuple(refused),
        error=error,
        warnings=tuple(warnings),
        asked=shelf.names,
        given=() if error is None else shelf.open_given(),
    )


def _find_atlases(
    run: BoldRun,
    image: Series,
    options: Options,
    shelf: AtlasShelf,
    labels: tuple[str | None, ...],
) -> tuple[list[tuple[Atlas, RunOutputs]], list[tuple[str, BidsRoiError]]]:
    """Find the atlases of a run and name their outputs; why others are not for it."""
    atlases: list[tuple[Atlas, RunOutputs]] = []
    refused: list[tuple[str, BidsRoiError]] = []
    for name in shelf.names:
        if not shelf.is_for(name, surface=run.kind != "volume"):
            continue  # for runs of another kind, which is no loss of this one
        try:
            atlas = shelf.find(
                name,
                template_of(run),
                image.frame,
                root=run.root,
                bold=run.path,
                asked=(run.space or "native") in options.input.space,
            )
            if options.extraction.region_measures and not atlas.hard:
                msg = f"{name} is of maps: --region-measures are of regions of labels."
                remedy = "Leave them out, or the atlas: give it a folder of its own."
                raise AtlasError(msg, remedy=remedy)
        except BidsRoiError as problem:
            refused.append((name, problem))
            continue
        wanted = options.extraction
        names = name_outputs(
            run,
            atlas,
            wanted.statistic if atlas.hard else wanted.map_statistic,
            labels,
            relmats=options.connectivity.relmat,
            fisher_z=options.connectivity.fisher_z,
        )
        atlases.append((atlas, names))
    return atlases, refused


def _check_surface_run(run: BoldRun, options: Options) -> tuple[str, ...]:
    """Refuse what surfaces cannot have, and files known to be wrong; what to tell."""
    refused = {
        "--smoothing-fwhm": (
            options.extraction.smoothing_fwhm is not None,
            "a region's mean needs no smoothing; else smooth the series along the"
            " surface before, with `wb_command -cifti-smoothing` or"
            " `-metric-smoothing`",
        ),
        "--high-variance-confounds": (
            options.cleaning.high_variance_confounds,
            "its components are of the voxels of a volume, white matter included",
        ),
        "--mask IMAGE": (
            options.extraction.mask not in ("auto", "none"),
            "its voxels are none of the run's; vertices without data are left out by"
            " themselves",
        ),
    }
    for flag, (given, why) in refused.items():
        if given:
            msg = f"{flag} cannot be used for surfaces and grayordinates: {why}."
            remedy = f"Leave {flag} out, or choose volumes with --space."
            raise UsageError(msg, where=run.relative_path, remedy=remedy)
    version = fmriprep_version(run.root)
    if version is not None and version < (1, 6):
        msg = (
            f"fMRIPrep {version[0]}.{version[1]} wrote this: its surfaces carry no"
            " repetition time and its CIFTI files are on meshes of fsaverage."
        )
        remedy = "Run a newer fMRIPrep, 20.2 or later, or choose volumes with --space."
        raise DataError(msg, where=run.relative_path, remedy=remedy)
    if version is not None and version[:2] == (20, 0) and run.kind == "cifti":
        return (
            "fMRIPrep 20.0 wrote wrong values to CIFTI files (nipreps/fmriprep#2031):"
            " run a newer one.",
        )
    return ()


@functools.lru_cache(maxsize=4)
def fmriprep_version(root: Path) -> tuple[int, ...] | None:
    """Version of the fMRIPrep that wrote a derivative; ``None`` if it was another."""
    description, _ = dataset_description(root)
    makers = description.get("GeneratedBy") or [description.get("PipelineDescription")]
    for maker in makers if isinstance(makers, list) else []:
        if isinstance(maker, dict) and str(maker.get("Name")).lower() == "fmriprep":
            found = re.match(r"v?(\d+)\.(\d+)", str(maker.get("Version", "")))
            return None if found is None else (int(found[1]), int(found[2]))
    return None


def _doubt_labels(run: BoldRun) -> list[str]:
    """Say which labels of a name BIDS does not allow."""
    invalid = find_invalid_labels(run.entities)
    if not invalid:
        return []
    return [
        f"{', '.join(invalid)}: the name is not valid BIDS, and so are those of the"
        " outputs; readers such as pybids pass over the entity. Rename the input."
    ]


def _choose_mask(run: BoldRun, options: Options) -> tuple[Path | None, tuple[str, ...]]:
    """The mask, and what is odd about one that is given for all runs.

    Vertices and grayordinates need none: what the file holds is cortex and grey matter.
    """
    if options.extraction.mask == "none" or run.kind != "volume":
        return None, ()
    if options.extraction.mask != "auto":
        return check_given_mask(options)
    if run.mask_path is None:
        msg = "the run has no brain mask (desc-brain_mask of the same space and res)."
        remedy = "Give one with --mask PATH, or use every voxel with --mask none."
        raise MissingInput(msg, where=run.relative_path, remedy=remedy)
    check_file(run.mask_path)
    return run.mask_path, ()


def check_given_mask(options: Options) -> tuple[Path | None, tuple[str, ...]]:
    """Look at the mask that is given for all runs; its path, and what is odd about it.

    A fault of it is one of the call, not of a run: found before anything is written.
    """
    if options.extraction.mask in ("auto", "none"):
        return None, ()
    path = Path(options.extraction.mask)
    check_file(path)
    note = _describe_once(path, fingerprint(path))
    return path, (note,) if note else ()


@functools.lru_cache(maxsize=4)
def _describe_once(
    path: Path,
    state: str,  # noqa: ARG001 - part of the key: a changed file is read again
) -> str:
    return describe_mask(read_volume(path)[0], path)


def choose_repetition_time(
    given: float | None,
    metadata: object,
    header: float | None,
    n_volumes: int | None = None,
) -> tuple[float | None, tuple[str, ...]]:
    """Choose the repetition time: flag, then sidecar, then header; s, and warnings.

    Of the sidecar, ``VolumeTiming`` comes before ``RepetitionTime``. It is ``None``
    where no value can be trusted, and where the volumes are not evenly spaced, whatever
    the other sources say; an error where the one that counts is not between 0.05 and 20
    s.
    """
    timing = read_timing(metadata, n_volumes)
    if timing.uneven:
        return None, (_tell_uneven(timing, given),)
    sidecar = metadata.get("RepetitionTime") if isinstance(metadata, Mapping) else None
    if isinstance(sidecar, bool) or not isinstance(sidecar, int | float | None):
        return None, (f"RepetitionTime in the sidecar is no number: {sidecar!r}.",)
    if timing.problem and given is None:
        note = f"the repetition time is not known: {timing.problem} {REMEDY}"
        return None, (note,)
    sources = {
        "flag": given,
        "VolumeTiming": timing.step,
        "sidecar": sidecar,
        "header": header,
    }
    source = next((s for s, value in sources.items() if value is not None), "header")
    value = sources[source]
    if source == "header" and header in (None, 0.0, 1.0):
        note = (
            "the repetition time is not known: no sidecar has RepetitionTime, and the"
            f" header's {header or 0:g} s is what software writes for want of a value."
        )
        return None, (note,)
    if value is None or not 0.05 <= value <= 20:
        msg = f"a repetition time of {value:g} s ({source}) is not plausible."
        remedy = "Expected 0.05 to 20 s; give it with --repetition-time."
        raise UsageError(msg, remedy=remedy)
    warnings = [
        f"the repetition time is {value:g} s ({source}), the {name} says {other:g} s."
        for name, other in sources.items()
        if other and name != source and abs(other - value) > _MISMATCH_S
    ]
    if timing.problem:
        warnings.append(f"{timing.problem} {REMEDY}")
    return float(value), tuple(warnings)


def _tell_uneven(timing: Timing, given: float | None) -> str:
    text = (
        f"there is no repetition time: {timing.problem} Filters are refused,"
        " and seconds are not counted."
    )
    if given is not None:
        text += f" --repetition-time {given:g} is not used."
    return text


def mark_collisions(planned: list[PlannedRun]) -> list[PlannedRun]:
    """Give runs that would be written to one name an error that names both inputs.

    Two files of one name, ``.nii`` beside ``.nii.gz``, would share records too.
    """
    taken: dict[str, PlannedRun] = {}
    errors: dict[str, CollisionError] = {}
    for item in planned:
        stem = item.run.relative_path.partition(".")[0]
        outputs = [name for _, names in item.atlases for name in names.all]
        for name in (stem, *outputs):
            other = taken.setdefault(name, item)
            if other is not item:
                both = (other.run.relative_path, item.run.relative_path)
                what = "are one run twice" if name == stem else f"both make {name}"
                msg = f"{both[0]} and {both[1]} {what}; none of the two is processed."
                remedy = _how_to_choose(other.run, item.run)
                for path in both:
                    errors.setdefault(path, CollisionError(msg, remedy=remedy))
    return [
        dataclasses.replace(item, error=errors[path], atlases=(), refused=())
        if (path := item.run.relative_path) in errors
        else item
        for item in planned
    ]


def _how_to_choose(*runs: BoldRun) -> str:
    """Remedy for runs of one name: a filter that tells one from the other."""
    kinds = dict.fromkeys(parse_name(run.path).extension for run in runs)
    if len(kinds) < 2:
        return "Keep one of them, or choose it with a --bids-filter-file."
    filters = [f'{{"bold": {{"extension": "{extension}"}}}}' for extension in kinds]
    words = " or ".join(filters)
    return f"Keep one of them, or choose it with a --bids-filter-file: {words}."


def fingerprint(path: Path) -> str:
    """Tell whether a file is still the one that was read, in a copy too.

    Size and, for gzip, the checksum of the content that its last eight bytes hold; the
    digest of other files, but of large ones the time of change. ``GONE`` for a link to
    what is not here.
    """
    try:
        if path.is_symlink() and not path.exists():
            return GONE
        status = path.stat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            return "no file"
        with path.open("rb") as file:
            if path.name.endswith(".gz") and size >= 8:
                file.seek(-8, os.SEEK_END)
                return f"{size}:{file.read(8).hex()}"
            if size <= _SMALL:
                return f"{size}:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
        return f"{size}:{status.st_mtime_ns}"
    except OSError as error:
        msg = f"the file cannot be read ({error.strerror}); it could be before."
        otherwise = "Was it moved, or another disk mounted? Run the same command again."
        remedy = remedy_of(error, otherwise)
        raise MissingInput(msg, where=path, remedy=remedy) from error


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
