"""The demo dataset: what its files say must be true of its images."""

import csv
import itertools
import json

import nibabel as nb
import numpy as np
import pytest
from support.validator import issues_of

from bids_roi.demo import dataset
from bids_roi.demo.dataset import write_demo_dataset
from bids_roi.demo.phantom import BOLD_GRID, label_points
from bids_roi.errors import OutputError

RUNS = [
    f"sub-{sub}_ses-{ses}_task-rest_run-{run}"
    for sub, ses, run in itertools.product(("01", "02"), "12", "12")
] + [f"sub-{sub}_ses-1_task-rest_run-1" for sub in ("03", "04", "05", "06")]
GIFTI_RUN, CIFTI_RUN = RUNS[0], RUNS[4]
WITH_UNSTEADY = "sub-01_ses-2_task-rest_run-2"
SPACE = "space-MNI152NLin2009cAsym_res-2"
TEN_DIGITS = 5e-9  # tables are written with ten significant digits; squares double
MOTION = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]


def func_file(demo, run, rest):
    sub, ses = run.split("_")[:2]
    return demo.derivative / sub / ses / "func" / f"{run}_{rest}"


def read_table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def read_confounds(demo, run):
    rows = read_table(func_file(demo, run, "desc-confounds_timeseries.tsv"))
    return {
        name: np.array([np.nan if r[name] == "n/a" else float(r[name]) for r in rows])
        for name in rows[0]
    }


def read_array(path):
    return np.asarray(nb.load(path).dataobj)


def read_bold(demo, run):
    """Values (x, y, z, T) and mask (x, y, z)."""
    bold = read_array(func_file(demo, run, f"{SPACE}_desc-preproc_bold.nii.gz"))
    mask = read_array(func_file(demo, run, f"{SPACE}_desc-brain_mask.nii.gz"))
    return bold, mask > 0


def read_signals(demo, run):
    """Mean of every region (T, R), by nearest atlas voxel; NaN where there is none."""
    image = nb.load(demo.atlas_image)
    bold, mask = read_bold(demo, run)
    affine = nb.load(func_file(demo, run, f"{SPACE}_desc-preproc_bold.nii.gz")).affine
    ijk = np.argwhere(mask)
    there = nb.affines.apply_affine(np.linalg.inv(image.affine) @ affine, ijk)
    labels = np.asarray(image.dataobj)[tuple(np.rint(there).astype(int).T)]
    series = bold[mask]
    values = [int(row["index"]) for row in read_table(demo.atlas_table)]
    lost = np.full(bold.shape[3], np.nan)
    return np.column_stack(
        [series[labels == v].mean(0) if (labels == v).any() else lost for v in values]
    )


def clean(signals, confounds):
    """Residuals of the movements, their derivatives, tissue means and slow waves."""
    names = [
        name
        for name in confounds
        if name.startswith(("trans", "rot", "csf", "white_matter", "cosine"))
    ]
    design = np.nan_to_num(np.column_stack([confounds[name] for name in names]))
    design = (design - design.mean(0)) / design.std(0)
    ramp = np.linspace(-1, 1, len(design))
    design = np.column_stack([np.ones(len(design)), ramp, design])
    return signals - design @ np.linalg.lstsq(design, signals, rcond=None)[0]


def coverage_of(demo, run):
    """Share of atlas voxels whose centre lies in a voxel of the mask, one by one."""
    atlas = nb.load(demo.atlas_image)
    mask_image = nb.load(func_file(demo, run, f"{SPACE}_desc-brain_mask.nii.gz"))
    mask = np.asarray(mask_image.dataobj)
    labels = np.asarray(atlas.dataobj)
    size, first = mask_image.affine[0, 0], mask_image.affine[:3, 3]
    seen, total = {}, {}
    for i, j, k in np.argwhere(labels > 0).tolist():
        label = int(labels[i, j, k])
        xyz = atlas.affine[:3, :3] @ (i, j, k) + atlas.affine[:3, 3]
        voxel = [round(float(v)) for v in (xyz - first) / size]
        inside = all(0 <= v < n for v, n in zip(voxel, mask.shape, strict=True))
        total[label] = total.get(label, 0) + 1
        seen[label] = seen.get(label, 0) + int(inside and mask[tuple(voxel)] > 0)
    return {label: seen[label] / n for label, n in total.items()}


