"""The page of the group, from the group tables; whatever is absent is left out."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bids_roi.core.group.edges import list_edges
from bids_roi.core.group.motion import edge_lengths, usable_centres
from bids_roi.errors import BidsRoiError
from bids_roi.files.matrices import read_keyed_matrix, read_matrix
from bids_roi.files.names import parse_name
from bids_roi.files.tables import read_table, write_file
from bids_roi.outputs.counts import SIZED, say_size
from bids_roi.outputs.find import list_group_files, name_run
from bids_roi.report.group_figures import (
    LEAST_RUNS,
    draw_coverage_table,
    draw_qcfc,
    draw_strategies,
    draw_strips,
)
from bids_roi.report.matrix import draw_relmat, find_limit
from bids_roi.report.pages import (
    KEYS,
    attempt,
    key_columns,
    load_json,
    mark_safe,
    name_dataset,
    name_strategy,
    number,
    render_page,
    rows_of,
    spell_cell,
    split_keys,
    tell_keys,
    tell_reasons,
)
from bids_roi.report.raster import order_regions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.report.pages import Row
    from bids_roi.report.paper import Figure

    FloatArray = NDArray[np.float64]
    Kind = Literal["share", "count", "amount"]
    Column = tuple[str, bool, Callable[[Row], str]]  # words, numeric, cell of a row


GROUP_PAGE = "group.html"

_GOOD = {"done", "complete"}
_MOST = 500  # rows of a list in the page
_TABLES = (
    ("Motion in connectivity (QC-FC)", "group_qcfc.tsv"),
    ("Reliability over runs", "group_reliability.tsv"),
)


# Column, words of its header, percent or digits after the point.
_RESULTS: tuple[tuple[str, str, str], ...] = (
    ("median_abs_r", "QC-FC median |r|", ".3f"),
    ("median_abs_r_chance", "|r| by chance", ".3f"),
    ("share_p05", "Edges p < 0.05", "%"),
    ("share_fdr", "Edges FDR < 0.05", "%"),
    ("distance_rho", "Distance \N{GREEK SMALL LETTER RHO}", ".3f"),
    ("median_abs_r_partial", "Partial |r|", ".3f"),
    ("median_abs_r_partial_chance", "by chance", ".3f"),
    ("distance_rho_partial", "Partial \N{GREEK SMALL LETTER RHO}", ".3f"),
    ("median_abs_r_p", "p of |r|", ".4f"),
    ("distance_rho_p", "p of \N{GREEK SMALL LETTER RHO}", ".4f"),
    ("distance_rho_low", "\N{GREEK SMALL LETTER RHO}, 95 % from", ".3f"),
    ("distance_rho_high", "to", ".3f"),
    ("n_volumes_kept_mean", "Volumes kept", ".1f"),
    ("degrees_of_freedom_mean", "Degrees of freedom", ".1f"),
    ("degrees_of_freedom_lost_mean", "Freedom lost", ".1f"),
    ("icc_median", "ICC median", ".3f"),
    ("icc_mean_median", "ICC of all runs", ".3f"),
    ("discriminability", "Discrimi\N{SOFT HYPHEN}nability", ".3f"),
    ("identification_rate", "Identifi\N{SOFT HYPHEN}cation", "%"),
)


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of ``group_runs.tsv`` in words, and on which side it is bad."""

    column: str
    words: str
    high_is_bad: bool
    kind: Kind = "amount"


MEASURES = (
    Measure("fd_mean", "Mean FD, all (mm)", high_is_bad=True),
    Measure("fd_mean_kept", "Mean FD, kept (mm)", high_is_bad=True),
    Measure("n_volumes_kept", "Volumes kept", high_is_bad=False, kind="count"),
    Measure("longest_gap", "Longest gap (volumes)", high_is_bad=True, kind="count"),
    Measure("degrees_of_freedom", "Degrees of freedom", high_is_bad=False),
    Measure("effective_degrees_of_freedom", "Effective ones", high_is_bad=False),
    Measure("coverage_mean", "Mean coverage", high_is_bad=False, kind="share"),
    Measure("n_regions_lost", "Regions lost", high_is_bad=True, kind="count"),
    Measure("tsnr_median", "Median tSNR", high_is_bad=False),
)


