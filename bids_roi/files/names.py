"""BIDS file names to entities and back: strings only, nothing is looked up."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


_ENTITY = re.compile(r"([A-Za-z]+)-(.+)")


@dataclass(frozen=True, slots=True)
class BidsName:
    """The parts of a file name.

    Attributes
    ----------
    entities
        ``(key, label)`` pairs in the order of the name; labels as written, so that the
        padding of ``run-01`` survives.
    suffix
        What stands after the last entity, ``bold`` for example.
    extension
        All from the first dot on, ``.nii.gz`` for example.
    foreign
        The parts that are no entity: ``old`` of ``old_sub-01_bold.nii.gz``.
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str
    extension: str
    foreign: str = ""

    def get(self, key: str) -> str | None:
        """Label of an entity, ``None`` where the name has none."""
        return dict(self.entities).get(key)


def parse_name(path: str | PurePath) -> BidsName:
    """Split a file name.

    >>> parse_name("sub-01/func/sub-01_task-rest_run-01_bold.nii.gz").entities
    (('sub', '01'), ('task', 'rest'), ('run', '01'))
    """
    name = path.name if isinstance(path, PurePath) else PurePath(path).name
    stem, dot, extension = name.partition(".")
    *pairs, last = stem.split("_")
    entities, foreign = [], []
    for part in pairs:
        match = _ENTITY.fullmatch(part)
        if match is None:
            foreign.append(part)
        else:
            entities.append((match[1], match[2]))
    return BidsName(tuple(entities), last, dot + extension, "_".join(foreign))


def format_name(
    entities: Iterable[tuple[str, str | None]], suffix: str, extension: str
) -> str:
    """Join a file name; entities without a label are left out.

    >>> format_name([("sub", "01"), ("ses", None)], "bold", ".nii.gz")
    'sub-01_bold.nii.gz'
    """
    parts = [f"{key}-{label}" for key, label in entities if label]
    return "_".join([*parts, suffix]) + extension
