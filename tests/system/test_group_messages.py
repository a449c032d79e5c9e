"""The group level on partial, failed, mixed and damaged outputs: what it says."""

import json
import shutil

import numpy as np
import pytest
from support import datasets
from support.calls import run
from support.datasets import snapshot
from support.group_trees import NAMES, SPACE, Tree, correlation, read_rows, read_square
from support.toy_confounds import T
from support.validator import issues_of

from bids_roi.errors import DataError
from bids_roi.group import level
from bids_roi.loading import load
from bids_roi.outputs.records import NO_ATLAS, Record, write_records

RELMAT = f"task-rest_space-{SPACE}_atlas-Toy_stat-pearsoncorrelation"


@pytest.fixture
def tree(tmp_path):
    """Five participants with one run each, cleaned."""
    rng, tree = np.random.default_rng(0), Tree(tmp_path / "out")
    for person in range(1, 6):
        name = f"sub-0{person}_task-rest"
        tree.run(name, correlation(rng), fd=0.1 * person, desc="36P")
    return tree


def matrix_of(tree, person, desc="36P"):
    folder = tree.root / f"sub-0{person}/func"
    return folder / f"sub-0{person}_{RELMAT}_desc-{desc}_relmat.tsv"


def statuses(tree):
    rows = read_rows(tree.root / "group_runs.tsv")
    return {
        row["participant_id"]: (row["status"], row["reason"])
        for row in rows
        if row["status"] != "done"
    }


def n_runs(tree):
    (row,) = read_rows(tree.root / "group_qcfc.tsv")
    return int(row["n_runs"])


def edit(path, change):
    path.write_text(change(path.read_text()))


def edit_json(path, **more):
    path = path.with_suffix(".json")
    content = json.loads(path.read_text()) | more
    content = {key: value for key, value in content.items() if value != "gone"}
    path.write_text(json.dumps(content))


def cut(text):
    return text[: len(text) // 2]


def drop_row(text):
    return text.rpartition("\n")[0].rpartition("\n")[0] + "\n"


def set_cell(text, row, column, value):
    lines = [line.split("\t") for line in text.split("\n")]
    lines[row][column] = value
    return "\n".join("\t".join(line) for line in lines)


DAMAGED = {
    "cut": (cut, "not"),
    "row lost": (drop_row, "not named as the columns"),
    "empty": (lambda _: "", "empty"),
    "word": (lambda t: set_cell(t, 2, 3, "abc"), "numbers"),
    "comma": (lambda t: set_cell(t, 2, 3, "0,5"), ""),
    "beyond one": (lambda t: set_cell(set_cell(t, 2, 3, "1.7"), 3, 2, "1.7"), "1.7"),
    "one side": (lambda t: set_cell(t, 2, 3, "0.123"), "both sides of the diagonal"),
    "diagonal": (lambda t: set_cell(t, 2, 2, "0.5"), "1 on the diagonal"),
    "renamed": (lambda t: t.replace("Mot 1", "Mot I"), "not those of the atlas"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_matrix_is_left_out_and_named(tree, capsys, damage):
    change, said = DAMAGED[damage]
    path = matrix_of(tree, 3)
    edit(path, change)
    shown = run(capsys, "x", tree.root, "group")
    ((person, (status, reason)),) = statuses(tree).items()
    assert (person, status) == ("sub-03", "unreadable")
    assert path.name in reason
    assert said in reason
    assert "--overwrite" in reason
    assert "1 unreadable" in shown.out
    assert path.name in shown.out
    assert n_runs(tree) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"OptionsDigest": "gone"}, "OptionsDigest is missing"),
        ({"MeanFramewiseDisplacement": "0.2 mm"}, "where a number is needed"),
        ({"MeanFramewiseDisplacement": True}, "where a number is needed"),
        ({"FisherZ": True}, "says that it holds Fisher's z"),
    ],
)
def test_edited_sidecar_is_named(tree, capsys, change, said):
    edit_json(matrix_of(tree, 3), **change)
    run(capsys, "x", tree.root, "group")
    status, reason = statuses(tree)["sub-03"]
    assert status == "unreadable"
    assert said in reason
    assert n_runs(tree) == 4


