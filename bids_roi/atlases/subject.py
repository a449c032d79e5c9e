"""What a participant has of its own in the derivative: segmentations, and transforms.

FreeSurfer's segmentation, resampled by fMRIPrep to the grid of a run, stands beside it
in func; on the grid of the T1w image it is in anat, which fits runs in T1w space. Its
region table is at the root of the derivative. FreeSurfer's annots are on the
participant's own surface, which fits runs in fsnative.

fMRIPrep writes ``from-<template>_to-T1w`` into ``anat`` and, for each run,
``from-boldref_to-T1w`` (23.2 on) or ``from-scanner_to-T1w`` into ``func``. Names say
which way *images* go; points go the other way. So a point of a run in T1w space reaches
the template by ``from-<template>_to-T1w`` as it is, and a point of a native run reaches
T1w space by the inverse of ``from-boldref_to-T1w``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bids_roi.atlases.names import AtlasKey, describe_known_atlas, space_of
from bids_roi.atlases.open import AtlasFiles
from bids_roi.core.frame import Mesh
from bids_roi.errors import (
    AtlasError,
    BidsRoiError,
    MissingInput,
    SpaceMismatch,
    remedy_of,
)
from bids_roi.files.listing import glob_folder, is_there, list_named
from bids_roi.files.names import BidsName, format_name, parse_name
from bids_roi.files.tables import file_digest
from bids_roi.images.nifti import check_file
from bids_roi.images.transforms import read_transform

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bids_roi.core.frame import Frame
    from bids_roi.core.warp import WarpFit


# What aseg.mgz and aparc+aseg.mgz can hold. The table that fMRIPrep writes is all of
# FreeSurfer's colour table, 1,300 rows; and which of these a participant has, depends
# on the participant, while columns must not.
_BRAIN = (2, 4, 5, 7, 8, *range(10, 19), 24, 26, 28, 30, 31, 41, *range(43, 45))
_BRAIN += (46, 47, *range(49, 55), 58, 60, 62, 63, 72, 77, 80, 85, *range(251, 256))
_CORTEX = tuple(n for n in range(36) if n != 4)
_STANDARD = {
    "aseg": frozenset((*_BRAIN, 3, 42)),
    "aparcaseg": frozenset(
        (*_BRAIN, *(1000 + n for n in _CORTEX), *(2000 + n for n in _CORTEX))
    ),
}
_OWN_SPACES = ("T1w", "anat")


def find_segmentation(root: Path, bold: Path, space: str, desc: str) -> AtlasFiles:
    """Find the segmentation (``desc``: ``aparcaseg``, ``aseg``) that fits a run."""
    if is_of_annots(desc):
        msg = f"subject:{desc} is on the participant's own surface, the run a volume."
        remedy = "Choose runs with --space fsnative, or take subject:aparcaseg."
        raise SpaceMismatch(msg, where=bold.relative_to(root), remedy=remedy)
    name = parse_name(bold)
    entities = [(k, v) for k, v in name.entities if k not in ("desc", "echo", "part")]
    own = bold.with_name(format_name([*entities, ("desc", desc)], "dseg", ".nii.gz"))
    # A link to content that is not here counts: opening it says how to get it.
    there = is_there(own, follow=False)
    found = [own] if there else _in_anat(root, bold, space, desc)
    if not found:
        raise _no_segmentation(root, bold, space, desc)
    if len(found) > 1:
        remedy = "Leave all but one out of the derivative, or give it by --atlas-file."
        raise _ambiguous(root, bold, f"segmentations desc-{desc}", found, remedy)
    image = found[0]
    beside = image.with_name(image.name.replace(".nii.gz", ".tsv"))
    tables = [
        path
        for path in (beside, root / f"desc-{desc}_dseg.tsv")
        if is_there(path, follow=False)
    ]
    description = describe_known_atlas(desc) or {
        "Name": f"Segmentation desc-{desc} of each participant",
        "License": "n/a",
    }
    return AtlasFiles(
        key=AtlasKey(desc),
        space=space,
        image=image,
        table=tables[0] if tables else None,
        source=f"bids:preprocessed:{image.relative_to(root).as_posix()}",
        description=description | {"LevelType": "individual"},
        wanted=_STANDARD.get(desc),
        centred=False,
    )


def _in_anat(root: Path, bold: Path, space: str, desc: str) -> list[Path]:
    """Segmentations in ``anat`` of the session, the participant, or any session."""
    labels = dict(parse_name(bold).entities)
    participant = root / f"sub-{labels.get('sub')}"
    near = [[bold.parent.parent / "anat"], [participant / "anat"]]
    for folders in (*near, _all_anat(participant)):
        found = []
        for folder in folders:
            for path in glob_folder(folder, f"sub-*_desc-{desc}_dseg.nii.gz"):
                theirs = space_of(path)
                if theirs == space or (theirs is None and space in _OWN_SPACES):
                    found.append(path)
        # Of several resolutions that of the run.
        same = [p for p in found if parse_name(p).get("res") == labels.get("res")]
        if found:
            return same if len(same) == 1 else found
    return []


def _all_anat(participant: Path) -> list[Path]:
    """Where the ``anat`` folders of all sessions are, if they have any."""
    return [session / "anat" for session in glob_folder(participant, "ses-*")]


def _no_segmentation(root: Path, bold: Path, space: str, desc: str) -> BidsRoiError:
    """Tell a file that should be there from a space that has none."""
    labels = dict(parse_name(bold).entities)
    spaces = set()
    for path in (root / f"sub-{labels.get('sub')}").rglob(f"*_desc-{desc}_dseg.nii.gz"):
        spaces.add(space_of(path) or "T1w")
    there = (
        f"there is one in {', '.join(sorted(spaces))}" if spaces else "there is none"
    )
    msg = f"no segmentation desc-{desc} of the participant in space {space} ({there})"
    where = bold.relative_to(root)
    if space in spaces or _other_is_segmented(root, space, desc):
        msg += "; other runs of this dataset in this space have one."
        remedy = "Fetch it (`datalad get`) or copy it again, or leave the run out."
        return MissingInput(msg, where=where, remedy=remedy)
    if not spaces:
        remedy = "fMRIPrep writes it where FreeSurfer was run; or leave the run out."
        return MissingInput(f"{msg}.", where=where, remedy=remedy)
    remedy = "Choose runs of that space with --space."
    return SpaceMismatch(f"{msg}.", where=where, remedy=remedy)


@functools.lru_cache(maxsize=64)
def _other_is_segmented(root: Path, space: str, desc: str) -> bool:
    """Whether any run of the dataset has its segmentation in a space."""
    label = space.partition("+")[0]
    name = f"sub-*_space-{label}_*desc-{desc}_dseg.nii.gz"
    for person in glob_folder(root, "sub-*"):
        with contextlib.suppress(MissingInput):  # another's, which is told in its turn
            for place in (person, *glob_folder(person, "ses-*")):
                if glob_folder(place / "func", name):
                    return True
    return False


def is_of_annots(desc: str) -> bool:
    """Whether a segmentation is one of surfaces: aparc, or aparc.a2009s and the like.

    No label of BIDS has a dot.
    """
    return desc == "aparc" or "." in desc


def find_annots(
    root: Path, bold: Path, where: Frame, desc: str, folder: Path | None
) -> AtlasFiles:
    """Find a participant's own ``{lh,rh}.{desc}.annot`` for a run on its own surface.

    Looked for in ``folder``, else in ``sourcedata/freesurfer`` of the derivative; the
    session's before the participant's. A ``SpaceMismatch`` for runs on other surfaces;
    ``MissingInput`` if one is absent; an ``AtlasError`` if it is of another mesh.
    """
    where_bold = bold.relative_to(root)
    meshes = {
        p.structure: p.support for p in where.parts if isinstance(p.support, Mesh)
    }
    spaces = {mesh.template for mesh in meshes.values()}
    if len(spaces) != 1 or not next(iter(spaces)).startswith("fsnative"):
        there = ", ".join(sorted(spaces)) or "no surface"
        msg = (
            f"subject:{desc} is on the participant's own surface (fsnative), the run on"
            f" {there}."
        )
        remedy = (
            "Choose runs with --space fsnative, or an atlas of that template"
            " (`bids_roi_tools atlases`)."
        )
        raise SpaceMismatch(msg, where=where_bold, remedy=remedy)
    left, right = list_annots(root, bold, desc, folder)
    for path in (left, right):
        check_file(path)
    for path, structure in ((left, "CORTEX_LEFT"), (right, "CORTEX_RIGHT")):
        if structure in meshes:
            _check_vertices(path, meshes[structure], structure)
    if folder is None:
        source = f"bids:preprocessed:{left.relative_to(root).as_posix()}"
    else:
        source = f"bids:freesurfer:{left.relative_to(folder).as_posix()}"
    return AtlasFiles(
        key=AtlasKey(desc.replace(".", "")),
        space=next(iter(spaces)),
        image=left,
        right=right,
        table=None,
        source=source,
        description={
            "Name": f"FreeSurfer's annotation {desc} of each participant",
            "License": "n/a",
            "LevelType": "individual",
        },
        centred=False,
    )


def list_annots(
    root: Path, bold: Path, desc: str, folder: Path | None
) -> tuple[Path, Path]:
    """Name both annots of a run's participant; links to what is not here count."""
    # The folder of the session comes before that of the participant.
    labels = dict(parse_name(bold).entities)
    people = [f"sub-{labels.get('sub')}"]
    if "ses" in labels:
        people.insert(0, f"{people[0]}_ses-{labels['ses']}")
    home = folder or root / "sourcedata" / "freesurfer"
    folders = [home / person / "label" for person in people]
    names = [f"{side}.{desc}.annot" for side in ("lh", "rh")]

    there = functools.partial(is_there, follow=False)
    found = next((f for f in folders if any(there(f / n) for n in names)), None)
    missing = [n for n in names if found is None or not there(found / n)]
    if found is None or missing:
        looked = [found] if found else folders
        msg = f"{' and '.join(missing)} not found in {', '.join(map(str, looked))}."
        remedy = (
            "Fetch or copy FreeSurfer's results into sourcedata/freesurfer of the"
            " derivative, or name their folder with --fs-subjects-dir."
        )
        raise MissingInput(msg, where=bold.relative_to(root), remedy=remedy)
    left, right = (found / name for name in names)
    return left, right


