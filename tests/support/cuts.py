"""A run's plane, (T, V), cut into blocks."""

from itertools import pairwise

from bids_roi.core.frame import Block


def cut_volumes(plane, size):
    """Blocks of ``size`` volumes with all points."""
    for start in range(0, len(plane), size):
        part = plane[start : start + size].copy()
        volumes = slice(start, start + len(part))
        yield Block(volumes, slice(0, plane.shape[1]), part)


def cut_points(plane, ends):
    """Blocks with all volumes of the points up to each end; points in file order."""
    for start, stop in pairwise([0, *ends]):
        series = plane[:, start:stop].T.copy()
        yield Block(slice(0, len(plane)), slice(start, stop), series.T)