@pytest.mark.parametrize("content", ["", "{", "[1]", None])
def test_damaged_or_missing_sidecar_is_named(tree, capsys, content):
    path = matrix_of(tree, 3).with_suffix(".json")
    path.unlink() if content is None else path.write_text(content)
    run(capsys, "x", tree.root, "group")
    status, reason = statuses(tree)["sub-03"]
    assert status == "unreadable"
    assert path.name in reason
    assert n_runs(tree) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (cut, ""),
        (drop_row, "5 where those have 6"),
        (lambda t: t + set_cell(t.splitlines()[-1], 0, 1, "More") + "\n", "7 where"),
        (lambda t: t.replace("Mot 2", "Mot II"), "row 4 is 'Mot II', there 'Mot 2'"),
        (lambda t: t.replace("\tcoverage", "\tcovrage"), "coverage are missing"),
        (lambda t: t.replace("\t50.0", "\tfifty"), "tsnr holds something"),
        (lambda t: t.replace("\t1.0\t", "\t7.0\t"), "0 to 1"),
    ],
)
def test_damaged_region_table_is_left_out_and_named(tree, capsys, change, said):
    (path,) = tree.root.glob("sub-02/func/*_dseg.tsv")
    edit(path, change)
    run(capsys, "x", tree.root, "group")
    status, reason = statuses(tree)["sub-02"]
    assert status == "unreadable"
    assert path.name in reason
    assert said in reason
    (coverage,) = tree.root.glob("group_*_coverage.tsv")
    assert [row["participant_id"][-1] for row in read_rows(coverage)] == list("1345")
    assert n_runs(tree) == 5, "its matrix is still good"


@pytest.mark.parametrize("unit", ["participant", "combined"])
def test_a_sidecar_that_goes_meanwhile_costs_its_run_only(
    tree, capsys, monkeypatch, unit
):
    """Which series a matrix is of is read where the motion of volumes is asked for."""
    path = matrix_of(tree, 3).with_suffix(".json")
    remove = level.remove_leftovers

    def lose(folder):
        path.unlink(missing_ok=True)
        remove(folder)

    monkeypatch.setattr(level, "remove_leftovers", lose)
    asked = ("--fd-measure", "fd", "--group-unit", unit, "--executor", "serial")
    shown = run(capsys, "x", tree.root, "group", *asked)
    ((person, (status, reason)),) = statuses(tree).items()
    assert (person, status) == ("sub-03", "unreadable")
    assert f"{path.name}: the file cannot be read" in reason
    assert "1 unreadable" in shown.out
    assert n_runs(tree) == 4


def test_nothing_left_ends_with_the_reasons(tree, capsys):
    for path in tree.root.rglob("*.json"):
        path.write_text("{")
    before = snapshot(tree.root)
    shown = run(capsys, "x", tree.root, "group", code=65)
    assert "none of the 15 outputs can be used" in shown.err
    assert "not JSON" in shown.err
    assert snapshot(tree.root) == before


def test_a_measure_that_is_no_choice_is_summed_up_like_others(tree, capsys):
    """Of another release, or made with another program and put there."""
    rng = np.random.default_rng(4)
    for person in range(1, 6):
        name = f"sub-0{person}_task-rest"
        tree.relmat(name, correlation(rng), stat="kendallcorrelation")
    shown = run(capsys, "x", tree.root, "group")
    assert "atlas Toy, kendall, raw signals: 5 participants" in shown.out
    rows = read_rows(tree.root / "group_qcfc.tsv")
    assert {row["stat_id"] for row in rows} == {
        *("kendallcorrelation", "pearsoncorrelation")
    }


def test_empty_folder(tmp_path, capsys):
    shown = run(capsys, "x", tmp_path, "group", code=66)
    assert "participant level first" in shown.err
    assert list(tmp_path.iterdir()) == []


def test_only_failed_runs(tmp_path, capsys):
    source = f"sub-01/func/sub-01_task-rest_space-{SPACE}_desc-preproc_bold.nii.gz"
    write_records(
        tmp_path, source, [Record(source, "Toy", "failed", "the file has 0 bytes.")]
    )
    shown = run(capsys, "x", tmp_path, "group")
    assert "1 failed" in shown.out
    assert "0 bytes" in shown.out
    assert "no run has outputs" in shown.out
    (row,) = read_rows(tmp_path / "group_runs.tsv")
    assert (row["participant_id"], row["status"]) == ("sub-01", "failed")
    assert row["n_regions"] == "n/a"


