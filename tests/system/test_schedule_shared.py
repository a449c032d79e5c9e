"""Many jobs and one output folder, and the call that BABS makes."""

import os
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import datasets, long_runs
from support.calls import run
from support.long_runs import leftovers, outputs

from bids_roi.cli import main

LABELS = [f"{n:02d}" for n in range(1, 9)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight participants, the atlas, and the outputs of one call for all."""
    folder = tmp_path_factory.mktemp("eight")
    names = [f"sub-{label}_task-rest" for label in LABELS]
    root = datasets.write_dataset(folder / "in", names)
    atlas = datasets.write_atlas(folder / "atlas")
    words = [root, folder / "one", *long_runs.PLAIN, "--atlas-file", atlas]
    assert main([*map(str, words), "--executor", "serial"]) == 0
    return root, atlas, outputs(folder / "one")


def call(root, out, atlas, *more, **options):
    words = [root, out, *long_runs.PLAIN, "--atlas-file", atlas, *more]
    command = [long_runs.COMMAND, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_eight_jobs_at_once_into_one_folder(data):
    root, atlas, of_one_call = data
    out = root.parent / "shared"

    def job(label):
        return call(root, out, atlas, "--participant-label", f"sub-{label}")

    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(job, LABELS))
    assert [job.returncode for job in jobs] == [0] * 8, [job.stderr for job in jobs]
    assert all("1  extracted" in job.stdout for job in jobs)
    assert outputs(out) == of_one_call
    assert not leftovers(out)
    assert len(list((out / "logs").glob("sub-*/*.jsonl"))) == 8


def test_as_babs_calls_it(data, tmp_path):
    """One clone per participant, files as annex links, zipped results put together."""
    root, atlas, of_one_call = data
    together = tmp_path / "together"
    for label in LABELS[:2]:
        clone = tmp_path / f"job-{label}"
        annex = clone / ".git" / "annex"
        annex.mkdir(parents=True)
        given = clone / "inputs" / "data"
        # Only this participant's tree and the root level are present.
        for path in [*root.glob("*.json"), *(root / f"sub-{label}").rglob("*")]:
            if path.is_file():
                key = annex / f"KEY-{path.name}"
                key.write_bytes(path.read_bytes())
                key.chmod(0o444)
                link = given / path.relative_to(root)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.path.relpath(key, link.parent))
        # Others are links whose content was never fetched.
        other = given / "sub-99" / "func" / "sub-99_task-rest_desc-preproc_bold.nii.gz"
        other.parent.mkdir(parents=True)
        other.symlink_to("../../../../.git/annex/absent")
        (tmp_path / "templates").mkdir(exist_ok=True)
        done = call(
            clone / "inputs" / "data",
            clone / "outputs",
            atlas,
            "--participant-label",
            f"sub-{label}",
            "--n-cpus",
            "1",
            cwd=clone,
            env={
                **os.environ,
                "TEMPLATEFLOW_HOME": str(tmp_path / "templates"),
                "HOME": "/nonexistent",
            },
        )
        assert done.returncode == 0, done.stderr
        archive = tmp_path / f"sub-{label}.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted((clone / "outputs").rglob("*")):
                file.write(path, path.relative_to(clone / "outputs"))
        with zipfile.ZipFile(archive) as file:
            file.extractall(together)
    found = outputs(together)
    # Where the input was is all that differs from a call in place.
    mine = {
        name: content
        for name, content in of_one_call.items()
        if not name.startswith(tuple(f"sub-{label}" for label in LABELS[2:]))
    }
    assert set(found) == set(mine)
    differing = {name for name in found if found[name] != mine[name]}
    assert differing <= {"dataset_description.json"}


def test_root_files_do_not_tell_whose_job_wrote_them(data, capsys):
    root, atlas, _ = data
    found = []
    for label in LABELS[:2]:
        out = root.parent / f"alone-{label}"
        words = [root, out, *long_runs.PLAIN, "--atlas-file", atlas]
        run(capsys, *words, "--participant-label", label)
        found.append({k: v for k, v in outputs(out).items() if "/" not in k and v})
    first, second = ({k for k in f if "sub-" not in k} for f in found)
    assert first == second
    assert all(found[0][name] == found[1][name] for name in first)
