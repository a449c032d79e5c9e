"""What belongs to a BOLD series: partners, sidecars, the timing they tell, events.

Partners are found by rules on names. pybids can merge sidecars too, but only for a
whole index at once, and one empty or annexed file then stops it. Reading what applies
to one image takes a millisecond.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bids_roi.dataset.query import PARTS, Rule, kind_of, passes
from bids_roi.errors import (
    DataError,
    MissingInput,
    UsageError,
    is_of_the_disk,
    nearest_words,
    remedy_of,
)
from bids_roi.files.listing import glob_folder, list_below, list_named
from bids_roi.files.names import BidsName, parse_name
from bids_roi.files.tables import MISSING, read_json, read_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from bids_roi.dataset.run import BoldRun


# Entities in which a partner may differ from its BOLD series.
FREE_IN_MASK = frozenset({"desc", "label", "echo", "part"})
FREE_IN_CONFOUNDS = FREE_IN_MASK | {"space", "res", "den", "cohort", "hemi"}
_Pairs = frozenset[tuple[str, str]]
# What says how often volumes come; one of the two is enough.
TIMING = ("RepetitionTime", "VolumeTiming")
# What two hemispheres of one acquisition cannot differ in.
_OF_THE_RUN = (
    *TIMING,
    *("StartTime", "SliceTimingCorrected", "SliceTiming", "DelayTime"),
    *("AcquisitionDuration", "FrameAcquisitionDuration", "DelayAfterTrigger"),
    *("NumberOfVolumesDiscardedByScanner", "NumberOfVolumesDiscardedByUser"),
)
# In which other series of the same run may differ.
_OF_THE_SERIES = frozenset({"space", "cohort", "res", "den", "hemi", "desc", "label"})


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
        """Find the partner of a series, by the first choice that has one."""
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
                    remedy = (
                        f"Choose one in section {self._section!r} of a"
                        " --bids-filter-file."
                    )
                    if len({other.name for other in best}) == 1:
                        names = " and ".join(map(str, best))
                        remedy = "Is one folder a link to, or a copy of, the other?"
                    msg = f"{len(best)} files could be its {self._section}: {names}."
                    raise DataError(msg, where=path, remedy=remedy)
                return best[0]
        return None


def _key(labels: Mapping[str, str], loose: frozenset[str]) -> _Pairs:
    return frozenset(pair for pair in labels.items() if pair[0] not in loose)


def group_series(
    kind: str, series: Mapping[Path, Mapping[str, str]], *, one_will_do: bool
) -> list[tuple[tuple[Path, ...], DataError | None]]:
    """Files of each run, and what is wrong with them: two hemispheres are one run.

    The left one is first; ``one_will_do`` tells that one hemisphere was asked for.
    """
    if kind != "gifti":
        return [((path,), None) for path in series]
    runs: dict[_Pairs, list[Path]] = defaultdict(list)
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


class _Sidecar(NamedTuple):
    pairs: _Pairs
    name: BidsName
    path: Path


class Sidecars:
    """Sidecars of a dataset, listed folder by folder, each once."""

    def __init__(self, root: Path) -> None:
        """Inheritance begins at the root."""
        self._root = root
        # By folder, then by the rarest of their entities: few to look at for each run.
        self._folders: dict[Path, dict[tuple[str, str] | None, list[_Sidecar]]] = {}

    def read(self, path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Merge the sidecars that apply to a data file, which need not exist.

        The JSON of the same suffix applies whose entities are a subset of the data
        file's, from the root to the file's folder. BIDS allows one per folder, but
        fMRIPrep writes those of the native and the ``space-`` series side by side, and
        the first applies to both by that rule. So the one with most entities is taken,
        and only where it is not the file's very own is that worth a warning.

        Returns the merged keys, of which nearer files win; and what could not be read,
        and which file was taken where several apply.
        """
        merged: dict[str, Any] = {}
        warnings: list[str] = []
        for folder, extension in self._places(path):
            content, notes = self._read_in(folder, path, extension)
            merged.update(content)
            warnings += notes
        return merged, tuple(warnings)

    def list_needed(self, path: Path, *, surface: bool) -> list[Path]:
        """List the JSON files that tell the metadata of a data file."""
        chosen = (
            self._choose(folder, path, extension)[:1]
            for folder, extension in self._places(path)
        )
        found = [file for files in chosen for file in files]
        if surface and not self.read(path)[0].keys() & set(TIMING):
            found += self._of_other_series(path)
        return found

    def _places(self, path: Path) -> Iterator[tuple[Path, str]]:
        """Folders from the root on, with the extension of sidecars there."""
        folders = [path.parent, *path.parent.parents]
        depth = folders.index(self._root) if self._root in folders else 0
        # CIFTI series have two: what any series has, and what grayordinates have.
        dense = kind_of(parse_name(path).extension) == "cifti"
        for folder in reversed(folders[: depth + 1]):
            for extension in (".json", ".dtseries.json")[: 1 + dense]:
                yield folder, extension

    def _choose(self, folder: Path, path: Path, extension: str) -> list[Path]:
        """Sidecars of a folder that apply to a data file; the one to take is first."""
        stem = path.name.partition(".")[0]
        data = parse_name(path)
        pairs = frozenset(data.entities)
        found = [
            (sidecar.path.name != stem + extension, -len(sidecar.pairs), sidecar.path)
            for sidecar in self._candidates(folder, pairs)
            if sidecar.pairs <= pairs
            and sidecar.name.suffix == data.suffix
            and sidecar.name.extension == extension
            and (not sidecar.name.foreign or sidecar.path.name == stem + extension)
        ]
        return [file for _, _, file in sorted(found)]

    def _read_in(
        self, folder: Path, path: Path, extension: str
    ) -> tuple[dict[str, Any], list[str]]:
        found = self._choose(folder, path, extension)
        if not found:
            return {}, []
        chosen, *others = found
        pairs = frozenset(parse_name(path).entities)
        warnings = []
        # The order of entities in a name carries no meaning.
        if others and frozenset(parse_name(chosen).entities) != pairs:
            names = ", ".join(other.name for other in others)
            warnings.append(
                f"{self._relative(chosen)}: taken as the sidecar of {path.name}, to"
                f" which {names} in the same folder apply too; BIDS allows one."
            )
        try:
            return _read(chosen), warnings
        except DataError as error:
            note = f"{self._relative(chosen)}: sidecar ignored: {error.problem}"
            return {}, [*warnings, note]

    def read_of_run(self, files: tuple[Path, ...], *, surface: bool) -> dict[str, Any]:
        """What those of a run's files say together, and what to tell of it."""
        path, *others = files
        metadata, warnings = self.read(path)
        for other in others:
            theirs, notes = self.read(other)
            check_timing(path, metadata, other, theirs)
            # What one hemisphere's file leaves out, the other's may tell.
            metadata = theirs | metadata
            warnings = (*warnings, *(n for n in notes if n not in warnings))
        if surface and not metadata.keys() & set(TIMING):
            timing, notes = self.read_timing_of_run(path)
            metadata, warnings = metadata | timing, (*warnings, *notes)
        return {"metadata": metadata, "warnings": warnings}

    def read_timing_of_run(self, path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Read the timing that other series of the same run have in their sidecars.

        For surfaces, beside which fMRIPrep 20 wrote no repetition time. Empty where
        none has it; with a warning where the others do not agree.
        """
        found: dict[str, tuple[Path, dict[str, Any]]] = {}
        for sidecar in self._of_other_series(path):
            try:
                content = _read(sidecar)
            except DataError:
                continue
            timing = {key: content[key] for key in TIMING if key in content}
            if timing:
                found.setdefault(repr(timing), (sidecar, timing))
        if len(found) > 1:
            names = " and ".join(sorted(path.name for path, _ in found.values()))
            note = (
                f"{path.name}: no repetition time is taken from other series of its"
                f" run, they do not agree: {names}."
            )
            return {}, (note,)
        return next((timing for _, timing in found.values()), {}), ()

    def _of_other_series(self, path: Path) -> list[Path]:
        """Sidecars in its folder of all series of a data file's run."""
        data = parse_name(path)
        run = _of_the_run(data.entities)
        return [
            one.path
            for one in self._candidates(path.parent, frozenset(data.entities))
            if (one.name.suffix, one.name.extension) == (data.suffix, ".json")
            and not one.name.foreign
            and _of_the_run(one.name.entities) == run
        ]

    def forget_participant(self) -> None:
        """Keep the listing of the root only, which all participants share."""
        self._folders = {p: t for p, t in self._folders.items() if p == self._root}

    def _candidates(self, folder: Path, pairs: _Pairs) -> list[_Sidecar]:
        """Sidecars of a folder that share their rarest entity with a data file."""
        if folder not in self._folders:
            self._folders[folder] = _list(folder)
        tables = self._folders[folder]
        return [one for pair in (*pairs, None) for one in tables.get(pair, ())]

    def _relative(self, path: Path) -> str:
        inside = path.is_relative_to(self._root)
        return path.relative_to(self._root).as_posix() if inside else str(path)


def check_timing(
    left: Path, of_left: dict[str, Any], right: Path, of_right: dict[str, Any]
) -> None:
    """Refuse two hemispheres whose sidecars tell different times, naming both."""
    either = [{k: one[k] for k in TIMING if k in one} for one in (of_left, of_right)]
    wrong = [
        f"{key} is {_short(of_left[key])} of {left.name} and {_short(of_right[key])} of"
        f" {right.name}"
        for key in _OF_THE_RUN
        if key in of_left and key in of_right and of_left[key] != of_right[key]
    ]
    if all(either) and not either[0].keys() & either[1].keys():
        wrong.append(
            f"{left.name} has {_short(either[0])}, and {right.name} {_short(either[1])}"
        )
    if wrong:
        msg = f"the sidecars of the two hemispheres contradict: {'; '.join(wrong)}."
        remedy = "Correct the JSON that is wrong; both are of one acquisition."
        raise DataError(msg, where=left, remedy=remedy)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}...{text[-7:]}"


