"""What is asked for: a derivative, its participants, and files by rules on their names.

The semantics of rules are those of BIDSLayout.get, the spelling of the filter file is
that of fMRIPrep, but the rules look at the file *name*. pybids searches the whole
absolute path (a dataset below /data/anat/ or /data/sub-99/ gets wrong entities), drops
entities that its configuration does not list (cohort, scale, hash) and compares res-2
with res-02 as text. With names, every entity works alike.

Folders are plain directory listings, because they take milliseconds where an index
takes minutes: pybids' get_subjects needs 67 s for a thousand participants, os.scandir
1.4 ms.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bids_roi.errors import DataError, MissingInput, NothingFound, UsageError
from bids_roi.files.listing import (
    folders_in,
    list_folder,
    list_func,
    lost_folders,
    real_path,
    unreadable,
)
from bids_roi.files.names import parse_name
from bids_roi.files.tables import read_json
from bids_roi.options.row import Input

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from pathlib import Path


log = logging.getLogger("bids_roi")

_MINIMAL = (
    '{"Name": "fMRIPrep", "BIDSVersion": "1.4.0", "DatasetType": "derivative",'
    ' "GeneratedBy": [{"Name": "fMRIPrep"}]}'
)
# How many participants are looked at to tell whether a folder holds preprocessed BOLD.
_PROBES = 20
_LISTED = 10  # participants in a message


def dataset_description(root: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read ``dataset_description.json``."""
    path = root / "dataset_description.json"
    try:
        return read_json(path), ()
    except DataError as error:
        gone = isinstance(error.__cause__, FileNotFoundError) and not path.is_symlink()
        problem = "the file is missing." if gone else error.problem
        warning = f"{path}: {problem} Going on without it; a minimal one is: {_MINIMAL}"
        return {}, (warning,)


def dataset_around(folder: Path) -> Path | None:
    """Find the dataset of another software that a folder is, or is a part of.

    The nearest that this app did not write. The folder need not exist; in
    ``derivatives/`` of a dataset, it is a dataset of its own.
    """
    folder = real_path(folder)
    for root in (folder, *folder.parents):
        if not (root / "dataset_description.json").is_file():
            continue
        if folder.relative_to(root).parts[:1] == ("derivatives",):
            return None
        made = dataset_description(root)[0].get("GeneratedBy")
        made = made if isinstance(made, list) else []
        names = [one.get("Name") for one in made if isinstance(one, dict)]
        return None if "bids_roi" in names else root
    return None


def find_derivative(bids_dir: Path, derivatives: Path | None) -> Path:
    """Find the root of the derivative that is to be processed.

    ``bids_dir`` is the root of a derivative, or of a raw dataset with one in
    ``derivatives/``. What ``--derivatives`` says wins; a folder of derivatives serves
    as well as the derivative itself.
    """
    given = bids_dir if derivatives is None else derivatives
    for folder in (bids_dir, given):
        _check_readable(folder)
    base = given.absolute()
    description, _ = dataset_description(base)
    kind = str(description.get("DatasetType", "")).lower()
    if kind == "derivative" or _bold_in(base):
        return base
    holder = base / "derivatives" if derivatives is None else base
    candidates = _derivatives_in(holder)
    if len(candidates) > 1:
        names = ", ".join(str(path) for path in candidates)
        msg = f"{len(candidates)} derivatives could be meant: {names}."
        remedy = "Choose one with --derivatives."
        raise UsageError(msg, where=given, remedy=remedy)
    if candidates:
        return candidates[0]
    # Last, because raw datasets may carry GeneratedBy too (HeuDiConv writes it).
    if kind != "raw" and {"GeneratedBy", "PipelineDescription"} & description.keys():
        return base
    msg = (
        "neither the root of a derivative (dataset_description.json with DatasetType"
        " derivative, or sub-*/func with desc-*_bold files) nor a raw dataset with one"
        " in derivatives/."
    )
    raise MissingInput(msg, where=given, remedy=_level_hint(base))


def _check_readable(folder: Path) -> None:
    try:
        if not folder.exists():
            list_folder(folder)  # an error where it is a link to what is not here
            problem, remedy = "there is no such folder.", "Check the spelling."
        elif not folder.is_dir():
            problem, remedy = "not a folder.", "Give the root of the dataset."
        elif not os.access(folder, os.R_OK | os.X_OK):
            problem, remedy = "the folder cannot be read.", "Check its permissions."
        else:
            return
    except OSError as error:
        raise unreadable("folder", folder, error) from error
    raise MissingInput(problem, where=folder, remedy=remedy)


def _derivatives_in(holder: Path) -> list[Path]:
    """Derivatives in a folder; those with preprocessed BOLD where there are any.

    Best ``desc-preproc``, which XCP-D's and tedana's series beside it have not.
    """
    folders = _possible_roots(holder, depth=2)
    contents = {path: _bold_in(path) for path in folders}
    unknown = [p for path in folders if not contents[path] for p in _probed(path)]
    closed = [p for p in unknown if not os.access(p, os.R_OK | os.X_OK)]
    if os.access(holder, os.R_OK | os.X_OK):
        closed += lost_folders(holder)
    if names := ", ".join(map(str, closed)):
        log.warning("%s cannot be read: no derivative is looked for in it.", names)
    for wanted in ({"preproc"}, set().union(*contents.values())):
        if found := [path for path in folders if contents[path] & wanted]:
            return found
    marks = {"GeneratedBy", "PipelineDescription"}
    described = [(path, dataset_description(path)[0]) for path in folders]
    return [
        path
        for path, description in described
        if description.get("DatasetType", "derivative") == "derivative"
        and ("DatasetType" in description or marks & description.keys())
    ]


