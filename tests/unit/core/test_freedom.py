"""Degrees of freedom and xDF: arithmetic, the published code, simulation."""

import numpy as np
import pytest
from degrees_of_freedom import METHODS, measure
from numpy.testing import assert_allclose, assert_array_equal
from scipy import fft, integrate, stats
from scipy.signal import lfilter
from support.cleaning_oracles import BAND, PLAIN, clean_signals, some_signals

from bids_roi.core import freedom
from bids_roi.core.freedom import (
    count_freedom,
    effective_freedom,
    estimate_variance,
    lag_sums,
    white_noise,
)
from bids_roi.core.relmat import (
    choose_volumes,
    freedom_of_some,
    pearson_correlation,
    relate,
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


WHAT = ("variance", "dof", "z", "p")
# Of xDF_Calc of github.com/asoroosh/xDF (Python/xDF.py at 1517027) for ``waves``, the
# upper triangle; it rounds r to seven digits. Beside it the same without rounding.
PUBLISHED = {
    "truncate": {
        "variance": [
            *(0.01940562263017, 0.03782607991676, 0.02371491655193),
            *(0.03513062290554, 0.01893371739889, 0.02342224310243),
        ],
        "z": [
            *(2.705359898597, 0.2724044492392, -1.029602468717),
            *(-0.09339256153581, -2.38507020898, 1.144941955406),
        ],
        "p": [
            *(0.006823042262704, 0.7853110520164, 0.3031966559093),
            *(0.9255916997259, 0.01707586213095, 0.2522332027097),
        ],
    },
    "tukey": {
        "variance": [
            *(0.01649251200163, 0.03610134558451, 0.02650068332548),
            *(0.03294023353971, 0.01996235347443, 0.02531814723585),
        ],
        "z": [
            *(2.934576494901, 0.2788355671986, -0.973984037619),
            *(-0.09644770000938, -2.322807622014, 1.101239426459),
        ],
        "p": [
            *(0.003340032142447, 0.7803710178384, 0.3300644649442),
            *(0.9231650095417, 0.02018948943887, 0.2707924664844),
        ],
    },
}
UNROUNDED = {
    "truncate": {
        "variance": [
            *(0.01940562249546, 0.03782607932291, 0.02371491729029),
            *(0.03513062303448, 0.01893371786719, 0.02342224227083),
        ],
        "z": [
            *(2.70535991984, 0.2724046314465, -1.029602163653),
            *(-0.09339264747245, -2.385070100409, 1.144942268886),
        ],
    },
    "tukey": {
        "variance": [
            *(0.01649251190443, 0.0361013450718, 0.02650068438651),
            *(0.03294023363451, 0.01996235397802, 0.02531814618354),
        ],
        "z": [
            *(2.934576516406, 0.2788357534988, -0.9739837446986),
            *(-0.09644778879548, -2.322807515704, 1.101239731311),
        ],
    },
}


def waves():
    t = np.arange(40)
    return np.column_stack(
        [
            np.sin(0.7 * t) + 0.3 * np.cos(2.1 * t * t),
            np.sin(0.7 * t + 0.9) + 0.5 * np.sin(1.3 * t * t),
            np.cos(0.25 * t) + np.sin(0.31 * t * t),
            np.cos(1.7 * t * t),
        ]
    )


def relate_all(signals, mask=None, regularisation="truncate"):
    mask = np.ones(len(signals), dtype=bool) if mask is None else mask
    given = {"sample_mask": mask, "regularisation": regularisation}
    return {what: relate(f"pearsonxdf{what}", signals, **given) for what in WHAT}


@pytest.mark.parametrize("regularisation", ["truncate", "tukey"])
def test_numbers_of_the_published_code(regularisation):
    found = relate_all(waves(), regularisation=regularisation)
    above = np.triu_indices(4, 1)
    for what, numbers in PUBLISHED[regularisation].items():
        assert_allclose(found[what][above], numbers, rtol=2e-6)
    for what, numbers in UNROUNDED[regularisation].items():
        assert_allclose(found[what][above], numbers, rtol=1e-11)
    for matrix in found.values():
        assert_array_equal(matrix, matrix.T)
        assert np.isnan(np.diagonal(matrix)).all()
    r = pearson_correlation(waves())[above]
    dof = (1 - r**2) ** 2 / found["variance"][above]
    assert_allclose(found["dof"][above], dof, rtol=1e-12)
    assert (dof <= 40 * (1 + 1e-12)).all()
    assert_allclose(
        found["p"][above], 2 * stats.norm.sf(abs(found["z"][above])), rtol=1e-12
    )


def slow_variance(signals, mask, regularisation):
    """One pair of regions and of volumes after the other; lag by lag."""
    volumes = [int(v) for v in np.flatnonzero(mask)]
    n, span = len(volumes), volumes[-1] - volumes[0] + 1
    z = (signals - signals.mean(axis=0)) / signals.std(axis=0)
    n_regions = z.shape[1]
    row = dict(zip(volumes, z, strict=True))
    pairs = {
        lag: [(t, t + lag) for t in volumes if t + lag in row]
        for lag in range(1, span - 1)
    }
    lagged = np.zeros((span - 1, n_regions, n_regions))  # first before second
    for lag, own in pairs.items():
        for t, s in own:
            lagged[lag] += np.outer(row[t], row[s]) / len(own) * (span - lag) / span
    ends = []
    for i in range(n_regions):
        end = span - 2
        for lag, own in pairs.items():
            like = len(own) * span / (span - lag)
            if own and (
                like <= 2 or abs(lagged[lag, i, i]) < 1.959958 / np.sqrt(like - 2)
            ):
                end = lag - 1
                break
        ends.append(end)
    r = z.T @ z / n
    result = np.full((n_regions, n_regions), np.nan)
    width = round(np.sqrt(span))

    def weight(lag, end):
        if regularisation == "truncate":
            return float(lag <= end)
        return (1 + np.cos(np.pi * lag / width)) / 2 if lag < width else 0.0

    for i in range(n_regions):
        for j in range(n_regions):
            total = (n - 1) * (1 - r[i, j] ** 2) ** 2
            for lag, own in pairs.items():
                a = lagged[lag, i, i] * weight(lag, ends[i])
                b = lagged[lag, j, j] * weight(lag, ends[j])
                c = lagged[lag, i, j] * weight(lag, max(ends[i], ends[j]))
                d = lagged[lag, j, i] * weight(lag, max(ends[i], ends[j]))
                squares = r[i, j] ** 2 * (a * a + b * b + c * c + d * d)
                mixed = 2 * r[i, j] * (a + b) * (c + d)
                total += max(len(own) - 1, 0) * (squares - mixed + 2 * (a * b + c * d))
            if i != j:
                result[i, j] = max(total / n**2, (1 - r[i, j] ** 2) ** 2 / n)
    return result


def autoregressive(rng, n_volumes, n_regions, *coefficients):
    noise = rng.normal(size=(n_volumes + 200, n_regions))
    return lfilter([1.0], [1.0, *(-c for c in coefficients)], noise, axis=0)[200:]


GAPS = {
    "none": [],
    "scattered": [3, 4, 9, 17, 18, 19, 30],
    "ends": [0, 1, 2, 38, 39],
    "every other": list(range(1, 40, 2)),
    "all over": [0, 1, 5, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 27, 39],
}


@pytest.mark.parametrize("gaps", GAPS.values(), ids=list(GAPS))
@pytest.mark.parametrize("regularisation", ["truncate", "tukey"])
def test_gaps_by_plain_loops(gaps, regularisation):
    rng = np.random.default_rng(len(gaps))
    signals = autoregressive(rng, 40, 4, 0.7)
    signals[:, 1] += np.roll(signals[:, 0], 2)
    mask = np.ones(40, dtype=bool)
    mask[gaps] = False
    found = relate_all(signals[mask], mask, regularisation)["variance"]
    expected = slow_variance(signals[mask], mask, regularisation)
    assert_allclose(found, expected, rtol=1e-10)


def test_what_is_left_out_at_the_ends_is_no_gap():
    signals = autoregressive(np.random.default_rng(0), 60, 5, 0.6)
    mask = np.zeros(80, dtype=bool)
    mask[8:68] = True
    alone = relate_all(signals)
    for what, matrix in relate_all(signals, mask).items():
        assert_array_equal(matrix, alone[what])


def test_order_units_and_lost_regions_change_nothing():
    signals = autoregressive(np.random.default_rng(1), 90, 6, 0.5)
    whole = relate_all(signals)
    order = [3, 0, 5, 1, 4, 2]
    scaled = signals * [1e-150, 1e150, 1, 2, -3, 1e5] + [0, 0, 7, 8, 9, 0]
    signs = np.outer(*[np.sign([1, 1, 1, 1, -1, 1])] * 2)
    more = np.column_stack([scaled[:, order], np.full(90, np.nan), np.ones(90)])
    for what, matrix in relate_all(more).items():
        expected = whole[what] * (signs if what == "z" else 1)
        assert_allclose(matrix[:6, :6], expected[np.ix_(order, order)], rtol=1e-9)
        assert np.isnan(matrix[6:]).all()


def test_the_same_series_twice_has_no_z():
    signals = autoregressive(np.random.default_rng(2), 50, 3, 0.5)
    for matrix in relate_all(np.column_stack([signals, -signals[:, 0]])).values():
        off = ~np.eye(4, dtype=bool)
        off[0, 3] = off[3, 0] = False
        assert np.isfinite(matrix[off]).all()
        assert np.isnan(matrix[0, 3])


@pytest.mark.parametrize("n_volumes", [3, 4, 5, 6])
def test_few_volumes(n_volumes):
    rng = np.random.default_rng(n_volumes)
    mask = np.zeros(30, dtype=bool)
    mask[np.sort(rng.permutation(30)[:n_volumes])] = True
    signals = rng.normal(size=(n_volumes, 4))
    for given in (None, mask):
        for regularisation in ("truncate", "tukey"):
            found = relate_all(signals, given, regularisation)
            assert np.isfinite(found["z"][np.triu_indices(4, 1)]).all()


def test_independent_volumes_have_all_their_freedom_and_right_p():
    signals = np.random.default_rng(3).normal(size=(400, 40))
    above = np.triu_indices(40, 1)
    edges = relate_all(signals)
    assert np.median(edges["dof"][above]) == pytest.approx(400, rel=0.01)
    assert np.mean(edges["p"][above] < 0.05) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_volumes_are_chosen_as_the_page_says(seed):
    order = np.random.RandomState(seed).permutation(50)
    assert choose_volumes(50, 12, seed).tolist() == sorted(order[:12].tolist())
    assert choose_volumes(50, 50, seed).tolist() == list(range(50))


def test_volumes_that_are_chosen_are_pinned():
    assert choose_volumes(20, 6, 0).tolist() == [1, 8, 10, 17, 18, 19]
    assert choose_volumes(20, 6, 7).tolist() == [0, 1, 2, 5, 11, 17]


@pytest.mark.parametrize("n_chosen", [30, 60, 119])
def test_freedom_of_some_volumes_is_that_of_their_operator(n_chosen):
    basis = np.fft.irfft(np.eye(61)[:, 3:24], 120, axis=0)
    basis = np.linalg.qr(np.column_stack([basis, np.roll(basis, 1, axis=0)]))[0]
    of_all = count_freedom(basis)
    found = []
    for seed in range(20):
        some = basis[choose_volumes(120, n_chosen, seed)]
        found.append(count_freedom(some - some.mean(axis=0)))
    expected = freedom_of_some(of_all, 120, n_chosen)
    assert np.mean(found) == pytest.approx(expected, rel=0.04)


def test_freedom_of_all_and_of_independent_volumes():
    assert freedom_of_some(63.5, 120, 120) == 63.5
    assert freedom_of_some(0.0, 120, 60) == 0.0
    assert freedom_of_some(119.0, 120, 60) == 59.0


def test_simulated_variance_with_gaps():
    """Few here; ``tests/system/test_xdf.py`` has many."""
    rng, mask = np.random.default_rng(4), np.ones(200, dtype=bool)
    mask[rng.permutation(200)[:60]] = False
    r, variances = [], []
    for _ in range(8):
        signals = autoregressive(rng, 200, 40, 0.4)[mask]
        correlations = pearson_correlation(signals)
        np.fill_diagonal(correlations, np.nan)
        edges = estimate_variance(signals, correlations, mask, "truncate")
        above = np.triu_indices(40, 1)
        r.append(edges.r[above])
        variances.append(edges.variance[above])
    assert np.mean(variances) == pytest.approx(np.var(r), rel=0.12)
