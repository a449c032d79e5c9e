"""Table against image: the finding expected of each thing that goes wrong."""

import dataclasses
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_roi.atlases.checks import check_file_name, check_maps, check_values
from bids_roi.atlases.names import AtlasKey
from bids_roi.atlases.open import AtlasFiles, examine_atlas, open_atlas
from bids_roi.atlases.regions import RawTable, build_regions
from bids_roi.errors import AtlasError, MissingInput
from bids_roi.images.nifti import write_image

RAS = np.diag([2.0, 2, 2, 1])
RAS[:3, 3] = [-9, -10, -10]


def table(index, names=None):
    names = names or [f"R{value}" for value in index]
    return build_regions(RawTable(tuple(index), tuple(names)))[0]


def checks(findings):
    return [(finding.severity, finding.check) for finding in findings]


@pytest.mark.parametrize(
    ("rows", "values", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], []),
        ([3, 500, 40000], [3, 500, 40000], []),
        ([1, 2, 3], [], [("error", "empty image")]),
        # 0..N-1 over 1..N
        ([0, 1, 2], [1, 2, 3], [("error", "off by one")]),
        ([0, 1, 4, 5], [1, 2, 3, 4, 5, 6], [("error", "off by one")]),
        ([10, 11, 12, 13], [11, 12, 13, 14], [("error", "off by one")]),
        ([2, 3, 4], [1, 2, 3], [("error", "off by one")]),
        # a shift that fits as well is none
        ([1, 2, 3, 4], [2, 3, 4], [("warning", "absent regions")]),
        # row 0 is a region, and no shift explains it
        ([0, 1, 2, 3], [1, 2, 3], [("error", "index 0")]),
        ([1, 2, 3], [2001, 2002, 2101], [("error", "another table")]),
        # 120 names of one edition, 116 labels of the other
        (range(1, 121), range(1, 117), [("error", "another edition")]),
        # lost regions leave gaps, they do not renumber
        ([1, 2, 3, 5], [1, 2, 3], [("warning", "absent regions")]),
        ([1, 2, 3], [1, 2, 3, 7], [("warning", "unnamed values")]),
    ],
)
def test_values(rows, values, expected):
    assert checks(check_values(table(rows), list(values))) == expected


def test_the_fix_is_named():
    zero = check_values(table([0, 1, 2]), [1, 2, 3])[0]
    assert "counts from 0" in zero.text
    assert zero.fix == "Add 1 to the index column."
    ahead = check_values(table([2, 3, 4]), [1, 2, 3])[0]
    assert ahead.fix == "Take 1 from the index column."
    edition = check_values(table(range(1, 121)), range(1, 117))[0]
    assert "117, 118, 119, 120" in edition.fix


@given(st.sets(st.integers(1, 60), min_size=2), st.data())
def test_a_table_that_holds_every_value_is_never_off_by_one(values, data):
    """Regions may be lost from the image; the table may be in any order."""
    kept = data.draw(st.sets(st.sampled_from(sorted(values)), min_size=1))
    found = check_values(
        table(data.draw(st.permutations(sorted(values)))), sorted(kept)
    )
    assert ("error", "off by one") not in checks(found)


@pytest.mark.parametrize(
    ("rows", "n_maps", "expected"),
    [
        ([1, 2, 3], 3, []),
        ([3, 1, 2], 3, []),
        ([0, 1, 2], 3, [("corrected", "index of maps")]),
        ([1, 2], 3, [("error", "number of maps")]),
        ([1, 2, 7], 3, [("error", "index of maps")]),
    ],
)
def test_maps(rows, n_maps, expected):
    assert checks(check_maps(table(rows), n_maps)) == expected


