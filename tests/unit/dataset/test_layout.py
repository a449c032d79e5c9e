"""Discovery: which runs, with which partners; the oracle is os.walk and str.split."""

import errno
import gzip
import os
import pickle
from collections import Counter

import bids.layout
import pytest
from support.trees import SHARED, needs_shared, plant

import bids_roi.dataset.layout as layout_module
import bids_roi.dataset.partners as partners_module
import bids_roi.dataset.query as query_module
from bids_roi.dataset.layout import (
    explain_nothing,
    find_runs,
    find_runs_of,
    index_series,
)
from bids_roi.dataset.query import find_derivative, list_participants
from bids_roi.errors import MissingInput, NothingFound, OutputError, UsageError
from bids_roi.options.row import Input


@pytest.fixture(autouse=True)
def _pybids_is_asked_anew():
    layout_module._choose.cache_clear()


def found(root, participant="01", **options):
    """Names of the runs that are found, without what they have in common."""
    runs = find_runs(root, participant, Input(**options))
    return [run.path.name.removeprefix("sub-01_").split("_desc-")[0] for run in runs]


def split(name):
    stem, _, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    return {p.split("-")[0]: p for p in pairs}, suffix, extension


def oracle(root, participant):
    """BOLD, mask and confounds of a participant: walk, split, compare."""
    names = {}
    for folder, _, files in os.walk(root / f"sub-{participant}"):
        if folder.endswith("/func"):
            names.update({f"{folder}/{f}": split(f) for f in files})
    triples = set()
    for path, (bold, suffix, extension) in names.items():
        if suffix != "bold" or extension not in ("nii", "nii.gz"):
            continue
        if bold.get("desc") != "desc-preproc" or "echo" in bold:
            continue
        mask = confounds = None
        for other, (pairs, other_suffix, _) in names.items():
            kind = pairs.get("desc", pairs.get("label"))
            same = {k: v for k, v in pairs.items() if k not in ("desc", "label")}
            core = {k: v for k, v in bold.items() if k != "desc"}
            brain = kind in ("desc-brain", "label-brain") and other_suffix == "mask"
            if brain and same == core and ".nii" in other:
                mask = other
            if kind == "desc-confounds" and other.endswith(
                ("_timeseries.tsv", "_regressors.tsv")
            ):
                core = {k: v for k, v in core.items() if k not in ("space", "res")}
                if same == core:
                    confounds = other
        triples.add((path, mask, confounds))
    return triples


def as_triples(runs):
    return {
        (
            str(run.path),
            run.mask_path and str(run.mask_path),
            run.confounds_path and str(run.confounds_path),
        )
        for run in runs
    }


# BOLD runs, with a mask, with confounds: counted in the listings by hand.
COUNTS = {
    "ds000001-fmriprep-20.2.0rc0": (12, 12, 12),
    "ds000117-fmriprep-21.0.2": (54, 54, 54),
    # the acq-mb3 runs of this extract came without their confounds
    "ds003495-fmriprep-20.2.1": (12, 12, 8),
    "ds003752-fmriprep-23.2.0-minimal": (0, 0, 0),
    "ds004698-fmriprep-21.0.1": (48, 48, 48),
    "ds005239-fmriprep-23.2.0": (19, 19, 19),
    "ds005639-fmriprep-23.1.2": (10, 10, 10),
    # label-brain_mask, .nii, no confounds at all
    "synthetic-fmriprep": (60, 60, 0),
}


@needs_shared
@pytest.mark.parametrize("name", list(COUNTS))
def test_real_trees(name, real_tree):
    root = real_tree(name)
    assert find_derivative(root, None) == root
    participants = list_participants(root, [])
    runs = []
    for participant in participants:
        mine = find_runs(root, participant, Input())
        assert as_triples(mine) == oracle(root, participant)
        assert [r.relative_path for r in mine] == sorted(r.relative_path for r in mine)
        runs += mine
    n_masks = sum(run.mask_path is not None for run in runs)
    n_confounds = sum(run.confounds_path is not None for run in runs)
    assert (len(runs), n_masks, n_confounds) == COUNTS[name]
    # All have the repetition time in a sidecar, and none of them deserves a warning.
    assert all("RepetitionTime" in run.metadata for run in runs)
    assert not any(run.warnings for run in runs)


