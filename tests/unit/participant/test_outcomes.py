"""The summary of a dataset: counts that agree with the records they are of."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bids_roi.outputs.records import Record
from bids_roi.participant.outcomes import Tally

STATUSES = ("done", "complete", "skipped", "failed")


def runs():
    record = st.tuples(
        st.sampled_from(STATUSES),
        st.integers(0, 4),
        st.floats(0, 1),
        st.text(max_size=3),
    )
    run = st.tuples(st.integers(1, 3), st.lists(record, min_size=1, max_size=3))
    return st.lists(run, max_size=15)


@given(runs())
def test_counts_are_those_of_the_records(dataset):
    tally, everything = Tally(), []
    for number, (person, rows) in enumerate(dataset):
        name = f"sub-{person}/func/sub-{person}_run-{number}_bold.nii.gz"
        records = [
            Record(name, f"A{k}", word, why, n_regions=4, n_lost=lost, coverage=share)
            for k, (word, lost, share, why) in enumerate(rows)
        ]
        tally.add(records)
        everything += records
    failed = [r for r in everything if r.status == "failed"]
    good = [r for r in everything if r.status in ("done", "complete")]
    assert tally.statuses == Counter(r.status for r in everything)
    assert tally.n_runs == len({r.run for r in everything})
    assert tally.n_failed_runs == len({r.run for r in failed})
    assert tally.participants == {r.run.split("/")[0] for r in everything}
    text = "\n".join(tally.lines(["A"]))
    if good:
        mean = 100 * sum(r.coverage for r in good) / len(good)
        assert f"mean coverage {mean:.1f} %" in text
    worst = max((r.n_lost for r in good), default=0)
    assert (f"most: {worst} of 4" in text) == (worst > 0)
    # The first five reasons, each as often as it was met; the others are counted.
    shown = list(dict.fromkeys(r.reason for r in failed))[:5]
    assert dict(tally.reasons) == {
        reason: sum(r.reason == reason for r in failed) for reason in shown
    }
    n_more = sum(r.reason not in shown for r in failed)
    assert (f"and {n_more} more" in text) == (n_more > 0)


def test_it_does_not_grow_with_the_dataset():
    tally = Tally()
    for number in range(2000):
        name = f"sub-1/func/sub-1_run-{number}_bold.nii.gz"
        tally.add([Record(name, "A", "failed", f"reason {number}")])
    assert tally.statuses["failed"] == tally.n_failed_runs == 2000
    assert dict(tally.reasons) == {f"reason {n}": 1 for n in range(5)}
