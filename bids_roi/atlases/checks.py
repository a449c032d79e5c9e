"""Whether an atlas is what it seems: table against image, names against anatomy.

The Schaefer atlas has two orders, of 7 and of 17 networks, which number the same
parcels, so that the table of one fits the image of the other in everything but the
names. What a name says of the place gives that away: measured on 100, 200 and 400
parcels, 0 to 5 % of the named places are wrong with the right table, 19 to 40 % with
the other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.atlases.names import space_of
from bids_roi.atlases.regions import Finding, sides_of, some
from bids_roi.errors import BidsRoiError, UsageError
from bids_roi.files.tables import to_number
from bids_roi.images.header import MAPS
from bids_roi.images.nifti import count_bad_weights, open_image
from bids_roi.options.table import Atlases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_roi.atlases.open import AtlasFiles
    from bids_roi.atlases.regions import RegionTable
    from bids_roi.core.grid import Grid


# Word in the name, axis, and the side of a plane (mm) on which the centre cannot be:
# prefrontal cortex lies before, visual and extrastriate cortex behind, orbitofrontal
# cortex below it.
_PLANES = (
    ("PFC", 1, -1, -15.0),
    ("ExStr", 1, 1, -35.0),
    ("Vis", 1, 1, -30.0),
    ("OFC", 2, 1, 15.0),
)
# Names of the Schaefer atlas and its networks, in its two orders.
_SCHAEFER = re.compile(r"(?:(?:17|7)Networks_)?[LR]H_([A-Za-z]+)_\w*\d")
_SEVEN_NETWORKS = frozenset(
    {"Vis", "SomMot", "DorsAttn", "SalVentAttn", "Limbic", "Cont", "Default"}
)
_SEVENTEEN_NETWORKS = frozenset(
    {"VisCent", "VisPeri", "TempPar", "Limbic"}
    | {f"{name}{x}" for name in _SEVEN_NETWORKS - {"Vis"} for x in "ABC"}
)
_TOLERATED = 0.12
_LEAST = 10
# How files of the Schaefer atlas tell their order of regions: there are two.
_NETWORKS = re.compile(r"(?<!\d)(17|7)Networks|(?<=\dx)(17|7)(?!\d)", re.IGNORECASE)
_FEW = 2**20
_MANY, _SKIPPED, _EXACT = 8, 3, 1e-6
_LIMITS = (127, 255, 32767, 65535)  # the most that 8 and 16 bits hold
_OTHER = "Give the table that belongs to this image."
# How columns of label values are called, without blanks, hyphens and underscores.
_VALUES = re.compile(
    r"(label|roi|region|parcel|voxel|image|atlas|key|gr[ae]y)?"
    r"(index|id|value|key|label|roi|intensity|code)",
    re.IGNORECASE,
)
# From what stops the work to what is good to know.
_SEVERITIES = ("error", "warning", "corrected", "note")
_BLANK = ("", "n/a", "nan", "na")
_UNSAID = "?"  # the space of an image that nothing tells


def check_places(
    table: RegionTable, labels: NDArray[np.int64], grid: Grid
) -> list[Finding]:
    """Compare names of the Schaefer atlas with the positions of the regions."""
    if not any(map(_schaefer_network, table.original_name)):
        return []
    centres = _centres(labels, table.values, grid)
    wrong, n_named, example = 0, 0, ""
    for row, name in enumerate(table.original_name):
        if not _schaefer_network(name):
            continue
        for word, axis, sign, plane in _PLANES:
            if word in name and np.isfinite(centres[row, axis]):
                n_named += 1
                if sign * (centres[row, axis] - plane) > 0:
                    wrong += 1
                    place = ", ".join(f"{v:.0f}" for v in centres[row])
                    example = example or f"{name} is at ({place}) mm"
    if n_named < _LEAST or wrong <= _TOLERATED * n_named:
        return []
    text = (
        f"{wrong} of {n_named} names contradict the place of their region ({example}):"
        " the table is in the order of another number of networks."
    )
    return [Finding("error", "order of networks", text, _OTHER)]


def _schaefer_network(name: str) -> str:
    """Network in a name of the Schaefer atlas; blank in those of other atlases.

    >>> [_schaefer_network(name) for name in ("17Networks_LH_ContA_1", "LH_Caudate_1")]
    ['ContA', '']
    """
    match = _SCHAEFER.fullmatch(name)
    known = _SEVEN_NETWORKS | _SEVENTEEN_NETWORKS
    return match[1] if match is not None and match[1] in known else ""


def _centres(
    labels: NDArray[np.int64], index: NDArray[np.int64], grid: Grid
) -> NDArray[np.float64]:
    """Centre of each region, (R, 3) in mm; NaN for those the image does not hold."""
    at = np.flatnonzero(labels)
    values, inverse = np.unique(labels.ravel()[at], return_inverse=True)
    ijk = np.array(np.unravel_index(at, labels.shape), dtype=np.float64)
    xyz = grid.matrix[:3, :3] @ ijk + grid.matrix[:3, 3:]
    sizes = np.bincount(inverse)
    means = np.stack([np.bincount(inverse, x) / sizes for x in xyz], axis=1)
    centres = np.full((index.size, 3), np.nan)
    position = np.minimum(np.searchsorted(values, index), values.size - 1)
    held = values[position] == index
    centres[held] = means[position[held]]
    return centres


def check_values(table: RegionTable, present: Sequence[int]) -> list[Finding]:
    """Compare the index of a table with the values of its image, both ways.

    ``present`` holds those other than 0, ascending. At most one error: the image is
    empty or rescaled, the table is off by one, another image's, or another edition's.
    """
    known, found = set(table.index), set(present)
    if not found:
        text = "the image holds no label, only 0."
        return [Finding("error", "empty image", text, "Check the image.")]
    wrong = (
        _find_scale(table, found)
        or _find_shift(table, found)
        or _find_stranger(table, found)
    )
    if wrong is not None:
        return [wrong]
    findings = []
    absent = [value for value in table.index if value not in found]
    if absent:
        text = (
            f"{len(absent)} regions of the table are not in the image (index"
            f" {some(sorted(absent))}): their columns are n/a."
        )
        findings.append(Finding("warning", "absent regions", text))
    unnamed = sorted(found - known)
    if unnamed:
        text = (
            f"{len(unnamed)} label values of the image are not in the table"
            f" ({some(unnamed)}): they come last, named by their value."
        )
        findings.append(Finding("warning", "unnamed values", text))
    return findings


def _find_scale(table: RegionTable, found: set[int]) -> Finding | None:
    """Tell of values that are those of the table times something, and rounded.

    So leave programs that stretch what they are given to 0..255.
    """
    known = np.array(sorted(set(table.index) - {0}), dtype=np.float64)
    values = np.array(sorted(found), dtype=np.float64)
    if known.size != values.size or known.size < 2 or known[0] < 0:
        return None
    factor = values[-1] / known[-1]
    cut = known * factor - values
    exact = np.abs(cut).max() < _EXACT
    # Few values may look so by chance.
    many = known.size >= _MANY and values[-1] - known[-1] >= _SKIPPED
    nearest = np.abs(cut).max() < 0.5 + _EXACT
    below = cut.min() > -_EXACT and cut.max() < 1
    if factor == 1 or not (exact or (many and (nearest or below))):
        return None
    text = (
        f"the values of the image ({some(sorted(found))}) are those of the table"
        f" {factor:.4g} times as large: the image was rescaled, and names would go to"
        " other regions."
    )
    fix = "Take the image as it was before; rounding may have moved or merged labels."
    return Finding("error", "rescaled", text, fix)


def _find_shift(table: RegionTable, found: set[int]) -> Finding | None:
    """Tell of a table that fits better when moved by one.

    Only better counts: with values 1..N in both, a shift loses one.
    """
    known = set(table.index)
    hits = len(known & found)
    for step, verb, word in ((1, "larger", "Add 1 to"), (-1, "smaller", "Take 1 from")):
        shifted = len({value + step for value in known} & found)
        if shifted > hits:
            origin = ": the table counts from 0." if step == 1 and 0 in known else "."
            text = (
                f"{hits} of its {len(known)} index values occur in the image, {shifted}"
                f" would if each were 1 {verb}{origin}"
            )
            fix = f"{word} the index column."
            return Finding("error", "off by one", text, fix)
    if 0 in known:
        name = table.original_name[table.index.index(0)]
        text = f"index 0 is the background of a label image, here it is '{name}'."
        fix = (
            "Remove the row if it is no region; if the table counts from 0 and the"
            " image from 1, add 1 to its index."
        )
        return Finding("error", "index 0", text, fix)
    return None


def _find_stranger(table: RegionTable, found: set[int]) -> Finding | None:
    """Tell of a table that is another image's."""
    known = set(table.index)
    hits = len(known & found)
    if 2 * hits < len(found):
        text = (
            f"only {hits} of the {len(found)} label values of the image"
            f" ({some(sorted(found))}) are in the table ({some(sorted(known))})."
        )
        return Finding("error", "another table", text, _OTHER)
    n_rows, n_values = len(known), len(found)
    # An edition with regions put in between has names that no longer fit from there
    # on, and shows only in the number of rows. Lost regions leave gaps.
    if (
        known == set(range(1, n_rows + 1))
        and found == set(range(1, n_values + 1))
        and n_rows > n_values
    ):
        text = (
            f"the table numbers {n_rows} regions without a gap, the image {n_values}:"
            " it looks like another edition of the atlas, with names that do not fit."
        )
        rows = some(list(range(n_values + 1, n_rows + 1)))
        fix = f"{_OTHER} If it is this one, remove the rows of index {rows}."
        if n_values in _LIMITS:
            text += f" Or its labels above {n_values} were lost: no more fit its type."
            fix = f"{_OTHER} Or take the image as it was before, of a larger type."
        return Finding("error", "another edition", text, fix)
    return None


