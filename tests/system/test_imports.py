"""What each command loads: no library, and no part of one, that it does not use."""

import graphlib
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from support import datasets
from support.group_trees import Tree, correlation, read_rows
from support.modules import MODULES, imports_when_loaded

from bids_roi.cli import main
from bids_roi.schedule.outcome import Serial

# Whatever is called, none of these is used on volumes without a report.
NEVER = {
    "nilearn",
    "pandas",
    "jinja2",
    "templateflow",
    "dask",
    "distributed",
}
NEVER |= {"scipy.stats", "scipy.special", "scipy.signal", "scipy.ndimage", "scipy.fft"}
NEVER |= {
    "scipy.sparse",
    "scipy.interpolate",
    "scipy.optimize",
    "bids_roi.report",
    "tqdm",
}
# Of the formats that are not NIfTI, only nibabel's own (which it always loads).
NEVER |= {
    "bids_roi.atlases.surfaces",
    "bids_roi.images.cifti",
    "bids_roi.images.markup",
    "bids_roi.images.surfaces",
}
NEVER |= {"bids_roi.schedule.cluster", "bids_roi.demo", "bids_roi.descriptor"}
EXECUTORS = {"bids_roi.schedule.processes"}

# The worker is handed a plan, as the executor of processes does it.
WORKER = """
import pickle, sys
packed = sys.stdin.buffer.read()
before = set(sys.modules)
function, item = pickle.loads(packed)
function(item)
"""
COMMAND = """
import sys
from bids_roi.cli import main
assert main(sys.argv[1:]) == 0
"""
TELL = """
import json
sys.stdout.write(chr(10) + json.dumps(sorted(sys.modules)))
"""


