"""Atlases that options ask for: files, datasets, coordinates, combinations."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.atlases.catalogue import Catalogue, Dataset
from bids_roi.atlases.names import (
    GIVE_BOTH,
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
from bids_roi.atlases.open import NOWHERE, Atlas, AtlasFiles, combine_images
from bids_roi.atlases.regions import (
    SIDE_COLUMNS,
    Finding,
    RawTable,
    RegionTable,
    build_regions,
    networks_of,
    sides_of,
    some,
)
from bids_roi.errors import (
    AtlasError,
    CollisionError,
    MissingInput,
    SpaceMismatch,
    UsageError,
)
from bids_roi.files.listing import glob_folder, list_folder
from bids_roi.files.tables import read_json, read_table, to_number
from bids_roi.images.header import meshes_of, surface_template
from bids_roi.images.nifti import check_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_roi.atlases.open import Spheres


log = logging.getLogger("bids_roi")

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


def _tell_closed(root: Path) -> None:
    """Warn of closed folders of a dataset, which hide atlases."""
    folders = glob_folder(root, "tpl-*")
    for folder in folders:  # and those in it
        try:
            names = list_folder(folder)
        except MissingInput as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            log.warning("%s No atlas is looked for in it.", error)
            continue
        if folder.parent == root:
            inside = (name for name in names if name.startswith(("anat", "cohort-")))
            folders += [folder / name for name in inside]


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
    _tell_closed(root)
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
        raise AtlasError(msg, where=path, remedy=GIVE_BOTH)
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


_WHAT = {"probseg": "weighted maps", "spheres": "spheres around coordinates"}
_NAMES = ("name", "label", "region", "roi")
_NO_RADIUS = ("", "n/a")
# Of any head, mm from the origin; metres and voxel numbers are told from it.
_FARTHEST = 300.0
_LARGEST = 50.0


def combine_atlases(key: AtlasKey, parts: Sequence[Atlas]) -> Atlas:
    """Put atlases together; where two have a region, the earlier one's stays."""
    held = [part for part in parts if part.kind != NOWHERE]
    for part in held:
        if part.kind != "dseg":
            msg = f"{key.name}: {part.name} is made of {_WHAT[part.kind]}, not labels."
            remedy = "Combine atlases of labels; ask for the others beside, by --atlas."
            raise AtlasError(msg, where=part.image_path, remedy=remedy)
    ways = {(part.space, part.route) for part in held}
    # On surfaces the meshes decide; the name of a dlabel's space is that of its voxels.
    if len(ways) > 1 and not is_surface(held[0].image_path):
        told = ", ".join(f"{part.name} in {part.space}" for part in held)
        msg = f"{key.name}: its parts are not in one space ({told})."
        remedy = "Take parts of one template, or all of the participant's own."
        raise SpaceMismatch(msg, where=held[0].image_path, remedy=remedy)
    regions = _join_tables(parts)
    elsewhere, start = set(), 0
    for part in parts:
        lost = part.elsewhere if part.kind != NOWHERE else set(part.regions.index)
        elsewhere |= {
            start + row + 1 for row, v in enumerate(part.regions.index) if v in lost
        }
        start += len(part.regions.index)
    atlas = Atlas(
        label=key.label,
        seg=key.seg,
        scale=key.scale,
        space=held[0].space,
        kind="dseg",
        files=tuple(dict.fromkeys(file for part in held for file in part.files)),
        table_path=None,
        image_digest=_digest([f"{p.name}:{p.kind}:{p.image_digest}" for p in parts]),
        table_digest=_digest([f"{p.name}:{p.table_digest}" for p in parts]),
        regions=regions,
        source="",
        description=_describe(key, parts),
        route=held[0].route,
        elsewhere=frozenset(elsewhere),
        parts=tuple(parts),
    )
    combined = combine_images(atlas.image)
    share = np.full(len(regions.index), np.nan)
    np.divide(
        *(combined.n_lost, combined.n_places), out=share, where=combined.n_places > 0
    )
    findings = [finding for part in held for finding in part.findings]
    findings += _tell_overlap(regions, share)
    return replace(atlas, overlapped=tuple(share.tolist()), findings=tuple(findings))


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _join_tables(parts: Sequence[Atlas]) -> RegionTable:
    """Rows of all parts; a name that two of them have gets its atlas's before it."""
    tables = [part.regions for part in parts]
    labels = Counter(part.label for part in parts)
    prefixes = [p.label if labels[p.label] == 1 else p.name for p in parts]
    counts = Counter(name for table in tables for name in table.name)
    names = [
        f"{prefix}_{name}" if counts[name] > 1 else name
        for prefix, table in zip(prefixes, tables, strict=True)
        for name in table.name
    ]
    again = Counter(names)  # a name that another's prefix made
    names = [f"{n}_{row}" if again[n] > 1 else n for row, n in enumerate(names, 1)]
    columns: dict[str, list[str]] = {
        "source_atlas": [p.name for p in parts for _ in p.regions.index],
        "source_index": [str(value) for table in tables for value in table.index],
    }
    networks = [networks_of(table) for table in tables]
    if any(networks):
        columns["network"] = [
            cell
            for table, own in zip(tables, networks, strict=True)
            for cell in own or ["n/a"] * len(table.index)
        ]
    sides = [s for table in tables for s in sides_of(table.original_name, table.extra)]
    if any(sides):
        columns["hemisphere"] = sides
    own = [{column.lower(): cells for column, cells in t.extra} for t in tables]
    for column in dict.fromkeys(column for held in own for column in held):
        if column not in columns and column not in SIDE_COLUMNS:
            columns[column] = [
                cell
                for held, table in zip(own, tables, strict=True)
                for cell in held.get(column, [""] * len(table.index))
            ]
    return RegionTable(
        index=tuple(range(1, len(names) + 1)),
        name=tuple(names),
        original_name=tuple(name for table in tables for name in table.original_name),
        extra=tuple((column, tuple(cells)) for column, cells in columns.items()),
    )


