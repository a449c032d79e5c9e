"""How many runs of how many participants there are, and of whom none is known."""

import itertools

import pytest

from bids_roi.outputs.counts import is_whole, say_size


def row(source, participant, session=None):
    return {"source": source, "participant_id": participant, "session_id": session}


ONE = row("sub-1/ses-1/func/sub-1_ses-1_task-a_bold.nii.gz", "sub-1", "ses-1")
OTHER = row("sub-2/func/sub-2_task-a_bold.nii.gz", "sub-2")
DAMAGED = row("sub-3_task-a_bold", "sub-3")
MATRIX = "sub-1/ses-1/func/sub-1_ses-1_task-a_atlas-A_stat-r_relmat"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([ONE, ONE], "1 run of 1 participant"),
        ([ONE, OTHER, DAMAGED], "3 runs of 3 participants"),
        # Matrices over runs, and those that could not be made, are no runs.
        ([ONE, row(f"{MATRIX}.tsv", "sub-1", "ses-1")], "1 run of 1 participant"),
        ([ONE, row(MATRIX, "sub-1", "ses-1")], "1 run of 1 participant"),
        ([ONE, row(f"{MATRIX}_conditions", "sub-1")], "1 run of 1 participant"),
        (
            [ONE, row("sub-2", "sub-2"), row("sub-4", "sub-4")],
            "1 run of 1 participant, and 2 participants of whom no run is known",
        ),
        (
            [ONE, row("sub-1_ses-2", "sub-1", "ses-2")],
            "1 run of 1 participant, and 1 session of which no run is known",
        ),
        (
            [row("sub-1_ses-2", "sub-1", "ses-2"), row("sub-2", "sub-2")],
            "0 runs of 0 participants, and 1 participant of whom no run is known, and 1"
            " session of which no run is known",
        ),
        # What an earlier call has made of them is known.
        ([ONE, row("sub-1", "sub-1")], "1 run of 1 participant"),
        ([ONE, row("sub-1_ses-1", "sub-1", "ses-1")], "1 run of 1 participant"),
        # A run of which nothing tells the source.
        ([ONE, row("n/a", "sub-1"), row(None, "sub-1")], "1 run of 1 participant"),
    ],
)
def test_runs_are_counted_apart_from_whom_none_is_known(rows, told):
    for order in itertools.permutations(rows):
        assert say_size(order) == told


def test_names_of_runs_are_no_participant():
    assert [is_whole(one["source"]) for one in (ONE, OTHER, DAMAGED)] == [False] * 3
    assert not is_whole("n/a")
