"""Keys and columns: declared once, and nothing else gets into a sidecar."""

import json
from typing import get_args

import pytest

from bids_roi.options.settings import ROWS
from bids_roi.options.table import OPTIONS
from bids_roi.outputs import schema
from bids_roi.outputs.result import REGION_COLUMNS, Column
from bids_roi.outputs.schema import (
    COLUMNED,
    FACTS,
    KEYS,
    Key,
    format_sidecar,
    keep_keys,
)


def test_each_key_is_declared_once():
    names = [key.name for key in schema._DECLARED]
    assert len(names) == len(set(names))
    columns = [key.column for key in COLUMNED]
    assert len(columns) == len(set(columns))


def test_every_option_and_setting_that_is_recorded_has_its_key():
    """What a row tells is not told again: only its unit and words are here."""
    of_settings = {row.sidecar for row in ROWS.values()} - {""}
    assert of_settings <= KEYS.keys()
    assert not of_settings & {key.name for key in schema._DECLARED}
    assert {option.sidecar for option in OPTIONS} - {""} <= KEYS.keys()
    assert KEYS["MinimumCoverage"].unit == "0 to 1"
    assert KEYS["MinimumCoverage"].outputs == ["series", "regions", "relmat"]
    assert KEYS["FisherZ"].outputs == ["relmat"]
    assert (KEYS["FDThreshold"].role, KEYS["FDThreshold"].unit) == ("choice", "mm")
    # --dummy-scans auto: the key has the number that came of it.
    assert KEYS["DummyScans"].role == "measured"


def test_declarations_use_the_words_that_there_are():
    outputs = {*get_args(schema.Of)} - {"run"}
    for key in KEYS.values():
        assert key.of in get_args(schema.Of), key
        assert key.role in get_args(schema.Role), key
        assert {*key.outputs} <= outputs, key
        assert key.text.endswith((".", ";")), key
    # A column without a unit would be stacked as text.
    assert all(key.unit for key in FACTS)


@pytest.mark.parametrize("output", ["series", "regions", "relmat", "outliers", "group"])
def test_a_sidecar_takes_declared_keys_only(output):
    text = format_sidecar(output, {"Description": "x"}, {"Gap": "A column."})
    assert json.loads(text) == {"Description": "x", "Gap": {"Description": "A column."}}
    with pytest.raises(KeyError, match=f"declares no Gaps for a sidecar of {output}"):
        format_sidecar(output, {"Description": "x", "Gaps": 2})


def test_a_key_of_another_output_is_refused():
    assert "NodeFiles" in format_sidecar("relmat", {"NodeFiles": []})
    with pytest.raises(KeyError, match="declares no NodeFiles for a sidecar of series"):
        format_sidecar("series", {"NodeFiles": []})
    with pytest.raises(KeyError, match="declares no Warnings for a sidecar of outlier"):
        format_sidecar("outliers", {}, warnings=["x"])


def test_warnings_can_stand_behind_the_columns():
    text = format_sidecar("group", {"Atlas": "A"}, {"n": "N."}, warnings=["w"])
    assert list(json.loads(text)) == ["Atlas", "n", "Warnings"]


def test_another_output_takes_over_what_it_has_too():
    """BEP017 has no rows in a matrix: times of volumes and units are not for it."""
    series = {"RepetitionTime": 2.0, "TaskName": "rest", "Units": "x", "MapRank": 3}
    assert keep_keys(series, "relmat") == {"TaskName": "rest", "MapRank": 3}
    assert keep_keys(series, "regions") == {"RepetitionTime": 2.0, "TaskName": "rest"}


def test_where_a_key_is_follows_from_what_it_is_of():
    assert Key("A", "run", "choice", "", "x.").outputs == [
        "series",
        "regions",
        "relmat",
    ]
    assert Key("A", "series", "choice", "", "x.").outputs == ["series", "relmat"]
    assert Key("A", "group", "choice", "", "x.").outputs == ["group"]
    assert Key("A", "run", "choice", "", "x.", where="series").outputs == ["series"]


def test_a_column_tells_its_unit_once():
    assert Column("Volume, {unit}.", "mm^3").description == "Volume, mm^3."
    assert REGION_COLUMNS["x"].description.endswith("mm to the right (RAS+).")


def test_what_came_of_a_series_is_no_parameter():
    """A page lists what was chosen among the parameters, and nothing measured."""
    measured = ("RegionsWithoutSignal", "MapRank", "MapCondition", "RegressorRank")
    assert {KEYS[name].role for name in measured} == {"measured"}
