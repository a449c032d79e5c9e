"""Words of the options that name atlases, understood: files, datasets, combinations."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.atlases.catalogue import Catalogue, Dataset
from bids_roi.atlases.names import AtlasKey, key_of_file, name_map, space_of
from bids_roi.atlases.open import AtlasFiles
from bids_roi.atlases.surfaces import (
    space_of_meshes,
    split_map,
    split_sides,
    without_side,
)
from bids_roi.errors import AtlasError, CollisionError, MissingInput, UsageError
from bids_roi.files.tables import read_json
from bids_roi.images.meshes import surface_template
from bids_roi.images.nifti import check_file

if TYPE_CHECKING:
    from collections.abc import Sequence


SUBJECT = "subject:"
# What a table ends in, and no image does.
_TABLES = (".tsv", ".csv", ".txt", ".xml", ".json")
_TAKEN = ("preprocessed", "templateflow")


def refuse_twins(files: list[AtlasFiles]) -> None:
    """Refuse two files that would be one atlas in one space."""
    seen: dict[tuple[str, str], Path] = {}
    for file in files:
        key = (file.key.name, file.space)
        if key in seen:
            msg = f"{seen[key]} and {file.image} would both be atlas {key[0]}."
            remedy = "Rename one of them; the name comes from atlas- or the file."
            raise CollisionError(msg, remedy=remedy)
        seen[key] = file.image


def refuse_lone_tables(texts: Sequence[str]) -> None:
    """Refuse a table that stands as an atlas of its own, behind a blank."""
    for before, text in pairwise(("", *texts)):
        if text.casefold().endswith(_TABLES) and "," not in text:
            image = before.rstrip(",") if "," not in before[:-1] else ""
            msg = f"--atlas-file {text} is a table, and no image."
            remedy = (
                "A table goes behind its image and a comma, without a blank:"
                f" --atlas-file {image or 'IMAGE'},{text}"
            )
            raise UsageError(msg, remedy=remedy)


def parse_segmentation(name: str) -> str:
    """Label of the atlas that ``subject:DESC`` names."""
    desc = name.removeprefix(SUBJECT)
    label = desc.replace(".", "")  # of aparc.a2009s, which is no label of BIDS
    if not re.fullmatch(r"[A-Za-z0-9+]+", label):
        msg = f"'{name}' names no segmentation."
        remedy = (
            "Write subject: and the desc- of the dseg files (subject:aparcaseg), or the"
            " name of an annot (subject:aparc, subject:aparc.a2009s)."
        )
        raise UsageError(msg, remedy=remedy)
    return label


def parse_dataset(text: str) -> Dataset:
    """Understand ``NAME=PATH`` of ``--atlas-dataset``; without NAME, the folder's."""
    name, equals, path = text.partition("=")
    if not equals:
        path = text
        name = re.sub(r"[^A-Za-z0-9-]", "", Path(text).absolute().name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name) or name in _TAKEN:
        msg = f"'{name}' cannot be the name of an atlas dataset."
        remedy = f"Use letters, digits and hyphens, and neither of {', '.join(_TAKEN)}."
        raise UsageError(msg, remedy=remedy)
    root = Path(path).absolute()
    if not root.is_dir():
        msg = "there is no such folder."
        raise MissingInput(msg, where=root, remedy="Check --atlas-dataset NAME=PATH.")
    dataset = Dataset.of(name, root)
    if not Catalogue([dataset], (), None).keys_of(name):
        msg = "the dataset holds no atlas."
        remedy = (
            "Expected are tpl-<T>/[anat/]tpl-<T>_atlas-<A>[...]_dseg with .nii.gz,"
            " .dlabel.nii, or hemi-L and hemi-R .label.gii."
        )
        raise UsageError(msg, where=root, remedy=remedy)
    return dataset


def parse_file(
    text: str, declared: str | None, runs_in: Sequence[str] = ()
) -> AtlasFiles:
    """Understand ``IMAGE[,TABLE]`` of ``--atlas-file``.

    ``declared`` is the space of an image whose name does not tell it; ``runs_in`` are
    those that ``--space`` asks for.
    """
    text, map_name = split_map(text)
    files, rest = split_sides(text)
    image_text, _, table_text = text.partition(",")
    image, table = Path(image_text), Path(table_text) if table_text else None
    if files:
        image, table = files[0], Path(rest) if rest else None
    for path in filter(None, (image, *files, table)):
        check_file(path)
    space = space_of(image)
    if files and surface_template(space) is None:
        # A dlabel's space may be that of its voxels; its meshes tell their own.
        space = surface_template(declared) or _space_of_surfaces(files, runs_in)
    if declared and space and declared != space:
        if declared.partition("+")[0] != space:
            msg = f"its name says that it is in {space}, --atlas-space {declared}."
            remedy = (
                "Leave --atlas-space out, or correct the name; it is for files whose"
                " names have neither tpl- nor space-."
            )
            raise UsageError(msg, where=image, remedy=remedy)
        space = declared  # the same with its cohort
    space = space or declared
    if not space:
        msg = "its name does not tell the space it is in (tpl- or space-)."
        remedy = "Give it with --atlas-space, for example MNI152NLin6Asym."
        raise UsageError(msg, where=image, remedy=remedy)
    key = key_of_file(without_side(image) if len(files) > 1 else image)
    if map_name is not None:
        key = name_map(key, map_name)
    right = files[1] if len(files) > 1 else None
    described = _describe(key.label, image)
    return AtlasFiles(
        key, space, image, table, description=described, right=right, map_name=map_name
    )


def _space_of_surfaces(files: tuple[Path, ...], runs_in: Sequence[str]) -> str:
    """Template of meshes by their size; of several, the one that runs are asked for in.

    Not so for volumes: those of two templates may have the same grid.
    """
    try:
        return space_of_meshes(files)
    except AtlasError:  # what is damaged will be told when it is read
        named = [s for s in runs_in if surface_template(s) and s[:8] != "fsnative"]
        if len(named) != 1:
            raise
        return named[0]


def _describe(label: str, image: Path) -> dict[str, Any]:
    """Description of an atlas from the file beside or above its image."""
    for folder in (image.parent, *list(image.parents)[1:3]):
        path = folder / f"atlas-{label}_description.json"
        if path.is_file():
            return read_json(path)
    return {}


def parse_combination(text: str) -> tuple[AtlasKey, tuple[str, ...]]:
    """Understand ``NAME=ATLAS,ATLAS`` of ``--combine``: its key, and its parts."""
    name, _, rest = text.partition("=")
    parts = tuple(part.strip() for part in rest.split(","))
    if not re.fullmatch(r"[A-Za-z0-9+]+", name):
        msg = f"'{name}' of --combine {text} cannot be the name of an atlas."
        remedy = "Write NAME=ATLAS,ATLAS with letters and digits in NAME."
        raise UsageError(msg, remedy=remedy)
    if len(parts) < 2 or "" in parts or len(set(parts)) < len(parts):
        msg = f"--combine {text} does not name several different atlases."
        remedy = "Write NAME=ATLAS,ATLAS[,ATLAS], for example both=schaefer400,HOSPA."
        raise UsageError(msg, remedy=remedy)
    return AtlasKey(name), parts
