"""Smoothing: cases that unit and parity tests share."""

import numpy as np

from bids_roi.core.grid import Grid
from bids_roi.core.mapping import map_labels
from bids_roi.core.partition import build_partition
from bids_roi.core.reduce import reduce_run
from bids_roi.core.volumes import Smoothing, smoothing_sigmas
from support.cuts import cut_volumes

SHAPE = (9, 8, 7)
ZOOMS = (2.0, 2.5, 3.0)
AFFINE = np.diag([*ZOOMS, 1.0])
GRID = Grid.of(SHAPE, AFFINE)


def case(seed=0, n_volumes=4):
    rng = np.random.default_rng(seed)
    values = rng.normal(100, 10, (*SHAPE, n_volumes))
    labels = rng.integers(0, 4, SHAPE)
    mask = rng.random(SHAPE) < 0.8
    return values, labels, mask


def engine(values, atlases, mask, fwhm, statistics=("mean",), block=2, **more):
    n_volumes = values.shape[3]
    flat = values.reshape(-1, n_volumes, order="F").T
    partition = build_partition([map_labels(*atlas, GRID, GRID) for atlas in atlases])
    return reduce_run(
        lambda: cut_volumes(flat, block),
        partition,
        in_mask=mask.ravel(order="F")[partition.voxels],
        statistics=statistics,
        n_volumes=n_volumes,
        smoothing=Smoothing(GRID, smoothing_sigmas(fwhm, GRID), mask.ravel(order="F")),
        **more,
    )
