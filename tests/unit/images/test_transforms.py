"""ITK transforms read without ITK; what damaged and strange files are told."""

import math
import pickle
import zlib

import h5py
import numpy as np
import pytest
from support.transform_cases import (
    displace,
    place_field,
    random_affine,
    smooth_field,
    write_h5,
    write_text,
)

from bids_roi.errors import BidsRoiError, DataError, MissingInput
from bids_roi.images import transforms
from bids_roi.images.transforms import read_transform

FLIP = np.array([-1.0, -1, 1])
AFFINE = "AffineTransform_double_3_3"
POINTS = np.random.default_rng(0).uniform(-70, 70, (50, 3))


def turn(axis, angle):
    """Rotation about an axis of the room, by hand."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array(
        {
            0: [[1, 0, 0], [0, c, -s], [0, s, c]],
            1: [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            2: [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
    )


def move_by_hand(matrix, shift, centre):
    lps = POINTS * FLIP
    return (np.array([matrix @ (p - centre) + centre + shift for p in lps])) * FLIP


ANGLES = (0.3, -0.2, 0.5)
CENTRE, SHIFT = np.array([5.0, -7, 11]), np.array([1.0, 2, -3])
X, Y, Z = (turn(axis, angle) for axis, angle in enumerate(ANGLES))
MATRIX = X @ Y * 1.1
HALF = math.sin(0.2) / math.sqrt(3)  # a turn by 0.4 about (1, 1, 1)
ABOUT = np.eye(3) * math.cos(0.4) + (1 - math.cos(0.4)) / 3
ABOUT += math.sin(0.4) / math.sqrt(3) * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
CASES = {
    "AffineTransform": ([*MATRIX.ravel(), *SHIFT], CENTRE, MATRIX),
    "MatrixOffsetTransformBase": ([*MATRIX.ravel(), *SHIFT], CENTRE, MATRIX),
    "Rigid3DTransform": ([*X.ravel(), *SHIFT], CENTRE, X),
    "Euler3DTransform": ([*ANGLES, *SHIFT], CENTRE, Z @ X @ Y),
    "Euler3DTransform zyx": ([*ANGLES, *SHIFT], [*CENTRE, 1], Z @ Y @ X),
    "Euler3DTransform zxy": ([*ANGLES, *SHIFT], [*CENTRE, 0], Z @ X @ Y),
    "VersorRigid3DTransform": ([HALF] * 3 + [*SHIFT], CENTRE, ABOUT),
    "Similarity3DTransform": ([HALF] * 3 + [*SHIFT, 1.2], CENTRE, ABOUT * 1.2),
    "TranslationTransform": (SHIFT, [], np.eye(3)),
    "IdentityTransform": ([], [], np.eye(3)),
}


@pytest.mark.parametrize("precision", ["double", "float"])
@pytest.mark.parametrize("form", ["text", "h5", "composite", "old h5"])
@pytest.mark.parametrize("case", CASES)
def test_affines_are_what_their_formula_says(case, form, precision, tmp_path):
    values, fixed, matrix = CASES[case]
    kind = f"{case.split()[0]}_{precision}_3_3"
    if form == "text":
        path = write_text(tmp_path / "xfm.txt", [(kind, values, fixed)])
    else:
        legacy, composite = form == "old h5", form == "composite"
        path = write_h5(
            tmp_path / "xfm.h5",
            [(kind, values, fixed)],
            composite=composite,
            legacy=legacy,
        )
    shift = SHIFT * (case != "IdentityTransform")
    centre = CENTRE * (len(fixed) > 0)
    expected = move_by_hand(matrix, shift, centre)
    transform = read_transform(path)
    np.testing.assert_allclose(transform.apply(POINTS), expected, atol=1e-10)
    back = transform.invert().apply(expected)
    np.testing.assert_allclose(back, POINTS, atol=1e-10)


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_composite_applies_its_last_transform_first(dtype, compression, tmp_path):
    rng = np.random.default_rng(3)
    vectors = smooth_field(rng, (5, 6, 4), 5.0).astype(dtype)
    place = (-60.0, -70, -50), (30.0, 28, 33), turn(2, 0.1) * [1, -1, 1]
    field = place_field(vectors, *place)
    affine = AFFINE, [*MATRIX.ravel(), *SHIFT], CENTRE
    path = write_h5(tmp_path / "a_xfm.h5", [affine, field], compression=compression)
    moved = read_transform(path).apply(POINTS)
    slow = []
    for point in POINTS * FLIP:
        there = displace(point, vectors.astype(float), *place)
        slow.append((MATRIX @ (there - CENTRE) + CENTRE + SHIFT) * FLIP)
    np.testing.assert_allclose(moved, slow, rtol=0, atol=1e-11)
    with pytest.raises(DataError, match="no exact inverse") as told:
        read_transform(path).invert()
    assert "other direction" in told.value.remedy
    assert told.value.where == str(path)


def test_a_chunk_that_is_the_whole_field_is_inflated_once(tmp_path, monkeypatch):
    monkeypatch.setattr(transforms, "_CACHE_BYTES", 64)
    vectors = smooth_field(np.random.default_rng(4), (4, 4, 4), 3.0)
    place = (-60.0, -60, -60), (40.0, 40, 40), np.eye(3)
    path = write_h5(
        tmp_path / "x.h5", [place_field(vectors, *place)], compression="gzip"
    )
    slow = [displace(p, vectors, *place) * FLIP for p in POINTS * FLIP]
    np.testing.assert_allclose(read_transform(path).apply(POINTS), slow, atol=1e-11)


def field_file(path, change=None, values=None, **how):
    kind, flat, fixed = place_field(np.ones((3, 3, 3, 3)), [0] * 3, [1.0] * 3)
    fixed, flat = list(fixed), flat if values is None else values
    for place, value in (change or {}).items():
        fixed[place] = value
    return write_h5(path, [(kind, flat, fixed)], **how)


NAN_FIELD = np.ones(81)
NAN_FIELD[40] = np.nan
HUGE_FIELD = np.ones(81)
HUGE_FIELD[[1, 2]] = 1e30
HOSTILE_FIELDS = {
    "size": ({0: 4.0}, None, "4 x 3 x 3 voxels, but 81 numbers; 108 are needed"),
    "fraction": ({0: 2.5}, None, "2.5 x 3 x 3 voxels"),
    "none": ({1: 0.0}, None, "3 x 0 x 3 voxels"),
    "negative": ({1: -3.0}, None, "3 x -3 x 3 voxels"),
    "declared": ({0: 9e4, 1: 9e4, 2: 9e4}, None, "90000 x 90000 x 90000 voxels"),
    "infinite": ({0: np.inf}, None, "not finite"),
    "spacing": ({6: 0.0}, None, "no volume"),
    "mirror": ({6: -1.0}, None, "no volume"),
    "direction": ({9: 0.0}, None, "no volume"),
    "short": (None, np.ones(80), "but 80 numbers; 81 are needed"),
    "nan": (None, NAN_FIELD, "1 numbers of its field are not finite"),
    "far": (None, HUGE_FIELD, "2 numbers of its field .* above 100000 mm"),
    "integers": (None, None, "holds int64 in 1 dimensions"),
    "square": (None, None, "holds float64 in 2 dimensions"),
}


@pytest.mark.parametrize("case", HOSTILE_FIELDS)
def test_fields_that_cannot_be_are_refused(case, tmp_path):
    change, values, words = HOSTILE_FIELDS[case]
    path = field_file(tmp_path / "x.h5", change, values)
    if case in ("integers", "square"):
        with h5py.File(path, "r+") as file:
            data = np.ones(81, int) if case == "integers" else np.ones((9, 9))
            del file["TransformGroup/1/TransformParameters"]
            file["TransformGroup/1/TransformParameters"] = data
    with pytest.raises(DataError, match=words) as told:
        read_transform(path).apply(np.array([[-1.0, -1, 1]]))
    assert told.value.where == str(path)
    assert told.value.remedy


def test_a_field_of_nothing_but_fill_is_not_allocated(tmp_path):
    """A kilobyte can declare a terabyte; it is not read."""
    path = field_file(tmp_path / "x.h5", {0: 4e3, 1: 4e3, 2: 4e3})
    with h5py.File(path, "r+") as file:
        del file["TransformGroup/1/TransformParameters"]
        file.create_dataset(
            "TransformGroup/1/TransformParameters",
            shape=(3 * 4000**3,),
            chunks=(2**20,),
            dtype=float,
        )
    assert path.stat().st_size < 1e5
    with pytest.raises(DataError, match="4000 x 4000 x 4000 voxels"):
        read_transform(path)


def set_type(file, value):
    del file["TransformGroup/1/TransformType"]
    file["TransformGroup/1/TransformType"] = value


def drop(name):
    def change(file):
        del file[name]

    return change


def as_group(name):
    def change(file):
        del file[name]
        file.create_group(name)

    return change


def link_in_circle(file):
    del file["TransformGroup/1"]
    file["TransformGroup/1"] = h5py.SoftLink("/TransformGroup/1")


PARTS = "TransformGroup/1/"
HOSTILE_H5 = {
    "no group": (drop("TransformGroup"), "TransformGroup"),
    "empty group": (as_group("TransformGroup"), "is empty"),
    "no first": (drop("TransformGroup/0"), "component not found|'0'"),
    "only a composite": (drop("TransformGroup/1"), "holds none"),
    "no type": (drop(PARTS + "TransformType"), "TransformType"),
    "type is a number": (lambda f: set_type(f, 3), "is not one word"),
    "types": (lambda f: set_type(f, ["a", "b"]), "is not one word"),
    "type is a group": (as_group(PARTS + "TransformType"), "group"),
    "no vectors": (drop(PARTS + "TransformParameters"), "has no vectors"),
    "no place": (drop(PARTS + "TransformFixedParameters"), "0 numbers where 18"),
    "vectors are a group": (as_group(PARTS + "TransformParameters"), "group"),
    "second composite": (
        lambda f: set_type(f, "CompositeTransform_double_3_3"),
        "a further composite",
    ),
    "circle": (link_in_circle, "."),
    "too many": (
        lambda f: [f.create_group(f"TransformGroup/{n}") for n in range(2, 99)],
        "holds 99 transforms",
    ),
}


@pytest.mark.parametrize("case", HOSTILE_H5)
def test_other_hdf5_files_are_refused_in_words(case, tmp_path):
    change, words = HOSTILE_H5[case]
    path = field_file(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=words) as told:
        read_transform(path)
    assert told.value.where == str(path)
    assert told.value.remedy


@pytest.mark.parametrize(
    "kind",
    [
        "BSplineTransform_double_3_3",
        "AffineTransform_double_2_2",
        "GaussianSmoothingOnUpdateDisplacementFieldTransform_double_3_3",
        "Similarity2DTransform_double_2_2",
        "\x1b[31mred",
    ],
)
@pytest.mark.parametrize("form", ["h5", "txt"])
def test_transforms_that_are_not_known_are_named(kind, form, tmp_path):
    write = write_h5 if form == "h5" else write_text
    path = write(tmp_path / f"x.{form}", [(kind, [1.0] * 12, [0.0] * 3)])
    with pytest.raises(DataError, match="not known") as told:
        read_transform(path)
    assert kind.replace("\x1b", "\\x1b") in str(told.value)
    assert "AffineTransform, CompositeTransform" in told.value.remedy


def test_a_list_of_transforms_is_no_composite(tmp_path):
    """fMRIPrep's desc-hmc has one transform per volume."""
    one = (AFFINE, [*np.eye(3).ravel(), 0, 0, 0], [0, 0, 0])
    for path in (
        write_text(tmp_path / "x.txt", [one] * 3),
        write_h5(tmp_path / "x.h5", [one] * 3, composite=False),
    ):
        with pytest.raises(DataError, match="3 transforms and no composite"):
            read_transform(path)
    both = [("CompositeTransform_double_3_3", None, None), one, one]
    path = write_text(tmp_path / "composite.txt", both)
    np.testing.assert_allclose(read_transform(path).apply(POINTS), POINTS)


