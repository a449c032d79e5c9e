"""Where the voxels of a pass come from: raw or smoothed, by volume or by region.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.rows import Rows
from bids_roi.core.statistics import scale_values

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    from bids_roi.core.frame import Block
    from bids_roi.core.grid import Grid
    from bids_roi.core.partition import Partition
    from bids_roi.core.scan import Voxels

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Gaussian smoothing of every volume before anything is taken from it.

    Attributes
    ----------
    grid
        Of the run.
    sigmas
        Standard deviation along each axis, in voxels.
    inside : (V,) or None
        Whether each voxel of the grid is inside the mask; ``None`` for all. Beyond it a
        0 is the background's.
    """

    grid: Grid
    sigmas: tuple[float, float, float]
    inside: BoolArray | None = None

    def find_valid(self, seen: Voxels) -> BoolArray | None:
        """Voxels that may reach their neighbours, (V,); ``None`` where all may.

        Parameters
        ----------
        seen
            Of the whole grid. What is not finite in some volume, or leaves the field of
            view inside the mask, is left out; what is constant stays, as in nilearn.
        """
        dropout = seen.dropout if self.inside is None else seen.dropout & self.inside
        valid = np.asarray(seen.finite & ~dropout)
        return None if valid.all() else valid


@dataclass(frozen=True, slots=True)
class Plan:
    """What does not change between the passes over a run.

    ``measures`` are those of single voxels that are asked for, ``steady`` (T,) the
    volumes that they and eigenvariates are over.
    """

    partition: Partition
    n_volumes: int
    scaling: tuple[float, float]
    smoothing: Smoothing | None
    measures: tuple[str, ...]
    steady: BoolArray

    def take(self, block: Block) -> tuple[NDArray[Any], slice]:
        """Values of a block, (t, m), that a pass needs, and which of all that it needs.

        Those are the voxels of the partition, or all of the grid for smoothing.
        """
        if self.smoothing is not None:
            return block.values, slice(0, block.values.shape[1])
        voxels, first = self.partition.voxels, block.points.start
        if block.picked:
            return block.values, slice(0, voxels.size)
        if block.values.shape[1] == self.partition.n_points:
            return block.values.take(voxels, axis=1), slice(0, voxels.size)
        start, stop = np.searchsorted(voxels, [first, block.points.stop]).tolist()
        wanted = voxels[start:stop] - first
        if wanted.size and wanted[-1] - wanted[0] == wanted.size - 1:  # a stretch
            stretch = slice(int(wanted[0]), int(wanted[-1]) + 1)
            return block.values[:, stretch], slice(start, stop)
        # Cut by points, each point's series is contiguous, and stays so.
        series = block.values.T.take(wanted, axis=0)
        return series.T, slice(start, stop)


class _RawVolumes:
    """Voxels as they are; what is not kept counts as 0 and so adds nothing."""

    def __init__(self, plan: Plan, kept: BoolArray) -> None:
        self.project = plan.partition.project
        self.scaling = plan.scaling
        self.left_out = np.flatnonzero(~kept)

    def load(self, taken: NDArray[Any]) -> FloatArray:
        values = scale_values(taken, self.scaling)
        values[self.left_out] = 0.0
        return values


class _SmoothedVolumes(_RawVolumes):
    """Smooth each volume as a whole; for whatever is not a sum."""

    def __init__(
        self, plan: Plan, kept: BoolArray, smoothing: Smoothing, valid: BoolArray | None
    ) -> None:
        super().__init__(plan, kept)
        self.voxels, self.smoothing = plan.partition.voxels, smoothing
        self.invalid, self.shares = None, None
        if valid is not None:
            self.invalid = np.flatnonzero(~valid)
            shares = _kernel_shares(valid, smoothing.grid, smoothing.sigmas)
            self.shares = shares[self.voxels]

    def load(self, taken: NDArray[Any]) -> FloatArray:
        values = scale_values(taken, self.scaling)
        if self.invalid is not None:
            values[self.invalid] = 0.0
        values = values.reshape(self.smoothing.grid.shape, order="F")
        smooth = smooth_volume(values, self.smoothing.sigmas)
        values = smooth.ravel(order="F").take(self.voxels)
        if self.shares is not None:
            values /= self.shares
        values[self.left_out] = 0.0
        return values


