"""``group_runs.tsv``: every run, atlas and strategy, and what became of it."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.errors import BidsRoiError, UsageError, nearest_words
from bids_roi.files.listing import is_there
from bids_roi.files.names import format_name, parse_name
from bids_roi.files.tables import format_row, read_table, to_numbers
from bids_roi.outputs.columns import (
    KEY_COLUMNS,
    SPACE_KEYS,
    describe_keys,
    identify,
    key_columns,
)
from bids_roi.outputs.counts import SIZED
from bids_roi.outputs.find import (
    choose_combined,
    desc_of,
    series_of,
    stem_of_run,
)
from bids_roi.outputs.records import NO_ATLAS
from bids_roi.outputs.result import OUTLIER_COLUMNS
from bids_roi.outputs.schema import COLUMNED, texts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from bids_roi.group.outputs import Ledger, Outcome, Problem
    from bids_roi.group.regions import Summary
    from bids_roi.outputs.find import Output, RunKey


log = logging.getLogger("bids_roi")

Row = dict[str, object]
# Kind, stat and desc.
_Product = tuple[str, str, str]
# Place, scope and desc of the source: runs that ought to have the same outputs.
_Family = tuple[tuple[str, ...], tuple[str, ...], str]

_FACTS = {key.column: key.text for key in COLUMNED}
# Region tables tell these, and series some of them too.
_OF_REGIONS = {
    "n_regions": "Regions of the atlas.",
    "n_regions_lost": _FACTS.pop("n_regions_lost"),
    "coverage_mean": _FACTS.pop("coverage_mean"),
    "tsnr_median": (
        "Median over the regions of their temporal signal-to-noise ratio, before any"
        " cleaning, over the steady volumes."
    ),
}

_COLUMNS = {
    "atlas_id": "Canonical id of the atlas.",
    "status": (
        "done; skipped (the atlas is not in the run's space) or failed, by the"
        " participant level; absent (other runs have such outputs, this one has none);"
        " incomplete (it has some of them); unreadable (a file was left out); left_out"
        " (a matrix is n/a throughout: the run is not in its group statistics, nor in"
        " stacks that hold matrices)."
    ),
    "reason": "Why it is not done.",
    # What the run is comes before what came of it.
    **{column: _FACTS[column] for column in ("n_volumes", "repetition_time")},
    **_FACTS,
    **_OF_REGIONS,
    "options_digest": "Hash of the options, atlas and version that made the outputs.",
    "source": (
        "The BOLD file, relative to its dataset; of a matrix over runs, that matrix,"
        " relative to the output folder."
    ),
    "regions_file": "Region quality table, relative to the output folder.",
}

_EVERY = (*KEY_COLUMNS, *_COLUMNS)

# Statuses of outcomes: there is a reason why nothing was made.
_NOT_MADE = ("failed", "skipped")
_KINDS = {"regions": "region table", "timeseries": "series", "relmat": "matrix"}


@dataclass(slots=True)
class Run:
    """The outputs of one run and atlas; ``products`` are series and matrices."""

    regions: Output | None = None
    products: list[Output] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()

    @property
    def outputs(self) -> list[Output]:
        """All of them, the region table first, and then by ``desc-``."""
        descs = dict.fromkeys(output.desc for output in self.products)
        more = [output for desc in descs for output in self.of(desc)]
        return [self.regions, *more] if self.regions is not None else more

    def of(self, desc: str) -> list[Output]:
        """Series and matrices of a strategy."""
        return [output for output in self.products if output.desc == desc]

    @property
    def one(self) -> Output:
        """Any of them, a problem if there is nothing else."""
        outputs = self.outputs
        return outputs[0] if outputs else self.problems[0].output

    @property
    def source(self) -> str:
        """The BOLD file, relative to its dataset; empty where no sidecar says."""
        return next((output.source for output in self.outputs if output.source), "")

    def rank(self, desc: str) -> list[Output]:
        """Outputs of a strategy, of the mean first: it is what quality is told of."""
        return sorted(
            self.of(desc), key=lambda o: (o.kind != "timeseries", o.stat != "mean")
        )

    def number(self, key: str, desc: str, *, of_the_run: bool) -> float | None:
        """Number of a series by its key; of the run, from any of its outputs."""
        more = self.outputs if of_the_run else []
        return _first_number([*self.rank(desc), *more], key)


def _first_number(outputs: Iterable[Output], key: str) -> float | None:
    for output in outputs:
        value = output.number(key)
        if value is not None:
            return value
    return None


def sort_into_runs(
    outputs: Iterable[Output], problems: Iterable[Problem]
) -> dict[RunKey, Run]:
    """Put together what is of one run and atlas."""
    runs: dict[RunKey, Run] = defaultdict(Run)
    for output in outputs:
        run = runs[output.run]
        if output.kind == "regions":
            run.regions = output
        else:
            run.products.append(output)
    for problem in problems:
        runs[problem.output.run].problems += (problem,)
    return dict(runs)


# Entities of a matrix that the table of outliers of its run does not have.
_OF_ATLAS = ("atlas", "seg", "scale", "stat")
_OF_VOLUMES = [name for name, c in OUTLIER_COLUMNS.items() if c.unit == "mm"]


def check_measure(name: str) -> None:
    """Refuse a measure of motion that is no column of the runs."""
    known = [*(key.column for key in COLUMNED), *_OF_VOLUMES]
    if name not in known:
        near = nearest_words(name, known)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        remedy = f"One of {', '.join(known)}."
        raise UsageError(f"--fd-measure {name}: no such column.{hint}", remedy=remedy)


def measure_motion(
    name: str, runs: Mapping[RunKey, Run], output: Output
) -> float | None:
    """Motion of the run of a matrix: a number of its sidecars, or a mean of volumes.

    Of a matrix over several runs, over the volumes of all; of a number that it does not
    tell, the mean of theirs.
    """
    key = next((key for key in COLUMNED if key.column == name), None)
    if key is None:
        # The table of outliers is that of the series: of a condition, its strategy's.
        parts = series_of(output) or [output]
        known = np.empty(0)
        for part in parts:
            values = _read_volumes(part, name)
            if values is None:  # the mean over the other runs would be another
                return None
            known = np.concatenate([known, values])
        return float(known.mean()) if known.size else None
    own = output.number(key.name)
    if own is not None:
        return own
    if not output.is_combined:
        whole = key.of == "run"
        return runs[output.run].number(key.name, output.desc, of_the_run=whole)
    told = [n for n in (s.number(key.name) for s in series_of(output)) if n is not None]
    return sum(told) / len(told) if told else None


def _read_volumes(output: Output, name: str) -> NDArray[np.float64] | None:
    """Known values of a column of the table of outliers of an output's run.

    None in a run without this table; ``None``, which is told, where it cannot be read.
    """
    entities = [e for e in output.name.entities if e[0] not in _OF_ATLAS]
    path = output.file.with_name(format_name(entities, "outliers", ".tsv"))
    try:
        cells = read_table(path).get(name, []) if is_there(path) else []
        values = to_numbers(cells)
    except (BidsRoiError, ValueError) as error:
        log.warning("%s: its %s is not known: %s", output.path, name, error)
        return None
    return values[np.isfinite(values)]


def list_rows(
    runs: Mapping[RunKey, Run],
    summaries: Mapping[str, Summary],
    outcomes: list[Outcome],
) -> Iterator[Row]:
    """Yield the rows of ``group_runs.tsv`` in their order.

    ``summaries`` are columns of the region tables, by their path; ``outcomes`` tell
    what is not there, and why.
    """
    by_run: dict[tuple[str, str], dict[str | None, Outcome]] = defaultdict(dict)
    for one in (o for o in outcomes if o.status != "unreadable"):
        # Of what holds for all strategies, None; the others by their desc-.
        desc = desc_of(one.run, one.strategy) if one.strategy else None
        by_run[stem_of_run(one.run), one.atlas][desc] = one

    def outcomes_of(key: RunKey) -> dict[str | None, Outcome]:
        # One that failed before its atlases were known is a loss to each of them.
        places = (key[0], runs[key].one.atlas_name), (key[0], NO_ATLAS)
        return by_run.get(places[0], {}) | by_run.get(places[1], {})

    heads = []
    for key, run in runs.items():
        # Of a run without a sidecar that can be read, the record knows the source.
        source = run.source or next((o.run for o in outcomes_of(key).values()), "")
        person = identify(run.one.name)["participant_id"] or ""
        heads.append((person, source, run.one.atlas_name, key))
    heads.sort(key=lambda head: head[:3])
    expected = _count_products(runs.values())

    # Made one run after the other: the rows of all take as much as all else that is
    # held of the runs.
    def of_runs() -> Iterator[Row]:
        for _, alike in itertools.groupby(heads, key=lambda head: head[:3]):
            own = (
                {**row, "source": source}
                for _, source, _, key in alike
                for row in _rows_of(runs[key], expected, summaries, outcomes_of(key))
            )
            yield from sorted(own, key=_place_of)

    lost = _list_lost(runs, {head[1:3] for head in heads}, outcomes)
    yield from heapq.merge(of_runs(), sorted(lost, key=_place_of), key=_place_of)


def _place_of(row: Row) -> list[str]:
    """Tell where a row stands among the others."""
    order = ("participant_id", "source", "atlas_id", "desc_id", "regions_file")
    return [str(row.get(key) or "") for key in order]


def _list_lost(
    runs: Mapping[RunKey, Run], there: set[tuple[str, str]], outcomes: list[Outcome]
) -> Iterator[Row]:
    """Yield rows of what has no output; ``there`` are source and atlas of what has."""
    seen, runs_there = {*there}, {source for source, _ in there}
    for one in outcomes:
        whole = one.atlas == NO_ATLAS and one.status != "unreadable"
        told = whole and one.run in runs_there
        if not told and (one.run, one.atlas) not in there:
            yield _row_of_loss(one)
            seen.add((one.run, one.atlas))
    yield from _absent_atlases(runs.values(), seen)


def list_combined(outputs: Iterable[Output]) -> Iterator[Row]:
    """Rows of matrices that stand for all runs of a task, in ``group_runs.tsv``."""
    for output in outputs:
        row: Row = dict(identify(output.name))
        row |= {"desc_id": output.desc, "atlas_id": output.atlas_name}
        sidecar = output.read_sidecar()
        runs = texts_of(sidecar, "CombinedRuns") or [output.run_name]
        left_out = texts_of(sidecar, "RunsNotCombined")
        row["status"] = "incomplete" if left_out else "done"
        lacking = "".join(f"; without {text}" for text in left_out)
        row["reason"] = f"stat-{output.stat} over {', '.join(runs)}{lacking}"
        row |= {key.column: output.number(key.name) for key in COLUMNED}
        yield row | {"options_digest": output.digest, "source": output.path}


def tell_not_combined(found: Iterable[Output]) -> list[str]:
    """Say which runs have matrices, and none over all of them."""
    _, lacking = choose_combined(found)
    if not lacking:
        return []
    return [
        f"{len(lacking)} matrices of runs"
        f" without one over all runs, the first {lacking[0].path}: not in the group."
        " --combine-runs (participant level) makes it, of pearson and partial."
    ]


def _row_of_loss(outcome: Outcome) -> Row:
    """Row of what has no output here: why, as the participant level told."""
    whole = "/" not in outcome.run  # a participant or session, not planned
    row: Row = dict(identify(parse_name(f"{outcome.run}_" if whole else outcome.run)))
    row |= {
        "atlas_id": outcome.atlas,
        "desc_id": desc_of(outcome.run, outcome.strategy),
    }
    row |= {"status": outcome.status, "reason": outcome.reason, "source": outcome.run}
    if outcome.status not in (*_NOT_MADE, "unreadable"):
        row["status"] = "absent"
        row["reason"] = "outputs were made, but they are not here any more."
    return row


class RunsTable:
    """``group_runs.tsv`` row by row, and what the summary tells of it.

    Attributes
    ----------
    counts
        Rows of each status.
    losses
        Rows of each status but ``done``.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.losses: dict[str, list[Row]] = defaultdict(list)
        self._lines: list[str] = []
        self._used: set[str] = set()
        self._digests: set[str] = set()
        self._sized: set[tuple[object, ...]] = set()

    @property
    def sized(self) -> Iterator[Row]:
        """Which runs and participants the rows are of, each once; see ``say_size``."""
        return (dict(zip(SIZED, told, strict=True)) for told in self._sized)

    def add(self, row: Row) -> None:
        """Add a row, of which the text is kept."""
        status = str(row["status"])
        self.counts[status] += 1
        self._sized.add(tuple(map(row.get, SIZED)))
        if status != "done":
            self.losses[status].append(row)
        if digest := row.get("options_digest"):
            self._digests.add(str(digest))
        self._used |= {column for column in row if row[column] not in (None, "")}
        self._lines.append(format_row(map(row.get, _EVERY)))

    def write(self, ledger: Ledger) -> None:
        """Write the columns of which there is something, or which are always there."""
        keys = key_columns([dict.fromkeys(self._used, True)], ("desc_id",))
        empty = {key.column for key in COLUMNED if key.optional} - self._used
        told = {c: text for c, text in _COLUMNS.items() if c not in empty}
        places = [_EVERY.index(column) for column in (*keys, *told)]
        sidecar = {
            "Description": "Every run, atlas and strategy, and what became of it.",
            "OptionsDigest": sorted(self._digests),
        }

        def lines() -> Iterator[str]:
            for line in itertools.chain([format_row(_EVERY)], self._lines):
                cells = line[:-1].split("\t")
                yield "\t".join([cells[place] for place in places]) + "\n"

        ledger.write("group_runs.tsv", lines(), sidecar, describe_keys(keys) | told)


