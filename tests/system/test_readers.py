"""Results as other people's programs read them, after the group level too."""

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from bids import BIDSLayout
from support import datasets, dense, surface_runs
from support.calls import read, run
from support.datasets import SPACE
from support.promises import promises
from support.toy_confounds import SPIKES, T, write_confounds
from support.trees import needs_shared, unpack
from support.validator import issues_of

from bids_roi.cli import main
from bids_roi.outputs.result import OUTLIER_COLUMNS
from bids_roi.outputs.root_files import PYBIDS_ENTITIES

CONFIG = str(files("bids_roi") / "data" / "pybids_config.json")
STEMS = ("sub-01_task-rest", "sub-02_task-rest", "sub-03_task-rest")
# Pages and figures are what .bidsignore names; one tree has them, see raw().
ALONE = ("--no-report", "--executor", "serial")
# What an atlas's own table may hold: names of entities among its columns.
TABLE = "index\tname\tlabel\themi\tspace\tatlas\tdesc\tsuffix\tnetwork\n"


def write_rich_atlas(folder):
    """An atlas whose table has columns with the names of entities."""
    image, table = datasets.write_atlas(
        folder, f"tpl-{SPACE}_atlas-Toy_scale-5_dseg.nii.gz"
    ).split(",")
    rows = Path(table).read_text().splitlines()[1:]
    index = [row.split("\t") for row in rows]
    more = [f"{i}\t{name}\tl\tL\ts\ta\td\tx\t{net}\n" for i, name, net in index]
    Path(table).write_text(TABLE + "".join(more))
    return f"{image},{table}"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw dataset; in its derivatives fMRIPrep's, and ours of both levels."""
    place = tmp_path_factory.mktemp("readers")
    raw = place / "raw"
    for stem in STEMS:
        bold = raw / stem.partition("_")[0] / "func" / f"{stem}_bold.nii.gz"
        bold.parent.mkdir(parents=True, exist_ok=True)
        bold.touch()
    said = {"Name": "Raw", "BIDSVersion": "1.9.0", "DatasetType": "raw"}
    (raw / "dataset_description.json").write_text(json.dumps(said))
    root = datasets.write_dataset(raw / "derivatives" / "fmriprep", [])
    for seed, stem in enumerate(STEMS):
        datasets.write_run(root, f"{stem}_space-{SPACE}_res-2", datasets.bold(seed, T))
    write_confounds(root)
    table = root / "sub-01/func/sub-01_task-rest_desc-confounds_timeseries.tsv"
    for stem in STEMS[1:]:
        shutil.copy(
            table,
            root
            / stem.partition("_")[0]
            / "func"
            / f"{stem}_desc-confounds_timeseries.tsv",
        )
    out = raw / "derivatives" / "bids_roi"
    common = [
        root,
        out,
        "participant",
        "--atlas-file",
        write_rich_atlas(place / "atlas"),
    ]
    more = ["--denoise", "none", "24P", "--fd-threshold", 0.5, "--relmat", "pearson"]
    assert main([str(a) for a in [*common, *more, "--n-procs", 1]]) == 0
    assert main([str(a) for a in (root, out, "group")]) == 0
    return raw


@pytest.fixture(scope="module")
def out(raw):
    return raw / "derivatives" / "bids_roi"


@pytest.fixture(scope="module")
def ours(out):
    """The layout of the results with the configuration that comes with them."""
    return layout_of(out)


def layout_of(out):
    return BIDSLayout(out, validate=False, config=["bids", "derivatives", CONFIG])


@pytest.mark.parametrize(
    "how", [{}, {"is_derivative": True}], ids=["alone", "derivative"]
)
def test_pybids_indexes_the_results_of_both_levels(out, how):
    tell(BIDSLayout(out, validate=False, **how), out)


def test_pybids_indexes_the_results_with_our_configuration(out, ours):
    tell(ours, out)


