"""Cleaning against slow oracles, and what is orthogonal to what."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from support import cleaning_oracles as oracles
from support.cleaning_oracles import BAND, PLAIN, clean_signals, close, some_signals

from bids_roi.core.clean import arrange_volumes


@st.composite
def masks(draw, n_volumes):
    """Any mask: mirrored pairs, both ends, one segment, every other volume."""
    kind = draw(st.sampled_from(["none", "random", "mirrored", "ends", "segment"]))
    mask = np.ones(n_volumes, bool)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "random":
        mask = rng.random(n_volumes) > draw(st.sampled_from([0.05, 0.3, 0.5]))
    elif kind == "mirrored":
        some = rng.choice(n_volumes // 2, 3, replace=False)
        mask[some] = mask[-1 - some] = False
    elif kind == "ends":
        mask[: draw(st.integers(0, 5))] = False
        mask[n_volumes - draw(st.integers(0, 5)) :] = False
    elif kind == "segment":
        start = draw(st.integers(0, n_volumes - 40))
        mask[:] = False
        mask[start : start + draw(st.integers(36, 40))] = True
    return None if kind == "none" else mask


@st.composite
def cases(draw):
    n_volumes = draw(st.integers(50, 130))
    n_confounds = draw(st.sampled_from([0, 1, 5, 9]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    signals = rng.normal(rng.uniform(-900, 900, 4), 10, (n_volumes, 4))
    signals += rng.normal(size=(n_volumes, 4)).cumsum(axis=0)
    confounds = rng.normal(size=(n_volumes, n_confounds)) + rng.normal(size=n_confounds)
    confounds *= 10.0 ** rng.integers(-3, 4, n_confounds)
    options = {
        "confounds": confounds if n_confounds else None,
        "sample_mask": draw(masks(n_volumes)),
        "detrend": draw(st.booleans()),
        "high_pass": draw(st.sampled_from([None, 0.01, 0.03])),
        "low_pass": draw(st.sampled_from([None, 0.08, 0.4])),
        "filter": draw(
            st.sampled_from(["passband", "butterworth", "butterworth", "cosine"])
        ),
        "filter_order": draw(st.integers(1, 5)),
        "interpolation": draw(st.sampled_from(["linear", "cubic_spline"])),
        "filter_padding": draw(st.sampled_from(["odd", "constant"])),
        "filter_ends": draw(st.sampled_from(["cut", "nearest"])),
        "standardize": draw(st.sampled_from([None, "zscore_sample", "psc"])),
        "standardize_confounds": draw(st.booleans()),
        "repetition_time": draw(st.sampled_from([0.72, 1.5, 2.0])),
    }
    if options["filter"] == "cosine":
        options["low_pass"] = None
        options["high_pass"] = options["high_pass"] or 0.012
    mask = options["sample_mask"]
    kept = np.arange(n_volumes) if mask is None else np.flatnonzero(mask)
    assume(kept.size > n_confounds + 10)
    assume(kept[-1] - kept[0] + 1 >= 34)
    nyquist = 0.5 / options["repetition_time"]
    if options["filter"] == "passband" and (options["low_pass"] or 9) < nyquist:
        # Columns of the band: enough for the confounds, and fewer than volumes.
        duration = 2 * n_volumes * options["repetition_time"]
        high_pass = options["high_pass"] or 0.0
        n_band = duration * (options["low_pass"] - high_pass)
        assume(n_band * kept.size / n_volumes > 2 * n_confounds + 6)
        assume(duration * options["low_pass"] + 6 < kept.size)
        assume(np.diff(kept).max() < 20)
    return signals, options


@oracles.randomly
@given(cases())
def test_equals_dense_oracle(case):
    signals, options = case
    mask = options["sample_mask"]
    expected, condition, slack = oracles.clean(signals, **options)
    # Beyond, the two may count columns differently: cosines over one short segment.
    assume(condition < 1e10)
    cleaned = clean_signals(signals, **options)
    mask = np.ones(len(signals), bool) if mask is None else mask
    assert_array_equal(cleaned.sample_mask, mask)
    close(cleaned.signals, expected[mask], slack=slack)
    laid_out = arrange_volumes(cleaned, censored="na")
    assert_array_equal(laid_out[mask], cleaned.signals)
    assert np.isnan(laid_out[~mask]).all()
    whole = arrange_volumes(cleaned, censored="interpolate")
    assert_array_equal(whole[mask], cleaned.signals)
    kept = np.flatnonzero(mask)
    inside = slice(kept[0], kept[-1] + 1)
    if cleaned.filled is None:
        for column in range(signals.shape[1]):
            expected[inside, column] = oracles.filled(
                expected[inside, column], mask[inside], options["interpolation"]
            )
    # A spline swings far out in long gaps: its own largest value is the scale.
    close(whole[inside], expected[inside], slack=slack)
    assert np.isnan(np.delete(whole, np.arange(len(whole))[inside], axis=0)).all()


@pytest.mark.parametrize("length", [90, 110, 130])
def test_cosines_of_one_segment_hardly_differ(length):
    """Part of a slow wave looks like part of another: the condition tells."""
    signals = some_signals(n_volumes=150)[0]
    mask = np.arange(150) < length
    options = PLAIN | {"high_pass": 0.03, "filter": "cosine", "sample_mask": mask}
    expected, condition, slack = oracles.clean(signals, **options)
    assert condition > 100
    cleaned = clean_signals(signals, **options)
    assert 0.01 * condition < cleaned.condition <= condition
    close(cleaned.signals, expected[mask], slack=slack)


@oracles.randomly
@given(cases(), st.floats(-1e3, 1e3))
def test_what_is_censored_has_no_influence(case, spike):
    """Not on signals and not through confounds, whatever the mask."""
    signals, options = case
    mask = options["sample_mask"]
    assume(mask is not None)
    once = clean_signals(signals, **options)
    spiked = signals.copy()
    spiked[~mask] += spike
    changed = dict(options)
    if options["confounds"] is not None:
        changed["confounds"] = options["confounds"].copy()
        changed["confounds"][~mask] = np.nan
    again = clean_signals(spiked, **changed)
    for censored in ("drop", "na", "interpolate"):
        one = arrange_volumes(once, censored=censored)
        two = arrange_volumes(again, censored=censored)
        assert_array_equal(one, two)


@pytest.mark.parametrize("cutoffs", [{}, BAND])
def test_residuals_are_orthogonal_to_filtered_confounds_on_kept_volumes(cutoffs):
    signals, confounds, mask = some_signals()
    options = PLAIN | cutoffs | {"sample_mask": mask, "detrend": True}
    cleaned = clean_signals(signals, **(options | {"confounds": confounds}))
    # The confounds, filtered by going through the steps as if they were signals.
    filtered = clean_signals(confounds, **options).signals
    for design in (filtered - filtered.mean(axis=0), cleaned.regressors):
        norms = np.outer(
            np.linalg.norm(design, axis=0), np.linalg.norm(cleaned.signals, axis=0)
        )
        assert np.abs(design.T @ cleaned.signals / norms).max() < 1e-8
    # All that was taken out is what a dense projection takes out.
    kept = clean_signals(signals, **options).signals
    close(cleaned.signals, oracles.projection(cleaned.regressors) @ kept)


@pytest.mark.parametrize("cutoffs", [{}, BAND, {"high_pass": 0.01, "filter": "cosine"}])
def test_regressing_twice_is_once(cutoffs):
    signals, confounds, mask = some_signals()
    options = PLAIN | cutoffs | {"sample_mask": mask, "confounds": confounds}
    once = clean_signals(signals, **(options | {"detrend": True}))
    again = clean_signals(once.signals, **(PLAIN | {"confounds": once.regressors}))
    close(again.signals, once.signals, 1e-12)
    assert again.rank == once.rank


@pytest.mark.parametrize("standardize", [None, "zscore_sample", "psc"])
@pytest.mark.parametrize("cutoffs", [{}, BAND, {"high_pass": 0.01, "filter": "cosine"}])
def test_lost_regions_stay_lost_and_leave_the_others_alone(standardize, cutoffs):
    signals, confounds, mask = some_signals()
    options = PLAIN | cutoffs
    options |= {"confounds": confounds, "sample_mask": mask, "detrend": True}
    options |= {"standardize": standardize}
    spoilt = signals.copy()
    spoilt[:, 2] = np.nan
    spoilt[70, 4] = np.inf
    mask[70] = True
    found = clean_signals(spoilt, **options)
    others = [0, 1, 3, 5]
    expected = clean_signals(signals[:, others], **options)
    for censored in ("drop", "na", "interpolate"):
        laid_out = arrange_volumes(found, censored=censored)
        assert np.isnan(laid_out[:, [2, 4]]).all()
        alone = arrange_volumes(expected, censored=censored)
        assert_allclose(laid_out[:, others], alone, rtol=1e-10, atol=1e-10)
    every = clean_signals(np.full_like(signals, np.nan), **options)
    assert np.isnan(arrange_volumes(every, censored="interpolate")).all()
    assert clean_signals(signals[:, :0], **options).signals.shape == (mask.sum(), 0)


def test_confounds_without_anything_left_in_the_band():
    signals, _, mask = some_signals()
    constant = np.full((200, 1), 7.7)
    options = PLAIN | BAND | {"sample_mask": mask, "detrend": True}
    found = clean_signals(signals, **(options | {"confounds": constant}))
    expected = clean_signals(signals, **options)
    assert found.rank == 0
    for censored in ("drop", "interpolate"):
        close(
            arrange_volumes(found, censored=censored),
            arrange_volumes(expected, censored=censored),
            1e-12,
        )


def test_percent_signal_change_is_of_each_regions_own_mean():
    rng = np.random.default_rng(6)
    waves = rng.normal(size=(100, 3))
    waves -= waves.mean(axis=0)
    signals = waves + np.array([1000, 10, -50])
    options = PLAIN | {"standardize": "psc"}
    expected = 100 * waves / [1000, 10, 50]
    close(clean_signals(signals, **options).signals, expected, 1e-10)
    # A region without mean has no percentage; its neighbour has, all the same.
    signals = waves + np.array([1000, 0, 10])
    for detrend in (False, True):
        found = clean_signals(signals, **(options | {"detrend": detrend})).signals
        assert np.isnan(found[:, 1]).all()
        assert np.isfinite(found[:, [0, 2]]).all()


def test_centred_data_have_no_percent_signal_change():
    """Float32 digits left a mean of 1e-8: 1e12 percent were written."""
    waves = np.random.default_rng(6).normal(0, 10, (120, 3))
    centred = (waves - waves.mean(axis=0)).astype(np.float32).astype(float)
    options = PLAIN | {"standardize": "psc", "detrend": True}
    for mask in (None, np.arange(120) >= 9):  # no longer centred over these
        found = clean_signals(centred, **(options | {"sample_mask": mask}))
        assert found.vanished.all()
    assert not clean_signals(centred + 20, **options).vanished.any()


def test_zscores_have_mean_0_and_deviation_1_over_kept_volumes():
    signals, confounds, mask = some_signals()
    options = PLAIN | BAND | {"sample_mask": mask, "confounds": confounds}
    found = clean_signals(signals, **(options | {"standardize": "zscore_sample"}))
    assert_allclose(found.signals.mean(axis=0), 0, atol=1e-12)
    assert_allclose(found.signals.std(axis=0, ddof=1), 1, rtol=1e-12)


@pytest.mark.parametrize("standardize", [None, "zscore_sample", "psc"])
@pytest.mark.parametrize("explained", ["regressors", "trend"])
def test_nothing_left_of_a_region_is_no_signal(standardize, explained):
    """Rounding errors correlate with one another, by 0.9 and more."""
    rng = np.random.default_rng(7)
    confounds = rng.normal(size=(60, 3))
    line = np.arange(60) * 0.3
    signals = np.column_stack(
        [
            np.full(60, 1000.1),
            500 + (confounds @ [1, 2, 3] if explained == "regressors" else line),
            1e6 + 2 * (confounds @ [-1, 2, 1] if explained == "regressors" else line),
            10 + rng.normal(size=60),
        ]
    )
    options = PLAIN | {"standardize": standardize, "detrend": explained == "trend"}
    if explained == "regressors":
        options["confounds"] = confounds
    found = clean_signals(signals, **options)
    assert_array_equal(found.vanished, [True, True, True, False])
    assert np.isnan(found.signals[:, :3]).all()
    assert np.isfinite(found.signals[:, 3]).all()


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_region_that_is_constant_over_the_kept_volumes_has_no_signal(value):
    """Whatever it does in the others, and whatever regressors make of it."""
    signals = np.column_stack([np.full(60, value), np.arange(60.0)])
    signals[:5, 0] = 100
    confounds = 5 + np.random.default_rng(0).normal(size=(60, 2))
    options = PLAIN | {"sample_mask": np.arange(60) >= 5}
    for more in ({}, {"confounds": confounds, "standardize_confounds": False}):
        found = clean_signals(signals, **(options | more))
        assert_array_equal(found.vanished, [True, False])
        assert np.isnan(found.signals[:, 0]).all()
    assert_array_equal(clean_signals(signals, **options).signals[:, 1], signals[5:, 1])


def test_rank_and_dropped_columns():
    rng = np.random.default_rng(8)
    confounds = rng.normal(size=(80, 3))
    confounds = np.column_stack(
        [confounds, confounds @ [1, 1, 1], np.full(80, 7.7), np.arange(80) * 3.0]
    )
    signals = rng.normal(size=(80, 2))
    cleaned = clean_signals(
        signals, **(PLAIN | {"confounds": confounds, "detrend": True})
    )
    assert cleaned.rank == 3
    assert {4, 5} < set(cleaned.dropped)  # constant and trend, which detrending took
    assert len(cleaned.dropped) == 3
    assert (cleaned.regressors[:, [4, 5]] == 0).all()
    assert cleaned.degrees_of_freedom == 80 - 3 - 2


@pytest.mark.parametrize(
    ("given", "drift", "n_drift"),
    [
        ({}, "none", 0),
        ({"high_pass": 0.01, "filter": "cosine"}, "added", 8),
        ({"high_pass": 0.001, "filter": "cosine"}, "too_short", 0),
    ],
)
def test_what_became_of_the_cosines(given, drift, n_drift):
    signals, confounds, _ = some_signals(n_confounds=2)
    confounds = np.random.default_rng(0).normal(size=confounds.shape)
    cleaned = clean_signals(signals, **(PLAIN | given | {"confounds": confounds}))
    assert cleaned.drift == drift
    assert cleaned.regressors.shape[1] == 2 + n_drift


def test_cosines_among_the_confounds_are_not_doubled():
    signals, _, mask = some_signals()
    supplied = oracles.cosines(200, 0.01, 2.0)
    options = PLAIN | {"high_pass": 0.01, "filter": "cosine", "sample_mask": mask}
    cleaned = clean_signals(signals, **(options | {"confounds": 5 - 3 * supplied}))
    assert cleaned.drift == "supplied"
    assert cleaned.rank == cleaned.regressors.shape[1] == 8
    # A table of nine digits holds them too; some of them leave the others to be added.
    cleaned = clean_signals(
        signals, **(options | {"confounds": supplied[:, :3].round(9)})
    )
    assert cleaned.drift == "added"
    assert cleaned.rank == cleaned.regressors.shape[1] == 8
    alone = clean_signals(signals, **options)
    close(cleaned.signals, alone.signals, 1e-7)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("confound", ["line", "one cosine", "walk"])
def test_a_confound_like_a_cosine_does_not_switch_the_high_pass_off(sign, confound):
    """Nor does the way that a head drifts decide: 71 % of the power stayed, or none."""
    rng = np.random.default_rng(0)
    time = np.arange(200.0)
    drift = oracles.cosines(200, 0.01, 2.0)
    signals = rng.normal(size=(200, 2)) + 8 * np.sin(time / 200 * 5 * np.pi)[:, None]
    motion = 0.02 * rng.normal(size=(200, 6))
    like = {"line": 0.005 * time, "one cosine": drift[:, 3], "walk": None}[confound]
    motion[:, 0] = sign * (rng.normal(size=200).cumsum() if like is None else like)
    options = PLAIN | {"high_pass": 0.01, "filter": "cosine"}
    cleaned = clean_signals(signals, **(options | {"confounds": motion}))
    design = np.column_stack([np.ones(200), drift, motion])
    expected = signals - design @ np.linalg.lstsq(design, signals, rcond=None)[0]
    close(cleaned.signals - cleaned.signals.mean(axis=0), expected, 1e-9)
    slow = drift.T @ cleaned.signals
    assert np.abs(slow).max() < 1e-9 * np.abs(signals).max()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_signs_of_confounds_do_not_matter(sign):
    signals, confounds, mask = some_signals()
    options = PLAIN | {"high_pass": 0.01, "filter": "cosine", "sample_mask": mask}
    once = clean_signals(signals, **(options | {"confounds": confounds}))
    confounds = confounds * np.where(np.arange(24) % 2, sign, -sign)
    again = clean_signals(signals, **(options | {"confounds": confounds}))
    close(again.signals, once.signals, 1e-9)


@pytest.mark.parametrize("gap", ["one stretch", "bursts late", "every other"])
@pytest.mark.parametrize("filter_", ["none", "passband", "cosine"])
def test_a_line_in_time_is_gone_whatever_is_censored(gap, filter_):
    """30 units of line over the run left 6 where volumes were numbered through."""
    time = np.arange(300)
    mask = np.ones(300, bool)
    if gap == "one stretch":
        mask[100:160] = False
    elif gap == "bursts late":
        for start in (200, 210, 223, 231, 240, 252, 263, 275, 281):
            mask[start : start + 6] = False
    else:
        mask[1:200:2] = False
    noise = np.random.default_rng(1).normal(size=(300, 3))
    line = 10_000 + time[:, None] * np.array([0.1, -0.1, 0.1])
    options = PLAIN | {"sample_mask": mask, "detrend": True}
    if filter_ != "none":
        options |= {"filter": filter_, "high_pass": 0.008}
    with_line = clean_signals(noise + line, **options).signals
    without = clean_signals(noise, **options).signals
    assert_allclose(with_line, without, atol=1e-9)
    if filter_ == "none":
        design = np.column_stack([np.ones(mask.sum()), time[mask]])
        weights = np.linalg.lstsq(design, noise[mask], rcond=None)[0]
        close(without, noise[mask] - design @ weights, 1e-10)


def test_a_line_in_time_is_gone_where_volumes_are_unevenly_spaced():
    times = np.cumsum(np.random.default_rng(3).choice([2.0, 9.0], 100))
    signals = (5 + 0.3 * times)[:, None] * np.ones(3)
    options = PLAIN | {"detrend": True, "repetition_time": None}
    assert clean_signals(signals, **options, times=times).vanished.all()
    assert not clean_signals(signals, **options).vanished.any()


@pytest.mark.parametrize("filter_", ["passband", "butterworth"])
@pytest.mark.parametrize("gap", [20, 100])
def test_percent_is_of_the_kept_volumes_as_they_came(filter_, gap):
    """The level of a filled gap was off by up to 40 %."""
    rng = np.random.default_rng(2)
    signals = 1000 + 30 * rng.normal(size=(300, 5))
    mask = np.ones(300, bool)
    mask[100 : 100 + gap] = False
    signals[~mask] = 1e5
    options = PLAIN | BAND | {"sample_mask": mask, "detrend": True, "filter": filter_}
    plain = clean_signals(signals, **options).signals
    found = clean_signals(signals, **(options | {"standardize": "psc"})).signals
    expected = 100 * (plain - plain.mean(axis=0)) / signals[mask].mean(axis=0)
    assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_input_is_left_alone():
    signals, confounds, mask = some_signals()
    copies = signals.copy(), confounds.copy(), mask.copy()
    for cutoffs in ({}, BAND):
        options = PLAIN | cutoffs | {"confounds": confounds, "sample_mask": mask}
        options |= {"detrend": True, "standardize": "psc"}
        clean_signals(signals, **options).signals[:] = 0
    for array, copy in zip((signals, confounds, mask), copies, strict=True):
        assert_array_equal(array, copy)


def test_computed_in_float64_whatever_comes_in():
    signals, confounds, mask = some_signals()
    options = PLAIN | BAND | {"detrend": True, "sample_mask": mask}
    narrow = signals.astype(np.float32), confounds.astype(np.float32)
    found = clean_signals(narrow[0], **(options | {"confounds": narrow[1]})).signals
    wide = [array.astype(np.float64) for array in narrow]
    expected = clean_signals(wide[0], **(options | {"confounds": wide[1]})).signals
    assert found.dtype == np.float64
    assert_array_equal(found, expected)


def test_nothing_asked_for_is_the_kept_volumes():
    signals, _, mask = some_signals()
    cleaned = clean_signals(signals, **(PLAIN | {"sample_mask": mask}))
    assert_array_equal(cleaned.signals, signals[mask])
    one = np.arange(200) == 17
    cleaned = clean_signals(signals, **(PLAIN | {"sample_mask": one}))
    assert_array_equal(cleaned.signals, signals[17:18])
    laid_out = arrange_volumes(cleaned, censored="interpolate")
    assert_array_equal(np.isfinite(laid_out).all(axis=1), one)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_mask": np.zeros(50, bool)}, "0 of 50 volumes are kept"),
        ({"sample_mask": np.arange(50)}, "int64 of shape .* must be bool"),
        ({"sample_mask": np.ones(49, bool)}, r"shape \(49,\), must be bool"),
        ({"confounds": np.zeros((49, 2))}, r"\(49, 2\), the signals 50 volumes"),
        ({"confounds": np.full((50, 2), np.nan)}, "2 of 2 .* columns 0, 1"),
        ({"low_pass": 0.1, "repetition_time": None}, "needs the repetition time"),
        ({"filter": "cosine"}, "needs a high_pass"),
        ({"filter": "cosine", **BAND}, "takes no low_pass"),
        ({**BAND, "sample_mask": np.arange(50) < 33}, "33 volumes .* needs 34"),
        (
            {"confounds": np.random.default_rng(0).normal(size=(50, 60))},
            "50 volumes are kept, but 60 regressors of rank 49 and the mean .* 51",
        ),
        (
            {"detrend": True, "sample_mask": np.arange(50) < 2},
            "2 volumes are kept, but 0 regressors of rank 0, the mean and the trend .*",
        ),
        ({"standardize": "psc", "sample_mask": np.arange(50) < 1}, "1 volumes"),
    ],
)
def test_errors_say_what_was_found_and_needed(changes, message):
    signals = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(ValueError, match=message):
        clean_signals(signals, **(PLAIN | changes))


def test_signals_must_be_a_table():
    with pytest.raises(ValueError, match=r"shape \(5,\), must be \(T, R\)"):
        clean_signals(np.ones(5), **PLAIN)


def contaminated(seed=0, n_volumes=400):
    """Known slow signals, plus known motion, drift and a few spikes."""
    rng = np.random.default_rng(seed)
    time = np.arange(n_volumes) * 2.0
    frequencies = rng.uniform(0.015, 0.08, (8, 12))
    phases = rng.uniform(0, 2 * np.pi, (8, 12))
    truth = np.sin(2 * np.pi * time[:, None, None] * frequencies + phases).sum(axis=1)
    motion = rng.normal(size=(n_volumes, 6)).cumsum(axis=0)
    drift = np.column_stack([time, time**2, np.cos(np.pi * time / time[-1])])
    drift = (drift - drift.mean(axis=0)) / drift.std(axis=0)
    noisy = 1000 + truth + 0.5 * rng.normal(size=truth.shape)
    noisy += motion / motion.std(axis=0) @ rng.normal(0, 3, (6, 12))
    noisy += drift @ rng.normal(0, 4, (3, 12))
    mask = rng.random(n_volumes) > 0.05
    noisy[~mask] += rng.normal(0, 60, (int((~mask).sum()), 12))
    return truth, noisy, motion, mask


def agreement(signals, truth):
    """Mean over regions of the correlation with the truth."""
    pairs = zip(signals.T, truth.T, strict=True)
    return np.mean([np.corrcoef(one, two)[0, 1] for one, two in pairs])


def test_every_step_brings_the_signals_closer_to_the_truth():
    truth, noisy, motion, mask = contaminated()
    every = np.ones(len(mask), bool)
    steps = [
        ({}, every),
        ({"sample_mask": mask}, mask),
        ({"sample_mask": mask, "detrend": True}, mask),
        ({"sample_mask": mask, "detrend": True, "confounds": motion}, mask),
        (
            {"sample_mask": mask, "detrend": True, "confounds": motion}
            | {"high_pass": 0.01, "low_pass": 0.1},
            mask,
        ),
    ]
    found = [
        agreement(clean_signals(noisy, **(PLAIN | options)).signals, truth[rows])
        for options, rows in steps
    ]
    assert (np.diff(found) > 0).all(), found
    assert found[0] < 0.4
    # White noise in the band that is left is 2 % of the truth in variance, the six
    # random walks of the motion take a few slow waves with them.
    assert found[-1] > 0.95


def test_correlation_with_truth_is_as_large_as_theory_says():
    """White noise of known size and motion only: r = 1 / sqrt(1 + noise / signal)."""
    rng = np.random.default_rng(4)
    truth = rng.normal(size=(2000, 40))
    motion = rng.normal(size=(2000, 6)).cumsum(axis=0)
    noisy = truth + 0.5 * rng.normal(size=truth.shape) + motion @ np.ones((6, 40))
    cleaned = clean_signals(noisy, **(PLAIN | {"confounds": motion}))
    # Six of 2,000 dimensions go, of signal and noise alike; the standard error of the
    # mean of 40 correlations over 2,000 volumes is 0.0007.
    assert abs(agreement(cleaned.signals, truth) - 1.25**-0.5) < 0.004
    assert agreement(noisy, truth) < 0.2
