"""Rasters: pixels as other decoders read them, and colours as eyes rank them."""

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from bids_roi.report.raster import (
    BLUE_RED,
    GREYS,
    NIGHT_SUN,
    Scale,
    encode_png,
    group_colours,
    ramp,
    rgb,
)


def test_the_bytes_of_a_small_raster_are_those_of_zlib():
    """ISA-L has code of its own for each CPU, and pictures are compared by bytes."""
    codes = np.random.default_rng(0).integers(0, 20, (40, 100)).astype(np.uint8)
    _, chunks = unpack(encode_png(codes, np.zeros((20, 3), np.uint8)))
    rows = np.insert(codes, 0, 0, axis=1)
    assert chunks[b"IDAT"] == zlib.compress(rows.tobytes(), 2)


def lightness(colours):
    """CIE L* of sRGB colours, (n, 3), 0 to 100."""
    shown = np.asarray(colours, dtype=float) / 255
    linear = np.where(shown > 0.04045, ((shown + 0.055) / 1.055) ** 2.4, shown / 12.92)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


def unpack(content):
    """Codes of an indexed PNG and its chunks, by the standard and nothing else."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, {}
    while place < len(content):
        (size,) = struct.unpack(">I", content[place : place + 4])
        kind = content[place + 4 : place + 8]
        data = content[place + 8 : place + 8 + size]
        (check,) = struct.unpack(">I", content[place + 8 + size : place + 12 + size])
        assert check == zlib.crc32(kind + data)
        chunks[kind] = data
        place += 12 + size
    wide, high, depth, kind, packing, filtering, woven = struct.unpack(
        ">IIBBBBB", chunks[b"IHDR"]
    )
    assert (kind, packing, filtering, woven) == (3, 0, 0, 0)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(high, -1)
    assert not rows[:, 0].any()
    bits = np.unpackbits(rows[:, 1:], axis=1).reshape(high, -1, depth)
    codes = np.packbits(bits, axis=2, bitorder="big")[..., 0] >> (8 - depth)
    return codes[:, :wide], chunks


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 200, 256])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 8), (40, 33)])
def test_two_decoders_find_the_codes_and_their_colours(n, shape):
    rng = np.random.default_rng(n)
    palette = rng.integers(0, 256, (n, 4)).astype(np.uint8)
    codes = rng.integers(0, n, shape).astype(np.uint8)
    content = encode_png(codes, palette)
    found, chunks = unpack(content)
    assert_array_equal(found, codes)
    assert chunks[b"PLTE"] == palette[:, :3].tobytes()
    assert chunks[b"tRNS"] == palette[:, 3].tobytes()
    seen = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
    assert_array_equal(seen, palette[codes])
    without = encode_png(codes, palette[:, :3])
    seen = np.asarray(Image.open(io.BytesIO(without)).convert("RGBA"))
    assert_array_equal(seen[..., :3], palette[codes][..., :3])
    assert (seen[..., 3] == 255).all()
    assert encode_png(codes[::-1, ::-1], palette) == encode_png(
        np.ascontiguousarray(codes[::-1, ::-1]), palette
    )


@pytest.mark.parametrize("anchors", [GREYS, NIGHT_SUN])
def test_more_is_lighter_in_even_steps(anchors):
    levels = lightness(ramp(anchors, 100))
    steps = np.diff(levels)
    assert (steps > -0.4).all()  # half a step of eight bits
    assert levels[-1] - levels[0] > 70
    halves = levels[50] - levels[0], levels[-1] - levels[50]
    assert max(halves) < 1.5 * min(halves)


def test_opposite_correlations_are_as_dark_as_each_other():
    colours = ramp(BLUE_RED, 201)
    levels = lightness(colours)
    assert np.argmax(levels) == 100
    assert (np.diff(levels[:101]) > -0.4).all()
    assert np.abs(levels - levels[::-1]).max() < 8
    assert np.ptp(colours[100].astype(int)) <= 1  # no hue at 0
    assert (colours[:80, 2] > colours[:80, 0]).all()
    assert (colours[121:, 0] > colours[121:, 2]).all()


@pytest.mark.parametrize(
    ("anchors", "n"), [(GREYS, 80), (BLUE_RED, 201), (NIGHT_SUN, 128)]
)
def test_every_step_of_a_scale_has_a_colour_of_its_own(anchors, n):
    assert len(np.unique(ramp(anchors, n), axis=0)) == n


def test_a_ramp_goes_through_its_anchors():
    for anchors in (GREYS, BLUE_RED, NIGHT_SUN):
        n = 10 * (len(anchors) - 1) + 1
        assert_array_equal(ramp(anchors, n)[::10], [rgb(each) for each in anchors])


def test_values_read_back_from_the_colours_to_half_a_step():
    scale = Scale.of(BLUE_RED, -1, 1, 201)
    values = np.random.default_rng(0).uniform(-1, 1, 1000)
    step = 2 / 201
    back = -1 + (scale.encode(values) + 0.5) * step
    assert np.abs(back - values).max() <= step / 2 + 1e-12
    beyond = scale.encode(np.array([-7.0, 7, -np.inf, np.inf, np.nan, 0, -1, 1]))
    assert_array_equal(beyond, [0, 200, 0, 200, 201, 100, 0, 200])
    assert scale.missing == 201
    assert_array_equal(scale.palette[201], [255, 255, 255, 0])
    assert len(scale.palette) == 202


def test_a_scale_without_width_has_one_colour():
    scale = Scale.of(GREYS, 2, 2, 10)
    assert_array_equal(scale.encode(np.array([1.0, 2, 3, np.nan])), [0, 0, 0, 10])


@pytest.mark.parametrize("n", [0, 1, 7, 17, 42])
def test_groups_have_colours_of_their_own(n):
    found = group_colours(n)
    assert len(set(found)) == len(found) == n
    assert all(0 <= channel <= 255 for each in found for channel in rgb(each))
