"""What is released: its version, its files, and the pages that name them."""

import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from bids_roi.outputs import records
from bids_roi.version import __version__

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bids_roi"


def git(folder, *arguments):
    """Run git with nothing of the machine's own settings."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "A",
        "GIT_CONFIG_KEY_1": "user.email",
        "GIT_CONFIG_VALUE_1": "a@example.org",
    }
    argv = ["git", *arguments]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def build(folder, *arguments):
    """Run the build backend in a folder; what it prints."""
    argv = [sys.executable, "-m", "hatchling", *map(str, arguments)]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository of the project's files with one commit, and no tag."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in (".gitignore", "LICENSE", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    (folder / "bids_roi").mkdir()
    for name in ("__init__.py", "version.py"):
        shutil.copy(PACKAGE / name, folder / "bids_roi")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def clone_without_tags(checkout, folder):
    address = f"file://{checkout}"
    git(folder, "clone", "--quiet", "--depth", "1", "--no-tags", address, "new")
    return folder / "new"


def leave_git(checkout, folder):
    """As in the build of the image."""
    shutil.rmtree(checkout / ".git")
    return checkout


def unpack_archive(checkout, folder):
    """What forges offer for download."""
    archive = git(checkout, "archive", "--format=tar", "HEAD")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder / "archive", filter="data")
    return folder / "archive"


@pytest.mark.parametrize("copy", [clone_without_tags, leave_git, unpack_archive])
def test_every_copy_of_the_files_says_the_same_version(copy, checkout, tmp_path):
    """Tags do not always travel with a clone, and do not count."""
    git(checkout, "tag", "v99.0.0")
    assert build(copy(checkout, tmp_path), "version") == __version__


def test_version_is_a_release_or_on_the_way_to_one():
    """Never 0.0.x, which says that nobody knew."""
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)((rc|\.dev)\d+)?", __version__)
    assert found, __version__
    assert (int(found[1]), int(found[2])) >= (0, 2)


def test_sdist_and_its_wheel_have_the_version(checkout, tmp_path):
    build(checkout, "build", "--target", "sdist", "--directory", tmp_path)
    name = f"bids_roi-{__version__}"
    with tarfile.open(tmp_path / f"{name}.tar.gz") as sdist:
        sdist.extractall(tmp_path, filter="data")
    build(tmp_path / name, "build", "-t", "wheel", "-d", tmp_path)
    with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl") as wheel:
        assert f'"{__version__}"' in wheel.read("bids_roi/version.py").decode()
        metadata = wheel.read(f"{name}.dist-info/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in metadata


def test_never_installed_says_so_too(checkout):
    code = "import bids_roi; print(bids_roi.__version__)"
    argv = [sys.executable, "-S", "-c", code]
    done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True)
    assert done.stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("told", "held"),
    [("1.2.3", "1.2.3"), ("1.2.4.dev17", "1.2.4.dev"), ("1.3.0rc1", "1.3.0rc1")],
)
def test_commits_on_the_way_to_a_release_share_a_digest(told, held):
    """Of all options; a digest of each commit's own would make all outputs foreign."""
    code = (
        "import bids_roi.version as v; v.__version__ = "
        f"{told!r}\nfrom bids_roi.outputs import records\n"
        "print(records.release_of(records.__version__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"{held}\n", done.stderr
    assert re.sub(r"(\.dev)\d+$", r"\1", __version__) == records.release_of(__version__)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Names of the files in the wheel and in the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", ".*_cache", "__pycache__", ".hypothesis"
    )
    shutil.copytree(ROOT, source, ignore=ignored)
    build(source, "build", "-d", folder)
    with zipfile.ZipFile(folder / f"bids_roi-{__version__}-py3-none-any.whl") as wheel:
        in_wheel = set(wheel.namelist())
    with tarfile.open(folder / f"bids_roi-{__version__}.tar.gz") as sdist:
        in_sdist = {name.partition("/")[2] for name in sdist.getnames()}
    return in_wheel, in_sdist


def test_every_file_of_the_package_is_released(released):
    names = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"bids_roi/py.typed", "bids_roi/data/denoise/36P.json"} <= names
    for there in released:
        assert names <= there


