"""How surely the runs of a participant are told from those of others."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    Runs = Sequence[NDArray[np.float32]] | Sequence[FloatArray]


# Edges times runs that are held at once, 128 MiB in single precision: 210 participants
# with two runs of 400 regions. The time for all pairs grows with the square of them.
_MOST_VALUES = 2**25
_BLOCK = 2**20

# Distances that differ by less than this share of the largest are the same: they come
# from products, where the rounding of equal ones differs.
_TIE = 1e-12


@dataclass(frozen=True, slots=True)
class Identity:
    """Discriminability and identification of a group; ``None`` for what is not there.

    Attributes
    ----------
    n_participants
        With two runs or more, that were compared.
    discriminability
        How often two runs of a participant are nearer to each other than to a run of
        another, 0 to 1; 0.5 by chance.
    identification_rate
        How often a run is most like that of the same participant, 0 to 1; one over the
        number of participants by chance.
    """

    n_participants: int
    discriminability: float | None
    identification_rate: float | None


class Identification:
    """Runs of participants with two or more, to be compared with each other.

    Parameters
    ----------
    size
        Number of edges E.
    most_values
        Edges times runs that are held at once.

    Notes
    -----
    Discriminability after Bridgeford et al. (2021, doi:10.1371/journal.pcbi.1009279):
    over all pairs of runs of a participant, the share of other participants' runs that
    lie further from the first than the second does (Euclidean distance of the edges;
    equal ones count half). Identification after Finn et al. (2015,
    doi:10.1038/nn.4135): the first runs are the database, and each second run is given
    to the participant whose first run correlates with it most; then the other way
    round, and so for every two of first, second, third runs.

    Of a pair of runs, only the edges that both have count: the squared distance is the
    mean over these.

    See ``choose_participants`` for those that are compared.
    """

    def __init__(self, size: int, *, most_values: int = _MOST_VALUES) -> None:
        self._most_runs = _fit_runs(size, most_values) // 2
        self._kept: list[list[NDArray[np.float32]]] = []
        self._own: list[NDArray[np.float32]] = []

    def add_run(self, values: FloatArray) -> None:
        """Add a run of the participant at hand; NaN for missing edges, (E,).

        Of very many runs the first are taken: as many as half of what can be held.
        """
        if len(self._own) < self._most_runs:
            self._own.append(values.astype(np.float32))

    def close_participant(self) -> None:
        """Say that the runs of the participant at hand are all there."""
        if len(self._own) > 1:
            self._kept.append(self._own)
        self._own = []

    def merge(self, other: Identification) -> None:
        """Add the participants of another after those that are here."""
        self._kept += other._kept

    def summarise(self) -> Identity:
        """Compare all runs that are held; needs two participants with two runs."""
        n = len(self._kept)
        if n < 2:
            return Identity(n, None, None)
        runs = [run for own in self._kept for run in own]
        counts = [len(own) for own in self._kept]
        owner = np.repeat(np.arange(n), counts)
        rank = np.concatenate([np.arange(count) for count in counts])
        distance, likeness = compare_runs(runs)
        rate = identify(likeness, owner, rank)
        return Identity(n, discriminate(distance, owner), rate)


def choose_participants(
    n_runs: Sequence[int], size: int, *, most_values: int = _MOST_VALUES
) -> list[bool]:
    """Choose the participants that are compared: those with two runs or more.

    Where these do not fit every second is chosen, or every fourth and so on: the same
    ones whatever the strategy.

    Parameters
    ----------
    n_runs
        Of each participant.
    size, most_values
        As for ``Identification``.

    Examples
    --------
    >>> choose_participants([2, 1, 2, 2, 2], 100, most_values=500)
    [True, False, False, True, False]
    """
    chosen = [place for place, n in enumerate(n_runs) if n > 1]
    most = _fit_runs(size, most_values)
    while len(chosen) > 2 and sum(n_runs[place] for place in chosen) > most:
        chosen = chosen[::2]
    those = {*chosen}
    return [place in those for place in range(len(n_runs))]


def _fit_runs(size: int, most_values: int) -> int:
    return max(4, most_values // max(size, 1))


def compare_runs(runs: Runs) -> tuple[FloatArray, FloatArray]:
    """Distance and correlation of each two runs over the edges that both have.

    Parameters
    ----------
    runs : N of (E,)
        NaN for missing edges.

    Returns
    -------
    distance : (N, N)
        Mean squared difference; NaN for runs without an edge in common.
    likeness : (N, N)
        Pearson's correlation; NaN where a run is constant over these edges.
    """
    n_runs, size = len(runs), len(runs[0])
    n, products, squares, sums = np.zeros((4, n_runs, n_runs))
    # Sums over common edges are products of matrices, a thousand times faster than a
    # loop over pairs; some edges at a time, so that no second copy is held.
    step = max(1, _BLOCK // n_runs)
    for start in range(0, size, step):
        part = np.array([run[start : start + step] for run in runs], dtype=np.float64)
        there = np.isfinite(part)
        if there.all():  # as a rule, and a quarter of the time
            n += part.shape[1]
            products += part @ part.T
            squares += (part**2).sum(axis=1)[:, None]
            sums += part.sum(axis=1)[:, None]
            continue
        values, present = np.where(there, part, 0.0), there.astype(np.float64)
        n += present @ present.T
        products += values @ values.T
        squares += (values**2) @ present.T
        sums += values @ present.T
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.maximum((squares + squares.T - 2 * products) / n, 0)
        mean = sums / n
        spread = squares / n - mean**2
        spread[spread <= _TIE * squares / n] = np.nan
        likeness = (products / n - mean * mean.T) / np.sqrt(spread * spread.T)
    return distance, likeness


def discriminate(distance: FloatArray, owner: NDArray[np.intp]) -> float | None:
    """Discriminability of runs by their distances, (N, N), and participants, (N,).

    Returns
    -------
    float or None
        0 to 1; ``None`` where no two runs can be compared.
    """
    tie = _TIE * np.nanmax(distance, initial=0)
    shares = []
    for run, row in enumerate(distance):
        others = row[(owner != owner[run]) & np.isfinite(row)]
        same = np.flatnonzero((owner == owner[run]) & np.isfinite(row))
        for within in row[same[same != run]] if others.size else ():
            nearer = np.count_nonzero(others < within - tie)
            equal = np.count_nonzero(np.abs(others - within) <= tie)
            shares.append(1 - (nearer + equal / 2) / others.size)
    return float(np.mean(shares)) if shares else None


def identify(
    likeness: FloatArray, owner: NDArray[np.intp], rank: NDArray[np.intp]
) -> float | None:
    """Identification rate of runs.

    Parameters
    ----------
    likeness : (N, N)
        Correlation of each two.
    owner, rank : (N,)
        Participant, and which of his runs it is: 0 for the first.

    Returns
    -------
    float or None
        0 to 1; ``None`` where fewer than two participants can be compared. A tie of two
        participants identifies neither.
    """
    n_right = n_tried = 0
    for one, other in permutations(range(int(rank.max()) + 1), 2):
        database = np.flatnonzero(rank == one)
        targets = np.flatnonzero(rank == other)
        known = np.isin(owner[database], owner[targets])
        database = database[known]
        targets = targets[np.isin(owner[targets], owner[database])]
        if database.size < 2:
            continue
        found = np.nan_to_num(likeness[np.ix_(targets, database)], nan=-np.inf)
        # Both are in the order of the participants: the right ones are the diagonal.
        right = found.diagonal().copy()
        np.fill_diagonal(found, -np.inf)
        n_right += int((right > found.max(axis=1)).sum())
        n_tried += targets.size
    return n_right / n_tried if n_tried else None
