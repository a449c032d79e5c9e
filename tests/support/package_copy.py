"""A copy of the package, changed as a recipe of the docs says, that runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bids_roi

ROOT = Path(bids_roi.__file__).parent.parent
# Calls the app several times in one process, which is faster.
CALLS = """
import contextlib, io, json, sys
import bids_roi
from bids_roi.cli import main
answers = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
    answers.append([code, out.getvalue(), err.getvalue()])
"""


class Copy:
    """A copy of the package in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        # With the compiled files: those of changed sources are stale by themselves.
        shutil.copytree(ROOT / "bids_roi", folder / "bids_roi")

    def add(self, changes):
        """Put in what a recipe says: {file: (text before which it goes, text)}."""
        for name, (before, text) in changes.items():
            path = self.folder / name
            content = path.read_text(encoding="utf-8")
            assert content.count(before) == 1, f"{name}: {before}"
            path.write_text(content.replace(before, text + before), encoding="utf-8")

    def call(self, calls, more):
        """Answers [code, stdout, stderr] to the calls by name, and ``more``'s value."""
        words = json.dumps([[str(word) for word in call] for call in calls.values()])
        said = f"{more}\nprint(json.dumps([bids_roi.__file__, answers, more]))"
        home, answers, more = json.loads(python(CALLS + said, self.folder, words))
        assert Path(home).is_relative_to(self.folder)
        return dict(zip(calls, answers, strict=True)), more


def python(code, path, *arguments):
    """What code prints that finds the package in a folder."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
