"""Doors of a cluster: what listens, who is let in, where the keys lie.

Every process is asked by /proc what it listens at, and every door is tried with plain
sockets and Python's ssl, which know nothing of Dask.
"""

import contextlib
import os
import shlex
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import long_runs
from support.long_runs import end, outputs, start, worker_at
from support.once import make_once

from bids_roi.errors import UsageError
from bids_roi.options.record import Options

distributed = pytest.importorskip(
    "distributed", reason="the extra 'dask' is not installed"
)

LISTENS = "0A"
# A stand-in for SLURM: a job is a session of its own on this machine.
SBATCH = """\
#!/usr/bin/env bash
if [[ ${{1:-}} == --test-only ]]; then cat > {folder}/asked; exit 0; fi
cp "$1" {folder}/job.$$
cd /
FAKE_SLURM={folder} setsid bash {folder}/job.$$ > {folder}/log.$$ 2>&1 < /dev/null &
echo "Submitted batch job $!"
"""
SCANCEL = """\
#!/usr/bin/env bash
kill -- "-$1"
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three long runs, the atlas, and the outputs of a call without Dask."""
    return make_once(tmp_path_factory, "long", long_runs.make_data)


@pytest.fixture
def out(data, request):
    return long_runs.place_out(data[0], request.node.name)


@pytest.fixture
def slurm(tmp_path):
    """Environment with a stand-in for SLURM; its jobs are ended afterwards."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    yield folder, {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    for process in jobs_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.fixture(autouse=True)
def _nothing_left():
    yield
    long_runs.end_all()


def jobs_of(folder):
    """Ids of the processes of the stand-in's jobs."""
    found = []
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if place.name.isdigit():
                words = (place / "environ").read_bytes().split(b"\0")
                if f"FAKE_SLURM={folder}".encode() in words:
                    found.append(int(place.name))
    return found


def doors(processes):
    """Addresses, as (host, port), at which processes listen."""
    sockets = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS:
                host, _, port = words[1].partition(":")
                raw = bytes.fromhex(host)
                raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
                family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
                address = socket.inet_ntop(family, raw), int(port, 16)
                sockets[f"socket:[{words[9]}]"] = address
    found = set()
    for process in processes:
        with contextlib.suppress(OSError):
            for fd in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found.add(sockets.get(str(fd.readlink())))
    return found - {None}


def knock(address):
    """Connect to a door, also to one that is open on all interfaces."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
    return socket.create_connection((host, address[1]), timeout=10)


def answer_in_plain(address):
    """What somebody gets who asks for a web page without TLS."""
    with knock(address) as door:
        door.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            return door.recv(100)
    return b""


def is_let_in(address, credentials=None):
    """Whether Dask talks, over TLS, to who shows these credentials, or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if credentials:
        context.load_cert_chain(*credentials)
    # With TLS 1.3 a refusal comes after the handshake, in place of Dask's greeting; a
    # door without TLS fails here.
    with knock(address) as raw, context.wrap_socket(raw) as door:
        assert door.version() == "TLSv1.3"
        try:
            return bool(door.recv(8))
        except (ssl.SSLError, ConnectionError):
            return False


@pytest.fixture(scope="session")
def strangers(tmp_path_factory):
    """Credentials that somebody else has made for himself, as files."""
    return save(tmp_path_factory.mktemp("strangers"))


def save(folder):
    made = distributed.Security.temporary()
    names = (folder / "cert.pem", folder / "key.pem")
    names[0].write_text(made.tls_client_cert)
    names[1].write_text(made.tls_client_key)
    return names


def check_doors(found, strangers):
    assert found
    for address in found:
        assert not answer_in_plain(address).startswith(b"HTTP"), address
        assert not is_let_in(address), address
        assert not is_let_in(address, strangers), address


def test_cluster_of_this_machine(data, out, strangers):
    root, atlas, undisturbed = data
    job = start(root, out, atlas, "--executor", "dask", "--n-procs", 2)
    worker_at(job, seconds=120)
    found = doors([job.pid, *long_runs.descendants(job.pid)])
    check_doors(found, strangers)
    assert {host for host, _ in found} == {"127.0.0.1"}
    code, _, err = end(job, seconds=120)
    assert code == 0, err
    assert "Traceback" not in err
    assert outputs(out) == undisturbed


def test_jobs(data, out, slurm, strangers):
    root, atlas, undisturbed = data
    folder, environment = slurm
    more = ["--executor", "slurm", "--slurm-jobs", 1, "--n-procs", 2]
    job = start(root, out, atlas, *more, env=environment)
    wait_until_at_work(job, folder)
    scheduler = doors([job.pid, *long_runs.descendants(job.pid)])
    workers = doors(jobs_of(folder))
    assert workers
    # All on this machine, so that they reach each other by one address.
    (host,) = {host for host, _ in scheduler | workers}
    assert host not in ("0.0.0.0", "::")
    check_doors(scheduler | workers, strangers)
    # The keys are the user's alone, in files: not in the script, and gone at the end.
    (place,) = (out / "logs" / "slurm").glob(".bids_roi-tls-*")
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    ours = place / "cert.pem", place / "key.pem"
    assert all(is_let_in(address, ours) for address in scheduler)
    assert "PRIVATE" in ours[1].read_text()
    for script in folder.glob("job.*"):
        text = script.read_text()
        assert "tls://" in text
        assert str(ours[1]) in text
        assert "PRIVATE" not in text
    code, _, err = end(job, seconds=120)
    assert code == 0, err
    assert "Traceback" not in err
    assert outputs(out) == undisturbed
    assert not place.exists()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_jobs_of_a_command_that_is_stopped(data, slurm, number, code, times):
    root, atlas, _ = data
    out = long_runs.place_out(root, f"stopped-{code}-{times}")
    folder, environment = slurm
    more = ["--executor", "slurm", "--slurm-jobs", 1, "--n-procs", 2]
    job = start(root, out, atlas, *more, env=environment)
    wait_until_at_work(job, folder)
    below = jobs_of(folder)
    for _ in range(times):
        os.kill(job.pid, number)
        time.sleep(0.1)
    found, _, err = end(job, seconds=120)
    # A shell tells 128 and the number of who is ended by a signal at its exit.
    assert found in (code, -number), err
    if times == 1:
        assert found == code
        assert "run the same command to go on." in err
    long_runs.wait_until_gone(below)
    assert not long_runs.leftovers(out)
    assert not list(out.rglob(".bids_roi-tls-*"))


