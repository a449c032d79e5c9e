"""Strategies side by side: ``group_strategies.tsv`` as a table and as figures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bids_roi.report.canvas import Picture, count
from bids_roi.report.facts import number
from bids_roi.report.paper import (
    BLUE,
    GREY,
    INK,
    LINE,
    SOFT,
    Panel,
    Sheet,
    fit_words,
    measure_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Row = Mapping[str, str]
    Span = tuple[float, float]


# Columns that say what a row is about, in words; the rest is what came of it.
KEYS = {
    "task_id": "Task",
    "rec_id": "Reconstruction",
    "echo_id": "Echo",
    "part_id": "Part",
    "atlas_id": "Atlas",
    "stat_id": "Measure",
    "space_id": "Space",
    "cohort_id": "Cohort",
    "res_id": "Resolution",
    "den_id": "Density",
    "hemi_id": "Hemisphere",
    "group_unit": "Unit",
    "n_participants": "Participants",
    "n_runs": "Runs",
    "n_runs_left_out": "Runs left out",
    "repetition_times": "Repetition times",
    "motion_measure": "Motion",
    "covariates": "Covariates",
    "n_permutations": "Permutations",
}

_PLACE = ("space_id", "cohort_id", "res_id", "den_id", "hemi_id")

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

_WIDTH, _TOP, _ROW, _GAP = 1120.0, 58.0, 26.0, 26.0


def rows_of(table: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Rows of a table that was read by columns."""
    return [
        dict(zip(table, cells, strict=True))
        for cells in zip(*table.values(), strict=True)
    ]


def name_strategy(row: Row) -> str:
    """Strategy of a row, by its label of ``desc-``."""
    label = row.get("desc_id", "n/a")
    return "none" if label == "n/a" else label


def split_keys(rows: Sequence[Row]) -> tuple[list[tuple[str, str]], list[str]]:
    """What all rows agree in, as ``(words, value)``, and the keys that vary."""
    same, varied = [], []
    for key, words in KEYS.items():
        values = {row.get(key, "n/a") for row in rows}
        if len(values) > 1:
            varied.append(key)
        elif values - {"n/a", "0"}:
            same.append((words, values.pop()))
    return same, varied


