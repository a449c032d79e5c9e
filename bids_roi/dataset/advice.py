"""What to say where no BOLD run is selected: what there is, and which flags help."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bids_roi.dataset.filters import FOREIGN, LISTED, PARTS, Rule, failing, passes
from bids_roi.dataset.partners import BOLD, KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
