"""Atlases brought to a run: maps, meshes, CIFTI frames, spheres; by hand and loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from support import calls, oracles
from support.calls import MAP_STATISTICS, engine, usable_of
from support.datasets import oblique
from support.mapping_cases import case
from support.spheres import AFFINES, members, seeds_in
from support.spheres import SHAPE as SPHERES_SHAPE

from bids_roi.core.frame import Frame, FrameMismatch, Mesh, Part, Points
from bids_roi.core.grid import Grid, resample_labels, resample_weights
from bids_roi.core.mapping import map_labels, map_spheres, map_weights, strongest_map
from bids_roi.core.partition import build_partition


def oracle(values, maps, usable, name):
    """Dense: numpy's own least squares over the usable voxels; or the plain mean."""
    weights, data = maps[usable], values[usable]
    if name == "least_squares":
        return np.linalg.lstsq(weights, data, rcond=None)[0].T
    return (data.T @ weights) / weights.sum(axis=0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["nothing", "zeros", "constant", "nan"]),
    st.integers(1, 5),
    st.sampled_from([None, (1, 210), (100, 101, 170, 210)]),
)
def test_equals_dense_least_squares(seed, spoil, block, ends):
    values, maps, mask = case(seed)
    if spoil == "zeros":
        values[:2] = 0
    if spoil == "constant":
        values[:2] = 50
    if spoil == "nan":
        values[3, 3, 3, 1] = np.nan
    found, partition = engine(
        values, np.moveaxis(maps, 3, 0), mask, block=block, ends=ends
    )
    usable = usable_of(values, mask)
    lost = (mask & ~usable & (maps != 0).any(axis=3)).any()
    again = ends is None and spoil in ("constant", "nan") and lost
    assert found.n_passes == (2 if again else 1)
    for name in MAP_STATISTICS:
        expected = oracle(values, maps, usable, name)
        assert_allclose(found.signals[name][0], expected, rtol=1e-8)
    counts = (maps[usable] != 0).sum(axis=0)
    assert_allclose(partition.count(0, found.usable), counts)
    shares = maps[usable].sum(axis=0) / maps.sum(axis=(0, 1, 2))
    assert_allclose(partition.coverage(0, found.usable), shares, rtol=1e-12)


def test_one_hot_maps_equal_labels():
    values, _, mask = case(1)
    labels = np.random.default_rng(2).integers(0, 3, calls.SHAPE)
    volumes = [(labels == 1).astype(float), (labels == 2).astype(float)]
    found, _ = engine(values, volumes, mask, labels=labels)
    mean = found.signals["mean"][0]
    assert found.signals["mean"][1] is None
    assert found.signals["least_squares"][0] is None
    for name in MAP_STATISTICS:
        assert_allclose(found.signals[name][1], mean, rtol=1e-12)


def test_a_map_without_usable_voxels_is_missing_and_the_others_are_right():
    values, maps, mask = case(3)
    maps[..., 1] = 0
    maps[0, 0, 0, 1] = 1.0
    mask[0, 0, 0] = False
    found, _ = engine(values, np.moveaxis(maps, 3, 0), mask)
    kept = [0, 2, 3]
    usable = usable_of(values, mask)
    for name in MAP_STATISTICS:
        assert np.isnan(found.signals[name][0][:, 1]).all()
        expected = oracle(values, maps[..., kept], usable, name)
        assert_allclose(found.signals[name][0][:, kept], expected, rtol=1e-8)


def test_maps_that_depend_on_one_another_share_the_signal():
    """Twice the same map: the smallest solution, as lstsq gives it."""
    values, maps, mask = case(4)
    maps[..., 1] = maps[..., 0]
    found, _ = engine(values, np.moveaxis(maps, 3, 0), mask)
    expected = oracle(values, maps, usable_of(values, mask), "least_squares")
    assert_allclose(found.signals["least_squares"][0], expected, rtol=1e-7)