GOOD = "Transform: AffineTransform_double_3_3\nParameters: 1 0 0 0 1 0 0 0 1 0 0 0\n"
HOSTILE_TEXT = {
    "junk": ("hello\nworld\n", "a line is not ITK's: 'hello'"),
    "html": ("<!DOCTYPE html>\n", "a line is not ITK's"),
    "comments": ("#Insight Transform File V1.0\n", "no line 'Transform: ...'"),
    "words": (GOOD.replace(" 1 0 0 0\n", " 1 0 0 x\n"), "no number .*'x'"),
    "few": (GOOD.replace(" 1 0 0 0\n", " 1\n"), "has 9 numbers where 12 are needed"),
    "none": ("Transform: AffineTransform_double_3_3\n", "0 numbers where 12"),
    "no centre": (GOOD, "0 numbers where 3 or 4"),
    "centre": (GOOD + "FixedParameters: 0 0\n", "2 numbers where 3 or 4"),
    "nan": (GOOD.replace(" 0\n", " nan\n") + "FixedParameters: 0 0 0\n", "not finite"),
    "far": (GOOD.replace(" 0\n", " 1e9\n") + "FixedParameters: 0 0 0\n", "above"),
    "flat": (
        GOOD.replace(" 1 0 0 0\n", " 0 0 0 0\n") + "FixedParameters: 0 0 0\n",
        "determinant of its matrix is 0",
    ),
    "twice": (GOOD + "Parameters: 1\n", "two lines 'Parameters'"),
    "field": ("Transform: DisplacementFieldTransform_double_3_3\n", "in a text file"),
    "versor": (
        "Transform: VersorRigid3DTransform_double_3_3\nParameters: 1 1 1 0 0 0\n"
        "FixedParameters: 0 0 0\n",
        "longer than 1",
    ),
    "long": ("#" * (2**20 + 1), "longer than 1048576 bytes"),
    "binary": (b"\xff\xfe\x00\x01" * 50, "neither HDF5 nor text"),
}


