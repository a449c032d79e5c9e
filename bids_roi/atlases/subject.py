"""A participant's own segmentation from the derivative: no warps, no template.

FreeSurfer's segmentation, resampled by fMRIPrep to the grid of a run, stands beside it
in ``func``; on the grid of the T1w image it is in ``anat``, which fits runs in T1w
space. Its region table is at the root of the derivative. FreeSurfer's annots are on the
participant's own surface, which fits runs in fsnative.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from bids_roi.atlases.names import AtlasKey, describe_known_atlas, space_of
from bids_roi.atlases.open import AtlasFiles
from bids_roi.core.frame import Mesh
from bids_roi.errors import AtlasError, BidsRoiError, MissingInput, SpaceMismatch
from bids_roi.files.names import format_name, parse_name
from bids_roi.images.nifti import check_file

if TYPE_CHECKING:
    from pathlib import Path

    from bids_roi.core.frame import Frame


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
    """Find the segmentation (``desc``: ``aparcaseg``, ``aseg``) that fits a run.

    A ``SpaceMismatch`` if there is none in this space, of no participant;
    ``MissingInput`` if this run's is absent; an ``AtlasError`` if there are several.
    """
    if is_of_annots(desc):
        msg = f"subject:{desc} is on the participant's own surface, the run a volume."
        remedy = "Choose runs with --space fsnative, or take subject:aparcaseg."
        raise SpaceMismatch(msg, where=bold.relative_to(root), remedy=remedy)
    name = parse_name(bold)
    entities = [(k, v) for k, v in name.entities if k not in ("desc", "echo", "part")]
    own = bold.with_name(format_name([*entities, ("desc", desc)], "dseg", ".nii.gz"))
    # A link to content that is not here counts: opening it says how to get it.
    there = own.exists() or own.is_symlink()
    found = [own] if there else _in_anat(root, bold, space, desc)
    if not found:
        raise _missing(root, bold, space, desc)
    if len(found) > 1:
        names = ", ".join(path.relative_to(root).as_posix() for path in found)
        msg = f"several segmentations desc-{desc} fit the run: {names}."
        remedy = "Leave all but one out of the derivative, or give it by --atlas-file."
        raise AtlasError(msg, where=bold.relative_to(root), remedy=remedy)
    image = found[0]
    beside = image.with_name(image.name.replace(".nii.gz", ".tsv"))
    tables = [
        path
        for path in (beside, root / f"desc-{desc}_dseg.tsv")
        if path.is_file() or path.is_symlink()
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
    for folders in (*near, sorted(participant.glob("ses-*/anat"))):
        found = []
        for folder in folders:
            for path in sorted(folder.glob(f"sub-*_desc-{desc}_dseg.nii.gz")):
                theirs = space_of(path)
                if theirs == space or (theirs is None and space in _OWN_SPACES):
                    found.append(path)
        # Of several resolutions that of the run.
        same = [p for p in found if parse_name(p).get("res") == labels.get("res")]
        if found:
            return same if len(same) == 1 else found
    return []


def _missing(root: Path, bold: Path, space: str, desc: str) -> BidsRoiError:
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
    if space in spaces or _other_has_one(root, space, desc):
        msg += "; other runs of this dataset in this space have one."
        remedy = "Fetch it (`datalad get`) or copy it again, or leave the run out."
        return MissingInput(msg, where=where, remedy=remedy)
    if not spaces:
        remedy = "fMRIPrep writes it where FreeSurfer was run; or leave the run out."
        return MissingInput(f"{msg}.", where=where, remedy=remedy)
    remedy = "Choose runs of that space with --space."
    return SpaceMismatch(f"{msg}.", where=where, remedy=remedy)


@functools.lru_cache(maxsize=64)
def _other_has_one(root: Path, space: str, desc: str) -> bool:
    """Whether any run of the dataset has its segmentation in a space."""
    label = space.partition("+")[0]
    name = f"sub-*_space-{label}_*desc-{desc}_dseg.nii.gz"
    patterns = (f"sub-*/func/{name}", f"sub-*/ses-*/func/{name}")
    return any(path for pattern in patterns for path in root.glob(pattern))


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
    folders = _label_folders(root, bold, folder)
    names = [f"{side}.{desc}.annot" for side in ("lh", "rh")]

    def is_there(path: Path) -> bool:
        return path.is_symlink() or path.exists()

    found = next((f for f in folders if any(is_there(f / n) for n in names)), None)
    missing = [n for n in names if found is None or not is_there(found / n)]
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


def _label_folders(root: Path, bold: Path, folder: Path | None) -> list[Path]:
    """Folders of a participant's annots, that of the session first."""
    labels = dict(parse_name(bold).entities)
    names = [f"sub-{labels.get('sub')}"]
    if "ses" in labels:
        names.insert(0, f"{names[0]}_ses-{labels['ses']}")
    homes = [folder] if folder else [root / "sourcedata" / "freesurfer"]
    return [home / name / "label" for home in homes for name in names]


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
