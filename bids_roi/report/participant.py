"""The page of a participant, put together from the files of the output folder."""

from __future__ import annotations

import functools
import json
import re
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from bids_roi.files.tables import MISSING, write_file
from bids_roi.outputs.counts import is_whole
from bids_roi.outputs.find import COMBINED, find_outputs
from bids_roi.outputs.records import (
    NOT_CLEANED,
    RAW,
    leave_out_numbers,
    read_all_records,
    tell_failures,
)
from bids_roi.outputs.result import figure_path
from bids_roi.outputs.schema import KEYS
from bids_roi.report.courses import script_json
from bids_roi.report.methods import write_methods
from bids_roi.report.pages import (
    LIGHTS,
    RULES,
    Verdict,
    attempt,
    judge_series,
    load_json,
    mark_safe,
    name_dataset,
    number,
    read_commands,
    read_runs,
    render_page,
    shared_entities,
    spell_cell,
    tell_run,
    tell_series,
)
from bids_roi.report.paper import count
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bids_roi.outputs.records import Record
    from bids_roi.report.pages import AtlasFacts, RunFacts, SeriesFacts


_ROWS_IN_PAGE = 3000  # of region tables; more make pages of their own
_NO_MESH = (
    "the run lies on surfaces, and neither the participant's anat/ nor a TemplateFlow"
    " folder has an inflated or midthickness surface of its meshes"
)
_TRIES = 3
_WORST_FIRST = ("failed", "check", "skipped", "good")
_VOLUME = "Size (mm\N{SUPERSCRIPT THREE})"
# Columns of the region table: words, form, and whether they are shown unasked.
_MEASURES = (
    ("coverage", "Coverage", ".3f", True),
    ("mean", "Mean", ".5g", True),
    ("tsnr", "tSNR", ".1f", True),
    ("voxel_tsnr", "tSNR of voxels", ".1f", False),
    ("homogeneity", "Homogeneity", ".3f", False),
)
# Of the region table, for the line about the region that is chosen.
_TOLD = ("network", "x", "y", "z", "coverage", "tsnr", "status")


def write_page(output_dir: Path, participant: str) -> str | None:
    """Write the page of ``sub-<label>`` from all that is there; return what went wrong.

    Another job may finish a run of the same participant meanwhile: where the records
    have changed once the page is there, it is written again.
    """
    write = functools.partial(_write_page, output_dir, participant)
    return attempt(f"{participant}: the page", write)


def is_current(output_dir: Path, participant: str) -> bool:
    """Whether the page is whole, of this version, and no older than the records.

    Of runs that are all there as they were, it then says what it would say anew. Their
    folder counts, too: where a session is put right, its record is removed.
    """
    page = output_dir / f"{participant}.html"
    logs = output_dir / "logs" / participant
    try:
        text = page.read_text(encoding="utf-8")
        newest = max(path.stat().st_mtime_ns for path in logs.glob("*.jsonl"))
        if page.stat().st_mtime_ns < max(newest, logs.stat().st_mtime_ns):
            return False
    except (OSError, ValueError):  # not there, no text, or no records
        return False
    linked = re.findall(rf'"({re.escape(participant)}/[^"#]+\.html)"', text)
    return (
        text.rstrip().endswith("</html>")
        and f"bids_roi {__version__} " in text
        and all((output_dir / path).is_file() for path in linked)
    )


def _write_page(output_dir: Path, participant: str) -> None:
    records = read_all_records(output_dir, participant)
    for _ in range(_TRIES):
        _write_pages(output_dir, participant, records)
        earlier, records = records, read_all_records(output_dir, participant)
        if records == earlier:
            return


