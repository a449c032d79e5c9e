"""Atlases of surfaces and grayordinates: labels, where they lie, and their own table.

One dlabel file holds both hemispheres and voxels. Annots and label.gii hold one
hemisphere each, and the labels of the two are often the same numbers: regions are
numbered anew then, left before right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import filecmp
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.atlases.findings import Finding
from bids_roi.atlases.formats import RawTable, is_background, without_wall
from bids_roi.atlases.regions import sides_of, some
from bids_roi.core.frame import Frame, Mesh, Part
from bids_roi.errors import AtlasError, SpaceMismatch, UsageError
from bids_roi.images.meshes import mesh_of, surface_template
from bids_roi.images.surface_labels import read_hemisphere, read_surface_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_roi.atlases.regions import RegionTable
    from bids_roi.images.label_table import LabelledPoints


# Side and key of each region, in the order of the index from 1.
Numbering = tuple[tuple[str, int], ...]

_DENSE = (".dlabel.nii", ".dlabel.nii.gz")
_HEMISPHERE = (".annot", ".gii", ".gii.gz")
_LABEL_ENDS = (".label.gii.gz", ".label.gii", *_HEMISPHERE)
_STRUCTURES = {"L": "CORTEX_LEFT", "R": "CORTEX_RIGHT"}
_LEFT = re.compile(r"(?:^|[._-])(?:lh|hemi-L)(?=[._-])")
_RIGHT = re.compile(r"(?:^|[._-])(?:rh|hemi-R)(?=[._-])")
_SIDE_WORDS = re.compile(
    r"^(?:ctx[._-])?(?:[lr]h?|left|right)[ ._-]|[ ._-](?:[lr]h?|left|right)$",
    re.IGNORECASE,
)
# Further words at key 0, where no name should be of a region.
_NO_REGION = re.compile(
    r"back.?ground|medial.?wall|m[._]?wall\b|unknown|undefined|un.?assigned"
    r"|no.?label|un.?label|\?\?|^0?$",
    re.IGNORECASE,
)
_GIVE_BOTH = "Write --atlas-file L=LEFT,R=RIGHT[,TABLE]."
_FITTING = "Choose an atlas of the same mesh, or the runs with --space and --den."


def is_surface(path: Path) -> bool:
    """Whether a file is of labels on surfaces or grayordinates, by its name."""
    return path.name.lower().endswith((*_DENSE, *_HEMISPHERE))


def is_dense(path: Path) -> bool:
    """Whether a file is of labels on grayordinates, by its name."""
    return path.name.lower().endswith(_DENSE)


def side_in_name(path: Path) -> str:
    """``L`` or ``R`` as a file's name tells it (lh, hemi-L), or blank."""
    found = [s for s, p in (("L", _LEFT), ("R", _RIGHT)) if p.search(path.name)]
    return found[0] if len(found) == 1 else ""


def without_side(path: Path) -> str:
    """Name of a hemisphere's file as it is of both, for the name of the atlas.

    >>> without_side(Path("lh.aparc.a2009s.annot"))
    'aparc_a2009s.annot'
    """
    name = path.name
    end = next(e for e in (*_LABEL_ENDS, "") if name.lower().endswith(e))
    stem = name[: len(name) - len(end)]
    for pattern in (_LEFT, _RIGHT):
        stem = pattern.sub("", stem + ".").removesuffix(".")
    return stem.strip("._-").replace(".", "_") + end


