"""Where an atlas asked for by name is: datasets given, homes, TemplateFlow's archive.

Nothing is opened here but headers, and nothing downloaded before it is asked for.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.atlases.names import describe_known_atlas, own_table, space_of
from bids_roi.atlases.open import AtlasFiles
from bids_roi.atlases.regions import (
    Finding,
    build_regions,
    name_by_value,
    parse_table,
    read_raw_table,
    unite_tables,
    without_wall,
)
from bids_roi.atlases.templateflow import (
    HeldImage,
    choose_table,
    download,
    list_folder,
    list_skeleton,
    read_skeleton,
    scan_names,
    template_grids,
)
from bids_roi.core.grid import Grid
from bids_roi.errors import AtlasError, BidsRoiError, MissingInput, SpaceMismatch
from bids_roi.files.tables import read_json
from bids_roi.images.header import ATLAS, DENSITIES, check_complete, meshes_of
from bids_roi.images.nifti import open_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bids_roi.atlases.names import AtlasKey
    from bids_roi.atlases.regions import RegionTable
    from bids_roi.core.frame import Frame


_OWN = "own"  # in the place of a table's text: what the image itself holds


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder of atlases: a BIDS-atlas dataset or a TemplateFlow home."""

    name: str  # under which sidecars refer to it
    root: Path  # the folder
    files: dict[str, int] = field(hash=False)  # relative paths and sizes

    @classmethod
    def of(cls, name: str, root: Path) -> Dataset:
        """List a folder; one that cannot be read is empty."""
        return cls(name, root, list_folder(root) if root.is_dir() else {})


