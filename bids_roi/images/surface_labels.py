"""Labels of one hemisphere: label.gii of any writer, and FreeSurfer's .annot."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.errors import AtlasError
from bids_roi.images.gifti_arrays import read_arrays
from bids_roi.images.label_table import Label, LabelledPoints, choose_map
from bids_roi.images.markup import located
from bids_roi.images.meshes import MOST_VERTICES
from bids_roi.images.nifti import check_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


_MOST_ENTRIES = 2**17
_LONGEST_NAME = 2**12
_LARGEST_ANNOT = 2**28  # bytes; 8 for a vertex
_CHOOSE = "Choose a .label.gii or .annot file."


def read_surface_labels(path: Path, wanted: str | None = None) -> LabelledPoints:
    """Read the labels of all vertices of a hemisphere.

    Parameters
    ----------
    path
        Ends in ``.annot``, ``.gii`` or ``.gii.gz``. Keys of an annot are the packed
        colours: red + 256 green + 65536 blue.
    wanted
        Name or number of the map, see ``choose_map``.

    Raises
    ------
    MissingInput
        If the file cannot be read at all.
    AtlasError
        If it is damaged, or holds no labels.
    """
    check_file(path)
    with located(path, AtlasError):
        if path.suffix == ".annot":
            return _read_annot(path)
        return _read_label_gii(path, wanted)


def read_hemisphere(path: Path) -> str:
    """Structure that a GIFTI file says it is of, ``CORTEX_LEFT``; blank if it does not.

    Raises
    ------
    MissingInput, AtlasError
        As for ``read_surface_labels``.
    """
    if path.suffix == ".annot":
        return ""
    check_file(path)
    with located(path, AtlasError):
        for reading in read_arrays(path):
            if reading.has_values:
                return reading.structure
    return ""


def _read_label_gii(path: Path, wanted: str | None) -> LabelledPoints:
    # Twice, because which map is wanted is known when all names are.
    names: list[str] = []
    table: Sequence[Label] = ()
    for reading in read_arrays(path):
        names, table = reading.names, reading.labels
        reading.rows.clear()
        for head in reading.heads:
            if np.dtype(head.dtype).kind not in "iu":
                msg = "the arrays hold fractions (floats), labels are whole numbers."
                remedy = f"{_CHOOSE} `wb_command -metric-label-import` makes one."
                raise AtlasError(msg, remedy=remedy)
            if len(head.lengths) != 1 or head.intent in ("TRIANGLE", "NODE_INDEX"):
                shape = " x ".join(map(str, head.lengths))
                msg = f"an array of {head.intent} has the axes {shape}: no labels."
                raise AtlasError(msg, remedy=_CHOOSE)
    if not names:
        raise AtlasError("the file holds no arrays.", remedy=_CHOOSE)
    number, told = choose_map(names, wanted)
    rows: list[NDArray[Any]] = []
    for reading in read_arrays(path):
        while reading.rows:
            which, some = reading.rows.popleft()
            if which == number:
                rows.append(some)
    keys = np.concatenate(rows).ravel().astype(np.int64)
    # 32 bits with a sign make the larger half of the packed colours negative.
    known = np.array([label.key for label in table], np.int64)
    keys += 2**32 * ((keys < 0) & np.isin(keys + 2**32, known))
    return LabelledPoints(keys, tuple(table), names[number], told)


class _Numbers:
    """Big-endian numbers and names of an annot, read in order."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def take(self, n_bytes: int) -> bytes:
        stop = self.at + n_bytes
        if n_bytes < 0 or stop > len(self.content):
            msg = f"the file ends, or is damaged, at byte {self.at:,}."
            raise AtlasError(msg, remedy="Copy or download it again.")
        taken = self.content[self.at : stop]
        self.at = stop
        return taken

    def number(self, most: int = 2**31) -> int:
        (value,) = struct.unpack(">i", self.take(4))
        if not -most <= value <= most:
            msg = f"the file holds {value:,} where at most {most:,} can be."
            raise AtlasError(msg, remedy="Copy or download it again.")
        return int(value)

    def name(self) -> str:
        text = self.take(self.number(_LONGEST_NAME))
        return text.split(b"\0")[0].decode(errors="replace").strip()


def _read_annot(path: Path) -> LabelledPoints:
    with path.open("rb") as file:
        content = file.read(_LARGEST_ANNOT + 1)
    if len(content) > _LARGEST_ANNOT:
        msg = f"the file is larger than {_LARGEST_ANNOT // 2**20} MiB."
        raise AtlasError(msg, remedy=_CHOOSE)
    file_of = _Numbers(content)
    n_vertices = file_of.number(MOST_VERTICES)
    pairs = np.frombuffer(file_of.take(8 * n_vertices), ">i4").reshape(-1, 2)
    vertices = pairs[:, 0]
    if n_vertices < 1 or not (np.sort(vertices) == np.arange(n_vertices)).all():
        msg = f"the file does not hold each of its {n_vertices:,} vertices once."
        raise AtlasError(msg, remedy="Copy or download it again.")
    keys = np.zeros(n_vertices, np.int64)
    keys[vertices] = pairs[:, 1].astype(np.int64) & 0xFFFFFFFF
    if file_of.at == len(content) or not file_of.number():
        msg = "the file has no colour table, which names its labels."
        remedy = "Write it again with its table (`mris_ca_label`, `mri_surf2surf`)."
        raise AtlasError(msg, remedy=remedy)
    return LabelledPoints(keys, tuple(_read_colours(file_of)))


def _read_colours(file_of: _Numbers) -> list[Label]:
    n_entries = file_of.number()
    numbered = n_entries < 0  # format 2, which may leave numbers out
    if numbered:
        if n_entries != -2:
            msg = f"the colour table is of version {-n_entries}, 1 and 2 can be read."
            raise AtlasError(msg, remedy="Convert it with FreeSurfer.")
        file_of.number()
    file_of.name()  # the file that it was made from
    n_entries = file_of.number(_MOST_ENTRIES) if numbered else n_entries
    labels = []
    for _ in range(n_entries):
        if numbered:
            file_of.number()
        name = file_of.name()
        red, green, blue, transparency = (file_of.number(255) for _ in range(4))
        key = red + (green << 8) + (blue << 16)
        rgba = red / 255, green / 255, blue / 255, 1 - transparency / 255
        labels.append(Label(key, name, rgba))
    return labels
