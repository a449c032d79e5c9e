"""Whole calls on T1w and native runs against SimpleITK's resampling of the atlas."""

import json

import nibabel as nb
import numpy as np
import pytest
from support import datasets
from support.calls import read, read_regions, run, sidecar
from support.itk import image_of, make_steps, sitk
from support.real_grid import write_templateflow_home

SHAPE = (64, 84, 56)
STEM = "sub-dd_ses-2_task-agency_run-4"
XFM = "mode-image"


def grid_affine(angle, origin):
    a = np.deg2rad(angle)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [2.5, 2.3, 2.9]
    affine[:3, 3] = origin
    return affine


GRIDS = {
    "T1w": grid_affine(4.0, [-76, -118, -66]),
    "native": grid_affine(-7.0, [-95, -93, -72]),
}


def make_onward():
    """An affine and a field to a smaller brain."""
    rng = np.random.default_rng(5)
    steps = make_steps(rng, 1.12, 0.04, 6, (97, 115, 97), 2.0, 6.0)
    return sitk.CompositeTransform(steps)


def make_coregistration():
    """From T1w points to those of the run, as bbregister's through fMRIPrep."""
    rigid = sitk.Euler3DTransform()
    rigid.SetRotation(0.06, -0.04, 0.11)
    rigid.SetTranslation([4.0, -7, 3])
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    return affine


def resample(image, space, moves):
    target = image_of(np.zeros(SHAPE, np.int32), GRIDS[space])
    source = image_of(np.asarray(image.dataobj).astype(np.int32), image.affine)
    moved = sitk.Resample(source, target, moves, sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayFromImage(moved).T


@pytest.fixture(scope="module")
def study(shared, tmp_path_factory):
    """fMRIPrep 23.2's layout of ds005239: T1w and native runs, and their transforms."""
    folder = tmp_path_factory.mktemp("native")
    root = datasets.write_dataset(folder / "fmriprep", runs=())
    home = write_templateflow_home(folder / "templateflow", shared)
    func, anat = root / "sub-dd/ses-2/func", root / "sub-dd/ses-2/anat"
    for part in (func, anat):
        part.mkdir(parents=True)
    onward, coreg = make_onward(), make_coregistration()
    mni = f"sub-dd_ses-2_from-{datasets.SPACE}_to-T1w_{XFM}_xfm.h5"
    sitk.WriteTransform(onward, str(anat / mni))
    name = f"{STEM}_from-boldref_to-T1w_{XFM}_desc-coreg_xfm.txt"
    sitk.WriteTransform(coreg, str(func / name))
    # The last of a composite is the first that moves a point.
    whole = sitk.CompositeTransform([onward, coreg.GetInverse()])
    moves = {"T1w": onward, "native": whole}
    brain = nb.load(shared / f"atlases/masks/{datasets.SPACE}_2mm_brainmask.nii.gz")
    rng = np.random.default_rng(1)
    for space, affine in GRIDS.items():
        stem = f"{STEM}_space-T1w" if space == "T1w" else STEM
        data = rng.normal(9000, 200, (*SHAPE, 8))
        path = func / f"{stem}_desc-preproc_bold.nii.gz"
        datasets.write_image(path, data.astype("f4"), affine, repetition_time=2.0)
        mask = func / f"{stem}_desc-brain_mask.nii.gz"
        datasets.write_image(
            mask, resample(brain, space, moves[space]).astype("u1"), affine
        )
        text = json.dumps({"RepetitionTime": 2.0, "TaskName": "agency"})
        path.with_name(f"{stem}_desc-preproc_bold.json").write_text(text)
    return root, home, moves


@pytest.mark.parametrize("space", GRIDS)
def test_a_whole_call_equals_an_atlas_that_itk_resampled_first(
    study, space, tmp_path, capsys
):
    root, home, moves = study
    out = tmp_path / "out"
    common = (root, out, "participant", "--space", space)
    told = run(capsys, *common, "--templateflow-home", home, "--offline")
    assert "transforms" not in told.err
    (path,) = out.glob("sub-dd/ses-2/func/*_timeseries.tsv")
    own = sidecar(path)
    fit = own["AtlasTransformFit"]
    assert fit["ShareInMask"] > 0.95
    assert 0.5 < fit["VolumeRatio"] < 0.9
    assert fit["ShareMirrored"] == 0

    image = nb.load(next(home.glob("tpl-*/*_dseg.nii.gz")))
    labels = resample(image, space, moves[space])
    atlas = tmp_path / "Itk.nii.gz"
    datasets.write_image(atlas, labels, GRIDS[space])
    table = next(home.glob("tpl-*/*_dseg.tsv"))
    run(capsys, *common, "--atlas-file", f"{atlas},{table}", "--atlas-space", space)
    (other,) = out.glob("sub-dd/ses-2/func/*Itk*_timeseries.tsv")
    header, found = read(path)
    expected_header, expected = read(other)
    assert header == expected_header
    assert len(header) == 400

    # Voxels that lie between two labels, to rounding, may go to either.
    tables = [
        read_regions(next(p.parent.glob(p.name.partition("_stat-")[0] + "_dseg.tsv")))
        for p in (path, other)
    ]
    counts = [np.array(t["n_voxels_grid"], int) for t in tables]
    assert counts[1].sum() > 20_000
    assert np.abs(counts[0] - counts[1]).sum() <= 2e-4 * labels.size
    alike = (found == expected).all(axis=0) | np.isnan(expected).all(axis=0)
    differ = ~alike
    assert differ.sum() <= 2e-4 * labels.size
    assert alike.sum() >= 380
    np.testing.assert_allclose(found[:, differ], expected[:, differ], rtol=0.01)
    assert np.isfinite(found).all(axis=0).sum() > 380
