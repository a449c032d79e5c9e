"""Atlases of surfaces and grayordinates: labels, their own table, areas of vertices.

One dlabel file holds both hemispheres and voxels. Annots and label.gii hold one
hemisphere each, and the labels of the two are often the same numbers: regions are
numbered anew then, left before right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import filecmp
import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.atlases.names import GIVE_BOTH, is_dense, side_in_name, space_of
from bids_roi.atlases.regions import (
    Finding,
    RawTable,
    is_background,
    sides_of,
    some,
    without_wall,
)
from bids_roi.atlases.templateflow import (
    download,
    download_home,
    list_skeleton,
    search_path,
)
from bids_roi.core.frame import CORTICES, Frame, Mesh, Part
from bids_roi.errors import (
    AtlasError,
    ImageError,
    MissingInput,
    SpaceMismatch,
    UsageError,
)
from bids_roi.files.listing import glob_folder, is_there, real_path
from bids_roi.files.names import parse_name
from bids_roi.files.tables import file_digest
from bids_roi.images.header import mesh_of, name_density, surface_template
from bids_roi.images.nifti import check_file
from bids_roi.images.surfaces import read_areas, read_hemisphere, read_surface_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_roi.atlases.regions import RegionTable
    from bids_roi.images.markup import LabelledPoints
    from bids_roi.options.table import Atlases


# Side and key of each region, in the order of the index from 1.
Numbering = tuple[tuple[str, int], ...]

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
_SIDES = {structure: side for side, structure in CORTICES.items()}
_GIVE = "Give the surfaces of this mesh: --surface L=FILE,R=FILE."


@dataclass(frozen=True, eq=False, slots=True)
class Surface:
    """Labels as the files have them; what they call background is 0."""

    frame: Frame  # where they lie
    sides: tuple[LabelledPoints, ...]  # the labels of each file: one, or left and right

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
    """Read an atlas of surfaces: a dlabel file, or the left and right hemisphere."""
    if is_dense(files[0]):
        template = surface_template(space)
        from bids_roi.images.cifti import read_dense_labels  # volumes need it not

        frame, points = read_dense_labels(files[0], template, map_name)
        return Surface(frame, (_without_background(points, files[0]),))
    if len(files) != 2:
        msg = "this is one hemisphere; the file of the other one is needed, too."
        raise AtlasError(msg, where=files[0], remedy=GIVE_BOTH)
    if _are_one(files):
        msg = f"one file is given for both hemispheres, or a copy ({files[1]})."
        raise AtlasError(msg, where=files[0], remedy=GIVE_BOTH)
    parts, sides = [], []
    for side, path in zip("LR", files, strict=True):
        _check_side(path, side)
        points = read_surface_labels(path, map_name)
        try:
            mesh = mesh_of(space, points.keys.size)
        except SpaceMismatch as error:
            raise AtlasError(error.problem, where=path, remedy=error.remedy) from error
        parts.append(Part(mesh, CORTICES[side]))
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
    if real_path(left) == real_path(right):
        return True
    with contextlib.suppress(OSError):  # whoever reads them says so
        return left.suffix == ".annot" and filecmp.cmp(left, right, shallow=False)
    return False


def _check_side(path: Path, side: str) -> None:
    """Refuse a file that says by name or content that it is the other hemisphere."""
    said = read_hemisphere(path)
    named = side_in_name(path)
    if said not in ("", CORTICES[side]) or named not in ("", side):
        what = said or f"of the {'left' if named == 'L' else 'right'} one by its name"
        msg = f"the file is given for {CORTICES[side]}, and is {what}."
        remedy = "The two hemispheres may be swapped: write L=LEFT,R=RIGHT."
        raise AtlasError(msg, where=path, remedy=remedy)


def _without_background(points: LabelledPoints, path: Path) -> LabelledPoints:
    """Make 0 of what the file's own table calls background, the wall or unknown."""
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
    """An error where a given table has the files' own names at other keys."""
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
    left, right = (on.get(name, set()) for name in CORTICES.values())
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


@dataclass(frozen=True, slots=True)
class Areas:
    """Files with the areas of the meshes of a run; a key."""

    # Of each hemisphere
    structures: tuple[str, ...]
    files: tuple[Path, ...]
    digest: str  # SHA-256 of the files' bytes together
    individual: bool  # whether they are the participant's own, and no other has them

    def read(self) -> dict[str, NDArray[np.float64]]:
        """Read them: mm2 of each vertex of each structure."""
        return {
            structure: _read_once(path, self.digest)[1]
            for structure, path in zip(self.structures, self.files, strict=True)
        }