def write_group(output_dir: Path, command: str = "") -> str | None:
    """Write the page of the group; return what went wrong. ``command`` is on it."""
    write = functools.partial(write_group_page, output_dir, command)
    return attempt("the page of the group", write)


def write_group_page(output_dir: Path, command: str = "") -> None:
    """Write the page of the group and its figures, from the group tables."""
    runs = _read(output_dir / "group_runs.tsv")
    pages = {path.name for path in output_dir.glob("*.html")}
    strips, places = list_strips(runs), _list_places(runs, pages)
    # As seen from the folder of the figure.
    links = [place["link"] and f"../{place['link']}" for place in places]
    quality = draw_strips(strips, [place["run"] for place in places], links)
    strategies = rows_of(_read(output_dir / "group_strategies.tsv"))
    tables = {*runs.get("regions_file", ())} - {"n/a"}
    regions = [output_dir / name for name in sorted(tables, key=lambda n: n.split("/"))]
    connectivity = _show_connectivity(output_dir, regions)
    dataset = load_json(output_dir / "dataset_description.json")
    people = sorted(set(runs.get("participant_id", ())))
    content = {
        "dataset": name_dataset(dataset),
        "commands": [command] if command else [],
        "size": say_size(rows_of({k: runs[k] for k in SIZED if k in runs})),
        "people": [(p, page if (page := f"{p}.html") in pages else "") for p in people],
        "strategies": tabulate_strategies(strategies) if strategies else None,
        "strategy_figures": [
            figure
            for place, picture in enumerate(draw_strategies(strategies), start=1)
            for figure in _save(output_dir, picture, f"group_strategies-{place}")
        ],
        "problems": _list_problems(places, runs),
        "outliers": _list_outliers(places, strips),
        "least_runs": LEAST_RUNS,
        "quality": _save(output_dir, quality, "group_quality"),
        "sections": [
            (title, key, parts)
            for title, key, parts in (
                ("Coverage", "coverage", _show_coverage(output_dir, regions)),
                ("Connectivity", "connectivity", connectivity),
            )
            if parts
        ],
        "tables": [
            (title, name, _tabulate(_read(output_dir / name)))
            for title, name in _TABLES
            if (output_dir / name).is_file()
        ],
        "most": _MOST,
    }
    write_file(output_dir, GROUP_PAGE, render_page("group.html", content))


def _read(path: Path) -> dict[str, list[str]]:
    with contextlib.suppress(BidsRoiError):
        return read_table(path) if path.is_file() else {}
    return {}


def _list_tables(output_dir: Path, ending: str) -> list[Path]:
    """Group tables of one kind; those of other releases may lie beside them."""
    names = list_group_files(output_dir)
    return [output_dir / name for name in names if name.endswith(ending)]


def _tabulate(table: dict[str, list[str]]) -> dict[str, Any]:
    """A table for the page: strategy and results first, what is the same above it."""
    rows = rows_of(table)
    same, varied = split_keys(rows)
    results = [
        name
        for name, cells in table.items()
        if name not in (*KEYS, "desc_id", "reason") and set(cells) != {"n/a"}
    ]
    if len(rows) > 1:
        alike = [name for name in results if len(set(table[name])) == 1]
        same = same + [(n.replace("_", " "), _cell(rows[0], n)) for n in alike]
        results = [name for name in results if name not in alike]
    columns: list[Column] = [("strategy", False, name_strategy)]
    columns += [
        (n.replace("_", " "), True, functools.partial(_cell, column=n)) for n in results
    ]
    return _lay_out(rows, [*columns, *_columns_of_keys(varied)], same, varied)


def tabulate_strategies(rows: Sequence[Row]) -> dict[str, Any]:
    """The table of strategies; what is the same in all rows stands above it.

    What tells rows of one strategy apart is beside its name: the end of a wide table is
    out of sight.
    """
    same, varied = split_keys(rows)
    first = _columns_of_keys([key for key in varied if key.endswith("_id")])
    last = _columns_of_keys([key for key in varied if not key.endswith("_id")])
    shown: list[Column] = [
        (words, True, functools.partial(_cell, column=c, form=f))
        for c, words, f in _RESULTS
        if any(row.get(c, "n/a") != "n/a" for row in rows)
    ]
    strategy: Column = ("Strategy", False, name_strategy)
    return _lay_out(rows, [strategy, *first, *shown, *last], same, varied)


