"""ITK transforms: composite HDF5 files and text files, as fMRIPrep writes them.

A file ``from-A_to-B_mode-image`` brings images from A to B; its map of *points* goes
the other way, from B to A, as each voxel of the new image asks where its value lies in
the old one. ITK's points are LPS+: x to the left, y to the back.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.warp import Affine, Field, move_points
from bids_roi.errors import DataError
from bids_roi.images.nifti import check_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

    Step = Affine | Field


_TURN = Affine(np.diag([-1.0, -1.0, 1.0]), np.zeros(3))  # RAS+ to LPS+ and back
_TYPE = re.compile(r"(\w+?)_(?:double|float)(?:_(\d+)_(\d+))?")
_COMPOSITE, _FIELD = "CompositeTransform", "DisplacementFieldTransform"
_KEYS = ("Parameters", "FixedParameters")
_TEXT_BYTES = 2**20  # an affine has 500; a list for motion correction far more
_MOST_VOXELS = 2**27  # three times the finest template there is (0.5 mm)
_MOST_STEPS = 64
_CACHE_BYTES = 2**24
_MOST_MM = 1e5  # 100 m: nothing in a scanner lies there
_INTACT = "Get the file again; ITK can check it, in Python: SimpleITK.ReadTransform."


@dataclass(frozen=True, slots=True)
class Transform:
    """A map of points in mm."""

    path: Path  # the file
    steps: tuple[Step, ...]  # of points in LPS+, in the order in which they are applied

    def apply(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move (n, 3) points in mm, RAS+ as in NIfTI."""
        return move_points(points, (_TURN, *self.steps, _TURN))

    def invert(self) -> Transform:
        """Make the map that undoes this one."""
        back = []
        for step in reversed(self.steps):
            if isinstance(step, Field):
                msg = "the transform has a displacement field: it has no exact inverse."
                remedy = "Take the file of the other direction; fMRIPrep writes both."
                raise DataError(msg, where=self.path, remedy=remedy)
            back.append(step.invert())
        return replace(self, steps=tuple(back))


def read_transform(path: Path) -> Transform:
    """Read a transform; a displacement field stays in the file until it is needed."""
    check_file(path)
    with path.open("rb") as file:
        is_hdf5 = file.read(8) == b"\x89HDF\r\n\x1a\n"
    if path.suffix == ".h5" and not is_hdf5:
        raise _damaged(path, "it does not begin as an HDF5 file does")
    found = _read_hdf5(path) if is_hdf5 else _read_text(path)
    kinds = [kind for kind, _ in found]
    if kinds[0] == _COMPOSITE:
        found, kinds = found[1:], kinds[1:]
    elif len(found) > 1:
        msg = f"the file holds {len(found)} transforms and no composite; one is needed."
        remedy = "Files with one transform per volume (desc-hmc) are for other uses."
        raise DataError(msg, where=path, remedy=remedy)
    if not found or _COMPOSITE in kinds:
        raise _damaged(path, "a composite transform holds none, or a further composite")
    # ITK applies the last transform of a composite first.
    return Transform(path, tuple(make() for _, make in reversed(found)))


_Found = list[tuple[str, "Callable[[], Step]"]]


def _read_text(path: Path) -> _Found:
    with path.open("rb") as file:
        content = file.read(_TEXT_BYTES + 1)
    if len(content) > _TEXT_BYTES:
        what = f"it is longer than {_TEXT_BYTES} bytes; an affine has some 500"
        raise _damaged(path, what)
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise _damaged(path, "it is neither HDF5 nor text") from None
    blocks: list[dict[str, str]] = []
    for line in lines:
        key, colon, value = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if key == "Transform":
            blocks.append({})
        if not (colon and blocks) or key not in ("Transform", *_KEYS):
            raise _damaged(path, f"a line is not ITK's: {line[:60]!r}")
        if key in blocks[-1]:
            raise _damaged(path, f"a transform has two lines {key!r}")
        blocks[-1][key] = value.strip()
    if not blocks:
        raise _damaged(path, "it holds no line 'Transform: ...'")
    found: _Found = []
    for block in blocks:
        kind = _parse_kind(path, block["Transform"])
        try:
            words = [block.get(key, "").split() for key in _KEYS]
            numbers = [np.array([float(word) for word in some]) for some in words]
        except ValueError as error:
            raise _damaged(path, f"a parameter is no number ({error})") from None
        if kind == _FIELD:
            raise _unknown(path, f"{block['Transform']} in a text file")
        found.append((kind, lambda k=kind, n=numbers: _make_affine(path, k, *n)))  # type: ignore[misc]
    return found


