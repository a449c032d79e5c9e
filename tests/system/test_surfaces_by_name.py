"""Atlases by name, through the whole command: volumes, grayordinates, surfaces."""

import csv
import json
import shutil

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support import surface_runs as runs
from support.calls import read, read_regions, run

from bids_roi.images.nifti import write_image

SIX, T = "MNI152NLin6Asym", 6
FUNC = "sub-01/func"
AFFINE = np.array([[2.0, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


@pytest.fixture(autouse=True)
def no_caches(monkeypatch, tmp_path):
    """No atlas of the machine that runs the tests, and no network."""
    for name in ("TEMPLATEFLOW_HOME", "BIDS_ROI_TEMPLATEFLOW", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("BIDS_ROI_TEMPLATEFLOW_URL", "http://127.0.0.1:9")


def test_one_name_extracts_a_volume_and_grayordinates(shared, tmp_path, capsys):
    """The cortex is in the dlabel alone, so that the volume has n/a there."""
    path, axis, keys = runs.real_axis(shared)
    root, out, pack = tmp_path / "in", tmp_path / "out", tmp_path / "pack"
    rng = np.random.default_rng(3)
    data = rng.normal(100, 5, (T, len(axis))).astype("f4")
    runs.write_cifti(root, axis, data)
    # Voxels of the same axis as a volume: subcortex and cerebellum.
    inside = axis.volume_mask
    ijk = tuple(
        nb.affines.apply_affine(np.linalg.inv(AFFINE) @ axis.affine, axis.voxel[inside])
        .round()
        .astype(int)
        .T
    )
    volume = np.zeros((91, 109, 91, T), "f4")
    volume[ijk] = data[:, inside].T
    stem = f"sub-01_task-rest_space-{SIX}"
    write_image(
        root / FUNC / f"{stem}_desc-preproc_bold.nii.gz",
        volume,
        AFFINE,
        repetition_time=2.0,
    )
    labels = np.zeros((91, 109, 91), "i2")
    labels[ijk] = keys[inside]
    name = f"tpl-{SIX}/tpl-{SIX}_atlas-4S_scale-156_res-2_dseg"
    (pack / f"tpl-{SIX}").mkdir(parents=True)
    write_image(pack / f"{name}.nii.gz", labels, AFFINE)
    (pack / "tpl-fsLR").mkdir()
    shutil.copy(path, pack / "tpl-fsLR")
    table = path.with_name(path.name.replace(".dlabel.nii", ".tsv"))
    shutil.copy(table, pack / "tpl-fsLR")
    # The volume's own table has only what the volume holds.
    with table.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    held = [r for r in rows if int(r["index"]) in set(keys[inside].tolist())]
    text = "index\tname\n" + "".join(f"{r['index']}\t{r['name']}\n" for r in held)
    (pack / f"{name}.tsv").write_text(text)
    run(
        *(capsys, root, out, "participant", "--atlas-dataset", f"P={pack}"),
        *("--atlas", "4s156", "--mask", "none"),
    )
    end = "atlas-4S_scale-156{}_stat-mean_timeseries.tsv"
    dense_out = out / FUNC / f"sub-01_task-rest_space-fsLR_{end.format('_den-91k')}"
    volume_out = out / FUNC / f"{stem}_{end.format('')}"
    names, found = read(dense_out)
    other_names, other = read(volume_out)
    assert names == other_names == [row["name"] for row in rows]
    for row, (mine, theirs) in enumerate(zip(found.T, other.T, strict=True)):
        value = int(rows[row]["index"])
        wanted = data[:, keys == value].astype(float).mean(axis=1)
        assert_allclose(mine, wanted, rtol=1e-12)
        if rows[row] in held:
            assert_allclose(theirs, wanted, rtol=1e-12)
        else:
            assert np.isnan(theirs).all()
    told = read_regions(out / FUNC / f"{stem}_atlas-4S_scale-156_dseg.tsv")
    reasons = dict(zip(told["name"], told["status"], strict=True))
    assert reasons[names[0]] == "outside_data"


def test_a_participants_own_annots(shared, tmp_path, capsys):
    root, out = tmp_path / "in", tmp_path / "out"
    rng = np.random.default_rng(4)
    left, right = rng.normal(100, 5, (2, T, 10242)).astype("f4")
    stem = "sub-01_task-rest_space-fsnative"
    runs.write_gifti(root, left, right, stem=stem)
    label = root / "sourcedata/freesurfer/sub-01/label"
    label.mkdir(parents=True)
    wanted = {}
    for side, short, data in (("L", "lh", left), ("R", "rh", right)):
        annot = label / f"{short}.aparc.annot"
        shutil.copy(shared / f"atlases/surface/fsa5_{short}_aparc.annot", annot)
        numbers, _, names = nb.freesurfer.read_annot(annot)
        for number, name in enumerate(names):
            values = data[:, numbers == number].astype(float)
            wanted[side, name.decode()] = values.mean(axis=1)
    run(capsys, root, out, "participant", "--atlas", "subject:aparc")
    names, found = read(out / FUNC / f"{stem}_atlas-aparc_stat-mean_timeseries.tsv")
    beside = out / FUNC / f"{stem}_atlas-aparc_stat-mean_timeseries.json"
    sidecar = json.loads(beside.read_text())
    told = [uri.rpartition("/")[2] for uri in sidecar["Sources"]]
    assert told[-2:] == ["lh.aparc.annot", "rh.aparc.annot"]
    assert " over the vertices of each region of " in sidecar["Description"]
    assert len(names) == 68
    for name, mine in zip(names, found.T, strict=True):
        side, region = name[0], name[3:]
        if name[-2:] in ("_L", "_R"):
            side, region = name[-1], name[:-2]
        assert_allclose(mine, wanted[side, region], rtol=1e-12)
    # An annot that was made anew costs this participant only: no word of a mask, which
    # surfaces have not.
    annot = label / "rh.aparc.annot"
    annot.write_bytes(annot.read_bytes() + bytes(4))
    shutil.copytree(root / "sourcedata/freesurfer/sub-01", label.parents[1] / "sub-02")
    other = stem.replace("sub-01", "sub-02")
    for path in runs.write_gifti(root, left, right, stem=other):
        for part in (path, path.with_name(path.name.replace(".func.gii", ".json"))):
            there = root / "sub-02/func" / part.name
            there.parent.mkdir(parents=True, exist_ok=True)
            part.rename(there)
    told = run(capsys, root, out, "participant", "--atlas", "subject:aparc", code=1).err
    assert "--mask" not in told
    assert "another atlas file: the image of aparc" in told
    assert list(out.glob(f"sub-02/func/{other}_*_timeseries.tsv"))
    # And the group level takes images that no two participants share as one atlas.
    run(capsys, root, out, "participant", "--atlas", "subject:aparc", "--overwrite")
    told = run(capsys, root, out, "group").out
    assert "2 done" in told, told
