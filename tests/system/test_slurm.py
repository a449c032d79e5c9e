"""A real SLURM cluster on this machine: arrays, jobs of workers, a lost node.

Only with BIDS_ROI_TEST_SLURM=1 (.ci/slurm-test): it needs root, SLURM's programs, and
the script that starts a cluster beside the checkout.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support import long_runs
from support.long_runs import start

if os.environ.get("BIDS_ROI_TEST_SLURM") != "1":
    pytest.skip("BIDS_ROI_TEST_SLURM is not 1", allow_module_level=True)

TOOLS = Path(__file__).resolve().parents[3] / "shared" / "tools"
# What a site would have in ~/.config/dask/jobqueue.yaml.
YAML = """\
jobqueue:
  slurm:
    interface: lo
    queue: main
    walltime: "00:10:00"
    worker-extra-args: ["--local-directory", "{scratch}"]
"""


@pytest.fixture(autouse=True)
def _nothing_left():
    yield
    long_runs.end_all()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Environment of all commands, with a cluster that is up."""
    folder = tmp_path_factory.mktemp("slurm")
    up = subprocess.run([TOOLS / "slurm-up", folder], capture_output=True, text=True)
    assert up.returncode == 0, up.stderr
    site = folder / "jobqueue.yaml"
    site.write_text(YAML.format(scratch=folder / "scratch"))
    yield {**os.environ, "SLURM_CONF": up.stdout.strip(), "DASK_CONFIG": str(site)}
    subprocess.run([TOOLS / "slurm-down", folder], check=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four runs, the atlas, and the outputs of a call without SLURM."""
    return long_runs.make_data(tmp_path_factory.mktemp("long"), n_participants=4)


@pytest.fixture
def out(data, request):
    return long_runs.place_out(data[0], request.node.name)


def slurm(environment, *words):
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for_queue(environment, seconds=120):
    limit = time.monotonic() + seconds
    while queue := slurm(environment, "squeue", "-h"):
        assert time.monotonic() < limit, queue
        time.sleep(0.2)


def test_array_of_participants(environment, data, out, tmp_path):
    root, atlas, local = data
    words = [long_runs.COMMAND, str(root), str(out), *long_runs.PLAIN]
    words += ["--atlas-file", atlas, "--participant-label"]
    call = " ".join(words) + " sub-0$SLURM_ARRAY_TASK_ID"
    place = ["--array=1-4", "--cpus-per-task=1", "--mem=1000"]
    place += [f"--output={tmp_path}/%a.log", f"--wrap={call}"]
    slurm(environment, "sbatch", *place)
    wait_for_queue(environment)
    logs = "".join(path.read_text() for path in sorted(tmp_path.glob("*.log")))
    assert logs.count("1  extracted") == 4, logs
    assert long_runs.outputs(out) == local
    assert not long_runs.leftovers(out)


def test_group_level_after_a_run_that_failed(environment, data, out, tmp_path):
    """As README.md's recipe has it: one bad run never ends the dataset."""
    root, atlas, _ = data
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (word,) = re.findall(r'--dependency="(\w+):', readme)
    copy = out.with_name("one-is-cut-short")
    shutil.copytree(root, copy)
    bold = min(copy.glob("sub-02/func/*_bold.nii.gz"))
    whole = bold.read_bytes()
    bold.write_bytes(whole[: len(whole) // 2])
    words = [long_runs.COMMAND, str(copy), str(out)]
    call = [*words, *long_runs.PLAIN, "--atlas-file", atlas, "--participant-label"]
    place = ["--mem=1000", "--parsable"]
    wrap = f"--wrap={' '.join(call)} sub-0$SLURM_ARRAY_TASK_ID"
    log = f"--output={tmp_path}/%a.log"
    array = slurm(environment, "sbatch", *place, "--array=1-4", log, wrap)
    wait = [f"--dependency={word}:{array}", f"--output={tmp_path}/group.log"]
    wrap = f"--wrap={' '.join([*words, 'group', '--no-report'])}"
    slurm(environment, "sbatch", *place, *wait, wrap)
    wait_for_queue(environment)
    assert "1  failed" in (tmp_path / "2.log").read_text()
    said = (tmp_path / "group.log").read_text()
    table = (out / "group_runs.tsv").read_text().splitlines()
    status = table[0].split("\t").index("status")
    assert [row.split("\t")[status] for row in table[1:]] == [
        "done",
        "failed",
        "done",
        "done",
    ], said


def test_jobs_of_workers_and_a_lost_node(environment, data, out):
    root, atlas, local = data
    more = ["--executor", "slurm", "--slurm-jobs", "2", "--n-procs", "2"]
    more += ["--mem-mb", "2000", "--slurm-walltime", "00:05:00"]
    job = start(root, out, atlas, *more, env=environment)
    limit = time.monotonic() + 90
    lost = []
    while not lost:
        assert time.monotonic() < limit, "no worker of a job is at work"
        assert job.poll() is None, job.communicate()
        # Jobs are no children of the command, so the node is asked for.
        for node in ("n1", "n2"):
            there = on_node(node, environment)
            if any(long_runs.position(p)[1] > 2**20 for p in there):
                lost = [node, *there]
                break
        time.sleep(0.01)
    asked = slurm(environment, "squeue", "-h", "-n", "dask-worker", "-o", "%P %l %C")
    assert asked.splitlines() == ["main 5:00 2"] * 2
    # The node is lost: all that runs on it, and the daemon that would tell.
    node, *there = lost
    daemon = Path(environment["SLURM_CONF"]).with_name(f"d.{node}.pid")
    for process in [int(daemon.read_text()), *there]:
        kill(process)
    reason = [f"nodename={node}", "state=down", "reason=lost"]
    slurm(environment, "scontrol", "update", *reason)
    code, said, err = long_runs.end(job, seconds=120)
    assert code == 0, said + err
    assert "4  extracted" in said
    assert "Traceback" not in err
    assert long_runs.outputs(out) == local
    assert not long_runs.leftovers(out)
    wait_for_queue(environment)  # no job is left behind


def test_jobs_that_slurm_refuses(environment, data, out):
    root, atlas, _ = data
    more = ["--executor", "slurm", "--slurm-partition", "nowhere"]
    code, _, err = long_runs.end(start(root, out, atlas, *more, env=environment))
    assert code == 64, err
    assert "SLURM does not take the jobs" in err
    assert "--slurm-partition" in err
    assert "Traceback" not in err


def on_node(node, environment):
    """Ids of the processes of jobs on a node, by what SLURM gave them."""
    wanted = f"SLURMD_NODENAME={node}".encode()
    ours = f"SLURM_CONF={environment['SLURM_CONF']}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in words and ours in words:
                found.append(int(folder.name))
    return found


def kill(process):
    with contextlib.suppress(ProcessLookupError):  # it went with its parent
        os.kill(process, signal.SIGKILL)
