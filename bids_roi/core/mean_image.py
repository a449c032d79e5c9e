"""Mean image of a run, beside whatever else is taken from its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


_VOLUMES = 60


class MeanImage:
    """Mean over evenly spaced volumes, for pictures.

    Sixty volumes show a brain as well as thousands do, at a cost that a pass over the
    run does not notice.

    Parameters
    ----------
    n_volumes
        Of the run.
    n_voxels
        Of its grid.

    Attributes
    ----------
    step
        Every how many volumes one is taken.
    """

    def __init__(self, n_volumes: int, n_voxels: int) -> None:
        self.step = max(1, -(-n_volumes // _VOLUMES))
        self.n_taken = 0
        self._sum = np.zeros(n_voxels, dtype=np.float32)

    def update(self, start: int, block: NDArray[Any], first: int = 0) -> None:
        """Add the volumes of a block that are taken.

        Parameters
        ----------
        start
            Number of the block's first volume.
        block : (t, v)
            Stored values; not finite ones make the mean not finite there, and so
            do sums beyond float32.
        first
            Number of the block's first voxel; those that follow it come later.
        """
        some = self._sum[first : first + block.shape[1]]
        for number in range(-start % self.step, len(block), self.step):
            with np.errstate(over="ignore", invalid="ignore"):
                np.add(some, block[number], out=some, casting="unsafe")
            self.n_taken += first == 0

    def finish(self, scaling: tuple[float, float]) -> NDArray[np.float32]:
        """Return the mean, (V,), in the unit of the image.

        Parameters
        ----------
        scaling
            Slope and intercept: value = slope * stored + intercept.
        """
        slope, intercept = scaling
        mean = self._sum / np.float32(max(1, self.n_taken))
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(mean * np.float32(slope) + np.float32(intercept))