def tell(layout, out):
    """The layout has every table, and its entities are those of the names."""
    found = layout.get(suffix="timeseries", extension=".tsv")
    assert {f.path for f in found} == set(
        map(str, out.glob("sub-*/**/*_timeseries.tsv"))
    )
    assert layout.get_subjects() == ["01", "02", "03"]
    assert layout.get_tasks() == ["rest"]
    assert layout.get_spaces() == [SPACE]
    tables = {f.path for f in layout.get(extension=".tsv")}
    assert {str(path) for path in out.glob("group_*.tsv")} <= tables
    (file,) = layout.get(suffix="level", extension=".tsv")
    assert file.get_entities()["space"] == SPACE
    # What tells of files by their metadata reads all of it.
    assert len(layout.to_df(metadata=True)) == len(layout.files)


def test_pybids_indexes_a_raw_dataset_with_the_results_in_it(raw, out):
    layout = BIDSLayout(raw, derivatives=True)
    ours = layout.derivatives.get_pipeline("bids_roi")
    tell(ours, out)
    both = layout.get(scope="all", subject="01", suffix=["bold", "timeseries"])
    assert {"raw", "fmriprep", "bids_roi"} == {
        Path(f.path).relative_to(raw).parts[1] if "derivatives" in f.path else "raw"
        for f in both
    }


def test_pybids_does_not_lend_cleaned_tables_the_warnings_of_raw_ones(ours):
    """Theirs is the shorter name: what the longer one lacks, pybids takes from it."""
    for suffix in ("relmat", "timeseries"):
        files = ours.get(suffix=suffix, extension=".tsv", desc="24P", subject="01")
        for file in files:
            own = json.loads(Path(file.path).with_suffix(".json").read_text())
            assert file.get_metadata()["Warnings"] == own["Warnings"]
            assert not any("not cleaned" in note for note in own["Warnings"])
        assert files


def test_bids2table_reads_the_group_folder(out):
    bids2table = pytest.importorskip("bids2table", exc_type=ImportError)
    table = bids2table.index_dataset(out).to_pandas()
    series = table[(table["suffix"] == "timeseries") & (table["ext"] == ".tsv")]
    assert len(series) == len(STEMS) * 2
    assert set(series["space"]) == {SPACE}


def test_pandas_reads_every_table(out):
    for path in out.rglob("*.tsv"):
        frame = pd.read_csv(path, sep="\t", na_values="n/a", dtype={"run_id": str})
        lines = path.read_text().splitlines()
        assert len(frame) == len(lines) - 1
        assert list(frame) == lines[0].split("\t")
        described = json.loads(path.with_suffix(".json").read_text())
        if path.name.startswith("group_"):
            keys = {c for c in frame if c.endswith("_id")}
            assert keys <= described.keys(), path.name


