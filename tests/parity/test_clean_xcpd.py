"""XCP-D's way of cleaning, step by step as it documents them, for its presets.

Censored volumes are filled by nilearn's cubic spline, those at the ends by the nearest
kept volume; signals and confounds are detrended over the filled run, filtered with a
Butterworth filter of order 2 with constant padding of T - 1, and the weights come from
the kept volumes, without centring (``denoise_with_nilearn`` of XCP-D).
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from support.cleaning_oracles import PLAIN, clean_signals

from bids_roi.confounds.strategies import load_strategy
from bids_roi.core.clean import arrange_volumes

pytestmark = pytest.mark.parity


def xcpd(signals, confounds, mask, n_dummy, cutoffs, tr):
    from nilearn.signal import _interpolate_volumes, butterworth
    from nilearn.signal import standardize_signal as scale

    mask = mask[n_dummy:]

    def prepare(series):
        series = series[n_dummy:].copy()
        if not mask.all():
            kept = np.flatnonzero(mask)
            whole = _interpolate_volumes(
                series, sample_mask=mask, t_r=tr, extrapolate=True
            )
            whole[: kept[0]], whole[kept[-1] :] = series[kept[0]], series[kept[-1]]
            series = whole
        series = scale(series, detrend=True, standardize=None)
        high, low = cutoffs
        return butterworth(
            series,
            sampling_rate=1 / tr,
            high_pass=high,
            low_pass=low,
            order=2,
            padtype="constant",
            padlen=len(series) - 1,
        )

    data, table = prepare(signals), prepare(confounds)
    betas = np.linalg.lstsq(table[mask], data[mask], rcond=None)[0]
    return data - table @ betas


@pytest.mark.parametrize("cutoffs", [(0.01, 0.08), (0.01, None), (None, 0.1)])
@pytest.mark.parametrize("n_dummy", [0, 4])
@pytest.mark.parametrize("censored", ["none", "scattered", "ends", "gap"])
def test_equals_xcpd(censored, n_dummy, cutoffs):
    rng = np.random.default_rng(0)
    signals = 1000 + rng.normal(size=(200, 6)).cumsum(axis=0)
    confounds = 3 + rng.normal(size=(200, 24)).cumsum(axis=0)
    mask = np.ones(200, bool)
    if censored == "scattered":
        mask[rng.choice(200, 40, replace=False)] = False
    elif censored == "ends":
        mask[[4, 5, 6, 50, 51, -2, -1]] = False
    elif censored == "gap":
        mask[70:85] = False
    mask[:n_dummy] = False
    settings = load_strategy("24P").settings
    options = PLAIN | {"sample_mask": mask, "confounds": confounds, "n_dummy": n_dummy}
    options |= {"high_pass": cutoffs[0], "low_pass": cutoffs[1]}
    for name in ("filter", "filter_order", "filter_padding", "filter_ends", "detrend"):
        options[name] = getattr(settings, name)
    options["interpolation"] = settings.interpolation
    options["standardize_confounds"] = settings.standardize_confounds
    cleaned = clean_signals(signals, **options)
    expected = xcpd(signals, confounds, mask, n_dummy, cutoffs, 2.0)
    scale = np.abs(expected).max()
    assert_allclose(
        cleaned.signals, expected[mask[n_dummy:]], rtol=0, atol=1e-8 * scale
    )
    whole = arrange_volumes(cleaned, censored="interpolate")[n_dummy:]
    kept = np.flatnonzero(mask[n_dummy:])
    inside = slice(kept[0], kept[-1] + 1)
    assert_allclose(whole[inside], expected[inside], rtol=0, atol=1e-8 * scale)
