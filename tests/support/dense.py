"""CIFTI-2 files of any type, byte order and fault, written byte by byte."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
from nibabel import cifti2

CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768}
CODES |= {"i8": 1024, "u8": 1280, "c8": 32}


def cortex(structure, vertices, n_vertices=32492):
    """Brain models of one surface."""
    name = f"CIFTI_STRUCTURE_CORTEX_{structure}"
    return cifti2.BrainModelAxis.from_surface(np.asarray(vertices), n_vertices, name)


def voxels(name, ijk, shape=(10, 11, 12), affine=None):
    """Brain models of one structure of voxels."""
    ijk = np.asarray(ijk)
    affine = np.diag([2.0, 2, 2, 1]) if affine is None else affine
    return cifti2.BrainModelAxis(
        np.full(len(ijk), f"CIFTI_STRUCTURE_{name}"),
        voxel=ijk,
        affine=affine,
        volume_shape=shape,
    )


def small_axis():
    """Some 300 grayordinates: two hemispheres and two structures."""
    rng = np.random.default_rng(1)
    left, right = (np.sort(rng.choice(32492, n, replace=False)) for n in (151, 149))
    ijk = [(i, j, k) for i in range(3) for j in range(2) for k in range(4)]
    axis = cortex("LEFT", left) + cortex("RIGHT", right)
    axis += voxels("THALAMUS_LEFT", ijk)
    return axis + voxels("BRAIN_STEM", np.add(ijk, (5, 5, 5))[::-1])


def series_xml(axis, n_volumes, step=2.0, unit="SECOND"):
    series = cifti2.SeriesAxis(0, step, n_volumes, unit)
    return cifti2.Cifti2Header.from_axes((series, axis)).to_xml()


def labels_xml(axis, tables, names=None):
    names = names or [f"map {i}" for i in range(len(tables))]
    labels = cifti2.LabelAxis(names, tables)
    return cifti2.Cifti2Header.from_axes((labels, axis)).to_xml()


def cifti_bytes(
    xml,
    data,
    *,
    kind="f4",
    order="<",
    slope=1.0,
    intercept=0.0,
    intent=3002,
    dim=None,
    code=32,
    cut=0,
):
    """A file around an extension and a matrix of (columns, rows), rows contiguous."""
    columns, rows = data.shape
    body = xml + b"\0" * (-(len(xml) + 8) % 16)
    offset = 544 + 8 + len(body)
    head = bytearray(540)
    item = np.dtype(kind).itemsize
    struct.pack_into(order + "i8s2h", head, 0, 540, b"n+2\0\r\n\x1a\n", CODES[kind], 0)
    struct.pack_into(order + "h", head, 14, item * 8)
    dims = dim or (6, 1, 1, 1, 1, columns, rows, 1)
    struct.pack_into(order + "8q", head, 16, *dims)
    struct.pack_into(order + "8d", head, 104, *[1.0] * 8)
    struct.pack_into(order + "q2d", head, 168, offset, slope, intercept)
    struct.pack_into(order + "i", head, 504, intent)
    extension = b"\1\0\0\0" + struct.pack(order + "2i", 8 + len(body), code) + body
    values = np.ascontiguousarray(data.T).astype(np.dtype(kind).newbyteorder(order))
    whole = bytes(head) + extension + values.tobytes()
    return whole[: len(whole) - cut]


def write(path, *arguments, **options):
    content = cifti_bytes(*arguments, **options)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def ramp(n_volumes, n_points, seed=0):
    """(T, V) with a mean that depends on the point and a trend: no axis is another."""
    rng = np.random.default_rng(seed)
    level = 100.0 + 7 * np.arange(n_points)
    return (
        level
        + 3.0 * np.arange(n_volumes)[:, None]
        + rng.normal(size=(n_volumes, n_points))
    )


# What parsers of numbers and of XML stumble over.
WORDS = [b"0", b"-1", b"9" * 40, b"<", b">", b'"', b"&a;", b"\0", b"\xff", b"nan"]
WORDS += [b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"<a>" * 50, b"1e400", b" " * 99, b"<!--"]


def mutate(content, at, rng, words=()):
    """Damage a bytearray at a place: another byte, a word, less or the same twice."""
    what = rng.randrange(4)
    if what == 0:
        content[at] = rng.randrange(256)
    elif what == 1:
        word = rng.choice([*WORDS, *words])
        content[at : at + len(word)] = word
    elif what == 2:
        del content[at : at + rng.randint(1, 40)]
    else:
        content[at:at] = content[max(0, at - 60) : at]


def run_mutants(code, place):
    """Run code on mutated files, 10,000 with BIDS_ROI_FUZZ_EXAMPLES=10000.

    In a process of its own, whose memory the system bounds; it prints how many it read
    and how many it refused, and ends at anything else.
    """
    few = "2000" if os.environ.get("CI") else "500"
    n = int(os.environ.get("BIDS_ROI_FUZZ_EXAMPLES", few))
    tests = Path(__file__).parents[1]
    argv = [sys.executable, "-c", code, tests, place, "0", str(n)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read, refused = map(int, done.stdout.split())
    assert read + refused == n
    assert refused > n / 4


def all_values(series, block_bytes=4 * 2**20):
    """Fill (T, V) from the blocks; every value must come once."""
    filled = np.full((series.source.n_volumes, series.frame.n_points), np.nan)
    for block in series.source.blocks(block_bytes):
        at = block.volumes, block.points
        assert np.isnan(filled[at]).all()
        filled[at] = block.values.astype(float) * series.slope + series.intercept
    return filled