def record(tree, person, status="done", reason=""):
    source = tree.source(f"sub-0{person}_task-rest")
    write_records(tree.root, source, [Record(source, "Toy", status, reason)])


def test_records_and_damaged_files_are_one_row(tree, capsys):
    for person in range(1, 6):
        record(tree, person)
    for path in tree.root.glob("sub-02/func/*.json"):
        path.write_text("{")
    shutil.rmtree(tree.root / "sub-04")
    run(capsys, "x", tree.root, "group")
    rows = read_rows(tree.root / "group_runs.tsv")
    told = [(r["participant_id"], r["status"]) for r in rows]
    assert told == [
        ("sub-01", "done"),
        ("sub-02", "unreadable"),
        ("sub-03", "done"),
        ("sub-04", "absent"),
        ("sub-05", "done"),
    ]
    assert "not here any more" in rows[3]["reason"]
    assert [r["source"] for r in rows] == [
        tree.source(f"sub-0{person}_task-rest") for person in range(1, 6)
    ]


def test_absent_and_incomplete_runs_are_listed(tree, capsys):
    rng = np.random.default_rng(1)
    for person in (1, 2, 3):
        name = f"sub-0{person}_task-rest"
        tree.series(name, desc="24P")
        tree.relmat(name, correlation(rng), desc="24P")
    matrix_of(tree, 2, "24P").unlink()
    matrix_of(tree, 2, "24P").with_suffix(".json").unlink()
    (table,) = tree.root.glob("sub-05/func/*_dseg.tsv")
    table.unlink()
    table.with_suffix(".json").unlink()
    shown = run(capsys, "x", tree.root, "group")
    rows = {
        (row["participant_id"], row["desc_id"]): (row["status"], row["reason"])
        for row in read_rows(tree.root / "group_runs.tsv")
    }
    assert len(rows) == 10
    assert rows["sub-01", "24P"] == ("done", "n/a")
    status, reason = rows["sub-02", "24P"]
    assert status == "incomplete"
    assert reason == "no matrix stat-pearsoncorrelation, which 2 other runs have."
    status, reason = rows["sub-04", "24P"]
    assert status == "absent"
    assert "no series stat-mean, which 3 other runs have" in reason
    assert rows["sub-05", "36P"][0] == "incomplete"
    assert "region table" in rows["sub-05", "36P"][1]
    assert "absent" in shown.out
    assert "incomplete" in shown.out


def test_absent_atlas_is_listed(tree, capsys):
    for path in list(tree.root.glob("sub-0[1-3]/func/*")):
        other = path.with_name(path.name.replace("atlas-Toy", "atlas-Other"))
        shutil.copy(path, other)
        if other.suffix == ".json":
            edit(
                other, lambda t: t.replace('"Toy"', '"Other"').replace("-Toy", "-Other")
            )
    run(capsys, "x", tree.root, "group")
    rows = read_rows(tree.root / "group_runs.tsv")
    absent = [r for r in rows if r["status"] == "absent"]
    assert [(r["participant_id"], r["atlas_id"]) for r in absent] == [
        ("sub-04", "Other"),
        ("sub-05", "Other"),
    ]
    assert len(rows) == 10


@pytest.mark.parametrize("kind", ["dseg", "timeseries", "relmat"])
def test_mixed_digests_are_refused_with_an_example_of_each(tree, capsys, kind):
    for person in (4, 5):
        (path,) = tree.root.glob(f"sub-0{person}/func/*_{kind}.tsv")
        edit_json(path, OptionsDigest="eeeeeeeeeeee")
    before = snapshot(tree.root)
    shown = run(capsys, "x", tree.root, "group", code=65)
    assert "d0d0d0d0d0d0: 3 outputs, for example sub-01/func/" in shown.err
    assert "eeeeeeeeeeee: 2 outputs, for example sub-04/func/" in shown.err
    assert "--overwrite" in shown.err
    assert snapshot(tree.root) == before


