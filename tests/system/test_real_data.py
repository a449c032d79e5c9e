"""Real atlases, masks, confounds and BOLD: what users have, not what we made up."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import datasets
from support.calls import read, read_regions, run
from support.real_grid import write_real_grid, write_templateflow_home
from support.validator import issues_of


@pytest.fixture(scope="session")
def real_grid(shared, tmp_path_factory):
    """fMRIPrep-like runs on the real 97x115x97 grid with real confounds and mask."""
    return write_real_grid(tmp_path_factory.mktemp("real") / "fmriprep", shared)


@pytest.fixture
def home(shared, tmp_path):
    return write_templateflow_home(tmp_path / "templateflow", shared)


def test_real_grid_from_a_read_only_mount_validates(real_grid, home, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in real_grid.rglob("*")}
    out = tmp_path / "out"
    app = str(Path(sys.executable).with_name("bids_roi"))
    script = (
        f"mount --bind {real_grid} {real_grid}"
        f" && mount -o remount,ro,bind {real_grid} && ! touch {real_grid}/x"
        f" && {app} {real_grid} {out} participant --templateflow-home {home}"
        f" && {app} {real_grid} {out} group"
    )
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("only root can mount the input read-only")
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    if "permission denied" in done.stderr.lower() and not out.exists():
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in real_grid.rglob("*")} == before
    assert "3 runs of 3 participants" in done.stdout
    assert issues_of(out, "error", "warning") == []


@pytest.mark.parity
def test_real_grid_equals_nilearn_and_the_loop(real_grid, home, tmp_path, capsys):
    out = tmp_path / "out"
    label = ["--participant-label", "15", "--templateflow-home", home]
    run(capsys, real_grid, out, "participant", *label)
    path = next(real_grid.glob("sub-15/**/*_bold.nii.gz"))
    mask = nb.load(str(path).replace("preproc_bold", "brain_mask"))
    labels = nb.load(next(home.glob("tpl-*/*_dseg.nii.gz")))
    header, found = read(next(out.glob("sub-15/**/*_timeseries.tsv")))
    assert len(header) == 400
    assert header[0] == "7Networks_LH_Vis_1"
    assert found.shape[0] == 135
    series = nb.load(path).dataobj
    stored, slope = series.get_unscaled(), series.slope
    inside = np.asarray(mask.dataobj) > 0
    for index in (1, 57, 400):
        region = inside & (np.asarray(labels.dataobj) == index)
        expected = (slope * stored[region].astype(float)).mean(axis=0)
        assert_allclose(found[:, index - 1], expected, rtol=1e-12)
    some = slope * stored[..., ::6].astype(float)  # a gigabyte in all
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn's own deprecations
        from nilearn.maskers import NiftiLabelsMasker

        masker = NiftiLabelsMasker(labels, mask_img=mask, standardize=None)
        expected = masker.fit_transform(nb.Nifti1Image(some, labels.affine))
    kept = ~np.isnan(found).all(axis=0)
    assert kept.sum() > 350
    assert_allclose(found[::6, kept], expected[:, kept], rtol=1e-6)


def test_real_bold_of_pyhrf(shared, tmp_path, capsys):
    """int16, 79x95x46, zero outside its regions; the header's TR of 1 s is wrong."""
    root, source, labels = datasets.copy_pyhrf(shared, tmp_path / "in")
    out = tmp_path / "out"
    options = ["--atlas-file", labels, "--atlas-space", "MNI152Lin", "--mask", "none"]
    shown = run(capsys, root, out, "participant", *options)
    assert "repetition time is not known" in shown.err
    name = next(out.glob("sub-01/func/*_timeseries.tsv"))
    assert "RepetitionTime" not in json.loads(name.with_suffix(".json").read_text())
    header, found = read(name)
    assert header == [f"region_{i}" for i in range(1, 7)]
    assert found.shape == (128, 6)
    values, where = nb.load(source).get_fdata(), np.asarray(nb.load(labels).dataobj)
    for column, index in enumerate(range(1, 7)):
        series = values[where == index]
        series = series[np.ptp(series, axis=1) > 0]
        assert_allclose(found[:, column], series.mean(axis=0), rtol=1e-12)


