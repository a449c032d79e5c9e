"""xDF and matrices of one number of volumes: the whole app, and simulations."""

import json

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.signal import lfilter
from support import datasets
from support.calls import read, read_relmat, relmat_path, run, series, sidecar
from support.cleaning_oracles import PLAIN, clean_signals
from support.datasets import NAMES, SPACE
from support.toy_confounds import SPIKES, T
from support.validator import issues_of

import bids_roi
from bids_roi.core.relmat import relate
from bids_roi.loading import load
from bids_roi.options.record import Options
from bids_roi.outputs.derivatives import RelmatOutput
from bids_roi.participant.results import Kept, relate_regions

XDF = [f"pearsonxdf{what}" for what in ("variance", "dof", "z", "p")]
KEPT = np.setdiff1d(np.arange(T), [0, *SPIKES])
UPPER = np.triu_indices(4, 1)  # "Nowhere" is in the table only
CLEANED = ("--denoise", "24P", "--fd-threshold", 0.5, "--dummy-scans", "auto")


def autoregressive(rng, n_volumes, n_regions, *coefficients):
    noise = rng.normal(size=(n_volumes + 200, n_regions))
    return lfilter([1.0], [1.0, *(-c for c in coefficients)], noise, axis=0)[200:]


def relate_all(signals, mask=None, regularisation="truncate"):
    mask = np.ones(len(signals), dtype=bool) if mask is None else mask
    given = {"sample_mask": mask, "regularisation": regularisation}
    return [relate(name, signals, **given) for name in XDF]


@pytest.mark.parametrize("censored", ["drop", "na", "interpolate"])
@pytest.mark.parametrize("regularisation", ["truncate", "tukey"])
def test_tables_are_of_the_kept_volumes_with_their_lags(
    cleaned_input, atlas, tmp_path, capsys, censored, regularisation
):
    root, out = cleaned_input[0], tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, *CLEANED]
    more = ["--censored", censored, "--xdf-regularisation", regularisation]
    told = run(capsys, *common, "--relmat", "pearson", *XDF, *more)
    assert "z and p are too sure" in told.err  # 24 regressors in 60 volumes
    _, signals = read(series(out, "24P"))
    signals = signals if censored == "drop" else signals[KEPT]
    mask = np.zeros(T, dtype=bool)
    mask[KEPT] = True
    expected = relate_all(signals[:, :4], mask, regularisation)
    for name, matrix in zip(XDF, expected, strict=True):
        path = relmat_path(out, name, "24P")
        found = read_relmat(path)
        assert_allclose(found[:4, :4], matrix, rtol=1e-8)
        assert np.isnan(found[4:]).all()
        assert np.isnan(np.diagonal(found)).all()
        content = sidecar(path)
        assert content["XDFRegularisation"] == regularisation
        assert content["RelationshipMeasure"].endswith("by xDF")
        assert content["ValidDiagonal"] is False
        assert content["FisherZ"] is False
        assert content["NonNegative"] == (name != "pearsonxdfz")
        assert content["NumberOfVolumesKept"] == KEPT.size
    assert "XDFRegularisation" not in sidecar(
        relmat_path(out, "pearsoncorrelation", "24P")
    )
    r = read_relmat(relmat_path(out, "pearsoncorrelation", "24P"))[UPPER]
    variance, dof, z, p = (
        read_relmat(relmat_path(out, name, "24P"))[UPPER] for name in XDF
    )
    assert_allclose(z, np.arctanh(r) * (1 - r**2) / np.sqrt(variance), rtol=1e-9)
    assert_allclose(dof, (1 - r**2) ** 2 / variance, rtol=1e-9)
    assert_allclose(p, 2 * stats.norm.sf(np.abs(z)), rtol=1e-9)
    assert (dof <= KEPT.size * (1 + 1e-9)).all()


