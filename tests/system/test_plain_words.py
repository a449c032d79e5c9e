"""What a user is told before, during and after a call: once, and in total."""

import logging
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from support import datasets
from support.calls import run
from support.datasets import snapshot
from support.group_trees import SPACE, Tree, correlation
from support.surface_runs import write_gifti

from bids_roi.outputs.records import NOT_CLEANED, read_all_records

N = 10_242


@pytest.fixture
def call(cleaned_input, atlas, tmp_path):
    """Two atlases and strategies on one run with a table of confounds."""
    root, _, _ = cleaned_input
    second = datasets.write_atlas(tmp_path, f"tpl-{SPACE}_atlas-B_scale-5_dseg.nii.gz")
    call = [root, tmp_path / "out", "participant", "--atlas-file", atlas, second]
    return [*call, "--strategy", "none", "simple", "--relmat", "pearson"]


def test_a_dry_run_begins_with_the_sum(call, tmp_path, capsys):
    out = tmp_path / "out"
    shown = run(capsys, *call, "--dry-run").out
    head = shown.partition("\n\n")[0].splitlines()
    assert head[0].startswith("1 run (")
    assert head[0].endswith(" of 1 participant")
    assert head[1:4] == [
        "  atlas Toy: fits 1 run",
        "  atlas B_scale-5: fits 1 run",
        "  strategies none, simple",
    ]
    assert head[-1] == f"  to {out}"
    assert not out.exists()
    said = " ".join(head)
    n_tables = int(said.partition(" tables to write")[0].rpartition(" ")[2])
    assert "MB of memory for each" in said
    run(capsys, *call)
    assert n_tables == len(list(out.glob("sub-01/**/*.tsv"))) == 11
    before = snapshot(out)
    told = run(capsys, *call, "--dry-run").out.partition("\n\n")[0]
    assert "  1 run already there: nothing is left to do of them" in told
    assert "to write" not in told
    assert snapshot(out) == before


def test_a_run_that_cannot_be_read_is_not_one_that_no_atlas_fits(
    call, tmp_path, capsys
):
    (bold,) = call[0].glob("sub-01/func/*_bold.nii.gz")
    for number in (8, 9):
        broken = bold.name.replace("_space-", f"_run-{number}_space-")
        bold.with_name(broken).write_bytes(b"")
    shown = run(capsys, *call, "--dry-run", code=None).out
    assert shown.splitlines()[1:4] == [
        "  2 runs could not be read: see below",
        "  atlas Toy: fits 1 run of those read",
        "  atlas B_scale-5: fits 1 run of those read",
    ]


def test_a_dry_run_says_what_the_call_would_refuse(call, tmp_path, capsys):
    run(capsys, *call)
    before = snapshot(tmp_path / "out")
    other = [*call, "--min-coverage", "0.2"]
    told = run(capsys, *other, "--dry-run", code=1)
    head = told.out.partition("\n\n")[0]
    assert "1 run with outputs of other settings: the call would refuse" in head
    assert "to write" not in head
    assert told.err.count("--min-coverage is 0.2") == 1
    assert snapshot(tmp_path / "out") == before
    told = run(capsys, *other, "--overwrite", "--dry-run").out
    assert "11 tables to write" in told


def test_the_size_of_a_dry_run_is_that_of_the_tables(tmp_path, capsys):
    """Of numbers with all their digits, as real ones are."""
    root = tmp_path / "fmriprep"
    values = np.random.default_rng(0).normal(1e3, 10, (*datasets.SHAPE, 400))
    datasets.write_run(root, f"sub-01_task-rest_space-{SPACE}", values)
    atlas = datasets.write_atlas(tmp_path, f"tpl-{SPACE}_atlas-Toy_dseg.nii.gz")
    call = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    shown = run(capsys, *call, "--dry-run").out
    said = float(shown.partition("(about ")[2].partition(" MB")[0])
    run(capsys, *call)
    made = sum(p.stat().st_size for p in (tmp_path / "out").glob("sub-01/**/*.tsv"))
    assert abs(said - made / 10**6) <= max(0.05, 0.3 * made / 10**6)


def test_raw_matrices_beside_cleaned_ones_are_no_news(call, tmp_path, capsys):
    told = run(capsys, *call)
    assert "not cleaned" not in told.err
    found = {r.strategy: r.warnings for r in read_all_records(tmp_path / "out")}
    assert NOT_CLEANED in found["none"]  # whatever else was asked for
    assert NOT_CLEANED not in found["simple"]
    (own,) = (tmp_path / "out").glob(
        "sub-01/**/*Toy_stat-pearsoncorrelation_relmat.json"
    )
    sidecar = own.read_text()
    alone = [word for word in call if word != "simple"]
    alone[1] = tmp_path / "alone"
    assert "not cleaned" in run(capsys, *alone).err
    other = tmp_path / "alone" / own.relative_to(tmp_path / "out")
    assert other.read_text() == sidecar


def test_an_atlas_is_named_once(dataset, atlas, tmp_path, capsys):
    """Where its message names it, nothing stands before it."""
    missing = tmp_path / "tpl-Other_atlas-Toy_dseg.nii.gz"
    missing.write_bytes(Path(atlas.partition(",")[0]).read_bytes())
    call = [dataset, tmp_path / "out", "participant", "--atlas-file", missing]
    shown = run(capsys, *call, "--dry-run").out
    line = next(line for line in shown.splitlines() if "left out" in line)
    assert line.count("atlas Toy") == 1
    assert "atlas Toy: fits 0 runs" in shown


