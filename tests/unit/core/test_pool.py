"""Matrices over runs against NumPy and scikit-learn on the z-scores of all runs."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.covariance import ledoit_wolf
from support.relmat_cases import mixed

from bids_roi.core.pool import pool_runs

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
