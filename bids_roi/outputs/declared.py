"""Keys of sidecars and columns of tables: what is declared of each."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

Of = Literal["run", "series", "regions", "relmat", "outliers", "group"]
Role = Literal["choice", "source", "measured", "text"]

# Outputs whose sidecars have a key, where its declaration does not say.
_WHERE = {"run": "series regions relmat", "series": "series relmat"}


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a sidecar.

    ``of`` is what it tells something of; a number of the run holds for each of its
    series. ``role`` is what a page makes of it: ``choice``, chosen or given by run and
    atlas, is among the parameters; ``source`` (files, digests, definitions) and
    ``measured`` are in the list of all keys only; ``text`` is said elsewhere. ``text``
    describes its column too, ``column`` is its name in tables of many runs, ``more``
    what docs/outputs.md says besides. ``where`` are the outputs whose sidecars have it,
    where that does not follow from ``of``; ``copied`` ones come from the sidecar of the
    BOLD file; ``stacked`` ones are in stacks and ``Outputs.runs`` too; the column of
    an ``optional`` one is in tables only where a run has a value.
    """

    name: str
    of: Of
    role: Role
    unit: str
    text: str
    column: str = ""
    _: KW_ONLY
    where: str = ""
    more: str = ""
    copied: bool = False
    stacked: bool = True
    optional: bool = False

    @property
    def outputs(self) -> list[str]:
        """Outputs whose sidecars have it."""
        return (self.where or _WHERE.get(self.of, self.of)).split()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table of a run: its description has ``{unit}`` for the unit.

    That is of its numbers, ``1`` where they have none; empty for words.
    """

    name: str
    text: str
    unit: str = ""

    @property
    def description(self) -> str:
        """Its description, with the unit."""
        return self.text.format(unit=self.unit)
