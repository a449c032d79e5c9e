"""Series on surfaces against nibabel, and every refusal in words."""

import base64
import gzip
import tracemalloc
import zlib

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support import dense
from support import gifti_files as gii

from bids_roi.core.frame import Mesh
from bids_roi.errors import BidsRoiError, ImageError, MissingInput
from bids_roi.images.surfaces import open_surface_series

T, V = 7, 642
NATIVE = "fsnative:sub-01"


def values(n_volumes=T, n_points=V, kind="f4", seed=0):
    data = dense.ramp(n_volumes, n_points, seed)
    if np.dtype(kind).kind in "iu":
        data = np.rint(data * 100 / data.max())
    return data.astype(kind)


def open_one(path, template="fsaverage3", hemisphere="L"):
    return open_surface_series({hemisphere: path}, template, hemispheres=(hemisphere,))


def by_nibabel(path):
    arrays = [one.data.astype(float) for one in nb.load(path).darrays]
    return np.stack(arrays)


ENCODINGS = ["ASCII", "Base64Binary", "GZipBase64Binary"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("endian", ["LittleEndian", "BigEndian"])
@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("style", ["freesurfer", "workbench"])
def test_one_array_for_each_volume(tmp_path, encoding, endian, kind, style):
    data = values(kind=kind)
    path = tmp_path / "x.func.gii"
    gii.write_series(path, data, encoding=encoding, endian=endian, style=style)
    assert_array_equal(by_nibabel(path), data)
    series = open_one(path)
    assert series.n_volumes == T
    for block_bytes in (1, 5000, 2**20):
        assert_array_equal(gii.all_values(series, block_bytes), data)
    (part,) = series.frame.parts
    assert (part.support, part.structure) == (Mesh("fsaverage", V), "CORTEX_LEFT")
    assert part.points is None


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("ordering", ["RowMajorOrder", "ColumnMajorOrder"])
@pytest.mark.parametrize("vertices_first", [True, False])
@pytest.mark.parametrize("endian", ["LittleEndian", "BigEndian"])
def test_one_array_for_all(tmp_path, encoding, ordering, vertices_first, endian):
    data = values()
    stored = data.T if vertices_first else data
    path = tmp_path / "x.func.gii"
    path.write_text(gii.document([gii.array(stored, encoding, endian, ordering)]))
    assert_array_equal(nb.load(path).darrays[0].data, stored)
    series = open_one(path)
    assert series.n_volumes == T
    for block_bytes in (1, 5000, 2**20):
        assert_array_equal(gii.all_values(series, block_bytes), data)


def test_the_first_axis_is_vertices_where_nothing_tells(tmp_path):
    """As the format has it."""
    data = values(5, 31)
    path = tmp_path / "x.func.gii"
    path.write_text(gii.document([gii.array(np.ascontiguousarray(data.T))]))
    assert_array_equal(gii.all_values(open_one(path, NATIVE)), data)


def test_columns_of_length_one(tmp_path):
    data = values()
    path = gii.write_series(tmp_path / "x.func.gii", data[:, :, None])
    assert_array_equal(gii.all_values(open_one(path)), data)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_nibabel_writes(tmp_path, encoding):
    data = values()
    path = tmp_path / "x.func.gii"
    code = {"ASCII": "ASCII", "Base64Binary": "B64BIN"}.get(encoding, "B64GZ")
    arrays = [
        nb.gifti.GiftiDataArray(v, "NIFTI_INTENT_TIME_SERIES", encoding=code)
        for v in data
    ]
    meta = nb.gifti.GiftiMetaData(AnatomicalStructurePrimary="CortexLeft")
    nb.GiftiImage(darrays=arrays, meta=meta).to_filename(path)
    assert_array_equal(gii.all_values(open_one(path)), by_nibabel(path))
    packed = tmp_path / "y.func.gii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert_array_equal(gii.all_values(open_one(packed)), by_nibabel(path))


def test_real_bold_in_one_array(shared):
    """pyhrf: volumes x vertices, the other way round than the format has it."""
    path = shared / "bold" / "pyhrf" / "real_data_surf_tiny_bold.gii"
    wanted = nb.load(path).darrays[0].data
    assert wanted.shape == (128, 63)
    series = open_one(path, NATIVE)
    assert_array_equal(gii.all_values(series), wanted.T)


@pytest.fixture
def pair(tmp_path):
    """Files of both hemispheres, and their values."""
    data = {"L": values(seed=1), "R": values(seed=2) + 5}
    paths = {}
    for name, side in (("L", "CortexLeft"), ("R", "CortexRight")):
        meta = {"AnatomicalStructurePrimary": side, "TimeStep": "2000.000000"}
        path = tmp_path / f"hemi-{name}_bold.func.gii"
        paths[name] = gii.write_series(path, data[name], meta=meta)
    return paths, data


@pytest.mark.parametrize("block_bytes", [1, V * 2 * 4 * 3, 2**22])
def test_hemispheres_are_joined(pair, block_bytes):
    paths, data = pair
    series = open_surface_series(paths, "fsaverage3")
    blocks = [
        (block.points, block.values.copy()) for block in series.blocks(block_bytes)
    ]
    assert all(points == slice(0, 2 * V) for points, _ in blocks)
    assert max(len(some) for _, some in blocks) == {1: 1, 2**22: T}.get(block_bytes, 3)
    joined = np.concatenate([some for _, some in blocks])
    assert_array_equal(joined, np.hstack([data["L"], data["R"]]))
    assert series.repetition_time == 2.0
    structures = [part.structure for part in series.frame.parts]
    assert structures == ["CORTEX_LEFT", "CORTEX_RIGHT"]


def test_one_time_step_is_enough(pair, tmp_path):
    paths = {**pair[0], "L": gii.write_series(tmp_path / "L.func.gii", values())}
    assert open_surface_series(paths, "fsaverage3").repetition_time == 2.0


def test_hemispheres_of_one_array_each(tmp_path):
    data = values(seed=1), values(seed=2)
    paths = {"L": tmp_path / "L.func.gii", "R": tmp_path / "R.func.gii"}
    for path, one in zip(paths.values(), data, strict=True):
        path.write_text(gii.document([gii.array(np.ascontiguousarray(one.T))]))
    series = open_surface_series(paths, "fsaverage3")
    assert_array_equal(gii.all_values(series, 3000), np.hstack(data))


def test_hemispheres_of_two_types_and_orders(tmp_path):
    paths = {
        "L": gii.write_series(tmp_path / "L.func.gii", values(), endian="BigEndian"),
        "R": gii.write_series(tmp_path / "R.func.gii", values(kind="f8")),
    }
    series = open_surface_series(paths, "fsaverage3")
    wanted = np.hstack([values(), values(kind="f8")])
    assert_array_equal(gii.all_values(series), wanted)


def test_hemispheres_of_a_participant_may_differ(tmp_path):
    data = values(T, 20), values(T, 23)
    paths = {
        name: gii.write_series(tmp_path / f"{name}.func.gii", one)
        for name, one in zip("LR", data, strict=True)
    }
    series = open_surface_series(paths, NATIVE)
    assert series.frame.starts == (0, 20)
    assert_array_equal(gii.all_values(series), np.hstack(data))


@pytest.mark.parametrize(
    ("step", "wanted"),
    [("2000.000000", 2.0), ("720", 0.72), ("2.0", None), ("0", None), ("x", None)],
)
@pytest.mark.parametrize("place", ["file", "array"])
def test_time_step(tmp_path, step, wanted, place):
    meta = {"TimeStep": step}
    path = tmp_path / "x.func.gii"
    inside = {"meta": meta} if place == "array" else {}
    arrays = [gii.array(v, **inside) for v in values()]
    path.write_text(gii.document(arrays, meta=meta if place == "file" else {}))
    assert open_one(path).repetition_time == wanted


def swapped(paths, tmp_path):
    return {"L": paths["R"], "R": paths["L"]}


def lone(paths, tmp_path):
    return {"L": paths["L"]}


def shorter(paths, tmp_path):
    path = gii.write_series(tmp_path / "short.func.gii", values()[:-1])
    return {**paths, "R": path}


def denser(paths, tmp_path):
    path = gii.write_series(tmp_path / "dense.func.gii", values(T, 2562))
    return {**paths, "R": path}


def faster(paths, tmp_path):
    meta = {"TimeStep": "720"}
    path = gii.write_series(tmp_path / "fast.func.gii", values(), meta=meta)
    return {**paths, "R": path}


def mixed(paths, tmp_path):
    path = tmp_path / "mixed.func.gii"
    path.write_text(gii.document([gii.array(np.ascontiguousarray(values().T))]))
    return {**paths, "R": path}


@pytest.mark.parametrize(
    ("change", "template", "error", "message"),
    [
        (swapped, "fsaverage3", ImageError, "hemi-L, and says .* is CORTEX_RIGHT"),
        (lone, "fsaverage3", MissingInput, "no file of hemi-R, both are needed"),
        (shorter, "fsaverage3", ImageError, "has 6 volumes, .*hemi-L_.* 7"),
        (denser, "fsaverage", ImageError, "with 2,562 vertices, .* with 642 vert"),
        (faster, "fsaverage3", ImageError, "is 0.72 s, that of .*hemi-L_.* 2.0 s"),
        (mixed, "fsaverage3", ImageError, "one after the other in one of this and"),
    ],
)
def test_pairs_that_are_none(pair, tmp_path, change, template, error, message):
    paths = change(pair[0], tmp_path)
    with pytest.raises(error, match=message) as caught:
        open_surface_series(paths, template)
    assert caught.value.where
    assert caught.value.remedy


ARRAY = gii.array(values()[0])
TEXT = gii.encode(values()[0], "GZipBase64Binary", "LittleEndian", "RowMajorOrder")
RAW = values()[0].tobytes()


def with_data(data, encoding="GZipBase64Binary"):
    return [ARRAY, gii.array(values()[0], encoding, data=data)]


def packed(content):
    return base64.b64encode(zlib.compress(content, 1)).decode()


REFUSED = {
    "fewer": (gii.document([ARRAY] * 2, n_arrays=3), r"declares 3 arrays .*holds 2\."),
    "more": (gii.document([ARRAY] * 3, n_arrays=2), "declares 2 arrays .*3 or more"),
    "many": (gii.document([ARRAY], n_arrays="9" * 30), "NumberOfDataArrays is '9999"),
    "none": (gii.document([]), "no arrays"),
    "one": (gii.document([ARRAY]), "1 volume, at least 2 are needed"),
    "surface": (gii.document([gii.array(values(V, 3), intent="POINTSET")] * 2),
                "of POINTSET, values of a series"),
    "sparse": (gii.document([gii.array(values()[0], intent="NODE_INDEX")] * 2),
               "of NODE_INDEX"),
    "late": (gii.document([ARRAY, gii.array(values()[0], intent="NODE_INDEX")]),
             "of NODE_INDEX"),
    "2-D": (gii.document([gii.array(values())] * 2), "2 arrays has the axes 7 x 642"),
    "unequal": (gii.document([ARRAY, gii.array(values()[0][:-1])]),
                "array 2 has 641 values of type f4, the first 642 of f4"),
    "types": (gii.document([ARRAY, gii.array(values(kind="i4")[0])]), "of type i4"),
    "external": (gii.document([gii.array(values()[0], external="x.dat")] * 2),
                 "another file"),
    "encoding": (gii.document([ARRAY.replace("GZip", "Zip")] * 2), "'ZipBase64Binary'"),
    "type": (gii.document([ARRAY.replace("FLOAT32", "COMPLEX64")] * 2),
             "'COMPLEX64'"),
    "size": (gii.document([ARRAY.replace('"642"', '"-3"')] * 2), "Dim0 is '-3'"),
    "huge": (gii.document([ARRAY.replace('"642"', '"99999999"')] * 2), "Dim0 is '999"),
    "cut": (gii.document(with_data(TEXT[: len(TEXT) // 2 // 4 * 4])), "too few"),
    "cut within": (gii.document(with_data(TEXT[:-3])), "Base64 text"),
    "checksum": (gii.document(with_data(packed(RAW)[:-8])), "before its checksum"),
    "damaged": (gii.document(with_data("AAAA" + TEXT[4:])), "its compression"),
    "junk": (gii.document(with_data("%" + TEXT[1:])), "Base64 text or its compress"),
    "long": (gii.document(with_data(packed(RAW + b"1234"))), "too many values"),
    "bomb": (gii.document(with_data(packed(bytes(2**26)))), "too many values"),
    "short": (gii.document(with_data(packed(RAW[:-4]))), "holds 1 values too few"),
    "half": (gii.document(with_data(packed(RAW[:-2]))), "holds 1 values too few"),
    "words": (gii.document(with_data("1 2 three", "ASCII")), "numbers of an array"),
    "underscore": (gii.document(with_data("1_0 " * V, "ASCII")), "is no number"),
    "few words": (gii.document(with_data("1 2 3", "ASCII")), "639 values too few"),
    "no end": (gii.document(with_data("1" * 2**18, "ASCII")), "is no number"),
    "no data": (gii.document([ARRAY.replace("Data>", "Other>"), ARRAY]), "no values"),
    "broken": (gii.document([ARRAY] * 2)[:-30], "the XML is broken"),
    "after": (gii.document([ARRAY] * 2) + "<x/>", "the XML is broken"),
    "entities": (gii.document([ARRAY] * 2).replace(
        '.dtd">', '.dtd" [<!ENTITY a "b">]>'), "its own document type"),
    "tag": ("<GIFTI NumberOfDataArrays='2' a='" + "a" * 2**21, "a tag of the XML is"),
    "comment": ("<GIFTI NumberOfDataArrays='2'><!--" + "a" * 2**21, "a tag of the"),
    "labels": ("<GIFTI NumberOfDataArrays='2'>" + "<Label Key='1'/>" * (2**17 + 2),
               "the number of labels is '131073'"),
    "other": ("<CIFTI/>", "begins with CIFTI"),
    "deep": ("<GIFTI NumberOfDataArrays='1'>" + "<a>" * 99, "nested too deep"),
    "text": ("volumes", "the XML is broken"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_refusals(tmp_path, fault):
    text, message = REFUSED[fault]
    path = tmp_path / "x.func.gii"
    path.write_text(text)
    with pytest.raises(ImageError, match=message) as caught:
        gii.all_values(open_one(path))
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_gz_that_ends_early(tmp_path):
    path = gii.write_series(tmp_path / "x.func.gii", values(300))
    packed = path.with_name("x.func.gii.gz")
    packed.write_bytes(gzip.compress(path.read_bytes())[:-1000])
    with pytest.raises(ImageError, match="damaged or cut short"):
        gii.all_values(open_one(packed))


@pytest.mark.parametrize("by_vertex", [True, False])
def test_memory_does_not_grow_with_volumes(tmp_path, by_vertex):
    """2 MB of values in blocks of 64 KiB: none but blocks and a piece are held."""
    data = values(800)
    path = tmp_path / "x.func.gii"
    if by_vertex:
        path.write_text(gii.document([gii.array(np.ascontiguousarray(data.T))]))
    else:
        gii.write_series(path, data, encoding="Base64Binary")
    series = open_one(path)
    tracemalloc.start()
    for _ in series.blocks(2**16):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < data.nbytes / 2


def test_a_file_that_is_absent(tmp_path):
    with pytest.raises(BidsRoiError):
        open_one(tmp_path / "absent.func.gii")
