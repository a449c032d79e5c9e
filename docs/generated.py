"""Fills in the parts of the pages that are made from the code, when they are built.

A page says where: a line ``<!-- generated: NAME -->``, where NAME is a key of
``TABLES``. So what the pages say of options, columns, strategies and atlases is what
the code says; there is no copy that could go out of date.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import textwrap
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from bids_roi import errors, tools
from bids_roi.atlases import names
from bids_roi.atlases.names import SHORT_NAMES
from bids_roi.atlases.templateflow import list_skeleton, scan_names
from bids_roi.confounds.strategies import list_strategies, load_strategy
from bids_roi.core.quality import STATUS
from bids_roi.descriptor import build_descriptor
from bids_roi.group import runs as group_runs
from bids_roi.group import summaries as group_summaries
from bids_roi.options.table import OPTIONS
from bids_roi.options.words import MEASURES, STATISTICS
from bids_roi.outputs.result import OUTLIER_COLUMNS, REGION_COLUMNS, describe_columns
from bids_roi.outputs.schema import FACTS, KEYS, Of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bids_roi.confounds.strategies import Component
    from bids_roi.options.row import Option
    from bids_roi.options.settings import Settings

__all__ = ["TABLES", "fill_in", "on_page_content", "on_page_markdown"]

_ROOT = Path(__file__).parents[1]
_LONG_CODE = re.compile(r"(?<=<td><code>)\w{28,}(?=</code>)")
_MARKER = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Do as MkDocs asks, for each page."""
    return fill_in(markdown)


def on_page_content(html: str, **_: object) -> str:
    """Let long names in tables break behind their underscores, as MkDocs asks."""
    return _LONG_CODE.sub(lambda match: match[0].replace("_", "_<wbr>"), html)


def fill_in(markdown: str) -> str:
    """Put the generated parts where the markers are."""
    return _MARKER.sub(lambda match: TABLES[match[1]](), markdown)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "&#124;") for cell in line) + " |"
        for line in lines
    )


def _code(text: object) -> str:
    return f"`{text}`"


