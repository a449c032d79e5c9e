"""What pages are made of: facts from the output folder, their tables, and templates.

Facts are read from the files of the output folder and from nothing else, so that a page
is the same whether one job made everything or hundreds did.

A page holds its style and its script; a policy inside it forbids everything from
elsewhere, and scripts that it does not bring along but for the data beside it. Figures
lie in frames once somebody points at them, without any right to the page.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import itertools
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.errors import BidsRoiError
from bids_roi.files.tables import read_json, read_table
from bids_roi.outputs.counts import is_whole
from bids_roi.outputs.find import Output, find_outputs, sources_of
from bids_roi.outputs.result import read_figures, report_path
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jinja2 import Environment

    from bids_roi.outputs.records import Record

    Row = Mapping[str, str]


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

log = logging.getLogger("bids_roi")

_TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def _shared() -> dict[str, Any]:
    """Style, script and the policy that allows no others."""
    style = (_TEMPLATES / "style.css").read_text("utf-8")
    script = (_TEMPLATES / "page.js").read_text("utf-8")
    policy = (
        "default-src 'none'; img-src 'self' file: data:; frame-src 'self' file:;"
        f" style-src '{_hash(style)}'; script-src 'self' file: '{_hash(script)}';"
        " base-uri 'none'; form-action 'none'"
    )
    return {
        "style": mark_safe(style),
        "script": mark_safe(script),
        "policy": policy,
        "software": f"bids_roi {__version__}",
    }


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def mark_safe(text: str) -> str:
    """Say that a text of ours is markup already, with its words escaped."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - a file of ours, or made by paper.Sheet


def render_page(template: str, content: Mapping[str, Any]) -> str:
    """Render a template with its variables, all of which are escaped."""
    return _environment().get_template(template).render(**_shared(), **content)


def attempt(name: str, write: Callable[[], None]) -> str | None:
    """Write a page; return what went wrong, as a page is never worth the tables."""
    try:
        write()
    except Exception as error:
        log.debug("page", exc_info=True)
        kind = type(error).__name__
        return f"{name} could not be written ({kind}: {error})."
    return None


# Word to sign: the form tells as much as the colour.
LIGHTS = {
    "good": "\N{BLACK CIRCLE}",
    "check": "\N{BLACK UP-POINTING TRIANGLE}",
    "failed": "\N{BLACK SQUARE}",
    "skipped": "\N{WHITE CIRCLE}",
}

_COVERAGE, _KEPT, _FD, _TSNR = 0.9, 0.5, 0.5, 20.0

