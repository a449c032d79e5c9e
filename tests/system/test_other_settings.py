"""Other settings in a finished folder: refused, told once, and nothing is touched."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import datasets
from support.calls import run, segmentation, state, write_native
from support.datasets import SPACE
from support.group_trees import read_rows
from support.toy_confounds import T, write_confounds

from bids_roi.images.nifti import write_image
from bids_roi.options.table import CLEANING_OPTIONS, OPTIONS
from bids_roi.outputs.records import read_all_records


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two participants of 60 volumes with confounds, and the atlas."""
    folder = tmp_path_factory.mktemp("other")
    root = datasets.write_dataset(folder / "in", [])
    for person in ("01", "02"):
        name = f"sub-{person}_task-rest_space-{SPACE}"
        datasets.write_run(root, name, datasets.bold(int(person), T))
    write_confounds(root)
    for path in (root / "sub-01/func").glob("*confounds*"):
        shutil.copy(path, root / "sub-02/func" / path.name.replace("sub-01", "sub-02"))
    write_image(folder / "other_mask.nii.gz", datasets.mask(), datasets.oblique())
    (folder / "own").mkdir()
    for person in ("01", "02"):
        table = folder / "own" / f"sub-{person}_task-rest_desc-x_regressors.tsv"
        table.write_text("mine\n" + "".join(f"{n**0.5}\n" for n in range(T)))
    own = {"name": "own", "components": [{"table": "own", "columns": "all"}]}
    (folder / "own.json").write_text(json.dumps(own))
    named = {"name": "named", "components": [{"columns": ["trans_x"]}]}
    (folder / "named.json").write_text(json.dumps(named))
    return folder, root, datasets.write_atlas(folder / "atlas")


# Of each option that decides numbers: what is given first, then what differs, and the
# words that name both. Files stand for themselves: {mask}, {aroma}.
BAND = ["--denoise", "24P", "--high-pass", "0.01", "--low-pass", "0.1"]
STRICT = ["--denoise", "24P"]
NAMED = ["--denoise", "{folder}/named.json"]
LOW = [*STRICT, "--motion-filter", "lp", "--motion-filter-band", 6]
WAVE = ["--high-pass", "0.01", "--filter", "butterworth"]
CHANGES = {
    "mask": ([], ["--mask", "none"], "is none", "with auto"),
    "min_coverage": ([], ["--min-coverage", 0.25], "is 0.25", "with 0.5"),
    "smoothing_fwhm": (["--smoothing-fwhm", 4], [], "is not given", "with 4.0"),
    "repetition_time": ([], ["--repetition-time", 2], "is 2.0", "without it"),
    "detrend": (
        ["--standardize", "psc", "--detrend"],
        ["--standardize", "psc"],
        "is not given",
        "with it",
    ),
    "high_pass": (BAND, [*BAND, "--high-pass", "0.02"], "is 0.02", "with 0.01"),
    "low_pass": (BAND, [*BAND, "--low-pass", "none"], "is not given", "with 0.1"),
    "filter": (
        [*STRICT, "--high-pass", "0.02", "--filter", "cosine"],
        [*STRICT, "--high-pass", "0.02"],
        "is butterworth",
        "with cosine",
    ),
    "filter_order": (WAVE, [*WAVE, "--filter-order", 2], "is 2", "with 5"),
    "filter_padding": (
        WAVE,
        [*WAVE, "--filter-padding", "odd"],
        "is odd",
        "with constant",
    ),
    "filter_ends": (
        WAVE,
        [*WAVE, "--filter-ends", "nearest"],
        "is nearest",
        "with cut",
    ),
    "interpolation": (
        WAVE,
        [*WAVE, "--interpolation", "cubic_spline"],
        "is cubic_spline",
        "with linear",
    ),
    "standardize": (
        [*STRICT, "--standardize", "psc"],
        [*STRICT, "--standardize", "zscore_sample"],
        "is zscore_sample",
        "with psc",
    ),
    "fd_threshold": (
        [*STRICT, "--fd-threshold", "0.3"],
        [*STRICT, "--fd-threshold", "0.5"],
        "is 0.5",
        "with 0.3",
    ),
    "std_dvars_threshold": (
        STRICT,
        [*STRICT, "--std-dvars-threshold", "1.5"],
        "is 1.5",
        "without it",
    ),
    "scrub": ([*STRICT, "--scrub", 5], [*STRICT, "--scrub", 3], "is 3", "with 5"),
    "censor_before": (STRICT, [*STRICT, "--censor-before", 1], "is 1", "with 0"),
    "censor_after": (STRICT, [*STRICT, "--censor-after", 2], "is 2", "with 0"),
    "dummy_scans": (
        [*STRICT, "--dummy-scans", 4],
        [*STRICT, "--dummy-scans", 7],
        "is 7",
        "with 4",
    ),
    "motion_filter": (LOW, STRICT, "is none", "with lp"),
    "motion_filter_band": (LOW, [*LOW[:-1], 8], "is 8", "with 6"),
    "head_radius": (LOW, [*LOW, "--head-radius", 35], "is 35.0", "with 50.0"),
    "censored": (STRICT, [*STRICT, "--censored", "na"], "is na", "with drop"),
    "high_variance_confounds": (
        STRICT,
        [*STRICT, "--high-variance-confounds"],
        "is given",
        "without it",
    ),
    # The sidecars do not hold these; they are named among what can differ.
    "allow_missing_confounds": (STRICT, [*STRICT, "--allow-missing-confounds"], "", ""),
    "aroma_dataset": (NAMED, [*NAMED, "--aroma-dataset", "{folder}"], "", ""),
    "confounds_dataset": (
        ["--denoise", "{folder}/own.json", "--confounds-dataset", "own={folder}/own"],
        [
            *("--denoise", "{folder}/own.json"),
            *("--confounds-dataset", "own={folder}/own/*_desc-x_*.tsv"),
        ],
        "",
        "",
    ),
    "partial_estimator": (
        ["--relmat", "partial"],
        ["--relmat", "partial", "--partial-estimator", "pseudo_inverse"],
        "is pseudo_inverse",
        "with ledoit_wolf",
    ),
    "xdf_regularisation": (
        ["--relmat", "pearsonxdfz"],
        ["--relmat", "pearsonxdfz", "--xdf-regularisation", "tukey"],
        "is tukey",
        "with truncate",
    ),
    "relmat_volumes": (
        ["--relmat", "pearson"],
        ["--relmat", "pearson", "--relmat-volumes", 9],
        "is 9",
        "without it",
    ),
    "region_measures": (
        [],
        ["--region-measures", "homogeneity"],
        "is homogeneity",
        "without it",
    ),
    "relmat_seed": (
        ["--relmat", "pearson", "--relmat-volumes", 9],
        ["--relmat", "pearson", "--relmat-volumes", 9, "--relmat-seed", 2],
        "is 2",
        "with 0",
    ),
    "min_degrees_of_freedom": (
        ["--relmat", "pearson"],
        ["--relmat", "pearson", "--min-degrees-of-freedom", 3],
        "is 3.0",
        "with 1.0",
    ),
}
# Which outputs there are, or which runs count, but no number in them.
ELSEWHERE = {"atlas", "statistic", "map_statistic", "relmat", "fisher_z"}
ELSEWHERE |= {"strategy", "min_volumes", "min_time", "max_censored"}