def _parse_kind(path: Path, name: str) -> str:
    match = _TYPE.fullmatch(name)
    known = {_COMPOSITE, _FIELD, *_AFFINES}
    if match is None or match[1] not in known or {match[2], match[3]} - {None, "3"}:
        raise _unknown(path, name)
    return match[1]


def _unknown(path: Path, name: str) -> DataError:
    known = ", ".join(sorted({_COMPOSITE, _FIELD, *_AFFINES}))
    msg = f"the file holds a transform that is not known: {name[:80]}."
    remedy = (
        f"Known are, in three dimensions: {known}. ANTs turns others into a field:"
        " `antsApplyTransforms -d 3 -t FILE -r T1W -o [FIELD.nii.gz,1]`."
    )
    return DataError(msg, where=path, remedy=remedy)


def _damaged(path: Path, what: str) -> DataError:
    msg = f"the file cannot be read as an ITK transform: {what}."
    return DataError(msg, where=path, remedy=_INTACT)


def _read_hdf5(path: Path) -> _Found:
    import h5py  # 25 ms, which runs in the template's space need not wait for

    with _translated(path), h5py.File(path, "r", locking=False) as file:
        group = file["TransformGroup"]
        if len(group) > _MOST_STEPS:
            raise _damaged(path, f"it holds {len(group)} transforms")
        nodes = [group[str(n)] for n in range(len(group))]
        found = [_read_node(path, node) for node in nodes]
    if not found:
        raise _damaged(path, "its TransformGroup is empty")
    return found


def _read_node(path: Path, node: h5py.Group) -> tuple[str, Callable[[], Step]]:
    kinds = node["TransformType"]
    if kinds.shape not in ((1,), ()) or kinds.dtype.kind not in "OS":
        raise _damaged(path, f"{node.name}/TransformType is not one word")
    word = kinds[()] if kinds.shape == () else kinds[0]
    text = word.decode(errors="replace") if isinstance(word, bytes) else str(word)
    kind = _parse_kind(path, text)
    if kind == _COMPOSITE:
        return kind, lambda: _TURN
    values, fixed = _find_data(path, node, "Parameters"), np.zeros(0)
    constants = _find_data(path, node, "FixedParameters")
    if constants is not None:
        fixed = _load_few(path, constants)
    if kind != _FIELD:
        numbers = np.zeros(0) if values is None else _load_few(path, values)
        return kind, lambda: _make_affine(path, kind, numbers, fixed)
    if values is None:
        raise _damaged(path, f"{node.name} has no vectors")
    name, size = values.name, values.size
    return kind, lambda: _make_field(path, fixed, name, size)


def _find_data(path: Path, node: h5py.Group, key: str) -> h5py.Dataset | None:
    # The misspelt names are those of ITK up to 4.
    for name in (f"Transform{key}", f"Tranform{key}"):
        if name in node:
            data = node[name]
            if data.shape is None:  # h5py's word for nothing
                return None
            if len(data.shape) != 1 or data.dtype not in (np.float32, np.float64):
                what = f"{data.name} holds {data.dtype} in {len(data.shape)} dimensions"
                raise _damaged(path, f"{what}; a row of floats or doubles is needed")
            return data
    return None


def _load_few(path: Path, data: h5py.Dataset) -> NDArray[np.float64]:
    if data.size > _MOST_STEPS:
        raise _damaged(path, f"{data.name} holds {data.size} numbers")
    return np.asarray(data[:], dtype=np.float64)