def test_strategies_and_tasks_may_differ_in_digest(tree, capsys):
    rng = np.random.default_rng(1)
    for person in (1, 2):
        name = f"sub-0{person}_task-rest"
        tree.relmat(name, correlation(rng), desc="24P", OptionsDigest="eeeeeeeeeeee")
        tree.relmat(
            name.replace("rest", "nback"),
            correlation(rng),
            desc="36P",
            OptionsDigest="ffffffffffff",
        )
    shown = run(capsys, "x", tree.root, "group")
    # A stack is over all tasks; those of the other strategies are not concerned.
    assert "a stack is left out: relmat/pearsoncorrelation" in shown.out
    stacks = [path.name for path in tree.root.glob("*_stack.h5")]
    assert stacks == [f"group_space-{SPACE}_atlas-Toy_desc-24P_stack.h5"]
    rows = read_rows(tree.root / "group_runs.tsv")
    assert {row["options_digest"] for row in rows} >= {"eeeeeeeeeeee", "d0d0d0d0d0d0"}


def test_a_participants_own_segmentation_differs_in_digest_and_is_no_mixture(
    tree, capsys
):
    """The digest holds the atlas image's, which no two participants share."""

    def own(person, **more):
        for path in tree.root.glob(f"sub-0{person}/func/*.tsv"):
            content = json.loads(path.with_suffix(".json").read_text())
            sources = content["Sources"]
            if not path.name.endswith("relmat.tsv"):
                sources = [
                    *sources,
                    f"bids:preprocessed:sub-0{person}/func/x_dseg.nii.gz",
                ]
            edit_json(path, OptionsDigest=f"{person:012d}", Sources=sources, **more)

    for person in range(1, 6):
        own(person)
    run(capsys, "x", tree.root, "group")
    assert n_runs(tree) == 5
    own(5, SettingsDigest="eeeeeeeeeeee")
    shown = run(capsys, "x", tree.root, "group", code=65)
    assert "5e5e5e5e5e5e: 4 outputs, for example sub-01" in shown.err
    assert "eeeeeeeeeeee: 1 outputs, for example sub-05" in shown.err


def test_failed_again_with_outputs_of_an_earlier_call(tree, capsys):
    source = tree.source("sub-03_task-rest")
    write_records(tree.root, source, [Record(source, "Toy", "failed", "disk full.")])
    run(capsys, "x", tree.root, "group")
    status, reason = statuses(tree)["sub-03"]
    assert status == "failed"
    assert reason == "disk full. Outputs of an earlier call are there and are used."
    assert n_runs(tree) == 5


def test_a_run_that_failed_as_a_whole_is_no_done_one(tree, capsys):
    source = tree.source("sub-03_task-rest")
    made = Record(source, "Toy", "done", strategy="36P")
    write_records(tree.root, source, [made])
    write_records(tree.root, source, [Record(source, NO_ATLAS, "failed", "cut short.")])
    run(capsys, "x", tree.root, "group")
    status, reason = statuses(tree)["sub-03"]
    assert status == "failed"
    assert reason == "cut short. Outputs of an earlier call are there and are used."
    rows = read_rows(tree.root / "group_runs.tsv")
    assert [row["atlas_id"] for row in rows] == ["Toy"] * 5


@pytest.mark.parametrize("left_behind", ["not asked for", "failed"])
def test_what_was_made_of_the_input_before_is_left_out(
    cleaned_input, atlas, tmp_path, capsys, left_behind
):
    root, _, bold = cleaned_input
    out, stem = tmp_path / "out", f"sub-01_task-rest_space-{SPACE}"
    asked = [root, out, "participant", "--atlas-file", atlas, "--relmat", "pearson"]
    run(capsys, *asked, "--denoise", "none", "24P", "36P")
    desc = "" if left_behind == "not asked for" else "24P"
    (old,) = out.glob(f"sub-01/func/*stat-mean{'_desc-24P' if desc else ''}_times*.tsv")
    before = old.read_bytes()
    datasets.write_run(root, stem, datasets.bold(9, T))
    if desc:
        confounds = next(bold.parent.glob("*timeseries.tsv"))
        whole = confounds.read_text()
        confounds.write_text(whole.replace("trans_x_derivative1_power2", "gone", 1))
        run(capsys, *asked, "--denoise", "none", "24P", code=1)
    else:
        run(capsys, *asked, "--denoise", "24P", "36P")
    assert old.read_bytes() == before
    told = run(capsys, "x", out, "group", "--stack", "timeseries")
    rows = {r["desc_id"]: r for r in read_rows(out / "group_runs.tsv")}
    if desc:
        assert rows["24P"]["status"] == "failed"
        assert "are used" not in rows["24P"]["reason"]
        assert rows["36P"]["status"] == "unreadable"  # nor was it asked for
        assert rows["n/a"]["status"] == "done"
    else:
        assert rows["n/a"]["status"] == "unreadable"
        assert "made of another input" in rows["n/a"]["reason"]
        assert "the participant level again" in rows["n/a"]["reason"]
        assert rows["24P"]["status"] == rows["36P"]["status"] == "done"
        assert "1 unreadable" in told.out + told.err
    good = {"n/a"} if desc else {"24P", "36P"}
    assert {r["desc_id"] for r in read_rows(out / "group_qcfc.tsv")} == good
    for strategy in ("none", "24P", "36P"):
        for read_all in (load(out).timeseries, load(out).relmats):
            if strategy.replace("none", "n/a") in good:
                assert len(read_all(strategy=strategy))
                continue
            with pytest.raises(DataError, match="made of another input"):
                read_all(strategy=strategy)
    if desc:
        confounds.write_text(whole)
    run(capsys, *asked, "--denoise", "none", "24P", "36P")
    run(capsys, "x", out, "group")
    assert {r["status"] for r in read_rows(out / "group_runs.tsv")} == {"done"}