def _check_vertices(path: Path, mesh: Mesh, structure: str) -> None:
    from bids_roi.images.surfaces import read_surface_labels

    n_vertices = read_surface_labels(path).keys.size
    if n_vertices != mesh.n_vertices:
        msg = (
            f"the annot has {n_vertices:,} vertices, {structure} of the run"
            f" {mesh.n_vertices:,}: it is of another reconstruction, or another person."
        )
        remedy = "Give FreeSurfer's results that fMRIPrep used, with --fs-subjects-dir."
        raise AtlasError(msg, where=path, remedy=remedy)


# What is a participant's own, as ``space-`` of a run; without any it is native.
_ANATOMICAL = ("T1w", "T2w")
_NATIVE = (None, "boldref", "func", "scanner")
# The map to the T1w image is the same for these, whatever the run's name has.
_FREE = ("from", "to", "mode", "desc", "space", "res", "den", "cohort", "echo", "part")

_ONE_IMAGE = (
    "Leave out of the derivative what is not of the T1w image that the run was"
    " aligned to."
)
# What is odd; the docstring of explain_fit has the measurements.
_MOST_MIRRORED = 0.5
_VOLUMES = (0.35, 1.3)
_LEAST_INSIDE = 0.8
_LEAST_COVERED = 0.9


