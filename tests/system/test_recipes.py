"""The recipes of docs/contributing.md, followed in a copy of the package.

A recipe names files; these alone are changed, and all that it promises must be there.
"""

import json
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from support.calls import FUNC, STEM, read, read_relmat, relmat_path
from support.datasets import write_atlas, write_dataset
from support.package_copy import ROOT, Copy, python

from bids_roi.options.words import Measure

WORDS = "bids_roi/options/words.py"
STATISTICS = "bids_roi/core/statistics.py"
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
    STATISTICS: (
        '    "mean": ',
        '    "double_mean": lambda *given: 2 * _mean(*given),\n',
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


# The tables of docs/numbers.md, made by the copy's records.
TABLES = f"""
import importlib.util
path = {str(ROOT / "docs" / "generated.py")!r}
spec = importlib.util.spec_from_file_location("generated", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
more = {{name: module.TABLES[name]() for name in ("statistics", "measures")}}
"""
# Imports a module from one folder after the other, and says how each ended.
IMPORTS = """
import importlib, json, sys
ended = []
for folder, name in json.loads(sys.argv[1]):
    for old in [m for m in sys.modules if m.partition(".")[0] == "bids_roi"]:
        del sys.modules[old]
    sys.path[0] = folder
    try:
        importlib.import_module(name)
        ended.append("no error")
    except Exception as error:
        ended.append(f"{type(error).__name__}: {error}")
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a copy with all the recipes says and makes: answers, tables, outputs."""
    folder = tmp_path_factory.mktemp("recipes")
    copy = Copy(folder / "copy")
    for changes in (SORTED, SUM, MEASURE, AS_IS):
        copy.add(changes)
    data, out, matrices = write_dataset(folder / "in"), folder / "out", folder / "r"
    common = ["--atlas-file", write_atlas(folder / "atlas"), "--executor", "serial"]
    common += ["--no-report"]
    asked = ["mean", "minimum", "maximum", "level_75", "double_mean"]
    one = ["--participant-label", "01", "--min-coverage", 0]
    relmat = ["--relmat", "pearson", "cubed", "spread"]
    calls = {
        "help": ["--help"],
        "series": [data, out, "participant", *common, *one, "--statistic", *asked],
        "matrices": [data, matrices, "participant", *common, *relmat],
        "group": [data, matrices, "group", "--no-report"],
    }
    answers, tables = copy.call(calls, TABLES)
    for code, _, err in answers.values():
        assert code == 0, err
    return answers["help"][1], tables, out, matrices


def choices(text, flag):
    found = re.search(rf"{flag} \{{([^}}]*)\}}", text)
    return re.sub(r"\s", "", found[1]).split(",")


def files_of_recipe(heading):
    """Files of the package that a recipe names, and how many places it says."""
    text = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    places = re.findall(r"(?m)^\d\. `(bids_roi/[\w/]+\.py)`", section)
    return places, set(re.findall(r"bids_roi/[\w/]+\.py", section))


def test_recipes_name_two_places_each():
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
def test_a_statistic_takes_two_places(whole, changes, name, words):
    said, tables, out, _ = whole
    assert name in choices(said, "--statistic")
    assert f"| `{name}` | `stat-{name.replace('_', '')}` |" in tables["statistics"]

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


def test_a_measure_takes_two_places(whole):
    said, tables, _, out = whole
    assert {"cubed", "spread", "covariance"} < set(choices(said, "--relmat"))
    rows = tables["measures"]
    assert (
        "| `cubed` | `stat-cubedcorrelation`<br>`stat-cubedfisherz` | a dummy |" in rows
    )
    assert "| `spread` | `stat-spread` | a dummy |" in rows

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


HALVES = {
    (recipe, done): (changes, module)
    for recipe, changes, module in (
        ("sorted", SORTED, STATISTICS),
        ("sum", SUM, STATISTICS),
        ("measure", MEASURE, RELMAT),
    )
    for done in ("record", "function")
}


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """How the import ended of copies in which half of a recipe is done."""
    folder = tmp_path_factory.mktemp("halves")
    imported = []
    for (recipe, done), (changes, module) in HALVES.items():
        copy = Copy(folder / recipe / done)
        kept = WORDS if done == "record" else module
        copy.add({kept: changes[kept]})
        name = module.removesuffix(".py").replace("/", ".")
        imported.append((str(copy.folder), name))
    ended = json.loads(python(IMPORTS, folder, json.dumps(imported)))
    return dict(zip(HALVES, ended, strict=True))


@pytest.mark.parametrize("half", HALVES, ids="-".join)
def test_half_a_recipe_cannot_be_imported(halves, half):
    where = HALVES[half][1].removeprefix("bids_roi/")
    wanted = f"ImportError: {where} and options/words.py differ in "
    assert halves[half].startswith(wanted)


def test_a_name_that_tells_another_scale_is_refused():
    """The group level goes by the name: it would take z of what is no correlation."""
    with pytest.raises(ValueError, match="does not tell that its scale is as_is"):
        Measure("autocorrelation", "a dummy", "as_is", "a dummy")
