"""Runs that take long enough to be killed in the middle, and who works on them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from isal import igzip

from support import datasets

COMMAND = str(Path(sys.executable).with_name("bids_roi"))
# Figures take longer than all the rest.
PLAIN = ("participant", "--no-report")
SHAPE = (64, 64, 40)
N_VOLUMES = 120


def write_long_dataset(folder, n_participants=3):
    """Runs of 80 MB once decompressed: long enough to be caught at it.

    Returns the derivative and the value of --atlas-file. The atlas is on the runs'
    grid: what would move it there takes as long to import as a run to read.
    """
    names = [f"sub-{n:02d}_task-rest" for n in range(1, n_participants + 1)]
    root = datasets.write_dataset(folder / "in", names)
    rng = np.random.default_rng(0)
    volumes = rng.integers(500, 504, (4, int(np.prod(SHAPE)))).astype("<f4")
    first = min(root.rglob("*_bold.nii.gz"))
    small = folder / "small.nii"
    datasets.write_image(
        small, np.zeros((*SHAPE, 2), "f4"), datasets.oblique(), repetition_time=2.0
    )
    header = bytearray(small.read_bytes()[:352])
    header[48:50] = N_VOLUMES.to_bytes(2, "little")  # dim[4]
    small.unlink()
    with igzip.open(first, "wb", 1) as file:
        file.write(header)
        for number in range(N_VOLUMES):
            file.write(volumes[number % 4].tobytes())
    mask = np.ones(SHAPE, "u1")
    for path in sorted(root.rglob("*_bold.nii.gz")):
        if path != first:
            path.unlink()
            os.link(first, path)
        name = path.name.replace("desc-preproc_bold", "desc-brain_mask")
        datasets.write_image(path.with_name(name), mask, datasets.oblique())
    labels = np.zeros(SHAPE, "i4")
    labels[tuple(map(slice, datasets.SHAPE))] = datasets.labels()
    return root, datasets.write_atlas(folder / "atlas", volume=labels)


LAUNCHED = []


def launch(*arguments, **options):
    """Start the command in a process group of its own, as a shell does."""
    job = subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    LAUNCHED.append(job)
    return job


def start(root, out, atlas, *more, **options):
    """Launch the participant level without figures."""
    return launch(root, out, *PLAIN, "--atlas-file", atlas, *more, **options)


def make_data(folder, n_participants=3):
    """Long runs, the atlas, and the outputs of a call in which nothing happens."""
    root, atlas = write_long_dataset(folder, n_participants)
    out = place_out(root, "undisturbed")
    code, _, err = end(start(root, out, atlas, "--executor", "serial"))
    assert code == 0, err
    return root, atlas, outputs(out)


def place_out(root, name):
    """A folder beside that of the data: from all, links to the input are the same."""
    return root.parents[1] / f"{root.parent.name}-{name}"


def end_all():
    """End what a failed test left behind."""
    while LAUNCHED:
        job = LAUNCHED.pop()
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.communicate()
        for stream in (job.stdout, job.stderr):
            stream.close()


def descendants(process):
    """Ids of all processes below one, by the children that /proc tells of its threads.

    All that /proc has would take longer to read than a look may take.
    """
    found, new = [], [process]
    while new:
        new = [child for parent in new for child in _children(parent)]
        found += new
    return [child for child in found if is_alive(child)]


def _children(process):
    found = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def workers(job):
    """Ids of the processes that multiprocessing has started for a job."""
    places = {p: Path(f"/proc/{p}/cmdline") for p in descendants(job.pid)}
    return [p for p, place in places.items() if b"spawn_main" in place.read_bytes()]


def position(process):
    """Name of the BOLD file that a process has open, and how far it is, bytes."""
    try:
        for fd in Path(f"/proc/{process}/fd").iterdir():
            if "_bold.nii" in (name := fd.readlink().name):
                info = Path(f"/proc/{process}/fdinfo/{fd.name}").read_text()
                return name, int(info.split()[1])
    except OSError:
        pass
    return "", 0


def worker_at(job, word="_bold.nii", seconds=30):
    """Wait until a job is in the middle of a BOLD file; return the process's id.

    That is the job itself or one below it. Planning reads headers only.
    """
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        for process in [*descendants(job.pid), job.pid]:
            name, read = position(process)
            if word in name and read > 3 * 2**20:
                return process
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)  # a file is read for 200 ms
    msg = f"nobody is at {word} within {seconds} s"
    raise AssertionError(msg)


def end(job, seconds=60):
    """Wait for a job; return exit code, standard output and error."""
    try:
        out, err = job.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        raise
    return job.returncode, out, err


def wait_until_gone(processes, seconds=5):
    limit = time.monotonic() + seconds
    while any(is_alive(process) for process in processes):
        assert time.monotonic() < limit, "a process lives on"
        time.sleep(0.02)


def is_alive(process):
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def outputs(folder):
    """All files but the records, which tell seconds and memory."""
    found = datasets.snapshot(folder)
    return {k: v for k, v in found.items() if not k.startswith("logs")}


def leftovers(folder):
    return [p for p in Path(folder).rglob("*") if p.name.endswith(".tmp")]
