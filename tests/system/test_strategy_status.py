"""One status per run x strategy: an impossible one costs its own outputs only.

The oracle is a call without the impossible strategy: what it writes of the others must
be there with the very same bytes.
"""

import json

import pytest
from support import datasets
from support.calls import FUNC, STEM, run
from support.datasets import SPACE, snapshot
from support.group_trees import read_rows
from support.pictures import Page, check_page
from support.toy_confounds import T, write_confounds
from support.validator import issues_of

from bids_roi.api import extract
from bids_roi.errors import ConfoundsError
from bids_roi.outputs.records import (
    NO_ATLAS,
    RAW,
    Record,
    read_all_records,
    read_records,
    tell_failures,
    write_records,
)

RUN = f"{FUNC}/{STEM}_desc-preproc_bold.nii.gz"


def write_strategy(folder, name, *components, **settings):
    path = folder / f"{name}.json"
    content = {"name": name, "components": list(components), "settings": settings}
    path.write_text(json.dumps(content))
    return path


def spoil_rows(root):
    write_confounds(root, n_volumes=T + 1)


def spoil_time(root):
    for sidecar in root.glob("sub-*/func/*_bold.json"):
        sidecar.unlink()
    for path in root.glob("sub-*/func/*preproc_bold.nii.gz"):
        datasets.write_image(path, datasets.bold(3, T), datasets.oblique())


def spoil_nothing(root):
    pass


def spoil_table(root):
    for path in root.glob("sub-01/func/*confounds*.tsv"):
        path.write_text(path.read_text().replace("csf\t", "white_matter\t", 1))


def remove_table(root):
    for path in root.glob("sub-01/func/*confounds*"):
        path.unlink()


def gap(root):
    for path in root.glob("sub-01/func/*confounds*.tsv"):
        rows = path.read_text().splitlines()
        cells = rows[31].split("\t")
        cells[rows[0].split("\t").index("csf")] = "n/a"
        path.write_text("\n".join([*rows[:31], "\t".join(cells), *rows[32:]]) + "\n")


# What spoils the run, the components and settings of the strategy, words of the reason.
IMPOSSIBLE = {
    "columns": (spoil_nothing, [{"compcor": "anat_separated"}], {}, "comp_cor"),
    "rows": (spoil_rows, [{"motion": "full"}], {}, "61 rows, the BOLD series 60 vol"),
    "table": (spoil_table, [{"motion": "full"}], {}, "occur more than once"),
    "no table": (remove_table, [{"motion": "full"}], {}, "no table of confounds"),
    "gap": (gap, [{"csf": "basic"}], {}, "csf in volumes 30"),
    "volumes": (
        spoil_nothing,
        [],
        {"fd_threshold": 0.01, "dummy_scans": "auto"},
        "0 of 60 volumes are kept",
    ),
    "dummies": (spoil_nothing, [], {"dummy_scans": 60}, "0 of 60 volumes are kept"),
    "freedom": (
        spoil_nothing,
        [{"motion": "full"}, {"wm_csf": "full"}],
        {"dummy_scans": 30, "detrend": True},
        "30 volumes are kept, but 32 regressors",
    ),
    "no time": (spoil_time, [], {"high_pass": 0.01}, "repetition time"),
    "series": (spoil_nothing, [{"ica_aroma": "full"}], {}, "smoothAROMAnonaggr"),
}


def outputs(out):
    """Bytes of the tables and sidecars of all runs."""
    return {name: b for name, b in snapshot(out).items() if "/func/sub-" in name}


def statuses(out):
    return {r.strategy: r.status for r in read_all_records(out)}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_strategy_costs_its_own_outputs_only(
    name, cleaned_input, atlas, tmp_path, capsys
):
    root, _, _ = cleaned_input
    spoil, components, settings, reason = IMPOSSIBLE[name]
    spoil(root)
    bad = write_strategy(tmp_path, "bad", *components, **settings)
    plain = write_strategy(tmp_path, "plain", detrend=True)
    common = ["participant", "--atlas-file", atlas, "--relmat", "pearson", "--denoise"]
    calm, out = tmp_path / "calm", tmp_path / "out"
    run(capsys, root, calm, *common, "none", plain)
    shown = run(capsys, root, out, *common, bad, "none", plain, code=1)
    assert outputs(out) == outputs(calm)
    assert len(outputs(out)) == 12  # regions, outliers, two of series and matrix
    assert statuses(out) == {"bad": "failed", RAW: "done", "plain": "done"}
    assert reason in shown.err
    assert shown.err.count("strategy bad: ") == 1
    assert "Traceback" not in shown.err
    assert "1  extracted" in shown.out
    assert "1  strategy failed in a run" in shown.out
    assert reason in shown.out
    before = files_with_times(out, "/func/")
    again = run(capsys, root, out, *common, bad, "none", plain, code=1)
    assert reason in again.err  # tried again
    assert "1  already there" in again.out
    assert files_with_times(out, "/func/") == before
    run(capsys, root, out, "group")
    rows = {row["desc_id"]: row for row in read_rows(out / "group_runs.tsv")}
    told = {desc: row["status"] for desc, row in rows.items()}
    assert told == {"n/a": "done", "plain": "done", "bad": "failed"}
    assert reason in rows["bad"]["reason"]
    assert rows["bad"]["n_volumes"] == "60"


