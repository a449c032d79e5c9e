"""The table of faults names tests that are there, and leaves out none of the runs'."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
KINDS = ("runs", "files", "making", "places", "closed")
PAGE = TESTS.parent / "docs" / "faults.md"


def names_in(*patterns):
    for pattern in patterns:
        for path in sorted(TESTS.rglob(pattern)):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    yield node.name


def rows():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [line.strip("|").split("|") for line in lines]


def test_every_row_names_a_test_that_exists():
    there = set(names_in("test_*.py"))
    named = [re.findall(r"`(test_\w+)`", row[-1]) for row in rows()]
    titles = [row for row, names in zip(rows(), named, strict=True) if not names]
    assert len(titles) == 4  # two headings and the lines under them
    assert {name for names in named for name in names} <= there
    assert {len(row) for row in rows()} == {4}


def test_no_fault_is_left_out():
    page = PAGE.read_text()
    helpers = {"test_whole_file_reads_as_it_was_written"}
    shown = set(names_in(*(f"test_faults_{kind}.py" for kind in KINDS))) - helpers
    assert {name for name in shown if f"`{name}`" not in page} == set()
