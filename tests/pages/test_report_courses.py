"""Carpets, matrices and regressors: what is drawn is what was computed."""

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from support.pictures import draw_run, make_run, parts, rasters

from bids_roi.outputs.result import Motion
from bids_roi.report.courses import CENSORED, DUMMY, Course, draw_motion
from bids_roi.report.draw import find_dvars, spread
from bids_roi.report.matrix import (
    draw_carpet,
    draw_design,
    draw_relmat,
    find_limit,
    group_columns,
)
from bids_roi.report.raster import BLUE_RED, GREYS, NIGHT_SUN, order_regions, ramp, rgb


def values_of(layer, anchors, low, high, n):
    """Values that a raster shows, by its colours alone; NaN for what is no value."""
    colours = ramp(anchors, n).astype(int)
    packed = layer[..., :3].astype(int) @ [1 << 16, 1 << 8, 1]
    each, which = np.unique(packed, return_inverse=True)  # far fewer than pixels
    each = np.stack([each >> 16, each >> 8 & 255, each & 255], axis=-1)
    away = np.abs(each[:, None] - colours[None]).sum(axis=2)
    found = low + (away.argmin(axis=1) + 0.5) * (high - low) / n
    found[away.min(axis=1) > 0] = np.nan
    found = found[which].reshape(layer.shape[:2])
    return np.where(layer[..., 3] < 255, np.nan, found)


def is_colour(layer, colour):
    return (layer[..., :3] == rgb(colour)).all(-1) & (layer[..., 3] == 255)


def correlations(n, seed=0, lost=()):
    rng = np.random.default_rng(seed)
    signals = rng.normal(size=(30, n)) + rng.normal(size=(30, 1))
    found = np.corrcoef(signals.T)
    for row in lost:
        found[row], found[:, row] = np.nan, np.nan
    return found


@pytest.mark.parametrize("n", [2, 9, 40, 41, 120])
def test_every_pair_can_be_read_from_the_matrix(n):
    values = correlations(n, lost=(1,) if n > 2 else ())
    networks = [f"network {row % 3}" for row in range(n)] if n > 2 else None
    order = order_regions(n, networks)
    picture = draw_relmat(values, order, measure="r", strategy="36P", limit=1.0)
    (box, layer), *_ = rasters(picture.content)
    assert layer.shape == (n, n, 4)
    found = values_of(layer, BLUE_RED, -1, 1, 201)
    expected = values[np.ix_(order.order, order.order)].copy()
    np.fill_diagonal(expected, np.nan)
    assert_allclose(found, expected, atol=1 / 201 + 1e-9)
    there = np.isfinite(np.diagonal(values)[order.order])
    assert_array_equal(np.diagonal(layer[..., 3]) == 255, there)  # grey where known
    assert_array_equal((layer[..., 3] == 0).any(axis=1), ~there | (not there.all()))
    stripes = [r for r in parts(picture.content, "rect") if r["fill"] == "url(#na)"]
    assert bool(stripes) == (n > 2)
    # A cell is a whole number of pixels on a screen of two for one.
    assert (2 * box[2] / n) % 1 == 0
    assert box[2] == box[3]
    assert 380 < box[2] < 600
    names = [f"<{row}>" for row in range(n)]
    told = draw_relmat(values, order, measure="r", limit=1.0, names=names)
    about = json.loads(parts(told.content, "metadata")[0]["words"])
    assert about["names"] == [names[row] for row in order.order]
    assert about["panels"] == [{"box": list(box), "rows": n, "columns": n}]
    assert (about["low"], about["high"], about["size"]) == (-1, 1, 1)
    assert "R, 36P" in [t["words"] for t in parts(picture.content, "text")]


def test_cells_of_many_regions_are_means_without_the_diagonal():
    values = correlations(1001)
    values[np.diag_indices(1001)] = 1e6
    picture = draw_relmat(values, order_regions(1001, None), measure="r", limit=1.0)
    (_, layer), *_ = rasters(picture.content)
    assert layer.shape[:2] == (334, 334)
    found = values_of(layer, BLUE_RED, -1, 1, 201)
    assert_allclose(found[2, 5], values[6:9, 15:18].mean(), atol=1 / 201)
    others = values[6:9, 6:9][~np.eye(3, dtype=bool)]
    assert_allclose(found[2, 2], others.mean(), atol=1 / 201)
    assert "mean of 3 x 3 pairs" in picture.caption


