"""A BOLD run: the files of its series, and what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bids_roi.dataset.query import kind_of
from bids_roi.files.names import parse_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bids_roi.errors import BidsRoiError


@dataclass(frozen=True, slots=True)
class BoldRun:
    """One preprocessed BOLD series with its partners.

    Or a session whose folder cannot be listed, as a run with this ``error``.
    """

    root: Path  # root of the derivative, absolute
    # The series: one file, or those of the left and the right hemisphere. Absolute;
    # links are not followed.
    files: tuple[Path, ...]
    # (key, label) pairs of the file name, in its order and as written there; without
    # hemi where both hemispheres are there
    entities: tuple[tuple[str, str], ...]
    # The brain mask on the same grid; None where there is none, or where another mask
    # or none was asked for
    mask_path: Path | None
    confounds_path: Path | None  # the confounds table; None where there is none
    metadata: Mapping[str, Any] = field(hash=False)  # the sidecars that apply, merged
    warnings: tuple[str, ...] = ()  # what was wrong with the sidecars
    # Why the run cannot be used: two files could be its mask, for example
    error: BidsRoiError | None = field(default=None, compare=False)

    @property
    def path(self) -> Path:
        """The file that the run goes by: the only one, or the left hemisphere's."""
        return self.files[0]

    @property
    def is_session(self) -> bool:
        """Whether it stands for all runs of a session that cannot be listed."""
        return self.path.parent.parent == self.root

    @property
    def kind(self) -> str:
        """What the series is: a key of ``KINDS``."""
        return kind_of(parse_name(self.path).extension) or "volume"

    @property
    def relative_path(self) -> str:
        """The file's path below the root, with forward slashes."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def participant(self) -> str:
        """Label of the participant, without ``sub-``."""
        return self.entity("sub") or ""

    @property
    def session(self) -> str | None:
        """Label of the session, without ``ses-``."""
        return self.entity("ses")

    @property
    def space(self) -> str | None:
        """Label of the space; ``None`` for the series' own (native) space."""
        return self.entity("space")

    @property
    def sides(self) -> dict[str, Path]:
        """Files by hemisphere, ``L`` and ``R``; blank for what has none."""
        return {dict(parse_name(f).entities).get("hemi", ""): f for f in self.files}

    def entity(self, key: str) -> str | None:
        """Label of an entity, ``None`` where the name has none."""
        return dict(self.entities).get(key)
