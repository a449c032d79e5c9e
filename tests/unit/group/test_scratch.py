"""Numbers on disk come back as they were written, whatever is written between."""

import contextlib
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bids_roi.core.group.identification import Held, Identification
from bids_roi.errors import OutputError
from bids_roi.group import scratch
from bids_roi.group.scratch import Scratch, Shelf


@pytest.mark.parametrize("in_memory", [0, 1, 1000, 2**24])
def test_numbers_are_read_from_any_place_while_more_are_written(
    tmp_path, monkeypatch, in_memory
):
    monkeypatch.setattr(scratch, "_IN_MEMORY", in_memory)
    rng = np.random.default_rng(0)
    held = np.empty(0)
    with Scratch(tmp_path) as file:
        for _ in range(30):
            more = rng.normal(size=rng.integers(0, 40))
            file.write(more)
            held = np.concatenate([held, more])
            start = int(rng.integers(0, held.size + 3))
            n = int(rng.integers(0, 60))
            assert_array_equal(file.read(start, n), held[start : start + n])
        assert not [*tmp_path.iterdir()]  # it has no name, so that nothing can stay


def test_what_a_full_disk_refuses_is_said_when_it_is_written(tmp_path, monkeypatch):
    """Not when it is read: the system takes little at once, and the file keeps it."""
    full = partial(open, "/dev/full", "w+b")
    monkeypatch.setattr(scratch, "SpooledTemporaryFile", lambda *_, **__: full())
    file = Scratch(tmp_path)
    with pytest.raises(OutputError, match="No space left on device"):
        file.write(np.ones(3))
    with contextlib.suppress(OSError):
        file._file.close()


# Every run by itself, some together, with and without a rest; all in memory.
@pytest.mark.parametrize("together", [1, 7 * 4 * 3, 2**22])
@pytest.mark.parametrize("n_runs", [1, 2, 3, 9, 10])
def test_a_shelf_gives_the_edges_that_memory_gives(
    tmp_path, monkeypatch, n_runs, together
):
    monkeypatch.setattr(scratch, "_TOGETHER", together)
    monkeypatch.setattr(scratch, "_IN_MEMORY", 10)
    runs = np.random.default_rng(1).normal(size=(n_runs, 7)).astype(np.float32)
    runs[0, 2] = np.nan
    with Scratch(tmp_path) as file:
        shelf, held = Shelf(file, 7), Held()
        for row in runs:
            shelf.append(row)
            held.append(row)
        assert len(shelf) == len(held) == n_runs
        for start in range(8):
            for stop in range(start, 8):
                found = shelf.cut(slice(start, stop))
                wanted = runs[:, start:stop].astype(float)
                assert found.dtype == np.float64
                assert found.flags.c_contiguous  # so that sums are of the same bits
                assert_array_equal(found, wanted)
                assert_array_equal(held.cut(slice(start, stop)), wanted)


@pytest.mark.parametrize("block", [1, 12, 2**19])
def test_runs_on_a_shelf_are_compared_like_those_in_memory(
    tmp_path, monkeypatch, block
):
    monkeypatch.setattr(scratch, "_TOGETHER", 7 * 4 * 3)
    runs = np.random.default_rng(5).normal(size=(4, 2, 7))
    with Scratch(tmp_path) as file:
        kinds = Identification(7, Shelf(file, 7), block=block), Identification(7)
        for one in kinds:
            for own in runs:
                for run in own:
                    one.add_run(run)
                one.close_participant()
        on_disk, in_memory = (one.summarise() for one in kinds)
    assert on_disk == in_memory
    assert on_disk.discriminability is not None
