"""What ``bids_roi_tools`` does with atlases: list them, fetch them, check one."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi.atlases.formats import (
    SEVERITIES,
    Finding,
    parse_table,
    without_wall,
    worst_first,
)
from bids_roi.atlases.names import (
    cite_briefly,
    nearest_atlases,
    own_table,
    parse_atlas_name,
    short_names,
)
from bids_roi.atlases.templateflow import (
    HeldImage,
    choose_table,
    download_home,
    list_folder,
    list_skeleton,
    read_skeleton,
    scan_names,
    search_path,
    template_grids,
)
from bids_roi.errors import BidsRoiError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bids_roi.atlases.open import AtlasFiles


_KINDS = {"dseg": "labels", "probseg": "maps", "surface": "surface", "dlabel": "dlabel"}


def list_atlases(space: str | None, home: Path | None) -> Iterator[str]:
    """List all atlases of TemplateFlow, and of the homes, as lines of text."""
    present: set[str] = set()
    names = set(list_skeleton())
    for folder in search_path(home):
        files = list_folder(folder) if folder.is_dir() else {}
        present |= {name for name, size in files.items() if size}
        names |= set(files)
    held = [h for h in scan_names(sorted(names)) if space in (None, h.space)]
    if not held:
        spaces = sorted({h.space for h in scan_names(sorted(names))})
        msg = f"TemplateFlow holds no atlas in {space}."
        raise UsageError(msg, remedy=f"There are some in {', '.join(spaces)}.")
    width = max(len(h.key.name) for h in held)
    for template, group in groupby(held, key=lambda h: h.space):
        yield template
        variants = groupby(group, key=lambda h: (h.key, h.kind, h.is_usable))
        for (key, kind, usable), images in variants:
            named = kind if usable else "flat"
            yield _describe(key.name.ljust(width), named, list(images), present)
        yield ""
    yield (
        "Choose one with --atlas NAME, or the short name behind the number of regions;"
        " what lies as a run does is taken. Flat: a map to"
        " draw on, from which nothing is extracted."
    )


def _describe(
    name: str, kind: str, images: Sequence[HeldImage], present: set[str]
) -> str:
    grids = template_grids().get(images[0].space, {})
    sizes = []
    for image in images:
        grid = grids.get(image.res)
        zoom = f"{grid.zooms[0]:g} mm" if grid else ""
        label = f"res-{image.res}" if image.res else ""
        label = f"den-{image.den}" if image.den else label
        size = f"{label} ({zoom})" if label and zoom else label or zoom
        here = set(image.paths) <= present
        sizes.append(size + (" [cached]" if here else ""))
    regions = _count_regions(images[0])
    where = ", ".join(dict.fromkeys(filter(None, map(str.strip, sizes))))
    cite = cite_briefly(images[0].key.label)
    kind = _KINDS.get(kind, kind)
    short = ", ".join(short_names(images[0].key))
    return f"  {name}  {kind:7}  {regions:>5}  {short:20}  {where:40}  {cite}".rstrip()


def _count_regions(image: HeldImage) -> str:
    """Regions of an atlas from the table in TemplateFlow's package."""
    own = own_table(image.key.label)
    if own is not None:
        return str(own.read_text("utf-8").count("\n") - 1)
    table = choose_table(image.path, list_skeleton())
    if table is None:
        return "?"
    try:
        raw = parse_table(read_skeleton(table).decode("utf-8-sig"), Path(table))
    except BidsRoiError:
        return "?"
    raw = raw if image.is_volume else without_wall(raw)
    return str(sum(index != 0 for index in raw.index))


def fetch_atlases(
    names: Sequence[str],
    *,
    spaces: Sequence[str],
    res: Sequence[str],
    dest: Path | None,
) -> Iterator[str]:
    """Fetch atlases into a folder, for jobs without a network; a line per file.

    No ``spaces`` or ``res``: all that the atlas is in; no ``dest``: where jobs download
    to.
    """
    from bids_roi.atlases.templateflow import download

    wanted = [name for text in names for name in _files_of(text, spaces, res)]
    home = download_home(dest)
    for name in dict.fromkeys(wanted):
        path = home / name
        state = "present"
        if not _is_good(path):
            download([name], home)
            state = "fetched"
        yield f"{state}  {path.stat().st_size:>9}  {path}"
    yield f"Give it to jobs with --templateflow-home {home}"


