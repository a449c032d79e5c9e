"""Denoising strategies: which columns to regress out, and with which settings.

A strategy is data. The presets are the JSON files in ``bids_roi/data/denoise``, with
the column sets and thresholds of nilearn, XCP-D and giga_connectome by the names that
these tools gave them; what is in none (band-pass, standardisation) is left to the
command line. A user's own file has the same form, and any preset can be copied as a
beginning::

    {
      "name": "mine",                        how people call it
      "label": "mine",                       desc- of the outputs: letters and digits;
                                             default: those of the name
      "description": "What it is good for.", may be left out
      "components": [                        what is regressed out, in any order
        {"motion": "full"},                  basic 6, power2 12, derivatives 12, full 24
        {"wm_csf": "basic"},                 same four models, on csf and white_matter
        {"csf": "basic"},                    the same on one of them
        {"white_matter": "basic"},
        {"global_signal": "basic"},
        {"cosine": "all"},                   fMRIPrep's high-pass regressors
        {"compcor": "anat_combined",         or anat_separated, temporal,
                                             temporal_anat_combined, _separated
         "n_components": 5},                 per mask; "all" (default) or a number, or
                                             instead "variance_explained": 0 to 1
        {"ica_aroma": "basic"},              aroma_motion_*; "orthogonal":
                                             aroma_orth_motion_*; "full": no column,
                                             but a BOLD series already denoised
        {"columns": ["rmsd", "csf_wm"]},     by name
        {"pattern": "edge_comp_0[0-4]"},     a regular expression for the whole name
        {"table": "physio",                  a table of your own for each run, from
         "columns": ["heart", "breath"]}     --confounds-dataset physio=DIR; or "all"
      ],
      "settings": {                          each may be left out, or be null: off
        SETTINGS
      }
    }

Columns have the names of today's fMRIPrep; those of fMRIPrep 1.0 and 1.1 are renamed
when the table is read. What is left out is off, and so is what is ``null``: other than
in nilearn (and so in giga_connectome), where ``null`` means the default.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import warnings
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.errors import ConfoundsError, MissingInput, UsageError, nearest_words
from bids_roi.files.tables import read_json
from bids_roi.options.settings import (
    ROWS,
    Settings,
    format_example,
    is_number,
    is_whole,
    list_told,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from importlib.resources.abc import Traversable


# The settings tell themselves what to write of them.
__doc__ = (__doc__ or "").replace("        SETTINGS\n", format_example())
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


@dataclass(frozen=True, slots=True)
class Component:
    """One group of columns.

    ``model`` says which of the group, ``full`` for example; it is the expression of a
    ``pattern`` and the name of a ``table``, whose ``columns`` are all where none is
    named. Of CompCor, per mask: at most ``n_components``, or as many as explain a
    share, 0 to 1.
    """

    kind: str
    model: str = ""
    columns: tuple[str, ...] = ()
    n_components: int | None = None
    variance_explained: float | None = None

    def __str__(self) -> str:
        """Say it in short: ``compcor anat_combined``."""
        return f"{self.kind} {self.model or ', '.join(self.columns)}"


@dataclass(frozen=True, slots=True)
class Strategy:
    """A named choice of columns and settings.

    ``name`` is as asked for, or as its file says; ``label`` is for ``desc-`` in file
    names. ``components`` are regressed out, ``settings`` say what else is done.
    """

    name: str
    label: str
    description: str
    components: tuple[Component, ...]
    settings: Settings

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables beside fMRIPrep's that it takes columns from."""
        named = (part.model for part in self.components if part.kind == "table")
        return tuple(dict.fromkeys(named))

    @property
    def takes_aroma(self) -> bool:
        """Whether columns of fMRIPost-AROMA's table may be among its regressors."""
        named = {part.kind for part in self.components if part.model != "full"}
        return not named.isdisjoint({"ica_aroma", "columns", "pattern"})


def describe_strategy(strategy: Strategy) -> dict[str, Any]:
    """JSON content that reads back to the same strategy.

    >>> from bids_roi.options.settings import Settings
    >>> settings = Settings(fd_threshold=0.5)
    >>> mine = Strategy("m", "m", "", (Component("motion", "full"),), settings)
    >>> describe_strategy(mine)["components"]
    [{'motion': 'full'}]
    """
    components = []
    for part in strategy.components:
        item: dict[str, Any] = {part.kind: part.model or list(part.columns)}
        if part.kind == "table":
            item["columns"] = list(part.columns) or "all"
        if part.n_components is not None:
            item["n_components"] = part.n_components
        if part.variance_explained is not None:
            item["variance_explained"] = part.variance_explained
        components.append(item)
    return {
        "name": strategy.name,
        "label": strategy.label,
        "description": strategy.description,
        "components": components,
        "settings": list_told(strategy.settings),
    }