@needs_shared
@pytest.mark.parametrize(
    ("name", "n_participants"),
    [("ds000117-fmriprep-21.0.2", 3), ("ds004698-fmriprep-21.0.1", 2)],
)
def test_big_listings(name, n_participants, tmp_path):
    listing = SHARED / f"{name}_filelist.tsv.gz"
    lines = gzip.decompress(listing.read_bytes()).decode().splitlines()[1:]
    paths = [line.split("\t")[0] for line in lines]
    inside = [p for p in paths if p.startswith("sub-") and "/" in p]
    chosen = sorted({p[4:].split("/")[0] for p in inside})[-n_participants:]
    plant(tmp_path, *(p for p in inside if p[4:].split("/")[0] in chosen))
    assert list_participants(tmp_path, []) == chosen
    for participant in chosen:
        runs = find_runs(tmp_path, participant, Input())
        assert runs
        assert as_triples(runs) == oracle(tmp_path, participant)


@needs_shared
def test_minimal_level_is_explained(real_tree):
    root = real_tree("ds003752-fmriprep-23.2.0-minimal")
    error = explain_nothing(root, list_participants(root, []), Input())
    assert isinstance(error, MissingInput)
    assert "--level minimal writes no BOLD series" in str(error)


@needs_shared
def test_standard_space_absent_is_explained(real_tree):
    root = real_tree("ds005239-fmriprep-23.2.0")
    options = Input(space=("MNI152NLin2009cAsym",))
    assert find_runs(root, "dd", options) == []
    error = explain_nothing(root, ["dd"], options)
    assert isinstance(error, NothingFound)
    assert "there is space: T1w (19)" in str(error)
    assert "space T1w, not MNI152NLin2009cAsym" in str(error)


def test_run_record(tmp_path):
    name = "sub-01_ses-a_task-rest_run-01_space-T1w_cohort-1_hash-af3_desc-preproc"
    plant(tmp_path, f"{name}_bold.nii.gz")
    (run,) = find_runs(tmp_path, "sub-01", Input())
    assert run.relative_path == f"sub-01/ses-a/func/{name}_bold.nii.gz"
    # entities unknown to pybids survive, and so does the padding of run-01
    assert run.entities == tuple(tuple(pair.split("-")) for pair in name.split("_"))
    assert (run.participant, run.session, run.space) == ("01", "a", "T1w")
    assert (run.entity("cohort"), run.entity("echo")) == ("1", None)
    assert (run.mask_path, run.confounds_path, run.warnings) == (None, None, ())
    assert pickle.loads(pickle.dumps(run)) == run
    assert len({run, run}) == 1


def test_native_space_is_none(tmp_path):
    plant(tmp_path, "sub-01_task-rest_desc-preproc_bold.nii")
    (run,) = find_runs(tmp_path, "01", Input())
    assert run.space is None
    assert run.session is None


def test_only_func_of_this_participant(tmp_path):
    wanted = "sub-01_task-rest_desc-preproc_bold.nii.gz"
    plant(
        tmp_path,
        wanted,
        # a longer label that begins alike
        "sub-010_task-rest_desc-preproc_bold.nii.gz",
        # elsewhere below the participant, and elsewhere at all
        "sub-01/anat/sub-01_task-a_desc-preproc_bold.nii.gz",
        "sub-01/figures/sub-01_task-b_desc-preproc_bold.nii.gz",
        "sub-01/func/old/sub-01_task-c_desc-preproc_bold.nii.gz",
        "sourcedata/sub-01/func/sub-01_task-d_desc-preproc_bold.nii.gz",
        "sub-01/sourcedata/func/sub-01_task-e_desc-preproc_bold.nii.gz",
        "sub-01/func/.sub-01_task-f_desc-preproc_bold.nii.gz",
        # in the wrong folder: its outputs would carry another participant's name
        "sub-01/func/sub-02_task-rest_desc-preproc_bold.nii.gz",
        # not volumes, in both orders of hemi and space
        "sub-01_task-rest_hemi-L_space-fsaverage5_bold.func.gii",
        "sub-01_task-rest_space-fsaverage5_hemi-L_desc-preproc_bold.func.gii",
        "sub-01_task-rest_space-fsLR_den-91k_desc-preproc_bold.dtseries.nii",
        "sub-01_task-rest_desc-preproc_boldref.nii.gz",
        "sub-01_task-rest_desc-preproc_bold.json",
    )
    (run,) = find_runs(tmp_path, "01", Input())
    assert run.path.name == wanted


