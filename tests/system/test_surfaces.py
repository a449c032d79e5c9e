"""Grayordinates and surfaces through the whole command, against slow oracles."""

import json
import shutil
import subprocess

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import dense, oracles
from support import surface_runs as runs
from support.calls import read, read_regions, run
from support.datasets import SPACE, snapshot, write_run
from support.group_trees import read_rows
from support.toy_confounds import T as N_LONG
from support.toy_confounds import write_confounds
from support.validator import issues_of

import bids_roi
from bids_roi.errors import UsageError
from bids_roi.images.nifti import write_image
from bids_roi.options.words import name_statistics
from bids_roi.outputs.records import read_all_records
from bids_roi.report.pages import read_runs

FUNC = "sub-01/func"
AXIS = dense.small_axis()
V = len(AXIS)
T = 23
NAMES = {i: f"R{i}" for i in (1, 2, 3, 4, 7)}
KEYS = np.random.default_rng(5).choice([0, *NAMES], V)
STATISTICS = [
    name for name in name_statistics(of="labels") if name in oracles.FUNCTIONS
]
WB = shutil.which("wb_command")


def table(out, kind="stat-mean_timeseries", atlas="my", stem=runs.CIFTI):
    head, _, den = stem.partition("_den-")
    den = f"_den-{den}" if den else ""
    return out / FUNC / f"{head}_atlas-{atlas}{den}_{kind}.tsv"


def loop(values, keys, index, statistic="mean", step=None):
    """The oracle of volumes, with grayordinates along one axis; (T, V) values."""
    inside = np.ones((values.shape[1], 1, 1), bool)
    stacked = values.T[:, None, None, :]
    labels = np.asarray(keys)[:, None, None]
    return oracles.regional(stacked, labels, index, inside, statistic, step)


def spoilt(data):
    """Points that are no good: not finite, constant, out of view at times."""
    data = data.copy()
    data[4, 10], data[:, 20], data[3:5, 30], data[:, 40] = np.nan, 7.0, 0.0, 0.0
    data[:, KEYS == 7] = np.nan
    return data


@pytest.mark.parametrize(
    ("kind", "order", "slope", "suffix"),
    [
        ("f4", "<", 1.0, ""),
        ("f8", ">", 1.0, ""),
        ("i2", "<", 0.0137, ""),
        ("i2", ">", 0.0137, ".gz"),
        ("u1", "<", 1.0, ""),
    ],
)
def test_every_statistic_is_that_of_a_loop(
    tmp_path, capsys, kind, order, slope, suffix
):
    data = dense.ramp(T, V)
    if kind[0] == "f":
        stored = spoilt(data).astype(kind)
    else:
        stored = np.rint(data / data.max() * (200 if kind == "u1" else 30_000))
    root, out = tmp_path / "in", tmp_path / "out"
    path = runs.write_cifti(root, AXIS, stored, kind=kind, order=order, slope=slope)
    if suffix:
        with nb.openers.Opener(f"{path}.gz", "wb") as file:
            file.write(path.read_bytes())
        path.unlink()
        path = None
    atlas = runs.write_dlabel(tmp_path / "my.dlabel.nii", AXIS, KEYS, NAMES)
    run(
        *(capsys, root, out, "participant", "--atlas-file", atlas),
        *("--statistic", *STATISTICS),
    )
    values = stored.astype(float) * slope
    step = slope if kind[0] != "f" else None
    for statistic in STATISTICS:
        word = bids_roi.options.words.find_statistic(statistic).stat
        names, found = read(table(out, f"stat-{word}_timeseries"))
        assert names == list(NAMES.values())
        wanted = loop(values, KEYS, list(NAMES), statistic, step)
        if kind[0] == "f":
            assert np.isnan(wanted[:, -1]).all()
        assert_allclose(found, wanted, rtol=1e-12, err_msg=statistic)