def key_columns(varied: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Columns of what varies: their words, and the keys that each one joins.

    A space, its resolution and the like are one: a column each would not fit a page.
    """
    places = [key for key in varied if key in _PLACE]
    others = [(KEYS[key], [key]) for key in varied if key not in _PLACE]
    return [*others, ("Space", places)] if places else others


def tell_keys(row: Row, keys: Sequence[str]) -> str:
    """One cell of what varies."""
    if len(keys) == 1:
        return row.get(keys[0], "n/a")
    cells = [(key, row.get(key, "n/a")) for key in keys]
    told = [
        cell if key == "space_id" else f"{key.removesuffix('_id')}-{cell}"
        for key, cell in cells
        if cell != "n/a"
    ]
    return " ".join(told) or "n/a"


def tabulate_strategies(rows: Sequence[Row]) -> dict[str, Any]:
    """The table for a page; what is the same in all rows stands above it.

    What tells rows of one strategy apart is beside its name: the end of a wide table is
    out of sight.
    """
    same, varied = split_keys(rows)
    keys = key_columns(varied)
    first = [key for key in keys if key[1][0].endswith("_id")]
    last = [key for key in keys if key not in first]
    shown = [r for r in _RESULTS if any(row.get(r[0], "n/a") != "n/a" for row in rows)]
    columns = [
        ("Strategy", False),
        *((words, False) for words, _ in first),
        *((words, True) for _, words, _ in shown),
        *((words, False) for words, _ in last),
    ]
    cells = [
        [
            name_strategy(row),
            *(tell_keys(row, keys) for _, keys in first),
            *(_format(row.get(column, "n/a"), form) for column, _, form in shown),
            *(tell_keys(row, keys) for _, keys in last),
        ]
        for row in rows
    ]
    return {
        "same": same,
        "columns": columns,
        "rows": cells,
        "notes": tell_reasons(rows, varied),
    }


def tell_reasons(rows: Sequence[Row], varied: Sequence[str]) -> list[tuple[str, str]]:
    """Why rows have n/a, each reason once, with the rows that it holds for, if not all.

    In a column of its own a sentence would make rows of ten lines beside numbers.
    """
    found: dict[str, dict[str, None]] = {}
    told = [keys for _, keys in key_columns(varied) if keys[0].endswith("_id")]
    for row in rows:
        if (reason := row.get("reason", "n/a")) not in ("n/a", ""):
            cells = [tell_keys(row, keys) for keys in told]
            place = " ".join([name_strategy(row), *(c for c in cells if c != "n/a")])
            found.setdefault(reason, {})[place] = None
    return [
        (reason, "" if len(places) == len(rows) else ", ".join(places))
        for reason, places in found.items()
    ]


def _format(cell: str, form: str) -> str:
    value = number(cell)
    if value is None:
        return "n/a"
    return f"{100 * value:.1f} %" if form == "%" else f"{value:{form}}"


@dataclass(frozen=True, slots=True)
class _Measure:
    """A panel of the figure: one value of each strategy.

    ``chance`` is a column or a number; ``reach`` are two columns that a bar joins;
    ``partial`` is the title of the same with covariates held constant.
    """

    column: str
    title: str
    better: str
    chance: str | float | None = None
    reach: tuple[str, str] | None = None
    factor: float = 1.0
    partial: str = ""


_PANELS = (
    _Measure(
        *("median_abs_r", "QC-FC, median |r|", "lower", "median_abs_r_chance"),
        partial="Partial |r|",
    ),
    _Measure(
        *("share_p05", "Edges p < 0.05 (%)", "lower", 0.05),
        factor=100,
        partial="Partial p < 0.05 (%)",
    ),
    _Measure(
        *("distance_rho", "Distance \N{GREEK SMALL LETTER RHO}", "nearer to 0", 0.0),
        reach=("distance_rho_low", "distance_rho_high"),
        partial="Partial \N{GREEK SMALL LETTER RHO}",
    ),
    _Measure(
        "degrees_of_freedom_mean",
        "Degrees of freedom",
        "higher",
        reach=("degrees_of_freedom_mean", "n_volumes_kept_mean"),
    ),
    _Measure("icc_median", "ICC, median", "higher", 0.0, ("icc_q25", "icc_q75")),
    _Measure("discriminability", "Discriminability", "higher", 0.5),
    _Measure(
        "identification_rate", "Identification (%)", "higher", "_chance", factor=100
    ),
)


def _hold_constant(panel: _Measure, rows: Sequence[Row]) -> _Measure:
    """The same figure with covariates held constant, where there is one.

    Permutations and intervals are of that, too.
    """
    column = f"{panel.column}_partial"
    if all(_value(row, column) is None for row in rows):
        return panel
    chance = panel.chance
    if isinstance(chance, str):
        chance = f"{column}_chance"
    return replace(panel, column=column, title=panel.partial, chance=chance)


def draw_strategies(rows: Sequence[Row]) -> Iterator[Picture]:
    """Yield a figure for each task, atlas and measure: a row per strategy."""
    _, varied = split_keys(rows)
    told = [k for k in varied if k.endswith("_id")]
    families: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        families.setdefault(tuple(row.get(k, "n/a") for k in told), []).append(row)
    for labels, own in families.items():
        about = ", ".join(
            f"{key.removesuffix('_id')}-{label}" if label.isdigit() else label
            for key, label in zip(told, labels, strict=True)
            if label != "n/a"
        )
        picture = _draw_family(own, about)
        if picture is not None:
            yield picture


def _draw_family(rows: Sequence[Row], about: str) -> Picture | None:
    panels = [
        _hold_constant(panel, rows)
        for panel in _PANELS
        if any(_value(row, panel.column) is not None for row in rows)
    ]
    if not panels:
        return None
    names = [name_strategy(row) for row in rows]
    left = min(240.0, max(measure_words(name, 12) for name in names) + 18)
    foot = _TOP + _ROW * len(rows)
    sheet = Sheet(_WIDTH, foot + 34)
    for place, name in enumerate(names):
        y = _TOP + _ROW * (place + 0.5)
        words = fit_words(name, left - 16, 12)
        sheet.text(left - 14, y + 4, words, size=12, anchor="end", hint=name)
        sheet.path(f"M{left:.0f} {y:.1f}H{_WIDTH - 12:.0f}", colour="#e9ecf0")
    wide = (_WIDTH - left - 12) / len(panels)
    for place, panel in enumerate(panels):
        box = (left + place * wide, _TOP, wide - _GAP, foot - _TOP)
        _draw_panel(sheet, box, panel, rows)
    known = any(_value(row, "distance_rho_low") is not None for row in rows)
    interval = ", that of \N{GREEK SMALL LETTER RHO} is its 95 % interval" * known
    heard = "; ".join(
        f"{name}: " + ", ".join(_hear(row, panel) for panel in panels)
        for name, row in zip(names, rows, strict=True)
    )
    return Picture(
        "strategies",
        sheet.finish(),
        ".svg",
        f"Strategies: {about}" if about else "Strategies",
        "Dots: the strategy; grey ticks: what chance gives, or 0. The bar beside the"
        " degrees of freedom ends at the volumes kept; that of the ICC holds the middle"
        f" half of the edges{interval}. A strategy is good where motion is low, and"
        " freedom and reliability are high.",
        f"{count(len(rows), 'strategy').replace('strategys', 'strategies')}. {heard}.",
    )


def _value(row: Row, column: str | float) -> float | None:
    if not isinstance(column, str):
        return column
    if column == "_chance":
        n = number(row.get("n_participants_compared", "n/a"))
        return 1 / n if n else None
    return number(row.get(column, "n/a"))


def _hear(row: Row, panel: _Measure) -> str:
    value = _value(row, panel.column)
    told = "n/a" if value is None else f"{panel.factor * value:.3g}"
    return f"{panel.title} {told}"


def _draw_panel(
    sheet: Sheet,
    box: tuple[float, float, float, float],
    measure: _Measure,
    rows: Sequence[Row],
) -> None:
    panel = Panel(sheet, box, _span(measure, rows), (len(rows), 0))
    title = fit_words(measure.title, 0.88 * (box[2] + _GAP - 8), 11)
    sheet.text(box[0], box[1] - 24, title, size=11, bold=True, hint=measure.title)
    sheet.text(box[0], box[1] - 9, f"{measure.better} is better", size=10, colour=SOFT)
    panel.axis_below(most=3)
    for place, row in enumerate(rows):
        y = float(panel.y(place + 0.5))
        chance = None if measure.chance is None else _value(row, measure.chance)
        if chance is not None:
            x = float(panel.x(measure.factor * chance))
            sheet.path(f"M{x:.1f} {y - 9:.1f}v18", colour=GREY, width=1.5)
        value = _value(row, measure.column)
        if value is None:
            x = box[0] + box[2] / 2
            sheet.text(x, y + 4, "n/a", size=10, anchor="middle", colour=SOFT)
            continue
        if measure.reach is not None:
            ends = [_value(row, column) for column in measure.reach]
            if None not in ends:
                first, last = (
                    float(panel.x(measure.factor * e)) for e in ends if e is not None
                )
                sheet.path(f"M{first:.1f} {y:.1f}H{last:.1f}", colour=LINE, width=5)
        hint = f"{name_strategy(row)}: {_hear(row, measure)}"
        if chance:
            hint += f" (by chance {measure.factor * chance:.3g})"
        x = float(panel.x(measure.factor * value))
        sheet.mark(x, y, radius=5.5, fill=BLUE, stroke=INK, hint=hint)


def _span(measure: _Measure, rows: Sequence[Row]) -> Span:
    """Ends of an axis that mean something: shares from 0 to 1, counts from 0."""
    if measure.column in ("discriminability", "identification_rate"):
        return 0.0, measure.factor
    columns = [measure.column, *(measure.reach or ())]
    if measure.chance is not None:
        columns.append(measure.chance)
    told = [_value(row, column) for row in rows for column in columns]
    values = [measure.factor * v for v in told if v is not None]
    low, high = min(0.0, *values), max(0.0, *values)
    if measure.column.startswith("distance_rho"):
        high = max(high, -low, 0.1)
        low = -high
    room = 0.08 * (high - low) or 1.0
    return (low - room if low < 0 else 0.0), high + room
