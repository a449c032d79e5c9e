"""TSV and JSON: what is written reads back to the same bits; bad files say why."""

import csv
import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from bids_roi.errors import DataError, OutputError
from bids_roi.files.tables import (
    format_json,
    format_matrix,
    format_table,
    read_json,
    read_table,
    to_numbers,
    write_file,
)


@given(arrays(np.float64, (3, 2), elements=st.floats(allow_infinity=False)))
def test_matrix_reads_back_to_the_same_bits(values):
    text = "".join(format_matrix(["a", "nan"], values))
    header, *rows = csv.reader(text.splitlines(), delimiter="\t")
    assert header == ["a", "nan"]
    found = [[np.nan if c == "n/a" else float(c) for c in row] for row in rows]
    assert_array_equal(np.array(found), values)


def test_long_matrix_comes_in_pieces_with_every_row():
    values = np.arange(300_000.0).reshape(-1, 3)
    pieces = list(format_matrix(["a", "b", "c"], values))
    assert len(pieces) > 3
    lines = "".join(pieces).splitlines()
    assert len(lines) == 100_001
    found = [float(line.split("\t")[1]) for line in lines[1:]]
    assert_array_equal(found, values[:, 1])


def test_table_round_trip(tmp_path):
    path = tmp_path / "t.tsv"
    write_file(
        path.parent, path.name, format_table({"index": [1, 2], "name": ["a", ""]})
    )
    assert read_table(path) == {"index": ["1", "2"], "name": ["a", "n/a"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("a\ta\n1\t2\n", "more than once"),
        ("a\tb\n1\n", "row 2 has 1 cells, the header has 2"),
    ],
)
def test_bad_table(text, message, tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(path)


def test_table_with_windows_line_ends_mark_and_blank_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffindex,name,,\r\n1, V1 ,,\r\n\r\n".encode())
    assert read_table(path) == {"index": ["1"], "name": ["V1"]}


CELLS = st.text(
    st.sampled_from(
        ["a", "1", " ", "\t", "\t", "\n", '"', "\r", "\u00a0", "\x0b", "\0"]
    ),
    max_size=24,
)


def row_by_row(path, most):
    """Columns as the csv module reads them; ``None`` for what is to be refused."""
    try:
        with path.open(encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter="\t", strict=True))
    except csv.Error:
        return None
    header, *rows = [
        [cell.strip() for cell in row] for row in rows if "".join(row).strip()
    ] or [[]]
    named = [name for name in header if name]
    odd = [row for row in rows if len(row) != len(header)]
    if not header or odd or len(rows) > most or len({*named}) < len(named):
        return None
    return {n: [row[k] for row in rows] for k, n in enumerate(header) if n}


@given(text=CELLS.map("a\tb\n{}".format) | CELLS, most=st.integers(0, 4))
def test_columns_are_those_of_the_csv_module(text, most, tmp_path_factory):
    """Blank and ragged rows, quotes, line ends in cells, blanks of all kinds."""
    path = tmp_path_factory.getbasetemp() / "drawn.tsv"
    path.write_bytes(text.encode())
    expected = row_by_row(path, most)
    if expected is None:
        with pytest.raises(DataError):
            read_table(path, max_rows=most)
    else:
        assert read_table(path, max_rows=most) == expected


@pytest.mark.parametrize("rows", ["1\t{}\n", "1\t2\n" * 70000 + "1\t{}\n"])
def test_cell_longer_than_the_csv_module_takes_is_refused(rows, tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("a\tb\n" + rows.format("x" * csv.field_size_limit()))
    assert len(read_table(path)["b"][-1]) == csv.field_size_limit()
    path.write_text("a\tb\n" + rows.format("x" * (csv.field_size_limit() + 1)))
    with pytest.raises(DataError, match="field larger than field limit"):
        read_table(path)


def test_file_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "x.json"
    write_file(path.parent, path.name, format_json({"a": 1}))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"No space left.*free space"):
        write_file(path.parent, path.name, "other")
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_read_json(tmp_path):
    (tmp_path / "a.json").write_text('{"A": [1]}')
    assert read_json(tmp_path / "a.json") == {"A": [1]}
    with pytest.raises(
        DataError, match=r"gone\.json: the file cannot be read \(No such"
    ):
        read_json(tmp_path / "gone.json")


@pytest.mark.parametrize(
    "cells",
    [
        ["0.1", "n/a", "-3", "1e-300", "17976931348623157" + "0" * 292],
        ["nan", "inf", " 1 ", "1.", ".5", "+2", "01"],  # float() takes them, JSON not
        ["n/a"],
        [],
    ],
)
def test_numbers_have_the_bits_of_float(cells):
    expected = [math.nan if cell == "n/a" else float(cell) for cell in cells]
    found = to_numbers(cells)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "cell", ["true", "null", "[1]", '"5"', "1,2", "", "n/an/a", "-n/a", "0.5x", "{}"]
)
def test_what_is_no_number_is_refused(cell):
    """JSON knows more than numbers."""
    for cells in ([cell], ["0.5", cell, "n/a"]):
        with pytest.raises(ValueError, match="could not convert"):
            to_numbers(cells)
