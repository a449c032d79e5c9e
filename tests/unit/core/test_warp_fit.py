"""Measures of a moved atlas, and which wrong transforms they can show."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bids_roi.atlases.subject import Route, explain_fit, refuse_mirrored
from bids_roi.core.frame import Frame
from bids_roi.core.grid import Grid, resample_labels
from bids_roi.core.warp import Affine, move_points
from bids_roi.core.warp_fit import measure_fit
from bids_roi.errors import AtlasError


def place(shape, zoom, origin):
    affine = np.diag([*np.atleast_1d(zoom) * np.ones(3), 1.0])
    affine[:3, 3] = origin
    return Grid.of(shape, affine)


def voxel_centres(grid):
    return Frame.of_grid(grid).millimetres()


def as_volume(values, grid):
    return values.reshape(*grid.shape, *values.shape[1:], order="F")


# A template of 6 mm voxels: a brain of 140 x 172 x 144 mm, its grey matter outside.
ATLAS = place((33, 39, 33), 6.0, (-96, -132, -78))
MIDDLE = np.array([0, -18, 8.0])
RUN = place((30, 30, 30), 8.0, (-116, -116, -116))


def depth(points):
    """1 at the surface of the template's brain, 0 in its middle."""
    return np.sqrt((((points - MIDDLE) / [70, 86, 72]) ** 2).sum(axis=1))


where = as_volume(depth(voxel_centres(ATLAS)), ATLAS)
LABELS = ((where < 0.95) & (where > 0.7)).astype(np.int16)


def person(seed, reach=15.0):
    """Maps from a run to the template and back, of one participant."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(rng.normal(0, 0.1, 3)).as_matrix()
    linear = turn * (rng.normal(1.12, 0.04) * rng.normal(1, 0.02, 3))
    shift = rng.uniform(-reach, reach, 3)
    step = Affine(linear, MIDDLE - linear @ (MIDDLE + shift))
    waves = rng.normal(0, 0.02, (3, 3)), rng.uniform(0, 6, 3)

    def there(points):
        moved = move_points(points, [step])
        return moved + 4 * np.sin(moved @ waves[0] + waves[1])

    def back(points):  # the affine's share; the rest is small beside a swap
        return move_points(points, [step.invert()])

    return there, back


def fit_of(move, mask, grid=RUN, labels=LABELS):
    points = move(voxel_centres(grid))
    found = as_volume(resample_labels(labels, ATLAS, points), grid) != 0
    return measure_fit(found, points, grid=grid, atlas_grid=ATLAS, mask=mask)


def brain_of(move, grid=RUN):
    return as_volume(depth(move(voxel_centres(grid))) < 1, grid)


@pytest.mark.parametrize("seed", range(12))
def test_right_transforms_raise_no_doubt_and_swapped_ones_do(seed):
    there, back = person(seed)
    mask = brain_of(there)
    assert explain_fit(fit_of(there, mask)) == []
    swapped = " ".join(explain_fit(fit_of(back, mask)))
    assert "of the regions' voxels lie in the run's mask" in swapped
    mirrored = fit_of(lambda p: there(p) * [-1, 1, 1], mask)
    route = Route(((Path("from-MNI_to-T1w_mode-image_xfm.h5"), False),))
    refuse_mirrored(fit_of(there, mask), route)
    with pytest.raises(AtlasError, match="turns left into right in 100% of the atlas"):
        refuse_mirrored(mirrored, route)


def test_another_participant_s_shows_by_place_and_not_where_brains_are_alike():
    caught = 0
    for seed in range(20):
        mask = brain_of(person(seed)[0])
        caught += bool(explain_fit(fit_of(person(100 + seed)[0], mask)))
    assert 8 <= caught < 20
    near = person(0, reach=0.0)[0]
    twin = brain_of(near)
    assert explain_fit(fit_of(lambda p: near(p + np.array([2.0, 0, 1])), twin)) == []


def test_part_of_a_brain_is_no_misfit():
    """A slab of 80 mm: the volume is that of the part which is there."""
    there, _ = person(3)
    slab = place((30, 30, 10), 8.0, (-116, -116, -30))
    fit = fit_of(there, brain_of(there, slab), grid=slab)
    whole = fit_of(there, brain_of(there))
    assert explain_fit(fit) == []
    assert fit.volume == pytest.approx(whole.volume, abs=0.05)


@pytest.mark.parametrize("zoom", [8.0, np.array([-8.0, 8, 8])])
def test_measures_of_an_affine_by_hand(zoom):
    """Also for axes that run to the left, as LAS images have them."""
    linear = np.diag([1.25, 1, 1.6])
    step = Affine(linear, MIDDLE - linear @ MIDDLE)
    origin = (-116 * np.sign(np.atleast_1d(zoom)[0]), -116, -116)
    grid = place((30, 30, 30), zoom, origin)
    mask = np.zeros(grid.shape, dtype=bool)
    mask[20:, 14:16, 14:16] = True
    fit = fit_of(lambda p: move_points(p, [step]), mask, grid=grid)
    assert fit.volume == pytest.approx(1 / 2)
    assert fit.mirrored == 0
    middle = as_volume(voxel_centres(grid), grid)[mask]
    away = np.sqrt(((middle - MIDDLE) ** 2).sum(axis=1).min())
    assert fit.distance == pytest.approx(away, abs=1.5)
    inside = np.abs(linear @ (middle - MIDDLE).T + MIDDLE[:, None])
    assert fit.covered == pytest.approx((inside[0] <= 96).mean())


def test_nothing_to_measure():
    empty = np.zeros_like(LABELS)
    mask = np.ones(RUN.shape, dtype=bool)
    fit = fit_of(lambda p: p, mask, labels=empty)
    assert fit.inside == 0
    (words,) = explain_fit(fit)
    assert "0% of the regions' voxels" in words
    assert np.isnan(fit_of(lambda p: p, None).inside)
    assert explain_fit(fit_of(lambda p: p, None)) == []
    assert np.isnan(fit_of(lambda p: p, ~mask).covered)