def _escaped(text: str) -> str:
    """Text in which `code` and --flags are code, and nothing else is Markdown."""
    parts = re.split(r"(`[^`]*`|(?<![\w-])--[a-z][a-z-]*)", text)
    parts[::2] = [re.sub(r"([*_<>\[\]])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [_code(part.strip("`")) for part in parts[1::2]]
    return "".join(parts)


def _notebook() -> str:
    """The example notebook as it was run, docs/notebook.py has made it."""
    path = _ROOT / "docs" / "examples" / "regions.ipynb"
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append(cell["source"])
            continue
        parts.append(f"```python\n{cell['source']}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            rich = data.get("image/svg+xml") or data.get("text/html")
            if rich:
                parts.append(f'<div class="output">\n{_without_blanks(rich)}\n</div>')
            else:
                parts.append(f"```text\n{data['text/plain']}\n```")
    return "\n\n".join(parts)


def _without_blanks(html: str) -> str:
    """HTML without blank lines, behind which Markdown would begin again."""
    return re.sub(r"\s*\n\s*", "\n", html).strip()


def _options() -> str:
    parts = []
    for group, options in groupby(OPTIONS, key=lambda option: option.group):
        header = ("option", "what it does", "default", "in the sidecar")
        columns = zip(header, *map(_option_row, options), strict=True)
        header, *rows = zip(*(c for c in columns if any(c[1:])), strict=True)
        parts.append(f"## {group.capitalize()}\n\n{_table(header, rows)}")
    return "\n\n".join(parts)


def _option_row(option: Option) -> tuple[str, ...]:
    value = option.metavar or "|".join(option.choices)
    shown = _code(f"{option.flags[0]} {value}".strip())
    if option.choices and not option.metavar:
        choices = "<br>".join(map(_code, option.choices))
        shown = f"{_code(option.flags[0])}<br>{choices}"
    if option.many:
        shown += "<br>one or more"
    others = [f for f in option.flags[1:] if f != option.flags[0].replace("-", "_")]
    others = [flag for flag in others if "_" not in flag]
    text = _escaped(option.help)
    if others:
        text += f" Also {', '.join(map(_code, others))}."
    default = option.default
    if isinstance(default, tuple):
        default = " ".join(default)
    off = {None: "", "": "", False: "off"}
    default = off.get(default, _code(default))
    sidecar = _code(option.sidecar) if option.sidecar else ""
    return shown, text, default, sidecar


def _tools() -> str:
    parser = tools.build_parser()
    (action,) = (
        a for a in parser._actions if isinstance(a, argparse._SubParsersAction)
    )
    parts = []
    for tool in action._choices_actions:
        parts.append(f"### bids_roi_tools {tool.dest}\n\n{_sentence(tool.help)}")
        rows = [
            (
                _code(" ".join(filter(None, (_flags(a), a.metavar or "")))),
                _sentence(a.help),
            )
            for a in action.choices[tool.dest]._actions
            if a.dest != "help"
        ]
        parts.append(_table(("argument", "what it is"), rows))
    return "\n\n".join(parts)


def _flags(action: argparse.Action) -> str:
    if action.option_strings:
        return ", ".join(action.option_strings)
    return "" if action.metavar else action.dest


def _sentence(text: str | None) -> str:
    text = _escaped(text or "")
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def _exit_codes() -> str:
    codes = build_descriptor()["error-codes"]
    rows = [(entry["code"], _escaped(entry["description"])) for entry in codes]
    rows += [
        (74, "Input or output error: standard output closed, or a disk that fails."),
        (130, "Interrupted (Ctrl-C); the same command goes on."),
        (
            143,
            "Terminated (SIGTERM, as at a job's walltime); the same command goes on.",
        ),
    ]
    return _table(
        ("exit code", "meaning"), [(0, "All runs done."), *dict(rows).items()]
    )


def _columns(*groups: dict[str, str]) -> str:
    rows = [(_code(k), _escaped(v)) for group in groups for k, v in group.items()]
    return _table(("column", "meaning"), rows)


def _region_columns() -> str:
    shown = describe_columns(REGION_COLUMNS)
    shown["status"] = "ok, or why the column is n/a: see below."
    return _columns(shown)


def _status() -> str:
    rows = [(_code(word), text) for word, text in STATUS.items()]
    return _table(("status", "meaning"), rows)


def _facts() -> str:
    rows = [(_code(key.column), _code(key.name), key.unit) for key in FACTS]
    return _table(("column", "key of the sidecar", "unit"), rows)


def _statistics(of: str, option: str) -> str:
    rows = [
        (_code(s.name), _code(f"stat-{s.stat}"), s.definition)
        for s in STATISTICS
        if s.of == of
    ]
    return _table((_code(option), "in file names", "definition"), rows)


def _measures() -> str:
    rows = []
    for measure in MEASURES:
        words = (measure.stat(), measure.stat(fisher_z=True))
        shown = "<br>".join(_code(f"stat-{word}") for word in dict.fromkeys(words))
        rows.append((_code(measure.name), shown, measure.definition, measure.source))
    header = ("`--relmat`", "in file names; with `--fisher-z`", "definition", "source")
    return _table(header, rows)


def _sidecar_keys() -> str:
    order = {of: number for number, of in enumerate(get_args(Of))}
    words = {"relmat": "matrices", "series regions matrices": "all of a run"}
    rows = []
    for key in sorted(KEYS.values(), key=lambda key: order[key.of]):
        outputs = " ".join(words.get(output, output) for output in key.outputs)
        where = words.get(outputs, outputs.replace(" ", ", "))
        meaning = f"{_escaped(key.text)} {key.more}".strip()
        rows.append((_code(key.name), where, key.unit, meaning))
    return _table(("key", "in the sidecars of", "unit", "meaning"), rows)


def _strategies() -> str:
    rows = []
    for name in list_strategies():
        strategy = load_strategy(name)
        columns = "<br>".join(_component(part) for part in strategy.components)
        rows.append(
            (
                f"{_code(name)}<br>desc-{strategy.label}",
                columns,
                "<br>".join(_settings(strategy.settings)),
                _escaped(strategy.description),
            )
        )
    return _table(("name, in file names", "regressors", "settings", "what it is"), rows)


def _settings(settings: Settings) -> list[str]:
    """What a preset does beside the regression, in short."""
    said = ["detrend"] if settings.detrend else []
    if settings.fd_threshold is not None:
        said.append(f"FD > {settings.fd_threshold:g} mm")
    if settings.std_dvars_threshold is not None:
        said.append(f"std DVARS > {settings.std_dvars_threshold:g}")
    if settings.scrub:
        said.append(f"stretches < {settings.scrub}")
    return said


def _component(part: Component) -> str:
    counted = f" ({part.n_components} per mask)" if part.n_components else ""
    if part.variance_explained:
        counted = f" ({100 * part.variance_explained:g} % of variance)"
    return f"{_code(part)}{counted}"


def _literal(module: str, language: str = "text") -> Callable[[], str]:
    """Show the literal block of a module's docstring."""

    def show() -> str:
        doc = inspect.getdoc(importlib.import_module(module)) or ""
        _, _, rest = doc.partition("::\n\n")
        lines = rest.split("\n")
        inside = [line for line in lines if not line or line.startswith(" ")]
        n_lines = next(
            (n for n, line in enumerate(lines) if line and not line.startswith(" ")),
            len(inside),
        )
        block = textwrap.dedent("\n".join(lines[:n_lines])).strip("\n")
        return f"```{language}\n{block}\n```"

    return show


def _short_names() -> str:
    rows = [(_code(short), _code(name)) for short, name in SHORT_NAMES.items()]
    rows += [
        ("`schaefer400`, `schaefer400x17` ...", "`Schaefer2018_seg-7n_scale-400` ..."),
        ("`difumo64` ... `difumo1024`", "`DiFuMo_scale-64` ..."),
        ("`4s156` ... (of an `--atlas-dataset`)", "`4S_scale-156` ..."),
    ]
    return _table(("short", "canonical"), rows)


def _atlases() -> str:
    held = scan_names(sorted(list_skeleton()))
    rows = []
    by_atlas = sorted(held, key=lambda h: (h.kind == "surface", h.space, h.key.label))
    for (surface, space, label), images in groupby(
        by_atlas, key=lambda h: (h.kind == "surface", h.space, h.key.label)
    ):
        found = list(images)
        kinds = {"dseg": "labels", "probseg": "maps", "surface": "surfaces"}
        flat = "flat map: listed only"
        kind = ", ".join(
            dict.fromkeys(kinds[h.kind] if h.is_usable else flat for h in found)
        )
        variants = [h.key.name.removeprefix(label).lstrip("_") for h in found]
        rows.append((space, _code(label), kind, _variants(variants), surface))
    return _table(("template", "atlas", "kind", "variants"), [row[:-1] for row in rows])


def _variants(names: Iterable[str]) -> str:
    unique = sorted(filter(None, dict.fromkeys(names)), key=_natural)
    shown = unique if len(unique) <= 8 else [*unique[:3], "...", *unique[-2:]]
    return " ".join(name if name == "..." else _code(name) for name in shown)


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part or 0), "") if part.isdigit() else (0, part)
            for part in re.split(r"(\d+)", text)]  # fmt: skip


