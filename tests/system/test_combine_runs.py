"""One matrix over the runs of a task: numbers, losses, going on, group, load()."""

import json
from importlib import resources

import numpy as np
import pytest
from bids import BIDSLayout
from numpy.testing import assert_allclose, assert_array_equal
from support import datasets, toy_confounds
from support.calls import read, read_relmat, run, sidecar
from support.datasets import NAMES, SPACE, snapshot
from support.group_trees import read_rows, read_square
from support.validator import issues_of

from bids_roi.api import extract
from bids_roi.errors import DataError, NothingFound, UsageError
from bids_roi.loading import load

T = toy_confounds.T
CLEAN = ["--strategy", "24P", "--fd-threshold", 0.5, "--dummy-scans", "auto"]
POOL = ["--relmat", "pearson", "--combine-runs"]
USED = [0, 1, 2, 3]


def add_run(root, number, *, n_volumes=T, seed=None, tr=2.0, task="rest", run="run"):
    """A run with confounds of its own."""
    seed = number if seed is None else seed
    toy_confounds.write_confounds(root, seed, n_volumes)
    name = f"sub-01_task-{task}_{run}-{number}"
    folder = root / "sub-01" / "func"
    stem = folder / "sub-01_task-rest_desc-confounds_timeseries"
    for suffix in (".tsv", ".json"):
        stem.with_suffix(suffix).rename(
            folder / f"{name}_desc-confounds_timeseries{suffix}"
        )
    values = datasets.bold(seed, n_volumes)
    return datasets.write_run(root, f"{name}_space-{SPACE}", values, tr=tr)


@pytest.fixture
def three(tmp_path):
    """Runs of 60, 50 and 60 volumes."""
    root = datasets.write_dataset(tmp_path / "in", [])
    (root / "sub-01" / "func").mkdir(parents=True)
    for number, n_volumes in ((1, T), (2, 50), (3, T)):
        add_run(root, number, n_volumes=n_volumes)
    return root


def pooled(out, desc="24P", stat="pearsoncorrelation", task="rest"):
    tail = f"_desc-{desc}" if desc else ""
    name = f"sub-01_task-{task}_space-{SPACE}_atlas-Toy_stat-{stat}{tail}_relmat.tsv"
    return out / "sub-01/func" / name


def of_run(out, number, suffix="timeseries", stat="mean", desc="24P"):
    tail = f"_desc-{desc}" if desc else ""
    name = f"sub-01_task-rest_run-{number}_space-{SPACE}_atlas-Toy_stat-{stat}{tail}"
    return out / "sub-01/func" / f"{name}_{suffix}.tsv"


def kept_of(out, number, n_volumes, desc="24P"):
    """Kept volumes of a series, by the table of outliers where all rows are there."""
    _, values = read(of_run(out, number, desc=desc))
    kept = np.ones(n_volumes, dtype=bool)
    kept[[0, *(v for v in toy_confounds.SPIKES if v < n_volumes)]] = False
    return values[kept] if len(values) == n_volumes else values


def by_hand(runs):
    """NumPy's correlation of the z-scores of all runs behind one another."""
    return np.corrcoef(
        np.concatenate([(r - r.mean(0)) / r.std(0, ddof=1) for r in runs]).T
    )


