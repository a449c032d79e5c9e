"""Maps with weights: where nilearn or scikit-learn has the same."""

import warnings

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support.calls import AFFINE, SHAPE, engine
from support.mapping_cases import case

from bids_roi.core.grid import Grid


@pytest.mark.parity
@pytest.mark.parametrize("resampled", [False, True])
def test_equals_nilearn(resampled):
    values, maps, mask = case(5)
    mask[:] = True  # nilearn masks before it resamples nothing else
    affine = AFFINE.copy()
    if resampled:
        affine = AFFINE @ np.diag([0.9, 1.1, 0.8, 1])
        affine[:3, 3] = [-0.7, 0.4, 0.3]
    signed = maps.copy()
    signed[..., 2] -= 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn's own deprecations
        from nilearn.maskers import NiftiMapsMasker

        masker = NiftiMapsMasker(
            nb.Nifti1Image(signed, affine),
            mask_img=nb.Nifti1Image(mask.astype(np.uint8), AFFINE),
            standardize=None,
        )
        expected = masker.fit_transform(nb.Nifti1Image(values, AFFINE))
    source = Grid.of(SHAPE, affine)
    found, _ = engine(values, np.moveaxis(signed, 3, 0), mask, source)
    assert_allclose(found.signals["least_squares"][0], expected, rtol=1e-6)
