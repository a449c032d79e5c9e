"""All figures of one run: from its results in memory to ``sub-*/figures/``."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.atlases.regions import networks_of
from bids_roi.core.grid import same_grid
from bids_roi.core.mapping import strongest_map
from bids_roi.core.motion import regional_dvars
from bids_roi.core.scan import MeanImage
from bids_roi.errors import BidsRoiError
from bids_roi.files.names import format_name
from bids_roi.files.tables import format_json, write_file
from bids_roi.images.nifti import read_volume
from bids_roi.options.words import find_measure
from bids_roi.outputs.result import Motion, figure_path, motion_table, report_path
from bids_roi.report.brain import (
    Ground,
    choose_slices,
    draw_contours,
    draw_coverage,
    draw_tsnr,
)
from bids_roi.report.courses import Course, draw_motion, encode_signals
from bids_roi.report.matrix import draw_carpet, draw_design, draw_relmat, find_limit
from bids_roi.report.raster import order_regions
from bids_roi.report.surface import (
    draw_cortex_tsnr,
    draw_parcels,
    find_meshes,
    view_atlas,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid
    from bids_roi.dataset.run import BoldRun
    from bids_roi.images.nifti import Series
    from bids_roi.outputs.derivatives import RelmatOutput, SeriesOutput
    from bids_roi.outputs.result import AtlasResult, CleanedSeries, Preparation
    from bids_roi.report.courses import Drawn
    from bids_roi.report.paper import Figure
    from bids_roi.report.raster import RegionOrder

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


log = logging.getLogger("bids_roi")


class RunFigures:
    """Figures of a run, drawn as its results come; what fails costs a note, no run.

    ``mean`` is to be fed with the run's volumes; it is ``None`` where a reference image
    is there.
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
        self.brain: BoolArray | None = None  # (V,), the mask that was used
        # (N,), those of any atlas; without them each atlas is looked at alone.
        self.voxels: NDArray[np.intp] | None = None
        self.motion: Motion | None = None  # to be shown above the signals
        self.notes: list[str] = []  # what could not be drawn, and why
        self._words = "reference image of the run"
        self._background = None
        self._ground: Ground | None = None
        self._drawn: Drawn = {}
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
        source, regions = result.names.regions, result.atlas.regions
        columns = {name.lower(): cells for name, cells in regions.extra}
        order = order_regions(
            len(regions.name), networks_of(regions), columns.get("color")
        )
        lost, hints = ~result.quality.usable, _describe_regions(result)
        tsnr = result.levels(self.motion or Motion())["tsnr"]
        made: list[Figure | None] = []
        facts: dict[str, object] = {}
        if (grid := self.image.grid) is not None:
            rows = strongest_map(result.mapped.weights)
            ground = self._find_ground(grid, rows)
            labels = [plane.show(rows, -1) for plane in ground.planes]
            title, share = f"Atlas {result.atlas.name}", result.quality.coverage
            least = self.minimum_coverage
            made = [
                draw_contours(
                    ground, labels, order, lost=lost, title=title, hints=hints
                ),
                draw_coverage(ground, labels, share, lost=lost, minimum=least),
                draw_tsnr(ground, labels, tsnr, lost=lost),
            ]
            facts["VoxelVolume"] = round(grid.voxel_volume, 6)
        else:
            facts["Frame"] = str(self.image.frame)
            meshes, words = find_meshes(self.run, self.image.frame, self.homes)
            cortex = view_atlas(result.atlas, meshes, words) if meshes else None
            if cortex is not None:
                made = [
                    draw_parcels(cortex, order, lost=lost, hints=hints),
                    draw_cortex_tsnr(cortex, tsnr, lost=lost),
                ]
        self._write(source, [(source, figure) for figure in made], facts)
        for series in result.names.timeseries:
            self._write(series.path, self._draw_series(result, series, order))

    def _find_ground(self, grid: Grid, rows: NDArray[np.int32]) -> Ground:
        """What the pictures of all atlases have in common, made with the first."""
        if self._ground is not None:
            return self._ground
        inside = rows >= 0
        if self.voxels is not None:
            inside[self.voxels] = True
        if self.brain is not None:
            inside |= self.brain
        image = self._show_background()
        ground = Ground(choose_slices(grid, inside), image, self.brain, self._words)
        if self.voxels is not None:
            self._ground = ground
        return ground

    def _draw_series(
        self, result: AtlasResult, series: SeriesOutput, order: RegionOrder
    ) -> Iterator[tuple[str, Figure]]:
        """Draw one series: carpet, matrices, and the data of the picker."""
        names = result.atlas.regions.name
        before = result.signals[series.statistic]
        after, same_unit, threshold, unit = None, False, None, "arbitrary"
        motion = self.motion
        course = Course(len(before), self.repetition_time)
        if (clean := result.cleaned.get(series)) is not None:
            kept, preparation = clean.cleaned.sample_mask, clean.preparation
            settings = preparation.strategy.settings
            motion = _after_filter(motion, preparation)
            after = spread(clean.cleaned.signals, kept)
            after[~kept] = np.nan
            course = replace(course, kept=kept, dummy=preparation.censoring.dummy)
            same_unit = settings.standardize == "none"
            threshold, unit = settings.fd_threshold, clean.facts.get("Units", unit)
        dvars = find_dvars(before, clean, course, same_unit=same_unit)
        carpet = draw_carpet(
            before,
            after,
            order,
            course,
            motion=motion,
            dvars=dvars,
            drawn=self._drawn,
            fd_threshold=threshold,
            same_unit=same_unit,
            title=f", {series.label}" if series.label else "",
            names=names,
        )
        told = _tell_dvars(dvars, course.kept)
        yield series.path, replace(carpet, facts={**carpet.facts, **told})
        for relmat in result.names.relmats:
            values = result.relmats.get(relmat.path)
            if relmat.source == series.path and values is not None:
                words = find_measure(relmat.measure).describe(fisher_z=relmat.fisher_z)
                yield (
                    relmat.path,
                    draw_relmat(
                        values,
                        order,
                        measure=words,
                        strategy=series.label or "not cleaned",
                        limit=_shared_limit(result, relmat),
                        names=names,
                    ),
                )
        yield (
            series.path,
            encode_signals(
                before, after, names, key=series.path, course=course, unit=unit
            ),
        )

    def _draw_motion(
        self, motion: Motion, source: str, preparation: Preparation | None
    ) -> None:
        """Draw the motion of a run, and what one strategy makes of it."""
        known = (motion.fd, motion.std_dvars, motion.parameters)
        n_volumes = max((len(t) for t in known if t is not None), default=0)
        course = Course(n_volumes, self.repetition_time)
        limits: tuple[float | None, float | None] = None, None
        label = "none"
        if preparation is not None:
            censoring, settings = preparation.censoring, preparation.strategy.settings
            kept, label = censoring.sample_mask, preparation.strategy.label
            course = Course(kept.size, self.repetition_time, kept, censoring.dummy)
            limits = settings.fd_threshold, settings.std_dvars_threshold
            motion = _after_filter(motion, preparation) or motion
        pictures = [
            draw_motion(
                motion,
                course,
                fd_threshold=limits[0],
                dvars_threshold=limits[1],
                drawn=self._drawn,
            )
        ]
        if preparation is not None and course.kept is not None:
            selected = preparation.selected
            design = spread(selected.regressors[course.kept], course.kept)
            pictures.append(draw_design(design, selected.names, course, strategy=label))
        self._write(source, [(source, p) for p in pictures], {"Strategy": label})

    def _write(
        self,
        source: str,
        figures: Iterable[tuple[str, Figure | None]],
        facts: Mapping[str, object] | None = None,
    ) -> None:
        """Write the figures, each of a table, and then the list of those of one."""
        made = []
        for table, figure in figures:
            if figure is not None:
                path = figure_path(table, figure.kind, figure.extension)
                write_file(self.output_dir, path, figure.content)
                made.append(figure.tell(File=path.rpartition("/")[2]))
        run = self.run.relative_path
        content = {"Run": run, "Source": source, **(facts or {}), "Figures": made}
        write_file(self.output_dir, report_path(source), format_json(content))


