"""Names of what is written for a run and an atlas; nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_roi.io.names import format_name

if TYPE_CHECKING:
    from bids_roi.io.atlases.shelf import Atlas
    from bids_roi.io.dataset.layout import BoldRun

__all__ = ["RunOutputs", "SeriesOutput", "name_outputs", "sidecar_of"]


@dataclass(frozen=True, slots=True)
class SeriesOutput:
    """Name of one time series.

    Attributes
    ----------
    statistic
        What is computed over the voxels.
    label
        Of the denoising strategy, ``None`` for raw signals.
    path
        The TSV, relative to the output folder.
    """

    statistic: str
    label: str | None
    path: str


@dataclass(frozen=True, slots=True)
class RunOutputs:
    """Names of what is written for one run and atlas, relative to the output folder.

    Attributes
    ----------
    timeseries
        The sidecar of each has the same stem.
    regions
        TSV of the region quality table.
    outliers
        ``(label, TSV)`` pairs, one per denoising strategy; shared by all atlases.
    """

    timeseries: tuple[SeriesOutput, ...]
    regions: str
    outliers: tuple[tuple[str, str], ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """Every TSV of this atlas."""
        return (self.regions, *(series.path for series in self.timeseries))

    @property
    def all(self) -> tuple[str, ...]:
        """Every TSV and JSON."""
        outliers = (path for _, path in self.outliers)
        tables = (*self.tables, *outliers)
        return tuple(f for t in tables for f in (t, sidecar_of(t)))


def sidecar_of(name: str) -> str:
    """Name of a table's sidecar."""
    return name.removesuffix(".tsv") + ".json"


def name_outputs(
    run: BoldRun,
    atlas: Atlas,
    statistics: tuple[str, ...],
    labels: tuple[str | None, ...] = (None,),
) -> RunOutputs:
    """Name the outputs of a run and atlas.

    All entities of the source stay; ``res-`` and ``den-`` move behind the atlas's, and
    ``desc-preproc``, which says nothing more, goes.

    Parameters
    ----------
    run, atlas
        What is extracted from what.
    statistics
        Each makes a time series.
    labels
        Of the denoising strategies, for each statistic; ``None`` for raw signals.
    """
    source = dict(run.entities)
    desc = source.pop("desc", None)
    desc = None if desc == "preproc" else desc
    moved = [(key, source.pop(key, None)) for key in ("res", "den")]
    stem = [*source.items(), *atlas.entities, *moved]
    folder = run.relative_path.rpartition("/")[0]

    def path(
        suffix: str, *more: tuple[str, str | None], label: str | None = None
    ) -> str:
        last = ("desc", f"{desc or ''}{label or ''}")
        return f"{folder}/{format_name([*stem, *more, last], suffix, '.tsv')}"

    def outliers(label: str) -> str:
        kept = [*source.items(), *moved, ("desc", f"{desc or ''}{label}")]
        return f"{folder}/{format_name(kept, 'outliers', '.tsv')}"

    return RunOutputs(
        timeseries=tuple(
            SeriesOutput(
                name,
                label,
                path("timeseries", ("stat", name.replace("_", "")), label=label),
            )
            for label in labels
            for name in statistics
        ),
        regions=path("dseg"),
        outliers=tuple((label, outliers(label)) for label in labels if label),
    )