def _citations() -> str:
    rows = []
    for label, known in sorted(names._citations().items()):
        links = ", ".join(
            f"[{r['Key']}](https://doi.org/{r['DOI']})" for r in known["References"]
        )
        rows.append(
            (_code(label), _escaped(known["Name"]), _plain_licence(known), links)
        )
    return _table(("label", "name", "licence", "cite"), rows)


def _plain_licence(known: dict[str, Any]) -> str:
    return _escaped(known["License"].partition(" (http")[0])


def _errors() -> str:
    return _literal(errors.__name__)()


def _changelog() -> str:
    path = _ROOT / "CHANGELOG.md"
    if not path.is_file():
        return "No release yet."
    _, _, body = path.read_text(encoding="utf-8").partition("\n")
    return body


TABLES: dict[str, Callable[[], str]] = {
    "notebook": _notebook,
    "options": _options,
    "tools": _tools,
    "exit-codes": _exit_codes,
    "errors": _errors,
    "region-columns": _region_columns,
    "status": _status,
    "outlier-columns": lambda: _columns(describe_columns(OUTLIER_COLUMNS)),
    "run-columns": lambda: _columns(group_runs._COLUMNS),
    "qcfc-columns": lambda: _columns(
        group_summaries._KEY_TEXTS, group_summaries._MOTION_TEXTS
    ),
    "reliability-columns": lambda: _columns(group_summaries._RELIABILITY_TEXTS),
    "strategy-columns": lambda: _columns(group_summaries._STRATEGY_TEXTS),
    "facts": _facts,
    "statistics": lambda: _statistics("labels", "--statistic"),
    "map-statistics": lambda: _statistics("maps", "--map-statistic"),
    "measures": _measures,
    "sidecar-keys": _sidecar_keys,
    "stack-layout": _literal("bids_roi.outputs.stack"),
    "events": _literal("bids_roi.participant.progress"),
    "strategies": _strategies,
    "strategy-format": _literal("bids_roi.confounds.strategies"),
    "short-names": _short_names,
    "atlases": _atlases,
    "citations": _citations,
    "changelog": _changelog,
}