def files_with_times(out, inside):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in out.rglob("*")
        if path.is_file() and inside in str(path)
    }


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_nothing_is_written_where_no_strategy_is_possible(
    name, cleaned_input, atlas, tmp_path, capsys
):
    root, _, _ = cleaned_input
    spoil, components, settings, reason = IMPOSSIBLE[name]
    spoil(root)
    bad = write_strategy(tmp_path, "bad", *components, **settings)
    worse = write_strategy(tmp_path, "worse", {"columns": ["nowhere"]})
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    shown = run(capsys, *common, "--denoise", bad, worse, code=1)
    assert outputs(tmp_path / "out") == {}
    assert statuses(tmp_path / "out") == {"bad": "failed", "worse": "failed"}
    assert reason in shown.err
    assert "1  failed" in shown.out
    assert "x strategies failed" not in shown.out


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_of_two_runs_and_atlases_with_figures(executor, tmp_path, capsys):
    """Which run, which strategy and why: on the page, in the records, in the group."""
    root = datasets.write_dataset(tmp_path / "in", [])
    for person in ("01", "02"):
        name = f"sub-{person}_task-rest_space-{SPACE}"
        datasets.write_run(root, name, datasets.bold(int(person), T))
    write_confounds(root)  # of the first only
    first = datasets.write_atlas(tmp_path / "a")
    second = datasets.write_atlas(tmp_path / "b", f"tpl-{SPACE}_atlas-Two_dseg.nii.gz")
    command = [root, tmp_path / "out", "participant", "--atlas-file", first, second]
    command += ["--denoise", "none", "24P", "acompcor", "--executor", executor]
    command += ["--n-procs", 2]
    done = run(capsys, *command, code=1, report=True)
    out = tmp_path / "out"
    assert done.err.count("no table of confounds, which 24P needs") == 1
    assert done.err.count("strategy acompcor: ") == 2
    assert "3  strategies failed in a run" in done.out
    found = {(r.run[:6], r.atlas, r.strategy): r.status for r in read_all_records(out)}
    assert len(found) == 2 * 2 * 3
    for (person, _, strategy), status in found.items():
        failed = strategy == "acompcor" or (person, strategy) == ("sub-02", "24P")
        assert status == ("failed" if failed else "done")
    for person, n_bad in (("01", 1), ("02", 2)):
        page = Page(out / f"sub-{person}.html")
        check_page(page)
        assert "failed 1 run" in page.words
        cells = (out / f"sub-{person}.html").read_text().split("<td>")
        told = [c for c in cells if c.startswith('<span class="light failed">')]
        assert len(told) == 2 * n_bad  # rows of the summary
        assert "strategy acompcor: " in page.words
        assert ("strategy 24P: " in page.words) == (person == "02")
        drawn = {p["src"].rpartition("/")[2].split("_")[-2] for p in page.all("img")}
        assert {"desc-carpet", "desc-coverage"} <= drawn
        assert ("desc-24PCarpet" in drawn) == (person == "01")
    before = files_with_times(out, "/func/") | files_with_times(out, "/figures/")
    again = run(capsys, *command, code=1, report=True)
    assert "already there" in again.out
    assert "extracted" not in again.out
    now = files_with_times(out, "/func/") | files_with_times(out, "/figures/")
    assert now == before
    assert issues_of(out, "error", "warning") == []


def test_the_next_call_makes_what_is_missing_and_nothing_else(
    cleaned_input, atlas, tmp_path, capsys
):
    root, _, _ = cleaned_input
    bad = write_strategy(tmp_path, "bad", {"motion": "full"}, dummy_scans=50)
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    common += ["--denoise", "none", "24P", bad]
    run(capsys, *common, code=1)
    before = files_with_times(tmp_path / "out", "/func/")
    write_strategy(tmp_path, "bad", {"motion": "full"}, dummy_scans=5)
    shown = run(capsys, *common)
    assert "1  extracted" in shown.out
    after = files_with_times(tmp_path / "out", "/func/")
    assert {path: after[path] for path in before} == before
    new = {path.name.rpartition("_desc-")[2] for path in after if path not in before}
    assert new == {
        f"bad_{suffix}"
        for suffix in (
            "outliers.json",
            "outliers.tsv",
            "timeseries.json",
            "timeseries.tsv",
        )
    }
    assert statuses(tmp_path / "out") == {RAW: "done", "24P": "done", "bad": "done"}
    assert "1  already there" in run(capsys, *common).out