def _files_of(text: str, spaces: Sequence[str], res: Sequence[str]) -> list[str]:
    key = parse_atlas_name(text)
    held = [h for h in scan_names(list_skeleton()) if h.is_usable]
    same = [h for h in held if h.key.name.casefold() == key.name.casefold()]
    if not same:
        near = nearest_atlases(text, dict.fromkeys(h.key for h in held))
        msg = f"TemplateFlow holds no atlas '{text}'."
        hint = f"Nearest: {', '.join(near)}. " if near else ""
        remedy = f"{hint}`bids_roi_tools atlases` lists all."
        raise UsageError(msg, remedy=remedy)
    padded = {label.lstrip("0") for label in res}
    chosen = [
        h
        for h in same
        if (not spaces or h.space in spaces or h.space.partition("+")[0] in spaces)
        and (not padded or h.res.lstrip("0") in padded or h.den in padded)
    ]
    if not chosen:
        there = ", ".join(f"{h.space} {_size_of(h)}" for h in same)
        msg = f"atlas {key.name} is not there in this space and resolution."
        raise UsageError(msg, remedy=f"It is in {there}.")
    files = []
    for image in chosen:
        table = choose_table(image.path, list_skeleton())
        files += [*image.paths, *([table] if table else [])]
    return files


def _size_of(image: HeldImage) -> str:
    return f"den-{image.den}" if image.den else f"res-{image.res or 'none'}"


def _is_good(path: Path) -> bool:
    from bids_roi.atlases.templateflow import check_complete

    try:
        check_complete(path)
    except (BidsRoiError, OSError):
        return False
    return True


def check_atlas(
    text: str, *, space: str | None, home: Path | None, full: bool
) -> tuple[list[str], bool]:
    """Check an atlas without any data: the table of findings, and whether it is good.

    ``text`` is as for ``--atlas-file``, or a name as for ``--atlas``, taken in
    ``space``; ``full`` tells of empty and negative maps, too.
    """
    from bids_roi.atlases.open import describe_failure, examine_atlas

    try:
        sets = _open_what(text, space, home)
    except BidsRoiError as error:
        # A name that is wrong, or not fetched yet, is no file that is damaged.
        why = "not here" if isinstance(error, UsageError) else "cannot be read"
        row = replace(describe_failure(error), check=why)
        return _format(text, None, [row]), False
    lines, good = [], True
    for files in sets:
        try:
            atlas, told = examine_atlas(files)
            findings = list(told)
            if atlas is not None and not atlas.hard:
                findings += _read_maps(files.image, full=full)
        except BidsRoiError as error:
            atlas, findings = None, [describe_failure(error)]
        good &= not any(f.severity == "error" for f in findings)
        title = "  ".join(map(str, filter(None, (*files.files, files.table))))
        summary = None
        if atlas is not None:
            what = "labels" if atlas.hard else "maps"
            summary = f"{atlas.name}: {len(atlas.regions.index)} regions, {what}"
            summary += f", space {atlas.space}" if atlas.space != _UNSAID else ""
        lines += _format(title, summary, findings)
    return lines, good


_UNSAID = "?"


def _open_what(text: str, space: str | None, home: Path | None) -> list[AtlasFiles]:
    from bids_roi.atlases.asked import parse_file, split_map, split_sides
    from bids_roi.atlases.names import space_of
    from bids_roi.atlases.shelf import find_key, make_catalogue
    from bids_roi.options.table import Atlases

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
    import numpy as np

    from bids_roi.atlases.regions import some
    from bids_roi.images.header import MAPS
    from bids_roi.images.nifti import count_bad_weights, open_image

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


def _format(title: str, summary: str | None, findings: Sequence[Finding]) -> list[str]:
    lines = [title]
    for finding in worst_first(findings):
        head = f"  {finding.severity:9}  {finding.check:17}"
        lines.append(f"{head}  {finding.text}")
        if finding.fix:
            lines.append(f"{' ' * len(head)}  -> {finding.fix}")
    counts = {s: sum(f.severity == s for f in findings) for s in SEVERITIES}
    verdict = "cannot be used" if counts["error"] else "good"
    if not counts["error"] and counts["warning"]:
        verdict = "can be used, see the warnings"
    lines.append(f"  => {verdict}" + (f" ({summary})" if summary else ""))
    return lines
