"""Figures: what they show, how large they are, and that they never change by chance."""

import base64
import io
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
from PIL import Image
from support.pictures import draw_run, make_run, parts, rasters

from bids_roi.confounds.table import Selected
from bids_roi.core.grid import Grid
from bids_roi.core.mapping import strongest_map
from bids_roi.core.scan import MeanImage
from bids_roi.outputs.result import Motion, has_figures
from bids_roi.report.brain import (
    Ground,
    _lighten,
    choose_slices,
    draw_contours,
    draw_coverage,
)
from bids_roi.report.courses import Course, encode_signals, script_json
from bids_roi.report.draw import spread
from bids_roi.report.matrix import standardise
from bids_roi.report.raster import bin_peaks, bin_rows, order_regions, rgb


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
    planes = choose_slices(grid, np.ones(720, dtype=bool))
    for plane, (right, up) in enumerate([(1, 2), (0, 2), (0, 1)]):
        cuts = planes[plane].cuts
        assert len(cuts) == len(planes[plane].starts) == 7
        assert list(cuts) == sorted(cuts)
        for voxels, millimetres in zip(slices(planes[plane]), cuts, strict=True):
            along = places[:, voxels]  # (3, rows, columns)
            assert along[right][0, -1] > along[right][0, 0] + 5
            assert along[up][0, 0] > along[up][-1, 0] + 5
            assert abs(along[plane].mean() - millimetres) < 3


def slices(plane):
    """Voxels of each slice of a plane."""
    found = [plane.voxels[:, s : s + plane.width] for s in plane.starts]
    assert sum(each.size for each in found) == (plane.voxels >= 0).sum()
    return found


def test_a_plane_holds_every_value_of_its_slices():
    grid = Grid.of((8, 9, 10), np.diag([2.0, 2, 2, 1]))
    values = np.arange(720)
    plane = choose_slices(grid, np.ones(720, dtype=bool))[0]
    raster = plane.show(values, -1)
    x, start = round(plane.cuts[3] / 2), plane.starts[3]
    found = np.unique(raster[:, start : start + plane.width])
    expected = [x + 8 * (y + 9 * z) for z in range(10) for y in range(9)]
    assert_array_equal(found, sorted(expected))
    assert (raster[:, start - 1] == -1).all()


@pytest.mark.parametrize("shape", [(20, 24, 18), (97, 115, 97), (300, 320, 24)])
def test_planes_fill_the_sheet_in_the_proportions_of_the_head(shape):
    affine = np.diag([180 / shape[0], 216 / shape[1], 160 / shape[2], 1])
    grid = Grid.of(shape, affine)
    planes = choose_slices(grid, np.ones(np.prod(shape), dtype=bool))
    lengths = [(216, 160), (180, 160), (180, 216)]
    scales = []
    for plane, (across, up) in zip(planes, lengths, strict=True):
        wide = plane.size[0] * plane.width / plane.voxels.shape[1]
        scales += [wide / across, plane.size[1] / up]
        assert plane.size[0] <= 1046
        # Lines have two pixels for one of the page, if voxels allow it.
        fine = plane.voxels.shape[0] * plane.finer[0]
        assert 1.3 < fine / plane.size[1] < 3
    assert_allclose(scales, scales[0], rtol=1e-9)
    assert max(plane.size[0] for plane in planes) > 950


def test_weighted_maps_are_shown_where_they_are_strongest():
    from scipy.sparse import csr_array

    weights = np.array([[0.9, 0.5, 0.1, 0.0, 0.0], [0.0, -0.6, 0.4, 0.1, 0.0]])
    assert_array_equal(strongest_map(csr_array(weights)), [0, 1, 1, -1, -1])


