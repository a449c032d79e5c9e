"""The house: who may import whom, how long things are, what --help costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bids_roi

ROOT = Path(bids_roi.__file__).parent
MODULES = {
    ".".join(("bids_roi", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
}

# Imports go down this list only; modules of one row may not import each other.
# Names are below bids_roi; a row may be split into several.
FLOORS = """
version
bids_roi errors
options.row
options.cleaning options.connectivity options.group options.running
options.table
options.record io.names io.atlases.findings
core.grid core.quality core.motion
core.filters core.freedom core.regression
core.censor core.high_variance
core.butterworth core.passband
core.mean_image core.mapping core.signals core.smooth core.relmat
core.map_solver core.scan
core.partition core.statistics core.clean core.group.edges core.group.moments
core.volumes
core.reduce core.group.motion core.group.networks core.group.reliability
core.group.accumulate
io.stream io.tables io.matrices io.writing io.atlases.integrity
io.confounds.table io.confounds.strategy_format io.headers
io.confounds.strategy_checks io.confounds.compcor io.confounds.gaps io.values
io.confounds.strategies io.confounds.regressors
io.images io.atlases.formats io.dataset.metadata io.dataset.timing
io.atlases.names io.atlases.skeleton
io.atlases.regions io.atlases.citations io.atlases.homes
io.atlases.checks io.atlases.columns io.atlases.places io.atlases.templateflow
io.atlases.open
io.atlases.catalogue io.atlases.subject
io.atlases.shelf io.dataset.roots io.dataset.filters
io.dataset.queries
io.dataset.layout
io.outputs.names io.outputs.facts io.outputs.digest
io.outputs.derivatives io.outputs.relmats io.outputs.inventory io.outputs.stack
io.outputs.root_files
report.bins report.canvas report.picture report.names report.order report.pages
report.motion report.brain report.signals report.judge report.methods
report.carpet report.group_figures
report.matrix
report.draw
app.demo.phantom app.records app.schedule.outcome app.schedule.threads
app.schedule.serial app.schedule.processes app.schedule.cluster
app.schedule.executor
report.facts
report.participant report.group
app.plan app.atlas_tools app.demo.simulate app.budget app.cleaning_facts app.tally
app.differences
app.demo.dataset app.cleaning
app.extraction app.run_quality app.connectivity app.signal_checks
app.results app.pages
app.pictures
app.resume
app.participant app.progress app.group.outputs app.group.identity
app.group.checks app.group.ledger app.load
app.group.stacking
app.group.runs
app.group.regions
app.group.matrices
app.group.connectivity
app.group.summaries
app.group.level
app.dataset
api descriptor
cli
tools __main__
"""
FLOOR = {
    f"bids_roi.{module}" if module != "bids_roi" else module: number
    for number, row in enumerate(FLOORS.splitlines())
    for module in row.split()
}

# One outside library, one home; numpy and scipy are at home in core and io.
HOMES = {
    "bids": {"bids_roi.io.dataset.layout"},
    "sqlalchemy": {"bids_roi.io.dataset.layout"},  # its errors come through pybids
    "nibabel": {"bids_roi.io.images"},
    "templateflow": {"bids_roi.io.atlases.templateflow"},
    "isal": {"bids_roi.io.stream"},
    "tqdm": {"bids_roi.app.progress"},
    "dask": {"bids_roi.app.schedule.cluster"},
    "distributed": {"bids_roi.app.schedule.cluster"},
    "orjson": {"bids_roi.io.tables", "bids_roi.io.matrices"},
    "h5py": {"bids_roi.io.outputs.stack"},
    "matplotlib": {"bids_roi.report.canvas"},
    "jinja2": {"bids_roi.report.pages"},
    "markupsafe": {"bids_roi.report.pages"},
    "pandas": {"bids_roi.api", "bids_roi.app.load"},  # what notebooks hold
    "scipy": {module for module in MODULES if ".core." in module},
}
EVERYWHERE = {"numpy", "bids_roi"}


def imports(path):
    """Top-level names and in-package modules that a file imports, types included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


@pytest.mark.parametrize("module", [m for m in MODULES if not m.endswith("__init__")])
def test_imports_go_down_and_libraries_have_one_home(module):
    assert module in FLOOR, f"{module} has no floor: add it to FLOORS"
    for name in imports(MODULES[module]):
        top = name.partition(".")[0]
        if top == "bids_roi":
            assert FLOOR[name] < FLOOR[module], f"{module} imports {name}"
        elif top in sys.stdlib_module_names or top in EVERYWHERE:
            continue
        else:
            assert module in HOMES.get(top, ()), f"{module} imports {top}"


def test_core_knows_arrays_only():
    allowed = {"numpy", "scipy", "bids_roi", "__future__", "dataclasses", "typing"}
    allowed |= {"collections", "itertools", "math", "warnings"}
    for module, path in MODULES.items():
        if ".core." in module:
            tops = {name.partition(".")[0] for name in imports(path)}
            assert tops <= allowed, module
            ours = {n for n in imports(path) if n.startswith("bids_roi.")}
            assert all(n.startswith("bids_roi.core") for n in ours), module


def test_no_floor_for_a_module_that_is_gone():
    assert set(FLOOR) <= {*MODULES, "bids_roi"}


def test_files_and_functions_stay_short():
    for module, path in MODULES.items():
        text = path.read_text()
        assert text.count("\n") <= 600, module
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                n_lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert n_lines <= 60, f"{module}.{node.name} has {n_lines} lines"


def test_public_names_exist():
    for module in MODULES:
        if module.endswith(("__main__", "__init__")):
            continue
        loaded = __import__(module, fromlist=["__all__"])
        for name in loaded.__all__:
            assert hasattr(loaded, name), f"{module}.{name}"


@pytest.mark.parametrize("flag", ["--help", "--version", "--bids-exec-spec"])
def test_help_and_version_load_no_scientific_library(flag):
    code = (
        "import sys; from bids_roi.cli import main\n"
        f"try: main(['{flag}'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'nibabel', 'bids', 'pandas', 'isal', 'tqdm'}\n"
        "heavy |= {'matplotlib', 'jinja2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_participant_level_loads_what_it_uses():
    """Half a second of CPU and 50 MB per worker are in scipy.stats alone."""
    code = (
        "import sys, bids_roi.app.dataset\n"
        "heavy = {'scipy.stats', 'scipy.signal', 'scipy.interpolate', 'matplotlib'}\n"
        "heavy |= {'h5py', 'distributed'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_nilearn_in_the_package():
    for module, path in MODULES.items():
        tops = {name.partition(".")[0] for name in imports(path)}
        assert not tops & {"nilearn", "sklearn"}, module