@functools.lru_cache(maxsize=4)
def _read_once(
    path: Path,
    digest: str,  # noqa: ARG001 - part of the key: a changed file is read again
) -> tuple[str, NDArray[np.float64]]:
    return read_areas(path)


def find_areas(
    frame: Frame, surface: str, wanted: Atlases, *, root: Path, bold: Path
) -> Areas:
    """Find the areas of the meshes of a run, by what ``--surface`` says."""
    meshes = {
        p.structure: p.support for p in frame.parts if isinstance(p.support, Mesh)
    }
    given = dict(re.findall(r"([LR])=([^,]+)", surface))
    individual = not given and (
        surface == "participant"
        or any(mesh.template.startswith("fsnative") for mesh in meshes.values())
    )
    files = []
    for structure, mesh in meshes.items():
        side = _SIDES.get(structure)
        if side is None:
            msg = f"the run has vertices of {structure}, whose areas no file tells."
            raise MissingInput(msg, where=bold, remedy="Use --vertex-weights none.")
        if given:
            if side not in given:
                msg = f"--surface names no file of hemi-{side}, which the run has."
                raise UsageError(msg, remedy=_GIVE)
            files.append(Path(given[side]))
        elif individual:
            files.append(_find_own(root, bold, mesh, side))
        else:
            files.append(_find_templates(mesh, side, wanted))
    whole = hashlib.sha256()
    for path, (structure, mesh) in zip(files, meshes.items(), strict=True):
        check_file(path)
        digest = file_digest(path)
        whole.update(digest.encode())
        _check_areas(path, structure, mesh, *_read_once(path, digest))
    return Areas(tuple(meshes), tuple(files), whole.hexdigest(), individual)


def _check_areas(
    path: Path, structure: str, mesh: Mesh, says: str, areas: NDArray[np.float64]
) -> None:
    side = parse_name(path).get("hemi")
    named = next((s for s, letter in _SIDES.items() if letter == side), "")
    for found, where in (
        (says, "of itself (AnatomicalStructurePrimary)"),
        (named, "in its name"),
    ):
        if found not in ("", structure):
            msg = f"the surface says {where} that it is of {found}, not {structure}."
            remedy = "The hemispheres may be swapped: give each its own file."
            raise ImageError(msg, where=path, remedy=remedy)
    if areas.size != mesh.n_vertices:
        msg = (
            f"the surface has {areas.size:,} vertices, {structure} of the run"
            f" {mesh.n_vertices:,} ({mesh})."
        )
        raise ImageError(msg, where=path, remedy=_GIVE)


def _find_own(root: Path, bold: Path, mesh: Mesh, side: str) -> Path:
    """Midthickness in ``anat`` of the session or the participant, on the run's mesh."""
    space = None if mesh.template.startswith("fsnative") else mesh.template
    participant = root / f"sub-{parse_name(bold).get('sub')}"
    for folder in (bold.parent.parent / "anat", participant / "anat"):
        found = []
        for path in glob_folder(folder, f"*_hemi-{side}_*midthickness.surf.gii"):
            name = parse_name(path)
            density = name.get("den") in (None, name_density(mesh.n_vertices))
            if name.get("desc") is None and space_of(path) == space and density:
                found.append(path)
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            msg = f"{len(found)} midthickness surfaces are there ({names}), 1 is needed"
            raise ImageError(f"{msg}.", where=folder, remedy=_GIVE)
        if found:
            return found[0]
    words = "the participant's own mesh" if space is None else str(mesh)
    msg = f"the participant has no midthickness surface of hemi-{side} on {words}."
    raise MissingInput(msg, where=participant / "anat", remedy=_GIVE)


def _find_templates(mesh: Mesh, side: str, wanted: Atlases) -> Path:
    """Mean areas of people's vertices (vaavg) in TemplateFlow's layout.

    Not those of the template's own surface: a mean surface is smoother, and so smaller,
    than any person's.
    """
    density = name_density(mesh.n_vertices)
    home = f"tpl-{mesh.template}"
    name = f"{home}/{home}_hemi-{side}_den-{density}_desc-vaavg_midthickness.shape.gii"
    for folder in search_path(wanted.templateflow_home):
        if is_there(folder / name):
            return folder / name
    if name not in list_skeleton():
        msg = f"TemplateFlow has no areas of the vertices of {mesh}."
        raise MissingInput(msg, remedy=_GIVE)
    if wanted.offline:
        msg = f"the areas of {mesh} are not here, and --offline forbids to fetch them."
        raise MissingInput(msg, remedy=f"Fetch {name}, or: {_GIVE}")
    return download([name], download_home(wanted.templateflow_home))[0]
