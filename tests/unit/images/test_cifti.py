"""Dense series and labels against nibabel, and every refusal in words."""

import gzip
import struct
from functools import reduce
from operator import add

import nibabel as nb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel import cifti2
from numpy.testing import assert_allclose, assert_array_equal
from support import dense
from support.surface_runs import real_axes

from bids_roi.core.frame import Mesh
from bids_roi.errors import AtlasError, BidsRoiError, ImageError, SpaceMismatch
from bids_roi.images.cifti import (
    matrix_content,
    open_dense_series,
    read_dense_labels,
    series_content,
)

pytestmark = pytest.mark.filterwarnings("ignore:pixdim")
T = 13


def check_frame(frame, axis):
    """Compare with nibabel's axis, place by place."""
    parts = {
        (part.structure, isinstance(part.support, Mesh)): (start, part)
        for start, part in zip(frame.starts, frame.parts, strict=True)
    }
    seen = 0
    for name, span, models in axis.iter_structures():
        structure = name.removeprefix("CIFTI_STRUCTURE_")
        on_mesh = bool(models.surface_mask.all())
        start, part = parts[structure, on_mesh]
        assert start == (span.start or 0)
        assert part.n_points == len(models)
        seen += len(models)
        if on_mesh:
            assert_array_equal(part.numbers, models.vertex)
            assert part.support.n_vertices == models.nvertices[name]
        else:
            assert part.support.shape == models.volume_shape
            flat = np.ravel_multi_index(models.voxel.T, models.volume_shape, order="F")
            assert_array_equal(part.numbers, flat)
            mm = nb.affines.apply_affine(models.affine, models.voxel)
            found = frame.millimetres()[start : start + len(models)]
            assert_allclose(found, mm, atol=1e-9)
    assert seen == frame.n_points == len(axis)


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_series_are_nibabels(tmp_path, kind, order, suffix):
    axis = dense.small_axis()
    data = dense.ramp(T, len(axis))
    if np.dtype(kind).kind in "iu":
        data = np.rint(data * 100 / data.max())
    path = tmp_path / f"x.dtseries.nii{suffix}"
    scaling = {"slope": 0.37, "intercept": -5.0} if kind == "i2" else {}
    xml = dense.series_xml(axis, T, 0.8)
    dense.write(path, xml, data, kind=kind, order=order, **scaling)
    content = path.read_bytes()  # nibabel knows no CIFTI in .gz
    content = gzip.decompress(content) if suffix else content
    image = cifti2.Cifti2Image.from_bytes(content)
    wanted = image.get_fdata(dtype=np.float64)
    assert wanted.shape == (T, len(axis))
    series = open_dense_series(path, "fsLR")
    assert series.repetition_time == 0.8
    assert_allclose(dense.all_values(series), wanted, rtol=1e-12)
    assert_allclose(dense.all_values(series, 1000), wanted, rtol=1e-12)
    check_frame(series.frame, image.header.get_axis(1))


@pytest.mark.parametrize("n_volumes", [5, 400])
def test_time_and_space_are_not_swapped(tmp_path, n_volumes):
    """By arithmetic alone: a mean that grows with the point, a trend over time."""
    axis = dense.cortex("LEFT", np.arange(40))
    points, moments = np.arange(40) * 1000.0, np.arange(n_volumes)
    xml = dense.series_xml(axis, n_volumes)
    path = tmp_path / "x.dtseries.nii"
    dense.write(path, xml, points + moments[:, None], kind="f8")
    values = dense.all_values(open_dense_series(path, "fsLR"), 64)
    assert_array_equal(values[:, 7], 7000 + moments)
    assert_array_equal(values.mean(axis=0), points + moments.mean())


def test_what_nibabel_writes_is_read(tmp_path):
    """Its intent is "unknown" (3000) where nobody sets it: the axes tell."""
    axis = dense.small_axis()
    data = dense.ramp(T, len(axis)).astype("f4")
    image = cifti2.Cifti2Image(data, (cifti2.SeriesAxis(0, 0.72, T), axis))
    image.to_filename(tmp_path / "x.dtseries.nii")
    series = open_dense_series(tmp_path / "x.dtseries.nii", "fsLR")
    assert_array_equal(dense.all_values(series), data)
    assert series.repetition_time == 0.72


