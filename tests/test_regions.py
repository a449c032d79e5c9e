"""Region tables: columns, names for a header, table against image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_roi.errors import AtlasError
from bids_roi.io.regions import (
    _unique_names,
    check_regions,
    read_regions,
    regions_from_labels,
)


def table(tmp_path, text, name="a.tsv"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "index", "names"),
    [
        ("index\tname\n2\tB\n1\tA\n", (2, 1), ("B", "A")),
        ("name\tindex\nA\t1\n", (1,), ("A",)),
        ("label\tname\n1\tA\n", (1,), ("A",)),  # label is the value
        ("index\tlabel\n1\tA\n", (1,), ("A",)),  # label is the name (AtlasPack)
        ("index\tname\n0\tBackground\n1\tA\n", (1,), ("A",)),
        ("index\tname\n0\t\n1\tA\n", (1,), ("A",)),
        ("index\tname\n1.0\tA\n", (1,), ("A",)),
        ("index\tname\n1\tA\n2\tA\n3\t\n", (1, 2, 3), ("A_1", "A_2", "region_3")),
    ],
)
def test_read(text, index, names, tmp_path):
    found = read_regions(table(tmp_path, text))
    assert found.index == index
    assert found.name == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index\tname\n0\tFrontal Pole\n1\tInsula\n", "add 1 to its index"),
        ("index\tname\n1\tA\n1\tB\n", "occur more than once"),
        ("a\tb\n1\t2\n", "index and name are needed"),
        ("index\tname\nx\tA\n", "index and name are needed"),
    ],
)
def test_bad_tables(text, message, tmp_path):
    with pytest.raises(AtlasError, match=message):
        read_regions(table(tmp_path, text))


@given(st.lists(st.text(max_size=4), min_size=1, max_size=6))
def test_names_are_always_a_header(names):
    index = list(range(1, len(names) + 1))
    found = _unique_names(index, names)
    assert len(set(found)) == len(found)
    for name in found:
        assert name
        assert name != "n/a"
        assert name.isprintable()
    assert found == _unique_names(index, names)


def check(tmp_path, rows, values):
    text = "index\tname\n" + "".join(f"{i}\tR{i}\n" for i in rows)
    path = table(tmp_path, text)
    return check_regions(read_regions(path), np.array(values), path)


def test_values_without_a_row_come_last_named_by_value(tmp_path):
    found, warnings = check(tmp_path, [3, 2, 1, 7], [0, 1, 2, 3, 9])
    assert found.index == (3, 2, 1, 7, 9)
    assert found.name[-1] == "region_9"
    assert "7" in warnings[0]
    assert "named by their value" in warnings[1]


@pytest.mark.parametrize(
    ("rows", "values", "message"),
    [
        ([1, 2, 3], [0], "only 0"),
        ([10, 11, 12, 13], [11, 12, 13, 14], "counts from 0.*Add 1"),
        ([1, 2, 3], [2001, 2002, 2101], "another atlas's table"),
    ],
)
def test_table_of_another_image(rows, values, message, tmp_path):
    with pytest.raises(AtlasError, match=message):
        check(tmp_path, rows, values)


def test_no_table():
    found = regions_from_labels(np.array([0, 500, 3]))
    assert found.index == (3, 500)
    assert found.name == ("region_3", "region_500")