class _SmoothedRegions:
    """Smooth the regions once instead, those of all atlases; for sums over labels."""

    def __init__(
        self, plan: Plan, kept: BoolArray, smoothing: Smoothing, valid: BoolArray | None
    ) -> None:
        partition = plan.partition
        weights = smooth_regions(
            Rows.stack([*partition.members]),
            partition.voxels,
            kept,
            smoothing.grid,
            smoothing.sigmas,
            valid,
        )
        reached = np.zeros(smoothing.grid.n_voxels, dtype=bool)
        reached[weights.indices] = True
        self.voxels = np.flatnonzero(reached)
        self.matrix = weights[:, self.voxels]
        self.scaling = plan.scaling

    def project(self, values: FloatArray) -> FloatArray:
        return np.asarray(self.matrix @ values)

    def load(self, taken: NDArray[Any]) -> FloatArray:
        return scale_values(taken.take(self.voxels), self.scaling)


Source = _RawVolumes | _SmoothedRegions


def choose_sources(
    plan: Plan, kept: BoolArray, valid: BoolArray | None, *, voxels: bool
) -> tuple[Source, Source | None]:
    """Of two ways to smooth that give the same numbers, take the cheaper for sums.

    Parameters
    ----------
    plan
        Of the run.
    kept : (N,)
        Voxels of the partition that count.
    valid : (V,) or None
        Voxels of the grid that may reach their neighbours; ``None`` for all.
    voxels
        Whether something needs the voxels themselves. The way of the sums does not
        depend on it, nor do their last digits.

    Returns
    -------
    sums
        Its ``load`` turns what the plan took of a volume into what its ``project`` sums
        up.
    singles
        Where voxels come from, if they are needed and ``sums`` does not load them.
    """
    smoothing, partition = plan.smoothing, plan.partition
    if smoothing is not None and all(region.hard for region in partition.maps):
        sizes = np.concatenate([np.diff(part.indptr) for part in partition.members])
        if weights_are_cheaper(sizes, smoothing.grid, smoothing.sigmas):
            sums = _SmoothedRegions(plan, kept, smoothing, valid)
            return sums, load_voxels(plan, kept, valid) if voxels else None
    return load_voxels(plan, kept, valid), None


def load_voxels(plan: Plan, kept: BoolArray, valid: BoolArray | None) -> _RawVolumes:
    """Where the voxels themselves come from; see ``choose_sources``."""
    if plan.smoothing is None:
        return _RawVolumes(plan, kept)
    return _SmoothedVolumes(plan, kept, plan.smoothing, valid)


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


def smooth_volume(volume: FloatArray, sigmas: tuple[float, float, float]) -> FloatArray:
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


def _kernel_shares(
    valid: BoolArray, grid: Grid, sigmas: tuple[float, float, float]
) -> FloatArray:
    """Share of the kernel about each voxel in voxels that count; 1 at others, (V,)."""
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
    kept: BoolArray,
    grid: Grid,
    sigmas: tuple[float, float, float],
    valid: BoolArray | None = None,
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

    shares = None if valid is None else _kernel_shares(valid, grid, sigmas)
    kernels = [
        _axis_matrix(n, sigma) for n, sigma in zip(grid.shape, sigmas, strict=True)
    ]
    data: list[FloatArray] = [np.empty(0)]
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
    share: FloatArray,
    grid: Grid,
    sigmas: tuple[float, float, float],
    kernels: list[FloatArray],
) -> tuple[NDArray[np.intp], FloatArray]:
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


def _axis_matrix(n: int, sigma: float) -> FloatArray:
    """The filter along an axis of ``n`` voxels as a matrix, borders included."""
    from scipy import ndimage

    identity = np.eye(n)
    return np.asarray(
        ndimage.gaussian_filter1d(identity, sigma, axis=0, truncate=_TRUNCATE)
    )
