"""Regressors of one's own tables: chosen by the run's name, and regressed out.

The oracle is numpy's ``lstsq`` on the same columns put beside the others by hand.
"""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import datasets
from support.calls import FUNC, STEM, read, run, series
from support.confound_tables import REAL
from support.group_trees import read_rows
from support.toy_confounds import MOTION, SPIKES, T

from bids_roi.api import extract
from bids_roi.confounds.table import read_confounds
from bids_roi.dataset.partners import find_tables
from bids_roi.dataset.run import BoldRun
from bids_roi.files.names import parse_name
from bids_roi.loading import load
from bids_roi.outputs.records import read_all_records

OWN = "sub-01_task-rest_desc-physio_timeseries.tsv"
KEPT = np.setdiff1d(np.arange(T), [0, *SPIKES])


def write_table(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_strategy(folder, *components, **settings):
    path = folder / "mine.json"
    content = {"name": "mine", "components": list(components), "settings": settings}
    path.write_text(json.dumps(content))
    return path


def residuals(signals, regressors):
    """What is left of kept volumes, by the textbook; their means stay."""
    design = np.column_stack([np.ones(len(signals)), regressors])
    fit = np.linalg.lstsq(design, signals, rcond=None)[0]
    return signals - design @ fit + signals.mean(axis=0)


@pytest.fixture
def physio(cleaned_input, atlas, tmp_path):
    """Words of a call with a table of two columns, and these columns."""
    root, columns, _ = cleaned_input
    rng = np.random.default_rng(4)
    own = {"heart": rng.normal(size=T), "breath": rng.normal(size=T)}
    write_table(tmp_path / "physio" / FUNC / OWN, own)
    settings = {"fd_threshold": 0.5, "dummy_scans": "auto"}
    component = {"table": "physio", "columns": ["heart", "breath"]}
    mine = write_strategy(tmp_path, {"motion": "basic"}, component, **settings)
    out = tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, "--strategy", "none"]
    common += [mine, "--min-coverage", 0]
    given = ["--confounds-dataset", f"physio={tmp_path / 'physio'}"]
    return common, given, columns, own


def test_series_equal_least_squares_with_the_columns_beside_the_others(
    physio, tmp_path, capsys
):
    common, given, columns, own = physio
    run(capsys, *common, *given)
    raw, found = (read(series(tmp_path / "out", d))[1] for d in (None, "mine"))
    design = np.column_stack([*(columns[name] for name in MOTION), *own.values()])
    expected = residuals(raw[KEPT], design[KEPT])
    scale = np.nanmax(np.abs(expected))
    assert_allclose(found, expected, atol=1e-9 * scale)
    facts = json.loads(
        series(tmp_path / "out", "mine").with_suffix(".json").read_text()
    )
    assert facts["ConfoundRegressors"][:2] == ["physio:breath", "physio:heart"]
    assert f"bids:physio:{FUNC}/{OWN}" in facts["Sources"]
    described = json.loads((tmp_path / "out/dataset_description.json").read_text())
    assert described["DatasetLinks"]["physio"] == "../physio"
    raw_facts = series(tmp_path / "out", None).with_suffix(".json").read_text()
    assert "physio" not in raw_facts
    assert load(tmp_path / "out", strategy="mine").timeseries().shape[0] == KEPT.size


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_folder_of_tables_that_cannot_be_read_ends_no_dataset(
    code, physio, tmp_path, capsys, monkeypatch
):
    """Nor where outputs of before are looked at first."""
    common, given, _, _ = physio
    list_folder, closed = os.scandir, str(tmp_path / "physio")

    def scandir(path="."):
        if str(path) == closed:
            raise OSError(code, os.strerror(code), path)
        return list_folder(path)

    run(capsys, *common, *given)
    monkeypatch.setattr(os, "scandir", scandir)
    plan = run(capsys, *common, *given, "--dry-run", code=1).out
    assert f"table physio  {closed}: the folder cannot be read" in plan
    for more in ((), ("--overwrite",)):
        said = run(capsys, *common, *given, *more, code=1)
        assert f"{closed}: the folder cannot be read ({os.strerror(code)})" in said.err
        assert "1  failed" in said.out


