"""What README.md and the pages say is run, or at least held against the code.

Every block of bash, Python and R is run as it stands, section by section (README.md as
a whole), in a folder that holds the files the pages take for granted
(``doc_workshop``). Only ``--executor serial --no-report`` is put into commands that are
not about executors or reports: it changes no table, and saves two thirds of the time.
Those of executors are the installed ones; all else is forked (``forked_app``).
"""

import argparse
import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
from support.doc_blocks import PAGES, ROOT, all_blocks, flags_in
from support.doc_workshop import open_bench, write_workshop
from support.forked_app import forked_app
from support.once import make_once

from bids_roi import cli, tools
from bids_roi.confounds.strategies import load_strategy
from bids_roi.options.table import OPTIONS

BLOCKS = all_blocks()
BIN = Path(sys.executable).parent
RUN = ("bash", "python", "r")
SHOWN = ("text", "json", "yaml")
INTERPRETERS = {
    "bash": ["bash", "-euo", "pipefail", "-c"],
    "python": [sys.executable, "-SE", "run_python"],
    "r": ["Rscript", "--vanilla", "-e"],
}
# Long flags of other programs that the pages name.
FOREIGN = {"--user", "--rm", "--read-only", "--network", "--cleanenv", "--containall"}
FOREIGN |= {"--bind", "--array", "--mem", "--cpus-per-task", "--time", "--partition"}
FOREIGN |= {
    "--statistics",
    "--strict",
    "--sweep",
    "--quick",
    "--rounds",
    "--writable-tmpfs",
    "--wrap",
}
FOREIGN |= {"--use-aroma", "--output-spaces", "--check", "--report"}
FOREIGN |= {"--resume", "--depth", "--volume", "--output", "--parsable", "--dependency"}


def sections():
    """Blocks to run, by page and section, in order."""
    for (page, section), blocks in groupby(to_run(), key=_place):
        name = f"{page.stem}: {section}".replace("... ", "")
        yield pytest.param(list(blocks), id=name)


def to_run():
    return [b for b in BLOCKS if b.language in RUN and not b.kind]


def _only(blocks, language):
    return [block.text for block in blocks if block.language == language]


def _place(block):
    return block.page, "all" if block.page == PAGES[0] else block.section


@pytest.fixture(scope="session")
def workshop(demo, tmp_path_factory):
    """One for all workers, as nothing in it is written."""

    def make(folder):
        return write_workshop(folder, demo)

    return make_once(tmp_path_factory, "workshop", make)


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """Folders of the commands in one process, by whether reports are drawn."""
    base = tmp_path_factory.mktemp("commands")
    serial = ("--executor", "serial")
    with forked_app(base) as put:
        yield {
            True: put(base / "drawn", *serial),
            False: put(base / "bare", *serial, "--no-report"),
        }


@pytest.fixture(scope="session")
def run_blocks(workshop, commands):
    """Run blocks in a folder; what each said."""

    def run(blocks, bench):
        folder = commands["report" in blocks[0].section]
        programs = f"{folder}:{BIN}"
        if any(word in blocks[0].section for word in ("Processes", "Dask")):
            programs = f"{BIN}:{programs}"
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(bench.parent),
            "TEMPLATEFLOW_HOME": str(workshop / "templateflow"),
        }
        for block in blocks:
            if missing_for(block):
                continue
            words = [*INTERPRETERS[block.language], block.text]
            if block.language == "python":
                words[2] = folder / words[2]
            done = subprocess.run(
                words,
                cwd=bench,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
            )
            said = f"{block.where}\n{block.text}\n{done.stdout}{done.stderr}"
            assert done.returncode == 0, said
            assert "Traceback" not in said
            yield said

    return run


@pytest.fixture(scope="session")
def run_alone(workshop, run_blocks, tmp_path_factory):
    """Run a section in a folder of its own, once for all workers; the folder."""

    def run(blocks):
        def make(folder):
            shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
            folder.mkdir()
            bench = open_bench(workshop, folder / "bench")
            list(run_blocks(blocks, bench))
            return bench

        page, section = _place(blocks[0])
        name = re.sub(r"\W+", "-", f"{page.parent.name}-{page.stem}-{section}")
        return make_once(tmp_path_factory, name, make)

    return run


@pytest.mark.parametrize("blocks", list(sections()))
def test_section_runs(blocks, run_alone):
    run_alone(blocks)
    if unavailable := "".join({missing_for(block) for block in blocks}):
        pytest.skip(unavailable)