@dataclass(frozen=True, eq=False, slots=True)
class Surface:
    """Labels as the files have them; what they call background is 0.

    Attributes
    ----------
    frame
        Where they lie.
    sides
        The labels of each file: one, or left and right.
    """

    frame: Frame
    sides: tuple[LabelledPoints, ...]

    @property
    def shared(self) -> bool:
        """Whether a key means two regions, one on each side."""
        if len(self.sides) < 2:
            return False
        left, right = (set(np.unique(one.keys)) - {0} for one in self.sides)
        listed = ({label.key for label in one.table} for one in self.sides)
        return bool(left & right) or bool(set.intersection(*listed))

    @property
    def own_rows(self) -> tuple[tuple[str, int, str], ...]:
        """Side, key and name of the regions in the files' own tables."""
        names = "LR" if len(self.sides) > 1 else ("",)
        return tuple(
            (side, label.key, label.name)
            for side, one in zip(names, self.sides, strict=True)
            for label in one.table
        )

    def own_table(self) -> RawTable | None:
        """The files' own tables as one; ``None`` where they have none."""
        if not (rows := self.own_rows):
            return None
        names = [name for *_, name in rows]
        if len(set(names)) < len(names) and len(self.sides) > 1:
            names = [f"{side}H_{name}" for side, _, name in rows]
        sides = tuple(side for side, *_ in rows)
        extra = (("hemisphere", sides),) if len(self.sides) > 1 else ()
        return RawTable(tuple(key for _, key, _ in rows), tuple(names), extra)

    def number(self, numbering: Numbering) -> NDArray[np.int64]:
        """Labels of all points, (P,); those of a numbering where there is one."""
        if not numbering:
            return np.concatenate([one.keys for one in self.sides])
        numbers = []
        for side, one in zip("LR", self.sides, strict=True):
            known = {k: i for i, (s, k) in enumerate(numbering, 1) if s == side}
            keys, inverse = np.unique(one.keys, return_inverse=True)
            own = np.array([known.get(int(key), 0) for key in keys], np.int64)
            numbers.append(own[inverse])
        return np.concatenate(numbers)


def read_surface(
    files: tuple[Path, ...], space: str | None, map_name: str | None = None
) -> Surface:
    """Read an atlas of surfaces: a dlabel file, or the left and the right hemisphere.

    An ``AtlasError`` or ``SpaceMismatch`` where the files are not what they seem.
    """
    if is_dense(files[0]):
        template = surface_template(space)
        from bids_roi.images.cifti import read_dense_labels  # volumes need it not

        frame, points = read_dense_labels(files[0], template, map_name)
        return Surface(frame, (_without_background(points, files[0]),))
    if len(files) != 2:
        msg = "this is one hemisphere; the file of the other one is needed, too."
        raise AtlasError(msg, where=files[0], remedy=_GIVE_BOTH)
    if _are_one(files):
        msg = f"one file is given for both hemispheres, or a copy ({files[1]})."
        raise AtlasError(msg, where=files[0], remedy=_GIVE_BOTH)
    parts, sides = [], []
    for side, path in zip("LR", files, strict=True):
        _check_side(path, side)
        points = read_surface_labels(path, map_name)
        try:
            mesh = mesh_of(space, points.keys.size)
        except SpaceMismatch as error:
            raise AtlasError(error.problem, where=path, remedy=error.remedy) from error
        parts.append(Part(mesh, _STRUCTURES[side]))
        sides.append(_without_background(points, path))
    left, right = (part.support for part in parts)
    own = space is not None and space.startswith("fsnative")
    if left != right and not own:
        msg = f"the right hemisphere is on {right}, the left ({files[0]}) on {left}."
        raise AtlasError(msg, where=files[1], remedy="Give both at one density.")
    return Surface(Frame(tuple(parts)), tuple(sides))


def _are_one(files: tuple[Path, ...]) -> bool:
    """Whether two files are the same, or annots of the same bytes.

    A GIFTI file can say of which hemisphere it is, an annot cannot, and no two
    hemispheres have the same labels at every vertex.
    """
    left, right = files
    if left.resolve() == right.resolve():
        return True
    with contextlib.suppress(OSError):  # whoever reads them says so
        return left.suffix == ".annot" and filecmp.cmp(left, right, shallow=False)
    return False


def _check_side(path: Path, side: str) -> None:
    """Refuse a file that says by name or content that it is the other hemisphere."""
    said = read_hemisphere(path)
    named = side_in_name(path)
    if said not in ("", _STRUCTURES[side]) or named not in ("", side):
        what = said or f"of the {'left' if named == 'L' else 'right'} one by its name"
        msg = f"the file is given for {_STRUCTURES[side]}, and is {what}."
        remedy = "The two hemispheres may be swapped: write L=LEFT,R=RIGHT."
        raise AtlasError(msg, where=path, remedy=remedy)


def _without_background(points: LabelledPoints, path: Path) -> LabelledPoints:
    """Make 0 of what the file's own table calls background, the wall or unknown.

    An ``AtlasError`` where 0 is a region's key, and points have it.
    """
    if not points.keys.all():
        _refuse_zero([x.name for x in points.table if x.key == 0], path)
    dropped = [x.key for x in points.table if x.key == 0 or is_background(x.name)]
    keys = np.where(np.isin(points.keys, dropped), 0, points.keys)
    table = tuple(label for label in points.table if label.key not in dropped)
    return dataclasses.replace(points, keys=keys, table=table)


