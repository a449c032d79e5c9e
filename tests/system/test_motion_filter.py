"""The motion filter through the whole app: regressors, censoring, tables, sidecars.

The oracle is the table of confounds with filtered parameters written into it by scipy's
filters as XCP-D calls them, and the app without a filter on that table.
"""

import json
import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal
from support import datasets
from support.calls import FUNC, STEM, read, read_regions, run, series
from support.confound_tables import AXES, REAL
from support.group_trees import read_rows

from bids_roi.api import extract
from bids_roi.loading import load
from bids_roi.outputs.records import read_all_records

N, STEP = 200, 0.8
NOTCH = ["--motion-filter", "notch", "--motion-filter-band", 12, 18]
TABLE = "sub-01_task-rest_desc-confounds_timeseries.tsv"


def breathing(n_volumes=N):
    """Six parameters: a breath of 15 a minute, a drift, and a nod at volume 100."""
    minutes = np.arange(n_volumes) * STEP / 60
    rng = np.random.default_rng(5)
    walk = rng.normal(size=(n_volumes, 6)).cumsum(axis=0) * 0.004
    walk[:, 3:] /= 50
    walk[:, 1] += 0.25 * np.sin(2 * np.pi * 15 * minutes)
    walk[n_volumes // 2 :, 2] += 2
    return walk


def write_table(path, parameters, extra=()):
    """As fMRIPrep's: parameters, derivatives, squares, displacement."""
    columns = dict(zip(AXES, parameters.T, strict=True)) | dict(extra)
    for name in AXES:
        slope = np.r_[np.nan, np.diff(columns[name])]
        columns[f"{name}_derivative1"] = slope
        columns[f"{name}_power2"] = columns[name] ** 2
        columns[f"{name}_derivative1_power2"] = slope**2
    change = np.abs(np.diff(parameters, axis=0)) * [1, 1, 1, 50, 50, 50]
    columns["framewise_displacement"] = np.r_[np.nan, change.sum(axis=1)]
    rows = [
        "\t".join("n/a" if np.isnan(v) else repr(float(v)) for v in row)
        for row in zip(*columns.values(), strict=True)
    ]
    path.write_text("\n".join(["\t".join(columns), *rows]) + "\n")
    return columns


def xcp_d(parameters):
    """12 to 18 breaths a minute, as XCP-D takes them out."""
    b, a = signal.iirnotch(15 / 60, 15 / 6, fs=1 / STEP)
    options = {"padtype": "constant", "padlen": len(parameters) - 1}
    return signal.filtfilt(b, a, parameters, axis=0, **options)


@pytest.fixture
def breathes(atlas, tmp_path):
    """A run with breathing in its motion, and the words of a call."""
    root = datasets.write_dataset(tmp_path / "in", [])
    path = datasets.write_run(root, STEM, datasets.bold(3, N))
    path.with_name(f"{STEM}_desc-preproc_bold.json").write_text(
        json.dumps({"RepetitionTime": STEP})
    )
    write_table(root / FUNC / TABLE, breathing())
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    return [*common, "--strategy", "24P", "--fd-threshold", 0.15]


def facts_of(out):
    return json.loads(series(out, "24P").with_suffix(".json").read_text())


def test_it_is_the_app_on_a_table_with_xcp_d_s_parameters(breathes, tmp_path, capsys):
    run(capsys, *breathes, *NOTCH, "--relmat", "pearson")
    own = read(series(tmp_path / "out", "24P"))[1]
    columns = write_table(breathes[0] / FUNC / TABLE, xcp_d(breathing()))
    run(capsys, breathes[0], tmp_path / "theirs", *breathes[2:])
    theirs = read(series(tmp_path / "theirs", "24P"))[1]
    assert_allclose(own, theirs, atol=1e-8 * np.nanmax(np.abs(theirs)))
    table = read_regions(tmp_path / "out" / FUNC / f"{STEM}_desc-24P_outliers.tsv")
    other = read_regions(tmp_path / "theirs" / FUNC / f"{STEM}_desc-24P_outliers.tsv")
    assert list(table) == ["outlier", "dummy", "fd", "fd_filtered", "std_dvars", "why"]
    assert table["outlier"] == other["outlier"]
    assert table["why"][N // 2] == "fd"
    filtered = [float(v) for v in table["fd_filtered"][1:]]
    assert_allclose(filtered, columns["framewise_displacement"][1:], atol=1e-10)
    assert table["fd_filtered"][0] == "n/a"
    facts = facts_of(tmp_path / "out")
    assert facts["MotionFilter"] == "notch"
    assert facts["MotionFilterBand"] == [12, 18]
    assert (facts["MotionFilterOrder"], facts["HeadRadius"]) == (4, 50)
    mean = facts["MeanFilteredFramewiseDisplacement"]
    assert_allclose(mean, np.mean(filtered), atol=1e-6)
    # What the group level reads is the displacement of the table, as ever.
    fd = [float(v) for v in table["fd"][1:]]
    assert_allclose(facts["MeanFramewiseDisplacement"], np.mean(fd), atol=1e-6)
    assert mean < 0.5 * np.mean(fd)
    run(capsys, breathes[0], tmp_path / "out", "group")
    (row,) = read_rows(tmp_path / "out" / "group_runs.tsv")
    assert float(row["fd_mean"]) == facts["MeanFramewiseDisplacement"]
    assert float(row["fd_filtered_mean"]) == mean
    told = json.loads((tmp_path / "out" / "group_runs.json").read_text())
    assert "--motion-filter" in told["fd_filtered_mean"]["Description"]
    loaded = load(tmp_path / "out").outliers()
    assert_allclose(loaded["fd_filtered"].to_numpy()[1:], filtered)


def test_breathing_censors_nothing_any_more(breathes, tmp_path, capsys):
    run(capsys, *breathes)
    assert facts_of(tmp_path / "out")["NumberOfVolumesKept"] < 0.5 * N
    shown = run(capsys, *breathes, *NOTCH, code=1)
    told = "--motion-filter is notch, the outputs were made with none"
    assert told in shown.err
    run(capsys, *breathes, *NOTCH, "--overwrite")
    assert 0.9 * N < facts_of(tmp_path / "out")["NumberOfVolumesKept"] < N


def test_without_a_filter_no_word_is_said_of_one(breathes, tmp_path, capsys):
    run(capsys, *breathes[:-1], 5)
    said = series(tmp_path / "out", "24P").with_suffix(".json").read_text()
    assert "otionFilter" not in said
    assert "motion_filter" not in said
    assert "HeadRadius" not in said
    run(capsys, breathes[0], tmp_path / "out", "group")
    for name in ("group_runs.tsv", "group_runs.json"):
        assert "filtered" not in (tmp_path / "out" / name).read_text()
    table = tmp_path / "out" / FUNC / f"{STEM}_desc-24P_outliers"
    assert "filtered" not in table.with_suffix(".tsv").read_text()
    assert "filtered" not in table.with_suffix(".json").read_text()


def test_strategies_of_two_filters_side_by_side(breathes, tmp_path, capsys):
    """With figures and the methods; the one without a filter is as it is alone."""
    common = [*breathes[:5], "--strategy"]
    run(capsys, *common, "24P", "--fd-threshold", 5)
    alone = series(tmp_path / "out", "24P").read_bytes()
    files = []
    for name, kind, band in (("notch", "notch", [12, 18]), ("low", "lp", [6])):
        settings = {"motion_filter": kind, "motion_filter_band": band}
        settings |= {"fd_threshold": 5}
        content = {"name": name, "components": [{"motion": "full"}]}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content | {"settings": settings}))
        files.append(path)
    out = [*common[:1], tmp_path / "all", *common[2:]]
    run(capsys, *out, "24P", *files, "--fd-threshold", 5, report=True)
    assert series(tmp_path / "all", "24P").read_bytes() == alone
    texts = [
        (tmp_path / "all" / FUNC / f"{STEM}_desc-{d}_outliers.tsv").read_text()
        for d in ("notch", "low")
    ]
    assert texts[0] != texts[1]
    figures = {
        path.name.partition("_desc-")[2].partition("Motion")[0]: path.read_text()
        for path in (tmp_path / "all").rglob("*Motion_outliers.svg")
    }
    assert "The same, filtered" not in figures["24P"]
    assert "The same, filtered" in figures["notch"]
    assert figures["notch"] != figures["low"]
    page = (tmp_path / "all" / "sub-01.html").read_text()
    assert "a notch of 12 to 18 per minute (Fair et al. 2020" in page
    assert "a low-pass at 6 per minute (Gratton et al. 2020" in page


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--motion-filter", "notch"], "takes 2 of motion_filter_band"),
        (["--motion-filter-band", 12, 18], "does nothing without motion_filter"),
        (["--motion-filter", "lp", "--motion-filter-band", 6, 9], "lp takes 1"),
        (["--head-radius", 35], "head_radius does nothing without"),
        ([*NOTCH, "--head-radius", "none"], "--head-radius is a number, not 'none'"),
        (["--motion-filter", "notch", "--motion-filter-band", "12,18"], "blanks"),
    ],
)
def test_words_that_do_not_go_together_are_refused(
    given, message, breathes, tmp_path, capsys
):
    assert message in run(capsys, *breathes, *given, code=64).err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--detrend"], True),
        (["--filter", "cosine", "--high-pass", 0.01], True),
        (["--strategy", "24P"], False),
        (["--detrend", "--fd-threshold", 0.15], False),
    ],
)
def test_a_filter_that_changes_no_number_is_told(
    asked, told, breathes, tmp_path, capsys
):
    shown = run(capsys, *breathes[:5], *asked, *NOTCH)
    assert ("the motion filter changes no number" in shown.err) == told


