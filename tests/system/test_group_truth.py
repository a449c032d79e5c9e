"""Group figures that would mislead: runs without freedom, other TRs, both sides."""

import json

import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose
from support import datasets
from support.calls import UPPER, group_name, read_regions, run
from support.datasets import INDEX
from support.group_trees import (
    CENTRES,
    NAMES,
    SPACE,
    Tree,
    correlation,
    read_rows,
    read_square,
)

from bids_roi.core.grid import Grid
from bids_roi.core.mapping import map_labels, map_weights

WHY = "0.4 degrees of freedom are left, --min-degrees-of-freedom asks for 1."


def planted(root, *, n=6, seed=0, **more):
    """A tree of n participants with one run each, and their matrices."""
    rng, tree, held = np.random.default_rng(seed), Tree(root, **more), {}
    for person in range(1, n + 1):
        held[person] = correlation(rng), float(rng.gamma(2, 0.1))
        matrix, fd = held[person]
        tree.run(f"sub-0{person}_task-rest", matrix, fd=fd)
    return tree, held


def sidecar(path):
    return json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("said", [True, False])
def test_a_run_without_freedom_is_in_no_group_statistic(tmp_path, capsys, said):
    tree, held = planted(tmp_path)
    extra = {"ReasonNotAvailable": WHY} if said else {}
    name = "sub-04_task-rest"
    tree.relmat(name, np.full((6, 6), np.nan), DegreesOfFreedom=0.4, **extra)
    shown = run(capsys, "x", tmp_path, "group")
    used = [np.arctanh(m[UPPER]) for person, (m, _) in held.items() if person != 4]
    _, mean = read_square(tmp_path / group_name("relmat"))
    assert_allclose(mean[UPPER], np.tanh(np.mean(used, axis=0)), rtol=1e-10)
    content = sidecar(tmp_path / group_name("relmat"))
    assert (content["NumberOfRuns"], content["NumberOfParticipants"]) == (5, 5)
    why = WHY if said else "no entry of the matrix stat-pearsoncorrelation has a value"
    (reason,) = content["RunsLeftOut"]
    assert reason.startswith("sub-04/func/")
    assert why in reason
    for table in ("group_qcfc.tsv", "group_reliability.tsv"):
        (row,) = read_rows(tmp_path / table)
        assert (row["n_runs"], row["n_runs_left_out"]) == ("5", "1")
    rows = read_rows(tmp_path / "group_runs.tsv")
    told = {row["participant_id"]: row for row in rows}
    assert told["sub-04"]["status"] == "left_out"
    assert why in told["sub-04"]["reason"]
    assert {row["status"] for k, row in told.items() if k != "sub-04"} == {"done"}
    assert "1 left out" in shown.out
    assert why in shown.out


@pytest.mark.parametrize("unit", ["participant", "run"])
def test_a_run_in_the_folder_of_another_is_one_of_its_participant(
    tmp_path, capsys, unit
):
    """By name, as everywhere: of 3 participants, and none is lost or counted twice."""
    rng, tree, held = np.random.default_rng(3), Tree(tmp_path), {1: [], 2: [], 3: []}
    for person, own in held.items():
        for number in range(1, person + 1):
            own.append(correlation(rng))
            tree.run(f"sub-0{person}_task-rest_run-{number}", own[-1], fd=0.1 * person)
    for path in [*tmp_path.glob("sub-03/func/*_run-1_*")]:
        path.rename(tmp_path / "sub-01/func" / path.name)
    run(capsys, "x", tmp_path, "group", "--group-unit", unit)
    z = [np.arctanh([matrix[UPPER] for matrix in own]) for own in held.values()]
    units = np.vstack(z) if unit == "run" else [own.mean(axis=0) for own in z]
    _, mean = read_square(tmp_path / group_name("relmat"))
    assert_allclose(mean[UPPER], np.tanh(np.mean(units, axis=0)), rtol=1e-10)
    content = sidecar(tmp_path / group_name("relmat"))
    assert (content["NumberOfRuns"], content["NumberOfParticipants"]) == (6, 3)
    rows = read_rows(tmp_path / "group_runs.tsv")
    assert [row["participant_id"] for row in rows] == [
        *("sub-01", "sub-02", "sub-02", "sub-03", "sub-03", "sub-03")
    ]
    assert {row["status"] for row in rows} == {"done"}