@pytest.mark.parametrize("kind", ["passband", "butterworth", "cosine"])
def test_filters_act_on_them_as_on_fmriprep_s_own(
    kind, physio, tmp_path, capsys, cleaned_input
):
    """The same columns in the table of confounds give the same numbers."""
    common, given, columns, own = physio
    band = ["--filter", kind, "--high-pass", 0.01]
    run(capsys, *common, *given, *band)
    root, _, path = cleaned_input
    table = path.with_name("sub-01_task-rest_desc-confounds_timeseries.tsv")
    shown = columns | own
    cells = {k: ["n/a" if np.isnan(v) else v for v in c] for k, c in shown.items()}
    write_table(table, cells)
    parts = ({"motion": "basic"}, {"columns": list(own)})
    settings = {"fd_threshold": 0.5, "dummy_scans": "auto"}
    (tmp_path / "b").mkdir()
    mine = write_strategy(tmp_path / "b", *parts, **settings)
    other = [root, tmp_path / "b" / "out", *common[2:7], mine, *common[8:], *band]
    run(capsys, *other)
    one = read(series(tmp_path / "out", "mine"))[1]
    two = read(series(tmp_path / "b" / "out", "mine"))[1]
    assert_allclose(one, two, atol=1e-9 * np.nanmax(np.abs(two)))


def test_a_strategy_of_own_tables_alone_needs_no_confounds(physio, tmp_path, capsys):
    common, given, _, own = physio
    for path in common[0].glob("sub-01/func/*confounds*"):
        path.unlink()
    write_strategy(tmp_path, {"table": "physio", "columns": "all"})
    run(capsys, *common, *given)
    raw, found = (read(series(tmp_path / "out", d))[1] for d in (None, "mine"))
    expected = residuals(raw, np.column_stack(list(own.values())))
    assert_allclose(found, expected, atol=1e-9 * np.nanmax(np.abs(expected)))


@pytest.mark.parametrize(
    "name",
    [
        OWN,
        f"sub-01/{OWN}",
        f"{FUNC}/sub-01_task-rest_space-T1w_res-2_desc-x_regressors.tsv",
        f"{FUNC}/sub-01_task-rest_physio.tsv",
    ],
)
def test_space_desc_and_suffix_of_a_table_are_free(name, physio, tmp_path, capsys):
    common, given, _, own = physio
    shutil.rmtree(tmp_path / "physio")
    write_table(tmp_path / "physio" / name, own)
    run(capsys, *common, *given)
    facts = json.loads(
        series(tmp_path / "out", "mine").with_suffix(".json").read_text()
    )
    assert f"bids:physio:{name}" in facts["Sources"]


def spoil_absent(table):
    table.unlink()
    # Of another task, session, run and participant, none of which is this run's.
    for name in ("task-nback", "ses-1_task-rest", "task-rest_run-1"):
        write_table(table.with_name(f"sub-01_{name}_physio.tsv"), {"heart": range(T)})
    write_table(table.with_name("sub-010_task-rest_physio.tsv"), {"heart": range(T)})


def spoil_two(table):
    shutil.copy(table, table.with_name("sub-01_task-rest_events.tsv"))


def spoil_rows(table):
    write_table(table, {"heart": range(40 * T), "breath": range(40 * T)})


def spoil_column(table):
    write_table(table, {"heart": range(T), "breaths": range(T)})


def spoil_gap(table):
    values = ["n/a" if t in (5, *SPIKES) else t % 7 for t in range(T)]
    write_table(table, {"heart": values, "breath": range(T)})


def spoil_empty(table):
    write_table(table, {"heart": ["n/a"] * T, "breath": range(T)})


def spoil_text(table):
    write_table(table, {"heart": ["fast"] * T, "breath": range(T)})


def spoil_link(table):
    table.unlink()
    table.symlink_to("../.git/annex/objects/none")