def _list(folder: Path) -> dict[tuple[str, str] | None, list[_Sidecar]]:
    sidecars = []
    for file in glob_folder(folder, "*.json"):
        name = parse_name(file)
        sidecars.append(_Sidecar(frozenset(name.entities), name, file))
    counts = Counter(pair for one in sidecars for pair in one.pairs)
    tables = defaultdict(list)
    for one in sidecars:
        # Not by what series of one run differ in: they are looked for as well.
        ranked = [(counts[p], p) for p in one.pairs if p[0] not in _OF_THE_SERIES]
        tables[min(ranked)[1] if ranked else None].append(one)
    return dict(tables)


def _of_the_run(entities: tuple[tuple[str, str], ...]) -> _Pairs:
    return frozenset(pair for pair in entities if pair[0] not in _OF_THE_SERIES)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except DataError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and is_of_the_disk(cause):
            remedy = remedy_of(cause, "")
            raise MissingInput(error.problem, where=path, remedy=remedy) from error
        raise


# Folders of a participant that hold no table of a run, and may be closed.
_NOT_OF_RUNS = ("anat", "dwi", "fmap", "perf", "figures", "log", "logs")


def find_tables(folder: Path, pattern: str, run: BoldRun) -> tuple[Path, ...]:
    """Tables of a run in a folder, or below its participant's folder there.

    Their names have the run's entities; those that do not matter for its confounds may
    be others, or lack. One of this very echo goes before that of all echoes.
    """
    wanted = {pair for pair in run.entities if pair[0] not in FREE_IN_CONFOUNDS}
    participant = f"sub-{run.participant}"
    session = f"ses-{dict(run.entities).get('ses')}"

    def may_hold_one(name: str) -> bool:
        other = name.startswith("ses-") and name != session
        return not (other or name.startswith(".") or name in _NOT_OF_RUNS)

    found: dict[int, list[Path]] = {0: []}
    own = parse_name(run.path)
    below = list_below(folder / participant, pattern, own, may_hold_one)
    for path, name in (*list_named(folder, pattern, own), *below):
        if path.name.startswith(f"{participant}_"):
            pairs = name.entities
            rest = {pair for pair in pairs if pair[0] not in FREE_IN_CONFOUNDS}
            split = [pair for pair in pairs if pair[0] in ("echo", "part")]
            if rest == wanted and set(split) <= set(run.entities):
                found.setdefault(len(split), []).append(path)
    return tuple(sorted(found[max(found)]))


