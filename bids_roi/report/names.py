"""Names of the figures of a table, and of the list of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bids_roi.io.tables import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["figure_path", "has_figures", "report_path"]

_DESC = re.compile(r"_desc-([A-Za-z0-9]+)_([A-Za-z0-9]+)$")


def figure_path(table: str, kind: str, extension: str) -> str:
    """Name a figure after the table that it shows; both relative to the output folder.

    >>> figure_path("sub-1/ses-2/func/sub-1_ses-2_atlas-A_dseg.tsv", "contours", ".png")
    'sub-1/figures/sub-1_ses-2_atlas-A_desc-contours_dseg.png'
    >>> figure_path("sub-1/func/sub-1_desc-36P_timeseries.tsv", "carpet", ".svg")
    'sub-1/figures/sub-1_desc-36PCarpet_timeseries.svg'
    """
    stem = table.rpartition("/")[2].removesuffix(".tsv")
    found = _DESC.search(stem)
    if found:
        whole = f"{found[1]}{kind[0].upper()}{kind[1:]}"
        stem = f"{stem[: found.start()]}_desc-{whole}_{found[2]}"
    else:
        head, _, suffix = stem.rpartition("_")
        stem = f"{head}_desc-{kind}_{suffix}"
    return f"{table.partition('/')[0]}/figures/{stem}{extension}"


def report_path(table: str) -> str:
    """Name the list of the figures of a table."""
    return figure_path(table, "report", ".json")


def has_figures(output_dir: Path, tables: Iterable[str]) -> bool:
    """Tell whether the figures of all tables were drawn and are still there."""
    for table in tables:
        listed = output_dir / report_path(table)
        if not listed.is_file():
            return False
        figures = read_json(listed).get("Figures", [])
        if not all((listed.parent / f["File"]).is_file() for f in figures):
            return False
    return True
