"""Cleaning through the whole app: names, numbers, censored volumes, bad input."""

import json
import shutil
import warnings

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support import datasets
from support.calls import FUNC, STEM, read, read_regions, run, series
from support.group_trees import read_rows
from support.toy_confounds import SPIKES, T, write_confounds

from bids_roi.options.table import CLEANING_OPTIONS
from bids_roi.outputs.records import read_all_records


def nilearn_masker(path, atlas, confounds, sample_mask, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        from nilearn.maskers import NiftiLabelsMasker

        mask = str(path).replace("preproc_bold", "brain_mask")
        masker = NiftiLabelsMasker(
            nb.load(atlas.partition(",")[0]), mask_img=nb.load(mask), t_r=2.0, **options
        )
        signals = masker.fit_transform(
            nb.load(path), confounds=confounds, sample_mask=sample_mask
        )
    index = [int(v) for k, v in masker.region_ids_.items() if k != "background"]
    return signals, index


@pytest.mark.parity
@pytest.mark.parametrize("standardize", ["none", "zscore_sample"])
@pytest.mark.parametrize("band", [(), ("--high-pass", "0.01", "--low-pass", "0.1")])
def test_24p_with_censoring_equals_nilearn(
    standardize, band, cleaned_input, atlas, tmp_path, capsys
):
    """In nilearn's own settings; a trend with gaps is not straight in time there."""
    root, columns, path = cleaned_input
    out = tmp_path / "out"
    settings = {"filter": "butterworth", "filter_order": 5, "filter_padding": "odd"}
    settings |= {"interpolation": "cubic_spline", "detrend": bool(band)}
    strategy = tmp_path / "theirs.json"
    content = {"name": "theirs", "components": [{"motion": "full"}]}
    content["settings"] = settings | {"dummy_scans": "auto"}
    strategy.write_text(json.dumps(content))
    run(
        capsys,
        *(root, out, "participant", "--atlas-file", atlas, "--denoise", strategy),
        *("--fd-threshold", 0.5, "--standardize", standardize, *band),
        *("--min-coverage", 0),
    )
    header, found = read(series(out, "theirs"))
    names = sorted(n for n in columns if n.partition("_")[0] in ("trans", "rot"))
    confounds = np.column_stack([columns[n] for n in names])
    confounds[0] = np.where(np.isnan(confounds[0]), confounds[1], confounds[0])
    kept = np.setdiff1d(np.arange(T), [0, *SPIKES])
    censored = {0, *SPIKES}
    assert not any(T - 1 - v in censored for v in censored)
    expected, index = nilearn_masker(
        path,
        atlas,
        confounds,
        kept,
        detrend=bool(band),
        standardize=None if standardize == "none" else standardize,
        high_pass=0.01 if band else None,
        low_pass=0.1 if band else None,
    )
    assert found.shape[0] == len(kept)
    order = [datasets.INDEX.index(value) for value in index]
    scale = np.abs(expected).max()
    assert_allclose(found[:, order], expected, rtol=1e-6, atol=1e-8 * scale)
    assert len(header) == 5


def test_several_strategies_and_raw_signals_side_by_side(
    cleaned_input, atlas, tmp_path, capsys
):
    root, _, _ = cleaned_input
    out = tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, "--denoise"]
    run(capsys, *common, "none", "simple", "24P")
    raw = read(series(out, None))[1]
    assert raw.shape[0] == T
    simple = read(series(out, "simple"))[1]
    assert simple.shape[0] == T - 1  # without the volume that is not steady
    assert "1  extracted" in run(capsys, *common, "36P").out  # one more, later
    assert "already there" in run(capsys, *common, "36P", "simple", "none").out
    assert series(out, "36P").exists()
    facts = json.loads(series(out, "36P").with_suffix(".json").read_text())
    assert len(facts["ConfoundRegressors"]) == 36
    assert facts["DummyScans"] == 1
    assert facts["NumberOfVolumesKept"] == T - 1
    assert facts["DegreesOfFreedom"] == T - 1 - 36 - 2
    assert facts["DenoisingStrategy"] == "36P"
    assert any("confounds" in source for source in facts["Sources"])
    refused = run(capsys, *common, "36P", "--fd-threshold", "0.5", code=1)
    assert "made with other options" in refused.err