def _family(output: Output) -> _Family:
    return output.place, output.scope, output.source_desc


def _count_products(runs: Iterable[Run]) -> dict[_Family, Counter[_Product]]:
    """How many runs of each family have each product."""
    counts: dict[_Family, Counter[_Product]] = defaultdict(Counter)
    for run in runs:
        counts[_family(run.one)].update({_product(o) for o in run.outputs})
    return counts


def _product(output: Output) -> _Product:
    desc = "" if output.kind == "regions" else output.desc
    return output.kind, output.stat, desc


def _rows_of(
    run: Run,
    expected: Mapping[_Family, Counter[_Product]],
    summaries: Mapping[str, Summary],
    outcomes: Mapping[str | None, Outcome],
) -> Iterator[Row]:
    """Yield one row per strategy that the run or another of its family has or lacks."""
    counts = expected[_family(run.one)]
    products = {_product(output) for output in run.outputs}
    wanted = sorted(counts)
    descs = {desc for kind, _, desc in wanted if kind != "regions"}
    own = {p.output.desc for p in run.problems if p.output.kind != "regions"}
    own |= {desc for desc, o in outcomes.items() if desc and o.status in _NOT_MADE}
    for desc in sorted({*descs, *own} or {""}):
        row: Row = dict(identify(run.one.name))
        row |= {"desc_id": desc, "atlas_id": run.one.atlas_name}
        missing = [
            product
            for product in wanted
            if product not in products
            and (product[0] == "regions" or product[2] == desc)
        ]
        problems = [
            p
            for p in run.problems
            if p.output.kind == "regions" or p.output.desc == desc
        ]
        there = run.of(desc)
        row["status"], row["reason"] = _judge(
            bool(there) or not descs,
            problems,
            missing,
            counts,
            # One of the whole run is only there where nothing was made since.
            outcomes.get(None) or outcomes.get(desc),
        )
        of_series = run.rank(desc)
        of_run = [*of_series, *run.outputs]
        for key in COLUMNED:  # what is known of the run holds for every series
            asked = of_run if key.of == "run" else of_series
            row[key.column] = _first_number(asked, key.name)
        if run.regions is not None:
            own_row = summaries.get(run.regions.path)
            told = own_row._asdict() if own_row is not None else {}
            # A region may be n/a in the series of one strategy only.
            row |= told | {k: v for k, v in row.items() if k in told and v is not None}
            row["regions_file"] = run.regions.path
        digest = there[0] if there else run.regions if not descs else None
        row["options_digest"] = digest.digest if digest is not None else None
        yield row