def _presets() -> dict[str, Traversable]:
    folder = resources.files("bids_roi").joinpath("data", "denoise")
    files = {
        file.name.removesuffix(".json"): file
        for file in folder.iterdir()
        if file.name.endswith(".json")
    }
    return {name: files[name] for name in sorted(files)}


def list_strategies() -> tuple[str, ...]:
    """Names of the presets, in alphabetical order.

    >>> "scrubbing.5+gsr" in list_strategies()
    True
    """
    return tuple(_presets())


def load_strategy(name_or_path: str | Path) -> Strategy:
    """Find a preset by name, or read a user's file.

    What ends in ``.json`` or holds a slash is a path.

    Examples
    --------
    >>> load_strategy("24P").components
    (Component(kind='motion', model='full', ...),)
    """
    text = os.fspath(name_or_path)
    presets = _presets()
    preset = {name.casefold(): name for name in presets}.get(text.casefold())
    if preset is not None:
        with resources.as_file(presets[preset]) as path:
            return _read(path)
    if isinstance(name_or_path, Path) or text.endswith(".json") or "/" in text:
        path = Path(text)
        if not path.exists() and not path.is_symlink():
            msg = "there is no such file."
            raise MissingInput(msg, where=path, remedy="Check the path.")
        return _read(path)
    near = nearest_words(text, presets)
    msg = f"there is no strategy {text!r}."
    remedy = "A file of your own ends in .json. " + (
        f"Nearest: {', '.join(near)}." if near else f"There are {', '.join(presets)}."
    )
    raise UsageError(msg, remedy=remedy)


def _read(path: Path) -> Strategy:
    content = read_json(path, keep_odd_numbers=True)
    problems: list[str] = []
    strategy = parse_strategy(content, problems)
    if strategy is None:
        msg = f"the denoising strategy is not usable: {'; '.join(problems)}."
        remedy = (
            "Correct the file; `python -m pydoc"
            " bids_roi.confounds.strategies` says what it may hold."
        )
        raise ConfoundsError(msg, where=path, remedy=remedy)
    return strategy


def override_settings(strategy: Strategy, given: Mapping[str, object]) -> Strategy:
    """Put settings of the command line in place of the strategy's own.

    ``given`` are fields of ``Settings``; ``None`` is off, not "as it was".

    Examples
    --------
    >>> scrubbing = load_strategy("scrubbing")
    >>> changed = override_settings(scrubbing, {"std_dvars_threshold": None})
    >>> changed.settings.std_dvars_threshold, changed.settings.fd_threshold
    (None, 0.5)
    """
    problems: list[str] = []
    merged = dataclasses.asdict(strategy.settings) | dict(given)
    if given.get("motion_filter") == "none":  # what needs one goes with it
        for name, row in ROWS.items():
            if row.needs == "motion_filter" and name not in given:
                del merged[name]
    settings = parse_settings(merged, "", problems)
    if settings is not None:
        problems += _idle_settings(settings, given)
    if settings is None or problems:
        found = "; ".join(problem.removeprefix(": ") for problem in problems)
        msg = f"the settings do not go with the strategy {strategy.name}: {found}."
        remedy = "Change the options, or give none to switch one off."
        raise UsageError(msg, remedy=remedy)
    return dataclasses.replace(strategy, settings=settings)


def _idle_settings(settings: Settings, given: Mapping[str, object]) -> list[str]:
    """Settings that were asked for aloud and would do nothing."""
    of_butterworth = [n for n, row in ROWS.items() if row.needs == "butterworth"]
    named = [name for name in ("filter", *of_butterworth) if name in given]
    if settings.high_pass is None and settings.low_pass is None:
        return [f"{name} does nothing without high_pass or low_pass" for name in named]
    if settings.filter == "butterworth":
        return []
    return [
        f"{name} is of a Butterworth filter, the filter is {settings.filter}"
        for name in named
        if name in of_butterworth
    ]


def parse_strategy(content: Mapping[str, Any], problems: list[str]) -> Strategy | None:
    """Build a strategy from the content of a JSON file."""
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

    What is left out or ``None`` is off. ``problems`` gets a line for every setting that
    is wrong, beginning with ``place``, the path of the object.
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
