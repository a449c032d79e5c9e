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
from bids_roi.options.row import Input

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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

# What a file's name has besides entities counts as one, so that `old_sub-01_...` is
# nothing's partner.
FOREIGN = "no entity"
# The longest list that an explanation spells out.
LISTED = 6

# fMRIPrep writes its enumeration out as "<Query.NONE: 1>"; people type "Query.NONE".
_QUERY = re.compile(r"<?Query\.([A-Z]+)(?::\s*\d+)?>?")
# What a series may be, by its extensions.
KINDS = {
    "volume": (".nii.gz", ".nii"),
    "cifti": (".dtseries.nii", ".dtseries.nii.gz"),
    "gifti": (".func.gii", ".func.gii.gz"),
}


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
    labels = dict(name.entities)
    if name.foreign:
        labels[FOREIGN] = name.foreign
    labels["suffix"], labels["extension"] = name.suffix, name.extension
    labels["datatype"] = path.parent.name
    return labels


def passes(rules: Iterable[Rule], labels: Mapping[str, str]) -> bool:
    """Whether a file is selected."""
    return all(rule.accepts(labels.get(rule.key)) for rule in rules)


def failing(rules: Iterable[Rule], labels: Mapping[str, str]) -> list[Rule]:
    """Return the rules that a file breaks; an empty list means that it is selected."""
    return [rule for rule in rules if not rule.accepts(labels.get(rule.key))]


def replace_rules(defaults: Iterable[Rule], given: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the given rules, and the defaults on what they do not mention."""
    given = tuple(given)
    mentioned = {rule.key for rule in given}
    return (*(rule for rule in defaults if rule.key not in mentioned), *given)


def load_filters(
    path: Path | None, in_use: Callable[[], Collection[str]] = frozenset
) -> dict[str, tuple[Rule, ...]]:
    """Read a filter file in fMRIPrep's format.

    It is JSON with the sections ``bold``, ``mask`` and ``confounds``, each an
    object of entity and value: a label, a number, a list of them, ``null`` (the entity
    is absent), ``"*"`` (it has any label), or ``"Query.NONE"``, ``"Query.ANY"``,
    ``"Query.OPTIONAL"``. ``None`` stands for no file. ``in_use`` tells the entities
    that names in the dataset have; it is asked for where one is not known.

    The rules of each of the three sections are empty where the file has none.
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
            _parse_rule(name, value, in_use, where=f"{path}, section {section!r}")
            for name, value in entities.items()
        )
    return filters


def _parse_rule(
    name: str, value: object, in_use: Callable[[], Collection[str]], *, where: str
) -> Rule:
    if name not in _ALLOWED and name not in in_use():
        msg = _unknown("entity", name, _ALLOWED)
        remedy = f"Known are those of the files and: {', '.join(_ALLOWED)}."
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


BOLD = {
    kind: (
        Rule("datatype", ("func",)),
        Rule("suffix", ("bold",)),
        Rule("extension", extensions),
    )
    for kind, extensions in KINDS.items()
}
_MASK = (
    Rule("datatype", ("func",)),
    Rule("suffix", ("mask",)),
    Rule("extension", KINDS["volume"]),
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


def kind_of(extension: str) -> str | None:
    """Return the kind of series that has an extension."""
    return next((kind for kind, own in KINDS.items() if extension in own), None)


def bold_rules(
    wanted: Input, given: Iterable[Rule], kind: str = "volume"
) -> tuple[Rule, ...]:
    """Return the query for BOLD series: flags narrow, the filter file also replaces."""
    defaults = [Rule("part", ("mag",), absent=True)]
    flags = list(BOLD[kind])
    if wanted.echo_label:
        flags.append(Rule("echo", wanted.echo_label))
    else:
        defaults.append(Rule("echo", absent=True))
    if wanted.desc == Input().desc:
        # fMRIPrep's surface series have no desc-.
        defaults.append(Rule("desc", (wanted.desc,), absent=kind != "volume"))
    else:
        flags.append(Rule("desc", (wanted.desc,)))
    for key, values, absent in (
        ("ses", wanted.session_label, ()),
        ("task", wanted.task_label, ()),
        ("run", wanted.run_label, ()),
        # fMRIPrep's words for the series' own grid, whose names have no such entity
        ("space", wanted.space, ("native", "func")),
        ("res", wanted.res, ("native",)),
        ("den", wanted.den, ()),
        ("hemi", wanted.hemi, ()),
    ):
        if values:
            flags.append(Rule(key, values, absent=not set(values).isdisjoint(absent)))
    return (*flags, *replace_rules(defaults, given))


def explain(rules: Sequence[Rule], files: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Say why no file is selected: what was asked, what exists, what comes close.

    Lines; long lists are cut, with the number left out.
    """
    lines = ["asked for: " + "; ".join(map(str, rules))]
    keys = dict.fromkeys(k for labels in files.values() for k in labels)
    for key in (key for key in keys if key not in (*PARTS, "sub", FOREIGN)):
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
    """Say what to do where no BOLD run is found, by the names that there are."""
    series = [found for found in files.values() if passes(BOLD["volume"], found)]
    if series:
        return _advise_choice(series, rules)
    kinds = {(found["suffix"], found["extension"]) for found in files.values()}
    if kinds & {("preproc", ".nii.gz"), ("preproc", ".nii")}:
        return (
            "The names *_preproc.nii.gz were written by fMRIPrep < 1.2; re-run it, or"
            " rename *_preproc.nii.gz to *_desc-preproc_bold.nii.gz, *_brainmask.nii.gz"
            " to *_desc-brain_mask.nii.gz (each without bold_ before space-) and"
            " *_confounds.tsv to *_desc-confounds_timeseries.tsv."
        )
    surfaces = {("bold", end) for kind in ("cifti", "gifti") for end in KINDS[kind]}
    if kinds & {*surfaces, ("bold", ".mgz")}:
        return (
            "There are series of surfaces or grayordinates only: give an atlas on their"
            " meshes, --atlas-file X.dlabel.nii or L=LEFT.annot,R=RIGHT.annot."
        )
    if ("boldref", ".nii.gz") in kinds or ("xfm", ".txt") in kinds:
        return "fMRIPrep --level minimal writes no BOLD series; run it with full."
    if not files:
        return "Check that their BOLD was preprocessed: they have no file in func."
    return "Give the folder that fMRIPrep wrote."


def _advise_choice(series: Sequence[Mapping[str, str]], rules: Sequence[Rule]) -> str:
    """Name the flags that would select the series that break fewest rules."""
    broken = [[rule.key for rule in failing(rules, labels)] for labels in series]
    least = min(map(len, broken))
    near = [v for v, keys in zip(series, broken, strict=True) if len(keys) == least]
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
