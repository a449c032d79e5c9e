"""Cleaning against known truth: correlations, and the degrees of freedom left."""

import cleaning_oracles as oracles
import numpy as np
import pytest
from cleaning_oracles import BAND, PLAIN, some_signals

from bids_roi.core.clean import clean_signals


def contaminated(seed=0, n_volumes=400):
    """Known slow signals, plus known motion, drift and a few spikes."""
    rng = np.random.default_rng(seed)
    time = np.arange(n_volumes) * 2.0
    frequencies = rng.uniform(0.015, 0.08, (8, 12))
    phases = rng.uniform(0, 2 * np.pi, (8, 12))
    truth = np.sin(2 * np.pi * time[:, None, None] * frequencies + phases).sum(axis=1)
    motion = rng.normal(size=(n_volumes, 6)).cumsum(axis=0)
    drift = np.column_stack([time, time**2, np.cos(np.pi * time / time[-1])])
    drift = (drift - drift.mean(axis=0)) / drift.std(axis=0)
    noisy = 1000 + truth + 0.5 * rng.normal(size=truth.shape)
    noisy += motion / motion.std(axis=0) @ rng.normal(0, 3, (6, 12))
    noisy += drift @ rng.normal(0, 4, (3, 12))
    mask = rng.random(n_volumes) > 0.05
    noisy[~mask] += rng.normal(0, 60, (int((~mask).sum()), 12))
    return truth, noisy, motion, mask


def agreement(signals, truth):
    """Mean over regions of the correlation with the truth."""
    pairs = zip(signals.T, truth.T, strict=True)
    return np.mean([np.corrcoef(one, two)[0, 1] for one, two in pairs])


def test_every_step_brings_the_signals_closer_to_the_truth():
    truth, noisy, motion, mask = contaminated()
    every = np.ones(len(mask), bool)
    steps = [
        ({}, every),
        ({"sample_mask": mask}, mask),
        ({"sample_mask": mask, "detrend": True}, mask),
        ({"sample_mask": mask, "detrend": True, "confounds": motion}, mask),
        (
            {"sample_mask": mask, "detrend": True, "confounds": motion}
            | {"high_pass": 0.01, "low_pass": 0.1},
            mask,
        ),
    ]
    found = [
        agreement(clean_signals(noisy, **(PLAIN | options)).signals, truth[rows])
        for options, rows in steps
    ]
    assert (np.diff(found) > 0).all(), found
    assert found[0] < 0.4
    # White noise in the band that is left is 2 % of the truth in variance, the six
    # random walks of the motion take a few slow waves with them.
    assert found[-1] > 0.95


def test_correlation_with_truth_is_as_large_as_theory_says():
    """White noise of known size and motion only: r = 1 / sqrt(1 + noise / signal)."""
    rng = np.random.default_rng(4)
    truth = rng.normal(size=(2000, 40))
    motion = rng.normal(size=(2000, 6)).cumsum(axis=0)
    noisy = truth + 0.5 * rng.normal(size=truth.shape) + motion @ np.ones((6, 40))
    cleaned = clean_signals(noisy, **(PLAIN | {"confounds": motion}))
    # Six of 2,000 dimensions go, of signal and noise alike; the standard error of the
    # mean of 40 correlations over 2,000 volumes is 0.0007.
    assert abs(agreement(cleaned.signals, truth) - 1.25**-0.5) < 0.004
    assert agreement(noisy, truth) < 0.2


def test_degrees_of_freedom():
    signals, confounds, mask = some_signals()
    n_kept = int(mask.sum())

    def left(**options):
        return clean_signals(
            signals, **(PLAIN | {"sample_mask": mask} | options)
        ).degrees_of_freedom

    assert left() == n_kept - 1
    assert left(detrend=True) == n_kept - 2
    assert left(detrend=True, confounds=confounds) == n_kept - 2 - 24
    constant = np.ones((200, 1))
    raw = {"confounds": constant, "standardize_confounds": False}
    assert left(**raw) == n_kept - 1  # the mean is counted once
    # 0.01 to 0.1 of 0.25 Hz, less the slopes; mean and trend are below 0.01 Hz.
    share = 1 - oracles.share_left(5, [0.04, 0.4])
    assert left(**BAND, detrend=True) == pytest.approx(n_kept * (1 - share), abs=0.01)
    assert share == pytest.approx(0.64, abs=0.1)
    share = 1 - oracles.share_left(5, 0.4)
    found = left(low_pass=0.1, detrend=True)
    assert found == pytest.approx(n_kept * (1 - share) - 2, abs=0.01)
    # floor(2 * 200 * 0.01 * 2) cosines.
    assert left(high_pass=0.01, filter="cosine") == n_kept - 1 - 8


def test_a_narrow_filter_can_leave_less_than_nothing():
    signals, confounds, mask = some_signals()
    options = PLAIN | {"high_pass": 0.01, "low_pass": 0.03}
    options |= {"confounds": confounds, "sample_mask": mask}
    cleaned = clean_signals(signals, **options)
    expected = cleaned.n_kept - cleaned.filter_cost - cleaned.rank
    assert cleaned.degrees_of_freedom == pytest.approx(expected)
    assert cleaned.rank == 24
    assert cleaned.degrees_of_freedom < 0


@pytest.mark.parametrize("order", [1, 5])
@pytest.mark.parametrize("cutoffs", [BAND, {"high_pass": 0.01}, {"low_pass": 0.1}])
def test_cost_of_a_filter_is_what_the_spread_of_correlations_shows(order, cutoffs):
    """Correlations of filtered noise vary like those of as many volumes as are left.

    Away from the ends, to which the theory does not reach: there the filter has less to
    go by, and noise varies more.
    """
    rng = np.random.default_rng(9)
    noise = rng.normal(size=(1000, 400))
    cleaned = clean_signals(noise, **(PLAIN | cutoffs | {"filter_order": order}))
    middle = cleaned.signals[200:-200]
    pearson = np.corrcoef(middle.T)[np.triu_indices(400, 1)]
    # 79,800 pairs of 400 series: the variance of r is known to about 1 %.
    expected = 600 * cleaned.degrees_of_freedom / 1000
    assert 1 / pearson.var() == pytest.approx(expected, rel=0.03)
