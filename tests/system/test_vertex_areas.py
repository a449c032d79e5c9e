"""Vertices that weigh by their area: by hand, by Workbench, and what is refused."""

import json
import shutil
import subprocess
from xml.etree import ElementTree as ET

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support import dense
from support import gifti_files as gii
from support import surface_runs as runs
from support.calls import read, read_regions, run

from bids_roi.core.frame import find_vertex_areas
from bids_roi.errors import UsageError
from bids_roi.images.surfaces import read_areas
from bids_roi.options.record import Options

FUNC = "sub-01/func"
AXIS = dense.small_axis()
V, T = len(AXIS), 9
NAMES = {i: f"R{i}" for i in (1, 2, 3)}
KEYS = np.random.default_rng(5).choice([0, *NAMES], V)
KEYS[:10] = 3
MESH = 32_492
SIDES = {"L": "CortexLeft", "R": "CortexRight"}
VAAVG = "tpl-fsLR/tpl-fsLR_hemi-{}_den-32k_desc-vaavg_midthickness.shape.gii"
WB = shutil.which("wb_command")
needs_workbench = pytest.mark.skipif(
    WB is None, reason="no wb_command: apt-get install connectome-workbench"
)


def strip(n_vertices, seed):
    """A surface of triangles along a walk: each vertex is a corner of one to three."""
    points = np.random.default_rng(seed).normal(0, 1, (n_vertices, 3)).astype("f4")
    first = np.arange(n_vertices - 2, dtype="i4")
    return points, np.stack([first, first + 1, first + 2], axis=1)


def heron(points, triangles):
    """Areas of the vertices by the lengths of edges, triangle after triangle."""
    areas = np.zeros(len(points))
    for corners in triangles:
        a, b, c = (
            np.linalg.norm(points[corners[i]].astype(float) - points[corners[i - 1]])
            for i in range(3)
        )
        half = (a + b + c) / 2
        area = np.sqrt(max(half * (half - a) * (half - b) * (half - c), 0))
        for corner in corners:
            areas[corner] += area / 3
    return areas


