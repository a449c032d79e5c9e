"""Images whose values are not what they are used as: refused with what helps."""

import json
import sys

import nibabel as nb
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support import datasets
from support.calls import read, run
from support.datasets import SPACE, oblique

from bids_roi.atlases.names import key_of_file
from bids_roi.atlases.open import AtlasFiles, examine_atlas
from bids_roi.errors import AtlasError, BidsRoiError, ImageError, MissingInput
from bids_roi.images.header import BOLD
from bids_roi.images.nifti import open_image, read_labels, read_mask, write_image

LABELS = np.arange(6 * 7 * 5).reshape(6, 7, 5) % 9


def refused(path, values, **scaling):
    write_image(path, values, oblique(), **scaling)
    with pytest.raises(AtlasError, match="no whole number") as caught:
        read_labels(path, AtlasError)
    assert caught.value.where == str(path)
    return caught.value


# Labels


def test_a_scaled_header_is_told_and_the_remedy_works(tmp_path):
    path = tmp_path / "scaled.nii.gz"
    for slope, intercept in ((98 / 255, 0.0), (0.5, 0.25), (1.0, 0.5)):
        error = refused(path, LABELS.astype(np.uint8), slope=slope, intercept=intercept)
        assert f"scl_slope {slope:.6g} and scl_inter {intercept:.6g}" in error.problem
        assert "nearest neighbour" not in error.remedy
        code = error.remedy.partition("Python: ")[2].partition(". Else")[0]
        new = tmp_path / "new.nii.gz"
        exec(code, {"nibabel": nb, "FILE": path, "NEW": new})
        found, grid = read_labels(new)
        assert_array_equal(found, LABELS)
        assert_allclose(grid.matrix, read_grid_of(path), atol=1e-5)


def read_grid_of(path):
    return nb.load(path).affine


@pytest.mark.parametrize("factor", [98 / 255, 255 / 98, 0.1 / 0.3, 2.5])
def test_rescaled_labels_are_told_and_the_remedy_works(factor, tmp_path):
    path = tmp_path / "rescaled.nii.gz"
    values = (LABELS * factor).astype(np.float32)
    error = refused(path, values)
    assert f"multiples of {factor:.6g}: the labels were rescaled" in error.problem
    step = float(error.remedy.partition("divide by ")[2].partition(" and")[0])
    write_image(path, np.rint(values / step).astype(np.int16), oblique())
    assert_array_equal(read_labels(path)[0], LABELS)


def test_shares_and_interpolated_labels_have_remedies_of_their_own(tmp_path):
    rng = np.random.default_rng(1)
    error = refused(tmp_path / "a.nii.gz", rng.random((6, 7, 5)).astype(np.float32))
    assert "0 to 1" in error.problem
    assert "_probseg" in error.remedy
    assert "threshold" in error.remedy
    for blur in (rng.normal(0, 0.3, LABELS.shape), np.where(LABELS == 4, 0.5, 0)):
        values = (LABELS + blur).astype(np.float32)
        error = refused(tmp_path / "b.nii.gz", values)
        assert "interpolated" in error.problem
        assert "nearest neighbour" in error.remedy


# Labels that are whole, and not the table's


def findings(tmp_path, values, n_rows):
    image, table = tmp_path / "mine.nii.gz", tmp_path / "t.tsv"
    labels = np.zeros((8, 8, 8), np.int32)
    labels.flat[: len(values)] = values
    write_image(image, labels, oblique())
    rows = "".join(f"{v}\tarea{v}\n" for v in range(1, n_rows + 1))
    table.write_text(f"index\tname\n{rows}")
    files = AtlasFiles(key_of_file(image), "native", image, table)
    return [f for f in examine_atlas(files)[1] if f.severity == "error"]


@pytest.mark.parametrize("n", [8, 98, 200, 250])
@pytest.mark.parametrize("rounding", [np.rint, np.floor])
def test_labels_that_were_stretched_to_255(n, rounding, tmp_path):
    """Shown as a picture and saved: whole numbers again, other ones."""
    values = rounding(np.arange(1, n + 1) * 255 / n).astype(int)
    (error,) = findings(tmp_path, values.tolist(), n)
    assert error.check == "rescaled"
    assert "before" in error.fix


