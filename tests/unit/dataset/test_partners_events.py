"""Tables of events: found by inheritance, read, refused; volumes by hand."""

import os

import pytest

from bids_roi.dataset.partners import Blocks, find_events, read_blocks
from bids_roi.errors import DataError, MissingInput
from bids_roi.files.names import parse_name


def test_the_table_of_events_is_found_by_inheritance(tmp_path):
    name = parse_name("sub-1_ses-a_task-x_run-2_echo-1_space-T1w_atlas-A_relmat.tsv")
    assert find_events(tmp_path, name) is None
    paths = [
        "task-x_events.tsv",
        "sub-1/sub-1_task-x_events.tsv",
        "sub-1/ses-a/func/sub-1_ses-a_task-x_events.tsv",
        "sub-1/ses-a/func/sub-1_ses-a_task-x_run-2_events.tsv",
    ]
    for path in paths:
        other = tmp_path / path.replace("task-x", "task-y")
        for file in (tmp_path / path, other):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        assert find_events(tmp_path, name) == tmp_path / path
    (tmp_path / "sub-1/ses-a/func/sub-1_task-x_run-2_ses-a_events.tsv").touch()
    with pytest.raises(DataError, match="two tables of events"):
        find_events(tmp_path, name)


def test_a_table_of_an_outer_folder_stands_in_for_none_that_is_closed(
    tmp_path, monkeypatch
):
    inner, list_folder = tmp_path / "sub-1" / "func", os.scandir
    inner.mkdir(parents=True)
    (tmp_path / "task-x_events.tsv").touch()
    name = parse_name("sub-1_task-x_bold.nii.gz")
    assert find_events(tmp_path, name) == tmp_path / "task-x_events.tsv"

    def scandir(path="."):
        if str(path) == str(inner):
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    os.utime(inner)
    with pytest.raises(MissingInput, match=r"cannot be read \(Permission denied"):
        find_events(tmp_path, name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("onset\tduration\n1\t2\n", "no column trial_type"),
        ("onset\tduration\ttrial_type\n1,5\t2\ta\n", "'1,5' in row 1 is no time"),
        ("onset\tduration\ttrial_type\n1\tinf\ta\n", "'inf' in row 1 is no time"),
    ],
)
def test_tables_that_are_wrong(tmp_path, text, words):
    path = tmp_path / "events.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_blocks(path, ["a"])


def test_blocks_by_hand(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text(
        "onset\tduration\ttrial_type\n4.2\t1.4\ta\nn/a\t1\ta\n3\tn/a\ta\n1\t2\tb\n"
    )
    found, error = read_blocks(path, ["a", "b"])
    assert error is None
    assert found["a"].n_unusable == 2
    assert found["a"].spans == ((4.2, 4.2 + 1.4),)
    assert found["b"] == Blocks(((1.0, 3.0),), 0)
    # 6 * 0.7 is 4.199999999999999: at the onset all the same; 8 * 0.7 is at the end.
    times = [0.7 * volume for volume in range(10)]
    assert [k for k, one in enumerate(found["a"].choose(times, 0)) if one] == [6, 7]
    assert [k for k, one in enumerate(found["a"].choose(times, 1.4)) if one] == [8, 9]
    there, error = read_blocks(path, ["a", "c", "d"])
    assert there == {"a": found["a"]}
    assert "no condition c, d" in error.problem
    assert error.remedy.endswith("There are a, b.")