def test_every_option_that_decides_numbers_is_tried():
    cleaning = {option.name for option in CLEANING_OPTIONS}
    decisive = {option.name for option in OPTIONS if option.sidecar} | cleaning
    assert set(CHANGES) == decisive - ELSEWHERE


@pytest.mark.parametrize("name", CHANGES)
def test_the_option_is_named_with_both_values(name, place, tmp_path, capsys):
    folder, root, atlas = place
    out = tmp_path / "out"
    before, after, now, then = CHANGES[name]
    before, after = (
        [str(word).format(folder=folder) for word in words] for words in (before, after)
    )
    common = [root, out, "participant", "--atlas-file", atlas]
    run(capsys, *common, *before)
    found = state(out)
    shown = run(capsys, *common, *after, code=1)
    assert state(out) == found
    flag = f"--{name.replace('_', '-')}"
    told = f"{flag} {now}, the outputs were made {then}" if now else flag
    assert shown.err.count(told) == 1
    assert shown.err.count("ERROR") == 1  # for the dataset, not for each run
    assert "2 runs, the first sub-01/func/" in shown.err
    assert "made with other options" in shown.err
    assert "--overwrite" in shown.err
    if now:
        others = {o.flags[0] for o in OPTIONS} - {flag, "--overwrite"}
        assert not [f for f in others if f"{f} is " in shown.err]
    assert "already there" in run(capsys, *common, *before).out
    assert "2  extracted" in run(capsys, *common, *after, "--overwrite").out


def test_what_decides_a_matrix_alone_is_named_where_it_is_left_out(
    place, tmp_path, capsys
):
    _, root, atlas = place
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    common += ["--relmat", "pearson", "--no-report"]
    some = ["--relmat-volumes", 9, "--relmat-seed", 2]
    both = ["--statistic", "mean", "eigenvariate"]
    run(capsys, *common, *both, *some)
    told = run(capsys, *common, *both, code=1).err
    assert "--relmat-volumes is not given, the outputs were made with 9." in told
    # The matrix is of the statistic that is named first.
    told = run(capsys, *common, "--statistic", *both[:0:-1], *some, code=1).err
    assert "--statistic is eigenvariate, the outputs were made with mean." in told
    assert "--map-statistic" not in told