@pytest.mark.parametrize("censored", ["drop", "na", "interpolate"])
def test_it_is_numpys_of_the_joined_scores(three, atlas, tmp_path, capsys, censored):
    out = tmp_path / "out"
    more = [*CLEAN, "--censored", censored, *POOL, "partial"]
    more = [*CLEAN, "--censored", censored, "--relmat", "pearson", "partial"]
    run(capsys, three, out, "participant", "--atlas-file", atlas, *more)
    before = snapshot(out / "sub-01")
    run(capsys, three, out, "participant", "--atlas-file", atlas, *more, POOL[-1])
    after = snapshot(out / "sub-01")
    assert {k: after[k] for k in before} == before, "outputs of the runs stay"
    signals = [kept_of(out, n, t) for n, t in ((1, T), (2, 50), (3, T))]
    assert [len(s) for s in signals] == [T - 4, 50 - 4, T - 4]
    expected = by_hand([s[:, USED] for s in signals])
    found = read_relmat(pooled(out))
    assert_allclose(found[np.ix_(USED, USED)], expected, rtol=0, atol=1e-12)
    assert np.isnan(found[4]).all()
    told = sidecar(pooled(out))
    assert told["CombinedRuns"] == [f"sub-01_task-rest_run-{n}" for n in (1, 2, 3)]
    assert told["CombinedVolumes"] == [56, 46, 56]
    assert told["NumberOfVolumesKept"] == 158
    assert told["NumberOfVolumes"] == 170
    assert told["SecondsKept"] == 316
    runs = [sidecar(of_run(out, n)) for n in (1, 2, 3)]
    assert told["DegreesOfFreedom"] == sum(r["DegreesOfFreedom"] for r in runs)
    assert told["CombinedTables"] == [r["TableDigest"][7:] for r in runs]
    assert told["NumberOfRegionsLost"] == 1
    fd = [r["MeanFramewiseDisplacement"] for r in runs]
    assert told["MeanFramewiseDisplacement"] == pytest.approx(
        np.average(fd, weights=[T, 50, T]), abs=1e-6
    )
    assert told["DenoisingStrategy"] == "24P"
    assert told["RelationshipMeasure"] == "Pearson correlation coefficient"
    assert "RunsNotCombined" not in told
    for source in told["Sources"]:
        assert (out / source.removeprefix("bids::")).is_file()
    assert read_relmat(pooled(out, stat="partialcorrelation")).shape == (5, 5)


def test_raw_signals_and_fisher_z(three, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, *POOL, "--fisher-z"]
    told = run(capsys, three, out, "participant", *options)
    assert "were not cleaned" in told.err
    signals = [read(of_run(out, n, desc=""))[1][:, USED] for n in (1, 2, 3)]
    found = read_relmat(pooled(out, "", "pearsonfisherz"))[np.ix_(USED, USED)]
    off = ~np.eye(4, dtype=bool)
    assert_allclose(found[off], np.arctanh(by_hand(signals)[off]), rtol=1e-11)
    assert np.isnan(found[~off]).all()
    content = sidecar(pooled(out, "", "pearsonfisherz"))
    assert content["FisherZ"] is True
    assert content["DegreesOfFreedom"] == 60 + 50 + 60 - 3


def test_going_on_and_a_run_that_changes(three, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, *CLEAN, *POOL]
    run(capsys, three, out, "participant", *options)
    first, when = pooled(out).read_bytes(), pooled(out).stat().st_mtime_ns
    run(capsys, three, out, "participant", *options)
    assert pooled(out).stat().st_mtime_ns == when, "nothing to do"
    add_run(three, 2, n_volumes=50, seed=9)
    run(capsys, three, out, "participant", *options)
    signals = [kept_of(out, n, t)[:, USED] for n, t in ((1, T), (2, 50), (3, T))]
    found = read_relmat(pooled(out))[np.ix_(USED, USED)]
    assert_allclose(found, by_hand(signals), rtol=0, atol=1e-12)
    assert pooled(out).read_bytes() != first
    whole = pooled(out).read_bytes()
    pooled(out).write_bytes(first)  # damaged, or of another making
    run(capsys, three, out, "participant", *options)
    assert pooled(out).read_bytes() == whole
    # Runs that were made by calls of their own come together in the end.
    apart = tmp_path / "apart"
    for number in (3, 1, 2):
        run(capsys, three, apart, "participant", *options, "--run-label", number)
    assert pooled(apart).read_bytes() == whole
    workers = tmp_path / "workers"
    run(capsys, three, workers, "participant", *options, "--n-procs", 2)
    assert pooled(workers).read_bytes() == whole


def test_motion_of_a_table_that_was_mended_comes_in(three, atlas, tmp_path, capsys):
    """Of signals as they are, of which no number depends on it."""
    out, raw = tmp_path / "out", tmp_path / "raw"
    raw.mkdir()
    events = raw / "task-rest_events.tsv"
    events.write_text("onset\tduration\ttrial_type\n10\t60\tface\n")
    options = ["--atlas-file", atlas, *POOL]
    options += ["--conditions", "face", "--raw-dataset", raw]
    table = three / "sub-01/func/sub-01_task-rest_run-2_desc-confounds_timeseries.tsv"
    whole = table.read_text()
    table.write_text("\n".join(whole.split("\n")[:20]) + "\n")
    run(capsys, three, out, "participant", *options, code=None)
    face = of_run(out, 2, "relmat", "pearsoncorrelation", "Face")
    assert "MeanFramewiseDisplacement" not in sidecar(pooled(out, None))
    assert "MeanFramewiseDisplacement" not in sidecar(face)
    table.write_text(whole)
    run(capsys, three, out, "participant", *options)
    runs = [sidecar(of_run(out, n, desc=None)) for n in (1, 2, 3)]
    means = [told["MeanFramewiseDisplacement"] for told in runs]
    assert sidecar(face)["MeanFramewiseDisplacement"] == means[1]
    found = sidecar(pooled(out, None))["MeanFramewiseDisplacement"]
    assert_allclose(found, np.average(means, weights=[T, 50, T]), atol=1e-6)


