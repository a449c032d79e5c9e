"""Streaming group statistics against whole arrays: pandas, scipy, hand arithmetic."""

import itertools
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.testing import assert_allclose, assert_array_equal
from support.oracles import anova_by_hand

from bids_roi.core.group.accumulate import GroupStatistics, OneWay
from bids_roi.core.group.edges import (
    CoMoments,
    Moments,
    leave_out_identical,
    list_blocks,
    list_edges,
)
from bids_roi.core.group.motion import (
    adjust_for_many,
    chance_correlation,
    correlation_p_values,
    distance_dependence,
    edge_lengths,
    summarise_motion,
)
from bids_roi.core.relmat import are_identical, fisher_z

# Streaming and direct sums differ by rounding alone.
ROUNDING = 1e-10


def gappy(rng, n_units, n_edges, share=0.2, level=0.0):
    values = rng.normal(level, 1, (n_units, n_edges))
    values[rng.random(values.shape) < share] = np.nan
    return values


values_with_gaps = npst.arrays(
    np.float64,
    st.tuples(st.integers(1, 9), st.integers(1, 5)),
    elements=st.one_of(st.floats(-50, 50, width=32), st.just(np.nan)),
)


@given(values_with_gaps)
def test_moments_are_those_of_the_whole_array(values):
    moments = Moments(values.shape[1])
    for row in values:
        moments.update(row)
    table = pd.DataFrame(values)
    assert_array_equal(moments.n, table.count())
    assert_allclose(moments.mean, table.mean(), rtol=ROUNDING, atol=1e-12)
    # A variance that is 0 is a sum of squares of rounding errors.
    assert_allclose(moments.deviation, table.std(ddof=1), rtol=1e-7, atol=1e-7)


def test_one_unit_to_begin_with_is_one_that_is_added():
    values = np.array([1.5, -0.0, 0.0, np.nan, np.inf, -1e300, 5e-324])
    one, other = Moments(7), Moments(7)
    one.update(values)
    other.update(np.arange(7.0))
    other.reset()
    other.begin(values)
    for name, wanted in vars(one).items():
        own = getattr(other, name)
        assert own.dtype == wanted.dtype
        assert own.tobytes() == wanted.tobytes()


def test_moments_of_values_far_from_zero_keep_their_digits():
    rng = np.random.default_rng(1)
    values = rng.normal(1e6, 1, (1000, 3))
    moments = Moments(3)
    for row in values:
        moments.update(row)
    assert_allclose(moments.deviation, values.std(axis=0, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_comoments_are_pandas_pairwise_correlations(seed):
    rng = np.random.default_rng(seed)
    values, fd = gappy(rng, 12, 40, share=0.4), rng.gamma(2, 0.1, 12)
    found = CoMoments(40)
    for number, row in zip(fd, values, strict=True):
        found.update(number, row)
    expected = pd.DataFrame(values).corrwith(pd.Series(fd))
    expected[pd.DataFrame(values).count() < 4] = np.nan
    assert expected.notna().any()
    assert_allclose(found.correlate(4), expected, rtol=ROUNDING)


def test_constant_fd_or_edge_has_no_correlation():
    rng = np.random.default_rng(0)
    constant_fd, constant_edge = CoMoments(2), CoMoments(2)
    for fd, values in zip(rng.random(8), rng.normal(size=(8, 2)), strict=True):
        # 0.1 + 0.2 is 0.3 but for the last digit: not motion that differs.
        constant_fd.update(0.3 if fd < 0.5 else 0.1 + 0.2, values)
        constant_edge.update(fd, np.array([0.7, values[1]]))
    assert np.isnan(constant_fd.correlate(4)).all()
    assert_array_equal(np.isnan(constant_edge.correlate(4)), [True, False])


def one_way(participants, size):
    found = OneWay(size)
    for runs in participants:
        moments = Moments(size)
        for row in runs:
            moments.update(row)
        found.update(moments)
    return found


@pytest.mark.parametrize("counts", [(2, 2, 2), (1, 2, 5), (3, 1, 1, 1), (2, 2)])
def test_icc_is_the_anova_by_hand(counts):
    rng = np.random.default_rng(sum(counts))
    participants = [gappy(rng, k, 30) + rng.normal(0, 1, (1, 30)) for k in counts]
    found = one_way(participants, 30).correlate()
    expected = [anova_by_hand([p[:, e] for p in participants]) for e in range(30)]
    assert np.isfinite(expected).sum() > 5
    assert_allclose(found, expected, rtol=1e-9)


def test_icc_of_shrout_and_fleiss():
    """Their table 2: four judges, six targets; ICC(1,1) is 0.17 (table 4)."""
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6]]
    ratings += [[10, 5, 6, 9], [6, 2, 4, 7]]
    people = [np.array(row, float)[:, None] for row in ratings]
    assert round(float(one_way(people, 1).correlate()[0]), 2) == 0.17


