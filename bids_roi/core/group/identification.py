"""How surely the runs of a participant are told from those of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


# Edges times runs that are compared, 128 MiB in single precision: 210 participants
# with two runs of 400 regions. The time for all pairs grows with the square of them.
_MOST_VALUES = 2**25
# Pairs of runs that are compared at once, 4 MiB an array.
_BLOCK = 2**19

# Distances of a run that differ by less than this share of its largest are the same,
# and so are correlations that differ by less: they come from products, where the
# rounding of equal ones differs.
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


class Runs(Protocol):
    """Runs that are compared, of as many edges each, and where they lie until then."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def append(self, run: NDArray[np.float32], /) -> None:
        """Add one after the others, (E,)."""
        ...

    def cut(self, edges: slice) -> FloatArray:
        """Give some edges of all, (N, edges), one run after the other in memory."""
        ...


class Held(list["NDArray[np.float32]"]):
    """Runs that are held in memory."""

    def cut(self, edges: slice) -> FloatArray:
        """Give some edges of all, (N, edges)."""
        return np.array([run[edges] for run in self], dtype=np.float64)


class Identification:
    """Runs of participants with two or more, to be compared with each other.

    Parameters
    ----------
    size
        Number of edges E.
    runs
        Where they lie; in memory, if it is not said.
    most_values
        Edges times runs that are compared.
    block
        Pairs of runs that are compared at once.

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

    def __init__(
        self,
        size: int,
        runs: Runs | None = None,
        *,
        most_values: int = _MOST_VALUES,
        block: int = _BLOCK,
    ) -> None:
        self._size, self._block = size, block
        self._most_runs = _fit_runs(size, most_values) // 2
        self._runs = Held() if runs is None else runs
        self._counts: list[int] = []  # of the runs of each participant
        self._own: list[NDArray[np.float32]] = []

    def add_run(self, values: FloatArray) -> None:
        """Add a run of the participant at hand; NaN for missing edges, (E,).

        Of very many runs the first are taken: as many as half of what is compared.
        """
        if len(self._own) < self._most_runs:
            self._own.append(values.astype(np.float32))

    def close_participant(self) -> None:
        """Say that the runs of the participant at hand are all there."""
        if len(self._own) > 1:
            self._counts.append(len(self._own))
            for run in self._own:
                self._runs.append(run)
        self._own = []

    def merge(self, other: Identification) -> None:
        """Add the participants of another, in memory, after those that are here."""
        if not isinstance(other._runs, Held):
            raise TypeError("only runs that are held in memory can be added to others")
        self._counts += other._counts
        for run in other._runs:
            self._runs.append(run)

    def summarise(self) -> Identity:
        """Compare all runs that were added; needs two participants with two runs."""
        n = len(self._counts)
        if n < 2:
            return Identity(n, None, None)
        owner = np.repeat(np.arange(n), self._counts)
        shares, n_right, n_tried = [np.empty(0)], 0, 0
        # Of all runs with all, only some rows are held at once: memory would grow with
        # the square of the runs, and 10,000 fit where regions are few.
        for rows, distance, likeness in compare_runs(
            self._runs, self._size, self._block
        ):
            shares += discriminate(distance, owner, rows)
            found = identify(likeness, owner, rows)
            n_right, n_tried = n_right + found[0], n_tried + found[1]
        every = np.concatenate(shares)
        return Identity(
            n,
            float(every.mean()) if every.size else None,
            n_right / n_tried if n_tried else None,
        )


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


def compare_runs(
    runs: Runs, size: int, block: int = _BLOCK
) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
    """Distance and correlation of each two runs over the edges that both have.

    Parameters
    ----------
    runs : N of (E,)
        NaN for missing edges.
    size
        Number of edges E.
    block
        Pairs that are compared at once.

    Yields
    ------
    rows
        B of the runs, one after the other until all had their turn.
    distance : (B, N)
        Mean squared difference of these and all; NaN without an edge in common.
    likeness : (B, N)
        Pearson's correlation; NaN where a run is constant over these edges.
    """
    n_runs = len(runs)
    step = max(1, block // n_runs)
    for start in range(0, n_runs, step):
        rows = slice(start, min(start + step, n_runs))
        yield rows, *_compare_rows(runs, size, rows, step)


def _compare_rows(
    runs: Runs, size: int, rows: slice, step: int
) -> tuple[FloatArray, FloatArray]:
    n_runs = len(runs)
    n, products = np.zeros((2, rows.stop - rows.start, n_runs))
    # Over the edges in common: of the run of the row, and of that of the column.
    squares, sums, other_squares, other_sums = np.zeros((4, *n.shape))
    is_square = len(n) == n_runs
    # Sums over common edges are products of matrices, a thousand times faster than a
    # loop over pairs; some edges at a time, so that no second copy is held.
    for start in range(0, size, step):
        part = runs.cut(slice(start, min(start + step, size)))
        there = np.isfinite(part)
        if there.all():  # as a rule, and a quarter of the time
            own_squares, own_sums = (part**2).sum(axis=1), part.sum(axis=1)
            n += part.shape[1]
            products += part[rows] @ part.T
            squares += own_squares[rows, None]
            sums += own_sums[rows, None]
            other_squares += own_squares
            other_sums += own_sums
            continue
        values, present = np.where(there, part, 0.0), there.astype(np.float64)
        n += present[rows] @ present.T
        products += values[rows] @ values.T
        squares += (values[rows] ** 2) @ present.T
        sums += values[rows] @ present.T
        if not is_square:
            other_squares += present[rows] @ (values**2).T
            other_sums += present[rows] @ values.T
    if is_square:
        other_squares, other_sums = squares.T, sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.maximum((squares + other_squares - 2 * products) / n, 0)
        mean, other_mean = sums / n, other_sums / n
        spread = _spread(squares / n, mean) * _spread(other_squares / n, other_mean)
        likeness = (products / n - mean * other_mean) / np.sqrt(spread)
    return distance, likeness


def _spread(square: FloatArray, mean: FloatArray) -> FloatArray:
    """Variances from mean squares and means; NaN where it is rounding alone."""
    spread = square - mean**2
    spread[spread <= _TIE * square] = np.nan
    return spread


def discriminate(
    distance: FloatArray, owner: NDArray[np.intp], rows: slice
) -> list[FloatArray]:
    """Shares of which discriminability is the mean, of some of the runs.

    Parameters
    ----------
    distance : (B, N)
        Of these runs to all.
    owner : (N,)
        Participants of all runs.
    rows
        Which B of the runs they are.

    Returns
    -------
    list
        For each of these that can be compared, the shares of other participants' runs
        that are further away than each of its own participant's, 0 to 1.
    """
    shares = []
    for run, row in zip(range(rows.start, rows.stop), distance, strict=True):
        known, mine = np.isfinite(row), owner == owner[run]
        others = row[known & ~mine]
        mine &= known
        mine[run] = False
        within = row[mine]
        if others.size and within.size:
            tie = _TIE * max(others.max(), within.max())
            nearer = _count_below(within - tie, others, side="right")
            as_near = _count_below(within + tie, others, side="left")
            shares.append(1 - (nearer + as_near) / 2 / others.size)
    return shares


def _count_below(
    bounds: FloatArray, values: FloatArray, side: Literal["left", "right"]
) -> NDArray[np.intp]:
    """How many values are below each bound; with ``left``, or equal to it."""
    # The few bounds are sorted, and not the many values.
    order = np.argsort(bounds)
    places = np.searchsorted(bounds[order], values, side=side)
    counts = np.bincount(places, minlength=bounds.size).cumsum()
    found = np.empty_like(order)
    found[order] = counts[: bounds.size]
    return found


def identify(
    likeness: FloatArray, owner: NDArray[np.intp], rows: slice
) -> tuple[int, int]:
    """How many of some runs are most like those of their participant.

    Parameters
    ----------
    likeness : (B, N)
        Correlation of these runs with all.
    owner : (N,)
        Participants of all runs, from 0, each with his first run, his second ....
    rows
        Which B of the runs they are.

    Returns
    -------
    n_right, n_tried
        Of pairs of a run and a database: the first, second ... runs of all who have
        such a run and one of the run's own rank. A tie of two participants identifies
        neither; a database of one is none.
    """
    counts = np.bincount(owner)
    rank = np.arange(owner.size) - (np.cumsum(counts) - counts)[owner]
    # Databases one after the other, so that the best of each is found at once.
    order = np.argsort(rank, kind="stable")
    sizes = np.bincount(rank)
    starts = np.cumsum(sizes) - sizes
    n_right = n_tried = 0
    for run, row in zip(range(rows.start, rows.stop), likeness, strict=True):
        mine, own = owner == owner[run], rank[run]
        found = np.nan_to_num(row, nan=-np.inf)
        right = found[mine]
        others = np.where(mine | (counts[owner] <= own), -np.inf, found)
        best = np.maximum.reduceat(others[order], starts)[: right.size]
        tried = np.minimum(sizes[: right.size], sizes[own]) > 1
        tried[own] = False
        n_right += int((right > best + _TIE)[tried].sum())
        n_tried += int(tried.sum())
    return n_right, n_tried