def test_regions_that_are_lost_are_counted_by_run(tmp_path, capsys):
    tree, _ = planted(tmp_path, n=2)
    coverage, tsnr = [1, 0.75, 0.5, 0.25, 1, 1], [10, 20, 30, np.nan, 60, 60]
    tree.regions("sub-02_task-rest", coverage=coverage, tsnr=tsnr)
    run(capsys, "x", tmp_path, "group")
    keys = ("n_regions", "n_regions_lost", "coverage_mean", "tsnr_median")
    assert [
        [row[k] for k in keys] for row in read_rows(tmp_path / "group_runs.tsv")
    ] == [
        ["6", "0", "1.0", "50.0"],
        ["6", "1", "0.75", "30.0"],
    ]


def test_groups_that_are_left_out_whole(tmp_path, capsys):
    tree = Tree(tmp_path)
    for person in range(1, 4):
        name = f"sub-0{person}_task-rest"
        tree.run(name, np.full((6, 6), np.nan), ReasonNotAvailable=WHY)
    run(capsys, "x", tmp_path, "group")
    assert not list(tmp_path.glob("group_*relmat*"))
    rows = read_rows(tmp_path / "group_runs.tsv")
    assert [row["status"] for row in rows] == ["left_out"] * 3


def test_left_out_runs_are_held_to_the_same_settings(tmp_path, capsys):
    tree, _ = planted(tmp_path)
    tree.relmat(
        "sub-04_task-rest",
        np.full((6, 6), np.nan),
        ReasonNotAvailable=WHY,
        OptionsDigest="eeeeeeeeeeee",
    )
    shown = run(capsys, "x", tmp_path, "group", code=65)
    assert "eeeeeeeeeeee: 1 outputs, for example sub-04" in shown.err


def test_least_freedom_through_the_app(dataset, atlas, tmp_path, capsys):
    """One of three runs is shorter: its matrix is n/a, and the stack is without it."""
    h5py = pytest.importorskip("h5py")
    stem = f"sub-03_task-rest_space-{SPACE}"
    datasets.write_run(dataset, stem, datasets.bold(7, 6))
    out = tmp_path / "out"
    common = ["--atlas-file", atlas, "--relmat", "pearson"]
    run(
        capsys,
        *(dataset, out, "participant", *common, "--min-degrees-of-freedom", "8"),
    )
    run(capsys, dataset, out, "group")
    rows = {r["participant_id"]: r for r in read_rows(out / "group_runs.tsv")}
    assert [rows[f"sub-0{k}"]["status"] for k in (1, 2, 3)] == [
        *("done", "done"),
        "left_out",
    ]
    assert "5 degrees of freedom are left" in rows["sub-03"]["reason"]
    (path,) = out.glob("group_*_stack.h5")
    with h5py.File(path) as file:
        names = [name.decode() for name in file["runs/name"][()]]
    assert names == ["sub-01_task-rest", "sub-02_task-rest"]


def test_facts_of_a_run_are_columns(tmp_path, capsys):
    tree = Tree(tmp_path)
    facts = {
        "MeanFramewiseDisplacement": 0.174,
        "MeanFramewiseDisplacementKept": 0.103,
        "DegreesOfFreedom": 50.5,
        "EffectiveDegreesOfFreedom": 21.25,
        "LongestGap": 7,
        "NumberOfGaps": 3,
    }
    tree.regions("sub-01_task-rest")
    tree.series("sub-01_task-rest", **facts)
    tree.regions("sub-02_task-rest")
    tree.series("sub-02_task-rest")
    run(capsys, "x", tmp_path, "group")
    one, two = read_rows(tmp_path / "group_runs.tsv")
    columns = {
        "fd_mean": "0.174",
        "fd_mean_kept": "0.103",
        "degrees_of_freedom": "50.5",
        "effective_degrees_of_freedom": "21.25",
        "longest_gap": "7",
        "n_gaps": "3",
    }
    assert {k: one[k] for k in columns} == columns
    assert {two[k] for k in columns} == {"n/a"}
    # The stack has them too.
    h5py = pytest.importorskip("h5py")
    (path,) = tmp_path.glob("group_*_stack.h5")
    with h5py.File(path) as file:
        for column, value in columns.items():
            found = file[f"runs/{column}"][()]
            assert found[0] == float(value)
            assert np.isnan(found[1])


