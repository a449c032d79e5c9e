"""An image and its table, opened and examined: one record, or a list of what is wrong.

Label images (3D) are read whole, a few megabytes. Of images with one map per region
(4D, up to gigabytes) only the header is read here.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bids_roi.atlases.checks import (
    check_columns,
    check_file_name,
    check_maps,
    check_places,
    check_sides,
    check_values,
    values_of,
)
from bids_roi.atlases.names import AtlasKey, is_of_one_person, is_surface
from bids_roi.atlases.regions import (
    Finding,
    RawTable,
    RegionTable,
    append_values,
    build_regions,
    extend_table,
    keep_regions,
    name_by_value,
    parse_table,
    read_raw_table,
)
from bids_roi.atlases.templateflow import template_grids
from bids_roi.core.combine import Combined, Labelled, combine_labels
from bids_roi.core.frame import FrameMismatch
from bids_roi.errors import AtlasError
from bids_roi.files.tables import file_digest
from bids_roi.images.header import ATLAS
from bids_roi.images.nifti import (
    are_whole,
    check_file,
    find_labels,
    open_image,
    read_labels,
    read_values,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.atlases.subject import Route
    from bids_roi.atlases.surfaces import Areas, Numbering
    from bids_roi.core.frame import Frame
    from bids_roi.core.grid import Grid
    from bids_roi.images.header import NiftiHeader
    from bids_roi.images.nifti import Opened


# Kind of a part of a combination of which the layout of the run has no place.
NOWHERE = "nowhere"
# Centre and radius of each, mm.
Spheres = tuple[tuple[float, float, float, float], ...]

_OTHER = (".border", ".mgh")
# Labels that were read to be examined are kept for the run they were opened for.
_LOADED: dict[AtlasImage, tuple[NDArray[np.int64], Grid | Frame]] = {}
_MOST_BYTES = 2**24


class AtlasImage(NamedTuple):
    """What an atlas is read by; a key, as one that changed has another digest."""

    files: tuple[Path, ...]
    digest: str
    kind: str
    space: str
    map_name: str | None = None
    numbering: Numbering = ()
    route: Route | None = None
    areas: Areas | None = None
    spheres: Spheres = ()
    parts: tuple[tuple[AtlasImage, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Atlas:
    """An atlas in one space, with its table checked against its image."""

    # Its BIDS entities atlas-, seg- and scale-
    label: str
    seg: str | None
    scale: str | None
    space: str  # the template it is in, or the space of the participant's own image
    # dseg: a label image, regions.index are its values. probseg: one map per region
    # along the fourth axis, regions.index are their numbers from 1. spheres: around the
    # coordinates of a table, on the grid of each run.
    kind: str
    # Its image, or those of the left and the right hemisphere; the table of spheres
    files: tuple[Path, ...]
    # None where there is no table, or where it is inside the templateflow package or
    # the image
    table_path: Path | None
    # SHA-256 of the files' bytes; table_digest is blank where there is no table
    image_digest: str
    table_digest: str
    regions: RegionTable  # what becomes the columns
    source: str  # BIDS URI of the image for sidecars, or empty for a file of the user's
    # For atlas-<label>_description.json; has Name and License
    description: Mapping[str, Any] = field(hash=False)
    # What was found when image and table were examined; no errors
    findings: tuple[Finding, ...] = ()
    # Transforms that lead from the run to its space; None where both are in one
    route: Route | None = None
    # Which map of an image that holds several; None for the first
    map_name: str | None = None
    # Of hemispheres that share label values: side and value of each region
    numbering: Numbering = ()
    # Index of the regions that only other layouts of the atlas hold
    elsewhere: frozenset[int] = frozenset()
    # By which the vertices of the run weigh; None for equal weights
    areas: Areas | None = None
    spheres: Spheres = ()  # centre and radius of each, mm
    # The atlases that it is combined of; the first that has a place keeps it
    parts: tuple[Atlas, ...] = ()
    # Of a combination, the share (0 to 1) of each region's places that an earlier part
    # took, NaN for one without any
    overlapped: tuple[float, ...] = ()

    @property
    def image_path(self) -> Path:
        """Its image, or the one of the left hemisphere."""
        return self.files[0]

    @property
    def image(self) -> AtlasImage:
        """All that its labels or maps are read by."""
        return AtlasImage(
            self.files,
            self.image_digest,
            self.kind,
            self.space,
            self.map_name,
            self.numbering,
            self.route,
            self.areas,
            self.spheres,
            tuple((part.image, part.regions.index) for part in self.parts),
        )

    @property
    def individual(self) -> bool:
        """Whether it is the participant's own, or a part is, and no other has it."""
        own = any(part.individual for part in self.parts)
        return own or is_of_one_person(self.source)

    @property
    def hard(self) -> bool:
        """Whether its regions are sets of voxels, not maps with weights."""
        return self.kind != "probseg"

    @property
    def entities(self) -> tuple[tuple[str, str | None], ...]:
        """``atlas-``, ``seg-`` and ``scale-`` for file names."""
        return ("atlas", self.label), ("seg", self.seg), ("scale", self.scale)

    @property
    def name(self) -> str:
        """The canonical id, ``Schaefer2018_seg-7n_scale-400`` for example."""
        return AtlasKey(self.label, self.seg, self.scale).name

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the outputs say about the atlas: warnings and corrections."""
        told = ("warning", "corrected")
        return tuple(f"{self.name}: {f}" for f in self.findings if f.severity in told)


@dataclass(frozen=True, slots=True)
class AtlasFiles:
    """Where an atlas is, before it is opened; see ``Atlas``."""

    key: AtlasKey
    space: str
    image: Path
    table: Path | None  # its table, None where there is none
    source: str = ""  # BIDS URI of the image, or empty
    description: Mapping[str, Any] = field(default_factory=dict, hash=False)
    # Content of a table that is no file of its own; table is its name then
    table_text: str | None = None
    # Where it is given, only these index values become columns, and what the image has
    # besides is left out: for tables that many images share
    wanted: frozenset[int] | None = None
    centred: bool = True  # whether x = 0 lies between the hemispheres
    findings: tuple[Finding, ...] = ()  # what is known already
    right: Path | None = None
    map_name: str | None = None
    # All regions that the atlas has in any layout; None where its own are all
    union: RegionTable | None = None
    # Centre and radius of each row of a table of coordinates, which image is
    spheres: Spheres = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Its image, or two."""
        return (self.image,) if self.right is None else (self.image, self.right)