def _write_pages(output_dir: Path, participant: str, records: Sequence[Record]) -> None:
    """Write the page, and those of long region tables."""
    runs = read_runs(output_dir, records)
    own_pages = sum(len(a.regions.get("name", ())) for r in runs for a in r.atlases)
    names = sorted({atlas.name for run in runs for atlas in run.atlases})
    views = [_show_run(run, names, own_page=own_pages > _ROWS_IN_PAGE) for run in runs]
    for run in views:
        for atlas in run["atlases"]:
            table = atlas["table"]
            if table and table["link"]:
                content = {
                    "name": atlas["name"],
                    "run": run["path"],
                    "page": f"{participant}.html",
                    "table": table,
                }
                page = render_page("regions.html", content)
                write_file(output_dir, table["link"], page)
    dataset = load_json(output_dir / "dataset_description.json")
    summary = [row for run in runs for row in _summarise(run)]
    worst = _find_worst(summary)
    for run in views:
        run |= {"verdict": Verdict(worst[run["key"]]), "open": False}
    # One run is unfolded: the first with a picture of the atlas, problems first.
    ranked = sorted(views, key=lambda run: run["verdict"].light == "good")
    seen = [run for run in ranked if any(a["figures"] for a in run["atlases"])]
    for run in (seen or ranked)[:1]:
        run["open"] = True
    content = {
        "participant": participant,
        "dataset": name_dataset(dataset),
        "subtitle": _subtitle(runs, names) + _tell_combined(output_dir, participant),
        "counts": _count(worst),
        "problems": _find_problems(runs),
        "summary": summary,
        "several": len(names) > 1,
        "rules": RULES,
        "runs": views,
        "methods": _methods(output_dir, dataset, runs, names),
        "parameters": _parameters(runs),
        "commands": read_commands(output_dir, participant),
    }
    page = render_page("participant.html", content)
    write_file(output_dir, f"{participant}.html", page)


def _subtitle(runs: Sequence[RunFacts], names: Sequence[str]) -> str:
    known = [name for name in names if name != MISSING]
    text = count(sum(not is_whole(run.path) for run in runs), "run")
    if shared := shared_entities(runs):
        text += f" ({', '.join(shared)})"
    return f"{text}, {'atlas' if len(known) == 1 else 'atlases'} {', '.join(known)}"


def _tell_combined(output_dir: Path, participant: str) -> str:
    found = find_outputs(output_dir, participant)
    counts = {
        "over its runs": sum(output.kind == COMBINED for output in found),
        "of conditions": sum(o.kind == "relmat" and o.told.of_tables for o in found),
    }
    return "".join(
        f"; {n} matri{'x' if n == 1 else 'ces'} {words}"
        for words, n in counts.items()
        if n
    )


