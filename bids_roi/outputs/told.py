"""Facts of sidecars that tables of many runs need, as small as they can be kept."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from bids_roi.outputs.schema import KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bids_roi.errors import BidsRoiError


# Numbers of a run that tables of many runs need.
NUMBERS = [
    key.name
    for key in KEYS.values()
    if key.column or (key.role == "measured" and {"relmat", "group"} <= {*key.outputs})
]
# Where each number lies among the bytes of all, and as what.
Layout = dict[str, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Told:
    """What the sidecars of many outputs say alike; nothing where one is not sound."""

    # Whether the atlas is the participant's own.
    own: bool = False
    atlas: str = ""
    # Of all that decides the numbers: with the atlas image, or without it where each
    # participant has one of his own.
    digest: str = ""
    # Whether the sidecar of a matrix says that it holds Fisher's z.
    fisher_z: bool | None = None
    # Why no entry of a matrix has a value; empty where some have.
    absent: str = ""
    # Of the task that a matrix is of; empty for the whole run.
    condition: str = ""
    # Whether a matrix was made of series on disk, of which it has the digests.
    of_tables: bool = False
    # Why the sidecar cannot be used, if so.
    error: BidsRoiError | None = None


# One copy of each.
tell = lru_cache(maxsize=1024)(Told)


# A dictionary of each sidecar's numbers takes five times as much, and most of it says
# what all sidecars say: which numbers there are.
def pack_numbers(numbers: Mapping[str, float]) -> tuple[Layout, bytes]:
    """Numbers in eight bytes each, whole ones as such; and where each of them lies."""
    kinds = "".join(["q" if type(n) is int else "d" for n in numbers.values()])
    return _lay_out(*numbers, kinds=kinds), struct.pack(f"={kinds}", *numbers.values())


@lru_cache(maxsize=1024)
def _lay_out(*keys: str, kinds: str) -> Layout:
    return {key: (f"={kinds[n]}", 8 * n) for n, key in enumerate(keys)}


def unpack_number(key: str, layout: Layout, numbers: bytes) -> float | None:
    """One of the numbers, ``None`` where it is not among them."""
    there = layout.get(key)
    if there is None:
        return None
    kind, place = there
    value: float = struct.unpack_from(kind, numbers, place)[0]
    return value


def pack_digest(digest: str) -> bytes | str:
    """Half as many bytes as it has digits; one that is none stays a text."""
    try:
        packed = bytes.fromhex(digest)
    except ValueError:
        return digest
    return packed if packed.hex() == digest else digest


def unpack_digest(packed: bytes | str) -> str:
    """Give the digest as it was."""
    return packed if isinstance(packed, str) else packed.hex()
