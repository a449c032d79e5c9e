"""Atlases: from a file of the user's or a TemplateFlow home, to one record each."""

from __future__ import annotations

import functools
import hashlib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.errors import AtlasError, CollisionError, MissingInput, UsageError
from bids_roi.io.images import check_file, read_grid, read_labels
from bids_roi.io.names import parse_name
from bids_roi.io.regions import (
    RegionTable,
    check_regions,
    read_regions,
    regions_from_labels,
)
from bids_roi.io.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid
    from bids_roi.options import Options

__all__ = ["Atlas", "AtlasShelf", "load_atlas_labels"]

_PARCELS = re.compile(r"(?P<scale>\d+)Parcels(?P<n>\d+)Networks")
_FITTING = "Choose an atlas of the same space, or the runs with --space."


@dataclass(frozen=True, slots=True)
class Atlas:
    """An atlas in one space, with its table checked against its image.

    Attributes
    ----------
    label, seg, scale
        Its BIDS entities ``atlas-``, ``seg-`` and ``scale-``.
    space
        The template it is in.
    image_path, table_path
        Its files; ``table_path`` is ``None`` where there is no table.
    image_digest, table_digest
        SHA-256 of the files' bytes.
    regions
        What becomes the columns.
    source
        BIDS URI of the image for sidecars, or empty for a file of the user's.
    description
        For ``atlas-<label>_description.json``; has ``Name`` and ``License``.
    warnings
        What was found and corrected.
    """

    label: str
    seg: str | None
    scale: str | None
    space: str
    image_path: Path
    table_path: Path | None
    image_digest: str
    table_digest: str
    regions: RegionTable
    source: str
    description: Mapping[str, Any] = field(hash=False)
    warnings: tuple[str, ...] = ()

    @property
    def entities(self) -> tuple[tuple[str, str | None], ...]:
        """``atlas-``, ``seg-`` and ``scale-`` for file names."""
        return ("atlas", self.label), ("seg", self.seg), ("scale", self.scale)

    @property
    def name(self) -> str:
        """The canonical id, ``Schaefer2018_seg-7n_scale-400`` for example."""
        return _canonical(self.label, self.seg, self.scale)


@dataclass(frozen=True, slots=True)
class _UserFile:
    image: Path
    table: Path | None
    space: str
    key: tuple[str, str | None, str | None]