def test_models_in_another_order_change_no_number(tmp_path, capsys):
    data = dense.ramp(T, V)
    found = []
    for number, order in enumerate([(0, 1, 2, 3), (3, 1, 0, 2)]):
        axis, taken = runs.reorder(AXIS, order)
        root, out = tmp_path / f"in{number}", tmp_path / f"out{number}"
        runs.write_cifti(root, axis, data[:, taken])
        atlas = runs.write_dlabel(tmp_path / "my.dlabel.nii", AXIS, KEYS, NAMES)
        run(capsys, root, out, "participant", "--atlas-file", atlas)
        found.append(read(table(out))[1])
        regions = read_regions(table(out, "dseg"))
        assert set(regions["coverage"]) == {"1.0"}
    assert_allclose(found[0], found[1], rtol=1e-13)
    assert_allclose(
        found[0], loop(data.astype("f4").astype(float), KEYS, list(NAMES)), rtol=1e-12
    )


def test_points_that_the_run_lacks_lower_the_coverage(tmp_path, capsys):
    rng = np.random.default_rng(1)
    kept = rng.random(V) < 0.8
    kept[np.flatnonzero(KEYS == 1)] = True
    kept[KEYS == 7] = False
    data = dense.ramp(T, V)
    runs.write_cifti(tmp_path / "in", AXIS[kept], data[:, kept], kind="f8")
    atlas = runs.write_dlabel(tmp_path / "my.dlabel.nii", AXIS, KEYS, NAMES)
    out = tmp_path / "out"
    run(capsys, tmp_path / "in", out, "participant", "--atlas-file", atlas)
    regions = read_regions(table(out, "dseg"))
    shares = [(kept & (key == KEYS)).sum() / (key == KEYS).sum() for key in NAMES]
    assert_allclose([float(x) for x in regions["coverage"]], shares, rtol=1e-15)
    assert regions["status"] == ["ok"] * 4 + ["outside_data"]
    assert regions["n_voxels_atlas"] == [str((key == KEYS).sum()) for key in NAMES]
    wanted = loop(data[:, kept], KEYS[kept], list(NAMES))
    assert_allclose(read(table(out))[1], wanted, rtol=1e-12)


def test_a_cleaned_run_is_that_of_a_volume(tmp_path, capsys):
    """36P, a band and censoring: the same arrays as one line of voxels."""
    data = dense.ramp(N_LONG, V, seed=3)
    axis = AXIS
    clean = ["--denoise", "36P", "--low-pass", "0.1", "--high-pass", "0.01"]
    clean += ["--fd-threshold", "0.5", "--relmat", "pearson"]
    surfaces, volumes = tmp_path / "cifti", tmp_path / "nifti"
    runs.write_cifti(surfaces, axis, data, kind="f8")
    write_confounds(surfaces)
    runs.write_root(volumes)
    stem = f"{runs.ENTITIES}_space-{SPACE}"
    stacked = np.asarray(data.T[:, None, None, :])
    write_run(volumes, stem, stacked, affine=np.eye(4), with_mask=False)
    write_confounds(volumes)
    dlabel = runs.write_dlabel(tmp_path / "my.dlabel.nii", axis, KEYS, NAMES)
    image = tmp_path / f"tpl-{SPACE}_atlas-my_dseg.nii.gz"
    write_image(image, KEYS[:, None, None].astype("i4"), np.eye(4))
    tsv = tmp_path / "my.tsv"
    rows = "".join(f"{i}\t{name}\n" for i, name in NAMES.items())
    tsv.write_text(f"index\tname\n{rows}")
    one, other = tmp_path / "one", tmp_path / "other"
    run(capsys, surfaces, one, "participant", "--atlas-file", dlabel, *clean)
    run(
        *(capsys, volumes, other, "participant", "--atlas-file", f"{image},{tsv}"),
        *(*clean, "--mask", "none"),
    )
    for kind in (
        "stat-mean_desc-36P_timeseries",
        "stat-pearsoncorrelation_desc-36P_relmat",
    ):
        mine = table(one, kind).read_text().splitlines()
        theirs = table(other, kind, stem=stem).read_text().splitlines()
        assert mine[0] == theirs[0]
        for a, b in zip(mine[1:], theirs[1:], strict=True):
            cells = [row.split("\t") for row in (a, b)]
            start = kind.endswith("relmat")
            numbers = [
                [np.nan if c == "n/a" else float(c) for c in row[start:]]
                for row in cells
            ]
            assert_allclose(*numbers, rtol=1e-9, atol=1e-9)
    kept = json.loads(table(one, kind).with_suffix(".json").read_text())
    assert kept["NumberOfVolumesKept"] < N_LONG - 1