@pytest.mark.parametrize("case", HOSTILE_TEXT)
def test_other_texts_are_refused_in_words(case, tmp_path):
    content, words = HOSTILE_TEXT[case]
    path = tmp_path / "x.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words) as told:
        read_transform(path)
    assert told.value.where == str(path)
    assert told.value.remedy


def test_files_that_are_not_here(tmp_path):
    path = tmp_path / "x.h5"
    with pytest.raises(MissingInput, match="no such file"):
        read_transform(path)
    path.symlink_to(tmp_path / ".git/annex/objects/x")
    with pytest.raises(MissingInput, match="link to content that is not here"):
        read_transform(path)
    path.unlink()
    path.touch()
    with pytest.raises(MissingInput, match="empty"):
        read_transform(path)
    path.write_text("Transform: \n")
    with pytest.raises(DataError, match="does not begin as an HDF5 file"):
        read_transform(path)


def test_no_damage_ends_in_anything_but_words(tmp_path):
    """Cut and altered copies: read, or refused in words; never a traceback."""
    rng = np.random.default_rng(5)
    vectors = smooth_field(rng, (6, 6, 6), 2.0)
    field = place_field(vectors, [-60] * 3, [25.0] * 3)
    affine = AFFINE, *random_affine(rng)
    whole = write_h5(tmp_path / "a.h5", [affine, field], compression="gzip")
    content = whole.read_bytes()
    path, refused = tmp_path / "b.h5", []
    for n in range(300):
        damaged = bytearray(content)
        if n % 3 == 0:
            del damaged[int(rng.integers(9, len(content))) :]
        else:
            for place in rng.integers(8, len(content), 1 + n % 7):
                damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            moved = read_transform(path).apply(POINTS)
        except BidsRoiError as error:
            refused.append((error.where, bool(error.remedy)))
        else:
            assert np.isfinite(moved).all()
    assert len(refused) > 150
    assert set(refused) == {(str(path), True)}


