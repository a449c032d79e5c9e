"""The engine against the loop oracle: every statistic, any data, any blocks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from support import oracles
from support.cleaning_oracles import EXAMPLES
from support.cuts import cut_points, cut_volumes

from bids_roi.core.grid import Grid
from bids_roi.core.mapping import map_labels
from bids_roi.core.partition import build_partition
from bids_roi.core.reduce import reduce_run
from bids_roi.options.words import name_statistics

STATISTICS = name_statistics(of="labels")
BY_VOLUME = [s for s in STATISTICS if s not in name_statistics(family="series")]

SHAPE = (5, 4, 3)
GRID = Grid.of(SHAPE, np.eye(4))
# float64 sums of a few dozen values in another order.
RTOL = 1e-12


def run_engine(
    values,
    atlases,
    mask,
    statistics=STATISTICS,
    block=3,
    scaling=(1, 0),
    ends=None,
    gather_bytes=2**27,
    picked=False,
):
    """Reduce (x, y, z, T) stored values as the app does, from blocks in file order.

    Of ``block`` volumes each; or of points, where ``ends`` tells where to cut; or
    ``picked``, of volumes with no more than the points of the partition.
    """
    n_volumes = values.shape[3]
    flat = values.reshape(-1, n_volumes, order="F").T
    maps = [map_labels(labels, index, GRID, GRID) for labels, index in atlases]
    partition = build_partition(maps)
    passes = []

    def read():
        passes.append(1)
        yield from cut_volumes(flat, block) if ends is None else cut_points(flat, ends)

    def pick(points):
        for whole in read():
            yield replace(whole, values=whole.values[:, points], picked=True)

    reduction = reduce_run(
        read,
        partition,
        in_mask=mask.ravel(order="F")[partition.voxels],
        statistics=statistics,
        n_volumes=n_volumes,
        scaling=scaling,
        gather_bytes=gather_bytes,
        pick_blocks=pick if picked else None,
    )
    assert len(passes) == reduction.n_passes
    return reduction, partition


@st.composite
def cases(draw):
    """Labels of one to three atlases, a mask, data with NaN and constants, a block."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_volumes = draw(st.integers(2, 9))
    dtype = draw(st.sampled_from(["f8", "f4", "i2", ">i2", ">f4", "u1", "i4"]))
    scale = draw(st.sampled_from([1.0, 100.0, 1e-3]))
    values = rng.normal(draw(st.sampled_from([5, 30, 0])), 3, (*SHAPE, n_volumes))
    values *= scale
    constant = rng.random(SHAPE) < draw(st.sampled_from([0, 0.2, 0.9]))
    level = draw(st.sampled_from([0.0, 7.0]))
    values[constant] = level
    # Out of view in some volumes, or blank volumes.
    edge = rng.random(SHAPE) < draw(st.sampled_from([0, 0, 0.3]))
    values[edge] *= rng.random(n_volumes) < 0.7
    values[..., rng.random(n_volumes) < draw(st.sampled_from([0, 0, 0.2]))] = 0
    late = rng.random(SHAPE) < draw(st.sampled_from([0, 0.2]))
    values[late, : n_volumes // 2 + 1] = level  # changes only towards the end
    values = values.astype(dtype)
    if values.dtype.kind == "f":
        bad = rng.random(values.shape) < draw(st.sampled_from([0, 0, 0.02]))
        values[bad] = rng.choice([np.nan, np.inf, -np.inf], bad.sum())
    atlases = []
    for _ in range(draw(st.integers(1, 3))):
        index = rng.permutation([3, 500, 40000, 7])[: draw(st.integers(1, 4))]
        labels = rng.choice([0, *index.tolist()], SHAPE)
        table = np.append(index, 99)  # a region that the image does not hold
        atlases.append((labels, table))
    mask = rng.random(SHAPE) < draw(st.sampled_from([1.1, 0.7, 0.1]))
    block = draw(st.integers(1, n_volumes))
    scaling = draw(st.sampled_from([(1.0, 0.0), (0.5, -3.0), (-2.0, 0.0)]))
    return values, atlases, mask, block, scaling


N_POINTS = int(np.prod(SHAPE))
# Where blocks of points end; one block alone would be a block of volumes too.
CUTS = st.lists(st.integers(1, N_POINTS - 1), min_size=1, max_size=8, unique=True).map(
    lambda ends: (*sorted(ends), N_POINTS)
)


@settings(max_examples=max(60, EXAMPLES))
@given(cases())
def test_equals_loop_oracle(case):
    values, atlases, mask, block, scaling = case
    found = run_engine(values, atlases, mask, STATISTICS, block, scaling)
    hold_against_loop(case, *found)


@settings(max_examples=max(60, EXAMPLES))
@given(cases(), CUTS, st.sampled_from([1, 700, 2**27]))
def test_cut_by_points_equals_loop_oracle(case, ends, gather_bytes):
    values, atlases, mask, _, scaling = case
    reduction, partition = run_engine(
        values, atlases, mask, STATISTICS, 0, scaling, ends, gather_bytes
    )
    hold_against_loop(case, reduction, partition)
    whole, _ = run_engine(values, atlases, mask, STATISTICS, 3, scaling)
    for name in ("finite", "dropout", "usable", "zero_crossing"):
        assert_array_equal(getattr(reduction, name), getattr(whole, name))
    if partition.voxels.size:
        assert reduction.blank == whole.blank


def hold_against_loop(case, reduction, partition):
    values, atlases, mask, _, scaling = case
    scaled = values.astype(np.float64) * scaling[0] + scaling[1]
    step = abs(scaling[0]) if values.dtype.kind in "iu" else None
    usable = oracles.usable_voxels(scaled, mask, step)
    flat = usable.ravel(order="F")[partition.voxels]
    assert_array_equal(reduction.usable, flat)
    spread = np.abs(scaled[np.isfinite(scaled)]).max(initial=1.0)
    for number, (labels, index) in enumerate(atlases):
        for statistic in BY_VOLUME:  # others: test_statistics.py
            expected = oracles.by_region(scaled, labels, index, usable, statistic)
            found = reduction.signals[statistic][number]
            # Sums that cancel keep the precision of their terms, not of themselves.
            atol = RTOL * spread * 60 * (spread if statistic == "variance" else 1)
            if statistic == "standard_deviation":
                atol = 1e-7 * spread  # the root of a variance of rounding errors
            assert_allclose(found, expected, rtol=RTOL, atol=atol)
        counts = [(usable & (labels == value)).sum() for value in index]
        assert_array_equal(partition.count(number, reduction.usable), counts)


@settings(max_examples=max(30, EXAMPLES))
@given(cases(), st.randoms(use_true_random=False))
def test_bits_do_not_depend_on_blocks_or_company(case, random):
    values, atlases, mask, block, scaling = case
    first, _ = run_engine(values, atlases, mask, STATISTICS, block, scaling)
    other, _ = run_engine(values, atlases, mask, STATISTICS, 1, scaling)
    for name, arrays in first.signals.items():
        for one, two in zip(arrays, other.signals[name], strict=True):
            assert_array_equal(one, two)
    alone, _ = run_engine(values, atlases, mask, ("mean",), block, scaling)
    for one, two in zip(first.signals["mean"], alone.signals["mean"], strict=True):
        assert_array_equal(one, two)
    order = list(range(len(atlases)))
    random.shuffle(order)
    moved, _ = run_engine(
        values, [atlases[i] for i in order], mask, STATISTICS, block, scaling
    )
    for name, arrays in first.signals.items():
        for position, i in enumerate(order):
            assert_allclose(moved.signals[name][position], arrays[i], rtol=0, atol=0)


@settings(max_examples=max(30, EXAMPLES))
@given(cases())
def test_picked_points_give_what_whole_volumes_give(case):
    values, atlases, mask, block, scaling = case
    whole, _ = run_engine(values, atlases, mask, STATISTICS, block, scaling)
    found, partition = run_engine(
        values, atlases, mask, STATISTICS, block, scaling, picked=True
    )
    for name in ("finite", "dropout", "usable", "zero_crossing"):
        assert_array_equal(getattr(found, name), getattr(whole, name))
    if partition.voxels.size:
        assert found.blank == whole.blank
    for name, arrays in whole.signals.items():
        for one, two in zip(arrays, found.signals[name], strict=True):
            assert_array_equal(one, two)


@settings(max_examples=max(30, EXAMPLES))
@given(cases(), CUTS, CUTS)
def test_bits_do_not_depend_on_where_points_are_cut(case, one, other):
    values, atlases, mask, _, scaling = case
    first, _ = run_engine(values, atlases, mask, STATISTICS, 0, scaling, one)
    second, _ = run_engine(values, atlases, mask, STATISTICS, 0, scaling, other, 1)
    whole, _ = run_engine(values, atlases, mask, STATISTICS, 1, scaling)
    for name, arrays in first.signals.items():
        for number, array in enumerate(arrays):
            assert_array_equal(array, second.signals[name][number])
            if name not in ("mean", "sum"):
                assert_array_equal(array, whole.signals[name][number])


def ramp(n_volumes=6):
    rng = np.random.default_rng(3)
    return rng.normal(100, 5, (*SHAPE, n_volumes))


def test_mean_of_a_constant_plus_small_noise_keeps_its_digits():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, (*SHAPE, 6))
    labels = np.ones(SHAPE, int)
    mask = np.ones(SHAPE, bool)
    found, _ = run_engine(1e6 + noise, [(labels, np.array([1]))], mask)
    expected = noise.reshape(-1, 6).std(axis=0)
    assert_allclose(found.signals["standard_deviation"][0][:, 0], expected, rtol=1e-9)


