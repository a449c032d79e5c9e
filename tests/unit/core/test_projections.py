"""The pass-band fit against dense least squares, and against what it is for."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from support import cleaning_oracles as oracles
from support.cleaning_oracles import PLAIN, clean_signals, close

from bids_roi.core.clean import arrange_volumes
from bids_roi.core.projections import fit_pass_band

FIT = PLAIN | {"filter": "passband", "interpolation": "linear"}
TOLERANCE = 1e-10


def wave_table(n_volumes, tr, high_pass, low_pass):
    """Mean, line and slow cosines; sines and cosines of the band: one column each."""
    t = np.arange(n_volumes)
    slow = [np.ones(n_volumes), t / n_volumes]
    count = int(np.floor(2 * n_volumes * tr * high_pass + 1e-9))
    slow += [np.cos(np.pi * k * (t + 0.5) / n_volumes) for k in range(1, count + 1)]
    band = []
    for k in range(1, n_volumes // 2 + 1):
        if high_pass - 1e-12 <= k / (n_volumes * tr) <= low_pass + 1e-12:
            band += [f(2 * np.pi * k * t / n_volumes) for f in (np.cos, np.sin)]
    return np.array(slow).T, np.array(band).T


def gap(n_volumes, kind, seed=0):
    mask = np.ones(n_volumes, bool)
    rng = np.random.default_rng(seed)
    if kind == "scattered":
        mask[rng.choice(n_volumes, int(0.3 * n_volumes), replace=False)] = False
    elif kind == "bursts":
        for start in rng.choice(n_volumes - 6, n_volumes // 20, replace=False):
            mask[start : start + 5] = False
    elif kind != "none":
        mask[n_volumes // 3 : n_volumes // 3 + int(kind)] = False
    return mask


@pytest.mark.parametrize("kind", ["none", "scattered", "bursts", "10"])
@pytest.mark.parametrize(
    ("n_volumes", "tr", "band"),
    [(200, 0.8, (0.0117, 0.095)), (301, 2.0, (0.0103, 0.08))],
)
def test_is_the_part_of_the_band_in_one_least_squares_fit(n_volumes, tr, band, kind):
    """Slow terms and band fitted at once, less the slow terms fitted alone.

    Where every pattern of the band is seen; else see the next test.
    """
    mask = gap(n_volumes, kind)
    signals = np.random.default_rng(1).normal(1000, 10, (n_volumes, 12))
    slow, waves = wave_table(n_volumes, tr, *band)
    patterns = fit_pass_band(
        mask, high_pass=band[0], low_pass=band[1], repetition_time=tr, detrend=False
    )
    both = np.column_stack([slow, waves])[mask]
    kept = signals[mask]
    fits = [
        design @ np.linalg.lstsq(design, kept, rcond=None)[0]
        for design in (both, slow[mask])
    ]
    options = FIT | {"high_pass": band[0], "low_pass": band[1]}
    found = clean_signals(
        signals, **(options | {"repetition_time": tr, "sample_mask": mask})
    ).signals
    exact = fits[0] - fits[1]
    if patterns.n_unseen == 0:
        close(found, exact, TOLERANCE)
    else:
        # What is left out is orthogonal to what is kept: less variance, none new.
        left_out = exact - found
        assert np.abs((left_out * found).sum(axis=0)).max() < 1e-8 * (found**2).sum()
        sizes = np.linalg.svd(left_out)[1]
        assert (sizes > 1e-9 * sizes[0]).sum() <= patterns.n_unseen


@pytest.mark.parametrize("kind", ["none", "scattered", "bursts", "20", "60"])
@pytest.mark.parametrize("cutoffs", [(0.01, 0.08), (None, 0.08), (0.01, None)])
@pytest.mark.parametrize("detrend", [True, False])
def test_equals_a_dense_projection(kind, cutoffs, detrend):
    mask = gap(240, kind)
    signals = np.random.default_rng(2).normal(50, 10, (240, 5))
    options = FIT | {"high_pass": cutoffs[0], "low_pass": cutoffs[1]}
    options |= {"detrend": detrend, "sample_mask": mask}
    found = clean_signals(signals, **options).signals
    matrix, _ = oracles.passed(mask, *cutoffs, 2.0, detrend)
    close(found, matrix @ signals[mask], TOLERANCE)
    # A projection: what went through goes through again as it is.
    assert_allclose(matrix @ found, found, atol=1e-9)


@oracles.randomly
@given(
    st.integers(80, 400),
    st.sampled_from([0.4, 0.72, 2.0, 3.0]),
    st.floats(0, 0.4),
    st.integers(0, 2**32 - 1),
)
def test_waves_of_the_band_pass_and_others_do_not(n_volumes, tr, censored, seed):
    """On the grid of the run, amplitudes by hand: nearly all, and little."""
    assume(n_volumes * tr > 120)
    rng = np.random.default_rng(seed)
    mask = rng.random(n_volumes) >= censored
    t = np.arange(n_volumes) * tr
    duration = n_volumes * tr
    high, low = 0.02, min(0.08, 0.3 / tr)
    columns = sum(each.shape[1] for each in wave_table(n_volumes, tr, high, low))
    assume(mask.sum() > columns + 2)  # else the band cannot be told apart
    inside = round((high + low) / 2 * duration) / duration
    options = FIT | {"high_pass": high, "low_pass": low, "sample_mask": mask}
    options |= {"repetition_time": tr}
    phase = rng.uniform(0, 2 * np.pi)
    passing = np.sin(2 * np.pi * inside * t + phase)[:, None]
    found = clean_signals(passing, **options).signals
    # All of it but what mean, line and slower cosines look like in the kept volumes.
    slower = wave_table(n_volumes, tr, high, low)[0][mask]
    rest = passing[mask] - slower @ np.linalg.lstsq(slower, passing[mask])[0]
    assert found.std() > 0.9 * rest.std()
    slow = 1000 + (t / duration)[:, None] * 50 + np.cos(np.pi * t / duration)[:, None]
    assert np.abs(clean_signals(slow, **options).signals).max() < 0.2
    if censored < 0.05:
        fast = round(min(0.45 / tr, 3 * low) * duration) / duration
        stopped = np.sin(2 * np.pi * fast * t + phase)[:, None]
        assert clean_signals(stopped, **options).signals.std() < 0.35


@pytest.mark.parametrize("kind", ["20", "60"])
def test_what_lies_in_a_gap_is_not_fitted(kind):
    """Fitting it lets three to six times more through from outside; no more found."""
    n_volumes, tr, band = 150, 2.0, (0.01, 0.1)
    mask = gap(n_volumes, kind)
    slow, waves = wave_table(n_volumes, tr, *band)
    rng = np.random.default_rng(0)
    inside = waves @ rng.normal(size=(waves.shape[1], 100))
    fast = rng.normal(size=(n_volumes, 100))
    fast -= waves @ np.linalg.lstsq(waves, fast, rcond=None)[0]
    fast -= slow @ np.linalg.lstsq(slow, fast, rcond=None)[0]

    def exactly(signals):
        both = np.column_stack([slow, waves])[mask]
        q = np.linalg.qr(slow[mask])[0]
        u, s, _ = np.linalg.svd(both - q @ (q.T @ both), full_matrices=False)
        u = u[:, s > 1e-10 * s[0]]
        rest = signals[mask] - q @ (q.T @ signals[mask])
        return u @ (u.T @ rest)

    options = FIT | {"high_pass": band[0], "low_pass": band[1], "sample_mask": mask}
    ours = [clean_signals(x, **options).signals.var() for x in (inside, fast)]
    exact = [exactly(x).var() for x in (inside, fast)]
    assert ours[0] > 0.97 * exact[0]
    assert ours[1] < exact[1] / 3


def test_what_is_censored_has_no_influence():
    mask = gap(200, "bursts")
    signals = np.random.default_rng(3).normal(size=(200, 4))
    options = FIT | {"high_pass": 0.01, "low_pass": 0.1, "sample_mask": mask}
    spoilt = signals.copy()
    spoilt[~mask] = np.inf
    assert_array_equal(
        clean_signals(spoilt, **options).signals,
        clean_signals(signals, **options).signals,
    )


def test_high_pass_is_the_regression_of_slow_cosines():
    """The same projection, seen from the other side; no cosine at the cut-off itself.

    A cosine of 0.01 Hz in 400 s is taken out by ``cosine``, as in nilearn.
    """
    mask = gap(200, "scattered")
    signals = np.random.default_rng(4).normal(1000, 10, (200, 4))
    options = FIT | {"high_pass": 0.0101, "sample_mask": mask, "detrend": True}
    close(
        clean_signals(signals, **options).signals,
        clean_signals(signals, **(options | {"filter": "cosine"})).signals,
        1e-9,
    )


@pytest.mark.parametrize("low_pass", [None, 0.08])
def test_the_cut_off_itself_is_kept(low_pass):
    """Six periods in 600 s are 0.01 Hz, the lowest frequency to keep: it went."""
    wave = np.cos(2 * np.pi * 6 * (np.arange(300) + 0.5) / 300)[:, None]
    options = FIT | {"high_pass": 0.01, "low_pass": low_pass}
    close(clean_signals(1000 + wave, **options).signals, wave, 1e-10)


def test_a_low_pass_next_to_nyquist_leaves_what_a_high_pass_does():
    """0.1428 of 0.142857 Hz: no volume is censored, and it was refused."""
    signals = np.random.default_rng(1).normal(1000, 10, (100, 3))
    options = FIT | {"high_pass": 0.01, "repetition_time": 3.5}
    plain = clean_signals(signals, **options)
    found = clean_signals(signals, **(options | {"low_pass": 0.1428}))
    assert plain.degrees_of_freedom - 2 <= found.degrees_of_freedom
    rest = plain.signals - found.signals
    # The waves of the Nyquist frequency and what the slow terms hide of the slowest.
    assert (rest**2).sum() < 0.05 * (plain.signals**2).sum()


def test_low_pass_alone_keeps_mean_and_line():
    t = np.arange(200)[:, None]
    line = 1000 + 0.3 * t
    options = FIT | {"low_pass": 0.05, "sample_mask": gap(200, "bursts")}
    cleaned = clean_signals(line, **options)
    assert_allclose(cleaned.signals, line[cleaned.sample_mask], rtol=1e-12)
    gone = clean_signals(line + 1e-6 * np.sin(t), **(options | {"detrend": True}))
    assert np.abs(gone.signals).max() < 1e-5


def test_interpolated_volumes_lie_on_a_line_in_time():
    """Steps of 2 and 6 s (VolumeTiming): a line of 5 units a second was 25 off."""
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.choice([2.0, 6.0], 60))
    line = 1000 + np.outer(times, [5.0, -1.0])
    mask = np.ones(60, bool)
    mask[20:27] = False
    for curve in ("linear", "cubic_spline"):
        options = FIT | {"sample_mask": mask, "times": times, "interpolation": curve}
        cleaned = clean_signals(line, **options)
        whole = arrange_volumes(cleaned, censored="interpolate")
        assert_allclose(whole, line, rtol=1e-12)


def test_interpolated_volumes_lie_between_the_cleaned_ones():
    mask = gap(200, "20")
    signals = np.random.default_rng(5).normal(size=(200, 3))
    options = FIT | {"high_pass": 0.01, "low_pass": 0.1, "sample_mask": mask}
    cleaned = clean_signals(signals, **options)
    whole = arrange_volumes(cleaned, censored="interpolate")
    assert_array_equal(whole[mask], cleaned.signals)
    kept = np.flatnonzero(mask)
    for column in range(3):
        line = np.interp(np.arange(200), kept, cleaned.signals[:, column])
        assert_allclose(whole[:, column], line, atol=1e-12)


@pytest.mark.parametrize(
    ("n_volumes", "n_kept", "cutoffs", "message"),
    [
        (
            30,
            30,
            (0.02, 0.03),
            r"no frequency of a run of 60 s .* the run is too short",
        ),
        (200, 60, (0.01, 0.1), "60 of 200 volumes are kept.* cannot be told apart"),
        (200, 20, (None, 0.1), "20 of 200 volumes are kept.* cannot be told apart"),
    ],
)
def test_bands_that_cannot_be_fitted(n_volumes, n_kept, cutoffs, message):
    rng = np.random.default_rng(6)
    mask = np.zeros(n_volumes, bool)
    mask[rng.choice(n_volumes, n_kept, replace=False)] = True
    options = FIT | {"high_pass": cutoffs[0], "low_pass": cutoffs[1]}
    with pytest.raises(ValueError, match=message):
        clean_signals(
            rng.normal(size=(n_volumes, 2)), **(options | {"sample_mask": mask})
        )


def test_regressors_can_take_the_whole_band():
    rng = np.random.default_rng(7)
    options = FIT | {"high_pass": 0.01, "low_pass": 0.05}
    with pytest.raises(ValueError, match=r"the pass band holds .* leave none"):
        clean_signals(
            rng.normal(size=(100, 2)),
            **(options | {"confounds": rng.normal(size=(100, 40))}),
        )