def _columns_of_keys(varied: Sequence[str]) -> list[Column]:
    return [
        (words, False, functools.partial(tell_keys, keys=keys))
        for words, keys in key_columns(varied)
    ]


def _lay_out(
    rows: Sequence[Row],
    columns: Sequence[Column],
    same: Sequence[tuple[str, str]],
    varied: Sequence[str],
) -> dict[str, Any]:
    return {
        "same": same,
        "columns": [(words, numeric) for words, numeric, _ in columns],
        "rows": [[tell(row) for _, _, tell in columns] for row in rows],
        "notes": tell_reasons(rows, varied),
    }


def _cell(row: Row, column: str, form: str = "") -> str:
    """Cell of a row as ``form`` says; otherwise in three digits, if a number."""
    cell = row.get(column, "n/a")
    value = number(cell)
    if form:
        return spell_cell(value, form)
    return cell if value is None or value == int(value) else f"{value:.3g}"


def _save(output_dir: Path, picture: Figure | None, name: str) -> list[dict[str, Any]]:
    """Write a figure; nothing where there is none."""
    if picture is None:
        return []
    path = f"figures/{name}{picture.extension}"
    write_file(output_dir, path, picture.content)
    # Dots lead to pages, from the file and from the page that holds the same drawing.
    inside = picture.content.replace(b'href="../', b'href="').decode()
    drawing = mark_safe(inside.replace(' role="img"', "", 1))
    return [picture.tell(Link=path, Drawing=drawing)]


def _column(table: dict[str, list[str]], name: str) -> FloatArray:
    values = [number(cell) for cell in table.get(name, ())]
    return np.array([np.nan if v is None else v for v in values])


def _list_outliers(
    places: Sequence[dict[str, str]], strips: Sequence[Strip]
) -> list[dict[str, Any]]:
    return [
        {
            **places[strip.rows[each]],
            "what": strip.measure.words,
            "series": strip.label,
            "value": f"{strip.values[each]:.4g}",
            "limit": f"{'above' if strip.measure.high_is_bad else 'below'}"
            f" {strip.limit:.4g}",
        }
        for strip in strips
        for each in np.flatnonzero(strip.outlying)
    ]


def _list_problems(
    places: Sequence[dict[str, str]], runs: dict[str, list[str]]
) -> list[dict[str, Any]]:
    unknown = ["n/a"] * len(places)
    return [
        {
            **places[row],
            "atlas": runs.get("atlas_id", unknown)[row],
            "strategy": name_strategy({"desc_id": runs["desc_id"][row]})
            if "desc_id" in runs
            else "",
            "status": status,
            "light": status if status in ("failed", "skipped") else "check",
            "reason": runs.get("reason", unknown)[row],
        }
        for row, status in enumerate(runs.get("status", ()))
        if status not in _GOOD
    ]


def _list_places(
    runs: dict[str, list[str]], pages: Collection[str]
) -> list[dict[str, str]]:
    """Name of the run of each row, and where its participant's page speaks of it."""
    people = runs.get("participant_id", [])
    keys = [
        "" if source == "n/a" else source.rpartition("/")[2].partition(".")[0]
        for source in runs.get("source", [""] * len(people))
    ]
    short = {key: name_run(parse_name(key)) or key for key in set(keys) if key}
    taken = Counter(short.values())
    return [
        {
            # In two spaces, a run has two sources.
            "run": (short[key] if taken[short[key]] == 1 else key) if key else person,
            "link": f"{page}#{key}" if (page := f"{person}.html") in pages else "",
        }
        for person, key in zip(people, keys, strict=True)
    ]


def _show_coverage(output_dir: Path, tables: Sequence[Path]) -> list[dict[str, Any]]:
    found = []
    paths = _list_tables(output_dir, "_coverage.tsv")
    for path, title in zip(paths, _tell_apart(paths), strict=True):
        # The sidecar describes the keys; the other columns are the regions, and one
        # that is called like a key has more to its name.
        try:
            keys, columns, values = read_keyed_matrix(
                path, load_json(path.with_suffix(".json"))
            )
        except BidsRoiError:
            continue
        names = [
            c.removesuffix("_region") if c.removesuffix("_region") in keys else c
            for c in columns
        ]
        if not np.isfinite(values).any():
            continue
        order = order_regions(len(names), _places(tables, names).get("network"))
        picture = draw_coverage_table(values, _name_rows(keys), order)
        figures = _save(output_dir, picture, path.stem)
        means = np.nanmean(values, axis=0)
        worst = int(np.nanargmin(means))
        text = f"Least covered on average: {names[worst]}, {100 * means[worst]:.0f} %."
        found.append({"title": title, "figures": figures, "text": text})
    return found