def _make_field(path: Path, fixed: NDArray[np.float64], name: str, size: int) -> Field:
    """Place a field that lies in the file, if its size and place make sense."""
    _check_numbers(path, _FIELD, fixed, 18)
    lengths, origin, zooms = fixed[:3], fixed[3:6], fixed[6:9]
    to_mm = fixed[9:].reshape(3, 3) * zooms
    if (lengths < 1).any() or (lengths % 1).any() or lengths.prod() > _MOST_VOXELS:
        what = " x ".join(f"{n:g}" for n in lengths)
        raise _damaged(path, f"its field has {what} voxels (up to {_MOST_VOXELS})")
    nx, ny, nz = (int(n) for n in lengths)
    if size != 3 * nx * ny * nz:
        what = f"its field has {nx} x {ny} x {nz} voxels, but {size} numbers"
        raise _damaged(path, f"{what}; {3 * nx * ny * nz} are needed")
    if (zooms <= 0).any() or not abs(np.linalg.det(to_mm)) > 1e-3 * zooms.prod():
        raise _damaged(path, "the voxels of its field have no volume")
    width = 3 * nx * ny

    @contextlib.contextmanager
    def opened() -> Iterator[Callable[[int, int], NDArray[Any]]]:
        import h5py

        # One file for all slabs: the chunk that two of them share is inflated once.
        with _translated(path):
            file = h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES)
        with file:
            with _translated(path):
                data = file[name]
                if data.chunks and data.chunks[0] * data.dtype.itemsize > _CACHE_BYTES:
                    data = data[:]  # a chunk is inflated whole, so do it once

            def read(start: int, stop: int) -> NDArray[Any]:
                with _translated(path):
                    flat = np.asarray(data[start * width : stop * width])
                bad = ~(np.abs(flat) <= _MOST_MM)  # NaN fails the comparison too
                if bad.any():
                    what = f"{int(bad.sum())} numbers of its field are not finite, or"
                    raise _damaged(path, f"{what} above {_MOST_MM:g} mm")
                return flat.reshape(stop - start, ny, nx, 3)

            yield read

    return Field((nx, ny, nz), to_mm, origin, opened)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Say what h5py meets in a damaged file in our words."""
    try:
        yield
    except (OSError, LookupError, ValueError, TypeError, RuntimeError) as error:
        word = " ".join(str(error).split())[:200] or type(error).__name__
        raise _damaged(path, word) from error
    except AttributeError as error:
        raise _damaged(path, "a group stands where data should, or data") from error


def _make_affine(
    path: Path, kind: str, values: NDArray[np.float64], fixed: NDArray[np.float64]
) -> Affine:
    """Matrix and offset of a transform about a centre: M (p - c) + c + t."""
    n_values, split = _AFFINES[kind]
    _check_numbers(path, kind, values, n_values)
    _check_numbers(path, kind, fixed, *((0, 3, 4) if kind in _ANY_CENTRE else (3, 4)))
    centre = fixed[:3] if fixed.size else np.zeros(3)
    try:
        matrix, shift = split(values, fixed)
    except ValueError:
        raise _damaged(path, "a versor is longer than 1") from None
    if not 1e-6 < abs(np.linalg.det(matrix)) < 1e6:
        what = f"the determinant of its matrix is {np.linalg.det(matrix):.3g}"
        raise _damaged(path, f"{what}; of a brain onto another it is 0.2 to 5")
    return Affine(matrix, shift + centre - matrix @ centre)


def _check_numbers(
    path: Path, kind: str, numbers: NDArray[np.float64], *needed: int
) -> None:
    if numbers.size not in needed:
        sizes = " or ".join(map(str, needed))
        what = f"{kind} has {numbers.size} numbers where {sizes} are needed"
        raise _damaged(path, what)
    if not (np.abs(numbers) <= _MOST_MM).all():
        raise _damaged(path, f"a number of {kind} is not finite, or above {_MOST_MM:g}")


_Split = tuple["NDArray[np.float64]", "NDArray[np.float64]"]


def _split_matrix(values: NDArray[np.float64], _fixed: NDArray[np.float64]) -> _Split:
    return values[:9].reshape(3, 3), values[9:]


def _split_euler(values: NDArray[np.float64], fixed: NDArray[np.float64]) -> _Split:
    """Rotations about x, y and z: Z X Y, or Z Y X where a fourth constant says so."""
    turns = []
    for axis, angle in enumerate(values[:3]):
        turn, (a, b) = np.eye(3), [i for i in range(3) if i != axis]
        sine = math.sin(angle) * (-1 if axis == 1 else 1)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -sine, sine
        turns.append(turn)
    x, y, z = turns
    zyx = fixed.size == 4 and fixed[3] != 0
    return z @ y @ x if zyx else z @ x @ y, values[3:]


def _split_versor(values: NDArray[np.float64], _fixed: NDArray[np.float64]) -> _Split:
    """A unit quaternion by its vector part; a seventh number scales."""
    x, y, z = values[:3]
    w = math.sqrt(1 - x * x - y * y - z * z)  # a ValueError where it is longer than 1
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    return turn * (values[6] if values.size == 7 else 1), values[3:6]


# Parameters, and how they become a matrix and a translation.
_AFFINES = {
    "AffineTransform": (12, _split_matrix),
    "MatrixOffsetTransformBase": (12, _split_matrix),
    "Rigid3DTransform": (12, _split_matrix),
    "Euler3DTransform": (6, _split_euler),
    "VersorRigid3DTransform": (6, _split_versor),
    "Similarity3DTransform": (7, _split_versor),
    "TranslationTransform": (3, lambda values, _fixed: (np.eye(3), values)),
    "IdentityTransform": (0, lambda *_: (np.eye(3), np.zeros(3))),
}
_ANY_CENTRE = ("TranslationTransform", "IdentityTransform")
