"""Stacks: what is in the file, how it grows, what is refused."""

import os
import zlib

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support.stack_series import (
    NAMES,
    matrix,
    signals,
    tell_digest,
    write_many,
    write_relmat,
    write_series,
)

from bids_roi.errors import DataError, MissingInput, OutputError, UsageError
from bids_roi.files.matrices import read_matrix
from bids_roi.files.tables import format_matrix
from bids_roi.group.outputs import check_outputs
from bids_roi.group.stacking import write_stacks
from bids_roi.group.workers import Workers
from bids_roi.options.row import Group
from bids_roi.outputs.stack import StackedRun, StackPart, write_stack

STACK = "group_space-X_atlas-Toy_stack.h5"


def content(path):
    """Everything in the file, by name."""
    found = {}

    def visit(name, item):
        found[f"{name}@"] = {k: str(v) for k, v in sorted(item.attrs.items())}
        if isinstance(item, h5py.Dataset):
            found[name] = (
                item.dtype.str,
                item.chunks,
                item.maxshape,
                item[()].tolist(),
            )

    with h5py.File(path) as file:
        file.visititems(visit)
        found["@"] = dict(file.attrs)
    return repr(found)


RUNS = ("sub-01_task-rest_run-01", "sub-01_task-rest_run-02", "sub-10_task-rest")


@pytest.fixture
def out(tmp_path):
    """Three runs of 6, 7 and 8 volumes, with matrices of the first two."""
    for seed, run in enumerate(RUNS):
        facts = {"NumberOfVolumes": 9, "MeanFramewiseDisplacement": seed / 10}
        write_series(tmp_path, run, signals(seed, 6 + seed), **facts)
    for seed, run in enumerate(RUNS[:2]):
        write_relmat(tmp_path, run, matrix(seed))
    return tmp_path


def test_holds_every_number_of_the_tables(out):
    assert write_stacks(out) == ([STACK], [])
    with h5py.File(out / STACK) as file:
        series, relmat = file["timeseries/mean"], file["relmat/pearsoncorrelation"]
        assert series["offsets"][:].tolist() == [0, 6, 13, 21]
        expected = np.vstack([signals(seed, 6 + seed) for seed in range(3)])
        assert_array_equal(series["data"][:], expected)
        assert relmat["edges"][:].tolist() == [
            *([0, 1], [0, 2], [0, 3]),
            *([1, 2], [1, 3]),
            [2, 3],
        ]
        for row in range(2):
            values = matrix(row)
            pairs = [values[i, j] for i in range(4) for j in range(i + 1, 4)]
            assert_array_equal(relmat["data"][row], pairs)
        assert np.isnan(relmat["data"][2]).all()  # the run has no matrix
        runs = {name: column[:] for name, column in file["runs"].items()}
        assert file["runs/name"].asstr()[:].tolist() == list(RUNS)
        assert runs["participant_id"].tolist() == [b"sub-01", b"sub-01", b"sub-10"]
        assert runs["run_id"].tolist() == [b"01", b"02", b"n/a"]
        assert runs["session_id"].tolist() == [b"n/a"] * 3
        assert runs["fd_mean"].tolist() == [0, 0.1, 0.2]
        assert runs["n_volumes"].tolist() == [9, 9, 9]
        assert np.isnan(runs["fd_max"]).all()
        assert file["runs/fd_mean"].attrs["Units"] == "mm"
        assert file["regions/name"].asstr()[:].tolist() == list(NAMES)
        assert file["regions/index"][:].tolist() == [10, 20, 30, 40]
        assert file["regions/network"].asstr()[:].tolist() == ["net1", "net0"] * 2
        assert series["data"].attrs["OptionsDigest"] == "abc"
        assert file.attrs["atlas"] == "Toy"


def test_diagonal_is_kept_where_it_means_something(tmp_path):
    write_series(tmp_path, RUNS[0], signals(0))
    write_relmat(tmp_path, RUNS[0], matrix(0), stat="covariance", ValidDiagonal=True)
    write_stacks(tmp_path)
    with h5py.File(tmp_path / STACK) as file:
        covariance = file["relmat/covariance"]
        rebuilt = np.zeros((4, 4))
        first, second = covariance["edges"][:].T
        rebuilt[first, second] = rebuilt[second, first] = covariance["data"][0]
        assert_array_equal(rebuilt, matrix(0))