def test_variance_of_a_large_level_in_two_atlases_at_once():
    rng = np.random.default_rng(2)
    values = 1e6 + rng.normal(0, 1, (*SHAPE, 4))
    whole = np.ones(SHAPE, int)
    halves = np.ones(SHAPE, int)
    halves[2:] = 2
    mask = np.ones(SHAPE, bool)
    both = [(whole, np.array([1])), (halves, np.array([1, 2]))]
    found, partition = run_engine(values, both, mask)
    assert partition.atoms.shape == (2, 60)
    assert partition.regions.shape == (3, 2)
    centred = values - 1e6
    assert_allclose(
        found.signals["variance"][0][:, 0], centred.reshape(-1, 4).var(0), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("spoil", "n_passes"),
    [
        (lambda v: None, 1),
        (lambda v: v.__setitem__((0, 0, 0), 0.0), 1),  # constant zero: only counted
        (lambda v: v.__setitem__((0, 0, 0), 7.0), 2),  # constant, but not zero
        (lambda v: v.__setitem__((0, 0, 0, 3), np.nan), 2),
        (lambda v: v.__setitem__((0, 0, 0, slice(0, 3)), 7.0), 1),  # changes late
        (lambda v: v.__setitem__((0, 0, 0, slice(0, 3)), 0.0), 2),  # comes into view
    ],
)
def test_second_pass_only_where_it_is_needed(spoil, n_passes):
    values = ramp()
    spoil(values)
    labels = np.ones(SHAPE, int)
    mask = np.ones(SHAPE, bool)
    found, _ = run_engine(values, [(labels, np.array([1]))], mask, ("mean",), 2)
    assert found.n_passes == n_passes
    expected = oracles.regional(values, labels, [1], mask, "mean")
    assert_allclose(found.signals["mean"][0], expected, rtol=RTOL)


