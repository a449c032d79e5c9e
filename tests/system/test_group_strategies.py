"""``group_strategies.tsv``: what strategies are compared by, against arithmetic."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from support.calls import UPPER, run
from support.group_trees import Tree, correlation, read_rows
from support.oracles import discriminability_by_loops, identification_by_loops

N_PARTICIPANTS = 5
# Of each strategy: how much of a matrix is the participant's own; volumes kept, and
# degrees of freedom left, of run 1 and run 2, of 100.
STRATEGIES = {
    "": (0.2, (100, 100), (99, 99)),
    "24P": (0.8, (90, 70), (60, 40.5)),
}


def plant(root, runs=(1, 2), participants=N_PARTICIPANTS):
    rng, tree, z = np.random.default_rng(8), Tree(root), {}
    for desc, (own, kept, freedom) in STRATEGIES.items():
        z[desc] = []
        for person in range(1, participants + 1):
            mine = correlation(rng)
            z[desc].append([])
            for number in runs:
                matrix = own * mine + (1 - own) * correlation(rng)
                tree.run(
                    f"sub-0{person}_task-rest_run-{number}",
                    matrix,
                    desc=desc,
                    fd=0.1 * person + 0.01 * number,
                    NumberOfVolumesKept=kept[number - 1],
                    DegreesOfFreedom=freedom[number - 1],
                    EffectiveDegreesOfFreedom=freedom[number - 1] / 2,
                )
                z[desc][-1].append(np.arctanh(matrix[UPPER]))
    return z


def test_one_row_per_strategy_with_what_decides(tmp_path, capsys):
    z = plant(tmp_path)
    run(capsys, "x", tmp_path, "group")
    rows = {row["desc_id"]: row for row in read_rows(tmp_path / "group_strategies.tsv")}
    assert [*rows] == ["n/a", "24P"]
    raw, clean = rows.values()
    assert (raw["degrees_of_freedom_mean"], raw["n_volumes_mean"]) == ("99.0", "100.0")
    assert float(raw["degrees_of_freedom_lost_mean"]) == 1
    assert float(clean["n_volumes_kept_mean"]) == 80
    assert float(clean["share_volumes_kept"]) == pytest.approx(0.8)
    assert float(clean["degrees_of_freedom_mean"]) == 50.25
    assert float(clean["degrees_of_freedom_lost_mean"]) == 49.75
    assert float(clean["effective_degrees_of_freedom_mean"]) == 25.125
    for desc, row in zip(STRATEGIES, (raw, clean), strict=True):
        expected = discriminability_by_loops(z[desc])
        assert_allclose(float(row["discriminability"]), expected, atol=1e-12)
        expected = identification_by_loops(z[desc])
        assert_allclose(float(row["identification_rate"]), expected, atol=1e-12)
        assert row["n_participants_compared"] == str(N_PARTICIPANTS)
        assert (row["n_participants"], row["n_runs"]) == ("5", "10")
        assert row["reason"] == "n/a"
    # What has more of the participant in it is told apart more surely.
    assert float(raw["discriminability"]) < float(clean["discriminability"])
    # The other figures are those of the tables that they come from.
    for name in ("group_qcfc.tsv", "group_reliability.tsv"):
        for source, row in zip(read_rows(tmp_path / name), (raw, clean), strict=True):
            shared = source.keys() & row.keys() - {"reason"}
            assert len(shared) > 12
            assert {k: row[k] for k in shared} == {k: source[k] for k in shared}


def test_batches_and_processes_change_nothing(tmp_path, capsys):
    """More runs than a batch has, of participants with one, two and three."""
    rng, tree, z = np.random.default_rng(1), Tree(tmp_path), []
    for person in range(1, 46):
        mine, z_own = correlation(rng), []
        for number in range(1, 2 + person % 3):
            matrix = 0.5 * mine + 0.5 * correlation(rng)
            tree.run(f"sub-{person:02d}_task-rest_run-{number}", matrix, fd=0.1)
            z_own.append(np.arctanh(matrix[UPPER]))
        z.append(z_own)
    repeated = [own for own in z if len(own) > 1]
    tables = set()
    for n_procs in (1, 2):
        run(capsys, "x", tmp_path, "group", "--n-procs", n_procs)
        tables.add((tmp_path / "group_strategies.tsv").read_bytes())
    assert len(tables) == 1
    (row,) = read_rows(tmp_path / "group_strategies.tsv")
    assert row["n_participants_compared"] == str(len(repeated)) == "30"
    expected = discriminability_by_loops(repeated)
    assert_allclose(float(row["discriminability"]), expected, atol=1e-12)
    expected = identification_by_loops(repeated)
    assert_allclose(float(row["identification_rate"]), expected, atol=1e-12)


def test_every_column_is_described(tmp_path, capsys):
    plant(tmp_path)
    run(capsys, "x", tmp_path, "group")
    (row, _) = read_rows(tmp_path / "group_strategies.tsv")
    told = json.loads((tmp_path / "group_strategies.json").read_text())
    assert row.keys() <= told.keys()
    assert "10.1038/nn.4135" in told["identification_rate"]["Description"]


@pytest.mark.parametrize(
    ("runs", "participants", "words"),
    [
        ((1,), 5, "No participant has two runs or more."),
        ((1, 2), 1, "There is one participant; two are needed."),
    ],
)
def test_what_cannot_be_told_says_why(tmp_path, capsys, runs, participants, words):
    plant(tmp_path, runs, participants)
    run(capsys, "x", tmp_path, "group")
    for row in read_rows(tmp_path / "group_strategies.tsv"):
        assert row["discriminability"] == row["identification_rate"] == "n/a"
        assert words in row["reason"]
        assert row["degrees_of_freedom_mean"] != "n/a"


def test_one_participant_with_two_runs_among_others_says_why(tmp_path, capsys):
    plant(tmp_path)
    for path in tmp_path.glob("sub-0[2-5]/func/*_run-2_*"):
        path.unlink()
    run(capsys, "x", tmp_path, "group")
    for row in read_rows(tmp_path / "group_strategies.tsv"):
        assert row["icc_median"] != "n/a"
        assert row["discriminability"] == "n/a"
        assert "one participant has two runs; two are needed" in row["reason"]
