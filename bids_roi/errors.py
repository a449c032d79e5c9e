"""What can go wrong, what it means for the exit code, and how it is said.

The tree::

    BidsRoiError            1    one or more runs failed
    +-- UsageError         64    the command line cannot be carried out
    |   +-- LevelError     17    unknown analysis level
    |   +-- NothingFound   18    the entity filters selected no file
    +-- DataError          65    a file holds something that cannot be used
    |   +-- ImageError     65    a BOLD or mask image
    |   +-- AtlasError     65    an atlas image or its table
    |   |   +-- SpaceMismatch    an atlas that is good, but of another space
    |   +-- CollisionError 65    two inputs for one output
    |   +-- ConfoundsError 65    a confounds table or a denoising strategy
    +-- MissingInput       66    a file or folder is absent or unreadable
    +-- OutputError        73    an output cannot be created

Exit codes follow the BIDS Apps execution specification. A message has four parts:
what failed, where (the file), found versus needed with units, and what to do.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import TextIO

__all__ = [
    "AtlasError",
    "BidsRoiError",
    "CollisionError",
    "ConfoundsError",
    "DataError",
    "ImageError",
    "LevelError",
    "MissingInput",
    "NothingFound",
    "OutputError",
    "SpaceMismatch",
    "UsageError",
]

FETCH_AGAIN = "Fetch or copy it again; `gzip -t` tests a .gz file."


# What a disk, a mount or a network says when it fails, whatever the file is like.
_OF_THE_DISK = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "ENODEV", "ENXIO", "EREMOTEIO"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENOLINK"),
        *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ECOMM", "ESHUTDOWN"),
    )
    if hasattr(errno, name)
)


def is_of_the_disk(error: OSError) -> bool:
    """Whether a disk, mount or network failed, which says nothing of the file."""
    return error.errno in _OF_THE_DISK


def remedy_of(error: OSError, otherwise: str) -> str:
    """What to do about a file that cannot be read, by what the system says."""
    if is_of_the_disk(error):
        return "Check the disk or network, and run the same command again."
    return otherwise


def say(text: str, program: str = "bids_roi") -> None:
    """Write a line to standard error; where that cannot be, nothing else is lost."""
    try:
        sys.stderr.write(f"{program}{text}\n")
        sys.stderr.flush()
    except OSError:
        give_up_on(sys.stderr)


def give_up_on(stream: TextIO) -> None:
    """Say no more there: what is in its buffer would fail again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def count_of(n: int, word: str) -> str:
    """Number and noun.

    >>> count_of(1, "run"), count_of(8, "run")
    ('1 run', '8 runs')
    """
    return f"{n} {word}{'' if n == 1 else 's'}"


def say_of_atlas(name: str, text: str) -> str:
    """Message on an atlas, which it names once.

    >>> say_of_atlas("A", "atlas A is in T1w."), say_of_atlas("A", "no such file.")
    ('atlas A is in T1w.', 'atlas A: no such file.')
    """
    return text if f"atlas {name} " in text else f"atlas {name}: {text}"