def test_same_seed_same_bytes(demo, demo_call):
    """In another process, too."""
    root, again = demo.derivative.parent, demo_call[0] / "dataset"
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    others = sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert files == others
    different = [
        str(f) for f in files if (root / f).read_bytes() != (again / f).read_bytes()
    ]
    assert different == []
    table = read_table(again / demo.atlas_table.relative_to(root))
    assert [row["name"] for row in table] == list(demo.region_names)
    for path in root.rglob("*.gz"):
        # Flags 0: no name; time 0 (RFC 1952).
        assert path.read_bytes()[3:8] == bytes(5)


def test_other_seed_other_signals(demo, tmp_path, monkeypatch):
    """Of a participant, as each run is seeded by its name."""
    one = {"06": dataset._PROFILES["06"]}
    monkeypatch.setattr(dataset, "_PROFILES", one)
    other = write_demo_dataset(tmp_path, seed=1)
    (run,) = other.signals
    assert not np.allclose(other.signals[run], demo.signals[run])
    assert other.atlas_image.read_bytes() == demo.atlas_image.read_bytes()


def test_size_and_files(demo):
    root = demo.derivative.parent
    files = [p for p in root.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 55e6
    # 12 runs of 7 files; 6 participants of 3; 5 at the root; 4 of the atlas.
    volumes = 12 * 7 + 6 * 3 + 5 + 4
    # GIFTI and CIFTI runs with their sidecars, meshes, and the atlas on both.
    surfaces = 2 * 2 + 2 + 2 + 3 + 2
    assert len(files) == volumes + surfaces
    assert sorted(demo.signals) == RUNS


@pytest.mark.parametrize("run", RUNS)
def test_headers_and_sidecars(demo, run):
    path = func_file(demo, run, f"{SPACE}_desc-preproc_bold.nii.gz")
    image = nb.load(path)
    header = image.header
    assert image.shape == (32, 38, 32, 120)
    assert header.get_xyzt_units() == ("mm", "sec")
    assert header["pixdim"][4] == 2.0
    assert (header["sform_code"], header["qform_code"]) == (4, 4)
    floating = run.startswith("sub-01")
    assert header.get_data_dtype() == (np.float32 if floating else np.int16)
    assert float(image.dataobj.slope) == (1 if floating else 10)
    sidecar = json.loads(path.with_name(path.name[:-7] + ".json").read_text())
    assert sidecar["RepetitionTime"] == 2.0
    assert sidecar["TaskName"] == "rest"
    mask = nb.load(func_file(demo, run, f"{SPACE}_desc-brain_mask.nii.gz"))
    reference = nb.load(func_file(demo, run, f"{SPACE}_boldref.nii.gz"))
    assert mask.shape == reference.shape == image.shape[:3]
    np.testing.assert_array_equal(mask.affine, image.affine)
    np.testing.assert_array_equal(reference.affine, image.affine)


@pytest.mark.parametrize("run", RUNS)
def test_framewise_displacement(demo, run):
    confounds = read_confounds(demo, run)
    fd = confounds["framewise_displacement"]
    for t in range(1, len(fd)):
        steps = [abs(confounds[name][t] - confounds[name][t - 1]) for name in MOTION]
        expected = sum(steps[:3]) + 50 * sum(steps[3:])
        assert fd[t] == pytest.approx(expected, abs=1e-9)
    assert 1 < np.nanmax(fd) < 3.5
    assert np.nanmedian(fd) < 0.3


@pytest.mark.parametrize("run", RUNS)
def test_not_available_in_the_first_row_only(demo, run):
    expected = {"framewise_displacement", "rmsd", "dvars", "std_dvars"}
    confounds = read_confounds(demo, run)
    expected |= {name for name in confounds if "_derivative1" in name}
    missing = {name for name, course in confounds.items() if np.isnan(course[0])}
    assert missing == expected
    assert not any(np.isnan(course[1:]).any() for course in confounds.values())


@pytest.mark.parametrize("run", RUNS)
def test_expansions(demo, run):
    confounds = read_confounds(demo, run)
    for name in [*MOTION, "global_signal", "csf", "white_matter"]:
        course = confounds[name]
        slope = confounds[f"{name}_derivative1"]
        rounding = 1e-9 * np.abs(course).max()
        np.testing.assert_allclose(slope[1:], np.diff(course), atol=rounding)
        square = confounds[f"{name}_power2"]
        np.testing.assert_allclose(square, course**2, rtol=TEN_DIGITS)
        square = confounds[f"{name}_derivative1_power2"]
        np.testing.assert_allclose(square[1:], slope[1:] ** 2, rtol=TEN_DIGITS)


@pytest.mark.parametrize("run", RUNS)
def test_motion_outliers(demo, run):
    confounds = read_confounds(demo, run)
    columns = [name for name in confounds if name.startswith("motion_outlier")]
    marked = [int(np.argmax(confounds[name])) for name in columns]
    with np.errstate(invalid="ignore"):
        moved = confounds["framewise_displacement"] > 0.5
        moved |= confounds["std_dvars"] > 1.5
    assert marked == np.flatnonzero(moved).tolist()
    assert columns == [f"motion_outlier{k:02d}" for k in range(len(columns))]
    assert all(sorted(confounds[name])[-2:] == [0.0, 1.0] for name in columns)
    assert 2 <= len(columns) <= 30


@pytest.mark.parametrize("run", RUNS)
def test_non_steady_state(demo, run):
    confounds = read_confounds(demo, run)
    columns = [name for name in confounds if name.startswith("non_steady_state")]
    if run != WITH_UNSTEADY:
        assert columns == []
        return
    assert columns == ["non_steady_state_outlier00"]
    assert np.flatnonzero(confounds[columns[0]]).tolist() == [0]
    signal = confounds["global_signal"]
    assert signal[0] > 1.1 * signal[1:].max()
    # As fMRIPrep has it, components and cosines begin after it.
    assert confounds["a_comp_cor_00"][0] == confounds["cosine00"][0] == 0


@pytest.mark.parametrize("run", RUNS)
def test_tissue_means_are_of_the_image(demo, run):
    bold, mask = read_bold(demo, run)
    sub = run.split("_")[0]
    anat = demo.derivative / sub / "anat" / f"{sub}_{SPACE}_dseg.nii.gz"
    tissue = read_array(anat)
    confounds = read_confounds(demo, run)
    series = bold.astype(np.float64)
    for name, where in (
        ("global_signal", mask),
        ("white_matter", mask & (tissue == 2)),
        ("csf", mask & (tissue == 3)),
    ):
        expected = series[where].mean(axis=0)
        np.testing.assert_allclose(confounds[name], expected, rtol=TEN_DIGITS)


@pytest.mark.parametrize("run", RUNS)
def test_jerks_leave_their_mark(demo, run):
    confounds = read_confounds(demo, run)
    fd, dvars = confounds["framewise_displacement"], confounds["std_dvars"]
    calm = np.median(dvars[3:][fd[3:] < 0.4])
    assert 0.8 < calm < 1.2
    assert np.median(dvars[3:][fd[3:] > 0.5]) > 1.3 * calm
    assert dvars[int(np.nanargmax(fd))] > 1.3 * calm
    # A constant factor apart: one is the other in units of what noise alone gives.
    ratio = confounds["dvars"][1:] / dvars[1:]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


@pytest.mark.parametrize("run", RUNS)
def test_components_and_their_sidecar(demo, run):
    confounds = read_confounds(demo, run)
    path = func_file(demo, run, "desc-confounds_timeseries.json")
    sidecar = json.loads(path.read_text(encoding="utf-8"))
    columns = [name for name in confounds if "_comp_cor_" in name]
    assert sorted(sidecar) == sorted(columns)
    for letter, mask in (("a", "combined"), ("c", "CSF"), ("w", "WM")):
        names = [name for name in columns if name.startswith(letter)]
        entries = [sidecar[name] for name in names]
        assert len(names) >= 5
        assert {e["Mask"] for e in entries} == {mask}
        assert all(e["Retained"] and e["Method"] == "aCompCor" for e in entries)
        total = np.cumsum([e["VarianceExplained"] for e in entries])
        stated = [e["CumulativeVarianceExplained"] for e in entries]
        np.testing.assert_allclose(total, stated, atol=1e-8)
        assert total[-1] >= 0.5 > total[-2]
        block = np.column_stack([confounds[name] for name in names])
        np.testing.assert_allclose(block.T @ block, np.eye(len(names)), atol=1e-8)
    # 2 x 240 s / 128 s gives order 3, of which nipype counts one for the constant.
    assert "cosine01" in confounds
    assert "cosine02" not in confounds


@pytest.mark.parametrize("run", RUNS)
def test_outside_the_brain(demo, run):
    bold, mask = read_bold(demo, run)
    assert (bold[mask] > 0).all()
    heights = -70.25 + 5 * np.arange(32)
    top = heights > 48
    if run.startswith("sub-02"):
        assert not bold[:, :, top].any()
        assert not mask[:, :, top].any()
    else:
        assert mask[:, :, top].any()
    air = bold[~mask][:, 1:]
    assert 0 < np.abs(air).max() <= 10 < bold[mask].min()


def test_coverage_of_the_cut_field_of_view(demo):
    whole = coverage_of(demo, "sub-01_ses-1_task-rest_run-1")
    assert min(whole.values()) > 0.99
    cut = coverage_of(demo, "sub-02_ses-1_task-rest_run-1")
    names = {int(r["index"]): r["name"] for r in read_table(demo.atlas_table)}
    none = {names[v] for v, share in cut.items() if share == 0}
    little = {names[v] for v, share in cut.items() if 0 < share < 0.5}
    much = {names[v] for v, share in cut.items() if 0.5 <= share < 0.95}
    assert none == {"LH_Vertex", "RH_Vertex"}
    assert {"LH_ParietalSuperior", "RH_FrontalSuperior"} <= little
    assert {"LH_SensorimotorLateral", "RH_ParietalInferior"} <= much


def test_atlas_table_and_image(demo):
    rows = read_table(demo.atlas_table)
    assert list(rows[0]) == ["index", "name", "hemisphere", "network", "color"]
    values = [int(row["index"]) for row in rows]
    image = nb.load(demo.atlas_image)
    assert image.header.get_data_dtype() == np.uint8
    assert sorted(values) == np.unique(image.dataobj)[1:].tolist()
    assert values != sorted(values)
    assert max(np.diff(sorted(values))) > 1
    assert tuple(row["name"] for row in rows) == demo.region_names
    assert len(set(demo.region_names)) == len(rows) == 32
    assert len({row["network"] for row in rows}) == 7
    for row in rows:
        assert len(row["color"]) == 7
        int(row["color"].removeprefix("#"), 16)
    description = demo.templateflow_home / "atlas-Demo_description.json"
    assert {"Name", "License"} <= set(json.loads(description.read_text()))


def test_hemispheres(demo):
    image = nb.load(demo.atlas_image)
    labels = np.asarray(image.dataobj)
    for row in read_table(demo.atlas_table):
        voxels = np.argwhere(labels == int(row["index"]))
        x = nb.affines.apply_affine(image.affine, voxels)[:, 0]
        assert len(voxels) > 300
        assert ((x < 0) if row["hemisphere"] == "L" else (x > 0)).all()


def correlations(signals):
    with np.errstate(invalid="ignore"):
        relmat = np.corrcoef(signals.T)
    return relmat[np.triu_indices(len(relmat), 1)]


@pytest.mark.parametrize("run", RUNS)
def test_confound_regression_improves_connectivity(demo, run):
    signals = read_signals(demo, run)
    there = ~np.isnan(signals[0])
    assert there.sum() == (30 if run.startswith("sub-02") else 32)
    signals, truth = signals[:, there], correlations(demo.signals[run][:, there])
    raw = np.abs(correlations(signals) - truth).mean()
    cleaned = clean(signals, read_confounds(demo, run))
    assert np.abs(correlations(cleaned) - truth).mean() < 0.5 * raw
    assert np.corrcoef(correlations(cleaned), truth)[0, 1] > 0.8


def test_networks_and_groups(demo):
    rows = read_table(demo.atlas_table)
    network = np.array([row["network"] for row in rows])
    within = np.equal.outer(network, network)
    default = np.logical_and.outer(network == "Default", network == "Default")
    off = ~np.eye(len(rows), dtype=bool)
    means = {}
    for run, signals in demo.signals.items():
        relmat = np.corrcoef(signals.T)
        assert relmat[within & off].mean() > relmat[~within].mean() + 0.2
        pairs = [relmat[k, k + 1] for k in range(0, len(rows), 2)]
        assert np.mean(pairs) > relmat[within & off].mean()
        means.setdefault(run[:6], []).append(relmat[default & off].mean())
    assert min(means["sub-01"]) > max(means["sub-02"]) + 0.1


def read_dense(demo):
    """Series (T, V), region (V,) and structure (V,) of the CIFTI run."""
    run = func_file(demo, CIFTI_RUN, "space-fsLR_den-91k_bold.dtseries.nii")
    image = nb.load(run)
    labels = demo.templateflow_home / "tpl-fsLR/tpl-fsLR_atlas-Demo_den-91k_dseg"
    atlas = nb.load(f"{labels}.dlabel.nii")
    steps, models = (image.header.get_axis(k) for k in (0, 1))
    assert (steps.step, steps.unit, steps.size) == (2.0, "SECOND", 120)
    assert models == atlas.header.get_axis(1)
    return image.get_fdata(), atlas.get_fdata()[0].astype(int), models


def read_hemispheres(demo):
    """Series (T, V) and region (V,) of both sides of the GIFTI run, put together."""
    series, labels = [], []
    for side in "LR":
        name = f"hemi-{side}_space-fsaverage5_bold.func.gii"
        image = nb.load(func_file(demo, GIFTI_RUN, name))
        name = f"tpl-fsaverage_hemi-{side}_den-10k_atlas-Demo_dseg.label.gii"
        atlas = nb.load(demo.templateflow_home / "tpl-fsaverage" / name)
        says = f"Cortex{'Left' if side == 'L' else 'Right'}"
        for one in (image, atlas):
            assert one.meta["AnatomicalStructurePrimary"] == says
        series.append(np.stack([array.data for array in image.darrays]))
        labels.append(atlas.darrays[0].data)
        assert series[-1].shape == (120, 10_242)
    return np.concatenate(series, axis=1), np.concatenate(labels)


@pytest.mark.parametrize("kind", ["dense", "hemispheres"])
def test_surfaces_tell_what_the_volume_tells(demo, kind):
    """Cleaned as the volume is, they come as near to the truth."""
    run = CIFTI_RUN if kind == "dense" else GIFTI_RUN
    read = read_dense if kind == "dense" else read_hemispheres
    series, labels = read(demo)[:2]
    values = [int(row["index"]) for row in read_table(demo.atlas_table)]
    held = [n for n, v in enumerate(values) if (labels == v).any()]
    assert len(held) == (32 if kind == "dense" else 26)
    signals = np.stack([series[:, labels == values[n]].mean(axis=1) for n in held], 1)
    there = signals.any(axis=0)
    assert there.sum() == len(held) - (2 if kind == "dense" else 0)
    cleaned = clean(signals[:, there], read_confounds(demo, run))
    truth = demo.signals[run][:, held][:, there]
    volume = read_signals(demo, run)[:, held][:, there]
    volume = clean(volume, read_confounds(demo, run))
    for mine, other, true in zip(cleaned.T, volume.T, truth.T, strict=True):
        expected = np.corrcoef(other, true)[0, 1] - 0.2
        assert np.corrcoef(mine, true)[0, 1] > max(expected, 0.4)
    found = np.corrcoef(correlations(cleaned), correlations(truth))[0, 1]
    assert found > 0.8


def test_each_point_has_the_series_of_a_voxel_of_its_region(demo):
    series, labels, _ = read_dense(demo)
    bold, _ = read_bold(demo, CIFTI_RUN)
    of_voxel = label_points(BOLD_GRID).T.ravel()
    flat = bold.reshape(-1, bold.shape[3])
    for value in (1, 33, 52):
        rows = {row.tobytes() for row in flat[of_voxel == value].astype(np.float64)}
        found = {row.tobytes() for row in series[:, labels == value].T.copy()}
        assert found <= rows
        assert len(found) > 3


def test_meshes_are_closed_and_have_the_number_of_vertices_of_their_template(demo):
    _, _, models = read_dense(demo)
    for side, where in (("L", "LEFT"), ("R", "RIGHT")):
        name = f"sub-02_hemi-{side}_space-fsLR_den-32k_midthickness.surf.gii"
        mesh = nb.load(demo.derivative / "sub-02/anat" / name)
        vertices, faces = (array.data for array in mesh.darrays)
        assert vertices.shape == (32_492, 3)
        # Euler: V - E + F = 2 of a closed surface, each edge in two faces.
        edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        unique, count = np.unique(edges, axis=0, return_counts=True)
        assert (count == 2).all()
        assert len(vertices) - len(unique) + len(faces) == 2
        a, b, c = (vertices[faces[:, k]].astype(float) for k in range(3))
        volume = (np.cross(a, b) * c).sum() / 6
        assert volume > 3e5  # mm^3, and wound counter-clockwise from outside
        assert ((vertices[:, 0] < 0) == (side == "L")).all()
        structure = f"CIFTI_STRUCTURE_CORTEX_{where}"
        assert models.nvertices[structure] == 32_492
        used = models.vertex[models.name == structure]
        wall = vertices[np.setdiff1d(np.arange(32_492), used)]
        assert len(wall) > 1000
        assert np.abs(wall[:, 0]).max() < 6


@pytest.mark.parametrize("name", ["fmriprep", "atlas"])
def test_replaces_nothing(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(OutputError, match=r"exists already.*Choose another folder"):
        write_demo_dataset(tmp_path)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written.*60 MB"):
        write_demo_dataset(tmp_path / "file")


def test_validator_finds_no_error(demo):
    assert issues_of(demo.derivative, "error") == []