class AtlasShelf:
    """The asked-for atlases, each opened once per space and resolution.

    Parameters
    ----------
    options
        ``atlas``, ``atlas_file``, ``atlas_space`` and ``templateflow_home`` are used.
    home
        Folder in TemplateFlow's layout, or ``None``.

    Raises
    ------
    UsageError
        If a user's file has no known space, or a name cannot be understood.
    MissingInput
        If an atlas is asked for by name and there is no home.
    CollisionError
        If two atlases would have the same name in the outputs.
    """

    def __init__(self, options: Options, home: Path | None) -> None:
        if options.atlas_names and (home is None or not home.is_dir()):
            raise _no_home(options.atlas_names, home)
        self._home = home
        self._names = options.atlas_names
        self._files = [
            _parse_file(text, options.atlas_space) for text in options.atlas_file
        ]
        self._opened: dict[tuple[Path, Path | None], Atlas] = {}
        for name in self._names:
            _parse_atlas_name(name)
        seen: dict[tuple[str, str], Path] = {}
        for file in self._files:
            key = (_canonical(*file.key), file.space)
            if key in seen:
                msg = f"{seen[key]} and {file.image} would both be atlas {key[0]}."
                remedy = "Rename one of them; the name comes from atlas- or the file."
                raise CollisionError(msg, remedy=remedy)
            seen[key] = file.image

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical ids of what was asked for."""
        own = dict.fromkeys(_canonical(*file.key) for file in self._files)
        named = [_canonical(*_parse_atlas_name(name)) for name in self._names]
        return tuple(dict.fromkeys([*own, *named]))

    def find(self, name: str, space: str, grid: Grid) -> Atlas:
        """Find an asked-for atlas for a run.

        Parameters
        ----------
        name
            One of ``names``.
        space
            The run's space; with its cohort, where it has one (``X+1``).
        grid
            The run's grid: the nearest resolution is taken.

        Raises
        ------
        AtlasError
            If it is not in that space (the message names the spaces it is in), or its
            image and table do not fit.
        """
        own = [file for file in self._files if _canonical(*file.key) == name]
        for file in own:
            if file.space == space:
                return self._open(file.image, file.table, file.space, file.key, "")
        if own:
            spaces = ", ".join(sorted({file.space for file in own}))
            msg = f"atlas {name} is in space {spaces}, the run in {space}."
            raise AtlasError(msg, where=own[0].image, remedy=_FITTING)
        return self._find_in_home(name, space, grid)

    def _find_in_home(self, name: str, space: str, grid: Grid) -> Atlas:
        home = self._home
        if home is None:
            raise _no_home((name,), home)
        held = _scan_home(home)
        images = [path for key, sp, path in held if key == name and sp == space]
        if not images:
            spaces = sorted({sp for key, sp, _ in held if key == name})
            others = sorted({key for key, sp, _ in held if sp == space})
            found = f"it is there in {', '.join(spaces)}" if spaces else "it holds none"
            msg = f"the folder holds no atlas {name} in space {space} ({found})."
            remedy = (
                f"In {space} it holds {', '.join(others)}."
                if others
                else f"It holds no atlas in {space}."
            )
            raise MissingInput(msg, where=home, remedy=remedy)
        image = min(images, key=lambda path: _distance(path, grid))
        label, seg, scale = _parse_atlas_name(name)
        source = f"bids:templateflow:{image.relative_to(home).as_posix()}"
        return self._open(image, _home_table(image), space, (label, seg, scale), source)

    def _open(
        self,
        image: Path,
        table: Path | None,
        space: str,
        key: tuple[str, str | None, str | None],
        source: str,
    ) -> Atlas:
        if (image, table) not in self._opened:
            labels, _ = read_labels(image, AtlasError)
            if table is None:
                regions = regions_from_labels(labels)
                warnings: tuple[str, ...] = (
                    f"{image.name} has no table: the regions are named by their value.",
                )
            else:
                check_file(table)
                regions, warnings = check_regions(read_regions(table), labels, table)
            self._opened[image, table] = Atlas(
                *key,
                space=space,
                image_path=image,
                table_path=table,
                image_digest=_digest(image),
                table_digest=_digest(table) if table else "",
                regions=regions,
                source=source,
                description=_describe(key[0], image),
                warnings=warnings,
            )
        return self._opened[image, table]


@functools.lru_cache(maxsize=16)
def load_atlas_labels(
    path: Path,
    digest: str,  # noqa: ARG001 - part of the key: a changed file is read again
) -> tuple[NDArray[np.int64], Grid]:
    """Read an atlas image once per process.

    Parameters
    ----------
    path, digest
        Of an ``Atlas``.

    Returns
    -------
    labels : (x, y, z)
    grid
    """
    return read_labels(path, AtlasError)


def _no_home(names: tuple[str, ...], home: Path | None) -> MissingInput:
    there = "no TemplateFlow home is given" if home is None else "there is no folder"
    msg = f"{', '.join(names)}: {there} to take the atlas from."
    remedy = (
        "Give --templateflow-home (or set TEMPLATEFLOW_HOME), or bring your own atlas"
        " with --atlas-file IMAGE,TABLE."
    )
    return MissingInput(msg, where=home or "", remedy=remedy)


def _canonical(label: str, seg: str | None, scale: str | None) -> str:
    pairs = (("seg", seg), ("scale", scale))
    return "_".join([label, *(f"{key}-{value}" for key, value in pairs if value)])


def _parse_atlas_name(name: str) -> tuple[str, str | None, str | None]:
    label, *rest = name.removeprefix("atlas-").split("_")
    pairs = dict(part.partition("-")[::2] for part in rest)
    if not label.isalnum() or set(pairs) - {"seg", "scale"} or "" in pairs.values():
        msg = f"'{name}' is not the name of an atlas."
        remedy = "Names look like Schaefer2018_seg-7n_scale-400."
        raise UsageError(msg, remedy=remedy)
    return label, pairs.get("seg"), pairs.get("scale")


def _parse_file(text: str, declared: str | None) -> _UserFile:
    image_text, _, table_text = text.partition(",")
    image, table = Path(image_text), Path(table_text) if table_text else None
    for path in filter(None, (image, table)):
        check_file(path)
    entities = dict(parse_name(image).entities)
    space = entities.get("tpl") or entities.get("space")
    if space and "cohort" in entities:
        space = f"{space}+{entities['cohort']}"
    space = space or declared
    if not space:
        msg = "its name does not tell the space it is in (tpl- or space-)."
        remedy = "Give it with --atlas-space, for example MNI152NLin6Asym."
        raise UsageError(msg, where=image, remedy=remedy)
    return _UserFile(image, table, space, _atlas_key(image, entities))


def _atlas_key(
    path: Path, entities: Mapping[str, str]
) -> tuple[str, str | None, str | None]:
    """Atlas entities of a file; TemplateFlow's desc- becomes seg- and scale-."""
    stem = path.name.partition(".")[0]
    label = entities.get("atlas") or re.sub(r"[^A-Za-z0-9]", "", stem)
    seg, scale = entities.get("seg"), entities.get("scale")
    desc = entities.get("desc", "")
    parcels = _PARCELS.fullmatch(desc)
    if parcels:
        return label, f"{parcels['n']}n", parcels["scale"]
    networks = re.fullmatch(r"(\d+)Networks", desc)
    if seg is None and "atlas" in entities and desc:
        seg = f"{networks[1]}n" if networks else desc
    return label, seg, scale


def _scan_home(home: Path) -> list[tuple[str, str, Path]]:
    """Label images of a home: (canonical id, space, path), sorted."""
    held = []
    for path in sorted(home.glob("tpl-*/**/*_dseg.nii.gz")):
        entities = dict(parse_name(path).entities)
        if "atlas" in entities:
            space = entities["tpl"]
            if "cohort" in entities:
                space = f"{space}+{entities['cohort']}"
            held.append((_canonical(*_atlas_key(path, entities)), space, path))
    return held


def _home_table(image: Path) -> Path | None:
    """Table of an image in a home: the same name, with or without res-."""
    exact = image.with_name(image.name.replace(".nii.gz", ".tsv"))
    bare = image.with_name(re.sub(r"_res-[^_]+", "", exact.name))
    return next((path for path in (exact, bare) if path.exists()), None)


def _distance(path: Path, grid: Grid) -> float:
    """How far an image's voxel size is from a grid's, on a log scale."""
    volume = read_grid(path, AtlasError).voxel_volume
    return abs(math.log(volume / grid.voxel_volume))


def _describe(label: str, image: Path) -> dict[str, Any]:
    """Description of an atlas from the file beside or above its image."""
    for folder in (image.parent, *list(image.parents)[1:3]):
        path = folder / f"atlas-{label}_description.json"
        if path.is_file():
            content = read_json(path)
            return {"Name": label, "License": "n/a"} | content
    return {"Name": label, "License": "n/a"}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
