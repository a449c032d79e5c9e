"""What the image promises, asked of a running container.

Slow, so only where ``BIDS_ROI_TEST_CONTAINER=1``. ``BIDS_ROI_TEST_IMAGE`` names an
image that is there; without it the image is built. Every container has a read-only root
with no writable /tmp, no network, 600 MB of memory, and a uid that no passwd file knows
(as root; else one's own, so that what it writes can be removed again).
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.engines import ROOT, build_with_atlas, documented_command, run_script

if os.environ.get("BIDS_ROI_TEST_CONTAINER") != "1":
    pytest.skip("BIDS_ROI_TEST_CONTAINER is not 1", allow_module_level=True)

pytestmark = pytest.mark.container

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
    return f"bids_roi:{run_script('version').strip()}"


@pytest.fixture(scope="session")
def version(image):
    """What the image was built as."""
    return image.rpartition(":")[2]


@pytest.fixture(scope="session")
def container(engine, image):
    """Run a command in the image and return its standard output."""
    options = ["--rm", "--network=none", "--read-only", f"--user={UID}:{GID}"]
    options.append("--memory=600m")
    if engine == "podman":
        options.append("--read-only-tmpfs=false")  # what docker does
        if os.getuid() == UID:
            options.append("--userns=keep-id")

    def run(*command, entrypoint=None, mounts=(), environment=(), user=None, of=image):
        more = [f"--volume={mount}" for mount in mounts]
        more += [f"--env={variable}" for variable in environment]
        more += [f"--entrypoint={entrypoint}"] if entrypoint else []
        more += [f"--user={user}"] if user else []
        argv = [engine, "run", *options, *more, of, *command]
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


def test_version_is_told_alike_everywhere(container, engine, image, version):
    labels = inspect(engine, image, "Config")["Labels"]
    assert container("--version").split()[-1] == version
    assert container("/version", entrypoint="cat").strip() == version
    assert labels["org.opencontainers.image.version"] == version
    assert labels["org.opencontainers.image.licenses"] == "BSD-3-Clause"
    assert labels["org.opencontainers.image.revision"]
    assert labels["org.opencontainers.image.base.name"]


def test_help(container):
    assert "--participant-label" in container("--help")
    assert "demo" in container("--help", entrypoint="bids_roi_tools")


def test_descriptor(container):
    """That of the repository, but for the version."""
    printed = json.loads(container("--bids-exec-spec"))
    expected = json.loads((ROOT / "boutiques.json").read_text(encoding="utf-8"))
    for descriptor in (printed, expected):
        del descriptor["tool-version"], descriptor["container-image"]["image"]
    assert printed == expected


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


def test_files_are_readable_by_all_and_written_by_none(python):
    """Checked as root, which sees everything: modes, not luck."""
    code = (
        "import pathlib; print([str(p) for p in pathlib.Path('/opt').rglob('*')"
        " if not p.is_symlink() and p.stat().st_mode & 0o066 != 0o044])"
    )
    assert python(code, user="0:0").strip() == "[]"


def test_packages_of_the_host_do_not_leak_in(container, work, version):
    """Apptainer brings PYTHONPATH and the home folder along."""
    packages = work / "packages"
    for name in ("argparse", "numpy", "bids_roi"):
        (packages / name).mkdir(parents=True, exist_ok=True)
        (packages / name / "__init__.py").write_text("raise SystemExit('leaked')")
    printed = container(
        "--version", mounts=[f"{packages}:/leak:ro"], environment=["PYTHONPATH=/leak"]
    )
    assert printed.split()[-1] == version


def test_libraries_import(python):
    """Also with nowhere to write and the libraries' own tests removed."""
    code = (
        "import importlib.metadata as m, re;"
        "names = [re.match('[A-Za-z0-9_.-]+', r)[0] for r in m.requires('bids_roi')"
        # this one writes on import; the app gives it a folder
        " if 'extra' not in r and not r.startswith('templateflow')];"
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
    out = output_folder(work / "out")
    mounts = [f"{data}:/data:ro", f"{out}:/out"]
    common = ["/data/fmriprep", "/out"]
    atlas = ["--atlas-dataset", "demo=/data/atlas"]
    container(*common, "participant", *atlas, mounts=mounts)
    container(*common, "group", mounts=mounts)
    assert tree(data) == before
    return out


def test_demo(demo):
    assert list((demo / "derivatives").glob("sub-*/**/*_timeseries.tsv"))


def test_start_compiles_nothing(container):
    """All of the package is there as byte code, so that no start waits for it."""
    code = (
        "from pathlib import Path; from importlib.util import cache_from_source as to;"
        "import bids_roi; files = [*Path(bids_roi.__file__).parent.rglob('*.py')];"
        "print(len(files), sum(Path(to(str(f))).is_file() for f in files))"
    )
    n_files, n_compiled = container(
        "-c", code, entrypoint="/opt/venv/bin/python"
    ).split()
    assert n_files == n_compiled != "0"


def test_image_stays_small(engine, image):
    """Bytes of all layers, the base included (130 to 200 MB of them)."""
    assert inspect(engine, image, "Size") < 650e6


def test_layers_hold_no_times(python):
    """Equal sources make equal layers: no file has the time of the build."""
    code = (
        "import pathlib; print({int(p.lstat().st_mtime)"
        " for p in [*pathlib.Path('/opt').rglob('*'), pathlib.Path('/version')]})"
    )
    assert python(code, user="0:0").strip() == "{1577836800}"


@pytest.fixture(scope="session")
def image_with_atlases(engine, image, version, work):
    """The image, made with an atlas from a mirror on loopback."""
    built = f"{version}-atlases"
    atlases = "schaefer100 difumo64"
    name = build_with_atlas(work / "archive", built, atlases=atlases)
    yield name
    subprocess.run([engine, "image", "rm", "--force", name], check=False)


def test_documented_commands(engine, image_with_atlases, demo, work):
    """What docs/containers.md says for Docker, with its paths and image replaced."""
    out = work / "documented"
    out.mkdir()
    places = [("/path/to/fmriprep", demo / "dataset" / "fmriprep")]
    places += [("/path/to/results", out), (" bids_roi ", f" {image_with_atlases} ")]
    command = documented_command("docker", places)
    folder = work / "bin"
    folder.mkdir()
    (folder / "docker").write_text(f'#!/bin/sh\nexec {engine} "$@"\n')
    (folder / "docker").chmod(0o755)
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        check=True,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
    )
    assert list(out.glob("sub-*/**/*_atlas-Schaefer2018_*_timeseries.tsv"))
    assert list(out.glob("group_*"))
    assert {p.lstat().st_uid for p in out.rglob("*")} == {os.geteuid()}


