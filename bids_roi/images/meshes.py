"""Template surfaces: how many vertices each has, and which one a file can be on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bids_roi.core.frame import Frame


from bids_roi.core.frame import Mesh
from bids_roi.errors import SpaceMismatch

# Vertices of a hemisphere at each density (TemplateFlow's den-3k, 10k, 32k, ...).
_COUNTS = {
    "fsLR": (4_002, 7_842, 32_492, 59_292, 163_842),
    "fsaverage": (642, 2_562, 10_242, 40_962, 163_842),
    "onavg": (10_242, 40_962, 163_842),
    "civet": (40_962, 163_842),
}
# FreeSurfer's names of fsaverage at one density, which fMRIPrep writes as spaces.
_FREESURFER = {
    "fsaverage3": 642,
    "fsaverage4": 2_562,
    "fsaverage5": 10_242,
    "fsaverage6": 40_962,
}
# Vertices of a hemisphere at each den-; 91k and 170k count all grayordinates.
DENSITIES = {
    "3k": 2_562,
    "4k": 4_002,
    "8k": 7_842,
    "10k": 10_242,
    "32k": 32_492,
    "41k": 40_962,
    "59k": 59_292,
    "164k": 163_842,
    "91k": 32_492,
    "170k": 59_292,
}
MOST_VERTICES = 2**24  # a hemisphere; a hundred times the finest template
_SAY_SPACE = "Name the template, with --atlas-space or as space- in the file's name."


def mesh_of(template: str | None, n_vertices: int) -> Mesh:
    """Mesh of a template with so many vertices.

    ``template`` is ``None`` where nothing names it: only fsLR has 32,492 or 59,292. One
    that is not known here, such as ``fsnative:sub-01``, has any number of vertices,
    which are counted with the medial wall.
    """
    if template is None:
        fitting = _templates_with(n_vertices)
        if len(fitting) == 1:
            return Mesh(fitting[0], n_vertices)
        which = " and ".join(fitting) or "no template that is known here"
        msg = (
            f"the meshes have {n_vertices:,} vertices a hemisphere, as {which} have;"
            " nothing tells which is meant."
        )
        raise SpaceMismatch(msg, remedy=_SAY_SPACE)
    name = "fsaverage" if template in _FREESURFER else template
    own = _FREESURFER.get(template)
    counts = _COUNTS.get(name, (n_vertices,)) if own is None else (own,)
    if n_vertices not in counts:
        known = " or ".join(f"{n:,}" for n in counts)
        fitting = _templates_with(n_vertices)
        which = f", as {' and '.join(fitting)} have" if fitting else ""
        msg = (
            f"the mesh has {n_vertices:,} vertices{which}; {template} has {known} a"
            " hemisphere."
        )
        remedy = (
            "Check the space in the file's name; `wb_command -label-resample` and"
            " `-metric-resample` bring data from one mesh to another."
        )
        raise SpaceMismatch(msg, remedy=remedy)
    return Mesh(name, n_vertices)


def _templates_with(n_vertices: int) -> list[str]:
    return [name for name, counts in _COUNTS.items() if n_vertices in counts]


def is_template(name: str) -> bool:
    """Whether both hemispheres of a mesh must be alike."""
    return name in _COUNTS


def surface_template(space: str | None) -> str | None:
    """A space if it is a template of surfaces or a participant's own, else ``None``."""
    known = space in _FREESURFER or space in _COUNTS
    own = space is not None and space.startswith("fsnative")
    return space if known or own else None


def name_density(n_vertices: int) -> str:
    """TemplateFlow's word for the vertices of a hemisphere; blank if it has none."""
    return next((den for den, n in DENSITIES.items() if n == n_vertices), "")


def meshes_of(frame: Frame) -> list[Mesh]:
    """Meshes of a frame, each once."""
    meshes = [part.support for part in frame.parts if isinstance(part.support, Mesh)]
    return list(dict.fromkeys(meshes))
