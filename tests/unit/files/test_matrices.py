"""Square tables read by their upper half, held against float() cell by cell."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from bids_roi.errors import DataError, MissingInput
from bids_roi.files.matrices import (
    corner_of,
    parse_matrix,
    parse_triangle,
    read_keyed_matrix,
)
from bids_roi.files.tables import format_matrix, format_table, read_table, to_numbers

# What trips parsers: ties between two doubles, 17 digits, the ends of the range.
NASTY = [0.0, -0.0, 5e-324, -2.2250738585072014e-308, 1.7976931348623157e308, 1e22]
NASTY += [9007199254740993.0, 0.1 + 0.2, 1e-5, 123456.789, -1.0, 1 / 3, 8.5e-17]
NASTY += [
    math.nan,
    0.30000000000000004,
    2.0**-1074 * 3,
    1 - 2**-53,
    7450580596923828e-7,
]


def text_of(names, values):
    corner = corner_of(names)
    return "".join(format_matrix(names, values, rows=names, corner=corner)).encode()


def by_hand(content):
    """Cells of the upper half, by splitting and float()."""
    rows = content.decode().removesuffix("\n").split("\n")[1:]
    cells = [row.split("\t")[1 + k :] for k, row in enumerate(rows)]
    return np.array([float(c) if c != "n/a" else math.nan for r in cells for c in r])


numbers = st.one_of(st.floats(allow_infinity=False), st.sampled_from(NASTY))
words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)


@given(st.data(), st.lists(words, min_size=1, max_size=6, unique=True))
def test_upper_half_has_the_bits_of_float(data, names):
    n = len(names)
    values = np.array([[data.draw(numbers) for _ in range(n)] for _ in range(n)])
    content = text_of(names, values)
    found, triangle = parse_triangle(content, None)
    whole_names, whole = parse_matrix(content, None, nodes=True)
    assert found == whole_names
    for expected in (by_hand(content), whole[np.triu_indices(n)]):
        there = np.isfinite(expected)
        assert_array_equal(np.isnan(triangle), ~there)
        assert_array_equal(triangle[there].view("i8"), expected[there].view("i8"))


@pytest.mark.parametrize("n", [1, 2, 181, 300])
def test_upper_half_of_matrices_of_any_size(n):
    """More than are parsed at a time, and rows that are lost as a whole."""
    values = np.random.default_rng(n).normal(size=(n, n)) ** 5
    values[n // 2] = math.nan
    content = text_of([f"région {k}" for k in range(n)], values)
    _, triangle = parse_triangle(content, None)
    assert_array_equal(triangle, by_hand(content))
    assert_array_equal(triangle, values[np.triu_indices(n)])


def test_what_is_not_as_this_package_writes_it_is_read_whole():
    """Lines of Windows, a last line without an end, numbers that JSON does not know."""
    whole = b"Node\ta\tb\na\t1\t0.5\nb\t0.5\tn/a\n"
    expected = [1, 0.5, math.nan]
    for content in (whole, whole.replace(b"\n", b"\r\n"), whole[:-1]):
        names, found = parse_triangle(content, None)
        assert names == ("a", "b")
        assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"Node\ta\tb\na\t1\t0.5\nb\t0.5", "2 numbers"),
        (b"Node\ta\tb\na\t1\tx\nb\t0.5\t1\n", "2 numbers"),
        (b"Node\ta\tb\na\t1\t0.5\n", "not named"),
        (b"a\tb\tc\n1\t2\t3\n", "not named"),
    ],
)
def test_damage_is_told_as_where_the_whole_is_read(content, message):
    with pytest.raises(DataError, match=message):
        parse_triangle(content, "x.tsv")


@pytest.mark.parametrize("cell", ["n/l", "nula", "nu/", "a", "/", "n//a", "true1", "l"])
def test_what_is_nearly_missing_is_no_number(cell):
    for other in ("n/a", "1"):
        content = f"a\tb\n{other}\t0.5\n0.25\t{cell}\n".encode()
        with pytest.raises(DataError, match="not 2 numbers or n/a each"):
            parse_matrix(content, None)


@pytest.mark.parametrize("cell", ["n/l", "nan", "9/a", "/", "n/", "/a", "null1", "[1]"])
@pytest.mark.parametrize("other", ["n/a", "9e9", "1"])
def test_upper_half_with_what_is_nearly_missing_is_refused(cell, other):
    """Beside a cell that is missing, and one that is the number that stands for it."""
    content = f"Node\ta\tb\na\t{other}\t{cell}\nb\t{cell}\tn/a\n".encode()
    with pytest.raises(DataError, match="not 2 numbers or n/a each"):
        parse_triangle(content, None)


def test_what_is_nearly_missing_is_refused_behind_many_that_are():
    names = [f"r{k}" for k in range(90)]
    content = text_of(names, np.full((90, 90), math.nan))
    assert content.count(b"n/a\n") == 90
    content = content.replace(b"n/a\n", b"n/l\n")
    with pytest.raises(DataError, match="not 90 numbers or n/a each"):
        parse_triangle(content, None)


@pytest.mark.parametrize("other", ["9e9", "9000000000.0", "-9e9", "n/a", "1"])
def test_upper_half_tells_what_is_missing_from_any_number(other):
    content = f"Node\ta\tb\na\t{other}\tn/a\nb\tn/a\t9e9\n".encode()
    _, found = parse_triangle(content, None)
    assert_array_equal(found, by_hand(content))


def test_missing_cells_beside_names_with_their_letters():
    names = ("nula", "l/a n/a")
    content = text_of(names, np.array([[1, math.nan], [math.nan, -2.5]]))
    found, values = parse_matrix(content, None, nodes=True)
    assert found == names
    assert_array_equal(values, [[1, math.nan], [math.nan, -2.5]])


def test_keys_and_numbers_are_told_apart(tmp_path):
    path, rng = tmp_path / "a.tsv", np.random.default_rng(0)
    values = rng.normal(size=(300, 40))
    values[rng.random(values.shape) < 0.1] = np.nan
    keys = {
        "run_id": [f"run {n}" for n in range(300)],
        "task_id": [*("n/a", "über", 'say "x"') * 100],
    }
    columns = {f"R{n}": values[:, n].tolist() for n in range(40)}
    path.write_text(format_table(keys | columns), encoding="utf-8")
    told, names, found = read_keyed_matrix(path, {"task_id", "run_id", "R_7"})
    table = read_table(path)
    assert told == {key: table.pop(key) for key in keys}
    assert names == tuple(table)
    assert_array_equal(found, np.array([*map(to_numbers, table.values())]).T)
    assert_array_equal(found, values)
    told, names, found = read_keyed_matrix(path, {*keys, *columns})
    assert (len(told), names, found.shape) == (42, (), (0, 0))


@pytest.mark.parametrize("rows", ["1\tx\n", "1\n", "1\t2\n1\t2\t3\n", "\n"])
def test_what_is_no_table_of_keys_and_numbers_is_an_error(tmp_path, rows):
    path = tmp_path / "a.tsv"
    path.write_text(f"k\tA\n{rows}")
    with pytest.raises(DataError, match="no table of keys"):
        read_keyed_matrix(path, {"k"})
    with pytest.raises(MissingInput, match="cannot be read"):
        read_keyed_matrix(tmp_path / "b.tsv", {"k"})


def test_a_table_of_no_rows_has_its_regions(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("k\tA\tB\n")
    told, names, found = read_keyed_matrix(path, {"k"})
    assert (told, names, found.shape) == ({"k": []}, ("A", "B"), (0, 2))