def _describe(key: AtlasKey, parts: Sequence[Atlas]) -> dict[str, Any]:
    """Description of all, for the file at the root and the text of the report."""
    told = [part.description for part in parts]
    names = [str(part.description.get("Name") or part.name) for part in parts]
    licences = [f"{p.name}: {p.description.get('License', 'n/a')}" for p in parts]
    content: dict[str, Any] = {
        "Name": f"{key.label} ({', then '.join(names)})",
        "License": "; ".join(licences),
        "Parts": [part.name for part in parts],
    }
    for kind in ("Authors", "ReferencesAndLinks"):
        entries: dict[str, None] = {}
        for description in told:
            own = description.get(kind, ())
            entries |= dict.fromkeys([own] if isinstance(own, str) else map(str, own))
        if entries:
            content[kind] = list(entries)
    entries = dict.fromkeys(str(d["BibTeX"]) for d in told if d.get("BibTeX"))
    if entries:
        content["BibTeX"] = "\n".join(entries)
    return content


def _tell_overlap(regions: RegionTable, share: NDArray[np.float64]) -> list[Finding]:
    """Say which regions earlier parts swallowed, and how many they cut."""
    gone = [regions.name[row] for row in np.flatnonzero(share == 1)]
    cut = np.flatnonzero((share > 0) & (share < 1))
    findings = []
    if gone:
        text = f"{len(gone)} regions lie wholly in earlier parts: {some(gone)}."
        fix = "They are n/a (overlapped); put their atlas first to keep them."
        findings.append(Finding("warning", "overlapped", text, fix))
    if cut.size:
        most = cut[np.argmax(share[cut])]
        text = (
            f"{cut.size} regions lost places to earlier parts, the most"
            f" {regions.name[most]} ({share[most]:.0%} of it)."
        )
        severity = "warning" if share[most] >= 0.5 else "note"
        fix = "See the column overlapped of the region table."
        findings.append(Finding(severity, "overlapped", text, fix))
    return findings


