"""Slow and obvious cleaning: dense matrices, explicit padding, one column at a time."""

import os
import warnings

import numpy as np
from hypothesis import settings
from scipy import signal
from scipy.interpolate import CubicSpline

from bids_roi.core.clean import prepare_cleaner

# Few where a person waits, 300 in CI, any number on demand.
EXAMPLES = int(
    os.environ.get("BIDS_ROI_EXAMPLES", "300" if os.environ.get("CI") else "25")
)
randomly = settings(max_examples=EXAMPLES, deadline=None)

# Of the largest value. Filtering in both directions with poles close to the unit
# circle, then a regression by other matrices, leaves nine of sixteen digits.
TOLERANCE = 1e-8

# Butterworth filters are nilearn's here: order 5, cubic splines, odd padding.
PLAIN = {
    "confounds": None,
    "sample_mask": None,
    "detrend": False,
    "high_pass": None,
    "low_pass": None,
    "filter": "butterworth",
    "filter_order": 5,
    "interpolation": "cubic_spline",
    "filter_padding": "odd",
    "filter_ends": "cut",
    "standardize": None,
    "standardize_confounds": True,
    "repetition_time": 2.0,
}
BAND = {"high_pass": 0.01, "low_pass": 0.1}


def clean_signals(signals, **steps):
    """What the package makes of signals of one run; evenly spaced, without dummies."""
    steps = {"times": None, "n_dummy": 0} | steps
    return prepare_cleaner(n_volumes=len(signals), **steps).clean(signals)


def some_signals(n_volumes=200, n_regions=6, n_confounds=24, seed=0):
    rng = np.random.default_rng(seed)
    signals = rng.normal(1000, 10, (n_volumes, n_regions))
    confounds = rng.normal(size=(n_volumes, n_confounds)).cumsum(axis=0)
    mask = rng.random(n_volumes) > 0.2
    mask[:3] = mask[-2:] = mask[50] = mask[149] = False
    return signals, confounds, mask


def close(found, expected, tolerance=TOLERANCE, slack=0.0):
    scale = np.nanmax(np.abs(expected), initial=1e-3)
    assert found.shape == expected.shape
    assert (np.isnan(found) == np.isnan(expected)).all()
    # An error bound holds up to a modest factor of the dimensions.
    atol = tolerance * scale + 50 * slack
    worst = np.nanmax(np.abs(found - expected), axis=0, initial=0)
    assert (worst <= atol).all(), (worst, atol)