@pytest.mark.parametrize("censored", ["drop", "na", "interpolate"])
def test_rows_of_censored_volumes(censored, cleaned_input, atlas, tmp_path, capsys):
    root, _, _ = cleaned_input
    out = tmp_path / "out"
    run(
        capsys,
        *(root, out, "participant", "--atlas-file", atlas, "--denoise", "24P"),
        *("--fd-threshold", 0.5, "--scrub", 3, "--censored", censored),
    )
    found = read(series(out, "24P"))[1][:, :1]
    lines = (out / FUNC / f"{STEM}_desc-24P_outliers.tsv").read_text().splitlines()
    names = lines[0].split("\t")
    table = [dict(zip(names, r.split("\t"), strict=True)) for r in lines[1:]]
    kept = np.array([row["outlier"] == "0" for row in table])
    why = {t: row["why"] for t, row in enumerate(table) if row["why"] != "n/a"}
    assert why == {0: "dummy", 20: "fd", 21: "fd", 40: "fd"}
    assert len(table) == T
    assert_array_equal(np.flatnonzero(~kept), [0, *SPIKES])
    if censored == "drop":
        assert found.shape[0] == kept.sum()
    else:
        assert found.shape[0] == T
        assert np.isnan(found[0]).all()
        assert np.isnan(found[SPIKES]).all() == (censored == "na")
        assert np.isfinite(found[kept]).all()


