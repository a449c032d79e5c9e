"""bids_roi.extract: the numbers of the app, from paths and from images in memory."""

import json

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from support import datasets
from support.broken_disk import fail_to_list
from support.calls import FUNC, STEM, relmat_path, run, series, sidecar
from support.toy_confounds import SPIKES

import bids_roi
from bids_roi.errors import BidsRoiError, MissingInput, UsageError

# Keys that say what the API cannot know: where the outputs are.
OUTSIDE = {"TableDigest", "Sources", "Description"}


def read_tsv(path, **options):
    return pd.read_csv(path, sep="\t", na_values="n/a", **options)


@pytest.fixture
def made(cleaned_input, atlas, tmp_path, capsys):
    """Outputs of the app: raw and cleaned, with matrices."""
    root, _, path = cleaned_input
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, "--denoise", "none", "24P", "--low-pass", 0.2]
    more = ["--fd-threshold", 0.5, "--relmat", "pearson", "partial"]
    run(capsys, root, out, "participant", *options, *more)
    return out, path, *atlas.split(",")


def test_a_path_gives_what_the_app_writes(made):
    out, path, image, table = made
    found = bids_roi.extract(path, image, atlas_table=table)
    written = read_tsv(series(out, None))
    assert_frame_equal(found.signals.reset_index(drop=True), written)
    regions = read_tsv(out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv", keep_default_na=False)
    for name in ("index", "name", "network", "status", "coverage", "n_voxels_used"):
        assert found.regions[name].tolist() == regions[name].tolist()
    content = sidecar(series(out, None))
    for key in set(content) - OUTSIDE:
        value = found.sidecar[key]
        assert json.loads(json.dumps(value)) == content[key], key


def test_cleaning_and_matrices_are_the_apps(made):
    out, path, image, table = made
    found = bids_roi.extract(
        path,
        image,
        atlas_table=table,
        strategy="24P",
        low_pass=0.2,
        fd_threshold=0.5,
        relmat=["pearson", "partial"],
    )
    written = read_tsv(series(out, "24P"))
    assert_frame_equal(found.signals.reset_index(drop=True), written)
    kept = np.setdiff1d(np.arange(60), [0, *SPIKES])
    assert found.signals.index.tolist() == kept.tolist()
    for measure in ("pearson", "partial"):
        expected = read_tsv(
            relmat_path(out, f"{measure}correlation", "24P"), index_col="Node"
        )
        expected.index.name = None
        assert_frame_equal(found.relmats[measure], expected)
    assert found.sidecar["NumberOfVolumesKept"] == kept.size


def test_images_in_memory(made):
    out, path, image, table = made
    bold = nb.Nifti1Image(nb.load(path).get_fdata(), nb.load(path).affine)
    mask = str(path).replace("preproc_bold", "brain_mask")
    frame = read_tsv(table)
    found = bids_roi.extract(bold, nb.load(image), atlas_table=frame, mask=mask)
    written = read_tsv(series(out, None))
    assert_frame_equal(found.signals.reset_index(drop=True), written)


def test_no_mask_beside_it_is_an_error_with_the_remedy(atlas):
    bold = nb.Nifti1Image(datasets.bold(), datasets.oblique())
    image = atlas.split(",")[0]
    with pytest.raises(MissingInput, match="brain mask"):
        bids_roi.extract(bold, image)
    found = bids_roi.extract(bold, image, mask="none")
    # Without a table regions are named by their value.
    assert sorted(found.signals) == [
        "region_12",
        "region_3",
        "region_40000",
        "region_500",
    ]


@pytest.mark.parametrize("others", [[], ["sub-01_ses-2_task-a"]])
def test_a_series_in_a_session_that_cannot_be_listed(
    tmp_path, atlas, monkeypatch, others
):
    """It is no series without a mask: nobody can tell what lies beside it."""
    stems = ["sub-01_ses-1_task-a", *others]
    root = datasets.write_dataset(tmp_path / "in", stems)
    (path,) = root.glob("sub-01/ses-1/func/*_bold.nii.gz")
    fail_to_list(monkeypatch, path.parent.parent, "EACCES")
    with pytest.raises(MissingInput, match="the folder cannot be read"):
        bids_roi.extract(path, atlas.split(",")[0])


def test_confounds_by_hand(cleaned_input, atlas, tmp_path):
    _, _, path = cleaned_input
    table = path.parent / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    moved = tmp_path / "elsewhere" / "my_bold.nii.gz"
    moved.parent.mkdir()
    moved.write_bytes(path.read_bytes())
    image = atlas.split(",")[0]
    options = {"mask": "none", "strategy": "24P", "fd_threshold": 0.5}
    found = bids_roi.extract(moved, image, confounds=table, **options)
    assert len(found.signals) == 60 - len(SPIKES) - 1
    with pytest.raises(MissingInput, match="no table of confounds"):
        bids_roi.extract(moved, image, **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"fwhm": 6}, "no option 'fwhm'"),
        ({"n_procs": 2}, "no option 'n_procs'"),
        ({"statistic": "mode"}, "statistic is one of mean"),
        ({"statistic": ["mean", "median"]}, "one statistic at a time"),
        ({"min_coverage": 2}, "share from 0 to 1"),
        ({"strategy": "nonsense"}, "nonsense"),
        ({"space": "MNI152NLin6Asym"}, "the run in MNI152NLin6Asym"),
    ],
)
def test_wrong_options(atlas, options, told):
    bold = nb.Nifti1Image(datasets.bold(), datasets.oblique())
    with pytest.raises(BidsRoiError, match=told):
        bids_roi.extract(bold, atlas.split(",")[0], mask="none", **options)


def test_wrong_images(atlas):
    image = atlas.split(",")[0]
    with pytest.raises(BidsRoiError, match="neither a path nor a nibabel image"):
        bids_roi.extract(np.zeros((2, 2, 2, 5)), image)
    with pytest.raises(MissingInput, match="no such file"):
        bids_roi.extract("absent.nii.gz", image)
    bold = nb.Nifti1Image(datasets.bold(), datasets.oblique())
    with pytest.raises(UsageError, match="does not tell the space"):
        bids_roi.extract(bold, "schaefer400")
    with pytest.raises(UsageError, match="is no file"):
        bids_roi.extract(bold, "schaefer400", atlas_table=image)


def test_nothing_is_written(made):
    _, path, image, table = made
    before = datasets.snapshot(path.parents[2])
    bids_roi.extract(path, image, atlas_table=table)
    assert datasets.snapshot(path.parents[2]) == before