@dataclass(frozen=True, slots=True)
class Route:
    """The way from points of a run to points of a template."""

    # Files in the order in which they move points, and whether each is inverted
    steps: tuple[tuple[Path, bool], ...]
    digest: str = ""  # SHA-256 of what they hold, in this order; empty before identify

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files."""
        return tuple(path for path, _ in self.steps)

    def identify(self) -> Route:
        """Itself with its digest; an error where a file is not here."""
        parts = []
        for path, inverted in self.steps:
            check_file(path)
            status = path.stat()
            state = status.st_size, status.st_mtime_ns
            parts.append(f"{_digest_once(path, state)} {inverted:d}")
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return replace(self, digest=digest)

    def apply(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move (n, 3) points in mm, RAS+; the files are read."""
        transforms = [(read_transform(path), inverted) for path, inverted in self.steps]
        for transform, inverted in transforms:
            points = (transform.invert() if inverted else transform).apply(points)
        return points


@functools.lru_cache(maxsize=64)
def _digest_once(
    path: Path,
    state: tuple[int, int],  # noqa: ARG001 - part of the key: a changed file is read again
) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        msg = f"the transform cannot be read ({error.strerror})."
        remedy = remedy_of(error, "Copy the file again, or fetch it (`datalad get`).")
        raise MissingInput(msg, where=path, remedy=remedy) from error


