"""Fixtures that several test files share."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from support import datasets, toy_confounds, trees
from support.fault_tools import Server
from support.once import list_written, make_once

# Machines that run the tests are shared: how long an example takes says nothing.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

# A shell that starts tests in the background has them ignore Ctrl-C, and so would all
# commands that they start, which some tests interrupt in this way.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared():
    """Folder of real data beside the checkout; not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is absent")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk():
    """Files are read back here and now; processes that tests start sync as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _what_all_read_is_written_by_none():
    """A worker that ends tells it, at its last test."""
    yield
    assert list_written() == []


@pytest.fixture(scope="session")
def real_tree(tmp_path_factory):
    """Roots of real trees, by name; unpacked once for all tests, which only read."""

    def find(name):
        tar = f"{name}_tree.tar.gz"
        return make_once(tmp_path_factory, name, lambda place: trees.unpack(tar, place))

    return find


@pytest.fixture
def dataset(tmp_path):
    """Two participants with one run each on an oblique 6 x 7 x 5 grid."""
    return datasets.write_dataset(tmp_path / "fmriprep")


@pytest.fixture
def atlas(tmp_path):
    """Value of --atlas-file for the toy atlas."""
    return datasets.write_atlas(tmp_path / "atlas")


@pytest.fixture
def cleaned_input(tmp_path):
    """One run of 60 volumes with confounds; (root, columns, bold path)."""
    root = datasets.write_dataset(tmp_path / "in", [])
    bold = datasets.bold(3, toy_confounds.T)
    bold[..., toy_confounds.SPIKES] += 200
    path = datasets.write_run(root, f"sub-01_task-rest_space-{datasets.SPACE}", bold)
    return root, toy_confounds.write_confounds(root), path


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The demo dataset, one for all workers: read only."""
    from bids_roi.demo.dataset import write_demo_dataset  # not for every test

    return make_once(tmp_path_factory, "demo", write_demo_dataset)


@pytest.fixture(scope="session")
def demo_call(tmp_path_factory):
    """Folder and words of ``bids_roi_tools demo``, one for all workers: read only."""
    tools = str(Path(sys.executable).with_name("bids_roi_tools"))

    def make(folder):
        words = [tools, "demo", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return folder, done.stdout

    return make_once(tmp_path_factory, "demo_call", make)


@pytest.fixture(scope="session")
def fault_server():
    """Forks calls of the app in which something goes wrong."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def app():
    """Run the installed command (or the one in BIDS_ROI_EXECUTABLE)."""
    default = str(Path(sys.executable).parent / "bids_roi")
    executable = os.environ.get("BIDS_ROI_EXECUTABLE", default)

    def run(*arguments, env=None):
        return subprocess.run(
            [*executable.split(), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, **(env or {})},
        )

    return run


def pytest_collection_modifyitems(items):
    """The folder of a test is its mark: pytest -m unit, or pytest tests/unit."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(item.path.relative_to(here).parts[0])


def pytest_collection_finish():
    """Modules and thousands of tests stay: no garbage collection walks them again."""
    gc.collect()
    gc.freeze()