def random_pair(n_vertices, n_volumes=11, seed=0):
    rng = np.random.default_rng(seed)
    shape = n_volumes, n_vertices
    return tuple(
        (rng.uniform(500, 900, n_vertices) + rng.normal(0, 9, shape)).astype("f4")
        for _ in range(2)
    )


def annots(shared, name):
    return [
        shared / f"atlases/surface/fsa5_{side}_{name}.annot" for side in ("lh", "rh")
    ]


@pytest.mark.parametrize("name", ["schaefer_400", "aparc"])
def test_pairs_are_those_of_nilearn(shared, tmp_path, capsys, name):
    from nilearn.maskers import SurfaceLabelsMasker
    from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage

    left, right = random_pair(10_242)
    runs.write_gifti(tmp_path / "in", left, right)
    paths = annots(shared, name)
    asked = [
        f"L={paths[0]},R={paths[1]}",
        str(paths[0]).replace("_lh_", "_{lh,rh}_"),
        str(paths[1]),
    ]
    outs = []
    for number, text in enumerate(asked):
        out = tmp_path / str(number)
        run(
            *(capsys, tmp_path / "in", out, "participant", "--atlas-file", text),
            *("--atlas-space", "fsaverage5"),
        )
        path = table(out, atlas=f"fsa5{name.replace('_', '')}", stem=runs.GIFTI)
        outs.append(path.read_bytes())
    assert outs[0] == outs[1] == outs[2]
    names, found = read(path)

    vertices = np.zeros((10_242, 3), "f4")
    faces = np.array([[0, 1, 2]])
    one = InMemoryMesh(vertices, faces)
    mesh = PolyMesh(left=one, right=one)
    read_annots = [nb.freesurfer.read_annot(path) for path in paths]
    words = [[n.decode() for n in one[2]] for one in read_annots]
    sides, wanted = {}, []
    for side, (labels, *_), own in zip(
        ("left", "right"), read_annots, words, strict=True
    ):
        for number, word in enumerate(own):
            if word.lower() in ("unknown", "corpuscallosum") or "Medial_Wall" in word:
                continue
            wanted.append(word if "H_" in word else f"{side[0].upper()}H_{word}")
            labels = np.where(labels == number, 10_000 + len(wanted), labels)
        sides[side] = np.where(labels > 10_000, labels - 10_000, 0).astype("i4")
    masker = SurfaceLabelsMasker(SurfaceImage(mesh, sides), standardize=None)
    image = SurfaceImage(mesh, {"left": left.T, "right": right.T})
    theirs = masker.fit_transform(image)
    assert names == wanted
    held = [
        i
        for i in range(len(names))
        if (sides["left"] == i + 1).any() or (sides["right"] == i + 1).any()
    ]
    assert_allclose(found[:, held], theirs, rtol=1e-6)
    both = np.hstack([left, right]).astype(float)
    keys = np.concatenate([sides["left"], sides["right"]])
    exact = np.stack(
        [
            both[:, keys == i + 1].mean(axis=1) if i in held else np.full(11, np.nan)
            for i in range(len(names))
        ],
        axis=1,
    )
    assert_allclose(found, exact, rtol=1e-12)
    regions = read_regions(
        table(tmp_path / "0", "dseg", f"fsa5{name.replace('_', '')}", runs.GIFTI)
    )
    structures = ["CORTEX_LEFT" if "LH" in n else "CORTEX_RIGHT" for n in names]
    assert regions["structure"] == structures


