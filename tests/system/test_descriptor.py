"""boutiques.json: the same options as the command line, and valid for bosh."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bids_roi.descriptor import build_descriptor, descriptor_text
from bids_roi.errors import BidsRoiError
from bids_roi.options.table import LEVELS, OPTIONS
from bids_roi.version import __version__

ROOT = Path(__file__).parents[2]
BOUTIQUES_JSON = ROOT / "boutiques.json"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

POSITIONALS = {
    "bids_dir",
    "output_dir_name",
    "participant_level_analysis_dir",
    "analysis_level",
}

# One value for every kind of option; choices come first.
SAMPLES = {str: "word", int: 3, float: 0.25, Path: "some folder/file"}


def bosh(*arguments: object, home: Path) -> str:
    """Run bosh; it keeps a cache in HOME, so HOME is a folder of the test."""
    done = subprocess.run(
        [sys.executable, Path(sys.executable).with_name("bosh"), *arguments],
        capture_output=True,
        text=True,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
        cwd=home,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def simulate(invocation: dict, home: Path) -> list[str]:
    """Return the argv, less the program's name, that bosh makes of an invocation."""
    path = home / "invocation.json"
    path.write_text(json.dumps(invocation))
    printed = bosh("exec", "simulate", BOUTIQUES_JSON, "-i", path, home=home)
    (line,) = (s for s in printed.splitlines() if s.startswith("mkdir -p"))
    made, _, command = line.partition("; ")
    program, *argv = shlex.split(command)
    assert program == "bids_roi"
    assert shlex.split(made)[-1] == argv[1], "the folder made is the one written to"
    return argv


def sample(option):
    if option.kind is bool:
        return True
    value = option.choices[-1] if option.choices else SAMPLES[option.kind]
    return [value, value] if option.many else value


def test_file_is_what_the_table_says():
    """With the version of the release that is next, as it stands in the file."""
    text = BOUTIQUES_JSON.read_text(encoding="utf-8")
    assert text == descriptor_text(json.loads(text)["tool-version"]), (
        "boutiques.json is out of date; make it anew with .ci/generate"
    )


def flags_of_help(program):
    """Every long option that --help lists, in its own paragraph or beside others."""
    argv = [Path(sys.executable).with_name(program), "--help"]
    done = subprocess.run(
        argv, capture_output=True, text=True, env={"COLUMNS": "80", "PATH": "/bin"}
    )
    listed = re.findall(r"^  (-.*)$", done.stdout, re.MULTILINE)
    return {flag for line in listed for flag in re.findall(r"--[a-z][a-z0-9-]+", line)}


def test_help_lists_the_options_of_the_table():
    """And so those of the descriptor, which is made from the same table."""
    own = {"--help", "--version", "--bids-exec-spec"}
    inputs = {
        entry["command-line-flag"]
        for entry in build_descriptor()["inputs"]
        if "command-line-flag" in entry
    }
    table = {option.flags[0] for option in OPTIONS}
    assert table == inputs
    assert table | own <= flags_of_help("bids_roi")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_pages_have_options_that_exist(page):
    """Every line of a page that runs the app or its tools."""
    tools = re.findall(r'"(--[a-z-]+)"', (ROOT / "bids_roi" / "tools.py").read_text())
    known = {flag for option in OPTIONS for flag in option.flags} | set(tools)
    known |= {"--help", "--version", "--bids-exec-spec"}
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    named = []
    for line in re.findall(r"^(?:.*/)?bids_roi(?:_tools)? .*$", text, re.MULTILINE):
        named += re.findall(r" (--[a-z][a-z0-9-]+)", line)
    assert set(named) <= known


def test_one_input_per_option():
    inputs = [entry["id"] for entry in build_descriptor()["inputs"]]
    assert sorted(inputs) == sorted(POSITIONALS | {o.name for o in OPTIONS})


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_input_matches_option(option):
    inputs = {entry["id"]: entry for entry in build_descriptor()["inputs"]}
    entry = inputs[option.name]
    assert entry["command-line-flag"] == "--" + option.name.replace("_", "-")
    assert entry.get("list", False) is option.many
    assert entry.get("value-choices", []) == list(option.choices)
    assert (entry["type"] == "Flag") is (option.kind is bool)
    assert (entry["type"] == "Number") is (option.kind in (int, float))
    assert entry["optional"] is True
    assert entry["description"].endswith(".")
    assert "default-value" not in entry, "bosh would put it on every command line"