def test_all_names_are_written_where_there_is_room():
    names = [f"region <{n}> & more" for n in range(40)]
    order = order_regions(40, ["b", "a"] * 20)
    picture = draw_relmat(correlations(40), order, measure="r", names=names)
    hints = re.findall(r"<title>(.*?)</title>", picture.content.decode())
    assert sum("region &lt;7&gt; &amp; more" in hint for hint in hints) == 2
    left = [t for t in parts(picture.content, "text") if t.get("x") == "134"]
    places = [float(each["y"]) for each in left]
    assert len(places) == 40
    assert places == sorted(places)
    assert [each["words"] for each in left[:2]] == [names[0], names[2]]


def test_matrices_that_are_compared_share_their_limit():
    small, large = 0.1 * correlations(30), 0.7 * correlations(30, 1)
    both = find_limit([small, large])
    assert find_limit([small]) < both <= find_limit([large])
    pairs = np.abs(np.concatenate([v[np.triu_indices(30, 1)] for v in (small, large)]))
    assert 0.005 < (pairs > both).mean() < 0.015 or both >= np.quantile(pairs, 0.99)
    assert find_limit([]) == find_limit([np.full((3, 3), np.nan)]) == 1.0
    assert find_limit([np.zeros((3, 3))]) == 1.0


def test_correlations_of_all_runs_have_one_scale(tmp_path):
    for number, name in enumerate("ab"):
        run = make_run(n_regions=4 + number)
        draw_run(run, tmp_path / name)
        content = (
            tmp_path / name / "sub-1/figures/sub-1_desc-XRelmat_relmat.svg"
        ).read_text()
        words = re.findall(r">([^<>]+)</text>", content)
        assert {"1", "0", "\N{MINUS SIGN}1"} <= set(words)


def make_course(n_volumes, censored=(), early=0):
    kept = np.ones(n_volumes, dtype=bool)
    kept[list(censored)] = False
    kept[:early] = False
    return Course(n_volumes, 2.0, kept, np.arange(n_volumes) < early)


@pytest.mark.parametrize(("n_volumes", "n_regions"), [(50, 7), (800, 3), (60, 400)])
def test_the_carpet_shows_every_value(n_volumes, n_regions):
    rng = np.random.default_rng(n_volumes)
    before = rng.normal(100, 5, (n_volumes, n_regions))
    before[:, 1] = np.nan
    course = make_course(n_volumes, censored=(10, 11, 30), early=2)
    after = before - 100
    after[~course.kept] = np.nan
    networks = [f"{row % 2}" for row in range(n_regions)]
    order = order_regions(n_regions, networks)
    picture = draw_carpet(before, after, order, course)
    (box, first), (bar, _), (_, second) = rasters(picture.content)
    assert bar[2] == 12
    limit = float(re.search(r"to ([\d.]+) \(white\)", picture.caption)[1])
    kept = before[course.kept]
    expected = (before - kept.mean(axis=0)) / kept.std(axis=0)
    expected = np.clip(expected[:, order.order].T, -limit, limit)
    step = 2 * limit / 80
    found = values_of(first, GREYS, -limit, limit, 80)
    assert found.shape == (n_regions, n_volumes)
    assert_allclose(found, expected, atol=step / 2 + 1e-9)
    expected[:, ~course.kept] = np.nan
    found = values_of(second, GREYS, -limit, limit, 80)
    assert_allclose(found, expected, atol=step / 2 + 1e-9)
    lost = order.order.tolist().index(1)
    assert (first[lost, :, 3] == 0).all()
    assert (second[lost, :, 3] == 0).all()
    others = np.arange(n_regions) != lost
    assert is_colour(second, CENSORED)[others].sum(axis=0).tolist() == [
        (n_regions - 1) * (t in (10, 11, 30)) for t in range(n_volumes)
    ]
    assert is_colour(second, DUMMY)[others][:, :2].all()
    assert box[3] == np.clip(n_regions, 160, 400)
    bars = {r["fill"] for r in parts(picture.content, "rect")}
    assert {colour for _, colour in order.networks} <= bars
    assert "url(#na)" in bars