def _judge(
    there: bool,  # noqa: FBT001 - read as a sentence at its one call
    problems: list[Problem],
    missing: list[_Product],
    counts: Counter[_Product],
    outcome: Outcome | None,
) -> tuple[str, str]:
    """Status and reason of a run, atlas and strategy."""
    if outcome is not None and outcome.status in _NOT_MADE:
        used = " Outputs of an earlier call are there and are used." if there else ""
        return outcome.status, f"{outcome.reason}{used}"
    if problems:
        worst = max(problem.status for problem in problems)  # unreadable, if one is
        return worst, " ".join(problem.reason for problem in problems)
    if missing:
        words = [_say(product, counts[product]) for product in missing]
        return ("incomplete" if there else "absent"), "; ".join(words) + "."
    return "done", ""


def _say(product: _Product, n_others: int) -> str:
    kind, stat, _ = product
    what = f"no {_KINDS[kind]}" + (f" stat-{stat}" if stat else "")
    return f"{what}, which {n_others} other runs have"


def _absent_atlases(runs: Iterable[Run], seen: set[tuple[str, str]]) -> Iterator[Row]:
    """Rows for atlases that other runs of the same task and space have."""
    atlases: dict[tuple[str | None, ...], set[str]] = defaultdict(set)
    members: dict[tuple[str | None, ...], dict[str, Output]] = defaultdict(dict)
    for run in runs:
        if not run.source:
            continue
        one = run.one
        labels = [one.name.get(key) for key in SPACE_KEYS]
        family = (*one.scope, one.source_desc, *labels)
        atlases[family].add(one.atlas_name)
        members[family][run.source] = one
    for family, names in atlases.items():
        for source, one in members[family].items():
            for atlas in sorted(names):
                if (source, atlas) not in seen:
                    row: Row = dict(identify(one.name))
                    row |= {"atlas_id": atlas, "status": "absent", "source": source}
                    row["reason"] = "no outputs of this atlas, which other runs have."
                    yield row
