"""The app's extraction for notebooks: one run in, pandas objects out."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bids_roi.atlases.names import space_of
from bids_roi.atlases.shelf import AtlasShelf
from bids_roi.dataset.layout import BoldRun, find_runs
from bids_roi.errors import UsageError, nearest_words
from bids_roi.files.names import parse_name
from bids_roi.files.tables import read_json
from bids_roi.images.nifti import save_image
from bids_roi.options.record import Options
from bids_roi.options.row import local_path
from bids_roi.options.table import OPTIONS
from bids_roi.options.words import find_statistic
from bids_roi.outputs.derivatives import join_facts
from bids_roi.participant.cleaning import clean_atlases, load_strategies
from bids_roi.participant.confounds import read_motion
from bids_roi.participant.placing import place_atlases
from bids_roi.participant.plan import plan_run
from bids_roi.participant.results import (
    describe_atlas,
    describe_series,
    open_job,
    region_columns,
    relate_series,
)
from bids_roi.participant.run import extract as extract_signals
from bids_roi.participant.run import prepare_cleaning

if TYPE_CHECKING:
    from bids_roi.outputs.names import SeriesOutput
    from bids_roi.outputs.result import AtlasResult

__all__ = ["Extraction", "extract"]

_GROUPS = ("atlases", "extraction", "cleaning", "connectivity")
_ALLOWED = {
    option.name: option
    for option in OPTIONS
    if option.group in _GROUPS and option.name not in ("atlas", "combine", "seeds")
}
# Other spellings, as the command line has them.
_ALIASES = {
    flag.lstrip("-").replace("-", "_"): name
    for name, option in _ALLOWED.items()
    for flag in option.flags
}


@dataclass(frozen=True, slots=True)
class Extraction:
    """What ``extract`` returns.

    Attributes
    ----------
    signals
        One row per volume, one column per region; NaN for lost regions. The index is
        the number of the volume in the run, from 0: censored volumes are missing.
    regions
        The region table: label value, name, volume, voxels, coverage, status ...
    relmats
        One table per measure asked for.
    sidecar
        What the app would write beside the signals; ``Warnings`` among it.
    """

    signals: pd.DataFrame
    regions: pd.DataFrame
    relmats: dict[str, pd.DataFrame]
    sidecar: dict[str, Any]


def extract(
    bold: str | Path | Any,  # noqa: ANN401 - a nibabel image
    atlas: str | Path | Any,  # noqa: ANN401 - a nibabel image
    *,
    atlas_table: str | Path | pd.DataFrame | None = None,
    space: str | None = None,
    confounds: str | Path | None = None,
    **options: Any,  # noqa: ANN401 - as the flags of the command line
) -> Extraction:
    """Extract regional signals from one run, as ``bids_roi ... participant`` does.

    Parameters
    ----------
    bold
        A 4D file or nibabel image. For a file in an fMRIPrep derivative, its brain
        mask, confounds and sidecars are found beside it.
    atlas
        A name (``"schaefer400"``), a label image (or 4D maps) as file or nibabel image,
        a table of coordinates (``"seeds.tsv"``, with ``seed_radius``), or several as
        one (``"whole=schaefer400,HOSPA_seg-th25"``; files go to ``atlas_file``).
    atlas_table
        Region table of an atlas that is no name: a file, or columns ``index`` and
        ``name``.
    space
        Template of the run, where its name does not tell it; needed for atlases by
        name. A file of a derivative without ``space-`` is native; of other files and
        images, an atlas image given with them is taken to lie in their space.
    confounds
        Table of confounds, where it is not beside the run.
    **options
        The flags of the command line with underscores: ``mask`` (``"none"`` for all
        voxels), ``statistic``, ``min_coverage``, ``smoothing_fwhm``, ``strategy``,
        ``high_pass``, ``fd_threshold``, ``relmat``, ``templateflow_home`` ...

    Returns
    -------
    Extraction

    Raises
    ------
    BidsRoiError
        As the app would report it.

    Notes
    -----
    An image in memory is written to a temporary folder and read from there. A run in
    T1w space, or a native one (``space="native"``), gets an atlas of a template through
    the transforms of its derivative.

    Examples
    --------
    >>> import nibabel as nb, numpy as np
    >>> labels = np.zeros((4, 4, 4), np.int16)
    >>> labels[:2] = 1
    >>> labels[2:] = 2
    >>> values = np.arange(5.0) * labels[..., None]
    >>> atlas = nb.Nifti1Image(labels, np.eye(4))
    >>> names = pd.DataFrame({"index": [1, 2], "name": ["left", "right"]})
    >>> found = extract(nb.Nifti1Image(values, np.eye(4)), atlas, atlas_table=names,
    ...                 mask="none")
    >>> found.signals
           left  right
    volume
    0       0.0    0.0
    1       1.0    2.0
    2       2.0    4.0
    3       3.0    6.0
    4       4.0    8.0
    >>> found.regions[["name", "n_voxels_used", "status"]]
        name  n_voxels_used status
    0   left             32     ok
    1  right             32     ok
    """
    with tempfile.TemporaryDirectory(prefix="bids_roi-") as name:
        folder = Path(name)
        path = _as_file(bold, folder / "image_bold.nii")
        given = _check_options(options)
        wanted = _atlas_options(atlas, atlas_table, folder)
        if "atlas_file" in given and "combine" not in wanted:
            msg = "atlas_file is for an atlas that is NAME=ATLAS,ATLAS."
            raise UsageError(msg, remedy="Give the file itself as atlas.")
        given |= wanted
        declared = space or space_of(path)
        if declared is None and _root_of(path) is not None:
            declared = "native"  # as fMRIPrep names the series on its own grid
        own = (*given.get("atlas_file", ()), *given.get("seeds", ()))
        if own:
            image = Path(own[0].partition(",")[0])
            # Who gives both images says that they belong together.
            declared = declared or space_of(image) or "native"
            if space_of(image) is None:
                given.setdefault("atlas_space", declared)
        elif declared is None:
            msg = "the file name does not tell the space, which an atlas by name needs."
            raise UsageError(msg, where=path, remedy="Give it with space=.")
        checked = Options.from_values(given)
        run = _find_run(path, checked, space=declared, confounds=confounds)
        return _extract(run, checked)


def _as_file(image: Any, path: Path) -> Path:  # noqa: ANN401 - a nibabel image
    if isinstance(image, str):
        image = local_path(image)
    if isinstance(image, Path):
        return image.absolute()
    save_image(image, path)
    return path


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Values as the command line would parse them."""
    checked: dict[str, Any] = {}
    for name, value in options.items():
        option = _ALLOWED.get(_ALIASES.get(name, name))
        if option is None:
            near = ", ".join(nearest_words(name, _ALLOWED))
            msg = f"extract has no option '{name}'."
            hint = f"Nearest: {near}. " if near else ""
            raise UsageError(msg, remedy=f"{hint}It has {', '.join(sorted(_ALLOWED))}.")
        name = option.name
        if value is None:
            continue
        if option.many:
            values = (value,) if isinstance(value, str | Path) else tuple(value)
            checked[name] = tuple(str(v) for v in values)
        else:
            kind = local_path if option.kind is Path else option.kind
            checked[name] = value if option.kind is bool else kind(value)
        chosen = checked[name] if option.many else (checked[name],)
        if wrong := [v for v in chosen if option.choices and v not in option.choices]:
            msg = f"{name} is one of {', '.join(option.choices)}, not {wrong[0]!r}."
            raise UsageError(msg)
    for name in ("statistic", "map_statistic", "strategy"):
        if len(checked.get(name, ())) > 1:
            raise UsageError(f"extract takes one {name} at a time.")
    return checked