def test_motion_stands_above_the_carpet_on_its_axis_of_time():
    rng = np.random.default_rng(0)
    n_volumes, peak = 100, 40
    fd = rng.uniform(0, 0.1, n_volumes)
    fd[peak] = 2.0
    parameters = rng.normal(size=(n_volumes, 6))
    parameters[peak, 4] = np.radians(30)
    motion = Motion(fd, None, parameters=parameters * [1, 1, 1, 0.01, 1, 0.01])
    before = rng.normal(size=(n_volumes, 20))
    before[peak] = 50
    course = make_course(n_volumes, censored=(peak,))
    picture = draw_carpet(
        before, before, order_regions(20, None), course, motion=motion, fd_threshold=0.5
    )
    images = rasters(picture.content)
    shades, carpet = images[:3], images[3][0]
    lines = [
        p for p in parts(picture.content, "path")
        if p["stroke-width"] == "1.1"
    ]  # fmt: skip
    assert len(lines) == 7
    for (box, layer), _ in zip(shades, range(3), strict=True):
        assert (box[0], box[2]) == (carpet[0], carpet[2])
        assert box[1] + box[3] < carpet[1]
        assert_array_equal(np.flatnonzero(is_colour(layer, CENSORED)[0]), [peak])
    wide = carpet[2] / n_volumes
    middle = carpet[0] + (peak + 0.5) * wide
    points = np.array(re.findall(r"[M ]([\d.]+) ([\d.]+)", lines[0]["d"]), dtype=float)
    assert len(points) == n_volumes
    top = points[points[:, 1].argmin()]
    assert abs(top[0] - middle) < 0.06
    white = (images[3][1][..., :3] == 255).all(-1).all(axis=0)
    assert_array_equal(np.flatnonzero(white), [peak])
    words = [t["words"] for t in parts(picture.content, "text")]
    titles = ["Framewise displacement (mm)", "Translation (mm)", "Rotation (\xb0)"]
    places = [words.index(title) for title in titles]
    assert places == sorted(places)
    assert {"threshold", "censored", "Time (s)"} <= set(words)


@pytest.mark.parametrize("same_unit", [True, False])
def test_regional_dvars_before_and_after_stand_above_the_carpet(same_unit):
    rng = np.random.default_rng(1)
    n_volumes, peak = 90, 40
    before = rng.normal(100, [3.0, 5, 8, 1], (n_volumes, 4))
    before[:2] += 500  # not steady yet
    before[peak] += 60
    before[:, 3] = np.nan
    course = make_course(n_volumes, censored=(peak,), early=2)
    after = (before - 100)[course.kept] / 2
    cleaned = SimpleNamespace(sample_mask=course.kept, signals=after)
    clean = SimpleNamespace(cleaned=cleaned)
    traces = find_dvars(before, clean, course, same_unit=same_unit)
    deviation = [np.std(before[course.kept, k]) for k in range(3)]
    for trace, factor, missing in zip(
        traces, (1, 0.5), ({0, 1, 2}, {0, 1, 2, peak, peak + 1}), strict=False
    ):
        for t in range(n_volumes):
            if t in missing:
                assert np.isnan(trace[t])
                continue
            moved = [(before[t, k] - before[t - 1, k]) / deviation[k] for k in range(3)]
            expected = factor * math.sqrt(sum(m * m for m in moved) / 3)
            assert_allclose(trace[t], expected, rtol=1e-12)
    assert len(traces) == 1 + same_unit
    whole = np.full(before.shape, np.nan)
    whole[course.kept] = after
    order = order_regions(4, None)
    picture = draw_carpet(
        before, whole, order, course, same_unit=same_unit, dvars=traces
    )
    lines = [
        p for p in parts(picture.content, "path")
        if p["stroke-width"] == "1.1"
    ]  # fmt: skip
    assert len(lines) == len(traces)
    points = re.findall(r"[ML ]?([\d.]+) ([\d.]+)", lines[0]["d"])
    x, y = np.array(points, dtype=float).T
    assert len(x) == n_volumes - 3
    ((row, _), (carpet, _)) = rasters(picture.content)[:2]
    assert (row[0], row[2]) == (carpet[0], carpet[2])
    middle = carpet[0] + (np.array([peak, peak + 1]) + 0.5) * carpet[2] / n_volumes
    assert_allclose(np.sort(x[np.argsort(y)[:2]]), middle, atol=0.06)
    words = [t["words"] for t in parts(picture.content, "text")]
    assert "DVARS of the regions (standard deviations)" in words
    assert ({"before cleaning", "after"} <= set(words)) is same_unit
    assert "DVARS: root mean square over the regions" in picture.caption