def test_icc_that_cannot_be_told():
    single = one_way([np.ones((1, 1)), np.zeros((1, 1))], 1)
    alone = one_way([np.array([[1.0], [2.0]])], 1)
    same = one_way([np.full((2, 1), 0.3), np.full((3, 1), 0.3)], 1)
    for case in (single, alone, same):
        assert np.isnan(case.correlate()).all()
    perfect = one_way([np.full((2, 1), 0.3), np.full((2, 1), 0.4)], 1)
    assert_allclose(perfect.correlate(), 1, rtol=ROUNDING)


@given(npst.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)))
def test_false_discovery_rate_is_scipys(p):
    expected = scipy.stats.false_discovery_control(p)
    # Below 2e-308 a number has fewer than 16 digits.
    atol = np.finfo(float).smallest_normal
    assert_allclose(adjust_for_many(p), expected, rtol=1e-12, atol=atol)


def test_p_values_are_those_of_pearsonr():
    rng = np.random.default_rng(3)
    n = np.array([4, 5, 12, 80])
    expected, r = [], []
    for size in n:
        result = scipy.stats.pearsonr(rng.normal(size=size), rng.normal(size=size))
        r.append(result.statistic)
        expected.append(result.pvalue)
    assert_allclose(correlation_p_values(np.array(r), n), expected, rtol=1e-9)
    assert_array_equal(correlation_p_values(np.array([1.0, -1.0]), n[:2]), [0, 0])


@pytest.mark.parametrize("n", [4, 10, 50])
def test_chance_is_what_noise_gives(n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(2, 20000, n))
    x, y = (z - z.mean(axis=1, keepdims=True) for z in (x, y))
    r = (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    # Standard error of the median of 20,000.
    assert abs(np.median(np.abs(r)) - chance_correlation(n)) < 0.01


def test_distance_dependence_is_spearmanr():
    rng = np.random.default_rng(5)
    distances = rng.integers(1, 9, 60).astype(float)  # ties
    r = rng.normal(size=60) - 0.1 * distances
    r[::7], distances[::11] = np.nan, np.nan
    expected = scipy.stats.spearmanr(distances, r, nan_policy="omit").statistic
    rho, n = distance_dependence(distances, r)
    assert n == np.isfinite(distances + r).sum()
    assert_allclose(rho, expected, rtol=1e-12)
    assert distance_dependence(np.full(60, 7.0), r)[0] is None
    assert distance_dependence(distances[:2], r[:2])[0] is None


def test_edge_lengths_are_pdist():
    rng = np.random.default_rng(6)
    centres = rng.normal(0, 40, (9, 3))
    expected = scipy.spatial.distance.pdist(centres)
    edges = list_edges(9, diagonal=False)
    assert_allclose(edge_lengths(centres, edges), expected, rtol=1e-12)
    centres[2, 1] = np.nan
    assert np.isnan(edge_lengths(centres, edges)).sum() == 8


def test_nothing_to_sum_up():
    nothing = summarise_motion(np.full(3, np.nan), np.zeros(3, int), np.ones(3))
    assert nothing.n_edges == 0
    assert nothing.median_abs_r is None
    assert nothing.share_fdr is None
    assert nothing.distance_rho is None


@pytest.mark.parametrize("diagonal", [True, False])
def test_edges_there_and_back(diagonal):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 6))
    matrix += matrix.T
    edges = list_edges(6, diagonal=diagonal)
    again = edges.fill(edges.take(matrix))
    if not diagonal:
        np.fill_diagonal(matrix, np.nan)
    assert_array_equal(again, matrix)
    assert edges.between.sum() == 15


