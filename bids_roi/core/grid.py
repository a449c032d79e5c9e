"""Voxel grids: when two are the same, and how labels get from one to another."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


# Voxels at the corners. Rounding in headers stays far below; a shift that would move
# a label stays far above. One tolerance, so that no pair is neither same nor resampled.
GRID_TOLERANCE = 1e-3
_PLACES = 2**16  # sampled at a time: working arrays of 2 MB


@dataclass(frozen=True, slots=True)
class Grid:
    """Shape and position of a volume.

    Attributes
    ----------
    shape
        Voxels along each of the three axes.
    affine
        The (4, 4) voxel-to-millimetre matrix (RAS+), row by row; a tuple so that grids
        can be compared and used as keys.
    """

    shape: tuple[int, int, int]
    affine: tuple[float, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], affine: FloatArray) -> Grid:
        """Make a grid from the first three axes and a (4, 4) matrix."""
        x, y, z = (int(n) for n in shape[:3])
        flat = np.asarray(affine, dtype=np.float64).ravel().tolist()
        return cls((x, y, z), tuple(flat))

    @property
    def matrix(self) -> FloatArray:
        """The affine as a (4, 4) array."""
        return np.array(self.affine).reshape(4, 4)

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Size of a voxel along each axis in mm."""
        x, y, z = np.sqrt((self.matrix[:3, :3] ** 2).sum(axis=0)).tolist()
        return x, y, z

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm^3."""
        return float(abs(np.linalg.det(self.matrix[:3, :3])))

    def __str__(self) -> str:
        """Shape, voxel size and origin, for messages."""
        shape = "x".join(map(str, self.shape))
        zooms = " x ".join(f"{z:.4g}" for z in self.zooms)
        origin = ", ".join(f"{v:.4g}" for v in self.matrix[:3, 3])
        return f"{shape} voxels of {zooms} mm, origin ({origin})"


def _between(source: Grid, target: Grid) -> FloatArray:
    """Matrix from voxel indices of ``target`` to voxel indices of ``source``."""
    return np.asarray(np.linalg.inv(source.matrix) @ target.matrix)


def same_grid(a: Grid, b: Grid) -> bool:
    """Tell whether two grids agree to 1e-3 voxel at every corner.

    >>> eye = np.eye(4)
    >>> shifted = eye.copy(); shifted[0, 3] = 2e-4
    >>> same_grid(Grid.of((4, 5, 6), eye), Grid.of((4, 5, 6), shifted))
    True
    """
    if a.shape != b.shape:
        return False
    if a.affine == b.affine:
        return True
    corners = np.array(list(itertools.product(*((0, n - 1) for n in a.shape)))).T
    there = _between(a, b) @ np.vstack([corners, np.ones(corners.shape[1])])
    return bool(np.abs(there[:3] - corners).max() <= GRID_TOLERANCE)


def resample_labels(
    labels: NDArray[Any],
    source: Grid,
    target: Grid | FloatArray,
    *,
    background: int = 0,
) -> NDArray[Any]:
    """Bring labels to other places by nearest neighbour.

    Parameters
    ----------
    labels : (x, y, z) of ``source``
        Integers or booleans.
    source
        Grid of the labels.
    target
        Grid in the same space, whose voxel centres are the places; or places of any
        other maker, (n, 3) mm (RAS+) in that space, NaN for those that have none.
    background
        Value where the source has nothing: outside the span of its voxel centres by
        more than the tolerance.

    Returns
    -------
    (x, y, z) of ``target``, or (n,); same type
    """
    if isinstance(target, Grid) and same_grid(source, target):
        return labels
    values = labels.astype(np.int32) if labels.dtype == bool else labels
    moved = _sample(values, source, target, order=0, background=background)
    return moved.astype(labels.dtype)


def resample_weights(
    weights: FloatArray, source: Grid, target: Grid | FloatArray
) -> FloatArray:
    """Bring weights to other places by linear interpolation.

    Parameters
    ----------
    weights : (x, y, z) of ``source``
    source, target
        As for ``resample_labels``.

    Returns
    -------
    (x, y, z) of ``target``, or (n,)
        0 outside the span of the source's voxel centres.
    """
    if isinstance(target, Grid) and same_grid(source, target):
        return weights
    return _sample(weights, source, target, order=1, background=0)


def _sample(
    values: NDArray[Any],
    source: Grid,
    target: Grid | FloatArray,
    *,
    order: int,
    background: int,
) -> NDArray[Any]:
    from scipy import ndimage

    if not isinstance(target, Grid):
        return _sample_at(values, source, target, order=order, background=background)
    # Between two grids the places are never written down: less time and memory.
    matrix = _between(source, target)
    linear: NDArray[Any] = matrix[:3, :3]
    if np.all(np.diag(np.diag(linear)) == linear):
        linear = np.diag(linear)
    with warnings.catch_warnings():
        # Up to SciPy 1.13 a diagonal brings a notice about SciPy 0.18.
        warnings.filterwarnings("ignore", "The behavior of affine_transform")
        moved = ndimage.affine_transform(
            values,
            linear,
            offset=matrix[:3, 3],
            output_shape=target.shape,
            order=order,
            mode="constant",
            cval=background,
        )
    # SciPy takes a centre on the border for outside by the last digit of an affine: a
    # whole face of an atlas that was cut out of the run's own grid. Most have nothing
    # there, and cost nothing.
    faces = [values.take((0, -1), axis=axis) for axis in range(3)]
    if all((face == background).all() for face in faces):
        return np.asarray(moved)
    on_border = _find_border(matrix, source.shape, target.shape)
    if len(on_border):
        centres = target.matrix
        places = on_border @ centres[:3, :3].T + centres[:3, 3]
        found = _sample_at(values, source, places, order=order, background=background)
        moved[tuple(on_border.T)] = found
    return np.asarray(moved)


def _find_border(
    matrix: FloatArray, source: tuple[int, ...], target: tuple[int, ...]
) -> NDArray[np.intp]:
    """Voxels of a target, (n, 3), on the border of a source's span, by tolerance."""
    found = []
    many = max(1, 4 * _PLACES // (target[1] * target[2]))
    for start in range(0, target[0], many):  # some sheets at a time, for memory
        part = slice(start, min(start + many, target[0]))
        indices = np.ogrid[part, : target[1], : target[2]]
        shape = np.broadcast_shapes(*(index.shape for index in indices))
        inside, border = np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool)
        for row, n in zip(matrix[:3], source, strict=True):
            # Axes that do not count are left out, so that straight grids cost nothing.
            terms = [a * index for a, index in zip(row[:3], indices, strict=True) if a]
            beyond = np.abs(sum(terms, row[3]) - (n - 1) / 2) - (n - 1) / 2
            inside &= beyond <= GRID_TOLERANCE
            border |= beyond >= -GRID_TOLERANCE
        sheets = np.argwhere(inside & border)
        sheets[:, 0] += start
        found.append(sheets)
    return np.concatenate(found)


