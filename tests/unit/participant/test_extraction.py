"""Atlases brought to the frame of a run."""

import numpy as np
import pytest

from bids_roi.atlases.open import AtlasImage
from bids_roi.core.frame import Frame, Part, Points
from bids_roi.core.grid import Grid
from bids_roi.errors import AtlasError
from bids_roi.images.nifti import write_image
from bids_roi.participant.extraction import partition_grid

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def voxels(zoom):
    grid = Grid.of((4, 4, 4), np.diag([zoom, zoom, zoom, 1.0]))
    return Frame((Part(grid, "BRAIN_STEM", Points(np.array([5, 0, 63]))),))


@pytest.mark.parametrize("kind", ["dseg", "probseg"])
def test_other_voxels_than_those_of_a_cifti_run_are_an_error_with_both(tmp_path, kind):
    path = tmp_path / f"tpl-X_atlas-Y_{kind}.nii.gz"
    image = np.ones((4, 4, 4), "u1") if kind == "dseg" else np.ones((4, 4, 4, 1), "f4")
    write_image(path, image, AFFINE)
    keys = (AtlasImage((path,), kind, kind, "X"),)
    found = partition_grid(keys, ((1,),), voxels(2.0))
    assert found.n_points == 3
    assert found.coverage(0, np.ones(3, bool)) == 3 / 64
    with pytest.raises(AtlasError) as caught:
        partition_grid(keys, ((1,),), voxels(1.6))
    message = str(caught.value)
    assert path.name in message
    assert "4x4x4 voxels of 2 x 2 x 2 mm" in message
    assert "4x4x4 voxels of 1.6 x 1.6 x 1.6 mm" in message
    assert "Choose the atlas" in message
