"""The Boutiques descriptor, made from the table of options.

``boutiques.json`` holds that of the release that is next, ``--bids-exec-spec`` prints
that of the installed one: Nipoppy, CBRAIN and bosh see the same options as ``--help``.
It passes ``bosh validate`` and its BIDS profile (``--bids``), which asks for:

- the command line ``mkdir -p [OUTPUT_DIR]; ... [BIDS_DIR] [OUTPUT_DIR] ...``;
- the output folder as two inputs that exclude each other: a name (String), and a
  folder that exists (File), which a platform such as CBRAIN stages;
- that folder as the one and only output.

bosh itself understands only the first of two inputs that share a key: where it is
absent, the key is removed before the second is looked at (0.5.33, also in the BIDS
template of its own). So the name comes first and serves both levels.

Defaults are told in the descriptions and not as ``default-value``: Boutiques would put
such values on every command line, and recorded commands would then differ from what was
asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi import errors
from bids_roi.options.table import LEVELS, OPTIONS
from bids_roi.version import __version__

if TYPE_CHECKING:
    from bids_roi.options.row import Option

# Boutiques mounts every File and refuses one that does not exist; these folders are
# made when they are absent.
_MADE_WHEN_ABSENT = frozenset({"bids_database_dir", "work_dir"})

# The BIDS profile fixes the order of these two; the other options follow them.
_LEADING = ("participant_label", "session_label")

_OUTPUT_DIR = "[OUTPUT_DIR]"


def build_descriptor(version: str = __version__) -> dict[str, Any]:
    """Describe the command line of a version, in JSON's own types only."""
    leading = [option for name in _LEADING for option in OPTIONS if option.name == name]
    options = [*leading, *(option for option in OPTIONS if option not in leading)]
    keys = " ".join(_value_key(option) for option in options)
    return {
        "name": "bids_roi",
        "tool-version": version,
        "schema-version": "0.5",
        "description": "BIDS App: one time series per atlas region from preprocessed"
        " BOLD runs (fMRIPrep and its kin), as BIDS derivatives.",
        "author": "The bids_roi developers",
        "command-line": f"mkdir -p {_OUTPUT_DIR}; bids_roi [BIDS_DIR] {_OUTPUT_DIR}"
        f" [ANALYSIS_LEVEL] {keys}",
        "container-image": {
            "type": "docker",
            "image": f"bids_roi:{version}",
            "index": "docker://",
        },
        "inputs": [*_positionals(), *(_option_input(option) for option in options)],
        "output-files": [
            {
                "id": "output_dir",
                "name": "Output folder",
                "description": "The BIDS derivative dataset that was written.",
                "path-template": _OUTPUT_DIR,
                "optional": False,
            }
        ],
        "groups": _groups(),
        "error-codes": _error_codes(),
        # One participant with ten runs of 300 volumes, with room to spare.
        "suggested-resources": {"cpu-cores": 2, "ram": 2, "walltime-estimate": 600},
        "tags": {
            "domain": ["neuroinformatics", "bids app"],
            "modality": ["fmri"],
            "purpose": ["region of interest", "parcellation", "time series"],
        },
        # The draft of the execution specification names the key in two ways.
        "custom": {
            "BIDSApplicationVersion": "2.0",
            "BIDSAppSpecVersion": "0.1.0.dev",
        },
    }


def descriptor_text(version: str = __version__) -> str:
    """The bytes of ``boutiques.json``, with the last newline."""
    return json.dumps(build_descriptor(version), indent=2, ensure_ascii=False) + "\n"


def _value_key(option: Option) -> str:
    # Brackets keep a key from being part of another: ATLAS of ATLAS_FILE.
    return f"[{option.name.upper()}]"


def _positionals() -> list[dict[str, Any]]:
    return [
        {
            "id": "bids_dir",
            "name": "BIDS folder",
            "type": "File",
            "description": "The fMRIPrep derivative, or a raw BIDS dataset whose"
            " derivatives/ holds one. It is only read.",
            "value-key": "[BIDS_DIR]",
            "optional": False,
        },
        {
            "id": "output_dir_name",
            "name": "Name of the output folder",
            "type": "String",
            "description": "Where to write; made when absent. The group level reads"
            " what the participant level has written there.",
            "value-key": _OUTPUT_DIR,
            "optional": True,
        },
        {
            "id": "participant_level_analysis_dir",
            "name": "Output folder of the participant level",
            "type": "File",
            "description": "The same for the group level, on platforms that hand over"
            " existing folders (CBRAIN). bosh needs the name of the output folder.",
            "value-key": _OUTPUT_DIR,
            "optional": True,
        },
        {
            "id": "analysis_level",
            "name": "Analysis level",
            "type": "String",
            "description": "participant: every run of every participant;"
            " group: tables over what the participant level has written.",
            "value-key": "[ANALYSIS_LEVEL]",
            "value-choices": list(LEVELS),
            "optional": False,
        },
    ]


def _option_input(option: Option) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": option.name,
        "name": option.name.replace("_", " ").capitalize(),
        "type": _input_type(option),
        "description": _description(option),
        "value-key": _value_key(option),
        "command-line-flag": option.flags[0],
        "optional": True,
    }
    if option.kind is int:
        entry["integer"] = True
    if option.many:
        entry["list"] = True
        entry["min-list-entries"] = 1
    if option.choices:
        entry["value-choices"] = list(option.choices)
    return entry


def _input_type(option: Option) -> str:
    if option.kind is bool:
        return "Flag"
    if option.kind in (int, float):
        return "Number"
    must_exist = option.kind is Path and option.name not in _MADE_WHEN_ABSENT
    return "File" if must_exist else "String"


def _description(option: Option) -> str:
    text = option.help
    if option.unit:
        text = f"{text.removesuffix('.')} ({option.unit})."
    if option.default not in (None, (), False) and "Default" not in text:
        values = option.default if option.many else (option.default,)
        text += f" Default: {' '.join(str(value) for value in values)}."
    return text


def _groups() -> list[dict[str, Any]]:
    output = {
        "id": "output_directory",
        "name": "Output folder",
        "description": "Its name, or the folder itself where it exists.",
        "members": ["output_dir_name", "participant_level_analysis_dir"],
        "mutually-exclusive": True,
        "one-is-required": True,
    }
    headings = dict.fromkeys(option.group for option in OPTIONS)
    return [
        output,
        *(
            {
                "id": f"{heading.replace(' ', '_')}_options",
                "name": heading.capitalize(),
                "members": [o.name for o in OPTIONS if o.group == heading],
            }
            for heading in headings
        ),
    ]


def _error_codes() -> list[dict[str, Any]]:
    # The class that sets a code also describes it; subclasses inherit both.
    kinds = [getattr(errors, name) for name in errors.__all__]
    codes = {
        kind.exit_code: (kind.__doc__ or "").partition("\n")[0]
        for kind in kinds
        if "exit_code" in vars(kind)
    }
    codes[errors.BidsRoiError.exit_code] = (
        "One or more runs failed, or cannot be read by the group level; see the log."
    )
    return [{"code": code, "description": codes[code]} for code in sorted(codes)]
