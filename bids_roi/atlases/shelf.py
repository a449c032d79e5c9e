"""The asked-for atlases: files, datasets, names, and segmentations of participants."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from bids_roi.atlases.asked import (
    SUBJECT,
    combine_atlases,
    parse_combination,
    parse_dataset,
    parse_file,
    parse_segmentation,
    read_seeds,
    refuse_lone_tables,
    refuse_twins,
)
from bids_roi.atlases.catalogue import Catalogue, Dataset
from bids_roi.atlases.names import (
    AtlasKey,
    is_surface,
    name_map,
    nearest_atlases,
    parse_atlas_name,
)
from bids_roi.atlases.open import (
    NOWHERE,
    Atlas,
    AtlasFiles,
    load_atlas_labels,
    open_atlas,
)
from bids_roi.atlases.subject import (
    can_be_reached,
    find_anatomical_route,
    find_annots,
    find_route,
    find_segmentation,
    is_of_annots,
    list_annots,
)
from bids_roi.atlases.templateflow import download_home, search_path
from bids_roi.core.frame import Mesh
from bids_roi.core.grid import Grid
from bids_roi.errors import (
    BidsRoiError,
    CollisionError,
    MissingInput,
    SpaceMismatch,
    UsageError,
)
from bids_roi.files.names import parse_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from bids_roi.core.frame import Frame
    from bids_roi.options.table import Atlases


_EYE = np.eye(4)
_FITTING = "Choose an atlas of the same space, or the runs with --space."
_SAME_MESH = "Choose an atlas of the same mesh, or the runs with --space and --den."
# Of the templates that an atlas is in, transforms are looked for from these first.
_FIRST = ("MNI152NLin2009cAsym", "MNI152NLin6Asym")


class AtlasShelf:
    """The asked-for atlases, each opened once per space and resolution."""

    def __init__(self, wanted: Atlases, runs_in: Sequence[str] = ()) -> None:
        datasets = [parse_dataset(text) for text in wanted.atlas_dataset]
        # DatasetLinks: name to folder.
        self.links = {dataset.name: dataset.root for dataset in datasets}
        if len(self.links) < len(datasets):
            msg = "two --atlas-dataset have the same name."
            raise UsageError(msg, remedy="Write NAME=PATH with different names.")
        if wanted.atlas_space and not (wanted.atlas_file or wanted.seeds):
            msg = (
                "--atlas-space is for the files of --atlas-file and --seeds, and there"
                " is none."
            )
            raise UsageError(msg, remedy="Leave it out; --space chooses the runs.")
        self._transforms = wanted.atlas_transform == "auto"
        refuse_lone_tables(wanted.atlas_file)
        self._files = [
            parse_file(text, wanted.atlas_space, runs_in) for text in wanted.atlas_file
        ]
        self._files += [
            read_seeds(Path(text), wanted.atlas_space, wanted.seed_radius)
            for text in wanted.seeds
        ]
        refuse_twins(self._files)
        self._segmentations: dict[str, str] = {}
        self._fs_subjects_dir = wanted.fs_subjects_dir
        if self._fs_subjects_dir is not None:
            self.links["freesurfer"] = self._fs_subjects_dir
        self._catalogue: Catalogue | None = None
        self._keys: dict[str, AtlasKey] = {}
        self._maps: dict[str, str] = {}  # of the names that choose one of several
        own = {file.key.name: None for file in self._files}
        combinations = dict(map(parse_combination, wanted.combine))
        part_names = [name for parts in combinations.values() for name in parts]
        named = [*wanted.names, *(n for n in part_names if self._own_name(n) is None)]
        if datasets or any(not name.startswith(SUBJECT) for name in named):
            self._catalogue = make_catalogue(wanted, datasets)
        self.combined = {
            key.name: tuple(self._own_name(n) or self._find_name(n) for n in parts)
            for key, parts in combinations.items()
        }
        # What is a part is not wanted for itself, unless --atlas names it.
        parts = {name for names in self.combined.values() for name in names}
        asked = [
            name if (name := self._own_name(n)) in parts else self._find_name(n)
            for n in wanted.names
        ]
        asked.sort(key=self._segmentations.__contains__)
        if not wanted.atlas and self._catalogue is not None:
            for dataset in datasets:
                held = {key.name: key for key in self._catalogue.keys_of(dataset.name)}
                if parts.isdisjoint(held):
                    self._keys |= held
                    asked += held
        self._named = bool(wanted.atlas or datasets or parts)
        # Canonical ids, in the order of the outputs.
        self.names = tuple(
            dict.fromkeys([*(n for n in own if n not in parts), *asked, *self.combined])
        )
        _refuse_taken(self.combined, len(wanted.combine), {*own, *asked, *parts})
        self._opened: dict[tuple[object, ...], Atlas | BidsRoiError] = {}

    def _own_name(self, text: str) -> str | None:
        """Name of the atlas of a file that is called so; ``None`` if none is."""
        for file in self._files:
            if text.casefold() in (
                file.key.name.casefold(),
                file.image.name.casefold(),
            ):
                return file.key.name
        return None

    def _find_name(self, text: str) -> str:
        """Understand the name of an atlas; the canonical one is held from now."""
        if text.startswith(SUBJECT):
            label = parse_segmentation(text)
            self._segmentations[label] = text.removeprefix(SUBJECT)
            return label
        assert self._catalogue is not None  # noqa: S101 - made for any such name
        short, _, chosen = text.partition("#")
        key = find_key(short, self._catalogue)
        name = (name_map(key, chosen) if chosen else key).name
        self._keys[name] = key
        if chosen:
            self._maps[name] = chosen
            if all(held.is_volume for held in self._catalogue.layouts(key)):
                msg = (
                    f"atlas {key.name} is a volume, and only .dlabel.nii and .gii have"
                )
                msg += " have maps."
                raise UsageError(msg, remedy="Leave out # and what follows.")
        return name

    def is_for(self, name: str, *, surface: bool) -> bool:
        """Whether an asked-for atlas is for surfaces and grayordinates, or volumes.

        The default one, which nobody asked for, is for volumes.
        """
        if name in self.combined:
            parts = self.combined[name]
            return any(self.is_for(part, surface=surface) for part in parts)
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
            if where.grid is None and name in self.combined:
                find = partial(self.find, where=where, root=root, bold=bold)
                return self._combine(name, space, find, surface=True)
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
            if not set(self.combined.get(name, ())).isdisjoint(self._segmentations):
                find = partial(
                    self.find, where=where, root=root, bold=bold, asked=asked
                )
                return self._combine(name, space, find, surface=False)
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
        own = {file.key.name for file in self._files if not is_surface(file.image)}
        for name, parts in self.combined.items():
            for space in self._spaces(name) if own.issuperset(parts) else ():
                with contextlib.suppress(BidsRoiError):
                    # Files are not chosen by the grid.
                    found.append(self._find_in(name, space, Grid.of((1,) * 3, _EYE)))
        return tuple(found)

    def _combine(
        self, name: str, space: str, find: Callable[..., Atlas], *, surface: bool
    ) -> Atlas:
        """Combine the parts, of which ``find`` finds each in a space.

        A part that only has another layout is there with its regions, all of them
        ``n/a``.
        """
        parts = [
            find(part, space=space)
            if self.is_for(part, surface=surface)
            else replace(self._open_any(name, part), kind=NOWHERE, findings=())
            for part in self.combined[name]
        ]
        key = (name, *((part.image, part.regions) for part in parts))
        if key in self._opened:
            return cast("Atlas", self._opened[key])
        atlas = combine_atlases(AtlasKey(name), parts)
        if not atlas.individual and atlas.route is None:
            self._opened[key] = atlas
        return atlas

    def _open_any(self, name: str, part: str) -> Atlas:
        """Open a part in a layout that is not the run's, for the sake of its table."""
        for file in self._files:
            if file.key.name == part:
                return self._open(file)
        if self._catalogue is None or part not in self._keys:
            msg = (
                f"{name}: the regions of subject:{self._segmentations[part]} are each"
                " participant's own, and it lies on another kind of series."
            )
            remedy = "Combine it with what lies as it does, or choose other runs."
            raise SpaceMismatch(msg, remedy=remedy)
        return self._open(self._catalogue.find_any(self._keys[part]))

    def _spaces(self, name: str) -> list[str]:
        """Spaces that an atlas is in, fMRIPrep's own templates first.

        Of a combination, those that all parts with a volume are in.
        """
        if name in self.combined:
            parts = self.combined[name]
            held = [self._spaces(p) for p in parts if self.is_for(p, surface=False)]
            return [s for s in held[0] if all(s in own for own in held)] if held else []
        found = {file.space for file in self._files if file.key.name == name}
        if not found and self._catalogue is not None and name in self._keys:
            found = set(self._catalogue.spaces(self._keys[name]))
        return sorted(found, key=lambda space: (space not in _FIRST, space))

    def _find_in(self, name: str, space: str, grid: Grid) -> Atlas:
        if name in self.combined:
            find = partial(self._find_in, grid=grid)
            return self._combine(name, space, find, surface=False)
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
                    _check_fit(name, atlas, where)
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
        _check_fit(name, atlas, where)
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
        if name in self.combined:
            told = "; ".join(f"{p}: {self._spaces(p)}" for p in self.combined[name])
            msg = f"the parts of {name} share no template ({told})."
            raise SpaceMismatch(msg, remedy="Combine atlases of one template.")
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
        """List the files of the asked-for atlases in some spaces that are here."""
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
        return self._segmentations.keys().isdisjoint(
            (name, *self.combined.get(name, ()))
        )

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