def test_a_run_that_fails_is_named_everywhere(three, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    bold = of_run(three, 2).parent / f"sub-01_task-rest_run-2_space-{SPACE}"
    bold = bold.with_name(f"{bold.name}_desc-preproc_bold.nii.gz")
    bold.write_bytes(bold.read_bytes()[:900])
    options = ["--atlas-file", atlas, *CLEAN, *POOL]
    told = run(capsys, three, out, "participant", *options, code=1)
    signals = [kept_of(out, n, T)[:, USED] for n in (1, 3)]
    found = read_relmat(pooled(out))[np.ix_(USED, USED)]
    assert_allclose(found, by_hand(signals), rtol=0, atol=1e-12)
    content = sidecar(pooled(out))
    assert content["CombinedRuns"] == [f"sub-01_task-rest_run-{n}" for n in (1, 3)]
    (lost,) = content["RunsNotCombined"]
    assert lost.startswith("sub-01_task-rest_run-2: ")
    words = "holds 2 of 3 runs, without sub-01_task-rest_run-2"
    assert words in content["Warnings"][0]
    assert words in told.out + told.err
    run(capsys, "x", out, "group", "--group-unit", "combined")
    rows = read_rows(out / "group_runs.tsv")
    (row,) = [r for r in rows if r["source"] == str(pooled(out).relative_to(out))]
    assert row["status"] == "incomplete"
    assert "without sub-01_task-rest_run-2: " in row["reason"]
    # Once it is there, it is in.
    add_run(three, 2, n_volumes=50)
    run(capsys, three, out, "participant", *options)
    assert len(sidecar(pooled(out))["CombinedRuns"]) == 3
    assert "RunsNotCombined" not in sidecar(pooled(out))


def test_too_few_volumes_and_a_lost_region(three, atlas, tmp_path, capsys):
    add_run(three, 3, n_volumes=30)
    values = datasets.bold(2, 50)
    values[datasets.labels() == 3] = 0
    name = f"sub-01_task-rest_run-2_space-{SPACE}"
    datasets.write_run(three, name, values)
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, *CLEAN, *POOL, "--min-degrees-of-freedom", 15]
    run(capsys, three, out, "participant", *options)
    content = sidecar(pooled(out))
    assert content["CombinedVolumes"] == [56, 46]
    (lost,) = content["RunsNotCombined"]
    assert "run-3: " in lost
    assert "--min-degrees-of-freedom" in lost
    found = read_relmat(pooled(out))
    assert np.isnan(found[1]).all(), "lost in one run is lost in all"
    assert np.isfinite(found[0, 2])
    assert content["NumberOfRegionsLost"] == 2


def test_other_repetition_times_are_refused(three, atlas, tmp_path, capsys):
    add_run(three, 2, tr=2.5)
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, *CLEAN, *POOL]
    told = run(capsys, three, out, "participant", *options, code=1)
    for words in ("run-1 and", "run-2", "2 s and 2.5 s", "not combined"):
        assert words in told.err
    assert "not combined" in told.out + told.err
    assert not pooled(out).exists()
    assert of_run(out, 2, "relmat", "pearsoncorrelation").is_file()
    logs = "".join(p.read_text() for p in (out / "logs").rglob("*.jsonl"))
    assert "2 s and 2.5 s" in logs
    run(capsys, "x", out, "group")
    rows = read_rows(out / "group_runs.tsv")
    assert [r["status"] for r in rows].count("failed") == 1
    add_run(three, 2)
    run(capsys, three, out, "participant", *options)
    logs = "".join(p.read_text() for p in (out / "logs").rglob("*.jsonl"))
    assert "2.5 s" not in logs
    assert pooled(out).is_file()


