"""Batches of a group: whole participants with all that is theirs."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support.group_trees import Tree

from bids_roi.group import matrices
from bids_roi.group.covariates import build_design, read_covariates
from bids_roi.group.matrices import Asked, plan_group
from bids_roi.group.outputs import check_outputs
from bids_roi.group.scratch import Spool
from bids_roi.options.record import Options


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ([2] * 75, [32, 32, 11]),
        ([1] * 64, [64]),
        ([1] * 65, [64, 1]),
        ([63, 1, 1], [2, 1]),
        ([63, 100, 1], [2, 1]),
        ([200, 64, 1], [1, 1, 1]),
        ([1], [1]),
    ],
)
def test_a_batch_ends_with_the_participant_of_its_64th_run(counts, wanted):
    cuts = [*matrices._cut_people(counts)]
    ends = np.cumsum(wanted)
    assert [(cut.start, cut.stop) for cut in cuts] == [
        *zip([0, *ends[:-1]], ends, strict=True)
    ]


@pytest.mark.parametrize("n_runs", [1, 2, 3, 100])
def test_a_batch_has_what_is_of_its_participants(tmp_path, monkeypatch, n_runs):
    """Whether they are compared, covariates, motion, weight, and place on disk."""
    monkeypatch.setattr(matrices, "_BATCH_RUNS", n_runs)
    tree, counts = Tree(tmp_path), {"sub-1": 1, "sub-2": 2, "sub-3": 3, "sub-4": 1}
    for person, n in counts.items():
        for number in range(n):
            tree.relmat(f"{person}_task-rest_run-{number}", np.eye(6))
    outputs = [*check_outputs(tmp_path).relmats]
    assert len(outputs) == 7
    broken = tmp_path / outputs[0].path  # the names are those of the next
    broken.write_text("damaged\n")
    table = tmp_path / "participants.tsv"
    table.write_text("participant_id\tage\n1\t20\n2\t31\n3\tn/a\n4\t45\n")
    covariates = read_covariates(table, ["age"])
    motion = {output.path: 0.1 * n for n, output in enumerate(outputs)}
    asked = Asked(
        Options.of(group_weights="degrees_of_freedom").group,
        covariates,
        lambda output: motion[output.path],
        lambda output, _: 10 * motion[output.path],
        spool := Spool(tmp_path / "spool"),
    )
    spool.reserve(1000)
    plan = plan_group(tmp_path, outputs, None, asked)
    batches = [*plan.batches(outputs, asked)]
    assert len(batches) == {1: 4, 2: 3, 3: 3, 100: 1}[n_runs]
    assert {batch.names for batch in batches} == {tree.names}
    assert spool.size == 1000 + 7 * 8 * 21

    rows = build_design(covariates, counts).rows
    place, left = 1000, iter(outputs)
    people = iter(counts)
    for batch in batches:
        assert batch.place == place
        for files, compared, row in zip(
            batch.participants, batch.compared, batch.covariates, strict=True
        ):
            person = next(people)
            assert len(files) == counts[person]
            assert compared is (counts[person] > 1)
            assert (row is None) is (person not in rows) is (person == "sub-3")
            if row is not None:
                assert_array_equal(row, rows[person])
            for file in files:
                path = next(left).path
                assert (file.path, file.displacement) == (path, motion[path])
                assert file.weight == 10 * motion[path]
                place += 8 * 21
    assert [*left, *people] == []