@pytest.mark.skipif(
    WB is None, reason="no wb_command: apt-get install connectome-workbench"
)
def test_4s_is_that_of_workbench(shared, tmp_path, capsys):
    atlas, axis, _ = runs.real_axis(shared)
    data = np.random.default_rng(2).normal(800, 30, (9, len(axis))).astype("f4")
    path = runs.write_cifti(tmp_path / "in", axis, data)
    out = tmp_path / "out"
    tsv = atlas.with_name(atlas.name.replace(".dlabel.nii", ".tsv"))
    run(
        *(capsys, tmp_path / "in", out, "participant"),
        *("--atlas-file", f"{atlas},{tsv}"),
        *("--statistic", "mean", "median", "standard_deviation"),
    )
    for word, method in (
        ("mean", "MEAN"),
        ("median", "MEDIAN"),
        ("standarddeviation", "STDEV"),
    ):
        theirs = tmp_path / f"{method}.ptseries.nii"
        call = [WB, "-cifti-parcellate", path, atlas, "COLUMN", theirs]
        subprocess.run([*map(str, call), "-method", method], check=True)
        stem = f"{runs.ENTITIES}_space-fsLR_atlas-4S_scale-156_den-91k"
        names, found = read(out / FUNC / f"{stem}_stat-{word}_timeseries.tsv")
        # Without its axes, which take nibabel a second.
        wanted = nb.Nifti2Image.from_filename(theirs).get_fdata()[0, 0, 0, 0]
        assert wanted.shape == found.shape == (9, 156)
        assert_allclose(found, wanted, rtol=1e-6, err_msg=method)
    assert names[0] == "LH_Vis_1"


def test_a_dlabel_serves_surfaces_of_its_meshes(shared, tmp_path, capsys):
    """4S on 32k GIFTI: its subcortex is outside of what the run has."""
    atlas, axis, keys = runs.real_axis(shared)
    left, right = random_pair(32_492, 5)
    stem = f"{runs.ENTITIES}_space-fsLR_den-32k"
    runs.write_gifti(tmp_path / "in", left, right, stem=stem)
    out = tmp_path / "out"
    run(capsys, tmp_path / "in", out, "participant", "--atlas-file", atlas)
    found = f"{runs.ENTITIES}_space-fsLR_atlas-4S_scale-156_den-32k"
    regions = read_regions(out / FUNC / f"{found}_dseg.tsv")
    assert regions["status"] == ["ok"] * 100 + ["outside_data"] * 56
    _, values = read(out / FUNC / f"{found}_stat-mean_timeseries.tsv")
    assert np.isnan(values[:, 100:]).all()
    at = keys == 3
    assert axis.name[at].tolist() == ["CIFTI_STRUCTURE_CORTEX_LEFT"] * at.sum()
    wanted = left[:, axis.vertex[at]].astype(float).mean(axis=1)
    assert_allclose(values[:, 2], wanted, rtol=1e-12)


def both_kinds(tmp_path):
    """A derivative with a volume and a dense series of one run, and their atlases."""
    root = tmp_path / "in"
    runs.write_root(root)
    write_run(root, f"{runs.ENTITIES}_space-{SPACE}")
    return root


def test_surfaces_beside_volumes_change_nothing(tmp_path, capsys, atlas):
    root = both_kinds(tmp_path)
    run(capsys, root, tmp_path / "one", "participant", "--atlas-file", atlas)
    runs.write_cifti(root, AXIS, dense.ramp(T, V))
    runs.write_gifti(root, *random_pair(10_242, 3))
    told = run(capsys, root, tmp_path / "other", "participant", "--atlas-file", atlas)
    assert "dtseries" not in told.out + told.err
    one, other = (
        {k: v for k, v in snapshot(tmp_path / n).items() if "logs" not in k}
        for n in ("one", "other")
    )
    assert one == other


def test_a_plain_call_with_a_dlabel_takes_no_volumes(tmp_path, capsys):
    root = both_kinds(tmp_path)
    runs.write_cifti(root, AXIS, dense.ramp(T, V))
    dlabel = runs.write_dlabel(tmp_path / "my.dlabel.nii", AXIS, KEYS, NAMES)
    told = run(capsys, root, tmp_path / "out", "participant", "--atlas-file", dlabel)
    assert "1 run of 1 participant, " in told.out + told.err
    assert not list((tmp_path / "out/sub-01").rglob(f"*{SPACE}*"))


