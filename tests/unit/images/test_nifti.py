"""What an opened image says of itself, held against nibabel's reading of the file."""

import itertools

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bids_roi.errors import DataError, MissingInput
from bids_roi.images.header import ATLAS, BOLD, MAPS, VOLUME, read_header
from bids_roi.images.nifti import open_image, read_values

AFFINE = np.array([[-2.0, 0.1, 0, 30], [0.2, 2.5, 0, -40], [0, 0, 3, 7], [0, 0, 0, 1]])
TYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
UNITS = {"unknown": 1, "sec": 1, "msec": 1e-3, "usec": 1e-6, "hz": None, "ppm": None}


def write(path, shape, dtype="i2", *, form=nb.Nifti1Image, order="<", unit="sec"):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype) % 100
    header = form.header_class(endianness=order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    header.set_xyzt_units("mm", unit)
    image = form(values, AFFINE, header)
    image.set_sform(AFFINE, 4)
    image.set_qform(AFFINE, 4)
    if len(shape) > 3:
        image.header["pixdim"][4] = 2.5
    nb.save(image, path)
    return path


@pytest.mark.parametrize("form", [nb.Nifti1Image, nb.Nifti2Image])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", TYPES)
def test_the_header_is_read_as_nibabel_reads_it(form, order, dtype, tmp_path):
    path = write(
        tmp_path / "x.nii.gz", (4, 3, 2, 5), dtype, form=form, order=order, unit="msec"
    )
    expected, found = nb.load(path), open_image(path, BOLD)
    assert found.header == read_header(path)
    assert np.dtype(found.source.dtype) == expected.get_data_dtype()
    assert found.header.is_float == (dtype[0] == "f")
    assert found.source.offset == expected.dataobj.offset
    assert (found.slope, found.intercept) == (
        expected.dataobj.slope,
        expected.dataobj.inter,
    )
    assert found.grid.shape == expected.shape[:3]
    assert_array_equal(found.grid.matrix, expected.affine)
    assert found.source.n_volumes == 5
    assert found.header.repetition_time == 0.0025
    assert found.header.n_bytes == found.source.offset + 120 * np.dtype(dtype).itemsize


@pytest.mark.parametrize("unit", UNITS)
def test_the_repetition_time_is_in_the_unit_of_the_header(unit, tmp_path):
    path = write(tmp_path / "x.nii", (4, 3, 2, 5), unit=unit)
    factor = UNITS[unit]
    expected = None if factor is None else round(2.5 * factor, 6)
    assert open_image(path, BOLD).header.repetition_time == expected


@pytest.mark.parametrize("slope", [1.0, 0.5, -3.0])
def test_values_are_those_of_nibabel(slope, tmp_path):
    image = nb.load(write(tmp_path / "x.nii", (4, 3, 2)))
    image.header.set_slope_inter(slope, 7)
    path = tmp_path / "scaled.nii"
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([slope, 7], "<f4").tobytes()
    path.write_bytes(content)
    found = read_values(open_image(path, VOLUME))
    assert_array_equal(found, nb.load(path).get_fdata())


# Axes of a file: as what it can be opened.
SHAPES = {
    (4, 3): set(),
    (4, 3, 2): {"volume", "maps", "atlas"},
    (4, 3, 2, 1): {"volume", "maps", "atlas"},
    (4, 3, 2, 1, 1): {"volume", "maps", "atlas"},
    (4, 3, 2, 5): {"bold", "maps", "atlas"},
    (4, 3, 2, 5, 2): set(),
}
KINDS = {"bold": BOLD, "volume": VOLUME, "maps": MAPS, "atlas": ATLAS}


@pytest.mark.parametrize(
    ("shape", "kind"), list(itertools.product(SHAPES, KINDS)), ids=str
)
def test_an_image_is_opened_as_what_its_axes_allow(shape, kind, tmp_path):
    path = write(tmp_path / "x.nii", shape)
    if kind in SHAPES[shape]:
        found = open_image(path, KINDS[kind])
        assert found.source.n_volumes == np.prod(shape[3:], dtype=int)
        return
    with pytest.raises(DataError, match=r"x\.nii: the (image|series) has") as caught:
        open_image(path, KINDS[kind])
    assert type(caught.value) is KINDS[kind].error
    assert caught.value.remedy


def spoil(name, path):
    image = nb.load(path)
    header = image.header
    if name == "orientation":
        header["sform_code"] = header["qform_code"] = 0
    elif name == "complex":
        header["datatype"], header["bitpix"] = 32, 64
    elif name == "flat":
        header["srow_x"] = header["srow_y"]
    elif name == "grayordinates":
        header["intent_code"] = 3002
    content = bytearray(header.binaryblock + bytes(4 + 4000))
    path.write_bytes(content[:200] if name == "cut" else content)
    if name == "empty":
        path.write_bytes(b"")
    elif name == "pointer":
        path.write_text("/annex/objects/MD5E-s1--x.nii\n")


SPOILT = {
    "orientation": "no orientation",
    "complex": "no real numbers",
    "flat": "does not place the voxels",
    "grayordinates": "CIFTI",
    "cut": "does not begin with the header",
    "empty": "0 bytes",
    "pointer": "pointer to its content",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SPOILT)
def test_each_kind_of_image_is_refused_for_the_same_reasons(name, kind, tmp_path):
    path = write(tmp_path / "x.nii", (4, 3, 2, 5) if kind == "bold" else (4, 3, 2))
    spoil(name, path)
    missing = name in ("empty", "pointer")
    expected = MissingInput if missing else KINDS[kind].error
    with pytest.raises(expected, match=SPOILT[name]) as caught:
        open_image(path, KINDS[kind])
    assert type(caught.value) is expected
    assert str(path) in str(caught.value)
    assert caught.value.remedy


def test_a_file_that_changes_is_read_anew(tmp_path):
    """No header is taken for another's, with or without extensions."""
    paths = [write(tmp_path / f"{n}.nii.gz", (4, 3, 2, 5)) for n in range(2)]
    assert len({open_image(path, BOLD).grid for path in (*paths, *paths)}) == 1
    moved = nb.load(paths[1])
    moved.affine[:3, 3] += 1
    moved.set_sform(moved.affine, 4)
    nb.save(nb.Nifti1Image(np.asarray(moved.dataobj), moved.affine), paths[1])
    for path in paths:
        assert_array_equal(open_image(path, BOLD).grid.matrix, nb.load(path).affine)
    assert_array_equal(open_image(paths[0], BOLD).grid.matrix, AFFINE.astype("f4"))
    more = nb.load(paths[0])
    more.header.extensions.append(nb.nifti1.Nifti1Extension("comment", b"x" * 200))
    nb.save(more, tmp_path / "more.nii")
    found = open_image(tmp_path / "more.nii", BOLD).grid
    assert found == open_image(paths[0], BOLD).grid
    content = bytearray((tmp_path / "more.nii").read_bytes())
    content[280:284] = np.array([np.nan], "<f4").tobytes()  # of the affine
    (tmp_path / "more.nii").write_bytes(content)
    for _ in range(2):
        with pytest.raises(DataError, match="does not place the voxels"):
            open_image(tmp_path / "more.nii", BOLD)
