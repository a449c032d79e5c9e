"""Which voxels can be used: finite, changing, and in the field of view throughout.

fMRIPrep and its kin write 0 where a voxel lies outside the field of view, which moves
with the head. A voxel at the edge is 0 in some volumes then, and its region's mean
drops there by as much as the brain is bright. As in the HCP's pipelines (Glasser et al.
2013, doi:10.1016/j.neuroimage.2013.04.127), only voxels that are inside the field of
view in every volume count.

0 is a value like any other in data about a mean of 0, and in coarse whole numbers. So a
voxel has left the field of view only where all its other values lie on one side of 0,
and 0 is not next to them: see ``VoxelScan.judge``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    BoolArray = NDArray[np.bool_]

__all__ = ["VoxelScan", "Voxels"]

# Whole numbers that come within a step of 0 and reach no further than this are coarse:
# 0 turns up among them by chance.
_COARSE = 255


@dataclass(frozen=True, slots=True)
class Voxels:
    """What became of the voxels of a scan, (n,) each.

    Attributes
    ----------
    finite
        Finite in every volume.
    constant
        The same in every volume.
    dropout
        Outside the field of view in some volumes: exactly 0 there, and on one side of
        0 in all others. Neither constant nor with a value that is not finite.
    zero_crossing
        Exactly 0 in some volumes too, but 0 lies among or next to the other values:
        these voxels count as they are.
    blank
        Numbers of the volumes that are 0 in the whole image. They tell nothing about
        the field of view.
    """

    finite: BoolArray
    constant: BoolArray
    dropout: BoolArray
    zero_crossing: BoolArray
    blank: tuple[int, ...]

    @property
    def usable(self) -> BoolArray:
        """Finite, changing and in the field of view in every volume."""
        return self.finite & ~self.constant & ~self.dropout


class VoxelScan:
    """Looks at voxels block after block.

    Parameters
    ----------
    voxels : (n,)
        Flat indices; ``None`` for the whole grid.
    scaling
        Slope and intercept: value = slope * stored + intercept.

    Attributes
    ----------
    all_finite
        Whether every value so far was finite.
    first : (n,)
        Stored values of the first volume.
    """

    def __init__(
        self, voxels: NDArray[np.intp] | None, scaling: tuple[float, float]
    ) -> None:
        self.voxels = voxels
        self.scaling = scaling
        self.all_finite = True
        self.first: NDArray[Any] = np.empty(0)
        self._pending = np.empty(0, dtype=np.intp)  # equal to the first volume so far
        self._zero: Any = None  # as it is stored; None where nothing can be 0
        # Of the values other than 0, as stored.
        self._low: NDArray[Any] = np.empty(0)
        self._high: NDArray[Any] = np.empty(0)
        self._has_zero = np.empty(0, dtype=bool)
        self._blank: list[int] = []

    def look(self, start: int, block: NDArray[Any]) -> None:
        """Take the next block.

        Parameters
        ----------
        start
            Number of its first volume.
        block : (t, V)
            Stored values.
        """
        values = block if self.voxels is None else block.take(self.voxels, axis=1)
        if start == 0:
            self._begin(values)
        if self._pending.size:
            same = values[:, self._pending] == self.first[self._pending]
            # NaN differs from itself: such a voxel is struck off as not finite.
            self._pending = self._pending[same.all(axis=0)]
        low, high = values.min(axis=0), values.max(axis=0)
        # Only voxels with values on both sides of 0, or at it, can have zeros.
        if self._zero is not None:
            at = np.flatnonzero((low <= self._zero) & (high >= self._zero))
            if at.size:
                self._find_zeros(start, block, values, at, low, high)
        np.minimum(self._low, low, out=self._low)
        np.maximum(self._high, high, out=self._high)
        self.all_finite = bool(np.isfinite(self._low).all()) and bool(
            np.isfinite(self._high).all()
        )

    def _begin(self, values: NDArray[Any]) -> None:
        n, dtype = values.shape[1], values.dtype
        self.first = values[0].copy()
        self._pending = np.arange(n)
        self._zero = _stored_zero(dtype, self.scaling)
        smallest, largest = _bounds(dtype)
        self._low = np.full(n, largest, dtype=dtype)
        self._high = np.full(n, smallest, dtype=dtype)
        self._has_zero = np.zeros(n, dtype=bool)

    def _find_zeros(
        self,
        start: int,
        block: NDArray[Any],
        values: NDArray[Any],
        at: NDArray[np.intp],
        low: NDArray[Any],
        high: NDArray[Any],
    ) -> None:
        """Note zeros, and leave them out of the block's extremes."""
        part = values[:, at]
        zeros = part == self._zero
        hit = zeros.any(axis=0)
        at, part, zeros = at[hit], part[:, hit], zeros[:, hit]
        smallest, largest = _bounds(part.dtype)
        low[at] = np.where(zeros, largest, part).min(axis=0)
        high[at] = np.where(zeros, smallest, part).max(axis=0)
        if at.size == values.shape[1]:  # for a blank volume every voxel is hit
            for t in np.flatnonzero(zeros.all(axis=1)).tolist():
                if (block[t] == self._zero).all():
                    self._blank.append(start + t)
                    zeros[t] = False
        self._has_zero[at] |= zeros.any(axis=0)

    def judge(self) -> Voxels:
        """Tell what became of the voxels, once all volumes have passed.

        A voxel with zeros has left the field of view if its other values are all above
        0 or all below it. Not so in images of whole numbers where they come within a
        step of 0 and reach no further than 255 steps: too coarse to tell.
        """
        n = self._low.size
        finite = np.isfinite(self._low) & np.isfinite(self._high)
        constant = np.zeros(n, dtype=bool)
        constant[self._pending] = True
        zeros = self._has_zero & finite & ~constant
        dropout = zeros.copy()
        if self._zero is not None:
            low = self._low[zeros].astype(np.float64) - float(self._zero)
            high = self._high[zeros].astype(np.float64) - float(self._zero)
            apart = (low > 0) | (high < 0)
            if self._low.dtype.kind in "iu":
                near = np.minimum(np.abs(low), np.abs(high))
                far = np.maximum(np.abs(low), np.abs(high))
                apart &= (near > 1) | (far > _COARSE)
            dropout[zeros] = apart
        return Voxels(
            finite=finite,
            constant=constant,
            dropout=dropout,
            zero_crossing=zeros & ~dropout,
            blank=tuple(self._blank),
        )


def _bounds(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Smallest and largest finite value of a type."""
    info = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return info.min, info.max


def _stored_zero(dtype: np.dtype[Any], scaling: tuple[float, float]) -> Any:  # noqa: ANN401
    """Stored value that stands for 0: with an intercept, the nearest that there is."""
    slope, intercept = scaling
    zero = -intercept / slope
    if dtype.kind not in "iu":
        return dtype.type(zero)
    smallest, largest = _bounds(dtype)
    zero = round(zero)
    return dtype.type(zero) if smallest <= zero <= largest else None
