"""All figures of one run: from its results in memory to ``sub-*/figures/``."""

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
from bids_roi.files.tables import format_json
from bids_roi.files.writing import write_file
from bids_roi.images.nifti import read_volume
from bids_roi.options.words import find_measure
from bids_roi.outputs.names import figure_path, motion_table, report_path
from bids_roi.report.brain import choose_slices, draw_contours, draw_coverage
from bids_roi.report.canvas import drawing, measure_image
from bids_roi.report.carpet import draw_carpet
from bids_roi.report.matrix import draw_design, draw_relmat
from bids_roi.report.motion import draw_motion
from bids_roi.report.order import order_regions
from bids_roi.report.signals import encode_signals
from bids_roi.report.surface import draw_parcels, find_meshes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid
    from bids_roi.dataset.layout import BoldRun
    from bids_roi.images.series import Series
    from bids_roi.outputs.names import SeriesOutput
    from bids_roi.outputs.result import AtlasResult, Motion, Preparation
    from bids_roi.report.canvas import Picture

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


log = logging.getLogger("bids_roi")


class RunFigures:
    """Figures of a run, drawn as its results come; what fails costs a note, no run.

    Attributes
    ----------
    mean
        To be fed with the run's volumes; ``None`` where a reference image is there.
    brain : (V,) or None
        The brain mask that was used.
    notes
        What could not be drawn, and why.
    """

    def __init__(
        self,
        run: BoldRun,
        image: Series,
        output_dir: Path,
        *,
        repetition_time: float | None,
        minimum_coverage: float,
        homes: Sequence[Path] = (),
    ) -> None:
        self.run = run
        self.homes = homes
        self.image = image
        self.output_dir = output_dir
        self.repetition_time = repetition_time
        self.minimum_coverage = minimum_coverage
        self.brain: BoolArray | None = None
        self.notes: list[str] = []
        self._words = "reference image of the run"
        self._background = None
        self.mean: MeanImage | None = None
        if image.grid is not None:
            self._background = _read_reference(run, image.grid)
            if self._background is None:
                self.mean = MeanImage(image.source.n_volumes, image.grid.n_voxels)

    def draw_atlas(self, result: AtlasResult) -> None:
        """Draw one atlas, its series and its matrices."""
        self._attempt(lambda: self._draw_atlas(result))

    def draw_motion(
        self, motion: Motion, outliers: Sequence[tuple[str, Preparation]]
    ) -> None:
        """Draw what is the same for all atlases: a page for each table of outliers."""

        def draw() -> None:
            for source, preparation in outliers:
                self._draw_motion(motion, source, preparation)
            if not outliers:
                self._draw_motion(motion, motion_table(self.run), None)

        self._attempt(draw)

    def _attempt(self, draw: Callable[[], None]) -> None:
        try:
            with drawing(self.output_dir):
                draw()
        except Exception as error:
            log.debug("figures", exc_info=True)
            note = f"figures could not be drawn ({type(error).__name__}: {error})."
            if note not in self.notes:
                self.notes.append(note)

    def _show_background(self) -> NDArray[np.floating]:
        """The reference image, or the mean, once the pass over the run is done."""
        if self._background is None and self.mean is not None:
            scaling = self.image.slope, self.image.intercept
            self._background = self.mean.finish(scaling)
            self._words = f"mean of {self.mean.n_taken} volumes of the run"
            self.mean = None
        if self._background is None:
            return np.zeros(self.image.frame.n_points, dtype=np.float32)
        return self._background

    def _draw_atlas(self, result: AtlasResult) -> None:
        source = result.names.regions
        if self.image.grid is None:
            made = []
            meshes, words = find_meshes(self.run, self.image.frame, self.homes)
            if meshes:
                lost = ~result.quality.usable
                if picture := draw_parcels(result.atlas, meshes, words, lost):
                    made.append(self._save(picture, source))
            self._list(source, made, {"Frame": str(self.image.frame)})
        else:
            self._draw_brain(result, self.image.grid)
        for series in result.names.timeseries:
            pictures = self._draw_series(result, series)
            self._list(series.path, [self._save(p, table) for table, p in pictures])

    def _draw_brain(self, result: AtlasResult, grid: Grid) -> None:
        """Draw the regions of a volume, and how much of each can be used."""
        quality, source = result.quality, result.names.regions
        rows = strongest_map(result.mapped.weights)
        inside = rows >= 0 if self.brain is None else (rows >= 0) | self.brain
        slices = choose_slices(grid, inside)
        background, lost = self._show_background(), ~quality.usable
        contours = draw_contours(
            slices,
            background,
            rows,
            brain=self.brain,
            lost=lost,
            background=self._words,
        )
        coverage = draw_coverage(
            slices,
            background,
            rows,
            quality.coverage,
            lost=lost,
            minimum=self.minimum_coverage,
        )
        facts = {"VoxelVolume": round(grid.voxel_volume, 6)}
        made = [self._save(picture, source) for picture in (contours, coverage)]
        self._list(source, made, facts)

    def _draw_series(
        self, result: AtlasResult, series: SeriesOutput
    ) -> Iterator[tuple[str, Picture]]:
        """Draw one series: carpet, matrices, and the data of the picker."""
        names = result.atlas.regions.name
        order = order_regions(len(names), networks_of(result.atlas.regions))
        before = result.signals[series.statistic]
        after, kept, dummy, same_unit = None, None, None, False
        if (clean := result.cleaned.get(series)) is not None:
            kept = clean.cleaned.sample_mask
            after = spread(clean.cleaned.signals, kept)
            after[~kept] = np.nan
            dummy = clean.preparation.censoring.dummy
            same_unit = clean.preparation.strategy.settings.standardize == "none"
        carpet = draw_carpet(
            before,
            after,
            order,
            kept=kept,
            dummy=dummy,
            same_unit=same_unit,
            repetition_time=self.repetition_time,
        )
        yield series.path, carpet
        for relmat in result.names.relmats:
            values = result.relmats.get(relmat.path)
            if relmat.source == series.path and values is not None:
                words = find_measure(relmat.measure).describe(fisher_z=relmat.fisher_z)
                yield relmat.path, draw_relmat(values, order, measure=words)
        signals = encode_signals(
            before,
            after,
            names,
            key=series.path,
            repetition_time=self.repetition_time,
        )
        yield series.path, signals

    def _draw_motion(
        self, motion: Motion, source: str, preparation: Preparation | None
    ) -> None:
        """Draw the motion of a run, and what one strategy makes of it."""
        kept, dummy = None, None
        limits: tuple[float | None, float | None] = None, None
        if preparation is not None:
            censoring, settings = preparation.censoring, preparation.strategy.settings
            kept, dummy = censoring.sample_mask, censoring.dummy
            limits = settings.fd_threshold, settings.std_dvars_threshold
        pictures = [
            draw_motion(
                motion.fd,
                motion.std_dvars,
                kept=kept,
                dummy=dummy,
                fd_threshold=limits[0],
                dvars_threshold=limits[1],
                repetition_time=self.repetition_time,
            )
        ]
        if preparation is not None and kept is not None:
            selected = preparation.selected
            design = draw_design(
                spread(selected.regressors[kept], kept),
                selected.names,
                repetition_time=self.repetition_time,
            )
            pictures.append(design)
        made = [self._save(p, source) for p in pictures if p is not None]
        label = "none" if preparation is None else preparation.strategy.label
        self._list(source, made, {"Strategy": label})

    def _save(self, picture: Picture, source: str) -> dict[str, object]:
        """Write a figure; return how the page finds and describes it."""
        path = figure_path(source, picture.kind, picture.extension)
        write_file(self.output_dir, path, picture.content)
        size = measure_image(picture.content, picture.extension)
        return {
            "Kind": picture.kind,
            "File": path.rpartition("/")[2],
            **({"Size": list(size)} if size else {}),
            "Title": picture.title,
            "Caption": picture.caption,
            "Alternative": picture.alt,
            **picture.facts,
        }

    def _list(
        self,
        source: str,
        made: list[dict[str, object]],
        facts: Mapping[str, object] | None = None,
    ) -> None:
        """Write the list of the figures of one table, after the figures themselves."""
        run = self.run.relative_path
        content = {"Run": run, "Source": source, **(facts or {}), "Figures": made}
        write_file(self.output_dir, report_path(source), format_json(content))


def _read_reference(run: BoldRun, own: Grid) -> NDArray[np.floating] | None:
    """The reference image beside a run, where there is one on its grid."""
    entities = tuple((k, v) for k, v in run.entities if k != "desc")
    for path in sorted(run.path.parent.glob("*_boldref.nii.gz")):
        if parse_name(path).entities != entities or not path.is_file():
            continue
        try:
            values, grid = read_volume(path)
        except BidsRoiError:
            return None
        if same_grid(grid, own):
            return np.asarray(values.ravel(order="F"), dtype=np.float32)
    return None


def spread(values: FloatArray, kept: BoolArray) -> FloatArray:
    """Put rows of kept volumes where they were in the run; NaN in the others."""
    whole = np.full((kept.size, values.shape[1]), np.nan)
    whole[kept] = values
    return whole
