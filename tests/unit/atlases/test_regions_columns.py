"""Which column holds the label values: right names for right regions, or an error."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_roi.atlases.checks import check_columns
from bids_roi.atlases.names import AtlasKey
from bids_roi.atlases.open import AtlasFiles, examine_atlas
from bids_roi.atlases.regions import build_regions, parse_table
from bids_roi.images.nifti import write_image

RAS = np.diag([2.0, 2, 2, 1])
RAS[:3, 3] = [-9, -10, -10]
NAMES = [f"area{letter}" for letter in "ABCDEFGHIJ"]
KEYS = [11, 12, 14, 17, 23, 24, 31, 38, 40, 57]


def examine(tmp_path, text, values, *, suffix="tsv", maps=False):
    """Findings of a table with an image that holds the values (or so many maps)."""
    table, image = tmp_path / f"t.{suffix}", tmp_path / "mine.nii.gz"
    table.write_text(text)
    if maps:
        write_image(image, np.ones((5, 5, 5, len(values)), np.float32), RAS)
    else:
        labels = np.zeros((5, 5, 5), np.int32)
        labels.flat[: len(values)] = values
        write_image(image, labels, RAS)
    return examine_atlas(AtlasFiles(AtlasKey("Toy"), "native", image, table))


def tabulate(*, sep="\t", **columns):
    rows = zip(*columns.values(), strict=True)
    lines = [sep.join(columns), *(sep.join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def told(findings):
    return [(f.severity, f.check) for f in findings if f.check == "index column"]


ERROR = [("error", "index column")]
ROWS = range(1, 11)


@pytest.mark.parametrize("name", ["KEYVALUE", "label", "value", "Label Value", "x7"])
@pytest.mark.parametrize("start", [0, 1, 11])
def test_a_row_number_beside_the_values_of_the_image(name, start, tmp_path):
    """From 11, the numbers overlap the values in part."""
    rows = range(start, start + 10)
    text = tabulate(index=rows, name=NAMES, **{name: KEYS})
    atlas, findings = examine(tmp_path, text, KEYS)
    assert atlas is None
    first = next(f for f in findings if f.severity == "error")
    assert first.check == "index column"
    assert f"'{name}'" in first.text
    assert "'index'" in first.text
    assert f"'{name}'" in first.fix
    # the remedy is one
    text = tabulate(number=rows, index=KEYS, name=NAMES)
    atlas, findings = examine(tmp_path, text, KEYS)
    assert not told(findings)
    assert dict(zip(atlas.regions.index, atlas.regions.name, strict=True)) == dict(
        zip(KEYS, NAMES, strict=True)
    )


@pytest.mark.parametrize(
    ("index", "other", "values", "expected"),
    [
        # regions were lost from the image, or are in it without a row
        (ROWS, KEYS, KEYS[2:], ERROR),
        (ROWS, KEYS, [*KEYS, 99], ERROR),
        # counted from 0, the values are 1..N in another order
        (range(10), [3, 1, 2, 10, 9, 4, 5, 6, 7, 8], list(ROWS), ERROR),
        # both fit, in two orders: nothing tells which is right
        (ROWS, [3, 1, 2, 10, 9, 4, 5, 6, 7, 8], list(ROWS), ERROR),
        (ROWS, [3, 1, 2, 10, 9, 4, 5, 6, 7, 8], list(range(3, 11)), ERROR),
        # a row number beside a good index
        (KEYS, ROWS, KEYS, []),
        (KEYS[::-1], ROWS, KEYS, []),
        ([3, 1, 2, 10, 9, 4, 5, 6, 7, 8], ROWS, list(ROWS), []),
        (KEYS, range(10), KEYS[:4], []),
        # of no use as label values: repeated, other numbers, the same
        (ROWS, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4], list(ROWS), []),
        (ROWS, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4], [1, 2, 3, 4, 9, 10], []),
        (ROWS, [v * 100 for v in ROWS], list(range(1, 6)), []),
        (ROWS, list(ROWS), list(range(1, 6)), []),
        # says the same of those that it names
        (ROWS, [1, 2, 3, 4, *["n/a"] * 6], [1, 2, 3, 4], []),
        # no whole numbers
        (ROWS, [v + 0.5 for v in KEYS], KEYS[:1], []),
        (ROWS, [*KEYS[:-1], "x"], KEYS, []),
        # blank in a row that the image does not have
        (ROWS, [*KEYS[:-1], ""], KEYS[:-1], ERROR),
        (ROWS, [f"{v}.0" for v in KEYS], KEYS, ERROR),
    ],
)
def test_other_columns(index, other, values, expected, tmp_path):
    text = tabulate(index=index, value=other, name=NAMES)
    atlas, findings = examine(tmp_path, text, values)
    assert told(findings) == expected
    if expected:
        assert atlas is None


def test_another_order_under_a_name_of_no_label_values_is_a_warning(tmp_path):
    order = [3, 1, 2, 10, 9, 4, 5, 6, 7, 8]
    text = tabulate(index=ROWS, homologue=order, name=NAMES)
    atlas, findings = examine(tmp_path, text, list(ROWS))
    assert told(findings) == [("warning", "index column")]
    assert "'homologue'" in atlas.warnings[0]


def test_a_background_row_counts_for_neither(tmp_path):
    text = tabulate(index=range(11), KEYVALUE=[0, *KEYS], name=["Background", *NAMES])
    assert told(examine(tmp_path, text, KEYS)[1]) == ERROR


def test_an_index_of_another_name(tmp_path):
    """`id` is taken for the index where there is none, whatever it holds."""
    text = tabulate(id=ROWS, intensity=KEYS, region=NAMES)
    _, findings = examine(tmp_path, text, KEYS)
    assert "'id'" in next(f for f in findings if f.severity == "error").text


def test_numbers_are_no_names_where_there_are_words(tmp_path):
    text = tabulate(index=KEYS, label=ROWS, region=NAMES)
    atlas, _ = examine(tmp_path, text, KEYS)
    assert list(atlas.regions.name) == NAMES
    text = tabulate(index=ROWS, label=KEYS, region=NAMES)
    assert told(examine(tmp_path, text, KEYS)[1]) == ERROR


def test_columns_without_a_header(tmp_path):
    lines = tabulate(a=ROWS, b=NAMES, c=KEYS, sep=",").partition("\n")[2]
    _, findings = examine(tmp_path, lines, KEYS, suffix="csv")
    assert told(findings) == ERROR
    assert "'column 3'" in next(f.text for f in findings if f.severity == "error")


def test_repeated_row_numbers_name_the_other_column_too(tmp_path):
    text = tabulate(index=[1, 2, 3, 4, 5] * 2, key=KEYS, name=NAMES)
    assert told(examine(tmp_path, text, KEYS)[1]) == ERROR


@pytest.mark.parametrize(
    ("index", "other", "expected"),
    [
        (range(10), ROWS, []),  # both number the maps
        (ROWS, [3, 1, 2, 10, 9, 4, 5, 6, 7, 8], ERROR),
        (range(10), [3, 1, 2, 10, 9, 4, 5, 6, 7, 8], ERROR),
        (KEYS, ROWS, ERROR),
    ],
)
def test_maps(index, other, expected, tmp_path):
    text = tabulate(index=index, value=other, name=NAMES)
    assert told(examine(tmp_path, text, list(ROWS), maps=True)[1]) == expected


@given(
    st.permutations(range(1, 9)),
    st.sets(st.integers(1, 300), min_size=8, max_size=8).flatmap(
        lambda s: st.permutations(sorted(s))
    ),
    st.data(),
)
def test_no_name_goes_to_another_region_without_a_word(rows, keys, data):
    """The truth is ``value``; whatever passes in silence gives the right names."""
    kept = data.draw(st.sets(st.sampled_from(keys), min_size=4))
    names = NAMES[:8]
    raw = parse_table(
        tabulate(index=sorted(rows), value=keys, name=names), Path("t.tsv")
    )
    table, _ = build_regions(raw)
    found = check_columns(table, raw.index_column, sorted(kept))
    truth = dict(zip(keys, names, strict=True))
    given_names = dict(zip(table.index, table.name, strict=True))
    wrong = [v for v in kept if given_names.get(v) not in (None, truth[v])]
    if wrong or not any(v in given_names for v in kept):
        assert [f.severity for f in found] == ["error"]
