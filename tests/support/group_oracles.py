"""Units with motion and covariates, and partial correlations by least squares."""

import numpy as np


def people(seed, n=20, n_edges=12, gaps=0.0):
    """FD and edges that both go with two covariates, one of them a site."""
    rng = np.random.default_rng(seed)
    covariates = np.column_stack([rng.normal(size=n), rng.integers(0, 2, n)])
    fd = rng.gamma(2, 0.1, n) + 0.1 * covariates[:, 0]
    edges = 0.3 + rng.normal(0, 0.2, (n, n_edges)) + 0.4 * fd[:, None]
    edges += 0.3 * covariates[:, 1:]
    edges[rng.random(edges.shape) < gaps] = np.nan
    return fd, covariates, edges


def residual(y, covariates):
    design = np.column_stack([np.ones(len(y)), covariates])
    return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]


def by_lstsq(fd, covariates, edges):
    found = []
    for y in edges.T:
        there = np.isfinite(y)
        left = [residual(v[there], covariates[there]) for v in (fd, y)]
        found.append(np.corrcoef(*left)[0, 1])
    return np.array(found)