def say_time(seconds: float) -> str:
    """Say how long it took.

    >>> say_time(7.4), say_time(3599.9), say_time(8000)
    ('7 s', '60 min', '2 h 13 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return (
        f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
    )


def nearest_words(word: str, known: Iterable[str]) -> list[str]:
    """Words that a misspelt one may stand for, nearest first.

    >>> nearest_words("schafer400", ["CHARM", "schaefer", "schaefer400"])
    ['schaefer400']
    >>> nearest_words("--task", ["--mask", "--task-label"])
    ['--task-label', '--mask']
    """
    written = word.casefold()
    # One slip in three letters, at least one; a beginning counts as less than a slip.
    most = max(1, len(written.strip("-")) // 3)
    found = []
    for place, candidate in enumerate(known):
        other = candidate.casefold()
        slips: float = _count_slips(written, other)
        if len(written) > 2 and other.startswith(written):
            slips = min(slips, 0.5 if other[len(written) :][:1] in ("-", "_") else 1)
        if slips <= most:
            found.append((slips, place, candidate))
    least = min((slips for slips, *_ in found), default=0)
    return [name for slips, _, name in sorted(found) if slips < least + 1][:3]


def _count_slips(first: str, second: str) -> int:
    """Letters to add, drop, change or swap with their neighbour between two words."""
    # Optimal string alignment (Boytsov 2011, doi:10.1145/1963190.1963191): rows of the
    # table of distances between beginnings, of which the last two are needed.
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        before, above, row = row, before, [i]
        for j, other in enumerate(second, 1):
            best = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other))
            swapped = i > 1 and j > 1 and first[i - 2] == other
            if swapped and letter == second[j - 2]:
                best = min(best, above[j - 2] + 1)
            row.append(best)
    return row[-1]


class BidsRoiError(Exception):
    """A failure that the user can understand and act upon.

    Parameters
    ----------
    problem
        What failed, found versus needed, with units; a sentence with its full stop.
    where
        The file or folder it concerns, relative to the dataset where that is shorter.
    remedy
        What to do about it; one sentence or more.
    """

    exit_code = 1

    def __init__(self, problem: str, *, where: object = "", remedy: str = "") -> None:
        self.problem = problem
        self.where = str(where)
        self.remedy = remedy
        super().__init__(problem)

    def __str__(self) -> str:
        """Join the parts: ``where: problem remedy``; no control characters.

        A file may hold, or be called, what would steer a terminal or forge a log.
        """
        text = f"{_shown(self.where)}: {self.problem}" if self.where else self.problem
        lines = f"{text} {self.remedy}".rstrip().split("\n")
        return "\n".join(map(_shown, lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling with all parts, so that workers can send it home."""
        return _rebuild, (type(self), self.problem, self.where, self.remedy)


def _shown(text: str) -> str:
    """Text with all that is not printable written out, as Python does."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _rebuild(
    kind: type[BidsRoiError], problem: str, where: str, remedy: str
) -> BidsRoiError:
    return kind(problem, where=where, remedy=remedy)


class UsageError(BidsRoiError):
    """The command line contradicts itself or names something unknown."""

    exit_code = 64


class LevelError(UsageError):
    """The analysis level is neither participant nor group."""

    exit_code = 17


class NothingFound(UsageError):
    """The dataset is there, but no file passes the filters."""

    exit_code = 18


class DataError(BidsRoiError):
    """A file was read and holds something that cannot be used."""

    exit_code = 65


class ImageError(DataError):
    """A BOLD or mask image is damaged, or is not what its name says."""


class AtlasError(DataError):
    """An atlas image or its region table cannot be used."""


class SpaceMismatch(AtlasError):
    """An atlas is not in the run's space: the run is skipped, nothing is at fault."""


class CollisionError(DataError):
    """Two inputs would be written to one output name."""


class ConfoundsError(DataError):
    """A confounds table or a denoising strategy cannot be used."""


class MissingInput(BidsRoiError):
    """An input file or folder is absent or cannot be read."""

    exit_code = 66


class OutputError(BidsRoiError):
    """An output cannot be created."""

    exit_code = 73


def damaged_file(
    path: Path, problem: Exception, error: type[DataError] = AtlasError
) -> DataError:
    """Error for a file that cannot be read to its end."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    msg = f"the file cannot be read: it is damaged or cut short ({text})."
    return error(msg, where=path, remedy=FETCH_AGAIN)


def shorten_reason(text: str) -> str:
    """Leave the first sentence of a message, and of files in it the names.

    The whole of it, with what to do, is told once, when it happens.

    >>> shorten_reason("/in/sub-1/a_bold.nii.gz: it is truncated. Copy it again.")
    'a_bold.nii.gz: it is truncated.'
    """
    first = re.split(r"(?<=[.!?])\s+(?=[A-Z`])", text.partition("\n")[0])[0]
    return re.sub(r"(?<!\S)/(?:[^\s/]+/)+(?=[^\s/])", "", first)
