"""Confounds from the voxels that vary most, in two passes over the run.

The first pass finds how much each voxel varies about its own trend; the second takes
the series of the chosen ones. The image is never in memory as a whole. Each voxel's
sums run over the volumes in the order of time, one after the other: how the run was cut
into blocks does not change a bit of the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.filters import remove_trend

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


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
        stop = start + block.shape[0]
        if start != self._n_seen or stop > self._time.size:
            raise ValueError(
                f"volumes {start} to {stop} follow {self._n_seen} of {self._time.size}"
            )
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
        stop = start + block.shape[0]
        if start != self._n_seen or stop > self._n_volumes:
            raise ValueError(
                f"volumes {start} to {stop} follow {self._n_seen} of {self._n_volumes}"
            )
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