def test_group_stack_load_and_validator(dataset, atlas, tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    out = tmp_path / "out"
    common = ["--atlas-file", atlas, "--relmat", "pearson", *XDF]
    run(capsys, dataset, out, "participant", *common)
    told = run(capsys, dataset, out, "group")
    assert "p values are not averaged: they are in the stacks." in told.out
    tables = {
        (person, name): read_relmat(
            out / f"sub-{person}/func/sub-{person}_task-rest_space-{SPACE}"
            f"_atlas-Toy_stat-{name}_relmat.tsv"
        )
        for person in ("01", "02")
        for name in XDF
    }
    (path,) = out.glob("group_*_stack.h5")
    with h5py.File(path) as file:
        for name in XDF:
            first, second = file[f"relmat/{name}/edges"][()].T
            assert (first < second).all()
            for row, person in enumerate(("01", "02")):
                assert_array_equal(
                    file[f"relmat/{name}/data"][row],
                    tables[person, name][first, second],
                )
    for name in XDF[:3]:
        (path,) = out.glob(f"group_*_stat-{name}_relmat.tsv")
        mean = (tables["01", name] + tables["02", name]) / 2
        assert_allclose(read_relmat(path)[UPPER], mean[UPPER], rtol=1e-12)
        content = json.loads(path.with_suffix(".json").read_text())
        assert "the values, as they are" in content["Description"]
        assert "NumberOfIdenticalEdges" not in content
        (path,) = out.glob(f"group_*_stat-{name}_networks.tsv")
        assert "correlation" not in path.read_text().partition("\n")[0].split("\t")
    assert not list(out.glob("group_*pearsonxdfp*"))
    found = load(out)
    frame = found.relmats(relmat="pearsonxdfz", participant_label="02")
    assert_array_equal(frame.to_numpy(), tables["02", "pearsonxdfz"])
    assert found.matrices(relmat="pearsonxdfp").values.shape == (2, *[len(NAMES)] * 2)
    assert issues_of(out) == []


def test_extract_takes_both(cleaned_input, atlas, tmp_path, capsys):
    root, _, path = cleaned_input
    out, (image, table) = tmp_path / "out", atlas.split(",")
    asked = {"relmat_volumes": 30, "relmat_seed": 5, "xdf_regularisation": "tukey"}
    flags = [w for k, v in asked.items() for w in ("--" + k.replace("_", "-"), v)]
    common = ["--atlas-file", atlas, *CLEANED, "--relmat", "pearson", *XDF, *flags]
    run(capsys, root, out, "participant", *common)
    found = bids_roi.extract(
        path,
        image,
        atlas_table=table,
        strategy="24P",
        fd_threshold=0.5,
        dummy_scans="auto",
        relmat=["pearson", *XDF],
        **asked,
    )
    for name in ("pearson", *XDF):
        word = "pearsoncorrelation" if name == "pearson" else name
        expected = read_relmat(relmat_path(out, word, "24P"))
        assert_array_equal(found.relmats[name].to_numpy(), expected)


def test_so_many_volumes_for_every_run(cleaned_input, atlas, tmp_path, capsys):
    root, out = cleaned_input[0], tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, *CLEANED]
    common += ["--relmat", "pearson", "covariance", "pearsonxdfz"]
    run(capsys, *common, "--relmat-volumes", 40, "--relmat-seed", 3)
    _, signals = read(series(out, "24P"))
    # As docs/numbers.md has it, in NumPy alone.
    chosen = np.sort(np.random.RandomState(3).permutation(KEPT.size)[:40])
    some = signals[chosen, :4]
    found = read_relmat(relmat_path(out, "pearsoncorrelation", "24P"))
    assert_allclose(found[:4, :4], np.corrcoef(some.T), rtol=1e-9)
    found = read_relmat(relmat_path(out, "covariance", "24P"))
    assert_allclose(found[:4, :4], np.cov(some.T), rtol=1e-9)
    mask = np.zeros(T, dtype=bool)
    mask[KEPT[chosen]] = True
    found = read_relmat(relmat_path(out, "pearsonxdfz", "24P"))
    assert_allclose(found[:4, :4], relate_all(some, mask)[2], rtol=1e-8)
    whole = sidecar(series(out, "24P"))
    content = sidecar(relmat_path(out, "pearsoncorrelation", "24P"))
    assert (content["RelmatVolumes"], content["RelmatSeed"]) == (40, 3)
    assert "RelmatVolumes" not in whole
    assert content["DegreesOfFreedom"] < whole["DegreesOfFreedom"]
    n, d = KEPT.size, whole["DegreesOfFreedom"]
    expected = 40 / (1 + 39 * (n / d - 1) / (n - 1))
    assert content["DegreesOfFreedom"] == pytest.approx(expected, abs=0.006)
    # Asked for once more, it is there; another seed is refused.
    run(capsys, *common, "--relmat-volumes", 40, "--relmat-seed", 3)
    told = run(capsys, *common, "--relmat-volumes", 40, code=1)
    assert "--relmat-seed is 0, the outputs were made with 3" in told.err


