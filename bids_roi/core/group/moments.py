"""Means, deviations and correlations of many edges, one unit after the other.

Every edge has a count of its own, for a region that is lost in one run leaves its edges
out of that run only. Memory does not depend on the number of units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


# A standard deviation of less than this share of the mean is rounding: values that are
# the same but for the order in which they were averaged differ by 1e-16 of them.
CONSTANT = 1e-12


class Moments:
    """Mean and standard deviation of each edge, updated unit by unit.

    Parameters
    ----------
    size
        Number of edges E.

    Attributes
    ----------
    n : (E,)
        Units that have the edge.
    squares : (E,)
        Sum of squared deviations from the mean.

    Notes
    -----
    Welford (1962), doi:10.1080/00401706.1962.10490022.
    """

    def __init__(self, size: int) -> None:
        self.n = np.zeros(size, dtype=np.int64)
        self.squares = np.zeros(size)
        self._mean = np.zeros(size)

    def update(self, values: FloatArray) -> None:
        """Add a unit; its missing edges, NaN, are left out, (E,)."""
        there = np.isfinite(values)
        self.n += there
        change = np.where(there, values - self._mean, 0.0)
        self._mean += change / np.maximum(self.n, 1)
        self.squares += change * np.where(there, values - self._mean, 0.0)

    @property
    def mean(self) -> FloatArray:
        """NaN where no unit has the edge, (E,)."""
        return np.where(self.n > 0, self._mean, np.nan)

    @property
    def deviation(self) -> FloatArray:
        """Standard deviation (ddof 1); NaN where fewer than two units, (E,)."""
        variance = self.squares / np.maximum(self.n - 1, 1)
        return np.where(self.n > 1, np.sqrt(variance), np.nan)

    def reset(self) -> None:
        """Begin anew."""
        self.n[:] = 0
        self.squares[:] = 0
        self._mean[:] = 0


class CoMoments:
    """Correlation of one number per unit with each edge, updated unit by unit.

    Parameters
    ----------
    size
        Number of edges E.

    Notes
    -----
    The two-variable form of Welford's update (Bennett et al. 2009,
    doi:10.1109/CLUSTR.2009.5289161). The mean of the number is kept per edge, over the
    units that have the edge.
    """

    def __init__(self, size: int) -> None:
        self.n = np.zeros(size, dtype=np.int64)
        self._mean_x, self._mean_y = np.zeros(size), np.zeros(size)
        self._xx, self._yy, self._xy = np.zeros(size), np.zeros(size), np.zeros(size)

    def update(self, number: float, values: FloatArray) -> None:
        """Add a unit with its number; missing edges, NaN, are left out, (E,)."""
        there = np.isfinite(values)
        self.n += there
        share = there / np.maximum(self.n, 1)
        values = np.where(there, values, self._mean_y)
        change_x = number - self._mean_x
        change_y = values - self._mean_y
        self._mean_x += change_x * share
        self._mean_y += change_y * share
        rest = np.where(there, number - self._mean_x, 0.0)
        self._xx += change_x * rest
        self._xy += change_y * rest
        self._yy += change_y * (values - self._mean_y)

    def correlate(self, least: int) -> FloatArray:
        """Pearson's correlation of the number with each edge.

        Parameters
        ----------
        least
            Units an edge must have.

        Returns
        -------
        (E,)
            NaN where there are fewer units, or the number or the edge is constant.
        """
        n = np.maximum(self.n, 1)
        usable = self.n >= max(least, 2)
        for mean, squares in ((self._mean_x, self._xx), (self._mean_y, self._yy)):
            usable &= np.sqrt(squares / n) > CONSTANT * np.abs(mean)
        scale = np.sqrt(np.where(usable, self._xx, 1)) * np.sqrt(
            np.where(usable, self._yy, 1)
        )
        return np.where(usable, np.clip(self._xy / scale, -1, 1), np.nan)
