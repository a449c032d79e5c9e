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
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from bids_roi.core.frame import Block

    BoolArray = NDArray[np.bool_]


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
    """Looks at voxels block after block, whichever way the run is cut.

    Parameters
    ----------
    counted : (n,)
        Voxels that matter for ``all_finite``.
    scaling
        Slope and intercept: value = slope * stored + intercept.
    n_volumes
        T, where blocks have all volumes of some points; 0 where they have all points
        of some volumes.

    Attributes
    ----------
    all_finite
        Whether every value so far of the voxels that count was finite.
    first : (n,)
        Stored values of the first volume.
    blank
        Volumes that were 0 in all points of their block, where blocks have volumes.
    """

    def __init__(
        self, counted: BoolArray, scaling: tuple[float, float], n_volumes: int = 0
    ) -> None:
        n = counted.size
        self._counted = counted
        self.scaling = scaling
        self.all_finite = True
        self.first: NDArray[Any] = np.empty(0)
        self._pending = np.empty(0, dtype=np.intp)  # equal to the first volume so far
        self._zero: Any = None  # as it is stored; None where nothing can be 0
        self._by_points = n_volumes > 0
        self._finite = np.ones(n, dtype=bool)
        self._has_zero = np.zeros(n, dtype=bool)
        self._has_more = np.zeros(n, dtype=bool)  # above 0 throughout some block
        # Of the values other than 0, as stored; of real numbers only from blocks in
        # which the voxel does not lie above 0 throughout: the rest is known.
        self._low: NDArray[Any] = np.empty(0)
        self._high: NDArray[Any] = np.empty(0)
        self.blank: list[int] = []
        # Volumes that were 0 in all points so far, where blocks have some points only.
        self._blank_so_far = np.ones(n_volumes, dtype=bool)

    def look(self, block: Block, values: NDArray[Any], at: slice) -> None:
        """Take the next block.

        Parameters
        ----------
        block
            All that it holds.
        values : (t, m)
            Stored values of those of its points that are to be looked at.
        at
            Which of the n voxels these are.
        """
        if block.volumes.start == 0:
            self._begin(values, at)
        elif self._pending.size:
            same = values.take(self._pending, axis=1) == self.first[self._pending]
            # NaN differs from itself: such a voxel is struck off as not finite.
            self._pending = self._pending[same.all(axis=0)]
        if self._zero is None:
            return
        # Nearly all series lie above 0 throughout: two numbers tell it of a block.
        # By how much they are above is asked of whole numbers that have a 0 elsewhere.
        some = values.size > 0 and (self._by_points or values.dtype.kind == "f")
        if some and values.min() > self._zero and np.isfinite(values.max()):
            self._has_more[at] = True
            if self._blank_so_far.any():
                self._blank_so_far[:] = False
                self._has_zero[: at.start] = True
            return
        if self._blank_so_far.any():
            self._rule_out_blank(block.values, at)
        if not values.size:
            return
        low = values.min(axis=0) if len(values) > 1 else values[0].copy()
        # Where one value is not a number, so are the smallest and the largest.
        smallest, largest = low.min(), values.max()
        if not (np.isfinite(smallest) and np.isfinite(largest)):
            self._finite[at] &= np.isfinite(values).all(axis=0)
            self.all_finite = bool(self._finite[self._counted].all())
        # Little is done for data above 0, and that is nearly all there are.
        more = low > self._zero if not smallest > self._zero else np.True_
        self._has_more[at] |= more
        others = np.flatnonzero(~more)  # and what is not a number
        if others.size:
            low[others] = self._look_closer(block, values, others, at)
        if values.dtype.kind in "iu":
            np.minimum(self._low[at], low, out=self._low[at])
            high = values.max(axis=0)
            np.maximum(self._high[at], high, out=self._high[at], where=more)
        elif others.size:  # of those above 0 it is no matter by how much
            where = at.start + others
            self._low[where] = np.minimum(self._low[where], low[others])

    def _begin(self, values: NDArray[Any], at: slice) -> None:
        if at.start == 0:
            n, dtype = self._finite.size, values.dtype
            self._zero = _stored_zero(dtype, self.scaling)
            if self._zero is None:  # as of scaled integers: no volume can be blank
                self._blank_so_far[:] = False
            smallest, largest = _bounds(dtype)
            self.first = np.empty(n, dtype=dtype)
            self._low = np.full(n, largest, dtype=dtype)
            self._high = np.full(n, smallest, dtype=dtype)
        self.first[at] = values[0]
        # Nearly all differ in the next volume already, and are looked at no further.
        same = np.flatnonzero(values[min(1, len(values) - 1)] == values[0])
        same = same[(values[:, same] == values[0, same]).all(axis=0)]
        self._pending = np.concatenate([self._pending, at.start + same])

    def _rule_out_blank(self, values: NDArray[Any], at: slice) -> None:
        """Strike off volumes that are not 0 in all points of a block.

        The points before it were all 0 there, which was not held against them.
        """
        candidates = np.flatnonzero(self._blank_so_far)
        blank = (values[candidates] == self._zero).all(axis=1)
        if not blank.all():
            self._blank_so_far[candidates[~blank]] = False
            self._has_zero[: at.start] = True

    def recheck_blank(self, blocks: Iterable[Block]) -> None:
        """Strike off volumes that are 0 in the points that were looked at alone.

        Blocks are of all points. The zeros of such a volume were not held against the
        points, of which each has one there.
        """
        for block in blocks:
            for volume, values in enumerate(block.values, block.volumes.start):
                if volume in self.blank and (values != self._zero).any():
                    self.blank.remove(volume)
                    self._has_zero[:] = True

    def _look_closer(
        self, block: Block, values: NDArray[Any], others: NDArray[np.intp], at: slice
    ) -> NDArray[Any]:
        """Note zeros; return the smallest of the other values of some voxels."""
        part = values.take(others, axis=1)
        zeros = part == self._zero
        smallest, largest = _bounds(part.dtype)
        low = np.where(zeros, largest, part).min(axis=0)
        high = np.where(zeros, smallest, part).max(axis=0)
        where = at.start + others
        self._high[where] = np.maximum(self._high[where], high)
        if self._blank_so_far.size:
            zeros[self._blank_so_far] = False
        elif others.size == values.shape[1]:  # a blank volume has nothing above 0
            for t in np.flatnonzero(zeros.all(axis=1)).tolist():
                if (block.values[t] == self._zero).all():
                    self.blank.append(block.volumes.start + t)
                    zeros[t] = False
        self._has_zero[where] |= zeros.any(axis=0)
        return np.asarray(low)

    def judge(self, at: slice = slice(None)) -> Voxels:
        """Tell what became of some voxels, once all their volumes have passed.

        A voxel with zeros has left the field of view if its other values are all above
        0 or all below it. Not so in images of whole numbers where they come within a
        step of 0 and reach no further than 255 steps: too coarse to tell.
        """
        finite = self._finite[at]
        constant = np.zeros(finite.size, dtype=bool)
        numbers = self._pending - (at.start or 0)
        constant[numbers[(numbers >= 0) & (numbers < finite.size)]] = True
        zeros = self._has_zero[at] & finite & ~constant
        dropout = zeros.copy()
        if self._zero is not None and zeros.any():
            low = self._low[at][zeros].astype(np.float64) - float(self._zero)
            high = self._high[at][zeros].astype(np.float64) - float(self._zero)
            apart = (low > 0) | ((high < 0) & ~self._has_more[at][zeros])
            if self._low.dtype.kind in "iu":
                near = np.minimum(np.abs(low), np.abs(high))
                far = np.maximum(np.abs(low), np.abs(high))
                apart &= (near > 1) | (far > _COARSE)
            dropout[zeros] = apart
        return Voxels(
            finite=finite,
            constant=constant & finite,
            dropout=dropout,
            zero_crossing=zeros & ~dropout,
            blank=(*self.blank, *np.flatnonzero(self._blank_so_far).tolist()),
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
        with np.errstate(over="ignore"):
            return dtype.type(zero)
    smallest, largest = _bounds(dtype)
    zero = round(zero)
    return dtype.type(zero) if smallest <= zero <= largest else None
