"""Change fragments: joined to the changelog at a release, and named as agreed."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEFORE = """\
# Changelog

Words.

## [Unreleased]

### Added

- What stood here.

## [0.1.0] - 2025-01-01

### Fixed

- Old.
"""
AFTER = """\
# Changelog

Words.

## [Unreleased]

## [0.2.0] - 2026-01-31

### Added

- What stood here.
- Two lines
  of one change.

### Fixed

- Nine.
- Ten.

## [0.1.0] - 2025-01-01

### Fixed

- Old.
"""


@pytest.fixture
def project(tmp_path):
    """A folder with the script, a changelog and three fragments."""
    (tmp_path / ".ci").mkdir()
    for name in ("changes", "changes.py", "common.sh"):
        shutil.copy(ROOT / ".ci" / name, tmp_path / ".ci")
    (tmp_path / "changes").mkdir()
    (tmp_path / "CHANGELOG.md").write_text(BEFORE)
    for name, text in {
        "README.md": "# Not a fragment",
        "10.fixed.md": "Ten.\n",
        "9.fixed.md": "Nine.",
        "11.added.md": "Two lines\nof one change.\n",
    }.items():
        (tmp_path / "changes" / name).write_text(text)
    return tmp_path


def run(project, *arguments):
    argv = [project / ".ci" / "changes", *arguments]
    return subprocess.run(argv, capture_output=True, text=True)


def test_fragments_become_a_section(project):
    done = run(project, "0.2.0", "2026-01-31")
    assert (done.returncode, done.stderr) == (0, "")
    assert (project / "CHANGELOG.md").read_text() == AFTER
    assert [path.name for path in (project / "changes").iterdir()] == ["README.md"]


def test_a_second_release_of_the_same_name_is_refused(project):
    run(project, "0.2.0", "2026-01-31")
    (project / "changes" / "12.added.md").write_text("More.")
    done = run(project, "0.2.0")
    assert done.returncode == 1
    assert "0.2.0 has a section already" in done.stderr
    assert (project / "CHANGELOG.md").read_text() == AFTER
    assert (project / "changes" / "12.added.md").exists()


def test_nothing_to_release(project):
    run(project, "0.2.0", "2026-01-31")
    done = run(project, "0.3.0")
    assert done.returncode == 1
    assert "no fragment" in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("12.broken.md", "Words.", "NUMBER.KIND.md"),
        ("fixed.md", "Words.", "NUMBER.KIND.md"),
        ("12.fixed.md", " \n", "empty"),
        ("12.fixed.md", "- Words.", "sentences only"),
    ],
)
def test_what_is_no_fragment_is_named(name, text, said, project):
    (project / "changes" / name).write_text(text)
    for arguments in (["--check"], ["0.2.0"]):
        done = run(project, *arguments)
        assert done.returncode == 1
        assert name in done.stderr
        assert said in done.stderr
    assert (project / "CHANGELOG.md").read_text() == BEFORE


def test_those_of_this_project_are_right():
    done = run(ROOT, "--check")
    assert (done.returncode, done.stderr) == (0, "")
