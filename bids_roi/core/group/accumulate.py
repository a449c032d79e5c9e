"""All statistics of one group of matrices in one pass, participant by participant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bids_roi.core.group.identification import Identification
from bids_roi.core.group.moments import CoMoments, Moments
from bids_roi.core.group.reliability import OneWay

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bids_roi.core.group.networks import Blocks

    FloatArray = NDArray[np.float64]


class GroupStatistics:
    """Mean, deviation, QC-FC, reliability and network means of a group.

    Parameters
    ----------
    size
        Number of edges E.
    blocks
        Networks, ``None`` where the atlas has none.
    by_run
        Whether every run is a unit of its own. Otherwise a participant is one: the mean
        of the edges over the runs that have them, and the mean of the runs' FD.

    Attributes
    ----------
    units
        Moments of each edge over the units.
    motion
        Mean FD with each edge, over the units that have an FD.
    runs
        Reliability of runs within participants, whatever the unit.
    identity
        The same runs, compared as wholes.
    networks
        Moments of each block over the units.
    """

    def __init__(self, size: int, blocks: Blocks | None, *, by_run: bool) -> None:
        self.units = Moments(size)
        self.motion = CoMoments(size)
        self.runs = OneWay(size)
        self.identity = Identification(size)
        self.networks = Moments(len(blocks.pairs) if blocks else 0)
        self.displacements: list[float] = []
        self.n_units = self.n_runs = self.n_participants = self.n_repeated = 0
        self._blocks, self._by_run = blocks, by_run
        self._participant = Moments(size)
        self._own: list[float | None] = []

    def add_run(
        self, values: FloatArray, displacement: float | None, *, compared: bool = True
    ) -> None:
        """Add a run of the participant at hand.

        Parameters
        ----------
        values : (E,)
            NaN for missing edges.
        displacement
            Mean FD, mm, ``None`` where it is not known.
        compared
            Whether the participant is among those that are told from each other.
        """
        self.n_runs += 1
        self._participant.update(values)
        if compared:
            self.identity.add_run(values)
        self._own.append(displacement)
        if self._by_run:
            self._add_unit(values, displacement)

    def close_participant(self) -> None:
        """Say that the runs of the participant at hand are all there."""
        if not self._own:
            return
        self.n_participants += 1
        self.n_repeated += len(self._own) > 1
        if not self._by_run:
            known = [fd for fd in self._own if fd is not None]
            displacement = sum(known) / len(known) if known else None
            self._add_unit(self._participant.mean, displacement)
        self.runs.update(self._participant)
        self.identity.close_participant()
        self._participant.reset()
        self._own.clear()

    def merge(self, other: GroupStatistics) -> None:
        """Add the participants of another, all closed, after those that are here."""
        self.units.merge(other.units)
        self.motion.merge(other.motion)
        self.runs.merge(other.runs)
        self.identity.merge(other.identity)
        self.networks.merge(other.networks)
        self.displacements += other.displacements
        self.n_units += other.n_units
        self.n_runs += other.n_runs
        self.n_participants += other.n_participants
        self.n_repeated += other.n_repeated

    def _add_unit(self, values: FloatArray, displacement: float | None) -> None:
        self.n_units += 1
        self.units.update(values)
        if self._blocks is not None:
            self.networks.update(self._blocks.average(values))
        if displacement is not None:
            self.displacements.append(displacement)
            self.motion.update(displacement, values)
