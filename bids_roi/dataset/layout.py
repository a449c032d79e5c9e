"""BOLD runs of a derivative, with their partners and metadata."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.dataset.filters import (
    FOREIGN,
    LISTED,
    PARTS,
    Rule,
    failing,
    labels_of,
    load_filters,
    passes,
    replace_rules,
)
from bids_roi.dataset.index import index_series
from bids_roi.dataset.metadata import TIMING, Sidecars, check_timing
from bids_roi.dataset.partners import (
    BOLD,
    CONFOUNDS,
    FREE_IN_CONFOUNDS,
    FREE_IN_MASK,
    KINDS,
    MASKS,
    Partners,
    bold_rules,
    group_series,
    kind_of,
)
from bids_roi.dataset.roots import files_in_func
from bids_roi.errors import BidsRoiError, MissingInput, NothingFound
from bids_roi.files.names import parse_name
from bids_roi.options.input import Input

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bids_roi.dataset.index import Files


_EXPLAINED = 50  # participants whose files are looked at for a message


@dataclass(frozen=True, slots=True)
class BoldRun:
    """One preprocessed BOLD series with its partners.

    Attributes
    ----------
    root
        Root of the derivative, absolute.
    files
        The series: one file, or those of the left and the right hemisphere. Absolute;
        links are not followed.
    entities
        ``(key, label)`` pairs of the file name, in its order and as written there;
        without ``hemi`` where both hemispheres are there.
    mask_path
        The brain mask on the same grid; ``None`` where there is none, or where
        another mask or none was asked for.
    confounds_path
        The confounds table; ``None`` where there is none.
    metadata
        The sidecars that apply, merged.
    warnings
        What was wrong with the sidecars.
    error
        Why the run cannot be used: two files could be its mask, for example.
    """

    root: Path
    files: tuple[Path, ...]
    entities: tuple[tuple[str, str], ...]
    mask_path: Path | None
    confounds_path: Path | None
    metadata: Mapping[str, Any] = field(hash=False)
    warnings: tuple[str, ...] = ()
    error: BidsRoiError | None = field(default=None, compare=False)

    @property
    def path(self) -> Path:
        """The file that the run goes by: the only one, or the left hemisphere's."""
        return self.files[0]

    @property
    def kind(self) -> str:
        """What the series is: a key of ``KINDS``."""
        return kind_of(parse_name(self.path).extension) or "volume"

    @property
    def relative_path(self) -> str:
        """The file's path below the root, with forward slashes."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def participant(self) -> str:
        """Label of the participant, without ``sub-``."""
        return self.entity("sub") or ""

    @property
    def session(self) -> str | None:
        """Label of the session, without ``ses-``."""
        return self.entity("ses")

    @property
    def space(self) -> str | None:
        """Label of the space; ``None`` for the series' own (native) space."""
        return self.entity("space")

    @property
    def sides(self) -> dict[str, Path]:
        """Files by hemisphere, ``L`` and ``R``; blank for what has none."""
        return {dict(parse_name(f).entities).get("hemi", ""): f for f in self.files}

    def entity(self, key: str) -> str | None:
        """Label of an entity, ``None`` where the name has none."""
        return dict(self.entities).get(key)


def find_runs(
    root: Path,
    participant: str,
    wanted: Input,
    kinds: Sequence[str] = ("volume",),
    *,
    own_masks: bool = True,
) -> list[BoldRun]:
    """Find the BOLD runs of one participant, as ``find_runs_of`` does.

    Raises
    ------
    BidsRoiError
        The filter file is wrong, or the participant's folder absent or unreadable.
    """
    found_of = find_runs_of(root, [participant], wanted, kinds, own_masks=own_masks)
    ((_, found),) = found_of
    if isinstance(found, BidsRoiError):
        raise found
    return found


def find_runs_of(
    root: Path,
    participants: Iterable[str],
    wanted: Input,
    kinds: Sequence[str] = ("volume",),
    *,
    own_masks: bool = True,
) -> Iterator[tuple[str, list[BoldRun] | BidsRoiError]]:
    """Find the BOLD runs of participants, with mask, confounds and metadata.

    Parameters
    ----------
    root
        Root of the derivative.
    participants
        Labels, with or without ``sub-``. No other participant's files are read.
    wanted
        The filters, and pybids' database folder.
    kinds
        Keys of ``KINDS``: which series are looked for.
    own_masks
        Whether each run's own mask is looked for. Where another is asked for, an
        ambiguous one is no matter.

    Yields
    ------
    tuple
        The participant, and its runs sorted by relative path: none where nothing
        passes (``explain_nothing``); or why they cannot be listed.

    Raises
    ------
    UsageError
        The filter file is wrong, or the database folder lies inside the input.
    """
    root = root.absolute()
    labels = [label.removeprefix("sub-") for label in participants]
    query = _Query(root, labels, wanted, kinds, own_masks=own_masks)
    extensions = [extension for kind in kinds for extension in KINDS[kind]]
    for participant, found in index_series(
        root, labels, extensions, wanted.bids_database_dir
    ):
        if isinstance(found, BidsRoiError):
            yield participant, found
        else:
            yield participant, query.runs(participant, found)