def test_r_reads_every_table(out, tmp_path):
    program = shutil.which("Rscript")
    if program is None:
        pytest.skip("R is not installed")
    script = tmp_path / "read.R"
    script.write_text(
        "for (path in commandArgs(TRUE)) {\n"
        '  t <- read.delim(path, na.strings = "n/a", check.names = FALSE)\n'
        '  cat(nrow(t), ncol(t), "\\n")\n}\n'
    )
    paths = sorted(out.rglob("*.tsv"))
    told = subprocess.run(
        [program, script, *paths], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for path, line in zip(paths, told, strict=True):
        lines = path.read_text().splitlines()
        assert line.split() == [str(len(lines) - 1), str(lines[0].count("\t") + 1)]


def test_the_validator_has_nothing_to_say(out):
    assert issues_of(out, "error", "warning") == []


def results_of(folder, stems, *options, code=0):
    """Outputs of both levels of runs with these names, and what was said."""
    root = datasets.write_dataset(folder / "in", [])
    for stem in stems:
        datasets.write_run(root, stem)
    atlas = datasets.write_atlas(folder / "atlas")
    common = [root, folder / "out", "participant", "--atlas-file", atlas, *ALONE]
    assert main([str(a) for a in [*common, *options]]) == code
    if code == 0:
        call = [root, folder / "out", "group", "--no-report"]
        assert main([str(a) for a in call]) == 0
    return folder / "out"


ODD = {
    # CNeuroMod, C-PAC
    "sub-01_ses-1_task-a_space-X_part-mag": "sub-01_ses-1_task-a_part-mag_space-X",
    "sub-01_ses-1_task-a_run-01_acq-b_space-X_res-2": (
        "sub-01_ses-1_task-a_acq-b_run-01_space-X@_res-2"
    ),
    "sub-02_task-a_space-X_dir-AP_res-2": "sub-02_task-a_dir-AP_space-X@_res-2",
}


def test_names_follow_the_schema_whatever_the_source_does(tmp_path):
    stems = [s.replace("space-X", f"space-{SPACE}") for s in ODD]
    out = results_of(tmp_path, stems, "--relmat", "pearson", code=0)
    names = {
        (s.replace("@", "_atlas-Toy") if "@" in s else f"{s}_atlas-Toy").replace(
            "space-X", f"space-{SPACE}"
        )
        for s in ODD.values()
    }
    for suffix in ("dseg", "stat-mean_timeseries", "stat-pearsoncorrelation_relmat"):
        found = {p.name for p in out.glob(f"sub-*/**/func/*_{suffix}.tsv")}
        assert found == {f"{name}_{suffix}.tsv" for name in names}
    assert issues_of(out, "error", "warning") == []
    with (out / "group_runs.tsv").open() as file:
        frame = pd.read_csv(file, sep="\t")
    assert frame["status"].tolist() == ["done"] * len(names)


@needs_shared
@pytest.mark.parametrize(
    "name", ["ds000117-fmriprep-21.0.2", "ds003495-fmriprep-20.2.1"]
)
def test_readers_open_the_results_of_real_trees(tmp_path, name):
    """Small images in place of the tree's; all else is as fMRIPrep named it."""
    root = unpack(f"{name}_tree.tar.gz", tmp_path)
    person = min(path for path in root.glob("sub-*") if path.is_dir()).name
    series = sorted((root / person).rglob(f"*_space-{SPACE}*_desc-preproc_bold.nii.gz"))
    for seed, path in enumerate(series):
        stem = path.name.replace("_desc-preproc_bold.nii.gz", "")
        for old in path.parent.glob(f"{stem}_desc-*"):
            old.unlink()
        datasets.write_run(root, stem, datasets.bold(seed))
    atlas = datasets.write_atlas(tmp_path / "atlas")
    out = root.parent / "results"
    common = [root, out, "participant", "--atlas-file", atlas, "--relmat", "pearson"]
    common += ["--space", SPACE, "--participant-label", person, *ALONE]
    assert main([str(a) for a in common]) == 0
    assert main([str(a) for a in (root, out, "group", "--no-report")]) == 0
    assert issues_of(out, "error", "warning") == []
    for how in ({}, {"config": ["bids", "derivatives", CONFIG]}):
        layout = BIDSLayout(out, validate=False, **how)
        found = layout.get(suffix="timeseries", extension=".tsv")
        assert len(found) == len(series)
        assert layout.get_spaces() == [SPACE]


def test_a_cohort_stands_where_bids_has_it(tmp_path):
    root = datasets.write_dataset(tmp_path / "in", [])
    datasets.write_run(root, f"sub-02_task-a_space-{SPACE}_cohort-1_res-2")
    atlas = datasets.write_atlas(
        tmp_path / "atlas", f"tpl-{SPACE}_cohort-1_atlas-Toy_dseg.nii.gz"
    )
    out = tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, *ALONE]
    assert main([str(a) for a in common]) == 0
    assert main([str(a) for a in (root, out, "group", "--no-report")]) == 0
    name = f"sub-02_cohort-1_task-a_space-{SPACE}_atlas-Toy_res-2_dseg.tsv"
    assert (out / "sub-02" / "func" / name).is_file()
    assert issues_of(out, "error", "warning") == []
    layout = BIDSLayout(out, validate=False, config=["bids", "derivatives", CONFIG])
    (file,) = layout.get(suffix="timeseries", extension=".tsv")
    entities = {k: v for k, v in file.get_entities().items() if k != "extension"}
    built = layout.build_path(entities, validate=False, absolute_paths=False)
    assert (out / built).samefile(file.path)


