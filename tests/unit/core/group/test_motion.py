"""QC-FC with covariates, permutations, intervals, weights: against plain arithmetic."""

import itertools

import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal
from support.group_oracles import by_lstsq, people, residual
from support.oracles import anova_by_hand

from bids_roi.core.group import motion
from bids_roi.core.group.accumulate import GroupStatistics, More, OneWay
from bids_roi.core.group.edges import Moments, WeightedMoments
from bids_roi.core.group.motion import PartialMoments, choose_edges, resample


def added(fd, covariates, edges):
    found = PartialMoments(edges.shape[1], covariates.shape[1])
    for unit in zip(fd, covariates, edges, strict=True):
        found.update(*unit)
    return found


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_partial_correlations_are_those_of_least_squares_residuals(seed, gaps):
    fd, covariates, edges = people(seed, gaps=gaps)
    r, n = added(fd, covariates, edges).correlate()
    assert_allclose(r, by_lstsq(fd, covariates, edges), rtol=1e-9)
    assert_array_equal(n, np.isfinite(edges).sum(axis=0) - 2)
    # Without covariates they are Pearson's.
    r, n = added(fd, covariates[:, :0], edges).correlate()
    assert_allclose(r, by_lstsq(fd, covariates[:, :0], edges), rtol=1e-9)
    assert_array_equal(n, np.isfinite(edges).sum(axis=0))


@pytest.mark.parametrize("first", [0, 1, 9])
def test_partial_parts_are_the_whole(first):
    fd, covariates, edges = people(4, gaps=0.1)
    edges[:9] = np.nan_to_num(edges[:9])  # gaps in one part only
    whole = added(fd, covariates, edges)
    found = added(fd[:first], covariates[:first], edges[:first])
    found.merge(added(fd[first:], covariates[first:], edges[first:]))
    for one, other in zip(whole.correlate(), found.correlate(), strict=True):
        assert_allclose(one, other, rtol=1e-9)


def test_a_dependent_covariate_costs_nothing_and_changes_nothing():
    fd, covariates, edges = people(5, gaps=0.1)
    doubled = np.column_stack([covariates, covariates.sum(axis=1), np.zeros(len(fd))])
    expected, found = (added(fd, c, edges).correlate() for c in (covariates, doubled))
    assert_allclose(found[0], expected[0], rtol=1e-9)
    assert_array_equal(found[1], expected[1])


def test_partial_correlations_that_cannot_be_told():
    fd, covariates, edges = people(6, n=7)
    edges[0] = np.nan  # six with two covariates: four are left
    assert np.isfinite(added(fd, covariates, edges).correlate()[0]).all()
    edges[1] = np.nan
    assert np.isnan(added(fd, covariates, edges).correlate()[0]).all()
    fd, covariates, edges = people(6)
    edges[:, 3] = 0.25  # constant
    edges[:, 4] = covariates @ [1, 2]  # nothing but covariates
    r, _ = added(fd, covariates, edges).correlate()
    assert_array_equal(np.flatnonzero(np.isnan(r)), [3, 4])
    r, _ = added(covariates[:, 0] + 3, covariates, edges).correlate()
    assert np.isnan(r).all()  # FD is a covariate


def statistic(fd, covariates, edges, distances):
    r = by_lstsq(fd, covariates, edges)
    rho = scipy.stats.spearmanr(distances, r).statistic
    return np.median(np.abs(r)), abs(rho)


