"""Scans of a run's blocks: usable voxels, the mean image, and what varies most.

Usable is what is finite, changing, and in the field of view throughout.
fMRIPrep and its kin write 0 where a voxel lies outside the field of view, which moves
with the head. A voxel at the edge is 0 in some volumes then, and its region's mean
drops there by as much as the brain is bright. As in the HCP's pipelines (Glasser et al.
2013, doi:10.1016/j.neuroimage.2013.04.127), only voxels that are inside the field of
view in every volume count.

0 is a value like any other in data about a mean of 0, and in coarse whole numbers. So a
voxel has left the field of view only where all its other values lie on one side of 0,
and 0 is not next to them: see ``VoxelScan.judge``.

Confounds of high variance take two passes: the first finds how much each voxel varies
about its own trend, the second takes the series of the chosen ones. Each voxel's sums
run over the volumes in the order of time, one after the other: how the run was cut into
blocks does not change a bit of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.filters import remove_trend

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from bids_roi.core.frame import Block

    FloatArray = NDArray[np.float64]
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


_VOLUMES = 60


class MeanImage:
    """Mean over evenly spaced volumes, for pictures.

    Sixty volumes show a brain as well as thousands do, at a cost that a pass over the
    run does not notice.

    Parameters
    ----------
    n_volumes
        Of the run.
    n_voxels
        Of its grid.

    Attributes
    ----------
    step
        Every how many volumes one is taken.
    """

    def __init__(self, n_volumes: int, n_voxels: int) -> None:
        self.step = max(1, -(-n_volumes // _VOLUMES))
        self.n_taken = 0
        self._sum = np.zeros(n_voxels, dtype=np.float32)

    def update(self, start: int, block: NDArray[Any], first: int = 0) -> None:
        """Add the volumes of a block that are taken.

        Parameters
        ----------
        start
            Number of the block's first volume.
        block : (t, v)
            Stored values; not finite ones make the mean not finite there, and so
            do sums beyond float32.
        first
            Number of the block's first voxel; those that follow it come later.
        """
        some = self._sum[first : first + block.shape[1]]
        for number in range(-start % self.step, len(block), self.step):
            with np.errstate(over="ignore", invalid="ignore"):
                np.add(some, block[number], out=some, casting="unsafe")
            self.n_taken += first == 0

    def finish(self, scaling: tuple[float, float]) -> NDArray[np.float32]:
        """Return the mean, (V,), in the unit of the image.

        Parameters
        ----------
        scaling
            Slope and intercept: value = slope * stored + intercept.
        """
        slope, intercept = scaling
        mean = self._sum / np.float32(max(1, self.n_taken))
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(mean * np.float32(slope) + np.float32(intercept))


# Voxels at a time: a few float64 arrays of this length stay in a core's cache.
_CHUNK = 8192


class VarianceScan:
    """First pass: mean squares about each voxel's linear trend.

    Parameters
    ----------
    n_volumes
        T of the run.

    Notes
    -----
    From the sums of x, t x and x^2, where x is the difference to the first volume, so
    that a level far above the variation costs no digits: Chan, Golub & LeVeque (1983),
    doi:10.1080/00031305.1983.10483115. With t centred, the squares about the trend are
    sum x^2 - (sum x)^2 / T - (sum t x)^2 / sum t^2.
    """

    def __init__(self, n_volumes: int) -> None:
        if n_volumes < 3:
            raise ValueError(f"{n_volumes} volumes, at least 3 vary about their trend")
        self._time = np.arange(n_volumes) - (n_volumes - 1) / 2
        self._first: FloatArray | None = None
        self._sums = np.empty((3, 0))  # of x, t x, x^2
        self._n_seen = 0

    def update(self, start: int, block: NDArray[Any]) -> None:
        """Take the next block.

        Parameters
        ----------
        start
            Volume at which the block begins: the number of volumes taken so far.
        block : (t, V)
            Stored values, of any type; a scale and an offset that are the same in all
            voxels change neither the choice of voxels nor their components.

        Raises
        ------
        ValueError
            If volumes are missing, repeated, or more than expected.
        """
        stop = _follow(start, block, self._n_seen, self._time.size)
        if self._first is None:
            self._first = block[0].astype(np.float64)
            self._sums = np.zeros((3, block.shape[1]))
        with np.errstate(invalid="ignore", over="ignore"):  # NaN voxels: left out
            for low in range(0, block.shape[1], _CHUNK):
                part = slice(low, low + _CHUNK)
                self._add(block[:, part], part, self._first[part])
        self._n_seen = stop

    def _add(self, block: NDArray[Any], part: slice, first: FloatArray) -> None:
        sums, slopes, squares = self._sums[:, part]
        for time, volume in zip(self._time[self._n_seen :], block, strict=False):
            x = volume - first
            sums += x
            slopes += time * x
            x *= x
            squares += x

    def finish(self) -> FloatArray:
        """Return the mean square of each voxel, (V,), NaN where a value is not finite.

        Raises
        ------
        ValueError
            If volumes are still to come.
        """
        n_volumes = self._time.size
        if self._n_seen != n_volumes:
            raise ValueError(f"{self._n_seen} of {n_volumes} volumes were taken")
        sums, slopes, squares = self._sums
        with np.errstate(invalid="ignore", over="ignore"):
            about = squares - sums * sums / n_volumes
            about -= slopes * slopes / (self._time @ self._time)
            means: FloatArray = np.maximum(about, 0.0) / n_volumes
        means[~np.isfinite(means)] = np.nan
        return means


def _follow(start: int, block: NDArray[Any], n_seen: int, n_volumes: int) -> int:
    """Where a block ends, if it is the next one of a run."""
    stop = start + len(block)
    if start != n_seen or stop > n_volumes:
        raise ValueError(f"volumes {start} to {stop} follow {n_seen} of {n_volumes}")
    return stop


def select_voxels(
    mean_squares: FloatArray, *, percentile: float = 2.0
) -> NDArray[np.intp]:
    """Choose the voxels that vary most.

    Parameters
    ----------
    mean_squares : (V,)
        From ``VarianceScan``; NaN counts neither as voxel nor as choice.
    percentile : 0 to 100
        Share to take.

    Returns
    -------
    (n_selected,)
        Ascending positions of those strictly above the (100 - percentile)-th percentile
        of all (nilearn's rule).

    Raises
    ------
    ValueError
        If every value is NaN.
    """
    finite = mean_squares[np.isfinite(mean_squares)]
    if finite.size == 0:
        raise ValueError(f"0 of {mean_squares.size} voxels are finite in every volume")
    threshold = np.percentile(finite, 100.0 - percentile)
    with np.errstate(invalid="ignore"):
        return np.flatnonzero(mean_squares > threshold)


class SeriesCollector:
    """Second pass: the series of the chosen voxels, and their components.

    They are kept as the image stores them: T x 2 % of the voxels x the size of a value,
    52 MB for 1,200 volumes of 540,000 voxels in float32.

    Parameters
    ----------
    voxels : (n_selected,)
        From ``select_voxels``.
    n_volumes
        T of the run.
    """

    def __init__(self, voxels: NDArray[np.intp], n_volumes: int) -> None:
        self._voxels = voxels
        self._n_volumes = n_volumes
        self._n_seen = 0
        self._series: NDArray[Any] = np.empty((0, voxels.size))

    def update(self, start: int, block: NDArray[Any]) -> None:
        """Take the next block; as ``VarianceScan.update``."""
        stop = _follow(start, block, self._n_seen, self._n_volumes)
        if start == 0:
            native = block.dtype.newbyteorder("=")
            self._series = np.empty((self._n_volumes, self._voxels.size), native)
        self._series[start:stop] = block[:, self._voxels]
        self._n_seen = stop

    def finish(self, *, n_confounds: int = 5) -> FloatArray:
        """Return the components that explain most, largest first.

        Parameters
        ----------
        n_confounds
            How many; nilearn's default is 5.

        Returns
        -------
        (T, n_confounds)
            Orthogonal, of norm 1 and mean 0. Of the two signs, the one that makes the
            largest element positive.

        Raises
        ------
        ValueError
            If volumes are still to come, or too few voxels or volumes were taken.

        Notes
        -----
        Eigenvectors of the (T, T) Gram matrix of the detrended series: temporal
        CompCor, Behzadi et al. (2007), doi:10.1016/j.neuroimage.2007.04.042, as nilearn
        defines it.
        """
        from scipy import linalg

        n_volumes, n_voxels = self._series.shape
        if self._n_seen != self._n_volumes:
            raise ValueError(f"{self._n_seen} of {self._n_volumes} volumes were taken")
        if n_confounds > min(n_voxels, n_volumes - 2):
            raise ValueError(
                f"{n_confounds} components need as many voxels and two more volumes, "
                f"there are {n_voxels} voxels and {n_volumes} volumes"
            )
        gram = np.zeros((n_volumes, n_volumes))
        for low in range(0, n_voxels, _CHUNK):
            part = self._series[:, low : low + _CHUNK].astype(np.float64)
            part = remove_trend(part)
            gram += part @ part.T
        largest = (n_volumes - n_confounds, n_volumes - 1)
        vectors = linalg.eigh(gram, subset_by_index=largest)[1][:, ::-1]
        peaks = vectors[np.abs(vectors).argmax(axis=0), np.arange(n_confounds)]
        return np.asarray(vectors * np.sign(peaks))
