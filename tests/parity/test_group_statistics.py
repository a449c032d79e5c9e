"""The group level's statistics against pingouin, statsmodels and simulations."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from support.group_oracles import by_lstsq, people

from bids_roi.core.group.accumulate import OneWay
from bids_roi.core.group.edges import Moments
from bids_roi.core.group.motion import (
    PartialMoments,
    correlation_intervals,
    correlation_p_values,
    resample,
)


def records(table):
    """Rows of a table of pingouin's, whose columns had other names before 0.6."""
    return table.rename(columns={"p-val": "p_val", "CI95%": "CI95"}).to_dict("records")


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_partial_qcfc_is_pingouins_and_statsmodels(gaps):
    import pingouin  # takes a second: not for every worker that collects
    import statsmodels.api as sm

    fd, covariates, edges = people(1, n=30, gaps=gaps)
    found = PartialMoments(edges.shape[1], 2)
    for unit in zip(fd, covariates, edges, strict=True):
        found.update(*unit)
    r, n = found.correlate()
    p, (low, high) = correlation_p_values(r, n), correlation_intervals(r, n)
    for edge, y in enumerate(edges.T):
        table = pd.DataFrame({"y": y, "fd": fd, "a": covariates[:, 0]})
        table = table.assign(b=covariates[:, 1]).dropna()
        (row,) = records(pingouin.partial_corr(table, "fd", "y", ["a", "b"]))
        assert_allclose(r[edge], row["r"], rtol=1e-9)
        assert_allclose(p[edge], row["p_val"], rtol=1e-7)
        # It rounds the interval to two digits.
        assert_allclose([low[edge], high[edge]], row["CI95"], atol=0.00501)
        design = sm.add_constant(table[["a", "b"]])
        left = [sm.OLS(table[name], design).fit().resid for name in ("fd", "y")]
        assert_allclose(r[edge], np.corrcoef(*left)[0, 1], rtol=1e-9)
        # The test of FD in the whole model is that of the partial correlation.
        model = sm.OLS(table["y"], sm.add_constant(table[["fd", "a", "b"]])).fit()
        assert_allclose(p[edge], model.pvalues["fd"], rtol=1e-7)


# As pingouin 0.7 calls pandas 3.1.
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_icc_and_intervals_are_pingouins():
    import pingouin

    rng = np.random.default_rng(5)
    runs = rng.normal(size=(9, 1, 5)) + rng.normal(size=(9, 3, 5))
    analysis = OneWay(5)
    for person in runs:
        moments = Moments(5)
        for row in person:
            moments.update(row)
        analysis.update(moments)
    found = analysis.agree()
    for edge in range(5):
        rows = [(i, k, runs[i, k, edge]) for i in range(9) for k in range(3)]
        table = pd.DataFrame(rows, columns=["who", "run", "value"])
        told = records(pingouin.intraclass_corr(table, "who", "run", "value"))
        # Single runs of one-way effects come first, their mean fourth.
        for row, own in (
            (told[0], (found.icc, found.low, found.high)),
            (told[3], (found.mean, found.mean_low, found.mean_high)),
        ):
            assert row["Type"] in ("ICC1", "ICC(1,1)", "ICC1k", "ICC(1,k)")
            assert_allclose(own[0][edge], row["ICC"], rtol=1e-9)
            interval = [bound[edge] for bound in own[1:]]
            assert_allclose(interval, row["CI95"], atol=0.00501)


@pytest.mark.parametrize("n_covariates", [0, 2])
def test_p_is_uniform_where_motion_is_in_nothing(n_covariates):
    rng = np.random.default_rng(3)
    ps = []
    for _ in range(150):
        fd, covariates, _ = people(rng.integers(1 << 30), n=12)
        # Edges that are correlated, and go with the covariates, and with no FD.
        edges = rng.normal(size=(12, 3)) @ rng.normal(size=(3, 9))
        edges += rng.normal(size=(12, 9)) + covariates @ rng.normal(size=(2, 9))
        held, distances = covariates[:, :n_covariates], rng.random(9)
        if not n_covariates:
            fd = rng.gamma(2, 0.1, 12)
        told = resample(fd, held, edges, distances, n_permutations=99, seed=1)
        ps.append((told.median_p, told.distance_p))
    for p in np.transpose(ps):
        assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    assert np.min(ps) >= 0.01


def test_the_interval_of_distance_dependence_holds_what_it_says():
    """Edges share what the units have in common: the usual interval fails."""
    rng = np.random.default_rng(2)
    distances, nobody = np.linspace(0, 1, 400), np.empty((60, 0))
    slopes = 0.4 - 0.8 * distances + rng.normal(0, 0.3, 400)
    shared = rng.normal(0, 3, size=(2, 400))
    z, reach = [], []
    for _ in range(80):
        fd = rng.normal(size=60)
        edges = fd[:, None] * slopes + rng.normal(size=(60, 400))
        edges += rng.normal(size=(60, 2)) @ shared
        r = by_lstsq(fd, nobody, edges)
        z.append(np.arctanh(scipy.stats.spearmanr(distances, r).statistic))
        told = resample(fd, nobody, edges, distances, n_permutations=0, seed=0)
        reach.append(np.arctanh([told.distance_low, told.distance_high]))
        assert_allclose(np.mean(reach[-1]), z[-1], rtol=1e-9)
    reach, truth = np.array(reach), np.mean(z)
    inside = np.mean((reach[:, 0] <= truth) & (truth <= reach[:, 1]))
    usual = np.mean(np.abs(z - truth) < 1.96 / np.sqrt(397))
    assert inside > 0.88
    assert usual < 0.7
