"""Spheres around coordinates, against nilearn's NiftiSpheresMasker and a loop."""

import itertools
import warnings

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.calls import read, read_regions, run
from support.datasets import SPACE, oblique, write_dataset, write_run

from bids_roi.core.frame import Frame
from bids_roi.core.grid import Grid
from bids_roi.core.partition import build_partition
from bids_roi.core.spheres import map_spheres

FUNC = "sub-01/func"


def write_seeds(path, seeds, radii=None, networks=None):
    """A table of coordinates; the names are s1, s2 ..."""
    columns = {
        "name": [f"s{n}" for n in range(1, len(seeds) + 1)],
        **{
            axis: [repr(float(v)) for v in col]
            for axis, col in zip("xyz", np.array(seeds).T, strict=True)
        },
    }
    columns |= {"radius": list(map(str, radii))} if radii else {}
    columns |= {"network": networks} if networks else {}
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(columns), *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def nilearn_signals(image, seeds, radius, mask=None):
    from nilearn.maskers import NiftiSpheresMasker

    masker = NiftiSpheresMasker(
        [tuple(seed) for seed in seeds],
        radius=radius,
        mask_img=mask,
        allow_overlap=True,
        standardize=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return masker.fit_transform(image)


AFFINES = {
    "plain": np.array([[2, 0, 0, -20], [0, 2, 0, -22], [0, 0, 2, -18], [0, 0, 0, 1.0]]),
    "LAS": np.array([[-3, 0, 0, 27], [0, 3, 0, -22], [0, 0, 3, -18], [0, 0, 0, 1.0]]),
    "oblique": oblique(),
    "anisotropic": np.array(
        [[2.4, 0, 0, -20.3], [0, 1.7, 0, -11], [0, 0, 4.1, -25], [0, 0, 0, 1.0]]
    ),
}
SHAPE = (17, 16, 15)


def seeds_in(affine, n=12, seed=0):
    """Places in the grid, off its voxel centres."""
    rng = np.random.default_rng(seed)
    steps = rng.uniform(0.6, np.array(SHAPE) - 1.6, (n, 3))
    return steps @ affine[:3, :3].T + affine[:3, 3]


@pytest.mark.parametrize("radius", [2.5, 4.0, 6.5])
@pytest.mark.parametrize("name", AFFINES)
def test_signals_are_those_of_nilearn(tmp_path, capsys, name, radius):
    affine = AFFINES[name]
    rng = np.random.default_rng(1)
    data = rng.normal(1000, 50, (*SHAPE, 9))
    inside = rng.uniform(size=SHAPE) < 0.9
    root = write_dataset(tmp_path / "fmriprep", runs=())
    path = write_run(
        root,
        f"sub-01_task-rest_space-{SPACE}",
        data,
        affine=affine,
        with_mask=False,
    )
    mask = tmp_path / "mask.nii.gz"
    nb.save(nb.Nifti1Image(inside.astype(np.uint8), affine), mask)
    seeds = seeds_in(affine)
    table = write_seeds(tmp_path / "ball.tsv", seeds)
    out = tmp_path / "out"
    run(
        *(capsys, root, out, "participant", "--seeds", table, "--seed-radius", radius),
        *("--atlas-space", SPACE, "--mask", mask, "--min-coverage", 0),
    )
    stem = f"{FUNC}/sub-01_task-rest_space-{SPACE}_atlas-ball"
    header, found = read(out / f"{stem}_stat-mean_timeseries.tsv")
    assert header == [f"s{n}" for n in range(1, 13)]
    image = nb.load(path)
    wanted = nilearn_signals(image, seeds, radius, nb.load(mask))
    same = [
        n for n, own in enumerate(members(seeds, radius, affine)) if own is not None
    ]
    assert len(same) > 6
    assert_allclose(found[:, same], wanted[:, same], rtol=1e-12)
    told = read_regions(out / f"{stem}_dseg.tsv")
    centres = np.array([[float(v) for v in told[axis]] for axis in "xyz"]).T
    assert_allclose(centres, seeds, atol=5e-4)


def members(seeds, radius, affine):
    """Voxels of each sphere by a loop; None where nilearn adds one by whole mm."""
    voxels = np.array(list(itertools.product(*map(range, SHAPE))))
    centres = voxels @ affine[:3, :3].T + affine[:3, 3]
    for seed in seeds:
        away = np.sqrt(((centres - seed) ** 2).sum(axis=1))
        own = set(np.flatnonzero(away <= radius))
        step = np.linalg.solve(affine[:3, :3], seed - affine[:3, 3])
        own.add(int(np.flatnonzero((voxels == np.rint(step)).all(axis=1))[0]))
        alike = np.flatnonzero((centres.astype(int) == seed.astype(int)).all(axis=1))
        odd = alike.size and int(alike[0]) not in own
        yield None if odd else own


@pytest.mark.parametrize("name", AFFINES)
def test_members_are_those_of_a_loop(name):
    affine = AFFINES[name]
    grid = Grid.of(SHAPE, affine)
    seeds = seeds_in(affine, n=20, seed=3)
    spheres = np.column_stack([seeds, np.full(20, 5.0)])
    mapped = map_spheres(spheres, Frame.of_grid(grid))
    voxels = np.array(list(itertools.product(*map(range, SHAPE))))
    flat = np.ravel_multi_index(tuple(voxels.T), SHAPE, order="F")
    n_found = 0
    for row, own in enumerate(members(seeds, 5.0, affine)):
        if own is not None:
            n_found += 1
            found = mapped.weights.whole[[row]].indices
            assert sorted(found) == sorted(flat[list(own)])
    assert n_found > 10


@pytest.mark.parametrize("statistic", ["mean", "median", "standard_deviation"])
def test_overlapping_spheres_are_independent_of_each_other(tmp_path, capsys, statistic):
    rng = np.random.default_rng(5)
    affine = AFFINES["plain"]
    data = rng.normal(1000, 50, (*SHAPE, 7))
    root = write_dataset(tmp_path / "fmriprep", runs=())
    write_run(
        *(root, f"sub-01_task-rest_space-{SPACE}", data),
        affine=affine,
        with_mask=False,
    )
    seeds = [(-2.0, 0, 0), (0, 0, 0.5), (2, 1, 0), (3, 0, 0), (0, 0, 0.5)]
    radii = [5, 6, 4, 7, 3]
    table = write_seeds(tmp_path / "ball.tsv", seeds, radii)
    out = tmp_path / "out"
    run(
        *(capsys, root, out, "participant", "--seeds", table, "--statistic", statistic),
        *("--atlas-space", SPACE, "--mask", "none"),
    )
    word = {"standard_deviation": "std"}.get(statistic, statistic)
    _, found = read(next((out / FUNC).glob("*_timeseries.tsv")))
    image = nb.load(next((root / FUNC).glob("*_bold.nii.gz")))
    values = image.get_fdata().reshape(-1, 7)
    centres = np.array(list(np.ndindex(SHAPE))) @ affine[:3, :3].T + affine[:3, 3]
    compute = {"mean": np.mean, "median": np.median, "std": np.std}[word]
    for row, (seed, radius) in enumerate(zip(seeds, radii, strict=True)):
        own = np.linalg.norm(centres - seed, axis=1) <= radius
        assert_allclose(found[:, row], compute(values[own], axis=0), rtol=1e-11)


def test_a_small_sphere_has_the_voxel_that_holds_its_centre():
    grid = Grid.of((5, 5, 5), np.diag([4.0, 4, 4, 1]))
    spheres = np.array([[9.0, 9.5, 7.0, 0.5], [8, 8, 8, 0.1], [500, 0, 0, 3]])
    mapped = map_spheres(spheres, Frame.of_grid(grid))
    two = np.ravel_multi_index((2, 2, 2), (5, 5, 5), order="F")
    assert_array_equal(mapped.weights.whole[[0]].indices, [two])
    assert_array_equal(mapped.weights.whole[[1]].indices, [two])
    assert mapped.weights.whole[[2]].nnz == 0
    assert_array_equal(mapped.n_voxels_atlas, [1, 1, 1])


def test_what_lies_beyond_the_grid_lowers_coverage():
    grid = Grid.of((6, 6, 6), np.diag([2.0, 2, 2, 1]))
    mapped = map_spheres(np.array([[0.0, 6, 6, 4.1]]), Frame.of_grid(grid))
    box = np.array(list(itertools.product(range(-3, 4), repeat=3))) * 2.0
    near = box[np.linalg.norm(box, axis=1) <= 4.1]
    assert mapped.n_voxels_atlas[0] == len(near)
    assert mapped.volume[0] == pytest.approx(len(near) * 8, rel=1e-12)
    partition = build_partition([mapped])
    share = partition.coverage(0, np.ones(partition.voxels.size, dtype=bool))
    assert share[0] == pytest.approx((near[:, 0] >= 0).mean(), abs=1e-12)


def test_a_warp_finds_the_places_in_the_template():
    """Of a run that is moved by a known shift: the same voxels as moved seeds have."""
    affine = oblique()
    grid = Grid.of(SHAPE, affine)
    frame = Frame.of_grid(grid)
    shift = np.array([3.0, -7.0, 11.0])
    seeds = seeds_in(affine, n=6, seed=9)
    spheres = np.column_stack([seeds, np.full(6, 5.5)])
    moved = np.column_stack([seeds + shift, np.full(6, 5.5)])
    here = map_spheres(spheres, frame)
    there = map_spheres(moved, frame, frame.millimetres() + shift)
    assert_array_equal(here.weights.indices, there.weights.indices)
    assert_array_equal(here.weights.indptr, there.weights.indptr)
