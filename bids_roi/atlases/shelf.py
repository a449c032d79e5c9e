"""The asked-for atlases: files, datasets, names, and segmentations of participants."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bids_roi.atlases.catalogue import Catalogue, Dataset
from bids_roi.atlases.homes import download_home, search_path
from bids_roi.atlases.names import (
    AtlasKey,
    key_of_file,
    name_map,
    nearest_atlases,
    parse_atlas_name,
    space_of,
)
from bids_roi.atlases.open import Atlas, AtlasFiles, load_atlas_labels, open_atlas
from bids_roi.atlases.subject import (
    find_annots,
    find_segmentation,
    is_of_annots,
    list_annots,
)
from bids_roi.atlases.surfaces import (
    check_fit,
    is_surface,
    space_of_meshes,
    split_map,
    split_sides,
    without_side,
)
from bids_roi.atlases.transforms import (
    can_be_reached,
    find_anatomical_route,
    find_route,
)
from bids_roi.core.grid import Grid
from bids_roi.errors import (
    BidsRoiError,
    CollisionError,
    MissingInput,
    SpaceMismatch,
    UsageError,
)
from bids_roi.files.names import parse_name
from bids_roi.files.tables import read_json
from bids_roi.images.meshes import surface_template
from bids_roi.images.nifti import check_file

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bids_roi.core.frame import Frame
    from bids_roi.options.table import Atlases


_FITTING = "Choose an atlas of the same space, or the runs with --space."
_SUBJECT = "subject:"
# What a table ends in, and no image does.
_TABLES = (".tsv", ".csv", ".txt", ".xml", ".json")
_TAKEN = ("preprocessed", "templateflow")
# Of the templates that an atlas is in, transforms are looked for from these first.
_FIRST = ("MNI152NLin2009cAsym", "MNI152NLin6Asym")


class AtlasShelf:
    """The asked-for atlases, each opened once per space and resolution.

    Parameters
    ----------
    wanted
        The group "atlases" is used.

    Raises
    ------
    UsageError
        If a file has no known space, or a name is unknown (with the nearest).
    MissingInput
        If a file or dataset of the user's is not there.
    CollisionError
        If two atlases would have the same name in the outputs.

    Attributes
    ----------
    names
        Canonical ids of what was asked for, in the order of the outputs.
    links
        ``DatasetLinks`` of the atlas datasets: name to folder.
    """

    def __init__(self, wanted: Atlases) -> None:
        datasets = [parse_dataset(text) for text in wanted.atlas_dataset]
        self.links = {dataset.name: dataset.root for dataset in datasets}
        if len(self.links) < len(datasets):
            msg = "two --atlas-dataset have the same name."
            raise UsageError(msg, remedy="Write NAME=PATH with different names.")
        if wanted.atlas_space and not wanted.atlas_file:
            msg = "--atlas-space is for the images of --atlas-file, and there is none."
            raise UsageError(msg, remedy="Leave it out; --space chooses the runs.")
        self._transforms = wanted.atlas_transform == "auto"
        _refuse_lone_tables(wanted.atlas_file)
        self._files = [parse_file(t, wanted.atlas_space) for t in wanted.atlas_file]
        _refuse_twins(self._files)
        named = [n for n in wanted.names if not n.startswith(_SUBJECT)]
        self._segmentations = {
            _parse_segmentation(name): name.removeprefix(_SUBJECT)
            for name in wanted.names
            if name.startswith(_SUBJECT)
        }
        self._fs_subjects_dir = wanted.fs_subjects_dir
        if self._fs_subjects_dir is not None:
            self.links["freesurfer"] = self._fs_subjects_dir
        self._catalogue: Catalogue | None = None
        self._keys: dict[str, AtlasKey] = {}
        self._maps: dict[str, str] = {}  # of the names that choose one of several
        if named or datasets:
            self._catalogue = make_catalogue(wanted, datasets)
            for name in named:
                text, _, chosen = name.partition("#")
                key = find_key(text, self._catalogue)
                named_key = name_map(key, chosen) if chosen else key
                self._keys[named_key.name] = key
                if chosen:
                    self._maps[named_key.name] = chosen
                    _refuse_volumes(key, self._catalogue)
            if not wanted.atlas:
                for dataset in datasets:
                    held = self._catalogue.keys_of(dataset.name)
                    self._keys |= {key.name: key for key in held}
        self._named = bool(wanted.atlas or datasets)
        own = [file.key.name for file in self._files]
        self.names = tuple(dict.fromkeys([*own, *self._keys, *self._segmentations]))
        self._opened: dict[tuple[object, ...], Atlas | BidsRoiError] = {}

    def is_for(self, name: str, *, surface: bool) -> bool:
        """Whether an asked-for atlas is for surfaces and grayordinates, or volumes.

        The default one, which nobody asked for, is for volumes.
        """
        kinds = [is_surface(f.image) for f in self._files if f.key.name == name]
        if name in self._segmentations:
            kinds.append(is_of_annots(self._segmentations[name]))
        elif not kinds and self._catalogue is not None and name in self._keys:
            held = self._catalogue.layouts(self._keys[name])
            kinds += [not h.is_volume for h in held if h.is_volume or self._named]
            if name in self._maps:  # a volume has none
                return surface
        return surface in kinds

    def find(
        self,
        name: str,
        space: str,
        where: Grid | Frame,
        *,
        root: Path,
        bold: Path,
        asked: bool = False,
    ) -> Atlas:
        """Find an asked-for atlas for a run: what lies as it does.

        A grid asks for a volume, in the resolution nearest to it, a frame for what is
        on its meshes. ``space`` has the cohort, where there is one (``X+1``); ``root``
        and ``bold`` are the derivative and the run's file in it, for what is the
        participant's own.
        Transforms are taken only where the run's space was ``asked`` for. What is not
        in that space, nor can be brought there, is a ``SpaceMismatch``.
        """
        if not isinstance(where, Grid):
            if where.grid is None:
                own = [file for file in self._files if file.key.name == name]
                return self._find_surface(name, own, where, root=root, bold=bold)
            where = where.grid
        reached = (
            self._transforms
            and can_be_reached(space)
            and (parse_name(bold).get("space") or "native") == space
        )
        try:
            if name in self._segmentations:
                return self._find_segmentation(
                    name, space, root, bold, reached=reached and asked
                )
            # An atlas that is in the run's space is taken as it is: a transform only
            # moves what has no version there, and each step of it costs accuracy at the
            # borders.
            if reached and asked and space not in self._spaces(name):
                return self._find_by_route(name, where, root, bold)
            return self._find_in(name, space, where)
        except SpaceMismatch as error:
            if not reached or asked:
                raise
            remedy = (
                f"{error.remedy} With --space {space} it is brought there by the"
                " transforms that fMRIPrep wrote."
            )
            raise SpaceMismatch(
                error.problem, where=error.where, remedy=remedy
            ) from error

    def open_given(self) -> tuple[Atlas, ...]:
        """Open the atlases that are given as files, but for those that are no use."""
        found = []
        for file in self._files:
            with contextlib.suppress(BidsRoiError):
                found.append(self._open(file))
        return tuple(found)

    def _spaces(self, name: str) -> list[str]:
        """Spaces that an atlas is in, fMRIPrep's own templates first."""
        found = {file.space for file in self._files if file.key.name == name}
        if not found and self._catalogue is not None and name in self._keys:
            found = set(self._catalogue.spaces(self._keys[name]))
        return sorted(found, key=lambda space: (space not in _FIRST, space))

    def _find_in(self, name: str, space: str, grid: Grid) -> Atlas:
        own = [file for file in self._files if file.key.name == name]
        for file in own:
            if file.space == space and not is_surface(file.image):
                return self._open(file)
        if own and all(is_surface(file.image) for file in own):
            msg = f"atlas {name} is of surfaces, the run is a volume."
            raise SpaceMismatch(msg, where=own[0].image, remedy=_FITTING)
        if own:
            spaces = ", ".join(sorted({file.space for file in own}))
            msg = f"atlas {name} is in space {spaces}, the run in {space}."
            raise SpaceMismatch(msg, where=own[0].image, remedy=_FITTING)
        if self._catalogue is None or name not in self._keys:
            raise UsageError(f"atlas {name} was not asked for.")
        return self._open(self._catalogue.find(self._keys[name], space, grid))

    def _find_surface(
        self, name: str, own: list[AtlasFiles], where: Frame, *, root: Path, bold: Path
    ) -> Atlas:
        if not own:
            return self._find_named_surface(name, where, root=root, bold=bold)
        found: SpaceMismatch | None = None
        for file in own:
            if is_surface(file.image):
                atlas = self._open(file)
                try:
                    own_frame = cast("Frame", load_atlas_labels(atlas.image)[1])
                    check_fit(name, own_frame, where)
                except SpaceMismatch as error:
                    found = error
                else:
                    return atlas
        if found is not None:
            raise found
        msg = f"atlas {name} is a volume, the run lies on surfaces ({where})."
        raise SpaceMismatch(msg, remedy=_FITTING)

    def _find_named_surface(
        self, name: str, where: Frame, *, root: Path, bold: Path
    ) -> Atlas:
        if name in self._segmentations:
            desc = self._segmentations[name]
            files = find_annots(root, bold, where, desc, self._fs_subjects_dir)
            atlas = self._open(files, keep=False)
        elif self._catalogue is None or name not in self._keys:
            raise UsageError(f"atlas {name} was not asked for.")
        else:
            files = self._catalogue.find(self._keys[name], "", where)
            if chosen := self._maps.get(name):
                # A table beside the file, and the columns of other layouts, are not
                # those of one of its maps.
                key = name_map(files.key, chosen)
                files = replace(
                    files,
                    key=key,
                    map_name=chosen,
                    table=None,
                    table_text=None,
                    union=None,
                )
            atlas = self._open(files)
        own_frame = cast("Frame", load_atlas_labels(atlas.image)[1])
        check_fit(name, own_frame, where)
        return atlas

    def _find_by_route(self, name: str, grid: Grid, root: Path, bold: Path) -> Atlas:
        """Take the first template that anyone in the derivative was aligned to.

        It does not depend on the participant: who lacks a transform that others have
        is an error, and not given another template.
        """
        misfits = []
        # One template for the whole derivative, or regions of two participants would
        # come from two versions of the atlas and still carry one name.
        for template in self._spaces(name):
            try:
                route = find_route(root, bold, template)
            except SpaceMismatch as error:
                misfits.append(error)
            else:
                atlas = self._find_in(name, template, grid)
                return replace(atlas, route=route.identify())
        if misfits:
            raise misfits[0]
        raise UsageError(f"atlas {name} was not asked for.")

    def _find_segmentation(
        self, name: str, space: str, root: Path, bold: Path, *, reached: bool
    ) -> Atlas:
        """Find the participant's own; for a native run the one in T1w space will do."""
        desc = self._segmentations[name]
        try:
            files = find_segmentation(root, bold, space, desc)
        except SpaceMismatch:
            if not reached or space == "T1w":
                raise
            files = find_segmentation(root, bold, "T1w", desc)
            route = find_anatomical_route(root, bold).identify()
            return replace(self._open(files, keep=False), route=route)
        return self._open(files, keep=False)

    def list_segmentations(self, space: str, root: Path, bold: Path) -> list[Path]:
        """List the files of the asked-for segmentations of a run's participant."""
        paths: list[Path | None] = []
        for desc in self._segmentations.values():
            if is_of_annots(desc):
                if space == "fsnative":
                    paths += list_annots(root, bold, desc, self._fs_subjects_dir)
                continue
            try:
                files = find_segmentation(root, bold, space, desc)
            except SpaceMismatch:
                if not self._transforms or space != "native":
                    raise
                files = find_segmentation(root, bold, "T1w", desc)
                paths += find_anatomical_route(root, bold).paths
            paths += (files.image, files.table)
        return [path for path in paths if path is not None]

    def list_transforms(self, space: str, root: Path, bold: Path) -> list[Path]:
        """List the transforms that bring the asked-for atlases to a run."""
        paths: list[Path] = []
        if self._transforms and can_be_reached(space):
            for name in self.names:
                spaces = self._spaces(name)
                for template in [] if space in spaces else spaces:
                    try:
                        paths += find_route(root, bold, template).paths
                    except SpaceMismatch:
                        continue
                    break
        return list(dict.fromkeys(paths))

    def list_files(self, spaces: Collection[str]) -> list[Path]:
        """List the files of the asked-for atlases in some spaces that are here.

        Of atlases by name, all resolutions: which is taken depends on the run's grid.
        """
        found = list(self._files)
        if self._catalogue is not None:
            for key in self._keys.values():
                found += self._catalogue.find_present(key)
        paths = [
            path.absolute()
            for files in found
            if files.space in spaces
            for path in (files.image, files.table)
            if path is not None and path.is_file()
        ]
        return list(dict.fromkeys(paths))

    def is_shared(self, name: str) -> bool:
        """Tell whether an atlas is the same for all participants, not each one's."""
        return name not in self._segmentations

    def _open(self, files: AtlasFiles, *, keep: bool = True) -> Atlas:
        """Open once; what is wrong with an atlas is found once, too."""
        key = (files.image, files.map_name, files.table, files.space, files.findings)
        if key not in self._opened:
            if not keep:  # one per run: not to be held for a thousand participants
                return open_atlas(files)
            # Errors are kept as well: a thousand runs would otherwise read a damaged
            # image a thousand times, to say the same.
            try:
                self._opened[key] = open_atlas(files)
            except BidsRoiError as error:
                self._opened[key] = error
        found = self._opened[key]
        if isinstance(found, Atlas):
            return found
        raise found


