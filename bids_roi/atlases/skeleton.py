"""What TemplateFlow holds, from the list inside its wheel: no network, no import.

Importing ``templateflow`` unpacks 2,500 files into the user's home where there are
none; the zip inside the package is found and read without executing any of it. Files
that it lists with content (tables, JSON) are whole; images are listed with 0 bytes.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_roi.errors import MissingInput


@dataclass(frozen=True, slots=True)
class TemplateGrid:
    """Grid of one resolution of a template.

    Attributes
    ----------
    shape
        Voxels along x, y, z.
    zooms
        Millimetres.
    origin
        Centre of the left-posterior-inferior corner voxel, mm.
    """

    shape: tuple[int, ...]
    zooms: tuple[float, ...]
    origin: tuple[float, ...]

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm^3."""
        return math.prod(self.zooms)


@functools.cache
def _zip_path() -> Path:
    # Looking for a top-level package does not execute it.
    spec = importlib.util.find_spec("templateflow")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "conf" / "templateflow-skel.zip"
        if path.is_file():
            return path
    msg = "the package templateflow, which holds the list of atlases, is not there."
    raise MissingInput(msg, remedy="Install it: pip install templateflow.")


@functools.cache
def _archive() -> zipfile.ZipFile:
    # In memory, 1.3 MB: an open file would share its position with forked workers.
    return zipfile.ZipFile(io.BytesIO(_zip_path().read_bytes()))


@functools.cache
def list_skeleton() -> dict[str, int]:
    """List every file of TemplateFlow's archive, with the size that the list has.

    By relative path (``tpl-X/tpl-X_res-01_T1w.nii.gz``); 0 for what must be downloaded.
    Empty where templateflow is not installed.
    """
    try:
        items = _archive().infolist()
    except MissingInput:
        return {}
    return {item.filename: item.file_size for item in items if not item.is_dir()}


def read_skeleton(name: str) -> bytes:
    """Read a table or JSON out of the list; a ``KeyError`` if it has no such file."""
    return _archive().read(name)


@functools.cache
def template_description(template: str) -> dict[str, Any]:
    """Read the description of a template: its grids per resolution, its licence.

    ``template`` is without ``tpl-`` and cohort; empty where there is no such template.
    """
    name = f"tpl-{template}/template_description.json"
    if name not in list_skeleton():
        return {}
    content = json.loads(read_skeleton(name))
    return content if isinstance(content, dict) else {}


@functools.cache
def template_grids() -> dict[str, dict[str, TemplateGrid]]:
    """Collect the grids of every template: template to ``res-`` label to grid.

    A cohort's own grids stand under ``X+1``.
    """
    found: dict[str, dict[str, TemplateGrid]] = {}
    for name in list_skeleton():
        folder, _, file = name.partition("/")
        if file != "template_description.json":
            continue
        template = folder.removeprefix("tpl-")
        content = template_description(template)
        places = {template: content.get("res")}
        cohorts = content.get("cohort")
        if isinstance(cohorts, dict):
            for label, cohort in cohorts.items():
                own = cohort.get("res") if isinstance(cohort, dict) else None
                places[f"{template}+{label}"] = own or content.get("res")
        for place, listed in places.items():
            if isinstance(listed, dict):
                grids = {res: _grid(entry) for res, entry in listed.items()}
                found[place] = {res: g for res, g in grids.items() if g is not None}
    return found


def _grid(entry: object) -> TemplateGrid | None:
    try:
        shape = tuple(int(n) for n in entry["shape"])  # type: ignore[index]
        zooms = tuple(float(z) for z in entry["zooms"])  # type: ignore[index]
        origin = tuple(float(x) for x in entry["origin"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return None
    return TemplateGrid(shape, zooms, origin) if len(zooms) == 3 else None
