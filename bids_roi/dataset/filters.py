"""Which files are asked for: rules on the parts of a file name, and the filter file.

The semantics are those of ``BIDSLayout.get``, the spelling of the filter file is that
of fMRIPrep, but the rules look at the file *name*. pybids searches the whole absolute
path (a dataset below ``/data/anat/`` or ``/data/sub-99/`` gets wrong entities), drops
entities that its configuration does not list (``cohort``, ``scale``, ``hash``) and
compares ``res-2`` with ``res-02`` as text. With names, every entity works alike.

Plain rules on labels; nothing is read. The file system is ``roots``' and
``layout``'s affair.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_roi.errors import DataError, UsageError
from bids_roi.files.names import parse_name
from bids_roi.files.tables import read_json
from bids_roi.options.record import Options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


# Not entities, but parts of a path that pybids lets one filter by as if they were.
PARTS = ("suffix", "extension", "datatype")

# The sections that this app has a query for, and those of the other apps that share
# one filter file with it (fMRIPrep, sMRIPrep, ASLPrep, QSIPrep, XCP-D, BABS).
_SECTIONS = ("bold", "mask", "confounds")
_FOREIGN_SECTIONS = frozenset(
    {"anat", "asl", "boldref", "cbv", "cifti", "dseg", "dwi", "flair", "fmap", "func"}
    | {"gii", "m0scan", "magnitude", "pet", "phasediff", "physio", "raw", "roi"}
    | {"sbref", "surf", "t1w", "t2star", "t2w", "template", "xfm"}
)

# pybids' names, and those of its coming schema configuration, to the keys in names.
_LONG_NAMES = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "nucleus": "nuc",
    "volume": "voi",
    "ceagent": "ce",
    "staining": "stain",
    "tracer": "trc",
    "reconstruction": "rec",
    "direction": "dir",
    "modality": "mod",
    "inversion": "inv",
    "mtransfer": "mt",
    "processing": "proc",
    "hemisphere": "hemi",
    "segmentation": "seg",
    "resolution": "res",
    "density": "den",
    "description": "desc",
    "template": "tpl",
}
_KEYS = (
    frozenset(_LONG_NAMES.values())
    | {"sample", "task", "tracksys", "run", "echo", "flip", "part", "space", "split"}
    | {"recording", "chunk", "label", "atlas", "roi", "scale", "cohort", "stat"}
    | {"hash", "from", "to", "mode", "model", "subset", "fmapid", "measure"}
)
_ALLOWED = sorted({*_KEYS, *_LONG_NAMES, *PARTS})

# BIDS calls these labels an index: 1, 01 and 001 say the same. `res` is a label, but
# fMRIPrep fills it with the resolution's number in TemplateFlow, padded or not.
_NUMBERED = frozenset({"run", "echo", "res", "flip", "inv", "split", "chunk"})

# The longest list that an explanation spells out.
LISTED = 6

# fMRIPrep writes its enumeration out as "<Query.NONE: 1>"; people type "Query.NONE".
_QUERY = re.compile(r"<?Query\.([A-Z]+)(?::\s*\d+)?>?")


@dataclass(frozen=True, slots=True)
class Rule:
    """One requirement on one part of a file name.

    Attributes
    ----------
    key
        The entity as file names have it (``ses``), or one of ``PARTS``.
    values
        Labels that pass.
    absent
        Whether a file without the entity passes.
    anything
        Whether every label passes.
    """

    key: str
    values: tuple[str, ...] = ()
    absent: bool = False
    anything: bool = False

    def accepts(self, label: str | None) -> bool:
        """Whether a label passes; ``None`` stands for a name without the entity.

        >>> Rule("run", ("1",)).accepts("01"), Rule("task", ("1",)).accepts("01")
        (True, False)
        """
        if label is None:
            return self.absent
        return self.anything or any(self._same(label, v) for v in self.values)

    def _same(self, label: str, value: str) -> bool:
        if self.key in _NUMBERED and label.isdecimal() and value.isdecimal():
            return int(label) == int(value)
        return label == value

    @property
    def wanted(self) -> str:
        """What passes, in words: ``1 or 2``, ``absent``, ``anything``."""
        words = ["anything"] if self.anything else list(self.values[:LISTED])
        words += ["..."] * (len(self.values) > LISTED)
        return " or ".join(words + ["absent"] * self.absent)

    def __str__(self) -> str:
        """Say the rule as a query: ``run 1 or 2``."""
        return f"{self.key} {self.wanted}"


def labels_of(path: Path) -> dict[str, str]:
    """All that rules look at: the entities of a name, and the three ``PARTS``."""
    name = parse_name(path)
    return {
        **dict(name.entities),
        "suffix": name.suffix,
        "extension": name.extension,
        "datatype": path.parent.name,
    }


def failing(rules: Iterable[Rule], labels: Mapping[str, str]) -> list[Rule]:
    """Return the rules that a file breaks; an empty list means that it is selected."""
    return [rule for rule in rules if not rule.accepts(labels.get(rule.key))]


def replace_rules(defaults: Iterable[Rule], given: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the given rules, and the defaults on what they do not mention."""
    given = tuple(given)
    mentioned = {rule.key for rule in given}
    return (*(rule for rule in defaults if rule.key not in mentioned), *given)