def test_identical_series_are_left_out_and_counted():
    signals = np.random.default_rng(0).normal(size=(50, 3))
    signals = np.column_stack([signals, signals[:, 0], -signals[:, 1]])
    r = np.corrcoef(signals.T)
    edges = list_edges(5, diagonal=False)
    z = fisher_z(edges.take(r))
    assert are_identical(edges.take(r)).sum() == 2
    assert np.isnan(edges.fill(z)[0, 3])
    assert np.isnan(edges.fill(z)[1, 4])
    assert np.isfinite(z).sum() == 8
    with np.errstate(divide="ignore"):
        again, m = leave_out_identical(np.arctanh(edges.take(r)))
    assert m == 2
    assert_allclose(again, z, rtol=1e-12)


def test_blocks_average_what_a_loop_averages():
    labels = ("b", "a", None, "b", "a", "c", "b")
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(7, 7))
    matrix += matrix.T
    matrix[0, 1] = matrix[1, 0] = np.nan
    for diagonal in (True, False):
        edges = list_edges(7, diagonal=diagonal)
        blocks = list_blocks(labels, edges)
        assert blocks.names == ("b", "a", "c")
        assert blocks.n_regions.tolist() == [3, 2, 1]
        found = dict(zip(blocks.pairs, blocks.average(edges.take(matrix)), strict=True))
        counts = dict(zip(blocks.pairs, blocks.n_edges, strict=True))
        for k, m in itertools.combinations_with_replacement(range(3), 2):
            pair = {blocks.names[k], blocks.names[m]}
            edge = [
                matrix[i, j]
                for i, j in itertools.combinations(range(7), 2)
                if {labels[i], labels[j]} == pair
            ]
            assert counts[k, m] == len(edge)
            expected = np.nanmean(edge) if edge else np.nan
            assert_allclose(found[k, m], expected, rtol=1e-12)


@pytest.mark.parametrize("by_run", [True, False])
def test_group_is_pandas_groupby(by_run):
    rng = np.random.default_rng(9)
    people = np.repeat(np.arange(7), [1, 3, 2, 1, 4, 2, 2])
    values, fd = gappy(rng, people.size, 10), rng.gamma(2, 0.1, people.size)
    fd[[0, 4]] = np.nan
    table = pd.DataFrame(values).assign(fd=fd)
    if not by_run:
        table = table.groupby(people).mean()
    group = GroupStatistics(10, None, by_run=by_run)
    for person in range(7):
        for row, number in zip(
            values[people == person], fd[people == person], strict=True
        ):
            group.add_run(row, None if np.isnan(number) else number)
        group.close_participant()
    edges = table[list(range(10))]
    assert group.n_units == len(table)
    assert (group.n_participants, group.n_runs, group.n_repeated) == (7, 15, 5)
    assert_array_equal(group.units.n, edges.count())
    assert_allclose(group.units.mean, edges.mean(), rtol=ROUNDING)
    assert_allclose(group.units.deviation, edges.std(ddof=1), rtol=ROUNDING)
    assert_allclose(group.motion.correlate(4), edges.corrwith(table.fd), rtol=1e-9)
    assert_allclose(sorted(group.displacements), sorted(table.fd.dropna()))
    expected = [
        anova_by_hand([values[people == p, e] for p in range(7)]) for e in range(10)
    ]
    assert_allclose(group.runs.correlate(), expected, rtol=1e-9)


def filled(values, fd, people, by_run, networks=None):
    group = GroupStatistics(values.shape[1], networks, by_run=by_run)
    for person in dict.fromkeys(people):
        for row, number in zip(
            values[people == person], fd[people == person], strict=True
        ):
            group.add_run(row, None if np.isnan(number) else number)
        group.close_participant()
    return group


