"""Blocks of a file: by volumes as in NIfTI, by points as in CIFTI."""

import gzip

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
