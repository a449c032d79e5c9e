"""Names of what is written for a run and an atlas; nothing is written here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bids_roi.errors import BidsRoiError
from bids_roi.files.names import format_name, sort_entities
from bids_roi.files.tables import read_json
from bids_roi.options.words import find_measure, find_statistic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from bids_roi.atlases.open import Atlas
    from bids_roi.dataset.layout import BoldRun


_DESC = re.compile(r"_desc-([A-Za-z0-9]+)_([A-Za-z0-9]+)$")


def figure_path(table: str, kind: str, extension: str) -> str:
    """Name a figure after the table that it shows; both relative to the output folder.

    >>> figure_path("sub-1/ses-2/func/sub-1_ses-2_atlas-A_dseg.tsv", "contours", ".svg")
    'sub-1/figures/sub-1_ses-2_atlas-A_desc-contours_dseg.svg'
    >>> figure_path("sub-1/func/sub-1_desc-36P_timeseries.tsv", "carpet", ".svg")
    'sub-1/figures/sub-1_desc-36PCarpet_timeseries.svg'
    """
    stem = table.rpartition("/")[2].removesuffix(".tsv")
    found = _DESC.search(stem)
    if found:
        whole = f"{found[1]}{kind[0].upper()}{kind[1:]}"
        stem = f"{stem[: found.start()]}_desc-{whole}_{found[2]}"
    else:
        head, _, suffix = stem.rpartition("_")
        stem = f"{head}_desc-{kind}_{suffix}"
    return f"{table.partition('/')[0]}/figures/{stem}{extension}"


def report_path(table: str) -> str:
    """Name the list of the figures of a table."""
    return figure_path(table, "report", ".json")


def motion_table(run: BoldRun) -> str:
    """Name of what the motion figures of a run without cleaning are made from."""
    stem = run.relative_path.partition(".")[0]
    return stem.replace("_desc-preproc_", "_") + ".tsv"


def read_figures(listed: Path) -> dict[str, Any]:
    """Read a list of figures; empty where it is absent or damaged."""
    try:
        content = read_json(listed)
    except BidsRoiError:
        return {}
    figures = content.get("Figures")
    texts = ("File", "Kind", "Title", "Caption", "Alternative")
    sound = isinstance(figures, list) and all(
        isinstance(figure, dict) and all(isinstance(figure.get(t), str) for t in texts)
        for figure in figures
    )
    return content if sound else {}


def has_figures(output_dir: Path, tables: Iterable[str]) -> bool:
    """Tell whether the figures of all tables were drawn and are still there."""
    for table in tables:
        listed = output_dir / report_path(table)
        figures = read_figures(listed).get("Figures")
        if figures is None:
            return False
        if not all((listed.parent / figure["File"]).is_file() for figure in figures):
            return False
    return True


@dataclass(frozen=True, slots=True)
class SeriesOutput:
    """Name of one time series.

    ``label`` is that of the denoising strategy, ``None`` for raw signals; ``path`` the
    TSV, relative to the output folder.
    """

    statistic: str
    label: str | None
    path: str


@dataclass(frozen=True, slots=True)
class RelmatOutput:
    """Name of one connectivity matrix.

    ``source`` is the time series that it is of, and ``statistic`` what that is over the
    voxels; ``source`` and ``path`` are relative to the output folder.
    """

    measure: str
    fisher_z: bool
    label: str | None
    statistic: str
    source: str
    path: str


@dataclass(frozen=True, slots=True)
class RunOutputs:
    """Names of what is written for one run and atlas, relative to the output folder.

    ``outliers`` are pairs of label and TSV, shared by all atlases; ``relmats`` are
    those of the first statistic, for each denoising strategy.
    """

    timeseries: tuple[SeriesOutput, ...]
    regions: str
    outliers: tuple[tuple[str, str], ...] = ()
    relmats: tuple[RelmatOutput, ...] = ()

    @property
    def labels(self) -> tuple[str | None, ...]:
        """Strategies that there are series of; ``None`` for raw signals."""
        return tuple(dict.fromkeys(series.label for series in self.timeseries))

    def only(self, labels: Collection[str | None]) -> RunOutputs:
        """Leave the outputs of some strategies, and the region table."""
        return RunOutputs(
            timeseries=tuple(s for s in self.timeseries if s.label in labels),
            regions=self.regions,
            outliers=tuple(pair for pair in self.outliers if pair[0] in labels),
            relmats=tuple(r for r in self.relmats if r.label in labels),
        )

    @property
    def tables(self) -> tuple[str, ...]:
        """Every TSV of this atlas."""
        series = (series.path for series in self.timeseries)
        return (self.regions, *series, *(relmat.path for relmat in self.relmats))

    @property
    def all(self) -> tuple[str, ...]:
        """Every TSV and JSON."""
        outliers = (path for _, path in self.outliers)
        tables = (*self.tables, *outliers)
        return tuple(f for t in tables for f in (t, sidecar_of(t)))


def parcellated_of(table: str) -> str:
    """Name of a series or matrix as a CIFTI file; XCP-D's spelling.

    >>> parcellated_of("sub-1_stat-pearsoncorrelation_relmat.tsv")
    'sub-1_stat-pearsoncorrelation_boldmap.pconn.nii'
    """
    if table.endswith("_relmat.tsv"):
        return table.removesuffix("_relmat.tsv") + "_boldmap.pconn.nii"
    return table.removesuffix(".tsv") + ".ptseries.nii"


def sidecar_of(name: str) -> str:
    """Name of a table's sidecar."""
    return name.removesuffix(".tsv") + ".json"


def name_outputs(
    run: BoldRun,
    atlas: Atlas,
    statistics: tuple[str, ...],
    labels: tuple[str | None, ...] = (None,),
    *,
    relmats: tuple[str, ...] = (),
    fisher_z: bool = False,
) -> RunOutputs:
    """Name the outputs of a run and atlas.

    All entities of the source stay, in the order of the schema, whatever theirs was;
    ``desc-preproc``, which says nothing more, goes. ``labels`` are those of the
    strategies, ``None`` for raw signals; each makes a series per statistic and a matrix
    per measure.
    """
    source = dict(run.entities)
    desc = source.pop("desc", None)
    desc = None if desc == "preproc" else desc
    folder = run.relative_path.rpartition("/")[0]

    def path(
        suffix: str, *more: tuple[str, str | None], label: str | None = None
    ) -> str:
        last = ("desc", f"{desc or ''}{label or ''}")
        entities = sort_entities([*source.items(), *more, last])
        return f"{folder}/{format_name(entities, suffix, '.tsv')}"

    of = atlas.entities

    timeseries = tuple(
        SeriesOutput(
            name,
            label,
            path("timeseries", *of, ("stat", find_statistic(name).stat), label=label),
        )
        for label in labels
        for name in statistics
    )
    firsts = {series.label: series for series in reversed(timeseries)}
    return RunOutputs(
        timeseries=timeseries,
        relmats=tuple(
            RelmatOutput(
                measure.name,
                fisher_z and measure.is_correlation,
                label,
                firsts[label].statistic,
                firsts[label].path,
                path(
                    "relmat",
                    *of,
                    ("stat", measure.stat(fisher_z=fisher_z)),
                    label=label,
                ),
            )
            for label in labels
            for measure in map(find_measure, relmats)
        ),
        regions=path("dseg", *of),
        outliers=tuple(
            (label, path("outliers", label=label)) for label in labels if label
        ),
    )