def test_one_file_per_atlas_space_and_desc_and_a_group_per_statistic(tmp_path):
    write_series(tmp_path, RUNS[0], signals(0))
    write_series(tmp_path, RUNS[0], signals(1), stat="median")
    write_series(tmp_path, RUNS[0], signals(2, 3), desc="36P", digest="clean")
    names, notes = write_stacks(tmp_path)
    assert names == [STACK, "group_space-X_atlas-Toy_desc-36P_stack.h5"]
    assert notes == []
    with h5py.File(tmp_path / names[0]) as file:
        assert list(file["timeseries"]) == ["mean", "median"]
        assert_array_equal(file["timeseries/median/data"][:], signals(1))
    with h5py.File(tmp_path / names[1]) as file:
        assert_array_equal(file["timeseries/mean/data"][:], signals(2, 3))


def test_contents_can_be_chosen(out):
    write_stacks(out, contents=("relmat",))
    with h5py.File(out / STACK) as file:
        assert "timeseries" not in file
        assert len(file["runs/name"]) == 2


@pytest.mark.parametrize("new", ["sub-00_task-rest", "sub-05_task-rest", "sub-99"])
def test_growing_gives_the_bytes_of_a_file_made_at_once(out, new):
    write_stacks(out)
    write_series(out, new, signals(7, 400))
    write_relmat(out, new, matrix(7))
    write_stacks(out)
    grown = (out / STACK).read_bytes()
    (out / STACK).unlink()
    write_stacks(out)
    assert (out / STACK).read_bytes() == grown
    write_stacks(out)
    assert (out / STACK).read_bytes() == grown
    with h5py.File(out / STACK) as file:
        assert new in file["runs/name"].asstr()[:]


def test_growing_copies_what_is_there_and_parses_only_what_is_new(out, monkeypatch):
    write_stacks(out)
    write_series(out, "sub-11_task-rest", signals(9))
    write_series(out, RUNS[1], signals(8, 2))  # another series of the same name
    parsed = []

    def parse(text, path, **more):
        parsed.append(path.name)
        return original(text, path, **more)

    from bids_roi.group import stacking

    original = stacking.parse_matrix
    monkeypatch.setattr(stacking, "parse_matrix", parse)
    write_stacks(out)
    assert [name.partition("_space")[0] for name in parsed] == [
        RUNS[1],
        "sub-11_task-rest",
    ]
    with h5py.File(out / STACK) as file:
        expected = np.vstack([signals(0), signals(8, 2), signals(2, 8), signals(9)])
        assert_array_equal(file["timeseries/mean/data"][:], expected)


