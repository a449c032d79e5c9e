"""The filter file and its rules, against a table, an oracle and pybids itself."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import filters, found, pick, plant

from bids_roi.dataset.layout import find_runs
from bids_roi.dataset.query import Rule, load_filters
from bids_roi.errors import UsageError
from bids_roi.options.row import Input


@pytest.mark.parametrize(
    ("bold", "expected"),
    [
        ({}, pick()),
        ({"run": None}, pick("ses-2")),
        ({"run": "*"}, pick("ses-1")),
        ({"run": [None, 1]}, sorted(pick("ses-2") + pick("run-1") + pick("run-01"))),
        ({"run": [1, "*"]}, pick("ses-1")),
        ({"run": [None, "*"]}, pick()),
        ({"run": []}, pick()),
        ({"run": "Query.NONE"}, pick("ses-2")),
        ({"run": "<Query.NONE: 1>"}, pick("ses-2")),
        ({"run": "Query.ANY"}, pick("ses-1")),
        ({"run": "Query.REQUIRED"}, pick("ses-1")),
        ({"run": "Query.OPTIONAL"}, pick()),
        ({"session": "2", "task": ["tone", "rest"]}, pick("ses-2")),
        ({"ses": "2", "space": None}, pick("ses-2_task-rest_part-mag")),
        ({"cohort": 2}, pick("cohort-2")),
        ({"cohort": None, "space": "*"}, pick("space-", without=("cohort",))),
        ({"resolution": 2}, sorted(pick("res-2") + pick("res-02"))),
        ({"datatype": "func", "suffix": "bold", "extension": "nii.gz"}, pick()),
        ({"suffix": "sbref"}, []),
        # what the file says replaces the defaults on that entity
        ({"echo": 2}, pick("echo-2", without=())),
        ({"part": "phase"}, pick("part-phase", without=())),
        ({"desc": "smooth"}, ["ses-1_task-rest_run-01"]),
    ],
)
def test_filter_file(dataset, tmp_path, bold, expected):
    path = filters(tmp_path, bold=bold, t1w={"anything": 1}, fmap={})
    assert sorted(found(dataset, bids_filter_file=path)) == expected


def test_any_entity_that_the_files_have(tmp_path):
    """C-PAC's reg-; one that no file has is a slip of the pen."""
    names = ["task-a_reg-36P", "task-a_reg-24P", "task-a"]
    root = plant(
        tmp_path / "data", *(f"sub-01_{n}_desc-preproc_bold.nii.gz" for n in names)
    )
    path = filters(tmp_path, bold={"reg": "36P"})
    assert found(root, bids_filter_file=path) == ["task-a_reg-36P"]
    path = filters(tmp_path, bold={"reg": None})
    assert found(root, bids_filter_file=path) == ["task-a"]
    path = filters(tmp_path, bold={"rge": None})
    with pytest.raises(UsageError, match="unknown entity 'rge'"):
        found(root, bids_filter_file=path)


def test_flags_narrow_the_filter_file(dataset, tmp_path):
    path = filters(tmp_path, bold={"task": "rest"})
    names = found(dataset, bids_filter_file=path, session_label=("2",))
    assert names == pick("ses-2_task-rest")


def test_pybids_agrees_on_its_own_entities(dataset, tmp_path):
    """The rules on names mean what ``BIDSLayout.get`` means, where it can say it."""
    from bids.layout import BIDSLayout, BIDSLayoutIndexer, Query

    layout = BIDSLayout(
        dataset,
        validate=False,
        is_derivative=True,
        config=["bids", "derivatives"],
        indexer=BIDSLayoutIndexer(validate=False, index_metadata=False),
    )
    base = {"suffix": "bold", "desc": "preproc", "extension": ".nii.gz"}
    words = {"*": Query.ANY, None: Query.NONE}
    for filters_ in (
        {"run": 1},
        {"run": None},
        {"run": "*"},
        {"run": [2]},
        {"space": "MNI"},
        {"space": ["MNI", None]},
        {"space": [None, "*"]},
        {"task": ["rest", "nback"], "session": "1"},
        {"echo": "*"},
        {"part": "phase"},
        {"task": []},
    ):
        query = {
            key: [words.get(v, v) for v in value]
            if isinstance(value, list)
            else words.get(value, value)
            for key, value in filters_.items()
        }
        # our defaults on these are off where pybids has none
        every = {"echo": "Query.OPTIONAL", "part": "Query.OPTIONAL"}
        path = filters(tmp_path, bold=every | filters_)
        ours = find_runs(dataset, "01", Input(bids_filter_file=path))
        theirs = layout.get(return_type="filename", **base, **query)
        assert Counter(str(r.path) for r in ours) == Counter(theirs), filters_
    layout.session.close()
    layout.connection_manager.engine.dispose()


