"""The recipes of docs/contributing.md, followed in a copy of the package.

A recipe names files; these alone are changed, and all that it promises must be there.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from support.calls import FUNC, STEM, read, read_relmat, relmat_path

import bids_roi
from bids_roi.options.words import Measure

ROOT = Path(__file__).parents[2]
WORDS = "bids_roi/options/words.py"
STATISTICS = "bids_roi/core/statistics.py"
SIGNALS = "bids_roi/core/signals.py"
RELMAT = "bids_roi/core/relmat.py"

# What is put in: the text before which it goes, and the text, by file.
SORTED = {
    WORDS: (
        '    Statistic("median", ',
        '    Statistic("level_75", "level three quarters up (dummy)", "labels",'
        ' "sorted", "a dummy", parameters=(("share", 0.75),)),\n',
    ),
    STATISTICS: (
        '    "median": ',
        '    "level_75": lambda values, regions, share: (1 - share)'
        " * _minimum(values, regions) + share * _maximum(values, regions),\n",
    ),
}
SUM = {
    WORDS: (
        '    Statistic("median", ',
        '    Statistic("double_mean", "double mean", "labels", "sum", "a dummy"),\n',
    ),
    SIGNALS: (
        '    "mean": ',
        '    "double_mean": lambda products: 2 * _mean(products),\n',
    ),
}
MEASURE = {
    WORDS: (
        '    Measure("covariance", ',
        '    Measure("cubed", "cubed coefficient (dummy)", "r", "a dummy"),\n',
    ),
    RELMAT: (
        '    "covariance": ',
        '    "cubed": lambda signals: pearson_correlation(signals) ** 3,\n',
    ),
}
AS_IS = {
    WORDS: (
        '    Measure("covariance", ',
        '    Measure("spread", "spread (dummy)", "as_is", "a dummy"),\n',
    ),
    RELMAT: ('    "covariance": ', '    "spread": covariance,\n'),
}


class Copy:
    """A copy of the package, changed as a recipe says, that can be run."""

    def __init__(self, folder):
        self.folder = folder
        package = Path(bids_roi.__file__).parent
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, folder / "bids_roi", ignore=ignore)

    def add(self, changes):
        for name, (before, text) in changes.items():
            path = self.folder / name
            content = path.read_text(encoding="utf-8")
            assert content.count(before) == 1, f"{name}: {before}"
            path.write_text(content.replace(before, text + before), encoding="utf-8")

    def python(self, code, *arguments):
        code = f"import sys; sys.path.insert(0, {str(self.folder)!r})\n{code}"
        argv = [sys.executable, "-P", "-c", code, *map(str, arguments)]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def app(self, *arguments):
        code = "from bids_roi.cli import main; sys.exit(main(sys.argv[1:]))"
        done = self.python(code, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def choices(self, flag):
        found = re.search(rf"{flag} \{{([^}}]*)\}}", self.app("--help"))
        return re.sub(r"\s", "", found[1]).split(",")

    def table(self, name):
        """A generated table of docs/numbers.md, made by the copy's records."""
        code = (
            "import importlib.util\n"
            f"path = {str(ROOT / 'docs' / 'generated.py')!r}\n"
            "spec = importlib.util.spec_from_file_location('generated', path)\n"
            "module = importlib.util.module_from_spec(spec)\n"
            "spec.loader.exec_module(module)\n"
            "print(module.TABLES[sys.argv[1]]())"
        )
        done = self.python(code, name)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path / "copy")


def files_of_recipe(heading):
    """Files of the package that a recipe names, and how many places it says."""
    text = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    places = re.findall(r"(?m)^\d\. `(bids_roi/[\w/]+\.py)`", section)
    return places, set(re.findall(r"bids_roi/[\w/]+\.py", section))