def _refuse_zero(names: Sequence[str], path: Path | None) -> None:
    """Refuse a region of index 0; words of no region there are many."""
    regions = [x for x in names if not is_background(x) and not _NO_REGION.search(x)]
    if regions:
        msg = f"index 0 is the background of labels, here it is {regions[0]!r}."
        remedy = (
            "Give the region another key (in an annot, another colour than black), or"
            " call it ??? if it is none."
        )
        raise AtlasError(msg, where=path, remedy=remedy)


def join_table(
    surface: Surface, raw: RawTable | None, path: Path | None
) -> tuple[RawTable | None, Numbering]:
    """Table of an atlas, and how its regions are numbered.

    ``raw`` is the table that was given, at ``path``; ``None`` takes the files' own.
    There is a numbering where the keys of the two hemispheres are the same.
    """
    table = surface.own_table() if raw is None else raw
    if table is None or not surface.shared:
        return None if table is None else without_wall(table), ()
    if raw is None:
        sides: Sequence[str] = [side for side, *_ in surface.own_rows]
    else:
        sides = sides_of(table.name, table.extra)
        rows = zip(table.index, table.name, strict=True)
        _refuse_zero([name for key, name in rows if key == 0], path)
    kept = [
        row
        for row, (key, name) in enumerate(zip(table.index, table.name, strict=True))
        if key != 0 and not is_background(name)
    ]
    unknown = [table.name[row] for row in kept if not sides[row]]
    if unknown:
        msg = (
            "both hemispheres have the same label values, and the table does not tell"
            f" the side of {some(unknown)}."
        )
        remedy = "Add a column hemi with L and R."
        raise AtlasError(msg, where=path, remedy=remedy)
    numbering = _find_by_name(
        surface, [(sides[n], table.index[n], table.name[n]) for n in kept]
    )
    if raw is not None:
        _refuse_absent_side(surface, numbering, path)
    names = [table.name[row] for row in kept]
    extra = [(c, tuple(cells[row] for row in kept)) for c, cells in table.extra]
    for side, one in zip("LR", surface.sides, strict=True):
        for key in np.unique(one.keys).tolist():
            if key and (side, key) not in numbering:
                numbering.append((side, key))
                names.append(f"{side}H_region_{key}")
                extra = [(column, (*cells, "")) for column, cells in extra]
    index = tuple(range(1, len(names) + 1))
    renumbered = RawTable(index, tuple(names), tuple(extra), table.findings)
    return renumbered, tuple(numbering)


def _refuse_absent_side(
    surface: Surface, numbering: list[tuple[str, int]], path: Path | None
) -> None:
    """Refuse a table that names no region of a side by the keys that it has."""
    for side, one in zip("LR", surface.sides, strict=True):
        found = [key for key in np.unique(one.keys).tolist() if key]
        rows = [key for of, key in numbering if of == side]
        if found and rows and not set(found) & set(rows):
            msg = (
                f"none of the {len(rows)} rows of side {side} (index {some(rows)}) is"
                f" in the image, which has {some(found)} there."
            )
            remedy = "Write the label values of each hemisphere's file as the index."
            raise AtlasError(msg, where=path, remedy=remedy)


def _find_by_name(
    surface: Surface, rows: Sequence[tuple[str, int, str]]
) -> list[tuple[str, int]]:
    """Side and key of each row, by name where the file has another key for it.

    FreeSurfer has given the temporal pole another colour in the course of time.
    """
    listed = {(side, key) for side, key, _ in rows}
    other = {
        (side, name): key
        for side, key, name in surface.own_rows
        if (side, key) not in listed
    }
    held = {(side, key) for side, key, _ in surface.own_rows}
    return [
        (side, key if (side, key) in held else other.get((side, name), key))
        for side, key, name in rows
    ]


def check_surface(
    surface: Surface,
    raw: RawTable | None,
    regions: RegionTable,
    labels: NDArray[np.int64],
) -> list[Finding]:
    """Compare a given table with the files' own, and names with hemispheres."""
    findings = [
        Finding("warning", "several maps", one.told)
        for one in surface.sides
        if one.told
    ]
    if raw is not None:
        findings += _compare_names(surface, raw)
    # The files' own table has the side that they were given for.
    extra = () if raw is None else regions.extra
    sides = sides_of(regions.original_name, extra)
    named = dict(zip(regions.index, sides, strict=True))
    return findings + _check_hemispheres(surface.frame, named, labels)


