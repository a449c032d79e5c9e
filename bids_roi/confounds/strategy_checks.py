"""A strategy from JSON: every item is looked at, and every mistake is named.

The messages begin with the path of the item, ``components[2].pattern`` for example, and
all of them are given at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import warnings
from typing import TYPE_CHECKING, Any

from bids_roi.confounds.strategy_format import Component, Strategy
from bids_roi.options.settings import ROWS, Settings, is_number, is_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_EXPANSIONS = ("basic", "power2", "derivatives", "full")
_MODELS: dict[str, tuple[str, ...]] = {
    "motion": _EXPANSIONS,
    "wm_csf": _EXPANSIONS,
    "csf": _EXPANSIONS,
    "white_matter": _EXPANSIONS,
    "global_signal": _EXPANSIONS,
    "cosine": ("all",),
    "compcor": (
        *("anat_combined", "anat_separated", "temporal"),
        *("temporal_anat_combined", "temporal_anat_separated"),
    ),
    "ica_aroma": ("basic", "orthogonal", "full"),
}
_KINDS = (*_MODELS, "columns", "pattern", "table")
# What a component of a kind may say besides.
_BESIDE = {
    "compcor": ("n_components", "variance_explained"),
    "table": ("columns",),
}
NAME_OF_TABLE = "[A-Za-z0-9][A-Za-z0-9-]*"
_NO_PATTERN = (re.error, TypeError, OverflowError, RecursionError, FutureWarning)
_KEYS = ("name", "label", "description", "components", "settings")


def parse_strategy(content: Mapping[str, Any], problems: list[str]) -> Strategy | None:
    """Build a strategy from the content of a JSON file.

    Parameters
    ----------
    content
        See ``strategy_format``.
    problems
        Gets a line for every item that is wrong, beginning with the item's path.

    Returns
    -------
    Strategy or None
        ``None`` where there are problems.
    """
    known = len(problems)
    _check_keys(content, _KEYS, "", problems)
    name = _text(content, "name", problems)
    label = content.get("label")
    if label is None:
        label = re.sub("[^A-Za-z0-9]", "", name)
        if name and not label:
            problems.append("label: needed, the name holds neither letter nor digit")
    elif not isinstance(label, str) or not re.fullmatch("[A-Za-z0-9]+", label):
        problems.append(f"label: letters and digits are needed, found {label!r}")
    description = _text(content, "description", problems, default="")
    components = _parse_components(content, problems)
    raw = content.get("settings")
    settings = parse_settings({} if raw is None else raw, "settings", problems)
    if settings is None or len(problems) > known:
        return None
    return Strategy(name, str(label), description, components, settings)


def _text(
    content: Mapping[str, Any],
    key: str,
    problems: list[str],
    default: str | None = None,
) -> str:
    value = content.get(key)
    value = default if value is None else value
    if isinstance(value, str) and (value.strip() or default is not None):
        return value
    if value is None:
        problems.append(f"{key}: needed")
    else:
        problems.append(f"{key}: a text is needed, found {value!r}")
    return ""


def _check_keys(
    content: Mapping[str, Any],
    allowed: Iterable[str],
    place: str,
    problems: list[str],
) -> None:
    for key in content:
        if key not in allowed:
            where = f"{place}.{key}" if place else key
            hint = (
                "giga_connectome's format" if key in ("function", "parameters") else ""
            )
            close = difflib.get_close_matches(key.lower(), list(allowed), n=1)
            hint = f"did you mean {close[0]}?" if close else hint
            known = hint or f"the keys are {', '.join(allowed)}"
            problems.append(f"{where}: unknown key ({known})")


def _parse_components(
    content: Mapping[str, Any], problems: list[str]
) -> tuple[Component, ...]:
    raw = content.get("components")
    if not isinstance(raw, list):
        found = "nothing" if raw is None else repr(raw)
        problems.append(f"components: a list of objects is needed, found {found}")
        return ()
    parsed = [
        _parse_component(item, f"components[{index}]", problems)
        for index, item in enumerate(raw)
    ]
    return tuple(component for component in parsed if component is not None)


def _parse_component(raw: object, place: str, problems: list[str]) -> Component | None:
    if not isinstance(raw, dict):
        example = '{"motion": "full"}'
        problems.append(f"{place}: an object like {example} is needed, found {raw!r}")
        return None
    kinds = [key for key in raw if key in _KINDS]
    if "table" in raw:  # its columns are said beside it
        kinds = [key for key in kinds if key != "columns"]
    if len(kinds) != 1:
        found = " and ".join(kinds) or ", ".join(map(str, raw)) or "nothing"
        close = difflib.get_close_matches(found.lower(), _KINDS, n=1)
        hint = f"; did you mean {close[0]}?" if close and not kinds else ""
        problems.append(
            f"{place}: one of {', '.join(_KINDS)} is needed, found {found}{hint}"
        )
        return None
    kind = kinds[0]
    known = len(problems)
    _check_keys(raw, (kind, *_BESIDE.get(kind, ())), place, problems)
    component = _parse_kind(kind, raw[kind], f"{place}.{kind}", problems)
    if component is not None and kind == "compcor":
        component = _parse_sizes(component, raw, place, problems)
    if component is not None and kind == "table" and raw.get("columns") != "all":
        named = _parse_kind("columns", raw.get("columns"), f"{place}.columns", problems)
        columns = () if named is None else named.columns
        component = dataclasses.replace(component, columns=columns)
    return component if len(problems) == known else None


def _parse_kind(
    kind: str, value: object, place: str, problems: list[str]
) -> Component | None:
    if kind == "columns":
        names = value if isinstance(value, list) else []
        if names and all(isinstance(name, str) and name for name in names):
            return Component(kind, columns=tuple(names))
        problems.append(f"{place}: a list of column names is needed, found {value!r}")
    elif kind == "table":
        if isinstance(value, str) and re.fullmatch(NAME_OF_TABLE, value):
            return Component(kind, value)
        needed = "a name of letters, digits and hyphens"
        problems.append(f"{place}: {needed} is needed, found {value!r}")
    elif kind == "pattern":
        try:
            if not isinstance(value, str) or not value:
                raise TypeError("a text is needed")
            with warnings.catch_warnings():
                # What Python will read otherwise in future, such as "[[a]".
                warnings.simplefilter("error", FutureWarning)
                re.compile(value)
        except _NO_PATTERN as error:
            problems.append(f"{place}: not a regular expression: {value!r} ({error})")
        else:
            return Component(kind, value)
    elif value in _MODELS[kind]:
        return Component(kind, str(value))
    else:
        models = ", ".join(_MODELS[kind])
        problems.append(f"{place}: one of {models} is needed, found {value!r}")
    return None


def _parse_sizes(
    component: Component, raw: Mapping[str, Any], place: str, problems: list[str]
) -> Component:
    count, share = raw.get("n_components"), raw.get("variance_explained")
    if count == "all":
        count = None
    if count is not None and not (is_whole(count) and count > 0):
        problems.append(
            f'{place}.n_components: "all" or a whole number above 0 is needed,'
            f" found {count!r}"
        )
    if share is not None and not (is_number(share) and 0 < share <= 1):
        problems.append(
            f"{place}.variance_explained: a share above 0 and up to 1 is needed,"
            f" found {share!r}"
        )
    if count is not None and share is not None:
        problems.append(
            f"{place}: n_components and variance_explained exclude one another"
        )
    return dataclasses.replace(component, n_components=count, variance_explained=share)


def parse_settings(raw: object, place: str, problems: list[str]) -> Settings | None:
    """Build settings from an object of a JSON file, or from fields given otherwise.

    Parameters
    ----------
    raw
        What is left out or ``None`` is off.
    place
        Path of the object, for the messages.
    problems
        Gets a line for every setting that is wrong.

    Returns
    -------
    Settings or None
        ``None`` where there are problems.
    """
    if not isinstance(raw, dict):
        problems.append(f"{place}: an object is needed, found {raw!r}")
        return None
    known = len(problems)
    _check_keys(raw, tuple(ROWS), place, problems)
    values: dict[str, Any] = dataclasses.asdict(Settings())
    for key, row in ROWS.items():
        value = raw.get(key)
        value = tuple(value) if isinstance(value, list) else value
        values[key] = values[key] if value is None else value
        if not row.values.fits(values[key]):
            where = f"{place}.{key}" if place else key
            needed = row.values.needed
            problems.append(f"{where}: {needed} is needed, found {value!r}")
    if len(problems) > known:
        return None
    high, low = values["high_pass"], values["low_pass"]
    if high is not None and low is not None and high >= low:
        problems.append(
            f"{place}: high_pass {high:g} Hz is not below low_pass {low:g} Hz"
        )
    if values["filter"] == "cosine" and low is not None:
        problems.append(f"{place}: a cosine filter has no low_pass")
    _check_motion_filter(values, place, problems)
    return Settings(**values) if len(problems) == known else None


def _check_motion_filter(
    values: dict[str, Any], place: str, problems: list[str]
) -> None:
    """Look at a motion filter, and give its band as numbers with a point."""
    kind, band = values["motion_filter"], values["motion_filter_band"]
    needed = {"notch": 2, "lp": 1}.get(kind, 0)
    if needed and len(band or ()) != needed:
        problems.append(
            f"{place}: motion_filter {kind} takes {needed} of motion_filter_band"
            f" (breaths per minute), found {len(band or ())}"
        )
    if band is not None:
        values["motion_filter_band"] = tuple(map(float, band))
    problems += [
        f"{place}: {name} does nothing without motion_filter"
        for name, row in ROWS.items()
        if row.needs == "motion_filter"
        and not needed
        and values[name] != getattr(Settings(), name)
    ]
