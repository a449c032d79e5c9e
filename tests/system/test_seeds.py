"""``--seeds``: tables of coordinates as atlases, from the call to the group level."""

import json
import warnings
from importlib.resources import files

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import datasets, dense
from support import surface_runs as runs
from support.calls import read, read_regions, run, run_tools, sidecar
from support.datasets import SPACE, oblique
from support.moved_trees import NAMES as IN_SPACES
from support.moved_trees import write_moved

import bids_roi

STEM = f"sub-01/func/sub-01_task-rest_space-{SPACE}_atlas-ball"
HEADER = ("name", "x", "y", "z")


def write_table(path, *rows, header=HEADER):
    lines = ["\t".join(map(str, row)) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def place(*voxel):
    """Millimetres of a voxel of the small grid."""
    return (oblique()[:3, :3] @ voxel + oblique()[:3, 3]).tolist()


@pytest.fixture
def table(tmp_path):
    rows = [("a", *place(2, 3, 2)), ("b", *place(3, 3, 2)), ("out", 200, 0, 0)]
    return write_table(tmp_path / "ball.tsv", *rows)


def call(capsys, root, out, table, *more, **how):
    return run(
        *(capsys, root, out, "participant", "--seeds", table, *more),
        **how,
    )


ASKED = ("--seed-radius", 3, "--atlas-space", SPACE)


def test_an_atlas_like_any_other(dataset, table, tmp_path, capsys):
    out = tmp_path / "out"
    more = (*ASKED, "--relmat", "pearson", "--mask", "none")
    call(capsys, dataset, out, table, *more, report=True)
    header, values = read(out / f"{STEM}_stat-mean_timeseries.tsv")
    assert header == ["a", "b", "out"]
    assert np.isnan(values[:, 2]).all()
    told = read_regions(out / f"{STEM}_dseg.tsv")
    assert told["status"] == ["ok", "ok", "lost_in_resampling"]
    assert_allclose(float(told["x"][0]), place(2, 3, 2)[0], atol=5e-4)
    n = int(told["n_voxels_atlas"][0])
    assert float(told["volume"][0]) == pytest.approx(n * 15, rel=1e-6)
    assert "overlapped" not in told
    own = sidecar(out / f"{STEM}_stat-mean_timeseries.tsv")
    assert own["SeedRadius"] == 3
    assert own["Atlas"] == "ball"
    assert own["AtlasTableDigest"].startswith("sha256:")
    root = read_regions(out / "atlas-ball_dseg.tsv")
    assert [float(x) for x in root["atlas_x"]] == pytest.approx(
        [place(2, 3, 2)[0], place(3, 3, 2)[0], 200]
    )
    assert root["radius"] == ["3"] * 3
    assert "ball" in (out / "sub-01.html").read_text()
    run(capsys, out.parent, out, "group", "--stack", "relmat")
    assert list(out.glob("group_*ball*.tsv"))
    assert str(table) in run_tools(
        *(capsys, "inputs", dataset, "--atlas-files", "--seeds", table),
        *map(str, ASKED),
    )


def test_a_notebook_has_the_same(dataset, table, tmp_path, capsys):
    out = tmp_path / "out"
    call(capsys, dataset, out, table, *ASKED)
    bold = next((dataset / "sub-01/func").glob("*_bold.nii.gz"))
    found = bids_roi.extract(bold, table, seed_radius=3)
    _, values = read(out / f"{STEM}_stat-mean_timeseries.tsv")
    assert_allclose(found.signals.to_numpy(), values, rtol=1e-12)


def test_another_radius_or_place_is_not_mixed_in(dataset, table, tmp_path, capsys):
    out = tmp_path / "out"
    call(capsys, dataset, out, table, *ASKED)
    before = datasets.snapshot(out / "sub-01")
    call(capsys, dataset, out, table, *ASKED)
    wider = ("--seed-radius", 4, "--atlas-space", SPACE)
    told = call(capsys, dataset, out, table, *wider, code=1)
    assert "another atlas file: the image of ball" in told.err
    write_table(table, ("a", *place(2, 3, 2)), ("b", *place(3, 3, 3)), ("out", 9, 9, 9))
    call(capsys, dataset, out, table, *ASKED, code=1)
    assert datasets.snapshot(out / "sub-01") == before


@pytest.mark.parametrize(
    ("rows", "header", "more", "told"),
    [
        ([("a", 1, 2, 3)], HEADER, ["--atlas-space", SPACE], "has no radius"),
        ([("a", 1, 2, 3)], HEADER, ["--seed-radius", 3], "the space of the coord"),
        ([("a", 1, 2)], HEADER[:3], ASKED, "x, y and z are needed"),
        ([("a", 1, "n/a", 3)], HEADER, ASKED, "y of seed 1 is 'n/a'"),
        ([("a", 1, 2, 3e4)], HEADER, ASKED, "z of seed 1 is '30000.0'"),
        ([("a", 1, 2, 3, 0)], (*HEADER, "radius"), ASKED, "a radius is above 0 mm"),
        ([("a", 1, 2, 3, -4)], (*HEADER, "radius"), ASKED, "a radius is above 0 mm"),
        ([], HEADER, ASKED, "no region"),
        (
            [("Left a", 30, 2, 3), ("Right b", -30, 2, 3)],
            *(HEADER, ASKED, "2 of 2 seeds lie on the other side"),
        ),
    ],
)
def test_a_table_that_is_none_is_told_at_once(
    dataset, tmp_path, capsys, rows, header, more, told
):
    table = write_table(tmp_path / "ball.tsv", *rows, header=header)
    out = tmp_path / "out"
    code = 64 if told in ("has no radius", "the space of the coord") else 65
    found = call(capsys, dataset, out, table, *more, code=code)
    assert told in found.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--seed-radius", 3], "no effect without --seeds"),
        (["--seeds", "x.tsv", "--seed-radius", 0], "above 0 and up to 50"),
        (["--seeds", "x.tsv", "--seed-radius", 80], "above 0 and up to 50"),
    ],
)
def test_a_radius_that_is_none(dataset, tmp_path, capsys, more, told):
    found = run(
        *(capsys, dataset, tmp_path / "out", "participant", *more),
        code=64,
    )
    assert told in found.err


