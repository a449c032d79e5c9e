"""Where an atlas asked for by name is: datasets given, homes, TemplateFlow's archive.

Nothing is opened here but headers, and nothing downloaded before it is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.atlases.citations import describe_known_atlas, own_table
from bids_roi.atlases.findings import Finding
from bids_roi.atlases.homes import HeldImage, choose_table, list_folder, scan_names
from bids_roi.atlases.integrity import check_complete
from bids_roi.atlases.open import AtlasFiles
from bids_roi.atlases.skeleton import list_skeleton, read_skeleton, template_grids
from bids_roi.atlases.templateflow import download
from bids_roi.errors import AtlasError, BidsRoiError, MissingInput, SpaceMismatch
from bids_roi.files.tables import read_json
from bids_roi.images.header import ATLAS
from bids_roi.images.nifti import open_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bids_roi.atlases.names import AtlasKey
    from bids_roi.core.grid import Grid


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder of atlases: a BIDS-atlas dataset or a TemplateFlow home.

    Attributes
    ----------
    name
        Under which sidecars refer to it.
    root
        The folder.
    files
        Relative paths and sizes.
    """

    name: str
    root: Path
    files: dict[str, int] = field(hash=False)

    @classmethod
    def of(cls, name: str, root: Path) -> Dataset:
        """List a folder; one that cannot be read is empty."""
        return cls(name, root, list_folder(root) if root.is_dir() else {})


class Catalogue:
    """Atlases by name.

    Parameters
    ----------
    datasets
        BIDS-atlas datasets of the user's, looked at first.
    homes
        Folders in TemplateFlow's layout, in order.
    target
        Tells the folder that downloads go to; ``None``: nothing is downloaded.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        homes: Sequence[Path],
        target: Callable[[], Path] | None,
    ) -> None:
        self.datasets = tuple(datasets)
        self.homes = [Dataset.of("templateflow", home) for home in homes]
        self._target = target
        self._failed: dict[str, BidsRoiError] = {}
        self._own = {d.name: scan_names(d.files) for d in self.datasets}
        names = set(list_skeleton()).union(*(home.files for home in self.homes))
        self._archive = scan_names(sorted(names))

    def listing(self) -> list[HeldImage]:
        """All that TemplateFlow and the homes hold, present or not."""
        return self._archive

    def keys(self) -> list[AtlasKey]:
        """Atlases that can be extracted, in any space."""
        return sorted({h.key for h in self._volumes()}, key=lambda key: key.name)

    def keys_of(self, dataset: str) -> list[AtlasKey]:
        """Atlases of one of the datasets."""
        held = [h.key for h in self._own[dataset] if h.kind != "surface"]
        return list(dict.fromkeys(held))

    def spaces(self, key: AtlasKey) -> list[str]:
        """Spaces that an atlas is in."""
        return sorted({h.space for h in self._volumes() if h.key == key})

    def keys_in(self, space: str) -> list[AtlasKey]:
        """Atlases in a space."""
        found = {h.key for h in self._volumes() if h.space == space}
        return sorted(found, key=lambda key: key.name)

    def _volumes(self) -> list[HeldImage]:
        held = [image for own in self._own.values() for image in own] + self._archive
        return [image for image in held if image.kind != "surface"]

    def is_present(self, path: str) -> bool:
        """Tell whether some home holds a file, and not only its placeholder."""
        return any(home.files.get(path) for home in self.homes)

    def find(self, key: AtlasKey, space: str, grid: Grid) -> AtlasFiles:
        """Find the image of an atlas nearest to a grid, and its table."""
        for dataset in self.datasets:
            images = _best_kind(self._own[dataset.name], key, space)
            if images:
                held = min(images, key=lambda h: _distance([dataset], h, grid))
                return _from_dataset(dataset, held)
        images = _best_kind(self._archive, key, space)
        if not images:
            raise self._misfit(key, space)
        images.sort(key=lambda h: (_distance(self.homes, h, grid), h.path))
        return self._acquire(images)

    def find_present(self, key: AtlasKey) -> list[AtlasFiles]:
        """Every image of an atlas that some home or dataset holds."""
        found = []
        for dataset in self.datasets:
            own = [h for h in self._own[dataset.name] if h.key == key]
            found += [_from_dataset(dataset, held) for held in own]
        for held in self._archive:
            homes = [home for home in self.homes if home.files.get(held.path)]
            if held.key == key and held.kind != "surface" and homes:
                found.append(self._from_home(homes[0], held, []))
        return found

    def _misfit(self, key: AtlasKey, space: str) -> SpaceMismatch:
        spaces = self.spaces(key)
        fitting = [other.name for other in self.keys_in(space)]
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

    def _acquire(self, images: Sequence[HeldImage]) -> AtlasFiles:
        """Take the nearest image, downloaded where needed; else the next present."""
        best = images[0]
        failure: BidsRoiError | None = None
        for held in images:
            broken: list[Finding] = []
            for home in self.homes:
                if home.files.get(held.path):
                    try:
                        check_complete(home.root / held.path)
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
        if held.path not in list_skeleton():
            msg = "the file is empty, and TemplateFlow has none of this name."
            raise MissingInput(msg, where=held.path, remedy="Copy it again.")
        try:
            home = self._target()
            download(names, home)
        except MissingInput as error:
            remedy = f"{error.remedy} Or bring an atlas with --atlas-file IMAGE,TABLE."
            msg = f"atlas {held.key.name} in {held.space}: {error}"
            raise MissingInput(
                msg.removesuffix(error.remedy).rstrip(), remedy=remedy
            ) from error
        return Dataset.of("templateflow", home)

    def needed(self, held: HeldImage) -> list[str]:
        """Image and table of an atlas, of which no home holds more than a stub."""
        table = choose_table(held.path, list_skeleton())
        names = [held.path, *([table] if table else [])]
        return [n for n in names if n == held.path or not self.is_present(n)]

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
        return AtlasFiles(
            key=held.key,
            space=held.space,
            image=home.root / held.path,
            table=table,
            table_text=text,
            source=f"bids:templateflow:{held.path}",
            description=description,
            findings=tuple(findings),
        )


def _best_kind(
    images: Sequence[HeldImage], key: AtlasKey, space: str
) -> list[HeldImage]:
    """Images of an atlas in a space: of labels, else of maps."""
    fitting = [h for h in images if h.key == key and h.space == space]
    labels = [h for h in fitting if h.kind == "dseg"]
    return labels or [h for h in fitting if h.kind == "probseg"]


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
    """How far an image's voxel size is from a grid's, on a log scale.

    From its header where it is present, else from the template's description.
    """
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
