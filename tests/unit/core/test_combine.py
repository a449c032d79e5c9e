"""Label images put together, against a loop over the places."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bids_roi.core.combine import Labelled, combine_labels
from bids_roi.core.frame import Frame, FrameMismatch, Mesh, Part, Points
from bids_roi.core.grid import Grid

RNG = np.random.default_rng(8)


def test_other_grids_are_brought_to_the_finest_which_grows():
    """By a loop over the voxels of the finest grid, and of those around it."""
    fine = Grid.of((8, 9, 7), np.diag([2.0, 2, 2, 1]))
    turned = np.diag([-3.0, 3, 3, 1])
    turned[:3, 3] = [24.3, -4.2, 1.1]
    coarse = Grid.of((9, 8, 6), turned)
    one = np.zeros(fine.shape, np.int64)
    one[2:6, 3:7, 1:5] = 4
    two = RNG.integers(0, 3, coarse.shape) * 10
    found = combine_labels(
        [
            Labelled(one, fine, np.array([4])),
            Labelled(two, coarse, np.array([10, 20])),
        ]
    )
    grid = found.where
    assert_allclose(grid.matrix[:3, :3], fine.matrix[:3, :3])
    steps = (grid.matrix[:3, 3] - fine.matrix[:3, 3]) / 2
    assert_allclose(steps, np.rint(steps), atol=1e-12)
    before = (-steps).astype(int)
    n_places = np.zeros(3, int)
    for voxel in np.ndindex(grid.shape):
        place = grid.matrix[:3, :3] @ voxel + grid.matrix[:3, 3]
        i = tuple(np.array(voxel) - before)
        first = (
            all(0 <= a < n for a, n in zip(i, fine.shape, strict=True)) and one[i] == 4
        )
        j = np.linalg.solve(turned[:3, :3], place - turned[:3, 3])
        j = tuple(np.floor(j + 0.5).astype(int))
        inside = all(0 <= a < n for a, n in zip(j, coarse.shape, strict=True))
        second = two[j] // 10 if inside else 0
        n_places += [first, second == 1, second == 2]
        assert found.labels[voxel] == (1 if first else second + 1 if second else 0)
    assert n_places.tolist() == found.n_places.tolist()
    # Nothing of the coarse one is lost at the edges: its volume is that of its voxels.
    volume = n_places[1:] * 8 / np.array([(two == v).sum() * 27 for v in (10, 20)])
    assert_allclose(volume, 1, atol=0.1)
    corners = itertools.product(*((0, n - 1) for n in coarse.shape))
    for corner in corners:
        place = turned[:3, :3] @ corner + turned[:3, 3]
        step = np.linalg.solve(grid.matrix[:3, :3], place - grid.matrix[:3, 3])
        assert ((step > -1) & (step < grid.shape)).all()


GRID = Grid.of((3, 3, 3), np.diag([2.0, 2, 2, 1]))
LEFT = Part(Mesh("fsLR", 4), "CORTEX_LEFT")


def voxels(structure, *numbers, grid=GRID):
    return Part(grid, structure, Points(np.array(numbers)))


def test_frames_are_united_and_nothing_is_moved():
    """Two vertices and a voxel are in both; the other voxels in one of them."""
    one = Frame((LEFT, voxels("THALAMUS_LEFT", 2, 5)))
    two = Frame((voxels("CAUDATE_LEFT", 9, 5), LEFT))
    found = combine_labels(
        [
            Labelled(np.array([1, 0, 1, 0, 7, 7]), one, np.array([1, 7])),
            Labelled(np.array([3, 3, 3, 0, 3, 4]), two, np.array([3, 4])),
        ]
    )
    assert [p.structure for p in found.where.parts] == [
        *("CORTEX_LEFT", "THALAMUS_LEFT", "CAUDATE_LEFT")
    ]
    # Voxel 5 is the thalamus's, as the first says; voxel 9 comes after.
    assert_array_equal(found.where.parts[1].points.numbers, [2, 5])
    assert_array_equal(found.where.parts[2].points.numbers, [9])
    assert_array_equal(found.labels, [1, 0, 1, 4, 2, 2, 3])
    assert_array_equal(found.n_places, [2, 2, 4, 1])
    assert_array_equal(found.n_lost, [0, 0, 3, 0])


def test_what_is_on_other_places_is_refused():
    small = Grid.of((3, 3, 3), np.diag([3.0, 3, 3, 1]))
    own = Labelled(np.array([1]), Frame((voxels("PUTAMEN", 4),)), np.array([1]))
    other = Frame((voxels("PUTAMEN", 4, grid=small),))
    with pytest.raises(FrameMismatch, match=r"voxels lie on .* and on "):
        combine_labels([own, Labelled(np.array([1]), other, np.array([1]))])
    volume = Labelled(np.ones(GRID.shape, np.int64), GRID, np.array([1]))
    with pytest.raises(FrameMismatch, match="volumes and surfaces"):
        combine_labels([own, volume])
