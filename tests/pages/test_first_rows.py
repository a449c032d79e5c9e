"""First rows of tables that README.md and the pages show, against the demo's."""

import csv
import importlib.util
import re

import pytest
from support.doc_blocks import ROOT

_spec = importlib.util.spec_from_file_location("rows", ROOT / "docs/first_rows.py")
first_rows = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(first_rows)

SHOWN = ["README.md", "docs/outputs.md"]


@pytest.fixture(scope="module")
def demo(demo_call):
    return demo_call[0] / "derivatives"


@pytest.mark.parametrize("name", SHOWN)
def test_rows_are_those_of_the_demo(name, demo):
    """As its files have them: read here by themselves, cell by cell."""
    text = (ROOT / name).read_text(encoding="utf-8")
    marked = re.compile(r"^<!-- first rows: (\S+):.*\n\n((?:\|.*\n)+)", re.MULTILINE)
    tables = marked.findall(text)
    assert len(tables) == text.count("<!-- first rows:") > 0
    for pattern, table in tables:
        with min(demo.rglob(pattern)).open(encoding="utf-8", newline="") as file:
            there = list(csv.DictReader(file, delimiter="\t"))
        lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
        columns, _, *shown = lines
        for cells, row in zip(shown[:5], there, strict=False):
            for cell, value in zip(cells, (row[c] for c in columns), strict=True):
                try:
                    assert float(cell) == pytest.approx(float(value), rel=1e-5), pattern
                except ValueError:
                    assert cell == value, pattern
        assert len(shown) == min(6, len(there))


def test_a_page_is_filled_in_anew(demo):
    """What stands below a marker is replaced, and nothing else."""
    marker = "<!-- first rows: group_qcfc.tsv: desc_id n_edges -->"
    old = f"before\n\n{marker}\n\n| a |\n|---|\n| 1 |\n\nafter | x |\n"
    new = first_rows.fill_in_rows(old, demo)
    assert new.startswith(
        f"before\n\n{marker}\n\n| desc_id | n_edges |\n| --- | --- |\n"
    )
    assert "| 36P | 496 |\n" in new
    assert new.endswith("\n| ... | ... |\n\nafter | x |\n")
    assert first_rows.fill_in_rows(new, demo) == new
