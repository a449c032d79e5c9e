"""Words of ours on the page for users of other tools, against the program."""

import inspect
import json
import re

import pytest
from support.doc_blocks import ROOT

import bids_roi
from bids_roi.atlases.names import SHORT_NAMES
from bids_roi.cli import main
from bids_roi.confounds.strategies import list_strategies, parse_strategy
from bids_roi.options.settings import ROWS
from bids_roi.options.table import OPTIONS

PAGE = ROOT / "docs" / "coming-from.md"
PROMISED = json.loads((ROOT / "tests/contract/columns.json").read_text())
COLUMNS = {name for names in PROMISED["columns"].values() for name in names}
KEYS = {name for names in PROMISED["sidecar keys"].values() for name in names}
FLAGS = {flag: option for option in OPTIONS for flag in option.flags}
# Values, and words of formats, that stand in backticks alone.
PLAIN = {"n/a", "null"}


def read_words():
    """What stands in backticks in the first columns of the page, each once."""
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    cells = [line.split("|")[1] for line in lines if line.startswith("| ")]
    return sorted({word for cell in cells for word in re.findall(r"`([^`]+)`", cell)})


WORDS = read_words()


def test_each_table_begins_with_bids_roi():
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    headers = [lines[n - 1] for n, line in enumerate(lines) if line.startswith("|--")]
    assert len(headers) >= 13
    assert {header.split("|")[1].strip() for header in headers} == {"bids_roi"}
    assert len([word for word in WORDS if word.startswith("--")]) > 40


@pytest.mark.parametrize("word", [w for w in WORDS if w.startswith("--")])
def test_flags_and_their_values_are_those_of_the_options(word):
    flag, _, value = word.partition(" ")
    option = FLAGS[flag]
    if flag == "--strategy" and value:
        assert value in list_strategies()
    elif flag == "--atlas" and value:
        assert value in SHORT_NAMES or re.fullmatch(r"(schaefer|difumo)\d+", value)
    elif value and option.name in ROWS and not option.choices:
        row = ROWS[option.name].values
        assert row.fits(row.read(flag, tuple(value.split()) if option.many else value))
    elif value:
        assert value in option.choices


@pytest.fixture(scope="module")
def results(demo, tmp_path_factory):
    """Both levels on a volume and a CIFTI run of the demo."""
    folder = tmp_path_factory.mktemp("coming")
    call = [demo.derivative, folder / "out", "participant"]
    call += ["--atlas-dataset", f"demo={demo.derivative.parent / 'atlas'}"]
    call += ["--strategy", "none", "36P", "--relmat", "pearson", "--cifti-output"]
    call += ["--participant-label", "02", "--session-label", "1", "--run-label", "1"]
    serial = ["--no-report", "-q", "--executor", "serial"]
    assert main([*map(str, call), *serial]) == 0
    group = [str(demo.derivative), str(folder / "out"), "group"]
    assert main([*group, *serial]) == 0
    return folder / "out"


def is_file(word):
    return word.endswith((".tsv", ".nii"))


@pytest.mark.parametrize("word", [w for w in WORDS if is_file(w)])
def test_files_are_written_under_these_names(word, results):
    assert list(results.rglob(re.sub(r"<\w+>", "36P", word)))


@pytest.mark.parametrize(
    "word", [w for w in WORDS if not (w.startswith("--") or is_file(w))]
)
def test_all_other_words_are_columns_keys_strategies_or_python(word):
    if word.startswith("bids_roi."):
        assert inspect.isfunction(getattr(bids_roi, word.removeprefix("bids_roi.")))
    elif word.startswith("{"):  # an item of a strategy file
        (kind,) = json.loads(word.replace("...", '"x"'))
        problems = []
        item = {kind: "x", "columns": ["y"]}
        assert parse_strategy({"name": "s", "components": [item]}, problems), problems
    else:
        assert word in COLUMNS | KEYS | PLAIN | set(list_strategies())