def test_matrices_of_other_settings_are_left_alone(three, atlas, tmp_path, capsys):
    """A strategy that an earlier call made otherwise, and this one does not ask for."""
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, "--relmat", "partial"]
    other = [*CLEAN, "--partial-estimator", "pseudo_inverse"]
    run(capsys, three, out, "participant", *options, *other)
    run(capsys, three, out, "participant", *options, "--combine-runs")
    assert pooled(out, None, "partialcorrelation").is_file()
    assert not pooled(out, "24P", "partialcorrelation").exists()
    run(capsys, three, out, "participant", *options, *other, "--combine-runs")
    told = sidecar(pooled(out, "24P", "partialcorrelation"))
    assert told["PartialEstimator"] == "pseudo_inverse"


def test_other_settings_and_regions_are_refused(three, atlas, tmp_path, capsys):
    out, other = tmp_path / "out", tmp_path / "other"
    options = ["--atlas-file", atlas, *CLEAN, "--relmat", "pearson"]
    run(capsys, three, out, "participant", *options, "--run-label", 1, 3)
    changed = [*options, "--low-pass", 0.2, "--run-label", 2]
    run(capsys, three, other, "participant", *changed)
    for path in (other / "sub-01" / "func").iterdir():
        path.rename(out / "sub-01" / "func" / path.name)
    more = ["--combine-runs", "--run-label", 1]
    told = run(capsys, three, out, "participant", *options, *more, code=1)
    assert "run-1 and sub-01_task-rest_run-2 were made with other options" in told.err
    series = of_run(out, 2)
    content = sidecar(of_run(out, 1))
    for path in (series, of_run(out, 2, "relmat", "pearsoncorrelation")):
        mine = sidecar(path) | {
            k: content[k] for k in ("OptionsDigest", "SettingsDigest")
        }
        mine.pop("TableDigest")
        if path != series:
            own = sidecar(of_run(out, 1, "relmat", "pearsoncorrelation"))
            mine["OptionsDigest"] = own["OptionsDigest"]
        path.with_suffix(".json").write_text(json.dumps(mine))
    series.write_text(series.read_text().replace("Thalamus", "Pallidum", 1))
    told = run(capsys, three, out, "participant", *options, *more, code=1)
    assert "Pallidum, Thalamus" in told.err
    assert not pooled(out).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--relmat", "pearson", "spearman"], "cannot combine spearman: ranks"),
        (["--relmat", "covariance"], "cannot combine covariance: z-scores"),
        ([], "--combine-runs has no effect"),
    ],
)
def test_what_cannot_be_combined(three, atlas, tmp_path, capsys, options, words):
    given = ["--atlas-file", atlas, *options, "--combine-runs"]
    told = run(capsys, three, tmp_path / "out", "participant", *given, code=64)
    assert words in told.err


def test_a_run_without_a_number_is_not_overwritten(three, atlas, tmp_path, capsys):
    name = f"sub-01_task-rest_space-{SPACE}"
    datasets.write_run(three, name, datasets.bold(5, T))
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, *POOL]
    told = run(capsys, three, out, "participant", *options, code=1)
    assert "neither run- nor dir-" in told.err
    assert "CombinedRuns" not in sidecar(pooled(out, ""))


def test_directions_sessions_tasks_and_single_runs(tmp_path, atlas, capsys):
    names = [
        *("sub-01_ses-a_task-rest_dir-AP_run-1", "sub-01_ses-a_task-rest_dir-PA_run-1"),
        *("sub-01_ses-b_task-rest_run-1", "sub-01_ses-b_task-rest_run-2"),
        "sub-01_ses-b_task-nback_run-1",
        "sub-02_task-rest",
    ]
    root = datasets.write_dataset(tmp_path / "in", names)
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas, *POOL)
    found = {p.name for p in out.rglob("*_relmat.tsv")}
    tail = f"space-{SPACE}_atlas-Toy_stat-pearsoncorrelation_relmat.tsv"
    own = {f"{name}_{tail}" for name in names}
    assert found - own == {f"sub-01_ses-{s}_task-rest_{tail}" for s in "ab"}


@pytest.fixture
def group_of_two(tmp_path, atlas, capsys):
    """Two participants of two runs and one of one."""
    names = [f"sub-0{p}_task-rest_run-{n}" for p in (1, 2) for n in (1, 2)]
    root = datasets.write_dataset(tmp_path / "in", [*names, "sub-03_task-rest_run-1"])
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas, *POOL)
    return out


