"""Group matrices, QC-FC, reliability and networks, read back from their files."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal
from support.calls import UPPER, group_name, run
from support.datasets import snapshot
from support.group_trees import (
    CENTRES,
    NAMES,
    NETWORKS,
    SPACE,
    Tree,
    correlation,
    lose,
    read_rows,
    read_square,
)
from support.oracles import anova_by_hand

RUNS = {"01": 2, "02": 1, "03": 3, "04": 2, "05": 1, "10": 2}


def plant(root, *, seed=0, stat="pearsoncorrelation", convert=None):
    """A group with lost regions and runs without FD; returns what it holds."""
    rng = np.random.default_rng(seed)
    tree, held = Tree(root), []
    for person, n_runs in RUNS.items():
        for number in range(1, n_runs + 1):
            matrix = correlation(rng)
            if person in ("03", "10"):
                matrix = lose(matrix, number)
            fd = None if (person, number) == ("04", 2) else float(rng.gamma(2, 0.1))
            name = f"sub-{person}_task-rest_run-{number}"
            written = matrix if convert is None else convert(matrix)
            tree.run(name, written, fd=fd, stat=stat)
            held.append((person, fd, matrix))
    return held


def edge_table(held, transform=np.arctanh):
    """Runs x edges, and FD, with the participant as index."""
    with np.errstate(divide="ignore"):
        values = [transform(matrix[UPPER]) for _, _, matrix in held]
    table = pd.DataFrame(values, index=[person for person, _, _ in held])
    return table.assign(fd=[fd for _, fd, _ in held]).astype(float)


def square(values, diagonal=np.nan):
    matrix = np.full((len(NAMES), len(NAMES)), float(diagonal))
    matrix[UPPER] = values
    matrix.T[UPPER] = values
    return matrix


@pytest.mark.parametrize("unit", ["participant", "run"])
def test_group_equals_pandas(tmp_path, capsys, unit):
    held = plant(tmp_path)
    shown = run(capsys, "x", tmp_path, "group", "--group-unit", unit)
    assert f"1 group of matrices, over {unit}s" in shown.out
    table = edge_table(held)
    units = table if unit == "run" else table.groupby(level=0).mean()
    edges = units.drop(columns="fd")
    names, mean = read_square(tmp_path / group_name("relmat"))
    assert names == list(NAMES)
    assert_allclose(mean, square(np.tanh(edges.mean()), 1), rtol=1e-10)
    assert_array_equal(mean, mean.T)
    assert_array_equal(mean.diagonal(), 1)
    _, deviation = read_square(tmp_path / group_name("relmatsd"))
    assert_allclose(deviation, square(edges.std(ddof=1)), rtol=1e-10)
    _, n = read_square(tmp_path / group_name("relmatn"))
    assert_array_equal(n[UPPER], edges.count())
    text = (tmp_path / group_name("relmatn")).read_text()
    assert "." not in text.replace(" ", "").partition("\n")[2], "counts are integers"
    r = edges.corrwith(units.fd)
    _, qcfc = read_square(tmp_path / group_name("qcfc"))
    assert_allclose(qcfc, square(r), rtol=1e-9)
    _, icc = read_square(tmp_path / group_name("icc"))
    runs = table.drop(columns="fd")
    expected = [
        anova_by_hand([runs.loc[[p], e].to_numpy() for p in RUNS]) for e in runs
    ]
    assert_allclose(icc, square(expected), rtol=1e-9)
    sidecar = json.loads(
        (tmp_path / group_name("relmat")).with_suffix(".json").read_text()
    )
    assert sidecar["GroupUnit"] == unit
    assert sidecar["NumberOfRuns"] == 11
    assert sidecar["NumberOfParticipants"] == 6
    assert sidecar["OptionsDigest"] == "d0d0d0d0d0d0"
    check_summaries(tmp_path, units, expected, unit)


def check_summaries(folder, units, icc, unit):
    edges, (row,) = units.drop(columns="fd"), read_rows(folder / "group_qcfc.tsv")
    found = {key: value for key, value in row.items() if value != "n/a"}
    assert found["task_id"] == "rest"
    assert found["atlas_id"] == "Toy"
    assert found["group_unit"] == unit
    assert found["n_units_fd"] == str(units.fd.count())
    assert_allclose(float(found["fd_mean"]), units.fd.mean())
    assert_allclose(float(found["fd_standard_deviation"]), units.fd.std(ddof=1))
    p, r, lengths = [], [], []
    for edge in edges:
        both = units[[edge, "fd"]].dropna()
        if len(both) < 4:
            continue
        result = scipy.stats.pearsonr(both[edge], both.fd)
        p.append(result.pvalue)
        r.append(result.statistic)
        first, second = (axis[edge] for axis in UPPER)
        lengths.append(np.linalg.norm(CENTRES[first] - CENTRES[second]))
    adjusted = scipy.stats.false_discovery_control(p)
    expected = {
        "n_edges": len(r),
        "median_abs_r": np.median(np.abs(r)),
        "share_p05": np.mean(np.array(p) < 0.05),
        "share_fdr": np.mean(adjusted < 0.05),
        "distance_rho": scipy.stats.spearmanr(lengths, r).statistic,
        "n_edges_distance": len(r),
    }
    for key, value in expected.items():
        assert_allclose(float(found[key]), value, rtol=1e-9, err_msg=key)
    assert row["reason"] == "n/a"
    (row,) = read_rows(folder / "group_reliability.tsv")
    assert row["n_participants_repeated"] == "4"
    quartiles = [float(row[key]) for key in ("icc_q25", "icc_median", "icc_q75")]
    assert_allclose(quartiles, np.percentile(icc, [25, 50, 75]), rtol=1e-9)
    assert_allclose(float(row["share_fair"]), np.mean(np.array(icc) >= 0.4))


def test_networks_are_means_over_participants_of_block_means(tmp_path, capsys):
    held = plant(tmp_path)
    run(capsys, "x", tmp_path, "group")
    table = edge_table(held).drop(columns="fd").groupby(level=0).mean()
    rows = read_rows(tmp_path / group_name("networks"))
    found = {(r["network_1"], r["network_2"]): r for r in rows}
    assert set(found) == {
        (a, b)
        for k, a in enumerate(["Visual", "Motor", "Default"])
        for b in ["Visual", "Motor", "Default"][k:]
    }
    for (a, b), row in found.items():
        inside = [
            e
            for e, (i, j) in enumerate(zip(*UPPER, strict=True))
            if sorted([NETWORKS[i], NETWORKS[j]]) == sorted([a, b])
        ]
        assert row["n_edges"] == str(len(inside))
        if not inside:
            assert (row["mean"], row["n_units"]) == ("n/a", "0")
            continue
        means = table[inside].mean(axis=1)
        assert_allclose(float(row["mean"]), means.mean(), rtol=1e-10)
        assert_allclose(float(row["standard_deviation"]), means.std(ddof=1), rtol=1e-9)
        assert_allclose(float(row["correlation"]), np.tanh(means.mean()), rtol=1e-10)


def test_fisher_z_files_are_averaged_as_they_are(tmp_path, capsys):
    def convert(matrix):
        with np.errstate(divide="ignore"):
            z = np.arctanh(matrix)
        np.fill_diagonal(z, np.nan)
        return z

    held = plant(tmp_path / "r")
    plant(tmp_path / "z", stat="pearsonfisherz", convert=convert)
    for folder in ("r", "z"):
        run(capsys, "x", tmp_path / folder, "group")
    mean = edge_table(held).drop(columns="fd").groupby(level=0).mean().mean()
    _, found = read_square(tmp_path / "z" / group_name("relmat", "pearsonfisherz"))
    assert_allclose(found, square(mean), rtol=1e-10)
    for suffix in ("relmatsd", "relmatn", "qcfc", "icc"):
        _, of_r = read_square(tmp_path / "r" / group_name(suffix))
        _, of_z = read_square(tmp_path / "z" / group_name(suffix, "pearsonfisherz"))
        assert_allclose(of_z, of_r, rtol=1e-9, err_msg=suffix)


def test_covariance_is_averaged_without_fisher_z(tmp_path, capsys):
    held = plant(tmp_path, stat="covariance", convert=lambda matrix: 40 * matrix)
    run(capsys, "x", tmp_path, "group")
    edges = edge_table(held, transform=lambda r: 40 * r).drop(columns="fd")
    mean = edges.groupby(level=0).mean().mean()
    _, found = read_square(tmp_path / group_name("relmat", "covariance"))
    assert_allclose(found, square(mean, 40.0), rtol=1e-10)
    _, n = read_square(tmp_path / group_name("relmatn", "covariance"))
    assert_array_equal(n.diagonal(), 6)
    (row,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert row["n_edges"] == "15", "a variance is no edge"


def test_identical_series_do_not_make_a_mean_infinite(tmp_path, capsys):
    rng, tree = np.random.default_rng(0), Tree(tmp_path)
    for person in range(1, 6):
        signals = rng.normal(size=(40, len(NAMES)))
        if person < 3:
            signals[:, 1] = signals[:, 0]
        matrix = np.corrcoef(signals.T)
        matrix = (matrix + matrix.T) / 2
        np.fill_diagonal(matrix, 1)
        tree.run(f"sub-0{person}_task-rest", matrix, fd=0.1 * person)
    run(capsys, "x", tmp_path, "group")
    _, mean = read_square(tmp_path / group_name("relmat"))
    _, n = read_square(tmp_path / group_name("relmatn"))
    assert abs(mean[0, 1]) < 0.9
    assert (n[0, 1], n[0, 2]) == (3, 5)
    (row,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert row["n_edges_identical"] == "2"
    assert row["n_edges"] == "14", "three participants are too few for an edge"


def test_region_that_all_have_lost(tmp_path, capsys):
    rng, tree = np.random.default_rng(0), Tree(tmp_path)
    for person in range(1, 6):
        matrix = lose(correlation(rng), 4)
        tree.run(f"sub-0{person}_task-rest", matrix, fd=0.1 * person)
    run(capsys, "x", tmp_path, "group")
    _, mean = read_square(tmp_path / group_name("relmat"))
    _, n = read_square(tmp_path / group_name("relmatn"))
    assert np.isnan(mean[4]).all()
    assert (n[4] == 0).all()
    assert_array_equal(np.delete(mean.diagonal(), 4), 1)


@pytest.mark.parametrize(
    ("fds", "reason"),
    [
        ([0.1, 0.2, 0.3, None, None], "3 participants have a mean FD; 4 are needed."),
        ([0.1, 0.1, 0.1, 0.1, 0.1], "Mean FD is the same in all participants."),
        ([None] * 5, "0 participants have a mean FD; 4 are needed."),
    ],
)
def test_qcfc_that_cannot_be_told_says_why(tmp_path, capsys, fds, reason):
    rng, tree = np.random.default_rng(0), Tree(tmp_path)
    for person, fd in enumerate(fds, start=1):
        tree.run(f"sub-0{person}_task-rest", correlation(rng), fd=fd)
    run(capsys, "x", tmp_path, "group")
    (row,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert row["reason"] == reason
    assert row["median_abs_r"] == row["share_fdr"] == row["distance_rho"] == "n/a"
    assert not (tmp_path / group_name("qcfc")).exists()
    (row,) = read_rows(tmp_path / "group_reliability.tsv")
    assert row["icc_median"] == "n/a"
    assert row["reason"] == "No participant has two runs or more."
    assert not (tmp_path / group_name("icc")).exists()


def test_without_centres_and_networks(tmp_path, capsys):
    rng = np.random.default_rng(0)
    tree = Tree(tmp_path, networks=None, centres=None)
    for person in range(1, 6):
        tree.run(f"sub-0{person}_task-rest", correlation(rng), fd=0.1 * person)
    run(capsys, "x", tmp_path, "group")
    (row,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert row["distance_rho"] == "n/a"
    assert "centres of the regions are not known" in row["reason"]
    assert float(row["median_abs_r"]) > 0
    assert not list(tmp_path.glob("group_*networks*"))


def test_mean_fd_of_the_series_serves_where_the_matrix_does_not_tell(tmp_path, capsys):
    rng, tree = np.random.default_rng(0), Tree(tmp_path)
    fds = [0.1, 0.5, 0.2, 0.4, 0.3]
    for person, fd in enumerate(fds, start=1):
        name = f"sub-0{person}_task-rest"
        tree.regions(name)
        tree.series(name, MeanFramewiseDisplacement=fd, MaxFramewiseDisplacement=1.5)
        tree.relmat(name, correlation(rng), desc="36P")
    run(capsys, "x", tmp_path, "group")
    (row,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert row["n_units_fd"] == "5"
    assert_allclose(float(row["fd_mean"]), np.mean(fds))
    rows = read_rows(tmp_path / "group_runs.tsv")
    told = [(r["desc_id"], r["fd_mean"], r["fd_max"]) for r in rows]
    assert told == [(d, str(fd), "1.5") for fd in fds for d in ("n/a", "36P")]


def contaminate(rng, motion, *, n_volumes=150, strength=1.0):
    """Signals of a participant who moves: near regions share what motion adds."""
    signals = rng.normal(size=(n_volumes, len(NAMES)))
    spikes = rng.normal(size=(n_volumes, 1)) * motion
    distance = np.linalg.norm(CENTRES - CENTRES[0], axis=1)
    return signals + strength * spikes * np.exp(-distance / 40), spikes


def test_qcfc_rises_with_contamination_and_falls_after_cleaning(tmp_path, capsys):
    rng, tree = np.random.default_rng(4), Tree(tmp_path)
    motion = rng.gamma(2, 0.5, 40)
    for person, amount in enumerate(motion, start=1):
        name = f"sub-{person:02d}_task-rest"
        for desc, strength in (("still", 0.0), ("some", 0.5), ("much", 2.0)):
            signals, spikes = contaminate(rng, amount, strength=strength)
            matrices = {desc: signals}
            if desc == "much":
                fit = np.linalg.lstsq(spikes, signals, rcond=None)[0]
                matrices["cleaned"] = signals - spikes @ fit
            for label, values in matrices.items():
                matrix = np.corrcoef(values.T)
                matrix = (matrix + matrix.T) / 2
                np.fill_diagonal(matrix, 1)
                tree.run(name, matrix, fd=0.2 * float(amount), desc=label)
    run(capsys, "x", tmp_path, "group")
    rows = {row["desc_id"]: row for row in read_rows(tmp_path / "group_qcfc.tsv")}
    median = {desc: float(row["median_abs_r"]) for desc, row in rows.items()}
    chance = float(rows["still"]["median_abs_r_chance"])
    assert median["still"] < median["some"] < median["much"]
    assert median["still"] < 2 * chance
    assert median["much"] > 5 * chance
    assert median["cleaned"] < median["some"]
    assert float(rows["much"]["share_fdr"]) > 0.9
    assert float(rows["cleaned"]["share_fdr"]) < 0.2
    assert float(rows["much"]["distance_rho"]) < -0.3


def test_tasks_and_echoes_are_not_mixed(tmp_path, capsys):
    rng, tree = np.random.default_rng(0), Tree(tmp_path)
    for name in ("task-rest", "task-nback", "task-rest_echo-1", "task-rest_echo-2"):
        for person in (1, 2):
            tree.run(f"sub-0{person}_{name}", correlation(rng), fd=0.1)
    run(capsys, "x", tmp_path, "group")
    rows = read_rows(tmp_path / "group_qcfc.tsv")
    assert [(r["task_id"], r["echo_id"], r["n_runs"]) for r in rows] == [
        ("nback", "n/a", "2"),
        ("rest", "n/a", "2"),
        ("rest", "1", "2"),
        ("rest", "2", "2"),
    ]
    (coverage,) = tmp_path.glob("group_*_coverage.tsv")
    assert len(read_rows(coverage)) == 8


def test_twice_is_the_same_and_what_is_gone_goes(tmp_path, capsys):
    plant(tmp_path)
    run(capsys, "x", tmp_path, "group")
    before = snapshot(tmp_path)
    run(capsys, "x", tmp_path, "group")
    assert snapshot(tmp_path) == before
    own = tmp_path / "group_notes.tsv"
    own.write_text("not written by the group level")
    for path in tmp_path.glob("sub-*/func/*_relmat.*"):
        path.unlink()
    shown = run(capsys, "x", tmp_path, "group")
    assert "removed, for they are out of date" in shown.out
    left = sorted(path.name for path in tmp_path.glob("group_*"))
    stem = f"group_space-{SPACE}_atlas-Toy"
    tables = ["group_runs", *(f"{stem}_{m}" for m in ("coverage", "level", "tsnr"))]
    expected = [f"{table}.{end}" for table in tables for end in ("json", "tsv")]
    expected.append(f"{stem}_stack.h5")
    assert left == sorted([*expected, own.name])


def test_an_edited_list_of_files_removes_nothing_else(tmp_path, capsys):
    plant(tmp_path)
    (tmp_path / "precious.tsv").write_text("x")
    names = ["precious.tsv", "../out.tsv", "group_/../precious.tsv", 7]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/group_files.json").write_text(json.dumps({"Files": names}))
    run(capsys, "x", tmp_path, "group")
    assert (tmp_path / "precious.tsv").exists()
    (tmp_path / "logs/group_files.json").write_text('{"Files": 3}')
    run(capsys, "x", tmp_path, "group")
