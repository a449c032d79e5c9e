"""Batches of a group: whole participants, as many as hold 64 runs."""

import numpy as np
import pytest

from bids_roi.group.matrices import _cut_people


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
    cuts = [*_cut_people(counts)]
    ends = np.cumsum(wanted)
    assert [(cut.start, cut.stop) for cut in cuts] == [
        *zip([0, *ends[:-1]], ends, strict=True)
    ]