def open_atlas(files: AtlasFiles) -> Atlas:
    """Open an atlas for use."""
    atlas, findings = examine_atlas(files)
    error = next((f for f in findings if f.severity == "error"), None)
    if error is not None or atlas is None:
        where = files.table if files.table and files.table_text is None else files.image
        text = error.text if error else "it cannot be used."
        raise AtlasError(text, where=where, remedy=error.fix if error else "")
    return atlas


def examine_atlas(files: AtlasFiles) -> tuple[Atlas | None, tuple[Finding, ...]]:
    """Examine image and table: the atlas, and findings in the order of the checks.

    There is no atlas where a finding is an error; what cannot even be read raises.
    """
    if files.spheres:
        return _examine_spheres(files)
    if is_surface(files.image):
        return _examine_surface(files)
    _refuse_other_kinds(files.image)
    image = open_image(files.image, ATLAS)
    header, grid = image.header, image.grid
    raw, digest = _read_table(files)
    image_digest = file_digest(files.image)
    labels: NDArray[np.int64] | None = None
    n_maps = math.prod(header.shape[3:])
    if len(header.shape) == 3:
        stored = read_values(image)
        if not _is_one_map(image, stored, raw):
            n_maps, labels = 0, find_labels(image, stored)
            key = AtlasImage(files.files, image_digest, "dseg", files.space)
            _keep_labels(key, labels, grid)
    values = list(range(1, n_maps + 1)) if labels is None else values_of(labels)
    findings = [*files.findings, *_describe_storage(header, n_maps)]
    regions, found = _match(raw, values, files, n_maps=n_maps)
    findings += found
    findings += check_file_name(regions, files.image.name, n_maps=n_maps)
    findings += _check_template(grid, files.space)
    if labels is not None and not any(f.severity == "error" for f in findings):
        findings += check_sides(regions, labels, grid, centred=files.centred)
        if files.centred:
            findings += check_places(regions, labels, grid)
    if any(f.severity == "error" for f in findings):
        return None, tuple(findings)
    digests = image_digest, digest
    kind = "probseg" if n_maps else "dseg"
    atlas = _make_atlas(files, kind, regions, digests, findings)
    return atlas, atlas.findings