def check_maps(table: RegionTable, n_maps: int) -> list[Finding]:
    """Compare a table with the number of maps of a 4D image."""
    known = set(table.index)
    if len(known) != n_maps:
        text = f"the image holds {n_maps} maps, the table {len(known)} regions."
        return [Finding("error", "number of maps", text, _OTHER)]
    if known == set(range(n_maps)):
        text = "the table counts the maps from 0; they are numbered from 1 here."
        return [Finding("corrected", "index of maps", text)]
    if known != set(range(1, n_maps + 1)):
        text = (
            f"the index ({some(sorted(known))}) does not number the maps 1..{n_maps}."
        )
        fix = "Let index be the number of the map."
        return [Finding("error", "index of maps", text, fix)]
    return []


def check_sides(
    table: RegionTable, labels: NDArray[np.int64], grid: Grid, *, centred: bool
) -> list[Finding]:
    """Compare left and right in the names with where the regions are.

    ``centred``: x = 0 lies between the hemispheres, as in templates; in a participant's
    own space the middle is taken half way between the two sides.
    """
    sides = dict(
        zip(table.index, sides_of(table.original_name, table.extra), strict=True)
    )
    if not {"L", "R"} <= set(sides.values()):
        return []
    x = _mean_x(labels, grid)
    left = [x[v] for v, side in sides.items() if side == "L" and v in x]
    right = [x[v] for v, side in sides.items() if side == "R" and v in x]
    if not left or not right:
        return []
    midline = 0.0 if centred else (np.mean(left) + np.mean(right)) / 2
    # A region at the midline may lean over it by a voxel.
    margin = max(2.0, max(grid.zooms))
    wrong = [
        value
        for value, side in sides.items()
        if value in x
        and (
            (side == "L" and x[value] > midline + margin)
            or (side == "R" and x[value] < midline - margin)
        )
    ]
    n_sided = len(left) + len(right)
    if not wrong:
        text = f"left and right agree with the position of all {n_sided} named regions."
        return [Finding("note", "sides", text)]
    names = dict(zip(table.index, table.name, strict=True))
    example = wrong[0]
    text = (
        f"{len(wrong)} of {n_sided} regions lie on the other side than the table says"
        f" ({names[example]}: {sides[example]}, but mean x {x[example]:+.1f} mm; left"
        " is negative)."
    )
    if 2 * len(wrong) > n_sided:
        fix = "The image is flipped, or the table is another atlas's: use neither."
        return [Finding("error", "sides", text, fix)]
    fix = "Check their rows: " + some([names[v] for v in wrong]) + "."
    return [Finding("warning", "sides", text, fix)]