class Catalogue:
    """Atlases by name."""

    def __init__(
        self,
        datasets: Sequence[Dataset],  # BIDS-atlas datasets, looked at first
        homes: Sequence[Path],  # folders in TemplateFlow's layout, in order
        target: Callable[[], Path] | None,  # where downloads go; None forbids them
    ) -> None:
        self.datasets = tuple(datasets)
        self.homes = [Dataset.of("templateflow", home) for home in homes]
        self._target = target
        self._failed: dict[str, BidsRoiError] = {}
        self._columns: dict[
            AtlasKey, tuple[RegionTable | None, dict[tuple[str, str], str]]
        ] = {}
        self._own = {d.name: scan_names(d.files) for d in self.datasets}
        names = set(list_skeleton()).union(*(home.files for home in self.homes))
        self._archive = scan_names(sorted(names))

    def keys(self) -> list[AtlasKey]:
        """Atlases that can be extracted, in any space."""
        return sorted({h.key for h in self._usable()}, key=lambda key: key.name)

    def keys_of(self, dataset: str) -> list[AtlasKey]:
        """Atlases of one of the datasets."""
        held = [h.key for h in self._own[dataset] if h.is_usable]
        return list(dict.fromkeys(held))

    def spaces(self, key: AtlasKey) -> list[str]:
        """Spaces that an atlas is in."""
        return sorted({h.space for h in self._usable() if h.key == key})

    def _usable(self) -> list[HeldImage]:
        held = [image for own in self._own.values() for image in own] + self._archive
        return [image for image in held if image.is_usable]

    def layouts(self, key: AtlasKey) -> list[HeldImage]:
        """All images of an atlas that can be extracted, in any space."""
        return [image for image in self._usable() if image.key == key]

    def find(self, key: AtlasKey, space: str, where: Grid | Frame) -> AtlasFiles:
        """Find the image of an atlas that lies as a series does, and its table."""
        if isinstance(where, Grid):
            return self._find_volume(key, space, where)
        if where.grid is not None:
            return self._find_volume(key, space, where.grid)
        for dataset in self.datasets:
            own = [h for h in self._own[dataset.name] if h.key == key]
            if images := _sort_by_fit(own, where):
                return self._of_dataset(
                    dataset, _first_that_fits(dataset, images, where)
                )
        own = [h for h in self._archive if h.key == key]
        if images := _sort_by_fit(own, where):
            return self._acquire(images)
        raise self._misfit_of_mesh(key, where)

    def find_any(self, key: AtlasKey) -> AtlasFiles:
        """Find an atlas in any space and layout, for the sake of its table."""
        for dataset in self.datasets:
            for held in self._own[dataset.name]:
                if held.key == key and held.is_usable:
                    return self._of_dataset(dataset, held)
        return self._acquire([h for h in self.layouts(key) if h in self._archive])

    def _find_volume(self, key: AtlasKey, space: str, grid: Grid) -> AtlasFiles:
        for dataset in self.datasets:
            own = [h for h in self._own[dataset.name] if h.key == key]
            if images := _best_kind(own, space):
                held = min(images, key=lambda h: _distance([dataset], h, grid))
                return self._of_dataset(dataset, held)
        images = _best_kind([h for h in self._archive if h.key == key], space)
        if not images:
            raise self._misfit(key, space)
        images.sort(key=lambda h: (_distance(self.homes, h, grid), h.path))
        return self._acquire(images)

    def _of_dataset(self, dataset: Dataset, held: HeldImage) -> AtlasFiles:
        return self._with_columns(_from_dataset(dataset, held), held, dataset.name)

    def _with_columns(
        self, files: AtlasFiles, held: HeldImage, source: str
    ) -> AtlasFiles:
        """Give a layout the regions of all, or tell why it has columns of its own."""
        union, apart = self._unite(held.key)
        reason = apart.get((source, held.path))
        if union is None or (reason is not None and held.is_volume):
            return files
        if reason is None:
            return replace(files, union=union)
        text = (
            f"the regions in {held.space} are named by another edition than those of"
            f" the other layouts of {held.key.name} ({reason}): it has its own columns."
        )
        fix = "Compare regions of the two layouts by place, not by name."
        finding = Finding("warning", "edition", text, fix)
        return replace(files, findings=(*files.findings, finding))

    def _unite(
        self, key: AtlasKey
    ) -> tuple[RegionTable | None, dict[tuple[str, str], str]]:
        """Regions of an atlas in all layouts; images whose own could not be joined."""
        if key in self._columns:
            return self._columns[key]
        sets: list[tuple[Dataset | None, list[HeldImage]]] = [
            (dataset, self._own[dataset.name]) for dataset in self.datasets
        ]
        images = [
            ("" if dataset is None else dataset.name, dataset, held)
            for dataset, own in (*sets, (None, self._archive))
            for held in own
            if held.key == key and held.is_usable
        ]
        # Volumes first: where tables are equally long, their order counts.
        images.sort(key=lambda item: not item[2].is_volume)
        found: dict[tuple[str, str | None], list[tuple[str, str]]] = {}
        for name, dataset, held in images:
            table = self._table_of(dataset, held)
            if table is not None:
                found.setdefault(table, []).append((name, held.path))
        volumes = {(name, h.path) for name, _, h in images if h.is_volume}
        union: RegionTable | None = None
        apart: dict[tuple[str, str], str] = {}
        tables, sources, users = [], [], []
        if len(volumes) == len(images):  # which keep the table of each
            found = {}
        for (name, text), own in found.items():
            try:
                tables.append(_read_regions(name, text, cortex=not set(own) & volumes))
            except BidsRoiError:  # whoever opens that layout hears what is wrong
                apart |= dict.fromkeys(own, "its table cannot be read")
                continue
            # A file's own table may be of another author than the one beside another.
            sources.append(name if text == _OWN else own[0][0])
            users.append(own)
        if len(tables) > 1:
            union, wrong = unite_tables(tables, sources)
            for n, reason in wrong.items():
                apart |= dict.fromkeys(users[n], reason)
        self._columns[key] = union, apart
        return self._columns[key]

    def _table_of(
        self, dataset: Dataset | None, held: HeldImage
    ) -> tuple[str, str | None] | None:
        """Path of the table of an image, or name and text of one in the package."""
        for place in self.homes if dataset is None else [dataset]:
            name = choose_table(held.path, [n for n, s in place.files.items() if s])
            if name is not None:
                return str(place.root / name), None
        if dataset is not None:
            path = str(dataset.root / held.path)
            return (path, _OWN) if held.kind == "dlabel" else None
        name = choose_table(held.path, list_skeleton())
        if name is None:
            return None
        return name, read_skeleton(name).decode("utf-8-sig")

    def find_present(self, key: AtlasKey) -> list[AtlasFiles]:
        """Every image of an atlas that some home or dataset holds."""
        found = []
        for dataset in self.datasets:
            own = [h for h in self._own[dataset.name] if h.key == key]
            found += [_from_dataset(dataset, held) for held in own]
        for held in self._archive:
            homes = [home for home in self.homes if home.files.get(held.path)]
            if held.key == key and held.is_usable and homes:
                found.append(self._from_home(homes[0], held, []))
        return found

    def _misfit(self, key: AtlasKey, space: str) -> SpaceMismatch:
        spaces = self.spaces(key)
        fitting = sorted({h.key.name for h in self._usable() if h.space == space})
        msg = f"atlas {key.name} is in {', '.join(spaces)}, the run in {space}."
        same = [name for name in fitting if name.startswith(key.label)]
        shown = ", ".join((same or fitting)[:8])
        more = f" and {len(fitting) - 8} more" if len(fitting) > 8 else ""
        remedy = (
            f"In {space} there are: {shown}{more}."
            if fitting
            else f"No atlas is known in {space}; give one with --atlas-file."
        )
        return SpaceMismatch(msg, remedy=remedy + " Or choose the runs with --space.")

    def _misfit_of_mesh(self, key: AtlasKey, where: Frame) -> SpaceMismatch:
        """Tell in which layouts and densities an atlas is there, and what would fit."""
        held = self.layouts(key)
        there = "; ".join(dict.fromkeys(h.layout for h in held))
        meshes = ", ".join(map(str, meshes_of(where)))
        msg = f"atlas {key.name} is there as {there}; the run is on {meshes}."
        templates = {mesh.template for mesh in meshes_of(where)}
        fitting = {h.key.name for h in _sort_by_fit(self._usable(), where)}
        same = sorted(name for name in fitting if name.startswith(key.label))
        shown = same or sorted(fitting)
        remedy = "Give a file that is on these meshes with --atlas-file."
        if shown:
            more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
            remedy = f"On these meshes there are: {', '.join(shown[:8])}{more}."
        if any(h.space in templates and h.den == "164k" for h in held):
            remedy += (
                " Labels of den-164k are not cut down to a coarser mesh: nothing in the"
                " files says that the vertices of both are numbered alike. Use runs in"
                " space fsaverage, or bring the labels over with `mri_surf2surf"
                " --sval-annot`."
            )
        return SpaceMismatch(msg, remedy=remedy)

    def _acquire(self, images: Sequence[HeldImage]) -> AtlasFiles:
        """Take the nearest image, downloaded where needed; else the next present."""
        best = images[0]
        failure: BidsRoiError | None = None
        for held in images:
            broken: list[Finding] = []
            for home in self.homes:
                if all(home.files.get(path) for path in held.paths):
                    try:
                        for path in held.paths:
                            check_complete(home.root / path)
                    except AtlasError as error:
                        broken.append(Finding("note", "cache", str(error)))
                        failure = failure or error
                        continue
                    return self._from_home(home, held, [*broken, *_other(held, best)])
            if held is best and (held.path not in self._failed):
                try:
                    return self._from_home(self._download(held), held, broken)
                except BidsRoiError as error:
                    self._failed[held.path] = error
            failure = self._failed.get(best.path) or failure
        raise failure or MissingInput("no image.", where=best.path)

    def _download(self, held: HeldImage) -> Dataset:
        names = self.needed(held)
        if self._target is None:
            where = ", ".join(str(home.root) for home in self.homes) or "nowhere"
            msg = (
                f"atlas {held.key.name} in {held.space} is not here, and --offline"
                f" forbids to download it. Missing: {', '.join(names)} (looked in"
                f" {where})."
            )
            remedy = (
                f"Fetch it where there is a network (`bids_roi_tools fetch"
                f" {held.key.name} --space {held.space} --dest DIR`) and give DIR with"
                " --templateflow-home, or bring an atlas with --atlas-file."
            )
            raise MissingInput(msg, remedy=remedy)
        if not set(held.paths) <= set(list_skeleton()):
            msg = "the file is empty, and TemplateFlow has none of this name."
            raise MissingInput(msg, where=held.path, remedy="Copy it again.")
        try:
            home = self._target()
            download(names, home)
        except MissingInput as error:
            remedy = f"{error.remedy} Or bring an atlas with --atlas-file IMAGE,TABLE."
            problem = error.problem.replace(" (", f" from {error.where} (", 1)
            msg = f"atlas {held.key.name} in {held.space} {problem}"
            raise MissingInput(msg, remedy=remedy) from error
        return Dataset.of("templateflow", home)

    def needed(self, held: HeldImage) -> list[str]:
        """Image and table of an atlas, of which no home holds more than a stub."""
        table = choose_table(held.path, list_skeleton())
        names = [*held.paths, *([table] if table else [])]
        here = {n for n in names if any(home.files.get(n) for home in self.homes)}
        return [n for n in names if n in held.paths or n not in here]

    def _from_home(
        self, home: Dataset, held: HeldImage, findings: list[Finding]
    ) -> AtlasFiles:
        description = describe_known_atlas(held.key.label) or _describe(home, held)
        table: Path | None = own_table(held.key.label)
        text = None
        if table is not None:
            note = (
                "the region table is bids_roi's own: TemplateFlow's is missing,"
                " incomplete or counts from 0 in this template or an older version."
            )
            findings = [*findings, Finding("corrected", "own table", note)]
        else:
            name = choose_table(
                held.path, [n for n, size in home.files.items() if size]
            )
            listed = choose_table(held.path, list_skeleton())
            if name is not None:
                table = home.root / name
            elif listed is not None:
                table, text = Path(listed), read_skeleton(listed).decode("utf-8-sig")
        files = AtlasFiles(
            key=held.key,
            space=held.space,
            image=home.root / held.path,
            right=home.root / held.right if held.right else None,
            table=table,
            table_text=text,
            source=f"bids:templateflow:{held.path}",
            description=description,
            findings=tuple(findings),
        )
        return self._with_columns(files, held, "")


