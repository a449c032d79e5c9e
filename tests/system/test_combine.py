"""``--combine``: one parcellation out of several, against one put together by hand."""

import json

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import datasets, dense
from support import surface_runs as runs
from support.calls import (
    LUT,
    read,
    read_regions,
    run,
    run_tools,
    segmentation,
    sidecar,
)
from support.datasets import SHAPE, SPACE, oblique
from support.moved_trees import write_moved

import bids_roi
from bids_roi.errors import CollisionError
from bids_roi.images.nifti import write_image
from bids_roi.loading import load

RNG = np.random.default_rng(8)


def write(folder, name, labels, rows, affine=None, columns="index\tname"):
    """Image and table; returns the value of --atlas-file."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"tpl-{SPACE}_atlas-{name}_dseg.nii.gz"
    write_image(image, labels.astype(np.int32), oblique() if affine is None else affine)
    table = image.with_name(image.name.replace(".nii.gz", ".tsv"))
    lines = ["\t".join(map(str, row)) for row in rows]
    table.write_text("\n".join([columns, *lines]) + "\n")
    return f"{image},{table}"


def blobs(seed, values):
    """Labels with holes, in no order."""
    rng = np.random.default_rng(seed)
    volume = np.zeros(SHAPE, np.int64)
    for value in values:
        low = rng.integers(0, np.array(SHAPE) - 3)
        i, j, k = (slice(a, a + 3) for a in low)
        volume[i, j, k] = value
    return volume


CORTEX = {7: "Left A", 3: "Right B", 90: "C"}
DEEP = {5: "C", 4: "Deep", 300: "Gone"}
THIRD = {1: "Cerebellum", 2: "Left A"}


@pytest.fixture
def parts(tmp_path):
    """Three atlases that overlap; one region of the second is wholly in the first."""
    first, second, third = blobs(1, CORTEX), blobs(9, DEEP), blobs(27, THIRD)
    second[second == 300] = 0
    second[tuple(np.argwhere(first == 3)[:4].T)] = 300
    folder = tmp_path / "atlases"
    return {
        "One": (first, list(CORTEX), write(folder, "One", first, CORTEX.items())),
        "Two": (second, list(DEEP), write(folder, "Two", second, DEEP.items())),
        "Three": (third, list(THIRD), write(folder, "Three", third, THIRD.items())),
    }


def by_hand(parts):
    """Combined labels from 1, and the share of each region that is lost, by a loop."""
    whole, shares, start = np.zeros(SHAPE, np.int64), [], 1
    for labels, index, _ in parts.values():
        for number, value in enumerate(index):
            n_all = n_lost = 0
            for voxel in np.ndindex(SHAPE):
                if labels[voxel] == value:
                    n_all += 1
                    if 0 < whole[voxel] < start:
                        n_lost += 1
                    else:
                        whole[voxel] = start + number
            shares.append(n_lost / n_all if n_all else np.nan)
        start += len(index)
    return whole, shares


NAMES = ["One_Left A", "Right B", "One_C", "Two_C", "Deep", "Gone", "Cerebellum"]
NAMES += ["Three_Left A"]
STEM = f"sub-01/func/sub-01_task-rest_space-{SPACE}_atlas-both"


def call(capsys, root, out, *more, **how):
    return run(capsys, root, out, "participant", *more, **how)


def given(parts):
    return ["--atlas-file", *(text for *_, text in parts.values())]


def test_tables_are_those_of_an_atlas_that_is_combined_by_hand(
    dataset, parts, tmp_path, capsys
):
    whole, shares = by_hand(parts)
    hand = write(tmp_path / "hand", "both", whole, enumerate(NAMES, 1))
    one, two = tmp_path / "one", tmp_path / "two"
    more = ["--statistic", "mean", "median", "--relmat", "pearson", "--min-coverage", 0]
    call(capsys, dataset, one, *given(parts), "--combine", "both=One,Two,Three", *more)
    call(capsys, dataset, two, "--atlas-file", hand, *more)
    for out in (one, two):
        run(capsys, out.parent, out, "group", "--stack", "timeseries", "relmat")
    series = [p.relative_to(two) for p in two.rglob("*.tsv") if "logs" not in p.parts]
    assert len(series) > 8
    for path in series:
        # What these say of the region that is gone, and digests, are others.
        if path.name.endswith("_dseg.tsv") or path.name == "group_runs.tsv":
            continue
        assert (one / path).read_bytes() == (two / path).read_bytes(), path
    found = read_regions(one / f"{STEM}_dseg.tsv")
    wanted = read_regions(two / f"{STEM}_dseg.tsv")
    row = NAMES.index("Gone")
    assert (found["status"][row], wanted["status"][row]) == (
        "overlapped",
        "absent_from_atlas",
    )
    told = [float("nan" if cell == "n/a" else cell) for cell in found["overlapped"]]
    assert_allclose(told, shares, atol=1e-6)
    assert shares[row] == 1
    assert any(0 < share < 1 for share in shares)
    for column, cells in wanted.items():
        kept = [n for n in range(len(NAMES)) if column != "status" or n != row]
        if column not in ("hemisphere", "network"):
            assert [found[column][n] for n in kept] == [cells[n] for n in kept]


def test_sidecar_and_root_say_what_was_combined(dataset, parts, tmp_path, capsys):
    out = tmp_path / "out"
    told = call(capsys, dataset, out, *given(parts), "--combine", "both=One,Two,Three")
    own = sidecar(out / f"{STEM}_stat-mean_timeseries.tsv")
    assert own["AtlasParts"] == ["One", "Two", "Three"]
    warnings = " ".join(own["Warnings"])
    assert "1 regions lie wholly in earlier parts: Gone" in warnings
    assert "Gone" in told.err
    root = read_regions(out / "atlas-both_dseg.tsv")
    assert root["name"] == NAMES
    assert root["source_atlas"] == ["One"] * 3 + ["Two"] * 3 + ["Three"] * 2
    assert root["source_index"] == ["7", "3", "90", "5", "4", "300", "1", "2"]
    assert root["original_name"][3] == "C"
    assert root["hemisphere"][:3] == ["L", "R", "n/a"]
    description = json.loads((out / "atlas-both_description.json").read_text())
    assert description["Parts"] == ["One", "Two", "Three"]
    # The parts are not there by themselves.
    assert {p.name for p in out.glob("atlas-*.tsv")} == {"atlas-both_dseg.tsv"}


def test_the_first_named_wins(dataset, parts, tmp_path, capsys):
    out = tmp_path / "out"
    call(capsys, dataset, out, *given(parts), "--combine", "both=Two,One")
    found = read_regions(out / f"{STEM}_dseg.tsv")
    assert found["name"][:3] == ["Two_C", "Deep", "Gone"]
    assert found["status"][2] == "ok"
    assert set(map(float, found["overlapped"][:3])) == {0.0}


def test_networks_and_colours_carry_over(dataset, tmp_path, capsys):
    folder = tmp_path / "atlases"
    one = write(
        *(folder, "One", blobs(1, [1, 2])),
        [(1, "a", "Vis", "#ff0000"), (2, "b", "Default", "#00ff00")],
        columns="index\tname\tnetwork_label\tcolor",
    )
    two = write(folder, "Two", blobs(2, [1]), [(1, "x")])
    out = tmp_path / "out"
    call(capsys, dataset, out, "--atlas-file", one, two, "--combine", "both=One,Two")
    found = read_regions(out / f"{STEM}_dseg.tsv")
    assert found["network"] == ["Vis", "Default", "n/a"]
    root = read_regions(out / "atlas-both_dseg.tsv")
    assert root["color"][:2] == ["#ff0000", "#00ff00"]


def test_maps_and_labels_are_not_mixed(dataset, parts, tmp_path, capsys):
    maps = tmp_path / f"tpl-{SPACE}_atlas-Soft_probseg.nii.gz"
    write_image(maps, RNG.uniform(size=(*SHAPE, 2)), oblique())
    seeds = tmp_path / f"tpl-{SPACE}_atlas-Balls_seeds.tsv"
    seeds.write_text("name\tx\ty\tz\na\t0\t0\t0\n")
    for name, more in {
        "Soft": ["--atlas-file", parts["One"][2], maps],
        "Balls": [
            *("--atlas-file", parts["One"][2]),
            *("--seeds", seeds, "--seed-radius", "3"),
        ],
    }.items():
        told = call(
            *(capsys, dataset, tmp_path / name, *more),
            *("--combine", f"both=One,{name}"),
            code=65,
        )
        assert f"{name} is made of" in told.err
        assert not list((tmp_path / name).rglob("*_timeseries.tsv"))


def test_a_part_is_alone_too_where_it_is_named(dataset, parts, tmp_path, capsys):
    out = tmp_path / "out"
    words = [*given(parts), "--combine", "both=One,Two", "--atlas", "One"]
    told = call(capsys, dataset, out, *words, "--dry-run")
    assert "names from its parts" in told.out
    call(capsys, dataset, out, *words)
    names = {p.name for p in out.glob("atlas-*.tsv")}
    assert names == {f"atlas-{n}_dseg.tsv" for n in ("One", "Three", "both")}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("both", "does not name several"),
        ("both=One", "does not name several"),
        ("both=One,One", "does not name several"),
        ("a_b=One,Two", "cannot be the name"),
        ("One=One,Two", "has the name of another atlas"),
        ("both=One,Nothing", "there is no atlas 'Nothing'"),
    ],
)
def test_what_cannot_be_combined_is_told_at_once(
    dataset, parts, tmp_path, capsys, words, told
):
    out = tmp_path / "out"
    code = CollisionError.exit_code if words == "One=One,Two" else 64
    found = call(*(capsys, dataset, out, *given(parts), "--combine", words), code=code)
    assert told in found.err
    assert not out.exists()


def test_spaces_are_not_mixed(dataset, parts, tmp_path, capsys):
    other = blobs(4, [1])
    image = tmp_path / "tpl-MNI152NLin6Asym_atlas-Six_dseg.nii.gz"
    write_image(image, other.astype(np.int32), oblique())
    told = call(
        *(capsys, dataset, tmp_path / "out", "--atlas-file", parts["One"][2], image),
        *("--combine", "both=One,Six"),
        code=65,
    )
    assert "Six is in space MNI152NLin6Asym" in told.err


def test_names_of_datasets_and_own_segmentations(tmp_path, capsys):
    root = datasets.write_dataset(tmp_path / "fmriprep", ("sub-01_task-rest",))
    own = f"sub-01/func/sub-01_task-rest_space-{SPACE}_desc-aseg_dseg.nii.gz"
    volume = segmentation((2, 4, 0, 0))
    write_image(root / own, volume, oblique())
    lut = "\n".join(f"{i}\t{n}" for i, n in LUT)
    (root / "desc-aseg_dseg.tsv").write_text(f"index\tname\n{lut}\n")
    labels = blobs(1, [1, 2])
    write(tmp_path / f"lab/tpl-{SPACE}", "Lab", labels, [(1, "p"), (2, "q")])
    out = tmp_path / "out"
    call(
        *(capsys, root, out, "--atlas-dataset", f"lab={tmp_path / 'lab'}"),
        *("--combine", "both=lab,subject:aseg", "--min-coverage", 0),
    )
    found = read_regions(out / f"{STEM}_dseg.tsv")
    assert found["name"][:2] == ["p", "q"]
    row = found["name"].index("Left-Cerebral-White-Matter")
    kept = (volume == 2) & (labels == 0)
    assert int(found["n_voxels_atlas"][row]) == kept.sum()
    own_sources = sidecar(out / f"{STEM}_stat-mean_timeseries.tsv")["Sources"]
    assert f"bids:preprocessed:{own}" in own_sources
    assert any(uri.startswith("bids:lab:") for uri in own_sources)
    inputs = run_tools(
        capsys, "inputs", root, "--combine", "both=schaefer400,subject:aseg"
    )
    assert own in inputs


def test_moved_to_native_space_as_the_one_by_hand(parts, tmp_path, capsys):
    tree = write_moved(tmp_path / "fmriprep")
    whole, _ = by_hand(parts)
    hand = write(tmp_path / "hand", "both", whole, enumerate(NAMES, 1))
    one, two = tmp_path / "one", tmp_path / "two"
    spaces = ["--space", "T1w", "native", SPACE]
    combine = ["--combine", "both=One,Two,Three"]
    call(capsys, tree, one, *given(parts), *combine, *spaces)
    call(capsys, tree, two, "--atlas-file", hand, *spaces)
    found = sorted(p.relative_to(two) for p in two.rglob("*_timeseries.tsv"))
    assert len(found) == 3
    for path in found:
        assert (one / path).read_bytes() == (two / path).read_bytes()
    fit = [sidecar(out / found[0]).get("AtlasTransformFit") for out in (one, two)]
    assert fit[0] == fit[1]


def test_resumed_and_never_mixed_with_another_part(dataset, parts, tmp_path, capsys):
    out = tmp_path / "out"
    words = [*given(parts), "--combine", "both=One,Two,Three"]
    call(capsys, dataset, out, *words)
    before = datasets.snapshot(out / "sub-01")
    call(capsys, dataset, out, *words)
    assert datasets.snapshot(out / "sub-01") == before
    frame = load(out, atlas="both").timeseries()
    assert set(NAMES) <= set(frame.columns)
    changed = parts["Two"][0].copy()
    changed[0, 0, 0] = 4
    write(tmp_path / "atlases", "Two", changed, DEEP.items())
    told = call(capsys, dataset, out, *words, code=1)
    assert "another atlas file" in told.err
    other = [*given(parts), "--combine", "both=Two,One,Three"]
    call(capsys, dataset, out, *other, code=1)
    assert datasets.snapshot(out / "sub-01") == before


def test_a_notebook_has_the_same(dataset, parts, tmp_path, capsys):
    folder = tmp_path / f"lab/tpl-{SPACE}"
    for name, (labels, index, _) in parts.items():
        write(folder, name, labels, [(value, f"r{value}") for value in index])
    out, lab = tmp_path / "out", f"lab={folder.parent}"
    combine = ["--combine", "both=One,Two,Three"]
    call(capsys, dataset, out, "--atlas-dataset", lab, *combine)
    bold = next((dataset / "sub-01/func").glob("*_bold.nii.gz"))
    found = bids_roi.extract(bold, "both=One,Two,Three", atlas_dataset=lab)
    header, values = read(out / f"{STEM}_stat-mean_timeseries.tsv")
    assert list(found.signals.columns) == header
    assert_allclose(found.signals.to_numpy(), values, rtol=1e-12)


AXIS = dense.small_axis()


def test_grayordinates_and_a_part_that_is_a_volume_only(parts, tmp_path, capsys):
    root = tmp_path / "fmriprep"
    data = dense.ramp(12, len(AXIS))
    runs.write_cifti(root, AXIS, data)
    rng = np.random.default_rng(5)
    one = rng.integers(0, 3, len(AXIS))
    two = rng.integers(0, 3, len(AXIS))
    first = runs.write_dlabel(
        tmp_path / "first.dlabel.nii", AXIS, one, {1: "a", 2: "b"}
    )
    second = runs.write_dlabel(
        tmp_path / "second.dlabel.nii", AXIS, two, {1: "a", 2: "c"}
    )
    out = tmp_path / "out"
    call(
        *(capsys, root, out, "--atlas-file", first, second, parts["Two"][2]),
        *("--combine", "both=first,Two,second", "--min-coverage", 0),
    )
    (path,) = out.rglob("*_timeseries.tsv")
    header, values = read(path)
    assert header == ["first_a", "b", "C", "Deep", "Gone", "second_a", "c"]
    stored = data
    for column, keys in ((0, one == 1), (1, one == 2)):
        assert_allclose(values[:, column], stored[:, keys].mean(axis=1), rtol=1e-6)
    for column, key in ((5, 1), (6, 2)):
        keys = (two == key) & (one == 0)
        assert_allclose(values[:, column], stored[:, keys].mean(axis=1), rtol=1e-6)
    assert np.isnan(values[:, 2:5]).all()
    found = read_regions(next(out.rglob("sub-*_dseg.tsv")))
    assert found["status"][2:5] == ["outside_data"] * 3
    share = (two[one > 0] == 1).sum() / (two == 1).sum()
    assert float(found["overlapped"][5]) == pytest.approx(share, abs=1e-6)


def test_the_report_has_the_combination(dataset, parts, tmp_path, capsys):
    out = tmp_path / "out"
    call(
        *(capsys, dataset, out, *given(parts), "--combine", "both=One,Two"),
        report=True,
    )
    page = (out / "sub-01.html").read_text()
    assert "both" in page
    assert "overlapped" in page


def test_real_cortex_and_subcortex(shared, tmp_path, capsys):
    """Schaefer with Desikan-Killiany's subcortex, on the grid that users have."""
    folder = shared / "atlases/volume"
    names = "schaefer100x7_MNI152NLin2009cAsym_2mm", "desikanKilliany"
    cortex = folder / f"{names[0]}.nii.gz"
    deep = folder / "desikanKilliany_MNI152NLin2009cAsym_2mm.nii.gz"
    one, two = (
        np.asarray(nb.load(path).dataobj).astype(int) for path in (cortex, deep)
    )
    affine = nb.load(cortex).affine
    assert one.shape == two.shape
    rng = np.random.default_rng(0)
    root = datasets.write_dataset(tmp_path / "fmriprep", ())
    data = rng.normal(1000, 10, (*one.shape, 3)).astype(np.float32)
    datasets.write_run(
        *(root, f"sub-01_task-rest_space-{SPACE}", data),
        affine=affine,
        with_mask=False,
    )
    out = tmp_path / "out"
    call(
        *(capsys, root, out, "--mask", "none", "--atlas-space", SPACE, "--atlas-file"),
        *(f"{cortex},{folder / 'schaefer100x7NodeNames.txt'}",),
        *(f"{deep},{folder / 'desikanKillianyNodeNames.txt'}",),
        *("--combine", f"both={cortex.name},{deep.name}"),
    )
    found = read_regions(out / f"{STEM}_dseg.tsv")
    taken = one > 0
    values = np.unique(two[two > 0])
    for value in values:
        row = next(
            n
            for n, (a, i) in enumerate(
                zip(*source_of(out / "atlas-both_dseg.tsv"), strict=True)
            )
            if i == str(value) and "desikan" in a
        )
        own = two == value
        share = (own & taken).sum() / own.sum()
        assert float(found["overlapped"][row]) == pytest.approx(share, abs=1e-6)
        assert int(found["n_voxels_atlas"][row]) == (own & ~taken).sum()
    assert len(values) > 100


def source_of(path):
    table = read_regions(path)
    return table["source_atlas"], table["source_index"]