def held(thing):
    """Everything that an object holds, by name, whatever it is made of."""
    found = {}
    for name, value in vars(thing).items():
        if hasattr(value, "__dict__") and not isinstance(value, np.ndarray):
            found |= {f"{name}.{key}": v for key, v in held(value).items()}
        elif isinstance(value, list) and any(np.ndim(part) for part in value):
            found |= held(
                SimpleNamespace(**{f"{name}.{n}": v for n, v in enumerate(value)})
            )
        elif isinstance(value, (int, float, list, np.ndarray)):
            found[name] = np.asarray(value)
    return found


@pytest.mark.parametrize("by_run", [True, False])
@given(
    values=npst.arrays(
        np.float64,
        st.tuples(st.integers(2, 9), st.just(10)),
        elements=st.one_of(st.floats(-50, 50, width=32), st.just(np.nan)),
    ),
    data=st.data(),
)
def test_merged_parts_are_the_whole(by_run, values, data):
    """Whatever is held of a group, a sum of whichever parts holds it too."""
    n = len(values)
    people = np.sort(data.draw(npst.arrays(np.int64, n, elements=st.integers(0, 4))))
    fd = data.draw(npst.arrays(np.float64, n, elements=st.sampled_from([0.1, 0.2, 9])))
    owner = data.draw(npst.arrays(np.int64, 5, elements=st.integers(0, 2)))[people]
    networks = list_blocks(["a", "b", "a", None, "b"], list_edges(5, diagonal=False))
    merged = filled(values[:0], fd[:0], people[:0], by_run, networks)
    order = np.argsort(owner, kind="stable")
    for part in range(3):
        own = owner == part
        merged.merge(filled(values[own], fd[own], people[own], by_run, networks))
    # The order of the units decides the last digits, and the list of displacements.
    whole = filled(values[order], fd[order], people[order], by_run, networks)
    expected = held(whole)
    assert {"units.n", "motion._xy", "runs._between", "n_repeated"} <= expected.keys()
    for name, found in held(merged).items():
        assert_allclose(found, expected[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("count", [3, 200, 255, 256, 70_000, 2**40])
def test_sums_that_have_travelled_are_the_same(count):
    rng = np.random.default_rng(0)
    people, fd = np.repeat([*"abc"], 3), np.arange(9.0)
    statistics = filled(rng.normal(size=(9, 30)), fd, people, False)
    for moments in (statistics.units, statistics.motion):
        moments.n[:5] = count
    sent = pickle.dumps(statistics)
    found = pickle.loads(sent)
    for name in ("units", "motion", "runs", "networks"):
        wanted, own = vars(getattr(statistics, name)), vars(getattr(found, name))
        assert {k: v.dtype for k, v in own.items()} == {
            k: v.dtype for k, v in wanted.items()
        }
        for key, values in wanted.items():
            assert_array_equal(own[key], values)
    assert (found.n_runs, found.n_participants, found.n_units) == (9, 3, 3)


def test_the_first_part_changes_no_bit():
    rng = np.random.default_rng(4)
    values, fd = gappy(rng, 9, 20_000), rng.gamma(2, 0.1, 9)
    people = np.repeat(np.arange(3), 3)
    part = filled(values, fd, people, by_run=False)
    merged = filled(values[:0], fd[:0], people[:0], by_run=False)
    merged.merge(part)
    for name, found in held(merged).items():
        assert_array_equal(found, held(part)[name], err_msg=name)


def test_edges_are_worked_on_in_blocks_without_a_trace():
    """More edges than a block has: each as if it were alone."""
    rng = np.random.default_rng(5)
    values, fd = gappy(rng, 6, 20_001), rng.gamma(2, 0.1, 6)
    people = np.repeat(np.arange(3), 2)
    whole = filled(values, fd, people, by_run=False)
    for edge in (0, 8191, 8192, 16_384, 20_000):
        alone = filled(values[:, [edge]], fd, people, by_run=False)
        for found, expected in (
            (whole.units.mean, alone.units.mean),
            (whole.units.deviation, alone.units.deviation),
            (whole.motion.correlate(3), alone.motion.correlate(3)),
            (whole.runs.correlate(), alone.runs.correlate()),
        ):
            assert_array_equal(found[[edge]], expected)