@pytest.fixture
def surfaces(tmp_path):
    """Series on fsaverage5, and labels whose names tell no template."""
    rng = np.random.default_rng(0)
    root = tmp_path / "fmriprep"
    write_gifti(root, *rng.normal(100, 1, (2, 20, N)))
    for side in ("lh", "rh"):
        numbers = np.roll(np.arange(N) * 4 // N, 9 * (side == "rh"))
        colours = np.array(
            [[25 * n, 5, 5, 0, 25 * n + 5 * 256 + 5 * 65536] for n in range(4)]
        )
        names = ["unknown", "a", "b", "c"]
        nb.freesurfer.write_annot(
            tmp_path / f"{side}.My.annot", numbers, colours, names
        )
    return root, f"{tmp_path}/{{lh,rh}}.My.annot"


@pytest.mark.parametrize("more", [[], ["--atlas-space", "fsaverage5"]])
def test_the_space_of_the_runs_tells_the_template_of_labels(
    surfaces, tmp_path, capsys, more
):
    root, files = surfaces
    call = [root, tmp_path / "out", "participant", "--atlas-file", files]
    run(capsys, *call, "--space", "fsaverage5", *more)
    (table,) = (tmp_path / "out").glob("sub-01/func/*_stat-mean_timeseries.tsv")
    assert table.read_text().splitlines()[0].count("\t") >= 4


@pytest.mark.parametrize("spaces", [[], ["fsnative"], ["fsaverage5", "onavg"], ["T1w"]])
def test_nothing_else_tells_it(surfaces, tmp_path, capsys, spaces):
    """onavg has meshes of the same size; a participant's own is nobody else's."""
    root, files = surfaces
    call = [root, tmp_path / "out", "participant", "--atlas-file", files]
    words = ["--space", *spaces] if spaces else []
    assert "--atlas-space" in run(capsys, *call, *words, code=None).err


def test_labels_of_another_mesh_are_not_taken_for_the_runs(surfaces, tmp_path, capsys):
    """That fsaverage6 is asked for makes 10,242 vertices no fsaverage6."""
    _, files = surfaces
    values = np.random.default_rng(0).normal(100, 1, (2, 5, 40_962))
    write_gifti(tmp_path / "six", *values, stem="sub-01_task-rest_space-fsaverage6")
    call = [tmp_path / "six", tmp_path / "out", "participant", "--atlas-file", files]
    told = run(capsys, *call, "--space", "fsaverage6", code=None)
    assert "fsaverage6 has 40,962" in told.err


@pytest.fixture
def tree(tmp_path):
    """Two spaces of three participants, too few for QC-FC, and a damaged matrix."""
    rng, tree = np.random.default_rng(0), Tree(tmp_path / "out")
    for person in range(1, 4):
        name = f"sub-0{person}_task-rest"
        tree.run(name, correlation(rng), fd=0.1 * person, desc="36P")
        tree.run(name, correlation(rng), fd=0.1 * person)
    return tree


def test_one_reason_is_one_line(tree, capsys):
    told = run(capsys, tree.root, tree.root, "group").out
    assert told.count("no QC-FC") == 0
    (line,) = [line for line in told.splitlines() if "without QC-FC" in line]
    assert line.startswith(f"  2 without QC-FC (space {SPACE}): 3 participants have")


def test_what_many_runs_lack_is_said_once(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    datasets.write_run(dataset, "sub-02_task-rest_space-T1w")
    datasets.write_run(dataset, "sub-01_task-rest_space-T1w")
    run(capsys, dataset, out, "participant", "--atlas-file", atlas, code=None)
    told = run(capsys, dataset, out, "group").out
    (line,) = [line for line in told.splitlines() if line.startswith("  skipped: ")]
    assert "sub-01_task-rest_space-T1w" in line
    assert "_bold.nii.gz and 1 more: " in line


def test_verbose_tells_of_the_group_what_is_used_and_written(tree, capsys):
    broken = next(tree.root.glob("sub-02/func/*_desc-36P_relmat.tsv"))
    broken.write_text("nothing")
    quiet = run(capsys, tree.root, tree.root, "group")
    assert " INFO " not in quiet.err
    told = run(capsys, tree.root, tree.root, "group", "-v")
    said = [line.partition(" INFO ")[2] for line in told.err.splitlines()]
    said = [line for line in said if line]
    assert said[0].startswith("found: 3 region tables, 6 series and 6 matrices")
    runs = [line for line in said if ", atlas Toy, " in line]
    assert len(runs) == 6
    (lost,) = [line for line in runs if not line.endswith(": done")]
    assert "sub-02" in lost
    assert "strategy 36P: unreadable: " in lost
    written = {line.removeprefix("written: ") for line in said if "written: " in line}
    there = {p.name for p in tree.root.glob("group_*") if p.suffix != ".json"}
    assert written == there - {"group.html"}
    logging.getLogger("bids_roi").setLevel(logging.WARNING)


def test_one_file_is_not_files(tree, capsys):
    for path in tree.root.glob("sub-*/func/*_relmat.*"):
        path.unlink()
    for path in tree.root.glob("sub-*/func/*_dseg.*"):
        path.unlink()
    told = run(capsys, tree.root, tree.root, "group", "--stack", "none").out
    assert "1 file group_*: group_runs.tsv" in told