# Scanners note times in steps of 2.5 ms, and files in ms: what differs by less is even.
_EVEN_S = 5e-3
_MOST_S = 1e9
REMEDY = "Give one time in s for each volume, or RepetitionTime in its place."


@dataclass(frozen=True, slots=True)
class Timing:
    """What ``VolumeTiming`` says of a run."""

    # Seconds between volumes, where they are evenly spaced; else None
    step: float | None = None
    uneven: bool = False  # whether they are not evenly spaced
    # Why there is no step; blank where there is one, or no VolumeTiming
    problem: str = ""
    # Seconds, where they increase and there is one for each volume
    times: tuple[float, ...] = ()


def read_timing(metadata: object, n_volumes: int | None) -> Timing:
    """Read ``VolumeTiming``: the times in s of volumes that may be unevenly spaced.

    BIDS has it in place of ``RepetitionTime``. They are even where each step is within
    5 ms of their mean; ``n_volumes`` is ``None`` where it is not known.
    """
    times = metadata.get("VolumeTiming") if isinstance(metadata, Mapping) else None
    if times is None:
        return Timing()
    if not isinstance(times, list | tuple) or not all(map(_is_number, times)):
        return Timing(problem="VolumeTiming is no list of numbers.")
    steps = [b - a for a, b in itertools.pairwise(times)]
    if not steps:
        return Timing(problem=f"VolumeTiming has {len(times)} times.")
    if min(steps) <= 0:
        at = next(number for number, step in enumerate(steps) if step <= 0)
        problem = (
            f"VolumeTiming does not increase: {times[at]:g} s is followed by"
            f" {times[at + 1]:g} s (volumes {at + 1} and {at + 2})."
        )
        return Timing(problem=problem)
    complete = tuple(times) if n_volumes in (None, len(times)) else ()
    mean = (times[-1] - times[0]) / len(steps)
    if max(abs(step - mean) for step in steps) > _EVEN_S:
        problem = (
            "the volumes are not evenly spaced, the steps between them are"
            f" {min(steps):g} to {max(steps):g} s (VolumeTiming)."
        )
        return Timing(uneven=True, problem=problem, times=complete)
    if not complete:
        problem = (
            f"VolumeTiming has {len(times)} times, the series {n_volumes} volumes."
        )
        return Timing(problem=problem)
    return Timing(step=round(mean, 6), times=complete)


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < _MOST_S  # which NaN is not


