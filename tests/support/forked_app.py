"""Commands of ours, and Python, that a server forks with everything imported.

Most of a short call is imports. Each call is a process of its own all the same, with
the folder, the environment, the streams and the exit code of the caller.
"""

import contextlib
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import traceback
import types
import warnings
from pathlib import Path

FAILED = 70
PROGRAMS = ("bids_roi", "bids_roi_tools", "run_python")
LISTING = {"os.listdir", "os.scandir", "glob.glob"}
# What calls would import beside what ``warm_up`` does.
WANTED = ("bids_roi.participant.level", "bids_roi.group.level", "bids_roi.outputs.find")
WANTED += ("bids_roi.atlases.asked", "bids_roi.tools", "bids_roi.api", "h5py", "pandas")
WANTED += ("bids_roi.loading", "bids_roi.outputs.stack", "scipy.linalg")
CLIENT = """\
#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"x"], [0, 1, 2])
    words = [*{before!r}, *sys.argv[1:]]
    call = [{program!r}, words, os.getcwd(), dict(os.environ)]
    server.sendall(json.dumps(call).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(16) or {failed}))
"""


@contextlib.contextmanager
def forked_app(folder, *, under=()):
    """Run the server while in here; what puts its commands into a folder.

    ``run_python TEXT`` is ``python -W error -c TEXT``; ``under`` are words that start
    the server, as those of strace.
    """
    address = str(folder / "socket")
    words = {"python": sys.executable, "address": address, "failed": FAILED}

    def put_commands(target, *before):
        """``before`` goes before the arguments of ``bids_roi``."""
        target.mkdir()
        for name in PROGRAMS:
            own = before if name == "bids_roi" else ()
            text = CLIENT.format(**words, program=name, before=own)
            (target / name).write_text(text)
            (target / name).chmod(0o755)
        return target

    server = subprocess.Popen(
        [*under, sys.executable, __file__, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        assert server.stdout.readline() == b"ready\n"
        yield put_commands
    finally:
        server.terminate()
        server.communicate()


def _answer(connection):
    """Be the caller, call the program, and tell its exit code."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as sent:
        program, arguments, folder, environment = json.load(sent)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Streams of a new process, as those of the server know where theirs stood.
    for number, (name, mode) in enumerate(
        (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
    ):
        setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _forbid_listing(folder)
    code = FAILED
    try:
        code = _call(program, arguments)
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(str(code).encode())


def _forbid_listing(folder):
    """What lies in the caller's folder is reached by its name: it is not looked for.

    But by an import of Python.
    """

    def watch(event, arguments):
        if event not in LISTING or isinstance(arguments[0], int):
            return
        if "importlib" in sys._getframe(1).f_code.co_filename:
            return
        if Path(folder, os.fsdecode(arguments[0] or ".")) == Path(folder):
            raise AssertionError(f"{folder} is listed")

    sys.addaudithook(watch)


def _call(program, arguments):
    from bids_roi import cli, tools

    if program == "bids_roi":
        return cli.main(arguments)
    if program == "bids_roi_tools":
        return tools.main(arguments)
    warnings.simplefilter("error")
    sys.path[0] = ""  # the folder of the caller, as ``python -c`` has it
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        exec(compile(arguments[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    except Exception:  # noqa: BLE001 - all that Python itself would print
        traceback.print_exc()
        return 1
    return 0


def _serve(address):
    from fault_tools import warm_up  # beside this file, which is run as a script

    warm_up()
    for name in WANTED:
        importlib.import_module(name)
    os.fsync = lambda descriptor: None  # as in the tests' own process
    gc.collect()
    gc.freeze()  # no call walks or copies what is here
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = server.accept()
            pid = os.fork()
            if pid == 0:
                try:
                    _answer(connection)
                finally:
                    os._exit(FAILED)
            connection.close()
            os.waitpid(pid, 0)  # one after the other, as a shell calls them


if __name__ == "__main__":
    _serve(*sys.argv[1:])
