"""Settings of cleaning: each declared once, with all that is told of it.

A field of ``Settings`` carries its ``Row``. The options of ``--help``, the checks of
strategy files, what ``none`` means on the command line, the example in
``confounds.strategies`` and the keys of the sidecars are made from the rows.
"""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

from bids_roi.errors import UsageError
from bids_roi.options.row import Option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_HUGE = 1e15

_Filter = Literal["passband", "butterworth", "cosine"]
_Padding = Literal["constant", "odd"]
_Ends = Literal["cut", "nearest"]
_Fill = Literal["linear", "cubic_spline"]
_Scale = Literal["none", "zscore_sample", "psc"]
_MotionFilter = Literal["none", "notch", "lp"]


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a number that can be calculated with."""
    # JSON as Python reads it has NaN and Infinity, and true is the number one.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _HUGE  # false for NaN, and true for no endless integer


def is_whole(value: object) -> bool:
    """Whether a value of a JSON file is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return value is None or (is_number(value) and float(str(value)) > 0)


def _is_count(value: object) -> bool:
    return is_whole(value) and int(str(value)) >= 0


def _is_band(value: object) -> bool:
    if value is None:
        return True
    band = value if isinstance(value, tuple) else ()
    ends = (0.0, *(float(f) if is_number(f) else 0.0 for f in band))
    return len(band) in (1, 2) and all(low < high for low, high in pairwise(ends))


def _as_it_is(_: str, value: object) -> object:
    return value


def _number(flag: str, value: object, or_off: str = "") -> float:
    try:
        return float(str(value))
    except ValueError:
        raise UsageError(f"{flag} is a number{or_off}, not '{value}'.") from None


def _number_or_off(flag: str, value: object) -> float | None:
    return None if value == "none" else _number(flag, value, " or none")


def _band_or_off(flag: str, value: object) -> tuple[float, ...] | None:
    words = value if isinstance(value, tuple | list) else (value,)
    if [*words] == ["none"]:
        return None
    return tuple(_number(flag, word, " or none") for word in words)


def _auto_or_count(flag: str, value: object) -> int | str | None:
    if value in ("auto", "none"):
        return "auto" if value == "auto" else None
    try:
        return int(str(value))
    except ValueError:
        msg = f"{flag} is auto, none, or a whole number of volumes, not '{value}'."
        raise UsageError(msg) from None


@dataclass(frozen=True, slots=True)
class Values:
    """Which values a setting takes."""

    # How they are called in the message of a wrong one.
    needed: str
    # Whether a value of a strategy file, or the one read, is one of them.
    fits: Callable[[object], bool]
    # Makes the value from flag and word of the command line.
    read: Callable[[str, object], object] = _as_it_is
    # kind, choices, metavar, unit and many: as in ``Option``.
    kind: type = str
    choices: tuple[str, ...] = ()
    metavar: str = ""
    unit: str = ""
    many: bool = False


def _positive(needed: str, metavar: str, unit: str = "") -> Values:
    """Numbers above 0, or off."""
    text = f"{needed}, or null for off,"
    return Values(text, _is_positive, _number_or_off, metavar=metavar, unit=unit)


def _one_of(words: object, needed: str = "") -> Values:
    """The words of a ``Literal``."""
    choices: tuple[str, ...] = get_args(words)
    text = needed or f"{', '.join(choices[:-1])} or {choices[-1]}"
    return Values(text, lambda value: value in choices, choices=choices)


_SWITCH = Values("true or false", lambda value: isinstance(value, bool), kind=bool)
_HERTZ = _positive("a frequency above 0 Hz", "HZ", "Hz")
_COUNT = Values(
    *("a number of volumes, 0 or more,", _is_count),
    kind=int,
    metavar="N",
    unit="volumes",
)
_ORDER = Values(
    *("a whole number from 1 to 10", lambda v: is_whole(v) and v in range(1, 11)),
    kind=int,
    metavar="N",
)
_BAND = Values(
    "a list of one or two numbers above 0, the lower one first, or null for off,",
    _is_band,
    _band_or_off,
    metavar="PER_MINUTE",
    unit="breaths per minute",
    many=True,
)
_DUMMIES = Values(
    "auto, or a number of volumes,",
    lambda value: value == "auto" or _is_count(value),
    _auto_or_count,
    metavar="{auto,N}",
    unit="volumes",
)