def loaded(code, *arguments, given=None):
    """Names of all modules in a process that has run some code."""
    done = subprocess.run(
        [sys.executable, "-c", code + TELL, *map(str, arguments)],
        input=given,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def call(tmp_path):
    """Words of a call on one small run, without a report."""
    root = datasets.write_dataset(tmp_path / "in", ["sub-01_task-rest"])
    atlas = datasets.write_atlas(tmp_path / "atlas")
    return [root, tmp_path / "out", "participant", "--atlas-file", atlas, "--no-report"]


def test_participant(call):
    names = loaded(COMMAND, *call, "--executor", "serial")
    assert not names & (NEVER | EXECUTORS | {"h5py", "scipy.linalg"})
    assert {"bids", "nibabel"} <= names


def test_participant_where_all_is_there(call):
    assert main([*map(str, call)]) == 0
    names = loaded(COMMAND, *call)
    assert not names & (NEVER | {"h5py"})


def test_a_matrix_of_correlations_needs_no_more(call):
    names = loaded(COMMAND, *call, "--executor", "serial", "--relmat", "pearson")
    assert not names & (NEVER | EXECUTORS | {"h5py"})


def test_group(call):
    assert main([*map(str, call)]) == 0
    root, out, *_ = call
    names = loaded(COMMAND, root, out, "group", "--no-report", "--stack", "none")
    assert not names & (NEVER | EXECUTORS)
    assert not names & {"bids", "sqlalchemy", "nibabel", "scipy", "isal", "h5py"}


def test_group_of_matrices(tmp_path):
    """QC-FC, ICC and networks: of scipy the distributions alone, and no reader."""
    rng, tree = np.random.default_rng(0), Tree(tmp_path)
    for person in range(1, 6):
        for number in (1, 2):
            name = f"sub-0{person}_task-rest_run-{number}"
            tree.run(name, correlation(rng), fd=float(rng.gamma(2, 0.1)))
    words = ("--no-report", "--stack", "none", "--executor", "serial")
    names = loaded(COMMAND, "x", tmp_path, "group", *words)
    (row,) = read_rows(tmp_path / "group_qcfc.tsv")
    assert row["distance_rho"] != "n/a"
    assert not names & ((NEVER | EXECUTORS) - {"scipy.special"})
    assert not names & {"bids", "sqlalchemy", "nibabel", "isal", "h5py"}
    ours = {name for name in names if name.startswith("bids_roi.atlases.")}
    assert ours <= {"bids_roi.atlases.names"}


def test_worker(call, tmp_path, monkeypatch):
    """A worker plans nothing: neither pybids nor the code of the level."""
    plans = []

    def keep(self, function, items, **_):
        plans.append(pickle.dumps((function, next(iter(items)))))
        yield from ()

    with monkeypatch.context() as patch:
        patch.setattr(Serial, "map", keep)
        main([*map(str, call), "--executor", "serial"])
    names = loaded(WORKER, given=plans[0])
    assert not names & (NEVER | EXECUTORS | {"h5py", "scipy.linalg"})
    assert not names & {
        "bids",
        "sqlalchemy",
        "bids_roi.cli",
        "bids_roi.participant.level",
    }
    assert list((tmp_path / "out").rglob("*_timeseries.tsv"))


def test_every_module_can_be_the_first_that_is_imported():
    """No circles, whoever comes first elsewhere.

    An order exists in which every module comes after those that it imports. That it is
    the whole order is seen by loading: a function that is called while its module
    loads, and that imports another, would bring that one along before its turn.
    """
    needed = {
        module: {name for name in imports_when_loaded(path) if name in MODULES}
        for module, path in MODULES.items()
        if "__main__" not in module
    }
    order = [
        module.removesuffix(".__init__")
        for module in graphlib.TopologicalSorter(needed).static_order()
    ]
    code = (
        "import importlib, sys\n"
        "names, seen = sys.argv[1:], set()\n"
        "for name in names:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        "        sys.exit(f'{name}: {error}')\n"
        "    seen.add(name)\n"
        "    early = (set(sys.modules) & set(names)) - seen\n"
        # A package is loaded with the first module in it; it holds a docstring.
        "    early = {m for m in early if not hasattr(sys.modules[m], '__path__')}\n"
        "    if early:\n"
        "        sys.exit(f'{name} loads {early}')"
    )
    argv = [sys.executable, "-c", code, *order]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flag", ["--help", "--version", "--bids-exec-spec"])
def test_help_and_version_load_no_scientific_library(flag):
    code = (
        "import sys; from bids_roi.cli import main\n"
        f"try: main(['{flag}'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'nibabel', 'bids', 'pandas', 'isal', 'tqdm'}\n"
        "heavy.add('jinja2')\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_list_of_inputs_loads_nothing_of_what_is_done_with_a_run(call):
    code = "import sys; from bids_roi.tools import main; assert not main(sys.argv[1:])"
    root, *_, flag, atlas, _ = call
    names = loaded(code, "inputs", root, flag, atlas)
    assert not names & (NEVER | EXECUTORS | {"multiprocessing.spawn"})
    ours = {name for name in names if name.startswith("bids_roi.participant.")}
    assert ours == {"bids_roi.participant.description", "bids_roi.participant.plan"}


def test_completion_loads_nothing_of_networks():
    code = "import sys; from bids_roi.tools import main; main(['completion', 'bash'])"
    assert not loaded(code) & {"socket", "secrets", "hmac", "numpy", "nibabel"}


def test_h5py_is_imported_for_hdf5_files_only(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text(
        "#Insight Transform File V1.0\n#Transform 0\n"
        "Transform: TranslationTransform_double_3_3\n"
        "Parameters: 1 2 3\nFixedParameters:\n"
    )
    names = loaded(
        "import sys; from pathlib import Path\n"
        "from bids_roi.images.transforms import read_transform\n"
        "read_transform(Path(sys.argv[1]))",
        path,
    )
    assert "bids_roi.images.transforms" in names
    assert "h5py" not in names


def test_layout_is_lazy():
    names = loaded("import sys, bids_roi.dataset.layout")
    tops = {name.partition(".")[0] for name in names}
    assert not tops & {"bids", "sqlalchemy", "numpy", "pandas", "nibabel", "scipy"}
