"""The recipes of docs/elsewhere.md, with a DataLad dataset and a local server."""

import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support import datasets
from support.doc_blocks import ROOT, read_blocks
from support.forked_app import forked_app

BIN = Path(sys.executable).parent


def recipe(section):
    """The first block of a section of the page."""
    blocks = read_blocks(ROOT / "docs" / "elsewhere.md")
    return next(b.text for b in blocks if section in b.section)


def has(*programs):
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not here: {', '.join(missing)}")


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Folder of ``bids_roi``, whose processes have what they import."""
    base = tmp_path_factory.mktemp("commands")
    with forked_app(base) as put_commands:
        yield put_commands(base / "bin")


@pytest.fixture(scope="module")
def run_in(commands, tmp_path_factory):
    """Run a script in a folder; the atlas is put into commands of the app."""
    atlas = datasets.write_atlas(tmp_path_factory.mktemp("atlas"))
    more = f"--atlas-file {atlas} --no-report --executor serial -q"
    identity = {f"GIT_{who}_NAME": "A" for who in ("AUTHOR", "COMMITTER")}
    identity |= {f"GIT_{who}_EMAIL": "a@b.c" for who in ("AUTHOR", "COMMITTER")}

    def run(folder, script, **variables):
        text = re.sub(r"(?m)^( *bids_roi .*)$", rf"\1 {more}", script)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=folder,
            env={
                **os.environ,
                **identity,
                **variables,
                "HOME": str(folder),
                "PATH": f"{commands}:{BIN}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def annexed(run_in, tmp_path_factory):
    """Two folders to copy: with a derivative, and with it as a git-annex repository.

    In each is what a local call makes of it. Images are annexed, text is in git.
    """
    plain = tmp_path_factory.mktemp("plain")
    root = datasets.write_dataset(plain / "fmriprep")
    (root / "task-rest_bold.json").write_text('{"TaskName": "rest"}')
    for bold in root.rglob("*_bold.nii.gz"):
        bold.with_name(bold.name.replace("preproc_bold", "other_bold")).write_bytes(
            b"x"
        )
    run_in(plain, "bids_roi fmriprep local participant")
    if shutil.which("git-annex") is None:
        return plain, None
    git = tmp_path_factory.mktemp("git") / "copy"
    shutil.copytree(plain, git)
    run_in(
        git,
        "cd fmriprep && git init --quiet && git annex init --quiet here\n"
        "git config annex.largefiles 'include=*.nii.gz'\n"
        "git annex add --quiet . && git commit --quiet -m all",
    )
    return plain, git


@pytest.fixture
def shell(run_in, tmp_path):
    return partial(run_in, tmp_path)


@pytest.fixture
def source(annexed, tmp_path):
    """A derivative with a sidecar at its root, and what a local call makes of it."""
    shutil.copytree(annexed[0], tmp_path, dirs_exist_ok=True)
    return tmp_path / "fmriprep"


@pytest.fixture
def dataset(annexed, tmp_path):
    """The same as a git-annex repository."""
    shutil.copytree(annexed[1], tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path / "fmriprep"


def tables(folder):
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*.tsv")}
    assert found
    return {name: path.read_bytes() for name, path in found.items()}


@has("git", "git-annex")
def test_get_process_drop(dataset, shell, tmp_path):
    shell("git clone --quiet fmriprep clone")
    images = sorted((tmp_path / "clone").rglob("*.nii.gz"))
    assert not any(path.exists() for path in images)
    script = recipe("DataLad")
    got = "find -L clone/sub-* -name '*.nii.gz' -type f\n"
    run = re.search(r"(?m)^ *bids_roi clone.*$", script)[0]
    here = shell(script.replace(run, f"    {got}{run}"))
    assert tables(tmp_path / "results") == tables(tmp_path / "local")
    # Each series was here once, alone (masks are one content), and nothing else ever.
    found = re.findall(r"^clone/(sub-.*)$", here, re.MULTILINE)
    series = [name for name in found if "_bold" in name]
    assert ["preproc" in name and name[:6] for name in series] == ["sub-01", "sub-02"]
    assert not any(path.exists() for path in images)


@has("git", "git-annex", "datalad")
def test_datalad_gets_the_same_list(dataset, shell, tmp_path):
    shell(
        "datalad clone fmriprep clone\n"
        "bids_roi_tools inputs clone -z > list\n"
        "cd clone && xargs -0 datalad get < ../list"
    )
    images = (tmp_path / "clone").glob("sub-*/func/*.nii.gz")
    here = {path.name for path in images if path.exists()}
    assert len(here) == 4
    assert not any("other" in name for name in here)


@has("git", "git-annex")
def test_tasks_of_an_array(dataset, shell, tmp_path):
    (tmp_path / "subjects.txt").write_text("01\n02\n")
    for task in ("1", "2"):
        shell(recipe("SLURM"), SLURM_ARRAY_TASK_ID=task, DATASET=str(dataset))
    assert tables(tmp_path / "results") == tables(tmp_path / "local")


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


@has("rclone")
def test_stage_from_a_server(source, shell, tmp_path):
    handler = partial(_Handler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        try:
            shell(
                recipe("stage"),
                RCLONE_CONFIG_LAB_TYPE="http",
                RCLONE_CONFIG_LAB_URL=url,
            )
        finally:
            server.shutdown()
    own = {k: v for k, v in tables(tmp_path / "local").items() if "sub-02" not in k}
    assert tables(tmp_path / "results") == own
    read = [path for path in server.asked if not path.endswith("/")]
    assert sum(path.endswith("preproc_bold.nii.gz") for path in read) == 1
    assert not any("other_bold" in path for path in read)