def _best_kind(images: Sequence[HeldImage], space: str) -> list[HeldImage]:
    """Volumes in a space: of labels, else of maps."""
    fitting = [h for h in images if h.space == space]
    labels = [h for h in fitting if h.kind == "dseg"]
    return labels or [h for h in fitting if h.kind == "probseg"]


def _sort_by_fit(images: Sequence[HeldImage], where: Frame) -> list[HeldImage]:
    """Images whose names tell the meshes of a frame, the best first.

    By the template's name and the density: onavg's 10k and fsaverage's have the same
    number of vertices. Where the frame has voxels, those with voxels come first; names
    without a density come last.
    """
    meshes = meshes_of(where)
    voxels = where.voxel_grid is not None
    fitting = [
        held
        for held in images
        if held.is_usable
        and not held.is_volume
        and any(
            held.space == mesh.template
            and DENSITIES.get(held.den, mesh.n_vertices) == mesh.n_vertices
            for mesh in meshes
        )
        and (not held.den or held.den in DENSITIES)
    ]
    return sorted(
        fitting,
        key=lambda h: (
            not h.den,
            (h.den in ("91k", "170k")) != voxels,
            h.kind != "dlabel",
            h.path,
        ),
    )


def _first_that_fits(
    dataset: Dataset, images: Sequence[HeldImage], where: Frame
) -> HeldImage:
    """The first image whose meshes are those of the frame, as name or header has them.

    The last one, where none is: opening it says what is wrong.
    """
    from bids_roi.atlases.surfaces import read_surface  # volumes need it not

    for held in images[:-1]:
        if held.den:
            return held
        with contextlib.suppress(BidsRoiError):
            frame = read_surface((dataset.root / held.path,), held.space).frame
            if set(meshes_of(frame)) == set(meshes_of(where)):
                return held
    return images[-1]


