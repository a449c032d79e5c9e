"""Words of the options that name atlases, understood: files, datasets, combinations."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi.atlases.catalogue import Catalogue, Dataset
from bids_roi.atlases.names import (
    LEFT_SIDE,
    RIGHT_SIDE,
    AtlasKey,
    is_dense,
    is_surface,
    key_of_file,
    name_map,
    side_in_name,
    space_of,
    without_side,
)
from bids_roi.atlases.open import AtlasFiles
from bids_roi.atlases.regions import some
from bids_roi.errors import AtlasError, CollisionError, MissingInput, UsageError
from bids_roi.files.tables import read_json
from bids_roi.images.header import meshes_of, surface_template
from bids_roi.images.nifti import check_file

if TYPE_CHECKING:
    from collections.abc import Sequence


SUBJECT = "subject:"
# What a table ends in, and no image does.
_TABLES = (".tsv", ".csv", ".txt", ".xml", ".json")
_GIVE_BOTH = "Write --atlas-file L=LEFT,R=RIGHT[,TABLE]."
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
    folders = (image.parent, *list(image.parents)[1:3])
    beside = (folder / f"atlas-{key.label}_description.json" for folder in folders)
    described = next((read_json(path) for path in beside if path.is_file()), {})
    return AtlasFiles(
        key, space, image, table, description=described, right=right, map_name=map_name
    )


def split_sides(text: str) -> tuple[tuple[Path, ...], str]:
    """Understand the image of ``--atlas-file``, up to its table: files, and the rest.

    ``L=LEFT,R=RIGHT``, a path with ``{lh,rh}`` or ``{L,R}`` in it, or the file of one
    hemisphere, whose partner is looked for by its name. Empty for what is no surface.
    """
    if match := re.fullmatch(r"L=([^,]+),R=([^,]+)(?:,(.*))?", text):
        return (Path(match[1]), Path(match[2])), match[3] or ""
    if match := re.fullmatch(r"([^,{]*)\{([^,}]*),([^,}]*)\}([^,]*)(?:,(.*))?", text):
        both = [Path(f"{match[1]}{side}{match[4]}") for side in match.group(2, 3)]
        return tuple(both), match[5] or ""
    image, _, rest = text.partition(",")
    path = Path(image)
    if not is_surface(path):
        return (), text
    return ((path,) if is_dense(path) else find_partner(path)), rest


def split_map(text: str) -> tuple[str, str | None]:
    """Take the map out of ``IMAGE#MAP[,TABLE]``: a name, or a number from 1.

    Of two hemispheres, one or both may name it.
    """
    found: set[str] = set()

    def take(match: re.Match[str]) -> str:
        if match[1] == ".annot" or not is_surface(Path("x" + match[1])):
            msg = f"'{match[0]}' names a map, and only .dlabel.nii and .gii have maps."
            raise UsageError(msg, remedy="Leave out # and what follows.")
        found.add(match[2])
        return match[1]

    if Path(text.partition(",")[0]).exists():  # the name of a file may have a #
        return text, None
    rest = re.sub(r"((?:\.dlabel)?\.(?:nii|gii|annot)(?:\.gz)?)#([^,]+)", take, text)
    if len(found) > 1:
        msg = f"the two hemispheres name different maps: {some(sorted(found))}."
        raise UsageError(msg, remedy="Write one of them.")
    return rest, found.pop() if found else None


def find_partner(path: Path) -> tuple[Path, Path]:
    """The left and the right file of a hemisphere's; an ``AtlasError`` without."""
    side = side_in_name(path)
    swaps = {"lh": "rh", "rh": "lh", "hemi-L": "hemi-R", "hemi-R": "hemi-L"}
    pattern = LEFT_SIDE if side == "L" else RIGHT_SIDE
    other = pattern.sub(
        lambda m: re.sub("|".join(swaps), lambda n: swaps[n[0]], m[0]), path.name
    )
    partner = path.with_name(other)
    if not side or not partner.exists():
        msg = "this is one hemisphere, and the file of the other one is needed, too"
        msg += f" ({partner.name} is not there)." if side else "."
        raise AtlasError(msg, where=path, remedy=_GIVE_BOTH)
    return (path, partner) if side == "L" else (partner, path)


def _space_of_surfaces(files: tuple[Path, ...], runs_in: Sequence[str]) -> str:
    """Template of meshes by their size; of several, the one that runs are asked for in.

    Not so for volumes: those of two templates may have the same grid.
    """
    from bids_roi.atlases.surfaces import read_surface

    try:
        return meshes_of(read_surface(files, None).frame)[0].template
    except AtlasError:  # what is damaged will be told when it is read
        named = [s for s in runs_in if surface_template(s) and s[:8] != "fsnative"]
        if len(named) != 1:
            raise
        return named[0]


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
