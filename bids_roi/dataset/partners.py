"""Queries and partners of BOLD series: rules on names, and an index to look them up."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from bids_roi.dataset.filters import PARTS, Rule, passes, replace_rules
from bids_roi.errors import DataError
from bids_roi.options.input import Input

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


# What a series may be, by its extensions.
KINDS = {
    "volume": (".nii.gz", ".nii"),
    "cifti": (".dtseries.nii", ".dtseries.nii.gz"),
    "gifti": (".func.gii", ".func.gii.gz"),
}
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
# Entities in which a partner may differ from its BOLD series.
FREE_IN_MASK = frozenset({"desc", "label", "echo", "part"})
FREE_IN_CONFOUNDS = FREE_IN_MASK | {"space", "res", "den", "cohort", "hemi"}


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


class Partners:
    """Files that may belong to a BOLD series, by the entities that must agree.

    All must, except those that are free and those that a rule is about. The partner of
    a single echo or part may carry that entity; then it is preferred.
    """

    def __init__(
        self,
        files: Mapping[Path, Mapping[str, str]],
        choices: Iterable[tuple[Rule, ...]],
        free: frozenset[str],
        section: str,
    ) -> None:
        """Sort the files; ``choices`` are rules, in order of preference."""
        self._section = section
        self._choices = []
        for rules in choices:
            ruled = {rule.key for rule in rules}
            loose = free.union(PARTS, ruled)
            table = defaultdict(list)
            for path, labels in files.items():
                if passes(rules, labels):
                    table[_key(labels, loose)].append((path, labels))
            self._choices.append((table, loose, {"echo", "part"} - ruled))

    def find(self, path: Path, bold: Mapping[str, str]) -> Path | None:
        """Find the partner of a series, by the first choice that has one.

        Raises
        ------
        DataError
            Several files fit equally well.
        """
        # Equal entities, not the most similar name: a mask of another resolution or
        # session looks alike, fits in shape, and gives wrong regions.
        for table, loose, split in self._choices:
            found: dict[int, list[Path]] = {}
            for other, labels in table.get(_key(bold, loose), ()):
                carried = split & labels.keys()
                if all(bold.get(key) == labels[key] for key in carried):
                    found.setdefault(len(carried), []).append(other)
            if found:
                # A partner of this very echo goes before that of all echoes; two that
                # fit equally are an error, since to take the first is to take whatever
                # sorts so.
                best = found[max(found)]
                if len(best) > 1:
                    names = " and ".join(other.name for other in best)
                    msg = f"{len(best)} files could be its {self._section}: {names}."
                    remedy = (
                        f"Choose one in section {self._section!r} of a"
                        " --bids-filter-file."
                    )
                    raise DataError(msg, where=path, remedy=remedy)
                return best[0]
        return None


def _key(
    labels: Mapping[str, str], loose: frozenset[str]
) -> frozenset[tuple[str, str]]:
    return frozenset(pair for pair in labels.items() if pair[0] not in loose)


def group_series(
    kind: str, series: Mapping[Path, Mapping[str, str]], *, one_will_do: bool
) -> list[tuple[tuple[Path, ...], DataError | None]]:
    """Files of each run, and what is wrong with them: two hemispheres are one run."""
    if kind == "gifti":
        return pair_hemispheres(series, one_will_do=one_will_do)
    return [((path,), None) for path in series]


def pair_hemispheres(
    series: Mapping[Path, Mapping[str, str]], *, one_will_do: bool
) -> list[tuple[tuple[Path, ...], DataError | None]]:
    """Put the two hemispheres of GIFTI series together, the left one first.

    Parameters
    ----------
    series
        Labels of the selected files, by path; the order of entities is no matter.
    one_will_do
        Whether a single hemisphere was asked for.

    Returns
    -------
    list
        The files of each run, and what is wrong with them.
    """
    runs: dict[frozenset[tuple[str, str]], list[Path]] = defaultdict(list)
    for path, labels in series.items():
        # The folder too: labels are of the name only.
        place = ("folder", str(path.parent))
        runs[_key(labels, frozenset({"hemi"})) | {place}].append(path)
    paired = []
    for files in runs.values():
        files.sort(key=lambda path: series[path].get("hemi", ""))
        sides = Counter(series[path].get("hemi") for path in files)
        error = None
        if sides.keys() - {"L", "R"} or max(sides.values()) > 1:
            names = " and ".join(path.name for path in files)
            msg = (
                f"hemispheres are hemi-L and hemi-R, one file each; these are {names}."
            )
            error = DataError(msg, where=files[0], remedy="Choose with filters.")
        elif len(sides) == 1 and not one_will_do:
            (side,) = sides
            other = {"L": "R", "R": "L"}[str(side)]
            name = files[0].name.replace(f"_hemi-{side}_", f"_hemi-{other}_")
            msg = f"the other hemisphere, {name}, is not there."
            remedy = f"Get it, or choose this one alone with --hemi {side}."
            error = DataError(msg, where=files[0], remedy=remedy)
        paired.append((tuple(files), error))
    return paired