def test_labels_twice_as_large(tmp_path):
    (error,) = findings(tmp_path, [2, 4, 6, 8, 10, 12, 14, 16], 8)
    assert error.check == "rescaled"
    assert "2 times" in error.text


def test_labels_that_eight_bits_cannot_hold(tmp_path):
    """No advice to cut the table: names and regions would stay apart."""
    (error,) = findings(tmp_path, list(range(1, 256)), 400)
    assert "255" in error.text
    assert "remove" not in error.fix


# One map


def one_map(fraction=True):
    values = datasets.labels().astype(np.float32) / 40000
    return values if fraction else np.rint(values * 100)


@pytest.mark.parametrize(
    ("name", "values", "rows", "kind"),
    [
        # a fourth axis: shares are weights; whole numbers are labels, unless the name
        ("x_probseg", one_map()[..., None], 0, "probseg"),
        ("x_dseg", one_map()[..., None], 0, "probseg"),
        ("x_dseg", one_map()[..., None] * 100, 1, "probseg"),
        ("x_dseg", datasets.labels()[..., None], 0, "dseg"),
        ("x", datasets.labels()[..., None].astype(np.float32), 0, "dseg"),
        ("x_probseg", one_map(fraction=False)[..., None], 0, "probseg"),
        ("x_probseg", one_map(fraction=False)[..., None], 1, "probseg"),
        ("x_probseg", datasets.labels()[..., None], 5, "dseg"),
        # three axes: the name says what fractions are
        ("x_probseg", one_map(), 0, "probseg"),
        ("x_probseg", one_map() * 100, 0, "probseg"),
        ("x_probseg", datasets.labels(), 0, "dseg"),
        ("x_dseg", one_map(), 0, None),
        ("x_dseg", one_map()[..., None] * 100, 0, None),
        ("x_dseg", one_map()[..., None] - 0.1, 0, None),
    ],
)
def test_kind_of_an_image_of_one_volume(name, values, rows, kind, tmp_path):
    image, table = tmp_path / f"{name}.nii.gz", tmp_path / "t.tsv"
    write_image(image, values, oblique())
    index = datasets.INDEX if rows > 1 else (1,)
    lines = "".join(f"{v}\tarea{v}\n" for v in index)
    table.write_text(f"index\tname\n{lines}")
    files = AtlasFiles(key_of_file(image), "A", image, table if rows else None)
    if kind is None:
        with pytest.raises(AtlasError, match="no whole number"):
            examine_atlas(files)
        return
    atlas, _ = examine_atlas(files)
    assert atlas.kind == kind
    assert len(atlas.regions.index) == (1 if kind == "probseg" else rows or 4)


@pytest.mark.parametrize("axes", [3, 4])
def test_one_map_from_end_to_end(axes, dataset, tmp_path, capsys):
    """Its series against least squares on one map, by hand."""
    weights = np.random.default_rng(4).random(datasets.SHAPE).astype(np.float32)
    image = tmp_path / f"tpl-{SPACE}_atlas-Soft_probseg.nii.gz"
    write_image(image, weights if axes == 3 else weights[..., None], oblique())
    out = tmp_path / "out"
    statistics = ["--map-statistic", "least_squares", "weighted_mean"]
    arguments = ["--atlas-file", image, "--participant-label", "01", *statistics]
    run(capsys, dataset, out, "participant", *arguments)
    (bold,) = dataset.glob("sub-01/func/*_bold.nii.gz")
    values, inside = nb.load(bold).get_fdata(), datasets.mask() > 0
    w, y = weights[inside].astype(float), values[inside]
    for name, expected in (
        ("leastsquares", w @ y / (w @ w)),
        ("weightedmean", w @ y / w.sum()),
    ):
        (path,) = out.glob(f"sub-01/func/*_stat-{name}_timeseries.tsv")
        assert_allclose(read(path)[1][:, 0], expected, rtol=1e-10)


# Masks