def test_options_alone_clean_without_a_table(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    run(
        capsys,
        *(dataset, out, "participant", "--atlas-file", atlas),
        *("--detrend", "--standardize", "psc"),
    )
    found = read(series(out, "cleaned"))[1]
    name = STEM.replace("rest", "rest")
    path = dataset / FUNC / f"{name}_desc-preproc_bold.nii.gz"
    values = nb.load(path).get_fdata()
    inside = (datasets.mask() > 0) & (datasets.labels() == 3)
    mean = values[inside].mean(axis=0)
    time = np.arange(mean.size)
    trend = np.polyval(np.polyfit(time, mean, 1), time)
    column = datasets.INDEX.index(3)
    assert_allclose(found[:, column], 100 * (mean - trend) / mean.mean(), atol=1e-9)
    assert json.loads(series(out, "cleaned").with_suffix(".json").read_text())[
        "Units"
    ] == ("percent")


def test_high_variance_confounds_are_nilearns(cleaned_input, atlas, tmp_path, capsys):
    root, _, path = cleaned_input
    out = tmp_path / "out"
    run(
        capsys,
        *(root, out, "participant", "--atlas-file", atlas, "--min-coverage", 0),
        *("--high-variance-confounds", "--detrend", "--dummy-scans", 0),
    )
    found = read(series(out, "cleaned"))[1]
    expected, index = nilearn_masker(
        path, atlas, None, None, detrend=True, high_variance_confounds=True
    )
    order = [datasets.INDEX.index(value) for value in index]
    scale = np.abs(expected).max()
    assert_allclose(found[:, order], expected, rtol=1e-6, atol=1e-8 * scale)


BAD = {
    "rows": (
        lambda root: write_confounds(root, n_volumes=T - 5),
        ["--denoise", "24P"],
        "55 rows, the BOLD series 60 volumes",
    ),
    "columns": (lambda root: None, ["--denoise", "acompcor"], "comp_cor"),
    "all censored": (
        lambda root: None,
        ["--denoise", "24P", "--fd-threshold", "0.01"],
        "0 of 60 volumes are kept",
    ),
    "min volumes": (
        lambda root: None,
        ["--denoise", "24P", "--min-volumes", "60"],
        "59 of 60 volumes are kept, --min-volumes asks for 60",
    ),
    "too short for the filter": (
        lambda root: None,
        [
            "--detrend",
            "--dummy-scans",
            "40",
            "--high-pass",
            "0.01",
            "--low-pass",
            "0.1",
        ],
        "20 of 60 volumes are kept, the slow terms and the pass band take 26",
    ),
    "more regressors than volumes": (
        lambda root: None,
        ["--denoise", "36P", "--dummy-scans", "30"],
        "30 volumes are kept, but 36 regressors",
    ),
    "max censored": (
        lambda root: None,
        ["--denoise", "24P", "--fd-threshold", 0.5, "--max-censored", 0.05],
        "56 of 60 volumes are kept: 0.05085 of the steady ones are censored,"
        " --max-censored allows 0.05 (24P)",
    ),
    "min time": (
        lambda root: None,
        ["--denoise", "24P", "--min-time", "240"],
        "118 s; --min-time asks for 240 s",
    ),
    "no table": (
        lambda root: [p.unlink() for p in root.glob("sub-01/func/*confounds*")],
        ["--denoise", "24P"],
        "no table of confounds",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_run_that_cannot_be_cleaned_fails_alone(
    name, cleaned_input, atlas, tmp_path, capsys
):
    root, _, _ = cleaned_input
    spoil, options, message = BAD[name]
    spoil(root)
    out = tmp_path / "out"
    shown = run(
        capsys, root, out, "participant", "--atlas-file", atlas, *options, code=1
    )
    assert message in shown.err
    assert "sub-01" in shown.err
    assert "Traceback" not in shown.err
    assert not list(out.glob("sub-01/func/*desc-*_timeseries.tsv"))


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--denoise", "37P"], 64, "36P"),
        (["--denoise", "24P", "--fd-threshold", "much"], 64, "a number or none"),
        (["--denoise", "ica_aroma", "icaaroma"], 65, "would both be written"),
        (["--denoise", "24P", "--high-pass", "0.1", "--low-pass", "0.01"], 64, "pass"),
    ],
)
def test_strategies_are_refused_before_anything_is_read(
    options, code, message, cleaned_input, atlas, tmp_path, capsys
):
    root, _, _ = cleaned_input
    out = tmp_path / "out"
    shown = run(
        capsys, root, out, "participant", "--atlas-file", atlas, *options, code=code
    )
    assert message in shown.err
    assert not [p for p in out.glob("sub-*/**/*") if p.is_file()]


def test_two_high_passes_are_told(cleaned_input, atlas, tmp_path, capsys):
    root, _, _ = cleaned_input
    out = tmp_path / "out"
    shown = run(
        capsys,
        *(root, out, "participant", "--atlas-file", atlas, "--denoise", "simple"),
        *("--high-pass", 0.01),
    )
    assert "high-pass" in shown.err.lower()
    table = read_regions(out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv")
    assert table["status"].count("ok") >= 3


AROMA = "sub-01_task-rest_desc-aroma_timeseries.tsv"


@pytest.fixture
def aroma(cleaned_input, atlas, tmp_path):
    """fMRIPost-AROMA beside fMRIPrep 23 and later, which has no such columns."""
    root, _, _ = cleaned_input
    table = tmp_path / "fmripost-aroma" / FUNC / AROMA
    table.parent.mkdir(parents=True)
    noise = np.random.default_rng(1).normal(size=(T, 2))
    rows = ["\t".join(map(repr, row)) for row in noise.tolist()]
    head = "aroma_orth_motion_00\taroma_orth_motion_01"
    table.write_text("\n".join([head, *rows]) + "\n")
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    return common, ["--aroma-dataset", table.parents[2]], table, noise


def test_aroma_components_come_from_their_own_dataset(aroma, tmp_path, capsys):
    common, given, table, noise = aroma
    refused = run(capsys, *common, "--denoise", "aroma", code=1)
    assert "aroma" in refused.err
    run(capsys, *common, "--denoise", "aroma", *given)
    path = series(tmp_path / "out", "aroma")
    facts = json.loads(path.with_suffix(".json").read_text())
    head = table.read_text().split("\n")[0].split("\t")
    assert set(head) <= set(facts["ConfoundRegressors"])
    assert facts["Sources"][-1] == f"bids:aroma:{FUNC}/{AROMA}"
    described = json.loads((tmp_path / "out/dataset_description.json").read_text())
    # Beside those of the first call, into the same folder.
    assert described["DatasetLinks"]["aroma"] == "../fmripost-aroma"
    again = run(capsys, *common, "--denoise", "aroma", *given, "--overwrite")
    assert "other content" not in again.err + run(capsys, *common, code=None).err
    _, found = read(path)
    kept = noise[1:] - noise[1:].mean(axis=0)
    column = found[:, datasets.INDEX.index(3)]
    assert np.abs(kept.T @ column).max() < 1e-6 * np.abs(column).max() * T


def test_two_tables_of_aroma_are_not_chosen_from_silently(aroma, tmp_path, capsys):
    """Of one run, on two grids; a strategy that takes none of it is as it was."""
    common, given, table, _ = aroma
    other = table.with_name(AROMA.replace("_desc", "_space-MNI152NLin6Asym_desc"))
    shutil.copy(table, other)
    shown = run(capsys, *common, "--denoise", "aroma", "24P", *given, code=1)
    assert "2 files could be its table aroma" in shown.err
    assert AROMA in shown.err
    assert other.name in shown.err
    assert "Leave one of them" in shown.err
    assert not series(tmp_path / "out", "aroma").exists()
    facts = json.loads(series(tmp_path / "out", "24P").with_suffix(".json").read_text())
    assert not [uri for uri in facts["Sources"] if "aroma" in uri]


def test_a_bound_without_censoring_is_refused(cleaned_input, atlas, tmp_path, capsys):
    common = [cleaned_input[0], tmp_path / "out", "participant", "--atlas-file", atlas]
    asked = ["--denoise", "24P", "--max-censored", 0.2, "--dummy-scans", "auto"]
    shown = run(capsys, *common, *asked, code=64)
    assert "no strategy censors volumes: --max-censored has no effect" in shown.err
    run(capsys, *common, *asked, "--std-dvars-threshold", 9)


@pytest.mark.parametrize(
    "asked",
    [["--detrend"], ["--denoise", "24P"], ["--denoise", "none", "36P"]],
)
def test_aroma_that_no_strategy_takes_is_refused(asked, aroma, tmp_path, capsys):
    common, given, _, _ = aroma
    shown = run(capsys, *common, *asked, *given, code=64)
    assert "no strategy takes columns of ICA-AROMA" in shown.err
    assert "--aroma-dataset has no effect" in shown.err
    assert not (tmp_path / "out").exists()


def test_filtering_without_a_repetition_time_names_the_run(
    cleaned_input, atlas, tmp_path, capsys
):
    root, _, path = cleaned_input
    for sidecar in root.glob("sub-01/func/*_bold.json"):
        sidecar.unlink()
    datasets.write_image(path, datasets.bold(3, T), datasets.oblique())
    shown = run(
        capsys,
        *(root, tmp_path / "out", "participant", "--atlas-file", atlas),
        *("--denoise", "24P", "--high-pass", 0.01),
        code=1,
    )
    assert "--repetition-time" in shown.err
    assert path.name in shown.err


def test_nothing_made_of_an_earlier_input_passes_for_complete(
    cleaned_input, atlas, tmp_path, capsys
):
    """A strategy, a new input, another strategy: the first is made again."""
    root, _, path = cleaned_input
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    run(capsys, *common, "--denoise", "24P")
    before = series(tmp_path / "out", "24P").read_bytes()
    datasets.write_image(path, datasets.bold(8, T), datasets.oblique())
    run(capsys, *common, "--denoise", "simple")
    assert "1  extracted" in run(capsys, *common, "--denoise", "24P").out
    assert series(tmp_path / "out", "24P").read_bytes() != before
    both = run(capsys, *common, "--denoise", "24P", "simple")
    assert "already there" in both.out


def test_a_corrected_sidecar_is_a_new_input(cleaned_input, atlas, tmp_path, capsys):
    root, _, _ = cleaned_input
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    common += ["--denoise", "24P", "--high-pass", 0.01]
    run(capsys, *common)
    assert "already there" in run(capsys, *common).out
    for sidecar in root.glob("sub-01/func/*_bold.json"):
        sidecar.write_text('{"RepetitionTime": 3.0}')
    assert "1  extracted" in run(capsys, *common).out
    facts = json.loads(series(tmp_path / "out", "24P").with_suffix(".json").read_text())
    assert facts["SourceRepetitionTime"] == 3.0  # a row is left out
    assert facts["VolumeTiming"][:3] == [3.0, 6.0, 9.0]


# Of each option of cleaning but --denoise a value that is not its default.
GIVEN = {
    "detrend": [],
    "high_pass": ["0.01"],
    "low_pass": ["0.1"],
    "filter": ["cosine"],
    "filter_order": [3],
    "filter_padding": ["odd"],
    "filter_ends": ["nearest"],
    "interpolation": ["cubic_spline"],
    "standardize": ["psc"],
    "fd_threshold": ["0.5"],
    "std_dvars_threshold": ["none"],
    "scrub": [5],
    "censor_before": [1],
    "censor_after": [2],
    "dummy_scans": ["auto"],
    "motion_filter": ["lp"],
    "motion_filter_band": [6],
    "head_radius": [35],
    "censored": ["na"],
    "high_variance_confounds": [],
    "allow_missing_confounds": [],
    "aroma_dataset": ["."],
    "confounds_dataset": ["own=."],
    "min_volumes": [3],
    "min_time": [10],
    "max_censored": [0.5],
}


@pytest.mark.parametrize(
    "option", [o for o in CLEANING_OPTIONS if o.name != "strategy"]
)
def test_raw_signals_and_an_option_of_cleaning_contradict_each_other(
    option, cleaned_input, atlas, tmp_path, capsys
):
    root, _, _ = cleaned_input
    out = tmp_path / "out"
    given = [option.flags[0], *GIVEN[option.name]]
    common = [root, out, "participant", "--atlas-file", atlas]
    shown = run(capsys, *common, "--denoise", "none", *given, code=64)
    assert f"raw signals, on which {option.flags[0]} has no effect" in shown.err
    assert not out.exists()
    # Beside another strategy the option is for that one, and raw signals stay raw.
    # These need a cut-off or one another, or a strategy with columns of the table.
    in_need = ("filter", "motion_filter", "head_radius", "confounds_", "aroma_")
    in_need += ("max_censored",)
    if not option.name.startswith(in_need):
        run(capsys, *common, "--denoise", "none", "24P", *given)
        assert len(read(series(out, None))[1]) == T


def test_all_of_them_are_named(dataset, atlas, tmp_path, capsys):
    common = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    common += ["--detrend", "--min-volumes", 5, "--censored", "na"]
    shown = run(capsys, *common, "--denoise", "none", code=64)
    assert "which --detrend, --censored, --min-volumes have no effect" in shown.err


@pytest.mark.parametrize(
    "given",
    [
        ["--min-volumes", 50],
        ["--min-time", 10],
        ["--censored", "na"],
        ["--allow-missing-confounds"],
    ],
)
def test_what_cleans_nothing_by_itself_is_refused_alone(
    given, dataset, atlas, tmp_path, capsys
):
    common = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    shown = run(capsys, *common, *given, code=64)
    assert f"raw signals, on which {given[0]} has no effect" in shown.err
    run(capsys, *common, "--detrend", "--min-volumes", 5)


def test_no_strategy_may_be_called_none(dataset, atlas, tmp_path, capsys):
    path = tmp_path / "mine.json"
    path.write_text('{"name": "mine", "label": "None", "components": []}')
    common = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    shown = run(capsys, *common, "--denoise", path, code=65)
    assert "would both be written as desc-None" in shown.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--min-volumes", T], f"{T - 1} of {T} volumes are kept, --min-volumes"),
        (["--min-time", 2 * T], f"{2 * T - 2} s; --min-time asks for {2 * T} s"),
    ],
)
def test_outputs_that_keep_too_little_are_not_already_there(
    given, message, cleaned_input, atlas, tmp_path, capsys
):
    """What is asked of the kept volumes is asked of those that are there, too."""
    root, _, _ = cleaned_input
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    common += ["--denoise", "none", "24P"]
    run(capsys, *common)
    assert message in run(capsys, *common, *given, code=1).err
    few = [given[0], 5]
    assert "1  extracted" in run(capsys, *common, *few).out  # failed, so tried again
    assert "already there" in run(capsys, *common, *few).out