@dataclass(frozen=True, slots=True)
class Row:
    """All that is told of a setting but its name, type and default."""

    # Which values it takes.
    values: Values
    # What ``--help`` says of its option; empty where only strategy files have it.
    help: str = ""
    _: KW_ONLY
    # example and note: its value in the example of a strategy file, and the words
    # beside it.
    example: object
    note: str = ""
    # Key under which cleaned series record it, or empty where another key tells it.
    sidecar: str = ""
    # ``butterworth``, ``threshold`` or ``motion_filter``, where it does nothing
    # without.
    needs: Literal["", "butterworth", "threshold", "motion_filter"] = ""
    # The setting behind which its key stands, where that is not its own place.
    after: str = ""


def _setting(*row: Any, default: Any = None, **more: Any) -> Any:  # noqa: ANN401 - any
    return field(default=default, metadata={"row": Row(*row, **more)})


@dataclass(frozen=True, slots=True)
class Settings:
    """How signals are cleaned beside the regression; by default nothing is done.

    The order of the fields is that of ``--help`` and of the sidecars, and digests of
    outputs depend on it. What stands for ``null`` in a strategy file is the default.
    """

    detrend: bool = _setting(
        _SWITCH,
        "Take out mean and linear trend.",
        default=False,
        example=True,
        note="mean and straight line",
        sidecar="Detrend",
    )
    high_pass: float | None = _setting(
        _HERTZ, "Lowest frequency to keep, or none.", example=0.01, note="Hz"
    )
    low_pass: float | None = _setting(
        _HERTZ, "Highest frequency to keep, or none.", example=0.08, note="Hz"
    )
    filter: _Filter = _setting(
        _one_of(_Filter),
        "Kind of filter: a fit of the pass band to the kept volumes, which needs"
        " no gap filled; a Butterworth filter; or slow cosines among the confounds"
        " (high-pass only). The strategy's, or passband.",
        default="passband",
        example="passband",
        note='or "butterworth", "cosine"',
    )
    filter_order: int = _setting(
        _ORDER,
        "Order of the Butterworth filter. The strategy's, or 5.",
        default=5,
        example=5,
        note="of a Butterworth filter,",
        needs="butterworth",
    )
    filter_padding: _Padding = _setting(
        _one_of(_Padding, "odd or constant"),
        "How a series goes on beyond its ends for the Butterworth filter:"
        " constant, at its last value (XCP-D), or odd, as its reflection (nilearn)."
        " The strategy's, or constant.",
        default="constant",
        example="constant",
        note='or "odd": how it goes on beyond the ends',
        needs="butterworth",
    )
    filter_ends: _Ends = _setting(
        _one_of(_Ends),
        "Censored volumes before the first and after the last kept one, for the"
        " Butterworth filter: cut them off (nilearn), or give them the nearest kept"
        " volume's values (XCP-D). The strategy's, or cut.",
        default="cut",
        example="cut",
        note='or "nearest": censored volumes there',
        needs="butterworth",
    )
    interpolation: _Fill = _setting(
        _one_of(_Fill),
        "How gaps are filled, for the Butterworth filter and --censored"
        " interpolate. A cubic spline (nilearn, XCP-D) swings far out in long gaps."
        " The strategy's, or linear.",
        default="linear",
        example="linear",
        note='or "cubic_spline", where gaps are filled',
    )
    standardize_confounds: bool = _setting(
        _SWITCH,
        default=True,
        example=True,
        note="or false: they keep their means",
        sidecar="StandardizeConfounds",
        after="standardize",
    )
    standardize: _Scale = _setting(
        _one_of(_Scale),
        "Scale of cleaned signals: z-scores, or percent of the region's own mean.",
        default="none",
        example="zscore_sample",
        note='or "psc", "none"',
        sidecar="Standardize",
    )
    fd_threshold: float | None = _setting(
        _positive("a length above 0 mm", "MM", "mm"),
        "Censor volumes with more framewise displacement than this, or none.",
        example=0.5,
        note="mm; volumes above it are censored",
        sidecar="FDThreshold",
    )
    std_dvars_threshold: float | None = _setting(
        _positive("a number above 0", "X"),
        "Censor volumes with more standardised DVARS than this, or none.",
        example=1.5,
        sidecar="StdDVARSThreshold",
    )
    scrub: int = _setting(
        _COUNT,
        "Censor stretches of fewer than N volumes between censored ones.",
        default=0,
        example=5,
        note="shorter stretches are censored too",
        sidecar="Scrub",
        needs="threshold",
    )
    censor_before: int = _setting(
        _COUNT,
        "Censor N volumes before each outlier too.",
        default=0,
        example=0,
        note="neighbours of a censored volume",
        sidecar="CensorBefore",
        needs="threshold",
    )
    censor_after: int = _setting(
        _COUNT,
        "Censor N volumes after each outlier too.",
        default=0,
        example=0,
        sidecar="CensorAfter",
        needs="threshold",
    )
    dummy_scans: int | Literal["auto"] = _setting(
        _DUMMIES,
        "Volumes to leave out at the start: a number, or auto for those that"
        " fMRIPrep flags as not steady.",
        default=0,
        example="auto",
        note="as flagged in the confounds, or a number",
        sidecar="DummyScans",
    )
    motion_filter: _MotionFilter = _setting(
        _one_of(_MotionFilter),
        "Filter the six motion parameters before anything is made of them, where"
        " breathing looks like motion (multiband): notch, a band is taken out; lp,"
        " all above. Their derivatives, squares and the framewise displacement are"
        " made again, for regressors and censoring. The strategy's, or none.",
        default="none",
        example="notch",
        note='or "lp", "none": of the motion parameters',
        sidecar="MotionFilter",
    )
    motion_filter_band: tuple[float, ...] | None = _setting(
        _BAND,
        "Breathing that --motion-filter takes out: from and to for notch (12 18),"
        " the lowest for lp (6).",
        example=(12, 18),
        note="breaths per minute; of lp one number",
        sidecar="MotionFilterBand",
        needs="motion_filter",
    )
    head_radius: float = _setting(
        Values(
            *("a length above 0 mm", lambda v: v is not None and _is_positive(v)),
            _number,
            metavar="MM",
            unit="mm",
        ),
        "Radius of the head for the framewise displacement that --motion-filter"
        " makes again. The strategy's, or 50.",
        default=50.0,
        example=50,
        note="mm, for the framewise displacement",
        sidecar="HeadRadius",
        needs="motion_filter",
    )


