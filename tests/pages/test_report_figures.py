"""Figures: what they show, how large they are, and that they never change by chance."""

import base64
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.pictures import draw_run, make_run, pixels

from bids_roi.confounds.regressors import Selected
from bids_roi.core.grid import Grid
from bids_roi.core.mapping import strongest_map
from bids_roi.core.mean_image import MeanImage
from bids_roi.outputs.names import has_figures
from bids_roi.outputs.result import Motion
from bids_roi.report.brain import choose_slices
from bids_roi.report.canvas import bin_peaks, bin_rows
from bids_roi.report.carpet import standardise
from bids_roi.report.draw import spread
from bids_roi.report.signals import encode_signals, script_json


@pytest.mark.parametrize("n", [1, 7, 20, 21, 40, 41, 999])
def test_bins_are_means_and_peaks_of_neighbours(n):
    rng = np.random.default_rng(n)
    values = rng.normal(size=(n, 3))
    values[rng.random(values.shape) < 0.2] = np.nan
    size = -(-n // 20)
    means, peaks = [], []
    for start in range(0, n, size):
        part = values[start : start + size]
        columns = [[v for v in column if v == v] for column in part.T]
        means.append([sum(c) / len(c) if c else np.nan for c in columns])
        peaks.append([max(c) if c else np.nan for c in columns])
    assert len(means) <= 20
    assert_allclose(bin_rows(values, 20), means, rtol=1e-12)
    assert_array_equal(bin_peaks(values, 20), peaks)


def turned(order, signs):
    """Affine whose voxel axes run along the axes of the head in another order."""
    affine = np.zeros((4, 4))
    for axis, (head, sign) in enumerate(zip(order, signs, strict=True)):
        affine[head, axis] = sign * (2 + axis)
    affine[:, 3] = [7, -11, 5, 1]
    affine[0, 1] += 0.3  # a little oblique
    return affine


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (1, 0, 2)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (-1, -1, -1)])
def test_slices_show_left_on_the_left_and_up_above(order, signs):
    affine = turned(order, signs)
    grid = Grid.of((8, 9, 10), affine)
    index = np.stack(np.unravel_index(np.arange(720), grid.shape, order="F"))
    places = (affine[:3, :3] @ index) + affine[:3, 3:]
    slices = choose_slices(grid, np.ones(720, dtype=bool))
    assert len(slices.tiles) == 21
    for plane, millimetres, _, _, voxels in slices.tiles:
        right, up = [(1, 2), (0, 2), (0, 1)][plane]
        along = places[:, voxels]  # (3, rows, columns)
        assert along[right][0, -1] > along[right][0, 0] + 5
        assert along[up][0, 0] > along[up][-1, 0] + 5
        assert abs(along[plane].mean() - millimetres) < 3
    for plane in range(3):
        cuts = [t[1] for t in slices.tiles if t[0] == plane]
        assert cuts == sorted(cuts)


def test_the_mosaic_holds_every_value_of_its_slices():
    grid = Grid.of((8, 9, 10), np.diag([2.0, 2, 2, 1]))
    values = np.arange(720)
    slices = choose_slices(grid, np.ones(720, dtype=bool))
    mosaic = slices.show(values, -1)
    _, millimetres, top, left, voxels = slices.tiles[3]
    high, wide = voxels.shape
    x = round(millimetres / 2)
    found = np.unique(mosaic[top : top + high, left : left + wide])
    expected = [x + 8 * (y + 9 * z) for z in range(10) for y in range(9)]
    assert_array_equal(found, sorted(expected))


def test_weighted_maps_are_shown_where_they_are_strongest():
    from scipy.sparse import csr_array

    weights = np.array([[0.9, 0.5, 0.1, 0.0, 0.0], [0.0, -0.6, 0.4, 0.1, 0.0]])
    assert_array_equal(strongest_map(csr_array(weights)), [0, 1, 1, -1, -1])


def test_mean_image_is_the_mean_of_the_volumes_taken():
    rng = np.random.default_rng(1)
    run = rng.integers(0, 1000, (130, 7)).astype(np.int16)
    for size in (1, 4, 130):
        mean = MeanImage(130, 7)
        for start in range(0, 130, size):
            mean.update(start, run[start : start + size])
        taken = [run[t].astype(float) for t in range(0, 130, 3)]
        assert mean.n_taken == len(taken) == 44
        assert_allclose(mean.finish((2.0, 5.0)), 2 * np.mean(taken, 0) + 5, rtol=1e-5)


def test_standardise_equals_the_loop():
    rng = np.random.default_rng(2)
    values = rng.normal(5, 3, (30, 4))
    values[:, 2] = np.nan
    values[4, 1] = np.nan
    kept = rng.random(30) > 0.3
    found = standardise(values, kept)
    for r in (0, 1, 3):
        inside = [v for v, k in zip(values[:, r], kept, strict=True) if k and v == v]
        mean = sum(inside) / len(inside)
        deviation = (sum((v - mean) ** 2 for v in inside) / len(inside)) ** 0.5
        assert_allclose(found[:, r], (values[:, r] - mean) / deviation)
    assert np.isnan(found[:, 2]).all()


def test_rows_go_back_to_their_volumes():
    kept = np.array([True, False, True])
    found = spread(np.array([[1.0], [2.0]]), kept)
    assert_array_equal(found, [[1.0], [np.nan], [2.0]])


def decode(content):
    """What the page's script makes of the data, in other words."""
    key, data = re.fullmatch(r"bidsRoiSignals\((\".*?\"), (.*)\);\n", content).groups()
    data = json.loads(data)
    series = []
    for each in data["series"]:
        codes = np.frombuffer(base64.b64decode(each["codes"]), np.uint8)
        codes = codes.reshape(len(data["names"]), each["points"]).astype(float)
        codes[codes == 255] = np.nan
        low, high = np.array(each["low"]), np.array(each["high"])
        series.append(low[:, None] + (high - low)[:, None] * codes / 254)
    return json.loads(key), data, series