def test_damage_behind_the_header_is_found_when_it_is_read(tmp_path):
    vectors = smooth_field(np.random.default_rng(6), (8, 8, 8), 2.0)
    field = place_field(vectors, [-70] * 3, [20.0] * 3)
    path = write_h5(tmp_path / "a.h5", [field], compression="gzip")
    with h5py.File(path) as file:
        chunk = file[PARTS + "TransformParameters"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    middle = chunk.byte_offset + chunk.size // 2
    content[middle : middle + 8] = bytes(8)
    with pytest.raises(zlib.error):
        zlib.decompress(content[chunk.byte_offset : chunk.byte_offset + chunk.size])
    path.write_bytes(content)
    transform = read_transform(path)
    with pytest.raises(DataError, match="cannot be read") as told:
        transform.apply(POINTS)
    assert told.value.where == str(path)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        transform.apply(POINTS)


# SimpleITK: what antsApplyTransforms does, in its own code.


@pytest.fixture(scope="module")
def sitk():
    return pytest.importorskip(
        "SimpleITK",
        reason="the oracle for transforms: pip install SimpleITK",
    )


def itk_points(sitk, path, points):
    transform = sitk.ReadTransform(str(path))
    moved = [transform.TransformPoint(tuple(map(float, p))) for p in points * FLIP]
    return np.array(moved) * FLIP


def make_steps(sitk, rng):
    """One of each kind of affine, with random numbers."""
    affine, euler = sitk.AffineTransform(3), sitk.Euler3DTransform()
    values, centre = random_affine(rng)
    affine.SetParameters(values)
    affine.SetFixedParameters(centre.tolist())
    euler.SetParameters([*rng.uniform(-1, 1, 3), *rng.uniform(-20, 20, 3)])
    euler.SetFixedParameters([*rng.uniform(-30, 30, 3), float(rng.integers(2))])
    versor = sitk.VersorRigid3DTransform()
    versor.SetParameters([*rng.uniform(-0.4, 0.4, 3), *rng.uniform(-20, 20, 3)])
    versor.SetFixedParameters(rng.uniform(-30, 30, 3).tolist())
    similar = sitk.Similarity3DTransform()
    similar.SetParameters(
        [*rng.uniform(-0.4, 0.4, 3), *rng.uniform(-20, 20, 3), rng.uniform(0.7, 1.4)]
    )
    similar.SetFixedParameters(rng.uniform(-30, 30, 3).tolist())
    shift = sitk.TranslationTransform(3, rng.uniform(-20, 20, 3).tolist())
    return [affine, euler, versor, similar, shift, sitk.Transform(3, sitk.sitkIdentity)]


def make_field(sitk, rng, shape=(9, 11, 8), reach=80.0):
    vectors = smooth_field(rng, shape, 6.0)
    image = sitk.GetImageFromArray(vectors.transpose(2, 1, 0, 3), isVector=True)
    zooms = 2 * reach / np.array(shape) * rng.uniform(0.8, 1, 3)
    direction = turn(0, rng.uniform(-0.3, 0.3)) @ turn(2, rng.uniform(-0.3, 0.3))
    direction = direction * rng.choice([-1, 1], 3)
    image.SetSpacing(zooms.tolist())
    image.SetDirection(direction.ravel().tolist())
    middle = direction * zooms @ ((np.array(shape) - 1) / 2)
    image.SetOrigin((rng.uniform(-9, 9, 3) - middle).tolist())
    index = np.vstack(
        [
            rng.uniform(-1.5, np.array(shape) + 0.5, (800, 3)),
            rng.integers(0, shape, (100, 3))
            + rng.choice([0, 0.4999, -0.4999], (100, 3)),
            rng.choice([-0.4999, -0.5001, 0], (100, 3)),
            np.array(shape) - rng.choice([0.4999, 0.5001, 1], (100, 3)),
        ]
    )
    points = index @ (direction * zooms).T + image.GetOrigin()
    return sitk.DisplacementFieldTransform(sitk.Image(image)), points * FLIP


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("form", ["txt", "h5"])
def test_every_kind_of_affine_equals_itk(sitk, seed, form, tmp_path):
    rng = np.random.default_rng(seed)
    for step in make_steps(sitk, rng):
        path = tmp_path / f"x.{form}"
        sitk.WriteTransform(step, str(path))
        points = rng.uniform(-120, 120, (300, 3))
        moved = read_transform(path).apply(points)
        np.testing.assert_allclose(
            moved, itk_points(sitk, path, points), rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("seed", range(12))
def test_random_composites_equal_itk(sitk, seed, tmp_path):
    """To the edges of their fields and beyond: 1e-9 mm."""
    rng = np.random.default_rng(100 + seed)
    field, points = make_field(sitk, rng)
    steps = rng.permutation([*make_steps(sitk, rng), field])[: rng.integers(1, 8)]
    if seed % 2:
        steps = [*steps, field]  # points meet the field first: its very edges
    path = tmp_path / "x.h5"
    sitk.WriteTransform(sitk.CompositeTransform(list(steps)), str(path))
    moved = read_transform(path).apply(points)
    expected = itk_points(sitk, path, points)
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-9)
    assert np.abs(moved - points).max() > 1


def test_float_and_compressed_fields_equal_itk(sitk, tmp_path):
    """As ANTs writes with --float: SimpleITK reads what is written here."""
    rng = np.random.default_rng(9)
    vectors = smooth_field(rng, (10, 9, 8), 5.0).astype(np.float32)
    field = place_field(vectors, [-70, -60, -50], [14.0, 13, 12])
    values, fixed = random_affine(rng)
    affine = "AffineTransform_float_3_3", values, fixed
    for legacy in (False, True):
        path = write_h5(
            tmp_path / "x.h5", [affine, field], compression="gzip", legacy=legacy
        )
        points = rng.uniform(-90, 90, (1000, 3))
        moved = read_transform(path).apply(points)
        expected = itk_points(sitk, path, points)
        np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-9)