def test_atlases_of_both_kinds_in_one_call(tmp_path, capsys, atlas):
    """Each goes to the runs of its kind, and none is told to be left out."""
    root = both_kinds(tmp_path)
    runs.write_cifti(root, AXIS, dense.ramp(T, V))
    dlabel = runs.write_dlabel(tmp_path / "my.dlabel.nii", AXIS, KEYS, NAMES)
    asked = ["--atlas-file", atlas, dlabel]
    told = run(capsys, root, tmp_path / "out", "participant", *asked)
    assert "skipped" not in told.out + told.err
    found = {p.name for p in (tmp_path / "out/sub-01/func").glob("*_timeseries.tsv")}
    stems = f"{runs.ENTITIES}_space-{SPACE}_atlas-Toy", table(tmp_path).name
    assert found == {f"{stems[0]}_stat-mean_timeseries.tsv", stems[1]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--smoothing-fwhm", "5"], "--smoothing-fwhm cannot be used for surfaces"),
        (
            ["--high-variance-confounds"],
            "--high-variance-confounds cannot be used for surfaces",
        ),
    ],
)
def test_what_surfaces_cannot_have(tmp_path, capsys, options, message):
    runs.write_cifti(tmp_path / "in", AXIS, dense.ramp(T, V))
    dlabel = runs.write_dlabel(tmp_path / "my.dlabel.nii", AXIS, KEYS, NAMES)
    told = run(
        *(capsys, tmp_path / "in", tmp_path / "out", "participant"),
        *("--atlas-file", dlabel, *options),
        code=1,
    )
    assert message in " ".join((told.out + told.err).split())


@pytest.mark.parametrize(
    ("version", "code", "message"),
    [
        ("1.5.10", 1, "fMRIPrep 1.5 wrote this"),
        ("20.0.2", 0, "fMRIPrep 20.0 wrote wrong values"),
        ("20.2.7", 0, ""),
    ],
)
def test_old_fmriprep(tmp_path, capsys, version, code, message):
    runs.write_cifti(tmp_path / "in", AXIS, dense.ramp(T, V))
    runs.write_root(tmp_path / "in", version)
    dlabel = runs.write_dlabel(tmp_path / "my.dlabel.nii", AXIS, KEYS, NAMES)
    told = run(
        *(capsys, tmp_path / "in", tmp_path / "out", "participant"),
        *("--atlas-file", dlabel),
        code=code,
    )
    said = told.out + told.err
    assert message in said
    assert ("fMRIPrep" in said) == bool(message)


def swap(shared, _):
    left, right = annots(shared, "schaefer_100")
    return f"L={right},R={left}"


@pytest.mark.parametrize(
    ("atlas", "message"),
    [
        (swap, "given for CORTEX_LEFT, and is of the right one by its name"),
        (
            lambda s, t: shutil.copy(annots(s, "aparc")[0], t),
            "the file of the other one is needed, too",
        ),
        (
            lambda s, _: (
                s / "atlases/cifti/schaefer_space-fsLR_den-32k_desc-200Parcels7Networks"
                "_atlas.dlabel.nii"
            ),
            "on fsLR with 32,492 vertices, the run on fsaverage with 10,242",
        ),
    ],
)
def test_pairs_and_meshes_that_do_not_fit(shared, tmp_path, capsys, atlas, message):
    runs.write_gifti(tmp_path / "in", *random_pair(10_242, 3))
    given = ["--atlas-file", str(atlas(shared, tmp_path))]
    given += [] if "fsLR" in given[1] else ["--atlas-space", "fsaverage5"]
    from bids_roi.cli import main

    arguments = [tmp_path / "in", tmp_path / "out", "participant", *given]
    code = main([*map(str, arguments), "--executor", "serial", "--no-report"])
    told = capsys.readouterr()
    assert code in (64, 65, 66)
    assert message in " ".join((told.out + told.err).split())


def test_names_that_contradict_their_hemisphere(shared, tmp_path, capsys):
    """Files that say nothing of their side, swapped: the names of regions tell."""
    runs.write_gifti(tmp_path / "in", *random_pair(10_242, 3))
    left, right = annots(shared, "schaefer_100")
    shutil.copy(left, tmp_path / "b.annot")
    shutil.copy(right, tmp_path / "a.annot")
    given = f"L={tmp_path}/a.annot,R={tmp_path}/b.annot"
    told = run(
        *(capsys, tmp_path / "in", tmp_path / "out", "participant"),
        *("--atlas-file", given, "--atlas-space", "fsaverage5"),
        code=65,
    )
    assert "lie on the other hemisphere" in " ".join((told.out + told.err).split())


