"""Pictures with their words, and the sums that make long data short."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


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


def measure_image(content: bytes, extension: str) -> tuple[int, int] | None:
    """Width and height of a picture in pixels of a page; ``None`` for what is none."""
    found = re.search(rb'<svg[^>]*? width="([\d.]+)" height="([\d.]+)', content)
    if extension != ".svg" or found is None:
        return None
    return round(float(found[1])), round(float(found[2]))


def bin_size(n: int, most: int) -> int:
    """How many neighbours share a bin, so that at most ``most`` bins are needed.

    >>> bin_size(300, 300), bin_size(301, 300), bin_size(3000, 300)
    (1, 2, 10)
    """
    return max(1, -(-n // most))


def bin_rows(values: NDArray[Any], most: int) -> NDArray[np.float64]:
    """Mean of neighbouring rows, so that at most ``most`` are left.

    NaN does not count; a bin of nothing else is NaN. The last may hold fewer rows.
    """
    return _bin(values, most, np.nanmean)


def bin_peaks(values: NDArray[Any], most: int) -> NDArray[np.float64]:
    """Highest value of neighbouring rows; otherwise as ``bin_rows``."""
    return _bin(values, most, np.nanmax)


def _bin(values: NDArray[Any], most: int, function: Any) -> NDArray[np.float64]:  # noqa: ANN401
    size = bin_size(len(values), most)
    result = np.asarray(values, dtype=np.float64)
    if size == 1:
        return result
    n_bins = -(-len(result) // size)
    padded = np.full((n_bins * size, *result.shape[1:]), np.nan)
    padded[: len(result)] = result
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # bins without a number
        return np.asarray(
            function(padded.reshape(n_bins, size, *result.shape[1:]), axis=1)
        )
