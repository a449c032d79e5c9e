"""All statistics of one group of matrices in one pass, participant by participant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.group.edges import (
    CONSTANT,
    CoMoments,
    Moments,
    Sums,
    WeightedMoments,
    blocks_of,
    find_gaps,
)
from bids_roi.core.group.identification import Identification
from bids_roi.core.group.motion import PartialMoments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_roi.core.group.edges import Blocks, Gaps
    from bids_roi.core.group.identification import Runs

    FloatArray = NDArray[np.float64]


class OneWay(Sums):
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

    _counts = ("n_participants", "n_runs", "_runs_squared")

    def __init__(self, size: int) -> None:
        self.n_participants, self.n_runs, self._runs_squared = np.zeros((3, size))
        self._grand, self._within, self._between = np.zeros((3, size))

    def update(self, participant: Moments) -> None:
        """Add a participant: moments over the runs."""
        for part in blocks_of(participant.n.size):
            k, n_runs, grand = participant.n[part], self.n_runs[part], self._grand[part]
            n_runs += k
            if k.min() > 0:
                self.n_participants[part] += 1
                divisor = n_runs
            else:
                self.n_participants[part] += k > 0
                divisor = np.maximum(n_runs, 1)
            self._runs_squared[part] += k * k
            self._within[part] += participant.squares[part]
            # Without a run, k = 0, the mean is 0, and nothing of the change comes in.
            mean = participant._mean[part]
            change = mean - grand
            change *= k
            step = change / divisor
            grand += step
            rest = np.subtract(mean, grand, out=step)
            rest *= change
            self._between[part] += rest

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
        return self.agree().icc

    def agree(self) -> Agreement:
        """ICC of single runs and of their mean, with 95 % confidence intervals.

        Notes
        -----
        Of the mean of k0 runs, ICC(1,k) = (MSB - MSW) / MSB; the intervals are those
        of Shrout and Fleiss (1979), from F = MSB / MSW. With unequal numbers of runs
        they hold approximately.
        """
        n, total = self.n_participants, self.n_runs
        usable = (n >= 2) & (total > n)
        spread = np.sqrt((self._between + self._within) / np.maximum(total, 1))
        usable &= spread > CONSTANT * np.abs(self._grand)
        between = self._between / np.maximum(n - 1, 1)
        within = self._within / np.maximum(total - n, 1)
        k0 = (total - self._runs_squared / np.maximum(total, 1)) / np.maximum(n - 1, 1)

        def single(high: FloatArray, low: FloatArray) -> FloatArray:
            scale = np.where(usable, high + (k0 - 1) * low, 1)
            return np.where(usable, (high - low) / scale, np.nan)

        lower, upper = _quantiles(np.where(usable, n, 2), np.where(usable, total, 4))
        varied = usable & (between > 0)
        ratio = within / np.where(varied, between, 1)
        return Agreement(
            single(between, within),
            single(between, within * lower),
            single(between * upper, within),
            np.where(varied, 1 - ratio, np.nan),
            np.where(varied, 1 - ratio * lower, np.nan),
            np.where(varied, 1 - ratio / upper, np.nan),
            np.where(usable, k0, np.nan),
        )


@dataclass(frozen=True, slots=True)
class Agreement:
    """Intraclass correlations of each edge, (E,); NaN where there is none.

    Attributes
    ----------
    icc, low, high
        ICC(1,1), of single runs, and its 95 % confidence interval.
    mean, mean_low, mean_high
        ICC(1,k), of the mean of k runs.
    k0
        That number of runs.
    """

    icc: FloatArray
    low: FloatArray
    high: FloatArray
    mean: FloatArray
    mean_low: FloatArray
    mean_high: FloatArray
    k0: FloatArray


def _quantiles(n: FloatArray, total: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Quantile 0.975 of F between over within, and of within over between."""
    from scipy import special

    # Few counts differ, and a quantile takes a microsecond.
    counts = n * (total.max(initial=0) + 1) + total
    _, first, where = np.unique(counts, return_index=True, return_inverse=True)
    one, other = n[first] - 1, total[first] - n[first]
    upper, lower = special.fdtri(other, one, 0.975), special.fdtri(one, other, 0.975)
    return lower[where], upper[where]


@dataclass(frozen=True, slots=True)
class More:
    """What is asked of a group besides; all of it costs time or memory.

    Attributes
    ----------
    n_covariates
        Numbers that are held constant in QC-FC; ``None`` for no such QC-FC.
    held
        Edges of which the values of all units are held.
    weighted
        Whether means are wanted by the weights of the runs, too.
    """

    n_covariates: int | None = None
    held: slice | None = None
    weighted: bool = False


