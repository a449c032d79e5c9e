"""Whole calls in which something goes wrong: said, contained, and put right by the same
command, which then leaves the very bytes of a call in which nothing went wrong.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import datasets
from support.broken_disk import folder_for_all
from support.fault_tools import files_of, flip_middle, leftovers

from bids_roi.outputs.records import (
    Record,
    read_all_records,
    read_records,
    write_records,
)

RUNS = [f"sub-0{n}_task-{task}" for n in (1, 2, 3) for task in ("nback", "rest")]
FULL = "No space left on device"
NOBODY = 65534
FIRST = "sub-01/func/sub-01_task-nback"


@pytest.fixture(scope="module")
def place():
    with folder_for_all(0o755) as folder:
        yield folder


@pytest.fixture(scope="module")
def model(place):
    """A dataset with confounds."""
    root = datasets.write_dataset(place / "model", [])
    for seed, run in enumerate(RUNS):
        rng = np.random.default_rng(seed)
        name = f"{run}_space-{datasets.SPACE}"
        datasets.write_run(root, name, datasets.bold(seed).astype(np.float32))
        fd = ["n/a", *(f"{x:.3f}" for x in rng.uniform(0, 0.6, 11))]
        rows = [f"{x}\t{i % 5}\t{i * i % 7}" for i, x in enumerate(fd)]
        folder = root / run.split("_")[0] / "func"
        (folder / f"{run}_desc-confounds_timeseries.tsv").write_text(
            "\n".join(["framewise_displacement\tcsf\twhite_matter", *rows]) + "\n"
        )
    return root


class Site:
    """A copy of the dataset and an output folder, as far apart as everywhere else."""

    def __init__(self, folder, model, atlas, server):
        self.root, self.out, self.server = folder / "in", folder / "out", server
        self.model, self.expected = model, {}
        shutil.copytree(model, self.root)
        self.arguments = [self.root, self.out, "participant", "--atlas-file", atlas]
        self.arguments += ["--fd-threshold", "0.5", "--no-report"]

    def run(self, *more, **fault):
        return self.server.run(*self.arguments, *more, **fault)

    def find(self, pattern):
        (path,) = self.root.glob(pattern)
        return path

    def restore(self, path):
        shutil.copy2(self.model / path.relative_to(self.root), path)

    def check_whole(self):
        """What is there under a final name is whole, and nothing else is there."""
        found = files_of(self.out)
        assert {name: self.expected.get(name) for name in found} == found
        assert leftovers(self.out) == []

    def put_right(self, **fault):
        """Run the same command without a fault; the tree is that of a calm call."""
        done = self.run(**fault)
        assert done.returncode == 0, done.stderr
        assert files_of(self.out) == self.expected
        assert leftovers(self.out) == []
        statuses = [record.status for record in read_all_records(self.out)]
        assert statuses == ["done"] * len(RUNS)

    def check_failed(self, done, *words, n_done=5):
        """One line says what, where and what to do; the other runs are there."""
        assert done.returncode == 1, done.stderr
        for word in words:
            assert word in done.stderr
        assert "Traceback" not in done.stderr
        statuses = [record.status for record in read_all_records(self.out)]
        assert statuses.count("done") == n_done
        self.check_whole()


@pytest.fixture(scope="module")
def expected(place, model, fault_server):
    calm = Site(
        place / "calm", model, datasets.write_atlas(place / "atlas"), fault_server
    )
    done = calm.run()
    assert done.returncode == 0, done.stderr
    found = files_of(calm.out)
    assert len([name for name in found if name.endswith("timeseries.tsv")]) == len(RUNS)
    return found


NUMBERS = itertools.count()


@pytest.fixture
def site(place, model, fault_server, expected):
    atlas = place / "atlas" / f"tpl-{datasets.SPACE}_atlas-Toy_dseg.nii.gz"
    atlas = f"{atlas},{str(atlas).replace('.nii.gz', '.tsv')}"
    site = Site(place / f"site{next(NUMBERS)}", model, atlas, fault_server)
    site.expected = expected
    return site


STAGES = {
    "what is there already": "bids_roi.participant.run.Existing",
    "confounds": "bids_roi.participant.confounds.prepare",
    "atlas mapping": "bids_roi.participant.extraction.find_partition",
    "mask": "bids_roi.participant.extraction.read_mask_of",
    "reduction": "bids_roi.participant.extraction.reduce_image",
    "cleaning": "bids_roi.participant.cleaning.clean_series",
    "records": "bids_roi.participant.run.write_records",
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_inside_a_stage_costs_its_run_only(stage, site):
    done = site.run(**{"raise": STAGES[stage]})
    told = f"RuntimeError: injected into {STAGES[stage]}"
    site.check_failed(done, FIRST, told)
    site.put_right()


def cut_header(path):
    path.write_bytes(path.read_bytes()[:40])


def cut_data(path):
    path.write_bytes(path.read_bytes()[:-2000])


def flip_bit(path):
    path.write_bytes(flip_middle(path.read_bytes()))


def repeat_column(path):
    path.write_text(path.read_text().replace("csf\t", "white_matter\t"))


def lengthen(path):
    with path.open("a") as file:
        file.writelines("0.1\t1\t2\n" for _ in range(5000))


def pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = [
    (cut_header, "_desc-preproc_bold.nii.gz", "it is damaged or cut short"),
    (cut_data, "_desc-preproc_bold.nii.gz", "the file ends in volume"),
    (flip_bit, "_desc-brain_mask.nii.gz", "_desc-brain_mask.nii.gz: the "),
    (repeat_column, "_desc-confounds_timeseries.tsv", "occur more than once"),
    (lengthen, "_desc-confounds_timeseries.tsv", "the table has more than 1012 rows"),
    (pipe, "_desc-confounds_timeseries.tsv", "no file but a pipe"),
    (Path.unlink, "_desc-brain_mask.nii.gz", "no brain mask"),
]


@pytest.mark.parametrize(
    ("damage", "suffix", "told"), DAMAGES, ids=[d.__name__ + s for d, s, _ in DAMAGES]
)
def test_a_damaged_input_costs_its_run_only(damage, suffix, told, site):
    path = site.find(f"{FIRST}*{suffix}")
    damage(path)
    site.check_failed(site.run(), f"{FIRST}", told)
    assert not list(site.out.glob(f"{FIRST}*timeseries.*"))
    path.unlink(missing_ok=True)
    site.restore(path)
    site.put_right()


@pytest.mark.parametrize(
    ("way", "told"), [("remove", "it could be before"), ("truncate", "truncated")]
)
def test_input_that_goes_while_others_are_processed(way, told, site):
    """Between planning, which saw it whole, and its turn."""
    victim = site.find("sub-01/func/*rest*preproc_bold.nii.gz")
    done = site.run(at=8, then=way, path=str(victim))
    site.check_failed(done, f"{victim}: ", told)
    site.restore(victim)
    site.put_right()


@pytest.fixture
def disk(site):
    """Mount a tmpfs as the output folder; change its options by mounting again."""
    site.out.mkdir()
    mounted = []

    def mount(options):
        options = f"remount,{options}" if mounted else options
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", site.out]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
        mounted.append(site.out)

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", site.out], check=True)


@pytest.mark.parametrize("kilobytes", [16, 60, 100])
def test_disk_full(kilobytes, site, disk):
    disk(f"size={kilobytes}k")
    done = site.run()
    assert done.returncode in (1, 73), done.stderr
    assert f"the file cannot be written ({FULL})" in done.stderr
    assert "Check the folder's permissions and free space." in done.stderr
    assert "Traceback" not in done.stderr
    site.check_whole()
    disk("size=64m")
    site.put_right()


def test_no_space_at_each_of_the_writes(site):
    """Root file, sidecar, table or record: whichever write is the first to fail."""
    codes = set()
    for at in np.random.default_rng(3).permutation(np.arange(1, 24))[:12].tolist():
        shutil.rmtree(site.out, ignore_errors=True)
        done = site.run("--participant-label", "01", at=at, then="full")
        codes.add(done.returncode)
        assert done.returncode == 0 or FULL in done.stderr
        assert "Traceback" not in done.stderr
        site.check_whole()
    assert codes >= {73}
    assert codes <= {0, 1, 73}
    site.put_right()


def test_read_only_output(site, disk):
    disk("size=64m")
    disk("ro")
    done = site.run()
    assert done.returncode == 73
    assert "cannot be written (Read-only file system)" in done.stderr
    assert "Check its permissions" in done.stderr
    disk("rw")
    site.put_right()


@pytest.mark.parametrize("name", ["_timeseries.tsv", "_timeseries.json", "_dseg.tsv"])
def test_a_folder_where_a_file_should_be(name, site):
    """Each kind of file of a run; the rename fails, and leaves nothing."""
    (key,) = [k for k in site.expected if k.startswith(FIRST) and name in k]
    target = site.out / key
    target.mkdir(parents=True)
    done = site.run()
    site.check_failed(done, f"{target}: the file cannot be written (Is a directory)")
    target.rmdir()
    site.put_right()


def test_logs_that_cannot_be_written(site):
    site.out.mkdir()
    (site.out / "logs").write_text("in the way")
    done = site.run()
    assert done.returncode == 73
    assert "/logs/sub-01" in done.stderr
    assert "Check the folder's permissions" in done.stderr
    (site.out / "logs").unlink()
    site.put_right()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")
def test_permission_denied(site):
    site.out.mkdir()
    site.out.chmod(0o777)
    bold = site.find(f"{FIRST}*preproc_bold.nii.gz")
    bold.chmod(0)
    folder = site.root / "sub-02" / "func"
    folder.chmod(0)
    words = [f"{bold}: the file cannot be read (Permission denied). Check its perm"]
    words.append(
        f"{folder}: the folder cannot be read (Permission denied). Check its perm"
    )
    site.check_failed(site.run(user=NOBODY), *words, n_done=3)
    bold.chmod(0o644)
    folder.chmod(0o755)
    site.put_right(user=NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")
def test_output_of_another_user(site):
    done = site.run(user=NOBODY)
    assert done.returncode == 73
    assert f"{site.out}: the output folder cannot be written (Perm" in done.stderr
    assert not site.out.exists()


def test_killed_at_any_write_and_run_again(site):
    """SIGKILL while a file is half-way to its name, again and again in one folder."""
    half_written = 0
    for at in np.random.default_rng(7).integers(1, 14, 8).tolist():
        done = site.run(at=at, then="kill")
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        half_written += len(leftovers(site.out))
        whole = {k: v for k, v in files_of(site.out).items() if not k.endswith(".tmp")}
        assert {name: site.expected.get(name) for name in whole} == whole
    assert half_written >= 4
    site.put_right()


def test_everything_killed_at_any_moment_with_workers(site):
    workers = ("--executor", "processes", "--n-procs", "2")
    moments = np.random.default_rng(9).integers(0, len(site.expected), 4)
    killed = 0
    for n_files in sorted(moments.tolist()):
        done = site.run(*workers, files=n_files, path=str(site.out))
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        killed += done.returncode != 0
        whole = {k: v for k, v in files_of(site.out).items() if not k.endswith(".tmp")}
        assert {name: site.expected.get(name) for name in whole} == whole
    assert killed
    done = site.run(*workers)
    assert done.returncode == 0, done.stderr
    site.put_right()


def test_jobs_on_one_participant_at_the_same_time(site):
    for done in site.run(copies=4):
        assert done.returncode == 0, done.stderr
    site.put_right()


@pytest.mark.parametrize("years", [-30, 10])
def test_clocks_that_are_wrong(years, site):
    """Times of input and output in the past or the future change nothing."""
    assert site.run().returncode == 0
    then = time.time() + years * 365 * 24 * 3600
    for path in [*site.out.rglob("*"), *site.root.rglob("*.nii.gz")]:
        os.utime(path, (then, then))
    site.put_right()  # the tables are read, as of a copy, and their records renewed
    logs = {p: p.stat().st_mtime for p in site.out.rglob("*.jsonl")}
    site.put_right()
    assert {p: p.stat().st_mtime for p in site.out.rglob("*.jsonl")} == logs


def test_an_unforeseen_fault_is_no_traceback(site):
    done = site.run(**{"raise": "bids_roi.participant.level.find_derivative"})
    assert done.returncode == 1
    assert "bids_roi: unexpected RuntimeError: injected" in done.stderr
    assert "please report it" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in site.run("-vv", **{"raise": STAGES["mask"]}).stderr


WRITERS = """
import os, sys, time
from pathlib import Path
from bids_roi.outputs.records import Record, write_records
out, start, writers = Path(sys.argv[1]), time.time() + 0.1, []
for me in range(4):
    writers.append(os.fork())
    if writers[-1]:
        continue
    code = 1
    try:
        time.sleep(max(0, start - time.time()))
        for n in range(20):
            record = Record("sub-01/func/sub-01_bold.nii.gz", f"A{me}n{n}", "done",
                            inputs=("x",), outputs=(f"{me}/{n}.tsv",))
            shared = Record(record.run, "Shared", "done", inputs=("x",),
                            outputs=record.outputs)
            write_records(out, record.run, [record, shared])
        code = 0
    finally:
        os._exit(code)
