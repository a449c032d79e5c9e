"""High-variance confounds in two passes: cases that unit and parity tests share."""

import itertools

import numpy as np

from bids_roi.core.scan import SeriesCollector, VarianceScan, select_voxels

# Eigenvectors of well separated eigenvalues, whose squares are what is decomposed.
TOLERANCE = 1e-8


def two_passes(series, sizes, n_confounds=5, percentile=2.0):
    """Stream (T, V) in blocks of the given sizes, over and over."""
    n_volumes = len(series)
    edges = np.unique(np.clip(np.cumsum([0, *sizes, n_volumes]), 0, n_volumes))
    blocks = [(a, series[a:b]) for a, b in itertools.pairwise(edges)]
    scan = VarianceScan(n_volumes)
    for start, block in blocks:
        scan.update(start, block)
    voxels = select_voxels(scan.finish(), percentile=percentile)
    collector = SeriesCollector(voxels, n_volumes)
    for start, block in blocks:
        collector.update(start, block)
    return voxels, collector.finish(n_confounds=n_confounds)


def brain(seed=0, n_volumes=60, n_voxels=2000, dtype=np.float64):
    """Levels, trends, a few strong waves in some voxels, air around."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(500, 15000, n_voxels)
    series = levels + rng.normal(0, 10, (n_volumes, n_voxels))
    series += np.linspace(-1, 1, n_volumes)[:, None] * rng.normal(0, 300, n_voxels)
    waves = rng.normal(size=(n_volumes, 8)) * np.geomspace(200, 20, 8)
    strong = rng.choice(n_voxels, n_voxels // 20, replace=False)
    series[:, strong] += waves @ rng.normal(size=(8, strong.size))
    series[:, rng.random(n_voxels) < 0.3] = 0
    return series.astype(dtype)
