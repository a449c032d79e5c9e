"""Agreement with nilearn's NiftiLabelsMasker on float64 images."""

import warnings

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import datasets
from support.calls import read, run

# What nilearn has; the others have oracles of their own.
STATISTICS = ("mean", "median", "sum", "minimum", "maximum")
STATISTICS += ("variance", "standard_deviation")

pytestmark = pytest.mark.parity

ORIENTATIONS = {
    "RAS": np.diag([2.0, 2.5, 3.0, 1.0]),
    "LAS": np.diag([-2.0, 2.5, 3.0, 1.0]),
    "LPS": np.diag([-2.0, -2.5, 3.0, 1.0]),
    "SAR": np.array([[0, 2.0, 0, 0], [0, 0, 2.5, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]]),
    "oblique": datasets.oblique(),
}


def nilearn_signals(bold, labels, mask, statistic):
    """Signals and the label of each column, as nilearn has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        from nilearn.maskers import NiftiLabelsMasker

        masker = NiftiLabelsMasker(
            labels, mask_img=mask, strategy=statistic, standardize=None
        )
        signals = masker.fit_transform(bold)
    index = [v for k, v in masker.region_ids_.items() if k != "background"]
    return signals, np.array(index).astype(int)


def label_grid(affine, kind):
    """Toy labels on the BOLD grid, a finer one, or one that is cut and shifted."""
    labels = datasets.labels()
    if kind == "same":
        return labels, affine
    if kind == "finer":
        fine = labels.repeat(2, axis=0).repeat(2, axis=2)
        moved = affine @ np.diag([0.5, 1, 0.5, 1])
        moved[:3, 3] += affine[:3, :3] @ [-0.25, 0, -0.25]
        return fine, moved
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ [0.3, 1.2, -0.4]
    return labels[:, :-1, :], moved


@pytest.mark.parametrize("kind", ["same", "finer", "cut"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_statistic_equals_nilearn(name, kind, tmp_path, capsys):
    affine = ORIENTATIONS[name].copy()
    affine[:3, 3] = [-7, -9, -5]
    root = datasets.write_dataset(tmp_path / "in", [])
    stem = f"sub-01_task-rest_space-{datasets.SPACE}"
    path = datasets.write_run(root, stem, affine=affine)
    labels, atlas_affine = label_grid(affine, kind)
    atlas = tmp_path / f"tpl-{datasets.SPACE}_atlas-Toy_dseg.nii.gz"
    datasets.write_image(atlas, labels.astype(np.int32), atlas_affine)
    out = tmp_path / "out"
    run(
        capsys,
        *(root, out, "participant", "--atlas-file", atlas),
        *("--statistic", *STATISTICS, "--min-coverage", 0),
    )
    mask = nb.load(str(path).replace("preproc_bold", "brain_mask"))
    for statistic in STATISTICS:
        expected, index = nilearn_signals(
            nb.load(path), nb.load(atlas), mask, statistic
        )
        stat = statistic.replace("_", "")
        table = out / "sub-01/func" / f"{stem}_atlas-Toy_stat-{stat}_timeseries.tsv"
        header, found = read(table)
        columns = [header.index(f"region_{value}") for value in index]
        assert len(index) >= 3
        assert_allclose(found[:, columns], expected, rtol=1e-6)
        others = np.setdiff1d(np.arange(len(header)), columns)
        assert np.isnan(found[:, others]).all()
