"""What a run's files say of its voxels, maps, regions and volumes."""

import json

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import datasets
from support.calls import FUNC, STEM, read, read_regions, run
from support.datasets import SPACE

from bids_roi.errors import AtlasError
from bids_roi.images.nifti import read_maps
from bids_roi.loading import load

SHAPE, T = (8, 8, 4), 60
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
NAMES = ["R1", "R2", "R3", "R4"]


def labels():
    """Four slabs of 64 voxels, all of the image."""
    return np.repeat(np.arange(1, 5, dtype=np.int16), 2)[:, None, None] * np.ones(
        (1, *SHAPE[1:]), np.int16
    )


def signals(seed=0):
    """(T, 4) with a level of 1000 and an SD of 10."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((T, 4))
    return 1000 + 10 * (x - x.mean(0)) / x.std(0, ddof=1)


def bold(truth, noise=0.5, seed=1):
    values = truth.T[labels() - 1]
    rng = np.random.default_rng(seed)
    return (values + noise * rng.standard_normal(values.shape)).astype(np.float32)


def save(path, data, tr=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nb.Nifti1Image(data, AFFINE)
    image.set_sform(AFFINE, 4)
    image.set_qform(AFFINE, 4)
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        image.header["pixdim"][4] = tr
    nb.save(image, path)


def write(root, values, dummies=(), mask=None):
    """A derivative of one run; labels as atlas. Return folder and --atlas-file."""
    func = root / "in" / FUNC
    save(func / f"{STEM}_desc-preproc_bold.nii.gz", values, tr=2.0)
    (func / f"{STEM}_desc-preproc_bold.json").write_text('{"RepetitionTime": 2.0}')
    inside = np.ones(SHAPE, np.uint8) if mask is None else mask.astype(np.uint8)
    save(func / f"{STEM}_desc-brain_mask.nii.gz", inside)
    (root / "in" / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.8.0", "DatasetType": "derivative",'
        ' "GeneratedBy": [{"Name": "fMRIPrep"}]}'
    )
    rng = np.random.default_rng(3)
    columns = {
        name: rng.standard_normal(T)
        for name in ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
    }
    columns["csf"], columns["white_matter"] = rng.standard_normal((2, T))
    columns["framewise_displacement"] = np.abs(0.1 * rng.standard_normal(T))
    for number, volume in enumerate(dummies):
        flag = np.zeros(T)
        flag[volume] = 1
        columns[f"non_steady_state_outlier{number:02d}"] = flag
    rows = zip(*columns.values(), strict=True)
    text = "\n".join(
        ["\t".join(columns), *("\t".join(map(repr, map(float, r))) for r in rows)]
    )
    (func / "sub-01_task-rest_desc-confounds_timeseries.tsv").write_text(text + "\n")
    image = root / f"tpl-{SPACE}_atlas-Slabs_dseg.nii.gz"
    save(image, labels())
    table = root / f"tpl-{SPACE}_atlas-Slabs_dseg.tsv"
    table.write_text(
        "index\tname\n" + "".join(f"{i + 1}\t{n}\n" for i, n in enumerate(NAMES))
    )
    return root / "in", f"{image},{table}"


def write_maps(root, maps, names):
    image = root / f"tpl-{SPACE}_atlas-Maps_probseg.nii.gz"
    save(image, np.stack(maps, axis=3))
    table = root / f"tpl-{SPACE}_atlas-Maps_probseg.tsv"
    table.write_text(
        "index\tname\n" + "".join(f"{i + 1}\t{n}\n" for i, n in enumerate(names))
    )
    return f"{image},{table}"


def outputs(out, atlas="Slabs", tail="stat-mean"):
    stem = out / FUNC / f"{STEM}_atlas-{atlas}"
    series = stem.with_name(f"{stem.name}_{tail}_timeseries.tsv")
    table = stem.with_name(f"{stem.name}_dseg.tsv")
    return (
        read(series)[1],
        json.loads(series.with_suffix(".json").read_text()),
        read_regions(table),
        json.loads(table.with_suffix(".json").read_text()),
    )


def numbers(cells):
    return np.array([np.nan if cell == "n/a" else float(cell) for cell in cells])


def test_voxels_that_leave_the_view_are_counted_and_told(tmp_path, capsys):
    truth = signals()
    values = bold(truth)
    away = np.random.default_rng(5).random(T) < 0.4
    values[labels() == 1] *= ~away  # all of R1
    half = (labels() == 2) & (np.indices(SHAPE)[2] > 1)
    values[half] *= ~away  # half of R2
    root, atlas = write(tmp_path, values)
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas)
    found, sidecar, table, about = outputs(out)
    assert table["n_voxels_dropout"] == ["64", "32", "0", "0"]
    assert table["n_voxels_used"] == ["0", "32", "64", "64"]
    assert table["status"] == ["outside_field_of_view", "ok", "ok", "ok"]
    assert_allclose(numbers(table["coverage"]), [0, 0.5, 1, 1])
    assert np.isnan(found[:, 0]).all()
    assert np.abs(found[:, 1:] - truth[:, 1:]).max() < 1
    (warning,) = sidecar["Warnings"]
    assert "96 voxels in 2 regions are exactly 0" in warning
    assert about["Warnings"] == sidecar["Warnings"]
    assert sidecar["NumberOfRegionsLost"] == 1


def test_zeros_among_values_about_zero_cost_no_voxel_and_are_told(tmp_path, capsys):
    values = np.round(bold(signals() - 1000) / 10).astype(np.int16)
    root, atlas = write(tmp_path, values)
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas)
    found, sidecar, table, _ = outputs(out)
    assert table["status"] == ["ok"] * 4
    assert table["n_voxels_dropout"] == ["0"] * 4
    expected = [values[labels() == i].mean(axis=0) for i in (1, 2, 3, 4)]
    assert_allclose(found.T, expected, rtol=1e-12, atol=1e-12)
    assert "they count as they are" in sidecar["Warnings"][0]


@pytest.mark.parametrize(
    ("blank", "told"),
    [
        ([3, 7], "2 volumes are 0 throughout (counted from 0: 3, 7)"),
        ([4], "1 volume is 0 throughout (counted from 0: 4)"),
    ],
)
def test_blank_volumes_are_told(tmp_path, capsys, blank, told):
    values = bold(signals())
    values[..., blank] = 0
    root, atlas = write(tmp_path, values)
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas)
    found, sidecar, table, _ = outputs(out)
    assert table["status"] == ["ok"] * 4
    assert (found[blank] == 0).all()
    assert told in sidecar["Warnings"][0]


@pytest.mark.parametrize("standardize", ["none", "zscore_sample", "psc"])
@pytest.mark.parametrize("censored", ["drop", "na", "interpolate"])
def test_a_region_without_signal_in_the_kept_volumes_is_missing_in_that_series(
    standardize, censored, tmp_path, capsys
):
    """R1 changes in the dummy only, R2 is a straight line, which is the trend."""
    values = bold(signals())
    values[labels() == 1] = 700
    values[labels() == 1, 0] = np.linspace(900, 1000, 64)
    values[labels() == 2] = 500 + np.arange(T)
    root, atlas = write(tmp_path, values, dummies=[0])
    out = tmp_path / "out"
    run(
        capsys,
        *(root, out, "participant", "--atlas-file", atlas),
        *("--denoise", "none", "24P", "--standardize", standardize),
        *("--censored", censored, "--relmat", "pearson"),
    )
    found, sidecar, table, _ = outputs(out, tail="stat-mean_desc-24P")
    assert np.isnan(found[:, :2]).all()
    kept = slice(0 if censored == "drop" else 1, None)
    assert np.isfinite(found[kept, 2:]).all()
    assert sidecar["RegionsWithoutSignal"] == ["R1", "R2"]
    assert sidecar["NumberOfRegionsLost"] == 2
    assert any("no signal in the kept volumes" in w for w in sidecar["Warnings"])
    raw, about, _, _ = outputs(out)
    assert np.isfinite(raw).all()
    assert "RegionsWithoutSignal" not in about
    assert about["NumberOfRegionsLost"] == 0
    assert table["status"] == ["ok"] * 4  # of the run, whatever a strategy leaves
    matrix = load(out).relmats(strategy="24P").to_numpy()
    assert np.isnan(matrix[:2]).all()
    assert np.isfinite(matrix[2:, 2:]).all()
    run(capsys, root, out, "group")
    lines = [x.split("\t") for x in (out / "group_runs.tsv").read_text().splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert {r["desc_id"]: r["n_regions_lost"] for r in rows} == {"n/a": "0", "24P": "2"}


def test_the_page_counts_what_a_series_has_lost(tmp_path, capsys):
    values = bold(signals())
    values[labels() == 1] = 700
    values[labels() == 1, 0] = np.linspace(900, 1000, 64)
    root, atlas = write(tmp_path, values, dummies=[0])
    out = tmp_path / "out"
    arguments = [root, out, "participant", "--atlas-file", atlas, "--denoise", "24P"]
    run(capsys, *arguments, report=True)
    assert "1 of 4 regions n/a" in (out / "sub-01.html").read_text()


@pytest.mark.parametrize("dummies", [(), (0, 1, 2)])
def test_levels_are_over_steady_volumes(dummies, tmp_path, capsys):
    truth = signals()
    values = bold(truth, noise=0.0)
    values[..., :3] *= 1.5
    root, atlas = write(tmp_path, values, dummies=dummies)
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas)
    found, _, table, about = outputs(out)
    steady = found[len(dummies) :]
    assert_allclose(numbers(table["mean"]), steady.mean(0), rtol=1e-12)
    deviation = steady.std(0, ddof=1)
    assert_allclose(numbers(table["standard_deviation"]), deviation, rtol=1e-9)
    assert_allclose(numbers(table["tsnr"]), steady.mean(0) / deviation, rtol=1e-9)
    assert about["QualityStatistic"] == "mean"
    assert about["QualityVolumes"] == ("steady" if dummies else "all")
    assert about.get("NonSteadyStateVolumes", []) == list(dummies)
    assert (numbers(table["tsnr"]) > 50).all() == bool(dummies)


def test_levels_of_maps_are_of_the_statistic_asked_for(tmp_path, capsys):
    """Signed maps: no mean to speak of, and a fit that is what it is."""
    root, _ = write(tmp_path, bold(signals()))
    signed = np.where(np.indices(SHAPE)[1] % 2, 1.0, -1.0).astype(np.float32)
    plain = (labels() == 2).astype(np.float32)
    atlas = write_maps(tmp_path, [signed, plain], ["Signed", "Plain"])
    for statistic, status in (
        ("least_squares", ["ok", "ok"]),
        ("weighted_mean", ["weights_cancel", "ok"]),
    ):
        out = tmp_path / statistic
        arguments = [root, out, "participant", "--atlas-file", atlas]
        run(capsys, *arguments, "--map-statistic", statistic)
        tail = f"stat-{statistic.replace('_', '')}"
        found, sidecar, table, about = outputs(out, "Maps", tail)
        assert about["QualityStatistic"] == statistic
        assert table["status"] == status
        lost = [word != "ok" for word in status]
        assert np.isnan(found).all(axis=0).tolist() == lost
        assert sidecar["NumberOfRegionsLost"] == sum(lost)
        assert_allclose(numbers(table["mean"]), found.mean(0), rtol=1e-12)
        assert_allclose(numbers(table["standard_deviation"]), found.std(0, ddof=1))
        assert np.nanmax(np.abs(numbers(table["mean"]))) < 2000


def test_both_statistics_of_a_signed_map(tmp_path, capsys):
    root, _ = write(tmp_path, bold(signals()))
    signed = np.where(np.indices(SHAPE)[1] % 2, 1.0, -1.0).astype(np.float32)
    plain = (labels() == 2).astype(np.float32)
    atlas = write_maps(tmp_path, [signed, plain], ["Signed", "Plain"])
    for order in (
        ("least_squares", "weighted_mean"),
        ("weighted_mean", "least_squares"),
    ):
        out = tmp_path / order[0]
        arguments = [root, out, "participant", "--atlas-file", atlas]
        run(capsys, *arguments, "--map-statistic", *order)
        fit, _, table, _ = outputs(out, "Maps", "stat-leastsquares")
        mean, sidecar, _, _ = outputs(out, "Maps", "stat-weightedmean")
        assert np.isfinite(fit).all()
        assert np.isnan(mean[:, 0]).all()
        assert np.isfinite(mean[:, 1]).all()
        assert sidecar["NumberOfRegionsLost"] == 1
        cancels = table["status"][0] == "weights_cancel"
        assert cancels == (order[0] == "weighted_mean")
        if not cancels:
            assert sidecar["RegionsWithoutSignal"] == ["Signed"]
            assert any("weights cancel" in w for w in sidecar["Warnings"])


@pytest.mark.parametrize(
    ("share", "rank", "said"),
    [(None, 3, "1 of 4 maps depend on others"), (1e-5, 4, "nearly depend")],
)
def test_maps_that_cannot_be_told_apart_are_told(share, rank, said, tmp_path, capsys):
    truth = signals()
    root, _ = write(tmp_path, bold(truth, noise=0.0))
    maps = [(labels() == i).astype(np.float64) for i in (1, 2, 3)]
    maps.append(maps[0] + (share or 0) * (labels() == 4))
    atlas = write_maps(tmp_path, maps, ["A", "B", "C", "A2"])
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas)
    found, sidecar, _, _ = outputs(out, "Maps", "stat-leastsquares")
    assert sidecar["MapRank"] == rank
    warnings = [w for w in sidecar["Warnings"] if said in w]
    assert len(warnings) == 1
    assert "A, A2" in warnings[0]
    data = bold(truth, noise=0.0).astype(float)
    a, b, c, d = (data[labels() == i].mean(0) for i in (1, 2, 3, 4))
    expected = (
        [a / 2, b, c, a / 2] if share is None else [a - d / share, b, c, d / share]
    )
    assert_allclose(found.T, expected, rtol=1e-9)
    assert sidecar["MapCondition"] > (1 if share is None else 1e5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_map_with_values_that_are_no_weights_is_refused_by_name(
    bad, tmp_path, capsys
):
    root, _ = write(tmp_path, bold(signals()))
    maps = [(labels() == i).astype(np.float32) for i in (1, 2, 3)]
    maps[1][0, :2, 0] = bad
    atlas = write_maps(tmp_path, maps, ["A", "B", "C"])
    out = tmp_path / "out"
    said = run(capsys, root, out, "participant", "--atlas-file", atlas, code=1).err
    assert "map 2 holds 2 values that are no weights" in said
    assert "tpl-MNI152NLin2009cAsym_atlas-Maps_probseg.nii.gz" in said
    assert not list(out.glob("sub-01/func/*.tsv"))
    grid, volumes = read_maps(
        atlas_image := tmp_path / f"tpl-{SPACE}_atlas-Maps_probseg.nii.gz"
    )
    assert grid.shape == SHAPE
    next(volumes)
    with pytest.raises(AtlasError, match="map 2") as caught:
        next(volumes)
    assert caught.value.where == str(atlas_image)


def test_weights_that_the_slope_makes_infinite_are_refused(tmp_path):
    path = tmp_path / "maps.nii"
    save(path, np.ones((*SHAPE, 2)))
    content = bytearray(path.read_bytes())
    content[112:116] = np.float32(3e38).tobytes()
    path.write_bytes(content)
    with pytest.raises(AtlasError, match="map 1 holds 256 values"):
        list(read_maps(path)[1])


def test_check_atlas_refuses_such_maps_too(tmp_path, capsys):
    from bids_roi.tools import main

    maps = [(labels() == i).astype(np.float32) for i in (1, 2, 3)]
    maps[0][0, 0, 0] = np.inf
    maps[2][0, 0] = np.nan
    atlas = write_maps(tmp_path, maps, ["A", "B", "C"])
    assert main(["check-atlas", atlas]) == 65
    said = capsys.readouterr().out
    assert "2 maps hold values that are no weights" in said
    assert "1 in map 1, 4 in map 3" in said
    assert "cannot be used" in said
    assert datasets.SPACE in said


@pytest.mark.parametrize("strategy", ["none", "simple"])
def test_the_global_signal_before_and_after_cleaning(
    strategy, cleaned_input, atlas, tmp_path, capsys
):
    """By hand from the tables of series: a region that is lost is in neither."""
    root, columns, path = cleaned_input
    rng = np.random.default_rng(0)
    fd = columns["framewise_displacement"] + 0.1 * rng.random(60)
    table = root / FUNC / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    header, *rows = (line.split("\t") for line in table.read_text().splitlines())
    place = header.index("framewise_displacement")
    for row, value in zip(rows[1:], fd[1:], strict=True):
        row[place] = repr(float(value))
    rmsd = rng.random(60)
    lines = ["\t".join([*header, "rmsd"])]
    lines += ["\t".join([*row, str(r)]) for row, r in zip(rows, rmsd, strict=True)]
    table.write_text("\n".join(lines) + "\n")
    image = nb.load(path)
    values = image.get_fdata()
    values[datasets.labels() == datasets.INDEX[1]] = 0  # a region outside the view
    nb.save(nb.Nifti1Image(values.astype(np.float32), image.affine, image.header), path)
    out = tmp_path / "out"
    asked = ["--strategy", "none", "simple", "--fd-threshold", 0.5, "--censored", "na"]
    run(capsys, root, out, "participant", "--atlas-file", atlas, *asked)
    run(capsys, root, out, "group")
    tail = "" if strategy == "none" else f"_desc-{strategy}"
    series = out / FUNC / f"{STEM}_atlas-Toy_stat-mean{tail}_timeseries.tsv"
    _, raw = read(out / FUNC / f"{STEM}_atlas-Toy_stat-mean_timeseries.tsv")
    _, own = read(series)
    kept = np.isfinite(own).any(axis=1)
    kept[0] &= strategy != "none"  # of raw signals, the steady ones count
    assert kept.sum() == (59 if strategy == "none" else 56)
    used = np.isfinite(own[kept]).all(axis=0)
    assert used.sum() == own.shape[1] - 2  # one is not in the image
    told = json.loads(series.with_suffix(".json").read_text())
    expected = {"": own[kept][:, used].mean(axis=1)}
    if strategy != "none":
        expected["Before"] = raw[kept][:, used].mean(axis=1)
    for when, signal in expected.items():
        both = kept & np.isfinite(fd)
        r = np.corrcoef(fd[both], signal[both[kept]])[0, 1]
        assert_allclose(told[f"GlobalSignalDeviation{when}"], signal.std(ddof=1), 1e-6)
        assert_allclose(told[f"FDGlobalSignalCorrelation{when}"], r, atol=1e-6)
    assert ("GlobalSignalDeviationBefore" in told) == (strategy != "none")
    assert_allclose(told["MeanRMSD"], rmsd.mean(), atol=1e-6)
    runs = read_regions(out / "group_runs.tsv")
    row = runs["desc_id"].index("n/a" if strategy == "none" else strategy)
    assert float(runs["gs_sd"][row]) == told["GlobalSignalDeviation"]
    assert float(runs["rmsd_mean"][row]) == told["MeanRMSD"]
    before = told.get("FDGlobalSignalCorrelationBefore", "n/a")
    assert runs["fd_gs_correlation_before"][row] == str(before)