def _possible_roots(holder: Path, depth: int) -> list[Path]:
    """Folders that may be a derivative; those in them where they hold no participant.

    fMRIPrep up to 20 writes into fmriprep/fmriprep where its output is fmriprep,
    Nipoppy into fmriprep/23.1.3/output.
    """
    roots = []
    for path in _listed(holder):
        if not path.name.startswith((".", "lost+", "sub-", "ses-", "sourcedata")):
            roots.append(path)
            if depth and not any(p.name.startswith("sub-") for p in _listed(path)):
                roots += _possible_roots(path, depth - 1)
    return roots


def _probed(root: Path) -> list[Path]:
    """A folder, and those of its first participants."""
    return [root, *[p for p in _listed(root) if p.name.startswith("sub-")][:_PROBES]]


def _bold_in(root: Path) -> set[str]:
    """Labels of ``desc-`` of the BOLD series of the first participants."""
    found = set()
    for participant in _probed(root)[1:]:
        for path in files_in_func(root, participant.name):
            name = parse_name(path)
            kind = kind_of(name.extension)
            desc = name.get("desc") or (None if kind == "volume" else "")
            if name.suffix == "bold" and kind is not None and desc is not None:
                found.add(desc)
    return found


def _level_hint(base: Path) -> str:
    if base.name.startswith(("sub-", "ses-")):
        return f"Give the dataset's root, {base.parent}, not a folder inside it."
    description = base / "dataset_description.json"
    if description.is_symlink() and not description.exists():
        return f"A link to content that is not here; get it: datalad get {description}"
    if inside := _derivatives_in(base):
        return f"Is {inside[0]} meant?"
    for link in lost_folders(base / "derivatives"):
        return f"{link} is a link to what is not here: mount the disk, or get it."
    return "Give fMRIPrep's output folder as BIDS_DIR or with --derivatives."


def _listed(parent: Path) -> list[Path]:
    """Return the folders in a folder, sorted; none where it is absent or closed."""
    try:
        return folders_in(parent)
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable("folder", parent, error) from error


def files_in_func(root: Path, participant: str) -> Iterator[Path]:
    """Yield as ``list_func`` what can be listed."""
    with contextlib.suppress(OSError):
        yield from list_func(root / f"sub-{participant.removeprefix('sub-')}", {})


def list_participants(root: Path, labels: Sequence[str]) -> list[str]:
    """Return the participants to process, sorted, without ``sub-``."""
    _check_readable(root)
    try:
        names = [path.name for path in folders_in(root)]
    except OSError as error:
        raise unreadable("folder", root, error) from error
    available = [name[4:] for name in names if name.startswith("sub-") and name[4:]]
    if not available:
        msg = "the dataset holds no sub-* folder."
        raise MissingInput(msg, where=root, remedy="Give the root of the derivative.")
    wanted = sorted({label.removeprefix("sub-") for label in labels})
    there = {*available}
    unknown = [label for label in wanted if label not in there]
    if unknown:
        # `1` for `001` is the commonest slip, and no close match to difflib.
        slips = {label.lstrip("0") for label in unknown}
        near = dict.fromkeys(a for a in available if a.lstrip("0") in slips)
        for label in unknown:
            if len(near) > _LISTED:  # each is held against all there are
                break
            near |= dict.fromkeys(difflib.get_close_matches(label, available, n=3))
        shown = [*near] or available
        listed = ", ".join(shown[:_LISTED]) + (", ..." if len(shown) > _LISTED else "")
        msg = f"no participant {', '.join(unknown)} among the {len(available)} there."
        remedy = f"{'Nearest' if near else 'There are'}: {listed}."
        raise NothingFound(msg, where=root, remedy=remedy)
    return wanted or available


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
_LONG_NAMES = {"subject": "sub", "session": "ses", "acquisition": "acq"}
_LONG_NAMES |= {"nucleus": "nuc", "volume": "voi", "ceagent": "ce", "staining": "stain"}
_LONG_NAMES |= {"tracer": "trc", "reconstruction": "rec", "direction": "dir"}
_LONG_NAMES |= {"modality": "mod", "inversion": "inv", "mtransfer": "mt"}
_LONG_NAMES |= {"processing": "proc", "hemisphere": "hemi", "segmentation": "seg"}
_LONG_NAMES |= {"resolution": "res", "density": "den", "description": "desc"}
_LONG_NAMES |= {"template": "tpl"}
_ALLOWED = sorted(
    {*_LONG_NAMES, *_LONG_NAMES.values(), *PARTS}
    | {"sample", "task", "tracksys", "run", "echo", "flip", "part", "space", "split"}
    | {"recording", "chunk", "label", "atlas", "roi", "scale", "cohort", "stat"}
    | {"hash", "from", "to", "mode", "model", "subset", "fmapid", "measure"}
)

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
    """One requirement on one part of a file name."""

    key: str  # the entity as file names have it (ses), or one of PARTS
    values: tuple[str, ...] = ()  # labels that pass
    absent: bool = False  # whether a file without the entity passes
    anything: bool = False  # whether every label passes

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
    return f"unknown {kind} {word!r}{f'; did you mean {close[0]!r}?' if close else '.'}"


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
    """Say why no file is selected: what was asked, what exists, what comes close."""
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
