"""Blocks of a file: by volumes as in NIfTI, by points as in CIFTI."""

import gzip
import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bids_roi.errors import ImageError
from bids_roi.images.stream import VolumeSource, check_size

N_VOLUMES, N_POINTS = 7, 11


def write(path, plane, dtype, *, by_points):
    """A header of 16 bytes and the values, row by row; the source that reads them."""
    rows = plane.T if by_points else plane
    content = bytes(16) + np.ascontiguousarray(rows, dtype).tobytes()
    compressed = path.suffix == ".gz"
    path.write_bytes(gzip.compress(content) if compressed else content)
    return VolumeSource(path, 16, dtype, N_POINTS, N_VOLUMES, compressed, by_points)


def plane():
    """A level of its own for each point, and a ramp: time and space are not alike."""
    return 100 * np.arange(N_POINTS) + np.arange(N_VOLUMES)[:, None]


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("dtype", ["<f4", ">i2"])
@pytest.mark.parametrize("by_points", [True, False])
@pytest.mark.parametrize("block_bytes", [1, 100, 2**20])
def test_blocks_put_together_are_the_plane(
    tmp_path, name, dtype, by_points, block_bytes
):
    source = write(tmp_path / name, plane(), dtype, by_points=by_points)
    check_size(source)
    found = np.zeros((N_VOLUMES, N_POINTS))
    times = np.zeros((N_VOLUMES, N_POINTS))
    for block in source.blocks(block_bytes):
        t, v = block.values.shape
        assert (N_VOLUMES if by_points else N_POINTS) == (t if by_points else v)
        n_rows = v if by_points else t
        assert n_rows == 1 or block.values.nbytes <= block_bytes
        found[block.volumes, block.points] += block.values
        times[block.volumes, block.points] += 1
        assert not by_points or v < N_POINTS
    assert_array_equal(found, plane())
    assert (times == 1).all()


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("dtype", ["<f4", ">i2"])
@pytest.mark.parametrize("block_bytes", [1, 100, 2**20])
@pytest.mark.parametrize("piece", [4, 12, 2**19])
@pytest.mark.parametrize("points", [[0, 1, 4, 10], [5], range(N_POINTS)])
def test_picked_points_are_those_of_the_plane(
    tmp_path, monkeypatch, name, dtype, block_bytes, piece, points
):
    monkeypatch.setattr("bids_roi.images.stream._UNPACKED", piece)
    source = write(tmp_path / name, plane(), dtype, by_points=False)
    points = np.array(points)
    found, watched = [], np.zeros((N_VOLUMES, N_POINTS))

    def watch(start, values, first):
        t, v = values.shape
        watched[start : start + t, first : first + v] += values

    for block in source.pick(block_bytes, points, watch):
        assert block.picked
        assert (block.volumes.start, block.points) == (len(found), slice(0, N_POINTS))
        found.extend(block.values.copy())
    assert_array_equal(found, plane()[:, points])
    assert_array_equal(watched, plane())


@pytest.mark.parametrize("at", [7, 17, 12_001, 12_016, 30_000])
def test_points_are_picked_where_reads_end_before_a_piece_does(
    tmp_path, monkeypatch, at
):
    """The library hands out its buffer first, and may stop where a member ends."""
    monkeypatch.setattr("bids_roi.images.stream._UNPACKED", 4096)
    values = np.arange(4 * 3000, dtype="<f4").reshape(4, 3000)
    whole = bytes(16) + values.tobytes()
    members = (whole[:at], b"", whole[at : at + 1], whole[at + 1 :])
    path = tmp_path / "x.nii.gz"
    path.write_bytes(b"".join(map(gzip.compress, members)))
    points = np.arange(1, 3000, 7)
    source = VolumeSource(path, 16, "<f4", 3000, 4, compressed=True)
    found = [row for block in source.pick(100, points) for row in block.values.copy()]
    assert_array_equal(found, values[:, points])


def test_a_file_that_is_picked_from_is_held_against_its_header_too(tmp_path):
    source = write(tmp_path / "x.nii.gz", plane(), "<f4", by_points=False)
    whole = gzip.decompress(source.path.read_bytes())
    damaged = bytearray(gzip.compress(whole))
    damaged[-6] ^= 1  # of the checksum
    for content, words in (
        (gzip.compress(whole[: 16 + 82]), "ends in volume 2 of 7"),
        (gzip.compress(whole + bytes(4)), "goes on after the 7 volumes"),
        (damaged, "damaged"),
    ):
        source.path.write_bytes(content)
        for read in (source.blocks, lambda: source.pick(100, np.arange(3))):
            with pytest.raises(ImageError, match=words) as told:
                list(read())
            words = re.escape(str(told.value))  # the same, whichever way


@pytest.mark.parametrize(
    ("by_points", "words"),
    [(True, "ends in grayordinate 3 of 11"), (False, "ends in volume 2 of 7")],
)
def test_a_file_that_ends_early_says_in_which_row(tmp_path, by_points, words):
    """20 whole values and a half: 2 series of 7, or 1 volume of 11."""
    source = write(tmp_path / "x.nii", plane(), "<f4", by_points=by_points)
    source.path.write_bytes(source.path.read_bytes()[: 16 + 82])
    with pytest.raises(ImageError, match=words):
        list(source.blocks())
    with pytest.raises(ImageError, match=words):
        check_size(source)