def test_atlases_are_fetched_or_said_to_be_absent(container, image_with_atlases):
    """The mirror has the first and not the second; the image is built all the same."""
    listed = container(
        "/opt/templateflow/CONTENTS", entrypoint="cat", of=image_with_atlases
    )
    assert listed == "present schaefer100\nabsent difumo64\n"
    found = container(
        "atlases", entrypoint="bids_roi_tools", of=image_with_atlases
    ).splitlines()
    cached = {line.split()[0] for line in found if "[cached]" in line}
    assert cached == {"Schaefer2018_seg-7n_scale-100"}


def test_atlas_of_the_image_is_used(container, image_with_atlases, demo, work):
    """By its name, without a network and without a folder of atlases."""
    out = output_folder(work / "named")
    mounts = [f"{demo / 'dataset'}:/data:ro", f"{out}:/out"]
    argv = ["/data/fmriprep", "/out", "participant", "--atlas", "schaefer100"]
    container(*argv, mounts=mounts, of=image_with_atlases)
    assert list(out.glob("sub-*/**/*_atlas-Schaefer2018_*_timeseries.tsv"))


def test_unknown_atlas_ends_the_build(engine):
    done = run_script("build-image", ok=False, TAG="typo", ATLASES="schaefer4OO")
    assert done.returncode not in (0, 77)
    assert "holds no atlas 'schaefer4OO'" in done.stdout + done.stderr


def test_participant_and_group(results):
    assert list(results.glob("sub-*/**/*_timeseries.tsv"))
    assert list(results.glob("group_*"))


def test_same_bytes_as_the_demo(results, demo):
    """The same data and options through other paths give the same series."""
    series = {p.relative_to(results): p for p in results.rglob("*_timeseries.tsv")}
    assert series
    for name, path in series.items():
        assert path.read_bytes() == (demo / "derivatives" / name).read_bytes()


def test_outputs_name_the_image(results, version):
    description = json.loads((results / "dataset_description.json").read_text())
    container = description["GeneratedBy"][0]["Container"]
    assert container == {"Type": "docker", "Tag": f"bids_roi:{version}"}


def test_outputs_belong_to_the_user(results):
    paths = [results, *results.rglob("*")]
    assert {(p.lstat().st_uid, p.lstat().st_gid) for p in paths} == {(UID, GID)}


def test_output_is_valid_bids(results):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    argv = [validator, "--format", "json", results]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert json.loads(done.stdout)["issues"]["issues"] == [], done.stderr