def test_recipes_can_be_followed_in_order(workshop, run_blocks, run_alone, tmp_path):
    """In one folder: what one recipe leaves there is in no other one's way.

    A recipe that neither writes nor names what those before it left is not run again:
    what it wrote alone is put there. What is not named is not met, as ``forked_app``
    lets nothing list the folder; what of Bash would, is run again.
    """
    bench = open_bench(workshop, tmp_path / "bench")
    given, again = names_in(workshop), 0
    for (page, _), blocks in groupby(to_run(), key=_place):
        if page.name != "recipes.md":
            continue
        blocks = list(blocks)
        alone = run_alone(blocks)
        own = names_in(alone) - given
        # What is given is what it was: what a recipe put in its place, later ones met.
        assert all((alone / name).is_symlink() for name in given), alone
        text = re.sub(r"\s#.*", "", "\n".join(b.text for b in blocks))
        named = set(re.findall(r"[\w.-]+", text))
        listed = re.search(r"\*|\b(ls|find)\b", "".join(_only(blocks, "bash")))
        if listed or (own | named) & (names_in(bench) - given):
            for said in run_blocks(blocks, bench):
                assert "were made with other options" not in said
            again += 1
            continue
        for name in own:
            if (alone / name).is_dir():
                shutil.copytree(alone / name, bench / name)
            else:
                shutil.copy2(alone / name, bench / name)
    assert again > 5
    assert not list(bench.glob("*.py")), "a block of Python might import it"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("import colorsys", 0),
        ("import os; os.listdir('a')", 0),
        ("import os; os.listdir()", 1),
        ("import warnings; warnings.warn('x')", 1),
        ("absent", 1),
        ("import os; list(os.scandir('a'))", 0),
        ("import os; list(os.scandir())", 1),
        ("from pathlib import Path; list(Path().glob('a*'))", 1),
        ("import glob; glob.glob('a*')", 1),
    ],
)
def test_forked_python_is_python_that_lists_no_folder_of_its_caller(
    text, code, commands, tmp_path
):
    (tmp_path / "a").mkdir()
    words = [sys.executable, "-SE", commands[False] / "run_python", text]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_modules_that_blocks_use_are_imported():
    """By the block itself, or by the library: where it is run, more is imported."""
    scripts = set()
    for text in _only(to_run(), "python"):
        nodes = list(ast.walk(ast.parse(text)))
        imports = [node for node in nodes if isinstance(node, ast.Import)]
        names = {a.asname or a.name: a.name for node in imports for a in node.names}
        for node in nodes:
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in names:
                whole = f"{names[ast.unparse(node.value)]}.{node.attr}"
                if importlib.util.find_spec(whole):
                    lines = [*map(ast.unparse, imports), ast.unparse(node)]
                    scripts.add("\n".join(lines))
    assert scripts, "numpy.linalg, if no other"
    for script in scripts:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True)
        assert done.returncode == 0, f"{script}\n{done.stderr.decode()}"


def missing_for(block):
    """What a block of R needs and this machine lacks."""
    if block.language != "r":
        return ""
    if shutil.which("Rscript") is None:
        return "R is not installed: its blocks are not run"
    wanted = re.findall(r"library\((\w+)\)", block.text)
    code = ";".join(f"library({name})" for name in wanted) or "1"
    done = subprocess.run(["Rscript", "-e", code], capture_output=True)
    return f"R lacks one of {wanted}" if done.returncode else ""


def test_no_block_is_left_out():
    """Each is run, shown only, run by another suite, or says why not."""
    for block in BLOCKS:
        assert block.language in (*RUN, *SHOWN), f"{block.where}: {block.language!r}"
        if block.language in SHOWN:
            assert not block.kind, f"{block.where}: nothing to run"
        if block.kind == "not run":
            assert len(block.said) > 15, f"{block.where}: give the reason"
    counted = [b for b in BLOCKS if b.language in RUN]
    run = [b for b in counted if not b.kind]
    assert len(run) > len(counted) / 2, "most blocks are run here"


def test_blocks_that_others_run_are_run():
    """Every named command of a page is asked for by .ci/run or by a test."""
    asked = (ROOT / ".ci" / "run").read_text()
    names = set(re.findall(r"from_readme (\w[\w-]*)", asked))
    for path in (ROOT / "tests").rglob("test_*.py"):
        calls = r'(?:readme_command|documented(?:_command)?)\(\s*"([\w-]+)"'
        names |= set(re.findall(calls, path.read_text()))
        scripts = re.findall(r'run_script\(\s*"([\w-]+)"', path.read_text())
        asked += "".join(f"\n.ci/{name}\n" for name in scripts)
    for block in BLOCKS:
        if block.kind == "command" and f"\n{block.text.split()[0]}\n" not in asked:
            assert block.said in names, f"{block.where}: nothing runs {block.said!r}"


def test_containers_in_the_readme_are_those_that_are_tested():
    """The suites run the commands of docs/containers.md; README.md has the same."""
    tested = {b.said: b.text for b in BLOCKS if b.page.stem == "containers"}
    shown = [b for b in BLOCKS if b.page == PAGES[0] and b.kind == "command"]
    shown = {b.said: b.text for b in shown}
    assert {"docker", "apptainer", "slurm"} <= set(shown)
    for name in set(shown) - {"demo", "test"}:
        assert shown[name] == tested[name], name


def known_flags():
    ours = {flag for option in OPTIONS for flag in option.flags}
    parsers = [cli.build_parser(), tools.build_parser()]
    for parser in parsers:
        for action in parser._actions:
            ours |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return ours


def test_flags_of_blocks_exist():
    known = known_flags()
    for block in BLOCKS:
        if block.language in ("bash", "yaml"):
            wrong = set(flags_in(block.text)) - known
            assert not wrong, f"{block.where}: {wrong}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_flags_in_the_text_exist(page):
    known = known_flags() | FOREIGN
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    if page.stem == "coming-from":  # only the first columns are ours
        text = "\n".join(re.findall(r"^\| ([^|]*)\|", text, re.MULTILINE))
    wrong = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) - known
    assert not wrong, f"{page.name} names {wrong}"


def test_json_blocks_are_json_and_strategies_are_strategies(tmp_path):
    found = 0
    for block in BLOCKS:
        if block.language == "json":
            content = json.loads(block.text)
            if "components" in content:
                path = tmp_path / "strategy.json"
                path.write_text(block.text)
                assert load_strategy(path).name == content["name"]
                found += 1
    assert found


def test_the_parser_of_blocks():
    """Of three commands in one script, the flags of ours alone."""
    script = (
        "docker run --rm bids_roi:0.1.0 /data /out participant \\\n  --atlas x\n"
        "sbatch --array=1-3 job.sh\nbids_roi_tools fetch x --dest y  # --no\n"
    )
    assert flags_in(script) == ["--atlas", "--dest"]