def wait_until_at_work(job, folder):
    limit = time.monotonic() + 120
    while not any(long_runs.position(p)[1] > 2**20 for p in jobs_of(folder)):
        assert time.monotonic() < limit, "no worker of a job is at work"
        assert job.poll() is None, job.communicate()
        time.sleep(0.03)  # a look takes 5 ms, a file is read for 200


def test_jobs_as_the_yaml_has_them(data, out, slurm, tmp_path):
    """Its interface, its arguments of workers and its web page are kept."""
    root, atlas, _ = data
    folder, environment = slurm
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    site = tmp_path / "jobqueue.yaml"
    site.write_text(
        "jobqueue:\n  slurm:\n    interface: lo\n"
        f"    worker-extra-args: ['--local-directory', '{tmp_path}/here']\n"
        f"    shared-temp-directory: {tmp_path}\n"
        f"    scheduler-options: {{dashboard_address: '127.0.0.1:{port}'}}\n"
    )
    environment["DASK_CONFIG"] = str(site)
    more = ["--executor", "slurm", "--slurm-jobs", 1, "--n-procs", 1]
    job = start(root, out, atlas, *more, env=environment)
    wait_until_at_work(job, folder)
    assert (tmp_path / "here").is_dir()
    assert len(list(tmp_path.glob(".bids_roi-tls-*"))) == 1
    everything = [job.pid, *long_runs.descendants(job.pid), *jobs_of(folder)]
    found = doors(everything)
    assert {host for host, _ in found} == {"127.0.0.1"}
    web = [door for door in found if answer_in_plain(door).startswith(b"HTTP")]
    assert web == [("127.0.0.1", port)]
    code, _, err = end(job, seconds=120)
    assert code == 0, err
    assert not list(tmp_path.glob(".bids_roi-tls-*"))


def test_no_place_for_keys(data, slurm):
    root, atlas, _ = data
    out = long_runs.place_out(root, "a folder")
    done = end(start(root, out, atlas, "--executor", "slurm", env=slurm[1]))
    assert done[0] == 64, done
    assert "a job script cannot hold this path" in done[2]
    assert not list(slurm[0].glob("job.*"))


def test_scheduler_with_certificates_of_the_user(data, out, tmp_path):
    root, atlas, undisturbed = data
    cert, key = save(tmp_path)
    file = tmp_path / "scheduler.json"
    tls = ["--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key]
    dask = [sys.executable, "-m", "dask"]
    place = ["--scheduler-file", file, *tls, "--protocol", "tls", "--no-dashboard"]
    host = ["--host", "127.0.0.1", "--port", "0"]
    lines = ["--nthreads", "1", "--local-directory", tmp_path]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    commands = [
        [*dask, "scheduler", *place, *host],
        [*dask, "worker", *place, *lines],
    ]
    running = [subprocess.Popen(list(map(str, c)), **quiet) for c in commands]
    try:
        limit = time.monotonic() + 120
        while not file.exists():
            assert time.monotonic() < limit, "the scheduler does not start"
            time.sleep(0.05)
        address = file.read_text().split('"address": "')[1].split('"')[0]
        assert address.startswith("tls://127.0.0.1:")
        more = ["--executor", "dask", "--dask-scheduler", address]
        code, _, err = end(start(root, out, atlas, *more))
        assert code == 64, err
        assert "no Dask scheduler answers" in err
        assert "distributed.comm.tls" in err
        prefix = "DASK_DISTRIBUTED__COMM__TLS__"
        env = {
            **os.environ,
            f"{prefix}CA_FILE": str(cert),
            f"{prefix}CLIENT__CERT": str(cert),
            f"{prefix}CLIENT__KEY": str(key),
        }
        code, said, err = end(start(root, out, atlas, *more, env=env))
        assert code == 0, err
        assert "3  extracted" in said
        assert outputs(out) == undisturbed
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()


@pytest.mark.parametrize("option", ["slurm_partition", "slurm_account"])
@pytest.mark.parametrize(
    "word",
    [
        "x\ntouch ./injected",
        "x y",
        "",
        "x;y",
        "$(id)",
        "`id`",
        "x|y",
        "-x",
        "x\0",
        "x#",
    ],
)
def test_words_that_would_steer_the_job_script(option, word):
    with pytest.raises(UsageError, match="is a name of letters"):
        Options.of(executor="slurm", **{option: word})


@pytest.mark.parametrize(
    "word", ["main", "gpu,long", "lab.x-1_2", "a@b", "größe", "+9"]
)
def test_words_that_a_shell_reads_as_they_are(word):
    assert Options.of(executor="slurm", slurm_partition=word, slurm_account=word)
    if word.isascii():
        assert shlex.quote(word) == word
