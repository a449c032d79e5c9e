"""Hostile names and content: refused or made harmless; no traceback and no hang."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from support import datasets
from support.calls import STEM, run
from support.fault_tools import files_of

from bids_roi.atlases.names import key_of_file, parse_atlas_name
from bids_roi.atlases.regions import build_regions, parse_table, read_raw_table
from bids_roi.confounds.strategies import load_strategy
from bids_roi.confounds.table import read_confounds
from bids_roi.dataset.partners import Sidecars
from bids_roi.dataset.query import dataset_around, load_filters
from bids_roi.errors import AtlasError, BidsRoiError, DataError, ImageError, UsageError
from bids_roi.files.tables import (
    format_matrix,
    format_table,
    name_temporary,
    read_json,
    read_table,
    remove_leftovers,
    write_file,
)
from bids_roi.images.header import BOLD
from bids_roi.images.nifti import open_image, read_labels, write_image

ODD = ["a b", "ré", "a+b", "$(touch x)", "`x`", "<b>", "'\"", "%s{0}", "-rf", "\u202e"]


def test_runs_with_odd_labels_have_outputs_of_their_own(tmp_path, atlas, capsys):
    root = datasets.write_dataset(tmp_path / "in", [])
    for label in ODD:
        datasets.write_run(root, f"sub-01_task-{label}_space-{datasets.SPACE}")
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas)
    names = {path.name for path in (out / "sub-01/func").glob("*_timeseries.tsv")}
    stem = f"_space-{datasets.SPACE}_atlas-Toy_stat-mean_timeseries.tsv"
    assert names == {f"sub-01_task-{label}{stem}" for label in ODD}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["atlas", "in", "out"]


def test_names_that_are_no_text_are_told(tmp_path, atlas, app):
    """Bytes of another encoding in a file name, and of a folder."""
    root = datasets.write_dataset(tmp_path / "in", ["sub-01_task-rest"])
    bold = next((root / "sub-01/func").glob("*bold.nii.gz"))
    bold.with_name(bold.name.replace("rest", os.fsdecode(b"r\xe9st"))).hardlink_to(bold)
    (root / os.fsdecode(b"sub-\xe9") / "func").mkdir(parents=True)
    done = app(root, tmp_path / "out", "participant", "--atlas-file", atlas)
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert done.returncode == 65
    # The name alone: pybids reads empty files of these names in a temporary folder.
    told = r"sub-01: the name of a file in it is not text in UTF-8 \('sub-01_task-r\\"
    assert re.search(told, done.stderr), done.stderr


PATHS = ["../../x", "/etc/passwd", "a/../../b", "..", "x\0y", "%2e%2e/x", "a\nb", "~/x"]


@pytest.mark.parametrize("text", PATHS)
def test_paths_are_no_names(text, tmp_path):
    with pytest.raises(UsageError, match="is not the name of an atlas"):
        parse_atlas_name(text)
    with pytest.raises(BidsRoiError):
        load_strategy(text)
    file = tmp_path / "f.json"
    file.write_text(json.dumps({"bold": {"task": text, "session": [text]}}))
    assert not any(rule.accepts("rest") for rule in load_filters(file)["bold"])
    file.write_text(json.dumps({text: {}}))
    with pytest.raises(UsageError, match="unknown section"):
        load_filters(file)
    file.write_text(json.dumps({"name": "n", "label": text, "components": []}))
    with pytest.raises(BidsRoiError, match="label: letters and digits"):
        load_strategy(file)


def test_names_of_atlas_files_become_labels():
    key = key_of_file("/x/scale-1 0\t0_atlas-<i>T<_dseg.nii.gz")
    assert key.name == "iT_scale-100"
    assert key_of_file("seg-a$ b_scale-1;0_atlas-A B_dseg.nii").name == (
        "AB_seg-ab_scale-10"
    )


INJECTED = [
    "V1\t666",
    "V2\n9\tV9",
    'V3"',
    "'V4'",
    "=1+1",
    "+x",
    "-x",
    "@x",
    "V5\x0b\x85",
]
INJECTED += ["<script>alert(1)</script>", "\x1b[31mred", "V6\u2028V6", "V7\ufeff"]


def test_names_of_regions_cannot_break_a_table(tmp_path, capsys):
    """Tabs and line ends become blanks; a formula stays what it is, a name."""
    image = tmp_path / f"tpl-{datasets.SPACE}_atlas-Toy_dseg.nii.gz"
    values = np.arange(1, len(INJECTED) + 1)
    volume = np.zeros(datasets.SHAPE, np.int16)
    volume.flat[: values.size * 8] = np.repeat(values, 8)
    write_image(image, volume, datasets.oblique())
    table = tmp_path / "names.tsv"
    cells = ['"' + name.replace('"', '""') + '"' for name in INJECTED]
    rows = [f"{v}\t{c}\t{c}" for v, c in zip(values, cells, strict=True)]
    table.write_text("\n".join(["index\tname\tnote", *rows]) + "\n", newline="")
    root = datasets.write_dataset(tmp_path / "in")
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", f"{image},{table}")
    written = sorted(out.rglob("*.tsv"))
    assert len(written) == 5
    for path in written:
        text = path.read_text()
        lines = text.splitlines()  # also at U+2028 and its kind
        assert lines == text.removesuffix("\n").split("\n")
        assert len({line.count("\t") for line in lines}) == 1
        assert all(line.replace("\t", "").isprintable() for line in lines)
        read_table(path)
    header = next(out.rglob("*_timeseries.tsv")).read_text().split("\n")[0]
    assert "=1+1" in header.split("\t")


def test_formatters_keep_every_cell_in_its_place():
    text = format_table({"a\tb": ["x\ty", "\n"], "c": ["\r\n", "z"]})
    assert text == "a b\tc\nx y\tn/a\nn/a\tz\n"
    assert next(format_matrix(["a\nb"], np.zeros((1, 1)))) == "a b\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_tables_of_every_editor(encoding, ends, tmp_path):
    path = tmp_path / "t.tsv"
    path.write_bytes(ends.join(["index\tname", "1\tV1", ""]).encode(encoding))
    assert read_table(path) == {"index": ["1"], "name": ["V1"]}
    assert read_raw_table(path).name == ("V1",)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_tables_in_another_encoding_say_so(encoding, tmp_path):
    path = tmp_path / "t.tsv"
    path.write_bytes("index\tname\n1\tGyrus précentral\n".encode(encoding))
    for reader in (read_table, read_raw_table, read_confounds):
        with pytest.raises(DataError, match=r"not text in UTF-8\. Save it as UTF-8"):
            reader(path)


def test_a_quote_that_is_never_closed_swallows_no_rows(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('index\tname\n1\t"V1\n2\tV2\n')
    for reader in (read_table, read_raw_table):
        with pytest.raises(DataError, match=r"cannot be read \(unexpected end"):
            reader(path)


JSONS = {
    "deep": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "too deeply nested"),
    "deeper than is written": ('{"a": ' + "[" * 200 + "]" * 200 + "}", "64 levels"),
    "another encoding": ('{"a": "\udcff"}', "not UTF-8"),
    "two": ("{} {}", "not JSON .line 1, column 4"),
    "a list": ("[1]", "a list where a JSON object is needed"),
}


@pytest.mark.parametrize("name", JSONS)
def test_json_that_is_refused(name, tmp_path):
    text, message = JSONS[name]
    path = tmp_path / "sub-01_bold.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=message):
        read_json(path)
    metadata, (warning,) = Sidecars(tmp_path).read(tmp_path / "sub-01_bold.nii.gz")
    assert metadata == {}
    assert "sidecar ignored" in warning


def test_numbers_that_no_double_holds_are_none(tmp_path):
    path = tmp_path / "x.json"
    digits = "9" * 5000
    path.write_text(f'{{"a": [NaN, -Infinity, 1e999, {digits}, 7], "b": {10**30}}}')
    assert read_json(path) == {"a": [None, None, None, None, 7], "b": 1e30}


def test_hostile_sidecars_are_written_again_as_json(tmp_path, atlas, capsys):
    root = datasets.write_dataset(tmp_path / "in", [])
    sidecar = {
        "StartTime": float("nan"),
        "TaskName": "\ud800 <b>\n",
        "DelayTime": 10**40,
    }
    path = datasets.write_run(root, STEM, SliceTimingCorrected=[[1]], **sidecar)
    odd = {"Name": "\ud800", "Authors": {"a": 1}, "GeneratedBy": ["x", None, 3]}
    (root / "dataset_description.json").write_text(json.dumps(odd))
    assert path.exists()
    out = tmp_path / "out"
    run(capsys, root, out, "participant", "--atlas-file", atlas)
    for file in out.rglob("*.json"):
        json.loads(file.read_text("utf-8"), parse_constant=pytest.fail)


@pytest.mark.parametrize("value", [10**400, -(10**30), 1e-300, "2", [2], True, None])
def test_repetition_times_of_any_kind(value, tmp_path, atlas, capsys):
    root = datasets.write_dataset(tmp_path / "in", [])
    datasets.write_run(root, STEM, RepetitionTime=value)
    arguments = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    implausible = isinstance(value, float) or value == -(10**30)
    said = run(capsys, *arguments, code=1 if implausible else 0)
    assert implausible == ("is not plausible" in said.err)


def test_pipes_and_devices_are_no_files(tmp_path):
    pipe = tmp_path / "x.json"
    os.mkfifo(pipe)
    endless = tmp_path / "y.tsv"
    endless.symlink_to("/dev/zero")
    for reader, path in ((read_json, pipe), (read_table, endless)):
        with pytest.raises(DataError, match="no file but a pipe or a device"):
            reader(path)
    for read in (lambda path: open_image(path, BOLD), read_labels):
        with pytest.raises(BidsRoiError, match="no such file"):
            read(pipe)


def test_links_out_of_the_tree_are_read_as_datalad_needs(tmp_path, atlas, capsys):
    root = datasets.write_dataset(tmp_path / "in", ["sub-01_task-rest"])
    store = tmp_path / "annex"
    store.mkdir()
    for number, path in enumerate(sorted(root.rglob("*.nii.gz"))):
        path.rename(store / f"key{number}")
        path.symlink_to(store / f"key{number}")
    before = datasets.snapshot(store)
    run(capsys, root, tmp_path / "out", "participant", "--atlas-file", atlas)
    assert datasets.snapshot(store) == before


@pytest.mark.parametrize("aim", ["itself", "nothing"])
@pytest.mark.parametrize(
    "place", ["", "sub-01", "sub-01/func", "sub-01/figures", "logs", "logs/sub-01"]
)
def test_a_link_that_leads_nowhere_in_the_output_is_told(
    place, aim, tmp_path, atlas, capsys
):
    root = datasets.write_dataset(tmp_path / "in", ["sub-01_task-rest"])
    out = tmp_path / "out"
    link = out / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(link.name if aim == "itself" else tmp_path / "nothing")
    code = {"sub-01/figures": None, "sub-01": 1, "sub-01/func": 1}.get(place, 73)
    given = [root, out, "participant", "--atlas-file", atlas]
    said = run(capsys, *given, report=True, code=code)
    assert str(link) in said.err
    assert "link" in said.err.replace(str(tmp_path), "")
    assert "unexpected" not in said.err
    assert "RuntimeError" not in said.err
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("link", ["sub-01", "sub-01/func", "logs", "logs/sub-01"])
@pytest.mark.parametrize("target", ["in", "elsewhere"])
def test_nothing_is_written_through_a_link(link, target, tmp_path, atlas, capsys):
    root = datasets.write_dataset(tmp_path / "in", ["sub-01_task-rest"])
    out, there = tmp_path / "out", tmp_path / target
    (there / "sub-01/func").mkdir(parents=True, exist_ok=True)
    (out / link).parent.mkdir(parents=True)
    aim = {"sub-01": there / "sub-01", "sub-01/func": there / "sub-01/func"}
    (out / link).symlink_to(aim.get(link, there))
    before = datasets.snapshot(there)
    arguments = [root, out, "participant", "--atlas-file", atlas]
    code = 73 if link.startswith("logs") else 1
    said = run(capsys, *arguments, code=code)
    assert "a link that leads out of the output folder" in said.err
    assert "Remove the link" in said.err
    assert datasets.snapshot(there) == before


def test_link_in_place_of_a_file_is_replaced_not_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("one.tsv", "gone.tsv"):
        (tmp_path / name).symlink_to(victim if name == "one.tsv" else tmp_path / "no")
        write_file(tmp_path, name, "new")
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == "new"
    assert victim.read_text() == "precious"
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("place", "code"),
    [
        (".", 73),
        ("out", 73),
        ("sub-01", 73),
        ("derivatives/fmriprep", 73),
        ("derivatives/fmriprep/out", 73),
        ("derivatives/bids_roi", 0),
        ("../out", 0),
    ],
)
def test_output_folders_in_and_around_the_input(place, code, tmp_path, atlas, capsys):
    raw = tmp_path / "raw"
    (raw / "sub-01").mkdir(parents=True)
    description = {"Name": "R", "BIDSVersion": "1.8.0", "DatasetType": "raw"}
    (raw / "dataset_description.json").write_text(json.dumps(description))
    datasets.write_dataset(raw / "derivatives/fmriprep", ["sub-01_task-rest"])
    before = files_of(raw)
    arguments = [raw, raw / place, "participant", "--atlas-file", atlas]
    said = run(capsys, *arguments, code=code)
    if code:
        assert files_of(raw) == before
        assert "Choose a folder beside it" in said.err
    else:
        run(capsys, *arguments)  # its own output folder is no foreign dataset
        assert {k: v for k, v in files_of(raw).items() if k in before} == before


def test_datasets_around_a_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/dataset_description.json").write_text("{broken")
    assert dataset_around(tmp_path / "a") == tmp_path / "a"
    assert dataset_around(tmp_path / "a/code/x") == tmp_path / "a"
    assert dataset_around(tmp_path / "a/derivatives/x/y") is None
    assert dataset_around(tmp_path / "b") is None


def test_names_as_long_as_a_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 251 + ".tsv")
    write_file(path.parent, path.name, "whole")
    assert path.read_text() == "whole"


def test_half_written_files_are_removed_when_their_writer_is_gone(tmp_path):
    write_file(tmp_path, "x.tsv", "x")
    alive = name_temporary()
    parts = alive.split("-")
    dead = "-".join([*parts[:2], "999999999", parts[3]])
    elsewhere = "-".join([parts[0], "00000000", *parts[2:]])
    old = elsewhere.replace("-00000000-", "-11111111-")
    other = ".bids_roi-notes.tmp"
    for name in (alive, dead, elsewhere, old, other):
        (tmp_path / name).write_text("half")
    os.utime(tmp_path / old, (0, 0))
    remove_leftovers(tmp_path)
    kept = {"x.tsv", alive, elsewhere, other}
    assert {path.name for path in tmp_path.iterdir()} == kept
    remove_leftovers(tmp_path / "absent")


def test_a_writer_that_nobody_has_asked_for_is_gone(tmp_path):
    """As where what runs first in a container never asks for orphans."""
    parts = name_temporary().split("-")
    with subprocess.Popen([sys.executable, "-c", ""]) as writer:
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
        os.kill(writer.pid, 0)  # still in the list of processes
        left = tmp_path / "-".join([*parts[:2], str(writer.pid), parts[3]])
        left.write_text("half")
        remove_leftovers(tmp_path)
        assert not left.exists()


# What fuzzing found, each by its name.


# Five seconds of the processor, whoever else is at work; the kernel counts. What takes
# time by the square of the length takes minutes.
PARSE = """
import contextlib, resource, sys
from pathlib import Path
from bids_roi.atlases.regions import parse_table
from bids_roi.errors import BidsRoiError
resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
with contextlib.suppress(BidsRoiError):
    parse_table(sys.stdin.read(), Path(sys.argv[1]))
