"""Stacks: what is in the file, how it grows, what is refused."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support.stack_series import NAMES, signals, write_relmat, write_series

from bids_roi.errors import DataError, MissingInput, OutputError, UsageError
from bids_roi.files.matrices import read_matrix
from bids_roi.files.tables import format_matrix
from bids_roi.group.outputs import check_outputs
from bids_roi.group.stacking import write_stacks
from bids_roi.options.table import Group

STACK = "group_space-X_atlas-Toy_stack.h5"


def matrix(seed):
    values = np.random.default_rng(seed).uniform(-1, 1, (4, 4))
    values = values + values.T
    values[2] = values[:, 2] = np.nan
    return values


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


def test_memory_does_not_grow_with_the_runs(tmp_path):
    """In a process of its own, which tells its peak: 60 runs of 1 MB, 15 more MB."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30000, 4))
    text = "".join(format_matrix(NAMES, values))
    code = (
        "import resource, sys, pathlib\n"
        "from bids_roi.group.stacking import write_stacks\n"
        "print(write_stacks(pathlib.Path(sys.argv[1]))[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = []
    for n_runs in (2, 60):
        for number in range(n_runs):
            path = tmp_path / f"sub-{number:02}" / "func"
            if not path.exists():
                write_series(tmp_path, f"sub-{number:02}", values[:2])
                (written,) = path.glob("*_timeseries.tsv")
                written.write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True
        )
        notes, peak = done.stdout.split("\n")[:2]
        assert notes == "[]", done.stderr
        peaks.append(int(peak) * (1 if sys.platform == "darwin" else 1024))
    assert (tmp_path / STACK).stat().st_size > 57e6
    assert peaks[1] - peaks[0] < 15 * 2**20


def test_read_matrix_gives_back_the_bits(tmp_path):
    values = np.array([[0.1, np.nan, -1e-300], [1e22, 5e-324, 123456789.12345678]])
    path = tmp_path / "table.tsv"
    path.write_text("".join(format_matrix(["a", "b", "c"], values)))
    names, found = read_matrix(path)
    assert names == ("a", "b", "c")
    assert found.tobytes() == values.tobytes()