def test_nothing_else_is_in_the_wheel(released):
    in_wheel, _ = released
    tops = {name.partition("/")[0] for name in in_wheel}
    assert tops == {"bids_roi", f"bids_roi-{__version__}.dist-info"}
    assert f"bids_roi-{__version__}.dist-info/licenses/LICENSE" in in_wheel


def test_sdist_has_what_its_tests_and_image_need(released):
    _, in_sdist = released
    expected = {".ci/run", "Dockerfile", ".circleci/config.yml", "boutiques.json"}
    expected |= {"tests/conftest.py", "CHANGELOG.md", "CITATION.cff", "LICENSE"}
    assert expected <= in_sdist
    assert not {name for name in in_sdist if name.startswith((".venv", ".git/"))}


def test_python_versions_are_said_alike():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (oldest,) = re.findall(r'requires-python = ">=([\d.]+)"', text)
    listed = re.findall(r"Python :: (3\.\d+)", text)
    assert listed[0] == oldest
    assert f"python:{oldest}-" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.startswith("# Changelog\n")
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert sections[0] == "[Unreleased]"
    releases = [re.fullmatch(r"\[(\S+)\] - \d{4}-\d\d-\d\d", s) for s in sections[1:]]
    assert all(releases)
    numbers = [tuple(map(int, found[1].split("."))) for found in releases]
    assert numbers == sorted(numbers, reverse=True)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


def test_citation():
    """The keys of its schema; cffconvert itself needs libraries too old for ours."""
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert content["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(content)
    assert content["type"] == "software"
    assert all({"name"} <= set(a) or "family-names" in a for a in content["authors"])
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'license = "{content["license"]}"' in text
    descriptor = json.loads((ROOT / "boutiques.json").read_text(encoding="utf-8"))
    told = {content["version"], descriptor["tool-version"]}
    assert told == {__version__}, "run .ci/generate"


def test_licences_are_listed():
    """Made by .ci/generate; libraries of other versions may need others."""
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\S+) \| (.+?) \|", text, re.MULTILINE))
    rows = {name: licence for name, licence in rows.items() if set(name) != {"-"}}
    script = runpy.run_path(str(ROOT / ".ci" / "licences.py"))
    for line in requires("bids_roi"):
        if "extra ==" not in line:
            assert script["normalise"](Requirement(line).name) in rows, line
    assert all(licence and "not said" not in licence for licence in rows.values())
    if version("pybids").startswith("0.17"):
        pytest.skip("the oldest libraries: the table is of the newest")
    assert set(script["find_closure"]("bids_roi")) == set(rows) - {"package"}


def check_release(folder, tag):
    script = folder / ".ci" / "release-check"
    return subprocess.run([script, tag], capture_output=True, text=True)


def test_release_check_finds_what_disagrees():
    """Nothing is tagged with this version."""
    done = check_release(ROOT, "v99.0.0")
    assert done.returncode == 1
    for name in ("boutiques.json", "CITATION.cff", "CHANGELOG.md", "version.py"):
        assert name in done.stderr


def test_no_release_leaves_open_where_to_clone_from(checkout):
    """README.md has a place for the address until the first release."""
    shutil.copytree(ROOT / ".ci", checkout / ".ci")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("git clone ") == 1
    (checkout / "README.md").write_text("git clone CLONE_ADDRESS bids_roi\n")
    assert "where to clone from" in check_release(checkout, __version__).stderr
    (checkout / "README.md").write_text("git clone ../there bids_roi\n")
    assert "where to clone from" not in check_release(checkout, __version__).stderr


@pytest.mark.parametrize("tag", ["{}", "v{}"])
def test_release_check_passes_where_all_agree(tag, checkout):
    shutil.copytree(ROOT / ".ci", checkout / ".ci")
    for name in ("boutiques.json", "CITATION.cff"):
        shutil.copy(ROOT / name, checkout)
    (checkout / "CHANGELOG.md").write_text(f"## [{__version__}] - 2026-01-01\n")
    (checkout / "README.md").write_text("git clone ../there bids_roi\n")
    done = check_release(checkout, tag.format(__version__))
    assert (done.returncode, done.stderr) == (0, "")