def can_be_reached(space: str) -> bool:
    """Tell whether transforms lead from templates to runs in a space."""
    return space == "native" or space in _ANATOMICAL or space in _NATIVE


def find_anatomical_route(root: Path, bold: Path) -> Route:
    """Find the transform for an image in T1w space and a native run."""
    return Route(((_find_coregistration(root, bold), True),))


def find_route(root: Path, bold: Path, template: str) -> Route:
    """Find the transforms for an atlas and a run."""
    space = parse_name(bold).get("space")
    if space in _NATIVE:
        begun = find_anatomical_route(root, bold).steps
        return Route((*begun, (_find_anatomical(root, bold, template, "T1w"), False)))
    if space in _ANATOMICAL:
        return Route(((_find_anatomical(root, bold, template, space), False),))
    msg = f"the run is in space {space}; transforms lead from {template} to T1w only."
    remedy = f"Choose runs in T1w space or native ones, or an atlas in {space}."
    raise SpaceMismatch(msg, where=bold.relative_to(root), remedy=remedy)


def refuse_mirrored(fit: WarpFit, route: Route) -> None:
    """Refuse a transform that turns left into right, which no mask can show."""
    if fit.mirrored > _MOST_MIRRORED:
        msg = (
            f"the transform turns left into right in {fit.mirrored:.0%} of the atlas:"
            " regions of the two sides would be swapped."
        )
        remedy = (
            "Take the file that fMRIPrep wrote; transforms of other programs have to"
            " be in ITK's form, with points in LPS+."
        )
        raise AtlasError(msg, where=route.steps[-1][0], remedy=remedy)


def explain_fit(fit: WarpFit) -> list[str]:
    """What looks odd about a transform, from how the moved atlas lies on a run.

    Measured on 24 simulated adults (brains of 0.5 to 0.9 of the template's volume, up
    to 40 mm off): right transforms have 0.95 and more of the regions in the mask, those
    of the wrong direction 0.70 and less and a volume of 1.1 to 1.9. Another
    participant's has 0.2 to 0.99: where two brains are alike, nothing shows it.
    """
    words = []
    if fit.volume < _VOLUMES[0] or fit.volume > _VOLUMES[1]:
        words.append(
            f"regions have {fit.volume:.2f} of their volume in the template (of people"
            f" {_VOLUMES[0]:g} to {_VOLUMES[1]:g})"
        )
    if fit.inside < _LEAST_INSIDE:
        words.append(
            f"{fit.inside:.0%} of the regions' voxels lie in the run's mask (at least"
            f" {_LEAST_INSIDE:.0%} for a whole-brain mask)"
        )
    if fit.distance > 0:
        words.append(
            f"the centre of the regions lies {fit.distance:.0f} mm outside the mask"
        )
    if fit.covered < _LEAST_COVERED:
        words.append(
            f"{fit.covered:.0%} of the mask lies in the field of view of the atlas (at"
            f" least {_LEAST_COVERED:.0%})"
        )
    return words


def _find_anatomical(root: Path, bold: Path, template: str, image: str) -> Path:
    """``from-<template>_to-T1w`` in ``anat`` of the session, the participant, others.

    fMRIPrep puts the T1w image of a participant with one such image into the session
    that it is of, and uses it for the runs of all sessions.
    """
    participant = root / f"sub-{parse_name(bold).get('sub')}"
    own = bold.parent.parent / "anat"
    folders = [[own]]
    # A session with a T1w image of its own has a T1w space of its own.
    if not _list_images([own], image):
        folders += [[participant / "anat"], _all_anat(participant)]
    for near in folders:
        found = _list_transforms(near, template, image)
        if len(found) > 1:
            raise _ambiguous(root, bold, "transforms", found)
        if found:
            return found[0]
    raise _missing_anatomical(root, bold, template, image)