def write_surface(path, points, triangles, structure, **options):
    meta = {"AnatomicalStructurePrimary": structure} if structure else {}
    arrays = [
        gii.array(points, intent="POINTSET", meta=meta, **options),
        gii.array(triangles, intent="TRIANGLE", **options),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(gii.document(arrays))
    return path


def write_both(folder, n_vertices=MESH, name="hemi-{}_midthickness.surf.gii"):
    """Both hemispheres; the flag's value, and areas by hand."""
    found, areas = {}, {}
    for seed, side in enumerate(SIDES):
        points, triangles = strip(n_vertices, seed)
        path = folder / name.format(side)
        found[side] = write_surface(path, points, triangles, SIDES[side])
        areas[side] = find_vertex_areas(points.astype(float), triangles)
    return f"L={found['L']},R={found['R']}", areas


def weights_of(areas):
    """Of each grayordinate: mm2 of its vertex, 8 mm3 for voxels; by nibabel's axis."""
    weights = np.full(V, abs(np.linalg.det(AXIS.affine[:3, :3])))
    for name, side in (("LEFT", "L"), ("RIGHT", "R")):
        own = AXIS.name == f"CIFTI_STRUCTURE_CORTEX_{name}"
        weights[own] = areas[side][AXIS.vertex[own]]
    return weights


def small_run(folder):
    data = np.random.default_rng(3).normal(800, 30, (T, V))
    data[4, 10], data[:, 20], data[3:5, 30] = np.nan, 7.0, 0.0
    runs.write_cifti(folder / "in", AXIS, data, kind="f8")
    atlas = runs.write_dlabel(
        folder / "atlas-my_space-fsLR.dlabel.nii", AXIS, KEYS, NAMES
    )
    return data, folder / "in", atlas


def call(capsys, where, out, atlas, *more, code=0):
    given = ("--atlas-file", atlas, "--vertex-weights", "area", *more)
    return run(capsys, where, out, "participant", *given, code=code)


def outputs(out, kind="stat-mean_timeseries"):
    return out / FUNC / f"{runs.ENTITIES}_space-fsLR_atlas-my_den-91k_{kind}.tsv"


def weighted(data, weights):
    good = np.isfinite(data).all(axis=0) & (data != 0).all(axis=0)
    good &= data.std(axis=0) > 0
    columns = []
    for key in NAMES:
        own = np.flatnonzero((key == KEYS) & good)
        columns.append(sum(weights[v] * data[:, v] for v in own) / weights[own].sum())
    return np.transpose(columns)


def test_areas_are_those_of_heron():
    points, triangles = strip(200, 4)
    found = find_vertex_areas(points.astype(float), triangles)
    assert_allclose(found, heron(points, triangles), rtol=1e-9)


@pytest.mark.parametrize("encoding", ["ASCII", "Base64Binary", "GZipBase64Binary"])
@pytest.mark.parametrize("ordering", ["RowMajorOrder", "ColumnMajorOrder"])
def test_surfaces_of_all_encodings(tmp_path, encoding, ordering):
    points, triangles = strip(50, 4)
    options = {"encoding": encoding, "ordering": ordering}
    path = tmp_path / "x.surf.gii"
    write_surface(path, points, triangles, "CortexLeft", **options)
    structure, areas = read_areas(path)
    assert structure == "CORTEX_LEFT"
    assert_allclose(areas, heron(points, triangles), rtol=1e-6)


def test_means_by_area_are_arithmetic(tmp_path, capsys):
    data, where, atlas = small_run(tmp_path)
    surface, areas = write_both(tmp_path / "surfaces")
    out = tmp_path / "out"
    call(capsys, where, out, atlas, "--surface", surface)
    names, found = read(outputs(out))
    assert names == list(NAMES.values())
    wanted = weighted(data, weights_of(areas))
    assert_allclose(found, wanted, rtol=1e-12)
    # Equal weights are something else, and so is what they say of themselves.
    plain = weighted(data, np.ones(V))
    assert np.abs(plain - wanted).max() > 0.1
    said = json.loads(outputs(out).with_suffix(".json").read_text())
    assert said["VertexWeights"] == "area, of all alike"
    assert said["VertexAreas"] == [f"hemi-{s}_midthickness.surf.gii" for s in "LR"]
    run(capsys, where, tmp_path / "plain", "participant", "--atlas-file", atlas)
    assert_allclose(read(outputs(tmp_path / "plain"))[1], plain, rtol=1e-12)
    other = json.loads(outputs(tmp_path / "plain").with_suffix(".json").read_text())
    assert not {"VertexWeights", "VertexAreas", "VertexAreasDigest"} & set(other)
    assert said["OptionsDigest"] != other["OptionsDigest"]


def test_sizes_of_regions_are_of_their_vertices(tmp_path, capsys):
    """mm2 of what the atlas has; a region with voxels has no one size."""
    _, where, _ = small_run(tmp_path)
    keys = np.where(AXIS.name == "CIFTI_STRUCTURE_CORTEX_LEFT", 1, 2)
    keys[AXIS.name == "CIFTI_STRUCTURE_CORTEX_RIGHT"] = 3
    keys[np.flatnonzero(keys == 1)[:5]] = 2
    atlas = runs.write_dlabel(
        tmp_path / "atlas-my_space-fsLR.dlabel.nii", AXIS, keys, NAMES
    )
    surface, areas = write_both(tmp_path / "surfaces")
    call(capsys, where, tmp_path / "out", atlas, "--surface", surface)
    regions = read_regions(outputs(tmp_path / "out", "dseg"))
    weights = weights_of(areas)
    assert regions["area"][1] == "n/a"
    for row in (0, 2):
        wanted = weights[keys == row + 1].sum()
        assert_allclose(float(regions["area"][row]), wanted, rtol=1e-6)


def test_points_of_a_template_and_resuming(tmp_path, capsys):
    """Mean areas of TemplateFlow's layout; the same again is there, others are not."""
    data, where, atlas = small_run(tmp_path)
    areas = {}
    for seed, side in enumerate(SIDES):
        areas[side] = np.random.default_rng(seed).uniform(0.5, 4, MESH).astype("f4")
        path = tmp_path / "home" / VAAVG.format(side)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(gii.document([gii.array(areas[side], intent="SHAPE")]))
    out, home = tmp_path / "out", ("--templateflow-home", tmp_path / "home")
    call(capsys, where, out, atlas, *home)
    wanted = weighted(data, weights_of(areas))
    assert_allclose(read(outputs(out))[1], wanted, rtol=1e-12)
    before = outputs(out).stat().st_mtime_ns
    call(capsys, where, out, atlas, *home)
    assert outputs(out).stat().st_mtime_ns == before
    surface, _ = write_both(tmp_path / "surfaces")
    found = call(capsys, where, out, atlas, "--surface", surface, code=1)
    assert "--surface" in found.err
    found = run(capsys, where, out, "participant", "--atlas-file", atlas, code=1)
    assert "--vertex-weights" in found.err


def test_the_participants_own_midthickness(tmp_path, capsys):
    data, where, atlas = small_run(tmp_path)
    name = "sub-01_hemi-{}_space-fsLR_den-32k_midthickness.surf.gii"
    _, areas = write_both(where / "sub-01/anat", name=name)
    # On another mesh, which is no matter.
    write_both(where / "sub-01/anat", 50, "sub-01_hemi-{}_midthickness.surf.gii")
    out = tmp_path / "out"
    call(capsys, where, out, atlas, "--surface", "participant")
    assert_allclose(
        read(outputs(out))[1], weighted(data, weights_of(areas)), rtol=1e-12
    )
    said = json.loads(outputs(out).with_suffix(".json").read_text())
    assert said["VertexWeights"] == "area, of the participant"
    uris = [f"bids:preprocessed:sub-01/anat/{name.format(s)}" for s in "LR"]
    assert said["VertexAreas"] == uris
    assert set(uris) <= set(said["Sources"])


FAULTS = {
    "another mesh": "50 vertices, CORTEX_LEFT of the run 32,492",
    "swapped": "says of itself (AnatomicalStructurePrimary) that it is of CORTEX_RIGHT",
    "swapped names": "says in its name that it is of CORTEX_RIGHT",
    "missing": "there is no such file",
    "one side": "names no file of hemi-R",
    "no area": "of 32,492 vertices have no area",
    "a series": "neither a surface nor a map of areas",
    "inflated": "of another shape or quantity (Inflated)",
    "a sphere by name": "of another shape or quantity (sphere)",
    "thickness": "of another shape or quantity (thickness)",
    "participant": "the participant has no midthickness surface of hemi-L",
    "template": "--offline forbids to fetch them",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_surfaces_that_do_not_fit(tmp_path, capsys, fault):
    _, where, atlas = small_run(tmp_path)
    n_vertices = 50 if fault == "another mesh" else MESH
    surface, _ = write_both(tmp_path / "s", n_vertices)
    left, right = (part[2:] for part in surface.split(","))
    if fault == "swapped":
        for name, side in (("a", right), ("b", left)):
            shutil.copy(side, tmp_path / f"{name}.surf.gii")
        surface = f"L={tmp_path}/a.surf.gii,R={tmp_path}/b.surf.gii"
    elif fault == "swapped names":
        points, triangles = strip(MESH, 0)
        for side in (left, right):
            write_surface(
                tmp_path / "s" / side.rpartition("/")[2], points, triangles, ""
            )
        surface = f"L={right},R={left}"
    elif fault == "missing":
        surface = f"L={left}.gz,R={right}"
    elif fault == "one side":
        surface = f"L={left}"
    elif fault == "no area":
        points, triangles = strip(MESH, 0)
        write_surface(
            tmp_path / "s" / left.rpartition("/")[2], points, triangles[5:], ""
        )
    elif fault == "a series":
        gii.write_series(tmp_path / "x.gii", np.ones((3, MESH), "f4"))
        surface = f"L={tmp_path}/x.gii,R={right}"
    elif fault == "inflated":
        meta = {"AnatomicalStructurePrimary": "CortexLeft", "GeometricType": "Inflated"}
        points, triangles = strip(MESH, 0)
        arrays = [
            gii.array(points, intent="POINTSET", meta=meta),
            gii.array(triangles, intent="TRIANGLE"),
        ]
        (tmp_path / "s" / left.rpartition("/")[2]).write_text(gii.document(arrays))
    elif fault == "a sphere by name":
        shutil.copy(left, tmp_path / "sub-01_hemi-L_desc-reg_sphere.surf.gii")
        surface = f"L={tmp_path}/sub-01_hemi-L_desc-reg_sphere.surf.gii,R={right}"
    elif fault == "thickness":
        path = tmp_path / "sub-01_hemi-L_thickness.shape.gii"
        path.write_text(gii.document([gii.array(np.ones(MESH, "f4"), intent="SHAPE")]))
        surface = f"L={path},R={right}"
    elif fault in ("participant", "template"):
        surface = fault
    home = ("--templateflow-home", tmp_path / "home", "--offline")
    found = call(
        capsys, where, tmp_path / "out", atlas, "--surface", surface, *home, code=1
    )
    assert FAULTS[fault] in found.err
    assert not outputs(tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"statistic": ("mean", "median")}, "weighs the mean, not median"),
        ({"surface": "x.surf.gii"}, "--surface"),
        ({"vertex_weights": "none", "surface": "participant"}, "has no effect"),
    ],
)
def test_what_has_no_weights(given, message):
    with pytest.raises(UsageError, match=message):
        Options.of(**{"vertex_weights": "area", **given})


