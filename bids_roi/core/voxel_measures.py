"""Measures over the single voxels of each region: their tSNR, and how alike they are.

Both are finished from moments of each voxel, its product with the regional sum among
them: a correlation does not ask how many voxels the sum is of, and the sum of a volume
is known as soon as the volume is. Cut by points, where it is known at the end, the
series of voxels, brought to length 1, are added up instead: the mean of correlations
with one signal is the product of that signal with the mean of what was correlated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.signals import OVERFLOW, add_points

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from bids_roi.core.partition import Partition

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]
    Measured = dict[str, tuple[FloatArray | None, ...]]

# Share of the voxels' own size below which what they have in common is rounding errors.
_NOTHING = 1e-12


class VolumeMoments:
    """Moments of voxels, and of them with the sums of their regions, by volumes.

    Parameters
    ----------
    partition
        Of the run's frame.
    steady : (T,)
        Volumes that count.
    """

    def __init__(self, partition: Partition, steady: BoolArray) -> None:
        self.partition, self.steady, self.n = partition, steady, 0
        n = partition.voxels.size
        self.linear, self.square = np.zeros(n), np.zeros(n)
        self.sums, self.sum_squares = np.zeros((2, partition.n_rows))
        # By atlas of labels: of which row each of its entries is, and their products.
        self.rows = {
            atlas: rows.start + np.repeat(np.arange(m.shape[0]), np.diff(m.indptr))
            for atlas, (rows, m) in enumerate(
                zip(partition.rows, partition.members, strict=True)
            )
            if partition.maps[atlas].hard
        }
        self.products = {atlas: np.zeros(r.size) for atlas, r in self.rows.items()}

    def add(self, t: int, volume: FloatArray, sums: FloatArray) -> None:
        """Add volume t, (N,), with its sums over the regions, (sum of R,)."""
        if not self.steady[t]:
            return
        if self.n == 0:
            self.base, self.base_sums = volume.copy(), sums.copy()
        self.n += 1
        # From the first volume on, so that no two large numbers are subtracted.
        change, sums = volume - self.base, sums - self.base_sums
        self.linear += change
        self.sums += sums
        with np.errstate(over="ignore", invalid="ignore"):
            for atlas, rows in self.rows.items():
                indices = self.partition.members[atlas].indices
                self.products[atlas] += change.take(indices) * sums.take(rows)
            change *= change
            self.square += change
            self.sum_squares += sums * sums

    def finish(self, usable: BoolArray, names: Collection[str]) -> Measured:
        """Return measures, (R,) per atlas; NaN for regions without a voxel."""
        if not np.isfinite(self.square[usable]).all():
            raise ValueError(OVERFLOW)
        n = max(1, self.n)
        with np.errstate(invalid="ignore"):
            lengths = np.sqrt(np.maximum(self.square - self.linear**2 / n, 0))
            sizes = np.sqrt(np.maximum(self.sum_squares - self.sums**2 / n, 0))
        means = self.base + self.linear / n if self.n else self.linear
        changing = usable & (self.square > 0) & (lengths > 0)
        found: list[dict[str, FloatArray] | None] = []
        for atlas, members in enumerate(self.partition.members):
            if atlas not in self.rows:
                found.append(None)
                continue
            at, rows = members.indices, self.rows[atlas]
            kept = changing[at]
            at, rows = at[kept], rows[kept]
            shared = self.products[atlas][kept] - self.linear[at] * self.sums[rows] / n
            own = self.partition.rows[atlas]
            found.append(
                _finish(
                    rows - own.start,
                    means[at] / lengths[at],
                    shared / lengths[at],
                    lengths[at],
                    sizes[own],
                    n,
                )
            )
        return _by_name(found, names)


class PointMoments:
    """The same by points, which bring all volumes at once."""

    def __init__(self, partition: Partition, steady: BoolArray) -> None:
        self.partition, self.steady = partition, steady
        n, n_steady = partition.voxels.size, int(steady.sum())
        self.totals, self.units = np.zeros((2, partition.n_rows, n_steady))
        self.means, self.lengths = np.zeros((2, n))

    def add(self, at: slice, series: FloatArray) -> None:
        """Add points, (m, T); 0 throughout for those that cannot be used."""
        part = np.ascontiguousarray(series[:, self.steady])
        if part.shape[1] < 2:
            return
        self.means[at] = part.mean(axis=1)
        changing = part.max(axis=1) > part.min(axis=1)
        part -= self.means[at][:, None]
        part[~changing] = 0.0
        with np.errstate(over="ignore"):
            self.lengths[at] = np.linalg.norm(part, axis=1)
        columns = self.partition.columns
        add_points(self.totals, columns, at, part)
        part /= np.where(self.lengths[at] > 0, self.lengths[at], 1)[:, None]
        add_points(self.units, columns, at, part)

    def finish(self, usable: BoolArray, names: Collection[str]) -> Measured:
        """Return measures, as by volumes."""
        if not np.isfinite(self.lengths).all():
            raise ValueError(OVERFLOW)
        changing = usable & (self.lengths > 0)
        sizes = np.linalg.norm(self.totals, axis=1)
        alike = np.einsum("ij,ij->i", self.units, self.totals)
        found: list[dict[str, FloatArray] | None] = []
        for atlas, members in enumerate(self.partition.members):
            if not self.partition.maps[atlas].hard:
                found.append(None)
                continue
            rows = np.repeat(np.arange(members.shape[0]), np.diff(members.indptr))
            kept = changing[members.indices]
            at, rows, own = (
                members.indices[kept],
                rows[kept],
                self.partition.rows[atlas],
            )
            each = np.maximum(np.bincount(rows, minlength=members.shape[0]), 1)
            found.append(
                _finish(
                    rows,
                    self.means[at] / self.lengths[at],
                    (alike[own] / each)[rows],
                    self.lengths[at],
                    sizes[own],
                    int(self.steady.sum()),
                )
            )
        return _by_name(found, names)


def _finish(
    rows: NDArray[np.intp],
    ratios: FloatArray,
    shared: FloatArray,
    lengths: FloatArray,
    sizes: FloatArray,
    n_volumes: int,
) -> dict[str, FloatArray]:
    """Measures of one atlas, from its changing voxels, (k,) each.

    Parameters
    ----------
    rows
        Region of each.
    ratios
        Mean by length: the root of the sum of squares about the mean.
    shared
        Product with the regional sum, by length.
    lengths
        Of each.
    sizes : (R,)
        Length of each regional sum.
    n_volumes
        That they are over.
    """

    def add_up(values: FloatArray) -> FloatArray:
        return np.bincount(rows, values, sizes.size).astype(np.float64)

    n = np.bincount(rows, minlength=sizes.size).astype(np.float64)
    n[n == 0] = np.nan
    # Voxels that cancel have no signal that one of them could be like.
    there = sizes > _NOTHING * add_up(lengths)
    alike = add_up(shared) / np.where(there, sizes, np.nan) / n
    return {
        "voxel_tsnr": add_up(ratios) * np.sqrt(n_volumes - 1) / n,
        "homogeneity": np.clip(alike, -1.0, 1.0),  # by rounding it is 1 and a little
    }


def _by_name(
    found: list[dict[str, FloatArray] | None], names: Collection[str]
) -> Measured:
    return {
        name: tuple(None if each is None else each[name] for each in found)
        for name in names
    }
