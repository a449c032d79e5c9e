"""What is seen of the work: a bar on a terminal, lines in a log, a stream of events."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from datetime import datetime

import pytest
from support import datasets, long_runs
from support.calls import run

from bids_roi.dataset.layout import find_runs_of, survey_runs
from bids_roi.options.row import Input
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
    line = r"bids_roi: 1 of 2 runs, [\d.]+ MB/s, about 0\d:\d\d left\n"
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
    size = sum(p.stat().st_size for p in dataset.rglob("*_desc-preproc_bold.nii.gz"))
    told = [
        re.search(r"(\d) of 2 runs: +(\d+)%\|.*\| ([\d.]+[kM]?)/([\d.]+)k ", part)
        for part in text.split("\r")
    ]
    told = [match.groups() for match in told if match]
    assert told, text
    # The total is known from the first line on, in bytes.
    assert len({total for *_, total in told}) == 1
    assert float(told[0][3]) == pytest.approx(size / 1e3, rel=0.01)
    assert told[0][:2] == ("0", "0")
    assert re.search(r"[\d.]+k?B/s|s/B", text), text
    first, *_ = text.splitlines()
    assert first == (
        f"bids_roi {__version__}: 2 runs (0 MB) of 2 participants, atlas Toy,"
        f" to {tmp_path / 'out'}"
    )


def test_bytes_that_are_read_are_counted_while_they_are(tmp_path):
    """Of this process and of its children, to the size of each file."""
    mine, theirs, other = (tmp_path / name for name in "abc")
    for path in (mine, theirs, other):
        path.write_bytes(bytes(10_000))
    sizes = {str(mine): 10_000, str(theirs): 10_000}
    assert progress.count_read(sizes) == 0
    code = "import sys; f = open(sys.argv[1], 'rb', 0); f.read(3000); print(flush=True)"
    argv = [sys.executable, "-c", f"{code}; sys.stdin.read()", str(theirs)]
    with (
        mine.open("rb", 0) as first,
        other.open("rb", 0) as second,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
    ):
        child.stdout.readline()
        first.read(500)
        second.read(700)
        assert progress.count_read(sizes) == 3500
        assert progress.count_read({str(theirs): 2000}) == 2000
        child.communicate()
    assert progress.count_read(sizes) == 0


def test_what_is_not_looked_at_yet_is_like_the_rest():
    """Of four participants one is surveyed; planning finds what there really is."""
    shown = progress.Progress(
        None, quiet=True, surveyed={"01": (2, 100)}, n_participants=4
    )
    assert shown.totals() == (8, 400)
    shown.expect("02", [])
    assert shown.totals() == (4, 200)
    for participant in ("01", "03", "04"):
        shown.expect(participant, [])
    assert shown.totals() == (0, 0)


def test_a_survey_counts_what_planning_finds(tmp_path):
    names = [f"sub-0{n}_task-{t}" for n in (1, 2, 3) for t in ("rest", "nback")]
    root = datasets.write_dataset(tmp_path / "in", names)
    people = ["01", "02", "03"]
    for wanted in (Input(), Input(task_label=("rest",)), Input(session_label=("9",))):
        found = survey_runs(root, people, wanted)
        planned = dict(find_runs_of(root, people, wanted))
        assert found == {
            label: (len(runs), sum(run.path.stat().st_size for run in runs))
            for label, runs in planned.items()
        }
    # Content that is not here, as after git annex drop, has no size; the run is one.
    (gone,) = root.glob("sub-01/func/*nback*_desc-preproc_bold.nii.gz")
    gone.unlink()
    gone.symlink_to("nowhere")
    after = survey_runs(root, people, Input())
    everything = sum(
        p.stat().st_size for p in root.glob("sub-01/func/*_bold.nii.gz") if p.exists()
    )
    assert after["01"] == (2, everything)
    assert everything > 0
    # Where there is no time, the first tells of the others.
    assert list(survey_runs(root, people, Input(), seconds=-1)) == ["01"]
