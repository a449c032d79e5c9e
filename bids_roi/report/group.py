"""The page of the group, from the group tables; whatever is absent is left out."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.group.edges import list_edges
from bids_roi.core.group.motion import edge_lengths, usable_centres
from bids_roi.errors import BidsRoiError
from bids_roi.files.matrices import read_matrix
from bids_roi.files.names import format_name, parse_name
from bids_roi.files.tables import read_table
from bids_roi.files.writing import write_file
from bids_roi.outputs.find import find_outputs, list_group_files
from bids_roi.report.canvas import drawing, measure_image
from bids_roi.report.facts import load_json, number
from bids_roi.report.group_figures import (
    draw_coverage_table,
    draw_distributions,
    draw_qcfc,
    find_outliers,
)
from bids_roi.report.matrix import draw_relmat
from bids_roi.report.order import order_regions
from bids_roi.report.pages import attempt, render_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.report.canvas import Picture


GROUP_PAGE = "group.html"

# Column of group_runs.tsv, words, whether high is bad.
_MEASURES = (
    ("fd_mean", "Mean FD, all (mm)", True),
    ("fd_mean_kept", "Mean FD, kept (mm)", True),
    ("n_volumes_kept", "Volumes kept", False),
    ("coverage_mean", "Mean coverage", False),
    ("n_regions_lost", "Regions lost", True),
    ("tsnr_median", "Median tSNR", False),
    ("degrees_of_freedom", "Degrees of freedom", False),
    ("effective_degrees_of_freedom", "Effective ones", False),
    ("longest_gap", "Longest gap (volumes)", True),
)
_GOOD = {"done", "complete"}
_MOST = 500  # rows of a list in the page


def write_group(output_dir: Path) -> str | None:
    """Write the page of the group; return what went wrong."""
    write = functools.partial(write_group_page, output_dir)
    return attempt("the page of the group", write)


def write_group_page(output_dir: Path) -> None:
    """Write the page of the group and its figures, from the group tables."""
    runs = _read(output_dir / "group_runs.tsv")
    with drawing(output_dir):
        sections = [
            *_show_quality(output_dir, runs),
            *_show_coverage(output_dir),
            *_show_connectivity(output_dir),
        ]
    dataset = load_json(output_dir / "dataset_description.json")
    people = sorted(set(runs.get("participant_id", ())))
    content = {
        "dataset": dataset.get("Name", "Regional time series"),
        "n_runs": len(set(runs.get("source", ()))),
        "people": [
            (p, f"{p}.html" if (output_dir / f"{p}.html").is_file() else "")
            for p in people
        ],
        "problems": _list_problems(output_dir, runs),
        "outliers": _list_outliers(output_dir, runs),
        "sections": sections,
        "tables": [
            (title, _rows(_read(output_dir / name)))
            for title, name in (
                ("Motion in connectivity (QC-FC)", "group_qcfc.tsv"),
                ("Reliability over runs", "group_reliability.tsv"),
            )
            if (output_dir / name).is_file()
        ],
        "most": _MOST,
    }
    write_file(output_dir, GROUP_PAGE, render_page("group.html", content))


def _read(path: Path) -> dict[str, list[str]]:
    with contextlib.suppress(BidsRoiError):
        return read_table(path) if path.is_file() else {}
    return {}


def _tables(output_dir: Path, ending: str) -> list[Path]:
    """Group tables of one kind; those of other releases may lie beside them."""
    names = list_group_files(output_dir)
    return [output_dir / name for name in names if name.endswith(ending)]


def _rows(table: dict[str, list[str]]) -> dict[str, Any]:
    used = {k: v for k, v in table.items() if any(cell != "n/a" for cell in v)}
    shown = []
    for cells in zip(*used.values(), strict=True):
        values = [number(cell) for cell in cells]
        shown.append(
            [
                cell if v is None or v == int(v) else f"{v:.3g}"
                for cell, v in zip(cells, values, strict=True)
            ]
        )
    return {"columns": [name.replace("_", " ") for name in used], "rows": shown}


def _save(output_dir: Path, picture: Picture | None, name: str) -> list[dict[str, Any]]:
    """Write a figure; nothing where there is none."""
    if picture is None:
        return []
    path = f"figures/{name}{picture.extension}"
    write_file(output_dir, path, picture.content)
    return [
        {
            "Kind": picture.kind,
            "Link": path,
            "Title": picture.title,
            "Caption": picture.caption,
            "Alternative": picture.alt,
            "Size": measure_image(picture.content, picture.extension),
        }
    ]


def _column(table: dict[str, list[str]], name: str) -> NDArray[np.float64]:
    values = [number(cell) for cell in table.get(name, ())]
    return np.array([np.nan if v is None else v for v in values])


def _show_quality(output_dir: Path, runs: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Distributions, one figure per atlas and desc."""
    found = []
    for title, key, part in _parts(runs):
        picture = draw_distributions(
            [
                (words, _column(part, column), bad)
                for column, words, bad in _MEASURES
                if column in part
            ]
        )
        figures = _save(output_dir, picture, f"group_{key}desc-quality_runs")
        if figures:
            found.append({"title": f"Quality: {title}", "figures": figures, "text": ""})
    return found


def _parts(
    runs: dict[str, list[str]],
) -> list[tuple[str, str, dict[str, list[str]]]]:
    """Rows of one atlas and way of cleaning: title, piece of a name, columns."""
    keys = [k for k in ("space_id", "atlas_id", "desc_id") if k in runs]
    groups: dict[tuple[str, ...], list[int]] = {}
    for row, label in enumerate(zip(*(runs[k] for k in keys), strict=True)):
        groups.setdefault(label, []).append(row)
    found = []
    for label, rows in sorted(groups.items()):
        told = [(k, v) for k, v in zip(keys, label, strict=True) if v != "n/a"]
        title = ", ".join(v for k, v in told if k != "space_id") or "all runs"
        safe = "".join(
            f"{'strategy' if k == 'desc_id' else k.removesuffix('_id')}-"
            f"{''.join(c for c in v if c.isalnum() or c == '+')}_"
            for k, v in told
        )
        part = {k: [column[row] for row in rows] for k, column in runs.items()}
        found.append((title, safe, part))
    return found


