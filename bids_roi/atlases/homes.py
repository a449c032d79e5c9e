"""Folders in TemplateFlow's layout: where they are looked for, and what they hold."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bids_roi.atlases.names import AtlasKey, key_of_file, space_of
from bids_roi.errors import MissingInput
from bids_roi.files.names import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


# Set in container images that bring atlases along.
_IMAGE_COPY = "BIDS_ROI_TEMPLATEFLOW"
_KINDS = ("dseg", "probseg")
_KIND_OF = {".label.gii": "surface", ".dlabel.nii": "dlabel"}
# Tables of TemplateFlow whose names do not match their images'.
_MISSPELT = {"CerebA": "CerebrA"}


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An atlas image of the archive, present or not.

    Attributes
    ----------
    key
        The atlas.
    space
        Template, with its cohort (``UNCInfant+1``).
    kind
        ``dseg`` or ``probseg`` of volumes, as the name says; ``dlabel``; ``surface`` of
        a hemisphere or two.
    res
        Label of ``res-``, blank where there is none; an index, not millimetres.
    path
        Relative to the home; of the left hemisphere where there are two.
    right
        Of the right hemisphere; blank where there is none.
    den
        Label of ``den-`` (``10k``), blank where there is none.
    """

    key: AtlasKey
    space: str
    kind: str
    res: str
    path: str
    right: str = ""
    den: str = ""

    @property
    def is_volume(self) -> bool:
        """Whether it is an image of voxels alone."""
        return self.kind in _KINDS

    @property
    def is_usable(self) -> bool:
        """Whether it is more than one hemisphere or a flat map."""
        return self.is_volume or self.kind == "dlabel" or bool(self.right)

    @property
    def paths(self) -> tuple[str, ...]:
        """Its image, or those of left and right."""
        return (self.path, self.right) if self.right else (self.path,)


def search_path(
    given: Path | None, environ: Mapping[str, str] | None = None
) -> tuple[Path, ...]:
    """Folders to look for atlases in, in order; none is created or written.

    ``--templateflow-home``, ``TEMPLATEFLOW_HOME``, the copy in the container image,
    TemplateFlow's own default, and the folder that ``download_home`` falls back to.
    """
    environ = os.environ if environ is None else environ
    caches = _caches(environ)
    named = [given, environ.get("TEMPLATEFLOW_HOME"), environ.get(_IMAGE_COPY)]
    folders = [Path(folder) for folder in named if folder]
    folders += [cache / "templateflow" for cache in caches]
    folders += [cache / "bids_roi" / "templateflow" for cache in caches]
    return tuple(dict.fromkeys(folder.absolute() for folder in folders))


def download_home(given: Path | None, environ: Mapping[str, str] | None = None) -> Path:
    """Choose the folder that downloads go to.

    The folder given by the user, else a home that is in use. An empty home is left
    alone: with a few files in it, TemplateFlow's client would take it for complete, and
    every other tool of the user would find nothing else.
    """
    environ = os.environ if environ is None else environ
    caches = _caches(environ)
    tried = []
    if given is not None:
        tried.append(given.absolute())
    else:
        homes = [Path(h) for h in [environ.get("TEMPLATEFLOW_HOME")] if h]
        homes += [cache / "templateflow" for cache in caches]
        tried += [home.absolute() for home in homes if any(home.glob("tpl-*"))]
        tried += [cache / "bids_roi" / "templateflow" for cache in caches]
    for folder in tried:
        if _can_write(folder):
            return folder
    where = ", ".join(map(str, tried)) or "no home folder"
    msg = f"there is no folder that downloads can be written to ({where})."
    raise MissingInput(msg, remedy="Name one with --templateflow-home.")


def _caches(environ: Mapping[str, str]) -> list[Path]:
    cache, home = environ.get("XDG_CACHE_HOME"), environ.get("HOME")
    if cache:
        return [Path(cache).absolute()]
    return [Path(home).absolute() / ".cache"] if home else []


def _can_write(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def list_folder(home: Path) -> dict[str, int]:
    """List images, tables and JSON of a home or dataset: relative path to size.

    Only names that begin with ``tpl-`` or ``atlas-``, in folders that do, and one
    ``anat`` or ``cohort`` folder down.
    """
    found: dict[str, int] = {}
    patterns = ("tpl-*", "tpl-*/tpl-*", "tpl-*/*/tpl-*", "tpl-*/*/*/tpl-*")
    for pattern in (*patterns, "atlas-*", "tpl-*/atlas-*", "tpl-*/*/atlas-*"):
        for path in home.glob(pattern):
            if re.search(r"\.(nii|nii\.gz|tsv|json|gii)$", path.name):
                try:
                    size = path.stat().st_size
                except OSError:  # a link to annexed content that is not here
                    size = 0
                found[path.relative_to(home).as_posix()] = size
    return dict(sorted(found.items()))


def scan_names(names: Iterable[str]) -> list[HeldImage]:
    """Find the atlas images among file names, sorted; left and right are one."""
    held, everything = [], set(names)
    for path in everything:
        name = parse_name(path)
        entities = dict(name.entities)
        space = space_of(path)
        if name.suffix not in _KINDS or "atlas" not in entities or space is None:
            continue
        if {"label", "stat"} & set(entities):  # one region's surface; confidence
            continue
        kind = _KIND_OF.get(name.extension, name.suffix)
        right = ""
        if kind == "surface":
            other = path.replace("_hemi-L_", "_hemi-R_")
            if (
                "_hemi-R_" in path
                and path.replace("_hemi-R_", "_hemi-L_") in everything
            ):
                continue
            right = other if other != path and other in everything else ""
        elif kind == name.suffix and name.extension not in (".nii", ".nii.gz"):
            continue
        held.append(
            HeldImage(
                key=key_of_file(path),
                space=space,
                kind=kind,
                res=entities.get("res", ""),
                path=path,
                right=right,
                den=entities.get("den", ""),
            )
        )
    return sorted(
        held, key=lambda h: (h.space, h.key.name, h.kind, h.res, len(h.den), h.path)
    )


def choose_table(image: str, names: Iterable[str]) -> str | None:
    """Choose the table of an image: the one that says most, and nothing else.

    Every entity of a table must be the image's too; in the image's folder or above it.
    TemplateFlow has tables without ``res-`` and ``desc-``, a dseg table for a probseg
    image, and one that is misspelt (CerebA).
    """
    own = parse_name(image)
    entities, folders = dict(own.entities), set(PurePosixPath(image).parents)
    ranked = []
    for name in names:
        if not name.endswith(".tsv"):
            continue
        table = parse_name(name)
        said = dict(table.entities)
        said["atlas"] = _MISSPELT.get(said.get("atlas", ""), said.get("atlas", ""))
        fits = said.items() <= entities.items()
        if fits and table.suffix in _KINDS and PurePosixPath(name).parent in folders:
            ranked.append((table.suffix == own.suffix, len(said), name))
    return max(ranked)[2] if ranked else None
