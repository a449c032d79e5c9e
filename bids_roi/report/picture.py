"""What a figure is once it is drawn: bytes, and the words that go with it."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Picture", "count", "measure_image", "shorten"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One figure, or the data of one that the page draws itself.

    Attributes
    ----------
    kind
        ``motion``, ``design``, ``contours``, ``coverage``, ``carpet``, ``relmat`` or
        ``signals``.
    content
        The file.
    extension
        Of the file, with its dot.
    title, caption
        For the reader.
    alt
        The same for those who do not see the picture.
    facts
        Numbers that the page takes from it; plain JSON values.
    """

    kind: str
    content: bytes
    extension: str
    title: str
    caption: str
    alt: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def count(number: int, word: str) -> str:
    """Number with its word, in the plural where need be.

    >>> count(1, "region"), count(1200, "volume")
    ('1 region', '1,200 volumes')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def shorten(words: str, length: int) -> str:
    """Words of at most ``length`` characters.

    >>> shorten("abcdef", 4)
    'abc\u2026'
    """
    if len(words) <= length:
        return words
    return words[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def measure_image(content: bytes, extension: str) -> tuple[int, int] | None:
    """Width and height at which a picture is shown, in pixels of a page.

    Parameters
    ----------
    content
        A PNG of two pixels for one of the page, or an SVG in points.
    extension
        ``None`` is returned for others than ``.png`` and ``.svg``.
    """
    if extension == ".png":
        width, height = struct.unpack(">II", content[16:24])
        return width // 2, height // 2
    found = re.search(rb'<svg[^>]*? width="([\d.]+)pt" height="([\d.]+)pt"', content)
    if extension != ".svg" or found is None:
        return None
    width, height = (round(float(size) * 4 / 3) for size in found.groups())
    return width, height