def test_the_strongest_map_equals_the_loop():
    from scipy.sparse import csr_array

    rng = np.random.default_rng(0)
    for round_ in range(40):
        weights = rng.normal(size=(6, 40)) * (rng.random((6, 40)) < 0.6)
        if round_ % 2:
            weights = np.rint(weights)  # ties
        weights[round_ % 6] = 0
        expected = np.full(40, -1)
        for voxel in range(40):
            best = 0.0
            for row in range(6):
                size = abs(weights[row, voxel])
                if size > best and size > abs(weights[row]).max() / 4:
                    best, expected[voxel] = size, row
        assert_array_equal(strongest_map(csr_array(weights)), expected)


def test_mean_image_is_the_mean_of_the_volumes_taken():
    rng = np.random.default_rng(1)
    run = rng.integers(0, 1000, (130, 7)).astype(np.int16)
    for size, width in ((1, 7), (4, 7), (130, 7), (1, 3)):
        mean = MeanImage(130, 7)
        for start in range(0, 130, size):
            for first in range(0, 7, width):
                part = run[start : start + size, first : first + width]
                mean.update(start, part, first)
        taken = [run[t].astype(float) for t in range(0, 130, 3)]
        assert mean.n_taken == len(taken) == 44
        assert_allclose(mean.finish((2.0, 5.0)), 2 * np.mean(taken, 0) + 5, rtol=1e-5)


def test_a_mean_image_beyond_all_bounds_says_nothing_of_its_own():
    """Signals of such a run are judged elsewhere; stderr is no place for NumPy's."""
    mean = MeanImage(60, 2)
    mean.update(0, np.full((60, 2), [3e38, 1.0], dtype=np.float32))
    assert_allclose(mean.finish((1.0, 0.0)), [np.inf, 1])


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
    kept = np.arange(n_volumes) >= n_volumes // 3
    dummy = np.arange(n_volumes) < n_volumes // 30
    course = Course(n_volumes, 2.0, kept, dummy)
    names = list("abcde")
    picture = encode_signals(
        before, after, names, key="k</script>", course=course, unit="percent"
    )
    key, data, series = decode(picture.content.decode())
    assert key == "k</script>"
    assert b"</" not in picture.content
    for found, values in zip(series, (before, after), strict=True):
        expected = bin_rows(values, 300)
        span = np.nanmax(expected[:, :1]) - np.nanmin(expected[:, :1])
        assert found.shape[1] <= 300
        assert_allclose(found[0], expected[:, 0], atol=(span or 1) / 254 * 0.51 + 0.01)
        assert np.isnan(found[3]).all()
    size = max(1, n_volumes // 300)
    assert (data["volumes"], data["count"], data["step"]) == (size, n_volumes, 2.0)
    assert [each["unit"] for each in data["series"]] == ["arbitrary", "percent"]
    out = [
        "2" if dummy[n : n + size].any() else "0" if kept[n : n + size].all() else "1"
        for n in range(0, n_volumes, size)
    ]
    assert data["out"] == "".join(out)


def test_json_in_scripts_cannot_end_them():
    text = script_json({"a": "</script><!--", "b": "\u2028"})
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"a": "</script><!--", "b": "\u2028"}


def files(folder):
    return {p.name: p.read_bytes() for p in (folder / "sub-1/figures").iterdir()}


YELLOW, WHITE = (240, 228, 66, 255), (255, 255, 255, 255)


def share(layer, colour):
    """How much of a layer has a colour."""
    return (layer == colour).all(-1).mean()


def test_lost_regions_are_striped_and_others_are_not(tmp_path):
    draw_run(make_run(lost=(2,)), tmp_path / "a")
    draw_run(make_run(), tmp_path / "b")
    for kind in ("contours", "coverage", "tsnr"):
        name = f"sub-1_atlas-A_desc-{kind}_dseg.svg"
        with_lost, without = (
            sum(
                share(layer, YELLOW)
                for _, layer in rasters(files(tmp_path / d)[name])
                if layer.shape[:2] != (18, 28)  # the key
            )
            for d in "ab"
        )
        # In each plane a sixth of the slices, about; half of that is yellow.
        assert 0.1 < with_lost < 0.5
        assert without == 0
        texts = [each["words"] for each in parts(files(tmp_path / "a")[name], "text")]
        assert "n/a" in texts