@pytest.mark.parametrize(
    ("values", "n_inside"),
    [
        ([0, 1, 1, 1], 3),
        ([0, 255, 255, 0], 2),
        ([0, 0.25, 0.25, 0], 2),  # one value, whatever it is
        ([0, 1, 0.9999, 0], 2),  # whole to 1e-3
        ([0, 1, 1e-5, 0], 1),  # and 1e-5 is 0
        ([np.nan, 1, 1, 0], 2),
        ([0, 2, 41, 1035], 3),  # a segmentation
        ([0, -1, -1, 0], 2),
    ],
)
def test_masks(values, n_inside, tmp_path):
    path = tmp_path / "mask.nii.gz"
    write_image(path, np.reshape(values, (2, 2, 1)).astype(np.float32), oblique())
    assert read_mask(path)[0].sum() == n_inside


@pytest.mark.parametrize(
    ("values", "words", "remedy"),
    [
        ([0, 0.002, 0.4, 0.98], "3 voxels .* [(]0.002 to 0.98[)]", "-thr 0.5 -bin"),
        ([0, 1, 1, 0.5], "1 voxels .* [(]0.5 to 0.5[)]", "-thr 0.5 -bin"),
        ([0, 12.5, 80.5, 100], "2 voxels .* [(]12.5 to 80.5[)]", "-thr 40.25 -bin"),
        ([0, -2.5, 3.1, 0], "2 voxels", "threshold"),
        ([0, np.inf, 1, 1], "infinite", "again"),
    ],
)
def test_maps_are_no_masks(values, words, remedy, tmp_path):
    path = tmp_path / "map.nii.gz"
    write_image(path, np.reshape(values, (2, 2, 1)).astype(np.float32), oblique())
    with pytest.raises(ImageError, match=words) as caught:
        read_mask(path)
    assert remedy in caught.value.remedy
    assert caught.value.where == str(path)


def test_a_mask_for_all_runs(dataset, atlas, tmp_path, capsys):
    soft, many = tmp_path / "soft.nii.gz", tmp_path / "many.nii.gz"
    share = np.random.default_rng(2).random(datasets.SHAPE).astype(np.float32)
    write_image(soft, share, oblique())
    arguments = ["participant", "--atlas-file", atlas, "--mask"]
    out = tmp_path / "soft"
    shown = run(capsys, dataset, out, *arguments, soft, code=65)
    assert "soft.nii.gz" in shown.err
    assert shown.err.count("probability map") == 1
    assert not out.exists()
    absent = tmp_path / "absent.nii.gz"
    shown = run(capsys, dataset, out, *arguments, absent, code=66)
    assert shown.err.count("absent.nii.gz: there is no such file") == 1
    assert not out.exists()
    # the remedy
    write_image(soft, (share > 0.5).astype(np.uint8), oblique())
    assert "--mask" not in run(capsys, dataset, out, *arguments, soft).err
    write_image(many, np.rint(share * 100).astype(np.int16), oblique())
    shown = run(capsys, dataset, tmp_path / "many", *arguments, many)
    assert "values other than 0 (1 to " in shown.err
    (side, _) = (tmp_path / "many").glob("sub-*/func/*_timeseries.json")
    assert any("per cent" in w for w in json.loads(side.read_text())["Warnings"])


# A library that is not there


def test_without_isal_the_remedy_is_to_install_it(dataset, monkeypatch, tmp_path):
    (path,) = dataset.glob("sub-01/func/*_bold.nii.gz")
    plain = tmp_path / "plain.nii"
    write_image(plain, datasets.bold(), oblique())
    monkeypatch.setitem(sys.modules, "isal", None)
    with pytest.raises(MissingInput, match="library isal") as caught:
        list(open_image(path, BOLD).source.blocks())
    assert "pip install isal" in caught.value.remedy
    assert "damaged" not in str(caught.value)
    with pytest.raises(MissingInput, match="library isal"):
        read_mask(next(dataset.glob("sub-01/func/*_mask.nii.gz")))
    # what is not compressed needs no library
    assert sum(len(b.values) for b in open_image(plain, BOLD).source.blocks()) == 12


def test_a_disk_that_fails_is_no_damaged_file(tmp_path, monkeypatch):
    path = tmp_path / "bold.nii"
    write_image(path, datasets.bold(), oblique())
    source = open_image(path, BOLD).source

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("bids_roi.images.stream._read_full", fail)
    with pytest.raises(BidsRoiError, match="Input/output error") as caught:
        list(source.blocks())
    assert "damaged" not in str(caught.value)
