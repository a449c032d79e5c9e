"""What CI and the image install: versions with hashes, and a list of it all."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]


def pinned(path):
    """Requirements of a file with their hashes; anything else in it is an error."""
    text = path.read_text(encoding="ascii").replace("\\\n", "")
    found = {}
    for line in text.splitlines():
        words = re.fullmatch(r"(.+?)((?:\s+--hash=sha256:[0-9a-f]{64})+)", line)
        assert words, f"{path.name}: {line[:80]}"
        requirement = Requirement(words[1])
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def wanted(*lists):
    """Requirements of pyproject.toml, those of our own extras taken apart."""
    for text in (text for one in lists for text in one):
        requirement = Requirement(text)
        if requirement.name == "bids_roi":
            yield from wanted(*(EXTRAS[extra] for extra in requirement.extras))
        else:
            yield requirement


def test_the_files_are_those_that_are_told_of():
    script = (ROOT / ".ci" / "requirements").read_text(encoding="utf-8")
    told = re.findall(r"^#   (\w+\.txt)", script, re.MULTILINE)
    made = re.findall(r"--output-file requirements/(\w+\.txt)", script)
    assert sorted(told) == sorted(made) == [path.name for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_one_version_with_hashes_and_no_address(path):
    for requirements in pinned(path).values():
        for requirement in requirements:
            (one,) = requirement.specifier
            assert (one.operator, requirement.url) == ("==", None), requirement


@pytest.mark.parametrize(
    ("name", "lists"),
    [
        ("image", [PROJECT["project"]["dependencies"]]),
        ("build", [GROUPS["build"], PROJECT["build-system"]["requires"]]),
        (
            "ci",
            [PROJECT["project"]["dependencies"], *EXTRAS.values(), GROUPS["build"]],
        ),
        ("release", [GROUPS["build"], GROUPS["release"]]),
        ("oldest", [PROJECT["project"]["dependencies"], EXTRAS["test"]]),
    ],
)
def test_all_that_pyproject_asks_for_is_there(name, lists):
    """Which fails where a dependency was added: .ci/requirements makes them anew."""
    there = pinned(ROOT / "requirements" / f"{name}.txt")
    for requirement in wanted(*lists):
        versions = there.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement} is not in {name}.txt: run .ci/requirements"
        for found in versions:
            (one,) = found.specifier
            assert requirement.specifier.contains(one.version), (requirement, found)


def test_the_oldest_are_what_pyproject_names():
    """As its lower bounds say, not as the package index happens to be today."""
    oldest = pinned(ROOT / "requirements" / "oldest.txt")
    newer = set()
    for requirement in wanted(PROJECT["project"]["dependencies"], EXTRAS["dask"]):
        (bound,) = (s.version for s in requirement.specifier if s.operator == ">=")
        (found,) = oldest[canonicalize_name(requirement.name)]
        (one,) = found.specifier
        if not f"{one.version}.".startswith(f"{bound}."):
            newer.add(requirement.name)
    # nilearn and boutiques, which the tests use, ask for more.
    assert newer == {"pandas", "tqdm"}


def test_the_image_is_tested_with_what_it_holds():
    image, ci = (
        {
            (name, str(one.specifier))
            for name, requirements in pinned(ROOT / "requirements" / file).items()
            for one in requirements
        }
        for file in ("image.txt", "ci.txt")
    )
    assert image
    assert image <= ci


def test_nothing_is_installed_without_hashes():
    """Neither in the image nor by CI; README.md's commands are those of users."""
    files = [ROOT / "Dockerfile", *(ROOT / ".ci").iterdir()]
    commands = [
        (path.name, command)
        for path in files
        for command in re.findall(
            r"pip\S*(?: --python \S+)? (?:install|wheel) (.*?)(?=&&|$)",
            path.read_text(encoding="utf-8").replace("\\\n", " "),
            re.MULTILINE,
        )
        # The examples are of other people's tools, as their users install them.
        if path.suffix != ".py" and path.name != "examples-test"
    ]
    assert len(commands) > 5
    for name, command in commands:
        assert re.search(r"--require-hashes|--no-index|--no-deps", command) or (
            # The wheel under test, as a user would install it.
            name == "build-package" and "/*.whl" in command
        ), f"{name}: {command}"


def test_list_of_what_is_there():
    """Made of this environment, which stands for the image's."""
    command = [sys.executable, ROOT / ".ci" / "sbom.py"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    assert document["metadata"]["component"]["name"] == "bids_roi"
    components = document["components"]
    references = [one["bom-ref"] for one in components]
    assert references == sorted(set(references))
    names = {canonicalize_name(p.metadata["Name"]) for p in distributions()}
    found = {
        canonicalize_name(one["name"]): one
        for one in components
        if one["purl"].startswith("pkg:pypi/")
    }
    assert names <= found.keys() | {"bids-roi"}
    # The rest lies in the Python below this environment, by the names of its folders.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    below = Path(sys.base_prefix, "lib", version, "site-packages").glob("*-info")
    assert found.keys() - names <= {
        canonicalize_name(path.name.partition("-")[0]) for path in below
    }
    assert all(one["version"] for one in components)
    assert found["numpy"]["licenses"]
    # An independent list of Debian's packages, where there is one.
    if Path("/usr/bin/dpkg-query").exists():
        listed = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split("\n")
        debian = {
            f"{one['name']} {one['version']} installed"
            for one in components
            if one["purl"].startswith("pkg:deb/")
        }
        assert debian == {line for line in listed if line.endswith(" installed")}