BAD = {
    "absent": (
        spoil_absent,
        "no table physio of the run, which mine needs: no *.tsv of sub-01_task-rest in",
    ),
    "two": (
        spoil_two,
        f"2 files could be its table physio: {FUNC}/{OWN} and"
        f" {FUNC}/sub-01_task-rest_events.tsv",
    ),
    "rows": (spoil_rows, f"the table has {40 * T} rows, the BOLD series {T} volumes"),
    "column": (spoil_column, "(physio:breath); the table has physio:heart, physio:br"),
    "gap": (spoil_gap, "physio:heart in volumes 5."),
    "empty": (spoil_empty, "(physio:heart) hold nothing but n/a"),
    "text": (spoil_text, "heart in row 2 is 'fast'"),
    "link": (spoil_link, "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_table_costs_its_strategy_alone(
    name, physio, tmp_path, capsys
):
    common, given, _, _ = physio
    spoil, message = BAD[name]
    spoil(tmp_path / "physio" / FUNC / OWN)
    shown = run(capsys, *common, *given, code=1)
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert series(tmp_path / "out", None).exists()
    assert not series(tmp_path / "out", "mine").exists()
    status = {r.strategy: r.status for r in read_all_records(tmp_path / "out")}
    assert status == {"none": "done", "mine": "failed"}
    run(capsys, common[0], tmp_path / "out", "group")
    rows = {r["desc_id"]: r for r in read_rows(tmp_path / "out/group_runs.tsv")}
    assert message in rows["mine"]["reason"]


def test_a_gap_in_a_censored_volume_and_the_first_row_are_as_in_fmriprep_s_tables(
    physio, tmp_path, capsys
):
    common, given, columns, own = physio
    values = {k: list(v) for k, v in own.items()}
    values["heart"][0] = "n/a"
    for volume in SPIKES:
        values["breath"][volume] = "n/a"
    write_table(tmp_path / "physio" / FUNC / OWN, values)
    run(capsys, *common, *given)
    raw, found = (read(series(tmp_path / "out", d))[1] for d in (None, "mine"))
    design = np.column_stack([*(columns[name] for name in MOTION), *own.values()])
    expected = residuals(raw[KEPT], design[KEPT])
    assert_allclose(found, expected, atol=1e-9 * np.nanmax(np.abs(expected)))
    facts = json.loads(
        series(tmp_path / "out", "mine").with_suffix(".json").read_text()
    )
    assert "physio:heart" in facts["BackFilledRegressors"]


def test_a_pattern_chooses_among_several_tables(physio, tmp_path, capsys):
    common, given, _, own = physio
    table = tmp_path / "physio" / FUNC / OWN
    write_table(table.with_name("sub-01_task-rest_desc-lag_timeseries.tsv"), own)
    assert "2 files" in run(capsys, *common, *given, code=1).err
    run(capsys, *common, given[0], f"{given[1]}/*_desc-physio_*.tsv")


def test_a_table_of_the_very_echo_goes_before_that_of_all(tmp_path):
    name = "sub-01_task-rest_echo-{}_bold.nii.gz"
    shared = write_table(tmp_path / "sub-01_task-rest_physio.tsv", {"a": [1]})
    own = write_table(tmp_path / "sub-01_task-rest_echo-2_physio.tsv", {"a": [1]})
    for echo, expected in ((1, shared), (2, own)):
        path = tmp_path / name.format(echo)
        run = BoldRun(tmp_path, (path,), parse_name(path).entities, None, None, {})
        assert find_tables(tmp_path, "*.tsv", run) == (expected,)


def test_a_dry_run_tells_tables_and_those_that_are_not_there(physio, tmp_path, capsys):
    common, given, _, _ = physio
    table = tmp_path / "physio" / FUNC / OWN
    told = run(capsys, *common, *given, "--dry-run").out
    assert f"  table physio  {table}" in told
    assert "not all can be made" not in told
    table.unlink()
    told = run(capsys, *common, *given, "--dry-run", code=None).out
    assert "  table physio  none found" in told
    assert "1 run of which not all can be made" in told


def test_other_bytes_make_the_series_anew_and_another_dataset_is_refused(
    physio, tmp_path, capsys
):
    common, given, _, own = physio
    table = tmp_path / "physio" / FUNC / OWN
    run(capsys, *common, *given)
    assert "already there" in run(capsys, *common, *given).out
    before = series(tmp_path / "out", "mine").read_text()
    shutil.copytree(tmp_path / "physio", tmp_path / "moved")
    moved = [given[0], f"physio={tmp_path / 'moved'}"]
    assert "already there" in run(capsys, *common, *moved).out  # where does not matter
    write_table(table, {k: v[::-1] for k, v in own.items()})
    assert "1  extracted" in run(capsys, *common, *given).out
    assert series(tmp_path / "out", "mine").read_text() != before
    text = json.dumps({"GeneratedBy": [{"Name": "rapidtide"}]})
    (tmp_path / "physio" / "dataset_description.json").write_text(text)
    shown = run(capsys, *common, *given, code=1)
    assert "--confounds-dataset" in shown.err


@pytest.mark.parametrize(
    ("given", "message", "code"),
    [
        ([], "takes columns of a table physio", 64),
        (["physio=nowhere"], "no such folder", 66),
        (["physio={0}", "task={0}"], "no strategy takes columns of a table task", 64),
        (["{0}"], "names no folder. Give NAME=DIR", 64),
        (["a/b={0}"], "cannot be the name of a --confounds-dataset", 64),
        (["preprocessed={0}"], "cannot be the name", 64),
        (["physio={0}", "physio={0}/physio"], "given twice", 64),
        (["physio=s3://lab/x"], "a URL (s3://)", 64),
        (["physio"], "--confounds-dataset physio names no folder", 64),
        (["physio="], "--confounds-dataset physio= names no folder", 64),
    ],
)
def test_a_table_without_a_folder_and_the_reverse_are_refused(
    given, message, code, physio, tmp_path, capsys
):
    common, _, _, _ = physio
    words = [word.format(tmp_path) for word in given]
    words = ["--confounds-dataset", *words] if words else []
    assert message in run(capsys, *common, *words, code=code).err
    assert not (tmp_path / "out").exists()


def test_a_name_that_atlases_have_already_is_refused(physio, tmp_path, capsys):
    common, given, _, _ = physio
    template = tmp_path / "other" / f"tpl-{datasets.SPACE}"
    shutil.copytree(tmp_path / "atlas", template)
    words = [*given, "--atlas-dataset", f"physio={tmp_path / 'other'}"]
    shown = run(capsys, *common, *words, code=65)
    told = "--confounds-dataset and --atlas-dataset are both called physio"
    assert told in shown.err


def test_settings_alone_take_no_columns(physio, capsys):
    common, given, _, _ = physio
    shown = run(capsys, *common[:5], "--detrend", *given, code=64)
    assert "no strategy takes columns of a table physio" in shown.err


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ({"table": "a b", "columns": "all"}, "components[0].table: a name of letters"),
        ({"table": "physio"}, "components[0].columns: a list of column names"),
        ({"table": "physio", "columns": []}, "components[0].columns: a list"),
        ({"table": "physio", "motion": "full"}, "components[0]"),
    ],
)
def test_a_component_that_is_none_is_refused(
    component, message, physio, tmp_path, capsys
):
    common, given, _, _ = physio
    write_strategy(tmp_path, component)
    assert message in run(capsys, *common, *given, code=65).err


