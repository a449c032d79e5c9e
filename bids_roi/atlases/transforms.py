"""The transforms of a derivative that lead from points of a run to a template.

fMRIPrep writes ``from-<template>_to-T1w`` into ``anat`` and, for each run,
``from-boldref_to-T1w`` (23.2 on) or ``from-scanner_to-T1w`` into ``func``. Names say
which way *images* go; points go the other way. So a point of a run in T1w space reaches
the template by ``from-<template>_to-T1w`` as it is, and a point of a native run reaches
T1w space by the inverse of ``from-boldref_to-T1w``.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bids_roi.errors import (
    AtlasError,
    BidsRoiError,
    MissingInput,
    SpaceMismatch,
    remedy_of,
)
from bids_roi.files.names import BidsName, format_name, parse_name
from bids_roi.files.tables import file_digest
from bids_roi.images.nifti import check_file
from bids_roi.images.transforms import read_transform

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bids_roi.core.warp import WarpFit


# What is a participant's own, as ``space-`` of a run; without any it is native.
_ANATOMICAL = ("T1w", "T2w")
_NATIVE = (None, "boldref", "func", "scanner")
# The map to the T1w image is the same for these, whatever the run's name has.
_FREE = ("from", "to", "mode", "desc", "space", "res", "den", "cohort", "echo", "part")

# What is odd; the docstring of explain_fit has the measurements.
_MOST_MIRRORED = 0.5
_VOLUMES = (0.35, 1.3)
_LEAST_INSIDE = 0.8
_LEAST_COVERED = 0.9


@dataclass(frozen=True, slots=True)
class Route:
    """The way from points of a run to points of a template.

    Attributes
    ----------
    steps
        Files in the order in which they move points, and whether each is inverted.
    digest
        SHA-256 of what they hold, in this order; empty before ``identify``.
    """

    steps: tuple[tuple[Path, bool], ...]
    digest: str = ""

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
    """Find the transforms for an atlas and a run.

    The run is native, or in the space of its anatomical image; ``template`` has its
    cohort (``MNIInfant+1``).
    """
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
        folders += [[participant / "anat"], sorted(participant.glob("ses-*/anat"))]
    for near in folders:
        found = _list_transforms(near, template, image)
        if len(found) > 1:
            raise _ambiguous(root, bold, found)
        if found:
            return found[0]
    raise _missing_anatomical(root, bold, template, image)


def _list_transforms(folders: Iterable[Path], origin: str, target: str) -> list[Path]:
    name = f"sub-*_from-{origin}_to-{target}_mode-image_xfm.h5"
    return sorted(path for folder in folders for path in folder.glob(name))


def _list_images(folders: Iterable[Path], image: str) -> list[Path]:
    """Preprocessed anatomical images that are in no template's space."""
    name = f"sub-*_desc-preproc_{image}.nii*"
    found = [path for folder in folders for path in sorted(folder.glob(name))]
    return [path for path in found if parse_name(path).get("space") is None]


def _find_coregistration(root: Path, bold: Path) -> Path:
    """The affine between a run's own space and the T1w image, in its folder."""
    wanted = _entities(parse_name(bold))
    for origin, desc in (("boldref", "coreg"), ("scanner", None)):
        found = [
            path
            for path in sorted(bold.parent.glob(f"sub-*_from-{origin}_to-T1w_*xfm.txt"))
            if (name := parse_name(path)).get("desc") == desc
            and name.get("mode") == "image"
            and _entities(name) == wanted
        ]
        if len(found) > 1:
            raise _ambiguous(root, bold, found)
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


def _ambiguous(root: Path, bold: Path, found: list[Path]) -> AtlasError:
    names = ", ".join(path.relative_to(root).as_posix() for path in found)
    msg = f"several transforms fit the run: {names}."
    remedy = (
        "Leave out of the derivative what is not of the T1w image that the run was"
        " aligned to."
    )
    return AtlasError(msg, where=bold.relative_to(root), remedy=remedy)


def _missing_anatomical(
    root: Path, bold: Path, template: str, image: str
) -> BidsRoiError:
    """Tell a file that should be there from a template that nobody was aligned to."""
    subject = f"sub-{parse_name(bold).get('sub')}"
    where = bold.relative_to(root)
    folders = [bold.parent.parent / "anat", root / subject / "anat"]
    folders += sorted((root / subject).glob("ses-*/anat"))
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
    folders = (*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat"))
    return bool(_list_transforms(folders, template, image))