def test_the_dozen_tables_of_a_run_are_told_once(place, tmp_path, capsys):
    """With figures and pages, raw signals beside three strategies, and the group."""
    _, root, atlas = place
    out = tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas]
    common += ["--relmat", "pearson", "covariance", "--min-coverage", 0.3]
    common += ["--denoise", "none", "24P", "36P", "simple"]
    run(capsys, *common, "--fd-threshold", "0.3", report=True)
    found, records = state(out), read_all_records(out)
    other = [*common, "--fd-threshold", "0.5", "--standardize", "psc"]
    shown = run(capsys, *other, report=True, code=1)
    assert state(out) == found
    assert shown.err.count("--fd-threshold is 0.5, the outputs were made with 0.3") == 1
    assert shown.err.count("--standardize is psc, the outputs were made with none") == 1
    assert shown.out == ""
    run(capsys, root, out, "group")
    assert {r["status"] for r in read_rows(out / "group_runs.tsv")} == {"done"}
    again = run(capsys, *common, "--fd-threshold", "0.3", report=True)
    assert "2  already there" in again.out
    assert read_all_records(out) == records


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_no_run_is_made_beside_others_of_other_settings(
    executor, place, tmp_path, capsys
):
    """One participant is there: the other is not made with other settings."""
    _, root, atlas = place
    out = tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, "--denoise", "24P"]
    run(capsys, *common, "--participant-label", "02", "--fd-threshold", "0.3")
    found = state(out)
    other = [*common, "--fd-threshold", "0.5", "--executor", executor, "--n-procs", 2]
    shown = run(capsys, *other, code=1)
    assert state(out) == found
    assert "sub-02" in shown.err
    assert shown.err.count("ERROR") == 1
    # What another strategy makes beside it is no mixture.
    beside = [*common[:-1], "simple", "--fd-threshold", "0.5"]
    assert "2  extracted" in run(capsys, *beside).out


def test_a_changed_atlas_or_strategy_file_and_another_version(place, tmp_path, capsys):
    _, root, _ = place
    atlas, out = datasets.write_atlas(tmp_path / "atlas"), tmp_path / "out"
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"name": "mine", "components": [{"csf": "basic"}]}))
    common = [root, out, "participant", "--atlas-file", atlas, "--denoise", mine]
    run(capsys, *common)
    found = state(out)
    mine.write_text(json.dumps({"name": "mine", "components": [{"csf": "full"}]}))
    shown = run(capsys, *common, code=1)
    assert "the strategy mine has other columns" in shown.err
    mine.write_text(json.dumps({"name": "mine", "components": [{"csf": "basic"}]}))
    table = Path(atlas.split(",")[1])
    text = table.read_text()
    table.write_text(text.replace("net1", "net7"))
    shown = run(capsys, *common, code=1)
    assert "made with another atlas file: the table of Toy" in shown.err
    table.write_text(text)
    assert state(out) == found
    for path in out.glob("sub-*/func/*.json"):
        content = json.loads(path.read_text())
        content |= {"SoftwareVersion": "bids_roi 0.0.0", "OptionsDigest": "0" * 12}
        path.write_text(json.dumps(content))
    found = state(out)
    shown = run(capsys, *common, code=1)
    assert "made with another version: 0.0.0, this is " in shown.err
    assert state(out) == found


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_segmentation_made_anew_concerns_its_participant(executor, tmp_path, capsys):
    """That run is refused and left as it is; the others go on."""
    root, out = write_native(tmp_path / "in"), tmp_path / "out"
    common = [root, out, "participant", "--atlas", "subject:aparcaseg"]
    run(capsys, *common)
    datasets.write_run(root, "sub-02_task-rest_space-T1w")
    own = "func/sub-{0}_task-rest_space-T1w_desc-aparcaseg_dseg.nii.gz"
    source = next(root.glob("sub-01/**/*aparcaseg_dseg.nii.gz"))
    shutil.copy(source, root / "sub-02" / own.format("02"))
    changed = np.where(segmentation() == 2035, 0, segmentation())
    write_image(source, changed, datasets.oblique())
    found = state(out / "sub-01"), state(out / "logs/sub-01")
    more = ["--executor", executor, "--n-procs", 2]
    shown = run(capsys, *common, *more, code=1)
    assert (state(out / "sub-01"), state(out / "logs/sub-01")) == found
    assert "the image of aparcaseg" in shown.err
    assert shown.err.count("ERROR") == 1
    assert list(out.glob("sub-02/func/*_timeseries.tsv"))
