"""Slow and obvious: what the engine must agree with, written another way."""

import functools
import itertools

import numpy as np
from scipy.stats import trim_mean

FUNCTIONS = {
    "mean": np.mean,
    "median": np.median,
    "sum": np.sum,
    "minimum": np.min,
    "maximum": np.max,
    "standard_deviation": np.std,
    "variance": np.var,
} | {
    f"trimmed_mean_{share}": functools.partial(trim_mean, proportiontocut=share / 100)
    for share in (5, 10, 20, 25)
}


def eigenvariate(y):
    """(T,) of (T, n), line by line as spm_regions.m of SPM12 has it."""
    m, n = y.shape
    if m > n:
        _, s, vh = np.linalg.svd(y.T @ y)
        v = vh.T[:, 0]
        u = y @ v / np.sqrt(s[0])
    else:
        u, s, _ = np.linalg.svd(y @ y.T)
        u = u[:, 0]
        v = y.T @ u / np.sqrt(s[0])
    d = np.sign(v.sum())
    return u * d * np.sqrt(s[0] / n)


def voxel_tsnr(y):
    """Mean over voxels, one after the other."""
    return np.mean([x.mean() / x.std(ddof=1) for x in y.T])


def homogeneity(y):
    """Mean correlation of a voxel with the mean of all, itself included."""
    return np.mean([np.corrcoef(x, y.mean(axis=1))[0, 1] for x in y.T])


def usable_voxels(values, mask, step=None):
    """(x, y, z): inside the mask, finite, changing, and in the field of view.

    ``step`` is the distance of two stored values of an image of whole numbers.
    """
    n_volumes = values.shape[3]
    near = 0 if step is None else step / 2
    seen = [t for t in range(n_volumes) if not (np.abs(values[..., t]) <= near).all()]
    usable = np.zeros(mask.shape, bool)
    for ijk in np.ndindex(mask.shape):
        series = values[ijk].tolist()
        usable[ijk] = (
            mask[ijk]
            and np.isfinite(series).all()
            and len(set(series)) > 1
            and not leaves_the_view([series[t] for t in seen], step)
        )
    return usable


def leaves_the_view(series, step=None):
    """Whether a voxel is 0 in some volumes and clear of it, on one side, in others."""
    near = 0 if step is None else step / 2
    others = [x for x in series if abs(x) > near]
    if len(others) in (0, len(series)):
        return False
    if min(others) < 0 < max(others):
        return False
    sizes = sorted(map(abs, others))
    coarse = step is not None and sizes[0] < 1.5 * step and sizes[-1] < 255.5 * step
    return not coarse


def regional(values, labels, index, mask, statistic, step=None):
    """(T, R) by a loop over regions; NaN without a usable voxel."""
    return by_region(
        values, labels, index, usable_voxels(values, mask, step), statistic
    )


def by_region(values, labels, index, usable, statistic):
    """As ``regional``, where it is known which voxels are usable."""
    result = np.full((values.shape[3], len(index)), np.nan)
    for column, value in enumerate(index):
        inside = usable & (labels == value)
        if inside.any():
            result[:, column] = FUNCTIONS[statistic](values[inside], axis=0)
    return result


def smooth(values, valid, sigmas):
    """(x, y, z, T): each volume over the valid voxels only, borders reflected.

    By the definition: a sum over shifts of the padded volume for each axis, of the
    values and of the share of the kernel that they make up.
    """

    def blur(volume):
        for axis, sigma in enumerate(sigmas):
            radius = int(4 * sigma + 0.5)
            weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
            weights /= weights.sum()
            pad = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
            padded = np.pad(volume, pad, mode="symmetric")
            n = volume.shape[axis]
            volume = sum(
                w * np.take(padded, range(k, k + n), axis)
                for k, w in enumerate(weights)
            )
        return volume

    share = blur(valid.astype(float))
    out = np.full(values.shape, np.nan)
    for t in range(values.shape[3]):
        mixed = blur(np.where(valid, values[..., t], 0.0))
        out[..., t][valid] = mixed[valid] / share[valid]
    return out


def nearest_labels(labels, atlas_affine, shape, affine):
    """Labels at the centre of each voxel, one voxel after the other.

    A centre on the border of the labels is inside, whatever its last digits are.
    """
    out = np.zeros(shape, labels.dtype)
    inverse = np.linalg.inv(atlas_affine)
    for ijk in np.ndindex(shape):
        x = inverse @ affine @ np.array([*ijk, 1.0])
        nearest = np.clip(x[:3], 0, np.array(labels.shape) - 1)
        if np.abs(x[:3] - nearest).max() <= 1e-3:
            out[ijk] = labels[tuple(np.floor(nearest + 0.5).astype(int))]
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


def anova_by_hand(groups):
    """ICC(1,1) of one edge from lists of values per participant."""
    groups = [np.array(g, float) for g in groups]
    groups = [g[np.isfinite(g)] for g in groups]
    groups = [g for g in groups if g.size]
    n, total = len(groups), sum(g.size for g in groups)
    if n < 2 or total <= n:
        return np.nan
    grand = np.concatenate(groups).mean()
    between = sum(g.size * (g.mean() - grand) ** 2 for g in groups) / (n - 1)
    within = sum(((g - g.mean()) ** 2).sum() for g in groups) / (total - n)
    k0 = (total - sum(g.size**2 for g in groups) / total) / (n - 1)
    return (between - within) / (between + (k0 - 1) * within)


def distance(a, b):
    both = np.isfinite(a) & np.isfinite(b)
    return np.sqrt(np.mean((a[both] - b[both]) ** 2))


def likeness(a, b):
    both = np.isfinite(a) & np.isfinite(b)
    return np.corrcoef(a[both], b[both])[0, 1]


def discriminability_by_loops(participants):
    """Bridgeford's definition: within, between, one comparison after the other."""
    shares = []
    for me, runs in enumerate(participants):
        for a, b in itertools.permutations(range(len(runs)), 2):
            within = distance(runs[a], runs[b])
            wins = []
            for you, others in enumerate(participants):
                for other in others if you != me else []:
                    between = distance(runs[a], other)
                    wins.append(1.0 if between > within else 0.0)
            shares.append(np.mean(wins))
    return np.mean(shares)


def identification_by_loops(participants):
    """Finn's: each target run goes to the participant most like it in the database."""
    most = max(len(runs) for runs in participants)
    right = []
    for base, target in itertools.permutations(range(most), 2):
        there = [p for p in participants if len(p) > max(base, target)]
        if len(there) < 2:
            continue
        for me, runs in enumerate(there):
            scores = [likeness(runs[target], other[base]) for other in there]
            right.append(int(np.argmax(scores)) == me)
    return np.mean(right)