def test_region_of_unusable_voxels_is_missing_in_every_statistic():
    values = ramp()
    labels = np.ones(SHAPE, int)
    labels[0] = 2
    values[0] = 0.0
    found, _ = run_engine(values, [(labels, np.array([1, 2]))], np.ones(SHAPE, bool))
    for statistic in STATISTICS:
        assert np.isnan(found.signals[statistic][0][:, 1]).all()
        assert np.isfinite(found.signals[statistic][0][:, 0]).all()


def test_no_voxel_inside_the_mask():
    labels = np.ones(SHAPE, int)
    mask = np.zeros(SHAPE, bool)
    found, _ = run_engine(ramp(), [(labels, np.array([1]))], mask)
    assert np.isnan(found.signals["mean"][0]).all()


def test_infinite_sums_of_finite_values_are_an_error():
    values = ramp()
    values[..., 2] = 1e308
    labels = np.ones(SHAPE, int)
    with pytest.raises(ValueError, match="too large"):
        run_engine(values, [(labels, np.array([1]))], np.ones(SHAPE, bool))


def test_a_value_of_zero_is_what_is_nearest_to_it_where_the_image_has_an_intercept():
    values = np.random.default_rng(4).integers(900, 1100, (*SHAPE, 8)).astype(np.int16)
    slope, intercept = 0.3, -100.0  # 333 is -0.1: what a writer makes of a true 0
    values[0, 0, 0, 2:5] = 333
    labels, mask = np.ones(SHAPE, int), np.ones(SHAPE, bool)
    found, _ = run_engine(
        values, [(labels, np.array([1]))], mask, ("mean",), 3, (slope, intercept)
    )
    assert np.flatnonzero(found.dropout).tolist() == [0]
    scaled = values * slope + intercept
    inside = mask.copy()
    inside[0, 0, 0] = False
    assert_allclose(found.signals["mean"][0][:, 0], scaled[inside].mean(0), rtol=RTOL)


