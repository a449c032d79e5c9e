"""All figures of one run: from arrays in memory to files in ``sub-*/figures/``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.files.tables import format_json
from bids_roi.files.writing import write_file
from bids_roi.outputs.names import figure_path, report_path
from bids_roi.report.brain import choose_slices, draw_contours, draw_coverage
from bids_roi.report.canvas import drawing, measure_image
from bids_roi.report.carpet import draw_carpet
from bids_roi.report.matrix import draw_design, draw_relmat
from bids_roi.report.motion import draw_motion
from bids_roi.report.order import order_regions
from bids_roi.report.signals import encode_signals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_roi.core.grid import Grid
    from bids_roi.report.canvas import Picture

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MotionPictures:
    """Motion of a run and one way to clean it.

    Attributes
    ----------
    source
        The table that the figures are named after, relative to the output folder.
    label
        Of the denoising strategy, ``None`` for raw signals.
    fd, dvars : (T,) or None
        mm, and in units of what is expected.
    kept, dummy : (T,) or None
        Volumes that enter the results, and those before the steady state.
    fd_threshold, dvars_threshold
        Above which volumes are left out.
    design : (T, C) or None
        What is regressed out; NaN rows for volumes that were left out.
    columns
        Names of its columns.
    """

    source: str
    label: str | None
    fd: FloatArray | None = None
    dvars: FloatArray | None = None
    kept: BoolArray | None = None
    dummy: BoolArray | None = None
    fd_threshold: float | None = None
    dvars_threshold: float | None = None
    design: FloatArray | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeriesPictures:
    """One time series of a run and atlas.

    Attributes
    ----------
    source
        The table of the series, relative to the output folder.
    label
        Of the denoising strategy, ``None`` for raw signals.
    before : (T, R)
        As extracted.
    after : (T', R) or None
        Cleaned; one row per volume kept, or per volume of the run.
    kept, dummy : (T,) or None
        Volumes that enter the results, and those before the steady state.
    same_unit
        Whether both have the unit of the image.
    relmats
        ``(table, measure in words, (R, R))`` for each matrix.
    """

    source: str
    label: str | None
    before: FloatArray
    after: FloatArray | None = None
    kept: BoolArray | None = None
    dummy: BoolArray | None = None
    same_unit: bool = False
    relmats: tuple[tuple[str, str, FloatArray], ...] = ()


@dataclass(frozen=True, slots=True)
class AtlasPictures:
    """One atlas on the grid of a run.

    Attributes
    ----------
    name
        Canonical id.
    source
        The region table, relative to the output folder.
    rows : (V,)
        Row of the region table at each voxel of the grid, -1 for none.
    names
        Of the regions.
    networks
        One per region, ``None`` where the atlas tells none.
    coverage : (R,)
        0 to 1.
    lost : (R,)
        Regions that are n/a.
    series
        What was taken from it.
    """

    name: str
    source: str
    rows: NDArray[np.int32]
    names: tuple[str, ...]
    networks: tuple[str, ...] | None
    coverage: FloatArray
    lost: BoolArray
    series: tuple[SeriesPictures, ...]


@dataclass(frozen=True, slots=True)
class RunPictures:
    """All that the figures of one run are drawn from.

    Attributes
    ----------
    run
        The BOLD file, relative to its dataset.
    grid
        Its grid.
    mean : (V,)
        Mean image.
    background
        What the mean image is, in words.
    brain : (V,) or None
        The brain mask that was used.
    repetition_time
        Seconds.
    minimum_coverage
        Below which a region is n/a.
    motion
        One per way of cleaning.
    atlases
        One per atlas.
    """

    run: str
    grid: Grid
    mean: NDArray[np.floating]
    background: str
    brain: BoolArray | None
    repetition_time: float | None
    minimum_coverage: float
    motion: tuple[MotionPictures, ...] = ()
    atlases: tuple[AtlasPictures, ...] = field(default=())


def draw_run(pictures: RunPictures, output_dir: Path) -> None:
    """Draw and write all figures of a run, each with a sidecar that describes it.

    Parameters
    ----------
    pictures
        Of the run.
    output_dir
        The figures go to ``sub-*/figures/`` there.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    with drawing(output_dir):
        for motion in pictures.motion:
            _write(pictures, motion, output_dir)
        if not pictures.atlases:
            return
        inside = np.logical_or.reduce([a.rows >= 0 for a in pictures.atlases])
        if pictures.brain is not None:
            inside = inside | pictures.brain
        slices = choose_slices(pictures.grid, np.asarray(inside))
        for atlas in pictures.atlases:
            contours = draw_contours(
                slices,
                pictures.mean,
                atlas.rows,
                brain=pictures.brain,
                lost=atlas.lost,
                background=pictures.background,
            )
            coverage = draw_coverage(
                slices,
                pictures.mean,
                atlas.rows,
                atlas.coverage,
                lost=atlas.lost,
                minimum=pictures.minimum_coverage,
            )
            facts = {"VoxelVolume": round(pictures.grid.voxel_volume, 6)}
            made = [
                _save(picture, atlas.source, output_dir)
                for picture in (contours, coverage)
            ]
            _list(pictures.run, atlas.source, made, output_dir, facts)
            for series in atlas.series:
                pieces = [
                    _save(picture, source, output_dir)
                    for source, picture in _draw_series(pictures, atlas, series)
                ]
                _list(pictures.run, series.source, pieces, output_dir)


def _write(pictures: RunPictures, motion: MotionPictures, output_dir: Path) -> None:
    """Draw what does not depend on the atlas."""
    made = []
    picture = draw_motion(
        motion.fd,
        motion.dvars,
        kept=motion.kept,
        dummy=motion.dummy,
        fd_threshold=motion.fd_threshold,
        dvars_threshold=motion.dvars_threshold,
        repetition_time=pictures.repetition_time,
    )
    if picture is not None:
        made.append(_save(picture, motion.source, output_dir))
    if motion.design is not None:
        picture = draw_design(
            spread(motion.design, motion.kept),
            motion.columns,
            repetition_time=pictures.repetition_time,
        )
        if picture is not None:
            made.append(_save(picture, motion.source, output_dir))
    facts = {"Strategy": motion.label or "none"}
    _list(pictures.run, motion.source, made, output_dir, facts)


def _draw_series(
    pictures: RunPictures, atlas: AtlasPictures, series: SeriesPictures
) -> Iterator[tuple[str, Picture]]:
    """Draw one series: carpet, matrices, and the data of the picker."""
    order = order_regions(len(atlas.names), atlas.networks)
    after = None
    if series.after is not None:
        after = spread(series.after, series.kept)
        if series.kept is not None:
            after[~series.kept] = np.nan
    yield (
        series.source,
        draw_carpet(
            series.before,
            after,
            order,
            kept=series.kept,
            dummy=series.dummy,
            same_unit=series.same_unit,
            repetition_time=pictures.repetition_time,
        ),
    )
    for source, measure, values in series.relmats:
        yield source, draw_relmat(values, order, measure=measure)
    yield (
        series.source,
        encode_signals(
            series.before,
            after,
            atlas.names,
            key=series.source,
            repetition_time=pictures.repetition_time,
        ),
    )


def spread(values: FloatArray, kept: BoolArray | None) -> FloatArray:
    """Put rows of kept volumes where they were in the run; a copy.

    Parameters
    ----------
    values : (T or volumes kept, C)
        Rows of the other volumes are NaN in what is returned, unless they are there.
    kept : (T,) or None
        Volumes that were kept.
    """
    if kept is None or len(values) == kept.size:
        return values.copy()
    whole = np.full((kept.size, values.shape[1]), np.nan)
    whole[kept] = values
    return whole


def _save(picture: Picture, source: str, output_dir: Path) -> dict[str, object]:
    """Write a figure; return how the page finds and describes it."""
    path = figure_path(source, picture.kind, picture.extension)
    write_file(output_dir / path, picture.content)
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
    run: str,
    source: str,
    made: list[dict[str, object]],
    output_dir: Path,
    facts: Mapping[str, object] | None = None,
) -> None:
    """Write the list of the figures of one table, after the figures themselves."""
    content = {"Run": run, "Source": source, **(facts or {}), "Figures": made}
    write_file(output_dir / report_path(source), format_json(content))