def detrended(column, times):
    """Residual of the normal equations on an intercept and a slope."""
    design = np.array([[1.0, t - times[len(times) // 2]] for t in times])
    weights = np.linalg.solve(design.T @ design, design.T @ column)
    return column - design @ weights


def butterworth(column, order, high_pass, low_pass, repetition_time, padding):
    """Both directions over an explicitly padded array, as scipy documents it."""
    nyquist = 0.5 / repetition_time
    if low_pass is not None and low_pass >= nyquist:
        low_pass = None
    cutoffs = [f for f in (high_pass, low_pass) if f is not None]
    if len(cutoffs) == 2:
        kind, n_taps = "band", 2 * order + 1
    else:
        kind, n_taps = ("high" if low_pass is None else "low"), order + 1
    cutoffs = cutoffs if len(cutoffs) == 2 else cutoffs[0]
    sos = signal.butter(order, np.array(cutoffs) / nyquist, kind, output="sos")
    n = 3 * n_taps if padding == "odd" else len(column) - 1
    if len(column) <= n:
        raise ValueError(f"{len(column)} volumes, {n + 1} needed")
    head, tail = [column[0]] * n, [column[-1]] * n
    if padding == "odd":
        head = [2 * column[0] - column[i] for i in range(n, 0, -1)]
        tail = [2 * column[-1] - column[-1 - i] for i in range(1, n + 1)]
    padded = np.concatenate([head, column, tail])
    steady = signal.sosfilt_zi(sos)
    forward = signal.sosfilt(sos, padded, zi=steady * padded[0])[0]
    back = signal.sosfilt(sos, forward[::-1], zi=steady * forward[-1])[0][::-1]
    return back[n : n + len(column)]


def filled(column, mask, interpolation):
    """Column with its censored volumes on a curve through the kept ones."""
    kept = [i for i in range(len(column)) if mask[i]]
    if np.isnan(column[kept]).all():  # a region without a level has no percent
        return np.full(len(column), np.nan)
    if interpolation == "linear":
        line = np.interp(np.arange(len(column)), kept, [column[i] for i in kept])
        return np.where(mask, column, line)
    spline = CubicSpline([float(i) for i in kept], [column[i] for i in kept])
    return np.array(
        [column[i] if mask[i] else float(spline(i)) for i in range(len(column))]
    )


def cosines(n_volumes, high_pass, repetition_time):
    """Slow cosines by their definition."""
    count = min(n_volumes - 1, int(2 * n_volumes * high_pass * repetition_time))
    return np.array(
        [
            [
                np.sqrt(2 / n_volumes) * np.cos(np.pi * k * (t + 0.5) / n_volumes)
                for k in range(1, count + 1)
            ]
            for t in range(n_volumes)
        ]
    ).reshape(n_volumes, count)


def passed(mask, high_pass, low_pass, repetition_time, detrend):
    """Dense matrix of the pass-band fit over kept volumes; condition of its slow terms.

    Eigenvectors of what least squares leaves of the band's sines and cosines, those of
    which a tenth of the energy or more is seen; no factorisation shared with the code.
    """
    n_volumes = len(mask)
    t = np.arange(n_volumes)
    trend = [np.ones(n_volumes), t - t.mean()]
    slow = []
    if high_pass is not None:
        every = cosines(n_volumes, high_pass, repetition_time).T
        # That at the cut-off itself is not slower than the band.
        rates = np.arange(1, len(every) + 1) / (2 * n_volumes * repetition_time)
        slow = trend + list(every[rates < high_pass - 1e-12])
    elif detrend:
        slow = trend
    n_kept = int(mask.sum())
    # Without a high-pass mean and line stay, and are fitted before the band.
    design = np.array(slow or trend).T[mask]
    fitted = design @ np.linalg.pinv(design, rcond=1e-12)
    out = np.eye(n_kept) - fitted
    # Over one short segment slow cosines are all but dependent.
    condition = np.linalg.cond(design)
    if low_pass is None or low_pass >= 0.5 / repetition_time:
        return out, condition
    waves = []
    for k in range(1, n_volumes // 2 + 1):
        frequency = k / (n_volumes * repetition_time)
        low_enough = frequency <= low_pass + 1e-12
        if low_enough and frequency >= (high_pass or 0.0) - 1e-12:
            waves.append(np.sqrt(2 / n_volumes) * np.cos(2 * np.pi * k * t / n_volumes))
            waves.append(np.sqrt(2 / n_volumes) * np.sin(2 * np.pi * k * t / n_volumes))
    rest = out @ np.array(waves).T[mask]
    energy, vectors = np.linalg.eigh(rest.T @ rest)
    patterns = rest @ vectors[:, energy >= 0.1]
    band = patterns @ np.linalg.pinv(patterns)
    return (band if slow else band + fitted), condition


def clean(
    signals,
    *,
    confounds,
    sample_mask,
    detrend,
    high_pass,
    low_pass,
    filter,  # noqa: A002 - the word of the option
    filter_order,
    interpolation,
    filter_padding,
    filter_ends,
    standardize,
    standardize_confounds,
    repetition_time,
):
    """(T, R), NaN in the volumes that have no value; condition of the design; slack.

    Kept volumes have one, and with a Butterworth filter those between them. The slack
    (R,) is what one bit of the design moves: Golub & Van Loan (2013), section 5.3.7.
    """
    n_volumes = len(signals)
    mask = np.ones(n_volumes, bool) if sample_mask is None else sample_mask
    table = np.zeros((n_volumes, 0)) if confounds is None else confounds
    nyquist = 0.5 / repetition_time
    cutoffs = high_pass or (low_pass and low_pass < nyquist)
    filling = filter == "butterworth" and cutoffs
    if filter == "cosine":
        table = np.column_stack([table, cosines(n_volumes, high_pass, repetition_time)])
    kept = np.flatnonzero(mask)
    rows = np.arange(kept[0], kept[-1] + 1) if filling else kept
    if filling and filter_ends == "nearest":
        rows = np.arange(n_volumes)
    projector, of_slow = None, 1.0
    if filter == "passband" and cutoffs:
        projector, of_slow = passed(mask, high_pass, low_pass, repetition_time, detrend)

    def prepare(column):
        if projector is not None:
            mean = column[mask].mean()
            rest = projector @ (column[mask] - mean)
            return rest if high_pass or detrend else rest + mean
        if filling:
            whole = np.array(column, float)
            inside = slice(kept[0], kept[-1] + 1)
            whole[inside] = filled(column[inside], mask[inside], interpolation)
            whole[: kept[0]], whole[kept[-1] :] = whole[kept[0]], whole[kept[-1]]
            column = whole
        column = column[rows]
        if detrend:
            column = detrended(column, rows)
        if filling:
            column = butterworth(
                column,
                filter_order,
                high_pass,
                low_pass,
                repetition_time,
                filter_padding,
            )
        return column

    inside = mask[rows]
    design = []
    for c in range(table.shape[1]):
        column = prepare(table[:, c])
        if standardize_confounds:
            column = column - column[inside].mean()
            column = column / column[inside].std(ddof=1)
        design.append(column)
    design = np.array(design).T.reshape(len(rows), -1)
    condition = np.linalg.cond(design[inside]) if design.size else 1.0
    swing = max(np.abs(design).max(initial=0), 1)  # of splines in long gaps
    result = np.full(signals.shape, np.nan)
    slack = np.zeros(signals.shape[1])
    for r in range(signals.shape[1]):
        column = prepare(signals[:, r])
        largest = max(np.abs(column).max(), np.abs(signals[mask, r]).max())
        betas = np.linalg.pinv(design[inside], rcond=1e-11) @ column[inside]
        column = column - design @ betas
        divisor = 1.0
        if standardize == "zscore_sample":
            divisor = column[inside].std(ddof=1)
        elif standardize == "psc":
            level = abs(signals[mask, r].mean())
            divisor = level / 100 if level > signals[mask, r].std() else np.nan
        if standardize is not None:
            column = (column - column[inside].mean()) / divisor
        result[rows, r] = column
        if np.isfinite(divisor):
            slack[r] = np.finfo(float).eps * condition * swing * largest / divisor
            spread = np.ptp(signals[mask, r])
            slack[r] += np.finfo(float).eps * of_slow * spread / divisor
    return result, max(condition, of_slow), slack


def projection(design):
    """Dense matrix onto the complement of the columns."""
    return np.eye(len(design)) - design @ np.linalg.pinv(design)


def nilearn_clean(signals, **options):
    """Same through nilearn, whose words differ; only for what it does right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its advice on odd combinations
        from nilearn.signal import clean as reference

        mask = options["sample_mask"]
        return reference(
            signals.copy(),
            detrend=options["detrend"],
            standardize=options["standardize"],
            standardize_confounds=options["standardize_confounds"],
            confounds=options["confounds"],
            sample_mask=None if mask is None else np.flatnonzero(mask),
            filter=options["filter"],
            low_pass=options["low_pass"],
            high_pass=options["high_pass"],
            t_r=options["repetition_time"],
            butterworth__order=options["filter_order"],
        )


def nilearn_is_right(mask):
    """No mirrored pair is censored, and not both ends."""
    if mask is None:
        return True
    censored = set(np.flatnonzero(~mask).tolist())
    n_volumes = len(mask)
    mirrored = any(n_volumes - 1 - i in censored for i in censored)
    return not mirrored and (mask[0] or mask[-1])
