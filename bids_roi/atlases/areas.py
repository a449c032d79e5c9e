"""Areas of the vertices of a run: the files that have them, and what they weigh."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi.atlases.fitting import name_density
from bids_roi.atlases.homes import download_home, search_path
from bids_roi.atlases.names import space_of
from bids_roi.atlases.skeleton import list_skeleton
from bids_roi.atlases.templateflow import download
from bids_roi.core.frame import Frame, Mesh
from bids_roi.errors import ImageError, MissingInput, UsageError
from bids_roi.files.names import parse_name
from bids_roi.files.writing import file_digest
from bids_roi.images.nifti import check_file
from bids_roi.images.surfaces import read_areas

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bids_roi.options.table import Atlases


_SIDES = {"CORTEX_LEFT": "L", "CORTEX_RIGHT": "R"}
_GIVE = "Give the surfaces of this mesh: --surface L=FILE,R=FILE."


@dataclass(frozen=True, slots=True)
class Areas:
    """Files with the areas of the meshes of a run; a key.

    Attributes
    ----------
    structures, files
        Of each hemisphere.
    digest
        SHA-256 of the files' bytes together.
    individual
        Whether they are the participant's own, and no other has them.
    """

    structures: tuple[str, ...]
    files: tuple[Path, ...]
    digest: str
    individual: bool

    def read(self) -> dict[str, NDArray[np.float64]]:
        """Read them: mm2 of each vertex of each structure."""
        return {
            structure: _read_once(path, self.digest)[1]
            for structure, path in zip(self.structures, self.files, strict=True)
        }


@functools.lru_cache(maxsize=4)
def _read_once(
    path: Path,
    digest: str,  # noqa: ARG001 - part of the key: a changed file is read again
) -> tuple[str, NDArray[np.float64]]:
    return read_areas(path)


def find_areas(
    frame: Frame, surface: str, wanted: Atlases, *, root: Path, bold: Path
) -> Areas:
    """Find the areas of the meshes of a run, and check that they are of these meshes.

    ``surface`` is what ``--surface`` says. ``root`` and ``bold`` are the derivative and
    the run's file in it.

    Raises
    ------
    MissingInput
        If a file is not there.
    ImageError
        If one is of another mesh, or of the other hemisphere.
    """
    meshes = {
        p.structure: p.support for p in frame.parts if isinstance(p.support, Mesh)
    }
    given = dict(re.findall(r"([LR])=([^,]+)", surface))
    individual = not given and (
        surface == "participant"
        or any(mesh.template.startswith("fsnative") for mesh in meshes.values())
    )
    files = []
    for structure, mesh in meshes.items():
        side = _SIDES.get(structure)
        if side is None:
            msg = f"the run has vertices of {structure}, whose areas no file tells."
            raise MissingInput(msg, where=bold, remedy="Use --vertex-weights none.")
        if given:
            if side not in given:
                msg = f"--surface names no file of hemi-{side}, which the run has."
                raise UsageError(msg, remedy=_GIVE)
            files.append(Path(given[side]))
        elif individual:
            files.append(_find_own(root, bold, mesh, side))
        else:
            files.append(_find_templates(mesh, side, wanted))
    whole = hashlib.sha256()
    for path, (structure, mesh) in zip(files, meshes.items(), strict=True):
        check_file(path)
        digest = file_digest(path)
        whole.update(digest.encode())
        _check(path, structure, mesh, *_read_once(path, digest))
    return Areas(tuple(meshes), tuple(files), whole.hexdigest(), individual)


def _check(
    path: Path, structure: str, mesh: Mesh, says: str, areas: NDArray[np.float64]
) -> None:
    side = parse_name(path).get("hemi")
    named = next((s for s, letter in _SIDES.items() if letter == side), "")
    for found, where in (
        (says, "of itself (AnatomicalStructurePrimary)"),
        (named, "in its name"),
    ):
        if found not in ("", structure):
            msg = f"the surface says {where} that it is of {found}, not {structure}."
            remedy = "The hemispheres may be swapped: give each its own file."
            raise ImageError(msg, where=path, remedy=remedy)
    if areas.size != mesh.n_vertices:
        msg = (
            f"the surface has {areas.size:,} vertices, {structure} of the run"
            f" {mesh.n_vertices:,} ({mesh})."
        )
        raise ImageError(msg, where=path, remedy=_GIVE)


def _find_own(root: Path, bold: Path, mesh: Mesh, side: str) -> Path:
    """Midthickness in ``anat`` of the session or the participant, on the run's mesh."""
    space = None if mesh.template.startswith("fsnative") else mesh.template
    participant = root / f"sub-{parse_name(bold).get('sub')}"
    for folder in (bold.parent.parent / "anat", participant / "anat"):
        found = []
        for path in sorted(folder.glob(f"*_hemi-{side}_*midthickness.surf.gii")):
            name = parse_name(path)
            density = name.get("den") in (None, name_density(mesh.n_vertices))
            if name.get("desc") is None and space_of(path) == space and density:
                found.append(path)
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            msg = f"{len(found)} midthickness surfaces are there ({names}), 1 is needed"
            raise ImageError(f"{msg}.", where=folder, remedy=_GIVE)
        if found:
            return found[0]
    words = "the participant's own mesh" if space is None else str(mesh)
    msg = f"the participant has no midthickness surface of hemi-{side} on {words}."
    raise MissingInput(msg, where=participant / "anat", remedy=_GIVE)


def _find_templates(mesh: Mesh, side: str, wanted: Atlases) -> Path:
    """Mean areas of people's vertices (vaavg) in TemplateFlow's layout.

    Not those of the template's own surface: a mean surface is smoother, and so smaller,
    than any person's.
    """
    density = name_density(mesh.n_vertices)
    home = f"tpl-{mesh.template}"
    name = f"{home}/{home}_hemi-{side}_den-{density}_desc-vaavg_midthickness.shape.gii"
    for folder in search_path(wanted.templateflow_home):
        if (folder / name).exists():
            return folder / name
    if name not in list_skeleton():
        msg = f"TemplateFlow has no areas of the vertices of {mesh}."
        raise MissingInput(msg, remedy=_GIVE)
    if wanted.offline:
        msg = f"the areas of {mesh} are not here, and --offline forbids to fetch them."
        raise MissingInput(msg, remedy=f"Fetch {name}, or: {_GIVE}")
    return download([name], download_home(wanted.templateflow_home))[0]