class GroupStatistics:
    """Mean, deviation, QC-FC, reliability and network means of a group.

    Parameters
    ----------
    size
        Number of edges E.
    blocks
        Networks, ``None`` where the atlas has none.
    by_run
        Whether every run is a unit of its own. Otherwise a participant is one: the mean
        of the edges over the runs that have them, and the mean of the runs' FD.
    more
        What is asked for besides.
    compared
        Where the runs that are compared with each other lie; in memory, if it is not
        said.

    Attributes
    ----------
    units
        Moments of each edge over the units.
    motion
        Mean FD with each edge, over the units that have an FD.
    runs
        Reliability of runs within participants, whatever the unit.
    identity
        The same runs, compared as wholes.
    networks
        Moments of each block over the units.
    weighted, partial
        Means by weights, and QC-FC with covariates held constant; ``None`` where they
        are not asked for.
    kept
        Of each unit that has them: FD, covariates, and the edges that are held.
    """

    def __init__(
        self,
        size: int,
        blocks: Blocks | None,
        *,
        by_run: bool,
        more: More | None = None,
        compared: Runs | None = None,
    ) -> None:
        self.more = more or More()
        n_covariates = self.more.n_covariates
        self.weighted = WeightedMoments(size) if self.more.weighted else None
        self._weighted_runs = WeightedMoments(size) if self.more.weighted else None
        self.partial = (
            None if n_covariates is None else PartialMoments(size, n_covariates)
        )
        self.kept: list[tuple[float, FloatArray, NDArray[np.float32]]] = []
        self.units = Moments(size)
        self.motion = CoMoments(size)
        self.runs = OneWay(size)
        self.identity = Identification(size, compared)
        self.networks = Moments(len(blocks.pairs) if blocks else 0)
        self.displacements: list[float] = []
        self.n_units = self.n_runs = self.n_participants = self.n_repeated = 0
        self._blocks, self._by_run = blocks, by_run
        self._participant = Moments(size)
        self._own: list[float | None] = []
        self._covariates: FloatArray | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Sums alone: what another process has added up is only merged here."""
        nothing = Moments(0)
        return vars(self) | {"_blocks": None, "_participant": nothing}

    def add_run(
        self,
        values: FloatArray,
        displacement: float | None,
        *,
        compared: bool = True,
        weight: float = 0.0,
        covariates: FloatArray | None = None,
    ) -> None:
        """Add a run of the participant at hand.

        Parameters
        ----------
        values : (E,)
            NaN for missing edges.
        displacement
            Mean FD, mm, ``None`` where it is not known.
        compared
            Whether the participant is among those that are told from each other.
        weight
            Of the run, where means are weighted.
        covariates : (K,)
            Of the participant; ``None`` where one is not known.
        """
        self.n_runs += 1
        gaps = find_gaps(values)
        if self._own:
            self._participant.update(values, gaps)
        else:
            self._participant.begin(values, gaps)
        if compared:
            self.identity.add_run(values)
        self._own.append(displacement)
        self._covariates = covariates
        if self._weighted_runs is not None:
            self._weighted_runs.update(values, weight)
        if self._by_run:
            self._add_unit(values, gaps, displacement)

    def close_participant(self) -> None:
        """Say that the runs of the participant at hand are all there."""
        if not self._own:
            return
        self.n_participants += 1
        self.n_repeated += len(self._own) > 1
        if not self._by_run:
            known = [fd for fd in self._own if fd is not None]
            displacement = sum(known) / len(known) if known else None
            values = self._participant.mean
            self._add_unit(values, find_gaps(values), displacement)
        self.runs.update(self._participant)
        self.identity.close_participant()
        self._participant.reset()
        self._own.clear()

    def merge(self, other: GroupStatistics) -> None:
        """Add the participants of another, all closed, after those that are here."""
        self.units.merge(other.units)
        self.motion.merge(other.motion)
        self.runs.merge(other.runs)
        self.identity.merge(other.identity)
        self.networks.merge(other.networks)
        self.displacements += other.displacements
        self.kept += other.kept
        if self.weighted is not None and other.weighted is not None:
            self.weighted.merge(other.weighted)
        if self.partial is not None and other.partial is not None:
            self.partial.merge(other.partial)
        self.n_units += other.n_units
        self.n_runs += other.n_runs
        self.n_participants += other.n_participants
        self.n_repeated += other.n_repeated

    def _add_unit(
        self, values: FloatArray, gaps: Gaps, displacement: float | None
    ) -> None:
        self.n_units += 1
        self.units.update(values, gaps)
        if self.weighted is not None and self._weighted_runs is not None:
            own = self._weighted_runs
            self.weighted.update(own.mean, own.total)
            own.reset()
        if self._blocks is not None:
            self.networks.update(self._blocks.average(values, gaps))
        if displacement is None:
            return
        self.displacements.append(displacement)
        self.motion.update(displacement, values, gaps)
        known = self._covariates
        if known is None and self.partial is not None:
            return
        known = np.empty(0) if known is None else known
        if self.partial is not None:
            self.partial.update(displacement, known, values)
        if self.more.held is not None:
            own_edges = values[self.more.held].astype(np.float32)
            self.kept.append((displacement, known, own_edges))
