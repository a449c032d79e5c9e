"""Cleaning against known truth."""

import numpy as np
from support.cleaning_oracles import PLAIN, clean_signals


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
