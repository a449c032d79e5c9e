"""Smoothing: regions smoothed once equal volumes smoothed one by one, and nilearn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from support import oracles
from support.smooth_cases import GRID, SHAPE, ZOOMS, case, engine

from bids_roi.core import volumes
from bids_roi.core.mapping import map_labels
from bids_roi.core.partition import build_partition
from bids_roi.core.volumes import smooth_regions, smooth_volume, smoothing_sigmas

# Two float64 orders of the same sums of a few thousand products.
RTOL = 1e-10


def expected(values, labels, mask, fwhm, statistic, index=(1, 2, 3)):
    usable = oracles.usable_voxels(values, mask)
    # Constant voxels reach their neighbours, as in nilearn; these do not.
    valid = np.isfinite(values).all(axis=3)
    for ijk in np.argwhere(mask):
        if oracles.leaves_the_view(values[tuple(ijk)].tolist()):
            valid[tuple(ijk)] = False
    sigmas = [fwhm / (2.3548200450309493 * zoom) for zoom in ZOOMS]
    smooth = oracles.smooth(values, valid, sigmas)
    out = np.full((values.shape[3], len(index)), np.nan)
    for column, value in enumerate(index):
        region = usable & (labels == value)
        if region.any():
            out[:, column] = oracles.FUNCTIONS[statistic](smooth[region], axis=0)
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 4.0, 6.0, 12.0]))
def test_adjoint_is_the_transpose_of_the_filter(seed, fwhm):
    """<smooth(x), r> == <x, adjoint(r)> for any volume and any region."""
    rng = np.random.default_rng(seed)
    sigmas = smoothing_sigmas(fwhm, GRID)
    labels = rng.integers(0, 4, SHAPE)
    partition = build_partition([map_labels(labels, np.array([1, 2, 3]), GRID, GRID)])
    kept = rng.random(partition.voxels.size) < 0.9
    weights = smooth_regions(partition.members[0], partition.voxels, kept, GRID, sigmas)
    rows = np.full(GRID.n_voxels, -1)
    inside = partition.voxels[kept]
    rows[inside] = labels.ravel(order="F")[inside] - 1
    volume = rng.normal(size=SHAPE)
    smooth = smooth_volume(volume, sigmas).ravel(order="F")
    sums = [smooth[rows == row].sum() for row in range(3)]
    found = weights @ volume.ravel(order="F")
    assert_allclose(found, sums, rtol=RTOL, atol=1e-10)


SPOILS = {
    "nothing": lambda v, m: None,
    "zeros": lambda v, m: v.__setitem__(slice(0, 3), 0),
    "constant": lambda v, m: v.__setitem__((2, 3), 50),
    "nan": lambda v, m: v.__setitem__((4, 4, 4, 1), np.nan),
    "infinity": lambda v, m: v.__setitem__((4, slice(2, 5), 4, 0), np.inf),
    "nan background": lambda v, m: v.__setitem__(~m, np.nan),
    "edge of the view": lambda v, m: v.__setitem__((slice(5, None), ..., [1, 3]), 0),
    "both": lambda v, m: (
        v.__setitem__((0, ..., 2), np.nan),
        v.__setitem__((..., 0, slice(0, 2)), 0),
    ),
}


@pytest.mark.parametrize("way", [True, False])
@pytest.mark.parametrize("spoil", SPOILS)
def test_both_ways_equal_the_oracle(way, spoil, monkeypatch):
    monkeypatch.setattr(volumes, "weights_are_cheaper", lambda *_: way)
    values, labels, mask = case()
    SPOILS[spoil](values, mask)
    atlases = [(labels, np.array([1, 2, 3])), (labels, np.array([3, 1, 2]))]
    found = engine(values, atlases, mask, 5.0, ("mean", "sum"))
    for statistic in ("mean", "sum"):
        oracle = expected(values, labels, mask, 5.0, statistic)
        assert_allclose(found.signals[statistic][0], oracle, rtol=RTOL)
        assert_allclose(found.signals[statistic][1], oracle[:, [2, 0, 1]], rtol=RTOL)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 0.02, 0.3]),
    st.sampled_from([0, 0.02, 0.3]),
    st.integers(1, 5),
    st.booleans(),
)
def test_any_lost_voxels_and_blocks_equal_the_oracle(seed, n_nan, n_edge, block, way):
    values, labels, mask = case(seed, n_volumes=5)
    rng = np.random.default_rng(seed)
    values[(rng.random(SHAPE) < n_edge)[..., None] & (rng.random(5) < 0.5)] = 0
    values[rng.random(values.shape) < n_nan / 5] = np.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(volumes, "weights_are_cheaper", lambda *_: way)
        atlas = [(labels, np.array([1, 2, 3]))]
        found = engine(values, atlas, mask, 4.0, ("sum",), block)
    for statistic in ("mean", "sum"):
        oracle = expected(values, labels, mask, 4.0, statistic)
        assert_allclose(found.signals[statistic][0], oracle, rtol=RTOL)


@pytest.mark.parametrize("way", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_voxel_that_fails_in_one_volume_makes_no_spike(way, bad, monkeypatch):
    """Noise of SD 1 about 1000: a bad value as 0 would be a dip of dozens."""
    monkeypatch.setattr(volumes, "weights_are_cheaper", lambda *_: way)
    _, labels, mask = case()
    rng = np.random.default_rng(7)
    values = 1000 + rng.standard_normal((*SHAPE, 6))
    mask[:] = True
    values[4, 3:5, 4, 2] = bad
    found = engine(values, [(labels, np.array([1, 2, 3]))], mask, 6.0)
    assert np.abs(found.signals["mean"][0] - 1000).max() < 1


def test_other_statistics_are_of_smoothed_volumes():
    values, labels, mask = case(1)
    names = ("median", "minimum", "standard_deviation")
    found = engine(values, [(labels, np.array([1, 2, 3]))], mask, 4.0, names)
    for statistic in names:
        oracle = expected(values, labels, mask, 4.0, statistic)
        assert_allclose(found.signals[statistic][0], oracle, rtol=1e-9)


@pytest.mark.parametrize("spoil", ["nothing", "nan"])
def test_no_bit_of_a_mean_depends_on_what_else_is_asked_for(spoil, monkeypatch):
    monkeypatch.setattr(volumes, "weights_are_cheaper", lambda *_: True)
    values, labels, mask = case(2)
    SPOILS[spoil](values, mask)
    atlas = [(labels, np.array([1, 2, 3]))]
    alone = engine(values, atlas, mask, 4.0).signals["mean"][0]
    for more in (("median",), ("trimmed_mean_10", "eigenvariate")):
        found = engine(values, atlas, mask, 4.0, ("mean", *more)).signals["mean"][0]
        assert_array_equal(found, alone)
    found = engine(values, atlas, mask, 4.0, measures=("homogeneity",))
    assert_array_equal(found.signals["mean"][0], alone)
