"""Rows of the table of options that concern cleaning."""

from __future__ import annotations

from pathlib import Path

from bids_roi.options.row import Option

__all__ = ["CLEANING_OPTIONS"]

_CLEAN = "cleaning"

CLEANING_OPTIONS: tuple[Option, ...] = (
    Option(
        "denoise",
        _CLEAN,
        "Strategies of cleaning: none (raw signals), presets such as simple, scrubbing,"
        " 24P, 36P, acompcor, or JSON files. Each makes outputs of its own, with its"
        " name in desc-. The options below replace settings of the strategies (none"
        " stays raw); given alone they clean without confounds. Default: none.",
        many=True,
        default=(),
        metavar="STRATEGY",
    ),
    Option(
        "detrend",
        _CLEAN,
        "Take out mean and linear trend.",
        kind=bool,
        default=False,
    ),
    Option(
        "high_pass",
        _CLEAN,
        "Lowest frequency to keep, or none.",
        metavar="HZ",
        unit="Hz",
    ),
    Option(
        "low_pass",
        _CLEAN,
        "Highest frequency to keep, or none.",
        metavar="HZ",
        unit="Hz",
    ),
    Option(
        "filter",
        _CLEAN,
        "Kind of filter: a fit of the pass band to the kept volumes, which needs no gap"
        " filled; a Butterworth filter; or slow cosines among the confounds (high-pass"
        " only). The strategy's, or passband.",
        choices=("passband", "butterworth", "cosine"),
    ),
    Option(
        "filter_order",
        _CLEAN,
        "Order of the Butterworth filter. The strategy's, or 5.",
        kind=int,
        metavar="N",
    ),
    Option(
        "filter_padding",
        _CLEAN,
        "How a series goes on beyond its ends for the Butterworth filter: constant, at"
        " its last value (XCP-D), or odd, as its reflection (nilearn). The strategy's,"
        " or constant.",
        choices=("constant", "odd"),
    ),
    Option(
        "filter_ends",
        _CLEAN,
        "Censored volumes before the first and after the last kept one, for the"
        " Butterworth filter: cut them off (nilearn), or give them the nearest kept"
        " volume's values (XCP-D). The strategy's, or cut.",
        choices=("cut", "nearest"),
    ),
    Option(
        "interpolation",
        _CLEAN,
        "How gaps are filled, for the Butterworth filter and --censored interpolate. A"
        " cubic spline (nilearn, XCP-D) swings far out in long gaps. The strategy's, or"
        " linear.",
        choices=("linear", "cubic_spline"),
    ),
    Option(
        "standardize",
        _CLEAN,
        "Scale of cleaned signals: z-scores, or percent of the region's own mean.",
        choices=("none", "zscore_sample", "psc"),
    ),
    Option(
        "fd_threshold",
        _CLEAN,
        "Censor volumes with more framewise displacement than this, or none.",
        metavar="MM",
        unit="mm",
    ),
    Option(
        "std_dvars_threshold",
        _CLEAN,
        "Censor volumes with more standardised DVARS than this, or none.",
        metavar="X",
    ),
    Option(
        "scrub",
        _CLEAN,
        "Censor stretches of fewer than N volumes between censored ones.",
        kind=int,
        metavar="N",
        unit="volumes",
    ),
    Option(
        "censor_before",
        _CLEAN,
        "Censor N volumes before each outlier too.",
        kind=int,
        metavar="N",
        unit="volumes",
    ),
    Option(
        "censor_after",
        _CLEAN,
        "Censor N volumes after each outlier too.",
        kind=int,
        metavar="N",
        unit="volumes",
    ),
    Option(
        "dummy_scans",
        _CLEAN,
        "Volumes to leave out at the start: a number, or auto for those that fMRIPrep"
        " flags as not steady.",
        metavar="{auto,N}",
        unit="volumes",
    ),
    Option(
        "censored",
        _CLEAN,
        "What becomes of censored volumes: drop their rows, na for rows of n/a, or"
        " interpolate them.",
        default="drop",
        choices=("drop", "na", "interpolate"),
    ),
    Option(
        "high_variance_confounds",
        _CLEAN,
        "Regress out the five main components of the voxels that vary most, as nilearn"
        " defines them. Reads the run once more.",
        kind=bool,
        default=False,
    ),
    Option(
        "allow_missing_confounds",
        _CLEAN,
        "Go on, with a warning, where a strategy names columns that a run lacks or that"
        " hold nothing but n/a.",
        kind=bool,
        default=False,
    ),
    Option(
        "aroma_dataset",
        _CLEAN,
        "fMRIPost-AROMA derivative with the components for aroma strategies.",
        kind=Path,
        metavar="DIR",
    ),
    Option(
        "min_volumes",
        _CLEAN,
        "A strategy that keeps fewer volumes of a run fails on it.",
        kind=int,
        metavar="N",
        unit="volumes",
    ),
    Option(
        "min_time",
        _CLEAN,
        "A strategy that keeps less time of a run fails on it.",
        kind=float,
        metavar="S",
        unit="s",
    ),
)
