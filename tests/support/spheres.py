"""Places and members of spheres, by a loop over all voxels."""

import itertools

import numpy as np

from support.datasets import oblique

AFFINES = {
    "plain": np.array([[2, 0, 0, -20], [0, 2, 0, -22], [0, 0, 2, -18], [0, 0, 0, 1.0]]),
    "LAS": np.array([[-3, 0, 0, 27], [0, 3, 0, -22], [0, 0, 3, -18], [0, 0, 0, 1.0]]),
    "oblique": oblique(),
    "anisotropic": np.array(
        [[2.4, 0, 0, -20.3], [0, 1.7, 0, -11], [0, 0, 4.1, -25], [0, 0, 0, 1.0]]
    ),
}
SHAPE = (17, 16, 15)


def seeds_in(affine, n=12, seed=0):
    """Places in the grid, off its voxel centres."""
    rng = np.random.default_rng(seed)
    steps = rng.uniform(0.6, np.array(SHAPE) - 1.6, (n, 3))
    return steps @ affine[:3, :3].T + affine[:3, 3]


def members(seeds, radius, affine):
    """Voxels of each sphere by a loop; None where nilearn adds one by whole mm."""
    voxels = np.array(list(itertools.product(*map(range, SHAPE))))
    centres = voxels @ affine[:3, :3].T + affine[:3, 3]
    for seed in seeds:
        away = np.sqrt(((centres - seed) ** 2).sum(axis=1))
        own = set(np.flatnonzero(away <= radius))
        step = np.linalg.solve(affine[:3, :3], seed - affine[:3, 3])
        own.add(int(np.flatnonzero((voxels == np.rint(step)).all(axis=1))[0]))
        alike = np.flatnonzero((centres.astype(int) == seed.astype(int)).all(axis=1))
        odd = alike.size and int(alike[0]) not in own
        yield None if odd else own
