"""First rows of the demo's tables, where README.md and docs/ have a marker for them.

    python docs/first_rows.py demo/derivatives README.md docs/outputs.md

A marker is a line ``<!-- first rows: FILE: COLUMN ... -->``, FILE a pattern of which
the first match counts. Numbers are cut to six digits; dots say that there is more.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

__all__ = ["fill_in_rows"]

_MARKER = re.compile(
    r"^<!-- first rows: (\S+): ([^>]+) -->\n(?:\n(?:\|.*\n)+)?", re.MULTILINE
)
_SHOWN = 5


def fill_in_rows(text: str, results: Path) -> str:
    """Put the table below each marker.

    Parameters
    ----------
    text
        Of a page.
    results
        Outputs of the demo, both levels.
    """

    def table(found: re.Match[str]) -> str:
        path = min(results.rglob(found[1]))
        columns = found[2].split()
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        cells = [[_short(row[name]) for name in columns] for row in rows[:_SHOWN]]
        if len(rows) > _SHOWN:
            cells.append(["..."] * len(columns))
        lines = [columns, ["---"] * len(columns), *cells]
        marker = f"<!-- first rows: {found[1]}: {found[2]} -->\n"
        return marker + "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)

    return _MARKER.sub(table, text)


def _short(value: str) -> str:
    if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", value):
        return f"{float(value):.6g}"
    return value


if __name__ == "__main__":
    for name in sys.argv[2:]:
        page = Path(name)
        filled = fill_in_rows(page.read_text(encoding="utf-8"), Path(sys.argv[1]))
        page.write_text(filled, encoding="utf-8")