def test_folders_to_be_made_are_not_mounted():
    """Bosh refuses to mount a File that does not exist yet."""
    types = {entry["id"]: entry["type"] for entry in build_descriptor()["inputs"]}
    assert types["bids_database_dir"] == "String"
    assert types["derivatives"] == "File"


def test_levels_version_and_image():
    descriptor = build_descriptor()
    inputs = {entry["id"]: entry for entry in descriptor["inputs"]}
    assert inputs["analysis_level"]["value-choices"] == list(LEVELS)
    assert descriptor["tool-version"] == __version__
    assert descriptor["container-image"]["image"].endswith(f":{__version__}")


def test_every_exit_code_is_told():
    def kinds(kind):
        return {kind}.union(*(kinds(child) for child in kind.__subclasses__()))

    told = {entry["code"]: entry["description"] for entry in _codes()}
    ours = {k.exit_code for k in kinds(BidsRoiError) if k.__module__ == _ERRORS}
    assert set(told) == ours
    assert all(told.values())


_ERRORS = BidsRoiError.__module__


def _codes():
    return build_descriptor()["error-codes"]


def test_keys_do_not_contain_one_another():
    keys = {entry["value-key"] for entry in build_descriptor()["inputs"]}
    assert not [(a, b) for a in keys for b in keys if a != b and a in b]


def test_light_to_import():
    code = "import sys, bids_roi.descriptor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    heavy = {"numpy", "pandas", "scipy", "nibabel", "bids", "argparse"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("profile", [[], ["--bids"]], ids=["schema", "bids"])
def test_bosh_validate(profile, tmp_path):
    assert "OK" in bosh("validate", BOUTIQUES_JSON, *profile, home=tmp_path)


def test_simulated_participant_level(tmp_path):
    """Every option at once: bosh's command is what the parser reads."""
    from bids_roi.cli import build_parser

    given = {option.name: sample(option) for option in OPTIONS}
    places = {"bids_dir": "in put", "output_dir_name": "out put"}
    argv = simulate({**places, "analysis_level": "participant", **given}, tmp_path)

    assert argv[:3] == ["in put", "out put", "participant"]
    assert [word for word in argv if word.startswith("--")] == sorted(
        (option.flags[0] for option in OPTIONS), key=argv.index
    )
    parsed = vars(build_parser().parse_args(argv))
    for option in OPTIONS:
        value = parsed[option.name]
        found = list(value) if option.many else value
        expected = given[option.name]
        assert found == (Path(expected) if option.kind is Path else expected), option


def test_simulated_group_level(tmp_path):
    """Options that are not given leave nothing on the command line."""
    from bids_roi.cli import build_parser

    invocation = {
        "bids_dir": "in",
        "output_dir_name": "out",
        "analysis_level": "group",
        "dry_run": False,
        "session_label": ["ses-a", "b"],
    }
    argv = simulate(invocation, tmp_path)
    assert argv == ["in", "out", "group", "--session-label", "ses-a", "b"]
    assert build_parser().parse_args(argv).analysis_level == "group"


@pytest.mark.xfail(
    strict=False,
    reason="bosh 0.5.33 drops a key where the first input that has it is absent",
)
def test_simulated_group_level_with_a_folder(tmp_path):
    """The BIDS profile asks for this input; once it works the README can say so."""
    folder = {"bids_dir": "in", "participant_level_analysis_dir": "out"}
    argv = simulate({**folder, "analysis_level": "group"}, tmp_path)
    assert argv == ["in", "out", "group"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"analysis_level": "run"}, "'run' is not one of"),
        ({"output_dir_name": None}, "'required': .'participant_level_analysis_dir'"),
        ({"participant_level_analysis_dir": "b"}, "'b' should not be valid"),
    ],
    ids=["level", "no output", "two outputs"],
)
def test_bad_invocations_are_refused(change, message, tmp_path):
    good = {"bids_dir": "i", "output_dir_name": "o", "analysis_level": "participant"}
    bad = {k: v for k, v in (good | change).items() if v is not None}
    with pytest.raises(AssertionError, match=message):
        simulate(bad, tmp_path)