def load_filters(path: Path | None) -> dict[str, tuple[Rule, ...]]:
    """Read a filter file in fMRIPrep's format.

    Parameters
    ----------
    path
        JSON with the sections ``bold``, ``mask`` and ``confounds``, each an object of
        entity and value: a label, a number, a list of them, ``null`` (the entity is
        absent), ``"*"`` (it has any label), or ``"Query.NONE"``, ``"Query.ANY"``,
        ``"Query.OPTIONAL"``. ``None`` stands for no file.

    Returns
    -------
    dict
        The rules of each of the three sections; empty where the file has none.

    Raises
    ------
    UsageError
        The file is unreadable or not JSON, or has an unknown section, entity or kind
        of value. Sections of other apps are ignored.
    """
    filters: dict[str, tuple[Rule, ...]] = dict.fromkeys(_SECTIONS, ())
    if path is None:
        return filters
    try:
        content = read_json(path)
    except DataError as error:
        remedy = "Correct the file given with --bids-filter-file."
        raise UsageError(error.problem, where=path, remedy=remedy) from error
    for section, entities in content.items():
        if section in _FOREIGN_SECTIONS:
            continue
        if section not in _SECTIONS:
            msg = _unknown("section", section, _SECTIONS)
            remedy = "Sections are bold, mask and confounds; see --bids-filter-file."
            raise UsageError(msg, where=path, remedy=remedy)
        if not isinstance(entities, dict):
            msg = f"section {section!r} is {entities!r} where an object is needed."
            remedy = 'Write it as {"task": "rest", "run": [1, 2]}.'
            raise UsageError(msg, where=path, remedy=remedy)
        filters[section] = tuple(
            _parse_rule(name, value, where=f"{path}, section {section!r}")
            for name, value in entities.items()
        )
    return filters


def _parse_rule(name: str, value: object, *, where: str) -> Rule:
    if name not in _ALLOWED:
        msg = _unknown("entity", name, _ALLOWED)
        remedy = f"Known are: {', '.join(_ALLOWED)}."
        raise UsageError(msg, where=where, remedy=remedy)
    values = value if isinstance(value, list) else [value]
    words = [_parse_value(v, name=name, where=where) for v in values]
    key = _LONG_NAMES.get(name, name)
    # An empty list is no filter, as it is to pybids.
    if not words or "OPTIONAL" in (word for kind, word in words if kind):
        return Rule(key, absent=True, anything=True)
    labels = [word for kind, word in words if not kind]
    if key == "extension":
        labels = ["." + label.lstrip(".") for label in labels]
    return Rule(
        key,
        tuple(dict.fromkeys(labels)),
        absent=(True, "NONE") in words,
        anything=(True, "ANY") in words,
    )


