"""Parcellated files: nibabel reads what was written."""

import nibabel as nb
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from support import dense

from bids_roi.core.frame import Frame, Mesh, Part, Points
from bids_roi.core.grid import Grid
from bids_roi.images.cifti import (
    matrix_content,
    open_dense_series,
    parcels_axis,
    series_content,
)

REGIONS = ((4, "A"), (2, "B"), (9, "nothing"))


def toy(tmp_path):
    """Frame of small models, and three parcels over them of which one is empty."""
    axis = dense.small_axis()
    path = dense.write(
        tmp_path / "x.dtseries.nii", dense.series_xml(axis, 3), dense.ramp(3, len(axis))
    )
    keys = np.zeros(len(axis), int)
    keys[5:160], keys[290:310], keys[320:340] = 4, 2, 4
    return open_dense_series(path, "fsLR").frame, keys, axis


def test_parcels_have_the_points_of_their_labels(tmp_path):
    frame, keys, models = toy(tmp_path)
    axis = parcels_axis(frame, Points(keys), REGIONS)
    path = tmp_path / "x.ptseries.nii"
    path.write_bytes(series_content(axis, np.ones((4, 3)), 0.8))
    found = nb.load(path).header.get_axis(1)
    assert found.name.tolist() == ["A", "B", "nothing"]
    for row, (key, _) in enumerate(REGIONS):
        inside = keys == key
        deep = inside & ~models.surface_mask
        voxels = {tuple(v) for v in models.voxel[deep].tolist()}
        assert {tuple(v) for v in np.array(found.voxels[row]).tolist()} == voxels
        for name in ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT"):
            vertices = models.vertex[inside & (models.name == name)]
            assert_array_equal(found.vertices[row].get(name, []), vertices)
    assert_allclose(found.affine, np.diag([2, 2, 2, 1]))
    assert found.volume_shape == (10, 11, 12)
    assert set(found.nvertices.values()) == {32492}


def test_surfaces_alone_have_no_volume(tmp_path):
    frame = Frame((Part(Mesh("fsaverage", 642), "CORTEX_LEFT"),))
    keys = np.arange(642) % 3 + 1
    axis = parcels_axis(frame, Points(keys), ((1, "A"), (2, "B"), (3, "C")))
    path = tmp_path / "x.pconn.nii"
    path.write_bytes(matrix_content(axis, np.eye(3)))
    found = nb.load(path).header.get_axis(0)
    assert found.affine is None
    assert_array_equal(
        found.vertices[1]["CIFTI_STRUCTURE_CORTEX_LEFT"], np.flatnonzero(keys == 2)
    )


def test_values_and_the_axis_of_a_further_run(tmp_path):
    frame, keys, _ = toy(tmp_path)
    axis = parcels_axis(frame, Points(keys), REGIONS)
    assert parcels_axis(frame, Points(keys.copy()), REGIONS) is axis
    assert parcels_axis(frame, Points(keys[::-1]), REGIONS) is not axis
    values = np.random.default_rng(0).normal(size=(5, 3))
    values[:, 2] = np.nan
    series, matrix = tmp_path / "x.ptseries.nii", tmp_path / "x.pconn.nii"
    series.write_bytes(series_content(axis, values, 0.72))
    image = nb.load(series)
    assert_array_equal(image.get_fdata(), values.astype("f4"))
    assert image.header.get_axis(0).step == 0.72
    square = np.array([[1, 0.5, np.nan], [0.5, 1, np.nan], [np.nan] * 3])
    matrix.write_bytes(matrix_content(axis, square))
    image = nb.load(matrix)
    assert_array_equal(image.get_fdata(), square)
    assert image.nifti_header.get_intent()[0] == "ConnParcels"


def test_voxels_of_a_whole_volume(tmp_path):
    grid = Grid.of((3, 4, 5), np.diag([2.0, 2, 2, 1]))
    keys = np.zeros((3, 4, 5), int)
    keys[1, 2, 3] = keys[2, 0, 4] = 7
    labels = Points(keys.ravel(order="F"))
    axis = parcels_axis(Frame.of_grid(grid), labels, ((7, "A"), (8, "B")))
    assert sorted(map(tuple, axis.voxels[0].tolist())) == [(1, 2, 3), (2, 0, 4)]
    assert len(axis.voxels[1]) == 0