def outlined(plane, labels, colours):
    """The edges of regions pixel by pixel, as the docstring tells them."""
    (tall, wide), (high, broad) = plane.finer, plane.thick
    rows, columns = labels.shape
    drawn = np.zeros((rows * tall, columns * wide), dtype=int)

    def meets(r, c, down, across):
        if not (0 <= r + down < rows and 0 <= c + across < columns):
            return False
        other, own = labels[r + down, c + across], labels[r, c]
        # Of two of one colour, the one above or on the left draws.
        first = down > 0 or across > 0
        return other != own and (first or colours[other] != colours[own])

    for y, x in np.ndindex(drawn.shape):
        (r, dy), (c, dx) = divmod(y, tall), divmod(x, wide)
        if not colours[labels[r, c]]:
            continue
        if (
            (dy >= tall - high and meets(r, c, 1, 0))
            or (dy < high and meets(r, c, -1, 0))
            or (dx >= wide - broad and meets(r, c, 0, 1))
            or (dx < broad and meets(r, c, 0, -1))
        ):
            drawn[y, x] = colours[labels[r, c]]
    return drawn


def test_regions_are_outlined_in_the_colours_of_their_networks():
    rng = np.random.default_rng(4)
    shape = (14, 15, 13)
    grid = Grid.of(shape, np.diag([3.0, 3, 3, 1]))
    seeds = rng.uniform(1, 12, (9, 3))
    index = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape, order="F"), 1)
    rows = np.argmin(((index[:, None] - seeds) ** 2).sum(-1), axis=1).astype(np.int32)
    rows[((index - 6.5) ** 2).sum(1) > 36] = -1
    brain = ((index - 6.5) ** 2).sum(1) < 40
    planes = choose_slices(grid, brain)
    ground = Ground(planes, np.where(brain, 500.0, 0), brain, "image")
    told = ["#aa0000", "#00aa00", "#8888ff"] * 3
    order = order_regions(9, ["a", "b", "c"] * 3, told)
    labels = [plane.show(rows, -1) for plane in planes]
    none = np.zeros(9, dtype=bool)
    picture = draw_contours(ground, labels, order, lost=none)
    drawn = rasters(picture.content)
    assert len(drawn) == 9  # in each plane the image, the regions, the brain mask
    lightened = [_lighten(colour) for colour in told[:3]]
    shades = [(0, 0, 0)] + [rgb(colour) for colour in lightened]
    colours = np.append(np.arange(9) % 3 + 1, 0)
    for number, (plane, here) in enumerate(zip(planes, labels, strict=True)):
        (box, grey), (same, layer), (_, edge) = drawn[3 * number : 3 * number + 3]
        assert box == same
        assert grey.shape[:2] == plane.voxels.shape
        assert set(grey[..., 0][plane.voxels < 0]) == {0}
        expected = outlined(plane, here, colours)
        assert_array_equal(layer[..., 3] > 0, expected > 0)
        seen = expected > 0
        assert_array_equal(layer[seen][:, :3], np.array(shades)[expected[seen]])
        inside = plane.show(brain.astype(int), 0)
        expected = outlined(plane, inside, np.array([0, 1]))
        assert_array_equal(edge[..., 3] > 0, expected > 0)
        assert_array_equal(edge[expected > 0], [WHITE] * (expected > 0).sum())
    keys = [each["fill"] for each in parts(picture.content, "rect")]
    assert set(lightened) <= set(keys)
    assert {"a", "b", "c"} <= {t["words"] for t in parts(picture.content, "text")}