def _parse_value(value: object, *, name: str, where: str) -> tuple[bool, str]:
    """Return whether a value is a word of pybids' ``Query``, and its text."""
    if value is None:
        return True, "NONE"
    if value == "*":
        return True, "ANY"
    if isinstance(value, int) and not isinstance(value, bool):
        return False, str(value)
    if not isinstance(value, str):
        msg = f"{name!r} is {value!r}; a label, a number, null or a list is needed."
        remedy = 'null is "absent", "*" is "any label".'
        raise UsageError(msg, where=where, remedy=remedy)
    match = _QUERY.fullmatch(value)
    if match is None:
        return False, value
    word = "ANY" if match[1] == "REQUIRED" else match[1]
    if word not in ("NONE", "ANY", "OPTIONAL"):
        msg = f"{name!r} is {value!r}, which pybids does not have."
        remedy = "Use Query.NONE, Query.ANY (or Query.REQUIRED) or Query.OPTIONAL."
        raise UsageError(msg, where=where, remedy=remedy)
    return True, word


def _unknown(kind: str, word: str, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(word.lower(), list(allowed), n=1)
    return f"unknown {kind} {word!r}" + (
        f"; did you mean {close[0]!r}?" if close else "."
    )


BOLD = (
    Rule("datatype", ("func",)),
    Rule("suffix", ("bold",)),
    Rule("extension", (".nii.gz", ".nii")),
)
_MASK = (
    Rule("datatype", ("func",)),
    Rule("suffix", ("mask",)),
    Rule("extension", (".nii.gz", ".nii")),
)
# In order of preference. The second is BIDS' older spelling (bids-examples/synthetic).
MASKS = (
    (*_MASK, Rule("desc", ("brain",)), Rule("label", absent=True)),
    (*_MASK, Rule("label", ("brain",)), Rule("desc", absent=True)),
)
# fMRIPrep wrote `regressors` from 1.2 to 20.1; re-runs left both kinds side by side.
CONFOUNDS = tuple(
    (
        Rule("datatype", ("func",)),
        Rule("suffix", (suffix,)),
        Rule("extension", (".tsv",)),
        Rule("desc", ("confounds",)),
    )
    for suffix in ("timeseries", "regressors")
)
# Entities in which a partner may differ from its BOLD file.
FREE_IN_MASK = frozenset({"desc", "label", "echo", "part"})
FREE_IN_CONFOUNDS = FREE_IN_MASK | {"space", "res", "den", "cohort"}


def bold_rules(options: Options, given: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the query for BOLD files: flags narrow, the filter file also replaces."""
    defaults = [Rule("part", ("mag",), absent=True)]
    flags = list(BOLD)
    if options.echo_label:
        flags.append(Rule("echo", options.echo_label))
    else:
        defaults.append(Rule("echo", absent=True))
    desc = Rule("desc", (options.desc,))
    (defaults if options.desc == Options().desc else flags).append(desc)
    for key, values in (
        ("ses", options.session_label),
        ("task", options.task_label),
        ("run", options.run_label),
        ("space", options.space),
        ("res", options.res),
    ):
        if values:
            flags.append(Rule(key, values))
    return (*flags, *replace_rules(defaults, given))


def find_partner(
    path: Path,
    files: Mapping[Path, Mapping[str, str]],
    choices: Iterable[tuple[Rule, ...]],
    free: frozenset[str],
) -> Path | None:
    """Find the file that belongs to a BOLD file, by the first choice that has one.

    All entities must agree, except those that are free and those that a rule is about.
    The partner of a single echo or part may carry that entity; then it is preferred.

    Parameters
    ----------
    path
        The BOLD file.
    files
        Labels of all files of the participant, the BOLD file among them.
    choices
        Rules for the partner, in order of preference.
    free
        Entities in which the partner may differ.

    Raises
    ------
    DataError
        Several files fit equally well.
    """
    bold = files[path]
    for rules in choices:
        ruled = {rule.key for rule in rules}
        loose = free.union(PARTS, ruled)
        split = {"echo", "part"} - ruled
        found: dict[int, list[Path]] = {}
        for other, labels in files.items():
            fixed = (bold.keys() | labels.keys()) - loose
            carried = split & labels.keys()
            if (
                not failing(rules, labels)
                and all(bold.get(key) == labels.get(key) for key in fixed)
                and all(bold.get(key) == labels[key] for key in carried)
            ):
                found.setdefault(len(carried), []).append(other)
        if found:
            return _only(found[max(found)], path)
    return None


def _only(found: Sequence[Path], path: Path) -> Path:
    if len(found) > 1:
        names = " and ".join(other.name for other in found)
        section = "mask" if "_mask." in found[0].name else "confounds"
        msg = f"{len(found)} files could be its {section}: {names}."
        remedy = f"Choose one in section {section!r} of a --bids-filter-file."
        raise DataError(msg, where=path, remedy=remedy)
    return found[0]


def explain(rules: Sequence[Rule], files: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Say why no file is selected: what was asked, what exists, what comes close.

    Parameters
    ----------
    rules
        The query.
    files
        Labels of each file, by its relative path.

    Returns
    -------
    list of str
        Lines; long lists are cut, with the number left out.
    """
    lines = ["asked for: " + "; ".join(map(str, rules))]
    keys = dict.fromkeys(k for labels in files.values() for k in labels)
    for key in (key for key in keys if key not in (*PARTS, "sub")):
        counts = Counter(labels.get(key, "(absent)") for labels in files.values())
        values = [f"{label} ({n})" for label, n in sorted(counts.items())]
        lines.append(f"there is {key}: " + _shorten(values, ", "))
    near = []
    for path, labels in sorted(files.items()):
        broken = failing(rules, labels)
        if len(broken) == 1:
            label = labels.get(broken[0].key, "absent")
            near.append(f"  {path}: {broken[0].key} {label}, not {broken[0].wanted}")
    if near:
        lines.append("files that fail by one entity only:")
        lines.append(_shorten(near, "\n"))
    return lines


def _shorten(words: list[str], separator: str) -> str:
    more = [f"and {len(words) - LISTED} more"] if len(words) > LISTED else []
    return separator.join(words[:LISTED] + more)


def advise(files: Mapping[str, Mapping[str, str]], rules: Sequence[Rule]) -> str:
    """Say what to do where no BOLD run is found, by the names that there are.

    Parameters
    ----------
    files
        Labels of each file, by its relative path.
    rules
        The query.
    """
    volumes = [found for found in files.values() if not failing(BOLD, found)]
    if volumes:
        return _advise_choice(volumes, rules)
    kinds = {(found["suffix"], found["extension"]) for found in files.values()}
    if kinds & {("preproc", ".nii.gz"), ("preproc", ".nii")}:
        return (
            "The names *_preproc.nii.gz were written by fMRIPrep < 1.2; re-run it, or"
            " rename the files to *_desc-preproc_bold.nii.gz."
        )
    if kinds & {("bold", ".func.gii"), ("bold", ".dtseries.nii")}:
        return "Surface and CIFTI series are not processed; add a volumetric space."
    if ("boldref", ".nii.gz") in kinds or ("xfm", ".txt") in kinds:
        return "fMRIPrep --level minimal writes no BOLD series; run it with full."
    return "Give the folder that fMRIPrep wrote."


def _advise_choice(volumes: Sequence[Mapping[str, str]], rules: Sequence[Rule]) -> str:
    """Name the flags that would select the volumes that break fewest rules."""
    broken = [[rule.key for rule in failing(rules, labels)] for labels in volumes]
    least = min(map(len, broken))
    near = [v for v, keys in zip(volumes, broken, strict=True) if len(keys) == least]
    keys = {key for keys in broken if len(keys) == least for key in keys}
    labels = {
        key: sorted({found[key] for found in near if key in found}) for key in keys
    }
    if "desc" in keys and not labels["desc"]:
        return "Without desc- these look like raw data: give fMRIPrep's output."
    words = []
    if "desc" in keys:
        said = " or ".join(f"--desc {label}" for label in labels["desc"][:LISTED])
        words.append(f"Choose the series by their desc- label: {said}.")
    if "echo" in keys and labels["echo"]:
        said = " ".join(labels["echo"][:LISTED])
        words.append(
            f"These are single echoes: choose with --echo-label {said}, or give the"
            " combined series, whose names have no echo-."
        )
    if keys - {"desc", "echo"} or not words:
        others = sorted(keys - {"desc", "echo"})
        named = f" on {', '.join(others)}" if others else ""
        words.append(f"Change the filters{named} (flags or --bids-filter-file).")
    return " ".join(words)
