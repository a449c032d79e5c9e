"""The denoising strategies at hand: presets by name, a user's by path.

The presets are data, one JSON file each; ``strategy_format`` has the format. They hold
the column sets and thresholds of nilearn, XCP-D and giga_connectome by the names that
these tools gave them. What is not in a preset (band-pass, standardisation) is left to
the command line.
"""

from __future__ import annotations

import dataclasses
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from bids_roi.confounds.strategy_checks import parse_settings, parse_strategy
from bids_roi.errors import ConfoundsError, MissingInput, UsageError, nearest_words
from bids_roi.files.tables import read_json
from bids_roi.options.settings import ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

    from bids_roi.confounds.strategy_format import Strategy
    from bids_roi.options.settings import Settings


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

    Parameters
    ----------
    name_or_path
        One of ``list_strategies``, or a path: what ends in ``.json`` or holds a
        slash.

    Raises
    ------
    UsageError
        There is no preset of that name; the message lists the nearest and all.
    MissingInput
        There is no such file.
    ConfoundsError
        The file is no strategy; the message names every item that is wrong.
    DataError
        The file is not JSON.

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
            " bids_roi.confounds.strategy_format` says what it may hold."
        )
        raise ConfoundsError(msg, where=path, remedy=remedy)
    return strategy


def override_settings(strategy: Strategy, given: Mapping[str, object]) -> Strategy:
    """Put settings of the command line in place of the strategy's own.

    Parameters
    ----------
    strategy
        Is left as it is.
    given
        Fields of ``Settings`` that were asked for; ``None`` is off, not "as it was".

    Raises
    ------
    UsageError
        A setting is unknown, has no use, or contradicts another.

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