def _mean_x(labels: NDArray[np.int64], grid: Grid) -> dict[int, float]:
    """Mean x in mm of each value."""
    at = np.flatnonzero(labels)
    own = labels.ravel()[at]
    values = values_of(own)
    inverse = np.searchsorted(np.array(values, dtype=np.int64), own)
    steps = grid.matrix[0]
    position = np.full(at.size, steps[3])
    for axis, indices in enumerate(np.unravel_index(at, labels.shape)):
        position += steps[axis] * indices
    mean = np.bincount(inverse, weights=position) / np.bincount(inverse)
    return {value: float(mean[number]) for number, value in enumerate(values)}


def values_of(labels: NDArray[np.int64]) -> list[int]:
    """Distinct values of a label image other than 0, ascending."""
    inside = labels[labels != 0]
    if inside.size and inside.min() > 0 and inside.max() < _FEW:
        # Counting is far faster than sorting.
        found: list[int] = np.flatnonzero(np.bincount(inside)).tolist()
    else:
        found = np.unique(inside).tolist()
    return found


def check_file_name(table: RegionTable, name: str, *, n_maps: int) -> list[Finding]:
    """Compare what a file's name says with its content; no maps are labels."""
    findings = []
    if n_maps and "_dseg." in name:
        text = (
            f"the file is called dseg and holds {n_maps} maps: they are used as such."
        )
        findings.append(Finding("note", "suffix", text))
    if not n_maps and "_probseg." in name:
        text = "the file is called probseg and holds labels: used as such."
        findings.append(Finding("note", "suffix", text))
    (order, example), said = _order_of(table.original_name), _NETWORKS.search(name)
    if said is not None and order and order != (said[1] or said[2]):
        text = (
            f"the names are in the order of {order} networks ({example}), the image is"
            f" called {said[0]}: names would go to other regions than theirs."
        )
        findings.append(Finding("error", "order of networks", text, _OTHER))
    return findings


