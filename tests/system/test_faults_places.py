"""Whole calls in odd places: full disks, links that lead out, closed streams."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support import datasets
from support.fault_tools import files_of, leftovers

import bids_roi
from bids_roi.cli import main
from bids_roi.errors import BidsRoiError
from bids_roi.files.matrices import read_matrix
from bids_roi.files.tables import (
    format_matrix,
    format_table,
    name_temporary,
    read_table,
)
from bids_roi.images.header import BOLD
from bids_roi.images.nifti import open_image
from bids_roi.outputs.records import write_records
from bids_roi.outputs.result import has_figures
from bids_roi.outputs.stack import StackedRun, StackPart, write_stack

RUN = f"sub-01_task-rest_space-{datasets.SPACE}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    base = tmp_path_factory.mktemp("places")
    root = datasets.write_dataset(base / "in", [])
    datasets.write_run(root, RUN, datasets.bold(0).astype(np.float32))
    datasets.write_atlas(base / "atlas")
    return base


class Done(NamedTuple):
    """How a call ended."""

    returncode: int
    stdout: str
    stderr: str


class Site:
    def __init__(self, folder, model, capsys):
        self.folder, self.root, self.out = folder, folder / "in", folder / "out"
        self.capsys = capsys
        shutil.copytree(model / "in", self.root)
        atlas = model / "atlas" / f"tpl-{datasets.SPACE}_atlas-Toy_dseg.nii.gz"
        pair = f"{atlas},{str(atlas).replace('.nii.gz', '.tsv')}"
        self.arguments = ["--atlas-file", pair, "--executor", "serial"]

    def words(self, *more, level="participant", report=False):
        arguments = [self.root, self.out, level, *more]
        if level == "participant":
            arguments += self.arguments
        arguments += [] if report else ["--no-report"]
        return [*map(str, arguments)]

    def run(self, *more, **how):
        """A call within this process."""
        code = main(self.words(*more, **how))
        return Done(code, *self.capsys.readouterr())

    def run_apart(self, shell="", **options):
        """A call whose streams, environment or folder are what is odd."""
        words = [sys.executable, "-m", "bids_roi", *self.words()]
        if shell:  # redirections, of which sh closes streams
            words = ["sh", "-c", f'exec "$@" {shell}', "sh", *words]
        return subprocess.run(
            words,
            **{"cwd": self.folder, **options},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def tables(self):
        return {k: v for k, v in files_of(self.out).items() if k.endswith(".tsv")}


@pytest.fixture
def site(tmp_path, model, capsys):
    return Site(tmp_path, model, capsys)


@pytest.mark.parametrize("name", ["sub-01/figures", "figures", "logs"])
def test_figures_and_ledgers_are_not_written_through_a_link(site, name):
    """A link that leads out, here into the input."""
    (site.root / "sub-01/figures").mkdir(exist_ok=True)
    before = sorted(site.root.rglob("*"))
    if name != "sub-01/figures":
        assert site.run().returncode == 0
        shutil.rmtree(site.out / name, ignore_errors=True)
    (site.out / name).parent.mkdir(parents=True, exist_ok=True)
    (site.out / name).symlink_to(site.root / "sub-01/figures")
    level = "participant" if name == "sub-01/figures" else "group"
    done = site.run(level=level, report=True)
    assert "is a link that leads out of the output folder" in done.stderr
    assert done.returncode == (73 if name == "logs" else 0)
    assert sorted(site.root.rglob("*")) == before


STREAMS = [
    *("2>&-", ">&-", "<&- >&- 2>&-", "<&-"),
    *("> /dev/full", "2> /dev/full", "> /dev/full 2> /dev/full"),
]


@pytest.mark.parametrize("shell", STREAMS)
def test_closed_and_full_streams_change_nothing_but_what_is_said(site, shell):
    done = site.run_apart(shell)
    assert done.returncode == 0, done.stderr
    assert len([name for name in site.tables() if "timeseries" in name]) == 1
    assert "fault of bids_roi" not in done.stderr
    if shell == "> /dev/full":
        assert "standard output cannot be written (No space left" in done.stderr


def test_streams_that_cannot_encode_a_path(site):
    site.out = site.folder / "out-🧠"
    done = site.run_apart(env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0, done.stderr
    assert "out-\\U0001f9e0" in done.stdout
    assert site.tables()


def test_a_root_file_of_other_bytes_stays_with_a_warning(site):
    site.out.mkdir()
    content = b"Donn\xe9es\n"
    names = ("README.md", ".bidsignore")
    for name in names:
        (site.out / name).write_bytes(content)
    done = site.run()
    assert done.returncode == 0, done.stderr
    for name in names:
        assert f"{name} is there with other content and stays as it is" in done.stderr
        assert (site.out / name).read_bytes() == content


def test_an_emptied_description_of_the_output_is_named(site):
    assert site.run().returncode == 0
    description = site.out / "dataset_description.json"
    content = description.read_bytes()
    description.write_bytes(b"")
    done = site.run()
    assert done.returncode == 73
    assert "dataset_description.json: the file is empty or damaged" in done.stderr
    description.unlink()
    assert site.run().returncode == 0
    assert description.read_bytes() == content


def test_leftovers_go_wherever_they_lie(site):
    assert site.run(report=True).returncode == 0
    process = subprocess.Popen(["true"])
    process.wait()
    name = name_temporary().replace(f"-{os.getpid()}-", f"-{process.pid}-")
    (site.out / "figures").mkdir(exist_ok=True)
    for folder in ("", "logs", "figures", "logs/sub-01", "sub-01/figures"):
        (site.out / folder / name).write_text("half")
    (site.out / "sub-01/func" / name).write_text("half")
    assert site.run(report=True).returncode == 0
    assert leftovers(site.out) == []
    for folder in ("", "logs", "figures"):
        (site.out / folder / name).write_text("half")
    assert site.run(level="group").returncode == 0
    assert leftovers(site.out) == []


DAMAGES = ["", '{"Figures": null}', '{"Figures": [{}]}', "[]", '{"Figures": [3]}', "{}"]


def test_a_damaged_list_of_figures_is_made_again(site):
    assert site.run(report=True).returncode == 0
    calm = files_of(site.out)
    (listed,) = site.out.glob("sub-01/figures/*_desc-report_dseg.json")
    (table,) = site.out.glob("sub-01/func/*_dseg.tsv")
    name = table.relative_to(site.out).as_posix()
    assert has_figures(site.out, [name])
    for damage in DAMAGES:
        listed.write_text(damage)
        assert not has_figures(site.out, [name])
    listed.write_text(DAMAGES[2])
    done = site.run(report=True)
    assert done.returncode == 0, done.stderr
    assert files_of(site.out) == calm


def test_a_pipe_for_events_without_a_reader_is_refused(site):
    pipe = site.folder / "pipe"
    os.mkfifo(pipe)
    done = site.run("--events", pipe)
    assert done.returncode == 73
    assert "has no reader" in done.stderr
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        time.sleep(0.2)
        done = site.run("--events", pipe)
        said = reader.communicate()[0]
    assert done.returncode == 0, done.stderr
    assert json.loads(said.splitlines()[-1])["status"] == "finished"


def test_a_current_folder_that_is_gone(site):
    gone = site.folder / "gone"
    gone.mkdir()
    site.out = Path("out")
    done = site.run_apart(cwd=gone, preexec_fn=gone.rmdir)
    assert done.returncode == 66
    assert "the current folder is not there any more" in done.stderr


def test_an_output_folder_that_is_removed_meanwhile_is_told(site, monkeypatch):
    def write(*arguments):
        write_records(*arguments)
        shutil.rmtree(site.out)

    with monkeypatch.context() as patch:
        patch.setattr("bids_roi.participant.run.write_records", write)
        done = site.run()
    assert done.returncode == 73, done.stderr
    assert "was removed while runs were processed" in done.stderr
    assert site.run().returncode == 0
    assert site.tables()


def _write_a_stack(path):
    rng = np.random.default_rng(0)
    edges = np.stack(np.triu_indices(50, 1), axis=1).astype(np.int32)
    parts = [StackPart("timeseries/mean", None, {}), StackPart("relmat/p", edges, {})]
    runs = (
        StackedRun(
            {"name": f"r{n}"},
            {
                "timeseries/mean": (f"t{n}", rng.normal(size=(200, 50))),
                "relmat/p": (f"m{n}", rng.normal(size=len(edges))),
            },
        )
        for n in range(12)
    )
    regions = {"index": list(range(50)), "name": [f"n{i}" for i in range(50)]}
    write_stack(path, runs, parts=parts, regions=regions, attributes={}, units={})


def _fill_disks(*disks):
    """For a process of its own, which a segmentation fault would end."""
    told = []
    for disk in map(Path, disks):
        try:
            _write_a_stack(disk / "s.h5")
            told.append((0, ""))
        except BidsRoiError as error:
            told.append((error.exit_code, str(error)))
    sys.stdout.write(json.dumps(told))


def test_a_stack_on_a_full_disk(tmp_path):
    whole = tmp_path / "whole.h5"
    _write_a_stack(whole)
    size = whole.stat().st_size
    tests = Path(__file__).parents[1]
    script = (
        f"import sys; sys.path[:0] = [{str(tests)!r}, {str(tests / 'system')!r}];"
        f"from test_faults_places import _fill_disks; _fill_disks(*sys.argv[1:])"
    )
    disks = []
    try:
        for share in (0.03, 0.3, 0.6, 0.9, 0.99):
            disk = tmp_path / f"disk{share}"
            disk.mkdir()
            mounted = subprocess.run(
                [
                    *("mount", "-t", "tmpfs", "-o"),
                    *(f"size={int(size * share) // 1024}k", "tmpfs", str(disk)),
                ],
                capture_output=True,
                text=True,
            )
            if mounted.returncode:
                pytest.skip(f"no file system can be mounted here: {mounted.stderr}")
            disks.append(disk)
        done = subprocess.run(
            [sys.executable, "-c", script, *disks], capture_output=True, text=True
        )
        there = [list(disk.iterdir()) for disk in disks]
    finally:
        for disk in disks:
            subprocess.run(["umount", str(disk)], check=True)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert [code for code, _ in told] == [73] * len(disks)
    assert all("No space left on device" in said for _, said in told)
    assert not any("\n" in said for _, said in told)
    assert there == [[]] * len(disks)


QUOTED = ['"Left V1"', '"Right V1" area', 'V1 "left"', '"', "plain", '""']


def test_quotes_in_names_survive_every_reader(tmp_path):
    import csv

    import pandas as pd

    table = tmp_path / "regions.tsv"
    table.write_text(format_table({"index": range(6), "name": QUOTED}))
    assert read_table(table)["name"] == QUOTED
    assert pd.read_csv(table, sep="\t")["name"].tolist() == QUOTED
    path = tmp_path / "matrix.tsv"
    values = np.arange(36.0).reshape(6, 6)
    lines = "".join(format_matrix(QUOTED, values, rows=QUOTED, corner="Node"))
    path.write_text(lines)
    names, found = read_matrix(path, nodes=True)
    assert list(names) == QUOTED
    assert (found == values).all()
    assert next(csv.reader(lines.splitlines(), delimiter="\t"))[1:] == QUOTED
    assert list(pd.read_csv(path, sep="\t", index_col=0).index) == QUOTED


def test_a_group_of_regions_with_quotes(site):
    atlas = site.folder / f"tpl-{datasets.SPACE}_atlas-Toy_dseg.nii.gz"
    pair = datasets.write_atlas(site.folder, atlas.name)
    table = Path(pair.partition(",")[2])
    rows = [f"{i}\t{csv}" for i, csv in zip(datasets.INDEX, WRITTEN, strict=True)]
    table.write_text("\n".join(["index\tname", *rows]) + "\n")
    site.arguments[1] = pair
    done = site.run("--relmat", "pearson")
    assert done.returncode == 0, done.stderr
    done = site.run(level="group")
    assert done.returncode == 0, done.stderr
    assert "unreadable" not in done.stdout
    names = list(bids_roi.load(site.out).timeseries().columns)
    assert names[0] == '"Left V1"'
    assert list(bids_roi.load(site.out).relmats().columns) == names


WRITTEN = ['"""Left V1"""', '"""Right"" V1"', 'Th "x"', "Edge", "Nowhere"]


def test_gzip_with_reserved_flags_and_bytes_after_its_end(site):
    (bold,) = site.root.rglob("*desc-preproc_bold.nii.gz")
    content = bold.read_bytes()
    assert open_image(bold, BOLD).source.n_volumes == 12
    for wrong, words in (
        (content[:3] + bytes([content[3] | 0x40]) + content[4:], "reserved flags"),
        (content + b"x", "come after the end of the gzip stream"),
        (content + b"\x1f", "come after the end of the gzip stream"),
        (content[:-1], "truncated"),
    ):
        bold.write_bytes(wrong)
        done = site.run()
        assert done.returncode == 1
        assert words in done.stderr
    bold.write_bytes(content)
    assert site.run().returncode == 0


def test_a_number_with_an_underscore_is_none(site):
    folder = site.root / "sub-01/func"
    table = folder / "sub-01_task-rest_desc-confounds_timeseries.tsv"
    rows = ["n/a", *["0.1"] * 10, "1_0"]
    table.write_text("\n".join(["framewise_displacement", *rows]) + "\n")
    done = site.run("--fd-threshold", "0.5")
    assert done.returncode == 1
    assert "framewise_displacement in row 13 is '1_0'" in done.stderr
