"""Order and colours of the regions in figures: by network where the atlas tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.report.raster import DISTINCT, group_colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


_HEX = re.compile("#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class RegionOrder:
    """In which order regions are drawn, what they belong to, and in which colour.

    Attributes
    ----------
    order : (R,)
        Rows of the region table, as drawn.
    groups
        Network of each drawn region; empty where the atlas tells none.
    colours
        ``#rrggbb`` of each drawn region: that of its network, where there are any.
    """

    order: NDArray[np.intp]
    groups: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The order, for a caption."""
        return "by network" if self.groups else "in table order"

    @property
    def row_colours(self) -> list[str]:
        """Colour of each row of the region table."""
        places = np.argsort(self.order).tolist()
        return [self.colours[place] for place in places]

    def with_few_colours(self, most: int) -> RegionOrder:
        """The same, with a few colours again and again where there are more."""
        kinds = list(dict.fromkeys(self.colours))
        if len(kinds) <= most:
            return self
        again = {old: DISTINCT[n % len(DISTINCT)] for n, old in enumerate(kinds)}
        return replace(self, colours=tuple(again[old] for old in self.colours))

    @property
    def networks(self) -> list[tuple[str, str]]:
        """Each network and its colour, as drawn."""
        return list(dict(zip(self.groups, self.colours, strict=False)).items())


def order_regions(
    n_regions: int, networks: Sequence[str] | None, told: Sequence[str] | None = None
) -> RegionOrder:
    """Put regions of one network together, networks in the order of their first region.

    ``told`` are colours of the atlas's own, which count where all are there and tell
    the networks apart.

    >>> found = order_regions(3, ["Vis", "Def", "Vis"])
    >>> found.order.tolist(), found.groups, found.colours
    ([0, 2, 1], ('Vis', 'Vis', 'Def'), ('#0072b2', '#0072b2', '#e69f00'))
    """
    known = told is not None and all(_HEX.fullmatch(cell) for cell in told)
    own = list(told) if told is not None and known else []
    if networks is None or len(set(networks)) < 2:
        own = own or [DISTINCT[row % len(DISTINCT)] for row in range(n_regions)]
        return RegionOrder(np.arange(n_regions), (), tuple(own))
    rank = {name: number for number, name in enumerate(dict.fromkeys(networks))}
    order = np.argsort([rank[name] for name in networks], kind="stable")
    groups = tuple(networks[i] for i in order)
    # The colour of a network is that of its first region.
    firsts = [own[networks.index(name)] for name in rank] if own else []
    if len({colour.lower() for colour in firsts}) < len(rank):
        firsts = group_colours(len(rank))
    return RegionOrder(order, groups, tuple(firsts[rank[name]] for name in groups))


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