ROWS: dict[str, Row] = {item.name: item.metadata["row"] for item in fields(Settings)}

SETTING_OPTIONS: tuple[Option, ...] = tuple(
    Option(
        name,
        "cleaning",
        row.help,
        kind=row.values.kind,
        default=False if row.values.kind is bool else () if row.values.many else None,
        many=row.values.many,
        choices=row.values.choices,
        metavar=row.values.metavar,
        unit=row.values.unit,
    )
    for name, row in ROWS.items()
    if row.help
)


def read_given(given: Mapping[str, object]) -> dict[str, object]:
    """Settings from words of the command line; ``None`` where one is off.

    >>> read_given({"fd_threshold": "none", "high_pass": "0.01", "dummy_scans": "4"})
    {'high_pass': 0.01, 'fd_threshold': None, 'dummy_scans': 4}
    """
    return {
        option.name: ROWS[option.name].values.read(option.flags[0], given[option.name])
        for option in SETTING_OPTIONS
        if option.name in given
    }


def list_told(settings: Settings) -> dict[str, object]:
    """Values by name, without those of a motion filter where there is none.

    Outputs that were made before there was one keep their digests.
    """
    values = asdict(settings)
    if settings.motion_filter == "none":
        of_it = [n for n, row in ROWS.items() if row.needs == "motion_filter"]
        for name in ("motion_filter", *of_it):
            del values[name]
    return values


def describe_settings(
    settings: Settings, applied: Mapping[str, object]
) -> dict[str, object]:
    """Keys of the sidecars of cleaned series.

    ``settings``: what was asked for; ``applied``: values by setting, where what was
    done is another.
    """
    told = list_told(settings)
    place = {name: number for number, name in enumerate(ROWS)}
    ordered = sorted(
        ROWS, key=lambda name: (place[ROWS[name].after or name], bool(ROWS[name].after))
    )
    return {
        ROWS[name].sidecar: applied.get(name, getattr(settings, name))
        for name in ordered
        if ROWS[name].sidecar and name in told
    }


def format_example() -> str:
    """Lines of a strategy file with every setting, and words beside them."""
    items = [(f'"{name}": {json.dumps(ROWS[name].example)}', name) for name in ROWS]
    ends = [","] * (len(items) - 1) + [""]
    return "".join(
        f"        {item + end:<36} {ROWS[name].note}".rstrip() + "\n"
        for (item, name), end in zip(items, ends, strict=True)
    )