@pytest.mark.parametrize("cause", ["every run", "no atlas", "an atlas that is broken"])
def test_the_tree_is_valid_where_nothing_came_out(tmp_path, cause):
    root = datasets.write_dataset(tmp_path / "in")
    space = "Elsewhere" if cause == "no atlas" else SPACE
    name = f"tpl-{space}_atlas-Toy_dseg.nii.gz"
    atlas = datasets.write_atlas(tmp_path / "atlas", name)
    if cause == "every run":
        for path in root.glob("sub-*/func/*_bold.nii.gz"):
            path.write_bytes(path.read_bytes()[:-2000])
    if cause == "an atlas that is broken":
        (tmp_path / "atlas" / name).write_bytes(b"no image")
    out = tmp_path / "out"
    common = [root, out, "participant", "--atlas-file", atlas, *ALONE]
    assert main([str(a) for a in common]) != 0
    assert issues_of(out, "error", "warning") == []
    assert not list(out.glob("sub-*/func"))
    BIDSLayout(out, validate=False)


def test_labels_that_bids_does_not_allow_are_told(tmp_path, capsys):
    root = datasets.write_dataset(tmp_path / "in", [])
    datasets.write_run(root, f"sub-01_task-a_run-post_space-{SPACE}")
    datasets.write_run(root, f"sub-01_task-a_run-02_space-{SPACE}")
    atlas = datasets.write_atlas(tmp_path / "atlas")
    common = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    told = run(capsys, *common)
    said = "run-post (a number is needed): the name is not valid BIDS"
    assert told.err.count(said) == 1
    (path,) = (tmp_path / "out").glob("sub-01/func/*run-post*_timeseries.json")
    assert said in " ".join(json.loads(path.read_text())["Warnings"])
    (path,) = (tmp_path / "out").glob("sub-01/func/*run-02*_timeseries.json")
    assert said not in path.read_text()


def test_links_between_datasets_are_escaped(tmp_path):
    place = tmp_path / "a b" / "x%20ä"
    root = datasets.write_dataset(place / "fmriprep")
    atlas = datasets.write_atlas(tmp_path / "atlas")
    for out in (place / "out", tmp_path / "out"):
        common = [root, out, "participant", "--atlas-file", atlas, *ALONE]
        assert main([str(a) for a in common]) == 0
        described = json.loads((out / "dataset_description.json").read_text())
        link = described["DatasetLinks"]["preprocessed"]
        assert not {" ", "ä"} & {*link}
        assert (out / unquote(link)).resolve() == root.resolve()
        assert issues_of(out, "error", "warning") == []


def test_no_column_has_the_name_of_an_entity(out):
    """Of pybids and of our configuration, whatever the atlas's table holds."""
    ours = json.loads(Path(CONFIG).read_text())["entities"]
    names = {entity["name"] for entity in ours}
    for config in ("bids", "derivatives"):
        path = files("bids") / "layout" / "config" / f"{config}.json"
        names |= {e["name"] for e in json.loads(path.read_text())["entities"]}
    assert names == PYBIDS_ENTITIES
    for path in (*out.glob("group_*.json"), *out.glob("atlas-*_dseg.json")):
        assert not names & json.loads(path.read_text()).keys(), path.name
    columns = [c for table in promises()["columns"].values() for c in table]
    # voi- is for spectroscopy only.
    assert names & {*columns} <= {"volume"}
    header = (out / "atlas-Toy_scale-5_dseg.tsv").read_text().partition("\n")[0]
    assert {"atlas_label", "atlas_hemi", "atlas_space"} <= {*header.split("\t")}


def test_code_for_the_outliers_of_xcp_d_finds_no_column_of_theirs(out):
    """Theirs has 1 for outliers in ``framewise_displacement``; here 1 is one too."""
    assert "framewise_displacement" not in OUTLIER_COLUMNS
    paths = sorted(out.glob("sub-*/func/*_outliers.tsv"))
    assert len(paths) == len(STEMS)
    for path in paths:
        frame = pd.read_csv(path, sep="\t", na_values="n/a")
        flags = frame.iloc[:, 0].astype(bool)  # as theirs, the first column
        assert flags.to_numpy().nonzero()[0].tolist() == [0, *SPIKES]
        series = path.with_name(
            path.name.replace(
                "_res-2_desc-24P_outliers",
                "_atlas-Toy_scale-5_res-2_stat-mean_desc-24P_timeseries",
            )
        )
        assert len(read(series)[1]) == (~flags).sum()