def test_motion_has_its_parameters_and_says_how_large_they_are():
    parameters = np.zeros((30, 6))
    parameters[10, 1], parameters[20, 3] = 1.5, np.radians(2)
    fd = np.full(30, 0.1)
    motion = Motion(fd, fd + 1, parameters=parameters)
    picture = draw_motion(motion, Course(30, 2.0))
    assert "Translations over 1.50 mm, rotations over 2.00 degrees" in picture.alt
    words = [t["words"] for t in parts(picture.content, "text")]
    assert [w for w in words if "(" in w or "DVARS" in w] == [
        "Framewise displacement (mm)",
        "Translation (mm)",
        "Rotation (\xb0)",
        "Standardised DVARS",
        "Time (s)",
    ]
    same = draw_motion(replace(motion, parameters=None), Course(30, 2.0))
    assert b"Translation" not in same.content
    assert draw_motion(Motion(), Course(30)) is None


MANY = [
    "csf", "csf_derivative1", "global_signal", "global_signal_derivative1",
    "global_signal_derivative1_power2", "global_signal_power2", "rot_x", "rot_x_power2",
    "trans_z", "trans_x", "trans_x_derivative1_power2", "white_matter", "cosine00",
    "a_comp_cor_00", "aroma_motion_01", "motion_outlier00", "csf_wm", "my_own",
]  # fmt: skip


def test_regressors_are_named_in_full_and_stand_by_kind():
    rng = np.random.default_rng(0)
    design = rng.normal(size=(60, len(MANY)))
    course = make_course(60, censored=(5, 6))
    picture = draw_design(spread(design[course.kept], course.kept), MANY, course)
    texts = parts(picture.content, "text")
    shown = [t["words"] for t in texts if t["words"] in MANY]
    order, kinds = group_columns(MANY)
    assert shown == [MANY[column] for column in order]
    assert sorted(shown) == sorted(MANY)
    assert shown[:5] == [
        "trans_x", "trans_x_derivative1_power2", "trans_z", "rot_x", "rot_x_power2",
    ]  # fmt: skip
    firsts = list(dict.fromkeys(kinds))
    assert firsts == [
        "motion", "white matter", "CSF", "global", "CompCor", "AROMA", "drift",
        "volumes", "other",
    ]  # fmt: skip
    assert dict(zip(shown, kinds, strict=True))["csf_wm"] == "global"
    assert set(firsts) <= {t["words"] for t in texts}
    places = [float(t["y"]) for t in texts if t["words"] in MANY]
    assert min(np.diff(places)) >= 12
    (_, left), (box, right), _ = rasters(picture.content)
    found = values_of(left, NIGHT_SUN, 0, 1, 128)
    kept = design[course.kept][:, order]
    expected = np.full((60, len(MANY)), np.nan)
    expected[course.kept] = (kept - kept.min(0)) / np.ptp(kept, axis=0)
    assert_allclose(found, expected.T, atol=1 / 255)
    assert is_colour(left, CENSORED)[:, 5:7].all()
    found = values_of(right, BLUE_RED, -1, 1, 201)
    expected = np.corrcoef(kept.T)
    np.fill_diagonal(expected, np.nan)
    assert_allclose(found, expected, atol=1 / 201 + 1e-9)
    assert box[3] == box[2]


@pytest.mark.parametrize("n_columns", [1, 80, 81, 700])
def test_any_number_of_regressors_fits_on_the_sheet(n_columns):
    design = np.random.default_rng(0).normal(size=(30, n_columns))
    names = [f"{'x' * 200}{n}" for n in range(n_columns)]
    picture = draw_design(design, names, Course(30))
    (sheet,) = parts(picture.content, "svg")
    assert float(sheet["height"]) < 1100
    for image in parts(picture.content, "image"):
        assert float(image["x"]) + float(image["width"]) <= float(sheet["width"])
        assert (
            float(image["width"]) > 100 or float(image["width"]) == 12 or n_columns < 9
        )
    assert draw_design(np.empty((30, 0)), (), Course(30)) is None
