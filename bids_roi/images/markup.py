"""XML inside images, which may be damaged or hostile: expat, with bounds."""

from __future__ import annotations

import contextlib
import functools
import gzip
import zlib
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from bids_roi.errors import DataError, ImageError, MissingInput
from bids_roi.images.header import FETCH_AGAIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


PIECE = 2**16  # bytes: what they unpack to, at most 1,032 times as much, fits in memory
_MOST_MARKUP = 2**20  # bytes of one tag or comment, which expat holds until its end
_MOST_ELEMENTS = 2**19
_DEEPEST = 32
_WRITE_AGAIN = "Write the file again with the software that made it."


@contextlib.contextmanager
def located(path: Path, kind: type[DataError]) -> Iterator[None]:
    """Tell the file of what goes wrong inside, as an error of one kind.

    Raises
    ------
    DataError
        Of class ``kind``, or of one below it.
    MissingInput
        If the file cannot be opened.
    """
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
    """Parse piece by piece; after each, and at the end, the caller gets to act.

    Raises
    ------
    ImageError
        If it is not XML, or one tag of it goes on without end.
    """
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
    """Parse a document that is in memory; the tree is not to be changed.

    Raises
    ------
    ImageError
        If it is not XML, or not of the size of any image's.
    """
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
    """Whole number that an attribute holds.

    Raises
    ------
    ImageError
        If it holds none, or one out of bounds.
    """
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