def test_radii_of_the_table_and_networks(dataset, tmp_path, capsys):
    table = write_table(
        tmp_path / f"tpl-{SPACE}_atlas-ball_seeds.tsv",
        ("a", *place(2, 3, 2), 2.5, "Vis"),
        ("b", *place(3, 3, 2), "n/a", "Default"),
        header=(*HEADER, "radius", "network"),
    )
    out = tmp_path / "out"
    call(capsys, dataset, out, table, "--seed-radius", 4)
    assert sidecar(out / f"{STEM}_stat-mean_timeseries.tsv")["SeedRadius"] == [2.5, 4]
    told = read_regions(out / f"{STEM}_dseg.tsv")
    assert told["network"] == ["Vis", "Default"]
    sizes = [int(n) for n in told["n_voxels_atlas"]]
    assert sizes[0] < sizes[1]


def test_one_on_the_other_side_and_one_twice_are_warnings(dataset, tmp_path, capsys):
    rows = [("Left a", 4, 0, 0), ("Right b", 4, 0, 0), ("Right c", 3, 2, 1)]
    table = write_table(tmp_path / "ball.tsv", *rows)
    out = tmp_path / "out"
    call(capsys, dataset, out, table, *ASKED)
    told = " ".join(sidecar(out / f"{STEM}_stat-mean_timeseries.tsv")["Warnings"])
    assert "1 of 3 seeds lie on the other side than they are called: Left a" in told
    assert "Left a and Right b" in told


def test_only_in_their_own_space(dataset, table, tmp_path, capsys):
    other = ("--seed-radius", 3, "--atlas-space", "MNI152NLin6Asym")
    told = call(capsys, dataset, tmp_path / "out", table, *other, code=65)
    assert "atlas ball is in space MNI152NLin6Asym" in told.err


def test_surfaces_have_no_spheres(table, tmp_path, capsys):
    root, axis = tmp_path / "fmriprep", dense.small_axis()
    runs.write_cifti(root, axis, dense.ramp(12, len(axis)))
    told = call(capsys, root, tmp_path / "out", table, *ASKED, code=66)
    assert not list((tmp_path / "out").rglob("*_timeseries.tsv"))
    assert told.err


def test_moved_to_where_the_participant_lies(table, tmp_path, capsys):
    """The same values on grids that transforms take to one another: the same series."""
    tree = write_moved(tmp_path / "fmriprep")
    out = tmp_path / "out"
    call(capsys, tree, out, table, *ASKED, "--space", "T1w", "native", SPACE)
    tables = {
        space: out / f"sub-01/func/{name}_atlas-ball_stat-mean_timeseries.tsv"
        for space, name in IN_SPACES.items()
    }
    expected = tables["template"].read_bytes()
    assert all(path.read_bytes() == expected for path in tables.values())
    own = sidecar(tables["native"])
    assert own["CoverageOf"] == "moved atlas on the grid of the run"
    assert own["AtlasTransformFit"]["ShareMirrored"] == 0