def test_everything_behind_the_tables(tmp_path, capsys):
    """Report, group level, stack, load, resume and the validator."""
    root, out = tmp_path / "in", tmp_path / "out"
    runs.write_cifti(root, AXIS, dense.ramp(N_LONG, V))
    runs.write_gifti(
        root, *random_pair(32_492, N_LONG), stem=f"{runs.ENTITIES}_space-fsLR"
    )
    write_confounds(root)
    dlabel = runs.write_dlabel(tmp_path / "my.dlabel.nii", AXIS, KEYS, NAMES)
    asked = [root, out, "participant", "--atlas-file", dlabel, "--denoise", "24P"]
    asked += ["--relmat", "pearson", "--min-coverage", "0.2"]
    run(capsys, *asked, report=True)
    page = (out / "sub-01.html").read_text()
    assert "carpet" in page
    assert "grayordinates" in page
    # One methods text for each kind of run.
    assert "taken over the" in page
    assert "over the voxels that" not in page
    before = snapshot(out / "sub-01")
    told = run(capsys, *asked, report=True)
    assert "2  already there" in told.out + told.err
    assert snapshot(out / "sub-01") == before
    run(capsys, root, out, "group", "--stack", "timeseries")
    loaded = bids_roi.load(out)
    table_of_runs = loaded.runs()
    assert set(table_of_runs["space_id"]) == {"fsLR"}
    assert len(table_of_runs) == 2
    regions = loaded.regions(den="91k")
    assert set(regions["structure"].str.split(",").explode()) == {
        "CORTEX_LEFT",
        "CORTEX_RIGHT",
        "THALAMUS_LEFT",
        "BRAIN_STEM",
    }
    assert issues_of(out, "error", "warning") == []


def test_a_hemisphere_beside_the_pair_is_no_run_more(shared, tmp_path, capsys):
    root, out = tmp_path / "in", tmp_path / "out"
    runs.write_gifti(root, *random_pair(10_242))
    for name, side in zip(("lh", "rh"), annots(shared, "aparc"), strict=True):
        shutil.copy(side, tmp_path / f"{name}.my.annot")
    asked = [root, out, "participant", "--atlas-file", tmp_path / "lh.my.annot"]
    asked += ["--atlas-space", "fsaverage5", "--relmat", "pearson"]
    for more, told in ((("--hemi", "L"), True), ((), False)):
        run(capsys, *asked, *more)
        (facts,) = read_runs(out, read_all_records(out))
        assert ("hemi-L" in facts.entities) is told
    run(capsys, root, out, "group", "--stack", "timeseries")
    for name in ("qcfc", "reliability"):
        rows = read_rows(out / f"group_{name}.tsv")
        assert sorted(row["hemi_id"] for row in rows) == ["L", "n/a"]
        assert {row["n_runs"] for row in rows} == {"1"}
    rows = read_rows(out / "group_runs.tsv")
    assert sorted(row["hemi_id"] for row in rows) == ["L", "n/a"]
    assert {row["status"] for row in rows} == {"done"}
    assert {p.name.partition("_space-")[0] for p in out.glob("group_*_stack.h5")} == {
        "group",
        "group_hemi-L",
    }
    loaded = bids_roi.load(out)
    for kind in (loaded.timeseries, loaded.relmats, loaded.regions):
        with pytest.raises(UsageError, match="choose from: L, both"):
            kind()
        left, both = kind(hemi="L"), kind(hemi="both")
        assert not left.index.has_duplicates
        assert not both.index.has_duplicates
    assert set(loaded.runs()["hemi_id"].fillna("")) == {"", "L"}


def test_both_hemispheres_of_two_lengths(tmp_path, capsys):
    left, right = random_pair(10_242, 5)
    runs.write_gifti(tmp_path / "in", left, right[:4])
    dlabel = runs.write_dlabel(tmp_path / "my.dlabel.nii", AXIS, KEYS, NAMES)
    told = run(
        *(capsys, tmp_path / "in", tmp_path / "out", "participant"),
        *("--atlas-file", dlabel),
        code=1,
    )
    assert "has 4 volumes" in told.out + told.err