@pytest.mark.parametrize(
    ("names", "file", "n_maps", "expected"),
    [
        (["7Networks_LH_Vis_1"], "x_7Networks_dseg.nii.gz", 0, []),
        (["17Networks_LH_VisCent_1"], "x_7Networks.nii", 0, ["order of networks"]),
        (["LH_Vis_1", "RH_Cont_2"], "a_17Networks_order.nii", 0, ["order of networks"]),
        (["LH_VisCent_ExStr_1"], "schaefer400x7.nii", 0, ["order of networks"]),
        # names of other atlases among them say nothing, wherever they stand
        (["LH_Vis_1", "Left-Caudate"], "a_17Networks.nii", 0, ["order of networks"]),
        (["Left-Caudate", "LH_Vis_1"], "a_7Networks.nii", 0, []),
        (
            ["LH_Caudate_1", "17Networks_RH_ContA_PFCl_1", "region_9"],
            "a_7Networks.nii",
            0,
            ["order of networks"],
        ),
        (["LH_Caudate_1", "RH_Vermis_2"], "a_7Networks.nii", 0, []),
        # both orders have a network of this name
        (["LH_Limbic_TempPole_1"], "a_17Networks.nii", 0, []),
        (["LH_Limbic_TempPole_1"], "a_7Networks.nii", 0, []),
        (["V1"], "x_probseg.nii.gz", 0, ["suffix"]),
        (["V1"], "x_dseg.nii.gz", 64, ["suffix"]),
        (["V1"], "x_dseg.nii.gz", 0, []),
    ],
)
def test_file_names(names, file, n_maps, expected):
    regions = table(range(1, len(names) + 1), names)
    found = check_file_name(regions, file, n_maps=n_maps)
    assert [finding.check for finding in found] == expected


def two_sided(n_pairs=4):
    """Regions 1, 3, ... at negative x, 2, 4, ... at positive x."""
    labels = np.zeros((10, 11, 11), np.int16)
    for pair in range(n_pairs):
        labels[0:3, 2 * pair, 3:6] = 2 * pair + 1
        labels[7:10, 2 * pair, 3:6] = 2 * pair + 2
    return labels


def write(tmp_path, data, rows=None, *, affine=RAS, name="tpl-X_atlas-A_dseg.nii.gz"):
    """Files of an atlas of an image and the lines of its table."""
    image, path = tmp_path / name, None
    write_image(image, data, affine)
    if rows is not None:
        path = tmp_path / "a.tsv"
        path.write_text("index\tname\n" + "".join(f"{i}\t{n}\n" for i, n in rows))
    return AtlasFiles(AtlasKey("A"), "X", image, path)


SIDED = [(n, f"V{(n + 1) // 2}_{'RL'[n % 2]}") for n in range(1, 9)]


def test_sides_that_agree(tmp_path):
    atlas, findings = examine_atlas(write(tmp_path, two_sided(), SIDED))
    assert checks(findings) == [("note", "sides")]
    assert atlas.warnings == ()


def test_a_flipped_image_is_an_error(tmp_path):
    with pytest.raises(AtlasError, match=r"8 of 8 regions.*V1_L: L, but mean x \+"):
        open_atlas(write(tmp_path, two_sided()[::-1], SIDED))


def test_las_and_ras_say_the_same(tmp_path):
    turn = np.eye(4)
    turn[0, 0], turn[0, 3] = -1, 9
    files = write(tmp_path, two_sided()[::-1].copy(), SIDED, affine=RAS @ turn)
    assert checks(examine_atlas(files)[1]) == [("note", "sides")]


def test_one_pair_exchanged_is_a_warning(tmp_path):
    rows = [(1, "V1_R"), (2, "V1_L"), *SIDED[2:]]
    atlas, findings = examine_atlas(write(tmp_path, two_sided(), rows))
    assert checks(findings) == [("warning", "sides")]
    assert "V1_R, V1_L" in findings[0].fix
    assert "2 of 8" in atlas.warnings[0]


def test_sides_in_own_space_are_told_from_each_other(tmp_path):
    """A head that lies to one side of the scanner's origin is not flipped."""
    affine = RAS.copy()
    affine[0, 3] += 40
    files = write(tmp_path, two_sided(), SIDED, affine=affine)
    assert checks(examine_atlas(files)[1]) == [("warning", "sides")]
    own = dataclasses.replace(files, space="T1w", centred=False)
    assert checks(examine_atlas(own)[1]) == [("note", "sides")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d * 0, "holds no label"),
        (lambda d: d + np.float32(0.4), "no whole number"),
        (lambda d: np.stack([d] * 4, -1).reshape(*d.shape, 2, 2), "5 axes"),
    ],
)
def test_images_that_cannot_be_used(change, message, tmp_path):
    data = change(two_sided().astype(np.float32))
    with pytest.raises(AtlasError, match=message):
        open_atlas(write(tmp_path, data, SIDED))