def read_seeds(path: Path, declared: str | None, radius: float | None) -> AtlasFiles:
    """Read a table of coordinates as an atlas of spheres."""
    check_file(path)
    space = space_of(path)
    if declared and space and declared.partition("+")[0] != space.partition("+")[0]:
        msg = f"its name says that it is in {space}, --atlas-space {declared}."
        remedy = "Leave --atlas-space out, or correct the name."
        raise UsageError(msg, where=path, remedy=remedy)
    space = declared or space
    if not space:
        msg = "nothing tells the space of the coordinates (tpl- or space- in its name)."
        remedy = "Give it with --atlas-space, for example MNI152NLin6Asym."
        raise UsageError(msg, where=path, remedy=remedy)
    columns = {name.lower(): cells for name, cells in read_table(path).items()}
    if not {"x", "y", "z"} <= columns.keys():
        msg = f"the table has the columns {', '.join(columns)}; x, y and z are needed."
        remedy = "Give each seed one row, with x, y and z in mm (RAS+) and name."
        raise AtlasError(msg, where=path, remedy=remedy)
    own = columns.get("radius", [""] * len(columns["x"]))
    given = ["" if radius is None else repr(radius)]
    radii = [given[0] if cell.lower() in _NO_RADIUS else cell for cell in own]
    if "" in radii:
        msg = f"seed {radii.index('') + 1} has no radius."
        remedy = "Give one for all with --seed-radius MM, or a column radius."
        raise UsageError(msg, where=path, remedy=remedy)
    numbers = [
        _read_numbers(columns[axis], axis, _FARTHEST, path) for axis in ("x", "y", "z")
    ]
    numbers.append(_read_numbers(radii, "radius", _LARGEST, path))
    if min(numbers[3], default=1.0) <= 0:
        msg = f"a radius is above 0 mm, not {min(numbers[3]):g}."
        raise AtlasError(msg, where=path, remedy="Correct the table.")
    spheres: Spheres = tuple(zip(*numbers, strict=True))
    return _make_files(path, space, columns, spheres)


def _read_numbers(
    cells: Sequence[str], column: str, largest: float, path: Path
) -> list[float]:
    found = []
    for row, cell in enumerate(cells, 1):
        try:
            value = to_number(cell)
        except ValueError:
            value = math.nan
        if not abs(value) <= largest:
            msg = f"{column} of seed {row} is '{cell}', not up to {largest:g} mm."
            remedy = "Give millimetres, not metres or voxel numbers."
            raise AtlasError(msg, where=path, remedy=remedy)
        found.append(value)
    return found


def _make_files(
    path: Path, space: str, columns: dict[str, list[str]], spheres: Spheres
) -> AtlasFiles:
    known = next((columns[name] for name in _NAMES if name in columns), None)
    names = known or [f"seed_{row}" for row in range(1, len(spheres) + 1)]
    kept = [c for c in columns if c not in _NAMES and c not in ("index", "radius")]
    extra = {column: tuple(columns[column]) for column in kept}
    extra["radius"] = tuple(f"{sphere[3]:g}" for sphere in spheres)
    index = tuple(range(1, len(spheres) + 1))
    raw = RawTable(index, tuple(names), tuple(extra.items()))
    regions, told = build_regions(raw)
    findings = [
        *told,
        *_check_spheres(regions.name, sides_of(names, raw.extra), spheres),
    ]
    wrong = next((f for f in findings if f.severity == "error"), None)
    if wrong is not None:
        raise AtlasError(wrong.text, where=path, remedy=wrong.fix)
    key = key_of_file(path)
    named = {"Name": key.label, "License": "n/a"}
    return AtlasFiles(
        *(key, space, path, path),
        description=named,
        findings=tuple(findings),
        union=regions,
        spheres=spheres,
    )


def _check_spheres(
    names: Sequence[str], sides: Sequence[str], spheres: Spheres
) -> list[Finding]:
    """Tell of seeds on the other side than their name says, and of equal ones."""
    findings = []
    sided = [row for row, side in enumerate(sides) if side and abs(spheres[row][0]) > 2]
    other = [row for row in sided if (spheres[row][0] < 0) != (sides[row] == "L")]
    if other:
        text = (
            f"{len(other)} of {len(sided)} seeds lie on the other side than they are"
            f" called: {some([names[row] for row in other])}."
        )
        fix = "x grows to the right (RAS+); tables in LPS have x and y of other signs."
        severity = "error" if 2 * len(other) > len(sided) else "warning"
        findings.append(Finding(severity, "sides", text, fix))
    first: dict[tuple[float, ...], int] = {}
    same = [
        f"{names[first[sphere]]} and {names[row]}"
        for row, sphere in enumerate(spheres)
        if first.setdefault(sphere, row) != row
    ]
    if same:
        text = f"some seeds are the same sphere: {some(same)}."
        fix = "Remove one of each; their signals are equal."
        findings.append(Finding("warning", "same seeds", text, fix))
    return findings
