"""Images and transforms of SimpleITK, the oracle for transforms."""

import numpy as np
import pytest

from support.transform_cases import smooth_field

sitk = pytest.importorskip(
    "SimpleITK", reason="the oracle for transforms: pip install SimpleITK"
)
FLIP = np.diag([-1.0, -1, 1])  # between RAS and LPS


def image_of(values, affine):
    """Image of (x, y, z) values on a grid."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    image.SetSpacing(zooms.tolist())
    image.SetDirection((FLIP @ affine[:3, :3] / zooms).ravel().tolist())
    image.SetOrigin((FLIP @ affine[:3, 3]).tolist())
    return image


def make_steps(rng, scale, spread, shift, shape, zoom, bend):
    """A field and a random affine, as in the composites of antsRegistration."""
    affine = sitk.AffineTransform(3)
    matrix = np.eye(3) * scale + rng.uniform(-spread, spread, (3, 3))
    affine.SetMatrix(matrix.ravel().tolist())
    affine.SetTranslation(rng.uniform(-shift, shift, 3).tolist())
    affine.SetCenter([0.0, 18, 8])
    vectors = smooth_field(rng, shape, bend)
    field = sitk.GetImageFromArray(vectors.transpose(2, 1, 0, 3), isVector=True)
    field.SetSpacing([zoom] * 3)
    field.SetDirection(FLIP.ravel().tolist())
    field.SetOrigin([96.0, 132, -78])
    return [sitk.DisplacementFieldTransform(field), affine]
