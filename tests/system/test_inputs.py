"""bids_roi_tools inputs: its list, held against the files that the app opens."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import datasets
from support.forked_app import forked_app
from support.moved_trees import write_moved
from support.trees import SHARED, needs_shared, plant, unpack

from bids_roi.dataset.layout import find_runs
from bids_roi.dataset.partners import Sidecars
from bids_roi.dataset.query import list_participants
from bids_roi.options.row import Input
from bids_roi.participant.description import files_of_run
from bids_roi.tools import main

SPACE = datasets.SPACE
OPENED = re.compile(r"openat\(.*\) = \d+<(/.*)>$")


# The processes of a server are traced, each in a file of its own.
STRACE = ["strace", "-D", "-f", "-ff", "-y", "-qq", "--seccomp-bpf"]
STRACE += ["-e", "trace=openat", "-e", "signal=none"]


def can_trace():
    if shutil.which("strace") is None:
        return False
    return subprocess.run([*STRACE, "true"], capture_output=True).returncode == 0


needs_strace = pytest.mark.skipif(not can_trace(), reason="strace cannot be used here")


@pytest.fixture
def listed(capfdbinary):
    """Paths that the tool lists, exit code and messages."""

    def run(*arguments, end=b"\n"):
        code = main(["inputs", *map(str, arguments)])
        captured = capfdbinary.readouterr()
        names = captured.out.decode().split(end.decode())
        assert names.pop() == ""
        return code, names, captured.err.decode()

    return run


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Folder of the app, and of what its calls open, by the system's word."""
    folder = tmp_path_factory.mktemp("traced")
    with forked_app(folder, under=[*STRACE, "-o", folder / "trace"]) as put_commands:
        put_commands(folder / "bin")
        yield folder