assert [os.waitpid(writer, 0)[1] for writer in writers] == [0] * 4
"""


def test_records_of_many_writers_at_once_are_all_kept(tmp_path):
    argv = [sys.executable, "-c", WRITERS, tmp_path]
    subprocess.run(argv, check=True, timeout=60)
    records = {r.atlas: r for r in read_records(tmp_path, "sub-01/func/sub-01_bold.x")}
    assert set(records) == {
        "Shared",
        *(f"A{m}n{n}" for m in range(4) for n in range(20)),
    }
    outputs = {f"{m}/{n}.tsv" for m in range(4) for n in range(20)}
    assert set(records["Shared"].outputs) == outputs
    # The next writer makes one file of what is left.
    write_records(tmp_path, "sub-01/func/sub-01_bold.nii.gz", [records["Shared"]])
    assert len(list((tmp_path / "logs/sub-01").iterdir())) == 1


def test_later_record_wins_without_a_clock_and_failure_is_not_hidden(tmp_path):
    run = "sub-01/func/sub-01_bold.nii.gz"
    failed = Record(run, "A", "failed", "no space")
    write_records(tmp_path, run, [failed])
    (path,) = (tmp_path / "logs/sub-01").iterdir()
    before = path.read_text()
    done = Record(run, "A", "done", inputs=("x",), outputs=("a.tsv",))
    write_records(tmp_path, run, [done])
    assert [r.status for r in read_records(tmp_path, run)] == ["done"]
    path.write_text(before)  # a slow disk shows it again
    assert [r.status for r in read_records(tmp_path, run)] == ["done"]
    # Two that knew nothing of each other: the failure shows.
    rows = [json.loads(before), {**json.loads(before), "status": "done"}]
    for number, row in enumerate(rows):
        other = path.with_name(f"sub-02_bold.{number:012x}.jsonl")
        other.write_text(json.dumps({**row, "run": "sub-02/func/sub-02_bold.nii.gz"}))
    found = read_records(tmp_path, "sub-01/func/sub-02_bold.nii.gz")
    assert found == []
    assert [r.status for r in read_all_records(tmp_path)] == ["done", "failed"]
