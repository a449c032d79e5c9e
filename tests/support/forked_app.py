"""``bids_roi`` as a command that a server forks, with everything imported.

Most of a short call is imports. Each call is a process of its own all the same, with
the folder, the environment, the streams and the exit code of the caller.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys

FAILED = 70
CLIENT = """\
#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"x"], [0, 1, 2])
    call = [[*{before!r}, *sys.argv[1:]], os.getcwd(), dict(os.environ)]
    server.sendall(json.dumps(call).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(16) or {failed}))
"""


@contextlib.contextmanager
def forked_app(folder, *before, under=()):
    """Folder with the command, which puts the arguments ``before`` before its own.

    ``under`` are words that start a command, as those of strace.
    """
    address, script = str(folder / "socket"), folder / "bids_roi"
    words = {"python": sys.executable, "address": address, "before": before}
    script.write_text(CLIENT.format(**words, failed=FAILED))
    script.chmod(0o755)
    server = subprocess.Popen(
        [*under, sys.executable, __file__, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        assert server.stdout.readline() == b"ready\n"
        yield folder
    finally:
        server.terminate()
        server.communicate()


def _answer(connection):
    """Be the caller, call the app, and tell its exit code."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as sent:
        arguments, folder, environment = json.load(sent)
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
    from bids_roi.cli import main

    code = FAILED
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(str(code).encode())


def _serve(address):
    from fault_tools import warm_up  # beside this file, which is run as a script

    warm_up()
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