def test_edge_of_the_view_neither_shifts_nor_spikes_a_region():
    """A region of level 1000 of which a slice leaves the view at times."""
    rng = np.random.default_rng(5)
    truth = 1000 + 10 * rng.standard_normal(40)
    values = np.broadcast_to(truth, (*SHAPE, 40)) + rng.standard_normal((*SHAPE, 40))
    values[..., 2, :] *= rng.random(40) < 0.5
    labels, mask = np.ones(SHAPE, int), np.ones(SHAPE, bool)
    for dtype in ("f4", "i2", "f8"):
        found, _ = run_engine(
            values.round().astype(dtype), [(labels, np.array([1]))], mask, ("mean",)
        )
        assert found.dropout.sum() == 20
        assert np.abs(found.signals["mean"][0][:, 0] - truth).max() < 1


def test_data_about_a_mean_of_zero_lose_no_voxel_and_it_is_told():
    rng = np.random.default_rng(6)
    labels, mask = np.ones(SHAPE, int), np.ones(SHAPE, bool)
    for values in (
        rng.integers(-3, 4, (*SHAPE, 50)).astype("i2"),
        rng.integers(0, 9, (*SHAPE, 50)).astype("u1"),
        np.where(rng.random((*SHAPE, 50)) < 0.3, 0, rng.normal(0, 9, (*SHAPE, 50))),
    ):
        found, _ = run_engine(values, [(labels, np.array([1]))], mask, ("mean",))
        assert found.usable.all()
        assert found.zero_crossing.all()
        assert found.n_passes == 1
        assert_allclose(
            found.signals["mean"][0][:, 0], values.reshape(-1, 50).mean(0), atol=1e-12
        )


@pytest.mark.parametrize("picked", [False, True])
def test_blank_volumes_say_nothing_about_the_view_and_are_told(picked):
    values = ramp(9)
    values[..., [0, 4]] = 0
    values[0, 0, 0, 5] = 0
    labels, mask = np.ones(SHAPE, int), np.ones(SHAPE, bool)
    regions = [(labels, np.array([1]))]
    found, _ = run_engine(values, regions, mask, ("mean",), 2, picked=picked)
    # For the voxel; picked, whole volumes are looked at before.
    assert found.n_passes == 2 + picked
    assert found.blank == (0, 4)
    assert found.usable.sum() == 59
    assert (found.signals["mean"][0][[0, 4], 0] == 0).all()
    # Volumes that are 0 in the regions only are not blank.
    labels[1:] = 0
    values = ramp(9)
    values[0, ..., 3] = 0
    found, _ = run_engine(values, regions, mask, ("mean",), 2, picked=picked)
    assert found.blank == ()
    assert found.dropout.all()
    assert np.isnan(found.signals["mean"][0]).all()


# Blocks of points


def test_scaled_integers_that_cannot_be_0_have_no_blank_volumes():
    """As nibabel scales a series of high values; whichever way it is cut."""
    stored = np.random.default_rng(1).integers(-9, 9, (*SHAPE, 7)).astype(np.int16)
    labels, mask = np.ones(SHAPE, int), np.ones(SHAPE, bool)
    for cut in ({"ends": (4, 30, 60)}, {}):
        found, _ = run_engine(
            stored, [(labels, np.array([1]))], mask, ("mean",), scaling=(1, 0.5), **cut
        )
        assert found.blank == ()


