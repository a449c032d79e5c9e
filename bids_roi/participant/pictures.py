"""From what a worker holds of a run to the figures of its report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.atlases.regions import networks_of
from bids_roi.core.grid import same_grid
from bids_roi.core.mapping import strongest_map
from bids_roi.core.mean_image import MeanImage
from bids_roi.errors import BidsRoiError
from bids_roi.files.names import parse_name
from bids_roi.images.nifti import read_volume
from bids_roi.options.words import find_measure
from bids_roi.outputs.names import has_figures
from bids_roi.participant.extraction import mask_on_grid
from bids_roi.report.draw import (
    AtlasPictures,
    MotionPictures,
    RunPictures,
    SeriesPictures,
    draw_run,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bids_roi.dataset.layout import BoldRun
    from bids_roi.outputs.names import RunOutputs, SeriesOutput
    from bids_roi.participant.cleaning import Preparation
    from bids_roi.participant.results import AtlasResult, Job, Motion


log = logging.getLogger("bids_roi")


class Sketch:
    """Collects what the figures of a run need, and draws them atlas by atlas.

    A figure that cannot be drawn costs a note, never the run.

    Parameters
    ----------
    job
        The run and what is asked for.

    Attributes
    ----------
    mean
        To be fed with the run's volumes; ``None`` where a reference image is there.
    notes
        What could not be drawn, and why.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.notes: list[str] = []
        self._background = "reference image of the run"
        self._reference = _read_reference(job)
        self._brain: NDArray[np.bool_] | None = None
        image = job.image
        self.mean = None
        if self._reference is None:
            self.mean = MeanImage(image.source.n_volumes, image.grid.n_voxels)

    def draw_atlas(
        self,
        result: AtlasResult,
        preparations: Mapping[str, Preparation],
    ) -> None:
        """Draw one atlas, its series and its matrices."""
        atlas, quality = result.atlas, result.quality
        pictures = AtlasPictures(
            name=atlas.name,
            source=result.names.regions,
            rows=strongest_map(result.mapped.weights),
            names=atlas.regions.name,
            networks=networks_of(atlas.regions),
            coverage=quality.coverage,
            lost=~quality.usable,
            series=tuple(
                _show_series(result, series, preparations)
                for series in result.names.timeseries
            ),
        )
        self._draw(atlases=(pictures,))

    def draw_motion(
        self,
        motion: Motion,
        outliers: Mapping[str, str],
        preparations: Mapping[str, Preparation],
    ) -> None:
        """Draw what is the same for all atlases; ``outliers`` are tables by label."""
        chosen = [
            (label, source, preparations[label]) for label, source in outliers.items()
        ]
        shown = [
            MotionPictures(
                source,
                label,
                motion.fd,
                motion.std_dvars,
                kept=preparation.censoring.sample_mask,
                dummy=preparation.censoring.dummy,
                fd_threshold=preparation.strategy.settings.fd_threshold,
                dvars_threshold=preparation.strategy.settings.std_dvars_threshold,
                design=preparation.selected.regressors[
                    preparation.censoring.sample_mask
                ],
                columns=preparation.selected.names,
            )
            for label, source, preparation in chosen
        ]
        if not shown:
            source = _bold_table(self.job.planned.run)
            shown = [MotionPictures(source, None, motion.fd, motion.std_dvars)]
        self._draw(motion=tuple(shown))

    def _draw(
        self,
        *,
        motion: tuple[MotionPictures, ...] = (),
        atlases: tuple[AtlasPictures, ...] = (),
    ) -> None:
        job = self.job
        try:
            background = self._finish()
            pictures = RunPictures(
                run=job.planned.run.relative_path,
                grid=job.image.grid,
                mean=background,
                background=self._background,
                brain=self._brain,
                repetition_time=job.planned.repetition_time,
                minimum_coverage=job.options.min_coverage,
                motion=motion,
                atlases=atlases,
            )
            draw_run(pictures, job.output_dir)
        except Exception as error:
            log.debug("figures", exc_info=True)
            note = f"figures could not be drawn ({type(error).__name__}: {error})."
            if note not in self.notes:
                self.notes.append(note)

    def _finish(self) -> NDArray[np.floating]:
        """Return the mean image; with the mask once the pass over the run is done."""
        job = self.job
        if self._reference is None and self.mean is not None:
            self._reference = self.mean.finish((job.image.slope, job.image.intercept))
            self._background = f"mean of {self.mean.n_taken} volumes of the run"
            self.mean = None
        if self._brain is None and job.planned.mask_path is not None:
            self._brain = mask_on_grid(job.planned.mask_path, job.image.grid)
        if self._reference is None:
            return np.zeros(job.image.grid.n_voxels, dtype=np.float32)
        return self._reference


def _read_reference(job: Job) -> NDArray[np.floating] | None:
    """Read the reference image beside a run, where there is one on its grid."""
    run = job.planned.run
    entities = tuple((k, v) for k, v in run.entities if k != "desc")
    for path in sorted(run.path.parent.glob("*_boldref.nii.gz")):
        if parse_name(path).entities != entities or not path.is_file():
            continue
        try:
            values, grid = read_volume(path)
        except BidsRoiError:
            return None
        if same_grid(grid, job.image.grid):
            return np.asarray(values.ravel(order="F"), dtype=np.float32)
    return None


def _show_series(
    result: AtlasResult, series: SeriesOutput, preparations: Mapping[str, Preparation]
) -> SeriesPictures:
    before = result.signals[series.statistic]
    relmats = tuple(
        (
            relmat.path,
            find_measure(relmat.measure).describe(fisher_z=relmat.fisher_z),
            result.relmats[relmat.path],
        )
        for relmat in result.names.relmats
        if relmat.source == series.path and relmat.path in result.relmats
    )
    clean = result.cleaned.get(series)
    if clean is None or series.label is None:
        return SeriesPictures(series.path, None, before, relmats=relmats)
    preparation = preparations[series.label]
    return SeriesPictures(
        series.path,
        series.label,
        before,
        after=clean.cleaned.signals,
        kept=clean.cleaned.sample_mask,
        dummy=preparation.censoring.dummy,
        same_unit=preparation.strategy.settings.standardize == "none",
        relmats=relmats,
    )


def _bold_table(run: BoldRun) -> str:
    """Name that the figures of a run without cleaning are made from."""
    stem = run.relative_path.partition(".")[0]
    return stem.replace("_desc-preproc_", "_") + ".tsv"


def are_drawn(job: Job, names: RunOutputs) -> bool:
    """Tell whether all figures of a run and atlas are there."""
    tables = [names.regions, *(series.path for series in names.timeseries)]
    tables += [path for _, path in names.outliers] or [_bold_table(job.planned.run)]
    return has_figures(job.output_dir, tables)
