"""Which labels of surfaces and grayordinates lie on the meshes of a series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_roi.atlases.surfaces import read_surface
from bids_roi.core.frame import Frame, Mesh
from bids_roi.errors import BidsRoiError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bids_roi.atlases.homes import HeldImage


# Vertices of a hemisphere at each den-; 91k and 170k count all grayordinates.
_DENSITIES = {
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
_GRAYORDINATES = ("91k", "170k")


def name_density(n_vertices: int) -> str:
    """TemplateFlow's word for the vertices of a hemisphere; blank if it has none."""
    return next((den for den, n in _DENSITIES.items() if n == n_vertices), "")


def meshes_of(frame: Frame) -> list[Mesh]:
    """Meshes of a frame, each once."""
    meshes = [part.support for part in frame.parts if isinstance(part.support, Mesh)]
    return list(dict.fromkeys(meshes))


def sort_by_fit(images: Sequence[HeldImage], where: Frame) -> list[HeldImage]:
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
            and _DENSITIES.get(held.den, mesh.n_vertices) == mesh.n_vertices
            for mesh in meshes
        )
        and (not held.den or held.den in _DENSITIES)
    ]
    return sorted(
        fitting,
        key=lambda h: (
            not h.den,
            (h.den in _GRAYORDINATES) != voxels,
            h.kind != "dlabel",
            h.path,
        ),
    )


def describe_layout(held: HeldImage) -> str:
    """Template, density and form of an image, for messages."""
    if held.is_volume:
        return f"a volume in {held.space}"
    form = "a dlabel" if held.kind == "dlabel" else "surfaces"
    return f"{form} in {held.space}" + (f" den-{held.den}" if held.den else "")


def has_meshes(path: Path, space: str, where: Frame) -> bool:
    """Whether the meshes of a dlabel file are those of a frame."""
    try:
        frame = read_surface((path,), space).frame
    except BidsRoiError:
        return False
    return set(meshes_of(frame)) == set(meshes_of(where))