# Workbench


@pytest.fixture(scope="module")
def real_surfaces(tmp_path_factory):
    """Spheres of 32,492 vertices, pulled about so that areas differ; read only."""
    folder, found = tmp_path_factory.mktemp("spheres"), {}
    for seed, (side, structure) in enumerate(SIDES.items()):
        path = folder / f"{side}.surf.gii"
        subprocess.run([WB, "-surface-create-sphere", str(MESH), path], check=True)
        image = nb.load(path)
        noise = np.random.default_rng(seed).normal(0, 0.4, (MESH, 3))
        points, triangles = (array.data for array in image.darrays)
        points = (points + noise).astype("f4")
        found[side] = write_surface(path, points, triangles.astype("i4"), structure)
    return found


ATLASES = {
    "4S 156": "tpl-fsLR_atlas-4S_scale-156_den-91k_dseg",
    "4S 256": "tpl-fsLR_atlas-4S_scale-256_den-91k_dseg",
    "with wall": "schaefer_space-fsLR_den-32k_desc-200Parcels7Networks_atlas",
    "ciftify": "ciftify_rois_for_tests",
}


@pytest.fixture(scope="module")
def real_series(shared, tmp_path_factory):
    """Noise on the points of a real file; the dataset and its file, read only."""
    _, axis, _ = runs.real_axis(shared)
    data = np.random.default_rng(2).normal(800, 30, (7, len(axis))).astype("f4")
    root = tmp_path_factory.mktemp("real") / "in"
    return root, runs.write_cifti(root, axis, data)


