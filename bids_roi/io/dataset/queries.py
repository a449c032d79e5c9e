"""The queries: which files are BOLD runs, which their partners, and why none was found.

Plain rules on labels; nothing is read. The file system is ``roots``' and
``layout``'s affair.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bids_roi.errors import DataError
from bids_roi.io.dataset.filters import LISTED, PARTS, Rule, failing, replace_rules
from bids_roi.options.record import Options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "BOLD",
    "CONFOUNDS",
    "FREE_IN_CONFOUNDS",
    "FREE_IN_MASK",
    "MASKS",
    "advise",
    "bold_rules",
    "explain",
    "find_partner",
]

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