def test_runs_of_different_repetition_times_are_told(tmp_path, capsys):
    rng, tree = np.random.default_rng(0), Tree(tmp_path)
    for person, seconds in enumerate((2.0, 0.8, 2.0, 2.0004, 0.8), start=1):
        name = f"sub-0{person}_task-rest"
        tree.run(name, correlation(rng), fd=0.1 * person, RepetitionTime=seconds)
    shown = run(capsys, "x", tmp_path, "group", report=True)
    words = "0.8 s (2 runs), 2 s (3 runs)"
    assert words in shown.out
    for name in (group_name("relmat"), "group_qcfc.tsv", "group_reliability.tsv"):
        (warning,) = sidecar(tmp_path / name)["Warnings"]
        assert words in warning
    (row,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert row["repetition_times"] == words
    assert words in (tmp_path / "group.html").read_text()


def test_one_repetition_time_is_no_news(tmp_path, capsys):
    planted(tmp_path)
    shown = run(capsys, "x", tmp_path, "group")
    assert "averaged" not in shown.out
    assert "Warnings" not in sidecar(tmp_path / group_name("relmat"))
    (row,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert row["repetition_times"] == "2 s"


def test_regions_with_both_sides_have_no_distance(tmp_path, capsys):
    offsets = [0.0, 3.4, 20.0, 0.0, 1.0, 3.6]
    _, held = planted(tmp_path, offsets=offsets)
    run(capsys, "x", tmp_path, "group", report=True)
    z = np.array([np.arctanh(matrix[UPPER]) for matrix, _ in held.values()])
    fd = [each for _, each in held.values()]
    lengths, r = [], []
    for edge, (i, j) in enumerate(zip(*UPPER, strict=True)):
        if not {i, j} & {2, 5}:
            lengths.append(np.linalg.norm(CENTRES[i] - CENTRES[j]))
            r.append(scipy.stats.pearsonr(z[:, edge], fd).statistic)
    (row,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert (row["n_regions_outside"], row["n_edges_distance"]) == ("2", "6")
    expected = scipy.stats.spearmanr(lengths, r).statistic
    assert_allclose(float(row["distance_rho"]), expected, rtol=1e-9)
    assert "9 edges have no distance" in (tmp_path / "group.html").read_text()


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([30.0] * 6, "the centres of 6 of 6 regions lie outside of them"),
        ([0.0, 0.0, *[9.0] * 4], "the centres of 4 of 6 regions lie outside of them"),
        ([np.nan] * 6, "are not known"),
    ],
)
def test_distance_dependence_that_cannot_be_told_says_why(
    tmp_path, capsys, offsets, words
):
    planted(tmp_path, offsets=offsets)
    run(capsys, "x", tmp_path, "group")
    (row,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert row["distance_rho"] == "n/a"
    assert words in row["reason"]
    assert row["median_abs_r"] != "n/a"


def offsets_by_hand(labels, affine, index):
    """Region by region and voxel by voxel."""
    found = []
    for value in index:
        voxels = np.argwhere(labels == value)
        if not len(voxels):
            found.append(np.nan)
            continue
        centre = voxels.mean(axis=0)
        inside = (np.abs(voxels - centre) <= 0.5).all(axis=1).any()
        steps = (voxels - centre) @ affine[:3, :3].T
        found.append(0.0 if inside else min(np.linalg.norm(s) for s in steps))
    return found


def halves(rng):
    """Regions of random voxels, one with two far parts, one of one voxel."""
    labels = rng.integers(0, 4, datasets.SHAPE).astype(np.int64)
    labels[labels == 3] = 0
    labels[:2, :2, :2] = labels[-2:, -2:, -2:] = 7
    labels[3, 3, 3] = 9
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_offsets_are_those_of_a_loop(seed):
    labels, affine = halves(np.random.default_rng(seed)), datasets.oblique()
    index = np.array([1, 7, 2, 9, 55])
    grid = Grid.of(labels.shape, affine)
    found = map_labels(labels, index, grid, grid).offsets
    expected = offsets_by_hand(labels, affine, index)
    assert_allclose(found, expected, rtol=1e-10)
    assert found[3] == 0
    assert np.isnan(found[4])
    assert found[1] > 3.5
    # Maps of the same regions, with weak weights all over.
    volumes = [np.where(labels == value, 1.0, 0.0) for value in index[:4]]
    assert_allclose(map_weights(volumes, grid, grid).offsets, expected[:4], rtol=1e-10)
    weak = [np.where(volume > 0, 1.0, 1e-6) for volume in volumes]
    assert map_weights(weak, grid, grid).offsets[1] > 3.5


def test_offsets_are_in_the_region_table(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    run(capsys, dataset, out, "participant", "--atlas-file", atlas)
    table = read_regions(next(out.glob("sub-01/func/*_dseg.tsv")))
    cells = table["centre_offset"]
    expected = offsets_by_hand(datasets.labels(), datasets.oblique(), INDEX)
    for cell, value in zip(cells, expected, strict=True):
        if np.isnan(value):
            assert cell == "n/a"
        else:
            assert float(cell) == pytest.approx(value, abs=6e-4)
    assert len(NAMES) == 6
