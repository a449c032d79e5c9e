"""CIFTI and GIFTI files against Workbench: what it makes of ours, and we of its."""

import shutil
import subprocess

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support import dense
from support import gifti_files as gii

from bids_roi.core.frame import Points
from bids_roi.errors import AtlasError, ImageError
from bids_roi.images.cifti import (
    matrix_content,
    open_dense_series,
    parcels_axis,
    read_dense_labels,
    series_content,
)
from bids_roi.images.surfaces import (
    open_surface_series,
    read_hemisphere,
    read_surface_labels,
)

WB = shutil.which("wb_command")
pytestmark = [
    pytest.mark.filterwarnings("ignore:pixdim"),
    pytest.mark.skipif(
        WB is None, reason="wb_command (connectome-workbench) is absent"
    ),
]
FOUR_S = "tpl-fsLR_atlas-4S_scale-156_den-91k_dseg.dlabel.nii"


def workbench(*argv):
    done = subprocess.run([WB, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["f4", "i2"])
def test_means_are_those_of_workbench(shared, tmp_path, kind):
    """Series and labels through both readers; Workbench adds in single precision."""
    atlas = shared / "atlases" / "cifti" / FOUR_S
    axis = nb.load(atlas).header.get_axis(1)
    data = dense.ramp(6, len(axis)) % 3000
    path, out = tmp_path / "x.dtseries.nii", tmp_path / "x.ptseries.nii"
    scaling = {"slope": 0.5, "intercept": 100.0} if kind == "i2" else {}
    dense.write(path, dense.series_xml(axis, 6), data, kind=kind, **scaling)
    workbench("-cifti-parcellate", path, atlas, "COLUMN", out)
    parcels = nb.load(out)
    series = open_dense_series(path)
    frame, labels = read_dense_labels(atlas)
    assert frame.same(series.frame)
    keys = {label.name: label.key for label in labels.table}
    values = dense.all_values(series)
    ours = [
        values[:, labels.keys == keys[name]].mean(axis=1)
        for name in parcels.header.get_axis(1).name
    ]
    assert len(ours) == 156
    assert_allclose(np.transpose(ours), parcels.get_fdata(), rtol=1e-6)


def open_one(path, hemisphere="L"):
    files = {hemisphere: path}
    return open_surface_series(files, "fsaverage3", hemispheres=(hemisphere,))


@pytest.mark.parametrize("encoding", ["ASCII", "BASE64_BINARY", "GZIP_BASE64_BINARY"])
def test_series_that_workbench_writes(tmp_path, encoding):
    data = dense.ramp(7, 642).astype("f4")
    if encoding == "ASCII":
        data = np.rint(data)
    given = gii.write_series(tmp_path / "x.func.gii", data)
    path = tmp_path / "y.func.gii"
    metric = tmp_path / "z.func.gii"
    for argv in (
        ["-metric-math", "x + 0", metric, "-var", "x", given, "-column", "1"],
        ["-set-structure", given, "CORTEX_LEFT"],
        ["-gifti-convert", encoding, given, path],
    ):
        workbench(*argv)
    assert_array_equal(gii.all_values(open_one(path)), data)
    with pytest.raises(ImageError, match=r"says of itself that it is CORTEX_LEFT"):
        open_one(path, hemisphere="R")
    with pytest.raises(ImageError, match="1 volume, at least 2"):
        open_one(metric)


def test_labels_that_workbench_writes(tmp_path, shared):
    annot = shared / "atlases" / "surface" / "fsa5_lh_aparc.annot"
    wanted = read_surface_labels(annot)
    names = {label.key: label.name for label in wanted.table}
    rows = {key: row for row, key in enumerate(names, 1)}
    metric, listed = tmp_path / "L.func.gii", tmp_path / "labels.txt"
    numbers = np.array([rows[key] for key in wanted.keys.tolist()], "f4")
    gii.write_series(metric, [numbers])
    listed.write_text("".join(f"{n}\n{rows[k]} 1 2 3 255\n" for k, n in names.items()))
    path = tmp_path / "L.label.gii"
    for argv in (
        ["-metric-label-import", metric, listed, path],
        ["-set-structure", path, "CORTEX_LEFT"],
    ):
        workbench(*argv)
    labels = read_surface_labels(path)
    assert_array_equal(labels.keys, numbers)
    found = {label.key: label.name for label in labels.table}
    assert {rows[key]: name for key, name in names.items()}.items() <= found.items()
    assert read_hemisphere(path) == "CORTEX_LEFT"
    with pytest.raises(AtlasError, match="hold fractions"):
        read_surface_labels(metric)


def test_parcellated_files_are_opened(tmp_path, shared):
    """The axis is as Workbench makes it; NaN stays; correlation of rows is numpy's."""
    atlas = shared / "atlases" / "cifti" / FOUR_S
    frame, labels = read_dense_labels(atlas)
    named = [(label.key, label.name) for label in labels.table if label.key]
    axis = parcels_axis(frame, Points(labels.keys), (*named, (999, "nothing")))
    values = np.random.default_rng(0).normal(size=(20, 157))
    values[:, 156] = np.nan
    series, matrix = tmp_path / "x.ptseries.nii", tmp_path / "x.pconn.nii"
    series.write_bytes(series_content(axis, values, 2.0))
    matrix.write_bytes(matrix_content(axis, np.corrcoef(values.T)))
    out, theirs = tmp_path / "out.nii", tmp_path / "their.ptseries.nii"
    for path in (series, matrix):
        assert "157" in workbench("-file-information", path)
    doubled = tmp_path / "doubled.ptseries.nii"
    workbench("-cifti-math", "x * 2", doubled, "-var", "x", series)
    assert_allclose(nb.load(doubled).get_fdata(), values * 2, rtol=1e-6)
    twice = tmp_path / "twice.pconn.nii"
    workbench("-cifti-math", "x * 2", twice, "-var", "x", matrix)
    workbench("-cifti-correlation", series, out.with_suffix(".pconn.nii"))
    found = nb.load(out.with_suffix(".pconn.nii")).get_fdata()[:156, :156]
    assert_allclose(found, np.corrcoef(values[:, :156].T), atol=1e-6)
    models = nb.load(atlas).header.get_axis(1)
    data = dense.ramp(3, len(models))
    run = dense.write(tmp_path / "r.dtseries.nii", dense.series_xml(models, 3), data)
    workbench("-cifti-parcellate", run, atlas, "COLUMN", theirs)
    wanted = nb.load(theirs).header.get_axis(1)
    mine = nb.load(series).header.get_axis(1)
    rows = {name: row for row, name in enumerate(mine.name)}
    for row, name in enumerate(wanted.name):
        own = rows[name]
        for structure, vertices in wanted.vertices[row].items():
            assert_array_equal(mine.vertices[own][structure], np.sort(vertices))
        voxels = sorted(map(tuple, wanted.voxels[row]))
        assert sorted(map(tuple, mine.voxels[own])) == voxels
    assert_allclose(mine.affine, wanted.affine)
    assert mine.nvertices == wanted.nvertices
