"""The recipe 'To add a cleaning setting' of docs/contributing.md, as it stands there.

A copy of the package gets one more declaration, and nothing else. The command line, the
strategy files, the sidecars and the digests of the copy must know it.
"""

import json
import re

import pytest
from support.datasets import write_atlas, write_dataset
from support.package_copy import ROOT, Copy

PAGE = ROOT / "docs" / "contributing.md"
DECLARATION = """
    spike: float | None = _setting(
        _positive("a height above 0 mm", "MM", "mm"),
        "Cut spikes higher than this, or none.",
        example=2.0,
        sidecar="SpikeHeight",
    )
"""
BEHIND = "\n\nROWS: dict"  # the first line after the fields
PAGE_OF_STRATEGIES = """
from bids_roi.confounds import strategies
more = strategies.__doc__
"""


def recipe():
    """Text of the section, and the places in the package that it names."""
    _, _, rest = PAGE.read_text().partition("## To add a cleaning setting\n")
    text, _, _ = rest.partition("\n## ")
    return text, re.findall(r"`(bids_roi/[\w/.]+)`", text)


def test_it_names_one_file_and_the_use():
    text, places = recipe()
    declared, handed_on, used = places
    assert declared == "bids_roi/options/settings.py"
    assert handed_on == "bids_roi/participant/cleaning.py"
    assert used == "bids_roi/core/"
    assert all((ROOT / place).exists() for place in places)
    assert ".ci/generate" in text


def strategy(path, **settings):
    content = {"name": path.stem, "components": [], "settings": settings}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the copy says to some calls, and the folder in which it wrote."""
    folder = tmp_path_factory.mktemp("recipe")
    copy = Copy(folder / "copy")
    copy.add({recipe()[1][0]: (BEHIND, DECLARATION)})
    data = write_dataset(folder / "in", ("sub-01_task-rest",))
    common = ["--atlas-file", write_atlas(folder / "atlas"), "--executor", "serial"]
    common += ["--no-report", "--offline", "--denoise"]
    mine = strategy(folder / "mine.json", detrend=True, spike=2.0)
    wrong = strategy(folder / "wrong.json", detrend=1, spike=-2)
    misspelt = strategy(folder / "misspelt.json", spikes=2.0)
    calls = {
        "help": ["--help"],
        "file": [data, folder / "file", "participant", *common, mine],
        "other": [data, folder / "other", "participant", *common, mine, "--spike", 3],
        "off": [data, folder / "off", "participant", *common, mine, "--spike=none"],
        "word": [data, folder / "x", "participant", *common, mine, "--spike", "high"],
        "wrong": [data, folder / "x", "participant", *common, wrong],
        "misspelt": [data, folder / "x", "participant", *common, misspelt],
        "raw": [data, folder / "x", "participant", *common, "none", "--spike", 3],
        "again": [data, folder / "file", "participant", *common, mine, "--spike", 3],
    }
    found, page = copy.call(calls, PAGE_OF_STRATEGIES)
    return folder, page, found


def sidecar(folder):
    (path,) = folder.glob("sub-01/func/*_timeseries.json")
    return json.loads(path.read_text())


def test_help_and_the_example_show_it(said):
    _, page, found = said
    code, out, _ = found["help"]
    assert code == 0
    assert re.search(r"--spike MM +Cut spikes higher than this, or none\.", out)
    assert '        "dummy_scans": "auto",' in page
    assert '        "spike": 2.0\n' in page


def test_strategy_files_take_it_and_all_mistakes_are_told(said):
    _, _, found = said
    assert found["file"][0] == 0, found["file"][2]
    code, _, err = found["wrong"]
    assert code == 65
    assert (
        "settings.detrend: true or false is needed, found 1; settings.spike: a" in err
    )
    assert "a height above 0 mm, or null for off, is needed, found -2" in err
    assert "settings.spikes: unknown key (did you mean spike?)" in found["misspelt"][2]


def test_the_command_line_replaces_it(said):
    folder, _, found = said
    assert found["other"][0] == found["off"][0] == 0
    assert sidecar(folder / "file")["SpikeHeight"] == 2
    assert sidecar(folder / "other")["SpikeHeight"] == 3
    assert "SpikeHeight" not in sidecar(folder / "off")
    definition = sidecar(folder / "off")["DenoisingDefinition"]
    assert definition["settings"]["spike"] is None
    code, _, err = found["word"]
    assert code == 64
    assert "--spike is a number or none, not 'high'." in err
    assert "raw signals, on which --spike has no effect" in found["raw"][2]


def test_outputs_that_differ_in_it_are_never_mixed(said):
    folder, _, found = said
    sidecars = [sidecar(folder / name) for name in ("file", "other", "off")]
    for key in ("OptionsDigest", "SettingsDigest"):
        assert len({content[key] for content in sidecars}) == 3
    code, _, err = found["again"]
    assert code == 1
    assert "--spike is 3.0, the outputs were made with 2.0" in err