def group_mean(out):
    name = f"group_task-rest_space-{SPACE}_atlas-Toy_stat-pearsoncorrelation_relmat"
    told = json.loads((out / f"{name}.json").read_text())
    return read_square(out / f"{name}.tsv")[1][np.ix_(USED, USED)], told


def of(out, person, number=None):
    entity = "" if number is None else f"run-{number}_"
    name = f"sub-0{person}_task-rest_{entity}space-{SPACE}_atlas-Toy"
    path = out / f"sub-0{person}/func/{name}_stat-pearsoncorrelation_relmat.tsv"
    return read_relmat(path)[np.ix_(USED, USED)]


def mean_z(matrices):
    with np.errstate(divide="ignore"):
        mean = np.tanh(np.mean([np.arctanh(m) for m in matrices], axis=0))
    np.fill_diagonal(mean, 1)
    return mean


def test_the_group_never_takes_both(group_of_two, capsys):
    out = group_of_two
    run(capsys, "x", out, "group")
    people = [mean_z([of(out, p, 1), of(out, p, 2)]) for p in (1, 2)]
    mean, told = group_mean(out)
    assert_allclose(mean, mean_z([*people, of(out, 3, 1)]), rtol=1e-10)
    assert told["NumberOfRuns"] == 5
    rows = read_rows(out / "group_runs.tsv")
    assert {r["status"] for r in rows} == {"done"}
    assert len(rows) == 5
    shown = run(capsys, "x", out, "group", "--group-unit", "combined")
    assert "over participants" in shown.out
    mean, told = group_mean(out)
    assert_allclose(mean, mean_z([of(out, 1), of(out, 2), of(out, 3, 1)]), rtol=1e-10)
    assert told["NumberOfRuns"] == told["NumberOfParticipants"] == 3
    assert told["GroupUnit"] == "combined"
    rows = read_rows(out / "group_runs.tsv")
    assert {r["status"] for r in rows} == {"done"}
    assert len(rows) == 8
    import h5py

    (stack,) = out.glob("group_*_stack.h5")
    with h5py.File(stack) as file:
        names = [name.decode() for name in file["runs/name"]]
        values = file["relmat/pearsoncorrelation/data"][:]
        assert list(file) == ["regions", "relmat", "runs"]
        assert list(file["regions/index"]) == list(datasets.INDEX)
    ends = ["sub-01_task-rest", "sub-02_task-rest", "sub-03_task-rest_run-1"]
    assert names == ends
    assert values[0, 0] == of(out, 1)[0, 1]


def test_the_group_refuses_what_is_out_of_date(group_of_two, capsys):
    out = group_of_two
    name = f"sub-01_task-rest_run-2_space-{SPACE}"
    root = out.parent / "in"
    datasets.write_run(root, name, datasets.bold(77))
    (atlas,) = (out.parent).rglob("*_dseg.nii.gz")
    table = str(atlas).replace(".nii.gz", ".tsv")
    options = ["--atlas-file", f"{atlas},{table}", "--relmat", "pearson"]
    run(capsys, root, out, "participant", *options)
    shown = run(capsys, "x", out, "group", "--group-unit", "combined")
    assert "has been made again since" in shown.out
    assert group_mean(out)[1]["NumberOfParticipants"] == 2
    with pytest.raises(DataError, match="has been made again since"):
        load(out, combine_runs=True).relmats()
    datasets.write_run(root, f"sub-02_task-rest_run-3_space-{SPACE}", datasets.bold(7))
    run(capsys, root, out, "participant", *options, "--participant-label", "02")
    with pytest.raises(DataError, match=r"does not hold .*run-3"):
        load(out, combine_runs=True, participant_label="02").relmats()


def test_load_takes_the_one_or_the_others(group_of_two):
    out = group_of_two
    plain = load(out).matrices()
    assert len(plain.values) == 5
    assert set(plain.runs["run_id"]) == {"1", "2"}
    for found in (
        load(out, combine_runs=True).matrices(),
        load(out).matrices(combine_runs=True),
    ):
        assert list(found.runs["participant_id"]) == ["sub-01", "sub-02", "sub-03"]
        assert_array_equal(found.values[1][np.ix_(USED, USED)], of(out, 2))
        assert_array_equal(found.values[2][np.ix_(USED, USED)], of(out, 3, 1))
    assert len(load(out, participant_label="01").relmats(combine_runs=True)) == 5
    assert len(load(out).timeseries(run_label=1)) == 36
    (out / "sub-02/func").joinpath(
        f"sub-02_task-rest_space-{SPACE}_atlas-Toy_stat-pearsoncorrelation_relmat.tsv"
    ).unlink()
    with pytest.raises(NothingFound, match=r"no matrix over the runs of .*sub-02"):
        load(out, combine_runs=True)