def test_the_first_crash_may_be_a_strategy(tmp_path, capsys):
    root = datasets.write_dataset(tmp_path / "in")
    option = datasets.write_atlas(tmp_path / "atlas")
    common = [root, tmp_path / "out", "participant", "--atlas-file", option]
    common += ["--denoise", "none", "24P"]
    run(capsys, *common, "--stop-on-first-crash", code=1)
    assert {r.run[:6] for r in read_all_records(tmp_path / "out")} == {"sub-01"}
    run(capsys, *common, code=1)
    assert {r.run[:6] for r in read_all_records(tmp_path / "out")} == {
        "sub-01",
        "sub-02",
    }


def test_a_notebook_gets_the_error_of_its_strategy(cleaned_input, atlas):
    image, table = atlas.split(",")
    _, _, path = cleaned_input
    with pytest.raises(ConfoundsError, match="comp_cor"):
        extract(path, image, atlas_table=table, strategy="acompcor")
    with pytest.raises(ConfoundsError, match="36 regressors"):
        extract(path, image, atlas_table=table, strategy="36P", dummy_scans=30)


def test_events_tell_the_gravest_status_of_an_atlas(
    cleaned_input, atlas, tmp_path, capsys
):
    root, _, _ = cleaned_input
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    events = tmp_path / "events.jsonl"
    run(
        capsys,
        *common,
        *("--denoise", "none", "acompcor", "--events", events),
        code=1,
    )
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    (told,) = [line for line in lines if line["event"] == "run"]
    assert told["status"] == "failed"
    assert told["atlases"] == {"Toy": "failed"}
    assert told["reason"].startswith("strategy acompcor: ")
    assert lines[-1]["runs"] == {"failed": 1}


# --- records


def record(strategy, status, reason="", **more):
    return Record(RUN, "A", status, reason, strategy=strategy, **more)


def test_records_of_strategies_stand_side_by_side(tmp_path):
    write_records(tmp_path, RUN, [record(RAW, "done"), record("24P", "failed", "x")])
    write_records(tmp_path, RUN, [record("36P", "done", outputs=("c.tsv",))])
    found = {r.strategy: (r.status, r.outputs) for r in read_records(tmp_path, RUN)}
    assert found == {
        RAW: ("done", ()),
        "24P": ("failed", ()),
        "36P": ("done", ("c.tsv",)),
    }
    write_records(tmp_path, RUN, [record("24P", "done", inputs=("i",))])
    statuses = {r.strategy: r.status for r in read_records(tmp_path, RUN)}
    assert statuses == {RAW: "done", "24P": "done", "36P": "done"}


def test_two_jobs_on_two_strategies_hide_nothing_of_each_other(tmp_path):
    """Each writes without having seen the other's file."""
    a, b = tmp_path / "a", tmp_path / "b"
    write_records(a, RUN, [record("24P", "failed", "no table")])
    write_records(b, RUN, [record("36P", "done")])
    folder = tmp_path / "out/logs/sub-01"
    folder.mkdir(parents=True)
    for path in (*a.rglob("*.jsonl"), *b.rglob("*.jsonl")):
        path.rename(folder / path.name)
    found = {r.strategy: r.status for r in read_records(tmp_path / "out", RUN)}
    assert found == {"24P": "failed", "36P": "done"}


@pytest.mark.parametrize("atlas", ["A", NO_ATLAS])
def test_what_failed_as_a_whole_is_forgotten_once_something_is_newer(atlas, tmp_path):
    whole = Record(RUN, atlas, "failed", "no header")
    write_records(tmp_path, RUN, [whole])
    assert [r.status for r in read_records(tmp_path, RUN)] == ["failed"]
    write_records(tmp_path, RUN, [record("24P", "done")])
    assert [r.key for r in read_records(tmp_path, RUN)] == [("A", "24P")]
    write_records(tmp_path, RUN, [whole])
    assert len(read_records(tmp_path, RUN)) == 2  # newer again: it shows


def test_reasons_are_told_once_with_their_strategies():
    rows = [record(RAW, "done"), record("a", "failed", "x"), record("b", "failed", "x")]
    assert tell_failures(rows) == ["strategies a, b: x"]
    assert tell_failures([*rows, record("c", "failed", "y")]) == [
        "strategies a, b: x",
        "strategy c: y",
    ]
    assert tell_failures(rows[1:]) == ["x"]
    assert tell_failures(rows[:1]) == []
