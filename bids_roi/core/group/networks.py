"""Connectivity within and between networks: edges averaged in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bids_roi.core.group.edges import Edges

    FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Pairs of networks, and the edges of each.

    Attributes
    ----------
    names
        Networks, in the order in which the atlas names them.
    n_regions : (K,)
        Of each network.
    pairs
        Positions in ``names`` of each block, the first not after the second.
    block_of_edge : (E,)
        Position in ``pairs``; -1 for edges of a region without network.
    n_edges : (B,)
        Of each block.
    """

    names: tuple[str, ...]
    n_regions: NDArray[np.intp]
    pairs: tuple[tuple[int, int], ...]
    block_of_edge: NDArray[np.intp]
    n_edges: NDArray[np.intp]

    def average(self, values: FloatArray) -> FloatArray:
        """Mean of the edges of each block, (E,) -> (B,); NaN where it has none."""
        # All edges at once, a missing one as 0 and those of no block as one more: to
        # pick out the others takes three times as long.
        there = np.isfinite(values)
        block, size = self.block_of_edge + 1, len(self.pairs) + 1
        n = self.n_edges - np.bincount(block[~there], minlength=size)[1:]
        total = np.bincount(block, np.where(there, values, 0.0), minlength=size)[1:]
        return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def list_blocks(labels: Sequence[str | None], edges: Edges) -> Blocks:
    """Sort the edges into blocks; the diagonal of a matrix belongs to none.

    Parameters
    ----------
    labels
        Network of each of the R regions, ``None`` for none.
    edges
        Of the R regions.
    """
    names = tuple(dict.fromkeys(label for label in labels if label is not None))
    position = {name: k for k, name in enumerate(names)}
    network = np.array([-1 if x is None else position[x] for x in labels], np.intp)
    size = len(names)
    first = np.minimum(network[edges.rows], network[edges.columns])
    second = np.maximum(network[edges.rows], network[edges.columns])
    inside = (first >= 0) & edges.between
    # Blocks are the upper triangle of networks x networks, row by row.
    rows, columns = np.triu_indices(size)
    number = np.full((size, size), -1, dtype=np.intp)
    number[rows, columns] = np.arange(rows.size)
    block = np.full(edges.size, -1, dtype=np.intp)
    block[inside] = number[first[inside], second[inside]]
    return Blocks(
        names=names,
        n_regions=np.bincount(network[network >= 0], minlength=size),
        pairs=tuple(zip(rows.tolist(), columns.tolist(), strict=True)),
        block_of_edge=block,
        n_edges=np.bincount(block[inside], minlength=rows.size),
    )