@pytest.mark.parametrize("n_volumes", [1, 300, 3000])
def test_signals_read_back_to_half_a_step(n_volumes):
    rng = np.random.default_rng(3)
    before = rng.normal(1000, 30, (n_volumes, 5))
    before[:, 3] = np.nan
    after = before - 1000
    after[: n_volumes // 3] = np.nan
    picture = encode_signals(before, after, list("abcde"), key="k</script>")
    key, data, series = decode(picture.content.decode())
    assert key == "k</script>"
    assert b"</" not in picture.content
    for found, values in zip(series, (before, after), strict=True):
        expected = bin_rows(values, 300)
        span = np.nanmax(expected[:, :1]) - np.nanmin(expected[:, :1])
        assert found.shape[1] <= 300
        assert_allclose(found[0], expected[:, 0], atol=(span or 1) / 254 * 0.51 + 0.01)
        assert np.isnan(found[3]).all()
    assert data["step"] == max(1, n_volumes // 300)


def test_json_in_scripts_cannot_end_them():
    text = script_json({"a": "</script><!--", "b": "\u2028"})
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"a": "</script><!--", "b": "\u2028"}


def files(folder):
    return {p.name: p.read_bytes() for p in (folder / "sub-1/figures").iterdir()}


def test_lost_regions_are_striped_and_others_are_not(tmp_path):
    draw_run(make_run(lost=(2,)), tmp_path / "a")
    draw_run(make_run(), tmp_path / "b")
    for kind in ("contours", "coverage"):
        name = f"sub-1_atlas-A_desc-{kind}_dseg.png"
        with_lost, without = (
            (pixels(files(tmp_path / d)[name]) == [240, 228, 66]).all(-1).sum()
            for d in "ab"
        )
        assert with_lost > 1000
        assert without == 0


def test_contours_lie_where_regions_meet(tmp_path):
    draw_run(replace(make_run(n_regions=1), brain=None), tmp_path)
    name = "sub-1_atlas-A_desc-contours_dseg.png"
    blue = (pixels(files(tmp_path)[name]) == [86, 180, 233]).all(-1)
    # One region that fills the grid has an edge around each slice, none within.
    assert 0 < blue.sum() < 40_000
    draw_run(replace(make_run(n_regions=6), brain=None), tmp_path)
    more = (pixels(files(tmp_path)[name]) == [86, 180, 233]).all(-1)
    assert more.sum() > blue.sum()


def test_sizes_do_not_depend_on_volumes_or_regions(tmp_path):
    draw_run(make_run(40, 6), tmp_path / "small")
    draw_run(make_run(3000, 1000, lost=(5,)), tmp_path / "large")
    small, large = files(tmp_path / "small"), files(tmp_path / "large")
    assert small.keys() == large.keys()
    for name, content in large.items():
        assert len(content) < 1_100_000, name
        if name.endswith(".svg"):
            box = re.search(rb'viewBox="[^"]+"', content)[0]
            assert box == re.search(rb'viewBox="[^"]+"', small[name])[0]


def test_figures_are_the_same_whoever_draws_them(tmp_path):
    draw_run(make_run(lost=(1,)), tmp_path / "here")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from support.pictures import draw_run, make_run\n"
        "draw_run(make_run(lost=(1,)), Path(sys.argv[2]))"
    )
    arguments = [sys.executable, "-c", code, Path(__file__).parents[1], tmp_path / "b"]
    subprocess.run(
        arguments,
        check=True,
        # A home that cannot be written, and no other place either: read-only container.
        env={**os.environ, "PYTHONHASHSEED": "7", "HOME": "/proc", "TMPDIR": "/proc"},
    )
    assert files(tmp_path / "here") == files(tmp_path / "b")
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["sub-1"]


@pytest.mark.parametrize(
    ("case", "arguments"),
    {
        "one region": {"n_regions": 1},
        "one volume": {"n_volumes": 1},
        "all regions lost": {"n_regions": 3, "lost": (0, 1, 2)},
        "not cleaned": {"clean": False},
    }.items(),
)
def test_hard_runs_are_drawn(tmp_path, case, arguments):
    draw_run(make_run(**arguments), tmp_path)
    found = files(tmp_path)
    for name, content in found.items():
        if name.endswith(".svg"):
            ET.fromstring(content)
            assert b"http://" not in re.sub(
                rb'xmlns[:=][^ ]+|"http://www.w3[^"]+"', b"", content
            )
    tables = ["sub-1/func/sub-1_atlas-A_dseg.tsv"]
    assert has_figures(tmp_path, tables)
    next((tmp_path / "sub-1/figures").glob("*contours*")).unlink()
    assert not has_figures(tmp_path, tables)


def test_runs_without_confounds_or_brain_are_drawn(tmp_path):
    run = make_run(clean=False)
    nothing = Selected((), np.empty((40, 0)))
    regions = replace(run.result.atlas.regions, extra=())
    atlas = replace(run.result.atlas, regions=regions)
    flat = replace(
        run,
        motion=Motion(),
        preparation=replace(run.preparation, selected=nothing),
        result=replace(run.result, atlas=atlas),
        brain=None,
        repetition_time=None,
        mean=np.full_like(run.mean, np.nan),
    )
    draw_run(flat, tmp_path)
    names = files(tmp_path)
    assert not [name for name in names if "Motion" in name]
    report = json.loads(names["sub-1_desc-XReport_outliers.json"])
    assert report["Figures"] == []