@pytest.mark.parametrize("n_covariates", [0, 1])
def test_few_units_take_every_permutation(n_covariates):
    """Freedman and Lane word by word: permute residuals, add the fit, correlate."""
    fd, covariates, edges = people(8, n=5, n_edges=5)
    covariates, distances = covariates[:, :n_covariates], np.arange(5.0)
    left = residual(edges, covariates)
    measured = statistic(fd, covariates, edges, distances)
    larger, orders = np.zeros(2), [*itertools.permutations(range(5))]
    for order in orders:
        fake = edges - left + left[list(order)]
        found = statistic(fd, covariates, fake, distances)
        larger += np.array(found) >= np.array(measured) - 1e-9
    told = resample(fd, covariates, edges, distances, n_permutations=120, seed=0)
    assert told.n_permutations == 120
    assert_allclose([told.median_p, told.distance_p], larger / 120, rtol=1e-12)
    # A random choice of them is near, and is that of its seed.
    some = [
        resample(fd, covariates, edges, distances, n_permutations=100, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert some[0] == some[1] != some[2]
    assert some[0].n_permutations == 100
    error = 4 * np.sqrt(0.25 / 100)
    assert abs(some[0].median_p - told.median_p) < error
    n_larger = some[0].median_p * 101
    assert n_larger == pytest.approx(round(n_larger), abs=1e-9)


def test_missing_edges_count_as_their_mean():
    fd, covariates, edges = people(9, n=15, gaps=0.1)
    filled = np.where(np.isnan(edges), np.nanmean(edges, axis=0), edges)
    distances = np.arange(12.0)
    one, other = (
        resample(fd, covariates, e, distances, n_permutations=50, seed=0)
        for e in (edges, filled)
    )
    assert one == other


def test_permutations_that_tell_nothing():
    fd, covariates, edges = people(10)
    nowhere, ask = np.full(12, np.nan), {"n_permutations": 50, "seed": 0}
    told = resample(fd, covariates, edges, nowhere, **ask)
    assert told.median_p is not None
    assert told.distance_p is told.distance_low is None
    constant = resample(np.full(20, 0.3), covariates, edges, nowhere, **ask)
    collinear = resample(covariates[:, 0], covariates, edges, nowhere, **ask)
    few = resample(fd[:5], covariates[:5], edges[:5], nowhere, **ask)
    for told in (constant, collinear, few):
        assert (told.n_edges, told.median_p) == (0, None)
    only = resample(fd, covariates, edges, np.arange(12.0), n_permutations=0, seed=0)
    assert only.median_p is None
    assert only.distance_low < only.distance_high


def test_the_interval_is_the_jackknifes():
    fd, covariates, edges = people(11, n=9, n_edges=30)
    distances = np.random.default_rng(0).random(30)

    def z(kept):
        r = by_lstsq(fd[kept], covariates[kept], edges[kept])
        return np.arctanh(scipy.stats.spearmanr(distances, r).statistic)

    everyone = np.arange(9)
    parts = [z(everyone != one) for one in range(9)]
    error = np.sqrt(8 / 9 * ((parts - np.mean(parts)) ** 2).sum())
    reach = scipy.stats.t.ppf(0.975, 8) * error
    whole = z(everyone >= 0)
    told = resample(fd, covariates, edges, distances, n_permutations=0, seed=0)
    found = told.distance_low, told.distance_high
    assert_allclose(found, np.tanh([whole - reach, whole + reach]), rtol=1e-8)


def test_edges_are_held_as_far_as_memory_goes(monkeypatch):
    assert choose_edges(100, 10) == slice(None, None, 1)
    assert len(range(79800)[choose_edges(79800, 100)]) == 79800 // 4
    assert len(range(79800)[choose_edges(79800, 5000)]) * 5000 <= motion._MOST_VALUES


def weighted(values, weights):
    found = WeightedMoments(values.shape[1])
    for row, weight in zip(values, weights, strict=True):
        found.update(row, weight)
    return found


def test_weighted_means_are_numpys():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(5, 1, (9, 6)), rng.uniform(10, 200, 9)
    values[rng.random(values.shape) < 0.2] = np.nan
    weights[4] = 0
    found = weighted(values, weights)
    halves = weighted(values[:4], weights[:4])
    halves.merge(weighted(values[4:], weights[4:]))
    for edge, y in enumerate(values.T):
        there = np.isfinite(y)
        w, y = weights[there], y[there]
        mean = np.average(y, weights=w)
        variance = w @ (y - mean) ** 2 / (w.sum() - (w**2).sum() / w.sum())
        for one in (found, halves):
            assert_allclose(one.mean[edge], mean, rtol=1e-12)
            assert_allclose(one.deviation[edge], np.sqrt(variance), rtol=1e-10)


def test_equal_weights_are_none():
    values = np.random.default_rng(1).normal(size=(7, 4))
    found, usual = weighted(values, np.full(7, 3.0)), Moments(4)
    for row in values:
        usual.update(row)
    assert_allclose(found.mean, usual.mean, rtol=1e-12)
    assert_allclose(found.deviation, usual.deviation, rtol=1e-12)
    alone = weighted(values[:2], [0, 5])
    assert np.isfinite(alone.mean).all()
    assert np.isnan(alone.deviation).all()
    assert np.isnan(weighted(values, np.zeros(7)).mean).all()


@pytest.mark.parametrize("by_run", [True, False])
def test_a_group_weighs_runs_and_then_participants(by_run):
    rng = np.random.default_rng(2)
    values, weights = rng.normal(size=(6, 3)), rng.uniform(10, 90, 6)
    who = [0, 0, 0, 1, 2, 2]
    group = GroupStatistics(3, None, by_run=by_run, more=More(weighted=True))
    for person in range(3):
        for row in (n for n in range(6) if who[n] == person):
            group.add_run(values[row], 0.1, weight=weights[row])
        group.close_participant()
    # Either way a run counts by its weight.
    assert_allclose(group.weighted.mean, np.average(values, 0, weights), rtol=1e-12)


def test_a_group_holds_units_with_all_covariates():
    fd, covariates, edges = people(12, n=8)
    more = More(n_covariates=2, held=slice(None, None, 3))
    parts = [GroupStatistics(12, None, by_run=False, more=more) for _ in range(2)]
    for unit, (number, held, row) in enumerate(zip(fd, covariates, edges, strict=True)):
        part = parts[unit > 3]
        part.add_run(row, number, covariates=None if unit == 2 else held)
        part.add_run(row, number, covariates=None if unit == 2 else held)
        part.close_participant()
    parts[0].merge(parts[1])
    kept = np.arange(8) != 2
    expected = by_lstsq(fd[kept], covariates[kept], edges[kept])
    assert_allclose(parts[0].partial.correlate()[0], expected, rtol=1e-9)
    assert_allclose([unit[2] for unit in parts[0].kept], edges[kept, ::3], rtol=1e-6)
    assert parts[0].units.n.tolist() == [8] * 12


def test_icc_of_shrout_and_fleiss_has_their_intervals():
    """Their table 2; for the mean of four judges 0.44 (table 4)."""
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6]]
    ratings += [[10, 5, 6, 9], [6, 2, 4, 7]]
    found = one_way([np.array(row, float)[:, None] for row in ratings]).agree()
    assert [round(float(v[0]), 2) for v in (found.icc, found.mean)] == [0.17, 0.44]
    # By their formulas, from the mean squares of table 3: 11.24 and 6.26.
    f = (56.2083 / 5) / (112.75 / 18)
    low = f / scipy.stats.f.ppf(0.975, 5, 18)
    high = f * scipy.stats.f.ppf(0.975, 18, 5)
    single = (low - 1) / (low + 3), (high - 1) / (high + 3)
    assert_allclose((found.low[0], found.high[0]), single, rtol=1e-4)
    mean = 1 - 1 / low, 1 - 1 / high
    assert_allclose((found.mean_low[0], found.mean_high[0]), mean, rtol=1e-4)
    assert found.k0[0] == 4


def one_way(participants):
    found = OneWay(participants[0].shape[1])
    for runs in participants:
        moments = Moments(runs.shape[1])
        for row in runs:
            moments.update(row)
        found.update(moments)
    return found


def test_icc_of_means_is_spearman_and_browns():
    rng = np.random.default_rng(5)
    runs = [rng.normal(size=(1, 20)) + rng.normal(size=(k, 20)) for k in (2, 3, 2, 5)]
    found = one_way(runs).agree()
    icc = np.array([anova_by_hand([p[:, e] for p in runs]) for e in range(20)])
    expected = found.k0 * icc / (1 + (found.k0 - 1) * icc)
    assert_allclose(found.mean, expected, rtol=1e-9)
    assert (found.low < found.icc).all()
    assert (found.icc < found.high).all()


def test_icc_intervals_that_cannot_be_told():
    same = one_way([np.full((2, 1), 0.3), np.full((3, 1), 0.3)]).agree()
    assert all(np.isnan(v).all() for v in (same.low, same.high, same.mean, same.k0))
    perfect = one_way([np.full((2, 1), 0.3), np.full((2, 1), 0.4)]).agree()
    assert_allclose([perfect.low, perfect.high, perfect.mean], 1, rtol=1e-9)