def _list_outliers(
    output_dir: Path, runs: dict[str, list[str]]
) -> list[dict[str, Any]]:
    rows = []
    for title, _, part in _parts(runs):
        for column, words, bad in _MEASURES:
            values = _column(part, column)
            outlying, limit = find_outliers(values, high_is_bad=bad)
            rows += [
                {
                    **_place(output_dir, part, row),
                    "what": words,
                    "series": title,
                    "value": f"{values[row]:.4g}",
                    "limit": f"{'above' if bad else 'below'} {limit:.4g}",
                }
                for row in np.flatnonzero(outlying).tolist()
            ]
    return rows


def _list_problems(
    output_dir: Path, runs: dict[str, list[str]]
) -> list[dict[str, Any]]:
    return [
        {
            **_place(output_dir, runs, row),
            "atlas": runs.get("atlas_id", ["n/a"] * (row + 1))[row],
            "status": status,
            "light": status if status in ("failed", "skipped") else "check",
            "reason": runs.get("reason", ["n/a"] * (row + 1))[row],
        }
        for row, status in enumerate(runs.get("status", ()))
        if status not in _GOOD
    ]


def _place(output_dir: Path, table: dict[str, list[str]], row: int) -> dict[str, str]:
    """Name of a run, and where its participant's page speaks of it."""
    person = table["participant_id"][row]
    source = table.get("source", [""] * (row + 1))[row]
    key = source.rpartition("/")[2].partition(".")[0]
    page = f"{person}.html"
    link = f"{page}#{key}" if (output_dir / page).is_file() else ""
    return {"run": key or person, "link": link}


def _show_coverage(output_dir: Path) -> list[dict[str, Any]]:
    found = []
    for path in _tables(output_dir, "_coverage.tsv"):
        table = _read(path)
        atlas = _atlas_table(output_dir, path)
        names = [name for name in atlas.get("name", ()) if name in table]
        if not names:
            continue
        values = np.stack([_column(table, name) for name in names], axis=1)
        if not np.isfinite(values).any():
            continue
        picture = draw_coverage_table(values, _row_names(table, set(names)))
        figures = _save(output_dir, picture, path.stem)
        worst = names[picture.facts["WorstRegion"]]
        mean = float(np.nanmean(values[:, picture.facts["WorstRegion"]]))
        text = f"Least covered on average: {worst}, {100 * mean:.0f} %."
        title = f"Coverage: {_title(path)}"
        found.append({"title": title, "figures": figures, "text": text})
    return found


def _row_names(table: dict[str, list[str]], regions: set[str]) -> list[str]:
    keys = [k for k in table if k not in regions]
    varied = [k for k in keys if k == "participant_id" or len(set(table[k])) > 1]
    return [
        " ".join(cell for cell in cells if cell != "n/a")
        for cells in zip(*(table[k] for k in varied), strict=True)
    ]


def _atlas_table(output_dir: Path, path: Path) -> dict[str, list[str]]:
    """Region table of the atlas that a group table is of."""
    entities = parse_name(path.name.removeprefix("group_")).entities
    wanted = [(k, v) for k, v in entities if k in ("atlas", "seg", "scale")]
    return _read(output_dir / format_name(wanted, "dseg", ".tsv"))


def _title(path: Path) -> str:
    parts = path.name.removeprefix("group_").split("_")[:-1]
    return ", ".join(p for p in parts if not p.startswith(("space-", "res-")))


def _show_connectivity(output_dir: Path) -> list[dict[str, Any]]:
    found = []
    tables = [o.file for o in find_outputs(output_dir) if o.kind == "regions"]
    for path in _tables(output_dir, "_relmat.tsv"):
        with contextlib.suppress(BidsRoiError):
            names, values = _read_square(path)
            sidecar = load_json(path.with_suffix(".json"))
            regions = _places(tables, names)
            picture = draw_relmat(
                values,
                order_regions(len(names), regions.get("network")),
                measure="Mean connectivity",
            )
            figures = _save(output_dir, picture, path.stem)
            other = path.with_name(path.name.replace("_relmat.tsv", "_qcfc.tsv"))
            if other.is_file():
                _, correlations = _read_square(other)
                drawn = draw_qcfc(correlations, _distances(regions))
                figures += _save(output_dir, drawn, other.stem)
            found.append(
                {
                    "title": f"Connectivity: {_title(path)}",
                    "figures": figures,
                    "text": " ".join(_say(sidecar)),
                }
            )
    return found


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


def _read_square(path: Path) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    return read_matrix(path, nodes=True)


def _places(tables: Sequence[Path], names: Sequence[str]) -> dict[str, list[str]]:
    """Networks and centres of regions, from the first region table that has them."""
    for path in tables:
        table = _read(path)
        if tuple(table.get("name", ())) == tuple(names):
            return table
    return {}


def _distances(regions: dict[str, list[str]]) -> NDArray[np.float64] | None:
    """Between the centres that lie in their regions, mm; others have none, (R, R)."""
    if not {"x", "y", "z", "centre_offset"} <= set(regions):
        return None
    centres = np.stack([_column(regions, axis) for axis in "xyz"], axis=1)
    centres = usable_centres(centres, _column(regions, "centre_offset"))
    edges = list_edges(len(centres), diagonal=False)
    return edges.fill(edge_lengths(centres, edges))