def test_recipes_name_two_places_each():
    """Sums, which are faster, have one place of their own instead of the other."""
    places, named = files_of_recipe("To add a statistic")
    assert len(places) == 2
    assert set(places) == set(SORTED)
    assert named == {*SORTED, *SUM}
    places, named = files_of_recipe("To add a connectivity measure")
    assert len(places) == 2
    assert set(places) == named == set(MEASURE)


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        (SORTED, "level_75", "level three quarters up (dummy)"),
        (SUM, "double_mean", "double mean"),
    ],
    ids=["sorted", "sum"],
)
def test_a_statistic_takes_two_places(
    copy, dataset, atlas, tmp_path, changes, name, words
):
    copy.add(changes)
    assert name in copy.choices("--statistic")
    assert f"| `{name}` | `stat-{name.replace('_', '')}` |" in copy.table("statistics")
    out = tmp_path / "out"
    asked = ["--statistic", "mean", "minimum", "maximum", name, "--min-coverage", 0]
    more = ["--participant-label", "01", "--executor", "serial", "--no-report"]
    copy.app(dataset, out, "participant", "--atlas-file", atlas, *asked, *more)

    def values(statistic):
        stat = statistic.replace("_", "")
        return read(out / FUNC / f"{STEM}_atlas-Toy_stat-{stat}_timeseries.tsv")[1]

    low, high, mean = values("minimum"), values("maximum"), values("mean")
    expected = 2 * mean if changes is SUM else 0.25 * low + 0.75 * high
    assert np.isfinite(expected).any()
    assert_allclose(values(name), expected, rtol=1e-12)
    path = out / FUNC / f"{STEM}_atlas-Toy_stat-{name.replace('_', '')}_timeseries.json"
    sidecar = json.loads(path.read_text())
    assert sidecar["Statistic"] == name
    assert sidecar["Description"].startswith(f"Regional {words} of the BOLD signal")
    given = None if changes is SUM else {"share": 0.75}
    assert sidecar.get("StatisticParameters") == given


def test_a_measure_takes_two_places(copy, dataset, atlas, tmp_path):
    copy.add(MEASURE)
    copy.add(AS_IS)
    assert copy.choices("--relmat")[-3:] == ["cubed", "spread", "covariance"]
    rows = copy.table("measures")
    assert (
        "| `cubed` | `stat-cubedcorrelation`<br>`stat-cubedfisherz` | a dummy |" in rows
    )
    assert "| `spread` | `stat-spread` | a dummy |" in rows
    out = tmp_path / "out"
    asked = ["--relmat", "pearson", "cubed", "spread", "--atlas-file", atlas]
    copy.app(dataset, out, "participant", *asked, "--executor", "serial", "--no-report")
    copy.app(dataset, out, "group", "--no-report")

    def matrix(word):
        return read_relmat(relmat_path(out, word))

    cubes = matrix("cubedcorrelation")
    assert np.isfinite(cubes).any()
    assert_allclose(cubes, matrix("pearsoncorrelation") ** 3, rtol=1e-12)
    path = relmat_path(out, "cubedcorrelation").with_suffix(".json")
    sidecar = json.loads(path.read_text())
    assert sidecar["RelationshipMeasure"] == "cubed coefficient (dummy)"
    assert not sidecar["ValidDiagonal"]
    # The group level averages one as Fisher's z, and the other as it is.
    said = {
        word: json.loads(next(out.glob(f"*_stat-{word}_*relmat.json")).read_text())
        for word in ("cubedcorrelation", "spread")
    }
    assert "Fisher" in said["cubedcorrelation"]["Description"]
    assert "Fisher" not in said["spread"]["Description"]


@pytest.mark.parametrize(
    ("changes", "module"),
    [(SORTED, STATISTICS), (SUM, SIGNALS), (MEASURE, RELMAT)],
    ids=["sorted", "sum", "measure"],
)
@pytest.mark.parametrize("done", ["record", "function"])
def test_half_a_recipe_cannot_be_imported(copy, changes, module, done):
    kept = WORDS if done == "record" else module
    copy.add({kept: changes[kept]})
    name = module.removesuffix(".py").replace("/", ".")
    ended = copy.python(f"import {name}")
    assert ended.returncode == 1
    where = module.removeprefix("bids_roi/")
    assert f"ImportError: {where} and options/words.py differ in " in ended.stderr


def test_a_name_that_tells_another_scale_is_refused():
    """The group level goes by the name: it would take z of what is no correlation."""
    with pytest.raises(ValueError, match="does not tell that its scale is as_is"):
        Measure("autocorrelation", "a dummy", "as_is", "a dummy")