@pytest.mark.parametrize("damage", ["no HDF5", "cut", "other"])
def test_a_file_of_before_that_cannot_be_read_is_made_anew(out, damage):
    write_stacks(out)
    sound = (out / STACK).read_bytes()
    if damage == "no HDF5":
        (out / STACK).write_text("something else")
    elif damage == "cut":
        (out / STACK).write_bytes(sound[: len(sound) // 2])
    else:
        with h5py.File(out / STACK, "w") as file:
            file["regions/name"] = 3
    write_stacks(out)
    assert (out / STACK).read_bytes() == sound


def test_other_options_are_refused_with_an_example_of_each(out):
    write_series(out, "sub-11_task-rest", signals(9), digest="other")
    with pytest.raises(
        DataError, match=r"abc in sub-01/.*; other in sub-11/.*"
    ) as info:
        write_stacks(out)
    assert "--overwrite" in str(info.value)
    assert not (out / STACK).exists()


def test_own_segmentations_differ_in_their_image_only(tmp_path):
    for sub in ("01", "02"):
        source = f"bids:preprocessed:sub-{sub}/func/sub-{sub}_desc-aseg_dseg.nii.gz"
        facts = {"Sources": [source], "SettingsDigest": "one"}
        write_series(tmp_path, f"sub-{sub}", signals(0), digest=sub, **facts)
    assert write_stacks(tmp_path) == ([STACK], [])
    facts["SettingsDigest"] = "two"
    write_series(tmp_path, "sub-02", signals(0), digest="02", **facts)
    with pytest.raises(DataError, match="different options"):
        write_stacks(tmp_path)


DAMAGES = {
    "half a row": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "no number": lambda path: path.write_text(path.read_text().replace("n/a", "x")),
    "another header": lambda path: path.write_text(
        path.read_text().replace("Thalamus", "Pallidum")
    ),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()),
    "empty": lambda path: path.write_bytes(b""),
    "no sidecar": lambda path: path.with_suffix(".json").unlink(),
}


@pytest.mark.parametrize("kind", ["timeseries", "relmat"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_that_cannot_be_read_is_left_out_and_named(out, damage, kind):
    (path,) = out.glob(f"sub-01/func/*run-02*_{kind}.tsv")
    DAMAGES[damage](path)
    names, notes = write_stacks(out)
    assert names == [STACK]
    (problem,) = notes
    assert problem.output.path == path.relative_to(out).as_posix()
    assert path.stem in problem.reason
    assert "--overwrite" in problem.reason
    with h5py.File(out / STACK) as file:
        assert file["runs/name"].asstr()[:].tolist() == [RUNS[0], RUNS[2]]
        assert file["timeseries/mean/offsets"][:].tolist() == [0, 6, 14]


def test_known_problems_leave_their_runs_out_and_are_not_told_again(out):
    (path,) = out.glob("sub-01/func/*run-02*_relmat.tsv")
    path.with_suffix(".json").unlink()
    found = check_outputs(out)
    claimed = []
    names, problems = write_stacks(out, found=found, claim=claimed.append)
    assert (names, problems) == ([STACK], [])
    assert claimed == names
    with h5py.File(out / STACK) as file:
        assert file["runs/name"].asstr()[:].tolist() == [RUNS[0], RUNS[2]]
    _, problems = write_stacks(out, contents=("timeseries",))
    assert problems == []
    with h5py.File(out / STACK) as file:
        assert file["runs/name"].asstr()[:].tolist() == list(RUNS)


def test_a_region_table_that_cannot_be_read_costs_the_numbers_only(out):
    for path in out.glob("sub-*/func/*_dseg.tsv"):
        path.write_text("nothing")
    assert write_stacks(out) == ([STACK], [])
    with h5py.File(out / STACK) as file:
        assert list(file["regions"]) == ["name"]
        assert file["regions/name"].asstr()[:].tolist() == list(NAMES)


def test_numbers_are_packed_by_filters_that_every_library_has(out):
    """Shuffle and deflate, which HDF5 has built in; undone here by hand."""
    write_stacks(out)
    with h5py.File(out / STACK) as file:
        data = file["timeseries/mean/data"]
        assert (data.compression, data.shuffle) == ("gzip", True)
        filters = [data.id.get_create_plist().get_filter(n)[0] for n in range(2)]
        assert filters == [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]
        assert data.id.get_create_plist().get_nfilters() == 2
        packed = data.id.read_direct_chunk((0, 0))[1]
    planes = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(8, -1)
    numbers = np.ascontiguousarray(planes.T).view("<f8").reshape(-1, 4)
    assert_array_equal(numbers[:6], signals(0))
    assert np.isnan(numbers[21:]).all(), "beyond the last run there is nothing"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_runs_that_share_chunks_and_chunks_that_share_a_run(tmp_path, dtype):
    """More edges than a chunk is wide; runs that begin in the middle of a chunk."""
    rng = np.random.default_rng(0)
    width = 2**18 + 5 if dtype == "float32" else 2**17 + 5
    kinds = [("timeseries/mean", None, 3), ("relmat/r", np.zeros((width, 2)), width)]
    parts = [StackPart(name, edges, {}, dtype) for name, edges, _ in kinds]
    lengths = [100_000, 1, 0, 200_000, 70_000]
    runs = [
        StackedRun(
            {"name": f"run {n}"},
            {
                "timeseries/mean": ("a", rng.normal(size=(length, 3)).astype(dtype)),
                "relmat/r": ("b", rng.normal(size=width).astype(dtype)),
            },
        )
        for n, length in enumerate(lengths)
    ]
    path, regions = tmp_path / "x.h5", {"name": ["a", "b", "c"]}
    more = {"regions": regions, "attributes": {}, "units": {}}
    assert write_stack(path, runs, parts=parts, **more) == 5
    with h5py.File(path) as file:
        for name, _, _ in kinds:
            data = file[f"{name}/data"]
            assert data.dtype == dtype
            values = [run.data[name][1].reshape(-1, data.shape[1]) for run in runs]
            assert_array_equal(data[:], np.concatenate(values))
        assert file["timeseries/mean/offsets"][:].tolist() == [
            *np.cumsum([0, *lengths]).tolist()
        ]


def test_single_precision_is_the_nearest_and_told_by_the_type(out):
    write_stacks(out)
    double = (out / STACK).stat().st_size
    write_stacks(out, dtype="float32")
    with h5py.File(out / STACK) as file:
        data = file["timeseries/mean/data"]
        assert data.dtype == np.float32
        expected = np.vstack([signals(seed, 6 + seed) for seed in range(3)])
        assert_array_equal(data[:], expected.astype(np.float32))
        assert file["relmat/pearsoncorrelation/data"].dtype == np.float32
        assert data.attrs["Precision"] == "float32"
    assert (out / STACK).stat().st_size < double
    # Digits that are lost do not come back from the stack of before.
    write_stacks(out)
    with h5py.File(out / STACK) as file:
        assert_array_equal(file["timeseries/mean/data"][:], expected)
        assert file["timeseries/mean/data"].attrs["Precision"] == "float64"


def test_a_number_that_single_precision_cannot_hold_costs_its_run(tmp_path):
    write_series(tmp_path, RUNS[0], signals(0))
    write_series(tmp_path, RUNS[2], signals(1) * 1e40)
    assert write_stacks(tmp_path) == ([STACK], [])
    _, (problem,) = write_stacks(tmp_path, dtype="float32")
    assert "float32 cannot hold" in problem.reason
    assert "--stack-dtype float64" in problem.reason
    with h5py.File(tmp_path / STACK) as file:
        assert file["runs/name"].asstr()[:].tolist() == [RUNS[0]]


def test_a_chunk_of_before_that_is_damaged_is_read_from_the_tables(out):
    write_stacks(out)
    sound = (out / STACK).read_bytes()
    with h5py.File(out / STACK) as file:
        where = file["timeseries/mean/data"].id.get_chunk_info(0)
    damaged = bytearray(sound)
    damaged[where.byte_offset + 2 : where.byte_offset + 40] = bytes(38)
    (out / STACK).write_bytes(damaged)
    assert write_stacks(out) == ([STACK], [])
    assert (out / STACK).read_bytes() == sound


def test_digests_change_no_byte(out):
    """Over processes too: tests/system/test_stack_processes.py."""
    write_many(out)
    write_stacks(out)
    with h5py.File(out / STACK) as file:
        n_edges = [len(kind["edges"]) for kind in file["relmat"].values()]
        assert n_edges == [10, 6]  # covariances with their diagonal
    expected = (out / STACK).read_bytes()
    (out / STACK).unlink()
    for path in out.glob("sub-*/func/*.tsv"):
        tell_digest(path)
    for _ in range(2):  # read from the tables, then copied
        assert write_stacks(out, workers=Workers(1)) == ([STACK], [])
        assert (out / STACK).read_bytes() == expected


def test_a_table_that_is_not_the_one_of_its_sidecar_costs_its_run(out):
    for path in out.glob("sub-*/func/*.tsv"):
        tell_digest(path)
    (path,) = out.glob("sub-01/func/*run-02*_relmat.tsv")
    state, found = path.stat(), check_outputs(out)
    text = path.read_text()
    row = text.splitlines()[4]  # one half alone
    digit = row.split("\t")[1][-1]
    edited = row.replace(
        row.split("\t")[1], row.split("\t")[1][:-1] + "07"[digit == "0"]
    )
    path.write_text(text.replace(row, edited))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    _, (problem,) = write_stacks(out, found=found)
    assert "not the one that its sidecar was written with" in problem.reason
    with h5py.File(out / STACK) as file:
        assert file["runs/name"].asstr()[:].tolist() == [RUNS[0], RUNS[2]]


def test_none_goes_with_nothing_else():
    assert Group().stack == ("timeseries", "relmat")
    assert Group(stack=("none",)).stack == ("none",)
    with pytest.raises(UsageError, match="--stack none relmat contradicts itself"):
        Group(stack=("none", "relmat"))


def test_nothing_to_stack(tmp_path):
    with pytest.raises(MissingInput, match="no participant outputs"):
        write_stacks(tmp_path / "absent")
    with pytest.raises(MissingInput, match="no participant outputs"):
        write_stacks(tmp_path)
    (tmp_path / "sub-01" / "func").mkdir(parents=True)
    path = write_series(tmp_path, RUNS[0], signals(0))
    path.write_text("")
    names, notes = write_stacks(tmp_path)
    assert names == []
    assert len(notes) == 1


def test_a_failed_write_leaves_the_old_file(out, monkeypatch):
    write_stacks(out)
    before = (out / STACK).read_bytes()
    write_series(out, "sub-11_task-rest", signals(9))

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_stacks(out)
    assert (out / STACK).read_bytes() == before
    assert not list(out.glob(".*.tmp"))


def test_a_reader_does_not_stop_the_writer(out):
    write_stacks(out)
    write_series(out, "sub-11_task-rest", signals(9))
    with h5py.File(out / STACK) as old:
        write_stacks(out)
        assert len(old["runs/name"]) == 3
    with h5py.File(out / STACK) as new:
        assert len(new["runs/name"]) == 4


def test_read_matrix_gives_back_the_bits(tmp_path):
    values = np.array([[0.1, np.nan, -1e-300], [1e22, 5e-324, 123456789.12345678]])
    path = tmp_path / "table.tsv"
    path.write_text("".join(format_matrix(["a", "b", "c"], values)))
    names, found = read_matrix(path)
    assert names == ("a", "b", "c")
    assert found.tobytes() == values.tobytes()
