"""Atlas datasets of which a part cannot be read: told where it may hide an atlas."""

import pytest
from support.broken_disk import fail_to_list
from support.datasets import SPACE, write_atlas

from bids_roi.atlases.asked import parse_dataset
from bids_roi.errors import MissingInput


@pytest.fixture
def root(tmp_path):
    write_atlas(tmp_path / f"tpl-{SPACE}")
    return tmp_path


@pytest.mark.parametrize("word", ["tpl-fsLR", f"tpl-{SPACE}/anat"])
def test_a_closed_folder_of_an_atlas_dataset_is_told(root, monkeypatch, caplog, word):
    """Atlases of the other folders can be used all the same."""
    (root / word).mkdir()
    fail_to_list(monkeypatch, root / word, "EACCES")
    assert len(parse_dataset(f"mine={root}").files) == 2
    (record,) = caplog.records
    assert f"{root / word}: the folder cannot be read" in record.getMessage()
    monkeypatch.undo()
    fail_to_list(monkeypatch, root / word, "EIO")
    with pytest.raises(MissingInput, match="cannot be read"):
        parse_dataset(f"mine={root}")


@pytest.mark.parametrize("word", ["lost+found", f"tpl-{SPACE}/.heudiconv"])
def test_a_closed_folder_that_holds_no_atlas_is_no_matter(
    root, monkeypatch, caplog, word
):
    (root / word).mkdir()
    fail_to_list(monkeypatch, root / word, "EACCES")
    assert len(parse_dataset(f"mine={root}").files) == 2
    assert not caplog.records