def test_tables_that_nilearn_installs(tmp_path, capsys):
    """Dosenbach's 160, as the file is: names, networks, and nilearn's signals."""
    from nilearn.maskers import NiftiSpheresMasker

    path = files("nilearn.datasets") / "data/dosenbach_2010.csv"
    affine = np.array([[-4.0, 0, 0, 90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])
    rng = np.random.default_rng(3)
    root = datasets.write_dataset(tmp_path / "fmriprep", ())
    bold = datasets.write_run(
        *(root, f"sub-01_task-rest_space-{SPACE}", rng.normal(900, 9, (46, 55, 46, 4))),
        affine=affine,
        with_mask=False,
    )
    out = tmp_path / "out"
    call(
        *(capsys, root, out, path, "--seed-radius", 5, "--atlas-space", SPACE),
        *("--mask", "none", "--min-coverage", 0),
    )
    (series,) = out.rglob("*_timeseries.tsv")
    header, values = read(series)
    lines = path.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    seeds = [tuple(map(float, row[1:4])) for row in rows]
    assert len(header) == len(set(header)) == len(seeds) == 160
    masker = NiftiSpheresMasker(seeds, radius=5, allow_overlap=True, standardize=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = masker.fit_transform(nb.load(bold))
    # Whole-numbered coordinates and voxels of 4 mm: where a sphere ends is exact.
    assert_allclose(values, wanted, rtol=1e-12)
    told = read_regions(next(out.rglob("sub-*_dseg.tsv")))
    assert told["network"] == [row[5] for row in rows]
    assert json.loads(series.with_suffix(".json").read_text())["SeedRadius"] == 5


def test_power_on_the_grid_and_mask_that_users_have(shared, tmp_path, capsys):
    from nilearn.maskers import NiftiSpheresMasker

    path = files("nilearn.datasets") / "data/power_2011.csv"
    mask = shared / f"atlases/masks/{SPACE}_2mm_brainmask.nii.gz"
    image = nb.load(mask)
    rng = np.random.default_rng(3)
    data = rng.normal(900, 9, (*image.shape, 3)).astype(np.float32)
    data[np.asarray(image.dataobj) == 0] = 0  # as fMRIPrep has it; and it packs faster
    root = datasets.write_dataset(tmp_path / "fmriprep", ())
    bold = datasets.write_run(
        *(root, f"sub-01_task-rest_space-{SPACE}", data),
        affine=image.affine,
        with_mask=False,
    )
    out = tmp_path / "out"
    call(
        *(capsys, root, out, path, "--seed-radius", 5, "--atlas-space", SPACE),
        *("--mask", mask, "--min-coverage", 0),
    )
    _, values = read(next(out.rglob("*_timeseries.tsv")))
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    seeds = [tuple(map(float, row[1:4])) for row in rows]
    masker = NiftiSpheresMasker(  # which takes its time for each seed
        *(seeds[::6], 5, image), allow_overlap=True, standardize=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        double = nb.load(bold).get_fdata()  # or nilearn computes in float32
        wanted = masker.fit_transform(nb.Nifti1Image(double, image.affine))
    assert values.shape == (3, 264)
    assert_allclose(values[:, ::6], wanted, rtol=1e-12)


@pytest.mark.parametrize("more", [["--smoothing-fwhm", 4], ["--high-pass", 0.05]])
def test_each_sphere_has_the_series_that_it_has_alone(dataset, tmp_path, capsys, more):
    places = [place(2, 3, 2), place(3, 3, 2), place(2.5, 2, 2.2)]
    rows = [(f"s{n}", *where, 3 + n) for n, where in enumerate(places)]
    header = (*HEADER, "radius")
    together = write_table(tmp_path / "ball.tsv", *rows, header=header)
    space = ["--atlas-space", SPACE, "--min-coverage", 0]
    call(capsys, dataset, tmp_path / "all", together, *space, *more)
    (path,) = (tmp_path / "all/sub-01").rglob("*_timeseries.tsv")
    _, values = read(path)
    assert np.isfinite(values).all()
    for number, row in enumerate(rows):
        alone = write_table(tmp_path / f"only{number}.tsv", row, header=header)
        out = tmp_path / f"out{number}"
        call(capsys, dataset, out, alone, *space, *more)
        _, own = read(next((out / "sub-01").rglob("*_timeseries.tsv")))
        assert_allclose(values[:, number], own[:, 0], rtol=1e-9, atol=1e-9)


def test_nilearn_adds_a_voxel_by_whole_millimetres():
    """Which is not followed: a seed at 0.9 mm, the voxel at -0.9 mm."""
    from nilearn.maskers.nifti_spheres_masker import apply_mask_and_get_affinity

    from bids_roi.core.frame import Frame
    from bids_roi.core.grid import Grid
    from bids_roi.core.mapping import map_spheres

    affine = np.diag([1.8, 1.8, 1.8, 1])
    affine[:3, 3] = -0.9
    image = nb.Nifti1Image(np.ones((4, 4, 4, 2)), affine)
    seed = (0.9, 0.9, 0.9)
    _, theirs = apply_mask_and_get_affinity([seed], image, 0.5, True)
    assert theirs.sum() == 2
    frame = Frame.of_grid(Grid.of((4, 4, 4), affine))
    ours = map_spheres(np.array([[*seed, 0.5]]), frame)
    assert ours.n_voxels_atlas.tolist() == [1]
