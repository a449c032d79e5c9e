"""What it costs to find and plan the runs of a large dataset.

    python benchmarks/discovery.py                  1,000 and 10,000 participants
    python benchmarks/discovery.py --quick          20, to see that it runs
    python benchmarks/discovery.py --paired DIR     planning, beside the clone DIR

Every participant has one run in two spaces with all that fMRIPrep writes beside it (39
files): images of a few voxels, so that headers can be read, and sidecars and confounds
as fMRIPrep writes them, real ones where ``../shared/data`` is there. Measured are the
seconds from the launch of the command until the first run is done, in a worker process
of its own, and for planning alone (``--dry-run``) participants per CPU second and the
peak memory, which is to be flat: half-way through and at the end. Paired, both versions
plan the same trees in turn: 100 participants of 100 files each, and one of 584 runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

SPACE = "MNI152NLin2009cAsym"
SHAPE = (6, 7, 5)
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "trees"
TREE = SHARED / "ds005239-fmriprep-23.2.0_tree.tar.gz"
COMMAND = str(Path(sys.executable).with_name("bids_roi"))

ANAT = """\
desc-brain_mask.json desc-brain_mask.nii.gz desc-preproc_T1w.json
desc-preproc_T1w.nii.gz
dseg.nii.gz from-MNI152NLin2009cAsym_to-T1w_mode-image_xfm.h5
from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.h5 hemi-L_pial.surf.gii
hemi-R_pial.surf.gii hemi-L_white.surf.gii hemi-R_white.surf.gii
label-CSF_probseg.nii.gz label-GM_probseg.nii.gz label-WM_probseg.nii.gz
space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz
space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz
"""
FUNC = """\
desc-coreg_boldref.nii.gz desc-hmc_boldref.nii.gz
from-boldref_to-T1w_mode-image_desc-coreg_xfm.txt
from-orig_to-boldref_mode-image_desc-hmc_xfm.txt hemi-L_space-fsnative_bold.func.gii
hemi-R_space-fsnative_bold.func.gii
"""


def real_sidecars() -> tuple[bytes, bytes]:
    """A BOLD sidecar and a table of confounds, real where they are to be had."""
    bold, table = json.dumps({"RepetitionTime": 2.0, "TaskName": "rest"}).encode(), b""
    if TREE.is_file():
        with tarfile.open(TREE) as archive:
            for member in archive:
                if member.name.endswith("desc-preproc_bold.json"):
                    bold = archive.extractfile(member).read()
                elif member.name.endswith("desc-confounds_timeseries.tsv"):
                    table = archive.extractfile(member).read()
    return bold, table or b"framewise_displacement\n" + b"0.1\n" * 12


def write_tree(root: Path, n_participants: int) -> Path:
    """Write the derivative; return the value of --atlas-file for an atlas of it."""
    from bids_roi.images.nifti import write_image

    root.mkdir(parents=True)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    rng = np.random.default_rng(0)
    image = {}
    for name, data in {
        "bold": rng.normal(1000, 10, (*SHAPE, 12)).astype("f4"),
        "mask": np.ones(SHAPE, "u1"),
    }.items():
        path = root / f"{name}.nii.gz"
        write_image(path, data, affine, repetition_time=2.0)
        image[name] = path.read_bytes()
        path.unlink()
    sidecar, confounds = real_sidecars()
    (root / "dataset_description.json").write_text(
        '{"Name": "large", "BIDSVersion": "1.9.0", "DatasetType": "derivative",'
        ' "GeneratedBy": [{"Name": "fMRIPrep", "Version": "23.2.0"}]}'
    )
    run = {"desc-confounds_timeseries.tsv": confounds}
    run["desc-confounds_timeseries.json"] = b"{}"
    for space in ("", f"space-{SPACE}_res-2_"):
        run[f"{space}desc-preproc_bold.nii.gz"] = image["bold"]
        run[f"{space}desc-preproc_bold.json"] = sidecar
        run[f"{space}desc-brain_mask.nii.gz"] = image["mask"]
        run[f"{space}desc-brain_mask.json"] = b"{}"
    run |= dict.fromkeys(FUNC.split(), b"")
    for number in range(n_participants):
        name = f"sub-{number:05d}"
        for folder in ("anat", "func", "figures"):
            (root / name / folder).mkdir(parents=True)
        for rest in ANAT.split():
            (root / name / "anat" / f"{name}_{rest}").touch()
        for rest, content in run.items():
            (root / name / "func" / f"{name}_task-rest_{rest}").write_bytes(content)
        (root / f"{name}.html").touch()
    atlas = root.parent / f"tpl-{SPACE}_atlas-Toy_dseg.nii.gz"
    labels = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 4 + 1
    write_image(atlas, labels.astype("i2"), affine)
    rows = "".join(f"{i}\tregion{i}\n" for i in range(1, 5))
    atlas.with_name(atlas.name.replace(".nii.gz", ".tsv")).write_text(
        f"index\tname\n{rows}"
    )
    return atlas


def command(root: Path, out: Path, atlas: Path, *more: str) -> list[str]:
    table = atlas.with_name(atlas.name.replace(".nii.gz", ".tsv"))
    start = [COMMAND, str(root), str(out), "participant", "--space", SPACE]
    return [*start, "--atlas-file", f"{atlas},{table}", *more]


def seconds_to_first(argv: list[str]) -> tuple[float, float]:
    """Seconds until the first run is planned, and until it is done."""
    began = time.time()
    planned = 0.0
    work = subprocess.Popen(
        [*argv, "--events", "-"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        for line in work.stdout:
            event = json.loads(line)["event"]
            if event == "plan" and not planned:
                planned = time.time() - began
            if event == "run":
                return planned, time.time() - began
    finally:
        work.terminate()
        work.stdout.close()
        work.wait()
    msg = "no run was done"
    raise RuntimeError(msg)


def plan_all(
    argv: list[str], n_runs: int, clone: Path | None = None
) -> tuple[float, float, float]:
    """CPU seconds; peak memory half-way and at the end, MB."""
    work = subprocess.Popen(
        [*argv, "--dry-run"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ({"PYTHONPATH": str(clone)} if clone else {}),
    )
    half, found = 0.0, 0
    for line in work.stdout:
        if line.startswith("sub-"):
            found += 1
            if found == n_runs // 2:
                half = peak_mb(work.pid)
    _, status, usage = os.wait4(work.pid, 0)
    work.returncode = status
    work.stdout.close()
    if status or found != n_runs:
        msg = f"{found} of {n_runs} runs were planned (status {status})"
        raise RuntimeError(msg)
    return usage.ru_utime + usage.ru_stime, half, usage.ru_maxrss / 1024


def compare(scratch: Path, clone: Path, rounds: int = 3) -> None:
    """CPU seconds of planning by the clone and by this version, in turn."""
    many, dense = scratch / "many", scratch / "dense"
    atlas = write_tree(many, 100)
    for figures in many.glob("sub-*/figures"):  # 100 files each
        for number in range(61):
            (figures / f"{figures.parent.name}_{number}.svg").touch()
    write_tree(dense, 1)
    (func,) = dense.glob("sub-*/func")
    for file in [path for path in func.iterdir() if "_desc-" in path.name]:
        for number in range(1, 584):
            name = file.name.replace("task-rest", f"task-rest_run-{number}")
            func.joinpath(name).hardlink_to(file)
    for what, root, n_runs in (
        ("100 participants", many, 100),
        ("584 runs", dense, 584),
    ):
        argv = command(root, scratch / "out", atlas)
        for _ in range(rounds):
            before, _, _ = plan_all(argv, n_runs, clone)
            after, _, peak = plan_all(argv, n_runs)
            say(f"{what:16}  {before:6.2f} -> {after:6.2f} CPU s, {peak:.0f} MB")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def peak_mb(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 participants")
    parser.add_argument("--paired", type=Path, metavar="DIR", help="another version")
    parser.add_argument("--folder", type=Path, help="where the trees are written")
    given = parser.parse_args()
    sizes = (20,) if given.quick else (1000, 10_000)
    scratch = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        if given.paired:
            compare(scratch, given.paired)
            return
        say(
            "participants  asked for  first planned  first done  planned/s  peak memory"
        )
        for n in sizes:
            root, out = scratch / f"in{n}", scratch / "out"
            atlas = write_tree(root, n)
            one = ["--participant-label", f"{n // 2:05d}"]
            for what, more in (("one", one), ("all", [])):
                argv = command(root, out, atlas, *more)
                if not given.quick:
                    seconds_to_first(argv)  # what is read is in memory for the others
                trials = []
                for _ in range(1 if given.quick else 5):
                    shutil.rmtree(out, ignore_errors=True)
                    trials.append(seconds_to_first(argv))
                planned, done = (sorted(t)[len(t) // 2] for t in zip(*trials))
                say(f"{n:12,d}  {what:9}  {planned:11.2f} s  {done:8.2f} s")
            cpu, half, peak = plan_all(command(root, out, atlas), n)
            row = f"{n:12,d}  {'planning':36}  {n / cpu:9.0f}"
            say(f"{row}  {half:.0f} -> {peak:.0f} MB")
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