def _name_rows(keys: dict[str, list[str]]) -> list[str]:
    """Runs as far as they differ: ``sub-01 run-2``."""
    varied = [k for k in keys if k == "participant_id" or len(set(keys[k])) > 1]
    prefixes = [
        "" if k in ("participant_id", "session_id") else f"{k.removesuffix('_id')}-"
        for k in varied
    ]
    return [
        " ".join(
            prefix + cell
            for prefix, cell in zip(prefixes, cells, strict=True)
            if cell != "n/a"
        )
        for cells in zip(*(keys[k] for k in varied), strict=True)
    ]


def _tell_apart(paths: Sequence[Path]) -> list[str]:
    """Titles of group tables of one kind: the entities that not all of them share."""
    names = [dict(parse_name(p.name.removeprefix("group_")).entities) for p in paths]
    keys = dict.fromkeys(key for name in names for key in name)
    varied = [k for k in keys if len({name.get(k) for name in names}) > 1]
    if "desc" in varied and any("desc" not in name for name in names):
        names = [{"desc": "none", **name} for name in names]
    found = []
    for name in names:
        told = [name[k] for k in ("desc", *varied) if k in name and k in varied]
        found.append(", ".join(dict.fromkeys(told)) or name.get("atlas", "all runs"))
    return found


def _show_connectivity(
    output_dir: Path, tables: Sequence[Path]
) -> list[dict[str, Any]]:
    found = []
    paths = _list_tables(output_dir, "_relmat.tsv")
    limits = _find_limits(paths)
    for path, title in zip(paths, _tell_apart(paths), strict=True):
        with contextlib.suppress(BidsRoiError):
            names, values = read_matrix(path, nodes=True)
            sidecar = load_json(path.with_suffix(".json"))
            regions = _places(tables, names)
            figures = []
            other = path.with_name(path.name.replace("_relmat.tsv", "_qcfc.tsv"))
            if other.is_file():
                _, correlations = read_matrix(other, nodes=True)
                drawn = draw_qcfc(correlations, _distances(regions))
                figures += _save(output_dir, drawn, other.stem)
            picture = draw_relmat(
                values,
                order_regions(len(names), regions.get("network")),
                measure="Mean connectivity",
                strategy=title if len(paths) > 1 else "",
                limit=limits[parse_name(path).get("stat")],
                names=names,
            )
            figures += _save(output_dir, picture, path.stem)
            text = " ".join(_say(sidecar))
            found.append({"title": title, "figures": figures, "text": text})
    return found


def _find_limits(paths: Sequence[Path]) -> dict[str | None, float]:
    """Where the colours of each measure end, the same for all strategies."""
    limits: dict[str | None, float] = {}
    for path in paths:
        with contextlib.suppress(BidsRoiError):
            # One after the other: a hundred of a thousand regions would take 0.8 GB.
            own = find_limit([read_matrix(path, nodes=True)[1]])
            stat = parse_name(path).get("stat")
            limits[stat] = max(own, limits.get(stat, 0.0))
    return limits


def _say(sidecar: dict[str, Any]) -> list[str]:
    """What a group matrix is of, what it is not of, and what to mind."""
    text = [sidecar.get("Description", "")]
    left_out = sidecar.get("RunsLeftOut", ())
    if left_out:
        text.append(
            f"{len(left_out)} runs are left out, for their matrix is n/a throughout"
            " (see above, or group_runs.tsv)."
        )
    return [*text, *(f"Warning: {note}" for note in sidecar.get("Warnings", ()))]


def _places(tables: Sequence[Path], names: Sequence[str]) -> dict[str, list[str]]:
    """Networks and centres of regions, from the first region table that has them."""
    for path in tables:
        table = _read(path)
        if tuple(table.get("name", ())) == tuple(names):
            return table
    return {}