def _list_transforms(folders: Iterable[Path], origin: str, target: str) -> list[Path]:
    name = f"sub-*_from-{origin}_to-{target}_mode-image_xfm.h5"
    return sorted(path for folder in folders for path in glob_folder(folder, name))


def _list_images(folders: Iterable[Path], image: str) -> list[Path]:
    """Preprocessed anatomical images that are in no template's space."""
    name = f"sub-*_desc-preproc_{image}.nii*"
    found = [path for folder in folders for path in glob_folder(folder, name)]
    return [path for path in found if parse_name(path).get("space") is None]


def _find_coregistration(root: Path, bold: Path) -> Path:
    """The affine between a run's own space and the T1w image, in its folder."""
    own = parse_name(bold)
    wanted = _entities(own)
    for origin, desc in (("boldref", "coreg"), ("scanner", None)):
        found = [
            path
            for path, name in list_named(
                bold.parent, f"sub-*_from-{origin}_to-T1w_*xfm.txt", own
            )
            if name.get("desc") == desc
            and name.get("mode") == "image"
            and _entities(name) == wanted
        ]
        if len(found) > 1:
            raise _ambiguous(root, bold, "transforms", found)
        if found:
            return found[0]
    stem = format_name(wanted, "from", "").removesuffix("from")
    folder = bold.parent.relative_to(root).as_posix()
    msg = (
        "the transform between the run and its T1w image is absent: no"
        f" {folder}/{stem}from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt (fMRIPrep"
        f" 23.2 and later), nor {stem}from-scanner_to-T1w_mode-image_xfm.txt (before)."
    )
    remedy = (
        "Copy it from fMRIPrep's output, or choose runs in T1w space (--space T1w)."
    )
    raise MissingInput(msg, where=bold.relative_to(root), remedy=remedy)


def _entities(name: BidsName) -> tuple[tuple[str, str], ...]:
    return tuple((key, label) for key, label in name.entities if key not in _FREE)


def _ambiguous(
    root: Path, bold: Path, what: str, found: list[Path], remedy: str = _ONE_IMAGE
) -> AtlasError:
    names = ", ".join(path.relative_to(root).as_posix() for path in found)
    msg = f"several {what} fit the run: {names}."
    return AtlasError(msg, where=bold.relative_to(root), remedy=remedy)


def _missing_anatomical(
    root: Path, bold: Path, template: str, image: str
) -> BidsRoiError:
    """Tell a file that should be there from a template that nobody was aligned to."""
    subject = f"sub-{parse_name(bold).get('sub')}"
    where = bold.relative_to(root)
    folders = [bold.parent.parent / "anat", root / subject / "anat"]
    folders += _all_anat(root / subject)
    # Named as the T1w image is, where there is one.
    images = _list_images(folders, image)
    beside = images[0] if images else root / subject / "anat" / subject
    pairs = _entities(parse_name(beside)) or (("sub", subject.removeprefix("sub-")),)
    pairs += (("from", template), ("to", image), ("mode", "image"))
    expected = beside.with_name(format_name(pairs, "xfm", ".h5")).relative_to(root)
    msg = f"the transform {expected.as_posix()} is absent"
    there = {
        parse_name(path).get("from") or ""
        for path in _list_transforms(folders, "*", image)
    }
    if there:
        msg += f"; there are transforms from {', '.join(sorted(there))}"
    backward = f"sub-*_from-{image}_to-{template}_mode-image_xfm.h5"
    if any((root / subject).rglob(backward)):
        msg += f" (and one from {image} to {template}, which leads the other way)"
    if _other_has_one(root, template, image):
        msg += "; other participants have theirs."
        remedy = "Fetch it (`datalad get`) or copy it again, or leave the run out."
        return MissingInput(msg, where=where, remedy=remedy)
    remedy = (
        f"Take an atlas in a space of these, or run fMRIPrep with {template} in"
        " --output-spaces."
    )
    return SpaceMismatch(f"{msg}.", where=where, remedy=remedy)


@functools.lru_cache(maxsize=64)
def _other_has_one(root: Path, template: str, image: str) -> bool:
    for person in glob_folder(root, "sub-*"):
        with contextlib.suppress(MissingInput):  # another's, which is told in its turn
            folders = [person / "anat", *_all_anat(person)]
            if _list_transforms(folders, template, image):
                return True
    return False