REAL = [
    "tpl-fsLR_atlas-4S_scale-156_den-91k_dseg",
    "tpl-fsLR_atlas-4S_scale-256_den-91k_dseg",
    "ciftify_rois_for_tests",
    "schaefer_space-fsLR_den-32k_desc-200Parcels7Networks_atlas",
    "schaefer_space-fsLR_den-32k_desc-400Parcels7Networks_atlas",
]


@pytest.mark.parametrize("name", REAL)
def test_real_labels_are_nibabels(shared, name):
    path = shared / "atlases" / "cifti" / f"{name}.dlabel.nii"
    frame, labels = read_dense_labels(path)
    maps, models = real_axes(path)
    check_frame(frame, models)
    stored = nb.Nifti2Image.from_filename(path).get_fdata()
    assert_array_equal(labels.keys, stored.squeeze())
    table = {label.key: (label.name, label.rgba) for label in labels.table}
    assert table == maps.label[0]
    assert labels.map_name == maps.name[0]
    assert (labels.told, labels.unnamed) == ("", ())
    meshes = [p.support for p in frame.parts if isinstance(p.support, Mesh)]
    assert meshes == [Mesh("fsLR", 32492)] * 2


def test_a_series_on_the_real_91k_axis(shared, tmp_path):
    path = shared / "atlases" / "cifti" / f"{REAL[0]}.dlabel.nii"
    _, axis = real_axes(path)
    data = dense.ramp(6, len(axis))
    xml = dense.series_xml(axis, 6)
    series = dense.write(
        tmp_path / "x.dtseries.nii", xml, data / 100, kind="i2", slope=100
    )
    wanted = nb.Nifti2Image.from_filename(series).get_fdata().squeeze()
    opened = open_dense_series(series)
    assert_array_equal(dense.all_values(opened), wanted)
    further = xml.replace(b'NumberOfSeriesPoints="6"', b'NumberOfSeriesPoints="4"')
    again = dense.write(tmp_path / "y.dtseries.nii", further, data[:4])
    assert open_dense_series(again).frame is opened.frame, "models are parsed once"


def test_a_real_header_without_its_data_is_refused(shared):
    path = (
        shared
        / "atlases"
        / "cifti"
        / "broken_header-only_atlas-4S_scale-156.dlabel.nii"
    )
    with pytest.raises(AtlasError, match=r"1,017,496 bytes.* has 652,368: it is cut"):
        read_dense_labels(path)


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4"])
def test_one_of_several_maps(tmp_path, kind):
    axis = dense.small_axis()
    table = {0: ("???", (0, 0, 0, 0)), 3: (" A ", (1, 0.5, 0, 1)), 9: ("B", (0,) * 4)}
    data = np.zeros((2, len(axis)))
    data[0, 5:9], data[1, 70:90] = 3, 9
    data[1, 3] = 4
    path = tmp_path / "x.dlabel.nii.gz"
    xml = dense.labels_xml(axis, [table, table], ["one", "two"])
    dense.write(path, xml, data, kind=kind, intent=3007)
    _, first = read_dense_labels(path, "fsLR")
    assert_array_equal(first.keys, data[0])
    told = "The file holds 2 maps (1 'one', 2 'two'); the first is used."
    assert first.told == f"{told} Choose one by its name or number behind a #, IMAGE#2."
    for wanted in ("2", "two"):
        _, second = read_dense_labels(path, "fsLR", wanted)
        assert_array_equal(second.keys, data[1])
        assert (second.told, second.map_name) == ("", "two")
        assert second.unnamed == (4,)
        assert second.table[1].name == "A"
        assert second.table[1].rgba == (1, 0.5, 0, 1)
    for wanted in ("3", "0", "", "three"):
        with pytest.raises(AtlasError, match=r"no maps are called .*the file holds 1"):
            read_dense_labels(path, "fsLR", wanted)


