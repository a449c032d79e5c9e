"""The image under Apptainer, alone and as a SLURM array, with the documented commands.

Slow, so only where ``BIDS_ROI_TEST_APPTAINER=1``; ``.ci/apptainer-test`` sets it. An
ordinary user runs the image with nothing of the host's environment and with a home and
/tmp of 64 MB in memory, as ``--cleanenv --containall`` makes them.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.engines import ROOT, build_with_atlas, documented_command, run_script

if os.environ.get("BIDS_ROI_TEST_APPTAINER") != "1":
    pytest.skip("BIDS_ROI_TEST_APPTAINER is not 1", allow_module_level=True)

pytestmark = pytest.mark.container

SLURM_TOOLS = ROOT.parent / "shared" / "tools"
USER = 1000 if os.geteuid() == 0 else os.getuid()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Folder that the user of Apptainer may write into, with the demo's data in it."""
    folder = tmp_path_factory.mktemp("apptainer")
    (folder / "archive").mkdir()
    subprocess.run(
        [Path(sys.executable).with_name("bids_roi_tools"), "demo", folder / "demo"],
        check=True,
        capture_output=True,
    )
    if os.geteuid() == 0:
        os.chown(folder, USER, USER)
    return folder


@pytest.fixture(scope="module")
def run(work):
    """Run a documented command in the folder, where ``apptainer`` is the user's."""
    programs = work / "bin"
    programs.mkdir()
    script = ROOT / ".ci" / "apptainer"
    (programs / "apptainer").write_text(f'#!/bin/sh\nexec {script} "$@"\n')
    (programs / "apptainer").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "APPTAINER_SHARED": str(work),
    }

    def run(command, **more):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            capture_output=True,
            text=True,
            cwd=work,
            env=environment | more,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def sif(work, run):
    """The image with an atlas, converted as the page says."""
    tag = f"{run_script('version').strip()}-apptainer"
    archive = work / "bids_roi.tar"
    name = build_with_atlas(work / "archive", tag, archive)
    archive.chmod(0o644)
    run(documented_command("apptainer-build"))
    engine = run_script("engine").strip()
    subprocess.run([engine, "image", "rm", "--force", name], check=False)
    archive.unlink()
    return work / "bids_roi.sif"


def output_folder(path):
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, USER, USER)
    return path


def documented(name, work, out):
    places = [("/path/to/fmriprep", work / "demo" / "dataset" / "fmriprep")]
    return documented_command(name, [*places, ("/path/to/results", out)])


def series(folder):
    """Time series, and what else does not depend on when and where it was made."""
    paths = [*folder.rglob("*.tsv"), *folder.glob("*.json"), folder / ".bidsignore"]
    return {p.relative_to(folder): p.read_bytes() for p in paths}


@pytest.fixture(scope="module")
def results(sif, work, run):
    """Both levels, as the page says."""
    out = output_folder(work / "results")
    run(documented("apptainer", work, out))
    return out


def test_both_levels(results):
    assert len(list(results.glob("sub-*/**/*_atlas-Schaefer2018_*_timeseries.tsv"))) > 1
    assert list(results.glob("group_*.tsv"))


def test_outputs_belong_to_the_user(results):
    assert {p.lstat().st_uid for p in results.rglob("*")} == {USER}


def test_output_is_valid_bids(results):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    argv = [validator, "--format", "json", results]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert json.loads(done.stdout)["issues"]["issues"] == [], done.stderr


def test_surroundings_are_those_of_a_cluster(sif, run):
    """Otherwise the tests above would show little."""
    inside = "apptainer exec --cleanenv --containall bids_roi.sif"
    size = run(f"{inside} df --output=size -m /tmp").split()[-1]
    assert int(size) == 64
    code = "import os; print(os.access('/opt/venv', os.W_OK), os.getuid())"
    assert run(f'{inside} python -c "{code}"').split() == ["False", str(USER)]


def test_environment_of_the_host_does_not_leak_in(sif, work, run):
    """Without --cleanenv, the host's PYTHONPATH reaches the container."""
    leak = work / "leak"
    (leak / "numpy").mkdir(parents=True)
    (leak / "numpy" / "__init__.py").write_text("raise SystemExit('leaked')")
    command = f"apptainer run -B {leak}:{leak} bids_roi.sif --version"
    version = run(command, PYTHONPATH=str(leak), APPTAINERENV_PYTHONPATH=str(leak))
    assert version.strip() == run_script("version").strip()


@pytest.fixture(scope="module")
def cluster(work):
    """Two SLURM nodes on this machine, stopped afterwards."""
    if not (SLURM_TOOLS / "slurm-up").is_file():
        pytest.skip("no SLURM: the tool that starts one is absent")
    if os.geteuid() != 0:
        pytest.skip("no SLURM: only root can start one")
    for _ in range(120):  # of another test, on the same ports
        if subprocess.run(["pgrep", "-x", "slurmctld"], capture_output=True).returncode:
            break
        time.sleep(1)
    else:
        pytest.skip("no SLURM: another cluster holds its ports")
    folder = work / "slurm"
    done = subprocess.run(
        [SLURM_TOOLS / "slurm-up", folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield {"SLURM_CONF": done.stdout.strip().splitlines()[-1]}
    # It finds the daemons by what they wrote into the folder, which stays till then.
    subprocess.run([SLURM_TOOLS / "slurm-down", folder], check=True)
    for _ in range(100):
        if subprocess.run(["pgrep", "-x", "slurmctld"], capture_output=True).returncode:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the SLURM controller did not stop")
    shutil.rmtree(folder, ignore_errors=True)


def test_slurm_array(sif, results, work, run, cluster):
    """One task per participant, then the group: the bytes of the single run."""
    out = output_folder(work / "array")
    run(documented("slurm", work, out), **cluster)
    deadline = time.monotonic() + 300
    while run("squeue --noheader", **cluster).strip():
        assert time.monotonic() < deadline, run("squeue", **cluster)
        time.sleep(0.5)
    logs = "".join(path.read_text() for path in work.glob("bids_roi_*.log"))
    participants = len(list((work / "demo" / "dataset" / "fmriprep").glob("sub-*/")))
    assert len(list(work.glob("bids_roi_[0-9]*.log"))) == participants
    assert list(out.glob("group_*.tsv")), logs
    assert series(out) == series(results), logs