@pytest.mark.parametrize(
    ("spoil", "statistics", "gather_bytes", "n_passes"),
    [
        (lambda v: None, ("mean",), 1, 1),
        (lambda v: v.__setitem__((0, 0, 0), 7.0), ("mean",), 1, 1),
        (lambda v: v.__setitem__((0, 0, 0, 3), np.nan), ("mean",), 1, 1),
        (lambda v: v.__setitem__((0, 0, 0, slice(0, 3)), 0.0), ("mean",), 1, 1),
        (lambda v: v.__setitem__((..., 2), 0.0), ("mean",), 1, 1),
        # All points up to the first cut are 0 in a volume that is not blank after all.
        (lambda v: v.__setitem__((slice(None), 0, 0, 2), 0.0), ("mean",), 1, 2),
        (lambda v: None, ("median",), 60 * 6 * 8, 1),
        (lambda v: None, ("median",), 60 * 5 * 8, 2),
        (lambda v: None, ("median",), 60 * 2 * 8, 3),
        (lambda v: None, ("median",), 1, 6),
    ],
)
def test_blocks_of_points_need_one_pass_and_stretches_for_medians(
    spoil, statistics, gather_bytes, n_passes
):
    values = ramp()
    spoil(values)
    labels, mask = np.ones(SHAPE, int), np.ones(SHAPE, bool)
    found, _ = run_engine(
        values,
        [(labels, np.array([1]))],
        mask,
        statistics,
        ends=(4, 30, 60),  # the first block is [:, 0, 0], no more than 5 points
        gather_bytes=gather_bytes,
    )
    for name in statistics:
        expected = oracles.regional(values, labels, [1], mask, name)
        assert_allclose(found.signals[name][0], expected, rtol=RTOL)
    assert found.n_passes == n_passes


def test_points_of_no_region_tell_that_a_volume_is_not_blank():
    """0 in the regions, which come first, and not beyond them."""
    values = ramp()
    labels = np.zeros(SHAPE, int)
    labels[..., 0] = 1
    values[..., 0, 3] = 0
    mask = np.ones(SHAPE, bool)
    found, _ = run_engine(
        values, [(labels, np.array([1]))], mask, ("mean",), ends=(20, 40, 60)
    )
    assert found.blank == ()
    assert found.dropout.all()
    assert np.isnan(found.signals["mean"][0]).all()
    values[..., 3] = 0
    found, _ = run_engine(
        values, [(labels, np.array([1]))], mask, ("mean",), ends=(20, 40, 60)
    )
    assert found.blank == (3,)
    assert found.usable.all()


def test_infinite_sums_by_points_are_an_error():
    values = ramp()
    values[..., 2] = 1e308
    labels = np.ones(SHAPE, int)
    with pytest.raises(ValueError, match="too large"):
        run_engine(
            values, [(labels, np.array([1]))], np.ones(SHAPE, bool), ends=(20, 60)
        )


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
@pytest.mark.parametrize("spoil", [None, 0.0, np.nan, np.inf, -np.inf, "constant"])
def test_a_point_unlike_the_others_of_its_block_is_found(spoil, dtype):
    """A block above 0 is told by two numbers; one value decides that it is not."""
    if dtype == "i2" and spoil is not None and spoil != "constant" and spoil != 0:
        spoil = 0.0
    values = np.random.default_rng(7).normal(800, 20, (*SHAPE, 8)).astype(dtype)
    if spoil == "constant":
        values[2, 1, 1] = 5
    elif spoil is not None:
        values[2, 1, 1, 3] = spoil
    labels = np.ones(SHAPE, int)
    everywhere = np.ones(SHAPE, bool)
    reduction, _ = run_engine(
        values, [(labels, np.array([1]))], everywhere, ["mean"], ends=(7, 30, 60)
    )
    kept = everywhere.copy()
    kept[2, 1, 1] = spoil is None
    assert_array_equal(reduction.usable, kept.ravel(order="F"))
    wanted = values[kept].astype(float).mean(axis=0)
    assert_allclose(reduction.signals["mean"][0][:, 0], wanted, rtol=RTOL)
