"""Work at scale: with four times the data it is four times as much, and not sixteen.

Steps, calls and comparisons are counted, as times differ between machines.
"""

import difflib
import hashlib
import json
import os
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support import datasets
from support.calls import run
from support.group_trees import Tree, correlation, read_rows
from support.stack_series import matrix, signals, write_relmat, write_series
from support.steps import count_steps

from bids_roi import loading
from bids_roi.atlases import subject
from bids_roi.core.grid import Grid
from bids_roi.dataset import partners, query
from bids_roi.dataset.run import BoldRun
from bids_roi.errors import DataError, NothingFound
from bids_roi.files import names
from bids_roi.files.names import parse_name
from bids_roi.group import level
from bids_roi.group import runs as runs_of_group
from bids_roi.group.covariates import Covariates, build_design
from bids_roi.group.outputs import Outcome, read_everyone
from bids_roi.images.nifti import write_image
from bids_roi.options.record import Options
from bids_roi.outputs import find
from bids_roi.outputs.records import (
    NOT_CLEANED,
    Record,
    Stamp,
    read_all_records,
    write_records,
)
from bids_roi.outputs.told import NUMBERS
from bids_roi.participant import combined, conditions, progress
from bids_roi.participant.outcomes import Outcomes
from bids_roi.report import draw, group, participant
from bids_roi.report.pages import Verdict

FEW, MANY = 10, 40
MOST = 4.5  # times the work for four times the data; the square would be sixteen


@pytest.fixture
def listings(monkeypatch):
    """Patterns that folders were listed by."""
    listed, glob = [], Path.glob

    def note(self, pattern, **more):
        listed.append(pattern)
        return glob(self, pattern, **more)

    monkeypatch.setattr(Path, "glob", note)
    return listed


def settle(folder):
    """As if nothing had changed in it for long."""
    os.utime(folder, ns=(10**18, 10**18))


def test_steps_are_counted_and_a_square_is_found():
    def pair(n):
        return lambda: [a for a in range(n) for b in range(n) if a == b]

    def once(n):
        return lambda: [a + 1 for a in range(n)]

    here = sys.modules[__name__]
    assert count_steps(pair(MANY), here) > 10 * count_steps(pair(FEW), here)
    few, many = (count_steps(once(n), here) for n in (FEW, MANY))
    assert few < many < MOST * few
    assert count_steps(once(MANY), find) == 0


def test_loading_looks_at_each_table_once_whatever_the_participants(tmp_path):
    steps = []
    for n in (FEW, MANY):
        out = tmp_path / str(n)
        for number in range(n):
            write_series(out, f"sub-{number:03}_task-rest", signals(number))
        found = loading.load(out)
        steps.append(count_steps(found.runs, loading, find))
    assert steps[1] < MOST * steps[0]


def test_a_folder_of_tables_is_listed_once_for_all_runs(tmp_path, listings):
    folder = tmp_path / "own"
    folder.mkdir()
    names = [f"sub-{number:02}_task-rest" for number in range(FEW)]
    for name in names:
        (folder / f"{name}_physio.tsv").touch()
    settle(folder)

    def find_own(name):
        path = tmp_path / "in" / f"{name}_bold.nii.gz"
        run = BoldRun(tmp_path, (path,), parse_name(path).entities, None, None, {})
        return partners.find_tables(folder, "*.tsv", run)

    for name in names:
        assert find_own(name) == (folder / f"{name}_physio.tsv",)
    assert listings.count("*.tsv") == 1
    # What comes is found, though it come twice within one step of the clock.
    for number in (1, 2):
        late = f"sub-late{number}_task-rest"
        (folder / f"{late}_physio.tsv").touch()
        assert find_own(late) == (folder / f"{late}_physio.tsv",)


