"""Matrices against NumPy: cases that unit and parity tests share."""

import numpy as np


def mixed(n_volumes, n_regions, *, seed=0):
    """Regions that share signals, at the level of BOLD images."""
    generator = np.random.default_rng(seed)
    sources = generator.normal(size=(n_volumes, 5))
    weights = generator.normal(size=(5, n_regions))
    noise = generator.normal(size=(n_volumes, n_regions))
    return 1e4 + 100 * (sources @ weights + noise)