def _check_fit(name: str, atlas: Atlas, where: Frame) -> None:
    """Refuse a run that lies on other meshes than an atlas, naming both."""
    own = cast("Frame", load_atlas_labels(atlas.image)[1])
    theirs = {p.structure: p for p in where.parts if isinstance(p.support, Mesh)}
    mine = [p for p in own.parts if isinstance(p.support, Mesh)]
    for part in mine:
        other = theirs.get(part.structure)
        if other is not None and other.support != part.support:
            msg = (
                f"atlas {name} has {part.structure} on {part.support}, the run on"
                f" {other.support}."
            )
            raise SpaceMismatch(msg, remedy=_SAME_MESH)
    if not any(part.structure in theirs for part in mine):
        msg = f"atlas {name} ({own}) and the run ({where}) share no structure."
        raise SpaceMismatch(msg, remedy=_SAME_MESH)


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


def _refuse_taken(
    combined: dict[str, tuple[str, ...]], n_asked: int, others: set[str]
) -> None:
    """Refuse combinations of one name, or of that of another atlas."""
    for name, parts in combined.items():
        if name in others or len(combined) < n_asked:
            msg = f"--combine {name} has the name of another atlas or combination."
            raise CollisionError(msg, remedy="Give it another name before the =.")
        if len(set(parts)) < len(parts):
            msg = f"--combine {name} names one atlas twice ({', '.join(parts)})."
            raise UsageError(msg, remedy="Name each of its parts once.")