@needs_workbench
@pytest.mark.parametrize("name", ATLASES)
def test_all_are_those_of_workbench(
    shared, real_surfaces, real_series, tmp_path, capsys, name
):
    """MEAN, STDEV, MEDIAN and areas, and it opens what --cifti-output writes."""
    root, series = real_series
    atlas = tmp_path / f"atlas-x_space-fsLR_{name.replace(' ', '')}.dlabel.nii"
    shutil.copy(shared / f"atlases/cifti/{ATLASES[name]}.dlabel.nii", atlas)
    sides = real_surfaces
    surface = f"L={sides['L']},R={sides['R']}"
    ways = [("--statistic", "mean", "median", "standard_deviation")]
    ways += [("--vertex-weights", "area", "--surface", surface)]
    for number, more in enumerate(ways):
        run(
            *(capsys, root, tmp_path / f"out{number}", "participant"),
            *("--atlas-file", atlas, "--cifti-output"),
            *("--relmat", "pearson", *more),
        )
    wanted = [("mean", "MEAN", ()), ("median", "MEDIAN", ())]
    wanted += [("standarddeviation", "STDEV", ())]
    areas = ("-spatial-weights", "-left-area-surf", sides["L"])
    wanted += [("mean", "MEAN", (*areas, "-right-area-surf", sides["R"]))]
    for word, method, more in wanted:
        theirs = tmp_path / "theirs.ptseries.nii"
        argv = [WB, "-cifti-parcellate", series, atlas, "COLUMN", theirs, *more]
        subprocess.run([*map(str, argv), "-method", method], check=True)
        folder = tmp_path / f"out{int(bool(more))}" / FUNC
        (ours,) = folder.glob(f"*_stat-{word}_timeseries.tsv")
        names, found = read(ours)
        parcels, values = read_parcels(theirs)
        order = [names.index(n) for n in parcels]
        assert sorted(order) == list(range(len(names)))
        assert_allclose(found[:, order], values, rtol=1e-6, err_msg=word)
    opened = sorted(tmp_path.glob(f"out?/{FUNC}/*.p*.nii"))
    kinds = {path.name.split(".", 1)[1] for path in opened}
    assert kinds == {"ptseries.nii", "pconn.nii"}
    for path in opened:
        done = subprocess.run([WB, "-file-information", path], check=False)
        assert done.returncode == 0, path


def read_parcels(path):
    """Names and series, without all points of the parcels, which nibabel parses."""
    image = nb.Nifti2Image.from_filename(path)
    (extension,) = image.header.extensions
    found = ET.fromstring(extension.content).iter("Parcel")
    return [parcel.get("Name") for parcel in found], image.get_fdata()[0, 0, 0, 0]


@needs_workbench
def test_areas_are_those_of_workbench(real_surfaces, tmp_path):
    for side, path in real_surfaces.items():
        out = tmp_path / f"{side}.shape.gii"
        subprocess.run([WB, "-surface-vertex-areas", path, out], check=True)
        assert_allclose(read_areas(path)[1], nb.load(out).agg_data(), rtol=1e-5)
        # Its own map of areas is read as well.
        assert_array_equal(read_areas(out)[1], nb.load(out).agg_data())
