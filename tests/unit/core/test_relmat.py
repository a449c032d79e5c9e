"""Matrices, of one run and over runs: other libraries, and arithmetic by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.covariance import ledoit_wolf
from support.relmat_cases import mixed

from bids_roi.core.relmat import (
    covariance,
    fisher_z,
    has_variation,
    partial_correlation,
    pearson_correlation,
    pool_runs,
    shrink_covariance,
    spearman_correlation,
)

MEASURES = {
    "pearson": pearson_correlation,
    "spearman": spearman_correlation,
    "covariance": covariance,
    "ledoit_wolf": lambda x: partial_correlation(x, estimator="ledoit_wolf"),
    "pseudo_inverse": lambda x: partial_correlation(x, estimator="pseudo_inverse"),
}


@pytest.mark.parametrize(("n_volumes", "n_regions"), [(3, 2), (50, 20), (40, 90)])
def test_pearson_is_numpys_and_pandas(n_volumes, n_regions):
    signals = mixed(n_volumes, n_regions)
    found = pearson_correlation(signals)
    np.testing.assert_allclose(found, np.corrcoef(signals.T), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found, pd.DataFrame(signals).corr(), rtol=0, atol=1e-12)


def test_spearman_is_scipys_with_ties():
    signals = mixed(60, 12).round(-2)  # many ties
    assert len(np.unique(signals[:, 0])) < 20
    expected = stats.spearmanr(signals).statistic
    np.testing.assert_allclose(
        spearman_correlation(signals), expected, rtol=0, atol=1e-12
    )


def test_covariance_is_numpys():
    signals = mixed(60, 12)
    np.testing.assert_allclose(covariance(signals), np.cov(signals.T), rtol=1e-12)


def test_ledoit_wolf_by_hand():
    # Two volumes (1, 0), (-1, 0): S = diag(1, 0), m = 1/2, d2 = (1/4 + 1/4) / 2 = 1/4.
    # Squared error: ((1^2 + 1^2) / 2 - 1) / (2 * 2) = 0: nothing is shrunk.
    found, shrinkage = shrink_covariance(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    assert shrinkage == 0
    np.testing.assert_array_equal(found, [[1, 0], [0, 0]])
    # Four volumes on a cross: S = I/2, d2 = 0.
    cross = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    found, shrinkage = shrink_covariance(cross)
    assert shrinkage == 0
    np.testing.assert_array_equal(found, np.eye(2) / 2)


@pytest.mark.parametrize("estimator", ["pseudo_inverse", "ledoit_wolf"])
def test_partial_by_regression(estimator):
    """The correlation of what two regions have left after regressing out the others."""
    signals = mixed(20000 if estimator == "ledoit_wolf" else 100, 6)
    found = partial_correlation(signals, estimator=estimator)
    for one in range(6):
        for other in range(one):
            rest = np.delete(signals, [one, other], axis=1)
            design = np.column_stack([np.ones(len(rest)), rest])
            pair = signals[:, [one, other]]
            left = pair - design @ np.linalg.lstsq(design, pair, rcond=None)[0]
            expected = np.corrcoef(left.T)[0, 1]
            # With many volumes next to nothing is shrunk.
            limit = 2e-3 if estimator == "ledoit_wolf" else 1e-10
            assert found[one, other] == pytest.approx(expected, abs=limit)


@pytest.mark.parametrize("name", MEASURES)
def test_units_do_not_matter_but_for_covariance(name):
    signals = mixed(50, 8)
    scaled = signals * 10.0 ** np.arange(-4, 4) + 7
    if name == "covariance":
        factors = 10.0 ** np.arange(-4, 4)
        expected = covariance(signals) * np.outer(factors, factors)
        np.testing.assert_allclose(covariance(scaled), expected, rtol=1e-9)
    else:
        # 1e4 signals scaled to 1 keep 12 digits.
        found, expected = MEASURES[name](scaled), MEASURES[name](signals)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", MEASURES)
def test_lost_and_constant_regions_are_nan_and_change_no_other(name):
    signals = mixed(50, 8)
    holes = np.insert(signals, [0, 3, 8], np.nan, axis=1)
    holes[:, 4] = 123.4  # constant
    holes[7, 10] = np.inf
    found = MEASURES[name](holes)
    usable = np.array([False, True, True, True, False, True, True, True, True, True, 0])
    usable = usable.astype(bool)
    assert np.isnan(found[~usable]).all()
    assert np.isnan(found[:, ~usable]).all()
    # What is left of the signals: position 3 became the constant.
    rest = MEASURES[name](holes[:, usable])
    np.testing.assert_allclose(found[np.ix_(usable, usable)], rest, rtol=0, atol=0)
    assert np.isfinite(rest).all()


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("n_volumes", [0, 1, 2])
def test_too_few_volumes_tell_nothing(name, n_volumes):
    assert np.isnan(MEASURES[name](mixed(n_volumes, 4))).all()


@given(st.integers(3, 40), st.integers(1, 30), st.integers(0, 2**32 - 1), st.data())
def test_invariants(n_volumes, n_regions, seed, data):
    name = data.draw(st.sampled_from(sorted(MEASURES)))
    signals = mixed(n_volumes, n_regions, seed=seed)
    found = MEASURES[name](signals)
    np.testing.assert_array_equal(found, found.T)
    if name != "covariance":
        usable = np.isfinite(np.diagonal(found))
        np.testing.assert_array_equal(np.diagonal(found)[usable], 1)
        assert np.nanmax(np.abs(found)) <= 1


def test_a_region_and_its_copy():
    signals = mixed(50, 3)
    twins = np.column_stack([signals, signals[:, 0], -signals[:, 1]])
    found = pearson_correlation(twins)
    assert found[0, 3] == pytest.approx(1, abs=1e-15)
    assert found[1, 4] == pytest.approx(-1, abs=1e-15)
    assert np.abs(found).max() == 1


def test_tiny_and_huge_values_do_not_leave_the_range():
    signals = mixed(50, 4) - 1e4
    expected = np.corrcoef(signals.T)
    for factor in (1e-200, 1e200):
        found = pearson_correlation(signals * factor)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_constant_but_for_rounding():
    values = np.full((40, 2), 0.1)
    values[::2, 0] += 1e-17
    values[:, 1] = np.linspace(0, 1, 40)
    assert has_variation(values).tolist() == [False, True]
    residue = np.full((40, 1), 1e4) + np.random.default_rng(0).normal(size=(40, 1))
    assert has_variation(residue).all()


def test_fisher_z():
    r = np.array([[1, 0.5, 1], [0.5, 1, -0.9], [1, -0.9, 1]])
    z = fisher_z(r)
    assert np.isnan(np.diagonal(z)).all()
    assert np.isnan(z[0, 2])
    assert z[0, 1] == pytest.approx(0.5 * np.log(1.5 / 0.5))
    assert z[1, 2] == pytest.approx(-fisher_z(-r)[1, 2])
    assert np.isnan(fisher_z(np.full((2, 2), np.nan))).all()


LENGTHS = (50, 31, 80)


def make_runs(n_regions=12):
    """Runs of other lengths, levels and scales."""
    whole = mixed(sum(LENGTHS), n_regions)
    cuts = np.split(whole, np.cumsum(LENGTHS)[:-1])
    return [run * 10.0**k + 1000 * k for k, run in enumerate(cuts)]


def join(runs):
    """The z-scores of all runs behind one another: what the sums stand for."""
    return np.concatenate([(r - r.mean(0)) / r.std(0, ddof=1) for r in runs])


def pool(measure, runs, estimator="ledoit_wolf"):
    return pool_runs(measure, lambda: iter(runs), estimator=estimator)


def test_pearson_is_that_of_the_joined_scores():
    runs = make_runs()
    found = pool("pearson", runs)
    expected = np.corrcoef(join(runs).T)
    assert_allclose(found.relmat, expected, rtol=0, atol=1e-12)
    assert_array_equal(found.relmat, found.relmat.T)
    assert_array_equal(found.relmat.diagonal(), 1)
    assert found.n_volumes == LENGTHS
    assert (found.n_lost, found.n_usable) == (0, 12)
    mean = np.average(
        [np.corrcoef(r.T) for r in runs], axis=0, weights=[n - 1 for n in LENGTHS]
    )
    assert_allclose(found.relmat, mean, rtol=0, atol=1e-12)
    plain = np.corrcoef(np.concatenate(runs).T)
    assert np.abs(plain - expected).max() > 0.1, "levels of runs would be in it"


def test_two_volumes_by_hand():
    # r is 1 in the first run of 3 volumes and -1 in the second one of 5:
    # (2 * 1 + 4 * -1) / 6.
    up, down = np.arange(3.0), np.arange(5.0)
    found = pool("pearson", [np.c_[up, 7 * up], np.c_[down, -down]])
    assert_allclose(found.relmat, [[1, -1 / 3], [-1 / 3, 1]], rtol=0, atol=1e-15)


@pytest.mark.parametrize("estimator", ["ledoit_wolf", "pseudo_inverse"])
def test_partial_is_that_of_the_joined_scores(estimator):
    runs = make_runs()
    joined = join(runs)
    joined /= joined.std(axis=0)
    if estimator == "ledoit_wolf":
        precision = np.linalg.inv(ledoit_wolf(joined)[0])
    else:
        precision = np.linalg.pinv(np.corrcoef(joined.T))
    scale = np.sqrt(np.diag(precision))
    expected = -precision / np.outer(scale, scale)
    np.fill_diagonal(expected, 1)
    found = pool("partial", runs, estimator).relmat
    assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_a_region_that_one_run_lacks_is_lacking():
    runs = make_runs()
    runs[1][:, 3] = np.nan
    runs[2][:, 5] = 7.0  # without variation
    for measure in ("pearson", "partial"):
        found = pool(measure, runs)
        assert (found.n_lost, found.n_usable) == (1, 10)
        left = np.delete(np.arange(12), [3, 5])
        assert np.isnan(found.relmat[[3, 5]]).all()
        assert np.isnan(found.relmat[:, [3, 5]]).all()
        own = pool(measure, [run[:, left] for run in runs]).relmat
        assert_allclose(found.relmat[np.ix_(left, left)], own, rtol=0, atol=1e-14)


def test_runs_of_extreme_scale_and_too_few_volumes():
    runs = make_runs()
    scaled = [runs[0] * 1e-200, runs[1] * 1e200, runs[2]]
    assert_allclose(
        pool("pearson", scaled).relmat, pool("pearson", runs).relmat, atol=1e-9
    )
    short = pool("pearson", [runs[0], runs[1][:2]])
    assert np.isnan(short.relmat).all()
    with pytest.raises(ValueError, match="no run"):
        pool("pearson", [])
