"""The house: which folder may import which, how long things are."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
from support.modules import MODULES, ROOT, imports, look_into

import bids_roi

# A row may import the rows above it. Folders (and modules that lie in none) of one row
# do not import each other; inside a folder, and among the front doors of the last row,
# anything goes that is no circle. A new file needs no line here.
FLOORS = """
version errors
options schedule
core
files images
dataset confounds atlases demo
outputs matrices
loading report group
participant
api asked arguments cli descriptor masker tools \
__main__ __init__
"""
FLOOR = {
    folder: number
    for number, row in enumerate(FLOORS.split("\n"))
    for folder in row.split()
}
FRONT = FLOOR["cli"]
# What these may import of the package beside themselves, though the rows allow more.
ONLY = {"core": {"options"}, "schedule": {"errors"}, "version": set(), "errors": set()}

# One outside library, one home; numpy is at home everywhere, scipy in core.
_NOTEBOOKS = ("api", "asked", "loading", "masker", "matrices")
HOMES = {
    "bids": {"bids_roi.dataset.layout"},
    "sqlalchemy": {"bids_roi.dataset.layout"},  # its errors come through pybids
    # Its CIFTI writer is another matter than NIfTI, and loaded only where one is asked.
    "nibabel": {"bids_roi.images.nifti", "bids_roi.images.cifti"},
    "templateflow": {"bids_roi.atlases.templateflow"},
    "rapidgzip": {"bids_roi.images.stream"},
    # Images that are read, pictures that are drawn, stacks that are packed.
    "isal": {
        "bids_roi.images.stream",
        "bids_roi.outputs.stack",
        "bids_roi.report.raster",
    },
    "sklearn": {"bids_roi.masker"},  # where it calls, and has been imported
    "tqdm": {"bids_roi.participant.progress"},
    "dask": {"bids_roi.schedule.cluster"},
    "distributed": {"bids_roi.schedule.cluster"},
    "orjson": {"bids_roi.files.tables", "bids_roi.files.matrices"},
    # Stacks of all runs, which we write; transforms, as ITK writes them.
    "h5py": {"bids_roi.outputs.stack", "bids_roi.images.transforms"},
    "jinja2": {"bids_roi.report.pages"},
    "markupsafe": {"bids_roi.report.pages"},
    "pandas": {f"bids_roi.{m}" for m in _NOTEBOOKS} | {"bids_roi.report.courses"},
    "scipy": {module for module in MODULES if ".core." in module},
}
EVERYWHERE = {"numpy", "bids_roi"}


def folder_of(module):
    """Folder of a module, or the module's own name where it lies in none."""
    parts = module.split(".")
    return parts[1] if parts[1:] else "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    mine = folder_of(module)
    assert mine in FLOOR, f"{mine} has no floor: add the folder to FLOORS"
    for name in imports(MODULES[module]):
        if name.partition(".")[0] == "bids_roi":
            other = folder_of(name)
            lower = FLOOR[other] < FLOOR[mine]
            beside = FLOOR[other] == FLOOR[mine] == FRONT
            assert other == mine or lower or beside, f"{module} imports {name}"
            allowed = ONLY.get(mine, {other})
            assert other == mine or other in allowed, f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_libraries_have_one_home(module):
    for name in imports(MODULES[module]):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in EVERYWHERE:
            assert module in HOMES.get(top, ()), f"{module} imports {top}"


def test_only_the_levels_know_all_that_is_asked_for():
    """What lies below is given a slice of the options, or a value."""
    levels = {"participant", "group", "options", "api", "asked", "cli", "descriptor"}
    levels |= {"tools"}
    for module, path in MODULES.items():
        if folder_of(module) not in levels:
            assert "bids_roi.options.record" not in set(imports(path)), module


def test_no_floor_for_a_folder_that_is_gone():
    assert set(FLOOR) == {folder_of(module) for module in MODULES}


def test_core_knows_arrays_only():
    allowed = {"numpy", "scipy", "bids_roi", "__future__", "dataclasses", "typing"}
    allowed |= {"collections", "contextlib", "functools", "hashlib", "itertools"}
    allowed |= {"math", "warnings"}
    words = "bids_roi.options.words"  # names, of what core computes
    for module, path in MODULES.items():
        if ".core." in module:
            tops = {name.partition(".")[0] for name in imports(path)}
            if module == "bids_roi.core.rows":
                tops -= {"importlib"}  # for scipy's products without scipy.sparse
            assert tops <= allowed, module
            ours = {name for name in imports(path) if "bids_roi." in name} - {words}
            assert all(".core." in name for name in ours), module


def test_files_and_functions_stay_short():
    for module, path in MODULES.items():
        assert path.read_text().count("\n") <= 600, module
        for name, n_lines in look_into(path)[1]:
            assert n_lines <= 60, f"{module}.{name} has {n_lines} lines"


def test_only_what_users_import_lists_its_names():
    """Inside, an underscore says what is private; a list beside it is told twice."""
    names = ("__init__", "api", "errors", "loading", "masker", "matrices")
    public = {f"bids_roi.{name}" for name in names}
    for module, path in MODULES.items():
        listed = "\n__all__ = " in path.read_text()
        assert listed == (module in public), module
        if listed:
            loaded = importlib.import_module(module.removesuffix(".__init__"))
            for name in loaded.__all__:
                assert hasattr(loaded, name), f"{module}.{name}"


def test_no_module_hides_a_function_of_the_package():
    """``bids_roi.load`` is a function; a module of that name would replace it."""
    for name in bids_roi.__all__:
        assert f"bids_roi.{name}" not in MODULES


def test_no_plotting_library_in_the_package_nor_among_what_it_needs():
    """Figures are SVG that ``report.paper`` writes."""
    plotting = {"matplotlib", "PIL", "plotly", "seaborn", "bokeh", "cairo", "pylab"}
    for module, path in MODULES.items():
        tops = {name.partition(".")[0] for name in imports(path)}
        assert not tops & plotting, module
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    asked = {re.match(r"[\w.-]+", line)[0] for line in project["dependencies"]}
    assert len(asked) > 8
    assert not asked & {"pillow", *plotting}
    locked = (ROOT.parent / "requirements" / "image.txt").read_text()
    assert not set(re.findall(r"(?m)^([\w.-]+)==", locked)) & {"pillow", *plotting}


def test_no_nilearn_in_the_package():
    for module, path in MODULES.items():
        tops = {name.partition(".")[0] for name in imports(path)}
        # The masker names its errors and tags, where scikit-learn is there and calls.
        allowed = {"sklearn"} if module == "bids_roi.masker" else set()
        assert not tops & {"nilearn", "sklearn"} - allowed, module


def test_every_module_is_imported_by_another():
    """A file that a merge brings back is dead, and nothing else would tell."""
    doors = {"bids_roi.__main__", "bids_roi.cli", "bids_roi.tools"}
    doors |= {module for module, path in MODULES.items() if path.name == "__init__.py"}
    used = {name for path in MODULES.values() for name in imports(path)}
    assert set(MODULES) - doors - used == set()


HERE = Path(__file__)
UNIT_TESTS = sorted(set(HERE.parent.rglob("test_*.py")) - {HERE})


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_unit_tests_mirror_the_package(path):
    """``test_MODULE.py``, or ``test_MODULE_TOPIC.py`` where a module has several."""
    words = path.stem.removeprefix("test_").split("_")
    folder = ROOT / path.parent.relative_to(HERE.parent)
    names = ["_".join(words[:n]) for n in range(1, len(words) + 1)]
    assert any((folder / f"{name}.py").is_file() for name in names)