@pytest.mark.parametrize(
    "given",
    [["--high-pass", "none"], ["--standardize", "none"], ["--fd-threshold", "none"]],
)
def test_settings_that_are_off_clean_nothing(
    given, cleaned_input, atlas, tmp_path, capsys
):
    """Raw signals were written as desc-cleaned."""
    root, _, _ = cleaned_input
    out = tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas]
    shown = run(capsys, *common, *given, code=64)
    assert f"raw signals, on which {given[0]} has no effect" in shown.err
    assert not out.exists()


def test_the_summary_counts_the_columns_that_are_na(
    cleaned_input, atlas, tmp_path, capsys
):
    """Not those of the region table: a strategy can lose a region that has voxels."""
    root, columns, path = cleaned_input
    bold = datasets.bold(3, T)
    bold[datasets.labels() == 500] = 1000 + columns["csf"]
    datasets.write_run(root, path.name.removesuffix("_desc-preproc_bold.nii.gz"), bold)
    out = tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, "--denoise", "none"]
    shown = run(capsys, *common, "36P")
    values = read(series(out, "36P"))[1]
    n_lost = int(np.isnan(values).all(axis=0).sum())
    raw = int(np.isnan(read(series(out, None))[1]).all(axis=0).sum())
    assert n_lost == raw + 1
    assert f"most: {n_lost} of {values.shape[1]}" in shown.out


def test_a_run_with_too_much_censored_fails_in_all_places(
    cleaned_input, atlas, tmp_path, capsys
):
    """3 of 59 steady volumes are above 0.5 mm; a bound just there is kept."""
    root, _, _ = cleaned_input
    out = tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, "--denoise", "none"]
    common += ["24P", "--fd-threshold", 0.5]
    run(capsys, *common, "--max-censored", 3 / 59)
    assert "already there" in run(capsys, *common, "--max-censored", 3 / 59).out
    # What is there is held against a bound that is given later.
    shown = run(capsys, *common, "--max-censored", 0.05, code=1)
    told = "0.05085 of the steady ones are censored, --max-censored allows 0.05 (24P)"
    assert told in shown.err
    assert "1  strategy failed in a run" in shown.out
    failed = [r for r in read_all_records(out) if r.status == "failed"]
    assert [(r.strategy, told in r.reason) for r in failed] == [("24P", True)]
    run(capsys, root, out, "group")
    rows = {r["desc_id"]: r for r in read_rows(out / "group_runs.tsv")}
    assert rows["24P"]["status"] == "failed"
    assert told in rows["24P"]["reason"]
    assert rows["n/a"]["status"] == "done"