def test_the_folders_of_a_participant_are_listed_once_for_all_runs(
    tmp_path, monkeypatch
):
    own = tmp_path / "own"
    runs = [f"ses-{day}/sub-1_ses-{day}_task-t{n}" for day in "ab" for n in range(FEW)]
    for run_of_day in runs:
        path = own / "sub-1" / f"{run_of_day}_physio.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folders = [own, own / "sub-1", own / "sub-1/ses-a", own / "sub-1/ses-b"]
    listed, scan = [], os.scandir

    def note(path="."):
        listed.append(Path(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", note)

    def find_own(stem):
        path = tmp_path / "in" / f"{Path(stem).name}_bold.nii.gz"
        run = BoldRun(tmp_path, (path,), parse_name(path).entities, None, None, {})
        return partners.find_tables(own, "*.tsv", run)

    def count_listings():
        listed.clear()
        for stem in runs:
            assert find_own(stem) == (own / "sub-1" / f"{stem}_physio.tsv",)
        return {folder: listed.count(folder) for folder in folders[1:]}

    for folder in folders:
        settle(folder)
    assert set(count_listings().values()) == {1}
    assert set(count_listings().values()) == {0}
    # What comes and goes is seen, though it be twice within one step of the clock.
    late = own / "sub-1/ses-b/func"
    for number in (1, 2):
        stem = f"sub-1_ses-b_task-late{number}"
        assert find_own(stem) == ()
        late.mkdir(exist_ok=True)
        path = late / f"{stem}_physio.tsv"
        path.touch()
        assert find_own(stem) == (path,)
        path.unlink()
        assert find_own(stem) == ()


def test_a_folder_of_events_is_listed_once_for_all_runs(tmp_path, listings):
    func = tmp_path / "sub-1" / "func"
    func.mkdir(parents=True)
    stems = [f"sub-1_task-rest_run-{number}" for number in range(FEW)]
    for stem in stems:
        (func / f"{stem}_events.tsv").touch()
    settle(func)
    for stem in stems:
        name = parse_name(f"{stem}_space-T1w_atlas-A_stat-r_relmat.tsv")
        assert partners.find_events(tmp_path, name) == func / f"{stem}_events.tsv"
    assert listings.count("*events.tsv") == 1
    nearer = func / "sub-1_task-rest_acq-x_run-0_events.tsv"
    nearer.touch()
    name = parse_name("sub-1_task-rest_acq-x_run-0_relmat.tsv")
    assert partners.find_events(tmp_path, name) == nearer


def test_a_folder_of_transforms_is_listed_once_for_all_runs(tmp_path, listings):
    func = tmp_path / "sub-1" / "func"
    func.mkdir(parents=True)
    for number in range(FEW):
        stem = f"sub-1_task-rest_run-{number}"
        tail = "from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt"
        (func / f"{stem}_{tail}").touch()
    settle(func)
    for number in range(FEW):
        bold = func / f"sub-1_task-rest_run-{number}_desc-preproc_bold.nii.gz"
        found = subject._find_coregistration(tmp_path, bold)
        assert found.name == f"sub-1_task-rest_run-{number}_{tail}"
    assert len(listings) == 1


@pytest.mark.parametrize("asked", [["--dry-run"], ["-v", "--executor", "serial"]])
def test_sidecars_are_listed_once_for_all_runs_that_are_described(
    tmp_path, capsys, monkeypatch, asked
):
    listed, list_all = [], partners._list

    def note(folder):
        listed.append(folder)
        return list_all(folder)

    monkeypatch.setattr(partners, "_list", note)
    stems = [f"sub-1_task-rest_run-{number}" for number in range(1, 6)]
    root = datasets.write_dataset(tmp_path / "in", stems)
    atlas = datasets.write_atlas(tmp_path / "atlas")
    call = [root, tmp_path / "out", "participant", "--atlas-file", atlas, *asked]
    shown = run(capsys, *call)
    told = "repetition time  2 s (RepetitionTime in sub-1/func/sub-1_task-rest_run-"
    assert (shown.out + shown.err).count(told) == 5
    # By who reads what they say, and by who tells where that is from.
    assert listed.count(root / "sub-1" / "func") == 2


def test_the_reference_of_a_run_is_found_by_its_name(tmp_path, listings):
    grid = Grid.of((3, 4, 5), np.eye(4))
    stem = tmp_path / "sub-1/func/sub-1_task-rest_run-2_space-X"
    path = Path(f"{stem}_desc-preproc_bold.nii.gz")
    run = BoldRun(tmp_path, (path,), parse_name(path).entities, None, None, {})
    assert draw._read_reference(run, grid) is None
    path.parent.mkdir(parents=True)
    values = np.arange(60, dtype="f4").reshape(3, 4, 5)
    write_image(Path(f"{stem}_boldref.nii.gz"), values, np.eye(4))
    assert_array_equal(draw._read_reference(run, grid), values.ravel(order="F"))
    assert draw._read_reference(run, Grid.of((3, 4, 5), 2 * np.eye(4))) is None
    assert not listings


def test_conditions_sort_the_outputs_of_a_participant_once(tmp_path, monkeypatch):
    for number in range(4):
        run = f"sub-1_task-rest_run-{number}"
        write_series(tmp_path, run, signals(number))
        write_relmat(tmp_path, run, matrix(number))
    events = tmp_path / "raw/sub-1/func/sub-1_task-rest_events.tsv"
    events.parent.mkdir(parents=True)
    events.touch()
    seen = []
    monkeypatch.setattr(conditions, "is_made_so", lambda *_: True)
    monkeypatch.setattr(
        conditions, "_relate_run", lambda *given: seen.append(given[-1])
    )
    options = Options.of(
        relmat=("pearson",), conditions=("a",), raw_dataset=tmp_path / "raw"
    )
    conditions.relate_conditions(tmp_path, tmp_path, "sub-1", options)
    assert len(seen) == 4
    assert all(there is seen[0] for there in seen)


def test_matrices_over_runs_are_not_compared_with_every_output(tmp_path, monkeypatch):
    compared, equal = [], find.Output.__eq__

    def note(self, other):
        compared.append(self.path)
        return equal(self, other)

    counts = []
    rng = np.random.default_rng(3)
    for n in (FEW, MANY):
        tree = Tree(tmp_path / str(n))
        for number in range(n):
            name = f"sub-{number:03}_task-rest"
            folder, stem = tree.stem(f"{name}_run-1")
            tree.run(f"{name}_run-1", correlation(rng), fd=0.1)
            path = tree.relmat(name, correlation(rng)).with_suffix(".json")
            series = folder.relative_to(tree.root) / f"{stem}_stat-mean_timeseries.tsv"
            own = {"CombinedRuns": ["run-1"], "CombinedTables": ["a"]}
            own["Sources"] = [f"bids::{series.as_posix()}"]
            tree.write_json(path, json.loads(path.read_text()) | own)
        compared.clear()
        with monkeypatch.context() as patch:
            patch.setattr(find.Output, "__eq__", note)
            options = Options.of(group_unit="combined", n_procs=1)
            level.run_group_level(tree.root, options)
        rows = read_rows(tree.root / "group_runs.tsv")
        assert len([row for row in rows if row["status"] == "done"]) == 2 * n
        counts.append(len(compared))
    assert counts[1] <= MOST * counts[0]


def test_runs_that_failed_are_not_held_against_every_matrix(tmp_path):
    def look(n):
        out = tmp_path / str(n)
        stems = [f"sub-1_ses-{number:02}_task-rest" for number in range(n)]
        for number, stem in enumerate(stems):
            write_relmat(out, f"{stem}_run-1", matrix(number))
            run = f"sub-1/func/{stem}_run-2_space-X_desc-preproc_bold.nii.gz"
            write_records(out, run, [Record(run, "Toy", "failed", "It is empty.")])
        options, told = Options.of(relmat=("pearson",)), []

        def work():
            told.extend(combined._list_families(out, "sub-1", options))

        steps = count_steps(work, combined)
        assert [family.left_out for family in told] == [
            {f"{stem}_run-2": "It is empty."} for stem in stems
        ]
        return steps

    assert look(MANY) < MOST * look(FEW)


def test_progress_is_shown_by_sums_that_are_kept():
    class Number(int):
        def __radd__(self, other):
            added.append(other)
            return other + int(self)

    added = []
    surveyed = {str(person): (2, Number(100)) for person in range(MANY)}
    shown = progress.Progress(None, quiet=True, surveyed=surveyed, n_participants=MANY)
    assert len(added) == MANY
    shown.expect("0", [])
    assert shown.totals() == (2 * (MANY - 1), 100 * (MANY - 1))
    assert len(added) == MANY


def test_verdicts_of_a_page_are_sorted_by_run_once():
    def judge(n):
        lights = ["good", "check", "failed"]
        rows = [
            {"key": f"run-{run}", "verdict": Verdict(lights[run % 3 if series else 0])}
            for run in range(n)
            for series in range(3)
        ]
        told = []

        def work():
            told.append(participant._count(participant._find_worst(rows)))

        steps = count_steps(work, participant)
        counts = {verdict.light: words for verdict, words in told[0]}
        assert list(counts) == ["good", "check", "failed"]
        assert sum(int(words.split()[0]) for words in counts.values()) == n
        return steps

    assert judge(MANY) < MOST * judge(FEW)


class Word(str):
    """A label that counts how often it is compared."""

    __slots__ = ()
    n_compared = 0

    def __eq__(self, other):
        Word.n_compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_participants_without_a_covariate_are_not_looked_for_in_a_list():
    compared = []
    for n in (FEW, MANY):
        people = [Word(f"sub-{number:03}") for number in range(n)]
        ages = {person: float(k) for k, person in enumerate(people) if k % 2}
        Word.n_compared = 0
        design = build_design(Covariates(Path("t.tsv"), {"age": ages}), people)
        compared.append(Word.n_compared)
        assert len(design.rows) == n // 2
        assert f"{n // 2} of {n} participants have no age" in design.notes[0]
    assert compared[1] < MOST * max(compared[0], n)


def test_many_unknown_labels_are_not_all_held_against_all_that_are_there(
    tmp_path, monkeypatch
):
    for number in range(30):
        (tmp_path / f"sub-a{number:02}").mkdir()
    calls, close = [], difflib.get_close_matches

    def note(*given, **more):
        calls.append(given)
        return close(*given, **more)

    monkeypatch.setattr(query.difflib, "get_close_matches", note)
    unknown = [f"a{number:02}x" for number in range(30)]
    with pytest.raises(NothingFound) as caught:
        query.list_participants(tmp_path, unknown)
    assert ", ".join(unknown) in caught.value.problem
    assert len(calls) < 12
    assert caught.value.remedy.count("a") >= 10
    assert query.list_participants(tmp_path, ["a03", "sub-a01"]) == ["a01", "a03"]


def test_problems_of_the_group_page_share_what_is_not_known():
    class Table(dict):
        def get(self, key, default=None):
            defaults.append(default)
            return dict.get(self, key, default)

    defaults = []
    runs = Table(status=["failed", "done", "failed"])
    places = [{"run": f"r{n}", "link": ""} for n in range(3)]
    found = group._list_problems(places, runs)
    assert [row["run"] for row in found] == ["r0", "r2"]
    assert {(row["atlas"], row["reason"]) for row in found} == {("n/a", "n/a")}
    lists = [default for default in defaults if isinstance(default, list)]
    assert len(lists) == 4
    assert all(each is lists[0] for each in lists)


def test_a_message_names_some_of_many_runs():
    paths = [f"sub-1/func/sub-1_task-x{run}_atlas-A_stat-r_relmat.tsv"
             for run in ("", *(f"_run-{n}" for n in range(MANY)))]  # fmt: skip
    members = [find.Output(Path("out"), p, "relmat") for p in paths]
    with pytest.raises(DataError) as caught:
        combined._check_name(combined._Family(paths[0], members))
    assert [path in caught.value.problem for path in paths[1:5]] == [True] * 3 + [False]
    assert f"and {MANY - 3} more." in caught.value.problem


def test_notes_of_a_participant_are_looked_up_among_all_and_no_more(tmp_path):
    class Counted(Counter):
        def __iter__(self):
            pytest.fail("all warnings of the dataset are gone through")

        keys = __iter__

    outcomes = Outcomes(SimpleNamespace(root=tmp_path))
    outcomes.warnings = Counted()
    outcomes.warnings["old"] = 1
    notes = ["new", "old", "new", NOT_CLEANED]
    outcomes._note_more("sub-1", combined.Combined(notes=notes))
    told = [outcomes.warnings[note] for note in ("old", "new", NOT_CLEANED)]
    assert told == [1, 1, 0]


def make_tables(out, n):
    """Tables of ``n`` runs with what group level reads of them; returns how many."""
    rng, stats = np.random.default_rng(0), ("24P", "36P", "acompcor")
    keys = [key for key in NUMBERS if not key.startswith("Effective")]
    for number in range(n):
        person = f"sub-{number // 2:05}"
        stem = f"{person}_task-rest_run-{number % 2 + 1}_space-MNI152NLin2009cAsym"
        bold = f"{person}/func/{stem}_desc-preproc_bold.nii.gz"
        numbers = dict(zip(keys, rng.normal(size=len(keys)).tolist(), strict=True))
        stamps = []
        for name in (
            "dseg",
            *(f"stat-mean_desc-{desc}_timeseries" for desc in stats),
            *(f"stat-pearsoncorrelation_desc-{desc}_relmat" for desc in stats),
        ):
            table = f"{person}/func/{stem}_atlas-Toy_{name}.tsv"
            (out / table).parent.mkdir(parents=True, exist_ok=True)
            (out / table).write_text(table)
            state = (out / table).stat()
            digest = hashlib.sha256(table.encode()).hexdigest()
            stamps.append(Stamp(table, state.st_size, state.st_mtime_ns, digest))
            said = {"Sources": [f"bids:preprocessed:{bold}"], "Atlas": "Toy"}
            said |= {"OptionsDigest": "0123456789ab", "TableDigest": f"sha256:{digest}"}
            beside = (out / table).with_suffix(".json")
            beside.write_text(json.dumps(said | numbers | {"NumberOfVolumes": 300}))
        records = [
            Record(
                *(bold, "Toy", "done", "", ("It moved.",)),
                digest="0123456789ab",
                inputs=(f"{bold} {number}",),
                outputs=tuple(stamp.table for stamp in stamps),
                stamps=tuple(stamps),
                strategy=desc,
            )
            for desc in stats
        ]
        write_records(out, bold, records)
    return n * len(stamps)


def held_after_check(out, n_records):
    """Bytes that are held of all tables once they are checked.

    Without caches, which are bounded, and without what is larger than any one object:
    lists and dictionaries of all double now and then.
    """
    tracemalloc.start()
    try:
        found, outcomes, *_ = read_everyone(out)
        runs = runs_of_group.sort_into_runs(found.usable, ())
        assert len(found.usable) == sum(len(run.outputs) for run in runs.values()) > 0
        assert found.problems == ()
        for cache in (names._parse, names._parse_entity):
            cache.cache_clear()
        traces = tracemalloc.take_snapshot().traces
        assert len(outcomes) == n_records
        return sum(trace.size for trace in traces if trace.size < 8000)
    finally:
        tracemalloc.stop()


def test_a_table_more_is_a_kilobyte_more(tmp_path):
    n_tables = [make_tables(tmp_path / str(n), n) for n in (FEW, MANY)]
    held = [held_after_check(tmp_path / str(n), 3 * n) for n in (FEW, MANY)]
    assert 500 < (held[1] - held[0]) / (n_tables[1] - n_tables[0]) < 1000


def test_what_was_made_of_runs_is_forgotten_once_it_is_checked(tmp_path, monkeypatch):
    tree, given, work = Tree(tmp_path), [], level.list_rows
    path = tree.run("sub-01_task-rest", correlation(np.random.default_rng(0)))
    table, bold = path.relative_to(tmp_path).as_posix(), tree.source("sub-01_task-rest")
    made = {"outputs": (table,), "stamps": (Stamp(table, 1, 1, "d"),), "inputs": ("b",)}
    write_records(tmp_path, bold, [Record(bold, "Toy", "done", **made)])
    assert len(read_all_records(tmp_path)[0].stamps) == 1

    def note(runs, summaries, records):
        given.extend(records)
        return work(runs, summaries, records)

    monkeypatch.setattr(level, "list_rows", note)
    level.run_group_level(tmp_path, Options.of(n_procs=1))
    assert given == [Outcome(bold, "Toy", "done", "", "")]