def explain_untimed(metadata: object, n_volumes: int) -> tuple[str, str]:
    """Say why a run has no repetition time, and how it gets one."""
    timing = read_timing(metadata, n_volumes)
    if timing.uneven:
        return timing.problem, ""
    reason = timing.problem or "nothing tells it."
    return reason, "Give it with --repetition-time, in seconds."


# Of what was made of a run, and of what all its echoes share: no events file has them.
_NOT_OF_EVENTS = (
    *("space", "cohort", "res", "den", "hemi", "atlas", "seg", "scale"),
    *("stat", "desc", "echo", "part"),
)
_COLUMNS = ("onset", "duration", "trial_type")
# Times are sums of rounded numbers: what differs by less is the same.
_SAME_S = 1e-6


@dataclass(frozen=True, slots=True)
class Blocks:
    """Events of one condition."""

    # Onset and end in s from the first volume; only events that have a length
    spans: tuple[tuple[float, float], ...]
    n_unusable: int  # events without an onset, and without a length

    def choose(self, times: Sequence[float], shift: float) -> list[bool]:
        """Whether each of some times (s) is within an event, all moved by a shift (s).

        From the onset on, and before the end.

        >>> Blocks(((2.0, 6.0),), 0).choose([0.0, 2.0, 4.0, 6.0], 0)
        [False, True, True, False]
        """
        return [
            any(
                onset + shift <= time + _SAME_S and time + _SAME_S < end + shift
                for onset, end in self.spans
            )
            for time in times
        ]