@pytest.mark.parametrize("ends", [None, (100, 130, 210)])
def test_maps_that_nearly_depend_on_one_another_take_a_second_pass(ends):
    values, maps, mask = case(5)
    maps[..., 1] = maps[..., 0] + 1e-3 * np.random.default_rng(0).random(calls.SHAPE)
    found, _ = engine(values, np.moveaxis(maps, 3, 0), mask, ends=ends)
    assert found.n_passes == 2
    expected = oracle(values, maps, usable_of(values, mask), "least_squares")
    assert_allclose(found.signals["least_squares"][0], expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("excess", "cancels"), [(0.0, True), (1e-12, True), (1e-3, True), (0.05, False)]
)
def test_no_weighted_mean_where_weights_cancel(excess, cancels):
    """Half of the weights are +1, half -1, and a little more on one side."""
    values, _, mask = case(6)
    mask[:] = True
    weights = np.where(np.indices(calls.SHAPE)[2] < 2, 1.5, -1.0)
    weights[0, 0, 0] += excess * np.abs(weights).sum()
    assert (weights.sum() <= 0.01 * np.abs(weights).sum()) == cancels
    plain = np.random.default_rng(0).random(calls.SHAPE)
    found, _ = engine(values, [weights, plain], mask)
    mean = found.signals["weighted_mean"][0]
    assert np.isnan(mean[:, 0]).all() == cancels
    if not cancels:
        by_hand = np.tensordot(values, weights, axes=([0, 1, 2], [0, 1, 2]))
        assert_allclose(mean[:, 0], by_hand / weights.sum(), rtol=1e-12)
    assert_allclose(
        mean[:, 1], oracle(values, plain[..., None], mask, MAP_STATISTICS[1])[:, 0]
    )
    # Least squares have nothing against such a map.
    both = np.stack([weights, plain], axis=3)
    expected = oracle(values, both, usable_of(values, mask), "least_squares")
    assert_allclose(found.signals["least_squares"][0], expected, rtol=1e-9)


MESH = Mesh("fsLR", 10)
LAS = np.diag([-2.0, 2.0, 2.0, 1.0])
LAS[:3, 3] = 6, -4, -4
RAS = np.diag([2.0, 2.0, 2.0, 1.0])
RAS[:3, 3] = 0, -4, -4  # the same 4 x 3 x 3 places, first axis the other way
SHAPE = (4, 3, 3)
WALL = [0, 1, 2, 3, 5, 6, 8, 9]  # a run without vertices 4 and 7


def part(structure, numbers=None, support=MESH):
    points = None if numbers is None else Points(np.array(numbers))
    return Part(support, structure, points)


def rows_and_coverage(region):
    partition = build_partition([region])
    usable = np.ones(partition.voxels.size, dtype=bool)
    return strongest_map(region.weights).tolist(), partition.coverage(0, usable)


def test_an_atlas_with_the_medial_wall_matches_by_vertex_and_coverage_counts_it():
    """Region 5 is vertices 0 to 4, region 6 vertices 5 to 9: each lacks one of five."""
    source = Frame((part("CORTEX_LEFT"),))
    target = Frame((part("CORTEX_LEFT", WALL),))
    labels = np.array([5, 5, 5, 5, 5, 6, 6, 6, 6, 6])
    region = map_labels(labels, np.array([6, 5, 99]), source, target)
    rows, coverage = rows_and_coverage(region)
    assert rows == [1, 1, 1, 1, 0, 0, 0, 0]
    assert region.n_voxels_atlas.tolist() == [5, 5, 0]
    assert_allclose(coverage, [0.8, 0.8, 0.0])
    # What a mesh without coordinates cannot tell is missing.
    for values in (region.volume, region.offsets, region.centroids):
        assert np.isnan(values).all()


def test_an_atlas_without_the_wall_on_a_run_that_has_it():
    source = Frame((part("CORTEX_LEFT", WALL),))
    target = Frame((part("CORTEX_LEFT"),))
    labels = np.array([5, 5, 5, 5, 6, 6, 6, 6])
    rows, coverage = rows_and_coverage(
        map_labels(labels, np.array([5, 6]), source, target)
    )
    assert rows == [0, 0, 0, 0, -1, 1, 1, -1, 1, 1]
    assert_allclose(coverage, [1, 1])


def test_order_of_vertices_and_structures_does_not_matter():
    source = Frame((part("CORTEX_LEFT", [2, 0, 1]), part("CORTEX_RIGHT", [0, 9])))
    target = Frame((part("CORTEX_RIGHT", [9, 0]), part("CORTEX_LEFT", [0, 1, 2])))
    labels = np.array([12, 10, 11, 20, 29])
    region = map_labels(labels, np.array([10, 11, 12, 20, 29]), source, target)
    assert rows_and_coverage(region)[0] == [4, 3, 0, 1, 2]