def _sample_at(
    values: NDArray[Any],
    source: Grid,
    places: FloatArray,
    *,
    order: int,
    background: int,
) -> NDArray[Any]:
    from scipy import ndimage

    kind = values.dtype if order == 0 else np.float64
    found = np.full(len(places), background, dtype=kind)
    for start in range(0, len(places), _PLACES):
        part = slice(start, start + _PLACES)
        steps, inside = _locate(places[part], source)
        steps = steps[inside].T
        if order == 0:
            i, j, k = np.floor(steps + 0.5).astype(np.intp)
            found[part][inside] = values[i, j, k]
        else:
            found[part][inside] = ndimage.map_coordinates(
                values, steps, output=np.float64, order=1
            )
    return found


def _locate(places: FloatArray, grid: Grid) -> tuple[FloatArray, BoolArray]:
    """Steps of places, (n, 3), and whether each is in the span of voxel centres."""
    steps = find_steps(places, grid)
    last = np.array(grid.shape) - 1
    # A centre on the border must not fall out of the grid by rounding.
    inside = (steps >= -GRID_TOLERANCE) & (steps <= last + GRID_TOLERANCE)
    return np.clip(steps, 0, last), np.asarray(inside.all(axis=1))


def contains(grid: Grid, places: FloatArray) -> BoolArray:
    """Tell whether each of (n, 3) places is in the span of a grid's voxel centres."""
    return _locate(places, grid)[1]


def find_steps(places: FloatArray, grid: Grid) -> FloatArray:
    """Find where places lie along the axes of a grid.

    Parameters
    ----------
    places : (n, 3)
        mm (RAS+).
    grid
        In the same space.

    Returns
    -------
    (n, 3)
        In voxels; whole numbers are voxel centres.
    """
    inverse = np.linalg.inv(grid.matrix)
    return np.asarray(places @ inverse[:3, :3].T + inverse[:3, 3])


def nearest_voxels(
    voxels: NDArray[np.intp], source: Grid, target: Grid
) -> NDArray[np.intp]:
    """Find the target voxel in which each source voxel's centre lies.

    Parameters
    ----------
    voxels : (n,)
        Flat indices on ``source``, first axis fastest.
    source, target
        Grids in the same space.

    Returns
    -------
    (n,)
        Flat indices on ``target``, -1 where the centre lies outside its field of view.
    """
    ijk = np.array(np.unravel_index(voxels, source.shape, order="F"), dtype=np.float64)
    matrix = _between(target, source)
    moved = np.floor(matrix[:3, :3] @ ijk + matrix[:3, 3:] + 0.5).astype(np.intp)
    limits = np.array(target.shape)[:, None]
    inside = ((moved >= 0) & (moved < limits)).all(axis=0)
    flat = np.full(voxels.size, -1, dtype=np.intp)
    x, y, z = moved[:, inside]
    nx, ny, _ = target.shape
    flat[inside] = x + nx * (y + ny * z)
    return flat
