"""Degrees of freedom against arithmetic, integrals and simulated correlations."""

import numpy as np
import pytest
from degrees_of_freedom import METHODS, measure
from numpy.testing import assert_allclose
from scipy import fft, integrate
from scipy.signal import lfilter
from support.cleaning_oracles import BAND, PLAIN, clean_signals, some_signals

from bids_roi.core import freedom
from bids_roi.core.freedom import (
    count_freedom,
    effective_freedom,
    lag_sums,
    white_noise,
)


@pytest.mark.parametrize("rank", [1, 2, 5, 40])
def test_a_projection_has_its_rank(rank):
    rng = np.random.default_rng(rank)
    basis = np.linalg.qr(rng.normal(size=(60, rank)))[0]
    assert count_freedom(basis) == pytest.approx(rank, rel=1e-9)
    assert count_freedom(3 * basis @ basis.T) == pytest.approx(rank, rel=1e-9)


def test_two_unequal_parts_by_quadrature():
    """E[(l x^2 / (l x^2 + y^2))] is an integral over one angle."""
    for ratio in (1.0, 0.5, 0.1, 1e-3):
        share = integrate.quad(
            lambda a, q=ratio: (
                np.cos(a) ** 2 / (np.cos(a) ** 2 + q * np.sin(a) ** 2) / np.pi
            ),
            0,
            np.pi,
        )[0]
        found = count_freedom(np.diag([1.0, np.sqrt(ratio)]))
        assert found == pytest.approx(1 / (share**2 + (1 - share) ** 2), rel=1e-7)


def test_unequal_parts_by_simulation():
    rng = np.random.default_rng(0)
    operator = (
        np.diag(np.geomspace(1, 0.03, 30)) @ np.linalg.qr(rng.normal(size=(30, 30)))[0]
    )
    one, two = (operator @ rng.normal(size=(30, 200_000)) for _ in range(2))
    r = (one * two).sum(axis=0)
    r /= np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0))
    assert count_freedom(operator) == pytest.approx(1 / (r**2).mean(), rel=0.01)


def test_nothing_has_none():
    assert count_freedom(np.zeros((5, 5))) == 0


def test_lag_sums_by_a_loop():
    rng = np.random.default_rng(1)
    mask = rng.random(40) > 0.3
    columns = rng.normal(size=(mask.sum(), 3))
    whole = np.zeros((40, 3))
    whole[mask] = columns
    expected = [(whole[: 40 - k] * whole[k:]).sum(axis=0) for k in range(40)]
    assert_allclose(lag_sums(columns, mask), expected, atol=1e-12)


def test_by_hand():
    signals, confounds, mask = some_signals()
    n_kept = int(mask.sum())

    def left(**options):
        return clean_signals(
            signals, **(PLAIN | {"sample_mask": mask} | options)
        ).degrees_of_freedom

    assert left() == pytest.approx(n_kept - 1)
    assert left(detrend=True) == pytest.approx(n_kept - 2)
    assert left(detrend=True, confounds=confounds) == pytest.approx(n_kept - 2 - 24)
    constant = np.ones((200, 1))
    raw = {"confounds": constant, "standardize_confounds": False}
    assert left(**raw) == pytest.approx(n_kept - 1)  # the mean is counted once
    # floor(2 * 200 * 0.01 * 2) cosines; the fit takes mean and line along, and keeps
    # the cosine of 0.01 Hz itself.
    assert left(high_pass=0.01, filter="cosine") == pytest.approx(n_kept - 1 - 8)
    assert left(high_pass=0.01, filter="passband") == pytest.approx(n_kept - 2 - 7)
    # 0.01 to 0.1 Hz on a grid of 1/400 Hz: 37 sines and cosines, of which the slow
    # terms hold one and the gaps make two or three unseen.
    assert 70 <= left(filter="passband", **BAND) <= 74


