"""The installed command: exit codes, messages, help; run as a user runs it."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from support import datasets
from support.calls import run
from support.validator import issues_of

from bids_roi.cli import build_parser, main, parse_arguments
from bids_roi.options.record import Options
from bids_roi.options.row import Option
from bids_roi.options.settings import SETTING_OPTIONS
from bids_roi.options.table import OPTIONS
from bids_roi.options.words import name_statistics
from bids_roi.tools import main as tools
from bids_roi.version import __version__


def test_version_and_help_need_no_positionals(app):
    assert app("--version").stdout.strip() == __version__
    shown = app("--help")
    assert shown.returncode == 0
    for option in OPTIONS:
        assert option.flags[0] in shown.stdout
    assert shown.stdout.startswith(
        "usage: bids_roi BIDS_DIR OUTPUT_DIR {participant,group} [options]\n"
    )
    assert "--participant-label LABEL ...\n" in shown.stdout
    assert "_label" not in shown.stdout, "one spelling of each"
    done = app("in", "out", "session")
    assert done.returncode == 17
    assert done.stderr.startswith("bids_roi: unknown analysis level 'session'")


# What is typed wrong, and all that is said of it.
SLIPS = {
    "--task rest": "there is no option --task. Nearest: --task-label.",
    "--atlass x": "there is no option --atlass. Nearest: --atlas.",
    "--denois=36P": "there is no option --denois. Nearest: --strategy.",
    "--zzzzzz": "there is no option --zzzzzz.",
    "--relmat pearsn": "argument --relmat: invalid choice 'pearsn'; nearest: pearson.",
    "--relmat pearson,partial": "argument --relmat: its values are separated by blanks:"
    " --relmat pearson partial.",
    "--atlas a,b": "argument --atlas: its values are separated by blanks: --atlas a b.",
    "--min-coverage x": "argument --min-coverage: invalid float value: 'x'.",
    "--task-label": "argument --task-label: expected at least one argument.",
}


@pytest.mark.parametrize("typed", SLIPS)
def test_slips_are_answered_with_what_was_meant(typed, capsys):
    said = run(capsys, "in", "out", "participant", *typed.split(), code=64).err
    assert said == f"bids_roi: {SLIPS[typed]} See bids_roi --help.\n"


@pytest.mark.parametrize(
    ("typed", "took"),
    [
        ("--participant-label 01 in out participant", "in out participant"),
        ("--space in out participant", "in out participant"),
        ("in out --atlas schaefer400 participant", "participant"),
        ("in --task-label a out participant --atlas b", "out participant"),
    ],
)
def test_options_that_take_the_folders_are_named(typed, took, capsys):
    said = run(capsys, *typed.split(), code=64).err
    flag = next(w for w in typed.split() if w.startswith("--"))
    assert f"; {flag} before them took {took}: put options last." in said
    assert "Usage: bids_roi BIDS_DIR OUTPUT_DIR {participant,group} [options]" in said


def test_choices_are_known_in_any_case():
    _, options = parse_arguments(["in", "out", "participant", "--relmat", "Pearson"])
    assert options.connectivity.relmat == ("pearson",)


def test_a_table_behind_a_blank_is_no_atlas(dataset, atlas, tmp_path, capsys):
    table = tmp_path / "a.tsv"
    table.write_text("index\tname\n1\ta\n")
    call = [dataset, tmp_path / "out", "participant", "--atlas-file"]
    alone = atlas.partition(",")[0]
    for image in (alone, f"{alone},"):
        said = run(capsys, *call, image, table, code=64).err
        assert "A table goes behind its image and a comma, without a blank:" in said
        assert f"--atlas-file {alone},{table}\n" in said


def test_table_of_options_is_the_record():
    defaults = Options()
    for option in OPTIONS:
        expected = tuple(option.default or ()) if option.many else option.default
        assert defaults.value(option) == expected, option.name
    fields = [o.name for o in OPTIONS if o not in SETTING_OPTIONS]
    slices = [item.default_factory for item in dataclasses.fields(Options)]
    held = [field.name for part in slices for field in dataclasses.fields(part)]
    assert sorted([*fields, "settings"]) == sorted(held)


# Options whose path is looked for, and what others have no effect without.
EXISTING = ("derivatives", "bids_filter_file", "aroma_dataset", "raw_dataset")
EXISTING += ("participants_file",)
CONDITIONS = {"relmat": ["pearson"], "conditions": ["a"]}
BESIDE = {
    "seed_radius": {"seeds": "seeds.tsv"},
    "conditions": {"relmat": ["pearson"]},
    "condition_shift": CONDITIONS,
    "raw_dataset": CONDITIONS,
    "relmat_seed": {"relmat": ["pearson"], "relmat_volumes": 100},
    "relmat_volumes": {"relmat": ["pearson"]},
    "participants_file": {"covariates": ["age"]},
    "permutation_seed": {"permutations": 1000},
}


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.kind is not bool])
def test_every_spelling_reaches_the_field(option: Option, tmp_path):
    value = option.choices[0] if option.choices else "1"
    special = {"mem_mb": "200", "surface": "template", "relmat_volumes": "100"}
    value = special.get(option.name, value)
    if option.name in EXISTING:
        value = str(tmp_path)
    for flag in option.flags:
        given = build_parser().parse_args(["in", "out", "participant", flag, value])
        values = {option.name: getattr(given, option.name)}
        if option.name.startswith(("dask_", "slurm_")):  # of one executor only
            values["executor"] = option.name.partition("_")[0]
        values = BESIDE.get(option.name, {}) | values
        options = Options.from_values(values)
        found = options.value(option)
        expected = option.kind(value)
        assert found == ((expected,) if option.many else expected)


def test_prefixes_are_stripped_and_repeats_removed():
    options = Options.from_values(
        {
            "participant_label": ["sub-01", "01", "02"],
            "session_label": ["ses-a"],
            "space": ["space-T1w"],
        }
    )
    assert options.input.participant_label == ("01", "02")
    assert options.input.session_label == ("a",)
    assert options.input.space == ("T1w",)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 64, "the following arguments are required"),
        (["in", "out", "session"], 17, "unknown analysis level 'session'"),
        (["in", "out", "participant", "--nope"], 64, "--nope"),
        (["in", "out", "participant", "--min-coverage", "2"], 64, "from 0 to 1"),
        (
            ["in", "out", "participant", "--repetition-time", "2000"],
            64,
            "divide by 1000",
        ),
        (["in", "out", "participant", "--statistic", "mode"], 64, "invalid choice"),
        (["in", "out", "participant", "--bids-filter-file", "no"], 64, "no such file"),
        (["/nowhere", "out", "participant"], 66, "/nowhere"),
        (["in", "/nowhere", "group"], 66, "participant level first"),
    ],
)
def test_exit_codes_and_messages(arguments, code, message, capsys):
    assert main(arguments) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert said.startswith("bids_roi: ")


def test_filters_that_select_nothing_explain_themselves(
    dataset, atlas, tmp_path, capsys
):
    out = tmp_path / "out"
    arguments = [dataset, out, "participant", "--atlas-file", atlas]
    said = run(capsys, *arguments, "--task-label", "rset", code=18).err
    for text in ("rset", "rest", "sub-01_task-rest"):
        assert text in said
    assert not [p for p in out.glob("sub-*/**/*") if p.is_file()]
    said = run(capsys, *arguments, "--participant-label", "sub-03", code=18).err
    assert "03" in said
    assert "01, 02" in said


def test_no_bold_at_all(tmp_path, atlas, capsys):
    root = datasets.write_dataset(tmp_path / "empty", [])
    (root / "sub-01" / "func").mkdir(parents=True)
    words = [root, tmp_path / "out", "participant", "--atlas-file", atlas]
    assert "no BOLD" in run(capsys, *words, code=66).err


def test_missing_description_is_a_warning_with_the_file_to_write(
    dataset, atlas, tmp_path, capsys
):
    (dataset / "dataset_description.json").unlink()
    words = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    said = run(capsys, *words).err
    assert "dataset_description.json" in said
    assert "DatasetType" in said


def test_repetition_time_flag_sidecar_header(dataset, atlas, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [dataset, out, "participant", "--atlas-file", atlas]
    said = run(capsys, *arguments, "--repetition-time", "1.5").err
    assert "1.5 s (flag), the sidecar says 2 s" in said
    name = next(out.glob("sub-01/func/*_timeseries.json"))
    assert json.loads(name.read_text())["RepetitionTime"] == 1.5
    for sidecar in dataset.glob("sub-*/func/*_bold.json"):
        sidecar.write_text('{"RepetitionTime": 2000}')
    said = run(capsys, *arguments, "--overwrite", code=1).err
    assert "2000 s (sidecar) is not plausible" in said


def test_default_atlas_without_a_home_says_what_to_do(
    dataset, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))  # where downloads are kept
    said = run(capsys, dataset, tmp_path / "out", "participant", code=66).err
    assert "Schaefer2018_seg-7n_scale-400" in said
    assert "--templateflow-home" in said
    assert "--atlas-file" in said


def test_quiet_says_nothing_and_logs_have_no_bar(dataset, atlas, tmp_path, app, capfd):
    arguments = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    done = app(*arguments, "-q")
    assert (done.stdout, done.stderr) == ("", "")
    shown = run(capfd, *arguments, "--overwrite")
    assert "\r" not in shown.err
    assert "2 runs of 2 participants" in shown.out


def test_bar_on_a_terminal(dataset, atlas, tmp_path):
    """A pseudo-terminal as standard error gets the bar."""
    leader, follower = os.openpty()
    termios.tcsetwinsize(follower, (24, 80))  # a new one has no columns at all
    done = subprocess.Popen(
        [
            *(sys.executable, "-m", "bids_roi", dataset, tmp_path / "out"),
            *("participant", "--atlas-file", atlas, "--no-report"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal
        while part := os.read(leader, 4096):
            shown += part
    os.close(leader)
    assert done.wait(60) == 0
    assert re.search(r"of 2 runs: .*\d+%.*\[.*B/s", shown.decode()), shown


def test_filter_file_with_sections(dataset, atlas, tmp_path, capsys):
    datasets.write_run(dataset, f"sub-01_task-rest_acq-x_space-{datasets.SPACE}")
    filters = tmp_path / "filters.json"
    filters.write_text(json.dumps({"bold": {"acquisition": None}, "t1w": {"x": 1}}))
    code = main(
        [
            *(str(dataset), str(tmp_path / "out"), "participant", "--dry-run"),
            *("--atlas-file", atlas, "--bids-filter-file", str(filters)),
        ]
    )
    shown = capsys.readouterr().out
    assert code == 0
    assert "acq-x" not in shown
    assert "sub-02" in shown


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("bids_roi {root} {out} participant {atlas} --dry-run", 0),
        ("bids_roi {root} {out} participant {atlas} --executor serial", 74),
        ("bids_roi_tools inputs {root} {atlas}", 0),
    ],
)
def test_a_reader_that_is_gone_is_no_fault(
    command, code, dataset, atlas, tmp_path, capsys, monkeypatch
):
    """As ``| head`` is, which has seen what it wanted."""
    given = {"root": dataset, "out": tmp_path / "out"}
    words = command.format(**given, atlas=f"--atlas-file {atlas}")
    program, *arguments = words.split()
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        found = {"bids_roi": main, "bids_roi_tools": tools}[program](arguments)
        gone.write("more")  # Python flushes what is left at its end
    assert found == code
    assert "roken pipe" not in capsys.readouterr().err


def test_statistics_of_the_contract():
    nilearns = [
        "mean",
        "median",
        "sum",
        "minimum",
        "maximum",
        "standard_deviation",
        "variance",
    ]
    assert list(name_statistics(of="labels")[:7]) == nilearns


def test_installed_demo_command_runs_and_validates(demo_call, capsys):
    folder, said = demo_call
    assert "14 runs of 6 participants" in said
    # Both levels end with what they made, and how long it took; words, no codes.
    out = folder / "derivatives"
    assert f"  report {out / 'sub-01.html'}, and 5 more\n" in said
    assert f"  report {out / 'group.html'}\n  took " in said
    assert re.search(r"\n14 runs of 6 participants, atlas Demo, in \d+ (s|min)\n", said)
    place = "task rest, space MNI152NLin2009cAsym, res 2, atlas Demo"
    for what in ("raw signals", "strategy 36P"):
        group = f"  {place}, pearson, {what}: 6 participants, 12 runs; QC-FC median |r|"
        assert group in said
    named = re.findall(r"^  \S.*?(/\S+\.(?:tsv|html))$", said, re.MULTILINE)
    assert len(set(named)) == 6
    assert all(Path(name).is_file() for name in named)
    assert issues_of(out, "error", "warning") == []
    assert issues_of(folder / "dataset/fmriprep", "error") == []
    assert tools(["demo", str(folder)]) == 73
    assert "not empty" in capsys.readouterr().err


def test_work_dir_holds_temporary_files_of_the_call_only(dataset, atlas, tmp_path):
    """Where the system's own folder cannot be written, and nothing stays in ours."""
    work, out = tmp_path / "work" / "deep", tmp_path / "out"
    command = [sys.executable, "-m", "bids_roi", str(dataset), str(out), "participant"]
    command += ["--atlas-file", atlas, "-w", str(work), "--n-procs", "2"]
    environment = {**os.environ, "TMPDIR": "/proc/nothing", "HOME": "/proc/nothing"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (out / "sub-01.html").exists()
    assert list(work.iterdir()) == []


def test_work_dir_that_cannot_be_made(dataset, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    work = str(tmp_path / "file" / "work")
    assert main([str(dataset), str(tmp_path), "participant", "-w", work]) == 73
    assert "--work-dir" in capsys.readouterr().err


def test_verbose_says_what_is_found_chosen_and_why(dataset, atlas, tmp_path, capsys):
    """The same as --dry-run; -vv adds what is made, and times."""
    call = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    call += ["--executor", "serial", "--no-report"]
    plan = run(capsys, *call, "--dry-run").out.partition("\n\n")[2].splitlines()
    plan = [line for line in plan if "->" not in line]
    assert len(plan) > 12
    told = run(capsys, *call, "-v").err.splitlines()
    said = [line.partition(" INFO ")[2] for line in told if " INFO " in line]
    ends = [line for line in said if ": extracted, " in line]
    assert [line for line in said if line not in ends] == plan
    assert len(ends) == 2
    assert re.fullmatch(r"sub-01/.*_bold.nii.gz: extracted, [\d.]+ s, \d+ MB", ends[0])
    most = run(capsys, *call, "--overwrite", "-vv").err
    day = r"bids_roi: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} DEBUG"
    tables = re.findall(rf"{day}     (sub-0\S+\.tsv)\n", most)
    assert len(tables) == 4
    assert all((tmp_path / "out" / table).is_file() for table in tables)
    assert " INFO " not in run(capsys, *call).err


def test_the_source_of_the_repetition_time_is_told(dataset, atlas, tmp_path, capsys):
    call = [dataset, tmp_path / "out", "participant", "--atlas-file", atlas]
    call += ["--dry-run", "--participant-label", "01"]

    def told(*more):
        shown = run(capsys, *call, *more).out
        return re.search(r"repetition time  (.*)", shown)[1]

    (own,) = dataset.glob("sub-01/**/*_desc-preproc_bold.json")
    content = json.loads(own.read_text())
    seconds = content.pop("RepetitionTime")
    name = own.relative_to(dataset)
    assert told() == f"{seconds:g} s (RepetitionTime in {name})"
    assert told("--repetition-time", "1.5") == "1.5 s (--repetition-time)"
    own.write_text(json.dumps(content))
    (dataset / "task-rest_bold.json").write_text('{"RepetitionTime": 1.25}')
    assert told() == "1.25 s (RepetitionTime in task-rest_bold.json)"


def test_the_reader_of_a_plan_may_leave(dataset, atlas, tmp_path):
    argv = f"{sys.executable} -m bids_roi {dataset} {tmp_path / 'out'} participant"
    script = f"set -o pipefail; {argv} --dry-run --atlas-file {atlas} | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2 runs (")
