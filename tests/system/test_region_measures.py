"""Eigenvariate, trimmed mean and measures of single voxels, from the call to pages."""

import json
import shutil
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import trim_mean
from support import datasets, dense, oracles
from support import surface_runs as runs
from support.calls import FUNC, STEM, read, read_regions, run, series, sidecar
from support.datasets import INDEX, SPACE
from support.real_grid import write_templateflow_home

import bids_roi
from bids_roi.errors import AtlasError, UsageError
from bids_roi.images.nifti import write_image
from bids_roi.loading import load
from bids_roi.options.record import Options
from bids_roi.participant.extraction import block_bytes

MEASURES = ("voxel_tsnr", "homogeneity")
ASKED = ("--region-measures", *MEASURES)
STATISTIC = ("--statistic", "eigenvariate", "trimmed_mean_20")


def numbers(table, name):
    return np.array([float(cell.replace("n/a", "nan")) for cell in table[name]])


def hold(voxels, column, row, steady=slice(None), rtol=1e-9):
    """An eigenvariate and a row of measures against loops over voxels, (T, n)."""
    part = voxels[steady]
    centred = voxels - part.mean(axis=0)
    wanted = oracles.eigenvariate(centred[steady])
    atol = rtol * np.abs(centred).max()
    assert_allclose(column[steady], wanted, rtol=rtol, atol=atol)
    tsnr, homogeneity = row
    assert_allclose(tsnr, oracles.voxel_tsnr(part), rtol=1e-10)
    assert_allclose(homogeneity, oracles.homogeneity(part), rtol=1e-9, atol=1e-12)


def test_volumes_over_the_steady_ones(cleaned_input, atlas, tmp_path, capsys):
    """The first volume of the table of confounds is not steady."""
    root, _, bold = cleaned_input
    out = tmp_path / "out"
    more = ("--atlas-file", atlas, "--strategy", "none", "24P", "--relmat", "pearson")
    run(capsys, root, out, "participant", *more, *STATISTIC, *ASKED, report=True)
    values, steady = nb.load(bold).get_fdata(), np.arange(60) >= 1
    usable = oracles.usable_voxels(values, datasets.mask() > 0)
    _, eigenvariate = read(series(out, None, "eigenvariate"))
    _, trimmed = read(series(out, None, "trimmedmean20"))
    path = out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv"
    table = read_regions(path)
    for column, index in enumerate(INDEX[:4]):
        voxels = values[usable & (datasets.labels() == index)].T
        row = [numbers(table, name)[column] for name in MEASURES]
        hold(voxels, eigenvariate[:, column], row, steady)
        assert_allclose(trimmed[:, column], trim_mean(voxels, 0.2, axis=1), rtol=1e-12)
    assert table["homogeneity"][4] == table["voxel_tsnr"][4] == "n/a"
    assert list(table)[-3:] == ["tsnr", *MEASURES]
    # The tSNR of the regional mean is another number, and stays what it was.
    mean = values[usable & (datasets.labels() == INDEX[0])].mean(axis=0)[steady]
    assert_allclose(numbers(table, "tsnr")[0], mean.mean() / mean.std(ddof=1))
    own = sidecar(series(out, None, "eigenvariate"))
    assert "centred over the steady volumes" in own["StatisticNote"]
    assert "not linear" in own["StatisticNote"]
    assert "StatisticNote" in sidecar(series(out, "24P", "eigenvariate"))
    assert sidecar(series(out, None, "trimmedmean20"))["StatisticParameters"] == {
        "share": 0.2
    }
    told = sidecar(path)
    assert told["RegionMeasures"] == sorted(MEASURES)
    assert told["QualityVolumes"] == "steady"
    assert "itself" not in told["homogeneity"]["Description"]
    assert "part of" in told["homogeneity"]["Description"]
    page = (out / "sub-01.html").read_text()
    assert "Homogeneity" in page
    assert "tSNR of voxels" in page
    both = "the first eigenvariate and the mean without the lowest and the highest 20 %"
    assert f"{both} were taken" in page
    assert "of the first eigenvariate was computed" in page
    assert "10.1016/j.neuroimage.2005.08.012" in page
    run(capsys, out.parent, out, "group")
    found = load(out)
    assert_allclose(found.regions()["homogeneity"], numbers(table, "homogeneity"))
    assert_allclose(
        found.timeseries(statistic="eigenvariate", strategy="none").to_numpy()[:, :4],
        eigenvariate[:, :4],
    )