def _examine_surface(files: AtlasFiles) -> tuple[Atlas | None, tuple[Finding, ...]]:
    """As ``examine_atlas``, of labels on surfaces or grayordinates."""
    from bids_roi.atlases.surfaces import check_surface, join_table, read_surface

    surface = read_surface(files.files, files.space, files.map_name)
    given, digest = _read_table(files)
    raw, numbering = join_table(surface, given, files.table)
    labels = surface.number(numbering)
    regions, found = _match(raw, values_of(labels), files, n_maps=0)
    findings = [*files.findings, *found]
    findings += check_file_name(regions, files.image.name, n_maps=0)
    findings += check_surface(surface, given, regions, labels)
    if any(f.severity == "error" for f in findings):
        return None, tuple(findings)
    # Of the only file as it is; else of the digests, and of the map's name.
    parts = [file_digest(path) for path in files.files]
    parts += [] if files.map_name is None else [files.map_name]
    whole = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    digests = parts[0] if len(parts) == 1 else whole, digest
    atlas = _make_atlas(files, "dseg", regions, digests, findings, numbering)
    _keep_labels(atlas.image, labels, surface.frame)
    return atlas, atlas.findings


def _examine_spheres(files: AtlasFiles) -> tuple[Atlas, tuple[Finding, ...]]:
    """As ``examine_atlas``, of a table of coordinates, which was read before."""
    assert files.union is not None  # noqa: S101 - the regions that were read with them
    digest = hashlib.sha256(repr(files.spheres).encode()).hexdigest()
    digests = digest, file_digest(files.image)
    atlas = _make_atlas(files, "spheres", files.union, digests, files.findings)
    return atlas, atlas.findings


def _make_atlas(
    files: AtlasFiles,
    kind: str,
    regions: RegionTable,
    digests: tuple[str, str],
    findings: Sequence[Finding],
    numbering: Numbering = (),
) -> Atlas:
    own = regions
    if files.union is not None:
        regions = extend_table(own, files.union)
    return Atlas(
        label=files.key.label,
        seg=files.key.seg,
        scale=files.key.scale,
        space=files.space,
        kind=kind,
        files=files.files,
        table_path=files.table if files.table_text is None else None,
        image_digest=digests[0],
        table_digest=digests[1],
        regions=regions,
        source=files.source,
        description={"Name": files.key.label, "License": "n/a", **files.description},
        findings=tuple(findings),
        map_name=files.map_name,
        numbering=numbering,
        elsewhere=frozenset(regions.index) - frozenset(own.index),
        spheres=files.spheres,
    )


def _keep_labels(
    key: AtlasImage, labels: NDArray[np.int64], where: Grid | Frame
) -> tuple[NDArray[np.int64], Grid | Frame]:
    """Keep the latest labels, of several images as far as they are small."""
    _LOADED[key] = labels, where
    while len(_LOADED) > 1 and sum(v.nbytes for v, _ in _LOADED.values()) > _MOST_BYTES:
        del _LOADED[next(iter(_LOADED))]
    return _LOADED[key]


def load_atlas_labels(
    image: AtlasImage,
) -> tuple[NDArray[np.int64], Grid | Frame]:
    """Labels of an ``Atlas`` of kind ``dseg`` and where they lie, once per process."""
    # Labels do not depend on these.
    image = image._replace(areas=None, route=None)
    if image in _LOADED:
        return _LOADED[image]
    if image.parts:
        combined = combine_images(image)
        return _keep_labels(image, combined.labels, combined.where)
    if is_surface(image.files[0]):
        from bids_roi.atlases.surfaces import read_surface  # volumes need it not

        surface = read_surface(image.files, image.space, image.map_name)
        labels = surface.number(image.numbering)
        return _keep_labels(image, labels, surface.frame)
    return _keep_labels(image, *read_labels(image.files[0], AtlasError))


def combine_images(image: AtlasImage) -> Combined:
    """Labels of a combination, from its parts, and what each of these lost."""
    held = [load_atlas_labels(p) for p, _ in image.parts if p.kind != NOWHERE]
    # A part without a place here has rows, in a copy of another where all is 0.
    empty, found = (np.zeros_like(held[0][0]), held[0][1]), iter(held)
    try:
        return combine_labels(
            [
                Labelled(
                    *(empty if part.kind == NOWHERE else next(found)),
                    np.array(index, dtype=np.int64),
                )
                for part, index in image.parts
            ]
        )
    except FrameMismatch as error:
        remedy = "Combine atlases that lie on the same meshes and voxels."
        raise AtlasError(f"{error}.", where=image.files[0], remedy=remedy) from error


def _read_table(files: AtlasFiles) -> tuple[RawTable | None, str]:
    if files.table is None:
        return None, ""
    if files.table_text is not None:
        digest = hashlib.sha256(files.table_text.encode()).hexdigest()
        return parse_table(files.table_text, files.table), digest
    check_file(files.table)
    return read_raw_table(files.table), file_digest(files.table)