def _read_reference(run: BoldRun, own: Grid) -> NDArray[np.floating] | None:
    """The reference image beside a run, where there is one on its grid."""
    entities = tuple((k, v) for k, v in run.entities if k != "desc")
    path = run.path.with_name(format_name(entities, "boldref", ".nii.gz"))
    if not path.is_file():
        return None
    try:
        values, grid = read_volume(path)
    except BidsRoiError:
        return None
    if not same_grid(grid, own):
        return None
    return np.asarray(values.ravel(order="F"), dtype=np.float32)


def _describe_regions(result: AtlasResult) -> list[str]:
    """Each region in a line: name, network, coverage, and what is wrong with it."""
    regions, quality = result.atlas.regions, result.quality
    networks = networks_of(regions) or ("",) * len(regions.name)
    return [
        f"{name}{f' ({network})' if network else ''}: coverage {coverage:.2f}"
        f"{'' if usable else ', n/a'}"
        for name, network, coverage, usable in zip(
            regions.name,
            networks,
            quality.coverage.tolist(),
            quality.usable.tolist(),
            strict=True,
        )
    ]


def _after_filter(motion: Motion | None, preparation: Preparation) -> Motion | None:
    """Motion with the displacement that is left after a strategy's motion filter."""
    moved = preparation.filtered
    if motion is None or moved is None:
        return motion
    return replace(motion, fd_filtered=moved.fd)