def _order_of(names: Sequence[str]) -> tuple[str, str]:
    """Order of the Schaefer atlas that names belong to, and one that tells it."""
    examples: dict[str, str] = {}
    for name in names:
        network = _schaefer_network(name)
        for order, own in (("7", _SEVEN_NETWORKS), ("17", _SEVENTEEN_NETWORKS)):
            if network in own and network not in _SEVEN_NETWORKS & _SEVENTEEN_NETWORKS:
                examples.setdefault(order, name)
    return next(iter(examples.items())) if len(examples) == 1 else ("", "")


def check_columns(
    table: RegionTable, index_column: str, values: Sequence[int]
) -> list[Finding]:
    """Compare the index with the other whole-number columns of its table.

    At most one finding: an error where another column fits the image better than the
    index, or holds the same numbers in another order under a name for label values; a
    warning where it does so under any other name. ``values`` are the image's other than
    0, or the numbers of its maps; the table is without its background.
    """
    found, rows = set(values), list(table.index)
    if set(rows) == set(range(len(values))) == {value - 1 for value in values}:
        rows = [row + 1 for row in rows]  # maps may be counted from 0
    for column, cells in table.extra:
        numbers = _whole_numbers(cells)
        held = [number for number in numbers if number is not None]
        # Whether it gives every value of the image the row that the index does.
        agrees = all(
            number == row
            for number, row in zip(numbers, rows, strict=False)
            if number is not None and number in found
        )
        if len(set(held)) < len(held) or agrees:
            continue
        if 2 * len(found & set(held)) >= len(found) and (
            _fit(held, found) > _fit(rows, found)
        ):
            text = (
                f"the values of the image ({some(sorted(found))}) are those of the"
                f" column '{column}' ({len(found & set(held))} of {len(found)} are in"
                f" it) and not of '{index_column}' ({len(found & set(rows))}): names"
                " would go to other regions."
            )
            fix = _remedy(column, index_column)
            return [Finding("error", "index column", text, fix)]
        if set(held) == set(rows) and rows == sorted(rows) != held:
            return [_other_order(column, index_column)]
    return []


def _whole_numbers(cells: Sequence[str]) -> list[int | None]:
    """Numbers of a column, ``None`` for blank cells; empty where one is no number."""
    numbers: list[int | None] = []
    for cell in cells:
        if cell.strip().lower() in _BLANK:
            numbers.append(None)
            continue
        try:
            value = to_number(cell)
            whole = int(value)
        except (ValueError, OverflowError):
            return []
        if whole != value:
            return []
        numbers.append(whole)
    return numbers


def _fit(numbers: Sequence[int], found: set[int]) -> float:
    """Values in both over values in either, 0 to 1 (Jaccard 1901); 1 is exact."""
    known = set(numbers)
    return len(known & found) / len(known | found)


def _other_order(column: str, index_column: str) -> Finding:
    plain = re.sub(r"[\s_-]", "", column)
    if _VALUES.fullmatch(plain):
        text = (
            f"the columns '{index_column}' and '{column}' hold the same numbers in"
            " different orders, and either may be the label values of the image."
        )
        return Finding("error", "index column", text, _remedy(column, index_column))
    text = (
        f"the column '{column}' holds the numbers of '{index_column}' in another order;"
        f" '{index_column}' is taken for the label values of the image."
    )
    return Finding("warning", "index column", text, _remedy(column, index_column))


def _remedy(column: str, index_column: str) -> str:
    return (
        f"If '{column}' holds the label values, name it index and rename or remove"
        f" '{index_column}'; else remove '{column}'."
    )