def test_regions_called_like_the_columns(tmp_path, capsys):
    names = (
        "participant_id",
        "Node",
        "task_id",
        "participant_id_region",
        "Δ",
        "desc_id",
    )
    rng, tree = np.random.default_rng(0), Tree(tmp_path, names=names)
    for person in range(1, 5):
        tree.regions(f"sub-ä{person}_task-rest", coverage=[0.9, 0.8, 0.7, 0.6, 0.5, 1])
        tree.relmat(f"sub-ä{person}_task-rest", correlation(rng))
    run(capsys, "x", tmp_path, "group")
    (path,) = tmp_path.glob("group_*_coverage.tsv")
    row = read_rows(path)[0]
    assert row["participant_id"] == "sub-ä1"
    keys = ("participant_id_region_region", "Node", "task_id_region", "Δ")
    assert [row[key] for key in keys] == ["0.9", "0.8", "0.7", "0.5"]
    (path,) = tmp_path.glob("group_*_relmat.tsv")
    found, matrix = read_square(path)
    assert tuple(found) == names
    assert path.read_text(encoding="utf-8").startswith("Node_\t")
    assert np.isfinite(matrix).all()


def test_every_table_describes_its_columns(tree, capsys):
    run(capsys, "x", tree.root, "group")
    tables = sorted(tree.root.glob("group_*.tsv"))
    assert len(tables) > 8
    for table in tables:
        sidecar = json.loads(table.with_suffix(".json").read_text())
        assert sidecar["Description"]
        header = table.read_text(encoding="utf-8").partition("\n")[0].split("\t")
        assert len(set(header)) == len(header)
        undescribed = [c for c in header if c not in sidecar and c not in NAMES]
        assert undescribed == [], table.name


def test_validator_finds_nothing_to_say(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    common = ["--atlas-file", atlas, "--relmat", "pearson", "covariance"]
    run(capsys, dataset, out, "participant", *common)
    run(capsys, dataset, out, "group")
    assert list(out.glob("group_*_relmat.tsv"))
    assert issues_of(out, "error", "warning") == []


@pytest.mark.parametrize("copy", ["sub-03_old", "sub-03/ses-old"])
def test_outputs_that_are_there_twice_are_not_averaged_twice(tree, capsys, copy):
    """A copy that was kept beside them would weigh as much as a run."""
    folder = tree.root / copy
    if "/" in copy:
        shutil.copytree(tree.root / "sub-03" / "func", folder / "func")
    else:
        shutil.copytree(tree.root / "sub-03", folder)
    shown = run(capsys, tree.root, tree.root, "group")
    assert n_runs(tree) == 4
    status, reason = statuses(tree)["sub-03"]
    assert status == "unreadable"
    for text in (reason, shown.out):
        assert "it is there twice" in text
        assert f"{copy}/func/" in text
        assert "Keep one of them" in text
    shutil.rmtree(folder)
    run(capsys, tree.root, tree.root, "group")
    assert n_runs(tree) == 5
    assert statuses(tree) == {}
