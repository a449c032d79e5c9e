"""One file by several threads: the values, and every error, are ISA-L's."""

import gzip
import struct
import sys
import types

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bids_roi.errors import BidsRoiError
from bids_roi.images import stream
from bids_roi.images.stream import VolumeSource

N_VOLUMES, N_POINTS = 60, 20_000
PLANE = np.random.default_rng(0).normal(1000, 20, (N_VOLUMES, N_POINTS)).astype("f4")
CONTENT = bytes(352) + PLANE.tobytes()
PACKED = gzip.compress(CONTENT, 1)
HALF = len(PACKED) // 2

DAMAGES = {
    "cut short": PACKED[: 2 * HALF // 3],
    "cut in its last eight bytes": PACKED[:-3],
    "without its last eight bytes": PACKED[:-8],
    "another checksum": PACKED[:-8] + b"\x00\x01\x02\x03" + PACKED[-4:],
    "another size": PACKED[:-4] + struct.pack("<I", 12345),
    "a flipped bit": PACKED[:HALF] + bytes([PACKED[HALF] ^ 16]) + PACKED[HALF + 1 :],
    "many flipped bits": PACKED[:HALF] + bytes(5000) + PACKED[HALF + 5000 :],
    "garbage behind it": PACKED + b"garbage that is no gzip stream",
    "zeros behind it": PACKED + bytes(512),
    "its own end behind it": PACKED + PACKED[-8:],
    "two members": b"".join(
        gzip.compress(part, 1) for part in (CONTENT[:99_999], CONTENT[99_999:])
    ),
    "an empty member behind it": PACKED + gzip.compress(b""),
    "twice": PACKED + PACKED,
    "a volume too much": gzip.compress(CONTENT + PLANE[0].tobytes(), 1),
    "a volume too few": gzip.compress(CONTENT[: -4 * N_POINTS], 1),
    "reserved flags": PACKED[:3] + b"\x20" + PACKED[4:],
    "no gzip stream": b"no gzip stream" * 100_000,
}


def source_of(path, content, n_threads):
    path.write_bytes(content)
    return VolumeSource(
        path, 352, "<f4", N_POINTS, N_VOLUMES, compressed=True, n_threads=n_threads
    )


def read(source, block_bytes):
    """The values, or the class and the words of the error."""
    found = np.zeros((N_VOLUMES, N_POINTS), "f4")
    try:
        for block in source.blocks(block_bytes):
            with np.errstate(invalid="ignore"):  # of damage, whatever comes
                found[block.volumes, block.points] += block.values
    except BidsRoiError as error:
        return type(error), str(error)
    return found


@pytest.fixture
def opened(monkeypatch):
    """Calls of rapidgzip, which small files are worth here."""
    rapidgzip = pytest.importorskip("rapidgzip")
    calls = []
    true = rapidgzip.open

    def count(*arguments):
        calls.append(arguments)
        return true(*arguments)

    monkeypatch.setattr(rapidgzip, "open", count)
    monkeypatch.setattr(stream, "_WORTH_THREADS", 0)
    return calls


@pytest.mark.parametrize("block_bytes", [1, 2**20, 2**30])
def test_values(tmp_path, opened, block_bytes):
    path = tmp_path / "x.nii.gz"
    assert_array_equal(read(source_of(path, PACKED, 3), block_bytes), PLANE)
    assert opened == [(str(path), 3)]


def test_one_thread_and_small_files_are_isal_s(tmp_path, opened, monkeypatch):
    path = tmp_path / "x.nii.gz"
    assert_array_equal(read(source_of(path, PACKED, 1), 2**20), PLANE)
    monkeypatch.setattr(stream, "_WORTH_THREADS", len(PACKED))
    assert_array_equal(read(source_of(path, PACKED, 3), 2**20), PLANE)
    assert opened == []


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("block_bytes", [1, 2**20])
def test_damage_is_told_as_without(tmp_path, opened, name, block_bytes):
    path = tmp_path / "x.nii.gz"
    expected = read(source_of(path, DAMAGES[name], 1), block_bytes)
    found = read(source_of(path, DAMAGES[name], 3), block_bytes)
    if isinstance(expected, tuple):
        assert found == expected
    else:
        assert name in {"two members", "an empty member behind it", "zeros behind it"}
        assert_array_equal(found, expected)
        assert_array_equal(found, PLANE)


@pytest.mark.parametrize("wrong_at", [400, 352 + 4 * N_POINTS * 30, len(CONTENT) - 1])
def test_wrong_values_are_never_passed_on_unnoticed(tmp_path, monkeypatch, wrong_at):
    """A rapidgzip that errs by a bit and says nothing."""

    class File:
        def __init__(self, *_):
            self.content = bytearray(CONTENT)
            self.content[wrong_at] ^= 1

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, n):
            some, self.content = self.content[:n], self.content[n:]
            return bytes(some)

        def readinto(self, view):
            some = self.read(len(view))
            view[: len(some)] = some
            return len(some)

    fake = types.ModuleType("rapidgzip")
    fake.open = File
    fake.__spec__ = types.SimpleNamespace(name="rapidgzip")
    monkeypatch.setitem(sys.modules, "rapidgzip", fake)
    monkeypatch.setattr(stream, "_WORTH_THREADS", 0)
    _, words = read(source_of(tmp_path / "x.nii.gz", PACKED, 3), 2**20)
    assert "ISA-L differ in values" in words
    assert "--threads-per-run 1" in words


def test_who_stops_early_waits_for_no_thread(tmp_path, opened):
    source = source_of(tmp_path / "x.nii.gz", PACKED, 3)
    blocks = source.blocks(1)
    next(blocks)
    blocks.close()
    assert len(opened) == 1
