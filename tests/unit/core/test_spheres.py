"""Voxels of spheres, against a loop over all of them."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support.datasets import oblique
from support.spheres import AFFINES, SHAPE, members, seeds_in

from bids_roi.core.frame import Frame
from bids_roi.core.grid import Grid
from bids_roi.core.partition import build_partition
from bids_roi.core.spheres import map_spheres


@pytest.mark.parametrize("name", AFFINES)
def test_members_are_those_of_a_loop(name):
    affine = AFFINES[name]
    grid = Grid.of(SHAPE, affine)
    seeds = seeds_in(affine, n=20, seed=3)
    spheres = np.column_stack([seeds, np.full(20, 5.0)])
    mapped = map_spheres(spheres, Frame.of_grid(grid))
    voxels = np.array(list(itertools.product(*map(range, SHAPE))))
    flat = np.ravel_multi_index(tuple(voxels.T), SHAPE, order="F")
    n_found = 0
    for row, own in enumerate(members(seeds, 5.0, affine)):
        if own is not None:
            n_found += 1
            found = mapped.weights.whole[[row]].indices
            assert sorted(found) == sorted(flat[list(own)])
    assert n_found > 10


def test_a_small_sphere_has_the_voxel_that_holds_its_centre():
    grid = Grid.of((5, 5, 5), np.diag([4.0, 4, 4, 1]))
    spheres = np.array([[9.0, 9.5, 7.0, 0.5], [8, 8, 8, 0.1], [500, 0, 0, 3]])
    mapped = map_spheres(spheres, Frame.of_grid(grid))
    two = np.ravel_multi_index((2, 2, 2), (5, 5, 5), order="F")
    assert_array_equal(mapped.weights.whole[[0]].indices, [two])
    assert_array_equal(mapped.weights.whole[[1]].indices, [two])
    assert mapped.weights.whole[[2]].nnz == 0
    assert_array_equal(mapped.n_voxels_atlas, [1, 1, 1])


def test_what_lies_beyond_the_grid_lowers_coverage():
    grid = Grid.of((6, 6, 6), np.diag([2.0, 2, 2, 1]))
    mapped = map_spheres(np.array([[0.0, 6, 6, 4.1]]), Frame.of_grid(grid))
    box = np.array(list(itertools.product(range(-3, 4), repeat=3))) * 2.0
    near = box[np.linalg.norm(box, axis=1) <= 4.1]
    assert mapped.n_voxels_atlas[0] == len(near)
    assert mapped.volume[0] == pytest.approx(len(near) * 8, rel=1e-12)
    partition = build_partition([mapped])
    share = partition.coverage(0, np.ones(partition.voxels.size, dtype=bool))
    assert share[0] == pytest.approx((near[:, 0] >= 0).mean(), abs=1e-12)


def test_a_warp_finds_the_places_in_the_template():
    """Of a run that is moved by a known shift: the same voxels as moved seeds have."""
    affine = oblique()
    grid = Grid.of(SHAPE, affine)
    frame = Frame.of_grid(grid)
    shift = np.array([3.0, -7.0, 11.0])
    seeds = seeds_in(affine, n=6, seed=9)
    spheres = np.column_stack([seeds, np.full(6, 5.5)])
    moved = np.column_stack([seeds + shift, np.full(6, 5.5)])
    here = map_spheres(spheres, frame)
    there = map_spheres(moved, frame, frame.millimetres() + shift)
    assert_array_equal(here.weights.indices, there.weights.indices)
    assert_array_equal(here.weights.indptr, there.weights.indptr)