@st.composite
def model_lists(draw):
    names = ["CORTEX_LEFT", "CORTEX_RIGHT", "THALAMUS_LEFT", "BRAIN_STEM", "OTHER"]
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    numbers = [draw(st.sampled_from([-2.0, 1.6, 3])) for _ in range(3)]
    affine = np.diag([*numbers, 1.0])
    affine[:3, 3] = draw(st.sampled_from([(0, 0, 0), (90, -126, -72.5)]))
    free = draw(st.permutations(range(int(np.prod(shape)))))
    models = []
    for name in chosen:
        if name.startswith("CORTEX"):
            n = draw(st.sampled_from([32492, 59292]))
            few = st.lists(st.integers(0, n - 1), min_size=1, max_size=9, unique=True)
            models.append(dense.cortex(name[7:], draw(few), n))
        elif free:
            n = draw(st.integers(1, len(free)))
            ijk = np.transpose(np.unravel_index(free[:n], shape))
            free = free[n:]
            models.append(dense.voxels(name, ijk, shape, affine))
    return reduce(add, models)


@given(axis=model_lists())
@settings(max_examples=60)
def test_any_models_are_nibabels(tmp_path_factory, axis):
    path = tmp_path_factory.mktemp("models") / "x.dtseries.nii"
    data = dense.ramp(3, len(axis))
    dense.write(path, dense.series_xml(axis, 3), data, kind="f8")
    series = open_dense_series(path)
    check_frame(series.frame, nb.load(path).header.get_axis(1))
    assert_array_equal(dense.all_values(series, 24), data)


def test_the_order_of_elements_does_not_matter(tmp_path):
    """IndexOffset tells which rows are whose."""
    axis = dense.small_axis()
    data = dense.ramp(3, len(axis))
    xml = dense.series_xml(axis, 3)
    begin, end = xml.index(b"<BrainModel"), xml.rindex(b"</MatrixIndicesMap>")
    models = [m + b"</BrainModel>" for m in xml[begin:end].split(b"</BrainModel>")[:-1]]
    assert len(models) == 4
    turned = xml[:begin] + b"".join(models[::-1]) + xml[end:]
    series = [
        open_dense_series(dense.write(tmp_path / name, text, data), "fsLR")
        for name, text in (("a.dtseries.nii", xml), ("b.dtseries.nii", turned))
    ]
    assert series[0].frame.same(series[1].frame)
    assert_array_equal(dense.all_values(series[0]), dense.all_values(series[1]))


def test_a_whole_mesh_is_a_part_in_its_own_order(tmp_path):
    """So that it is the same as that of a GIFTI file."""
    axis = dense.cortex("LEFT", np.arange(32492))
    path = tmp_path / "x.dtseries.nii"
    dense.write(path, dense.series_xml(axis, 2), dense.ramp(2, 32492))
    (part,) = open_dense_series(path).frame.parts
    assert part.points is None
    assert part.n_points == 32492


@pytest.mark.parametrize(
    ("step", "exponent", "wanted"),
    [("2", "0", 2.0), ("720", "-3", 0.72), ("0", "0", None), ("nan", "0", None)],
)
def test_repetition_time(tmp_path, step, exponent, wanted):
    axis = dense.small_axis()
    xml = dense.series_xml(axis, T).replace(b'SeriesStep="2.0"', b'SeriesStep="%s"')
    xml = xml.replace(b'"%s"', f'"{step}"'.encode())
    xml = xml.replace(b'SeriesExponent="0"', f'SeriesExponent="{exponent}"'.encode())
    path = dense.write(tmp_path / "x.dtseries.nii", xml, dense.ramp(T, len(axis)))
    assert open_dense_series(path, "fsLR").repetition_time == wanted


