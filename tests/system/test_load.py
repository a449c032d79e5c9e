"""Outputs in pandas, pybids and bids2table: the same files, the same numbers."""

import csv
import json
import shutil
from importlib.resources import files
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from support import datasets
from support.calls import read, run
from support.datasets import NAMES, SPACE
from support.stack_series import signals, write_relmat, write_series
from support.toy_confounds import SPIKES

from bids_roi.cli import main
from bids_roi.errors import DataError, MissingInput, NothingFound, UsageError
from bids_roi.group.stacking import write_stacks
from bids_roi.loading import load

RUNS = (
    "sub-01_ses-a_task-rest_run-01",
    "sub-01_ses-a_task-rest_run-02",
    "sub-02_task-x",
)
SCALES = ("100", "400")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Three runs, two scales of an atlas, two statistics and matrices of one."""
    folder = tmp_path_factory.mktemp("load")
    root = datasets.write_dataset(folder / "in", RUNS)
    names = [f"tpl-{SPACE}_atlas-Toy_scale-{scale}_dseg.nii.gz" for scale in SCALES]
    atlases = [datasets.write_atlas(folder / "atlas", name) for name in names]
    arguments = [root, folder / "out", "participant", "--n-procs", 1, "--no-report"]
    arguments += ["--statistic", "mean", "standard_deviation", "--relmat", "pearson"]
    assert main([str(a) for a in [*arguments, "--atlas-file", *atlases]]) == 0
    return folder / "out"


def test_runs_are_listed_with_their_facts(out):
    runs = load(out, atlas="Toy_scale-100", statistic="mean").runs()
    assert runs["participant_id"].tolist() == ["sub-01", "sub-01", "sub-02"]
    assert runs["session_id"].tolist()[:2] == ["ses-a", "ses-a"]
    assert runs["session_id"].isna().tolist() == [False, False, True]
    assert runs["run_id"].tolist()[:2] == ["01", "02"]  # text, as in the names
    assert runs["task_id"].tolist() == ["rest", "rest", "x"]
    assert runs["n_volumes"].tolist() == [12, 12, 12]
    assert runs["repetition_time"].tolist() == [2, 2, 2]
    assert set(runs["strategy"]) == {"none"}
    assert [(out / path).is_file() for path in runs["path"]] == [True] * 3
    assert len(load(out).runs()) == 3 * 2 * 2


def test_series_are_the_files(out):
    frame = load(out).timeseries(atlas="Toy_scale-400", statistic="standard_deviation")
    assert frame.columns.tolist() == list(NAMES)
    names = ["participant_id", "session_id", "task_id", "run_id", "volume"]
    assert frame.index.names == names
    paths = sorted(
        out.glob("sub-*/**/*_scale-400_stat-standarddeviation_timeseries.tsv")
    )
    assert len(paths) == 3
    assert_array_equal(frame, np.vstack([read(path)[1] for path in paths]))
    second = frame.loc[("sub-01", "ses-a", "rest", "02")]
    assert_array_equal(second, read(paths[1])[1])
    assert second.index.tolist() == list(range(12))
    assert frame["Nowhere"].isna().all()


def test_matrices_are_the_files(out):
    frame = load(out, atlas="Toy_scale-100", session_label="ses-a").relmats()
    assert frame.index.names == [
        "participant_id",
        "session_id",
        "task_id",
        "run_id",
        "region",
    ]
    for number in ("01", "02"):
        (path,) = out.glob(f"sub-01/**/*run-{number}*scale-100*_relmat.tsv")
        cells = [line.split("\t") for line in path.read_text().splitlines()]
        expected = [
            [np.nan if c == "n/a" else float(c) for c in r[1:]] for r in cells[1:]
        ]
        matrix = frame.loc[("sub-01", "ses-a", "rest", number)]
        assert matrix.index.tolist() == matrix.columns.tolist() == list(NAMES)
        assert_array_equal(matrix, expected)


def test_regions_are_the_files_with_types(out):
    frame = load(out, atlas="Toy_scale-100", participant_label="02").regions()
    (path,) = out.glob("sub-02/func/*scale-100_dseg.tsv")
    with path.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert frame.index.get_level_values("region").tolist() == list(NAMES)
    assert frame["status"].tolist() == [row["status"] for row in rows]
    assert frame["index"].tolist() == [int(row["index"]) for row in rows]
    assert frame["index"].dtype == np.int64
    assert frame["coverage"].tolist() == [float(row["coverage"]) for row in rows]
    lost = [row["tsnr"] == "n/a" for row in rows]
    assert any(lost)
    assert frame["tsnr"].isna().tolist() == lost


@pytest.mark.parametrize(
    ("choice", "n_series"),
    [
        ({}, 12),
        ({"participant_label": "01"}, 8),
        ({"participant_label": ["sub-01", "02"], "task_label": "x"}, 4),
        ({"run_label": "01", "statistic": "mean"}, 2),
        ({"atlas": "Toy"}, 12),
        ({"atlas": ["Toy_scale-100"], "space": SPACE, "denoise": "none"}, 6),
        ({"participant_label": None, "statistic": ("mean",)}, 6),
    ],
)
def test_choices_narrow(out, choice, n_series):
    assert len(load(out, **choice).runs()) == n_series
    assert len(load(out).runs(**choice)) == n_series


def test_a_choice_leaves_tables_that_know_nothing_of_it(out):
    outputs = load(out, statistic="mean", relmat="pearson", strategy="none")
    assert len(outputs.regions(atlas="Toy_scale-100")) == 3 * len(NAMES)
    assert len(outputs.relmats(atlas="Toy_scale-100")) == 3 * len(NAMES)
    assert repr(outputs).startswith("<bids_roi outputs of 3 runs in ")


def test_what_cannot_be_loaded_is_said_with_what_there_is(out, tmp_path):
    with pytest.raises(MissingInput, match="no such folder"):
        load(tmp_path / "absent")
    with pytest.raises(
        MissingInput, match=r"no participant outputs.*participant level"
    ):
        load(tmp_path)
    with pytest.raises(NothingFound, match=r"task_label nback\. There is: rest, x\."):
        load(out, task_label="nback")
    with pytest.raises(NothingFound, match="There is: Toy_scale-100, Toy_scale-400"):
        load(out, atlas="Schaefer2018")
    with pytest.raises(UsageError, match=r"no choice subject.*participant_label"):
        load(out, subject="01")
    with pytest.raises(UsageError, match="Say which with atlas='Toy_scale-100'"):
        load(out).timeseries(statistic="mean")
    with pytest.raises(UsageError, match="Say which with statistic='mean'"):
        load(out).timeseries(atlas="Toy_scale-100")
    with pytest.raises(NothingFound, match="--strategy"):
        load(out).outliers()


def test_censored_volumes_leave_a_gap(cleaned_input, atlas, tmp_path, capsys):
    root, columns, _ = cleaned_input
    out = tmp_path / "out"
    options = [
        "--denoise",
        "24P",
        "--fd-threshold",
        0.5,
        "--atlas-file",
        atlas,
        "--no-report",
    ]
    run(capsys, root, out, "participant", *options)
    outputs = load(out, strategy="24P")
    frame = outputs.timeseries(participant_label="01")
    volumes = frame.index.get_level_values("volume")
    assert sorted({*range(60)} - {*volumes}) == [0, *SPIKES]
    outliers = outputs.outliers()
    left_out = outliers["outlier"].to_numpy().nonzero()[0]
    assert left_out.tolist() == [0, *SPIKES]
    assert_array_equal(outliers["fd"], columns["framewise_displacement"])
    # XCP-D has flags in this column of its tables of this name.
    assert "framewise_displacement" not in outliers
    assert outliers["why"].dropna().tolist() == ["dummy", "fd", "fd", "fd"]
    facts = outputs.runs().iloc[0]
    assert facts["n_volumes_kept"] == 56
    assert facts["fd_mean"] == pytest.approx(
        np.nanmean(columns["framewise_displacement"])
    )


def test_outliers_of_an_earlier_release_are_refused(
    cleaned_input, atlas, tmp_path, capsys
):
    """They told the volumes that were kept, in a column of that name."""
    out = tmp_path / "out"
    common = [cleaned_input[0], out, "participant", "--atlas-file", atlas]
    run(capsys, *common, "--denoise", "24P", "--no-report")
    (path,) = out.glob("sub-01/func/*_outliers.tsv")
    path.write_text(path.read_text().replace("outlier", "kept", 1))
    told = json.loads(path.with_suffix(".json").read_text())
    del told["TableDigest"]  # nor did they tell that
    path.with_suffix(".json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=r"earlier release.*--overwrite"):
        load(out).timeseries()


def test_names_of_any_script_and_damage(tmp_path):
    path = write_series(tmp_path, "sub-é", signals(0))
    write_relmat(tmp_path, "sub-é", np.eye(4))
    assert load(tmp_path).timeseries().columns.tolist()[1:] == [
        "Cuneus é",
        "Thalamus",
        "脳",
    ]
    assert load(tmp_path).relmats().columns.tolist()[3] == "脳"
    assert load(tmp_path).regions().index[3] == ("sub-é", "脳")
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DataError, match="incomplete"):
        load(tmp_path).timeseries()


def pybids_layout(out):
    from bids import BIDSLayout

    ours = files("bids_roi") / "data" / "pybids_config.json"
    return BIDSLayout(out, validate=False, config=["bids", "derivatives", str(ours)])


def test_pybids_tells_outputs_apart_with_our_config(out):
    layout = pybids_layout(out)
    loaded = load(out)
    for suffix, kind in (("timeseries", "mean"), ("relmat", "pearsoncorrelation")):
        for scale in SCALES:
            found = layout.get(suffix=suffix, extension=".tsv", scale=scale, stat=kind)
            on_disk = out.glob(f"sub-*/**/*_scale-{scale}_stat-{kind}_{suffix}.tsv")
            assert {f.path for f in found} == {str(path) for path in on_disk}
            assert len(found) == 3
    assert len(layout.get(suffix="timeseries", extension=".tsv")) == 12
    assert layout.get_scales() == list(SCALES)
    assert layout.get_stats() == ["mean", "pearsoncorrelation", "standarddeviation"]
    assert layout.get_atlas() == ["Toy"]
    (file,) = layout.get(
        suffix="timeseries", extension=".tsv", subject="02", scale="100", stat="mean"
    )
    assert file.get_metadata()["RepetitionTime"] == 2.0
    ours = loaded.timeseries(
        participant_label="02", atlas="Toy_scale-100", statistic="mean"
    )
    # The parser of pandas before 3 errs in the last digit.
    pd.testing.assert_frame_equal(
        file.get_df(), ours.reset_index(drop=True), check_exact=False, rtol=1e-14
    )
    entities = {"subject": "02", "task": "x", "space": SPACE, "atlas": "Toy"}
    entities |= {"scale": "100", "stat": "mean", "suffix": "timeseries"}
    built = layout.build_path(entities, validate=False, absolute_paths=False)
    assert (out / built).samefile(file.path)


def test_bids2table_reads_the_same(out):
    # Its pyarrow may be too new for the oldest NumPy that we allow.
    bids2table = pytest.importorskip("bids2table", exc_type=ImportError)
    table = bids2table.index_dataset(out).to_pandas()
    table["stat"] = [dict(more).get("stat") for more in table["extra_entities"]]
    series = table[(table["suffix"] == "timeseries") & (table["ext"] == ".tsv")]
    counts = series.groupby(["atlas", "scale", "stat"]).size().to_dict()
    assert counts == {
        ("Toy", scale, stat): 3
        for scale in SCALES
        for stat in ("mean", "standarddeviation")
    }
    assert set(series["path"]) == set(load(out).runs()["path"])
    relmats = table[(table["suffix"] == "relmat") & (table["ext"] == ".tsv")]
    assert set(relmats["stat"]) == {"pearsoncorrelation"}
    assert len(relmats) == 6


def test_stack_holds_what_load_reads(out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    names, notes = write_stacks(tmp_path / "out")
    assert notes == []
    assert names == [
        f"group_space-{SPACE}_atlas-Toy_scale-{scale}_stack.h5" for scale in SCALES
    ]
    loaded = load(out, atlas="Toy_scale-400")
    with h5py.File(tmp_path / "out" / names[1]) as stack:
        assert_array_equal(
            stack["timeseries/mean/data"][:], loaded.timeseries(statistic="mean")
        )
        one = loaded.relmats(participant_label="02").to_numpy()
        first, second = stack["relmat/pearsoncorrelation/edges"][:].T
        assert_array_equal(
            stack["relmat/pearsoncorrelation/data"][2], one[first, second]
        )
        assert stack["regions/name"].asstr()[:].tolist() == list(NAMES)


LOADING_EXAMPLE = """\
import h5py
with h5py.File("out/group_space-{space}_atlas-Toy_scale-100_stack.h5") as stack:
    matrices = stack["relmat/pearsoncorrelation/data"][:]            # runs x edges
    participants = stack["runs/participant_id"].asstr()[:]           # one per run
    first, last = stack["timeseries/mean/offsets"][:2]
    signals = stack["timeseries/mean/data"][first:last]              # of the first run
"""


def test_loading_example(out, tmp_path, monkeypatch):
    shutil.copytree(out, tmp_path / "out")
    write_stacks(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(LOADING_EXAMPLE.format(space=SPACE), found)
    assert found["participants"].tolist() == ["sub-01", "sub-01", "sub-02"]
    assert found["matrices"].shape == (3, 10)
    path = next(iter(sorted(out.glob("sub-01/**/*scale-100_stat-mean_timeseries.tsv"))))
    assert_array_equal(found["signals"], read(path)[1])


def test_shipped_config_is_json_with_a_name():
    path = Path(str(files("bids_roi") / "data" / "pybids_config.json"))
    assert json.loads(path.read_text())["name"] == "bids_roi"


def test_words_of_columns_and_of_other_pipelines_choose_too(out):
    """Who has read ``participant_id`` in a table may ask by it."""
    for words in (
        {"participant_id": "sub-01", "denoise": "none"},
        {"participant_label": "01", "strategy": "none"},
    ):
        assert set(load(out, **words).runs()["participant_id"]) == {"sub-01"}
    with pytest.raises(UsageError, match=r"no choice stratgy\. Nearest: strategy\."):
        load(out, stratgy="none")