def test_real_bold_with_schaefer_loses_what_it_does_not_cover(shared, tmp_path, capsys):
    """Zero but for 6,443 voxels: most parcels are lost, none of them becomes 0."""
    source = shared / "bold/pyhrf/real_data_vol_4_regions_BOLD.nii.gz"
    root = datasets.write_dataset(tmp_path / "in", [])
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    stem = f"sub-01_task-hrf_space-{datasets.SPACE}"
    shutil.copy(source, func / f"{stem}_desc-preproc_bold.nii.gz")
    home = write_templateflow_home(tmp_path / "templateflow", shared)
    out = tmp_path / "out"
    options = ["--templateflow-home", home, "--mask", "none", "--min-coverage", 0.25]
    run(capsys, root, out, "participant", *options)
    _, found = read(next(out.glob("sub-01/func/*_timeseries.tsv")))
    table = read_regions(next(out.glob("sub-01/func/*_dseg.tsv")))
    assert not (found == 0).any()
    lost = np.isnan(found).all(axis=0)
    words = np.array(table["status"])
    assert set(words) == {"ok", "below_coverage", "constant"}
    assert ((words != "ok") == lost).all()
    assert 0 < (~lost).sum() < 94
    assert (words == "constant").sum() >= 300


def test_one_slice_and_1452_volumes(shared, tmp_path, capsys):
    source = shared / "bold/haxby_slice/bold.nii.gz"
    image = nb.load(source)
    root = datasets.write_dataset(tmp_path / "in", [])
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    stem = "sub-01_task-objects_space-T1w"
    shutil.copy(source, func / f"{stem}_desc-preproc_bold.nii.gz")
    halves = np.ones(image.shape[:3], np.int16)
    halves[20:] = 2
    atlas = tmp_path / "space-T1w_atlas-Halves_dseg.nii.gz"
    datasets.write_image(atlas, halves, image.affine)
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, "--mask", "none", "--min-coverage", 0]
    run(capsys, root, out, "participant", *options)
    _, found = read(next(out.glob("sub-01/func/*_timeseries.tsv")))
    values = image.get_fdata()
    varies = np.ptp(values, axis=3) > 0
    for column in (0, 1):
        region = varies & (halves == column + 1)
        assert_allclose(found[:, column], values[region].mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oro.nifti/filtered_func_data.nii.gz", "no orientation"),
        ("cudaBayesregData/fmri_filtered_func_data.nii.gz", "no orientation"),
        (
            "ds000005_fmriprep/sub-01_task-mixedgamblestask_run-01"
            "_desc-hmc_boldref.nii.gz",
            "has 3 axes",
        ),
    ],
)
def test_real_files_that_cannot_be_used(name, message, shared, tmp_path, capsys):
    root = datasets.write_dataset(tmp_path / "in", [])
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    target = func / f"sub-01_task-x_space-{datasets.SPACE}_desc-preproc_bold.nii.gz"
    shutil.copy(shared / "bold" / name, target)
    atlas = datasets.write_atlas(tmp_path / "atlas")
    options = ["--atlas-file", atlas, "--mask", "none"]
    shown = run(capsys, root, tmp_path / "out", "participant", *options, code=1)
    assert message in shown.err
    assert target.name in shown.err


def test_native_segmentation_on_an_oblique_grid(shared, tmp_path, capsys):
    """Real SynthSeg labels (2..60) on a real oblique EPI grid."""
    folder = shared / "bold/rapidtide_native"
    segmentation = folder / "sub-RAPIDTIDETEST_synthseg.nii.gz"
    mean = nb.load(folder / "sub-RAPIDTIDETEST_mean.nii.gz")
    rng = np.random.default_rng(1)
    data = mean.get_fdata()[..., None] * (1 + rng.normal(0, 0.01, (*mean.shape, 8)))
    root = datasets.write_dataset(tmp_path / "in", [])
    path = datasets.write_run(
        root,
        "sub-01_task-rest_space-boldref",
        data.astype(np.float32),
        affine=mean.affine,
        with_mask=False,
    )
    mask = folder / "sub-RAPIDTIDETEST_brainmask.nii.gz"
    out = tmp_path / "out"
    options = ["--atlas-file", segmentation, "--atlas-space", "boldref"]
    run(capsys, root, out, "participant", *options, "--mask", mask)
    header, found = read(next(out.glob("sub-01/func/*_timeseries.tsv")))
    values = nb.load(path).get_fdata()
    labels = np.asarray(nb.load(segmentation).dataobj)
    inside = np.asarray(nb.load(mask).dataobj) > 0
    assert len(header) == 28
    table = read_regions(next(out.glob("sub-01/func/*_dseg.tsv")))
    n_checked = 0
    for column, index in enumerate(table["index"]):
        region = inside & (labels == int(index)) & (np.ptp(values, axis=3) > 0)
        if table["status"][column] == "ok":
            n_checked += 1
            assert_allclose(found[:, column], values[region].mean(axis=0), rtol=1e-10)
    assert n_checked >= 20


