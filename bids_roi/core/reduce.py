"""Blocks of volumes to regional statistics, in one pass over the run.

Each volume is gathered in the order of the partition and reduced to atoms with
``reduceat`` in float64; atoms are then combined into the regions of every atlas.
The first pass takes every voxel inside the mask and finds out which of them are
usable: finite in every volume and not constant. In nearly every run those that are not
are constant zeros (outside the field of view), which add nothing to a sum, so that
only the count changes. All else is computed again, over the usable voxels alone, in a
second pass over such runs only. Which voxels enter a sum, and in which order, never
depends on how the run was cut into blocks: neither do the bits of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from numpy.typing import NDArray

    from bids_roi.core.partition import Partition

    Blocks = Callable[[], Iterable[tuple[int, NDArray[Any]]]]
    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]

__all__ = ["Reduction", "reduce_run"]

_OVERFLOW = "the values are too large: their sums are infinite"
# Statistics that constant zeros leave as they are, once the count is right.
_SUMS = frozenset({"mean", "sum"})


@dataclass(frozen=True, slots=True)
class Reduction:
    """Regional statistics of one run.

    Attributes
    ----------
    signals
        For each statistic a tuple with one (T, R) array per atlas; NaN columns for
        regions without a usable voxel. The mean is always there.
    finite : (N,)
        Voxels of the partition inside the mask and finite in every volume.
    usable : (N,)
        Those of them that are not constant.
    n_passes
        How often the run was read: 1 or 2.
    """

    signals: dict[str, tuple[FloatArray, ...]]
    finite: BoolArray
    usable: BoolArray
    n_passes: int


def reduce_run(
    read_blocks: Blocks,
    partition: Partition,
    *,
    in_mask: BoolArray,
    statistics: Collection[str],
    n_volumes: int,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> Reduction:
    """Reduce a run to the regions of every atlas.

    Parameters
    ----------
    read_blocks
        Called once per pass; yields ``(start, block)`` with blocks of (t, V) stored
        values in the order of time, valid until the next one is asked for.
    partition
        Of the run's grid.
    in_mask : (N,)
        Whether each voxel of ``partition.voxels`` is inside the mask.
    statistics
        Names from ``options.STATISTICS``; ``mean`` is added.
    n_volumes
        T.
    slope, intercept
        Value = slope * stored + intercept, as in the NIfTI header.

    Returns
    -------
    Reduction

    Raises
    ------
    ValueError
        If finite values are so large that their sum is not.
    """
    wanted = {"mean", *statistics}
    scaling = (slope, intercept)
    run = _Pass(partition, in_mask, wanted, n_volumes, scaling)
    scan = _Scan(partition.voxels[in_mask])
    for start, block in read_blocks():
        scan.look(block)
        # Once a value is not finite this pass only looks for the others.
        if not (scan.all_finite and run.add(start, block)):
            scan.check_finite(block)
    finite, usable = in_mask.copy(), in_mask.copy()
    finite[in_mask] = scan.finite
    usable[in_mask] = scan.finite & ~scan.constant
    again = _needs_second_pass(scan, wanted, scaling)
    signals = run.finish(usable) if wanted - again else {}
    if again:
        second = _Pass(partition, usable, again, n_volumes, scaling)
        for start, block in read_blocks():
            if not second.add(start, block):
                raise ValueError(_OVERFLOW)
        signals |= second.finish(usable)
    if any(np.isinf(a).any() for arrays in signals.values() for a in arrays):
        raise ValueError(_OVERFLOW)
    return Reduction(signals, finite, usable, n_passes=1 + bool(again))


def _needs_second_pass(
    scan: _Scan, wanted: set[str], scaling: tuple[float, float]
) -> set[str]:
    """Name the statistics that the voxels which are not usable have spoilt."""
    if not scan.all_finite:
        return wanted
    constants = scan.first[scan.constant]
    if constants.size == 0:
        return set()
    slope, intercept = scaling
    if np.any(constants.astype(np.float64) * slope + intercept != 0):
        return wanted
    return wanted - _SUMS


class _Scan:
    """Which voxels are finite and which never change, block after block."""

    def __init__(self, voxels: NDArray[np.intp]) -> None:
        self.voxels = voxels
        self.pending = np.arange(voxels.size)  # equal to the first volume so far
        self.first: NDArray[Any] = np.empty(0)
        self.finite = np.ones(voxels.size, dtype=bool)
        self.all_finite = True
        self._started = False

    @property
    def constant(self) -> BoolArray:
        """Voxels that never differed from the first volume."""
        constant = np.zeros(self.voxels.size, dtype=bool)
        constant[self.pending] = True
        return constant

    def look(self, block: NDArray[Any]) -> None:
        """Strike off the voxels that change in this block."""
        if not self._started:
            self.first = block[0].take(self.voxels)
            self._started = True
        if self.pending.size:
            values = block.take(self.voxels[self.pending], axis=1)
            # NaN differs from itself: such a voxel is struck off as not finite.
            same = (values == self.first[self.pending]).all(axis=0)
            self.pending = self.pending[same]

    def check_finite(self, block: NDArray[Any]) -> None:
        """Note the voxels with NaN or infinity in a block whose sums are not finite."""
        finite = np.isfinite(block.take(self.voxels, axis=1)).all(axis=0)
        if self.all_finite and finite.all():
            raise ValueError(_OVERFLOW)
        self.all_finite = False
        self.finite &= finite


class _Pass:
    """One reduction over a fixed set of voxels."""

    def __init__(
        self,
        partition: Partition,
        kept: BoolArray,
        statistics: Collection[str],
        n_volumes: int,
        scaling: tuple[float, float],
    ) -> None:
        per_atom = np.add.reduceat(kept, partition.starts, dtype=np.intp)
        atoms = np.flatnonzero(per_atom)
        self.partition = partition
        self.voxels = partition.voxels[kept]
        self.sizes = per_atom[atoms]
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.statistics = set(statistics)
        self.scaling = scaling
        self.regions = [
            _Regions(rows[atoms], region.n_regions, self.sizes)
            for rows, region in zip(partition.atom_rows, partition.maps, strict=True)
        ]
        stored = {"sum" if name in _SUMS else name for name in self.statistics}
        self.values = {
            name: [np.full((n_volumes, r.n_regions), np.nan) for r in self.regions]
            for name in stored
        }

    def add(self, start: int, block: NDArray[Any]) -> bool:
        """Reduce a block; tell whether all its sums are finite."""
        if self.voxels.size == 0:
            return True
        values = block.take(self.voxels, axis=1).astype(np.float64)  # (t, n)
        slope, intercept = self.scaling
        with np.errstate(over="ignore", invalid="ignore"):
            if slope != 1:
                values *= slope
            if intercept != 0:
                values += intercept
            sums = np.add.reduceat(values, self.starts, axis=1)  # (t, A)
        if not np.isfinite(sums).all():
            return False
        atoms = _Atoms(values, self.starts, self.sizes, sums)
        stop = start + block.shape[0]
        for number, regions in enumerate(self.regions):
            for name, arrays in self.values.items():
                arrays[number][start:stop] = regions.combine(name, atoms)
        return True

    def finish(self, usable: BoolArray) -> dict[str, tuple[FloatArray, ...]]:
        """Return the asked-for statistics; regions without a usable voxel are NaN."""
        signals = {}
        for name in self.statistics:
            arrays = self.values["sum" if name in _SUMS else name]
            per_atlas = []
            for number, array in enumerate(arrays):
                n_used = self.partition.count(number, usable).astype(np.float64)
                n_used[n_used == 0] = np.nan
                divisor = n_used if name == "mean" else n_used / n_used
                per_atlas.append(array / divisor)
            signals[name] = tuple(per_atlas)
        return signals


@dataclass(frozen=True, slots=True)
class _Atoms:
    """A block, sorted by atom: values (t, n), sums (t, A)."""

    values: FloatArray
    starts: NDArray[np.intp]
    sizes: NDArray[np.intp]
    sums: FloatArray

    def squares(self) -> FloatArray:
        """Sums of squared deviations from the atom's own mean, (t, A)."""
        means = np.repeat(self.sums / self.sizes, self.sizes, axis=1)
        deviations = self.values - means
        return np.add.reduceat(deviations * deviations, self.starts, axis=1)