def test_a_structure_that_the_run_lacks_has_no_points():
    source = Frame((part("CORTEX_LEFT"), part("CORTEX_RIGHT")))
    target = Frame((part("CORTEX_RIGHT"),))
    labels = np.repeat([1, 2], 10)
    labels[10] = 1  # one vertex of the right: 1 of 11 is left of region 1
    region = map_labels(labels, np.array([1, 2]), source, target)
    rows, coverage = rows_and_coverage(region)
    assert rows == [0] + [1] * 9
    assert_allclose(coverage, [1 / 11, 1])


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (Mesh("fsLR", 59292), Mesh("fsLR", 32492)),
        (Mesh("onavg", 10242), Mesh("fsaverage", 10242)),
        (Mesh("fsnative:sub-01", 9), Mesh("fsnative:sub-02", 9)),
    ],
)
def test_another_mesh_is_an_error_that_names_both(mine, theirs):
    source = Frame((part("CORTEX_LEFT", [0], mine),))
    target = Frame((part("CORTEX_LEFT", [0], theirs),))
    with pytest.raises(FrameMismatch) as caught:
        map_labels(np.array([1]), np.array([1]), source, target)
    assert isinstance(caught.value, ValueError)
    assert all(word in str(caught.value) for word in (str(mine), str(theirs)))
    assert "CORTEX_LEFT" in str(caught.value)


def flat(x, y, z):
    return x + 4 * (y + 3 * z)


def test_voxels_match_by_millimetres_whatever_the_order_of_axes():
    """LAS voxel (x, y, z) is RAS voxel (3 - x, y, z)."""
    places = [(0, 0, 0), (1, 2, 0), (3, 1, 2)]
    source = Frame(
        (part("THALAMUS_LEFT", [flat(*p) for p in places], Grid.of(SHAPE, LAS)),)
    )
    mirrored = [flat(3 - x, y, z) for x, y, z in places]
    lacking = [flat(3, 2, 2)]
    numbers = [*lacking, mirrored[2], mirrored[0]]
    target = Frame((part("THALAMUS_LEFT", numbers, Grid.of(SHAPE, RAS)),))
    region = map_labels(np.array([7, 8, 7]), np.array([7, 8]), source, target)
    rows, coverage = rows_and_coverage(region)
    assert rows == [-1, 0, 0]
    assert_allclose(coverage, [1, 0])
    assert_allclose(region.volume, [16, 8])
    # (6, -4, -4) and (0, -2, 0): half-way between them; (4, 0, -4).
    assert_allclose(region.centroids, [[3, -3, -2], [4, 0, -4]])
    # 3.74 mm from either of the two voxels.
    assert_allclose(region.offsets, [np.sqrt(9 + 1 + 4), 0])


def test_rounding_of_an_affine_is_no_shift_and_half_a_voxel_is_an_error():
    source = Frame((part("BRAIN_STEM", [0, 5], Grid.of(SHAPE, RAS)),))
    for shift, fits in ((1e-3, True), (1.0, False), (0.01, False)):
        moved = RAS.copy()
        moved[0, 3] += shift
        other = Grid.of((5, 3, 3), moved)  # so that the grids differ by shape as well
        target = Frame((part("BRAIN_STEM", [0, 6], other),))
        if fits:
            region = map_labels(np.array([1, 2]), np.array([1, 2]), source, target)
            assert rows_and_coverage(region)[0] == [0, 1]
            continue
        with pytest.raises(FrameMismatch) as caught:
            map_labels(np.array([1, 2]), np.array([1, 2]), source, target)
        assert str(other) in str(caught.value)
        assert str(source.parts[0].support) in str(caught.value)


def test_a_frame_with_voxels_on_two_grids_is_refused():
    frame = Frame(
        (
            part("BRAIN_STEM", [0], Grid.of(SHAPE, RAS)),
            part("THALAMUS_LEFT", [1], Grid.of(SHAPE, LAS)),
        )
    )
    with pytest.raises(FrameMismatch, match="one frame"):
        map_labels(np.array([1, 1]), np.array([1]), frame, Frame((part("X"),)))