def test_real_confounds_of_three_versions_clean_the_real_grid(
    real_grid, home, tmp_path, capsys
):
    """fMRIPrep 20.2.1, 23.1.2 and 23.2.0, four strategies in one pass each."""
    out = tmp_path / "out"
    strategies = ["none", "simple", "36P", "compcor"]
    options = ["--templateflow-home", home, "--denoise", *strategies]
    run(capsys, real_grid, out, "participant", *options)
    assert len(list(out.glob("sub-*/**/*_timeseries.tsv"))) == 12
    for path in sorted(out.glob("sub-*/**/*_desc-*_timeseries.json")):
        facts = json.loads(path.read_text())
        _, values = read(path.with_suffix(".tsv"))
        assert values.shape[0] == facts["NumberOfVolumesKept"]
        n_columns = len(facts["ConfoundRegressors"])
        left = facts["NumberOfVolumesKept"] - facts["RegressorRank"]
        assert facts["RegressorRank"] <= n_columns
        assert 0 < facts["DegreesOfFreedom"] <= left
    (simple,) = out.glob("sub-dd/**/*_desc-simple_timeseries.json")
    names = json.loads(simple.read_text())["ConfoundRegressors"]
    assert len([n for n in names if n.startswith("cosine")]) == 8
    assert len(names) == 8 + 24 + 2
    assert issues_of(out, "error", "warning") == []


def test_difumo_in_little_memory(shared, tmp_path):
    """462 MB of maps once unpacked."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc here to read the peak memory from")
    folder = shared / "atlases/volume4d"
    difumo = "tpl-MNI152NLin6Asym_atlas-DiFuMo_scale-128_res-2_dseg"
    image = nb.load(folder / f"{difumo}.nii.gz")
    root = datasets.write_dataset(tmp_path / "in", [])
    rng = np.random.default_rng(0)
    data = rng.normal(500, 20, (*image.shape[:3], 6)).astype(np.float32)
    stem = "sub-01_task-rest_space-MNI152NLin6Asym"
    datasets.write_run(root, stem, data, affine=image.affine, with_mask=False)
    out = tmp_path / "out"
    atlas = f"{folder / difumo}.nii.gz,{folder / difumo}.tsv"
    code = (
        "import sys; from pathlib import Path; from bids_roi.cli import main\n"
        f"code = main([{str(root)!r}, {str(out)!r}, 'participant', '--n-procs', '1',"
        f" '--mask', 'none', '--atlas-file', {atlas!r}])\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(status.partition('VmHWM:')[2].split()[0]) // 1024)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 700
    _, found = read(next(out.glob("sub-01/func/*_stat-leastsquares_timeseries.tsv")))
    assert found.shape == (6, 128)
    assert np.isfinite(found).all()


@pytest.mark.parity
def test_canica_equals_nilearn(shared, tmp_path, capsys):
    """Signed ICA maps with overlap, on their own 4 mm grid."""
    path = shared / "atlases/volume4d/canica_resting_state_20comp_4mm.nii.gz"
    maps = nb.load(path)
    root = datasets.write_dataset(tmp_path / "in", [])
    rng = np.random.default_rng(0)
    data = rng.normal(500, 20, (*maps.shape[:3], 10))
    stem = f"sub-01_task-rest_space-{datasets.SPACE}"
    bold = datasets.write_run(root, stem, data, affine=maps.affine, with_mask=False)
    out = tmp_path / "out"
    options = ["--atlas-file", path, "--atlas-space", datasets.SPACE, "--mask", "none"]
    run(capsys, root, out, "participant", *options)
    _, found = read(next(out.glob("sub-01/func/*_stat-leastsquares_timeseries.tsv")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn's own deprecations
        from nilearn.maskers import NiftiMapsMasker

        expected = NiftiMapsMasker(maps, standardize=None).fit_transform(bold)
    assert_allclose(found, expected, rtol=1e-6)
