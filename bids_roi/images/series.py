"""Series of any format behind one front: where its values lie, and how to read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_roi.core.frame import Frame
from bids_roi.images.header import BOLD
from bids_roi.images.meshes import surface_template
from bids_roi.images.nifti import open_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bids_roi.core.grid import Grid
    from bids_roi.images.stream import Source


@dataclass(frozen=True, slots=True)
class Series:
    """A series whose header was read and found good; picklable.

    Attributes
    ----------
    frame
        Where its values lie.
    source
        The values as stored, in blocks.
    slope, intercept
        Value = slope * stored + intercept.
    repetition_time
        Seconds, as the file itself has them; ``None`` where it has none.
    """

    frame: Frame
    source: Source
    slope: float
    intercept: float
    repetition_time: float | None

    @property
    def grid(self) -> Grid | None:
        """Shape and affine of a volume; ``None`` for surfaces and grayordinates."""
        return self.frame.grid


def open_series(kind: str, files: Mapping[str, Path], template: str | None) -> Series:
    """Open a run's series and check that it can be used.

    ``kind`` is a key of ``READERS``, ``template`` the space of the run.
    """
    return READERS[kind](files, template)


def _open_volume(
    files: Mapping[str, Path],
    template: str | None,  # noqa: ARG001 - a grid says where it lies
) -> Series:
    (path,) = files.values()
    image = open_image(path, BOLD)
    return Series(
        Frame.of_grid(image.grid),
        image.source,
        image.slope,
        image.intercept,
        image.header.repetition_time,
    )


def _open_cifti(files: Mapping[str, Path], template: str | None) -> Series:
    from bids_roi.images.cifti import open_dense_series  # volumes need neither

    (path,) = files.values()
    # The space of some grayordinates is called after that of their voxels.
    dense = open_dense_series(path, surface_template(template))
    return Series(
        dense.frame, dense.source, dense.slope, dense.intercept, dense.repetition_time
    )


def _open_gifti(files: Mapping[str, Path], template: str | None) -> Series:
    from bids_roi.images.gifti import open_surface_series

    both = open_surface_series(files, template, hemispheres=tuple(files))
    return Series(both.frame, both, 1.0, 0.0, both.repetition_time)


# For the kinds of ``dataset/filters.py``.
READERS: dict[str, Callable[[Mapping[str, Path], str | None], Series]] = {
    "volume": _open_volume,
    "cifti": _open_cifti,
    "gifti": _open_gifti,
}
