"""XML of CIFTI and GIFTI files, and the label tables that such files hold."""

from __future__ import annotations

import contextlib
import functools
import gzip
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from bids_roi.errors import (
    FETCH_AGAIN,
    AtlasError,
    DataError,
    ImageError,
    MissingInput,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


PIECE = 2**16  # bytes: what they unpack to, at most 1,032 times as much, fits in memory
_MOST_MARKUP = 2**20  # bytes of one tag or comment, which expat holds until its end
_MOST_ELEMENTS = 2**19
_DEEPEST = 32
_WRITE_AGAIN = "Write the file again with the software that made it."


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

    ``wanted`` is a name, or a number from 1; ``None`` takes the first. Returns a number
    from 0, and what to tell where nobody chose and there are several, or where a number
    is the name of another map, which wins.
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


@contextlib.contextmanager
def located(path: Path, kind: type[DataError]) -> Iterator[None]:
    """Tell the file of what goes wrong inside, as an error of one kind."""
    try:
        yield
    except DataError as error:
        own = type(error) if issubclass(type(error), kind) else kind
        where = error.where or path
        raise own(error.problem, where=where, remedy=error.remedy) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        msg = f"the file is damaged or cut short ({error})."
        raise kind(msg, where=path, remedy=FETCH_AGAIN) from error
    except OSError as error:
        msg = f"the file cannot be read ({error.strerror or error})."
        raise MissingInput(msg, where=path, remedy="Check its permissions.") from error


def new_parser() -> expat.XMLParserType:
    """Parser that expands nothing of the file's own (no bombs) and reads UTF-8 only."""
    parser = expat.ParserCreate("UTF-8")
    parser.buffer_text = True
    parser.buffer_size = PIECE
    parser.StartDoctypeDeclHandler = _refuse_own_types
    return parser


def _refuse_own_types(
    _name: str,
    _system: str | None,
    _public: str | None,
    has_internal_subset: bool,  # noqa: FBT001 - expat calls it so
) -> None:
    """Let pass what GIFTI files begin with; refuse a DTD that is written out."""
    if has_internal_subset:
        msg = "the XML brings its own document type (<!DOCTYPE ... [...]>)."
        raise ImageError(msg, remedy="No imaging software writes that: do not use it.")


def feed(parser: expat.XMLParserType, pieces: Iterator[bytes]) -> Iterator[None]:
    """Parse piece by piece; after each, and at the end, the caller gets to act."""
    given = 0
    try:
        for piece in pieces:
            parser.Parse(piece, False)  # noqa: FBT003
            given += len(piece)
            if given - parser.CurrentByteIndex > _MOST_MARKUP:
                msg = f"a tag of the XML is longer than {_MOST_MARKUP // 2**20} MiB."
                raise ImageError(msg, remedy=FETCH_AGAIN)
            yield
        parser.Parse(b"", True)  # noqa: FBT003
    except expat.ExpatError as error:
        msg = f"the XML is broken ({error})."
        raise ImageError(msg, remedy=FETCH_AGAIN) from error
    yield


# Runs of a dataset mostly have one XML, to the number of volumes.
@functools.lru_cache(maxsize=2)
def parse_tree(xml: bytes) -> Element:
    """Parse a document that is in memory; the tree is not to be changed."""
    parser, tree = new_parser(), TreeBuilder()
    depth = n_elements = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, n_elements
        depth, n_elements = depth + 1, n_elements + 1
        if depth > _DEEPEST or n_elements > _MOST_ELEMENTS:
            msg = (
                f"the XML has more than {_MOST_ELEMENTS:,} elements, or they are nested"
                f" deeper than {_DEEPEST}."
            )
            raise ImageError(msg, remedy=_WRITE_AGAIN)
        tree.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        tree.end(tag)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = tree.data
    for _ in feed(parser, (xml[i : i + PIECE] for i in range(0, len(xml), PIECE))):
        pass
    return tree.close()


def whole(text: str | None, what: str, *, least: int = 0, most: int = 2**31) -> int:
    """Whole number that an attribute holds."""
    try:
        number = int(text or "")
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        msg = f"{what} is {(text or '')[:40]!r}; {least:,} to {most:,} can be used."
        raise ImageError(msg, remedy=_WRITE_AGAIN)
    return number


def parse_real(text: str | None) -> float:
    """Number that a text holds; NaN where it holds none."""
    try:
        return float(text or "")
    except ValueError:
        return float("nan")
