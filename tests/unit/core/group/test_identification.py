"""Discriminability and identification against loops, hyppo's numbers and hand cases."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose
from support.oracles import discriminability_by_loops, identification_by_loops

from bids_roi.core.group.identification import (
    Held,
    Identification,
    choose_participants,
    compare_runs,
    identify,
)

HYPPO = 0.7198004201680672


def sums_up(participants, **more):
    """Of participants, each a list of runs."""
    found = Identification(len(participants[0][0]), **more)
    for runs in participants:
        for run in runs:
            found.add_run(np.asarray(run, float))
        found.close_participant()
    return found.summarise()


class Columns:
    """Runs that lie anywhere else, here as columns."""

    def __init__(self):
        self.edges = np.empty((30, 0), np.float32)

    def __len__(self):
        return self.edges.shape[1]

    def append(self, run):
        self.edges = np.column_stack([self.edges, run])

    def cut(self, edges):
        return np.array(self.edges[edges].T, float, order="C")


def make(seed, n_runs, n_edges=30, own=1.0, share=0.0):
    rng = np.random.default_rng(seed)
    participants = []
    for n in n_runs:
        mine = own * rng.normal(size=n_edges)
        runs = [mine + rng.normal(size=n_edges) for _ in range(n)]
        for run in runs:
            run[rng.random(n_edges) < share] = np.nan
        participants.append(runs)
    return participants


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("own", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("n_runs", [(2,) * 8, (2, 3, 4, 2, 2), (3, 2)])
def test_both_are_those_of_loops(n_runs, own, share):
    participants = make(3, n_runs, own=own, share=share)
    found = sums_up(participants)
    assert found.n_participants == len(n_runs)
    assert found.discriminability == pytest.approx(
        discriminability_by_loops(participants), abs=1e-12
    )
    assert found.identification_rate == pytest.approx(
        identification_by_loops(participants), abs=1e-12
    )


def test_discriminability_is_that_of_hyppo():
    """hyppo 0.5.2, DiscrimOneSample().statistic, of numbers that anybody can make."""
    participants = [
        [[np.sin(7 * p + e * e) + np.cos(31 * p + 17 * r + 5 * e) for e in range(12)]
         for r in range(2 + p % 3)]
        for p in range(7)
    ]  # fmt: skip
    assert sums_up(participants).discriminability == pytest.approx(HYPPO, abs=1e-12)


def test_ties_count_half_and_identify_nobody():
    same = [[0.0, 1.0, 3.0]] * 2
    found = sums_up([same, same, same])
    assert found.discriminability == 0.5
    assert found.identification_rate == 0
    # Rounding makes no order among equals: 0.1 + 0.2 is not 0.3.
    values = np.random.default_rng(0).normal(size=400)
    turned = values[np.random.default_rng(1).permutation(400)]
    found = sums_up([[values, turned]] * 3)
    # Of four others two are nearer and two are as near.
    assert found.discriminability == 0.25


def test_perfect_and_hopeless():
    basis = np.eye(4, 9)
    perfect = sums_up([[row, row * 1.01] for row in basis])
    assert (perfect.discriminability, perfect.identification_rate) == (1, 1)
    # The second run of each is the first of the next.
    wrong = sums_up([[basis[p], basis[(p + 1) % 4]] for p in range(4)])
    assert wrong.identification_rate == 0


def test_participants_with_one_run_do_not_count():
    participants = make(5, (2, 2, 2, 2))
    alone = make(6, (1, 1))
    mixed = [alone[0], *participants[:2], alone[1], *participants[2:]]
    assert sums_up(mixed) == sums_up(participants)


@pytest.mark.parametrize("n_runs", [(1, 1, 1), (2, 1), (4,), ()])
def test_nothing_is_told_of_fewer_than_two_participants(n_runs):
    participants = make(0, n_runs) if n_runs else []
    found = Identification(30)
    for runs in participants:
        for run in runs:
            found.add_run(run)
        found.close_participant()
    assert found.summarise().discriminability is None
    assert found.summarise().identification_rate is None


def test_runs_without_an_edge_in_common_are_not_compared():
    nan = np.nan
    found = sums_up([[[1, nan], [1, nan]], [[nan, 2], [nan, 2]]])
    assert (found.discriminability, found.identification_rate) == (None, 0)
    empty = sums_up([[[nan, nan]] * 2] * 2)
    assert (empty.discriminability, empty.identification_rate) == (None, 0)


def test_more_than_can_be_held_are_thinned_evenly():
    # 30 edges: 11 runs fit, so that of 20 participants every fourth is chosen.
    chosen = choose_participants([2] * 20, 30, most_values=30 * 11)
    assert np.flatnonzero(chosen).tolist() == [0, 4, 8, 12, 16]
    mixed = choose_participants([1, 2, 1, 3, 2], 30)
    assert mixed == [False, True, False, True, True]
    # Two are the least that can be compared.
    assert sum(choose_participants([90, 90, 90], 30, most_values=30 * 11)) == 2
    assert choose_participants([], 30) == []


def test_merging_is_adding_one_after_the_other():
    participants = make(9, (2, 3, 2, 2, 2))
    parts = []
    for own in (participants[:2], participants[2:]):
        parts.append(Identification(30))
        for runs in own:
            for run in runs:
                parts[-1].add_run(run)
            parts[-1].close_participant()
    first, second = parts
    first.merge(second)
    assert first.summarise() == sums_up(participants)
    elsewhere = Identification(30, Columns())
    elsewhere.merge(first)
    assert elsewhere.summarise() == sums_up(participants)
    with pytest.raises(TypeError, match="in memory"):
        first.merge(elsewhere)


def test_a_participant_with_very_many_runs_gives_the_first_of_them():
    many, other = make(4, (40, 2))
    found = sums_up([many, other], most_values=30 * 12)
    assert found == sums_up([many[:6], other])


# All rows at once, some at a time, each by itself.
@pytest.mark.parametrize("block", [2**19, 40, 1])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_blocks_of_rows_change_no_number(share, block):
    n_runs = (2, 5, 3, 2, 2, 4)
    participants = make(11, n_runs, own=0.7, share=share)
    found = sums_up(participants, block=block)
    assert found == sums_up(participants)
    assert found == sums_up(participants, runs=Columns(), block=block)
    assert found.discriminability == pytest.approx(
        discriminability_by_loops(participants), abs=1e-12
    )
    assert found.identification_rate == pytest.approx(
        identification_by_loops(participants), abs=1e-12
    )


def test_a_tie_but_for_rounding_identifies_nobody_whatever_the_block():
    """All runs are one pattern, each scaled: every two of them correlate with 1."""
    pattern = np.random.default_rng(3).normal(size=400)
    scales = [[1, 0.3], [7, 0.9], [0.11, 13], [2.7, 3.3]]
    participants = [[scale * pattern for scale in own] for own in scales]
    for block in (2**19, 24, 1):
        assert sums_up(participants, block=block).identification_rate == 0


@pytest.mark.parametrize("n_edges", [50, 2000])
@pytest.mark.parametrize("block", [2**19, 12, 1])
def test_matrices_of_pairs_are_those_of_numpy(n_edges, block):
    runs = np.random.default_rng(2).normal(3, 1, (6, n_edges))
    squared, r = np.zeros((2, 6, 6))
    for rows, distance, likeness in compare_runs(Held(runs), n_edges, block):
        squared[rows], r[rows] = distance, likeness
    assert_allclose(r, np.corrcoef(runs), atol=1e-12)
    want = [[np.mean((a - b) ** 2) for b in runs] for a in runs]
    assert_allclose(squared, want, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_memory_does_not_grow_with_the_square_of_the_runs(share):
    """The runs themselves are held; of all pairs, a block at a time."""

    def peak(n_participants):
        found = Identification(6, block=2**12)
        for runs in make(1, (2,) * n_participants, n_edges=6, share=share):
            for run in runs:
                found.add_run(run)
            found.close_participant()
        tracemalloc.start()
        try:
            found.summarise()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(50), peak(400)
    # A matrix of all pairs would be 5 MB, and 64 times that of the few.
    assert many < 3 * few
    assert many < 800**2 * 8 / 4


def test_identification_has_chance_level_without_anything_of_ones_own():
    rates = [sums_up(make(seed, (2,) * 5, own=0)).identification_rate
             for seed in range(200)]  # fmt: skip
    assert np.mean(rates) == pytest.approx(1 / 5, abs=0.04)
    assert identify(np.eye(2), np.array([0, 1]), slice(0, 2)) == (0, 0)
