"""Order of the regions in figures: by network where the atlas tells it, else as is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RegionOrder:
    """In which order regions are drawn, and what they belong to.

    Attributes
    ----------
    order : (R,)
        Rows of the region table, as drawn.
    groups
        Network of each drawn region; empty where the atlas tells none.
    """

    order: NDArray[np.intp]
    groups: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The order, for a caption."""
        return "by network" if self.groups else "in table order"


def order_regions(n_regions: int, networks: Sequence[str] | None) -> RegionOrder:
    """Put regions of one network together, networks in the order of their first region.

    >>> found = order_regions(3, ["Vis", "Def", "Vis"])
    >>> found.order.tolist(), found.groups
    ([0, 2, 1], ('Vis', 'Vis', 'Def'))
    """
    if networks is None or len(set(networks)) < 2:
        return RegionOrder(np.arange(n_regions))
    rank = {name: number for number, name in enumerate(dict.fromkeys(networks))}
    order = np.argsort([rank[name] for name in networks], kind="stable")
    return RegionOrder(order, tuple(networks[i] for i in order))


def bracket(groups: Sequence[str]) -> list[tuple[str, int, int]]:
    """Runs of equal names as ``(name, first, one past the last)``.

    >>> bracket(["a", "a", "b"])
    [('a', 0, 2), ('b', 2, 3)]
    """
    found: list[tuple[str, int, int]] = []
    for position, name in enumerate(groups):
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1], position + 1)
        else:
            found.append((name, position, position + 1))
    return found