RULES = (
    "a region is n/a",
    f"mean coverage is below {100 * _COVERAGE:.0f} %",
    f"less than {100 * _KEPT:.0f} % of the volumes are kept",
    f"mean framewise displacement of the kept volumes is above {_FD:g} mm",
    f"the median tSNR of the regions is below {_TSNR:g}",
    "fewer than one degree of freedom is left",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reader should think of a series at first sight."""

    light: str  # good, check, failed or skipped
    reason: str = ""  # in words; empty where it is good

    @property
    def sign(self) -> str:
        """Form of the light."""
        return LIGHTS[self.light]


def judge_series(
    sidecar: Mapping[str, Any], *, n_regions: int, n_lost: int, tsnr: float | None
) -> Verdict:
    """Judge a series by its sidecar, its regions, and their median tSNR where known."""
    reasons = []
    if n_lost:
        reasons.append(f"{n_lost} of {n_regions} regions n/a")
    coverage = sidecar.get("MeanCoverage")
    if coverage is not None and coverage < _COVERAGE:
        reasons.append(f"mean coverage {100 * coverage:.0f} %")
    volumes, kept = sidecar.get("NumberOfVolumes"), sidecar.get("NumberOfVolumesKept")
    if volumes and kept is not None and kept / volumes < _KEPT:
        reasons.append(f"only {100 * kept / volumes:.0f} % of the volumes kept")
    fd = sidecar.get(
        "MeanFramewiseDisplacementKept", sidecar.get("MeanFramewiseDisplacement")
    )
    if fd is not None and fd > _FD:
        reasons.append(f"mean framewise displacement {fd:.2f} mm")
    if tsnr is not None and tsnr < _TSNR:
        reasons.append(f"median tSNR {tsnr:.0f}")
    freedom = sidecar.get("DegreesOfFreedom")
    if freedom is not None and freedom < 1:
        reasons.append(f"{freedom:g} degrees of freedom left")
    return Verdict("check" if reasons else "good", "; ".join(reasons))


@dataclass(slots=True)
class SeriesFacts:
    """A time series and what was made of it."""

    path: str  # of the table, relative to the output folder
    sidecar: dict[str, Any]
    figures: list[dict[str, Any]]  # as the worker that drew them wrote it
    relmats: list[dict[str, Any]] = field(default_factory=list)  # sidecars

    @property
    def strategy(self) -> str:
        """Denoising strategy, or ``none``."""
        return str(self.sidecar.get("DenoisingStrategy", "none"))

    @property
    def title(self) -> str:
        """What the series is, in words."""
        what = str(self.sidecar.get("Statistic", "")).replace("_", " ")
        how = "as extracted" if self.strategy == "none" else self.strategy
        return f"{what}, {how}" if what else how


@dataclass(slots=True)
class AtlasFacts:
    """A run and atlas, by its canonical id; what cannot be read is empty."""

    name: str
    records: list[Record]  # what became of it, by strategy
    regions: dict[str, list[str]] = field(default_factory=dict)  # columns of the table
    regions_path: str = ""  # the table, relative to the output folder
    figures: list[dict[str, Any]] = field(default_factory=list)
    series: list[SeriesFacts] = field(default_factory=list)


@dataclass(slots=True)
class RunFacts:
    """A BOLD run; ``motion`` is ``(strategy, figures)`` of what no atlas changes."""

    path: str  # of the BOLD file, relative to its dataset
    name: str = ""  # as far as it differs from other runs: ses-1 task-rest run-2
    motion: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    atlases: list[AtlasFacts] = field(default_factory=list)
    of_one_side: bool = True  # maybe a hemisphere alone; a pair goes by its left file

    @property
    def entities(self) -> list[str]:
        """Parts of the file name: ``ses-1``, ``task-rest``, ``run-2`` ..."""
        return [
            part
            for part in self.key.split("_")[:-1]
            if not part.startswith("sub-")
            and part != "desc-preproc"
            and (self.of_one_side or not part.startswith("hemi-"))
        ]

    @property
    def key(self) -> str:
        """A name that can be linked to."""
        return self.path.rpartition("/")[2].partition(".")[0]


def read_runs(output_dir: Path, records: Sequence[Record]) -> list[RunFacts]:
    """Read all that is known of the runs of one participant."""
    runs: dict[str, RunFacts] = {}
    participants = sorted({record.run.partition("/")[0] for record in records})
    there = {o.path: o for p in participants if p for o in find_outputs(output_dir, p)}
    ranked = sorted(records, key=lambda record: (record.run, *record.key))
    for (path, atlas), group in itertools.groupby(ranked, lambda r: (r.run, r.atlas)):
        own = list(group)
        run = runs.setdefault(path, RunFacts(path))
        # Outputs of a pair are called by neither of its sides.
        if made := [name for record in own for name in record.outputs]:
            run.of_one_side &= all("_hemi-" in name for name in made)
        run.atlases.append(_read_atlas(there, atlas, own))
    for participant in participants:
        folder = output_dir / participant / "figures"
        for path in sorted(folder.glob("*eport_*.json")):
            content = read_figures(path)
            found = runs.get(str(content.get("Run")))
            if found is not None and "Strategy" in content and content.get("Figures"):
                found.motion.append(
                    (str(content["Strategy"]), _figures(content, participant))
                )
    shared = shared_entities(list(runs.values()))
    for run in runs.values():
        told = [p for p in run.entities if p not in shared or p.startswith("task-")]
        run.name = " ".join(told) or run.key
    return list(runs.values())


def shared_entities(runs: Sequence[RunFacts]) -> list[str]:
    """Entities that all runs have, in the order of the names."""
    known = [run.entities for run in runs if not is_whole(run.path)]
    return [part for part in known[0] if all(part in e for e in known)] if known else []


def _read_atlas(
    there: Mapping[str, Output], name: str, records: list[Record]
) -> AtlasFacts:
    """Read what the records of an atlas name, as far as it is still there."""
    facts = AtlasFacts(name, records)
    told = sorted({path for record in records for path in record.outputs})
    outputs = [there[p] for p in told if p in there and there[p].file.is_file()]
    for output in outputs:
        if output.kind == "regions":
            facts.regions_path = output.path
            facts.figures = _listed(output)
            with contextlib.suppress(BidsRoiError):
                facts.regions = read_table(output.file)
    facts.series = sorted(
        (
            SeriesFacts(o.path, load_json(o.beside), _listed(o))
            for o in outputs
            if o.kind == "timeseries"
        ),
        key=lambda s: (s.strategy != "none", s.strategy, s.path),
    )
    for output in outputs:
        if output.kind == "relmat":
            sidecar = load_json(output.beside)
            sources = sources_of(sidecar)
            for each in facts.series:
                if each.path in sources:
                    each.relmats.append(sidecar)
    return facts


def tell_run(run: RunFacts) -> list[tuple[str, str]]:
    """What a reader asks of a run first: timing and motion, as ``(words, value)``."""
    sidecar = {
        k: v for a in run.atlases for s in a.series for k, v in s.sidecar.items()
    }
    figures = [f for _, own in run.motion for f in own if f["Kind"] == "motion"]
    told = {**sidecar, **(figures[0] if figures else {})}
    seconds = told.get("SourceRepetitionTime", told.get("RepetitionTime"))
    volumes = told.get("NumberOfVolumes")
    found = []
    if seconds:
        found.append(("Repetition time", f"{seconds:g} s"))
    elif "VolumeTiming" in told:
        found.append(("Repetition time", "uneven"))
    if volumes:
        minutes = f" ({volumes * seconds / 60:.1f} min)" if seconds else ""
        found.append(("Volumes", f"{volumes}{minutes}"))
    for key, words, form in (
        ("MeanFramewiseDisplacement", "Mean FD", "{:.3f} mm"),
        ("MaxFramewiseDisplacement", "Highest FD", "{:.2f} mm"),
        ("PercentVolumesMoved", "FD above 0.2 mm", "{:.0f} %"),
        ("MeanRMSDisplacement", "Mean RMS displacement", "{:.3f} mm"),
        ("MeanStandardisedDVARS", "Mean standardised DVARS", "{:.2f}"),
        ("FDDVARSCorrelation", "FD\N{EN DASH}DVARS correlation", "{:.2f}"),
    ):
        if told.get(key) is not None:
            found.append((words, form.format(told[key])))
    return found


def tell_series(run: RunFacts) -> list[tuple[str, list[str]]]:
    """Rows on the motion that is left in each time series: atlas, and cells."""
    rows = []
    for atlas in run.atlases:
        for series in atlas.series:
            told = series.sidecar
            carpets = [f for f in series.figures if "MeanRegionalDVARS" in f]
            dvars = carpets[0]["MeanRegionalDVARS"] if carpets else []
            both = len(dvars) > 1 or (dvars and series.strategy == "none")
            kept = told.get("NumberOfVolumesKept")
            seconds = told.get("SecondsKept")
            minutes = f" ({seconds / 60:.1f} min)" if seconds else ""
            cells = [
                series.title,
                "n/a" if kept is None else f"{kept}{minutes}",
                spell_cell(dvars[0] if dvars else None, ".3f"),
                spell_cell(dvars[-1] if both else None, ".3f"),
                spell_cell(told.get("FDRegionalDVARSCorrelation"), ".2f"),
            ]
            rows.append((atlas.name, cells))
    return rows


def name_dataset(dataset: Mapping[str, Any]) -> tuple[str, str]:
    """Name of the dataset that the results are of, and where it is, as far as told.

    The description of a derivative often has its program's name; the folder around
    ``derivatives`` tells more.
    """
    name = str(dataset.get("Name", "")).removeprefix("Regional time series of ")
    links = dataset.get("DatasetLinks")
    link = str(links.get("preprocessed", "")) if isinstance(links, dict) else ""
    makers = dataset.get("GeneratedBy")
    programs = {
        str(maker.get("Name", "")).casefold()
        for maker in (makers if isinstance(makers, list) else ())
        if isinstance(maker, dict)
    }
    if name.partition(" - ")[0].strip().casefold() in programs - {""}:
        folders = link.rstrip("/").split("/")
        place = folders.index("derivatives") if "derivatives" in folders else 0
        name = folders[place - 1] if place else ""
        name = "" if name in ("", ".", "..") else name
    return name, link


def read_commands(output_dir: Path, participant: str) -> list[str]:
    """Calls that made outputs of ``sub-<label>``, without what changes no output."""
    paths = sorted((output_dir / "logs" / participant).glob("command_*.txt"))
    return [
        path.read_text(encoding="utf-8", errors="replace").strip() for path in paths
    ]


def _listed(output: Output) -> list[dict[str, Any]]:
    """List the figures of a table that are there."""
    content = read_figures(output.folder / report_path(output.path))
    return _figures(content, output.participant)


def _figures(content: Mapping[str, Any], participant: str) -> list[dict[str, Any]]:
    return [
        {**figure, "Link": f"{participant}/figures/{figure['File']}"}
        for figure in content.get("Figures", [])
    ]


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; empty where it is not there or cannot be read."""
    try:
        return read_json(path) if path.is_file() else {}
    except BidsRoiError:
        return {}


def number(text: str) -> float | None:
    """Return the number of a cell, ``None`` for ``n/a``."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def spell_cell(value: float | None, form: str) -> str:
    """Spell a number as ``form`` says, which may be ``%``; ``n/a`` for none."""
    if value is None:
        return "n/a"
    return f"{100 * value:.1f} %" if form == "%" else format(value, form)


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
