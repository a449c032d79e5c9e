"""The recipes of docs/contributing.md for sidecar keys and region columns, followed.

In a copy of the package the files that a recipe names are changed, and no others.
"""

import json
import re

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose
from support.calls import FUNC, STEM, read_regions, relmat_path
from support.package_copy import ROOT, Copy

SCHEMA = "bids_roi/outputs/schema.py"
RESULT = "bids_roi/outputs/result.py"
DERIVATIVES = "bids_roi/outputs/derivatives.py"
QUALITY = "bids_roi/core/quality.py"
QUALITY_FACTS = "bids_roi/participant/cleaning.py"

# What is put in: the text before which it goes, and the text, by file.
KEY = {
    SCHEMA: (
        '    Key("RegressorRank", ',
        '    Key("Restlessness", "series", "measured", "mm", "Dummy.", "restless"),\n',
    ),
}
SET_KEY = {
    QUALITY_FACTS: (
        "    lost = ~quality.has_voxels",
        '    facts["Restlessness"] = 7.5\n',
    ),
}
COLUMN = {
    RESULT: (
        '    "coverage_grid": ',
        '    "edge": Column("Edge of a cube of its volume, {unit}.", "mm"),\n',
    ),
    DERIVATIVES: (
        '        "centre_offset": ',
        '        "edge": mapped.volume ** (1 / 3),\n',
    ),
}


# Generated tables of the pages, made by the copy's records.
TABLES = f"""
import importlib.util
path = {str(ROOT / "docs" / "generated.py")!r}
spec = importlib.util.spec_from_file_location("generated", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
names = ("sidecar-keys", "run-columns", "facts", "region-columns")
tables = {{name: module.TABLES[name]() for name in names}}
"""


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path / "copy")


def files_of_recipe(heading):
    """Files of the package that a recipe names, and how many places it says."""
    text = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    places = re.findall(r"(?m)^\d\. `(bids_roi/[\w/]+\.py)`", section)
    return places, set(re.findall(r"bids_roi/[\w/]+\.py", section))


def copied_outputs(copy, dataset, atlas, out, *, group=False, more="more = None"):
    """The table of regions that the copy makes, and the value of ``more`` after it."""
    asked = ["--relmat", "pearson", "--atlas-file", atlas, "--executor", "serial"]
    calls = {"made": [dataset, out, "participant", *asked, "--no-report"]}
    if group:
        calls["group"] = [dataset, out, "group", "--no-report"]
    found, value = copy.call(calls, f"out = {str(out)!r}\n{more}")
    for code, _, err in found.values():
        assert code == 0, err
    return out / FUNC / f"{STEM}_atlas-Toy_dseg.tsv", value


def test_a_sidecar_key_takes_one_place_beside_the_line_that_sets_it(
    copy, dataset, atlas, tmp_path
):
    places, named = files_of_recipe("To add a sidecar key")
    assert places == list(KEY)
    assert named == {*KEY, *SET_KEY}
    copy.add(KEY)
    copy.add(SET_KEY)
    out = tmp_path / "out"
    loaded = "more = [tables, float(bids_roi.load(out).runs()['restless'].sum())]"
    regions, (tables, total) = copied_outputs(
        copy, dataset, atlas, out, group=True, more=TABLES + loaded
    )
    row = "| `Restlessness` | series, matrices | mm | Dummy. |"
    assert row in tables["sidecar-keys"]
    assert "| `restless` | Dummy. |" in tables["run-columns"]
    assert "| `restless` | `Restlessness` | mm |" in tables["facts"]
    (series,) = out.glob("sub-01/func/*_timeseries.json")
    matrix = relmat_path(out, "pearsoncorrelation").with_suffix(".json")
    for path in (series, matrix):
        assert json.loads(path.read_text())["Restlessness"] == 7.5
    assert "Restlessness" not in json.loads(regions.with_suffix(".json").read_text())
    header, *rows = (out / "group_runs.tsv").read_text().splitlines()
    position = header.split("\t").index("restless")
    assert {row.split("\t")[position] for row in rows} == {"7.5"}
    told = json.loads((out / "group_runs.json").read_text())
    assert told["restless"] == {"Description": "Dummy."}
    (stack,) = out.glob("group_*_stack.h5")
    with h5py.File(stack) as file:
        assert file["runs/restless"][:].tolist() == [7.5, 7.5]
        assert file["runs/restless"].attrs["Units"] == "mm"
    assert total == 15


def test_a_sidecar_key_that_is_not_declared_is_refused(copy, dataset, atlas, tmp_path):
    copy.add(SET_KEY)
    with pytest.raises(AssertionError, match="declares no Restlessness for a sidecar"):
        copied_outputs(copy, dataset, atlas, tmp_path / "out")


def test_a_region_column_takes_two_places(copy, dataset, atlas, tmp_path):
    places, named = files_of_recipe("To add a region column")
    assert places == list(COLUMN)
    assert named == {*COLUMN, QUALITY}
    copy.add(COLUMN)
    loaded = "more = [tables, bids_roi.load(out).regions()['edge'].tolist()]"
    path, (tables, found) = copied_outputs(
        copy, dataset, atlas, tmp_path / "out", more=TABLES + loaded
    )
    text = "Edge of a cube of its volume, mm."
    assert f"| `edge` | {text} |" in tables["region-columns"]
    table = read_regions(path)
    names = list(table)
    assert names[names.index("edge") + 1] == "coverage_grid"
    edges, volumes = (np.array(table[k], dtype=float) for k in ("edge", "volume"))
    assert volumes.max() > 0
    assert_allclose(edges**3, volumes, rtol=1e-8)
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["edge"] == {"Description": text}
    assert found[: edges.size] == edges.tolist()


def test_a_region_column_that_is_not_declared_is_refused(
    copy, dataset, atlas, tmp_path
):
    copy.add({DERIVATIVES: COLUMN[DERIVATIVES]})
    with pytest.raises(AssertionError, match="'edge' is not in list"):
        copied_outputs(copy, dataset, atlas, tmp_path / "out")