@pytest.fixture
def opened(traced):
    """Files below a folder that a call of the app opens."""

    def run(root, *arguments):
        before = set(traced.glob("trace.*"))
        # By Python's name, as nothing may be executed in some temporary folders.
        argv = [sys.executable, "-SE", traced / "bin" / "bids_roi", *arguments]
        done = subprocess.run([*map(str, argv)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = set()
        for trace in set(traced.glob("trace.*")) - before:
            for line in trace.read_text().splitlines():
                if (match := OPENED.search(line)) and "O_DIRECTORY" not in line:
                    path = Path(match[1])
                    if path.is_relative_to(root) and path.is_file():
                        found.add(path.relative_to(root).as_posix())
        return found

    return run


def write_rich(root):
    """A derivative with more than a run needs: spaces, inheritance, other files."""
    runs = [
        "sub-01_ses-a_task-rest_run-1",
        "sub-01_ses-b_task-nback",
        "sub-02_task-rest",
    ]
    datasets.write_dataset(root, runs)
    datasets.write_run(root, "sub-01_ses-a_task-rest_run-1_space-T1w")
    (root / "task-rest_bold.json").write_text('{"TaskName": "rest"}')
    (root / "task-nback_bold.json").write_text('{"TaskName": "nback"}')
    (root / "sub-02" / "sub-02_bold.json").write_text('{"Manufacturer": "x"}')
    for bold in root.rglob("*_desc-preproc_bold.nii.gz"):
        stem = re.sub(r"_space-.*", "", bold.name)
        bold.with_name(f"{stem}_desc-confounds_timeseries.tsv").write_text(
            "framewise_displacement\n" + "0.1\n" * 12
        )
        bold.with_name(f"{stem}_desc-confounds_timeseries.json").write_text("{}")
        bold.with_name(f"{stem}_boldref.nii.gz").write_bytes(b"not needed")
        bold.with_name(f"{stem}_desc-coreg_boldref.json").write_text("{}")
    anat = root / "sub-01" / "anat"
    anat.mkdir()
    (anat / "sub-01_from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.h5").touch()
    datasets.write_image(
        anat / "sub-01_desc-aparcaseg_dseg.nii.gz",
        datasets.labels(),
        datasets.oblique(),
    )
    rows = "".join(f"{i}\tregion{i}\n" for i in datasets.INDEX)
    (root / "desc-aparcaseg_dseg.tsv").write_text("index\tname\n" + rows)
    (root / "desc-aseg_dseg.tsv").write_text("index\tname\n" + rows)
    return root


@needs_strace
@pytest.mark.parametrize(
    "given",
    [
        ["--space", SPACE],
        ["--space", SPACE, "--participant-label", "02"],
        ["--space", SPACE, "--session-label", "b", "--task-label", "nback"],
        ["--space", SPACE, "--mask", "none"],
        ["--space", "T1w", "--atlas", "subject:aparcaseg"],
    ],
    ids=lambda given: " ".join(given),
)
def test_what_is_listed_is_what_is_opened(given, listed, opened, tmp_path):
    root = write_rich(tmp_path / "in")
    atlas = datasets.write_atlas(tmp_path / "atlas")
    more = [] if "--atlas" in given else ["--atlas-file", atlas]
    code, names, told = listed(root, *given)
    assert (code, told) == (0, "")
    assert len(names) == len(set(names))
    arguments = [root, tmp_path / "out", "participant", *given, *more]
    arguments += ["--executor", "serial"]
    assert set(names) == opened(root, *arguments)
    assert any("bold.nii.gz" in name for name in names)


@needs_strace
def test_transforms_are_listed_where_they_are_used(listed, opened, tmp_path):
    root = write_moved(tmp_path / "in")
    atlas = datasets.write_atlas(tmp_path / "atlas")
    given = ["--space", "T1w", "native"]
    code, names, told = listed(root, *given, "--atlas-file", atlas)
    assert (code, told) == (0, "")
    arguments = [root, tmp_path / "out", "participant", *given, "--atlas-file", atlas]
    arguments += ["--executor", "serial"]
    assert set(names) == opened(root, *arguments)
    assert sum("xfm" in name for name in names) == 2
    _, names, _ = listed(root, "--atlas-file", atlas)  # nothing is moved unasked
    assert not any("xfm" in name for name in names)


@needs_strace
def test_of_a_raw_dataset_paths_begin_with_its_derivative(listed, opened, tmp_path):
    raw = tmp_path / "raw"
    write_rich(raw / "derivatives" / "fmriprep")
    (raw / "dataset_description.json").write_text(
        '{"Name": "raw", "DatasetType": "raw"}'
    )
    atlas = datasets.write_atlas(tmp_path / "atlas")
    given = ["--participant-label", "02"]
    _, names, _ = listed(raw, *given)
    arguments = [raw, tmp_path / "out", "participant", *given, "--atlas-file", atlas]
    assert set(names) == opened(raw, *arguments)
    assert "derivatives/fmriprep/dataset_description.json" in names


def test_names_are_enough(listed, tmp_path):
    """Links to content that is not here, pointers, empty files: the same list."""
    root = write_rich(tmp_path / "in")
    _, names, _ = listed(root)
    assert len(names) == len(set(names)) > 10
    for number, path in enumerate(sorted(p for p in root.rglob("*") if p.is_file())):
        path.unlink()
        if number % 3 == 0:
            path.symlink_to(f"../.git/annex/objects/xx/{path.name}")
        else:
            pointer = b"/annex/objects/MD5E-s1--0\n"
            path.write_bytes(pointer if number % 3 == 1 else b"")
    code, again, _ = listed(root)
    assert (code, sorted(again)) == (0, sorted(names))


def test_null_ends_each_path(listed, tmp_path):
    root = datasets.write_dataset(tmp_path / "in")
    assert listed(root, "-z", end=b"\0")[1] == listed(root)[1]
    assert listed(root, "--null", end=b"\0") == listed(root, "-z", end=b"\0")


def test_segmentations_and_their_table_may_be_elsewhere_too(listed, tmp_path):
    root = write_rich(tmp_path / "in")
    given = [root, "--space", "T1w", "--atlas", "subject:aparcaseg"]
    _, names, _ = listed(*given)
    assert "desc-aparcaseg_dseg.tsv" in names
    for name in names:
        (root / name).unlink()
        (root / name).symlink_to("nowhere")
    assert sorted(listed(*given)[1]) == sorted(names)


def test_a_run_that_cannot_be_told_is_told(listed, tmp_path):
    root = datasets.write_dataset(tmp_path / "in")
    mask = next(root.rglob("sub-01*desc-brain_mask.nii.gz"))
    shutil.copy(mask, mask.with_name(mask.name.removesuffix(".gz")))
    code, names, told = listed(root)
    assert code == 1
    assert "2 files could be its mask" in told
    assert any("sub-02" in name and "mask" in name for name in names)


def test_nothing_selected_is_an_error(listed, tmp_path):
    root = datasets.write_dataset(tmp_path / "in")
    code, names, told = listed(root, "--task-label", "other")
    assert (code, names) == (18, [])
    assert "task other" in told


def test_atlas_files_on_request(listed, tmp_path):
    root = datasets.write_dataset(tmp_path / "in")
    image, table = datasets.write_atlas(tmp_path / "atlas").split(",")
    other = tmp_path / "tpl-Other_atlas-Toy_dseg.nii.gz"
    shutil.copy(image, other)
    given = ["--atlas-file", f"{image},{table}", str(other)]
    code, names, _ = listed(root, *given, "--atlas-files")
    assert (code, names) == (0, [image, table])


@needs_shared
@pytest.mark.parametrize(
    "name", ["ds000117-fmriprep-21.0.2", "ds005639-fmriprep-23.1.2"]
)
def test_surfaces_of_real_trees(name, tmp_path):
    """Both hemispheres, and the sidecars that tell the repetition time."""
    root = unpack(f"{name}_tree.tar.gz", tmp_path)
    n_pairs = 0
    for participant in list_participants(root, []):
        runs = find_runs(root, participant, Input(), ("gifti",))
        for run in runs:
            files = list(files_of_run(run, Sidecars(root)))
            sides = [p.name for p in files if p.name.endswith("_bold.func.gii")]
            assert len(sides) == 2
            assert sides[0].replace("hemi-L", "hemi-R") == sides[1]
            told = [
                json.loads(p.read_text() or "{}")
                for p in files
                if p.suffix == ".json" and "_bold" in p.name
            ]
            assert any("RepetitionTime" in content for content in told)
            n_pairs += 1
    assert n_pairs
    assert SHARED.is_dir()


def test_other_participants_are_not_opened(tmp_path):
    """Count what is listed and opened, by Python's own audit events."""
    names = [f"sub-{i:02}_task-a_desc-preproc_bold" for i in range(1, 6)]
    plant(tmp_path, *(n + ".nii.gz" for n in names), *(n + ".json" for n in names))
    code = f"""
import sys
seen = []
def hook(event, args):
    if event in ("open", "os.scandir", "os.listdir"):
        seen.append(str(args[0]))
sys.addaudithook(hook)
from pathlib import Path
from bids_roi.dataset.layout import find_runs
from bids_roi.options.row import Input
assert len(find_runs(Path({str(tmp_path)!r}), "03", Input())) == 1
print("\\n".join(p for p in seen if p.startswith({str(tmp_path)!r})))
"""
    touched = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert touched
    assert not [p for p in touched if "sub-" in p and "sub-03" not in p]