def _compare_names(surface: Surface, raw: RawTable) -> list[Finding]:
    """An error where a given table has the files' own names at other keys.

    Names are compared with their side, which the table, the name or the file tells.
    """
    rows = surface.own_rows
    # A key is of one file where the two share none; a side is needed only elsewhere.
    side_of = {} if surface.shared else {key: side for side, key, _ in rows}
    told = sides_of([name for *_, name in rows])
    own = {
        (side, key): (side or by_name, _without_side_words(name))
        for (side, key, name), by_name in zip(rows, told, strict=True)
    }
    sides = sides_of(raw.name, raw.extra)
    texts, given = {}, {}
    for key, name, side in zip(raw.index, raw.name, sides, strict=True):
        place = (side_of.get(key, side), key)
        if place in own:
            texts[place] = name
            given[place] = (side or own[place][0], _without_side_words(name))
    wrong = [place for place in given if given[place] != own[place]]
    held = set(own.values())
    others = [place for place in wrong if given[place] in held]
    if not others or 2 * len(others) < len(wrong):
        return []
    said = {(side, key): name for side, key, name in rows}
    examples = [f"{p[1]}: {texts[p]}, not {said[p]}" for p in others[:3]]
    text = (
        f"{len(others)} names are those of other regions in the file's own table"
        f" ({some(examples)})."
    )
    fix = "Give the table that belongs to this image, or none."
    return [Finding("error", "order of names", text, fix)]


def _without_side_words(name: str) -> str:
    """A region's name without its hemisphere, to compare names of two tables."""
    return _SIDE_WORDS.sub("", name).casefold()


def _check_hemispheres(
    frame: Frame, sides: dict[int, str], labels: NDArray[np.int64]
) -> list[Finding]:
    """An error where most names with a side are on the other hemisphere's surface."""
    on: dict[str, set[int]] = {
        part.structure: set(np.unique(labels[start : start + part.n_points]).tolist())
        for start, part in zip(frame.starts, frame.parts, strict=True)
    }
    left, right = (on.get(name, set()) for name in _STRUCTURES.values())
    told = [(k, s) for k, s in sides.items() if s and (k in left) != (k in right)]
    wrong = [k for k, side in told if (k in left) != (side == "L")]
    if not wrong or 2 * len(wrong) <= len(told):
        return []
    text = (
        f"{len(wrong)} of {len(told)} regions that are left or right by name lie on"
        " the other hemisphere: the two are swapped, or the table is another's."
    )
    fix = "Give the files as L=LEFT,R=RIGHT, and the table that belongs to them."
    return [Finding("error", "hemispheres", text, fix)]


def check_fit(name: str, atlas: Frame, where: Frame) -> None:
    """Refuse a run that lies on other meshes than an atlas, naming both.

    A ``SpaceMismatch``, as where a volume is in another space.
    """
    theirs = {p.structure: p for p in where.parts if isinstance(p.support, Mesh)}
    mine = [p for p in atlas.parts if isinstance(p.support, Mesh)]
    for part in mine:
        other = theirs.get(part.structure)
        if other is not None and other.support != part.support:
            msg = (
                f"atlas {name} has {part.structure} on {part.support}, the run on"
                f" {other.support}."
            )
            raise SpaceMismatch(msg, remedy=_FITTING)
    if not any(part.structure in theirs for part in mine):
        msg = f"atlas {name} ({atlas}) and the run ({where}) share no structure."
        raise SpaceMismatch(msg, remedy=_FITTING)


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
    pattern = _LEFT if side == "L" else _RIGHT
    other = pattern.sub(
        lambda m: re.sub("|".join(swaps), lambda n: swaps[n[0]], m[0]), path.name
    )
    partner = path.with_name(other)
    if not side or not partner.exists():
        msg = "this is one hemisphere, and the file of the other one is needed, too"
        msg += f" ({partner.name} is not there)." if side else "."
        raise AtlasError(msg, where=path, remedy=_GIVE_BOTH)
    return (path, partner) if side == "L" else (partner, path)


def space_of_meshes(files: tuple[Path, ...]) -> str:
    """Template that the files themselves tell by their numbers of vertices."""
    parts = read_surface(files, None).frame.parts
    return next(p.support.template for p in parts if isinstance(p.support, Mesh))
