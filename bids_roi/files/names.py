"""BIDS file names to entities and back: strings only, nothing is looked up."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


_ENTITY = re.compile(r"([A-Za-z]+)-(.+)")
# Entities in the order of BIDS 1.11's schema; stat-, which it does not have, as drafts
# and XCP-D place it.
_IN_ORDER = """
sub tpl ses cohort sample task tracksys acq nuc voi ce trc stain rec dir run mod echo
flip inv mt part proc hemi space split recording chunk atlas seg scale res den label
stat desc
"""
_PLACES = {key: place for place, key in enumerate(_IN_ORDER.split())}
_INDICES = {"run", "echo", "flip", "inv", "split", "chunk"}
_WORDS = {
    "part": ("mag", "phase", "real", "imag"),
    "hemi": ("L", "R"),
    "mt": ("on", "off"),
}


@dataclass(frozen=True, slots=True)
class BidsName:
    """The parts of a file name."""

    # ``(key, label)`` pairs in the order of the name; labels as written, so that the
    # padding of ``run-01`` survives.
    entities: tuple[tuple[str, str], ...]
    # What stands after the last entity, ``bold`` for example.
    suffix: str
    # All from the first dot on, ``.nii.gz`` for example.
    extension: str
    # The parts that are no entity: ``old`` of ``old_sub-01_bold.nii.gz``.
    foreign: str = ""

    def get(self, key: str) -> str | None:
        """Label of an entity, ``None`` where the name has none."""
        return dict(self.entities).get(key)


def parse_name(path: str | PurePath) -> BidsName:
    """Split a file name.

    >>> parse_name("sub-01/func/sub-01_task-rest_run-01_bold.nii.gz").entities
    (('sub', '01'), ('task', 'rest'), ('run', '01'))
    """
    # A path of each name of 10,000 runs takes longer than the rest.
    return _parse(path.name if isinstance(path, PurePath) else path.rpartition("/")[2])


@functools.lru_cache(maxsize=4096)  # as many look at each name of a participant
def _parse(name: str) -> BidsName:
    stem, dot, extension = name.partition(".")
    *pairs, last = stem.split("_")
    found = list(map(_parse_entity, pairs))
    entities, foreign = tuple(entity for entity in found if entity), ""
    if len(entities) < len(found):
        foreign = "_".join(part for part in pairs if not _parse_entity(part))
    return BidsName(entities, last, dot + extension, foreign)


# One copy for all names: those of 10,000 runs would take 40 MB.
@functools.lru_cache(maxsize=4096)
def _parse_entity(part: str) -> tuple[str, str] | None:
    match = _ENTITY.fullmatch(part)
    return None if match is None else (match[1], match[2])


def sort_entities(
    entities: Iterable[tuple[str, str | None]],
) -> list[tuple[str, str | None]]:
    """Put entities into the order of the schema; unknown ones stay behind theirs.

    >>> sort_entities([("sub", "1"), ("desc", "x"), ("run", "1"), ("acq", "y")])
    [('sub', '1'), ('acq', 'y'), ('run', '1'), ('desc', 'x')]
    """
    place, placed = -1, []
    for pair in entities:
        place = _PLACES.get(pair[0], place)
        placed.append((place, pair))
    return [pair for _, pair in sorted(placed, key=lambda item: item[0])]


def find_invalid_labels(entities: Iterable[tuple[str, str]]) -> list[str]:
    """Say which labels BIDS does not allow, and what it does.

    >>> find_invalid_labels([("sub", "01"), ("run", "post"), ("acq", "a.b")])
    ['run-post (a number is needed)', 'acq-a.b (letters, digits and + are allowed)']
    """
    found = []
    for key, label in entities:
        words = _WORDS.get(key, (label,))
        if key in _INDICES and not re.fullmatch(r"[0-9]+", label):
            found.append(f"{key}-{label} (a number is needed)")
        elif not re.fullmatch(r"[0-9A-Za-z+]+", label):
            found.append(f"{key}-{label} (letters, digits and + are allowed)")
        elif label not in words:
            found.append(f"{key}-{label} ({', '.join(words)} are allowed)")
    return found


def format_name(
    entities: Iterable[tuple[str, str | None]], suffix: str, extension: str
) -> str:
    """Join a file name; entities without a label are left out.

    >>> format_name([("sub", "01"), ("ses", None)], "bold", ".nii.gz")
    'sub-01_bold.nii.gz'
    """
    parts = [f"{key}-{label}" for key, label in entities if label]
    return "_".join([*parts, suffix]) + extension