# --- what is refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('{"bold":\n {"task": }}', r"not JSON \(line 2, column 11"),
        ("[]", "holds a list where a JSON object is needed"),
        ('{"bolt": {}}', r"unknown section 'bolt'; did you mean 'bold'\?.*confounds"),
        ('{"xyz": {}}', r"unknown section 'xyz'\. Sections are bold"),
        ('{"bold": []}', r"section 'bold' is \[\] where an object"),
        ('{"bold": {"sesion": "1"}}', r"'bold'.*'sesion'; did you mean 'session'\?"),
        ('{"mask": {"extensions": "1"}}', "did you mean 'extension'"),
        (
            '{"bold": {"regex_search": true}}',
            r"unknown entity 'regex_search'.*acq, acqu",
        ),
        ('{"bold": {"run": 1.5}}', "'run' is 1.5; a label, a number, null or a list"),
        ('{"bold": {"run": true}}', "'run' is True"),
        ('{"bold": {"run": {"a": 1}}}', "'run' is {'a': 1}"),
        ('{"bold": {"run": [[1]]}}', r"'run' is \[1\]"),
        ('{"bold": {"run": "Query.SOME"}}', r"Query\.SOME.*Use Query\.NONE"),
    ],
)
def test_refused(tmp_path, text, message):
    path = tmp_path / "filters.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_filters(path)
    assert str(caught.value).startswith(str(path))


def test_no_file_and_missing_file(tmp_path):
    assert load_filters(None) == {"bold": (), "mask": (), "confounds": ()}
    with pytest.raises(UsageError, match="cannot be read"):
        load_filters(tmp_path / "gone.json")


def test_byte_order_mark_and_long_names(tmp_path):
    path = tmp_path / "filters.json"
    path.write_text('{"bold": {"acquisition": ["a", "a", null]}}', "utf-8-sig")
    (rule,) = load_filters(path)["bold"]
    assert rule == Rule("acq", ("a",), absent=True)
    assert str(rule) == "acq a or absent"


# --- any value, against the definition ----------------------------------------------

ANY, NONE, OPTIONAL = ("*", "Query.ANY"), (None, "Query.NONE"), ("Query.OPTIONAL",)
LABELS = ["1", "01", "2", "a", "A", 1, 2]


def accepts(values, key, label):
    """The definition, case by case."""
    if not values or any(v in OPTIONAL for v in values):
        return True
    if label is None:
        return any(v in NONE for v in values)
    if any(v in ANY for v in values):
        return True
    texts = [str(v) for v in values if v not in NONE]
    if key == "run" and label in ("1", "01"):
        return "1" in texts or "01" in texts
    return label in texts


@given(
    values=st.lists(st.sampled_from([*LABELS, *ANY, *NONE, *OPTIONAL]), max_size=4),
    key=st.sampled_from(["run", "task"]),
    label=st.sampled_from([None, "1", "01", "2", "a", "A"]),
)
def test_any_value(tmp_path_factory, values, key, label):
    path = filters(tmp_path_factory.mktemp("f"), bold={key: values})
    (rule,) = load_filters(path)["bold"]
    assert rule.accepts(label) == accepts(values, key, label)
    if len(values) == 1:
        path.write_text(json.dumps({"bold": {key: values[0]}}))
        assert load_filters(path)["bold"] == (rule,)
