"""Matrices with a known answer: nothing left, identical regions, too little freedom."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support import datasets
from support.calls import read, read_relmat, relmat_path, run, series, sidecar
from support.cleaning_oracles import PLAIN, clean_signals
from support.toy_confounds import T

from bids_roi.core.relmat import (
    IDENTICAL,
    are_identical,
    fisher_z,
    partial_correlation,
    pearson_correlation,
    spearman_correlation,
)
from bids_roi.options.record import Options
from bids_roi.outputs.derivatives import RelmatOutput
from bids_roi.participant.results import Kept, relate_regions

MEASURES = ("pearson", "spearman", "partial", "covariance")


def output(measure="pearson", *, fisher_z=False):
    return RelmatOutput(measure, fisher_z, "mine", "mean", "x.tsv", "x_relmat.tsv")


def keep(signals, freedom):
    return Kept(signals, np.ones(len(signals), dtype=bool), freedom)


def clean(signals, confounds=None, *, detrend=True, standardize=None, mask=None):
    options = {"confounds": confounds, "sample_mask": mask, "detrend": detrend}
    return clean_signals(signals, **(PLAIN | options | {"standardize": standardize}))


def explained(seed, n_volumes=80):
    """Two regions as they are; a trend, a regressor, and a mixture of both."""
    rng = np.random.default_rng(seed)
    confounds = rng.normal(size=(n_volumes, 3)).cumsum(axis=0)
    noise = 1e3 + rng.normal(size=(n_volumes, 2))
    line = 1e4 + 30 * np.arange(n_volumes)
    columns = [line, 5e3 + confounds[:, 0], line + confounds @ [3, -2, 1e3]]
    return np.column_stack([noise, *columns]), confounds


@pytest.mark.parametrize("standardize", [None, "psc", "zscore_sample"])
@pytest.mark.parametrize("seed", range(20))
def test_regions_that_are_explained_wholly_have_vanished(standardize, seed):
    signals, confounds = explained(seed)
    cleaned = clean(signals, confounds, standardize=standardize)
    assert cleaned.vanished.tolist() == [False, False, True, True, True]
    options = Options()
    for measure in MEASURES:
        related = relate_regions(
            keep(cleaned.signals, cleaned.degrees_of_freedom), output(measure), options
        )
        assert np.isnan(related.relmat[2:]).all()
        assert np.isnan(related.relmat[:, 2:]).all()
        assert np.isfinite(related.relmat[:2, :2]).all()
    assert np.isnan(cleaned.signals[:, 2:]).all()


def test_vanished_regions_are_told_apart_from_lost_ones():
    signals, confounds = explained(0)
    signals[:, 0] = np.nan
    cleaned = clean(signals, confounds)
    assert cleaned.vanished.tolist() == [False, False, True, True, True]


def test_small_signals_on_a_high_level_have_not_vanished():
    rng = np.random.default_rng(0)
    signals = 1e6 + 1e-3 * rng.normal(size=(60, 4))
    assert not clean(signals).vanished.any()


@pytest.mark.parametrize("standardize", ["none", "psc"])
def test_a_region_that_is_a_regressor_is_na_in_its_matrices(
    cleaned_input, atlas, tmp_path, capsys, standardize
):
    root, columns, path = cleaned_input
    wave = columns["trans_x"]
    bold = datasets.bold(3, T)
    for index, name in ((500, "csf"), (3, "trans_x")):
        assert wave.shape == columns[name].shape
        bold[datasets.labels() == index] = 1000 + columns[name]
    datasets.write_run(root, path.name.removesuffix("_desc-preproc_bold.nii.gz"), bold)
    out = tmp_path / "out"
    options = ["--denoise", "36P", "--standardize", standardize, "--relmat", *MEASURES]
    told = run(capsys, root, out, "participant", "--atlas-file", atlas, *options)
    assert (
        "2 regions have no signal in the kept volumes, none that cleaning" in told.err
    )
    for word in ("pearsoncorrelation", "partialcorrelation", "covariance"):
        found = read_relmat(relmat_path(out, word, "36P"))
        assert np.isnan(found[:2]).all()
        assert np.isfinite(found[2:4, 2:4]).all()
        warnings = sidecar(relmat_path(out, word, "36P"))["Warnings"]
        assert any("2 regions have no signal" in note for note in warnings)
    # Nor are they in the DVARS of the series that is compared with FD.
    content = sidecar(series(out, "36P"))
    _, signals = read(series(out, "36P"))
    rest = signals[:, 2:4] / signals[:, 2:4].std(axis=0)
    dvars = np.sqrt((np.diff(rest, axis=0) ** 2).mean(axis=1))
    fd = columns["framewise_displacement"][-len(dvars) :]
    expected = np.corrcoef(dvars, fd)[0, 1]
    assert content["FDRegionalDVARSCorrelation"] == pytest.approx(expected, abs=1e-6)


def test_identical_and_mirrored_regions_over_a_thousand_seeds():
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        signals = 1e3 + 10 * rng.normal(size=(rng.integers(5, 400), 3))
        twins = np.column_stack([signals, signals[:, 0], 2e3 - 3 * signals[:, 1]])
        for correlate in (pearson_correlation, spearman_correlation):
            r = correlate(twins)
            same = are_identical(r)
            expected = np.eye(5, dtype=bool)
            expected[[0, 3, 1, 4], [3, 0, 4, 1]] = True
            assert_array_equal(same, expected)
            z = fisher_z(r)
            assert_array_equal(np.isnan(z), expected)
            assert_allclose(z[~expected], np.arctanh(r[~expected]), rtol=0)


def test_identical_means_the_same_everywhere():
    inside, outside = np.nextafter(IDENTICAL, 0), IDENTICAL
    assert fisher_z(np.array([inside, -inside])).tolist() == [
        np.arctanh(inside),
        -np.arctanh(inside),
    ]
    assert np.isnan(fisher_z(np.array([outside, -outside, 1.0, np.nan]))).all()


@pytest.mark.parametrize("z", [True, False])
def test_identical_regions_are_told(z):
    signals = np.random.default_rng(0).normal(size=(50, 3))
    twins = np.column_stack([signals, signals[:, 0], -signals[:, 1]])
    related = relate_regions(keep(twins, 49.0), output(fisher_z=z), Options())
    assert related.n_identical == 2
    (note,) = related.notes
    assert "2 pairs of regions have the same series" in note
    assert np.isnan(related.relmat[0, 3]) == z
    assert np.isnan(related.relmat[1, 4]) == z


def band_passed(rng, n_volumes, n_regions):
    """Independent noise through an ideal band of 60 dimensions, and its freedom."""
    spectrum = np.fft.rfft(rng.normal(size=(n_volumes, n_regions)), axis=0)
    spectrum[:5] = spectrum[35:] = 0
    return np.fft.irfft(spectrum, n_volumes, axis=0), 60.0


@pytest.mark.parametrize("n_regions", [10, 30, 50])
def test_spread_of_partial_correlations_under_independence(n_regions):
    """The figure that is warned with, by simulation."""
    rng, z = np.random.default_rng(0), []
    for _ in range(60):
        signals, freedom = band_passed(rng, 300, n_regions)
        r = partial_correlation(signals, estimator="pseudo_inverse")
        z.append(np.arctanh(r[np.triu_indices(n_regions, 1)]))
    assert np.std(z) == pytest.approx((freedom - n_regions) ** -0.5, rel=0.1)


@pytest.mark.parametrize("measure", ["pearson", "spearman"])
def test_correlations_of_few_degrees_of_freedom_are_doubted(measure):
    """By simulation: the figure that is warned with is how far r of nothing spreads."""
    rng, found = np.random.default_rng(3), []
    for _ in range(300):
        spectrum = np.zeros((151, 5), dtype=complex)
        spectrum[5:8] = rng.normal(size=(3, 5)) + 1j * rng.normal(size=(3, 5))
        signals = np.fft.irfft(spectrum, 300, axis=0)  # sines and cosines of three
        few = relate_regions(keep(signals, 6.0), output("pearson"), Options())
        found.append(few.relmat[np.triu_indices(5, 1)])
    assert np.std(found) == pytest.approx(6**-0.5, rel=0.05)
    options = Options.of(relmat=(measure,))
    few = relate_regions(keep(signals, 6.0), output(measure), options)
    (note,) = few.notes
    assert f"{measure} correlation of desc-mine: 6 degrees of freedom" in note
    assert "standard deviation of 0.41" in note
    assert relate_regions(keep(signals, 10.0), output(measure), options).notes == ()
    assert relate_regions(keep(signals, 6.0), output("covariance"), options).notes == ()


def related_partial(n_regions, estimator="pseudo_inverse"):
    signals, freedom = band_passed(np.random.default_rng(1), 300, n_regions)
    options = Options.of(relmat=("partial",), partial_estimator=estimator)
    return relate_regions(keep(signals, freedom), output("partial"), options)


def test_partial_correlations_need_freedom_not_volumes():
    few, near, enough = (related_partial(n) for n in (60, 55, 40))
    assert np.isnan(few.relmat).all()
    assert few.notes == (few.absent,)
    assert "(60 are left in 300 volumes) than regions (60)" in few.absent
    assert np.isfinite(near.relmat).all()
    assert "60 degrees of freedom for 55 regions" in near.notes[0]
    assert "standard deviation of 0.45" in near.notes[0]
    assert np.isfinite(enough.relmat).all()
    assert enough.notes == ()


def test_shrunk_partial_correlations_exist_and_are_doubted():
    few, enough = (related_partial(n, "ledoit_wolf") for n in (60, 55))
    assert np.isfinite(few.relmat).all()
    assert "60 degrees of freedom for 60 regions" in few.notes[0]
    assert "shrinkage" in few.notes[0]
    assert enough.notes == ()


def test_below_the_least_freedom_a_matrix_is_na(cleaned_input, atlas, tmp_path, capsys):
    root, _, _ = cleaned_input
    out = tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, "--denoise", "36P"]
    common += ["--relmat", *MEASURES]
    left = T - 1 - 36 - 2  # a dummy; regressors; mean and trend
    told = run(capsys, *common, "--min-degrees-of-freedom", left + 0.5)
    why = f"{left} degrees of freedom are left, --min-degrees-of-freedom asks for 21.5"
    assert why in told.err
    for word in ("pearsoncorrelation", "partialcorrelation", "covariance"):
        path = relmat_path(out, word, "36P")
        assert np.isnan(read_relmat(path)).all()
        content = sidecar(path)
        assert why in content["ReasonNotAvailable"]
        assert content["ReasonNotAvailable"] in content["Warnings"]
        assert content["MinimumDegreesOfFreedom"] == 21.5
    assert np.isfinite(np.loadtxt(series(out, "36P"), skiprows=1, usecols=(0, 1))).all()
    (log,) = (out / "logs" / "sub-01").glob("*.jsonl")
    record = json.loads(log.read_text().splitlines()[-1])
    assert any(why in warning for warning in record["warnings"])
    # The series do not depend on it, the matrices do.
    before = {p: p.read_bytes() for p in out.rglob("*timeseries*")}
    told = run(capsys, *common, "--min-degrees-of-freedom", left, code=1)
    assert "made with other options" in told.err
    run(capsys, *common, "--min-degrees-of-freedom", left, "--overwrite")
    assert {p: p.read_bytes() for p in out.rglob("*timeseries*")} == before
    found = read_relmat(relmat_path(out, "pearsoncorrelation", "36P"))
    assert np.isfinite(found[:4, :4]).all()
    assert "ReasonNotAvailable" not in sidecar(
        relmat_path(out, "pearsoncorrelation", "36P")
    )


@pytest.mark.parametrize("value", ["0.5", "0", "-3", "nan", "inf"])
def test_least_freedom_below_one_is_refused(dataset, tmp_path, capsys, value):
    told = run(
        capsys,
        *(dataset, tmp_path / "out", "participant"),
        f"--min-degrees-of-freedom={value}",
        code=64,
    )
    assert "--min-degrees-of-freedom is a number from 1 on" in told.err
