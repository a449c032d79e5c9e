"""Region tables: names for a header, sides, what is corrected and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_roi.atlases.regions import (
    RawTable,
    append_values,
    build_regions,
    keep_regions,
    name_by_value,
    sides_of,
)


def build(index, names, extra=()):
    return build_regions(RawTable(tuple(index), tuple(names), extra))


def severities(findings):
    return {(f.severity, f.check) for f in findings}


def test_the_order_of_the_table_stays():
    table, findings = build([500, 3, 40000], ["B", "A", "C"])
    assert table.index == (500, 3, 40000)
    assert table.name == ("B", "A", "C")
    assert findings == ()


@pytest.mark.parametrize("name", ["Background", "unknown", "???", "", "empty", "null"])
def test_row_0_that_is_background_goes(name):
    table, findings = build([0, 1], [name, "A"])
    assert table.index == (1,)
    assert severities(findings) == {("note", "background")}


def test_row_0_that_is_a_region_stays_for_the_check_against_the_image():
    table, _ = build([0, 1], ["Frontal Pole", "Insula"])
    assert table.index == (0, 1)


def test_blank_and_repeated_names_are_made_unique_and_kept():
    table, findings = build([1, 2, 3, 4], ["A", "A", "", "n/a"])
    assert table.name == ("A_1", "A_2", "region_3", "region_4")
    assert table.original_name == ("A", "A", "", "n/a")
    assert severities(findings) == {
        ("corrected", "blank names"),
        ("corrected", "duplicate names"),
    }


def test_the_side_makes_names_unique_before_the_index_does():
    extra = (("hemisphere", ("L", "R", "B")),)
    table, _ = build([1, 2, 3], ["insula", "insula", "brainstem"], extra)
    assert table.name == ("insula_L", "insula_R", "brainstem")


def test_repeated_index_is_an_error():
    table, findings = build([1, 1, 2], ["A", "A", "B"])
    assert ("error", "duplicate index") in severities(findings)
    assert len(set(table.name)) == 3


def test_a_table_without_regions_is_an_error():
    _, findings = build([0], ["Background"])
    assert ("error", "empty table") in severities(findings)


@given(
    st.lists(st.tuples(st.integers(1, 12), st.text(max_size=4)), min_size=1, max_size=8)
)
def test_names_are_always_a_header(rows):
    index, names = zip(*rows, strict=True)
    table, findings = build(index, names)
    assert len(set(table.name)) == len(table.name)
    assert all(n and n != "n/a" and n.isprintable() for n in table.name)
    assert table.original_name == names
    assert build(index, names) == (table, findings)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("7Networks_LH_Vis_1", "L"),
        ("RH_Default_PCC_9", "R"),
        ("Left-Thalamus", "L"),
        ("ctx-rh-insula", "R"),
        ("Precentral_L", "L"),
        ("R_Precentral_gyrus", "R"),
        ("Intraparietal sulcus posterior LH", "L"),
        ("left-caudate", "L"),
        ("l_prefrontal_cortex", "L"),
        ("Brain-Stem", ""),
        ("Cerebellum Crus II", ""),
        ("Lateral ventricle", ""),
        ("Rolandic_Oper", ""),
        ("Left and Right", ""),
    ],
)
def test_sides(name, side):
    assert sides_of([name]) == (side,)


def test_a_column_of_sides_counts_before_the_names():
    assert sides_of(["a", "b"], [("hemi", ("lh", "right"))]) == ("L", "R")
    # a column that tells nothing leaves it to the names
    assert sides_of(["a LH", "b"], [("hemisphere", ("n/a", "n/a"))]) == ("L", "")


def test_values_without_a_row_come_last_named_by_value():
    table, _ = build([2, 1], ["B", "A"], (("net", ("x", "y")),))
    longer = append_values(table, [9])
    assert longer.index == (2, 1, 9)
    assert longer.name == ("B", "A", "region_9")
    assert longer.extra == (("net", ("x", "y", "")),)


def test_a_part_of_a_table_keeps_its_order():
    table, _ = build([3, 1, 2], ["C", "A", "B"])
    assert keep_regions(table, {1, 3}).name == ("C", "A")


def test_no_table():
    assert name_by_value([3, 500]).name == ("region_3", "region_500")
