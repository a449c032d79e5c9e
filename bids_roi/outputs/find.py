"""Participant outputs of a folder, found by name; sidecars are read when asked for."""

from __future__ import annotations

import fnmatch
import math
import sys
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from bids_roi.atlases.names import is_of_one_person
from bids_roi.errors import BidsRoiError, DataError
from bids_roi.files.listing import is_absent, list_folder, unreadable
from bids_roi.files.names import BidsName, format_name, parse_name, sort_entities
from bids_roi.files.tables import read_json
from bids_roi.outputs.records import RAW, sidecar_of, told_digest
from bids_roi.outputs.schema import read_fact, texts_of
from bids_roi.outputs.told import (
    NUMBERS,
    Layout,
    Told,
    pack_digest,
    pack_numbers,
    tell,
    unpack_digest,
    unpack_number,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bids_roi.outputs.records import Record


KINDS = {
    "timeseries": "timeseries",
    "dseg": "regions",
    "relmat": "relmat",
    "outliers": "outliers",
}
# Of matrices over all runs of a task, which nobody may average with those of the runs.
COMBINED = "combined"
# Entities that their names lack; XCP-D's concatenated runs lack both, too.
_OF_RUNS = ("run", "dir")

# Of a pair of hemispheres, hemi- tells that but one of them was used.
_ATLAS = ("atlas", "seg", "scale")
PLACE_KEYS = ("hemi", "space", "cohort", *_ATLAS, "res", "den", "desc")
# No table holds outputs that differ in anything but these and what was made of the run.
_OF_ONE = ("sub", "ses", "run")
# Outputs that differ in one of these are of different things, and share no table.
PLACE = PLACE_KEYS[:-1]
# Nor do these share a connectivity matrix: they are not repeated runs of one thing.
SCOPE = ("task", "rec", "echo", "part")

REMEDY = "Make it again: the participant level with --overwrite."

# Names of the group files that the last call wrote.
LEDGER = "logs/group_files.json"

# Keys of matrices that are made of series on disk; by an edit one may be gone.
_OF_SERIES = frozenset({"CombinedTables", "CombinedRuns", "Condition"})

RunKey = tuple[str, tuple[str, ...]]


class _Alike(NamedTuple):
    """What the names of many outputs tell alike, whatever the participant and run."""

    place: tuple[str, ...]
    scope: tuple[str, ...]
    atlas: str
    stat: str
    desc: str


@dataclass(slots=True, unsafe_hash=True)
class Output:
    """One table of the participant level.

    Its sidecar is read when it is first asked about, and little is kept of it: a group
    has tens of thousands of outputs. ``path`` is relative to the output folder;
    ``series`` are the participant's by their path, for a matrix is of what its series
    is of.
    """

    folder: Path
    path: str
    kind: str
    series: Mapping[str, Output] = field(
        default_factory=dict, repr=False, compare=False
    )
    _alike: _Alike = field(init=False, repr=False, compare=False)
    _stem: str = field(default="", init=False, repr=False, compare=False)
    # What its sidecar says, once it is read.
    _told: Told | None = field(default=None, init=False, repr=False, compare=False)
    _source: str | None = field(default=None, init=False, repr=False, compare=False)
    _layout: Layout | None = field(default=None, init=False, repr=False, compare=False)
    _numbers: bytes = field(default=b"", init=False, repr=False, compare=False)
    _table: bytes | str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        entities = self.name.entities
        self._alike = _tell_alike(tuple([e for e in entities if e[0] not in _OF_ONE]))

    @property
    def name(self) -> BidsName:
        """The parts of its name, which are not kept."""
        return parse_name(self.path)

    @property
    def file(self) -> Path:
        """Path of the TSV."""
        return self.folder / self.path

    @property
    def beside(self) -> Path:
        """Path of the sidecar."""
        return self.folder / sidecar_of(self.path)

    def read_sidecar(self) -> dict[str, Any]:
        """All of the sidecar; ``DataError`` if it is missing or damaged."""
        return read_json(self.beside)

    @property
    def told(self) -> Told:
        """What the sidecar says as others do."""
        if self._told is None:
            try:
                self._told = _read_told(self)
            except BidsRoiError as error:
                self._told = Told(error=error)
        return self._told

    @property
    def participant(self) -> str:
        """Label with ``sub-``."""
        return f"sub-{self.name.get('sub')}"

    @property
    def desc(self) -> str:
        """Label of ``desc-``, or empty."""
        return self._alike.desc

    @property
    def stat(self) -> str:
        """Label of ``stat-``, or empty."""
        return self._alike.stat

    @property
    def place(self) -> tuple[str, ...]:
        """Hemisphere, space, cohort, atlas and resolution, empty where absent."""
        return self._alike.place

    @property
    def scope(self) -> tuple[str, ...]:
        """Task, reconstruction, echo and part, empty where absent."""
        return self._alike.scope

    @property
    def atlas(self) -> str:
        """Canonical id of the atlas, by the file name; empty for outliers."""
        return self._alike.atlas

    @property
    def atlas_name(self) -> str:
        """The same as the sidecar says it, where it does."""
        return self.told.atlas or self.atlas

    @property
    def source(self) -> str:
        """The BOLD file, relative to its dataset; empty where nothing says."""
        return "" if self.told.error else self._source or ""

    @property
    def table(self) -> str:
        """Digest of the table's bytes; empty where the sidecar does not say."""
        return unpack_digest(self._table) if self.told.error is None else ""

    @property
    def source_desc(self) -> str:
        """``desc-`` of the BOLD file, empty for ``preproc``."""
        return desc_of(self.source, "") if self.source else ""

    @property
    def digest(self) -> str:
        """Digest of all that decides the numbers."""
        return self.told.digest

    @property
    def run_name(self) -> str:
        """The run, as its outputs are named."""
        return name_run(self.name)

    @property
    def run(self) -> RunKey:
        """Name of the BOLD run, and the place: the same for all outputs of both."""
        if not self._stem:
            self._stem = sys.intern(_stem(self.name, self.source_desc))
        return self._stem, self.place

    @property
    def is_combined(self) -> bool:
        """Whether its sidecar says that it is over several runs."""
        try:
            return b'"CombinedRuns"' in self.beside.read_bytes()
        except OSError as error:
            # Not read once more: it would be taken for the matrix of a run.
            if not is_absent(error):
                self._told = Told(error=unreadable("file", self.beside, error))
        return False

    def number(self, key: str) -> float | None:
        """One of the numbers, ``None`` where the sidecar does not have it."""
        if self.told.error is not None or self._layout is None:
            return None
        return unpack_number(key, self._layout, self._numbers)


@lru_cache(maxsize=1024)
def _tell_alike(entities: tuple[tuple[str, str], ...]) -> _Alike:
    labels = dict(entities)
    place, scope = (tuple(labels.get(k, "") for k in keys) for keys in (PLACE, SCOPE))
    atlas = format_name([(key, labels.get(key)) for key in _ATLAS], "", "")
    atlas = atlas.removeprefix("atlas-").removesuffix("_")
    return _Alike(place, scope, atlas, labels.get("stat", ""), labels.get("desc", ""))


def find_outputs(output_dir: Path, participant: str | None = None) -> list[Output]:
    """Tables that the participant level wrote, sorted by folder and name.

    ``participant`` is ``sub-<label>``, for those of one participant.
    """
    found: list[Output] = []
    series: dict[str, dict[str, Output]] = defaultdict(dict)
    of_all: set[str] = set()
    paths = _list_tables(output_dir, participant)
    for path in sorted(paths, key=lambda path: path.split("/")):
        name = parse_name(path)
        kind = _kind_of(name)
        if kind:
            own = series[path.partition("/")[0]]
            found.append(Output(output_dir, path, kind, own))
            if kind == "timeseries":
                own[path] = found[-1]
            elif kind == "relmat" and any(map(name.get, _OF_RUNS)):
                of_all.add(name_combined(path))
    for output in found:
        if output.kind == "relmat" and output.path in of_all and output.is_combined:
            output.kind = COMBINED
    return found


def _list_tables(output_dir: Path, participant: str | None) -> Iterator[str]:
    """Tables in the folders of participants and sessions, relative."""
    people = [participant] if participant else list_folder(output_dir)
    # A Path of each of tens of thousands takes longer than to list them.
    for person in fnmatch.filter(people, "sub-*"):
        own = fnmatch.filter(list_folder(output_dir / person), "ses-*")
        for inside in (person, *(f"{person}/{session}" for session in own)):
            names = list_folder(output_dir / inside / "func")
            if not names:  # an error where the session is a link to what is not here
                list_folder(output_dir / inside)
            for name in fnmatch.filter(names, "sub-*.tsv"):
                yield f"{inside}/func/{name}"


def name_combined(path: str) -> str:
    """Path of the matrix over all runs, from that of the matrix of one.

    >>> name_combined("sub-1/func/sub-1_task-rest_run-2_atlas-A_relmat.tsv")
    'sub-1/func/sub-1_task-rest_atlas-A_relmat.tsv'
    """
    folder, _, _ = path.rpartition("/")
    name = parse_name(path)
    kept = [e for e in name.entities if e[0] not in _OF_RUNS]
    return f"{folder}/{format_name(kept, name.suffix, name.extension)}"


def without_run(path: str, desc: str) -> str:
    """Name of what a BOLD file or an output of it is of, but for the run."""
    name = parse_name(path)
    kept = tuple(e for e in name.entities if e[0] not in _OF_RUNS)
    return _stem(replace(name, entities=kept), desc)


def sources_of(sidecar: Mapping[str, Any]) -> list[str]:
    """Paths of what an output was made of, each relative to its dataset."""
    return [source.rpartition(":")[2] for source in texts_of(sidecar, "Sources")]


def series_of(output: Output) -> list[Output]:
    """Series that a matrix is of; those that are not there any more are left out."""
    paths = sources_of(output.read_sidecar())
    return [output.series[path] for path in paths if path in output.series]


def choose_combined(found: Iterable[Output]) -> tuple[list[Output], list[Output]]:
    """Choose one matrix for all runs of a task: that over them, or of the only one.

    They come as matrices (``relmat``), with those of several runs of which there is
    none over all.
    """
    families: dict[str, list[Output]] = {}
    for output in found:
        if output.kind in ("relmat", COMBINED) and not output.told.condition:
            families.setdefault(name_combined(output.path), []).append(output)
    chosen, lacking = [], []
    for own in families.values():
        over_all = [o for o in own if o.kind == COMBINED]
        if over_all or len(own) == 1:
            chosen.append(replace((over_all or own)[0], kind="relmat"))
        else:
            lacking += own
    return chosen, lacking


def check_combined(output: Output, stale: Collection[str] = ()) -> DataError | None:
    """Why a matrix is not of the series that are there; ``None`` if it is.

    One over runs, or of a condition, which are made of series on disk; ``stale`` are
    those that ``find_stale`` has found.

    Series that were removed since say nothing.
    """
    try:
        sidecar = output.read_sidecar()
    except BidsRoiError as error:
        return DataError(error.problem, where=output.path, remedy=REMEDY)
    paths, digests = sources_of(sidecar), texts_of(sidecar, "CombinedTables")
    made_of = dict(zip(paths, digests, strict=False))
    left_out = {t.partition(":")[0] for t in texts_of(sidecar, "RunsNotCombined")}
    if not made_of:
        problem = "the sidecar does not tell which series it is of."
        return DataError(problem, where=output.path, remedy=REMEDY)
    if any(path in stale for path in made_of):
        return explain_stale(output)
    is_combined = "CombinedRuns" in sidecar
    # Over runs, none of the participant's may be missing.
    concerned = output.series if is_combined else output.series.keys() & made_of
    for path in sorted(concerned):
        series = output.series[path]
        told = series.table
        if path in made_of and told and told != made_of[path]:
            msg = f"{path} has been made again since."
        elif (
            is_combined
            and path not in made_of
            and name_combined(path) == name_combined(paths[0])
            and series.run_name not in left_out
        ):
            msg = f"it does not hold {path}."
        else:
            continue
        flag = "combine-runs" if is_combined else "conditions"
        remedy = f"Run the participant level again with --{flag}."
        return DataError(msg, where=output.path, remedy=remedy)
    return None


def find_stale(found: Sequence[Output], records: Sequence[Record]) -> set[str]:
    """Find series and matrices that are not of the making of their region table.

    A call that makes one strategy of a changed input replaces the region table, which
    all strategies share, and leaves what it was not asked for.
    """
    told = {o.path: o.table for o in found if o.kind == "regions"}
    stale: set[str] = set()

    # Path by path: a difference of sets would go through all region tables.
    def add(record: Record) -> None:
        stale.update(path for path in record.outputs if path not in told)

    made: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        own = [s for s in record.stamps if told.get(s.table)]
        if any(told[stamp.table] != stamp.digest for stamp in own):
            add(record)
        elif own:
            made.setdefault((record.run, record.atlas), []).append(record)
    # Two inputs may have the same region table, as with their volumes in another order.
    fresh: dict[tuple[str, str], tuple[str, ...]] = {}
    for run_atlas, alike in made.items():
        fresh[run_atlas] = max(alike, key=lambda record: record.revision).inputs
        for record in alike:
            # Fingerprints agree, but for files that only one of two calls needs.
            mine, latest = {*record.inputs}, {*fresh[run_atlas]}
            if not (mine <= latest or latest <= mine):
                add(record)
    # One that failed on the changed input no longer names what was made of the other.
    failed = {
        (stem_of_run(r.run), r.atlas, desc_of(r.run, r.strategy)): r.outputs
        for r in records
        if r.status == "failed" and r.inputs == fresh.get((r.run, r.atlas))
    }
    for output in found:
        named = failed.get((output.run[0], output.atlas_name, output.desc))
        if named is not None and not (output.path in named or output.path in told):
            stale.add(output.path)
    return stale


def explain_stale(output: Output) -> DataError:
    """Error of an output that ``find_stale`` has found."""
    msg = "made of another input, or with other options, than its region table."
    remedy = "Run the participant level again, with this strategy too."
    return DataError(msg, where=output.path, remedy=remedy)


def list_group_files(output_dir: Path) -> list[str]:
    """Names of the group files that are ours, by the list in ``logs/``."""
    try:
        names = read_json(output_dir / LEDGER).get("Files")
    except BidsRoiError:
        return []
    # A list that was edited must not make us read or remove anything else.
    return sorted(
        name
        for name in (names if isinstance(names, list) else [])
        if isinstance(name, str)
        and name.startswith("group_")
        and not {"/", "\\", "\0"} & {*name}
    )


def _kind_of(name: BidsName) -> str:
    """Kind of an output by its name, empty for what is none of ours."""
    kind = KINDS.get(name.suffix, "")
    labels = dict(name.entities)
    # An atlas's own table and the confounds of fMRIPrep are no outputs of ours.
    if (kind == "outliers") == ("atlas" in labels):
        return ""
    if kind in ("timeseries", "relmat") and "stat" not in labels:
        return ""
    return kind


def _read_told(output: Output) -> Told:
    """Read a sidecar and check what it needs to have; what is its own goes to it."""
    beside = output.beside
    try:
        content = read_json(beside)
    except DataError as error:
        if not (isinstance(error.__cause__, OSError) and is_absent(error.__cause__)):
            raise
        msg = f"the sidecar {beside.name} is missing."
        raise DataError(msg, where=output.path, remedy=REMEDY) from error
    source, own = _find_origin(output, content)
    # No two participants share an image, a transform or a surface of their own.
    weighed = str(content.get("VertexWeights")).endswith("of the participant")
    apart = own or "AtlasTransformDigest" in content or weighed
    key = "SettingsDigest" if apart else "OptionsDigest"
    digest = content.get(key)
    if not isinstance(digest, str) or not digest:
        raise DataError(f"{key} is missing.", where=beside, remedy=REMEDY)
    output._source = source
    try:
        packed = pack_numbers(dict(_read_numbers(content, beside)))
    except DataError as error:  # the matrices of a series can be used without these
        return Told(own, error=error)
    output._layout, output._numbers = packed
    output._table = pack_digest(told_digest(content))
    fisher_z = content.get("FisherZ")
    return tell(
        own,
        str(content.get("Atlas") or ""),
        digest,
        fisher_z=fisher_z if isinstance(fisher_z, bool) else None,
        absent=str(content.get("ReasonNotAvailable") or ""),
        condition=str(content.get("Condition") or ""),
        of_tables=not _OF_SERIES.isdisjoint(content),
    )


def _find_origin(output: Output, content: Mapping[str, Any]) -> tuple[str, bool]:
    """Tell the BOLD file, and whether the atlas is the participant's own."""
    sources = texts_of(content, "Sources")
    if not sources:
        return "", False
    path = sources[0].rpartition(":")[2]
    # What a matrix is of is said in the sidecar of its series.
    matrix = output.kind in ("relmat", COMBINED)
    series = output.series.get(path) if matrix else None
    if series is not None:
        own = series.told.own  # first: by this its sidecar is read
        if series._source is not None:
            return series._source, own
    own = any(map(is_of_one_person, sources))
    return ("" if path.endswith(".tsv") else sys.intern(path)), own


def _read_numbers(
    content: Mapping[str, Any], where: Path
) -> Iterator[tuple[str, float]]:
    for key in NUMBERS:
        value = read_fact(content, key)
        if value is None or value == "n/a":
            continue
        if type(value) not in (int, float) or not math.isfinite(value):
            msg = f"{key} is {value!r} where a number is needed."
            raise DataError(msg, where=where, remedy=REMEDY)
        yield key, value


def name_run(name: BidsName) -> str:
    """Tell the run that an output is of.

    >>> name_run(parse_name("sub-01_run-02_space-T1w_atlas-A_stat-mean_relmat.tsv"))
    'sub-01_run-02'
    """
    own = [e for e in name.entities if e[0] not in (*PLACE_KEYS, "stat")]
    return format_name(own, "", "").removesuffix("_")


def stem_of_run(source: str) -> str:
    """Name of a BOLD run, the same from its file as from its outputs.

    >>> stem_of_run("sub-01/func/sub-01_task-rest_desc-preproc_bold.nii.gz")
    'sub-01_task-rest_bold'
    """
    return _stem(parse_name(source), desc_of(source, ""))


def desc_of(source: str, strategy: str) -> str:
    """Value of ``desc-`` of what a strategy, if any, makes of a BOLD file.

    >>> desc_of("sub-01_desc-preproc_bold.nii.gz", "24P")
    '24P'
    >>> desc_of("sub-01_desc-smoothAROMAnonaggr_bold.nii.gz", "")
    'smoothAROMAnonaggr'
    """
    desc = parse_name(source).get("desc")
    label = "" if strategy == RAW else strategy
    return f"{'' if desc in (None, 'preproc') else desc}{label}"


def _stem(name: BidsName, desc: str) -> str:
    # Outputs have the order of the schema, sources any.
    kept = [(k, v) for k, v in name.entities if k not in (*_ATLAS, "stat", "desc")]
    return format_name(sort_entities([*kept, ("desc", desc)]), "bold", "")
