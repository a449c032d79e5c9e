"""Spheres around coordinates, against nilearn's NiftiSpheresMasker and a loop."""

import warnings

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support.calls import read, read_regions, run
from support.datasets import SPACE, write_dataset, write_run
from support.spheres import AFFINES, SHAPE, members, seeds_in

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
