"""Connectivity through the whole app: names, numbers, kept volumes, bad input."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from support import datasets
from support.calls import (
    FUNC,
    STEM,
    read,
    read_regions,
    read_relmat,
    relmat_path,
    run,
    series,
    sidecar,
)
from support.datasets import NAMES
from support.toy_confounds import SPIKES, T
from support.validator import issues_of

MEASURES = ("pearson", "spearman", "partial", "covariance")
USED = [0, 1, 2, 3]  # "Nowhere" is in the table only


def usable_square(matrix):
    """The part with numbers; the rest is n/a."""
    lost = [k for k in range(len(NAMES)) if k not in USED]
    assert np.isnan(matrix[lost]).all()
    assert np.isnan(matrix[:, lost]).all()
    return matrix[np.ix_(USED, USED)]


@pytest.mark.parametrize("censored", ["drop", "na", "interpolate"])
def test_matrices_are_of_the_kept_volumes(
    cleaned_input, atlas, tmp_path, capsys, censored
):
    root, _, _ = cleaned_input
    out = tmp_path / "out"
    cleaning = ["--denoise", "24P", "--fd-threshold", 0.5, "--dummy-scans", "auto"]
    cleaning += ["--low-pass", 0.2, "--censored", censored]
    options = ["--atlas-file", atlas, *cleaning, "--relmat", *MEASURES]
    run(capsys, root, out, "participant", *options)
    _, signals = read(series(out, "24P"))
    kept = np.ones(T, dtype=bool)
    kept[[0, *SPIKES]] = False
    if censored != "drop":
        signals = signals[kept]
    signals = signals[:, USED]
    assert signals.shape == (kept.sum(), len(USED))
    expected = {
        "pearsoncorrelation": np.corrcoef(signals.T),
        "spearmancorrelation": stats.spearmanr(signals).statistic,
        "covariance": np.cov(signals.T),
    }
    for word, matrix in expected.items():
        path = relmat_path(out, word, "24P")
        found = usable_square(read_relmat(path))
        assert_allclose(found, matrix, rtol=1e-9, atol=1e-12)
        assert sidecar(path)["NumberOfVolumesKept"] == kept.sum()
    partial = usable_square(read_relmat(relmat_path(out, "partialcorrelation", "24P")))
    assert_array_equal(np.diagonal(partial), 1)
    assert (np.abs(partial) <= 1).all()


def test_names_keys_and_sources(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, "--relmat", "pearson", "partial", "--fisher-z"]
    told = run(capsys, dataset, out, "participant", *options)
    assert "were not cleaned" in told.err
    content = sidecar(relmat_path(out, "pearsonfisherz"))
    assert content["RelationshipMeasure"].startswith("Fisher z of the Pearson")
    assert content["Weighted"] is True
    assert content["Directed"] is content["ValidDiagonal"] is False
    assert content["StorageFormat"] == "Full"
    assert content["FisherZ"] is True
    assert content["NodeFiles"] == ["bids::atlas-Toy_dseg.tsv"]
    assert (out / "atlas-Toy_dseg.tsv").exists()
    (source,) = content["Sources"]
    assert (out / source.removeprefix("bids::")).exists()
    assert "RepetitionTime" not in content
    assert "Units" not in content
    partial = sidecar(relmat_path(out, "partialfisherz"))
    assert partial["PartialEstimator"] == "ledoit_wolf"
    assert "PartialEstimator" not in content
    assert not relmat_path(out, "pearsoncorrelation").exists()
    z = usable_square(read_relmat(relmat_path(out, "pearsonfisherz")))
    assert np.isnan(np.diagonal(z)).all()
    _, signals = read(out / FUNC / f"{STEM}_atlas-Toy_stat-mean_timeseries.tsv")
    r = np.corrcoef(signals[:, USED].T)[0, 1]
    assert z[0, 1] == pytest.approx(np.arctanh(r))


def test_a_series_does_not_change_with_the_matrices_of_it(
    dataset, atlas, tmp_path, capsys
):
    plain, more = tmp_path / "plain", tmp_path / "more"
    common = ["--atlas-file", atlas, "--no-report"]
    run(capsys, dataset, plain, "participant", *common)
    options = [*common, "--relmat", "pearson"]
    run(capsys, dataset, more, "participant", *options)
    tables = {k: v for k, v in datasets.snapshot(plain).items() if "logs" not in k}
    others = datasets.snapshot(more)
    assert all(others[name] == content for name, content in tables.items())
    assert sum("relmat" in name for name in others) == 4
    # Asked for later, they come to what is there, and are made once.
    told = run(capsys, dataset, plain, "participant", *options)
    assert "2  extracted" in told.out
    assert relmat_path(plain, "pearsoncorrelation").exists()
    told = run(capsys, dataset, plain, "participant", *options)
    assert "2  already there" in told.out


def test_other_settings_of_the_same_name_are_refused(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, "--relmat", "partial"]
    run(capsys, dataset, out, "participant", *options)
    before = relmat_path(out, "partialcorrelation").read_bytes()
    other = [*options, "--partial-estimator", "pseudo_inverse"]
    told = run(capsys, dataset, out, "participant", *other, code=1)
    assert "made with other options" in told.err
    assert relmat_path(out, "partialcorrelation").read_bytes() == before
    run(capsys, dataset, out, "participant", *other, "--overwrite")
    assert relmat_path(out, "partialcorrelation").read_bytes() != before


def test_first_statistic_is_related(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, "--relmat", "pearson", "--statistic", "median"]
    run(capsys, dataset, out, "participant", *options, "mean")
    path = relmat_path(out, "pearsoncorrelation")
    assert sidecar(path)["Statistic"] == "median"
    _, signals = read(out / FUNC / f"{STEM}_atlas-Toy_stat-median_timeseries.tsv")
    found = usable_square(read_relmat(path))
    assert_allclose(found, np.corrcoef(signals[:, USED].T), rtol=0, atol=1e-12)


def test_doubtful_pseudo_inverse_is_told(tmp_path, atlas, capsys):
    root = datasets.write_dataset(tmp_path / "in", [])
    datasets.write_run(root, STEM, datasets.bold(0, 4))
    options = ["--atlas-file", atlas, "--relmat", "partial"]
    more = ["--partial-estimator", "pseudo_inverse"]
    told = run(capsys, root, tmp_path / "out", "participant", *options, *more)
    words = "more degrees of freedom (3 are left in 4 volumes) than regions (4)"
    assert words in told.err
    path = relmat_path(tmp_path / "out", "partialcorrelation")
    assert np.isnan(read_relmat(path)).all()
    content = sidecar(path)
    assert words in content["ReasonNotAvailable"]
    assert content["ReasonNotAvailable"] in content["Warnings"]


def test_too_few_volumes_are_na_and_told(cleaned_input, atlas, tmp_path, capsys):
    root, _, _ = cleaned_input
    folder = root / "sub-01" / "func"
    table = folder / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    header, *rows = [line.split("\t") for line in table.read_text().splitlines()]
    fd = header.index("framewise_displacement")
    for number, row in enumerate(rows):
        row[fd] = "0.1" if number in (3, 4) else "0.9"
    table.write_text("\n".join("\t".join(row) for row in [header, *rows]) + "\n")
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, "--fd-threshold", 0.5, "--relmat", "pearson"]
    told = run(capsys, root, out, "participant", *options)
    assert "2 volumes are kept, a pearson matrix needs 3" in told.err
    found = read_relmat(relmat_path(out, "pearsoncorrelation", "cleaned"))
    assert np.isnan(found).all()


def test_region_called_like_the_first_column(dataset, atlas, tmp_path, capsys):
    table = Path(atlas.split(",")[1])
    table.write_text(table.read_text().replace("Thalamus", "Node"))
    out = tmp_path / "out"
    run(
        capsys,
        dataset,
        out,
        "participant",
        "--atlas-file",
        atlas,
        "--relmat",
        "pearson",
    )
    header = relmat_path(out, "pearsoncorrelation").read_text().splitlines()[0]
    assert header.split("\t")[0] == "Node_"
    assert header.split("\t").count("Node") == 1


def test_quality_of_the_run_is_in_the_sidecars(cleaned_input, atlas, tmp_path, capsys):
    root, columns, _ = cleaned_input
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, "--denoise", "none", "24P", "--fd-threshold", 0.5]
    run(capsys, root, out, "participant", *options)
    raw, clean = sidecar(series(out, None)), sidecar(series(out, "24P"))
    fd = columns["framewise_displacement"]
    for content in (raw, clean):
        assert content["MeanFramewiseDisplacement"] == pytest.approx(np.nanmean(fd))
        assert content["MaxFramewiseDisplacement"] == 0.9
        # MRIQC counts so: volumes above 0.2 mm, of all volumes, the first included.
        n_above = sum(value > 0.2 for value in fd)
        assert n_above > 0
        assert content["NumberOfVolumesMoved"] == n_above
        assert content["PercentVolumesMoved"] == pytest.approx(100 * n_above / T)
        assert content["NumberOfRegionsLost"] == 1
        assert "FDDVARSCorrelation" not in content  # DVARS does not vary
    assert raw["NumberOfVolumesKept"] == T
    assert raw["SecondsKept"] == 2 * T
    assert raw["DegreesOfFreedom"] == T - 1
    assert clean["NumberOfVolumesKept"] == T - len(SPIKES) - 1  # and one dummy
    assert clean["MeanFramewiseDisplacementKept"] == pytest.approx(0.1)
    # Spikes stand out in the raw series: their change goes with FD.
    _, signals = read(series(out, None))
    signals = signals[:, USED] / signals[:, USED].std(axis=0)
    dvars = np.sqrt((np.diff(signals, axis=0) ** 2).mean(axis=1))
    expected = np.corrcoef(dvars, fd[1:])[0, 1]
    assert raw["FDRegionalDVARSCorrelation"] == pytest.approx(expected, abs=1e-6)
    assert expected > 0.5


def test_table_of_another_run_costs_the_motion_only(
    cleaned_input, atlas, tmp_path, capsys
):
    root, _, _ = cleaned_input
    table = root / FUNC / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    table.write_text("\n".join(table.read_text().splitlines()[:-5]) + "\n")
    out = tmp_path / "out"
    told = run(capsys, root, out, "participant", "--atlas-file", atlas)
    assert "has 55 rows, the run 60 volumes" in told.err
    assert "MeanFramewiseDisplacement" not in sidecar(series(out, None))


def test_places_and_sizes_of_regions(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    run(capsys, dataset, out, "participant", "--atlas-file", atlas)
    table = read_regions(out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv")
    labels, affine = datasets.labels(), datasets.oblique()
    size = abs(np.linalg.det(affine[:3, :3]))
    for row, index in enumerate(datasets.INDEX):
        voxels = np.argwhere(labels == index)
        assert float(table["volume"][row]) == pytest.approx(len(voxels) * size)
        if not len(voxels):
            assert table["x"][row] == "n/a"
            continue
        centre = affine[:3, :3] @ voxels.mean(axis=0) + affine[:3, 3]
        found = [float(table[axis][row]) for axis in "xyz"]
        assert_allclose(found, centre, rtol=0, atol=6e-4)
    assert table["network"] == ["net0", "net1", "net0", "net0", "net1"]


def test_validator_is_content(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, "--relmat", *MEASURES]
    run(capsys, dataset, out, "participant", *options)
    assert issues_of(out) == []


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        (["--fisher-z"], "--fisher-z"),
        (["--fisher-z", "--relmat", "covariance"], "--fisher-z"),
        (["--partial-estimator", "pseudo_inverse"], "--partial-estimator"),
        (
            ["--partial-estimator", "pseudo_inverse", "--relmat", "pearson"],
            "--partial-estimator",
        ),
        (["--min-degrees-of-freedom", "20"], "--min-degrees-of-freedom"),
    ],
)
def test_options_of_matrices_that_nobody_asked_for_are_refused(
    given, flag, dataset, atlas, tmp_path, capsys
):
    out = tmp_path / "out"
    common = [dataset, out, "participant", "--atlas-file", atlas]
    shown = run(capsys, *common, *given, code=64)
    assert f"{flag} has no effect: --relmat asks for" in shown.err
    assert "Add --relmat" in shown.err
    assert not out.exists()
