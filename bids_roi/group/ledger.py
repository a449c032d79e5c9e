"""Group files: named, written whole, remembered, removed when out of date."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from bids_roi.files.names import format_name
from bids_roi.files.tables import format_json, write_file
from bids_roi.outputs.find import LEDGER, PLACE, SCOPE, list_group_files
from bids_roi.outputs.records import sidecar_of
from bids_roi.outputs.schema import format_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


class Ledger:
    """Writer of group files, which keeps a list of them in ``logs/``.

    What an earlier call wrote and this one did not, matrices of a strategy that is gone
    for example, would look as if it belonged to the rest. Only files that are in the
    list are ever removed. A name enters it before the file is written, so that a call
    that is interrupted leaves nothing behind that nobody knows of. ``written`` are the
    names of the tables, in order.
    """

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.written: list[str] = []
        self._claimed: set[str] = set()
        self._known = set(list_group_files(output_dir))

    def write(
        self,
        name: str,
        text: str | Iterable[str],
        sidecar: Mapping[str, Any],
        columns: Mapping[str, str],
        *,
        warnings: Sequence[str] = (),
    ) -> None:
        """Write a table and its sidecar, which describes columns."""
        beside = sidecar_of(name)
        self.claim(name, beside)
        told = format_sidecar("group", sidecar, columns, warnings=warnings)
        write_file(self.output_dir, beside, told)
        write_file(self.output_dir, name, text)
        self.written.append(name)

    def claim(self, *names: str) -> None:
        """Say that files at the root are ours, before they are written."""
        self._claimed.update(names)
        if not self._known.issuperset(names):
            self._known.update(names)
            self._save()

    def close(self) -> list[str]:
        """Remove what is out of date; returns the names."""
        stale = sorted(self._known - self._claimed)
        for name in stale:
            with contextlib.suppress(OSError):
                (self.output_dir / name).unlink(missing_ok=True)
        self._known = set(self._claimed)
        self._save()
        return stale

    def find_others(self) -> list[str]:
        """List what looks like group files and is of no call that is remembered."""
        there = (path.name for path in self.output_dir.glob("group_*.*"))
        ours = {name for name in there if name.endswith((".tsv", ".json", ".h5"))}
        return sorted(ours - self._known)

    def _save(self) -> None:
        content = {
            "Description": "Files that the group level has written.",
            "Files": sorted(self._known),
        }
        write_file(self.output_dir, LEDGER, format_json(content))


def name_group_file(
    suffix: str,
    *,
    place: tuple[str, ...],
    scope: tuple[str, ...] = (),
    stat: str = "",
    desc: str = "",
) -> str:
    """Name a group table.

    >>> name_group_file("coverage", place=("", "T1w", "", "A", "", "", "2", ""))
    'group_space-T1w_atlas-A_res-2_coverage.tsv'
    """
    entities = [*zip(SCOPE, scope, strict=False), *zip(PLACE, place, strict=True)]
    return "group_" + format_name(
        [*entities, ("stat", stat), ("desc", desc)], suffix, ".tsv"
    )
