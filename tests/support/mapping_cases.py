"""Maps with weights: cases that unit and parity tests share."""

import numpy as np

from support.calls import SHAPE


def case(seed=0, n_volumes=5, n_maps=4):
    rng = np.random.default_rng(seed)
    values = rng.normal(100, 10, (*SHAPE, n_volumes))
    maps = rng.random((*SHAPE, n_maps))
    maps[maps < 0.6] = 0  # sparse, and overlapping
    mask = rng.random(SHAPE) < 0.8
    return values, maps, mask