def test_itk_reads_the_affines_of_these_tests(sitk, tmp_path):
    """The files made by hand above are ITK's, and its numbers are theirs."""
    for case, (values, fixed, matrix) in CASES.items():
        kind = f"{case.split()[0]}_double_3_3"
        if kind.startswith(("MatrixOffset", "Rigid")):
            continue  # SimpleITK has no class for these two
        path = write_text(tmp_path / "x.txt", [(kind, values, fixed)])
        shift = SHIFT * (case != "IdentityTransform")
        expected = move_by_hand(matrix, shift, CENTRE * (len(fixed) > 0))
        np.testing.assert_allclose(itk_points(sitk, path, POINTS), expected, atol=1e-9)


def test_affines_equal_nitransforms(tmp_path):
    """A third reader; its fields are cubic and end otherwise, so affines only."""
    nitransforms = pytest.importorskip("nitransforms", reason="a second oracle")
    rng = np.random.default_rng(10)
    path = write_text(tmp_path / "x.txt", [(AFFINE, *random_affine(rng))])
    theirs = nitransforms.linear.load(path, fmt="itk").map(POINTS)
    np.testing.assert_allclose(read_transform(path).apply(POINTS), theirs, atol=1e-4)


def test_a_transform_can_be_sent_to_a_worker(tmp_path):
    path = write_text(tmp_path / "x.txt", [(AFFINE, [*MATRIX.ravel(), *SHIFT], CENTRE)])
    transform = read_transform(path)
    sent = pickle.loads(pickle.dumps(transform))
    np.testing.assert_array_equal(sent.apply(POINTS), transform.apply(POINTS))