def test_group_tables_of_an_earlier_release_are_told_and_enter_no_page(
    raw, out, tmp_path, capsys
):
    copy = shutil.copytree(out, tmp_path / "out")
    (known,) = copy.glob("group_*_level.tsv")
    run(capsys, raw, copy, "group")
    # One that is remembered goes; one that is not is told.
    old = copy / known.name.replace("_level", "_mean").replace(
        "group_", "group_task-old_"
    )
    shutil.copy(known, old)
    matrix = next(copy.glob("group_*_relmat.tsv"))
    foreign = copy / matrix.name.replace("task-rest", "task-old")
    shutil.copy(matrix, foreign)
    told = run(capsys, raw, copy, "group")
    assert old.exists()
    assert "2 files group_* not of this call, left as found" in told.err
    assert old.name in told.err
    assert "not of this call, and in no page: 2 files group_*" in told.out
    assert "task-old" not in (copy / "group.html").read_text()
    ledger = copy / "logs" / "group_files.json"
    listed = json.loads(ledger.read_text())
    listed["Files"] += [old.name, foreign.name]
    ledger.write_text(json.dumps(listed))
    told = run(capsys, raw, copy, "group")
    assert not old.exists()
    assert f"removed, for they are out of date: {old.name}, {foreign.name}" in told.out


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory):
    """Outputs of grayordinates, of both hemispheres and of one, with CIFTI files."""
    place = tmp_path_factory.mktemp("surfaces")
    root, out, axis = place / "in", place / "out", dense.small_axis()
    rng = np.random.default_rng(7)
    surface_runs.write_cifti(root, axis, dense.ramp(T, len(axis)))
    left, right = rng.normal(100, 5, (2, T, 32492))
    mesh = f"{surface_runs.ENTITIES}_space-fsLR_den-32k"
    surface_runs.write_gifti(root, left, right, stem=mesh)
    write_confounds(root)
    names = {i: f"R{i}" for i in range(1, 5)}
    keys = rng.choice([0, *names], len(axis))
    atlas = place / "tpl-fsLR_atlas-Toy_scale-5_dseg.dlabel.nii"
    surface_runs.write_dlabel(atlas, axis, keys, names)
    asked = [
        root,
        out,
        "participant",
        "--atlas-file",
        atlas,
        "--denoise",
        "none",
        "24P",
    ]
    asked += ["--relmat", "pearson", "--cifti-output", "--n-procs", 1]
    for more in ([], ["--hemi", "L", "--den", "32k"]):
        assert main([str(a) for a in [*asked, *more]]) == 0
    return out


@pytest.fixture(scope="module")
def of_surfaces(surfaces):
    return layout_of(surfaces)


def test_pybids_tells_hemispheres_densities_and_cifti_files(surfaces, of_surfaces):
    layout = of_surfaces
    assert layout.get_hemis() == ["L"]
    assert sorted(layout.get_dens()) == ["32k", "91k"]
    for asked, part in (({"hemi": "L"}, "_hemi-L_"), ({"den": "91k"}, "_den-91k_")):
        found = {f.path for f in layout.get(scope="all", **asked)}
        assert found == {str(p) for p in surfaces.rglob(f"sub-*{part}*")}
    for extension, n in ((".ptseries.nii", 6), (".pconn.nii", 6)):
        found = {f.path for f in layout.get(extension=extension)}
        assert found == set(map(str, surfaces.rglob(f"*{extension}")))
        assert len(found) == n


@pytest.mark.parametrize(
    ("which", "how"), [("out", "ours"), ("surfaces", "of_surfaces")]
)
def test_pybids_builds_the_names_that_the_outputs_have(which, how, request):
    """Of every table, sidecar and CIFTI file, from the entities that it finds."""
    out, layout = map(request.getfixturevalue, (which, how))
    made = sorted(p for p in out.glob("sub-*/func/*") if p.is_file())
    assert len(made) > 10
    for path in made:
        entities = layout.get_file(str(path)).get_entities()
        built = layout.build_path(
            entities, validate=False, absolute_paths=False, strict=True
        )
        assert built == path.relative_to(out).as_posix()