def _atlas_options(
    atlas: Any,  # noqa: ANN401 - a nibabel image
    table: str | Path | pd.DataFrame | None,
    folder: Path,
) -> dict[str, Any]:
    if isinstance(atlas, str) and not Path(atlas).exists():
        if table is not None:
            msg = f"'{atlas}' is no file, so that atlas_table has nothing to go with."
            raise UsageError(msg, remedy="Leave the table out for atlases by name.")
        return {"combine" if "=" in atlas else "atlas": (atlas,)}
    if isinstance(atlas, str | Path) and Path(atlas).suffix in (".tsv", ".csv"):
        return {"seeds": (str(Path(atlas).absolute()),)}
    image = _as_file(atlas, folder / "atlas.nii")
    if isinstance(table, pd.DataFrame):
        path = folder / "atlas.tsv"
        table.to_csv(path, sep="\t", index=False, na_rep="n/a")
        table = path
    text = str(image) if table is None else f"{image},{Path(table).absolute()}"
    return {"atlas_file": (text,)}


def _root_of(path: Path) -> Path | None:
    """Root of the dataset in whose ``sub-*/func`` a run lies; ``None`` for others."""
    folder = f"sub-{parse_name(path).get('sub')}"
    if path.parent.name != "func":
        return None
    return next((p.parent for p in path.parents if p.name == folder), None)


