"""Run the app in processes of their own in which something goes wrong.

A server forks them, with everything imported, which saves most of the time. What goes
wrong is said by a dictionary: ``at`` counts the files that are flushed before their
rename, ``then`` is what happens at that moment: ``kill`` (SIGKILL), ``full`` (no space
from then on), ``remove`` or ``truncate`` the file ``path``; ``after`` counts renames
instead, and what happens is the signal ``then``. ``files`` is how many there are in the
folder ``path`` when the call and its workers are killed. ``raise`` names a function
whose first call fails. ``user`` is who calls.
"""

import codecs
import contextlib
import errno
import importlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Done:
    """How a call ended."""

    returncode: int
    stderr: str


class Server:
    """Forks calls of the app."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )

    def run(self, *arguments, copies=1, **fault):
        """End of the call; with ``copies`` at the same time, of each.

        Where nothing goes wrong and one is alone, it is made within this process.
        """
        arguments = [*map(str, arguments)]
        if "--n-procs" not in arguments:  # workers take their time to start
            arguments += ["--executor", "serial"]
        if not fault and copies == 1:
            from bids_roi.cli import main  # this file is a program, too

            told = io.StringIO()
            with (
                contextlib.redirect_stderr(told),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                code = main(arguments)
            return Done(code, told.getvalue())
        request = {"fault": fault, "arguments": arguments, "copies": copies}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        done = [Done(*end) for end in json.loads(self.process.stdout.readline())]
        return done if copies > 1 else done[0]

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def files_of(folder):
    """Bytes of each file, without logs: they tell seconds and memory."""
    from support.datasets import without_call  # this file is a program, too

    return {
        p.relative_to(folder).as_posix(): without_call(p)
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file() and "logs" not in p.relative_to(folder).parts
    }


def leftovers(folder):
    """Files that were not finished, logs included."""
    return [str(p) for p in Path(folder).rglob("*") if p.name.endswith(".tmp")]


def flip_middle(content):
    """The bytes with one bit in the middle changed."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


def _watch_writes(fault):
    flush, count = os.fsync, itertools.count(1)

    def fsync(descriptor):
        flush(descriptor)
        number = next(count)
        if fault["then"] == "full" and number >= fault["at"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if number != fault["at"]:
            return
        if fault["then"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault["then"] == "remove":
            Path(fault["path"]).unlink()
        elif fault["then"] == "truncate":
            os.truncate(fault["path"], Path(fault["path"]).stat().st_size * 2 // 3)

    os.fsync = fsync


def signal_after(number, name):
    """Send this process a signal when it has renamed so many files."""
    rename, count = os.replace, itertools.count(1)

    def replace(*names, **options):
        rename(*names, **options)
        if next(count) == number:
            os.kill(os.getpid(), signal.Signals[name])

    os.replace = replace


def _kill_all_at(fault):
    """SIGKILL of this process and its workers, by a process that is none of them."""
    call, folder = os.getpid(), Path(fault["path"])
    if os.fork() == 0:
        try:
            while os.getppid() == call:
                if sum(p.is_file() for p in folder.rglob("*")) >= fault["files"]:
                    os.killpg(call, signal.SIGKILL)
                time.sleep(0.01)
        finally:
            os._exit(0)
    os.setsid()


def _wait_until_gone(group):
    """One that is killed within fsync ends when the disk has taken what it wrote."""
    limit = time.monotonic() + 30
    while any(_is_of(group, stat) for stat in Path("/proc").glob("[0-9]*/stat")):
        assert time.monotonic() < limit, "a process lives on"
        time.sleep(0.02)


def _is_of(group, stat):
    try:
        state, _, own = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return int(own) == group and state != "Z"


def _break(name):
    module_name, _, function_name = name.rpartition(".")
    module = importlib.import_module(module_name)
    function = getattr(module, function_name)
    calls = itertools.count()

    def broken(*arguments, **options):
        if next(calls) == 0:
            message = f"injected into {name}"
            raise RuntimeError(message)
        return function(*arguments, **options)

    setattr(module, function_name, broken)


def _call(fault, arguments, told):
    os.dup2(told.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    if "user" in fault:
        os.setgroups([])
        os.setgid(fault["user"])
        os.setuid(fault["user"])
    if "files" in fault:
        _kill_all_at(fault)
    if "raise" in fault:
        _break(fault["raise"])
    if "at" in fault:
        _watch_writes(fault)
    if "after" in fault:
        signal_after(fault["after"], fault["then"])
    from bids_roi.cli import main

    return main(arguments)


def warm_up():
    """Import and fill what takes long; another user may not be able to."""
    for name in (
        "bids_roi.participant.outcomes",
        "isal.igzip",
        "orjson",
        "scipy.ndimage",
        "bids_roi.schedule.processes",
    ):
        importlib.import_module(name)
    from bids.layout import BIDSLayout

    from bids_roi.atlases.templateflow import template_grids

    codecs.lookup("utf-8-sig")
    template_grids()
    with tempfile.TemporaryDirectory() as folder:
        layout = BIDSLayout(folder, validate=False, is_derivative=True)
        layout.session.close()
        layout.connection_manager.engine.dispose()


def _serve():
    warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        calls = []
        for _ in range(request["copies"]):
            told = tempfile.TemporaryFile()  # noqa: SIM115 - read when the call ended
            pid = os.fork()
            if pid == 0:
                code = 70
                try:
                    code = _call(request["fault"], request["arguments"], told)
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            calls.append((pid, told))
        ends = []
        for pid, told in calls:
            _, status = os.waitpid(pid, 0)
            if "files" in request["fault"]:
                _wait_until_gone(pid)
            told.seek(0)
            text = told.read().decode(errors="replace")
            ends.append((os.waitstatus_to_exitcode(status), text))
            told.close()
        sys.stdout.write(json.dumps(ends) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