def test_a_region_of_vertices_and_voxels_has_no_volume_and_the_others_have():
    frame = Frame(
        (part("CORTEX_LEFT"), part("BRAIN_STEM", [0, 1], Grid.of(SHAPE, RAS)))
    )
    labels = np.array([1] * 10 + [1, 2])
    region = map_labels(labels, np.array([1, 2, 3]), frame, frame)
    assert rows_and_coverage(region)[0] == [0] * 11 + [1]
    assert_allclose(region.volume, [np.nan, 8, 0])
    assert_array_equal(region.centroids[1], [2, -4, -4])
    assert np.isnan(region.centroids[[0, 2]]).all()
    assert_array_equal(region.offsets, [np.nan, 0, np.nan])


def test_maps_keep_their_weights_where_the_run_has_the_vertex():
    source = Frame((part("CORTEX_LEFT"),))
    target = Frame((part("CORTEX_LEFT", WALL[::-1]),))
    maps = np.array([[0.5, 0, 0, 0, 1.5, 0, 0, 0, 0, 0], np.arange(10.0)])
    region = map_weights(iter(maps), source, target)
    assert not region.hard
    assert_array_equal(region.weights.whole.toarray(), maps[:, WALL[::-1]])
    partition = build_partition([region])
    usable = np.ones(partition.voxels.size, dtype=bool)
    # By weight: 0.5 of 2, and 45 - 4 - 7 of 45.
    assert_allclose(partition.coverage(0, usable), [0.25, 34 / 45])
    assert region.n_voxels_atlas.tolist() == [2, 9]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_permuted_and_missing_points_change_no_label(seed):
    """A loop over dictionaries of structure and number, and of millimetres."""
    rng = np.random.default_rng(seed)

    def frame(affine):
        numbers = [rng.permutation(10)[: rng.integers(1, 11)] for _ in range(2)]
        voxels = rng.permutation(36)[: rng.integers(1, 37)]
        parts = [
            part("CORTEX_LEFT", numbers[0]),
            part("CORTEX_RIGHT", numbers[1]),
            part("BRAIN_STEM", voxels, Grid.of(SHAPE, affine)),
        ]
        return Frame(tuple(parts[i] for i in rng.permutation(3)))

    def keys(frame):
        for one in frame.parts:
            for number in one.numbers.tolist():
                if isinstance(one.support, Mesh):
                    yield one.structure, number
                else:
                    x, y, z = number % 4, number // 4 % 3, number // 12
                    yield tuple((one.support.matrix @ [x, y, z, 1])[:3].round(6))

    source, target = frame(LAS), frame(RAS)
    labels = rng.integers(0, 4, source.n_points)
    region = map_labels(labels, np.array([1, 2, 3]), source, target)
    known = dict(zip(keys(source), labels.tolist(), strict=True))
    expected = [known.get(key, 0) - 1 for key in keys(target)]
    rows, coverage = rows_and_coverage(region)
    assert rows == expected
    counts = np.bincount(labels, minlength=4)[1:]
    there = np.bincount(np.array(expected) + 1, minlength=4)[1:]
    assert_allclose(coverage, there / np.maximum(counts, 1))


# Points of any maker: a warp is as good as an affine.


def turned():
    c, s = np.cos(0.3), np.sin(0.3)
    matrix = np.eye(4)
    matrix[:3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 2]]
    matrix[:3, 3] = -1, 0.4, -3
    return Grid.of((5, 4, 3), matrix)


def test_points_in_millimetres_give_what_the_affine_of_a_grid_gives():
    rng = np.random.default_rng(0)
    source, target = Grid.of((6, 5, 4), RAS), turned()
    labels = rng.integers(1, 50, source.shape)
    places = Frame.of_grid(target).millimetres()
    found = resample_labels(labels, source, places, background=-1)
    expected = resample_labels(labels, source, target, background=-1)
    assert (expected == -1).any()
    assert (expected > 0).any()
    assert_array_equal(found, expected.ravel(order="F"))
    by_hand = oracles.nearest_labels(
        labels, source.matrix, target.shape, target.matrix
    ).ravel(order="F")
    assert_array_equal(np.where(found == -1, 0, found), by_hand)
    weights = rng.random(source.shape)
    assert_allclose(
        resample_weights(weights, source, places),
        resample_weights(weights, source, target).ravel(order="F"),
        atol=1e-14,
    )


def test_points_that_lie_nowhere_have_no_label():
    labels = np.ones(SHAPE, dtype=int)
    places = np.array([[0, -4, -4], [np.nan, -4, -4], [1e9, 0, 0]])
    assert_array_equal(
        resample_labels(labels, Grid.of(SHAPE, RAS), places, background=-1), [1, -1, -1]
    )


