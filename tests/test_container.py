"""What the image promises, asked of a running container.

Slow, so only where ``BIDS_ROI_TEST_CONTAINER=1``. ``BIDS_ROI_TEST_IMAGE`` names an
image that is there; without it the image is built. Every container has a read-only root
with no writable /tmp, no network, and a uid that no passwd file knows (as root; else
one's own, so that what it writes can be removed again).
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bids_roi import __version__

if os.environ.get("BIDS_ROI_TEST_CONTAINER") != "1":
    pytest.skip("BIDS_ROI_TEST_CONTAINER is not 1", allow_module_level=True)

pytestmark = pytest.mark.container

ROOT = Path(__file__).parents[1]
SKIPPED = 77  # what the scripts in .ci return where something is not to be had
UID = 12345 if os.geteuid() == 0 else os.getuid()
GID = 12345 if os.geteuid() == 0 else os.getgid()


@pytest.fixture(scope="session")
def engine():
    """Docker or podman; skips where neither answers."""
    return run_script("engine").split()[-1]


@pytest.fixture(scope="session")
def image(engine):
    """The image under test, built once."""
    if name := os.environ.get("BIDS_ROI_TEST_IMAGE"):
        return name
    run_script("build-image")
    return f"bids_roi:{__version__}"


def run_script(name):
    done = subprocess.run([ROOT / ".ci" / name], capture_output=True, text=True)
    if done.returncode == SKIPPED:
        pytest.skip(done.stderr.splitlines()[-1].removeprefix("skipped: "))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def container(engine, image):
    """Run a command in the image and return its standard output."""
    options = ["--rm", "--network=none", "--read-only", f"--user={UID}:{GID}"]
    if engine == "podman":
        options.append("--read-only-tmpfs=false")  # what docker does
        if os.getuid() == UID:
            options.append("--userns=keep-id")

    def run(*command, entrypoint=None, mounts=(), environment=(), user=None):
        more = [f"--volume={mount}" for mount in mounts]
        more += [f"--env={variable}" for variable in environment]
        more += [f"--entrypoint={entrypoint}"] if entrypoint else []
        more += [f"--user={user}"] if user else []
        argv = [engine, "run", *options, *more, image, *command]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def python(container):
    """Run a line of Python in the image and return what it prints."""
    return lambda code, **more: container(
        "-c", code, entrypoint="/opt/venv/bin/python", **more
    )


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """A folder for what is mounted."""
    return tmp_path_factory.mktemp("container")


def output_folder(path):
    """Make a folder that the container's user may write into."""
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, UID, GID)
    return path


def inspect(engine, image, field):
    argv = [engine, "image", "inspect", image]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)[0][field]