def test_metres_become_millimetres(tmp_path):
    axis = dense.voxels("OTHER", [(1, 2, 3)])
    xml = dense.series_xml(axis, T)
    path = dense.write(tmp_path / "x.dtseries.nii", xml, dense.ramp(T, 1))
    wanted = open_dense_series(path).frame.millimetres()
    assert_allclose(wanted, [[2, 4, 6]])
    in_metres = xml.replace(b'MeterExponent="-3"', b'MeterExponent="0"')
    in_metres = in_metres.replace(b"2.0000000000", b"0.0020000000")
    path = dense.write(tmp_path / "m.dtseries.nii", in_metres, dense.ramp(T, 1))
    assert_allclose(open_dense_series(path).frame.millimetres(), wanted)


AXIS = dense.small_axis()
DATA = dense.ramp(T, len(AXIS))
XML = dense.series_xml(AXIS, T)
V = len(AXIS)
BOMB = b'<!DOCTYPE CIFTI [<!ENTITY a "aaaa">]>'


def sub(old, new, xml=XML):
    assert old in xml
    return xml.replace(old, new, 1)


def first_numbers(new):
    """The XML with another first vertex."""
    begin = XML.index(b"<VertexIndices>") + len(b"<VertexIndices>")
    return XML[:begin] + new + XML[XML.index(b" ", begin) :]