def make_catalogue(wanted: Atlases, datasets: list[Dataset]) -> Catalogue:
    """Make the catalogue of what can be asked for by name."""
    given = wanted.templateflow_home

    def target() -> Path:
        try:
            return download_home(given)
        except MissingInput:
            if given is None:
                raise
            return download_home(None)

    return Catalogue(datasets, search_path(given), None if wanted.offline else target)


def find_key(name: str, catalogue: Catalogue) -> AtlasKey:
    """Find an atlas by name, in any case of letters."""
    key = parse_atlas_name(name)
    known = catalogue.keys()
    if key in known:
        return key
    # The case of letters is forgiven and nothing else: 'Schaefer200' for 'Schaefer2018'
    # is a guess, and a guessed atlas is a wrong number without a warning.
    same = [other for other in known if other.name.casefold() == key.name.casefold()]
    if same:
        return same[0]
    # People know the templates of fMRIPrep; the archive holds other species too.
    near = nearest_atlases(
        name, sorted(known, key=lambda k: not set(_FIRST) & set(catalogue.spaces(k)))
    )
    msg = f"there is no atlas '{name}' in TemplateFlow or the folders given."
    hint = f"Nearest: {', '.join(near)}. " if near else ""
    remedy = f"{hint}`bids_roi_tools atlases` lists all; your own go to --atlas-file."
    raise UsageError(msg, remedy=remedy)


