"""Results of a run: what its files and its figures are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.core.quality import temporal_snr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bids_roi.atlases.open import Atlas
    from bids_roi.confounds.motion import FilteredMotion
    from bids_roi.confounds.regressors import Selected
    from bids_roi.confounds.strategy_format import Strategy
    from bids_roi.core.clean import Cleaned
    from bids_roi.core.map_solver import MapSolver
    from bids_roi.core.mapping import RegionMap
    from bids_roi.core.motion import Censoring
    from bids_roi.core.partition import Partition
    from bids_roi.core.quality import RegionQuality
    from bids_roi.core.reduce import Reduction
    from bids_roi.errors import BidsRoiError
    from bids_roi.outputs.names import RunOutputs, SeriesOutput


@dataclass(frozen=True, slots=True)
class Extracted:
    """Signals of all atlases of a run, from one pass over its file.

    Attributes
    ----------
    partition
        The atlases on the run's grid.
    inside : (V,)
        Whether each voxel is inside the mask.
    reduction
        The signals.
    qualities
        Of the regions of each atlas.
    high_variance : (T, 5) or None
        Components of the voxels of high variance, where asked for.
    """

    partition: Partition
    inside: NDArray[np.bool_]
    reduction: Reduction
    qualities: tuple[RegionQuality, ...]
    high_variance: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Motion:
    """What the table of confounds tells of a run's motion.

    Attributes
    ----------
    fd, std_dvars : (T,) or None
        Framewise displacement in mm and standardised DVARS; ``None`` where not told.
    steady : (T,) or None
        Volumes that are not flagged as non-steady state; ``None`` where nothing tells.
    notes
        Why the table could not be used.
    parameters : (T, 6) or None
        Translations along x, y and z in mm, rotations about them in radians.
    fd_filtered : (T,) or None
        Framewise displacement in mm after a strategy's motion filter.
    rmsd : (T,) or None
        Jenkinson's displacement from volume to volume, mm.
    """

    fd: NDArray[np.float64] | None = None
    std_dvars: NDArray[np.float64] | None = None
    steady: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    parameters: NDArray[np.float64] | None = None
    fd_filtered: NDArray[np.float64] | None = None
    rmsd: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a strategy means for one run, before a volume of it is read.

    Attributes
    ----------
    strategy
        As asked for.
    selected
        Columns to regress out.
    censoring
        Volumes to leave out, and why.
    fd, dvars : (T,) or None
        Framewise displacement in mm and standardised DVARS, where the table has them.
    filtered
        Motion that a filter was used on, which decides in the place of ``fd``.
    """

    strategy: Strategy
    selected: Selected
    censoring: Censoring
    fd: NDArray[np.float64] | None
    dvars: NDArray[np.float64] | None
    filtered: FilteredMotion | None = None


@dataclass(frozen=True, slots=True)
class CleanedSeries:
    """Signals as they are written, and what is said of them.

    Attributes
    ----------
    signals : (T or fewer, R)
        As ``--censored`` asks.
    cleaned
        The kept volumes, and what they were rid of.
    facts
        Sidecar keys.
    notes
        What the user should know.
    preparation
        What it was cleaned with.
    """

    signals: NDArray[np.float64]
    cleaned: Cleaned
    facts: dict[str, Any]
    notes: tuple[str, ...]
    preparation: Preparation


@dataclass(frozen=True, slots=True)
class AtlasResult:
    """What came of a run for one atlas.

    Attributes
    ----------
    atlas, names
        What was extracted, and where it goes; without the strategies that failed.
    mapped
        The atlas on the grid.
    quality
        Of its regions.
    signals
        (T, R) per statistic, raw; NaN columns for lost regions.
    cleaned
        The series that were cleaned.
    failed
        Labels of the strategies that could not be carried out, and why.
    measures
        (R,) per measure of the regions that was asked for; NaN for lost ones.
    maps
        What least squares found of the maps; ``None`` for labels, or if not asked for.
    notes
        What the user should know of the voxels.
    relmats
        (R, R) by the path of the table, once they are written.
    """

    atlas: Atlas
    names: RunOutputs
    mapped: RegionMap
    quality: RegionQuality
    signals: Mapping[str, NDArray[np.float64]]
    cleaned: Mapping[SeriesOutput, CleanedSeries]
    failed: Mapping[str, BidsRoiError]
    measures: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    maps: MapSolver | None = None
    notes: tuple[str, ...] = ()
    relmats: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def level_statistic(self) -> str:
        """What levels are of: the regional mean of labels; of maps, the first asked."""
        if "mean" in self.signals:
            return "mean"
        return next(series.statistic for series in self.names.timeseries)

    def levels(self, motion: Motion) -> dict[str, NDArray[np.float64]]:
        """Level, deviation and tSNR of each region over the steady volumes, (R,)."""
        signals = self.signals[self.level_statistic]
        if motion.steady is not None:
            signals = signals[motion.steady]
        level = signals.mean(axis=0)
        deviation = np.full_like(level, np.nan)
        if len(signals) > 1:
            deviation = signals.std(axis=0, ddof=1)
        return {
            "mean": level,
            "standard_deviation": deviation,
            "tsnr": temporal_snr(level, deviation),
        }
