"""Labels of surfaces and grayordinates, with the tables that such files hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bids_roi.errors import AtlasError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Label:
    """A row of a file's own table.

    Attributes
    ----------
    key
        Value in the data. FreeSurfer packs the colour into it, so that 32 bits with a
        sign do not hold all of them.
    name
        Stripped; may be blank, or the same in two rows.
    rgba
        Red, green, blue and opacity, 0 to 1; NaN where the file has none.
    """

    key: int
    name: str
    rgba: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False, slots=True)
class LabelledPoints:
    """One map of labels.

    Attributes
    ----------
    keys : (V,)
        Of each point, int64, in the order of the file; 0 is background.
    table
        In the order of the file, the background included.
    map_name
        Which map of the file this is; blank where maps have no names.
    told
        What the user should know of the choice; blank for most.
    """

    keys: NDArray[np.int64]
    table: tuple[Label, ...]
    map_name: str = ""
    told: str = ""

    def __post_init__(self) -> None:
        """Refuse a key of the data that means two things."""
        found = set(np.unique(self.keys).tolist()) - {0}
        known: dict[int, str] = {}
        for label in self.table:
            name = known.setdefault(label.key, label.name)
            if name != label.name and label.key in found:
                msg = (
                    f"the label table gives the key {label.key} to {name!r} and to"
                    f" {label.name!r}."
                )
                remedy = "Make the table again with one row for each key."
                raise AtlasError(msg, remedy=remedy)

    @property
    def unnamed(self) -> tuple[int, ...]:
        """Keys in the data, 0 aside, that the table lacks."""
        known = {label.key for label in self.table} | {0}
        return tuple(k for k in np.unique(self.keys).tolist() if k not in known)


def choose_map(names: list[str], wanted: str | None) -> tuple[int, str]:
    """Choose one of a file's maps.

    Parameters
    ----------
    names
        Of all maps, in order; may be blank.
    wanted
        A name, or a number from 1; ``None`` takes the first.

    Returns
    -------
    number, told
        From 0; and what to tell where nobody chose and there are several, or where a
        number is the name of another map, which wins.

    Raises
    ------
    AtlasError
        If there is no such map, or several of this name.
    """
    listed = ", ".join(f"{i} {name!r}" for i, name in enumerate(names[:20], 1))
    listed += ", ..." if len(names) > 20 else ""
    if wanted is None:
        told = (
            f"The file holds {len(names)} maps ({listed}); the first is used. Choose"
            " one by its name or number behind a #, IMAGE#2."
        )
        return 0, told if len(names) > 1 else ""
    found = [i for i, name in enumerate(names) if name == wanted]
    number = int(wanted) if re.fullmatch("[0-9]{1,9}", wanted) else 0
    if 1 <= number <= len(names):
        found = found or [number - 1]
    if len(found) != 1:
        n_maps = len(found) or "no"
        msg = f"{n_maps} maps are called {wanted!r}; the file holds {listed}."
        raise AtlasError(msg, remedy="Choose a map by its number, IMAGE#2.")
    told = ""
    if 1 <= number <= len(names) and number - 1 not in found:
        told = (
            f"{wanted!r} is the name of map {found[0] + 1}, which is used, and not map"
            f" {number} ({names[number - 1]!r})."
        )
    return found[0], told
