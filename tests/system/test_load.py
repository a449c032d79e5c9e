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
from bids_roi.matrices import edges_to_matrices

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


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("schaefer400", "Schaefer2018_seg-7n_scale-400"),
        ("Schaefer2018:400Parcels7Networks", "Schaefer2018_seg-7n_scale-400"),
        ("atlas-Schaefer2018_seg-7n_scale-400", "Schaefer2018_seg-7n_scale-400"),
        ("SCHAEFER_400", "Schaefer2018_seg-7n_scale-400"),
        ("difumo128", "DiFuMo_scale-128"),
        ("subject:aparc.a2009s", "aparca2009s"),
        ("subject:aparcaseg", "aparcaseg"),
        ("Yeo2011#7 Networks", "Yeo2011_seg-7Networks"),
        ("in/tpl-X_res-02_atlas-Toy_scale-9_dseg.nii.gz,t.tsv", "Toy_scale-9"),
        ("own.dlabel.nii#2", "own_seg-map2"),
        ("L=x/lh.aparc.annot,R=x/rh.aparc.annot", "aparc"),
    ],
)
def test_every_word_that_makes_a_folder_chooses_from_it(tmp_path, word, name):
    """Names of the outputs as the app's own shelf and files have them."""
    for other in (name, "Other_scale-1"):
        path = tmp_path / "sub-01" / "func"
        path.mkdir(parents=True, exist_ok=True)
        stem = f"sub-01_space-T1w_atlas-{other}_stat-mean_timeseries"
        (path / f"{stem}.tsv").write_text("a\n1\n")
        (path / f"{stem}.json").write_text("{}")
    assert load(tmp_path, atlas=word).runs()["atlas_id"].tolist() == [name]
    assert len(load(tmp_path, atlas=[word, "Other_scale-1"]).runs()) == 2


def test_strategies_by_the_words_that_asked_for_them(tmp_path):
    own = tmp_path / "own.json"
    own.write_text('{"name": "my own", "label": "mine", "components": []}')
    path = tmp_path / "out" / "sub-01" / "func"
    path.mkdir(parents=True)
    for label in ("scrubbing5GSR", "mine", "36P"):
        stem = f"sub-01_space-T1w_atlas-A_stat-mean_desc-{label}_timeseries"
        (path / f"{stem}.tsv").write_text("a\n1\n")
        (path / f"{stem}.json").write_text("{}")
    for word, label in (
        ("scrubbing.5+gsr", "scrubbing5GSR"),
        (str(own), "mine"),
        ("mine", "mine"),
        ("36p", "36P"),
    ):
        assert load(tmp_path / "out", strategy=word).runs()["strategy"].item() == label


def test_matrices_as_one_array_are_the_files(out):
    outputs = load(out, atlas="Toy_scale-400")
    found = outputs.matrices(relmat="pearson")
    assert found.values.shape == (3, len(NAMES), len(NAMES))
    assert found.names == NAMES
    assert found.runs["participant_id"].tolist() == ["sub-01", "sub-01", "sub-02"]
    for matrix, path in zip(found.values, found.runs["path"], strict=True):
        lines = (out / path).read_text().splitlines()
        cells = [line.split("\t")[1:] for line in lines[1:]]
        rows = [[np.nan if c == "n/a" else float(c) for c in row] for row in cells]
        assert_array_equal(matrix, rows)
    with pytest.raises(UsageError, match="several are left"):
        load(out).matrices()
    assert len(repr(found)) < 140
    assert found._repr_html_().count("<tr") == 4


def test_matrices_of_other_regions_are_refused(tmp_path):
    for label, names in (("01", "ab"), ("02", "ba"), ("03", "abc")):
        folder = tmp_path / f"sub-{label}" / "func"
        folder.mkdir(parents=True)
        stem = f"sub-{label}_space-T1w_atlas-A_stat-pearsoncorrelation_relmat"
        rows = ["\t".join([n, *("1" for _ in names)]) for n in names]
        text = "\n".join(["\t".join(["Node", *names]), *rows]) + "\n"
        (folder / f"{stem}.tsv").write_text(text)
        (folder / f"{stem}.json").write_text("{}")
    for labels in (["01", "02"], ["01", "03"]):
        with pytest.raises(DataError, match="same regions"):
            load(tmp_path).matrices(participant_label=labels)
    assert load(tmp_path).matrices(participant_label="03").values.shape == (1, 3, 3)


def test_edges_of_a_stack_become_the_matrices(out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    write_stacks(tmp_path / "out")
    found = load(out, atlas="Toy_scale-400").matrices(relmat="pearson")
    name = f"group_space-{SPACE}_atlas-Toy_scale-400_stack.h5"
    with h5py.File(tmp_path / "out" / name) as stack:
        part = stack["relmat/pearsoncorrelation"]
        full = edges_to_matrices(part["data"], part["edges"], len(NAMES), diagonal=1)
        one = edges_to_matrices(part["data"][0], part["edges"][:])
    between = ~np.eye(len(NAMES), dtype=bool)
    assert_array_equal(full[:, between], found.values[:, between])
    assert_array_equal(full[:, ~between], 1)
    assert_array_equal(one[between], found.values[0][between])
    assert np.isnan(one[~between]).all()


def test_edges_with_a_diagonal_keep_theirs():
    """As of a covariance: its variances are no less than the rest."""
    matrix = np.array([[2.0, 0.5], [0.5, 3.0]])
    pairs = np.stack(np.triu_indices(2), axis=1)
    assert_array_equal(edges_to_matrices(matrix[np.triu_indices(2)], pairs), matrix)


@pytest.mark.parametrize(
    ("values", "edges", "n_regions"),
    [
        ([1, 2], [[0, 1]], None),
        ([1], [[0, 1, 2]], None),
        ([1], [[0.5, 1]], None),
        ([1], [[0, 5]], 3),
        ([1], [[-1, 0]], None),
        (["a"], [[0, 1]], None),
        (1, [[0, 1]], None),
    ],
)
def test_edges_that_do_not_fit(values, edges, n_regions):
    with pytest.raises(UsageError, match=r"edges|Edges"):
        edges_to_matrices(values, edges, n_regions)


def test_a_folder_shows_itself_on_a_screen(out):
    found = load(out)
    assert len(repr(found)) < 250
    page = found._repr_html_()
    assert page.count("<table") == 1
    assert "Toy_scale-400" in page
    assert len(page) < 5000