def test_going_on_needs_the_same_measures(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    call = (dataset, out, "participant", "--atlas-file", atlas)
    run(capsys, *call, *ASKED)
    before = datasets.snapshot(out)
    run(capsys, *call, "--region-measures", *reversed(ASKED[1:]))
    name = f"{FUNC}/{STEM}_atlas-Toy_dseg.tsv"
    assert datasets.snapshot(out)[name] == before[name]
    shown = run(capsys, *call, code=1)
    told = "--region-measures is not given, the outputs were made with homogeneity vo"
    assert told in shown.err.replace("\n", " ")
    assert "--overwrite" in shown.err
    assert datasets.snapshot(out)[name] == before[name]
    # A statistic can be added at any time.
    run(capsys, *call, *ASKED, "--statistic", "mean", "eigenvariate")
    assert series(out, None, "eigenvariate").exists()
    assert datasets.snapshot(out)[name] == before[name]


def test_what_is_not_asked_for_is_in_no_output(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    run(capsys, dataset, out, "participant", "--atlas-file", atlas)
    assert "RegionMeasures" not in Options().deciding()
    for path in out.rglob("*.json"):
        assert "RegionMeasures" not in path.read_text()
    assert not set(MEASURES) & set(
        read_regions(out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv")
    )


def test_a_notebook_has_the_same(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    call = (dataset, out, "participant", "--atlas-file", atlas, *ASKED, *STATISTIC)
    run(capsys, *call)
    bold = next((dataset / "sub-01/func").glob("*_bold.nii.gz"))
    image, table = atlas.split(",")
    found = bids_roi.extract(
        *(bold, image),
        atlas_table=table,
        statistic="eigenvariate",
        region_measures=list(MEASURES),
    )
    assert_allclose(
        found.signals.to_numpy(), read(series(out, None, "eigenvariate"))[1]
    )
    table = read_regions(out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv")
    for name in MEASURES:
        assert_allclose(found.regions[name], numbers(table, name))
    assert "not linear" in found.sidecar["StatisticNote"]
    assert found.sidecar["RegionMeasures"] == tuple(sorted(MEASURES))


@pytest.mark.parametrize("size", [None, 400])
def test_grayordinates(tmp_path, capsys, size, monkeypatch):
    """Also where regions come in several groups, and so several passes."""
    if size is not None:
        monkeypatch.setattr("bids_roi.participant.extraction.GATHERED", 0)
        monkeypatch.setattr("bids_roi.core.statistics._PIECE", 8)
    axis = dense.small_axis()
    data = np.random.default_rng(3).normal(800, 30, (9, len(axis)))
    data[4, 10], data[:, 20], data[3:5, 30] = np.nan, 7.0, 0.0
    keys = np.random.default_rng(5).choice([0, 1, 2, 3], len(axis))
    names = {i: f"R{i}" for i in (1, 2, 3)}
    runs.write_cifti(tmp_path / "in", axis, data, kind="f8")
    atlas = runs.write_dlabel(
        tmp_path / "atlas-my_space-fsLR.dlabel.nii", axis, keys, names
    )
    out = tmp_path / "out"
    more = ("--min-coverage", 0, *STATISTIC, *ASKED)
    run(capsys, tmp_path / "in", out, "participant", "--atlas-file", atlas, *more)
    (path,) = out.glob(f"{FUNC}/*_stat-eigenvariate_timeseries.tsv")
    table = read_regions(next(out.glob(f"{FUNC}/*_dseg.tsv")))
    good = np.isfinite(data).all(axis=0) & (data != 0).all(axis=0)
    good &= np.ptp(data, axis=0) > 0
    for column, key in enumerate(names):
        row = [numbers(table, name)[column] for name in MEASURES]
        hold(data[:, good & (keys == key)], read(path)[1][:, column], row)


def test_surfaces(tmp_path, capsys):
    n, rng, out = 642, np.random.default_rng(4), tmp_path / "out"
    sides = [rng.normal(700, 9, (12, n)).astype("f4") for _ in "LR"]
    stem = f"{runs.ENTITIES}_space-fsaverage3"
    runs.write_gifti(tmp_path / "in", *sides, stem=stem)
    keys = rng.choice([0, 1, 2], n, p=[0.9, 0.09, 0.01])
    for side in "rl":
        array = nb.gifti.GiftiDataArray(keys.astype("i4"), "NIFTI_INTENT_LABEL")
        path = tmp_path / f"{side}h.net.label.gii"
        nb.save(nb.gifti.GiftiImage(darrays=[array]), path)
    more = ("--atlas-file", path, "--atlas-space", "fsaverage3", "--min-coverage", 0)
    run(capsys, tmp_path / "in", out, "participant", *more, *STATISTIC, *ASKED)
    (path,) = out.glob(f"{FUNC}/*_stat-eigenvariate_timeseries.tsv")
    table = read_regions(next(out.glob(f"{FUNC}/*_dseg.tsv")))
    found = read(path)[1]
    for column, key in enumerate((1, 2)):  # each of vertices of both sides
        voxels = np.hstack([side[:, keys == key] for side in sides]).astype(float)
        row = [numbers(table, name)[column] for name in MEASURES]
        hold(voxels, found[:, column], row)


def test_spheres(dataset, tmp_path, capsys):
    """Of 3.3 mm, so that no voxel lies on the edge."""
    seeds, out = tmp_path / "ball.tsv", tmp_path / "out"
    centre = datasets.oblique()[:3, :3] @ (2, 3, 2) + datasets.oblique()[:3, 3]
    seeds.write_text("name\tx\ty\tz\na\t" + "\t".join(map(str, centre)) + "\n")
    more = ("--seeds", seeds, "--seed-radius", 3.3, "--atlas-space", SPACE)
    more += ("--mask", "none", *STATISTIC, *ASKED)
    run(capsys, dataset, out, "participant", *more)
    values = nb.load(next(dataset.rglob("sub-01*_bold.nii.gz"))).get_fdata()
    places = np.stack(np.indices(values.shape[:3]), axis=-1)
    places = places @ datasets.oblique()[:3, :3].T + datasets.oblique()[:3, 3]
    inside = np.linalg.norm(places - centre, axis=-1) <= 3.3
    assert inside.sum() > 9
    (path,) = out.glob(f"{FUNC}/*_atlas-ball_stat-eigenvariate_timeseries.tsv")
    table = read_regions(next(out.glob(f"{FUNC}/*_atlas-ball_dseg.tsv")))
    row = [numbers(table, name)[0] for name in MEASURES]
    hold(values[inside].T, read(path)[1][:, 0], row)


def test_a_combination_has_what_its_atlases_have(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "two").mkdir()
    other = np.zeros(datasets.SHAPE, np.int32)
    other[1:4, 2:6, 1:4] = 7
    path = tmp_path / "two" / f"tpl-{SPACE}_atlas-Two_dseg.nii.gz"
    write_image(path, other, datasets.oblique())
    more = ("--combine", "both=Two,Toy", "--atlas-file", path, atlas)
    more += ("--mask", "none", *STATISTIC, *ASKED)
    run(capsys, dataset, out, "participant", *more)
    values = nb.load(next(dataset.rglob("sub-01*_bold.nii.gz"))).get_fdata()
    (path,) = out.glob(f"{FUNC}/*_atlas-both_stat-eigenvariate_timeseries.tsv")
    table = read_regions(next(out.glob(f"{FUNC}/*_atlas-both_dseg.tsv")))
    left = np.where(other > 0, 0, datasets.labels())  # the first keeps its voxels
    for column, region in enumerate([other == 7, *(left == i for i in INDEX[:2])]):
        row = [numbers(table, name)[column] for name in MEASURES]
        hold(values[region].T, read(path)[1][:, column], row)


def test_maps_have_no_single_voxels(dataset, atlas, tmp_path, capsys):
    maps = np.random.default_rng(1).random((*datasets.SHAPE, 2))
    path = tmp_path / f"tpl-{SPACE}_atlas-Soft_probseg.nii.gz"
    write_image(path, maps, datasets.oblique())
    out = tmp_path / "out"
    both = ("--atlas-file", atlas, path, "--participant-label", "01")
    shown = run(capsys, dataset, out, "participant", *both, *ASKED, code=65)
    assert "Soft is of maps: --region-measures are of regions of labels" in shown.err
    assert "folder of its own" in shown.err
    assert not list(out.glob(f"{FUNC}/*Soft*"))
    assert list(out.glob(f"{FUNC}/*Toy*_dseg.tsv"))
    with pytest.raises(AtlasError, match="of maps: region_measures"):
        bids_roi.extract(
            next(dataset.rglob("sub-01*_bold.nii.gz")),
            path,
            region_measures="homogeneity",
        )


def test_what_makes_no_sense_is_refused(dataset, atlas, tmp_path, capsys):
    with pytest.raises(UsageError, match="weighs the mean, not homogeneity"):
        Options.of(vertex_weights="area", region_measures=("homogeneity",))
    for statistic in ("eigenvariate", "trimmed_mean_10"):
        with pytest.raises(UsageError, match=f"weighs the mean, not {statistic}"):
            Options.of(vertex_weights="area", statistic=(statistic,))
    out = tmp_path / "out"
    call = (dataset, out, "participant", "--atlas-file", atlas, "--detrend")
    more = ("--statistic", "eigenvariate", "--standardize", "psc")
    shown = run(capsys, *call, *more, code=64)
    assert "eigenvariate has no level" in shown.err
    assert "zscore_sample" in shown.err
    assert not out.exists()


def test_little_memory_counts_what_is_held(dataset, atlas, tmp_path, capsys):
    """By hand: 140 MiB, ten volumes (six for the mean), 2 x 8 x 2,000 squared bytes."""
    source = SimpleNamespace(volume_bytes=10**6, n_volumes=2000, path="bold.nii")

    def fits(statistic, mem_mb):
        given = Options.of(statistic=(statistic,), mem_mb=mem_mb, executor="serial")
        return block_bytes(source, given)

    assert fits("mean", 200) == (200 * 10**6 - 140 * 2**20) // 6
    with pytest.raises(UsageError, match="needs about 221 MB in each process, 220 MB"):
        fits("eigenvariate", 220)
    assert fits("eigenvariate", 221) >= 10**6
    call = (dataset, tmp_path / "out", "participant", "--atlas-file", atlas, *ASKED)
    run(capsys, *call, "--statistic", "eigenvariate", "--mem-mb", 200)
    assert list(tmp_path.glob("out/sub-01/func/*_stat-eigenvariate_timeseries.tsv"))


def test_real_bold_of_pyhrf(shared, tmp_path, capsys):
    """Regions of 600 to 1,900 voxels and 128 volumes, int16."""
    root, source, labels = datasets.copy_pyhrf(shared, tmp_path / "in")
    out = tmp_path / "out"
    options = ["--atlas-file", labels, "--atlas-space", "MNI152Lin", "--mask", "none"]
    run(capsys, root, out, "participant", *options, *STATISTIC, *ASKED)
    _, found = read(next(out.glob("sub-01/func/*_stat-eigen*_timeseries.tsv")))
    _, trimmed = read(next(out.glob("sub-01/func/*_stat-trim*_timeseries.tsv")))
    table = read_regions(next(out.glob("sub-01/func/*_dseg.tsv")))
    values, where = nb.load(source).get_fdata(), np.asarray(nb.load(labels).dataobj)
    for column, index in enumerate(range(1, 7)):
        voxels = values[where == index]
        voxels = voxels[np.ptp(voxels, axis=1) > 0].T
        row = [numbers(table, name)[column] for name in MEASURES]
        hold(voxels, found[:, column], row, rtol=1e-8)
        assert_allclose(trimmed[:, column], trim_mean(voxels, 0.2, axis=1), rtol=1e-12)


def test_one_slice_and_1452_volumes(shared, tmp_path, capsys):
    """More volumes than voxels in one half, and scikit-learn's PCA as the oracle."""
    from sklearn.decomposition import PCA

    source = shared / "bold/haxby_slice/bold.nii.gz"
    image = nb.load(source)
    bold = tmp_path / "sub-01_space-T1w_bold.nii.gz"
    shutil.copy(source, bold)
    halves = np.ones(image.shape[:3], np.int16)
    halves[20:] = 2
    atlas = tmp_path / "space-T1w_atlas-Halves_dseg.nii.gz"
    datasets.write_image(atlas, halves, image.affine)
    found = bids_roi.extract(
        *(bold, atlas),
        mask="none",
        min_coverage=0,
        statistic="eigenvariate",
        repetition_time=2.5,
    )
    values = image.get_fdata()
    for column in (0, 1):
        region = (np.ptp(values, axis=3) > 0) & (halves == column + 1)
        usable = oracles.usable_voxels(values, region, step=1)
        voxels = values[usable].T
        pca = PCA(n_components=1, svd_solver="covariance_eigh").fit(voxels)
        scores = pca.transform(voxels)[:, 0] * np.sign(pca.components_.sum())
        expected = scores / np.sqrt(voxels.shape[1])
        atol = 1e-7 * np.abs(expected).max()
        assert_allclose(found.signals.to_numpy()[:, column], expected, atol=atol)


def test_schaefer_where_it_is_not_covered(shared, tmp_path, capsys):
    source = shared / "bold/pyhrf/real_data_vol_4_regions_BOLD.nii.gz"
    root = datasets.write_dataset(tmp_path / "in", [])
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    stem = f"sub-01_task-hrf_space-{SPACE}"
    shutil.copy(source, func / f"{stem}_desc-preproc_bold.nii.gz")
    home = write_templateflow_home(tmp_path / "templateflow", shared)
    out = tmp_path / "out"
    options = ["--templateflow-home", home, "--mask", "none", "--min-coverage", 0.25]
    run(capsys, root, out, "participant", *options, *STATISTIC, *ASKED)
    _, found = read(next(out.glob("sub-01/func/*_stat-eigen*_timeseries.tsv")))
    table = read_regions(next(out.glob("sub-01/func/*_dseg.tsv")))
    lost = np.array(table["status"]) != "ok"
    assert 0 < (~lost).sum() < 94
    assert (np.isnan(found).all(axis=0) == lost).all()
    for name in MEASURES:
        assert (np.isnan(numbers(table, name)) == lost).all()
    homogeneity = numbers(table, "homogeneity")[~lost]
    assert ((homogeneity > 0) & (homogeneity <= 1)).all()
    assert json.dumps(table["homogeneity"])
