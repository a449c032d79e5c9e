"""Damaged and cut files: an error that names the file, or every value as it was."""

import gzip
import itertools
import struct
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support import datasets

from bids_roi.errors import BidsRoiError, ImageError
from bids_roi.files.tables import read_json, read_table
from bids_roi.images.header import BOLD
from bids_roi.images.nifti import open_image, read_labels, read_mask, write_image

RNG = np.random.default_rng(8)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Compressed bytes and the values in them; noise, so that every bit matters."""
    path = tmp_path_factory.mktemp("series") / "bold.nii.gz"
    values = RNG.integers(-(2**15), 2**15, (9, 8, 7, 20)).astype(np.int16)
    write_image(path, values, datasets.oblique())
    return path.read_bytes(), values


def read(path):
    """All values by the readers of the app, (x, y, z, T)."""
    bold = open_image(path, BOLD)
    blocks = [b.values.copy() for b in bold.source.blocks(3000)]
    return np.concatenate(blocks).T.reshape(*bold.grid.shape, -1, order="F")


def test_whole_file_reads_as_it_was_written(series, tmp_path):
    path = tmp_path / "whole_bold.nii.gz"
    path.write_bytes(series[0])
    assert_array_equal(read(path), series[1])


def test_series_cut_at_fifty_offsets_is_refused(series, tmp_path):
    content, _ = series
    path = tmp_path / "cut_bold.nii.gz"
    offsets = RNG.choice(np.arange(1, len(content) - 20), 50, replace=False)
    # And each of the last bytes: the end of the stream, the CRC, the length.
    for end in [*offsets.tolist(), *range(len(content) - 20, len(content))]:
        path.write_bytes(content[:end])
        with pytest.raises(BidsRoiError, match=r"cut_bold\.nii\.gz") as caught:
            read(path)
        assert caught.value.remedy, end
        assert caught.value.exit_code in (65, 66)


def test_label_image_and_mask_cut_or_flipped_are_refused(tmp_path):
    whole, path = tmp_path / "whole.nii.gz", tmp_path / "dseg.nii.gz"
    labels = RNG.integers(0, 100, (9, 8, 7)).astype(np.int16)
    write_image(whole, labels, datasets.oblique())
    content = whole.read_bytes()
    for end in RNG.choice(np.arange(1, len(content)), 25, replace=False):
        path.write_bytes(content[:end])
        for reader in (read_labels, read_mask):
            with pytest.raises(BidsRoiError, match=r"dseg\.nii\.gz"):
                reader(path)
    for bit in RNG.choice(np.arange(80, len(content) * 8), 60, replace=False):
        path.write_bytes(flip(content, bit))
        with pytest.raises(BidsRoiError, match=r"dseg\.nii\.gz"):
            read_labels(path)


def flip(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def positions(content):
    """Bits of each part of the gzip file: all of the short ones, some of the body."""
    n = len(content) * 8
    body = RNG.choice(np.arange(80, n - 64), 150, replace=False)
    yield from (("header", bit) for bit in range(80))
    yield from (("deflate body", int(bit)) for bit in body)
    yield from (("CRC", bit) for bit in range(n - 64, n - 32))
    yield from (("ISIZE", bit) for bit in range(n - 32, n))


def test_every_flipped_bit_is_refused_or_without_effect(series, tmp_path):
    content, values = series
    path = tmp_path / "flipped_bold.nii.gz"
    unharmed = set()
    for part, bit in positions(content):
        path.write_bytes(flip(content, bit))
        try:
            found = read(path)
        except BidsRoiError as error:
            assert "flipped_bold.nii.gz" in str(error), (part, bit)  # noqa: PT017
            continue
        unharmed.add((part, bit // 8))
        assert_array_equal(found, values, err_msg=f"{part}, bit {bit}")
    # What no reader needs: the "text" flag, the time, how hard it was packed, and on
    # which system. All else is noticed.
    assert unharmed <= {("header", byte) for byte in (3, 4, 5, 6, 7, 8, 9)}


def test_garbage_after_the_stream_is_refused_and_padding_is_not(series, tmp_path):
    content, values = series
    path = tmp_path / "tail_bold.nii.gz"
    path.write_bytes(content + b"garbage")
    with pytest.raises(ImageError, match=r"tail_bold\.nii\.gz"):
        read(path)
    path.write_bytes(content + bytes(512))  # as tapes and some file systems leave it
    assert_array_equal(read(path), values)


def test_members_are_read_as_one_stream(series, tmp_path):
    """As bgzip, pigz --independent and ``cat a.gz b.gz`` write them."""
    content, values = series
    plain = gzip.decompress(content)
    cuts = [0, 100, 348, 20_000, 20_000, len(plain)]
    members = [gzip.compress(plain[a:b], 1) for a, b in itertools.pairwise(cuts)]
    path = tmp_path / "members_bold.nii.gz"
    path.write_bytes(b"".join([*members, gzip.compress(b"")]))
    assert_array_equal(read(path), values)
    path.write_bytes(b"".join([*members, gzip.compress(b"more")]))
    with pytest.raises(ImageError, match="goes on after the 20 volumes"):
        read(path)
    path.write_bytes(b"".join(members[:-1]))
    with pytest.raises(ImageError, match="truncated"):
        read(path)


def test_uncompressed_file_that_shrinks_while_it_is_read(series, tmp_path):
    """No SIGBUS, which a memory map would bring: an error."""
    path = tmp_path / "shrinks_bold.nii"
    path.write_bytes(gzip.decompress(series[0]))
    bold = open_image(path, BOLD)
    blocks = bold.source.blocks(bold.source.volume_bytes)
    next(blocks)
    with path.open("r+b") as file:
        file.truncate(352 + 2 * bold.source.volume_bytes)
    with pytest.raises(ImageError, match=r"shrinks_bold\.nii: the file ends in volume"):
        list(blocks)


def header(shape, **fields):
    """A sound NIfTI-1 header of int16, but for what is given."""
    content = bytearray(352)
    at = {"sizeof_hdr": (0, "<i"), "dim": (40, "<8h"), "datatype": (70, "<2h")}
    at |= {"pixdim": (76, "<8f"), "offset": (108, "<f"), "codes": (252, "<2h")}
    at |= {"sform": (280, "<12f"), "magic": (344, "<4s")}
    values = {
        "sizeof_hdr": (348,),
        "dim": (len(shape), *shape, *[1] * (7 - len(shape))),
        "datatype": (4, 16),
        "pixdim": (1, 2, 2, 2, 2, 0, 0, 0),
        "offset": (352,),
        "codes": (1, 1),
        "sform": (2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0),
        "magic": (b"n+1\0",),
    }
    for name, value in {**values, **fields}.items():
        struct.pack_into(at[name][1], content, at[name][0], *value)
    return bytes(content)


ABSURD = {
    "huge volume": (header((32767, 32767, 32767, 5)), "GiB, 2 GiB can be used"),
    "huge series": (header((60, 60, 60, 32767)), r"declares 32767 volumes or 13,5"),
    "far offset": (header((4, 4, 4, 5), offset=(2e9,)), "first value at byte 20000000"),
    "no offset": (header((4, 4, 4, 5), offset=(float("nan"),)), "at byte -1"),
    "negative axis": (header((4, -4, 4, 5)), "4x-4x4x5"),
    "empty axis": (header((4, 0, 4, 5)), "4x0x4x5"),
    "flat affine": (header((4, 4, 4, 5), sform=(2, 0, 0, 0) * 3), "affine"),
    "no number": (header((4, 4, 4, 5), sform=(float("nan"),) * 12), "affine"),
}


@pytest.mark.parametrize("name", ABSURD)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_absurd_header_is_refused_before_anything_is_allocated(name, suffix, tmp_path):
    content, message = ABSURD[name]
    content += bytes(640)
    path = tmp_path / f"absurd_bold{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    if name == "huge series" and suffix == ".nii":
        message = "ends in volume 1 of 32767"
    with pytest.raises(ImageError, match=message):
        open_image(path, BOLD)
    for reader in (read_labels, read_mask):
        with pytest.raises(BidsRoiError, match=r"absurd_bold\.nii"):
            reader(path)


def test_zip_bomb_is_read_as_far_as_its_header_declares(tmp_path):
    """256 MiB of zeros in 256 KiB, behind a small header."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    path = tmp_path / "bomb_bold.nii.gz"
    with path.open("wb") as file:
        file.write(packer.compress(header((4, 4, 4, 5))))
        for _ in range(64):
            file.write(packer.compress(bytes(2**22)))
        file.write(packer.flush())
    with pytest.raises(ImageError, match="goes on after the 5 volumes"):
        read(path)


def sparse(path, head, size):
    """A file of any length that takes no space: the rest is a hole of NUL."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def test_table_of_a_billion_rows_is_refused_unread(tmp_path):
    rows = b"a\tb\n" + b"1\t2\n" * 5000
    path = tmp_path / "long.tsv"
    path.write_bytes(rows)
    with pytest.raises(BidsRoiError, match=r"long\.tsv: .* has more than 300 rows"):
        read_table(path, max_rows=300)
    with pytest.raises(BidsRoiError, match="4,096 MiB, at most 512"):
        read_table(sparse(path, rows, 2**32))
    with pytest.raises(BidsRoiError, match="line 5002 is longer than 16 MiB"):
        read_table(sparse(path, rows, 2**25))
    with pytest.raises(BidsRoiError, match="1,024 MiB, at most 64"):
        read_json(sparse(tmp_path / "long.json", b"{", 2**30))
