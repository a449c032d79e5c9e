"""What will be done, worked out before anything is: runs x atlases, names, checks."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.atlases.open import Atlas
from bids_roi.atlases.regions import RegionTable
from bids_roi.atlases.subject import Route
from bids_roi.dataset.layout import find_runs_of
from bids_roi.dataset.partners import REMEDY, Timing, read_timing
from bids_roi.dataset.query import KINDS, dataset_description
from bids_roi.errors import (
    AtlasError,
    BidsRoiError,
    CollisionError,
    DataError,
    MissingInput,
    UsageError,
)
from bids_roi.files.listing import is_there
from bids_roi.files.names import find_invalid_labels, parse_name
from bids_roi.files.tables import fingerprint, read_json, read_table
from bids_roi.images.nifti import (
    Series,
    check_file,
    describe_mask,
    open_series,
    read_volume,
)
from bids_roi.options.words import find_statistic
from bids_roi.outputs.derivatives import RunOutputs, name_outputs
from bids_roi.outputs.records import Record, read_records, sidecar_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bids_roi.atlases.shelf import AtlasShelf
    from bids_roi.atlases.surfaces import Areas
    from bids_roi.dataset.run import BoldRun
    from bids_roi.options.record import Options


_MISMATCH_S = 1e-3


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One BOLD run and what is to be made of it; picklable.

    ``image`` is its header, ``None`` where it could not be opened; ``repetition_time``,
    in s, is ``None`` where nothing tells it or volumes are not evenly spaced.
    ``refused`` says why of atlases: a ``SpaceMismatch`` where the run is in another
    space, any other error where the atlas cannot be used or is not there. ``error`` is
    why nothing can be done. ``asked`` are names of atlases, ``given``, of a run with an
    error, those that are given as files.
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

    Two files of one name, ``.nii`` beside ``.nii.gz`` or in two folders, would share
    records too, and a run that is averaged twice weighs twice.
    """
    taken: dict[str, PlannedRun] = {}
    errors: dict[str, CollisionError] = {}
    for item in planned:
        stem = item.run.path.name.partition(".")[0]
        outputs = [name for _, names in item.atlases for name in names.all]
        for name in (stem, *(path.rpartition("/")[2] for path in outputs)):
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
    if len({run.path.name for run in runs}) == 1:
        return "Keep one of them: is a folder a link to, or a copy of, the other?"
    kinds = dict.fromkeys(parse_name(run.path).extension for run in runs)
    if len(kinds) < 2:
        return "Keep one of them, or choose it with a --bids-filter-file."
    filters = [f'{{"bold": {{"extension": "{extension}"}}}}' for extension in kinds]
    words = " or ".join(filters)
    return f"Keep one of them, or choose it with a --bids-filter-file: {words}."


def recall_plan(
    planned: PlannedRun,
    options: Options,
    labels: tuple[str | None, ...],
    output_dir: Path,
) -> PlannedRun | None:
    """Plan of a run of which series or mask are links to what is not here.

    Grid and atlases are those that its outputs were made with, but for atlases that are
    given as files and hold something else now. ``None`` where it lacks nothing, or one
    of the atlases has no outputs.
    """
    run = planned.run
    if not any(path and _is_dropped(path) for path in (*run.files, run.mask_path)):
        return None
    records = read_records(output_dir, run.relative_path)
    done = {record.atlas: record for record in records if record.status == "done"}
    if not planned.asked or not done.keys() >= set(planned.asked):
        return None
    try:
        atlases = [
            _hold_against(
                planned.given, _recall_atlas(done[a], options, output_dir, run.root)
            )
            for a in planned.asked
        ]
    except (BidsRoiError, LookupError, TypeError, ValueError):
        return None  # its outputs are no use: the run fails, as the input is gone
    extraction, connectivity = options.extraction, options.connectivity
    masks = {"auto": run.mask_path, "none": None}
    return replace(
        planned,
        error=None,
        mask_path=masks.get(extraction.mask, Path(extraction.mask)),
        atlases=tuple(
            (
                atlas,
                name_outputs(
                    run,
                    atlas,
                    extraction.statistic if atlas.hard else extraction.map_statistic,
                    labels,
                    relmats=connectivity.relmat,
                    fisher_z=connectivity.fisher_z,
                ),
            )
            for atlas in atlases
        ),
    )


def _is_dropped(path: Path) -> bool:
    try:
        return path.is_symlink() and not is_there(path)
    except (OSError, MissingInput):  # of the disk, which says nothing of the content
        return False


def _recall_route(sidecar: Mapping[str, Any], root: Path) -> Route | None:
    """Transforms that the atlas came by, with the digest that they had."""
    told = sidecar.get("AtlasTransform")
    if not isinstance(told, list):
        return None
    steps = []
    for uri in map(str, told):
        name = uri.removesuffix(" (inverse)")
        steps.append((root / name.removeprefix("bids:preprocessed:"), name != uri))
    return Route(tuple(steps), _digest(sidecar.get("AtlasTransformDigest")))


def _recall_areas(sidecar: Mapping[str, Any]) -> Areas | None:
    """Whose areas vertices weighed by, with the digest that they had."""
    from bids_roi.atlases.surfaces import Areas  # loads the readers of surfaces

    weights = sidecar.get("VertexWeights")
    if not isinstance(weights, str):
        return None
    digest = _digest(sidecar.get("VertexAreasDigest"))
    return Areas((), (), digest, weights.endswith("of the participant"))


def _recall_atlas(
    record: Record, options: Options, output_dir: Path, root: Path
) -> Atlas:
    """The atlas of outputs, as far as names and digests need it."""
    (table,) = [path for path in record.outputs if path.endswith("_dseg.tsv")]
    sidecar, cells = (
        read_json(output_dir / sidecar_of(table)),
        read_table(output_dir / table),
    )
    name = parse_name(table)
    names = tuple(cells["name"])
    stats = {parse_name(p).get("stat") for p in record.outputs if "_timeseries" in p}
    of_labels = {find_statistic(s).stat for s in options.extraction.statistic}
    return Atlas(
        label=name.get("atlas") or "",
        seg=name.get("seg"),
        scale=name.get("scale"),
        space=name.get("space") or "",
        kind="dseg" if stats & of_labels else "probseg",
        files=(output_dir / table,),
        table_path=None,
        image_digest=_digest(sidecar.get("AtlasImageDigest")),
        table_digest=_digest(sidecar.get("AtlasTableDigest")),
        regions=RegionTable(tuple(int(i) for i in cells["index"]), names, names),
        source="",
        description={},
        route=_recall_route(sidecar, root),
        areas=_recall_areas(sidecar),
    )


def _hold_against(given: tuple[Atlas, ...], recalled: Atlas) -> Atlas:
    """An atlas with the content that its files have now, where it is another."""
    now = [atlas for atlas in given if atlas.name == recalled.name]
    # Of a run that transforms led to, outputs do not tell in which space the atlas was.
    now = [atlas for atlas in now if atlas.space == recalled.space] or now
    for atlas in now:
        same = atlas.image_digest == recalled.image_digest
        if same and atlas.table_digest == recalled.table_digest:
            return recalled
    return (
        recalled
        if not now
        else replace(
            recalled,
            image_digest=now[0].image_digest,
            table_digest=now[0].table_digest,
            regions=now[0].regions,
        )
    )


def _digest(told: object) -> str:
    return str(told or "").removeprefix("sha256:")