def find_raw(root: Path, given: Path | None) -> Path:
    """Find the raw dataset: as given, or that in whose ``derivatives/`` ``root`` is."""
    if given is not None:
        return given
    for folder in root.absolute().parents:
        if folder.name == "derivatives":
            return folder.parent
    msg = "the derivative lies in no raw dataset, and conditions need its events.tsv."
    raise UsageError(msg, where=root, remedy="Name it with --raw-dataset.")


def find_events(raw: Path, name: BidsName) -> Path | None:
    """Find the table of events of a run, by the inheritance principle.

    The table applies whose entities are among the run's, the one in the deepest folder
    and there the one with most entities. A ``DataError`` where two of a folder do.
    """
    own = {e for e in name.entities if e[0] not in _NOT_OF_EVENTS}
    labels = dict(own)
    person = raw / f"sub-{labels.get('sub')}"
    folders = [person / "func", person, raw]
    if session := labels.get("ses"):
        inner = person / f"ses-{session}"
        folders = [inner / "func", inner, person, raw]
    for folder in folders:
        fitting = {
            path: len({*given.entities})
            for path, given in list_named(folder, "*events.tsv", name)
            if given.suffix == "events" and own.issuperset(given.entities)
        }
        most = max(fitting.values(), default=0)
        best = [path for path, n_entities in fitting.items() if n_entities == most]
        if len(best) > 1:
            names = ", ".join(path.name for path in best)
            msg = f"two tables of events apply to the run: {names}."
            raise DataError(msg, where=folder, remedy="Keep one of them.")
        if best:
            return best[0]
    return None


def read_blocks(
    path: Path, conditions: Sequence[str]
) -> tuple[dict[str, Blocks], DataError | None]:
    """Read the events of some conditions (``trial_type``)."""
    table = read_table(path)
    if lacking := [column for column in _COLUMNS if column not in table]:
        msg = f"there is no column {', '.join(lacking)} among {', '.join(table)}."
        remedy = "BIDS has onset and duration, in s, and trial_type."
        raise DataError(msg, where=path, remedy=remedy)
    kinds = [cell.strip() for cell in table["trial_type"]]
    there = sorted(set(kinds) - {MISSING})
    lacking = [condition for condition in conditions if condition not in there]
    error = None
    if lacking:
        near = ", ".join(nearest_words(lacking[0], there))
        hint = f"Nearest: {near}. " if near else ""
        msg = f"there is no condition {', '.join(lacking)} (trial_type)."
        remedy = f"{hint}There are {', '.join(there) or 'none'}."
        error = DataError(msg, where=path, remedy=remedy)
    blocks = {}
    for condition in [c for c in conditions if c in there]:
        spans, n_unusable = [], 0
        for row, kind in enumerate(kinds):
            if kind != condition:
                continue
            onset = _number(table["onset"][row], path, row)
            length = _number(table["duration"][row], path, row)
            if math.isnan(onset) or not length > 0:
                n_unusable += 1
            else:
                spans.append((onset, onset + length))
        blocks[condition] = Blocks(tuple(spans), n_unusable)
    return blocks, error


def _number(cell: str, path: Path, row: int) -> float:
    """A time in s, NaN for none."""
    if cell.strip() in (MISSING, ""):
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        msg = f"{cell!r} in row {row + 1} is no time in s."
        raise DataError(msg, where=path, remedy=f"Write a number, or {MISSING}.")
    return value