def test_float_labels_are_rounded_and_not_cut(tmp_path):
    data = two_sided().astype(np.float32)
    data[data == 8] = 7014.9999
    rows = [*SIDED[:7], (7015, "V4_R")]
    atlas, findings = examine_atlas(write(tmp_path, data, rows))
    assert atlas.regions.index[-1] == 7015
    assert ("note", "float labels") in checks(findings)


def test_labels_and_tables_in_another_order(tmp_path):
    data = np.zeros((10, 11, 11), np.int32)
    data[1], data[2], data[3] = 3, 500, 40000
    rows = [(40000, "c"), (3, "a"), (500, "b")]
    atlas = open_atlas(write(tmp_path, data, rows))
    assert atlas.regions.index == (40000, 3, 500)
    assert atlas.kind == "dseg"


def test_unnamed_values_come_last(tmp_path):
    atlas = open_atlas(write(tmp_path, two_sided(), SIDED[:6]))
    assert atlas.regions.name[-2:] == ("region_7", "region_8")
    assert "named by their value" in atlas.warnings[0]


def test_no_table_is_said_loudly(tmp_path):
    atlas = open_atlas(write(tmp_path, two_sided()))
    assert atlas.regions.name[0] == "region_1"
    assert "no table" in atlas.warnings[0]
    assert atlas.table_digest == ""


def test_maps_are_recognised_by_content_and_not_read(tmp_path):
    """A 4D image called dseg is one of maps; its data are not needed to know."""
    rows = [(2, "B"), (1, "A")]
    maps = np.ones((4, 5, 6, 2), np.float32)
    files = write(tmp_path, maps, rows, name="tpl-X_atlas-A_dseg.nii")
    content = files.image.read_bytes()
    files.image.write_bytes(content[:400])  # header and 12 values
    atlas, findings = examine_atlas(files)
    assert atlas.kind == "probseg"
    assert atlas.regions.index == (2, 1)
    assert ("note", "suffix") in checks(findings)
    with pytest.raises(AtlasError, match="holds 2 maps, the table 3 regions"):
        open_atlas(write(tmp_path, maps, [*rows, (3, "C")]))


def test_maps_counted_from_0_are_numbered_from_1(tmp_path):
    maps = np.ones((4, 5, 6, 2), np.float32)
    atlas = open_atlas(write(tmp_path, maps, [(0, "A"), (1, "B")]))
    assert atlas.regions.index == (1, 2)
    assert "from 0" in atlas.warnings[0]


def test_stubs_pointers_and_damage(tmp_path):
    files = write(tmp_path, two_sided(), SIDED)
    content = files.image.read_bytes()
    for damaged, kind, message in (
        (b"", MissingInput, "0 bytes"),
        (content[: len(content) // 2], AtlasError, "damaged|cannot be read|ended"),
        (b"not an image", AtlasError, "damaged|header"),
    ):
        files.image.write_bytes(damaged)
        with pytest.raises(kind, match=message):
            open_atlas(files)


def test_the_grid_of_another_template_is_a_warning(tmp_path):
    """MNI152NLin2009cAsym's 4 mm grid in the name of MNI152NLin6Asym."""
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = [-97.5, -133.5, -79.5]
    data = np.zeros((49, 58, 49), np.uint8)
    data[20:30, 20:30, 20:30] = 1
    image = tmp_path / "a.nii.gz"
    write_image(image, data, affine)
    for space, expected in (
        ("MNI152NLin6Asym", ["no table", "template"]),
        ("MNI152NLin2009cAsym", ["no table"]),
        ("MyTemplate", ["no table"]),
    ):
        found = examine_atlas(AtlasFiles(AtlasKey("a"), space, image, None))[1]
        assert [f.check for f in found] == expected, space


def test_no_orientation_is_an_error(tmp_path):
    files = write(tmp_path, two_sided(), SIDED, name="a.nii")
    content = bytearray(files.image.read_bytes())
    content[252:256] = struct.pack("<2h", 0, 0)
    files.image.write_bytes(content)
    with pytest.raises(AtlasError, match="no orientation"):
        open_atlas(files)


def test_digests_follow_the_bytes(tmp_path):
    files = write(tmp_path, two_sided(), SIDED)
    first = open_atlas(files)
    files.table.write_text(files.table.read_text() + "\n")
    second = open_atlas(files)
    assert first.image_digest == second.image_digest
    assert first.table_digest != second.table_digest
