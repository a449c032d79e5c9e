"""What is seen of the work: a bar on a terminal, lines in a log, a stream of events."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from datetime import datetime

import pytest
from support import datasets, long_runs
from support.calls import run

from bids_roi.participant import progress
from bids_roi.version import __version__

KEYS = {
    "start": {"version", "executor", "participants", "input", "output"},
    "plan": {"run", "bytes", "volumes", "atlases"},
    "run": {
        *("run", "status", "reason", "seconds", "bytes", "peak_memory_bytes"),
        "atlases",
    },
    "end": {"status", "runs", "seconds"},
}


@pytest.fixture
def broken(tmp_path):
    """Three participants; the image of the second is cut off."""
    names = [f"sub-0{n}_task-rest" for n in (1, 2, 3)]
    root = datasets.write_dataset(tmp_path / "in", names)
    path = next(root.glob("sub-02/func/*_bold.nii.gz"))
    path.write_bytes(path.read_bytes()[:-2000])
    return root


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def test_stream_of_events(broken, atlas, tmp_path, capsys):
    file = tmp_path / "logs" / "events.jsonl"
    words = [broken, tmp_path / "out", *long_runs.PLAIN, "--atlas-file", atlas]
    run(capsys, *words, "--events", file, code=1)
    found = events(file.read_text())
    for event in found:
        assert set(event) == {"event", "time", *KEYS[event["event"]]}
        assert datetime.fromisoformat(event["time"]).tzinfo is not None
    assert found[0]["event"] == "start"
    assert found[0]["version"] == __version__
    assert found[0]["executor"] == "serial"
    assert found[0]["participants"] == 3
    plans = [event for event in found if event["event"] == "plan"]
    runs = {e["run"]: e for e in found if e["event"] == "run"}
    assert [plan["run"] for plan in plans] == sorted(runs)
    for plan in plans:
        assert plan["volumes"] == 12
        assert plan["bytes"] == (broken / plan["run"]).stat().st_size
        assert runs[plan["run"]]["bytes"] == plan["bytes"]
    assert [runs[r]["status"] for r in sorted(runs)] == ["done", "failed", "done"]
    failed = runs[plans[1]["run"]]
    assert "sub-02" in failed["reason"]
    assert failed["atlases"] == {"Toy": "failed"}
    assert runs[plans[0]["run"]]["peak_memory_bytes"] > 10**7
    assert found[-1]["event"] == "end"
    assert found[-1]["status"] == "finished"
    assert found[-1]["runs"] == {"done": 2, "failed": 1}
    # A second call is appended; what is there is not done again.
    run(capsys, *words, "--events", file, code=1)
    again = events(file.read_text())[len(found) :]
    assert again[0]["event"] == "start"
    assert again[-1]["runs"] == {"complete": 2, "failed": 1}


def test_events_on_standard_output_stand_alone(dataset, atlas, tmp_path, capsys):
    words = [dataset, tmp_path / "out", *long_runs.PLAIN, "--atlas-file", atlas]
    done = run(capsys, *words, "--events", "-")
    assert [e["event"] for e in events(done.out)][-1] == "end"
    assert "2  extracted" in done.err


def test_stopped_at_the_first_failure(broken, atlas, tmp_path, capsys):
    words = [broken, tmp_path / "out", *long_runs.PLAIN, "--atlas-file", atlas]
    done = run(capsys, *words, "--events", "-", "--stop-on-first-crash", code=1)
    assert events(done.out)[-1]["status"] == "stopped"
    assert events(done.out)[-1]["runs"] == {"done": 1, "failed": 1}


def test_nothing_goes_into_the_input(dataset, atlas, tmp_path, capsys):
    words = [dataset, tmp_path / "out", *long_runs.PLAIN, "--atlas-file", atlas]
    before = datasets.snapshot(dataset)
    done = run(capsys, *words, "--events", dataset / "events.jsonl", code=73)
    assert "would be inside the input" in done.err
    assert datasets.snapshot(dataset) == before


def test_lines_in_a_log(dataset, atlas, tmp_path, capsys, monkeypatch):
    words = [dataset, tmp_path / "out", *long_runs.PLAIN, "--atlas-file", atlas]
    quick = run(capsys, *words, "--overwrite")
    assert " runs, " not in quick.err, "a short call says nothing"
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)
    slow = run(capsys, *words, "--overwrite")
    line = r"bids_roi: 1 of 2 runs, [\d.]+ MB/s, about 0\d:\d\d left"
    assert re.search(line, slow.err), slow.err
    assert " runs, " not in run(capsys, *words, "--overwrite", "-q").err


def test_bar_on_a_terminal(dataset, atlas, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    words = [dataset, tmp_path / "out", *long_runs.PLAIN, "--atlas-file", atlas]
    job = subprocess.Popen(
        [long_runs.COMMAND, *map(str, words), "--executor", "serial"],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # so Linux says that the other side is closed
        while chunk := os.read(ours, 4096):
            seen += chunk
    os.close(ours)
    assert job.wait() == 0, seen
    text = seen.decode()
    assert "/2" in text, "runs done of all"
    assert re.search(r"[\d.]+ ?run/s|s/run", text), text
    assert re.search(r"[\d.]+ MB/s", text), text