def survey_runs(
    root: Path,
    participants: Iterable[str],
    wanted: Input,
    kinds: Sequence[str] = ("volume",),
    *,
    seconds: float = 1.0,
) -> dict[str, tuple[int, int]]:
    """Count runs and their bytes by names alone, for so long as there is time.

    What is wrong with a run is not found: it is for the number that progress is
    measured by. Participants that there was no time for are not among the keys.
    """
    until = time.monotonic() + seconds
    labels = [label.removeprefix("sub-") for label in participants]
    query = _Query(root, labels, wanted, kinds, own_masks=False)
    found: dict[str, tuple[int, int]] = {}
    for label in labels:
        # At least one participant is counted, however slow the disk: progress that
        # starts with no total jumps, and an estimate from one is better than none.
        if found and time.monotonic() > until:
            break
        paths = list(files_in_func(root, label))
        groups = [
            group
            for kind, files in query.select(label, paths).items()
            for group in group_series(kind, files, one_will_do=True)
        ]
        sizes = [size_of(path) for files, _ in groups for path in files]
        found[label] = len(groups), sum(sizes)
    return found


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 where it is not here, which is told elsewhere."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


class _Query:
    """What is asked for, worked out once for all participants."""

    def __init__(
        self,
        root: Path,
        labels: list[str],
        wanted: Input,
        kinds: Sequence[str],
        *,
        own_masks: bool,
    ) -> None:
        given = load_filters(
            wanted.bids_filter_file, lambda: _keys_in_use(root, labels)
        )
        self._root = root
        self._bold = {kind: bold_rules(wanted, given["bold"], kind) for kind in kinds}
        masks = MASKS if own_masks else ()
        self._masks = [replace_rules(rules, given["mask"]) for rules in masks]
        self._tables = [replace_rules(rules, given["confounds"]) for rules in CONFOUNDS]
        self._one_side = any(
            rule.key == "hemi" and len(rule.values) == 1
            for rules in self._bold.values()
            for rule in rules
        )
        self._sidecars = Sidecars(root)

    def select(
        self, participant: str, paths: Iterable[Path]
    ) -> dict[str, dict[Path, dict[str, str]]]:
        """Series that are asked for, by kind, with the labels of their names."""
        own = Rule("sub", (participant,))
        series: dict[str, dict[Path, dict[str, str]]] = {
            kind: {} for kind in self._bold
        }
        for path in paths:
            labels = labels_of(path)
            kind = kind_of(labels["extension"])
            if kind in series and passes((own, *self._bold[kind]), labels):
                series[kind][path] = labels
        return series

    def runs(self, participant: str, indexed: Files) -> list[BoldRun]:
        series = self.select(participant, indexed.series)
        if not any(series.values()):
            return []
        beside = {
            path: labels_of(path) for path in indexed.all if path.suffix != ".json"
        }
        masks = Partners(beside, self._masks, FREE_IN_MASK, "mask")
        tables = Partners(beside, self._tables, FREE_IN_CONFOUNDS, "confounds")
        found = []
        for kind, files in series.items():
            for paths, error in group_series(kind, files, one_will_do=self._one_side):
                run = BoldRun(self._root, paths, _entities(paths), None, None, {})
                labels = files[paths[0]]
                run = self._complete(run, labels, masks, tables)
                found.append(dataclasses.replace(run, error=error or run.error))
        self._sidecars.forget_participant()
        return sorted(found, key=lambda run: run.relative_path)

    def _complete(
        self, run: BoldRun, labels: dict[str, str], masks: Partners, tables: Partners
    ) -> BoldRun:
        """Add partners and metadata; what cannot be told of a run is its error."""
        surface = run.kind != "volume"
        found: dict[str, Any] = {}
        # Each by itself: an ambiguous mask must not hide that the sidecar is broken
        # too, and one run's fault must not end the listing of the others.
        for add in (
            lambda: {} if surface else {"mask_path": masks.find(run.path, labels)},
            lambda: {"confounds_path": tables.find(run.path, labels)},
            lambda: self._read_metadata(run.files, surface=surface),
        ):
            try:
                found |= add()
            except BidsRoiError as error:
                found.setdefault("error", error)
        return dataclasses.replace(run, **found)

    def _read_metadata(
        self, files: tuple[Path, ...], *, surface: bool
    ) -> dict[str, Any]:
        path, *others = files
        metadata, warnings = self._sidecars.read(path)
        for other in others:
            theirs, notes = self._sidecars.read(other)
            check_timing(path, metadata, other, theirs)
            # What one hemisphere's file leaves out, the other's may tell.
            metadata = theirs | metadata
            warnings = (*warnings, *(n for n in notes if n not in warnings))
        if surface and not metadata.keys() & set(TIMING):
            timing, notes = self._sidecars.read_timing_of_run(path)
            metadata, warnings = metadata | timing, (*warnings, *notes)
        return {"metadata": metadata, "warnings": warnings}


