"""Sums of a group have the bits of plain loops over edges and units."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from support.plain_sums import (
    Run,
    arrays_of,
    block_means,
    mean_fd,
    merge,
    sums_of,
)

from bids_roi.core.group.accumulate import GroupStatistics, More
from bids_roi.core.group.edges import list_blocks, list_edges

LABELS = ("b", "a", None, "b", "a", "c", "b", "a", "c", "b", "a", "b")
EDGES = list_edges(len(LABELS), diagonal=False)
BLOCKS = list_blocks(LABELS, EDGES)


def add(participants, *, by_run=False, blocks=None, more=None):
    size = participants[0][0].values.size
    group = GroupStatistics(size, blocks, by_run=by_run, more=more)
    for own in participants:
        for run in own:
            group.add_run(run.values, run.fd, weight=run.weight, compared=False)
        group.close_participant()
    return group


def assert_same_bits(group, sums):
    for name, wanted in arrays_of(sums).items():
        part, attribute = name.split(".")
        found = getattr(getattr(group, part), attribute)
        # Counts are whole numbers, of whatever type.
        assert found.astype(wanted.dtype).tobytes() == wanted.tobytes(), name
        assert (found.astype(wanted.dtype) == found).all(), name


def people(seed, counts, size, *, gaps=0.1):
    """Participants with gaps, some edges that none has, zeros of both signs."""
    rng = np.random.default_rng(seed)
    lost = rng.random(size) < 0.05
    found = []
    for k, count in enumerate(counts):
        own = []
        for run in range(count):
            values = rng.normal(0.3, 0.4, size)
            values[rng.random(size) < 0.1] = 0.0
            values[rng.random(size) < 0.1] = -0.0
            values[(rng.random(size) < gaps) | lost] = np.nan
            fd = None if (k + run) % 4 == 3 else rng.gamma(2, 0.1)
            own.append(Run(values, fd, float(rng.integers(0, 90))))
        found.append(own)
    return found


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("by_run", [True, False])
@pytest.mark.parametrize("counts", [(1,), (2,), (2, 2, 2, 2), (1, 4, 2, 1, 3)])
def test_sums_have_the_bits_of_loops(counts, by_run, weighted):
    participants = people(sum(counts), counts, EDGES.size)
    found = add(
        participants, by_run=by_run, blocks=BLOCKS, more=More(weighted=weighted)
    )
    wanted = sums_of(participants, by_run=by_run, weighted=weighted, blocks=BLOCKS)
    assert_same_bits(found, wanted)


@pytest.mark.parametrize("by_run", [True, False])
@pytest.mark.parametrize("gaps", [0.0, 0.01])
def test_many_edges_have_the_bits_of_loops(gaps, by_run):
    """More than are worked on at a time; with stretches that all, or none, has."""
    participants = people(1, (2, 1, 2), 40_001, gaps=gaps)
    for own in participants:
        for run in own:
            run.values[17_000:33_000] = 0.25
            run.values[9_000:17_000] = np.nan
    participants[1][0].values[:] = np.nan
    assert_same_bits(
        add(participants, by_run=by_run), sums_of(participants, by_run=by_run)
    )


finite = st.one_of(
    st.floats(-50, 50, width=32),
    st.floats(-1e150, 1e150),
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 1e-160, np.nan, np.inf, -np.inf]),
)


@pytest.mark.parametrize("by_run", [True, False])
@given(
    values=npst.arrays(
        np.float64, st.tuples(st.integers(2, 8), st.just(10)), elements=finite
    ),
    data=st.data(),
)
def test_whatever_the_values_they_have_the_bits_of_loops(by_run, values, data):
    n = len(values)
    people = np.sort(data.draw(npst.arrays(np.int64, n, elements=st.integers(0, 3))))
    fd = data.draw(npst.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.1, 9])))
    runs = [Run(row, number) for row, number in zip(values, fd, strict=True)]
    participants = [
        [run for run, owner in zip(runs, people, strict=True) if owner == person]
        for person in dict.fromkeys(people)
    ]
    with np.errstate(over="ignore", under="ignore"):
        found = add(participants, by_run=by_run)
    assert_same_bits(found, sums_of(participants, by_run=by_run))


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("by_run", [True, False])
def test_merged_sums_have_the_bits_of_loops(by_run, weighted):
    """Also when they have travelled, and of parts that have edges that others lack."""
    parts = [people(k, (2, 1, 3), EDGES.size, gaps=0.1 + 0.2 * k) for k in range(3)]
    more = More(weighted=weighted)
    merged = GroupStatistics(EDGES.size, BLOCKS, by_run=False, more=more)
    wanted = None
    for part in parts:
        added = add(part, by_run=by_run, blocks=BLOCKS, more=more)
        merged.merge(pickle.loads(pickle.dumps(added)))
        sums = sums_of(part, by_run=by_run, weighted=weighted, blocks=BLOCKS)
        wanted = sums if wanted is None else merge(wanted, sums)
    assert_same_bits(merged, wanted)


def test_sums_of_many_edges_are_merged_with_the_bits_of_loops():
    parts = [people(k, (2, 1), 40_001, gaps=0.3 * k) for k in range(2)]
    merged = add(parts[0])
    merged.merge(add(parts[1]))
    assert_same_bits(merged, merge(*map(sums_of, parts)))


def test_held_edges_are_those_of_the_units():
    (own,) = people(2, (3,), 50)
    more = More(held=slice(None, None, 4))
    (kept,) = add([own], more=more).kept
    n_edges = sums_of([own])["units"]
    mean = np.array([mean if n else np.nan for n, mean, _ in n_edges])
    assert kept[0] == sum(run.fd for run in own) / 3
    assert kept[2].tobytes() == mean[::4].astype(np.float32).tobytes()
    by_run = add([own], by_run=True, more=more).kept
    for run, (fd, _, values) in zip(own, by_run, strict=True):
        assert fd == run.fd
        assert values.tobytes() == run.values[::4].astype(np.float32).tobytes()


def test_values_that_are_added_stay_as_they_are():
    """The caller's; and the next unit must not change what was told of the last."""
    participants = people(3, (2, 2), 300)
    before = [run.values.tobytes() for own in participants for run in own]
    group = add(participants, more=More(held=slice(None)))
    first = group.kept[0][2].tobytes()
    add(participants, by_run=True)
    for own in participants:
        for run in own:
            group.add_run(run.values, run.fd)
        group.close_participant()
    assert [r.values.tobytes() for own in participants for r in own] == before
    assert group.kept[0][2].tobytes() == first


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_means_of_networks_have_the_bits_of_loops(gaps):
    ((run,),) = people(4, (1,), EDGES.size, gaps=gaps)
    before = run.values.tobytes()
    found = BLOCKS.average(run.values)
    assert found.tobytes() == np.array(block_means(BLOCKS, run.values)).tobytes()
    assert run.values.tobytes() == before


