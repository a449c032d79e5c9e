"""Frames: where values lie, whatever the kind of file."""

import numpy as np

from bids_roi.core.frame import Frame, Mesh, Part, Points
from bids_roi.core.grid import Grid

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])
AFFINE[:3, 3] = -10, -20, -30
GRID = Grid.of((4, 5, 6), AFFINE)
LEFT = Mesh("fsLR", 32492)


def cifti(numbers=(0, 7, 119)):
    return Frame(
        (
            Part(LEFT, "CORTEX_LEFT", Points(np.arange(100))),
            Part(LEFT, "CORTEX_RIGHT", Points(np.arange(50))),
            Part(GRID, "THALAMUS_LEFT", Points(np.array(numbers))),
        )
    )


def test_a_volume_is_one_part_of_all_voxels():
    frame = Frame.of_grid(GRID)
    assert frame.grid == GRID
    assert frame.n_points == 120
    assert frame.starts == (0,)
    places = frame.millimetres()
    assert np.array_equal(places[1], [-8, -20, -30])  # first axis fastest
    assert np.array_equal(places[4], [-10, -17, -30])
    assert np.array_equal(places[20], [-10, -20, -26])


def test_grayordinates_have_places_where_they_are_voxels():
    frame = cifti()
    assert frame.grid is None
    assert frame.n_points == 153
    assert frame.starts == (0, 100, 150)
    places = frame.millimetres()
    assert np.isnan(places[:150]).all()
    assert np.array_equal(places[152], [-10 + 6, -20 + 12, -30 + 20])


def test_frames_are_keys_by_what_they_hold():
    assert cifti() == cifti()
    assert hash(cifti()) == hash(cifti())
    assert cifti().same(cifti())
    for other in (cifti((0, 7, 118)), cifti((7, 0, 119)), Frame(cifti().parts[:2])):
        assert other != cifti()
        assert not cifti().same(other)


def test_two_templates_are_never_the_same_mesh():
    """fsaverage5 and onavg-10k have meshes of nominally one size."""
    one, other = (
        Frame((Part(Mesh(name, 10242), "CORTEX_LEFT"),)) for name in ("a", "b")
    )
    assert not one.same(other)


def test_rounding_of_an_affine_makes_no_other_frame():
    moved = AFFINE.copy()
    moved[0, 3] += 1e-5
    assert Frame.of_grid(GRID).same(Frame.of_grid(Grid.of((4, 5, 6), moved)))


def test_points_cannot_be_written_to_and_keep_their_own_copy():
    numbers = np.arange(3)
    points = Points(numbers)
    numbers[0] = 9
    assert points == Points(np.arange(3))
    assert not points.numbers.flags.writeable
