"""Arguments of Python functions: checked as declared, and spoken of as ``name=``."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.errors import BidsRoiError, UsageError, nearest_words
from bids_roi.options.row import local_path
from bids_roi.options.settings import ROWS
from bids_roi.options.table import OPTIONS
from bids_roi.options.words import name_statistics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bids_roi.options.row import Option

_HUGE = 2**53  # whole numbers beyond are not all doubles
_GROUPS = ("atlases", "extraction", "cleaning", "connectivity")
# Arguments with names of their own, and what only acts on files that are written.
_ELSEWHERE = (
    *("atlas", "atlas_file", "atlas_space", "combine", "seeds"),
    *("mask", "strategy", "cifti_output", "combine_runs"),
    *("conditions", "condition_shift", "raw_dataset"),
)
ALLOWED = {
    option.name: option
    for option in OPTIONS
    if option.group in _GROUPS and option.name not in _ELSEWHERE
}
_OWN = ("bold", "atlas", "atlas_table", "space", "mask", "confounds", "strategy")
# Other spellings, as the command line has them.
_ALIASES = {
    flag.lstrip("-").replace("-", "_"): option.name
    for option in OPTIONS
    if option.name in ALLOWED or option.name == "strategy"
    for flag in option.flags
}
# What other software, nilearn above all, calls them.
_COUNTERPARTS = {
    "imgs": "bold",
    "img": "bold",
    "labels_img": "atlas",
    "maps_img": "atlas",
    "atlas_img": "atlas",
    "atlas_file": "atlas (a path or image), with atlas_table",
    "combine": "atlas, as 'NAME=ATLAS,ATLAS'",
    "seeds": "atlas, the path of the table, with seed_radius",
    "lut": "atlas_table",
    "labels": "atlas_table (columns index and name)",
    "atlas_space": "space",
    "mask_img": "mask",
    "t_r": "repetition_time",
    "tr": "repetition_time",
    "fwhm": "smoothing_fwhm",
    "sample_mask": "fd_threshold, std_dvars_threshold or dummy_scans; or"
    " bids_roi.RegionMasker, whose transform takes it",
    "clean_args": "filter, filter_order, filter_padding and interpolation",
    "standardize_confounds": "strategy, a file that says so",
    "keep_masked_labels": "min_coverage; lost regions stay, as NaN",
    "background_label": "atlas; 0 is the background",
    "resampling_target": "bold; atlases are always brought to the run",
    "cifti_output": "the command line; nothing is written here",
    "conditions": "RegionMasker, whose transform takes a sample_mask",
    "combine_runs": "the method combine of what several runs give",
}
# Flags that stand for an argument of another name.
_PYTHON = {"atlas_file": "atlas", "combine": "atlas", "seeds": "atlas"}
_PYTHON |= {"atlas_space": "space"} | {name: name for name in _OWN}
_ENTITIES = ("res", "den", "hemi", "desc", "echo_label")
_FLAG = re.compile(r"--([a-z][a-z0-9_-]*[a-z0-9])(?: ([^\s,;:.()]+(?:\.\d+)?))?")


def say(value: object) -> str:
    """Show a value in a message, in its type where it is long."""
    if isinstance(value, str | bool | int | float) or value is None:
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    text = " ".join(repr(value).split())
    name = type(value).__name__
    return text if len(text) <= 40 and "object at" not in text else f"a {name}"


def pop_strategy(options: dict[str, Any], strategy: Any) -> Any:  # noqa: ANN401 - any
    """The strategy, which has other spellings too; they are taken out of options."""
    for word in [word for word in options if _ALIASES.get(word) == "strategy"]:
        if strategy is not None:
            raise UsageError(f"strategy is given twice, as {word} too.")
        strategy = options.pop(word)
    return strategy


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Values of options as the command line would parse them, by their names."""
    checked: dict[str, Any] = {}
    for word, value in options.items():
        name = _ALIASES.get(word, word)
        if name not in ALLOWED:
            raise _unknown(word)
        if name in checked:
            raise UsageError(f"{name} is given twice, as {word} too.")
        if value is not None:
            checked[name] = read_value(ALLOWED[name], value)
    for name in ("statistic", "map_statistic"):
        if len(checked.get(name, ())) > 1:
            raise UsageError(f"extract takes one {name} at a time.")
    return checked


def _unknown(word: str) -> UsageError:
    msg = f"extract has no option '{word}'."
    if word in _COUNTERPARTS:
        return UsageError(msg, remedy=f"Its counterpart here is {_COUNTERPARTS[word]}.")
    known = sorted({*_OWN, *ALLOWED})
    near = ", ".join(nearest_words(word, known))
    hint = f"Nearest: {near}. " if near else ""
    return UsageError(msg, remedy=f"{hint}It has {', '.join(known)}.")


def read_value(option: Option, value: Any) -> Any:  # noqa: ANN401 - of any option
    """Value of an option, if it is one that the option takes."""
    if not option.many:
        return _read_one(option, value)
    if isinstance(value, str | os.PathLike | Real):
        value = (value,)
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes):
        raise _refuse(option, value)
    return tuple(str(_read_one(option, item)) for item in value)