def test_networks_of_many_edges_have_the_bits_of_loops():
    """More than are worked on at a time: what is missing lies in the second block."""
    n_regions = 200
    labels = [("a", "b", None)[n % 3] for n in range(n_regions)]
    blocks = list_blocks(labels, list_edges(n_regions, diagonal=False))
    assert blocks.block_of_edge.size == 19_900
    ((run,),) = people(8, (1,), 19_900, gaps=0.0)
    run.values[[3, 17_000, 19_899]] = np.nan
    run.values[18_000:19_000] = np.nan
    wanted = np.array(block_means(blocks, run.values))
    assert blocks.average(run.values).tobytes() == wanted.tobytes()
    group = add([(run,)], by_run=True, blocks=blocks)
    assert group.networks.mean.tobytes() == wanted.tobytes()


def test_sums_travel_in_few_bytes():
    """Counts of a batch take one each: ten sums of floats and five of counts."""
    size = 10_000
    group = add(people(5, (2,) * 12, size))
    assert len(pickle.dumps(group)) < (10 * 8 + 5) * size + 5_000


@pytest.mark.parametrize("by_run", [True, False])
def test_sums_with_covariates_have_the_bits_of_loops(by_run):
    participants, rng = people(6, (2, 1, 2, 3), 300), np.random.default_rng(6)
    covariates = [rng.normal(size=2) for _ in participants[:-1]]
    group = GroupStatistics(300, None, by_run=by_run, more=More(n_covariates=2))
    units = []
    for own, row in zip(participants, [*covariates, None], strict=True):
        for run in own:
            group.add_run(run.values, run.fd, covariates=row)
        group.close_participant()
        for runs in [[run] for run in own] if by_run else [own]:
            fd = mean_fd(runs)
            if row is not None and fd is not None:
                means = [(n, mean) for n, mean, _ in sums_of([runs])["units"]]
                units.append(([1.0, *row.tolist(), fd], means))
    assert units
    for edge in range(300):
        xy, yy, n, missing = [0.0] * 4, 0.0, 0, np.zeros((4, 4))
        for row, means in units:
            there, mean = means[edge]
            if not there:
                missing += np.outer(row, row)
                continue
            xy = [a + b * mean for a, b in zip(xy, row, strict=True)]
            yy, n = yy + mean * mean, n + 1
        assert group.partial._xy[:, edge].tolist() == xy
        assert (group.partial._yy[edge], group.partial.n[edge]) == (yy, n)
        assert (group.partial._missing[edge] == missing).all()