def _match(
    raw: RawTable | None, values: Sequence[int], files: AtlasFiles, *, n_maps: int
) -> tuple[RegionTable, list[Finding]]:
    """Regions from the table and the values (or map numbers) of the image."""
    if raw is None:
        text = "there is no table: the regions are named by their value."
        fix = "Give one with --atlas-file IMAGE,TABLE, if there is one."
        table = name_by_value(values)
        return table, [
            Finding("warning", "no table", text, fix),
            *check_values(table, values),
        ]
    table, told = build_regions(raw)
    findings = [*check_columns(table, raw.index_column, values), *told]
    if any(f.severity == "error" for f in findings):
        return table, findings
    if n_maps:
        findings += check_maps(table, n_maps)
        if 0 in table.index:
            index = tuple(value + 1 for value in table.index)
            table = RegionTable(index, table.name, table.original_name, table.extra)
        return table, findings
    if files.wanted is not None:
        table = keep_regions(table, files.wanted)
        left_out = sorted(set(values) - set(table.index))
        if left_out:
            text = f"label values outside the standard list are left out: {left_out}."
            findings.append(Finding("note", "other values", text))
        inside = sorted(set(values) & set(table.index))
        return table, [*findings, *check_values(table, inside)]
    findings += check_values(table, values)
    unnamed = sorted(set(values) - set(table.index))
    if unnamed and not any(f.severity == "error" for f in findings):
        table = append_values(table, unnamed)
    return table, findings


def _refuse_other_kinds(path: Path) -> None:
    name = path.name.lower()
    if name.endswith(_OTHER):
        msg = "this is a surface file that holds no labels."
        remedy = "Give .annot, .label.gii or .dlabel.nii files."
        raise AtlasError(msg, where=path, remedy=remedy)
    if name.endswith(".mgz"):
        msg = "this is an image of FreeSurfer's; a NIfTI volume is needed."
        remedy = "Convert it: mri_convert FILE.mgz FILE.nii.gz."
        raise AtlasError(msg, where=path, remedy=remedy)


def _is_one_map(image: Opened, values: NDArray[Any], raw: RawTable | None) -> bool:
    """Whether an image of one volume holds the weights of one region, not labels.

    Fractions are weights where the name says so, or where there is a fourth axis and
    they are shares (0 to 1) or the table has one region. Whole numbers (per cent, 0
    and 1) are weights where the name says so, there is a fourth axis and no table of
    several regions.
    """
    named = "_probseg." in image.source.path.name
    fourth = len(image.header.axes) > 3
    if not named and not fourth:
        return False
    values = values[np.isfinite(values)]
    one_row = raw is not None and sum(value != 0 for value in raw.index) <= 1
    if are_whole(values).all():
        return named and fourth and (one_row or raw is None)
    shares = bool(values.min() >= 0) and (bool(values.max() <= 1) or one_row)
    return named or shares


def _describe_storage(header: NiftiHeader, n_maps: int) -> list[Finding]:
    findings = []
    if n_maps == 1:
        text = "one map: the weights of one region."
        findings.append(Finding("note", "kind", text))
    elif n_maps:
        text = f"4D: {n_maps} maps, one per region (a soft atlas)."
        findings.append(Finding("note", "kind", text))
    elif header.is_float:
        text = f"labels are stored as float{header.bits}; all are whole numbers."
        findings.append(Finding("note", "float labels", text))
    if header.sform_code == 0:
        text = "sform_code is 0: the position of the voxels is taken from the qform."
        findings.append(Finding("note", "orientation", text))
    if (header.slope, header.intercept) != (1, 0):
        text = (
            f"values are scaled by {header.slope:g} and shifted by"
            f" {header.intercept:g} (scl_slope, scl_inter)."
        )
        findings.append(Finding("note", "scaling", text))
    return findings


def _check_template(grid: Grid, space: str) -> list[Finding]:
    """Tell of an image that has the very grid of another template than its own."""
    known = template_grids()
    if space not in known:
        return []
    corners = itertools.product(*((0, n - 1) for n in grid.shape))
    points = grid.matrix @ np.array([(*corner, 1) for corner in corners]).T
    low = points[:3].min(axis=1)
    size = points[:3].max(axis=1) - low
    fitting = {
        template
        for template, grids in known.items()
        for one in grids.values()
        if np.allclose(low, one.origin, atol=0.25)
        and np.allclose(
            size, [(n - 1) * z for n, z in zip(one.shape, one.zooms, strict=True)]
        )
    }
    if not fitting or space in fitting:
        return []
    text = (
        f"the image is on the grid of {', '.join(sorted(fitting)[:3])}, not on one of"
        f" {space}, which it is said to be in."
    )
    fix = "Check the space; the same labels a few millimetres off give other regions."
    return [Finding("warning", "template", text, fix)]