def find_dvars(
    before: FloatArray, clean: CleanedSeries | None, course: Course, *, same_unit: bool
) -> list[FloatArray]:
    """DVARS over the regions, (T,), before cleaning and, where one can say it, after.

    Both are in the same unit, the standard deviation of each region before cleaning:
    what has become smaller has been taken out. Before, volumes that were censored have
    a value, too: it shows why.
    """
    steady = np.ones(len(before), dtype=bool)
    if clean is None:
        return _known([regional_dvars(before, steady, before.std(axis=0))])
    kept = clean.cleaned.sample_mask
    if course.dummy is not None:
        steady = kept | ~course.dummy
    deviation = before[kept].std(axis=0)
    traces = []
    if same_unit:  # what is n/a in one of the two is no change of the other
        after = clean.cleaned.signals
        deviation[~np.isfinite(after).all(axis=0)] = np.nan
        traces.append(regional_dvars(after, kept, deviation))
    return _known([regional_dvars(before[steady], steady, deviation), *traces])


def _known(traces: list[FloatArray]) -> list[FloatArray]:
    return traces if all(np.isfinite(trace).any() for trace in traces) else []


def _tell_dvars(
    traces: Sequence[FloatArray], kept: BoolArray | None
) -> dict[str, list[float]]:
    """Means of the traces over the same pairs of neighbours, which both are kept."""
    if not traces:
        return {}
    pairs = np.isfinite(traces[-1])
    if kept is not None:
        pairs[1:] &= kept[1:] & kept[:-1]
    means = [float(trace[pairs].mean()) for trace in traces if pairs.any()]
    return {"MeanRegionalDVARS": [round(mean, 6) for mean in means]} if means else {}


def _shared_limit(result: AtlasResult, relmat: RelmatOutput) -> float:
    """Where the colours of a measure end: at the same number for all strategies.

    Correlations are drawn from -1 to 1, in every run and study. All others are drawn by
    their values, and so are partial correlations: among many regions all are near 0.
    """
    whole = find_measure(relmat.measure).is_correlation and not relmat.fisher_z
    if whole and relmat.measure != "partial":
        return 1.0
    alike = [
        result.relmats[other.path]
        for other in result.names.relmats
        if (other.measure, other.fisher_z) == (relmat.measure, relmat.fisher_z)
        and other.path in result.relmats
    ]
    return find_limit(alike)


def spread(values: FloatArray, kept: BoolArray) -> FloatArray:
    """Put rows of kept volumes where they were in the run; NaN in the others."""
    whole = np.full((kept.size, values.shape[1]), np.nan)
    whole[kept] = values
    return whole
