"""Gaussian smoothing: of volumes, or once of the regions' weights.

Smoothing and summing over a region are both linear, so the sum of a smoothed volume
over a region is the sum of the raw volume weighted by the smoothed region: smoothing is
moved from every volume to the region (its adjoint), which is done once.

A voxel that cannot be used must not reach its neighbours either. It is left out of
every volume and the kernel is normalised to what is left of it (normalised convolution,
Knutsson & Westin 1993, doi:10.1109/CVPR.1993.341081): s = K(x m) / K(m) with m = 1 for
voxels that count and 0 for others. Where m = 1 throughout this is K(x).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from bids_roi.core.grid import Grid
    from bids_roi.core.rows import Rows


_TRUNCATE = 4.0  # scipy's and nilearn's
# Measured on a 97x115x97 grid: filtering a volume costs as much as this many products
# per voxel, axis and tap.
_FILTER_COST = 1.0


def smoothing_sigmas(fwhm: float, grid: Grid) -> tuple[float, float, float]:
    """Standard deviation of the kernel along each axis, in voxels.

    Parameters
    ----------
    fwhm
        Full width at half maximum, mm.
    grid
        Whose voxel sizes count.
    """
    x, y, z = (fwhm / (math.sqrt(8 * math.log(2)) * size) for size in grid.zooms)
    return x, y, z


def smooth_volume(
    volume: NDArray[np.float64], sigmas: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Smooth a volume, as nilearn does where all is finite.

    Parameters
    ----------
    volume : (x, y, z)
        Finite.
    sigmas
        In voxels.

    Returns
    -------
    (x, y, z)
        Borders are reflected, the kernel ends at 4 standard deviations.
    """
    from scipy import ndimage

    for axis, sigma in enumerate(sigmas):
        volume = ndimage.gaussian_filter1d(volume, sigma, axis, truncate=_TRUNCATE)
    return np.asarray(volume)


def kernel_shares(
    valid: NDArray[np.bool_], grid: Grid, sigmas: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Share of the kernel about each voxel that lies in voxels that count.

    Parameters
    ----------
    valid : (V,)
        Voxels that count.
    grid, sigmas
        Of the run.

    Returns
    -------
    (V,)
        0 to 1; 1 where the voxel itself does not count, which nobody asks for.
    """
    volume = valid.astype(np.float64).reshape(grid.shape, order="F")
    shares = smooth_volume(volume, sigmas).ravel(order="F")
    shares[~valid] = 1
    return shares


def weights_are_cheaper(
    n_voxels: NDArray[np.int64], grid: Grid, sigmas: tuple[float, float, float]
) -> bool:
    """Whether products with smoothed regions cost less than smoothing each volume.

    Parameters
    ----------
    n_voxels : (R,)
        Voxels of each region.
    grid, sigmas
        Of the run.
    """
    radii = [_radius(sigma) for sigma in sigmas]
    # A region of n voxels, about a cube, grows by the radius on each side.
    sides = np.cbrt(np.maximum(n_voxels, 1))
    grown = np.prod([sides + 2 * radius for radius in radii], axis=0)
    filtering = grid.n_voxels * sum(2 * radius + 1 for radius in radii)
    return bool(grown.sum() < _FILTER_COST * filtering)


def smooth_regions(
    matrix: Rows,
    voxels: NDArray[np.intp],
    kept: NDArray[np.bool_],
    grid: Grid,
    sigmas: tuple[float, float, float],
    valid: NDArray[np.bool_] | None = None,
) -> csr_array:
    """Weights whose product with a raw volume is the sum of the smoothed one.

    Parameters
    ----------
    matrix : (R, N) sparse
        Members of each region.
    voxels : (N,)
        Their flat indices.
    kept : (N,)
        Those of them that count.
    grid, sigmas
        Of the run.
    valid : (V,) or None
        Voxels of the grid that count; ``None`` for all.

    Returns
    -------
    (R, V) sparse
    """
    from scipy.sparse import csr_array

    shares = None if valid is None else kernel_shares(valid, grid, sigmas)

    kernels = [
        _axis_matrix(n, sigma) for n, sigma in zip(grid.shape, sigmas, strict=True)
    ]
    data: list[NDArray[np.float64]] = [np.empty(0)]
    columns: list[NDArray[np.int32]] = [np.empty(0, dtype=np.int32)]
    pointers = [0]
    for first, last in itertools.pairwise(matrix.indptr):
        positions = matrix.indices[first:last]
        members = voxels[positions[kept[positions]]]
        pointers.append(pointers[-1])
        if members.size:
            ones = np.ones(members.size)
            share = ones if shares is None else ones / shares[members]
            column, weight = _smooth_region(members, share, grid, sigmas, kernels)
            if valid is not None:
                column, weight = column[valid[column]], weight[valid[column]]
            columns.append(column.astype(np.int32))
            data.append(weight)
            pointers[-1] += column.size
    return csr_array(
        (np.concatenate(data), np.concatenate(columns), pointers),
        shape=(matrix.shape[0], grid.n_voxels),
    )


def _smooth_region(
    members: NDArray[np.intp],
    share: NDArray[np.float64],
    grid: Grid,
    sigmas: tuple[float, float, float],
    kernels: list[NDArray[np.float64]],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Apply the adjoint filter to one region, within the box that it can reach.

    Each member enters with its share, (n,).
    """
    ijk = np.unravel_index(members, grid.shape, order="F")
    weight: NDArray[Any] = np.zeros([int(np.ptp(i)) + 1 for i in ijk])
    weight[tuple(i - i.min() for i in ijk)] = share
    first = []
    for axis, (i, kernel, sigma) in enumerate(zip(ijk, kernels, sigmas, strict=True)):
        low, high = int(i.min()), int(i.max()) + 1
        start = max(0, low - _radius(sigma))
        stop = min(grid.shape[axis], high + _radius(sigma))
        # Output voxel by input voxel: transposed, it carries the region's outputs
        # back to the voxels they were made from.
        part = kernel[low:high, start:stop]
        weight = np.moveaxis(np.tensordot(part, weight, axes=(0, axis)), 0, axis)
        first.append(start)
    inside = np.nonzero(weight)
    moved = tuple(i + start for i, start in zip(inside, first, strict=True))
    column = np.ravel_multi_index(moved, grid.shape, order="F")
    order = np.argsort(column)
    return column[order], weight[inside][order]


def _radius(sigma: float) -> int:
    return int(_TRUNCATE * sigma + 0.5)


def _axis_matrix(n: int, sigma: float) -> NDArray[np.float64]:
    """The filter along an axis of ``n`` voxels as a matrix, borders included."""
    from scipy import ndimage

    identity = np.eye(n)
    return np.asarray(
        ndimage.gaussian_filter1d(identity, sigma, axis=0, truncate=_TRUNCATE)
    )