def _find_run(
    path: Path, options: Options, *, space: str, confounds: str | Path | None
) -> BoldRun:
    """The run with its partners, where it lies in a derivative; else the file alone."""
    entities = parse_name(path).entities
    labels, root = dict(entities), _root_of(path)
    run = None
    if root is not None:
        desc = labels.get("desc", options.input.desc)
        found = find_runs(
            root,
            labels["sub"],
            dataclasses.replace(options.input, desc=desc),
            own_masks=options.extraction.mask == "auto",
        )
        run = next((each for each in found if each.path == path), None)
    if run is None:
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        beside = path.with_name(f"{stem}.json")
        metadata = read_json(beside) if beside.exists() else {}
        run = BoldRun(path.parent, (path,), entities, None, None, metadata)
    if run.space is None:
        label, _, cohort = space.partition("+")
        more = (("space", label), *((("cohort", cohort),) if cohort else ()))
        run = dataclasses.replace(run, entities=(*run.entities, *more))
    if confounds is not None:
        run = dataclasses.replace(run, confounds_path=Path(confounds).absolute())
    return run


def _extract(run: BoldRun, options: Options) -> Extraction:
    strategies = load_strategies(options)
    labels = tuple(s.label if s is not None else None for s in strategies)
    # Who names a run asks for its space.
    own = dataclasses.replace(options.input, space=(run.space or "native",))
    options = dataclasses.replace(options, input=own)
    planned = plan_run(run, options, AtlasShelf(options.atlases), labels)
    if planned.error is not None:
        raise planned.error
    for _, why in planned.refused:
        raise why
    job = open_job(planned, options, strategies, run.root)
    motion = read_motion(job.confounds)
    job = prepare_cleaning(dataclasses.replace(job, work=planned.atlases))
    for error in job.failed.values():
        raise error
    job, misplaced = place_atlases(job)
    for _, _, error in misplaced:
        raise error
    (result,) = clean_atlases(job, extract_signals(job))
    for error in result.failed.values():
        raise error
    (series,) = result.names.timeseries
    common = describe_atlas(job, result, motion)
    facts = describe_series(job, result, series, motion, common=common)
    names = list(result.atlas.regions.name)
    relmats = {}
    notes = list(facts.get("Warnings", common.get("Warnings", ())))
    for output in result.names.relmats:
        related = relate_series(result, series, output, options, facts=facts)
        relmats[output.measure] = pd.DataFrame(
            related.relmat, index=names, columns=names
        )
        notes += [note for note in related.notes if note not in notes]
    sidecar = find_statistic(series.statistic).describe()
    sidecar |= join_facts(common, facts)
    if notes:
        sidecar["Warnings"] = notes
    return Extraction(
        signals=_frame(result, series, names),
        regions=pd.DataFrame(region_columns(result, motion)),
        relmats=relmats,
        sidecar=sidecar,
    )


def _frame(result: AtlasResult, series: SeriesOutput, names: list[str]) -> pd.DataFrame:
    clean = result.cleaned.get(series)
    values = result.signals[series.statistic] if clean is None else clean.signals
    volumes = np.arange(len(values))
    if clean is not None and len(values) < clean.cleaned.sample_mask.size:
        volumes = np.flatnonzero(clean.cleaned.sample_mask)
    index = pd.Index(volumes, name="volume")
    return pd.DataFrame(values, index=index, columns=names)
