"""The recipe 'To add a cleaning strategy' of docs/contributing.md, as it stands there.

A copy of the package gets one more file, and nothing else. Its name is known to the
command line, its listing and the pages, and it cleans as plain least squares do.
"""

import json
import re

import numpy as np
import pytest
from support.datasets import write_atlas, write_dataset
from support.package_copy import ROOT, Copy
from support.toy_confounds import write_confounds

from bids_roi.files.tables import read_json

PRESET = {
    "name": "two_tissues",
    "label": "twotissues",
    "description": "White matter and CSF alone.",
    "components": [{"wm_csf": "basic"}],
    "settings": {"dummy_scans": 0},
}
LISTED = """
import contextlib, io
from bids_roi.confounds.strategies import list_strategies
from bids_roi.tools import main as tools
script = io.StringIO()
with contextlib.redirect_stdout(script):
    tools(["completion", "bash"])
more = [list_strategies(), script.getvalue()]
"""


def recipe():
    """Text of the section, and the places in the package that it names."""
    _, _, rest = (
        (ROOT / "docs" / "contributing.md")
        .read_text()
        .partition("## To add a cleaning strategy\n")
    )
    text, _, _ = rest.partition("\n## ")
    return text, re.findall(r"`(bids_roi/[\w/.]+)`", text)


def test_it_names_one_place():
    text, places = recipe()
    assert text.strip().startswith("One place: ")
    assert places == ["bids_roi/data/denoise/"]
    assert (ROOT / places[0]).is_dir()


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the copy says and lists, and the folder in which it wrote."""
    folder = tmp_path_factory.mktemp("recipe")
    copy = Copy(folder / "copy")
    (place,) = recipe()[1]
    (copy.folder / place / "two_tissues.json").write_text(json.dumps(PRESET))
    data = write_dataset(folder / "in", ("sub-01_task-rest",))
    table = write_confounds(data, n_volumes=12)
    columns = {name: table[name].tolist() for name in ("csf", "white_matter")}
    (folder / "columns.json").write_text(json.dumps(columns))
    common = ["--atlas-file", write_atlas(folder / "atlas"), "--executor", "serial"]
    common += ["--no-report", "--offline", "--denoise"]
    calls = {
        "made": [data, folder / "out", "participant", *common, "none", "two_tissues"],
        "misspelt": [data, folder / "x", "participant", *common, "two_tissue"],
    }
    found, listed = copy.call(calls, LISTED)
    return folder, found, listed


def test_it_is_listed_and_suggested(said):
    _, found, (names, completion) = said
    assert "two_tissues" in names
    assert re.search(r"\btwo_tissues\b", completion)
    code, _, err = found["misspelt"]
    assert code != 0
    assert "two_tissues" in err


def test_it_cleans_as_least_squares_by_hand(said):
    folder, found, _ = said
    assert found["made"][0] == 0, found["made"][2]
    func = folder / "out" / "sub-01" / "func"
    (cleaned,) = func.glob("*_desc-twotissues_timeseries.tsv")
    (raw,) = set(func.glob("*_timeseries.tsv")) - {cleaned}
    raw, told = signals(raw), read_json(cleaned.with_suffix(".json"))
    columns = json.loads((folder / "columns.json").read_text())
    design = np.column_stack([*columns.values(), np.ones(len(raw))])
    fitted = design @ np.linalg.lstsq(design, raw, rcond=None)[0]
    expected = raw - fitted + raw.mean(axis=0)  # without detrending the level stays
    np.testing.assert_allclose(signals(cleaned), expected, rtol=0, atol=1e-9)
    assert told["DenoisingStrategy"] == "two_tissues"
    assert told["DenoisingDescription"] == PRESET["description"]


def signals(path):
    """(T, R) of a table, without the region that is not in the image."""
    return np.genfromtxt(path, delimiter="\t", skip_header=1)[:, :-1]