@pytest.mark.parametrize(
    "place", ["anat/sub-99", "a b#c%20", "derivatives/x", ".hidden"]
)
def test_where_the_dataset_lies_is_no_matter(tmp_path, place):
    # pybids takes entities from the absolute path: datatype anat, subject 99.
    root = plant(tmp_path / place, "sub-01_ses-1_task-rest_desc-preproc_bold.nii.gz")
    assert found(root) == ["ses-1_task-rest"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        '{"GeneratedBy": {"Name": "fMRIPrep"}}',
        '{"PipelineDescription": 1}',
    ],
)
def test_an_odd_description_does_not_stop_discovery(tmp_path, content):
    plant(tmp_path, "sub-01_task-rest_desc-preproc_bold.nii.gz")
    (tmp_path / "dataset_description.json").write_text(content)
    assert found(tmp_path) == ["task-rest"]


def test_links_and_missing_content(tmp_path):
    real = plant(
        tmp_path / "real", "sub-01/func/sub-01_task-b_desc-preproc_bold.nii.gz"
    )
    root = tmp_path / "root"
    root.mkdir()
    (root / "sub-01").symlink_to(real / "sub-01")
    broken = real / "sub-01" / "func" / "sub-01_task-a_desc-preproc_bold.nii.gz"
    broken.symlink_to("../../.git/annex/objects/gone")
    plant(root, "sub-02/x")
    (root / "sub-02" / "func").symlink_to(real / "sub-01" / "func")
    # listed; that there is nothing behind it is said where it is opened
    assert found(root) == ["task-a", "task-b"]
    assert all(run.path.is_relative_to(root) for run in find_runs(root, "01", Input()))


def test_participant_without_func(tmp_path):
    plant(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/ses-1/anat/x")
    assert find_runs(tmp_path, "01", Input()) == []
    assert find_runs(tmp_path, "02", Input()) == []
    with pytest.raises(MissingInput, match="no folder of this participant"):
        find_runs(tmp_path, "03", Input())


def test_participants_together_are_as_each_alone(tmp_path, monkeypatch):
    """One layout for several; who cannot be listed costs nobody else a thing."""
    good = [f"{n:03}" for n in range(1, 40)]
    for label in good:
        stem = f"sub-{label}_task-a"
        plant(
            tmp_path, f"{stem}_desc-preproc_bold.nii.gz", f"{stem}_desc-brain_mask.nii"
        )
    plant(tmp_path, "sub-010x/anat/x", "sub-011x/func/x_bold.nii")
    odd = tmp_path / "sub-020x" / "func"
    odd.mkdir(parents=True)
    (odd / os.fsdecode(b"sub-020x_task-\xff_desc-preproc_bold.nii.gz")).touch()
    labels = sorted([*good, "010x", "011x", "015gone", "020x"])
    layouts = []
    really = bids.layout.BIDSLayout
    monkeypatch.setattr(
        bids.layout, "BIDSLayout", lambda *a, **k: layouts.append(a) or really(*a, **k)
    )
    together = dict(find_runs_of(tmp_path, labels, Input()))
    assert list(together) == labels
    assert len(layouts) < len(labels) / 2
    for label in good:
        assert together[label] == find_runs(tmp_path, label, Input())
        assert len(together[label]) == 1
    assert together["010x"] == together["011x"] == []
    assert "no folder of this participant" in str(together["015gone"])
    assert "not text in UTF-8" in str(together["020x"])


def test_pybids_is_asked_once_about_the_same_names(tmp_path, monkeypatch):
    """Which dataset they are of, and what else lies there, is not in its answer."""
    name = "func/sub-01_task-a_desc-preproc_bold.nii"
    for place in ("one", "two"):
        plant(tmp_path / place / "sub-01", name)
    plant(tmp_path / "two/sub-01", "func/sub-01_task-a_desc-brain_mask.nii")
    plant(tmp_path / "three/sub-01", name, f"{name}.gz")
    layouts = []
    really = bids.layout.BIDSLayout
    monkeypatch.setattr(
        bids.layout, "BIDSLayout", lambda *a, **k: layouts.append(a) or really(*a, **k)
    )
    for place, n_series, n_layouts in (
        *[("one", 1, 1), ("two", 1, 1), ("three", 2, 2), ("one", 1, 2)],
    ):
        folder = tmp_path / place / "sub-01/func"
        ((label, files),) = index_series(tmp_path / place, ["01"], (".nii", ".nii.gz"))
        assert (label, len(layouts)) == ("01", n_layouts)
        assert files.series == sorted(folder.glob("*_bold.nii*"))
        assert len(files.series) == n_series
        assert files.all == sorted(folder.iterdir())
    ((_, files),) = index_series(tmp_path / "three", ["01"], (".nii.gz",))
    assert [path.suffix for path in files.series] == [".gz"]
    assert len(layouts) == 3


def test_series_of_odd_places_are_found_as_pybids_finds_them_there(tmp_path):
    """Together, links stand in for them; of a kept index, pybids walks the folder."""
    name = "sub-{}_task-a_desc-preproc_bold.nii"
    root = tmp_path / "in"
    for label in ("01", "02"):
        for place in ("ses-1/func", "ses-2/func", "func", "func/deeper", "anat"):
            folder = root / f"sub-{label}" / place
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name.format(label)).touch()
        folder = root / f"sub-{label}" / "func" / f"sub-{label}_task-b_bold.nii"
        folder.mkdir()
        (folder / f"sub-{label}_task-c_bold.nii").touch()
        (folder / "deeper").mkdir()
        (folder / "deeper" / f"sub-{label}_task-d_bold.nii").touch()
        (root / f"sub-{label}" / "func" / "sub-03_bold.nii").symlink_to("gone")
        (root / f"sub-{label}" / "func" / ".hidden_bold.nii").touch()
    kept = tmp_path / "kept"
    kept.mkdir()
    alone = list(index_series(root, ["01", "02"], [".nii"], kept))
    together = list(index_series(root, ["01", "02"], [".nii"]))
    assert together == alone
    for label, found in together:
        series = {path.relative_to(root).as_posix() for path in found.series}
        own = name.format(label)
        assert series >= {
            f"sub-{label}/{place}/{own}"
            for place in ("ses-1/func", "ses-2/func", "func")
        }
        assert len(series) == 4  # with the link to nothing, as the plan tells of it