def spoil_columns(root):
    table = root / FUNC / TABLE
    table.write_text(table.read_text().replace("rot_z\t", "turn\t", 1))


def spoil_gap(root):
    table = root / FUNC / TABLE
    rows = table.read_text().splitlines()
    rows[8] = "n/a" + rows[8][rows[8].index("\t") :]
    table.write_text("\n".join(rows) + "\n")


def spoil_time(root):
    (root / FUNC / f"{STEM}_desc-preproc_bold.json").unlink()
    bold = root / FUNC / f"{STEM}_desc-preproc_bold.nii.gz"
    datasets.write_image(bold, datasets.bold(3, N), datasets.oblique())


def spoil_sampling(root):
    text = json.dumps({"RepetitionTime": 2.0})
    (root / FUNC / f"{STEM}_desc-preproc_bold.json").write_text(text)


BAD = {
    "columns": (
        spoil_columns,
        "the motion filter needs six parameters; missing: rot_z",
    ),
    "gap": (spoil_gap, "volumes (counted from 0) without: 7."),
    "time": (spoil_time, "the motion filter of 24P needs a repetition time"),
    "sampling": (spoil_sampling, "both ends of the motion filter's band appear at 12"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_run_that_it_cannot_be_used_on_fails_with_it_alone(
    name, breathes, tmp_path, capsys
):
    spoil, message = BAD[name]
    spoil(breathes[0])
    words = [*breathes[:5], "--strategy", "none", "24P", *NOTCH]
    shown = run(capsys, *words, code=1)
    assert message in shown.err
    assert "Traceback" not in shown.err
    status = {r.strategy: r.status for r in read_all_records(tmp_path / "out")}
    assert status == {"none": "done", "24P": "failed"}


def test_aliasing_is_told_on_screen_and_in_the_sidecar(breathes, tmp_path, capsys):
    text = json.dumps({"RepetitionTime": 3.0})
    (breathes[0] / FUNC / f"{STEM}_desc-preproc_bold.json").write_text(text)
    shown = run(capsys, *breathes[:-1], 5, *NOTCH)
    told = "12 to 18 breaths per minute are above the highest frequency of the run"
    assert told in shown.err
    facts = facts_of(tmp_path / "out")
    assert facts["MotionFilterBand"] == [8, 2]
    assert facts["DenoisingDefinition"]["settings"]["motion_filter_band"] == [12, 18]
    assert any(told in note for note in facts["Warnings"])


def test_none_on_the_command_line_switches_a_strategy_s_filter_off(
    breathes, tmp_path, capsys
):
    settings = {"motion_filter": "lp", "motion_filter_band": [6], "head_radius": 35}
    mine = tmp_path / "mine.json"
    content = {"name": "mine", "components": [{"motion": "full"}]}
    mine.write_text(json.dumps(content | {"settings": settings}))
    run(capsys, *breathes[:5], "--strategy", mine, "--motion-filter", "none")
    facts = json.loads(
        series(tmp_path / "out", "mine").with_suffix(".json").read_text()
    )
    assert "MotionFilter" not in facts


def test_python_takes_numbers(breathes, tmp_path, capsys):
    low = ["--motion-filter", "lp", "--motion-filter-band", 6, "--head-radius", 40]
    run(capsys, *breathes[:-1], 5, *low)
    atlas, table = breathes[4].split(",")
    for band in (6, (6,), [6.0], "6"):
        found = extract(
            breathes[0] / FUNC / f"{STEM}_desc-preproc_bold.nii.gz",
            atlas,
            atlas_table=table,
            strategy="24P",
            fd_threshold=5,
            motion_filter="lp",
            motion_filter_band=band,
            head_radius=40,
        )
        assert_allclose(
            found.signals.to_numpy(), read(series(tmp_path / "out", "24P"))[1]
        )


def test_a_real_table(shared, breathes, tmp_path, capsys):
    """Of fMRIPrep 23.2, with 38 outliers: its derivatives and squares are not used."""
    source = shared / "confounds" / REAL["23.2.0"]
    datasets.write_run(breathes[0], STEM, datasets.bold(3, 300))
    (breathes[0] / FUNC / f"{STEM}_desc-preproc_bold.json").write_text(
        json.dumps({"RepetitionTime": STEP})
    )
    target = breathes[0] / FUNC / TABLE
    shutil.copy(source, target)
    run(capsys, *breathes[:-1], 0.5, *NOTCH)
    found = read(series(tmp_path / "out", "24P"))[1]
    cells = read_regions(source)
    parameters = np.array([cells[name] for name in AXES], dtype=float).T
    dummies = {k: np.array(v, float) for k, v in cells.items() if "non_steady" in k}
    write_table(target, xcp_d(parameters), dummies)
    run(capsys, breathes[0], tmp_path / "theirs", *breathes[2:-1], 0.5)
    theirs = read(series(tmp_path / "theirs", "24P"))[1]
    assert_allclose(found, theirs, atol=1e-6 * np.nanmax(np.abs(theirs)))
    assert_array_equal(np.isnan(found), np.isnan(theirs))