REFUSED = {
    "dconn": ({"intent": 3001}, r"\(dconn\), a dense series \(dtseries\) is needed"),
    "dscalar": ({"intent": 3006}, r"\(dscalar\), a dense series"),
    "ptseries": ({"intent": 3004}, r"\(ptseries\), a dense series"),
    "volume": ({"intent": 0}, r"something else \(intent 0\), a dense series"),
    "extension": ({"code": 6}, r"no extension of CIFTI \(code 32\).*found: 6"),
    "complex": ({"kind": "c8"}, "complex numbers, real numbers are needed"),
    # As nibabel refuses them; without a slope the intercept is no matter.
    "intercept": ({"slope": 2.0, "intercept": np.inf}, "slope 2 and the intercept inf"),
    "no intercept": ({"slope": 1.0, "intercept": np.nan}, "and the intercept nan"),
    "short": ({"cut": 1}, r"with 13 values of 4 bytes, .* it is cut short"),
    "axes": ({"dim": (6, 1, 1, 1, 1, V, T, 1)}, f"1 x {V} x 13, the XML 13 volumes"),
    "axes too": ({"dim": (6, 1, 1, 1, 1, T, V - 1, 1)}, f"have {V} .*{V - 1}"),
    "volumes": ({"dim": (6, 1, 1, 1, 1, T + 1, V, 1)}, "14 x 348, the XML 13 volumes"),
    "four axes": ({"dim": (4, T, V, 1, 1, 1, 1, 1)}, "13 x 348 x 1 x 1, the XML 13"),
    "broken": ({"xml": XML[:-20]}, "the XML is broken"),
    "empty": ({"xml": b""}, "the XML is broken"),
    "bomb": ({"xml": sub(b"<CIFTI", BOMB + b"<CIFTI")}, "its own document type"),
    "tag": ({"xml": b"<CIFTI a='" + b"a" * 2**21}, "a tag of the XML is longer"),
    "elements": ({"xml": b"<CIFTI>" + b"<a/>" * 2**19}, "more than 524,288 elements"),
    "depth": ({"xml": b"<CIFTI>" + b"<a>" * 99}, "nested deeper than 32"),
    "version": ({"xml": sub(b'Version="2.0"', b'Version="1"')}, "version '1', CIFTI 2"),
    "other XML": ({"xml": b"<GIFTI/>"}, "the XML is GIFTI"),
    "hertz": ({"xml": sub(b"SECOND", b"HERTZ")}, "series is in HERTZ, SECOND"),
    "no unit": ({"xml": sub(b"SeriesUnit", b"Unit")}, "in no unit, SECOND"),
    "transposed": (
        {
            "xml": sub(b'n="#"', b'n="1"', sub(b'n="1"', b'n="0"', sub(
                b'n="0"', b'n="#"'))),
        },
        r"the matrix is transposed \(0: BRAIN_MODELS, 1: SERIES\)",
    ),
    "gap": ({"xml": sub(b'IndexOffset="151"', b'IndexOffset="152"')}, "leave a gap"),
    "overlap": ({"xml": sub(b'IndexOffset="151"', b'IndexOffset="150"')}, "overlap"),
    "count": ({"xml": sub(b'IndexCount="151"', b'IndexCount="150"')}, "of 150 needs"),
    "negative": ({"xml": sub(b'IndexCount="151"', b'IndexCount="-1"')}, "is '-1'; 0"),
    "beyond": ({"xml": first_numbers(b"32492")}, r"vertex 32,492; 0 to 32,491"),
    "far": ({"xml": first_numbers(b"9" * 30)}, r"holds vertex 9,223,372,036"),
    "word": ({"xml": first_numbers(b"one")}, "no whole numbers"),
    "minus": ({"xml": first_numbers(b"-1")}, "no whole numbers"),
    "twice": ({"xml": first_numbers(str(AXIS.vertex[1]).encode())}, "twice"),
    "voxel": ({"xml": sub(b">0 0 0", b">0 99 0")}, "the volume, j = 99; 0 to 10"),
    "same voxel": ({"xml": sub(b">0 0 0", b">5 5 5")}, "belongs to two brain models"),
    "no volume": ({"xml": sub(b"</Volume>", b"</Other>", sub(b"<Volume", b"<Other"))},
                  "VOXELS without a Volume"),
    "flat": ({"xml": sub(b">2.000000", b">0.000000")}, "does not place"),
    "model": ({"xml": sub(b"TYPE_SURFACE", b"TYPE_WHAT")}, "a model of WHAT"),
    "name": ({"xml": sub(b"CORTEX_RIGHT", b"CORTEX_LEFT")}, "are 'CORTEX_LEFT'"),
    "mesh": ({"xml": XML.replace(b'"32492"', b'"32493"')}, "has 32,493 vertices; fsLR"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_refusals(tmp_path, fault):
    options, message = REFUSED[fault]
    path = tmp_path / "x.dtseries.nii"
    dense.write(path, options.get("xml", XML), DATA, **{
        key: value for key, value in options.items() if key != "xml"
    })  # fmt: skip
    with pytest.raises(ImageError, match=message) as caught:
        open_dense_series(path, "fsLR")
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_refused_first_bytes(tmp_path):
    path = tmp_path / "x.dtseries.nii"
    for content in (b"\x1c\2\0\0", b"<CIFTI/>" * 100, struct.pack("<i", 348) * 300):
        path.write_bytes(content)
        with pytest.raises(ImageError, match="header of a NIfTI-2 image"):
            open_dense_series(path)
    content = bytearray(dense.cifti_bytes(XML, DATA))
    for offset in (0, 2**40, -1):
        struct.pack_into("<q", content, 168, offset)
        path.write_bytes(content)
        with pytest.raises(ImageError, match="first value at byte"):
            open_dense_series(path)


def test_a_series_of_one_volume(tmp_path):
    xml = dense.series_xml(AXIS, 1)
    path = dense.write(tmp_path / "x.dtseries.nii", xml, DATA[:1])
    with pytest.raises(ImageError, match="1 volume, at least 2"):
        open_dense_series(path, "fsLR")


@pytest.mark.parametrize("cut", [1, 5000])
def test_gz_that_ends_early(tmp_path, cut):
    path = tmp_path / "x.dtseries.nii.gz"
    dense.write(path, XML, DATA, kind="f8", cut=cut)
    series = open_dense_series(path, "fsLR")
    with pytest.raises(ImageError, match=r"ends in grayordinate \d+ of 348") as caught:
        dense.all_values(series)
    assert "volume" not in str(caught.value)
    whole = dense.write(path, XML, DATA, kind="f8").read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(BidsRoiError, match="damaged or cut short"):
        open_dense_series(path, "fsLR")


@pytest.mark.parametrize(
    ("template", "n_vertices", "message"),
    [
        ("fsLR", 10242, "has 10,242 vertices, as fsaverage and onavg have; fsLR has"),
        ("fsaverage5", 32492, "as fsLR have; fsaverage5 has 10,242 a hemisphere"),
        (None, 10242, "as fsaverage and onavg have; nothing tells which"),
        (None, 1000, "as no template that is known here have"),
    ],
)
def test_mesh_of_another_template(tmp_path, template, n_vertices, message):
    axis = dense.cortex("LEFT", range(9), n_vertices)
    path = tmp_path / "x.dlabel.nii"
    xml = dense.labels_xml(axis, [{0: ("?", (0,) * 4)}])
    dense.write(path, xml, np.zeros((1, 9)), intent=3007)
    with pytest.raises(SpaceMismatch, match=message):
        read_dense_labels(path, template)


@pytest.mark.parametrize(
    ("template", "n_vertices", "mesh"),
    [
        ("fsaverage6", 40962, Mesh("fsaverage", 40962)),
        ("onavg", 10242, Mesh("onavg", 10242)),
        ("fsnative:sub-01", 1000, Mesh("fsnative:sub-01", 1000)),
        (None, 59292, Mesh("fsLR", 59292)),
    ],
)
def test_mesh_of_a_template(tmp_path, template, n_vertices, mesh):
    axis = dense.cortex("RIGHT", range(9), n_vertices)
    path = dense.write(
        tmp_path / "x.dtseries.nii", dense.series_xml(axis, 2), dense.ramp(2, 9)
    )
    (part,) = open_dense_series(path, template).frame.parts
    assert (part.support, part.structure) == (mesh, "CORTEX_RIGHT")


@pytest.mark.parametrize(
    ("values", "message"),
    [([0.5, 1], r"no labels \(0.5 to 1\)"), ([1, 1e30], "no labels")],
)
def test_what_is_no_label(tmp_path, values, message):
    axis = dense.cortex("LEFT", range(2))
    xml = dense.labels_xml(axis, [{0: ("?", (0,) * 4)}])
    path = dense.write(tmp_path / "x.dlabel.nii", xml, np.array([values]), intent=3007)
    with pytest.raises(AtlasError, match=message):
        read_dense_labels(path)


def test_a_series_is_no_atlas(tmp_path):
    path = dense.write(tmp_path / "x.dlabel.nii", XML, DATA)
    with pytest.raises(AtlasError, match=r"is a dense series .*, dense labels"):
        read_dense_labels(path)


def test_a_key_with_two_names(tmp_path):
    axis = dense.cortex("LEFT", range(2))
    xml = dense.labels_xml(axis, [{0: ("?", (0,) * 4), 1: ("A", (0,) * 4)}])
    xml = sub(b'Key="0"', b'Key="1"', xml)
    path = dense.write(tmp_path / "x.dlabel.nii", xml, np.ones((1, 2)), intent=3007)
    with pytest.raises(AtlasError, match=r"the key 1 to .*' and to 'A'"):
        read_dense_labels(path)


@pytest.mark.parametrize("voxels", [False, True])
def test_parcellated_files_are_nibabels(voxels):
    """To the byte, without the copies that its image makes of all points."""
    grid = {"affine": np.diag([2.0, 2, 2, 1]), "volume_shape": (5, 6, 7)}
    nvertices = {"CIFTI_STRUCTURE_CORTEX_LEFT": 32492}
    axis = cifti2.ParcelsAxis(
        ["a", "b"],
        [np.array([[1, 2, 3], [4, 5, 6]][: 2 * voxels]).reshape(-1, 3)] * 2,
        [{}, {"CIFTI_STRUCTURE_CORTEX_LEFT": np.array([0, 5, 32491])}],
        nvertices=nvertices,
        **(grid if voxels else {}),
    )
    values = np.array([[1.5, np.nan], [-2, 1e7], [0, 3]])
    series = cifti2.SeriesAxis(0, 0.735, 3)
    for content, axes, stored, kind in (
        (series_content(axis, values, 0.735), (series, axis), values, "_SERIES"),
        (matrix_content(axis, values[:2]), (axis, axis), values[:2], ""),
    ):
        image = cifti2.Cifti2Image(stored.astype(np.float32), axes)
        intent = f"NIFTI_INTENT_CONNECTIVITY_PARCELLATED{kind}"
        image.nifti_header.set_intent(intent)
        assert content == image.to_bytes()