def test_the_first_participant_comes_alone(tmp_path):
    """So that work begins before a second one is looked at."""
    plant(tmp_path, *(f"sub-{n}_desc-preproc_bold.nii" for n in "12"))
    asked = []
    labels = (asked.append(label) or label for label in "12")
    found = index_series(tmp_path, labels, [".nii"])
    assert next(found)[0] == "1"
    assert asked == ["1"]


def test_partners_and_sidecars_are_looked_at_once(tmp_path, monkeypatch):
    """What is done for a run does not grow with the runs of its participant."""
    calls = Counter()

    def count(runs):
        root = tmp_path / str(runs)
        for n in range(runs):
            stem = f"sub-01_task-a_run-{n}"
            plant(
                root, f"{stem}_desc-preproc_bold.nii", f"{stem}_desc-preproc_bold.json"
            )
            plant(
                root,
                f"{stem}_desc-brain_mask.nii",
                f"{stem}_desc-confounds_timeseries.tsv",
            )
        calls.clear()
        assert len(find_runs(root, "01", Input())) == runs
        return calls.total()

    for module, name in (
        (query_module, "parse_name"),
        (partners_module, "parse_name"),
    ):
        really = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda p, really=really: calls.update([1]) or really(p)
        )
    few, many = count(10), count(40)
    assert many <= 4 * few


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN, errno.ESTALE])
def test_a_disk_that_fails_is_not_an_empty_participant(tmp_path, monkeypatch, number):
    plant(tmp_path, *(f"sub-{n}_desc-preproc_bold.nii" for n in ("01", "02")))
    really = os.scandir

    def fail(path=".", *args):
        if str(path).endswith("sub-01"):
            raise OSError(number, os.strerror(number), str(path))
        return really(path, *args)

    monkeypatch.setattr(os, "scandir", fail)
    found = dict(find_runs_of(tmp_path, ["01", "02"], Input()))
    assert len(found["02"]) == 1
    assert os.strerror(number) in str(found["01"])
    assert "Check the disk or network" in str(found["01"])