def test_all_volumes_are_as_without_the_option(cleaned_input, atlas, tmp_path, capsys):
    root = cleaned_input[0]
    common = [root, "OUT", "participant", "--atlas-file", atlas, *CLEANED]
    common += ["--relmat", "pearson", "pearsonxdfz"]
    found = []
    for more in ([], ["--relmat-volumes", KEPT.size]):
        common[1] = tmp_path / str(len(more))
        run(capsys, *common, *more)
        found.append(
            [
                relmat_path(common[1], word, "24P").read_bytes()
                for word in ("pearsoncorrelation", "pearsonxdfz")
            ]
        )
    assert found[0] == found[1]


def test_too_few_volumes_are_told_in_four_places(dataset, atlas, tmp_path, capsys):
    """One of three runs is shorter: its matrix is n/a, and the group is without it."""
    stem = f"sub-03_task-rest_space-{SPACE}"
    datasets.write_run(dataset, stem, datasets.bold(7, 6))
    out = tmp_path / "out"
    common = ["--atlas-file", atlas, "--relmat", "pearson", "pearsonxdfp"]
    told = run(capsys, dataset, out, "participant", *common, "--relmat-volumes", 8)
    why = "6 volumes are kept, --relmat-volumes asks for 8"
    assert why in told.err
    content = sidecar(
        out / f"sub-03/func/{stem}_atlas-Toy_stat-pearsoncorrelation_relmat.tsv"
    )
    assert why in content["ReasonNotAvailable"]
    (log,) = (out / "logs" / "sub-03").glob("*.jsonl")
    record = json.loads(log.read_text().splitlines()[-1])
    assert any(why in warning for warning in record["warnings"])
    told = run(capsys, dataset, out, "group")
    assert why in told.out
    rows = (out / "group_runs.tsv").read_text().splitlines()
    assert [why in row for row in rows] == [False, False, False, True]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--relmat-volumes", "2"], "--relmat-volumes is 2: a matrix needs 3."),
        (["--relmat-seed", "4"], "--relmat-seed has no effect without"),
        (["--relmat-volumes", "9", "--relmat-seed", "-1"], "from 0 to 2^32 - 1: -1"),
        (["--xdf-regularisation", "tukey"], "--xdf-regularisation has no effect"),
        (["--combine-runs", "--relmat-volumes", "9"], "takes all kept volumes of all"),
        (
            ["pearsonxdfz", "--combine-runs"],
            "cannot combine pearsonxdfz: xDF is of the volumes of one run",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(given, said, dataset, atlas, tmp_path, capsys):
    common = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    told = run(capsys, *common, "--relmat", "pearson", *given, code=64)
    assert said in told.err


def test_uneven_volumes_are_told():
    signals = np.random.default_rng(0).normal(size=(60, 4))
    output = RelmatOutput("pearsonxdfz", False, None, "mean", "x.tsv", "y.tsv")
    kept = Kept(signals, np.ones(60, dtype=bool), 59.0, is_even=False)
    notes = relate_regions(kept, output, Options.of(relmat=("pearsonxdfz",))).notes
    assert any("volumes are not evenly spaced" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "options", "n_confounds", "least", "most"),
    [
        ("as it is", {}, 0, 0.04, 0.06),
        ("24P", {}, 24, 0.055, 0.08),
        ("band", {"high_pass": 0.01, "low_pass": 0.1}, 0, 0.075, 0.11),
        ("36P", {"high_pass": 0.008, "low_pass": 0.09}, 36, 0.13, 0.2),
    ],
)
def test_p_of_nothing_after_cleaning_is_warned_of(
    name, options, n_confounds, least, most
):
    """The share of p < 0.05 in noise, and the share that the warning tells."""
    rng, shares, told = np.random.default_rng(0), [], []
    given = {"detrend": True, "filter": "passband", **options}
    output = RelmatOutput("pearsonxdfp", False, name, "mean", "x.tsv", "y.tsv")
    for _ in range(6):
        confounds = rng.normal(size=(300, n_confounds)) if n_confounds else None
        signals = rng.normal(size=(300, 40))
        cleaned = clean_signals(
            signals, **(PLAIN | given | {"confounds": confounds, "sample_mask": None})
        )
        kept = Kept(
            cleaned.signals,
            cleaned.sample_mask,
            cleaned.degrees_of_freedom,
            cleaned.effective_degrees_of_freedom,
        )
        related = relate_regions(kept, output, Options.of(relmat=("pearsonxdfp",)))
        shares.append(np.mean(related.relmat[np.triu_indices(40, 1)] < 0.05))
        told += [note for note in related.notes if "too sure" in note]
    assert least < np.mean(shares) < most
    if name == "as it is":
        assert told == []
        return
    assert len(told) == 6
    said = [float(note.partition("some ")[2].partition("%")[0]) / 100 for note in told]
    assert np.mean(said) == pytest.approx(np.mean(shares), abs=0.02)