def check_atlas(
    text: str, *, space: str | None, home: Path | None, full: bool
) -> tuple[list[str], bool]:
    """Check an atlas without data: the table of findings, and whether it is good."""
    from bids_roi.atlases.open import examine_atlas

    try:
        sets = _open_what(text, space, home)
    except BidsRoiError as error:
        # A name that is wrong, or not fetched yet, is no file that is damaged.
        why = "not here" if isinstance(error, UsageError) else "cannot be read"
        return _format_findings(text, None, [_describe_failure(error, why)]), False
    lines, good = [], True
    for files in sets:
        try:
            atlas, told = examine_atlas(files)
            findings = list(told)
            if atlas is not None and not atlas.hard:
                findings += _read_maps(files.image, full=full)
        except BidsRoiError as error:
            atlas, findings = None, [_describe_failure(error, "cannot be read")]
        good &= not any(f.severity == "error" for f in findings)
        title = "  ".join(map(str, filter(None, (*files.files, files.table))))
        summary = None
        if atlas is not None:
            what = "labels" if atlas.hard else "maps"
            summary = f"{atlas.name}: {len(atlas.regions.index)} regions, {what}"
            summary += f", space {atlas.space}" if atlas.space != _UNSAID else ""
        lines += _format_findings(title, summary, findings)
    return lines, good


def _describe_failure(error: BidsRoiError, check: str) -> Finding:
    text = f"{error.where}: {error.problem}" if error.where else error.problem
    return Finding("error", check, text, error.remedy)


def _open_what(text: str, space: str | None, home: Path | None) -> list[AtlasFiles]:
    from bids_roi.atlases.asked import parse_file, split_map, split_sides
    from bids_roi.atlases.shelf import find_key, make_catalogue

    surfaces, _ = split_sides(split_map(text)[0])
    if surfaces:  # whose meshes may tell the space
        return [parse_file(text, space)]
    image = Path(text.partition(",")[0])
    if image.exists() or "," in text or image.suffix in (".nii", ".gz"):
        return [parse_file(text, space or space_of(image) or _UNSAID)]
    wanted = Atlases(templateflow_home=home, offline=True)
    catalogue = make_catalogue(wanted, [])
    key = find_key(text, catalogue)
    found = [f for f in catalogue.find_present(key) if space in (None, f.space)]
    if not found:
        msg = f"no folder holds atlas {key.name}{f' in {space}' if space else ''}."
        remedy = f"Fetch it: bids_roi_tools fetch {key.name}."
        raise UsageError(msg, remedy=remedy)
    return found


def _read_maps(path: Path, *, full: bool) -> list[Finding]:
    """Read all maps of a 4D image, a few at a time: what stops a run, or more."""
    image = open_image(path, MAPS)
    empty, negative = [], 0
    broken: dict[int, int] = {}
    for stored in image.source.blocks():
        start = stored.volumes.start
        with np.errstate(over="ignore", invalid="ignore"):
            block = stored.values.astype(np.float64) * image.slope + image.intercept
        for number, values in enumerate(block, start + 1):
            if n_bad := count_bad_weights(values):
                broken[number] = n_bad
        negative += int((block < 0).any(axis=1).sum())
        none = ~(block != 0).any(axis=1)
        empty += [start + int(row) + 1 for row in np.flatnonzero(none)]
    findings = []
    if full and empty:
        text = f"{len(empty)} maps are 0 everywhere: {empty[:6]}."
        fix = "Take another copy, or another variant of the atlas."
        findings.append(Finding("error", "empty maps", text, fix))
    if broken:
        where = some([f"{n} in map {number}" for number, n in broken.items()])
        text = (
            f"{len(broken)} maps hold values that are no weights (not a number,"
            f" infinite, or too large): {where}."
        )
        fix = "Set them to 0 if they are background, or take another copy."
        findings.append(Finding("error", "no weights", text, fix))
    if full and negative:
        text = f"{negative} maps hold negative values (as those of an ICA do)."
        findings.append(Finding("note", "negative", text))
    return findings or [Finding("note", "maps", "all maps hold weights.")]


def _format_findings(
    title: str, summary: str | None, findings: Sequence[Finding]
) -> list[str]:
    lines = [title]
    for finding in sorted(findings, key=lambda f: _SEVERITIES.index(f.severity)):
        head = f"  {finding.severity:9}  {finding.check:17}"
        lines.append(f"{head}  {finding.text}")
        if finding.fix:
            lines.append(f"{' ' * len(head)}  -> {finding.fix}")
    counts = {s: sum(f.severity == s for f in findings) for s in _SEVERITIES}
    verdict = "cannot be used" if counts["error"] else "good"
    if not counts["error"] and counts["warning"]:
        verdict = "can be used, see the warnings"
    lines.append(f"  => {verdict}" + (f" ({summary})" if summary else ""))
    return lines
