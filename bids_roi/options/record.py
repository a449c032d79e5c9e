"""What is asked for, as one frozen record that is checked once.

Its slices are the headings of ``--help``. It is what the rest of the package sees;
nothing below the front door ever sees an argparse namespace, and what lies below the
two levels is given the slice, or the one value, that it uses.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from bids_roi.options.row import Group, Input, Running, list_options
from bids_roi.options.settings import SETTING_OPTIONS
from bids_roi.options.table import (
    OPTIONS,
    Atlases,
    Cleaning,
    Connectivity,
    Extraction,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bids_roi.options.row import Option


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for, checked once; lists are tuples, absent values are ``None``."""

    input: Input = field(default_factory=Input)
    atlases: Atlases = field(default_factory=Atlases)
    extraction: Extraction = field(default_factory=Extraction)
    cleaning: Cleaning = field(default_factory=Cleaning)
    connectivity: Connectivity = field(default_factory=Connectivity)
    group: Group = field(default_factory=Group)
    running: Running = field(default_factory=Running)

    @classmethod
    def of(cls, **values: Any) -> Options:  # noqa: ANN401 - of any option
        """Make the record from values by the names of their options."""
        given = dict(values)
        slices = {}
        for item in fields(cls):
            kind: Any = item.default_factory
            own = {f.name: given.pop(f.name) for f in fields(kind) if f.name in given}
            slices[item.name] = kind(**own)
        if given:
            raise TypeError(f"there is no option {next(iter(given))!r}")
        return cls(**slices)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Options:
        """Make the record from parsed values; prefixes and repeats are removed."""
        given = {k: v for k, v in values.items() if v is not None}
        for option in OPTIONS:
            if option.many and option.name in given:
                given[option.name] = tuple(dict.fromkeys(given[option.name]))
        for name, prefix in _PREFIXES.items():
            given[name] = tuple(
                dict.fromkeys(v.removeprefix(prefix) for v in given.get(name, ()))
            )
        settings = {
            option.name: given.pop(option.name)
            for option in SETTING_OPTIONS
            if option.name in given
        }
        settings = {k: v for k, v in settings.items() if v is not False}
        return cls.of(**given, settings=settings)

    def value(self, option: Option) -> Any:  # noqa: ANN401 - of any option
        """Value of an option, given or not."""
        if option in SETTING_OPTIONS:
            return self.cleaning.settings.get(option.name, option.default)
        return getattr(getattr(self, _HOMES[option.name]), option.name)

    def deciding(self) -> dict[str, Any]:
        """Options of extraction that change numbers, by their key in the sidecars.

        Lists that are empty are left out: they ask for nothing.
        """
        return {
            option.sidecar: self.value(option)
            for option in OPTIONS
            if option.sidecar and option.of == "run" and self.value(option) != ()
        }

    def digest(self) -> str:
        """Hash of the options that change numbers; 12 hexadecimal digits.

        Where a mask image lies does not matter, but what is in it, which is not known
        here.
        """
        values = self.deciding()
        if self.extraction.mask not in ("auto", "none"):
            values["Mask"] = "image"
        text = json.dumps(values, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


# The slice in which each option lies.
_HOMES = {
    row.name: item.name
    for item in fields(Options)
    for row in list_options(item.default_factory)
}

_PREFIXES = {
    "participant_label": "sub-",
    "session_label": "ses-",
    "task_label": "task-",
    "run_label": "run-",
    "echo_label": "echo-",
    "space": "space-",
    "res": "res-",
    "den": "den-",
    "hemi": "hemi-",
}