def leave_out(kind, n_volumes):
    rng, mask = np.random.default_rng(5), np.ones(n_volumes, dtype=bool)
    if kind == "scattered":
        mask[rng.permutation(n_volumes)[: n_volumes // 3]] = False
    if kind == "stretches":
        for start in rng.permutation(n_volumes - 12)[: n_volumes // 20]:
            mask[start : start + rng.integers(2, 9)] = False
    return mask


@pytest.mark.parametrize("kind", ["none", "scattered", "stretches"])
@pytest.mark.parametrize(
    ("coefficients", "shared", "ratio"),
    [((0.4,), 0.5, 0.95), ((0.8,), 0.0, 0.84), ((1.2, -0.5), 0.5, 0.91)],
)
def test_variance_of_simulated_pairs(kind, coefficients, shared, ratio):
    """2,000 pairs, whose variance is known to 3 %: gaps cost xDF little.

    It is too small where series are slow, by what the lags would add that are cut off.
    """
    rng, mask = np.random.default_rng(1), leave_out(kind, 300)
    first, second = np.arange(0, 40, 2), np.arange(1, 40, 2)
    r, variances = [], []
    for _ in range(100):
        signals = autoregressive(rng, 300, 40, *coefficients)
        common = autoregressive(rng, 300, 20, *coefficients)
        signals *= np.sqrt(1 - shared)
        signals += np.sqrt(shared) * np.repeat(common, 2, axis=1)
        kept = signals[mask]
        edges = relate(XDF[0], kept, sample_mask=mask, regularisation="truncate")
        variances.append(edges[first, second])
        r.append(relate("pearson", kept)[first, second])
    assert np.size(r) == 2000
    assert np.mean(variances) / np.var(r) == pytest.approx(ratio, abs=0.1)


# Of xDF_Calc of github.com/asoroosh/xDF without its rounding of r.
PYHRF_Z = {
    "truncate": [
        *(16.485762078, -0.902833538741, -1.19140348214, 2.29666284229, 2.62439826023),
        *(-1.19933547132, -1.08592032586, 2.72896672539, 2.39082778303, 7.7141961036),
        *(0.403448033888, 1.64310335617, 1.41584340881, 2.30953762482, 2.16602503488),
    ],
    "tukey": [
        *(16.7031625629, -0.909309914951, -1.20633990785, 2.32421546677, 2.61236286305),
        *(-1.20399344066, -1.10260402873, 2.76317482803, 2.46878752116, 7.16986648359),
        *(0.400364777422, 1.72290408335, 1.48723273756, 2.15018261387, 2.28128813005),
    ],
}


def test_real_series_have_the_published_codes_z(shared):
    folder = shared / "bold" / "pyhrf"
    image = nb.load(folder / "real_data_vol_4_regions_BOLD.nii.gz")
    places = np.asarray(nb.load(folder / "real_data_vol_4_regions_mask.nii.gz").dataobj)
    places = places.reshape(image.shape[:3])
    values = image.get_fdata()
    signals = np.column_stack([values[places == k].mean(axis=0) for k in range(1, 7)])
    upper = np.triu_indices(6, 1)
    for regularisation, numbers in PYHRF_Z.items():
        found = relate_all(signals, regularisation=regularisation)[2][upper]
        assert_allclose(found, numbers, rtol=1e-9)