def _read_one(option: Option, value: Any) -> Any:  # noqa: ANN401 - of any option
    if option.kind is bool:
        if not isinstance(value, bool | np.bool_):
            raise _refuse(option, value)
        return bool(value)
    if option.kind in (int, float):
        return _read_number(option, value)
    # Settings that are numbers, or a word that switches them off.
    numeric = option.name in ROWS and not option.choices
    if numeric and _is_number(value, Real):
        return float(value) if not isinstance(value, Integral) else int(value)
    path = isinstance(value, os.PathLike) and not option.choices and not numeric
    if not (isinstance(value, str) or path):
        raise _refuse(option, value)
    if option.choices and value not in option.choices:
        raise _refuse(option, value)
    text = os.fspath(value)
    if issubclass(option.kind, os.PathLike):
        if not text or "\0" in text:
            raise _refuse(option, value)
        return local_path(text)
    return text


def _is_number(value: object, kind: type) -> bool:
    """Whether a value is a number of a kind; True and False are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _read_number(option: Option, value: Any) -> int | float:  # noqa: ANN401 - unknown
    number: int | float = math.nan
    with contextlib.suppress(ValueError, OverflowError):
        kind = Integral if option.kind is int else Real
        if isinstance(value, str) or _is_number(value, kind):
            number = option.kind(value)
    if not abs(number) < _HUGE:
        raise _refuse(option, value)
    return number


def _refuse(option: Option, value: object) -> UsageError:
    """Error of a value that is none of the option's."""
    unit = f" ({option.unit})" if option.unit else ""
    if option.choices:
        needed = f"one of {', '.join(option.choices)}"
    elif option.kind is bool:
        needed = "True or False"
    elif option.name in ROWS and option.kind is str:
        word = "'auto', a number" if option.name == "dummy_scans" else "a number"
        needed = f"{word} or 'none'{unit}"
    elif option.kind in (int, float):
        needed = f"a {'whole ' if option.kind is int else ''}number{unit}"
    elif issubclass(option.kind, os.PathLike):
        needed = "a path"
    else:
        needed = "text or a path"
    if option.many and not option.choices:
        needed += ", or several"
    remedy = ""
    if option.name == "standardize" and value is True:
        remedy = "What is True in nilearn is 'zscore_sample'."
    elif option.name == "standardize" and value is False:
        remedy = "What is False in nilearn is 'none', or to leave it out."
    return UsageError(f"{option.name} is {needed}, not {say(value)}.", remedy=remedy)


def read_strategies(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - what is given
    """Strategies that are asked for, by name or path."""
    given = [value] if isinstance(value, str | os.PathLike) else value
    if isinstance(given, Mapping | bytes) or not isinstance(given, Iterable):
        raise _not_strategy(value)
    found = []
    for item in given:
        if not isinstance(item, str | os.PathLike):
            raise _not_strategy(item)
        if item in name_statistics():
            remedy = f"Over the voxels of a region it is statistic='{item}'."
            raise UsageError(f"'{item}' is no strategy of cleaning.", remedy=remedy)
        found.append(os.fspath(item))
    if not found:
        msg = "strategy is an empty list."
        raise UsageError(msg, remedy="Leave it out, or name one.")
    return tuple(found)


def _not_strategy(value: object) -> UsageError:
    msg = f"strategy is a name, the path of a JSON file, or several, not {say(value)}."
    return UsageError(msg, remedy="For example strategy='36P'; 'none' is for raw.")


@contextlib.contextmanager
def python_words(places: Mapping[Path, str]) -> Iterator[None]:
    """Say errors of the app in the words of Python; ``places`` are temporary files."""
    try:
        yield
    except BidsRoiError as error:
        raise in_python(error, places) from error.__cause__


def in_python(error: BidsRoiError, places: Mapping[Path, str]) -> BidsRoiError:
    """Error of the app in the words of Python."""
    where = _name_places(error.where, places)
    if where == error.where and any(where == path.name for path in places):
        where = next(word for path, word in places.items() if path.name == where)
    texts = [
        _name_places(_FLAG.sub(_as_argument, text), places).replace(
            "the command line", "the call"
        )
        for text in (error.problem, error.remedy)
    ]
    return type(error)(texts[0], where=where, remedy=texts[1])


def _name_places(text: str, places: Mapping[Path, str]) -> str:
    for path, word in places.items():
        text = text.replace(str(path), word)
    return text


def _as_argument(match: re.Match[str]) -> str:
    """Argument for a flag, with the value that follows it."""
    flag = match[1].replace("-", "_")
    name = _PYTHON.get(flag) or (flag if flag in ALLOWED else _ALIASES.get(flag))
    if flag in _ENTITIES:  # of files, which are chosen by naming them here
        return f"another {flag.removesuffix('_label')}- in their names"
    if name is None:
        return match[0]
    word = match[2]
    if word is None:
        return f"{name}="
    option = ALLOWED.get(name)
    if re.fullmatch(r"-?[\d.]+|[A-Z_]+", word):
        return f"{name}={word}"
    known = word in ("none", "auto") or (option is not None and word in option.choices)
    if known or (name == "space" and re.search("[A-Z]", word)):
        return f"{name}='{word}'"
    return f"{name}= {word}"
