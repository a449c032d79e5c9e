"""What a check found: one row of the table that ``check-atlas`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


# From what stops the work to what is good to know.
SEVERITIES = ("error", "warning", "corrected", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about an atlas.

    Attributes
    ----------
    severity
        ``error``: the atlas is not used. ``warning``: it is used as it is, and the
        outputs say so. ``corrected``: something was safely put right, and the outputs
        say so. ``note``: good to know; only ``check-atlas`` says it.
    check
        Which check speaks, a word or two.
    text
        What was found, and what was needed.
    fix
        What to do about it.
    """

    severity: str
    check: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        """Text and fix in one line."""
        return f"{self.text} {self.fix}".rstrip()


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity; their order stays otherwise."""
    return sorted(findings, key=lambda f: SEVERITIES.index(f.severity))