print("parsed")
"""


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".xml", "<?xml?>" + "<label index='1'>" * 60_000),
        (".xml", "<?xml?>" + "<label" * 200_000),
        (".xml", "<?xml?><label index='1'>" + "&lol;" * 200_000 + "</label>"),
        (".txt", "1 a" + " " * 60_000 + "b\x0b"),
        (".txt", "1" + "," * 60_000),
        (".txt", "1 a 1" + " 1" * 60_000),
    ],
)
def test_region_tables_take_time_in_proportion_to_their_length(suffix, text):
    done = subprocess.run(
        [sys.executable, "-c", PARSE, f"t{suffix}"],
        input=text,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "parsed\n", (done.returncode, done.stderr)


def test_entities_of_xml_are_not_expanded():
    text = (
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">'
        '<!ENTITY c SYSTEM "file:///etc/passwd">]>'
        '<atlas><type>Label</type><label index="1">&b;&c;</label></atlas>'
    )
    assert parse_table(text, Path("t.xml")).name == ("&b;&c;",)


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".tsv", f"index\tname\n{'9' * 400}\tV1\n"),
        (".tsv", "index\tname\n1e300\tV1\n"),
        (".txt", f"{'9' * 5000} V1\n"),
        (".txt", f"{'9' * 5000} V1 1 1 1 0\n"),
        (".xml", f"<?xml?><label index='{'9' * 5000}'>V1</label>"),
    ],
)
def test_label_values_beyond_all_integers_are_refused(suffix, text):
    try:
        table, _ = build_regions(parse_table(text, Path(f"t{suffix}")))
    except AtlasError:
        return
    assert table.values.size == 1  # a line that begins with no number is a name


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(np.uint64, 2**63 + 1), (np.float64, 1e300), (np.int64, -(2**62))],
)
def test_label_images_beyond_all_integers_are_refused(dtype, value, tmp_path):
    path = tmp_path / "x.nii.gz"
    image = nb.Nifti1Image(np.full((3, 3, 3), value, dtype), np.eye(4), dtype=dtype)
    image.set_sform(np.eye(4), 1)
    nb.save(image, path)
    with pytest.raises(DataError, match="label values go from"):
        read_labels(path)


def test_unknown_unit_of_time_is_no_repetition_time(tmp_path):
    path = tmp_path / "x_bold.nii"
    write_image(path, np.zeros((3, 3, 3, 4), np.int16), np.eye(4), repetition_time=2)
    content = bytearray(path.read_bytes())
    content[123] = 128
    path.write_bytes(content)
    assert open_image(path, BOLD).header.repetition_time is None


def test_control_characters_do_not_reach_a_terminal():
    error = ImageError("\x1b[2Jgone", where="a\nbids_roi: all is well", remedy="\x07")
    assert str(error) == "a\\nbids_roi: all is well: \\x1b[2Jgone \\x07"