def _distances(regions: dict[str, list[str]]) -> FloatArray | None:
    """Between the centres that lie in their regions, mm; others have none, (R, R)."""
    if not {"x", "y", "z", "centre_offset"} <= set(regions):
        return None
    centres = np.stack([_column(regions, axis) for axis in "xyz"], axis=1)
    centres = usable_centres(centres, _column(regions, "centre_offset"))
    edges = list_edges(len(centres), diagonal=False)
    return edges.fill(edge_lengths(centres, edges))


@dataclass(frozen=True, slots=True)
class Strip:
    """One measure of all runs; of one atlas or strategy where it differs by these."""

    measure: Measure
    label: str
    rows: NDArray[np.intp]  # (N,), of group_runs.tsv, one for each run
    values: FloatArray  # (N,), known ones only
    outlying: NDArray[np.bool_]  # (N,), beyond the limit, on the bad side
    limit: float


def find_outliers(
    values: FloatArray, *, high_is_bad: bool
) -> tuple[NDArray[np.bool_], float]:
    """Mark values far outside the others, on the bad side only, and the limit.

    Beyond one and a half times the range between the quartiles (Tukey 1977), which is
    taken for a twentieth of the median at least: where most runs are alike, one volume
    less is no news. The limit is NaN for fewer than ten values; NaN is no outlier.
    """
    known = values[np.isfinite(values)]
    if known.size < LEAST_RUNS:
        return np.zeros(values.shape, dtype=bool), float("nan")
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    reach = 1.5 * max(high - low, abs(middle) / 20)
    limit = float(high + reach if high_is_bad else low - reach)
    with np.errstate(invalid="ignore"):
        return (values > limit if high_is_bad else values < limit), limit


def list_strips(runs: Mapping[str, Sequence[str]]) -> list[Strip]:
    """Strips of all measures that are known of some run.

    A measure has one strip, where each run has one value of it whatever the atlas and
    the strategy; else one for each strategy, or atlas, or both.
    """
    found = []
    n_rows = len(runs.get("participant_id", ()))
    for measure in MEASURES:
        told = [number(cell) for cell in runs.get(measure.column, ())]
        values = np.array([np.nan if v is None else v for v in told])
        if not np.isfinite(values).any():
            continue
        for label, rows in _split(runs, values, n_rows):
            own = values[rows]
            outlying, limit = find_outliers(own, high_is_bad=measure.high_is_bad)
            found.append(Strip(measure, label, rows, own, outlying, limit))
    return found


def _split(
    runs: Mapping[str, Sequence[str]], values: FloatArray, n_rows: int
) -> list[tuple[str, NDArray[np.intp]]]:
    """Rows of each strip: by as little as makes the value of a run one value."""
    sources = [
        str(row) if source == "n/a" else source
        for row, source in enumerate(runs.get("source", ["n/a"] * n_rows))
    ]
    known = np.flatnonzero(np.isfinite(values)).tolist()
    strips: dict[tuple[str, ...], dict[str, int]] = {}
    for keys in ((), ("desc_id",), ("atlas_id",), ("atlas_id", "desc_id")):
        strips = {}
        one = True
        for row in known:
            key = tuple(runs[k][row] for k in keys if k in runs)
            first = strips.setdefault(key, {}).setdefault(sources[row], row)
            one &= values[first] == values[row]
        if one:
            break
    # Strategies that do the same to this measure share a strip.
    alike: dict[tuple[object, ...], tuple[list[tuple[str, ...]], list[int]]] = {}
    for key, own in strips.items():
        told = (*key[:-1], *((source, values[row]) for source, row in own.items()))
        alike.setdefault(told, ([], [*own.values()]))[0].append(key)
    return [
        (_label(keys), np.array(rows, dtype=np.intp)) for keys, rows in alike.values()
    ]


def _label(keys: Sequence[tuple[str, ...]]) -> str:
    """Atlas and strategy, or strategies: ``none, 24P and 3 others``.

    >>> _label([("n/a",)]), _label([("A", "24P"), ("A", "36P")])
    ('none', 'A, 24P, 36P')
    """
    shared, last = keys[0][:-1], [key[-1] for key in keys if key]
    names = ["none" if name == "n/a" else name for name in last]
    if len(names) > 3:
        names = [names[0], f"{names[1]} and {len(names) - 2} others"]
    return ", ".join((*shared, *names))
