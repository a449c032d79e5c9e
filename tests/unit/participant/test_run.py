"""What a run is made from is read once, however many steps and strategies use it."""

import collections
import sys

import pytest
from support.calls import run

from bids_roi.images import nifti

# Small files are known by what they hold: opened once to read, once for the digest.
AND_HASHED = 2
LISTENING = []  # lists that every path goes to that Python opens


def hear(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        for opened in LISTENING:
            opened.append(arguments[0])


sys.addaudithook(hear)  # for good: a hook cannot be taken away


@pytest.fixture
def opened():
    """Paths that are opened while the test runs, by whatever function."""
    found = []
    LISTENING.append(found)
    yield found
    LISTENING.remove(found)


@pytest.fixture
def loaded(monkeypatch):
    """Paths of images that are opened while the test runs."""
    found, read = [], nifti._read_affine

    def count(path, *args):
        found.append(str(path))
        return read(path, *args)

    monkeypatch.setattr(nifti, "_read_affine", count)
    return found


def call(cleaned_input, atlas, out, capsys, *strategies, report=True):
    root, _, bold = cleaned_input
    run(
        capsys, root, out, "participant", "--atlas-file", atlas,
        "--denoise", *strategies, report=report,
    )  # fmt: skip
    assert list(out.glob("sub-01/func/*_timeseries.tsv"))
    return bold, bold.with_name(bold.name.replace("preproc_bold", "brain_mask"))


def test_the_table_of_confounds_is_read_once(
    cleaned_input, atlas, tmp_path, capsys, opened
):
    """By three strategies, the motion of the region table and the figures."""
    call(cleaned_input, atlas, tmp_path / "out", capsys, "none", "24P", "36P", "simple")
    (table,) = cleaned_input[0].rglob("*_desc-confounds_timeseries.tsv")
    times = collections.Counter(opened)
    assert times[str(table)] == AND_HASHED
    assert times[str(table.with_suffix(".json"))] == AND_HASHED


def test_a_damaged_table_of_confounds_is_read_once(
    cleaned_input, atlas, tmp_path, capsys, opened
):
    root = cleaned_input[0]
    (table,) = root.rglob("*_desc-confounds_timeseries.tsv")
    table.write_text("framewise_displacement\nwrong\n" * 60)
    out = tmp_path / "out"
    opened.clear()
    said = run(
        capsys, root, out, "participant", "--atlas-file", atlas,
        "--denoise", "none", "24P", "36P", code=1, report=True,
    ).err  # fmt: skip
    assert "cells are not numbers" in said
    assert len(list(out.glob("sub-01/func/*_timeseries.tsv"))) == 1
    assert opened.count(str(table)) == AND_HASHED


def test_images_are_loaded_once(cleaned_input, atlas, tmp_path, capsys, loaded):
    """The atlas to be examined and to be used, the mask for numbers and figures."""
    out = tmp_path / "out"
    bold, mask = call(cleaned_input, atlas, out, capsys, "none", "24P")
    image = atlas.partition(",")[0]
    assert sorted(loaded) == sorted(map(str, (bold, mask, image)))


def test_more_strategies_and_figures_open_no_image_again(
    cleaned_input, atlas, tmp_path, capsys, opened
):
    counts = []
    for name, strategies, report in (
        ("plain", ("none",), False),
        ("all", ("none", "24P", "36P"), True),
    ):
        opened.clear()
        images = call(
            cleaned_input, atlas, tmp_path / name, capsys, *strategies, report=report
        )
        counts.append([opened.count(str(path)) for path in images])
    assert counts[0] == counts[1]
    assert min(counts[0]) > 0


def test_going_on_with_what_is_there_reads_each_sidecar_once(
    cleaned_input, atlas, tmp_path, capsys, opened, monkeypatch
):
    """But for the first participants, held against the options before all else."""
    monkeypatch.setattr("bids_roi.participant.level._LOOKED_AT", 0)
    out = tmp_path / "out"
    asked = (cleaned_input, atlas, out, capsys, "none", "24P", "36P")
    call(*asked, report=False)
    opened.clear()
    bold, mask = call(*asked, report=False)
    times = collections.Counter(opened)
    tables = [path for path in out.rglob("sub-*.tsv") if "sub-01" in path.parts]
    sidecars = [path.with_suffix(".json") for path in tables]
    assert len(tables) == 6
    assert [times[str(path)] for path in sidecars] == [1] * 6
    assert [times[str(path)] for path in tables] == [0] * 6
    # Whether it is there, its header, its checksum.
    assert times[str(bold)] == 3
    assert times[str(mask)] == 2