class _Regions:
    """How the atoms make the regions of one atlas."""

    def __init__(
        self, rows: NDArray[np.int32], n_regions: int, sizes: NDArray[np.intp]
    ) -> None:
        self.n_regions = n_regions
        order = np.argsort(rows, kind="stable")
        self.order = order[np.searchsorted(rows[order], 0) :]  # atoms of a region
        held = rows[self.order]
        self.starts = np.flatnonzero(np.diff(held, prepend=-1))
        self.present = held[self.starts]
        self.sizes = sizes
        self.spread = np.diff(self.starts, append=held.size)

    def combine(self, name: str, atoms: _Atoms) -> FloatArray:
        """Make one statistic from the atoms, (t, R)."""
        result = np.full((atoms.sums.shape[0], self.n_regions), np.nan)
        if self.present.size:
            result[:, self.present] = getattr(self, f"_{name}")(atoms)
        return result

    def _reduce(self, how: np.ufunc, per_atom: FloatArray) -> FloatArray:
        return np.asarray(how.reduceat(per_atom[:, self.order], self.starts, axis=1))

    def _sum(self, atoms: _Atoms) -> FloatArray:
        return self._reduce(np.add, atoms.sums)

    def _minimum(self, atoms: _Atoms) -> FloatArray:
        lowest = np.minimum.reduceat(atoms.values, atoms.starts, axis=1)
        return self._reduce(np.minimum, lowest)

    def _maximum(self, atoms: _Atoms) -> FloatArray:
        highest = np.maximum.reduceat(atoms.values, atoms.starts, axis=1)
        return self._reduce(np.maximum, highest)

    def _variance(self, atoms: _Atoms) -> FloatArray:
        """Population variance over the voxels, from the atoms' own deviations.

        Chan, Golub & LeVeque (1983), doi:10.1080/00031305.1983.10483115: the squares
        about each atom's mean plus those of the atom means about the region's mean, so
        that no two large numbers are ever subtracted.
        """
        n_voxels = self._reduce(np.add, self.sizes[None].astype(np.float64))
        means = np.repeat(self._sum(atoms) / n_voxels, self.spread, axis=1)
        shifts = (atoms.sums / atoms.sizes)[:, self.order] - means
        between = self.sizes[self.order] * shifts * shifts
        between = np.add.reduceat(between, self.starts, axis=1)
        return np.asarray((self._reduce(np.add, atoms.squares()) + between) / n_voxels)

    def _standard_deviation(self, atoms: _Atoms) -> FloatArray:
        return np.sqrt(self._variance(atoms))

    def _median(self, atoms: _Atoms) -> FloatArray:
        stops = np.append(atoms.starts, atoms.values.shape[1])
        columns = []
        for first, n_atoms in zip(self.starts, self.spread, strict=True):
            members = self.order[first : first + n_atoms]
            pieces = [atoms.values[:, stops[a] : stops[a + 1]] for a in members]
            columns.append(np.median(np.concatenate(pieces, axis=1), axis=1))
        return np.stack(columns, axis=1)