@pytest.mark.parametrize("with_24p", [False, True])
@pytest.mark.parametrize("pattern", ["none", "scattered 30 %", "gap of 20"])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_said_is_what_correlations_show(method, pattern, with_24p):
    """A part of the table in docs/numbers.md, which all of the benchmark makes."""
    said, empirical, refused = measure(
        method, 150, 2.0, pattern, with_24p=with_24p, rounds=6
    )
    assert not refused
    # 28,680 pairs of 240 series. Where few parts hold most of the variance (a spline
    # over a gap of 20), single series decide and the spread is known to 10 %.
    assert said == pytest.approx(empirical, rel=0.15)
    if method == "passband":
        assert said == pytest.approx(empirical, rel=0.06)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("kind", ["raw", "pass band", "high-pass"])
def test_effective_ones_of_autoregressive_noise(kind, phi):
    """499 were said of raw series of 500 volumes, and 114 were there."""
    rng = np.random.default_rng(2)
    noise = lfilter([1], [1, -phi], rng.normal(size=(700, 120)), axis=0)[200:]
    options = PLAIN | {"filter": "passband", "repetition_time": 0.8}
    options |= {"raw": {}, "pass band": BAND, "high-pass": {"high_pass": 0.01}}[kind]
    cleaned = clean_signals(noise, **options)
    r = np.corrcoef(cleaned.signals.T)[np.triu_indices(120, 1)]
    found = cleaned.effective_degrees_of_freedom
    assert found == pytest.approx(1 / (r**2).mean(), rel=0.15)
    assert found <= cleaned.degrees_of_freedom
    if phi == 0:
        assert found == pytest.approx(cleaned.degrees_of_freedom, rel=0.01)
    if (kind, phi) == ("raw", 0.8):
        # T (1 - phi^2) / (1 + phi^2): Bartlett by hand.
        assert found == pytest.approx(500 * 0.36 / 1.64, rel=0.1)


def test_effective_ones_without_signals():
    mask = np.ones(50, bool)
    options = {"white": white_noise(50), "degrees_of_freedom": 49}
    assert np.isnan(effective_freedom(np.full((50, 3), np.nan), mask, **options))
    assert np.isnan(effective_freedom(np.ones((50, 3)), mask, **options))
    lost = np.random.default_rng(0).normal(size=(50, 4))
    some = effective_freedom(lost[:, :3], mask, **options)
    lost[:, 3] = np.nan
    assert effective_freedom(lost, mask, **options) == some


@pytest.mark.parametrize("n_volumes", [60, 100])
def test_more_regressors_than_the_band_holds_leave_what_is_outside(n_volumes):
    """36 regressors in 16 and 28 dimensions: noise of the slopes, and no word of it."""
    rng = np.random.default_rng(0)
    walks = np.cumsum(rng.normal(size=(n_volumes, 36)), axis=0)
    options = PLAIN | BAND | {"filter": "butterworth", "filter_order": 2}
    options |= {"low_pass": 0.08, "filter_padding": "constant", "detrend": True}
    noise = rng.normal(size=(n_volumes, 500))
    few = clean_signals(noise, **(options | {"confounds": walks}))
    # By another way: the power spectrum of what is left of white noise.
    centred = few.signals - few.signals.mean(axis=0)
    power = (np.abs(np.fft.rfft(centred, axis=0)) ** 2).sum(axis=1)
    rates = np.fft.rfftfreq(n_volumes, 2.0)
    inside = power[(rates >= 0.01) & (rates <= 0.08)].sum() / power.sum()
    assert few.cleaner.outside_share > 0.97 * (1 - inside) > 0.5
    plain = clean_signals(noise, **options).cleaner
    assert plain.outside_share < 0.25
    # With straight lines over 30 % of the volumes, a part of them comes from outside.
    mask = rng.random(n_volumes) > 0.3
    gaps = clean_signals(noise, **(options | {"sample_mask": mask})).cleaner
    assert plain.outside_share < gaps.outside_share < 0.5


def test_lengths_of_transforms_are_those_of_scipy():
    for least in (*range(1, 3000), 9_999, 65_537):
        assert freedom._fast_length(least) == fft.next_fast_len(least, real=True)