@pytest.mark.skipif(
    WB is None, reason="no wb_command: apt-get install connectome-workbench"
)
def test_cifti_outputs_are_the_tables_and_open_in_workbench(tmp_path, capsys):
    """Regions without data, and volumes that were left out, are NaN."""
    root, out = tmp_path / "in", tmp_path / "out"
    data = dense.ramp(N_LONG, V)
    data[:, KEYS == 7] = 5
    runs.write_cifti(root, AXIS, data, tr=1.5)
    write_confounds(root)
    atlas = runs.write_dlabel(tmp_path / "my.dlabel.nii", AXIS, KEYS, NAMES)
    asked = [root, out, "participant", "--atlas-file", atlas, "--relmat", "pearson"]
    asked += ["--denoise", "none", "24P", "--fd-threshold", "0.5"]
    run(capsys, *asked)
    assert not list(out.rglob("*.nii"))
    run(capsys, *asked, "--cifti-output")
    for label in ("", "_desc-24P"):
        path = table(out, f"stat-mean{label}_timeseries")
        names, wanted = read(path)
        series = nb.load(path.with_suffix(".ptseries.nii"))
        time, parcels = (series.header.get_axis(i) for i in (0, 1))
        assert list(parcels.name) == names
        assert (time.step, time.unit, len(time)) == (1.5, "SECOND", N_LONG)
        found = series.get_fdata()
        kept = ~np.isnan(found).all(axis=1)
        assert kept.all() == (not label)
        assert_allclose(found[kept], wanted, rtol=1e-6, atol=1e-6)
        for name, vertices in zip(names, parcels.vertices, strict=True):
            key = int(name[1:])
            for side in ("LEFT", "RIGHT"):
                on = AXIS.name == f"CIFTI_STRUCTURE_CORTEX_{side}"
                own = vertices.get(f"CIFTI_STRUCTURE_CORTEX_{side}", [])
                assert set(own) == set(AXIS.vertex[on & (key == KEYS)])
        relmat = table(out, f"stat-pearsoncorrelation{label}_relmat")
        rows = [row.split("\t")[1:] for row in relmat.read_text().splitlines()[1:]]
        wanted = [[np.nan if c == "n/a" else float(c) for c in row] for row in rows]
        pconn = f"stat-pearsoncorrelation{label}_boldmap.pconn.nii"
        matrix = relmat.with_name(table(out, pconn).name.removesuffix(".tsv"))
        assert_allclose(nb.load(matrix).get_fdata(), wanted, rtol=1e-6, atol=1e-6)
        for file in (path.with_suffix(".ptseries.nii"), matrix):
            call = [WB, "-file-information", file]
            subprocess.run([*map(str, call)], check=True, capture_output=True)
    told = run(capsys, *asked, "--cifti-output")
    assert "already there" in told.out + told.err
    assert issues_of(out, "error", "warning") == []


def test_the_remedy_of_a_cifti_and_a_gifti_of_one_name_helps(tmp_path, capsys):
    root, stem = tmp_path / "in", f"{runs.ENTITIES}_space-fsLR"
    runs.write_cifti(root, AXIS, dense.ramp(T, V), stem=stem)
    left, right = np.random.default_rng(3).normal(100, 5, (2, T, 32492))
    runs.write_gifti(root, left, right, stem=stem)
    atlas = runs.write_dlabel(tmp_path / "my.dlabel.nii", AXIS, KEYS, NAMES)
    call = (root, tmp_path / "out", "participant", "--atlas-file", atlas)
    told = run(capsys, *call, code=1).err
    for extension in (".dtseries.nii", ".func.gii"):
        advice = {"bold": {"extension": extension}}
        assert json.dumps(advice) in told
        chosen = tmp_path / "filters.json"
        chosen.write_text(json.dumps(advice))
        out = tmp_path / extension
        run(capsys, root, out, *call[2:], "--bids-filter-file", chosen)
        assert table(out, stem=stem).exists()