def test_database_is_kept_and_never_stale(tmp_path):
    root = plant(tmp_path / "data", "sub-01_task-a_desc-preproc_bold.nii.gz")
    kept = tmp_path / "kept" / "index"
    assert found(root, bids_database_dir=kept) == ["task-a"]
    (first,) = kept.iterdir()
    stamp = (first / "layout_index.sqlite").stat().st_mtime_ns
    assert found(root, bids_database_dir=kept) == ["task-a"]
    assert (first / "layout_index.sqlite").stat().st_mtime_ns == stamp
    plant(root, "sub-01_task-b_desc-preproc_bold.nii.gz")
    os.utime(root / "sub-01" / "func", ns=(1, 1))  # coarse clocks of file systems
    assert found(root, bids_database_dir=kept) == ["task-a", "task-b"]
    assert len(list(kept.iterdir())) == 2


def test_participants_come_in_the_order_asked_for_whatever_is_closed(tmp_path):
    """Who plans them takes one after the other for those that were asked for."""
    people = [f"0{n}" for n in range(1, 7)]
    names = [f"sub-{p}_ses-1_task-a_desc-preproc_bold.nii.gz" for p in people]
    root = plant(tmp_path / "in", *names)
    for person in ("01", "02", "04", "05"):
        (root / f"sub-{person}" / "ses-9").symlink_to("/not/mounted")
    wanted = Input(bids_database_dir=tmp_path / "index")
    runs = list(find_runs_of(root, people, wanted))
    assert [person for person, _ in runs] == people
    assert [found[0].participant for _, found in runs] == people


def test_a_series_whose_name_begins_with_its_session_is_no_session(tmp_path):
    """It would be passed over without a word."""
    name = "sub-01/ses-1/func/ses-1_sub-01_task-a_desc-preproc_bold.nii"
    (run,) = find_runs(plant(tmp_path, name), "01", Input())
    assert (run.relative_path, run.is_session) == (name, False)


def test_database_inside_the_input(tmp_path):
    plant(tmp_path, "sub-01_task-a_desc-preproc_bold.nii.gz")
    with pytest.raises(UsageError, match="inside the input"):
        found(tmp_path, bids_database_dir=tmp_path / "index")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("content", ["", "garbage that is not SQLite" * 99])
def test_database_that_cannot_be_used(tmp_path, content):
    root = plant(tmp_path / "data", "sub-01_task-a_desc-preproc_bold.nii.gz")
    kept = tmp_path / "kept"
    kept.write_text("a file where a folder is needed")
    with pytest.raises(OutputError, match="cannot be kept or used"):
        found(root, bids_database_dir=kept)
    kept.unlink()
    found(root, bids_database_dir=kept)
    (file,) = kept.glob("*/layout_index.sqlite")
    file.write_text(content)
    with pytest.raises(OutputError, match=r"Delete it, or leave --bids-database-dir"):
        found(root, bids_database_dir=kept)


def test_nothing_is_written_into_the_input(tmp_path):
    dataset = plant(tmp_path / "data", "sub-01_task-a_desc-preproc_bold.nii.gz")

    def snapshot():
        paths = sorted([dataset, *dataset.rglob("*")])
        return [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]

    before = snapshot()
    find_derivative(dataset, None)
    list_participants(dataset, [])
    find_runs(dataset, "01", Input(bids_database_dir=tmp_path / "index"))
    explain_nothing(dataset, ["01"], Input(task_label=("x",)))
    assert snapshot() == before


def test_nothing_need_be_writable(tmp_path, monkeypatch):
    """As in a container with a read-only root and no /tmp."""
    plant_two = ("sub-01_task-rest_space-X", "sub-02_task-rest_space-X")
    for stem in plant_two:
        plant(tmp_path, f"{stem[:6]}/func/{stem}_desc-preproc_bold.nii.gz")
    expected = dict(find_runs_of(tmp_path, ["01", "02"], Input()))

    def refuse(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("bids_roi.dataset.layout.tempfile.TemporaryDirectory", refuse)
    assert dict(find_runs_of(tmp_path, ["01", "02"], Input())) == expected
    assert [len(runs) for runs in expected.values()] == [1, 1]
    # pybids cannot walk over a closed session, and is not asked to.
    for label in ("01", "02"):
        (tmp_path / f"sub-{label}" / "ses-9").symlink_to("nowhere")
    monkeypatch.setattr("bids_roi.dataset.layout._query", refuse)
    for label, (run, session) in find_runs_of(tmp_path, ["01", "02"], Input()):
        assert [run] == expected[label]
        assert session.is_session