def test_a_warped_atlas_has_the_coverage_of_what_lies_in_the_run():
    """A warp that takes each voxel one voxel on: the last of four falls out."""
    source = Grid.of((4, 1, 1), RAS)
    target = Grid.of((4, 1, 1), RAS)
    places = Frame.of_grid(target).millimetres() + np.array([2.0, 0, 0])
    labels = np.array([1, 1, 2, 2]).reshape(4, 1, 1)
    region = map_labels(labels, np.array([1, 2]), source, target, places)
    rows, coverage = rows_and_coverage(region)
    assert rows == [0, 1, 1, -1]
    assert_allclose(coverage, [1, 1])
    assert region.n_voxels_atlas.tolist() == [2, 2]
    partition = build_partition([region])
    usable = partition.voxels != 1
    assert_allclose(partition.coverage(0, usable), [1, 0.5])
    with pytest.raises(FrameMismatch, match="only a volume"):
        map_labels(labels, np.array([1]), Frame((part("X"),)), target, places)


@pytest.mark.parametrize("name", AFFINES)
def test_members_are_those_of_a_loop(name):
    affine = AFFINES[name]
    grid = Grid.of(SPHERES_SHAPE, affine)
    seeds = seeds_in(affine, n=20, seed=3)
    spheres = np.column_stack([seeds, np.full(20, 5.0)])
    mapped = map_spheres(spheres, Frame.of_grid(grid))
    voxels = np.array(list(itertools.product(*map(range, SPHERES_SHAPE))))
    flat = np.ravel_multi_index(tuple(voxels.T), SPHERES_SHAPE, order="F")
    n_found = 0
    for row, own in enumerate(members(seeds, 5.0, affine)):
        if own is not None:
            n_found += 1
            found = mapped.weights.whole[[row]].indices
            assert sorted(found) == sorted(flat[list(own)])
    assert n_found > 10


def test_a_small_sphere_has_the_voxel_that_holds_its_centre():
    grid = Grid.of((5, 5, 5), np.diag([4.0, 4, 4, 1]))
    spheres = np.array([[9.0, 9.5, 7.0, 0.5], [8, 8, 8, 0.1], [500, 0, 0, 3]])
    mapped = map_spheres(spheres, Frame.of_grid(grid))
    two = np.ravel_multi_index((2, 2, 2), (5, 5, 5), order="F")
    assert_array_equal(mapped.weights.whole[[0]].indices, [two])
    assert_array_equal(mapped.weights.whole[[1]].indices, [two])
    assert mapped.weights.whole[[2]].nnz == 0
    assert_array_equal(mapped.n_voxels_atlas, [1, 1, 1])


def test_what_lies_beyond_the_grid_lowers_coverage():
    grid = Grid.of((6, 6, 6), np.diag([2.0, 2, 2, 1]))
    mapped = map_spheres(np.array([[0.0, 6, 6, 4.1]]), Frame.of_grid(grid))
    box = np.array(list(itertools.product(range(-3, 4), repeat=3))) * 2.0
    near = box[np.linalg.norm(box, axis=1) <= 4.1]
    assert mapped.n_voxels_atlas[0] == len(near)
    assert mapped.volume[0] == pytest.approx(len(near) * 8, rel=1e-12)
    partition = build_partition([mapped])
    share = partition.coverage(0, np.ones(partition.voxels.size, dtype=bool))
    assert share[0] == pytest.approx((near[:, 0] >= 0).mean(), abs=1e-12)


def test_a_warp_finds_the_places_in_the_template():
    """Of a run that is moved by a known shift: the same voxels as moved seeds have."""
    affine = oblique()
    grid = Grid.of(SPHERES_SHAPE, affine)
    frame = Frame.of_grid(grid)
    shift = np.array([3.0, -7.0, 11.0])
    seeds = seeds_in(affine, n=6, seed=9)
    spheres = np.column_stack([seeds, np.full(6, 5.5)])
    moved = np.column_stack([seeds + shift, np.full(6, 5.5)])
    here = map_spheres(spheres, frame)
    there = map_spheres(moved, frame, frame.millimetres() + shift)
    assert_array_equal(here.weights.indices, there.weights.indices)
    assert_array_equal(here.weights.indptr, there.weights.indptr)
