"""The CI runs scripts of this repository, all of them there and all of them run."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / ".circleci" / "config.yml").read_text(encoding="utf-8"))
SCRIPTS = sorted(p for p in (ROOT / ".ci").iterdir() if not p.suffix)


def runs():
    """Every run command of the configuration, with the job it stands in."""
    for job, body in CONFIG["jobs"].items():
        for step in body["steps"]:
            if isinstance(step, dict) and "run" in step:
                run = step["run"]
                yield job, run if isinstance(run, str) else run["command"]


def workflow():
    """Jobs of the workflow: name, job it is an instance of, its settings."""
    (jobs,) = (w["jobs"] for n, w in CONFIG["workflows"].items() if n != "version")
    for entry in jobs:
        ((job, settings),) = entry.items()
        yield settings.get("name", job), job, settings


def test_every_job_is_in_the_workflow():
    assert {job for _, job, _ in workflow()} == set(CONFIG["jobs"])


def test_requirements_are_earlier_jobs():
    """Which also makes every job reachable: there is no cycle."""
    seen = set()
    for name, _, settings in workflow():
        assert set(settings.get("requires", [])) <= seen, name
        seen.add(name)


def test_parameters_are_given_and_declared():
    for name, job, settings in workflow():
        declared = set(CONFIG["jobs"][job].get("parameters", {}))
        given = set(settings) - {"name", "requires", "filters", "context"}
        assert given == declared, name


def test_all_before_a_release_run_for_tags():
    jobs = {name: settings for name, _, settings in workflow()}
    released = [name for name in jobs if name.startswith("deploy")]
    assert released == ["deploy-image", "deploy-package"]
    for deploy in released:
        needed = [deploy]
        for name in needed:
            assert jobs[name]["filters"]["tags"]["only"], name
            needed += jobs[name].get("requires", [])
        assert set(needed) | set(released) == set(jobs), "a release waits for every job"
        filters = jobs[deploy]["filters"]
        assert filters["branches"]["ignore"] == "/.*/"
        assert filters["tags"]["only"] == "/^v[0-9].*/"
        assert jobs[deploy]["context"], "where its passwords are"


def test_stages_are_in_order():
    """Lint, tests, builds, the container's tests, validation, release."""
    order = ["lint", "test", "build", "container-test", "validate", "deploy"]
    stages = [
        next(n for n, stage in enumerate(order) if job.startswith(stage))
        for _, job, _ in workflow()
    ]
    assert stages == sorted(stages)
    assert set(stages) == set(range(len(order)))


def test_what_a_job_attaches_an_earlier_one_has_kept():
    """Files below build/ come from another machine or do not exist."""
    kept = {}
    for job, body in CONFIG["jobs"].items():
        for step in body["steps"]:
            if isinstance(step, dict) and "persist_to_workspace" in step:
                assert step["persist_to_workspace"]["root"] == "build"
                for path in step["persist_to_workspace"]["paths"]:
                    kept[path] = job
    needs = {name: settings.get("requires", []) for name, _, settings in workflow()}
    for job, command in runs():
        for path in re.findall(r"build/([a-z-]+)", command):
            maker = kept[path]
            before = list(needs[job])
            for name in before:
                before += needs[name]
            assert maker == job or maker in before, (job, path)
            attached = [
                s for s in CONFIG["jobs"][job]["steps"] if "attach_workspace" in s
            ]
            assert maker == job or attached == [{"attach_workspace": {"at": "build"}}]


@pytest.mark.parametrize(("job", "command"), list(runs()))
def test_commands_are_scripts_of_the_repository(job, command):
    script, *arguments = shlex.split(re.sub(r"<<.*?>>", "parameter", command))
    assert ROOT / script in SCRIPTS
    usage = re.findall(
        rf"^#   {script}(.*)$", (ROOT / script).read_text(), re.MULTILINE
    )
    most = max(
        (len(re.findall(r"[A-Z]{2,}|oldest", words)) for words in usage), default=0
    )
    assert len(arguments) <= most, f"{script} says {usage}"


def test_every_setting_of_a_command_is_one_that_its_script_reads():
    settings = [
        (step["run"]["command"], name)
        for body in CONFIG["jobs"].values()
        for step in body["steps"]
        if isinstance(step, dict) and isinstance(step.get("run"), dict)
        for name in step["run"].get("environment", {})
    ]
    assert "BASE" in {name for _, name in settings}, "the base can be pinned"
    for command, name in settings:
        assert f"${{{name}" in (ROOT / shlex.split(command)[0]).read_text()


def test_oldest_and_newest_python():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (oldest,) = re.findall(r'requires-python = ">=([\d.]+)"', pyproject)
    newest = re.findall(r"Python :: (3\.\d+)", pyproject)[-1]
    tests = {s["libraries"]: s["image"] for _, job, s in workflow() if job == "test"}
    assert tests == {
        "oldest": "<< pipeline.parameters.oldest >>",
        "ci": "<< pipeline.parameters.newest >>",
    }
    assert CONFIG["parameters"]["oldest"]["default"] == f"cimg/python:{oldest}"
    assert CONFIG["parameters"]["newest"]["default"] == f"cimg/python:{newest}"


def test_every_image_can_be_pinned_by_its_digest():
    for job, body in CONFIG["jobs"].items():
        for one in body.get("docker", []):
            name = re.fullmatch(r"<< (pipeline\.)?parameters\.(\w+) >>", one["image"])
            assert name, f"{job}: {one['image']} is no parameter"
            declared = CONFIG if name[1] else body
            assert declared["parameters"][name[2]]["type"] == "string"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_run(script):
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n# "), "a shebang, and what it is for"
    assert 'source "$(dirname "$0")/common.sh"' in text, "it sets -euo pipefail"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


README = """\
<!-- command: demo -->
```bash
echo one &&
  echo two
```
<!-- command: bare -->
Words.
```bash
echo three
```
"""


def readme_command(name, *file):
    argv = [ROOT / ".ci" / "readme-command", name, *file]
    return subprocess.run(argv, capture_output=True, text=True)


def test_readme_command(tmp_path):
    file = tmp_path / "README.md"
    file.write_text(README)
    assert readme_command("demo", file).stdout == "echo one &&\n  echo two\n"


@pytest.mark.parametrize("name", ["bare", "absent"])
def test_readme_command_missing(name, tmp_path):
    file = tmp_path / "README.md"
    file.write_text(README)
    done = readme_command(name, file)
    assert done.returncode == 1
    assert f"no fenced block after a line <!-- command: {name} -->" in done.stderr


@pytest.mark.parametrize("name", ["demo", "test"])
def test_readme_has_the_commands_that_ci_runs(name):
    assert readme_command(name).stdout.startswith("python3 -m venv .venv && ")


def test_hooks_before_a_commit_are_programs_of_the_project():
    """None is fetched from elsewhere, and lint runs the same ones later."""
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    lint = (ROOT / ".ci" / "lint").read_text(encoding="utf-8")
    for repository in yaml.safe_load(text)["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            assert hook["language"] == "system"
            program = shlex.split(hook["entry"])[0]
            if program.startswith(".venv/bin/"):
                name = program.removeprefix(".venv/bin/")
                assert f'"$VENV/bin/{name}"' in lint, name
            else:
                assert ROOT / program in SCRIPTS, program