def _entities(files: tuple[Path, ...]) -> tuple[tuple[str, str], ...]:
    """Entities of a run's name; two hemispheres have none of their own."""
    pairs = parse_name(files[0]).entities
    return tuple(p for p in pairs if len(files) == 1 or p[0] != "hemi")


def _keys_in_use(root: Path, participants: list[str]) -> set[str]:
    """Entities of the names that the first participants have."""
    paths = (
        path
        for label in participants[:_EXPLAINED]
        for path in files_in_func(root, label)
    )
    return {key for path in paths for key, _ in parse_name(path).entities}


def explain_nothing(
    root: Path, participants: Sequence[str], wanted: Input
) -> NothingFound | MissingInput:
    """Say why ``find_runs`` found nothing.

    Returns
    -------
    NothingFound or MissingInput
        To be raised: the former where filters exclude the BOLD runs that there are, the
        latter where nothing that could be processed exists. The text holds the query,
        the labels that exist, and the files that fail by one entity only.
    """
    root, looked_at = root.absolute(), list(participants)[:_EXPLAINED]
    looked_at = [label.removeprefix("sub-") for label in looked_at]
    given = load_filters(
        wanted.bids_filter_file, lambda: _keys_in_use(root, looked_at)
    )["bold"]
    rules = (Rule("sub", tuple(looked_at)), *bold_rules(wanted, given))
    files = {
        path.relative_to(root).as_posix(): labels_of(path)
        for participant in looked_at
        for path in files_in_func(root, participant)
    }
    series = {p: found for p, found in files.items() if passes(BOLD["volume"], found)}
    people = f"{len(looked_at)} participant{'s' * (len(looked_at) != 1)}"
    if len(looked_at) < len(participants):
        people = f"the first {people} (of {len(participants)})"
    if not series:
        problem = f"no BOLD run among {len(files)} files in func of {people}."
        return MissingInput(problem, where=root, remedy=advise(files, rules))
    count = f"{len(series)} BOLD run{'s' * (len(series) != 1)}"
    problem = f"none of {count} of {people} is selected.\n"
    problem += "\n".join(explain(rules, series)) + "\n"
    if given or bold_rules(wanted, ()) != bold_rules(Input(), ()):
        return NothingFound(problem, where=root, remedy=advise(series, rules))
    return MissingInput(problem, where=root, remedy=advise(series, rules))


def find_aroma_confounds(dataset: Path, run: BoldRun) -> Path | None:
    """Find a run's table in a fMRIPost-AROMA derivative.

    Returns
    -------
    Path or None
        ``*_desc-aroma_timeseries.tsv`` with the run's entities; space and resolution
        do not matter.
    """
    free = {"space", "cohort", "res", "den", "desc", "echo", "part"}
    wanted = {pair for pair in run.entities if pair[0] not in free}
    folder = dataset / Path(run.relative_path).parent
    for path in sorted(folder.glob("*_desc-aroma_timeseries.tsv")):
        name = parse_name(path)
        if {pair for pair in name.entities if pair[0] not in free} == wanted:
            return path
    return None


def find_tables(folder: Path, pattern: str, run: BoldRun) -> tuple[Path, ...]:
    """Tables of a run in a folder, or below its participant's folder there.

    Their names have the run's entities; those that do not matter for its confounds may
    be others, or lack.
    """
    wanted = {pair for pair in run.entities if pair[0] not in FREE_IN_CONFOUNDS}
    participant = f"sub-{run.participant}"
    found = []
    for path in (*folder.glob(pattern), *(folder / participant).rglob(pattern)):
        if path.name.startswith(f"{participant}_"):
            pairs = parse_name(path).entities
            rest = {pair for pair in pairs if pair[0] not in FREE_IN_CONFOUNDS}
            split = [pair for pair in pairs if pair[0] in ("echo", "part")]
            if rest == wanted and set(split) <= set(run.entities):
                found.append(path)
    return tuple(sorted(found))


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