def _find_worst(summary: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Light of the worst series of each run, by its key."""
    lights: dict[str, set[str]] = {}
    for row in summary:
        lights.setdefault(row["key"], set()).add(row["verdict"].light)
    return {k: next(w for w in _WORST_FIRST if w in own) for k, own in lights.items()}


def _count(worst: Mapping[str, str]) -> list[tuple[Verdict, str]]:
    """How many runs there are of each verdict: that of the worst of their series."""
    counts = Counter(worst.values())
    return [(Verdict(n), count(counts[n], "run")) for n in LIGHTS if counts[n]]


def _find_problems(runs: Sequence[RunFacts]) -> list[dict[str, str]]:
    """Errors first, then warnings, each text once with all places it holds for.

    Warnings that differ in numbers only are one: that of the first place.
    """
    found: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    firsts: dict[str, str] = {}
    others: set[str] = set()
    for run in runs:
        for atlas in run.atlases:
            where = (run.name, atlas.name)
            found_here: dict[tuple[str, str, str], None] = {}
            cleaned = any(r.strategy not in ("", RAW) for r in atlas.records)
            for text in tell_failures(atlas.records):
                found_here["failed", "failed", text] = None
            for record in atlas.records:
                if record.status == "skipped":
                    found_here["skipped", "skipped", record.reason] = None
                for warning in record.warnings:
                    if cleaned and warning == NOT_CLEANED:
                        continue  # the cleaned ones lie beside it
                    first = firsts.setdefault(leave_out_numbers(warning), warning)
                    if first != warning:
                        others.add(first)
                    found_here["check", "warning", first] = None
            for key in found_here:
                found.setdefault(key, []).append(where)
    rank = {"failed": 0, "skipped": 1, "check": 2}
    return [
        {
            "light": light,
            "sign": LIGHTS[light],
            "word": word,
            "text": f"{text} (Of the first; others differ in the numbers.)"
            if text in others
            else text,
            "where": _join_places(places, len(runs)),
        }
        for (light, word, text), places in sorted(
            found.items(), key=lambda item: rank[item[0][0]]
        )
    ]


def _join_places(places: Sequence[tuple[str, str]], n_runs: int) -> str:
    """Name runs and atlases, in short where there are many."""
    runs = list(dict.fromkeys(run for run, _ in places))
    atlases = ", ".join(dict.fromkeys(atlas for _, atlas in places))
    where = f"all {n_runs} runs" if len(runs) == n_runs > 1 else "; ".join(runs)
    return f"{where} (atlas {atlases})" if atlases != MISSING else where


def _summarise(run: RunFacts) -> list[dict[str, Any]]:
    """Rows of the summary: one per series, or one that tells why there is none."""
    rows = []
    for atlas in run.atlases:
        common = {"key": run.key, "run": run.name, "atlas": atlas.name}
        # One row where one thing holds for all strategies.
        whole = len({(r.status, r.reason) for r in atlas.records}) == 1
        whole &= atlas.records[0].status in ("failed", "skipped")
        for record in atlas.records[:1] if whole else atlas.records:
            own = [each for each in atlas.series if each.path in record.outputs]
            if record.status not in ("failed", "skipped") and own:
                rows += [{**common, **_row(atlas, record, each)} for each in own]
                continue
            light = record.status if record.status in LIGHTS else "check"
            reason = record.reason or "its tables are not here"
            keys = ("kept", "fd", "fd_kept", "coverage", "lost", "tsnr", "freedom")
            blank = dict.fromkeys(keys, MISSING)
            series = MISSING if whole else record.strategy or MISSING
            verdict = Verdict(light, reason)
            rows.append({**common, **blank, "series": series, "verdict": verdict})
    return rows


def _row(atlas: AtlasFacts, record: Record, series: SeriesFacts) -> dict[str, Any]:
    sidecar, regions = series.sidecar, atlas.regions
    words = regions.get("status", [])
    n_lost = sum(word != "ok" for word in words) if words else record.n_lost
    n_lost = sidecar.get("NumberOfRegionsLost", n_lost)  # of this series
    n_regions = len(words) or record.n_regions
    levels = [v for v in map(number, regions.get("tsnr", ())) if v is not None]
    tsnr = statistics.median(levels) if levels else None
    total = sidecar.get("NumberOfVolumes")
    kept = sidecar.get("NumberOfVolumesKept", total)
    coverage = sidecar.get("MeanCoverage", record.coverage)
    return {
        "series": series.title,
        "verdict": judge_series(sidecar, n_regions=n_regions, n_lost=n_lost, tsnr=tsnr),
        "kept": f"{kept} of {total}" if total else MISSING,
        "fd": spell_cell(sidecar.get("MeanFramewiseDisplacement"), ".3f"),
        "fd_kept": spell_cell(sidecar.get("MeanFramewiseDisplacementKept"), ".3f"),
        "coverage": f"{100 * coverage:.1f} %",
        "lost": f"{n_lost} of {n_regions}",
        "tsnr": spell_cell(tsnr, ".0f"),
        "freedom": spell_cell(sidecar.get("DegreesOfFreedom"), ".4g"),
    }


def _show_run(run: RunFacts, names: Sequence[str], *, own_page: bool) -> dict[str, Any]:
    drawn = [(strategy, f) for strategy, figures in run.motion for f in figures]
    motion = [[p for p in drawn if p[1]["Kind"] == k] for k in ("motion", "design")]
    return {
        "key": run.key,
        "name": run.name,
        "path": run.path,
        "facts": tell_run(run),
        "told": tell_series(run),
        "motion": [shown for shown in motion if shown],
        "atlases": [
            _show_atlas(run, atlas, names.index(atlas.name), own_page=own_page)
            for atlas in run.atlases
        ],
    }


def _show_atlas(
    run: RunFacts, atlas: AtlasFacts, position: int, *, own_page: bool
) -> dict[str, Any]:
    key = f"{run.key}-{position}"
    reasons = [(Verdict("failed"), text) for text in tell_failures(atlas.records)]
    skipped = [r.reason for r in atlas.records if r.status == "skipped"]
    reasons += [(Verdict("skipped"), text) for text in dict.fromkeys(skipped)]
    # What was cleaned first: its figures show the signals before, too.
    cleaned = any(each.strategy != "none" for each in atlas.series)
    ranked = sorted(atlas.series, key=lambda each: each.strategy == "none")
    carpets = [
        {
            "key": f"{key}-{number}",
            "title": each.title,
            "path": each.path,
            "figures": [f for f in each.figures if f["Kind"] == "carpet"],
            "folded": cleaned and each.strategy == "none",
        }
        for number, each in enumerate(ranked)
    ]
    # Matrices of one measure beside each other, in the order of the series.
    matrices: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for each in atlas.series:
        for figure in each.figures:
            if figure["Kind"] == "relmat":
                matrices.setdefault(figure["Title"], []).append((each.title, figure))
    rows = list(matrices.values())
    if len(atlas.series) == 1:  # nothing to compare: measures beside each other
        rows = [[pair for row in rows for pair in row]] if rows else []
    return {
        "key": key,
        "name": atlas.name,
        "reasons": reasons,
        "figures": atlas.figures,
        "no_mesh": _NO_MESH
        if "structure" in atlas.regions and not atlas.figures
        else "",
        "carpets": carpets,
        "matrices": rows,
        "picker": _offer_regions(atlas),
        "table": _region_table(run, atlas, key, own_page=own_page),
        "parameters": [(each.title, _describe(each.sidecar)) for each in atlas.series],
    }


def _offer_regions(atlas: AtlasFacts) -> dict[str, Any] | None:
    """What the picker of a page needs: where the series are, and facts of regions."""
    offered = [
        (each, figure)
        for each in atlas.series
        for figure in each.figures
        if figure["Kind"] == "signals"
    ]
    if not offered:
        return None
    sources = [
        {
            "key": figure["Key"],
            "source": figure["Link"],
            "statistic": str(each.sidecar.get("Statistic", "")).replace("_", " "),
            "strategy": each.strategy,
        }
        for each, figure in offered
    ]
    told = {name: atlas.regions[name] for name in _TOLD if name in atlas.regions}
    return {
        "facts": mark_safe(script_json({"series": sources, "regions": told})),
        "caption": max((figure["Caption"] for _, figure in offered), key=len),
        "tables": [(each.title, each.path) for each, _ in offered],
    }


def _region_table(
    run: RunFacts, atlas: AtlasFacts, key: str, *, own_page: bool
) -> dict[str, Any] | None:
    """Rows of the region table as they are shown."""
    regions = atlas.regions
    if not regions.get("name"):
        return None
    blank = [MISSING] * len(regions["name"])
    words = [word.replace("_", " ") for word in regions.get("status", blank)]
    volumes = [number(v) for v in regions.get("volume", blank)]
    whole = sum(v for v in volumes if v is not None)
    shares = [None if v is None or whole == 0 else 100 * v / whole for v in volumes]
    columns: list[tuple[str, bool, list[str]]] = [
        ("Value", True, regions.get("index", blank)),
        ("Name", False, regions["name"]),
        ("Status", False, words),
    ]
    if "network" in regions:
        columns.append(("Network", False, regions["network"]))
    columns += [
        (_VOLUME, True, [spell_cell(v, ".0f") for v in volumes]),
        ("Size (%)", True, [spell_cell(v, ".2f") for v in shares]),
        ("Voxels used", True, regions.get("n_voxels_used", blank)),
        ("Voxels in grid", True, regions.get("n_voxels_grid", blank)),
    ]
    for column, title, form, always in _MEASURES:
        if always or column in regions:
            cells = [spell_cell(number(v), form) for v in regions.get(column, blank)]
            columns.append((title, True, cells))
    rows = zip(*(cells for _, _, cells in columns), strict=True)
    return {
        "key": f"regions-{key}",
        "caption": f"Regions of {atlas.name} in {run.name}.",
        "columns": [(name, numeric) for name, numeric, _ in columns],
        "rows": [(cells[2] != "ok", cells) for cells in rows],
        "file": atlas.regions_path.rpartition("/")[2],
        "link": figure_path(atlas.regions_path, "regions", ".html") if own_page else "",
    }


def _describe(sidecar: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (key, _text(value))
        for key, value in sidecar.items()
        if key not in KEYS or KEYS[key].role != "text"
    ]


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _parameters(runs: Sequence[RunFacts]) -> list[tuple[str, str]]:
    """Choices of all series; several values where they differ."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for atlas in run.atlases:
            for series in atlas.series:
                for key, value in series.sidecar.items():
                    if key not in KEYS or KEYS[key].role == "choice":
                        found.setdefault(key, {})[_text(value)] = None
    return [(key, "; ".join(values)) for key, values in sorted(found.items())]


def _methods(
    output_dir: Path,
    dataset: Mapping[str, Any],
    runs: Sequence[RunFacts],
    names: Sequence[str],
) -> Any:  # noqa: ANN401 - Methods
    atlases = [a for run in runs for a in run.atlases if a.series]
    sizes = {a.name: max(r.n_regions for r in a.records) for a in atlases}
    described = {}
    for name in names:
        if name in sizes:
            label = name.partition("_")[0].removeprefix("atlas-")
            path = output_dir / f"atlas-{label}_description.json"
            described[name] = load_json(path)
    return write_methods(
        dataset,
        described,
        ((s.strategy, s.sidecar) for a in atlases for s in a.series),
        (sidecar for a in atlases for s in a.series for sidecar in s.relmats),
        sizes,
    )