def tree(folder):
    """Every file with a digest of what it holds."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_version_is_told_alike_everywhere(container, engine, image):
    labels = inspect(engine, image, "Config")["Labels"]
    assert container("--version").split()[-1] == __version__
    assert container("/version", entrypoint="cat").strip() == __version__
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "BSD-3-Clause"
    assert labels["org.opencontainers.image.revision"]


def test_help(container):
    assert "--participant-label" in container("--help")
    assert "demo" in container("--help", entrypoint="bids_roi_tools")


def test_descriptor(container):
    printed = container("--bids-exec-spec")
    assert printed == (ROOT / "boutiques.json").read_text(encoding="utf-8")


def test_default_user_is_not_root(engine, image):
    assert inspect(engine, image, "Config")["User"].split(":")[0] not in (
        "",
        "0",
        "root",
    )


def test_environment(python, engine, image):
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    environment = json.loads(python(code))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        assert environment[name] == "1"
    assert environment["LANG"] == "C.UTF-8"
    assert environment["PYTHONNOUSERSITE"] == "1"
    names = {v.partition("=")[0] for v in inspect(engine, image, "Config")["Env"]}
    assert "HOME" not in names, "it would hide the home of the user who runs it"


def test_nothing_to_build_with(python):
    code = (
        "import shutil, importlib.util as u;"
        "print([t for t in ('gcc', 'cc', 'make', 'git') if shutil.which(t)],"
        " [m for m in ('pip', 'setuptools', 'hatchling') if u.find_spec(m)])"
    )
    assert python(code).strip() == "[] []"


def test_all_bytecode_is_there(python):
    code = (
        "import sys, pathlib, importlib.util as u;"
        "site = next(p for p in sys.path if p.startswith('/opt/venv'));"
        "print([str(p) for p in pathlib.Path(site).rglob('*.py')"
        " if not pathlib.Path(u.cache_from_source(p)).exists()])"
    )
    assert python(code).strip() == "[]"


def test_files_are_readable_by_all(python):
    """Checked as root, which sees everything: modes, not luck."""
    code = (
        "import pathlib; print([str(p) for p in pathlib.Path('/opt').rglob('*')"
        " if not p.is_symlink() and p.stat().st_mode & 0o044 != 0o044])"
    )
    assert python(code, user="0:0").strip() == "[]"


def test_packages_of_the_host_do_not_leak_in(container, work):
    """Apptainer brings PYTHONPATH and the home folder along."""
    packages = work / "packages"
    for name in ("argparse", "numpy", "bids_roi"):
        (packages / name).mkdir(parents=True, exist_ok=True)
        (packages / name / "__init__.py").write_text("raise SystemExit('leaked')")
    printed = container(
        "--version", mounts=[f"{packages}:/leak:ro"], environment=["PYTHONPATH=/leak"]
    )
    assert printed.split()[-1] == __version__


def test_libraries_import(python):
    """Also with nowhere to write and the libraries' own tests removed."""
    code = (
        "import importlib.metadata as m, re;"
        "names = [re.match('[A-Za-z0-9_.-]+', r)[0] for r in m.requires('bids_roi')"
        " if 'extra' not in r and not r.startswith('templateflow')];"  # fills its home
        "[__import__({'pybids': 'bids'}.get(n, n)) for n in names];"
        "import scipy.sparse, scipy.signal, scipy.ndimage, scipy.stats; print('all')"
    )
    assert python(code).strip() == "all"


@pytest.fixture(scope="session")
def demo(container, work):
    """The demo, made and run by the image itself."""
    folder = output_folder(work / "demo")
    container("demo", "/out", entrypoint="bids_roi_tools", mounts=[f"{folder}:/out"])
    return folder


@pytest.fixture(scope="session")
def results(container, demo, work):
    """Both levels on the demo's dataset, mounted read-only."""
    data = demo / "dataset"
    before = tree(data)
    (atlas,) = (data / "atlas").rglob("*_dseg.nii.gz")
    table = atlas.with_name(atlas.name.replace(".nii.gz", ".tsv"))
    if not table.exists():
        (table,) = (data / "atlas").rglob("*_dseg.tsv")
    atlas_file = ",".join(f"/data/{path.relative_to(data)}" for path in (atlas, table))
    out = output_folder(work / "out")
    mounts = [f"{data}:/data:ro", f"{out}:/out"]
    common = ["/data/fmriprep", "/out"]
    container(*common, "participant", "--atlas-file", atlas_file, mounts=mounts)
    container(*common, "group", mounts=mounts)
    assert tree(data) == before
    return out


def test_demo(demo):
    assert list((demo / "derivatives").glob("sub-*/**/*_timeseries.tsv"))


def test_participant_and_group(results):
    assert list(results.glob("sub-*/**/*_timeseries.tsv"))
    assert list(results.glob("group_*"))


def test_same_bytes_as_the_demo(results, demo):
    """The same data and options through other paths give the same series."""
    series = {p.relative_to(results): p for p in results.rglob("*_timeseries.tsv")}
    assert series
    for name, path in series.items():
        assert path.read_bytes() == (demo / "derivatives" / name).read_bytes()


def test_outputs_name_the_image(results):
    description = json.loads((results / "dataset_description.json").read_text())
    container = description["GeneratedBy"][0]["Container"]
    assert container == {"Type": "docker", "Tag": f"bids_roi:{__version__}"}


def test_outputs_belong_to_the_user(results):
    paths = [results, *results.rglob("*")]
    assert {(p.lstat().st_uid, p.lstat().st_gid) for p in paths} == {(UID, GID)}


def test_output_is_valid_bids(results):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    argv = [validator, "--format", "json", results]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert json.loads(done.stdout)["issues"]["issues"] == [], done.stderr