def test_signals_of_xcp_d_are_refused_with_words(physio, tmp_path, capsys):
    common, given, _, own = physio
    columns = {"signal__dmn": own["heart"], "breath": own["breath"]}
    write_table(tmp_path / "physio" / FUNC / OWN, columns)
    write_strategy(tmp_path, {"table": "physio", "columns": "all"})
    shown = run(capsys, *common, *given, code=1)
    assert "physio:signal__dmn: in XCP-D, signal__ columns are kept" in shown.err
    assert "Make them orthogonal beforehand" in shown.err


def test_python_takes_them_too(physio, tmp_path, capsys):
    common, given, _, _ = physio
    run(capsys, *common, *given)
    bold = common[0] / FUNC / f"{STEM}_desc-preproc_bold.nii.gz"
    atlas, table = common[4].split(",")
    found = extract(
        bold,
        atlas,
        atlas_table=table,
        strategy=tmp_path / "mine.json",
        confounds_dataset=given[1],
        min_coverage=0,
    )
    expected = read(series(tmp_path / "out", "mine"))[1]
    assert_allclose(found.signals.to_numpy(), expected)


def test_real_tables_beside_toy_signals(shared, atlas, tmp_path, capsys):
    """A real table of fMRIPrep, and fMRIPrep's CompCor as if it were one's own."""
    source = shared / "confounds" / REAL["23.1.2"]
    real = read_confounds(source)
    n_volumes = real.n_volumes
    root = datasets.write_dataset(tmp_path / "in", [])
    datasets.write_run(root, STEM, datasets.bold(3, n_volumes))
    own = root / FUNC / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    shutil.copy(source, own)
    (tmp_path / "own").mkdir()
    shutil.copy(source, tmp_path / "own" / own.name)
    names = ["c_comp_cor_00", "c_comp_cor_01", "trans_x_derivative1"]
    parts = ({"motion": "basic"}, {"table": "own", "columns": names})
    mine = write_strategy(tmp_path, *parts, dummy_scans="auto")
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    common += ["--strategy", "none", mine, "--confounds-dataset"]
    run(capsys, *common, f"own={tmp_path / 'own'}")
    raw, found = (read(series(tmp_path / "out", d))[1] for d in (None, "mine"))
    design = np.column_stack([real.column(n) for n in (*MOTION, *names)])
    design[0] = np.where(np.isnan(design[0]), design[1], design[0])
    kept = slice(2, None)  # two volumes are flagged as not steady
    expected = residuals(raw[kept], design[kept])
    assert_allclose(found, expected, atol=1e-8 * np.nanmax(np.abs(expected)))