def test_extract_combines_runs_in_memory(three, atlas, tmp_path, capsys):
    image, table = atlas.split(",")
    bolds = sorted((three / "sub-01" / "func").glob("*_bold.nii.gz"))
    given = {"atlas_table": table, "fd_threshold": 0.5, "dummy_scans": "auto"}
    found = extract(bolds, image, strategy="24P", **given)
    runs = [f.signals.to_numpy()[:, USED] for f in found.values()]
    assert [len(r) for r in runs] == [56, 46, 56]
    matrix = found.combine()
    assert list(matrix) == list(matrix.index) == list(NAMES)
    assert_allclose(matrix.to_numpy()[:4, :4], by_hand(runs), rtol=0, atol=1e-12)
    with_rows = extract(bolds, image, strategy="24P", censored="na", **given)
    assert_array_equal(with_rows.combine(), matrix)
    out = tmp_path / "out"
    options = ["--atlas-file", atlas, *CLEAN, "--combine-runs", "--relmat", "partial"]
    run(capsys, three, out, "participant", *options)
    partial = read_relmat(pooled(out, stat="partialcorrelation"))
    assert_allclose(found.combine("partial"), partial, rtol=0, atol=1e-12)
    filled = extract(bolds, image, strategy="24P", censored="interpolate", **given)
    with pytest.raises(UsageError, match="rows that were interpolated"):
        filled.combine()
    with pytest.raises(UsageError, match=r"pearson or partial, not spearman"):
        found.combine("spearman")
    with pytest.raises(UsageError, match=r"counterpart here is the method combine"):
        extract(bolds, image, relmat="pearson", combine_runs=True)
    other = extract(bolds, image, strategy=["24P", "simple"], **given)
    with pytest.raises(UsageError, match=r"one atlas and strategy"):
        other.combine()
    assert_array_equal(other.combine(strategy="24P"), matrix)
    add_run(three, 2, tr=2.5)
    with pytest.raises(UsageError, match="differ in SourceRepetitionTime"):
        extract(bolds, image, strategy="24P", **given).combine()


def test_the_page_tells_it_and_names_are_valid(three, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    run(
        capsys,
        *(three, out, "participant", "--atlas-file", atlas, *CLEAN, *POOL),
        report=True,
    )
    page = (out / "sub-01.html").read_text()
    assert "; 1 matrix over its runs" in page
    assert issues_of(out, "error", "warning") == []
    ours = resources.files("bids_roi") / "data" / "pybids_config.json"
    layout = BIDSLayout(out, validate=False, config=["bids", "derivatives", str(ours)])
    there = layout.get(suffix="relmat", extension=".tsv")
    runs = [file.get_entities().get("run") for file in there]
    assert sorted(runs, key=str) == [1, 2, 3, None]


def test_two_runs_of_the_demo(demo, tmp_path, capsys):
    out = tmp_path / "out"
    where = ["--atlas-file", f"{demo.atlas_image},{demo.atlas_table}"]
    where += ["--participant-label", "01", "--session-label", "1"]
    options = [*where, "--strategy", "36P", "--high-pass", 0.01, "--low-pass", 0.1]
    space = ["--space", SPACE, "--res", "2", "--fd-threshold", 0.4]
    run(capsys, demo.derivative, out, "participant", *options, *space, *POOL)
    (path,) = [p for p in out.rglob("*_relmat.tsv") if "_run-" not in p.name]
    runs = [read(p)[1] for p in sorted(out.rglob("*_timeseries.tsv"))]
    assert len(runs) == 2
    whole = ~np.isnan(np.concatenate(runs)).any(axis=0)
    found = read_square(path)[1]
    expected = by_hand([values[:, whole] for values in runs])
    assert_allclose(found[np.ix_(whole, whole)], expected, rtol=0, atol=1e-12)
    assert np.isnan(found[~whole]).all()
    assert sidecar(path)["CombinedVolumes"] == [len(values) for values in runs]
