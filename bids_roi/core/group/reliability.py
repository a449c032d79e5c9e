"""Agreement of a participant's runs with each other: the intraclass correlation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bids_roi.core.group.moments import CONSTANT, blocks_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.core.group.moments import Moments

    FloatArray = NDArray[np.float64]


class OneWay:
    """One-way random effects analysis of variance of each edge, by participant.

    Parameters
    ----------
    size
        Number of edges E.

    Notes
    -----
    ICC(1,1) of Shrout and Fleiss (1979, doi:10.1037/0033-2909.86.2.420): the share of
    the variance of single runs that lies between participants. For n participants with
    k_i runs each, N in all, ::

        ICC = (MSB - MSW) / (MSB + (k0 - 1) MSW)
        k0  = (N - sum(k_i^2) / N) / (n - 1)

    with the mean squares between and within participants; k0 is the usual number of
    runs for unequal k_i (Snedecor and Cochran, Statistical Methods, 1989, section
    13.4). Below zero, runs of one participant differ more than participants do; such
    values are kept. Participants with one run count between, and nothing within.
    """

    def __init__(self, size: int) -> None:
        self.n_participants = np.zeros(size, dtype=np.int64)
        self.n_runs = np.zeros(size, dtype=np.int64)
        self._runs_squared = np.zeros(size, dtype=np.int64)
        self._grand = np.zeros(size)
        self._within, self._between = np.zeros(size), np.zeros(size)

    def update(self, participant: Moments) -> None:
        """Add a participant: moments over the runs."""
        means = participant.mean
        for part in blocks_of(means.size):
            k, grand, n_runs = participant.n[part], self._grand[part], self.n_runs[part]
            there = k > 0
            n_runs += k
            self.n_participants[part] += there
            self._runs_squared[part] += k**2
            self._within[part] += participant.squares[part]
            mean = np.where(there, means[part], grand)
            change = mean - grand
            grand += change * k / np.maximum(n_runs, 1)
            self._between[part] += k * change * (mean - grand)

    def merge(self, other: OneWay) -> None:
        """Add the participants of another, none of which is among those here."""
        n_runs = self.n_runs + other.n_runs
        share = other.n_runs / np.maximum(n_runs, 1)
        change = other._grand - self._grand
        self._between += other._between + change**2 * self.n_runs * share
        self._grand += change * share
        self._within += other._within
        self.n_participants += other.n_participants
        self._runs_squared += other._runs_squared
        self.n_runs = n_runs

    def correlate(self) -> FloatArray:
        """ICC(1,1) of each edge, up to 1.

        Returns
        -------
        (E,)
            NaN where there are fewer than two participants, where none of them has two
            runs, or where all values are the same.
        """
        n, total = self.n_participants, self.n_runs
        usable = (n >= 2) & (total > n)
        spread = np.sqrt((self._between + self._within) / np.maximum(total, 1))
        usable &= spread > CONSTANT * np.abs(self._grand)
        between = self._between / np.maximum(n - 1, 1)
        within = self._within / np.maximum(total - n, 1)
        k0 = (total - self._runs_squared / np.maximum(total, 1)) / np.maximum(n - 1, 1)
        scale = np.where(usable, between + (k0 - 1) * within, 1)
        return np.where(usable, (between - within) / scale, np.nan)
