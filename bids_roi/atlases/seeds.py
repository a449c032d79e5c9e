"""Tables of coordinates: what ``--seeds`` makes spheres around."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bids_roi.atlases.findings import Finding
from bids_roi.atlases.formats import RawTable
from bids_roi.atlases.names import key_of_file, space_of
from bids_roi.atlases.open import AtlasFiles
from bids_roi.atlases.regions import build_regions, sides_of, some
from bids_roi.errors import AtlasError, UsageError
from bids_roi.files.tables import read_table, to_number
from bids_roi.images.nifti import check_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bids_roi.atlases.open import Spheres


_NAMES = ("name", "label", "region", "roi")
_BLANK = ("", "n/a")
# Of any head, mm from the origin; metres and voxel numbers are told from it.
_FARTHEST = 300.0
_LARGEST = 50.0


def read_seeds(path: Path, declared: str | None, radius: float | None) -> AtlasFiles:
    """Read a table of coordinates as an atlas of spheres.

    ``declared`` is the space of a table whose name does not tell it; ``radius``, mm, is
    that of rows without one of their own.
    """
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
    radii = [given[0] if cell.lower() in _BLANK else cell for cell in own]
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
    return _describe(path, space, columns, spheres)


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


def _describe(
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
    findings = [*told, *_check(regions.name, sides_of(names, raw.extra), spheres)]
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


def _check(
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
