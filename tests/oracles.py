"""Slow and obvious: what the engine must agree with, written another way."""

import numpy as np

FUNCTIONS = {
    "mean": np.mean,
    "median": np.median,
    "sum": np.sum,
    "minimum": np.min,
    "maximum": np.max,
    "standard_deviation": np.std,
    "variance": np.var,
}


def usable_voxels(values, mask):
    """(x, y, z): inside the mask, finite in every volume, not constant."""
    usable = np.zeros(mask.shape, bool)
    for ijk in np.ndindex(mask.shape):
        series = values[ijk]
        usable[ijk] = (
            mask[ijk] and np.isfinite(series).all() and len(set(series.tolist())) > 1
        )
    return usable


def regional(values, labels, index, mask, statistic):
    """(T, R) by a loop over regions and volumes; NaN without a usable voxel."""
    usable = usable_voxels(values, mask)
    result = np.full((values.shape[3], len(index)), np.nan)
    for column, value in enumerate(index):
        inside = usable & (labels == value)
        if inside.any():
            for t in range(values.shape[3]):
                result[t, column] = FUNCTIONS[statistic](values[..., t][inside])
    return result


def nearest_labels(labels, atlas_affine, shape, affine):
    """Labels at the centre of each voxel, one voxel after the other."""
    out = np.zeros(shape, labels.dtype)
    inverse = np.linalg.inv(atlas_affine)
    for ijk in np.ndindex(shape):
        x = inverse @ affine @ np.array([*ijk, 1.0])
        x = x[:3]
        if (x >= 0).all() and (x <= np.array(labels.shape) - 1).all():
            out[ijk] = labels[tuple(np.floor(x + 0.5).astype(int))]
    return out


def coverage(usable, affine, labels, atlas_affine, index):
    """Share of each region's atlas voxels whose centre lies in a usable voxel."""
    inverse = np.linalg.inv(affine)
    share = []
    for value in index:
        hits = total = 0
        for ijk in np.argwhere(labels == value):
            x = (inverse @ atlas_affine @ np.array([*ijk, 1.0]))[:3]
            i = np.floor(x + 0.5).astype(int)
            total += 1
            inside = (i >= 0).all() and (i < np.array(usable.shape)).all()
            hits += bool(inside and usable[tuple(i)])
        share.append(hits / total if total else 0.0)
    return np.array(share)
