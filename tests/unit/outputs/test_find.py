"""One walk finds the outputs, by name; a sidecar is read once, when it is asked for."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from support.group_trees import SPACE, Tree, correlation

from bids_roi.errors import MissingInput
from bids_roi.files import tables
from bids_roi.group.outputs import check_outputs, read_everyone
from bids_roi.group.runs import sort_into_runs
from bids_roi.loading import load
from bids_roi.outputs import find
from bids_roi.outputs.columns import RUN_COLUMNS, identify
from bids_roi.outputs.find import find_outputs
from bids_roi.outputs.records import Record, Stamp, read_all_records, write_records
from bids_roi.outputs.told import Told

RUN = "sub-01_task-rest_space-T1w"


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def test_what_counts_as_an_output_is_told_by_the_name(tmp_path):
    func = "sub-01/func"
    ours = {
        f"{func}/{RUN}_atlas-A_dseg.tsv": "regions",
        f"{func}/{RUN}_atlas-A_stat-mean_timeseries.tsv": "timeseries",
        f"{func}/{RUN}_atlas-A_stat-covariance_relmat.tsv": "relmat",
        f"{func}/{RUN}_desc-24P_outliers.tsv": "outliers",
        "sub-01/ses-2/func/sub-01_ses-2_task-rest_atlas-A_dseg.tsv": "regions",
    }
    touch(
        tmp_path,
        *ours,
        f"{func}/{RUN}_desc-confounds_timeseries.tsv",
        f"{func}/{RUN}_atlas-A_timeseries.tsv",  # no statistic
        f"{func}/{RUN}_dseg.tsv",
        f"{func}/{RUN}_atlas-A_outliers.tsv",
        f"{func}/{RUN}_events.tsv",
        f"{func}/deeper/{RUN}_atlas-A_dseg.tsv",
        f"sub-01/anat/{RUN}_atlas-A_dseg.tsv",
        "atlas-A_dseg.tsv",
    )
    found = find_outputs(tmp_path)
    assert {output.path: output.kind for output in found} == ours
    parts = [Path(output.path).parts for output in found]
    assert parts == sorted(parts)
    touch(tmp_path, "sub-02/func/sub-02_atlas-A_dseg.tsv")
    assert find_outputs(tmp_path, "sub-01") == found
    assert len(find_outputs(tmp_path)) == len(found) + 1
    assert {table.path for table in load(tmp_path, session_label="2").tables} == {
        "sub-01/ses-2/func/sub-01_ses-2_task-rest_atlas-A_dseg.tsv"
    }


@pytest.mark.parametrize("stray", ["sub-*", "sub-0*", "logs/sub-*", "sub-[0]1/func/x"])
def test_a_name_that_is_a_pattern_is_no_participant_more(tmp_path, stray):
    def look():
        everyone = read_everyone(tmp_path, combined=True)
        names = [output.path for output in everyone.there]
        assert names == [output.path for output in find_outputs(tmp_path)]
        runs = [outcome.run for outcome in everyone.outcomes]
        assert runs == [record.run for record in read_all_records(tmp_path)]
        assert everyone.closed == {}
        assert not everyone.found.usable  # for none of them has a sidecar
        assert [p.output.path for p in everyone.found.problems] == names
        return names, runs

    for person in ("sub-01", "sub-02"):
        touch(tmp_path, f"{person}/func/{person}_task-rest_atlas-A_dseg.tsv")
        bold = f"{person}/func/{person}_task-rest_bold.nii.gz"
        write_records(tmp_path, bold, [Record(bold, "A", "done")])
    before = look()
    assert tuple(map(len, before)) == (2, 2)
    touch(tmp_path, stray)
    assert look() == before
    own = "sub-[0]1/func/sub-[0]1_task-rest_atlas-A_dseg.tsv"
    touch(tmp_path, own)  # what it holds is neither lost nor that of others
    assert [o.path for o in find_outputs(tmp_path, "sub-[0]1")] == [own]
    assert len(look()[0]) == 3


def test_a_folder_without_outputs_is_refused_where_something_is_to_be_loaded(tmp_path):
    assert find_outputs(tmp_path / "absent") == find_outputs(tmp_path) == []
    with pytest.raises(MissingInput, match="no such folder"):
        load(tmp_path / "absent")
    with pytest.raises(MissingInput, match="no participant outputs"):
        load(tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("closed", ["", "sub-02", "sub-02/ses-1/func", "sub-03/func"])
def test_a_folder_that_cannot_be_listed_hides_no_outputs(
    tmp_path, monkeypatch, closed, number
):
    """A group without a participant whose folder fails would be of the others alone."""
    touch(
        tmp_path,
        "sub-01/func/sub-01_atlas-A_dseg.tsv",
        "sub-02/ses-1/func/sub-02_ses-1_atlas-A_dseg.tsv",
        "sub-02/ses-2/anat/sub-02_ses-2_T1w.tsv",
        "sub-03/func/sub-03_atlas-A_dseg.tsv",
        "sub-03/ses-1",  # neither is a folder
        "sub-03.html",
    )
    (tmp_path / "sub-04.html").symlink_to("not-fetched")
    assert len(find_outputs(tmp_path)) == 3
    really = os.scandir

    def fail(folder):
        if Path(folder) == tmp_path / closed:
            raise OSError(number, os.strerror(number), str(folder))
        return really(folder)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(MissingInput, match="cannot be read") as caught:
        find_outputs(tmp_path)
    assert caught.value.where == str(tmp_path / closed)
    assert os.strerror(number) in caught.value.problem
    assert ("permissions" in caught.value.remedy) == (number == errno.EACCES)
    # What is not asked for costs nobody else a thing.
    assert len(find_outputs(tmp_path, "sub-01")) == 1


@pytest.mark.parametrize("link", ["sub-04", "sub-01/ses-9", "sub-01/ses-1/func"])
def test_a_link_to_what_is_not_here_hides_no_outputs(tmp_path, link):
    touch(tmp_path, "sub-01/func/sub-01_atlas-A_dseg.tsv", "sub-01/ses-1/x")
    (tmp_path / link).symlink_to("not-mounted")
    for read in (find_outputs, load):
        with pytest.raises(MissingInput, match="cannot be read") as caught:
            read(tmp_path)
        assert caught.value.where == str(tmp_path / link)
        assert "a link to what is not here" in caught.value.remedy


@pytest.fixture
def tree(tmp_path):
    import numpy as np

    tree = Tree(tmp_path)
    rng = np.random.default_rng(1)
    for number in (1, 2):
        tree.run(f"sub-01_task-rest_run-{number}", correlation(rng), fd=0.1)
    return tmp_path


def test_a_sidecar_is_read_once_and_not_before_it_is_asked_for(tree, monkeypatch):
    read = []

    def watch(path, **more):
        read.append(path)
        return tables.read_json(path, **more)

    monkeypatch.setattr(find, "read_json", watch)
    found = find_outputs(tree)
    assert read == []
    assert len({output.run for output in found}) == 2
    assert {output.atlas_name for output in found} == {"Toy"}
    assert all(output.digest and output.source for output in found)
    assert sorted(read) == sorted(output.beside for output in found)


def test_nothing_is_told_by_a_sidecar_that_is_not_sound(tree):
    (one, *_) = (o for o in find_outputs(tree) if o.kind == "regions")
    content = one.read_sidecar()
    one.beside.write_text(json.dumps({**content, "OptionsDigest": ""}))
    (bad,) = (o for o in find_outputs(tree) if o == one)
    assert (bad.source, bad.digest, bad.number("RepetitionTime")) == ("", "", None)
    assert "OptionsDigest is missing" in str(bad.told.error)
    one.beside.unlink()  # it is not read again
    assert "OptionsDigest is missing" in str(bad.told.error)
    one.beside.write_text(json.dumps({**content, "OptionsDigest": ""}))
    (problem,) = check_outputs(tree).problems
    assert problem.output == one
    assert problem.reason.startswith(f"{one.path.removesuffix('.tsv')}.json: Options")


class Counted(str):
    """A path that counts how often it is looked up."""

    __slots__ = ()
    n = 0

    def __hash__(self):
        Counted.n += 1
        return super().__hash__()

    __eq__ = str.__eq__


def look_ups(n_runs, status):
    """How often paths are looked up to find what is stale among so many runs."""
    found, records = [], []
    for number in range(n_runs):
        stem = f"sub-{number:04d}/func/sub-{number:04d}_task-rest_atlas-A"
        paths = [Counted(f"{stem}_dseg.tsv"), Counted(f"{stem}_stat-mean_relmat.tsv")]
        for path, kind in zip(paths, ("regions", "relmat"), strict=True):
            output = find.Output(Path(), path, kind)
            # As if its sidecar had been read.
            output._told, output._source, output._table = Told(atlas="A"), "", "new"
            found.append(output)
        stamp = Stamp(paths[0], 1, 1, "new" if status == "done" else "old")
        run = f"sub-{number:04d}/func/sub-{number:04d}_task-rest_bold.nii.gz"
        records.append(
            Record(run, "A", "done", outputs=tuple(paths), stamps=(stamp,), digest="d")
        )
        if status == "failed":
            records[-1] = dataclasses.replace(records[-1], stamps=())
            new = Stamp(paths[0], 1, 1, "new")
            records.append(dataclasses.replace(records[-1], stamps=(new,)))
            records.append(Record(run, "A", "failed", strategy="none"))
    Counted.n = 0
    stale = find.find_stale(found, records)
    return Counted.n, stale


@pytest.mark.parametrize("status", ["done", "replaced", "failed"])
def test_what_is_stale_is_found_run_by_run(status):
    few, stale = look_ups(20, status)
    assert len(stale) == (0 if status == "done" else 20)
    many, _ = look_ups(200, status)
    assert many < 12 * few  # and not 100 times


def test_a_run_is_told_by_the_same_columns_everywhere():
    name = find.parse_name("sub-01_ses-x_task-rest_run-02_space-T1w_bold.nii.gz")
    row = identify(name)
    told = {column: value for column, value in row.items() if value is not None}
    assert told == {
        "participant_id": "sub-01",
        "session_id": "ses-x",
        "task_id": "rest",
        "run_id": "02",
        "space_id": "T1w",
    }
    assert list(row)[: len(RUN_COLUMNS)] == list(RUN_COLUMNS.values())


@pytest.mark.parametrize("kind", ["regions", "timeseries", "relmat"])
def test_a_run_is_that_of_its_bold_file(tmp_path, kind):
    """Whatever its desc-, which outputs do not have in their names."""
    tree = Tree(tmp_path)
    tree.run("sub-01_task-rest", correlation(np.random.default_rng(0)), desc="36P")
    for desc in ("preproc", "denoised"):
        for sidecar in tmp_path.glob("sub-01/func/*.json"):
            content = json.loads(sidecar.read_text())
            if not sidecar.name.endswith("_relmat.json"):
                source = tree.source("sub-01_task-rest").replace("preproc", desc)
                content["Sources"] = [f"bids:preprocessed:{source}"]
            sidecar.write_text(json.dumps(content))
        (output,) = [o for o in find_outputs(tmp_path) if o.kind == kind]
        own = "" if desc == "preproc" else f"_desc-{desc}"
        assert output.run[0] == f"sub-01_task-rest_space-{SPACE}{own}_bold"


def test_a_number_of_a_run_is_that_of_the_first_output_that_has_it(tmp_path):
    """Zero is a number; of outputs that do not tell it, the next is asked."""
    name, key = "sub-01_task-rest", "MeanFramewiseDisplacement"
    for of_series, of_matrix, wanted in (
        ({key: 0}, {key: 0.7}, 0),
        ({key: -0.0}, {key: 0.7}, -0.0),
        ({key: None}, {key: 0.7}, 0.7),
        ({}, {key: 0.7}, 0.7),
        ({}, {}, 0.2),
    ):
        tree = Tree(tmp_path)
        tree.regions(name, **{key: 0.2})
        tree.series(name, desc="36P", **of_series)
        tree.relmat(name, np.eye(6), desc="36P", **of_matrix)
        (run,) = sort_into_runs(find_outputs(tmp_path), ()).values()
        assert repr(run.number(key, "36P", of_the_run=True)) == repr(wanted)
    assert run.number(key, "36P", of_the_run=False) is None
