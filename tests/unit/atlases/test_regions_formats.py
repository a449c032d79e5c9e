"""Formats of region tables: one example each, and what is no table."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_roi.atlases.regions import parse_table, read_raw_table
from bids_roi.errors import AtlasError, MissingInput

FSL = """<?xml version="1.0" encoding="ISO-8859-1"?>
<atlas version="1.0"><header><name>X</name><type>{kind}</type></header>
<data><label index="0" x="1" y="2" z="3">Frontal Pole</label>
<label index="1" x="1" y="2" z="3">Heschl&apos;s Gyrus</label></data></atlas>
"""
COLOURS = """#No. Label Name:     R   G   B   A
0   Unknown           0   0   0   0
2   Left-Cerebral-White-Matter  245 245 245 0

1035 ctx-lh-insula  255 192 32 0
"""


def read(tmp_path, text, name="a.tsv"):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return read_raw_table(path)


@pytest.mark.parametrize(
    ("name", "text", "index", "names"),
    [
        ("a.tsv", "index\tname\n2\tB\n1\tA\n", (2, 1), ("B", "A")),
        ("a.tsv", "name\tindex\nA\t1\n", (1,), ("A",)),
        ("a.tsv", "label\tname\n1\tA\n", (1,), ("A",)),  # label is the value
        ("a.tsv", "index\tlabel\n1\tA\n", (1,), ("A",)),  # label is the name
        ("a.tsv", "Component\tDifumo_names\tGM\n1\tA\t0.5\n", (1,), ("A",)),
        ("a.tsv", 'index\tname\n0\t"Unknown"\n1\tA \n', (0, 1), ("Unknown", "A")),
        ("a.tsv", "index\tname\txyz\n0\tB\n1\tA\t3\n", (0, 1), ("B", "A")),
        ("a.tsv", "index\tname\n1.0\tA\n", (1,), ("A",)),
        ("a.tsv", "\ufeffindex\tname\n1\tA\n", (1,), ("A",)),
        ("a.csv", "id,label,hemisphere\n7,A,L\n", (7,), ("A",)),
        ("a.csv", 'index;name\n1;"A;B"\n', (1,), ("A;B",)),
        ("a.csv", "0,null,,,\n1,A,,,\n2,B\n", (0, 1, 2), ("null", "A", "B")),
        ("a.txt", "A_L\nA_R\n", (1, 2), ("A_L", "A_R")),
        ("a.txt", "1 Left Caudate\n7 Right Caudate\n", (1, 7), None),
        ("a.txt", COLOURS, (0, 2, 1035), None),
        ("a.ctab", COLOURS, (0, 2, 1035), None),
        ("a.xml", FSL.format(kind="Probabalistic"), (1, 2), None),
        ("a.xml", FSL.format(kind="Label"), (0, 1), ("Frontal Pole", "Heschl's Gyrus")),
    ],
)
def test_read(name, text, index, names, tmp_path):
    found = read(tmp_path, text, name)
    assert found.index == index
    if names is not None:
        assert found.name == names


def test_further_columns_stay(tmp_path):
    found = read(tmp_path, "index\tname\tcolor\tnet\n1\tA\t#fff\tVis\n")
    assert found.extra == (("color", ("#fff",)), ("net", ("Vis",)))
    assert read(tmp_path, COLOURS, "a.txt").extra[0][1][1] == "#f5f5f5"


def test_what_is_odd_is_told(tmp_path):
    def checks(text, name="a.tsv"):
        found = read(tmp_path, text, name).findings
        return {(finding.severity, finding.check) for finding in found}

    assert checks("index\tname\n1\tA\n") == set()
    assert checks("index\tname\r\n1\tA\r\n") == {("note", "line ends")}
    assert checks("0,null\n1,A\n", "a.csv") == {("note", "no header")}
    assert checks("A\nB\n", "a.txt") == {("warning", "no index")}
    assert checks(FSL.format(kind="Probabilistic"), "a.xml") == {
        ("corrected", "FSL index")
    }


def test_names_and_values_of_xcpengine(tmp_path):
    (tmp_path / "xNodeIndex.1D").write_text("2001\n2002\n")
    found = read(tmp_path, "A\nB\n", "xNodeNames.txt")
    assert (found.index, found.name) == ((2001, 2002), ("A", "B"))
    with pytest.raises(AtlasError, match=r"3 names, and 2 values in xNodeIndex\.1D"):
        read(tmp_path, "A\nB\nC\n", "xNodeNames.txt")
    (tmp_path / "xNodeIndex.1D").write_text("2001\nx\n")
    with pytest.raises(AtlasError, match="one label value a line"):
        read(tmp_path, "A\nB\n", "xNodeNames.txt")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "", "empty"),
        ("a.tsv", "a\tb\n1\t2\n", "columns are a, b; index and name are needed"),
        ("a.tsv", "index\tname\nx\tA\n", "index and name are needed"),
        ("a.tsv", "index\tname\n1\tA\tB\n", "row 2 has 3 cells, the header has 2"),
        ("a.tsv", "index\tname\n1\n", "row 2 has 1 cells"),
        ("a.tsv", "index\tname\tname\n1\tA\tB\n", "name occur more than once"),
        ("a.txt", "1 A\nB\n", "some lines begin with a number"),
        ("a.xml", "<?xml version='1.0'?><atlas/>", "not FSL's kind"),
        ("a.xml", "<?xml version='1.0'?><label>A</label>", "no index"),
    ],
)
def test_what_is_no_table(name, text, message, tmp_path):
    with pytest.raises(AtlasError, match=message):
        read(tmp_path, text, name)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(MissingInput, match="cannot be read"):
        read_raw_table(tmp_path / "a.tsv")
    (tmp_path / "b.tsv").write_bytes(b"index\tname\n1\t\xff\xfe\n")
    with pytest.raises(AtlasError, match="UTF-8"):
        read_raw_table(tmp_path / "b.tsv")


@given(st.text(max_size=60), st.sampled_from([".tsv", ".csv", ".txt", ".xml"]))
def test_any_text_is_a_table_or_an_error_of_ours(text, suffix):
    try:
        found = parse_table(text, Path(f"any{suffix}"))
    except AtlasError:
        return
    assert len(found.index) == len(found.name)
    assert all(len(cells) == len(found.index) for _, cells in found.extra)
