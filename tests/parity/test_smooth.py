"""Smoothing: where nilearn or scikit-learn has the same."""

import warnings

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support.smooth_cases import AFFINE, case, engine


@pytest.mark.parity
@pytest.mark.parametrize("strategy", ["mean", "standard_deviation"])
def test_equals_nilearn(strategy):
    values, labels, mask = case(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn's own deprecations
        from nilearn.maskers import NiftiLabelsMasker

        masker = NiftiLabelsMasker(
            nb.Nifti1Image(labels.astype(np.int32), AFFINE),
            mask_img=nb.Nifti1Image(mask.astype(np.uint8), AFFINE),
            smoothing_fwhm=6.0,
            strategy=strategy,
            standardize=None,
        )
        oracle = masker.fit_transform(nb.Nifti1Image(values, AFFINE))
    found = engine(values, [(labels, np.array([1, 2, 3]))], mask, 6.0, (strategy,))
    assert_allclose(found.signals[strategy][0], oracle, rtol=1e-6)