def _refuse_volumes(key: AtlasKey, catalogue: Catalogue) -> None:
    """Refuse to choose a map of an atlas that is there as volumes only."""
    if all(held.is_volume for held in catalogue.layouts(key)):
        msg = f"atlas {key.name} is a volume, and only .dlabel.nii and .gii have maps."
        raise UsageError(msg, remedy="Leave out # and what follows.")


def _refuse_twins(files: list[AtlasFiles]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for file in files:
        key = (file.key.name, file.space)
        if key in seen:
            msg = f"{seen[key]} and {file.image} would both be atlas {key[0]}."
            remedy = "Rename one of them; the name comes from atlas- or the file."
            raise CollisionError(msg, remedy=remedy)
        seen[key] = file.image


def _refuse_lone_tables(texts: Sequence[str]) -> None:
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


def _parse_segmentation(name: str) -> str:
    desc = name.removeprefix(_SUBJECT)
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


def parse_file(text: str, declared: str | None) -> AtlasFiles:
    """Understand ``IMAGE[,TABLE]`` of ``--atlas-file``.

    ``declared`` is the space of an image whose name does not tell it.
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
        space = surface_template(declared) or space_of_meshes(files)
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
    described = _describe(key.label, image)
    return AtlasFiles(
        key, space, image, table, description=described, right=right, map_name=map_name
    )


def _describe(label: str, image: Path) -> dict[str, Any]:
    """Description of an atlas from the file beside or above its image."""
    for folder in (image.parent, *list(image.parents)[1:3]):
        path = folder / f"atlas-{label}_description.json"
        if path.is_file():
            return read_json(path)
    return {}