@pytest.mark.parametrize("n_regions", [5, 255, 256, 700])
def test_the_figure_knows_the_region_of_every_voxel(n_regions):
    shape = (10, 9, 12)
    grid = Grid.of(shape, np.diag([3.0, 3, 3, 1]))
    rows = (np.arange(1080) * n_regions // 1080).astype(np.int32)
    rows[::7] = -1
    planes = choose_slices(grid, np.ones(1080, dtype=bool))
    ground = Ground(planes, np.ones(1080), None, "image")
    labels = [plane.show(rows, -1) for plane in planes]
    hints = [f'<r> & "{n}"' for n in range(n_regions)]
    picture = draw_contours(
        ground,
        labels,
        order_regions(n_regions, None),
        lost=np.zeros(n_regions, dtype=bool),
        hints=hints,
    )
    about = json.loads(parts(picture.content, "metadata")[0]["words"])
    assert about["names"] == hints
    boxes = [box for box, _ in rasters(picture.content)[::2]]
    for panel, here, box in zip(about["panels"], labels, boxes, strict=True):
        assert tuple(panel["box"]) == pytest.approx(box, abs=0.006)
        assert (panel["rows"], panel["columns"]) == here.shape
        found = np.zeros(here.shape, dtype=int)
        for place, url in enumerate(panel["regions"]):
            png = base64.b64decode(url.partition(",")[2])
            layer = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
            found += layer[..., 0].astype(int) << 8 * place
        assert_array_equal(found - 1, here)


def test_the_more_is_missing_the_stronger_the_ink():
    shape = (12, 12, 12)
    grid = Grid.of(shape, np.diag([3.0, 3, 3, 1]))
    x = np.unravel_index(np.arange(12**3), shape, order="F")[0]
    rows = (x // 2).astype(np.int32)
    coverage = np.array([1, 0.95, 0.8, 0.5, 0.1, np.nan])
    planes = choose_slices(grid, np.ones(12**3, dtype=bool))
    ground = Ground(planes, np.full(12**3, 7.0), None, "image")
    labels = [plane.show(rows, -1) for plane in planes]
    picture = draw_coverage(
        ground, labels, coverage, lost=np.isnan(coverage), minimum=0.3
    )
    layer = rasters(picture.content)[5][1]  # of the last plane, above its image
    (tall, wide), plane = planes[2].finer, labels[2]
    middle = plane.shape[0] // 2
    inks = []
    for region in range(5):
        column = np.flatnonzero(plane[middle] == region)[1]  # not at the edge
        inks.append(layer[middle * tall + 1, column * wide, 3])
    assert inks[0] == 0
    assert 20 < inks[1] < inks[2] < inks[3] < inks[4]
    assert inks[4] > 200
    assert "mean 0.67, lowest 0.10; 1 n/a." in picture.alt


def test_sizes_do_not_depend_on_volumes_or_regions(tmp_path):
    draw_run(make_run(40, 6), tmp_path / "small")
    draw_run(make_run(3000, 1000, lost=(5,)), tmp_path / "large")
    small, large = files(tmp_path / "small"), files(tmp_path / "large")
    assert small.keys() == large.keys()
    for name, content in large.items():
        assert len(content) < 1_000_000, name
        if name.endswith(".svg"):
            (one,), (other,) = parts(content, "svg"), parts(small[name], "svg")
            if "Relmat" not in name:
                assert one["width"] == other["width"]
            assert float(one["width"]) <= 1150
            assert float(one["height"]) < 1200


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


def test_no_plotting_library_is_loaded_where_a_run_is_drawn(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import bids_roi.report.draw\n"
        "ours = set(sys.modules)\n"
        "assert not {'matplotlib', 'PIL'} & ours, ours\n"
        "from support.pictures import draw_run, make_run\n"  # which reads PNG by PIL
        "draw_run(make_run(lost=(1,)), Path(sys.argv[2]))\n"
        "assert 'matplotlib' not in sys.modules"
    )
    argv = [sys.executable, "-c", code, Path(__file__).parents[1], tmp_path]
    subprocess.run(argv, check=True)


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
    next((tmp_path / "sub-1/figures").glob("*contours*.svg")).unlink()
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