def _read_regions(name: str, text: str | None, *, cortex: bool) -> RegionTable:
    path = Path(name)
    if text == _OWN:
        from bids_roi.atlases.surfaces import read_surface

        raw = read_surface((path,), space_of(path)).own_table()
    else:
        raw = read_raw_table(path) if text is None else parse_table(text, path)
    if raw is None:
        return name_by_value([])
    return build_regions(without_wall(raw) if cortex else raw)[0]


def _other(held: HeldImage, best: HeldImage) -> list[Finding]:
    if held is best:
        return []
    text = (
        f"the resolution nearest to the run ({best.path}) could not be had; {held.path}"
        " is used."
    )
    fix = "Fetch it for the nearest one."
    return [Finding("warning", "resolution", text, fix)]


def _distance(homes: Sequence[Dataset], held: HeldImage, grid: Grid) -> float:
    """How far an image's voxel size is from a grid's, on a log scale."""
    for home in homes:
        if home.files.get(held.path):
            try:
                found = open_image(home.root / held.path, ATLAS).grid.voxel_volume
            except BidsRoiError:
                continue
            return abs(math.log(found / grid.voxel_volume))
    known = template_grids().get(held.space, {}).get(held.res)
    if known is None:
        return math.inf
    return abs(math.log(known.voxel_volume / grid.voxel_volume))


def _from_dataset(dataset: Dataset, held: HeldImage) -> AtlasFiles:
    table = choose_table(held.path, [n for n, size in dataset.files.items() if size])
    return AtlasFiles(
        key=held.key,
        space=held.space,
        image=dataset.root / held.path,
        right=dataset.root / held.right if held.right else None,
        table=None if table is None else dataset.root / table,
        source=f"bids:{dataset.name}:{held.path}",
        description=_describe(dataset, held),
    )


def _describe(dataset: Dataset, held: HeldImage) -> dict[str, Any]:
    """Description beside or above an image: BIDS-atlas's file, else TemplateFlow's."""
    label = held.key.label
    folders = [*(dataset.root / held.path).parents][:4]
    names = [folder / f"atlas-{label}_description.json" for folder in folders]
    template = held.path.partition("/")[0]
    names.append(dataset.root / template / f"{template}_atlas-{label}_dseg.json")
    for path in names:
        if path.is_file() and path.stat().st_size:
            content = read_json(path)
            if "Name" in content:
                return {"License": "n/a", **content}
    return {}
